/* store_executor.h - calls that may block run on threads of their own; who asked waits until the
 * deadline and then leaves.
 *
 * One executor a store and child. It has lanes: one for each node, each with a bounded pool of
 * threads, so that a node that hangs holds up its own lane and no other.
 *
 * A caller takes a batch, puts jobs in, submits them together and waits for all of them at once:
 * K copies cost the wait of one. When it leaves before a job has ended, the job is left behind:
 * from then on it belongs to its thread. So whatever a job reads or writes lies in the batch's
 * pool or the job's own, never in the caller's memory; and a job touches no shared memory (the
 * caller counts what it saw), because one that hangs may still be there when the process ends.
 *
 * Batches, jobs and their pools are kept and used again: a put allocates nothing in the long run.
 */
#ifndef HA_STORE_EXECUTOR_H
#define HA_STORE_EXECUTOR_H

#include <apr_thread_proc.h>

#include "../mod_session_ha.h"

#define HA_BATCH_MAX 32         /* jobs in a batch: one bit each */

/* Threads of a lane, made when they are needed. A thread that hangs in a call whose caller has left is
 * replaced by another one, so that the node can be used again when it is well: up to the second number. */
#define HA_LANE_THREADS 8
#define HA_LANE_THREADS_MAX 32

typedef struct ha_executor ha_executor;
typedef struct ha_batch ha_batch;
typedef struct ha_job ha_job;

/* Runs on a thread of the lane. Not 0: wake who waits, even if other jobs of the batch still run. */
typedef int ha_job_fn(ha_job *job);

struct ha_job {
    apr_pool_t *pool;           /* for what it finds */
    void *args;                 /* from ha_batch_pool(): what it is to do, and what came of it */
    ha_job_fn *run;
    int lane;
    int nth;                    /* its bit in the batch */
    /* the executor's own */
    ha_batch *batch;
    enum { HA_JOB_QUEUED, HA_JOB_RUNS, HA_JOB_DONE, HA_JOB_DROPPED, HA_JOB_LEFT } phase;
    apr_time_t begun;
};

apr_status_t ha_executor_open(ha_executor **ex, int lanes);
/* Memory that lives as long as the last thread may need it: providers keep their connections here. */
apr_pool_t *ha_executor_pool(ha_executor *);
/* Ends the threads. APR_TIMEUP: some were still in a call after `patience`; they and the executor's
 * memory are left alone and end with the process. */
apr_status_t ha_executor_close(ha_executor *, apr_interval_time_t patience);
/* Jobs whose caller has left and that have not come back. */
int ha_executor_stuck(ha_executor *, int lane);

/* For a job that nobody waits for, before it touches memory that is not the executor's: does not return
 * if ha_executor_close() has given up on it. */
void ha_job_check(ha_job *);

apr_status_t ha_batch_open(ha_executor *, ha_batch **);
apr_pool_t *ha_batch_pool(ha_batch *);
/* APR_EAGAIN: the lane has a long queue already. The job's args must be complete. */
apr_status_t ha_batch_submit(ha_batch *, int lane, ha_job_fn *run, void *args);
ha_job *ha_batch_job(ha_batch *, int nth);
/* Waits until so many have ended (0: all), one asked to be woken for, or the point in time is reached: a bit for each that
 * has ended. */
apr_uint32_t ha_batch_wait(ha_batch *, int enough, apr_time_t until);
/* How long has the node had this job? 0: it never began. */
apr_interval_time_t ha_batch_ran(ha_batch *, int nth, apr_time_t now);
/* The caller's last word; nothing of the batch may be touched afterwards. What has not begun never
 * will; what runs is left behind. */
void ha_batch_close(ha_batch *);
/* The same, but the jobs are meant to go on without the caller. */
void ha_batch_detach(ha_batch *);

#endif
