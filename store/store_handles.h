/* store_handles.h - the connections of one node in one child, for client libraries whose connection serves
 * one thread at a time: taken by a job, given back, or dropped when they are broken. There are at most as many as
 * the lane has threads. Connecting holds no lock. */
#ifndef HA_STORE_HANDLES_H
#define HA_STORE_HANDLES_H

#include "../mod_session_ha.h"

typedef struct ha_handles ha_handles;

typedef struct ha_handle_kind {
    /* Connects, within call->deadline where the library can. p lives as long as the handle. */
    apr_status_t (*make)(void **handle, void *baton, ha_call *, apr_pool_t *p);
    void (*drop)(void *handle);
} ha_handle_kind;

/* One attempt with one connection. *gone: it cannot be used any more. */
typedef apr_status_t ha_handle_fn(void *handle, ha_call *, void *args, int *gone);

apr_status_t ha_handles_open(ha_handles **, const ha_handle_kind *, void *baton, apr_pool_t *pool);

/* Runs fn with a connection. When one that was used before turns out to be gone (the server was restarted), and time
 * is left, the next one is tried, and at last a new one: what fails then has failed. */
apr_status_t ha_handles_use(ha_handles *, ha_call *, ha_handle_fn *fn, void *args);

#endif
