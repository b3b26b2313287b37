/* balancer_fields.c - the fields of a request on their way to an http member, in one piece.
 *
 * mod_proxy writes each field with a string and a bucket of its own: some 700 instructions a field, and we make it send
 * one more. Just before, it lets the proxy `fixups` hook change the table of what it is going to send, a copy that is
 * for that alone. We leave two entries in it: Host, which it sends first, and all the others as one, whose value goes on
 * with the next line. The member gets the same bytes.
 *
 * That is so as long as mod_proxy writes a value as it stands. Each child looks: a request that nobody sends is written
 * with us and without, and where that is not the same bytes, or the request's own table is touched, the fields stay as
 * they are.
 */
#include "httpd.h"
#include "apr_optional_hooks.h"
#include "apr_strings.h"
#include "http_log.h"

#include "balancer.h"
#include "balancer_request.h"

APLOG_USE_MODULE(session_ha);

#define FIELDS_MAX 64           /* more of them, or longer ones, are left as they are */
#define BYTES_MAX 16384

static int hooked, the_same;    /* the_same: this child has looked */

static char *put(char *at, const char *s, apr_size_t len)
{
    return (char *)memcpy(at, s, len) + len;
}

static void join(apr_table_t *fields, apr_pool_t *p)
{
    const apr_array_header_t *all = apr_table_elts(fields);
    const apr_table_entry_t *e = (const apr_table_entry_t *)all->elts, *end = e + all->nelts;
    struct { const char *key, *value; apr_size_t key_len, value_len; } field[FIELDS_MAX];
    const char *host = NULL;
    char *lines, *at;
    apr_size_t bytes = 0;
    int n = 0, i;

    for (; e < end; e++) {
        if (e->key == NULL || e->val == NULL)
            continue;
        if ((e->key[0] | 0x20) == 'h' && strcasecmp(e->key, "Host") == 0) {
            if (host == NULL)
                host = e->val;
            continue;
        }
        if (n == FIELDS_MAX)
            return;
        field[n].key = e->key;
        field[n].key_len = strlen(e->key);
        field[n].value = e->val;
        field[n].value_len = strlen(e->val);
        bytes += field[n].key_len + field[n].value_len + sizeof ": \r\n" - 1;
        n++;
    }
    if (n < 2 || bytes > BYTES_MAX)
        return;
    lines = at = apr_palloc(p, bytes + 1);
    at = put(at, field[0].value, field[0].value_len);
    for (i = 1; i < n; i++) {
        at = put(at, "\r\n", 2);
        at = put(at, field[i].key, field[i].key_len);
        at = put(at, ": ", 2);
        at = put(at, field[i].value, field[i].value_len);
    }
    *at = '\0';
    apr_table_clear(fields);
    if (host)
        apr_table_addn(fields, "Host", host);
    apr_table_addn(fields, field[0].key, lines);
}

static int ha_fixups(request_rec *r)
{
    if (the_same && ha_request_of(r))
        join(r->headers_in, r->pool);
    return OK;
}

/* ---- the look --------------------------------------------------------------------------------- */

/* A request as mod_proxy writes it. NULL: it does not, or spoils the request. The last five names are those that it takes
 * out: before it asks us, or a member would be sent two lengths. */
static const char *written(server_rec *s, ha_request *q, apr_pool_t *p)
{
    static const char *const names[] = { "User-Agent", "Accept", HA_FIELD_ACCEPT, "Cookie", "X-Twice", "X-Twice", "X-Empty",
                                         "Content-Length", "Transfer-Encoding", "Connection", "X-Hop", "TE" };
    static const char *const values[] = { "us", "*/*", "v=1, inline=4096", "a=b; c=d", "1", "2", "", "5", "chunked", "X-Hop, TE", "1", "trailers" };
    enum { NAMES = sizeof names / sizeof *names };
    proxy_worker *worker = apr_pcalloc(p, sizeof *worker);
    proxy_conn_rec *backend = apr_pcalloc(p, sizeof *backend);
    ha_exchange x = { .server = s, .worker = worker, .method = "GET", .path = "/", .host = "client.example", .client_ip = "127.0.0.1",
                      .field = "X-First", .value = "0", .conf = ap_get_module_config(s->module_config, &proxy_module),
                      .dconf = ap_get_module_config(s->lookup_defaults, &proxy_module) };
    apr_uri_t uri = { .hostname = "member.example" };
    char *old_length, *old_encoding, *text;
    apr_bucket_brigade *head;
    apr_table_t *fields;
    apr_size_t len;
    request_rec *r;
    int i, before;

    worker->s = apr_pcalloc(p, sizeof *worker->s);
    r = ha_exchange_request(&x, p);
    fields = r->headers_in;
    for (i = 0; i < NAMES; i++)
        apr_table_addn(fields, names[i], values[i]);
    before = apr_table_elts(fields)->nelts;
    ap_set_module_config(r->request_config, &session_ha_module, q);
    head = apr_brigade_create(p, r->connection->bucket_alloc);
    if (ap_proxy_create_hdrbrgd(p, head, r, backend, worker, x.conf, &uri, apr_pstrdup(p, "/"), apr_pstrdup(p, ""),
                                &old_length, &old_encoding) != OK
        || apr_brigade_pflatten(head, &text, &len, p) != APR_SUCCESS
        || r->headers_in != fields || apr_table_elts(fields)->nelts != before)
        return NULL;
    for (i = 0; i < NAMES; i++) {
        const apr_table_entry_t *e = (const apr_table_entry_t *)apr_table_elts(fields)->elts + before - NAMES + i;
        if (e->key != names[i] || e->val != values[i])
            return NULL;
    }
    return apr_pstrmemdup(p, text, len);
}

void ha_fields_child(server_rec *s, apr_pool_t *pchild)
{
    const char *alone, *with_us;
    ha_request some = { 0 };
    apr_pool_t *p;

    the_same = 0;
    if (!hooked)
        return;
    apr_pool_create(&p, pchild);
    alone = written(s, NULL, p);
    the_same = 1;
    with_us = alone ? written(s, &some, p) : NULL;
    the_same = with_us && strcmp(alone, with_us) == 0;
    if (!the_same)
        ap_log_error(APLOG_MARK, APLOG_INFO, 0, s, "mod_proxy does not write fields as it did: each request's are left to it");
    apr_pool_destroy(p);
}

/* Last, so that whoever looks for a field has done so. */
void ha_fields_hooks(void)
{
    APR_OPTIONAL_HOOK(proxy, fixups, ha_fixups, NULL, NULL, APR_HOOK_REALLY_LAST);
    hooked = 1;
}
