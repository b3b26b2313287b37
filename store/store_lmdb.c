/* store_lmdb.c - lmdb:/path[?size=BYTES]: a directory on this machine, shared by all children, no server.
 *
 *   DIR/data.mdb, lock.mdb      mode 0600, the children's; DIR 0700
 *   key -> expires(8, big-endian, microseconds since 1970, 0: never) value
 *
 * What it withstands: the restart of httpd, and children that are killed at any point (a transaction is
 * there or not; the write lock is a robust mutex; their reader slots are cleared by the sweep). Not a power
 * cut: commits are not flushed to the disk one by one (MDB_NOSYNC), because every captured
 * response would wait for it. After a crash of the machine the file may be damaged; if it cannot be opened then,
 * it is put aside and a new one begun.
 *
 * LMDB forbids opening a file twice in a process, so all stores of a child share one environment for each
 * directory. It is opened after the fork. A write waits for the lock while another process holds it.
 */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <apr_strings.h>

#ifdef HAVE_CONFIG_H
#include "autoconf.h"
#endif
#ifndef HA_STATE_DIR
#define HA_STATE_DIR "/var/lib/session_ha"
#endif

#include "store_dirs.h"
#include "store_lmdb.h"
#include "store_nodes.h"

#define SIZE_DEFAULT  (APR_INT64_C(1) << 30)    /* of the map; the file grows as it is used */
#define SIZE_MIN      (APR_INT64_C(1) << 20)

struct ha_node {
    const char *dir;
    apr_size_t size;
    ha_lmdb *db;                /* each child */
};

static apr_status_t broken(ha_call *call, int err)
{
    call->why = apr_pstrdup(call->pool, mdb_strerror(err));
    switch (err) {
    case MDB_MAP_FULL:
        return APR_ENOSPC;
    case MDB_NOTFOUND:
        return APR_NOTFOUND;
    default:
        /* never a status that speaks of a connection */
        return err == ENOSPC ? APR_ENOSPC : APR_EGENERAL;
    }
}

static const char *configure(ha_node **out, const char *url, apr_pool_t *pconf)
{
    static const char allowed[] = "expected lmdb:/path or lmdb:/path?size=BYTES (at least 1048576; k, m and g are understood)";
    ha_node *node = apr_pcalloc(pconf, sizeof(*node));
    const char *path = url + strlen("lmdb:"), *option = strchr(path, '?');
    apr_int64_t size = SIZE_DEFAULT;
    char *end;

    if (option) {
        if (strncmp(option, "?size=", 6) != 0) {
            return allowed;
        }
        size = apr_strtoi64(option + 6, &end, 10);
        if (end == option + 6 || size <= 0 || size > (APR_INT64_C(1) << 44)) {
            return allowed;
        }
        switch (*end) {
        case 'g': case 'G':
            size <<= 10;    /* FALLTHROUGH */
        case 'm': case 'M':
            size <<= 10;    /* FALLTHROUGH */
        case 'k': case 'K':
            size <<= 10;
            end++;
            break;
        default:
            break;
        }
        if (*end || size < SIZE_MIN || size > (APR_INT64_C(1) << 44)) {
            return allowed;
        }
        path = apr_pstrmemdup(pconf, path, (apr_size_t)(option - path));
    }
    if (strncmp(path, "///", 3) == 0) {
        path += 2;
    }
    if (*path == '\0') {
        path = HA_STATE_DIR "/store";
    }
    if (*path != '/') {
        return allowed;
    }
    node->dir = apr_pstrdup(pconf, path);
    node->size = (apr_size_t)size;
    *out = node;
    return NULL;
}

/* The files are made by the first child. One that a crash of the machine has damaged is put aside here, while
 * no child of ours has it open. */
static apr_status_t prepare(ha_node *node, ha_call *call, apr_uid_t uid, apr_gid_t gid)
{
    const char *file = apr_pstrcat(call->pool, node->dir, "/data.mdb", NULL), *aside;
    apr_status_t rv = ha_dir_prepare(node->dir, call, uid, gid);
    struct stat st;
    int err;

    if (rv != APR_SUCCESS || lstat(file, &st) != 0) {
        return rv;
    }
    err = ha_lmdb_check(node->dir, node->size);
    if (err == MDB_INVALID || err == MDB_VERSION_MISMATCH || err == MDB_CORRUPTED || err == MDB_PAGE_NOTFOUND) {
        aside = apr_psprintf(call->pool, "%s/broken-%" APR_TIME_T_FMT, node->dir, apr_time_sec(apr_time_now()));
        if (rename(file, aside) != 0) {
            call->why = apr_psprintf(call->pool, "data.mdb is damaged (%s) and cannot be put aside", mdb_strerror(err));
            return APR_EGENERAL;
        }
        unlink(apr_pstrcat(call->pool, node->dir, "/lock.mdb", NULL));
        call->why = apr_psprintf(call->pool, "data.mdb is damaged (%s); it was put aside as %s, and a new one is begun", mdb_strerror(err), aside);
    }
    else if (err) {
        call->why = apr_psprintf(call->pool, "data.mdb: %s", mdb_strerror(err));
        return APR_EGENERAL;
    }
    return APR_SUCCESS;
}

static apr_status_t close_(void *data)
{
    ha_lmdb_close(data);
    return APR_SUCCESS;
}

static apr_status_t open_(ha_node *node, ha_call *call, apr_pool_t *pchild)
{
    int err = ha_lmdb_open(&node->db, node->dir, node->size);

    if (err) {
        return broken(call, err);
    }
    apr_pool_cleanup_register(pchild, node->db, close_, apr_pool_cleanup_null);
    return APR_SUCCESS;
}

static apr_status_t look(ha_node *node, ha_call *call, ha_look *looks, int n)
{
    MDB_txn *txn;
    int err;

    if (0 != (err = mdb_txn_begin(node->db->env, NULL, MDB_RDONLY, &txn))) {
        return broken(call, err);
    }
    ha_lmdb_look(node->db, txn, looks, n, call->pool);
    mdb_txn_abort(txn);
    return APR_SUCCESS;
}

static apr_status_t get(ha_node *node, ha_call *call, const char *key, ha_blob *out)
{
    ha_look it = { .key = key };
    apr_status_t rv = look(node, call, &it, 1);

    *out = it.found;
    return rv == APR_SUCCESS ? it.rv : rv;
}

static apr_status_t write_value(ha_node *node, ha_call *call, const char *key, const ha_blob *value, apr_time_t expires, int only_new,
                                ha_look *looks, int n)
{
    int err = ha_lmdb_write(node->db, key, value, expires, only_new, call->deadline, looks, n, call->pool), swept = 0, dead = 0;

    /* Full: what has expired makes room, at once, and once; and the places of readers that were killed, which
     * keep old pages from being used again. */
    if (err == MDB_MAP_FULL && 0 == mdb_reader_check(node->db->env, &dead) && 0 == ha_lmdb_sweep(node->db, apr_time_now(), call->pool, &swept) && swept + dead > 0) {
        err = ha_lmdb_write(node->db, key, value, expires, only_new, call->deadline, looks, n, call->pool);
    }
    if (err == MDB_KEYEXIST) {
        return APR_EEXIST;
    }
    return err ? broken(call, err) : APR_SUCCESS;
}

static apr_status_t put(ha_node *node, ha_call *call, const char *key, const ha_blob *value, apr_time_t expires)
{
    return write_value(node, call, key, value, expires, 0, NULL, 0);
}

static apr_status_t add(ha_node *node, ha_call *call, const char *key, const ha_blob *value, apr_time_t expires)
{
    return write_value(node, call, key, value, expires, 1, NULL, 0);
}

/* One transaction: whoever writes waits for its end, and then reads what it has added. */
static apr_status_t claim(ha_node *node, ha_call *call, const char *key, const ha_blob *value, apr_time_t expires, ha_look *looks, int n)
{
    return key ? write_value(node, call, key, value, expires, 1, looks, n) : look(node, call, looks, n);
}

static apr_status_t remove_(ha_node *node, ha_call *call, const char *key)
{
    MDB_val k = ha_lmdb_key(key);
    MDB_txn *txn;
    int err;

    if (0 != (err = mdb_txn_begin(node->db->env, NULL, 0, &txn))) {
        return broken(call, err);
    }
    if (0 != (err = mdb_del(txn, node->db->dbi, &k, NULL))) {
        mdb_txn_abort(txn);
        return err == MDB_NOTFOUND ? APR_SUCCESS : broken(call, err);
    }
    err = mdb_txn_commit(txn);
    return err ? broken(call, err) : APR_SUCCESS;
}

static apr_status_t touch(ha_node *node, ha_call *call, const char *key, apr_time_t expires)
{
    MDB_val k = ha_lmdb_key(key), v, w;
    MDB_txn *txn;
    unsigned char *p;
    int err;

    if (0 != (err = mdb_txn_begin(node->db->env, NULL, 0, &txn))) {
        return broken(call, err);
    }
    err = mdb_get(txn, node->db->dbi, &k, &v);
    if (err == 0 && !ha_lmdb_is_there(&v, apr_time_now())) {
        err = MDB_NOTFOUND;
    }
    if (err == 0) {
        /* mdb_put may move the page that v points into */
        p = apr_pmemdup(call->pool, v.mv_data, v.mv_size);
        ha_lmdb_set_expiry(p, expires);
        w.mv_size = v.mv_size;
        w.mv_data = p;
        err = mdb_put(txn, node->db->dbi, &k, &w, 0);
    }
    if (err) {
        mdb_txn_abort(txn);
        return broken(call, err);
    }
    err = mdb_txn_commit(txn);
    return err ? broken(call, err) : APR_SUCCESS;
}

static apr_status_t sweep(ha_node *node, ha_call *call, apr_time_t now)
{
    int dead = 0, swept = 0, err;

    mdb_reader_check(node->db->env, &dead);
    err = ha_lmdb_sweep(node->db, now, call->pool, &swept);
    if (err == 0) {
        /* in the background, so that a power cut costs little */
        err = mdb_env_sync(node->db->env, 1);
    }
    return err ? broken(call, err) : APR_SUCCESS;
}

/* The write lock is what others wait for. */
static apr_status_t probe(ha_node *node, ha_call *call)
{
    MDB_txn *txn;
    int err = mdb_txn_begin(node->db->env, NULL, 0, &txn);

    if (err) {
        return broken(call, err);
    }
    mdb_txn_abort(txn);
    return APR_SUCCESS;
}

const ha_store_provider ha_store_lmdb = {
    .name = "lmdb",
    .shared_by_host = 1,
    .configure = configure,
    .prepare = prepare,
    .open = open_,
    .get = get,
    .put = put,
    .add = add,
    .remove = remove_,
    .claim = claim,
    .touch = touch,
    .sweep = sweep,
    .probe = probe,
};
