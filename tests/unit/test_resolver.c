/* cb_resolver against a small DNS server on loopback, on the same loop. */
#include "base/addr.h"
#include "loop/loop_int.h"
#include "loop/tcp.h"
#include "support/moved.h"
#include <arpa/inet.h>
#include <cb/resolver.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TYPE_A = 1, TYPE_AAAA = 28, RCODE_SERVFAIL = 2, RCODE_NXDOMAIN = 3 };

struct record {
    const char *name;
    const char *v4, *v6; /* NULL: no such record */
    uint32_t ttl;
    int rcode;
    bool silent, truncated;
    unsigned asked; /* questions for A */
    unsigned over_tcp;
};

struct dns {
    cb_loop *loop;
    int udp, tcp_conn;
    cb_watch *udp_watch, *tcp_watch;
    cb_tcp_listener *tcp;
    struct record *records;
    size_t n;
    char address[CB_ADDR_TEXT];
};

/* "1a 04test 00" to "a.test"; returns the offset behind type and class, 0 when it is no question. */
static size_t read_question(const uint8_t *q, size_t len, char name[128], unsigned *type) {
    size_t at = 12, n = 0;
    while (at < len && q[at]) {
        size_t label = q[at++];
        if (at + label >= len || n + label + 2 > 128) return 0;
        if (n) name[n++] = '.';
        memcpy(name + n, q + at, label);
        n += label;
        at += label;
    }
    name[n] = '\0';
    if (at + 5 > len) return 0;
    *type = (unsigned)q[at + 1] << 8 | q[at + 2];
    return at + 5;
}

/* The reply to q; 0 = none. */
static size_t reply(struct dns *d, const uint8_t *q, size_t len, uint8_t out[512], bool tcp) {
    char name[128];
    unsigned type = 0;
    size_t end = len > 12 ? read_question(q, len, name, &type) : 0;
    struct record *r = NULL;
    for (size_t i = 0; end && i < d->n; i++)
        if (strcasecmp(d->records[i].name, name) == 0) r = &d->records[i];
    if (!end) return 0;
    if (r && type == TYPE_A) r->asked++;
    if (r && tcp) r->over_tcp++;
    if (r && r->silent) return 0;
    memcpy(out, q, end);
    out[2] = (uint8_t)(0x84 | (q[2] & 1));
    out[3] = (uint8_t)(0x80 | (r ? r->rcode : RCODE_NXDOMAIN));
    memset(out + 4, 0, 8);
    out[5] = 1;
    if (r && r->truncated && !tcp) {
        out[2] |= 0x02;
        return end;
    }
    const char *text = !r || r->rcode ? NULL : type == TYPE_A ? r->v4 : type == TYPE_AAAA ? r->v6 : NULL;
    if (!text) return end;
    const size_t size = type == TYPE_A ? 4 : 16;
    const uint8_t head[] = {0xc0,
                            12,
                            0,
                            (uint8_t)type,
                            0,
                            1,
                            (uint8_t)(r->ttl >> 24),
                            (uint8_t)(r->ttl >> 16),
                            (uint8_t)(r->ttl >> 8),
                            (uint8_t)r->ttl,
                            0,
                            (uint8_t)size};
    memcpy(out + end, head, sizeof head);
    end += sizeof head;
    inet_pton(type == TYPE_A ? AF_INET : AF_INET6, text, out + end);
    out[7] = 1;
    return end + size;
}

static void on_udp(cb_watch *w, unsigned events, void *user) {
    (void)w;
    (void)events;
    struct dns *d = user;
    uint8_t q[512], out[512];
    struct sockaddr_in from;
    socklen_t from_len = sizeof from;
    ssize_t n = recvfrom(d->udp, q, sizeof q, MSG_DONTWAIT, (struct sockaddr *)&from, &from_len);
    size_t len = n > 0 ? reply(d, q, (size_t)n, out, false) : 0;
    if (len) sendto(d->udp, out, len, 0, (struct sockaddr *)&from, from_len);
}

static void on_tcp(cb_watch *w, unsigned events, void *user) {
    (void)w;
    (void)events;
    struct dns *d = user;
    uint8_t q[514], out[514];
    ssize_t n = recv(d->tcp_conn, q, sizeof q, MSG_DONTWAIT);
    if (n <= 2) {
        cb_watch_events(w, 0);
        return;
    }
    for (size_t at = 0; at + 2 < (size_t)n;) { /* questions may come together */
        size_t len = (size_t)(q[at] << 8 | q[at + 1]);
        size_t made = reply(d, q + at + 2, len, out + 2, true);
        out[0] = (uint8_t)(made >> 8);
        out[1] = (uint8_t)made;
        if (made) cr_assert_eq(send(d->tcp_conn, out, made + 2, 0), (ssize_t)(made + 2), "TCP answer");
        at += len + 2;
    }
}

static void on_accept(cb_tcp_listener *l, int fd, const cb_addr *remote, void *user) {
    (void)l;
    (void)remote;
    struct dns *d = user;
    d->tcp_conn = fd;
    cr_assert_eq(cb_watch_new(&d->tcp_watch, d->loop, fd, CB_READABLE, on_tcp, d), CB_OK, "watch");
}

static void dns_open(struct dns *d, cb_loop *loop, struct record *records, size_t n) {
    *d = (struct dns){.loop = loop, .records = records, .n = n, .tcp_conn = -1};
    cb_tcp_listener_opts opts = {.on_accept = on_accept, .user = d};
    cr_assert_eq(cb_addr_parse(&opts.bind, "127.0.0.1:0", 0), CB_OK, "address");
    for (int i = 0; i < 20; i++) { /* UDP on the port that TCP got */
        cr_assert_eq(cb_tcp_listen(&d->tcp, loop, &opts), CB_OK, "listen: %s", cb_last_error());
        const cb_addr *at = cb_tcp_listener_local(d->tcp);
        d->udp = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        cb_addr_text(at, d->address);
        if (bind(d->udp, &at->sa, cb_addr_len(at)) == 0) break;
        close(d->udp);
        cb_tcp_listener_free(d->tcp);
        d->udp = -1;
    }
    cr_assert_geq(d->udp, 0, "no port for both");
    cr_assert_eq(cb_watch_new(&d->udp_watch, loop, d->udp, CB_READABLE, on_udp, d), CB_OK, "watch");
}

static void dns_close(struct dns *d) {
    cb_watch_free(d->udp_watch);
    if (d->tcp_watch) cb_watch_free(d->tcp_watch);
    if (d->tcp_conn >= 0) close(d->tcp_conn);
    cb_tcp_listener_free(d->tcp);
    close(d->udp);
}

struct result {
    cb_loop *loop;
    int rc, calls, stop_at;
    char text[160]; /* "4:127.0.0.7 6:::7" */
    char detail[160];
    uint32_t ttl;
};

static void on_result(int rc, const cb_host_address *at, size_t n, void *user) {
    struct result *r = user;
    r->calls++;
    r->rc = rc;
    r->text[0] = '\0';
    snprintf(r->detail, sizeof r->detail, "%s", rc < 0 ? cb_last_error() : "");
    for (size_t i = 0; i < n; i++) {
        char one[INET6_ADDRSTRLEN];
        size_t used = strlen(r->text);
        inet_ntop(at[i].family == 4 ? AF_INET : AF_INET6, at[i].bytes, one, sizeof one);
        snprintf(r->text + used, sizeof r->text - used, "%s%u:%s", used ? " " : "", at[i].family, one);
        r->ttl = at[i].ttl_s;
    }
    if (r->calls >= r->stop_at) cb_loop_stop(r->loop);
}

static cb_resolver *resolver_on(cb_loop *loop, const char *servers) {
    cb_resolver *r = NULL;
    const cb_resolver_opts opts = {
        .size = sizeof opts, .servers = servers, .timeout_ms = 60, .tries = 1, .cache_entries = 8, .max_ttl_s = 600};
    cr_assert_eq(cb_resolver_new(&r, loop, &opts), CB_OK, "resolver: %s", cb_last_error());
    return r;
}

static void ask(struct result *out, cb_loop *loop, cb_resolver *r, const char *name, int family) {
    *out = (struct result){.loop = loop, .stop_at = 1};
    int rc = cb_resolver_lookup(NULL, r, name, family, on_result, out);
    if (rc < 0) {
        out->rc = rc;
        return;
    }
    cr_assert_eq(out->calls, 0, "%s: the answer came inside the call", name);
    cr_assert_eq(cb_loop_run(loop), CB_OK, "run");
    cr_assert_eq(out->calls, 1, "%s: %d answers", name, out->calls);
}

static cb_loop *counting(cb_metrics **m) {
    cb_loop *loop = NULL;
    cr_assert_eq(cb_metrics_new(m, NULL), CB_OK);
    cr_assert_eq(cb_loop_new(&loop, CB_OPTS(cb_loop_opts, .metrics = *m)), CB_OK, "loop");
    return loop;
}

Test(resolver, names_and_families) {
    struct record records[] = {{.name = "both.test", .v4 = "127.0.0.7", .v6 = "fd00::7", .ttl = 60},
                               {.name = "v4.test", .v4 = "127.0.0.4", .ttl = 60},
                               {.name = "long.test", .v4 = "127.0.0.5", .ttl = 100000},
                               {.name = "nx.test", .rcode = RCODE_NXDOMAIN},
                               {.name = "fail.test", .rcode = RCODE_SERVFAIL},
                               {.name = "silent.test", .silent = true},
                               {.name = "tc.test", .v4 = "127.0.0.9", .ttl = 60, .truncated = true}};
    static const struct {
        const char *name;
        int family, rc;
        const char *text;
        uint32_t ttl;
    } rows[] = {{"v4.test", CB_FAMILY_ANY, CB_OK, "4:127.0.0.4", 60},
                {"V4.Test", CB_FAMILY_V4, CB_OK, "4:127.0.0.4", 60},
                {"v4.test", CB_FAMILY_V6, CB_EDNS, "", 0},
                {"both.test", CB_FAMILY_V4, CB_OK, "4:127.0.0.7", 60},
                {"both.test", CB_FAMILY_V6, CB_OK, "6:fd00::7", 60},
                {"long.test", CB_FAMILY_V4, CB_OK, "4:127.0.0.5", 600},
                {"tc.test", CB_FAMILY_V4, CB_OK, "4:127.0.0.9", 60},
                {"nx.test", CB_FAMILY_ANY, CB_EDNS, "", 0},
                {"fail.test", CB_FAMILY_V4, CB_EDNS, "", 0},
                {"silent.test", CB_FAMILY_V4, CB_ETIMEOUT, "", 0},
                {"127.0.0.1", CB_FAMILY_ANY, CB_OK, "4:127.0.0.1", 600},
                {"::1", CB_FAMILY_ANY, CB_OK, "6:::1", 600},
                {"::1", CB_FAMILY_V4, CB_EDNS, "", 0},
                {"localhost", CB_FAMILY_ANY, CB_OK, "6:::1 4:127.0.0.1", 600},
                {"a.b.LOCALHOST", CB_FAMILY_V4, CB_OK, "4:127.0.0.1", 600},
                {"", CB_FAMILY_ANY, CB_EINVAL, "", 0},
                {"with space.test", CB_FAMILY_ANY, CB_EINVAL, "", 0},
                {"v4.test", 5, CB_EINVAL, "", 0}};
    cb_metrics *m = NULL;
    cb_loop *loop = counting(&m);
    struct dns dns;
    struct result got;
    dns_open(&dns, loop, records, sizeof records / sizeof *records);
    cb_resolver *r = resolver_on(loop, dns.address);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        ask(&got, loop, r, rows[i].name, rows[i].family);
        cr_expect_eq(got.rc, rows[i].rc, "row %zu %s: %d: %s", i, rows[i].name, got.rc, got.detail);
        cr_expect_str_eq(got.text, rows[i].text, "row %zu %s: %s", i, rows[i].name, got.text);
        if (got.rc == CB_OK) cr_expect_eq(got.ttl, rows[i].ttl, "row %zu %s: ttl %u", i, rows[i].name, got.ttl);
        if (got.rc < 0 && got.calls)
            cr_expect(strstr(got.detail, rows[i].name), "row %zu: the detail names it: %s", i, got.detail);
    }
    EXPECT_MOVED(m, 5, "cb_dns_lookups", "literal");
    EXPECT_MOVED(m, 10, "cb_dns_lookups", "question");
    EXPECT_MOVED(m, 6, "cb_dns_answers", "ok");
    EXPECT_MOVED(m, 2, "cb_dns_answers", "none");
    EXPECT_MOVED(m, 2, "cb_dns_answers", "trouble");
    EXPECT_MOVED(m, 10, "cb_dns_question_seconds");
    EXPECT_MOVED(m, 8, "cb_dns_cached_names");
    cr_expect_gt(records[6].over_tcp, 0, "a truncated answer is asked for again over TCP");
    cb_resolver_free(r);
    dns_close(&dns);
    cb_loop_free(loop);
    cb_metrics_unref(m);
}

Test(resolver, asks_once_and_remembers) {
    struct record records[] = {{.name = "v4.test", .v4 = "127.0.0.4", .ttl = 60},
                               {.name = "nx.test", .rcode = RCODE_NXDOMAIN}};
    cb_metrics *m = NULL;
    cb_loop *loop = counting(&m);
    struct dns dns;
    struct result got;
    dns_open(&dns, loop, records, 2);
    cb_resolver *r = resolver_on(loop, dns.address);
    got = (struct result){.loop = loop, .stop_at = 5};
    for (int i = 0; i < 5; i++)
        cr_assert_eq(cb_resolver_lookup(NULL, r, "v4.test", CB_FAMILY_V4, on_result, &got), CB_OK, "lookup");
    cb_loop_run(loop);
    cr_expect_eq(got.calls, 5, "%d of 5 were told", got.calls);
    EXPECT_MOVED(m, 1, "cb_dns_lookups", "question");
    EXPECT_MOVED(m, 4, "cb_dns_lookups", "joined");
    EXPECT_MOVED(m, 0, "cb_dns_waiting_lookups");
    cr_expect_eq(records[0].asked, 1, "5 lookups at one time asked %u times", records[0].asked);
    ask(&got, loop, r, "v4.test", CB_FAMILY_V4);
    cr_expect_eq(records[0].asked, 1, "the cache was not used");
    for (int i = 0; i < 3; i++)
        ask(&got, loop, r, "nx.test", CB_FAMILY_V4);
    cr_expect_eq(records[1].asked, 1, "a name that does not exist was asked %u times", records[1].asked);
    EXPECT_MOVED(m, 3, "cb_dns_lookups", "cache");
    cb_resolver_flush(r);
    EXPECT_MOVED(m, 0, "cb_dns_cached_names");
    ask(&got, loop, r, "v4.test", CB_FAMILY_V4);
    cr_expect_eq(records[0].asked, 2, "flush forgets");
    for (int i = 0; i < 20; i++) { /* the cache has 8 places */
        char name[32];
        snprintf(name, sizeof name, "n%d.test", i);
        ask(&got, loop, r, name, CB_FAMILY_V4);
    }
    ask(&got, loop, r, "v4.test", CB_FAMILY_V4);
    cr_expect_eq(records[0].asked, 3, "the oldest name leaves a full cache");
    EXPECT_MOVED(m, 8, "cb_dns_cached_names");
    EXPECT_MOVED(m, 14, "cb_dns_evicted_names");
    cb_resolver_free(r);
    dns_close(&dns);
    cb_loop_free(loop);
    cb_metrics_unref(m);
}

Test(resolver, cancel_and_free_under_way) {
    struct record records[] = {{.name = "silent.test", .silent = true}};
    cb_metrics *m = NULL;
    cb_loop *loop = counting(&m);
    struct dns dns;
    cb_lookup *l = NULL;
    struct result kept, cancelled;
    dns_open(&dns, loop, records, 1);
    cb_resolver *r = resolver_on(loop, dns.address);
    kept = cancelled = (struct result){.loop = loop, .stop_at = 1};
    cr_assert_eq(cb_resolver_lookup(&l, r, "silent.test", 0, on_result, &cancelled), CB_OK, "lookup");
    cr_assert_eq(cb_resolver_lookup(NULL, r, "silent.test", 0, on_result, &kept), CB_OK, "lookup");
    cb_lookup_cancel(l);
    cr_assert_eq(cb_resolver_lookup(&l, r, "127.0.0.1", 0, on_result, &cancelled), CB_OK, "lookup");
    EXPECT_MOVED(m, 2, "cb_dns_waiting_lookups");
    cb_lookup_cancel(l);
    EXPECT_MOVED(m, 1, "cb_dns_waiting_lookups");
    cb_loop_step(loop);
    cb_resolver_free(r);
    cr_expect_eq(kept.calls, 1, "each lookup is answered once");
    cr_expect_eq(kept.rc, CB_ECLOSED, "rc %d", kept.rc);
    cr_expect_eq(cancelled.calls, 0, "a cancelled lookup was answered");
    dns_close(&dns);
    cb_loop_free(loop);
    cb_metrics_unref(m);
}

Test(resolver, too_many_lookups) {
    struct record records[] = {{.name = "silent.test", .silent = true}};
    cb_metrics *m = NULL;
    cb_loop *loop = counting(&m);
    struct dns dns;
    struct result got = {.loop = loop, .stop_at = 9};
    cb_resolver *r = NULL;
    dns_open(&dns, loop, records, 1);
    cr_assert_eq(cb_resolver_new(&r, loop, CB_OPTS(cb_resolver_opts, .servers = dns.address, .max_lookups = 2)), CB_OK);
    for (int i = 0; i < 4; i++)
        cr_expect_eq(cb_resolver_lookup(NULL, r, "silent.test", 0, on_result, &got), i < 2 ? CB_OK : CB_ELIMIT);
    EXPECT_MOVED(m, 2, "cb_dns_rejected_lookups");
    cb_resolver_free(r);
    cr_expect_eq(got.calls, 2);
    dns_close(&dns);
    cb_loop_free(loop);
    cb_metrics_unref(m);
}

Test(resolver, refuses_bad_options) {
    static const char *const servers[] = {"", "nowhere", "127.0.0.1:99999", "127.0.0.1,,::1", "127.0.0.1:53,x"};
    cb_loop *loop = NULL;
    cb_resolver *r = NULL;
    cr_assert_eq(cb_loop_new(&loop, NULL), CB_OK, "loop");
    for (size_t i = 0; i < sizeof servers / sizeof *servers; i++) {
        const cb_resolver_opts opts = {.size = sizeof opts, .servers = servers[i]};
        cr_expect_eq(cb_resolver_new(&r, loop, &opts), CB_EINVAL, "servers \"%s\"", servers[i]);
    }
    const cb_resolver_opts ttl = {.size = sizeof ttl, .min_ttl_s = 10, .max_ttl_s = 5};
    cr_expect_eq(cb_resolver_new(&r, loop, &ttl), CB_EINVAL, "min above max");
    cb_loop_free(loop);
}
