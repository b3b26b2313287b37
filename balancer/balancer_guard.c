/* balancer_guard.c - what must never pass: fields of our protocol from a client, and the path at
 * which members hand out sessions. */
#include "httpd.h"
#include "http_protocol.h"

#include "balancer_request.h"

/* Of every proxied request, also where SessionHA is off: the member's adapter believes what comes from this
 * httpd. And of every answer. One look at each name: a table's own search would go through it five times. */
int ha_guard_has_ours(const apr_table_t *fields)
{
    const apr_array_header_t *all = apr_table_elts(fields);
    const apr_table_entry_t *e = (const apr_table_entry_t *)all->elts, *end = e + all->nelts;

    for (; e < end; e++) {
        if ((e->key[0] == 'S' || e->key[0] == 's') && ap_cstr_casecmpn(e->key, "Session-", 8) == 0)
            return 1;
    }
    return 0;
}

void ha_guard_remove(apr_table_t *fields)
{
    apr_table_unset(fields, HA_FIELD_ACCEPT);
    apr_table_unset(fields, HA_FIELD_BACKUP);
    apr_table_unset(fields, HA_FIELD_FETCH);
    apr_table_unset(fields, HA_FIELD_RESTORE);
    apr_table_unset(fields, HA_FIELD_MISSING);
}

/* Servlet containers read /a;x=1/b as /a/b, so path parameters are left out of the comparison, which runs
 * from the end. Nearly every path has none and differs in its last byte. */
int ha_guard_well_known(const char *path)
{
    static const char name[] = HA_WELL_KNOWN;
    const char *want = name + sizeof name - 1;
    const char *end = path + strlen(path);

    if (end > path && end[-1] != want[-1] && end[-1] != '/' && strchr(path, ';') == NULL)
        return 0;
    /* every segment in turn, from the last: cut its parameters, compare what is left */
    while (want > name) {
        const char *start = end, *stop;
        while (start > path && start[-1] != '/')
            start--;
        stop = ap_strchr_c(start, ';');
        if (stop == NULL || stop > end)
            stop = end;
        if (stop == start && start > path) {        /* "//" or "/;x/": an empty segment counts for nothing */
            end = start - 1;
            continue;
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
