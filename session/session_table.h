/* session_table.h - what the processes of this httpd know of sessions in motion, in shared
 * memory: who owns a session, its newest acknowledged version, and the gate of a takeover.
 *
 * A bounded memory of the recent past: an evicted entry costs a look-up in the store, never
 * correctness across a failover. The healthy path does not touch it.
 */
#ifndef HA_SESSION_TABLE_H
#define HA_SESSION_TABLE_H

#include <apr_global_mutex.h>

#include "../mod_session_ha.h"
#include "session_seal.h"

typedef struct ha_table ha_table;           /* one process's view of the shared table */

typedef struct ha_owner {                   /* a copy of what the table says of a session */
    ha_version version;         /* epoch of the owner; newest seq acknowledged by the store, 0: none seen */
    ha_version acked;           /* the newest version acknowledged by the store, under whatever epoch; seq 0: none seen */
    char route[HA_ROUTE_MAX];   /* the member that owns it; "": not known */
    char home[HA_ROUTE_MAX];    /* the member that it was moved away from first; "": it is at home */
    apr_time_t since;           /* it was restored to, or confirmed at, this member at this point; 0: it was not */
    apr_time_t gate;            /* a takeover runs: others wait until this point at most; 0: the gate is open */
    apr_time_t stays;           /* it could not be moved off its member, and is not tried again before this point */
} ha_owner;

/* Bytes of shared memory, zeroed by the caller the first time. */
apr_size_t ha_table_size(void);

/* mutex: shared by all processes; held for some hundred instructions at a time. */
ha_table *ha_table_attach(void *shared, apr_global_mutex_t *mutex, apr_pool_t *p);

/* 1: known, *out filled. 0: not known, or the lock is broken (then the store decides). */
int ha_table_owner(ha_table *, const ha_digest *, ha_owner *out);

/* This member has the session and owns it from now on. An older epoch than the known one changes nothing. */
void ha_table_own(ha_table *, const ha_digest *, apr_uint64_t epoch, const char *route, apr_time_t since);

/* The same, but it has neither been given the session nor shown that it has it: not confirmed (since 0), unless it is the
 * owner already. */
void ha_table_claimed(ha_table *, const ha_digest *, apr_uint64_t epoch, const char *route, apr_time_t now);

/* Remembers where it came from, unless that is known already; coming home forgets it. */
void ha_table_home(ha_table *, const ha_digest *, const char *home);

/* While members are drained or taken back, requests are counted in and out, so that a session is moved between two of
 * its requests and not under one. 1: counted in. 0: the gate is closed, ask again. gate: the one that the caller holds
 * (ha_table_close_gate's until), or 0. */
int ha_table_enter(ha_table *, const ha_digest *, apr_time_t now, apr_time_t gate);
void ha_table_leave(ha_table *, const ha_digest *);
/* 1: nobody is in. A count that nobody has touched for long is of a child that was killed. */
int ha_table_empty(ha_table *, const ha_digest *, apr_time_t now);

/* It could not be moved, though its member lives: not to be tried again before that point. */
void ha_table_stay(ha_table *, const ha_digest *, apr_time_t until);

/* Sessions that this httpd has seen at a member after that point and that are still there; for the page. */
int ha_table_count(ha_table *, const char *route, apr_time_t after);

/* The gate. 1: it is yours: you go first, until you open it or `until` has passed. 0: another
 * request holds it. */
/* patient: who closes it waits for the running requests; their backups go through. */
int ha_table_close_gate(ha_table *, const ha_digest *, apr_time_t now, apr_time_t until, int patient);
void ha_table_open_gate(ha_table *, const ha_digest *, apr_time_t until);

/* Backups of one session reach the store one after the other and never backwards: responses of
 * parallel requests are captured by different threads and processes in any order. */
typedef enum {
    HA_PUT_GO,                  /* write it; then ha_table_put_end() */
    HA_PUT_DONE,                /* a newer one of the epoch is acknowledged already, or this one a moment ago */
    HA_PUT_SAME,                /* this very one is acknowledged: let its copies live on; then ha_table_put_end() */
    HA_PUT_BUSY,                /* another one is being written: ask again */
    HA_PUT_MOVING,              /* the session is being moved: ask again, it may be fenced then */
    HA_PUT_FENCED               /* the session has an owner of a newer epoch */
} ha_put;
ha_put ha_table_put_begin(ha_table *, const ha_digest *, ha_version, apr_time_t now, apr_time_t until);
/* No node has this version any more, and the member is told so: it may begin to count anew. */
void ha_table_lost(ha_table *, const ha_digest *, ha_version);
/* Who moves a session closes the gate, and then waits until no backup of it is on its way any more: what is
 * acknowledged before that is fetched, what comes later meets the gate. 1: none is. */
int ha_table_quiet(ha_table *, const ha_digest *, apr_time_t now);
typedef enum {
    HA_ACK_NONE,
    HA_ACK_STATE,
    HA_ACK_STONE                /* a tombstone: it is never HA_PUT_SAME as a state of its version that comes late */
} ha_ack;
/* route, asked: the member that made it, and when it was asked (not when it answered: an answer that
 * a dying member gave last must not look like a sign of life after its death). */
void ha_table_put_end(ha_table *, const ha_digest *, ha_version, const char *route, apr_time_t asked, ha_ack);

#endif
