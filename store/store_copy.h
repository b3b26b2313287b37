/* store_copy.h - one copy on one node: envelope, and parts where the value is larger than the node takes.
 *
 * These calls run on the executor's threads and may block as long as the provider does. Everything
 * they are given lies in the batch's pool.
 *
 * A large value is cut: its parts are written first, under names that no other write uses
 * ("key.<writer>.<n>"), then the list under the key itself. So a reader sees the old value or the new
 * one, whole, whenever the writer or the node dies. The parts of a large value that another large one
 * replaced are removed afterwards; what a dead writer, a small value or a removal leaves behind expires:
 * to look for it would cost each of them a round trip.
 */
#ifndef HA_STORE_COPY_H
#define HA_STORE_COPY_H

#include "store_envelope.h"
#include "store_nodes.h"

#define HA_BESIDE_MAX 2

typedef struct ha_copy {
    const ha_store_node *node;
    const char *key;
    const ha_name *names;       /* has: instead of the key */
    int nnames;
    apr_time_t deadline;
    ha_envelope env;            /* put, add: what is written; get, and add when it is there: what was found */
    ha_blob bytes;              /* put, add: envelope and value; get, and add when it is there: the value */
    /* what came of it */
    apr_status_t rv;            /* as the seam says; APR_EINVAL: found, but broken */
    const char *why;
    apr_interval_time_t took;
    int trips;                  /* get, claim: round trips, one after the other */
    /* copies of other keys on this node; get, claim: read too, and by claim after its add */
    int nbeside;
    struct ha_copy *beside;
} ha_copy;

int ha_newer(const ha_version *a, const ha_version *b);

/* Envelope and value as one piece, in p. version, writer and expires of env are the caller's. */
void ha_copy_seal(ha_envelope *env, const char *key, const ha_blob *value, apr_pool_t *p, ha_blob *bytes);

/* And what is beside it. */
apr_status_t ha_copy_get(ha_copy *, apr_pool_t *p);
/* The envelope that stands under the key; parts are not read. 0: none that can be read. */
int ha_copy_head(const ha_copy *, apr_pool_t *, ha_envelope *);
/* Leaves what is newer alone, and that is success too. */
apr_status_t ha_copy_put_newer(ha_copy *, apr_pool_t *);
apr_status_t ha_copy_put(ha_copy *, apr_pool_t *p);
/* APR_EEXIST: env and bytes are what is there. One's own write, met again (the connection died after the
 * node had taken it), is APR_SUCCESS. What is broken there is removed: nobody can follow it. */
apr_status_t ha_copy_add(ha_copy *, apr_pool_t *p);
/* What is there ends at env.expires from now on, if it is of env.version (or of a newer one, which is left alone).
 * APR_NOTFOUND: it is not there, not whole, or older. */
apr_status_t ha_copy_touch(ha_copy *, apr_pool_t *p);
/* ha_copy_add(), and what is beside it is read after that: in one round trip where the provider can. */
apr_status_t ha_copy_claim(ha_copy *, apr_pool_t *p);
apr_status_t ha_copy_remove(ha_copy *, apr_pool_t *p);

#endif
