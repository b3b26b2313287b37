/* session_pack.c - see session_pack.h.
 *
 * zstd, at its fastest level: of a serialised Java session it leaves a third at 400 MB a second, and what
 * cannot be compressed costs next to nothing (zlib: a fifth of the speed, and 50 MB a second for the latter).
 * A context is made for each state: kept ones would cost a megabyte a thread for something that is rare. */
#ifdef HAVE_CONFIG_H
#include "autoconf.h"
#endif

#include "session_pack.h"

#ifdef HAVE_ZSTD
#include <zstd.h>
#endif

#include "session_field.h"

void ha_pack(ha_record *r, apr_pool_t *p)
{
#ifdef HAVE_ZSTD
    apr_size_t most, len;
    char *packed;

    if (r->gone || r->base64 || r->packed || r->state.len < HA_PACK_FLOOR || r->state.len > APR_INT32_MAX)
        return;
    /* no room for more than would be kept: what does not fit is not worth it */
    most = r->state.len - r->state.len / 8;
    packed = apr_palloc(p, most);
    len = ZSTD_compress(packed, most, r->state.data, r->state.len, 1);
    if (ZSTD_isError(len))
        return;
    r->packed = (apr_uint32_t)r->state.len;
    r->state.data = packed;
    r->state.len = len;
#endif
}

apr_status_t ha_unpack(const ha_record *r, apr_size_t max, apr_pool_t *p, ha_blob *out, const char **why)
{
    apr_status_t rv = APR_SUCCESS;

    *out = r->state;
    if (r->base64) {
        rv = ha_field_base64_decode(&r->state, p, out);
        if (rv != APR_SUCCESS)
            *why = "the stored state is not base64";
    }
    else if (r->packed) {
#ifdef HAVE_ZSTD
        char *plain;

        if (r->packed > max) {
            *why = "the stored state is larger than SessionHAMaxSize";
            rv = APR_EINVAL;
            goto leave;
        }
        /* what it says of its own length is not asked: this is all the room it gets */
        plain = apr_palloc(p, r->packed);
        if (ZSTD_decompress(plain, r->packed, r->state.data, r->state.len) != r->packed) {
            *why = "the stored state cannot be decompressed";
            rv = APR_EINVAL;
            goto leave;
        }
        out->data = plain;
        out->len = r->packed;
#else
        *why = "the stored state is compressed, and this module was built without zstd";
        rv = APR_ENOTIMPL;
        goto leave;
#endif
    }
leave:
    if (rv != APR_SUCCESS) {
        out->data = NULL;
        out->len = 0;
    }
    return rv;
}
