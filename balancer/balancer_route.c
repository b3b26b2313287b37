/* balancer_route.c - the route in a cookie of our own (SessionHARouteCookie), for applications that do not write it: it names
 * the member that answered last. The value is written as stickysession reads it, so that the same name can stand there. */
#include "httpd.h"
#include "apr_lib.h"
#include "apr_strings.h"
#include "http_core.h"
#include "http_protocol.h"

#include "balancer_request.h"

static int is_member(void *q, const char *route, apr_size_t len)
{
    return ha_members_find(((ha_request *)q)->balancer, route, len) != NULL;
}

/* What nobody has is left alone: then the application's own cookie counts. */
void ha_route_read(ha_request *q, request_rec *r)
{
    ha_id_rules rules = { .cookie = q->cfg->route_cookie, .separator = q->balancer->s->sticky_separator };
    ha_id found;

    (void)ha_id_parse(&rules, NULL, q->cookie, NULL, is_member, q, r->pool, &found);
    if (!found.route_known)
        return;
    q->route_cookie = found.route;
    if (q->sid.route == NULL || strcmp(q->sid.route, found.route) != 0) {
        q->sid.route = found.route;
        q->sid.stock_sees = 0;
    }
    q->sid.route_known = 1;
    q->home = ha_members_find(q->balancer, found.route, strlen(found.route));
}

void ha_route_write(ha_request *q, request_rec *r)
{
    const char *route = q->worker->s->route, *c, separator[2] = { q->balancer->s->sticky_separator, '\0' };

    if (!*route || (q->route_cookie && strcmp(q->route_cookie, route) == 0))
        return;
    for (c = route; *c; c++) {
        if (!apr_isgraph(*c) || strchr("\",;\\", *c))
            return;             /* cannot stand in a cookie */
    }
    apr_table_addn(r->err_headers_out, "Set-Cookie",
                   apr_pstrcat(r->pool, q->cfg->route_cookie, "=", separator, route, q->cfg->route_attributes,
                               strcmp(ap_http_scheme(r), "https") == 0 && !ap_strstr_c(q->cfg->route_attributes, "; Secure") ? "; Secure" : "",
                               NULL));
}
