/* store_claims_test.c - one winner, though nodes come and go: several processes claim the same keys at the same
 * moment, over three memcacheds with two copies, while one node after the other is killed and started empty. And one more
 * stores a backup beside each claim, as an httpd does that has not heard of it: it stores, and what it has stored
 * counts if no claim is there then. What counted must have been read by each who claimed. That over each kind of store.
 *
 * The processes go from key to key together (a barrier in shared memory), so that at most one restart falls
 * into one key's life: at any moment one node that holds its claim is alive, and there must be one winner
 * that all have been told of. */
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

#include "store/store_nodes.h"
#include "store_servers.h"

#define SECOND    APR_USEC_PER_SEC
#define NODES     3
#define ADDERS    3
#define KEYS      100000        /* at most */
#define RESTARTS  9
#define APART     300           /* keys, between two restarts */
#define QUIET     1500          /* keys, where nothing is restarted */

typedef struct board {          /* shared memory */
    volatile int at[ADDERS + 1];    /* the key each is at */
    volatile int last;          /* where to stop */
    int owner[ADDERS][KEYS];    /* whom each found to own the key */
    int wins[KEYS];
    int broken[ADDERS];
    int counts[KEYS];           /* the backup was stored, and no claim seen */
    int missed[ADDERS][KEYS];   /* the claimer was told that there is no backup */
} board;

static apr_pool_t *p;
static ha_server servers[NODES];
static ha_store *store;
static board *b;

static void wait_for_all(int i)
{
    int other;

    for (other = 0; other <= ADDERS; other++) {
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
    ha_found backup = { .key = test_key(pool, "ha:b", 5000 + i) };
    int tries, nth = me - 1;

    for (tries = 0; tries < 50; tries++) {
        call.deadline = 0;
        rv = ha_store_claim(store, &call, test_key(pool, "ha:c", 5000 + i), &mine, apr_time_now() + 600 * SECOND, &v, &backup, 1, NULL);
        b->missed[nth][i] = backup.rv == APR_NOTFOUND;
        if (rv == APR_SUCCESS) {
            return me;
        }
        if (rv == APR_EEXIST && v.data.len == sizeof(me)) {
            memcpy(&me, v.data.data, sizeof(me));
            return me;
        }
        b->broken[nth]++;
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
        if (i % 4 == 1) {
            usleep((useconds_t)(i * 7 % 600));  /* nor before the backup is stored */
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

static void writer(int nth)
{
    apr_pool_t *pchild = store_child(store, p), *pool;
    int i;

    apr_pool_create(&pool, p);
    for (i = 0; i < b->last; i++) {
        ha_call call = { pool, 0, NULL };
        ha_value v, backup = { { "backup", 6 }, { 1, 1 } };

        apr_status_t rv;

        if (i % 4 != 1) {
            b->at[nth] = i;
            wait_for_all(i);
        }
        if (i % 4 > 1) {
            usleep((useconds_t)(i % 300));
        }
        rv = ha_store_put(store, &call, test_key(pool, "ha:b", 5000 + i), &backup, apr_time_now() + 600 * SECOND, NULL);
        b->at[nth] = i;         /* some are there before anybody claims */
        if (rv == APR_SUCCESS) {
            call.deadline = 0;
            b->counts[i] = ha_store_get(store, &call, test_key(pool, "ha:c", 5000 + i), &v, NULL) != APR_SUCCESS;
        }
        apr_pool_clear(pool);
    }
    apr_pool_destroy(pchild);
}

/* ---- the stores -------------------------------------------------------------------------- */

static int start_memcacheds(const char **urls)
{
    int i;

    for (i = 0; i < NODES; i++) {
        server_memcached(&servers[i], p, NULL);
        urls[i] = servers[i].url;
    }
    return NODES;
}

static int start_libmemcached(const char **urls)
{
    server_memcached(&servers[0], p, NULL);
    urls[0] = apr_pstrcat(p, "lib", servers[0].url, NULL);
    return 1;
}

#ifdef HAVE_HIREDIS
static int start_redis(const char **urls)
{
    server_redis(&servers[0], p, NULL, NULL);
    urls[0] = servers[0].url;
    return 1;
}
#endif

static int start_lmdb(const char **urls)
{
    urls[0] = apr_pstrcat(p, "lmdb:", server_dir(), "/lmdb", NULL);
    return 1;
}

static int start_file(const char **urls)
{
    urls[0] = apr_pstrcat(p, "file:", server_dir(), "/files", NULL);
    return 1;
}

static int start_sqlite(const char **urls)
{
    urls[0] = apr_pstrcat(p, "dbd:sqlite3,", server_dir(), "/sqlite/sessions.db", NULL);
    return 1;
}

typedef struct claims_row {
    const char *name;
    int (*start)(const char **urls);
    int restarts, keys;
} claims_row;

static const claims_row rows[] = {
    { "3 x memcached, 2 copies", start_memcacheds, RESTARTS, KEYS },
    { "libmemcached", start_libmemcached, 0, QUIET },
#ifdef HAVE_HIREDIS
    { "redis", start_redis, 0, QUIET },
#endif
    { "lmdb", start_lmdb, 0, QUIET },
    { "file", start_file, 0, QUIET },
    { "dbd:sqlite3", start_sqlite, 0, QUIET / 10 },
};

static void race(const claims_row *row)
{
    const char *urls[NODES];
    pid_t pids[ADDERS + 1], parent = getpid();
    int i, j, keys, from, status, clean = 0, agreed = 0, winners = 0, restarts, failed = 0, counted = 0, missed = 0, nurls;
    ha_store_facts facts;

    apr_pool_create(&p, NULL);
    nurls = row->start(urls);
    store = store_of(p, nurls > 1 ? 2 : 1, 2 * SECOND, nurls, urls);
    b = shared_memory(sizeof(*b));
    b->last = row->keys;
    fflush(stdout);
    for (i = 0; i <= ADDERS; i++) {
        if ((pids[i] = fork()) == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != parent) {
                _exit(125);
            }
            if (i < ADDERS) {
                adder(i);
            }
            else {
                writer(i);
            }
            fflush(stdout);
            _exit(0);
        }
    }
    for (restarts = 0; restarts < row->restarts; restarts++) {
        int node = restarts % NODES;

        server_kill(&servers[node]);
        server_start(&servers[node]);
        /* Everybody is some keys further before the next one dies, and the node in use again: also for who met its death, and was
         * put aside before it could say so (seen: two nodes were away for one key). */
        from = b->at[0];
        for (j = 0; j < 10000; j++) {
            ha_store_node_facts(store, node, p, &facts);
            if (b->at[0] >= from + APART && strcmp(facts.state, "down") != 0) {
                break;
            }
            usleep(1000);
        }
    }
    if (row->restarts) {
        b->last = b->at[0] + 20 < KEYS ? b->at[0] + 20 : KEYS;      /* nobody is more than one key ahead */
    }
    for (i = 0; i <= ADDERS; i++) {
        clean += waitpid(pids[i], &status, 0) == pids[i] && status == 0;
    }
    keys = b->last;
    for (i = 0; i < ADDERS; i++) {
        failed += b->broken[i];
    }
    ok(clean == ADDERS + 1, "%s: %d processes claimed %d keys while nodes were restarted %d times (%d calls failed and were repeated)", row->name,
       ADDERS, keys, restarts, failed);
    for (i = 0; i < keys; i++) {
        winners += b->wins[i] == 1;
        for (j = 1; j < ADDERS && b->owner[0][i] && b->owner[j][i] == b->owner[0][i]; j++)
            ;
        agreed += j == ADDERS;
        if ((b->wins[i] != 1 || j != ADDERS) && i - winners < 5) {
            printf("# key %d: %d winners; told %d %d %d\n", i, b->wins[i], b->owner[0][i], b->owner[1][i], b->owner[2][i]);
        }
        counted += b->counts[i];
        for (j = 0; j < ADDERS; j++) {
            missed += b->counts[i] && b->missed[j][i];
        }
    }
    ok(keys > 100, "there were %d keys", keys);
    ok(winners == keys, "%d of %d keys have one winner", winners, keys);
    ok(agreed == keys, "%d of %d times all were told of the same one", agreed, keys);
    ok(counted > 0 && counted < keys, "%d of %d backups were stored before their claim", counted, keys);
    ok(missed == 0, "and who claimed has read each of them (%d not)", missed);
    for (i = 0; i < NODES; i++) {
        server_kill(&servers[i]);
    }
    apr_pool_destroy(p);
}

int main(void)
{
    size_t i;

    apr_initialize();
    signal(SIGPIPE, SIG_IGN);
    alarm(300);
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        race(&rows[i]);
    }
    i = (size_t)tap_done();
    apr_terminate();
    return (int)i;
}
