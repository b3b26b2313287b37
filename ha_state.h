/* ha_state.h - the files that the module keeps for itself: the state directory, and the secret in it.
 * APR only. Used while the server starts, as root if it was started as root. */
#ifndef HA_STATE_H
#define HA_STATE_H

#include "mod_session_ha.h"

const char *ha_state_default(void);         /* configure --with-statedir */

/* Makes the directory, or takes the one that is there if it is safe. gid: the children's group, who may
 * pass through it to the store inside. NULL, or why it cannot be used. */
const char *ha_state_open(const char *dir, apr_uid_t uid, apr_gid_t gid, apr_pool_t *p);

/* The content of a secret file. make: with 0, a missing file is an error; with 1, it is made, and of two
 * starts at the same time both get the same one. NULL, or what is wrong and the command that mends it. */
const char *ha_state_secret(const char *file, int make, ha_blob *content, apr_pool_t *p);

#endif
