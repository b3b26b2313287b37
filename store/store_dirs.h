/* store_dirs.h - a directory of the module's own, for the stores that keep files. */
#ifndef HA_STORE_DIRS_H
#define HA_STORE_DIRS_H

#include <apr_user.h>

#include "../mod_session_ha.h"

/* Parent, perhaps as root: the directory is there, mode 0700, and the children's; it is made if it was not.
 * Somebody else's hands may be on the path, so what is there already is never "put right": a link, a
 * directory of another user, or one that others may write in, is refused. */
apr_status_t ha_dir_prepare(const char *dir, ha_call *, apr_uid_t uid, apr_gid_t gid);

/* What a system call said, as an answer of the store: never a status that speaks of a connection. */
apr_status_t ha_dir_broken(ha_call *, const char *what);

#endif
