/* quic_get ADDRESS:PORT CA PATH [ACTION] - fetches https://localhost/PATH over HTTP/3, its few bytes written by hand on
 * cb_quic_*, and does ACTION ("key-update", "migrate") after every 300 kB. Prints "BYTES ACTIONS VERSION RESUMED ECN
 * REFUSED"; exit status 1: no file. */
#include <cb.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

typedef struct get {
    cb_quic_endpoint *endpoint;
    cb_loop *loop;
    cb_quic_conn *conn;
    cb_timer *timer;
    const char *path, *action;
    uint64_t bytes, next;
    int64_t request;
    int actions, refused, done, rc;
    cb_quic_conn_stats stats;
} get;

static int on_handshake(cb_quic_conn *c, void *user) {
    static const uint8_t settings[] = {0, 4, 0};
    uint8_t head[300] = {1, 0x40, 0, 0, 0, 0xd1, 0xd7, 0x50, 9}; /* :method GET, :scheme https, :authority */
    get *g = user;
    size_t at = 9, path = strlen(g->path);
    int64_t control;
    memcpy(head + at, "localhost", 9);
    at += 9;
    head[at++] = 0x51; /* :path */
    head[at++] = (uint8_t)path;
    memcpy(head + at, g->path, path);
    at += path;
    head[2] = (uint8_t)(at - 3);
    if (cb_quic_stream_open(c, 0, &control) < 0 || cb_quic_stream_open(c, 1, &g->request) < 0) return CB_EUSER;
    if (cb_quic_stream_write(c, control, (cb_slice){settings, sizeof settings}, 0) < 0) return CB_EUSER;
    return cb_quic_stream_write(c, g->request, (cb_slice){head, at}, 1) < 0 ? CB_EUSER : CB_OK;
}

/* Until the first action has worked the rest waits: QUIC allows no key update in the first milliseconds, in which a
 * fast server has sent everything. */
static bool held(const get *g) {
    return g->action && !g->actions && !g->refused && g->bytes >= g->next;
}

static int64_t on_stream_data(cb_quic_conn *c, int64_t stream, cb_slice data, int fin, void *user) {
    get *g = user;
    if (stream != g->request) return (int64_t)data.len;
    if (held(g)) return 0;
    g->bytes += data.len;
    if (!fin) return (int64_t)data.len;
    g->done = 1;
    g->stats.size = sizeof g->stats;
    cb_quic_conn_stats_get(c, &g->stats);
    cb_quic_conn_close(c, 0x100, NULL); /* H3_NO_ERROR */
    return (int64_t)data.len;
}

static void on_close(cb_quic_conn *c, int rc, void *user) {
    get *g = user;
    (void)c;
    g->conn = NULL;
    g->rc = rc;
    if (!g->done) fprintf(stderr, "quic_get: %s\n", cb_last_error());
    cb_loop_stop(g->loop);
}

/* Outside of the connection's callbacks. */
static void on_timer(cb_loop *loop, void *user) {
    get *g = user;
    (void)loop;
    if (g->conn && g->action && g->bytes >= g->next) {
        int rc =
            strcmp(g->action, "migrate") == 0 ? cb_quic_conn_migrate(g->conn, NULL) : cb_quic_conn_key_update(g->conn);
        if (rc == CB_OK) g->actions++;
        if (rc == CB_EINVAL) g->refused = 1; /* the server allows no migration */
        if (rc == CB_OK) g->next = g->bytes + 300000;
        if (rc != CB_EAGAIN) cb_quic_stream_resume(g->conn, g->request);
    }
}

int main(int argc, char **argv) {
    static const cb_quic_conn_ops ops = {
        .size = sizeof ops, .on_handshake = on_handshake, .on_stream_data = on_stream_data, .on_close = on_close};
    get g = {.action = argc > 4 ? argv[4] : NULL, .next = 300000};
    cb_identity *roots = NULL;
    if (argc < 4) return 2;
    g.path = argv[3];
    int rc = cb_loop_new(&g.loop, NULL);
    if (rc == CB_OK) rc = cb_identity_new(&roots, CB_OPTS(cb_identity_opts, .ca_file = argv[2]));
    if (rc == CB_OK)
        rc = cb_quic_client(&g.endpoint, g.loop, NULL,
                            CB_OPTS(cb_quic_opts, .alpn = "h3", .identity = roots, .ops = &ops, .user = &g));
    if (rc == CB_OK) rc = cb_quic_connect(&g.conn, g.endpoint, argv[1], "localhost");
    if (rc == CB_OK) rc = cb_timer_start(&g.timer, g.loop, 1, 1, on_timer, &g);
    if (rc == CB_OK) rc = cb_loop_run(g.loop);
    if (rc < 0) fprintf(stderr, "quic_get: %s\n", cb_last_error());
    printf("%llu %d %x %d %d %d\n", (unsigned long long)g.bytes, g.actions, (unsigned)g.stats.version, g.stats.resumed,
           g.stats.ecn, g.refused);
    cb_timer_free(g.timer);
    cb_quic_endpoint_free(g.endpoint);
    cb_identity_unref(roots);
    cb_loop_free(g.loop);
    return !g.done;
}
