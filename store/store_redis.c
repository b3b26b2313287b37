/* store_redis.c - redis://[[user]:password@]host[:port][/db]: Redis (or Valkey), by hiredis.
 *
 * SET with PX and NX, GET, DEL, PEXPIRE: all there since Redis 2.6.12. TLS: hiredis 0.14 has none, see the stunnel
 * recipe in doc/stores.md.
 *
 * Eviction (maxmemory-policy) and replication are the operator's: a copy that was evicted is a copy that is
 * missing, and a replica that was promoted without the last writes is a node that came back with old data.
 */
#ifdef HAVE_CONFIG_H
#include "autoconf.h"
#endif

#ifdef HAVE_HIREDIS

#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include <hiredis.h>

#include <apr_strings.h>

#include "store_handles.h"
#include "store_hosts.h"
#include "store_nodes.h"

#define PORT 6379

struct ha_node {
    ha_host at;
    const char *db;
    ha_handles *handles;        /* each child */
};

static const char *configure(ha_node **out, const char *url, apr_pool_t *pconf)
{
    static const char allowed[] = "expected redis://host, redis://host:port/db, redis://:password@host, redis://user:password@host or redis:///path/to/socket";
    ha_node *node = apr_pcalloc(pconf, sizeof(*node));

    if (APR_SUCCESS != ha_host_parse(strchr(url, ':') + 1, PORT,
                                     HA_HOST_SOCKET | HA_HOST_IPV6 | HA_HOST_USER | HA_HOST_PASSWORD | HA_HOST_REST, pconf, &node->at)
        || strspn(node->at.rest, "0123456789") != strlen(node->at.rest) || strlen(node->at.rest) > 5) {
        return allowed;
    }
    node->db = node->at.rest;
    *out = node;
    return NULL;
}

static struct timeval left(const ha_call *call)
{
    apr_interval_time_t time = call->deadline - apr_time_now();
    struct timeval tv;

    if (time < 1000) {
        time = 1000;
    }
    tv.tv_sec = (time_t)apr_time_sec(time);
    tv.tv_usec = (suseconds_t)apr_time_usec(time);
    return tv;
}

static apr_status_t context_broken(redisContext *c, ha_call *call)
{
    int err = apr_get_os_error();

    call->why = apr_pstrdup(call->pool, c->errstr);
    switch (c->err) {
    case REDIS_ERR_EOF:
        return APR_EOF;
    case REDIS_ERR_IO:
        return APR_STATUS_IS_EAGAIN(err) || APR_STATUS_IS_ETIMEDOUT(err) || APR_STATUS_IS_EINPROGRESS(err) ? APR_TIMEUP : err ? err : APR_ECONNRESET;
    case REDIS_ERR_PROTOCOL:
        return APR_EGENERAL;
    default:
        return APR_ECONNREFUSED;
    }
}

/* Redis said -ERROR. */
static apr_status_t refused(const redisReply *reply, ha_call *call)
{
    char *args;

    call->why = apr_pstrmemdup(call->pool, reply->str, reply->len < 200 ? (apr_size_t)reply->len : 200);
    /* "unknown command ..., with args beginning with": those are a key and a value */
    if ((args = strstr(call->why, ", with args")) != NULL) {
        *args = '\0';
    }
    if (strncmp(call->why, "OOM", 3) == 0) {
        return APR_ENOSPC;
    }
    if (strncmp(call->why, "NOAUTH", 6) == 0 || strncmp(call->why, "WRONGPASS", 9) == 0) {
        return APR_EACCES;
    }
    return APR_EGENERAL;
}

static void drop(void *handle)
{
    redisFree(handle);
}

/* A command of setting up: anything but +OK is the end. The reply to AUTH is not repeated: it has been seen to
 * quote what it did not like. */
static apr_status_t must_ok(redisContext *c, ha_call *call, int argc, const char **argv, const char *what)
{
    redisReply *reply = redisCommandArgv(c, argc, argv, NULL);
    apr_status_t rv = APR_SUCCESS;

    if (reply == NULL) {
        return context_broken(c, call);
    }
    if (reply->type != REDIS_REPLY_STATUS) {
        call->why = apr_psprintf(call->pool, "%s is refused", what);
        rv = APR_EACCES;
    }
    freeReplyObject(reply);
    return rv;
}

static apr_status_t make(void **handle, void *baton, ha_call *call, apr_pool_t *p)
{
    ha_node *node = baton;
    redisContext *c = node->at.host[0] == '/' ? redisConnectUnixWithTimeout(node->at.host, left(call))
                                              : redisConnectWithTimeout(node->at.host, node->at.port, left(call));
    const char *argv[3];
    apr_status_t rv;

    if (c == NULL) {
        return APR_ENOMEM;
    }
    if (c->err) {
        rv = context_broken(c, call);
        goto leave;
    }
    redisEnableKeepAlive(c);
    redisSetTimeout(c, left(call));
    if (node->at.password) {
        int argc = 0;

        argv[argc++] = "AUTH";
        if (node->at.user) {
            argv[argc++] = node->at.user;
        }
        argv[argc++] = node->at.password;
        if (APR_SUCCESS != (rv = must_ok(c, call, argc, argv, "the password"))) {
            goto leave;
        }
    }
    if (*node->db) {
        argv[0] = "SELECT";
        argv[1] = node->db;
        if (APR_SUCCESS != (rv = must_ok(c, call, 2, argv, "the database"))) {
            goto leave;
        }
    }
    *handle = c;
    return APR_SUCCESS;
leave:
    redisFree(c);
    return rv;
}

static apr_status_t open_(ha_node *node, ha_call *call, apr_pool_t *pchild)
{
    static const ha_handle_kind kind = { make, drop };

    return ha_handles_open(&node->handles, &kind, node, pchild);
}

typedef struct ha_question {
    int argc;
    const char *argv[6];
    size_t len[6];
    ha_blob *found;
    int nil;                    /* what nil means */
} ha_question;

static void word(ha_question *q, const char *bytes, size_t len)
{
    q->argv[q->argc] = bytes;
    q->len[q->argc++] = len;
}

/* Takes the next reply off the connection: the one to q, for replies come in the order of the questions. */
static apr_status_t answer_to(const ha_question *q, redisContext *c, ha_call *call, int *gone)
{
    void *next = NULL;
    redisReply *reply;
    apr_status_t rv = APR_SUCCESS;

    if (redisGetReply(c, &next) != REDIS_OK || next == NULL) {
        *gone = 1;
        return context_broken(c, call);
    }
    reply = next;
    switch (reply->type) {
    case REDIS_REPLY_NIL:
        rv = q->nil;
        break;
    case REDIS_REPLY_STRING:
        if (q->found) {
            q->found->data = apr_pmemdup(call->pool, reply->str, (apr_size_t)reply->len + 1);
            q->found->len = (apr_size_t)reply->len;
            break;
        }
        rv = APR_EGENERAL;
        break;
    case REDIS_REPLY_STATUS:
        rv = q->found ? APR_EGENERAL : APR_SUCCESS;
        break;
    case REDIS_REPLY_INTEGER:
        rv = q->found ? APR_EGENERAL : reply->integer || !q->nil ? APR_SUCCESS : q->nil;
        break;
    case REDIS_REPLY_ERROR:
        rv = refused(reply, call);
        break;
    default:
        rv = APR_EGENERAL;
        break;
    }
    if (rv == APR_EGENERAL && reply->type != REDIS_REPLY_ERROR) {
        *gone = 1;              /* out of step */
        call->why = "a reply to another question";
    }
    freeReplyObject(reply);
    return rv;
}

/* Questions that are sent together; the result is the first one's, the others' are left with them. */
typedef struct ha_questions {
    ha_question *q;
    apr_status_t *rv;
    int n;
} ha_questions;

static apr_status_t ask_all_with(void *handle, ha_call *call, void *args, int *gone)
{
    ha_questions *all = args;
    redisContext *c = handle;
    apr_status_t rv = APR_SUCCESS;
    int i;

    *gone = 0;
    redisSetTimeout(c, left(call));
    for (i = 0; i < all->n; i++) {
        if (redisAppendCommandArgv(c, all->q[i].argc, all->q[i].argv, all->q[i].len) != REDIS_OK) {
            *gone = 1;
            return context_broken(c, call);
        }
    }
    for (i = 0; i < all->n && !*gone; i++) {
        rv = all->rv[i] = answer_to(&all->q[i], c, call, gone);
    }
    return *gone ? rv : all->rv[0];
}

static apr_status_t ask_with(void *handle, ha_call *call, void *args, int *gone)
{
    apr_status_t rv;
    ha_questions one = { args, &rv, 1 };

    return ask_all_with(handle, call, &one, gone);
}

static apr_status_t get(ha_node *node, ha_call *call, const char *key, ha_blob *out)
{
    ha_question q = { .found = out, .nil = APR_NOTFOUND };

    word(&q, "GET", 3);
    word(&q, key, strlen(key));
    return ha_handles_use(node->handles, call, ask_with, &q);
}

static apr_status_t remove_(ha_node *node, ha_call *call, const char *key)
{
    ha_question q = { .nil = APR_SUCCESS };

    word(&q, "DEL", 3);
    word(&q, key, strlen(key));
    return ha_handles_use(node->handles, call, ask_with, &q);
}

static ha_question set(ha_call *call, const char *key, const ha_blob *value, apr_time_t expires, int only_new)
{
    ha_question q = { .nil = APR_EEXIST };
    apr_interval_time_t ttl = (expires - apr_time_now()) / 1000;
    char *ms;

    word(&q, "SET", 3);
    word(&q, key, strlen(key));
    word(&q, value->len ? value->data : "", value->len);
    if (expires) {
        ms = apr_psprintf(call->pool, "%" APR_TIME_T_FMT, ttl < 1 ? 1 : ttl);
        word(&q, "PX", 2);
        word(&q, ms, strlen(ms));
    }
    if (only_new) {
        word(&q, "NX", 2);
    }
    return q;
}

static apr_status_t put(ha_node *node, ha_call *call, const char *key, const ha_blob *value, apr_time_t expires)
{
    ha_question q;

    if (expires && expires - apr_time_now() < 1000) {
        /* Redis knows no time of 0: what has expired already is removed */
        return remove_(node, call, key);
    }
    q = set(call, key, value, expires, 0);
    return ha_handles_use(node->handles, call, ask_with, &q);
}

static apr_status_t add(ha_node *node, ha_call *call, const char *key, const ha_blob *value, apr_time_t expires)
{
    ha_question q = set(call, key, value, expires, 1);

    return ha_handles_use(node->handles, call, ask_with, &q);
}

/* A pipeline: the commands of one connection are run in their order. Not MULTI: nothing here minds what other connections
 * ask for in between. */
static apr_status_t claim(ha_node *node, ha_call *call, const char *key, const ha_blob *value, apr_time_t expires, ha_look *looks, int n)
{
    ha_question *q = apr_pcalloc(call->pool, (apr_size_t)(n + 1) * sizeof(*q));
    apr_status_t *rv = apr_pcalloc(call->pool, (apr_size_t)(n + 1) * sizeof(*rv)), result;
    ha_questions all = { q, rv, 0 };
    int i, first = key != NULL;

    if (key) {
        q[all.n++] = set(call, key, value, expires, 1);
    }
    for (i = 0; i < n; i++) {
        ha_question *get_it = &q[all.n++];

        rv[first + i] = looks[i].rv;
        get_it->found = &looks[i].found;
        get_it->nil = APR_NOTFOUND;
        word(get_it, "GET", 3);
        word(get_it, looks[i].key, strlen(looks[i].key));
    }
    result = ha_handles_use(node->handles, call, ask_all_with, &all);
    for (i = 0; i < n; i++) {
        looks[i].rv = rv[first + i];
    }
    return key || (result != APR_SUCCESS && result != looks[0].rv) ? result : APR_SUCCESS;
}

static apr_status_t touch(ha_node *node, ha_call *call, const char *key, apr_time_t expires)
{
    ha_question q = { .nil = APR_NOTFOUND };
    apr_interval_time_t ttl = (expires - apr_time_now()) / 1000;
    /* a span, as for SET: the clock of its machine may be another one */
    char *ms = apr_psprintf(call->pool, "%" APR_TIME_T_FMT, ttl < 1 ? 1 : ttl);

    word(&q, expires ? "PEXPIRE" : "PERSIST", 7);
    word(&q, key, strlen(key));
    if (expires) {
        word(&q, ms, strlen(ms));
    }
    return ha_handles_use(node->handles, call, ask_with, &q);
}

/* Whatever type it has; what expired is not there, and an empty one cannot be. */
static apr_status_t has(ha_node *node, ha_call *call, const ha_name *name)
{
    ha_question q = { .nil = APR_NOTFOUND };

    word(&q, "EXISTS", 6);
    word(&q, name->text, strlen(name->text));
    return ha_handles_use(node->handles, call, ask_with, &q);
}

/* On a connection of its own, with the password: while it is refused the node is down. A user who may do no PING is well. */
static apr_status_t probe(ha_node *node, ha_call *call)
{
    ha_question q = { .nil = APR_SUCCESS };
    void *handle;
    int gone;
    apr_status_t rv = make(&handle, node, call, call->pool);

    if (rv == APR_SUCCESS) {
        word(&q, "PING", 4);
        rv = ask_with(handle, call, &q, &gone);
        drop(handle);
        if (rv != APR_SUCCESS && call->why && strncmp(call->why, "NOPERM", 6) == 0) {
            rv = APR_SUCCESS;
        }
    }
    return rv;
}

/* The value of a line "name:..." of INFO. */
static const char *info_of(const char *info, const char *name)
{
    apr_size_t len = strlen(name);
    const char *line;

    for (line = info; *line; line += line[strcspn(line, "\n")] ? strcspn(line, "\n") + 1 : strlen(line)) {
        if (strncmp(line, name, len) == 0 && line[len] == ':') {
            return line + len + 1;
        }
    }
    return NULL;
}

/* One that loads what it had saved has another run_id too: how much it had not saved, nobody knows. */
static apr_status_t recall(ha_node *node, ha_call *call, ha_memory *out)
{
    ha_blob info = { "", 0 };
    ha_question q = { .found = &info };
    const char *run, *evicted;
    void *handle;
    int gone;
    apr_status_t rv = make(&handle, node, call, call->pool);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    word(&q, "INFO", 4);
    rv = ask_with(handle, call, &q, &gone);
    drop(handle);
    if (rv == APR_SUCCESS) {
        run = info_of(info.data, "run_id");
        evicted = info_of(info.data, "evicted_keys");
        if (run == NULL || evicted == NULL) {
            call->why = "INFO is not Redis's";
            return APR_EGENERAL;
        }
        out->life = ha_store_hash(run, strcspn(run, "\r\n")) | 1;
        out->evicted = (apr_uint64_t)apr_atoi64(evicted);
    }
    return rv;
}

const ha_store_provider ha_store_redis = {
    .name = "redis",
    .configure = configure,
    .open = open_,
    .get = get,
    .put = put,
    .add = add,
    .remove = remove_,
    .claim = claim,
    .touch = touch,
    .has = has,
    .names = HA_NAME_KEY,
    .probe = probe,
    .recall = recall,
};

#else
typedef int ha_store_redis_is_not_built;
#endif
