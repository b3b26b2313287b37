/* store_servers.h - real store servers for the tests: started on free loopback ports, stopped, continued,
 * killed and started again by pid; none survives the test, however it dies. */
#ifndef HA_STORE_SERVERS_H
#define HA_STORE_SERVERS_H

#include <sys/types.h>

#include <apr_pools.h>

#include "tap.h"

#include "store/store.h"

typedef struct ha_server {
    const char *name;           /* program */
    const char *argv[24];
    int port;
    pid_t pid;
    const char *url;            /* the store's */
} ha_server;

int  server_free_port(void);
/* A directory of this test, removed with all in it at the end; the servers' user may write in it. */
const char *server_dir(void);

/* Fails the test and ends it if the program is missing or does not come up. */
void server_memcached(ha_server *, apr_pool_t *p, const char *extra);     /* extra: more flags, or NULL */
void server_memcached_sasl(ha_server *, apr_pool_t *p);       /* lets nobody in without a password; url: with it */
void server_redis(ha_server *, apr_pool_t *p, const char *password, const char *memory);
void server_mariadb(ha_server *, apr_pool_t *p);
void server_postgres(ha_server *, apr_pool_t *p);

void server_start(ha_server *);     /* again, on the same port */
void server_kill(ha_server *);      /* -9, and waits until it is gone */
void server_stop(ha_server *);      /* SIGSTOP, and waits until it has */
void server_cont(ha_server *);
/* Sends bytes to the port and closes: for what no client library would say. */
void server_say(const ha_server *, const char *bytes);

/* ---- one httpd: a parent that configures, children that open ---------------------- */

/* Configures and prepares a store in memory that forked children share. */
ha_store *store_of(apr_pool_t *p, int copies, apr_interval_time_t timeout, int nurls, const char *const *urls);
/* Opens it in this process, as a child does; destroy the pool to close it. */
apr_pool_t *store_child(ha_store *, apr_pool_t *p);
void *shared_memory(apr_size_t size);

/* Runs fn in a process of its own and goes on with its TAP numbers. 0: it ended as it should. */
#define in_child(fn, baton) in_child_counting((fn), (baton), &tap_n, &tap_bad, tap_save)
int in_child_counting(void (*fn)(void *), void *baton, int *n, int *bad, void (*save)(int *));
static inline void tap_save(int *numbers)
{
    numbers[0] = tap_n;
    numbers[1] = tap_bad;
}

/* "ha:b:<64 hex>", different for each n */
const char *test_key(apr_pool_t *p, const char *prefix, int n);
#define value_is(v, bytes, n) ((v).data.len == (n) && memcmp((v).data.data, (bytes), (n)) == 0)

#endif
