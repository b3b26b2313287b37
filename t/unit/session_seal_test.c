/* Digests, signatures and sealed records, against values made with other programs. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/wait.h>
#include <apr_general.h>
#include <apr_strings.h>
#include <apr_thread_proc.h>
#include "tap.h"
#include "session/session_seal.h"

#define SECRET "0123456789abcdef0123456789abcdef"
#define OTHER  "fedcba9876543210fedcba9876543210"
#define NONCE_AT 4
#define NONCE_LEN 12

static ha_blob blob(const char *s)
{
    ha_blob b = { s, strlen(s) };
    return b;
}

static ha_secret *secret_of(const char *text, const char *old, apr_pool_t *p)
{
    ha_blob now = blob(text), previous = old ? blob(old) : now;
    ha_secret *secret;
    const char *why = ha_secret_make(&secret, &now, old ? &previous : NULL, p);

    if (why)
        printf("# %s\n", why);
    return secret;
}

static void check_digest(apr_pool_t *p)
{
    ha_digest a, b;
    char hex[HA_DIGEST_HEX + 1], brief[13];
    char *name = apr_palloc(p, 2001);

    /* printf 'balancer://tomcats\0ABC' | sha256sum */
    ha_digest_make("balancer://tomcats", "ABC", &a);
    ha_digest_hex(&a, hex);
    ha_digest_short(&a, brief);
    is_str(hex, "616aedda1f166306fe29f7075dc7ec4e095eb3042f4c676516629aff22b4de1d", "digest");
    is_str(brief, "616aedda1f16", "its beginning");
    ha_digest_make("balancer://tomcatsA", "BC", &b);
    ok(memcmp(&a, &b, sizeof(a)) != 0, "a name's end is not an id's beginning");
    memset(name, 'x', 2000);
    name[2000] = '\0';
    ha_digest_make(name, name, &a);
    ha_digest_make(name, name + 1, &b);
    ok(memcmp(&a, &b, sizeof(a)) != 0, "long ones are not cut");
}

/* Digests are kept: what is found in a place must be this session's, whoever was there before. */
static void check_kept(apr_pool_t *p)
{
    enum { N = 5000 };          /* more than there are places */
    static const char *const balancers[] = { "balancer://a", "balancer://b" };
    ha_digest *first = apr_palloc(p, 2 * N * sizeof(ha_digest)), again;
    char id[40];
    int i, wrong = 0;

    for (i = 0; i < 2 * N; i++) {
        apr_snprintf(id, sizeof(id), "%032X", i / 2);
        ha_digest_make(balancers[i % 2], id, &first[i]);
        wrong += i > 0 && memcmp(&first[i], &first[i - 1], sizeof(ha_digest)) == 0;
    }
    for (i = 0; i < 2 * N; i++) {                   /* first all of one balancer, then all of the other */
        int k = i < N ? 2 * i : 2 * (i - N) + 1;

        apr_snprintf(id, sizeof(id), "%032X", k / 2);
        ha_digest_make(balancers[k % 2], id, &again);
        wrong += memcmp(&first[k], &again, sizeof(again)) != 0;
        ha_digest_make(balancers[k % 2], id, &again);
        wrong += memcmp(&first[k], &again, sizeof(again)) != 0;
    }
    ok(!wrong, "a kept digest is that of this session");
}

static void check_secret(apr_pool_t *p)
{
    ha_version v = { 3, 19 };
    ha_blob state = blob("hello"), content, white;
    ha_secret *secret, *trimmed;
    const char *why;

    content = blob("0123456789abcde");
    why = ha_secret_make(&secret, &content, NULL, p);
    ok(why && !secret && strstr(why, "16 bytes"), "15 bytes: %s", why ? why : "-");
    content = blob("  \t\r\n0123456789abcde\n\n  ");
    ok(ha_secret_make(&secret, &content, NULL, p) && !secret, "nor with white space around");
    content = blob("");
    ok(ha_secret_make(&secret, &content, NULL, p) && !secret, "empty");
    content = blob(" \n \n \n \n \n \n \n \n \n \n \n");
    ok(ha_secret_make(&secret, &content, NULL, p) && !secret, "only white space");
    content = blob("0123456789abcdef");
    ok(!ha_secret_make(&secret, &content, NULL, p) && secret, "16 bytes");
    white = blob("short");
    why = ha_secret_make(&secret, &content, &white, p);
    ok(why && !secret && strstr(why, "old"), "the old one too: %s", why ? why : "-");

    secret = secret_of(SECRET, NULL, p);
    trimmed = secret_of("\n\v\f " SECRET "\r\n\t", NULL, p);
    is_str(ha_mac_restore(trimmed, "ABC", v, &state, p), ha_mac_restore(secret, "ABC", v, &state, p), "white space around is not part of it");
    trimmed = secret_of("0123456789abcdef 0123456789abcdef", NULL, p);
    ok(strcmp(ha_mac_restore(trimmed, "ABC", v, &state, p), ha_mac_restore(secret, "ABC", v, &state, p)) != 0, "in the middle it is");
}

static void check_macs(apr_pool_t *p)
{
    ha_secret *secret = secret_of(SECRET, NULL, p), *moved = secret_of(SECRET, OTHER, p);
    ha_version v = { 3, 19 }, top = { 999999999999999, 0 };
    ha_blob state = blob("hello"), none = { NULL, 0 }, binary = { "\0\377\n", 3 };

    /* printf 'restore\nABC\n3\n19\nhello' | openssl dgst -sha256 -hmac $SECRET -binary | base64; and so on */
    is_str(ha_mac_restore(secret, "ABC", v, &state, p), "RsTVi6xvmblr9h7fk0608J0Pr+t8UbaLsqY3yHf0ZeU=", "restore");
    is_str(ha_mac_restore(secret, "s:a.b", top, &none, p), "1hBxNdTwvvd6txpDQ4ZYYp3aIz3YJeMPG0ms6If99EI=", "restore of nothing");
    is_str(ha_mac_restore(secret, "ABC", v, &binary, p), "2dpZnm9hkwqniNK1630VZoitqgW7+THghPqi3N8Ccew=", "restore of bytes with NUL and LF");
    is_str(ha_mac_fetch(secret, "ABC", 1700000000, p), "xMZZm1lZQmPqFYdXIiN3sjkAThXTNzYpDaEmW8DoDbQ=", "fetch, with an empty last part");
    is_str(ha_mac_fetch(moved, "ABC", 1700000000, p), "xMZZm1lZQmPqFYdXIiN3sjkAThXTNzYpDaEmW8DoDbQ=", "an old secret signs nothing");
}

static int same(const ha_blob *a, const ha_blob *b)
{
    return a->len == b->len && a->data && (!a->len || memcmp(a->data, b->data, a->len) == 0);
}

static void check_known_record(apr_pool_t *p)
{
    /* made with python's cryptography.AESGCM, keys with its hmac, nonce 00..0b */
    static const unsigned char known[] = {
        0x42, 0x01, 0xea, 0xf6, 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b,
        0x71, 0x54, 0x0e, 0xd5, 0xd2, 0xc0, 0x8c, 0x45, 0x72, 0x71, 0x21, 0xc7, 0xa8, 0x3d, 0x98, 0x1d,
        0x34, 0xc1, 0xa5, 0xc1, 0x16
    };
    ha_secret *secret = secret_of(SECRET, NULL, p);
    ha_blob sealed = { known, sizeof(known) }, plain, want = blob("hello");
    ha_version v = { 3, 19 };
    const char *why = "-";
    ha_digest d;

    ha_digest_make("balancer://tomcats", "ABC", &d);
    ok(ha_open(secret, 'B', &d, v, &sealed, p, &plain, &why) == APR_SUCCESS && same(&plain, &want), "a record sealed by another program (%s)", why);
}

static void check_seal(apr_pool_t *p)
{
    static const apr_size_t sizes[] = { 0, 1, 15, 16, 17, 512, 4096, 65537, 1048576 };
    ha_secret *secret = secret_of(SECRET, NULL, p);
    ha_version v = { 3, 19 };
    const char *why;
    ha_digest d;
    apr_size_t i, n;

    ha_digest_make("balancer://tomcats", "ABC", &d);
    for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        unsigned char *bytes = malloc(sizes[i] + 1);
        ha_blob plain = { bytes, sizes[i] }, sealed, back;
        for (n = 0; n < sizes[i]; n++)
            bytes[n] = (unsigned char)(n * 31);
        ok(ha_seal(secret, 'B', &d, v, &plain, p, &sealed) == APR_SUCCESS && sealed.len == plain.len + HA_SEAL_OVERHEAD
           && ha_open(secret, 'B', &d, v, &sealed, p, &back, &why) == APR_SUCCESS && same(&back, &plain), "%d bytes there and back", (int)sizes[i]);
        free(bytes);
    }
}

static void check_refused(apr_pool_t *p)
{
    ha_secret *secret = secret_of(SECRET, NULL, p), *other = secret_of(OTHER, NULL, p), *both = secret_of(OTHER, SECRET, p), *reversed = secret_of(SECRET, OTHER, p);
    ha_version v = { 3, 19 }, epoch = { 4, 19 }, seq = { 3, 20 };
    ha_blob plain = blob("the state of a session, and some more of it"), sealed, back;
    ha_digest d, else_id, else_balancer;
    const char *why = NULL;
    apr_size_t n;
    int bit, opened = 0, unsaid = 0;

    ha_digest_make("balancer://tomcats", "ABC", &d);
    ha_digest_make("balancer://tomcats", "ABD", &else_id);
    ha_digest_make("balancer://others", "ABC", &else_balancer);
    ok(ha_seal(secret, 'B', &d, v, &plain, p, &sealed) == APR_SUCCESS, "sealed");

    ok(ha_open(both, 'B', &d, v, &sealed, p, &back, &why) == APR_SUCCESS && same(&back, &plain), "the old secret still opens");
    ok(ha_open(secret, 'C', &d, v, &sealed, p, &back, &why) == APR_EINVAL && !back.data, "another kind: %s", why);
    ok(ha_open(secret, 'B', &else_id, v, &sealed, p, &back, &why) == APR_EACCES && !back.data, "another session: %s", why);
    ok(ha_open(secret, 'B', &else_balancer, v, &sealed, p, &back, &why) == APR_EACCES, "another balancer's");
    ok(ha_open(secret, 'B', &d, epoch, &sealed, p, &back, &why) == APR_EACCES, "another epoch");
    ok(ha_open(secret, 'B', &d, seq, &sealed, p, &back, &why) == APR_EACCES, "another seq");
    ok(ha_open(other, 'B', &d, v, &sealed, p, &back, &why) == APR_EACCES && strstr(why, "another secret"), "another secret: %s", why);

    ok(ha_seal(both, 'B', &d, v, &plain, p, &back) == APR_SUCCESS && ha_open(secret, 'B', &d, v, &back, p, &back, &why) == APR_EACCES,
       "the old secret seals nothing");
    ok(ha_seal(both, 'B', &d, v, &plain, p, &back) == APR_SUCCESS && ha_open(reversed, 'B', &d, v, &back, p, &back, &why) == APR_SUCCESS,
       "and the new one does");

    for (n = 0; n < sealed.len; n++) {
        unsigned char *copy = malloc(n + 1);        /* exact, so that ASan sees a byte too far */
        ha_blob cut = { copy, n };
        memcpy(copy, sealed.data, n);
        why = NULL;
        opened += ha_open(secret, 'B', &d, v, &cut, p, &back, &why) == APR_SUCCESS;
        unsaid += !why;
        free(copy);
    }
    ok(!opened && !unsaid, "truncated, at every length");

    for (n = 0; n < sealed.len; n++) {
        for (bit = 0; bit < 8; bit++) {
            unsigned char *copy = malloc(sealed.len);
            ha_blob changed = { copy, sealed.len };
            apr_status_t rv;
            memcpy(copy, sealed.data, sealed.len);
            copy[n] ^= (unsigned char)(1 << bit);
            why = NULL;
            rv = ha_open(secret, 'B', &d, v, &changed, p, &back, &why);
            opened += rv != (n < 2 ? APR_EINVAL : APR_EACCES) || back.data;
            unsaid += !why;
            free(copy);
        }
    }
    ok(!opened && !unsaid, "every bit flipped");

    {
        unsigned char *copy = apr_pmemdup(p, sealed.data, sealed.len);
        ha_blob future = { copy, sealed.len };
        copy[1] = 2;
        ok(ha_open(secret, 'B', &d, v, &future, p, &back, &why) == APR_EINVAL && strstr(why, "future"), "a future format: %s", why);
    }
}

/* ---- nonces ------------------------------------------------------------------- */

#define PER_PROCESS 2000
#define THREADS 8

static int by_bytes(const void *a, const void *b)
{
    return memcmp(a, b, NONCE_LEN);
}

static void seal_nonces(ha_secret *secret, unsigned char *out, int n, apr_pool_t *p)
{
    ha_version v = { 1, 1 };
    ha_blob plain = blob("x"), sealed;
    ha_digest d;

    ha_digest_make("b", "i", &d);
    while (n--) {
        if (ha_seal(secret, 'B', &d, v, &plain, p, &sealed) != APR_SUCCESS)
            abort();
        memcpy(out, (const char *)sealed.data + NONCE_AT, NONCE_LEN);
        out += NONCE_LEN;
    }
}

struct thread_job {
    ha_secret *secret;
    unsigned char *out;
    apr_pool_t *p;
};

static void * APR_THREAD_FUNC run_thread(apr_thread_t *t, void *data)
{
    struct thread_job *job = data;

    seal_nonces(job->secret, job->out, PER_PROCESS, job->p);
    return NULL;
}

static int all_different(unsigned char *nonces, int n)
{
    int i;

    qsort(nonces, (size_t)n, NONCE_LEN, by_bytes);
    for (i = 1; i < n; i++)
        if (memcmp(nonces + (i - 1) * NONCE_LEN, nonces + i * NONCE_LEN, NONCE_LEN) == 0)
            return 0;
    return 1;
}

static void check_nonces(apr_pool_t *p)
{
    ha_secret *secret = secret_of(SECRET, NULL, p);
    unsigned char *nonces = malloc((size_t)(THREADS + 4) * PER_PROCESS * NONCE_LEN);
    int fds[2], child, done = 0;
    struct thread_job jobs[THREADS];
    apr_thread_t *threads[THREADS];

    /* the parent has used it, then children do: none may go on where the parent was */
    seal_nonces(secret, nonces, PER_PROCESS, p);
    for (child = 1; child < 4; child++) {
        unsigned char *mine = nonces + (size_t)child * PER_PROCESS * NONCE_LEN;
        size_t want = PER_PROCESS * NONCE_LEN, got = 0;
        ssize_t n;
        pid_t pid;

        if (pipe(fds) != 0 || (pid = fork()) < 0)
            abort();
        if (pid == 0) {
            seal_nonces(secret, mine, PER_PROCESS, p);
            for (got = 0; got < want && (n = write(fds[1], mine + got, want - got)) > 0; )
                got += (size_t)n;
            _exit(0);
        }
        close(fds[1]);
        while (got < want && (n = read(fds[0], mine + got, want - got)) > 0)
            got += (size_t)n;
        close(fds[0]);
        waitpid(pid, NULL, 0);
        done += got == want;
    }
    ok(done == 3, "three children have sealed with their parent's secret");

    for (child = 0; child < THREADS; child++) {
        jobs[child].secret = secret;
        jobs[child].out = nonces + (size_t)(4 + child) * PER_PROCESS * NONCE_LEN;
        apr_pool_create(&jobs[child].p, NULL);
        if (apr_thread_create(&threads[child], NULL, run_thread, &jobs[child], p) != APR_SUCCESS)
            abort();
    }
    for (child = 0; child < THREADS; child++) {
        apr_status_t rv;
        apr_thread_join(&rv, threads[child]);
        apr_pool_destroy(jobs[child].p);
    }
    ok(all_different(nonces, (THREADS + 4) * PER_PROCESS), "no nonce twice, in four processes and eight threads");
    free(nonces);
}

static void check_random(apr_pool_t *p)
{
    const char *a, *b;

    ok(ha_random_hex(32, p, &a) == APR_SUCCESS && ha_random_hex(32, p, &b) == APR_SUCCESS && strlen(a) == 64 && strspn(a, "0123456789abcdef") == 64
       && strcmp(a, b) != 0, "random hex");
    ok(ha_random_hex(0, p, &a) == APR_SUCCESS && !*a, "none of it");
}

int main(void)
{
    apr_pool_t *p;

    apr_initialize();
    apr_pool_create(&p, NULL);
    check_digest(p);
    check_kept(p);
    check_secret(p);
    check_macs(p);
    check_known_record(p);
    check_seal(p);
    check_refused(p);
    check_nonces(p);
    check_random(p);
    apr_pool_destroy(p);
    apr_terminate();
    return tap_done();
}
