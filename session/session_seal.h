/* session_seal.h - what the secret is for: keys of sessions, sealed records, signatures.
 * OpenSSL's libcrypto; APR only otherwise. */
#ifndef HA_SESSION_SEAL_H
#define HA_SESSION_SEAL_H

#include "../mod_session_ha.h"

#define HA_DIGEST_LEN 32
#define HA_DIGEST_HEX (2 * HA_DIGEST_LEN)

/* Which session, everywhere but in the client's and the member's hands. */
typedef struct ha_digest {
    unsigned char bytes[HA_DIGEST_LEN];     /* SHA-256(balancer name, NUL, id) */
} ha_digest;

void ha_digest_make(const char *balancer, const char *id, ha_digest *out);
void ha_digest_hex(const ha_digest *, char out[HA_DIGEST_HEX + 1]);
/* first 12 hex digits, for logs, the journal, the page */
void ha_digest_short(const ha_digest *, char out[13]);

typedef struct ha_secret ha_secret;         /* one secret and the keys derived from it */

/* content: the secret file's bytes; white space around is not part of it. At least 16 bytes
 * must be left. previous (may be NULL) is still accepted for opening and verifying, never used to seal.
 * NULL, or a text that says what is allowed. Lives in p; keys are wiped when p is destroyed. */
const char *ha_secret_make(ha_secret **out, const ha_blob *content, const ha_blob *previous, apr_pool_t *p);

/* AEAD (AES-256-GCM). kind, digest and version are bound in as associated data.
 * sealed = kind(1) format(1) key-id(2) nonce(12) ciphertext tag(16). */
#define HA_SEAL_OVERHEAD 32
apr_status_t ha_seal(const ha_secret *, char kind, const ha_digest *, ha_version, const ha_blob *plain,
                     apr_pool_t *p, ha_blob *sealed);
/* APR_EINVAL: truncated, of another kind or format. APR_EACCES: another key, another session,
 * another version, or changed bytes. why: static text. */
apr_status_t ha_open(const ha_secret *, char kind, const ha_digest *, ha_version, const ha_blob *sealed,
                     apr_pool_t *p, ha_blob *plain, const char **why);

/* HMAC-SHA-256 over parts joined by LF, base64 text in p; NULL if libcrypto fails. */
const char *ha_mac_restore(const ha_secret *, const char *id, ha_version, const ha_blob *state, apr_pool_t *p);
const char *ha_mac_fetch(const ha_secret *, const char *id, apr_int64_t time_s, apr_pool_t *p);

/* len random bytes as lower-case hex (for a new secret file). */
apr_status_t ha_random_hex(apr_size_t len, apr_pool_t *p, const char **hex);

#endif
