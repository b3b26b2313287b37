/* SessionHANative: what may be written, which store it fits, and what one session is called there. */
#include <stdio.h>
#include <apr_general.h>
#include <apr_strings.h>
#include <apr_escape.h>
#include "tap.h"
#include "session/session_native.h"

#define HEX32 "0123456789ABCDEF0123456789ABCDEF"
#define DATABASE "dbd:sqlite3,/nowhere/x.db"

static apr_pool_t *p;

static ha_store *store_at(const char *url)
{
    ha_store *store;
    const char *why = ha_store_configure(&store, p, 1, &url, 1, apr_time_from_msec(100));

    if (why)
        printf("# %s\n", why);
    return store;
}

/* Parsed, fitted and filled in: the names, joined by a blank; or why there are none. */
static const char *names_of(const char *text, const char *url, const char *id, const char *issued)
{
    ha_store *store = store_at(url);
    const ha_native *native;
    ha_name names[HA_NAMES_MAX];
    const char *why, *all = "";
    int i, k, n;

    if ((why = ha_native_parse(&native, text, p)) != NULL || (why = ha_native_fits(native, store, p)) != NULL)
        return apr_pstrcat(p, "refused: ", why, NULL);
    n = ha_native_names(native, ha_store_names(store), id, issued, apr_time_from_sec(1700000000), p, names, &why);
    if (n == 0)
        return apr_pstrcat(p, "none: ", why, NULL);
    for (i = 0; i < n; i++) {
        all = apr_pstrcat(p, all, i ? " " : "", names[i].text, NULL);
        for (k = 0; k < names[i].nargs; k++)
            all = apr_pstrcat(p, all, " <", names[i].args[k], ">", NULL);
    }
    return all;
}

static void check_presets(void)
{
    static const struct { const char *text, *url, *id, *issued, *names; } rows[] = {
        /* captured from memcached-session-manager */
        { "msm", "memcached://h", "AFB0528D73A0D7CD9FA1755149230103-n2", "AFB0528D73A0D7CD9FA1755149230103-n2.tomcat1",
          "AFB0528D73A0D7CD9FA1755149230103-n2.tomcat1 bak:AFB0528D73A0D7CD9FA1755149230103-n2.tomcat1" },
        { "php-memcached", "memcached://h", "abc123", "abc123.php1", "memc.sess.key.abc123" },
        { "PHP-Memcached", "libmemcached://h", "abc123", "abc123", "memc.sess.key.abc123" },
        { "connect-memcached", "memcached://h", "s:Zx_-09.QmFz+/signature", "s:Zx_-09.QmFz+/signature", "Zx_-09" },
        { "connect-memcached", "memcached://h", "unsigned", "unsigned", "unsigned" },
        { "connect-memcached", "memcached://h", "s:with.a.dot.sig", "", "with.a.dot" },
        { "django", "redis://h", "k0k0", "k0k0", ":1:django.contrib.sessions.cachek0k0 :1:django.contrib.sessions.cached_dbk0k0" },
        { "tomcat-file", "file:/x", HEX32, HEX32 ".tomcatA", HEX32 ".tomcatA.session " HEX32 ".session" },
        { "tomcat-file", "file:/x", HEX32, HEX32, HEX32 ".session" },
        { "tomcat-jdbc", DATABASE, HEX32, HEX32 ".tomcatA", "SELECT 1 FROM tomcat_sessions WHERE session_id IN (%s, %s) AND valid_session = '1'"
          " AND (max_inactive <= 0 OR last_access + 2000.0 * max_inactive > 1700000000000) <" HEX32 ".tomcatA> <" HEX32 ">" },
    };
    const ha_native *native;
    size_t i;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        is_str(names_of(rows[i].text, rows[i].url, rows[i].id, rows[i].issued), rows[i].names, rows[i].text);
    ok(ha_native_parse(&native, "none", p) == NULL && !ha_native_is_somewhere(native)
       && ha_native_fits(native, store_at("lmdb:/x"), p) == NULL, "none: nowhere, and that fits every store");
}

static void check_templates(void)
{
    static const struct { const char *text, *url, *names; } rows[] = {
        { "sess:%{sid}", "redis://h", "sess:ID" },
        { "%{id}", "memcached://h", "ID" },
        { "a%b%{id}%{issued}%", "memcached://h", "a%bIDID.r1%" },
        { "/srv/my sessions/sess_%{id}", "file:/x", "/srv/my sessions/sess_ID" },
        { "SELECT 1 FROM `tomcat$sessions` WHERE id = %{issued} AND app LIKE '/Catalina/%'", DATABASE,
          "SELECT 1 FROM `tomcat$sessions` WHERE id = %s AND app LIKE '/Catalina/%%' <ID.r1>" },
        { "select 1 from s where k = %{id} and e > %{now}", DATABASE, "select 1 from s where k = %s and e > 1700000000000 <ID>" },
    };
    size_t i;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        is_str(names_of(rows[i].text, rows[i].url, "ID", "ID.r1"), rows[i].names, rows[i].text);
}

static void check_refused(void)
{
    static const struct { const char *text, *url, *says; } rows[] = {
        { "mms", "memcached://h", "allowed: none, msm, php-memcached, connect-memcached, django, tomcat-file, tomcat-jdbc, or a template" },
        { "", "memcached://h", "allowed: none" },
        { "key", "memcached://h", "allowed: none" },
        { "%{ID}", "memcached://h", "allowed: none" },
        { "%{id", "memcached://h", "allowed: none" },
        { "%{id}%{route}", "memcached://h", "allowed: none" },
        { "%{now}", DATABASE, "allowed: none" },
        { "%{id}\r\n", "memcached://h", "allowed: none" },
        { "%{id}\xff", "memcached://h", "allowed: none" },
        { "%{id}%{id}%{id}%{id}%{id}%{id}%{id}%{id}%{id}", "memcached://h", "allowed: none" },
        { "msm", "redis://h", "allowed: SessionHAStore with nodes of memcached, libmemcached" },
        { "msm", "lmdb:/x", "'msm' is not kept in a store like lmdb:" },
        { "tomcat-file", "memcached://h", "allowed: SessionHAStore with nodes of file" },
        { "tomcat-jdbc", "file:/x", "allowed: SessionHAStore with nodes of dbd" },
        { "django", DATABASE, "allowed: SessionHAStore with nodes of memcached, libmemcached, redis" },
        { "%{id}", "lmdb:/x", "no application keeps its sessions in lmdb:" },
        { "a key %{id}", "memcached://h", "a key has no space" },
        { "%{id}%{now}", "redis://h", "a key has no space, no %{now}" },
        { "../%{id}", "file:/x", "a file's name has no .." },
        { "/a/%{id}/b", "file:/x", "words stand behind the last /" },
        { "%{id}", DATABASE, "it is a SELECT" },
        { "DELETE FROM s WHERE id = %{id}", DATABASE, "it is a SELECT" },
        { "SELECT 1 FROM s WHERE id = %{id}; DROP TABLE s", DATABASE, "without a semicolon" },
        { "SELECT 1 FROM s WHERE id = '%{id}'", DATABASE, "words stand without quotes" },
    };
    size_t i;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *got = names_of(rows[i].text, rows[i].url, "ID", "ID.r1");
        if (!ok(strncmp(got, "refused: ", 9) == 0 && strstr(got, rows[i].says), "refused: %s", apr_pescape_echo(p, rows[i].text, 0)))
            printf("#   got %s\n", got);
    }
    ok(strncmp(names_of(apr_pstrcat(p, "%{id}", apr_psprintf(p, "%0200d", 0), NULL), "memcached://h", "I", "I"), "refused: ", 9) == 0,
       "refused: a template that leaves no room for an id");
}

/* What a client may say its id is. */
static void check_ids(void)
{
    static const char *const bad[] = {
        "", ".", "..", ".hidden", "a..b", "../../etc/passwd", "a/b", "a b", "a\nget b", "a\r\nflush_all\r\n", "a%0d", "a'b", "a\"b",
        "a\\b", "a;b", "a*b", "a\x7f", "a\xc3\xa4", "%{now}", "a,b", "a:b"
    };
    char *longest = apr_pcalloc(p, 300);
    size_t i;

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ok(strncmp(names_of("%{id}", "memcached://h", bad[i], "x"), "none: the id has other characters", 33) == 0
           && strncmp(names_of("%{id}", "file:/x", bad[i], "x"), "none: the id has other characters", 33) == 0
           && strncmp(names_of("SELECT 1 FROM s WHERE i = %{id}", DATABASE, bad[i], "x"), "none: the id has other characters", 33) == 0,
           "no name is made of '%s'", apr_pescape_echo(p, bad[i], 0));
    }
    ok(strncmp(names_of("connect-memcached", "memcached://h", "s:../x.sig", ""), "none: ", 6) == 0
       && strncmp(names_of("connect-memcached", "memcached://h", "s:.sig", ""), "none: ", 6) == 0, "nor of what is left of a signed one");
    memset(longest, 'a', 250);
    is_str(names_of("%{id}", "memcached://h", longest, "x"), longest, "250 bytes are a key");
    longest[250] = 'a';
    ok(strncmp(names_of("%{id}", "memcached://h", longest, "x"), "none: the id is too long", 24) == 0, "251 bytes are not");
    ok(strstr(names_of("x%{id}", "memcached://h", "a b", "x"), "a b") == NULL, "and why does not say the id");
}

/* What cannot be asked for is no answer. */
static void check_look(void)
{
    const ha_native *native;
    const char *why = NULL;
    apr_status_t rv;

    (void)ha_native_parse(&native, "msm", p);
    rv = ha_native_end(ha_native_begin(native, store_at("memcached://h"), "a b", "a b", apr_time_now(), p), &why);
    ok(rv != APR_SUCCESS && rv != APR_NOTFOUND && why, "an id with a blank: nobody knows (%s)", why);
    rv = ha_native_end(ha_native_begin(native, store_at("lmdb:/x"), "a", "a", apr_time_now(), p), &why);
    ok(rv != APR_SUCCESS && rv != APR_NOTFOUND && strstr(why, "allowed"), "a store that it does not fit: nobody knows");
}

int main(void)
{
    apr_initialize();
    apr_pool_create(&p, NULL);
    check_presets();
    check_templates();
    check_refused();
    check_ids();
    check_look();
    return tap_done();
}
