#include "admin/target.h"
#include "base/mem.h"
#include "base/utf8.h"
#include <string.h>

static int hex(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decodes into out, which has room for in.len + 1 bytes; returns the length, or -1. */
static int64_t decode(char *out, cb_slice in, bool plus) {
    size_t n = 0;
    for (size_t i = 0; i < in.len; i++) {
        uint8_t c = in.base[i];
        if (c == '%') {
            const int high = i + 2 < in.len ? hex(in.base[i + 1]) : -1;
            const int low = high >= 0 ? hex(in.base[i + 2]) : -1;
            if (low < 0) return -1;
            c = (uint8_t)(high << 4 | low);
            i += 2;
        } else if (c == '+' && plus) {
            c = ' ';
        }
        if (c < 0x20 || c == 0x7f) return -1;
        out[n++] = (char)c;
    }
    out[n] = '\0';
    return cb_utf8_valid(out, n) ? (int64_t)n : -1;
}

static cb_slice until(cb_slice *rest, char stop) {
    const uint8_t *end = rest->len ? memchr(rest->base, stop, rest->len) : NULL;
    const cb_slice part = {rest->base, end ? (size_t)(end - rest->base) : rest->len};
    const size_t used = part.len + (end != NULL);
    rest->base += used;
    rest->len -= used;
    return part;
}

/* at gets the segments as texts, path the same with slashes between them. */
static const char *read_path(cb_admin_target *t, cb_slice path, char *at, char *joined) {
    if (path.len == 0 || path.base[0] != '/') return "the path does not begin with a slash";
    t->path = joined;
    memcpy(joined++, "/", 2);
    path = (cb_slice){path.base + 1, path.len - 1};
    for (bool more = path.len > 0; more;) {
        const size_t before = path.len;
        const cb_slice part = until(&path, '/');
        const int64_t n = decode(at, part, false);
        if (part.len == 0) return "the path has an empty segment";
        if (n < 0) return "the path is not well encoded UTF-8 without control characters";
        if (memchr(at, '/', (size_t)n) || memchr(at, '\\', (size_t)n)) return "a segment of the path holds a slash";
        if (strcmp(at, ".") == 0 || strcmp(at, "..") == 0) return "the path has a dot segment";
        if (t->n_segments == CB_TARGET_SEGMENTS) return "the path has too many segments";
        if (t->n_segments) *joined++ = '/';
        t->rests[t->n_segments] = joined;
        t->segments[t->n_segments++] = at;
        memcpy(joined, at, (size_t)n + 1);
        joined += n;
        at += n + 1;
        more = part.len < before; /* also when nothing follows the slash: that is an empty segment */
    }
    return NULL;
}

static const char *read_query(cb_admin_target *t, cb_slice query, char *at) {
    for (bool more = true; more;) {
        const size_t before = query.len;
        cb_slice pair = until(&query, '&');
        more = pair.len < before;
        const cb_slice name = until(&pair, '=');
        char *const text = at;
        const int64_t n = decode(text, name, true);
        if (name.len == 0) return "the query has a parameter without a name";
        char *const value = text + n + 1;
        const int64_t m = n < 0 ? -1 : decode(value, pair, true);
        if (m < 0) return "the query is not well encoded UTF-8 without control characters";
        if (cb_admin_target_query(t, text)) return "the query has a parameter twice";
        if (t->n_query == CB_TARGET_QUERY) return "the query has too many parameters";
        t->names[t->n_query] = text;
        t->values[t->n_query++] = value;
        at = value + m + 1;
    }
    return NULL;
}

const char *cb_admin_target_read(cb_admin_target *t, const cb_alloc *alloc, cb_slice target) {
    *t = (cb_admin_target){0};
    cb_slice query = target;
    const cb_slice path = until(&query, '?');
    const bool asked = path.len < target.len;
    /* Decoding never makes longer: segments with their ends, then the path, then names and values with their ends, of
     * which there are at most as many as bytes, for no name is empty. */
    t->block = cb_mem_get(alloc, 2 * (path.len + 2) + 2 * query.len + 4);
    if (!t->block) return "no memory";
    const char *wrong = memchr(target.base ? target.base : (const uint8_t *)"", '#', target.len)
                            ? "the target has a fragment"
                            : read_path(t, path, t->block, t->block + path.len + 2);
    if (!wrong && asked) wrong = read_query(t, query, t->block + 2 * (path.len + 2));
    if (wrong) t->n_segments = t->n_query = 0;
    return wrong;
}

void cb_admin_target_free(cb_admin_target *t, const cb_alloc *alloc) {
    cb_mem_free(alloc, t->block);
    *t = (cb_admin_target){0};
}

const char *cb_admin_target_query(const cb_admin_target *t, const char *name) {
    for (uint32_t i = 0; i < t->n_query; i++)
        if (strcmp(t->names[i], name) == 0) return t->values[i];
    return NULL;
}
