/* session_record.c - a record as bytes, before it is sealed. Integers are big-endian.
 *
 *   0        1        2                  6              10                18
 *   +--------+--------+--------+---------+--------------+-----------------+
 *   | format | flags  |     length       | ttl          | made            |
 *   +--------+--------+------------------+--------------+-----------------+
 *   18                26                 34             36                38
 *   +-----------------+------------------+--------------+-----------------+
 *   | epoch           | seq              | route length | at length       |
 *   +-----------------+------------------+--------------+-----------------+
 *   38
 *   +----------------------+-------------+--------------------------------+
 *   | route                | at          | state: all that is left        |
 *   +----------------------+-------------+--------------------------------+
 *
 * flags: 1 gone, 2 answered, 4 base64.
 * format 1: the state as it is; the length is 0 and not looked at.
 * format 2: the state is compressed (session_pack.c); the length is its own. Written for nothing else, so that an
 *           httpd that knows only format 1 still reads all other records. */
#include "session_record.h"

#include <limits.h>
#include <string.h>
#include <apr_strings.h>

#define PLAIN  1
#define PACKED 2

enum { AT_FORMAT = 0, AT_FLAGS = 1, AT_LENGTH = 2, AT_TTL = 6, AT_MADE = 10, AT_EPOCH = 18, AT_SEQ = 26,
       AT_ROUTE_LEN = 34, AT_AT_LEN = 36, HEAD = 38 };

#define GONE     1
#define ANSWERED 2
#define BASE64   4

static void put16(unsigned char *to, apr_uint64_t n)
{
    to[0] = (unsigned char)(n >> 8);
    to[1] = (unsigned char)n;
}

static void put32(unsigned char *to, apr_uint64_t n)
{
    put16(to, n >> 16);
    put16(to + 2, n);
}

static void put64(unsigned char *to, apr_uint64_t n)
{
    put32(to, n >> 32);
    put32(to + 4, n);
}

static apr_uint64_t get(const unsigned char *from, int bytes)
{
    apr_uint64_t n = 0;
    int i;

    for (i = 0; i < bytes; i++)
        n = n << 8 | from[i];
    return n;
}

apr_status_t ha_record_encode(const ha_record *r, apr_pool_t *p, ha_blob *out)
{
    const apr_size_t route_len = r->route ? strlen(r->route) : 0, at_len = r->at ? strlen(r->at) : 0;
    const apr_size_t state_len = r->gone ? 0 : r->state.len;
    unsigned char *b;

    out->data = NULL;
    out->len = 0;
    if (route_len > HA_ROUTE_MAX || at_len > HA_AT_MAX || state_len > INT_MAX || r->made < 0
        || (r->packed && (r->gone || r->base64 || state_len >= r->packed)))
        return APR_EINVAL;

    out->len = HEAD + route_len + at_len + state_len;
    out->data = b = apr_palloc(p, out->len);
    b[AT_FORMAT] = r->packed ? PACKED : PLAIN;
    b[AT_FLAGS] = (unsigned char)((r->gone ? GONE : 0) | (r->answered ? ANSWERED : 0) | (r->base64 ? BASE64 : 0));
    put32(b + AT_LENGTH, r->packed);
    put32(b + AT_TTL, r->ttl);
    put64(b + AT_MADE, (apr_uint64_t)r->made);
    put64(b + AT_EPOCH, r->version.epoch);
    put64(b + AT_SEQ, r->version.seq);
    put16(b + AT_ROUTE_LEN, route_len);
    put16(b + AT_AT_LEN, at_len);
    b += HEAD;
    if (route_len)
        memcpy(b, r->route, route_len);
    if (at_len)
        memcpy(b + route_len, r->at, at_len);
    if (state_len)
        memcpy(b + route_len + at_len, r->state.data, state_len);
    return APR_SUCCESS;
}

apr_status_t ha_record_decode(const ha_blob *bytes, apr_pool_t *p, ha_record *out, const char **why)
{
    const unsigned char *b = bytes->data;
    const char *wrong = NULL;
    apr_size_t route_len, at_len;
    apr_uint64_t made;

    memset(out, 0, sizeof(*out));
    if (bytes->len < 1)
        wrong = "record is empty";
    else if (b[AT_FORMAT] > PACKED)
        wrong = "record is of a future format";
    else if (b[AT_FORMAT] < PLAIN)
        wrong = "record is of no known format";
    else if (bytes->len < HEAD)
        wrong = "record is truncated";
    if (wrong)
        goto leave;

    route_len = (apr_size_t)get(b + AT_ROUTE_LEN, 2);
    at_len = (apr_size_t)get(b + AT_AT_LEN, 2);
    made = get(b + AT_MADE, 8);
    if (route_len > HA_ROUTE_MAX || at_len > HA_AT_MAX)
        wrong = "record has a route or a path that is too long";
    else if (route_len + at_len > bytes->len - HEAD)
        wrong = "record is truncated";
    else if (memchr(b + HEAD, '\0', route_len + at_len))
        wrong = "record has a NUL in a route or a path";
    else if (b[AT_FLAGS] & ~(GONE | ANSWERED | BASE64))
        wrong = "record has unknown flags";
    else if (made > APR_INT64_MAX)
        wrong = "record was made at no time";
    else if ((b[AT_FLAGS] & GONE) && bytes->len > HEAD + route_len + at_len)
        wrong = "record is gone and has a state";
    else if (b[AT_FORMAT] == PACKED && ((b[AT_FLAGS] & (GONE | BASE64)) || get(b + AT_LENGTH, 4) > INT_MAX
                                        || get(b + AT_LENGTH, 4) <= bytes->len - HEAD - route_len - at_len))
        wrong = "record is compressed and larger than without";
    if (wrong)
        goto leave;

    out->version.epoch = get(b + AT_EPOCH, 8);
    out->version.seq = get(b + AT_SEQ, 8);
    out->ttl = (apr_uint32_t)get(b + AT_TTL, 4);
    out->made = (apr_time_t)made;
    out->gone = !!(b[AT_FLAGS] & GONE);
    out->answered = !!(b[AT_FLAGS] & ANSWERED);
    out->base64 = !!(b[AT_FLAGS] & BASE64);
    out->packed = b[AT_FORMAT] == PACKED ? (apr_uint32_t)get(b + AT_LENGTH, 4) : 0;
    b += HEAD;
    out->route = apr_pstrmemdup(p, (const char *)b, route_len);
    out->at = apr_pstrmemdup(p, (const char *)b + route_len, at_len);
    out->state.data = b + route_len + at_len;
    out->state.len = bytes->len - HEAD - route_len - at_len;

leave:
    if (!wrong)
        return APR_SUCCESS;
    *why = wrong;
    return APR_EINVAL;
}
