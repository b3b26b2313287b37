/* reference_id.h - two slow, plain readings of a request's session id, written from what session_id.h says and
 * from what mod_proxy_balancer was seen to do, one byte at a time and with nothing shared with session_id.c.
 * The unit test and the fuzzer hold session_id.c against both. */
#ifndef HA_REFERENCE_ID_H
#define HA_REFERENCE_ID_H

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include "session/session_id.h"

#define REF_MAX 4096            /* longer values are no ids anyway */

/* ---- stock ------------------------------------------------------------------ */

typedef enum { REF_NONE, REF_ROUTE, REF_WILD } ref_found;

/* The parameter's value as stock cuts it out, from the index that it returns, up to *end. -1: none; -2: it leaves the string. */
static long ref_stock_param(const char *url, const char *name, int semicolon_ends, size_t *end)
{
    const size_t n = strlen(url), k = strlen(name);
    size_t i = 0;

    while (i + k <= n) {
        if (memcmp(url + i, name, k) != 0) {
            i++;
            continue;
        }
        i += k;
        if (i < n && url[i] == '=') {
            i++;
            if (i < n) {
                while (i < n && (url[i] == '?' || url[i] == '&' || (semicolon_ends && url[i] == ';')))
                    i++;
                if (i == n)
                    return -1;
                for (*end = i; *end < n && url[*end] != '?' && url[*end] != '&' && !(semicolon_ends && url[*end] == ';'); )
                    (*end)++;
                return (long)i;
            }
        }
        if (i >= n)
            return -2;
        i++;
    }
    return -1;
}

static long ref_stock_cookie(const char *c, const char *name, size_t *end)
{
    const size_t n = strlen(c), k = strlen(name);
    size_t i = 0;

    while (i + k <= n) {
        if (memcmp(c + i, name, k) == 0 && (i == 0 || c[i - 1] == ';' || c[i - 1] == ',' || isspace((unsigned char)c[i - 1]))) {
            i += k;
            while (i < n && isspace((unsigned char)c[i]))
                i++;
            if (i >= n)
                return -2;
            if (c[i++] == '=' && i < n) {
                for (*end = i; *end < n && c[*end] != ';' && c[*end] != ','; )
                    (*end)++;
                return (long)i;
            }
            if (i >= n)
                return -2;
        }
        i++;
    }
    return -1;
}

static ref_found ref_stock(const ha_id_rules *rules, const char *url, const char *cookies, int semicolon_ends,
                           const char **route, size_t *len)
{
    const char *in = url;
    size_t end = 0;
    long at = -1;

    if (url && rules->path && *rules->path)
        at = ref_stock_param(url, rules->path, semicolon_ends, &end);
    if (at == -1 && cookies && rules->cookie && *rules->cookie)
        at = ref_stock_cookie(in = cookies, rules->cookie, &end);
    if (at == -2)
        return REF_WILD;
    if (at == -1)
        return REF_NONE;
    if (rules->separator) {
        while ((size_t)at < end && in[at] != rules->separator)
            at++;
        if ((size_t)at == end)
            return REF_NONE;
        at++;
    }
    if ((size_t)at == end)
        return REF_NONE;
    *route = in + at;
    *len = end - (size_t)at;
    return REF_ROUTE;
}

/* ---- ours ------------------------------------------------------------------- */

struct ref_id {
    char id[REF_MAX], route[REF_MAX];
    int has_id, has_route, known, place;
};

static int ref_hex(int c)
{
    return isdigit(c) ? c - '0' : isxdigit(c) ? tolower(c) - 'a' + 10 : -1;
}

static int ref_value(const ha_id_rules *rules, const char *v, size_t n, ha_id_known_fn *known, struct ref_id *out)
{
    char text[REF_MAX];
    size_t i, len = 0, first = 0, last = 0, at = 0;

    memset(out, 0, sizeof(*out));
    if (n >= 2 && v[0] == '"' && v[n - 1] == '"') {
        v++;
        n -= 2;
    }
    if (n >= REF_MAX)
        return 0;
    for (i = 0; i < n; i++) {
        int c = (unsigned char)v[i];
        if (c == '%') {
            if (i + 2 >= n || ref_hex((unsigned char)v[i + 1]) < 0 || ref_hex((unsigned char)v[i + 2]) < 0)
                return 0;
            c = ref_hex((unsigned char)v[i + 1]) * 16 + ref_hex((unsigned char)v[i + 2]);
            i += 2;
        }
        if (c == 0 || !strchr("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ!#$%&'()*+-./:<=>?@[]^_`{|}~", c))
            return 0;
        text[len++] = (char)c;
    }
    text[len] = '\0';
    if (len == 0 || len > HA_ID_MAX + 1 + HA_ROUTE_MAX)
        return 0;

    if (!rules->whole && !rules->separator && len <= HA_ROUTE_MAX && known(NULL, text, len)) {
        strcpy(out->route, text);
        out->has_route = out->known = 1;
    }
    if (!rules->whole && rules->separator && strchr(text, rules->separator)) {
        first = (size_t)(strchr(text, rules->separator) - text);
        last = (size_t)(strrchr(text, rules->separator) - text);
        if (first == 0) {       /* only a route */
            if (len < 2 || len - 1 > HA_ROUTE_MAX)
                return 0;
            strcpy(out->route, text + 1);
            out->has_route = 1;
            out->known = known(NULL, text + 1, len - 1) != 0;
            return 1;
        }
        at = first;
        if (len - first - 1 >= 1 && len - first - 1 <= HA_ROUTE_MAX && known(NULL, text + first + 1, len - first - 1))
            out->known = 1;
        else if (last > first && len - last - 1 >= 1 && len - last - 1 <= HA_ROUTE_MAX && known(NULL, text + last + 1, len - last - 1)) {
            out->known = 1;
            at = last;
        }
        if (len - at - 1 <= HA_ROUTE_MAX) {
            strcpy(out->route, text + at + 1);
            out->has_route = *out->route != '\0';
            text[at] = '\0';
        }
    }
    if (strlen(text) > HA_ID_MAX)
        return 0;
    strcpy(out->id, text);
    out->has_id = 1;
    return 1;
}

static size_t ref_blanks(const char *s, size_t n)
{
    size_t i = 0;

    while (i < n && (s[i] == ' ' || s[i] == '\t'))
        i++;
    return i;
}

static int ref_trimmed(const ha_id_rules *rules, const char *v, size_t n, ha_id_known_fn *known, struct ref_id *out)
{
    size_t skip = ref_blanks(v, n);

    v += skip;
    n -= skip;
    while (n && (v[n - 1] == ' ' || v[n - 1] == '\t'))
        n--;
    return ref_value(rules, v, n, known, out);
}

static void ref_parse(const ha_id_rules *rules, const char *url, const char *cookies, const char *header,
                      ha_id_known_fn *known, struct ref_id *out)
{
    static struct ref_id one;
    int found = 0;

    memset(out, 0, sizeof(*out));
    if (url && rules->path && *rules->path) {       /* pieces of the path, cut at every ; and / */
        size_t n = strcspn(url, "?"), i, k = strlen(rules->path);
        for (i = 0; i < n && !found; i++) {
            if (url[i] == ';') {
                size_t len = strcspn(url + i + 1, ";/?");
                if (len > k && memcmp(url + i + 1, rules->path, k) == 0 && url[i + 1 + k] == '='
                    && ref_value(rules, url + i + 1 + k + 1, len - k - 1, known, &one) && one.has_id) {
                    *out = one;
                    out->place = HA_ID_PATH;
                    found = 1;
                }
            }
        }
    }
    if (!found && cookies && rules->cookie && *rules->cookie) {
        size_t n = strlen(cookies), i = 0, k = strlen(rules->cookie);
        while (i <= n) {
            size_t len = strcspn(cookies + i, ";"), j = ref_blanks(cookies + i, len);
            const char *pair = cookies + i + j;
            size_t left = len - j;
            if (left > k && memcmp(pair, rules->cookie, k) == 0) {
                size_t blanks = ref_blanks(pair + k, left - k);
                if (k + blanks < left && pair[k + blanks] == '='
                    && ref_trimmed(rules, pair + k + blanks + 1, left - k - blanks - 1, known, &one)) {
                    if (!found || (one.has_id && (one.known || !out->has_id)))
                        *out = one;
                    out->place = HA_ID_COOKIE;
                    found = 1;
                    if (one.has_id && (one.known || rules->whole))
                        break;
                }
            }
            i += len + 1;
        }
    }
    if (!found && header && ref_trimmed(rules, header, strlen(header), known, &one) && one.has_id) {
        *out = one;
        out->place = HA_ID_HEADER;
    }
}

/* ---- both against session_id.c ---------------------------------------------- */

/* NULL, or what is wrong. */
static const char *ref_compare(const ha_id_rules *rules, const char *url, const char *cookies, const char *header,
                               ha_id_known_fn *known, apr_status_t rv, const ha_id *got)
{
    static struct ref_id want;
    int semicolon_ends;

    ref_parse(rules, url, cookies, header, known, &want);
    if ((rv == APR_SUCCESS) != want.has_id || (rv != APR_SUCCESS && rv != APR_NOTFOUND))
        return "found or not";
    if (rv == APR_NOTFOUND && (got->id || got->id_len))
        return "no id, but something of it";
    if (rv == APR_SUCCESS && (strcmp(got->id, want.id) != 0 || got->id_len != strlen(want.id)))
        return "id";
    if (rv == APR_SUCCESS && !ha_id_wellformed(got->id, got->id_len))
        return "id is not well-formed";
    if (rv == APR_SUCCESS || want.has_route) {
        if ((got->route != NULL) != want.has_route || (got->route && strcmp(got->route, want.route) != 0))
            return "route";
        if (got->route_known != want.known)
            return "route_known";
        if ((int)got->place != want.place)
            return "place";
    }
    if (rv == APR_NOTFOUND && !want.has_route && (got->route || got->route_known))
        return "neither id nor route, but something of it";
    if (!got->stock_sees || rules->whole)
        return NULL;
    for (semicolon_ends = 0; semicolon_ends < 2; semicolon_ends++) {
        const char *route = NULL;
        size_t len = 0;
        ref_found stock = ref_stock(rules, url, cookies, semicolon_ends, &route, &len);
        if (stock == REF_WILD)
            return "stock leaves its string, and stock_sees is 1";
        if (stock == REF_ROUTE && len > HA_ROUTE_MAX)
            stock = REF_NONE;
        if (got->route && (stock != REF_ROUTE || len != strlen(got->route) || memcmp(route, got->route, len) != 0))
            return "stock does not come to this route, and stock_sees is 1";
        if (!got->route && stock == REF_ROUTE && (rules->separator || known(NULL, route, len)))
            return "stock comes to a route where there is none, and stock_sees is 1";
    }
    return NULL;
}

#endif
