/* store_nodes.h - the inside of a store: which providers there are, which nodes it has, where a key
 * is placed. Only the store room includes it. */
#ifndef HA_STORE_NODES_H
#define HA_STORE_NODES_H

#include "store.h"
#include "store_breaker.h"
#include "store_executor.h"

extern const ha_store_provider ha_store_memcached;
extern const ha_store_provider ha_store_libmemcached;
extern const ha_store_provider ha_store_redis;
extern const ha_store_provider ha_store_file;
extern const ha_store_provider ha_store_dbd;
extern const ha_store_provider ha_store_lmdb;

typedef struct ha_store_node {
    const ha_store_provider *provider;
    ha_node *at;                /* the provider's */
    const char *name;           /* for people, and for placement: the same on every httpd */
    apr_uint64_t hash;          /* of the name */
    ha_breaker *breaker;        /* shared memory */
    int lane;
} ha_store_node;

struct ha_store {
    const ha_store_provider *provider;
    apr_interval_time_t timeout;
    int copies;
    int nnodes;
    ha_store_node nodes[HA_STORE_NODES_MAX];
    /* each child */
    ha_executor *executor;      /* a lane for each node, and one more for probes */
    apr_uint32_t probing[HA_STORE_NODES_MAX];   /* 1: a probe of this child is under way */
    apr_uint64_t random;        /* where this child's writer numbers begin */
    apr_uint64_t written;
};

/* NULL, or a text that says which schemes there are. */
const char *ha_store_provider_of(const char *url, apr_pool_t *p, const ha_store_provider **out);

/* The URL as it is shown: no password, no options. The same URL gives the same name on every httpd. */
const char *ha_store_node_name(const char *url, apr_pool_t *p);
apr_uint64_t ha_store_hash(const char *bytes, apr_size_t len);

/* All nodes, the ones that should hold the key first: rendezvous hashing, so that a node that comes or
 * goes moves only its own share, and every httpd finds the same order whatever the order of the URLs. */
void ha_store_order(const ha_store *, const char *key, int order[HA_STORE_NODES_MAX]);

int ha_store_key_ok(const char *key);

/* A number for one put or add that no other has. */
apr_uint64_t ha_store_writer(ha_store *);

#endif
