/* store_claims_test.c - one winner, though nodes come and go: several processes claim the same keys at the same
 * moment, over three memcacheds with two copies, while one node after the other is killed and started empty.
 *
 * The processes go from key to key together (a barrier in shared memory), so that at most one restart falls
 * into one key's life: at any moment one node that holds its claim is alive, and there must be one winner
 * that all have been told of. */
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <apr_general.h>
#include <apr_strings.h>

#include "store/store_nodes.h"
#include "store_servers.h"

#define SECOND    APR_USEC_PER_SEC
#define NODES     3
#define ADDERS    3
#define KEYS      100000        /* at most */
#define RESTARTS  9

typedef struct board {          /* shared memory */
    volatile int at[ADDERS];    /* the key each is at */
    volatile int last;          /* where to stop */
    int owner[ADDERS][KEYS];    /* whom each found to own the key */
    int wins[KEYS];
    int broken[ADDERS];
} board;

static apr_pool_t *p;
static ha_server servers[NODES];
static ha_store *store;
static board *b;

static void wait_for_all(int i)
{
    int other;

    for (other = 0; other < ADDERS; other++) {
        while (b->at[other] < i) {
            usleep(10);
        }
    }
}

/* Until it has an answer: a node that is down for everybody is soon known to be. */
static int claim(int me, int i, apr_pool_t *pool)
{
    ha_call call = { pool, 0, NULL };
    ha_value v, mine = { { &me, sizeof(me) }, { 1, 0 } };
    apr_status_t rv = APR_EGENERAL;
    int tries;

    for (tries = 0; tries < 50; tries++) {
        call.deadline = 0;
        rv = ha_store_add(store, &call, test_key(pool, "ha:c", 5000 + i), &mine, apr_time_now() + 600 * SECOND, &v, NULL);
        if (rv == APR_SUCCESS) {
            return me;
        }
        if (rv == APR_EEXIST && v.data.len == sizeof(me)) {
            memcpy(&me, v.data.data, sizeof(me));
            return me;
        }
        b->broken[me - 1]++;
    }
    printf("# %d %s\n", rv, call.why ? call.why : "");
    return 0;
}

static void adder(int nth)
{
    apr_pool_t *pchild = store_child(store, p), *pool;
    int i, owner;

    apr_pool_create(&pool, p);
    for (i = 0; i < b->last; i++) {
        b->at[nth] = i;
        wait_for_all(i);
        if (nth > 0 && i % 4 == 0) {
            usleep((useconds_t)(i % 300));  /* not always all in the same microsecond */
        }
        owner = claim(nth + 1, i, pool);
        b->owner[nth][i] = owner;
        if (owner == nth + 1) {
            __sync_fetch_and_add(&b->wins[i], 1);
        }
        ha_store_tend(store, pool, apr_time_now());
        apr_pool_clear(pool);
    }
    apr_pool_destroy(pchild);
}

int main(void)
{
    const char *urls[NODES];
    pid_t pids[ADDERS], parent = getpid();
    int i, j, keys, from, status, clean = 0, agreed = 0, winners = 0, restarts, failed = 0;
    ha_store_facts facts;

    apr_initialize();
    signal(SIGPIPE, SIG_IGN);
    alarm(300);
    apr_pool_create(&p, NULL);
    for (i = 0; i < NODES; i++) {
        server_memcached(&servers[i], p, NULL);
        urls[i] = servers[i].url;
    }
    store = store_of(p, 2, 2 * SECOND, NODES, urls);
    b = shared_memory(sizeof(*b));
    b->last = KEYS;
    fflush(stdout);
    for (i = 0; i < ADDERS; i++) {
        if ((pids[i] = fork()) == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != parent) {
                _exit(125);
            }
            adder(i);
            fflush(stdout);
            _exit(0);
        }
    }
    for (restarts = 0; restarts < RESTARTS; restarts++) {
        int node = restarts % NODES;

        server_kill(&servers[node]);
        server_start(&servers[node]);
        /* Everybody is some keys further before the next one dies, and the node in use again. */
        from = b->at[0];
        for (j = 0; j < 10000; j++) {
            ha_store_node_facts(store, node, p, &facts);
            if (b->at[0] >= from + 20 && strcmp(facts.state, "down") != 0) {
                break;
            }
            usleep(1000);
        }
    }
    b->last = b->at[0] + 20 < KEYS ? b->at[0] + 20 : KEYS;      /* nobody is more than one key ahead */
    for (i = 0; i < ADDERS; i++) {
        clean += waitpid(pids[i], &status, 0) == pids[i] && status == 0;
        failed += b->broken[i];
    }
    keys = b->last;
    ok(clean == ADDERS, "%d processes claimed %d keys while nodes were restarted %d times (%d calls failed and were repeated)", ADDERS, keys,
       restarts, failed);
    for (i = 0; i < keys; i++) {
        winners += b->wins[i] == 1;
        for (j = 1; j < ADDERS && b->owner[0][i] && b->owner[j][i] == b->owner[0][i]; j++)
            ;
        agreed += j == ADDERS;
        if ((b->wins[i] != 1 || j != ADDERS) && i - winners < 5) {
            printf("# key %d: %d winners; told %d %d %d\n", i, b->wins[i], b->owner[0][i], b->owner[1][i], b->owner[2][i]);
        }
    }
    ok(keys > 100, "there were %d keys", keys);
    ok(winners == keys, "%d of %d keys have one winner", winners, keys);
    ok(agreed == keys, "%d of %d times all were told of the same one", agreed, keys);
    for (i = 0; i < NODES; i++) {
        server_kill(&servers[i]);
    }
    i = tap_done();
    apr_terminate();
    return i;
}
