/* ha_config.c - each directive: what it takes, its default, how sections are merged, and what a request reads of it.
 *
 * Directives only write down what was said; stores and secrets are made of it when the configuration is complete
 * (ha_settle.c). t/check_directives.sh sees to it that no member is forgotten in one of the lists below.
 */
#include <apr_lib.h>
#include <apr_strings.h>

#include "ha_config.h"
#include "ha_values.h"

#define UNSET (-1)

#define DEFAULT_COPIES        2
#define DEFAULT_STORE_TIMEOUT apr_time_from_msec(100)
#define DEFAULT_TTL           1800
#define DEFAULT_MAX_SIZE      (1024 * 1024)
#define DEFAULT_RETRY_MAX     1
#define DEFAULT_FAILBACK_RATE 20
#define DEFAULT_RETRY_BODY    (64 * 1024)

#define STORE_TIMEOUT_MAX     apr_time_from_sec(60)
#define MAX_SIZE_MAX          (1024 * 1024 * 1024)
#define JOURNAL_MAX           65536
#define RETRY_MAX             10
#define RETRY_BODY_MAX        (64 * 1024 * 1024)    /* it is kept in memory */

/* ---- what was written ------------------------------------------------------ */

ha_written *ha_config_written(apr_pool_t *pconf)
{
    static const char key[] = "session_ha: what was written";
    void *found;
    ha_written *w;

    apr_pool_userdata_get(&found, key, pconf);
    if (found)
        return found;
    w = apr_palloc(pconf, sizeof(*w));
    w->places = apr_array_make(pconf, 4, sizeof(ha_store_place *));
    w->secrets = apr_array_make(pconf, 4, sizeof(ha_secret_line *));
    w->sections = apr_array_make(pconf, 8, sizeof(ha_config *));
    APR_ARRAY_PUSH(w->places, ha_store_place *) = apr_pcalloc(pconf, sizeof(ha_store_place));
    APR_ARRAY_PUSH(w->secrets, ha_secret_line *) = apr_pcalloc(pconf, sizeof(ha_secret_line));
    APR_ARRAY_IDX(w->places, 0, ha_store_place *)->nodes = 1;
    apr_pool_userdata_setn(w, key, NULL, pconf);
    return w;
}

/* The section a directive stands in, remembered for ha_config_settle. */
static ha_config *section_of(cmd_parms *cmd, void *dir)
{
    ha_config *c = dir;

    if (!c->server) {
        c->server = cmd->server;
        APR_ARRAY_PUSH(ha_config_written(cmd->pool)->sections, ha_config *) = c;
    }
    return c;
}

/* ---- words ----------------------------------------------------------------------- */

static const ha_word backup_words[] = {
    { "sync", HA_SYNC }, { "async", HA_ASYNC }, { "native", HA_NATIVE_BACKUP }, { "off", HA_NO_BACKUP }, { NULL }
};
static const ha_word retry_words[] = {
    { "off", HA_RETRY_OFF }, { "safe", HA_RETRY_SAFE }, { "idempotent", HA_RETRY_IDEMPOTENT }, { NULL }
};
static const ha_word drain_words[] = {
    { "wait", 0 }, { "move", 1 }, { NULL }
};
static const ha_word failback_words[] = {
    { "stay", 0 }, { "home", 1 }, { NULL }
};

/* ---- the directives ---------------------------------------------------------- */

static void (*when_on)(void);

void ha_config_when_on(void (*call)(void))
{
    when_on = call;
}

static const char *set_enabled(cmd_parms *cmd, void *dir, int on)
{
    section_of(cmd, dir)->enabled = on;
    if (on && when_on) {
        when_on();
        when_on = NULL;
    }
    return NULL;
}

/* "lmdb:name" and "file:name" are names of files like any other in the configuration: from ServerRoot. */
static const char *from_server_root(cmd_parms *cmd, const char *url)
{
    const char *path = url + sizeof("lmdb:") - 1;

    if ((strncmp(url, "lmdb:", sizeof("lmdb:") - 1) != 0 && strncmp(url, "file:", sizeof("file:") - 1) != 0) || *path == '/' || !*path)
        return url;
    path = ap_server_root_relative(cmd->pool, path);
    return path ? apr_pstrcat(cmd->pool, apr_pstrmemdup(cmd->pool, url, sizeof("lmdb:") - 1), path, NULL) : url;
}

int ha_config_same_urls(const apr_array_header_t *a, const apr_array_header_t *b)
{
    int i;

    if (!a || a->nelts != b->nelts)
        return 0;
    for (i = 0; i < a->nelts; i++)
        if (strcmp(APR_ARRAY_IDX(a, i, const char *), APR_ARRAY_IDX(b, i, const char *)) != 0)
            return 0;
    return 1;
}

static const char *set_store(cmd_parms *cmd, void *dir, int argc, char *const argv[])
{
    ha_written *w = ha_config_written(cmd->pool);
    ha_config *c = section_of(cmd, dir);
    ha_store_place *place;
    apr_array_header_t *urls = apr_array_make(cmd->pool, argc, sizeof(const char *));
    ha_store *trial;
    const char *wrong;
    int i;

    if (argc < 1 || argc > HA_STORE_NODES_MAX)
        return apr_psprintf(cmd->pool, "%s: %d nodes; allowed: 1 to %d, each as a URL (%s)", cmd->cmd->name, argc,
                            HA_STORE_NODES_MAX, ha_store_schemes(cmd->pool));
    if (argc == 1 && strcmp(argv[0], "lmdb:") == 0) {   /* the default, said aloud */
        c->place = APR_ARRAY_IDX(w->places, 0, ha_store_place *);
        return NULL;
    }
    for (i = 0; i < argc; i++)
        APR_ARRAY_PUSH(urls, const char *) = from_server_root(cmd, argv[i]);

    /* only to see whether it would do: how many copies may be said further down */
    wrong = ha_store_configure(&trial, cmd->temp_pool, urls->nelts, (const char *const *)urls->elts, 1,
                               DEFAULT_STORE_TIMEOUT);
    if (wrong)
        return apr_psprintf(cmd->pool, "%s: %s", cmd->cmd->name, wrong);

    for (i = 0; i < w->places->nelts; i++) {
        place = APR_ARRAY_IDX(w->places, i, ha_store_place *);
        if (ha_config_same_urls(place->urls, urls)) {
            c->place = place;
            return NULL;
        }
    }
    place = apr_pcalloc(cmd->pool, sizeof(*place));
    place->urls = urls;
    place->nodes = urls->nelts;
    APR_ARRAY_PUSH(w->places, ha_store_place *) = place;
    c->place = place;
    return NULL;
}

static const char *set_copies(cmd_parms *cmd, void *dir, const char *arg)
{
    apr_int64_t n;
    const char *wrong = ha_value_number(cmd, arg, "", 1, HA_STORE_NODES_MAX, &n);

    if (!wrong)
        section_of(cmd, dir)->copies = (int)n;
    return wrong;
}

static const char *set_store_timeout(cmd_parms *cmd, void *dir, const char *arg)
{
    return ha_value_time(cmd, arg, "ms", apr_time_from_msec(1), STORE_TIMEOUT_MAX, "from 1ms to 60s",
                         &section_of(cmd, dir)->store_timeout);
}

static const char *set_backup(cmd_parms *cmd, void *dir, const char *arg)
{
    return ha_value_word(cmd, backup_words, arg, &section_of(cmd, dir)->backup);
}

static const char *set_native(cmd_parms *cmd, void *dir, const char *arg)
{
    const char *wrong = ha_native_parse(&section_of(cmd, dir)->native, arg, cmd->pool);

    return wrong ? apr_psprintf(cmd->pool, "%s: %s", cmd->cmd->name, wrong) : NULL;
}

static const char *set_id(cmd_parms *cmd, void *dir, int argc, char *const argv[])
{
    ha_config *c = section_of(cmd, dir);
    struct { const char *kind; const char **name; } places[] = {
        { "cookie=", &c->id_cookie }, { "path=", &c->id_path }, { "header=", &c->id_header }
    };
    int i = 0, k;

    if (argc < 1)
        goto refuse;
    c->id_cookie = c->id_path = c->id_header = NULL;    /* said again in this section: the last one counts */
    for (i = 0; i < argc; i++) {
        for (k = 0; k < 3; k++) {
            apr_size_t len = strlen(places[k].kind);
            if (ap_cstr_casecmpn(argv[i], places[k].kind, len) == 0 && !*places[k].name && ha_value_is_token(argv[i] + len)) {
                *places[k].name = argv[i] + len;
                break;
            }
        }
        if (k == 3)
            goto refuse;
    }
    return NULL;

refuse:
    return apr_psprintf(cmd->pool, "%s: '%s' is not known; allowed: cookie=NAME, path=NAME and header=NAME, at least "
                        "one, each once, NAME of letters, digits and !#$%%&'*+-.^_`|~", cmd->cmd->name,
                        argc ? argv[i] : "");
}

/* A value of a cookie's attribute, or of one of these words (NULL: any). */
static int is_attribute(const char *value, const char *const *words)
{
    const char *c;

    for (; words && *words; words++)
        if (ap_cstr_casecmp(*words, value) == 0)
            return 1;
    for (c = value; *c; c++)
        if (!apr_isgraph(*c) || strchr("\",;\\", *c))
            return 0;
    return !words && c > value;
}

static const char *set_route_cookie(cmd_parms *cmd, void *dir, int argc, char *const argv[])
{
    static const char *const sites[] = { "Strict", "Lax", "None", NULL };
    ha_config *c = section_of(cmd, dir);
    const char *path = "/", *site = "Lax", *domain = NULL, *age = NULL, *wrong = argc > 0 ? argv[0] : "";
    apr_int64_t seconds;
    int secure = 0, i;

    if (argc < 1 || !ha_value_is_token(argv[0]))
        goto refuse;
    for (i = 1; i < argc; i++) {                        /* apart, or as a cookie has them: Path=/; Secure */
        char *last, *it = apr_strtok(apr_pstrdup(cmd->pool, argv[i]), "; ", &last);
        for (; it; it = apr_strtok(NULL, "; ", &last)) {
            wrong = it;
            if (ap_cstr_casecmp(it, "Secure") == 0)
                secure = 1;
            else if (ap_cstr_casecmp(it, "HttpOnly") == 0)
                continue;                               /* it always is */
            else if (ap_cstr_casecmpn(it, "Path=", 5) == 0 && it[5] == '/' && is_attribute(it + 5, NULL))
                path = it + 5;
            else if (ap_cstr_casecmpn(it, "Domain=", 7) == 0 && is_attribute(it + 7, NULL))
                domain = it + 7;
            else if (ap_cstr_casecmpn(it, "SameSite=", 9) == 0 && is_attribute(it + 9, sites))
                site = it + 9;
            else if (ap_cstr_casecmpn(it, "Max-Age=", 8) == 0 && !ha_value_number(cmd, it + 8, "", 0, APR_INT32_MAX, &seconds))
                age = it + 8;
            else
                goto refuse;
        }
    }
    c->route_cookie = argv[0];
    c->route_attributes = apr_pstrcat(cmd->pool, "; Path=", path, domain ? "; Domain=" : "", domain ? domain : "", age ? "; Max-Age=" : "",
                                      age ? age : "", "; HttpOnly; SameSite=", site, secure ? "; Secure" : "", NULL);
    return NULL;

refuse:
    return apr_psprintf(cmd->pool, "%s: '%s' is not known; allowed: a cookie's NAME, then any of Path=/..., Domain=..., Max-Age=N, "
                        "SameSite=Strict, Lax or None, Secure, HttpOnly", cmd->cmd->name, wrong);
}

static const char *set_ttl(cmd_parms *cmd, void *dir, const char *arg)
{
    apr_interval_time_t t;
    const char *wrong = ha_value_time(cmd, arg, "s", apr_time_from_sec(1), apr_time_from_sec(HA_TTL_MAX), "from 1s to 8760h",
                                      &t);

    if (!wrong)
        section_of(cmd, dir)->ttl = (int)apr_time_sec(t);
    return wrong;
}

static const char *set_max_size(cmd_parms *cmd, void *dir, const char *arg)
{
    return ha_value_number(cmd, arg, "kmg", 1, MAX_SIZE_MAX, &section_of(cmd, dir)->max_size);
}

static const char *set_retry(cmd_parms *cmd, void *dir, int argc, char *const argv[])
{
    ha_config *c = section_of(cmd, dir);
    apr_int64_t max = DEFAULT_RETRY_MAX, body = DEFAULT_RETRY_BODY;
    const char *wrong = ha_value_word(cmd, retry_words, argc > 0 ? argv[0] : "", &c->retry);
    int i;

    for (i = 1; i < argc && !wrong; i++) {
        if (ap_cstr_casecmpn(argv[i], "max=", 4) == 0)
            wrong = ha_value_number(cmd, argv[i] + 4, "", 1, RETRY_MAX, &max);
        else if (ap_cstr_casecmpn(argv[i], "body=", 5) == 0)
            wrong = ha_value_number(cmd, argv[i] + 5, "kmg", 0, RETRY_BODY_MAX, &body);
        else
            wrong = apr_psprintf(cmd->pool, "%s: '%s' is not known; allowed after the first word: max=N, body=BYTES",
                                 cmd->cmd->name, argv[i]);
    }
    c->retry_max = (int)max;
    c->retry_body = body;
    return wrong;
}

static const char *set_member_timeout(cmd_parms *cmd, void *dir, const char *arg)
{
    ha_config *c = section_of(cmd, dir);

    if (ap_cstr_casecmp(arg, "off") == 0) {
        c->member_timeout = 0;
        return NULL;
    }
    return ha_value_time(cmd, arg, "s", apr_time_from_msec(50), apr_time_from_sec(3600), "from 50ms to 3600s, or off",
                         &c->member_timeout);
}

static const char *set_drain(cmd_parms *cmd, void *dir, const char *arg)
{
    return ha_value_word(cmd, drain_words, arg, &section_of(cmd, dir)->drain_moves);
}

static const char *set_failback(cmd_parms *cmd, void *dir, const char *arg, const char *rate)
{
    ha_config *c = section_of(cmd, dir);
    apr_int64_t n = DEFAULT_FAILBACK_RATE;
    const char *wrong = ha_value_word(cmd, failback_words, arg, &c->failback_home);

    if (!wrong && rate) {
        if (ap_cstr_casecmpn(rate, "rate=", 5) != 0)
            return apr_psprintf(cmd->pool, "%s: '%s' is not known; allowed after the first word: rate=N", cmd->cmd->name,
                                rate);
        wrong = ha_value_number(cmd, rate + 5, "", 1, 10000, &n);
    }
    c->failback_rate = (int)n;
    return wrong;
}

static const char *set_on_missing(cmd_parms *cmd, void *dir, const char *arg)
{
    ha_config *c = section_of(cmd, dir);
    const char *s;

    c->on_missing_url = NULL;
    if (ap_cstr_casecmp(arg, "continue") == 0) {
        c->on_missing = HA_CONTINUE;
        return NULL;
    }
    if (strcmp(arg, "503") == 0) {
        c->on_missing = HA_503;
        return NULL;
    }
    for (s = arg; *s; s++)
        if (!apr_isgraph(*s))
            goto refuse;
    if (*arg != '/' && ap_cstr_casecmpn(arg, "http://", 7) != 0 && ap_cstr_casecmpn(arg, "https://", 8) != 0)
        goto refuse;
    c->on_missing = HA_REDIRECT;
    c->on_missing_url = arg;
    return NULL;

refuse:
    return apr_psprintf(cmd->pool, "%s: '%s' is not known; allowed: continue, 503, or a URL that starts with /, "
                        "http:// or https://", cmd->cmd->name, arg);
}

static const char *set_secret(cmd_parms *cmd, void *dir, const char *arg, const char *old)
{
    ha_written *w = ha_config_written(cmd->pool);
    ha_config *c = section_of(cmd, dir);
    const char *args[2], *files[2] = { NULL, NULL };
    ha_secret_line *line;
    int i;

    args[0] = arg;
    args[1] = old;
    for (i = 0; i < 2 && args[i]; i++) {
        if (strncmp(args[i], "file:", 5) != 0 || !args[i][5])
            return apr_psprintf(cmd->pool, "%s: '%s' is not known; allowed: file:PATH, and a second file:PATH for the "
                                "secret before it", cmd->cmd->name, args[i]);
        files[i] = ap_server_root_relative(cmd->pool, args[i] + 5);
        if (!files[i])
            return apr_psprintf(cmd->pool, "%s: '%s' is not a path", cmd->cmd->name, args[i] + 5);
    }
    for (i = 1; i < w->secrets->nelts; i++) {
        line = APR_ARRAY_IDX(w->secrets, i, ha_secret_line *);
        if (strcmp(line->file, files[0]) == 0
            && (line->old_file ? files[1] && strcmp(line->old_file, files[1]) == 0 : !files[1])) {
            c->secret_line = line;
            return NULL;
        }
    }
    line = apr_pcalloc(cmd->pool, sizeof(*line));
    line->file = files[0];
    line->old_file = files[1];
    APR_ARRAY_PUSH(w->secrets, ha_secret_line *) = line;
    c->secret_line = line;
    return NULL;
}

static const char *add_ignore(cmd_parms *cmd, void *dir, const char *arg)
{
    ha_config *c = section_of(cmd, dir);
    ap_regex_t trial;
    char text[200];
    int rc = ap_regcomp(&trial, arg, AP_REG_EXTENDED | AP_REG_NOSUB);

    if (rc != 0) {
        ap_regerror(rc, &trial, text, sizeof(text));
        return apr_psprintf(cmd->pool, "%s: '%s' is no regular expression: %s", cmd->cmd->name, arg, text);
    }
    ap_regfree(&trial);
    if (!c->ignores)
        c->ignores = apr_array_make(cmd->pool, 2, sizeof(ap_regex_t *));
    APR_ARRAY_PUSH(c->ignores, ap_regex_t *) = ap_pregcomp(cmd->pool, arg, AP_REG_EXTENDED | AP_REG_NOSUB);
    return NULL;
}

static const char *set_journal(cmd_parms *cmd, void *dir, const char *arg)
{
    apr_int64_t n;
    const char *wrong = ha_value_number(cmd, arg, "", 1, JOURNAL_MAX, &n);

    if (!wrong)
        section_of(cmd, dir)->journal = (int)n;
    return wrong;
}

/* Server, virtual host, <Proxy>, <Location>; not .htaccess. */
#define ANYWHERE (RSRC_CONF | ACCESS_CONF)

const command_rec ha_config_commands[] = {
    AP_INIT_FLAG("SessionHA", set_enabled, NULL, ANYWHERE, "On or Off (Off)"),
    AP_INIT_TAKE_ARGV("SessionHAStore", set_store, NULL, ANYWHERE, "1 to 32 URLs of nodes, of one scheme"),
    AP_INIT_TAKE1("SessionHACopies", set_copies, NULL, ANYWHERE, "how many nodes keep each backup: 1 to 32 (2)"),
    AP_INIT_TAKE1("SessionHAStoreTimeout", set_store_timeout, NULL, ANYWHERE,
                  "deadline of one store operation: 1ms to 60s (100ms)"),
    AP_INIT_TAKE1("SessionHABackup", set_backup, NULL, ANYWHERE, "sync, async, native or off (sync)"),
    AP_INIT_TAKE1("SessionHANative", set_native, NULL, ANYWHERE, "where the application keeps its sessions: a preset, a template with %{id}, or none (none)"),
    AP_INIT_TAKE_ARGV("SessionHAId", set_id, NULL, ANYWHERE, "cookie=NAME, path=NAME, header=NAME"),
    AP_INIT_TAKE_ARGV("SessionHARouteCookie", set_route_cookie, NULL, ANYWHERE, "a cookie for the route, and its attributes"),
    AP_INIT_TAKE1("SessionHATTL", set_ttl, NULL, ANYWHERE,
                  "life of a backup if the member does not say: 1s to 8760h (1800s)"),
    AP_INIT_TAKE1("SessionHAMaxSize", set_max_size, NULL, ANYWHERE, "largest state that is kept: 1 to 1g (1m)"),
    AP_INIT_TAKE_ARGV("SessionHARetry", set_retry, NULL, ANYWHERE,
                      "off, safe or idempotent (idempotent), then max=1, body=64k"),
    AP_INIT_TAKE1("SessionHAMemberTimeout", set_member_timeout, NULL, ANYWHERE,
                  "no byte of an answer after it: probe the member (off)"),
    AP_INIT_TAKE12("SessionHAFailback", set_failback, NULL, ANYWHERE,
                   "stay or home (stay), then rate=20: sessions a second"),
    AP_INIT_TAKE1("SessionHADrain", set_drain, NULL, ANYWHERE, "wait or move (wait)"),
    AP_INIT_TAKE1("SessionHAOnMissing", set_on_missing, NULL, ANYWHERE, "continue, 503 or a URL (continue)"),
    AP_INIT_TAKE12("SessionHASecret", set_secret, NULL, ANYWHERE, "file:PATH, and file:PATH of the one before"),
    AP_INIT_TAKE1("SessionHAIgnore", add_ignore, NULL, ANYWHERE, "a regular expression of URIs that need no backup"),
    AP_INIT_TAKE1("SessionHAJournal", set_journal, NULL, ANYWHERE, "how many failovers are remembered: 1 to 65536 (256)"),
    { NULL }
};

/* ---- create, merge, defaults -------------------------------------------------- */

void *ha_config_create(apr_pool_t *p, char *dir)
{
    ha_config *c = apr_pcalloc(p, sizeof(*c));

    c->enabled = c->copies = c->backup = c->ttl = c->retry = c->on_missing = c->journal = UNSET;
    c->drain_moves = c->failback_home = c->failback_rate = UNSET;
    c->store_timeout = c->max_size = c->member_timeout = UNSET;
    c->retry_max = UNSET;
    c->retry_body = UNSET;
    return c;
}

/* Also for each request to a section that a directive stands in. */
void *ha_config_merge(apr_pool_t *p, void *base, void *add)
{
    const ha_config *from = add;
    ha_config *c = apr_pmemdup(p, base, sizeof(*c));

#define MERGE_NUMBER(x)  if (from->x != UNSET) c->x = from->x
#define MERGE_POINTER(x) if (from->x) c->x = from->x
    MERGE_NUMBER(enabled);
    MERGE_POINTER(place);
    MERGE_NUMBER(copies);
    MERGE_NUMBER(store_timeout);
    MERGE_NUMBER(backup);
    MERGE_POINTER(native);
    MERGE_NUMBER(ttl);
    MERGE_NUMBER(max_size);
    MERGE_NUMBER(member_timeout);
    MERGE_NUMBER(drain_moves);
    MERGE_POINTER(secret_line);
    MERGE_NUMBER(journal);
    MERGE_POINTER(server);
#undef MERGE_NUMBER
#undef MERGE_POINTER
    if (from->id_cookie || from->id_path || from->id_header) {      /* one directive says all three */
        c->id_cookie = from->id_cookie;
        c->id_path = from->id_path;
        c->id_header = from->id_header;
    }
    if (from->route_cookie) {
        c->route_cookie = from->route_cookie;
        c->route_attributes = from->route_attributes;
    }
    if (from->failback_home != UNSET) {
        c->failback_home = from->failback_home;
        c->failback_rate = from->failback_rate;
    }
    if (from->retry != UNSET) {
        c->retry = from->retry;
        c->retry_max = from->retry_max;
        c->retry_body = from->retry_body;
    }
    if (from->on_missing != UNSET) {
        c->on_missing = from->on_missing;
        c->on_missing_url = from->on_missing_url;
    }
    if (from->ignores)                                              /* they add up */
        c->ignores = c->ignores ? apr_array_append(p, c->ignores, from->ignores) : from->ignores;
    return c;
}

/* In a server's own configuration, from which every request's is merged: after this nothing is "not said"
 * but native, id_cookie, id_path, id_header, route_cookie, route_attributes, on_missing_url and ignores, where NULL is the
 * default, and journal, of which there is one for all (ha_config_journal). */
void ha_config_fill_in(ha_config *c, const ha_written *w)
{
#define DEFAULT_NUMBER(x, value)  if (c->x == UNSET) c->x = (value)
#define DEFAULT_POINTER(x, value) if (!c->x) c->x = (value)
    DEFAULT_NUMBER(enabled, 0);
    DEFAULT_POINTER(place, APR_ARRAY_IDX(w->places, 0, ha_store_place *));
    DEFAULT_NUMBER(copies, DEFAULT_COPIES);
    DEFAULT_NUMBER(store_timeout, DEFAULT_STORE_TIMEOUT);
    DEFAULT_NUMBER(backup, HA_SYNC);
    DEFAULT_NUMBER(ttl, DEFAULT_TTL);
    DEFAULT_NUMBER(max_size, DEFAULT_MAX_SIZE);
    if (c->retry == UNSET) {
        c->retry = HA_RETRY_IDEMPOTENT;
        c->retry_max = DEFAULT_RETRY_MAX;
        c->retry_body = DEFAULT_RETRY_BODY;
    }
    DEFAULT_NUMBER(member_timeout, 0);
    DEFAULT_NUMBER(drain_moves, 0);
    DEFAULT_NUMBER(failback_home, 0);
    DEFAULT_NUMBER(failback_rate, DEFAULT_FAILBACK_RATE);
    DEFAULT_NUMBER(on_missing, HA_CONTINUE);
    DEFAULT_POINTER(secret_line, APR_ARRAY_IDX(w->secrets, 0, ha_secret_line *));
#undef DEFAULT_NUMBER
#undef DEFAULT_POINTER
}

/* ---- read by a request ----------------------------------------------------------- */

int ha_config_ttl(const ha_config *c)
{
    return c->ttl;
}

apr_int64_t ha_config_max_size(const ha_config *c)
{
    return c->max_size;
}

ha_retry ha_config_retry(const ha_config *c)
{
    return c->retry;
}

int ha_config_drain_moves(const ha_config *c)
{
    return c->drain_moves;
}

int ha_config_failback_rate(const ha_config *c)
{
    return c->failback_home ? c->failback_rate : 0;
}

int ha_config_retry_max(const ha_config *c)
{
    return c->retry_max;
}

apr_int64_t ha_config_retry_body(const ha_config *c)
{
    return c->retry_body;
}

ha_on_missing ha_config_on_missing(const ha_config *c)
{
    return c->on_missing;
}

apr_interval_time_t ha_config_store_timeout(const ha_config *c)
{
    return c->store_timeout;
}

const ha_native *ha_config_native(const ha_config *c)
{
    return c->backup == HA_NATIVE_BACKUP && c->native && ha_native_is_somewhere(c->native) ? c->native : NULL;
}

ha_store *ha_config_store(const ha_config *c)
{
    const ha_store_line *line = c->place->lines[c->copies < c->place->nodes ? c->copies : c->place->nodes];

    return line ? line->store : NULL;
}

const ha_secret *ha_config_secret(const ha_config *c)
{
    return c->secret_line->secret;
}

int ha_config_matches(const apr_array_header_t *of_regex, const char *uri)
{
    int i;

    for (i = 0; i < of_regex->nelts; i++)
        if (ap_regexec(APR_ARRAY_IDX(of_regex, i, ap_regex_t *), uri, 0, NULL, 0) == 0)
            return 1;
    return 0;
}
