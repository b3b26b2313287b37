/* mod_session_ha.c - the contents page: the module, its rooms, and what happens in which order at start.
 *
 *   The balancer tells, the session moves, the store keeps, the manager shows.
 *
 *   parent, pre_config    /1/ the mutex gets its name for the Mutex directive
 *   parent, check_config      what all directives together show to be wrong; "httpd -t" comes as far as here
 *   parent, post_config   /2/ the directives are settled: stores made, secrets read
 *                         /3/ shared memory: the manager's, the table of sessions in motion, each store's nodes
 *                         /4/ stores make their directories, while we are root
 *   child                 /5/ the mutex, the connections to the stores, the threads of the rooms
 *
 * httpd runs the configuration twice at start; the first time only the directives are checked. Shared memory
 * hangs on the process's own pool, so that a graceful restart finds it as it was.
 */
#include "httpd.h"
#include "ap_mpm.h"
#include "apr_global_mutex.h"
#include "apr_hooks.h"
#include "apr_shm.h"
#include "apr_strings.h"
#include "apr_thread_cond.h"
#include "apr_thread_proc.h"
#include "http_config.h"
#include "http_core.h"
#include "http_log.h"
#include "http_main.h"
#include "unixd.h"
#include "util_mutex.h"

#include "balancer/balancer.h"
#include "ha_config.h"
#include "manager/manager.h"
#include "mod_session_ha.h"
#include "session/session_table.h"
#include "store/store.h"

#define MUTEX "session-ha"
#define TEND_EVERY apr_time_from_sec(1)

static struct {
    apr_global_mutex_t *mutex;  /* of the table */
    void *table;                /* shared; NULL: only the configuration was tested */
    void *balancer;             /* shared: the balancer room's */
} parent;

/* ---- parent ------------------------------------------------------------------------ */

/* Zeroed the first time; the same memory again after a graceful restart, if it is asked for in the same size. */
static apr_status_t shared_block(process_rec *process, const char *name, apr_size_t size, void **block)
{
    const char *key = apr_psprintf(process->pool, "session_ha:%s:%" APR_SIZE_T_FMT, name, size);
    apr_shm_t *shm;
    apr_status_t rv;

    apr_pool_userdata_get(block, key, process->pool);
    if (*block)
        return APR_SUCCESS;
    if (APR_SUCCESS != (rv = apr_shm_create(&shm, size, NULL, process->pool)))
        return rv;
    *block = apr_shm_baseaddr_get(shm);
    memset(*block, 0, size);
    return apr_pool_userdata_setn(*block, key, NULL, process->pool);
}

static int ha_pre_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp)
{
    parent.table = parent.balancer = NULL;
    return ap_mutex_register(pconf, MUTEX, NULL, APR_LOCK_DEFAULT, 0) == APR_SUCCESS ? OK : HTTP_INTERNAL_SERVER_ERROR; /*1*/
}

static int ha_check_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *s)
{
    return ha_config_check(pconf, ptemp, s) ? OK : HTTP_INTERNAL_SERVER_ERROR;
}

static apr_status_t prepare_store(server_rec *s, ha_store_line *line, apr_pool_t *ptemp)
{
    ha_call call = { .pool = ptemp };
    void *shared = NULL;
    apr_uid_t uid = (apr_uid_t)-1;
    apr_gid_t gid = (apr_gid_t)-1;
    const char *name = apr_psprintf(ptemp, "store:%d:%s", line->copies, apr_array_pstrcat(ptemp, line->urls, ' '));
    apr_status_t rv;

    if (geteuid() == 0) {
        uid = ap_unixd_config.user_id;
        gid = ap_unixd_config.group_id;
    }
    rv = shared_block(s->process, name, ha_store_shared_size(line->store), &shared);
    if (rv == APR_SUCCESS)
        rv = ha_store_prepare(line->store, &call, shared, uid, gid);                                                /*4*/
    if (rv != APR_SUCCESS)
        /* not the URLs: there may be passwords in them */
        ap_log_error(APLOG_MARK, APLOG_CRIT, rv, s, "SessionHAStore: %s", call.why ? call.why : "cannot be prepared");
    else if (call.why)
        ap_log_error(APLOG_MARK, APLOG_WARNING, 0, s, "the store's node %s", call.why);
    return rv;
}

static apr_array_header_t *store_rows(server_rec *s, apr_pool_t *p);

static int ha_post_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *s)
{
    static const ha_manager_sources sources = { ha_balancer_rows, store_rows };
    apr_array_header_t *stores;
    apr_status_t rv;
    int i;

    if (ap_state_query(AP_SQ_MAIN_STATE) == AP_SQ_MS_CREATE_PRE_CONFIG)
        return OK;
    if (ha_config_settle(pconf, ptemp, s) != APR_SUCCESS)                                                          /*2*/
        return HTTP_INTERNAL_SERVER_ERROR;
    if (ap_state_query(AP_SQ_RUN_MODE) == AP_SQ_RM_CONFIG_TEST)
        return OK;

    rv = ha_manager_prepare(s, pconf, ha_config_journal(), &sources);                                             /*3*/
    if (rv == APR_SUCCESS)
        rv = shared_block(s->process, "table", ha_table_size(), &parent.table);
    if (rv == APR_SUCCESS)
        rv = shared_block(s->process, "balancer", ha_balancer_shared_size(), &parent.balancer);
    if (rv == APR_SUCCESS)
        rv = ha_balancer_prepare(parent.balancer);
    if (rv == APR_SUCCESS)
        rv = ap_global_mutex_create(&parent.mutex, NULL, MUTEX, NULL, s, pconf, 0);
    if (rv != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_CRIT, rv, s, "mod_session_ha: no shared memory or no mutex");
        return HTTP_INTERNAL_SERVER_ERROR;
    }
    stores = ha_config_stores();
    for (i = 0; i < stores->nelts; i++) {
        if (prepare_store(s, APR_ARRAY_IDX(stores, i, ha_store_line *), ptemp) != APR_SUCCESS)
            return HTTP_INTERNAL_SERVER_ERROR;
    }
    return OK;
}

/* ---- child --------------------------------------------------------------------------- */

static struct {
    apr_thread_t *thread;
    apr_thread_mutex_t *mutex;
    apr_thread_cond_t *wake;
    int stop;
} keeper;

/* Probes of nodes that are down, expired records, nodes that forgot: what may wait, off the request path. */
static void *APR_THREAD_FUNC tend(apr_thread_t *thread, void *stores_)
{
    const apr_array_header_t *stores = stores_;
    const char *news;
    apr_pool_t *p;
    int i;

    apr_setup_signal_thread();
    apr_pool_create(&p, apr_thread_pool_get(thread));
    apr_thread_mutex_lock(keeper.mutex);
    while (!keeper.stop) {      /* at once: the status is to know the nodes */
        apr_thread_mutex_unlock(keeper.mutex);
        for (i = 0; i < stores->nelts; i++) {
            ha_store *store = APR_ARRAY_IDX(stores, i, ha_store_line *)->store;
            ha_store_tend(store, p, apr_time_now());
            while (NULL != (news = ha_store_news(store, p)))
                ap_log_error(APLOG_MARK, APLOG_WARNING, 0, ap_server_conf, "the store's node %s", news);
        }
        apr_pool_clear(p);
        apr_thread_mutex_lock(keeper.mutex);
        if (!keeper.stop)
            apr_thread_cond_timedwait(keeper.wake, keeper.mutex, TEND_EVERY);
    }
    apr_thread_mutex_unlock(keeper.mutex);
    return NULL;
}

static apr_status_t stop_tending(void *unused)
{
    apr_status_t rv;
    apr_thread_mutex_lock(keeper.mutex);
    keeper.stop = 1;
    apr_thread_cond_signal(keeper.wake);
    apr_thread_mutex_unlock(keeper.mutex);
    apr_thread_join(&rv, keeper.thread);
    return APR_SUCCESS;
}

static apr_status_t start_tending(apr_array_header_t *stores, apr_pool_t *pchild)
{
    apr_status_t rv;
    keeper.stop = 0;
    if (APR_SUCCESS != (rv = apr_thread_mutex_create(&keeper.mutex, APR_THREAD_MUTEX_DEFAULT, pchild)))
        return rv;
    if (APR_SUCCESS != (rv = apr_thread_cond_create(&keeper.wake, pchild)))
        return rv;
    if (APR_SUCCESS != (rv = apr_thread_create(&keeper.thread, NULL, tend, stores, pchild)))
        return rv;
    apr_pool_pre_cleanup_register(pchild, NULL, stop_tending);
    return APR_SUCCESS;
}

static void ha_child_init(apr_pool_t *pchild, server_rec *s)                                                       /*5*/
{
    apr_array_header_t *stores = ha_config_stores();
    ha_table *table;
    apr_status_t rv;
    int i;

    if (parent.table == NULL)
        return;
    rv = apr_global_mutex_child_init(&parent.mutex, apr_global_mutex_lockfile(parent.mutex), pchild);
    if (rv != APR_SUCCESS)
        goto leave;
    table = ha_table_attach(parent.table, parent.mutex, pchild);
    for (i = 0; i < stores->nelts; i++) {
        if (APR_SUCCESS != (rv = ha_store_open(APR_ARRAY_IDX(stores, i, ha_store_line *)->store, pchild)))
            goto leave;
    }
    if (stores->nelts > 0 && APR_SUCCESS != (rv = start_tending(stores, pchild)))
        goto leave;
    rv = ha_balancer_child(s, table, parent.balancer, pchild);
leave:
    if (rv != APR_SUCCESS)
        ap_log_error(APLOG_MARK, APLOG_CRIT, rv, s, "mod_session_ha: this child cannot back up or move sessions");
}

/* ---- between the rooms ------------------------------------------------------------------ */

/* The manager knows no store, the store no manager. */
static apr_array_header_t *store_rows(server_rec *s, apr_pool_t *p)
{
    const apr_array_header_t *stores = ha_config_stores();
    apr_array_header_t *rows = apr_array_make(p, 4, sizeof(ha_row_store));
    int i, n;

    for (i = 0; stores && i < stores->nelts; i++) {
        const ha_store *store = APR_ARRAY_IDX(stores, i, ha_store_line *)->store;
        for (n = 0; n < ha_store_nodes(store); n++) {
            ha_row_store *row = apr_array_push(rows);
            ha_store_facts *f = apr_pcalloc(p, sizeof *f);
            ha_store_node_facts(store, n, p, f);
            row->node = f->node;
            row->state = f->state;
            row->gets = f->gets;
            row->hits = f->hits;
            row->misses = f->misses;
            row->puts = f->puts;
            row->adds = f->adds;
            row->errors = f->errors;
            row->timeouts = f->timeouts;
            row->restarts = f->forgot[HA_FORGOT_RESTARTED];
            row->evictions = f->forgot[HA_FORGOT_EVICTED];
            row->damages = f->forgot[HA_FORGOT_DAMAGED];
            row->last_forgot = f->forgot_last;
            row->p50_us = f->p50_us;
            row->p99_us = f->p99_us;
            row->sum_us = f->sum_us;
            row->nbuckets = HA_STORE_BUCKETS;
            row->buckets = f->ops;
        }
    }
    return rows;
}

/* Hooks that nobody needs where SessionHA is off everywhere. httpd sorts all hooks after the configuration is read, for
 * modules that are loaded by it; they are sorted by the name of their module. */
static void when_on(void)
{
    const char *before = apr_hook_debug_current;
    apr_hook_debug_current = session_ha_module.name;
    ha_balancer_register_hooks_on();
    apr_hook_debug_current = before;
}

static void ha_register_hooks(apr_pool_t *p)
{
    /* mod_proxy first: it makes the balancers that we speak of. Not after mod_slotmem_shm: that order makes every
     * graceful restart crash the parent. */
    static const char *const after[] = { "mod_proxy.c", NULL };

    ap_hook_pre_config(ha_pre_config, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_check_config(ha_check_config, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_post_config(ha_post_config, after, NULL, APR_HOOK_MIDDLE);
    ap_hook_child_init(ha_child_init, after, NULL, APR_HOOK_MIDDLE);
    ha_config_when_on(when_on);
    ha_balancer_register_hooks(p);
    ha_manager_register_hooks(p);
}

AP_DECLARE_MODULE(session_ha) = {
    STANDARD20_MODULE_STUFF,
    ha_config_create,           /* one configuration for the server, virtual hosts, <Proxy> and <Location> */
    ha_config_merge,
    NULL,
    NULL,
    ha_config_commands,
    ha_register_hooks
};
