/* store_memcached.c - memcached://host[:port], memcached:///path/to/socket: memcached, by apr_memcache.
 *
 * What apr_memcache 1.6 does that we must not let it (all read in its source and measured, doc/stores.md):
 *
 *  - With more than one server it re-hashes when one dies. So: one apr_memcache_t a node.
 *  - For a server it holds for dead it answers APR_NOTFOUND, and tries it again every five seconds under a
 *    lock all threads want. Which server is asked is therefore our own function, which looks at no
 *    status: there is one, and whether it is worth asking is the breaker's business.
 *  - It has no time-out for reading. Its calls run on the executor's threads, and may be left behind there.
 *  - When a connection ends it takes the missing line for a strange one (APR_EGENERAL), and after a write
 *    puts the dead connection back. When memcached was restarted, every pooled connection gives such
 *    errors. So what fails like that is done once more, on a connection made for it: what comes then is
 *    memcached's own word.
 *  - It reads a TTL above thirty days as a date. So that is what we give it then.
 *  - It does not compare the key of a reply with that of the question: the envelope's checksum does.
 */
#include <string.h>

#include <apr_lib.h>
#include <apr_memcache.h>
#include <apr_strings.h>

#include "store_memcached.h"
#include "store_nodes.h"

#define IDLE_TTL  apr_time_from_sec(15)     /* of a pooled connection; microseconds, whatever apr_memcache.h says */
#define RELATIVE_MAX (30 * 24 * 3600)
#define STATS_MAX    (16 * 1024)

struct ha_node {
    ha_host at;
    apr_memcache_t *mc;         /* each child */
    ha_handles *lines;
};

static const char *configure(ha_node **out, const char *url, apr_pool_t *pconf)
{
    ha_node *node = apr_pcalloc(pconf, sizeof(*node));

    if (APR_SUCCESS != ha_host_parse(strchr(url, ':') + 1, HA_MEMCACHED_PORT, HA_HOST_SOCKET, pconf, &node->at)) {
        return "expected memcached://host, memcached://host:port or memcached:///path/to/socket (IPv6 and passwords: libmemcached://)";
    }
    *out = node;
    return NULL;
}

static apr_memcache_server_t *the_server(void *baton, apr_memcache_t *mc, const apr_uint32_t hash)
{
    return mc->live_servers[0];
}

static apr_uint32_t no_hash(void *baton, const char *data, const apr_size_t len)
{
    return 1;
}

/* One server, asked whatever its status. No connection is made here. */
static apr_status_t client(ha_node *node, apr_uint32_t max, apr_pool_t *pool, apr_memcache_t **mc)
{
    apr_memcache_server_t *server;
    apr_status_t rv;

    if (APR_SUCCESS != (rv = apr_memcache_create(pool, 1, 0, mc))
        || APR_SUCCESS != (rv = apr_memcache_server_create(pool, node->at.host, node->at.port, 0, max < HA_LANE_THREADS ? max : HA_LANE_THREADS,
                                                           max, (apr_uint32_t)IDLE_TTL, &server))
        || APR_SUCCESS != (rv = apr_memcache_add_server(*mc, server))) {
        return rv;
    }
    (*mc)->server_func = the_server;
    (*mc)->hash_func = no_hash;
    return APR_SUCCESS;
}

/* As many connections as there can be threads, so that none waits for another's. */
static apr_status_t open_(ha_node *node, ha_call *call, apr_pool_t *pchild)
{
    apr_status_t rv = client(node, HA_LANE_THREADS_MAX, pchild, &node->mc);

    if (rv != APR_SUCCESS) {
        call->why = "apr_memcache cannot be set up";
        return rv;
    }
    return ha_memcached_lines(&node->lines, &node->at, pchild);
}

/* Could it have been a connection that was dead already? */
static int stale(apr_status_t rv)
{
    return rv == APR_EGENERAL || APR_STATUS_IS_EOF(rv) || APR_STATUS_IS_EPIPE(rv) || APR_STATUS_IS_ECONNRESET(rv)
        || rv == APR_INCOMPLETE;
}

/* A client with no connection but a new one; gone with its pool. */
static apr_status_t fresh(ha_node *node, ha_call *call, apr_memcache_t **mc, apr_pool_t **pool)
{
    apr_status_t rv;

    if (APR_SUCCESS != (rv = apr_pool_create(pool, call->pool))) {
        return rv;
    }
    if (APR_SUCCESS != (rv = client(node, 1, *pool, mc))) {
        apr_pool_destroy(*pool);
    }
    return rv;
}

typedef struct ha_question {
    enum { GET, SET, ADD, DELETE } what;
    const char *key;
    const ha_blob *value;
    apr_uint32_t ttl;
    ha_blob found;
} ha_question;

static apr_status_t ask_with(apr_memcache_t *mc, ha_call *call, ha_question *q)
{
    apr_status_t rv = APR_ENOTIMPL;
    char *data;

    switch (q->what) {
    case GET:
        if (APR_SUCCESS == (rv = apr_memcache_getp(mc, call->pool, q->key, &data, &q->found.len, NULL))) {
            q->found.data = data;
        }
        break;
    case SET:
        rv = apr_memcache_set(mc, q->key, (char *)q->value->data, q->value->len, q->ttl, 0);
        break;
    case ADD:
        rv = apr_memcache_add(mc, q->key, (char *)q->value->data, q->value->len, q->ttl, 0);
        break;
    case DELETE:
        rv = apr_memcache_delete(mc, q->key, 0);
        break;
    }
    return rv;
}

static const char *why_of(apr_status_t rv, ha_call *call)
{
    char text[128];

    return rv == APR_EGENERAL ? "an answer that is none of memcached's"
                              : apr_pstrdup(call->pool, apr_strerror(rv, text, sizeof(text)));
}

/* Rounded up, and one more: memcached counts in whole ticks and would be early otherwise. */
apr_uint32_t ha_memcached_ttl(apr_time_t expires)
{
    apr_int64_t s;

    if (expires == 0) {
        return 0;
    }
    s = apr_time_sec(expires - apr_time_now() + APR_USEC_PER_SEC - 1) + 1;
    if (s < 2) {
        return RELATIVE_MAX + 1;        /* a date long ago */
    }
    return s <= RELATIVE_MAX ? (apr_uint32_t)s : (apr_uint32_t)(apr_time_sec(expires) + 2);
}

apr_status_t ha_memcached_probe(const ha_host *host, ha_call *call)
{
    static const char *const expected[] = { "VERSION ", NULL };

    return ha_host_probe(host, call, "version\r\n", expected);
}

static apr_status_t probe(ha_node *node, ha_call *call)
{
    return ha_memcached_probe(&node->at, call);
}

void ha_memcached_memory(apr_uint64_t pid, apr_uint64_t time, apr_uint64_t uptime, apr_uint64_t evictions, ha_memory *out)
{
    char start[48];

    apr_snprintf(start, sizeof(start), "%" APR_UINT64_T_FMT " %" APR_UINT64_T_FMT, pid, time - uptime);
    out->life = ha_store_hash(start, strlen(start)) | 1;
    out->evicted = evictions;
}

/* 0: it is not said */
static int stat_of(const char *reply, const char *name, apr_uint64_t *out)
{
    apr_size_t len = strlen(name);
    const char *at = reply;
    char *end;

    while ((at = strstr(at, "STAT ")) != NULL) {
        at += 5;
        if (strncmp(at, name, len) == 0 && at[len] == ' ' && apr_isdigit(at[len + 1])) {
            *out = (apr_uint64_t)apr_strtoi64(at + len + 1, &end, 10);
            return *end == '\r';
        }
    }
    return 0;
}

apr_status_t ha_memcached_recall(const ha_host *host, ha_call *call, ha_memory *out)
{
    char *reply = apr_palloc(call->pool, STATS_MAX);
    apr_uint64_t pid, time, uptime, evictions;
    apr_status_t rv = ha_host_ask(host, call, "stats\r\n", "\r\nEND\r\n", reply, STATS_MAX);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (!stat_of(reply, "pid", &pid) || !stat_of(reply, "time", &time) || !stat_of(reply, "uptime", &uptime)
        || !stat_of(reply, "evictions", &evictions)) {
        call->why = "stats are not memcached's";
        return APR_EGENERAL;
    }
    ha_memcached_memory(pid, time, uptime, evictions, out);
    return APR_SUCCESS;
}

static apr_status_t recall(ha_node *node, ha_call *call, ha_memory *out)
{
    return ha_memcached_recall(&node->at, call, out);
}

/* An add that is done once more may meet its own first try: the store knows it by its envelope.
 *
 * What is strange on a new connection too is either a refusal ("SERVER_ERROR object too large for cache", "out of
 * memory": apr_memcache does not show the text) or not memcached, or no longer. A probe tells which. */
static apr_status_t ask(ha_node *node, ha_call *call, ha_question *q)
{
    apr_status_t rv = ask_with(node->mc, call, q);
    apr_memcache_t *mc;
    apr_pool_t *pool;

    /* Not after the deadline: the caller has left long ago, perhaps for a newer write. */
    if (!stale(rv) || apr_time_now() > call->deadline) {
        goto leave;
    }
    if (APR_SUCCESS != (rv = fresh(node, call, &mc, &pool))) {
        goto leave;
    }
    rv = ask_with(mc, call, q);
    apr_pool_destroy(pool);
    if (rv == APR_EGENERAL) {
        if (APR_SUCCESS != probe(node, call)) {
            return APR_ECONNRESET;
        }
        if (q->what == SET || q->what == ADD) {
            call->why = "does not take the value: larger than its item limit, or no memory left";
            return APR_ENOSPC;
        }
    }
leave:
    if (rv != APR_SUCCESS && rv != APR_NOTFOUND && rv != APR_EEXIST) {
        call->why = why_of(rv, call);
    }
    return rv;
}

static apr_status_t get(ha_node *node, ha_call *call, const char *key, ha_blob *out)
{
    ha_question q = { GET, key };
    apr_status_t rv = ask(node, call, &q);

    *out = q.found;
    return rv;
}

static apr_status_t put(ha_node *node, ha_call *call, const char *key, const ha_blob *value, apr_time_t expires)
{
    ha_question q = { SET, key, value, ha_memcached_ttl(expires) };

    return ask(node, call, &q);
}

static apr_status_t add(ha_node *node, ha_call *call, const char *key, const ha_blob *value, apr_time_t expires)
{
    ha_question q = { ADD, key, value, ha_memcached_ttl(expires) };

    return ask(node, call, &q);
}

static apr_status_t remove_(ha_node *node, ha_call *call, const char *key)
{
    ha_question q = { DELETE, key };
    apr_status_t rv = ask(node, call, &q);

    return rv == APR_NOTFOUND ? APR_SUCCESS : rv;
}

static apr_status_t has(ha_node *node, ha_call *call, const ha_name *name)
{
    ha_question q = { GET, name->text };
    apr_status_t rv = ask(node, call, &q);

    return rv == APR_SUCCESS && q.found.len < name->least ? APR_NOTFOUND : rv;
}

static apr_status_t claim(ha_node *node, ha_call *call, const char *key, const ha_blob *value, apr_time_t expires, ha_look *looks, int n)
{
    return ha_memcached_claim(node->lines, call, key, value, expires, looks, n);
}

const ha_store_provider ha_store_memcached = {
    .name = "memcached",
    .chunk = HA_MEMCACHED_CHUNK,
    .configure = configure,
    .open = open_,
    .get = get,
    .put = put,
    .add = add,
    .remove = remove_,
    .claim = claim,
    .has = has,
    .names = HA_NAME_KEY,
    .probe = probe,
    .recall = recall,
};
