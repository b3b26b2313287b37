/* balancer_response.c - the member's answer: our fields are taken out of it before anybody else sees the
 * headers, and what they say is kept. In `sync` the headers wait here until the store has acknowledged.
 */
#include "httpd.h"
#include "apr_atomic.h"
#include "apr_strings.h"
#include "http_log.h"
#include "http_protocol.h"
#include "util_filter.h"

#include "../session/session_pack.h"
#include "balancer_request.h"

APLOG_USE_MODULE(session_ha);

static ap_filter_rec_t *the_filter, *the_sieve;

/* ---- one backup, on the request's thread or on one of ours --------------------------- */

typedef struct backup_job {
    ha_session session;
    ha_digest old;              /* the id before it changed */
    const char *id, *balancer;
    const ha_member_slot *from;
    ha_record record;
    int fetch, renamed, shared, replaced;
    apr_int64_t max_size;
    apr_interval_time_t timeout;
    apr_time_t asked;
    ha_exchange x;              /* fetch: from whom */
    server_rec *server;
} backup_job;

/* A store that is down would fill the log with one line a request. */
static int worth_a_line(void)
{
    static volatile apr_uint32_t last;
    apr_uint32_t now = (apr_uint32_t)apr_time_sec(apr_time_now()), then = last;
    return now - then >= 10 && apr_atomic_cas32(&last, now, then) == then;
}

static void tell(const backup_job *job, ha_backup_result result, apr_size_t bytes, const char *why)
{
    char digest[13];
    int level = result == HA_BACKUP_STORED || result == HA_BACKUP_TOUCHED || result == HA_BACKUP_GONE ? APLOG_DEBUG : APLOG_WARNING;

    ha_manager_backup(job->balancer, job->from, result, bytes, job->record.state.len);
    if (!APLOG_IS_LEVEL(job->server, level) || (level == APLOG_WARNING && !worth_a_line()))
        return;
    ha_digest_short(&job->session.digest, digest);
    ap_log_error(APLOG_MARK, level, 0, job->server, "%s: backup of session %s from %s: %s, %" APR_SIZE_T_FMT " bytes%s%s",
                 job->balancer, digest, job->record.route, ha_backup_result_name(result), bytes,
                 why ? ": " : "", why ? why : "");
}

/* A large state is fetched where the member says; NULL or why not. */
static const char *fetch(backup_job *job, apr_pool_t *p)
{
    ha_field_backup field;
    apr_int64_t now = apr_time_sec(apr_time_now());
    const char *why = NULL;

    job->x.method = "GET";
    job->x.path = job->record.at[0] ? job->record.at : HA_WELL_KNOWN;
    job->x.field = HA_FIELD_FETCH;
    job->x.value = ha_field_fetch(p, job->id, now, ha_mac_fetch(job->session.secret, job->id, now, p), 0);
    job->x.max = (apr_size_t)job->max_size;
    if (ha_exchange_run(&job->x, p) != APR_SUCCESS)
        return "the member did not answer the fetch";
    if (job->x.status != 200 || job->x.backup == NULL)
        return apr_psprintf(p, "the member answered the fetch with %d", job->x.status);
    if (ha_field_parse_fetched(job->x.backup, p, &field, &why) != APR_SUCCESS || field.gone)
        return why ? why : "the member fetched from has no session";
    if (field.id && strcmp(field.id, job->id) != 0)
        return "the member answered the fetch with another session";
    if (field.size >= 0 && (apr_size_t)field.size != job->x.answer.len)
        return apr_psprintf(p, "the member fetched from said %" APR_INT64_T_FMT " bytes and sent %" APR_SIZE_T_FMT, field.size,
                            job->x.answer.len);
    if (field.version.epoch > job->record.version.epoch) {
        job->replaced = 1;      /* it was taken away from the member and came back: the answer is not of what it has now */
        return "the member has been given the session anew since it answered";
    }
    job->record.version.seq = field.version.seq;
    job->record.state = job->x.answer;
    return NULL;
}

static void leave_tombstone(backup_job *job, const ha_digest *digest, apr_pool_t *p, apr_time_t deadline)
{
    ha_session session = job->session;
    ha_call call = { .pool = p, .deadline = deadline };
    ha_record stone = job->record;
    ha_move last = { 0 };
    ha_owner own;

    session.digest = *digest;
    /* newer than all that may be stored or on its way */
    (void)ha_move_look(&session, &call, &last);
    stone.version.epoch = last.epoch;
    stone.version.seq = last.found == HA_BACKUP_FOUND ? last.record.version.seq : 0;
    if (ha_table_owner(ha_request_table(), digest, &own) && own.version.epoch >= stone.version.epoch) {
        stone.version.epoch = own.version.epoch;
        if (own.version.seq > stone.version.seq)
            stone.version.seq = own.version.seq;
    }
    stone.version.seq++;
    stone.gone = 1;
    stone.base64 = 0;
    stone.state.data = "";
    stone.state.len = 0;
    (void)ha_capture_put(&session, ha_request_table(), &call, &stone, job->asked, 0);
}

static int keep(apr_pool_t *p, void *baton)
{
    static const ha_backup_result results[] = { [HA_CAPTURE_STORED] = HA_BACKUP_STORED,
        [HA_CAPTURE_TOUCHED] = HA_BACKUP_TOUCHED, [HA_CAPTURE_FENCED] = HA_BACKUP_FENCED, [HA_CAPTURE_BROKEN] = HA_BACKUP_UNAVAILABLE };
    backup_job *job = baton;
    ha_call call = { .pool = p };
    const char *why = NULL;
    apr_size_t bytes = 0;
    ha_capture done = HA_CAPTURE_WANTED;

    if (job->record.gone) {
        leave_tombstone(job, &job->session.digest, p, apr_time_now() + job->timeout);
        tell(job, HA_BACKUP_GONE, 0, NULL);
        return 1;
    }
    call.deadline = apr_time_now() + job->timeout;
    if (job->fetch)
        done = ha_capture_known(&job->session, ha_request_table(), &call, &job->record, job->asked, job->shared);
    if (done == HA_CAPTURE_WANTED) {
        if (job->fetch && (why = fetch(job, p)) != NULL) {
            tell(job, job->replaced ? HA_BACKUP_FENCED : HA_BACKUP_INVALID, 0, why);
            return !job->replaced;
        }
        bytes = job->record.base64 ? job->record.state.len / 4 * 3 : job->record.state.len;
        ha_pack(&job->record, p);
        call.deadline = apr_time_now() + job->timeout;
        done = ha_capture_put(&job->session, ha_request_table(), &call, &job->record, job->asked, job->shared);
    }
    tell(job, results[done], bytes, call.why);
    if (job->renamed)
        leave_tombstone(job, &job->old, p, call.deadline);  /* both within one SessionHAStoreTimeout */
    return done != HA_CAPTURE_FENCED;
}

static void keep_later(apr_pool_t *p, void *job)
{
    (void)keep(p, job);
}

/* ---- what a field says ------------------------------------------------------------------ */

/* The job outlives the request when it runs in the background: everything is copied into p. */
static backup_job *make_job(ha_request *q, request_rec *r, const ha_field_backup *field, apr_pool_t *p, int copy)
{
    backup_job *job = apr_pcalloc(p, sizeof *job);
    const char *route = q->worker->s->route;

    job->id = copy ? apr_pstrdup(p, field->id) : field->id;
    job->balancer = q->balancer->s->name;
    job->from = q->slot;
    job->server = r->server;
    job->session.store = ha_config_store(q->cfg);
    job->session.secret = ha_config_secret(q->cfg);
    ha_digest_make(job->balancer, job->id, &job->session.digest);
    if (field->was && strcmp(field->was, field->id) != 0) {
        ha_digest_make(job->balancer, field->was, &job->old);
        job->renamed = 1;
    }
    job->asked = q->asked;
    job->shared = ha_peers_present(q->balancer);
    job->timeout = ha_config_store_timeout(q->cfg);
    job->max_size = ha_config_max_size(q->cfg);
    job->record.version = field->version;
    job->record.ttl = field->ttl > 0 && field->ttl <= APR_UINT32_MAX ? (apr_uint32_t)field->ttl
                                                                     : (apr_uint32_t)ha_config_ttl(q->cfg);
    job->record.made = q->asked;
    job->record.route = copy ? apr_pstrdup(p, route) : route;
    job->record.at = field->at ? (copy ? apr_pstrdup(p, field->at) : field->at) : "";
    job->record.gone = field->gone;
    if (field->state.data) {
        job->record.base64 = 1;
        job->record.state.len = field->state.len;
        job->record.state.data = copy ? apr_pmemdup(p, field->state.data, field->state.len) : field->state.data;
    }
    else if (!field->gone) {
        job->fetch = 1;
        ha_exchange_from(&job->x, q, r, q->worker, p);
    }
    return job;
}

static HA_APART void capture(ha_request *q, request_rec *r, const char *value)
{
    ha_field_backup field;
    const char *why = NULL;
    apr_int64_t bytes;

    if (ha_field_parse_backup(value, r->pool, &field, &why) != APR_SUCCESS) {
        ha_manager_backup(q->balancer->s->name, q->slot, HA_BACKUP_INVALID, 0, 0);
        ap_log_rerror(APLOG_MARK, APLOG_WARNING, 0, r, "%s: member %s sent a " HA_FIELD_BACKUP " that is not one: %s",
                      q->balancer->s->name, q->worker->s->route, why);
        return;
    }
    bytes = field.state.data ? (apr_int64_t)(field.state.len / 4 * 3) : field.size;
    if (!field.gone && bytes > ha_config_max_size(q->cfg)) {
        ha_manager_backup(q->balancer->s->name, q->slot, HA_BACKUP_TOO_LARGE, 0, 0);
        ap_log_rerror(APLOG_MARK, APLOG_WARNING, 0, r, "%s: a session of member %s has %" APR_INT64_T_FMT
                      " bytes, SessionHAMaxSize is %" APR_INT64_T_FMT ": no backup of it",
                      q->balancer->s->name, q->worker->s->route, bytes, ha_config_max_size(q->cfg));
        return;
    }
    if (q->mode == HA_ASYNC) {
        apr_pool_t *p = ha_async_pool();
        backup_job *job = make_job(q, r, &field, p, 1);
        if (!ha_async_push(p, keep_later, job)) {
            tell(job, HA_BACKUP_UNAVAILABLE, 0, "too many backups are waiting");
            apr_pool_destroy(p);
        }
    }
    else if (!keep(r->pool, make_job(q, r, &field, r->pool, 0))) {
        /* its session has another owner by now: what the member did is not in the state that goes on */
        q->fenced = q->swallow = 1;
    }
}

/* The session was moved while this member was asked: it slept, or was cut off, or the request was too old to be counted
 * (balancer_transit.c), and what it says is old. */
static int has_left(ha_request *q)
{
    if (q->sid.id == NULL || q->sid.route == NULL || q->slot == NULL)
        return 0;
    if (ha_member_last_doubt(q->slot) <= q->asked && !(q->home && q->home->transit->on && !q->entered && !q->moved))
        return 0;
    return ha_owner_left(q, q->worker->s->route);
}

void ha_response_take(ha_request *q, request_rec *r)
{
    const char *backup, *missing;

    q->answered = 1;
    ha_guard_answer(r->headers_out, &backup, &missing);
    if (!missing || r->status != HA_STATUS_MISSING)
        ha_owner_has_it(q, q->asked);
    if (q->gate && q->mode != HA_NATIVE_BACKUP)
        ha_owner_open_gate(q);
    if (has_left(q)) {
        q->fenced = q->swallow = 1;
        ha_manager_backup(q->balancer->s->name, q->slot, HA_BACKUP_FENCED, 0, 0);
        return;
    }
    if (missing && r->status == HA_STATUS_MISSING && q->captures && q->sid.id && !q->asked_again) {
        const char *id;
        int left;
        q->missing = q->swallow = 1;
        (void)ha_field_parse_missing(missing, r->pool, &id, &left);
        q->left = left != 0;
        return;
    }
    if (backup && q->captures)
        capture(q, r, backup);
    if (q->cfg->route_cookie && !q->swallow)
        ha_route_write(q, r);
    if (!q->swallow && q->mode != HA_ASYNC)
        ha_transit_leave(q);
}

void ha_response_tunnel(ha_request *q, request_rec *r, int status, const apr_table_t *said)
{
    int was = r->status;        /* behind mod_proxy_wstunnel nobody has read the head */
    r->status = status;
    apr_table_overlap(r->headers_out, said, APR_OVERLAP_TABLES_SET);
    ha_response_take(q, r);
    r->status = was;
    if (status == HTTP_SWITCHING_PROTOCOLS)
        q->fenced = q->swallow = 0;     /* it is open: nothing can be asked again */
    if (q->slow && !q->swallow) {       /* it may stay for hours: what led to it is over */
        ha_request_finish(q, r);
        ha_owner_open_gate(q);
    }
}

static int is_end(const apr_bucket_brigade *bb)
{
    return !APR_BRIGADE_EMPTY(bb) && APR_BUCKET_IS_EOS(APR_BRIGADE_LAST(bb));
}

static apr_status_t ha_response_filter(ap_filter_t *f, apr_bucket_brigade *bb)
{
    ha_request *q = f->ctx;

    q->passed = 1;
    ha_request_heard(q);
    ha_repeat_show_keepalives(q, f->r);
    if (!q->answered)
        ha_response_take(q, f->r);
    if (q->swallow) {
        apr_brigade_cleanup(bb);
        return APR_SUCCESS;
    }
    if (q->slow)
        ha_request_finish(q, f->r);     /* the body may take its time */
    if (is_end(bb)) {
        ha_guard_trailers(f->r);
        if (f->r->output_filters == f)
            f->r->output_filters = f->next;     /* as it was put in */
        else
            ap_remove_output_filter(f);
    }
    return ap_pass_brigade(f->next, bb);
}

void ha_response_insert(ha_request *q, request_rec *r)
{
    /* what ap_add_output_filter_handle() would do, had it not to look for the place */
    if (r->output_filters->frec->ftype >= the_filter->ftype) {
        q->filter = (ap_filter_t){ .frec = the_filter, .ctx = q, .r = r, .c = r->connection, .next = r->output_filters };
        r->output_filters = &q->filter;
    }
    else
        ap_add_output_filter_handle(the_filter, q, r, r->connection);
    q->filtered = 1;
}

static apr_status_t sieve_filter(ap_filter_t *f, apr_bucket_brigade *bb)
{
    const char *backup, *missing;

    if (f->ctx == NULL) {
        f->ctx = f;             /* once */
        ha_guard_answer(f->r->headers_out, &backup, &missing);
    }
    if (is_end(bb)) {
        ha_guard_trailers(f->r);
        ap_remove_output_filter(f);
    }
    return ap_pass_brigade(f->next, bb);
}

void ha_response_sieve(request_rec *r)
{
    const ap_filter_t *f;
    for (f = r->output_filters; f; f = f->next) {
        if (f->frec == the_sieve)
            return;             /* a second attempt */
    }
    ap_add_output_filter_handle(the_sieve, NULL, r, r->connection);
}

void ha_response_hooks(apr_pool_t *p)
{
    /* before every resource filter: whoever looks at the headers must not find ours */
    the_filter = ap_register_output_filter("SESSION_HA", ha_response_filter, NULL, AP_FTYPE_RESOURCE - 1);
    the_sieve = ap_register_output_filter("SESSION_HA_SIEVE", sieve_filter, NULL, AP_FTYPE_RESOURCE - 1);
}
