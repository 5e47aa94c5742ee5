/* Origins: what makes two connections interchangeable. */
#include "base/error.h"
#include "http/pool_int.h"
#include <stdio.h>
#include <string.h>

/* ---- life ---- */

static void origin_bury(cb_grave *g) {
    cb_origin *o = CB_CONTAINER(g, cb_origin, grave);
    const cb_alloc *alloc = o->pool->alloc;
    cb_identity_unref(o->t.identity);
    cb_dest_unpin(o->dest);
    cb_mem_free(alloc, o->host);
    cb_mem_free(alloc, o->sni);
    cb_mem_free(alloc, o->name);
    cb_mem_free(alloc, o->key);
    cb_mem_free(alloc, o);
}

void cb_origin_forget(cb_origin *o) {
    if (cb_map_get(&o->pool->origins, o->key, o->key_len) == o) cb_map_del(&o->pool->origins, o->key, o->key_len);
}

void cb_origin_hold(cb_origin *o) {
    o->refs++;
}

void cb_origin_unref(cb_origin *o) {
    if (!o || --o->refs) return;
    cb_pool *p = o->pool;
    cb_origin_forget(o);
    cb_cells_move(cb_loop_cells(p->loop), CB_C_POOL_ORIGINS, -1);
    cb_list_del(&o->link);
    cb_defer_cancel(&o->dispatch);
    cb_alarm_stop(&o->queue_alarm);
    cb_quic_endpoint_free(o->quic[0]);
    cb_quic_endpoint_free(o->quic[1]);
    cb_loop_bury(p->loop, &o->grave, origin_bury);
    cb_pool_unref(p); /* buried after the origin */
}

const char *cb_origin_name(const cb_origin *o) {
    return o->name;
}

void cb_origin_stats_get(const cb_origin *o, cb_origin_stats *out) {
    *out = o->stats;
    out->connecting = (uint32_t)o->n_openings;
}

/* ---- finding and making ---- */

static int target_check(const cb_pool_target *t) {
    if (!t->host || !*t->host) return cb_fail(CB_EINVAL, "host: missing");
    if (strlen(t->host) > 254) return cb_fail(CB_EINVAL, "host: longer than 254 bytes");
    const char *path = cb_unix_path(t->host);
    struct sockaddr_un un;
    if (path && cb_unix_addr(&un, path) < 0) return CB_EINVAL;
    if (path && (t->versions == CB_HTTP_3 || t->alt_svc))
        return cb_fail(CB_EINVAL, "%s: there is no HTTP/3 on unix sockets", t->host);
    if (t->port == 0 && !path) return cb_fail(CB_EINVAL, "port: missing");
    if (t->send_proxy > 2)
        return cb_fail(CB_EINVAL, "send_proxy: %u is no version of the PROXY protocol", t->send_proxy);
    if (t->versions & ~(uint32_t)(CB_HTTP_1 | CB_HTTP_2 | CB_HTTP_3))
        return cb_fail(CB_EINVAL, "versions: 0x%x has unknown bits", t->versions);
    if (!t->tls && t->versions & CB_HTTP_3) return cb_fail(CB_EINVAL, "versions: HTTP/3 needs TLS");
    if (t->versions & CB_HTTP_3 && t->send_proxy && t->versions == CB_HTTP_3)
        return cb_fail(CB_EINVAL, "send_proxy: there is no PROXY header on QUIC");
    return CB_OK;
}

static uint32_t versions_of(const cb_pool_target *t) {
    uint32_t v = t->versions ? t->versions : t->tls ? CB_HTTP_1 | CB_HTTP_2 : CB_HTTP_1;
    if (!t->tls && v == (CB_HTTP_1 | CB_HTTP_2)) v = CB_HTTP_1; /* nothing would choose between them */
    if (t->send_proxy || cb_unix_path(t->host)) v &= ~(uint32_t)CB_HTTP_3;
    return v;
}

static void put_addr(cb_buf *b, const cb_addr *a) {
    char text[CB_ADDR_TEXT];
    if (a) cb_buf_text(b, cb_addr_text(a, text));
}

/* Everything that makes two connections interchangeable, in one text. */
static int make_key(cb_buf *key, const cb_pool_target *t) {
    const char *sni = t->server_name ? t->server_name : t->host;
    int rc =
        cb_buf_printf(key, "%s|%u|%d%d%d%d|%u|%u|%x|%s|%p|", t->host, t->port, t->tls, t->tls12, t->early_data,
                      t->alt_svc, t->verify, t->send_proxy, versions_of(t), t->tls ? sni : "", (void *)t->identity);
    if (rc < 0 || !t->send_proxy) return rc;
    put_addr(key, t->proxy_src);
    rc = cb_buf_text(key, "|");
    put_addr(key, t->proxy_dst);
    return rc;
}

/* What is remembered: of the origin (RFC 6454) behind the address that is dialled, for everybody who asks it. */
static cb_dest *dest_of(const cb_origin *o) {
    char key[640];
    int n = snprintf(key, sizeof key, "%s|%s", o->name, o->sni);
    return n > 0 && (size_t)n < sizeof key ? cb_dest_get(&o->pool->dests, key, (size_t)n) : NULL;
}

static int origin_fill(cb_origin *o, const cb_pool_target *t, const cb_buf *key) {
    const cb_alloc *alloc = o->pool->alloc;
    char name[320];
    const bool v6 = strchr(t->host, ':') != NULL;
    if (cb_unix_path(t->host))
        snprintf(name, sizeof name, "%s+%s", t->tls ? "https" : "http", t->host);
    else
        snprintf(name, sizeof name, "%s://%s%s%s:%u", t->tls ? "https" : "http", v6 ? "[" : "", t->host, v6 ? "]" : "",
                 t->port);
    o->t = *t;
    o->t.identity = t->identity ? cb_identity_ref(t->identity) : NULL;
    o->t.versions = versions_of(t);
    o->host = cb_mem_text(alloc, t->host);
    o->sni = cb_mem_text(alloc, t->server_name ? t->server_name : t->host);
    o->name = cb_mem_text(alloc, name);
    o->key = cb_mem_get(alloc, key->len);
    if (!o->host || !o->sni || !o->name || !o->key) return cb_fail(CB_ENOMEM, "origin %s", name);
    memcpy(o->key, key->base, key->len);
    o->key_len = key->len;
    o->t.host = o->host;
    o->t.server_name = o->sni;
    o->dest = dest_of(o);
    if (t->proxy_src) o->proxy_src = *t->proxy_src;
    if (t->proxy_dst) o->proxy_dst = *t->proxy_dst;
    o->t.proxy_src = t->proxy_src ? &o->proxy_src : NULL;
    o->t.proxy_dst = t->proxy_dst ? &o->proxy_dst : NULL;
    return cb_map_put(&o->pool->origins, o->key, o->key_len, o);
}

static int origin_new(cb_origin **out, cb_pool *p, const cb_pool_target *t, const cb_buf *key) {
    cb_origin *o = cb_mem_new(p->alloc, sizeof *o);
    if (!o) return cb_fail(CB_ENOMEM, "origin %s", t->host);
    o->pool = p;
    o->refs = 1;
    cb_list_init(&o->conns);
    cb_list_init(&o->avail);
    cb_list_init(&o->openings);
    cb_list_init(&o->queue);
    cb_list_init(&o->link);
    cb_list_add_tail(&p->list, &o->link);
    cb_cells_move(cb_loop_cells(p->loop), CB_C_POOL_ORIGINS, 1);
    p->refs++;
    cb_origin_begin(o);
    int rc = origin_fill(o, t, key);
    if (rc < 0)
        cb_origin_unref(o);
    else
        *out = o;
    return rc;
}

int cb_origin_get(cb_origin **out, cb_pool *p, const cb_pool_target *t) {
    cb_buf key;
    if (p->freed) return cb_fail(CB_ECLOSED, "the pool is closed");
    int rc = target_check(t);
    if (rc < 0) return rc;
    cb_buf_init(&key, p->alloc, 1024);
    rc = make_key(&key, t);
    cb_origin *o = rc == CB_OK ? cb_map_get(&p->origins, key.base, key.len) : NULL;
    if (o) {
        cb_origin_hold(o);
        *out = o;
    } else if (rc == CB_OK) {
        rc = origin_new(out, p, t, &key);
    }
    cb_buf_free(&key);
    return rc;
}
