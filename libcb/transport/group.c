#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "transport/group_int.h"
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WORKERS_MAX = 256, SECRET = 32, SERVER_ID_DEFAULT = 8, SERVER_ID_MAX = 12 };

/* --- secrets --- */

static int draw(void *out, size_t len) {
    int rc = gnutls_rnd(GNUTLS_RND_KEY, out, len);
    return rc < 0 ? cb_fail(CB_ESYS, "no random bytes: %s", gnutls_strerror(rc)) : CB_OK;
}

static int read_secret(int fd, const char *field, const char *path, uint8_t *out, size_t len) {
    struct stat st;
    uint8_t extra;
    if (fstat(fd, &st) < 0) return cb_fail_errno(errno, "%s \"%s\"", field, path);
    if (st.st_mode & 077) {
        return cb_fail(CB_EINVAL, "%s \"%s\" is open to others (mode %03o): chmod 600", field, path,
                       (unsigned)(st.st_mode & 0777));
    }
    if (read(fd, out, len) != (ssize_t)len || read(fd, &extra, 1) != 0) {
        return cb_fail(CB_EINVAL, "%s \"%s\": not exactly %zu bytes", field, path, len);
    }
    return CB_OK;
}

/* Written beside and linked into place, so that a process that starts at the same time never sees half of it. */
static int make_secret(const char *path, uint8_t out[SECRET]) {
    char temp[4096];
    uint64_t tag; /* not the number of the process: in containers all have one, and an earlier one may have died here */
    int rc = draw(&tag, sizeof tag);
    if (rc == CB_OK) rc = draw(out, SECRET);
    if (rc < 0) return rc;
    int n = snprintf(temp, sizeof temp, "%s.%016llx", path, (unsigned long long)tag);
    if (n < 0 || (size_t)n >= sizeof temp) return cb_fail(CB_EINVAL, "secret_file: the path is too long");
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
            int rc = read_secret(fd, "secret_file", path, out, SECRET);
            close(fd);
            return rc;
        }
        if (errno != ENOENT || tries) return cb_fail_errno(errno, "reading secret_file \"%s\"", path);
        int rc = make_secret(path, out);
        if (rc != CB_EEXIST) return rc; /* another process was quicker: take its */
    }
}

/* Never made here: one that no balancer has would only hide servers from them. */
static int load_cid_key(const char *path, uint8_t out[CB_QUIC_LB_KEY]) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return cb_fail_errno(errno, "reading cid_key_file \"%s\"", path);
    int rc = read_secret(fd, "cid_key_file", path, out, CB_QUIC_LB_KEY);
    close(fd);
    return rc;
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
    uint8_t secret[SECRET], mask_key[16], cid_key[CB_QUIC_LB_KEY], server_id[CB_QUIC_LB_SERVER_ID_MAX];
    cb_quic_lb_opts lb = {
        .size = sizeof lb, .server_id = server_id, .mask_key = mask_key, .rotation = o->server_id_config};
    int rc = load_secret(o->secret_file, secret);
    if (rc >= 0) rc = derive(secret, "libcb quic token", k->token, sizeof k->token);
    if (rc >= 0) rc = derive(secret, "libcb quic reset", k->reset, sizeof k->reset);
    if (rc >= 0) rc = derive(secret, "libcb quic cid mask", mask_key, sizeof mask_key);
    if (rc >= 0) rc = read_server_id(o->server_id, server_id, &lb.server_id_bytes);
    if (rc >= 0 && o->cid_key_file) {
        rc = load_cid_key(o->cid_key_file, cid_key);
        lb.codec = CB_QUIC_LB_AES_ONE;
        lb.key = cid_key;
    }
    if (rc >= 0) rc = cb_quic_lb_init(&k->cid, &lb);
    k->generation = (uint8_t)o->generation;
    cb_mem_wipe(secret, sizeof secret);
    cb_mem_wipe(mask_key, sizeof mask_key);
    cb_mem_wipe(cid_key, sizeof cid_key);
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
    if (o->predecessor && o->handoff) return cb_fail(CB_EINVAL, "predecessor and handoff: only one of them");
    if (o->handoff && !o->handoff_name) return cb_fail(CB_EINVAL, "handoff_name: a handoff needs one");
    return CB_OK;
}

static int succeed(cb_group *g, const cb_group *before) {
    g->family = cb_family_ref(before->family);
    g->keys = before->keys;
    g->keys.generation++;
    if (!g->steering.add) g->steering = before->steering;
    if (!g->dcids.size) g->dcids = before->dcids;
    int rc = cb_family_room(g->family, g->keys.generation);
    if (rc == CB_OK) atomic_store(&g->family->linked, true);
    return rc;
}

static int fill(cb_group *g, const cb_group_opts *o) {
    if (o->predecessor) return succeed(g, o->predecessor);
    g->family = cb_family_new();
    if (!g->family) return cb_fail(CB_ENOMEM, "no memory for a group");
    return o->handoff ? cb_group_adopt(g, o->handoff, o->handoff_name) : make_keys(&g->keys, o);
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
    if (rc >= 0 && o.dcids) rc = cb_opts_read(&g->dcids, sizeof g->dcids, o.dcids, "cb_dcid_hook");
    if (rc >= 0) rc = fill(g, &o);
    if (rc < 0) {
        cb_group_unref(g);
        return rc;
    }
    *out = g;
    return CB_OK;
}

cb_group *cb_group_ref(cb_group *g) {
    atomic_fetch_add(&g->refs, 1);
    return g;
}

void cb_group_unref(cb_group *g) {
    if (!g || atomic_fetch_sub(&g->refs, 1) != 1) return;
    cb_family_unref(g->family);
    cb_mem_wipe(&g->keys, sizeof g->keys);
    cb_mem_free(&cb_alloc_libc, g);
}

void cb_group_dcid_opened(const cb_group *g, cb_slice dcid) {
    if (g->dcids.opened) (void)g->dcids.opened(dcid, g->dcids.user);
}

void cb_group_dcid_closed(const cb_group *g, cb_slice dcid) {
    if (g->dcids.closed) g->dcids.closed(dcid, g->dcids.user);
}

const cb_group_keys *cb_group_keys_of(const cb_group *g) {
    return &g->keys;
}

uint32_t cb_group_workers(const cb_group *g) {
    return g->workers;
}

uint32_t cb_group_generation(const cb_group *g) {
    return g->keys.generation;
}

bool cb_group_linked(const cb_group *g) {
    return atomic_load(&g->family->linked);
}
