#include "auth/file.h"
#include "base/error.h"
#include "base/mem.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

int cb_file_read(char **out, size_t *len, const char *path, const char *what, size_t most) {
    FILE *f = fopen(path, "rbe");
    if (!f) return cb_fail_errno(errno, "%s \"%s\"", what, path);
    char *text = cb_mem_get(&cb_alloc_libc, most + 1);
    int rc = text ? CB_OK : cb_fail(CB_ENOMEM, "no memory for \"%s\"", path);
    size_t n = rc == CB_OK ? fread(text, 1, most + 1, f) : 0;
    if (rc == CB_OK && ferror(f)) rc = cb_fail_errno(errno, "%s \"%s\"", what, path);
    if (rc == CB_OK && n > most) rc = cb_fail(CB_ELIMIT, "%s \"%s\": more than %zu bytes", what, path, most);
    fclose(f);
    if (rc < 0) {
        if (text) cb_mem_wipe(text, n);
        cb_mem_free(&cb_alloc_libc, text);
        return rc;
    }
    *out = text;
    *len = n;
    return CB_OK;
}

bool cb_line_next(cb_slice *text, cb_slice *line, size_t *number) {
    while (text->len) {
        const uint8_t *end = memchr(text->base, '\n', text->len);
        size_t n = end ? (size_t)(end - text->base) : text->len, skip = n + (end != NULL);
        *line = (cb_slice){text->base, n};
        *text = (cb_slice){text->base + skip, text->len - skip};
        ++*number;
        while (line->len && (line->base[line->len - 1] == ' ' || line->base[line->len - 1] == '\t' ||
                             line->base[line->len - 1] == '\r'))
            line->len--;
        if (line->len && *line->base != '#') return true;
    }
    return false;
}
