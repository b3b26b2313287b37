/* balancer_interim.c - what reaches the client past the request's own filters: interim answers (103, 101), which
 * mod_proxy_http writes straight to the connection, and tunnels, mod_proxy_wstunnel's from their first byte.
 *
 * While a member is asked, the first output filter of the client's connection is ours. The request's own chain was
 * linked to the connection's before, and leads past it: an ordinary answer does not meet it, the healthy path pays for
 * two pointers. What does come here begins with heads, from which the fields of our protocol are taken; behind the
 * head of a tunnel every byte passes as it is.
 */
#include "httpd.h"
#include "apr_lib.h"
#include "apr_strings.h"
#include "http_protocol.h"
#include "util_filter.h"

#include "balancer_request.h"

#define HEAD_MAX 65536          /* of one head; mod_proxy's own limit is 8 KB a line */

static ap_filter_rec_t *the_filter;

struct ha_interim {
    ap_filter_t filter;         /* by hand: it lives in the request's pool, the server's own in the connection's */
    ha_request *q;
    request_rec *r;
    char *head;                 /* as far as it has come; NULL: none */
    apr_size_t len;
    unsigned through : 1;       /* the heads are over */
};

/* The length of the head that s begins with, its empty line too; 0: it is not whole. */
static apr_size_t head_length(const char *s, apr_size_t len)
{
    const char *lf = s, *end = s + len;
    while ((lf = memchr(lf, '\n', (apr_size_t)(end - lf))) != NULL) {
        lf++;
        if (lf < end && *lf == '\r')
            lf++;
        if (lf < end && *lf == '\n')
            return (apr_size_t)(lf + 1 - s);
    }
    return 0;
}

/* Ours out of it, in place; folded lines belong to the field before them. The new length, and what it said. */
static apr_size_t clean(char *head, apr_size_t len, apr_pool_t *p, const char **backup)
{
    char *out = head, *line, *next, *end = head + len;
    int drop = 0;

    for (line = head; line < end; line = next) {
        char *colon;
        next = (char *)memchr(line, '\n', (apr_size_t)(end - line)) + 1;
        if (*line != ' ' && *line != '\t') {
            colon = memchr(line, ':', (apr_size_t)(next - line));
            drop = colon && ha_guard_is_ours(line, (apr_size_t)(colon - line));
            if (drop && *backup == NULL && (apr_size_t)(colon - line) == sizeof HA_FIELD_BACKUP - 1)
                *backup = ap_getword_white_nc(p, &(char *){ NULL });
        }
        if (!drop) {
            memmove(out, line, (apr_size_t)(next - line));
            out += next - line;
        }
    }
    return (apr_size_t)(out - head);
}
