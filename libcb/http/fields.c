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

void cb_fields_limit(cb_fields *f, uint32_t max_bytes, uint32_t max_fields) {
    f->max_bytes = max_bytes;
    f->max_fields = max_fields;
    f->arena.max = (size_t)max_bytes + ARENA_EXTRA;
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

int cb_fields_over(const cb_fields *f) {
    if (f->len >= f->max_fields) return cb_fail(CB_ELIMIT, "more than %u fields", (unsigned)f->max_fields);
    return cb_fail(CB_ELIMIT, "the fields take more than %u bytes", (unsigned)f->max_bytes);
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
    if (name.len) memcpy(p, name.base, name.len);
    cb_field_name_lower(p, name.len);
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

/* ---- eight bytes at once ---- */

#define ONES UINT64_C(0x0101010101010101)
#define HIGH (ONES << 7)

static inline uint64_t load8(const uint8_t *p) {
    uint64_t w;
    memcpy(&w, p, sizeof w);
    return w;
}

/* Four to seven bytes; those in the middle twice. */
static inline uint64_t load4(const uint8_t *p, size_t n) {
    uint32_t a, b;
    memcpy(&a, p, sizeof a);
    memcpy(&b, p + n - 4, sizeof b);
    return (uint64_t)b << 32 | a;
}

/* Does a rule hold for every byte? `word` answers for eight; when it says no, `bytes` decides. */
static inline bool every(const uint8_t *p, size_t n, bool (*word)(uint64_t), bool (*bytes)(const uint8_t *, size_t)) {
    if (n < 4) return bytes(p, n);
    size_t i = 0;
    for (; n - i >= 8; i += 8)
        if (!word(load8(p + i)) && !bytes(p + i, 8)) return false;
    if (i == n) return true;
    return word(n >= 8 ? load8(p + n - 8) : load4(p, n)) || bytes(p + i, n - i);
}

/* The high bit of each byte that is between two characters (ASCII). */
static inline uint64_t between(uint64_t w, uint8_t first, uint8_t last) {
    uint64_t low = w & ~HIGH;
    return (low + ONES * (0x80U - first)) & ~(low + ONES * (0x7fU - last)) & ~w & HIGH;
}

/* Letters and "-": what nearly all names are made of. */
static inline bool word_common(uint64_t w) {
    return (between(w | ONES * 0x20, 'a', 'z') | between(w, '-', '-')) == HIGH;
}

static inline bool bytes_token(const uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!cb_token_lower[p[i]]) return false;
    return true;
}

/* A byte is zero, or below n, when a subtraction borrows. */
static inline bool word_plain(uint64_t w) {
    uint64_t del = w ^ ONES * 0x7f;
    return !((((w - ONES * 0x20) & ~w) | ((del - ONES) & ~del)) & HIGH);
}

static inline bool bytes_plain(const uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if ((p[i] < 0x20 && p[i] != '\t') || p[i] == 0x7f) return false;
    return true;
}

static inline bool word_no_upper(uint64_t w) {
    return !between(w, 'A', 'Z');
}

static inline bool bytes_no_upper(const uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (p[i] >= 'A' && p[i] <= 'Z') return false;
    return true;
}

bool cb_field_name_ok(cb_slice name) {
    return name.len && every(name.base, name.len, word_common, bytes_token);
}

bool cb_field_name_no_upper(cb_slice name) {
    return every(name.base, name.len, word_no_upper, bytes_no_upper);
}

bool cb_field_value_ok(cb_slice value) {
    const uint8_t *p = value.base;
    if (!value.len) return true;
    uint8_t first = p[0], last = p[value.len - 1];
    if (first == ' ' || first == '\t' || last == ' ' || last == '\t') return false;
    return every(p, value.len, word_plain, bytes_plain);
}

void cb_field_name_lower(uint8_t *p, size_t n) {
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t w = load8(p);
        w |= between(w, 'A', 'Z') >> 2;
        memcpy(p, &w, sizeof w);
    }
    for (; n; p++, n--)
        if (*p >= 'A' && *p <= 'Z') *p |= 0x20;
}

bool cb_field_name_fold(uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint8_t c = cb_token_lower[p[i]];
        if (!c) return false;
        p[i] = c;
    }
    return n > 0;
}

static uint8_t lower(uint8_t c) {
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c;
}

bool cb_slice_same_letters(cb_slice a, const char *b) {
    for (size_t i = 0; i < a.len; i++)
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

/* Most names have none of these lengths and need no comparison. */
bool cb_field_is_hop(cb_slice name) {
    switch (name.len) {
    case 2:
        return cb_slice_ieq(name, "te");
    case 7:
        return cb_slice_ieq(name, "upgrade");
    case 10: /* "user-agent" is as long */
        return lower(name.base[0]) == 'c' ? cb_slice_ieq(name, "connection") : cb_slice_ieq(name, "keep-alive");
    case 16:
        return cb_slice_ieq(name, "proxy-connection");
    case 17:
        return cb_slice_ieq(name, "transfer-encoding");
    default:
        return false;
    }
}

static bool is_hex(uint8_t c) {
    return (c >= '0' && c <= '9') || (lower(c) >= 'a' && lower(c) <= 'f');
}

static bool is_alnum(uint8_t c) {
    return (c >= '0' && c <= '9') || (lower(c) >= 'a' && lower(c) <= 'z');
}

/* RFC 3986, 2.2 and 2.3, without letters and digits. */
static bool is_mark(uint8_t c) {
    switch (c) {
    case '-':
    case '.':
    case '_':
    case '~':
    case '!':
    case '$':
    case '&':
    case '\'':
    case '(':
    case ')':
    case '*':
    case '+':
    case ',':
    case ';':
    case '=':
        return true;
    default:
        return false;
    }
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
        if (!is_mark(c)) return false;
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
    int64_t all = digits(value);
    cb_slice item;
    if (all >= 0) return all; /* nearly always */
    if (value.len && (value.base[0] == ',' || value.base[value.len - 1] == ',')) return -1;
    while (cb_list_next(&value, &item)) {
        int64_t one = digits(item);
        if (one < 0 || (all >= 0 && one != all)) return -1;
        all = one;
    }
    return all;
}
