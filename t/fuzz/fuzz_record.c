/* fuzz_record.c - what a store gives back. First byte 'B' or 'C': as sealed bytes, which must never open; any other: as a
 * record, which must come back the same when it is written again. */
#include "fuzz.h"
#include "session/session_pack.h"
#include "session/session_seal.h"

#define STATE_MAX (1024 * 1024)

static apr_pool_t *kept;

/* Before libcrypto's own clean-up, and because LeakSanitizer does not look into APR's mapped pools. */
static void forget(void)
{
    apr_pool_destroy(kept);
}

static void check_sealed(const ha_blob *bytes, apr_pool_t *p)
{
    static ha_secret *secret;
    static ha_digest digest;
    const ha_version v = { 3, 19 };
    ha_blob plain;
    const char *why = NULL;
    apr_status_t rv;

    if (!secret) {
        ha_blob now = { "0123456789abcdef0123456789abcdef", 32 }, old = { "fedcba9876543210fedcba9876543210", 32 };
        apr_pool_create(&kept, NULL);
        HOLDS(!ha_secret_make(&secret, &now, &old, kept));
        ha_digest_make("balancer://tomcats", "ABC", &digest);
        atexit(forget);
    }
    rv = ha_open(secret, 'B', &digest, v, bytes, p, &plain, &why);
    HOLDS((rv == APR_EINVAL || rv == APR_EACCES) && why && !plain.data && !plain.len);
}

static void check_record(const ha_blob *bytes, apr_pool_t *p)
{
    const unsigned char *in = bytes->data, *out;
    const char *why = NULL;
    ha_record r;
    ha_blob again, state;

    if (ha_record_decode(bytes, p, &r, &why) != APR_SUCCESS) {
        HOLDS(why && !r.route && !r.at && !r.state.data);
        return;
    }
    HOLDS(strlen(r.route) <= HA_ROUTE_MAX && strlen(r.at) <= HA_AT_MAX && r.made >= 0 && (!r.gone || !r.state.len));
    HOLDS((const unsigned char *)r.state.data >= in && (const unsigned char *)r.state.data + r.state.len == in + bytes->len);
    HOLDS(ha_record_encode(&r, p, &again) == APR_SUCCESS && again.len == bytes->len);
    out = again.data;
    HOLDS(memcmp(in, out, 2) == 0 && memcmp(in + 6, out + 6, bytes->len - 6) == 0);     /* all but a length that nobody looks at */
    if (ha_unpack(&r, STATE_MAX, p, &state, &why) == APR_SUCCESS)
        HOLDS(r.packed ? state.len == r.packed && state.len <= STATE_MAX : r.base64 || state.data == r.state.data);
    else
        HOLDS((r.packed || r.base64) && why && !state.data && !state.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *exact = fuzz_copy(data, size, 0);
    apr_pool_t *p = fuzz_pool();
    ha_blob bytes = { exact, size };

    if (size && (data[0] == 'B' || data[0] == 'C'))
        check_sealed(&bytes, p);
    else
        check_record(&bytes, p);
    free(exact);
    return 0;
}
