/* store_dbd.c - dbd:driver,params: a relational database, by apr_dbd (mysql, pgsql, sqlite3).
 *
 *     CREATE TABLE session_ha (k, expires, value)      conf/session_ha.sql, for each database
 *
 * The table is made by the first connection of a child, if it is not there and the user may. The value is base64: apr_dbd's
 * drivers have no common idea of a blob. Statements are sent as text, whose parts are base64, numbers and
 * an escaped key: apr_dbd's prepared ones allocate a megabyte for each row they fetch, and are gone when the
 * connection is.
 *
 * An add is one statement that writes if there is nothing, or nothing that has not expired; the database
 * says how many rows it wrote. Time is httpd's, so the clocks of several httpds must agree to the second.
 *
 * apr_dbd has no time-outs, so calls are left behind by the executor when the database hangs.
 */
#include <string.h>

#include <apr_base64.h>
#include <apr_dbd.h>
#include <apr_lib.h>
#include <apr_strings.h>

#include "store_dirs.h"
#include "store_handles.h"
#include "store_nodes.h"
#include "store_params.h"

/* What differs between the databases. */
typedef struct ha_dialect {
    const char *driver;
    const char *package;        /* Debian's */
    const char *params;         /* that may be given; the driver passes over what it does not know, and goes elsewhere */
    const char *create[3];
    const char *setup[4];       /* of each connection */
    const char *put_end;        /* after INSERT INTO session_ha VALUES (...) */
    const char *add_end;        /* the same; the time twice or once, see add_times */
    int add_times;
    int seek;                   /* how apr_dbd_select() says at once what is wrong: pgsql with, mysql without */
} ha_dialect;

#define ON_CONFLICT " ON CONFLICT (k) DO UPDATE SET expires = excluded.expires, value = excluded.value"

static const ha_dialect dialects[] = {
    { "mysql", "libaprutil1-dbd-mysql", "host port sock user pass dbname group fldsz",
      { "CREATE TABLE IF NOT EXISTS session_ha (k VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,"
        " expires BIGINT NOT NULL, value LONGTEXT CHARACTER SET ascii NOT NULL, KEY session_ha_expires (expires))" },
      { NULL },
      " ON DUPLICATE KEY UPDATE expires = VALUES(expires), value = VALUES(value)",
      /* from left to right: value while expires is still the old one */
      " ON DUPLICATE KEY UPDATE value = IF(expires <> 0 AND expires <= %s, VALUES(value), value),"
      " expires = IF(expires <> 0 AND expires <= %s, VALUES(expires), expires)", 2, 0 },
    { "pgsql", "libaprutil1-dbd-pgsql",
      "host hostaddr port user password passfile dbname service connect_timeout keepalives keepalives_idle keepalives_interval"
      " keepalives_count tcp_user_timeout target_session_attrs options application_name client_encoding channel_binding require_auth"
      " sslmode sslnegotiation sslrootcert sslcert sslkey sslpassword sslcertmode sslcrl sslcrldir sslsni sslcompression"
      " ssl_min_protocol_version ssl_max_protocol_version requirepeer gssencmode gsslib krbsrvname",
      { "CREATE TABLE IF NOT EXISTS session_ha (k VARCHAR(200) NOT NULL PRIMARY KEY, expires BIGINT NOT NULL, value TEXT NOT NULL)",
        "CREATE INDEX IF NOT EXISTS session_ha_expires ON session_ha (expires)" },
      { NULL },
      ON_CONFLICT, ON_CONFLICT " WHERE session_ha.expires <> 0 AND session_ha.expires <= %s", 1, 1 },
    { "sqlite3", "libaprutil1-dbd-sqlite3", NULL,
      { "CREATE TABLE IF NOT EXISTS session_ha (k TEXT NOT NULL PRIMARY KEY, expires BIGINT NOT NULL, value TEXT NOT NULL)",
        "CREATE INDEX IF NOT EXISTS session_ha_expires ON session_ha (expires)" },
      /* SQLite waits under a lock of the driver's that all connections of the process want, also those to other files: not for
       * long. Then the driver waits, a tenth of a second each time, without it. A killed process loses nothing, a power cut the last writes. */
      { "PRAGMA busy_timeout = 20", "PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL" },
      ON_CONFLICT, ON_CONFLICT " WHERE session_ha.expires <> 0 AND session_ha.expires <= %s", 1, 1 },
};
#define DIALECTS (sizeof(dialects) / sizeof(dialects[0]))

struct ha_node {
    const ha_dialect *sql;
    const apr_dbd_driver_t *driver;
    const char *params;
    const char *file;           /* sqlite3 */
    ha_handles *handles;        /* each child */
};

typedef struct ha_connection {
    ha_node *node;
    apr_dbd_t *db;
    apr_pool_t *pool;
} ha_connection;

static int is_allowed(const char *list, const ha_params *params)
{
    apr_size_t len;

    for (; *list; list += len + (list[len] == ' ')) {
        len = strcspn(list, " ");
        if (len == params->key_len && strncmp(list, params->key, len) == 0) {
            return 1;
        }
    }
    return 0;
}

/* A parameter is called by its number: what looks like one may be the end of a password with a space in it. */
static const char *wrong_param(const ha_dialect *sql, const char *text, apr_pool_t *p)
{
    apr_size_t i;
    ha_params params;
    int n, nth;

    ha_params_begin(&params, sql->driver, strlen(sql->driver), text);
    for (nth = 1; (n = ha_params_next(&params)) > 0; nth++) {
        if (params.quotes == 0 && ha_params_is(&params, "flags")) {
            return "flags= is not understood here: the number of rows that changed is how an add knows";
        }
        if (!is_allowed(sql->params, &params)) {
            break;
        }
        if (ha_params_is(&params, "port")) {
            for (i = 0; i < params.value_len && apr_isdigit(params.value[i]); i++)
                ;
            if (i < params.value_len || i < 1 || i > 5) {
                return "port= is to be a number";
            }
        }
    }
    if (n == 0) {
        return NULL;
    }
    return apr_psprintf(p, "parameter %d of dbd:%s is not one of %s, each as key=value, separated by commas%s", nth, sql->driver, sql->params,
                        params.quotes ? " or spaces; 'a value with spaces' in quotes" : "; a value has no space, comma, semicolon or |");
}

static const char *configure(ha_node **out, const char *url, apr_pool_t *pconf)
{
    static const char allowed[] = "expected dbd:mysql,host=..,user=..,pass=..,dbname=.., dbd:pgsql,host=..,user=..,password=..,dbname=.. or dbd:sqlite3,/path/to/file";
    ha_node *node = apr_pcalloc(pconf, sizeof(*node));
    const char *driver = strchr(url, ':') + 1, *params = driver + strcspn(driver, ","), *wrong;
    char *c;
    size_t i;

    if (*params != ',' || params[1] == '\0') {
        return allowed;
    }
    for (i = 0; i < DIALECTS && node->sql == NULL; i++) {
        if (strlen(dialects[i].driver) == (size_t)(params - driver) && strncmp(driver, dialects[i].driver, (size_t)(params - driver)) == 0) {
            node->sql = &dialects[i];
        }
    }
    if (node->sql == NULL) {
        return allowed;
    }
    params++;
    if (node->sql->params == NULL) {
        if (*params != '/') {
            return allowed;
        }
        node->params = node->file = apr_pstrdup(pconf, params);
    }
    else if (NULL != (wrong = wrong_param(node->sql, params, pconf))) {
        return wrong;
    }
    else if (strcmp(node->sql->driver, "mysql") == 0) {
        /* or a connection that was lost would come back by itself, between a write and its answer */
        node->params = apr_pstrcat(pconf, params, ",reconnect=0", NULL);
    }
    else {
        node->params = c = apr_pstrdup(pconf, params);
        /* libpq separates by spaces, which need quotes in httpd's configuration: commas will do */
        for (; strchr(params, '\'') == NULL && *c; c++) {
            *c = *c == ',' ? ' ' : *c;
        }
    }
    if (APR_SUCCESS != apr_dbd_init(pconf) || APR_SUCCESS != apr_dbd_get_driver(pconf, node->sql->driver, &node->driver)) {
        return apr_psprintf(pconf, "the driver '%s' of apr_dbd cannot be loaded (Debian: apt-get install %s)", node->sql->driver, node->sql->package);
    }
    *out = node;
    return NULL;
}

/* SQLite writes files beside its file: the directory is to be the children's. */
static apr_status_t prepare(ha_node *node, ha_call *call, apr_uid_t uid, apr_gid_t gid)
{
    const char *slash = node->file ? strrchr(node->file, '/') : NULL;

    return slash && slash > node->file ? ha_dir_prepare(apr_pstrmemdup(call->pool, node->file, (apr_size_t)(slash - node->file)), call, uid, gid)
                                       : APR_SUCCESS;
}

static const char *first_line(const char *text, apr_pool_t *p, const char *otherwise)
{
    return text ? apr_pstrmemdup(p, text, strcspn(text, "\r\n")) : otherwise;
}

static int find_table(ha_connection *c, apr_pool_t *p);

/* What the database said to err; gone if it says nothing any more, or has lost the table (it was replaced by an empty
 * one): the next connection makes it. */
static apr_status_t broken(ha_connection *c, ha_call *call, int err, int *gone)
{
    call->why = first_line(apr_dbd_error(c->node->driver, c->db, err), call->pool, "the database refuses");
    if (strstr(call->why, " full") || strstr(call->why, "No space") || strstr(call->why, "bigger than")) {
        return APR_ENOSPC;
    }
    *gone = 1;
    if (apr_dbd_check_conn(c->node->driver, call->pool, c->db) != APR_SUCCESS) {
        return APR_ECONNRESET;
    }
    /* SQLite says so once, of the old table; the next question would be about the new one */
    *gone = find_table(c, call->pool) != 0 || strstr(call->why, "schema has changed") != NULL;
    return APR_EGENERAL;
}

static int query(ha_connection *c, int *rows, const char *statement)
{
    int n = 0, err = apr_dbd_query(c->node->driver, c->db, &n, statement);

    if (rows) {
        *rows = n;
    }
    return err;
}

/* Statements for this begin with SELECT 'row': they have one row with 1 + n columns, always. The drivers do not tell
 * "no row" from a connection that was lost while rows came, so no row at all is an error here.
 * found: the others, NULL if one is "-" (not NULL itself, which pgsql's driver makes an empty text).
 * err: of the SELECT. -1: the error is unknown. */
static int the_row(ha_connection *c, apr_pool_t *p, int err, apr_dbd_results_t *res, const char **found, int n)
{
    apr_dbd_row_t *row = NULL;
    const char *entry;
    int rows = 0, i;

    memset(found, 0, (size_t)n * sizeof(*found));
    /* to the end: a result that is not read to it keeps the connection busy */
    while (err == 0 && apr_dbd_get_row(c->node->driver, p, res, &row, -1) == 0) {
        rows += NULL != (entry = apr_dbd_get_entry(c->node->driver, row, 0)) && strcmp(entry, "row") == 0;
        for (i = 0; i < n; i++) {
            if (NULL != (entry = apr_dbd_get_entry(c->node->driver, row, i + 1)) && strcmp(entry, "-") != 0) {
                found[i] = apr_pstrdup(p, entry);
            }
        }
    }
    return err ? err : rows == 1 ? 0 : -1;
}

static int select_row(ha_connection *c, apr_pool_t *p, const char *statement, const char **found, int n)
{
    apr_dbd_results_t *res = NULL;
    int err = apr_dbd_select(c->node->driver, p, c->db, &res, statement, c->node->sql->seek);

    return the_row(c, p, err, res, found, n);
}

/* 0: it is there and can be read; else the error */
static int find_table(ha_connection *c, apr_pool_t *p)
{
    const char *found;

    return select_row(c, p, "SELECT 'row', COALESCE((SELECT k FROM session_ha WHERE k = ''), '-')", &found, 1);
}

static void drop(void *handle)
{
    ha_connection *c = handle;

    apr_dbd_close(c->node->driver, c->db);
}

static apr_status_t make(void **handle, void *baton, ha_call *call, apr_pool_t *p)
{
    ha_node *node = baton;
    ha_connection *c = apr_pcalloc(p, sizeof(*c));
    const char *error = NULL;
    apr_status_t rv;
    int i, gone = 0, err;

    c->node = node;
    c->pool = p;
    if (APR_SUCCESS != apr_dbd_open_ex(node->driver, p, node->params, &c->db, &error)) {
        call->why = first_line(error, call->pool, "the database cannot be reached");
        return APR_ECONNREFUSED;
    }
    for (i = 0; i < 4 && node->sql->setup[i]; i++) {
        query(c, NULL, node->sql->setup[i]);
    }
    if (find_table(c, call->pool) != 0) {
        /* Several children may come here at once: what counts is that it is there afterwards. */
        for (i = 0; i < 3 && node->sql->create[i]; i++) {
            query(c, NULL, node->sql->create[i]);
        }
        if (0 != (err = find_table(c, call->pool))) {
            rv = broken(c, call, err, &gone);
            call->why = apr_psprintf(call->pool, "the table session_ha is not there and cannot be made, see conf/session_ha.sql (%s)", call->why);
            drop(c);
            return rv;
        }
    }
    *handle = c;
    return APR_SUCCESS;
}

static apr_status_t open_(ha_node *node, ha_call *call, apr_pool_t *pchild)
{
    static const ha_handle_kind kind = { make, drop };

    return ha_handles_open(&node->handles, &kind, node, pchild);
}

typedef struct ha_question {
    enum { LOOK, PUT, ADD, REMOVE, TOUCH, SWEEP } what;
    const char *key;
    const ha_blob *value;
    apr_time_t expires;
    ha_look *looks;
    int n;
} ha_question;

#define LOOKS_MAX 8

static const char *number(apr_pool_t *p, apr_time_t n)
{
    return apr_psprintf(p, "%" APR_TIME_T_FMT, n);
}

/* INSERT INTO session_ha ..., built once for the size it has: the value may be large. */
static const char *insert(ha_connection *c, ha_call *call, const ha_question *q, const char *key)
{
    const char *now = number(call->pool, apr_time_now());
    const char *end = q->what == PUT ? c->node->sql->put_end
                    : c->node->sql->add_times == 2 ? apr_psprintf(call->pool, c->node->sql->add_end, now, now)
                                                   : apr_psprintf(call->pool, c->node->sql->add_end, now);
    char *text = apr_palloc(call->pool, (apr_size_t)apr_base64_encode_len((int)q->value->len));

    apr_base64_encode_binary(text, q->value->len ? q->value->data : (const void *)"", (int)q->value->len);
    return apr_pstrcat(call->pool, "INSERT INTO session_ha (k, expires, value) VALUES ('", key, "', ", number(call->pool, q->expires), ", '",
                       text, "')", end, NULL);
}

static apr_status_t found_value(const char *text, ha_call *call, ha_blob *out)
{
    unsigned char *data;
    int len;

    if (text == NULL) {
        return APR_NOTFOUND;
    }
    len = apr_base64_decode_len(text);
    data = apr_palloc(call->pool, (apr_size_t)len + 1);
    out->len = (apr_size_t)apr_base64_decode_binary(data, text);
    out->data = data;
    return APR_SUCCESS;
}

/* All keys in one statement. */
static int look(ha_connection *c, ha_call *call, const ha_question *q, const char *now)
{
    const char *texts[LOOKS_MAX], *statement = "SELECT 'row'";
    int i, err, n = q->n < LOOKS_MAX ? q->n : LOOKS_MAX;

    for (i = 0; i < n; i++) {
        statement = apr_pstrcat(call->pool, statement, ", COALESCE((SELECT value FROM session_ha WHERE k = '",
                                apr_dbd_escape(c->node->driver, call->pool, q->looks[i].key, c->db), "' AND (expires = 0 OR expires > ", now,
                                ")), '-')", NULL);
    }
    err = select_row(c, call->pool, statement, texts, n);
    for (i = 0; i < n && err == 0; i++) {
        q->looks[i].rv = found_value(texts[i], call, &q->looks[i].found);
    }
    return err;
}

static apr_status_t ask_with(void *handle, ha_call *call, void *args, int *gone)
{
    ha_connection *c = handle;
    ha_question *q = args;
    apr_pool_t *p = call->pool;
    const char *key = q->key ? apr_dbd_escape(c->node->driver, p, q->key, c->db) : NULL, *now = number(p, apr_time_now());
    apr_status_t none = APR_SUCCESS;
    int err = 0, rows = 1;

    switch (q->what) {
    case LOOK:
        err = look(c, call, q, now);
        break;
    case PUT:
        err = query(c, NULL, insert(c, call, q, key));
        break;
    case ADD:
        err = query(c, &rows, insert(c, call, q, key));
        none = APR_EEXIST;
        break;
    case REMOVE:
        err = query(c, NULL, apr_pstrcat(p, "DELETE FROM session_ha WHERE k = '", key, "'", NULL));
        break;
    case TOUCH:
        err = query(c, &rows, apr_pstrcat(p, "UPDATE session_ha SET expires = ", number(p, q->expires), " WHERE k = '", key,
                                          "' AND (expires = 0 OR expires > ", now, ")", NULL));
        none = APR_NOTFOUND;
        break;
    case SWEEP:
        err = query(c, NULL, apr_pstrcat(p, "DELETE FROM session_ha WHERE expires <> 0 AND expires <= ", now, NULL));
        break;
    }
    return err ? broken(c, call, err, gone) : rows < 1 ? none : APR_SUCCESS;
}

static apr_status_t ask(ha_node *node, ha_call *call, int what, const char *key, const ha_blob *value, apr_time_t expires)
{
    ha_question q = { .what = what, .key = key, .value = value, .expires = expires };

    return ha_handles_use(node->handles, call, ask_with, &q);
}

static apr_status_t put(ha_node *node, ha_call *call, const char *key, const ha_blob *value, apr_time_t expires)
{
    return ask(node, call, PUT, key, value, expires);
}

static apr_status_t add(ha_node *node, ha_call *call, const char *key, const ha_blob *value, apr_time_t expires)
{
    return ask(node, call, ADD, key, value, expires);
}

/* Two round trips: a database sends no two statements at once through apr_dbd. Nor could one statement do both: it
 * would read what was there when it began, and that may be before somebody else wrote. */
static apr_status_t claim(ha_node *node, ha_call *call, const char *key, const ha_blob *value, apr_time_t expires, ha_look *looks, int n)
{
    ha_question q = { .what = LOOK, .looks = looks, .n = n };
    apr_status_t rv = APR_SUCCESS, looked;
    int i;

    if (key) {
        rv = add(node, call, key, value, expires);
        call->more = 1;
    }
    looked = ha_handles_use(node->handles, call, ask_with, &q);
    for (i = 0; i < n && looked != APR_SUCCESS; i++) {
        looks[i].rv = looked;
    }
    return key ? rv : looked;
}

static apr_status_t get(ha_node *node, ha_call *call, const char *key, ha_blob *out)
{
    ha_look it = { .key = key };
    apr_status_t rv = claim(node, call, NULL, NULL, 0, &it, 1);

    *out = it.found;
    return rv == APR_SUCCESS ? it.rv : rv;
}

static apr_status_t remove_(ha_node *node, ha_call *call, const char *key)
{
    return ask(node, call, REMOVE, key, NULL, 0);
}

static apr_status_t touch(ha_node *node, ha_call *call, const char *key, apr_time_t expires)
{
    return ask(node, call, TOUCH, key, NULL, expires);
}

static apr_status_t sweep(ha_node *node, ha_call *call, apr_time_t now)
{
    return ask(node, call, SWEEP, NULL, NULL, 0);
}

/* The administrator's SELECT, with what a client has sent as bound arguments only. */
static apr_status_t has_with(void *handle, ha_call *call, void *name_, int *gone)
{
    ha_connection *c = handle;
    const ha_name *name = name_;
    apr_dbd_results_t *res = NULL;
    apr_dbd_prepared_t *statement = NULL;
    const char *args[HA_NAME_ARGS_MAX], *found;
    apr_status_t rv;
    apr_pool_t *p;
    int err;

    if (APR_SUCCESS != (rv = apr_pool_create(&p, call->pool))) {    /* a statement must be gone before its connection */
        return rv;
    }
    memcpy(args, name->args, sizeof(args));
    err = apr_dbd_prepare(c->node->driver, p, c->db, apr_pstrcat(p, "SELECT 'row', CASE WHEN EXISTS (", name->text,
                                                                 ") THEN 'yes' ELSE '-' END", NULL), NULL, &statement);
    if (err == 0) {
        err = apr_dbd_pselect(c->node->driver, p, c->db, &res, statement, c->node->sql->seek, name->nargs, args);
    }
    err = the_row(c, p, err, res, &found, 1);
    rv = err ? broken(c, call, err, gone) : found ? APR_SUCCESS : APR_NOTFOUND;
    apr_pool_destroy(p);
    return rv;
}

static apr_status_t has(ha_node *node, ha_call *call, const ha_name *name)
{
    return ha_handles_use(node->handles, call, has_with, (void *)name);
}

/* A connection of its own. It may hang, which is the executor's business as with any other call. One that can be
 * read and not written is not well: somebody has the lock, or it is somebody's replica. */
static apr_status_t probe(ha_node *node, ha_call *call)
{
    void *handle;
    int err, gone;
    apr_status_t rv = make(&handle, node, call, call->pool);

    if (rv == APR_SUCCESS) {
        if (0 != (err = query(handle, NULL, "DELETE FROM session_ha WHERE k = ''"))) {
            rv = broken(handle, call, err, &gone);
        }
        drop(handle);
    }
    return rv;
}

const ha_store_provider ha_store_dbd = {
    .name = "dbd",
    .chunk = 512 * 1024,        /* as base64 within apr_dbd's largest field, 1 MB */
    .configure = configure,
    .prepare = prepare,
    .open = open_,
    .get = get,
    .put = put,
    .add = add,
    .remove = remove_,
    .claim = claim,
    .touch = touch,
    .sweep = sweep,
    .has = has,
    .names = HA_NAME_SELECT,
    .probe = probe,
};
