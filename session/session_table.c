/* session_table.c - see session_table.h.
 *
 *   shared memory:  set 0 | set 1 | ... | set SETS-1         the set is chosen by the digest
 *   a set:          entry 0 .. entry WAYS-1                  the stalest one makes room
 *   an entry:
 *     key      16   first half of the session's digest; all zero: free
 *     touched   8   last use, for eviction
 *     epoch     8   of the owner
 *     seq       8   newest one acknowledged under that epoch
 *     before   16   the newest version acknowledged under an earlier one, while seq is 0
 *     kept      8   whoever told it last was asked for it at this point, 0: it is a tombstone
 *     since     8   the owner was confirmed at this point, 0: nobody has given it the session yet
 *     gate      8   a takeover holds the gate until this point, 0: open
 *     busy      8   a backup is being written until this point, 0: none
 *     entered   8   the last request was counted in at this point
 *     stays     8   it is not tried to move it off a member that lives before this point
 *     running   4   requests that are in
 *     patient   4   the gate is closed by one that waits for them
 *     route    96   the owner
 *     home     96   where it was first
 *
 * One mutex guards it all. What outlasts a lock is written with the point at which it ends
 * (gate, busy), so a child killed in between holds up nobody for long.
 */
#include "session_table.h"

#include <apr_strings.h>
#include <string.h>

#define SETS 2048               /* a power of two */
#define WAYS 8
#define LATELY apr_time_from_sec(1)         /* who tells again what was kept then is one of many requests at once */
#define FORGOTTEN apr_time_from_sec(60)     /* a count of running requests that nobody has touched since */

typedef struct {
    unsigned char key[16];
    apr_time_t   touched;
    apr_uint64_t epoch;
    apr_uint64_t seq;
    ha_version   before;
    apr_time_t   kept;
    apr_time_t   since;
    apr_time_t   gate;
    apr_time_t   busy;
    apr_time_t   entered;
    apr_time_t   stays;
    apr_uint32_t running;
    apr_uint32_t patient;
    char         route[HA_ROUTE_MAX];
    char         home[HA_ROUTE_MAX];
} entry;

struct ha_table {
    entry (*sets)[WAYS];
    apr_global_mutex_t *mutex;
};

apr_size_t ha_table_size(void)
{
    return sizeof(entry) * SETS * WAYS;
}

ha_table *ha_table_attach(void *shared, apr_global_mutex_t *mutex, apr_pool_t *p)
{
    ha_table *t = apr_palloc(p, sizeof *t);
    t->sets = shared;
    t->mutex = mutex;
    return t;
}

static entry *set_of(const ha_table *t, const ha_digest *d)
{
    /* not of the key's half: all keys of a set would begin alike */
    unsigned n = d->bytes[16] | (unsigned)d->bytes[17] << 8;
    return t->sets[n & (SETS - 1)];
}

static entry *find(const ha_table *t, const ha_digest *d)
{
    entry *e = set_of(t, d);
    int i;
    for (i = 0; i < WAYS; i++) {
        if (memcmp(e[i].key, d->bytes, sizeof e[i].key) == 0)
            return &e[i];
    }
    return NULL;
}

/* Something is going on with this entry right now; evicting it would let two requests in. */
static int in_motion(const entry *e, apr_time_t now)
{
    return e->gate > now || e->busy > now || (e->running && e->entered + FORGOTTEN > now);
}

static entry *find_or_make(const ha_table *t, const ha_digest *d, apr_time_t now)
{
    entry *set = set_of(t, d), *e = find(t, d), *oldest = NULL;
    int i;
    if (e == NULL) {
        for (i = 0; i < WAYS; i++) {
            if (!in_motion(&set[i], now) && (oldest == NULL || set[i].touched < oldest->touched))
                oldest = &set[i];
        }
        e = oldest ? oldest : &set[0];
        memset(e, 0, sizeof *e);
        memcpy(e->key, d->bytes, sizeof e->key);
    }
    e->touched = now;
    return e;
}

static ha_version acked(const entry *e)
{
    ha_version v = { e->epoch, e->seq };
    return e->seq > 0 ? v : e->before;
}

/* It has an owner of a later epoch, who has said nothing yet. */
static void raise_to(entry *e, apr_uint64_t epoch)
{
    if (epoch > e->epoch) {
        e->before = acked(e);
        e->epoch = epoch;
        e->seq = 0;
    }
}

int ha_table_owner(ha_table *t, const ha_digest *d, ha_owner *out)
{
    entry *e;
    int known = 0;
    if (apr_global_mutex_lock(t->mutex) != APR_SUCCESS)
        return 0;
    if ((e = find(t, d)) != NULL) {
        known = 1;
        out->version.epoch = e->epoch;
        out->version.seq = e->seq;
        out->acked = acked(e);
        memcpy(out->route, e->route, sizeof out->route);
        memcpy(out->home, e->home, sizeof out->home);
        out->since = e->since;
        out->gate = e->gate;
        out->stays = e->stays;
    }
    apr_global_mutex_unlock(t->mutex);
    return known;
}

void ha_table_own(ha_table *t, const ha_digest *d, apr_uint64_t epoch, const char *route, apr_time_t since)
{
    entry *e;
    if (apr_global_mutex_lock(t->mutex) != APR_SUCCESS)
        return;
    e = find_or_make(t, d, since);
    if (epoch >= e->epoch) {
        raise_to(e, epoch);
        e->since = since;
        apr_cpystrn(e->route, route, sizeof e->route);
    }
    apr_global_mutex_unlock(t->mutex);
}

void ha_table_claimed(ha_table *t, const ha_digest *d, apr_uint64_t epoch, const char *route, apr_time_t now)
{
    entry *e;
    if (apr_global_mutex_lock(t->mutex) != APR_SUCCESS)
        return;
    e = find_or_make(t, d, now);
    if (epoch > e->epoch || (epoch == e->epoch && strcmp(e->route, route) != 0)) {
        raise_to(e, epoch);
        e->since = 0;
        apr_cpystrn(e->route, route, sizeof e->route);
    }
    apr_global_mutex_unlock(t->mutex);
}

void ha_table_home(ha_table *t, const ha_digest *d, const char *home)
{
    entry *e;
    if (apr_global_mutex_lock(t->mutex) != APR_SUCCESS)
        return;
    if ((e = find(t, d)) != NULL) {
        if (e->home[0] == '\0')
            apr_cpystrn(e->home, home, sizeof e->home);
        if (strcmp(e->home, e->route) == 0)
            e->home[0] = '\0';
    }
    apr_global_mutex_unlock(t->mutex);
}

int ha_table_enter(ha_table *t, const ha_digest *d, apr_time_t now, apr_time_t gate)
{
    entry *e;
    int in;
    if (apr_global_mutex_lock(t->mutex) != APR_SUCCESS)
        return 1;
    e = find_or_make(t, d, now);
    if ((in = e->gate <= now || e->gate == gate) != 0) {
        if (e->entered + FORGOTTEN < now)
            e->running = 0;
        e->running++;
        e->entered = now;
    }
    apr_global_mutex_unlock(t->mutex);
    return in;
}

void ha_table_leave(ha_table *t, const ha_digest *d)
{
    entry *e;
    if (apr_global_mutex_lock(t->mutex) != APR_SUCCESS)
        return;
    if ((e = find(t, d)) != NULL && e->running > 0)
        e->running--;
    apr_global_mutex_unlock(t->mutex);
}

int ha_table_empty(ha_table *t, const ha_digest *d, apr_time_t now)
{
    const entry *e;
    int empty;
    if (apr_global_mutex_lock(t->mutex) != APR_SUCCESS)
        return 1;
    e = find(t, d);
    empty = e == NULL || e->running == 0 || e->entered + FORGOTTEN < now;
    apr_global_mutex_unlock(t->mutex);
    return empty;
}

void ha_table_stay(ha_table *t, const ha_digest *d, apr_time_t until)
{
    entry *e;
    if (apr_global_mutex_lock(t->mutex) != APR_SUCCESS)
        return;
    if ((e = find(t, d)) != NULL)
        e->stays = until;
    apr_global_mutex_unlock(t->mutex);
}

int ha_table_count(ha_table *t, const char *route, apr_time_t after)
{
    int set, way, n = 0;
    for (set = 0; set < SETS; set++) {      /* a set at a time: requests must not wait for a page */
        if (apr_global_mutex_lock(t->mutex) != APR_SUCCESS)
            return n;
        for (way = 0; way < WAYS; way++)
            n += t->sets[set][way].touched > after && strcmp(t->sets[set][way].route, route) == 0;
        apr_global_mutex_unlock(t->mutex);
    }
    return n;
}

int ha_table_close_gate(ha_table *t, const ha_digest *d, apr_time_t now, apr_time_t until, int patient)
{
    entry *e;
    int mine;
    if (apr_global_mutex_lock(t->mutex) != APR_SUCCESS)
        return 1;               /* no shared memory to agree in: nobody waits for anybody */
    e = find_or_make(t, d, now);
    mine = e->gate <= now;
    if (mine) {
        e->gate = until;
        e->patient = patient != 0;
    }
    apr_global_mutex_unlock(t->mutex);
    return mine;
}

void ha_table_open_gate(ha_table *t, const ha_digest *d, apr_time_t until)
{
    entry *e;
    if (apr_global_mutex_lock(t->mutex) != APR_SUCCESS)
        return;
    /* `until` tells whose gate it is: one that ran out may have been closed by another since */
    if ((e = find(t, d)) != NULL && e->gate == until)
        e->gate = 0;
    apr_global_mutex_unlock(t->mutex);
}

ha_put ha_table_put_begin(ha_table *t, const ha_digest *d, ha_version v, apr_time_t now, apr_time_t until)
{
    entry *e;
    ha_put answer = HA_PUT_GO;
    if (apr_global_mutex_lock(t->mutex) != APR_SUCCESS)
        return HA_PUT_GO;
    e = find_or_make(t, d, now);
    if (v.epoch < e->epoch)
        answer = HA_PUT_FENCED;
    else if (v.epoch == e->epoch && e->seq > 0
             && (v.seq < e->seq || (v.seq == e->seq && (e->kept == 0 || now - e->kept < LATELY))))
        answer = HA_PUT_DONE;
    else if (e->gate > now && !e->patient)
        answer = HA_PUT_MOVING;
    else if (e->busy > now)
        answer = HA_PUT_BUSY;
    else {
        e->busy = until;
        if (v.epoch == e->epoch && v.seq == e->seq && e->seq > 0)
            answer = HA_PUT_SAME;
    }
    apr_global_mutex_unlock(t->mutex);
    return answer;
}

void ha_table_lost(ha_table *t, const ha_digest *d, ha_version v)
{
    entry *e;
    if (apr_global_mutex_lock(t->mutex) != APR_SUCCESS)
        return;
    if ((e = find(t, d)) != NULL && acked(e).epoch == v.epoch && acked(e).seq == v.seq)
        e->seq = e->before.seq = 0;     /* unless something was acknowledged since */
    apr_global_mutex_unlock(t->mutex);
}

int ha_table_quiet(ha_table *t, const ha_digest *d, apr_time_t now)
{
    const entry *e;
    int quiet;
    if (apr_global_mutex_lock(t->mutex) != APR_SUCCESS)
        return 1;
    e = find(t, d);
    quiet = e == NULL || e->busy <= now;
    apr_global_mutex_unlock(t->mutex);
    return quiet;
}

void ha_table_put_end(ha_table *t, const ha_digest *d, ha_version v, const char *route, apr_time_t asked,
                      ha_ack ack)
{
    entry *e;
    if (apr_global_mutex_lock(t->mutex) != APR_SUCCESS)
        return;
    if ((e = find(t, d)) != NULL) {
        e->busy = 0;
        if (ack != HA_ACK_NONE && (v.epoch > e->epoch || (v.epoch == e->epoch && v.seq >= e->seq))) {
            if (v.epoch > e->epoch) {
                /* a member knows an owner's epoch that this httpd has not seen: another one moved it */
                e->epoch = v.epoch;
                apr_cpystrn(e->route, route, sizeof e->route);
            }
            else if (e->route[0] == '\0') {
                apr_cpystrn(e->route, route, sizeof e->route);
            }
            if (asked > e->since)
                e->since = asked;
            e->seq = v.seq;
            e->kept = ack == HA_ACK_STATE ? asked : 0;
        }
    }
    apr_global_mutex_unlock(t->mutex);
}
