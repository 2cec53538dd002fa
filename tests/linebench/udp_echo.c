/* udp_echo PORT: echo of datagrams without state, the practical limit.
 * One recvmmsg that waits for the first datagram and takes those that are there, one sendmmsg. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { AT_ONCE = 64, PLACE = 1 << 16 };
static char bytes[AT_ONCE][PLACE];   /* bss: untouched pages cost nothing */
static struct sockaddr_in from[AT_ONCE];
static struct iovec io[AT_ONCE];
static struct mmsghdr msg[AT_ONCE];

int main(int argc, char **argv) {
    if (argc != 2) { fprintf(stderr, "udp_echo PORT\n"); return 2; }
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int s = socket(AF_INET, SOCK_DGRAM, 0), room = 4 << 20;
    setsockopt(s, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    if (bind(s, (void *)&a, sizeof a)) { perror("bind"); return 1; }
    for (;;) {
        for (int i = 0; i < AT_ONCE; i++) {
            io[i] = (struct iovec){ bytes[i], PLACE };
            msg[i].msg_hdr = (struct msghdr){ .msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &io[i], .msg_iovlen = 1 };
        }
        int n = recvmmsg(s, msg, AT_ONCE, MSG_WAITFORONE, NULL);
        if (n < 0) { if (errno == EINTR) continue; perror("recvmmsg"); return 1; }
        for (int i = 0; i < n; i++) io[i].iov_len = msg[i].msg_len;
        for (int at = 0; at < n;) {
            int m = sendmmsg(s, msg + at, n - at, 0);
            at += m > 0 ? m : 1;   /* one that cannot be sent is lost */
        }
    }
}
