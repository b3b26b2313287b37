/* manager_json.c - the snapshot as JSON: names, order and types are a contract with whoever reads it. */
#include "manager_render.h"

static void put_text(apr_bucket_brigade *bb, const char *name, const char *value)
{
    apr_brigade_printf(bb, NULL, NULL, "\"%s\": \"", name);
    ha_put_json(bb, value);
    apr_brigade_puts(bb, NULL, NULL, "\"");
}

static void put_count(apr_bucket_brigade *bb, const char *name, apr_uint64_t value)
{
    apr_brigade_printf(bb, NULL, NULL, ", \"%s\": %" APR_UINT64_T_FMT, name, value);
}

static void put_more(apr_bucket_brigade *bb, const char *name, const char *value)
{
    apr_brigade_puts(bb, NULL, NULL, ", ");
    put_text(bb, name, value);
}

/* null: never */
static void put_when(apr_bucket_brigade *bb, const char *name, apr_time_t when)
{
    apr_brigade_printf(bb, NULL, NULL, ", \"%s\": ", name);
    if (when) {
        apr_brigade_puts(bb, NULL, NULL, "\"");
        ha_put_time(bb, when);
        apr_brigade_puts(bb, NULL, NULL, "\"");
    }
    else {
        apr_brigade_puts(bb, NULL, NULL, "null");
    }
}

static void put_member(apr_bucket_brigade *bb, const ha_snap_member *member)
{
    const ha_member_counts *counts = &member->counts;
    int i;

    apr_brigade_puts(bb, NULL, NULL, "{");
    put_text(bb, "name", member->name);
    put_more(bb, "route", member->route);
    put_more(bb, "state", member->state);
    put_count(bb, "moved_out", counts->moved_out);
    put_count(bb, "moved_in", counts->moved_in);
    for (i = 0; i < HA_OUTCOMES; i++)
        put_count(bb, ha_outcome_name(i), counts->outcomes[i]);
    put_count(bb, "retried", counts->retried);
    put_when(bb, "last_failover", counts->last_failover);
    apr_brigade_puts(bb, NULL, NULL, "}");
}

static void put_balancer(apr_bucket_brigade *bb, const ha_snap_balancer *balancer)
{
    int i;

    apr_brigade_puts(bb, NULL, NULL, "{");
    put_text(bb, "name", balancer->name);
    put_more(bb, "sticky", balancer->sticky);
    apr_brigade_puts(bb, NULL, NULL, ", \"members\": [");
    for (i = 0; i < balancer->members->nelts; i++) {
        apr_brigade_puts(bb, NULL, NULL, i ? ",\n    " : "\n    ");
        put_member(bb, &APR_ARRAY_IDX(balancer->members, i, ha_snap_member));
    }
    apr_brigade_puts(bb, NULL, NULL, "]}");
}

static void put_store(apr_bucket_brigade *bb, const ha_row_store *store)
{
    apr_brigade_puts(bb, NULL, NULL, "{");
    put_text(bb, "node", store->node);
    put_more(bb, "state", store->state);
    put_count(bb, "gets", store->gets);
    put_count(bb, "hits", store->hits);
    put_count(bb, "misses", store->misses);
    put_count(bb, "puts", store->puts);
    put_count(bb, "adds", store->adds);
    put_count(bb, "errors", store->errors);
    put_count(bb, "timeouts", store->timeouts);
    put_count(bb, "p50_us", store->p50_us);
    put_count(bb, "p99_us", store->p99_us);
    put_count(bb, "restarts", store->restarts);
    put_count(bb, "evictions", store->evictions);
    put_count(bb, "damages", store->damages);
    put_when(bb, "last_forgot", store->last_forgot);
    apr_brigade_puts(bb, NULL, NULL, "}");
}

static void put_entry(apr_bucket_brigade *bb, const ha_journal_entry *entry)
{
    apr_brigade_puts(bb, NULL, NULL, "{\"time\": \"");
    ha_put_time(bb, entry->time);
    apr_brigade_puts(bb, NULL, NULL, "\"");
    put_more(bb, "balancer", entry->balancer);
    put_more(bb, "session", entry->session);
    put_more(bb, "from", entry->from);
    put_more(bb, "to", entry->to);
    put_more(bb, "cause", entry->cause);
    put_more(bb, "outcome", ha_outcome_name((ha_outcome)entry->outcome));
    put_count(bb, "epoch", entry->epoch);
    put_count(bb, "seq", entry->seq);
    put_count(bb, "bytes", entry->bytes);
    put_count(bb, "took_us", entry->took > 0 ? (apr_uint64_t)entry->took : 0);
    apr_brigade_puts(bb, NULL, NULL, "}");
}

void ha_render_json(apr_bucket_brigade *bb, const ha_snapshot *snap)
{
    int i;

    apr_brigade_puts(bb, NULL, NULL, "{");
    put_text(bb, "version", HA_VERSION);
    apr_brigade_puts(bb, NULL, NULL, ",\n \"balancers\": [");
    for (i = 0; i < snap->balancers->nelts; i++) {
        apr_brigade_puts(bb, NULL, NULL, i ? ",\n  " : "\n  ");
        put_balancer(bb, &APR_ARRAY_IDX(snap->balancers, i, ha_snap_balancer));
    }
    apr_brigade_puts(bb, NULL, NULL, "],\n \"stores\": [");
    for (i = 0; i < snap->stores->nelts; i++) {
        apr_brigade_puts(bb, NULL, NULL, i ? ",\n  " : "\n  ");
        put_store(bb, &APR_ARRAY_IDX(snap->stores, i, ha_row_store));
    }
    apr_brigade_puts(bb, NULL, NULL, "],\n \"journal\": [");
    for (i = 0; i < snap->journal->nelts; i++) {
        apr_brigade_puts(bb, NULL, NULL, i ? ",\n  " : "\n  ");
        put_entry(bb, &APR_ARRAY_IDX(snap->journal, i, ha_journal_entry));
    }
    apr_brigade_puts(bb, NULL, NULL, "]}\n");
}
