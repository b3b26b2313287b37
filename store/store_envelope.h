/* store_envelope.h - the few bytes the store puts before every value it keeps.
 *
 * A copy must say by itself which version it is, so that copies can be compared without the
 * secret, and that it is whole, so that a truncated or foreign one is never taken for an answer.
 * The checksum covers the key too: a reply that belongs to another key (a connection out of
 * step) is as broken as a garbled one. It guards against accidents; against forgery the
 * session room seals what is inside.
 *
 *    0  "HA"  format(1)=1  kind(1)      kind: 'V' the value follows; 'M' the value is in parts
 *    4  parts(4)                        'V': 0
 *    8  epoch(8)
 *   16  seq(8)
 *   24  writer(8)                       random, of one put or add: "is this the one I wrote?"
 *   32  length(8)                       of the value
 *   40  expires(8)                      microseconds since 1970, 0: does not; as it was written (see below)
 *   48  checksum(8)                     over key, bytes 0-47 and the value
 *   56  the value ('V'), or nothing ('M')
 *
 * All integers big-endian.
 *
 * When a copy ends is the node's business, by its own clock; a touch moves that and writes no byte of the copy: what
 * reads, changes and writes could put an older version over a newer one. So `expires` is where a copy that was never
 * touched ends, and so ends what is made of it by a repair. One that is there later was touched.
 */
#ifndef HA_STORE_ENVELOPE_H
#define HA_STORE_ENVELOPE_H

#include "store.h"

#define HA_ENVELOPE_LEN 56
#define HA_ENVELOPE_VALUE 'V'
#define HA_ENVELOPE_PARTS 'M'

typedef struct ha_envelope {
    char kind;
    apr_uint32_t parts;
    ha_version version;
    apr_uint64_t writer;
    apr_uint64_t length;
    apr_time_t expires;
    apr_uint64_t checksum;
} ha_envelope;

/* Writes HA_ENVELOPE_LEN bytes; env->checksum is set. data: the whole value, env->length bytes. */
void ha_envelope_write(unsigned char *out, ha_envelope *env, const char *key, const void *data);

/* Reads the header and, for kind 'V', checks the value behind it. APR_EINVAL and why (static text). */
apr_status_t ha_envelope_read(const ha_blob *bytes, const char *key, ha_envelope *env, const char **why);

/* The parts of kind 'M', put together: is this the value? */
int ha_envelope_fits(const ha_envelope *env, const char *key, const void *data);

#endif
