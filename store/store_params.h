/* store_params.h - "key=value,key=value": what a database's client library is told. Read here to say at the start what is
 * wrong, and which part of it may be shown; the library reads it again. Pure. */
#ifndef HA_STORE_PARAMS_H
#define HA_STORE_PARAMS_H

#include <apr_pools.h>

typedef struct ha_params {
    const char *at;
    const char *between;        /* what separates */
    int quotes;                 /* libpq: 'a value', and \ before any character */
    const char *key, *value;    /* of the one that was read last; as they stand, with their quotes */
    apr_size_t key_len, value_len;
} ha_params;

/* text: what follows "dbd:driver,". */
void ha_params_begin(ha_params *, const char *driver, apr_size_t driver_len, const char *text);
/* 1: the next one. 0: that was the last. -1: not key=value. */
int ha_params_next(ha_params *);
int ha_params_is(const ha_params *, const char *key);

#endif
