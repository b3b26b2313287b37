/* session_seal.c - the secret at work.
 *
 *   secret (the file's bytes) --- HMAC key of what members check: restore, fetch
 *      |
 *      +-- HMAC(secret, "session_ha record key 1") --- AES-256-GCM key of records
 *      +-- HMAC(secret, "session_ha record key-id 1"), 2 bytes: which secret sealed this
 *
 * What members check starts with "restore\n" or "fetch\n", so no signature is ever a derived key.
 *
 * A sealed record:
 *   0      1        2        4        16
 *   +------+--------+--------+--------+------------------------+----------+
 *   | kind | format | key-id | nonce  | ciphertext             | tag (16) |
 *   +------+--------+--------+--------+------------------------+----------+
 * Associated data: the first four bytes, then digest (32), epoch (8), seq (8), big-endian.
 *
 * Nonces must never come twice under one key, in any process of any httpd that has the secret, for years.
 * Each process draws 96 random bits once and counts on from there in the low 64: two processes meet only if
 * they draw the same high 32 bits and starts closer than they count (a million processes of a million
 * records each: 1e-11). Drawing each nonce anew would cost more than the encryption.
 *
 * Cipher contexts with the key schedule done are kept between calls, behind the lock that the counter needs
 * anyway. The parent makes secrets, children use them: contexts and counter are drawn by who uses them, and
 * a process that finds another's pid there starts anew. */
#include "session_seal.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <apr_atomic.h>
#include <apr_strings.h>
#include <apr_thread_mutex.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include "session_field.h"

#define FORMAT     1
#define KEY_LEN    32
#define KEY_ID_LEN 2
#define NONCE_LEN  12
#define TAG_LEN    16
#define HEAD_LEN   4
#define AAD_LEN    (HEAD_LEN + HA_DIGEST_LEN + 16)
#define SECRET_MIN 16
#define IDLE_MAX   32           /* contexts kept; more threads than that at once are served too */

struct key {
    EVP_PKEY     *sign;         /* the secret itself, for HMAC */
    unsigned char record[KEY_LEN];
    unsigned char id[KEY_ID_LEN];
};

struct use {
#if APR_HAS_THREADS
    apr_thread_mutex_t *lock;
#endif
    pid_t pid;                  /* who drew the nonce; 0: nobody */
    unsigned char nonce[NONCE_LEN];     /* the next one */
    EVP_CIPHER_CTX *idle[IDLE_MAX];
    int n_idle;
};

struct ha_secret {
    struct key   now, previous; /* previous.sign NULL: none */
    EVP_CIPHER  *cipher;        /* fetched once: by name each time would cost more than the encryption */
    const EVP_MD *md;
    struct use  *use;           /* what changes, under its lock */
};

/* 1.1.1 has no fetching, and needs none. */
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
#define fetch_sha256()      EVP_MD_fetch(NULL, "SHA256", NULL)
#define fetch_aes()         EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL)
#define free_md(md)         EVP_MD_free(md)
#define free_cipher(cipher) EVP_CIPHER_free(cipher)
#else
#define fetch_sha256()      ((EVP_MD *)EVP_sha256())
#define fetch_aes()         ((EVP_CIPHER *)EVP_aes_256_gcm())
#define free_md(md)         ((void)(md))
#define free_cipher(cipher) ((void)(cipher))
#endif

/* Written out, so that the compiler sees one load or store in it. */
static void put64(unsigned char *to, apr_uint64_t n)
{
    to[0] = (unsigned char)(n >> 56);
    to[1] = (unsigned char)(n >> 48);
    to[2] = (unsigned char)(n >> 40);
    to[3] = (unsigned char)(n >> 32);
    to[4] = (unsigned char)(n >> 24);
    to[5] = (unsigned char)(n >> 16);
    to[6] = (unsigned char)(n >> 8);
    to[7] = (unsigned char)n;
}

static apr_uint64_t get64(const unsigned char *b)
{
    return (apr_uint64_t)b[0] << 56 | (apr_uint64_t)b[1] << 48 | (apr_uint64_t)b[2] << 40 | (apr_uint64_t)b[3] << 32
         | (apr_uint64_t)b[4] << 24 | (apr_uint64_t)b[5] << 16 | (apr_uint64_t)b[6] << 8 | (apr_uint64_t)b[7];
}

/* Four bytes as eight digits: a nibble to each byte, then the step from '9' to 'a' where it is more than nine. */
static apr_uint64_t eight_digits(const unsigned char *b)
{
    const apr_uint64_t ones = ~(apr_uint64_t)0 / 255;
    apr_uint64_t x = (apr_uint64_t)b[0] << 24 | (apr_uint64_t)b[1] << 16 | (apr_uint64_t)b[2] << 8 | (apr_uint64_t)b[3];

    x = (x | x << 16) & APR_UINT64_C(0x0000ffff0000ffff);
    x = (x | x << 8) & APR_UINT64_C(0x00ff00ff00ff00ff);
    x = (x | x << 4) & (ones * 0x0f);
    return x + ones * '0' + ((x + ones * 6) >> 4 & ones) * ('a' - '0' - 10);
}

static void write_hex(const unsigned char *bytes, apr_size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";

    for (; len >= 4; bytes += 4, len -= 4, out += 8)
        put64((unsigned char *)out, eight_digits(bytes));
    for (; len; bytes++, len--) {
        *out++ = digits[*bytes >> 4];
        *out++ = digits[*bytes & 15];
    }
    *out = '\0';
}

/* ---- digests ---------------------------------------------------------------- */

/* Fetched by the first who needs it, and kept for the life of the process. */
static const EVP_MD *sha256(void)
{
    static volatile void *kept;
    EVP_MD *md = (EVP_MD *)apr_atomic_casptr(&kept, NULL, NULL), *other;

    if (!md && (md = fetch_sha256()) && (other = (EVP_MD *)apr_atomic_casptr(&kept, md, NULL))) {
        free_md(md);
        md = other;
    }
    return md;
}

/* Pools abort where there is no memory, and so must this: a wrong digest is another session. That there is a
 * SHA-256 at all has been seen by ha_secret_make. (Keeping a context for the next digest saves an eighth: not worth it.)
 * The balancer's NUL is part of it. */
static void make_digest(const char *balancer, apr_size_t balancer_len, const char *id, apr_size_t id_len, ha_digest *out)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();

    if (!ctx || !EVP_DigestInit_ex(ctx, sha256(), NULL) || !EVP_DigestUpdate(ctx, balancer, balancer_len)
        || !EVP_DigestUpdate(ctx, id, id_len) || !EVP_DigestFinal_ex(ctx, out->bytes, NULL))
        abort();
    EVP_MD_CTX_free(ctx);
}

/* Each backup of a session needs its digest, and to make one is a fifth of what the backup costs here. So this process
 * keeps those of the sessions that it saw last. A place is in the hands of one thread at a time; who finds it taken
 * makes the digest without it. */
#define PLACES     1024         /* a power of two */
#define TEXT_MAX   116

static struct place {
    volatile apr_uint32_t taken;
    apr_uint32_t len;
    char text[TEXT_MAX];        /* balancer, NUL, id */
    ha_digest digest;
} places[PLACES];

static struct place *place_of(const char *id, apr_size_t len)
{
    apr_uint64_t h = len, w;

    for (; len >= 8; id += 8, len -= 8) {
        memcpy(&w, id, 8);
        h = (h ^ w) * APR_UINT64_C(0x9e3779b97f4a7c15);
        h ^= h >> 32;
    }
    while (len--)
        h = (h ^ (unsigned char)*id++) * APR_UINT64_C(0x9e3779b97f4a7c15);
    return &places[(h ^ h >> 56) & (PLACES - 1)];
}

void ha_digest_make(const char *balancer, const char *id, ha_digest *out)
{
    const apr_size_t balancer_len = strlen(balancer) + 1, id_len = strlen(id), len = balancer_len + id_len;
    struct place *at = place_of(id, id_len);

    if (len > TEXT_MAX || apr_atomic_cas32(&at->taken, 1, 0) != 0) {
        make_digest(balancer, balancer_len, id, id_len, out);
        return;
    }
    if (at->len != len || memcmp(at->text + balancer_len, id, id_len) != 0 || memcmp(at->text, balancer, balancer_len) != 0) {
        make_digest(balancer, balancer_len, id, id_len, &at->digest);
        memcpy(at->text, balancer, balancer_len);
        memcpy(at->text + balancer_len, id, id_len);
        at->len = (apr_uint32_t)len;
    }
    *out = at->digest;
    apr_atomic_xchg32(&at->taken, 0);       /* a barrier on every machine, which apr_atomic_set32() is not */
}

void ha_digest_hex(const ha_digest *digest, char out[HA_DIGEST_HEX + 1])
{
    write_hex(digest->bytes, HA_DIGEST_LEN, out);
}

void ha_digest_short(const ha_digest *digest, char out[13])
{
    write_hex(digest->bytes, 6, out);
}

/* ---- HMAC ------------------------------------------------------------------- */

/* Over two pieces, so that a state need not be copied. */
static int hmac(EVP_PKEY *key, const EVP_MD *md, const void *head, apr_size_t head_len,
                const void *tail, apr_size_t tail_len, unsigned char out[HA_DIGEST_LEN])
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    size_t len = HA_DIGEST_LEN;
    int good = ctx && EVP_DigestSignInit(ctx, NULL, md, NULL, key) == 1
            && EVP_DigestSignUpdate(ctx, head, head_len) == 1
            && (!tail_len || EVP_DigestSignUpdate(ctx, tail, tail_len) == 1)
            && EVP_DigestSignFinal(ctx, out, &len) == 1 && len == HA_DIGEST_LEN;

    EVP_MD_CTX_free(ctx);
    return good;
}

static const char *mac_text(const ha_secret *secret, const char *head, const void *tail, apr_size_t tail_len, apr_pool_t *p)
{
    unsigned char mac[HA_DIGEST_LEN];
    ha_blob blob = { mac, sizeof(mac) };

    if (!hmac(secret->now.sign, secret->md, head, strlen(head), tail, tail_len, mac))
        return NULL;
    return ha_field_base64_encode(&blob, p);
}

const char *ha_mac_restore(const ha_secret *secret, const char *id, ha_version v, const ha_blob *state, apr_pool_t *p)
{
    const char *head = apr_psprintf(p, "restore\n%s\n%" APR_UINT64_T_FMT "\n%" APR_UINT64_T_FMT "\n", id, v.epoch, v.seq);

    return mac_text(secret, head, state->data, state->len, p);
}

const char *ha_mac_fetch(const ha_secret *secret, const char *id, apr_int64_t time_s, apr_pool_t *p)
{
    return mac_text(secret, apr_psprintf(p, "fetch\n%s\n%" APR_INT64_T_FMT "\n", id, time_s), NULL, 0, p);
}

/* ---- making ------------------------------------------------------------------ */

static int is_white(unsigned char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int derive(struct key *key, const EVP_MD *md, const char *label, unsigned char *out, apr_size_t len)
{
    unsigned char all[HA_DIGEST_LEN];
    int good = hmac(key->sign, md, label, strlen(label), NULL, 0, all);

    if (good)
        memcpy(out, all, len);
    OPENSSL_cleanse(all, sizeof(all));
    return good;
}

/* 0: too short. -1: libcrypto cannot. */
static int make_key(struct key *key, const ha_blob *content, const EVP_MD *md)
{
    const unsigned char *s = content->data;
    apr_size_t len = content->len;

    while (len && is_white(s[len - 1]))
        len--;
    while (len && is_white(*s)) {
        s++;
        len--;
    }
    if (len < SECRET_MIN)
        return 0;
    if (!(key->sign = EVP_PKEY_new_raw_private_key(EVP_PKEY_HMAC, NULL, s, len))
        || !derive(key, md, "session_ha record key 1", key->record, KEY_LEN)
        || !derive(key, md, "session_ha record key-id 1", key->id, KEY_ID_LEN))
        return -1;
    return 1;
}

static void wipe_key(struct key *key)
{
    EVP_PKEY_free(key->sign);
    OPENSSL_cleanse(key, sizeof(*key));
}

static apr_status_t wipe(void *data)
{
    ha_secret *secret = data;

    while (secret->use->n_idle)
        EVP_CIPHER_CTX_free(secret->use->idle[--secret->use->n_idle]);
    OPENSSL_cleanse(secret->use, sizeof(*secret->use));
    wipe_key(&secret->now);
    wipe_key(&secret->previous);
    free_cipher(secret->cipher);
    secret->cipher = NULL;
    return APR_SUCCESS;
}

const char *ha_secret_make(ha_secret **out, const ha_blob *content, const ha_blob *previous, apr_pool_t *p)
{
    ha_secret *secret = apr_pcalloc(p, sizeof(*secret));
    int made;

    *out = NULL;
    secret->use = apr_pcalloc(p, sizeof(*secret->use));
#if APR_HAS_THREADS
    if (apr_thread_mutex_create(&secret->use->lock, APR_THREAD_MUTEX_DEFAULT, p) != APR_SUCCESS)
        return "no lock for the secret could be made";
#endif
    secret->md = sha256();
    secret->cipher = fetch_aes();
    apr_pool_cleanup_register(p, secret, wipe, apr_pool_cleanup_null);
    if (!secret->md || !secret->cipher)
        return "this libcrypto has no SHA-256 or no AES-256-GCM";
    if ((made = make_key(&secret->now, content, secret->md)) == 0)
        return "the secret is too short: it must have 16 bytes or more, white space around it not counted";
    if (made == 1 && previous && (made = make_key(&secret->previous, previous, secret->md)) == 0)
        return "the old secret is too short: it must have 16 bytes or more, white space around it not counted";
    if (made < 0)
        return "this libcrypto makes no HMAC-SHA-256 with the secret";
    *out = secret;
    return NULL;
}

/* ---- sealing ------------------------------------------------------------------ */

static void lock(struct use *use)
{
#if APR_HAS_THREADS
    apr_thread_mutex_lock(use->lock);
#endif
}

static void unlock(struct use *use)
{
#if APR_HAS_THREADS
    apr_thread_mutex_unlock(use->lock);
#endif
}

/* A context with the key in it, and a nonce that nobody else gets. */
static EVP_CIPHER_CTX *take(const ha_secret *secret, unsigned char nonce[NONCE_LEN])
{
    struct use *use = secret->use;
    EVP_CIPHER_CTX *ctx = NULL;
    const pid_t pid = getpid();
    int drawn = 1;

    lock(use);
    if (use->pid != pid) {
        drawn = RAND_bytes(use->nonce, NONCE_LEN) == 1;
        use->pid = drawn ? pid : 0;
    }
    memcpy(nonce, use->nonce, NONCE_LEN);
    put64(use->nonce + 4, get64(use->nonce + 4) + 1);
    if (drawn && use->n_idle)
        ctx = use->idle[--use->n_idle];
    unlock(use);

    if (drawn && !ctx && (ctx = EVP_CIPHER_CTX_new())
        && EVP_EncryptInit_ex(ctx, secret->cipher, NULL, secret->now.record, NULL) != 1) {
        EVP_CIPHER_CTX_free(ctx);
        ctx = NULL;
    }
    return ctx;
}

static void give_back(const ha_secret *secret, EVP_CIPHER_CTX *ctx)
{
    struct use *use = secret->use;

    lock(use);
    if (use->n_idle < IDLE_MAX) {
        use->idle[use->n_idle++] = ctx;
        ctx = NULL;
    }
    unlock(use);
    EVP_CIPHER_CTX_free(ctx);
}

static void associate(unsigned char aad[AAD_LEN], const unsigned char head[HEAD_LEN], const ha_digest *digest, ha_version v)
{
    memcpy(aad, head, HEAD_LEN);
    memcpy(aad + HEAD_LEN, digest->bytes, HA_DIGEST_LEN);
    put64(aad + HEAD_LEN + HA_DIGEST_LEN, v.epoch);
    put64(aad + HEAD_LEN + HA_DIGEST_LEN + 8, v.seq);
}

apr_status_t ha_seal(const ha_secret *secret, char kind, const ha_digest *digest, ha_version v, const ha_blob *plain,
                     apr_pool_t *p, ha_blob *sealed)
{
    unsigned char aad[AAD_LEN], *b;
    EVP_CIPHER_CTX *ctx;
    int n, good;

    sealed->data = NULL;
    sealed->len = 0;
    if (plain->len > INT_MAX - HA_SEAL_OVERHEAD)
        return APR_EINVAL;
    b = apr_palloc(p, plain->len + HA_SEAL_OVERHEAD);
    b[0] = (unsigned char)kind;
    b[1] = FORMAT;
    memcpy(b + 2, secret->now.id, KEY_ID_LEN);
    associate(aad, b, digest, v);
    if (!(ctx = take(secret, b + HEAD_LEN)))
        return APR_EGENERAL;

    good = EVP_EncryptInit_ex(ctx, NULL, NULL, NULL, b + HEAD_LEN) == 1
        && EVP_EncryptUpdate(ctx, NULL, &n, aad, AAD_LEN) == 1
        && (!plain->len || EVP_EncryptUpdate(ctx, b + HEAD_LEN + NONCE_LEN, &n, plain->data, (int)plain->len) == 1)
        && EVP_EncryptFinal_ex(ctx, b + HEAD_LEN + NONCE_LEN + plain->len, &n) == 1
        && EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG_LEN, b + HEAD_LEN + NONCE_LEN + plain->len) == 1;
    if (!good) {
        EVP_CIPHER_CTX_free(ctx);
        return APR_EGENERAL;
    }
    give_back(secret, ctx);
    sealed->data = b;
    sealed->len = plain->len + HA_SEAL_OVERHEAD;
    return APR_SUCCESS;
}

static int open_with(const ha_secret *secret, const struct key *key, const unsigned char aad[AAD_LEN],
                     const unsigned char *b, apr_size_t len, unsigned char *out)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int n, good = ctx
        && EVP_DecryptInit_ex(ctx, secret->cipher, NULL, key->record, b + HEAD_LEN) == 1
        && EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG_LEN, (void *)(b + HEAD_LEN + NONCE_LEN + len)) == 1
        && EVP_DecryptUpdate(ctx, NULL, &n, aad, AAD_LEN) == 1
        && (!len || EVP_DecryptUpdate(ctx, out, &n, b + HEAD_LEN + NONCE_LEN, (int)len) == 1)
        && EVP_DecryptFinal_ex(ctx, out + len, &n) == 1;

    EVP_CIPHER_CTX_free(ctx);
    return good;
}

apr_status_t ha_open(const ha_secret *secret, char kind, const ha_digest *digest, ha_version v, const ha_blob *sealed,
                     apr_pool_t *p, ha_blob *plain, const char **why)
{
    const unsigned char *b = sealed->data;
    const struct key *keys[2] = { &secret->now, &secret->previous };
    const apr_size_t all = sealed->len;     /* sealed and plain may be the same */
    unsigned char aad[AAD_LEN], *out;
    apr_size_t len;
    int i, ours = 0;

    plain->data = NULL;
    plain->len = 0;
    if (all < HA_SEAL_OVERHEAD || all > INT_MAX) {
        *why = "sealed record is truncated";
        return APR_EINVAL;
    }
    if (b[0] != (unsigned char)kind) {
        *why = "sealed record is of another kind";
        return APR_EINVAL;
    }
    if (b[1] != FORMAT) {
        *why = b[1] > FORMAT ? "sealed record is of a future format" : "sealed record is of no known format";
        return APR_EINVAL;
    }

    len = all - HA_SEAL_OVERHEAD;
    out = apr_palloc(p, len + 1);
    associate(aad, b, digest, v);
    for (i = 0; i < 2; i++) {
        if (!keys[i]->sign || memcmp(b + 2, keys[i]->id, KEY_ID_LEN) != 0)
            continue;
        ours = 1;
        if (open_with(secret, keys[i], aad, b, len, out)) {
            plain->data = out;
            plain->len = len;
            return APR_SUCCESS;
        }
        OPENSSL_cleanse(out, len);      /* not authentic: nobody shall find it */
    }
    *why = ours ? "sealed record was changed, or is of another session or version" : "sealed record is sealed with another secret";
    return APR_EACCES;
}

apr_status_t ha_random_hex(apr_size_t len, apr_pool_t *p, const char **hex)
{
    unsigned char *bytes;
    char *text;

    *hex = NULL;
    if (len > INT_MAX / 2)
        return APR_EINVAL;
    bytes = apr_palloc(p, len + 1);
    text = apr_palloc(p, 2 * len + 1);
    if (RAND_bytes(bytes, (int)len) != 1)
        return APR_EGENERAL;
    write_hex(bytes, len, text);
    OPENSSL_cleanse(bytes, len);
    *hex = text;
    return APR_SUCCESS;
}
