/* session_id.c - the strict reading of a request's session id, and what stock would make of it.
 *
 * Runs on every request, so: libc's searches to find the name, one look at the bytes of the value,
 * one allocation for the result.
 *
 * mod_proxy_balancer's reading is followed step by step beside ours (struct stock), because
 * where both come to the same route nobody has to steer. In two places it reads behind the end of
 * its string (a url or Cookie field that ends with the bare name, or with `name=`). What it finds
 * there nobody can know: those answer "not the same". */
#ifdef HAVE_CONFIG_H
#include "autoconf.h"
#endif

#include "session_id.h"

#include <string.h>

#include <apr_strings.h>

#define VALUE_MAX (HA_ID_MAX + 1 + HA_ROUTE_MAX)    /* id, separator, route; decoded */

#define OUTSIDE 1               /* this byte is never part of an id */
#define PERCENT 2               /* this one is, and may spell another */

static const unsigned char class_of[256] = {
    [0x00 ... 0x20] = OUTSIDE, ['"'] = OUTSIDE, [','] = OUTSIDE, [';'] = OUTSIDE, ['\\'] = OUTSIDE, [0x7f ... 0xff] = OUTSIDE,
    ['%'] = PERCENT
};

/* One value of the name, read strictly. */
struct reading {
    const char *text;           /* in the request, or in decoded */
    apr_size_t  len;
    apr_size_t  id_len;         /* the id is the first bytes of text */
    const char *route;          /* in text; NULL: none */
    apr_size_t  route_len;
    int         known;          /* a member has the route: 1, behind the first separator; 2, behind the last */
    char        decoded[VALUE_MAX];
};

/* What mod_proxy_balancer takes for the value. */
struct stock {
    enum { STOCK_NONE, STOCK_VALUE, STOCK_WILD /* reads behind the end */ } found;
    const char *value;
    apr_size_t  len;
};

/* The classes of all bytes together. */
static unsigned int classes_in(const char *s, apr_size_t len)
{
    const unsigned char *p = (const unsigned char *)s;
    unsigned int seen = 0;

    for (; len >= 8; p += 8, len -= 8)
        seen |= class_of[p[0]] | class_of[p[1]] | class_of[p[2]] | class_of[p[3]]
              | class_of[p[4]] | class_of[p[5]] | class_of[p[6]] | class_of[p[7]];
    while (len--)
        seen |= class_of[*p++];
    return seen;
}

int ha_id_wellformed(const char *id, apr_size_t len)
{
    return len >= 1 && len <= HA_ID_MAX && !(classes_in(id, len) & OUTSIDE);
}

static int hex(unsigned char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Undoes %XX once. 0: malformed, or longer than an id and a route can be. */
static int undo_percent(const char *s, apr_size_t len, char *out, apr_size_t *out_len)
{
    apr_size_t i, n = 0;

    for (i = 0; i < len; i++) {
        if (n == VALUE_MAX)
            return 0;
        if (s[i] != '%')
            out[n++] = s[i];
        else {
            int hi, lo;
            if (len - i < 3 || (hi = hex((unsigned char)s[i + 1])) < 0 || (lo = hex((unsigned char)s[i + 2])) < 0)
                return 0;
            out[n++] = (char)(hi << 4 | lo);
            i += 2;
        }
    }
    *out_len = n;
    return 1;
}

static int is_route(const char *route, apr_size_t len, ha_id_known_fn *known, void *baton)
{
    return len > 0 && len <= HA_ROUTE_MAX && known && known(baton, route, len);
}

/* Where the id ends and the route begins. 0: there is neither. */
static int split(const ha_id_rules *rules, struct reading *r, ha_id_known_fn *known, void *baton)
{
    const char *end = r->text + r->len, *first, *last, *next;

    r->id_len = r->len;
    r->route = NULL;
    r->route_len = 0;
    r->known = 0;
    if (rules->whole)
        return r->len <= HA_ID_MAX;
    if (!rules->separator) {    /* stickysessionsep=off: stock takes the whole value for a route */
        if (is_route(r->text, r->len, known, baton)) {
            r->route = r->text;
            r->route_len = r->len;
            r->known = 1;
        }
        return r->len <= HA_ID_MAX;
    }
    if (!(first = memchr(r->text, rules->separator, r->len)))
        return r->len <= HA_ID_MAX;
    if (first == r->text) {     /* only a route */
        r->id_len = 0;
        r->route = first + 1;
        r->route_len = (apr_size_t)(end - r->route);
        r->known = is_route(r->route, r->route_len, known, baton);
        return r->route_len > 0 && r->route_len <= HA_ROUTE_MAX;
    }
    if (is_route(first + 1, (apr_size_t)(end - first - 1), known, baton))
        r->known = 1;
    else {
        for (last = first; (next = memchr(last + 1, rules->separator, (apr_size_t)(end - last - 1))); )
            last = next;
        if (last != first && is_route(last + 1, (apr_size_t)(end - last - 1), known, baton)) {
            r->known = 2;
            first = last;
        }
    }
    if (end - first - 1 > HA_ROUTE_MAX)     /* nobody's route: a route-less id with dots in it */
        return r->len <= HA_ID_MAX;
    r->id_len = (apr_size_t)(first - r->text);
    if (end > first + 1) {
        r->route = first + 1;
        r->route_len = (apr_size_t)(end - first - 1);
    }
    return r->id_len <= HA_ID_MAX;
}

/* One value as it stands between its delimiters. 0: neither id nor route. */
static int read_value(const ha_id_rules *rules, const char *v, const char *end,
                      ha_id_known_fn *known, void *baton, struct reading *r)
{
    unsigned int seen;

    if (end - v >= 2 && *v == '"' && end[-1] == '"') {
        v++;
        end--;
    }
    if (end <= v || end - v > 3 * VALUE_MAX)
        return 0;
    r->text = v;
    r->len = (apr_size_t)(end - v);
    seen = classes_in(v, r->len);
    if (seen & PERCENT) {
        if (!undo_percent(v, r->len, r->decoded, &r->len))
            return 0;
        r->text = r->decoded;
        seen = classes_in(r->text, r->len);
    }
    return !(seen & OUTSIDE) && r->len <= VALUE_MAX && split(rules, r, known, baton);
}

static int is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* The same without the white space around it. */
static int read_trimmed(const ha_id_rules *rules, const char *v, const char *end,
                        ha_id_known_fn *known, void *baton, struct reading *r)
{
    while (v < end && is_blank(*v))
        v++;
    while (v < end && is_blank(end[-1]))
        end--;
    return read_value(rules, v, end, known, baton, r);
}

static const char *find_or_end(const char *s, char c)
{
#ifdef HAVE_STRCHRNUL
    return strchrnul(s, c);
#else
    const char *at = strchr(s, c);
    return at ? at : s + strlen(s);
#endif
}

/* `;name=value` before the query; hit: the name's first appearance in url. */
static int path_id(const ha_id_rules *rules, const char *url, const char *hit, apr_size_t name_len,
                   ha_id_known_fn *known, void *baton, struct reading *r)
{
    const char *query = find_or_end(url, '?');

    for (; hit && hit < query; hit = strstr(hit + 1, rules->path)) {
        const char *v = hit + name_len;
        if (hit > url && hit[-1] == ';' && *v == '=') {
            v++;
            if (read_value(rules, v, v + strcspn(v, ";/?"), known, baton, r) && r->id_len)
                return 1;
        }
    }
    return 0;
}

/* The cookie-pair of the name; hit: the name's first appearance in the field. A value that belongs to no member, or is only
 * a route, is kept in one of the two readings while the other is used; an id is better than none. */
static struct reading *cookie_id(const ha_id_rules *rules, const char *cookies, const char *hit, apr_size_t name_len,
                                 ha_id_known_fn *known, void *baton, struct reading r[2])
{
    struct reading *first = NULL, *now = &r[0];

    for (; hit; hit = strstr(hit + 1, rules->cookie)) {
        const char *before = hit, *v = hit + name_len;
        while (before > cookies && is_blank(before[-1]))
            before--;
        if (before > cookies && before[-1] != ';')
            continue;
        while (is_blank(*v))
            v++;
        if (*v++ != '=')
            continue;
        if (!read_trimmed(rules, v, find_or_end(v, ';'), known, baton, now))
            continue;
        if (now->id_len && (now->known || rules->whole))
            return now;
        if (!first || (!first->id_len && now->id_len)) {
            first = now;
            now = first == &r[0] ? &r[1] : &r[0];
        }
    }
    return first;
}

/* ---- stock's reading ------------------------------------------------------ */

/* Without knowing the bytes' locale, nobody can say if stock takes them for white space. */
static int foreign(char c)
{
    return (unsigned char)c >= 0x80;
}

static int is_white(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Anywhere in the url, behind any look-alike; the value ends at `?` `&` or, if so configured, at `;`. */
static struct stock stock_path(const char *hit, const char *name, apr_size_t name_len, const char *delims)
{
    struct stock s = { STOCK_NONE, NULL, 0 };

    while (hit) {
        hit += name_len;
        if (hit[0] == '=' && hit[1]) {
            hit++;
            hit += strspn(hit, delims);
            if (*hit) {
                s.found = STOCK_VALUE;
                s.value = hit;
                s.len = strcspn(hit, delims);
            }
            return s;
        }
        if (!hit[0] || !hit[1]) {
            s.found = !hit[0] || hit[0] == '=' ? STOCK_WILD : STOCK_NONE;
            return s;
        }
        hit = strstr(hit + 1, name);
    }
    return s;
}

/* The first one behind `;` `,` or white space, with white space before the `=` if there is any. */
static struct stock stock_cookie(const char *cookies, const char *hit, const char *name, apr_size_t name_len)
{
    struct stock s = { STOCK_NONE, NULL, 0 };

    while (hit) {
        if (hit > cookies && foreign(hit[-1])) {
            s.found = STOCK_WILD;
            return s;
        }
        if (hit == cookies || hit[-1] == ';' || hit[-1] == ',' || is_white(hit[-1])) {
            hit += name_len;
            while (is_white(*hit))
                hit++;
            if (!hit[0] || !hit[1] || foreign(*hit)) {
                s.found = STOCK_WILD;
                return s;
            }
            if (*hit++ == '=') {
                const char *end = find_or_end(hit, ';'), *comma = memchr(hit, ',', (apr_size_t)(end - hit));
                s.found = STOCK_VALUE;
                s.value = hit;
                s.len = (apr_size_t)((comma ? comma : end) - hit);
                return s;
            }
        }
        hit = strstr(hit + 1, name);
    }
    return s;
}

/* Does this value lead stock to the route of r (NULL: to none)? */
static int same_route(const ha_id_rules *rules, const struct stock *s, const struct reading *r)
{
    const char *route = s->value, *sep;
    apr_size_t len = s->len;

    if (s->found == STOCK_WILD)
        return 0;
    if (s->found == STOCK_NONE)
        len = 0;
    else if (rules->separator) {
        if ((sep = memchr(route, rules->separator, len))) {
            len -= (apr_size_t)(sep + 1 - route);
            route = sep + 1;
        }
        else
            len = 0;
    }
    if (r && r->route)
        return len == r->route_len && memcmp(route, r->route, len) == 0;
    /* nobody has such a long one; with stickysessionsep=off every value is tried, and this one is nobody's */
    if (!rules->separator && r && len == r->len && memcmp(route, r->text, len) == 0)
        return 1;
    return len == 0 || len > HA_ROUTE_MAX;
}

static int stock_sees(const ha_id_rules *rules, const char *in_url, apr_size_t path_len,
                      const char *cookies, const char *in_cookies, apr_size_t cookie_len, const struct reading *r)
{
    struct stock cookie = stock_cookie(cookies, in_cookies, rules->cookie, cookie_len), path;
    const char *const delims[] = { "?&", ";?&" };   /* scolonpathdelim=Off, On: both must come out alike */
    int i;

    if (!in_url)
        return same_route(rules, &cookie, r);
    for (i = 0; i < 2; i++) {
        path = stock_path(in_url, rules->path, path_len, delims[i]);
        if (!same_route(rules, path.found == STOCK_NONE ? &cookie : &path, r))
            return 0;
    }
    return 1;
}

/* ---- the healthy case ------------------------------------------------------- */

/* Does the name end here? Its last byte first: that is nearly always enough. */
static int ends_here(const char *start, const char *end, const char *name, apr_size_t len)
{
    return (apr_size_t)(end - start) >= len && end[-1] == name[len - 1] && memcmp(end - len, name, len) == 0;
}

/* Is there anything that stock could take for the parameter, or trip over? */
static int mentioned(const char *url, const char *name, apr_size_t len)
{
    const char *at;

    for (at = find_or_end(url, '='); *at; at = find_or_end(at + 1, '='))
        if (ends_here(url, at, name, len))
            return 1;
    return ends_here(url, at, name, len);
}

/* The top bits tell if one of these eight bytes is not from `-` to `~`, or is a backslash. A borrow or carry can only
 * come from a byte that is marked itself; bytes from 0x80 on are marked by the sum. */
static inline apr_uint64_t unusual(const char *s)
{
    const apr_uint64_t ones = ~(apr_uint64_t)0 / 255;
    apr_uint64_t eight;

    memcpy(&eight, s, 8);
    return (eight - ones * '-') | (eight + ones) | ((eight ^ ones * '\\') - ones);
}

/* Only such bytes (the `;` has been looked for before): the usual ids. Other ids go the long way. */
static inline int usual(const char *s, apr_size_t len)
{
    const char *last;
    apr_uint64_t seen;

    if (len < 8)
        return 0;
    last = s + len - 8;
    for (seen = unusual(last); s < last; s += 8)
        seen |= unusual(s);
    return !(seen & ~(apr_uint64_t)0 / 255 * 0x80);
}

/* Nothing in the url, and the first `name=` of the field stands where it should, with a usual value and a member's
 * route behind its first separator: then it is ours and stock's reading both, and the long way round (which comes
 * to the same) can be left out. Searching for `=` is cheaper than for the name. */
static int quick(const ha_id_rules *rules, const char *url, apr_size_t path_len, const char *cookies, apr_size_t cookie_len,
                 ha_id_known_fn *known, void *baton, apr_pool_t *p, ha_id *out)
{
    const char *equals, *name, *v, *end, *route;
    char *copy;

    if (!cookies || !cookie_len || rules->whole || !rules->separator || (url && path_len && mentioned(url, rules->path, path_len)))
        return 0;
    for (equals = strchr(cookies, '='); ; equals = strchr(equals + 1, '=')) {
        if (!equals || (equals > cookies && (is_white(equals[-1]) || foreign(equals[-1]))))     /* NAME =value */
            return 0;
        if (ends_here(cookies, equals, rules->cookie, cookie_len))
            break;
    }
    name = equals - cookie_len;
    if (name != cookies && (name - cookies < 2 || name[-1] != ' ' || name[-2] != ';'))
        return 0;
    v = equals + 1;
    end = find_or_end(v, ';');
    if (end - v > VALUE_MAX || !usual(v, (apr_size_t)(end - v))
        || !(route = memchr(v, rules->separator, (apr_size_t)(end - v))) || route == v || route - v > HA_ID_MAX
        || !is_route(route + 1, (apr_size_t)(end - route - 1), known, baton))
        return 0;

    copy = apr_pstrmemdup(p, v, (apr_size_t)(end - v));
    copy[route - v] = '\0';
    out->id = copy;
    out->id_len = (apr_size_t)(route - v);
    out->route = copy + out->id_len + 1;
    out->route_known = 1;
    out->place = HA_ID_COOKIE;
    out->stock_sees = 1;
    return 1;
}

/* ---- all together --------------------------------------------------------- */

static apr_status_t give(ha_id *out, const struct reading *r, apr_pool_t *p)
{
    char *copy;

    out->id = out->route = NULL;
    out->id_len = 0;
    out->route_known = 0;
    if (!r)
        return APR_NOTFOUND;

    copy = apr_palloc(p, r->len + 1);
    memcpy(copy, r->text, r->len);
    copy[r->len] = copy[r->id_len] = '\0';      /* the separator goes, unless the id is all there is */
    if (r->route) {
        out->route = copy + (r->route - r->text);
        out->route_known = r->known != 0;
    }
    if (r->id_len == 0)
        return APR_NOTFOUND;
    out->id = copy;
    out->id_len = r->id_len;
    return APR_SUCCESS;
}

static __attribute__((noinline)) apr_status_t parse(const ha_id_rules *rules, const char *url, apr_size_t path_len,
                                                    const char *cookies, apr_size_t cookie_len, const char *header,
                                                    ha_id_known_fn *known, void *baton, apr_pool_t *p, ha_id *out)
{
    const char *in_url = url && path_len ? strstr(url, rules->path) : NULL;
    const char *in_cookies = cookies && cookie_len ? strstr(cookies, rules->cookie) : NULL;
    struct reading both[2], *r = NULL;

    out->place = HA_ID_PATH;
    if (in_url && path_id(rules, url, in_url, path_len, known, baton, &both[0]))
        r = &both[0];
    if (!r && in_cookies) {
        out->place = HA_ID_COOKIE;
        r = cookie_id(rules, cookies, in_cookies, cookie_len, known, baton, both);
    }
    if (!r && header) {
        out->place = HA_ID_HEADER;
        if (read_trimmed(rules, header, header + strlen(header), known, baton, &both[0]) && both[0].id_len)
            r = &both[0];
    }
    out->stock_sees = rules->whole || stock_sees(rules, in_url, path_len, cookies, in_cookies, cookie_len, r);
    return give(out, r, p);
}

apr_status_t ha_id_parse(const ha_id_rules *rules, const char *url, const char *cookies, const char *header,
                         ha_id_known_fn *known, void *baton, apr_pool_t *p, ha_id *out)
{
    const apr_size_t path_len = rules->path ? strlen(rules->path) : 0;
    const apr_size_t cookie_len = rules->cookie ? strlen(rules->cookie) : 0;

    if (quick(rules, url, path_len, cookies, cookie_len, known, baton, p, out))
        return APR_SUCCESS;
    return parse(rules, url, path_len, cookies, cookie_len, header, known, baton, p, out);
}
