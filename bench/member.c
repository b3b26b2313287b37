/* member.c - a server with sessions that answers at once, for measuring what stands before it.
 *
 *   member FIRST_PORT MEMBERS STATE_BYTES asked|always
 *
 * One process, MEMBERS ports from FIRST_PORT on; the one on FIRST_PORT + i has the route m(i + 1). A request without a cookie
 * begins a session, which is remembered when it is asked for again; each further one counts its session up. With STATE_BYTES each answer carries a Session-Backup of so many bytes: `asked`, as an adapter does it,
 * or `always`, to measure what such a field costs a httpd that knows nothing of it. HTTP/1.1, GET, kept alive.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define MEMBERS_MAX 256
#define PLACES 4096             /* sockets, sessions */
#define ID 32

struct connection {             /* parallel to polled[] */
    int member;
    size_t len;
    char in[8192];
};

struct session {
    int member;
    unsigned count;
    char id[ID + 1];
};

static struct pollfd polled[PLACES];
static struct connection *connections[PLACES];     /* NULL: a port */
static struct session sessions[PLACES];
static int n, members, always;
static size_t state_bytes;
static unsigned made;

static struct session *session_of(int member, const char *id)
{
    unsigned h = (unsigned)member, i;
    for (i = 0; i < ID; i++)
        h = h * 31 + (unsigned char)id[i];
    for (i = h % PLACES; sessions[i].count; i = (i + 1) % PLACES) {
        if (sessions[i].member == member && memcmp(sessions[i].id, id, ID) == 0)
            return &sessions[i];
    }
    sessions[i].member = member;
    sessions[i].count = 1;      /* by the request that began it */
    memcpy(sessions[i].id, id, ID);
    return &sessions[i];
}

/* Writes the base64 of len bytes that begin with the count. */
static size_t state(char *out, unsigned count, size_t len)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    unsigned char *raw = malloc(len + 32);
    size_t i, o = 0;

    memset(raw, ' ', len + 32);
    raw[sprintf((char *)raw, "count=%u", count)] = ' ';
    for (i = 0; i < len; i += 3) {
        unsigned bits = (unsigned)raw[i] << 16 | (unsigned)raw[i + 1] << 8 | raw[i + 2];
        out[o++] = digit[bits >> 18];
        out[o++] = digit[bits >> 12 & 63];
        out[o++] = i + 1 < len ? digit[bits >> 6 & 63] : '=';
        out[o++] = i + 2 < len ? digit[bits & 63] : '=';
    }
    free(raw);
    return o;
}

static const char *field(const char *request, const char *name)
{
    const char *line = request;
    while ((line = strstr(line, "\r\n")) != NULL) {
        line += 2;
        if (strncasecmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':')
            return line + strlen(name) + 1;
    }
    return NULL;
}

static void answer(int fd, int member, const char *request)
{
    static char out[256 * 1024];
    const char *cookie = field(request, "Cookie"), *sid = cookie ? strstr(cookie, "JSESSIONID=") : NULL;
    struct session fresh = { .member = member }, *s = sid ? session_of(member, sid + 11) : &fresh;
    size_t len;

    if (!sid)
        sprintf(fresh.id, "%016X%016X", (unsigned)getpid(), ++made);
    s->count++;
    len = (size_t)sprintf(out, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 200\r\n");
    if (!sid)
        len += (size_t)sprintf(out + len, "Set-Cookie: JSESSIONID=%s.m%d; Path=/; HttpOnly\r\n", s->id, member + 1);
    if (state_bytes && (always || field(request, "Session-Backup-Accept"))) {
        len += (size_t)sprintf(out + len, "Session-Backup: id=\"%s\", epoch=1, seq=%u, ttl=1800, state=:", s->id, s->count);
        len += state(out + len, s->count, state_bytes);
        len += (size_t)sprintf(out + len, ":\r\n");
    }
    len += (size_t)sprintf(out + len, "\r\n%-199s\n", "an answer");
    if (write(fd, out, len) != (ssize_t)len)
        perror("write");
}

static void add(int fd, int member, int listens)
{
    if (n == PLACES)
        exit(1);
    polled[n].fd = fd;
    polled[n].events = POLLIN;
    connections[n] = listens ? NULL : calloc(1, sizeof *connections[n]);
    if (connections[n])
        connections[n]->member = member;
    n++;
}

/* 0: it ended */
static int serve(int fd, struct connection *c)
{
    char *end;
    ssize_t got = read(fd, c->in + c->len, sizeof c->in - 1 - c->len);

    if (got <= 0)
        return 0;
    c->len += (size_t)got;
    c->in[c->len] = '\0';
    while ((end = strstr(c->in, "\r\n\r\n")) != NULL) {
        *end = '\0';
        answer(fd, c->member, c->in);
        c->len -= (size_t)(end + 4 - c->in);
        memmove(c->in, end + 4, c->len + 1);
    }
    return c->len < sizeof c->in - 1;
}

int main(int argc, char **argv)
{
    int first, i, on = 1;

    if (argc != 5 || (members = atoi(argv[2])) < 1 || members > MEMBERS_MAX)
        return 2;
    first = atoi(argv[1]);
    state_bytes = (size_t)atoi(argv[3]);
    always = strcmp(argv[4], "always") == 0;
    if (state_bytes > 128 * 1024)
        return 2;
    signal(SIGPIPE, SIG_IGN);
    for (i = 0; i < members; i++) {
        struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((unsigned short)(first + i)) };
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 64)) {
            perror("listen");
            return 1;
        }
        add(fd, i, 1);
    }
    while (poll(polled, (nfds_t)n, -1) >= 0 || errno == EINTR) {
        for (i = n - 1; i >= 0; i--) {
            if (!polled[i].revents)
                continue;
            if (connections[i] == NULL) {
                int fd = accept(polled[i].fd, NULL, NULL);
                if (fd >= 0) {
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                    add(fd, i, 0);
                    polled[n - 1].revents = 0;
                }
            }
            else if (!serve(polled[i].fd, connections[i])) {
                close(polled[i].fd);
                free(connections[i]);
                n--;
                polled[i] = polled[n];
                connections[i] = connections[n];
            }
        }
    }
    return 1;
}
