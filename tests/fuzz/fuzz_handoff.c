/* A handoff as a stranger might send it: header, body, and the group and ticket keys that it says it has. What was read
 * is written as it came. */
#include "base/mem.h"
#include "transport/group_int.h"
#include "transport/handoff_int.h"
#include <cb/tls.h>
#include <stdlib.h>
#include <string.h>

static void same_again(const cb_handoff *h, const uint8_t *data, size_t size) {
    int32_t *fds = NULL;
    size_t n = 0;
    cb_buf b;
    cb_buf_init(&b, &cb_alloc_libc, CB_HANDOFF_HEADER + CB_HANDOFF_BYTES);
    if (cb_handoff_write(h, &b, &fds, &n) != CB_OK || n || b.len != size || memcmp(b.base, data, size) != 0) abort();
    cb_buf_free(&b);
    cb_mem_free(&cb_alloc_libc, fds);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint32_t body = 0, fds = 0;
    cb_handoff *h = NULL;
    if (size < CB_HANDOFF_HEADER || cb_handoff_read_header(data, &body, &fds) < 0) return 0;
    if (body != size - CB_HANDOFF_HEADER || cb_handoff_new(&h) < 0) return 0;
    if (cb_handoff_read_body(h, (cb_slice){data + CB_HANDOFF_HEADER, body}, NULL, 0) == CB_OK) {
        if (fds == 0) same_again(h, data, size);
        cb_group *g = NULL;
        cb_tickets *t = NULL;
        if (cb_group_new(&g, CB_OPTS(cb_group_opts, .handoff = h, .handoff_name = "group")) == CB_OK &&
            cb_group_meet(g, h, "group") < 0)
            abort();
        cb_group_unref(g);
        if (cb_tickets_new(&t, CB_OPTS(cb_tickets_opts, .handoff = h, .handoff_name = "tickets")) == CB_OK)
            cb_tickets_unref(t);
    }
    cb_handoff_free(h);
    return 0;
}
