/* store_repair.h - what is put right behind the caller's back: copies that are missing, older or
 * broken; and nodes that are asked whether they are well again, or have forgotten. All of it is handed to the
 * executor and never waited for; what does not fit into its queues is dropped, and seen again at the next read. */
#ifndef HA_STORE_REPAIR_H
#define HA_STORE_REPAIR_H

#include "store_copy.h"

#define HA_PROBE_EVERY apr_time_from_sec(1)

/* After a get: the first K nodes that were asked should hold what the best copy holds. */
void ha_repair_found(ha_store *, const char *key, const ha_copy *best, ha_copy *const *copies, int njobs, apr_uint32_t done);

/* One node shall hold this. missing: it has nothing (so nothing is overwritten, by add); else it has something
 * older, broken, or a claim that lost. */
void ha_repair_node(ha_store *, const ha_store_node *node, const ha_envelope *env, const char *key, const ha_blob *bytes, int missing);

/* A node that is down is in the way of a request: somebody should look whether it is well, at most every
 * HA_PROBE_EVERY in all processes. Returns at once. */
void ha_probe_later(ha_store *, int node, apr_time_t now);

/* Has this node forgotten? Asked at most every HA_RECALL_EVERY in all processes, where the provider can tell. */
#define HA_RECALL_EVERY apr_time_from_sec(5)
void ha_recall_later(ha_store *, int node, apr_time_t now);

#endif
