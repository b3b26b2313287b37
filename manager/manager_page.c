/* manager_page.c - our section at the end of the balancer-manager page, in HTML and in ?xml=1.
 *
 * An output filter, since mod_proxy_balancer has no hook for it. It takes the page whole before it looks
 * for the end of it: pages are small, and the length, HEAD and a compressor after us are then right by
 * themselves. Only what the handler itself makes passes here, so the last mark is the real one. */
#include <string.h>

#include "httpd.h"
#include "http_config.h"
#include "http_protocol.h"
#include "http_request.h"
#include "util_filter.h"
#include "manager_hooks.h"

static ap_filter_rec_t *page_filter;

static int insert_page_filter(request_rec *r)
{
    if (r->handler && !strcmp(r->handler, "balancer-manager"))
        ap_add_output_filter_handle(page_filter, NULL, r, r->connection);
    return DECLINED;
}

/* Where the section goes: before the last `mark`. */
static char *find_last(char *text, apr_size_t len, const char *mark)
{
    apr_size_t n = strlen(mark), at;

    for (at = len >= n ? len - n + 1 : 0; at > 0; at--)
        if (!memcmp(text + at - 1, mark, n))
            return text + at - 1;
    return NULL;
}

/* The page with the section; the page as it is, if it is no page. */
static void add_section(request_rec *r, apr_bucket_brigade *page, apr_bucket_brigade *out)
{
    int html = r->content_type && !strncmp(r->content_type, "text/html", 9);
    int xml = r->content_type && !strncmp(r->content_type, "text/xml", 8);
    const ha_snapshot *snap;
    char *text, *end;
    apr_size_t len;

    if (!html && !xml)
        goto unchanged;
    snap = ha_manager_snapshot(r);
    if (!snap->balancers->nelts && !snap->stores->nelts)
        goto unchanged;
    if (apr_brigade_pflatten(page, &text, &len, r->pool) != APR_SUCCESS)
        goto unchanged;
    end = find_last(text, len, html ? "</body>" : "</httpd:manager>");
    if (!end)
        goto unchanged;

    apr_table_unset(r->headers_out, "Content-Length");
    apr_brigade_write(out, NULL, NULL, text, (apr_size_t)(end - text));
    if (html)
        ha_render_html(out, snap);
    else
        ha_render_xml(out, snap);
    apr_brigade_write(out, NULL, NULL, end, len - (apr_size_t)(end - text));
    apr_brigade_cleanup(page);
    return;
unchanged:
    APR_BRIGADE_CONCAT(out, page);
}

static apr_status_t page_out(ap_filter_t *f, apr_bucket_brigade *bb)
{
    request_rec *r = f->r;
    apr_bucket_brigade *page = f->ctx, *out;
    apr_bucket *b;
    const char *text;
    apr_size_t len;
    apr_status_t rv;

    if (!page)
        f->ctx = page = apr_brigade_create(r->pool, bb->bucket_alloc);
    while (!APR_BRIGADE_EMPTY(bb)) {
        b = APR_BRIGADE_FIRST(bb);
        if (APR_BUCKET_IS_EOS(b)) {
            out = apr_brigade_create(r->pool, bb->bucket_alloc);
            add_section(r, page, out);
            APR_BRIGADE_CONCAT(out, bb);        /* EOS and what may follow it */
            ap_remove_output_filter(f);
            return ap_pass_brigade(f->next, out);
        }
        if (APR_BUCKET_IS_METADATA(b) && !APR_BUCKET_IS_FLUSH(b)) {
            /* the end of a request that failed: no page will come, so keep nothing back */
            APR_BRIGADE_CONCAT(page, bb);
            ap_remove_output_filter(f);
            return ap_pass_brigade(f->next, page);
        }
        if (APR_BUCKET_IS_FLUSH(b)) {
            apr_bucket_delete(b);
            continue;
        }
        rv = apr_bucket_setaside(b, r->pool);
        if (rv == APR_ENOTIMPL)                 /* a pipe: reading puts it on the heap */
            rv = apr_bucket_read(b, &text, &len, APR_BLOCK_READ);
        if (rv != APR_SUCCESS)
            return rv;
        APR_BUCKET_REMOVE(b);
        APR_BRIGADE_INSERT_TAIL(page, b);
    }
    return APR_SUCCESS;
}

void ha_page_register(void)
{
    static const char *const after[] = { "mod_proxy.c", NULL }, *const before[] = { "mod_proxy_balancer.c", NULL };
    page_filter = ap_register_output_filter("SESSION_HA_PAGE", page_out, NULL, AP_FTYPE_RESOURCE);
    /* a handler just before the page's own, not insert_filter: a proxied request never comes there */
    ap_hook_handler(insert_page_filter, after, before, APR_HOOK_FIRST);
}
