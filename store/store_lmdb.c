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
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lmdb.h>

#include <apr_atomic.h>
#include <apr_strings.h>

#ifdef HAVE_CONFIG_H
#include "autoconf.h"
#endif
#ifndef HA_STATE_DIR
#define HA_STATE_DIR "/var/lib/session_ha"
#endif

#include "store_dirs.h"
#include "store_nodes.h"

#define SIZE_DEFAULT  (APR_INT64_C(1) << 30)    /* of the map; the file grows as it is used */
#define SIZE_MIN      (APR_INT64_C(1) << 20)
#define READERS_MAX   2048                      /* threads of all processes that read at one moment */
#define SWEEP_BATCH   200                       /* keys a transaction: writers wait for it */
/* To remove something, LMDB needs pages to write the changed ones to. Above `size` the map has so many more,
 * which only removals may use: a store that is full can still be swept. */
#define RESERVE_PAGES 512

typedef struct ha_lmdb {        /* an environment of this process */
    struct ha_lmdb *next;
    apr_size_t page;
    dev_t device;
    ino_t inode;
    int refs;
    MDB_env *env;
    MDB_dbi dbi;
} ha_lmdb;

struct ha_node {
    const char *dir;
    apr_size_t size;
    ha_lmdb *db;                /* each child */
};

/* All environments of this process. Opened by child_init and closed at its end, at most a few times. */
static ha_lmdb *all_open;
static volatile apr_uint32_t all_lock;

static void lock_all(void)
{
    while (apr_atomic_cas32(&all_lock, 1, 0) != 0) {
        apr_sleep(100);
    }
}

static void unlock_all(void)
{
    apr_atomic_set32(&all_lock, 0);
}

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

static int env_open(const char *dir, apr_size_t size, MDB_env **env, MDB_dbi *dbi)
{
    MDB_txn *txn = NULL;
    int err;

    *env = NULL;
    if (0 != (err = mdb_env_create(env))
        || 0 != (err = mdb_env_set_mapsize(*env, size + RESERVE_PAGES * (apr_size_t)sysconf(_SC_PAGESIZE)))
        || 0 != (err = mdb_env_set_maxreaders(*env, READERS_MAX))
        || 0 != (err = mdb_env_open(*env, dir, MDB_NOTLS | MDB_NOSYNC, 0600))) {
        goto leave;
    }
    if (0 != (err = mdb_txn_begin(*env, NULL, 0, &txn)) || 0 != (err = mdb_dbi_open(txn, NULL, 0, dbi))) {
        goto leave;
    }
    err = mdb_txn_commit(txn);
    txn = NULL;
leave:
    if (txn) {
        mdb_txn_abort(txn);
    }
    if (err && *env) {
        mdb_env_close(*env);
        *env = NULL;
    }
    return err;
}

/* The files are made by the first child. One that a crash of the machine has damaged is put aside here, while
 * no child of ours has it open. */
static apr_status_t prepare(ha_node *node, ha_call *call, apr_uid_t uid, apr_gid_t gid)
{
    const char *file = apr_pstrcat(call->pool, node->dir, "/data.mdb", NULL), *aside;
    apr_status_t rv = ha_dir_prepare(node->dir, call, uid, gid);
    struct stat st;
    MDB_env *env;
    MDB_dbi dbi;
    int err;

    if (rv != APR_SUCCESS || lstat(file, &st) != 0) {
        return rv;
    }
    err = env_open(node->dir, node->size, &env, &dbi);
    if (err == 0) {
        mdb_env_close(env);
    }
    else if (err == MDB_INVALID || err == MDB_VERSION_MISMATCH || err == MDB_CORRUPTED || err == MDB_PAGE_NOTFOUND) {
        aside = apr_psprintf(call->pool, "%s/broken-%" APR_TIME_T_FMT, node->dir, apr_time_sec(apr_time_now()));
        if (rename(file, aside) != 0) {
            call->why = apr_psprintf(call->pool, "data.mdb is damaged (%s) and cannot be put aside", mdb_strerror(err));
            return APR_EGENERAL;
        }
        unlink(apr_pstrcat(call->pool, node->dir, "/lock.mdb", NULL));
    }
    else {
        call->why = apr_psprintf(call->pool, "data.mdb: %s", mdb_strerror(err));
        return APR_EGENERAL;
    }
    return APR_SUCCESS;
}

static apr_status_t db_close(void *data)
{
    ha_lmdb *db = data, **at;

    lock_all();
    if (--db->refs == 0) {
        for (at = &all_open; *at != db; at = &(*at)->next)
            ;
        *at = db->next;
        mdb_env_close(db->env);
        free(db);
    }
    unlock_all();
    return APR_SUCCESS;
}

static apr_status_t open_(ha_node *node, ha_call *call, apr_pool_t *pchild)
{
    apr_status_t rv = APR_SUCCESS;
    struct stat st;
    MDB_stat stat_of;
    ha_lmdb *db;
    int err;

    lock_all();
    if (stat(node->dir, &st) != 0) {
        rv = APR_FROM_OS_ERROR(apr_get_os_error());
        call->why = apr_psprintf(call->pool, "%pm", &rv);
        goto leave;
    }
    for (db = all_open; db && (db->device != st.st_dev || db->inode != st.st_ino); db = db->next)
        ;
    if (db == NULL) {
        if (NULL == (db = calloc(1, sizeof(*db)))) {
            rv = APR_ENOMEM;
            goto leave;
        }
        if (0 != (err = env_open(node->dir, node->size, &db->env, &db->dbi))) {
            free(db);
            rv = broken(call, err);
            goto leave;
        }
        mdb_env_stat(db->env, &stat_of);
        db->page = stat_of.ms_psize;
        db->device = st.st_dev;
        db->inode = st.st_ino;
        db->next = all_open;
        all_open = db;
    }
    db->refs++;
    node->db = db;
    apr_pool_cleanup_register(pchild, db, db_close, apr_pool_cleanup_null);
leave:
    unlock_all();
    return rv;
}

static apr_time_t expiry_of(const MDB_val *val)
{
    const unsigned char *p = val->mv_data;
    apr_uint64_t t = 0;
    int i;

    for (i = 0; i < 8; i++) {
        t = t << 8 | p[i];
    }
    return (apr_time_t)t;
}

static int is_there(const MDB_val *val, apr_time_t now)
{
    return val->mv_size >= 8 && (expiry_of(val) == 0 || expiry_of(val) > now);
}

static MDB_val val_of(const char *key)
{
    MDB_val val = { strlen(key), (void *)key };

    return val;
}

static apr_status_t get(ha_node *node, ha_call *call, const char *key, ha_blob *out)
{
    MDB_val k = val_of(key), v;
    MDB_txn *txn;
    int err;

    if (0 != (err = mdb_txn_begin(node->db->env, NULL, MDB_RDONLY, &txn))) {
        return broken(call, err);
    }
    err = mdb_get(txn, node->db->dbi, &k, &v);
    if (err == 0 && !is_there(&v, apr_time_now())) {
        err = MDB_NOTFOUND;
    }
    if (err == 0) {
        out->len = v.mv_size - 8;
        out->data = apr_pmemdup(call->pool, (const char *)v.mv_data + 8, out->len + !out->len);
    }
    mdb_txn_abort(txn);
    return err ? broken(call, err) : APR_SUCCESS;
}

/* Is there room for so many bytes, without the reserve? Pages that were used before are counted only when those
 * that never were run short: LMDB shows its table of free pages (number 0: for each transaction a list, its length
 * first) to read transactions only. */
static int has_room(ha_lmdb *db, apr_size_t len)
{
    apr_size_t need = len / db->page + 16 + RESERVE_PAGES, have, n;
    MDB_cursor *cursor;
    MDB_envinfo info;
    MDB_txn *txn;
    MDB_val k, v;

    mdb_env_info(db->env, &info);
    have = info.me_mapsize / db->page - info.me_last_pgno - 1;
    if (have < need && 0 == mdb_txn_begin(db->env, NULL, MDB_RDONLY, &txn)) {
        if (0 == mdb_cursor_open(txn, 0, &cursor)) {
            while (have < need && 0 == mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
                if (v.mv_size >= sizeof(n)) {
                    memcpy(&n, v.mv_data, sizeof(n));
                    have += n;
                }
            }
            mdb_cursor_close(cursor);
        }
        mdb_txn_abort(txn);
    }
    return have >= need;
}

/* only_new: an add. MDB_KEYEXIST: it is there. */
static int write_once(ha_lmdb *db, const char *key, const ha_blob *value, apr_time_t expires, int only_new)
{
    MDB_val k = val_of(key), v;
    MDB_txn *txn;
    unsigned char *p;
    int err, i;

    if (0 != (err = mdb_txn_begin(db->env, NULL, 0, &txn))) {
        return err;
    }
    if (only_new && 0 == mdb_get(txn, db->dbi, &k, &v) && is_there(&v, apr_time_now())) {
        err = MDB_KEYEXIST;
        goto leave;
    }
    if (!has_room(db, value->len)) {
        err = MDB_MAP_FULL;
        goto leave;
    }
    v.mv_size = 8 + value->len;
    if (0 != (err = mdb_put(txn, db->dbi, &k, &v, MDB_RESERVE))) {
        goto leave;
    }
    p = v.mv_data;
    for (i = 0; i < 8; i++) {
        p[i] = (unsigned char)((apr_uint64_t)expires >> (56 - 8 * i));
    }
    if (value->len) {
        memcpy(p + 8, value->data, value->len);
    }
    err = mdb_txn_commit(txn);
    txn = NULL;
leave:
    if (txn) {
        mdb_txn_abort(txn);
    }
    return err;
}

static int sweep_once(ha_lmdb *db, apr_time_t now, apr_pool_t *p, int *swept);

static apr_status_t write_value(ha_node *node, ha_call *call, const char *key, const ha_blob *value, apr_time_t expires, int only_new)
{
    int err = write_once(node->db, key, value, expires, only_new), swept = 0, dead = 0;

    /* Full: what has expired makes room, at once, and once; and the places of readers that were killed, which
     * keep old pages from being used again. */
    if (err == MDB_MAP_FULL && 0 == mdb_reader_check(node->db->env, &dead) && 0 == sweep_once(node->db, apr_time_now(), call->pool, &swept) && swept + dead > 0) {
        err = write_once(node->db, key, value, expires, only_new);
    }
    if (err == MDB_KEYEXIST) {
        return APR_EEXIST;
    }
    return err ? broken(call, err) : APR_SUCCESS;
}

static apr_status_t put(ha_node *node, ha_call *call, const char *key, const ha_blob *value, apr_time_t expires)
{
    return write_value(node, call, key, value, expires, 0);
}

static apr_status_t add(ha_node *node, ha_call *call, const char *key, const ha_blob *value, apr_time_t expires)
{
    return write_value(node, call, key, value, expires, 1);
}

static apr_status_t remove_(ha_node *node, ha_call *call, const char *key)
{
    MDB_val k = val_of(key);
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
    MDB_val k = val_of(key), v, w;
    MDB_txn *txn;
    unsigned char *p;
    int err, i;

    if (0 != (err = mdb_txn_begin(node->db->env, NULL, 0, &txn))) {
        return broken(call, err);
    }
    err = mdb_get(txn, node->db->dbi, &k, &v);
    if (err == 0 && !is_there(&v, apr_time_now())) {
        err = MDB_NOTFOUND;
    }
    if (err == 0) {
        /* mdb_put may move the page that v points into */
        p = apr_pmemdup(call->pool, v.mv_data, v.mv_size);
        for (i = 0; i < 8; i++) {
            p[i] = (unsigned char)((apr_uint64_t)expires >> (56 - 8 * i));
        }
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

/* Finds what has expired under a read transaction, which holds up nobody, and removes it SWEEP_BATCH keys at
 * a time, looking again: it may have been written anew meanwhile. */
static int sweep_once(ha_lmdb *db, apr_time_t now, apr_pool_t *p, int *swept)
{
    char *from = NULL;
    apr_size_t from_len = 0;
    int err = 0, full = 1;

    while (full && err == 0) {
        MDB_val keys[SWEEP_BATCH], k, v;
        MDB_cursor *cursor;
        MDB_txn *txn;
        apr_pool_t *batch;
        int n = 0, i;

        if (APR_SUCCESS != apr_pool_create(&batch, p)) {
            return ENOMEM;
        }
        if (0 != (err = mdb_txn_begin(db->env, NULL, MDB_RDONLY, &txn))) {
            break;
        }
        if (0 != (err = mdb_cursor_open(txn, db->dbi, &cursor))) {
            mdb_txn_abort(txn);
            break;
        }
        k.mv_data = from;
        k.mv_size = from_len;
        for (err = mdb_cursor_get(cursor, &k, &v, from ? MDB_SET_RANGE : MDB_FIRST); err == 0 && n < SWEEP_BATCH;
             err = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
            if (!is_there(&v, now)) {
                keys[n].mv_size = k.mv_size;
                keys[n++].mv_data = apr_pmemdup(batch, k.mv_data, k.mv_size);
            }
        }
        full = n == SWEEP_BATCH && err == 0;
        err = err == MDB_NOTFOUND ? 0 : err;
        mdb_cursor_close(cursor);
        mdb_txn_abort(txn);
        if (err == 0 && n > 0) {
            from_len = keys[n - 1].mv_size;
            from = apr_pmemdup(p, keys[n - 1].mv_data, from_len);
            if (0 != (err = mdb_txn_begin(db->env, NULL, 0, &txn))) {
                break;
            }
            for (i = 0; i < n; i++) {
                if (0 == mdb_get(txn, db->dbi, &keys[i], &v) && !is_there(&v, now)
                    && 0 == mdb_del(txn, db->dbi, &keys[i], NULL)) {
                    ++*swept;
                }
            }
            err = mdb_txn_commit(txn);
        }
        apr_pool_destroy(batch);
    }
    return err;
}

static apr_status_t sweep(ha_node *node, ha_call *call, apr_time_t now)
{
    int dead = 0, swept = 0, err;

    mdb_reader_check(node->db->env, &dead);
    err = sweep_once(node->db, now, call->pool, &swept);
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
    .touch = touch,
    .sweep = sweep,
    .probe = probe,
};
