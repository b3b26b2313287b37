/* store_servers.c - see store_servers.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <apr_strings.h>

#include "store_servers.h"

static void bail_out(const char *what, const char *which)
{
    printf("Bail out! %s: %s\n", which, what);
    fflush(stdout);
    exit(1);
}

static struct sockaddr_in loopback(int port)
{
    struct sockaddr_in sa;

    memset(&sa, 0, sizeof(sa));
    sa.sin_family = AF_INET;
    sa.sin_port = htons((unsigned short)port);
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return sa;
}

int server_free_port(void)
{
    struct sockaddr_in sa = loopback(0);
    socklen_t len = sizeof(sa);
    int fd = socket(AF_INET, SOCK_STREAM, 0), port = 0;

    if (fd >= 0 && bind(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0 && getsockname(fd, (struct sockaddr *)&sa, &len) == 0) {
        port = ntohs(sa.sin_port);
    }
    close(fd);
    return port;
}

static int try_connect(int port)
{
    struct sockaddr_in sa = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) != 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* Servers that refuse to be root run as nobody. We change the user ourselves: when the server does it,
 * the kernel forgets that it is to die with us. */
static void drop_root(void)
{
    struct passwd *pw = geteuid() == 0 ? getpwnam("nobody") : NULL;

    if (pw && (setgroups(0, NULL) != 0 || setgid(pw->pw_gid) != 0 || setuid(pw->pw_uid) != 0)) {
        _exit(126);
    }
}

void server_start(ha_server *server)
{
    pid_t parent = getpid();
    int fd = -1, i;

    fflush(stdout);
    server->pid = fork();
    if (server->pid == 0) {
        int null = open("/dev/null", O_RDWR);

        dup2(null, 0);
        dup2(null, 1);
        dup2(null, 2);
        drop_root();
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(125);
        }
        execvp(server->argv[0], (char *const *)server->argv);
        _exit(127);
    }
    for (i = 0; i < 1000 && fd < 0; i++) {
        if (waitpid(server->pid, NULL, WNOHANG) != 0) {
            server->pid = 0;
            bail_out("is not installed or did not start", server->name);
        }
        usleep(10000);
        fd = try_connect(server->port);
    }
    if (fd < 0) {
        bail_out("does not listen", server->name);
    }
    close(fd);
}

void server_kill(ha_server *server)
{
    if (server->pid > 0) {
        kill(server->pid, SIGKILL);
        waitpid(server->pid, NULL, 0);
        server->pid = 0;
    }
}

void server_stop(ha_server *server)
{
    int status;

    kill(server->pid, SIGSTOP);
    waitpid(server->pid, &status, WUNTRACED);
}

void server_cont(ha_server *server)
{
    kill(server->pid, SIGCONT);
}

void server_say(const ha_server *server, const char *bytes)
{
    size_t len = strlen(bytes);
    char answer[256];
    int fd = try_connect(server->port);

    if (fd >= 0) {
        if (write(fd, bytes, len) == (ssize_t)len && read(fd, answer, sizeof(answer)) < 0) {
            perror(server->name);
        }
        close(fd);
    }
}

static char *removed_at_exit;
static pid_t made_by;

static void remove_dir(void)
{
    char *command;

    if (removed_at_exit && getpid() == made_by) {
        command = malloc(strlen(removed_at_exit) + 16);
        sprintf(command, "rm -rf '%s'", removed_at_exit);
        if (system(command) != 0) {
            fprintf(stderr, "%s failed\n", command);
        }
        free(command);
    }
}

const char *server_dir(void)
{
    const char *tmp = getenv("TMPDIR");
    char *dir;

    if (removed_at_exit == NULL) {
        tmp = tmp && *tmp ? tmp : "/tmp";
        dir = malloc(strlen(tmp) + 20);
        if (dir == NULL)
            abort();
        sprintf(dir, "%s/ha-store-XXXXXX", tmp);
        if (mkdtemp(dir) == NULL || chmod(dir, 0755) != 0) {
            bail_out("cannot be made", dir);
        }
        removed_at_exit = dir;
        made_by = getpid();
        atexit(remove_dir);
    }
    return removed_at_exit;
}

void server_memcached(ha_server *server, apr_pool_t *p, const char *extra)
{
    const char *program = getenv("MEMCACHED");
    char *flag, *last;
    int i = 0;

    memset(server, 0, sizeof(*server));
    server->name = "memcached";
    server->port = server_free_port();
    server->argv[i++] = program && *program ? program : "memcached";
    server->argv[i++] = "-l";
    server->argv[i++] = "127.0.0.1";
    server->argv[i++] = "-U";
    server->argv[i++] = "0";
    server->argv[i++] = "-p";
    server->argv[i++] = apr_itoa(p, server->port);
    server->argv[i++] = "-m";
    server->argv[i++] = "128";
    for (flag = extra ? apr_strtok(apr_pstrdup(p, extra), " ", &last) : NULL; flag; flag = apr_strtok(NULL, " ", &last)) {
        server->argv[i++] = flag;
    }
    server->argv[i] = NULL;
    server->url = apr_psprintf(p, "memcached://127.0.0.1:%d", server->port);
    server_start(server);
}

void server_redis(ha_server *server, apr_pool_t *p, const char *password, const char *memory)
{
    const char *program = getenv("REDIS");
    int i = 0;

    memset(server, 0, sizeof(*server));
    server->name = "redis-server";
    server->port = server_free_port();
    server->argv[i++] = program && *program ? program : "redis-server";
    server->argv[i++] = "--bind";
    server->argv[i++] = "127.0.0.1";
    server->argv[i++] = "--port";
    server->argv[i++] = apr_itoa(p, server->port);
    server->argv[i++] = "--save";
    server->argv[i++] = "";
    server->argv[i++] = "--appendonly";
    server->argv[i++] = "no";
    server->argv[i++] = "--dir";
    server->argv[i++] = "/tmp";
    server->argv[i++] = "--logfile";
    server->argv[i++] = "/dev/null";
    if (password) {
        server->argv[i++] = "--requirepass";
        server->argv[i++] = password;
    }
    if (memory) {
        server->argv[i++] = "--maxmemory";
        server->argv[i++] = memory;
    }
    server->argv[i] = NULL;
    server->url = password ? apr_psprintf(p, "redis://:%s@127.0.0.1:%d/3", password, server->port)
                           : apr_psprintf(p, "redis://127.0.0.1:%d", server->port);
    server_start(server);
}

/* A directory the servers' user owns. */
static const char *data_dir(apr_pool_t *p, const char *name)
{
    const char *dir = apr_pstrcat(p, server_dir(), "/", name, NULL);
    struct passwd *pw = geteuid() == 0 ? getpwnam("nobody") : NULL;

    if (mkdir(dir, 0700) != 0 || (pw && chown(dir, pw->pw_uid, pw->pw_gid) != 0)) {
        bail_out("cannot be made", dir);
    }
    return dir;
}

/* Runs a program to its end, as the servers run; its status. */
static int status_of_program(const char *const *argv)
{
    int status = -1, null;
    pid_t pid;

    fflush(stdout);
    if ((pid = fork()) == 0) {
        null = open("/dev/null", O_RDWR);
        dup2(null, 0);
        dup2(null, 1);
        dup2(null, 2);
        drop_root();
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execvp(argv[0], (char *const *)argv);
        _exit(127);
    }
    return waitpid(pid, &status, 0) == pid ? status : -1;
}

static void run_program(const char *const *argv)
{
    if (status_of_program(argv) != 0) {
        bail_out("is not installed or failed", argv[0]);
    }
}

void server_memcached_sasl(ha_server *server, apr_pool_t *p)
{
    const char *dir = data_dir(p, apr_psprintf(p, "sasl-%d", server_free_port()));
    /* for the server named after this machine, which is what it calls itself */
    const char *add[] = { "/bin/sh", "-c", apr_pstrcat(p, "PATH=$PATH:/usr/sbin; cd '", dir, "' && echo 'pass%word' | saslpasswd2 -p -c -a memcached -f sasldb2 ha &&"
                                           " printf 'mech_list: plain\\nsasldb_path: ", dir, "/sasldb2\\n' >memcached.conf", NULL), NULL };

    const char *program = getenv("MEMCACHED");
    int i = 0;

    run_program(add);
    memset(server, 0, sizeof(*server));
    server->name = "memcached -S";
    server->port = server_free_port();
    server->argv[i++] = "env";
    server->argv[i++] = apr_pstrcat(p, "SASL_CONF_PATH=", dir, NULL);
    server->argv[i++] = program && *program ? program : "memcached";
    server->argv[i++] = "-S";
    server->argv[i++] = "-l";
    server->argv[i++] = "127.0.0.1";
    server->argv[i++] = "-U";
    server->argv[i++] = "0";
    server->argv[i++] = "-p";
    server->argv[i++] = apr_itoa(p, server->port);
    server->argv[i] = NULL;
    server_start(server);
    server->url = apr_psprintf(p, "libmemcached://ha:pass%%25word@127.0.0.1:%d", server->port);
}

void server_mariadb(ha_server *server, apr_pool_t *p)
{
    int port = server_free_port();
    const char *dir = data_dir(p, apr_psprintf(p, "mariadb-%d", port)), *datadir = apr_pstrcat(p, "--datadir=", dir, NULL);
    const char *install[] = { "mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal", "--skip-name-resolve",
                              datadir, NULL };
    int i = 0;

    memset(server, 0, sizeof(*server));
    server->name = "mariadbd";
    server->port = port;
    server->argv[i++] = access("/usr/sbin/mariadbd", X_OK) == 0 ? "/usr/sbin/mariadbd" : "mariadbd";
    server->argv[i++] = "--no-defaults";
    server->argv[i++] = "--bind-address=127.0.0.1";
    server->argv[i++] = "--skip-grant-tables";
    server->argv[i++] = "--skip-networking=0";
    server->argv[i++] = "--innodb-buffer-pool-size=16M";
    server->argv[i++] = datadir;
    server->argv[i++] = apr_psprintf(p, "--socket=%s/sock", dir);
    server->argv[i++] = apr_psprintf(p, "--port=%d", server->port);
    server->argv[i] = NULL;
    server->url = apr_psprintf(p, "dbd:mysql,host=127.0.0.1,port=%d,user=root,pass=secret,dbname=test", server->port);
    run_program(install);
    server_start(server);
}

/* Debian keeps the programs of each version in a place of their own. */
static const char *postgres_bin(apr_pool_t *p, const char *program)
{
    int version;

    for (version = 20; version > 9; version--) {
        const char *path = apr_psprintf(p, "/usr/lib/postgresql/%d/bin/%s", version, program);

        if (access(path, X_OK) == 0) {
            return path;
        }
    }
    return program;
}

void server_postgres(ha_server *server, apr_pool_t *p)
{
    int port = server_free_port();
    const char *dir = data_dir(p, apr_psprintf(p, "postgres-%d", port));
    const char *initdb[] = { postgres_bin(p, "initdb"), "-D", dir, "-U", "ha", "-A", "trust", "-N", "--no-locale", "-E", "UTF8", NULL };
    const char *ready[] = { postgres_bin(p, "pg_isready"), "-q", "-h", "127.0.0.1", "-p", apr_itoa(p, port), NULL };
    int i = 0;

    memset(server, 0, sizeof(*server));
    server->name = "postgres";
    server->port = port;
    server->argv[i++] = postgres_bin(p, "postgres");
    server->argv[i++] = "-D";
    server->argv[i++] = dir;
    server->argv[i++] = "-p";
    server->argv[i++] = apr_itoa(p, server->port);
    server->argv[i++] = "-h";
    server->argv[i++] = "127.0.0.1";
    server->argv[i++] = "-k";
    server->argv[i++] = dir;
    server->argv[i++] = "-c";
    server->argv[i++] = "fsync=off";
    server->argv[i] = NULL;
    server->url = apr_psprintf(p, "dbd:pgsql,host=127.0.0.1,port=%d,user=ha,password=secret,dbname=postgres", server->port);
    run_program(initdb);
    server_start(server);
    /* it accepts, and says that it is starting up */
    for (i = 0; status_of_program(ready) != 0; i++) {
        if (i == 1000) {
            bail_out("does not get ready", server->name);
        }
        usleep(10000);
    }
}

void *shared_memory(apr_size_t size)
{
    void *m = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (m == MAP_FAILED) {
        bail_out(strerror(errno), "shared memory");
    }
    return m;
}

ha_store *store_of(apr_pool_t *p, int copies, apr_interval_time_t timeout, int nurls, const char *const *urls)
{
    ha_call call = { p, 0, NULL };
    ha_store *store;
    const char *why = ha_store_configure(&store, p, nurls, urls, copies, timeout);

    if (why) {
        bail_out(why, urls[0]);
    }
    if (APR_SUCCESS != ha_store_prepare(store, &call, shared_memory(ha_store_shared_size(store)), (apr_uid_t)-1, (apr_gid_t)-1)) {
        bail_out(call.why, urls[0]);
    }
    return store;
}

apr_pool_t *store_child(ha_store *store, apr_pool_t *p)
{
    apr_pool_t *pchild;

    apr_pool_create(&pchild, p);
    if (APR_SUCCESS != ha_store_open(store, pchild)) {
        bail_out("cannot be opened", "store");
    }
    return pchild;
}

int in_child_counting(void (*fn)(void *), void *baton, int *n, int *bad, void (*save)(int *))
{
    static int *numbers;
    pid_t pid, parent = getpid();
    int status = -1;

    if (numbers == NULL) {
        numbers = shared_memory(2 * sizeof(int));
    }
    server_dir();       /* made by who removes it */
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(125);
        }
        fn(baton);
        save(numbers);
        fflush(stdout);
        _exit(0);
    }
    if (waitpid(pid, &status, 0) != pid || status != 0) {
        ++*bad;
        printf("# a child process ended with status %d\n", status);
        return status ? status : -1;
    }
    *n = numbers[0];
    *bad = numbers[1];
    return 0;
}

const char *test_key(apr_pool_t *p, const char *prefix, int n)
{
    /* any 64 digits will do */
    apr_uint64_t a = (apr_uint64_t)n * APR_UINT64_C(0x9e3779b97f4a7c15) + 1;

    return apr_psprintf(p, "%s:%016" APR_UINT64_T_HEX_FMT "%016" APR_UINT64_T_HEX_FMT "%016" APR_UINT64_T_HEX_FMT "%016" APR_UINT64_T_HEX_FMT,
                        prefix, a, a * 3, a * 5, a * 7);
}
