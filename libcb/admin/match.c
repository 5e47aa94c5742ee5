#include "admin/match.h"
#include <string.h>

/* The tag at the beginning of list: its length with quotes and "W/", or 0. */
static size_t tag_len(cb_slice list) {
    size_t i = list.len >= 2 && memcmp(list.base, "W/", 2) == 0 ? 2 : 0;
    if (i >= list.len || list.base[i] != '"') return 0;
    for (i++; i < list.len; i++) {
        const uint8_t c = list.base[i];
        if (c == '"') return i + 1;
        if (c <= 0x20 || c == 0x7f) return 0;
    }
    return 0;
}

bool cb_admin_is_etag(const char *text) {
    const cb_slice all = cb_slice_str(text);
    return all.len && tag_len(all) == all.len;
}

static void drop(cb_slice *s, size_t n) {
    s->base += n;
    s->len -= n;
}

static void skip_space(cb_slice *s) {
    while (s->len && (s->base[0] == ' ' || s->base[0] == '\t'))
        drop(s, 1);
}

/* Without "W/"; *weak tells that it was there. */
static cb_slice opaque(cb_slice tag, bool *weak) {
    *weak = tag.len > 2 && tag.base[0] == 'W';
    if (*weak) drop(&tag, 2);
    return tag;
}

static bool equal(cb_slice a, cb_slice b, bool strong) {
    bool weak_a, weak_b;
    a = opaque(a, &weak_a);
    b = opaque(b, &weak_b);
    if (strong && (weak_a || weak_b)) return false;
    return a.len == b.len && memcmp(a.base, b.base, a.len) == 0;
}

/* 1: the list holds the tag, or is "*" and something is there; 0: not; -1: it is no list of tags. */
static int holds(cb_slice list, const char *etag, bool strong) {
    int found = 0;
    skip_space(&list);
    if (list.len == 1 && list.base[0] == '*') return etag != NULL;
    for (bool first = true;; first = false) {
        skip_space(&list);
        if (list.len == 0) return first ? -1 : found;
        if (!first) {
            if (list.base[0] != ',') return -1;
            drop(&list, 1);
            skip_space(&list);
        }
        const size_t n = tag_len(list);
        if (!n) return -1;
        if (etag && equal((cb_slice){list.base, n}, cb_slice_str(etag), strong)) found = 1;
        drop(&list, n);
    }
}

int cb_admin_match(cb_slice if_match, cb_slice if_none_match, const char *etag, bool reads) {
    if (if_match.base) {
        const int in = holds(if_match, etag, true);
        if (in <= 0) return in < 0 ? CB_MATCH_BAD : CB_MATCH_FAILED;
    }
    if (if_none_match.base) {
        const int in = holds(if_none_match, etag, false);
        if (in < 0) return CB_MATCH_BAD;
        if (in) return reads ? CB_MATCH_SAME : CB_MATCH_FAILED;
    }
    return CB_MATCH_GO;
}
