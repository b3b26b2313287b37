/* balancer_owner.c - where does this session live? Asked only when the member of its route is not well, or
 * was not within the TTL, or is gone from the balancer.
 *
 *   known to this httpd, and its owner well since      -> follow
 *   somebody is finding out right now (the gate)       -> wait, then as above
 *   else we go first: look in the store, unless this httpd knows whose it is and that this member is not usable;
 *     the owner is usable again                        -> it stays, and is given the backup (it may have lost it)
 *     the owner is not                                 -> claim the next epoch for another member, and fetch the backup
 *     the store cannot say                             -> this httpd's own word, and a choice that every httpd makes alike
 *
 * In capture mode the gate opens when the member has the session; in native mode when the first request
 * has been answered, because the applications' own takeovers race. Beside the claim the application's own store is
 * asked whether it has the session: only to tell, for the new member finds it there itself.
 */
#include "httpd.h"
#include "apr_strings.h"
#include "http_log.h"

#include "balancer_request.h"

APLOG_USE_MODULE(session_ha);

#define GATE_POLL apr_time_from_msec(2)
#define ANSWER_POLL apr_time_from_msec(20)
#define LAG apr_time_from_sec(1)
#define SURE apr_time_from_sec(5)   /* a member that has shown it has the session has not lost it since */
#define EPOCHS_MAX 16           /* claims in a row that are followed within one request */

/* ---- the gate -------------------------------------------------------------------- */

static apr_status_t open_gate_cleanup(void *q)
{
    ha_owner_open_gate(q);      /* a request that ended in any other way must not keep others waiting */
    return APR_SUCCESS;
}

static void tell_answered(ha_request *q)
{
    ha_call call = { .pool = NULL };
    if (q->mode != HA_NATIVE_BACKUP || !q->moved || q->move.found == HA_BACKUP_BROKEN)
        return;
    apr_pool_create(&call.pool, NULL);
    call.deadline = apr_time_now() + ha_config_store_timeout(q->cfg);
    (void)ha_move_answered(&q->session, &call, &q->move, (apr_uint32_t)ha_config_ttl(q->cfg));
    apr_pool_destroy(call.pool);
}

int ha_owner_close_gate(ha_request *q, request_rec *r, int patient)
{
    apr_time_t now = apr_time_now(), until = now + HA_GATE_BOUND;
    if (!ha_table_close_gate(ha_request_table(), &q->session.digest, now, until, patient))
        return 0;
    q->gate = until;
    apr_pool_cleanup_register(r->pool, q, open_gate_cleanup, apr_pool_cleanup_null);
    return 1;
}

void ha_owner_open_gate(ha_request *q)
{
    if (q->gate) {
        ha_table_open_gate(ha_request_table(), &q->session.digest, q->gate);
        q->gate = 0;
        tell_answered(q);
    }
}

/* ---- what is known here ------------------------------------------------------------ */

static const ha_member_view *well_since(const ha_request *q, const char *route, apr_time_t since)
{
    const ha_member_view *m = ha_members_find(q->balancer, route, strlen(route));
    if (m == NULL || !PROXY_WORKER_IS_USABLE(m->worker))
        return NULL;
    return since > (m->slot ? ha_member_last_error(m->slot) : 0) ? m : NULL;
}

/* Sessions have been moved off its member since it was confirmed there. With a second more: that is how far what the children
 * and the other httpds say of it may lag behind (ha_transit_look, balancer_peers.c). */
static int may_have_left(const ha_request *q, const ha_owner *own)
{
    const ha_member_view *m = ha_members_find(q->balancer, own->route, strlen(own->route));
    apr_time_t left = m && m->slot ? ha_member_last_left(m->slot) : 0;
    return left && own->since <= left + LAG;
}

int ha_owner_gone_on(ha_request *q, request_rec *r, const ha_owner *own)
{
    ha_call call = { .pool = r->pool, .deadline = apr_time_now() + ha_config_store_timeout(q->cfg) };
    ha_move m = { .epoch = own->version.epoch };

    if (q->asked_on || !own->route[0] || !ha_peers_present(q->balancer)
        || !((q->sid.route && strcmp(own->route, q->sid.route) != 0) || may_have_left(q, own)))
        return 0;
    q->asked_on = 1;
    return ha_move_follow(ha_request_session(q), &call, &m) == APR_SUCCESS;
}

/* 1: known, q->move says where. 0: we hold the gate, find out. */
static int known_or_our_turn(ha_request *q, request_rec *r, ha_owner *own, int *known)
{
    ha_table *table = ha_request_table();
    apr_time_t bound = apr_time_now() + HA_GATE_BOUND;

    for (;;) {
        apr_time_t now = apr_time_now();
        *known = ha_table_owner(table, &q->session.digest, own);
        if (*known && !q->doubt && own->gate <= now && own->route[0] && well_since(q, own->route, own->since)
            && !ha_owner_gone_on(q, r, own)) {
            q->move.epoch = own->version.epoch;
            q->move.owner = apr_pstrdup(r->pool, own->route);
            return 1;
        }
        if ((!*known || own->gate <= now) && ha_owner_close_gate(q, r, 0))
            return 0;
        if (now >= bound)
            return 0;           /* the one who went first hangs: go on without the gate */
        apr_sleep(GATE_POLL);
    }
}

/* ---- what the store knows ------------------------------------------------------------ */

static void note(ha_request *q, const char *cause)
{
    if (q->cause == NULL)
        q->cause = cause;
}

static const char *why_not_usable(const ha_member_view *m)
{
    unsigned int status;
    if (m == NULL)
        return "gone";
    status = m->worker->s->status;
    return status & PROXY_WORKER_STOPPED ? "stopped" : status & PROXY_WORKER_DISABLED ? "disabled"
           : status & PROXY_WORKER_HC_FAIL ? "hcheck" : "error";
}

/* Not who has just failed: its retry time may be over by now. */
static const ha_member_view *usable_owner(const ha_request *q, const char *route)
{
    const ha_member_view *m = route ? ha_members_find(q->balancer, route, strlen(route)) : NULL;
    return m && m->worker != q->failed && ha_members_usable(m->worker, apr_time_now()) ? m : NULL;
}

/* The store may have taken longer than the retry= of who has just failed; then that one would be chosen, and fail again. */
static const ha_member_view *choose_heir(const ha_request *q, request_rec *r, const char *owner, int agree)
{
    const ha_member_view *gone = ha_members_find(q->balancer, owner, strlen(owner));
    const ha_member_view *heir = ha_members_choose(q->balancer, r, q->conf, gone, &q->session.digest, agree);

    if (heir && heir->worker == q->failed) {
        ha_members_disable(heir->worker);
        heir = ha_members_choose(q->balancer, r, q->conf, gone, &q->session.digest, agree);
    }
    return heir && heir->worker != q->failed ? heir : NULL;
}

static ha_call store_call(const ha_request *q, request_rec *r)
{
    ha_call call = { .pool = r->pool, .deadline = apr_time_now() + ha_config_store_timeout(q->cfg) };
    return call;
}

/* Native mode over several httpds: the claim was another httpd's; its first request goes first. */
static void wait_for_their_answer(ha_request *q, request_rec *r)
{
    apr_time_t bound = apr_time_now() + HA_GATE_BOUND;
    while (apr_time_now() < bound) {
        ha_call call = store_call(q, r);
        if (ha_move_is_answered(&q->session, &call, &q->move))
            return;
        apr_sleep(ANSWER_POLL);
    }
}

/* What was acknowledged before we closed the gate is in the store when we look; what comes later meets the gate. */
static void wait_for_writers(const ha_request *q)
{
    apr_time_t bound = apr_time_now() + 2 * ha_config_store_timeout(q->cfg);
    while (!ha_table_quiet(ha_request_table(), &q->session.digest, apr_time_now()) && apr_time_now() < bound)
        apr_sleep(apr_time_from_msec(1));
}

void ha_owner_look_begin(ha_request *q, request_rec *r, const char *route)
{
    const ha_native *native = ha_config_native(q->cfg);
    const char separator[2] = { q->balancer->s->sticky_separator, '\0' };
    int together = q->sid.route == q->sid.id + q->sid.id_len + 1;   /* in one value, and not SessionHAId, SessionHARouteCookie */
    if (native)
        q->look = ha_native_begin(native, q->session.store, q->sid.id,
                                  together ? apr_pstrcat(r->pool, q->sid.id, separator, route, NULL) : q->sid.id,
                                  apr_time_now() + ha_config_store_timeout(q->cfg), r->pool);
}

void ha_owner_look_end(ha_request *q)
{
    apr_status_t rv;
    if (q->look == NULL)
        return;
    rv = ha_native_end(q->look, &q->move.why);
    q->look = NULL;
    q->move.found = rv == APR_SUCCESS ? HA_NATIVE_FOUND : APR_STATUS_IS_NOTFOUND(rv) ? HA_NATIVE_ABSENT : HA_NATIVE_BROKEN;
}

/* Another httpd has moved the session and its first request has been answered: a member that gives a session a new name with
 * its own route (memcached-session-manager) has done so. */
static void look_under_new_name(ha_request *q, request_rec *r)
{
    ha_owner_look_end(q);
    if (q->move.found == HA_NATIVE_ABSENT && strcmp(q->move.owner, q->sid.route) != 0) {
        q->move.trips++;
        ha_owner_look_begin(q, r, q->move.owner);
    }
}

/* Its owner has told of it since it got it: not this request's move, nor one that is under way. */
static int has_settled(const ha_move *m)
{
    return (m->found == HA_BACKUP_FOUND || m->found == HA_BACKUP_TOMBSTONE) && m->record.version.epoch == m->epoch;
}

/* May the look be saved, which says no more than we know? The claim will show if we know too little (ha_move_claim). Not for a session
 * that is not known here: of it we had only the client's word, and who names the route of a dead member would have it moved. */
static int is_claimed_first(const ha_request *q, const ha_owner *own, int known)
{
    return known && own->version.epoch && own->route[0] && usable_owner(q, own->route) == NULL;
}

/* Leaves the owner in q->move; 1: found or made, 0: nobody is usable, stock shall say so. */
static int settle_in_store(ha_request *q, request_rec *r, const ha_owner *own, int known)
{
    ha_move *m = &q->move;
    apr_uint32_t ttl = (apr_uint32_t)ha_config_ttl(q->cfg);
    int broken = 0, urgent = 0, n;

    if (q->mode != HA_NATIVE_BACKUP) {
        if (m->found == HA_BACKUP_UNASKED || m->found == HA_BACKUP_BROKEN) {
            wait_for_writers(q);
            m->epoch = known ? own->version.epoch : 0;
            m->least = own->acked;
            m->shared = ha_peers_present(q->balancer);
            if (!is_claimed_first(q, own, known)) {
                ha_call call = store_call(q, r);
                (void)ha_move_look(&q->session, &call, m);  /* if it cannot say: whoever claims finds out more */
            }
        }
    }
    else if (m->epoch == 0) {
        m->epoch = 1;           /* native: there are only claims */
    }
    if (known && own->version.epoch > m->epoch) {
        m->epoch = own->version.epoch;      /* what this httpd has seen itself is newer than the backup */
        m->owner = apr_pstrdup(r->pool, own->route);
    }
    else if (known && own->version.epoch == m->epoch && own->route[0]) {
        m->owner = apr_pstrdup(r->pool, own->route);
    }
    if (m->owner == NULL)
        m->owner = q->sid.route;
    if (q->from == NULL)
        q->from = m->owner;
    if (q->home == NULL && m->found != HA_BACKUP_FOUND && !known && q->mode != HA_NATIVE_BACKUP)
        return 0;               /* a route nobody has and no backup: nothing to move, whatever a client makes up */

    for (n = 0; n < EPOCHS_MAX; n++) {
        const ha_member_view *owner = usable_owner(q, m->owner), *heir;
        ha_call call = store_call(q, r);
        apr_status_t rv;

        if (owner) {
            if (!broken) {
                rv = ha_move_follow(&q->session, &call, m);
                if (rv == APR_SUCCESS) {
                    q->followed = 1;
                    continue;
                }
                if (!APR_STATUS_IS_NOTFOUND(rv))
                    broken = 1;
            }
            return 1;
        }
        note(q, why_not_usable(ha_members_find(q->balancer, m->owner, strlen(m->owner))));
        heir = choose_heir(q, r, m->owner, broken);
        if (heir == NULL)
            return 0;
        if (q->mode == HA_NATIVE_BACKUP && m->found == HA_BACKUP_UNASKED && q->look == NULL)
            ha_owner_look_begin(q, r, q->sid.route);
        if (!broken) {
            call.urgent = urgent;
            rv = ha_move_claim(&q->session, &call, m, heir->worker->s->route, ttl);
            if (rv == APR_SUCCESS) {
                q->moved = 1;
                return 1;
            }
            if (APR_STATUS_IS_EEXIST(rv)) {
                if (q->mode == HA_NATIVE_BACKUP && usable_owner(q, m->owner)) {
                    wait_for_their_answer(q, r);
                    look_under_new_name(q, r);
                }
                if (has_settled(m))
                    q->from = m->owner;
                else
                    q->moved = 1;       /* by another httpd just now; the member may still have to be given the backup */
                continue;
            }
            broken = urgent;
            urgent = 1;
            continue;           /* and if that does not help: choose again, as every httpd without a store does */
        }
        m->epoch++;
        m->owner = heir->worker->s->route;
        q->moved = 1;
        return 1;
    }
    return 0;
}

/* ---- what follows from it -------------------------------------------------------------- */

static void decide(ha_request *q, ha_outcome outcome)
{
    q->outcome = outcome;
    q->decided = 1;
}

/* An earlier request has moved it, and was refused as this one has to be. */
static int is_refused_again(const ha_request *q)
{
    return q->followed && ha_config_on_missing(q->cfg) != HA_CONTINUE;
}

static void plan_restore(ha_request *q)
{
    switch (q->move.found) {
    case HA_BACKUP_FOUND:
        q->restore = 1;
        q->bytes = q->move.record.state.len;
        break;
    case HA_BACKUP_TOMBSTONE:       /* logged out or expired: nothing that could be lost */
        q->tell_none = 1;
        break;
    case HA_BACKUP_ABSENT:
        q->tell_none = 1;
        ha_table_lost(ha_request_table(), &q->session.digest, q->move.least);
        if (q->moved || is_refused_again(q))
            decide(q, HA_MISSING);
        break;
    case HA_BACKUP_BROKEN:
        if (q->moved)
            decide(q, HA_UNAVAILABLE);
        break;
    case HA_BACKUP_UNASKED:
    case HA_NATIVE_FOUND:
        if (q->moved)
            decide(q, HA_NATIVE);
        break;
    case HA_NATIVE_ABSENT:
        if (q->moved || is_refused_again(q))
            decide(q, HA_MISSING);
        break;
    case HA_NATIVE_BROKEN:
        if (q->moved)
            decide(q, HA_UNAVAILABLE);
        break;
    }
}

/* The operator's word on a session that is lost: go on with a new one, 503, or a page. */
static int on_missing(ha_request *q, request_rec *r)
{
    int status = DECLINED;
    if (!q->decided || (q->outcome != HA_MISSING && q->outcome != HA_UNAVAILABLE))
        return status;
    if (q->move.found == HA_NATIVE_BROKEN)
        return status;          /* what we could not ask, the new member may well find */
    switch (ha_config_on_missing(q->cfg)) {
    case HA_CONTINUE:
        break;
    case HA_503:
        apr_table_setn(r->err_headers_out, "Retry-After", "5");
        status = HTTP_SERVICE_UNAVAILABLE;
        break;
    case HA_REDIRECT:
        apr_table_setn(r->headers_out, "Location", q->cfg->on_missing_url);
        status = HTTP_MOVED_TEMPORARILY;
        break;
    }
    if (status != DECLINED) {
        ha_request_finish(q, r);        /* mod_proxy skips post_request */
        ha_owner_open_gate(q);
    }
    return status;
}

typedef enum { LOST, KNOWN, SETTLED } located;

/* KNOWN: this httpd's word, nothing has to be done. SETTLED: found out or claimed by us just now. */
static located locate(ha_request *q, request_rec *r)
{
    ha_owner own = { .gate = 0 };
    int known = 0, settled;

    ha_request_session(q);
    q->asked_on = 0;
    if (q->gate) {
        /* a second attempt behind our own gate: the member that we had moved it to has failed too */
        known = ha_table_owner(ha_request_table(), &q->session.digest, &own);
    }
    else if (known_or_our_turn(q, r, &own, &known)) {
        q->restore = q->tell_none = q->handing = 0;
        return KNOWN;
    }
    else {
        /* An earlier attempt of this request may have looked too, before answers that came while it ran. */
        q->move.found = HA_BACKUP_UNASKED;
    }
    q->moved = q->followed = q->restore = q->tell_none = q->handing = 0;
    q->looked = 1;
    settled = settle_in_store(q, r, &own, known);
    ha_owner_look_end(q);
    if (!settled) {
        /* who is asked need not say that it is missing; nobody has looked when nobody could have it */
        q->tell_none = q->move.found != HA_BACKUP_FOUND && q->move.found != HA_BACKUP_UNASKED;
        q->move.owner = NULL;
        ha_owner_open_gate(q);
        return LOST;
    }
    plan_restore(q);
    return SETTLED;
}

/* This httpd's own word from now on. Not for a session that on_missing() has refused: the next request must meet
 * the same answer. In capture mode it holds for others only when the owner has been given the session: until then each
 * request finds out by itself. Else they would follow us to a member that has an older copy, or none, if we do not come to
 * hand it over: the store could not say what, the member did not take it, this child was killed. */
static void own(ha_request *q)
{
    if (q->mode == HA_NATIVE_BACKUP)
        ha_table_own(ha_request_table(), &q->session.digest, q->move.epoch, q->move.owner, apr_time_now());
    else
        ha_table_claimed(ha_request_table(), &q->session.digest, q->move.epoch, q->move.owner, apr_time_now());
    q->handing = q->mode != HA_NATIVE_BACKUP && q->move.found != HA_BACKUP_BROKEN;
    if (q->moved && q->from)
        ha_table_home(ha_request_table(), &q->session.digest, q->from);
}

void ha_owner_has_it(ha_request *q, apr_time_t since)
{
    if (q->handing) {
        ha_table_own(ha_request_table(), &q->session.digest, q->move.epoch, q->move.owner, since);
        q->handing = 0;
    }
}

void ha_owner_adopt(ha_request *q)
{
    plan_restore(q);
    own(q);
}

int ha_owner_locate(ha_request *q, request_rec *r)
{
    located where;
    q->slow = 1;
    if (q->began == 0)
        q->began = apr_time_now();
    if ((where = locate(q, r)) == SETTLED)
        own(q);
    return where != LOST;
}

int ha_owner_settle(ha_request *q, request_rec *r, apr_time_t now)
{
    located where;
    int status;

    if (q->balancer->s->sticky_force && q->home && !ha_members_usable(q->home->worker, now)) {
        const ha_member_view *heir = *q->home->worker->s->redirect
            ? ha_members_find(q->balancer, q->home->worker->s->redirect, strlen(q->home->worker->s->redirect)) : NULL;
        if (heir == NULL || !ha_members_usable(heir->worker, now))
            return DECLINED;    /* nofailover: mod_proxy_balancer answers 503 */
    }
    q->slow = 1;
    if (q->began == 0)
        q->began = now;
    if ((where = locate(q, r)) == LOST)
        return DECLINED;
    if (where == SETTLED) {
        if ((status = on_missing(q, r)) != DECLINED)
            return status;
        own(q);
    }
    if (!q->sid.stock_sees || strcmp(q->move.owner, q->sid.route) != 0)
        ha_request_steer(q, r, q->move.owner);
    return DECLINED;
}

int ha_owner_is_sure(ha_request *q)
{
    ha_owner it;
    const char *route = q->move.owner ? q->move.owner : q->sid.route;
    return ha_table_owner(ha_request_table(), &ha_request_session(q)->digest, &it) && strcmp(it.route, route) == 0
           && it.version.seq > 0 && apr_time_now() - it.since < SURE;
}

void ha_owner_doubt(ha_request *q)
{
    ha_owner own;
    if (ha_table_owner(ha_request_table(), &ha_request_session(q)->digest, &own)
        && strcmp(own.route, q->worker->s->route) == 0)
        q->doubt = 1;
}

int ha_owner_left(ha_request *q, const char *route)
{
    ha_owner own;
    return ha_table_owner(ha_request_table(), &ha_request_session(q)->digest, &own)
           && own.route[0] && strcmp(own.route, route) != 0;
}
