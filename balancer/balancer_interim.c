/* balancer_interim.c - what reaches the client past the request's own filters: interim answers (103, 101), which
 * mod_proxy_http writes straight to the connection, and tunnels, mod_proxy_wstunnel's from their first byte.
 *
 * While a member is asked, the first output filter of the client's connection is ours. The request's own chain was
 * linked to the connection's before, and leads past it: an ordinary answer does not meet it, the healthy path pays for
 * two pointers. What does come here begins with heads, from which the fields of our protocol are taken, and acted
 * upon as with any other answer. Behind the head of a tunnel every byte passes as it is.
 */
#include "httpd.h"
#include "apr_lib.h"
#include "apr_strings.h"
#include "http_protocol.h"
#include "util_filter.h"

#include "balancer_request.h"

#define HEAD_MAX 65536          /* of one head */

static ap_filter_rec_t *the_filter;

typedef struct ha_interim {     /* made when something comes this way, or is sure to */
    char *head;                 /* as far as it has come */
    apr_size_t len, room;
    unsigned tunnel : 1;        /* the heads are over */
    ap_filter_t *out, *proto_out, *in, *proto_in;   /* the request's own chains; mod_proxy_wstunnel takes them away */
} ha_interim;

/* The length of the head that s begins with, its empty line too. 0: the end has not come yet. */
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

static const char *value_of(const char *from, const char *end, apr_pool_t *p)
{
    while (from < end && apr_isspace(*from))
        from++;
    while (from < end && apr_isspace(end[-1]))
        end--;
    return apr_pstrmemdup(p, from, (apr_size_t)(end - from));
}

/* Our fields out of a whole head, in place, and into the table; a folded line belongs to the field before it. Returns
 * the new length. */
static apr_size_t clean(char *head, apr_size_t len, apr_pool_t *p, apr_table_t *said)
{
    char *out = head, *line, *next, *end = head + len;
    int drop = 0;

    for (line = head; line < end; line = next) {
        next = (char *)memchr(line, '\n', (apr_size_t)(end - line)) + 1;
        if (*line != ' ' && *line != '\t') {
            const char *colon = memchr(line, ':', (apr_size_t)(next - line));
            apr_size_t name = colon ? (apr_size_t)(colon - line) : 0;
            while (name > 0 && (line[name - 1] == ' ' || line[name - 1] == '\t'))
                name--;
            drop = ha_guard_is_ours(line, name);
            if (drop)
                apr_table_mergen(said, apr_pstrmemdup(p, line, name), value_of(colon + 1, next, p));
        }
        if (!drop) {
            memmove(out, line, (apr_size_t)(next - line));
            out += next - line;
        }
    }
    return (apr_size_t)(out - head);
}

/* "HTTP/1.1 101 ..." */
static int status_of(const char *head, apr_size_t len)
{
    const char *blank = memchr(head, ' ', len);
    apr_size_t at = blank ? (apr_size_t)(blank + 1 - head) : len;
    if (at + 3 > len || !apr_isdigit(head[at]) || !apr_isdigit(head[at + 1]) || !apr_isdigit(head[at + 2]))
        return 0;
    return (head[at] - '0') * 100 + (head[at + 1] - '0') * 10 + (head[at + 2] - '0');
}

static int append(ha_interim *i, const char *data, apr_size_t len, apr_pool_t *p)
{
    if (i->len + len > HEAD_MAX)
        return 0;
    if (i->len + len > i->room) {
        char *more = apr_palloc(p, i->room = (i->len + len) * 2);
        if (i->len)
            memcpy(more, i->head, i->len);
        i->head = more;
    }
    memcpy(i->head + i->len, data, len);
    i->len += len;
    return 1;
}

/* The whole heads that have come, in front of b; what is left is the beginning of the next. */
static void give_heads(ha_interim *i, ha_request *q, request_rec *r, apr_bucket *b)
{
    apr_bucket_alloc_t *alloc = r->connection->bucket_alloc;
    apr_size_t len;

    while (!i->tunnel && i->len > 0) {
        apr_table_t *said;
        apr_size_t left;
        int status;
        if (i->len >= 5 && memcmp(i->head, "HTTP/", 5) != 0) {
            i->tunnel = 1;      /* not one: nothing that we know how to read */
            break;
        }
        if ((len = head_length(i->head, i->len)) == 0)
            return;
        status = status_of(i->head, len);
        said = apr_table_make(r->pool, 2);
        left = clean(i->head, len, r->pool, said);
        if (status == HTTP_SWITCHING_PROTOCOLS || !ap_is_HTTP_INFO(status)) {
            i->tunnel = 1;
            ha_response_tunnel(q, r, status, said);
        }
        APR_BUCKET_INSERT_BEFORE(b, apr_bucket_heap_create(i->head, left, NULL, alloc));
        i->head += len;
        i->room -= len;
        i->len -= len;
    }
    if (i->len > 0)
        APR_BUCKET_INSERT_BEFORE(b, apr_bucket_heap_create(i->head, i->len, NULL, alloc));
    i->len = i->room = 0;
}

static apr_status_t interim_filter(ap_filter_t *f, apr_bucket_brigade *bb)
{
    ha_request *q = f->ctx;
    ha_interim *i = q->interim_heads;
    apr_bucket *b, *next;
    apr_status_t rv;

    if (i == NULL)
        i = q->interim_heads = apr_pcalloc(f->r->pool, sizeof *i);
    for (b = APR_BRIGADE_FIRST(bb); b != APR_BRIGADE_SENTINEL(bb) && !i->tunnel; b = next) {
        const char *data;
        apr_size_t len;
        next = APR_BUCKET_NEXT(b);
        if (APR_BUCKET_IS_METADATA(b))
            continue;
        if (APR_SUCCESS != (rv = apr_bucket_read(b, &data, &len, APR_BLOCK_READ)))
            return rv;
        next = APR_BUCKET_NEXT(b);
        if (!append(i, data, len, f->r->pool))
            return APR_ENOSPC;
        give_heads(i, q, f->r, b);
        apr_bucket_delete(b);
    }
    if (q->swallow) {           /* an answer for us: mod_proxy_wstunnel ends it, and the request goes on */
        apr_brigade_cleanup(bb);
        return APR_ECONNABORTED;
    }
    if (i->tunnel)
        ha_request_heard(q);
    return ap_pass_brigade(f->next, bb);
}

void ha_interim_enter(ha_request *q, request_rec *r, const proxy_worker *worker)
{
    conn_rec *c = r->connection;
    ha_interim *i;

    q->interim_heads = NULL;
    q->interim = (ap_filter_t){ .frec = the_filter, .ctx = q, .r = r, .c = c, .next = c->output_filters };
    c->output_filters = &q->interim;
    if (worker->s->scheme[0] == 'w') {
        q->interim_heads = i = apr_pcalloc(r->pool, sizeof *i);
        i->out = r->output_filters;
        i->proto_out = r->proto_output_filters;
        i->in = r->input_filters;
        i->proto_in = r->proto_input_filters;
    }
}

/* Out of every chain that may begin with it or lead to it: the request of a tunnel goes on with the connection's,
 * unless it is not over. */
void ha_interim_leave(ha_request *q, request_rec *r)
{
    ap_filter_t *f = r->connection->output_filters, *next = q->interim.next;
    ha_interim *i = q->interim_heads;

    if (f == &q->interim)
        r->connection->output_filters = next;
    else {                      /* somebody has put a filter before it */
        while (f && f->next != &q->interim)
            f = f->next;
        if (f)
            f->next = next;
    }
    if (i && i->out && q->swallow) {
        r->output_filters = i->out;
        r->proto_output_filters = i->proto_out;
        r->input_filters = i->in;
        r->proto_input_filters = i->proto_in;
    }
    if (r->output_filters == &q->interim)
        r->output_filters = next;
    if (r->proto_output_filters == &q->interim)
        r->proto_output_filters = next;
}

void ha_interim_hooks(apr_pool_t *p)
{
    the_filter = ap_register_output_filter("SESSION_HA_INTERIM", interim_filter, NULL, AP_FTYPE_NETWORK - 1);
}
