/* cbctl ca ocsp and staple: telling whether certificates are still good (RFC 6960, and RFC 5019 for HTTP). */
#include "ca_args.h"
#include "cbctl.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { CERT_MAX = 256 << 10, VALID_HOURS_MAX = 168, CHECK_MS = 500, DRAIN_MS = 2000 };

/* --- the responder --- */

struct responder {
    cb_ocsp *ocsp;
    cb_loop *loop;
    cb_http_server *server;
    cb_timer *check;
};

/* A request whose body is still coming. */
struct asked {
    struct responder *r;
    size_t len;
    uint8_t der[CB_OCSP_REQUEST_BYTES + 1];
};

static bool is(cb_slice s, const char *text) {
    return s.len == strlen(text) && memcmp(s.base, text, s.len) == 0;
}

static cb_field field(const char *name, const char *value) {
    return (cb_field){.name = cb_slice_str(name), .value = cb_slice_str(value)};
}

static void date(char out[40], int64_t at) {
    const time_t t = (time_t)at;
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(out, 40, "%a, %d %b %Y %H:%M:%S GMT", &tm);
}

static int answer(struct responder *r, cb_exchange *x, cb_slice request) {
    char from[40], until[40], caching[80] = "no-store";
    const int64_t now = (int64_t)time(NULL);
    cb_ocsp_answer a = {.size = sizeof a};
    int rc = cb_ocsp_respond(r->ocsp, request, now, &a);
    if (rc < 0) return cb_exchange_send_text(x, 500, "no answer\n");
    if (a.status == CB_OCSP_INTERNAL) fprintf(stderr, "cbctl: %s\n", cb_last_error());
    cb_field fields[4] = {field("content-type", "application/ocsp-response")};
    size_t n = 2;
    if (a.cacheable) { /* RFC 5019, 6.2. Caches keep it for half of its time, so that what they give is never too old */
        snprintf(caching, sizeof caching, "max-age=%lld, public, no-transform, must-revalidate",
                 (long long)(a.next_update_s - now) / 2);
        date(from, a.this_update_s);
        date(until, a.next_update_s);
        fields[n++] = field("last-modified", from);
        fields[n++] = field("expires", until);
    }
    fields[1] = field("cache-control", caching);
    return cb_exchange_send(x, 200, fields, n, a.der);
}

static int64_t on_body(cb_exchange *x, cb_slice data, void *user) {
    struct asked *q = user;
    (void)x;
    size_t room = sizeof q->der - q->len, part = data.len < room ? data.len : room;
    memcpy(q->der + q->len, data.base, part); /* what does not fit makes it too long, which is all that counts */
    q->len += part;
    return (int64_t)data.len;
}

static int on_end(cb_exchange *x, void *user) {
    struct asked *q = user;
    return answer(q->r, x, (cb_slice){q->der, q->len});
}

static void on_close(cb_exchange *x, int rc, void *user) {
    (void)x;
    (void)rc;
    free(user);
}

static int on_head(cb_exchange *x, void *user) {
    static const cb_exchange_ops post = {
        .size = sizeof post, .on_body = on_body, .on_end = on_end, .on_close = on_close};
    struct responder *r = user;
    const cb_slice method = cb_exchange_method(x), type = cb_exchange_field(x, "content-type");
    if (is(method, "GET")) {
        uint8_t der[CB_OCSP_REQUEST_BYTES];
        const int64_t len = cb_ocsp_path(der, sizeof der, cb_exchange_path(x));
        return len < 0 ? cb_exchange_send_text(x, 404, "no OCSP request\n")
                       : answer(r, x, (cb_slice){der, (size_t)len});
    }
    if (!is(method, "POST")) {
        const cb_field allow = field("allow", "GET, POST");
        return cb_exchange_send(x, 405, &allow, 1, cb_slice_str(""));
    }
    if (!is(type, "application/ocsp-request")) {
        return cb_exchange_send_text(x, 415, "application/ocsp-request is wanted\n");
    }
    struct asked *q = calloc(1, sizeof *q);
    if (!q) return CB_ENOMEM;
    q->r = r;
    const int rc = cb_exchange_handle(x, &post, q);
    if (rc < 0) free(q);
    return rc;
}

/* A revocation, or a new delegate, is seen within half a second. Nothing else runs on this loop. */
static void on_check(cb_loop *loop, void *user) {
    struct responder *r = user;
    (void)loop;
    if (cb_ocsp_refresh(r->ocsp) < 0) fprintf(stderr, "cbctl: %s\n", cb_last_error());
}

static void quit(cb_loop *loop, void *user) {
    struct responder *r = user;
    (void)loop;
    cb_timer_free(r->check);
    r->check = NULL;
    cb_http_server_drain(r->server, DRAIN_MS);
}

static int open_ocsp(const ca_args *a, cb_ocsp **out, unsigned long hours) {
    return cb_ocsp_new(out, CB_OPTS(cb_ocsp_opts, .dir = a->dir, .cert_file = a->cert, .key_file = a->key,
                                    .valid_s = (uint32_t)(hours * 3600)));
}

static int check_ocsp(const ca_args *a) {
    if (a->hours > VALID_HOURS_MAX) return cbctl_usage("--hours: an answer is valid for at most %d", VALID_HOURS_MAX);
    if (!a->cert != !a->key) return cbctl_usage("ca %s: --cert and --key go together", a->command);
    return CBCTL_OK;
}

int cbctl_ca_ocsp(int argc, char **argv) {
    static const cb_exchange_ops ops = {.size = sizeof ops, .on_head = on_head};
    ca_args a;
    struct responder r = {0};
    int code = cbctl_ca_parse(&a, argc, argv, " dir listen cert key hours ");
    if (code == CBCTL_OK) code = check_ocsp(&a);
    if (code != CBCTL_OK) return code;
    if (a.rest_len) return cbctl_usage("ca ocsp: what is \"%s\"?", a.rest[0]);
    if (!a.listen) return cbctl_usage("ca ocsp: --listen on which address, such as :8888?");
    int rc = open_ocsp(&a, &r.ocsp, a.hours ? a.hours : 1);
    if (rc >= 0) rc = cb_loop_new(&r.loop, NULL);
    if (rc >= 0) {
        rc = cb_http_server_new(
            &r.server, r.loop,
            CB_OPTS(cb_http_server_opts, .listen = a.listen, .ops = &ops, .user = &r, .versions = CB_HTTP_1));
    }
    if (rc >= 0) rc = cb_timer_start(&r.check, r.loop, CHECK_MS, CHECK_MS, on_check, &r);
    if (rc >= 0) rc = cb_loop_on_signal(r.loop, SIGTERM, quit, &r);
    if (rc >= 0) rc = cb_loop_on_signal(r.loop, SIGINT, quit, &r);
    if (rc >= 0) {
        printf("listening:   %s\n", a.listen);
        fflush(stdout);
        rc = cb_loop_run(r.loop);
    }
    code = rc < 0 ? cbctl_ca_failed(rc) : CBCTL_OK;
    cb_timer_free(r.check);
    cb_http_server_free(r.server);
    cb_loop_free(r.loop);
    cb_ocsp_free(r.ocsp);
    return code;
}

/* --- stapling --- */

static int write_answer(const char *path, cb_slice der) {
    char *fresh = NULL;
    if (asprintf(&fresh, "%s.new", path) < 0) return cbctl_failed(CB_ENOMEM);
    FILE *f = fopen(fresh, "wbe");
    bool good = f && fwrite(der.base, 1, der.len, f) == der.len && fflush(f) == 0 && fsync(fileno(f)) == 0;
    int err = errno;
    if (f && fclose(f) != 0 && good) {
        good = false;
        err = errno;
    }
    if (good && rename(fresh, path) < 0) {
        good = false;
        err = errno;
    }
    if (!good) {
        fprintf(stderr, "cbctl: %s: %s\n", path, strerror(err));
        if (f) unlink(fresh);
    }
    free(fresh);
    return good ? CBCTL_OK : CBCTL_FAILED;
}

/* Where it belongs: NAME.pem has its answer in NAME.ocsp. */
static char *staple_path(const char *cert) {
    const size_t len = strlen(cert), stem = len > 4 && strcmp(cert + len - 4, ".pem") == 0 ? len - 4 : len;
    char *path = NULL;
    return asprintf(&path, "%.*s.ocsp", (int)stem, cert) < 0 ? NULL : path;
}

int cbctl_ca_staple(int argc, char **argv) {
    static uint8_t cert[CERT_MAX];
    ca_args a;
    cb_ocsp *ocsp = NULL;
    cb_ocsp_answer answer_of = {.size = sizeof answer_of};
    size_t len = 0;
    int code = cbctl_ca_parse(&a, argc, argv, " dir cert key hours out ");
    if (code == CBCTL_OK) code = check_ocsp(&a);
    if (code != CBCTL_OK) return code;
    if (a.rest_len != 1) return cbctl_usage("ca staple: which one FILE has the certificate?");
    code = cbctl_ca_read(a.rest[0], cert, sizeof cert, &len);
    if (code != CBCTL_OK) return code;
    int rc = open_ocsp(&a, &ocsp, a.hours ? a.hours : 24);
    if (rc >= 0) rc = cb_ocsp_staple(ocsp, (cb_slice){cert, len}, (int64_t)time(NULL), &answer_of);
    if (rc >= 0 && answer_of.status != CB_OCSP_OK) rc = CB_EINVAL;
    char *path = a.out ? strdup(a.out) : staple_path(a.rest[0]);
    if (rc >= 0 && !path) rc = CB_ENOMEM;
    code = rc < 0 ? cbctl_ca_failed(rc) : write_answer(path, answer_of.der);
    if (code == CBCTL_OK) puts(path);
    free(path);
    cb_ocsp_free(ocsp);
    return code;
}
