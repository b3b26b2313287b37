/* manager_modstatus.c - a few lines on mod_status' page and in its ?auto. An optional hook: without
 * mod_status nobody calls it. */
#include "httpd.h"
#include "http_protocol.h"
#include "apr_optional_hooks.h"
#include "mod_status.h"
#include "manager_hooks.h"

static int add_lines(request_rec *r, int flags)
{
    const ha_snapshot *snap = ha_manager_snapshot(r);
    apr_bucket_brigade *bb;
    char *text;
    apr_size_t len;

    if (!snap->balancers->nelts && !snap->stores->nelts)
        return DECLINED;
    bb = apr_brigade_create(r->pool, r->connection->bucket_alloc);
    if (flags & AP_STATUS_SHORT)
        ha_render_summary_lines(bb, snap);
    else
        ha_render_summary_html(bb, snap, !(flags & AP_STATUS_NOTABLE));
    /* mod_status writes through the server's own buffer; a brigade would overtake it */
    if (apr_brigade_pflatten(bb, &text, &len, r->pool) == APR_SUCCESS)
        ap_rwrite(text, (int)len, r);
    apr_brigade_destroy(bb);
    return OK;
}

void ha_modstatus_register(void)
{
    APR_OPTIONAL_HOOK(ap, status_hook, add_lines, NULL, NULL, APR_HOOK_MIDDLE);
}
