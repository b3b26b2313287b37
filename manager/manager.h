/* manager.h - shows and counts. Knows httpd, but neither mod_proxy nor the other rooms:
 * members and stores are handed to it as plain rows (ha_manager_sources). */
#ifndef HA_MANAGER_H
#define HA_MANAGER_H

#include "httpd.h"
#include "../mod_session_ha.h"

/* ---- the words of the contract (DESIGN 6, 7) ------------------------------ */

typedef enum {
    HA_RESTORED, HA_NATIVE, HA_MISSING, HA_UNAVAILABLE, HA_REFUSED, HA_OUTCOMES
} ha_outcome;
const char *ha_outcome_name(ha_outcome);            /* "restored", ... */

typedef enum {
    HA_BACKUP_STORED, HA_BACKUP_TOUCHED, HA_BACKUP_UNAVAILABLE, HA_BACKUP_TOO_LARGE, HA_BACKUP_FENCED, HA_BACKUP_INVALID,
    HA_BACKUP_GONE, HA_BACKUP_RESULTS
} ha_backup_result;
const char *ha_backup_result_name(ha_backup_result); /* "stored", "touched", ... */

/* ---- a member's counters, in shared memory -------------------------------- */

/* One slot a (balancer name, route): worker pointers are not stable. Slots are never freed before
 * the server stops; a full table (HA_MEMBERS_MAX) is logged once and the member is then not counted. */
#define HA_MEMBERS_MAX 1024
typedef struct ha_member_slot ha_member_slot;

/* Finds or makes the slot. NULL: table full. Cheap enough for a miss, not for every request:
 * the balancer room keeps the pointer. Thread- and process-safe. */
ha_member_slot *ha_member(const char *balancer, const char *route);

/* error: the member was seen unusable (in error, disabled, stopped, hcheck). left: sessions were being moved off it while it
 * lived, and it has old copies of them. doubt: the later of both, which is read on every request of a session; so it is one
 * aligned 64-bit load. 0: never. */
apr_time_t ha_member_last_error(const ha_member_slot *);
apr_time_t ha_member_last_left(const ha_member_slot *);
apr_time_t ha_member_last_doubt(const ha_member_slot *);
void ha_member_note_error(ha_member_slot *, apr_time_t when);
void ha_member_note_left(ha_member_slot *, apr_time_t when);

/* ---- what happened --------------------------------------------------------- */

typedef struct ha_event {                   /* one failover, for the journal, counters, log and env */
    apr_time_t  time;
    const char *balancer;                   /* "balancer://tomcats" */
    char        session[13];                /* first 12 hex of the digest; never the id */
    const char *from, *to;                  /* routes; "" unknown */
    const char *cause;                      /* "connect", "status", "timeout", "disabled", "drained", "missing", ... */
    ha_outcome  outcome;
    ha_version  version;
    apr_size_t  bytes;
    apr_interval_time_t took;
    int trips;                              /* round trips to the store */
} ha_event;

/* Counts at both members, appends to the journal. Any process, any thread. */
void ha_manager_failover(const ha_event *);
/* from: the member that made it, which leads to its balancer without a search; NULL: not known */
/* bytes, kept: of the state as it was handed over, and as it is stored (base64 text is longer, compressed it is shorter) */
void ha_manager_backup(const char *balancer, const ha_member_slot *from, ha_backup_result, apr_size_t bytes, apr_size_t kept);
void ha_manager_retried(const char *balancer, const char *route);

/* ---- rows from the other rooms --------------------------------------------- */

typedef struct ha_row_member {
    const char *name, *route, *state;
    int drain;                              /* it gets no new sessions */
    int left;                               /* then: sessions seen lately that are still there */
} ha_row_member;
typedef struct ha_row_balancer { const char *name, *sticky; apr_array_header_t *members; /* ha_row_member */ } ha_row_balancer;
typedef struct ha_row_store {
    const char *node, *state;
    apr_uint64_t gets, hits, misses, puts, adds, errors, timeouts, p50_us, p99_us, sum_us;
    apr_uint64_t restarts, evictions, damages;  /* why it has forgotten what it had: times; values it evicted */
    apr_time_t last_forgot;                 /* 0: never */
    int nbuckets;                           /* cumulative counts are made by the renderer */
    const apr_uint64_t *buckets;            /* bucket i: up to 16 * 2^i microseconds; the last: anything */
} ha_row_store;
typedef struct ha_manager_sources {
    /* all balancers of a server that members can be shown of; rows in p */
    apr_array_header_t *(*balancers)(server_rec *s, apr_pool_t *p);     /* of ha_row_balancer */
    apr_array_header_t *(*stores)(server_rec *s, apr_pool_t *p);        /* of ha_row_store */
} ha_manager_sources;

/* ---- start-up --------------------------------------------------------------- */

/* Hooks: the handler session-ha-status (HTML, ?format=json, ?format=prometheus, Accept), the filter that
 * adds to the balancer-manager page (HTML and ?xml=1), mod_status (HTML and ?auto). */
void ha_manager_register_hooks(apr_pool_t *p);

/* post_config, parent. Counters and journal live in shared memory that survives a graceful restart
 * (kept in s->process->pool); another journal_size copies what fits. APR_SUCCESS or APR's error. */
apr_status_t ha_manager_prepare(server_rec *s, apr_pool_t *pconf, int journal_size, const ha_manager_sources *);

#endif
