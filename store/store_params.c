/* store_params.c - see store_params.h. */
#include <string.h>

#include <apr_lib.h>

#include "store_params.h"

static int driver_is(const char *driver, apr_size_t len, const char *name)
{
    return strlen(name) == len && strncmp(driver, name, len) == 0;
}

void ha_params_begin(ha_params *params, const char *driver, apr_size_t driver_len, const char *text)
{
    memset(params, 0, sizeof(*params));
    params->at = text;
    params->quotes = driver_is(driver, driver_len, "pgsql");
    /* libpq knows spaces only; store_dbd.c gives it some for commas, unless there are quotes */
    params->between = !params->quotes ? " ,;|\t" : strchr(text, '\'') ? " \t" : " ,\t";
}

/* -1: a quote that does not end. */
static apr_ssize_t value_length(const ha_params *params, const char *value)
{
    apr_ssize_t len = 0;
    int quoted = 0;

    for (; value[len] && (quoted || strchr(params->between, value[len]) == NULL); len++) {
        if (params->quotes && value[len] == '\\' && value[len + 1]) {
            len++;
        }
        else if (params->quotes) {
            quoted ^= value[len] == '\'';
        }
    }
    return quoted ? -1 : len;
}

int ha_params_next(ha_params *params)
{
    const char *at = params->at + strspn(params->at, params->between);
    apr_ssize_t len;

    if (*at == '\0') {
        return 0;
    }
    params->key = at;
    while (apr_isalnum(*at) || *at == '_') {
        at++;
    }
    params->key_len = (apr_size_t)(at - params->key);
    at += strspn(at, " \t");
    if (params->key_len == 0 || *at != '=') {
        return -1;
    }
    at++;
    at += strspn(at, " \t");
    params->value = at;
    if ((len = value_length(params, at)) < 0) {
        return -1;
    }
    params->value_len = (apr_size_t)len;
    params->at = at + len;
    return 1;
}

int ha_params_is(const ha_params *params, const char *key)
{
    return strlen(key) == params->key_len && strncmp(params->key, key, params->key_len) == 0;
}
