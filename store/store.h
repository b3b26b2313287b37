/* store.h - the store's face: keeps bytes under a key until a time, on K of N nodes.
 *
 * APR only. Placement, copies, newest-wins reading, repair, the deadline and the
 * breaker stand here, once, above all providers.
 *
 *   parent   ha_store_configure()  one per distinct SessionHAStore line
 *            ha_store_shared_size(), ha_store_prepare()   post_config
 *   child    ha_store_open()       child_init
 *   request  get / put / add / touch / remove, from any thread, within call->deadline
 *
 * Keys are printable ASCII without space, at most HA_STORE_KEY_MAX bytes. A part between colons that is
 * 64 bytes long (a session's digest in hex) alone decides where a key is placed, so that everything of
 * one session ("ha:b:<digest>", "ha:c:<digest>:7") lies on the same nodes; a key without such a part is
 * placed by all of it.
 */
#ifndef HA_STORE_H
#define HA_STORE_H

#include "../mod_session_ha.h"

#define HA_STORE_NODES_MAX 32
#define HA_STORE_PLACE_LEN 64
#define HA_STORE_KEY_MAX  160   /* a provider's limit is 200; parts of large values add to it */

typedef struct ha_store ha_store;

/* A stored value: bytes, and which version of the session they are. The version stands in
 * the clear before the bytes, so that copies can be compared without the secret; whoever
 * unseals the bytes checks that it is the same version inside. */
typedef struct ha_value {
    ha_blob    data;
    ha_version version;
} ha_value;

/* What an operation met, besides its status: for the journal and the demo. */
typedef struct ha_store_trace {
    const char *node;           /* the node that answered (or took the first copy); NULL: none */
    int copies;                 /* put: copies acknowledged; get: copies found */
    int broken;                 /* nodes that could not be asked */
    int trips;                  /* round trips waited for, one after the other */
} ha_store_trace;

/* NULL, or a text that says what is allowed. All URLs have one scheme. pconf: config pool.
 * copies: at most the number of nodes (less is made of more). timeout: of one operation. */
const char *ha_store_configure(ha_store **store, apr_pool_t *pconf, int nurls, const char *const *urls,
                               int copies, apr_interval_time_t timeout);

/* The schemes built into this module ("lmdb, memcached"), for messages. */
const char *ha_store_schemes(apr_pool_t *p);

/* Shared memory for one store: breaker and counters of its nodes, for all children.
 * The memory is zeroed by the caller the first time and kept over a graceful restart. */
apr_size_t ha_store_shared_size(const ha_store *);

/* Parent, post_config. shared: ha_store_shared_size() bytes, visible to all children;
 * uid/gid as in ha_store_provider.prepare. Errors: the provider's; call->why says which. APR_SUCCESS with
 * call->why set: what the operator should hear, as from ha_store_news(). */
apr_status_t ha_store_prepare(ha_store *, ha_call *, void *shared, apr_uid_t uid, apr_gid_t gid);

/* Each child. Starts the executor's threads; they are joined (bounded) when pchild dies. */
apr_status_t ha_store_open(ha_store *, apr_pool_t *pchild);

/* The newest copy. APR_SUCCESS; APR_NOTFOUND: every node that could hold it answered "no";
 * else broken: no copy was found and at least one node that could hold one did not answer.
 * trace may be NULL. */
apr_status_t ha_store_get(ha_store *, ha_call *, const char *key, ha_value *out, ha_store_trace *trace);

/* Several keys of one session, read together: in one round trip where the provider can. Each has its own answer, as of a get. */
typedef struct ha_found {
    const char *key;
    apr_status_t rv;
    ha_value    value;
    const char *node;
    int         sure;           /* so many nodes have answered that one of them has the newest, unless each of its copies is lost */
} ha_found;
#define HA_FOUND_MAX 2
apr_status_t ha_store_look(ha_store *, ha_call *, ha_found *, int n, ha_store_trace *trace);

/* Writes all copies; APR_SUCCESS when at least one node has acknowledged and no node that
 * answers is without its copy. A node that does not answer is replaced by the next one. */
apr_status_t ha_store_put(ha_store *, ha_call *, const char *key, const ha_value *, apr_time_t expires,
                          ha_store_trace *trace);

/* The copies of this version live until `expires`, and are not written again. APR_SUCCESS: each node that a put would
 * ask now has one. Anything else: put it (a node has lost its copy or not answered, or this store cannot: APR_ENOTIMPL).
 * Takes half of the time at most. */
apr_status_t ha_store_touch(ha_store *, ha_call *, const char *key, const ha_version *, apr_time_t expires);

/* The same, but what is newer stays, on each node for itself: for writers that know nothing of each other. A node is looked at
 * first and written then, and what another one writes in that moment can be lost there; on all nodes at once it hardly can. */
apr_status_t ha_store_put_newer(ha_store *, ha_call *, const char *key, const ha_value *, apr_time_t expires,
                                ha_store_trace *trace);

/* One winner: APR_SUCCESS, or APR_EEXIST (then *out is the value that is there). */
apr_status_t ha_store_add(ha_store *, ha_call *, const char *key, const ha_value *, apr_time_t expires,
                          ha_value *out, ha_store_trace *trace);

/* ha_store_add(), and then the newest copies of other keys of the session: of each node they are read after the add there. So
 * who writes one of them and looks for the claim afterwards finds the claim, or what he wrote is found here.
 * In one round trip with the add where the provider can. */
apr_status_t ha_store_claim(ha_store *, ha_call *, const char *key, const ha_value *, apr_time_t expires,
                            ha_value *out, ha_found *, int n, ha_store_trace *trace);

/* All copies; absent is success. APR_INCOMPLETE: removed where a node answered, but a node that could not
 * be asked may still hold one until it expires. */
apr_status_t ha_store_remove(ha_store *, ha_call *, const char *key, ha_store_trace *trace);

/* What an application keeps at this store itself (SessionHANative): does any node have any of the names? Two halves, so
 * that the caller can do something else in between; when the first is APR_SUCCESS, the second must follow, and names may
 * be gone by then, call not. APR_SUCCESS: there; APR_NOTFOUND: every node answered, and has none of them; else broken. */
typedef struct ha_ask ha_ask;
apr_status_t ha_store_has_begin(ha_ask **ask, ha_store *, ha_call *, const ha_name *names, int n);
apr_status_t ha_store_has_end(ha_ask *);

/* How applications call their sessions here; HA_NAME_NONE: none keeps any here. */
ha_name_kind ha_store_names(const ha_store *);
const char *ha_store_scheme(const ha_store *);

/* Housekeeping of one child: expired keys where the node cannot expire by itself, probes of
 * nodes whose breaker is open, and whether a node has forgotten. Call about once a second from a thread that may wait. */
void ha_store_tend(ha_store *, apr_pool_t *ptemp, apr_time_t now);

/* What the operator should hear, "NODE forgot: restarted": each once, whichever child asks. NULL: nothing more. */
const char *ha_store_news(ha_store *, apr_pool_t *p);

/* ---- facts for the manager ------------------------------------------------- */

typedef enum {
    HA_FORGOT_RESTARTED,        /* the server was started again */
    HA_FORGOT_EVICTED,          /* it threw values away to make room */
    HA_FORGOT_DAMAGED,          /* a file could not be read and was put aside */
    HA_FORGOT_WAYS
} ha_forgot;

#define HA_STORE_BUCKETS 20     /* bucket i: up to 2^i * 16 microseconds; the last: anything */

typedef struct ha_store_facts {             /* one node, a copy */
    const char *node;           /* "memcached://127.0.0.1:11211", password removed */
    const char *state;          /* "up", "down" (breaker open), "unknown" (never asked) */
    apr_uint64_t gets, hits, misses, puts, adds, errors, timeouts, repairs;
    apr_uint64_t ops[HA_STORE_BUCKETS];     /* latency histogram of all operations */
    apr_uint64_t sum_us;
    apr_uint64_t p50_us, p99_us;            /* upper bound of the bucket */
    apr_uint64_t forgot[HA_FORGOT_WAYS];    /* times; values, where it evicted them */
    apr_time_t forgot_last;                 /* when that was noticed last; 0: never */
} ha_store_facts;

int ha_store_nodes(const ha_store *);
void ha_store_node_facts(const ha_store *, int node, apr_pool_t *p, ha_store_facts *out);

#endif
