/* store.c - get, put, add and remove over the nodes of a store.
 *
 * Each is an ha_ask on the caller's stack: the nodes in the order of the key, a batch of the executor,
 * and for each job the copy it reads or writes (in the batch's pool, for the job may outlive the ask).
 *
 * get   asks every node that can be asked at once. Reads are rare (a session in failover), a
 *       copy may lie on any node (it was written while the placed ones were away), and a node that
 *       answers "no" costs next to nothing; so there is one round trip, and none is missed.
 * put   asks the first K usable nodes at once; whoever refuses is replaced by the next node at once, whoever
 *       has not answered after half of the time as well.
 * add   see ha_store_add().
 *
 * The caller counts what it saw, in shared memory, when it leaves.
 */
#include <stddef.h>
#include <string.h>

#include <apr_strings.h>

#include "store_copy.h"
#include "store_repair.h"

typedef struct ha_ask {
    ha_store *store;
    ha_call *call;
    ha_batch *batch;
    const char *key;                    /* in the batch's pool */
    int order[HA_STORE_NODES_MAX];
    ha_copy *copies[HA_BATCH_MAX];      /* by job */
    int njobs;
    apr_time_t began, deadline;
    apr_uint32_t done, settled;         /* jobs that have ended; those that have been counted */
    int broken, trips;
} ha_ask;

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

static int run_add(ha_job *job)
{
    ha_copy *copy = job->args;

    ha_copy_add(copy, job->pool);
    copy->took = apr_time_now() - job->begun;
    return 0;
}

/* A look beside an add, which may wait for it. */
static int run_look(ha_job *job)
{
    run_get(job);
    return 1;
}

static int run_remove(ha_job *job)
{
    ha_copy *copy = job->args;

    ha_copy_remove(copy, job->pool);
    copy->took = apr_time_now() - job->begun;
    return 0;
}

static apr_status_t ask_begin(ha_ask *ask, ha_store *store, ha_call *call, const char *key)
{
    apr_status_t rv;

    memset(ask, 0, offsetof(ha_ask, order));
    ask->njobs = ask->broken = ask->trips = 0;
    ask->done = ask->settled = 0;
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

/* Asks the node at this place in the order. 0: it is not usable (or its lane is full). */
static int ask_node(ha_ask *ask, int place, ha_job_fn *run, const ha_envelope *env, const ha_blob *bytes)
{
    const ha_store_node *node = &ask->store->nodes[ask->order[place]];
    ha_copy *copy;

    if (!ha_breaker_usable(node->breaker)) {
        ha_probe_later(ask->store, ask->order[place], ask->began);
        return 0;
    }
    copy = apr_pcalloc(ha_batch_pool(ask->batch), sizeof(*copy));
    copy->node = node;
    copy->key = ask->key;
    copy->deadline = ask->deadline;
    copy->rv = APR_TIMEUP;
    if (env) {
        copy->env = *env;
        copy->bytes = *bytes;
    }
    if (APR_SUCCESS != ha_batch_submit(ask->batch, node->lane, run, copy)) {
        ha_breaker_count(node->breaker, HA_N_ERRORS);
        return 0;
    }
    ask->copies[ask->njobs++] = copy;
    return 1;
}

/* What a node is not to be asked again for before a probe has found it well. Other errors are an
 * answer: wrong, but at once. */
static int unreachable(apr_status_t rv)
{
    return APR_STATUS_IS_TIMEUP(rv) || APR_STATUS_IS_ECONNREFUSED(rv) || APR_STATUS_IS_ECONNRESET(rv)
        || APR_STATUS_IS_EHOSTUNREACH(rv) || APR_STATUS_IS_ENETUNREACH(rv) || APR_STATUS_IS_EPIPE(rv)
        || APR_STATUS_IS_EOF(rv) || APR_STATUS_IS_ENOENT(rv) || APR_STATUS_IS_EAGAIN(rv)
        || APR_STATUS_IS_ECONNABORTED(rv) || APR_STATUS_IS_ETIMEDOUT(rv)
        || (rv > APR_OS_START_EAIERR && rv < APR_OS_START_EAIERR + APR_OS_ERRSPACE_SIZE);
}

/* Counts a job that has ended, once. */
static void settle(ha_ask *ask, int nth)
{
    ha_copy *copy = ask->copies[nth];
    ha_breaker *b = copy->node->breaker;

    if (ask->settled & 1u << nth) {
        return;
    }
    ask->settled |= 1u << nth;
    ha_breaker_took(b, copy->took);
    switch (copy->rv) {
    case APR_SUCCESS:
    case APR_EEXIST:
    case APR_NOTFOUND:
        ha_breaker_answered(b, ask->began);
        return;
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
}

/* One wait; counts what has ended. */
static void ask_wait(ha_ask *ask, apr_time_t until)
{
    int i;

    ask->done = ha_batch_wait(ask->batch, until);
    for (i = 0; i < ask->njobs; i++) {
        if (ask->done & 1u << i) {
            settle(ask, i);
        }
    }
}

static int ask_pending(const ha_ask *ask)
{
    return ask->njobs && ask->done != (ask->njobs == 32 ? ~0u : (1u << ask->njobs) - 1);
}

/* The nodes that have not answered are given up. One that was given most of the time-out is not asked
 * again before a probe found it well; one that never got the job (its lane is busy), or only the rest of a
 * nearly spent deadline, is not to blame. */
static void ask_give_up(ha_ask *ask)
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

static void ask_end(ha_ask *ask)
{
    if (ask_pending(ask)) {
        ask_give_up(ask);
    }
    ha_batch_close(ask->batch);
}

static const char no_node[] = "no node of the store can be reached";

static apr_status_t broken(ha_call *call)
{
    if (call->why == NULL) {
        call->why = no_node;
    }
    return APR_EGENERAL;
}

static void value_out(ha_value *out, const ha_copy *copy, apr_pool_t *p)
{
    out->version = copy->env.version;
    out->data.len = copy->bytes.len;
    out->data.data = apr_pmemdup(p, copy->bytes.len ? copy->bytes.data : "", copy->bytes.len ? copy->bytes.len : 1);
}

static void trace_out(ha_store_trace *trace, const ha_ask *ask, const ha_copy *first, int copies)
{
    if (trace) {
        trace->node = first ? first->node->name : NULL;
        trace->copies = copies;
        trace->broken = ask->broken;
        trace->trips = ask->trips;
    }
}

apr_status_t ha_store_get(ha_store *store, ha_call *call, const char *key, ha_value *out, ha_store_trace *trace)
{
    ha_ask ask;
    ha_copy *best = NULL;
    apr_status_t rv;
    int i, copies = 0;

    if (APR_SUCCESS != (rv = ask_begin(&ask, store, call, key))) {
        return rv;
    }
    for (i = 0; i < store->nnodes; i++) {
        ask.broken += !ask_node(&ask, i, run_get, NULL, NULL);
    }
    ask.trips = ask.njobs > 0;
    while (ask_pending(&ask) && apr_time_now() < ask.deadline) {
        ask_wait(&ask, ask.deadline);
    }
    for (i = 0; i < ask.njobs; i++) {
        ha_copy *copy = ask.copies[i];

        ha_breaker_count(copy->node->breaker, HA_N_GETS);
        if (!(ask.done & 1u << i)) {
            continue;
        }
        if (copy->rv == APR_SUCCESS) {
            ha_breaker_count(copy->node->breaker, HA_N_HITS);
            copies++;
            /* Of equals the later one in the order: so does ha_store_add(). */
            if (best == NULL || !ha_newer(&best->env.version, &copy->env.version)) {
                best = copy;
            }
        }
        else if (copy->rv == APR_NOTFOUND) {
            ha_breaker_count(copy->node->breaker, HA_N_MISSES);
        }
    }
    if (best) {
        value_out(out, best, call->pool);
        ha_repair_found(store, key, best, ask.copies, ask.njobs, ask.done);
    }
    trace_out(trace, &ask, best, copies);
    ask_end(&ask);
    if (trace) {
        trace->broken = ask.broken;
    }
    return best ? APR_SUCCESS : ask.broken ? broken(call) : APR_NOTFOUND;
}

static void seal(ha_ask *ask, const ha_value *value, apr_time_t expires, ha_envelope *env, ha_blob *bytes)
{
    memset(env, 0, sizeof(*env));
    env->version = value->version;
    env->writer = ha_store_writer(ask->store);
    env->expires = expires;
    ha_copy_seal(env, ask->key, &value->data, ha_batch_pool(ask->batch), bytes);
}

apr_status_t ha_store_put(ha_store *store, ha_call *call, const char *key, const ha_value *value, apr_time_t expires,
                          ha_store_trace *trace)
{
    ha_ask ask;
    ha_envelope env;
    ha_blob bytes;
    apr_status_t rv, full = APR_SUCCESS;
    apr_time_t half, now;
    apr_uint32_t replaced = 0;
    const ha_copy *first = NULL;
    int i, next = 0, wanted = store->copies, acked = 0, asked;

    if (APR_SUCCESS != (rv = ask_begin(&ask, store, call, key))) {
        return rv;
    }
    seal(&ask, value, expires, &env, &bytes);
    now = ask.began;
    half = ask.began + (ask.deadline - ask.began) / 2;
    do {
        /* wanted counts the copies and, for each node that failed or is late, one more */
        for (asked = 0; ask.njobs < wanted && next < store->nnodes; next++) {
            if (ask_node(&ask, next, run_put, &env, &bytes)) {
                ha_breaker_count(ask.copies[ask.njobs - 1]->node->breaker, HA_N_PUTS);
                asked = 1;
            }
            else {
                ask.broken++;
            }
        }
        ask.trips += asked;
        if (ask_pending(&ask)) {
            ask_wait(&ask, now < half ? half : ask.deadline);
        }
        now = apr_time_now();
        for (i = 0; i < ask.njobs; i++) {
            int late = !(ask.done & 1u << i);

            if ((late ? now >= half : ask.copies[i]->rv != APR_SUCCESS) && !(replaced & 1u << i)) {
                replaced |= 1u << i;
                wanted++;
            }
        }
    } while ((ask_pending(&ask) || (ask.njobs < wanted && next < store->nnodes)) && now < ask.deadline);

    for (i = 0; i < ask.njobs; i++) {
        if (ask.done & 1u << i) {
            if (ask.copies[i]->rv == APR_SUCCESS) {
                first = acked++ ? first : ask.copies[i];
            }
            else if (ask.copies[i]->rv == APR_ENOSPC) {
                full = APR_ENOSPC;
            }
        }
    }
    trace_out(trace, &ask, first, acked);
    ask_end(&ask);
    if (trace) {
        trace->broken = ask.broken;
    }
    return acked ? APR_SUCCESS : full ? full : broken(call);
}

/* A copy was found while carrying cand: what is carried from here on? 1: the copy. Mine gives way to
 * anything. Of two that were found the newer one stays; of equals the later one in the order, which is
 * also the rule of ha_store_get(). */
static int take_over(ha_ask *ask, ha_copy *cand, const ha_copy *copy, int found)
{
    ha_blob value = copy->bytes;

    if (found && ha_newer(&cand->env.version, &copy->env.version)) {
        return 0;
    }
    cand->env = copy->env;
    ha_copy_seal(&cand->env, cand->key, &value, ha_batch_pool(ask->batch), &cand->bytes);
    return 1;
}

/* One winner, though nodes come and go.
 *
 * The first `width` usable nodes in the key's order are walked one after the other, carrying a candidate:
 * my own value at first. At each node the candidate is added; where something is there already, that
 * is the candidate from then on. What I carry at the end is the claim, whoever wrote it.
 *
 *  - Two adders that have a node in common agree: at the last node they share, the second one
 *    takes over what the first one left. The last node of the walk decides, atomically, by its own add.
 *  - An older claim survives the loss of all but one of its copies: an empty first node (restarted)
 *    takes my value, but the next one holds the older claim, which I carry on, and then repair the first.
 *  - Who loses still carries the winner's value to the nodes that lack it, so that the copies are
 *    there even if the winner dies at this point.
 *
 * With the first step the nodes beyond the walk are read: they hold a claim if it was made while the
 * others were away. It beats a candidate that is new, and one that was found: everybody sees it there.
 *
 * Trips: one a node of the walk; with two nodes or more the walk is at least two wide, however few
 * copies are wanted, for a claim on one node is gone with it.
 *
 * What a partition can do: two httpds that can reach no common node of the walk (each sees the other's
 * nodes down) make one claim each. When the nodes are back, all adders and readers agree on one again: the
 * walk finds both and the later node's value stays. And when all nodes that hold a claim are lost at once, so is it.
 */
apr_status_t ha_store_add(ha_store *store, ha_call *call, const char *key, const ha_value *value, apr_time_t expires,
                          ha_value *out, ha_store_trace *trace)
{
    ha_ask ask;
    ha_copy cand;                       /* what is carried: the key, the envelope, and both as bytes */
    apr_uint64_t mine;                  /* its writer, if it is mine */
    apr_status_t rv;
    apr_time_t now, until;
    apr_uint32_t step;
    const ha_copy *first = NULL;
    int width = store->copies > 1 ? store->copies : 2;
    int place, i, nth, ahead, found = 0, held = 0, full = 0;

    if (APR_SUCCESS != (rv = ask_begin(&ask, store, call, key))) {
        return rv;
    }
    memset(&cand, 0, sizeof(cand));
    cand.key = ask.key;
    seal(&ask, value, expires, &cand.env, &cand.bytes);
    mine = cand.env.writer;
    for (place = 0; place < store->nnodes && held < width; place++) {
        nth = ask.njobs;
        if (!ask_node(&ask, place, run_add, &cand.env, &cand.bytes)) {
            ask.broken++;
            continue;
        }
        ha_breaker_count(ask.copies[nth]->node->breaker, HA_N_ADDS);
        step = 1u << nth;
        for (ahead = 1, i = place + 1; ask.trips == 0 && i < store->nnodes; i++) {
            if (ha_breaker_usable(store->nodes[ask.order[i]].breaker) && ++ahead > width
                && ask_node(&ask, i, run_look, NULL, NULL)) {
                step |= 1u << (ask.njobs - 1);
            }
        }
        ask.trips++;
        /* A node that hangs must leave the next one some of the time. What it says later is not heard: by then a
         * later node has my candidate, and that is what everybody else will find. */
        now = apr_time_now();
        until = place + 1 < store->nnodes ? ask.deadline - (ask.deadline - now) / 4 : ask.deadline;
        while ((ask.done & step) != step && now < until) {
            ask_wait(&ask, until);
            now = apr_time_now();
        }
        for (i = nth; i < ask.njobs; i++) {
            const ha_copy *copy = ask.copies[i];

            if (!(ask.done & 1u << i)) {
                continue;
            }
            if (i == nth ? copy->rv == APR_EEXIST : copy->rv == APR_SUCCESS) {
                found += take_over(&ask, &cand, copy, found);
            }
            if (i == nth) {
                full |= copy->rv == APR_ENOSPC;
                if (copy->rv == APR_SUCCESS || copy->rv == APR_EEXIST) {
                    held++;
                    first = first ? first : copy;
                }
            }
        }
    }
    for (i = 0; i < ask.njobs; i++) {
        if ((ask.done & 1u << i) && (ask.copies[i]->rv == APR_SUCCESS || ask.copies[i]->rv == APR_EEXIST)
            && ask.copies[i]->env.writer != cand.env.writer) {
            ha_repair_node(store, ask.copies[i]->node, &cand.env, key, &cand.bytes, 0);
        }
    }
    if (found) {
        out->version = cand.env.version;
        out->data.len = (apr_size_t)cand.env.length;
        out->data.data = apr_pmemdup(call->pool, (const char *)cand.bytes.data + HA_ENVELOPE_LEN, out->data.len + !out->data.len);
    }
    trace_out(trace, &ask, first, held);
    rv = held == 0 && !found ? (full ? APR_ENOSPC : APR_EGENERAL) : cand.env.writer == mine ? APR_SUCCESS : APR_EEXIST;
    ask_end(&ask);
    if (trace) {
        trace->broken = ask.broken;
    }
    return rv == APR_EGENERAL ? broken(call) : rv;
}

apr_status_t ha_store_remove(ha_store *store, ha_call *call, const char *key, ha_store_trace *trace)
{
    ha_ask ask;
    apr_status_t rv;
    const ha_copy *first = NULL;
    int i, removed = 0;

    if (APR_SUCCESS != (rv = ask_begin(&ask, store, call, key))) {
        return rv;
    }
    for (i = 0; i < store->nnodes; i++) {
        ask.broken += !ask_node(&ask, i, run_remove, NULL, NULL);
    }
    ask.trips = ask.njobs > 0;
    while (ask_pending(&ask) && apr_time_now() < ask.deadline) {
        ask_wait(&ask, ask.deadline);
    }
    for (i = 0; i < ask.njobs; i++) {
        if ((ask.done & 1u << i) && ask.copies[i]->rv == APR_SUCCESS) {
            first = removed++ ? first : ask.copies[i];
        }
    }
    trace_out(trace, &ask, first, removed);
    ask_end(&ask);
    if (trace) {
        trace->broken = ask.broken;
    }
    return ask.broken == 0 ? APR_SUCCESS : removed ? APR_INCOMPLETE : broken(call);
}
