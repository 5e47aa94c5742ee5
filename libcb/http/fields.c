#include "http/fields.h"
#include "base/error.h"
#include "base/mem.h"
#include <string.h>

enum { FIELD_OVERHEAD = 32, ARENA_EXTRA = 128 * 1024, ARENA_KEEP = 16 * 1024, FIELDS_MIN = 16 };

/* RFC 9110, 5.6.2: tchar. Gives the lower-case byte, 0 for what no token contains. */
const uint8_t cb_token_lower[256] = {
    ['!'] = '!', ['#'] = '#', ['$'] = '$', ['%'] = '%', ['&'] = '&', ['\''] = '\'', ['*'] = '*', ['+'] = '+',
    ['-'] = '-', ['.'] = '.', ['^'] = '^', ['_'] = '_', ['`'] = '`', ['|'] = '|',   ['~'] = '~', ['0'] = '0',
    ['1'] = '1', ['2'] = '2', ['3'] = '3', ['4'] = '4', ['5'] = '5', ['6'] = '6',   ['7'] = '7', ['8'] = '8',
    ['9'] = '9', ['A'] = 'a', ['B'] = 'b', ['C'] = 'c', ['D'] = 'd', ['E'] = 'e',   ['F'] = 'f', ['G'] = 'g',
    ['H'] = 'h', ['I'] = 'i', ['J'] = 'j', ['K'] = 'k', ['L'] = 'l', ['M'] = 'm',   ['N'] = 'n', ['O'] = 'o',
    ['P'] = 'p', ['Q'] = 'q', ['R'] = 'r', ['S'] = 's', ['T'] = 't', ['U'] = 'u',   ['V'] = 'v', ['W'] = 'w',
    ['X'] = 'x', ['Y'] = 'y', ['Z'] = 'z', ['a'] = 'a', ['b'] = 'b', ['c'] = 'c',   ['d'] = 'd', ['e'] = 'e',
    ['f'] = 'f', ['g'] = 'g', ['h'] = 'h', ['i'] = 'i', ['j'] = 'j', ['k'] = 'k',   ['l'] = 'l', ['m'] = 'm',
    ['n'] = 'n', ['o'] = 'o', ['p'] = 'p', ['q'] = 'q', ['r'] = 'r', ['s'] = 's',   ['t'] = 't', ['u'] = 'u',
    ['v'] = 'v', ['w'] = 'w', ['x'] = 'x', ['y'] = 'y', ['z'] = 'z'};

void cb_fields_init(cb_fields *f, const cb_alloc *alloc, uint32_t max_bytes, uint32_t max_fields) {
    *f = (cb_fields){.max_bytes = max_bytes, .max_fields = max_fields};
    cb_buf_init(&f->arena, alloc, (size_t)max_bytes + ARENA_EXTRA);
}

void cb_fields_free(cb_fields *f) {
    cb_mem_free(f->arena.alloc, f->at);
    cb_buf_free(&f->arena);
    f->at = NULL;
    f->len = f->cap = f->bytes = 0;
    f->sealed = false;
}

void cb_fields_clear(cb_fields *f) {
    if (f->arena.cap > ARENA_KEEP) cb_buf_free(&f->arena);
    f->arena.len = 0;
    f->len = f->bytes = 0;
    f->sealed = false;
}

/* Until it is sealed the arena may move, so a slice holds its offset in place of its address. */
static cb_slice from_offset(size_t at, size_t len) {
    return (cb_slice){(const uint8_t *)(uintptr_t)at, len}; // NOLINT(performance-no-int-to-ptr)
}

int cb_fields_put(cb_fields *f, cb_slice bytes, cb_slice *out) {
    size_t at = f->arena.len;
    if (f->sealed && bytes.len > f->arena.cap - at) return cb_fail(CB_EINVAL, "sealed fields must not move");
    int rc = cb_buf_add(&f->arena, bytes.base, bytes.len);
    if (rc < 0) return rc;
    *out = f->sealed ? (cb_slice){f->arena.base + at, bytes.len} : from_offset(at, bytes.len);
    return CB_OK;
}

void cb_fields_fix(const cb_fields *f, cb_slice *s) {
    if (s->len)
        s->base = f->arena.base + (uintptr_t)s->base;
    else
        s->base = (const uint8_t *)"";
}

int cb_fields_room(const cb_fields *f, size_t more) {
    if (f->len >= f->max_fields) return cb_fail(CB_ELIMIT, "more than %u fields", (unsigned)f->max_fields);
    if (more > f->max_bytes || f->bytes > f->max_bytes - more)
        return cb_fail(CB_ELIMIT, "the fields take more than %u bytes", (unsigned)f->max_bytes);
    return CB_OK;
}

int cb_fields_note(cb_fields *f, size_t name_at, size_t name_len, size_t value_at, size_t value_len) {
    int rc = cb_fields_room(f, name_len + value_len + FIELD_OVERHEAD);
    if (rc < 0) return rc;
    if (f->len == f->cap) {
        size_t cap = f->cap ? f->cap * 2 : FIELDS_MIN;
        cb_field *at = cb_mem_grow(f->arena.alloc, f->at, cap * sizeof *at);
        if (!at) return cb_fail(CB_ENOMEM, "no memory for %zu fields", cap);
        f->at = at;
        f->cap = cap;
    }
    f->at[f->len++] = (cb_field){from_offset(name_at, name_len), from_offset(value_at, value_len)};
    f->bytes += name_len + value_len + FIELD_OVERHEAD;
    return CB_OK;
}

int cb_fields_add(cb_fields *f, cb_slice name, cb_slice value) {
    int rc = cb_fields_room(f, name.len + value.len + FIELD_OVERHEAD);
    if (rc < 0) return rc;
    size_t at = f->arena.len;
    rc = cb_buf_reserve(&f->arena, name.len + value.len + 1); /* never nothing: there is a base then */
    if (rc < 0) return rc;
    uint8_t *p = f->arena.base + at;
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = cb_token_lower[name.base[i]];
        p[i] = c ? c : name.base[i];
    }
    if (value.len) memcpy(p + name.len, value.base, value.len);
    f->arena.len += name.len + value.len;
    return cb_fields_note(f, at, name.len, at + name.len, value.len);
}

void cb_fields_seal(cb_fields *f) {
    if (f->sealed) return;
    f->sealed = true;
    for (size_t i = 0; i < f->len; i++) {
        cb_fields_fix(f, &f->at[i].name);
        cb_fields_fix(f, &f->at[i].value);
    }
}

cb_slice cb_fields_get(const cb_fields *f, const char *lower_name) {
    size_t n = strlen(lower_name);
    if (!f->sealed) return (cb_slice){NULL, 0};
    for (size_t i = 0; i < f->len; i++)
        if (f->at[i].name.len == n && !memcmp(f->at[i].name.base, lower_name, n)) return f->at[i].value;
    return (cb_slice){NULL, 0};
}

bool cb_field_name_ok(cb_slice name) {
    for (size_t i = 0; i < name.len; i++)
        if (!cb_token_lower[name.base[i]]) return false;
    return name.len > 0;
}

bool cb_field_value_ok(cb_slice value) {
    if (!value.len) return true;
    for (size_t i = 0; i < value.len; i++) {
        uint8_t c = value.base[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) return false;
    }
    uint8_t first = value.base[0], last = value.base[value.len - 1];
    return first != ' ' && first != '\t' && last != ' ' && last != '\t';
}

static uint8_t lower(uint8_t c) {
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c;
}

bool cb_slice_ieq(cb_slice a, const char *b) {
    size_t n = strlen(b);
    if (a.len != n) return false;
    for (size_t i = 0; i < n; i++)
        if (lower(a.base[i]) != lower((uint8_t)b[i])) return false;
    return true;
}

bool cb_list_next(cb_slice *list, cb_slice *item) {
    while (list->len) {
        const uint8_t *comma = memchr(list->base, ',', list->len);
        size_t n = comma ? (size_t)(comma - list->base) : list->len;
        cb_slice s = {list->base, n};
        list->base += comma ? n + 1 : n;
        list->len -= comma ? n + 1 : n;
        while (s.len && (s.base[0] == ' ' || s.base[0] == '\t'))
            s.base++, s.len--;
        while (s.len && (s.base[s.len - 1] == ' ' || s.base[s.len - 1] == '\t'))
            s.len--;
        if (!s.len) continue;
        *item = s;
        return true;
    }
    return false;
}

bool cb_field_has_token(cb_slice list, const char *token) {
    cb_slice item;
    while (cb_list_next(&list, &item))
        if (cb_slice_ieq(item, token)) return true;
    return false;
}

bool cb_field_is_hop(cb_slice name) {
    static const char *const hop[] = {"te",      "connection",       "keep-alive",
                                      "upgrade", "proxy-connection", "transfer-encoding"};
    for (size_t i = 0; i < sizeof hop / sizeof *hop; i++)
        if (cb_slice_ieq(name, hop[i])) return true;
    return false;
}

static bool is_hex(uint8_t c) {
    return (c >= '0' && c <= '9') || (lower(c) >= 'a' && lower(c) <= 'f');
}

static bool is_alnum(uint8_t c) {
    return (c >= '0' && c <= '9') || (lower(c) >= 'a' && lower(c) <= 'z');
}

/* RFC 3986, 3.2.2: reg-name. */
static bool reg_name_ok(cb_slice s) {
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.base[i];
        if (is_alnum(c)) continue;
        if (c == '%') {
            if (s.len - i < 3 || !is_hex(s.base[i + 1]) || !is_hex(s.base[i + 2])) return false;
            i += 2;
            continue;
        }
        if (!c || !strchr("-._~!$&'()*+,;=", c)) return false;
    }
    return s.len > 0;
}

static bool ip_literal_ok(cb_slice s) {
    size_t colons = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (s.base[i] == ':')
            colons++;
        else if (!is_hex(s.base[i]) && s.base[i] != '.')
            return false;
    }
    return colons >= 2 && s.len <= 45;
}

static bool port_ok(cb_slice s) {
    uint32_t port = 0;
    if (s.len > 5) return false;
    for (size_t i = 0; i < s.len; i++) {
        if (s.base[i] < '0' || s.base[i] > '9') return false;
        port = port * 10 + (uint32_t)(s.base[i] - '0');
    }
    return port <= 65535;
}

bool cb_authority_ok(cb_slice a) {
    if (!a.len || a.len > 512) return false;
    cb_slice rest;
    if (a.base[0] == '[') {
        const uint8_t *close = memchr(a.base, ']', a.len);
        if (!close) return false;
        if (!ip_literal_ok((cb_slice){a.base + 1, (size_t)(close - a.base) - 1})) return false;
        rest = (cb_slice){close + 1, a.len - (size_t)(close - a.base) - 1};
    } else {
        const uint8_t *colon = memchr(a.base, ':', a.len);
        size_t n = colon ? (size_t)(colon - a.base) : a.len;
        if (!reg_name_ok((cb_slice){a.base, n})) return false;
        rest = (cb_slice){a.base + n, a.len - n};
    }
    if (!rest.len) return true;
    return rest.base[0] == ':' && port_ok((cb_slice){rest.base + 1, rest.len - 1});
}

bool cb_method_ok(cb_slice method) {
    return cb_field_name_ok(method) && method.len <= 64;
}

bool cb_target_ok(cb_slice path) {
    if (!path.len) return false;
    if (path.base[0] == '*') return path.len == 1;
    if (path.base[0] != '/') return false;
    for (size_t i = 0; i < path.len; i++)
        if (path.base[i] <= 0x20 || path.base[i] >= 0x7f || path.base[i] == '#') return false;
    return true;
}

static int64_t digits(cb_slice s) {
    int64_t v = 0;
    if (!s.len || s.len > 18) return -1;
    for (size_t i = 0; i < s.len; i++) {
        if (s.base[i] < '0' || s.base[i] > '9') return -1;
        v = v * 10 + (s.base[i] - '0');
    }
    return v;
}

int64_t cb_content_length(cb_slice value) {
    int64_t all = -1;
    cb_slice item;
    if (value.len && (value.base[0] == ',' || value.base[value.len - 1] == ',')) return -1;
    while (cb_list_next(&value, &item)) {
        int64_t one = digits(item);
        if (one < 0 || (all >= 0 && one != all)) return -1;
        all = one;
    }
    return all;
}
