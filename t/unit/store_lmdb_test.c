/* store_lmdb_test.c - what only lmdb: can meet: a map that is full, children killed in the middle of a
 * transaction, two stores on one directory, a directory that is not ours, a damaged file. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <lmdb.h>

#include <apr_general.h>
#include <apr_strings.h>

#include "store/store_nodes.h"
#include "store_servers.h"

#define SECOND APR_USEC_PER_SEC

static apr_pool_t *p;

static ha_store *lmdb_of(const char *dir, const char *option)
{
    const char *url = apr_pstrcat(p, "lmdb:", dir, option, NULL);

    return store_of(p, 1, 2 * SECOND, 1, &url);
}

static apr_status_t put(ha_store *store, const char *key, apr_size_t len, apr_time_t expires, ha_call *call)
{
    static char bytes[100000];
    ha_value v = { { bytes, len }, { 1, 1 } };

    call->pool = p;
    call->deadline = 0;
    return ha_store_put(store, call, key, &v, expires, NULL);
}

static apr_status_t get(ha_store *store, const char *key)
{
    ha_call call = { p, 0, NULL };
    ha_value v;

    return ha_store_get(store, &call, key, &v, NULL);
}

static int fill(ha_store *store, int from, apr_time_t expires, ha_call *call)
{
    apr_status_t rv = APR_SUCCESS;
    int i;

    for (i = from; i < from + 1000 && APR_SUCCESS == (rv = put(store, test_key(p, "ha:b", i), 20000, expires, call)); i++)
        ;
    return rv == APR_ENOSPC ? i - from : -1;
}

static apr_status_t add_again(ha_store *store)
{
    ha_call call = { p, 0, NULL };
    ha_value v = { { "x", 1 }, { 1, 1 } }, out;

    return ha_store_add(store, &call, test_key(p, "ha:b", 0), &v, 0, &out, NULL);
}

static void full(void *baton)
{
    ha_store *store = lmdb_of(apr_pstrcat(p, server_dir(), "/full", NULL), "?size=2m");
    apr_pool_t *pchild = store_child(store, p);
    apr_time_t soon = apr_time_now() + 2 * SECOND;
    ha_store_facts facts;
    ha_call call;
    int n = fill(store, 0, soon, &call), i;

    ok(n > 20, "a map of 2 MB takes %d values of 20 KB, and then there is no space: %s", n, call.why);
    ha_store_node_facts(store, 0, p, &facts);
    ok(add_again(store) == APR_EEXIST, "an add still finds what is there");
    ok(strcmp(facts.state, "up") == 0 && get(store, test_key(p, "ha:b", 0)) == APR_SUCCESS, "the node is up, and what it has can be read");
    while (apr_time_now() < soon) {
        apr_sleep(50000);
    }
    ok(put(store, test_key(p, "ha:b", 5000), 20000, 0, &call) == APR_SUCCESS, "when the rest has expired, a write makes room by itself");
    i = fill(store, 6000, apr_time_now() + 600 * SECOND, &call);
    ok(i > n / 2, "and for %d more", i);
    apr_pool_destroy(pchild);
}

/* Dies with a reader's place, and perhaps the write lock, in its hands. */
static void die_in_a_transaction(const char *dir, int writing)
{
    MDB_env *env;
    MDB_txn *txn, *reader;
    MDB_dbi dbi;
    MDB_val k = { 3, "key" }, v = { 5, "value" };
    pid_t pid;
    int status = 0;

    fflush(stdout);
    if ((pid = fork()) == 0) {
        if (mdb_env_create(&env) == 0 && mdb_env_set_maxreaders(env, 2048) == 0 && mdb_env_open(env, dir, MDB_NOTLS | MDB_NOSYNC, 0600) == 0
            && mdb_txn_begin(env, NULL, MDB_RDONLY, &reader) == 0 && (!writing || (mdb_txn_begin(env, NULL, 0, &txn) == 0
            && mdb_dbi_open(txn, NULL, 0, &dbi) == 0 && mdb_put(txn, dbi, &k, &v, 0) == 0))) {
            raise(SIGKILL);
        }
        _exit(1);
    }
    waitpid(pid, &status, 0);
    ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "a process is killed in the middle of a %s", writing ? "write" : "read");
}

static int count_line(const char *line, void *count)
{
    ++*(int *)count;
    return 0;
}

/* Counted by a process of its own: this one has the environment open already. */
static int readers(const char *dir)
{
    int count = -1, status = 0;     /* the first line is a head */
    MDB_env *env;
    pid_t pid;

    fflush(stdout);
    if ((pid = fork()) == 0) {
        if (mdb_env_create(&env) == 0 && mdb_env_set_maxreaders(env, 2048) == 0 && mdb_env_open(env, dir, MDB_NOTLS | MDB_NOSYNC, 0600) == 0) {
            mdb_reader_list(env, count_line, &count);
        }
        _exit(count);
    }
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void killed(void *baton)
{
    const char *dir = apr_pstrcat(p, server_dir(), "/killed", NULL);
    ha_store *store = lmdb_of(dir, "");
    apr_pool_t *pchild = store_child(store, p);
    int i, n = 0, before, after;
    ha_call call;

    ok(put(store, test_key(p, "ha:b", 1), 100, 0, &call) == APR_SUCCESS, "a value is there");
    for (i = 0; i < 5; i++) {
        die_in_a_transaction(dir, 1);
        n += put(store, test_key(p, "ha:b", 10 + i), 100, 0, &call) == APR_SUCCESS;
    }
    ok(n == 5 && get(store, test_key(p, "ha:b", 1)) == APR_SUCCESS, "others go on writing and reading");
    for (i = 0; i < 5; i++) {
        die_in_a_transaction(dir, 0);
    }
    before = readers(dir);
    ha_store_tend(store, p, apr_time_now());
    for (i = 0, after = before; i < 200 && after >= before; i++) {
        apr_sleep(20000);
        after = readers(dir);
    }
    ok(before >= 5 && after < 3, "the sweep clears the places of dead readers (%d, then %d)", before, after);
    apr_pool_destroy(pchild);
}

/* A process that holds the write lock until a byte comes. */
static pid_t hold_the_lock(const char *dir, int *go)
{
    int fds[2], held[2];
    MDB_env *env;
    MDB_txn *txn;
    pid_t pid;
    char c;

    if (pipe(fds) != 0 || pipe(held) != 0) {
        return 0;
    }
    fflush(stdout);
    if ((pid = fork()) == 0) {
        close(fds[1]);          /* or the parent's death would not be seen */
        if (mdb_env_create(&env) == 0 && mdb_env_set_maxreaders(env, 2048) == 0 && mdb_env_open(env, dir, MDB_NOTLS | MDB_NOSYNC, 0600) == 0
            && mdb_txn_begin(env, NULL, 0, &txn) == 0 && write(held[1], "h", 1) == 1 && read(fds[0], &c, 1) >= 0) {
            mdb_txn_abort(txn);
            mdb_env_close(env);
        }
        _exit(0);
    }
    close(fds[0]);
    close(held[1]);
    *go = fds[1];
    if (read(held[0], &c, 1) != 1) {
        pid = 0;
    }
    close(held[0]);
    return pid;
}

static void locked(void *baton)
{
    const char *dir = apr_pstrcat(p, server_dir(), "/locked", NULL), *key = test_key(p, "ha:b", 1), *other = test_key(p, "ha:b", 2);
    ha_store *store = lmdb_of(dir, "");
    apr_pool_t *pchild = store_child(store, p);
    ha_store_facts facts;
    ha_call call;
    int go = -1, i;
    pid_t pid = 0;

    ok(put(store, other, 10, 0, &call) == APR_SUCCESS && (pid = hold_the_lock(dir, &go)) != 0, "another process holds the write lock");
    ok(put(store, key, 10, 0, &call) != APR_SUCCESS, "a write comes back without it: %s", call.why);
    ha_store_node_facts(store, 0, p, &facts);
    ok(strcmp(facts.state, "down") == 0 && facts.timeouts == 1 && put(store, key, 10, 0, &call) != APR_SUCCESS, "the node is down, and the next one does not wait");
    ok(write(go, "g", 1) == 1 && waitpid(pid, NULL, 0) == pid, "the lock is free");
    for (i = 0; i < 300 && (strcmp(facts.state, "up") != 0 || ha_executor_stuck(store->executor, 0) > 0); i++) {
        ha_store_tend(store, p, apr_time_now());
        apr_sleep(20000);
        ha_store_node_facts(store, 0, p, &facts);
    }
    ok(i < 300 && get(store, other) == APR_SUCCESS, "a probe finds it well");
    ok(get(store, key) == APR_NOTFOUND, "the write that was left behind was not done late");
    apr_pool_destroy(pchild);
}

static void shared(void *baton)
{
    const char *dir = apr_pstrcat(p, server_dir(), "/shared", NULL);
    ha_store *a = lmdb_of(dir, ""), *b = lmdb_of(apr_pstrcat(p, server_dir(), "/./shared", NULL), "");
    apr_pool_t *one = store_child(a, p), *two = store_child(b, p);
    struct stat st;
    ha_call call;

    ok(put(a, test_key(p, "ha:b", 1), 100, 0, &call) == APR_SUCCESS && get(b, test_key(p, "ha:b", 1)) == APR_SUCCESS, "two stores on one directory, one environment");
    apr_pool_destroy(one);
    ok(get(b, test_key(p, "ha:b", 1)) == APR_SUCCESS, "the second one outlives the first");
    apr_pool_destroy(two);
    ok(stat(dir, &st) == 0 && (st.st_mode & 07777) == 0700, "the directory is 0700");
    ok(stat(apr_pstrcat(p, dir, "/data.mdb", NULL), &st) == 0 && (st.st_mode & 07777) == 0600, "data.mdb is 0600");
    ok(stat(apr_pstrcat(p, dir, "/lock.mdb", NULL), &st) == 0 && (st.st_mode & 07777) == 0600, "lock.mdb is 0600");
}

static apr_status_t prepare(const char *dir, const char **why)
{
    const char *url = apr_pstrcat(p, "lmdb:", dir, NULL);
    ha_call call = { p, 0, NULL };
    ha_store *store;
    apr_status_t rv;

    *why = ha_store_configure(&store, p, 1, &url, 1, SECOND);
    if (*why) {
        return APR_EINVAL;
    }
    rv = ha_store_prepare(store, &call, shared_memory(ha_store_shared_size(store)), (apr_uid_t)-1, (apr_gid_t)-1);
    *why = call.why;
    return rv;
}

static void not_ours(void)
{
    const char *base = server_dir(), *dir, *why = NULL, *file;
    ha_store *store;
    apr_pool_t *pchild;
    ha_call call;
    int fd, i, good, broken = 0;

    dir = apr_pstrcat(p, base, "/open", NULL);
    good = mkdir(dir, 0700) == 0 && chmod(dir, 0777) == 0;
    good = good && prepare(dir, &why) == APR_EACCES;
    ok(good, "a directory others may write in: %s", why);
    dir = apr_pstrcat(p, base, "/link", NULL);
    good = symlink("/tmp", dir) == 0 && prepare(dir, &why) == APR_EACCES;
    ok(good, "a link: %s", why);
    dir = apr_pstrcat(p, base, "/file", NULL);
    fd = open(dir, O_CREAT | O_WRONLY, 0600);
    close(fd);
    good = prepare(dir, &why) == APR_EACCES;
    ok(good, "a file: %s", why);
    good = prepare(apr_pstrcat(p, dir, "/below", NULL), &why) != APR_SUCCESS;
    ok(good, "below a file: %s", why);
    if (geteuid() == 0) {
        dir = apr_pstrcat(p, base, "/others", NULL);
        good = mkdir(dir, 0700) == 0 && chown(dir, 65534, 65534) == 0 && prepare(dir, &why) == APR_EACCES;
        ok(good, "somebody else's: %s", why);
    }
    dir = apr_pstrcat(p, base, "/deep/er/store", NULL);
    ok(prepare(dir, &why) == APR_SUCCESS, "directories above are made");

    dir = apr_pstrcat(p, base, "/damaged", NULL);
    ok(prepare(dir, &why) == APR_SUCCESS, "a directory");
    file = apr_pstrcat(p, dir, "/data.mdb", NULL);
    fd = open(file, O_CREAT | O_WRONLY, 0600);
    for (i = 0; i < 20000; i++) {
        broken += write(fd, "this is no database ", 20) != 20;
    }
    close(fd);
    ok(broken == 0 && prepare(dir, &why) == APR_SUCCESS && access(file, F_OK) != 0, "a damaged file is put aside");
    store = lmdb_of(dir, "");
    pchild = store_child(store, p);
    ok(put(store, test_key(p, "ha:b", 1), 10, 0, &call) == APR_SUCCESS && get(store, test_key(p, "ha:b", 1)) == APR_SUCCESS, "and a new one begun");
    apr_pool_destroy(pchild);
    ok(prepare(dir, &why) == APR_SUCCESS && access(file, F_OK) == 0, "a good one stays, at the next start");
}

int main(void)
{
    int bad;

    apr_initialize();
    signal(SIGPIPE, SIG_IGN);
    alarm(120);
    apr_pool_create(&p, NULL);
    in_child(full, NULL);
    in_child(killed, NULL);
    in_child(locked, NULL);
    in_child(shared, NULL);
    not_ours();
    bad = tap_done();
    apr_terminate();
    return bad;
}
