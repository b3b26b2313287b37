/* The strict parser of ids: what it takes, what it refuses, and what it says about stock. */
#include <stdio.h>
#include <apr_general.h>
#include <apr_strings.h>
#include "tap.h"
#include "t/fuzz/reference_id.h"

#define HEX32 "0123456789ABCDEF0123456789ABCDEF"

static int calls;

static int known(void *baton, const char *route, apr_size_t len)
{
    static const char *const routes[] = { "tomcat1", "tomcat2", "b.c" };
    int i;

    calls++;
    for (i = 0; i < 3; i++)
        if (len == strlen(routes[i]) && memcmp(route, routes[i], len) == 0)
            return 1;
    return 0;
}

static const ha_id_rules dot = { "JSESSIONID", "jsessionid", NULL, '.', 0 };
static const ha_id_rules bang = { "JSESSIONID", "jsessionid", NULL, '!', 0 };
static const ha_id_rules off = { "ROUTEID", "ROUTEID", NULL, 0, 0 };
static const ha_id_rules whole = { "connect.sid", "sid", "X-Session", '.', 1 };
static const ha_id_rules header = { NULL, NULL, "X-Session", '.', 0 };
static const ha_id_rules both = { "JSESSIONID", "jsessionid", "X-Session", '.', 0 };

#define P HA_ID_PATH
#define C HA_ID_COOKIE
#define H HA_ID_HEADER

static const struct row {
    const char *name;
    const ha_id_rules *rules;
    const char *url, *cookies, *header;
    const char *id, *route;     /* id NULL: APR_NOTFOUND */
    int known, place, stock_sees;
} rows[] = {
    /* the plain cases */
    { "a cookie with a route", &dot, "balancer://t/a", "a=b; JSESSIONID=" HEX32 ".tomcat1", NULL, HEX32, "tomcat1", 1, C, 1 },
    { "only that cookie", &dot, "balancer://t/a?x=1&y=2", "JSESSIONID=X.tomcat2", NULL, "X", "tomcat2", 1, C, 1 },
    { "no white space behind the semicolon", &dot, "/", "a=b;JSESSIONID=X.tomcat2;c=d", NULL, "X", "tomcat2", 1, C, 1 },
    { "a cookie without route", &dot, "/", "JSESSIONID=" HEX32, NULL, HEX32, NULL, 0, C, 1 },
    { "a route that nobody has", &dot, "/", "JSESSIONID=X.tomcat9", NULL, "X", "tomcat9", 0, C, 1 },
    { "memcached-session-manager's id", &dot, "/", "JSESSIONID=" HEX32 "-n2.tomcat1", NULL, HEX32 "-n2", "tomcat1", 1, C, 1 },
    { "path parameter", &dot, "balancer://t/a;jsessionid=X.tomcat1", NULL, NULL, "X", "tomcat1", 1, P, 1 },
    { "path parameter before a query", &dot, "/a;jsessionid=X.tomcat1?jsessionid=Y.tomcat2", NULL, NULL, "X", "tomcat1", 1, P, 1 },
    { "path parameter in the middle: stock reads on", &dot, "/a;jsessionid=X.tomcat1/b", NULL, NULL, "X", "tomcat1", 1, P, 0 },
    { "path parameter before another: stock may read on", &dot, "/a;jsessionid=X.tomcat1;v=2", NULL, NULL, "X", "tomcat1", 1, P, 0 },
    { "path parameter behind another", &dot, "/a;v=2;jsessionid=X.tomcat1", NULL, NULL, "X", "tomcat1", 1, P, 1 },
    { "the path goes before the cookie", &dot, "/a;jsessionid=X.tomcat1", "JSESSIONID=Y.tomcat2", NULL, "X", "tomcat1", 1, P, 1 },
    { "nothing at all", &dot, "/a", "a=b", NULL, NULL, NULL, 0, 0, 1 },
    { "no fields", &dot, NULL, NULL, NULL, NULL, NULL, 0, 0, 1 },
    { "an empty Cookie field", &dot, "/", "", NULL, NULL, NULL, 0, 0, 1 },
    { "another separator", &bang, "/", "JSESSIONID=a.b!tomcat1", NULL, "a.b", "tomcat1", 1, C, 1 },

    /* dots in ids and routes */
    { "a dotted id: the last separator, if a member has that", &dot, "/", "JSESSIONID=a.b.tomcat1", NULL, "a.b", "tomcat1", 1, C, 0 },
    { "a dotted route: the first separator, if a member has that", &dot, "/", "JSESSIONID=a.b.c", NULL, "a", "b.c", 1, C, 1 },
    { "dots, and nobody has either", &dot, "/", "JSESSIONID=a.b.d", NULL, "a", "b.d", 0, C, 1 },
    { "a separator at the end", &dot, "/", "JSESSIONID=a.", NULL, "a", NULL, 0, C, 1 },
    { "only a route: no id, and stock may follow it", &dot, "/", "JSESSIONID=.tomcat1", NULL, NULL, "tomcat1", 1, C, 1 },
    { "only a route, of a member that is gone", &dot, "/", "a=b; JSESSIONID=\".tomcat9\"", NULL, NULL, "tomcat9", 0, C, 0 },
    { "only a route, then an id", &dot, "/", "JSESSIONID=.tomcat1; JSESSIONID=X.tomcat9", NULL, "X", "tomcat9", 0, C, 0 },
    { "only routes, then ids: the first whose route a member has", &dot, "/", "JSESSIONID=.b.c; JSESSIONID=.tomcat1; JSESSIONID=X; JSESSIONID=Y.tomcat2", NULL,
      "Y", "tomcat2", 1, C, 0 },
    { "only a route, as a path parameter: none", &dot, "/a;jsessionid=.tomcat1", NULL, NULL, NULL, NULL, 0, 0, 0 },
    { "only a route, in a header: none", &header, "/", NULL, ".tomcat1", NULL, NULL, 0, 0, 1 },
    { "only a separator", &dot, "/", "JSESSIONID=.", NULL, NULL, NULL, 0, 0, 1 },

    /* more than one */
    { "duplicates: the one whose route a member has", &dot, "/", "JSESSIONID=old.tomcat9; JSESSIONID=X.tomcat1", NULL, "X", "tomcat1", 1, C, 0 },
    { "duplicates: the first of two that members have", &dot, "/", "JSESSIONID=X.tomcat2; JSESSIONID=Y.tomcat1", NULL, "X", "tomcat2", 1, C, 1 },
    { "duplicates: the first, if nobody has a route", &dot, "/", "JSESSIONID=X.tomcat8; JSESSIONID=Y.tomcat9", NULL, "X", "tomcat8", 0, C, 1 },
    { "duplicates: malformed ones do not count", &dot, "/", "JSESSIONID=a\\b.tomcat2; JSESSIONID=X.tomcat1", NULL, "X", "tomcat1", 1, C, 0 },
    { "duplicates: percent-encoded, the first is kept", &dot, "/", "JSESSIONID=%58.tomcat8; JSESSIONID=%59%5a.tomcat9", NULL, "X", "tomcat8", 0, C, 1 },

    /* spelling */
    { "quoted", &dot, "/", "JSESSIONID=\"X.tomcat1\"", NULL, "X", "tomcat1", 1, C, 0 },
    { "quoted, without route", &dot, "/", "JSESSIONID=\"X\"", NULL, "X", NULL, 0, C, 1 },
    { "one quote", &dot, "/", "JSESSIONID=\"X.tomcat1", NULL, NULL, NULL, 0, 0, 0 },
    { "two quotes and nothing in them", &dot, "/", "JSESSIONID=\"\"", NULL, NULL, NULL, 0, 0, 1 },
    { "a percent-encoded id", &dot, "/", "JSESSIONID=a%3Ab%2f.tomcat1", NULL, "a:b/", "tomcat1", 1, C, 1 },
    { "a percent-encoded separator", &dot, "/", "JSESSIONID=X%2Etomcat1", NULL, "X", "tomcat1", 1, C, 0 },
    { "undone once only", &dot, "/", "JSESSIONID=%2541.tomcat1", NULL, "%41", "tomcat1", 1, C, 1 },
    { "a malformed percent", &dot, "/", "JSESSIONID=a%4.tomcat1", NULL, NULL, NULL, 0, 0, 0 },
    { "a percent at the end", &dot, "/", "JSESSIONID=abc%", NULL, NULL, NULL, 0, 0, 1 },
    { "a percent-encoded NUL", &dot, "/", "JSESSIONID=a%00b", NULL, NULL, NULL, 0, 0, 1 },
    { "a percent-encoded CRLF", &dot, "/", "JSESSIONID=a%0d%0ab", NULL, NULL, NULL, 0, 0, 1 },
    { "a real CRLF in a path parameter", &dot, "/a;jsessionid=a\r\nb.tomcat1", NULL, NULL, NULL, NULL, 0, 0, 0 },
    { "a space in a path parameter", &dot, "/a;jsessionid= X.tomcat1", NULL, NULL, NULL, NULL, 0, 0, 0 },
    { "8-bit bytes", &dot, "/", "JSESSIONID=a\xc3\xa4.tomcat1", NULL, NULL, NULL, 0, 0, 0 },
    { "white space around = and value", &dot, "/", "a=b ;\t JSESSIONID \t= X.tomcat1 ; c=d", NULL, "X", "tomcat1", 1, C, 0 },
    { "white space before = of the first of two", &dot, "/", "JSESSIONID =X.tomcat2; JSESSIONID=Y.tomcat1", NULL, "X", "tomcat2", 1, C, 1 },
    { "white space before the value only", &dot, "/", "JSESSIONID= X.tomcat1", NULL, "X", "tomcat1", 1, C, 1 },
    { "a comma in the value", &dot, "/", "JSESSIONID=a,b.tomcat1", NULL, NULL, NULL, 0, 0, 1 },

    /* look-alikes: never an id of ours, and where stock follows them, it is said */
    { "a parameter of the query", &dot, "/a?jsessionid=X.tomcat1", NULL, NULL, NULL, NULL, 0, 0, 0 },
    { "a look-alike in the query", &dot, "/a?MYjsessionid=X.tomcat1", NULL, NULL, NULL, NULL, 0, 0, 0 },
    { "a look-alike in the query, beside a good cookie", &dot, "/a?MYjsessionid=X.tomcat2", "JSESSIONID=Y.tomcat1", NULL, "Y", "tomcat1", 1, C, 0 },
    { "a look-alike of the same route", &dot, "/a?MYjsessionid=X.tomcat1", "JSESSIONID=Y.tomcat1", NULL, "Y", "tomcat1", 1, C, 1 },
    { "a parameter that is nobody's, with a dot", &dot, "/a?jsessionid=1.5", "JSESSIONID=Y.tomcat1", NULL, "Y", "tomcat1", 1, C, 0 },
    { "a parameter without value: stock reads behind the end", &dot, "/a?jsessionid=", "JSESSIONID=Y.tomcat1", NULL, "Y", "tomcat1", 1, C, 0 },
    { "a url that ends with the name: the same", &dot, "/a/jsessionid", "JSESSIONID=Y.tomcat1", NULL, "Y", "tomcat1", 1, C, 0 },
    { "the name in the path", &dot, "/jsessionid/a", "JSESSIONID=Y.tomcat1", NULL, "Y", "tomcat1", 1, C, 1 },
    { "a cookie whose name ends alike", &dot, "/", "MYJSESSIONID=X.tomcat2; JSESSIONID=Y.tomcat1", NULL, "Y", "tomcat1", 1, C, 1 },
    { "a cookie whose name begins alike", &dot, "/", "JSESSIONIDS=X.tomcat2; JSESSIONID=Y.tomcat1", NULL, "Y", "tomcat1", 1, C, 1 },
    { "another case", &dot, "/", "jsessionid=X.tomcat2; JSESSIONID=Y.tomcat1", NULL, "Y", "tomcat1", 1, C, 1 },
    { "in another cookie's value, behind a space", &dot, "/", "a=b JSESSIONID=X.tomcat2; JSESSIONID=Y.tomcat1", NULL, "Y", "tomcat1", 1, C, 0 },
    { "in another cookie's value, behind a comma", &dot, "/", "a=b,JSESSIONID=X.tomcat2; JSESSIONID=Y.tomcat1", NULL, "Y", "tomcat1", 1, C, 0 },
    { "behind a comma only", &dot, "/", "a=b, JSESSIONID=X.tomcat2", NULL, NULL, NULL, 0, 0, 0 },
    { "the bare name first: stock steps over the second", &dot, "/", "JSESSIONID;JSESSIONID=X.tomcat1", NULL, "X", "tomcat1", 1, C, 0 },
    { "the bare name at the end: stock reads behind the end", &dot, "/", "a=b; JSESSIONID", NULL, NULL, NULL, 0, 0, 0 },
    { "an empty cookie at the end: the same", &dot, "/", "JSESSIONID=", NULL, NULL, NULL, 0, 0, 0 },
    { "an empty cookie, not at the end: none for both", &dot, "/", "JSESSIONID=; a=b", NULL, NULL, NULL, 0, 0, 1 },
    { "an empty one, then a good one: stock stays with the first", &dot, "/", "JSESSIONID=; JSESSIONID=X.tomcat1", NULL, "X", "tomcat1", 1, C, 0 },
    { "an empty parameter, then a cookie", &dot, "/a;jsessionid=?b", "JSESSIONID=X.tomcat1", NULL, "X", "tomcat1", 1, C, 0 },
    { "& ends stock's parameter", &dot, "/a;jsessionid=X&Y.tomcat1", NULL, NULL, "X&Y", "tomcat1", 1, P, 0 },

    /* stickysessionsep=off */
    { "no separator: a route cookie", &off, "/", "ROUTEID=tomcat1", NULL, "tomcat1", "tomcat1", 1, C, 1 },
    { "no separator: nobody's", &off, "/", "ROUTEID=a.b", NULL, "a.b", NULL, 0, C, 1 },
    { "no separator: a route cookie, quoted: not what stock compares", &off, "/", "ROUTEID=\"tomcat1\"", NULL, "tomcat1", "tomcat1", 1, C, 0 },

    /* SessionHAId: the id is somewhere else than the route */
    { "connect's cookie, signature and all", &whole, "/", "connect.sid=s%3Aabc.sig%2B1", NULL, "s:abc.sig+1", NULL, 0, C, 1 },
    { "the same not encoded", &whole, "/", "connect.sid=s:abc.sig", NULL, "s:abc.sig", NULL, 0, C, 1 },
    { "whole: in a path parameter", &whole, "/a;sid=abc.tomcat1/b", "connect.sid=x", NULL, "abc.tomcat1", NULL, 0, P, 1 },
    { "whole: first of two", &whole, "/", "connect.sid=abc; connect.sid=def", NULL, "abc", NULL, 0, C, 1 },
    { "whole: in a header", &whole, "/", NULL, " abc.def ", "abc.def", NULL, 0, H, 1 },
    { "a header of two values is no id", &whole, "/", NULL, "abc, def", NULL, NULL, 0, 0, 1 },
    { "header with a route: stock does not see it", &header, "/", NULL, "X.tomcat1", "X", "tomcat1", 1, H, 0 },
    { "header without a route", &header, "/", NULL, "X", "X", NULL, 0, H, 1 },
    { "header last", &both, "/", "JSESSIONID=Y.tomcat1", "X.tomcat2", "Y", "tomcat1", 1, C, 1 },
    { "header, when the cookie is no id", &both, "/", "JSESSIONID=a\\.tomcat1; a=b", "X.tomcat2", "X", "tomcat2", 1, H, 0 },
};

static void check_rows(apr_pool_t *p)
{
    apr_size_t i;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct row *r = &rows[i];
        ha_id out;
        apr_status_t rv = ha_id_parse(r->rules, r->url, r->cookies, r->header, known, NULL, p, &out);
        const char *wrong = ref_compare(r->rules, r->url, r->cookies, r->header, known, rv, &out);
        int good = rv == (r->id ? APR_SUCCESS : APR_NOTFOUND) && out.stock_sees == r->stock_sees
            && (r->id ? strcmp(out.id, r->id) == 0 && out.id_len == strlen(r->id) : !out.id && !out.id_len)
            && (r->route ? out.route && strcmp(out.route, r->route) == 0 : !out.route)
            && ((!r->id && !r->route) || ((int)out.place == r->place && out.route_known == r->known));
        if (!ok(good, "%s", r->name))
            printf("#   got id %s route %s known %d place %d stock_sees %d\n", out.id ? out.id : "-", out.route ? out.route : "-",
                   out.route_known, (int)out.place, out.stock_sees);
        if (wrong)
            ok(0, "%s: the reference says: %s", r->name, wrong);
    }
}

static char *repeat(apr_pool_t *p, const char *s, int n)
{
    const size_t len = strlen(s);
    char *out = apr_palloc(p, len * (size_t)n + 1);
    int i;

    for (i = 0; i < n; i++)
        memcpy(out + (size_t)i * len, s, len);
    out[len * (size_t)n] = '\0';
    return out;
}

static void check_sizes(apr_pool_t *p)
{
    const char *a256 = repeat(p, "a", HA_ID_MAX), *r96 = repeat(p, "r", HA_ROUTE_MAX);
    ha_id out;

    ok(ha_id_parse(&dot, "/", apr_pstrcat(p, "JSESSIONID=", a256, ".tomcat1", NULL), NULL, known, NULL, p, &out) == APR_SUCCESS
       && out.id_len == HA_ID_MAX, "an id of HA_ID_MAX bytes");
    ok(ha_id_parse(&dot, "/", apr_pstrcat(p, "JSESSIONID=", a256, "a.tomcat1", NULL), NULL, known, NULL, p, &out) == APR_NOTFOUND,
       "not one byte more");
    ok(ha_id_parse(&dot, "/", apr_pstrcat(p, "JSESSIONID=", a256, "a", NULL), NULL, known, NULL, p, &out) == APR_NOTFOUND,
       "nor without a route");
    ok(ha_id_parse(&dot, "/", apr_pstrcat(p, "JSESSIONID=", repeat(p, "%41", HA_ID_MAX), ".", r96, NULL), NULL, known, NULL, p, &out) == APR_SUCCESS
       && out.id_len == HA_ID_MAX && strlen(out.route) == HA_ROUTE_MAX && out.stock_sees, "the longest id and route, percent-encoded");
    ok(ha_id_parse(&dot, "/", apr_pstrcat(p, "JSESSIONID=", repeat(p, "%41", HA_ID_MAX), ".", r96, "%", NULL), NULL, known, NULL, p, &out) == APR_NOTFOUND,
       "a broken percent behind the longest");
    ok(ha_id_parse(&dot, "/", apr_pstrcat(p, "JSESSIONID=X.tomcat9; JSESSIONID=%41", repeat(p, "a", 3 * HA_ID_MAX), NULL), NULL, known, NULL, p, &out) == APR_SUCCESS
       && strcmp(out.id, "X") == 0, "one that decodes to more than any, behind another");
    ok(ha_id_parse(&dot, "/", apr_pstrcat(p, "JSESSIONID=a.", r96, "r", NULL), NULL, known, NULL, p, &out) == APR_SUCCESS
       && strlen(out.id) == HA_ROUTE_MAX + 3 && !out.route && out.stock_sees, "too long for a route: a dotted id without one");
}

static void check_large(apr_pool_t *p)
{
    const int n = 10000;
    char *cookies;
    ha_id out;

    cookies = apr_pstrcat(p, "x=", repeat(p, "v", 100 * 1024), "; JSESSIONID=X.tomcat1", NULL);
    ok(ha_id_parse(&dot, "/", cookies, NULL, known, NULL, p, &out) == APR_SUCCESS && strcmp(out.id, "X") == 0 && out.stock_sees,
       "behind a cookie of 100 KB");
    cookies = apr_pstrcat(p, "JSESSIONID=", repeat(p, "v", 100 * 1024), NULL);
    ok(ha_id_parse(&dot, "/", cookies, NULL, known, NULL, p, &out) == APR_NOTFOUND, "an id of 100 KB is none");
    cookies = apr_pstrcat(p, "JSESSIONID=", repeat(p, ".", 100 * 1024), NULL);
    ok(ha_id_parse(&dot, "/", cookies, NULL, known, NULL, p, &out) == APR_NOTFOUND, "nor 100 KB of separators");

    calls = 0;
    cookies = apr_pstrcat(p, repeat(p, "JSESSIONID=X.tomcat9; ", n), "JSESSIONID=Y.tomcat1", NULL);
    ok(ha_id_parse(&dot, "/", cookies, NULL, known, NULL, p, &out) == APR_SUCCESS && strcmp(out.id, "Y") == 0,
       "10,000 duplicates, the last one is a member's");
    ok(calls <= n + 3, "each is asked about once (%d)", calls);
    ok(ha_id_parse(&dot, "/", repeat(p, "JSESSIONID ", n), NULL, known, NULL, p, &out) == APR_NOTFOUND, "10,000 bare names");
    ok(ha_id_parse(&dot, "/", repeat(p, "JSESSIONID;", n), NULL, known, NULL, p, &out) == APR_NOTFOUND, "10,000 of them, with semicolons");
    ok(ha_id_parse(&dot, repeat(p, ";jsessionid=\\", n), NULL, NULL, known, NULL, p, &out) == APR_NOTFOUND, "10,000 malformed path parameters");
    ok(ha_id_parse(&dot, repeat(p, ";jsessionid", n), NULL, NULL, known, NULL, p, &out) == APR_NOTFOUND && !out.stock_sees, "10,000 bare ones");
}

static void check_alphabet(void)
{
    int c, wrong = 0;
    char id[2] = { 0, 0 };

    for (c = 0; c < 256; c++) {
        id[0] = (char)c;
        wrong += ha_id_wellformed(id, 1) != (c && strchr("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ!#$%&'()*+-./:<=>?@[]^_`{|}~", c));
    }
    ok(!wrong, "the alphabet is the one that session_id.h names");
    ok(!ha_id_wellformed("", 0), "an empty id is none");
}

/* Each byte at each place of an ordinary cookie's id: the short way must not let pass what the long way does not. */
static void check_places(apr_pool_t *p)
{
    char id[] = HEX32;
    int c, i, wrong = 0;

    for (i = 0; i < (int)sizeof id - 1; i++) {
        for (c = 1; c < 256; c++) {
            ha_id out;
            apr_status_t rv;

            if (strchr(".;%", c) || (i == 0 && strchr(" \t", c)))       /* these end or cut it, or spell another */
                continue;
            id[i] = (char)c;
            rv = ha_id_parse(&dot, "/", apr_pstrcat(p, "JSESSIONID=", id, ".tomcat1", NULL), NULL, known, NULL, p, &out);
            wrong += (rv == APR_SUCCESS) != ha_id_wellformed(id, sizeof id - 1) || (rv == APR_SUCCESS && strcmp(out.id, id) != 0);
        }
        id[i] = HEX32[i];
    }
    ok(!wrong, "each byte at each place of an id");
}

/* Pieces of requests in any order: all three readings must agree on every one. */
static void check_random(apr_pool_t *parent)
{
    static const char *const pieces[] = {
        "JSESSIONID", "jsessionid", "ROUTEID", "=", "=", "=", ";", ";", "; ", ",", " ", "\t", "\v", ".", ".", "tomcat1", "tomcat2", "b.c", "X", "abc",
        "\"", "%41", "%2e", "%2E", "%", "?", "&", "/", "\xa0", "\\", "JSESSIONID=X.tomcat1", "jsessionid=Y.tomcat2", "; JSESSIONID=", "S"
    };
    const ha_id_rules *const rules[] = { &dot, &dot, &off, &whole, &both, &bang };
    apr_uint64_t seed = 42;
    int i, k, wrong = 0, seen = 0, ids = 0;
    apr_pool_t *p;

    apr_pool_create(&p, parent);
    for (i = 0; i < 300000 && wrong < 5; i++) {
        char text[3][512];
        const ha_id_rules *r = rules[i % 6];
        const char *url, *cookies, *field, *why;
        apr_status_t rv;
        ha_id out;

        for (k = 0; k < 3; k++) {
            int n = (int)((seed = seed * 6364136223846793005u + 1442695040888963407u) >> 60) % 12;
            text[k][0] = '\0';
            while (n--) {
                seed = seed * 6364136223846793005u + 1442695040888963407u;
                strcat(text[k], pieces[(seed >> 33) % (sizeof(pieces) / sizeof(pieces[0]))]);
            }
        }
        url = text[0];
        cookies = i % 7 ? text[1] : NULL;
        field = r->header && i % 3 ? text[2] : NULL;
        rv = ha_id_parse(r, url, cookies, field, known, NULL, p, &out);
        if ((why = ref_compare(r, url, cookies, field, known, rv, &out))) {
            wrong++;
            printf("# %s\n#   url <%s>\n#   cookies <%s>\n#   got id %s route %s stock_sees %d\n", why, url, cookies ? cookies : "-",
                   out.id ? out.id : "-", out.route ? out.route : "-", out.stock_sees);
        }
        seen += out.stock_sees;
        ids += rv == APR_SUCCESS;
        if (i % 1000 == 0)
            apr_pool_clear(p);
    }
    ok(!wrong, "300,000 requests made of pieces: the references agree");
    ok(ids > 10000 && seen > 10000, "and %d of them had an id, %d were as stock sees them", ids, seen);
    apr_pool_destroy(p);
}

int main(void)
{
    apr_pool_t *p;

    apr_initialize();
    apr_pool_create(&p, NULL);
    check_alphabet();
    check_places(p);
    check_rows(p);
    check_sizes(p);
    check_large(p);
    check_random(p);
    apr_pool_destroy(p);
    apr_terminate();
    return tap_done();
}
