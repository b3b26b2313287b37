/* The secret's file and the state directory: above all, that of many first starts at the same time all
 * get the same secret. Servers cannot show that; processes released at once can. */
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <apr_general.h>
#include <apr_file_io.h>
#include <apr_strings.h>

#include "ha_state.h"
#include "tap.h"

#define STARTS 8
#define ROUNDS 20

static apr_pool_t *pool;
static const char *dir;

static const char *in_dir(const char *name)
{
    return apr_pstrcat(pool, dir, "/", name, NULL);
}

static const char *spew(const char *name, int mode, const char *text)
{
    const char *file = in_dir(name);
    FILE *f = fopen(file, "w");

    fputs(text, f);
    fclose(f);
    chmod(file, mode);
    return file;
}

/* One process of many: waits at the gate, then starts; its secret goes into out. */
static void start(int gate, int out, const char *file)
{
    ha_blob secret = { "", 0 };
    apr_pool_t *p;
    char c;

    apr_pool_create(&p, NULL);
    if (read(gate, &c, 1) != 0 || ha_state_secret(file, 1, &secret, p) != NULL || secret.len != 65
        || write(out, secret.data, 65) != 65)
        _exit(1);
    _exit(0);
}

static int all_the_same(const char *file)
{
    char first[65], next[65];
    int gate[2], out[2], i, status, good = 1;
    pid_t pids[STARTS];

    if (pipe(gate) != 0 || pipe(out) != 0)
        return 0;
    for (i = 0; i < STARTS; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            close(gate[1]);
            start(gate[0], out[1], file);
        }
    }
    close(gate[0]);
    close(gate[1]);             /* opens the gate */
    for (i = 0; i < STARTS; i++) {
        waitpid(pids[i], &status, 0);
        good = good && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }
    close(out[1]);
    good = good && read(out[0], first, 65) == 65;
    for (i = 1; good && i < STARTS; i++)
        good = read(out[0], next, 65) == 65 && memcmp(first, next, 65) == 0;
    close(out[0]);
    return good;
}

int main(void)
{
    char name[] = "/tmp/ha_state_test.XXXXXX";
    ha_blob secret;
    const char *file, *wrong;
    struct stat st;
    int i, agreed = 0;

    apr_initialize();
    atexit(apr_terminate);
    apr_pool_create(&pool, NULL);
    umask(022);
    dir = mkdtemp(name);

    for (i = 0; i < ROUNDS; i++) {
        file = in_dir(apr_psprintf(pool, "secret%d", i));
        agreed += all_the_same(file);
        ok(stat(file, &st) == 0 && (st.st_mode & 07777) == 0600, "round %d: mode 0600", i);
        unlink(file);
    }
    ok(agreed == ROUNDS, "%d starts at the same time agree (%d of %d rounds)", STARTS, agreed, ROUNDS);
    ok(rmdir(dir) == 0 && mkdir(dir, 0700) == 0, "nothing is left beside it");

    file = spew("good", 0600, "0123456789abcdef\n");
    ok(ha_state_secret(file, 1, &secret, pool) == NULL && secret.len == 17 && memcmp(secret.data, "0123456789abcdef\n", 17) == 0,
       "one that is there is read as it is");
    file = spew("open", 0604, "0123456789abcdef\n");
    wrong = ha_state_secret(file, 1, &secret, pool);
    ok(wrong && strstr(wrong, "chmod 600"), "open to others: the command is told");
    wrong = ha_state_secret(in_dir("none"), 0, &secret, pool);
    ok(wrong && strstr(wrong, "openssl rand"), "not there: the command is told");
    ok(access(in_dir("none"), F_OK) != 0, "... and it is not made");
    wrong = ha_state_secret(in_dir("no/where"), 1, &secret, pool);
    ok(wrong && strstr(wrong, "No such file"), "no place to make it");
    wrong = ha_state_secret(dir, 1, &secret, pool);
    ok(wrong && strstr(wrong, "not a file"), "a directory is no secret");
    ok(mkfifo(in_dir("pipe"), 0600) == 0, "a pipe");
    wrong = ha_state_secret(in_dir("pipe"), 1, &secret, pool);
    ok(wrong && strstr(wrong, "not a file"), "... is none either, and nobody waits for it");
    unlink(in_dir("pipe"));
    file = spew("long", 0600, apr_psprintf(pool, "%5000d", 1));
    wrong = ha_state_secret(file, 1, &secret, pool);
    ok(wrong && strstr(wrong, "too long"), "a long one is refused");

    ok(ha_state_open(in_dir("made"), -1, -1, pool) == NULL && stat(in_dir("made"), &st) == 0
       && (st.st_mode & 07027) == 0, "a directory that others cannot list is made");
    ok(ha_state_open(in_dir("made"), -1, -1, pool) == NULL, "... and taken the next time");
    chmod(in_dir("made"), 0720);
    wrong = ha_state_open(in_dir("made"), -1, -1, pool);
    ok(wrong && strstr(wrong, "chmod go-w"), "one that others can write is not");
    ok(symlink("/tmp", in_dir("link")) == 0, "a link");
    wrong = ha_state_open(in_dir("link"), -1, -1, pool);
    ok(wrong && strstr(wrong, "not a directory"), "... is not followed");
    wrong = ha_state_open(in_dir("good"), -1, -1, pool);
    ok(wrong && strstr(wrong, "not a directory"), "a file is none");
    wrong = ha_state_open(in_dir("no/where"), -1, -1, pool);
    ok(wrong && strstr(wrong, "cannot make"), "no place to make it");
    if (geteuid() == 0) {
        ok(chown(in_dir("made"), 65534, 65534) == 0 && chmod(in_dir("made"), 0700) == 0, "as root");
        wrong = ha_state_open(in_dir("made"), 33, 33, pool);
        ok(wrong && strstr(wrong, "belongs to another user"), "another user's is not taken");
        ok(ha_state_open(in_dir("made"), 65534, 65534, pool) == NULL, "... but the children's is");
        ok(ha_state_open(in_dir("roots"), 65534, 65534, pool) == NULL && stat(in_dir("roots"), &st) == 0 && st.st_uid == 0
           && st.st_gid == 65534 && (st.st_mode & 07777) == 0710, "root's own: the children pass through, no more");
    }
    else {
        ok(1, "not root: no directory of another user can be made to try");
    }

    for (i = 0; i < 2; i++) {
        static const char *const left[] = { "good", "open", "long", "link" };
        unsigned int k;
        for (k = 0; k < sizeof(left) / sizeof(left[0]); k++)
            unlink(in_dir(left[k]));
        rmdir(in_dir("made"));
        rmdir(in_dir("roots"));
        rmdir(dir);
    }
    return tap_done();
}
