/* store_lmdb.h - the environments of this process, and values in them, in LMDB's own words: 0 or an MDB_ error.
 * Only the two files of the lmdb: store include it. */
#ifndef HA_STORE_LMDB_H
#define HA_STORE_LMDB_H

#include <lmdb.h>

#include "../mod_session_ha.h"

typedef struct ha_lmdb {        /* an environment, shared by all stores of the process that have its directory */
    struct ha_lmdb *next;
    dev_t device;
    ino_t inode;
    int refs;
    apr_size_t page;
    MDB_env *env;
    MDB_dbi dbi;
} ha_lmdb;

/* Opens and closes it: 0, or why it cannot be. In a process that has it open already this must not be called. */
int ha_lmdb_check(const char *dir, apr_size_t size);

/* After the fork. An errno, or an MDB_ error. */
int ha_lmdb_open(ha_lmdb **, const char *dir, apr_size_t size);
void ha_lmdb_close(ha_lmdb *);

MDB_val ha_lmdb_key(const char *key);
/* Is there a value, and has it not expired? */
int ha_lmdb_is_there(const MDB_val *, apr_time_t now);
#define HA_LMDB_HEAD 8          /* bytes before the value: when it expires */
void ha_lmdb_set_expiry(unsigned char head[HA_LMDB_HEAD], apr_time_t expires);

/* Reads each key in this transaction; values are copied into p. */
void ha_lmdb_look(ha_lmdb *, MDB_txn *, ha_look *looks, int n, apr_pool_t *p);
/* only_new: an add. looks: what is read in the same transaction, after it. MDB_KEYEXIST: it is there. MDB_MAP_FULL leaves a reserve, so that a sweep can still work.
 * ETIMEDOUT: the lock came after the deadline, when somebody else may have written something newer. */
int ha_lmdb_write(ha_lmdb *, const char *key, const ha_blob *value, apr_time_t expires, int only_new, apr_time_t deadline,
                  ha_look *looks, int n, apr_pool_t *p);
/* Removes what has expired; *swept counts. */
int ha_lmdb_sweep(ha_lmdb *, apr_time_t now, apr_pool_t *p, int *swept);

#endif
