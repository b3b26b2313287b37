/* balancer_hung.c - members that accept and never answer, or stop in the middle (SessionHAMemberTimeout).
 *
 * A request that has waited for T without a byte may be a slow page of a healthy member, a stream of events or a
 * tunnel that is idle, so the time-out alone ends nothing. It makes this child's watch ask the member something cheap on a connection of its own: OPTIONS
 * over http, CPING over ajp. If that is answered, the request is left alone. If not, the member is put into error
 * and the connections of this process to it are shut down: each waiting attempt ends as if the member had died
 * (balancer_attempt.c), its session moves, and it is repeated where that is allowed.
 *
 * A connection belongs to mod_proxy, and for ajp nothing tells us which one an attempt uses. But all of them lead to
 * the same hung process; so every socket of this child whose peer is the member's address is shut down, by its
 * number. shutdown() does not free the number, mod_proxy closes it as always.
 */
#include "httpd.h"
#include "apr_portable.h"
#include "apr_strings.h"
#include "apr_thread_cond.h"
#include "apr_thread_mutex.h"
#include "apr_thread_proc.h"
#include "http_log.h"

#include <sys/resource.h>
#include <sys/socket.h>

#include "balancer_request.h"

APLOG_USE_MODULE(session_ha);

#define TICK apr_time_from_msec(20)

struct ha_wait {                /* one attempt, on the stack of its thread */
    ha_wait *next, **link;
    proxy_worker *worker;
    ha_member_slot *slot;
    server_rec *server;
    apr_time_t asked;
    apr_interval_time_t timeout;
    volatile apr_time_t probed; /* the member was well at this point */
    const volatile apr_time_t *heard;   /* its last byte came at this point */
};

static struct {
    apr_thread_mutex_t *mutex;
    apr_thread_cond_t *wake;
    apr_thread_t *thread;
    apr_pool_t *pool;           /* of the thread */
    ha_wait *waits;             /* under the mutex */
    int stop;
} watch;

/* ---- the probe -------------------------------------------------------------------------- */

static apr_status_t ask(apr_socket_t *sock, const char *bytes, apr_size_t len, apr_size_t want)
{
    char answer[16];
    apr_size_t n = len;
    apr_status_t rv = apr_socket_send(sock, bytes, &n);
    if (rv == APR_SUCCESS && n != len)
        rv = APR_EGENERAL;
    if (rv == APR_SUCCESS) {
        n = want;
        rv = apr_socket_recv(sock, answer, &n);     /* any byte is a sign of life */
    }
    return rv;
}

static apr_status_t probe(const proxy_worker *w, apr_interval_time_t timeout, apr_pool_t *p)
{
    static const char cping[] = { 0x12, 0x34, 0, 1, 10 };
    static const char options[] = "OPTIONS * HTTP/1.0\r\n\r\n";
    apr_sockaddr_t *addr;
    apr_socket_t *sock;
    apr_status_t rv = apr_sockaddr_info_get(&addr, w->s->hostname_ex, APR_UNSPEC, w->s->port, 0, p);

    if (rv == APR_SUCCESS)
        rv = apr_socket_create(&sock, addr->family, SOCK_STREAM, APR_PROTO_TCP, p);
    if (rv != APR_SUCCESS)
        return rv;
    apr_socket_timeout_set(sock, timeout);
    rv = apr_socket_connect(sock, addr);
    if (rv == APR_SUCCESS) {
        if (strcmp(w->s->scheme, "ajp") == 0)
            rv = ask(sock, cping, sizeof cping, 5);
        else
            rv = ask(sock, options, sizeof options - 1, 1);
    }
    apr_socket_close(sock);
    return rv;
}

/* ---- the verdict --------------------------------------------------------------------------- */

static int same_address(const struct sockaddr_storage *peer, const apr_sockaddr_t *addr)
{
    for (; addr; addr = addr->next) {
        if (peer->ss_family == AF_INET && addr->family == APR_INET) {
            const struct sockaddr_in *in = (const struct sockaddr_in *)peer;
            if (in->sin_port == addr->sa.sin.sin_port && in->sin_addr.s_addr == addr->sa.sin.sin_addr.s_addr)
                return 1;
        }
#if APR_HAVE_IPV6
        else if (peer->ss_family == AF_INET6 && addr->family == APR_INET6) {
            const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)peer;
            if (in->sin6_port == addr->sa.sin6.sin6_port
                && memcmp(&in->sin6_addr, &addr->sa.sin6.sin6_addr, sizeof in->sin6_addr) == 0)
                return 1;
        }
#endif
    }
    return 0;
}

static void hang_up(const proxy_worker *w, apr_pool_t *p)
{
    apr_sockaddr_t *addr;
    struct rlimit limit;
    int fd, max = 1024;

    if (apr_sockaddr_info_get(&addr, w->s->hostname_ex, APR_UNSPEC, w->s->port, 0, p) != APR_SUCCESS)
        return;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        max = limit.rlim_cur > 65536 ? 65536 : (int)limit.rlim_cur;
    for (fd = 3; fd < max; fd++) {
        struct sockaddr_storage peer;
        socklen_t len = sizeof peer;
        if (getpeername(fd, (struct sockaddr *)&peer, &len) == 0 && same_address(&peer, addr))
            shutdown(fd, SHUT_RDWR);
    }
}

static void condemn(const ha_wait *seen, apr_pool_t *p)
{
    proxy_worker *w = seen->worker;
    apr_time_t now = apr_time_now();

    ap_log_error(APLOG_MARK, APLOG_ERR, 0, seen->server, "member %s did not answer for %" APR_TIME_T_FMT
                 " ms, nor a probe: it is put into error", ap_proxy_worker_name(p, w), apr_time_as_msec(now - seen->asked));
    ha_members_disable(w);
    ha_members_error(seen->slot, now);
    hang_up(w, p);
}

/* Under the mutex: the one that has heard nothing for longest, past its time. */
static ha_wait *overdue(apr_time_t now)
{
    apr_time_t longest = now;
    ha_wait *w, *worst = NULL;
    for (w = watch.waits; w; w = w->next) {
        apr_time_t since = *w->heard > w->asked ? *w->heard : w->asked;
        if (w->probed > since)
            since = w->probed;
        if (now - since > w->timeout && since < longest) {
            longest = since;
            worst = w;
        }
    }
    return worst;
}

static void *APR_THREAD_FUNC watching(apr_thread_t *thread, void *unused)
{
    apr_pool_t *p;
    ha_wait *w, *late, seen;

    apr_setup_signal_thread();  /* as every thread of ours: under prefork SIGTERM ends the child in whatever thread it meets */
    apr_pool_create(&p, apr_thread_pool_get(thread));
    apr_thread_mutex_lock(watch.mutex);
    while (!watch.stop) {
        if (watch.waits)
            apr_thread_cond_timedwait(watch.wake, watch.mutex, TICK);
        else
            apr_thread_cond_wait(watch.wake, watch.mutex);
        late = overdue(apr_time_now());
        if (late == NULL)
            continue;
        seen = *late;           /* the attempt may end while we ask */
        apr_thread_mutex_unlock(watch.mutex);
        if (probe(seen.worker, seen.timeout / 2 + apr_time_from_msec(20), p) != APR_SUCCESS)
            condemn(&seen, p);
        apr_pool_clear(p);
        apr_thread_mutex_lock(watch.mutex);
        for (w = watch.waits; w; w = w->next) {
            if (w->worker == seen.worker)
                w->probed = apr_time_now();     /* well, or dealt with: not again before its time */
        }
    }
    apr_thread_mutex_unlock(watch.mutex);
    return NULL;
}

/* ---- the face --------------------------------------------------------------------------------- */

static apr_status_t stop_watching(void *unused)
{
    apr_status_t rv;
    apr_thread_mutex_lock(watch.mutex);
    watch.stop = 1;
    apr_thread_cond_signal(watch.wake);
    apr_thread_mutex_unlock(watch.mutex);
    if (watch.thread)
        apr_thread_join(&rv, watch.thread);
    return APR_SUCCESS;
}

ha_wait *ha_hung_enter(apr_pool_t *p, proxy_worker *worker, ha_member_slot *slot, server_rec *s,
                       apr_interval_time_t timeout, const volatile apr_time_t *heard)
{
    ha_wait *w;
    if (timeout <= 0)
        return NULL;
    /* A machine that is gone does not even refuse. A connection that is not made yet has no peer to be found by, and so
     * cannot be hung up; it is to end by itself, after the server's Timeout if nobody says otherwise. */
    if (!worker->s->conn_timeout_set) {
        worker->s->conn_timeout = timeout;
        worker->s->conn_timeout_set = 1;
    }
    if (strcmp(worker->s->scheme, "http") != 0 && strcmp(worker->s->scheme, "ajp") != 0
        && strcmp(worker->s->scheme, "ws") != 0)
        return NULL;            /* nothing cheap to ask over TLS: that member's own time-outs count */
    w = apr_pcalloc(p, sizeof *w);
    w->worker = worker;
    w->slot = slot;
    w->server = s;
    w->asked = apr_time_now();
    w->timeout = timeout;
    w->heard = heard;
    apr_thread_mutex_lock(watch.mutex);
    if (watch.thread == NULL && !watch.stop)    /* the first one that wants it starts the watch */
        (void)apr_thread_create(&watch.thread, NULL, watching, NULL, watch.pool);
    w->next = watch.waits;
    w->link = &watch.waits;
    if (w->next)
        w->next->link = &w->next;
    watch.waits = w;
    apr_thread_cond_signal(watch.wake);
    apr_thread_mutex_unlock(watch.mutex);
    return w;
}

void ha_hung_leave(ha_wait *w)
{
    if (w == NULL)
        return;
    apr_thread_mutex_lock(watch.mutex);
    *w->link = w->next;
    if (w->next)
        w->next->link = w->link;
    apr_thread_mutex_unlock(watch.mutex);
}

apr_status_t ha_hung_child(apr_pool_t *pchild)
{
    apr_status_t rv;
    watch.thread = NULL;
    watch.waits = NULL;
    watch.stop = 0;
    rv = apr_thread_mutex_create(&watch.mutex, APR_THREAD_MUTEX_DEFAULT, pchild);
    if (rv == APR_SUCCESS)
        rv = apr_thread_cond_create(&watch.wake, pchild);
    if (rv == APR_SUCCESS)
        rv = apr_pool_create(&watch.pool, pchild);
    if (rv == APR_SUCCESS)
        apr_pool_pre_cleanup_register(pchild, NULL, stop_watching);
    return rv;
}
