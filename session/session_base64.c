/* session_base64.c - the bytes between a field's colons (session_field.h). libcrypto decodes and encodes; what it
 * leaves open (which bytes are allowed, how many there must be) is decided here first. */
#include "session_field.h"

#include <limits.h>
#include <openssl/evp.h>

/* Without a branch, and called with constant lengths, so that the compiler makes vector instructions of it:
 * about one instruction a byte. 0: all are of the alphabet. */
static inline unsigned char outside_base64(const unsigned char *s, apr_size_t len)
{
    unsigned char bad = 0;
    apr_size_t i;

    for (i = 0; i < len; i++) {
        const unsigned char letter = (unsigned char)((s[i] | 0x20) - 'a'), digit = (unsigned char)(s[i] - '/'); /* `/` is before `0` */
        const unsigned char no_letter = (unsigned char)((letter > 25 ? letter : 25) - 25);
        const unsigned char no_digit = (unsigned char)((digit > 10 ? digit : 10) - 10);
        const unsigned char no_plus = s[i] ^ '+';
        const unsigned char neither = no_letter < no_digit ? no_letter : no_digit;
        bad |= neither < no_plus ? neither : no_plus;
    }
    return bad;
}

static apr_size_t padding(const ha_blob *text)
{
    const char *end = (const char *)text->data + text->len;

    return text->len == 0 ? 0 : end[-1] != '=' ? 0 : end[-2] != '=' ? 1 : 2;
}

apr_status_t ha_field_base64_check(const ha_blob *text, apr_size_t *decoded)
{
    const unsigned char *s = text->data;
    apr_size_t left;
    unsigned char bad = 0;

    *decoded = 0;
    if (text->len % 4 != 0 || text->len > INT_MAX)
        return APR_EINVAL;
    left = text->len - padding(text);
    for (; left >= 512; s += 512, left -= 512)
        bad |= outside_base64(s, 512);
    for (; left >= 16; s += 16, left -= 16)
        bad |= outside_base64(s, 16);
    if (bad | outside_base64(s, left))
        return APR_EINVAL;
    *decoded = text->len / 4 * 3 - padding(text);
    return APR_SUCCESS;
}

apr_status_t ha_field_base64_decode(const ha_blob *text, apr_pool_t *p, ha_blob *out)
{
    const ha_blob in = *text;           /* text and out may be the same */
    unsigned char *bytes;
    apr_size_t len;
    apr_status_t rv = ha_field_base64_check(&in, &len);

    out->data = NULL;
    out->len = 0;
    if (rv != APR_SUCCESS)
        return rv;
    bytes = apr_palloc(p, in.len / 4 * 3 + 1);      /* it writes the padding's bytes too */
    if (in.len && EVP_DecodeBlock(bytes, in.data, (int)in.len) < 0)
        return APR_EINVAL;
    out->data = bytes;
    out->len = len;
    return APR_SUCCESS;
}

const char *ha_field_base64_encode(const ha_blob *bytes, apr_pool_t *p)
{
    char *text = apr_palloc(p, (bytes->len + 2) / 3 * 4 + 1);

    text[0] = '\0';
    if (bytes->len)
        EVP_EncodeBlock((unsigned char *)text, bytes->data, (int)bytes->len);
    return text;
}
