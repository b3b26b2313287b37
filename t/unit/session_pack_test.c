/* States that are kept compressed: which, how, and what must not come out of a record that lies. */
#ifdef HAVE_CONFIG_H
#include "autoconf.h"
#endif

#include <stdlib.h>
#include <apr_general.h>
#include <apr_strings.h>
#include "tap.h"
#include "session/session_field.h"
#include "session/session_pack.h"

#define MAX (1024 * 1024)

static ha_record record_of(const void *data, apr_size_t len)
{
    ha_record r;

    memset(&r, 0, sizeof(r));
    r.version.epoch = 3;
    r.version.seq = 19;
    r.ttl = 1800;
    r.route = "tomcat1";
    r.at = "";
    r.state.data = data;
    r.state.len = len;
    return r;
}

/* What an application keeps: names over and over again, and values. */
static char *cart(apr_pool_t *p, apr_size_t len)
{
    char *text = apr_palloc(p, len + 64);
    apr_size_t n = 0;
    int i;

    for (i = 0; n < len; i++)
        n += (apr_size_t)sprintf(text + n, "article=%d colour=%08x quantity=1; ", i, (unsigned)i * 2654435761u);
    return text;
}

static char *noise(apr_pool_t *p, apr_size_t len)
{
    char *bytes = apr_palloc(p, len);
    unsigned r = 1;
    apr_size_t i;

    for (i = 0; i < len; i++) {
        r = r * 1103515245 + 12345;
        bytes[i] = (char)(r >> 16);
    }
    return bytes;
}

static int left_alone(const ha_record *r, const void *data, apr_size_t len)
{
    return !r->packed && r->state.data == data && r->state.len == len;
}

static void check_small(apr_pool_t *p)
{
    const char *text = cart(p, MAX), *bytes = noise(p, MAX), *why = NULL;
    ha_record r = record_of(text, HA_PACK_FLOOR - 1), back;
    ha_blob out, kept;

    ha_pack(&r, p);
    ok(left_alone(&r, text, HA_PACK_FLOOR - 1), "below the floor: left alone");
    ok(ha_record_encode(&r, p, &kept) == APR_SUCCESS && *(const char *)kept.data == 1, "and the record is one that every version reads");
    ok(ha_unpack(&r, 0, p, &out, &why) == APR_SUCCESS && out.data == text && out.len == HA_PACK_FLOOR - 1, "it comes back without a copy");
    r = record_of(bytes, MAX);
    ha_pack(&r, p);
    ok(left_alone(&r, bytes, MAX), "what does not get smaller: left alone");
    r = record_of(text, HA_PACK_FLOOR);
    r.gone = 1;
    ha_pack(&r, p);
    ok(left_alone(&r, text, HA_PACK_FLOOR), "a tombstone: left alone");
    out.data = text;
    out.len = 9000;
    r = record_of(ha_field_base64_encode(&out, p), 12000);
    r.base64 = 1;
    ha_pack(&r, p);
    ok(!r.packed && r.base64 && r.state.len == 12000, "what came inline: left alone");
    ok(ha_unpack(&r, 0, p, &out, &why) == APR_SUCCESS && out.len == 9000 && memcmp(out.data, text, 9000) == 0, "and decoded");
    r.state.len--;
    ok(ha_unpack(&r, 0, p, &out, &why) == APR_EINVAL && strstr(why, "base64") && !out.data, "what is not base64: not brought back");
    r = record_of(text, 100000);
    r.packed = 1;
    ok(ha_record_encode(&r, p, &kept) == APR_EINVAL, "a record that says less than it has is not written");
    r.packed = 100001;
    r.base64 = 1;
    ok(ha_record_encode(&r, p, &kept) == APR_EINVAL, "nor one that is base64 and compressed");
    r = record_of(text, 100);
    r.packed = 200;
    ok(ha_record_encode(&r, p, &kept) == APR_SUCCESS && ha_record_decode(&kept, p, &back, &why) == APR_SUCCESS && back.packed == 200,
       "a compressed one is read as that");
    ((unsigned char *)kept.data)[1] = 4;
    ok(ha_record_decode(&kept, p, &back, &why) == APR_EINVAL, "and with a flag that says base64 it is none");
}

#ifdef HAVE_ZSTD

static void check_there_and_back(apr_pool_t *p)
{
    static const apr_size_t sizes[] = { HA_PACK_FLOOR, HA_PACK_FLOOR + 1, 65536, 1000000, MAX };
    const char *text = cart(p, MAX), *bytes = noise(p, MAX), *why;
    ha_record r, back;
    ha_blob kept, out;
    size_t i;

    for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        r = record_of(text, sizes[i]);
        ha_pack(&r, p);
        ok(r.packed == sizes[i] && r.state.len < sizes[i] / 2, "%d bytes are kept as %d", (int)sizes[i], (int)r.state.len);
        why = "";
        ok(ha_record_encode(&r, p, &kept) == APR_SUCCESS && ha_record_decode(&kept, p, &back, &why) == APR_SUCCESS
           && back.packed == sizes[i] && ha_unpack(&back, sizes[i], p, &out, &why) == APR_SUCCESS
           && out.len == sizes[i] && memcmp(out.data, text, sizes[i]) == 0, "and come back from the record, byte for byte %s", why);
    }
    /* seven eighths and a bit: worth nothing */
    memcpy((char *)text, bytes, 65536 - 65536 / 10);
    r = record_of(text, 65536);
    ha_pack(&r, p);
    ok(left_alone(&r, text, 65536), "a tenth less: left alone");
    memcpy((char *)text, bytes, 65536 - 65536 / 4);
    memset((char *)text + 65536 - 65536 / 4, 0, 65536 / 4);
    r = record_of(text, 65536);
    ha_pack(&r, p);
    ok(r.packed && r.state.len < 65536 - 65536 / 8, "a quarter less: kept so (%d)", (int)r.state.len);
}

static void check_refused(apr_pool_t *p)
{
    const apr_size_t len = 200000;
    char *zeros = apr_pcalloc(p, 100 * MAX);
    const char *text = cart(p, len), *why = NULL;
    ha_record r = record_of(text, len), bomb = record_of(zeros, 100 * MAX), bad;
    ha_blob out;
    unsigned char *copy;
    apr_size_t n, taken = 0, wrong = 0;

    ha_pack(&r, p);
    ok(ha_unpack(&r, len - 1, p, &out, &why) == APR_EINVAL && strstr(why, "SessionHAMaxSize") && !out.data && !out.len, "one byte more than SessionHAMaxSize: not brought back");
    ha_pack(&bomb, p);
    ok(bomb.packed == 100 * MAX && bomb.state.len < 20000, "100 MB of zeros are %d bytes", (int)bomb.state.len);
    ok(ha_unpack(&bomb, MAX, p, &out, &why) == APR_EINVAL && !out.data, "which are not brought back");
    bomb.packed = MAX;
    ok(ha_unpack(&bomb, MAX, p, &out, &why) == APR_EINVAL && strstr(why, "decompressed") && !out.data, "nor when the record says it were less");
    bad = r;
    bad.packed = (apr_uint32_t)len + 1;
    ok(ha_unpack(&bad, MAX, p, &out, &why) == APR_EINVAL && !out.data, "a length that is one too many");
    bad.packed = (apr_uint32_t)len - 1;
    ok(ha_unpack(&bad, MAX, p, &out, &why) == APR_EINVAL && !out.data, "one too few");
    bad = r;
    for (n = 0; n < r.state.len; n += 97) {
        bad.state.len = n;
        bad.state.data = copy = malloc(n + !n);
        memcpy(copy, r.state.data, n);
        taken += ha_unpack(&bad, MAX, p, &out, &why) == APR_SUCCESS;
        free(copy);
    }
    ok(!taken, "truncated: not brought back");
    bad.state.len = r.state.len;
    bad.state.data = copy = malloc(r.state.len);
    for (n = 0; n < r.state.len; n += 13) {
        memcpy(copy, r.state.data, r.state.len);
        copy[n] ^= 0x55;
        /* the seal tells what was changed; here it must only stay within its room */
        wrong += ha_unpack(&bad, MAX, p, &out, &why) == APR_SUCCESS && out.len != len;
    }
    free(copy);
    ok(!wrong, "changed bytes: nothing, or as many as there were");
}

#else

static void check_there_and_back(apr_pool_t *p)
{
    const char *text = cart(p, MAX);
    ha_record r = record_of(text, MAX);

    ha_pack(&r, p);
    ok(left_alone(&r, text, MAX), "without zstd nothing is compressed");
}

static void check_refused(apr_pool_t *p)
{
    ha_record r = record_of("(/\xb5/\xfd", 5);
    const char *why = NULL;
    ha_blob out;

    r.packed = 100;
    ok(ha_unpack(&r, MAX, p, &out, &why) == APR_ENOTIMPL && strstr(why, "zstd") && !out.data, "without zstd: what is compressed is not brought back");
}

#endif

int main(void)
{
    apr_pool_t *p;

    apr_initialize();
    apr_pool_create(&p, NULL);
    check_small(p);
    check_there_and_back(p);
    check_refused(p);
    apr_pool_destroy(p);
    apr_terminate();
    return tap_done();
}
