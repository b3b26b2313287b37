/* store_forgot_test.c - a node that was started again, that evicts, whose file was damaged: noticed once, by whichever
 * process, and told once. Real servers. */
#ifdef HAVE_CONFIG_H
#include "autoconf.h"
#endif

#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <apr_atomic.h>
#include <apr_general.h>
#include <apr_strings.h>

#include "store/store_nodes.h"
#include "store/store_repair.h"
#include "store_servers.h"

#define SECOND  APR_USEC_PER_SEC
#define PROCESSES 3

typedef struct forgot_row {
    const char *name;
    void (*start)(ha_server *);
    void (*start_small)(ha_server *);   /* one that evicts, or NULL */
} forgot_row;

static const forgot_row *row;
static apr_pool_t *p;
static apr_time_t later;                /* each look is an interval after the one before */

static apr_uint64_t forgot(ha_store *store, ha_forgot how)
{
    ha_store_facts facts;

    ha_store_node_facts(store, 0, p, &facts);
    return facts.forgot[how];
}

static void look(ha_store *store)
{
    later += HA_RECALL_EVERY;
    ha_store_tend(store, p, apr_time_now() + later);
    apr_sleep(30000);
}

/* What a look brings is in shared memory some time afterwards. */
static int looks_until(ha_store *store, ha_forgot how, apr_uint64_t n)
{
    int i;

    for (i = 0; i < 300 && forgot(store, how) < n; i++) {
        look(store);
    }
    return forgot(store, how) >= n;
}

static int is_known(ha_store *store)
{
    int i;

    for (i = 0; i < 300 && store->nodes[0].breaker->life == 0; i++) {
        look(store);
    }
    return i < 300;
}

static void put_many(ha_store *store, int n, apr_size_t size)
{
    char *bytes = malloc(size);
    apr_pool_t *mine;
    int i;

    memset(bytes, 'x', size);
    for (i = 0; i < n; i++) {
        ha_value v = { { bytes, size }, { 1, 1 } };
        ha_call call = { NULL, 0, NULL };

        apr_pool_create(&mine, p);
        call.pool = mine;
        ha_store_put(store, &call, test_key(mine, "ha:b", i), &v, apr_time_now() + 600 * SECOND, NULL);
        apr_pool_destroy(mine);
    }
    free(bytes);
}

/* ---- several processes look at once ------------------------------------------------ */

typedef struct together {
    volatile apr_uint32_t ready, over, told;
} together;

static void in_each_process(ha_store *store, together *t)
{
    apr_pool_t *pchild = store_child(store, p);

    apr_atomic_inc32(&t->ready);
    while (!apr_atomic_read32(&t->over)) {
        look(store);
        while (ha_store_news(store, p)) {
            apr_atomic_inc32(&t->told);
        }
    }
    apr_pool_destroy(pchild);
}

static void noticed_by_one(ha_store *store, ha_server *server)
{
    apr_uint64_t before = forgot(store, HA_FORGOT_RESTARTED);
    together *t = shared_memory(sizeof(*t));
    pid_t pids[PROCESSES], parent = getpid();
    int i, status = 0, bad = 0;

    fflush(stdout);
    for (i = 0; i < PROCESSES; i++) {
        if ((pids[i] = fork()) == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() == parent) {
                in_each_process(store, t);
            }
            _exit(0);
        }
    }
    for (i = 0; i < 300 && (apr_atomic_read32(&t->ready) < PROCESSES || store->nodes[0].breaker->life == 0); i++) {
        apr_sleep(30000);
    }
    server_kill(server);
    server_start(server);
    for (i = 0; i < 300 && (forgot(store, HA_FORGOT_RESTARTED) == before || apr_atomic_read32(&t->told) == 0); i++) {
        apr_sleep(30000);
    }
    apr_sleep(500000);      /* who would notice it twice has had the time */
    apr_atomic_set32(&t->over, 1);
    for (i = 0; i < PROCESSES; i++) {
        waitpid(pids[i], &status, 0);
        bad += status != 0;
    }
    ok(bad == 0 && forgot(store, HA_FORGOT_RESTARTED) == before + 1, "%d processes look at once: it is noticed once", PROCESSES);
    ok(apr_atomic_read32(&t->told) == 1, "and told once");
}

/* ---- one node ------------------------------------------------------------------------ */

static void restarted(void)
{
    ha_server server;
    ha_store *store;
    apr_pool_t *pchild;
    ha_store_facts facts;
    const char *news;
    int i;

    row->start(&server);
    store = store_of(p, 1, 2 * SECOND, 1, &server.url);
    noticed_by_one(store, &server);
    pchild = store_child(store, p);
    put_many(store, 3, 10);
    for (i = 0; i < 5; i++) {
        look(store);
    }
    ok(forgot(store, HA_FORGOT_RESTARTED) == 1 && ha_store_news(store, p) == NULL, "it goes on: nothing is noticed");
    server_kill(&server);
    server_start(&server);
    ok(looks_until(store, HA_FORGOT_RESTARTED, 2), "killed and started again: noticed");
    news = ha_store_news(store, p);
    is_str(news, apr_pstrcat(p, store->nodes[0].name, " forgot: restarted", NULL), "and told");
    ok(ha_store_news(store, p) == NULL, "once");
    ha_store_node_facts(store, 0, p, &facts);
    ok(facts.forgot_last > 0 && facts.forgot[HA_FORGOT_EVICTED] == 0 && facts.forgot[HA_FORGOT_DAMAGED] == 0, "the page says when");

    server_kill(&server);
    put_many(store, 1, 10);
    ha_store_node_facts(store, 0, p, &facts);
    ok(strcmp(facts.state, "down") == 0, "killed, and found down");
    for (i = 0; i < 3; i++) {
        look(store);
    }
    ok(forgot(store, HA_FORGOT_RESTARTED) == 2, "away is not forgotten: nothing is noticed");
    server_start(&server);
    ok(looks_until(store, HA_FORGOT_RESTARTED, 3), "it is back: noticed");
    apr_pool_destroy(pchild);
    server_kill(&server);
}

static void evicts(void)
{
    ha_server small;
    ha_store *store;
    apr_pool_t *pchild;
    apr_uint64_t n;
    const char *news;

    row->start_small(&small);
    store = store_of(p, 1, 2 * SECOND, 1, &small.url);
    pchild = store_child(store, p);
    ok(is_known(store) && forgot(store, HA_FORGOT_EVICTED) == 0, "a small one, with room");
    put_many(store, 1500, 4000);
    ok(looks_until(store, HA_FORGOT_EVICTED, 1), "filled until it evicts: noticed");
    news = ha_store_news(store, p);
    ok(news && strstr(news, " forgot: it is full, and evicts ("), "and told: %s", news ? news : "");
    n = forgot(store, HA_FORGOT_EVICTED);
    put_many(store, 1500, 4000);
    ok(looks_until(store, HA_FORGOT_EVICTED, n + 1) && ha_store_news(store, p) == NULL, "it goes on evicting: counted, not told again");
    ok(forgot(store, HA_FORGOT_RESTARTED) == 0, "it has not been started again");
    apr_pool_destroy(pchild);
    server_kill(&small);
}

/* ---- what is noticed, without a server ------------------------------------------------- */

static void lives_and_counts(void)
{
    ha_breaker *b = apr_pcalloc(p, sizeof(*b));
    ha_memory first = { 11, 50 }, more = { 11, 60 }, reset = { 11, 7 }, other = { 22, 3 };
    apr_time_t now = apr_time_now();

    ha_breaker_recalled(b, &first, now);
    ok(b->forgot[HA_FORGOT_RESTARTED] == 0 && b->forgot[HA_FORGOT_EVICTED] == 0 && b->untold == 0, "what was before the first look is not ours");
    ha_breaker_recalled(b, &more, now);
    ha_breaker_recalled(b, &more, now);
    ok(b->forgot[HA_FORGOT_EVICTED] == 10 && ha_breaker_tell(b, HA_FORGOT_EVICTED) && !ha_breaker_tell(b, HA_FORGOT_EVICTED), "ten more evicted");
    ha_breaker_recalled(b, &reset, now + HA_EVICTING / 2);
    ok(b->forgot[HA_FORGOT_EVICTED] == 17 && !ha_breaker_tell(b, HA_FORGOT_EVICTED), "its counters were set to zero: seven since; not told again so soon");
    first.evicted = 8;
    ha_breaker_recalled(b, &first, now + 2 * HA_EVICTING);
    ok(b->forgot[HA_FORGOT_EVICTED] == 18 && ha_breaker_tell(b, HA_FORGOT_EVICTED), "after a pause it is told again");
    ha_breaker_recalled(b, &other, now + 2 * HA_EVICTING);
    ok(b->forgot[HA_FORGOT_RESTARTED] == 1 && b->forgot[HA_FORGOT_EVICTED] == 21 && ha_breaker_tell(b, HA_FORGOT_RESTARTED),
       "another life: started again, and what it has evicted since");
}

static void damaged(void)
{
    const char *dir = apr_pstrcat(p, server_dir(), "/lmdb", NULL), *file = apr_pstrcat(p, dir, "/data.mdb", NULL),
        *url = apr_pstrcat(p, "lmdb:", dir, NULL);
    ha_call call = { p, 0, NULL };
    ha_store *store = store_of(p, 1, SECOND, 1, &url);
    apr_pool_t *pchild;
    FILE *f;
    int i;

    ok(forgot(store, HA_FORGOT_DAMAGED) == 0, "lmdb: a new directory");
    f = fopen(file, "w");
    for (i = 0; f && i < 10000; i++) {
        fputs("no page of LMDB's", f);
    }
    fclose(f);
    ha_store_prepare(store, &call, store->nodes[0].breaker, (apr_uid_t)-1, (apr_gid_t)-1);
    ok(call.why && strstr(call.why, " forgot: data.mdb is damaged"), "a damaged file at the start: told: %s", call.why ? call.why : "");
    ok(forgot(store, HA_FORGOT_DAMAGED) == 1, "and counted");
    call.why = NULL;
    ok(APR_SUCCESS == ha_store_prepare(store, &call, store->nodes[0].breaker, (apr_uid_t)-1, (apr_gid_t)-1) && call.why == NULL
       && forgot(store, HA_FORGOT_DAMAGED) == 1, "once");
    pchild = store_child(store, p);
    for (i = 0; i < 3; i++) {
        look(store);
    }
    ok(ha_store_news(store, p) == NULL, "and no child tells it again");
    apr_pool_destroy(pchild);
}

static void memcached(ha_server *server)
{
    server_memcached(server, p, NULL);
}

static void small_memcached(ha_server *server)
{
    server_memcached(server, p, "-m 1 -I 512k");
}

static void libmemcached(ha_server *server)
{
    server_memcached(server, p, NULL);
    server->url = apr_pstrcat(p, "lib", server->url, NULL);
}

static void small_libmemcached(ha_server *server)
{
    server_memcached(server, p, "-m 1 -I 512k");
    server->url = apr_pstrcat(p, "lib", server->url, NULL);
}

/* asked in the binary protocol, with the password */
static void sasl(ha_server *server)
{
    server_memcached_sasl(server, p);
}

#ifdef HAVE_HIREDIS
static void redis(ha_server *server)
{
    server_redis(server, p, NULL, NULL);
}

static void small_redis(ha_server *server)
{
    server_redis(server, p, NULL, "2200kb");
    server_say(server, "CONFIG SET maxmemory-policy allkeys-lru\r\n");
}
#endif

static const forgot_row rows[] = {
    { "memcached", memcached, small_memcached },
    { "libmemcached", libmemcached, small_libmemcached },
    { "libmemcached, SASL", sasl, NULL },
#ifdef HAVE_HIREDIS
    { "redis", redis, small_redis },
#endif
};

int main(int argc, char **argv)
{
    size_t i;

    apr_initialize();
    signal(SIGPIPE, SIG_IGN);
    alarm(240);
    apr_pool_create(&p, NULL);
    lives_and_counts();
    damaged();
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (argc < 2 || strncmp(argv[1], rows[i].name, strlen(argv[1])) == 0) {
            printf("# ---- %s\n", rows[i].name);
            row = &rows[i];
            restarted();
            if (row->start_small) {
                evicts();
            }
        }
    }
    i = (size_t)tap_done();
    apr_terminate();
    return (int)i;
}
