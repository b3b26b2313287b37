/* store_nodes.c - providers, nodes and placement. Pure but for ha_store_writer(). */
#ifdef HAVE_CONFIG_H
#include "autoconf.h"
#endif

#include <string.h>
#include <strings.h>

#include <apr_atomic.h>
#include <apr_lib.h>
#include <apr_strings.h>

#include "store_nodes.h"
#include "store_params.h"

/* One row a provider; the first word of a URL picks it. Those that need a library which was not there when this
 * was built say so. */
static const struct {
    const char *scheme;
    const ha_store_provider *provider;
    const char *missing;
} providers[] = {
    { "lmdb", &ha_store_lmdb, NULL },
    { "memcached", &ha_store_memcached, NULL },
    { "libmemcached", &ha_store_libmemcached, NULL },
    { "file", &ha_store_file, NULL },
    { "dbd", &ha_store_dbd, NULL },
#ifdef HAVE_HIREDIS
    { "redis", &ha_store_redis, NULL },
#else
    { "redis", NULL, "hiredis (configure --with-hiredis; Debian: apt-get install libhiredis-dev)" },
#endif
};
#define PROVIDERS (sizeof(providers) / sizeof(providers[0]))

static size_t row_of(const char *url)
{
    size_t len = strcspn(url, ":"), i;

    for (i = 0; i < PROVIDERS; i++) {
        if (url[len] == ':' && strlen(providers[i].scheme) == len && strncasecmp(url, providers[i].scheme, len) == 0) {
            break;
        }
    }
    return i;
}

const char *ha_store_provider_of(const char *url, apr_pool_t *p, const ha_store_provider **out)
{
    size_t i = row_of(url);

    *out = i < PROVIDERS ? providers[i].provider : NULL;
    if (*out) {
        return NULL;
    }
    if (i < PROVIDERS) {
        return apr_psprintf(p, "the store '%s' is not built into this module: it needs %s; built in: %s", providers[i].scheme,
                            providers[i].missing, ha_store_schemes(p));
    }
    return apr_psprintf(p, "unknown store '%.*s'; built in: %s", (int)strcspn(url, ":"), url, ha_store_schemes(p));
}

const char *ha_store_schemes(apr_pool_t *p)
{
    const char *all = NULL;
    size_t i;

    for (i = 0; i < PROVIDERS; i++) {
        if (providers[i].provider) {
            all = all ? apr_pstrcat(p, all, ", ", providers[i].scheme, NULL) : providers[i].scheme;
        }
    }
    return all;
}

/* dbd:driver,params: only what says where it is; anything else may be a secret. */
static const char *dbd_name(const char *url, apr_pool_t *p)
{
    static const char *const shown[] = { "host", "hostaddr", "port", "sock", "dbname" };
    const char *driver = url + 4, *text = driver + strcspn(driver, ",");
    apr_size_t len = (apr_size_t)(text - driver), i;
    const char *name = apr_pstrcat(p, "dbd:", apr_pstrmemdup(p, driver, len), NULL);
    ha_params params;

    if (strcmp(name, "dbd:sqlite3") == 0) {
        return apr_pstrcat(p, name, text, NULL);
    }
    ha_params_begin(&params, driver, len, *text ? text + 1 : text);
    while (ha_params_next(&params) > 0) {
        for (i = 0; i < sizeof(shown) / sizeof(shown[0]); i++) {
            if (ha_params_is(&params, shown[i])) {
                name = apr_pstrcat(p, name, ",", shown[i], "=", apr_pstrmemdup(p, params.value, params.value_len), NULL);
            }
        }
    }
    return name;
}

/* What is no port may be a password whose host was forgotten. */
static void hide_port(char *host)
{
    char *end = host + strcspn(host, "/"), *port = end;

    while (port > host && port[-1] != ':' && port[-1] != ']') {
        port--;
    }
    if (port > host && port[-1] == ':' && (end - port > 5 || strspn(port, "0123456789") != (apr_size_t)(end - port))) {
        strcpy(port, "*");
    }
}

/* Also of what is no URL: it stands in the message that says so. */
const char *ha_store_node_name(const char *url, apr_pool_t *p)
{
    apr_size_t scheme = strcspn(url, ":");
    char *name = apr_pstrdup(p, url), *rest = name + scheme, *at, *end;
    int i;

    if (strncasecmp(url, "dbd:", 4) == 0) {
        return dbd_name(url, p);
    }
    for (end = name; end < rest; end++) {
        *end = (char)apr_tolower(*end);
    }
    if (strncmp(name, "file:", 5) != 0 && strncmp(name, "lmdb:", 5) != 0 && *rest == ':') {
        for (rest++, i = 0; *rest == '/' && i < 2; i++) {
            rest++;
        }
        /* what is before the last @ is a password, however many signs in it should have been encoded */
        if ((at = strrchr(rest, '@')) != NULL) {
            memmove(rest, at + 1, strlen(at));
        }
        rest[strcspn(rest, "?#")] = '\0';
        if (*rest != '/') {
            for (end = rest; *end && *end != '/'; end++) {
                *end = (char)apr_tolower(*end);
            }
            hide_port(rest);
        }
    }
    else if ((end = strchr(name, '?')) != NULL) {
        *end = '\0';
    }
    return name;
}

/* Eight bytes as a number, the same on every machine (or the httpds would place a key differently). */
static apr_uint64_t word(const char *p)
{
    const unsigned char *u = (const unsigned char *)p;

    return (apr_uint64_t)u[0] | (apr_uint64_t)u[1] << 8 | (apr_uint64_t)u[2] << 16 | (apr_uint64_t)u[3] << 24
         | (apr_uint64_t)u[4] << 32 | (apr_uint64_t)u[5] << 40 | (apr_uint64_t)u[6] << 48 | (apr_uint64_t)u[7] << 56;
}

/* splitmix64's last step: every bit of the input stirs every bit of the output */
static apr_uint64_t stir(apr_uint64_t h)
{
    h = (h ^ h >> 30) * APR_UINT64_C(0xbf58476d1ce4e5b9);
    h = (h ^ h >> 27) * APR_UINT64_C(0x94d049bb133111eb);
    return h ^ h >> 31;
}

apr_uint64_t ha_store_hash(const char *bytes, apr_size_t len)
{
    apr_uint64_t h = len;

    for (; len >= 8; bytes += 8, len -= 8) {
        h = stir(h ^ word(bytes));
    }
    while (len--) {
        h = (h << 8 | h >> 56) ^ (unsigned char)*bytes++;
    }
    return stir(h);
}

static apr_uint64_t place_of(const char *key)
{
    const char *part = key, *end;

    for (;;) {
        end = part + strcspn(part, ":");
        if (end - part == HA_STORE_PLACE_LEN) {
            return ha_store_hash(part, HA_STORE_PLACE_LEN);
        }
        if (*end == '\0') {
            return ha_store_hash(key, (apr_size_t)(end - key));
        }
        part = end + 1;
    }
}

void ha_store_order(const ha_store *store, const char *key, int order[HA_STORE_NODES_MAX])
{
    apr_uint64_t weight[HA_STORE_NODES_MAX], w, place;
    int i, j;

    if (store->nnodes == 1) {
        order[0] = 0;
        return;
    }
    place = place_of(key);
    for (i = 0; i < store->nnodes; i++) {
        w = stir(place ^ store->nodes[i].hash);
        /* Equal weights only for equal names, which configure() refuses. */
        for (j = i; j > 0 && weight[j - 1] < w; j--) {
            weight[j] = weight[j - 1];
            order[j] = order[j - 1];
        }
        weight[j] = w;
        order[j] = i;
    }
}

/* Every key passes here on its way to a protocol. Eight bytes at a time: subtracting sets the high bit of a byte
 * below 0x21 and of one above 0xa0, adding that of one from 0x7f to 0xfe; a borrow or a carry into a good byte can only
 * come out of a bad one. */
int ha_store_key_ok(const char *key)
{
    const apr_uint64_t ones = APR_UINT64_C(0x0101010101010101), high = ones << 7;
    apr_size_t len = strlen(key), i;
    apr_uint64_t w, bad = 0;

    if (len == 0 || len > HA_STORE_KEY_MAX) {
        return 0;
    }
    for (i = 0; i + 8 <= len; i += 8) {
        w = word(key + i);
        bad |= (w - 0x21 * ones) | (w + ones);
    }
    for (; i < len; i++) {
        bad |= (key[i] <= ' ' || key[i] > '~') ? high : 0;
    }
    return (bad & high) == 0;
}

apr_uint64_t ha_store_writer(ha_store *store)
{
    return stir(store->random + apr_atomic_inc64(&store->written));
}
