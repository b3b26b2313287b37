/* balancer_restore.c - give a member the session's backup.
 *
 * A small state goes in a field of the request itself: that saves a round trip, and asks nothing of the adapter but to
 * read it. A large one goes ahead by PUT, and so does any state of a member that has said where (`at`): then the others
 * of the session need not wait until this request is answered, and the state does not have to fit into the member's
 * header limit beside the client's cookies.
 */
#include "httpd.h"
#include "apr_strings.h"
#include "http_log.h"

#include "../session/session_pack.h"
#include "balancer_request.h"

APLOG_USE_MODULE(session_ha);

/* Who claims a session hands over what its former owner told last. Others who come before its new owner has told anything do
 * so too, but may have found something newer meanwhile, that came too late and was fenced; and the member may have run requests in what it
 * got first. It can tell, and we cannot. */
static int is_late(const ha_request *q)
{
    return q->move.record.version.epoch < q->move.epoch && (!q->moved || ha_peers_present(q->balancer));
}

static const char *inline_field(ha_request *q, request_rec *r, ha_version version, const ha_blob *state, const char *mac)
{
    const ha_record *record = &q->move.record;
    const char *text = record->base64 ? apr_pstrmemdup(r->pool, record->state.data, record->state.len)
                                      : ha_field_base64_encode(state, r->pool);
    return ha_field_restore(r->pool, q->sid.id, version, text, mac, is_late(q));
}

/* The member that recorded the `at` may have served a PUT there, and this one does not. */
static int has_no_such_thing(int status)
{
    return status == HTTP_NOT_FOUND || status == HTTP_METHOD_NOT_ALLOWED || status == HTTP_GONE || status == HTTP_NOT_IMPLEMENTED;
}

/* HA_UNAVAILABLE: the member did not answer. */
static ha_outcome hand_over(ha_request *q, request_rec *r, proxy_worker *worker)
{
    const ha_record *record = &q->move.record;
    ha_version version = { q->move.epoch, record->version.seq };
    const char *mac;
    ha_exchange x = { 0 };
    ha_blob state;

    if (ha_unpack(record, (apr_size_t)ha_config_max_size(q->cfg), r->pool, &state, &q->move.why) != APR_SUCCESS)
        return HA_MISSING;
    q->bytes = state.len;
    mac = ha_mac_restore(q->session.secret, q->sid.id, version, &state, r->pool);
    if (record->at[0] || state.len > HA_INLINE_MAX) {
        ha_exchange_from(&x, q, r, worker, r->pool);
        x.method = "PUT";
        x.path = record->at[0] ? record->at : HA_WELL_KNOWN;
        x.field = HA_FIELD_RESTORE;
        x.value = ha_field_restore(r->pool, q->sid.id, version, NULL, mac, is_late(q));
        x.body = state;
        if (ha_exchange_run(&x, r->pool) != APR_SUCCESS) {
            q->move.why = "the member did not answer the restore";
            return HA_UNAVAILABLE;
        }
        if (x.status == 204 || x.status == 412)
            return HA_RESTORED;     /* 412: what it holds is as new or newer */
        if (!has_no_such_thing(x.status) || state.len > HA_INLINE_MAX) {
            q->move.why = apr_psprintf(r->pool, "the member answered the restore with %d", x.status);
            return HA_REFUSED;
        }
    }
    apr_table_setn(r->headers_in, HA_FIELD_RESTORE, inline_field(q, r, version, &state, mac));
    q->in_field = 1;
    return HA_RESTORED;
}

/* The session has come here by a claim, and its owner has told nothing since. Whoever claimed it tells of the move when the
 * member has the session; if it failed before that (no member could be reached, the child was killed), we are the one. */
static int ends_a_move(const ha_request *q, const proxy_worker *worker)
{
    const ha_record *record = &q->move.record;
    return record->version.epoch < q->move.epoch && record->route[0] && strcmp(record->route, worker->s->route) != 0;
}

int ha_restore(ha_request *q, request_rec *r, proxy_worker *worker)
{
    ha_outcome outcome = hand_over(q, r, worker);
    int ends;

    if (outcome == HA_UNAVAILABLE)
        return 0;
    q->restore = 0;
    ends = !q->moved && !q->told && ends_a_move(q, worker);
    if (ends)
        q->from = q->move.record.route;
    if (outcome != HA_RESTORED)
        q->tell_none = 1;       /* or it may ask for what it does not want */
    if (outcome != HA_RESTORED || q->moved || q->told || ends) {
        q->outcome = outcome;
        q->decided = 1;
    }
    return 1;
}
