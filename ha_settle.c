/* ha_settle.c - when the configuration is complete: what was said is checked as a whole, and stores and secrets are made of it. */
#include <apr_strings.h>

#include <errno.h>
#include <unistd.h>

#include "http_core.h"
#include "http_log.h"
#include "unixd.h"

#include "ha_config.h"
#include "ha_state.h"

APLOG_USE_MODULE(session_ha);

static apr_array_header_t *made_stores;     /* of ha_store_line *, in pconf; NULL between configurations */

static int in_use, journal;

static apr_status_t forget_stores(void *unused)
{
    made_stores = NULL;
    return APR_SUCCESS;
}

static int is_on(const ha_config *c)
{
    return c->enabled && c->backup != HA_NO_BACKUP;
}

/* All configurations that a request to this server can meet, as far as they ask for different things of us:
 * the server's own, and that with each section over it, and over that again, in any order. Few, because a
 * section that says everything leads to one only. */
static apr_array_header_t *all_merges(const ha_written *w, server_rec *main_server, server_rec *s, apr_pool_t *p)
{
    apr_array_header_t *all = apr_array_make(p, 8, sizeof(ha_config *));
    int i, k, known;

    APR_ARRAY_PUSH(all, ha_config *) = ap_get_module_config(s->lookup_defaults, &session_ha_module);
    for (i = 0; i < all->nelts; i++) {              /* grows as it is walked */
        for (k = 0; k < w->sections->nelts; k++) {
            ha_config *section = APR_ARRAY_IDX(w->sections, k, ha_config *), *c;

            if (section->server != s && section->server != main_server)
                continue;                           /* the main server's sections count everywhere */
            c = ha_config_merge(p, APR_ARRAY_IDX(all, i, ha_config *), section);
            for (known = 0; known < all->nelts; known++) {
                const ha_config *other = APR_ARRAY_IDX(all, known, ha_config *);
                if (other->enabled == c->enabled
                    && other->backup == c->backup && other->native == c->native
                    && other->copies == c->copies && other->place == c->place
                    && other->secret_line == c->secret_line)
                    break;
            }
            if (known == all->nelts)
                APR_ARRAY_PUSH(all, ha_config *) = c;
        }
    }
    return all;
}

/* The state directory, made ready; NULL and a log line if there is none. */
static const char *state_dir(apr_pool_t *p, server_rec *s, apr_uid_t uid, apr_gid_t gid)
{
    const char *dir = ha_state_default(), *why, *why_too;

    if ((why = ha_state_open(dir, uid, gid, p)) != NULL) {
        dir = ap_runtime_dir_relative(p, "session_ha");
        why_too = dir ? ha_state_open(dir, uid, gid, p) : "no DefaultRuntimeDir";
        if (why_too) {
            ap_log_error(APLOG_MARK, APLOG_EMERG, 0, s, "mod_session_ha: no place for the secret and the embedded "
                         "store: %s; %s; say SessionHAStore and SessionHASecret", why, why_too);
            return NULL;
        }
    }
    if (ap_state_query(AP_SQ_MAIN_STATE) != AP_SQ_MS_CREATE_PRE_CONFIG)
        ap_log_error(APLOG_MARK, APLOG_NOTICE, 0, s, "mod_session_ha: the state directory is %s%s%s%s", dir,
                     why ? " (" : "", why ? why : "", why ? ")" : "");
    return dir;
}

static const char *make_store(const ha_config *c, apr_pool_t *pconf)
{
    int copies = c->copies < c->place->nodes ? c->copies : c->place->nodes;
    ha_store_line *line;
    int i;

    if (c->place->lines[copies])
        return NULL;
    for (i = 0; i < made_stores->nelts; i++) {      /* written out, and the default too */
        line = APR_ARRAY_IDX(made_stores, i, ha_store_line *);
        if (line->copies == copies && ha_config_same_urls(line->urls, c->place->urls)) {
            c->place->lines[copies] = line;
            return NULL;
        }
    }
    line = apr_pcalloc(pconf, sizeof(*line));
    line->urls = c->place->urls;
    line->copies = copies;
    line->timeout = c->store_timeout;
    c->place->lines[copies] = line;
    APR_ARRAY_PUSH(made_stores, ha_store_line *) = line;
    return ha_store_configure(&line->store, pconf, line->urls->nelts, (const char *const *)line->urls->elts,
                              line->copies, line->timeout);
}

/* made: the module's own, so it may not be there yet. */
static const char *read_secret(ha_secret_line *line, int made, apr_pool_t *pconf, apr_pool_t *ptemp)
{
    ha_blob content, old;
    const char *wrong = ha_state_secret(line->file, made, &content, ptemp);

    if (!wrong && line->old_file)
        wrong = ha_state_secret(line->old_file, 0, &old, ptemp);
    if (!wrong) {
        wrong = ha_secret_make(&line->secret, &content, line->old_file ? &old : NULL, pconf);
        if (wrong)
            wrong = apr_psprintf(ptemp, "%s%s%s: %s", line->file, line->old_file ? " or " : "",
                                 line->old_file ? line->old_file : "", wrong);
    }
    return wrong;
}

/* Only to see what kind of store it is: none has been made yet. */
static ha_store *trial_store(const ha_config *c, apr_pool_t *p)
{
    static const char *const embedded[] = { "lmdb:/" };
    const apr_array_header_t *urls = c->place->urls;        /* NULL: the default */
    ha_store *store = NULL;

    (void)ha_store_configure(&store, p, urls ? urls->nelts : 1, urls ? (const char *const *)urls->elts : embedded, 1,
                             c->store_timeout);
    return store;
}

/* Sections are merged here in orders that no request meets, so a SessionHANative need not make sense in all that it
 * counts in; but in one of them, or it is a mistake. */
static const char *wrong_native(const ha_native *native, const apr_array_header_t *all, apr_pool_t *p)
{
    const char *wrong = NULL, *why;
    int i;

    for (i = 0; i < all->nelts; i++) {
        const ha_config *c = APR_ARRAY_IDX(all, i, ha_config *);

        if (!is_on(c) || c->native != native)
            continue;
        if (c->backup != HA_NATIVE_BACKUP)
            why = wrong ? wrong : "needs SessionHABackup native";
        else if ((why = ha_native_fits(native, trial_store(c, p), p)) == NULL)
            return NULL;
        wrong = why;
    }
    return wrong;
}

/* Whose secret we may not even look for, we say nothing of. */
static int is_in_sight(const char *file)
{
    return file == NULL || access(file, R_OK) == 0 || errno == ENOENT;
}

/* "apache2 -t" ends before post_config: it hears of the files that are named what a start would say. */
static const char *wrong_secret(const apr_array_header_t *all, apr_pool_t *ptemp)
{
    const char *wrong = NULL;
    int i;

    for (i = 0; i < all->nelts && !wrong; i++) {
        const ha_config *c = APR_ARRAY_IDX(all, i, ha_config *);
        ha_secret_line line = *c->secret_line;

        if (is_on(c) && line.file && is_in_sight(line.file) && is_in_sight(line.old_file))
            wrong = read_secret(&line, 0, ptemp, ptemp);
    }
    return wrong;
}

int ha_config_check(apr_pool_t *pconf, apr_pool_t *ptemp, server_rec *s)
{
    ha_written *w = ha_config_written(pconf);
    apr_array_header_t *all = apr_array_make(ptemp, 8, sizeof(ha_config *));
    const char *wrong;
    server_rec *vhost;
    int i;

    for (vhost = s; vhost; vhost = vhost->next) {
        ha_config_fill_in(ap_get_module_config(vhost->lookup_defaults, &session_ha_module), w);
        apr_array_cat(all, all_merges(w, s, vhost, ptemp));
    }
    for (i = 0; i < w->sections->nelts; i++) {
        const ha_config *c = APR_ARRAY_IDX(w->sections, i, ha_config *);

        if (c->native && ha_native_is_somewhere(c->native) && (wrong = wrong_native(c->native, all, ptemp)) != NULL) {
            ap_log_error(APLOG_MARK, APLOG_EMERG, 0, c->server, "SessionHANative: %s", wrong);
            return 0;
        }
    }
    if (ap_state_query(AP_SQ_RUN_MODE) == AP_SQ_RM_CONFIG_TEST && (wrong = wrong_secret(all, ptemp)) != NULL) {
        ap_log_error(APLOG_MARK, APLOG_EMERG, 0, s, "SessionHASecret: %s", wrong);
        return 0;
    }
    return 1;
}

apr_status_t ha_config_settle(apr_pool_t *pconf, apr_pool_t *ptemp, server_rec *s)
{
    ha_written *w = ha_config_written(pconf);
    ha_store_place *default_place = APR_ARRAY_IDX(w->places, 0, ha_store_place *);
    ha_secret_line *default_secret = APR_ARRAY_IDX(w->secrets, 0, ha_secret_line *);
    const char *dir = NULL, *wrong;
    int root = geteuid() == 0;
    server_rec *vhost;
    int i;

    made_stores = apr_array_make(pconf, 4, sizeof(ha_store_line *));
    in_use = journal = 0;
    apr_pool_cleanup_register(pconf, NULL, forget_stores, apr_pool_cleanup_null);

    for (i = 0; i < w->sections->nelts; i++) {      /* before the defaults are filled in */
        const ha_config *c = APR_ARRAY_IDX(w->sections, i, ha_config *);
        if (c->journal > journal)
            journal = c->journal;
    }
    for (vhost = s; vhost; vhost = vhost->next)
        ha_config_fill_in(ap_get_module_config(vhost->lookup_defaults, &session_ha_module), w);

    for (vhost = s; vhost; vhost = vhost->next) {
        apr_array_header_t *all = all_merges(w, s, vhost, ptemp);

        for (i = 0; i < all->nelts; i++) {
            const ha_config *c = APR_ARRAY_IDX(all, i, ha_config *);

            in_use |= c->enabled;
            if (!is_on(c))
                continue;
            if (!dir && (c->place == default_place || c->secret_line == default_secret)) {
                dir = state_dir(pconf, s, root ? ap_unixd_config.user_id : (apr_uid_t)-1,
                                root ? ap_unixd_config.group_id : (apr_gid_t)-1);
                if (!dir)
                    return APR_EGENERAL;
                default_secret->file = apr_pstrcat(pconf, dir, "/secret", NULL);
                default_place->urls = apr_array_make(pconf, 1, sizeof(const char *));
                APR_ARRAY_PUSH(default_place->urls, const char *) = apr_pstrcat(pconf, "lmdb:", dir, "/store", NULL);
            }
            if ((wrong = make_store(c, pconf)) != NULL) {
                ap_log_error(APLOG_MARK, APLOG_EMERG, 0, vhost, "SessionHAStore: %s", wrong);
                return APR_EGENERAL;
            }
            if (!c->secret_line->secret
                && (wrong = read_secret(c->secret_line, c->secret_line == default_secret, pconf, ptemp)) != NULL) {
                ap_log_error(APLOG_MARK, APLOG_EMERG, 0, vhost, "SessionHASecret: %s", wrong);
                return APR_EGENERAL;
            }
        }
    }
    return APR_SUCCESS;
}

int ha_config_journal(void)
{
    return journal ? journal : HA_JOURNAL_DEFAULT;
}

int ha_config_in_use(void)
{
    return in_use;
}

apr_array_header_t *ha_config_stores(void)
{
    return made_stores;
}
