/* store_setup.c - a store's life: configured and prepared in the parent, opened in each child, tended,
 * shown, closed in bounded time. */
#include <string.h>

#include <apr_atomic.h>
#include <apr_general.h>
#include <apr_strings.h>

#include "store_repair.h"

#define CLOSE_PATIENCE (apr_time_from_msec(1000))
#define SWEEP_EVERY    (apr_time_from_sec(10))

const char *ha_store_configure(ha_store **out, apr_pool_t *pconf, int nurls, const char *const *urls, int copies,
                               apr_interval_time_t timeout)
{
    ha_store *store = apr_pcalloc(pconf, sizeof(*store));
    const char *why;
    int i, j;

    *out = NULL;
    if (nurls < 1 || nurls > HA_STORE_NODES_MAX) {
        return apr_psprintf(pconf, "a store has 1 to %d nodes", HA_STORE_NODES_MAX);
    }
    if (timeout <= 0) {
        return "the time-out of a store must be more than 0";
    }
    for (i = 0; i < nurls; i++) {
        ha_store_node *node = &store->nodes[i];

        if (NULL != (why = ha_store_provider_of(urls[i], pconf, &node->provider))) {
            return why;
        }
        if (i > 0 && node->provider != store->nodes[0].provider) {
            return apr_psprintf(pconf, "all nodes of a store have one scheme, not '%s' and '%s'",
                                store->nodes[0].provider->name, node->provider->name);
        }
        if (nurls > 1 && node->provider->shared_by_host) {
            return apr_psprintf(pconf, "'%s:' takes one URL: a second copy on this machine would be lost with it",
                                node->provider->name);
        }
        node->name = ha_store_node_name(urls[i], pconf);
        node->hash = ha_store_hash(node->name, strlen(node->name));
        node->lane = i;
        for (j = 0; j < i; j++) {
            if (store->nodes[j].hash == node->hash) {
                return apr_psprintf(pconf, "'%s' is given twice", node->name);
            }
        }
        if (NULL != (why = node->provider->configure(&node->at, urls[i], pconf))) {
            return apr_psprintf(pconf, "'%s': %s", node->name, why);
        }
    }
    store->provider = store->nodes[0].provider;
    store->nnodes = nurls;
    store->copies = copies < 1 ? 1 : copies > nurls ? nurls : copies;
    store->timeout = timeout;
    *out = store;
    return NULL;
}

apr_size_t ha_store_shared_size(const ha_store *store)
{
    return (apr_size_t)store->nnodes * sizeof(ha_breaker);
}

apr_status_t ha_store_prepare(ha_store *store, ha_call *call, void *shared, apr_uid_t uid, apr_gid_t gid)
{
    ha_breaker *breakers = shared;
    apr_status_t rv = APR_SUCCESS;
    const char *news = NULL;
    int i;

    for (i = 0; i < store->nnodes; i++) {
        call->why = NULL;
        store->nodes[i].breaker = &breakers[i];
        ha_breaker_take(&breakers[i], store->nodes[i].hash);
        if (store->provider->prepare
            && APR_SUCCESS != (rv = store->provider->prepare(store->nodes[i].at, call, uid, gid))) {
            call->why = apr_psprintf(call->pool, "%s: %s", store->nodes[i].name, call->why ? call->why : "cannot be prepared");
            break;
        }
        if (call->why) {
            ha_breaker_forgot(&breakers[i], HA_FORGOT_DAMAGED, 1, apr_time_now());
            ha_breaker_tell(&breakers[i], HA_FORGOT_DAMAGED);   /* the caller does, in more words */
            news = apr_psprintf(call->pool, "%s forgot: %s", store->nodes[i].name, call->why);
        }
    }
    if (rv == APR_SUCCESS) {
        call->why = news;
    }
    return rv;
}

/* What hangs in a call is left to the process's end, with all it may touch. */
static apr_status_t store_close(void *data)
{
    ha_store *store = data;

    if (store->executor) {
        ha_executor_close(store->executor, CLOSE_PATIENCE);
        store->executor = NULL;
    }
    return APR_SUCCESS;
}

apr_status_t ha_store_open(ha_store *store, apr_pool_t *pchild)
{
    ha_call call = { pchild, 0, NULL };
    apr_status_t rv;
    int i;

    if (APR_SUCCESS != (rv = apr_generate_random_bytes((unsigned char *)&store->random, sizeof(store->random)))
        || APR_SUCCESS != (rv = ha_executor_open(&store->executor, store->nnodes + 1))) {
        return rv;
    }
    apr_pool_pre_cleanup_register(pchild, store, store_close);
    for (i = 0; i < store->nnodes; i++) {
        if (APR_SUCCESS != (rv = store->provider->open(store->nodes[i].at, &call, ha_executor_pool(store->executor)))) {
            break;
        }
    }
    return rv;
}

typedef struct ha_sweep {
    const ha_store_node *node;
    apr_time_t now;
} ha_sweep;

static int run_sweep(ha_job *job)
{
    ha_sweep *sweep = job->args;
    ha_call call = { job->pool, apr_time_now() + apr_time_from_sec(5), NULL };

    sweep->node->provider->sweep(sweep->node->at, &call, sweep->now);
    return 0;
}

/* A sweep may block as any other call, so it is the executor's too: whoever tends goes on to the next store. */
static void sweep_later(ha_store *store, const ha_store_node *node, apr_time_t now)
{
    ha_batch *batch;
    ha_sweep *sweep;

    if (APR_SUCCESS == ha_batch_open(store->executor, &batch)) {
        sweep = apr_palloc(ha_batch_pool(batch), sizeof(*sweep));
        sweep->node = node;
        sweep->now = now;
        ha_batch_submit(batch, node->lane, run_sweep, sweep);
        ha_batch_detach(batch);
    }
}

void ha_store_tend(ha_store *store, apr_pool_t *ptemp, apr_time_t now)
{
    int i;

    for (i = 0; store->executor && i < store->nnodes; i++) {
        const ha_store_node *node = &store->nodes[i];

        if (ha_breaker_state(node->breaker) != HA_NODE_UP) {    /* also one that was never asked: the status shows it */
            ha_probe_later(store, i, now);
        }
        if (ha_breaker_usable(node->breaker)) {
            if (node->provider->sweep && ha_breaker_sweep_due(node->breaker, now, SWEEP_EVERY)) {
                sweep_later(store, node, now);
            }
            ha_recall_later(store, i, now);
        }
    }
}

const char *ha_store_news(ha_store *store, apr_pool_t *p)
{
    int i;

    for (i = 0; i < store->nnodes; i++) {
        const ha_store_node *node = &store->nodes[i];

        if (ha_breaker_tell(node->breaker, HA_FORGOT_RESTARTED)) {
            return apr_psprintf(p, "%s forgot: restarted", node->name);
        }
        if (ha_breaker_tell(node->breaker, HA_FORGOT_EVICTED)) {
            return apr_psprintf(p, "%s forgot: it is full, and evicts (%" APR_UINT64_T_FMT " values by now)", node->name,
                                apr_atomic_read64(&node->breaker->forgot[HA_FORGOT_EVICTED]));
        }
    }
    return NULL;
}

ha_name_kind ha_store_names(const ha_store *store)
{
    return store->provider->names;
}

const char *ha_store_scheme(const ha_store *store)
{
    return store->provider->name;
}

int ha_store_nodes(const ha_store *store)
{
    return store->nnodes;
}

void ha_store_node_facts(const ha_store *store, int node, apr_pool_t *p, ha_store_facts *out)
{
    memset(out, 0, sizeof(*out));
    out->node = store->nodes[node].name;
    ha_breaker_facts(store->nodes[node].breaker, out);
}
