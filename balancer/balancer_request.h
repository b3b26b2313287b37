/* balancer_request.h - one request on its way through the room. Private to balancer/. */
#ifndef HA_BALANCER_REQUEST_H
#define HA_BALANCER_REQUEST_H

#include "httpd.h"
#include "mod_proxy.h"
#include "util_filter.h"

#include "../ha_config.h"
#include "../manager/manager.h"
#include "../session/session_capture.h"
#include "../session/session_failover.h"
#include "../session/session_field.h"
#include "../session/session_id.h"
#include "../session/session_table.h"

/* A takeover keeps the others of the session waiting for this long at most. */
#define HA_GATE_BOUND apr_time_from_sec(10)

/* ---- a member, as this process sees it (balancer_members.c) ---------------- */

typedef struct ha_transit {     /* of a balancer: is a member draining, or back from an error? (balancer_transit.c) */
    volatile int on;
    volatile apr_time_t since;  /* the children count requests in and out since */
} ha_transit;

typedef struct ha_member_view {
    proxy_worker *worker;
    ha_member_slot *slot;       /* shared counters and "was in error"; NULL: the table is full */
    ha_transit *transit;        /* of its balancer */
    proxy_worker *exchange;     /* the same member with connections of its own, made when first needed */
} ha_member_view;

/* The member with this route; NULL: none. Valid for this request. */
const ha_member_view *ha_members_find(proxy_balancer *, const char *route, apr_size_t len);
/* Looks at all members from time to time, so that an error nobody met with a session is noticed too. */
void ha_members_watch(proxy_balancer *, const ha_config *, apr_time_t now);
/* This member was in error at that point, or sessions were moved off it while it lived; other httpds are told. */
void ha_members_error(ha_member_slot *, apr_time_t when);
void ha_members_left(ha_member_slot *, apr_time_t when);
/* It has just failed: into error for its retry=, as mod_proxy would put it. */
void ha_members_disable(proxy_worker *);
/* The worker to use for a request of our own to this member. */
proxy_worker *ha_members_exchange(proxy_balancer *, proxy_worker *, server_rec *);
/* The slot of a worker met in a hook. */
ha_member_slot *ha_members_slot(proxy_balancer *, const proxy_worker *);
/* Usable now, or in error with its retry time over: then stock mod_proxy_balancer tries it again. */
int ha_members_usable(const proxy_worker *, apr_time_t now);
/* A member for a session whose own is not usable: `redirect=` first, then the balancer's own rules; with
 * agree set, ties are broken by the session instead, so that every httpd comes to the same answer
 * without asking the store. NULL: nobody is usable. */
const ha_member_view *ha_members_choose(proxy_balancer *, request_rec *, proxy_server_conf *,
                                        const ha_member_view *gone, const ha_digest *, int agree);
void ha_members_child(apr_pool_t *pchild);

/* ---- the request ------------------------------------------------------------ */

/* What one request in a million needs stays out of the functions that each one runs through: their registers need
 * not be saved for it. */
#define HA_APART __attribute__((noinline))

typedef struct ha_request {
    const ha_config *cfg;
    proxy_server_conf *conf;
    proxy_balancer *balancer;
    ha_backup_mode mode;
    int has_body;
    const char *cookie;         /* the client's Cookie field, or NULL */
    const char *route_cookie;   /* what SessionHARouteCookie's cookie says; NULL: nothing */
    const ha_member_view *home; /* the member of the client's route; NULL: no such member */
    const proxy_worker *failed; /* the member that this request has met an error at, last; NULL: none */

    /* one word, so that they are cleared and looked at together */
    unsigned captures : 1;      /* a backup may come with the answer; not with SessionHAIgnore */
    unsigned has_session : 1;
    /* of a takeover, or a return to a member that was in error */
    unsigned slow : 1;          /* the owner was asked for */
    unsigned looked : 1;        /* not only what is known here: in the store as well */
    unsigned asked_on : 1;      /* whether another httpd has moved it on was asked */
    unsigned doubt : 1;         /* the owner may have lost it: give it the backup, whatever is known here */
    unsigned moved : 1;         /* it has a new owner since this request */
    unsigned followed : 1;      /* or since another one: its claim was found */
    unsigned restore : 1;       /* the owner has to be given the backup before the attempt */
    unsigned handing : 1;       /* it is the owner, but others are not to count on it before it has been given the session */
    unsigned in_field : 1;      /* the backup goes with the request: the member has it when it answers */
    unsigned tell_none : 1;     /* there is none: tell the member so */
    unsigned entered : 1;       /* counted in at the session's table entry */
    unsigned told : 1;          /* moved or not, it is told: the member had lost the session */
    unsigned decided : 1;       /* outcome is set */
    unsigned logged : 1;
    /* of the attempt */
    unsigned inside : 1;        /* re-entry guard of scheme_handler */
    unsigned tried : 1;         /* a member was asked before: there may be traces of it */
    unsigned filtered : 1;      /* the response filter is in */
    unsigned passed : 1;        /* the member's answer has come to the response filter */
    unsigned watched : 1;       /* SessionHAMemberTimeout: somebody reads `heard` */
    unsigned answered : 1;      /* our fields were taken out of the answer */
    unsigned swallow : 1;       /* this answer is for us, not for the client */
    unsigned missing : 1;       /* it was: "I do not have the session" */
    unsigned left : 1;          /* ... any more: an httpd moves it, or did */
    unsigned asked_again : 1;
    unsigned fenced : 1;        /* it was: from a member that the session has left */
    unsigned hidden : 1;        /* keepalives is */

    /* steering: what stands in the URL while mod_proxy_balancer reads it */
    const char *steer;          /* "/;jsessionid=x.tomcat2&", or NULL */
    const char *to;             /* the route it leads to */

    /* a takeover, or a return to a member that was in error */
    apr_time_t gate;            /* we hold the gate until this point; 0: not ours */
    apr_time_t began;           /* of the takeover */
    ha_move move;
    ha_native_look *look;       /* under way: is the session where the application keeps it? */
    const char *from, *cause;
    apr_size_t bytes;
    ha_outcome outcome;

    /* the attempt */
    int repeats;                /* after a member died under the request */
    int keepalives;             /* the client connection's own count, while it is hidden */
    struct ha_interim *interim_heads;   /* what has come past the response filter */
    volatile apr_time_t heard;  /* its last byte so far came at this point; 0: none has */
    struct ha_body *body;       /* what was sent, to send it again; NULL: no body, or not kept */
    apr_time_t asked;           /* when the member was asked */
    proxy_worker *worker;       /* who was asked */
    ha_member_slot *slot;

    /* Not cleared when the request begins: what is below is written as a whole before it is read. */
    ha_id sid;                  /* sid.id NULL: no session */
    ha_session session;         /* made by ha_request_session() when first needed */
    ap_filter_t filter;         /* the response filter */
    ap_filter_t interim;        /* the one for what goes past it */
} ha_request;

static inline ha_request *ha_request_of(const request_rec *r)
{
    return ap_get_module_config(r->request_config, &session_ha_module);
}
/* Makes q->session (digest, store, secret) once. */
const ha_session *ha_request_session(ha_request *q);
ha_table *ha_request_table(void);
static inline void ha_request_heard(ha_request *q)  /* a byte of the member's answer */
{
    if (q->watched)
        q->heard = apr_time_now();
}
void ha_request_hooks(apr_pool_t *p);
void ha_request_child(ha_table *table);
/* Where the session lives, when the fast path cannot say (balancer_owner.c). Steers; DECLINED, or the
 * answer to the client that SessionHAOnMissing asks for. */
int ha_owner_settle(ha_request *q, request_rec *r, apr_time_t now);
/* Where the session lives, asked while a member is being tried. 1: q->move.owner, and what has to be done there; 0: nobody
 * can tell. */
int ha_owner_locate(ha_request *q, request_rec *r);
/* 1: the session's member has shown just now that it has the session. */
int ha_owner_is_sure(ha_request *q);
/* 1: ours now; opened at the latest with the request's pool. patient: ha_table_close_gate */
int ha_owner_close_gate(ha_request *q, request_rec *r, int patient);
void ha_owner_open_gate(ha_request *q);
/* Is the session where the application keeps it (SessionHANative)? Asked once a takeover, under the name that it has
 * with this route; the answer is in q->move.found when it has ended. */
void ha_owner_look_begin(ha_request *q, request_rec *r, const char *route);
void ha_owner_look_end(ha_request *q);
/* What is in q->move holds from now on: told to the table, and what has to be done at the member is planned. */
void ha_owner_adopt(ha_request *q);
/* The owner was given the session, or told that there is none, after that point: others may follow. */
void ha_owner_has_it(ha_request *q, apr_time_t since);
/* The member that has answered from an older epoch, or has not got the session, is the owner: it has not been given the backup, or has lost it again:
 * what is known here is not believed by this request any more, and it hands the backup over. */
void ha_owner_doubt(ha_request *q);
/* 1: another httpd has moved the session on from what the table says. It is asked of the store, once an attempt, only where there is
 * a sign of it: the client names another member than the table, for it may have heard of it first; or sessions have been leaving
 * their member since this one was confirmed there. Sent to the former owner the request would be fenced, and lost if it
 * cannot be repeated. */
int ha_owner_gone_on(ha_request *q, request_rec *r, const ha_owner *own);
/* A claim somebody else holds; 1 if the session lives at another member than route. */
int ha_owner_left(ha_request *q, const char *route);
void ha_request_steer(ha_request *q, request_rec *r, const char *route);
/* The outcome of a takeover: counted, journalled, logged, put in the environment; once. */
void ha_request_finish(ha_request *q, request_rec *r);

/* ---- the other files of the room --------------------------------------------- */

/* Fields of our protocol, out of what a client sent and out of a member's answer (balancer_guard.c). */
/* No other name in use begins like ours: Set-Cookie, Server, Sec-Fetch-Site end here. */
static inline int ha_guard_may_be_ours(const char *key)
{
    return (key[0] | 0x20) == 's' && (key[1] | 0x20) == 'e' && (key[2] | 0x20) == 's';
}

/* One look at each name: a table's own search would go through it five times. */
static inline int ha_guard_any(const apr_table_t *fields)
{
    const apr_array_header_t *all = apr_table_elts(fields);
    const apr_table_entry_t *e = (const apr_table_entry_t *)all->elts, *end = e + all->nelts;

    while (e < end && !ha_guard_may_be_ours(e->key))
        e++;
    return e < end;
}

void ha_guard_remove(apr_table_t *fields);
/* For every proxied request where SessionHA is off: the member's adapter believes what comes from this httpd. */
static inline void ha_guard_client(const request_rec *r)
{
    if (ha_guard_any(r->headers_in))
        ha_guard_remove(r->headers_in);
}
void ha_guard_answer(apr_table_t *fields, const char **backup, const char **missing);
void ha_guard_trailers(const request_rec *r);       /* the same for what comes behind the answer, at its end */
/* As ha_guard_client(), and cookie: its first Cookie field, or NULL; body: does one follow? Both are set. */
void ha_guard_look(const request_rec *r, const char **cookie, int *body);
int  ha_guard_is_ours(const char *name, apr_size_t len);
int  ha_guard_well_known(const char *path);         /* 1: refuse */
void ha_attempt_hooks(void);
void ha_response_hooks(apr_pool_t *p);
void ha_response_insert(ha_request *q, request_rec *r);
/* Only takes our fields out: of the answer to a request that is not ours. */
void ha_response_sieve(request_rec *r);
/* Takes our fields out of the answer and acts on them; also for answers that met no filter. */
void ha_response_take(ha_request *q, request_rec *r);
/* The same for the head of a tunnel, which said this of ours. */
void ha_response_tunnel(ha_request *q, request_rec *r, int status, const apr_table_t *said);

/* SessionHARouteCookie (balancer_route.c): the client's, over what stickysession says; and the new one. */
void ha_route_read(ha_request *q, request_rec *r);
void ha_route_write(ha_request *q, request_rec *r);

/* What goes to the client past the request's filters, between these two (balancer_interim.c). */
void ha_interim_enter(ha_request *q, request_rec *r, const proxy_worker *worker);
void ha_interim_leave(ha_request *q, request_rec *r);
void ha_interim_hooks(apr_pool_t *p);

/* Give the member the backup in q->move (balancer_restore.c). 0: it did not answer, do not ask it. */
int ha_restore(ha_request *q, request_rec *r, proxy_worker *worker);

/* A request's fields, on their way to an http member (balancer_fields.c). */
void ha_fields_child(server_rec *s, apr_pool_t *pchild);
void ha_fields_hooks(void);

/* Sending a request again (balancer_repeat.c). */
int ha_repeat_fits(const ha_request *q, const request_rec *r);      /* its body can be kept */
int ha_repeat_allowed(const ha_request *q, const request_rec *r);   /* running it twice does no harm */
int ha_repeat_died(const ha_request *q, const request_rec *r, int status);  /* the member died under it */
int ha_repeat_prepare(ha_request *q, request_rec *r);
void ha_repeat_hide_keepalives(ha_request *q, request_rec *r);
static inline void ha_repeat_show_keepalives(ha_request *q, request_rec *r)
{
    if (q->hidden) {
        r->connection->keepalives = q->keepalives;
        q->hidden = 0;
    }
}

/* A request of ours to a member, through mod_proxy itself (balancer_exchange.c). */
typedef struct ha_exchange {
    server_rec *server;
    proxy_server_conf *conf;
    proxy_worker *worker;
    const proxy_dir_conf *dconf;        /* of the client's request: Host and forwarding are as there */
    const char *host;                   /* the client's Host, or NULL */
    const char *client_ip;
    apr_sockaddr_t *client_addr, *local_addr;
    const char *local_ip;

    const char *method;                 /* "GET", "PUT" */
    const char *path;
    const char *field, *value;          /* one protocol field */
    ha_blob body;                       /* data NULL: none */
    apr_size_t max;                     /* of the answer's body; a larger one is an error. 0: not wanted */
    apr_interval_time_t patience;       /* SessionHAMemberTimeout; 0: the worker's own time-outs only */

    int status;                         /* the member's answer; 0: none */
    ha_blob answer;                     /* in the pool */
    const char *backup;                 /* its Session-Backup field, or NULL */
} ha_exchange;
void ha_exchange_from(ha_exchange *x, ha_request *q, request_rec *r, proxy_worker *worker, apr_pool_t *p);
/* The request by itself: it has no filters yet. */
request_rec *ha_exchange_request(const ha_exchange *x, apr_pool_t *p);
/* APR_SUCCESS when the member answered, whatever it said; else it did not (APR_EGENERAL). Waits as long as
 * the worker's own time-out allows. */
apr_status_t ha_exchange_run(ha_exchange *x, apr_pool_t *p);
void ha_exchange_hooks(apr_pool_t *p);

/* Members that do not answer (balancer_hung.c). While entered, the wait is watched: when nothing was heard for as long as
 * timeout, the member is probed, and if it is deaf, its connections in this process are shut down. heard: when its
 * last byte came, 0: none yet. timeout <= 0, or a scheme that cannot be probed: NULL. */
typedef struct ha_wait ha_wait;
ha_wait *ha_hung_enter(apr_pool_t *p, proxy_worker *worker, ha_member_slot *slot, server_rec *s,
                       apr_interval_time_t timeout, const volatile apr_time_t *heard);
void ha_hung_leave(ha_wait *w);
apr_status_t ha_hung_child(apr_pool_t *pchild);

/* Moves off a draining member and back home (balancer_transit.c). */
void ha_transit_look(ha_transit *, proxy_balancer *, const ha_config *, const ha_member_view *views, int n, apr_time_t now);
void ha_transit_request(ha_request *q, request_rec *r);     /* while transit->on: move it, or be counted in; steers */
void ha_transit_leave(ha_request *q);

/* Other httpds before the same members (balancer_peers.c). */
void ha_peers_meet(proxy_balancer *b, const ha_config *cfg);    /* this process serves it: tell and listen from now on */
int ha_peers_present(const proxy_balancer *b);
/* Since when the children of this httpd count requests in and out: now, if it is news. */
apr_time_t ha_peers_transit(const proxy_balancer *b, int on, apr_time_t now);
int ha_peers_token(apr_uint32_t rate);                          /* one of `rate` a second, for all children */
void ha_peers_wake(void);                                       /* there is something to tell */
apr_status_t ha_peers_child(void *shared, apr_pool_t *pchild);

/* A body that may have to be sent again (balancer_body.c); kept up to limit bytes. */
typedef struct ha_body ha_body;
ha_body *ha_body_keep(request_rec *r, apr_size_t limit);
int ha_body_whole(const ha_body *b);                /* 0: it was too long to keep */
/* The next attempt reads it from the beginning. 0: it was too long to keep. */
int ha_body_play_again(ha_body *b, request_rec *r);
void ha_body_hooks(apr_pool_t *p);

/* Backups in the background (balancer_async.c). */
apr_status_t ha_async_child(apr_pool_t *pchild);
/* 0: the queue is full, nothing was taken. The job has a pool of its own. */
typedef void ha_async_fn(apr_pool_t *p, void *baton);
int ha_async_push(apr_pool_t *p, ha_async_fn *fn, void *baton);
apr_pool_t *ha_async_pool(void);

#endif
