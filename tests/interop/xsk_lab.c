/* What the tests of AF_XDP need beside the example: xsk_lab raw|generic|kept|alone|later INTERFACE PORT, xsk_lab queues
 * INTERFACE PORT N, xsk_lab reopen INTERFACE PORT N, xsk_lab ask|ask-alone INTERFACE ADDRESS:PORT N, xsk_lab options
 * INTERFACE. Each says "ready" when it serves, and ends on SIGTERM. */
#include <cb.h>
#include <cb/xsk.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEPT = 32, QUEUES = 8 };

static int failed(const char *what, int rc) {
    fprintf(stderr, "xsk_lab: %s: %s: %s\n", what, cb_strerror(rc), cb_last_error());
    return 1;
}

static void quit(cb_loop *loop, void *user) {
    (void)user;
    cb_loop_stop(loop);
}

static void ready(void) {
    printf("ready\n");
    fflush(stdout);
}

/* ---- frames: an echo that swaps addresses, which keeps the sums right ---- */

static cb_xsk_frame kept[KEPT];
static size_t n_kept, keep;

static void swap(uint8_t *a, uint8_t *b, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const uint8_t x = a[i];
        a[i] = b[i];
        b[i] = x;
    }
}

static void turn_round(uint8_t *f) {
    const int v4 = f[12] == 8;
    uint8_t *ip = f + 14, *udp = ip + (v4 ? 20 : 40);
    swap(f, f + 6, 6);
    v4 ? swap(ip + 12, ip + 16, 4) : swap(ip + 8, ip + 24, 16);
    swap(udp, udp + 2, 2);
}

static void send_or_release(cb_xsk *x, const cb_xsk_frame *f) {
    if (cb_xsk_send(x, f, 1) != 1) cb_xsk_release(x, f);
}

static void on_frames(cb_xsk *x, const cb_xsk_frame *frames, size_t n, void *user) {
    (void)user;
    for (size_t i = 0; i < n; i++) {
        turn_round(frames[i].data);
        if (n_kept < keep) { /* answered when as many have come as are kept */
            kept[n_kept++] = frames[i];
            if (n_kept < keep) continue;
            for (size_t k = 0; k < n_kept; k++)
                send_or_release(x, &kept[k]);
            n_kept = 0;
            continue;
        }
        send_or_release(x, &frames[i]);
    }
}

static int raw(const char *interface, uint16_t port, uint8_t attach) {
    static const cb_xsk_ops ops = {.size = sizeof ops, .on_frames = on_frames};
    cb_loop *loop = NULL;
    cb_xsk *x = NULL;
    int rc = cb_loop_new(&loop, NULL);
    if (rc == CB_OK)
        rc = cb_xsk_open(&x, loop,
                         CB_OPTS(cb_xsk_opts, .interface = interface, .ops = &ops, .frames = 1024, .attach = attach,
                                 .mode = CB_XSK_MODE_COPY));
    if (rc == CB_OK) rc = cb_xsk_program_add(cb_xsk_program_of(x), CB_OPTS(cb_xsk_rule, .port = port));
    if (rc == CB_OK) rc = cb_loop_on_signal(loop, SIGTERM, quit, NULL);
    if (rc < 0) return failed("raw", rc);
    ready();
    rc = cb_loop_run(loop);
    cb_xsk_stats s = {.size = sizeof s};
    cb_xsk_program_stats p = {.size = sizeof p};
    if (cb_xsk_stats_get(x, &s) == CB_OK && cb_xsk_program_stats_get(cb_xsk_program_of(x), &p) == CB_OK)
        printf("rx %" PRIu64 " tx %" PRIu64 " out %u native %u taken %" PRIu64 " no_socket %" PRIu64 " passed %" PRIu64
               " unsuitable %" PRIu64 "\n",
               s.rx_frames, s.tx_frames, (unsigned)s.frames_out, s.native, p.taken, p.no_socket, p.passed,
               p.unsuitable);
    if (cb_xsk_program_remove(cb_xsk_program_of(x), CB_OPTS(cb_xsk_rule, .port = port)) < 0) rc = CB_ENOENT;
    if (cb_xsk_program_remove(cb_xsk_program_of(x), CB_OPTS(cb_xsk_rule, .port = port)) != CB_ENOENT) rc = CB_EINVAL;
    cb_xsk_free(x);
    cb_loop_free(loop);
    return rc < 0 ? failed("raw", rc) : 0;
}

/* ---- datagrams on several queues, a thread each ---- */

static void echo(cb_packet_io *io, const cb_packet *p, void *user) {
    (void)user;
    cb_packet_io_reply(io, p, p->len, 0);
}

static const cb_packet_ops echo_ops = {.size = sizeof echo_ops, .on_packet = echo};

typedef struct worker {
    pthread_t thread;
    cb_loop *loop;
    cb_packet_io *io;
    cb_packet_io_stats stats;
} worker;

static void stop_worker(cb_loop *loop, void *user) {
    worker *w = user;
    w->stats.size = sizeof w->stats;
    cb_packet_io_stats_get(w->io, &w->stats);
    cb_packet_io_free(w->io);
    cb_loop_stop(loop);
}

static void *work(void *user) {
    cb_loop_run(((worker *)user)->loop);
    return NULL;
}

static int queues(const char *interface, uint16_t port, uint32_t n) {
    worker w[QUEUES] = {{.io = NULL}};
    cb_xsk_program *program = NULL;
    char listen[32];
    sigset_t term;
    int got = 0;
    snprintf(listen, sizeof listen, "[::]:%u", port);
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &term, NULL);
    int rc = cb_xsk_program_new(&program, CB_OPTS(cb_xsk_program_opts, .interface = interface));
    for (uint32_t i = 0; i < n && i < QUEUES && rc == CB_OK; i++) {
        rc = cb_loop_new(&w[i].loop, NULL);
        if (rc == CB_OK)
            rc = cb_packet_io_open_xdp(&w[i].io, w[i].loop, listen,
                                       CB_OPTS(cb_packet_io_opts, .ops = &echo_ops, .reuseport = 1),
                                       CB_OPTS(cb_xsk_opts, .program = program, .queue = i));
    }
    if (rc < 0) return failed("queues", rc);
    cb_packet_io *again = NULL;
    rc = cb_packet_io_open_xdp(&again, w[0].loop, listen, CB_OPTS(cb_packet_io_opts, .ops = &echo_ops, .reuseport = 1),
                               CB_OPTS(cb_xsk_opts, .program = program, .queue = 0));
    printf("again: %s: %s\n", cb_strerror(rc), cb_last_error());
    for (uint32_t i = 0; i < n; i++)
        pthread_create(&w[i].thread, NULL, work, &w[i]);
    ready();
    sigwait(&term, &got);
    for (uint32_t i = 0; i < n; i++) {
        cb_loop_post(w[i].loop, stop_worker, &w[i]);
        pthread_join(w[i].thread, NULL);
        cb_loop_free(w[i].loop);
        printf("queue %u xdp_rx %" PRIu64 " xdp_tx %" PRIu64 " rx %" PRIu64 "\n", (unsigned)i,
               w[i].stats.xdp_rx_packets, w[i].stats.xdp_tx_packets, w[i].stats.rx_packets);
    }
    cb_xsk_program_unref(program);
    return 0;
}

/* ---- without a socket, or answered later, when nobody is inside of a callback ---- */

enum { LATER = 512, LATER_BYTES = 2048 };

typedef struct waiting {
    cb_packet_addr local, remote;
    size_t len;
    uint8_t bytes[LATER_BYTES];
} waiting;

static waiting later[LATER];
static size_t n_later;

static void keep_for_later(cb_packet_io *io, const cb_packet *p, void *user) {
    (void)io;
    (void)user;
    if (n_later == LATER || p->len > LATER_BYTES) return;
    waiting *w = &later[n_later++];
    w->local = p->local;
    w->remote = p->remote;
    w->len = p->len;
    memcpy(w->bytes, p->data, p->len);
}

static void answer_now(cb_loop *loop, void *io) {
    (void)loop;
    for (size_t i = 0; i < n_later; i++)
        cb_packet_io_send(io, &later[i].local, &later[i].remote, 0, (cb_slice){later[i].bytes, later[i].len});
    n_later = 0;
}

static int one(const char *interface, uint16_t port, uint8_t no_socket, int answer_later) {
    static const cb_packet_ops later_ops = {.size = sizeof later_ops, .on_packet = keep_for_later};
    cb_loop *loop = NULL;
    cb_packet_io *io = NULL;
    cb_timer *t = NULL;
    char listen[32];
    snprintf(listen, sizeof listen, ":%u", port);
    int rc = cb_loop_new(&loop, NULL);
    if (rc == CB_OK)
        rc = cb_packet_io_open_xdp(&io, loop, listen,
                                   CB_OPTS(cb_packet_io_opts, .ops = answer_later ? &later_ops : &echo_ops),
                                   CB_OPTS(cb_xsk_opts, .interface = interface, .no_socket = no_socket));
    if (rc == CB_OK) rc = cb_loop_on_signal(loop, SIGTERM, quit, NULL);
    if (rc == CB_OK && answer_later) rc = cb_timer_start(&t, loop, 2, 2, answer_now, io);
    if (rc < 0) return failed("one", rc);
    ready();
    rc = cb_loop_run(loop);
    cb_packet_io_stats s = {.size = sizeof s};
    cb_packet_io_stats_get(io, &s);
    printf("rx %" PRIu64 " tx %" PRIu64 " xdp_rx %" PRIu64 " xdp_tx %" PRIu64 " unresolved %" PRIu64
           " tx_dropped %" PRIu64 "\n",
           s.rx_packets, s.tx_packets, s.xdp_rx_packets, s.xdp_tx_packets, s.xdp_unresolved, s.tx_dropped);
    cb_timer_free(t);
    cb_packet_io_free(io);
    cb_loop_free(loop);
    return rc < 0;
}

/* ---- opened and closed again and again ---- */

static int reopen(const char *interface, uint16_t port, uint32_t times) {
    cb_loop *loop = NULL;
    char listen[32];
    snprintf(listen, sizeof listen, "[::]:%u", port);
    int rc = cb_loop_new(&loop, NULL);
    for (uint32_t i = 0; i < times && rc == CB_OK; i++) {
        cb_packet_io *io = NULL;
        cb_timer *t = NULL;
        rc = cb_packet_io_open_xdp(&io, loop, listen, CB_OPTS(cb_packet_io_opts, .ops = &echo_ops),
                                   CB_OPTS(cb_xsk_opts, .interface = interface, .frames = 64u << i % 5));
        if (rc < 0) break;
        if (!i) ready();
        cb_timer_start(&t, loop, 20, 0, quit, NULL);
        rc = cb_loop_run(loop);
        cb_timer_free(t);
        cb_packet_io_free(io);
    }
    if (rc < 0) return failed("reopen", rc);
    printf("reopened %u times\n", (unsigned)times);
    cb_loop_free(loop);
    return 0;
}

/* ---- asks others: who must be found by the kernel first ---- */

static uint32_t asked, answered, to_ask;
static cb_packet_addr peer;

static void ask(cb_loop *loop, void *user) {
    cb_packet_io *io = user;
    if (asked == to_ask) {
        cb_loop_stop(loop);
        return;
    }
    if (cb_packet_io_send(io, NULL, &peer, 0, (cb_slice){(const uint8_t *)"question", 8}) == CB_OK) asked++;
}

static void count(cb_packet_io *io, const cb_packet *p, void *user) {
    (void)io;
    (void)user;
    answered += p->len == 8;
}

static int ask_others(const char *interface, const char *text, uint32_t n, uint8_t no_socket) {
    static const cb_packet_ops ops = {.size = sizeof ops, .on_packet = count};
    cb_loop *loop = NULL;
    cb_packet_io *io = NULL;
    cb_timer *t = NULL;
    to_ask = n;
    int rc = cb_packet_addr_parse(&peer, text);
    if (rc == CB_OK) rc = cb_loop_new(&loop, NULL);
    if (rc == CB_OK)
        rc = cb_packet_io_open_xdp(&io, loop, no_socket ? "[::]:6000" : "[::]:0",
                                   CB_OPTS(cb_packet_io_opts, .ops = &ops),
                                   CB_OPTS(cb_xsk_opts, .interface = interface, .no_socket = no_socket));
    if (rc == CB_OK) rc = cb_timer_start(&t, loop, 1, 2, ask, io);
    if (rc < 0) return failed("ask", rc);
    rc = cb_loop_run(loop);
    cb_packet_io_stats s = {.size = sizeof s};
    cb_packet_io_stats_get(io, &s);
    printf("asked %u answered %u xdp_tx %" PRIu64 " xdp_rx %" PRIu64 " unresolved %" PRIu64 "\n", (unsigned)asked,
           (unsigned)answered, s.xdp_tx_packets, s.xdp_rx_packets, s.xdp_unresolved);
    cb_timer_free(t);
    cb_packet_io_free(io);
    cb_loop_free(loop);
    return 0;
}

/* ---- what is refused on a real interface ---- */

static int options(const char *interface) {
    static const cb_xsk_ops ops = {.size = sizeof ops};
    static const struct {
        const char *what;
        cb_xsk_opts o;
    } rows[] = {{"zero-copy", {.size = sizeof(cb_xsk_opts), .mode = CB_XSK_MODE_ZERO_COPY}},
                {"queue", {.size = sizeof(cb_xsk_opts), .queue = 100}},
                {"none", {.size = sizeof(cb_xsk_opts)}}};
    cb_loop *loop = NULL;
    int rc = cb_loop_new(&loop, NULL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows && rc == CB_OK; i++) {
        cb_xsk *x = NULL;
        cb_xsk_opts o = rows[i].o;
        o.interface = interface;
        o.ops = &ops;
        const int got = cb_xsk_open(&x, loop, &o);
        printf("%s: %s: %s\n", rows[i].what, cb_strerror(got), got < 0 ? cb_last_error() : "");
        cb_xsk_free(x);
    }
    cb_packet_io *io = NULL;
    const int got = cb_packet_io_open_xdp(&io, loop, ":0", CB_OPTS(cb_packet_io_opts, .ops = &echo_ops),
                                          CB_OPTS(cb_xsk_opts, .interface = interface, .no_socket = 1));
    printf("port: %s: %s\n", cb_strerror(got), cb_last_error());
    cb_loop_free(loop);
    return 0;
}

int main(int argc, char **argv) {
    const char *what = argc > 2 ? argv[1] : "", *interface = argc > 2 ? argv[2] : "";
    const uint16_t port = (uint16_t)(argc > 3 ? strtoul(argv[3], NULL, 10) : 0);
    const uint32_t n = (uint32_t)(argc > 4 ? strtoul(argv[4], NULL, 10) : 0);
    if (!strcmp(what, "raw")) return raw(interface, port, CB_XSK_ATTACH_NATIVE);
    if (!strcmp(what, "generic")) return raw(interface, port, CB_XSK_ATTACH_GENERIC);
    if (!strcmp(what, "kept")) {
        keep = KEPT;
        return raw(interface, port, CB_XSK_ATTACH_AUTO);
    }
    if (!strcmp(what, "queues")) return queues(interface, port, n);
    if (!strcmp(what, "alone")) return one(interface, port, 1, 0);
    if (!strcmp(what, "later")) return one(interface, port, 0, 1);
    if (!strcmp(what, "reopen")) return reopen(interface, port, n);
    if (!strcmp(what, "ask") && argc > 4) return ask_others(interface, argv[3], n, 0);
    if (!strcmp(what, "ask-alone") && argc > 4) return ask_others(interface, argv[3], n, 1);
    if (!strcmp(what, "options")) return options(interface);
    return 2;
}
