#include "dns/ares_driver.h"
#include "base/addr.h"
#include "base/buf.h"
#include "base/error.h"
#include <ares.h>
#include <limits.h>
#include <netdb.h>
#include <string.h>

enum { MAX_ADDRESSES = 64, MAX_SERVERS_TEXT = 4096 };

struct ares_watch {
    struct ares_watch *next;
    cb_ares *owner;
    cb_watch *watch;
    int fd;
};

struct cb_ares {
    cb_loop *loop;
    const cb_alloc *alloc;
    ares_channel channel;
    struct ares_watch *watches;
    cb_alarm alarm;
};

struct question {
    cb_ares *owner;
    cb_ares_fn fn;
    void *user;
    char name[]; /* for the detail */
};

/* ---- sockets and time ---- */

static void rearm(cb_ares *a) {
    struct timeval tv;
    if (!ares_timeout(a->channel, NULL, &tv)) {
        cb_alarm_stop(&a->alarm);
        return;
    }
    cb_time in = (cb_time)tv.tv_sec * CB_SEC + (cb_time)tv.tv_usec * 1000;
    cb_alarm_set(&a->alarm, cb_loop_now(a->loop) + in + CB_MS); /* c-ares rounds down and would find nothing due */
}

static void on_alarm(cb_alarm *alarm, cb_time now) {
    (void)now;
    cb_ares *a = CB_CONTAINER(alarm, cb_ares, alarm);
    ares_process_fd(a->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    rearm(a);
}

static void on_events(cb_watch *w, unsigned events, void *user) {
    (void)w;
    struct ares_watch *aw = user;
    cb_ares *a = aw->owner;
    const ares_socket_t fd = aw->fd; /* aw may go in the call */
    ares_process_fd(a->channel, events & CB_READABLE ? fd : ARES_SOCKET_BAD,
                    events & CB_WRITABLE ? fd : ARES_SOCKET_BAD);
    rearm(a);
}

static void on_socket(void *user, ares_socket_t fd, int readable, int writable) {
    cb_ares *a = user;
    const unsigned events = (readable ? CB_READABLE : 0u) | (writable ? CB_WRITABLE : 0u);
    struct ares_watch **at = &a->watches;
    while (*at && (*at)->fd != fd)
        at = &(*at)->next;
    struct ares_watch *w = *at;
    if (!events) {
        if (!w) return;
        *at = w->next;
        cb_watch_free(w->watch);
        cb_mem_free(a->alloc, w);
        return;
    }
    if (w) {
        cb_watch_events(w->watch, events);
        return;
    }
    w = cb_mem_new(a->alloc, sizeof *w);
    if (!w) return; /* the question times out */
    w->owner = a;
    w->fd = fd;
    if (cb_watch_new(&w->watch, a->loop, fd, events, on_events, w) < 0) {
        cb_mem_free(a->alloc, w);
        return;
    }
    w->next = a->watches;
    a->watches = w;
}

/* ---- questions ---- */

static int failure(int status, const char *name, bool *lasting) {
    int rc;
    *lasting = status == ARES_ENOTFOUND || status == ARES_ENODATA;
    switch (status) {
    case ARES_ETIMEOUT:
        rc = CB_ETIMEOUT;
        break;
    case ARES_ENOMEM:
        rc = CB_ENOMEM;
        break;
    case ARES_EBADNAME:
    case ARES_ENONAME:
        rc = CB_EINVAL;
        break;
    case ARES_EDESTRUCTION:
    case ARES_ECANCELLED:
        return cb_fail(CB_ECLOSED, "%s: the resolver is closed", name);
    default:
        rc = CB_EDNS;
    }
    return cb_fail(rc, "%s: %s", name, ares_strerror(status));
}

static size_t collect(const struct ares_addrinfo *info, cb_host_address *at) {
    size_t n = 0;
    for (const struct ares_addrinfo_node *node = info->nodes; node && n < MAX_ADDRESSES; node = node->ai_next) {
        cb_host_address *h = &at[n];
        memset(h, 0, sizeof *h);
        if (node->ai_family == AF_INET) {
            const struct sockaddr_in *v4 = (const void *)node->ai_addr;
            h->family = CB_FAMILY_V4;
            memcpy(h->bytes, &v4->sin_addr, 4);
        } else if (node->ai_family == AF_INET6) {
            const struct sockaddr_in6 *v6 = (const void *)node->ai_addr;
            h->family = CB_FAMILY_V6;
            memcpy(h->bytes, &v6->sin6_addr, 16);
            h->scope = v6->sin6_scope_id;
        } else {
            continue;
        }
        h->ttl_s = node->ai_ttl > 0 ? (uint32_t)node->ai_ttl : 0;
        n++;
    }
    return n;
}

static void on_answer(void *user, int status, int timeouts, struct ares_addrinfo *info) {
    (void)timeouts;
    struct question *q = user;
    cb_host_address at[MAX_ADDRESSES];
    bool lasting = false;
    size_t n = status == ARES_SUCCESS && info ? collect(info, at) : 0;
    if (info) ares_freeaddrinfo(info);
    if (status == ARES_SUCCESS && n == 0) status = ARES_ENODATA;
    int rc = status == ARES_SUCCESS ? CB_OK : failure(status, q->name, &lasting);
    q->fn(rc, lasting, at, n, q->user);
    cb_mem_free(q->owner->alloc, q);
}

void cb_ares_ask(cb_ares *a, const char *name, int family, cb_ares_fn fn, void *user) {
    const size_t len = strlen(name) + 1;
    struct question *q = cb_mem_new(a->alloc, sizeof *q + len);
    if (!q) {
        fn(cb_fail(CB_ENOMEM, "%s: question", name), false, NULL, 0, user);
        return;
    }
    q->owner = a;
    q->fn = fn;
    q->user = user;
    memcpy(q->name, name, len);
    const struct ares_addrinfo_hints hints = {.ai_family = family == CB_FAMILY_V4   ? AF_INET
                                                           : family == CB_FAMILY_V6 ? AF_INET6
                                                                                    : AF_UNSPEC};
    ares_getaddrinfo(a->channel, q->name, NULL, &hints, on_answer, q);
    rearm(a);
}

/* ---- life ---- */

static int set_servers(cb_ares *a, const char *servers) {
    char one[CB_ADDR_TEXT], text[CB_ADDR_TEXT];
    cb_buf csv;
    int rc = CB_OK;
    cb_buf_init(&csv, a->alloc, MAX_SERVERS_TEXT);
    for (const char *at = servers; *at && rc == CB_OK;) {
        size_t len = strcspn(at, ",");
        cb_addr addr;
        if (len == 0 || len >= sizeof one) {
            rc = cb_fail(CB_EINVAL, "resolver servers \"%s\": not a list of addresses", servers);
            break;
        }
        memcpy(one, at, len);
        one[len] = '\0';
        rc = cb_addr_parse(&addr, one + strspn(one, " "), 53);
        if (rc == CB_OK) rc = cb_buf_printf(&csv, "%s%s", csv.len ? "," : "", cb_addr_text(&addr, text));
        at += len + (at[len] == ',');
    }
    if (rc == CB_OK && csv.len == 0) rc = cb_fail(CB_EINVAL, "resolver servers: the list is empty");
    if (rc == CB_OK) rc = cb_buf_add(&csv, "", 1);
    if (rc == CB_OK && ares_set_servers_ports_csv(a->channel, (const char *)csv.base) != ARES_SUCCESS)
        rc = cb_fail(CB_EINVAL, "resolver servers \"%s\": c-ares refuses them", servers);
    cb_buf_free(&csv);
    return rc;
}

int cb_ares_new(cb_ares **out, cb_loop *loop, const cb_resolver_opts *opts) {
    const cb_alloc *alloc = cb_loop_alloc(loop);
    cb_ares *a = cb_mem_new(alloc, sizeof *a);
    if (!a) return cb_fail(CB_ENOMEM, "resolver");
    a->loop = loop;
    a->alloc = alloc;
    cb_alarm_init(&a->alarm, loop, on_alarm);
    /* On systems with POSIX sockets c-ares needs no ares_library_init(), which would be process-wide state. */
    struct ares_options o = {.timeout = opts->timeout_ms > INT_MAX ? INT_MAX : (int)opts->timeout_ms,
                             .tries = opts->tries > 10 ? 10 : (int)opts->tries,
                             .sock_state_cb = on_socket,
                             .sock_state_cb_data = a};
    int mask = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB;
    if (opts->servers) mask |= ARES_OPT_DOMAINS; /* servers of one's own: no search list of the system either */
#ifdef ARES_OPT_QUERY_CACHE
    mask |= ARES_OPT_QUERY_CACHE; /* from 1.31 on c-ares caches too: off (a TTL of 0), one cache is enough */
#endif
    int status = ares_init_options(&a->channel, &o, mask);
    if (status != ARES_SUCCESS) {
        cb_mem_free(alloc, a);
        return cb_fail(status == ARES_ENOMEM ? CB_ENOMEM : CB_ESYS, "resolver: %s", ares_strerror(status));
    }
    int rc = opts->servers ? set_servers(a, opts->servers) : CB_OK;
    if (rc < 0) {
        cb_ares_free(a);
        return rc;
    }
    *out = a;
    return CB_OK;
}

void cb_ares_free(cb_ares *a) {
    if (!a) return;
    ares_destroy(a->channel);
    while (a->watches) { /* c-ares has closed their sockets by now, and has told so: this is for builds that do not */
        struct ares_watch *w = a->watches;
        a->watches = w->next;
        cb_watch_free(w->watch);
        cb_mem_free(a->alloc, w);
    }
    cb_alarm_stop(&a->alarm);
    cb_mem_free(a->alloc, a);
}
