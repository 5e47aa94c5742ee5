/* http_client - fetches a URL over HTTP/1.1, /2 or /3.
 *   http_client [-1|-2|-3] [-v] [-X METHOD] [-H "name: value"] [-d BODY] [-o FILE] [--ca FILE] [--connect ADDR:PORT]
 *               [--sessions FILE] [--early] URL
 * --sessions keeps TLS sessions in a file, for the next run to resume; with --early that sends a GET as 0-RTT data.
 * Exit status: 0 for a status below 400, 22 for 400 and above, 2 for wrong usage, 1 when there was no answer. */
#include <cb.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

struct fetch {
    FILE *out;
    cb_slice body; /* what is still to be sent */
    int verbose, status, rc;
};

static int send_body(cb_exchange *x, void *user) {
    struct fetch *f = user;
    while (f->body.len) {
        int64_t n = cb_exchange_write(x, f->body);
        if (n < 0) return n == CB_EAGAIN ? CB_OK : (int)n;
        f->body.base += n;
        f->body.len -= (size_t)n;
    }
    return cb_exchange_finish(x);
}

static int on_head(cb_exchange *x, void *user) {
    struct fetch *f = user;
    size_t n = 0;
    const cb_field *fields = cb_exchange_fields(x, &n);
    f->status = cb_exchange_status(x);
    if (!f->verbose) return CB_OK;
    const int version = cb_exchange_version(x);
    fprintf(stderr, "HTTP/%s %d\n", version == CB_HTTP_3 ? "3" : version == CB_HTTP_2 ? "2" : "1.1", f->status);
    for (size_t i = 0; i < n; i++)
        fprintf(stderr, "%.*s: %.*s\n", (int)fields[i].name.len, (const char *)fields[i].name.base,
                (int)fields[i].value.len, (const char *)fields[i].value.base);
    return CB_OK;
}

static int64_t on_body(cb_exchange *x, cb_slice data, void *user) {
    (void)x;
    return fwrite(data.base, 1, data.len, ((struct fetch *)user)->out) == data.len ? (int64_t)data.len : CB_EUSER;
}

static void on_close(cb_exchange *x, int rc, void *user) {
    (void)x;
    if (rc < 0) fprintf(stderr, "http_client: %s: %s\n", cb_strerror(rc), cb_last_error());
    ((struct fetch *)user)->rc = rc;
    cb_loop_stop(cb_exchange_loop(x));
}

static void print_line(int level, const char *module, const char *text, void *user) {
    (void)level;
    (void)user;
    fprintf(stderr, "http_client: %s: %s\n", module, text);
}

static int fetch(struct fetch *f, cb_request *req, const char *ca, const char *kept, uint8_t early) {
    static const cb_exchange_ops ops = {
        .size = sizeof ops, .on_head = on_head, .on_body = on_body, .on_writable = send_body, .on_close = on_close};
    static const cb_log log = {.write = print_line, .level = CB_LOG_WARN};
    cb_loop *loop = NULL;
    cb_identity *roots = NULL;
    cb_sessions *sessions = NULL;
    cb_http_client *client = NULL;
    cb_exchange *x = NULL;
    int rc = cb_loop_new(&loop, NULL);
    if (rc == CB_OK && ca) rc = cb_identity_new(&roots, CB_OPTS(cb_identity_opts, .ca_file = ca));
    if (rc == CB_OK && kept) rc = cb_sessions_new(&sessions, CB_OPTS(cb_sessions_opts, .file = kept, .log = &log));
    if (rc == CB_OK)
        rc = cb_http_client_new(&client, loop,
                                CB_OPTS(cb_http_client_opts, .identity = roots, .sessions = sessions,
                                        .early_data = early, .follow_network = 1));
    if (rc == CB_OK) rc = cb_http_request(&x, client, req, &ops, f);
    if (rc == CB_OK && req->has_body) rc = send_body(x, f);
    if (rc == CB_OK) rc = cb_loop_run(loop);
    if (rc < 0) fprintf(stderr, "http_client: %s: %s\n", cb_strerror(rc), cb_last_error());
    cb_http_client_free(client);
    cb_identity_unref(roots);
    cb_loop_free(loop);
    cb_sessions_unref(sessions); /* the last reference: waits until the file is written */
    return rc;
}

int main(int argc, char **argv) {
    static const struct option names[] = {{"ca", required_argument, NULL, 'C'},
                                          {"connect", required_argument, NULL, 'A'},
                                          {"sessions", required_argument, NULL, 'S'},
                                          {"early", no_argument, NULL, 'E'},
                                          {0}};
    cb_field fields[32];
    cb_request req = {.size = sizeof req, .fields = fields};
    struct fetch f = {.out = stdout, .rc = CB_ECLOSED};
    const char *ca = NULL, *file = NULL, *sessions = NULL;
    uint8_t early = 0;
    for (int o; (o = getopt_long(argc, argv, "123vX:H:d:o:", names, NULL)) != -1;) {
        const char *colon = o == 'H' ? strchr(optarg, ':') : NULL;
        switch (o) {
        case '1':
        case '2':
        case '3':
            req.versions |= 1u << (o - '1');
            break;
        case 'v':
            f.verbose = 1;
            break;
        case 'X':
            req.method = optarg;
            break;
        case 'd':
            f.body = cb_slice_str(optarg);
            req.has_body = 1;
            break;
        case 'o':
            file = optarg;
            break;
        case 'C':
            ca = optarg;
            break;
        case 'S':
            sessions = optarg;
            break;
        case 'E':
            early = 1;
            break;
        case 'A':
            req.connect_to = optarg;
            break;
        case 'H':
            if (colon && req.n_fields < sizeof fields / sizeof *fields) {
                fields[req.n_fields++] = (cb_field){{(const uint8_t *)optarg, (size_t)(colon - optarg)},
                                                    cb_slice_str(colon + 1 + strspn(colon + 1, " "))};
                break;
            } /* fall through */
        default:
            return 2;
        }
    }
    if (optind + 1 != argc) {
        fputs("usage: http_client [-1|-2|-3] [-v] [-X METHOD] [-H FIELD] [-d BODY] [-o FILE] [--ca FILE]\n"
              "                   [--connect ADDR:PORT] [--sessions FILE] [--early] URL\n",
              stderr);
        return 2;
    }
    req.url = argv[optind];
    if (req.has_body && !req.method) req.method = "POST";
    if (file && !(f.out = fopen(file, "wb"))) {
        perror(file);
        return 2;
    }
    if (fetch(&f, &req, ca, sessions, early) < 0 || f.rc < 0 || fclose(f.out) != 0) return 1;
    return f.status >= 400 ? 22 : 0;
}
