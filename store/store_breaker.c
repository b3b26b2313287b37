/* store_breaker.c - see the drawing in store_breaker.h. */
#include <string.h>

#include <apr_atomic.h>

#include "store_breaker.h"

typedef char ha_breaker_is_384[sizeof(ha_breaker) == 384 ? 1 : -1];

void ha_breaker_take(ha_breaker *b, apr_uint64_t node)
{
    if (apr_atomic_read64(&b->node) != node) {
        memset(b, 0, sizeof(*b));
        apr_atomic_set64(&b->node, node);
    }
}

ha_node_state ha_breaker_state(ha_breaker *b)
{
    return (ha_node_state)(apr_atomic_read64(&b->word) & 3);
}

void ha_breaker_open(ha_breaker *b, apr_time_t now)
{
    apr_uint64_t seen = apr_atomic_read64(&b->word), was;

    /* Ten threads that ran into the same time-out open it once. */
    while ((seen & 3) != HA_NODE_DOWN) {
        was = apr_atomic_cas64(&b->word, ((seen >> 2) + 1) << 2 | HA_NODE_DOWN, seen);
        if (was == seen) {
            apr_atomic_set64(&b->since, (apr_uint64_t)now);
            break;
        }
        seen = was;
    }
}

void ha_breaker_answered(ha_breaker *b, apr_time_t now)
{
    apr_uint64_t seen = apr_atomic_read64(&b->word);

    if ((seen & 3) == HA_NODE_UNKNOWN && apr_atomic_cas64(&b->word, seen | HA_NODE_UP, seen) == seen) {
        apr_atomic_set64(&b->since, (apr_uint64_t)now);
    }
}

/* A place for a time that one of all processes moves forward. */
static int turn(apr_uint64_t *last, apr_time_t now, apr_interval_time_t every)
{
    apr_uint64_t seen = apr_atomic_read64(last);

    /* A time in the future is a clock that was set back. */
    return ((apr_time_t)seen + every <= now || (apr_time_t)seen > now + every)
        && apr_atomic_cas64(last, (apr_uint64_t)now, seen) == seen;
}

int ha_breaker_probe_due(ha_breaker *b, apr_time_t now, apr_interval_time_t every, apr_uint64_t *seen)
{
    *seen = apr_atomic_read64(&b->word);
    return (*seen & 3) != HA_NODE_UP && turn(&b->probed, now, every);
}

void ha_breaker_close(ha_breaker *b, apr_uint64_t seen, apr_time_t now)
{
    if (apr_atomic_cas64(&b->word, (seen & ~APR_UINT64_C(3)) | HA_NODE_UP, seen) == seen) {
        apr_atomic_set64(&b->since, (apr_uint64_t)now);
    }
}

int ha_breaker_sweep_due(ha_breaker *b, apr_time_t now, apr_interval_time_t every)
{
    return turn(&b->swept, now, every);
}

int ha_breaker_recall_due(ha_breaker *b, apr_time_t now, apr_interval_time_t every)
{
    return turn(&b->asked, now, every);
}

static void to_be_told(ha_breaker *b, ha_forgot how)
{
    apr_uint64_t seen = apr_atomic_read64(&b->untold), was;

    while ((was = apr_atomic_cas64(&b->untold, seen | 1u << how, seen)) != seen) {
        seen = was;
    }
}

int ha_breaker_tell(ha_breaker *b, ha_forgot how)
{
    apr_uint64_t seen = apr_atomic_read64(&b->untold), was;

    while (seen & 1u << how) {
        if ((was = apr_atomic_cas64(&b->untold, seen & ~(1u << how), seen)) == seen) {
            return 1;
        }
        seen = was;
    }
    return 0;
}

void ha_breaker_forgot(ha_breaker *b, ha_forgot how, apr_uint64_t n, apr_time_t now)
{
    apr_atomic_add64(&b->forgot[how], n);
    apr_atomic_set64(&b->when, (apr_uint64_t)now);
    if (how != HA_FORGOT_EVICTED || (apr_time_t)apr_atomic_xchg64(&b->evicting, (apr_uint64_t)now) + HA_EVICTING <= now) {
        to_be_told(b, how);
    }
}

void ha_breaker_recalled(ha_breaker *b, const ha_memory *memory, apr_time_t now)
{
    apr_uint64_t life = apr_atomic_xchg64(&b->life, memory->life), evicted = apr_atomic_xchg64(&b->evicted, memory->evicted);

    if (life == 0) {
        return;
    }
    if (life != memory->life) {
        ha_breaker_forgot(b, HA_FORGOT_RESTARTED, 1, now);
        evicted = 0;
    }
    /* Less than before in the same life: somebody has set its counters to zero. */
    if (memory->evicted != evicted && memory->evicted > 0) {
        ha_breaker_forgot(b, HA_FORGOT_EVICTED, memory->evicted - (memory->evicted > evicted ? evicted : 0), now);
    }
}

void ha_breaker_count(ha_breaker *b, ha_count which)
{
    apr_atomic_inc64(&b->counts[which]);
}

void ha_breaker_took(ha_breaker *b, apr_interval_time_t us)
{
    int i = 0;

    if (us < 0) {
        us = 0;
    }
    while (i < HA_STORE_BUCKETS - 1 && us > ((apr_interval_time_t)16 << i)) {
        i++;
    }
    apr_atomic_inc64(&b->took[i]);
    apr_atomic_add64(&b->sum_us, (apr_uint64_t)us);
}

static apr_uint64_t percentile(const apr_uint64_t *took, int percent)
{
    apr_uint64_t all = 0, upto = 0;
    int i;

    for (i = 0; i < HA_STORE_BUCKETS; i++) {
        all += took[i];
    }
    for (i = 0; all && i < HA_STORE_BUCKETS; i++) {
        upto += took[i];
        if (upto * 100 >= all * (apr_uint64_t)percent) {
            return APR_UINT64_C(16) << i;
        }
    }
    return 0;
}

void ha_breaker_facts(ha_breaker *b, ha_store_facts *out)
{
    static const char *const states[] = { "unknown", "up", "down", "unknown" };
    int i;

    out->state = states[ha_breaker_state(b)];
    out->gets = apr_atomic_read64(&b->counts[HA_N_GETS]);
    out->hits = apr_atomic_read64(&b->counts[HA_N_HITS]);
    out->misses = apr_atomic_read64(&b->counts[HA_N_MISSES]);
    out->puts = apr_atomic_read64(&b->counts[HA_N_PUTS]);
    out->adds = apr_atomic_read64(&b->counts[HA_N_ADDS]);
    out->errors = apr_atomic_read64(&b->counts[HA_N_ERRORS]);
    out->timeouts = apr_atomic_read64(&b->counts[HA_N_TIMEOUTS]);
    out->repairs = apr_atomic_read64(&b->counts[HA_N_REPAIRS]);
    for (i = 0; i < HA_STORE_BUCKETS; i++) {
        out->ops[i] = apr_atomic_read64(&b->took[i]);
    }
    out->sum_us = apr_atomic_read64(&b->sum_us);
    for (i = 0; i < HA_FORGOT_WAYS; i++) {
        out->forgot[i] = apr_atomic_read64(&b->forgot[i]);
    }
    out->forgot_last = (apr_time_t)apr_atomic_read64(&b->when);
    out->p50_us = percentile(out->ops, 50);
    out->p99_us = percentile(out->ops, 99);
}
