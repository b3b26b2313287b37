/* session_field.h - the protocol's fields (doc/protocol.md), RFC 9651 dictionaries: parse
 * and write. Pure. Hostile input: every bound is checked, nothing is copied but what is
 * asked for. Unknown members and parameters are skipped; a duplicate key's last value wins
 * (RFC 9651 3.2); anything malformed is APR_EINVAL and gives nothing. */
#ifndef HA_SESSION_FIELD_H
#define HA_SESSION_FIELD_H

#include "../mod_session_ha.h"

typedef struct ha_field_backup {            /* Session-Backup, from a member */
    const char *id;             /* in the pool, NUL-terminated, the strict alphabet of session_id.h */
    const char *was;            /* NULL, or the id before it changed */
    const char *at;             /* NULL, or a path: '/', no '//' first, ends in HA_WELL_KNOWN, no control bytes, query, fragment,
                                 * path parameter or dot segment, <= HA_AT_MAX */
    ha_version  version;        /* epoch >= 1; seq >= 0. With gone only, either may be 0: not given */
    apr_int64_t ttl;            /* seconds, 1 to HA_TTL_MAX; -1: not given */
    apr_int64_t size;           /* bytes of a state to be fetched; -1: not given */
    ha_blob     state;          /* base64 text as received (between the colons), pointing into the value or, where padding was missing, the pool; data
                                 * NULL: none */
    int gone;                   /* logged out or expired */
    apr_int64_t running;        /* requests of the session at the member: asked to let it leave; -1: not given */
} ha_field_backup;

/* value: the field's value, NUL-terminated; it must outlive out->state. Valid only with an id and
 * exactly one of: gone; state; size; the last two with epoch and seq. state is only cut out, not looked at. APR_EINVAL and why (static text) otherwise. */
apr_status_t ha_field_parse_backup(const char *value, apr_pool_t *p, ha_field_backup *out, const char **why);

/* The one that comes with a fetched state: seq is all that must be there. id NULL, epoch 0, size -1: not given. */
apr_status_t ha_field_parse_fetched(const char *value, apr_pool_t *p, ha_field_backup *out, const char **why);

/* Session-Missing: id="...": the id, in the pool. left: httpd has asked the member to let the session leave, and it did. APR_EINVAL. */
apr_status_t ha_field_parse_missing(const char *value, apr_pool_t *p, const char **id, int *left);

/* Is it base64 (RFC 4648 4, padded), and how long decoded? APR_EINVAL if not. */
apr_status_t ha_field_base64_check(const ha_blob *text, apr_size_t *decoded);
apr_status_t ha_field_base64_decode(const ha_blob *text, apr_pool_t *p, ha_blob *out);
const char  *ha_field_base64_encode(const ha_blob *bytes, apr_pool_t *p);

/* Writers; all strings are checked by the caller (id: the strict alphabet). */
const char *ha_field_accept(apr_pool_t *p, apr_size_t inline_max);
/* state_b64 NULL: it is the body. former: a former owner's state; a member that has told under v.epoch has a better one. */
const char *ha_field_restore(apr_pool_t *p, const char *id, ha_version v, const char *state_b64, const char *mac_b64, int former);
const char *ha_field_restore_none(apr_pool_t *p, const char *id);
/* leave: the session is going to be moved: let no more requests of it begin, and say how many are running. */
const char *ha_field_fetch(apr_pool_t *p, const char *id, apr_int64_t time_s, const char *mac_b64, int leave);

#endif
