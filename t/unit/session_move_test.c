/* session_move_test.c - look, follow, claim and what late backups meet, over real stores (lmdb, memcached): above all what an httpd does
 * whose knowledge is old. Keys are removed here as they would be when they have expired. */
#include <apr_general.h>
#include <apr_strings.h>

#include "session/session_capture.h"
#include "session/session_record.h"
#include "store/store_nodes.h"
#include "store_servers.h"

#define IN_AN_HOUR (apr_time_now() + apr_time_from_sec(3600))

static apr_pool_t *p;
static ha_store *store;
static ha_secret *secret;
static ha_table *table;

static ha_session session_of(int n)
{
    ha_session s = { .store = store, .secret = secret };

    ha_digest_make("balancer://x", apr_itoa(p, n), &s.digest);
    return s;
}

static ha_record record_of(apr_uint64_t epoch, apr_uint64_t seq, const char *route)
{
    ha_record r = { .version = { epoch, seq }, .ttl = 1800, .made = apr_time_now(), .route = route, .at = "", .state = { "state", 5 } };

    return r;
}

static void keep(const ha_session *s, char kind, const char *key, const ha_record *r)
{
    ha_call call = { p, 0, NULL };
    ha_value v = { .version = r->version };
    ha_blob plain;

    if (ha_record_encode(r, p, &plain) || ha_seal(s->secret, kind, &s->digest, r->version, &plain, p, &v.data)
        || ha_store_put(store, &call, key, &v, IN_AN_HOUR, NULL)) {
        printf("Bail out! %s cannot be stored\n", key);
    }
}

static void backup(const ha_session *s, apr_uint64_t epoch, apr_uint64_t seq, const char *route)
{
    ha_record r = record_of(epoch, seq, route);

    keep(s, HA_KIND_BACKUP, ha_key_backup(&s->digest, epoch, p), &r);
}

static void claimed(const ha_session *s, apr_uint64_t epoch, const char *route)
{
    ha_record r = record_of(epoch, 0, route);

    r.state.len = 0;
    keep(s, HA_KIND_CLAIM, ha_key_claim(&s->digest, epoch, p), &r);
}

static void forget(const char *key)
{
    ha_call call = { p, 0, NULL };

    (void)ha_store_remove(store, &call, key, NULL);
}

static int is_at(const ha_move *m, apr_uint64_t epoch, const char *owner)
{
    int good = m->epoch == epoch && m->owner && strcmp(m->owner, owner) == 0;

    if (!good) {
        printf("# epoch %d, owner %s, found %d of epoch %d, seq %d\n", (int)m->epoch, m->owner ? m->owner : "-", (int)m->found,
               (int)m->record.version.epoch, (int)m->record.version.seq);
    }
    return good;
}

static int has(const ha_move *m, apr_uint64_t epoch, apr_uint64_t seq)
{
    return m->found == HA_BACKUP_FOUND && m->record.version.epoch == epoch && m->record.version.seq == seq;
}

static void the_usual(void)
{
    ha_session s = session_of(1);
    ha_call call = { p, 0, NULL };
    ha_move m = { .epoch = 1 }, other = { .epoch = 1 }, none = { 0 };

    ok(ha_move_look(&s, &call, &none) == APR_SUCCESS && none.found == HA_BACKUP_ABSENT && none.epoch == 1 && none.owner == NULL && none.trips == 1,
       "looked for: there is none, in one round trip");
    backup(&s, 1, 7, "r1");
    ok(ha_move_claim(&s, &call, &m, "r2", 1800) == APR_SUCCESS && is_at(&m, 2, "r2") && has(&m, 1, 7) && m.trips == 1,
       "claimed, without a look: ours, with the backup, in one round trip");
    ok(ha_move_claim(&s, &call, &other, "r3", 1800) == APR_EEXIST && is_at(&other, 2, "r2") && has(&other, 1, 7) && other.trips == 1,
       "by another httpd too: it is the first one's, and the backup is found");
    backup(&s, 2, 8, "r2");
    other.epoch = 1;
    ok(ha_move_claim(&s, &call, &other, "r3", 1800) == APR_EEXIST && is_at(&other, 2, "r2") && has(&other, 2, 8),
       "again, when the new owner has told of it: what it told is found");
    none.epoch = 1;
    ok(ha_move_follow(&s, &call, &none) == APR_SUCCESS && is_at(&none, 2, "r2") && has(&none, 2, 8), "and so it is by who follows");
}

/* The second owner died before it had told anything, and the third one too: the place of its epoch has the first one's backup. */
static void owners_that_told_nothing(void)
{
    ha_session s = session_of(2);
    ha_call call = { p, 0, NULL };
    ha_move m = { .epoch = 3 }, late = { .epoch = 3 };

    backup(&s, 1, 5, "r1");
    claimed(&s, 2, "r2");
    backup(&s, 2, 6, "r2");
    claimed(&s, 3, "r3");
    ok(ha_move_look(&s, &call, &m) == APR_SUCCESS && has(&m, 2, 6) && m.epoch == 3, "the third owner has told nothing: the second one's backup is the newest");
    ok(ha_move_claim(&s, &call, &late, "r1", 1800) == APR_SUCCESS && has(&late, 2, 6) && is_at(&late, 4, "r1"), "and is what the fourth one is given");
}

/* What this httpd knows is old: the session has gone on to epoch 4 and lived there, and the claims have expired. */
static void a_stray_claim(void)
{
    ha_session s = session_of(3);
    ha_call call = { p, 0, NULL };
    ha_move m = { .epoch = 1 }, other = { .epoch = 1 }, follower = { .epoch = 1 };
    ha_record old = record_of(1, 9, "r1");
    ha_owner own;

    backup(&s, 4, 40, "r4");
    ok(ha_move_claim(&s, &call, &m, "r2", 1800) == APR_EEXIST && is_at(&m, 4, "r4") && has(&m, 4, 40) && m.trips == 1,
       "claimed on old knowledge: not ours, it is where its backup says");
    ok(ha_move_claim(&s, &call, &other, "r3", 1800) == APR_EEXIST && is_at(&other, 4, "r4"), "the stray claim misleads no other httpd");
    ok(ha_move_follow(&s, &call, &follower) == APR_SUCCESS && is_at(&follower, 4, "r4"), "nor who follows it");
    ok(ha_move_claim(&s, &call, &m, "r6", 1800) == APR_SUCCESS && is_at(&m, 5, "r6") && has(&m, 4, 40), "from there on it is claimed as ever");
    ok(ha_capture_put(&s, table, &call, &old, apr_time_now(), 1) == HA_CAPTURE_FENCED && ha_table_owner(table, &s.digest, &own)
       && own.version.epoch == 4 && strcmp(own.route, "r4") == 0, "a late backup is fenced, and its httpd learns where the session is");
}

/* The claim of the present epoch is gone, and its owner has told of it: a stray claim of the same number. */
static void a_stray_claim_of_the_present(void)
{
    ha_session s = session_of(4);
    ha_call call = { p, 0, NULL };
    ha_move m = { .epoch = 1 }, other = { .epoch = 1 };
    ha_record next = record_of(2, 9, "r2");

    backup(&s, 1, 5, "r1");
    claimed(&s, 2, "r2");
    backup(&s, 2, 8, "r2");
    forget(ha_key_claim(&s.digest, 2, p));
    ok(ha_move_claim(&s, &call, &m, "r3", 1800) == APR_EEXIST && is_at(&m, 2, "r2") && has(&m, 2, 8), "the owner's own word counts more than a stray claim");
    ok(ha_move_claim(&s, &call, &other, "r4", 1800) == APR_EEXIST && is_at(&other, 2, "r2"), "for everybody");
    ok(ha_capture_put(&s, table, &call, &next, apr_time_now(), 1) == HA_CAPTURE_STORED, "and does not fence it");
}

/* It was moved while its member lived, and who moved it has waited for this backup: its answer may be passed on. */
static void carried_along(void)
{
    ha_session s = session_of(20);
    ha_call call = { p, 0, NULL };
    ha_record last = record_of(1, 7, "tomcat1"), late = record_of(1, 8, "tomcat1");
    ha_move m = { .epoch = 1, .carries = { 1, 7 } }, seen = { .epoch = 1 };

    backup(&s, 1, 7, "tomcat1");
    ok(ha_move_claim(&s, &call, &m, "tomcat2", 1800) == APR_SUCCESS && is_at(&m, 2, "tomcat2"), "claimed, with what it carries");
    ok(ha_move_follow(&s, &call, &seen) == APR_SUCCESS && seen.carries.epoch == 1 && seen.carries.seq == 7, "the claim says so");
    ok(ha_capture_put(&s, table, &call, &last, apr_time_now(), 1) == HA_CAPTURE_STORED, "another httpd has stored it, and sees the claim");
    s = session_of(21);
    m = (ha_move){ .epoch = 1, .carries = { 1, 7 } };
    ok(ha_move_claim(&s, &call, &m, "tomcat2", 1800) == APR_SUCCESS, "the same of another session");
    ok(ha_capture_put(&s, table, &call, &late, apr_time_now(), 1) == HA_CAPTURE_FENCED, "a newer one does not go along");
    s = session_of(22);
    m = (ha_move){ .epoch = 1 };
    ok(ha_move_claim(&s, &call, &m, "tomcat2", 1800) == APR_SUCCESS, "and of a third one, whose member died");
    ok(ha_capture_put(&s, table, &call, &last, apr_time_now(), 1) == HA_CAPTURE_FENCED, "then nothing goes along");
}

/* Who moves it may have read the backup already. */
static void while_it_is_moved(void)
{
    ha_session s = session_of(23);
    ha_call call = { p, 0, NULL };
    ha_record late = record_of(1, 8, "tomcat1");
    apr_time_t until = apr_time_now() + apr_time_from_msec(300);

    call.deadline = apr_time_now() + apr_time_from_msec(100);
    ok(ha_table_close_gate(table, &s.digest, apr_time_now(), until, 0)
       && ha_capture_put(&s, table, &call, &late, apr_time_now(), 0) == HA_CAPTURE_STORED && apr_time_now() >= until,
       "a backup waits until it is decided, and is stored if the session stays");
    until = apr_time_now() + apr_time_from_sec(15);
    late.version.seq++;
    call.deadline = apr_time_now() + apr_time_from_msec(100);
    ok(ha_table_close_gate(table, &s.digest, apr_time_now(), until, 0)
       && ha_capture_put(&s, table, &call, &late, apr_time_now(), 0) == HA_CAPTURE_FENCED, "for ever it does not wait; then its answer does not pass");
}

static void gone_and_forged(void)
{
    ha_session s = session_of(5), another = session_of(6), bare = session_of(7);
    ha_call call = { p, 0, NULL };
    ha_record stone = record_of(2, 9, "r2"), foreign = record_of(4, 1, "r4");
    ha_move m = { .epoch = 1 }, n = { .epoch = 1 };

    stone.gone = 1;
    stone.state.len = 0;
    backup(&s, 1, 5, "r1");
    keep(&s, HA_KIND_BACKUP, ha_key_backup(&s.digest, 2, p), &stone);
    ok(ha_move_look(&s, &call, &m) == APR_SUCCESS && m.found == HA_BACKUP_TOMBSTONE && m.epoch == 2, "a tombstone is newer than an older owner's backup");
    keep(&another, HA_KIND_BACKUP, ha_key_backup(&s.digest, 4, p), &foreign);
    m.epoch = 1;
    ok(ha_move_look(&s, &call, &m) == APR_SUCCESS && has(&m, 1, 5) && m.forged, "another session's record is none, whatever it says of its version");
    bare.claims_only = 1;
    backup(&bare, 3, 3, "r3");
    ok(ha_move_claim(&bare, &call, &n, "r2", 1800) == APR_SUCCESS && is_at(&n, 2, "r2") && n.found == HA_BACKUP_UNASKED && n.trips == 1,
       "where there are only claims, no backup is read");
}

/* Between our claim and our look another httpd has followed it, and the new owner has told of it there. */
static void followed_at_once(void)
{
    ha_session s = session_of(8);
    ha_call call = { p, 0, NULL };
    ha_move m = { .epoch = 1 };

    backup(&s, 2, 8, "r2");
    ok(ha_move_claim(&s, &call, &m, "r2", 1800) == APR_SUCCESS && is_at(&m, 2, "r2") && has(&m, 2, 8),
       "a backup of the member that we have claimed the epoch for is none of a stray claim's: ours, for we have to tell");
}

static void held_for_down(const ha_session *s, const int *order, int n)
{
    int i;

    for (i = 0; i < n; i++) {
        ha_breaker_open(s->store->nodes[order[i]].breaker, apr_time_now());
    }
}

/* Two copies, three nodes; a moment's delay had two of them held for down, and the third has an old copy of another such moment. */
static void nodes_that_were_not_heard(void)
{
    static ha_server servers[3];
    const char *urls[3];
    ha_session s = session_of(6);
    ha_store *one = store;
    apr_pool_t *pchild;
    ha_call call = { p, 0, NULL };
    ha_move m = { .epoch = 1 };
    int order[HA_STORE_NODES_MAX], i;

    for (i = 0; i < 3; i++) {
        server_memcached(&servers[i], p, NULL);
        urls[i] = servers[i].url;
    }
    s.store = store = store_of(p, 2, apr_time_from_sec(5), 3, urls);
    pchild = store_child(store, p);
    backup(&s, 1, 4, "r1");     /* no node is new any more */
    ha_store_order(store, ha_key_backup(&s.digest, 1, p), order);
    held_for_down(&s, order, 2);
    backup(&s, 1, 5, "r1");
    for (i = 0; i < 3; i++) {
        while (!ha_breaker_usable(store->nodes[i].breaker)) {
            ha_store_tend(store, p, apr_time_now());
            apr_sleep(apr_time_from_msec(1));
        }
    }
    backup(&s, 1, 6, "r1");
    held_for_down(&s, order, 2);
    ok(ha_move_claim(&s, &call, &m, "r2", 1800) == APR_SUCCESS && has(&m, 1, 6), "claimed while two of three nodes were held for down: they are asked all the same");
    apr_pool_destroy(pchild);
    store = one;
}

int main(void)
{
    static const ha_blob content = { "0123456789abcdef0123456789abcdef", 32 };
    apr_global_mutex_t *mutex;
    apr_pool_t *pchild;
    const char *url;
    int bad;

    apr_initialize();
    apr_pool_create(&p, NULL);
    url = apr_pstrcat(p, "lmdb:", server_dir(), "/store", NULL);
    store = store_of(p, 1, apr_time_from_sec(5), 1, &url);
    pchild = store_child(store, p);
    if (ha_secret_make(&secret, &content, NULL, p)
        || apr_global_mutex_create(&mutex, apr_pstrcat(p, server_dir(), "/mutex", NULL), APR_LOCK_DEFAULT, p) != APR_SUCCESS) {
        printf("Bail out! no secret or no mutex\n");
        return 1;
    }
    table = ha_table_attach(apr_pcalloc(p, ha_table_size()), mutex, p);
    the_usual();
    owners_that_told_nothing();
    a_stray_claim();
    a_stray_claim_of_the_present();
    gone_and_forged();
    carried_along();
    while_it_is_moved();
    followed_at_once();
    nodes_that_were_not_heard();
    apr_pool_destroy(pchild);
    bad = tap_done();
    apr_terminate();
    return bad;
}
