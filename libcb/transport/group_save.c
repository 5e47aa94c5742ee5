/* A group in a handoff: its secrets, and a mailbox for each worker that can be reached. */
#include "base/buf.h"
#include "base/error.h"
#include "base/mem.h"
#include "transport/group_int.h"
#include "transport/group_state.h"
#include <string.h>

enum { MAILBOXES_MAX = CB_HANDOFF_FDS };

/* ---- saving ---- */

typedef struct saving {
    cb_handoff *h;
    const char *name;
    cb_buf list;
    uint32_t n;
    int rc;
} saving;

static void save_one(saving *s, const cb_owner *owner, int fd) {
    uint8_t row[CB_GROUP_STATE_ROW];
    if (s->rc < 0 || fd < 0) return;
    cb_group_state_put_row(row, owner);
    s->rc = cb_buf_add(&s->list, row, sizeof row);
    if (s->rc == CB_OK) s->rc = cb_handoff_put_fd(s->h, s->name, fd);
    s->n++;
}

int cb_group_room(cb_group *g) {
    return cb_family_room(g->family, (uint8_t)(g->keys.generation + 1));
}

int cb_group_save(cb_group *g, cb_handoff *h, const char *name) {
    saving s = {.h = h, .name = name};
    uint8_t head[CB_GROUP_STATE_HEAD];
    cb_buf all;
    cb_buf_init(&s.list, &cb_alloc_libc, (size_t)MAILBOXES_MAX * CB_GROUP_STATE_ROW);
    cb_buf_init(&all, &cb_alloc_libc, CB_GROUP_STATE_HEAD + (size_t)MAILBOXES_MAX * CB_GROUP_STATE_ROW);
    pthread_mutex_lock(&g->family->lock);
    for (cb_list *l = g->family->members.next; l != &g->family->members; l = l->next) {
        const cb_inbox *box = CB_CONTAINER(l, cb_inbox, member);
        save_one(&s, &box->owner, box->mail[1]);
    }
    for (cb_list *l = g->family->mailboxes.next; l != &g->family->mailboxes; l = l->next) {
        const cb_mailbox *m = CB_CONTAINER(l, cb_mailbox, link);
        save_one(&s, &m->owner, m->fd);
    }
    atomic_store(&g->family->linked, true);
    pthread_mutex_unlock(&g->family->lock);
    cb_group_state_put_head(head, &g->keys, s.n);
    if (s.rc == CB_OK) s.rc = cb_buf_add(&all, head, sizeof head);
    if (s.rc == CB_OK && s.list.len) s.rc = cb_buf_add(&all, s.list.base, s.list.len);
    if (s.rc == CB_OK) s.rc = cb_handoff_put(h, name, cb_buf_slice(&all));
    if (all.base) cb_mem_wipe(all.base, all.len);
    cb_mem_wipe(head, sizeof head);
    cb_buf_free(&all);
    cb_buf_free(&s.list);
    return s.rc;
}

/* ---- taking over ---- */

static int take_mailboxes(cb_group *g, const cb_handoff *h, const char *name, cb_slice rows, uint32_t n) {
    int32_t *fds = cb_mem_new(&cb_alloc_libc, (n ? n : 1) * sizeof *fds);
    int rc = fds ? CB_OK : cb_fail(CB_ENOMEM, "no memory for a group");
    if (rc == CB_OK && cb_handoff_fds(h, name, fds, n) != (int)n)
        rc = cb_fail(CB_EPROTO, "handoff: \"%s\" has other descriptors than it says", name);
    for (uint32_t i = 0; i < n && rc == CB_OK; i++) {
        cb_owner owner = cb_group_state_row(rows.base + (size_t)i * CB_GROUP_STATE_ROW);
        if (owner.generation != g->keys.generation) rc = cb_family_add_mailbox(g->family, owner, fds[i]);
    }
    cb_mem_free(&cb_alloc_libc, fds);
    return rc;
}

int cb_group_adopt(cb_group *g, const cb_handoff *h, const char *name) {
    cb_slice bytes;
    uint32_t n = 0;
    int rc = cb_handoff_get(h, name, &bytes);
    if (rc == CB_OK) rc = cb_group_state_read(&g->keys, &bytes, &n);
    if (rc < 0) return rc;
    g->keys.generation++;
    rc = take_mailboxes(g, h, name, bytes, n);
    atomic_store(&g->family->linked, true);
    return rc < 0 ? rc : cb_family_room(g->family, g->keys.generation);
}

int cb_group_meet(cb_group *g, const cb_handoff *h, const char *name) {
    cb_group_keys theirs;
    cb_slice bytes;
    uint32_t n = 0;
    int rc = cb_handoff_get(h, name, &bytes);
    if (rc == CB_OK) rc = cb_group_state_read(&theirs, &bytes, &n);
    if (rc == CB_OK) rc = take_mailboxes(g, h, name, bytes, n);
    cb_mem_wipe(&theirs, sizeof theirs);
    return rc;
}
