/* balancer_attempt.c - one attempt at one member: hand the session over first if it needs it, run the
 * scheme's own handler, and judge what came back.
 */
#include "httpd.h"
#include "apr_strings.h"
#include "http_log.h"
#include "http_protocol.h"

#include "balancer_request.h"

APLOG_USE_MODULE(session_ha);

/* ---- the restore ------------------------------------------------------------------ */

static apr_status_t state_bytes(const ha_record *record, apr_pool_t *p, ha_blob *out)
{
    if (record->base64)
        return ha_field_base64_decode(&record->state, p, out);
    *out = record->state;
    return APR_SUCCESS;
}

/* Small states go with the request itself, large ones ahead of it. */
static ha_outcome hand_over(ha_request *q, request_rec *r, proxy_worker *worker, const char **why)
{
    const ha_record *record = &q->move.record;
    ha_version version = { q->move.epoch, record->version.seq };
    const char *mac;
    ha_exchange x;
    ha_blob state;

    if (state_bytes(record, r->pool, &state) != APR_SUCCESS) {
        *why = "the member's state is not base64";
        return HA_MISSING;
    }
    q->bytes = state.len;
    mac = ha_mac_restore(q->session.secret, q->sid.id, version, &state, r->pool);
    if (state.len <= HA_INLINE_MAX) {
        const char *text = record->base64 ? apr_pstrmemdup(r->pool, record->state.data, record->state.len)
                                          : ha_field_base64_encode(&state, r->pool);
        apr_table_setn(r->headers_in, HA_FIELD_RESTORE, ha_field_restore(r->pool, q->sid.id, version, text, mac));
        return HA_RESTORED;
    }
    memset(&x, 0, sizeof x);
    ha_exchange_from(&x, r, q->conf, worker, r->pool);
    x.method = "PUT";
    x.path = record->at[0] ? record->at : HA_WELL_KNOWN;
    x.field = HA_FIELD_RESTORE;
    x.value = ha_field_restore(r->pool, q->sid.id, version, NULL, mac);
    x.body = state;
    if (ha_exchange_run(&x, r->pool) != APR_SUCCESS) {
        *why = "the member did not answer the restore";
        return HA_UNAVAILABLE;
    }
    if (x.status == 204 || x.status == 200 || x.status == 412)
        return HA_RESTORED;     /* 412: what it holds is as new or newer */
    *why = apr_psprintf(r->pool, "the member answered the restore with %d", x.status);
    return HA_REFUSED;
}

/* 0: the member is dead or deaf, do not ask it. */
static int restore(ha_request *q, request_rec *r, proxy_worker *worker)
{
    const char *why = NULL;
    ha_outcome outcome = hand_over(q, r, worker, &why);
    if (outcome == HA_UNAVAILABLE)
        return 0;
    if (outcome != HA_RESTORED || q->moved) {
        q->outcome = outcome;
        q->decided = 1;
        if (why)
            q->move.why = why;
    }
    q->restore = 0;
    return 1;
}

/* ---- before and after ---------------------------------------------------------------- */

/* The steering parameter out of the URL again; it has kept its form through canonicalisation. */
static void take_out(ha_request *q, request_rec *r, char **url)
{
    const char *word = q->steer + 1;        /* the slash before it stays the path's own */
    apr_size_t len = strlen(word);
    char *at = ap_strstr(*url, word);
    if (at) {
        *url = apr_pstrcat(r->pool, apr_pstrndup(r->pool, *url, (apr_size_t)(at - *url)),
                           at[len] == '/' ? at + len + 1 : at + len, NULL);
        if (r->filename && ap_strstr_c(r->filename, word))
            r->filename = apr_pstrcat(r->pool, "proxy:", *url, NULL);
    }
    q->steer = NULL;
    if (q->to && q->sid.route && strcmp(q->to, q->sid.route) != 0)
        apr_table_setn(r->subprocess_env, "BALANCER_ROUTE_CHANGED", "1");
    if (q->sid.route)
        apr_table_setn(r->subprocess_env, "BALANCER_SESSION_ROUTE", q->sid.route);
}

/* As if the member had never answered. */
static void forget_answer(ha_request *q, request_rec *r)
{
    r->status = HTTP_OK;
    r->status_line = NULL;
    apr_table_clear(r->headers_out);
    apr_table_clear(r->err_headers_out);
    r->content_type = NULL;
    r->content_encoding = NULL;
    apr_table_unset(r->notes, "error-notes");
    apr_table_unset(r->notes, "verbose-error-to");
    apr_table_unset(r->notes, "proxy_timedout");
    q->answered = q->swallow = 0;
}

static int has_body(const request_rec *r)
{
    return r->read_length > 0 || apr_table_get(r->headers_in, "Transfer-Encoding")
           || (apr_table_get(r->headers_in, "Content-Length")
               && strcmp(apr_table_get(r->headers_in, "Content-Length"), "0") != 0);
}

/* "I do not have it, and have not run the request": look for a backup, and ask again, once. The session may
 * live at another member by now, then mod_proxy's loop takes it there. */
static int answer_missing(ha_request *q, request_rec *r)
{
    ha_call call = { .pool = r->pool, .deadline = apr_time_now() + ha_config_store_timeout(q->cfg) };

    q->missing = 0;
    q->asked_again = 1;
    memset(&q->move, 0, sizeof q->move);
    (void)ha_move_look(ha_request_session(q), &call, &q->move);
    q->from = q->sid.route;
    q->cause = "missing";
    q->began = q->began ? q->began : apr_time_now();
    q->slow = 1;
    q->move.owner = q->worker->s->route;
    switch (q->move.found) {
    case HA_BACKUP_FOUND:
        q->restore = 1;
        q->moved = 1;           /* out of the member's lost memory: counted like any failover */
        break;
    default:
        q->tell_none = 1;
        break;
    }
    return 1;
}

static int run(ha_request *q, request_rec *r, proxy_worker *worker, proxy_server_conf *conf, char *url,
               const char *proxyname, apr_port_t proxyport)
{
    int status;

    apr_table_unset(r->headers_in, HA_FIELD_RESTORE);
    if (q->restore && !restore(q, r, worker))
        return HTTP_SERVICE_UNAVAILABLE;        /* mod_proxy marks the member and comes again with another */
    if (q->tell_none && q->captures)
        apr_table_setn(r->headers_in, HA_FIELD_RESTORE, ha_field_restore_none(r->pool, q->sid.id));
    q->tell_none = 0;
    if (q->gate && q->mode != HA_NATIVE_BACKUP && apr_table_get(r->headers_in, HA_FIELD_RESTORE) == NULL)
        ha_owner_open_gate(q);  /* the member has it: the others may come. Else when it answers (ha_response_take) */
    q->asked = apr_time_now();
    status = proxy_run_scheme_handler(r, worker, conf, url, proxyname, proxyport);
    if (!q->answered)
        ha_response_take(q, r);                 /* an answer that met no filter: ProxyErrorOverride */
    return status;
}

static int ha_scheme_handler(request_rec *r, proxy_worker *worker, proxy_server_conf *conf, char *url,
                             const char *proxyname, apr_port_t proxyport)
{
    ha_request *q = ha_request_of(r);
    int status;

    if (q == NULL || q->inside)
        return DECLINED;
    if (q->steer)
        take_out(q, r, &url);
    q->worker = worker;
    q->slot = q->home && q->home->worker == worker ? q->home->slot : ha_members_slot(q->balancer, worker);
    if (q->captures)
        apr_table_setn(r->headers_in, HA_FIELD_ACCEPT, "v=1, inline=" APR_STRINGIFY(HA_INLINE_MAX));
    if (!q->filtered)
        ha_response_insert(q, r);
    q->answered = q->swallow = 0;

    q->inside = 1;
    status = run(q, r, worker, conf, url, proxyname, proxyport);
    if (q->missing && !has_body(r) && answer_missing(q, r)) {
        forget_answer(q, r);
        status = run(q, r, worker, conf, url, proxyname, proxyport);
    }
    if (q->fenced) {
        /* A member that slept while its sessions moved has answered from what it had. A safe request goes on to
         * the session's owner in mod_proxy's loop; one with side effects is not run twice. */
        forget_answer(q, r);
        status = r->method_number == M_GET || r->method_number == M_OPTIONS ? HTTP_SERVICE_UNAVAILABLE : HTTP_BAD_GATEWAY;
        q->fenced = 0;
    }
    q->inside = 0;
    return status;
}

void ha_attempt_hooks(apr_pool_t *p)
{
    static const char *const before[] = {
        "mod_proxy_http.c", "mod_proxy_ajp.c", "mod_proxy_http2.c", "mod_proxy_wstunnel.c", "mod_proxy_fcgi.c",
        "mod_proxy_scgi.c", "mod_proxy_uwsgi.c", NULL };
    proxy_hook_scheme_handler(ha_scheme_handler, NULL, before, APR_HOOK_FIRST);
}
