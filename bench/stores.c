/* stores.c - get, put and claim through each store, against the client library it is made of.
 *
 * Both against the same server, in turns, one operation at a time from one thread: what is compared is what the store
 * adds (the deadline, the envelope, the breaker, the counting), not the server. Rounds of N operations each; a round's
 * figure is the median of its operations, the ratio is that of two rounds side by side.
 */
#ifdef HAVE_CONFIG_H
#include "autoconf.h"
#endif

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <apr_general.h>
#include <apr_memcache.h>
#include <apr_strings.h>
#include <libmemcached/memcached.h>
#include <lmdb.h>
#ifdef HAVE_HIREDIS
#include <hiredis/hiredis.h>
#endif

#include "t/unit/store_servers.h"

#define OPERATIONS 1000
#define ROUNDS     9
#define LIFE       1800         /* seconds */
#define SIZES_MAX  4096

static apr_pool_t *pool;        /* cleared after each operation */
static char state[SIZES_MAX];
static const int sizes[] = { 512, 4096 };

/* ---- the libraries, as plainly as they can be used --------------------------------- */

typedef struct library {
    const char *name;
    const char *(*start)(apr_pool_t *p);        /* its server, the store's URL */
    int (*get)(const char *key);                /* 1: as it should be */
    int (*put)(const char *key, int len);
    int (*add)(const char *key, int len);       /* 1: won */
} library;

static ha_server mc_server, redis_server;

static apr_memcache_t *apr_mc;

static const char *start_apr(apr_pool_t *p)
{
    apr_memcache_server_t *server;

    server_memcached(&mc_server, p, NULL);
    if (apr_memcache_create(p, 1, 0, &apr_mc) != APR_SUCCESS
        || apr_memcache_server_create(p, "127.0.0.1", (apr_port_t)mc_server.port, 0, 1, 1, 600000000, &server) != APR_SUCCESS
        || apr_memcache_add_server(apr_mc, server) != APR_SUCCESS)
        return NULL;
    return mc_server.url;
}

static int get_apr(const char *key)
{
    char *data;
    apr_size_t len;

    return apr_memcache_getp(apr_mc, pool, key, &data, &len, NULL) == APR_SUCCESS;
}

static int put_apr(const char *key, int len)
{
    return apr_memcache_set(apr_mc, key, state, (apr_size_t)len, LIFE, 0) == APR_SUCCESS;
}

static int add_apr(const char *key, int len)
{
    return apr_memcache_add(apr_mc, key, state, (apr_size_t)len, LIFE, 0) == APR_SUCCESS;
}

static memcached_st *lib_mc;

static const char *start_lib(apr_pool_t *p)
{
    lib_mc = memcached_create(NULL);
    memcached_behavior_set(lib_mc, MEMCACHED_BEHAVIOR_BINARY_PROTOCOL, 1);
    memcached_behavior_set(lib_mc, MEMCACHED_BEHAVIOR_TCP_NODELAY, 1);
    memcached_server_add(lib_mc, "127.0.0.1", (in_port_t)mc_server.port);
    return apr_psprintf(p, "libmemcached://127.0.0.1:%d", mc_server.port);
}

static int get_lib(const char *key)
{
    size_t len;
    uint32_t flags;
    memcached_return_t rc;
    char *data = memcached_get(lib_mc, key, strlen(key), &len, &flags, &rc);

    free(data);
    return rc == MEMCACHED_SUCCESS;
}

static int put_lib(const char *key, int len)
{
    return memcached_set(lib_mc, key, strlen(key), state, (size_t)len, LIFE, 0) == MEMCACHED_SUCCESS;
}

static int add_lib(const char *key, int len)
{
    return memcached_add(lib_mc, key, strlen(key), state, (size_t)len, LIFE, 0) == MEMCACHED_SUCCESS;
}

static MDB_env *env;
static MDB_dbi dbi;

static const char *start_lmdb(apr_pool_t *p)
{
    const char *dir = apr_pstrcat(p, server_dir(), "/plain", NULL);
    MDB_txn *txn;

    if (mkdir(dir, 0700) || mdb_env_create(&env) || mdb_env_set_mapsize(env, (size_t)1 << 30)
        || mdb_env_open(env, dir, MDB_NOTLS | MDB_NOSYNC, 0600) || mdb_txn_begin(env, NULL, 0, &txn)
        || mdb_dbi_open(txn, NULL, 0, &dbi) || mdb_txn_commit(txn))
        return NULL;
    return apr_pstrcat(p, "lmdb:", server_dir(), "/ours", NULL);
}

static MDB_val val(const void *data, size_t len)
{
    MDB_val v;
    v.mv_data = (void *)data;
    v.mv_size = len;
    return v;
}

static int get_lmdb(const char *key)
{
    MDB_val k = val(key, strlen(key)), v;
    MDB_txn *txn;
    int good = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn) == 0 && mdb_get(txn, dbi, &k, &v) == 0
            && apr_pmemdup(pool, v.mv_data, v.mv_size);

    mdb_txn_abort(txn);
    return good;
}

static int write_lmdb(const char *key, int len, unsigned flags)
{
    MDB_val k = val(key, strlen(key)), v = val(state, (size_t)len);
    MDB_txn *txn;

    if (mdb_txn_begin(env, NULL, 0, &txn))
        return 0;
    if (mdb_put(txn, dbi, &k, &v, flags)) {
        mdb_txn_abort(txn);
        return 0;
    }
    return mdb_txn_commit(txn) == 0;
}

static int put_lmdb(const char *key, int len)
{
    return write_lmdb(key, len, 0);
}

static int add_lmdb(const char *key, int len)
{
    return write_lmdb(key, len, MDB_NOOVERWRITE);
}

static char *plain_files;

static const char *start_file(apr_pool_t *p)
{
    plain_files = apr_pstrcat(p, server_dir(), "/files", NULL);
    return mkdir(plain_files, 0700) ? NULL : apr_pstrcat(p, "file:", server_dir(), "/ours-files", NULL);
}

static int get_file(const char *key)
{
    char bytes[2 * SIZES_MAX];
    int fd = open(apr_pstrcat(pool, plain_files, "/", key, NULL), O_RDONLY);
    ssize_t len = read(fd, bytes, sizeof bytes);

    close(fd);
    return len > 0;
}

static int put_file(const char *key, int len)
{
    char *file = apr_pstrcat(pool, plain_files, "/", key, NULL), *fresh = apr_pstrcat(pool, file, ".new", NULL);
    int fd = open(fresh, O_CREAT | O_WRONLY | O_TRUNC, 0600);
    int good = write(fd, state, (size_t)len) == len;

    close(fd);
    return good && rename(fresh, file) == 0;
}

static int add_file(const char *key, int len)
{
    int fd = open(apr_pstrcat(pool, plain_files, "/", key, NULL), O_CREAT | O_EXCL | O_WRONLY, 0600);
    int good = write(fd, state, (size_t)len) == len;

    close(fd);
    return good;
}

#ifdef HAVE_HIREDIS
static redisContext *hiredis;

static const char *start_redis(apr_pool_t *p)
{
    server_redis(&redis_server, p, NULL, NULL);
    hiredis = redisConnect("127.0.0.1", redis_server.port);
    return hiredis && !hiredis->err ? redis_server.url : NULL;
}

static int is_reply(redisReply *r, int type)
{
    int good = r && r->type == type;
    freeReplyObject(r);
    return good;
}

static int get_redis(const char *key)
{
    return is_reply(redisCommand(hiredis, "GET %s", key), REDIS_REPLY_STRING);
}

static int put_redis(const char *key, int len)
{
    return is_reply(redisCommand(hiredis, "SET %s %b EX %d", key, state, (size_t)len, LIFE), REDIS_REPLY_STATUS);
}

static int add_redis(const char *key, int len)
{
    return is_reply(redisCommand(hiredis, "SET %s %b EX %d NX", key, state, (size_t)len, LIFE), REDIS_REPLY_STATUS);
}
#endif

static const library libraries[] = {
    { "apr_memcache", start_apr, get_apr, put_apr, add_apr },
    { "libmemcached", start_lib, get_lib, put_lib, add_lib },
#ifdef HAVE_HIREDIS
    { "hiredis", start_redis, get_redis, put_redis, add_redis },
#endif
    { "liblmdb", start_lmdb, get_lmdb, put_lmdb, add_lmdb },
    { "file system", start_file, get_file, put_file, add_file }
};

/* ---- the store ------------------------------------------------------------------------ */

static ha_store *store;

static int get_ours(const char *key)
{
    ha_call call = { pool, 0, NULL };
    ha_value v;

    return ha_store_get(store, &call, key, &v, NULL) == APR_SUCCESS;
}

static ha_value value(int len)
{
    static apr_uint64_t seq;
    ha_value v = { { state, (apr_size_t)len }, { 1, ++seq } };
    return v;
}

static int put_ours(const char *key, int len)
{
    ha_call call = { pool, 0, NULL };
    ha_value v = value(len);

    return ha_store_put(store, &call, key, &v, apr_time_now() + apr_time_from_sec(LIFE), NULL) == APR_SUCCESS;
}

static int add_ours(const char *key, int len)
{
    ha_call call = { pool, 0, NULL };
    ha_value v = value(len), there;

    return ha_store_add(store, &call, key, &v, apr_time_now() + apr_time_from_sec(LIFE), &there, NULL) == APR_SUCCESS;
}

static int trips;                       /* of the last one */

/* As at a takeover: the claim, and the session's two places for a backup. */
static int fetch_ours(const char *key, const char *state_key, const char *other_key)
{
    ha_call call = { pool, 0, NULL };
    ha_value v = value(64), there;
    ha_found both[2] = { { .key = state_key }, { .key = other_key } };
    ha_store_trace trace;
    apr_status_t rv = ha_store_claim(store, &call, key, &v, apr_time_now() + apr_time_from_sec(LIFE), &there, both, 2, &trace);

    trips = trace.trips;
    return rv == APR_SUCCESS && both[0].rv == APR_SUCCESS && both[1].rv == APR_NOTFOUND;
}

/* ---- measuring ------------------------------------------------------------------------- */

typedef enum { PUT, GET, CLAIM, FETCH, KINDS } kind;
static const char *const kinds[] = { "put", "get", "claim", "claim+get" };

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_size);
    return v[n / 2];
}

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static double measure(kind k, int len, const library *l)
{
    static int claims;
    static double took[OPERATIONS];
    int i, good;

    for (i = 0; i < OPERATIONS; i++) {
        const char *key = k >= CLAIM ? test_key(pool, "ha:c", ++claims) : test_key(pool, "ha:b", i % 100);
        const char *state_key = test_key(pool, "ha:b", i % 100), *other_key = test_key(pool, "ha:e", i % 100);
        double began = now_us();

        if (k == PUT)
            good = l ? l->put(key, len) : put_ours(key, len);
        else if (k == GET)
            good = l ? l->get(key) : get_ours(key);
        else if (k == CLAIM)
            good = l ? l->add(key, 64) : add_ours(key, 64);
        else
            good = l ? l->add(key, 64) && l->get(state_key) : fetch_ours(key, state_key, other_key);
        took[i] = now_us() - began;
        if (!good) {
            fprintf(stderr, "%s %s failed\n", l ? l->name : "ours: ", kinds[k]);
            exit(1);
        }
        apr_pool_clear(pool);
    }
    return median(took, OPERATIONS);
}

int main(void)
{
    apr_pool_t *p;
    unsigned i, s;
    int r;

    apr_initialize();
    apr_pool_create(&p, NULL);
    apr_pool_create(&pool, p);
    memset(state, 's', sizeof state);
    printf("\nThrough the store against the client library, microseconds, medians of %d operations; ratio: median [lowest..highest] of %d rounds\n"
           "A claim is an `add` of 64 bytes; put and get are of so many bytes. claim+get: the library's add and then its get, two round\n"
           "trips; the store's claim and fetch, in so many.\n\n", OPERATIONS, ROUNDS);
    printf("  %-14s %-9s %6s %10s %10s   %-20s %s\n", "library", "", "bytes", "library's", "store's", "ratio", "trips");
    for (i = 0; i < sizeof libraries / sizeof *libraries; i++) {
        const library *l = &libraries[i];
        const char *url = l->start(p);
        apr_pool_t *pchild;

        if (url == NULL) {
            printf("  %-14s could not be used\n", l->name);
            continue;
        }
        store = store_of(p, 1, apr_time_from_sec(10), 1, &url);
        pchild = store_child(store, p);
        for (s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            kind k;
            for (k = PUT; k < KINDS; k++) {
                double theirs[ROUNDS], ours[ROUNDS], ratio[ROUNDS], middle;

                if (k == CLAIM && s > 0)
                    continue;
                for (r = 0; r < ROUNDS; r++) {
                    theirs[r] = measure(k, sizes[s], l);
                    ours[r] = measure(k, sizes[s], NULL);
                    ratio[r] = ours[r] / theirs[r];
                }
                middle = median(ratio, ROUNDS);
                printf("  %-14s %-9s %6d %10.1f %10.1f   %.2f [%.2f..%.2f]", l->name, kinds[k], k == CLAIM ? 64 : sizes[s],
                       median(theirs, ROUNDS), median(ours, ROUNDS), middle, ratio[0], ratio[ROUNDS - 1]);
                if (k == FETCH)
                    printf("     %d", trips);
                printf("\n");
                fflush(stdout);
            }
        }
        apr_pool_destroy(pchild);
    }
    printf("\n");
    apr_terminate();
    return 0;
}
