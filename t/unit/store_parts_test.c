/* store_parts_test.c - the store's pure parts, without a server: placement, envelope, breaker. */
#ifdef HAVE_CONFIG_H
#include "autoconf.h"
#endif

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <apr_general.h>
#include <apr_strings.h>

#include "store/store_breaker.h"
#include "store/store_copy.h"
#include "store_servers.h"

static apr_pool_t *p;

static const char *configure(ha_store **store, int n, const char *const *urls, int copies)
{
    return ha_store_configure(store, p, n, urls, copies, APR_USEC_PER_SEC);
}

static ha_store *nodes(int from, int to, int step)
{
    const char *urls[HA_STORE_NODES_MAX];
    ha_store *store = NULL;
    int n = 0;

    for (; from != to; from += step) {
        urls[n++] = apr_psprintf(p, "memcached://store%d.example:11211", from);
    }
    if (configure(&store, n, urls, 2) != NULL) {
        abort();
    }
    return store;
}

#define MANY 20000

static void placement(void)
{
    ha_store *ten = nodes(0, 10, 1), *backwards = nodes(9, -1, -1), *nine = nodes(0, 9, 1);
    int order[HA_STORE_NODES_MAX], other[HA_STORE_NODES_MAX], less[HA_STORE_NODES_MAX], count[10] = { 0 };
    int i, j, k, same = 0, moved = 0, moved_wrong = 0, complete = 0, min = MANY, max = 0, session = 0;
    int seen;

    for (i = 0; i < MANY; i++) {
        const char *key = test_key(p, "ha:b", i);

        ha_store_order(ten, key, order);
        ha_store_order(backwards, key, other);
        ha_store_order(nine, key, less);
        for (j = seen = 0; j < 10; j++) {
            seen |= 1 << order[j];
        }
        complete += seen == 0x3ff;
        for (j = 0; j < 10 && strcmp(ten->nodes[order[j]].name, backwards->nodes[other[j]].name) == 0; j++)
            ;
        same += j == 10;
        count[order[0]]++;
        /* without the tenth node the others keep their places */
        for (j = k = 0; j < 10; j++) {
            if (order[j] != 9) {
                moved_wrong += less[k++] != order[j];
            }
        }
        moved += order[0] != less[0];
        ha_store_order(ten, test_key(p, "ha:c", i), other);
        session += memcmp(order, other, 10 * sizeof(int)) == 0;
        ha_store_order(ten, apr_pstrcat(p, test_key(p, "x", i), ":7", NULL), other);
        session += memcmp(order, other, 10 * sizeof(int)) == 0;
    }
    for (i = 0; i < 10; i++) {
        min = count[i] < min ? count[i] : min;
        max = count[i] > max ? count[i] : max;
    }
    ok(complete == MANY, "every node has a place in every order");
    ok(same == MANY, "the order of the URLs does not matter");
    ok(min > MANY / 10 * 9 / 10 && max < MANY / 10 * 11 / 10, "ten nodes share the keys: %d to %d of %d", min, max, MANY);
    ok(moved_wrong == 0 && moved > MANY / 12 && moved < MANY / 8, "a node that goes moves only its own share: %d of %d", moved, MANY);
    ok(session == 2 * MANY, "all keys of a session are placed together");
    ha_store_order(ten, "one key", order);
    for (i = 0, k = 0; i < 100; i++) {
        ha_store_order(ten, apr_psprintf(p, "key %d:%063d", i, i), other);
        k += memcmp(order, other, 10 * sizeof(int)) != 0;
    }
    ok(k > 90, "other keys by all they are");
}

static void keys(void)
{
    char key[24];
    int at, len, c, wrong = 0;

    for (len = 1; len < (int)sizeof(key); len++) {
        for (at = 0; at < len; at++) {
            for (c = 1; c < 256; c++) {
                memset(key, 'k', sizeof(key));
                key[len] = '\0';
                key[at] = (char)c;
                wrong += ha_store_key_ok(key) != (c > ' ' && c <= '~');
            }
        }
    }
    ok(wrong == 0 && !ha_store_key_ok(""), "every byte at every place of a key is let through or not, as it should");
}

static void configuration(void)
{
    static const struct { int n; const char *urls[3]; const char *says; } bad[] = {
        { 1, { "redi:" }, "unknown store 'redi'; built in: lmdb, memcached, libmemcached" },
        { 1, { "nothing" }, "unknown store 'nothing'" },
        { 1, { "memcached:host" }, "expected memcached://host" },
        { 1, { "memcached://" }, "expected memcached://host" },
        { 1, { "memcached://host:port" }, "expected memcached://host" },
        { 1, { "memcached://host:99999" }, "expected memcached://host" },
        { 1, { "memcached://user@host" }, "expected memcached://host" },
        { 1, { "memcached://host/path" }, "expected memcached://host" },
        { 1, { "memcached://host?x=1" }, "expected memcached://host" },
        { 1, { "memcached://[::1]:11211" }, "libmemcached://" },
        { 1, { "memcached://ho\rst" }, "expected memcached://host" },
        { 1, { "file:path" }, "expected file:/path" },
        { 1, { "file:/" }, "expected file:/path" },
        { 1, { "dbd:oracle,x" }, "expected dbd:mysql" },
        { 1, { "dbd:mysql" }, "expected dbd:mysql" },
        { 1, { "dbd:mysql,host=a,flags=CLIENT_FOUND_ROWS" }, "flags= is not understood" },
        { 1, { "dbd:mysql,hots=a" }, "parameter 1 of dbd:mysql is not one of host port" },
        { 1, { "dbd:mysql,host=a,user=b,password=c" }, "parameter 3 of dbd:mysql is not one of" },
        { 1, { "dbd:mysql,host" }, "parameter 1 of dbd:mysql" },
        { 1, { "dbd:mysql,host=a,port=x" }, "port= is to be a number" },
        { 1, { "dbd:pgsql,host=a,pass=b" }, "parameter 2 of dbd:pgsql is not one of host hostaddr" },
        { 1, { "dbd:pgsql,host=a,sslmod=b" }, "parameter 2 of dbd:pgsql" },
        { 1, { "dbd:pgsql,host=a,port=" }, "port= is to be a number" },
        { 1, { "dbd:sqlite3,relative.db" }, "expected dbd:mysql" },
        { 1, { "dbd:sqlite3,host=a" }, "expected dbd:mysql" },
        { 1, { "libmemcached://user@host" }, "expected libmemcached://host" },
        { 1, { "libmemcached://:password@host" }, "expected libmemcached://host" },
        { 1, { "libmemcached://user:pass%0aword@host" }, "expected libmemcached://host" },
        { 1, { "libmemcached://host/1" }, "expected libmemcached://host" },
#ifdef HAVE_HIREDIS
        { 1, { "redis://host/one" }, "expected redis://host" },
        { 1, { "redis://host/123456" }, "expected redis://host" },
        { 1, { "redis://password@host" }, "expected redis://host" },
        { 1, { "redis://:pass%0d%0aword@host" }, "expected redis://host" },
        { 1, { "redis://:pass%00word@host" }, "expected redis://host" },
#else
        { 1, { "redis://host" }, "not built into this module" },
#endif
        { 2, { "memcached://a", "lmdb:/b" }, "all nodes of a store have one scheme" },
        { 2, { "memcached://a", "memcached://A" }, "given twice" },
        { 2, { "lmdb:/a", "lmdb:/b" }, "takes one URL" },
        { 1, { "lmdb:a" }, "expected lmdb:/path" },
        { 1, { "lmdb:/a?size=1" }, "expected lmdb:/path" },
        { 1, { "lmdb:/a?size=1gg" }, "expected lmdb:/path" },
        { 1, { "lmdb:/a?size=-1" }, "expected lmdb:/path" },
        { 1, { "lmdb:/a?size=99999999999999999999" }, "expected lmdb:/path" },
        { 1, { "lmdb:/a?sice=1g" }, "expected lmdb:/path" },
        { 0, { NULL }, "1 to 32 nodes" },
    };
    static const char *const good[] = { "memcached://host", "memcached://host:1", "memcached://127.0.0.1:11211/", "memcached:///run/m.sock",
                                        "MEMCACHED://host", "file:/a", "file:///a/b", "dbd:sqlite3,/a/b.db", "dbd:mysql,host=a,user=b,pass=c,dbname=d",
                                        "dbd:mysql,sock=/run/m.sock;user=b;group=session_ha",
                                        "dbd:pgsql,host=a user=b password='c d' dbname=e", "dbd:pgsql,host=a,port=5432,sslmode=verify-full,sslrootcert=/a/ca.pem",
                                        "libmemcached://[::1]:11211", "libmemcached://user:p%40ss@host:1", "libmemcached:///run/m.sock",
#ifdef HAVE_HIREDIS
                                        "redis://host", "redis://host/7", "redis://[::1]:1/0", "redis://:pass@host", "redis://user:p%3Aass@host:6379/2",
                                        "redis:///run/redis.sock",
#endif
                                        "lmdb:", "lmdb:/a", "lmdb:///a", "lmdb:/a?size=64m", "lmdb:/a?size=1048576" };
    static const struct { const char *url, *shown; } names[] = {
        { "redis://user:pa%40ss@Host:6379/0?x=1", "redis://host:6379/0" },
        { "redis://:p@ss:w/rd@host", "redis://host" },
        { "redis://:p?ss#w@host/1", "redis://host/1" },
        { "redis://user:password", "redis://user:*" },
        { "redis://[::1]:6379/0", "redis://[::1]:6379/0" },
        { "redis:///run/R.sock", "redis:///run/R.sock" },
        { "libmemcached://u:p@h", "libmemcached://h" },
        { "memcached://H:11211", "memcached://h:11211" },
        { "file:/a@b", "file:/a@b" },
        { "lmdb:/A?size=1m", "lmdb:/A" },
        { "dbd:mysql,host=a,user=b,pass=host=c,port=3306;dbname=d", "dbd:mysql,host=a,port=3306,dbname=d" },
        { "dbd:mysql,pass=a'b,host=c", "dbd:mysql,host=c" },
        { "dbd:mysql,/x,pass=p", "dbd:mysql" },
        { "dbd:pgsql,host=a user=b password='x port=1 y' dbname=d", "dbd:pgsql,host=a,dbname=d" },
        { "dbd:pgsql,host=a,password=x,dbname = d", "dbd:pgsql,host=a,dbname=d" },
        { "dbd:sqlite3,/var/lib/x.db", "dbd:sqlite3,/var/lib/x.db" }
    };
    static const char *const secret[] = {
        "redis://:s3cret@host:port", "redis://:s3/cret@host", "redis://:pass@s3cret@host/x", "redis://:a/s3cret@host", "redis:/:s3cret@host",
        "redis:///:s3cret@host", "redis::s3cret@host", "redis://:s3cret?@host", "redis://user:s3cret", "libmemcached://user:s3cret@host/1",
        "libmemcached://:s3cret@host", "memcached://:s3cret@host", "dbd:mysql,/x,pass=s3cret", "dbd:mysql,host=a,pass=my s3cret",
        "dbd:mysql,host=a,password=s3cret", "dbd:pgsql,host=a,password=my s3cret", "dbd:pgsql,host=a,password=my s3cret=x", "dbd:pgsql,password='my s3cret",
        "dbd:pgsql,postgresql://u:s3cret@h/d", "dbd:oracle,password=s3cret"
    };
    ha_store *store;
    const char *why;
    size_t i;

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        why = configure(&store, bad[i].n, bad[i].urls, 1);
        ok(why && strstr(why, bad[i].says) && store == NULL, "%s: %s", bad[i].urls[0] ? bad[i].urls[0] : "no URL", why ? why : "taken");
    }
    for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        why = configure(&store, 1, &good[i], 7);
        ok(why == NULL && store && store->copies == 1, "%s: %s", good[i], why ? why : "taken");
    }
    is_str(ha_store_node_name("redis://user:pa%40ss@Host:6379/0?x=1", p), "redis://host:6379/0", "no password is shown");
    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        is_str(ha_store_node_name(names[i].url, p), names[i].shown, names[i].url);
    }
    /* of what is refused, too, nothing may be seen that might be a password */
    for (i = 0; i < sizeof(secret) / sizeof(secret[0]); i++) {
        why = configure(&store, 1, &secret[i], 1);
        ok(why && strstr(why, "s3cret") == NULL, "%s: %s", secret[i], why ? why : "taken");
    }
    ok(strncmp(ha_store_schemes(p), "lmdb, memcached, libmemcached", 29) == 0, "the schemes: %s", ha_store_schemes(p));
}

static void envelope(void)
{
    const char *key = "ha:b:key";
    char data[100];
    unsigned char bytes[HA_ENVELOPE_LEN + sizeof(data) + 1];
    ha_envelope env, got;
    ha_blob blob;
    const char *why = NULL;
    int i, len, caught = 0, all = 0, good = 0;

    for (i = 0; i < (int)sizeof(data); i++) {
        data[i] = (char)(i * 7);
    }
    for (len = 0; len <= (int)sizeof(data); len++) {
        memset(&env, 0, sizeof(env));
        env.kind = HA_ENVELOPE_VALUE;
        env.version.epoch = APR_UINT64_C(0x0102030405060708);
        env.version.seq = ~APR_UINT64_C(0);
        env.writer = 42;
        env.expires = APR_INT64_C(1900000000000000);
        env.length = (apr_uint64_t)len;
        memcpy(bytes + HA_ENVELOPE_LEN, data, (size_t)len);
        ha_envelope_write(bytes, &env, key, data);
        blob.data = bytes;
        blob.len = (apr_size_t)(HA_ENVELOPE_LEN + len);
        memset(&got, 0, sizeof(got));
        good += ha_envelope_read(&blob, key, &got, &why) == APR_SUCCESS && memcmp(&env, &got, sizeof(env)) == 0;
        for (i = 0; i < (HA_ENVELOPE_LEN + len) * 8; i++, all++) {
            bytes[i / 8] ^= (unsigned char)(1 << i % 8);
            caught += ha_envelope_read(&blob, key, &got, &why) == APR_EINVAL || got.kind == HA_ENVELOPE_PARTS;
            bytes[i / 8] ^= (unsigned char)(1 << i % 8);
        }
        for (i = 0; i < HA_ENVELOPE_LEN + len; i++, all++) {
            blob.len = (apr_size_t)i;
            caught += ha_envelope_read(&blob, key, &got, &why) == APR_EINVAL;
        }
        blob.len = (apr_size_t)(HA_ENVELOPE_LEN + len + 1);
        all += 2;
        caught += ha_envelope_read(&blob, key, &got, &why) == APR_EINVAL;
        blob.len--;
        caught += ha_envelope_read(&blob, "ha:b:kez", &got, &why) == APR_EINVAL;
    }
    ok(good == (int)sizeof(data) + 1, "what was written is read");
    ok(caught == all, "every flipped bit, every cut and every other key is seen: %d of %d", caught, all);
    memset(&env, 0, sizeof(env));
    env.kind = HA_ENVELOPE_VALUE;
    env.version.epoch = 3;
    env.length = 2;
    ha_envelope_write(bytes, &env, "k", "hi");
    ok(memcmp(bytes, "HA\001V\0\0\0\0\0\0\0\0\0\0\0\003", 16) == 0 && env.checksum == APR_UINT64_C(0x8eb25925a3ab0436), "the same bytes on every machine (%016" APR_UINT64_T_HEX_FMT ")",
       env.checksum);
}

static void breaker(void)
{
    ha_breaker *b = shared_memory(sizeof(*b));
    ha_store_facts facts;
    apr_uint64_t seen, later;
    int i, due, status;

    ha_breaker_take(b, 77);
    ok(ha_breaker_state(b) == HA_NODE_UNKNOWN && ha_breaker_usable(b), "never asked: unknown, and worth asking");
    ok(ha_breaker_probe_due(b, 1000000, 1000000, &seen) && !ha_breaker_probe_due(b, 1500000, 1000000, &later), "and probing, once a second");
    ha_breaker_answered(b, 1000);
    ok(ha_breaker_state(b) == HA_NODE_UP, "answered: up");
    ha_breaker_close(b, seen, 1000);
    ok(ha_breaker_state(b) == HA_NODE_UP && b->word >> 2 == 0, "the probe comes late: still");
    ok(!ha_breaker_probe_due(b, apr_time_now(), 1000, &seen), "nobody probes a node that is up");
    ha_breaker_open(b, 2000);
    ha_breaker_open(b, 2001);
    ok(ha_breaker_state(b) == HA_NODE_DOWN && b->word >> 2 == 1, "opened once, by two");
    ha_breaker_answered(b, 3000);
    ok(ha_breaker_state(b) == HA_NODE_DOWN, "a late answer does not close it");
    ok(ha_breaker_probe_due(b, 5000000, 1000000, &seen) && !ha_breaker_probe_due(b, 5500000, 1000000, &later)
       && ha_breaker_probe_due(b, 6000001, 1000000, &later), "one probe a second");
    ok(ha_breaker_probe_due(b, 1000000, 1000000, &later), "and at once when the clock was set back");
    ha_breaker_close(b, seen, 6000);
    ok(ha_breaker_state(b) == HA_NODE_UP, "the probe closes it");
    ha_breaker_open(b, 7000);
    ha_breaker_close(b, seen, 8000);
    ok(ha_breaker_state(b) == HA_NODE_DOWN && b->word >> 2 == 2, "a probe of the opening before does not");

    /* of four processes that want to probe at the same moment one does */
    memset(b, 0, sizeof(*b));
    ha_breaker_open(b, 1);
    fflush(stdout);
    for (i = 0; i < 4; i++) {
        if (fork() == 0) {
            int j, won = 0;

            for (j = 1; j <= 5000; j++) {
                won += ha_breaker_probe_due(b, (apr_time_t)j * 10000000, 10000000, &seen);
                ha_breaker_count(b, HA_N_GETS);
            }
            __sync_fetch_and_add(&b->counts[HA_N_HITS], won);
            _exit(0);
        }
    }
    for (i = 0, due = 1; i < 4; i++) {
        due &= wait(&status) > 0 && status == 0;
    }
    ha_breaker_facts(b, &facts);
    ok(due && facts.gets == 20000, "no count is lost between processes");
    ok(facts.hits > 0 && facts.hits <= 20000, "and turns are taken (%d)", (int)facts.hits);

    ha_breaker_take(b, 78);
    ha_breaker_facts(b, &facts);
    is_str(facts.state, "unknown", "another node in its place starts anew");
    ok(facts.gets == 0 && facts.p50_us == 0, "with no counts");
    for (i = 0; i < 98; i++) {
        ha_breaker_took(b, 100);
    }
    ha_breaker_took(b, 5000);
    ha_breaker_took(b, APR_INT64_C(1) << 40);
    ha_breaker_took(b, -5);
    ha_breaker_facts(b, &facts);
    ok(facts.p50_us == 128 && facts.p99_us == 8192 && facts.ops[0] == 1 && facts.ops[HA_STORE_BUCKETS - 1] == 1, "the histogram");
    ha_breaker_take(b, 78);
    ha_breaker_facts(b, &facts);
    ok(facts.ops[HA_STORE_BUCKETS - 1] == 1, "the same node keeps its counts over a restart");
}

int main(void)
{
    int bad;

    apr_initialize();
    alarm(120);
    apr_pool_create(&p, NULL);
    placement();
    keys();
    configuration();
    envelope();
    breaker();
    bad = tap_done();
    apr_terminate();
    return bad;
}
