/* balancer_async.c - backups in the background (SessionHABackup async): some threads of each child, and a queue.
 *
 * Work after the response on the request's own thread would keep the client's next request waiting. At a
 * graceful stop the child's pool is destroyed, and what is queued is still written, within DRAIN.
 */
#include "httpd.h"
#include "apr_thread_pool.h"
#include "http_log.h"

#include "balancer_request.h"

APLOG_USE_MODULE(session_ha);

#define QUEUE_MAX 1024          /* jobs; more are refused, counted and logged */
#define THREADS_MAX 4
#define DRAIN apr_time_from_sec(5)

typedef struct task {
    apr_pool_t *pool;
    ha_async_fn *fn;
    void *baton;
} task;

static apr_thread_pool_t *threads;

/* Its own allocator: made by one thread, destroyed by another. */
apr_pool_t *ha_async_pool(void)
{
    apr_allocator_t *own;
    apr_pool_t *p;
    apr_allocator_create(&own);
    apr_pool_create_ex(&p, NULL, NULL, own);
    apr_allocator_owner_set(own, p);
    apr_pool_tag(p, "session_ha_async");
    return p;
}

static void *APR_THREAD_FUNC work(apr_thread_t *thread, void *data)
{
    task *t = data;
    apr_pool_t *p = t->pool;
    apr_setup_signal_thread();
    t->fn(p, t->baton);
    apr_pool_destroy(p);
    return NULL;
}

int ha_async_push(apr_pool_t *p, ha_async_fn *fn, void *baton)
{
    task *t = apr_palloc(p, sizeof *t);
    t->pool = p;
    t->fn = fn;
    t->baton = baton;
    return threads && apr_thread_pool_tasks_count(threads) < QUEUE_MAX
           && apr_thread_pool_push(threads, work, t, APR_THREAD_TASK_PRIORITY_NORMAL, NULL) == APR_SUCCESS;
}

static apr_status_t drain(void *unused)
{
    apr_time_t bound = apr_time_now() + DRAIN;
    while (threads && (apr_thread_pool_tasks_count(threads) || apr_thread_pool_busy_count(threads))
           && apr_time_now() < bound)
        apr_sleep(apr_time_from_msec(5));
    return APR_SUCCESS;
}

apr_status_t ha_async_child(apr_pool_t *pchild)
{
    apr_status_t rv = apr_thread_pool_create(&threads, 0, THREADS_MAX, pchild);
    if (rv == APR_SUCCESS)
        apr_pool_pre_cleanup_register(pchild, NULL, drain);
    return rv;
}
