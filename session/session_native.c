/* session_native.c - see session_native.h. */
#include "session_native.h"

#include <string.h>

#include <apr_cstr.h>
#include <apr_lib.h>
#include <apr_strings.h>

#define KEY_MAX      250        /* memcached's; APR's client takes the server for dead when it is longer */
#define TEMPLATE_MAX 1000

struct ha_native {
    const char *said;           /* the preset's name; NULL: a template */
    const char *schemes;        /* of the stores that the preset's application can use */
    const char *templates[HA_NAMES_MAX];
    apr_size_t  least;          /* bytes of the smallest session */
};

/* memcached-session-manager: bak: is the second copy of non-sticky sessions; one byte is its ping of a session that is gone.
 * Django: the cache's key prefix is empty and its version 1, if not set; sessions of the cache, and of cached_db.
 * Tomcat: without jvmRoute the id is stored bare, whatever stands behind it in the cookie. A row's last_access is that of
 * the request before the last one, so the session may live for twice its time after it. */
static const ha_native presets[] = {
    { "none", "", { NULL }, 0 },
    { "msm", "memcached, libmemcached", { "%{issued}", "bak:%{issued}" }, 2 },
    { "php-memcached", "memcached, libmemcached", { "memc.sess.key.%{id}" }, 0 },
    { "connect-memcached", "memcached, libmemcached", { "%{sid}" }, 1 },
    { "django", "memcached, libmemcached, redis",
      { ":1:django.contrib.sessions.cache%{id}", ":1:django.contrib.sessions.cached_db%{id}" }, 1 },
    { "tomcat-file", "file", { "%{issued}.session", "%{id}.session" }, 1 },
    { "tomcat-jdbc", "dbd",
      { "SELECT 1 FROM tomcat_sessions WHERE session_id IN (%{issued}, %{id}) AND valid_session = '1'"
        " AND (max_inactive <= 0 OR last_access + 2000.0 * max_inactive > %{now})" }, 0 },
};
#define PRESETS (sizeof(presets) / sizeof(presets[0]))

/* ---- what was written ------------------------------------------------------------------- */

typedef enum { NO_WORD, ID, ISSUED, SID, NOW } word;

/* The word at text, which begins with "%{"; *end is behind it. */
static word word_at(const char *text, const char **end)
{
    static const char *const words[] = { "id", "issued", "sid", "now" };
    apr_size_t len = strcspn(text + 2, "}"), i;

    *end = text + 2 + len + 1;
    for (i = 0; text[2 + len] == '}' && i < 4; i++) {
        if (strlen(words[i]) == len && strncmp(words[i], text + 2, len) == 0)
            return (word)(ID + i);
    }
    return NO_WORD;
}

const char *ha_native_parse(const ha_native **out, const char *text, apr_pool_t *p)
{
    ha_native *n = apr_pcalloc(p, sizeof(*n));
    const char *names = NULL, *at, *end, *c;
    int ids = 0;
    apr_size_t i;

    for (i = 0; i < PRESETS; i++) {
        if (apr_cstr_casecmp(presets[i].said, text) == 0) {
            *n = presets[i];
            *out = n;
            return NULL;
        }
        names = names ? apr_pstrcat(p, names, ", ", presets[i].said, NULL) : presets[i].said;
    }
    for (c = text; *c; c++) {
        if (!apr_isprint(*c))
            goto refuse;
    }
    for (at = strstr(text, "%{"); at; at = strstr(end, "%{")) {
        word w = word_at(at, &end);
        if (w == NO_WORD)
            goto refuse;
        ids += w != NOW;
    }
    if (ids < 1 || ids > HA_NAME_ARGS_MAX || strlen(text) > TEMPLATE_MAX)
        goto refuse;
    n->templates[0] = apr_pstrdup(p, text);
    *out = n;
    return NULL;

refuse:
    return apr_psprintf(p, "'%s' is not known; allowed: %s, or a template with %%{id}, %%{issued} or %%{sid} in it (a key, a file "
                        "or a SELECT, as the store is; there %%{now} too)", text, names);
}

int ha_native_is_somewhere(const ha_native *n)
{
    return n->templates[0] != NULL;
}

/* ---- does it fit the store? -------------------------------------------------------------- */

static int in_list(const char *list, const char *scheme)
{
    apr_size_t len = strlen(scheme);

    for (; *list; list += strcspn(list, ","), list += strspn(list, ", ")) {
        if (strncmp(list, scheme, len) == 0 && (list[len] == ',' || list[len] == '\0'))
            return 1;
    }
    return 0;
}

static int has_now(const char *text)
{
    return strstr(text, "%{now}") != NULL;
}

static const char *wrong_file(const char *text)
{
    const char *slash = strrchr(text, '/'), *first = strstr(text, "%{");

    return strstr(text, "..") || has_now(text) || (slash && first < slash)
        ? "a file's name has no .. and no %{now}, and its words stand behind the last /" : NULL;
}

static const char *wrong_select(const char *text)
{
    const char *c, *end;
    int quoted = 0;

    if (apr_cstr_casecmpn(text, "SELECT ", 7) != 0 || strchr(text, ';'))
        return "with dbd: it is a SELECT, without a semicolon";
    for (c = text; *c; c = end) {
        end = c + 1;
        quoted ^= *c == '\'';
        if (c[0] == '%' && c[1] == '{' && word_at(c, &end) != NO_WORD && quoted)
            return "in a SELECT the words stand without quotes: they become arguments of it";
    }
    return NULL;
}

const char *ha_native_fits(const ha_native *n, const ha_store *store, apr_pool_t *p)
{
    const char *text = n->templates[0], *wrong = NULL;

    if (n->said) {
        return !text || in_list(n->schemes, ha_store_scheme(store)) ? NULL
             : apr_psprintf(p, "'%s' is not kept in a store like %s:; allowed: SessionHAStore with nodes of %s", n->said,
                            ha_store_scheme(store), n->schemes);
    }
    switch (ha_store_names(store)) {
    case HA_NAME_NONE:
        wrong = apr_psprintf(p, "no application keeps its sessions in %s:; allowed: another SessionHAStore", ha_store_scheme(store));
        break;
    case HA_NAME_KEY:
        if (strchr(text, ' ') || has_now(text) || strlen(text) > KEY_MAX / 2)
            wrong = apr_psprintf(p, "a key has no space, no %%{now} and at most %d bytes before the id is put in", KEY_MAX / 2);
        break;
    case HA_NAME_FILE:
        wrong = wrong_file(text);
        break;
    case HA_NAME_SELECT:
        wrong = wrong_select(text);
        break;
    }
    return wrong ? apr_psprintf(p, "'%s': %s", text, wrong) : NULL;
}

/* ---- names of one session ------------------------------------------------------------------ */

/* No protocol, path or pattern can be made of these. */
static int is_harmless(const char *id)
{
    const char *c;

    for (c = id; *c; c++) {
        if (!((*c >= '0' && *c <= '9') || (*c >= 'A' && *c <= 'Z') || (*c >= 'a' && *c <= 'z') || *c == '-' || *c == '_'
              || (*c == '.' && c > id && c[-1] != '.')))
            return 0;
    }
    return c > id;
}

/* express-session's cookie is "s:", what the store calls the session, a dot and a signature. */
static const char *unsigned_id(const char *id, apr_pool_t *p)
{
    const char *dot;

    if (strncmp(id, "s:", 2) != 0)
        return id;
    dot = strrchr(id, '.');
    return dot ? apr_pstrmemdup(p, id + 2, (apr_size_t)(dot - id - 2)) : id + 2;
}

static const char *doubled(const char *text, apr_size_t len, apr_pool_t *p)
{
    char *out = apr_palloc(p, 2 * len + 1), *o = out;

    for (; len > 0; len--) {
        if (*text == '%')
            *o++ = '%';
        *o++ = *text++;
    }
    *o = '\0';
    return out;
}

static const char *fill_in(const char *text, ha_name_kind kind, const char *const value[], apr_pool_t *p, ha_name *name)
{
    const char *at, *end;

    name->text = "";
    for (; (at = strstr(text, "%{")) != NULL; text = end) {
        word w = word_at(at, &end);
        const char *before = kind == HA_NAME_SELECT ? doubled(text, (apr_size_t)(at - text), p)
                                                    : apr_pstrmemdup(p, text, (apr_size_t)(at - text)), *it = value[w];
        if (w != NOW && !is_harmless(it))
            return "the id has other characters than A-Z a-z 0-9 - _ . and is not asked for";
        if (w != NOW && kind == HA_NAME_SELECT) {
            name->args[name->nargs++] = it;
            it = "%s";
        }
        name->text = apr_pstrcat(p, name->text, before, it, NULL);
    }
    name->text = apr_pstrcat(p, name->text, kind == HA_NAME_SELECT ? doubled(text, strlen(text), p) : text, NULL);
    return kind == HA_NAME_KEY && strlen(name->text) > KEY_MAX ? "the id is too long for a key" : NULL;
}

int ha_native_names(const ha_native *n, ha_name_kind kind, const char *id, const char *issued, apr_time_t now, apr_pool_t *p,
                    ha_name names[HA_NAMES_MAX], const char **why)
{
    const char *const value[] = { NULL, id, issued, unsigned_id(id, p), apr_psprintf(p, "%" APR_TIME_T_FMT, now / 1000) };
    int i, count = 0;

    memset(names, 0, HA_NAMES_MAX * sizeof(*names));
    for (i = 0; i < HA_NAMES_MAX && n->templates[i]; i++) {
        names[count].least = n->least;
        if ((*why = fill_in(n->templates[i], kind, value, p, &names[count])) != NULL)
            return 0;
        count += count == 0 || strcmp(names[count].text, names[0].text) != 0;
    }
    return count;
}

/* ---- one look -------------------------------------------------------------------------------- */

struct ha_native_look {
    ha_call call;
    ha_ask *ask;
    apr_status_t rv;            /* of the first half */
};

ha_native_look *ha_native_begin(const ha_native *n, ha_store *store, const char *id, const char *issued, apr_time_t deadline,
                                apr_pool_t *p)
{
    ha_native_look *look = apr_pcalloc(p, sizeof(*look));
    ha_name names[HA_NAMES_MAX];
    int count;

    look->call.pool = p;
    look->call.deadline = deadline;
    look->rv = APR_EGENERAL;
    /* sections can be merged so that the one has the store and the other says what is kept there */
    if ((look->call.why = ha_native_fits(n, store, p)) == NULL
        && (count = ha_native_names(n, ha_store_names(store), id, issued, apr_time_now(), p, names, &look->call.why)) > 0)
        look->rv = ha_store_has_begin(&look->ask, store, &look->call, names, count);
    return look;
}

apr_status_t ha_native_end(ha_native_look *look, const char **why)
{
    apr_status_t rv = look->rv == APR_SUCCESS ? ha_store_has_end(look->ask) : look->rv;

    if (rv != APR_SUCCESS && !APR_STATUS_IS_NOTFOUND(rv))
        *why = look->call.why;
    return rv;
}
