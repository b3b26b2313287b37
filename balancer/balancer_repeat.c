/* balancer_repeat.c - what came back from a member: is it the client's answer, or did the member die under the
 * request, and may it be sent once more?
 */
#include "httpd.h"
#include "apr_strings.h"
#include "http_protocol.h"

#include "balancer_request.h"

int ha_repeat_fits(const ha_request *q, const request_rec *r)
{
    const char *length = apr_table_get(r->headers_in, "Content-Length");
    apr_off_t len;
    return !q->has_body
           || (length && ap_parse_strict_length(&len, length) && len <= ha_config_retry_body(q->cfg));
}

/* Whether running it twice does no more than running it once. The operator may vouch for more of them:
 * SetEnvIf Request_URI ^/search session-ha-retry */
int ha_repeat_allowed(const ha_request *q, const request_rec *r)
{
    ha_retry class = ha_config_retry(q->cfg);
    if (class == HA_RETRY_OFF)
        return 0;
    switch (r->method_number) {
    case M_GET:                 /* and HEAD */
    case M_OPTIONS:
    case M_TRACE:
    case M_PROPFIND:
    case M_REPORT:
        return 1;
    case M_PUT:
    case M_DELETE:
        if (class == HA_RETRY_IDEMPOTENT)
            return 1;
        break;
    }
    return apr_table_get(r->subprocess_env, "session-ha-retry") != NULL;
}

/* mod_proxy_http closes a client connection that was used before instead of answering 502: the client is
 * to try again by itself. We do that for it, so the connection is shown as new during the attempt. */
void ha_repeat_hide_keepalives(ha_request *q, request_rec *r)
{
    if (r->connection->keepalives && !apr_table_get(r->subprocess_env, "proxy-initial-not-pooled")) {
        q->keepalives = r->connection->keepalives;
        r->connection->keepalives = 0;
        q->hidden = 1;
    }
}

/* As if the member had never answered. 0: what was sent to it cannot be sent again. */
int ha_repeat_prepare(ha_request *q, request_rec *r)
{
    r->status = HTTP_OK;
    r->status_line = NULL;
    apr_table_clear(r->headers_out);
    apr_table_clear(r->err_headers_out);
    r->content_type = NULL;
    r->content_encoding = NULL;
    apr_table_unset(r->notes, "error-notes");
    apr_table_unset(r->notes, "verbose-error-to");
    apr_table_unset(r->notes, "proxy-status");
    apr_table_unset(r->notes, "proxy_timedout");
    apr_table_unset(r->headers_in, HA_FIELD_RESTORE);
    return q->body ? ha_body_play_again(q->body, r) : !q->has_body;
}

/* The connection ended before a status line came. An answer that is merely bad (a header too long, not HTTP)
 * has one, or says so in its notes; a member that is slow has a time-out noted. */
int ha_repeat_died(const ha_request *q, const request_rec *r, int status)
{
    const char *notes;
    if (q->passed || apr_table_get(r->notes, "proxy-status") || apr_table_get(r->notes, "proxy_timedout"))
        return 0;
    notes = apr_table_get(r->notes, "error-notes");
    if (notes && ap_strstr_c(notes, "Corrupt status line"))
        return 0;
    if (strcmp(q->worker->s->scheme, "ajp") == 0) {
        /* mod_proxy_ajp asks for a repeat by itself (503) where the method allows it, as often as there are members.
         * A connection that was refused has put the member into error by now, one that broke has not. */
        if (status == HTTP_INTERNAL_SERVER_ERROR
            || (status == HTTP_SERVICE_UNAVAILABLE && !(q->worker->s->status & PROXY_WORKER_IN_ERROR)))
            return 1;
    }
    return status == HTTP_BAD_GATEWAY || status == HTTP_GATEWAY_TIME_OUT;
}
