/* store_lmdb_db.c - see store_lmdb.h; the layout is drawn in store_lmdb.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <apr_atomic.h>
#include <apr_strings.h>

#include "store_lmdb.h"

#define READERS_MAX   2048                      /* threads of all processes that read at one moment */
#define SWEEP_BATCH   200                       /* keys a transaction: writers wait for it */
/* To remove something, LMDB needs pages to write the changed ones to. Above the size that was configured the map has
 * so many more, which only removals may use: a store that is full can still be swept. */
#define RESERVE_PAGES 512

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
    /* The one without a name is always there. Only read: a new child must not wait for whoever has the write lock. */
    if (0 != (err = mdb_txn_begin(*env, NULL, MDB_RDONLY, &txn)) || 0 != (err = mdb_dbi_open(txn, NULL, 0, dbi))) {
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

int ha_lmdb_check(const char *dir, apr_size_t size)
{
    MDB_env *env;
    MDB_dbi dbi;
    int err = env_open(dir, size, &env, &dbi);

    if (err == 0) {
        mdb_env_close(env);
    }
    return err;
}

void ha_lmdb_close(ha_lmdb *db)
{
    ha_lmdb **at;

    lock_all();
    if (--db->refs == 0) {
        for (at = &all_open; *at != db; at = &(*at)->next)
            ;
        *at = db->next;
        mdb_env_close(db->env);
        free(db);
    }
    unlock_all();
}

int ha_lmdb_open(ha_lmdb **out, const char *dir, apr_size_t size)
{
    MDB_stat stat_of;
    struct stat st;
    ha_lmdb *db;
    int err = 0;

    lock_all();
    if (stat(dir, &st) != 0) {
        err = errno;
        goto leave;
    }
    for (db = all_open; db && (db->device != st.st_dev || db->inode != st.st_ino); db = db->next)
        ;
    if (db == NULL) {
        if (NULL == (db = calloc(1, sizeof(*db)))) {
            err = ENOMEM;
            goto leave;
        }
        if (0 != (err = env_open(dir, size, &db->env, &db->dbi))) {
            free(db);
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
    *out = db;
leave:
    unlock_all();
    return err;
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

void ha_lmdb_set_expiry(unsigned char head[HA_LMDB_HEAD], apr_time_t expires)
{
    int i;

    for (i = 0; i < 8; i++) {
        head[i] = (unsigned char)((apr_uint64_t)expires >> (56 - 8 * i));
    }
}

int ha_lmdb_is_there(const MDB_val *val, apr_time_t now)
{
    return val->mv_size >= 8 && (expiry_of(val) == 0 || expiry_of(val) > now);
}

MDB_val ha_lmdb_key(const char *key)
{
    MDB_val val = { strlen(key), (void *)key };

    return val;
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

void ha_lmdb_look(ha_lmdb *db, MDB_txn *txn, ha_look *looks, int n, apr_pool_t *p)
{
    apr_time_t now = apr_time_now();
    int i, err;

    for (i = 0; i < n; i++) {
        MDB_val k = ha_lmdb_key(looks[i].key), v;

        err = mdb_get(txn, db->dbi, &k, &v);
        looks[i].rv = err == MDB_NOTFOUND || (err == 0 && !ha_lmdb_is_there(&v, now)) ? APR_NOTFOUND : err ? APR_EGENERAL : APR_SUCCESS;
        if (looks[i].rv == APR_SUCCESS) {
            looks[i].found.len = v.mv_size - HA_LMDB_HEAD;
            looks[i].found.data = apr_pmemdup(p, (const char *)v.mv_data + HA_LMDB_HEAD, looks[i].found.len + !looks[i].found.len);
        }
    }
}

int ha_lmdb_write(ha_lmdb *db, const char *key, const ha_blob *value, apr_time_t expires, int only_new, apr_time_t deadline,
                  ha_look *looks, int n, apr_pool_t *pool)
{
    MDB_val k = ha_lmdb_key(key), v;
    MDB_txn *txn;
    unsigned char *p;
    int err;

    if (0 != (err = mdb_txn_begin(db->env, NULL, 0, &txn))) {
        return err;
    }
    if (apr_time_now() > deadline) {
        err = ETIMEDOUT;
        goto leave;
    }
    if (only_new && 0 == mdb_get(txn, db->dbi, &k, &v) && ha_lmdb_is_there(&v, apr_time_now())) {
        ha_lmdb_look(db, txn, looks, n, pool);
        err = MDB_KEYEXIST;
        goto leave;
    }
    if (!has_room(db, value->len)) {
        ha_lmdb_look(db, txn, looks, n, pool);
        err = MDB_MAP_FULL;
        goto leave;
    }
    v.mv_size = 8 + value->len;
    if (0 != (err = mdb_put(txn, db->dbi, &k, &v, MDB_RESERVE))) {
        goto leave;
    }
    p = v.mv_data;
    ha_lmdb_set_expiry(p, expires);
    if (value->len) {
        memcpy(p + 8, value->data, value->len);
    }
    ha_lmdb_look(db, txn, looks, n, pool);
    err = mdb_txn_commit(txn);
    txn = NULL;
leave:
    if (txn) {
        mdb_txn_abort(txn);
    }
    return err;
}

/* Finds what has expired under a read transaction, which holds up nobody, and removes it SWEEP_BATCH keys at
 * a time, looking again: it may have been written anew meanwhile. */
int ha_lmdb_sweep(ha_lmdb *db, apr_time_t now, apr_pool_t *p, int *swept)
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
            if (!ha_lmdb_is_there(&v, now)) {
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
                if (0 == mdb_get(txn, db->dbi, &keys[i], &v) && !ha_lmdb_is_there(&v, now)
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
