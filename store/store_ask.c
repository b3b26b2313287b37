/* store_ask.c - see store_ask.h. */
#include <stddef.h>
#include <string.h>

#include <apr_strings.h>

#include "store_ask.h"
#include "store_repair.h"

static int run_get(ha_job *job)
{
    ha_copy *copy = job->args;

    ha_copy_get(copy, job->pool);
    copy->took = apr_time_now() - job->begun;
    return 0;
}

/* A write that failed is to be replaced at once, so the caller is woken. */
static int run_put(ha_job *job)
{
    ha_copy *copy = job->args;

    ha_copy_put(copy, job->pool);
    copy->took = apr_time_now() - job->begun;
    return copy->rv != APR_SUCCESS;
}

static int run_put_newer(ha_job *job)
{
    ha_copy *copy = job->args;

    ha_copy_put_newer(copy, job->pool);
    copy->took = apr_time_now() - job->begun;
    return copy->rv != APR_SUCCESS;
}

static int run_add(ha_job *job)
{
    ha_copy *copy = job->args;

    ha_copy_add(copy, job->pool);
    copy->took = apr_time_now() - job->begun;
    return 0;
}

static int run_claim(ha_job *job)
{
    ha_copy *copy = job->args;

    ha_copy_claim(copy, job->pool);
    copy->took = apr_time_now() - job->begun;
    return 0;
}

/* A look beside an add, which may wait for it. */
static int run_look(ha_job *job)
{
    run_get(job);
    return 1;
}

static int run_touch(ha_job *job)
{
    ha_copy *copy = job->args;

    ha_copy_touch(copy, job->pool);
    copy->took = apr_time_now() - job->begun;
    return 0;
}

static int run_remove(ha_job *job)
{
    ha_copy *copy = job->args;

    ha_copy_remove(copy, job->pool);
    copy->took = apr_time_now() - job->begun;
    return 0;
}

/* Not a copy of ours: one name after the other, until one is there. */
static int run_has(ha_job *job)
{
    ha_copy *copy = job->args;
    ha_call call = { job->pool, copy->deadline, NULL };
    int i;

    copy->rv = APR_NOTFOUND;
    for (i = 0; i < copy->nnames && copy->rv == APR_NOTFOUND; i++) {
        copy->rv = copy->node->provider->has(copy->node->at, &call, &copy->names[i]);
    }
    copy->why = call.why;
    copy->took = apr_time_now() - job->begun;
    return 0;
}

static ha_job_fn *const runs[] = { run_get, run_look, run_put, run_put_newer, run_add, run_claim, run_touch, run_remove, run_has };   /* by ha_ask_what */

apr_status_t ha_ask_begin(ha_ask *ask, ha_store *store, ha_call *call, const char *key)
{
    apr_status_t rv;

    memset(ask, 0, offsetof(ha_ask, order));
    ask->store = store;
    ask->call = call;
    call->why = NULL;
    if (!ha_store_key_ok(key)) {
        call->why = "not a key";
        return APR_EINVAL;
    }
    if (store->executor == NULL) {
        call->why = "the store is not open in this process";
        return APR_EINIT;
    }
    if (APR_SUCCESS != (rv = ha_batch_open(store->executor, &ask->batch))) {
        call->why = "no memory or no thread for the store";
        return rv;
    }
    ask->began = apr_time_now();
    ask->deadline = call->deadline ? call->deadline : ask->began + store->timeout;
    ask->key = apr_pstrdup(ha_batch_pool(ask->batch), key);
    ha_store_order(store, key, ask->order);
    return APR_SUCCESS;
}

apr_status_t ha_ask_beside(ha_ask *ask, const char *key)
{
    if (!ha_store_key_ok(key)) {
        ask->call->why = "not a key";
        return APR_EINVAL;
    }
    ask->beside[ask->nbeside++] = apr_pstrdup(ha_batch_pool(ask->batch), key);
    return APR_SUCCESS;
}

int ha_ask_node(ha_ask *ask, int place, ha_ask_what what, const ha_envelope *env, const ha_blob *bytes)
{
    const ha_store_node *node = &ask->store->nodes[ask->order[place]];
    ha_copy *copy;
    int i;

    if (!ha_breaker_usable(node->breaker)) {
        ha_probe_later(ask->store, ask->order[place], ask->began);
        if (!ask->call->urgent) {
            return 0;
        }
    }
    copy = apr_pcalloc(ha_batch_pool(ask->batch), sizeof(*copy));
    copy->node = node;
    copy->key = ask->key;
    copy->names = ask->names;
    copy->nnames = ask->nnames;
    copy->deadline = ask->deadline;
    copy->rv = APR_TIMEUP;
    if (env) {
        copy->env = *env;
        copy->bytes = *bytes;
    }
    if (ask->nbeside && (what == HA_ASK_GET || what == HA_ASK_CLAIM)) {
        copy->nbeside = ask->nbeside;
        copy->beside = apr_pcalloc(ha_batch_pool(ask->batch), (apr_size_t)ask->nbeside * sizeof(*copy));
        for (i = 0; i < ask->nbeside; i++) {
            copy->beside[i].node = node;
            copy->beside[i].key = ask->beside[i];
            copy->beside[i].deadline = ask->deadline;
            copy->beside[i].rv = APR_TIMEUP;
        }
    }
    if (APR_SUCCESS != ha_batch_submit(ask->batch, node->lane, runs[what], copy)) {
        ha_breaker_count(node->breaker, HA_N_ERRORS);
        return 0;
    }
    ask->copies[ask->njobs++] = copy;
    return 1;
}

/* What a node is not to be asked again for before a probe has found it well: it is not there, or does not let us in
 * (each try would be a connection of its own). Other errors are an answer: wrong, but at once. */
static int unreachable(apr_status_t rv)
{
    return APR_STATUS_IS_TIMEUP(rv) || APR_STATUS_IS_EACCES(rv) || APR_STATUS_IS_ECONNREFUSED(rv) || APR_STATUS_IS_ECONNRESET(rv)
        || APR_STATUS_IS_EHOSTUNREACH(rv) || APR_STATUS_IS_ENETUNREACH(rv) || APR_STATUS_IS_EPIPE(rv)
        || APR_STATUS_IS_EOF(rv) || APR_STATUS_IS_ENOENT(rv) || APR_STATUS_IS_EAGAIN(rv)
        || APR_STATUS_IS_ECONNABORTED(rv) || APR_STATUS_IS_ETIMEDOUT(rv)
        || (rv > APR_OS_START_EAIERR && rv < APR_OS_START_EAIERR + APR_OS_ERRSPACE_SIZE);
}

/* 1: the node has answered. */
static int settle_copy(ha_ask *ask, const ha_copy *copy)
{
    ha_breaker *b = copy->node->breaker;

    switch (copy->rv) {
    case APR_SUCCESS:
    case APR_EEXIST:
    case APR_NOTFOUND:
        ha_breaker_answered(b, ask->began);
        return 1;
    case APR_ENOSPC:
    case APR_EINVAL:
        ha_breaker_answered(b, ask->began);
        break;
    default:
        break;
    }
    ask->broken++;
    ask->call->why = apr_psprintf(ask->call->pool, "%s: %s", copy->node->name,
                                  copy->why ? apr_pstrdup(ask->call->pool, copy->why) : "does not answer");
    if (APR_STATUS_IS_TIMEUP(copy->rv)) {
        ha_breaker_count(b, HA_N_TIMEOUTS);
    }
    else {
        ha_breaker_count(b, HA_N_ERRORS);
    }
    if (unreachable(copy->rv)) {
        ha_breaker_open(b, apr_time_now());
    }
    return copy->rv == APR_ENOSPC || copy->rv == APR_EINVAL;
}

/* Counts a job that has ended, once. */
static void settle(ha_ask *ask, int nth)
{
    const ha_copy *copy = ask->copies[nth];
    int i;

    if (ask->settled & 1u << nth) {
        return;
    }
    ask->settled |= 1u << nth;
    ha_breaker_took(copy->node->breaker, copy->took);
    if (settle_copy(ask, copy)) {
        for (i = 0; i < copy->nbeside; i++) {
            settle_copy(ask, &copy->beside[i]);
        }
    }
}

void ha_ask_wait(ha_ask *ask, int enough, apr_time_t until)
{
    int i;

    ask->done = ha_batch_wait(ask->batch, enough, until);
    for (i = 0; i < ask->njobs; i++) {
        if (ask->done & 1u << i) {
            settle(ask, i);
        }
    }
}

void ha_ask_trip(ha_ask *ask, int from)
{
    int i, most = ask->njobs > from;

    for (i = from; i < ask->njobs; i++) {
        if (ha_ask_ended(ask, i) && ask->copies[i]->trips > most) {
            most = ask->copies[i]->trips;
        }
    }
    ask->trips += most;
}

int ha_ask_pending(const ha_ask *ask)
{
    return ask->njobs && ask->done != (ask->njobs == 32 ? ~0u : (1u << ask->njobs) - 1);
}

/* The nodes that have not answered are given up. One that was given most of the time-out is not asked
 * again before a probe found it well; one that never got the job (its lane is busy), or only the rest of a
 * nearly spent deadline, is not to blame. */
static void give_up(ha_ask *ask)
{
    apr_time_t now = apr_time_now();
    int i;

    for (i = 0; i < ask->njobs; i++) {
        if (!(ask->done & 1u << i)) {
            ask->broken++;
            ask->call->why = apr_psprintf(ask->call->pool, "%s: no answer in time", ask->copies[i]->node->name);
            ha_breaker_count(ask->copies[i]->node->breaker, HA_N_TIMEOUTS);
            if (ha_batch_ran(ask->batch, i, now) >= ask->store->timeout / 2) {
                ha_breaker_open(ask->copies[i]->node->breaker, now);
            }
        }
    }
}

void ha_ask_end(ha_ask *ask)
{
    if (ha_ask_pending(ask)) {
        give_up(ask);
    }
    ha_batch_close(ask->batch);
}

apr_status_t ha_ask_broken(ha_call *call)
{
    if (call->why == NULL) {
        call->why = "no node of the store can be reached";
    }
    return APR_EGENERAL;
}
