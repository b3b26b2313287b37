/* session_record.h - what is kept for a session, as bytes and back. Pure. */
#ifndef HA_SESSION_RECORD_H
#define HA_SESSION_RECORD_H

#include "../mod_session_ha.h"

#define HA_KIND_BACKUP 'B'      /* state, from a member */
#define HA_KIND_CLAIM  'C'      /* who owns an epoch */

typedef struct ha_record {
    ha_version version;
    apr_uint32_t ttl;           /* seconds, as the member said or SessionHATTL */
    apr_time_t  made;           /* when httpd took it */
    const char *route;          /* backup: the member that made it; claim: the owner */
    const char *at;             /* where the member takes restores; "" = HA_WELL_KNOWN */
    int gone;                   /* tombstone: logged out or expired; a state is not written */
    int answered;               /* claim: the first request of the session has been answered (gate open) */
    int base64;                 /* state is base64 text, as it came inline: decoded only when it is needed */
    apr_uint32_t packed;        /* state is compressed (session_pack.h): its own length; 0: it is not */
    ha_blob state;
} ha_record;

/* All integers big-endian, a format byte first; see the drawing in session_record.c. */
apr_status_t ha_record_encode(const ha_record *, apr_pool_t *p, ha_blob *out);
/* APR_EINVAL: truncated, of a future format, a length that lies. out points into bytes; strings are copied. why: static text. */
apr_status_t ha_record_decode(const ha_blob *bytes, apr_pool_t *p, ha_record *out, const char **why);

#endif
