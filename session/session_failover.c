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

/* ---- the backup ------------------------------------------------------------------------ */

/* It is in the place of its owner's epoch, if that owner has told one; else the newest is a former owner's, in the other
 * place, and what lies in this one may be older still. So both are read, always. */
static void both_places(const ha_session *s, apr_pool_t *p, ha_found places[2])
{
    memset(places, 0, 2 * sizeof *places);
    places[0].key = ha_key_backup(&s->digest, 1, p);
    places[1].key = ha_key_backup(&s->digest, 2, p);
}

/* The newest of what was read and what we had. What cannot be opened is no backup; the request goes on without it. Nor is what
 * would take the user back behind what he was answered; a node that did not answer (broken) may have the newest. */
static void take_backup(const ha_session *s, ha_call *call, const ha_found places[2], int broken, ha_move *m)
{
    ha_record record;
    int i, absent = 0, have = m->found == HA_BACKUP_FOUND || m->found == HA_BACKUP_TOMBSTONE;

    for (i = 0; i < 2; i++) {
        if (places[i].rv != APR_SUCCESS) {
            absent += APR_STATUS_IS_NOTFOUND(places[i].rv);
            continue;
        }
        if (open_record(s, call, HA_KIND_BACKUP, &places[i].value, m, &record) != APR_SUCCESS) {
            absent++;
            continue;
        }
        if (m->least.seq && !m->shared && is_older(&record.version, &m->least)) {
            m->outdated = 1;
            m->why = "the copy that is left is older than what was acknowledged";
            absent += !broken;
            continue;
        }
        if (have && is_older(&record.version, &m->record.version))
            continue;
        have = 1;
        m->record = record;
        m->node = places[i].node;
        m->found = record.gone ? HA_BACKUP_TOMBSTONE : HA_BACKUP_FOUND;
    }
    if (!have && (absent == 2 || m->found != HA_BACKUP_ABSENT))
        m->found = absent == 2 ? HA_BACKUP_ABSENT : HA_BACKUP_BROKEN;
}

/* Whose session is it? Nobody is told an epoch but by a claim, so a backup of the epoch that we have, or of a later one, says
 * more than a claim that we have met or made: that may be a stray one (ha_move_claim). */
static void believe_backup(ha_move *m)
{
    if ((m->found == HA_BACKUP_FOUND || m->found == HA_BACKUP_TOMBSTONE) && m->record.version.epoch >= m->epoch) {
        if (m->record.version.epoch > m->epoch || m->record.route[0])
            m->owner = m->record.route[0] ? m->record.route : NULL;
        m->epoch = m->record.version.epoch;
    }
}

static apr_status_t read_backup(const ha_session *s, ha_call *call, ha_move *m)
{
    ha_found places[2];
    ha_store_trace trace = { 0 };
    apr_status_t rv;

    both_places(s, call->pool, places);
    rv = ha_store_look(s->store, call, places, 2, &trace);
    m->trips += trace.trips;
    take_backup(s, call, places, trace.broken, m);
    if (rv == APR_SUCCESS && m->found == HA_BACKUP_BROKEN)
        rv = APR_EGENERAL;
    if (rv != APR_SUCCESS && !m->outdated)
        m->why = call->why;
    believe_backup(m);
    return rv;
}

apr_status_t ha_move_look(const ha_session *s, ha_call *call, ha_move *m)
{
    if (m->epoch == 0)
        m->epoch = 1;
    m->found = HA_BACKUP_UNASKED;
    return read_backup(s, call, m);
}

/* ---- the claim ------------------------------------------------------------------------- */

/* What a claim carries, as text in the place of its state: nothing, or epoch SPACE seq. */
static ha_blob text_of(const ha_version *v, apr_pool_t *p)
{
    const char *text = v->seq ? apr_psprintf(p, "%" APR_UINT64_T_FMT " %" APR_UINT64_T_FMT, v->epoch, v->seq) : "";
    ha_blob b = { text, strlen(text) };
    return b;
}

static ha_version version_of(const ha_blob *text, apr_pool_t *p)
{
    char *end = apr_pstrmemdup(p, text->data, text->len);
    ha_version v;
    v.epoch = (apr_uint64_t)apr_strtoi64(end, &end, 10);
    v.seq = (apr_uint64_t)apr_strtoi64(end, NULL, 10);
    return v;
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
    m->carries = version_of(&claim.state, call->pool);
    if (answered)
        *answered = claim.answered;
    return APR_SUCCESS;
}

apr_status_t ha_move_follow(const ha_session *s, ha_call *call, ha_move *m)
{
    ha_value value;
    ha_store_trace trace = { 0 };
    apr_status_t rv;

    rv = ha_store_get(s->store, call, ha_key_claim(&s->digest, m->epoch + 1, call->pool), &value, &trace);
    m->trips += trace.trips;
    if (rv == APR_SUCCESS)
        rv = take_claim(s, call, &value, m, NULL);
    else if (!APR_STATUS_IS_NOTFOUND(rv))
        m->why = call->why;
    /* The session has left the epoch that we looked in. Whoever stores a backup looks for the next claim before it counts
     * (session_capture.c); so what counted there is found now that we have seen the claim, and may be newer than what we found before. */
    if (rv == APR_SUCCESS && !s->claims_only)
        (void)read_backup(s, call, m);
    return rv;
}

static apr_status_t claim_value(const ha_session *s, ha_call *call, apr_uint64_t epoch, const char *to,
                                int answered, const ha_version *carries, apr_uint32_t ttl, ha_value *out)
{
    /* the answered claim is the newer one: of several copies it is read */
    ha_record claim = { .version = { epoch, answered ? 1 : 0 }, .ttl = ttl, .made = apr_time_now(), .route = to, .at = "",
                        .answered = answered, .state = text_of(carries, call->pool) };
    ha_blob plain;
    apr_status_t rv;

    out->version = claim.version;
    rv = ha_record_encode(&claim, call->pool, &plain);
    if (rv == APR_SUCCESS)
        rv = ha_seal(s->secret, HA_KIND_CLAIM, &s->digest, claim.version, &plain, call->pool, &out->data);
    return rv;
}

/* Whoever needed so long that others could not be heard may have met an older backup than there is, or still have the one of an
 * earlier look. Not, if no other httpd stores here and what was found is what this one has stored (m->least). */
static int is_unsure(const ha_move *m, const ha_found places[2])
{
    return m->found == HA_BACKUP_BROKEN || ((!places[0].sure || !places[1].sure) && (m->shared || m->least.seq == 0));
}

/* A node that was slow a moment ago may be well: those are asked too that are held for down. It costs a time-out more where
 * they are. */
static void ask_the_others(const ha_session *s, ha_call *call, apr_interval_time_t time, ha_move *m)
{
    call->urgent = 1;
    call->deadline = time ? apr_time_now() + time : 0;
    (void)read_backup(s, call, m);
}

/* First the claim, then the backup: whoever stores one looks for the next claim before it counts, so either that claim is
 * seen there or the backup here. No look before it is needed.
 *
 * m->epoch may be too low: what this httpd knows is old, and another one has moved the session since. If the next claim is
 * still there, it is not ours, and the backup says whether the session has gone on from there. If it has expired (a
 * session may live in one epoch for longer than its claim), or was lost with its nodes, ours is a stray: a claim of an epoch that
 * is over, or that has an owner already. The backup shows that too, for a stray needs a true owner of that epoch or a later
 * one: it is not believed, here or anywhere, because
 *  - who reads a claim reads the backup after it, and believes that if its epoch is not below the claim's;
 *  - who stores a backup of an epoch looks for the claim of the next one: a stray of that number fences only one who
 *    stores in an epoch below it, and that one is late in any case: the session has an owner of that number or a later one;
 *  - the claims to come are of later epochs than the backup's, and so under other keys.
 * While the true owner has told nothing yet, the claim that it was told by is young, and there. */
apr_status_t ha_move_claim(const ha_session *s, ha_call *call, ha_move *m, const char *to, apr_uint32_t ttl)
{
    ha_value mine, theirs;
    ha_found places[2];
    ha_store_trace trace = { 0 };
    apr_uint64_t next = m->epoch + 1;
    apr_interval_time_t time = call->deadline ? call->deadline - apr_time_now() : 0;
    apr_status_t rv;

    rv = claim_value(s, call, next, to, 0, &m->carries, ttl, &mine);
    if (rv != APR_SUCCESS)
        goto leave;
    both_places(s, call->pool, places);
    rv = ha_store_claim(s->store, call, ha_key_claim(&s->digest, next, call->pool), &mine, apr_time_now() + CLAIM_LIFE(ttl),
                        &theirs, places, s->claims_only ? 0 : 2, &trace);
    m->trips += trace.trips;
    if (rv == APR_SUCCESS) {
        m->epoch = next;
        m->owner = to;
    }
    else if (APR_STATUS_IS_EEXIST(rv)) {
        rv = take_claim(s, call, &theirs, m, NULL);
        if (rv == APR_SUCCESS)
            rv = APR_EEXIST;
    }
    else {
        m->why = call->why;
    }
    if (!s->claims_only) {
        take_backup(s, call, places, trace.broken, m);
        believe_backup(m);
        if (rv == APR_SUCCESS && !call->urgent && is_unsure(m, places))
            ask_the_others(s, call, time, m);
        /* A backup of our own claim is no stray's: another httpd has followed it before we came back. */
        if (rv == APR_SUCCESS && (m->epoch != next || m->owner == NULL || strcmp(m->owner, to) != 0))
            rv = APR_EEXIST;
    }
leave:
    return rv;
}

apr_status_t ha_move_answered(const ha_session *s, ha_call *call, const ha_move *m, apr_uint32_t ttl)
{
    ha_value mine;
    apr_status_t rv = claim_value(s, call, m->epoch, m->owner, 1, &m->carries, ttl, &mine);
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
