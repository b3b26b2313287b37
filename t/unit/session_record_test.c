/* A record as bytes and back, and everything that is no record. */
#include <stdio.h>
#include <stdlib.h>
#include <apr_general.h>
#include <apr_strings.h>
#include "tap.h"
#include "session/session_record.h"

#define HEAD 38                 /* before the route */
#define ROUTE_LEN 34
#define AT_LEN 36

static ha_record sample(void)
{
    ha_record r;

    memset(&r, 0, sizeof(r));
    r.version.epoch = 0x0102030405060708;
    r.version.seq = 19;
    r.ttl = 1800;
    r.made = APR_TIME_C(1700000000123456);
    r.route = "tomcat1";
    r.at = "/shop" HA_WELL_KNOWN;
    r.answered = 1;
    r.state.data = "st\0te";
    r.state.len = 5;
    return r;
}

static int same(const ha_record *a, const ha_record *b)
{
    return a->version.epoch == b->version.epoch && a->version.seq == b->version.seq && a->ttl == b->ttl && a->made == b->made
        && strcmp(a->route, b->route) == 0 && strcmp(a->at, b->at) == 0 && a->gone == b->gone && a->answered == b->answered
        && a->base64 == b->base64 && a->state.len == b->state.len && (!a->state.len || memcmp(a->state.data, b->state.data, a->state.len) == 0);
}

static void check_there_and_back(apr_pool_t *p)
{
    ha_record r = sample(), back;
    const char *why;
    ha_blob bytes;
    int i;

    ok(ha_record_encode(&r, p, &bytes) == APR_SUCCESS && ha_record_decode(&bytes, p, &back, &why) == APR_SUCCESS && same(&r, &back), "there and back");
    ok((const char *)back.state.data > (const char *)bytes.data
       && (const char *)back.state.data + back.state.len == (const char *)bytes.data + bytes.len, "the state is not copied");
    for (i = 0; i < 8; i++) {
        r = sample();
        r.gone = i & 1;
        r.answered = i >> 1 & 1;
        r.base64 = i >> 2;
        if (r.gone)
            r.state.len = 0;
        ok(ha_record_encode(&r, p, &bytes) == APR_SUCCESS && ha_record_decode(&bytes, p, &back, &why) == APR_SUCCESS && same(&r, &back), "flags %d", i);
    }
    r = sample();
    r.gone = 1;
    ok(ha_record_encode(&r, p, &bytes) == APR_SUCCESS && ha_record_decode(&bytes, p, &back, &why) == APR_SUCCESS && back.gone && !back.state.len,
       "what is gone has no state");
    memset(&r, 0, sizeof(r));
    r.version.epoch = 1;
    ok(ha_record_encode(&r, p, &bytes) == APR_SUCCESS && ha_record_decode(&bytes, p, &back, &why) == APR_SUCCESS && !*back.route && !*back.at,
       "no route and no path are empty ones");
    r.version.epoch = r.version.seq = APR_UINT64_MAX;
    r.ttl = APR_UINT32_MAX;
    r.made = APR_INT64_MAX;
    r.route = apr_psprintf(p, "%0*d", HA_ROUTE_MAX, 0);
    r.at = apr_psprintf(p, "%0*d", HA_AT_MAX, 0);
    ok(ha_record_encode(&r, p, &bytes) == APR_SUCCESS && ha_record_decode(&bytes, p, &back, &why) == APR_SUCCESS && same(&r, &back), "the largest of all");
}

/* What other versions of us will have to read. */
static void check_layout(apr_pool_t *p)
{
    static const unsigned char want[] = {
        1, 2, 0, 0, 0, 0, 0, 0, 7, 8,   0, 6, 10, 36, 24, 32, 34, 64,   1, 2, 3, 4, 5, 6, 7, 8,   0, 0, 0, 0, 0, 0, 0, 19,   0, 7, 0, 32,
        't', 'o', 'm', 'c', 'a', 't', '1', '/', 's', 'h', 'o', 'p', '/', '.', 'w', 'e', 'l', 'l', '-', 'k', 'n', 'o', 'w', 'n', '/',
        's', 'e', 's', 's', 'i', 'o', 'n', '-', 'b', 'a', 'c', 'k', 'u', 'p', 's', 't', 0, 't', 'e'
    };
    ha_record r = sample(), back;
    ha_blob bytes;
    const char *why;
    unsigned char *spare;

    ok(ha_record_encode(&r, p, &bytes) == APR_SUCCESS && bytes.len == sizeof(want) && memcmp(bytes.data, want, sizeof(want)) == 0, "byte for byte");
    spare = apr_pmemdup(p, want, sizeof(want));
    memset(spare + 2, 0xff, 4);
    bytes.data = spare;
    ok(ha_record_decode(&bytes, p, &back, &why) == APR_SUCCESS && same(&r, &back), "the spare bytes may hold anything");
}

static void check_refused(apr_pool_t *p)
{
    ha_record r, back;
    const char *why;
    ha_blob good, bytes;
    unsigned char *b;
    apr_size_t n, taken = 0;
    static const struct { const char *name; int at, value; const char *why; } changes[] = {
        { "a future format", 0, 3, "future format" }, { "format 2, without a length", 0, 2, "larger than without" }, { "far in the future", 0, 255, "future format" }, { "format 0", 0, 0, "no known format" },
        { "an unknown flag", 1, 8, "flags" }, { "gone, with a state", 1, 1, "gone" },
        { "made before time", 10, 0x80, "no time" },
        { "a route longer than it can be", ROUTE_LEN + 1, HA_ROUTE_MAX + 1, "too long" }, { "a route of 64 KB", ROUTE_LEN, 0xff, "too long" },
        { "a path longer than it can be", AT_LEN, 3, "too long" }, { "a path beyond the end", AT_LEN + 1, 38, "truncated" },
        { "a route with a NUL", HEAD, 0, "NUL" }, { "a path with a NUL", HEAD + 8, 0, "NUL" },
    };

    r = sample();
    ha_record_encode(&r, p, &good);
    for (n = 0; n < sizeof(changes) / sizeof(changes[0]); n++) {
        b = malloc(good.len);
        memcpy(b, good.data, good.len);
        b[changes[n].at] = (unsigned char)changes[n].value;
        bytes.data = b;
        bytes.len = good.len;
        why = NULL;
        ok(ha_record_decode(&bytes, p, &back, &why) == APR_EINVAL && why && strstr(why, changes[n].why) && !back.route && !back.state.data,
           "%s: %s", changes[n].name, why ? why : "-");
        free(b);
    }

    /* a record without a state, cut at every length: its head says how much there must be */
    r.state.len = 0;
    ha_record_encode(&r, p, &good);
    for (n = 0; n < good.len; n++) {
        b = malloc(n + 1);
        memcpy(b, good.data, n);
        bytes.data = b;
        bytes.len = n;
        why = NULL;
        taken += ha_record_decode(&bytes, p, &back, &why) != APR_EINVAL || !why;
        free(b);
    }
    ok(!taken, "truncated, at every length");
    bytes.data = NULL;
    bytes.len = 0;
    ok(ha_record_decode(&bytes, p, &back, &why) == APR_EINVAL, "nothing at all");

    r = sample();
    r.route = apr_psprintf(p, "%0*d", HA_ROUTE_MAX + 1, 0);
    ok(ha_record_encode(&r, p, &bytes) == APR_EINVAL && !bytes.data, "a route that is too long is not written");
    r = sample();
    r.at = apr_psprintf(p, "%0*d", HA_AT_MAX + 1, 0);
    ok(ha_record_encode(&r, p, &bytes) == APR_EINVAL, "nor a path");
    r = sample();
    r.made = -1;
    ok(ha_record_encode(&r, p, &bytes) == APR_EINVAL, "nor a time before 1970");
}

int main(void)
{
    apr_pool_t *p;

    apr_initialize();
    apr_pool_create(&p, NULL);
    check_there_and_back(p);
    check_layout(p);
    check_refused(p);
    apr_pool_destroy(p);
    apr_terminate();
    return tap_done();
}
