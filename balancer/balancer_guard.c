/* balancer_guard.c - what must never pass: fields of our protocol from a client, and the path at
 * which members hand out sessions. */
#include "httpd.h"
#include "apr_strings.h"
#include "http_protocol.h"

#include "balancer_request.h"

#define OURS "Session-"

static inline int is_ours(const char *key)
{
    return (key[0] == 'S' || key[0] == 's') && strncasecmp(key, OURS, sizeof OURS - 1) == 0;
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

static void remove_ours(apr_table_t *fields)
{
    unsigned i;
    for (i = 0; i < sizeof the_fields / sizeof *the_fields; i++)
        apr_table_unset(fields, the_fields[i]);
}

/* Out of a member's answer; backup, missing: what those fields said, or NULL. */
void ha_guard_answer(apr_table_t *fields, const char **backup, const char **missing)
{
    const apr_array_header_t *all = apr_table_elts(fields);
    const apr_table_entry_t *e = (const apr_table_entry_t *)all->elts, *end = e + all->nelts;
    int others = 0;

    *backup = *missing = NULL;
    for (; e < end; e++) {
        if (!is_ours(e->key))
            continue;
        if (*backup == NULL && strcasecmp(e->key, HA_FIELD_BACKUP) == 0)
            *backup = e->val;
        else if (*missing == NULL && strcasecmp(e->key, HA_FIELD_MISSING) == 0)
            *missing = e->val;
        else
            others = 1;
    }
    if (others)
        remove_ours(fields);
    if (*backup)
        apr_table_unset(fields, HA_FIELD_BACKUP);
    if (*missing)
        apr_table_unset(fields, HA_FIELD_MISSING);
}

/* For every proxied request where SessionHA is off: the member's adapter believes what comes from this httpd. */
void ha_guard_client(const request_rec *r)
{
    const apr_array_header_t *all = apr_table_elts(r->headers_in);
    const apr_table_entry_t *e = (const apr_table_entry_t *)all->elts, *end = e + all->nelts;

    /* one look at each name: a table's own search would go through it five times */
    for (; e < end; e++) {
        if (is_ours(e->key)) {
            remove_ours(r->headers_in);
            return;
        }
    }
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
        switch (e->key[0]) {
        case 'S': case 's':
            ours |= is_ours(e->key);
            break;
        case 'C': case 'c':
            if (*cookie == NULL && strcasecmp(e->key, "Cookie") == 0)
                *cookie = e->val;
            else if (strcasecmp(e->key, "Content-Length") == 0)
                *body |= strcmp(e->val, "0") != 0;
            else if (strcasecmp(e->key, "Connection") == 0 && ap_strcasestr(e->val, OURS))
                named = e->val;
            break;
        case 'T': case 't':
            *body |= strcasecmp(e->key, "Transfer-Encoding") == 0;
            break;
        }
    }
    if (ours)
        remove_ours(r->headers_in);
    if (named)
        remove_named(r->headers_in, named);
}

int ha_guard_is_ours(const char *name, apr_size_t len)
{
    unsigned i;
    for (i = 0; i < sizeof the_fields / sizeof *the_fields; i++) {
        if (len == strlen(the_fields[i]) && ap_cstr_casecmpn(name, the_fields[i], len) == 0)
            return 1;
    }
    return 0;
}

/* Servlet containers read /a;x=1/b as /a/b, and take "." and ".." away only after that, so path parameters are left
 * out of the comparison, which runs from the end. Nearly every path has none and differs in its last byte. */
int ha_guard_well_known(const char *path)
{
    static const char name[] = HA_WELL_KNOWN;
    const char *want = name + sizeof name - 1;
    const char *end = path + strlen(path);
    int up = 0;                                     /* segments that a ".." takes away */

    if (end > path && end[-1] != want[-1] && end[-1] != '/' && strchr(path, ';') == NULL)
        return 0;
    /* every segment in turn, from the last: cut its parameters, compare what is left */
    while (want > name) {
        const char *start = end, *stop;
        while (start > path && start[-1] != '/')
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
        while (stop > start && want > name && want[-1] == stop[-1]) {
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
