/* ha_values.h - values of directives: words, numbers, times. NULL, or a message that says what is allowed. */
#ifndef HA_VALUES_H
#define HA_VALUES_H

#include "httpd.h"
#include "http_config.h"

typedef struct ha_word {        /* the last one has no name */
    const char *name;
    int value;
} ha_word;

/* In any case. */
const char *ha_value_word(cmd_parms *cmd, const ha_word *words, const char *arg, int *value);

/* units: the letters that may follow, each 1024 times the one before. */
const char *ha_value_number(cmd_parms *cmd, const char *arg, const char *units, apr_int64_t min, apr_int64_t max,
                            apr_int64_t *value);

/* unit: what counts when there is none; range: min and max as people write them. */
const char *ha_value_time(cmd_parms *cmd, const char *arg, const char *unit, apr_interval_time_t min,
                          apr_interval_time_t max, const char *range, apr_interval_time_t *value);

/* A cookie's, parameter's or field's name (RFC 9110, token). */
int ha_value_is_token(const char *name);

#endif
