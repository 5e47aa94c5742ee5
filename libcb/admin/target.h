/* The target of a request, taken apart: decoded segments of the path, and query parameters. It comes from strangers,
 * and decides what they may do, so what could be read in two ways is refused. */
#ifndef CB_ADMIN_TARGET_H
#define CB_ADMIN_TARGET_H

#include <cb/base.h>

enum { CB_TARGET_SEGMENTS = 48, CB_TARGET_QUERY = 16 };

typedef struct cb_admin_target {
    char *block;                              /* all of the texts */
    const char *path;                         /* decoded; a segment holds no slash. NULL: not read */
    const char *segments[CB_TARGET_SEGMENTS]; /* each as a text of its own */
    const char *rests[CB_TARGET_SEGMENTS];    /* the path from that segment on */
    const char *names[CB_TARGET_QUERY], *values[CB_TARGET_QUERY];
    uint32_t n_segments, n_query;
} cb_admin_target;

/* Reads "/a/b?c=d". NULL: good; else what is wrong with it (static text; t is empty then). No control characters, no
 * slashes or dot segments in disguise, no empty segments, valid UTF-8, no parameter twice. The block is the caller's to
 * free with cb_admin_target_free(), good or not. */
const char *cb_admin_target_read(cb_admin_target *t, const cb_alloc *alloc, cb_slice target);
void cb_admin_target_free(cb_admin_target *t, const cb_alloc *alloc);
/* The value of a query parameter; NULL: absent. */
const char *cb_admin_target_query(const cb_admin_target *t, const char *name);

#endif
