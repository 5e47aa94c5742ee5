#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "transport/group_int.h"
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WORKERS_MAX = 256, SECRET = 32, SERVER_ID_DEFAULT = 8, SERVER_ID_MAX = 12 };

struct cb_group {
    atomic_uint refs;
    uint32_t workers;
    cb_group_keys keys;
    cb_steering_hook steering;
    pthread_mutex_t lock;
    cb_list members;
};

/* --- secrets --- */

static int draw(void *out, size_t len) {
    int rc = gnutls_rnd(GNUTLS_RND_KEY, out, len);
    return rc < 0 ? cb_fail(CB_ESYS, "no random bytes: %s", gnutls_strerror(rc)) : CB_OK;
}

static int read_secret(int fd, const char *path, uint8_t out[SECRET]) {
    struct stat st;
    uint8_t extra;
    if (fstat(fd, &st) < 0) return cb_fail_errno(errno, "secret_file \"%s\"", path);
    if (st.st_mode & 077) {
        return cb_fail(CB_EINVAL, "secret_file \"%s\" is open to others (mode %03o): chmod 600", path,
                       (unsigned)(st.st_mode & 0777));
    }
    if (read(fd, out, SECRET) != SECRET || read(fd, &extra, 1) != 0) {
        return cb_fail(CB_EINVAL, "secret_file \"%s\": not exactly %d bytes", path, SECRET);
    }
    return CB_OK;
}

/* Written beside and linked into place, so that a process that starts at the same time never sees half of it. */
static int make_secret(const char *path, uint8_t out[SECRET]) {
    char temp[4096];
    int n = snprintf(temp, sizeof temp, "%s.%ld", path, (long)getpid());
    if (n < 0 || (size_t)n >= sizeof temp) return cb_fail(CB_EINVAL, "secret_file: the path is too long");
    int rc = draw(out, SECRET);
    if (rc < 0) return rc;
    int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return cb_fail_errno(errno, "making secret_file \"%s\"", path);
    if (write(fd, out, SECRET) != SECRET || fsync(fd) < 0)
        rc = cb_fail_errno(errno, "writing secret_file \"%s\"", path);
    close(fd);
    if (rc == CB_OK && link(temp, path) < 0) rc = cb_fail_errno(errno, "making secret_file \"%s\"", path);
    unlink(temp);
    return rc;
}

static int load_secret(const char *path, uint8_t out[SECRET]) {
    if (!path) return draw(out, SECRET);
    for (int tries = 0;; tries++) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
            int rc = read_secret(fd, path, out);
            close(fd);
            return rc;
        }
        if (errno != ENOENT || tries) return cb_fail_errno(errno, "reading secret_file \"%s\"", path);
        int rc = make_secret(path, out);
        if (rc != CB_EEXIST) return rc; /* another process was quicker: take its */
    }
}

static int derive(const uint8_t secret[SECRET], const char *label, void *out, size_t len) {
    uint8_t prk[32];
    gnutls_datum_t key = {(unsigned char *)(uintptr_t)secret, SECRET}, prk_datum = {prk, sizeof prk};
    gnutls_datum_t salt = {NULL, 0}, info = {(unsigned char *)(uintptr_t)label, (unsigned)strlen(label)};
    int rc = gnutls_hkdf_extract(GNUTLS_MAC_SHA256, &key, &salt, prk);
    if (rc >= 0) rc = gnutls_hkdf_expand(GNUTLS_MAC_SHA256, &prk_datum, &info, out, len);
    cb_mem_wipe(prk, sizeof prk);
    return rc < 0 ? cb_fail(CB_ETLS, "deriving keys: %s", gnutls_strerror(rc)) : CB_OK;
}

static int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static int read_server_id(const char *hex, uint8_t out[CB_QUIC_LB_SERVER_ID_MAX], uint32_t *len) {
    if (!hex) {
        *len = SERVER_ID_DEFAULT;
        return draw(out, SERVER_ID_DEFAULT);
    }
    size_t digits = strlen(hex);
    if (digits == 0 || digits % 2 || digits / 2 > SERVER_ID_MAX) {
        return cb_fail(CB_EINVAL, "server_id \"%s\": 1 to %d bytes in hex", hex, SERVER_ID_MAX);
    }
    for (size_t i = 0; i < digits / 2; i++) {
        int high = hex_value(hex[2 * i]), low = hex_value(hex[2 * i + 1]);
        if (high < 0 || low < 0) return cb_fail(CB_EINVAL, "server_id \"%s\": not hex", hex);
        out[i] = (uint8_t)(high << 4 | low);
    }
    *len = (uint32_t)(digits / 2);
    return CB_OK;
}

static int make_keys(cb_group_keys *k, const cb_group_opts *o) {
    uint8_t secret[SECRET], mask_key[16], server_id[CB_QUIC_LB_SERVER_ID_MAX];
    cb_quic_lb_opts lb = {
        .size = sizeof lb, .server_id = server_id, .mask_key = mask_key, .rotation = o->server_id_config};
    int rc = load_secret(o->secret_file, secret);
    if (rc >= 0) rc = derive(secret, "libcb quic token", k->token, sizeof k->token);
    if (rc >= 0) rc = derive(secret, "libcb quic reset", k->reset, sizeof k->reset);
    if (rc >= 0) rc = derive(secret, "libcb quic cid mask", mask_key, sizeof mask_key);
    if (rc >= 0) rc = read_server_id(o->server_id, server_id, &lb.server_id_bytes);
    if (rc >= 0) rc = cb_quic_lb_init(&k->cid, &lb);
    k->generation = (uint8_t)o->generation;
    cb_mem_wipe(secret, sizeof secret);
    cb_mem_wipe(mask_key, sizeof mask_key);
    return rc;
}

/* --- life --- */

static int check(const cb_group_opts *o) {
    if (o->workers > WORKERS_MAX) return cb_fail(CB_EINVAL, "workers %u: at most %d", o->workers, WORKERS_MAX);
    if (o->generation > 255) return cb_fail(CB_EINVAL, "generation %u: at most 255", o->generation);
    if (o->server_id_config > 6) return cb_fail(CB_EINVAL, "server_id_config %u: at most 6", o->server_id_config);
    if (o->steering && (o->steering->size < sizeof(size_t) + sizeof(void *) || !o->steering->add)) {
        return cb_fail(CB_EINVAL, "steering: a hook without `add`");
    }
    return CB_OK;
}

int cb_group_new(cb_group **out, const cb_group_opts *opts) {
    if (!out) return cb_fail(CB_EINVAL, "cb_group_new: out is NULL");
    cb_group_opts o;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_group_opts");
    if (rc >= 0) rc = check(&o);
    if (rc < 0) return rc;
    cb_group *g = cb_mem_new(&cb_alloc_libc, sizeof *g);
    if (!g) return cb_fail(CB_ENOMEM, "no memory for a group");
    atomic_init(&g->refs, 1);
    g->workers = o.workers ? o.workers : 1;
    if (o.steering) rc = cb_opts_read(&g->steering, sizeof g->steering, o.steering, "cb_steering_hook");
    if (rc >= 0) rc = make_keys(&g->keys, &o);
    if (rc < 0) {
        cb_mem_free(&cb_alloc_libc, g);
        return rc;
    }
    pthread_mutex_init(&g->lock, NULL);
    cb_list_init(&g->members);
    *out = g;
    return CB_OK;
}

cb_group *cb_group_ref(cb_group *g) {
    atomic_fetch_add(&g->refs, 1);
    return g;
}

void cb_group_unref(cb_group *g) {
    if (!g || atomic_fetch_sub(&g->refs, 1) != 1) return;
    pthread_mutex_destroy(&g->lock);
    cb_mem_wipe(&g->keys, sizeof g->keys);
    cb_mem_free(&cb_alloc_libc, g);
}

const cb_group_keys *cb_group_keys_of(const cb_group *g) {
    return &g->keys;
}

uint32_t cb_group_workers(const cb_group *g) {
    return g->workers;
}

/* --- handing over --- */

static cb_inbox *find(cb_group *g, uint32_t worker, uint16_t port) {
    for (cb_list *l = g->members.next; l != &g->members; l = l->next) {
        cb_inbox *box = CB_CONTAINER(l, cb_inbox, member);
        if (box->worker == worker && box->port == port) return box;
    }
    return NULL;
}

int cb_group_join(cb_group *g, cb_inbox *box, uint32_t worker, uint16_t port, int udp_fd, bool *steered) {
    int rc = CB_OK;
    *steered = false;
    cb_list_init(&box->member);
    cb_list_init(&box->strays);
    box->count = 0;
    box->worker = worker;
    box->port = port;
    if (worker >= g->workers) {
        return cb_fail(CB_EINVAL, "worker %u: the group has %u, counted from 0", worker, g->workers);
    }
    box->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (box->wake < 0) return cb_fail_errno(errno, "eventfd");
    pthread_mutex_lock(&g->lock);
    if (find(g, worker, port))
        rc = CB_EEXIST;
    else
        cb_list_add_tail(&g->members, &box->member);
    if (rc == CB_OK && g->steering.add) {
        *steered = g->steering.add(worker, g->keys.generation, udp_fd, g->keys.cid.mask_key, g->steering.user) >= 0;
    }
    pthread_mutex_unlock(&g->lock);
    if (rc == CB_OK) return CB_OK;
    close(box->wake);
    return cb_fail(rc, "worker %u has port %u already", worker, port);
}

static void drop_all(cb_list *strays) {
    while (!cb_list_empty(strays)) {
        cb_stray *s = CB_CONTAINER(strays->next, cb_stray, link);
        cb_list_del(&s->link);
        cb_stray_free(s);
    }
}

void cb_group_leave(cb_group *g, cb_inbox *box) {
    pthread_mutex_lock(&g->lock);
    cb_list_del(&box->member);
    pthread_mutex_unlock(&g->lock);
    drop_all(&box->strays);
    close(box->wake);
}

int cb_group_hand_over(cb_group *g, uint32_t worker, uint16_t port, const cb_datagram *d) {
    cb_stray *s = cb_mem_get(&cb_alloc_libc, sizeof *s + d->len);
    if (!s) return CB_ENOMEM;
    s->d = *d;
    s->d.data = (uint8_t *)(s + 1);
    memcpy(s->d.data, d->data, d->len);
    int rc = CB_OK;
    pthread_mutex_lock(&g->lock);
    cb_inbox *box = find(g, worker, port);
    if (!box)
        rc = CB_ENOENT;
    else if (box->count >= CB_INBOX_MAX)
        rc = CB_ELIMIT;
    else {
        cb_list_add_tail(&box->strays, &s->link);
        if (box->count++ == 0) {
            ssize_t n = write(box->wake, &(uint64_t){1}, sizeof(uint64_t));
            (void)n; /* it cannot overflow: once until it is read */
        }
    }
    pthread_mutex_unlock(&g->lock);
    if (rc < 0) cb_stray_free(s);
    return rc;
}

void cb_group_take(cb_group *g, cb_inbox *box, cb_list *out) {
    uint64_t value;
    pthread_mutex_lock(&g->lock);
    ssize_t n = read(box->wake, &value, sizeof value);
    (void)n;
    while (!cb_list_empty(&box->strays)) {
        cb_list *l = box->strays.next;
        cb_list_del(l);
        cb_list_add_tail(out, l);
    }
    box->count = 0;
    pthread_mutex_unlock(&g->lock);
}

void cb_stray_free(cb_stray *s) {
    cb_mem_free(&cb_alloc_libc, s);
}
