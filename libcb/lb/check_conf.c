#include "lb/check_conf.h"
#include "base/error.h"
#include "base/opts.h"
#include "http/fields.h"
#include "lb/probe_wire.h"
#include <cb/http.h>
#include <stdlib.h>
#include <string.h>

static const cb_probe_kind *const kinds[] = {
    [CB_CHECK_TCP] = &cb_probe_tcp,   [CB_CHECK_HTTP] = &cb_probe_http, [CB_CHECK_GRPC] = &cb_probe_grpc,
    [CB_CHECK_ICMP] = &cb_probe_icmp, [CB_CHECK_EXEC] = &cb_probe_exec,
};

const cb_probe_kind *cb_probe_kind_get(int kind) {
    return kind < CB_CHECK_TCP || kind > CB_CHECK_EXEC ? NULL : kinds[kind];
}

const char *cb_check_kind_name(int kind) {
    const cb_probe_kind *k = cb_probe_kind_get(kind);
    return k ? k->name : NULL;
}

/* ---- statuses ---- */

static const char *number(const char *text, unsigned *out) {
    char *end = NULL;
    if (*text < '0' || *text > '9') return NULL;
    const unsigned long n = strtoul(text, &end, 10);
    if (n < 100 || n > 999) return NULL;
    *out = (unsigned)n;
    return end;
}

static int read_statuses(uint8_t ok[125], const char *text) {
    memset(ok, 0, 125);
    for (const char *at = text;;) {
        unsigned first = 0, last = 0;
        at = number(at, &first);
        last = first;
        if (at && *at == '-') at = number(at + 1, &last);
        if (!at || last < first || (*at && *at != ','))
            return cb_fail(CB_EINVAL, "statuses \"%.60s\" is none of \"200\", \"200-299\", \"200-299,401\"", text);
        for (unsigned s = first; s <= last; s++)
            ok[s / 8] |= (uint8_t)(1u << s % 8);
        if (!*at) return CB_OK;
        at++;
    }
}

/* ---- address ---- */

static int bad_address(const cb_check *c, const char *why) {
    return cb_fail(CB_EINVAL, "cb_check: address \"%.100s\" %s", c->address, why);
}

static int read_port(uint16_t *out, const cb_check *c, const char *text) {
    char *end = NULL;
    const unsigned long port = *text >= '0' && *text <= '9' ? strtoul(text, &end, 10) : 0;
    if (!port || port > 65535 || *end) return bad_address(c, "needs a port of 1 to 65535");
    *out = (uint16_t)port;
    return CB_OK;
}

static int keep_host(cb_probe_conf *conf, const char *from, size_t len, const cb_alloc *a) {
    if (!len || len > 254) return bad_address(&conf->c, "has no host of 1 to 254 bytes");
    conf->host = cb_mem_new(a, len + 1);
    if (!conf->host) return cb_fail(CB_ENOMEM, "no memory for a check");
    memcpy(conf->host, from, len);
    return CB_OK;
}

static int read_address(cb_probe_conf *conf, const cb_probe_kind *kind, const cb_alloc *a) {
    const cb_check *c = &conf->c;
    const char *text = c->address;
    struct sockaddr_un un;
    if (!text || !*text) return kind->needs_address ? cb_fail(CB_EINVAL, "cb_check: address is missing") : CB_OK;
    if (!kind->needs_address) return CB_OK;
    if (cb_unix_path(text)) {
        if (c->kind != CB_CHECK_TCP && c->kind != CB_CHECK_HTTP)
            return bad_address(c, "is a unix socket, which this kind cannot check");
        int rc = cb_unix_addr(&un, cb_unix_path(text));
        return rc < 0 ? rc : keep_host(conf, text, strlen(text), a);
    }
    const char *end = *text == '[' ? strchr(text, ']') : NULL;
    if (*text == '[' && !end) return bad_address(c, "has a \"[\" without \"]\"");
    const char *host = end ? text + 1 : text;
    if (!end && (!kind->dials || !(end = strrchr(text, ':')))) end = text + strlen(text);
    const char *rest = *end == ']' ? end + 1 : end;
    if (kind->dials && *rest != ':') return bad_address(c, "must be \"host:port\"");
    if (!kind->dials && *rest) return bad_address(c, "is a host without a port");
    if (kind->dials && host == text && memchr(text, ':', (size_t)(end - text)))
        return bad_address(c, "needs brackets around its IPv6 address");
    int rc = kind->dials ? read_port(&conf->port, c, rest + 1) : CB_OK;
    return rc < 0 ? rc : keep_host(conf, host, (size_t)(end - host), a);
}

/* ---- what must not be ---- */

static int check_http(const cb_check *c) {
    if (c->versions & ~(uint32_t)(CB_HTTP_1 | CB_HTTP_2 | CB_HTTP_3))
        return cb_fail(CB_EINVAL, "cb_check: versions 0x%x are not known", (unsigned)c->versions);
    if (c->versions & CB_HTTP_3 && !c->tls) return cb_fail(CB_EINVAL, "cb_check: versions: HTTP/3 needs tls");
    if (c->verify > CB_VERIFY_NONE) return cb_fail(CB_EINVAL, "cb_check: verify %u is not known", c->verify);
    if (c->method && !cb_field_name_ok(cb_slice_str(c->method)))
        return cb_fail(CB_EINVAL, "cb_check: method \"%.40s\" is not one word", c->method);
    if (c->path && (*c->path != '/' || strpbrk(c->path, " #\r\n\t")))
        return cb_fail(CB_EINVAL, "cb_check: path \"%.80s\" has to begin with \"/\", without spaces and fragment",
                       c->path);
    if (c->host && !cb_authority_ok(cb_slice_str(c->host)))
        return cb_fail(CB_EINVAL, "cb_check: host \"%.80s\" is not a host", c->host);
    if (c->body && (!*c->body || strlen(c->body) > CB_CHECK_BYTES_MAX))
        return cb_fail(CB_EINVAL, "cb_check: body has to have 1 to %d bytes", CB_CHECK_BYTES_MAX);
    if (c->service && strlen(c->service) > CB_GRPC_SERVICE_MAX)
        return cb_fail(CB_EINVAL, "cb_check: service has more than %d bytes", CB_GRPC_SERVICE_MAX);
    return CB_OK;
}

static int check(const cb_check *c) {
    size_t args = 0;
    if (!c->id) return cb_fail(CB_EINVAL, "cb_check: id is 0");
    if (!cb_probe_kind_get(c->kind))
        return cb_fail(CB_EINVAL, "cb_check: kind %d is not one of enum cb_check_kind", (int)c->kind);
    if (c->send.len > CB_CHECK_BYTES_MAX || c->expect.len > CB_CHECK_BYTES_MAX)
        return cb_fail(CB_EINVAL, "cb_check: %s has more than %d bytes",
                       c->send.len > CB_CHECK_BYTES_MAX ? "send" : "expect", CB_CHECK_BYTES_MAX);
    if (c->kind == CB_CHECK_EXEC && (!c->argv || !c->argv[0] || !*c->argv[0]))
        return cb_fail(CB_EINVAL, "cb_check: argv has no program");
    while (c->kind == CB_CHECK_EXEC && c->argv[args])
        if (++args > CB_CHECK_ARGS_MAX)
            return cb_fail(CB_EINVAL, "cb_check: argv has more than %d texts", CB_CHECK_ARGS_MAX);
    return check_http(c);
}

/* ---- copies ---- */

static const char *copy(const cb_alloc *a, const char *text, const char *standard, bool *all) {
    const char *kept = cb_mem_text(a, text ? text : standard);
    *all = *all && kept;
    return kept;
}

static cb_slice copy_bytes(const cb_alloc *a, cb_slice from, bool *all) {
    uint8_t *kept = from.len ? cb_mem_get(a, from.len) : NULL;
    if (kept) memcpy(kept, from.base, from.len);
    *all = *all && (kept || !from.len);
    return (cb_slice){kept, kept ? from.len : 0};
}

static bool copy_args(cb_probe_conf *conf, const char *const *from, const cb_alloc *a) {
    size_t n = 0;
    while (from[n])
        n++;
    conf->argv = cb_mem_new(a, (n + 1) * sizeof *conf->argv);
    for (size_t i = 0; conf->argv && i < n; i++)
        if (!(conf->argv[i] = cb_mem_text(a, from[i]))) return false;
    return conf->argv != NULL;
}

static bool copy_all(cb_probe_conf *conf, const cb_check *from, const cb_alloc *a) {
    cb_check *c = &conf->c;
    bool all = true;
    const char *address = from->address ? from->address : "";
    c->name = copy(a, from->name, address, &all);
    c->group = copy(a, from->group, "", &all);
    c->address = copy(a, from->address, "", &all);
    c->method = copy(a, from->method, "GET", &all);
    c->path = copy(a, from->path, "/", &all);
    c->host = copy(a, from->host, cb_unix_path(address) ? "localhost" : address, &all);
    c->statuses = copy(a, from->statuses, "200-299", &all);
    c->service = copy(a, from->service, "", &all);
    c->server_name = from->server_name ? copy(a, from->server_name, NULL, &all) : NULL;
    c->body = from->body ? copy(a, from->body, NULL, &all) : NULL;
    c->send = copy_bytes(a, from->send, &all);
    c->expect = copy_bytes(a, from->expect, &all);
    if (from->argv && c->kind == CB_CHECK_EXEC) all = copy_args(conf, from->argv, a) && all;
    if (from->identity) cb_identity_ref(from->identity);
    return all;
}

int cb_probe_conf_init(cb_probe_conf *conf, const cb_check *from, const cb_alloc *a) {
    cb_check read;
    *conf = (cb_probe_conf){.port = 0};
    int rc = cb_opts_read(&read, sizeof read, from, "cb_check");
    if (rc == CB_OK) rc = check(&read);
    if (rc < 0) return rc;
    conf->c = read;
    if (read.kind == CB_CHECK_GRPC) conf->c.versions = CB_HTTP_2;
    conf->c.argv = NULL;
    conf->c.health = NULL;
    if (!copy_all(conf, &read, a)) rc = cb_fail(CB_ENOMEM, "no memory for a check");
    if (rc == CB_OK) rc = read_statuses(conf->ok, conf->c.statuses);
    if (rc == CB_OK) rc = read_address(conf, cb_probe_kind_get(read.kind), a);
    if (rc < 0) cb_probe_conf_free(conf, a);
    return rc;
}

void cb_probe_conf_free(cb_probe_conf *conf, const cb_alloc *a) {
    const cb_check *c = &conf->c;
    const void *const all[] = {c->name,     c->group,     c->address,    c->method,      c->path,
                               c->host,     c->body,      c->service,    c->server_name, conf->host,
                               c->statuses, c->send.base, c->expect.base};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        cb_mem_free(a, (void *)(uintptr_t)all[i]);
    for (size_t i = 0; conf->argv && conf->argv[i]; i++)
        cb_mem_free(a, conf->argv[i]);
    cb_mem_free(a, conf->argv);
    cb_identity_unref(c->identity);
    *conf = (cb_probe_conf){.port = 0};
}

int cb_check_check(const cb_check *from) {
    cb_probe_conf conf;
    cb_health *h = NULL;
    int rc = cb_probe_conf_init(&conf, from, &cb_alloc_libc);
    if (rc < 0) return rc;
    cb_probe_conf_free(&conf, &cb_alloc_libc);
    rc = cb_health_new(&h, from->health, 0);
    cb_health_free(h);
    return rc;
}
