#include "transport/tls_alpn01.h"
#include "base/error.h"
#include "base/mem.h"
#include "transport/client_hello.h"
#include "transport/tls_cert.h"
#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { NAMES_MAX = 1024 };

static const cb_alloc *const heap = &cb_alloc_libc;

struct cb_alpn01_cert {
    atomic_uint refs;
    cb_tls_cert cert;
    char name[CB_SNI_MAX];
};

struct cb_alpn01 {
    atomic_uint refs;
    pthread_mutex_t lock;
    cb_alpn01_cert **certs;
    size_t len;
};

int cb_alpn01_new(cb_alpn01 **out) {
    if (!out) return cb_fail(CB_EINVAL, "cb_alpn01_new: out is NULL");
    cb_alpn01 *a = cb_mem_new(heap, sizeof *a);
    if (!a) return cb_fail(CB_ENOMEM, "no memory for answers to tls-alpn-01");
    atomic_init(&a->refs, 1);
    pthread_mutex_init(&a->lock, NULL);
    *out = a;
    return CB_OK;
}

cb_alpn01 *cb_alpn01_ref(cb_alpn01 *a) {
    atomic_fetch_add_explicit(&a->refs, 1, memory_order_relaxed);
    return a;
}

void cb_alpn01_unref(cb_alpn01 *a) {
    if (!a || atomic_fetch_sub_explicit(&a->refs, 1, memory_order_acq_rel) > 1) return;
    for (size_t i = 0; i < a->len; i++)
        cb_alpn01_cert_unref(a->certs[i]);
    cb_mem_free(heap, a->certs);
    pthread_mutex_destroy(&a->lock);
    cb_mem_free(heap, a);
}

void cb_alpn01_cert_unref(cb_alpn01_cert *cert) {
    if (!cert || atomic_fetch_sub_explicit(&cert->refs, 1, memory_order_acq_rel) > 1) return;
    cb_tls_cert_clear(&cert->cert);
    cb_mem_free(heap, cert);
}

const cb_tls_cert *cb_alpn01_cert_of(const cb_alpn01_cert *cert) {
    return &cert->cert;
}

int cb_alpn01_server_name(char *out, size_t cap, const char *name) {
    uint8_t ip[16];
    size_t n = 0;
    if (inet_pton(AF_INET, name, ip) == 1) {
        snprintf(out, cap, "%u.%u.%u.%u.in-addr.arpa", ip[3], ip[2], ip[1], ip[0]);
        return CB_OK;
    }
    if (inet_pton(AF_INET6, name, ip) == 1) {
        for (size_t i = 16; i-- > 0 && n < cap;)
            n += (size_t)snprintf(out + n, cap - n, "%x.%x.", ip[i] & 15u, ip[i] >> 4u);
        if (n < cap) snprintf(out + n, cap - n, "ip6.arpa");
        return CB_OK;
    }
    if (!*name || strlen(name) >= cap) return cb_fail(CB_EINVAL, "\"%.80s\" is no name to validate", name);
    for (; name[n]; n++)
        out[n] = name[n] >= 'A' && name[n] <= 'Z' ? (char)(name[n] - 'A' + 'a') : name[n];
    out[n] = '\0';
    return CB_OK;
}

/* Called with the lock. a->len: there is none. */
static size_t find(const cb_alpn01 *a, const char *name) {
    size_t i = 0;
    while (i < a->len && strcmp(a->certs[i]->name, name) != 0)
        i++;
    return i;
}

cb_alpn01_cert *cb_alpn01_find(cb_alpn01 *a, const char *name) {
    pthread_mutex_lock(&a->lock);
    const size_t i = find(a, name);
    cb_alpn01_cert *found = i < a->len ? a->certs[i] : NULL;
    if (found) atomic_fetch_add_explicit(&found->refs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&a->lock);
    return found;
}

static int read_cert(cb_alpn01_cert **out, const char *pem) {
    cb_alpn01_cert *c = cb_mem_new(heap, sizeof *c);
    if (!c) return cb_fail(CB_ENOMEM, "no memory for an answer to tls-alpn-01");
    atomic_init(&c->refs, 1);
    int rc = cb_tls_cert_load(&c->cert, CB_OPTS(cb_identity_opts, .pem = pem), NULL, NULL);
    if (rc < 0) {
        cb_mem_free(heap, c);
        return rc;
    }
    *out = c;
    return CB_OK;
}

/* Called with the lock. fresh may be NULL. *old is to be let go. */
static int put(cb_alpn01 *a, size_t i, cb_alpn01_cert *fresh, cb_alpn01_cert **old) {
    if (i < a->len) {
        *old = a->certs[i];
        a->certs[i] = fresh ? fresh : a->certs[--a->len];
        return CB_OK;
    }
    if (!fresh) return CB_OK;
    if (a->len == NAMES_MAX) return cb_fail(CB_ELIMIT, "more than %d names are being validated", NAMES_MAX);
    cb_alpn01_cert **grown = cb_mem_grow(heap, a->certs, (a->len + 1) * sizeof *grown);
    if (!grown) return cb_fail(CB_ENOMEM, "no memory for an answer to tls-alpn-01");
    a->certs = grown;
    a->certs[a->len++] = fresh;
    return CB_OK;
}

int cb_alpn01_set(cb_alpn01 *a, const char *name, const char *pem) {
    char server_name[CB_SNI_MAX];
    cb_alpn01_cert *fresh = NULL, *old = NULL;
    if (!a || !name) return cb_fail(CB_EINVAL, "cb_alpn01_set: a or name is NULL");
    int rc = cb_alpn01_server_name(server_name, sizeof server_name, name);
    if (rc >= 0 && pem) rc = read_cert(&fresh, pem);
    if (rc < 0) return rc;
    if (fresh) memcpy(fresh->name, server_name, sizeof fresh->name);
    pthread_mutex_lock(&a->lock);
    rc = put(a, find(a, server_name), fresh, &old);
    pthread_mutex_unlock(&a->lock);
    if (rc < 0) old = fresh;
    cb_alpn01_cert_unref(old);
    return rc;
}
