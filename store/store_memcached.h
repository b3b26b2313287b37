/* store_memcached.h - what the two providers that speak with memcached have in common. */
#ifndef HA_STORE_MEMCACHED_H
#define HA_STORE_MEMCACHED_H

#include "store_handles.h"
#include "store_hosts.h"

#define HA_MEMCACHED_PORT  11211
#define HA_MEMCACHED_CHUNK (900 * 1024)     /* the default item limit is 1 MB, with key and head */

/* A point in time as memcached reads it: seconds, or a date if they are more than thirty days. */
apr_uint32_t ha_memcached_ttl(apr_time_t expires);

/* Connections of our own, for a claim: an add and gets in one exchange (store_memcached_claim.c). */
apr_status_t ha_memcached_lines(ha_handles **, const ha_host *, apr_pool_t *pchild);
apr_status_t ha_memcached_claim(ha_handles *, ha_call *, const char *key, const ha_blob *value, apr_time_t expires, ha_look *looks, int n);

apr_status_t ha_memcached_probe(const ha_host *, ha_call *);

/* From its `stats`: one memcached is told from the next by its process and by when that was started. */
void ha_memcached_memory(apr_uint64_t pid, apr_uint64_t time, apr_uint64_t uptime, apr_uint64_t evictions, ha_memory *out);
/* Asks for them, in the text protocol. */
apr_status_t ha_memcached_recall(const ha_host *, ha_call *, ha_memory *out);

#endif
