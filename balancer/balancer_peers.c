/* balancer_peers.c - several httpds before the same members and the same store.
 *
 * They agree on who owns a session by the claims in the store. But a claim is looked up only for members that were in
 * error or that sessions were moved off, and each httpd meets errors and moves sessions of its own. So each tells the others,
 * through the store, of which members it has seen that: a small sealed note that expires by itself. Once in a while one
 * child of each httpd writes the note of its httpd and reads those of the others; what is new to us counts as if we had met it.
 * While there may be others, a backup is acknowledged only after one more look for their claims (session_capture.h).
 * There may be some until we have listened once: they may have moved sessions while we started. And those who were
 * there within a session's life may come back, and move one, before we hear of them again.
 *
 *   key in the store   ha:p:<digest of the balancer>:<place>     place 0 .. PLACES-1, taken with `add`
 *   the note           instance LF { route TAB time-of-error TAB time-of-leaving LF }   0: never
 *                      times are the writer's, only compared for equality
 *
 *   shared memory, for all children of this httpd:
 *     instance   8       who we are, random
 *     tokens     8       second 32 bits | taken in it 32 bits
 *     words      64 x    balancer 8 | due 8 | transit 8 | told 8 | met 8 | place+1 4 | others 4 | heard 4
 *     seen     1024 x    balancer, route and kind 8 | learned 8: our time, when we took one of theirs for ours; that one
 *                        is not told on, or two httpds would tell each other for ever | 16 x 8: that time of theirs is known
 */
#include "httpd.h"
#include "apr_atomic.h"
#include "apr_strings.h"
#include "apr_thread_cond.h"
#include "apr_thread_mutex.h"
#include "apr_thread_proc.h"
#include "http_log.h"

#include "balancer.h"
#include "balancer_request.h"

APLOG_USE_MODULE(session_ha);

#define PLACES 16
#define BALANCERS 64
#define SEEN 1024               /* a power of two */
#define EVERY apr_time_from_msec(500)
#define LIFE apr_time_from_sec(5)
#define KIND 'P'

typedef struct {
    volatile apr_uint64_t balancer;
    volatile apr_uint64_t due;
    volatile apr_uint64_t transit;      /* requests are counted in and out since then; 0: they are not */
    volatile apr_uint64_t told;         /* our note was written last */
    volatile apr_uint64_t met;          /* another httpd was there last */
    volatile apr_uint32_t place;        /* ours + 1; 0: none yet */
    volatile apr_uint32_t others;       /* there, or there not long ago */
    volatile apr_uint32_t heard;        /* we have listened */
} word;

typedef struct {
    volatile apr_uint64_t member;
    volatile apr_uint64_t learned;
    volatile apr_uint64_t when[PLACES];
} seen;

typedef struct {
    apr_uint64_t instance;
    volatile apr_uint64_t tokens;
    word words[BALANCERS];
    seen seen[SEEN];
} shared_part;

typedef struct known {          /* a balancer that this process has had a request for */
    struct known *next;
    proxy_balancer *balancer;
    word *word;
    ha_session session;         /* its notes' digest, store and secret */
    apr_interval_time_t timeout;
    apr_time_t ttl;
} known;

static struct {
    shared_part *shared;
    apr_pool_t *pool;
    apr_thread_mutex_t *mutex;
    apr_thread_cond_t *wake;
    apr_thread_t *thread;
    void *volatile known;       /* grows at the head, under the mutex; read without */
    int urgent, stop;
} peers;

static apr_uint64_t hash(const char *a, const char *b)
{
    apr_uint64_t h = 14695981039346656037u;
    for (; *a; a++)
        h = (h ^ (unsigned char)*a) * 1099511628211u;
    for (h *= 1099511628211u; *b; b++)
        h = (h ^ (unsigned char)*b) * 1099511628211u;
    return h ? h : 1;
}

/* ---- what is shared by the children ----------------------------------------------------- */

apr_size_t ha_balancer_shared_size(void)
{
    return sizeof(shared_part);
}

static word *word_of(const char *balancer)
{
    apr_uint64_t key = hash(balancer, "");
    int i;
    for (i = 0; i < BALANCERS; i++) {
        word *w = &peers.shared->words[(key + (unsigned)i) % BALANCERS];
        if (w->balancer == key || apr_atomic_cas64(&w->balancer, key, 0) == 0 || w->balancer == key)
            return w;
    }
    return NULL;
}

enum { ERROR, LEFT };

static seen *seen_of(const char *balancer, const char *route, int kind)
{
    apr_uint64_t key = hash(balancer, route) + (apr_uint64_t)kind;
    int i;
    for (i = 0; i < 8; i++) {
        seen *s = &peers.shared->seen[(key + (unsigned)i) & (SEEN - 1)];
        if (s->member == key || apr_atomic_cas64(&s->member, key, 0) == 0 || s->member == key)
            return s;
    }
    return NULL;
}

/* Is this time of theirs news? Then it counts as ours from now on. */
static int is_news(const char *balancer, const char *route, int kind, int place, apr_int64_t when, apr_time_t now)
{
    seen *s = seen_of(balancer, route, kind);
    if (s == NULL || when <= 0 || apr_atomic_xchg64(&s->when[place], (apr_uint64_t)when) == (apr_uint64_t)when)
        return 0;
    apr_atomic_set64(&s->learned, (apr_uint64_t)now);
    return 1;
}

static apr_time_t if_ours(const char *balancer, const char *route, int kind, apr_time_t when)
{
    const seen *s = seen_of(balancer, route, kind);
    return s && s->learned == (apr_uint64_t)when ? 0 : when;
}

/* ---- notes ------------------------------------------------------------------------------- */

static const char *key_of(const known *k, int place, apr_pool_t *p)
{
    char hex[HA_DIGEST_HEX + 1];
    ha_digest_hex(&k->session.digest, hex);
    return apr_psprintf(p, "ha:p:%s:%d", hex, place);
}

static const char *our_note(const known *k, apr_pool_t *p)
{
    const char *note = apr_psprintf(p, "%" APR_UINT64_T_HEX_FMT "\n", peers.shared->instance);
    apr_time_t now = apr_time_now();
    int i, n;

    if (PROXY_THREAD_LOCK(k->balancer) != APR_SUCCESS)
        return note;
    n = k->balancer->workers->nelts;
    for (i = 0; i < n; i++) {
        const proxy_worker *w = APR_ARRAY_IDX(k->balancer->workers, i, proxy_worker *);
        const ha_member_slot *slot = *w->s->route ? ha_member(k->balancer->s->name, w->s->route) : NULL;
        const char *name = k->balancer->s->name, *route = w->s->route;
        apr_time_t error = if_ours(name, route, ERROR, ha_member_last_error(slot));
        apr_time_t left = if_ours(name, route, LEFT, ha_member_last_left(slot));
        if ((error && error + k->ttl > now) || (left && left + k->ttl > now))
            note = apr_psprintf(p, "%s%s\t%" APR_TIME_T_FMT "\t%" APR_TIME_T_FMT "\n", note, route, error, left);
    }
    PROXY_THREAD_UNLOCK(k->balancer);
    return note;
}

static apr_status_t seal_note(const known *k, const char *note, apr_pool_t *p, ha_value *out)
{
    ha_record r = { .version = { 1, (apr_uint64_t)apr_time_now() }, .made = apr_time_now(), .route = "", .at = "",
                    .state = { note, strlen(note) } };
    ha_blob plain;
    apr_status_t rv = ha_record_encode(&r, p, &plain);
    out->version = r.version;
    return rv == APR_SUCCESS ? ha_seal(k->session.secret, KIND, &k->session.digest, r.version, &plain, p, &out->data) : rv;
}

/* The note's text, NUL-terminated; NULL: it is not one of ours. */
static char *open_note(const known *k, const ha_value *value, apr_pool_t *p)
{
    ha_blob plain;
    ha_record r;
    const char *why;
    if (ha_open(k->session.secret, KIND, &k->session.digest, value->version, &value->data, p, &plain, &why) != APR_SUCCESS
        || ha_record_decode(&plain, p, &r, &why) != APR_SUCCESS)
        return NULL;
    return apr_pstrmemdup(p, r.state.data, r.state.len);
}

static ha_call call_of(const known *k, apr_pool_t *p)
{
    ha_call call = { .pool = p, .deadline = apr_time_now() + k->timeout };
    return call;
}

static void tell(const known *k, apr_pool_t *p)
{
    const char *note = our_note(k, p);
    ha_value mine, there;
    int i;

    if (seal_note(k, note, p, &mine) != APR_SUCCESS)
        return;
    if (k->word->place && (apr_time_t)k->word->told + LIFE < apr_time_now())
        k->word->place = 0;     /* our note has expired, and another httpd may have the place */
    if (k->word->place) {
        ha_call call = call_of(k, p);
        if (ha_store_put(k->session.store, &call, key_of(k, (int)k->word->place - 1, p), &mine, apr_time_now() + LIFE,
                         NULL) == APR_SUCCESS)
            k->word->told = (apr_uint64_t)apr_time_now();
        return;
    }
    for (i = 0; i < PLACES; i++) {
        ha_call call = call_of(k, p);
        apr_status_t rv = ha_store_add(k->session.store, &call, key_of(k, i, p), &mine, apr_time_now() + LIFE, &there, NULL);
        if (rv == APR_SUCCESS) {
            k->word->told = (apr_uint64_t)apr_time_now();
            k->word->place = (apr_uint32_t)i + 1;
        }
        if (!APR_STATUS_IS_EEXIST(rv))
            return;             /* ours now, or the store is not well */
    }
}

static void learn(const known *k, int place, char *note)
{
    char *line, *last = NULL, *tab;
    apr_time_t now = apr_time_now();

    for (line = apr_strtok(note, "\n", &last); line; line = apr_strtok(NULL, "\n", &last)) {
        const ha_member_view *m;
        if ((tab = strchr(line, '\t')) == NULL)
            continue;
        *tab = '\0';
        m = ha_members_find(k->balancer, line, strlen(line));
        if (m == NULL || m->slot == NULL)
            continue;
        if (is_news(k->balancer->s->name, line, ERROR, place, apr_strtoi64(tab + 1, &tab, 10), now))
            ha_member_note_error(m->slot, now);
        if (*tab == '\t' && is_news(k->balancer->s->name, line, LEFT, place, apr_atoi64(tab + 1), now))
            ha_member_note_left(m->slot, now);
    }
}

/* All places, though most are empty: who was started again while its old note was still there has taken a later one, and
 * leaves a gap. Who stopped at the gap took itself for alone, and looked for nobody's claims. */
static void hear(const known *k, apr_pool_t *p)
{
    const char *us = apr_psprintf(p, "%" APR_UINT64_T_HEX_FMT "\n", peers.shared->instance);
    apr_uint32_t others = 0;
    int i;

    for (i = 0; i < PLACES; i++) {
        ha_call call = call_of(k, p);
        ha_value value;
        char *note;
        apr_status_t rv;
        if (k->word->place == (apr_uint32_t)i + 1)
            continue;
        rv = ha_store_get(k->session.store, &call, key_of(k, i, p), &value, NULL);
        if (APR_STATUS_IS_NOTFOUND(rv))
            continue;
        if (rv != APR_SUCCESS)
            return;             /* the store is not well: what we knew of the others stands */
        if ((note = open_note(k, &value, p)) == NULL || strncmp(note, us, strlen(us)) == 0)
            continue;
        others++;
        learn(k, i, note);
    }
    if (others)
        k->word->met = (apr_uint64_t)apr_time_now();
    else if (k->word->met && (apr_time_t)k->word->met + k->ttl > apr_time_now())
        others = 1;
    k->word->others = others;
    k->word->heard = 1;
}

/* ---- the thread ---------------------------------------------------------------------------- */

static void *APR_THREAD_FUNC talk(apr_thread_t *thread, void *unused)
{
    apr_pool_t *p;
    known *k;

    apr_setup_signal_thread();
    apr_pool_create(&p, apr_thread_pool_get(thread));
    apr_thread_mutex_lock(peers.mutex);
    while (!peers.stop) {
        int urgent;
        if (!peers.urgent)
            apr_thread_cond_timedwait(peers.wake, peers.mutex, EVERY);
        urgent = peers.urgent;
        peers.urgent = 0;
        if (peers.stop)
            break;
        apr_thread_mutex_unlock(peers.mutex);
        for (k = peers.known; k; k = k->next) {
            apr_uint64_t now = (apr_uint64_t)apr_time_now(), due = apr_atomic_read64(&k->word->due);
            apr_uint64_t next = now + (k->word->others ? EVERY : 2 * EVERY);
            int turn = now >= due && apr_atomic_cas64(&k->word->due, next, due) == due;
            if (turn || urgent)
                tell(k, p);
            if (turn)
                hear(k, p);     /* one child at a time is enough */
            apr_pool_clear(p);
        }
        apr_thread_mutex_lock(peers.mutex);
    }
    apr_thread_mutex_unlock(peers.mutex);
    return NULL;
}

/* ---- the face -------------------------------------------------------------------------------- */

void ha_peers_meet(proxy_balancer *b, const ha_config *cfg)
{
    known *k;

    for (k = peers.known; k; k = k->next) {
        if (k->balancer == b)
            return;
    }
    apr_thread_mutex_lock(peers.mutex);
    for (k = peers.known; k && k->balancer != b; k = k->next)
        ;
    if (k == NULL && (k = apr_pcalloc(peers.pool, sizeof *k), k->word = word_of(b->s->name)) != NULL) {
        k->balancer = b;
        k->session.store = ha_config_store(cfg);
        k->session.secret = ha_config_secret(cfg);
        ha_digest_make(b->s->name, "\1peers", &k->session.digest);     /* no session's: ids have no control bytes */
        k->timeout = ha_config_store_timeout(cfg);
        k->ttl = apr_time_from_sec(ha_config_ttl(cfg));
        k->next = peers.known;
        apr_atomic_xchgptr((void *)&peers.known, k);
        if (peers.thread == NULL && !peers.stop)
            (void)apr_thread_create(&peers.thread, NULL, talk, NULL, peers.pool);
    }
    apr_thread_mutex_unlock(peers.mutex);
}

int ha_peers_present(const proxy_balancer *b)
{
    const known *k;
    for (k = peers.known; k; k = k->next) {
        if (k->balancer == b)
            return k->word->others > 0 || !k->word->heard;
    }
    return 1;
}

apr_time_t ha_peers_transit(const proxy_balancer *b, int on, apr_time_t now)
{
    word *w = word_of(b->s->name);
    if (w == NULL)
        return now;
    if (!on)
        apr_atomic_set64(&w->transit, 0);
    else if (apr_atomic_read64(&w->transit) == 0)
        (void)apr_atomic_cas64(&w->transit, (apr_uint64_t)now, 0);
    return (apr_time_t)apr_atomic_read64(&w->transit);
}

int ha_peers_token(apr_uint32_t rate)
{
    apr_uint64_t second = (apr_uint64_t)apr_time_sec(apr_time_now()) << 32;
    for (;;) {
        apr_uint64_t was = apr_atomic_read64(&peers.shared->tokens);
        apr_uint64_t is = (was & ~(apr_uint64_t)APR_UINT32_MAX) == second ? was : second;
        if ((is & APR_UINT32_MAX) >= rate)
            return 0;
        if (apr_atomic_cas64(&peers.shared->tokens, is + 1, was) == was)
            return 1;
    }
}

void ha_peers_wake(void)
{
    apr_thread_mutex_lock(peers.mutex);
    peers.urgent = 1;
    apr_thread_cond_signal(peers.wake);
    apr_thread_mutex_unlock(peers.mutex);
}

static apr_status_t stop_talking(void *unused)
{
    apr_status_t rv;
    apr_thread_mutex_lock(peers.mutex);
    peers.stop = 1;
    apr_thread_cond_signal(peers.wake);
    apr_thread_mutex_unlock(peers.mutex);
    if (peers.thread)
        apr_thread_join(&rv, peers.thread);
    return APR_SUCCESS;
}

apr_status_t ha_peers_child(void *shared, apr_pool_t *pchild)
{
    apr_allocator_t *own;
    apr_status_t rv;

    peers.shared = shared;
    peers.known = NULL;
    peers.thread = NULL;
    peers.stop = peers.urgent = 0;
    /* used at request time, under the mutex: with an allocator of its own */
    apr_allocator_create(&own);
    apr_pool_create_ex(&peers.pool, pchild, NULL, own);
    apr_allocator_owner_set(own, peers.pool);
    rv = apr_thread_mutex_create(&peers.mutex, APR_THREAD_MUTEX_DEFAULT, pchild);
    if (rv == APR_SUCCESS)
        rv = apr_thread_cond_create(&peers.wake, pchild);
    if (rv == APR_SUCCESS)
        apr_pool_pre_cleanup_register(pchild, NULL, stop_talking);
    return rv;
}

apr_status_t ha_balancer_prepare(void *shared)
{
    shared_part *s = shared;
    if (s->instance)
        return APR_SUCCESS;     /* a graceful restart: we are who we were */
    return apr_generate_random_bytes((unsigned char *)&s->instance, sizeof s->instance);
}
