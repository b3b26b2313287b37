#include "autoconf.h"           /* HA_STATE_DIR; why no httpd header is included here: both define PACKAGE_VERSION */

#include <sys/stat.h>
#include <unistd.h>

#include <apr_file_info.h>
#include <apr_file_io.h>
#include <apr_strings.h>

#include "ha_state.h"
#include "session/session_seal.h"

#define SECRET_BYTES 32         /* of a new secret, before they are written as hex */
#define SECRET_FILE_MAX 4096

#define DIR_MODE   (APR_FPROT_UREAD | APR_FPROT_UWRITE | APR_FPROT_UEXECUTE | APR_FPROT_GEXECUTE)
#define OTHERS     (APR_FPROT_GREAD | APR_FPROT_GWRITE | APR_FPROT_GEXECUTE | \
                    APR_FPROT_WREAD | APR_FPROT_WWRITE | APR_FPROT_WEXECUTE)

static const char *because(apr_pool_t *p, const char *what, const char *path, apr_status_t rv)
{
    char text[120];
    return apr_psprintf(p, "%s %s: %s", what, path, apr_strerror(rv, text, sizeof(text)));
}

const char *ha_state_default(void)
{
    return HA_STATE_DIR;
}

/* Started as root, the directory belongs to root and the children only pass through: one that was broken
 * into can spoil the store below, which it has to write anyway, but not exchange the secret. */
const char *ha_state_open(const char *dir, apr_uid_t uid, apr_gid_t gid, apr_pool_t *p)
{
    apr_finfo_t found;
    apr_status_t rv = apr_dir_make(dir, DIR_MODE, p);

    if (rv != APR_SUCCESS && !APR_STATUS_IS_EEXIST(rv))
        return because(p, "cannot make", dir, rv);
    rv = apr_stat(&found, dir, APR_FINFO_LINK | APR_FINFO_TYPE | APR_FINFO_PROT | APR_FINFO_OWNER, p);
    if (rv != APR_SUCCESS && rv != APR_INCOMPLETE)
        return because(p, "cannot look at", dir, rv);
    if (found.filetype != APR_DIR)
        return apr_psprintf(p, "%s is not a directory", dir);
    if (found.user != geteuid() && (geteuid() != 0 || found.user != uid))
        return apr_psprintf(p, "%s belongs to another user (%ld)", dir, (long)found.user);
    if (found.protection & (APR_FPROT_GWRITE | APR_FPROT_WWRITE))
        return apr_psprintf(p, "%s can be written by others (run: chmod go-w %s)", dir, dir);
    if (geteuid() == 0 && found.user == 0) {
        if (chown(dir, 0, gid) != 0)
            return because(p, "cannot chown", dir, errno);
        if (chmod(dir, 0710) != 0)
            return because(p, "cannot chmod", dir, errno);
    }
    return NULL;
}

/* Written aside and then linked: link() fails when the name is there, so of two starts one wins and the
 * other reads the winner's; and nobody ever sees half a secret. */
static apr_status_t make_secret(const char *file, apr_pool_t *p)
{
    apr_file_t *aside = NULL;
    const char *hex, *path;
    char *name = apr_pstrcat(p, file, ".XXXXXX", NULL);     /* mktemp: mode 0600, removed when it is closed */
    apr_status_t rv;

    if (APR_SUCCESS != (rv = ha_random_hex(SECRET_BYTES, p, &hex)))
        goto leave;
    if (APR_SUCCESS != (rv = apr_file_mktemp(&aside, name, 0, p)))
        goto leave;
    if (APR_SUCCESS != (rv = apr_file_name_get(&path, aside)))
        goto leave;
    if (APR_SUCCESS != (rv = apr_file_write_full(aside, apr_pstrcat(p, hex, "\n", NULL), strlen(hex) + 1, NULL)))
        goto leave;
    if (APR_SUCCESS != (rv = apr_file_sync(aside)))
        goto leave;
    rv = apr_file_link(path, file);
    if (APR_STATUS_IS_EEXIST(rv))
        rv = APR_SUCCESS;
leave:
    if (aside)
        apr_file_close(aside);
    return rv;
}

const char *ha_state_secret(const char *file, int make, ha_blob *content, apr_pool_t *p)
{
    apr_file_t *f = NULL;
    apr_finfo_t found;
    apr_size_t len = SECRET_FILE_MAX;
    char *bytes;
    const char *wrong = NULL;
    apr_status_t rv = apr_stat(&found, file, APR_FINFO_TYPE, p);

    if ((rv == APR_SUCCESS || rv == APR_INCOMPLETE) && found.filetype != APR_REG)
        return apr_psprintf(p, "the secret %s is not a file", file);    /* and opening a pipe would wait */
    rv = apr_file_open(&f, file, APR_FOPEN_READ | APR_FOPEN_BINARY, APR_FPROT_OS_DEFAULT, p);
    if (APR_STATUS_IS_ENOENT(rv) && make) {
        if (APR_SUCCESS != (rv = make_secret(file, p)))
            return because(p, "cannot make the secret", file, rv);
        rv = apr_file_open(&f, file, APR_FOPEN_READ | APR_FOPEN_BINARY, APR_FPROT_OS_DEFAULT, p);
    }
    if (APR_STATUS_IS_ENOENT(rv))
        return apr_psprintf(p, "%s does not exist; make it once and give all servers the same (run: "
                            "(umask 077; openssl rand -hex 32 > %s))", file, file);
    if (rv != APR_SUCCESS)
        return because(p, "cannot open the secret", file, rv);

    rv = apr_file_info_get(&found, APR_FINFO_PROT, f);
    if (rv != APR_SUCCESS && rv != APR_INCOMPLETE) {
        wrong = because(p, "cannot look at the secret", file, rv);
        goto leave;
    }
    if (found.protection & OTHERS) {
        wrong = apr_psprintf(p, "the secret %s is open to others than its owner (run: chmod 600 %s)", file, file);
        goto leave;
    }
    bytes = apr_palloc(p, len);
    rv = apr_file_read_full(f, bytes, len, &len);
    if (rv != APR_SUCCESS && rv != APR_EOF) {
        wrong = because(p, "cannot read the secret", file, rv);
        goto leave;
    }
    if (len == SECRET_FILE_MAX) {
        wrong = apr_psprintf(p, "the secret %s is too long (allowed: less than %d bytes)", file, SECRET_FILE_MAX);
        goto leave;
    }
    content->data = bytes;
    content->len = len;
leave:
    apr_file_close(f);
    return wrong;
}
