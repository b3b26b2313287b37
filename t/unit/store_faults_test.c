/* store_faults_test.c - nodes that hang, die, come back empty or with old data: real servers, stopped and
 * killed, through every provider that has some. Nothing is timed: that a call did not wait is seen from the counters and from the server, which is
 * still stopped when the call has returned. */
#ifdef HAVE_CONFIG_H
#include "autoconf.h"
#endif

#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <apr_general.h>
#include <apr_strings.h>
#include <apr_thread_proc.h>

#include "store/store_nodes.h"
#include "store_servers.h"

#define SECOND  APR_USEC_PER_SEC
#define NODES   3

typedef struct faults_row {
    const char *name;
    int nodes;                  /* how many to start: 3, or 1 if that is much */
    int keeps;                  /* what it has survives its own kill -9 */
    int hangs;                  /* its calls have no time-out of their own: a thread hangs as long as the node does */
    void (*start)(ha_server *);
    void (*start_small)(ha_server *);   /* one that cannot take 700 KB */
} faults_row;

static const faults_row *row;
static apr_pool_t *p;
static ha_server servers[NODES];
static ha_store *one, *three, *direct[NODES];

static ha_call call_of(void)
{
    ha_call call = { p, 0, NULL };

    return call;
}

static apr_status_t put(ha_store *store, const char *key, const char *text, apr_uint64_t seq, ha_store_trace *trace)
{
    ha_call call = call_of();
    ha_value v = { { text, strlen(text) }, { 1, seq } };

    return ha_store_put(store, &call, key, &v, apr_time_now() + 600 * SECOND, trace);
}

static apr_status_t get(ha_store *store, const char *key, ha_value *v, ha_store_trace *trace)
{
    ha_call call = call_of();

    return ha_store_get(store, &call, key, v, trace);
}

static apr_status_t add(ha_store *store, const char *key, const char *text, ha_value *out)
{
    ha_call call = call_of();
    ha_value v = { { text, strlen(text) }, { 1, 0 } };

    return ha_store_add(store, &call, key, &v, apr_time_now() + 600 * SECOND, out, NULL);
}

static apr_status_t remove_(ha_store *store, const char *key)
{
    ha_call call = call_of();

    return ha_store_remove(store, &call, key, NULL);
}

static ha_store_facts facts_of(ha_store *store, int node)
{
    ha_store_facts facts;

    ha_store_node_facts(store, node, p, &facts);
    return facts;
}

static int is_state(ha_store *store, int node, const char *state)
{
    return strcmp(facts_of(store, node).state, state) == 0;
}

/* Tends until a node is not down any more. */
static int comes_up(ha_store *store, int node)
{
    int i;

    for (i = 0; i < 300 && is_state(store, node, "down"); i++) {
        ha_store_tend(store, p, apr_time_now());
        apr_sleep(100000);
    }
    return i < 300;
}

/* Bounded: what the background does must be done some time. */
static int holds_at_last(ha_store *store, const char *key, const char *text)
{
    ha_value v;
    int i;

    for (i = 0; i < 300; i++) {
        if (get(store, key, &v, NULL) == APR_SUCCESS && value_is(v, text, strlen(text))) {
            return 1;
        }
        apr_sleep(50000);
    }
    return 0;
}

static int is_stopped(const ha_server *server)
{
    char *path = apr_psprintf(p, "/proc/%d/stat", (int)server->pid), line[512] = "", *state;
    FILE *f = fopen(path, "r");

    if (f) {
        if (fgets(line, sizeof(line), f) == NULL) {
            line[0] = '\0';
        }
        fclose(f);
    }
    state = strrchr(line, ')');
    return state && state[2] == 'T';
}

/* ---- one node ------------------------------------------------------------------ */

static apr_status_t operation(int which, ha_store *store, const char *key)
{
    ha_value v;

    switch (which) {
    case 0:
        return get(store, key, &v, NULL);
    case 1:
        return put(store, key, "text", 1, NULL);
    case 2:
        return add(store, key, "text", &v);
    default:
        return remove_(store, key);
    }
}

static void a_stopped_node(void)
{
    static const char *const names[] = { "get", "put", "add", "remove" };
    const char *key = test_key(p, "ha:b", 1);
    ha_store_facts before, after;
    apr_status_t rv;
    int i, j;

    for (i = 0; i < 4; i++) {
        ok(operation(1, one, key) == APR_SUCCESS, "the node is well");
        server_stop(&servers[0]);
        before = facts_of(one, 0);
        rv = operation(i, one, key);
        ok(rv != APR_SUCCESS && rv != APR_NOTFOUND && rv != APR_EEXIST && is_stopped(&servers[0]),
           "%s: returns while the node is stopped, and does not pretend to know", names[i]);
        after = facts_of(one, 0);
        ok(after.timeouts == before.timeouts + 1 && strcmp(after.state, "down") == 0, "%s: one time-out, and the node is down", names[i]);
        for (j = 0; j < 100; j++) {
            rv = operation(i, one, key);
        }
        after = facts_of(one, 0);
        ok(rv != APR_SUCCESS && rv != APR_NOTFOUND && after.timeouts == before.timeouts + 1 && is_stopped(&servers[0]),
           "%s: a hundred more do not even ask it", names[i]);
        ok(ha_executor_stuck(one->executor, 0) == row->hangs || !row->hangs, "%s: one thread hangs, at most", names[i]);
        server_cont(&servers[0]);
        ok(comes_up(one, 0), "%s: continued: a probe finds it well", names[i]);
        for (j = 0; j < 300 && ha_executor_stuck(one->executor, 0) > 0; j++) {
            apr_sleep(50000);
        }
        ok(ha_executor_stuck(one->executor, 0) == 0, "%s: the thread is back", names[i]);
    }
    server_stop(&servers[0]);
    operation(0, one, key);
    ok(is_state(one, 0, "down"), "down again");
    server_cont(&servers[0]);
    for (j = 0; j < 300 && operation(1, one, key) != APR_SUCCESS; j++) {
        apr_sleep(50000);
    }
    ok(j < 300, "nobody tends: the requests themselves have it probed");
}

/* It was slow once and is well again, but nobody has probed it yet. */
static void held_for_down(void)
{
    const char *key = test_key(p, "ha:b", 2);
    ha_breaker *b = one->nodes[0].breaker;
    ha_call call = call_of();
    apr_uint64_t seen;
    ha_value v;

    ok(put(one, key, "text", 1, NULL) == APR_SUCCESS, "the node is well");
    ha_breaker_open(b, apr_time_now());
    ha_breaker_probe_due(b, apr_time_now(), SECOND, &seen);     /* somebody else's turn */
    ok(get(one, key, &v, NULL) != APR_SUCCESS && is_state(one, 0, "down"), "a node that is held for down is not asked");
    call.urgent = 1;
    ok(ha_store_get(one, &call, key, &v, NULL) == APR_SUCCESS && value_is(v, "text", 4), "but where it is urgent");
    ok(comes_up(one, 0), "and a probe finds it well");
}

static void *APR_THREAD_FUNC asker(apr_thread_t *thread, void *param)
{
    apr_pool_t *mine;
    ha_call call = { NULL, 0, NULL };
    ha_value v;

    apr_pool_create(&mine, NULL);
    call.pool = mine;
    ha_store_get(one, &call, param, &v, NULL);
    apr_pool_destroy(mine);
    return NULL;
}

static void ask_with_threads(int n, const char *key)
{
    apr_thread_t *threads[64];
    apr_status_t rv;
    int i;

    for (i = 0; i < n; i++) {
        apr_thread_create(&threads[i], NULL, asker, (void *)key, p);
    }
    for (i = 0; i < n; i++) {
        apr_thread_join(&rv, threads[i]);
    }
}

static void many_threads_on_a_stopped_node(void)
{
    const char *key = test_key(p, "ha:b", 2);
    int j;

    server_stop(&servers[0]);
    ask_with_threads(60, key);
    ok(is_stopped(&servers[0]) && is_state(one, 0, "down"), "sixty threads at once: all return while it is stopped");
    ok(ha_executor_stuck(one->executor, 0) >= row->hangs && ha_executor_stuck(one->executor, 0) <= HA_LANE_THREADS_MAX, "%d threads hang: bounded",
       ha_executor_stuck(one->executor, 0));
    server_cont(&servers[0]);
    ok(comes_up(one, 0) && put(one, key, "x", 1, NULL) == APR_SUCCESS, "and it is used again");
    for (j = 0; j < 300 && ha_executor_stuck(one->executor, 0) > 0; j++) {
        apr_sleep(50000);
    }
    ok(ha_executor_stuck(one->executor, 0) == 0, "all threads are back");
}

static void a_restarted_node(void)
{
    const char *key = test_key(p, "ha:b", 3);
    ha_store_facts before, after;
    ha_value v;
    int i, good = 0;

    put(one, key, "x", 1, NULL);
    ask_with_threads(30, key);      /* several pooled connections */
    comes_up(one, 0);               /* on a machine that is busy, thirty at once may have been too many for its time-out */
    before = facts_of(one, 0);
    server_kill(&servers[0]);
    server_start(&servers[0]);
    good += get(one, key, &v, NULL) == (row->keeps ? APR_SUCCESS : APR_NOTFOUND);
    good += add(one, key, "y", &v) == (row->keeps ? APR_EEXIST : APR_SUCCESS);
    good += remove_(one, key) == APR_SUCCESS;
    for (i = 0; i < 20; i++) {
        good += put(one, key, "y", 2, NULL) == APR_SUCCESS;
    }
    after = facts_of(one, 0);
    ok(good == 23 && after.errors == before.errors && is_state(one, 0, "up"), "restarted between two calls: dead connections cost no error (%d of 23)", good);

    server_kill(&servers[0]);
    ok(put(one, key, "z", 3, NULL) != APR_SUCCESS && is_state(one, 0, "down"), "refused: an error, and the node is down");
    after = facts_of(one, 0);
    ok(after.errors == before.errors + 1 && after.timeouts == before.timeouts, "counted as an error, not as a time-out");
    put(one, key, "z", 3, NULL);
    ok(facts_of(one, 0).errors == after.errors, "and not asked again");
    server_start(&servers[0]);
    ok(comes_up(one, 0) && put(one, key, "z", 3, NULL) == APR_SUCCESS, "started again: used again");
}

static void hang_and_end(void *baton)
{
    apr_pool_t *pchild = store_child(one, p);
    ha_value v;

    ok(get(one, test_key(p, "ha:b", 4), &v, NULL) != APR_SUCCESS && ha_executor_stuck(one->executor, 0) >= row->hangs, "a child with a thread that hangs");
    apr_pool_destroy(pchild);
}

static void a_child_ends(void)
{
    server_stop(&servers[0]);
    ok(in_child(hang_and_end, NULL) == 0 && is_stopped(&servers[0]), "ends while the node is still stopped");
    server_cont(&servers[0]);
}

static void item_limit(void)
{
    ha_server small;
    ha_store *store;
    apr_pool_t *pchild;
    ha_call call = call_of();
    char *big = calloc(1, 700 * 1024);
    ha_value v = { { big, 700 * 1024 }, { 1, 1 } };
    apr_status_t rv;

    row->start_small(&small);
    store = store_of(p, 1, 5 * SECOND, 1, &small.url);
    pchild = store_child(store, p);
    rv = ha_store_put(store, &call, test_key(p, "ha:b", 5), &v, 0, NULL);
    ok(rv == APR_ENOSPC && call.why, "larger than the node's own item limit: no space (%s)",
       call.why ? call.why : "");
    ok(is_state(store, 0, "up") && put(store, test_key(p, "ha:b", 5), "small", 1, NULL) == APR_SUCCESS, "and the node is well");
    apr_pool_destroy(pchild);
    server_kill(&small);
    free(big);
}

/* ---- three nodes, two copies ----------------------------------------------------- */

static int order[HA_STORE_NODES_MAX];

static const char *key_of(int n)
{
    const char *key = test_key(p, "ha:b", n);

    ha_store_order(three, key, order);
    return key;
}

static void all_up(void)
{
    int i;

    for (i = 0; i < NODES; i++) {
        if (!comes_up(three, i) || !comes_up(direct[i], 0)) {
            ok(0, "node %d does not come up", i);
        }
    }
}

static void a_placed_node_hangs(void)
{
    const char *key = key_of(100);
    ha_store_trace trace;
    ha_value v = { { "v2", 2 }, { 1, 2 } };
    ha_call call = call_of();

    ok(put(three, key, "v1", 1, &trace) == APR_SUCCESS && trace.copies == 2 && trace.trips == 1, "two copies, one trip");
    ok(get(direct[order[2]], key, &v, NULL) == APR_NOTFOUND, "none on the third node");
    server_stop(&servers[order[0]]);
    call.deadline = apr_time_now() + 2 * SECOND;
    ok(ha_store_put(three, &call, key, &v, apr_time_now() + 600 * SECOND, &trace) == APR_SUCCESS && trace.copies == 2 && trace.broken == 1,
       "the first hangs: two copies all the same");
    ok(apr_time_now() < call.deadline, "and nobody waits for a third");
    ok(get(direct[order[2]], key, &v, NULL) == APR_SUCCESS && value_is(v, "v2", 2), "the third node stands in");
    ok(put(three, key, "v3", 3, &trace) == APR_SUCCESS && trace.copies == 2 && trace.trips == 1, "the next one does not ask it");
    ok(get(three, key, &v, &trace) == APR_SUCCESS && value_is(v, "v3", 2) && trace.copies == 2, "read");
    server_cont(&servers[order[0]]);
    all_up();
    ok(get(three, key, &v, NULL) == APR_SUCCESS && value_is(v, "v3", 2), "it is back with old data: the newest wins");
    ok(holds_at_last(direct[order[0]], key, "v3"), "and the old copy is repaired");
}

static void back_with_old_data_alone(void)
{
    const char *key = key_of(101);
    ha_value v;

    put(three, key, "old", 1, NULL);
    server_stop(&servers[order[0]]);
    server_stop(&servers[order[1]]);
    ok(put(three, key, "new", 2, NULL) == APR_SUCCESS, "both placed nodes hang: the write finds the third");
    server_cont(&servers[order[0]]);
    server_cont(&servers[order[1]]);
    all_up();
    ok(get(three, key, &v, NULL) == APR_SUCCESS && value_is(v, "new", 3), "both are back with old copies: the one new copy wins");
    ok(holds_at_last(direct[order[0]], key, "new") && holds_at_last(direct[order[1]], key, "new"), "and both are repaired");
}

static void back_empty(void)
{
    const char *key = key_of(102);
    ha_value v;

    put(three, key, "kept", 1, NULL);
    server_kill(&servers[order[0]]);
    server_start(&servers[order[0]]);
    ok(get(three, key, &v, NULL) == APR_SUCCESS && value_is(v, "kept", 4), "a node is back empty: the other copy wins");
    ok(holds_at_last(direct[order[0]], key, "kept"), "and it is given its copy again");
    server_kill(&servers[order[1]]);
    server_start(&servers[order[1]]);
    ok(get(three, key, &v, NULL) == APR_SUCCESS && holds_at_last(direct[order[1]], key, "kept"), "then the other one: the repaired copy serves");
}

static void garbage_on_one(void)
{
    const char *key = key_of(103);
    ha_call call = { p, apr_time_now() + SECOND, NULL };
    ha_blob bad = { "not of this module, but long enough to be taken for something that it is not", 76 };
    ha_store_trace trace;
    ha_value v;

    put(three, key, "good", 1, NULL);
    three->provider->put(three->nodes[order[0]].at, &call, key, &bad, 0);
    ok(get(three, key, &v, &trace) == APR_SUCCESS && value_is(v, "good", 4) && trace.broken == 1, "garbage on one node: the good copy");
    ok(holds_at_last(direct[order[0]], key, "good"), "and it is repaired");
}

static void all_gone(void)
{
    const char *key = key_of(104);
    ha_store_trace trace;
    ha_call call = call_of();
    apr_status_t rv;
    ha_value v;
    int i;

    put(three, key, "x", 1, NULL);
    for (i = 0; i < NODES; i++) {
        server_kill(&servers[i]);
    }
    rv = ha_store_get(three, &call, key, &v, &trace);
    ok(rv != APR_SUCCESS && rv != APR_NOTFOUND && trace.broken == NODES && call.why, "all gone: broken, not \"not found\" (%s)", call.why);
    rv = add(three, key, "y", &v);
    ok(rv != APR_SUCCESS && rv != APR_EEXIST && put(three, key, "y", 2, NULL) != APR_SUCCESS && remove_(three, key) != APR_SUCCESS,
       "and nothing else is claimed either");
    for (i = 0; i < NODES; i++) {
        server_start(&servers[i]);
    }
    all_up();
    ok(get(three, key, &v, NULL) == APR_NOTFOUND, "all back, empty: not found");
    server_kill(&servers[order[2]]);
    rv = get(three, key, &v, NULL);
    ok(rv != APR_SUCCESS && rv != APR_NOTFOUND, "one cannot be asked: it might have it, so: broken");
    ok(remove_(three, key) == APR_INCOMPLETE, "and a removal is incomplete");
    server_start(&servers[order[2]]);
    all_up();
}

/* ---- claims ----------------------------------------------------------------------- */

static void claims(void)
{
    const char *key = key_of(200);
    ha_value v;

    ok(add(three, key, "mine", &v) == APR_SUCCESS, "claimed");
    server_kill(&servers[order[0]]);
    server_start(&servers[order[0]]);
    ok(add(three, key, "thine", &v) == APR_EEXIST && value_is(v, "mine", 4), "the first node forgot it: the claim stands");
    ok(holds_at_last(direct[order[0]], key, "mine"), "and the first node knows it again");
    server_kill(&servers[order[1]]);
    server_start(&servers[order[1]]);
    ok(add(three, key, "thine", &v) == APR_EEXIST && value_is(v, "mine", 4), "the second node forgot it: the claim stands");
    ok(get(direct[order[1]], key, &v, NULL) == APR_SUCCESS && value_is(v, "mine", 4), "and who lost has carried it there");

    key = key_of(201);
    server_stop(&servers[order[0]]);
    server_stop(&servers[order[1]]);
    get(three, key, &v, NULL);      /* both are found down */
    ok(add(three, key, "away", &v) == APR_SUCCESS, "claimed on the third node, the others being away");
    server_cont(&servers[order[0]]);
    server_cont(&servers[order[1]]);
    all_up();
    ok(add(three, key, "late", &v) == APR_EEXIST && value_is(v, "away", 4), "they are back, and know nothing: the claim stands");
    ok(holds_at_last(direct[order[0]], key, "away") && holds_at_last(direct[order[1]], key, "away"), "and all know it");

    key = key_of(202);
    server_stop(&servers[order[0]]);
    ok(add(three, key, "first", &v) == APR_SUCCESS, "the first node hangs: claimed all the same");
    ok(add(three, key, "second", &v) == APR_EEXIST && value_is(v, "first", 5), "once");
    server_cont(&servers[order[0]]);
    all_up();
    ok(add(three, key, "third", &v) == APR_EEXIST && value_is(v, "first", 5), "and when it is back");
}

static void all_faults(void *baton)
{
    const char *urls[NODES];
    apr_pool_t *pchildren[NODES + 2];
    int i;

    for (i = 0; i < row->nodes; i++) {
        row->start(&servers[i]);
        urls[i] = servers[i].url;
    }
    one = store_of(p, 1, row->keeps ? SECOND : SECOND / 2, 1, urls);
    a_child_ends();

    pchildren[0] = store_child(one, p);
    ok(is_state(one, 0, "down") && comes_up(one, 0), "the next child knows that it was down, and finds it well");
    a_stopped_node();
    held_for_down();
    many_threads_on_a_stopped_node();
    a_restarted_node();
    if (row->start_small) {
        item_limit();
    }
    if (row->nodes == 1) {
        apr_pool_destroy(pchildren[0]);
        server_kill(&servers[0]);
        return;
    }

    /* a time-out that is not meant would be a partition: time enough for a busy machine */
    three = store_of(p, 2, 2 * SECOND, NODES, urls);
    pchildren[1] = store_child(three, p);
    for (i = 0; i < NODES; i++) {
        direct[i] = store_of(p, 1, 2 * SECOND, 1, &urls[i]);
        pchildren[2 + i] = store_child(direct[i], p);
    }
    a_placed_node_hangs();
    back_with_old_data_alone();
    back_empty();
    garbage_on_one();
    all_gone();
    claims();
    for (i = 0; i < NODES + 2; i++) {
        apr_pool_destroy(pchildren[i]);
    }
    for (i = 0; i < NODES; i++) {
        server_kill(&servers[i]);
    }
}

static void memcached(ha_server *server)
{
    server_memcached(server, p, NULL);
}

static void small_memcached(ha_server *server)
{
    server_memcached(server, p, "-I512k");
}

static void libmemcached(ha_server *server)
{
    server_memcached(server, p, NULL);
    server->url = apr_pstrcat(p, "lib", server->url, NULL);
}

static void small_libmemcached(ha_server *server)
{
    server_memcached(server, p, "-I512k");
    server->url = apr_pstrcat(p, "lib", server->url, NULL);
}

#ifdef HAVE_HIREDIS
static void redis(ha_server *server)
{
    server_redis(server, p, NULL, NULL);
}

static void small_redis(ha_server *server)
{
    server_redis(server, p, NULL, "2200kb");
}

#endif

static void mariadb(ha_server *server)
{
    server_mariadb(server, p);
}

static const faults_row rows[] = {
    { "memcached", 3, 0, 1, memcached, small_memcached },
    { "libmemcached", 3, 0, 0, libmemcached, small_libmemcached },
#ifdef HAVE_HIREDIS
    { "redis", 3, 0, 0, redis, small_redis },
#endif
    { "dbd:mysql (MariaDB)", 1, 1, 1, mariadb, NULL },
};

int main(int argc, char **argv)
{
    size_t i;

    apr_initialize();
    signal(SIGPIPE, SIG_IGN);
    alarm(300);
    apr_pool_create(&p, NULL);
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (argc < 2 || strncmp(argv[1], rows[i].name, strlen(argv[1])) == 0) {
            printf("# ---- %s\n", rows[i].name);
            row = &rows[i];
            ok(in_child(all_faults, NULL) == 0, "%s: the process ended well", row->name);
        }
    }
    i = (size_t)tap_done();
    apr_terminate();
    return (int)i;
}
