/* session_id.h - find the session id and the route in a request. Pure: no allocation
 * but from the pool given, no server. One strict parser, for what stock mod_proxy_balancer
 * reads leniently.
 *
 * Where: the path parameter first (as mod_proxy_balancer does), then the cookie, then the
 * header. The first place that holds a well-formed id decides. Of several cookies of the
 * name, the first well-formed one whose route a member has; else the first well-formed one.
 * A value may be quoted ("...") or percent-encoded; both are undone. After that every byte
 * must be of the alphabet 0-9 A-Z a-z and !#$%&'()*+-./:<=>?@[]^_`{|}~ less the characters
 * `;` `,` `"` `\` and space; the id has 1..HA_ID_MAX bytes. Anything else is no id.
 *
 * The route is what follows a separator: the first one if a member has that route (as stock
 * reads it), else the last one if a member has that (a dotted id), else what follows the
 * first (the route of a member that is gone). What is longer than HA_ROUTE_MAX is nobody's route: the value is an id
 * without one. A cookie's value that begins with the separator is only a route (ROUTEID=.route, as httpd's documentation sets
 * it); it counts if there is no id. */
#ifndef HA_SESSION_ID_H
#define HA_SESSION_ID_H

#include "../mod_session_ha.h"

typedef struct ha_id_rules {    /* from the configuration; no allocation per request */
    const char *cookie;         /* name, or NULL */
    const char *path;           /* name, or NULL */
    const char *header;         /* name, or NULL: used by the caller, see ha_id_parse */
    char separator;             /* between id and route; 0 (stickysessionsep=off): the whole value is the id, and the
                                 * route as well if a member has it */
    int whole;                  /* 1: SessionHAId names a place without a route: the whole value is the id */
} ha_id_rules;

typedef struct ha_id {
    const char *id;             /* without route; NUL-terminated, in the pool */
    apr_size_t id_len;
    const char *route;          /* NULL: none; id + id_len + 1 if it stands behind the id */
    int route_known;            /* a member has this route */
    enum { HA_ID_PATH, HA_ID_COOKIE, HA_ID_HEADER } place;
    int stock_sees;             /* 1: mod_proxy_balancer's own reading gives this very route (or none, as here),
                                 * so nobody need steer it */
} ha_id;

/* Does a member have this route? Called for one or two candidates, len bytes, not terminated. */
typedef int ha_id_known_fn(void *baton, const char *route, apr_size_t len);

/* The alphabet and length above; for ids that come from members too. */
int ha_id_wellformed(const char *id, apr_size_t len);

/* url: what mod_proxy_balancer will read ("balancer://name/path;jsessionid=..?.."), may be NULL.
 * cookies: the Cookie field, may be NULL. header: the value of rules->header, may be NULL.
 * Returns APR_SUCCESS, or APR_NOTFOUND (out->id NULL, but there may be a route); out->stock_sees is set in both cases:
 * 0 with APR_NOTFOUND means that stock would follow a look-alike. */
apr_status_t ha_id_parse(const ha_id_rules *rules, const char *url, const char *cookies, const char *header,
                         ha_id_known_fn *known, void *baton, apr_pool_t *p, ha_id *out);

#endif
