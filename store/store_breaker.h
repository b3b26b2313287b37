/* store_breaker.h - what all children know of one node: is it worth asking, and how it does.
 *
 * It lies in shared memory, for each node 384 bytes in six cache lines, zero at first:
 *
 *     0  node(8)       which node this place counts: hash of its name
 *     8  word(8)       openings << 2 | state: 0 unknown, 1 up, 2 down
 *    16  since(8)      when it went down (or came up)
 *    24  probed(8)     when a process last took it on itself to probe
 *    32  swept(8)      the same, for sweeping
 *    40  asked(8)      the same, for asking whether it has forgotten
 *    48  -
 *    64  counts[8]     gets hits misses puts adds errors timeouts repairs
 *   128  took[20]      latency histogram; 288 sum of microseconds
 *   296  -
 *   320  life evicted  what it said of itself when it was asked (ha_memory); life 0: it never was
 *   336  forgot[3]     starts, evicted values, damaged files that were noticed
 *   360  when          something was, last
 *   368  evicting      the last time values had been evicted
 *   376  untold        a bit for each ha_forgot that nobody has told the operator
 *
 * The first line is read by every operation and written when something happens; the counters
 * are written by every operation, so they are kept off it. Everything is changed by atomic words;
 * there is no lock that a killed child could leave behind.
 *
 * One 64-bit word holds the state and the number of openings, so that a probe can only close
 * the very opening it has seen: a node that went down again while the probe ran stays down.
 */
#ifndef HA_STORE_BREAKER_H
#define HA_STORE_BREAKER_H

#include "store.h"

typedef enum { HA_NODE_UNKNOWN, HA_NODE_UP, HA_NODE_DOWN } ha_node_state;

typedef enum {
    HA_N_GETS, HA_N_HITS, HA_N_MISSES, HA_N_PUTS, HA_N_ADDS, HA_N_ERRORS, HA_N_TIMEOUTS, HA_N_REPAIRS, HA_N_COUNTS
} ha_count;

typedef struct ha_breaker {
    apr_uint64_t node, word, since, probed, swept, asked, spare[2];
    apr_uint64_t counts[HA_N_COUNTS];
    apr_uint64_t took[HA_STORE_BUCKETS], sum_us, tail[3];
    apr_uint64_t life, evicted, forgot[HA_FORGOT_WAYS], when, evicting, untold;
} ha_breaker;

/* Parent: this place is for that node. What another node left there is wiped. */
void ha_breaker_take(ha_breaker *, apr_uint64_t node);

ha_node_state ha_breaker_state(ha_breaker *);
#define ha_breaker_usable(b) (ha_breaker_state(b) != HA_NODE_DOWN)

/* A time-out, or the node could not be reached: nobody asks it until a probe has found it well. */
void ha_breaker_open(ha_breaker *, apr_time_t now);
/* It answered (not by a probe): unknown becomes up, down stays down. */
void ha_breaker_answered(ha_breaker *, apr_time_t now);

/* May I probe a node that is down, or was never asked? One caller of all processes, each `every`. *seen is what ha_breaker_close() wants. */
int ha_breaker_probe_due(ha_breaker *, apr_time_t now, apr_interval_time_t every, apr_uint64_t *seen);
void ha_breaker_close(ha_breaker *, apr_uint64_t seen, apr_time_t now);
int ha_breaker_sweep_due(ha_breaker *, apr_time_t now, apr_interval_time_t every);
int ha_breaker_recall_due(ha_breaker *, apr_time_t now, apr_interval_time_t every);

/* What the node says of itself: another life than the last time is a start that is noticed, more evicted values
 * are counted. The first time nothing is: what was before it was asked is not known. */
void ha_breaker_recalled(ha_breaker *, const ha_memory *, apr_time_t now);
void ha_breaker_forgot(ha_breaker *, ha_forgot, apr_uint64_t n, apr_time_t now);
/* Is there something to tell of this kind? Says so once, to one process. Evictions are told again when there
 * have been none for HA_EVICTING. */
#define HA_EVICTING apr_time_from_sec(60)
int ha_breaker_tell(ha_breaker *, ha_forgot);

void ha_breaker_count(ha_breaker *, ha_count);
void ha_breaker_took(ha_breaker *, apr_interval_time_t);
void ha_breaker_facts(ha_breaker *, ha_store_facts *out);

#endif
