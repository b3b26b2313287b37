/* store_ask.h - one operation of the face on its way over the nodes: asked, waited for, counted, given up.
 *
 * An ha_ask lies on the caller's stack: the nodes in the order of the key, a batch of the executor, and for each
 * job the copy it reads or writes, which lies in the batch's pool, for the job may outlive the ask. The
 * caller counts what it saw, in shared memory, when it sees it; jobs that are left behind count nothing. */
#ifndef HA_STORE_ASK_H
#define HA_STORE_ASK_H

#include "store_copy.h"

struct ha_ask {
    ha_store *store;
    ha_call *call;
    ha_batch *batch;
    const char *key;                    /* in the batch's pool */
    apr_time_t began, deadline;
    const ha_name *names;               /* HA_ASK_HAS: in the batch's pool */
    int nnames;
    int njobs, broken, trips;
    int nbeside;                        /* other keys of the session, read by each get and claim */
    const char *beside[HA_BESIDE_MAX];
    apr_uint32_t done, settled;         /* jobs that have ended; those that have been counted */
    int order[HA_STORE_NODES_MAX];
    ha_copy *copies[HA_BATCH_MAX];      /* by job */
};

typedef enum {
    HA_ASK_GET,
    HA_ASK_LOOK,                        /* a get beside an add, which may wait for it */
    HA_ASK_PUT,
    HA_ASK_PUT_NEWER,                   /* a put that leaves what is newer alone */
    HA_ASK_ADD,
    HA_ASK_CLAIM,                       /* an add, and then what is beside it */
    HA_ASK_TOUCH,
    HA_ASK_REMOVE,
    HA_ASK_HAS
} ha_ask_what;

/* APR_SUCCESS; else nothing needs to be ended. */
apr_status_t ha_ask_begin(ha_ask *, ha_store *, ha_call *, const char *key);
/* Reads this key beside the other one, wherever it is got or claimed from now on. */
apr_status_t ha_ask_beside(ha_ask *, const char *key);
/* Asks the node at this place in the order. env, bytes: what is written (NULL for a get, remove or has; of a
 * touch, version and expiry). 0: it is not usable, or its lane is full. */
int ha_ask_node(ha_ask *, int place, ha_ask_what, const ha_envelope *env, const ha_blob *bytes);
/* One wait, until so many have answered (0: all), one has something to say at once (a write that failed, an add), or the
 * time has come. Counts what has ended. */
void ha_ask_wait(ha_ask *, int enough, apr_time_t until);
/* The jobs from this one on have been waited for together: that many round trips, one after the other. */
void ha_ask_trip(ha_ask *, int from);
int ha_ask_pending(const ha_ask *);
#define ha_ask_ended(ask, nth) (((ask)->done & 1u << (nth)) != 0)
/* Gives up what has not ended. What a caller still wants to know of its copies it must know before. */
void ha_ask_end(ha_ask *);

/* For the result: broken, with a reason in call->why. */
apr_status_t ha_ask_broken(ha_call *);

#endif
