/* store_hosts.c - see store_hosts.h. */
#include <string.h>

#include <apr_escape.h>
#include <apr_lib.h>
#include <apr_network_io.h>
#include <apr_strings.h>

#include "store_hosts.h"

#define PATIENCE_MIN apr_time_from_msec(10)

/* Percent-encoding undone; no control bytes afterwards, for it ends in a protocol. */
static const char *decoded(const char *text, apr_size_t len, apr_pool_t *p)
{
    char *copy = apr_pstrmemdup(p, text, len);
    apr_status_t rv = apr_unescape_url(copy, copy, APR_ESCAPE_STRING, NULL, NULL, 1, NULL);
    const char *c;

    if (rv != APR_SUCCESS && rv != APR_NOTFOUND) {      /* not found: nothing to undo */
        return NULL;
    }
    for (c = text; c + 2 < text + len; c++) {
        if (c[0] == '%' && c[1] == '0' && c[2] == '0') {
            return NULL;
        }
    }
    for (c = copy; *c; c++) {
        if (apr_iscntrl(*c)) {
            return NULL;
        }
    }
    return copy;
}

apr_status_t ha_host_parse(const char *at, apr_port_t port, int allowed, apr_pool_t *p, ha_host *out)
{
    const char *end, *sign, *colon, *c;
    char *host, *scope;
    apr_status_t rv;

    memset(out, 0, sizeof(*out));
    out->rest = "";
    for (c = at; *c; c++) {
        if (apr_iscntrl(*c) || *c == ' ') {
            return APR_EINVAL;
        }
    }
    if (strncmp(at, "//", 2) != 0) {
        return APR_EINVAL;
    }
    at += 2;
    if (*at == '/') {
        out->host = apr_pstrdup(p, at);
        return (allowed & HA_HOST_SOCKET) && strcspn(at, "?#@") == strlen(at) && strlen(at) < 100 ? APR_SUCCESS : APR_EINVAL;
    }
    end = at + strcspn(at, "/?#");
    if (*end == '/') {
        out->rest = apr_pstrdup(p, end + 1);
    }
    if (*end && *end != '/') {
        return APR_EINVAL;
    }
    for (sign = end; sign > at && sign[-1] != '@'; sign--)
        ;
    if (sign > at) {
        colon = memchr(at, ':', (apr_size_t)(sign - 1 - at));
        if (colon == NULL || !(allowed & HA_HOST_PASSWORD)
            || NULL == (out->password = decoded(colon + 1, (apr_size_t)(sign - 1 - colon - 1), p))) {
            return APR_EINVAL;
        }
        if (colon > at && (!(allowed & HA_HOST_USER) || NULL == (out->user = decoded(at, (apr_size_t)(colon - at), p)))) {
            return APR_EINVAL;
        }
    }
    if (*out->rest && !(allowed & HA_HOST_REST)) {
        return APR_EINVAL;
    }
    rv = apr_parse_addr_port(&host, &scope, &out->port, apr_pstrmemdup(p, sign, (apr_size_t)(end - sign)), p);
    if (rv != APR_SUCCESS || host == NULL || *host == '\0' || scope || strchr(host, '@')
        || (strchr(host, ':') && (*sign != '[' || !(allowed & HA_HOST_IPV6)))) {
        return APR_EINVAL;
    }
    if (out->port == 0) {
        out->port = port;
    }
    out->host = host;
    return APR_SUCCESS;
}

apr_status_t ha_host_connect(const ha_host *host, apr_interval_time_t time, apr_pool_t *p, apr_socket_t **out)
{
    apr_socket_t *sock = NULL;
    apr_sockaddr_t *sa;
    apr_status_t rv = apr_sockaddr_info_get(&sa, host->host, host->host[0] == '/' ? APR_UNIX : APR_UNSPEC, host->port, 0, p);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    /* a name may have several addresses; the first that listens */
    for (rv = APR_EGENERAL; sa && rv != APR_SUCCESS; sa = sa->next) {
        if (sock) {
            apr_socket_close(sock);
            sock = NULL;
        }
        if (APR_SUCCESS == (rv = apr_socket_create(&sock, sa->family, SOCK_STREAM, 0, p))
            && APR_SUCCESS == (rv = apr_socket_timeout_set(sock, time))) {
            rv = apr_socket_connect(sock, sa);
        }
    }
    if (rv != APR_SUCCESS && sock) {
        apr_socket_close(sock);
        sock = NULL;
    }
    *out = sock;
    return rv;
}

apr_status_t ha_host_ask(const ha_host *host, ha_call *call, const char *ask, const char *end, char *reply, apr_size_t size)
{
    apr_interval_time_t left = call->deadline - apr_time_now();
    apr_size_t len = strlen(ask), have = 0;
    apr_socket_t *sock = NULL;
    apr_status_t rv;
    char text[128];

    if (left < PATIENCE_MIN) {
        left = PATIENCE_MIN;
    }
    rv = ha_host_connect(host, left, call->pool, &sock);
    if (rv != APR_SUCCESS || APR_SUCCESS != (rv = apr_socket_send(sock, ask, &len))) {
        goto leave;
    }
    /* in however many pieces; who sends it slower than the time-out is not well */
    for (reply[0] = '\0'; rv == APR_SUCCESS && have < size - 1 && strstr(reply, end) == NULL; reply[have] = '\0') {
        len = size - 1 - have;
        rv = apr_socket_recv(sock, reply + have, &len);
        have += len;
        if (rv == APR_SUCCESS && apr_time_now() > call->deadline + left) {
            rv = APR_TIMEUP;
        }
    }
leave:
    if (sock) {
        apr_socket_close(sock);
    }
    if (rv != APR_SUCCESS) {
        call->why = apr_pstrdup(call->pool, apr_strerror(rv, text, sizeof(text)));
    }
    return rv;
}

apr_status_t ha_host_probe(const ha_host *host, ha_call *call, const char *ask, const char *const *expected)
{
    char reply[64];
    apr_status_t rv = ha_host_ask(host, call, ask, "\n", reply, sizeof(reply));
    int i;

    for (i = 0; rv == APR_SUCCESS && expected[i] && strncmp(reply, expected[i], strlen(expected[i])) != 0; i++)
        ;
    if (rv == APR_SUCCESS && expected[i] == NULL) {
        call->why = "a probe was answered in another protocol";
        rv = APR_EGENERAL;
    }
    return rv;
}
