/* session_failover.h - move a session: look (who owns it, is there a backup), claim it.
 *
 * Plain values in and out; nothing is logged or counted here, the caller does so once with the
 * finished ha_move. Keys in the store:
 *   ha:b:<digest>            the newest backup of an odd epoch
 *   ha:b:<digest>:2          the newest backup of an even epoch
 *   ha:c:<digest>:<epoch>    the claim: which member owns the session in that epoch
 * Two places for backups, so that what a former owner hands over late never overwrites its successor's.
 * Round trips to the store: look 1, claim and fetch 1 if the store has one node and can do both at once (doc/stores.md).
 * Who finds that the session has moved on meanwhile has one more for each claim that is followed, and one for the backup after it.
 */
#ifndef HA_SESSION_FAILOVER_H
#define HA_SESSION_FAILOVER_H

#include "../mod_session_ha.h"
#include "../store/store.h"
#include "session_record.h"
#include "session_seal.h"

typedef struct ha_session {                 /* which session, and where it is kept */
    ha_digest digest;
    ha_store *store;
    const ha_secret *secret;
    int claims_only;            /* the backups are not ours (SessionHABackup native) */
} ha_session;

typedef enum {
    HA_BACKUP_UNASKED, HA_BACKUP_FOUND, HA_BACKUP_ABSENT, HA_BACKUP_TOMBSTONE, HA_BACKUP_BROKEN,
    HA_NATIVE_FOUND, HA_NATIVE_ABSENT, HA_NATIVE_BROKEN     /* the application's own was asked for (session_native.h) */
} ha_backup_found;

typedef struct ha_move {
    ha_version  least;          /* in: acknowledged, as far as this httpd knows; what is older than that is no backup. seq 0: none */
    int shared;                 /* in: other httpds store here too, perhaps in another order: an older one may be all there ever is */
    ha_backup_found found;
    ha_record   record;         /* when FOUND or TOMBSTONE */
    ha_version  carries;        /* in, of a claim while the member lives: the backup that is handed over, at least; out: what a claim that
                                 * was read says. seq 0: nothing */
    apr_uint64_t epoch;         /* of the owner, as far as known; at least 1 */
    const char *owner;          /* its route; NULL: nobody said */
    const char *node;           /* the store's node that had the backup */
    const char *why;            /* what went wrong last, for the log */
    int outdated;               /* a record was there, and was older than least: the copies of that are lost */
    int forged;                 /* a record was there, and was not ours: truncated, of another session, key, format */
    int trips;                  /* round trips to the store so far */
} ha_move;

/* Reads the backup: fills found, record, epoch and owner. m->epoch: what is known; an older backup says nothing of the owner.
 * APR_SUCCESS unless the store is broken. */
apr_status_t ha_move_look(const ha_session *, ha_call *, ha_move *);

/* Has somebody claimed the next epoch already? APR_SUCCESS: yes, epoch and owner are the claim's now, or those of a backup that
 * says more. APR_NOTFOUND: no. Else broken. */
apr_status_t ha_move_follow(const ha_session *, ha_call *, ha_move *);

/* Claims the next epoch for `to`, and reads the backup; where too few nodes were heard, once more, for as long again, and all of
 * them. APR_SUCCESS: it is ours. APR_EEXIST: somebody was first; epoch and
 * owner are theirs. Else broken: the store cannot tell. ttl: seconds the session may idle. */
apr_status_t ha_move_claim(const ha_session *, ha_call *, ha_move *, const char *to, apr_uint32_t ttl);

/* Native mode: the first request of the moved session has been answered; tells other httpds' waiters. */
apr_status_t ha_move_answered(const ha_session *, ha_call *, const ha_move *, apr_uint32_t ttl);
/* 1: the claim of the current epoch says so. */
int ha_move_is_answered(const ha_session *, ha_call *, ha_move *);

/* Keys, for capture and tests. */
const char *ha_key_backup(const ha_digest *, apr_uint64_t epoch, apr_pool_t *p);
const char *ha_key_claim(const ha_digest *, apr_uint64_t epoch, apr_pool_t *p);

#endif
