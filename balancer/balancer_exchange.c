/* balancer_exchange.c - a request of our own to a member, through mod_proxy itself: its connection pool, its
 * schemes (http, ajp), its time-outs, its TLS. Used to hand over a large state and to fetch one.
 *
 * The request and the connection are made by hand. They must not be the client's: its body is not ours to
 * read, its filters not ours to write to, a broken client (aborted) must not break the exchange, and the
 * background thread has no client at all. What a member can tell from (Host, forwarding fields, addresses) is copied.
 */
#include "httpd.h"
#include "apr_strings.h"
#include "http_core.h"
#include "http_protocol.h"
#include "http_request.h"
#include "mod_proxy.h"
#include "util_filter.h"

#include "balancer_request.h"

static ap_filter_rec_t *the_source, *the_sink;

typedef struct sink {
    ha_exchange *x;
    apr_pool_t *pool;           /* of the answer */
    apr_bucket_brigade *kept;
    apr_size_t len;
    int too_large, broken;
    volatile apr_time_t heard;  /* read by the watch */
} sink;

/* ---- the two ends ------------------------------------------------------------------ */

/* The body, then EOS, then nothing but EOS. */
static apr_status_t source_filter(ap_filter_t *f, apr_bucket_brigade *bb, ap_input_mode_t mode,
                                  apr_read_type_e block, apr_off_t readbytes)
{
    ha_blob *left = f->ctx;
    apr_size_t n = left->len;

    if (mode == AP_MODE_READBYTES && readbytes > 0 && (apr_off_t)n > readbytes)
        n = (apr_size_t)readbytes;
    if (n > 0) {
        APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_immortal_create(left->data, n, f->c->bucket_alloc));
        if (mode != AP_MODE_SPECULATIVE) {
            left->data = (const char *)left->data + n;
            left->len -= n;
        }
    }
    if (left->len == 0)
        APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_eos_create(f->c->bucket_alloc));
    return APR_SUCCESS;
}

/* Keeps the body, up to the limit; past it the rest is dropped. */
static apr_status_t sink_filter(ap_filter_t *f, apr_bucket_brigade *bb)
{
    sink *s = f->ctx;
    apr_bucket *b;
    apr_status_t rv = APR_SUCCESS;

    if (s->x->patience > 0)
        s->heard = apr_time_now();
    for (b = APR_BRIGADE_FIRST(bb); b != APR_BRIGADE_SENTINEL(bb); b = APR_BUCKET_NEXT(b)) {
        const char *data;
        apr_size_t len;
        if (AP_BUCKET_IS_ERROR(b))
            s->broken = 1;      /* it ended before it was all there */
        if (APR_BUCKET_IS_METADATA(b) || s->too_large)
            continue;
        if ((rv = apr_bucket_read(b, &data, &len, APR_BLOCK_READ)) != APR_SUCCESS)
            goto leave;
        if (s->len + len > s->x->max) {
            s->too_large = 1;
            continue;
        }
        s->len += len;
        if ((rv = apr_brigade_write(s->kept, NULL, NULL, data, len)) != APR_SUCCESS)
            goto leave;
    }
leave:
    apr_brigade_cleanup(bb);
    return rv;
}

/* ---- the request --------------------------------------------------------------------- */

void ha_exchange_from(ha_exchange *x, ha_request *q, request_rec *r, proxy_worker *worker, apr_pool_t *p)
{
    proxy_dir_conf *dconf = apr_pmemdup(p, ap_get_module_config(r->per_dir_config, &proxy_module), sizeof *dconf);
    const conn_rec *c = r->connection;
    const char *host = apr_table_get(r->headers_in, "Host");

    x->server = r->server;
    x->conf = q->conf;
    x->worker = ha_members_exchange(q->balancer, worker, r->server);
    x->patience = ha_config_member_timeout(q->cfg);
    dconf->error_override = 0;  /* a member's 403 is an answer to us, not a page for a client */
    x->dconf = dconf;
    x->host = host ? apr_pstrdup(p, host) : NULL;
    x->client_ip = apr_pstrdup(p, r->useragent_ip);
    x->local_ip = apr_pstrdup(p, c->local_ip);
    apr_sockaddr_info_copy(&x->client_addr, r->useragent_addr, p);
    apr_sockaddr_info_copy(&x->local_addr, c->local_addr, p);
}

static conn_rec *make_connection(const ha_exchange *x, apr_pool_t *p)
{
    conn_rec *c = apr_pcalloc(p, sizeof *c);
    c->pool = p;
    c->base_server = x->server;
    c->conn_config = ap_create_conn_config(p);
    c->notes = apr_table_make(p, 2);
    c->bucket_alloc = apr_bucket_alloc_create(p);
    c->client_addr = x->client_addr;
    c->client_ip = (char *)x->client_ip;
    c->local_addr = x->local_addr;
    c->local_ip = (char *)x->local_ip;
    c->keepalive = AP_CONN_UNKNOWN;
    return c;
}

/* A member that is spelt ws:// or wss:// for its tunnels speaks http all the same; mod_proxy_wstunnel would make a
 * tunnel of our request. The paths of members that have one count from their root, as the members see it. */
static const char *base_of(const proxy_worker *w, apr_pool_t *p)
{
    const char *name = w->s->name_ex, *host = ap_strstr_c(name, "://");
    const char *path = host ? ap_strchr_c(host + 3, '/') : NULL;
    const char *base = path ? apr_pstrmemdup(p, name, (apr_size_t)(path - name)) : name;
    return strcmp(w->s->scheme, "ws") == 0 || strcmp(w->s->scheme, "wss") == 0 ? apr_pstrcat(p, "http", base + 2, NULL) : base;
}

request_rec *ha_exchange_request(const ha_exchange *x, apr_pool_t *p)
{
    request_rec *r = apr_pcalloc(p, sizeof *r);

    r->pool = p;
    r->connection = make_connection(x, p);
    r->server = x->server;
    r->request_time = apr_time_now();
    r->method = x->method;
    r->method_number = ap_method_number_of(x->method);
    r->protocol = "HTTP/1.1";
    r->proto_num = HTTP_VERSION(1, 1);
    r->the_request = apr_pstrcat(p, x->method, " ", x->path, " HTTP/1.1", NULL);
    r->uri = r->unparsed_uri = apr_pstrdup(p, x->path);
    r->hostname = x->server->server_hostname;
    r->status = HTTP_OK;
    r->handler = "proxy-server";
    r->proxyreq = PROXYREQ_REVERSE;
    r->filename = apr_pstrcat(p, "proxy:", base_of(x->worker, p), x->path, NULL);
    r->useragent_addr = x->client_addr;
    r->useragent_ip = (char *)x->client_ip;
    r->headers_in = apr_table_make(p, 8);
    r->headers_out = apr_table_make(p, 8);
    r->err_headers_out = apr_table_make(p, 2);
    r->trailers_in = apr_table_make(p, 1);
    r->trailers_out = apr_table_make(p, 1);
    r->subprocess_env = apr_table_make(p, 4);
    r->notes = apr_table_make(p, 4);
    r->request_config = ap_create_request_config(p);
    r->per_dir_config = ap_merge_per_dir_configs(p, x->server->lookup_defaults, x->server->lookup_defaults);
    ap_set_module_config(r->per_dir_config, &proxy_module, (void *)x->dconf);
    r->allowed_methods = ap_make_method_list(p, 1);

    if (x->host)
        apr_table_setn(r->headers_in, "Host", x->host);
    apr_table_setn(r->headers_in, x->field, x->value);
    if (x->body.data) {
        apr_table_setn(r->headers_in, "Content-Type", "application/octet-stream");
        apr_table_setn(r->headers_in, "Content-Length", apr_psprintf(p, "%" APR_SIZE_T_FMT, x->body.len));
        r->remaining = (apr_off_t)x->body.len;
    }
    return r;
}

static ap_filter_t *end_of_chain(ap_filter_rec_t *rec, void *ctx, request_rec *r)
{
    ap_filter_t *f = apr_pcalloc(r->pool, sizeof *f);
    f->frec = rec;
    f->ctx = ctx;
    f->r = r;
    f->c = r->connection;
    return f;
}

/* status: mod_proxy's. APR_SUCCESS with x->status: the member's answer. */
static apr_status_t run_once(ha_exchange *x, apr_pool_t *parent, int *status)
{
    apr_status_t rv = APR_EGENERAL;
    apr_pool_t *p;
    conn_rec *c;
    request_rec *r;
    ha_request *guard;
    sink s = { 0 };
    ha_blob body = x->body;
    char *url;
    const char *backup, *missing;
    ha_wait *wait;

    x->status = 0;
    x->backup = NULL;
    /* the answer goes to the parent; all else is gone with the exchange */
    apr_pool_create(&p, parent);
    apr_pool_tag(p, "session_ha_exchange");
    r = ha_exchange_request(x, p);
    c = r->connection;
    s.x = x;
    s.pool = parent;
    s.kept = apr_brigade_create(p, c->bucket_alloc);
    r->input_filters = r->proto_input_filters = end_of_chain(the_source, &body, r);
    r->output_filters = r->proto_output_filters = end_of_chain(the_sink, &s, r);
    c->input_filters = r->input_filters;
    c->output_filters = r->output_filters;

    /* our own scheme_handler must let it pass */
    guard = apr_pcalloc(p, sizeof *guard);
    guard->inside = 1;
    ap_set_module_config(r->request_config, &session_ha_module, guard);

    url = apr_pstrdup(p, r->filename + sizeof "proxy:" - 1);
    wait = ha_hung_enter(p, x->worker, NULL, x->server, x->patience, &s.heard);
    *status = proxy_run_scheme_handler(r, x->worker, x->conf, url, NULL, 0);
    ha_hung_leave(wait);
    if (*status != OK)
        goto leave;             /* refused, timed out, garbled; a member's own error status comes as OK */
    if (s.broken || (s.too_large && x->max > 0)) {
        rv = APR_ENOSPC;
        goto leave;
    }
    x->status = r->status;
    ha_guard_answer(r->headers_out, &backup, &missing);
    x->backup = apr_pstrdup(parent, backup);
    if (s.len > 0) {
        char *flat = apr_palloc(parent, s.len);
        apr_size_t len = s.len;
        if ((rv = apr_brigade_flatten(s.kept, flat, &len)) != APR_SUCCESS)
            goto leave;
        x->answer.data = flat;
        x->answer.len = len;
    }
    else {
        x->answer.data = "";
        x->answer.len = 0;
    }
    rv = APR_SUCCESS;
leave:
    apr_pool_destroy(p);
    return rv;
}

/* These connections are used so seldom that the member may be closing the one that we take. It has seen nothing of the
 * request then, and twice does no harm. A member that was refused or is deaf is in error by now. */
apr_status_t ha_exchange_run(ha_exchange *x, apr_pool_t *p)
{
    int status = OK;
    apr_status_t rv = run_once(x, p, &status);

    if (rv == APR_EGENERAL && status != HTTP_GATEWAY_TIME_OUT && !(x->worker->s->status & PROXY_WORKER_IN_ERROR))
        rv = run_once(x, p, &status);
    return rv;
}

void ha_exchange_hooks(apr_pool_t *p)
{
    the_source = ap_register_input_filter("SESSION_HA_SOURCE", source_filter, NULL, AP_FTYPE_PROTOCOL);
    the_sink = ap_register_output_filter("SESSION_HA_SINK", sink_filter, NULL, AP_FTYPE_RESOURCE);
}
