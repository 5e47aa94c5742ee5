/* What the parts of cb_revisions share. */
#ifndef CB_ADMIN_REVISIONS_INT_H
#define CB_ADMIN_REVISIONS_INT_H

#include "admin/revision_note.h"
#include "base/list.h"
#include "base/mem.h"
#include <cb/revisions.h>

enum { CB_REVISIONS_FIXED = 8, CB_REVISIONS_BACK = 16, CB_REVISIONS_WAITING = 64 };

struct cb_revisions {
    cb_loop *loop;
    cb_store *store;
    char *key, *file;
    char *fixed[CB_REVISIONS_FIXED];
    size_t n_fixed;
    const cb_revisions_ops *ops;
    void *user;
    const cb_log *log;
    uint32_t max_waiting, n_waiting;
    cb_document *document;                /* that runs */
    uint64_t number;                      /* of it; 0 = none */
    uint64_t head;                        /* the latest of the store: what a change must follow */
    char file_hash[CB_REVISION_HASH + 1]; /* of the file, as the latest revision has it */
    char *unwritten;                      /* the text of an edited file that began, until it is a revision */
    size_t unwritten_len;
    char unwritten_hash[CB_REVISION_HASH + 1];
    cb_list waiting, asks;
    cb_revisions_change *now;
    cb_timer *kick;                                                  /* the next change begins in a turn of its own */
    void *http;                                                      /* of revisions_http.c */
    void (*announce)(cb_revisions *r, const cb_revisions_change *c); /* a change is committed; may be NULL */
    bool held, counted;                                              /* counted: `number`, for want of a store */
};

enum cb_revisions_state {
    CB_CHANGE_WAITS,
    CB_CHANGE_FETCHES,
    CB_CHANGE_PREPARES,
    CB_CHANGE_ASKS,
    CB_CHANGE_STORES,
    CB_CHANGE_COMMITS
};

struct cb_revisions_change {
    cb_list node;
    cb_revisions *r;
    enum cb_revisions_state state;
    int32_t how;
    bool dry_run, reload; /* reload: the file was not edited: nothing is written */
    bool given, gone;     /* gone: nobody waits for it */
    char *pointer, *actor, *reason;
    char *body; /* NUL-terminated */
    size_t body_len;
    uint64_t from, expected;
    int (*see)(cb_document *copy, void *user); /* takes out what the asker may not see; NULL: they may see all */
    int (*allow)(const cb_document_change *c, const cb_document *before, const cb_document *after, void *user);
    void (*agree)(cb_revisions_change *c, const cb_document *before, const cb_document *after, void *user);
    cb_revisions_done done;
    void *user;
    cb_store_ask *ask;
    cb_document *document; /* the new one */
    char *text;            /* of it: body, or of the heap */
    size_t text_len;
    char file_hash[CB_REVISION_HASH + 1];
    char name[64];
    cb_revisions_draft draft;
    uint32_t denied;
    int step, rc;
    uint32_t n_mistakes;
    cb_config_error mistakes[CB_REVISIONS_MISTAKES]; /* texts of the heap */
};

/* SHA-256 of a text in hex. */
int cb_revisions_hash(char out[CB_REVISION_HASH + 1], cb_slice text);
/* The fixed members of d become those of `like`, or go. 1: that changed something; 0; < 0. */
int cb_revisions_fix(const cb_revisions *r, cb_document *d, const cb_document *like);
int64_t cb_revisions_time(void); /* ms since 1970 */
/* The document of a text, and the text in its own form. */
int cb_revisions_own_text(char **out, size_t *len, const cb_document *d);

/* ---- revisions_flow.c ---- */
void cb_revisions_kick(cb_revisions *r);
void cb_revisions_change_free(cb_revisions_change *c);

#endif
