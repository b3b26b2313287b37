/* store_replies_test.c - a memcached that lies: cut replies, foreign ones, none, one byte at a time. Whatever it
 * says, a broken reply is never an answer, and a caller comes back at its deadline. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <apr_general.h>
#include <apr_strings.h>

#include "store/store_envelope.h"
#include "store/store_nodes.h"
#include "store/store_repair.h"
#include "store_servers.h"

#define SECOND APR_USEC_PER_SEC
#define KEY "ha:b:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

enum { PROPER, CLOSES, GARBAGE, CUT_LINE, CUT_VALUE, NO_END, NEGATIVE, HUGE_LENGTH, OTHER_KEY, CUT_ENVELOPE, BINARY, SILENT, DRIP, TWICE, MODES };
static const char *const modes[] = {
    "proper", "closes the connection", "text that is no reply", "a line without its end", "a value cut short", "a value without END",
    "a negative length", "a length of petabytes", "the reply to another question", "an envelope cut short", "zeros", "says nothing",
    "one byte at a time", "two replies for one question"
};

static apr_pool_t *p;
static volatile int *mode;
static char value[2048], other[2048];
static apr_size_t value_len, other_len;

static void send_all(int fd, const char *data, size_t len)
{
    ssize_t n;

    while (len > 0 && (n = send(fd, data, len, MSG_NOSIGNAL)) > 0) {
        data += n;
        len -= (size_t)n;
    }
}

static void say(int fd, const char *text)
{
    send_all(fd, text, strlen(text));
}

static void say_value(int fd, const char *key, const char *data, size_t len, size_t claimed, const char *end)
{
    char line[300];

    snprintf(line, sizeof(line), "VALUE %s 0 %lu\r\n", key, (unsigned long)claimed);
    say(fd, line);
    send_all(fd, data, len);
    say(fd, end);
}

static const char *proper(const char *command)
{
    return !strncmp(command, "get", 3) ? NULL : !strncmp(command, "delete", 6) ? "DELETED\r\n" : !strncmp(command, "version", 7) ? "VERSION 1\r\n"
         : !strncmp(command, "stats", 5) ? "STAT pid 7\r\nSTAT uptime 3\r\nSTAT time 1700000000\r\nSTAT evictions 5\r\nEND\r\n" : "STORED\r\n";
}

/* 0: close the connection */
static int answer(int fd, const char *command)
{
    int i;

    switch (*mode) {
    case CLOSES:
        return 0;
    case GARBAGE:
        say(fd, "HTTP/1.1 400 Bad Request\r\n\r\n");
        return 1;
    case CUT_LINE:
        say(fd, "STOR");
        return 0;
    case CUT_VALUE:
        say_value(fd, KEY, value, value_len - 10, value_len, "");
        return 0;
    case NO_END:
        say_value(fd, KEY, value, value_len, value_len, "\r\nNOT THE END\r\n");
        return 1;
    case NEGATIVE:
        say(fd, "VALUE " KEY " 0 -5\r\nhello\r\nEND\r\n");
        return 1;
    case HUGE_LENGTH:
        say(fd, "VALUE " KEY " 0 9000000000000000\r\nhello\r\nEND\r\n");
        return 0;
    case OTHER_KEY:
        say_value(fd, KEY, other, other_len, other_len, "\r\nEND\r\n");
        return 1;
    case CUT_ENVELOPE:
        say_value(fd, KEY, value, value_len - 3, value_len - 3, "\r\nEND\r\n");
        return 1;
    case BINARY:
        send_all(fd, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\n", 24);
        return 1;
    case SILENT:
        return 1;
    case DRIP:
        for (i = 0; i < 100 && *mode == DRIP; i++) {
            say(fd, "V");
            usleep(50000);
        }
        return 0;
    case TWICE:
        say_value(fd, KEY, other, other_len, other_len, "\r\nEND\r\n");
        usleep(20000);
        say_value(fd, KEY, other, other_len, other_len, "\r\nEND\r\n");
        return 1;
    default:
        if (proper(command)) {
            say(fd, proper(command));
        }
        else {
            say_value(fd, KEY, value, value_len, value_len, "\r\nEND\r\n");
        }
        return 1;
    }
}

static int serve(void)
{
    struct sockaddr_in sa;
    socklen_t len = sizeof(sa);
    char command[8192];
    int listener = socket(AF_INET, SOCK_STREAM, 0), fd;
    pid_t parent = getpid();

    memset(&sa, 0, sizeof(sa));
    sa.sin_family = AF_INET;
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&sa, sizeof(sa)) != 0 || listen(listener, 50) != 0 || getsockname(listener, (struct sockaddr *)&sa, &len) != 0) {
        return 0;
    }
    fflush(stdout);
    if (fork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGCHLD, SIG_IGN);
        while (getppid() == parent && (fd = accept(listener, NULL, NULL)) >= 0) {
            if (fork() == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                ssize_t n;

                while ((n = read(fd, command, sizeof(command) - 1)) > 0) {
                    command[n] = '\0';
                    /* a claim: its add is taken, what comes then is the mode's */
                    if (!strncmp(command, "add", 3) && memmem(command, (size_t)n, "\r\nget ", 6)) {
                        if (*mode == PROPER || *mode >= CUT_VALUE) {
                            say(fd, *mode == SILENT || *mode == DRIP || *mode == BINARY ? "" : "STORED\r\n");
                        }
                        strcpy(command, "get");
                    }
                    if (!answer(fd, command)) {
                        break;
                    }
                }
                _exit(0);
            }
            close(fd);
        }
        _exit(0);
    }
    close(listener);
    return ntohs(sa.sin_port);
}

static apr_size_t sealed(char *out, const char *key, const char *text)
{
    ha_envelope env;

    memset(&env, 0, sizeof(env));
    env.kind = HA_ENVELOPE_VALUE;
    env.length = strlen(text);
    memcpy(out + HA_ENVELOPE_LEN, text, strlen(text));
    ha_envelope_write((unsigned char *)out, &env, key, text);
    return HA_ENVELOPE_LEN + strlen(text);
}

/* Of a store that nobody has asked before. */
static void claim(const char *url, int i)
{
    ha_call call = { p, 0, NULL };
    ha_found found = { .key = KEY };
    ha_value v, w = { { "mine", 4 }, { 2, 0 } };
    ha_store *store = store_of(p, 1, SECOND / 5, 1, &url);
    apr_pool_t *pchild = store_child(store, p);
    apr_status_t rv = ha_store_claim(store, &call, "ha:c:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef:2", &w, 0, &v, &found, 1, NULL);

    if (i == PROPER) {
        ok(rv == APR_SUCCESS && found.rv == APR_SUCCESS && strncmp(found.value.data.data, "the state of the session", 24) == 0, "claim: taken, with what is beside it");
    }
    else {
        ok(rv != APR_EEXIST && found.rv != APR_SUCCESS && found.rv != APR_NOTFOUND, "claim: %s: %s", modes[i], call.why);
    }
    apr_pool_destroy(pchild);
}

int main(void)
{
    const char *url;
    ha_store *store;
    ha_store_facts facts;
    apr_pool_t *pchild;
    apr_status_t rv;
    ha_value v, w = { { "mine", 4 }, { 1, 1 } };
    ha_memory known = { 1, 2 };
    int i, j, port;

    apr_initialize();
    signal(SIGPIPE, SIG_IGN);
    alarm(120);
    apr_pool_create(&p, NULL);
    value_len = sealed(value, KEY, "the state of the session, as it was stored");
    other_len = sealed(other, "ha:b:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", "the state of somebody else");
    mode = shared_memory(sizeof(*mode));
    port = serve();
    ok(port != 0, "a server of our own");
    url = apr_psprintf(p, "memcached://127.0.0.1:%d", port);

    for (i = 0; i < MODES; i++) {
        ha_call call = { p, 0, NULL };

        store = store_of(p, 1, SECOND / 5, 1, &url);
        pchild = store_child(store, p);
        *mode = PROPER;
        rv = ha_store_get(store, &call, KEY, &v, NULL);
        ok(rv == APR_SUCCESS && strncmp(v.data.data, "the state of the session", 24) == 0, "a proper reply is one");
        *mode = i;
        claim(url, i);
        for (j = 0; i != PROPER && j < 3; j++) {
            rv = ha_store_get(store, &call, KEY, &v, NULL);
            if (rv == APR_SUCCESS || rv == APR_NOTFOUND) {
                break;
            }
        }
        ok(i == PROPER || j == 3, "get: %s: %s", modes[i], i ? call.why : "taken");
        if (i > 0 && i < CUT_VALUE) {
            rv = ha_store_add(store, &call, KEY, &w, 0, &v, NULL);
            ok(rv != APR_SUCCESS && rv != APR_EEXIST, "add: %s: %s", modes[i], call.why);
            ok(ha_store_put(store, &call, KEY, &w, 0, NULL) != APR_SUCCESS, "put: %s: %s", modes[i], call.why);
            ok(ha_store_remove(store, &call, KEY, NULL) != APR_SUCCESS, "remove: %s: %s", modes[i], call.why);
        }
        ha_store_node_facts(store, 0, p, &facts);
        if (i == SILENT) {
            ok(strcmp(facts.state, "down") == 0 && facts.timeouts == 1, "says nothing: down, after one time-out");
            for (j = 0; j < 3; j++) {
                ha_store_tend(store, p, apr_time_now() + 10 * j * SECOND);
                apr_sleep(300000);
            }
            ha_store_node_facts(store, 0, p, &facts);
            ok(strcmp(facts.state, "down") == 0, "and stays so while it says nothing to a probe");
        }
        ha_breaker_recalled(store->nodes[0].breaker, &known, apr_time_now());
        ha_recall_later(store, 0, apr_time_now() + 60 * SECOND);
        for (j = 0; j < (i == PROPER ? 300 : 5); j++) {
            apr_sleep(50000);
            ha_store_node_facts(store, 0, p, &facts);
            if (facts.forgot[HA_FORGOT_EVICTED]) {
                break;
            }
        }
        ok(i == PROPER ? facts.forgot[HA_FORGOT_RESTARTED] == 1 && facts.forgot[HA_FORGOT_EVICTED] == 5 : facts.forgot_last == 0,
           "stats: %s: %s", modes[i], i == PROPER ? "another life, and five evicted" : "says nothing of what it forgot");
        *mode = PROPER;
        for (j = 0; j < 100; j++) {
            ha_store_tend(store, p, apr_time_now());
            rv = ha_store_get(store, &call, KEY, &v, NULL);
            if (rv == APR_SUCCESS && strncmp(v.data.data, "the state of the session", 24) == 0) {
                break;
            }
            apr_sleep(50000);
        }
        ok(j < 100, "afterwards it is believed again");
        apr_pool_destroy(pchild);
    }
    i = tap_done();
    fflush(stdout);
    _exit(i);
}
