/* store_libmemcached.c - libmemcached://[user:password@]host[:port]: memcached, by libmemcached.
 *
 * Against apr_memcache: it has time-outs of its own, so that a thread is never held by a node that hangs; it touches
 * without reading; it speaks IPv6, and SASL when the URL has a user and password (memcached -S). It uses
 * the binary protocol: replies are matched to questions by number, and no byte of a key or value can be read as
 * a command.
 *
 * One memcached_st serves one thread and one node: its own lists, retries and replicas (which lose data, see
 * doc/stores.md) are not used. After an error a handle is dropped, never "temporarily disabled".
 */
#include <stdlib.h>
#include <string.h>

#include <libmemcached/memcached.h>

#include <apr_strings.h>

#include "store_handles.h"
#include "store_memcached.h"
#include "store_nodes.h"

#define CONNECT_MAX apr_time_from_sec(1)

struct ha_node {
    ha_host at;
    ha_handles *handles;        /* each child */
    ha_handles *lines;          /* the same; NULL: with a password there is only libmemcached */
};

static const char *configure(ha_node **out, const char *url, apr_pool_t *pconf)
{
    ha_node *node = apr_pcalloc(pconf, sizeof(*node));

    if (APR_SUCCESS != ha_host_parse(strchr(url, ':') + 1, HA_MEMCACHED_PORT,
                                     HA_HOST_SOCKET | HA_HOST_IPV6 | HA_HOST_USER | HA_HOST_PASSWORD, pconf, &node->at)
        || (node->at.password && !node->at.user)) {
        return "expected libmemcached://host, libmemcached://host:port, libmemcached://user:password@host or libmemcached:///path/to/socket";
    }
#if !defined(LIBMEMCACHED_WITH_SASL_SUPPORT) || !LIBMEMCACHED_WITH_SASL_SUPPORT
    if (node->at.user) {
        return "this libmemcached was built without SASL: no user and password can be given";
    }
#endif
    *out = node;
    return NULL;
}

static apr_interval_time_t left(const ha_call *call)
{
    apr_interval_time_t time = call->deadline - apr_time_now();

    return time < 1000 ? 1000 : time;
}

static void drop(void *handle)
{
    memcached_free(handle);
}

/* The connection itself is made by the first question. */
static apr_status_t make(void **handle, void *baton, ha_call *call, apr_pool_t *p)
{
    ha_node *node = baton;
    memcached_st *mc = memcached_create(NULL);
    memcached_return_t rc = MEMCACHED_MEMORY_ALLOCATION_FAILURE;

    if (mc) {
        memcached_behavior_set(mc, MEMCACHED_BEHAVIOR_BINARY_PROTOCOL, 1);
        memcached_behavior_set(mc, MEMCACHED_BEHAVIOR_NO_BLOCK, 1);
        memcached_behavior_set(mc, MEMCACHED_BEHAVIOR_TCP_NODELAY, 1);
        memcached_behavior_set(mc, MEMCACHED_BEHAVIOR_TCP_KEEPALIVE, 1);
        memcached_behavior_set(mc, MEMCACHED_BEHAVIOR_CONNECT_TIMEOUT,
                               (apr_uint64_t)((left(call) < CONNECT_MAX ? left(call) : CONNECT_MAX) / 1000));
#if defined(LIBMEMCACHED_WITH_SASL_SUPPORT) && LIBMEMCACHED_WITH_SASL_SUPPORT
        if (node->at.user) {
            memcached_set_sasl_auth_data(mc, node->at.user, node->at.password);
        }
#endif
        rc = node->at.host[0] == '/' ? memcached_server_add_unix_socket(mc, node->at.host)
                                     : memcached_server_add(mc, node->at.host, node->at.port);
    }
    if (rc != MEMCACHED_SUCCESS) {
        call->why = "libmemcached cannot be set up";
        if (mc) {
            memcached_free(mc);
        }
        return APR_EGENERAL;
    }
    *handle = mc;
    return APR_SUCCESS;
}

static apr_status_t open_(ha_node *node, ha_call *call, apr_pool_t *pchild)
{
    static const ha_handle_kind kind = { make, drop };

    apr_status_t rv = ha_handles_open(&node->handles, &kind, node, pchild);

    return rv == APR_SUCCESS && node->at.user == NULL ? ha_memcached_lines(&node->lines, &node->at, pchild) : rv;
}

/* "(0x7f4540001c10) CONNECTION FAILURE(Connection refused),  host: 127.0.0.1:11211 -> ./src/libmemcached/io.cc:145":
 * the middle of it. */
static const char *without_places(const char *message, apr_pool_t *p)
{
    const char *begin = message ? strstr(message, ") ") : NULL, *end;

    if (begin == NULL) {
        return message ? apr_pstrdup(p, message) : "does not answer";
    }
    begin += 2;
    if ((end = strstr(begin, ",  host:")) == NULL && (end = strstr(begin, " -> ")) == NULL) {
        end = begin + strlen(begin);
    }
    return apr_pstrmemdup(p, begin, (apr_size_t)(end - begin));
}

/* What libmemcached's answer means here. */
static apr_status_t status_of(memcached_st *mc, memcached_return_t rc, ha_call *call, int *gone)
{
    switch (rc) {
    case MEMCACHED_SUCCESS:
    case MEMCACHED_STORED:
    case MEMCACHED_DELETED:
        return APR_SUCCESS;
    case MEMCACHED_NOTFOUND:
        return APR_NOTFOUND;
    case MEMCACHED_NOTSTORED:
    case MEMCACHED_DATA_EXISTS:
        return APR_EEXIST;
    case MEMCACHED_E2BIG:
    case MEMCACHED_SERVER_MEMORY_ALLOCATION_FAILURE:
    case MEMCACHED_MEMORY_ALLOCATION_FAILURE:   /* the server's, in the binary protocol */
        call->why = "does not take the value: larger than its item limit, or no memory left";
        return APR_ENOSPC;
    default:
        break;
    }
    *gone = 1;
    call->why = without_places(memcached_last_error_message(mc), call->pool);
    switch (rc) {
    case MEMCACHED_TIMEOUT:
        return APR_TIMEUP;
    case MEMCACHED_AUTH_PROBLEM:
    case MEMCACHED_AUTH_FAILURE:
        return APR_EACCES;
    case MEMCACHED_ERRNO:
    case MEMCACHED_CONNECTION_FAILURE:
    case MEMCACHED_SERVER_MARKED_DEAD:
    case MEMCACHED_SERVER_TEMPORARILY_DISABLED:
    case MEMCACHED_HOST_LOOKUP_FAILURE:
    case MEMCACHED_UNKNOWN_READ_FAILURE:
    case MEMCACHED_READ_FAILURE:
    case MEMCACHED_WRITE_FAILURE:
        return APR_ECONNRESET;
    default:
        return APR_EGENERAL;
    }
}

typedef struct ha_question {
    enum { GET, SET, ADD, DELETE, TOUCH, LOOK } what;
    const char *key;
    const ha_blob *value;
    apr_time_t expires;
    ha_blob *found;
    ha_look *looks;             /* instead of key */
    int n;
} ha_question;

#define LOOKS_MAX 8

/* All keys in one exchange. */
static memcached_return_t look_with(memcached_st *mc, ha_call *call, ha_question *q)
{
    const char *keys[LOOKS_MAX];
    size_t lens[LOOKS_MAX];
    memcached_return_t rc;
    memcached_result_st *it;
    int i, n = q->n < LOOKS_MAX ? q->n : LOOKS_MAX;

    for (i = 0; i < n; i++) {
        keys[i] = q->looks[i].key;
        lens[i] = strlen(keys[i]);
        q->looks[i].rv = APR_NOTFOUND;
    }
    rc = memcached_mget(mc, keys, lens, (size_t)n);
    while (rc == MEMCACHED_SUCCESS && NULL != (it = memcached_fetch_result(mc, NULL, &rc))) {
        for (i = 0; i < n && rc == MEMCACHED_SUCCESS; i++) {
            if (lens[i] == memcached_result_key_length(it) && memcmp(keys[i], memcached_result_key_value(it), lens[i]) == 0) {
                q->looks[i].found.len = memcached_result_length(it);
                q->looks[i].found.data = apr_pmemdup(call->pool, memcached_result_length(it) ? memcached_result_value(it) : "",
                                                     memcached_result_length(it) + !memcached_result_length(it));
                q->looks[i].rv = APR_SUCCESS;
            }
        }
        memcached_result_free(it);
    }
    return rc == MEMCACHED_END || rc == MEMCACHED_NOTFOUND ? MEMCACHED_SUCCESS : rc;
}

static apr_status_t ask_with(void *handle, ha_call *call, void *args, int *gone)
{
    memcached_st *mc = handle;
    ha_question *q = args;
    size_t klen = q->key ? strlen(q->key) : 0, len = 0;
    memcached_return_t rc = MEMCACHED_FAILURE;
    uint32_t flags;
    char *data;

    memcached_behavior_set(mc, MEMCACHED_BEHAVIOR_POLL_TIMEOUT, (apr_uint64_t)(left(call) / 1000));
    switch (q->what) {
    case GET:
        data = memcached_get(mc, q->key, klen, &len, &flags, &rc);
        if (rc == MEMCACHED_SUCCESS) {
            q->found->data = apr_pmemdup(call->pool, data ? data : "", len + !len);
            q->found->len = len;
        }
        free(data);
        break;
    case SET:
        rc = memcached_set(mc, q->key, klen, q->value->data, q->value->len, (time_t)ha_memcached_ttl(q->expires), 0);
        break;
    case ADD:
        rc = memcached_add(mc, q->key, klen, q->value->data, q->value->len, (time_t)ha_memcached_ttl(q->expires), 0);
        break;
    case DELETE:
        rc = memcached_delete(mc, q->key, klen, 0);
        break;
    case TOUCH:
        rc = memcached_touch(mc, q->key, klen, (time_t)ha_memcached_ttl(q->expires));
        break;
    case LOOK:
        rc = look_with(mc, call, q);
        break;
    }
    return status_of(mc, rc, call, gone);
}

static apr_status_t ask(ha_node *node, ha_call *call, int what, const char *key, const ha_blob *value, apr_time_t expires, ha_blob *found)
{
    ha_question q = { .what = what, .key = key, .value = value, .expires = expires, .found = found };

    return ha_handles_use(node->handles, call, ask_with, &q);
}

static apr_status_t get(ha_node *node, ha_call *call, const char *key, ha_blob *out)
{
    return ask(node, call, GET, key, NULL, 0, out);
}

static apr_status_t put(ha_node *node, ha_call *call, const char *key, const ha_blob *value, apr_time_t expires)
{
    return ask(node, call, SET, key, value, expires, NULL);
}

static apr_status_t add(ha_node *node, ha_call *call, const char *key, const ha_blob *value, apr_time_t expires)
{
    return ask(node, call, ADD, key, value, expires, NULL);
}

static apr_status_t claim(ha_node *node, ha_call *call, const char *key, const ha_blob *value, apr_time_t expires, ha_look *looks, int n)
{
    ha_question q = { .what = LOOK, .looks = looks, .n = n };
    apr_status_t rv = APR_SUCCESS, looked;
    int i;

    if (node->lines) {
        return ha_memcached_claim(node->lines, call, key, value, expires, looks, n);
    }
    if (key) {
        rv = add(node, call, key, value, expires);
        if (rv != APR_SUCCESS && rv != APR_EEXIST && rv != APR_ENOSPC) {
            return rv;
        }
        call->more = 1;
    }
    looked = ha_handles_use(node->handles, call, ask_with, &q);
    for (i = 0; i < n && looked != APR_SUCCESS; i++) {
        looks[i].rv = looked;
    }
    return key ? rv : looked;
}

static apr_status_t remove_(ha_node *node, ha_call *call, const char *key)
{
    apr_status_t rv = ask(node, call, DELETE, key, NULL, 0, NULL);

    return rv == APR_NOTFOUND ? APR_SUCCESS : rv;
}

static apr_status_t touch(ha_node *node, ha_call *call, const char *key, apr_time_t expires)
{
    return ask(node, call, TOUCH, key, NULL, expires, NULL);
}

static apr_status_t has(ha_node *node, ha_call *call, const ha_name *name)
{
    ha_blob found;
    apr_status_t rv = get(node, call, name->text, &found);

    return rv == APR_SUCCESS && found.len < name->least ? APR_NOTFOUND : rv;
}

static apr_status_t probe(ha_node *node, ha_call *call)
{
    memcached_return_t rc = MEMCACHED_FAILURE;
    apr_status_t rv;
    void *handle;
    int gone;

    /* A server that wants a password talks to nobody in the other protocol. */
    if (node->at.user == NULL) {
        return ha_memcached_probe(&node->at, call);
    }
    if (APR_SUCCESS == (rv = make(&handle, node, call, call->pool))) {
        memcached_behavior_set(handle, MEMCACHED_BEHAVIOR_POLL_TIMEOUT, (apr_uint64_t)(left(call) / 1000));
        rc = memcached_exist(handle, "ha:probe", 8);
        rv = status_of(handle, rc, call, &gone);
        drop(handle);
    }
    return rv == APR_NOTFOUND ? APR_SUCCESS : rv;
}

static apr_status_t recall(ha_node *node, ha_call *call, ha_memory *out)
{
    memcached_return_t rc = MEMCACHED_FAILURE;
    memcached_stat_st *stats;
    apr_status_t rv;
    void *handle;
    int gone;

    if (node->at.user == NULL) {
        return ha_memcached_recall(&node->at, call, out);
    }
    if (APR_SUCCESS == (rv = make(&handle, node, call, call->pool))) {
        memcached_behavior_set(handle, MEMCACHED_BEHAVIOR_POLL_TIMEOUT, (apr_uint64_t)(left(call) / 1000));
        stats = memcached_stat(handle, NULL, &rc);
        if (APR_SUCCESS == (rv = status_of(handle, rc, call, &gone)) && stats) {
            ha_memcached_memory((apr_uint64_t)stats->pid, stats->time, stats->uptime, stats->evictions, out);
        }
        memcached_stat_free(handle, stats);
        drop(handle);
    }
    return rv;
}

const ha_store_provider ha_store_libmemcached = {
    .name = "libmemcached",
    .chunk = HA_MEMCACHED_CHUNK,
    .configure = configure,
    .open = open_,
    .get = get,
    .put = put,
    .add = add,
    .remove = remove_,
    .claim = claim,
    .touch = touch,
    .has = has,
    .names = HA_NAME_KEY,
    .probe = probe,
    .recall = recall,
};
