/* The error table, HTTP/3's part: a peer that is driven by hand over real packets breaks one rule in each row, against
 * cb_http_server and cb_http_client. The rows are in tests/support/violations_h3.c. */
#include "support/h3_bytes.h"
#include "support/http_fixture.h"
#include "support/raw_quic.h"
#include "support/violations.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct rig {
    http_world *w;
    raw_quic r;
    const violation *v;
    bool client;                     /* it is ours that is attacked */
    int64_t control, message, n_uni; /* streams */
    http_reply reply;                /* of our client */
} rig;

static int64_t next_uni(rig *g) {
    return 4 * g->n_uni++ + (g->client ? 3 : 2);
}

static void make(rig *g, http_world *w, const violation *v, bool client) {
    char cert[160], key[160];
    memset(g, 0, sizeof *g);
    g->w = w;
    g->v = v;
    g->client = client;
    g->control = -1;
    raw_make(&g->r, w->loop, "h3", client ? tls_pki_path(&w->pki, "leaf.pem", cert) : NULL,
             client ? tls_pki_path(&w->pki, "leaf-key.pem", key) : NULL);
    if (client) {
        http_client_make(w, (cb_http_client_opts){.versions = CB_HTTP_3});
        char to[32];
        snprintf(to, sizeof to, "127.0.0.1:%u", raw_port(&g->r));
        snprintf(w->url, sizeof w->url, "https://localhost:%u", raw_port(&g->r));
        cr_assert_eq(http_begin(&g->reply, w, (cb_request){.connect_to = to}, "/x"), CB_OK, "%s", cb_last_error());
        cr_assert(raw_wait(&g->r, &g->r.confirmed));
        cr_assert(raw_wait(&g->r, &raw_stream_of(&g->r, 0)->fin), "%s: no request", v->what);
    } else {
        raw_client(&g->r, w->url, "localhost");
        cr_assert(raw_connect(&g->r), "%s: closed with 0x%x", v->what, (unsigned)g->r.close_code);
    }
}

static void drop(rig *g) {
    if (!g->r.closed) raw_frames(&g->r, RAW_APP, "\x1d\x41\0\0", 4); /* H3_NO_ERROR */
    if (g->client) {
        cb_http_client_free(g->w->client);
        g->w->client = NULL;
    }
    raw_drop(&g->r);
}

/* ---- steps ---- */

static void send_buf(rig *g, int64_t id, cb_buf *b) {
    raw_stream_send(&g->r, id, b->base, b->len, false);
    cb_buf_free(b);
}

static void end_stream(rig *g, int64_t id, bool reset) {
    if (!reset) {
        raw_stream_send(&g->r, id, "", 0, true);
        return;
    }
    cb_buf b;
    cb_buf_init(&b, NULL, 64);
    raw_varint(&b, 4);
    raw_varint(&b, (uint64_t)id);
    raw_varint(&b, H3_NO_ERROR);
    raw_varint(&b, raw_stream_of(&g->r, id)->sent);
    raw_frames(&g->r, RAW_APP, b.base, b.len);
    cb_buf_free(&b);
}

static void send_hex(rig *g, int64_t id, const char *text) {
    uint8_t bytes[512];
    char hex[512];
    const char *fin = strstr(text, "fin");
    snprintf(hex, sizeof hex, "%.*s", fin ? (int)(fin - text) : (int)strlen(text), text);
    size_t n = violation_bytes(bytes, sizeof bytes, hex, g->r.server);
    raw_stream_send(&g->r, id, bytes, n, fin != NULL);
}

static void send_head(rig *g, const char *text) {
    static const char *const names[][2] = {{"GET", H3_GET}, {"POST5", H3_POST5}, {"OK", ":status= 200\n"}};
    char lines[1024] = "";
    cb_buf b;
    for (const char *at = text; *at;) {
        size_t n = strcspn(at, "|");
        char line[256];
        snprintf(line, sizeof line, "%.*s\n", (int)n, at);
        for (size_t i = 0; i < 3; i++)
            if (strlen(names[i][0]) == n && strncmp(at, names[i][0], n) == 0)
                snprintf(line, sizeof line, "%s", names[i][1]);
        strcat(lines, line);
        at += n + (at[n] == '|');
    }
    cb_buf_init(&b, NULL, 1 << 16);
    h3_headers(&b, lines);
    send_buf(g, g->message, &b);
}

/* So many bytes of fields of so many bytes each. */
static void send_big(rig *g, size_t total, size_t each) {
    cb_buf b, lines;
    cb_buf_init(&b, NULL, 1 << 20);
    cb_buf_init(&lines, NULL, 1 << 20);
    cb_buf_text(&lines, g->client ? ":status= 200\n" : H3_GET);
    for (; total; total -= each < total ? each : total) {
        cb_buf_text(&lines, "x= ");
        for (size_t i = 0; i < each; i++)
            cb_buf_add(&lines, "x", 1);
        cb_buf_add(&lines, "\n", 1);
    }
    cb_buf_add(&lines, "", 1);
    h3_headers(&b, (const char *)lines.base);
    cb_buf_free(&lines);
    send_buf(g, g->message, &b);
}

static void send_stop(rig *g) {
    const uint8_t f[] = {5, (uint8_t)(g->client ? 2 : 3), 0x41, 0}; /* the endpoint's first: its control stream */
    raw_frames(&g->r, RAW_APP, f, sizeof f);
}

static void run_step(rig *g, const violation_step *s) {
    cb_buf b;
    cb_buf_init(&b, NULL, 1 << 16);
    if (strcmp(s->verb, "control") == 0) {
        send_hex(g, g->control, s->text);
    } else if (strcmp(s->verb, "control-fin") == 0 || strcmp(s->verb, "control-reset") == 0) {
        end_stream(g, g->control, s->verb[8] == 'r');
    } else if (strcmp(s->verb, "uni") == 0) {
        send_hex(g, next_uni(g), s->text);
    } else if (strcmp(s->verb, "bidi") == 0) {
        send_hex(g, 1, s->text);
    } else if (strcmp(s->verb, "head") == 0) {
        send_head(g, s->text);
    } else if (strcmp(s->verb, "data") == 0) {
        h3_frame(&b, 0, s->text, strlen(s->text));
        send_buf(g, g->message, &b);
    } else if (strcmp(s->verb, "frames") == 0) {
        send_hex(g, g->message, s->text);
    } else if (strcmp(s->verb, "big") == 0) {
        send_big(g, (size_t)atoi(s->text), 1000);
    } else if (strcmp(s->verb, "huge") == 0) {
        send_big(g, (size_t)atoi(s->text), (size_t)atoi(s->text));
    } else if (strcmp(s->verb, "fin") == 0) {
        end_stream(g, g->message, false);
    } else if (strcmp(s->verb, "stop") == 0) {
        send_stop(g);
    } else if (strcmp(s->verb, "datagram") == 0) {
        uint8_t bytes[64];
        cb_buf_add(&b, "\x30", 1);
        cb_buf_add(&b, bytes, violation_bytes(bytes, sizeof bytes, s->text, g->r.server));
        raw_frames(&g->r, RAW_APP, b.base, b.len);
    } else {
        cr_assert_str_eq(s->verb, "bare", "%s: no step %s", g->v->what, s->verb);
    }
    cb_buf_free(&b);
}

static void open_control(rig *g) {
    g->control = next_uni(g);
    raw_stream_send(&g->r, g->control, "\0\4\0", 3, false);
}

/* ---- what must come of it ---- */

static uint64_t number_of(enum violation_code code) {
    return (uint64_t)code & 0xffff;
}

/* An honest request on the next stream is answered. */
static bool still_serves(rig *g) {
    cb_buf b;
    int64_t id = g->message;
    const raw_stream *s = raw_stream_of(&g->r, id);
    if (s->sent || s->reset || s->fin) id += 4;
    cb_buf_init(&b, NULL, 1 << 16);
    h3_headers(&b, H3_GET);
    raw_stream_send(&g->r, id, b.base, b.len, true);
    cb_buf_free(&b);
    s = raw_stream_of(&g->r, id);
    return raw_wait(&g->r, &s->fin) && s->bytes > 0;
}

static bool is_reset(rig *g) {
    const raw_stream *s = raw_stream_of(&g->r, g->message);
    uint64_t want = number_of(g->v->code);
    if (!g->client) return raw_wait(&g->r, &s->reset) && s->reset_code == want;
    http_run(g->w, &g->reply.closes); /* our client has sent all; the code is only in a STOP_SENDING, if there is one */
    bool told = g->reply.rc < 0;
    raw_turn(&g->r, 2);
    return told && (!s->stopped || s->stop_code == want);
}

static void judge(rig *g) {
    const violation *v = g->v;
    const char *who = g->client ? "client" : "server";
    if (v->end == CLOSE) {
        bool right = raw_wait(&g->r, &g->r.closed) &&
                     (g->r.close_code == number_of(v->code) || (v->also && g->r.close_code == number_of(v->also)));
        cr_expect(right && g->r.close_app, "%s, to our %s: %s with 0x%x, not 0x%x", v->what, who,
                  g->r.closed ? "closed" : "not closed", (unsigned)g->r.close_code, (unsigned)number_of(v->code));
        return;
    }
    if (v->end == RESET) {
        const raw_stream *s = raw_stream_of(&g->r, g->message);
        cr_expect(is_reset(g), "%s, to our %s: %d %d, reset with 0x%x, stop with 0x%x", v->what, who, g->reply.rc,
                  g->r.closed, (unsigned)s->reset_code, (unsigned)s->stop_code);
    }
    if (!g->client) cr_expect(still_serves(g), "%s: does not serve any more", v->what);
    cr_expect(raw_answered(&g->r), "%s, to our %s: closed with 0x%x", v->what, who, (unsigned)g->r.close_code);
}

static void run_row(http_world *w, const violation *v, bool client) {
    const char *how = v->how;
    violation_step s;
    rig g;
    make(&g, w, v, client);
    if (strncmp(how, "bare", 4) != 0) open_control(&g);
    while (violation_next(&how, &s))
        run_step(&g, &s);
    judge(&g);
    drop(&g);
}

static void run_rows(bool client) {
    http_world w;
    http_world_open(&w);
    if (!client) http_serve(&w, (cb_http_server_opts){.identity = w.me, .versions = CB_HTTP_3});
    for (size_t i = 0; i < n_h3_violations; i++)
        if (h3_violations[i].who & (client ? CLIENT : SERVER)) run_row(&w, &h3_violations[i], client);
    http_world_close(&w);
}

Test(h3_violations, against_our_server, .timeout = 60) {
    run_rows(false);
}

Test(h3_violations, against_our_client, .timeout = 60) {
    run_rows(true);
}
