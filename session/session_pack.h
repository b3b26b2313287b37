/* session_pack.h - a state as it is kept, and back: large ones are compressed where that pays.
 *
 * Once, above all stores, and before the record is sealed: sealed bytes do not compress. Small states, and so all that
 * come inline, pay nothing. Pure. */
#ifndef HA_SESSION_PACK_H
#define HA_SESSION_PACK_H

#include "session_record.h"

#define HA_PACK_FLOOR 8192      /* bytes; below it a store gains little, and the hot path would pay for it */

/* Compresses record->state, if it is that large and loses an eighth of its bytes at least. Else, and without zstd,
 * nothing is changed. */
void ha_pack(ha_record *, apr_pool_t *p);

/* The state's own bytes, which are record->state itself where nothing has to be done. max: how many it may have; no
 * memory is asked for more. APR_EINVAL, APR_ENOTIMPL (no zstd here); why: static text. */
apr_status_t ha_unpack(const ha_record *, apr_size_t max, apr_pool_t *p, ha_blob *out, const char **why);

#endif
