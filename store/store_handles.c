/* store_handles.c - see store_handles.h. A stack: the connection that was used last is the one that lives. */
#include <apr_thread_mutex.h>

#include "store_handles.h"

#define IDLE_MAX apr_time_from_sec(15)

typedef struct ha_handle {
    struct ha_handle *next;
    apr_pool_t *pool;
    void *at;
    apr_time_t used;            /* 0: new */
} ha_handle;

struct ha_handles {
    const ha_handle_kind *kind;
    void *baton;
    apr_pool_t *pool;
    apr_thread_mutex_t *lock;
    ha_handle *idle;
};

static apr_status_t drop_all(void *data)
{
    ha_handles *all = data;

    for (; all->idle; all->idle = all->idle->next) {
        all->kind->drop(all->idle->at);
    }
    return APR_SUCCESS;
}

apr_status_t ha_handles_open(ha_handles **out, const ha_handle_kind *kind, void *baton, apr_pool_t *pool)
{
    ha_handles *all = apr_pcalloc(pool, sizeof(*all));

    all->kind = kind;
    all->baton = baton;
    all->pool = pool;
    *out = all;
    /* before the pools of the handles are gone */
    apr_pool_pre_cleanup_register(pool, all, drop_all);
    return apr_thread_mutex_create(&all->lock, APR_THREAD_MUTEX_DEFAULT, pool);
}

static void drop(ha_handles *all, ha_handle *h)
{
    all->kind->drop(h->at);
    apr_pool_destroy(h->pool);
}

static apr_status_t take(ha_handles *all, ha_call *call, ha_handle **out)
{
    apr_time_t now = apr_time_now();
    apr_pool_t *p;
    ha_handle *h;
    apr_status_t rv;

    apr_thread_mutex_lock(all->lock);
    if (NULL != (h = all->idle)) {
        all->idle = h->next;
    }
    apr_thread_mutex_unlock(all->lock);
    if (h && now - h->used > IDLE_MAX) {
        drop(all, h);
        h = NULL;
    }
    if (h == NULL) {
        if (APR_SUCCESS != (rv = apr_pool_create(&p, all->pool))) {
            return rv;
        }
        h = apr_pcalloc(p, sizeof(*h));
        h->pool = p;
        if (APR_SUCCESS != (rv = all->kind->make(&h->at, all->baton, call, p))) {
            apr_pool_destroy(p);
            return rv;
        }
    }
    *out = h;
    return APR_SUCCESS;
}

apr_status_t ha_handles_use(ha_handles *all, ha_call *call, ha_handle_fn *fn, void *args)
{
    apr_status_t rv;
    ha_handle *h;
    int gone, again;

    do {
        gone = again = 0;
        if (APR_SUCCESS != (rv = take(all, call, &h))) {
            break;
        }
        rv = fn(h->at, call, args, &gone);
        if (gone) {
            again = h->used != 0 && apr_time_now() < call->deadline;
            drop(all, h);
        }
        else {
            h->used = apr_time_now();
            apr_thread_mutex_lock(all->lock);
            h->next = all->idle;
            all->idle = h;
            apr_thread_mutex_unlock(all->lock);
        }
    } while (again);
    return rv;
}
