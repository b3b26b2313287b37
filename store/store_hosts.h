/* store_hosts.h - the part of a node's URL that several providers have in common, and the probe of what listens there.
 *
 *     //[user:password@]host[:port][/rest]      //[:password@]host..      ///path/to/socket
 */
#ifndef HA_STORE_HOSTS_H
#define HA_STORE_HOSTS_H

#include <apr_network_io.h>

#include "../mod_session_ha.h"

typedef struct ha_host {
    const char *host;           /* a name, an address, or the path of a socket ('/' first) */
    apr_port_t port;            /* 0: a socket */
    const char *user;           /* NULL, or decoded */
    const char *password;       /* NULL, or decoded */
    const char *rest;           /* what follows the host's '/', "" if nothing; a socket has none */
} ha_host;

#define HA_HOST_SOCKET   1      /* what the provider knows to do with */
#define HA_HOST_IPV6     2
#define HA_HOST_USER     4
#define HA_HOST_PASSWORD 8
#define HA_HOST_REST     16

/* at: the URL after "scheme:". APR_EINVAL. */
apr_status_t ha_host_parse(const char *at, apr_port_t port, int allowed, apr_pool_t *p, ha_host *out);

/* Within this time for each of its addresses; its reads and writes have the same time-out. */
apr_status_t ha_host_connect(const ha_host *, apr_interval_time_t time, apr_pool_t *p, apr_socket_t **out);

/* Asks on a socket of its own, which waits no longer than call->deadline, until the reply (a text of less than `size` bytes)
 * has `end` in it. */
apr_status_t ha_host_ask(const ha_host *, ha_call *, const char *ask, const char *end, char *reply, apr_size_t size);

/* The same; one line, which must begin with one of the expected texts (the list ends with NULL). */
apr_status_t ha_host_probe(const ha_host *, ha_call *, const char *ask, const char *const *expected);

#endif
