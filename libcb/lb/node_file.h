/* The state file of a node: whole, of mode 0600, replaced at once. */
#ifndef CB_LB_NODE_FILE_H
#define CB_LB_NODE_FILE_H

#include <cb/base.h>
#include <stdatomic.h>

/* CB_ENOENT: there is none. CB_EPERM: others may read it, or we may not; CB_ELIMIT, CB_ESYS, CB_ENOMEM. To be freed
 * with cb_mem_free(&cb_alloc_libc, ...). Blocks. */
int cb_lb_file_read(char **out, size_t *len, const char *path, size_t most);
/* Puts it aside as PATH.bad. */
void cb_lb_file_put_aside(const char *path);

/* One writing of it, which another thread may do. */
typedef struct cb_lb_file_job {
    char *path;
    uint8_t *bytes; /* of cb_lb_core_save() */
    size_t len;
    uint32_t number; /* makes the name of its own until it is complete */
    int rc;
    char detail[256];
    _Atomic int stage;
} cb_lb_file_job;

void cb_lb_file_write(cb_lb_file_job *job); /* blocks; sets rc and detail */
/* From now on it does not replace the file any more; waits while it is at it. */
void cb_lb_file_cancel(cb_lb_file_job *job);

#endif
