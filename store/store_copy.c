/* store_copy.c - see store_copy.h. */
#include <string.h>

#include <apr_strings.h>

#include "store_copy.h"

#define PARTS_MAX 4096
#define WHOLE_MAX (256 * 1024 * 1024)   /* what a list may make us ask memory for */

int ha_newer(const ha_version *a, const ha_version *b)
{
    return a->epoch != b->epoch ? a->epoch > b->epoch : a->seq > b->seq;
}

void ha_copy_seal(ha_envelope *env, const char *key, const ha_blob *value, apr_pool_t *p, ha_blob *bytes)
{
    unsigned char *out = apr_palloc(p, HA_ENVELOPE_LEN + value->len);

    env->kind = HA_ENVELOPE_VALUE;
    env->parts = 0;
    env->length = value->len;
    if (value->len) {
        memcpy(out + HA_ENVELOPE_LEN, value->data, value->len);
    }
    ha_envelope_write(out, env, key, out + HA_ENVELOPE_LEN);
    bytes->data = out;
    bytes->len = HA_ENVELOPE_LEN + value->len;
}

static const char *part_key(const ha_copy *copy, const ha_envelope *env, apr_uint32_t n, apr_pool_t *p)
{
    return apr_psprintf(p, "%s.%016" APR_UINT64_T_HEX_FMT ".%u", copy->key, env->writer, n);
}

/* All parts have the same size but the last. */
static apr_size_t part_size(const ha_envelope *env)
{
    return (apr_size_t)((env->length + env->parts - 1) / env->parts);
}

static void call_of(ha_copy *copy, apr_pool_t *p, ha_call *call)
{
    call->pool = p;
    call->deadline = copy->deadline;
    call->why = NULL;
    call->more = 0;
}

/* Between two steps of a write: one that hung, and whose caller has left, must not be finished later, over what was
 * written meanwhile. */
static int late(ha_copy *copy)
{
    if (apr_time_now() <= copy->deadline) {
        return 0;
    }
    copy->why = "took too long, and was given up half way";
    copy->rv = APR_TIMEUP;
    return 1;
}

static void remove_parts(ha_copy *copy, const ha_envelope *env, apr_pool_t *p)
{
    ha_call call;
    apr_uint32_t n;

    call_of(copy, p, &call);
    for (n = 0; n < env->parts && n < PARTS_MAX; n++) {
        if (APR_SUCCESS != copy->node->provider->remove(copy->node->at, &call, part_key(copy, env, n, p))) {
            break;
        }
    }
}

static apr_status_t read_parts(ha_copy *copy, const ha_envelope *env, apr_pool_t *p, ha_blob *value)
{
    ha_call call;
    ha_blob part;
    apr_status_t rv = APR_SUCCESS;
    apr_uint32_t n;
    apr_size_t size = part_size(env), have = 0, length = (apr_size_t)env->length;
    char *whole = NULL;

    call_of(copy, p, &call);
    if (env->parts > PARTS_MAX || env->length > WHOLE_MAX) {
        copy->why = "a list of parts that cannot be";
        return APR_EINVAL;
    }
    for (n = 0; n < env->parts; n++) {
        copy->trips++;
        rv = copy->node->provider->get(copy->node->at, &call, part_key(copy, env, n, p), &part);
        if (APR_SUCCESS != rv) {
            copy->why = rv == APR_NOTFOUND ? "a part of the value is gone" : call.why;
            return rv == APR_NOTFOUND ? APR_EINVAL : rv;
        }
        if (have >= length || part.len != (length - have < size ? length - have : size)) {
            copy->why = "a part of the value is longer or shorter than it should be";
            return APR_EINVAL;
        }
        if (whole == NULL) {
            /* Only now: a list that lies about its length must not make us ask for that much memory. */
            whole = apr_palloc(p, length);
        }
        memcpy(whole + have, part.data, part.len);
        have += part.len;
    }
    if (have != length || !ha_envelope_fits(env, copy->key, whole)) {
        copy->why = "a value whose checksum is wrong";
        return APR_EINVAL;
    }
    value->data = whole;
    value->len = have;
    return APR_SUCCESS;
}

/* What the provider has found is a value, a list of the parts of one, or nothing of ours. */
static apr_status_t read_found(ha_copy *copy, const ha_blob *bytes, apr_pool_t *p)
{
    copy->rv = ha_envelope_read(bytes, copy->key, &copy->env, &copy->why);
    if (copy->rv == APR_SUCCESS) {
        if (copy->env.kind == HA_ENVELOPE_PARTS) {
            copy->rv = read_parts(copy, &copy->env, p, &copy->bytes);
        }
        else {
            copy->bytes.data = (const char *)bytes->data + HA_ENVELOPE_LEN;
            copy->bytes.len = bytes->len - HA_ENVELOPE_LEN;
        }
    }
    return copy->rv;
}

static apr_status_t get_one(ha_copy *copy, apr_pool_t *p)
{
    ha_call call;
    ha_blob bytes;

    call_of(copy, p, &call);
    copy->trips++;
    copy->rv = copy->node->provider->get(copy->node->at, &call, copy->key, &bytes);
    copy->why = call.why;
    return copy->rv == APR_SUCCESS ? read_found(copy, &bytes, p) : copy->rv;
}

static void get_beside(ha_copy *copy, apr_pool_t *p)
{
    int i;

    for (i = 0; i < copy->nbeside; i++) {
        copy->beside[i].trips = 0;
        get_one(&copy->beside[i], p);
        copy->trips += copy->beside[i].trips;
    }
}

/* One exchange: an add of bytes (NULL: none), and all keys are read. What was found under the copy's own key is left
 * in *own. */
static apr_status_t exchange(ha_copy *copy, const ha_blob *bytes, ha_look *own, apr_pool_t *p)
{
    ha_look looks[HA_BESIDE_MAX + 1];
    ha_call call;
    apr_status_t rv;
    int i, n = 0;

    memset(looks, 0, sizeof(looks));
    for (i = 0; i <= copy->nbeside; i++) {
        looks[i].rv = APR_EGENERAL;     /* unless it is answered */
    }
    looks[n++].key = copy->key;
    for (i = 0; i < copy->nbeside; i++) {
        looks[n++].key = copy->beside[i].key;
    }
    call_of(copy, p, &call);
    rv = copy->node->provider->claim(copy->node->at, &call, bytes ? copy->key : NULL, bytes, copy->env.expires, looks, n);
    copy->trips += 1 + call.more;
    copy->why = call.why;
    for (i = 0; i < copy->nbeside; i++) {
        ha_copy *it = &copy->beside[i];

        it->trips = 0;
        it->rv = looks[i + 1].rv;
        it->why = call.why;
        if (it->rv == APR_SUCCESS) {
            read_found(it, &looks[i + 1].found, p);
        }
        copy->trips += it->trips;
    }
    *own = looks[0];
    return rv;
}

apr_status_t ha_copy_get(ha_copy *copy, apr_pool_t *p)
{
    ha_look own;

    if (copy->nbeside && copy->node->provider->claim) {
        copy->rv = exchange(copy, NULL, &own, p);
        copy->rv = copy->rv == APR_SUCCESS ? own.rv : copy->rv;
        return copy->rv == APR_SUCCESS ? read_found(copy, &own.found, p) : copy->rv;
    }
    get_one(copy, p);
    get_beside(copy, p);
    return copy->rv;
}

int ha_copy_head(const ha_copy *copy, apr_pool_t *p, ha_envelope *env)
{
    ha_call call = { p, copy->deadline, NULL };
    ha_blob bytes;
    const char *why;

    return APR_SUCCESS == copy->node->provider->get(copy->node->at, &call, copy->key, &bytes)
        && APR_SUCCESS == ha_envelope_read(&bytes, copy->key, env, &why);
}

/* Is what stands under the key cut into parts? */
static int peek(ha_copy *copy, apr_pool_t *p, ha_envelope *env)
{
    return ha_copy_head(copy, p, env) && env->kind == HA_ENVELOPE_PARTS;
}

/* Writes the parts and leaves the list, which is to stand under the key, in *list. */
static apr_status_t write_parts(ha_copy *copy, apr_pool_t *p, ha_envelope *env, ha_blob *list)
{
    const char *value = (const char *)copy->bytes.data + HA_ENVELOPE_LEN;
    unsigned char *head = apr_palloc(p, HA_ENVELOPE_LEN);
    apr_size_t chunk = copy->node->provider->chunk, size, at = 0;
    apr_status_t rv = APR_SUCCESS;
    ha_call call;
    ha_blob part;
    apr_uint32_t n;

    *env = copy->env;
    env->kind = HA_ENVELOPE_PARTS;
    env->parts = (apr_uint32_t)((env->length + chunk - 1) / chunk);
    if (env->parts > PARTS_MAX || env->length > WHOLE_MAX) {
        copy->why = "the value is too large to be cut";
        return APR_ENOSPC;
    }
    size = part_size(env);
    call_of(copy, p, &call);
    for (n = 0; n < env->parts; n++, at += size) {
        part.data = value + at;
        part.len = env->length - at < size ? (apr_size_t)env->length - at : size;
        rv = copy->node->provider->put(copy->node->at, &call, part_key(copy, env, n, p), &part, copy->env.expires);
        if (APR_SUCCESS != rv) {
            copy->why = call.why;
            return rv;
        }
        if (late(copy)) {
            return copy->rv;
        }
    }
    ha_envelope_write(head, env, copy->key, value);
    list->data = head;
    list->len = HA_ENVELOPE_LEN;
    return APR_SUCCESS;
}

static int in_parts(const ha_copy *copy)
{
    return copy->node->provider->chunk && copy->bytes.len > copy->node->provider->chunk;
}

apr_status_t ha_copy_put_newer(ha_copy *copy, apr_pool_t *p)
{
    ha_envelope there;

    if (ha_copy_head(copy, p, &there) && ha_newer(&there.version, &copy->env.version)) {
        copy->rv = APR_SUCCESS;
        return copy->rv;
    }
    return late(copy) ? copy->rv : ha_copy_put(copy, p);
}

apr_status_t ha_copy_put(ha_copy *copy, apr_pool_t *p)
{
    ha_envelope env, before;
    ha_blob bytes = copy->bytes;
    ha_call call;
    int had_parts = 0;

    copy->rv = APR_SUCCESS;
    if (in_parts(copy)) {
        had_parts = peek(copy, p, &before);
        copy->rv = write_parts(copy, p, &env, &bytes);
    }
    if (copy->rv == APR_SUCCESS) {
        call_of(copy, p, &call);
        copy->rv = copy->node->provider->put(copy->node->at, &call, copy->key, &bytes, copy->env.expires);
        copy->why = call.why;
    }
    if (copy->rv == APR_SUCCESS && had_parts && before.writer != env.writer) {
        remove_parts(copy, &before, p);
    }
    return copy->rv;
}

apr_status_t ha_copy_add(ha_copy *copy, apr_pool_t *p)
{
    ha_copy there = *copy;
    ha_envelope env;
    ha_blob bytes = copy->bytes;
    ha_call call;
    int tries, cut = in_parts(copy);

    if (cut && APR_SUCCESS != (copy->rv = write_parts(copy, p, &env, &bytes))) {
        return copy->rv;
    }
    /* What is there may expire, or be removed as broken, between the two questions: ask again, not for ever. */
    for (tries = 0; tries < 3 && !(tries && late(copy)); tries++) {
        call_of(copy, p, &call);
        copy->trips++;
        copy->rv = copy->node->provider->add(copy->node->at, &call, copy->key, &bytes, copy->env.expires);
        copy->why = call.why;
        if (copy->rv != APR_EEXIST) {
            break;
        }
        there.trips = 0;
        get_one(&there, p);
        copy->trips += there.trips;
        if (there.rv == APR_SUCCESS) {
            if (there.env.writer == copy->env.writer) {
                return copy->rv = APR_SUCCESS;
            }
            copy->env = there.env;
            copy->bytes = there.bytes;
            break;
        }
        copy->rv = there.rv == APR_NOTFOUND ? APR_EGENERAL : there.rv;
        copy->why = there.rv == APR_NOTFOUND ? "says it has the key, and that it has not" : there.why;
        if (there.rv == APR_EINVAL) {
            call_of(copy, p, &call);
            copy->node->provider->remove(copy->node->at, &call, copy->key);
        }
        else if (there.rv != APR_NOTFOUND) {
            break;
        }
    }
    if (copy->rv != APR_SUCCESS && cut) {
        remove_parts(copy, &env, p);
    }
    return copy->rv;
}

/* A node that was away may hold an older version, which must not count as a copy of this one: so it is read first, without
 * its parts. Those are touched before the list, which then never outlives them. */
apr_status_t ha_copy_touch(ha_copy *copy, apr_pool_t *p)
{
    const ha_store_provider *provider = copy->node->provider;
    ha_envelope there;
    ha_call call;
    ha_blob bytes;
    apr_uint32_t n;

    call_of(copy, p, &call);
    copy->rv = provider->get(copy->node->at, &call, copy->key, &bytes);
    if (copy->rv == APR_SUCCESS) {
        copy->rv = ha_envelope_read(&bytes, copy->key, &there, &call.why);
    }
    if (copy->rv != APR_SUCCESS || ha_newer(&there.version, &copy->env.version)) {
        goto leave;
    }
    if (ha_newer(&copy->env.version, &there.version)) {
        copy->rv = APR_NOTFOUND;
        goto leave;
    }
    for (n = 0; n < there.parts && n < PARTS_MAX; n++) {
        if (late(copy)
            || APR_SUCCESS != (copy->rv = provider->touch(copy->node->at, &call, part_key(copy, &there, n, p), copy->env.expires))) {
            goto leave;
        }
    }
    if (!late(copy)) {
        copy->rv = provider->touch(copy->node->at, &call, copy->key, copy->env.expires);
    }
leave:
    copy->why = copy->why ? copy->why : call.why;
    return copy->rv;
}

apr_status_t ha_copy_claim(ha_copy *copy, apr_pool_t *p)
{
    ha_copy there = *copy;
    ha_look own;

    if (copy->node->provider->claim && !in_parts(copy)) {
        there.nbeside = 0;
        copy->rv = exchange(copy, &copy->bytes, &own, p);
        if (copy->rv != APR_EEXIST) {
            return copy->rv;
        }
        if (own.rv == APR_SUCCESS && read_found(&there, &own.found, p) == APR_SUCCESS) {
            copy->trips += there.trips;
            if (there.env.writer == copy->env.writer) {
                return copy->rv = APR_SUCCESS;
            }
            copy->env = there.env;
            copy->bytes = there.bytes;
            return copy->rv;
        }
        /* what is there is broken, or has expired in between: one after the other, for the reads come after the add */
    }
    ha_copy_add(copy, p);
    get_beside(copy, p);
    return copy->rv;
}

apr_status_t ha_copy_remove(ha_copy *copy, apr_pool_t *p)
{
    ha_call call;

    call_of(copy, p, &call);
    copy->rv = copy->node->provider->remove(copy->node->at, &call, copy->key);
    copy->why = call.why;
    return copy->rv;
}
