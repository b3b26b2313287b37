/* replay.c - a fuzz target without a fuzzer: each file of a corpus once, as TAP.
 * Arguments: files or directories; none: HA_CORPUS, which the build sets. */
#include "fuzz.h"
#include <apr_file_info.h>
#include <apr_file_io.h>
#include <apr_strings.h>
#include "tap.h"

static void replay_file(const char *path, apr_pool_t *p)
{
    apr_file_t *f;
    apr_finfo_t info;
    apr_size_t got = 0;
    char *bytes = NULL;

    if (apr_file_open(&f, path, APR_READ | APR_BINARY, APR_OS_DEFAULT, p) == APR_SUCCESS) {
        if (apr_file_info_get(&info, APR_FINFO_SIZE, f) == APR_SUCCESS && (bytes = malloc((size_t)info.size + 1))
            && (!info.size || apr_file_read_full(f, bytes, (apr_size_t)info.size, &got) == APR_SUCCESS))
            ok(LLVMFuzzerTestOneInput((const uint8_t *)bytes, got) == 0, "%s", path);
        else
            ok(0, "%s cannot be read", path);
        apr_file_close(f);
    }
    else
        ok(0, "%s cannot be opened", path);
    free(bytes);
}

/* Returns how many files there were. */
static int replay(const char *path, apr_pool_t *p)
{
    apr_dir_t *dir;
    apr_finfo_t entry;
    int n = 0;

    if (apr_dir_open(&dir, path, p) != APR_SUCCESS) {
        replay_file(path, p);
        return 1;
    }
    while (apr_dir_read(&entry, APR_FINFO_NAME, dir) == APR_SUCCESS) {
        if (entry.name[0] != '.')
            n += replay(apr_pstrcat(p, path, "/", entry.name, NULL), p);
    }
    apr_dir_close(dir);
    return n;
}

int main(int argc, char **argv)
{
    apr_pool_t *p;
    int i, n = 0;

    apr_initialize();
    apr_pool_create(&p, NULL);
    for (i = 1; i < argc; i++)
        n += replay(argv[i], p);
    if (argc == 1)
        n = replay(HA_CORPUS, p);
    ok(n > 0, "%d files", n);
    apr_terminate();
    return tap_done();
}
