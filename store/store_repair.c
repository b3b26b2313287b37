/* store_repair.c - see store_repair.h. */
#include <string.h>

#include <apr_atomic.h>
#include <apr_strings.h>

#include "store_repair.h"

#define RECALL_MIN   apr_time_from_sec(1)
#define LINGERS      apr_time_from_sec(10)      /* memcached counts in whole seconds and forgets late */
#define TOUCHED_LIFE apr_time_from_sec(60)

/* Looks again before it overwrites: the node may have been given something newer since the caller read it.
 * A write between this look and the put could still be overtaken on this node (the stores have no
 * common compare-and-set); the other copies of that write are whole, and the newest is what a read finds. */
static int run_repair(ha_job *job)
{
    ha_copy *copy = job->args, there = *copy;

    switch (ha_copy_get(&there, job->pool)) {
    case APR_SUCCESS:
        if (there.env.writer == copy->env.writer || ha_newer(&there.env.version, &copy->env.version)) {
            return 0;
        }
        break;
    case APR_NOTFOUND:
        ha_copy_add(copy, job->pool);
        return 0;
    case APR_EINVAL:
        break;
    default:
        return 0;
    }
    ha_copy_put(copy, job->pool);
    return 0;
}

static int run_fill(ha_job *job)
{
    ha_copy_add(job->args, job->pool);
    return 0;
}

void ha_repair_node(ha_store *store, const ha_store_node *node, const ha_envelope *env, const char *key, const ha_blob *bytes, int missing)
{
    ha_batch *batch;
    ha_copy *copy;
    apr_pool_t *p;

    /* It is about to go everywhere: a node that forgets a moment earlier than another needs no copy. */
    if (env->expires && env->expires <= apr_time_now()) {
        return;
    }
    if (!ha_breaker_usable(node->breaker) || APR_SUCCESS != ha_batch_open(store->executor, &batch)) {
        return;
    }
    p = ha_batch_pool(batch);
    copy = apr_pcalloc(p, sizeof(*copy));
    copy->node = node;
    copy->key = apr_pstrdup(p, key);
    copy->env = *env;
    copy->bytes.data = apr_pmemdup(p, bytes->data, bytes->len);
    copy->bytes.len = bytes->len;
    copy->deadline = apr_time_now() + store->timeout;
    if (APR_SUCCESS == ha_batch_submit(batch, node->lane, missing ? run_fill : run_repair, copy)) {
        ha_breaker_count(node->breaker, HA_N_REPAIRS);
    }
    ha_batch_detach(batch);
}

/* A copy that should have ended long ago has been touched, and only its node knows for how long. Whoever reads it is about
 * to hand the session over, and then there are new copies. */
static apr_time_t life_of(const ha_store *store, const ha_envelope *env)
{
    apr_time_t now = apr_time_now();

    return store->provider->touch && env->expires && env->expires + LINGERS < now ? now + TOUCHED_LIFE : env->expires;
}

void ha_repair_found(ha_store *store, const char *key, const ha_copy *best, ha_copy *const *copies, int njobs, apr_uint32_t done)
{
    ha_envelope env = best->env;
    ha_blob sealed = { NULL, 0 };
    ha_batch *batch = NULL;
    int i;

    env.expires = life_of(store, &env);
    for (i = 0; i < njobs && i < store->copies; i++) {
        const ha_copy *copy = copies[i];
        int missing = copy->rv == APR_NOTFOUND, broken = copy->rv == APR_EINVAL;

        if (!(done & 1u << i) || copy == best
            || !(missing || broken || (copy->rv == APR_SUCCESS && ha_newer(&best->env.version, &copy->env.version)))) {
            continue;
        }
        if (sealed.data == NULL) {
            if (APR_SUCCESS != ha_batch_open(store->executor, &batch)) {
                return;
            }
            ha_copy_seal(&env, key, &best->bytes, ha_batch_pool(batch), &sealed);
        }
        ha_repair_node(store, copy->node, &env, key, &sealed, missing);
    }
    if (batch) {
        ha_batch_close(batch);
    }
}

typedef struct ha_probe {
    const ha_store_node *node;
    apr_uint32_t *under_way;
    apr_uint64_t seen;
    apr_time_t deadline;
} ha_probe;

static int run_probe(ha_job *job)
{
    ha_probe *probe = job->args;
    ha_call call = { job->pool, probe->deadline, NULL };
    apr_status_t rv = probe->node->provider->probe(probe->node->at, &call);

    apr_atomic_set32(probe->under_way, 0);
    if (rv == APR_SUCCESS) {
        ha_job_check(job);
        ha_breaker_close(probe->node->breaker, probe->seen, apr_time_now());
    }
    else if (APR_STATUS_IS_ECONNREFUSED(rv)) {
        ha_job_check(job);
        ha_breaker_open(probe->node->breaker, apr_time_now());     /* never asked before: nobody need find out */
    }
    return 0;
}

void ha_probe_later(ha_store *store, int nth, apr_time_t now)
{
    const ha_store_node *node = &store->nodes[nth];
    apr_uint64_t seen;
    ha_batch *batch;
    ha_probe *probe;

    /* One at a time: some providers' probes hang as long as the node does. */
    if (apr_atomic_read32(&store->probing[nth]) || !ha_breaker_probe_due(node->breaker, now, HA_PROBE_EVERY, &seen)
        || APR_SUCCESS != ha_batch_open(store->executor, &batch)) {
        return;
    }
    probe = apr_palloc(ha_batch_pool(batch), sizeof(*probe));
    probe->node = node;
    probe->under_way = &store->probing[nth];
    probe->seen = seen;
    probe->deadline = apr_time_now() + store->timeout;
    apr_atomic_set32(probe->under_way, 1);
    if (APR_SUCCESS != ha_batch_submit(batch, store->nnodes, run_probe, probe)) {
        apr_atomic_set32(probe->under_way, 0);
    }
    ha_batch_detach(batch);
}

static int run_recall(ha_job *job)
{
    ha_probe *probe = job->args;
    ha_call call = { job->pool, probe->deadline, NULL };
    ha_memory memory = { 0, 0 };
    apr_status_t rv = probe->node->provider->recall(probe->node->at, &call, &memory);

    /* What comes too late may be older than what another child has heard meanwhile. */
    if (rv == APR_SUCCESS && memory.life && apr_time_now() <= probe->deadline) {
        ha_job_check(job);
        ha_breaker_recalled(probe->node->breaker, &memory, apr_time_now());
    }
    return 0;
}

void ha_recall_later(ha_store *store, int nth, apr_time_t now)
{
    const ha_store_node *node = &store->nodes[nth];
    ha_batch *batch;
    ha_probe *probe;

    if (node->provider->recall == NULL || !ha_breaker_recall_due(node->breaker, now, HA_RECALL_EVERY)
        || APR_SUCCESS != ha_batch_open(store->executor, &batch)) {
        return;
    }
    probe = apr_pcalloc(ha_batch_pool(batch), sizeof(*probe));
    probe->node = node;
    /* No request waits for it. A node that answers late has not forgotten, and the first answer is what all later ones
     * are compared with. */
    probe->deadline = apr_time_now() + (store->timeout > RECALL_MIN ? store->timeout : RECALL_MIN);
    ha_batch_submit(batch, store->nnodes, run_recall, probe);
    ha_batch_detach(batch);
}
