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
    x.patience = ha_config_member_timeout(q->cfg);
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
}

/* ---- repeating ------------------------------------------------------------------------- */

static int has_body(const request_rec *r)
{
    const char *length = apr_table_get(r->headers_in, "Content-Length");
    return (length && strcmp(length, "0") != 0) || apr_table_get(r->headers_in, "Transfer-Encoding");
}

/* Whether running it twice does no more than running it once. The operator may vouch for more of them:
 * SetEnvIf Request_URI ^/search session-ha-retry */
static int may_run_twice(const ha_request *q, const request_rec *r)
{
    int class = ha_config_retry(q->cfg);
    if (class == HA_RETRY_OFF)
        return 0;
    switch (r->method_number) {
    case M_GET:                 /* and HEAD */
    case M_OPTIONS:
    case M_TRACE:
    case M_PROPFIND:
    case M_REPORT:
        return 1;
    case M_PUT:
    case M_DELETE:
        if (class == HA_RETRY_IDEMPOTENT)
            return 1;
        break;
    }
    return apr_table_get(r->subprocess_env, "session-ha-retry") != NULL;
}

/* The connection ended before a status line came. An answer that is merely bad (a header too long, not HTTP)
 * has one, or says so in its notes; a member that is slow has a time-out noted. */
static int died_under_it(const ha_request *q, const request_rec *r, const proxy_worker *worker, int status)
{
    const char *notes;
    if (q->passed || apr_table_get(r->notes, "proxy-status") || apr_table_get(r->notes, "proxy_timedout"))
        return 0;
    notes = apr_table_get(r->notes, "error-notes");
    if (notes && ap_strstr_c(notes, "Corrupt status line"))
        return 0;
    if (strcmp(worker->s->scheme, "ajp") == 0) {
        /* mod_proxy_ajp asks for a repeat by itself (503) where the method allows it, as often as there are members.
         * A connection that was refused has put the member into error by now, one that broke has not. */
        if (status == HTTP_INTERNAL_SERVER_ERROR
            || (status == HTTP_SERVICE_UNAVAILABLE && !(worker->s->status & PROXY_WORKER_IN_ERROR)))
            return 1;
    }
    return status == HTTP_BAD_GATEWAY || status == HTTP_GATEWAY_TIME_OUT;
}

/* mod_proxy_http closes a client connection that was used before instead of answering 502: the client is
 * to try again by itself. We do that for it, so the connection is shown as new during the attempt. */
static void hide_keepalives(ha_request *q, request_rec *r)
{
    if (r->connection->keepalives && !apr_table_get(r->subprocess_env, "proxy-initial-not-pooled")) {
        q->keepalives = r->connection->keepalives;
        r->connection->keepalives = 0;
        q->hidden = 1;
    }
}

void ha_attempt_show_keepalives(ha_request *q, request_rec *r)
{
    if (q->hidden) {
        r->connection->keepalives = q->keepalives;
        q->hidden = 0;
    }
}

/* ---- "I do not have it" ------------------------------------------------------------------ */

/* The member has not run the request: look for a backup, hand it over, ask again, once. */
static void look_for_missing(ha_request *q, request_rec *r)
{
    ha_call call = { .pool = r->pool, .deadline = apr_time_now() + ha_config_store_timeout(q->cfg) };

    memset(&q->move, 0, sizeof q->move);
    q->began = apr_time_now();
    (void)ha_move_look(ha_request_session(q), &call, &q->move);
    q->from = q->worker->s->route;
    q->move.owner = q->worker->s->route;
    q->cause = "missing";
    q->slow = 1;
    if (q->move.found == HA_BACKUP_FOUND)
        q->restore = q->moved = 1;      /* out of a memory that was lost: told like any failover */
    else
        q->tell_none = 1;
}

/* ---- one attempt ---------------------------------------------------------------------------- */

static int run(ha_request *q, request_rec *r, proxy_worker *worker, proxy_server_conf *conf, char *url,
               const char *proxyname, apr_port_t proxyport)
{
    ha_wait *wait;
    int status;

    if (q->tried) {
        apr_table_unset(r->headers_in, HA_FIELD_RESTORE);
        apr_table_unset(r->notes, "proxy-status");
        apr_table_unset(r->notes, "proxy_timedout");
    }
    q->tried = 1;
    if (q->restore && !restore(q, r, worker))
        return HTTP_SERVICE_UNAVAILABLE;        /* mod_proxy marks the member and comes again with another */
    if (q->tell_none && q->captures)
        apr_table_setn(r->headers_in, HA_FIELD_RESTORE, ha_field_restore_none(r->pool, q->sid.id));
    q->tell_none = 0;
    if (q->gate && q->mode != HA_NATIVE_BACKUP && apr_table_get(r->headers_in, HA_FIELD_RESTORE) == NULL)
        ha_owner_open_gate(q);  /* the member has it: the others may come. Else when it answers (ha_response_take) */
    q->answered = q->passed = q->swallow = 0;
    q->asked = apr_time_now();
    hide_keepalives(q, r);
    wait = ha_hung_enter(r->pool, worker, q->slot, r->server, ha_config_member_timeout(q->cfg), &q->passed);
    status = proxy_run_scheme_handler(r, worker, conf, url, proxyname, proxyport);
    ha_hung_leave(wait);
    ha_attempt_show_keepalives(q, r);
    if (!q->answered)
        ha_response_take(q, r);                 /* an answer that met no filter: ProxyErrorOverride */
    return status;
}

/* What the client gets, or HTTP_SERVICE_UNAVAILABLE: mod_proxy then takes the member for dead and comes again. */
static int judge(ha_request *q, request_rec *r, proxy_worker *worker, int status)
{
    if (q->fenced) {
        /* A member that slept while its sessions moved has answered from what it had: not to the client. */
        q->fenced = 0;
        forget_answer(q, r);
        return may_run_twice(q, r) && q->repeats++ < ha_config_retry_max(q->cfg)
               && (!q->body || ha_body_play_again(q->body, r)) ? HTTP_SERVICE_UNAVAILABLE : HTTP_BAD_GATEWAY;
    }
    if (!died_under_it(q, r, worker, status))
        return status;
    if (q->slot)
        ha_member_note_error(q->slot, apr_time_now());
    if (!may_run_twice(q, r) || q->repeats >= ha_config_retry_max(q->cfg)
        || (has_body(r) && (!q->body || !ha_body_play_again(q->body, r))))
        return status == HTTP_SERVICE_UNAVAILABLE && ha_config_retry(q->cfg) != HA_RETRY_OFF ? HTTP_BAD_GATEWAY : status;
    q->repeats++;
    q->cause = "died";
    ha_manager_retried(q->balancer->s->name, worker->s->route);
    forget_answer(q, r);
    return HTTP_SERVICE_UNAVAILABLE;
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
    if (!q->body && has_body(r) && (q->captures || may_run_twice(q, r)))
        q->body = ha_body_keep(r, (apr_size_t)ha_config_retry_body(q->cfg));

    q->inside = 1;              /* what we run now comes through here again */
    status = run(q, r, worker, conf, url, proxyname, proxyport);
    if (q->missing) {
        q->missing = 0;
        q->asked_again = 1;
        forget_answer(q, r);
        if (q->body && !ha_body_play_again(q->body, r)) {
            /* the body is gone; nothing was run, the client may send it again */
            status = HA_STATUS_MISSING;
            apr_table_setn(r->err_headers_out, "Retry-After", "0");
        }
        else {
            look_for_missing(q, r);
            status = run(q, r, worker, conf, url, proxyname, proxyport);
        }
    }
    status = judge(q, r, worker, status);
    if (q->slow && status != HTTP_SERVICE_UNAVAILABLE) {
        ha_request_finish(q, r);
        ha_owner_open_gate(q);
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
