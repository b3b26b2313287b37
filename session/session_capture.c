/* session_capture.c - see session_capture.h. */
#include "session_capture.h"

/* The store forgets a session some time after its member did, never before. */
#define GRACE apr_time_from_sec(60)
/* How often to ask again while another response of the session is being stored. */
#define STEP apr_time_from_msec(1)

/* One after the other, never backwards (session_table.h). A newer state holds what an older one
 * held, so an older one that comes late is acknowledged by the newer one. */
static ha_put wait_turn(ha_table *table, const ha_session *s, ha_call *call, ha_version v)
{
    ha_put turn;
    for (;;) {
        apr_time_t now = apr_time_now();
        turn = ha_table_put_begin(table, &s->digest, v, now, call->deadline);
        if (turn != HA_PUT_BUSY || now >= call->deadline)
            return turn;
        apr_sleep(STEP);
    }
}

ha_capture ha_capture_put(const ha_session *s, ha_table *table, ha_call *call, const ha_record *record,
                          apr_time_t asked, const char **node)
{
    ha_value value;
    ha_blob plain;
    ha_store_trace trace = { 0 };
    ha_capture answer = HA_CAPTURE_BROKEN;
    apr_status_t rv;

    switch (wait_turn(table, s, call, record->version)) {
    case HA_PUT_FENCED:
        return HA_CAPTURE_FENCED;
    case HA_PUT_DONE:
        return HA_CAPTURE_STORED;
    case HA_PUT_BUSY:
        call->why = "an earlier backup of the session is still being written";
        return HA_CAPTURE_BROKEN;
    case HA_PUT_GO:
        break;
    }
    value.version = record->version;
    rv = ha_record_encode(record, call->pool, &plain);
    if (rv != APR_SUCCESS)
        goto leave;
    rv = ha_seal(s->secret, HA_KIND_BACKUP, &s->digest, record->version, &plain, call->pool, &value.data);
    if (rv != APR_SUCCESS)
        goto leave;
    rv = ha_store_put(s->store, call, ha_key_backup(&s->digest, call->pool), &value,
                      apr_time_now() + apr_time_from_sec((apr_time_t)record->ttl) + GRACE, &trace);
    if (rv == APR_SUCCESS)
        answer = HA_CAPTURE_STORED;
    else if (APR_STATUS_IS_ENOSPC(rv))
        answer = HA_CAPTURE_TOO_LARGE;
leave:
    ha_table_put_end(table, &s->digest, record->version, record->route, asked, answer == HA_CAPTURE_STORED);
    if (node)
        *node = trace.node;
    return answer;
}
