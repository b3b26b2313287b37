/* session_capture.c - see session_capture.h. */
#include "session_capture.h"

/* The store forgets a session some time after its member did, never before. */
#define GRACE apr_time_from_sec(60)
/* How often to ask again while another response of the session is being stored. */
#define STEP apr_time_from_msec(1)

/* How long a move of the session may keep its former owner's answer waiting: as long as a gate stays closed. Whoever moves it may have
 * read the backup already, and asks a store that hangs more than once; an answer that is not in there must not pass. */
#define MOVE apr_time_from_sec(10)

/* One after the other, never backwards (session_table.h). A newer state holds what an older one
 * held, so an older one that comes late is acknowledged by the newer one. */
static ha_put wait_turn(ha_table *table, const ha_session *s, ha_call *call, ha_version v)
{
    apr_interval_time_t time_out = call->deadline - apr_time_now();
    apr_time_t moved = apr_time_now() + MOVE;
    ha_put turn;

    for (;;) {
        apr_time_t now = apr_time_now();
        turn = ha_table_put_begin(table, &s->digest, v, now, call->deadline);
        if (turn == HA_PUT_MOVING && now < moved)
            call->deadline = now + time_out;    /* the store has not been asked yet */
        else if (turn != HA_PUT_BUSY || now >= call->deadline)
            return turn;
        apr_sleep(STEP);
    }
}

/* Another httpd claims first and fetches then; we store first and look for its claim then. So either it has fetched
 * what we stored, or we see its claim. */
static int claimed_elsewhere(const ha_session *s, ha_table *table, ha_call *call, const ha_record *record)
{
    ha_move m = { .epoch = record->version.epoch };
    if (ha_move_follow(s, call, &m) != APR_SUCCESS)
        return 0;
    ha_table_claimed(table, &s->digest, m.epoch, m.owner, apr_time_now());
    /* it was moved while its member lived, and this goes along: whoever moved it has waited for it */
    return m.carries.epoch != record->version.epoch || m.carries.seq < record->version.seq;
}

static apr_time_t expiry(const ha_record *record)
{
    return apr_time_now() + apr_time_from_sec((apr_time_t)record->ttl) + GRACE;
}

static ha_capture touch(const ha_session *s, ha_call *call, const ha_record *record)
{
    return ha_store_touch(s->store, call, ha_key_backup(&s->digest, record->version.epoch, call->pool), &record->version,
                          expiry(record)) == APR_SUCCESS ? HA_CAPTURE_TOUCHED : HA_CAPTURE_WANTED;
}

/* Two httpds that store two answers of one moment may both have looked before either wrote. */
static int overwritten(const ha_session *s, ha_call *call, const char *key, const ha_version *mine)
{
    ha_value there;
    return ha_store_get(s->store, call, key, &there, NULL) == APR_SUCCESS
           && (there.version.epoch < mine->epoch || (there.version.epoch == mine->epoch && there.version.seq < mine->seq));
}

/* shared: another httpd may have an older answer of the session on its way to the store, or a newer one. */
static ha_capture put(const ha_session *s, ha_call *call, const ha_record *record, int shared)
{
    ha_value value;
    ha_blob plain;
    const char *key;
    int tries = 3;
    apr_status_t rv;

    value.version = record->version;
    rv = ha_record_encode(record, call->pool, &plain);
    if (rv != APR_SUCCESS)
        return HA_CAPTURE_BROKEN;
    rv = ha_seal(s->secret, HA_KIND_BACKUP, &s->digest, record->version, &plain, call->pool, &value.data);
    if (rv != APR_SUCCESS)
        return HA_CAPTURE_BROKEN;
    key = ha_key_backup(&s->digest, record->version.epoch, call->pool);
    do {
        rv = (shared ? ha_store_put_newer : ha_store_put)(s->store, call, key, &value, expiry(record), NULL);
    } while (shared && rv == APR_SUCCESS && --tries > 0 && overwritten(s, call, key, &value.version));
    return rv == APR_SUCCESS ? HA_CAPTURE_STORED : HA_CAPTURE_BROKEN;
}

static ha_capture keep(const ha_session *s, ha_table *table, ha_call *call, const ha_record *record, apr_time_t asked,
                       int shared, int without)
{
    ha_capture answer = HA_CAPTURE_WANTED;
    int kept;

    switch (wait_turn(table, s, call, record->version)) {
    case HA_PUT_FENCED:
        return HA_CAPTURE_FENCED;
    case HA_PUT_DONE:           /* a newer one is, but whether the session was ours then its own request is finding out */
        return shared && claimed_elsewhere(s, table, call, record) ? HA_CAPTURE_FENCED : HA_CAPTURE_STORED;
    case HA_PUT_BUSY:
        call->why = "an earlier backup of the session is still being written";
        return without ? HA_CAPTURE_WANTED : HA_CAPTURE_BROKEN;
    case HA_PUT_MOVING:
        call->why = "the session is being moved";
        return HA_CAPTURE_FENCED;
    case HA_PUT_SAME:
        answer = touch(s, call, record);    /* a node that has lost its copy is given it again by a put */
        break;
    case HA_PUT_GO:
        break;
    }
    if (answer == HA_CAPTURE_WANTED && !without)
        answer = put(s, call, record, shared);
    kept = answer == HA_CAPTURE_STORED || answer == HA_CAPTURE_TOUCHED;
    ha_table_put_end(table, &s->digest, record->version, record->route, asked,
                     !kept ? HA_ACK_NONE : record->gone ? HA_ACK_STONE : HA_ACK_STATE);
    if (shared && kept && claimed_elsewhere(s, table, call, record))
        answer = HA_CAPTURE_FENCED;
    return answer;
}

ha_capture ha_capture_put(const ha_session *s, ha_table *table, ha_call *call, const ha_record *record,
                          apr_time_t asked, int shared)
{
    return keep(s, table, call, record, asked, shared, 0);
}

ha_capture ha_capture_known(const ha_session *s, ha_table *table, ha_call *call, const ha_record *record,
                            apr_time_t asked, int shared)
{
    return keep(s, table, call, record, asked, shared, 1);
}
