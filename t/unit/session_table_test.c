/* session_table_test.c - the shared table: owners, the gate, backups in order; with real processes. */
#include "session/session_table.h"

#include <apr_general.h>
#include <apr_shm.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tap.h"

static ha_table *table;
static apr_pool_t *pool;

static ha_digest digest_of(unsigned n)
{
    ha_digest d;
    unsigned i;
    for (i = 0; i < sizeof d.bytes; i++) {
        n = n * 1664525u + 1013904223u;
        d.bytes[i] = (unsigned char)(n >> 24);
    }
    d.bytes[0] |= 1;            /* never the empty key */
    return d;
}

static void owners(void)
{
    ha_digest d = digest_of(1), other = digest_of(2);
    ha_owner own;
    char longest[HA_ROUTE_MAX + 20];

    ok(!ha_table_owner(table, &d, &own), "nobody is known at first");
    ha_table_own(table, &d, 2, "tomcat2", 1000);
    ok(ha_table_owner(table, &d, &own) && own.version.epoch == 2 && own.since == 1000, "owner, epoch, since");
    is_str(own.route, "tomcat2", "route");
    ok(!ha_table_owner(table, &other, &own), "another session is not");
    ha_table_own(table, &d, 1, "tomcat1", 2000);
    (void)ha_table_owner(table, &d, &own);
    is_str(own.route, "tomcat2", "an older epoch changes nothing");
    ha_table_own(table, &d, 3, "tomcat3", 3000);
    (void)ha_table_owner(table, &d, &own);
    is_str(own.route, "tomcat3", "a newer one does");
    memset(longest, 'r', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    ha_table_claimed(table, &d, 3, "tomcat3", 4000);
    (void)ha_table_owner(table, &d, &own);
    ok(own.since == 3000, "the owner that has it stays confirmed");
    ha_table_claimed(table, &d, 4, "tomcat2", 4000);
    (void)ha_table_owner(table, &d, &own);
    ok(own.version.epoch == 4 && own.since == 0 && strcmp(own.route, "tomcat2") == 0, "a new one is not, before it has been given the session");
    ha_table_claimed(table, &d, 3, "tomcat1", 4000);
    (void)ha_table_owner(table, &d, &own);
    ok(own.version.epoch == 4, "nor does an older claim change anything");
    ha_table_own(table, &other, 1, longest, 1);
    ok(ha_table_owner(table, &other, &own) && strlen(own.route) == HA_ROUTE_MAX - 1, "a long route is cut, not overrun");
}

static void gate(void)
{
    ha_digest d = digest_of(3);
    ok(ha_table_close_gate(table, &d, 1000, 5000, 0), "the first one closes the gate");
    ok(!ha_table_close_gate(table, &d, 1001, 5001, 0), "the second one waits");
    ha_table_open_gate(table, &d, 4999);
    ok(!ha_table_close_gate(table, &d, 1002, 5002, 0), "who does not hold it cannot open it");
    ha_table_open_gate(table, &d, 5000);
    ok(ha_table_close_gate(table, &d, 1003, 6000, 0), "opened, it can be closed again");
    ok(!ha_table_enter(table, &d, 1004, 0) && !ha_table_enter(table, &d, 1004, 5000), "behind a closed gate nobody is counted in");
    ok(ha_table_enter(table, &d, 1004, 6000) && !ha_table_empty(table, &d, 1005), "but its holder");
    ha_table_leave(table, &d);
    ok(ha_table_empty(table, &d, 1005), "and out");
    ok(ha_table_close_gate(table, &d, 6001, 9000, 0), "a gate whose time is over is anybody's");
    ha_table_open_gate(table, &d, 6000);
    ok(!ha_table_close_gate(table, &d, 6002, 9001, 0), "its former holder does not open the next one's");
}

static void order(void)
{
    ha_digest d = digest_of(4);
    ha_version v5 = { 1, 5 }, v6 = { 1, 6 }, v7 = { 1, 7 }, next = { 2, 1 };
    ha_owner own;

    ok(ha_table_put_begin(table, &d, v6, 100, 200) == HA_PUT_GO, "a first backup");
    ok(ha_table_put_begin(table, &d, v5, 110, 210) == HA_PUT_BUSY, "another one waits for it");
    ha_table_put_end(table, &d, v6, "a", 90, HA_ACK_STATE);
    ok(ha_table_put_begin(table, &d, v5, 120, 220) == HA_PUT_DONE, "an older one is in it");
    ok(ha_table_put_begin(table, &d, v6, 120, 220) == HA_PUT_DONE, "the same one too");
    ok(ha_table_put_begin(table, &d, v7, 130, 230) == HA_PUT_GO, "a newer one goes");
    ha_table_put_end(table, &d, v7, "a", 125, HA_ACK_NONE);
    (void)ha_table_owner(table, &d, &own);
    ok(own.version.seq == 6, "what the store did not acknowledge does not count");
    ok(own.since == 90, "a member lives as of when it was asked");
    ok(ha_table_put_begin(table, &d, v7, 140, 240) == HA_PUT_GO, "and may be tried again");
    ok(ha_table_put_begin(table, &d, v7, 241, 300) == HA_PUT_GO, "a writer that died holds up nobody for ever");
    ha_table_put_end(table, &d, v7, "a", 125, HA_ACK_STATE);
    ha_table_own(table, &d, 2, "b", 400);
    ok(ha_table_put_begin(table, &d, v7, 410, 500) == HA_PUT_FENCED, "the former owner's backup is fenced");
    ok(ha_table_put_begin(table, &d, next, 410, 500) == HA_PUT_GO, "the owner's is not, though its seq is lower");
    ha_table_put_end(table, &d, next, "b", 405, HA_ACK_STATE);
    (void)ha_table_owner(table, &d, &own);
    ok(own.version.epoch == 2 && own.version.seq == 1, "epoch before seq");
}

static void again(void)
{
    ha_digest d = digest_of(7);
    ha_version v3 = { 1, 3 }, v4 = { 1, 4 }, v5 = { 1, 5 };
    const apr_time_t minute = apr_time_from_sec(60);
    ha_owner own;

    ok(ha_table_put_begin(table, &d, v4, 100, 200) == HA_PUT_GO, "a backup");
    ha_table_put_end(table, &d, v4, "a", 90, HA_ACK_STATE);
    ok(ha_table_put_begin(table, &d, v4, minute, minute + 100) == HA_PUT_SAME, "told again a minute later: the same");
    ok(ha_table_put_begin(table, &d, v4, minute, minute + 100) == HA_PUT_BUSY && ha_table_put_begin(table, &d, v5, minute, minute + 100) == HA_PUT_BUSY,
       "it has its turn as others have");
    ha_table_put_end(table, &d, v4, "a", minute, HA_ACK_STATE);
    ok(ha_table_owner(table, &d, &own) && own.since == minute, "a sign of life");
    ok(ha_table_put_begin(table, &d, v4, minute + 100, minute + 200) == HA_PUT_DONE, "and again at once: done");
    ok(ha_table_put_begin(table, &d, v3, 2 * minute, 2 * minute + 100) == HA_PUT_DONE, "an older one is not the same");
    ok(ha_table_put_begin(table, &d, v4, 2 * minute, 2 * minute + 100) == HA_PUT_SAME, "the same");
    ha_table_put_end(table, &d, v4, "a", 2 * minute, HA_ACK_NONE);
    ok(ha_table_put_begin(table, &d, v4, 2 * minute, 2 * minute + 100) == HA_PUT_SAME, "not done: the same still");
    ha_table_put_end(table, &d, v4, "a", 2 * minute, HA_ACK_NONE);
    ok(ha_table_put_begin(table, &d, v5, 3 * minute, 3 * minute + 100) == HA_PUT_GO, "a tombstone");
    ha_table_put_end(table, &d, v5, "a", 3 * minute, HA_ACK_STONE);
    ok(ha_table_put_begin(table, &d, v5, 4 * minute, 4 * minute + 100) == HA_PUT_DONE, "a state of its number is not let in its place");
}

static void remembered(void)
{
    ha_digest d = digest_of(8);
    ha_version v4 = { 1, 4 }, v1 = { 1, 1 }, none = { 1, 3 };
    ha_owner own;

    ok(ha_table_put_begin(table, &d, v4, 100, 200) == HA_PUT_GO, "a backup");
    ha_table_put_end(table, &d, v4, "a", 90, HA_ACK_STATE);
    ok(ha_table_owner(table, &d, &own) && own.acked.epoch == 1 && own.acked.seq == 4, "what was acknowledged");
    ha_table_claimed(table, &d, 2, "b", 300);
    ha_table_own(table, &d, 3, "c", 400);
    ok(ha_table_owner(table, &d, &own) && own.version.epoch == 3 && own.version.seq == 0 && own.acked.epoch == 1 && own.acked.seq == 4,
       "is known while new owners have said nothing");
    ha_table_lost(table, &d, none);
    ok(ha_table_owner(table, &d, &own) && own.acked.seq == 4, "another version is lost");
    ha_table_lost(table, &d, v4);
    ok(ha_table_owner(table, &d, &own) && own.acked.seq == 0, "this one is");
    d = digest_of(9);
    ok(ha_table_put_begin(table, &d, v4, 100, 200) == HA_PUT_GO, "a backup");
    ha_table_put_end(table, &d, v4, "a", 90, HA_ACK_STATE);
    ha_table_lost(table, &d, v4);
    ok(ha_table_put_begin(table, &d, v1, 500, 600) == HA_PUT_GO, "of what is lost, whoever has it may begin to count anew");
    ha_table_put_end(table, &d, v1, "a", 500, HA_ACK_STATE);
}

static void crowd(void)
{
    ha_digest held = digest_of(5);
    ha_owner own;
    unsigned n, found = 0;

    ok(ha_table_close_gate(table, &held, 1000, 2000000, 0), "a gate is closed");
    for (n = 100; n < 100100; n++) {
        ha_digest d = digest_of(n);
        ha_table_own(table, &d, 1, "x", 1000 + n);
    }
    ok(ha_table_owner(table, &held, &own) && own.gate == 2000000, "100,000 sessions later it still is: not evicted in motion");
    for (n = 100; n < 100100; n++) {
        ha_digest d = digest_of(n);
        found += ha_table_owner(table, &d, &own) != 0;
    }
    ok(found > 15000 && found < 16400, "the table is bounded and full (%u)", found);
    n = 100099;
    {
        ha_digest d = digest_of(n);
        ok(ha_table_owner(table, &d, &own), "the latest is in it");
    }
}

/* Twenty processes at one gate: never two behind it. */
static void processes(apr_global_mutex_t *mutex, const char *lockfile, int *inside, int *worst)
{
    ha_digest d = digest_of(6);
    int i, status, bad = 0;

    for (i = 0; i < 20; i++) {
        if (fork() == 0) {
            int n, mine = 0;
            apr_global_mutex_child_init(&mutex, lockfile, pool);
            for (n = 0; n < 2000 && mine < 20; n++) {
                apr_time_t now = apr_time_now(), until = now + 10000000 + getpid();
                if (ha_table_close_gate(table, &d, now, until, 0)) {
                    int there = __sync_add_and_fetch(inside, 1);
                    if (there > *worst)
                        *worst = there;
                    usleep(200);
                    __sync_sub_and_fetch(inside, 1);
                    ha_table_open_gate(table, &d, until);
                    mine++;
                }
                else {
                    usleep(100);
                }
            }
            _exit(mine == 0);
        }
    }
    while (wait(&status) > 0)
        bad += status != 0;
    ok(*worst == 1, "twenty processes at one gate: never two behind it (%d)", *worst);
    ok(bad < 20, "and they get their turn");
}

int main(void)
{
    apr_shm_t *shm;
    apr_global_mutex_t *mutex;
    int *counters;

    apr_initialize();
    atexit(apr_terminate);
    apr_pool_create(&pool, NULL);
    if (apr_shm_create(&shm, ha_table_size() + 64, NULL, pool) != APR_SUCCESS
        || apr_global_mutex_create(&mutex, NULL, APR_LOCK_DEFAULT, pool) != APR_SUCCESS)
        return 1;
    memset(apr_shm_baseaddr_get(shm), 0, ha_table_size() + 64);
    table = ha_table_attach(apr_shm_baseaddr_get(shm), mutex, pool);
    counters = (int *)((char *)apr_shm_baseaddr_get(shm) + ha_table_size());

    owners();
    gate();
    order();
    again();
    remembered();
    processes(mutex, NULL, &counters[0], &counters[1]);
    crowd();
    return tap_done();
}
