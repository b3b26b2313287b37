/* fuzz_field.c - the protocol's fields from a hostile member: parse, and what was parsed must be what session_field.h
 * promises; base64 there and back. The input is the field's value. */
#include "fuzz.h"
#include "session/session_field.h"
#include "session/session_id.h"

static void check_path(const char *at)
{
    const size_t len = strlen(at), tail = strlen(HA_WELL_KNOWN);
    size_t i;

    HOLDS(len <= HA_AT_MAX && len >= tail && strcmp(at + len - tail, HA_WELL_KNOWN) == 0);
    HOLDS(at[0] == '/' && at[1] != '/');
    HOLDS(!strstr(at, "/../") && !strstr(at, "/./") && !strstr(at, "%2e") && !strstr(at, "%2E") && !strstr(at, "%00"));
    for (i = 0; i < len; i++)
        HOLDS(at[i] > 0x20 && at[i] < 0x7f && !strchr("?#\\;", at[i]));
}

static void check_base64(const ha_blob *text, apr_pool_t *p)
{
    ha_blob bytes, again;
    apr_size_t len;
    const char *encoded;

    if (ha_field_base64_check(text, &len) != APR_SUCCESS) {
        HOLDS(ha_field_base64_decode(text, p, &bytes) != APR_SUCCESS);
        return;
    }
    HOLDS(ha_field_base64_decode(text, p, &bytes) == APR_SUCCESS && bytes.len == len);
    encoded = ha_field_base64_encode(&bytes, p);
    HOLDS(strlen(encoded) == text->len);
    /* equal but for the bits that padding leaves over */
    again.data = encoded;
    again.len = text->len;
    HOLDS(text->len < 4 || memcmp(encoded, text->data, text->len - 4) == 0);
    HOLDS(ha_field_base64_decode(&again, p, &again) == APR_SUCCESS && again.len == len && (!len || memcmp(again.data, bytes.data, len) == 0));
}

/* What is written must be read as it was meant. */
static void check_written(const ha_field_backup *b, apr_pool_t *p)
{
    ha_field_backup again;
    const char *why, *id;
    int left;

    HOLDS(ha_field_parse_missing(ha_field_restore_none(p, b->id), p, &id, &left) == APR_SUCCESS && strcmp(id, b->id) == 0);
    HOLDS(ha_field_parse_missing(ha_field_fetch(p, b->id, 1700000000, "bWFj", 1), p, &id, &left) == APR_SUCCESS && strcmp(id, b->id) == 0);
    if (b->version.epoch) {
        HOLDS(ha_field_parse_backup(ha_field_restore(p, b->id, b->version, "AAAA", "bWFj", 1), p, &again, &why) == APR_SUCCESS);
        HOLDS(strcmp(again.id, b->id) == 0 && again.version.epoch == b->version.epoch && again.version.seq == b->version.seq && again.state.len == 4);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *value = fuzz_copy(data, size, 1), *exact = fuzz_copy(data, size, 0);
    apr_pool_t *p = fuzz_pool();
    ha_field_backup b;
    ha_blob text = { exact, size };
    const char *why = NULL, *id;
    int left;
    apr_status_t rv = ha_field_parse_backup(value, p, &b, &why);

    if (rv == APR_SUCCESS) {
        HOLDS(b.id && ha_id_wellformed(b.id, strlen(b.id)));
        HOLDS(!b.was || ha_id_wellformed(b.was, strlen(b.was)));
        HOLDS(!!b.gone + (b.size >= 0) + (b.state.data != NULL) == 1);
        HOLDS(b.gone || b.version.epoch >= 1);
        HOLDS(b.version.epoch <= 999999999999999 && b.version.seq <= 999999999999999 && b.size <= 999999999999999);
        HOLDS(b.running >= -1 && b.running <= 999999999999999);
        HOLDS(b.ttl == -1 || (b.ttl >= 1 && b.ttl <= HA_TTL_MAX));
        if (b.at)
            check_path(b.at);
        if (b.state.data) {
            const char *state = b.state.data;
            if (state > value && state < value + strlen(value))
                HOLDS(state + b.state.len < value + strlen(value) && state[-1] == ':' && state[b.state.len] == ':');
            else
                HOLDS(state[b.state.len - 1] == '=' && state[b.state.len] == '\0');
            HOLDS(b.state.len % 4 == 0);
            check_base64(&b.state, p);
        }
        check_written(&b, p);
        HOLDS(ha_field_parse_missing(value, p, &id, &left) == APR_SUCCESS && strcmp(id, b.id) == 0);
    }
    else {
        HOLDS(rv == APR_EINVAL && why && !b.id && !b.state.data && !b.at && !b.was);
        if (ha_field_parse_missing(value, p, &id, &left) == APR_SUCCESS)
            HOLDS(ha_id_wellformed(id, strlen(id)));
        else
            HOLDS(!id);
    }
    check_base64(&text, p);
    free(value);
    free(exact);
    return 0;
}
