/* ha_values.c - see ha_values.h. */
#include <apr_lib.h>
#include <apr_strings.h>

#include "ha_values.h"

const char *ha_value_word(cmd_parms *cmd, const ha_word *words, const char *arg, int *value)
{
    const char *allowed = NULL;
    const ha_word *w;

    for (w = words; w->name; w++) {
        if (ap_cstr_casecmp(w->name, arg) == 0) {
            *value = w->value;
            return NULL;
        }
        allowed = allowed ? apr_pstrcat(cmd->pool, allowed, ", ", w->name, NULL) : w->name;
    }
    return apr_psprintf(cmd->pool, "%s: '%s' is not known; allowed: %s", cmd->cmd->name, arg, allowed);
}

const char *ha_value_number(cmd_parms *cmd, const char *arg, const char *units, apr_int64_t min, apr_int64_t max,
                            apr_int64_t *value)
{
    const char *unit;
    char *end;
    apr_int64_t n;
    int times;

    errno = 0;
    n = apr_strtoi64(arg, &end, 10);
    if (end == arg || errno == ERANGE || !apr_isdigit(*arg))
        goto refuse;
    if (*end) {
        unit = strchr(units, apr_tolower(*end));
        if (!unit || end[1])
            goto refuse;
        for (times = (int)(unit - units) + 1; times > 0 && n <= max; times--)
            n *= 1024;
    }
    if (n < min || n > max)
        goto refuse;
    *value = n;
    return NULL;

refuse:
    return apr_psprintf(cmd->pool, "%s: '%s' is not known; allowed: a number from %" APR_INT64_T_FMT " to %"
                        APR_INT64_T_FMT "%s", cmd->cmd->name, arg, min, max,
                        *units ? ", with k, m or g for KB, MB or GB" : "");
}

const char *ha_value_time(cmd_parms *cmd, const char *arg, const char *unit, apr_interval_time_t min,
                          apr_interval_time_t max, const char *range, apr_interval_time_t *value)
{
    apr_interval_time_t t;
    char *low = apr_pstrdup(cmd->temp_pool, arg);
    apr_size_t len = strlen(low);

    ap_str_tolower(low);
    if (len > 1 && low[len - 1] == 'm' && apr_isdigit(low[len - 2]))
        low = apr_pstrcat(cmd->temp_pool, low, "i", NULL);      /* minutes, as people write them */
    if (!apr_isdigit(*low) || ap_timeout_parameter_parse(low, &t, unit) != APR_SUCCESS || t < min || t > max)
        return apr_psprintf(cmd->pool, "%s: '%s' is not known; allowed: a time %s, as a number with ms, s, m or h "
                            "(%s when it has none)", cmd->cmd->name, arg, range, unit);
    *value = t;
    return NULL;
}

int ha_value_is_token(const char *name)
{
    const char *c;

    for (c = name; *c; c++)
        if (!apr_isalnum(*c) && !strchr("!#$%&'*+-.^_`|~", *c))
            return 0;
    return c > name;
}
