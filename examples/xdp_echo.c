/* xdp_echo - answers datagrams past the kernel's network stack (AF_XDP), or with --socket by an ordinary UDP socket:
 * the handler is the same, and so is everything else but the line that opens it. cc xdp_echo.c $(pkg-config --cflags
 * --libs libcb-xdp) && ./a.out eth0 192.0.2.1:7 */
#include <cb.h>
#include <cb/xsk.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct args {
    const char *interface, *listen;
    int over_socket; /* --socket */
    int veth;        /* --veth: whoever sends leaves checksums to hardware */
    size_t answer;   /* --answer N: N bytes for whatever comes, as a name server would; 0 = what came */
} args;

static void answer(cb_packet_io *io, const cb_packet *p, void *user) {
    const args *a = user;
    if (!a->answer) {
        cb_packet_io_reply(io, p, p->len, 0); /* in the frame that it came in */
        return;
    }
    uint8_t *out = cb_packet_io_reserve(io, a->answer);
    if (!out) return; /* no room: datagrams may be lost, and who asks asks again */
    memset(out, 0, a->answer);
    memcpy(out, p->data, p->len < 12 && p->len < a->answer ? p->len : 12 < a->answer ? 12 : a->answer);
    cb_packet_io_commit(io, &p->local, &p->remote, 0, a->answer);
}

static void down(cb_packet_io *io, int rc, void *user) {
    (void)io;
    (void)user;
    fprintf(stderr, "xdp_echo: %s: %s\n", cb_strerror(rc), cb_last_error());
}

static void quit(cb_loop *loop, void *user) {
    (void)user;
    cb_loop_stop(loop);
}

static void show(cb_loop *loop, void *user) {
    cb_packet_io_stats s = {.size = sizeof s};
    (void)loop;
    if (cb_packet_io_stats_get(user, &s) < 0) return;
    printf("rx %" PRIu64 " tx %" PRIu64 " xdp_rx %" PRIu64 " xdp_tx %" PRIu64 " malformed %" PRIu64 " checksum %" PRIu64
           " other %" PRIu64 " ring_full %" PRIu64 " fill_empty %" PRIu64 " too_large %" PRIu64 " invalid %" PRIu64
           " unresolved %" PRIu64 " tx_dropped %" PRIu64 " frames_free %u rx_calls %" PRIu64 " tx_calls %" PRIu64 "\n",
           s.rx_packets, s.tx_packets, s.xdp_rx_packets, s.xdp_tx_packets, s.xdp_malformed, s.xdp_checksum, s.xdp_other,
           s.xdp_ring_full, s.xdp_fill_empty, s.xdp_dropped, s.xdp_invalid, s.xdp_unresolved, s.tx_dropped,
           (unsigned)s.xdp_frames_free, s.rx_calls, s.tx_calls);
    fflush(stdout);
}

static int read_args(args *a, char **argv) {
    for (argv++; *argv; argv++) {
        if (!strcmp(*argv, "--socket"))
            a->over_socket = 1;
        else if (!strcmp(*argv, "--veth"))
            a->veth = 1;
        else if (!strcmp(*argv, "--answer") && argv[1])
            a->answer = strtoul(*++argv, NULL, 10);
        else if (!a->interface)
            a->interface = *argv;
        else if (!a->listen)
            a->listen = *argv;
        else
            return 0;
    }
    return a->listen && a->answer <= CB_PACKET_MAX;
}

int main(int argc, char **argv) {
    static const cb_packet_ops ops = {.size = sizeof ops, .on_packet = answer, .on_down = down};
    args a = {NULL, NULL, 0, 0, 0};
    cb_loop *loop = NULL;
    cb_packet_io *io = NULL;
    char text[64];
    (void)argc;
    if (!read_args(&a, argv)) {
        fprintf(stderr, "usage: xdp_echo [--socket] [--veth] [--answer BYTES] INTERFACE ADDRESS:PORT\n");
        return 2;
    }
    const cb_packet_io_opts *opts = CB_OPTS(cb_packet_io_opts, .ops = &ops, .user = &a);
    int rc = cb_loop_new(&loop, NULL);
    if (rc == CB_OK)
        rc =
            a.over_socket
                ? cb_packet_io_open(&io, loop, a.listen, opts)
                : cb_packet_io_open_xdp(&io, loop, a.listen, opts,
                                        CB_OPTS(cb_xsk_opts, .interface = a.interface, .no_checksum = (uint8_t)a.veth));
    if (rc == CB_OK) rc = cb_loop_on_signal(loop, SIGTERM, quit, NULL);
    if (rc == CB_OK) rc = cb_loop_on_signal(loop, SIGINT, quit, NULL);
    if (rc == CB_OK) rc = cb_loop_on_signal(loop, SIGUSR1, show, io);
    if (rc == CB_OK) {
        cb_packet_io_stats s = {.size = sizeof s};
        cb_packet_addr local = cb_packet_io_local(io);
        cb_packet_io_stats_get(io, &s);
        printf("xdp_echo: %s by %s%s\n", cb_packet_addr_text(&local, text, sizeof text),
               !s.xdp         ? "a socket"
               : s.xdp_native ? "AF_XDP in the driver"
                              : "AF_XDP behind the driver",
               !s.xdp            ? ""
               : s.xdp_zero_copy ? ", zero-copy"
                                 : ", copied");
        fflush(stdout);
        rc = cb_loop_run(loop);
    }
    if (rc < 0) fprintf(stderr, "xdp_echo: %s: %s\n", cb_strerror(rc), cb_last_error());
    if (io) show(loop, io);
    cb_packet_io_free(io);
    cb_loop_free(loop);
    return rc < 0;
}
