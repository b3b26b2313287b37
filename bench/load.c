/* load.c - visitors without a cookie, as many as are wanted: each answer begins a session.
 *
 *   load PORT CONNECTIONS REQUESTS
 *
 * GETs over so many kept-alive connections to 127.0.0.1, each with one request under way. Prints how many there were and
 * how long they took; the exit status is not 0 if one of them did not begin a session.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 512

static const char request[] = "GET /app/page HTTP/1.1\r\nHost: bench.local\r\nUser-Agent: load\r\nAccept: */*\r\n\r\n";

static struct connection {
    size_t len;
    char in[16384];
} connections[CONNECTIONS_MAX];
static struct pollfd polled[CONNECTIONS_MAX];

static void stop(const char *why)
{
    fprintf(stderr, "load: %s\n", why);
    exit(1);
}

static void ask(int fd)
{
    if (write(fd, request, sizeof request - 1) != (ssize_t)(sizeof request - 1))
        stop("a request could not be sent");
}

/* 1: the answer is whole, and begins a session */
static int answered(int fd, struct connection *c)
{
    const char *head, *length;
    ssize_t got = read(fd, c->in + c->len, sizeof c->in - 1 - c->len);

    if (got <= 0)
        stop("a connection ended");
    c->len += (size_t)got;
    c->in[c->len] = '\0';
    if ((head = strstr(c->in, "\r\n\r\n")) == NULL)
        return 0;
    if ((length = strstr(c->in, "Content-Length: ")) == NULL || length > head)
        stop("an answer without a length");
    if (c->len < (size_t)(head + 4 - c->in) + strtoul(length + 16, NULL, 10))
        return 0;
    if (strncmp(c->in, "HTTP/1.1 200 ", 13) != 0 || strstr(c->in, "Set-Cookie: JSESSIONID=") == NULL)
        stop("an answer that begins no session");
    c->len = 0;
    return 1;
}

int main(int argc, char **argv)
{
    struct sockaddr_in at = { .sin_family = AF_INET };
    struct timespec began, ended;
    long requests, asked = 0, done = 0;
    int n, i, on = 1;

    if (argc != 4 || (n = atoi(argv[2])) < 1 || n > CONNECTIONS_MAX || (requests = atol(argv[3])) < n)
        return 2;
    at.sin_port = htons((unsigned short)atoi(argv[1]));
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    clock_gettime(CLOCK_MONOTONIC, &began);
    for (i = 0; i < n; i++, asked++) {
        polled[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        polled[i].events = POLLIN;
        if (connect(polled[i].fd, (struct sockaddr *)&at, sizeof at))
            stop("no connection");
        setsockopt(polled[i].fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        ask(polled[i].fd);
    }
    while (done < requests) {
        if (poll(polled, (nfds_t)n, 60000) <= 0)
            stop("no answer within a minute");
        for (i = 0; i < n; i++) {
            if (polled[i].revents && answered(polled[i].fd, &connections[i])) {
                done++;
                if (asked < requests) {
                    ask(polled[i].fd);
                    asked++;
                }
            }
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &ended);
    printf("%ld %.3f\n", done, (double)(ended.tv_sec - began.tv_sec) + (double)(ended.tv_nsec - began.tv_nsec) / 1e9);
    return 0;
}
