/* store_contract.c - what every store must do, against the real server: one test, a row for each store.
 *
 * A store is done when it passes. The stores are used through the face (store.h), as session/ uses
 * them; only what a broken node holds is put there by the provider itself. */
#ifdef HAVE_CONFIG_H
#include "autoconf.h"
#endif

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <apr_general.h>
#include <apr_strings.h>

#include "store/store_copy.h"
#include "store/store_nodes.h"
#include "store_servers.h"

#define SECOND   APR_USEC_PER_SEC
#define TIMEOUT  (5 * SECOND)   /* nothing here is about time; a busy machine must not matter */
#define ADDERS   4
#define KEYS     200

typedef struct contract_row {
    const char *name;
    int copies;
    int trips;                  /* to one node, of a claim and what is beside it */
    /* starts what it needs; the URLs */
    int (*start)(apr_pool_t *p, const char **urls);
    void (*stop)(void);
} contract_row;

typedef struct contract {
    const contract_row *row;
    apr_pool_t *p;
    ha_store *store;
    int nurls;
    const char *urls[HA_STORE_NODES_MAX];
    const char *first_add;
    int *owners;                /* ADDERS x KEYS: whom each process found to own the key; 0 none */
    int *wins;                  /* how many processes won each key */
    int nth;                    /* of the adder */
    apr_time_t touched;         /* when touching() was done */
} contract;

static ha_value value_of(const void *data, apr_size_t len, apr_uint64_t epoch, apr_uint64_t seq)
{
    ha_value v;

    v.data.data = data;
    v.data.len = len;
    v.version.epoch = epoch;
    v.version.seq = seq;
    return v;
}

static apr_status_t put_text(contract *c, const char *key, const char *text, apr_uint64_t epoch, apr_uint64_t seq, apr_time_t expires)
{
    ha_call call = { c->p, 0, NULL };
    ha_value v = value_of(text, strlen(text), epoch, seq);
    apr_status_t rv = ha_store_put(c->store, &call, key, &v, expires, NULL);

    if (rv != APR_SUCCESS) {
        printf("# put: %d %s\n", rv, call.why ? call.why : "");
    }
    return rv;
}

static apr_status_t get(contract *c, const char *key, ha_value *v)
{
    ha_call call = { c->p, 0, NULL };
    apr_status_t rv = ha_store_get(c->store, &call, key, v, NULL);

    if (rv != APR_SUCCESS && rv != APR_NOTFOUND) {
        printf("# get: %d %s\n", rv, call.why ? call.why : "");
    }
    return rv;
}

static void found_and_absent(contract *c)
{
    const char *key = test_key(c->p, "ha:b", 1);
    ha_store_trace trace;
    ha_call call = { c->p, 0, NULL };
    ha_value v, w = value_of("one", 3, 2, 9);

    ok(get(c, key, &v) == APR_NOTFOUND, "absent: not found");
    ok(ha_store_put(c->store, &call, key, &w, apr_time_now() + 60 * SECOND, &trace) == APR_SUCCESS, "put");
    ok(trace.copies == c->row->copies && trace.broken == 0 && trace.node, "as many copies as wanted are acknowledged");
    ok(ha_store_get(c->store, &call, key, &v, &trace) == APR_SUCCESS && value_is(v, "one", 3), "found, with its bytes");
    ok(v.version.epoch == 2 && v.version.seq == 9, "and its version");
    ok(trace.copies >= c->row->copies && trace.trips == 1, "in one round trip");
    ok(put_text(c, key, "another one", 2, 10, 0) == APR_SUCCESS && get(c, key, &v) == APR_SUCCESS
       && value_is(v, "another one", 11) && v.version.seq == 10, "written over");
    ok(get(c, test_key(c->p, "ha:c", 1), &v) == APR_NOTFOUND, "another key of the same session is another key");
}

static void every_byte(contract *c)
{
    const char *key = test_key(c->p, "ha:b", 2);
    unsigned char bytes[1024];
    ha_call call = { c->p, 0, NULL };
    ha_value v, w = value_of(bytes, sizeof(bytes), 1, 1);
    int i;

    for (i = 0; i < (int)sizeof(bytes); i++) {
        bytes[i] = (unsigned char)i;
    }
    memcpy(bytes + 600, "\r\nEND\r\nSTORED\r\n\0\0", 17);
    ok(ha_store_put(c->store, &call, key, &w, 0, NULL) == APR_SUCCESS && get(c, key, &v) == APR_SUCCESS
       && value_is(v, bytes, sizeof(bytes)), "NUL bytes, every byte, and what looks like a protocol");
    w = value_of(NULL, 0, 1, 2);
    ok(ha_store_put(c->store, &call, key, &w, 0, NULL) == APR_SUCCESS && get(c, key, &v) == APR_SUCCESS
       && v.data.len == 0 && v.version.seq == 2, "an empty value is a value");
    w = value_of("newer", 5, 1, 4);
    ok(ha_store_put_newer(c->store, &call, key, &w, 0, NULL) == APR_SUCCESS && get(c, key, &v) == APR_SUCCESS && value_is(v, "newer", 5),
       "a newer one is put");
    w = value_of("older", 5, 1, 3);
    ok(ha_store_put_newer(c->store, &call, key, &w, 0, NULL) == APR_SUCCESS && get(c, key, &v) == APR_SUCCESS && value_is(v, "newer", 5),
       "an older one leaves it there");
    w = value_of("next", 4, 2, 1);
    ok(ha_store_put_newer(c->store, &call, key, &w, 0, NULL) == APR_SUCCESS && get(c, key, &v) == APR_SUCCESS && value_is(v, "next", 4),
       "a later epoch is newer");
}

static void sizes(contract *c)
{
    static const apr_size_t sizes_of[] = { 1, 4096, 65536, 900 * 1024 - HA_ENVELOPE_LEN, 900 * 1024 - HA_ENVELOPE_LEN + 1,
                                           1024 * 1024, 5 * 1024 * 1024 + 17, 100 };
    const char *key = test_key(c->p, "ha:b", 3);
    unsigned char *big = malloc(6 * 1024 * 1024);
    apr_uint32_t r = 1;
    ha_value v, w;
    size_t i;

    for (i = 0; i < 6 * 1024 * 1024; i++) {
        r = r * 1103515245 + 12345;
        big[i] = (unsigned char)(r >> 16);
    }
    for (i = 0; i < sizeof(sizes_of) / sizeof(sizes_of[0]); i++) {
        ha_call call = { c->p, 0, NULL };
        apr_status_t rv;

        w = value_of(big + i, sizes_of[i], 1, i);
        rv = ha_store_put(c->store, &call, key, &w, apr_time_now() + 60 * SECOND, NULL);
        ok(rv == APR_SUCCESS && get(c, key, &v) == APR_SUCCESS && value_is(v, big + i, sizes_of[i]) && v.version.seq == i,
           "%lu bytes, over what was there", (unsigned long)sizes_of[i]);
        if (rv) {
            printf("# %d %s\n", rv, call.why);
        }
    }
    w = value_of(big, 2 * 1024 * 1024, 1, 50);
    {
        ha_call call = { c->p, 0, NULL };
        const char *other = test_key(c->p, "ha:b", 4);

        ok(ha_store_add(c->store, &call, other, &w, 0, &v, NULL) == APR_SUCCESS && get(c, other, &v) == APR_SUCCESS
           && value_is(v, big, 2 * 1024 * 1024), "add of 2 MB");
        ok(ha_store_add(c->store, &call, other, &w, 0, &v, NULL) == APR_EEXIST && value_is(v, big, 2 * 1024 * 1024), "and again: it is there, whole");
    }
    free(big);
}

static void expiry(contract *c)
{
    const char *key = test_key(c->p, "ha:b", 5), *past = test_key(c->p, "ha:b", 6), *late = test_key(c->p, "ha:b", 7);
    ha_call call = { c->p, 0, NULL };
    ha_value v, w = value_of("new", 3, 1, 2);
    apr_status_t rv;
    int i;

    ok(put_text(c, past, "past", 1, 1, apr_time_now() - SECOND) == APR_SUCCESS && get(c, past, &v) == APR_NOTFOUND, "already expired: not there");
    ok(put_text(c, late, "late", 1, 1, apr_time_now() + apr_time_from_sec(90 * 24 * 3600)) == APR_SUCCESS && get(c, late, &v) == APR_SUCCESS,
       "expires in ninety days: there");
    ok(put_text(c, key, "old", 1, 1, apr_time_now() + 2 * SECOND) == APR_SUCCESS && get(c, key, &v) == APR_SUCCESS, "expires in two seconds: there");
    for (i = 0; i < 200 && (rv = get(c, key, &v)) == APR_SUCCESS; i++) {
        apr_sleep(100000);
    }
    ok(rv == APR_NOTFOUND, "and then not found");
    ok(ha_store_add(c->store, &call, key, &w, 0, &v, NULL) == APR_SUCCESS && get(c, key, &v) == APR_SUCCESS && value_is(v, "new", 3),
       "add over what has expired");
    ha_store_tend(c->store, c->p, apr_time_now() + 20 * SECOND);
    apr_sleep(100000);
    ok(get(c, key, &v) == APR_SUCCESS && get(c, late, &v) == APR_SUCCESS && get(c, past, &v) == APR_NOTFOUND, "the sweep takes what has expired and nothing else");
}

static apr_status_t touch(contract *c, const char *key, apr_uint64_t epoch, apr_uint64_t seq, apr_time_t expires)
{
    ha_call call = { c->p, 0, NULL };
    ha_version version = { epoch, seq };

    return ha_store_touch(c->store, &call, key, &version, expires);
}

/* On the node that is so far in the key's order, past the store. */
static apr_status_t on_node(contract *c, int place, const char *key, ha_blob *found, const ha_blob *put, const char *remove)
{
    ha_call call = { c->p, apr_time_now() + TIMEOUT, NULL };
    int order[HA_STORE_NODES_MAX];
    const ha_store_node *node;

    ha_store_order(c->store, key, order);
    node = &c->store->nodes[order[place]];
    return found ? node->provider->get(node->at, &call, key, found)
         : put ? node->provider->put(node->at, &call, key, put, apr_time_now() + 60 * SECOND)
               : node->provider->remove(node->at, &call, remove);
}

#define TOUCHED_SIZE (2 * 1024 * 1024)

static void touching(contract *c)
{
    const char *small = test_key(c->p, "ha:b", 20), *large = test_key(c->p, "ha:b", 21), *shorter = test_key(c->p, "ha:b", 22),
               *never = test_key(c->p, "ha:b", 23);
    char *bytes = apr_palloc(c->p, TOUCHED_SIZE);
    ha_call call = { c->p, 0, NULL };
    ha_value v, w = value_of(bytes, TOUCHED_SIZE, 1, 7);

    memset(bytes, 'b', TOUCHED_SIZE);
    ok(put_text(c, small, "small", 1, 7, apr_time_now() + 60 * SECOND) == APR_SUCCESS
       && ha_store_put(c->store, &call, large, &w, apr_time_now() + 60 * SECOND, NULL) == APR_SUCCESS
       && ha_store_put(c->store, &call, shorter, &w, apr_time_now() + 60 * SECOND, NULL) == APR_SUCCESS, "three values, two of them large");
    if (c->store->provider->touch == NULL) {
        ok(touch(c, small, 1, 7, apr_time_now() + 60 * SECOND) == APR_ENOTIMPL, "this store cannot touch, and says so");
        return;
    }
    ok(touch(c, never, 1, 7, apr_time_now() + 60 * SECOND) == APR_NOTFOUND, "touch of what is not there");
    ok(touch(c, small, 1, 8, apr_time_now() + 60 * SECOND) == APR_NOTFOUND && touch(c, small, 2, 1, apr_time_now() + 60 * SECOND) == APR_NOTFOUND,
       "an older version does not count");
    ok(touch(c, shorter, 1, 6, apr_time_now() + SECOND) == APR_SUCCESS, "a newer one does, and is left alone");
    ok(touch(c, small, 1, 7, apr_time_now() + 3 * SECOND) == APR_SUCCESS && touch(c, large, 1, 7, apr_time_now() + 3 * SECOND) == APR_SUCCESS
       && touch(c, small, 1, 7, apr_time_now() + 90 * SECOND) == APR_SUCCESS && touch(c, large, 1, 7, apr_time_now() + 91 * SECOND) == APR_SUCCESS
       && touch(c, shorter, 1, 7, apr_time_now() + 2 * SECOND) == APR_SUCCESS, "a life may be made shorter, and longer again");
    c->touched = apr_time_now();
    ok(get(c, shorter, &v) == APR_SUCCESS && value_is(v, bytes, TOUCHED_SIZE) && v.version.seq == 7, "nothing else has changed");
}

/* What touching() has left, when its first expiries are over. */
static void touched(contract *c)
{
    const char *small = test_key(c->p, "ha:b", 20), *large = test_key(c->p, "ha:b", 21), *shorter = test_key(c->p, "ha:b", 22), *why;
    const int parts = c->store->provider->chunk > 0;
    ha_blob whole;
    ha_envelope env;
    ha_value v;
    int i;

    if (c->store->provider->touch == NULL) {
        return;
    }
    /* memcached forgets a second or two late */
    while (apr_time_now() < c->touched + 5 * SECOND + SECOND / 2) {
        apr_sleep(100000);
    }
    for (i = 0; i < 100 && get(c, shorter, &v) == APR_SUCCESS; i++) {
        apr_sleep(100000);
    }
    ok(i < 100, "one is over");
    ok(get(c, small, &v) == APR_SUCCESS && value_is(v, "small", 5), "the small one lives");
    ok(get(c, large, &v) == APR_SUCCESS && v.data.len == TOUCHED_SIZE && strspn(apr_pstrmemdup(c->p, v.data.data, v.data.len), "b") == TOUCHED_SIZE,
       "and the large one, in all its parts");

    ok(on_node(c, 0, large, &whole, NULL, NULL) == APR_SUCCESS && ha_envelope_read(&whole, large, &env, &why) == APR_SUCCESS
       && (env.parts > 0) == parts, parts ? "it is in parts" : "it is in one piece");
    if (parts) {
        ok(on_node(c, 0, large, NULL, NULL, apr_psprintf(c->p, "%s.%016" APR_UINT64_T_HEX_FMT ".1", large, env.writer)) == APR_SUCCESS
           && touch(c, large, 1, 7, apr_time_now() + 90 * SECOND) == APR_NOTFOUND, "one part is lost: no copy any more");
    }
    ok(on_node(c, 0, small, &whole, NULL, NULL) == APR_SUCCESS && on_node(c, 0, small, NULL, NULL, small) == APR_SUCCESS
       && touch(c, small, 1, 7, apr_time_now() + 90 * SECOND) == APR_NOTFOUND, "a node has forgotten its copy: it is to be put");
    ok(on_node(c, 0, small, NULL, &whole, NULL) == APR_SUCCESS && touch(c, small, 1, 7, apr_time_now() + 90 * SECOND) == APR_SUCCESS, "it has it again");
}

/* Of a copy whose envelope says that it was over long ago: it has been touched. */
static void repair_of_touched(contract *c)
{
    const char *key = test_key(c->p, "ha:b", 24);
    const ha_blob text = { "touched", 7 };
    ha_envelope env;
    ha_blob whole;
    ha_value v;
    int i;

    if (c->row->copies < 2 || c->store->provider->touch == NULL) {
        return;
    }
    memset(&env, 0, sizeof(env));
    env.version.epoch = env.version.seq = env.writer = 1;
    env.expires = apr_time_now() - 3600 * SECOND;
    ha_copy_seal(&env, key, &text, c->p, &whole);
    ok(on_node(c, 1, key, NULL, &whole, NULL) == APR_SUCCESS && get(c, key, &v) == APR_SUCCESS && value_is(v, "touched", 7),
       "a copy that was touched, on the second node only");
    for (i = 0; i < 100 && on_node(c, 0, key, &whole, NULL, NULL) != APR_SUCCESS; i++) {
        apr_sleep(50000);
    }
    ok(i < 100, "is repaired on the first");
}

static void add_and_remove(contract *c)
{
    const char *key = test_key(c->p, "ha:c", 8);
    ha_call call = { c->p, 0, NULL };
    ha_value v, first = value_of("first", 5, 3, 0), second = value_of("second", 6, 3, 0);

    ok(ha_store_remove(c->store, &call, key, NULL) == APR_SUCCESS, "remove what is not there");
    ok(ha_store_add(c->store, &call, key, &first, apr_time_now() + 60 * SECOND, &v, NULL) == APR_SUCCESS, "add");
    ok(ha_store_add(c->store, &call, key, &second, apr_time_now() + 60 * SECOND, &v, NULL) == APR_EEXIST
       && value_is(v, "first", 5) && v.version.epoch == 3, "add again: what is there is given back");
    ok(ha_store_add(c->store, &call, key, &first, apr_time_now() + 60 * SECOND, &v, NULL) == APR_EEXIST, "and the same value has no second winner");
    ok(get(c, key, &v) == APR_SUCCESS && value_is(v, "first", 5), "nothing was changed");
    ok(ha_store_remove(c->store, &call, key, NULL) == APR_SUCCESS && get(c, key, &v) == APR_NOTFOUND, "remove");
    ok(ha_store_add(c->store, &call, key, &second, apr_time_now() + 60 * SECOND, &v, NULL) == APR_SUCCESS
       && get(c, key, &v) == APR_SUCCESS && value_is(v, "second", 6), "add after remove");
}

static void bad_keys(contract *c)
{
    static const char *const bad[] = { "", "a b", "a\nb", "a\r\nflush_all", "a\x7f", "\xc3\xa4", NULL };
    char longest[HA_STORE_KEY_MAX + 2];
    ha_call call = { c->p, 0, NULL };
    ha_value v, w = value_of("x", 1, 1, 1);
    int i;

    for (i = 0; bad[i]; i++) {
        ok(ha_store_put(c->store, &call, bad[i], &w, 0, NULL) == APR_EINVAL && ha_store_get(c->store, &call, bad[i], &v, NULL) == APR_EINVAL
           && ha_store_add(c->store, &call, bad[i], &w, 0, &v, NULL) == APR_EINVAL && ha_store_remove(c->store, &call, bad[i], NULL) == APR_EINVAL,
           "bad key %d never reaches a node", i);
    }
    memset(longest, 'k', sizeof(longest));
    longest[HA_STORE_KEY_MAX] = '\0';
    ok(ha_store_put(c->store, &call, longest, &w, 0, NULL) == APR_SUCCESS && get(c, longest, &v) == APR_SUCCESS, "the longest key");
    longest[HA_STORE_KEY_MAX] = 'k';
    longest[HA_STORE_KEY_MAX + 1] = '\0';
    ok(ha_store_put(c->store, &call, longest, &w, 0, NULL) == APR_EINVAL, "one more is refused");
}

/* What lies in the store is not ours, or damaged: on every node, so that there is no good copy. */
static void garbage(contract *c)
{
    unsigned char sealed[HA_ENVELOPE_LEN + 5];
    struct { const char *what; ha_blob bytes; } bad[9];
    const char *key = test_key(c->p, "ha:b", 9);
    ha_envelope env, list;
    ha_value v, w = value_of("good again", 10, 9, 9);
    unsigned char *copy;
    int i, n = 0, node;

    memset(&env, 0, sizeof(env));
    env.kind = HA_ENVELOPE_VALUE;
    env.version.epoch = env.version.seq = 7;
    env.length = 5;
    memcpy(sealed + HA_ENVELOPE_LEN, "state", 5);
    ha_envelope_write(sealed, &env, key, "state");
#define BAD(text, ptr, length) (bad[n].what = (text), bad[n].bytes.data = (ptr), bad[n++].bytes.len = (length))
    BAD("foreign text", "hello", 5);
    BAD("nothing at all", "", 0);
    BAD("a head cut short", sealed, HA_ENVELOPE_LEN - 1);
    BAD("a value cut short", sealed, sizeof(sealed) - 1);
    copy = apr_pmemdup(c->p, sealed, sizeof(sealed));
    copy[HA_ENVELOPE_LEN + 2] ^= 1;
    BAD("one bit of the value", copy, sizeof(sealed));
    copy = apr_pmemdup(c->p, sealed, sizeof(sealed));
    copy[15] ^= 1;
    BAD("one bit of the version", copy, sizeof(sealed));
    copy = apr_pmemdup(c->p, sealed, sizeof(sealed));
    copy[2] = 2;
    BAD("a later format", copy, sizeof(sealed));
    copy = apr_pmemdup(c->p, sealed, sizeof(sealed));
    ha_envelope_write(copy, &env, test_key(c->p, "ha:b", 10), "state");
    BAD("another key's value", copy, sizeof(sealed));
    list = env;
    list.kind = HA_ENVELOPE_PARTS;
    list.parts = 4000;
    list.length = APR_UINT64_C(1) << 62;
    copy = apr_palloc(c->p, HA_ENVELOPE_LEN);
    {
        ha_envelope empty = list;

        empty.length = 0;
        ha_envelope_write(copy, &empty, key, "");
        copy[32] = 0x40;
    }
    BAD("a list of parts that asks for all memory", copy, HA_ENVELOPE_LEN);

    for (i = 0; i < n; i++) {
        ha_call call = { c->p, apr_time_now() + TIMEOUT, NULL };
        apr_status_t rv = APR_SUCCESS;

        for (node = 0; node < c->store->nnodes && rv == APR_SUCCESS; node++) {
            rv = c->store->provider->put(c->store->nodes[node].at, &call, key, &bad[i].bytes, 0);
        }
        call.deadline = 0;
        ok(rv == APR_SUCCESS && (rv = ha_store_get(c->store, &call, key, &v, NULL)) != APR_SUCCESS && rv != APR_NOTFOUND && call.why,
           "%s: broken, neither found nor absent (%s)", bad[i].what, call.why ? call.why : "");
    }
    {
        ha_call call = { c->p, 0, NULL };

        ok(ha_store_add(c->store, &call, key, &w, 0, &v, NULL) == APR_SUCCESS && get(c, key, &v) == APR_SUCCESS && value_is(v, "good again", 10),
           "an add over a broken value wins");
    }
    for (node = 0, i = 0; node < c->store->nnodes; node++) {
        ha_store_facts facts;

        ha_store_node_facts(c->store, node, c->p, &facts);
        i += strcmp(facts.state, "up") == 0 && facts.errors >= (apr_uint64_t)n;
    }
    ok(i == c->store->nnodes, "such errors are counted, and no node is held for down");
}

/* A claim, and what lies beside it. */
static void claim_and_fetch(contract *c)
{
    const char *claim = test_key(c->p, "ha:c", 60), *odd = test_key(c->p, "ha:b", 60), *even = test_key(c->p, "ha:e", 60);
    int steps = c->nurls == 1 ? 1 : c->row->copies > 1 ? c->row->copies : 2, node;
    apr_size_t large = 2 * 1024 * 1024 + 5;
    char *big = malloc(large);
    ha_blob bad = { "not ours", 8 };
    ha_call call = { c->p, 0, NULL };
    ha_found both[2] = { { .key = odd }, { .key = even } };
    ha_value v, first = value_of("first", 5, 2, 0), second = value_of("second", 6, 2, 0), w;
    ha_store_trace trace;
    apr_status_t rv;

    memset(big, 'b', large);
    ok(ha_store_claim(c->store, &call, claim, &first, apr_time_now() + 60 * SECOND, &v, both, 2, &trace) == APR_SUCCESS
       && both[0].rv == APR_NOTFOUND && both[1].rv == APR_NOTFOUND, "claim: won, and nothing beside it");
    ok(trace.trips == steps * c->row->trips, "in %d round trips (%d)", steps * c->row->trips, trace.trips);
    ok(get(c, claim, &v) == APR_SUCCESS && value_is(v, "first", 5), "the claim is there");
    ok(put_text(c, odd, "the newest", 1, 7, apr_time_now() + 60 * SECOND) == APR_SUCCESS, "one is put beside it");
    ok(ha_store_claim(c->store, &call, claim, &second, apr_time_now() + 60 * SECOND, &v, both, 2, &trace) == APR_EEXIST
       && value_is(v, "first", 5) && v.version.epoch == 2, "claimed again: what is there is given back");
    ok(both[0].rv == APR_SUCCESS && value_is(both[0].value, "the newest", 10) && both[0].value.version.seq == 7 && both[0].node
       && both[1].rv == APR_NOTFOUND, "with what lies beside it");
    ok(trace.trips == steps * c->row->trips, "in %d round trips, too (%d)", steps * c->row->trips, trace.trips);
    w = value_of(big, large, 2, 8);
    rv = ha_store_put(c->store, &call, even, &w, apr_time_now() + 60 * SECOND, NULL);
    ok(rv == APR_SUCCESS && ha_store_claim(c->store, &call, test_key(c->p, "ha:d", 60), &second, 0, &v, both, 2, &trace) == APR_SUCCESS
       && value_is(both[0].value, "the newest", 10) && both[1].rv == APR_SUCCESS && value_is(both[1].value, big, large) && both[1].value.version.seq == 8,
       "another claim: both are found, the one of 2 MB whole");
    ok(trace.trips >= steps * c->row->trips && (c->store->provider->chunk == 0 || trace.trips > steps * c->row->trips), "what was cut has cost more trips (%d)", trace.trips);
    ok(ha_store_look(c->store, &call, both, 2, &trace) == APR_SUCCESS && value_is(both[0].value, "the newest", 10) && value_is(both[1].value, big, large),
       "both are looked at");
    ok(ha_store_put(c->store, &call, even, &second, 0, NULL) == APR_SUCCESS && ha_store_look(c->store, &call, both, 2, &trace) == APR_SUCCESS
       && value_is(both[1].value, "second", 6) && trace.trips == 1, "in one round trip (%d)", trace.trips);

    for (node = 0, rv = APR_SUCCESS; node < c->store->nnodes && rv == APR_SUCCESS; node++) {
        call.deadline = apr_time_now() + TIMEOUT;
        rv = c->store->provider->put(c->store->nodes[node].at, &call, odd, &bad, 0);
    }
    call.deadline = 0;
    ok(rv == APR_SUCCESS && ha_store_claim(c->store, &call, test_key(c->p, "ha:f", 60), &first, 0, &v, both, 2, NULL) == APR_SUCCESS
       && both[0].rv != APR_SUCCESS && both[0].rv != APR_NOTFOUND && value_is(both[1].value, "second", 6), "one of them is broken: the claim and the other are not");
    for (node = 0, rv = APR_SUCCESS; node < c->store->nnodes && rv == APR_SUCCESS; node++) {
        call.deadline = apr_time_now() + TIMEOUT;
        rv = c->store->provider->put(c->store->nodes[node].at, &call, claim, &bad, 0);
    }
    call.deadline = 0;
    ok(rv == APR_SUCCESS && put_text(c, odd, "good again", 3, 1, 0) == APR_SUCCESS
       && ha_store_claim(c->store, &call, claim, &second, 0, &v, both, 2, NULL) == APR_SUCCESS && value_is(both[0].value, "good again", 10)
       && value_is(both[1].value, "second", 6) && get(c, claim, &v) == APR_SUCCESS && value_is(v, "second", 6), "a claim over a broken value wins");
    w = value_of(big, large, 3, 0);
    ok(ha_store_claim(c->store, &call, test_key(c->p, "ha:g", 60), &w, 0, &v, both, 2, NULL) == APR_SUCCESS && value_is(both[0].value, "good again", 10)
       && ha_store_claim(c->store, &call, test_key(c->p, "ha:g", 60), &first, 0, &v, both, 1, NULL) == APR_EEXIST && value_is(v, big, large)
       && value_is(both[0].value, "good again", 10), "a claim of 2 MB is one, too");
    both[1].key = "no key";
    ok(ha_store_claim(c->store, &call, test_key(c->p, "ha:h", 60), &first, 0, &v, both, 2, NULL) == APR_EINVAL && both[0].rv != APR_SUCCESS && both[1].rv != APR_SUCCESS
       && get(c, test_key(c->p, "ha:h", 60), &v) == APR_NOTFOUND && ha_store_look(c->store, &call, both, 2, NULL) == APR_EINVAL, "a bad key beside it: nothing is claimed");
    free(big);
}

static void counted(contract *c)
{
    ha_store_facts facts;
    apr_uint64_t gets = 0, hits = 0, puts = 0, adds = 0, ops = 0;
    int i, j, timeouts = 0;

    for (i = 0; i < ha_store_nodes(c->store); i++) {
        ha_store_node_facts(c->store, i, c->p, &facts);
        gets += facts.gets;
        hits += facts.hits;
        puts += facts.puts;
        adds += facts.adds;
        timeouts += (int)facts.timeouts;
        for (j = 0; j < HA_STORE_BUCKETS; j++) {
            ops += facts.ops[j];
        }
        ok(facts.p50_us > 0 && facts.p50_us <= facts.p99_us, "%s: p50 %d us, p99 %d us", facts.node, (int)facts.p50_us, (int)facts.p99_us);
    }
    ok(gets > 0 && hits > 0 && puts > 0 && adds > 0 && ops > gets && timeouts == 0, "all of it was counted");
}

/* What an application keeps itself, without an envelope: put there past the module. */
static int application_puts(contract *c, int node, const char *name, const char *bytes)
{
    ha_call call = { c->p, apr_time_now() + TIMEOUT, NULL };
    ha_blob value = { bytes, strlen(bytes) };
    FILE *f;

    if (ha_store_names(c->store) != HA_NAME_FILE) {
        return c->store->provider->put(c->store->nodes[node].at, &call, name, &value, 0) == APR_SUCCESS;
    }
    f = fopen(apr_pstrcat(c->p, strchr(c->urls[node], '/'), "/", name, NULL), "w");
    return f && fwrite(bytes, 1, value.len, f) == value.len && fclose(f) == 0;
}

static ha_name name_of(contract *c, const char *text)
{
    ha_name name = { text, 0, 0, { NULL } };

    if (ha_store_names(c->store) == HA_NAME_SELECT) {
        name.text = "SELECT 1 FROM session_ha WHERE k = %s AND 'a%%b' LIKE 'a%%'";
        name.args[name.nargs++] = text;
    }
    return name;
}

static apr_status_t has(contract *c, const ha_name *names, int n, const char **why)
{
    ha_call call = { c->p, 0, NULL };
    ha_ask *ask;
    apr_status_t rv = ha_store_has_begin(&ask, c->store, &call, names, n);

    if (rv == APR_SUCCESS) {
        rv = ha_store_has_end(ask);
    }
    *why = call.why ? call.why : "";
    return rv;
}

static void native(contract *c)
{
    ha_name_kind kind = ha_store_names(c->store);
    ha_name names[2];
    const char *why = "";
    apr_status_t rv;

    if (kind == HA_NAME_NONE) {
        ok(c->store->provider->has == NULL, "no application keeps its own here");
        return;
    }
    names[0] = name_of(c, "native-there");
    names[1] = name_of(c, "native-more");
    ok(has(c, names, 2, &why) == APR_NOTFOUND, "an application's own: not there %s", why);
    ok(application_puts(c, c->nurls - 1, "native-there", "x") && has(c, names, 1, &why) == APR_SUCCESS, "there, on one node, and no envelope is asked for %s", why);
    names[0] = name_of(c, "native-not");
    ok(has(c, names, 2, &why) == APR_NOTFOUND, "not there under two names");
    ok(application_puts(c, 0, "native-more", "") && has(c, names, 2, &why) == APR_SUCCESS, "there under the second, without a byte %s", why);
    names[0] = name_of(c, "native-there");
    names[0].least = 2;
    if (kind == HA_NAME_FILE || strstr(c->store->provider->name, "memcached")) {
        ok(has(c, names, 1, &why) == APR_NOTFOUND, "with less bytes than a session has: not there");
    }
    if (kind == HA_NAME_FILE) {
        names[0] = name_of(c, "not-mounted/native-there");
        rv = has(c, names, 1, &why);
        ok(rv != APR_SUCCESS && rv != APR_NOTFOUND && strstr(why, "not-mounted") && !strstr(why, "native-there"),
           "without its directory nobody knows, and the name is not told: %s", why);
        names[0] = name_of(c, apr_pstrcat(c->p, strchr(c->urls[c->nurls - 1], '/'), "/native-there", NULL));
        ok(has(c, names, 1, &why) == APR_SUCCESS, "there, by its whole path %s", why);
        names[0] = name_of(c, server_dir());
        ok(has(c, names, 1, &why) == APR_NOTFOUND, "a directory is no session");
    }
    if (kind == HA_NAME_SELECT) {
        names[0] = name_of(c, "x' OR '1' = '1");
        ok(has(c, names, 1, &why) == APR_NOTFOUND, "an argument is an argument %s", why);
        names[0].text = "SELECT 1 FROM no_such_table WHERE k = %s";
        rv = has(c, names, 1, &why);
        ok(rv != APR_SUCCESS && rv != APR_NOTFOUND && strstr(why, "no_such_table") && !strstr(why, "OR '1'"), "a table that is not there: broken (%s)", why);
        names[0] = name_of(c, "native-there");
        ok(has(c, names, 1, &why) == APR_SUCCESS, "and the connection is as good as before %s", why);
    }
}

static void one_child(void *baton)
{
    contract *c = baton;
    apr_pool_t *pchild = store_child(c->store, c->p);

    found_and_absent(c);
    every_byte(c);
    sizes(c);
    touching(c);
    expiry(c);
    touched(c);
    repair_of_touched(c);
    add_and_remove(c);
    bad_keys(c);
    native(c);
    garbage(c);
    claim_and_fetch(c);
    counted(c);
    apr_pool_destroy(pchild);
}

static void adder(void *baton)
{
    contract *c = baton;
    apr_pool_t *pchild = store_child(c->store, c->p), *p;
    int i;

    apr_pool_create(&p, c->p);
    for (i = 0; i < KEYS; i++) {
        ha_call call = { p, 0, NULL };
        int me = c->nth + 1;
        ha_value v, w = value_of(&me, sizeof(me), 2, 0);
        apr_status_t rv = ha_store_add(c->store, &call, test_key(p, "ha:c", 1000 + i), &w, apr_time_now() + 60 * SECOND, &v, NULL);

        if (rv == APR_SUCCESS) {
            __sync_fetch_and_add(&c->wins[i], 1);
            c->owners[c->nth * KEYS + i] = me;
        }
        else if (rv == APR_EEXIST && v.data.len == sizeof(me)) {
            memcpy(&c->owners[c->nth * KEYS + i], v.data.data, sizeof(me));
        }
        apr_pool_clear(p);
    }
    apr_pool_destroy(pchild);
}

static void several_processes(contract *c)
{
    pid_t pids[ADDERS];
    int i, j, winners = 0, agreed = 0, clean = 0, status;

    c->owners = shared_memory(ADDERS * KEYS * sizeof(int));
    c->wins = shared_memory(KEYS * sizeof(int));
    fflush(stdout);
    for (i = 0; i < ADDERS; i++) {
        c->nth = i;
        if ((pids[i] = fork()) == 0) {
            adder(c);
            _exit(0);
        }
    }
    for (i = 0; i < ADDERS; i++) {
        clean += waitpid(pids[i], &status, 0) == pids[i] && status == 0;
    }
    for (i = 0; i < KEYS; i++) {
        winners += c->wins[i] == 1;
        for (j = 1; j < ADDERS && c->owners[i] && c->owners[j * KEYS + i] == c->owners[i]; j++)
            ;
        agreed += j == ADDERS;
    }
    ok(clean == ADDERS && winners == KEYS, "%d processes adding: %d of %d keys have one winner", ADDERS, winners, KEYS);
    ok(agreed == KEYS, "and all processes were told of the same one");
}

/* ---- the stores -------------------------------------------------------------- */

static ha_server servers[3];

static int start_lmdb(apr_pool_t *p, const char **urls)
{
    urls[0] = apr_pstrcat(p, "lmdb:", server_dir(), "/lmdb", NULL);
    return 1;
}

static int start_memcached(apr_pool_t *p, const char **urls)
{
    server_memcached(&servers[0], p, NULL);
    urls[0] = servers[0].url;
    return 1;
}

static int start_memcached3(apr_pool_t *p, const char **urls)
{
    int i;

    for (i = 0; i < 3; i++) {
        server_memcached(&servers[i], p, NULL);
        urls[i] = servers[i].url;
    }
    return 3;
}

static int start_libmemcached(apr_pool_t *p, const char **urls)
{
    start_memcached(p, urls);
    urls[0] = apr_pstrcat(p, "lib", urls[0], NULL);
    return 1;
}

static int start_libmemcached_sasl(apr_pool_t *p, const char **urls)
{
    server_memcached_sasl(&servers[0], p);
    urls[0] = servers[0].url;
    return 1;
}

static int start_libmemcached3(apr_pool_t *p, const char **urls)
{
    int i, n = start_memcached3(p, urls);

    for (i = 0; i < n; i++) {
        urls[i] = apr_pstrcat(p, "lib", urls[i], NULL);
    }
    return n;
}

#ifdef HAVE_HIREDIS
static int start_redis(apr_pool_t *p, const char **urls)
{
    server_redis(&servers[0], p, "pass%word", NULL);
    /* the sign is percent-encoded, as in any URL */
    urls[0] = apr_psprintf(p, "redis://:pass%%25word@127.0.0.1:%d/3", servers[0].port);
    return 1;
}

static int start_redis3(apr_pool_t *p, const char **urls)
{
    int i;

    for (i = 0; i < 3; i++) {
        server_redis(&servers[i], p, NULL, NULL);
        urls[i] = servers[i].url;
    }
    return 3;
}

#endif

static int start_file(apr_pool_t *p, const char **urls)
{
    urls[0] = apr_pstrcat(p, "file:", server_dir(), "/files", NULL);
    return 1;
}

static int start_file2(apr_pool_t *p, const char **urls)
{
    urls[0] = apr_pstrcat(p, "file:", server_dir(), "/files1", NULL);
    urls[1] = apr_pstrcat(p, "file:", server_dir(), "/files2", NULL);
    return 2;
}

static int start_sqlite(apr_pool_t *p, const char **urls)
{
    urls[0] = apr_pstrcat(p, "dbd:sqlite3,", server_dir(), "/sqlite/sessions.db", NULL);
    return 1;
}

static int start_mariadb(apr_pool_t *p, const char **urls)
{
    server_mariadb(&servers[0], p);
    urls[0] = servers[0].url;
    return 1;
}

static int start_postgres(apr_pool_t *p, const char **urls)
{
    server_postgres(&servers[0], p);
    urls[0] = servers[0].url;
    return 1;
}

static void stop_servers(void)
{
    int i;

    for (i = 0; i < 3; i++) {
        server_kill(&servers[i]);
    }
}

static const contract_row rows[] = {
    { "lmdb", 1, 1, start_lmdb, NULL },
    { "memcached", 1, 1, start_memcached, stop_servers },
    { "memcached, 2 copies on 3 nodes", 2, 1, start_memcached3, stop_servers },
    { "libmemcached", 1, 1, start_libmemcached, stop_servers },
    { "libmemcached, SASL", 1, 2, start_libmemcached_sasl, stop_servers },
    { "libmemcached, 2 copies on 3 nodes", 2, 1, start_libmemcached3, stop_servers },
    { "file", 1, 1, start_file, NULL },
    { "file, 2 copies on 2 nodes", 2, 1, start_file2, NULL },
    { "dbd:sqlite3", 1, 2, start_sqlite, NULL },
    { "dbd:mysql (MariaDB)", 1, 2, start_mariadb, stop_servers },
    { "dbd:pgsql (PostgreSQL)", 1, 2, start_postgres, stop_servers },
#ifdef HAVE_HIREDIS
    { "redis", 1, 1, start_redis, stop_servers },
    { "redis, 2 copies on 3 nodes", 2, 1, start_redis3, stop_servers },
#endif
};

int main(int argc, char **argv)
{
    size_t i;

    apr_initialize();
    signal(SIGPIPE, SIG_IGN);
    alarm(300);
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        contract c;

        if (argc > 1 && strncmp(argv[1], rows[i].name, strlen(argv[1])) != 0) {
            continue;
        }
        printf("# ---- %s\n", rows[i].name);
        memset(&c, 0, sizeof(c));
        c.row = &rows[i];
        apr_pool_create(&c.p, NULL);
        c.nurls = rows[i].start(c.p, c.urls);
        c.store = store_of(c.p, rows[i].copies, TIMEOUT, c.nurls, c.urls);
        ok(in_child(one_child, &c) == 0, "%s: the child ended well", rows[i].name);
        several_processes(&c);
        if (rows[i].stop) {
            rows[i].stop();
        }
        apr_pool_destroy(c.p);
    }
    i = (size_t)tap_done();
    apr_terminate();
    return (int)i;
}
