/* fuzz.h - what the fuzz targets share. With libFuzzer they search; with replay.c they run over the corpus in make check. */
#ifndef HA_FUZZ_H
#define HA_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <apr_general.h>
#include <apr_pools.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must be true of every input. */
#define HOLDS(cond) do { if (!(cond)) { fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #cond); abort(); } } while (0)

static inline apr_pool_t *fuzz_pool(void)
{
    static apr_pool_t *p;

    if (!p) {
        apr_initialize();
        apr_pool_create(&p, NULL);
    }
    apr_pool_clear(p);
    return p;
}

/* An exact copy, so that ASan sees a byte read too far. */
static inline char *fuzz_copy(const uint8_t *data, size_t size, int terminated)
{
    char *copy = malloc(size + (terminated || !size));

    HOLDS(copy);
    if (size)
        memcpy(copy, data, size);
    if (terminated)
        copy[size] = '\0';
    return copy;
}

#endif
