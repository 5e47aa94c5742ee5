/* The way of a packet to its owner: an inbox in this process, a mailbox of another one. */
#include "base/error.h"
#include "base/mem.h"
#include "transport/group_int.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAIL_BUFFER = 4 << 20 };

/* --- the family --- */

cb_group_family *cb_family_new(void) {
    cb_group_family *f = cb_mem_new(&cb_alloc_libc, sizeof *f);
    if (!f) return NULL;
    atomic_init(&f->refs, 1);
    atomic_init(&f->linked, false);
    pthread_mutex_init(&f->lock, NULL);
    cb_list_init(&f->members);
    cb_list_init(&f->mailboxes);
    return f;
}

cb_group_family *cb_family_ref(cb_group_family *f) {
    atomic_fetch_add(&f->refs, 1);
    return f;
}

static void mailbox_free(cb_mailbox *m) {
    cb_list_del(&m->link);
    close(m->fd);
    cb_mem_free(&cb_alloc_libc, m);
}

void cb_family_unref(cb_group_family *f) {
    if (!f || atomic_fetch_sub(&f->refs, 1) != 1) return;
    while (!cb_list_empty(&f->mailboxes))
        mailbox_free(CB_CONTAINER(f->mailboxes.next, cb_mailbox, link));
    pthread_mutex_destroy(&f->lock);
    cb_mem_free(&cb_alloc_libc, f);
}

bool cb_generation_after(uint8_t a, uint8_t b) {
    uint8_t ahead = (uint8_t)(a - b);
    return ahead && ahead < 128;
}

static bool same_owner(const cb_owner *a, const cb_owner *b) {
    return a->generation == b->generation && a->worker == b->worker && a->port == b->port;
}

static cb_inbox *find_inbox(cb_group_family *f, const cb_owner *owner) {
    for (cb_list *l = f->members.next; l != &f->members; l = l->next) {
        cb_inbox *box = CB_CONTAINER(l, cb_inbox, member);
        if (same_owner(&box->owner, owner)) return box;
    }
    return NULL;
}

static cb_mailbox *find_mailbox(cb_group_family *f, const cb_owner *owner) {
    for (cb_list *l = f->mailboxes.next; l != &f->mailboxes; l = l->next) {
        cb_mailbox *m = CB_CONTAINER(l, cb_mailbox, link);
        if (same_owner(&m->owner, owner)) return m;
    }
    return NULL;
}

int cb_family_add_mailbox(cb_group_family *f, cb_owner owner, int fd) {
    int rc = CB_OK;
    pthread_mutex_lock(&f->lock);
    if (!find_inbox(f, &owner) && !find_mailbox(f, &owner)) {
        cb_mailbox *m = cb_mem_new(&cb_alloc_libc, sizeof *m);
        int copy = m ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : -1;
        if (copy < 0) {
            rc = m ? cb_fail_errno(errno, "descriptor %d", fd) : cb_fail(CB_ENOMEM, "no memory for a mailbox");
            cb_mem_free(&cb_alloc_libc, m);
        } else {
            m->owner = owner;
            m->fd = copy;
            cb_list_init(&m->link);
            cb_list_add_tail(&f->mailboxes, &m->link);
            atomic_store(&f->linked, true);
        }
    }
    pthread_mutex_unlock(&f->lock);
    return rc;
}

/* Mailboxes of processes that have ended. */
static void prune(cb_group_family *f) {
    for (cb_list *l = f->mailboxes.next, *next; l != &f->mailboxes; l = next) {
        cb_mailbox *m = CB_CONTAINER(l, cb_mailbox, link);
        struct pollfd p = {.fd = m->fd};
        next = l->next;
        if (poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLERR)) mailbox_free(m);
    }
}

int cb_family_room(cb_group_family *f, uint8_t generation) {
    bool full = false;
    pthread_mutex_lock(&f->lock);
    prune(f);
    for (cb_list *l = f->members.next; l != &f->members; l = l->next) {
        uint8_t ahead = (uint8_t)(generation - CB_CONTAINER(l, cb_inbox, member)->owner.generation);
        full = full || ahead >= CB_GROUP_GENERATIONS;
    }
    for (cb_list *l = f->mailboxes.next; l != &f->mailboxes; l = l->next) {
        uint8_t ahead = (uint8_t)(generation - CB_CONTAINER(l, cb_mailbox, link)->owner.generation);
        full = full || ahead >= CB_GROUP_GENERATIONS;
    }
    pthread_mutex_unlock(&f->lock);
    return full ? cb_fail(CB_ELIMIT, "%d generations still have connections: the oldest must end first",
                          CB_GROUP_GENERATIONS)
                : CB_OK;
}

/* --- joining and leaving --- */

int cb_group_join(cb_group *g, cb_inbox *box, uint32_t worker, uint16_t port, int udp_fd, bool *steered) {
    cb_group_family *f = g->family;
    int rc = CB_OK;
    *steered = false;
    cb_list_init(&box->member);
    cb_list_init(&box->strays);
    box->count = 0;
    box->owner = (cb_owner){g->keys.generation, (uint8_t)worker, port};
    box->mail[0] = box->mail[1] = -1;
    if (worker >= g->workers) {
        return cb_fail(CB_EINVAL, "worker %u: the group has %u, counted from 0", worker, g->workers);
    }
    box->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (box->wake < 0) return cb_fail_errno(errno, "eventfd");
    pthread_mutex_lock(&f->lock);
    if (find_inbox(f, &box->owner))
        rc = CB_EEXIST;
    else
        cb_list_add_tail(&f->members, &box->member);
    if (rc == CB_OK && g->steering.add && udp_fd >= 0) {
        *steered = g->steering.add(worker, g->keys.generation, udp_fd, g->keys.cid.mask_key, g->steering.user) >= 0;
    }
    pthread_mutex_unlock(&f->lock);
    if (rc == CB_OK) return CB_OK;
    close(box->wake);
    return cb_fail(rc, "worker %u has port %u already", worker, port);
}

int cb_group_open_mail(cb_group *g, cb_inbox *box) {
    const int size = MAIL_BUFFER;
    int pair[2], rc = CB_OK;
    pthread_mutex_lock(&g->family->lock);
    if (box->mail[0] < 0 && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0) {
        rc = cb_fail_errno(errno, "socketpair");
    } else if (box->mail[0] < 0) {
        box->mail[0] = pair[0];
        box->mail[1] = pair[1];
        shutdown(pair[0], SHUT_WR);
        if (setsockopt(pair[1], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) < 0)
            setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    }
    pthread_mutex_unlock(&g->family->lock);
    return rc;
}

void cb_group_activate(cb_group *g, int udp_fd) {
    if (g->steering.activate) (void)g->steering.activate(g->keys.generation, udp_fd, g->steering.user);
}

static void drop_all(cb_list *strays) {
    while (!cb_list_empty(strays)) {
        cb_stray *s = CB_CONTAINER(strays->next, cb_stray, link);
        cb_list_del(&s->link);
        cb_stray_free(s);
    }
}

void cb_group_leave(cb_group *g, cb_inbox *box) {
    pthread_mutex_lock(&g->family->lock);
    cb_list_del(&box->member);
    pthread_mutex_unlock(&g->family->lock);
    drop_all(&box->strays);
    close(box->wake);
    for (int i = 0; i < 2; i++)
        if (box->mail[i] >= 0) close(box->mail[i]);
}

/* --- handing over --- */

static cb_stray *copy_of(const cb_datagram *d, enum cb_mail_kind kind) {
    cb_stray *s = cb_mem_get(&cb_alloc_libc, sizeof *s + d->len);
    if (!s) return NULL;
    s->kind = kind;
    s->d = *d;
    s->d.data = (uint8_t *)(s + 1);
    memcpy(s->d.data, d->data, d->len);
    return s;
}

/* With the lock. */
static int put_in(cb_inbox *box, cb_stray *s) {
    if (box->count >= CB_INBOX_MAX) return CB_ELIMIT;
    cb_list_add_tail(&box->strays, &s->link);
    if (box->count++ == 0) {
        ssize_t n = write(box->wake, &(uint64_t){1}, sizeof(uint64_t));
        (void)n; /* it cannot overflow: once until it is read */
    }
    return CB_OK;
}

/* With the lock. A full mailbox drops it, as a full socket buffer would; one whose reader is gone goes. */
static void send_mail(cb_mailbox *m, const uint8_t *bytes, size_t len) {
    if (send(m->fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return;
    if (errno != EAGAIN && errno != EINTR && errno != ENOBUFS && errno != EMSGSIZE) mailbox_free(m);
}

static void flush(cb_group_family *f, cb_mail_batch *batch) {
    cb_mailbox *m = batch->len ? find_mailbox(f, &batch->to) : NULL;
    if (m) send_mail(m, batch->bytes, batch->len);
    batch->len = 0;
}

void cb_group_flush(cb_group *g, cb_mail_batch *batch) {
    if (!batch->len) return;
    pthread_mutex_lock(&g->family->lock);
    flush(g->family, batch);
    pthread_mutex_unlock(&g->family->lock);
}

static void post(cb_group_family *f, cb_owner to, const cb_datagram *d, cb_mail_batch *batch) {
    if (batch->len && !same_owner(&batch->to, &to)) flush(f, batch);
    batch->to = to;
    size_t n = cb_mail_write(batch->bytes + batch->len, sizeof batch->bytes - batch->len, CB_MAIL_PACKET, d);
    if (!n) {
        flush(f, batch);
        n = cb_mail_write(batch->bytes, sizeof batch->bytes, CB_MAIL_PACKET, d);
    }
    batch->len += n;
}

int cb_group_hand_over(cb_group *g, cb_owner to, const cb_datagram *d, cb_mail_batch *batch) {
    cb_group_family *f = g->family;
    cb_stray *s = NULL;
    int rc = CB_ENOENT;
    pthread_mutex_lock(&f->lock);
    cb_inbox *box = find_inbox(f, &to);
    if (box) {
        s = copy_of(d, CB_MAIL_PACKET);
        rc = s ? put_in(box, s) : CB_ENOMEM;
    } else if (batch && find_mailbox(f, &to)) {
        post(f, to, d, batch);
        rc = CB_OK;
    }
    pthread_mutex_unlock(&f->lock);
    if (rc < 0) cb_stray_free(s);
    return rc;
}

/* What cb_group_newest() has found so far: how many workers of the newest generation. */
typedef struct search {
    uint8_t own, newest;
    uint16_t port;
    uint32_t n, wanted; /* wanted: the number of the one to take, UINT32_MAX = only count */
    cb_owner found;
} search;

static void look_at(search *s, const cb_owner *owner) {
    if (owner->port != s->port || !cb_generation_after(owner->generation, s->own)) return;
    if (s->n && owner->generation != s->newest) {
        if (s->wanted != UINT32_MAX || !cb_generation_after(owner->generation, s->newest)) return;
        s->n = 0;
    }
    s->newest = owner->generation;
    if (s->n++ == s->wanted) s->found = *owner;
}

static void look_through(cb_group_family *f, search *s) {
    for (cb_list *l = f->members.next; l != &f->members; l = l->next)
        look_at(s, &CB_CONTAINER(l, cb_inbox, member)->owner);
    for (cb_list *l = f->mailboxes.next; l != &f->mailboxes; l = l->next)
        look_at(s, &CB_CONTAINER(l, cb_mailbox, link)->owner);
}

bool cb_group_newest(cb_group *g, uint16_t port, uint64_t hash, cb_owner *out) {
    search s = {.own = g->keys.generation, .port = port, .wanted = UINT32_MAX};
    pthread_mutex_lock(&g->family->lock);
    look_through(g->family, &s);
    uint32_t n = s.n;
    if (n) {
        search again = {.own = (uint8_t)(s.newest - 1), .port = port, .wanted = (uint32_t)(hash % n)};
        look_through(g->family, &again);
        *out = again.found;
    }
    pthread_mutex_unlock(&g->family->lock);
    return n > 0;
}

void cb_group_tell_rest(cb_group *g, uint16_t port, uint64_t cookie) {
    cb_group_family *f = g->family;
    uint8_t mail[CB_MAIL_HEAD + CB_MAIL_COOKIE], data[CB_MAIL_COOKIE];
    const struct sockaddr_in none = {.sin_family = AF_INET};
    cb_datagram d = {.local.v4 = none, .remote.v4 = none, .data = data, .len = sizeof data};
    memcpy(data, &cookie, sizeof data);
    size_t len = cb_mail_write(mail, sizeof mail, CB_MAIL_REST, &d);
    pthread_mutex_lock(&f->lock);
    for (cb_list *l = f->members.next; l != &f->members; l = l->next) {
        cb_inbox *box = CB_CONTAINER(l, cb_inbox, member);
        if (box->owner.port != port || !cb_generation_after(g->keys.generation, box->owner.generation)) continue;
        cb_stray *s = copy_of(&d, CB_MAIL_REST);
        if (s && put_in(box, s) < 0) cb_stray_free(s);
    }
    for (cb_list *l = f->mailboxes.next, *next; l != &f->mailboxes; l = next) {
        cb_mailbox *m = CB_CONTAINER(l, cb_mailbox, link);
        next = l->next;
        if (m->owner.port == port && cb_generation_after(g->keys.generation, m->owner.generation))
            send_mail(m, mail, len);
    }
    pthread_mutex_unlock(&f->lock);
}

void cb_group_take(cb_group *g, cb_inbox *box, cb_list *out) {
    uint64_t value;
    pthread_mutex_lock(&g->family->lock);
    ssize_t n = read(box->wake, &value, sizeof value);
    (void)n;
    while (!cb_list_empty(&box->strays)) {
        cb_list *l = box->strays.next;
        cb_list_del(l);
        cb_list_add_tail(out, l);
    }
    box->count = 0;
    pthread_mutex_unlock(&g->family->lock);
}

void cb_stray_free(cb_stray *s) {
    cb_mem_free(&cb_alloc_libc, s);
}
