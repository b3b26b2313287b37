/* store_memcached_claim.c - an add and gets in one exchange with memcached, which neither client library can do: both wait
 * for the answer to an add before they send anything else.
 *
 *   > add KEY 0 TTL LEN \r\n VALUE \r\n
 *   > get KEY KEY2 KEY3 \r\n
 *   < STORED, NOT_STORED or SERVER_ERROR ...
 *   < VALUE KEY FLAGS LEN \r\n DATA \r\n  (for each that is there)  END
 *
 * The text protocol, on connections of our own. memcached runs the commands of one connection in their order, and
 * its get asks for one key after the other. What stands between us and several memcacheds (mcrouter, twemproxy) may not keep the
 * order: a node is one server. Each wait is bounded by the deadline, so that a thread is never held by a node that hangs.
 */
#include <string.h>

#include <apr_lib.h>
#include <apr_network_io.h>
#include <apr_strings.h>

#include "store_handles.h"
#include "store_memcached.h"
#include "store_nodes.h"

#define LINE_LEN  512
#define VALUE_MAX (2 * 1024 * 1024)     /* more than we ever write under a key */

typedef struct ha_line {        /* a connection, and what has been read of it and not used */
    apr_socket_t *sock;
    apr_size_t at, len;
    char bytes[16 * 1024];
} ha_line;

typedef struct ha_question {
    const char *key;
    const ha_blob *value;
    apr_time_t expires;
    ha_look *looks;
    int n;
} ha_question;

static void drop(void *handle)
{
    ha_line *c = handle;

    apr_socket_close(c->sock);
}

static apr_interval_time_t left(const ha_call *call)
{
    apr_interval_time_t time = call->deadline - apr_time_now();

    return time < 1000 ? 1000 : time;
}

static apr_status_t make(void **handle, void *baton, ha_call *call, apr_pool_t *p)
{
    const ha_host *at = baton;
    ha_line *c = apr_pcalloc(p, sizeof(*c));
    apr_status_t rv = ha_host_connect(at, left(call), p, &c->sock);
    char why[128];

    if (rv != APR_SUCCESS) {
        call->why = apr_pstrdup(call->pool, apr_strerror(rv, why, sizeof(why)));
    }
    *handle = c;
    return rv;
}

static apr_status_t send_all(ha_line *c, const char *bytes, apr_size_t len)
{
    apr_status_t rv = APR_SUCCESS;
    apr_size_t n;

    for (; rv == APR_SUCCESS && len; bytes += n, len -= n) {
        n = len;
        rv = apr_socket_send(c->sock, bytes, &n);
    }
    return rv;
}

static apr_status_t fill(ha_line *c, ha_call *call)
{
    apr_status_t rv = APR_SUCCESS;

    if (c->at < c->len) {
        return APR_SUCCESS;
    }
    if (apr_time_now() > call->deadline) {
        return APR_TIMEUP;
    }
    apr_socket_timeout_set(c->sock, left(call));
    c->at = 0;
    c->len = sizeof(c->bytes);
    rv = apr_socket_recv(c->sock, c->bytes, &c->len);
    return c->len ? APR_SUCCESS : rv == APR_SUCCESS ? APR_EOF : rv;
}

/* To the end of a line, without it. */
static apr_status_t read_line(ha_line *c, ha_call *call, char line[LINE_LEN])
{
    apr_size_t n = 0;
    apr_status_t rv;

    for (;;) {
        if (APR_SUCCESS != (rv = fill(c, call))) {
            return rv;
        }
        if ((line[n] = c->bytes[c->at++]) == '\n') {
            break;
        }
        if (++n == LINE_LEN) {
            return APR_EGENERAL;
        }
    }
    if (n == 0 || line[n - 1] != '\r') {
        return APR_EGENERAL;
    }
    line[n - 1] = '\0';
    return APR_SUCCESS;
}

static apr_status_t read_bytes(ha_line *c, ha_call *call, char *out, apr_size_t len)
{
    apr_status_t rv = APR_SUCCESS;
    apr_size_t n;

    for (; len && APR_SUCCESS == (rv = fill(c, call)); out += n, len -= n) {
        n = c->len - c->at < len ? c->len - c->at : len;
        memcpy(out, c->bytes + c->at, n);
        c->at += n;
    }
    return rv;
}

/* "VALUE key flags length": the look that it answers, and how long it is; NULL: to no question of ours. */
static ha_look *value_of(char *line, const ha_question *q, apr_size_t *len)
{
    char *last, *word = apr_strtok(line, " ", &last), *key = apr_strtok(NULL, " ", &last), *end;
    const char *length;
    int i;

    if (word == NULL || strcmp(word, "VALUE") != 0 || key == NULL || apr_strtok(NULL, " ", &last) == NULL
        || NULL == (length = apr_strtok(NULL, " ", &last)) || !apr_isdigit(*length)) {
        return NULL;
    }
    *len = (apr_size_t)apr_strtoi64(length, &end, 10);
    for (i = 0; i < q->n && strcmp(q->looks[i].key, key) != 0; i++)
        ;
    return *end || *len > VALUE_MAX || i == q->n || q->looks[i].rv != APR_NOTFOUND ? NULL : &q->looks[i];
}

static apr_status_t read_values(ha_line *c, ha_call *call, ha_question *q)
{
    char line[LINE_LEN], end[2], *data;
    apr_status_t rv;
    apr_size_t len;
    ha_look *it;
    int i;

    for (i = 0; i < q->n; i++) {
        q->looks[i].rv = APR_NOTFOUND;
    }
    while (APR_SUCCESS == (rv = read_line(c, call, line)) && strcmp(line, "END") != 0) {
        if (NULL == (it = value_of(line, q, &len))) {
            return APR_EGENERAL;
        }
        data = apr_palloc(call->pool, len + 1);
        if (APR_SUCCESS != (rv = read_bytes(c, call, data, len)) || APR_SUCCESS != (rv = read_bytes(c, call, end, 2))) {
            return rv;
        }
        if (memcmp(end, "\r\n", 2) != 0) {
            return APR_EGENERAL;
        }
        it->found.data = data;
        it->found.len = len;
        it->rv = APR_SUCCESS;
    }
    return rv;
}

static apr_status_t added(const char *line, ha_call *call)
{
    if (strcmp(line, "STORED") == 0) {
        return APR_SUCCESS;
    }
    if (strcmp(line, "NOT_STORED") == 0) {
        return APR_EEXIST;
    }
    if (strncmp(line, "SERVER_ERROR ", 13) == 0) {
        call->why = "does not take the value: larger than its item limit, or no memory left";
        return APR_ENOSPC;
    }
    return APR_EGENERAL;
}

static apr_status_t ask_with(void *handle, ha_call *call, void *args, int *gone)
{
    ha_line *c = handle;
    ha_question *q = args;
    apr_status_t rv, result = APR_SUCCESS;
    apr_size_t size = 64 + (q->key ? HA_STORE_KEY_MAX + q->value->len : 0), len = 0;
    char line[LINE_LEN], *text;
    int i;

    for (i = 0; i < q->n; i++) {
        size += strlen(q->looks[i].key) + 1;
    }
    text = apr_palloc(call->pool, size);
    if (q->key) {
        len = (apr_size_t)apr_snprintf(text, size, "add %s 0 %u %" APR_SIZE_T_FMT "\r\n", q->key, ha_memcached_ttl(q->expires), q->value->len);
        memcpy(text + len, q->value->len ? q->value->data : "", q->value->len);
        len += q->value->len;
        len += (apr_size_t)apr_snprintf(text + len, size - len, "\r\n");
    }
    len += (apr_size_t)apr_snprintf(text + len, size - len, "get");
    for (i = 0; i < q->n; i++) {
        len += (apr_size_t)apr_snprintf(text + len, size - len, " %s", q->looks[i].key);
    }
    len += (apr_size_t)apr_snprintf(text + len, size - len, "\r\n");

    *gone = 1;                  /* unless all has come */
    apr_socket_timeout_set(c->sock, left(call));
    c->at = c->len = 0;
    if (APR_SUCCESS != (rv = send_all(c, text, len))) {
        goto leave;
    }
    if (q->key) {
        if (APR_SUCCESS != (rv = read_line(c, call, line)) || APR_EGENERAL == (rv = result = added(line, call))) {
            goto leave;
        }
    }
    if (APR_SUCCESS == (rv = read_values(c, call, q))) {
        *gone = c->at < c->len;
    }
leave:
    if (rv != APR_SUCCESS) {
        char why[128];

        for (i = 0; i < q->n; i++) {
            q->looks[i].rv = rv;
        }
        call->why = rv == APR_EGENERAL ? "an answer that is none of memcached's" : apr_pstrdup(call->pool, apr_strerror(rv, why, sizeof(why)));
    }
    return rv == APR_SUCCESS ? result : rv;
}

apr_status_t ha_memcached_lines(ha_handles **out, const ha_host *at, apr_pool_t *pchild)
{
    static const ha_handle_kind kind = { make, drop };

    return ha_handles_open(out, &kind, (void *)at, pchild);
}

apr_status_t ha_memcached_claim(ha_handles *lines, ha_call *call, const char *key, const ha_blob *value, apr_time_t expires, ha_look *looks, int n)
{
    ha_question q = { key, value, expires, looks, n };

    return ha_handles_use(lines, call, ask_with, &q);
}
