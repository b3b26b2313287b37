/* mod_session_ha.h - the public contract: versions, the words of the protocol,
 * and the seam a store provider fills.
 *
 * APR only: every room, every unit test and every tool may include it.
 * Times are apr_time_t (a point, microseconds since 1970) or
 * apr_interval_time_t (a span, microseconds) unless a name says otherwise.
 */
#ifndef MOD_SESSION_HA_H
#define MOD_SESSION_HA_H

#include <apr.h>
#include <apr_errno.h>
#include <apr_pools.h>
#include <apr_time.h>
#include <apr_user.h>

#define HA_VERSION "1.0.0"

/* ---- the fields between httpd and a member (doc/protocol.md) -------------- */

#define HA_FIELD_ACCEPT  "Session-Backup-Accept"
#define HA_FIELD_BACKUP  "Session-Backup"
#define HA_FIELD_FETCH   "Session-Backup-Fetch"
#define HA_FIELD_RESTORE "Session-Restore"
#define HA_FIELD_MISSING "Session-Missing"
#define HA_STATUS_MISSING 425
#define HA_WELL_KNOWN    "/.well-known/session-backup"
#define HA_INLINE_MAX    4096   /* bytes of state we let a member send inline */

/* ---- limits, so that fixed places in shared memory are enough ------------- */

#define HA_ID_MAX     256       /* bytes of a session id, decoded */
#define HA_ROUTE_MAX   96       /* bytes of a route; mod_proxy's own limit */
#define HA_AT_MAX     512       /* bytes of a recorded `at` path */
#define HA_TTL_MAX    (365 * 24 * 3600)     /* seconds; memcached reads a date after 2038 as an error */

/* ---- values, calls -------------------------------------------------------- */

typedef struct ha_blob {        /* bytes that may hold NULs */
    const void *data;
    apr_size_t  len;
} ha_blob;

/* Which of two copies is newer: the higher epoch, then the higher seq. */
typedef struct ha_version {
    apr_uint64_t epoch;         /* counts a session's owners, from 1 */
    apr_uint64_t seq;           /* counts a session's versions under an owner */
} ha_version;

/* One operation, on the caller's stack. */
typedef struct ha_call {
    apr_pool_t *pool;           /* results are allocated here */
    apr_time_t  deadline;       /* give up after this point; 0: the store's own time-out */
    const char *why;            /* set when broken, for the one log line; lives in pool or for ever */
    int more;                   /* a provider's claim: round trips it took beyond the first */
    int urgent;                 /* nodes that are held for down are asked all the same */
} ha_call;

/* What tells whether a node still has what it was given. */
typedef struct ha_memory {
    apr_uint64_t life;          /* a number that no other start of the server has; never 0 */
    apr_uint64_t evicted;       /* values it has thrown away in this life, to make room for others */
} ha_memory;

/* ---- what an application calls a session that it keeps itself (SessionHANative) ---- */

typedef enum { HA_NAME_NONE, HA_NAME_KEY, HA_NAME_FILE, HA_NAME_SELECT } ha_name_kind;

#define HA_NAMES_MAX     2      /* names that one application may use for the same session */
#define HA_NAME_ARGS_MAX 8

typedef struct ha_name {
    const char *text;           /* a key; a file, from the node's directory unless it begins with '/'; or a SELECT that finds a
                                 * row, with %s in the place of each argument and %% for each other % */
    apr_size_t  least;          /* a key's value or a file with less bytes than these is no session */
    int         nargs;          /* a SELECT's: bound, never part of the text */
    const char *args[HA_NAME_ARGS_MAX];
} ha_name;

/* A key that is read together with others. */
typedef struct ha_look {
    const char *key;
    apr_status_t rv;            /* as of a get */
    ha_blob found;
} ha_look;

/* ---- a store's node, as a provider sees it -------------------------------- */

/* Three answers, never mixed up:
 *   APR_SUCCESS   done / found
 *   APR_NOTFOUND  get: the node answered, and has no such key (never: "I could not ask")
 *   APR_EEXIST    add: the key is there, nothing was changed
 *   APR_ENOSPC    put/add: the value is larger than the node takes, or the node is full
 *   anything else broken: refused, timed out, garbled. call->why says what.
 *
 * Keys are printable ASCII without space, at most 200 bytes. `expires` is a point in
 * time; 0 means "does not expire". Results are allocated in call->pool.
 * The functions are called from many threads at once: threads of the executor
 * (store/store_executor.h), never the request's own, so that a call which outlasts
 * call->deadline holds up nobody. One that can keep it should, or its thread is lost until then.
 */
typedef struct ha_node ha_node;             /* a provider's own; opaque above it */
typedef struct ha_store_provider {
    const char *name;                       /* the URL's scheme */
    int shared_by_host;                     /* 1: a place on this machine (lmdb), no use in copies */
    apr_size_t chunk;                       /* largest value a node takes; above it the store cuts; 0: any */

    /* configuration time: read the URL. NULL, or a text for the admin (what is allowed). */
    const char  *(*configure)(ha_node **node, const char *url, apr_pool_t *pconf);
    /* parent, as root, before the children: make directories and files; optional.
     * uid/gid: whom the children run as, (uid_t)-1 when the server is not root.
     * APR_SUCCESS with call->why set: what was there is lost, and why says how. */
    apr_status_t (*prepare)(ha_node *, ha_call *, apr_uid_t uid, apr_gid_t gid);
    /* each child: connections; pool lives as long as the child. */
    apr_status_t (*open)(ha_node *, ha_call *, apr_pool_t *pchild);

    apr_status_t (*get)(ha_node *, ha_call *, const char *key, ha_blob *out);
    apr_status_t (*put)(ha_node *, ha_call *, const char *key, const ha_blob *value, apr_time_t expires);
    apr_status_t (*add)(ha_node *, ha_call *, const char *key, const ha_blob *value, apr_time_t expires);
    apr_status_t (*remove)(ha_node *, ha_call *, const char *key);      /* absent is success */
    /* optional: an add (key NULL: none) and a get of each of the looks, sent at once; the node reads after it has added.
     * The result is the add's; a look that the node has answered has its own rv, whatever became of the add, the others keep theirs. */
    apr_status_t (*claim)(ha_node *, ha_call *, const char *key, const ha_blob *value, apr_time_t expires, ha_look *looks, int n);
    apr_status_t (*touch)(ha_node *, ha_call *, const char *key, apr_time_t expires); /* optional */
    apr_status_t (*sweep)(ha_node *, ha_call *, apr_time_t now);        /* optional: remove what expired */
    /* optional: is anything of the application's own there? As get, but its bytes are nobody's business, and what broke
     * is told without the name. */
    apr_status_t (*has)(ha_node *, ha_call *, const ha_name *);
    ha_name_kind names;                     /* with has: what applications call their sessions here */
    apr_status_t (*probe)(ha_node *, ha_call *);    /* is the node well? on a socket of its own, bounded by itself */
    apr_status_t (*recall)(ha_node *, ha_call *, ha_memory *out);   /* optional, for nodes that can forget; as probe */
} ha_store_provider;

#endif
