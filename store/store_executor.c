/* store_executor.c - the deadline executor: apr_thread_pool, and what it lacks (leaving a call
 * behind, ending in bounded time).
 *
 * Locks: ex->lock guards the free list, and the phases and counts of all batches. It is held for a
 * few stores; never while a job runs, never around apr_thread_pool_push().
 *
 *   caller: open -> submit.. -> wait -> close        thread: QUEUED -> RUNS -> DONE
 *                                  \__ LEFT behind: refs keep the batch until the thread is back
 */
#include <apr_allocator.h>
#include <apr_thread_cond.h>
#include <apr_thread_mutex.h>
#include <apr_thread_pool.h>

#include "store_executor.h"

#define KEEP_MAX   (256 * 1024) /* bytes a kept pool may hold on to */
#define QUEUE_MAX  1024         /* jobs waiting in a lane */

typedef struct ha_lane {
    apr_thread_pool_t *threads;
    int stuck, max;
} ha_lane;

struct ha_executor {
    apr_pool_t *pool;           /* unmanaged: not even apr_terminate() takes it from a thread that hangs */
    apr_thread_mutex_t *lock;
    apr_thread_cond_t *quiet;   /* signalled when the last job ends while closing */
    ha_batch *free;
    int out;                    /* jobs in queues or running */
    int closing, left;
    int nlanes;
    ha_lane *lanes;
};

struct ha_batch {
    ha_executor *ex;
    ha_batch *next;
    apr_pool_t *keep;           /* the batch itself */
    apr_pool_t *pool;           /* cleared after each use */
    apr_thread_cond_t *cond;
    int refs;                   /* the caller and each job that has not ended */
    int few;                    /* so few refs wake the caller */
    int njobs, nkept;
    int waiting;
    int alarm;                  /* a job wants the caller to wake */
    apr_uint32_t done;
    ha_job *jobs[HA_BATCH_MAX];
};

/* A pool that one thread uses at a time needs no mutex in its allocator. */
static apr_status_t pool_of_its_own(apr_pool_t **pool, apr_pool_t *parent, const char *tag)
{
    apr_allocator_t *allocator;
    apr_status_t rv;

    if (APR_SUCCESS != (rv = apr_allocator_create(&allocator))) {
        return rv;
    }
    apr_allocator_max_free_set(allocator, KEEP_MAX);
    if (APR_SUCCESS != (rv = apr_pool_create_ex(pool, parent, NULL, allocator))) {
        apr_allocator_destroy(allocator);
        return rv;
    }
    apr_allocator_owner_set(allocator, *pool);
    apr_pool_tag(*pool, tag);
    return APR_SUCCESS;
}

apr_status_t ha_executor_open(ha_executor **out, int lanes)
{
    apr_allocator_t *allocator;
    apr_thread_mutex_t *guard;
    apr_pool_t *pool;
    ha_executor *ex;
    apr_status_t rv;
    int i;

    *out = NULL;
    if (APR_SUCCESS != (rv = apr_allocator_create(&allocator))) {
        return rv;
    }
    if (APR_SUCCESS != (rv = apr_pool_create_unmanaged_ex(&pool, NULL, allocator))) {
        apr_allocator_destroy(allocator);
        return rv;
    }
    apr_allocator_owner_set(allocator, pool);
    apr_pool_tag(pool, "ha_executor");
    ex = apr_pcalloc(pool, sizeof(*ex));
    ex->pool = pool;
    ex->nlanes = lanes;
    ex->lanes = apr_pcalloc(pool, (apr_size_t)lanes * sizeof(*ex->lanes));
    /* Connections are made and dropped on all threads: this allocator does need one. */
    if (APR_SUCCESS != (rv = apr_thread_mutex_create(&guard, APR_THREAD_MUTEX_DEFAULT, pool))) {
        goto leave;
    }
    apr_allocator_mutex_set(allocator, guard);
    if (APR_SUCCESS != (rv = apr_thread_mutex_create(&ex->lock, APR_THREAD_MUTEX_DEFAULT, pool))
        || APR_SUCCESS != (rv = apr_thread_cond_create(&ex->quiet, pool))) {
        goto leave;
    }
    for (i = 0; i < lanes; i++) {
        ex->lanes[i].max = HA_LANE_THREADS;
        if (APR_SUCCESS != (rv = apr_thread_pool_create(&ex->lanes[i].threads, 0, HA_LANE_THREADS, pool))) {
            goto leave;
        }
        /* Keep the threads that were made; make another as soon as a job would have to wait. */
        apr_thread_pool_idle_max_set(ex->lanes[i].threads, HA_LANE_THREADS);
        apr_thread_pool_threshold_set(ex->lanes[i].threads, 0);
    }
leave:
    if (APR_SUCCESS != rv) {
        apr_pool_destroy(pool);
        ex = NULL;
    }
    *out = ex;
    return rv;
}

apr_pool_t *ha_executor_pool(ha_executor *ex)
{
    return ex->pool;
}

int ha_executor_stuck(ha_executor *ex, int lane)
{
    int stuck;

    apr_thread_mutex_lock(ex->lock);
    stuck = ex->lanes[lane].stuck;
    apr_thread_mutex_unlock(ex->lock);
    return stuck;
}

apr_status_t ha_executor_close(ha_executor *ex, apr_interval_time_t patience)
{
    apr_time_t now, until = apr_time_now() + patience;
    int i;

    apr_thread_mutex_lock(ex->lock);
    ex->closing = 1;
    while (ex->out > 0 && (now = apr_time_now()) < until) {
        apr_thread_cond_timedwait(ex->quiet, ex->lock, until - now);
    }
    ex->left = ex->out > 0;
    apr_thread_mutex_unlock(ex->lock);
    if (ex->left) {
        return APR_TIMEUP;
    }
    /* First the threads: one may still be on its way out of work(). */
    for (i = 0; i < ex->nlanes; i++) {
        apr_thread_pool_destroy(ex->lanes[i].threads);
    }
    apr_pool_destroy(ex->pool);
    return APR_SUCCESS;
}

apr_status_t ha_batch_open(ha_executor *ex, ha_batch **out)
{
    ha_batch *b;
    apr_pool_t *keep;
    apr_status_t rv;

    apr_thread_mutex_lock(ex->lock);
    if (NULL != (b = ex->free)) {
        ex->free = b->next;
    }
    apr_thread_mutex_unlock(ex->lock);
    if (b == NULL) {
        if (APR_SUCCESS != (rv = pool_of_its_own(&keep, ex->pool, "ha_batch"))) {
            return rv;
        }
        b = apr_pcalloc(keep, sizeof(*b));
        b->ex = ex;
        b->keep = keep;
        if (APR_SUCCESS != (rv = apr_pool_create(&b->pool, keep))
            || APR_SUCCESS != (rv = apr_thread_cond_create(&b->cond, keep))) {
            apr_pool_destroy(keep);
            return rv;
        }
    }
    b->refs = 1;
    b->njobs = b->waiting = b->alarm = 0;
    b->done = 0;
    *out = b;
    return APR_SUCCESS;
}

apr_pool_t *ha_batch_pool(ha_batch *b)
{
    return b->pool;
}

ha_job *ha_batch_job(ha_batch *b, int nth)
{
    return b->jobs[nth];
}

/* Drops a reference; the lock is held on entry and not on return. Whoever drops the last one puts the
 * batch back, clean, before anybody else can see it. */
static void drop_and_unlock(ha_batch *b, int was_job)
{
    ha_executor *ex = b->ex;
    int i, last = --b->refs == 0;

    if (last) {
        apr_thread_mutex_unlock(ex->lock);
        for (i = 0; i < b->njobs; i++) {
            apr_pool_clear(b->jobs[i]->pool);
        }
        apr_pool_clear(b->pool);
        apr_thread_mutex_lock(ex->lock);
        b->next = ex->free;
        ex->free = b;
    }
    if (was_job && --ex->out == 0 && ex->closing) {
        apr_thread_cond_signal(ex->quiet);
    }
    apr_thread_mutex_unlock(ex->lock);
}

/* The child has gone down around this thread: whatever it would touch may be unmapped by now. The lock is held. */
static void stay_if_left(ha_executor *ex)
{
    while (ex->left) {
        apr_thread_mutex_unlock(ex->lock);
        apr_sleep(apr_time_from_sec(3600));
        apr_thread_mutex_lock(ex->lock);
    }
}

void ha_job_check(ha_job *job)
{
    apr_thread_mutex_lock(job->batch->ex->lock);
    stay_if_left(job->batch->ex);
    apr_thread_mutex_unlock(job->batch->ex->lock);
}

static void *APR_THREAD_FUNC work(apr_thread_t *thread, void *param)
{
    /* Signals are for the main thread: this one was made with the mask of whatever request needed it first. */
    static __thread int deaf;
    ha_job *job = param;
    ha_batch *b = job->batch;
    ha_executor *ex = b->ex;
    int wake = 1;

    if (!deaf) {
        apr_setup_signal_thread();
        deaf = 1;
    }
    apr_thread_mutex_lock(ex->lock);
    if (job->phase == HA_JOB_QUEUED && !ex->closing) {
        job->phase = HA_JOB_RUNS;
        job->begun = apr_time_now();
        apr_thread_mutex_unlock(ex->lock);
        wake = job->run(job);
        apr_thread_mutex_lock(ex->lock);
        stay_if_left(ex);
        if (job->phase == HA_JOB_LEFT) {
            ex->lanes[job->lane].stuck--;
        }
        job->phase = HA_JOB_DONE;
        b->done |= 1u << job->nth;
    }
    b->alarm |= wake;
    if (b->waiting && (b->alarm || b->refs - 1 <= b->few)) {
        apr_thread_cond_signal(b->cond);
    }
    drop_and_unlock(b, 1);
    return NULL;
}

apr_status_t ha_batch_submit(ha_batch *b, int lane, ha_job_fn *run, void *args)
{
    ha_executor *ex = b->ex;
    apr_thread_pool_t *threads = ex->lanes[lane].threads;
    ha_job *job;
    apr_status_t rv;

    if (b->njobs == HA_BATCH_MAX || apr_thread_pool_tasks_count(threads) > QUEUE_MAX) {
        return APR_EAGAIN;
    }
    if (b->njobs == b->nkept) {
        job = apr_pcalloc(b->keep, sizeof(*job));
        if (APR_SUCCESS != (rv = pool_of_its_own(&job->pool, b->keep, "ha_job"))) {
            return rv;
        }
        job->batch = b;
        job->nth = b->nkept;
        b->jobs[b->nkept++] = job;
    }
    job = b->jobs[b->njobs];
    job->run = run;
    job->args = args;
    job->lane = lane;
    job->begun = 0;
    job->phase = HA_JOB_QUEUED;

    apr_thread_mutex_lock(ex->lock);
    if (ex->closing) {
        apr_thread_mutex_unlock(ex->lock);
        return APR_EAGAIN;
    }
    b->njobs++;
    b->refs++;
    ex->out++;
    apr_thread_mutex_unlock(ex->lock);

    rv = apr_thread_pool_push(threads, work, job, APR_THREAD_TASK_PRIORITY_NORMAL, NULL);
    if (rv == APR_NOTFOUND || rv == APR_ENOMEM) {
        apr_thread_mutex_lock(ex->lock);
        b->njobs--;
        b->refs--;
        ex->out--;
        apr_thread_mutex_unlock(ex->lock);
        return APR_EAGAIN;
    }
    /* Any other error: the job is in the queue, only another thread could not be made. */
    return APR_SUCCESS;
}

apr_uint32_t ha_batch_wait(ha_batch *b, int enough, apr_time_t until)
{
    ha_executor *ex = b->ex;
    apr_uint32_t done;
    apr_time_t now;

    apr_thread_mutex_lock(ex->lock);
    b->waiting = 1;
    b->few = enough && enough < b->njobs ? b->njobs - enough + 1 : 1;
    while (b->refs > b->few && !b->alarm && (now = apr_time_now()) < until) {
        apr_thread_cond_timedwait(b->cond, ex->lock, until - now);
    }
    b->waiting = b->alarm = 0;
    done = b->done;
    apr_thread_mutex_unlock(ex->lock);
    return done;
}

apr_interval_time_t ha_batch_ran(ha_batch *b, int nth, apr_time_t now)
{
    apr_interval_time_t ran;

    apr_thread_mutex_lock(b->ex->lock);
    ran = b->jobs[nth]->begun ? now - b->jobs[nth]->begun : 0;
    apr_thread_mutex_unlock(b->ex->lock);
    return ran;
}

void ha_batch_close(ha_batch *b)
{
    ha_executor *ex = b->ex;
    ha_lane *lane;
    int i;

    apr_thread_mutex_lock(ex->lock);
    for (i = 0; b->refs > 1 && i < b->njobs; i++) {
        if (b->jobs[i]->phase == HA_JOB_QUEUED) {
            b->jobs[i]->phase = HA_JOB_DROPPED;
        }
        else if (b->jobs[i]->phase == HA_JOB_RUNS) {
            b->jobs[i]->phase = HA_JOB_LEFT;
            lane = &ex->lanes[b->jobs[i]->lane];
            /* Only ever raised: apr_thread_pool_thread_max_set() stops the wrong threads when it lowers,
             * and threads above HA_LANE_THREADS end by themselves once they are idle. */
            if (HA_LANE_THREADS + ++lane->stuck > lane->max && lane->max < HA_LANE_THREADS_MAX) {
                apr_thread_pool_thread_max_set(lane->threads, (apr_size_t)++lane->max);
            }
        }
    }
    drop_and_unlock(b, 0);
}

void ha_batch_detach(ha_batch *b)
{
    apr_thread_mutex_lock(b->ex->lock);
    drop_and_unlock(b, 0);
}
