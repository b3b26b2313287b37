/* manager_html.c - the snapshot as HTML: a section of the balancer-manager page in its own look, the
 * same as a page, and a few lines for mod_status. */
#include <string.h>

#include "manager_render.h"

/* What balancer-manager says of its tables, so that our own page looks the same. */
#define STYLE \
    "table { border: 1px solid gray; border-spacing: 3px; border-collapse: collapse; background-color: white; " \
    "text-align: center; }\n" \
    "th { border: 1px dotted gray; padding: 2px; background-color: lightgray; text-align: center; }\n" \
    "td { border: 1px dotted gray; padding: 2px; background-color: white; text-align: center; }\n"

static void put_cell(apr_bucket_brigade *bb, const char *value)
{
    apr_brigade_puts(bb, NULL, NULL, "<td>");
    ha_put_markup(bb, value);
    apr_brigade_puts(bb, NULL, NULL, "</td>");
}

static void put_count(apr_bucket_brigade *bb, apr_uint64_t value)
{
    apr_brigade_printf(bb, NULL, NULL, "<td>%" APR_UINT64_T_FMT "</td>", value);
}

static void put_time(apr_bucket_brigade *bb, apr_time_t when)
{
    apr_brigade_puts(bb, NULL, NULL, "<td>");
    if (when)
        ha_put_time(bb, when);
    else
        apr_brigade_puts(bb, NULL, NULL, "never");
    apr_brigade_puts(bb, NULL, NULL, "</td>");
}

/* 64 us, 2 ms, 4 s: two digits are enough to see what is slow */
static void put_span(apr_bucket_brigade *bb, apr_uint64_t us)
{
    if (us < 10000)
        apr_brigade_printf(bb, NULL, NULL, "<td>%" APR_UINT64_T_FMT " &micro;s</td>", us);
    else if (us < 10000000)
        apr_brigade_printf(bb, NULL, NULL, "<td>%" APR_UINT64_T_FMT " ms</td>", us / 1000);
    else
        apr_brigade_printf(bb, NULL, NULL, "<td>%" APR_UINT64_T_FMT " s</td>", us / 1000000);
}

static void put_backups(apr_bucket_brigade *bb, const ha_snapshot *snap, const char *balancer)
{
    int i, k;

    for (i = 0; i < snap->backups->nelts; i++) {
        const ha_backup_counts *backups = &APR_ARRAY_IDX(snap->backups, i, ha_backup_counts);

        if (strcmp(backups->balancer, balancer))
            continue;
        apr_brigade_puts(bb, NULL, NULL, "<p>Backups: ");
        for (k = 0; k < HA_BACKUP_RESULTS; k++)
            apr_brigade_printf(bb, NULL, NULL, "%s%" APR_UINT64_T_FMT " %s", k ? ", " : "", backups->results[k],
                               k == HA_BACKUP_TOO_LARGE ? "too large" : ha_backup_result_name(k));
        apr_brigade_printf(bb, NULL, NULL, "; %" APR_UINT64_T_FMT " bytes of state, kept as %" APR_UINT64_T_FMT "</p>\n",
                           backups->bytes, backups->kept);
        return;
    }
}

static void put_balancer(apr_bucket_brigade *bb, const ha_snapshot *snap, const ha_snap_balancer *balancer)
{
    int i, k;

    apr_brigade_puts(bb, NULL, NULL, "<h3>Session failover of ");
    ha_put_markup(bb, balancer->name);
    apr_brigade_puts(bb, NULL, NULL, "</h3>\n\n<table><tr><th>Member</th><th>Route</th><th>State</th><th>Moved out</th>"
                     "<th>Moved in</th><th>Restored</th><th>Native</th><th>Missing</th><th>Unavailable</th>"
                     "<th>Refused</th><th>Retried</th><th>Last failover</th></tr>\n");
    for (i = 0; i < balancer->members->nelts; i++) {
        const ha_snap_member *member = &APR_ARRAY_IDX(balancer->members, i, ha_snap_member);

        apr_brigade_puts(bb, NULL, NULL, "<tr>\n");
        put_cell(bb, member->name);
        put_cell(bb, member->route);
        apr_brigade_puts(bb, NULL, NULL, "<td>");
        ha_put_markup(bb, member->state);
        if (member->drain)
            apr_brigade_printf(bb, NULL, NULL, " (%d left)", member->left);
        apr_brigade_puts(bb, NULL, NULL, "</td>");
        put_count(bb, member->counts.moved_out);
        put_count(bb, member->counts.moved_in);
        for (k = 0; k < HA_OUTCOMES; k++)
            put_count(bb, member->counts.outcomes[k]);
        put_count(bb, member->counts.retried);
        put_time(bb, member->counts.last_failover);
        apr_brigade_puts(bb, NULL, NULL, "</tr>\n");
    }
    apr_brigade_puts(bb, NULL, NULL, "</table>\n");
    put_backups(bb, snap, balancer->name);
}

/* "never", or when it last did, and why: restarted 2, evicted 1200 */
static void put_forgot(apr_bucket_brigade *bb, const ha_row_store *store)
{
    const char *before = ": ";

    apr_brigade_puts(bb, NULL, NULL, "<td>");
    if (!store->last_forgot) {
        apr_brigade_puts(bb, NULL, NULL, "never</td>");
        return;
    }
    ha_put_time(bb, store->last_forgot);
    if (store->restarts) {
        apr_brigade_printf(bb, NULL, NULL, "%srestarted %" APR_UINT64_T_FMT, before, store->restarts);
        before = ", ";
    }
    if (store->evictions) {
        apr_brigade_printf(bb, NULL, NULL, "%sevicted %" APR_UINT64_T_FMT, before, store->evictions);
        before = ", ";
    }
    if (store->damages)
        apr_brigade_printf(bb, NULL, NULL, "%sdamaged %" APR_UINT64_T_FMT, before, store->damages);
    apr_brigade_puts(bb, NULL, NULL, "</td>");
}

static void put_stores(apr_bucket_brigade *bb, const ha_snapshot *snap)
{
    int i;

    apr_brigade_puts(bb, NULL, NULL, "<h3>Session stores</h3>\n\n<table><tr><th>Node</th><th>State</th><th>Gets</th>"
                     "<th>Hits</th><th>Misses</th><th>Puts</th><th>Adds</th><th>Errors</th><th>Timeouts</th>"
                     "<th>p50</th><th>p99</th><th>Forgot</th></tr>\n");
    for (i = 0; i < snap->stores->nelts; i++) {
        const ha_row_store *store = &APR_ARRAY_IDX(snap->stores, i, ha_row_store);

        apr_brigade_puts(bb, NULL, NULL, "<tr>\n");
        put_cell(bb, store->node);
        put_cell(bb, store->state);
        put_count(bb, store->gets);
        put_count(bb, store->hits);
        put_count(bb, store->misses);
        put_count(bb, store->puts);
        put_count(bb, store->adds);
        put_count(bb, store->errors);
        put_count(bb, store->timeouts);
        put_span(bb, store->p50_us);
        put_span(bb, store->p99_us);
        put_forgot(bb, store);
        apr_brigade_puts(bb, NULL, NULL, "</tr>\n");
    }
    apr_brigade_puts(bb, NULL, NULL, "</table>\n");
}

static void put_journal(apr_bucket_brigade *bb, const ha_snapshot *snap)
{
    int i;

    apr_brigade_puts(bb, NULL, NULL, "<h3>Last failovers</h3>\n\n");
    if (!snap->journal->nelts) {
        apr_brigade_puts(bb, NULL, NULL, "<p>None.</p>\n");
        return;
    }
    apr_brigade_puts(bb, NULL, NULL, "<table><tr><th>Time</th><th>Balancer</th><th>Session</th><th>From</th><th>To</th>"
                     "<th>Cause</th><th>Outcome</th><th>Epoch</th><th>Seq</th><th>Bytes</th><th>Took</th></tr>\n");
    for (i = 0; i < snap->journal->nelts && i < HA_PAGE_ENTRIES; i++) {
        const ha_journal_entry *entry = &APR_ARRAY_IDX(snap->journal, i, ha_journal_entry);

        apr_brigade_puts(bb, NULL, NULL, "<tr>\n");
        put_time(bb, entry->time);
        put_cell(bb, entry->balancer);
        put_cell(bb, entry->session);
        put_cell(bb, entry->from);
        put_cell(bb, entry->to);
        put_cell(bb, entry->cause);
        put_cell(bb, ha_outcome_name((ha_outcome)entry->outcome));
        put_count(bb, entry->epoch);
        put_count(bb, entry->seq);
        put_count(bb, entry->bytes);
        put_span(bb, entry->took > 0 ? (apr_uint64_t)entry->took : 0);
        apr_brigade_puts(bb, NULL, NULL, "</tr>\n");
    }
    apr_brigade_puts(bb, NULL, NULL, "</table>\n");
}

static void put_section(apr_bucket_brigade *bb, const ha_snapshot *snap)
{
    int i;

    for (i = 0; i < snap->balancers->nelts; i++)
        put_balancer(bb, snap, &APR_ARRAY_IDX(snap->balancers, i, ha_snap_balancer));
    if (snap->stores->nelts)
        put_stores(bb, snap);
    put_journal(bb, snap);
}

void ha_render_html(apr_bucket_brigade *bb, const ha_snapshot *snap)
{
    apr_brigade_puts(bb, NULL, NULL, "<h2>Session failover (mod_session_ha " HA_VERSION ")</h2>\n");
    put_section(bb, snap);
}

void ha_render_html_page(apr_bucket_brigade *bb, const ha_snapshot *snap)
{
    apr_brigade_puts(bb, NULL, NULL, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                     "<title>Session failover</title>\n<style>\n" STYLE "</style>\n</head>\n"
                     "<body><h1>Session failover (mod_session_ha " HA_VERSION ")</h1>\n"
                     "<p><a href=\"?format=json\">JSON</a> <a href=\"?format=prometheus\">Prometheus</a></p>\n");
    put_section(bb, snap);
    apr_brigade_puts(bb, NULL, NULL, "</body></html>\n");
}

/* ---- mod_status ------------------------------------------------------------------- */

static int stores_down(const ha_snapshot *snap)
{
    int i, down = 0;

    for (i = 0; i < snap->stores->nelts; i++)
        down += !strcmp(APR_ARRAY_IDX(snap->stores, i, ha_row_store).state, "down");
    return down;
}

void ha_render_summary_html(apr_bucket_brigade *bb, const ha_snapshot *snap, int tables)
{
    int i, down = stores_down(snap);

    apr_brigade_puts(bb, NULL, NULL, "<hr />\n<h1>Session failover (mod_session_ha " HA_VERSION ")</h1>\n\n");
    if (tables) {
        apr_brigade_puts(bb, NULL, NULL, "<table border=\"0\"><tr><th>Failovers</th>");
        for (i = 0; i < HA_OUTCOMES; i++)
            apr_brigade_printf(bb, NULL, NULL, "<th>%s</th>", ha_outcome_name(i));
        apr_brigade_puts(bb, NULL, NULL, "<th>retried</th><th>Stores up</th><th>Stores down</th></tr>\n<tr>");
        put_count(bb, snap->totals.failovers);
        for (i = 0; i < HA_OUTCOMES; i++)
            put_count(bb, snap->totals.outcomes[i]);
        put_count(bb, snap->totals.retries);
        put_count(bb, (apr_uint64_t)(snap->stores->nelts - down));
        put_count(bb, (apr_uint64_t)down);
        apr_brigade_puts(bb, NULL, NULL, "</tr>\n</table>\n");
        return;
    }
    apr_brigade_printf(bb, NULL, NULL, "<p>Failovers: %" APR_UINT64_T_FMT " (", snap->totals.failovers);
    for (i = 0; i < HA_OUTCOMES; i++)
        apr_brigade_printf(bb, NULL, NULL, "%s%" APR_UINT64_T_FMT " %s", i ? ", " : "", snap->totals.outcomes[i],
                           ha_outcome_name(i));
    apr_brigade_printf(bb, NULL, NULL, "), retried: %" APR_UINT64_T_FMT ", stores up: %d, down: %d</p>\n",
                       snap->totals.retries, snap->stores->nelts - down, down);
}

void ha_render_summary_lines(apr_bucket_brigade *bb, const ha_snapshot *snap)
{
    static const char *const names[HA_OUTCOMES] = {
        [HA_RESTORED] = "Restored", [HA_NATIVE] = "Native", [HA_MISSING] = "Missing",
        [HA_UNAVAILABLE] = "Unavailable", [HA_REFUSED] = "Refused",
    };
    int i, down = stores_down(snap);

    apr_brigade_printf(bb, NULL, NULL, "SessionHAFailovers: %" APR_UINT64_T_FMT "\n", snap->totals.failovers);
    for (i = 0; i < HA_OUTCOMES; i++)
        apr_brigade_printf(bb, NULL, NULL, "SessionHA%s: %" APR_UINT64_T_FMT "\n", names[i], snap->totals.outcomes[i]);
    apr_brigade_printf(bb, NULL, NULL, "SessionHARetried: %" APR_UINT64_T_FMT "\nSessionHAStoresUp: %d\n"
                       "SessionHAStoresDown: %d\n", snap->totals.retries, snap->stores->nelts - down, down);
}
