/* store_file.c - file:/path: one file a key, for a file system that several machines share.
 *
 *   DIR/3f/ha%3ab%3a<digest>     mode 0600; the value and nothing else; its mtime is when it expires
 *                                (1970: it does not), so the sweep and a touch need not read it
 *   DIR/3f/.lock                 who changes anything in this of the 256 directories holds it (flock)
 *   DIR/3f/.new.<pid>.<n>        being written; renamed into its place when it is whole
 *
 * A reader takes no lock: it sees the old file or the new one. Writers do, because whether a file may be replaced
 * depends on whether it has expired. A killed writer's lock is gone with it; what it was writing is swept.
 * Durable as the file system is against a crash of a process; there is no fsync for each write.
 *
 * Several httpds on one NFS mount: their clocks must agree to the second, and flock must work across the machines
 * (Linux: NFSv4, or v3 with lockd).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <apr_atomic.h>
#include <apr_strings.h>

#include "store_dirs.h"
#include "store_nodes.h"

#define SHARDS      256
#define SWEEP_EACH  16                          /* directories a sweep; all of them in 16 */
#define LARGEST     (256 * 1024 * 1024)
#define ABANDONED   3600                        /* seconds after which nobody writes a .new file any more */

struct ha_node {
    const char *dir;
    volatile apr_uint32_t written;              /* names of new files */
    volatile apr_uint32_t swept;                /* where the next sweep begins */
};

static const char *configure(ha_node **out, const char *url, apr_pool_t *pconf)
{
    ha_node *node = apr_pcalloc(pconf, sizeof(*node));
    const char *path = strchr(url, ':') + 1;

    if (strncmp(path, "///", 3) == 0) {
        path += 2;
    }
    if (*path != '/' || path[1] == '/' || path[1] == '\0' || strlen(path) > 3000) {
        return "expected file:/path/to/directory";
    }
    node->dir = apr_pstrdup(pconf, path);
    *out = node;
    return NULL;
}

static apr_status_t prepare(ha_node *node, ha_call *call, apr_uid_t uid, apr_gid_t gid)
{
    return ha_dir_prepare(node->dir, call, uid, gid);
}

static apr_status_t open_(ha_node *node, ha_call *call, apr_pool_t *pchild)
{
    return APR_SUCCESS;
}

/* No key can name anything but a file of ours: what is not a letter or digit is written in hex. */
static const char *file_of(const char *key, apr_pool_t *p)
{
    char *name = apr_palloc(p, 3 * strlen(key) + 1), *n = name;

    for (; *key; key++) {
        if ((*key >= '0' && *key <= '9') || (*key >= 'a' && *key <= 'z') || (*key >= 'A' && *key <= 'Z') || *key == '-') {
            *n++ = *key;
        }
        else {
            n += sprintf(n, "%%%02x", (unsigned char)*key);
        }
    }
    *n = '\0';
    return name;
}

/* A key longer than a file name may be is an error, not another key. */
static apr_status_t shard_of(ha_node *node, ha_call *call, const char *key, int make, int *shard, const char **name)
{
    const char *dir = apr_psprintf(call->pool, "%s/%02x", node->dir, (unsigned)(ha_store_hash(key, strlen(key)) % SHARDS));

    *name = file_of(key, call->pool);
    *shard = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (*shard < 0 && errno == ENOENT && make) {
        if (mkdir(dir, 0700) != 0 && errno != EEXIST) {
            return ha_dir_broken(call, dir);
        }
        *shard = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    }
    if (*shard < 0) {
        return errno == ENOENT && !make && access(node->dir, F_OK) == 0 ? APR_NOTFOUND : ha_dir_broken(call, dir);
    }
    return APR_SUCCESS;
}

static int lock_shard(int shard)
{
    int lock = openat(shard, ".lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600), rc;

    if (lock >= 0) {
        do {
            rc = flock(lock, LOCK_EX);
        } while (rc != 0 && errno == EINTR);
        if (rc != 0) {
            close(lock);
            lock = -1;
        }
    }
    return lock;
}

static int is_there(const struct stat *st, apr_time_t now)
{
    apr_time_t expires = apr_time_from_sec(st->st_mtim.tv_sec) + st->st_mtim.tv_nsec / 1000;

    return S_ISREG(st->st_mode) && (expires == 0 || expires > now);
}

static void expires_at(apr_time_t expires, struct timespec times[2])
{
    times[0].tv_sec = 0;
    times[0].tv_nsec = UTIME_OMIT;
    times[1].tv_sec = (time_t)apr_time_sec(expires);
    times[1].tv_nsec = (long)apr_time_usec(expires) * 1000;
}

static apr_status_t get(ha_node *node, ha_call *call, const char *key, ha_blob *out)
{
    int shard = -1, fd = -1;
    apr_status_t rv;
    const char *name;
    struct stat st;
    char *data;
    ssize_t n = 0;
    size_t have = 0;

    if (APR_SUCCESS != (rv = shard_of(node, call, key, 0, &shard, &name))) {
        return rv;
    }
    fd = openat(shard, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        rv = errno == ENOENT ? APR_NOTFOUND : ha_dir_broken(call, name);
        goto leave;
    }
    if (!is_there(&st, apr_time_now())) {
        rv = APR_NOTFOUND;
        goto leave;
    }
    if (st.st_size > LARGEST) {
        call->why = "a file that is too large to be ours";
        rv = APR_EGENERAL;
        goto leave;
    }
    data = apr_palloc(call->pool, (apr_size_t)st.st_size + 1);
    while (have < (size_t)st.st_size && ((n = read(fd, data + have, (size_t)st.st_size - have)) > 0 || (n < 0 && errno == EINTR))) {
        have += n > 0 ? (size_t)n : 0;
    }
    if (n < 0) {
        rv = ha_dir_broken(call, name);
        goto leave;
    }
    out->data = data;
    out->len = have;
leave:
    if (fd >= 0) {
        close(fd);
    }
    close(shard);
    return rv;
}

/* A whole file beside its place; its name, or NULL with errno. */
static const char *write_new(ha_node *node, ha_call *call, int shard, const ha_blob *value, apr_time_t expires)
{
    const char *name = apr_psprintf(call->pool, ".new.%d.%u", (int)getpid(), apr_atomic_inc32(&node->written)), *at = value->data;
    int fd = openat(shard, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600), bad = fd < 0, err;
    struct timespec times[2];
    size_t len = value->len;
    ssize_t n;

    while (!bad && len > 0) {
        n = write(fd, at, len);
        bad = n < 0 && errno != EINTR;
        at += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
    expires_at(expires, times);
    bad = bad || futimens(fd, times) != 0;
    err = errno;
    if (fd >= 0) {
        /* NFS may say only now that there is no room */
        if (close(fd) != 0 && !bad) {
            bad = 1;
            err = errno;
        }
        if (bad) {
            unlinkat(shard, name, 0);
        }
    }
    errno = err;
    return bad ? NULL : name;
}

static apr_status_t write_value(ha_node *node, ha_call *call, const char *key, const ha_blob *value, apr_time_t expires, int only_new)
{
    int shard = -1, lock = -1;
    const char *name, *fresh = NULL;
    apr_status_t rv;
    struct stat st;

    if (APR_SUCCESS != (rv = shard_of(node, call, key, 1, &shard, &name))) {
        return rv;
    }
    if (NULL == (fresh = write_new(node, call, shard, value, expires)) || (lock = lock_shard(shard)) < 0) {
        rv = ha_dir_broken(call, "cannot be written");
        goto leave;
    }
    if (apr_time_now() > call->deadline) {
        call->why = "the lock came after the deadline, when somebody else may have written something newer";
        rv = APR_EGENERAL;
        goto leave;
    }
    if (only_new && fstatat(shard, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && is_there(&st, apr_time_now())) {
        rv = APR_EEXIST;
        goto leave;
    }
    if (renameat(shard, fresh, shard, name) != 0) {
        rv = ha_dir_broken(call, "cannot be renamed");
        goto leave;
    }
    fresh = NULL;
leave:
    if (fresh) {
        unlinkat(shard, fresh, 0);
    }
    if (lock >= 0) {
        close(lock);
    }
    close(shard);
    return rv;
}

static apr_status_t put(ha_node *node, ha_call *call, const char *key, const ha_blob *value, apr_time_t expires)
{
    return write_value(node, call, key, value, expires, 0);
}

static apr_status_t add(ha_node *node, ha_call *call, const char *key, const ha_blob *value, apr_time_t expires)
{
    return write_value(node, call, key, value, expires, 1);
}

/* One call; no network that we know of. */
static apr_status_t claim(ha_node *node, ha_call *call, const char *key, const ha_blob *value, apr_time_t expires, ha_look *looks, int n)
{
    apr_status_t rv = key ? add(node, call, key, value, expires) : APR_SUCCESS;
    int i;

    for (i = 0; i < n; i++) {
        looks[i].rv = get(node, call, looks[i].key, &looks[i].found);
    }
    return rv;
}

static apr_status_t remove_(ha_node *node, ha_call *call, const char *key)
{
    int shard = -1, lock = -1;
    apr_status_t rv = shard_of(node, call, key, 0, &shard, &(const char *){ NULL });
    const char *name = file_of(key, call->pool);

    if (rv != APR_SUCCESS) {
        return rv == APR_NOTFOUND ? APR_SUCCESS : rv;
    }
    if ((lock = lock_shard(shard)) < 0 || (unlinkat(shard, name, 0) != 0 && errno != ENOENT)) {
        rv = ha_dir_broken(call, "cannot be removed");
    }
    if (lock >= 0) {
        close(lock);
    }
    close(shard);
    return rv;
}

static apr_status_t touch(ha_node *node, ha_call *call, const char *key, apr_time_t expires)
{
    int shard = -1, lock = -1;
    struct timespec times[2];
    const char *name;
    apr_status_t rv = shard_of(node, call, key, 0, &shard, &name);
    struct stat st;

    if (rv != APR_SUCCESS) {
        return rv;
    }
    expires_at(expires, times);
    if ((lock = lock_shard(shard)) < 0) {
        rv = ha_dir_broken(call, "cannot be locked");
    }
    else if (fstatat(shard, name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !is_there(&st, apr_time_now())) {
        rv = APR_NOTFOUND;
    }
    else if (utimensat(shard, name, times, AT_SYMLINK_NOFOLLOW) != 0) {
        rv = ha_dir_broken(call, "cannot be touched");
    }
    if (lock >= 0) {
        close(lock);
    }
    close(shard);
    return rv;
}

/* A file of the application's, wherever it is. Without its directory (a mount that is away) nobody knows. */
static apr_status_t has(ha_node *node, ha_call *call, const ha_name *name)
{
    const char *file = *name->text == '/' ? name->text : apr_pstrcat(call->pool, node->dir, "/", name->text, NULL);
    const char *dir = apr_pstrmemdup(call->pool, file, (apr_size_t)(strrchr(file, '/') - file) + 1);
    struct stat st;

    if (stat(file, &st) == 0) {
        return S_ISREG(st.st_mode) && (apr_size_t)st.st_size >= name->least ? APR_SUCCESS : APR_NOTFOUND;
    }
    return errno == ENOENT && access(dir, X_OK) == 0 ? APR_NOTFOUND : ha_dir_broken(call, dir);
}

static void sweep_shard(const char *dir, apr_time_t now)
{
    DIR *d = opendir(dir);
    struct dirent *e;
    struct stat st;
    int lock;

    while (d && (e = readdir(d)) != NULL) {
        if (strcmp(e->d_name, ".lock") == 0 || fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode)) {
            continue;
        }
        if (strncmp(e->d_name, ".new.", 5) == 0) {
            if (st.st_ctim.tv_sec + ABANDONED < apr_time_sec(now)) {
                unlinkat(dirfd(d), e->d_name, 0);
            }
            continue;
        }
        /* Looked at again under the lock: it may have been written anew. Held for one file, not for all. */
        if (!is_there(&st, now) && (lock = lock_shard(dirfd(d))) >= 0) {
            if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !is_there(&st, now)) {
                unlinkat(dirfd(d), e->d_name, 0);
            }
            close(lock);
        }
    }
    if (d) {
        closedir(d);
    }
}

static apr_status_t sweep(ha_node *node, ha_call *call, apr_time_t now)
{
    apr_uint32_t from = apr_atomic_add32(&node->swept, SWEEP_EACH);
    int i;

    for (i = 0; i < SWEEP_EACH; i++) {
        sweep_shard(apr_psprintf(call->pool, "%s/%02x", node->dir, (from + (unsigned)i) % SHARDS), now);
    }
    return APR_SUCCESS;
}

/* Can something be written? */
static apr_status_t probe(ha_node *node, ha_call *call)
{
    static const ha_blob nothing = { "", 0 };
    apr_status_t rv = put(node, call, "probe", &nothing, 1);

    return rv == APR_SUCCESS ? remove_(node, call, "probe") : rv;
}

const ha_store_provider ha_store_file = {
    .name = "file",
    .configure = configure,
    .prepare = prepare,
    .open = open_,
    .get = get,
    .put = put,
    .add = add,
    .remove = remove_,
    .claim = claim,
    .touch = touch,
    .sweep = sweep,
    .has = has,
    .names = HA_NAME_FILE,
    .probe = probe,
};
