/* balancer_members.c - the members of a balancer: found by route, usable or not, and which one takes
 * over a session.
 *
 * mod_proxy looks a route up by comparing it with every member. Here it is one probe of a table that
 * this process makes once for each state of a balancer's list of members, so the cost stays the same
 * with two members and with two hundred. A table is never changed once it is published and never
 * freed before the child ends; the list of members changes by an operator's hand only.
 */
#include "httpd.h"
#include <math.h>

#include "apr_atomic.h"
#include "apr_strings.h"
#include "apr_thread_mutex.h"
#include "http_log.h"

#include "balancer_request.h"

APLOG_USE_MODULE(session_ha);

#define WATCH_EVERY 100         /* milliseconds */
#define NEWS apr_time_from_sec(1)   /* what was not so for that long, the other httpds are told at once */

typedef struct member_map {
    struct member_map *next;    /* older ones, and those of other balancers */
    proxy_balancer *balancer;
    int n;                      /* the list's state: its length and when it changed last */
    apr_time_t changed;
    unsigned mask;
    ha_member_view *views;      /* n of them, in the balancer's order */
    ha_member_view **by_route;  /* open addressing, mask + 1 places */
    volatile apr_uint32_t watched;  /* milliseconds, modulo 2^32 */
    ha_transit transit;
} member_map;

static struct {
    apr_pool_t *pchild;
    apr_pool_t *pool;           /* of this child; used under the mutex */
    apr_thread_mutex_t *mutex;  /* for making a map */
    void *volatile maps;        /* member_map; newest first */
} members;

static inline unsigned route_hash(const char *route, apr_size_t len)
{
    unsigned h = 2166136261u;
    while (len--)
        h = (h ^ (unsigned char)*route++) * 16777619u;
    return h ^ h >> 15;
}

/* Under the balancer's thread lock: ap_proxy_sync_balancer() moves the array when it grows. */
static member_map *make_map(proxy_balancer *b)
{
    proxy_worker **w = (proxy_worker **)b->workers->elts;
    member_map *m = apr_pcalloc(members.pool, sizeof *m);
    int i;

    m->balancer = b;
    m->n = b->workers->nelts;
    m->changed = b->wupdated;
    for (m->mask = 7; m->mask < (unsigned)m->n * 2; m->mask = m->mask * 2 + 1)
        ;
    m->views = apr_pcalloc(members.pool, sizeof *m->views * (apr_size_t)(m->n + 1));
    m->by_route = apr_pcalloc(members.pool, sizeof *m->by_route * (m->mask + 1));
    for (i = 0; i < m->n; i++) {
        const char *route = w[i]->s->route;
        unsigned at;
        m->views[i].worker = w[i];
        m->views[i].transit = &m->transit;
        if (!*route)
            continue;
        m->views[i].slot = ha_member(b->s->name, route);
        at = route_hash(route, strlen(route));
        while (m->by_route[at & m->mask])
            at++;
        m->by_route[at & m->mask] = &m->views[i];
    }
    return m;
}

static member_map *published(const proxy_balancer *b)
{
    member_map *m;
    for (m = members.maps; m; m = m->next) {
        if (m->balancer == b && m->n == b->workers->nelts && m->changed == b->wupdated)
            return m;
    }
    return NULL;
}

/* old: a map that does not hold any more, or NULL */
static HA_APART member_map *publish(proxy_balancer *b, const member_map *old)
{
    member_map *m;
    apr_thread_mutex_lock(members.mutex);
    m = published(b);
    if (m == NULL || m == old) {
        if (PROXY_THREAD_LOCK(b) == APR_SUCCESS) {
            m = make_map(b);
            PROXY_THREAD_UNLOCK(b);
            m->next = members.maps;
            apr_atomic_xchgptr((void *)&members.maps, m);
        }
    }
    apr_thread_mutex_unlock(members.mutex);
    return m;
}

static inline member_map *map_of(proxy_balancer *b)
{
    member_map *m = published(b);
    return m ? m : publish(b, NULL);
}

/* A route has a few bytes and no NUL among them: sooner compared than a function called. */
static inline int is_route(const char *has, const char *route, apr_size_t len)
{
    for (; len && *has == *route; len--) {
        has++;
        route++;
    }
    return len == 0 && *has == '\0';
}

static inline const ha_member_view *probe(const member_map *m, const char *route, apr_size_t len)
{
    unsigned at = route_hash(route, len);
    const ha_member_view *v;
    while ((v = m->by_route[at & m->mask]) != NULL && !is_route(v->worker->s->route, route, len))
        at++;
    return v;
}

/* balancer-manager can give a member another route without changing the list. */
static HA_APART const ha_member_view *find_renamed(proxy_balancer *b, const member_map *m, const char *route, apr_size_t len)
{
    int i;
    for (i = 0; i < m->n; i++) {
        if (is_route(m->views[i].worker->s->route, route, len)) {
            m = publish(b, m);
            return m ? probe(m, route, len) : NULL;
        }
    }
    return NULL;
}

const ha_member_view *ha_members_find(proxy_balancer *b, const char *route, apr_size_t len)
{
    const member_map *m = map_of(b);
    const ha_member_view *v;

    if (m == NULL || len == 0 || len >= HA_ROUTE_MAX)
        return NULL;
    v = probe(m, route, len);
    return v ? v : find_renamed(b, m, route, len);
}

ha_member_slot *ha_members_slot(proxy_balancer *b, const proxy_worker *w)
{
    const ha_member_view *v = ha_members_find(b, w->s->route, strlen(w->s->route));
    return v ? v->slot : NULL;
}

static HA_APART void look_at_all(member_map *m, proxy_balancer *b, const ha_config *cfg)
{
    apr_time_t now = apr_time_now();        /* the request may have begun long ago */
    int i;

    ha_peers_meet(b, cfg);
    for (i = 0; i < m->n; i++) {
        const proxy_worker *w = m->views[i].worker;
        if (PROXY_WORKER_IS_INITIALIZED(w) && !PROXY_WORKER_IS_USABLE(w))
            ha_members_error(m->views[i].slot, now);
    }
    if (ha_config_drain_moves(cfg) || ha_config_failback_rate(cfg))
        ha_transit_look(&m->transit, b, cfg, m->views, m->n, now);
}

/* Another process, another virtual host, hcheck or an operator may put a member into error and it may be
 * back before a session's request meets it; its memory is then not what the sessions left there.
 * mod_proxy_balancer takes the mark away in its own pre_request, which runs after ours. */
void ha_members_watch(proxy_balancer *b, const ha_config *cfg, apr_time_t now)
{
    member_map *m = map_of(b);
    apr_uint32_t ms = (apr_uint32_t)(now / 1000), last;

    if (m == NULL)
        return;
    last = m->watched;
    if (ms - last >= WATCH_EVERY && apr_atomic_cas32(&m->watched, ms, last) == last)
        look_at_all(m, b, cfg);
}

/* Exchanges have connections of their own: a request that fetches a large state holds its member's connection
 * while it waits for a second one, and if all of max= were held like that, each would wait for the others
 * for ever. The shared part, with all parameters, is the member's. */
proxy_worker *ha_members_exchange(proxy_balancer *b, proxy_worker *w, server_rec *s)
{
    ha_member_view *v = (ha_member_view *)ha_members_find(b, w->s->route, strlen(w->s->route));

    if (v == NULL || v->worker != w)
        return w;
    apr_thread_mutex_lock(members.mutex);
    if (v->exchange == NULL) {
        proxy_worker *own = apr_pmemdup(members.pool, w, sizeof *own);
        apr_pool_t *p;
        apr_pool_create(&p, members.pchild);    /* used by many threads: with the server's own allocator */
        own->cp = NULL;
        own->tmutex = NULL;
        own->address = NULL;    /* counted references: it resolves the name itself */
        own->local_status &= ~PROXY_WORKER_INITIALIZED;
        if (ap_proxy_initialize_worker(own, s, p) == APR_SUCCESS)
            v->exchange = own;
    }
    apr_thread_mutex_unlock(members.mutex);
    return v->exchange ? v->exchange : w;
}

void ha_members_error(ha_member_slot *slot, apr_time_t when)
{
    int news = slot && when - ha_member_last_error(slot) > NEWS;
    ha_member_note_error(slot, when);
    if (news)
        ha_peers_wake();
}

void ha_members_left(ha_member_slot *slot, apr_time_t when)
{
    int news = slot && when - ha_member_last_left(slot) > NEWS;
    ha_member_note_left(slot, when);
    if (news)
        ha_peers_wake();
}

void ha_members_disable(proxy_worker *w)
{
    if (!(w->s->status & PROXY_WORKER_IGNORE_ERRORS)) {
        w->s->status |= PROXY_WORKER_IN_ERROR;
        w->s->error_time = apr_time_now();
    }
}

int ha_members_usable(const proxy_worker *w, apr_time_t now)
{
    if (PROXY_WORKER_IS_USABLE(w))
        return 1;
    return (w->s->status & PROXY_WORKER_NOT_USABLE_BITMAP) == PROXY_WORKER_IN_ERROR
           && now > w->s->error_time + w->s->retry;
}

/* Rendezvous hashing, weighted by lbfactor: the highest score takes the session, on every httpd alike,
 * and a member that comes or goes changes nothing for the sessions of the others. */
static double score(const proxy_worker *w, const ha_digest *d)
{
    apr_uint64_t h = 14695981039346656037u;
    const char *c;
    int i;
    for (i = 0; i < 16; i++)
        h = (h ^ d->bytes[i]) * 1099511628211u;
    for (c = w->s->route; *c; c++)
        h = (h ^ (unsigned char)*c) * 1099511628211u;
    h ^= h >> 33;
    h *= 0xff51afd7ed558ccdu;
    h ^= h >> 33;
    return w->s->lbfactor / -log(((double)(h >> 11) + 0.5) / 9007199254740992.0);
}

static int best_for_session(proxy_worker *current, proxy_worker *prev, void *digest)
{
    return prev == NULL || score(current, digest) > score(prev, digest);
}

static proxy_worker *worker_by_route(const proxy_balancer *b, const char *route)
{
    proxy_worker **w = (proxy_worker **)b->workers->elts;
    int i;
    for (i = 0; i < b->workers->nelts; i++) {
        if (strcmp(w[i]->s->route, route) == 0)
            return w[i];
    }
    return NULL;
}

const ha_member_view *ha_members_choose(proxy_balancer *b, request_rec *r, proxy_server_conf *conf,
                                        const ha_member_view *gone, const ha_digest *digest, int agree)
{
    proxy_worker *w = NULL, *next;
    apr_time_t now = apr_time_now();
    char route[HA_ROUTE_MAX];
    int hops;

    if (PROXY_THREAD_LOCK(b) != APR_SUCCESS)
        return NULL;
    ap_proxy_sync_balancer(b, r->server, conf);
    next = gone ? gone->worker : NULL;
    for (hops = 0; next && *next->s->redirect && hops < b->workers->nelts; hops++) {
        next = worker_by_route(b, next->s->redirect);
        if (next && ha_members_usable(next, now)) {
            w = next;
            break;
        }
    }
    if (w == NULL) {
        if (agree)
            w = ap_proxy_balancer_get_best_worker(b, r, best_for_session, (void *)digest);
        else
            w = b->lbmethod->finder(b, r);
    }
    if (w)
        apr_cpystrn(route, w->s->route, sizeof route);
    PROXY_THREAD_UNLOCK(b);
    /* a member without a route cannot be steered to, nor found again */
    return w && *route ? ha_members_find(b, route, strlen(route)) : NULL;
}

void ha_members_child(apr_pool_t *pchild)
{
    apr_allocator_t *own;
    members.pchild = pchild;
    /* maps are made at request time, by any thread: not from pchild, whose allocator is not ours to lock */
    apr_allocator_create(&own);
    apr_pool_create_ex(&members.pool, pchild, NULL, own);
    apr_allocator_owner_set(own, members.pool);
    apr_pool_tag(members.pool, "session_ha_members");
    members.maps = NULL;
    apr_thread_mutex_create(&members.mutex, APR_THREAD_MUTEX_DEFAULT, pchild);
}
