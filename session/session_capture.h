/* session_capture.h - keep what a member said of a session: its state, or that it is gone. */
#ifndef HA_SESSION_CAPTURE_H
#define HA_SESSION_CAPTURE_H

#include "session_failover.h"
#include "session_table.h"

typedef enum {
    HA_CAPTURE_STORED,          /* acknowledged, by us now or by a newer one meanwhile */
    HA_CAPTURE_TOUCHED,         /* it was stored before, and its copies live on */
    HA_CAPTURE_FENCED,          /* of an older epoch than the session's owner: not stored */
    HA_CAPTURE_BROKEN,          /* no node acknowledged within the deadline; or all are full */
    HA_CAPTURE_WANTED           /* ha_capture_known(): it has to be put */
} ha_capture;

/* asked: when the member was asked for the answer that carried it (ha_table_put_end).
 * shared: other httpds use the store too, and may have claimed the session; one more look tells.
 * Waits at most until call->deadline, or until a move of the session that is under way is decided. */
ha_capture ha_capture_put(const ha_session *, ha_table *, ha_call *, const ha_record *, apr_time_t asked, int shared);

/* The same, of a record whose state is still with the member: what becomes of it without? An unchanged session is told again
 * now and then, and a large state need not be fetched for that. */
ha_capture ha_capture_known(const ha_session *, ha_table *, ha_call *, const ha_record *, apr_time_t asked, int shared);

#endif
