#include "base/error.h"
#include "base/list.h"
#include "base/mem.h"
#include "transport/handoff_int.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

enum { KIND_BYTES = 1, KIND_FD = 2, ENTRY_HEAD = 8 };

static const uint8_t magic[8] = {'C', 'B', 'H', 'A', 'N', 'D', 'O', 'F'};

typedef struct entry {
    cb_list link;
    uint8_t kind, name_len;
    int32_t fd;     /* KIND_FD */
    uint32_t len;   /* KIND_BYTES */
    uint8_t data[]; /* name, bytes */
} entry;

struct cb_handoff {
    pthread_mutex_t lock;
    cb_list entries; /* in the order they came */
    size_t bytes, fds;
};

/* Readers lock too: a handoff that one thread fills is read by another. */
static void lock(const cb_handoff *h) {
    pthread_mutex_lock((pthread_mutex_t *)(uintptr_t)&h->lock);
}

static void unlock(const cb_handoff *h) {
    pthread_mutex_unlock((pthread_mutex_t *)(uintptr_t)&h->lock);
}

/* ---- life ---- */

int cb_handoff_new(cb_handoff **out) {
    if (!out) return cb_fail(CB_EINVAL, "cb_handoff_new: out is NULL");
    cb_handoff *h = cb_mem_new(&cb_alloc_libc, sizeof *h);
    if (!h) return cb_fail(CB_ENOMEM, "no memory for a handoff");
    pthread_mutex_init(&h->lock, NULL);
    cb_list_init(&h->entries);
    *out = h;
    return CB_OK;
}

static void entry_free(entry *e, bool with_fd) {
    cb_list_del(&e->link);
    if (e->kind == KIND_FD && with_fd) close(e->fd);
    cb_mem_wipe(e->data, e->name_len + e->len);
    cb_mem_free(&cb_alloc_libc, e);
}

static void drop_all(cb_handoff *h, bool with_fds) {
    while (!cb_list_empty(&h->entries))
        entry_free(CB_CONTAINER(h->entries.next, entry, link), with_fds);
    h->bytes = h->fds = 0;
}

void cb_handoff_free(cb_handoff *h) {
    if (!h) return;
    drop_all(h, true);
    pthread_mutex_destroy(&h->lock);
    cb_mem_free(&cb_alloc_libc, h);
}

/* ---- entries ---- */

static bool named(const entry *e, uint8_t kind, cb_slice name) {
    return e->kind == kind && e->name_len == name.len && memcmp(e->data, name.base, name.len) == 0;
}

static const entry *find(const cb_handoff *h, uint8_t kind, cb_slice name) {
    for (cb_list *l = h->entries.next; l != &h->entries; l = l->next) {
        const entry *e = CB_CONTAINER(l, entry, link);
        if (named(e, kind, name)) return e;
    }
    return NULL;
}

static int add(cb_handoff *h, uint8_t kind, cb_slice name, cb_slice bytes, int32_t fd) {
    const size_t more = ENTRY_HEAD + name.len + bytes.len;
    if (!name.len || name.len > CB_HANDOFF_NAME)
        return cb_fail(CB_EINVAL, "handoff: a name has 1 to %d bytes", CB_HANDOFF_NAME);
    if (bytes.len > CB_HANDOFF_BYTES || more > CB_HANDOFF_BYTES - h->bytes)
        return cb_fail(CB_ELIMIT, "handoff: more than %d bytes", CB_HANDOFF_BYTES);
    if (kind == KIND_FD && h->fds >= CB_HANDOFF_FDS)
        return cb_fail(CB_ELIMIT, "handoff: more than %d descriptors", CB_HANDOFF_FDS);
    if (kind == KIND_BYTES && find(h, kind, name))
        return cb_fail(CB_EEXIST, "handoff: \"%.*s\" is there already", (int)name.len, (const char *)name.base);
    entry *e = cb_mem_get(&cb_alloc_libc, sizeof *e + name.len + bytes.len);
    if (!e) return cb_fail(CB_ENOMEM, "no memory for a handoff");
    e->kind = kind;
    e->name_len = (uint8_t)name.len;
    e->fd = fd;
    e->len = (uint32_t)bytes.len;
    memcpy(e->data, name.base, name.len);
    if (bytes.len) memcpy(e->data + name.len, bytes.base, bytes.len);
    cb_list_init(&e->link);
    cb_list_add_tail(&h->entries, &e->link);
    h->bytes += more;
    h->fds += kind == KIND_FD;
    return CB_OK;
}

static cb_slice name_of(const char *name) {
    return name ? cb_slice_str(name) : (cb_slice){NULL, 0};
}

int cb_handoff_put(cb_handoff *h, const char *name, cb_slice bytes) {
    lock(h);
    int rc = add(h, KIND_BYTES, name_of(name), bytes, -1);
    unlock(h);
    return rc;
}

int cb_handoff_put_fd(cb_handoff *h, const char *name, int fd) {
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0) return cb_fail_errno(errno, "handoff: descriptor %d", fd);
    lock(h);
    int rc = add(h, KIND_FD, name_of(name), (cb_slice){NULL, 0}, copy);
    unlock(h);
    if (rc < 0) close(copy);
    return rc;
}

int cb_handoff_get(const cb_handoff *h, const char *name, cb_slice *out) {
    lock(h);
    const entry *e = find(h, KIND_BYTES, name_of(name));
    unlock(h);
    if (!e) return cb_fail(CB_ENOENT, "handoff: there is no \"%s\"", name ? name : "");
    *out = (cb_slice){e->data + e->name_len, e->len};
    return CB_OK;
}

int cb_handoff_fds(const cb_handoff *h, const char *name, int32_t *out, size_t cap) {
    const cb_slice wanted = name_of(name);
    size_t n = 0;
    lock(h);
    for (cb_list *l = h->entries.next; l != &h->entries; l = l->next) {
        const entry *e = CB_CONTAINER(l, entry, link);
        if (!named(e, KIND_FD, wanted)) continue;
        if (n < cap) out[n] = e->fd;
        n++;
    }
    unlock(h);
    return (int)n;
}

/* ---- the message ---- */

static void put32(uint8_t *out, uint32_t v) {
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(v >> 8 * i);
}

static uint32_t get32(const uint8_t *in) {
    return in[0] | (uint32_t)in[1] << 8 | (uint32_t)in[2] << 16 | (uint32_t)in[3] << 24;
}

int cb_handoff_read_header(const uint8_t in[CB_HANDOFF_HEADER], uint32_t *body, uint32_t *fds) {
    if (memcmp(in, magic, sizeof magic) != 0) return cb_fail(CB_EPROTO, "handoff: what came is none");
    if (get32(in + 8) != CB_HANDOFF_VERSION)
        return cb_fail(CB_EPROTO, "handoff: version %u, this program understands %d", get32(in + 8),
                       CB_HANDOFF_VERSION);
    *body = get32(in + 12);
    *fds = get32(in + 16);
    if (*body > CB_HANDOFF_BYTES || *fds > CB_HANDOFF_FDS || get32(in + 20) != 0)
        return cb_fail(CB_EPROTO, "handoff: %u bytes and %u descriptors are too many", *body, *fds);
    return CB_OK;
}

static int read_entry(cb_handoff *h, cb_slice *body, const int32_t *fds, size_t n) {
    const uint8_t *at = body->base;
    if (body->len < ENTRY_HEAD) return cb_fail(CB_EPROTO, "handoff: cut off");
    const size_t name_len = at[1], len = get32(at + 4);
    if (at[2] || at[3]) return cb_fail(CB_EPROTO, "handoff: an entry that is not understood");
    if (name_len > body->len - ENTRY_HEAD || len > body->len - ENTRY_HEAD - name_len)
        return cb_fail(CB_EPROTO, "handoff: cut off");
    const cb_slice name = {at + ENTRY_HEAD, name_len}, bytes = {at + ENTRY_HEAD + name_len, len};
    const bool is_fd = at[0] == KIND_FD;
    if ((!is_fd && at[0] != KIND_BYTES) || (is_fd && len) || memchr(name.base, '\0', name.len))
        return cb_fail(CB_EPROTO, "handoff: an entry that is not understood");
    if (is_fd && h->fds >= n) return cb_fail(CB_EPROTO, "handoff: it names more descriptors than came");
    const size_t used = ENTRY_HEAD + name_len + len;
    body->base += used;
    body->len -= used;
    return add(h, at[0], name, bytes, is_fd ? fds[h->fds] : -1);
}

int cb_handoff_read_body(cb_handoff *h, cb_slice body, const int32_t *fds, size_t n) {
    int rc = CB_OK;
    while (body.len && rc == CB_OK)
        rc = read_entry(h, &body, fds, n);
    if (rc == CB_OK && h->fds != n)
        rc = cb_fail(CB_EPROTO, "handoff: %zu descriptors came and %zu are named", n, h->fds);
    if (rc == CB_EINVAL || rc == CB_EEXIST) rc = cb_fail(CB_EPROTO, "handoff: names that cannot be");
    if (rc < 0) drop_all(h, false);
    return rc;
}

static int write_entry(cb_buf *out, const entry *e) {
    uint8_t head[ENTRY_HEAD] = {e->kind, e->name_len};
    put32(head + 4, e->len);
    int rc = cb_buf_add(out, head, sizeof head);
    return rc < 0 ? rc : cb_buf_add(out, e->data, (size_t)e->name_len + e->len);
}

static int write_all(const cb_handoff *h, cb_buf *out, int32_t *fds) {
    uint8_t head[CB_HANDOFF_HEADER] = {0};
    memcpy(head, magic, sizeof magic);
    put32(head + 8, CB_HANDOFF_VERSION);
    put32(head + 12, (uint32_t)h->bytes);
    put32(head + 16, (uint32_t)h->fds);
    int rc = cb_buf_add(out, head, sizeof head);
    size_t n = 0;
    for (cb_list *l = h->entries.next; l != &h->entries && rc == CB_OK; l = l->next) {
        const entry *e = CB_CONTAINER(l, entry, link);
        if (e->kind == KIND_FD) fds[n++] = e->fd;
        rc = write_entry(out, e);
    }
    return rc;
}

int cb_handoff_write(const cb_handoff *h, cb_buf *out, int32_t **fds, size_t *n) {
    lock(h);
    *n = h->fds;
    *fds = *n ? cb_mem_get(&cb_alloc_libc, *n * sizeof **fds) : NULL;
    int rc = *n && !*fds ? cb_fail(CB_ENOMEM, "no memory for a handoff") : write_all(h, out, *fds);
    unlock(h);
    return rc;
}
