/* session_field.c - the protocol's fields: RFC 9651 dictionaries.
 *
 * Parsing is in two steps, because of "a duplicate key's last value wins": walk the whole
 * dictionary and note where the last value of each key of ours is and what type it has; then read those.
 * The walk is as strict as the RFC with one exception: the bytes of a state are not looked at (it is on
 * the way of every captured response); who needs them calls ha_field_base64_check. */
#include "session_field.h"
#include "session_id.h"

#include <string.h>
#include <apr_strings.h>

enum { KEY_ID, KEY_WAS, KEY_AT, KEY_EPOCH, KEY_SEQ, KEY_TTL, KEY_SIZE, KEY_STATE, KEY_GONE, KEY_LEFT, KEY_RUNNING, KEYS };

static const struct key { const char *name; apr_size_t len; } keys[KEYS] = {
    { "id", 2 }, { "was", 3 }, { "at", 2 }, { "epoch", 5 }, { "seq", 3 }, { "ttl", 3 }, { "size", 4 }, { "state", 5 }, { "gone", 4 },
    { "left", 4 }, { "running", 7 }
};

typedef enum { NOT_THERE, INTEGER, STRING, BYTES, BOOLEAN, OTHER } item_type;

struct item {
    item_type   type;
    apr_int64_t number;         /* INTEGER; BOOLEAN: 0 or 1 */
    const char *text;           /* STRING: between the quotes, with its escapes; BYTES: between the colons */
    apr_size_t  len;
};

/* ---- bytes ---------------------------------------------------------------- */

#define LOWER  1
#define UPPER  2
#define DIGIT  4
#define TCHAR  8                /* the rest of RFC 9110's tchar */
#define KEYISH 16               /* in a key, besides letters and digits: _ - . * */
#define PLAIN  32               /* in a string, as it is */

static const unsigned char class_of[256] = {
    ['a' ... 'z'] = LOWER | PLAIN, ['A' ... 'Z'] = UPPER | PLAIN, ['0' ... '9'] = DIGIT | PLAIN,
    ['_'] = TCHAR | KEYISH | PLAIN, ['-'] = TCHAR | KEYISH | PLAIN, ['.'] = TCHAR | KEYISH | PLAIN, ['*'] = TCHAR | KEYISH | PLAIN,
    ['!'] = TCHAR | PLAIN, ['#' ... '\''] = TCHAR | PLAIN, ['+'] = TCHAR | PLAIN, ['^'] = TCHAR | PLAIN, ['`'] = TCHAR | PLAIN,
    ['|'] = TCHAR | PLAIN, ['~'] = TCHAR | PLAIN,
    [' '] = PLAIN, ['('] = PLAIN, [')'] = PLAIN, [','] = PLAIN, ['/'] = PLAIN, [':' ... '@'] = PLAIN, ['['] = PLAIN, [']'] = PLAIN,
    ['{'] = PLAIN, ['}'] = PLAIN
};

static int is(char c, int classes)
{
    return class_of[(unsigned char)c] & classes;
}

static const char *skip_spaces(const char *s)
{
    while (*s == ' ')
        s++;
    return s;
}

static const char *skip_ows(const char *s)
{
    while (*s == ' ' || *s == '\t')
        s++;
    return s;
}

static int hex(char c, int upper_too)
{
    if (is(c, DIGIT))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return upper_too && c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The byte that %xx spells; -1: none. RFC 9651 wants lower case in a display string; in a path both are usual. */
static int unpercent(const char *s, int upper_too)
{
    const int high = hex(s[1], upper_too), low = high < 0 ? -1 : hex(s[2], upper_too);

    return low < 0 ? -1 : high << 4 | low;
}

/* ---- items: each takes the first byte of one and gives what follows it, or NULL --- */

static const char *read_number(const char *s, struct item *out)
{
    const char *digits;
    apr_int64_t n = 0;
    int minus = *s == '-';

    s += minus;
    for (digits = s; is(*s, DIGIT); s++) {
        if (s - digits == 15)
            return NULL;
        n = n * 10 + (*s - '0');
    }
    if (s == digits)
        return NULL;
    out->type = INTEGER;
    out->number = minus ? -n : n;
    if (*s == '.') {
        const char *fraction = ++s;
        if (fraction - digits > 13)
            return NULL;
        while (is(*s, DIGIT))
            s++;
        if (s == fraction || s - fraction > 3)
            return NULL;
        out->type = OTHER;
    }
    return s;
}

static const char *read_string(const char *s, struct item *out)
{
    out->type = STRING;
    out->text = ++s;
    for (;;) {
        while (is(*s, PLAIN))
            s++;
        if (*s == '"')
            break;
        if (*s != '\\' || (s[1] != '"' && s[1] != '\\'))
            return NULL;
        s += 2;
    }
    out->len = (apr_size_t)(s - out->text);
    return s + 1;
}

static const char *read_bytes(const char *s, struct item *out)
{
    const char *end = strchr(++s, ':');

    if (!end)
        return NULL;
    out->type = BYTES;
    out->text = s;
    out->len = (apr_size_t)(end - s);
    return end + 1;
}

static const char *read_token(const char *s, struct item *out)
{
    out->type = OTHER;
    do
        s++;
    while (is(*s, LOWER | UPPER | DIGIT | TCHAR) || *s == ':' || *s == '/');
    return s;
}

static const char *read_boolean(const char *s, struct item *out)
{
    if (s[1] != '0' && s[1] != '1')
        return NULL;
    out->type = BOOLEAN;
    out->number = s[1] == '1';
    return s + 2;
}

static const char *read_date(const char *s, struct item *out)
{
    s = read_number(s + 1, out);
    if (!s || out->type != INTEGER)
        return NULL;
    out->type = OTHER;
    return s;
}

/* %"...": printable ASCII in which %xx spells UTF-8 */
static const char *read_display(const char *s, struct item *out)
{
    int more = 0;               /* bytes that must still follow of this character */
    unsigned int low = 0x80, high = 0xbf;   /* what the next of them may be */

    if (s[1] != '"')
        return NULL;
    out->type = OTHER;
    for (s += 2; *s != '"'; s++) {
        unsigned int c = (unsigned char)*s;
        if (c < 0x20 || c >= 0x7f)
            return NULL;
        if (c == '%') {
            const int spelled = unpercent(s, 0);
            if (spelled < 0)
                return NULL;
            c = (unsigned int)spelled;
            s += 2;
        }
        if (more) {
            if (c < low || c > high)
                return NULL;
            more--;
            low = 0x80;
            high = 0xbf;
        }
        else if (c >= 0x80) {   /* no overlong forms, no surrogates, nothing above U+10FFFF */
            if (c < 0xc2 || c > 0xf4)
                return NULL;
            more = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
            low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
            high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
        }
    }
    return more ? NULL : s + 1;
}

static const char *read_bare_item(const char *s, struct item *out)
{
    if (is(*s, DIGIT) || *s == '-')
        return read_number(s, out);
    if (is(*s, LOWER | UPPER) || *s == '*')
        return read_token(s, out);
    switch (*s) {
    case '"': return read_string(s, out);
    case ':': return read_bytes(s, out);
    case '?': return read_boolean(s, out);
    case '@': return read_date(s, out);
    case '%': return read_display(s, out);
    }
    return NULL;
}

/* Inside what we skip, byte sequences are looked at as the RFC says: alphabet, not length. */
static int skippable(const struct item *item)
{
    apr_size_t i;

    if (item->type == BYTES) {
        for (i = 0; i < item->len; i++)
            if (!is(item->text[i], LOWER | UPPER | DIGIT) && item->text[i] != '+' && item->text[i] != '/' && item->text[i] != '=')
                return 0;
    }
    return 1;
}

static const char *read_key(const char *s, apr_size_t *len)
{
    const char *start = s;

    if (!is(*s, LOWER) && *s != '*')
        return NULL;
    while (is(*s, LOWER | DIGIT | KEYISH))
        s++;
    *len = (apr_size_t)(s - start);
    return s;
}

static const char *skip_parameters(const char *s)
{
    struct item unused;
    apr_size_t len;

    while (s && *s == ';') {
        if (!(s = read_key(skip_spaces(s + 1), &len)))
            return NULL;
        if (*s == '=' && (!(s = read_bare_item(s + 1, &unused)) || !skippable(&unused)))
            return NULL;
    }
    return s;
}

static const char *skip_inner_list(const char *s, struct item *out)
{
    struct item unused;

    s = skip_spaces(s + 1);
    while (*s != ')') {
        if (!(s = read_bare_item(s, &unused)) || !skippable(&unused) || !(s = skip_parameters(s)))
            return NULL;
        if (*s != ' ' && *s != ')')
            return NULL;
        s = skip_spaces(s);
    }
    out->type = OTHER;
    return s + 1;
}

static int key_of(const char *s, apr_size_t len)
{
    int k = KEYS;

    switch (*s) {
    case 'i': k = KEY_ID; break;
    case 'w': k = KEY_WAS; break;
    case 'a': k = KEY_AT; break;
    case 'e': k = KEY_EPOCH; break;
    case 's': k = s[1] == 'e' ? KEY_SEQ : s[1] == 'i' ? KEY_SIZE : KEY_STATE; break;
    case 't': k = KEY_TTL; break;
    case 'g': k = KEY_GONE; break;
    case 'l': k = KEY_LEFT; break;
    case 'r': k = KEY_RUNNING; break;
    }
    return k < KEYS && len == keys[k].len && memcmp(s, keys[k].name, len) == 0 ? k : KEYS;
}

/* The last value of each key in items[]; what is of no key of ours lands in items[KEYS]. */
static apr_status_t read_dictionary(const char *s, struct item items[KEYS + 1])
{
    int k;

    for (k = 0; k <= KEYS; k++)
        items[k].type = NOT_THERE;
    s = skip_spaces(s);
    while (*s) {
        const char *name = s;
        apr_size_t len;
        struct item *item;

        if (!(s = read_key(s, &len)))
            return APR_EINVAL;
        item = &items[k = key_of(name, len)];
        if (*s != '=') {
            item->type = BOOLEAN;
            item->number = 1;
        }
        else if (s[1] == '(')
            s = skip_inner_list(s + 1, item);
        else if ((s = read_bare_item(s + 1, item)) && k != KEY_STATE && !skippable(item))
            return APR_EINVAL;
        if (!(s = skip_parameters(s)))
            return APR_EINVAL;
        s = skip_ows(s);
        if (!*s)
            break;
        if (*s != ',')
            return APR_EINVAL;
        s = skip_ows(s + 1);
        if (!*s)
            return APR_EINVAL;
    }
    return APR_SUCCESS;
}

/* ---- what the values mean -------------------------------------------------- */

/* A string's own bytes. */
static const char *unescape(const struct item *item, apr_pool_t *p)
{
    char *copy = apr_palloc(p, item->len + 1), *to = copy;
    apr_size_t i;

    for (i = 0; i < item->len; i++) {
        if (item->text[i] == '\\')
            i++;
        *to++ = item->text[i];
    }
    *to = '\0';
    return copy;
}

/* An id has no `"` and no `\`, so what has an escape is none: its text is what it means. */
static const char *id_of(const struct item *item, apr_pool_t *p)
{
    if (item->type != STRING || !ha_id_wellformed(item->text, item->len))
        return NULL;
    return apr_pstrmemdup(p, item->text, item->len);
}

/* Where we will send signed requests, to this member and, restoring, to others. So nothing that
 * a server could understand as another place: no segment `.` or `..`, not in %-disguise nor with a
 * path parameter (Tomcat drops `;x` before it resolves `..`). */
static int is_backup_path(const char *at)
{
    const apr_size_t len = strlen(at), tail = strlen(HA_WELL_KNOWN);
    const char *s;

    if (len > HA_AT_MAX || len < tail || strcmp(at + len - tail, HA_WELL_KNOWN) != 0)
        return 0;
    if (at[0] != '/' || at[1] == '/')
        return 0;
    for (s = at; *s; s++) {
        if ((unsigned char)*s <= 0x20 || (unsigned char)*s >= 0x7f || strchr("?#\\;", *s))
            return 0;
        if (*s == '%') {
            const int c = unpercent(s, 1);
            if (c < 0x20 || c == 0x7f || strchr("./\\;?#%", c))
                return 0;
        }
    }
    return !strstr(at, "/./") && !strstr(at, "/../");
}

/* RFC 9651 asks that base64 is taken without its padding, too; who gets the state may be stricter. 0: no base64
 * is so long. */
static int add_padding(ha_blob *state, apr_pool_t *p)
{
    const apr_size_t over = state->len % 4;

    if (over > 1) {
        state->data = apr_pstrcat(p, apr_pstrmemdup(p, state->data, state->len), over == 2 ? "==" : "=", NULL);
        state->len += 4 - over;
    }
    return over != 1;
}

/* -1 for what is not given. 0: not an integer, or not from low to high. */
static int number_of(const struct item *item, apr_int64_t low, apr_int64_t high, apr_int64_t *out)
{
    *out = -1;
    if (item->type == NOT_THERE)
        return 1;
    if (item->type != INTEGER || item->number < low || item->number > high)
        return 0;
    *out = item->number;
    return 1;
}

#define NUMBER_MAX APR_INT64_C(999999999999999)

/* fetched: the state came as a body, and the field has to say no more than how new it is. */
static apr_status_t parse_backup(const char *value, int fetched, apr_pool_t *p, ha_field_backup *out, const char **why)
{
    struct item items[KEYS + 1];
    apr_int64_t epoch, seq;
    const char *wrong = NULL;
    int kinds;

    memset(out, 0, sizeof(*out));
    out->ttl = out->size = out->running = -1;
    if (read_dictionary(value, items) != APR_SUCCESS)
        wrong = "not a dictionary after RFC 9651";
    else if (!(out->id = id_of(&items[KEY_ID], p)) && (!fetched || items[KEY_ID].type != NOT_THERE))
        wrong = "id missing or malformed";
    else if (items[KEY_WAS].type != NOT_THERE && !(out->was = id_of(&items[KEY_WAS], p)))
        wrong = "was malformed";
    else if (items[KEY_GONE].type != NOT_THERE && items[KEY_GONE].type != BOOLEAN)
        wrong = "gone is not a boolean";
    else if (items[KEY_STATE].type != NOT_THERE && items[KEY_STATE].type != BYTES)
        wrong = "state is not a byte sequence";
    else if (!number_of(&items[KEY_EPOCH], 1, NUMBER_MAX, &epoch))
        wrong = "epoch is not an integer of 1 or more";
    else if (!number_of(&items[KEY_SEQ], 0, NUMBER_MAX, &seq))
        wrong = "seq is not an integer of 0 or more";
    else if (!number_of(&items[KEY_TTL], -NUMBER_MAX, NUMBER_MAX, &out->ttl))
        wrong = "ttl is not an integer";
    else if (!number_of(&items[KEY_SIZE], 0, NUMBER_MAX, &out->size))
        wrong = "size is not an integer of 0 or more";
    else if (!number_of(&items[KEY_RUNNING], 0, NUMBER_MAX, &out->running))
        wrong = "running is not an integer of 0 or more";
    if (wrong)
        goto leave;

    if (out->ttl < 1)
        out->ttl = -1;          /* a member's way to say "without an end": as if it had said nothing */
    else if (out->ttl > HA_TTL_MAX)
        out->ttl = HA_TTL_MAX;
    out->gone = items[KEY_GONE].type == BOOLEAN && items[KEY_GONE].number;
    if (items[KEY_STATE].type == BYTES) {
        out->state.data = items[KEY_STATE].text;
        out->state.len = items[KEY_STATE].len;
    }
    kinds = out->gone + (out->size >= 0) + (out->state.data != NULL);
    if (kinds > 1 || (kinds == 0 && !fetched))
        wrong = kinds ? "more than one of gone, state and size" : "none of gone, state and size";
    else if (!out->gone && ((epoch < 0 && !fetched) || seq < 0))
        wrong = "epoch or seq missing";
    else if (out->state.data && !add_padding(&out->state, p))
        wrong = "state is not base64";
    else if (items[KEY_AT].type != NOT_THERE) {
        if (items[KEY_AT].type != STRING || items[KEY_AT].len > 2 * HA_AT_MAX
            || !is_backup_path(out->at = unescape(&items[KEY_AT], p)))
            wrong = "at is not a plain path that ends in " HA_WELL_KNOWN;
    }
    if (wrong)
        goto leave;
    out->version.epoch = epoch < 0 ? 0 : (apr_uint64_t)epoch;
    out->version.seq = seq < 0 ? 0 : (apr_uint64_t)seq;

leave:
    if (!wrong)
        return APR_SUCCESS;
    memset(out, 0, sizeof(*out));
    out->ttl = out->size = out->running = -1;
    *why = wrong;
    return APR_EINVAL;
}

apr_status_t ha_field_parse_backup(const char *value, apr_pool_t *p, ha_field_backup *out, const char **why)
{
    return parse_backup(value, 0, p, out, why);
}

apr_status_t ha_field_parse_fetched(const char *value, apr_pool_t *p, ha_field_backup *out, const char **why)
{
    return parse_backup(value, 1, p, out, why);
}

apr_status_t ha_field_parse_missing(const char *value, apr_pool_t *p, const char **id, int *left)
{
    struct item items[KEYS + 1];

    *id = NULL;
    *left = 0;
    if (read_dictionary(value, items) == APR_SUCCESS) {
        *id = id_of(&items[KEY_ID], p);
        *left = *id && items[KEY_LEFT].type == BOOLEAN && items[KEY_LEFT].number;
    }
    return *id ? APR_SUCCESS : APR_EINVAL;
}

/* ---- writing ----------------------------------------------------------------- */

const char *ha_field_accept(apr_pool_t *p, apr_size_t inline_max)
{
    return apr_psprintf(p, "v=1, inline=%" APR_SIZE_T_FMT, inline_max);
}

const char *ha_field_restore(apr_pool_t *p, const char *id, ha_version v, const char *state_b64, const char *mac_b64, int former)
{
    char epoch[24], seq[24];

    apr_snprintf(epoch, sizeof(epoch), "%" APR_UINT64_T_FMT, v.epoch);
    apr_snprintf(seq, sizeof(seq), "%" APR_UINT64_T_FMT, v.seq);
    /* pstrcat, not psprintf: a state of some KB is copied as memory is */
    return apr_pstrcat(p, "id=\"", id, "\", epoch=", epoch, ", seq=", seq,
                       state_b64 ? ", state=:" : "", state_b64 ? state_b64 : "", state_b64 ? ":" : "",
                       ", mac=:", mac_b64, former ? ":, former" : ":", NULL);
}

const char *ha_field_restore_none(apr_pool_t *p, const char *id)
{
    return apr_pstrcat(p, "id=\"", id, "\", none", NULL);
}

const char *ha_field_fetch(apr_pool_t *p, const char *id, apr_int64_t time_s, const char *mac_b64, int leave)
{
    return apr_psprintf(p, "id=\"%s\", time=%" APR_INT64_T_FMT ", mac=:%s:%s", id, time_s, mac_b64, leave ? ", leave" : "");
}
