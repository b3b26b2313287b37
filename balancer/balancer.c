/* balancer.c - the room's own contents page. */
#include "httpd.h"
#include "balancer.h"

#include "balancer_request.h"

void ha_balancer_register_hooks(apr_pool_t *p)
{
    ha_request_hooks(p);        /* pre_request, post_request: which member */
    ha_response_hooks(p);       /* its answer */
    ha_interim_hooks(p);        /* what goes past that: interim answers, tunnels */
    ha_body_hooks(p);           /* what is sent may be sent again */
    ha_exchange_hooks(p);       /* requests of our own */
}

void ha_balancer_register_hooks_on(void)
{
    ha_attempt_hooks();         /* scheme_handler: ask it */
    ha_fields_hooks();          /* what it is sent */
}

apr_status_t ha_balancer_child(server_rec *s, ha_table *table, void *shared, apr_pool_t *pchild)
{
    apr_status_t rv;

    ha_request_child(table);
    ha_members_child(pchild);
    ha_fields_child(s, pchild);
    rv = ha_hung_child(pchild);
    if (rv == APR_SUCCESS)
        rv = ha_peers_child(shared, pchild);
    if (rv == APR_SUCCESS)
        rv = ha_async_child(pchild);
    return rv;
}
