/* epoll_fanout PORT [each]: a line that any connection sends is written to all, the practical limit.
 * What one read brought is written to each connection at once; each: a write for every line. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAXFD = 1 << 17, BUF = 64 * 1024 };
struct conn { char *part, *out; unsigned npart, nout, at; };
static struct conn conns[MAXFD];   /* bss: untouched pages cost nothing */
static int open_fds[MAXFD], nopen, ep;
static char rbuf[2 * BUF];

static void arm(int fd, unsigned ev, int op) {
    struct epoll_event e = { .events = ev, .data.fd = fd };
    if (epoll_ctl(ep, op, fd, &e)) { perror("epoll_ctl"); exit(1); }
}
static void drop(int fd) {
    int last = open_fds[--nopen];
    conns[open_fds[conns[fd].at] = last].at = conns[fd].at;
    free(conns[fd].part); free(conns[fd].out);
    memset(&conns[fd], 0, sizeof conns[fd]);
    close(fd);
}
/* What isn't taken is kept; 0: the connection is gone. */
static int send_to(int fd, const char *p, size_t n) {
    struct conn *c = &conns[fd];
    ssize_t m = 0;
    if (!c->nout && (m = write(fd, p, n)) < 0) {
        if (errno != EAGAIN) { drop(fd); return 0; }
        m = 0;
    }
    if ((size_t)m == n) return 1;
    if (!c->nout) arm(fd, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
    c->out = realloc(c->out, c->nout + n - m);
    memcpy(c->out + c->nout, p + m, n - m);
    c->nout += n - m;
    return 1;
}
static void writable(int fd) {
    struct conn *c = &conns[fd];
    ssize_t n = write(fd, c->out, c->nout);
    if (n < 0) { if (errno != EAGAIN) drop(fd); return; }
    memmove(c->out, c->out + n, c->nout -= n);
    if (!c->nout) { free(c->out); c->out = NULL; arm(fd, EPOLLIN, EPOLL_CTL_MOD); }
}
static void to_all(const char *p, size_t n) {
    for (int i = 0; i < nopen; i++) i -= !send_to(open_fds[i], p, n);
}
static void readable(int fd, int each) {
    struct conn *c = &conns[fd];
    size_t have = c->npart;
    if (have) { memcpy(rbuf, c->part, have); free(c->part); c->part = NULL; c->npart = 0; }
    ssize_t n = read(fd, rbuf + have, BUF);
    if (n <= 0) { if (n == 0 || errno != EAGAIN) drop(fd); return; }
    const char *p = rbuf, *end = rbuf + have + n, *last = memrchr(rbuf, '\n', end - rbuf);
    last = last ? last + 1 : rbuf;
    if (last < end) {
        if (end - last > BUF) { drop(fd); return; }
        c->part = memcpy(malloc(end - last), last, c->npart = end - last);
    }
    if (!each) { if (p < last) to_all(p, last - p); return; }
    for (const char *q; p < last; p = q) to_all(p, (q = (char *)memchr(p, '\n', last - p) + 1) - p);
}
int main(int argc, char **argv) {
    int one = 1, each = argc > 2 && !strcmp(argv[2], "each");
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int ls = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(ls, (void *)&a, sizeof a) || listen(ls, 4096)) { perror("bind"); return 1; }
    ep = epoll_create1(0);
    arm(ls, EPOLLIN, EPOLL_CTL_ADD);
    for (;;) {
        struct epoll_event ev[1024];
        int n = epoll_wait(ep, ev, 1024, -1);
        for (int i = 0; i < n; i++) {
            int fd = ev[i].data.fd;
            if (fd == ls) {
                int s;
                while ((s = accept4(ls, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    arm(s, EPOLLIN, EPOLL_CTL_ADD);
                    open_fds[conns[s].at = nopen++] = s;
                }
            } else {
                if (ev[i].events & EPOLLOUT && conns[fd].nout) writable(fd);
                if (ev[i].events & ~EPOLLOUT) readable(fd, each);
            }
        }
    }
}
