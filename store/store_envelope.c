/* store_envelope.c - see the drawing in store_envelope.h. Pure. */
#include <string.h>

#include "store_envelope.h"

static void put32(unsigned char *p, apr_uint32_t v)
{
    p[0] = (unsigned char)(v >> 24);
    p[1] = (unsigned char)(v >> 16);
    p[2] = (unsigned char)(v >> 8);
    p[3] = (unsigned char)v;
}

static void put64(unsigned char *p, apr_uint64_t v)
{
    put32(p, (apr_uint32_t)(v >> 32));
    put32(p + 4, (apr_uint32_t)v);
}

static apr_uint32_t get32(const unsigned char *p)
{
    return (apr_uint32_t)p[0] << 24 | (apr_uint32_t)p[1] << 16 | (apr_uint32_t)p[2] << 8 | p[3];
}

static apr_uint64_t get64(const unsigned char *p)
{
    return (apr_uint64_t)get32(p) << 32 | get32(p + 4);
}

/* Eight bytes as a number, the same on every machine. */
static apr_uint64_t word(const unsigned char *p)
{
    apr_uint64_t w;

    memcpy(&w, p, 8);
#if APR_IS_BIGENDIAN
    w = (w & APR_UINT64_C(0x00ff00ff00ff00ff)) << 8 | (w >> 8 & APR_UINT64_C(0x00ff00ff00ff00ff));
    w = (w & APR_UINT64_C(0x0000ffff0000ffff)) << 16 | (w >> 16 & APR_UINT64_C(0x0000ffff0000ffff));
    w = w << 32 | w >> 32;
#endif
    return w;
}

/* This runs over every stored byte, on the path of a captured response: two words a step, and each of the four
 * operations can be undone, so a change of one word is never lost. */
#define STEP(h, v, w) ((h) = ((h) ^ (v)) * APR_UINT64_C(0x9e3779b97f4a7c15), (h) = ((h) << 29 | (h) >> 35) + (w))

static apr_uint64_t mix(apr_uint64_t h, const void *data, apr_size_t len)
{
    const unsigned char *p = data;
    apr_uint64_t last = 0;
    apr_size_t i;

    h ^= len;
    for (; len >= 64; p += 64, len -= 64) {
        STEP(h, word(p), word(p + 8));
        STEP(h, word(p + 16), word(p + 24));
        STEP(h, word(p + 32), word(p + 40));
        STEP(h, word(p + 48), word(p + 56));
    }
    for (; len >= 8; p += 8, len -= 8) {
        STEP(h, word(p), 0);
    }
    for (i = 0; i < len; i++) {
        last = last << 8 | p[i];
    }
    STEP(h, last, 0);
    h = (h ^ h >> 32) * APR_UINT64_C(0x9e3779b97f4a7c15);
    return h ^ h >> 29;
}

static apr_uint64_t checksum(const unsigned char *head, const char *key, const void *data, apr_size_t len)
{
    apr_uint64_t h = mix(APR_UINT64_C(0x73657373696f6e21), key, strlen(key));

    h = mix(h, head, 48);
    return mix(h, data, len);
}

static void head(unsigned char *out, const ha_envelope *env)
{
    out[0] = 'H';
    out[1] = 'A';
    out[2] = 1;
    out[3] = (unsigned char)env->kind;
    put32(out + 4, env->parts);
    put64(out + 8, env->version.epoch);
    put64(out + 16, env->version.seq);
    put64(out + 24, env->writer);
    put64(out + 32, env->length);
    put64(out + 40, (apr_uint64_t)env->expires);
}

void ha_envelope_write(unsigned char *out, ha_envelope *env, const char *key, const void *data)
{
    head(out, env);
    env->checksum = checksum(out, key, data, env->length);
    put64(out + 48, env->checksum);
}

int ha_envelope_fits(const ha_envelope *env, const char *key, const void *data)
{
    unsigned char bytes[48];

    head(bytes, env);
    return env->checksum == checksum(bytes, key, data, env->length);
}

apr_status_t ha_envelope_read(const ha_blob *bytes, const char *key, ha_envelope *env, const char **why)
{
    const unsigned char *p = bytes->data;

    if (bytes->len < HA_ENVELOPE_LEN || p[0] != 'H' || p[1] != 'A') {
        *why = "not a value of this module, or cut short";
        return APR_EINVAL;
    }
    if (p[2] != 1 || (p[3] != HA_ENVELOPE_VALUE && p[3] != HA_ENVELOPE_PARTS)) {
        *why = "a value in a format this version does not know";
        return APR_EINVAL;
    }
    env->kind = (char)p[3];
    env->parts = get32(p + 4);
    env->version.epoch = get64(p + 8);
    env->version.seq = get64(p + 16);
    env->writer = get64(p + 24);
    env->length = get64(p + 32);
    env->expires = (apr_time_t)get64(p + 40);
    env->checksum = get64(p + 48);
    if (env->kind == HA_ENVELOPE_VALUE) {
        if (env->parts != 0 || env->length != bytes->len - HA_ENVELOPE_LEN) {
            *why = "a value that is longer or shorter than it says";
            return APR_EINVAL;
        }
        if (!ha_envelope_fits(env, key, p + HA_ENVELOPE_LEN)) {
            *why = "a value whose checksum is wrong";
            return APR_EINVAL;
        }
    }
    else if (env->parts == 0 || env->length == 0 || env->parts > env->length || bytes->len != HA_ENVELOPE_LEN) {
        *why = "a list of parts that cannot be";
        return APR_EINVAL;
    }
    return APR_SUCCESS;
}
