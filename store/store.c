/* store.c - get, put, touch, add and remove over the nodes of a store.
 *
 * get   asks every node that can be asked at once. Reads are rare (a session in failover), a
 *       copy may lie on any node (it was written while the placed ones were away), and a node that
 *       answers "no" costs next to nothing; so there is one round trip, and none is missed. After half of the time
 *       a silent node is not waited for any more, if fewer than K are: one of the others has a copy then.
 * put   asks the first K usable nodes at once; whoever refuses is replaced by the next node at once, whoever
 *       has not answered after half of the time as well.
 * touch asks the nodes that a put would ask at first, and is none: whoever needs more than they have puts.
 * add   see ha_store_claim().
 * has   as get, but of what is not ours: no envelope, no version, nothing to repair.
 */
#include <string.h>

#include <apr_strings.h>

#include "store_ask.h"
#include "store_repair.h"

static void value_out(ha_value *out, const ha_copy *copy, apr_pool_t *p)
{
    out->version = copy->env.version;
    out->data.len = copy->bytes.len;
    out->data.data = apr_pmemdup(p, copy->bytes.len ? copy->bytes.data : "", copy->bytes.len ? copy->bytes.len : 1);
}

/* The end of an ask; its copies are gone afterwards. */
static void finish(ha_ask *ask, ha_store_trace *trace, const ha_copy *first, int copies)
{
    const char *node = first ? first->node->name : NULL;

    ha_ask_end(ask);
    if (trace) {
        trace->node = node;
        trace->copies = copies;
        trace->broken = ask->broken;
        trace->trips = ask->trips;
    }
}

static int ended(const ha_ask *ask)
{
    int i, n = 0;

    for (i = 0; i < ask->njobs; i++) {
        n += ha_ask_ended(ask, i);
    }
    return n;
}

static int is_answer(const ha_copy *copy)
{
    return copy->rv == APR_SUCCESS || copy->rv == APR_NOTFOUND;     /* "here it is", or "no" */
}

static int answers(const ha_ask *ask)
{
    int i, n = 0;

    for (i = 0; i < ask->njobs; i++) {
        n += ha_ask_ended(ask, i) && is_answer(ask->copies[i]);
    }
    return n;
}

/* The same of what is beside a claim. */
static int answers_beside(const ha_ask *ask)
{
    int i, n = 0;

    for (i = 0; i < ask->njobs; i++) {
        n += ask->copies[i]->nbeside && ha_ask_ended(ask, i) && is_answer(&ask->copies[i]->beside[0]);
    }
    return n;
}

/* Of the copies of one key, in the key's order of nodes, the newest; read: how many nodes have answered. */
static void newest(ha_ask *ask, const char *key, ha_copy *const *copies, int n, ha_found *out, int *ncopies)
{
    const ha_copy *best = NULL;
    int i, read = 0;

    *ncopies = 0;
    for (i = 0; i < n; i++) {
        const ha_copy *copy = copies[i];

        ha_breaker_count(copy->node->breaker, HA_N_GETS);
        if (copy->rv == APR_SUCCESS) {
            ha_breaker_count(copy->node->breaker, HA_N_HITS);
            read++;
            ++*ncopies;
            /* Of equals the later one in the order: so does ha_store_claim(). */
            if (best == NULL || !ha_newer(&best->env.version, &copy->env.version)) {
                best = copy;
            }
        }
        else if (copy->rv == APR_NOTFOUND) {
            ha_breaker_count(copy->node->breaker, HA_N_MISSES);
            read++;
        }
    }
    out->rv = best ? APR_SUCCESS : read == ask->store->nnodes ? APR_NOTFOUND : APR_EGENERAL;
    out->node = best ? best->node->name : NULL;
    out->sure = read > ask->store->nnodes - ask->store->copies;
    if (best) {
        value_out(&out->value, best, ask->call->pool);
        ha_repair_found(ask->store, key, best, copies, n, ~0u);
    }
}

/* What was read of the nth key beside: of each node the last time, in the key's order of nodes. */
static void newest_beside(ha_ask *ask, int nth, ha_found *out)
{
    ha_copy *copies[HA_STORE_NODES_MAX];
    int place, i, n = 0, ncopies;

    for (place = 0; place < ask->store->nnodes; place++) {
        for (i = ask->njobs - 1; i >= 0; i--) {
            if (ask->copies[i]->nbeside && ask->copies[i]->node == &ask->store->nodes[ask->order[place]] && ha_ask_ended(ask, i)) {
                copies[n++] = &ask->copies[i]->beside[nth];
                break;
            }
        }
    }
    newest(ask, out->key, copies, n, out, &ncopies);
}

apr_status_t ha_store_look(ha_store *store, ha_call *call, ha_found *found, int n, ha_store_trace *trace)
{
    ha_ask ask;
    ha_copy *copies[HA_STORE_NODES_MAX];
    apr_status_t rv;
    apr_time_t half, now;
    int i, n_ended = 0, ncopies = 0;

    if (APR_SUCCESS != (rv = ha_ask_begin(&ask, store, call, found[0].key))) {
        goto leave;
    }
    for (i = 1; i < n; i++) {
        if (APR_SUCCESS != (rv = ha_ask_beside(&ask, found[i].key))) {
            ha_ask_end(&ask);
            goto leave;
        }
    }
    for (i = 0; i < store->nnodes; i++) {
        ask.broken += !ha_ask_node(&ask, i, HA_ASK_GET, NULL, NULL);
    }
    half = ask.began + (ask.deadline - ask.began) / 2;
    while (ha_ask_pending(&ask) && (now = apr_time_now()) < ask.deadline
           && (now < half || answers(&ask) <= store->nnodes - store->copies)) {
        ha_ask_wait(&ask, now < half ? 0 : ended(&ask) + 1, now < half ? half : ask.deadline);
    }
    ha_ask_trip(&ask, 0);
    for (i = 0; i < ask.njobs; i++) {
        if (ha_ask_ended(&ask, i)) {
            copies[n_ended++] = ask.copies[i];
        }
        else {
            ha_breaker_count(ask.copies[i]->node->breaker, HA_N_GETS);
        }
    }
    newest(&ask, found[0].key, copies, n_ended, &found[0], &ncopies);
    for (i = 1; i < n; i++) {
        newest_beside(&ask, i - 1, &found[i]);
    }
    finish(&ask, trace, NULL, ncopies);
    if (trace) {
        trace->node = found[0].node;
    }
leave:
    for (i = 0; i < n && rv != APR_SUCCESS; i++) {
        found[i].rv = rv;
    }
    for (i = 0; i < n && rv == APR_SUCCESS; i++) {
        if (found[i].rv == APR_EGENERAL) {
            ha_ask_broken(call);
        }
    }
    return rv;
}

apr_status_t ha_store_get(ha_store *store, ha_call *call, const char *key, ha_value *out, ha_store_trace *trace)
{
    ha_found found = { .key = key };

    (void)ha_store_look(store, call, &found, 1, trace);
    if (found.rv == APR_SUCCESS) {
        *out = found.value;
    }
    return found.rv;
}

static void seal(ha_ask *ask, const ha_value *value, apr_time_t expires, ha_envelope *env, ha_blob *bytes)
{
    memset(env, 0, sizeof(*env));
    env->version = value->version;
    env->writer = ha_store_writer(ask->store);
    env->expires = expires;
    ha_copy_seal(env, ask->key, &value->data, ha_batch_pool(ask->batch), bytes);
}

static apr_status_t put(ha_store *store, ha_call *call, const char *key, const ha_value *value, apr_time_t expires,
                        ha_ask_what what, ha_store_trace *trace)
{
    ha_ask ask;
    ha_envelope env;
    ha_blob bytes;
    apr_status_t rv, full = APR_SUCCESS;
    apr_time_t half, now;
    apr_uint32_t replaced = 0;
    const ha_copy *first = NULL;
    int i, next = 0, wanted = store->copies, acked = 0, failed = 0, asked;

    if (APR_SUCCESS != (rv = ha_ask_begin(&ask, store, call, key))) {
        return rv;
    }
    seal(&ask, value, expires, &env, &bytes);
    now = ask.began;
    half = ask.began + (ask.deadline - ask.began) / 2;
    do {
        /* wanted counts the copies and, for each node that failed or is late, one more */
        for (asked = 0; ask.njobs < wanted && next < store->nnodes; next++) {
            if (ha_ask_node(&ask, next, what, &env, &bytes)) {
                ha_breaker_count(ask.copies[ask.njobs - 1]->node->breaker, HA_N_PUTS);
                asked = 1;
            }
            else {
                ask.broken++;
            }
        }
        ask.trips += asked;
        if (ha_ask_pending(&ask)) {
            ha_ask_wait(&ask, store->copies + failed, now < half ? half : ask.deadline);
        }
        now = apr_time_now();
        for (i = acked = failed = 0; i < ask.njobs; i++) {
            int late = !ha_ask_ended(&ask, i);

            acked += !late && ask.copies[i]->rv == APR_SUCCESS;
            failed += !late && ask.copies[i]->rv != APR_SUCCESS;
            if ((late ? now >= half : ask.copies[i]->rv != APR_SUCCESS) && !(replaced & 1u << i)) {
                replaced |= 1u << i;
                wanted++;
            }
        }
        /* Enough copies, and a node that hangs is not waited for: the caller has use for the rest of the time-out. */
    } while (acked < store->copies
             && (ha_ask_pending(&ask) || (ask.njobs < wanted && next < store->nnodes)) && now < ask.deadline);

    for (i = acked = 0; i < ask.njobs; i++) {
        if (ha_ask_ended(&ask, i)) {
            if (ask.copies[i]->rv == APR_SUCCESS) {
                first = acked++ ? first : ask.copies[i];
            }
            else if (ask.copies[i]->rv == APR_ENOSPC) {
                full = APR_ENOSPC;
            }
        }
    }
    finish(&ask, trace, first, acked);
    return acked ? APR_SUCCESS : full ? full : ha_ask_broken(call);
}

apr_status_t ha_store_put(ha_store *store, ha_call *call, const char *key, const ha_value *value, apr_time_t expires,
                          ha_store_trace *trace)
{
    return put(store, call, key, value, expires, HA_ASK_PUT, trace);
}

apr_status_t ha_store_put_newer(ha_store *store, ha_call *call, const char *key, const ha_value *value, apr_time_t expires,
                                ha_store_trace *trace)
{
    return put(store, call, key, value, expires, HA_ASK_PUT_NEWER, trace);
}

apr_status_t ha_store_touch(ha_store *store, ha_call *call, const char *key, const ha_version *version, apr_time_t expires)
{
    static const ha_blob nothing = { "", 0 };
    ha_ask ask;
    ha_envelope env;
    apr_status_t rv;
    apr_time_t half;
    int i, place, touched = 0;

    if (store->provider->touch == NULL) {
        return APR_ENOTIMPL;
    }
    if (APR_SUCCESS != (rv = ha_ask_begin(&ask, store, call, key))) {
        return rv;
    }
    memset(&env, 0, sizeof(env));
    env.version = *version;
    env.expires = expires;
    for (place = 0; ask.njobs < store->copies && place < store->nnodes; place++) {
        ha_ask_node(&ask, place, HA_ASK_TOUCH, &env, &nothing);
    }
    half = ask.began + (ask.deadline - ask.began) / 2;
    while (ha_ask_pending(&ask) && apr_time_now() < half) {
        ha_ask_wait(&ask, 0, half);
    }
    for (i = 0; i < ask.njobs; i++) {
        ha_breaker *b = ask.copies[i]->node->breaker;

        ha_breaker_count(b, HA_N_GETS);
        if (ha_ask_ended(&ask, i) && ask.copies[i]->rv == APR_SUCCESS) {
            ha_breaker_count(b, HA_N_HITS);
            touched++;
        }
        else if (ha_ask_ended(&ask, i) && ask.copies[i]->rv == APR_NOTFOUND) {
            ha_breaker_count(b, HA_N_MISSES);
        }
    }
    rv = ask.njobs > 0 && touched == ask.njobs ? APR_SUCCESS : APR_NOTFOUND;
    finish(&ask, NULL, NULL, 0);
    return rv;
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
 * What is read beside the claim must not be older than the claim. Each node of the walk is read after its own add, in the
 * same exchange. Who writes there and then finds no claim there has written before it came, so the write is read. The
 * nodes beyond the walk hold copies that were written while others were away; they are read beside the last
 * step, when the nodes before it have the claim.
 *
 * Trips: one a node of the walk; with two nodes or more the walk is at least two wide, however few
 * copies are wanted, for a claim on one node is gone with it.
 *
 * What a partition can do: two httpds that can reach no common node of the walk (each sees the other's
 * nodes down) make one claim each. When the nodes are back, all adders and readers agree on one again: the
 * walk finds both and the later node's value stays. And when all nodes that hold a claim are lost at once, so is it.
 */
apr_status_t ha_store_claim(ha_store *store, ha_call *call, const char *key, const ha_value *value, apr_time_t expires,
                            ha_value *out, ha_found *others, int n, ha_store_trace *trace)
{
    ha_ask ask;
    ha_copy cand;                       /* what is carried: the key, the envelope, and both as bytes */
    apr_uint64_t mine;                  /* its writer, if it is mine */
    apr_status_t rv;
    apr_time_t now, until, half;
    apr_uint32_t step, walk = 0, taken = 0;
    const ha_copy *first = NULL;
    int width = store->copies > 1 ? store->copies : 2;
    int place, i, nth, ahead, found = 0, held = 0, full = 0, steps = 0, gets, beyond = n == 0;

    if (n && 2 * store->nnodes > HA_BATCH_MAX) {    /* more than a batch holds: one after the other */
        ha_store_trace looked = { 0 };

        rv = ha_store_add(store, call, key, value, expires, out, trace);
        (void)ha_store_look(store, call, others, n, &looked);
        if (trace) {
            trace->trips += looked.trips;
        }
        return rv;
    }
    for (i = 0; i < n; i++) {
        others[i].rv = APR_EGENERAL;
    }
    if (APR_SUCCESS != (rv = ha_ask_begin(&ask, store, call, key))) {
        return rv;
    }
    for (i = 0; i < n; i++) {
        if (APR_SUCCESS != (rv = ha_ask_beside(&ask, others[i].key))) {
            ha_ask_end(&ask);
            return rv;
        }
    }
    memset(&cand, 0, sizeof(cand));
    cand.key = ask.key;
    seal(&ask, value, expires, &cand.env, &cand.bytes);
    mine = cand.env.writer;
    for (place = 0; place < store->nnodes && held < width; place++) {
        nth = ask.njobs;
        if (!ha_ask_node(&ask, place, n ? HA_ASK_CLAIM : HA_ASK_ADD, &cand.env, &cand.bytes)) {
            ask.broken++;
            continue;
        }
        ha_breaker_count(ask.copies[nth]->node->breaker, HA_N_ADDS);
        step = 1u << nth;
        walk |= step;
        for (ahead = 1, i = place + 1; steps == 0 && i < store->nnodes; i++) {
            if (ha_breaker_usable(store->nodes[ask.order[i]].breaker) && ++ahead > width
                && ha_ask_node(&ask, i, HA_ASK_LOOK, NULL, NULL)) {
                step |= 1u << (ask.njobs - 1);
            }
        }
        gets = !beyond && held == width - 1;
        for (i = place + 1; gets && i < store->nnodes; i++) {
            if (ha_ask_node(&ask, i, HA_ASK_GET, NULL, NULL)) {
                step |= 1u << (ask.njobs - 1);
            }
        }
        beyond |= gets;
        steps++;
        /* A node that hangs must leave the next one some of the time. What it says later is not heard: by then a
         * later node has my candidate, and that is what everybody else will find. */
        now = apr_time_now();
        until = place + 1 < store->nnodes ? ask.deadline - (ask.deadline - now) / 4 : ask.deadline;
        half = now + (until - now) / 2;     /* those beyond are waited for as in any get */
        while ((ask.done & step) != step && now < until
               && !(now >= half && ha_ask_ended(&ask, nth) && (!gets || answers_beside(&ask) > store->nnodes - store->copies))) {
            ha_ask_wait(&ask, now < half ? 0 : ended(&ask) + 1, now < half ? half : until);
            now = apr_time_now();
        }
        ha_ask_trip(&ask, nth);
        for (i = 0; i < ask.njobs; i++) {
            const ha_copy *copy = ask.copies[i];

            if (taken & 1u << i || !ha_ask_ended(&ask, i)) {
                continue;
            }
            taken |= 1u << i;
            if (i != nth && (copy->nbeside || walk & 1u << i)) {
                continue;       /* too late; or what lies there of the claim was asked for with the first step */
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
        if (ha_ask_ended(&ask, i) && (ask.copies[i]->nbeside == 0 || walk & 1u << i)
            && (ask.copies[i]->rv == APR_SUCCESS || ask.copies[i]->rv == APR_EEXIST)
            && ask.copies[i]->env.writer != cand.env.writer) {
            ha_repair_node(store, ask.copies[i]->node, &cand.env, key, &cand.bytes, 0);
        }
    }
    if (found) {
        out->version = cand.env.version;
        out->data.len = (apr_size_t)cand.env.length;
        out->data.data = apr_pmemdup(call->pool, (const char *)cand.bytes.data + HA_ENVELOPE_LEN, out->data.len + !out->data.len);
    }
    for (i = 0; i < n; i++) {
        newest_beside(&ask, i, &others[i]);
    }
    rv = held == 0 && !found ? (full ? APR_ENOSPC : APR_EGENERAL) : cand.env.writer == mine ? APR_SUCCESS : APR_EEXIST;
    finish(&ask, trace, first, held);
    return rv == APR_EGENERAL ? ha_ask_broken(call) : rv;
}

apr_status_t ha_store_add(ha_store *store, ha_call *call, const char *key, const ha_value *value, apr_time_t expires,
                          ha_value *out, ha_store_trace *trace)
{
    return ha_store_claim(store, call, key, value, expires, out, NULL, 0, trace);
}

apr_status_t ha_store_remove(ha_store *store, ha_call *call, const char *key, ha_store_trace *trace)
{
    ha_ask ask;
    apr_status_t rv;
    const ha_copy *first = NULL;
    int i, removed = 0;

    if (APR_SUCCESS != (rv = ha_ask_begin(&ask, store, call, key))) {
        return rv;
    }
    for (i = 0; i < store->nnodes; i++) {
        ask.broken += !ha_ask_node(&ask, i, HA_ASK_REMOVE, NULL, NULL);
    }
    while (ha_ask_pending(&ask) && apr_time_now() < ask.deadline) {
        ha_ask_wait(&ask, 0, ask.deadline);
    }
    ha_ask_trip(&ask, 0);
    for (i = 0; i < ask.njobs; i++) {
        if (ha_ask_ended(&ask, i) && ask.copies[i]->rv == APR_SUCCESS) {
            first = removed++ ? first : ask.copies[i];
        }
    }
    finish(&ask, trace, first, removed);
    return ask.broken == 0 ? APR_SUCCESS : removed ? APR_INCOMPLETE : ha_ask_broken(call);
}

apr_status_t ha_store_has_begin(ha_ask **out, ha_store *store, ha_call *call, const ha_name *names, int n)
{
    ha_ask *ask = apr_palloc(call->pool, sizeof(*ask));
    apr_pool_t *p;
    ha_name *copy;
    apr_status_t rv;
    int i, k;

    /* all nodes are asked, in whatever order */
    if (APR_SUCCESS != (rv = ha_ask_begin(ask, store, call, "native"))) {
        return rv;
    }
    p = ha_batch_pool(ask->batch);
    ask->names = copy = apr_pmemdup(p, names, (apr_size_t)n * sizeof(*names));
    ask->nnames = n;
    for (i = 0; i < n; i++) {
        copy[i].text = apr_pstrdup(p, names[i].text);
        for (k = 0; k < names[i].nargs; k++) {
            copy[i].args[k] = apr_pstrdup(p, names[i].args[k]);
        }
    }
    for (i = 0; i < store->nnodes; i++) {
        ask->broken += !ha_ask_node(ask, i, HA_ASK_HAS, NULL, NULL);
    }
    *out = ask;
    return APR_SUCCESS;
}

apr_status_t ha_store_has_end(ha_ask *ask)
{
    int i, found = 0;

    /* at least once: it may have been answered long ago */
    do {
        ha_ask_wait(ask, 0, ask->deadline);
    } while (ha_ask_pending(ask) && apr_time_now() < ask->deadline);
    for (i = 0; i < ask->njobs; i++) {
        const ha_copy *copy = ask->copies[i];

        ha_breaker_count(copy->node->breaker, HA_N_GETS);
        if (ha_ask_ended(ask, i) && copy->rv == APR_SUCCESS) {
            ha_breaker_count(copy->node->breaker, HA_N_HITS);
            found = 1;
        }
        else if (ha_ask_ended(ask, i) && copy->rv == APR_NOTFOUND) {
            ha_breaker_count(copy->node->breaker, HA_N_MISSES);
        }
    }
    ha_ask_end(ask);
    return found ? APR_SUCCESS : ask->broken ? ha_ask_broken(ask->call) : APR_NOTFOUND;
}
