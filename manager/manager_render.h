/* manager_render.h - inside the manager room: a snapshot of all facts, and pure functions that
 * write it as text. APR only; no function here asks anything or decides anything. */
#ifndef HA_MANAGER_RENDER_H
#define HA_MANAGER_RENDER_H

#include "apr_buckets.h"
#include "manager_shared.h"

typedef struct ha_snap_member {
    const char *name, *route, *state;
    int drain, left;            /* draining, and how many sessions are left */
    ha_member_counts counts;
} ha_snap_member;

typedef struct ha_snap_balancer {
    const char *name, *sticky;
    apr_array_header_t *members;    /* ha_snap_member */
} ha_snap_balancer;

typedef struct ha_snapshot {
    apr_array_header_t *balancers;  /* ha_snap_balancer: those of this server */
    apr_array_header_t *stores;     /* ha_row_store, one a node */
    apr_array_header_t *pairs;      /* ha_pair_counts, of the whole httpd, as what follows */
    apr_array_header_t *backups;    /* ha_backup_counts */
    apr_array_header_t *journal;    /* ha_journal_entry, newest first */
    ha_totals totals;
} ha_snapshot;

#define HA_PAGE_ENTRIES 20          /* of the journal, on the balancer-manager page; JSON has all */

/* balancers, stores: rows of ha_manager_sources, NULL for none; counters, journal: NULL for none. */
const ha_snapshot *ha_snapshot_take(const apr_array_header_t *balancers, const apr_array_header_t *stores,
                                    ha_counters *, ha_journal *, apr_pool_t *p);

void ha_render_json(apr_bucket_brigade *, const ha_snapshot *);
void ha_render_prometheus(apr_bucket_brigade *, const ha_snapshot *);
void ha_render_xml(apr_bucket_brigade *, const ha_snapshot *);      /* <httpd:sessionha>...</httpd:sessionha> */
void ha_render_html(apr_bucket_brigade *, const ha_snapshot *);     /* the section, without <html> */
void ha_render_html_page(apr_bucket_brigade *, const ha_snapshot *);
void ha_render_summary_html(apr_bucket_brigade *, const ha_snapshot *, int tables);
void ha_render_summary_lines(apr_bucket_brigade *, const ha_snapshot *);    /* "SessionHAFailovers: 3" */

/* ---- values ------------------------------------------------------------------- */

/* Text of unknown origin (NULL is ""), made harmless for where it goes. Bytes that are not UTF-8 become
 * U+FFFD. Markup and JSON come out as ASCII, whatever charset the page claims. */
void ha_put_markup(apr_bucket_brigade *, const char *);     /* HTML and XML: text or quoted attribute */
void ha_put_json(apr_bucket_brigade *, const char *);       /* between the quotes of a JSON string */
void ha_put_label(apr_bucket_brigade *, const char *);      /* between the quotes of a Prometheus label */

void ha_put_number(apr_bucket_brigade *, apr_uint64_t);
void ha_put_time(apr_bucket_brigade *, apr_time_t);         /* 2026-01-01T00:00:00.000Z */

#endif
