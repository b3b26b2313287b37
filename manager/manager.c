/* manager.c - the manager's face: its shared memory over restarts, and the calls of the other rooms. */
#include "httpd.h"
#include "http_core.h"
#include "http_log.h"
#include "apr_shm.h"
#include "manager_hooks.h"

APLOG_USE_MODULE(session_ha);

/* Set by the parent before it forks, the same in every child. NULL until post_config: all calls
 * then count nothing. */
static server_rec *main_server;
static ha_counters *counters;
static ha_journal *journal;
static ha_manager_sources sources;

/* ---- shared memory ---------------------------------------------------------------- */

/* The segments belong to the process, not to a configuration: the module is unloaded and loaded again
 * at every restart, so its own variables forget, and pconf is cleared. What the process keeps must not
 * point into the module either: apr's own object, apr's own clean-up, and a copied key.
 * Children of before a graceful restart go on counting in the same segment until they end. */
#define COUNTERS_KEY "mod_session_ha:counters"
#define JOURNAL_KEY  "mod_session_ha:journal"

static apr_shm_t *kept_segment(apr_pool_t *process, const char *key)
{
    void *kept = NULL;

    apr_pool_userdata_get(&kept, key, process);
    return kept;
}

/* A new segment in a pool of its own, so that it can be given back when another takes its place. */
static apr_status_t make_segment(apr_shm_t **shm, apr_pool_t *process, apr_size_t size)
{
    apr_pool_t *pool;
    apr_status_t rv = apr_pool_create(&pool, process);

    if (rv != APR_SUCCESS)
        return rv;
    apr_pool_tag(pool, "session_ha_shm");
    rv = apr_shm_create(shm, size, NULL, pool);
    if (rv != APR_SUCCESS)
        apr_pool_destroy(pool);
    return rv;
}

static void keep_segment(apr_pool_t *process, const char *key, apr_shm_t *shm)
{
    apr_shm_t *old = kept_segment(process, key);

    apr_pool_userdata_set(shm, key, apr_pool_cleanup_null, process);
    if (old)
        apr_pool_destroy(apr_shm_pool_get(old));
}

static apr_status_t prepare_counters(apr_pool_t *process)
{
    apr_shm_t *shm = kept_segment(process, COUNTERS_KEY);
    apr_status_t rv;

    counters = shm ? ha_counters_adopt(apr_shm_baseaddr_get(shm), apr_shm_size_get(shm)) : NULL;
    if (counters)
        return APR_SUCCESS;
    rv = make_segment(&shm, process, ha_counters_size());
    if (rv != APR_SUCCESS)
        return rv;
    counters = ha_counters_format(apr_shm_baseaddr_get(shm));
    keep_segment(process, COUNTERS_KEY, shm);
    return APR_SUCCESS;
}

/* After a change of size, what children of before still write to the old ring is not seen. */
static apr_status_t prepare_journal(apr_pool_t *process, apr_pool_t *ptemp, int entries)
{
    apr_shm_t *shm = kept_segment(process, JOURNAL_KEY);
    ha_journal *old = shm ? ha_journal_adopt(apr_shm_baseaddr_get(shm), apr_shm_size_get(shm)) : NULL;
    apr_status_t rv;

    if (entries < 1)
        entries = 1;
    if (entries > HA_JOURNAL_MAX)
        entries = HA_JOURNAL_MAX;
    journal = old;
    if (old && ha_journal_entries(old) == entries)
        return APR_SUCCESS;
    rv = make_segment(&shm, process, ha_journal_size(entries));
    if (rv != APR_SUCCESS)
        return rv;
    journal = ha_journal_format(apr_shm_baseaddr_get(shm), entries);
    if (old)
        ha_journal_copy(journal, old, ptemp);
    keep_segment(process, JOURNAL_KEY, shm);
    return APR_SUCCESS;
}

apr_status_t ha_manager_prepare(server_rec *s, apr_pool_t *pconf, int journal_size, const ha_manager_sources *rows)
{
    apr_pool_t *ptemp = NULL;
    apr_status_t rv;

    /* at start httpd reads its configuration twice and throws the first away */
    if (ap_state_query(AP_SQ_MAIN_STATE) == AP_SQ_MS_CREATE_PRE_CONFIG)
        return APR_SUCCESS;
    main_server = s;
    if (rows)
        sources = *rows;
    rv = apr_pool_create(&ptemp, pconf);
    if (rv != APR_SUCCESS)
        goto leave;
    rv = prepare_counters(s->process->pool);
    if (rv != APR_SUCCESS)
        goto leave;
    rv = prepare_journal(s->process->pool, ptemp, journal_size);
leave:
    if (ptemp)
        apr_pool_destroy(ptemp);
    return rv;
}

/* ---- what happened ---------------------------------------------------------------- */

static void say_full(int full)
{
    if (full)
        ap_log_error(APLOG_MARK, APLOG_WARNING, 0, main_server, "more than %d balancers, %d members or %d "
                     "ways from member to member have been seen since httpd started; the status page leaves the "
                     "rest out until httpd is stopped and started", HA_BALANCERS_MAX, HA_MEMBERS_MAX, HA_PAIRS_MAX);
}

ha_member_slot *ha_member(const char *balancer, const char *route)
{
    ha_member_slot *slot;
    int full = 0;

    if (!counters || !balancer || !route)
        return NULL;
    slot = ha_counters_member(counters, balancer, route, &full);
    say_full(full);
    return slot;
}

void ha_manager_failover(const ha_event *event)
{
    int full = 0;

    if (counters)
        ha_counters_failover(counters, event, &full);
    if (journal)
        ha_journal_append(journal, event);
    say_full(full);
}

void ha_manager_backup(const char *balancer, const ha_member_slot *from, ha_backup_result result, apr_size_t bytes,
                       apr_size_t kept)
{
    int full = 0;

    if (counters)
        ha_counters_backup(counters, balancer, from, result, bytes, kept, &full);
    say_full(full);
}

void ha_manager_retried(const char *balancer, const char *route)
{
    if (counters)
        ha_counters_retried(counters, balancer, route);
}

/* ---- what is shown ------------------------------------------------------------------ */

const ha_snapshot *ha_manager_snapshot(request_rec *r)
{
    apr_array_header_t *balancers = sources.balancers ? sources.balancers(r->server, r->pool) : NULL;
    apr_array_header_t *stores = sources.stores ? sources.stores(r->server, r->pool) : NULL;

    return ha_snapshot_take(balancers, stores, counters, journal, r->pool);
}

void ha_manager_register_hooks(apr_pool_t *p)
{
    ha_status_register();
    ha_page_register();
    ha_modstatus_register();
}
