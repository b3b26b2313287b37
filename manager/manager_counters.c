/* manager_counters.c - what is counted, where every process and every thread can count.
 *
 * The memory (made once by manager.c, never moved, kept over a graceful restart):
 *
 *   +------+----------------------+-------------------------+----------------------------+
 *   | head | balancers[256]       | members[1024]           | pairs[4096]                |
 *   +------+----------------------+-------------------------+----------------------------+
 *     |      |                      |                         |
 *     |      key  hash(name)        key  hash(name, 0, route) key  balancer, from, to as
 *     |      named                  last_error, _left, _doubt |    three table positions
 *     |      results[],             counters                  outcomes[]
 *     |      bytes, kept
 *     |      name                   named, balancer, route
 *     layout, totals, full
 *
 * Each table is open-addressed. A place is taken by one compare-and-swap of its key from 0, and the
 * key alone says whose it is: there is no moment in which a place is "being written", so nobody
 * waits and a child killed at any instruction leaves nothing behind that others would wait for. The
 * name is only for people: whoever finds a place not yet `named` writes it (every writer writes the
 * same bytes) and then sets `named`; until then readers leave the place out. Places are never given
 * back. Keys of names are 64-bit hashes: names come from the configuration, not from clients, and
 * 1024 of them meet by accident once in 2^45 configurations.
 *
 * A route that a client sent and no member has must not be able to fill the tables: only
 * ha_member() and the target of a failover make a member's place; `from` is only looked up.
 *
 * 64-bit words are APR's: lock-free, and so good across processes, wherever the CPU has them.
 */
#include <stddef.h>
#include <string.h>

#include "apr_atomic.h"
#include "apr_strings.h"
#include "manager_shared.h"

/* "SHAC" and the number of the layout: another number when a structure below changes. */
#define LAYOUT (APR_UINT64_C(0x53484143) << 32 | 4)

typedef volatile apr_uint64_t word;

struct ha_member_slot {
    word key;                       /* must be first, see place() */
    word last_error, last_left, last_doubt;     /* apr_time_t; only move forward */
    word moved_out, moved_in, retried, last_failover;
    word outcomes[HA_OUTCOMES];     /* of the failovers into this member */
    word named;
    apr_uint64_t balancer;          /* position in balancers[] */
    char route[HA_ROUTE_SIZE];
};

typedef struct balancer_slot {
    word key;
    word results[HA_BACKUP_RESULTS], bytes, kept;
    word named;
    char name[HA_NAME_SIZE];
} balancer_slot;

typedef struct pair_slot {
    word key;                       /* pair_key() */
    word outcomes[HA_OUTCOMES];
} pair_slot;

struct ha_counters {
    apr_uint64_t layout, size;
    word outcomes[HA_OUTCOMES], retries;    /* totals: right even when a table is full */
    word full;                              /* somebody has been told */
    balancer_slot balancers[HA_BALANCERS_MAX];
    ha_member_slot members[HA_MEMBERS_MAX];
    pair_slot pairs[HA_PAIRS_MAX];
};

/* ---- words -------------------------------------------------------------------- */

const char *ha_outcome_name(ha_outcome outcome)
{
    static const char *const names[HA_OUTCOMES] = {
        [HA_RESTORED] = "restored", [HA_NATIVE] = "native", [HA_MISSING] = "missing",
        [HA_UNAVAILABLE] = "unavailable", [HA_REFUSED] = "refused",
    };
    return (unsigned)outcome < HA_OUTCOMES ? names[outcome] : "unknown";
}

const char *ha_backup_result_name(ha_backup_result result)
{
    static const char *const names[HA_BACKUP_RESULTS] = {
        [HA_BACKUP_STORED] = "stored", [HA_BACKUP_TOUCHED] = "touched", [HA_BACKUP_UNAVAILABLE] = "unavailable",
        [HA_BACKUP_TOO_LARGE] = "too_large", [HA_BACKUP_FENCED] = "fenced",
        [HA_BACKUP_INVALID] = "invalid", [HA_BACKUP_GONE] = "gone",
    };
    return (unsigned)result < HA_BACKUP_RESULTS ? names[result] : "unknown";
}

/* ---- the memory ----------------------------------------------------------------- */

apr_size_t ha_counters_size(void)
{
    return sizeof(ha_counters);
}

ha_counters *ha_counters_format(void *memory)
{
    ha_counters *c = memory;

    memset(c, 0, sizeof(*c));
    c->layout = LAYOUT;
    c->size = sizeof(*c);
    return c;
}

ha_counters *ha_counters_adopt(void *memory, apr_size_t size)
{
    ha_counters *c = memory;

    return size >= sizeof(*c) && c->layout == LAYOUT && c->size == sizeof(*c) ? c : NULL;
}

/* ---- places --------------------------------------------------------------------- */

/* FNV-1a, the NUL of each part included. */
static apr_uint64_t hash_more(apr_uint64_t hash, const char *s)
{
    const unsigned char *at = (const unsigned char *)s;

    do {
        hash = (hash ^ *at) * APR_UINT64_C(0x100000001b3);
    } while (*at++);
    return hash;
}

static apr_uint64_t hash_name(const char *name)
{
    return hash_more(APR_UINT64_C(0xcbf29ce484222325), name);
}

/* The place of key in a table of n places of size bytes, each with its key first. NULL: there is
 * none, or (make) the table is full. */
static void *place(void *table, apr_size_t size, apr_uint32_t n, apr_uint64_t key, int make)
{
    apr_uint64_t start = (key ^ key >> 32) * APR_UINT64_C(0x9e3779b97f4a7c15) >> 32;
    apr_uint32_t i;

    for (i = 0; i < n; i++) {
        void *slot = (char *)table + (apr_size_t)((start + i) % n) * size;
        word *its = slot;
        apr_uint64_t found = apr_atomic_read64(its);

        if (!found) {
            if (!make)
                return NULL;
            found = apr_atomic_cas64(its, key, 0);
            if (!found)
                return slot;
        }
        if (found == key)
            return slot;
    }
    return NULL;
}

static void met_full(ha_counters *c, int *full)
{
    if (!apr_atomic_read64(&c->full) && !apr_atomic_cas64(&c->full, 1, 0))
        *full = 1;
}

static balancer_slot *find_balancer(ha_counters *c, const char *name, int make)
{
    apr_uint64_t key = hash_name(name);
    balancer_slot *slot = place(c->balancers, sizeof(*slot), HA_BALANCERS_MAX, key ? key : 1, make);

    if (slot && make && !apr_atomic_read64(&slot->named)) {
        apr_cpystrn(slot->name, name, sizeof(slot->name));
        apr_atomic_set64(&slot->named, 1);      /* a full barrier: the name is there first */
    }
    return slot;
}

static ha_member_slot *find_member(ha_counters *c, const char *balancer, const char *route, int make)
{
    apr_uint64_t key = hash_more(hash_name(balancer), route);
    ha_member_slot *slot = place(c->members, sizeof(*slot), HA_MEMBERS_MAX, key ? key : 1, 0);

    if (make && (!slot || !apr_atomic_read64(&slot->named))) {
        balancer_slot *its = find_balancer(c, balancer, 1);

        if (!its)
            return NULL;
        slot = place(c->members, sizeof(*slot), HA_MEMBERS_MAX, key ? key : 1, 1);
        if (!slot)
            return NULL;
        slot->balancer = (apr_uint64_t)(its - c->balancers);
        apr_cpystrn(slot->route, route, sizeof(slot->route));
        apr_atomic_set64(&slot->named, 1);
    }
    return slot;
}

/* Positions from 1, so that a key is never 0 and "no such member" is 0. */
static apr_uint64_t pair_key(const ha_counters *c, const balancer_slot *balancer,
                             const ha_member_slot *from, const ha_member_slot *to)
{
    return (apr_uint64_t)(balancer - c->balancers + 1) << 32
         | (from ? (apr_uint64_t)(from - c->members + 1) : 0) << 16
         | (to ? (apr_uint64_t)(to - c->members + 1) : 0);
}

/* ---- count ---------------------------------------------------------------------- */

static void forward(word *time, apr_time_t when)
{
    apr_uint64_t seen = apr_atomic_read64(time);

    while ((apr_time_t)seen < when) {
        apr_uint64_t was = apr_atomic_cas64(time, (apr_uint64_t)when, seen);

        if (was == seen)
            return;
        seen = was;
    }
}

ha_member_slot *ha_counters_member(ha_counters *c, const char *balancer, const char *route, int *full)
{
    ha_member_slot *slot = find_member(c, balancer, route, 1);

    if (!slot)
        met_full(c, full);
    return slot;
}

apr_time_t ha_member_last_doubt(const ha_member_slot *slot)
{
    /* every request of a session comes here: one load of an aligned word, no call. It orders nothing;
     * a request that reads it a moment before the error could as well have come that moment earlier */
    return slot ? (apr_time_t)slot->last_doubt : 0;
}

apr_time_t ha_member_last_error(const ha_member_slot *slot)
{
    return slot ? (apr_time_t)slot->last_error : 0;
}

apr_time_t ha_member_last_left(const ha_member_slot *slot)
{
    return slot ? (apr_time_t)slot->last_left : 0;
}

void ha_member_note_error(ha_member_slot *slot, apr_time_t when)
{
    if (slot) {
        forward(&slot->last_error, when);
        forward(&slot->last_doubt, when);
    }
}

void ha_member_note_left(ha_member_slot *slot, apr_time_t when)
{
    if (slot) {
        forward(&slot->last_left, when);
        forward(&slot->last_doubt, when);
    }
}

void ha_counters_failover(ha_counters *c, const ha_event *event, int *full)
{
    const char *name = event->balancer ? event->balancer : "";
    ha_outcome outcome = event->outcome;
    balancer_slot *balancer;
    ha_member_slot *from = NULL, *to = NULL;
    pair_slot *pair = NULL;

    if ((unsigned)outcome >= HA_OUTCOMES)
        return;
    apr_atomic_inc64(&c->outcomes[outcome]);
    balancer = find_balancer(c, name, 1);
    if (event->from && *event->from)
        from = find_member(c, name, event->from, 0);
    if (event->to && *event->to) {
        to = find_member(c, name, event->to, 1);
        if (!to)
            met_full(c, full);
    }
    if (from) {
        apr_atomic_inc64(&from->moved_out);
        forward(&from->last_failover, event->time);
    }
    if (to) {
        apr_atomic_inc64(&to->moved_in);
        apr_atomic_inc64(&to->outcomes[outcome]);
        forward(&to->last_failover, event->time);
    }
    if (balancer)
        pair = place(c->pairs, sizeof(*pair), HA_PAIRS_MAX, pair_key(c, balancer, from, to), 1);
    if (pair)
        apr_atomic_inc64(&pair->outcomes[outcome]);
    else
        met_full(c, full);
}

void ha_counters_backup(ha_counters *c, const char *balancer, const ha_member_slot *from, ha_backup_result result,
                        apr_size_t bytes, apr_size_t kept, int *full)
{
    balancer_slot *slot = from ? &c->balancers[from->balancer] : find_balancer(c, balancer ? balancer : "", 1);

    if (!slot) {
        met_full(c, full);
        return;
    }
    if ((unsigned)result < HA_BACKUP_RESULTS)
        apr_atomic_inc64(&slot->results[result]);
    if (result == HA_BACKUP_STORED) {
        apr_atomic_add64(&slot->bytes, bytes);
        apr_atomic_add64(&slot->kept, kept);
    }
}

void ha_counters_retried(ha_counters *c, const char *balancer, const char *route)
{
    ha_member_slot *slot = find_member(c, balancer ? balancer : "", route ? route : "", 0);

    apr_atomic_inc64(&c->retries);
    if (slot)
        apr_atomic_inc64(&slot->retried);
}

/* ---- read ----------------------------------------------------------------------- */

static void read_outcomes(word *from, apr_uint64_t *out)
{
    int i;

    for (i = 0; i < HA_OUTCOMES; i++)
        out[i] = apr_atomic_read64(&from[i]);
}

void ha_counters_read_member(ha_counters *c, const char *balancer, const char *route, ha_member_counts *out)
{
    ha_member_slot *slot = c ? find_member(c, balancer, route, 0) : NULL;

    memset(out, 0, sizeof(*out));
    if (!slot)
        return;
    out->moved_out = apr_atomic_read64(&slot->moved_out);
    out->moved_in = apr_atomic_read64(&slot->moved_in);
    out->retried = apr_atomic_read64(&slot->retried);
    out->last_failover = (apr_time_t)apr_atomic_read64(&slot->last_failover);
    read_outcomes(slot->outcomes, out->outcomes);
}

/* A name for people; NULL: its writer has not come to it yet. */
static const char *member_route(ha_counters *c, apr_uint64_t position)
{
    if (!position)
        return "";
    if (position > HA_MEMBERS_MAX || !apr_atomic_read64(&c->members[position - 1].named))
        return NULL;
    return c->members[position - 1].route;
}

apr_array_header_t *ha_counters_read_pairs(ha_counters *c, apr_pool_t *p)
{
    apr_array_header_t *rows = apr_array_make(p, 16, sizeof(ha_pair_counts));
    int i;

    for (i = 0; c && i < HA_PAIRS_MAX; i++) {
        apr_uint64_t key = apr_atomic_read64(&c->pairs[i].key);
        apr_uint64_t balancer = (key >> 32 & 0xffff) - 1;
        const char *from = member_route(c, key >> 16 & 0xffff), *to = member_route(c, key & 0xffff);

        if (key && from && to && balancer < HA_BALANCERS_MAX && apr_atomic_read64(&c->balancers[balancer].named)) {
            ha_pair_counts *row = apr_array_push(rows);

            row->balancer = c->balancers[balancer].name;
            row->from = from;
            row->to = to;
            read_outcomes(c->pairs[i].outcomes, row->outcomes);
        }
    }
    return rows;
}

apr_array_header_t *ha_counters_read_backups(ha_counters *c, apr_pool_t *p)
{
    apr_array_header_t *rows = apr_array_make(p, 8, sizeof(ha_backup_counts));
    int i, result;

    for (i = 0; c && i < HA_BALANCERS_MAX; i++) {
        balancer_slot *slot = &c->balancers[i];

        if (apr_atomic_read64(&slot->named)) {
            ha_backup_counts *row = apr_array_push(rows);

            row->balancer = slot->name;
            row->bytes = apr_atomic_read64(&slot->bytes);
            row->kept = apr_atomic_read64(&slot->kept);
            for (result = 0; result < HA_BACKUP_RESULTS; result++)
                row->results[result] = apr_atomic_read64(&slot->results[result]);
        }
    }
    return rows;
}

void ha_counters_read_totals(ha_counters *c, ha_totals *out)
{
    int i;

    memset(out, 0, sizeof(*out));
    if (!c)
        return;
    read_outcomes(c->outcomes, out->outcomes);
    for (i = 0; i < HA_OUTCOMES; i++)
        out->failovers += out->outcomes[i];
    out->retries = apr_atomic_read64(&c->retries);
}
