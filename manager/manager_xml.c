/* manager_xml.c - the snapshot inside balancer-manager's ?xml=1, in its own way of writing:
 * elements of the httpd namespace, no attributes, two spaces a level. */
#include "manager_render.h"

static void put_text(apr_bucket_brigade *bb, int depth, const char *name, const char *value)
{
    apr_brigade_printf(bb, NULL, NULL, "%*s<httpd:%s>", 2 * depth, "", name);
    ha_put_markup(bb, value);
    apr_brigade_printf(bb, NULL, NULL, "</httpd:%s>\n", name);
}

static void put_count(apr_bucket_brigade *bb, int depth, const char *name, apr_uint64_t value)
{
    apr_brigade_printf(bb, NULL, NULL, "%*s<httpd:%s>%" APR_UINT64_T_FMT "</httpd:%s>\n", 2 * depth, "", name, value,
                       name);
}

/* 0 is left out: an element that is there holds a time */
static void put_time(apr_bucket_brigade *bb, int depth, const char *name, apr_time_t when)
{
    if (!when)
        return;
    apr_brigade_printf(bb, NULL, NULL, "%*s<httpd:%s>", 2 * depth, "", name);
    ha_put_time(bb, when);
    apr_brigade_printf(bb, NULL, NULL, "</httpd:%s>\n", name);
}

static void put_tag(apr_bucket_brigade *bb, int depth, const char *tag)
{
    apr_brigade_printf(bb, NULL, NULL, "%*s<%s>\n", 2 * depth, "", tag);
}

static void put_member(apr_bucket_brigade *bb, const ha_snap_member *member)
{
    int i;

    put_tag(bb, 5, "httpd:member");
    put_text(bb, 6, "name", member->name);
    put_text(bb, 6, "route", member->route);
    put_text(bb, 6, "state", member->state);
    if (member->drain)
        put_count(bb, 6, "left", (apr_uint64_t)member->left);
    put_count(bb, 6, "moved_out", member->counts.moved_out);
    put_count(bb, 6, "moved_in", member->counts.moved_in);
    for (i = 0; i < HA_OUTCOMES; i++)
        put_count(bb, 6, ha_outcome_name(i), member->counts.outcomes[i]);
    put_count(bb, 6, "retried", member->counts.retried);
    put_time(bb, 6, "last_failover", member->counts.last_failover);
    put_tag(bb, 5, "/httpd:member");
}

static void put_store(apr_bucket_brigade *bb, const ha_row_store *store)
{
    put_tag(bb, 3, "httpd:store");
    put_text(bb, 4, "node", store->node);
    put_text(bb, 4, "state", store->state);
    put_count(bb, 4, "gets", store->gets);
    put_count(bb, 4, "hits", store->hits);
    put_count(bb, 4, "misses", store->misses);
    put_count(bb, 4, "puts", store->puts);
    put_count(bb, 4, "adds", store->adds);
    put_count(bb, 4, "errors", store->errors);
    put_count(bb, 4, "timeouts", store->timeouts);
    put_count(bb, 4, "p50_us", store->p50_us);
    put_count(bb, 4, "p99_us", store->p99_us);
    put_count(bb, 4, "restarts", store->restarts);
    put_count(bb, 4, "evictions", store->evictions);
    put_count(bb, 4, "damages", store->damages);
    put_time(bb, 4, "last_forgot", store->last_forgot);
    put_tag(bb, 3, "/httpd:store");
}

static void put_entry(apr_bucket_brigade *bb, const ha_journal_entry *entry)
{
    put_tag(bb, 3, "httpd:failover");
    put_time(bb, 4, "time", entry->time);
    put_text(bb, 4, "balancer", entry->balancer);
    put_text(bb, 4, "session", entry->session);
    put_text(bb, 4, "from", entry->from);
    put_text(bb, 4, "to", entry->to);
    put_text(bb, 4, "cause", entry->cause);
    put_text(bb, 4, "outcome", ha_outcome_name((ha_outcome)entry->outcome));
    put_count(bb, 4, "epoch", entry->epoch);
    put_count(bb, 4, "seq", entry->seq);
    put_count(bb, 4, "bytes", entry->bytes);
    put_count(bb, 4, "took_us", entry->took > 0 ? (apr_uint64_t)entry->took : 0);
    put_tag(bb, 3, "/httpd:failover");
}

void ha_render_xml(apr_bucket_brigade *bb, const ha_snapshot *snap)
{
    int i, k;

    put_tag(bb, 1, "httpd:sessionha");
    put_text(bb, 2, "version", HA_VERSION);
    put_tag(bb, 2, "httpd:balancers");
    for (i = 0; i < snap->balancers->nelts; i++) {
        const ha_snap_balancer *balancer = &APR_ARRAY_IDX(snap->balancers, i, ha_snap_balancer);

        put_tag(bb, 3, "httpd:balancer");
        put_text(bb, 4, "name", balancer->name);
        put_text(bb, 4, "sticky", balancer->sticky);
        put_tag(bb, 4, "httpd:members");
        for (k = 0; k < balancer->members->nelts; k++)
            put_member(bb, &APR_ARRAY_IDX(balancer->members, k, ha_snap_member));
        put_tag(bb, 4, "/httpd:members");
        put_tag(bb, 3, "/httpd:balancer");
    }
    put_tag(bb, 2, "/httpd:balancers");
    put_tag(bb, 2, "httpd:stores");
    for (i = 0; i < snap->stores->nelts; i++)
        put_store(bb, &APR_ARRAY_IDX(snap->stores, i, ha_row_store));
    put_tag(bb, 2, "/httpd:stores");
    put_tag(bb, 2, "httpd:journal");
    for (i = 0; i < snap->journal->nelts && i < HA_PAGE_ENTRIES; i++)
        put_entry(bb, &APR_ARRAY_IDX(snap->journal, i, ha_journal_entry));
    put_tag(bb, 2, "/httpd:journal");
    put_tag(bb, 1, "/httpd:sessionha");
}
