/* manager.c - the manager without a server: counters and journal under many processes, killed
 * writers, the text of every format. */
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "apr_general.h"
#include "apr_shm.h"
#include "apr_strings.h"
#include "manager/manager_render.h"
#include "tap.h"

static apr_pool_t *pool;
static apr_bucket_alloc_t *buckets;

static void *shared(apr_size_t size)
{
    apr_shm_t *shm;

    if (apr_shm_create(&shm, size, NULL, pool) != APR_SUCCESS) {
        printf("Bail out! no shared memory\n");
        exit(1);
    }
    return apr_shm_baseaddr_get(shm);
}

static ha_event event_of(apr_uint64_t n, const char *from, const char *to)
{
    ha_event e = { 0 };

    e.time = apr_time_from_sec(1767225600) + (apr_time_t)n;     /* 2026-01-01 */
    e.balancer = "balancer://tomcats";
    memcpy(e.session, "0123456789ab", 13);
    e.from = from;
    e.to = to;
    e.cause = "connect";
    e.outcome = HA_RESTORED;
    e.version.epoch = 2;
    e.version.seq = n;
    e.bytes = 812;
    e.took = 640;
    e.trips = 2;
    return e;
}

/* ---- counters --------------------------------------------------------------------- */

#define WRITERS 4
#define EACH 3000

static void count_many(ha_counters *c, int seed)
{
    int i, full = 0;

    for (i = 0; i < EACH; i++) {
        char to[16];
        ha_event e = event_of((apr_uint64_t)i, "gone", to);

        snprintf(to, sizeof(to), "t%d", (i + seed) % 7);
        ha_counters_failover(c, &e, &full);
        ha_counters_backup(c, "balancer://tomcats", NULL, HA_BACKUP_STORED, 10, 20, &full);
        ha_counters_retried(c, "balancer://tomcats", to);
    }
}

static void counters_of_many_processes(void)
{
    ha_counters *c = ha_counters_format(shared(ha_counters_size()));
    ha_member_counts counts;
    ha_totals totals;
    apr_array_header_t *rows;
    apr_uint64_t in = 0, retried = 0;
    pid_t pids[WRITERS];
    int i, status, named = 1;

    for (i = 0; i < WRITERS; i++) {
        pids[i] = fork();
        if (!pids[i]) {
            count_many(c, i);
            _exit(0);
        }
    }
    for (i = 0; i < WRITERS; i++)
        waitpid(pids[i], &status, 0);
    for (i = 0; i < 7; i++) {
        ha_counters_read_member(c, "balancer://tomcats", apr_psprintf(pool, "t%d", i), &counts);
        in += counts.moved_in;
        retried += counts.retried;
        named &= counts.moved_in == counts.outcomes[HA_RESTORED];
    }
    ok(in == WRITERS * EACH && named, "four processes at once: every failover counted at its member");
    ok(retried == WRITERS * EACH, "and every retry");
    ha_counters_read_totals(c, &totals);
    ok(totals.failovers == WRITERS * EACH && totals.retries == WRITERS * EACH, "and in the totals");
    rows = ha_counters_read_pairs(c, pool);
    ok(rows->nelts == 7, "one pair a target");
    rows = ha_counters_read_backups(c, pool);
    ok(rows->nelts == 1 && APR_ARRAY_IDX(rows, 0, ha_backup_counts).results[HA_BACKUP_STORED] == WRITERS * EACH
       && APR_ARRAY_IDX(rows, 0, ha_backup_counts).bytes == 10 * WRITERS * EACH, "backups and their bytes");
}

/* All want the same places at the same moment. */
static void counters_of_a_start(void)
{
    int round, i, full = 0, status, wrong = 0;

    for (round = 0; round < 20; round++) {
        ha_counters *c = ha_counters_format(shared(ha_counters_size()));
        volatile int *ready = shared(sizeof(int));
        pid_t pids[WRITERS];

        *ready = 0;
        for (i = 0; i < WRITERS; i++) {
            pids[i] = fork();
            if (!pids[i]) {
                int k;

                while (!*ready)
                    ;
                for (k = 0; k < 200 * 2; k++) {             /* its own, and those of all */
                    ha_event e = event_of(1, "", apr_psprintf(pool, "r%d-%d", k % 2 ? i : WRITERS, k / 2));
                    ha_counters_failover(c, &e, &full);
                }
                _exit(full);
            }
        }
        *ready = 1;
        for (i = 0; i < WRITERS; i++) {
            waitpid(pids[i], &status, 0);
            wrong += status != 0;
        }
        for (i = 0; i < 200 * (WRITERS + 1); i++) {
            ha_member_counts counts;

            ha_counters_read_member(c, "balancer://tomcats", apr_psprintf(pool, "r%d-%d", i / 200, i % 200), &counts);
            wrong += counts.moved_in != (i / 200 == WRITERS ? WRITERS : 1);
        }
        wrong += ha_counters_read_pairs(c, pool)->nelts != 200 * (WRITERS + 1);
    }
    ok(wrong == 0, "four processes make 1000 places at once: each place once, nothing lost (%d wrong)", wrong);
}

static void counters_of_killed_processes(void)
{
    ha_counters *c = ha_counters_format(shared(ha_counters_size()));
    ha_member_counts counts;
    int round, i, full = 0, status;
    apr_uint64_t in = 0;

    /* each child makes places as fast as it can and is killed at any instruction */
    for (round = 0; round < 40; round++) {
        pid_t pid = fork();

        if (!pid) {
            for (i = 0;; i = (i + 1) % 500) {
                char to[16];
                ha_event e = event_of(1, "", to);

                snprintf(to, sizeof(to), "r%d", i);
                ha_counters_failover(c, &e, &full);
            }
        }
        usleep((useconds_t)(round * 97 % 3000));
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
    }
    for (i = 0; i < 500; i++) {
        char to[16];
        ha_event e = event_of(1, "", to);

        snprintf(to, sizeof(to), "r%d", i);
        ha_counters_failover(c, &e, &full);
        ha_counters_read_member(c, "balancer://tomcats", to, &counts);
        in += counts.moved_in > 0;
    }
    ok(in == 500 && !full, "after 40 killed writers every member has a place and counts");
    ok(ha_counters_read_pairs(c, pool)->nelts == 500, "and only one");
}

static void counters_alone(void)
{
    ha_counters *c = ha_counters_format(shared(ha_counters_size()));
    ha_member_slot *a, *b;
    ha_member_counts counts;
    ha_event e;
    int full = 0, i, told = 0, refused = 0;
    apr_array_header_t *rows;
    apr_uint64_t *word;

    a = ha_counters_member(c, "balancer://a", "r1", &full);
    b = ha_counters_member(c, "balancer://a", "r2", &full);
    ok(a && b && a != b, "two routes, two places");
    ok(a == ha_counters_member(c, "balancer://a", "r1", &full), "the same place again");
    ok(ha_counters_member(c, "balancer://a", "b1", &full) != ha_counters_member(c, "balancer://ab", "1", &full),
       "the end of a name is part of it");
    ok(ha_member_last_error(a) == 0 && ha_member_last_error(NULL) == 0, "never in error");
    ha_member_note_error(a, 1000);
    ha_member_note_error(a, 900);
    ok(ha_member_last_error(a) == 1000, "an earlier error does not move it back");
    ha_member_note_error(a, 1001);
    ok(ha_member_last_error(a) == 1001, "a later one moves it");
    ha_member_note_error(NULL, 1);
    ok(ha_member_last_left(a) == 0 && ha_member_last_doubt(a) == 1001, "an error is a doubt, and nobody has left");
    ha_member_note_left(a, 1000);
    ok(ha_member_last_left(a) == 1000 && ha_member_last_doubt(a) == 1001, "sessions left before that error");
    ha_member_note_left(a, 1002);
    ok(ha_member_last_left(a) == 1002 && ha_member_last_doubt(a) == 1002 && ha_member_last_error(a) == 1001,
       "sessions that leave are a doubt, and no error");
    ha_member_note_left(NULL, 1);

    /* a client may send any route */
    for (i = 0; i < 20000; i++) {
        e = event_of(5, apr_psprintf(pool, "<evil %d>", i), "t1");
        ha_counters_failover(c, &e, &full);
    }
    rows = ha_counters_read_pairs(c, pool);
    ok(!full && rows->nelts == 1, "routes that no member has fill no table");
    is_str(APR_ARRAY_IDX(rows, 0, ha_pair_counts).from, "", "and are counted as from nowhere");
    is_str(APR_ARRAY_IDX(rows, 0, ha_pair_counts).to, "t1", "to the member");
    ok(APR_ARRAY_IDX(rows, 0, ha_pair_counts).outcomes[HA_RESTORED] == 20000, "all of them");
    e = event_of(6, "t1", "");
    e.outcome = HA_UNAVAILABLE;
    ha_counters_failover(c, &e, &full);
    ha_counters_read_member(c, "balancer://tomcats", "t1", &counts);
    ok(counts.moved_out == 1 && counts.moved_in == 20000 && counts.outcomes[HA_UNAVAILABLE] == 0,
       "to nowhere: counted where it left");
    ok(counts.last_failover == e.time, "last_failover is the later of the two");
    e.outcome = (ha_outcome)77;
    ha_counters_failover(c, &e, &full);
    ha_counters_backup(c, NULL, NULL, (ha_backup_result)77, 1, 1, &full);
    ha_counters_retried(c, NULL, NULL);
    ok(!full, "values out of range do no harm");

    /* killed between taking the place and naming it; the only 1 in a fresh place says that it is named */
    b = ha_counters_member(c, "balancer://tomcats", "half", &full);
    for (word = (apr_uint64_t *)b + 1; *word != 1; word++)
        ;
    e = event_of(7, "half", "t1");
    ha_counters_failover(c, &e, &full);
    rows = ha_counters_read_pairs(c, pool);
    ok(rows->nelts == 3, "a third pair");
    *word = 0;
    ok(ha_counters_read_pairs(c, pool)->nelts == 2, "a member not yet named is not shown");
    ok(ha_counters_member(c, "balancer://tomcats", "half", &full) == b && ha_counters_read_pairs(c, pool)->nelts == 3,
       "the next one who comes names it");

    for (i = 0; i < HA_MEMBERS_MAX + 10; i++) {
        full = 0;
        refused += !ha_counters_member(c, "balancer://a", apr_psprintf(pool, "more%d", i), &full);
        told += full;
    }
    ok(refused == 10 + 6, "the table ends at %d members", HA_MEMBERS_MAX);
    ok(told == 1, "and that is told once");
    ok(a == ha_counters_member(c, "balancer://a", "r1", &full), "who has a place keeps it");
    ha_counters_retried(c, "balancer://a", "r1");
    ha_counters_read_member(c, "balancer://a", "r1", &counts);
    ok(counts.retried == 1, "and counts on");

    ok(ha_counters_adopt(c, ha_counters_size()) == c, "a restart finds its counters");
    ok(!ha_counters_adopt(c, ha_counters_size() - 8), "not in a smaller place");
    *(apr_uint64_t *)c += 1;
    ok(!ha_counters_adopt(c, ha_counters_size()), "nor of another layout");
}

/* ---- journal ---------------------------------------------------------------------- */

static apr_uint64_t seq_of(apr_array_header_t *rows, int i)
{
    return APR_ARRAY_IDX(rows, i, ha_journal_entry).seq;
}

static void journal_alone(void)
{
    ha_journal *j = ha_journal_format(shared(ha_journal_size(5)), 5), *k;
    apr_array_header_t *rows;
    ha_journal_entry *row;
    apr_uint64_t n, *turn;
    char *memory;

    ok(ha_journal_read(j, pool)->nelts == 0 && ha_journal_read(NULL, pool)->nelts == 0, "empty");
    for (n = 1; n <= 3; n++) {
        ha_event e = event_of(n, "t1", "t2");
        ha_journal_append(j, &e);
    }
    rows = ha_journal_read(j, pool);
    ok(rows->nelts == 3 && seq_of(rows, 0) == 3 && seq_of(rows, 2) == 1, "newest first");
    row = &APR_ARRAY_IDX(rows, 0, ha_journal_entry);
    is_str(row->session, "0123456789ab", "session");
    is_str(row->balancer, "balancer://tomcats", "balancer");
    is_str(row->from, "t1", "from");
    is_str(row->to, "t2", "to");
    is_str(row->cause, "connect", "cause");
    ok(row->epoch == 2 && row->bytes == 812 && row->took == 640 && row->trips == 2 && row->outcome == HA_RESTORED, "numbers");
    for (; n <= 12; n++) {
        ha_event e = event_of(n, "t1", "t2");
        ha_journal_append(j, &e);
    }
    rows = ha_journal_read(j, pool);
    ok(rows->nelts == 5 && seq_of(rows, 0) == 12 && seq_of(rows, 4) == 8, "round the ring");

    k = ha_journal_format(shared(ha_journal_size(3)), 3);
    ha_journal_copy(k, j, pool);
    rows = ha_journal_read(k, pool);
    ok(rows->nelts == 3 && seq_of(rows, 0) == 12 && seq_of(rows, 2) == 10, "into a smaller one: the newest");
    k = ha_journal_format(shared(ha_journal_size(9)), 9);
    ha_journal_copy(k, j, pool);
    rows = ha_journal_read(k, pool);
    ok(rows->nelts == 5 && seq_of(rows, 0) == 12 && seq_of(rows, 4) == 8, "into a larger one: all");
    ok(ha_journal_adopt(k, ha_journal_size(9)) == k && ha_journal_entries(k) == 9, "a restart finds its journal");
    ok(!ha_journal_adopt(k, ha_journal_size(8)), "not in a smaller place");

    /* the writer of 10 (the third ticket) is still writing, or was killed */
    turn = (apr_uint64_t *)((char *)k + ha_journal_size(3) - (ha_journal_size(2) - ha_journal_size(1)));
    ok(*turn == 2 * 3, "where the turn of the third entry is");
    *turn |= 1;
    rows = ha_journal_read(k, pool);
    ok(rows->nelts == 4 && seq_of(rows, 1) == 11 && seq_of(rows, 2) == 9, "an entry being written is not shown");
    for (n = 13; n <= 21; n++) {
        ha_event e = event_of(n, "t1", "t2");
        ha_journal_append(k, &e);
    }
    rows = ha_journal_read(k, pool);
    ok(rows->nelts == 9 && seq_of(rows, 0) == 21 && seq_of(rows, 8) == 13, "nor does it stop the ring");
    /* a writer that slept while the ring came round */
    *turn += 2 * 9;
    rows = ha_journal_read(k, pool);
    ok(rows->nelts == 8, "what a later turn has taken is not shown as an older");
    *turn -= 2 * 9;

    /* any byte of an entry that changes hides that entry, and only that one */
    memory = (char *)k + ha_journal_size(1);
    memory[200] ^= 1;
    ok(ha_journal_read(k, pool)->nelts == 8, "a damaged entry is not shown");
    *(apr_uint64_t *)k += 1;
    ok(!ha_journal_adopt(k, ha_journal_size(9)), "nor is one of another layout adopted");
    {
        char *longer = apr_palloc(pool, 1001);
        ha_event e = event_of(99, longer, longer);

        memset(longer, 'x', 1000);
        longer[1000] = '\0';
        e.balancer = e.cause = longer;
        memset(e.session, 'y', sizeof(e.session));      /* not terminated */
        ha_journal_append(j, &e);
        rows = ha_journal_read(j, pool);
        row = &APR_ARRAY_IDX(rows, 0, ha_journal_entry);
        ok(strlen(row->from) == HA_ROUTE_SIZE - 1 && strlen(row->balancer) == HA_NAME_SIZE - 1
           && strlen(row->session) == 12, "what is too long is cut");
    }
}

/* All of an entry is made of one number, so that a mixture shows. */
static void write_for_ever(ha_journal *j, apr_uint64_t n)
{
    for (;; n += 8) {
        char route[64], other[64];
        ha_event e = event_of(n, route, other);

        snprintf(route, sizeof(route), "from-%020" APR_UINT64_T_FMT, n);
        snprintf(other, sizeof(other), "to-%040" APR_UINT64_T_FMT, n);
        e.cause = route + 10;
        e.version.epoch = n;
        e.bytes = (apr_size_t)n;
        e.took = (apr_interval_time_t)n;
        ha_journal_append(j, &e);
    }
}

static int whole(const ha_journal_entry *row)
{
    char route[64], other[64];
    apr_uint64_t n = row->seq;

    snprintf(route, sizeof(route), "from-%020" APR_UINT64_T_FMT, n);
    snprintf(other, sizeof(other), "to-%040" APR_UINT64_T_FMT, n);
    return row->epoch == n && row->bytes == n && (apr_uint64_t)row->took == n && !strcmp(row->from, route)
        && !strcmp(row->to, other) && !strcmp(row->cause, route + 10) && !strcmp(row->balancer, "balancer://tomcats");
}

/* A ring of two entries: writers overtake each other all the time, and are killed while they write. */
static void journal_of_killed_writers(void)
{
    ha_journal *j = ha_journal_format(shared(ha_journal_size(2)), 2);
    apr_array_header_t *rows;
    apr_pool_t *p;
    pid_t pids[WRITERS];
    apr_uint64_t shown = 0, seen, torn = 0;
    ha_event e;
    int round, i, k, status;

    apr_pool_create(&p, pool);
    for (round = 0; round < 25; round++) {
        for (i = 0; i < WRITERS; i++) {
            pids[i] = fork();
            if (!pids[i])
                write_for_ever(j, (apr_uint64_t)(round * 1000000 + i));
        }
        for (i = 0, seen = 0; i < 100000 && seen < 1000; i++) {
            rows = ha_journal_read(j, p);
            for (k = 0; k < rows->nelts; k++) {
                seen++;
                torn += !whole(&APR_ARRAY_IDX(rows, k, ha_journal_entry));
            }
            apr_pool_clear(p);
        }
        shown += seen;
        for (i = 0; i < WRITERS; i++)
            kill(pids[i], SIGKILL);
        for (i = 0; i < WRITERS; i++)
            waitpid(pids[i], &status, 0);
        rows = ha_journal_read(j, p);
        for (k = 0; k < rows->nelts; k++)
            torn += !whole(&APR_ARRAY_IDX(rows, k, ha_journal_entry));
    }
    ok(torn == 0, "no reader sees a mixture (%" APR_UINT64_T_FMT " entries shown, %" APR_UINT64_T_FMT " torn)", shown,
       torn);
    for (i = 0; i < 2; i++) {
        e = event_of((apr_uint64_t)i, "a", "b");
        ha_journal_append(j, &e);
    }
    rows = ha_journal_read(j, p);
    ok(rows->nelts == 2 && seq_of(rows, 0) == 1, "the ring goes on after its writers were killed");
}

/* ---- text --------------------------------------------------------------------------- */

static const char *text_of(apr_bucket_brigade *bb)
{
    char *s;
    apr_size_t len;

    apr_brigade_pflatten(bb, &s, &len, pool);
    apr_brigade_cleanup(bb);
    return apr_pstrmemdup(pool, s, len);
}

static void is_escaped(const char *raw, const char *markup, const char *json, const char *label, const char *name)
{
    apr_bucket_brigade *bb = apr_brigade_create(pool, buckets);

    ha_put_markup(bb, raw);
    is_str(text_of(bb), markup, apr_psprintf(pool, "markup: %s", name));
    ha_put_json(bb, raw);
    is_str(text_of(bb), json, apr_psprintf(pool, "json: %s", name));
    ha_put_label(bb, raw);
    is_str(text_of(bb), label, apr_psprintf(pool, "label: %s", name));
}

#define BAD_XML "&#65533;"
#define BAD_JSON "\\ufffd"
#define BAD "\xef\xbf\xbd"

static void escapes(void)
{
    is_escaped(NULL, "", "", "", "nothing");
    is_escaped("tomcat1", "tomcat1", "tomcat1", "tomcat1", "plain");
    is_escaped("<a href='x'>&\"</a>", "&#60;a href=&#39;x&#39;&#62;&#38;&#34;&#60;/a&#62;",
               "\\u003ca href='x'\\u003e\\u0026\\\"\\u003c/a\\u003e", "<a href='x'>&\\\"</a>", "markup");
    is_escaped("a\\b\nc\td\x01\x7f", "a\\b" BAD_XML "c" BAD_XML "d" BAD_XML BAD_XML, "a\\\\b\\u000ac\\u0009d\\u0001\\u007f",
               "a\\\\b\\nc" BAD "d" BAD BAD, "controls");
    is_escaped("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "&#233;&#8364;&#128512;", "\\u00e9\\u20ac\\ud83d\\ude00",
               "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "UTF-8");
    is_escaped("\xff" "a\xc3", BAD_XML "a" BAD_XML, BAD_JSON "a" BAD_JSON, BAD "a" BAD, "no UTF-8");
    is_escaped("\xc0\xbc", BAD_XML BAD_XML, BAD_JSON BAD_JSON, BAD BAD, "overlong");
    is_escaped("\xe0\x80\xbc", BAD_XML BAD_XML BAD_XML, BAD_JSON BAD_JSON BAD_JSON, BAD BAD BAD, "overlong, three");
    is_escaped("\xed\xa0\x80", BAD_XML BAD_XML BAD_XML, BAD_JSON BAD_JSON BAD_JSON, BAD BAD BAD, "surrogate");
    is_escaped("\xf4\x90\x80\x80", BAD_XML BAD_XML BAD_XML BAD_XML, BAD_JSON BAD_JSON BAD_JSON BAD_JSON,
               BAD BAD BAD BAD, "above U+10FFFF");
    is_escaped("\xe2\x82<", BAD_XML BAD_XML "&#60;", BAD_JSON BAD_JSON "\\u003c", BAD BAD "<", "cut short before <");
    is_escaped("\xc2\x80\xef\xbf\xbf", BAD_XML BAD_XML, "\\u0080\\uffff", BAD "\xef\xbf\xbf", "C1, U+FFFF");
}

static const ha_snapshot *sample(ha_counters *c, ha_journal *j)
{
    static const apr_uint64_t took[4] = { 1, 2, 0, 1 };
    apr_array_header_t *balancers = apr_array_make(pool, 1, sizeof(ha_row_balancer));
    apr_array_header_t *stores = apr_array_make(pool, 3, sizeof(ha_row_store));
    ha_row_balancer *balancer = apr_array_push(balancers);
    ha_row_member *member;
    ha_row_store *store;

    balancer->name = "balancer://tomcats";
    balancer->sticky = "JSESSIONID|jsessionid";
    balancer->members = apr_array_make(pool, 2, sizeof(ha_row_member));
    member = apr_array_push(balancer->members);
    member->name = "http://127.0.0.1:8081";
    member->route = "tomcat1";
    member->state = "Init Ok ";
    member = apr_array_push(balancer->members);
    member->name = "http://127.0.0.1:8082";
    member->route = "<&\"'\n>";
    member->state = "Init Err ";
    store = apr_array_push(stores);
    *store = (ha_row_store){ "memcached://127.0.0.1:1", "up", 5, 3, 1, 4, 2, 1, 1, 32, 64, 1234567, 2, 1200, 0,
                             apr_time_from_sec(1767225600), 4, took };
    store = apr_array_push(stores);
    *store = (ha_row_store){ "memcached://127.0.0.1:2", "down" };
    store = apr_array_push(stores);
    *store = (ha_row_store){ "memcached://127.0.0.1:1", "unknown", 1, 1, 0, 0, 0, 0, 0, 0, 0, 10, 1, 1000, 1,
                             apr_time_from_sec(1767225600) - 1, 2, took };
    return ha_snapshot_take(balancers, stores, c, j, pool);
}

#define LINE(s) s "\n"
#define NODE1 "{node=\"memcached://127.0.0.1:1\""
#define NODE2 "{node=\"memcached://127.0.0.1:2\""
#define BACKUPS "session_ha_backups_total{balancer=\"balancer://tomcats\",result=\""

static void formats(void)
{
    ha_counters *c = ha_counters_format(shared(ha_counters_size()));
    ha_journal *j = ha_journal_format(shared(ha_journal_size(30)), 30);
    apr_bucket_brigade *bb = apr_brigade_create(pool, buckets);
    const ha_snapshot *snap;
    const char *text;
    ha_event e = event_of(7, "<&\"'\n>", "tomcat1");
    ha_member_slot *odd;
    int full = 0, i;

    ha_render_json(bb, ha_snapshot_take(NULL, NULL, NULL, NULL, pool));
    is_str(text_of(bb), "{\"version\": \"" HA_VERSION "\",\n \"balancers\": [],\n \"stores\": [],\n \"journal\": []}\n",
           "JSON of nothing");

    odd = ha_counters_member(c, "balancer://tomcats", "<&\"'\n>", &full);
    ha_counters_failover(c, &e, &full);
    ha_counters_retried(c, "balancer://tomcats", "tomcat1");
    ha_counters_backup(c, NULL, odd, HA_BACKUP_STORED, 812, 300, &full);     /* the member leads to its balancer */
    ha_counters_backup(c, "balancer://tomcats", NULL, HA_BACKUP_FENCED, 0, 0, &full);
    ha_journal_append(j, &e);
    snap = sample(c, j);

    ha_render_json(bb, snap);
    is_str(text_of(bb),
           LINE("{\"version\": \"" HA_VERSION "\",")
           LINE(" \"balancers\": [")
           LINE("  {\"name\": \"balancer://tomcats\", \"sticky\": \"JSESSIONID|jsessionid\", \"members\": [")
           LINE("    {\"name\": \"http://127.0.0.1:8081\", \"route\": \"tomcat1\", \"state\": \"Init Ok\", \"moved_out\": 0, "
                "\"moved_in\": 1, \"restored\": 1, \"native\": 0, \"missing\": 0, \"unavailable\": 0, \"refused\": 0, "
                "\"retried\": 1, \"last_failover\": \"2026-01-01T00:00:00.000Z\"},")
           LINE("    {\"name\": \"http://127.0.0.1:8082\", \"route\": \"\\u003c\\u0026\\\"'\\u000a\\u003e\", \"state\": "
                "\"Init Err\", \"moved_out\": 1, \"moved_in\": 0, \"restored\": 0, \"native\": 0, \"missing\": 0, "
                "\"unavailable\": 0, \"refused\": 0, \"retried\": 0, \"last_failover\": \"2026-01-01T00:00:00.000Z\"}]}],")
           LINE(" \"stores\": [")
           LINE("  {\"node\": \"memcached://127.0.0.1:1\", \"state\": \"up\", \"gets\": 6, \"hits\": 4, \"misses\": 1, "
                "\"puts\": 4, \"adds\": 2, \"errors\": 1, \"timeouts\": 1, \"p50_us\": 32, \"p99_us\": 128, "
                "\"restarts\": 2, \"evictions\": 1200, \"damages\": 1, \"last_forgot\": \"2026-01-01T00:00:00.000Z\"},")
           LINE("  {\"node\": \"memcached://127.0.0.1:2\", \"state\": \"down\", \"gets\": 0, \"hits\": 0, \"misses\": 0, "
                "\"puts\": 0, \"adds\": 0, \"errors\": 0, \"timeouts\": 0, \"p50_us\": 0, \"p99_us\": 0, "
                "\"restarts\": 0, \"evictions\": 0, \"damages\": 0, \"last_forgot\": null}],")
           LINE(" \"journal\": [")
           LINE("  {\"time\": \"2026-01-01T00:00:00.000Z\", \"balancer\": \"balancer://tomcats\", \"session\": "
                "\"0123456789ab\", \"from\": \"\\u003c\\u0026\\\"'\\u000a\\u003e\", \"to\": \"tomcat1\", \"cause\": "
                "\"connect\", \"outcome\": \"restored\", \"epoch\": 2, \"seq\": 7, \"bytes\": 812, \"took_us\": 640}]}"),
           "JSON, to the letter");

    ha_render_prometheus(bb, snap);
    is_str(text_of(bb),
           LINE("# HELP session_ha_failovers_total Sessions that a request took from one member to another; an empty "
                "label is no member.")
           LINE("# TYPE session_ha_failovers_total counter")
           LINE("session_ha_failovers_total{balancer=\"balancer://tomcats\",from=\"<&\\\"'\\n>\",to=\"tomcat1\","
                "outcome=\"restored\"} 1")
           LINE("# HELP session_ha_backups_total Session backups that members handed over.")
           LINE("# TYPE session_ha_backups_total counter")
           LINE(BACKUPS "stored\"} 1")
           LINE(BACKUPS "touched\"} 0")
           LINE(BACKUPS "unavailable\"} 0")
           LINE(BACKUPS "too_large\"} 0")
           LINE(BACKUPS "fenced\"} 1")
           LINE(BACKUPS "invalid\"} 0")
           LINE(BACKUPS "gone\"} 0")
           LINE("# HELP session_ha_backup_bytes_total Bytes of state in the backups that were stored.")
           LINE("# TYPE session_ha_backup_bytes_total counter")
           LINE("session_ha_backup_bytes_total{balancer=\"balancer://tomcats\"} 812")
           LINE("# HELP session_ha_backup_kept_bytes_total What they became: compressed, or the base64 that a member sent.")
           LINE("# TYPE session_ha_backup_kept_bytes_total counter")
           LINE("session_ha_backup_kept_bytes_total{balancer=\"balancer://tomcats\"} 300")
           LINE("# HELP session_ha_retries_total Requests repeated at another member.")
           LINE("# TYPE session_ha_retries_total counter")
           LINE("session_ha_retries_total 1")
           LINE("# HELP session_ha_store_operations_total How gets were answered, puts and adds that were asked for, and what failed of all of them.")
           LINE("# TYPE session_ha_store_operations_total counter")
           LINE("session_ha_store_operations_total" NODE1 ",op=\"get\",result=\"hit\"} 4")
           LINE("session_ha_store_operations_total" NODE1 ",op=\"get\",result=\"miss\"} 1")
           LINE("session_ha_store_operations_total" NODE1 ",op=\"put\",result=\"asked\"} 4")
           LINE("session_ha_store_operations_total" NODE1 ",op=\"add\",result=\"asked\"} 2")
           LINE("session_ha_store_operations_total" NODE1 ",op=\"any\",result=\"error\"} 1")
           LINE("session_ha_store_operations_total" NODE1 ",op=\"any\",result=\"timeout\"} 1")
           LINE("session_ha_store_operations_total" NODE2 ",op=\"get\",result=\"hit\"} 0")
           LINE("session_ha_store_operations_total" NODE2 ",op=\"get\",result=\"miss\"} 0")
           LINE("session_ha_store_operations_total" NODE2 ",op=\"put\",result=\"asked\"} 0")
           LINE("session_ha_store_operations_total" NODE2 ",op=\"add\",result=\"asked\"} 0")
           LINE("session_ha_store_operations_total" NODE2 ",op=\"any\",result=\"error\"} 0")
           LINE("session_ha_store_operations_total" NODE2 ",op=\"any\",result=\"timeout\"} 0")
           LINE("# HELP session_ha_store_seconds Time that an operation on a node took.")
           LINE("# TYPE session_ha_store_seconds histogram")
           LINE("session_ha_store_seconds_bucket" NODE1 ",le=\"0.000016\"} 2")
           LINE("session_ha_store_seconds_bucket" NODE1 ",le=\"0.000032\"} 6")
           LINE("session_ha_store_seconds_bucket" NODE1 ",le=\"0.000064\"} 6")
           LINE("session_ha_store_seconds_bucket" NODE1 ",le=\"+Inf\"} 7")
           LINE("session_ha_store_seconds_sum" NODE1 "} 1.234577")
           LINE("session_ha_store_seconds_count" NODE1 "} 7")
           LINE("session_ha_store_seconds_bucket" NODE2 ",le=\"+Inf\"} 0")
           LINE("session_ha_store_seconds_sum" NODE2 "} 0.000000")
           LINE("session_ha_store_seconds_count" NODE2 "} 0")
           LINE("# HELP session_ha_store_up 0 while the node is left out because it did not answer, and until it has.")
           LINE("# TYPE session_ha_store_up gauge")
           LINE("session_ha_store_up" NODE1 "} 1")
           LINE("session_ha_store_up" NODE2 "} 0")
           LINE("# HELP session_ha_store_forgot_total What a node forgot: its starts, values that it evicted, files put aside as damaged.")
           LINE("# TYPE session_ha_store_forgot_total counter")
           LINE("session_ha_store_forgot_total" NODE1 ",why=\"restarted\"} 2")
           LINE("session_ha_store_forgot_total" NODE1 ",why=\"evicted\"} 1200")
           LINE("session_ha_store_forgot_total" NODE1 ",why=\"damaged\"} 1")
           LINE("session_ha_store_forgot_total" NODE2 ",why=\"restarted\"} 0")
           LINE("session_ha_store_forgot_total" NODE2 ",why=\"evicted\"} 0")
           LINE("session_ha_store_forgot_total" NODE2 ",why=\"damaged\"} 0"),
           "Prometheus, to the letter");

    ha_render_xml(bb, snap);
    text = text_of(bb);
    ok(!strncmp(text, "  <httpd:sessionha>\n    <httpd:version>", 39) && strstr(text, "\n  </httpd:sessionha>\n"), "XML");
    ok(strstr(text, "<httpd:restarts>2</httpd:restarts>\n        <httpd:evictions>1200</httpd:evictions>\n        <httpd:damages>1</httpd:damages>\n"
              "        <httpd:last_forgot>2026-01-01T00:00:00.000Z</httpd:last_forgot>\n") != NULL, "XML: what a node forgot");
    ok(strstr(text, "<httpd:route>&#60;&#38;&#34;&#39;&#65533;&#62;</httpd:route>") != NULL, "XML: escaped");
    ha_render_html(bb, snap);
    text = text_of(bb);
    ok(strstr(text, "Session failover (mod_session_ha " HA_VERSION ")") && strstr(text, "<td>Init Ok</td><td>0</td>"
       "<td>1</td><td>1</td>"), "HTML");
    ok(strstr(text, "<td>&#60;&#38;&#34;&#39;&#65533;&#62;</td><td>Init Err</td>") != NULL, "HTML: escaped");
    ok(!strstr(text, "<&"), "HTML: nothing else");
    ok(strstr(text, "<td>2026-01-01T00:00:00.000Z: restarted 2, evicted 1200, damaged 1</td></tr>")
       && strstr(text, "<td>never</td></tr>\n</table>"), "HTML: what a node forgot");
    ha_render_summary_lines(bb, snap);
    is_str(text_of(bb), "SessionHAFailovers: 1\nSessionHARestored: 1\nSessionHANative: 0\nSessionHAMissing: 0\n"
           "SessionHAUnavailable: 0\nSessionHARefused: 0\nSessionHARetried: 1\nSessionHAStoresUp: 1\n"
           "SessionHAStoresDown: 1\n", "lines for mod_status");

    for (i = 0; i < 30; i++)
        ha_journal_append(j, &e);
    snap = sample(c, j);
    ha_render_html(bb, snap);
    text = text_of(bb);
    for (i = 0; (text = strstr(text, "<td>0123456789ab</td>")) != NULL; i++)
        text++;
    ok(i == HA_PAGE_ENTRIES && snap->journal->nelts == 30, "the page shows the last %d of %d", i, snap->journal->nelts);
}

int main(void)
{
    if (apr_initialize() != APR_SUCCESS || apr_pool_create(&pool, NULL) != APR_SUCCESS)
        return 1;
    buckets = apr_bucket_alloc_create(pool);
    counters_alone();
    counters_of_many_processes();
    counters_of_a_start();
    counters_of_killed_processes();
    journal_alone();
    journal_of_killed_writers();
    escapes();
    formats();
    apr_pool_destroy(pool);
    apr_terminate();
    return tap_done();
}
