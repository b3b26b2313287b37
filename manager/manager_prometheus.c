/* manager_prometheus.c - the snapshot as Prometheus' text format 0.0.4. */
#include <string.h>

#include "manager_render.h"

static void put_head(apr_bucket_brigade *bb, const char *name, const char *type, const char *help)
{
    apr_brigade_printf(bb, NULL, NULL, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* `before` ends where the value of a label begins: name{balancer=" or ",from=" */
static void put_label(apr_bucket_brigade *bb, const char *before, const char *value)
{
    apr_brigade_puts(bb, NULL, NULL, before);
    ha_put_label(bb, value);
}

static void put_failovers(apr_bucket_brigade *bb, const ha_pair_counts *pair)
{
    int i;

    for (i = 0; i < HA_OUTCOMES; i++)
        if (pair->outcomes[i]) {
            put_label(bb, "session_ha_failovers_total{balancer=\"", pair->balancer);
            put_label(bb, "\",from=\"", pair->from);
            put_label(bb, "\",to=\"", pair->to);
            apr_brigade_printf(bb, NULL, NULL, "\",outcome=\"%s\"} %" APR_UINT64_T_FMT "\n", ha_outcome_name(i),
                               pair->outcomes[i]);
        }
}

static void put_backups(apr_bucket_brigade *bb, const ha_backup_counts *backups)
{
    int i;

    for (i = 0; i < HA_BACKUP_RESULTS; i++) {
        put_label(bb, "session_ha_backups_total{balancer=\"", backups->balancer);
        apr_brigade_printf(bb, NULL, NULL, "\",result=\"%s\"} %" APR_UINT64_T_FMT "\n", ha_backup_result_name(i),
                           backups->results[i]);
    }
}

static void put_bytes(apr_bucket_brigade *bb, const char *before, const ha_backup_counts *backups, int kept)
{
    put_label(bb, before, backups->balancer);
    apr_brigade_printf(bb, NULL, NULL, "\"} %" APR_UINT64_T_FMT "\n", kept ? backups->kept : backups->bytes);
}

static void put_operation(apr_bucket_brigade *bb, const ha_row_store *store, const char *op, const char *result,
                          apr_uint64_t n)
{
    put_label(bb, "session_ha_store_operations_total{node=\"", store->node);
    apr_brigade_printf(bb, NULL, NULL, "\",op=\"%s\",result=\"%s\"} %" APR_UINT64_T_FMT "\n", op, result, n);
}

/* The node's counters say how a get was answered, of a put or an add only that it was asked for, and count
 * what failed over all of them; time-outs are not among the errors. */
static void put_operations(apr_bucket_brigade *bb, const ha_row_store *store)
{
    put_operation(bb, store, "get", "hit", store->hits);
    put_operation(bb, store, "get", "miss", store->misses);
    put_operation(bb, store, "put", "asked", store->puts);
    put_operation(bb, store, "add", "asked", store->adds);
    put_operation(bb, store, "any", "error", store->errors);
    put_operation(bb, store, "any", "timeout", store->timeouts);
}

static void put_seconds(apr_bucket_brigade *bb, const ha_row_store *store)
{
    apr_uint64_t count = 0, us;
    int i;

    for (i = 0; i < store->nbuckets - 1; i++) {
        count += store->buckets[i];
        us = APR_UINT64_C(16) << i;
        put_label(bb, "session_ha_store_seconds_bucket{node=\"", store->node);
        apr_brigade_printf(bb, NULL, NULL, "\",le=\"%" APR_UINT64_T_FMT ".%06d\"} %" APR_UINT64_T_FMT "\n",
                           us / 1000000, (int)(us % 1000000), count);
    }
    if (store->nbuckets > 0)
        count += store->buckets[store->nbuckets - 1];
    put_label(bb, "session_ha_store_seconds_bucket{node=\"", store->node);
    apr_brigade_printf(bb, NULL, NULL, "\",le=\"+Inf\"} %" APR_UINT64_T_FMT "\n", count);
    put_label(bb, "session_ha_store_seconds_sum{node=\"", store->node);
    apr_brigade_printf(bb, NULL, NULL, "\"} %" APR_UINT64_T_FMT ".%06d\n", store->sum_us / 1000000,
                       (int)(store->sum_us % 1000000));
    put_label(bb, "session_ha_store_seconds_count{node=\"", store->node);
    apr_brigade_printf(bb, NULL, NULL, "\"} %" APR_UINT64_T_FMT "\n", count);
}

static void put_up(apr_bucket_brigade *bb, const ha_row_store *store)
{
    put_label(bb, "session_ha_store_up{node=\"", store->node);
    apr_brigade_printf(bb, NULL, NULL, "\"} %d\n", strcmp(store->state, "up") == 0);
}

static void put_forgot(apr_bucket_brigade *bb, const ha_row_store *store, const char *why, apr_uint64_t n)
{
    put_label(bb, "session_ha_store_forgot_total{node=\"", store->node);
    apr_brigade_printf(bb, NULL, NULL, "\",why=\"%s\"} %" APR_UINT64_T_FMT "\n", why, n);
}

void ha_render_prometheus(apr_bucket_brigade *bb, const ha_snapshot *snap)
{
    const apr_array_header_t *stores = snap->stores;
    int i;

    put_head(bb, "session_ha_failovers_total", "counter",
             "Sessions that a request took from one member to another; an empty label is no member.");
    for (i = 0; i < snap->pairs->nelts; i++)
        put_failovers(bb, &APR_ARRAY_IDX(snap->pairs, i, ha_pair_counts));

    put_head(bb, "session_ha_backups_total", "counter", "Session backups that members handed over.");
    for (i = 0; i < snap->backups->nelts; i++)
        put_backups(bb, &APR_ARRAY_IDX(snap->backups, i, ha_backup_counts));

    put_head(bb, "session_ha_backup_bytes_total", "counter", "Bytes of state in the backups that were stored.");
    for (i = 0; i < snap->backups->nelts; i++)
        put_bytes(bb, "session_ha_backup_bytes_total{balancer=\"", &APR_ARRAY_IDX(snap->backups, i, ha_backup_counts), 0);

    put_head(bb, "session_ha_backup_kept_bytes_total", "counter", "What they became: compressed, or the base64 that a member sent.");
    for (i = 0; i < snap->backups->nelts; i++)
        put_bytes(bb, "session_ha_backup_kept_bytes_total{balancer=\"", &APR_ARRAY_IDX(snap->backups, i, ha_backup_counts), 1);

    put_head(bb, "session_ha_retries_total", "counter", "Requests repeated at another member.");
    apr_brigade_printf(bb, NULL, NULL, "session_ha_retries_total %" APR_UINT64_T_FMT "\n", snap->totals.retries);

    put_head(bb, "session_ha_store_operations_total", "counter", "How gets were answered, puts and adds that were asked for, and what failed of all of them.");
    for (i = 0; i < stores->nelts; i++)
        put_operations(bb, &APR_ARRAY_IDX(stores, i, ha_row_store));

    put_head(bb, "session_ha_store_seconds", "histogram", "Time that an operation on a node took.");
    for (i = 0; i < stores->nelts; i++)
        put_seconds(bb, &APR_ARRAY_IDX(stores, i, ha_row_store));

    put_head(bb, "session_ha_store_up", "gauge", "0 while the node is left out because it did not answer, and until it has.");
    for (i = 0; i < stores->nelts; i++)
        put_up(bb, &APR_ARRAY_IDX(stores, i, ha_row_store));

    put_head(bb, "session_ha_store_forgot_total", "counter",
             "What a node forgot: its starts, values that it evicted, files put aside as damaged.");
    for (i = 0; i < stores->nelts; i++) {
        const ha_row_store *store = &APR_ARRAY_IDX(stores, i, ha_row_store);

        put_forgot(bb, store, "restarted", store->restarts);
        put_forgot(bb, store, "evicted", store->evictions);
        put_forgot(bb, store, "damaged", store->damages);
    }
}
