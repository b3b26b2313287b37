/* store_dirs.c - see store_dirs.h. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <apr_file_info.h>
#include <apr_file_io.h>
#include <apr_strings.h>

#include "store_dirs.h"

apr_status_t ha_dir_broken(ha_call *call, const char *what)
{
    int err = errno;

    call->why = apr_psprintf(call->pool, "%s: %s", what, strerror(err));
    return err == ENOSPC || err == EDQUOT || err == EFBIG ? APR_ENOSPC : APR_EGENERAL;
}

apr_status_t ha_dir_prepare(const char *dir, ha_call *call, apr_uid_t uid, apr_gid_t gid)
{
    uid_t owner = uid == (apr_uid_t)-1 ? geteuid() : uid;
    char *parent = apr_pstrdup(call->pool, dir), *slash = strrchr(parent, '/');
    struct stat st;
    apr_status_t rv;

    if (lstat(dir, &st) == 0) {
        if (!S_ISDIR(st.st_mode) || st.st_uid != owner || (st.st_mode & (S_IWGRP | S_IWOTH))) {
            call->why = apr_psprintf(call->pool, "%s must be a directory that user id %d owns and nobody else may write in", dir, (int)owner);
            return APR_EACCES;
        }
        return APR_SUCCESS;
    }
    if (slash > parent) {
        *slash = '\0';
        rv = apr_dir_make_recursive(parent, APR_FPROT_UREAD | APR_FPROT_UWRITE | APR_FPROT_UEXECUTE | APR_FPROT_GREAD
                                    | APR_FPROT_GEXECUTE | APR_FPROT_WREAD | APR_FPROT_WEXECUTE, call->pool);
        if (rv != APR_SUCCESS) {
            call->why = apr_psprintf(call->pool, "the directory %s cannot be made: %pm", parent, &rv);
            return rv;
        }
    }
    if (mkdir(dir, 0700) != 0 || (owner != geteuid() && chown(dir, owner, gid) != 0)) {
        rv = APR_FROM_OS_ERROR(errno);
        call->why = apr_psprintf(call->pool, "the directory %s cannot be made: %pm", dir, &rv);
        return rv;
    }
    return APR_SUCCESS;
}
