/* Files of saved sessions: what is read is within bounds, and is the same when written and read again. The first byte
 * chooses: the checksum as it is, or mended, so that the fuzzer gets behind it. */
#include "base/mem.h"
#include "base/siphash.h"
#include "transport/sessions_file.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void mend(uint8_t *file, size_t len) {
    static const uint8_t key[16] = "libcb sessions";
    if (len < 8) return;
    uint64_t sum = cb_siphash(key, file, len - 8);
    for (size_t i = 0; i < 8; i++) {
        file[len - 8 + i] = (uint8_t)(sum >> (56 - 8 * i));
    }
}

static size_t check(cb_list *all) {
    size_t n = 0;
    for (cb_list *l = all->next; l != all; l = l->next, n++) {
        cb_saved_session *e = CB_CONTAINER(l, cb_saved_session, link);
        if (strlen((const char *)e->bytes) + 1 != e->key_len || e->session_len == 0) abort();
        if (e->expires < e->made || e->expires - e->made > CB_SESSION_LIFE_MAX_S) abort();
    }
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cb_list all, again;
    cb_buf out;
    if (size < 1 || size > 1 << 16) return 0;
    size_t len = size - 1;
    uint8_t *file = malloc(len ? len : 1);
    if (!file) return 0;
    memcpy(file, data + 1, len);
    if (data[0] & 1) mend(file, len);
    cb_list_init(&all);
    cb_list_init(&again);
    cb_buf_init(&out, &cb_alloc_libc, CB_SESSIONS_FILE_MAX);
    int rc = cb_sessions_decode(&all, (cb_slice){file, len});
    if (rc < 0 && !cb_list_empty(&all)) abort();
    if (rc == CB_OK) {
        size_t n = check(&all);
        if (cb_sessions_encode(&out, &all) < 0) abort();
        if (out.len != len || memcmp(out.base, file, len) != 0) abort();
        if (cb_sessions_decode(&again, cb_buf_slice(&out)) < 0 || check(&again) != n) abort();
    }
    cb_saved_sessions_free(&all);
    cb_saved_sessions_free(&again);
    cb_buf_free(&out);
    free(file);
    return 0;
}
