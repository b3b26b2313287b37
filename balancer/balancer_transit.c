/* balancer_transit.c - sessions that move while their member lives: off a draining member (SessionHADrain move), and back
 * home after an error (SessionHAFailback home).
 *
 * Nothing is wrong with the member, so nothing may be lost and nobody may notice. A session is moved by one of its own
 * requests, when none of the others is running: the request closes the gate, waits until the others are out, and
 * moves the session as a failover does. A request is out when its answer has come and its backup is stored: what is still
 * to be sent, a stream or a tunnel, stays with the member. For that, requests are counted in and out in the shared table; only while a
 * member is draining or has come back, so the healthy path pays one look at a flag. Requests that began before the
 * counting are given SETTLE to end; what runs longer is fenced, as ever. Where there are other httpds, whose requests we cannot
 * count, the member is asked to let the session leave (doc/protocol.md).
 */
#include "httpd.h"
#include "apr_strings.h"
#include "http_log.h"

#include "balancer_request.h"

APLOG_USE_MODULE(session_ha);

#define SETTLE apr_time_from_sec(3)
#define WELL apr_time_from_sec(2)       /* a member has to be back for that long before sessions go home */
#define POLL apr_time_from_msec(2)
#define ASK apr_time_from_msec(10)
#define OTHERS apr_time_from_sec(5)     /* how long the others' requests are waited for; then the session stays, */
#define STAYS apr_time_from_sec(10)     /* for that long: with a long poll always open, each request would wait */

static int is_draining(const ha_member_view *m)
{
    return (m->worker->s->status & PROXY_WORKER_DRAIN) != 0;
}

void ha_transit_look(ha_transit *t, proxy_balancer *b, const ha_config *cfg, const ha_member_view *views, int n,
                     apr_time_t now)
{
    apr_time_t ttl = apr_time_from_sec(ha_config_ttl(cfg));
    int i, on = 0;

    for (i = 0; i < n; i++) {
        const ha_member_view *m = &views[i];
        apr_time_t doubt = m->slot ? ha_member_last_doubt(m->slot) : 0;
        if (ha_config_drain_moves(cfg) && is_draining(m)) {
            ha_members_left(m->slot, now);      /* before the first one goes: the other httpds hear of it meanwhile */
            on = 1;
        }
        else if (ha_config_failback_rate(cfg) && doubt && doubt + ttl > now && PROXY_WORKER_IS_USABLE(m->worker))
            on = 1;
    }
    if (on || t->on)
        t->since = ha_peers_transit(b, on, now);
    t->on = on;
}

/* ---- in and out --------------------------------------------------------------------------- */

static apr_status_t leave_cleanup(void *q)
{
    ha_transit_leave(q);
    return APR_SUCCESS;
}

static int enter(ha_request *q, request_rec *r)
{
    if (!ha_table_enter(ha_request_table(), &q->session.digest, apr_time_now(), q->gate))
        return 0;
    q->entered = 1;
    apr_pool_cleanup_register(r->pool, q, leave_cleanup, apr_pool_cleanup_null);
    return 1;
}

void ha_transit_leave(ha_request *q)
{
    if (q->entered) {
        q->entered = 0;
        ha_table_leave(ha_request_table(), &q->session.digest);
    }
}

/* ---- where to ------------------------------------------------------------------------------- */

static const ha_member_view *find(const ha_request *q, const char *route)
{
    return ha_members_find(q->balancer, route, strlen(route));
}

/* The member that the session should be moved to now; NULL: it stays where it is. */
static const ha_member_view *heir_of(ha_request *q, request_rec *r, const ha_member_view *here, const ha_owner *own,
                                     const char **cause)
{
    const ha_member_view *m;
    apr_time_t now = apr_time_now();

    if (now - here->transit->since < SETTLE || own->stays > now)
        return NULL;
    if (ha_config_drain_moves(q->cfg) && is_draining(here)) {
        *cause = "drained";
        m = ha_members_choose(q->balancer, r, q->conf, NULL, &q->session.digest, 0);
        return m && m != here && !is_draining(m) ? m : NULL;
    }
    if (ha_config_failback_rate(q->cfg) && own->home[0] && (m = find(q, own->home)) != NULL && m != here
        && PROXY_WORKER_IS_USABLE(m->worker) && !is_draining(m)
        && (m->slot == NULL || ha_member_last_doubt(m->slot) + WELL < now)
        && ha_peers_token((apr_uint32_t)ha_config_failback_rate(q->cfg))) {
        *cause = "home";
        return m;
    }
    return NULL;
}

/* ---- the move ----------------------------------------------------------------------------------- */

static int others_are_out(const ha_request *q, apr_time_t bound)
{
    while (!ha_table_empty(ha_request_table(), &q->session.digest, apr_time_now())) {
        if (apr_time_now() >= bound)
            return 0;
        apr_sleep(POLL);
    }
    return 1;
}

/* Requests of the session may run at the member that have come through other httpds. It lets no more begin, and says when the last one
 * has ended; from then on it answers nobody from its copy. told: how new that is. 0: they do not end. */
static int others_have_left(ha_request *q, request_rec *r, const ha_member_view *here, apr_time_t bound, ha_version *told)
{
    apr_pool_t *p;
    int done = 0;

    apr_pool_create(&p, r->pool);
    while (!done) {
        ha_exchange x = { 0 };
        ha_field_backup field;
        const char *why;
        apr_int64_t now = apr_time_sec(apr_time_now());

        ha_exchange_from(&x, q, r, here->worker, p);
        x.method = "GET";
        x.path = q->move.record.at[0] ? q->move.record.at : HA_WELL_KNOWN;
        x.field = HA_FIELD_FETCH;
        x.value = ha_field_fetch(p, q->sid.id, now, ha_mac_fetch(q->session.secret, q->sid.id, now, p), 1);
        if (ha_exchange_run(&x, p) != APR_SUCCESS)
            break;
        if (x.backup == NULL || ha_field_parse_fetched(x.backup, p, &field, &why) != APR_SUCCESS || field.running < 0)
            done = 1;           /* it does not have it, or does not know how */
        else if (field.running == 0) {
            *told = field.version;
            done = 1;
        }
        else if (apr_time_now() >= bound)
            break;
        else
            apr_sleep(ASK);
        apr_pool_clear(p);
    }
    apr_pool_destroy(p);
    return done;
}

static int is_in_store(const ha_request *q, const ha_version *told)
{
    const ha_version *v = &q->move.record.version;
    return v->epoch > told->epoch || (v->epoch == told->epoch && v->seq >= told->seq);
}

/* We hold the gate. 1: the session is the heir's, or another httpd's choice; 0: it stays. */
static int move_to(ha_request *q, request_rec *r, const ha_member_view *here, const ha_member_view *heir,
                   const ha_owner *own)
{
    apr_time_t bound = apr_time_now() + OTHERS;
    ha_call call = { .pool = r->pool };
    apr_status_t rv;

    if (!others_are_out(q, bound))
        return 0;
    memset(&q->move, 0, sizeof q->move);
    q->move.epoch = own->version.epoch;
    q->move.least = own->acked;
    while (!ha_table_quiet(ha_request_table(), &q->session.digest, apr_time_now()))
        apr_sleep(POLL);        /* a backup under way ends with SessionHAStoreTimeout */
    call.deadline = apr_time_now() + ha_config_store_timeout(q->cfg);
    if (q->mode == HA_NATIVE_BACKUP) {
        q->move.epoch = q->move.epoch ? q->move.epoch : 1;
        ha_owner_look_begin(q, r, q->sid.route);
        ha_owner_look_end(q);
        if (q->move.found == HA_NATIVE_ABSENT || q->move.found == HA_NATIVE_BROKEN)
            return 0;           /* the new member would not find it */
        call.deadline = apr_time_now() + ha_config_store_timeout(q->cfg);
    }
    else {
        ha_version told = { 0 };
        rv = ha_move_look(&q->session, &call, &q->move);
        if (rv != APR_SUCCESS || q->move.found != HA_BACKUP_FOUND)
            return 0;           /* without a backup it is better off where it is */
        if (ha_peers_present(q->balancer) && !others_have_left(q, r, here, bound, &told))
            return 0;
        call.deadline = apr_time_now() + ha_config_store_timeout(q->cfg);
        while (!is_in_store(q, &told)) {        /* another httpd is storing it */
            if (apr_time_now() >= call.deadline || ha_move_look(&q->session, &call, &q->move) != APR_SUCCESS)
                return 0;
            apr_sleep(ASK);
        }
        q->move.carries = q->move.record.version;
    }
    rv = ha_move_claim(&q->session, &call, &q->move, heir->worker->s->route, (apr_uint32_t)ha_config_ttl(q->cfg));
    if (rv != APR_SUCCESS && !APR_STATUS_IS_EEXIST(rv))
        return 0;
    q->from = here->worker->s->route;
    q->moved = q->slow = 1;
    ha_members_left(here->slot, apr_time_now());
    ha_owner_adopt(q);
    return 1;
}

void ha_transit_request(ha_request *q, request_rec *r)
{
    ha_table *table;
    const ha_member_view *here = NULL, *heir;
    ha_owner own;
    apr_time_t bound = apr_time_now() + HA_GATE_BOUND;
    const char *cause = NULL;

    if (q->entered)
        return;
    ha_request_session(q);
    if (q->gate) {              /* we are finding out, or moving it: who moves it next waits for this request, too */
        (void)enter(q, r);
        return;
    }
    table = ha_request_table();
    memset(&own, 0, sizeof own);
    if (ha_table_owner(table, &q->session.digest, &own) && ha_owner_gone_on(q, r, &own)) {
        q->doubt = 1;
        return;
    }
    for (;;) {
        apr_time_t now = apr_time_now();
        memset(&own, 0, sizeof own);
        if (ha_table_owner(table, &q->session.digest, &own) && own.gate <= now && own.route[0])
            here = find(q, own.route);
        if (here == NULL || !PROXY_WORKER_IS_USABLE(here->worker))
            here = q->home;
        if (here == NULL)
            return;
        if (own.gate <= now) {
            heir = heir_of(q, r, here, &own, &cause);
            if (heir == NULL) {
                if (enter(q, r))
                    break;
            }
            else if (ha_owner_close_gate(q, r, 1)) {
                q->began = now;
                q->cause = cause;
                if (move_to(q, r, here, heir, &own))
                    here = find(q, q->move.owner);
                else {
                    q->cause = NULL;
                    q->moved = 0;
                    ha_owner_open_gate(q);
                    ha_table_stay(table, &q->session.digest, apr_time_now() + STAYS);
                }
                (void)enter(q, r);
                break;
            }
        }
        if (now >= bound)
            break;
        apr_sleep(POLL);
    }
    if (here && (!q->sid.stock_sees || strcmp(here->worker->s->route, q->sid.route) != 0))
        ha_request_steer(q, r, here->worker->s->route);
}
