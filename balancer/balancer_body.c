/* balancer_body.c - a request's body, kept while it passes, so that it can be sent once more.
 *
 * The body streams to the member as it did before; what has passed is kept up to a limit. On a repeat the filter
 * plays it again from the beginning and then goes on reading from the client where it had stopped. Past the limit
 * nothing is kept, and the request is not repeated.
 *
 * mod_proxy_http spools a whole body first when a filter stands between it and the protocol's own. So the filter
 * takes the place of the protocol's, with that one behind it.
 */
#include "httpd.h"
#include "http_protocol.h"
#include "util_filter.h"

#include "balancer_request.h"

static ap_filter_rec_t *the_keeper;

struct ha_body {
    apr_pool_t *pool;
    apr_bucket_brigade *kept;
    apr_size_t len, limit;
    unsigned over : 1;          /* more than the limit has passed */
    unsigned ended : 1;         /* EOS has passed */
    unsigned playing : 1;
    apr_size_t played;
    char *flat;                 /* kept, in one piece, while playing */
};

static apr_status_t keep(ha_body *b, apr_bucket_brigade *bb)
{
    apr_bucket *e;
    apr_status_t rv;

    for (e = APR_BRIGADE_FIRST(bb); e != APR_BRIGADE_SENTINEL(bb); e = APR_BUCKET_NEXT(e)) {
        const char *data;
        apr_size_t len;
        if (APR_BUCKET_IS_EOS(e))
            b->ended = 1;
        if (APR_BUCKET_IS_METADATA(e) || b->over)
            continue;
        if (APR_SUCCESS != (rv = apr_bucket_read(e, &data, &len, APR_BLOCK_READ)))
            return rv;
        if (b->len + len > b->limit) {
            b->over = 1;
            apr_brigade_cleanup(b->kept);
            continue;
        }
        b->len += len;
        if (APR_SUCCESS != (rv = apr_brigade_write(b->kept, NULL, NULL, data, len)))
            return rv;
    }
    return APR_SUCCESS;
}

static apr_status_t body_filter(ap_filter_t *f, apr_bucket_brigade *bb, ap_input_mode_t mode,
                                apr_read_type_e block, apr_off_t readbytes)
{
    ha_body *b = f->ctx;
    apr_status_t rv;

    if (b->playing && mode == AP_MODE_READBYTES) {
        apr_size_t n = b->len - b->played;
        if (n > 0) {
            if (readbytes > 0 && (apr_off_t)n > readbytes)
                n = (apr_size_t)readbytes;
            APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_immortal_create(b->flat + b->played, n, f->c->bucket_alloc));
            b->played += n;
        }
        if (b->played == b->len) {
            b->playing = 0;
            if (b->ended)
                APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_eos_create(f->c->bucket_alloc));
        }
        if (!APR_BRIGADE_EMPTY(bb))
            return APR_SUCCESS;
    }
    if (b->ended && mode == AP_MODE_READBYTES) {
        APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_eos_create(f->c->bucket_alloc));
        return APR_SUCCESS;
    }
    rv = ap_get_brigade(f->next, bb, mode, block, readbytes);
    if (rv == APR_SUCCESS && mode == AP_MODE_READBYTES)
        rv = keep(b, bb);
    return rv;
}

ha_body *ha_body_keep(request_rec *r, apr_size_t limit)
{
    ha_body *b = apr_pcalloc(r->pool, sizeof *b);
    ap_filter_t *was = r->proto_input_filters, *f;

    b->pool = r->pool;
    b->kept = apr_brigade_create(r->pool, r->connection->bucket_alloc);
    b->limit = limit;
    f = ap_add_input_filter_handle(the_keeper, b, r, r->connection);
    if (f && f->next == was)
        r->proto_input_filters = f;
    return b;
}

int ha_body_whole(const ha_body *b)
{
    return !b->over;
}

int ha_body_play_again(ha_body *b, request_rec *r)
{
    apr_size_t len = b->len;

    if (b->over)
        return 0;
    b->flat = apr_palloc(b->pool, len + 1);
    if (apr_brigade_flatten(b->kept, b->flat, &len) != APR_SUCCESS || len != b->len)
        return 0;
    b->played = 0;
    b->playing = 1;
    /* what mod_proxy_http has read ahead for the attempt before */
    apr_pool_userdata_setn(NULL, "proxy-req-input", NULL, r->pool);
    return 1;
}

void ha_body_hooks(apr_pool_t *p)
{
    the_keeper = ap_register_input_filter("SESSION_HA_BODY", body_filter, NULL, AP_FTYPE_PROTOCOL - 1);
}
