/* manager_status.c - the handler session-ha-status: the same facts for people, scripts and Prometheus. */
#include <stdlib.h>
#include <string.h>

#include "httpd.h"
#include "http_config.h"
#include "http_log.h"
#include "http_protocol.h"
#include "http_request.h"
#include "util_script.h"
#include "apr_lib.h"
#include "apr_strings.h"
#include "manager_hooks.h"

APLOG_USE_MODULE(session_ha);

typedef struct format {
    const char *name, *content_type;
    const char *accept[3];              /* media ranges that ask for it by name */
    void (*render)(apr_bucket_brigade *, const ha_snapshot *);
} format;

/* The first is what one gets who does not ask. */
static const format formats[] = {
    { "html", "text/html; charset=utf-8", { "text/html", "application/xhtml+xml" }, ha_render_html_page },
    { "json", "application/json", { "application/json" }, ha_render_json },
    { "prometheus", "text/plain; version=0.0.4; charset=utf-8", { "text/plain", "application/openmetrics-text" },
      ha_render_prometheus },
};
#define FORMATS (int)(sizeof(formats) / sizeof(*formats))

/* "q=0.5" as 500; 1000 when it is not said, 0 when it is not a number. */
static int quality(const char *params)
{
    const char *at = params;

    while (at && (at = strchr(at, ';'))) {
        at++;
        while (apr_isspace(*at))
            at++;
        if ((*at == 'q' || *at == 'Q') && at[1] == '=') {
            double q = strtod(at + 2, NULL);

            return q >= 1 ? 1000 : q > 0 ? (int)(q * 1000) : 0;
        }
    }
    return 1000;
}

/* The format that Accept likes best by name; a range with a star, and a tie, is the default's. */
static const format *accepted(request_rec *r)
{
    const char *accept = apr_table_get(r->headers_in, "Accept");
    const format *best = &formats[0];
    char *list, *range, *last;
    int best_q = 0, by_star = 0, i, k;

    if (!accept)
        return best;
    list = apr_pstrdup(r->pool, accept);
    for (range = apr_strtok(list, ",", &last); range; range = apr_strtok(NULL, ",", &last)) {
        int q = quality(range), n;

        while (apr_isspace(*range))
            range++;
        n = (int)strcspn(range, "; \t");
        if (n == 3 && !strncmp(range, "*/*", 3) && q > by_star)
            by_star = q;
        for (i = 0; i < FORMATS; i++)
            for (k = 0; k < 3 && formats[i].accept[k]; k++)
                if ((int)strlen(formats[i].accept[k]) == n && !ap_cstr_casecmpn(range, formats[i].accept[k], (apr_size_t)n)
                    && (q > best_q || (q == best_q && q && &formats[i] < best))) {
                    best = &formats[i];
                    best_q = q;
                }
    }
    return by_star > best_q ? &formats[0] : best;
}

/* NULL: asked for one that does not exist. */
static const format *wanted(request_rec *r)
{
    apr_table_t *args;
    const char *name;
    int i;

    ap_args_to_table(r, &args);
    name = apr_table_get(args, "format");
    if (!name) {
        apr_table_mergen(r->headers_out, "Vary", "Accept");
        return accepted(r);
    }
    for (i = 0; i < FORMATS; i++)
        if (!strcmp(name, formats[i].name))
            return &formats[i];
    return NULL;
}

static int show_status(request_rec *r)
{
    apr_bucket_brigade *bb;
    const format *as;

    if (!r->handler || strcmp(r->handler, "session-ha-status"))
        return DECLINED;
    ap_allow_standard_methods(r, REPLACE_ALLOW, M_GET, M_OPTIONS, -1);      /* M_GET is HEAD too */
    if (r->method_number == M_OPTIONS)
        return DECLINED;
    if (r->method_number != M_GET)
        return HTTP_METHOD_NOT_ALLOWED;
    as = wanted(r);
    if (!as) {
        ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r, "session-ha-status: unknown format; there are html, json and "
                      "prometheus");
        return HTTP_BAD_REQUEST;
    }

    ap_set_content_type(r, as->content_type);
    apr_table_setn(r->headers_out, "Cache-Control", "no-store");
    apr_table_setn(r->headers_out, "X-Content-Type-Options", "nosniff");
    bb = apr_brigade_create(r->pool, r->connection->bucket_alloc);
    as->render(bb, ha_manager_snapshot(r));
    APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_eos_create(bb->bucket_alloc));
    return ap_pass_brigade(r->output_filters, bb) == APR_SUCCESS ? OK : AP_FILTER_ERROR;
}

void ha_status_register(void)
{
    ap_hook_handler(show_status, NULL, NULL, APR_HOOK_MIDDLE);
}
