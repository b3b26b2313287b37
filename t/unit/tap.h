/* tap.h - the few lines a unit test needs: plain C, TAP on stdout. */
#ifndef HA_TAP_H
#define HA_TAP_H

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static int tap_n, tap_bad;

#define ok(cond, ...) tap_ok(!!(cond), __FILE__, __LINE__, __VA_ARGS__)
#define is_str(a, b, ...) tap_is_str((a), (b), __FILE__, __LINE__, __VA_ARGS__)

static inline int tap_ok(int good, const char *file, int line, const char *fmt, ...)
{
    va_list ap;
    printf("%sok %d - ", good ? "" : "not ", ++tap_n);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
    if (!good) {
        tap_bad++;
        printf("#   at %s line %d\n", file, line);
    }
    fflush(stdout);
    return good;
}

static inline int tap_is_str(const char *a, const char *b, const char *file, int line, const char *name, ...)
{
    int good = a == b || (a && b && strcmp(a, b) == 0);
    tap_ok(good, file, line, "%s", name);
    if (!good)
        printf("#   got      '%s'\n#   expected '%s'\n", a ? a : "(null)", b ? b : "(null)");
    return good;
}

static inline int tap_done(void)
{
    printf("1..%d\n", tap_n);
    return tap_bad != 0;
}

#endif
