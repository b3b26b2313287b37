/* balancer_request.c - in and out: a request's session is found before mod_proxy_balancer chooses, and
 * what became of it is told when the request is over.
 *
 * mod_proxy_balancer always does the choosing. Where the session lives elsewhere than the client's route
 * says, or the client says it in a way that mod_proxy_balancer reads wrongly, the URL that it looks at gets
 * a path parameter in front, "/;jsessionid=x.tomcat2&": it takes the first one it finds, before any cookie.
 * scheme_handler takes it out again, so neither the member nor a log ever sees it, and the client's own
 * cookie reaches the member untouched (the stock session stores need it as issued).
 */
#include "httpd.h"
#include "apr_strings.h"
#include "http_log.h"
#include "http_request.h"

#include "balancer_request.h"

APLOG_USE_MODULE(session_ha);

static ha_table *the_table;     /* this process's view of the shared one */
static int in_use;              /* SessionHA is On somewhere */

ha_table *ha_request_table(void)
{
    return the_table;
}

void ha_request_child(ha_table *table)
{
    the_table = table;
    in_use = ha_config_in_use();
}

const ha_session *ha_request_session(ha_request *q)
{
    if (!q->has_session) {
        ha_digest_make(q->balancer->s->name, q->sid.id, &q->session.digest);
        q->session.store = ha_config_store(q->cfg);
        q->session.secret = ha_config_secret(q->cfg);
        q->session.claims_only = q->mode == HA_NATIVE_BACKUP;
        q->has_session = 1;
    }
    return &q->session;
}

/* ---- in ----------------------------------------------------------------------- */

struct asked_for {              /* the parser asks whose route it has found */
    proxy_balancer *balancer;
    const ha_member_view *member;   /* of the last route that is one: the route that it takes */
};

static int is_a_route(void *asked_, const char *route, apr_size_t len)
{
    struct asked_for *asked = asked_;
    const ha_member_view *member = ha_members_find(asked->balancer, route, len);
    if (member)
        asked->member = member;
    return member != NULL;
}

static void find_session(ha_request *q, request_rec *r, const char *url)
{
    const ha_config *cfg = q->cfg;
    const proxy_balancer_shared *b = q->balancer->s;
    struct asked_for asked = { q->balancer, NULL };
    ha_id_rules rules;

    /* mod_proxy_balancer reads the query as well, which is no part of the URL yet */
    if (r->args && ap_strstr_c(r->args, b->sticky_path))
        url = apr_pstrcat(r->pool, url, "?", r->args, NULL);
    rules.cookie = b->sticky;
    rules.path = b->sticky_path;
    rules.header = NULL;
    rules.separator = b->sticky_separator;
    rules.whole = 0;
    if (ha_id_parse(&rules, url, q->cookie, NULL, is_a_route, &asked, r->pool, &q->sid) != APR_SUCCESS && q->sid.route_known)
        asked.member = ha_members_find(q->balancer, q->sid.route, strlen(q->sid.route));    /* ROUTEID=.route: not the last asked for */
    if (cfg->id_cookie || cfg->id_path || cfg->id_header) {
        /* the route is where mod_proxy_balancer looks for it; the id stands somewhere else */
        ha_id where;
        rules.cookie = cfg->id_cookie;
        rules.path = cfg->id_path;
        rules.header = cfg->id_header;
        rules.whole = 1;
        (void)ha_id_parse(&rules, url, q->cookie, cfg->id_header ? apr_table_get(r->headers_in, cfg->id_header) : NULL,
                          NULL, NULL, r->pool, &where);
        q->sid.id = where.id;
        q->sid.id_len = where.id_len;
    }
    if (q->sid.route_known)
        q->home = asked.member;
    if (cfg->route_cookie)
        ha_route_read(q, r);
}

static ha_request *begin(request_rec *r, const ha_config *cfg, proxy_server_conf *conf,
                         proxy_balancer *balancer, const char *url)
{
    ha_request *q = apr_palloc(r->pool, sizeof *q);
    memset(q, 0, APR_OFFSETOF(ha_request, sid));
    q->cfg = cfg;
    q->conf = conf;
    q->balancer = balancer;
    q->mode = ha_config_backup(cfg);
    q->captures = (q->mode == HA_SYNC || q->mode == HA_ASYNC) && !ha_config_ignores(cfg, r->uri);
    ap_set_module_config(r->request_config, &session_ha_module, q);
    ha_guard_look(r, &q->cookie, &q->has_body);
    find_session(q, r, url);
    return q;
}

/* What canonicalisation leaves as it is. */
static int survives_url(const char *word, const char *marks)
{
    for (; *word; word++) {
        if (!apr_isalnum(*word) && strchr(marks, *word) == NULL)
            return 0;
    }
    return 1;
}

void ha_request_steer(ha_request *q, request_rec *r, const char *route)
{
    const char separator[2] = { q->balancer->s->sticky_separator, '\0' };

    /* What cannot stand in a URL is left to scheme_handler: where another member was chosen, it asks the owner. */
    if (!survives_url(q->balancer->s->sticky_path, "-._~") || (route && !survives_url(route, "-._~"))
        || !survives_url(separator, "-._~!$'()*+,:@=")) {
        ap_log_rerror(APLOG_MARK, APLOG_DEBUG, 0, r, "%s: route '%s', stickysession '%s' or stickysessionsep '%s' has other "
                      "characters than A-Z a-z 0-9 - . _ ~: mod_proxy_balancer cannot be steered by them",
                      q->balancer->s->name, route ? route : "", q->balancer->s->sticky_path, separator);
        return;
    }
    /* An id, the separator, the route; with stickysessionsep=off the route is all. '&' ends the value in every reading of
     * mod_proxy_balancer's, and passes its canonicalisation. */
    q->to = route;
    q->steer = apr_pstrcat(r->pool, "/;", q->balancer->s->sticky_path, "=",
                           route && !*separator ? "" : *separator == '-' ? "." : "-",
                           route ? separator : "", route ? route : "", "&", NULL);
}

/* ap_proxy_get_balancer() hashes a lower-case copy of the url. A url that comes from the configuration spells the
 * name as the balancer does, so comparing is enough; what that does not find is left to mod_proxy. What is saved
 * here and in mod_proxy_balancer, which does not search again, pays for much of what we do on every request. */
static proxy_balancer *balancer_of(request_rec *r, proxy_server_conf *conf, const char *url)
{
    enum { PREFIX = sizeof BALANCER_PREFIX - 1 };
    proxy_balancer *b = (proxy_balancer *)conf->balancers->elts, *end = b + conf->balancers->nelts;

    if (strncmp(url, BALANCER_PREFIX, PREFIX) != 0)
        return ap_cstr_casecmpn(url, BALANCER_PREFIX, PREFIX) == 0 ? ap_proxy_get_balancer(r->pool, conf, url, 1) : NULL;
    for (; b < end; b++) {
        const char *name = b->s->name + PREFIX, *has = url + PREFIX;
        while (*name && *name == *has) {
            name++;
            has++;
        }
        if (*name == '\0' && *has == '/' && !b->s->inactive)
            return b;
    }
    return ap_proxy_get_balancer(r->pool, conf, url, 1);
}

/* The owner is well and always was, and no session has left it: nothing to look up. */
static int at_home_and_well(const ha_request *q, apr_time_t now)
{
    const ha_member_view *m = q->home;
    apr_time_t doubt;
    if (m == NULL || !PROXY_WORKER_IS_USABLE(m->worker))
        return 0;
    doubt = m->slot ? ha_member_last_doubt(m->slot) : 0;
    return doubt == 0 || doubt + apr_time_from_sec(ha_config_ttl(q->cfg)) < now;
}

static void put_in_front(request_rec *r, const char *steer, char **url)
{
    char *path = ap_strstr(*url, "://");
    path = path ? ap_strchr(path + 3, '/') : NULL;
    if (path)
        *url = apr_pstrcat(r->pool, apr_pstrndup(r->pool, *url, (apr_size_t)(path - *url)), steer, path, NULL);
    else
        *url = apr_pstrcat(r->pool, *url, steer, NULL);
}

/* Nothing has to be done for nearly every request of a session. */
static inline int is_plain(const ha_request *q, apr_time_t now)
{
    return q->sid.id && q->sid.route && q->sid.stock_sees && at_home_and_well(q, now) && !q->home->transit->on;
}

static HA_APART int choose(ha_request *q, request_rec *r, char **url, apr_time_t now)
{
    int status = DECLINED;

    if (!*q->balancer->s->sticky)
        return DECLINED;        /* nothing sticks here; mod_proxy_balancer ignores routes */
    if (q->sid.id == NULL || q->sid.route == NULL) {
        if (!q->sid.stock_sees)         /* mod_proxy_balancer would follow a look-alike */
            ha_request_steer(q, r, q->sid.id ? NULL : q->sid.route);
    }
    else if (at_home_and_well(q, now) && !q->slow) {
        if (q->home->transit->on)
            ha_transit_request(q, r);
        else if (!q->sid.stock_sees)
            ha_request_steer(q, r, q->sid.route);
    }
    else {
        if (q->home && !PROXY_WORKER_IS_USABLE(q->home->worker))
            ha_members_error(q->home->slot, now);   /* before its retry time takes the mark away */
        status = ha_owner_settle(q, r, now);
        if (status == DECLINED && q->home && q->home->transit->on)
            ha_transit_request(q, r);
    }
    if (q->steer)
        put_in_front(r, q->steer, url);
    return status;
}

/* No request of ours, but where SessionHA is in use its member may be one of ours all the same: reached by a URL that is
 * left out, or through another balancer. */
static HA_APART int pass_by(request_rec *r, const char *url)
{
    if (r->proxyreq != PROXYREQ_REVERSE)
        return DECLINED;
    if (ha_guard_well_known(r->uri) || ha_guard_well_known(url))
        return HTTP_NOT_FOUND;
    ha_response_sieve(r);
    return DECLINED;
}

static HA_APART int first_attempt(proxy_balancer **balancer, request_rec *r, proxy_server_conf *conf, char **url)
{
    ha_request *q;

    /* mod_proxy_balancer takes the balancer it is given, as on a second attempt */
    if ((*balancer = balancer_of(r, conf, *url)) == NULL) {
        ha_guard_client(r);
        return pass_by(r, *url);
    }
    if (ha_guard_well_known(r->uri) || ha_guard_well_known(*url))
        return HTTP_NOT_FOUND;
    q = begin(r, ha_config_of(r), conf, *balancer, *url);
    ha_members_watch(*balancer, q->cfg, r->request_time);
    return is_plain(q, r->request_time) ? DECLINED : choose(q, r, url, r->request_time);
}

static HA_APART int another_attempt(ha_request *q, const proxy_worker *failed, request_rec *r, char **url)
{
    apr_time_t now = apr_time_now();

    if (failed && !PROXY_WORKER_IS_USABLE(failed)) {
        q->failed = failed;
        ha_members_error(ha_members_slot(q->balancer, failed), now);
        if (q->cause == NULL)
            q->cause = "connect";
    }
    q->steer = q->to = NULL;
    q->asked_on = 0;
    return choose(q, r, url, now);
}

static HA_APART int go_on(proxy_worker **worker, proxy_balancer **balancer, request_rec *r, proxy_server_conf *conf, char **url)
{
    ha_request *q = ha_request_of(r);
    return q ? another_attempt(q, *worker, r, url) : first_attempt(balancer, r, conf, url);
}

static int ha_pre_request(proxy_worker **worker, proxy_balancer **balancer, request_rec *r,
                          proxy_server_conf *conf, char **url)
{
    if (ha_config_on(ha_config_of(r)) && the_table)     /* no table: this child could not start, the log says why */
        return go_on(worker, balancer, r, conf, url);
    ha_guard_client(r);
    return in_use ? pass_by(r, *url) : DECLINED;
}

/* ---- out ---------------------------------------------------------------------- */

void ha_request_finish(ha_request *q, request_rec *r)
{
    ha_event e = { 0 };

    if (q->logged || (!q->decided && !q->move.forged))
        return;
    q->logged = 1;
    if (!q->decided) {
        ap_log_rerror(APLOG_MARK, APLOG_WARNING, 0, r, "%s: a record in the store is not ours and was not used: %s",
                      q->balancer->s->name, q->move.why);
        return;
    }
    e.time = apr_time_now();
    e.balancer = q->balancer->s->name;
    ha_digest_short(&ha_request_session(q)->digest, e.session);
    e.from = q->from ? q->from : "";
    e.to = q->move.owner ? q->move.owner : "";
    e.cause = q->cause ? q->cause : "error";
    e.outcome = q->outcome;
    e.version.epoch = q->move.epoch;
    e.version.seq = q->move.found == HA_BACKUP_FOUND ? q->move.record.version.seq : 0;
    e.bytes = q->bytes;
    e.took = e.time - q->began;
    e.trips = q->move.trips;
    ha_manager_failover(&e);

    ap_log_rerror(APLOG_MARK, (q->outcome == HA_RESTORED || q->outcome == HA_NATIVE) && !q->move.forged ? APLOG_INFO : APLOG_WARNING,
                  0, r, "%s: session %s moved from %s to %s (%s): %s, epoch %" APR_UINT64_T_FMT
                  ", %" APR_SIZE_T_FMT " bytes, %d store round trips, %" APR_TIME_T_FMT " us%s%s",
                  e.balancer, e.session, e.from, e.to, e.cause, ha_outcome_name(e.outcome), e.version.epoch,
                  e.bytes, e.trips, e.took, q->move.why ? ": " : "", q->move.why ? q->move.why : "");

    apr_table_setn(r->subprocess_env, "SESSION_HA_FROM", e.from);
    apr_table_setn(r->subprocess_env, "SESSION_HA_TO", e.to);
    apr_table_setn(r->subprocess_env, "SESSION_HA_OUTCOME", ha_outcome_name(e.outcome));
    apr_table_setn(r->subprocess_env, "SESSION_HA_EPOCH", apr_psprintf(r->pool, "%" APR_UINT64_T_FMT, e.version.epoch));
    apr_table_setn(r->subprocess_env, "SESSION_HA_TOOK", apr_psprintf(r->pool, "%" APR_TIME_T_FMT, e.took));
}

void ha_request_hooks(apr_pool_t *p)
{
    /* a RUN_FIRST hook: mod_proxy_balancer answers it, so only a module before it is called at all */
    static const char *const before[] = { "mod_proxy_balancer.c", NULL };
    proxy_hook_pre_request(ha_pre_request, NULL, before, APR_HOOK_FIRST);
}
