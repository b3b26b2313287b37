/* session_failover.c - see session_failover.h. */
#include "session_failover.h"

#include <apr_strings.h>
#include <string.h>

/* A claim outlives the session's own expiry: who comes late must still find it. */
#define CLAIM_LIFE(ttl) (2 * apr_time_from_sec((apr_time_t)(ttl)) + apr_time_from_sec(60))

const char *ha_key_backup(const ha_digest *d, apr_uint64_t epoch, apr_pool_t *p)
{
    static const char head[] = "ha:b:", even[] = ":2";
    char *key = apr_palloc(p, sizeof head - 1 + HA_DIGEST_HEX + sizeof even);
    memcpy(key, head, sizeof head - 1);
    ha_digest_hex(d, key + sizeof head - 1);
    if (epoch % 2 == 0)
        memcpy(key + sizeof head - 1 + HA_DIGEST_HEX, even, sizeof even);
    return key;
}

const char *ha_key_claim(const ha_digest *d, apr_uint64_t epoch, apr_pool_t *p)
{
    char hex[HA_DIGEST_HEX + 1];
    ha_digest_hex(d, hex);
    return apr_psprintf(p, "ha:c:%s:%" APR_UINT64_T_FMT, hex, epoch);
}

/* Bytes from the store are hostile until unsealed and decoded. */
static apr_status_t open_record(const ha_session *s, ha_call *call, char kind, const ha_value *value,
                                ha_move *m, ha_record *out)
{
    ha_blob plain;
    apr_status_t rv;

    rv = ha_open(s->secret, kind, &s->digest, value->version, &value->data, call->pool, &plain, &m->why);
    if (rv != APR_SUCCESS)
        goto leave;
    rv = ha_record_decode(&plain, call->pool, out, &m->why);
    if (rv != APR_SUCCESS)
        goto leave;
    if (out->version.epoch != value->version.epoch || out->version.seq != value->version.seq) {
        m->why = "the record's version is not the one it is stored under";
        rv = APR_EINVAL;
    }
leave:
    if (rv != APR_SUCCESS)
        m->forged = 1;
    return rv;
}

static int is_older(const ha_version *a, const ha_version *b)
{
    return a->epoch < b->epoch || (a->epoch == b->epoch && a->seq < b->seq);
}

/* The backup in the place of this epoch, if it is newer than what we have. */
static apr_status_t read_place(const ha_session *s, ha_call *call, apr_uint64_t epoch, ha_move *m)
{
    ha_value value;
    ha_record record;
    ha_store_trace trace = { 0 };
    apr_status_t rv;

    rv = ha_store_get(s->store, call, ha_key_backup(&s->digest, epoch, call->pool), &value, &trace);
    m->trips += trace.trips;
    if (rv == APR_SUCCESS) {
        /* what cannot be opened is no backup; the request goes on without it */
        if (open_record(s, call, HA_KIND_BACKUP, &value, m, &record) != APR_SUCCESS)
            return APR_NOTFOUND;
        /* it would take the user back behind what he was answered; a node that did not answer may have the newest */
        if (m->least.seq && !m->shared && is_older(&record.version, &m->least)) {
            m->outdated = 1;
            m->why = "the copy that is left is older than what was acknowledged";
            return trace.broken ? APR_EGENERAL : APR_NOTFOUND;
        }
        if ((m->found == HA_BACKUP_FOUND || m->found == HA_BACKUP_TOMBSTONE)
            && is_older(&record.version, &m->record.version))
            return APR_SUCCESS;
        m->record = record;
        m->node = trace.node;
        m->found = record.gone ? HA_BACKUP_TOMBSTONE : HA_BACKUP_FOUND;
    }
    else if (!APR_STATUS_IS_NOTFOUND(rv)) {
        m->why = call->why;
    }
    return rv;
}

apr_status_t ha_move_look(const ha_session *s, ha_call *call, ha_move *m)
{
    apr_uint64_t first = m->epoch ? m->epoch : 1;
    apr_status_t rv;

    m->found = HA_BACKUP_ABSENT;
    m->epoch = first;
    /* An owner that has not said anything yet leaves its place empty, or to what was stored two epochs ago: its predecessor's
     * backup is in the other place. And where a place is empty, one node that cannot be asked is enough for "broken". */
    rv = read_place(s, call, first, m);
    if (rv != APR_SUCCESS || (m->found != HA_BACKUP_ABSENT && m->record.version.epoch < first)) {
        apr_status_t other = read_place(s, call, first + 1, m);
        if (APR_STATUS_IS_NOTFOUND(rv) || other == APR_SUCCESS)
            rv = other;
    }
    if (rv == APR_SUCCESS && m->found != HA_BACKUP_ABSENT) {
        if (m->record.version.epoch >= m->epoch) {
            m->epoch = m->record.version.epoch;
            m->owner = m->record.route[0] ? m->record.route : NULL;
        }
    }
    else if (APR_STATUS_IS_NOTFOUND(rv)) {
        rv = APR_SUCCESS;
    }
    else if (rv != APR_SUCCESS) {
        m->found = HA_BACKUP_BROKEN;
    }
    return rv;
}

/* The session has left the epoch that we looked in. Whoever stores a backup looks for the next claim before it counts
 * (session_capture.c); so what counted there is found now that there is a claim, and may be newer than what we found
 * before. In a later epoch its owner may have handed over something since. */
static void read_later(const ha_session *s, ha_call *call, ha_move *m, apr_uint64_t left)
{
    if (m->found != HA_BACKUP_FOUND && m->found != HA_BACKUP_ABSENT && m->found != HA_BACKUP_TOMBSTONE && m->found != HA_BACKUP_BROKEN)
        return;                 /* native: there is none */
    (void)read_place(s, call, left, m);
    if (m->epoch != left)
        (void)read_place(s, call, m->epoch, m);
}

/* The claim's record becomes the session's present owner. */
static apr_status_t take_claim(const ha_session *s, ha_call *call, const ha_value *value, ha_move *m,
                               int *answered)
{
    ha_record claim;
    apr_status_t rv = open_record(s, call, HA_KIND_CLAIM, value, m, &claim);
    if (rv != APR_SUCCESS)
        return rv;
    m->epoch = claim.version.epoch;
    m->owner = claim.route;
    if (answered)
        *answered = claim.answered;
    return APR_SUCCESS;
}

apr_status_t ha_move_follow(const ha_session *s, ha_call *call, ha_move *m)
{
    ha_value value;
    ha_store_trace trace = { 0 };
    apr_uint64_t left = m->epoch;
    apr_status_t rv;

    rv = ha_store_get(s->store, call, ha_key_claim(&s->digest, m->epoch + 1, call->pool), &value, &trace);
    m->trips += trace.trips;
    if (rv == APR_SUCCESS)
        rv = take_claim(s, call, &value, m, NULL);
    else if (!APR_STATUS_IS_NOTFOUND(rv))
        m->why = call->why;
    if (rv == APR_SUCCESS)
        read_later(s, call, m, left);
    return rv;
}

static apr_status_t claim_value(const ha_session *s, ha_call *call, apr_uint64_t epoch, const char *to,
                                int answered, apr_uint32_t ttl, ha_value *out)
{
    /* the answered claim is the newer one: of several copies it is read */
    ha_record claim = { .version = { epoch, answered ? 1 : 0 }, .ttl = ttl, .made = apr_time_now(), .route = to, .at = "",
                        .answered = answered };
    ha_blob plain;
    apr_status_t rv;

    out->version = claim.version;
    rv = ha_record_encode(&claim, call->pool, &plain);
    if (rv == APR_SUCCESS)
        rv = ha_seal(s->secret, HA_KIND_CLAIM, &s->digest, claim.version, &plain, call->pool, &out->data);
    return rv;
}

apr_status_t ha_move_claim(const ha_session *s, ha_call *call, ha_move *m, const char *to, apr_uint32_t ttl)
{
    ha_value mine, theirs;
    ha_store_trace trace = { 0 };
    apr_status_t rv;

    rv = claim_value(s, call, m->epoch + 1, to, 0, ttl, &mine);
    if (rv != APR_SUCCESS)
        goto leave;
    rv = ha_store_add(s->store, call, ha_key_claim(&s->digest, m->epoch + 1, call->pool), &mine,
                      apr_time_now() + CLAIM_LIFE(ttl), &theirs, &trace);
    m->trips += trace.trips;
    if (rv == APR_SUCCESS) {
        read_later(s, call, m, m->epoch);
        m->epoch++;
        m->owner = to;
    }
    else if (APR_STATUS_IS_EEXIST(rv)) {
        apr_uint64_t left = m->epoch;
        rv = take_claim(s, call, &theirs, m, NULL);
        if (rv == APR_SUCCESS) {
            read_later(s, call, m, left);
            rv = APR_EEXIST;
        }
    }
    else {
        m->why = call->why;
    }
leave:
    return rv;
}

apr_status_t ha_move_answered(const ha_session *s, ha_call *call, const ha_move *m, apr_uint32_t ttl)
{
    ha_value mine;
    apr_status_t rv = claim_value(s, call, m->epoch, m->owner, 1, ttl, &mine);
    if (rv == APR_SUCCESS)
        rv = ha_store_put(s->store, call, ha_key_claim(&s->digest, m->epoch, call->pool), &mine,
                          apr_time_now() + CLAIM_LIFE(ttl), NULL);
    return rv;
}

int ha_move_is_answered(const ha_session *s, ha_call *call, ha_move *m)
{
    ha_value value;
    int answered = 1;           /* a claim that cannot be read holds nobody up */
    if (ha_store_get(s->store, call, ha_key_claim(&s->digest, m->epoch, call->pool), &value, NULL) == APR_SUCCESS)
        (void)take_claim(s, call, &value, m, &answered);
    return answered;
}
