/* manager_shared.h - inside the manager room: the counters and the journal as they lie in
 * shared memory, and how to read a copy. APR only, no server: manager.c brings the memory. */
#ifndef HA_MANAGER_SHARED_H
#define HA_MANAGER_SHARED_H

#include "apr_tables.h"
#include "manager.h"

#define HA_BALANCERS_MAX 256        /* distinct balancer names */
#define HA_PAIRS_MAX     4096       /* distinct (balancer, from, to) */
#define HA_NAME_SIZE     128        /* shown bytes of a balancer's name; mod_proxy's own limit is 96 */
#define HA_ROUTE_SIZE    104        /* HA_ROUTE_MAX and a NUL, in eights */

/* ---- counters --------------------------------------------------------------- */

typedef struct ha_counters ha_counters;

apr_size_t ha_counters_size(void);
/* Zeroes the memory and writes the head. */
ha_counters *ha_counters_format(void *memory);
/* The counters that an earlier configuration left there; NULL: not of this layout. */
ha_counters *ha_counters_adopt(void *memory, apr_size_t size);

/* full: set to 1 once in the life of the memory, by the call that first met a full table. */
ha_member_slot *ha_counters_member(ha_counters *, const char *balancer, const char *route, int *full);
void ha_counters_failover(ha_counters *, const ha_event *, int *full);
void ha_counters_backup(ha_counters *, const char *balancer, const ha_member_slot *from, ha_backup_result, apr_size_t bytes, apr_size_t kept, int *full);
void ha_counters_retried(ha_counters *, const char *balancer, const char *route);

typedef struct ha_member_counts {
    apr_uint64_t moved_out, moved_in, retried, outcomes[HA_OUTCOMES];
    apr_time_t last_failover;       /* 0: never */
} ha_member_counts;

typedef struct ha_pair_counts {     /* for Prometheus; "" is an unknown member */
    const char *balancer, *from, *to;
    apr_uint64_t outcomes[HA_OUTCOMES];
} ha_pair_counts;

typedef struct ha_backup_counts {
    const char *balancer;
    apr_uint64_t results[HA_BACKUP_RESULTS], bytes, kept;
} ha_backup_counts;

typedef struct ha_totals {
    apr_uint64_t failovers, retries, outcomes[HA_OUTCOMES];
} ha_totals;

/* A member that was never counted reads as zeroes. Counters may be NULL. */
void ha_counters_read_member(ha_counters *, const char *balancer, const char *route, ha_member_counts *out);
apr_array_header_t *ha_counters_read_pairs(ha_counters *, apr_pool_t *p);       /* of ha_pair_counts */
apr_array_header_t *ha_counters_read_backups(ha_counters *, apr_pool_t *p);     /* of ha_backup_counts */
void ha_counters_read_totals(ha_counters *, ha_totals *out);

/* ---- journal ---------------------------------------------------------------- */

#define HA_JOURNAL_MAX 65536        /* entries; about 30 MB */

typedef struct ha_journal ha_journal;

/* One failover as it is kept and as it is shown. Whole eights: it is summed by words. */
typedef struct ha_journal_entry {
    apr_int64_t  time, took;                    /* microseconds */
    apr_uint64_t epoch, seq, bytes;
    apr_uint32_t outcome, trips;
    char session[16];                           /* 12 hex */
    char cause[32];
    char from[HA_ROUTE_SIZE], to[HA_ROUTE_SIZE];
    char balancer[HA_NAME_SIZE];
} ha_journal_entry;

apr_size_t ha_journal_size(int entries);
ha_journal *ha_journal_format(void *memory, int entries);
ha_journal *ha_journal_adopt(void *memory, apr_size_t size);    /* NULL: not of this layout */
int ha_journal_entries(const ha_journal *);                     /* how many it can hold */

void ha_journal_append(ha_journal *, const ha_event *);
/* What `from` holds goes into the fresh `to`; the newest if not all fit. */
void ha_journal_copy(ha_journal *to, ha_journal *from, apr_pool_t *ptemp);
/* Newest first. The journal may be NULL. */
apr_array_header_t *ha_journal_read(ha_journal *, apr_pool_t *p);   /* of ha_journal_entry */

#endif
