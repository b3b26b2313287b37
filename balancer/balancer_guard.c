/* balancer_guard.c - what must never pass: fields of our protocol from a client, and the path at
 * which members hand out sessions. */
#include "httpd.h"
#include "apr_lib.h"
#include "apr_strings.h"
#include "http_protocol.h"

#include "balancer_request.h"

#define OURS "Session-"

/* Members that show fields as variables (CGI, PHP, WSGI) cannot tell Session_Restore from Session-Restore. */
static inline int is_ours(const char *key)
{
    return ha_guard_may_be_ours(key) && strncasecmp(key, OURS, sizeof OURS - 2) == 0
           && (key[sizeof OURS - 2] == '-' || key[sizeof OURS - 2] == '_');
}

/* mod_proxy keeps from the member what a client names in Connection: a client could have its session not
 * restored, and be served the stale one. */
static void remove_named(apr_table_t *fields, const char *named)
{
    apr_pool_t *p = apr_table_elts(fields)->pool;
    const char *kept = NULL, *item;

    while ((item = ap_get_list_item(p, &named)) != NULL) {
        if (ap_cstr_casecmpn(item, OURS, sizeof OURS - 1) != 0)
            kept = kept ? apr_pstrcat(p, kept, ", ", item, NULL) : item;
    }
    if (kept)
        apr_table_setn(fields, "Connection", kept);
    else
        apr_table_unset(fields, "Connection");
}

static const char *const the_fields[] = { HA_FIELD_ACCEPT, HA_FIELD_BACKUP, HA_FIELD_FETCH, HA_FIELD_RESTORE, HA_FIELD_MISSING };

/* `_` counts as `-`. */
static int same_name(const char *name, apr_size_t len, const char *ours)
{
    apr_size_t i;
    for (i = 0; i < len && ours[i]; i++) {
        if (ours[i] == '-' ? name[i] != '-' && name[i] != '_' : apr_tolower(name[i]) != apr_tolower(ours[i]))
            return 0;
    }
    return i == len && !ours[i];
}

int ha_guard_is_ours(const char *name, apr_size_t len)
{
    unsigned i;
    for (i = 0; i < sizeof the_fields / sizeof *the_fields; i++) {
        if (same_name(name, len, the_fields[i]))
            return 1;
    }
    return 0;
}

HA_APART void ha_guard_remove(apr_table_t *fields)
{
    const apr_array_header_t *all = apr_table_elts(fields);
    int i = 0;

    while (i < all->nelts) {
        const char *key = APR_ARRAY_IDX(all, i, apr_table_entry_t).key;
        if (is_ours(key) && ha_guard_is_ours(key, strlen(key)))
            apr_table_unset(fields, key);       /* all of this name: none of them is before i */
        else
            i++;
    }
}

/* A field in several lines is one, joined by commas (RFC 9110 5.3). */
static const char *joined(const char *so_far, const char *more, apr_pool_t *p)
{
    return so_far ? apr_pstrcat(p, so_far, ", ", more, NULL) : more;
}

static HA_APART void take_ours(apr_table_t *fields, const char **backup, const char **missing)
{
    const apr_array_header_t *all = apr_table_elts(fields);
    const apr_table_entry_t *e = (const apr_table_entry_t *)all->elts, *end = e + all->nelts;
    int others = 0;

    for (; e < end; e++) {
        if (!is_ours(e->key))
            continue;
        if (strcasecmp(e->key, HA_FIELD_BACKUP) == 0)
            *backup = joined(*backup, e->val, all->pool);
        else if (strcasecmp(e->key, HA_FIELD_MISSING) == 0)
            *missing = joined(*missing, e->val, all->pool);
        else
            others = 1;
    }
    if (others)
        ha_guard_remove(fields);
    if (*backup)
        apr_table_unset(fields, HA_FIELD_BACKUP);
    if (*missing)
        apr_table_unset(fields, HA_FIELD_MISSING);
}

/* Out of a member's answer; backup, missing: what those fields said, or NULL. */
void ha_guard_answer(apr_table_t *fields, const char **backup, const char **missing)
{
    *backup = *missing = NULL;
    if (ha_guard_any(fields))
        take_ours(fields, backup, missing);
}

/* HTTP/2 passes a member's trailers on, and they are in this table when the end of its answer passes. */
void ha_guard_trailers(const request_rec *r)
{
    const char *backup, *missing;
    if (!apr_is_empty_table(r->trailers_out))
        ha_guard_answer(r->trailers_out, &backup, &missing);
}

#define MARK(c) (1u << ((c) & 31))      /* A and a have the same */

/* Of a name that begins with "co"; each request has one, so it is read here. */
static inline int is_cookie(const char *key)
{
    return (key[2] | 0x20) == 'o' && (key[3] | 0x20) == 'k' && (key[4] | 0x20) == 'i' && (key[5] | 0x20) == 'e' && !key[6];
}

/* The same look, and with it what else we ask of the fields of each request. */
void ha_guard_look(const request_rec *r, const char **cookie, int *body)
{
    const apr_array_header_t *all = apr_table_elts(r->headers_in);
    const apr_table_entry_t *e = (const apr_table_entry_t *)all->elts, *end = e + all->nelts;
    const char *named = NULL;
    int ours = 0;

    *cookie = NULL;
    *body = 0;
    for (; e < end; e++) {
        const char *key = e->key;
        if (!((MARK('s') | MARK('c') | MARK('t')) & MARK(key[0])))
            continue;
        switch (key[0] | 0x20) {
        case 's':
            ours |= is_ours(key);
            break;
        case 'c':
            if ((key[1] | 0x20) != 'o')
                break;          /* Cache-Control */
            if (is_cookie(key)) {
                if (*cookie == NULL)
                    *cookie = e->val;
            }
            else if (strcasecmp(key, "Content-Length") == 0)
                *body |= strcmp(e->val, "0") != 0;
            else if (strcasecmp(key, "Connection") == 0 && ap_strcasestr(e->val, OURS))
                named = e->val;
            break;
        case 't':
            *body |= strcasecmp(key, "Transfer-Encoding") == 0;
            break;
        }
    }
    if (ours)
        ha_guard_remove(r->headers_in);
    if (named)
        remove_named(r->headers_in, named);
}

static int is_slash(char c)
{
    return c == '/' || c == '\\';
}

/* Servlet containers read /a;x=1/b as /a/b, and take "." and ".." away only after that, so path parameters are left
 * out of the comparison, which runs from the end. Others know no upper case, or take a backslash for a slash. */
static HA_APART int ends_well_known(const char *path)
{
    static const char name[] = HA_WELL_KNOWN;
    const char *want = name + sizeof name - 1;
    const char *end = path + strlen(path);
    int up = 0;                                     /* segments that a ".." takes away */

    /* every segment in turn, from the last: cut its parameters, compare what is left */
    while (want > name) {
        const char *start = end, *stop;
        while (start > path && !is_slash(start[-1]))
            start--;
        stop = memchr(start, ';', (apr_size_t)(end - start));
        if (stop == NULL)
            stop = end;
        if (start > path) {
            int dots = (int)strspn(start, "."), len = (int)(stop - start);
            int passed = len == 0 || (len == 1 && dots == 1);   /* "//", "/;x/", "/./": counts for nothing */
            if (len == 2 && dots >= 2) {
                up++;
                passed = 1;
            }
            else if (!passed && up > 0) {
                up--;
                passed = 1;
            }
            if (passed) {
                end = start - 1;
                continue;
            }
        }
        while (stop > start && want > name && want[-1] == apr_tolower(stop[-1])) {
            want--;
            stop--;
        }
        if (stop != start || want == name || want[-1] != '/' || start == path)
            return 0;
        want--;                                     /* the slash before the segment */
        end = start - 1;
    }
    return 1;
}

/* Asked for each request: a path without the first two bytes of ".well-known" cannot be one. */
int ha_guard_well_known(const char *path)
{
    const char *dot;
    for (dot = strchr(path, '.'); dot; dot = strchr(dot + 1, '.')) {
        if ((dot[1] | 0x20) == HA_WELL_KNOWN[2])
            return ends_well_known(path);
    }
    return 0;
}
