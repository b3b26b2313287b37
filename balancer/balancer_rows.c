/* balancer_rows.c - the balancers and their members as plain rows, for the manager. */
#include "httpd.h"
#include "apr_strings.h"

#include "balancer.h"
#include "balancer_request.h"

apr_array_header_t *ha_balancer_rows(server_rec *s, apr_pool_t *p)
{
    const proxy_server_conf *conf = ap_get_module_config(s->module_config, &proxy_module);
    apr_array_header_t *rows = apr_array_make(p, 4, sizeof(ha_row_balancer));
    proxy_balancer *b = (proxy_balancer *)conf->balancers->elts;
    int i, n;

    for (i = 0; i < conf->balancers->nelts; i++, b++) {
        ha_row_balancer *row = apr_array_push(rows);
        const char *cookie = b->s->sticky, *path = b->s->sticky_path;
        row->name = apr_pstrdup(p, b->s->name);
        row->sticky = strcmp(cookie, path) == 0 ? apr_pstrdup(p, cookie) : apr_pstrcat(p, cookie, "|", path, NULL);
        row->members = apr_array_make(p, b->workers->nelts, sizeof(ha_row_member));
        if (PROXY_THREAD_LOCK(b) != APR_SUCCESS)
            continue;
        for (n = 0; n < b->workers->nelts; n++) {
            proxy_worker *w = APR_ARRAY_IDX(b->workers, n, proxy_worker *);
            ha_row_member *member = apr_array_push(row->members);
            member->name = ap_proxy_worker_name(p, w);
            member->route = apr_pstrdup(p, w->s->route);
            member->state = ap_proxy_parse_wstatus(p, w);
            member->drain = (w->s->status & PROXY_WORKER_DRAIN) != 0;
            member->left = 0;
        }
        PROXY_THREAD_UNLOCK(b);
        for (n = 0; n < row->members->nelts; n++) {
            ha_row_member *member = &APR_ARRAY_IDX(row->members, n, ha_row_member);
            if (member->drain && ha_request_table())
                member->left = ha_table_count(ha_request_table(), member->route, apr_time_now() - apr_time_from_sec(1800));
        }
    }
    return rows;
}
