/* The protocol's fields: RFC 9651's own examples, what members send, what they must not send. */
#include <stdio.h>
#include <stdlib.h>
#include <apr_general.h>
#include <apr_strings.h>
#include "tap.h"
#include "session/session_field.h"

#define BACKUP "id=\"ABC\", epoch=3, seq=19, "

/* Is `member` skipped as an unknown one, in all the places where it can stand? NULL, or where it is not. */
static const char *refused_where(apr_pool_t *p, const char *member)
{
    ha_field_backup b;
    const char *why;

    if (ha_field_parse_backup(apr_pstrcat(p, "zzz=", member, ", " BACKUP "size=1", NULL), p, &b, &why) != APR_SUCCESS)
        return "first";
    if (ha_field_parse_backup(apr_pstrcat(p, BACKUP "size=1, zzz=", member, NULL), p, &b, &why) != APR_SUCCESS || b.size != 1)
        return "last";
    if (ha_field_parse_backup(apr_pstrcat(p, BACKUP "size=1;zzz=", member, ";y", NULL), p, &b, &why) != APR_SUCCESS || b.size != 1)
        return "as a parameter";
    if (ha_field_parse_backup(apr_pstrcat(p, "zzz=( ", member, ";a=", member, "  ", member, " );x, " BACKUP "size=1", NULL), p, &b, &why) != APR_SUCCESS)
        return "in an inner list";
    return NULL;
}

static void check_rfc(apr_pool_t *p)
{
    /* bare items of RFC 9651 3.3, and its corners */
    static const char *const good[] = {
        "42", "-42", "0", "-0", "00", "042", "999999999999999", "-999999999999999",
        "4.5", "-1.5", "0.0", "123456789012.123", "1.000",
        "\"hello world\"", "\"\"", "\"a \\\"quote\\\" and a \\\\\"", "\" !#$[]~\"",
        "foo123/456", "*", "a", "A.b:c/d*", "*foo!#$%&'*+-.^_`|~",
        ":cHJldGVuZCB0aGlzIGlzIGJpbmFyeSBjb250ZW50Lg==:", "::", ":iZ==:", ":+/AZaz09:",
        "?1", "?0",
        "@1659578233", "@-62135596800", "@0",
        "%\"This is intended for display to %c3%bcsers.\"", "%\"\"", "%\"%f0%9f%98%80 %e2%82%ac\"", "%\"%ed%9f%bf%ee%80%80\""
    };
    static const char *const bad[] = {
        "", " 1", "1000000000000000", "-1000000000000000", "-", "--1", "- 1", "+1", "1.", ".5", "1.2345", "1234567890123.1", "1.-2", "0x1",
        "\"open", "\"a\\b\"", "\"open\\", "\"t\tab\"", "\"\x7f\"", "\"\xc3\xa4\"", "\"\n\"", "'a'",
        "!a", "a\x80", "a\"b\"", ":open", ":a b:", ":a_-:", ":a\":", "?", "?2", "?true", "? 1", "@", "@1.5", "@x",
        "%", "%a", "%\"open", "%\"%C3%BC\"", "%\"%c\"", "%\"%\"", "%\"%zz\"", "%\"%80\"", "%\"%c0%80\"", "%\"%c3\"", "%\"%c3a\"", "%\"%ed%a0%80\"",
        "%\"%f5%80%80%80\"", "%\"%f4%90%80%80\"", "%\"%e0%80%80\"", "%\"%f0%80%80%80\"", "%\"\t\"", "%\"\xc3\xbc\"",
        "(1 2", "(1,2)", "(1)2", "(\"a\"\"b\")", "(1\t2)", "[1]", "{1}", "1 2", "1;", "1;=2", "1;A", "1;a=", "1;a=(1)", "1,", ",1", "1,,a"
    };
    /* RFC 9651 3.2 and 4.2.2 */
    static const char *const dictionaries[] = {
        "en=\"Applepie\", da=:w4ZibGV0w6ZydGU=:", "a=?0, b, c; foo=bar", "rating=1.5, feelings=(joy sadness)", "a=(1 2), b=3, c=4;aa=bb, d=(5 6);valid",
        "a=1,b=2", "a=1\t ,\t b=2", "  a=1", "a_-.*1=1", "*a=1", "a;x;y=2", "a;  x", "a=()", "a=(  )", "a=(1);x=1", "a=1, a=2"
    };
    static const char *const broken[] = {
        "A=1", "1a=1", "-a=1", "a =1", "a= 1", "a=1 b=2", "a==1", "=1", "a=1;", "a;x =1", "a;x= 1", "\ta=1", "a=1 \n", "a=\x80", "\x80", "a=1, ", "a\x01"
    };
    const char *where, *why;
    ha_field_backup b;
    apr_size_t i;

    for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        where = refused_where(p, good[i]);
        ok(!where, "skipped: %s%s%s", good[i], where ? " - not " : "", where ? where : "");
    }
    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ok(ha_field_parse_backup(apr_pstrcat(p, BACKUP "size=1, zzz=", bad[i], NULL), p, &b, &why) == APR_EINVAL && !b.id && why,
           "refused: bad value %d", (int)i);
    }
    for (i = 0; i < sizeof(dictionaries) / sizeof(dictionaries[0]); i++)
        ok(ha_field_parse_backup(apr_pstrcat(p, dictionaries[i], ", " BACKUP "size=1", NULL), p, &b, &why) == APR_SUCCESS,
           "skipped: %s", dictionaries[i]);
    for (i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
        ok(ha_field_parse_backup(apr_pstrcat(p, broken[i], ", " BACKUP "size=1", NULL), p, &b, &why) == APR_EINVAL,
           "refused: broken dictionary %d", (int)i);
    }
}

static void check_backup(apr_pool_t *p)
{
    static const struct { const char *value, *id; apr_uint64_t epoch, seq; apr_int64_t ttl, size; const char *state; int gone; const char *was, *at; } good[] = {
        { "id=\"ABC\", epoch=3, seq=19, ttl=1800, state=:aGVsbG8=:", "ABC", 3, 19, 1800, -1, "aGVsbG8=", 0, NULL, NULL },
        { "id=\"ABC\", epoch=3, seq=19, ttl=1800, size=81234, at=\"/shop/.well-known/session-backup\"",
          "ABC", 3, 19, 1800, 81234, NULL, 0, NULL, "/shop/.well-known/session-backup" },
        { "id=\"ABC\", gone", "ABC", 0, 0, -1, -1, NULL, 1, NULL, NULL },
        { "id=\"ABC\", gone=?1, epoch=2, seq=5", "ABC", 2, 5, -1, -1, NULL, 1, NULL, NULL },
        { "id=\"ABC\", gone;why=logout", "ABC", 0, 0, -1, -1, NULL, 1, NULL, NULL },
        { "id=\"NEW\", was=\"OLD\", epoch=1, seq=0, state=::", "NEW", 1, 0, -1, -1, "", 0, "OLD", NULL },
        { "id=\"ABC\", gone=?0, epoch=1, seq=2, size=0", "ABC", 1, 2, -1, 0, NULL, 0, NULL, NULL },
        { "state=:AAAA:;x=1,seq=7,epoch=1,id=\"s:a.b\";v=\"1\"", "s:a.b", 1, 7, -1, -1, "AAAA", 0, NULL, NULL },
        { "id=\"ABC\", epoch=999999999999999, seq=999999999999999, ttl=2147483647, size=999999999999999",
          "ABC", 999999999999999, 999999999999999, HA_TTL_MAX, 999999999999999, NULL, 0, NULL, NULL },
        /* a life without an end is a member's own idea of it */
        { "id=\"ABC\", epoch=1, seq=1, size=4, ttl=0", "ABC", 1, 1, -1, 4, NULL, 0, NULL, NULL },
        { "id=\"ABC\", epoch=1, seq=1, size=4, ttl=-1", "ABC", 1, 1, -1, 4, NULL, 0, NULL, NULL },
        { "id=\"ABC\", epoch=1, seq=1, size=4, ttl=1", "ABC", 1, 1, 1, 4, NULL, 0, NULL, NULL },
        { "id=\"ABC\", epoch=1, seq=1, size=4, ttl=999999999999999", "ABC", 1, 1, HA_TTL_MAX, 4, NULL, 0, NULL, NULL },
        /* the last of a key counts, whatever the first was */
        { "id=5, id=\"A\", id=\"ABC\", epoch=1, seq=1, seq=2, state=:AA:, state=:BBBB:", "ABC", 1, 2, -1, -1, "BBBB", 0, NULL, NULL },
        { "id=\"ABC\", epoch=1, seq=1, state=:AAAAAA:", "ABC", 1, 1, -1, -1, "AAAAAA==", 0, NULL, NULL },
        { "id=\"ABC\", epoch=1, seq=1, state=:AAA:, ttl=5", "ABC", 1, 1, 5, -1, "AAA=", 0, NULL, NULL },
        { "id=\"ABC\", gone, gone=?0, epoch=1, seq=1, size=4", "ABC", 1, 1, -1, 4, NULL, 0, NULL, NULL },
        /* not looked at here: ha_field_base64_check does */
        { "id=\"ABC\", epoch=1, seq=1, state=:no base64, not:", "ABC", 1, 1, -1, -1, "no base64, not==", 0, NULL, NULL },
        { "id=\"ABC\", epoch=1, seq=1, size=4, at=\"/.well-known/session-backup\"", "ABC", 1, 1, -1, 4, NULL, 0, NULL, HA_WELL_KNOWN },
        { "id=\"ABC\", epoch=1, seq=1, size=4, at=\"/my%20shop/%C3%a4/a=b/\\\"/.well-known/session-backup\"",
          "ABC", 1, 1, -1, 4, NULL, 0, NULL, "/my%20shop/%C3%a4/a=b/\"/.well-known/session-backup" },
        { "id=\"ABC\", epoch=1, seq=1, size=4, at=\"/a..b/...//.x/.well-known/session-backup\"",
          "ABC", 1, 1, -1, 4, NULL, 0, NULL, "/a..b/...//.x/.well-known/session-backup" },
    };
    static const char *const bad[] = {
        "", "   ", "gone", "epoch=1, seq=1, size=1",
        /* id */
        "id=ABC, gone", "id=\"\", gone", "id=:QUJD:, gone", "id, gone", "id=(\"ABC\"), gone", "id=5, gone", "id=\"ABC\", id=5, gone",
        "id=\"A B\", gone", "id=\"A\\\"B\", gone", "id=\"A\\\\B\", gone", "id=\"A;B\", gone", "id=\"A,B\", gone", "id=%\"ABC\", gone",
        "id=\"NEW\", was=\"\", gone", "id=\"NEW\", was=OLD, gone", "id=\"NEW\", was=\"a b\", gone", "id=\"NEW\", was, gone",
        /* which kind */
        "id=\"ABC\"", "id=\"ABC\", epoch=1, seq=1", "id=\"ABC\", gone=?0", "id=\"ABC\", gone=1", "id=\"ABC\", gone=yes", "id=\"ABC\", gone, epoch=1, seq=1, size=4",
        "id=\"ABC\", gone, epoch=1, seq=1, state=:AAAA:", "id=\"ABC\", epoch=1, seq=1, size=4, state=:AAAA:", "id=\"ABC\", gone=()",
        /* version */
        "id=\"ABC\", seq=1, size=4", "id=\"ABC\", epoch=1, size=4", "id=\"ABC\", epoch=0, seq=1, size=4", "id=\"ABC\", epoch=-1, seq=1, size=4",
        "id=\"ABC\", epoch=1, seq=-1, size=4", "id=\"ABC\", epoch=1.0, seq=1, size=4", "id=\"ABC\", epoch=\"1\", seq=1, size=4", "id=\"ABC\", epoch, seq=1, size=4",
        "id=\"ABC\", epoch=1000000000000000, seq=1, size=4", "id=\"ABC\", epoch=0, gone", "id=\"ABC\", epoch=@1, seq=1, size=4",
        /* ttl, size, state */
        "id=\"ABC\", epoch=1, seq=1, size=4, ttl=1000000000000000", "id=\"ABC\", epoch=1, seq=1, size=4, ttl=1.5", "id=\"ABC\", epoch=1, seq=1, state=:AAAAA:",
        "id=\"ABC\", epoch=1, seq=1, size=4, ttl", "id=\"ABC\", epoch=1, seq=1, size=-1", "id=\"ABC\", epoch=1, seq=1, size", "id=\"ABC\", epoch=1, seq=1, size=?1",
        "id=\"ABC\", epoch=1, seq=1, state=\"AAAA\"", "id=\"ABC\", epoch=1, seq=1, state=AAAA", "id=\"ABC\", epoch=1, seq=1, state=:AAAA", "id=\"ABC\", epoch=1, seq=1, state",
        "id=\"ABC\", epoch=1, seq=1, state=:AAAA:AAAA:",
        /* what a client or a broken member would add */
        "id=\"ABC\", gone\r\nX: y", "id=\"ABC\", gone, ", "id=\"ABC\" gone", "id=\"ABC\",, gone", "id=\"ABC\r\n\", gone", "id=\"AB\xc3\xa4\", gone"
    };
    static const char *const paths[] = {
        "", "/", "shop/.well-known/session-backup", "//evil/.well-known/session-backup", "http://evil/.well-known/session-backup",
        "/shop/.well-known/session-backup/", "/shop/.well-known/session-backups", "/shop.well-known/session-backup?", "/shop", "/shop/.well-known/session-backup?x=1",
        "/a?/.well-known/session-backup", "/a#/.well-known/session-backup", "/a\\\\b/.well-known/session-backup", "/a b/.well-known/session-backup",
        "/../.well-known/session-backup", "/a/../b/.well-known/session-backup", "/./.well-known/session-backup", "/a/./.well-known/session-backup",
        "/a/..;x/.well-known/session-backup", "/a;x=y/.well-known/session-backup", "/%2e%2e/.well-known/session-backup", "/%2E/.well-known/session-backup",
        "/a%2f/.well-known/session-backup", "/a%5c/.well-known/session-backup", "/a%3bx/.well-known/session-backup", "/a%3f/.well-known/session-backup",
        "/a%23/.well-known/session-backup", "/a%00/.well-known/session-backup", "/a%0d%0a/.well-known/session-backup", "/a%7f/.well-known/session-backup",
        "/a%252e/.well-known/session-backup", "/a%/.well-known/session-backup", "/a%2/.well-known/session-backup", "/a%zz/.well-known/session-backup"
    };
    /* seq 0: refused */
    static const struct { const char *value; apr_uint64_t epoch, seq; } fetched[] = {
        { "seq=19", 0, 19 }, { "id=\"ABC\", seq=19", 0, 19 }, { "id=\"ABC\", epoch=3, seq=19", 3, 19 }, { "id=\"ABC\", epoch=3, seq=19, ttl=9, size=4, new", 3, 19 },
        { "", 0, 0 }, { "id=\"ABC\", epoch=3", 0, 0 }, { "id=5, seq=19", 0, 0 }, { "epoch=0, seq=19", 0, 0 }, { "seq=19, size=-1", 0, 0 }, { "seq=x", 0, 0 },
    };
    ha_field_backup b;
    const char *why, *text;
    apr_size_t i;

    for (i = 0; i < sizeof(fetched) / sizeof(fetched[0]); i++) {
        apr_status_t rv = ha_field_parse_fetched(fetched[i].value, p, &b, &why);
        ok(fetched[i].seq ? rv == APR_SUCCESS && b.version.epoch == fetched[i].epoch && b.version.seq == fetched[i].seq : rv == APR_EINVAL,
           "with a fetched state: %s", fetched[i].value);
    }
    ok(ha_field_parse_fetched("seq=19", p, &b, &why) == APR_SUCCESS && b.running == -1, "nothing is said of running requests");
    ok(ha_field_parse_fetched("seq=19, running=0", p, &b, &why) == APR_SUCCESS && b.running == 0, "none is running");
    ok(ha_field_parse_fetched("seq=19, running=7", p, &b, &why) == APR_SUCCESS && b.running == 7, "seven are");
    ok(ha_field_parse_fetched("seq=19, running=-1", p, &b, &why) == APR_EINVAL && b.running == -1, "fewer than none");
    for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        apr_status_t rv = ha_field_parse_backup(good[i].value, p, &b, &why);
        ok(rv == APR_SUCCESS && strcmp(b.id, good[i].id) == 0 && b.version.epoch == good[i].epoch && b.version.seq == good[i].seq && b.ttl == good[i].ttl
           && b.size == good[i].size && b.gone == good[i].gone
           && (good[i].state ? b.state.data && b.state.len == strlen(good[i].state) && memcmp(b.state.data, good[i].state, b.state.len) == 0 : !b.state.data)
           && (good[i].was ? b.was && strcmp(b.was, good[i].was) == 0 : !b.was) && (good[i].at ? b.at && strcmp(b.at, good[i].at) == 0 : !b.at),
           "backup: %s", good[i].value);
        if (rv != APR_SUCCESS)
            printf("# %s\n", why);
    }
    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        why = NULL;
        ok(ha_field_parse_backup(bad[i], p, &b, &why) == APR_EINVAL && why && !b.id && !b.was && !b.at && !b.state.data && !b.gone && b.ttl == -1 && b.size == -1,
           "no backup: %d (%s)", (int)i, why ? why : "-");
    }
    for (i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        ok(ha_field_parse_backup(apr_pstrcat(p, BACKUP "size=1, at=\"", paths[i], "\"", NULL), p, &b, &why) == APR_EINVAL && !b.at,
           "no place for a backup: %s", paths[i]);
    }
    text = apr_pstrcat(p, "/", apr_psprintf(p, "%0*d", (int)(HA_AT_MAX - strlen(HA_WELL_KNOWN) - 1), 0), HA_WELL_KNOWN, NULL);
    ok(strlen(text) == HA_AT_MAX && ha_field_parse_backup(apr_pstrcat(p, BACKUP "size=1, at=\"", text, "\"", NULL), p, &b, &why) == APR_SUCCESS, "the longest path");
    ok(ha_field_parse_backup(apr_pstrcat(p, BACKUP "size=1, at=\"/0", text + 1, "\"", NULL), p, &b, &why) == APR_EINVAL, "not one byte more");
    text = apr_psprintf(p, "%0*d", HA_ID_MAX, 0);
    ok(ha_field_parse_backup(apr_pstrcat(p, "gone, id=\"", text, "\"", NULL), p, &b, &why) == APR_SUCCESS && strlen(b.id) == HA_ID_MAX, "the longest id");
    ok(ha_field_parse_backup(apr_pstrcat(p, "gone, id=\"", text, "0\"", NULL), p, &b, &why) == APR_EINVAL, "not one byte more");
}

/* Every beginning of a good field is refused or read, and never more than is there: ASan watches the exact copy. */
static void check_truncation(apr_pool_t *p)
{
    const char *full = "id=\"NEW\";a=\"x\", was=\"OLD\", epoch=3, seq=19, at=\"/s/.well-known/session-backup\", x=(1 \"a\"), d=%\"%c3%bc\", state=:aGVsbG8=:";
    apr_size_t n;
    int taken = 0;

    for (n = 0; n < strlen(full); n++) {
        char *copy = malloc(n + 1);
        const char *why;
        ha_field_backup b;

        memcpy(copy, full, n);
        copy[n] = '\0';
        taken += ha_field_parse_backup(copy, p, &b, &why) == APR_SUCCESS;
        free(copy);
    }
    ok(!taken, "no beginning of a backup is taken for one");
}

static void check_missing(apr_pool_t *p)
{
    static const char *const bad[] = { "", "id", "id=ABC", "id=\"\"", "id=\"A B\"", "id=\"ABC", "id=\"ABC\",", "id=\"ABC\"\r\n", "x=1", "id=\"ABC\", id=1" };
    const char *id;
    apr_size_t i;
    int left;

    ok(ha_field_parse_missing("id=\"ABC-n2\"", p, &id, &left) == APR_SUCCESS && strcmp(id, "ABC-n2") == 0 && !left, "missing");
    ok(ha_field_parse_missing("id=\"ABC\", left", p, &id, &left) == APR_SUCCESS && left, "left");
    ok(ha_field_parse_missing("left=?0, id=\"ABC\"", p, &id, &left) == APR_SUCCESS && !left, "not left");
    ok(ha_field_parse_missing("left=1, id=\"ABC\"", p, &id, &left) == APR_SUCCESS && !left, "left, but no boolean");
    ok(ha_field_parse_missing("new=?1, id=\"ABC\";x=y", p, &id, &left) == APR_SUCCESS && strcmp(id, "ABC") == 0, "missing, and something new");
    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ok(ha_field_parse_missing(bad[i], p, &id, &left) == APR_EINVAL && !id && !left, "not missing: %d", (int)i);
}

static void check_base64(apr_pool_t *p)
{
    /* RFC 4648 10 */
    static const char *const pairs[][2] = { { "", "" }, { "f", "Zg==" }, { "fo", "Zm8=" }, { "foo", "Zm9v" }, { "foob", "Zm9vYg==" }, { "fooba", "Zm9vYmE=" }, { "foobar", "Zm9vYmFy" } };
    static const char *const bad[] = { "Z", "Zg", "Zg=", "=", "==", "===", "====", "Z===", "Zg==Zg==", "Z=g=", "Zm9v=", "Zm 9", "Zm9\n", "Zm-_", "Zm9v\n", "Zm9\x80", ".AAA" };
    ha_blob text, bytes;
    apr_size_t i, n, len;
    int c, wrong = 0;
    char *all;

    for (i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        bytes.data = pairs[i][0];
        bytes.len = strlen(pairs[i][0]);
        is_str(ha_field_base64_encode(&bytes, p), pairs[i][1], "encode");
        text.data = pairs[i][1];
        text.len = strlen(pairs[i][1]);
        ok(ha_field_base64_decode(&text, p, &bytes) == APR_SUCCESS && bytes.len == strlen(pairs[i][0]) && bytes.data
           && memcmp(bytes.data, pairs[i][0], bytes.len) == 0, "decode %s", pairs[i][1]);
    }
    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        text.data = bad[i];
        text.len = strlen(bad[i]);
        ok(ha_field_base64_check(&text, &len) == APR_EINVAL && ha_field_base64_decode(&text, p, &bytes) == APR_EINVAL && !bytes.data, "not base64: %d", (int)i);
    }
    text.data = "Zm9vYmFyAAAA";
    text.len = 8;
    ok(ha_field_base64_decode(&text, p, &bytes) == APR_SUCCESS && bytes.len == 6, "nothing behind the length is read");

    /* each byte in each place of the vector code and of its ends */
    for (n = 4; n <= 1100; n += n < 40 ? 4 : 212) {
        all = malloc(n);
        memset(all, 'A', n);
        text.data = all;
        text.len = n;
        for (i = 0; i < n; i++) {
            for (c = 0; c < 256; c++) {
                int good = c && strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", c) != NULL;
                if (i == n - 1 && c == '=')
                    good = 1;
                all[i] = (char)c;
                wrong += (ha_field_base64_check(&text, &len) == APR_SUCCESS) != good;
                wrong += good && len != n / 4 * 3 - (c == '=');
            }
            all[i] = 'A';
        }
        free(all);
    }
    ok(!wrong, "each byte in each place (%d wrong)", wrong);

    for (n = 0; n < 300; n++) {
        unsigned char *in = malloc(n + 1);
        const char *encoded;
        for (i = 0; i < n; i++)
            in[i] = (unsigned char)(i * 37 + n);
        bytes.data = in;
        bytes.len = n;
        encoded = ha_field_base64_encode(&bytes, p);
        text.data = encoded;
        text.len = strlen(encoded);
        wrong += ha_field_base64_decode(&text, p, &bytes) != APR_SUCCESS || bytes.len != n || memcmp(bytes.data, in, n) != 0;
        free(in);
    }
    ok(!wrong, "there and back at every length");
}

static void check_writers(apr_pool_t *p)
{
    ha_version v = { 3, 19 }, top = { 999999999999999, 999999999999999 };

    is_str(ha_field_accept(p, HA_INLINE_MAX), "v=1, inline=4096", "accept");
    is_str(ha_field_restore(p, "ABC", v, "aGVsbG8=", "bWFj", 0), "id=\"ABC\", epoch=3, seq=19, state=:aGVsbG8=:, mac=:bWFj:", "restore");
    is_str(ha_field_restore(p, "ABC", v, "aGVsbG8=", "bWFj", 1), "id=\"ABC\", epoch=3, seq=19, state=:aGVsbG8=:, mac=:bWFj:, former",
           "restore of what a former owner told");
    is_str(ha_field_restore(p, "ABC", v, NULL, "bWFj", 0), "id=\"ABC\", epoch=3, seq=19, mac=:bWFj:", "restore with a body");
    is_str(ha_field_restore(p, "ABC", top, "", "bWFj", 0), "id=\"ABC\", epoch=999999999999999, seq=999999999999999, state=::, mac=:bWFj:", "restore of nothing");
    is_str(ha_field_restore_none(p, "ABC"), "id=\"ABC\", none", "nothing to restore");
    is_str(ha_field_fetch(p, "ABC", 1700000000, "bWFj", 0), "id=\"ABC\", time=1700000000, mac=:bWFj:", "fetch");
    is_str(ha_field_fetch(p, "ABC", 1700000000, "bWFj", 1), "id=\"ABC\", time=1700000000, mac=:bWFj:, leave", "let it leave");
}

int main(void)
{
    apr_pool_t *p;

    apr_initialize();
    apr_pool_create(&p, NULL);
    check_rfc(p);
    check_backup(p);
    check_truncation(p);
    check_missing(p);
    check_base64(p);
    check_writers(p);
    apr_pool_destroy(p);
    apr_terminate();
    return tap_done();
}
