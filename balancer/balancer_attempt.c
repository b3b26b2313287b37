/* balancer_attempt.c - one attempt at one member: hand the session over first if it needs it, run the scheme's own
 * handler, and judge what came back.
 *
 * A member that died is left to mod_proxy's own loop: HTTP_SERVICE_UNAVAILABLE makes it mark the member and come again
 * with another. A member that lives but is the wrong one (it does not have the session, the session has left it) must
 * not be marked; then the owner's handler is run from here.
 */
#include "httpd.h"
#include "apr_strings.h"
#include "http_log.h"
#include "http_protocol.h"

#include "balancer_request.h"

APLOG_USE_MODULE(session_ha);

#define CLAIM apr_time_from_sec(1)
#define CLAIM_POLL apr_time_from_msec(10)
#define OWNERS_MAX 3            /* that are asked from here, one after the other */

/* What mod_proxy has called us with. */
typedef struct attempt {
    proxy_worker *worker;
    proxy_server_conf *conf;
    char *url;
    const char *proxyname;
    apr_port_t proxyport;
} attempt;

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
    if (q->sid.route) {
        const proxy_balancer_shared *b = q->balancer->s;
        apr_table_setn(r->subprocess_env, "BALANCER_SESSION_ROUTE", q->sid.route);
        apr_table_setn(r->subprocess_env, "BALANCER_SESSION_STICKY", q->sid.place == HA_ID_PATH ? b->sticky_path : b->sticky);
    }
}

/* ---- at one member --------------------------------------------------------------------------- */

static void ask(ha_request *q, proxy_worker *worker)
{
    q->worker = worker;
    q->slot = q->home && q->home->worker == worker ? q->home->slot : ha_members_slot(q->balancer, worker);
}

/* ProxyErrorOverride: an answer, but no part of it passes. No answer at all looks alike, and is none: the member
 * has not run the request. */
static int met_no_filter(const ha_request *q, const request_rec *r)
{
    if (strcmp(q->worker->s->scheme, "http") == 0 || strcmp(q->worker->s->scheme, "https") == 0)
        return apr_table_get(r->notes, "proxy-status") != NULL;
    return !apr_is_empty_table(r->headers_out);
}

static int run(ha_request *q, request_rec *r, const attempt *a, proxy_worker *worker, char *url)
{
    apr_interval_time_t patience = ha_config_member_timeout(q->cfg);
    ha_wait *wait;
    int status;

    if (q->tried) {
        apr_table_unset(r->headers_in, HA_FIELD_RESTORE);
        apr_table_unset(r->notes, "proxy-status");
        apr_table_unset(r->notes, "proxy_timedout");
    }
    q->tried = 1;
    q->in_field = 0;
    ask(q, worker);
    if (q->restore) {
        apr_time_t since = apr_time_now();
        if (!ha_restore(q, r, worker))
            return HTTP_SERVICE_UNAVAILABLE;
        if (!q->in_field && !q->tell_none)
            ha_owner_has_it(q, since);
    }
    if (q->tell_none && q->captures)
        apr_table_setn(r->headers_in, HA_FIELD_RESTORE, ha_field_restore_none(r->pool, q->sid.id));
    q->tell_none = 0;
    if (q->gate && q->mode != HA_NATIVE_BACKUP && !q->in_field)
        ha_owner_open_gate(q);  /* the member has it: the others may come. Else when it answers (ha_response_take) */
    q->answered = q->passed = q->swallow = 0;
    q->watched = patience > 0;
    q->heard = 0;
    q->asked = apr_time_now();
    ha_repeat_hide_keepalives(q, r);
    ha_interim_enter(q, r, worker);
    wait = patience > 0 ? ha_hung_enter(r->pool, worker, q->slot, r->server, patience, &q->heard) : NULL;
    status = proxy_run_scheme_handler(r, worker, a->conf, url, a->proxyname, a->proxyport);
    if (wait)
        ha_hung_leave(wait);
    ha_interim_leave(q, r);
    ha_repeat_show_keepalives(q, r);
    if (!q->answered && met_no_filter(q, r))
        ha_response_take(q, r);
    return status;
}

/* ---- at the owner, whoever was chosen ---------------------------------------------------------- */

/* The URL at another member: the same path behind its name. NULL: its form is not what we know. */
static char *url_at(const attempt *a, const proxy_worker *worker, apr_pool_t *p)
{
    const char *name = a->worker->s->name_ex;
    apr_size_t len = strlen(name);
    return strncmp(a->url, name, len) == 0 ? apr_pstrcat(p, worker->s->name_ex, a->url + len, NULL) : NULL;
}

static int run_at_owner(ha_request *q, request_rec *r, const attempt *a)
{
    int n, status = HTTP_BAD_GATEWAY;

    for (n = 0; n < OWNERS_MAX; n++) {
        proxy_worker *w = a->worker;
        char *url = a->url;
        if (ha_owner_locate(q, r)) {
            const ha_member_view *owner = ha_members_find(q->balancer, q->move.owner, strlen(q->move.owner));
            char *there = owner && owner->worker != w ? url_at(a, owner->worker, r->pool) : NULL;
            if (there && ap_proxy_initialize_worker(owner->worker, r->server, a->conf->pool) == APR_SUCCESS) {
                w = owner->worker;
                url = there;
                apr_table_setn(r->subprocess_env, "BALANCER_WORKER_NAME", w->s->name_ex);
                apr_table_setn(r->subprocess_env, "BALANCER_WORKER_ROUTE", w->s->route);
                apr_table_setn(r->subprocess_env, "BALANCER_ROUTE_CHANGED", "1");
            }
        }
        if (n > 0 && !ha_repeat_prepare(q, r))
            return HTTP_BAD_GATEWAY;
        status = run(q, r, a, w, url);
        if (status != HTTP_SERVICE_UNAVAILABLE || w == a->worker)
            return status;
        ha_members_disable(w);
        ha_members_error(q->slot, apr_time_now());
    }
    return HTTP_BAD_GATEWAY;    /* not 503: mod_proxy would mark a member that lives */
}

/* Chosen for the session, or only for want of it: its own went into error between our look and
 * mod_proxy_balancer's. */
static int is_wrong_member(const ha_request *q, const proxy_worker *worker)
{
    if (q->sid.id == NULL || q->sid.route == NULL || !*worker->s->route)
        return 0;
    if (q->slow)
        return q->move.owner && strcmp(worker->s->route, q->move.owner) != 0;
    return q->home && q->home->worker != worker && !q->balancer->s->sticky_force;
}

/* The session has left the member: another httpd had asked for that, and is about to claim it, or has. If it does not (it could not, or
 * was killed), the session lives where it was. */
static void wait_for_claim(ha_request *q, request_rec *r)
{
    apr_time_t bound = apr_time_now() + CLAIM;
    apr_status_t rv;

    do {
        ha_call call = { .pool = r->pool, .deadline = apr_time_now() + ha_config_store_timeout(q->cfg) };
        ha_move m = { .epoch = q->move.epoch };
        rv = ha_move_follow(ha_request_session(q), &call, &m);
        if (APR_STATUS_IS_NOTFOUND(rv))
            apr_sleep(CLAIM_POLL);
    } while (APR_STATUS_IS_NOTFOUND(rv) && apr_time_now() < bound);
}

/* "I do not have it, and have not run the request." If there is a backup of it that this very member made,
 * the member has lost its memory, and all its sessions have to be handed to it again. */
static int answer_missing(ha_request *q, request_rec *r, const attempt *a)
{
    ha_call call = { .pool = r->pool, .deadline = apr_time_now() + ha_config_store_timeout(q->cfg) };
    ha_move before = q->move;
    proxy_worker *asked = q->worker;
    ha_owner own = { .gate = 0 };
    int status;

    q->asked_again = 1;
    if (!ha_repeat_prepare(q, r)) {
        apr_table_setn(r->err_headers_out, "Retry-After", "0");
        r->status_line = "425 Too Early";       /* nothing was run: the client may send it again */
        return HA_STATUS_MISSING;
    }
    memset(&q->move, 0, sizeof q->move);
    if (!q->decided) {
        q->began = apr_time_now();
        q->cause = "missing";
    }
    q->slow = 1;
    (void)ha_table_owner(ha_request_table(), &ha_request_session(q)->digest, &own);
    q->move.least = own.acked;
    q->move.shared = ha_peers_present(q->balancer);
    (void)ha_move_look(ha_request_session(q), &call, &q->move);
    if (q->move.found != HA_BACKUP_FOUND) {
        if (q->decided) {       /* moved here without a backup: that is what is told */
            before.trips += q->move.trips;
            q->move = before;
        }
        else if (q->move.found == HA_BACKUP_ABSENT) {
            ha_table_lost(ha_request_table(), &q->session.digest, own.acked);
            if (q->move.outdated) {     /* not an id that somebody made up: it was here, and is lost */
                q->from = q->move.owner = asked->s->route;
                q->outcome = HA_MISSING;
                q->decided = 1;
            }
        }
        q->tell_none = 1;
        return run(q, r, a, asked, asked == a->worker ? a->url : url_at(a, asked, r->pool));
    }
    if (q->left)
        wait_for_claim(q, r);
    else {
        if (q->slot && q->move.owner && strcmp(q->move.owner, q->worker->s->route) == 0)
            ha_members_error(q->slot, q->asked);
        q->from = q->worker->s->route;
        q->told = 1;
    }
    ha_owner_doubt(q);          /* it may be the owner by our own word, and not have been given it */
    status = run_at_owner(q, r, a);
    return status;
}

/* ---- the verdict ------------------------------------------------------------------------------------ */

/* What the client gets, or HTTP_SERVICE_UNAVAILABLE: mod_proxy then takes the member for dead and comes again. */
static int judge(ha_request *q, request_rec *r, int status)
{
    if (!ha_repeat_died(q, r, status))
        return status;
    ha_members_error(q->slot, apr_time_now());
    if (!ha_repeat_allowed(q, r) || q->repeats >= ha_config_retry_max(q->cfg) || (q->body == NULL && q->has_body)
        || (q->body && !ha_body_whole(q->body)))
        /* mod_proxy_ajp's own 503 would be repeated without an end */
        return status == HTTP_SERVICE_UNAVAILABLE && ha_config_retry(q->cfg) != HA_RETRY_OFF ? HTTP_BAD_GATEWAY : status;
    (void)ha_repeat_prepare(q, r);
    q->repeats++;
    q->cause = "died";
    ha_manager_retried(q->balancer->s->name, q->worker->s->route);
    return HTTP_SERVICE_UNAVAILABLE;
}

/* A member that slept while its sessions moved has answered from what it had: not to the client. It lives, so it is
 * not marked; the owner is asked if that is harmless. */
static int answer_fenced(ha_request *q, request_rec *r, const attempt *a)
{
    int allowed = ha_repeat_allowed(q, r) && q->repeats < ha_config_retry_max(q->cfg);
    ha_owner_doubt(q);
    if (!ha_repeat_prepare(q, r) || !allowed)
        return HTTP_BAD_GATEWAY;
    q->repeats++;
    ha_manager_retried(q->balancer->s->name, q->worker->s->route);
    memset(&q->move, 0, sizeof q->move);
    return run_at_owner(q, r, a);
}

static HA_APART int attempt_it(request_rec *r, proxy_worker *worker, proxy_server_conf *conf, char *url,
                               const char *proxyname, apr_port_t proxyport)
{
    ha_request *q = ha_request_of(r);
    attempt a = { worker, conf, url, proxyname, proxyport };
    int status;

    if (q->steer)
        take_out(q, r, &a.url);
    if (!q->filtered) {
        if (q->captures)        /* added: the client's own was taken away */
            apr_table_addn(r->headers_in, HA_FIELD_ACCEPT, "v=1, inline=" APR_STRINGIFY(HA_INLINE_MAX));
        ha_response_insert(q, r);
    }
    if (!q->body && q->has_body && (q->captures || ha_repeat_allowed(q, r)))
        q->body = ha_body_keep(r, (apr_size_t)ha_config_retry_body(q->cfg));

    q->inside = 1;              /* what we run now comes through here again */
    /* A body that cannot be sent twice goes only to a member that has the session: it could say "missing". */
    if (q->has_body && q->captures && !q->looked && q->sid.id && q->sid.route && !ha_repeat_fits(q, r))
        q->doubt = !ha_owner_is_sure(q);
    if (q->doubt || is_wrong_member(q, worker))
        status = run_at_owner(q, r, &a);
    else
        status = run(q, r, &a, worker, a.url);
    /* each may lead to the other; the first is asked once, the second takes of the repeats */
    while (q->missing || q->fenced) {
        int fenced = q->fenced;
        q->missing = q->fenced = 0;
        status = fenced ? answer_fenced(q, r, &a) : answer_missing(q, r, &a);
    }
    status = judge(q, r, status);
    if (q->slow && status != HTTP_SERVICE_UNAVAILABLE) {
        ha_request_finish(q, r);
        ha_owner_open_gate(q);
    }
    if (status != HTTP_SERVICE_UNAVAILABLE)
        ha_transit_leave(q);
    q->inside = 0;
    return status;
}

static int ha_scheme_handler(request_rec *r, proxy_worker *worker, proxy_server_conf *conf, char *url,
                             const char *proxyname, apr_port_t proxyport)
{
    const ha_request *q = ha_request_of(r);
    return q && !q->inside ? attempt_it(r, worker, conf, url, proxyname, proxyport) : DECLINED;
}

void ha_attempt_hooks(void)
{
    static const char *const before[] = {
        "mod_proxy_http.c", "mod_proxy_ajp.c", "mod_proxy_http2.c", "mod_proxy_wstunnel.c", "mod_proxy_fcgi.c",
        "mod_proxy_scgi.c", "mod_proxy_uwsgi.c", NULL };
    proxy_hook_scheme_handler(ha_scheme_handler, NULL, before, APR_HOOK_FIRST);
}
