/* manager_hooks.h - inside the manager room: what its parts that live in the server share. */
#ifndef HA_MANAGER_HOOKS_H
#define HA_MANAGER_HOOKS_H

#include "manager_render.h"

/* All facts for the server that answers r, in r->pool. */
const ha_snapshot *ha_manager_snapshot(request_rec *r);

void ha_status_register(void);      /* handler session-ha-status */
void ha_page_register(void);        /* section of the balancer-manager page */
void ha_modstatus_register(void);   /* lines of mod_status */

#endif
