/* manager_render.c - the snapshot, and how one value is written in each format. */
#include <string.h>

#include "apr_strings.h"
#include "manager_render.h"

/* ---- snapshot ------------------------------------------------------------------- */

static const char *text(const char *s)
{
    return s ? s : "";
}

/* mod_proxy writes "Init Ok ". */
static const char *trimmed(const char *s, apr_pool_t *p)
{
    apr_size_t len = strlen(text(s));

    while (len && s[len - 1] == ' ')
        len--;
    return apr_pstrmemdup(p, text(s), len);
}

static apr_uint64_t quantile(const apr_uint64_t *buckets, int n, int percent)
{
    apr_uint64_t total = 0, seen = 0;
    int i;

    for (i = 0; i < n; i++)
        total += buckets[i];
    for (i = 0; i < n; i++) {
        seen += buckets[i];
        if (total && seen * 100 >= total * (apr_uint64_t)percent)
            return APR_UINT64_C(16) << i;
    }
    return 0;
}

/* Two SessionHAStore lines may name the same node; a reader wants the node once (and Prometheus
 * takes it only once). It is down if one of them cannot use it. */
static void add_store(ha_row_store *to, const ha_row_store *more, apr_pool_t *p)
{
    int n = to->nbuckets > more->nbuckets ? to->nbuckets : more->nbuckets, i;
    apr_uint64_t *buckets = apr_pcalloc(p, sizeof(*buckets) * (apr_size_t)(n ? n : 1));

    for (i = 0; i < to->nbuckets; i++)
        buckets[i] += to->buckets[i];
    for (i = 0; i < more->nbuckets; i++)
        buckets[i] += more->buckets[i];
    to->nbuckets = n;
    to->buckets = buckets;
    if (!strcmp(more->state, "down") || !strcmp(to->state, "unknown"))
        to->state = more->state;
    to->gets += more->gets;
    to->hits += more->hits;
    to->misses += more->misses;
    to->puts += more->puts;
    to->adds += more->adds;
    to->errors += more->errors;
    to->timeouts += more->timeouts;
    to->sum_us += more->sum_us;
    to->p50_us = quantile(buckets, n, 50);
    to->p99_us = quantile(buckets, n, 99);
    /* Each store has asked the same server: what one has noticed the other has, sooner or later. */
    to->restarts = to->restarts > more->restarts ? to->restarts : more->restarts;
    to->evictions = to->evictions > more->evictions ? to->evictions : more->evictions;
    to->damages = to->damages > more->damages ? to->damages : more->damages;
    to->last_forgot = to->last_forgot > more->last_forgot ? to->last_forgot : more->last_forgot;
}

static apr_array_header_t *take_stores(const apr_array_header_t *rows, apr_pool_t *p)
{
    apr_array_header_t *stores = apr_array_make(p, 4, sizeof(ha_row_store));
    int i, k;

    for (i = 0; rows && i < rows->nelts; i++) {
        ha_row_store row = APR_ARRAY_IDX(rows, i, ha_row_store);

        row.node = text(row.node);
        row.state = row.state ? row.state : "unknown";
        for (k = 0; k < stores->nelts; k++)
            if (!strcmp(APR_ARRAY_IDX(stores, k, ha_row_store).node, row.node))
                break;
        if (k < stores->nelts)
            add_store(&APR_ARRAY_IDX(stores, k, ha_row_store), &row, p);
        else
            APR_ARRAY_PUSH(stores, ha_row_store) = row;
    }
    return stores;
}

static apr_array_header_t *take_balancers(const apr_array_header_t *rows, ha_counters *counters, apr_pool_t *p)
{
    apr_array_header_t *balancers = apr_array_make(p, 4, sizeof(ha_snap_balancer));
    int i, k;

    for (i = 0; rows && i < rows->nelts; i++) {
        const ha_row_balancer *row = &APR_ARRAY_IDX(rows, i, ha_row_balancer);
        ha_snap_balancer *balancer = apr_array_push(balancers);

        balancer->name = text(row->name);
        balancer->sticky = text(row->sticky);
        balancer->members = apr_array_make(p, 4, sizeof(ha_snap_member));
        for (k = 0; row->members && k < row->members->nelts; k++) {
            const ha_row_member *from = &APR_ARRAY_IDX(row->members, k, ha_row_member);
            ha_snap_member *member = apr_array_push(balancer->members);

            member->name = text(from->name);
            member->route = text(from->route);
            member->state = trimmed(from->state, p);
            member->drain = from->drain;
            member->left = from->left;
            ha_counters_read_member(counters, balancer->name, member->route, &member->counts);
        }
    }
    return balancers;
}

const ha_snapshot *ha_snapshot_take(const apr_array_header_t *balancers, const apr_array_header_t *stores,
                                    ha_counters *counters, ha_journal *journal, apr_pool_t *p)
{
    ha_snapshot *snap = apr_pcalloc(p, sizeof(*snap));

    snap->balancers = take_balancers(balancers, counters, p);
    snap->stores = take_stores(stores, p);
    snap->pairs = ha_counters_read_pairs(counters, p);
    snap->backups = ha_counters_read_backups(counters, p);
    ha_counters_read_totals(counters, &snap->totals);
    snap->journal = ha_journal_read(journal, p);
    return snap;
}

/* ---- values --------------------------------------------------------------------- */

#define REPLACEMENT 0xfffdu

/* The next code point of what should be UTF-8, strictly: no overlong form, no surrogate, nothing
 * above U+10FFFF. A byte that begins nothing valid is one U+FFFD. */
static apr_uint32_t next_code(const unsigned char **at)
{
    const unsigned char *s = *at;
    apr_uint32_t code = *s++;
    int more = code < 0x80 ? 0 : code >= 0xc2 && code < 0xe0 ? 1 : (code & 0xf0) == 0xe0 ? 2 : code >= 0xf0 && code < 0xf5 ? 3 : -1;
    apr_uint32_t least = more == 2 ? 0x800 : more == 3 ? 0x10000 : 0;

    *at = s;
    if (more <= 0)
        return more ? REPLACEMENT : code;
    code &= 0x3fu >> more;
    for (; more; more--) {
        if ((*s & 0xc0) != 0x80)
            return REPLACEMENT;
        code = code << 6 | (*s++ & 0x3fu);
    }
    if (code < least || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
        return REPLACEMENT;
    *at = s;
    return code;
}

static int is_control(apr_uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0);
}

void ha_put_markup(apr_bucket_brigade *bb, const char *s)
{
    const unsigned char *at = (const unsigned char *)text(s);

    while (*at) {
        apr_uint32_t code = next_code(&at);

        /* XML has no way to say a control character, and a newline in a cell would not be seen */
        if (is_control(code) || code == 0xfffe || code == 0xffff)
            code = REPLACEMENT;
        if (code >= 0x80 || strchr("<>&\"'", (int)code))
            apr_brigade_printf(bb, NULL, NULL, "&#%u;", code);
        else
            apr_brigade_putc(bb, NULL, NULL, (char)code);
    }
}

void ha_put_json(apr_bucket_brigade *bb, const char *s)
{
    const unsigned char *at = (const unsigned char *)text(s);

    while (*at) {
        apr_uint32_t code = next_code(&at);

        if (code >= 0x10000)
            apr_brigade_printf(bb, NULL, NULL, "\\u%04x\\u%04x", 0xd800 + ((code - 0x10000) >> 10),
                               0xdc00 + ((code - 0x10000) & 0x3ff));
        else if (code == '"' || code == '\\')
            apr_brigade_printf(bb, NULL, NULL, "\\%c", (int)code);
        else if (is_control(code) || code >= 0x80 || strchr("<>&", (int)code))
            apr_brigade_printf(bb, NULL, NULL, "\\u%04x", code);    /* no markup, should a browser guess */
        else
            apr_brigade_putc(bb, NULL, NULL, (char)code);
    }
}

void ha_put_label(apr_bucket_brigade *bb, const char *s)
{
    const unsigned char *at = (const unsigned char *)text(s), *from;

    while (*(from = at)) {
        apr_uint32_t code = next_code(&at);

        if (code == '\n')
            apr_brigade_puts(bb, NULL, NULL, "\\n");
        else if (code == '"' || code == '\\')
            apr_brigade_printf(bb, NULL, NULL, "\\%c", (int)code);
        else if (is_control(code) || code == REPLACEMENT)
            apr_brigade_puts(bb, NULL, NULL, "\xef\xbf\xbd");
        else
            apr_brigade_write(bb, NULL, NULL, (const char *)from, (apr_size_t)(at - from));
    }
}

void ha_put_number(apr_bucket_brigade *bb, apr_uint64_t n)
{
    apr_brigade_printf(bb, NULL, NULL, "%" APR_UINT64_T_FMT, n);
}

void ha_put_time(apr_bucket_brigade *bb, apr_time_t when)
{
    apr_time_exp_t at;

    apr_time_exp_gmt(&at, when);
    apr_brigade_printf(bb, NULL, NULL, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", at.tm_year + 1900, at.tm_mon + 1,
                       at.tm_mday, at.tm_hour, at.tm_min, at.tm_sec, at.tm_usec / 1000);
}
