/* session_native.h - where an application keeps its sessions itself (SessionHANative), and whether one is there.
 *
 * A preset is a name for templates, a template is the name of a session with some words in it:
 *   %{id}      the id, as the client has it, without the route
 *   %{issued}  the id with the route behind it, as the member has issued it; where the route is in a cookie of its own, the
 *              same as %{id}
 *   %{sid}     the id without express-session's "s:" in front and the signature behind the last dot
 *   %{now}     in a SELECT: the time, milliseconds since 1970
 * What it is a name of, the store's scheme says: a key, a file, or a SELECT that finds a row. The raw id gets into it only
 * if it is made of A-Z a-z 0-9 - _ . and neither begins with a dot nor has two of them together; into a SELECT only as
 * a bound argument.
 *
 * Nothing is written, and the bytes that are there are not looked at.
 */
#ifndef HA_SESSION_NATIVE_H
#define HA_SESSION_NATIVE_H

#include "../store/store.h"

typedef struct ha_native ha_native;

/* NULL, or a text that says what is allowed. */
const char *ha_native_parse(const ha_native **out, const char *text, apr_pool_t *p);
/* 0: `none`, there is nowhere to look. */
int ha_native_is_somewhere(const ha_native *);
/* Can an application keep its sessions like that at this store? NULL, or a text that says what is allowed. */
const char *ha_native_fits(const ha_native *, const ha_store *, apr_pool_t *p);

/* What the session with this id is called. 0: nothing that could be asked for; why. */
int ha_native_names(const ha_native *, ha_name_kind, const char *id, const char *issued, apr_time_t now, apr_pool_t *p,
                    ha_name names[HA_NAMES_MAX], const char **why);

/* One look, in two halves: something else may be done meanwhile. */
typedef struct ha_native_look ha_native_look;
ha_native_look *ha_native_begin(const ha_native *, ha_store *, const char *id, const char *issued, apr_time_t deadline,
                                apr_pool_t *p);
/* APR_SUCCESS: it is there; APR_NOTFOUND: it is not; else nobody knows, *why. */
apr_status_t ha_native_end(ha_native_look *, const char **why);

#endif
