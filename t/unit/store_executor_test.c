/* store_executor_test.c - the deadline executor, without a store: jobs that hang are held by a gate the test
 * opens, so nothing here depends on how fast the machine is. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <apr_general.h>
#include <apr_thread_cond.h>
#include <apr_thread_mutex.h>

#include "store/store_executor.h"
#include "tap.h"

#define LONG  apr_time_from_sec(60)

static apr_pool_t *p;
static apr_thread_mutex_t *lock;
static apr_thread_cond_t *moved;
static int gate_open, inside, runs, deaf;

typedef struct work_args {
    int hang, wake, answer;
    char text[64];
} work_args;

static int run(ha_job *job)
{
    work_args *args = job->args;
    sigset_t set;
    int n;

    apr_thread_mutex_lock(lock);
    runs++;
    inside++;
    sigemptyset(&set);
    pthread_sigmask(SIG_BLOCK, NULL, &set);
    deaf += sigismember(&set, SIGTERM) && sigismember(&set, SIGUSR1);
    apr_thread_cond_broadcast(moved);
    while (args->hang && !gate_open) {
        apr_thread_cond_wait(moved, lock);
    }
    inside--;
    apr_thread_cond_broadcast(moved);
    apr_thread_mutex_unlock(lock);
    for (n = 0; n < 100; n++) {
        memset(apr_palloc(job->pool, 1000), n, 1000);
    }
    args->answer = 42;
    memset(args->text, 'x', sizeof(args->text));
    return args->wake;
}

static void gate(int open)
{
    apr_thread_mutex_lock(lock);
    gate_open = open;
    apr_thread_cond_broadcast(moved);
    apr_thread_mutex_unlock(lock);
}

static void wait_inside(int n)
{
    apr_thread_mutex_lock(lock);
    while (inside != n) {
        apr_thread_cond_wait(moved, lock);
    }
    apr_thread_mutex_unlock(lock);
}

static work_args *submit(ha_batch *b, int lane, int hang, int wake)
{
    work_args *args = apr_pcalloc(ha_batch_pool(b), sizeof(*args));

    args->hang = hang;
    args->wake = wake;
    return ha_batch_submit(b, lane, run, args) == APR_SUCCESS ? args : NULL;
}

static int stuck_at_last(ha_executor *ex, int lane, int n)
{
    int i;

    for (i = 0; i < 600 && ha_executor_stuck(ex, lane) != n; i++) {
        apr_sleep(10000);
    }
    return i < 600;
}

static void together(void)
{
    ha_executor *ex;
    ha_batch *b, *first = NULL;
    work_args *a, *c;
    int i, good = 0;

    ok(ha_executor_open(&ex, 3) == APR_SUCCESS, "open");
    runs = deaf = 0;
    for (i = 0; i < 1000; i++) {
        ha_batch_open(ex, &b);
        first = first ? first : b;
        good += b == first;
        a = submit(b, 0, 0, 0);
        c = submit(b, 1, 0, 0);
        good += ha_batch_wait(b, 0, apr_time_now() + LONG) == 3 && a->answer == 42 && c->answer == 42;
        ha_batch_close(b);
    }
    ok(good == 2000, "two jobs, one wait; the same batch a thousand times (%d)", good);
    ok(runs == 2000 && deaf == 2000, "all ran, on threads that take no signals");
    ok(ha_executor_close(ex, LONG) == APR_SUCCESS, "all threads end");
}

static void left_behind(void)
{
    ha_executor *ex;
    ha_batch *b, *again;
    work_args *a, *c;
    apr_uint32_t done;
    apr_time_t until;
    int i, n = 0;

    ha_executor_open(&ex, 2);
    gate(0);
    ha_batch_open(ex, &b);
    a = submit(b, 0, 1, 0);
    c = submit(b, 1, 0, 1);
    done = ha_batch_wait(b, 0, apr_time_now() + LONG);
    ok(done == 2 && c->answer == 42, "one hangs; the other one wakes the caller");
    wait_inside(1);
    done = ha_batch_wait(b, 0, apr_time_now() + 50000);
    ok(done == 2 && a->answer == 0 && ha_batch_ran(b, 0, apr_time_now()) >= 50000, "who waits longer comes back at the deadline");
    ha_batch_close(b);
    ok(ha_executor_stuck(ex, 0) == 1 && ha_executor_stuck(ex, 1) == 0, "left behind: one thread is stuck");
    ha_batch_open(ex, &again);
    a = submit(again, 0, 1, 0);
    c = submit(again, 1, 0, 0);
    until = apr_time_now() + LONG;
    done = ha_batch_wait(again, 1, until);
    ok(done == 2 && c->answer == 42 && apr_time_now() < until, "one hangs; who needs one has it at once");
    wait_inside(2);
    ha_batch_close(again);
    ha_batch_open(ex, &again);
    ok(again != b, "its batch is not given to anybody else");
    c = submit(again, 0, 0, 0);
    ok(ha_batch_wait(again, 0, apr_time_now() + LONG) == 1 && c->answer == 42, "the lane has another thread");
    ha_batch_close(again);

    /* all threads of the lane hang, and then as many more as are allowed */
    for (i = 0; i < 100 && n < 100; i++) {
        ha_batch_open(ex, &b);
        submit(b, 0, 1, 0);
        apr_thread_mutex_lock(lock);
        while (inside < n + 3 && i < HA_LANE_THREADS_MAX - 2) {
            apr_thread_cond_wait(moved, lock);
        }
        n = inside - 2;
        apr_thread_mutex_unlock(lock);
        ha_batch_wait(b, 0, apr_time_now() + 1000);
        ha_batch_close(b);
    }
    ok(ha_executor_stuck(ex, 0) == HA_LANE_THREADS_MAX, "a hundred hang: %d threads are stuck, no more", ha_executor_stuck(ex, 0));
    ha_batch_open(ex, &b);
    a = submit(b, 0, 0, 0);
    c = submit(b, 1, 0, 0);
    i = runs;
    done = ha_batch_wait(b, 0, apr_time_now() + 100000);
    ok(done == 2 && a->answer == 0 && c->answer == 42 && ha_batch_ran(b, 0, apr_time_now()) == 0, "a job never begins there; the other lane works on");
    ha_batch_close(b);
    gate(1);
    ok(stuck_at_last(ex, 0, 0), "the gate opens: all are back");
    ha_batch_open(ex, &b);
    a = submit(b, 0, 0, 0);
    ok(ha_batch_wait(b, 0, apr_time_now() + LONG) == 1 && a->answer == 42, "and the lane works");
    ha_batch_close(b);
    ok(runs <= i + 3 + 1, "what had not begun when its caller left never ran");
    ok(ha_executor_close(ex, LONG) == APR_SUCCESS, "all threads end");
}

static void detached(void)
{
    ha_executor *ex;
    ha_batch *b;
    int i;

    ha_executor_open(&ex, 1);
    runs = 0;
    for (i = 0; i < 500; i++) {
        ha_batch_open(ex, &b);
        submit(b, 0, 0, 0);
        ha_batch_detach(b);
    }
    for (i = 0; i < 6000; i++) {
        apr_thread_mutex_lock(lock);
        if (runs == 500) {
            i = 100000;
        }
        apr_thread_mutex_unlock(lock);
        apr_sleep(1000);
    }
    ok(runs == 500 && ha_executor_stuck(ex, 0) == 0, "detached jobs run, and are nobody's loss");
    gate(0);
    for (i = 0; i < 3000; i++) {
        int full;

        ha_batch_open(ex, &b);
        full = submit(b, 0, 1, 0) == NULL;
        ha_batch_detach(b);
        if (full) {
            break;
        }
    }
    ok(i > 100 && i < 3000, "but their queue is bounded (%d)", i);
    gate(1);
    ok(ha_executor_close(ex, LONG) == APR_SUCCESS, "closed with a full queue");
}

static void closed_while_hanging(void)
{
    ha_executor *ex;
    ha_batch *b;

    ha_executor_open(&ex, 2);
    gate(0);
    ha_batch_open(ex, &b);
    submit(b, 0, 1, 0);
    wait_inside(1);
    ha_batch_wait(b, 0, apr_time_now() + 1000);
    ha_batch_close(b);
    ok(ha_executor_close(ex, 10000) == APR_TIMEUP, "closing does not wait for ever");
    gate(1);
    wait_inside(0);
    apr_sleep(10000);
    ok(1, "and the thread that comes back late does no harm");
}

int main(void)
{
    int bad;

    apr_initialize();
    alarm(120);
    apr_pool_create(&p, NULL);
    apr_thread_mutex_create(&lock, APR_THREAD_MUTEX_DEFAULT, p);
    apr_thread_cond_create(&moved, p);
    together();
    left_behind();
    detached();
    closed_while_hanging();
    bad = tap_done();
    fflush(stdout);
    /* as a child of httpd goes: without what is left to the process's end */
    _exit(bad);
}
