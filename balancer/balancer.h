/* balancer.h - the door of the room that knows mod_proxy.
 *
 * One request's way (doc/architecture.md): balancer_guard strips, balancer_request finds the session and
 * its owner and steers mod_proxy_balancer, balancer_attempt runs the member, balancer_response captures.
 */
#ifndef HA_BALANCER_H
#define HA_BALANCER_H

#include "httpd.h"

#include "../session/session_table.h"

void ha_balancer_register_hooks(apr_pool_t *p);
void ha_balancer_register_hooks_on(void);           /* what is needed only where SessionHA is on somewhere */

/* What the children of this httpd share, besides the table: who we are, what other httpds have told us. Zeroed by the
 * caller the first time. */
apr_size_t ha_balancer_shared_size(void);
apr_status_t ha_balancer_prepare(void *shared);     /* parent */

/* Each child. pchild lives as long as the child. */
apr_status_t ha_balancer_child(server_rec *s, ha_table *table, void *shared, apr_pool_t *pchild);

/* Rows for the manager (ha_manager_sources.balancers). */
apr_array_header_t *ha_balancer_rows(server_rec *s, apr_pool_t *p);

#endif
