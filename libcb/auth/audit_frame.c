#include "auth/audit_frame.h"
#include "base/error.h"
#include <gnutls/abstract.h>
#include <gnutls/crypto.h>
#include <string.h>

enum { VERSION = 1, TEXTS = 7 };
static const char magic[8] = {'C', 'B', 'A', 'U', 'D', 'I', 'T', '1'};
static const char signed_as[24] = "cb audit checkpoint v1";

/* What belongs into a record, in the order of the bytes. */
static const struct {
    const char *name;
    size_t offset;
    uint16_t max;
    bool required, hash;
} texts[TEXTS] = {
    {"actor", offsetof(cb_audit_record, actor), CB_AUDIT_TEXT_MAX, true, false},
    {"tenant", offsetof(cb_audit_record, tenant), CB_AUDIT_TEXT_MAX, true, false},
    {"action", offsetof(cb_audit_record, action), CB_AUDIT_TEXT_MAX, true, false},
    {"object", offsetof(cb_audit_record, object), CB_AUDIT_OBJECT_MAX, false, false},
    {"detail", offsetof(cb_audit_record, detail), CB_AUDIT_DETAIL_MAX, false, false},
    {"before", offsetof(cb_audit_record, before), CB_AUDIT_HASH, false, true},
    {"after", offsetof(cb_audit_record, after), CB_AUDIT_HASH, false, true},
};

static void put(uint8_t *p, uint64_t v, int bytes) {
    for (int i = bytes - 1; i >= 0; i--, v >>= 8)
        p[i] = (uint8_t)v;
}

static uint64_t get(const uint8_t *p, int bytes) {
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++)
        v = v << 8 | p[i];
    return v;
}

/* ---- reading ---- */

static bool fits(size_t row, size_t len) {
    if (texts[row].hash) return len == 0 || len == CB_AUDIT_HASH;
    return len <= texts[row].max && (len > 0 || !texts[row].required);
}

static const char *read_record(const uint8_t *p, const uint8_t *end, cb_audit_record *r) {
    if (end - p < 4 || p[0] < CB_AUDIT_DONE || p[0] > CB_AUDIT_FAILED || get(p + 1, 3) != 0) return "no such outcome";
    r->outcome = p[0];
    p += 4;
    for (size_t i = 0; i < TEXTS; i++) {
        if (end - p < 2) return "a record that ends early";
        size_t len = (size_t)get(p, 2);
        p += 2;
        if (len > (size_t)(end - p) || !fits(i, len)) return "a text of a length that is not allowed";
        memcpy((char *)r + texts[i].offset, &(cb_slice){len ? p : NULL, len}, sizeof(cb_slice));
        p += len;
    }
    return p == end ? NULL : "bytes after a record";
}

static const char *read_body(cb_audit_frame *f) {
    const uint8_t *p = f->whole.base + CB_AUDIT_COMMON, *end = f->whole.base + f->whole.len;
    switch (f->kind) {
    case 'R':
        f->u.record = (cb_audit_record){.size = sizeof f->u.record, .seq = f->seq, .time_us = f->time_us};
        return read_record(p, end, &f->u.record);
    case 'C':
        f->u.check.records = get(p, 8);
        f->u.check.signature = p + 8;
        return NULL;
    default:
        f->u.link.key = p + 8;
        f->u.link.id = p + 40;
        f->u.link.number = get(p + 56, 8);
        return memcmp(p, magic, sizeof magic) == 0 ? NULL : "not the beginning of an audit log";
    }
}

static const char *read_head(const uint8_t *p, size_t *len, char *kind) {
    *len = (size_t)get(p, 4) + 4;
    *kind = (char)p[4];
    bool fine = *kind == 'C'   ? *len == CB_AUDIT_CHECK_BYTES
                : *kind == 'L' ? *len == CB_AUDIT_LINK_BYTES
                               : *kind == 'R' && *len > CB_AUDIT_COMMON && *len <= CB_AUDIT_FRAME_MAX;
    if (!fine) return "no kind and length of an item";
    return p[5] == VERSION && get(p + 6, 2) == 0 ? NULL : "a version that this library does not know";
}

int cb_audit_frame_read(cb_slice in, cb_audit_frame *out, const char **why) {
    size_t len;
    *why = NULL;
    if (in.len < 8) return CB_EAGAIN;
    *why = read_head(in.base, &len, &out->kind);
    if (*why) return CB_EPROTO;
    if (in.len < len) return CB_EAGAIN;
    out->whole = (cb_slice){in.base, len};
    out->seq = get(in.base + 8, 8);
    out->prev = in.base + 16;
    out->time_us = (int64_t)get(in.base + 48, 8);
    *why = read_body(out);
    return *why ? CB_EPROTO : CB_OK;
}

/* ---- writing ---- */

static void put_head(uint8_t *p, char kind, size_t len, int64_t time_us) {
    memset(p, 0, CB_AUDIT_COMMON);
    put(p, len - 4, 4);
    p[4] = (uint8_t)kind;
    p[5] = VERSION;
    put(p + 48, (uint64_t)time_us, 8);
}

int cb_audit_frame_record(cb_buf *out, const cb_audit_record *record, int64_t time_us) {
    cb_slice parts[TEXTS];
    size_t len = CB_AUDIT_COMMON + 4;
    if (record->outcome < CB_AUDIT_DONE || record->outcome > CB_AUDIT_FAILED)
        return cb_fail(CB_EINVAL, "audit record: %d is no outcome", (int)record->outcome);
    for (size_t i = 0; i < TEXTS; i++) {
        memcpy(&parts[i], (const char *)record + texts[i].offset, sizeof(cb_slice));
        if (!fits(i, parts[i].len))
            return cb_fail(CB_EINVAL, "audit record: %s has %zu bytes; %s %d", texts[i].name, parts[i].len,
                           texts[i].hash       ? "a hash has none or"
                           : texts[i].required ? "it needs one at least, and at most"
                                               : "at most",
                           texts[i].max);
        len += 2 + parts[i].len;
    }
    int rc = cb_buf_reserve(out, len);
    if (rc < 0) return rc;
    uint8_t *p = out->base + out->len;
    put_head(p, 'R', len, time_us);
    p += CB_AUDIT_COMMON;
    put(p, (uint64_t)record->outcome << 24, 4);
    p += 4;
    for (size_t i = 0; i < TEXTS; i++) {
        put(p, parts[i].len, 2);
        if (parts[i].len) memcpy(p + 2, parts[i].base, parts[i].len);
        p += 2 + parts[i].len;
    }
    out->len += len;
    return CB_OK;
}

void cb_audit_frame_link(uint8_t out[CB_AUDIT_LINK_BYTES], const uint8_t key[CB_AUDIT_HASH],
                         const uint8_t id[CB_AUDIT_ID], uint64_t number, int64_t time_us) {
    uint8_t *p = out + CB_AUDIT_COMMON;
    put_head(out, 'L', CB_AUDIT_LINK_BYTES, time_us);
    memcpy(p, magic, sizeof magic);
    memcpy(p + 8, key, CB_AUDIT_HASH);
    memcpy(p + 40, id, CB_AUDIT_ID);
    put(p + 56, number, 8);
}

void cb_audit_frame_check(uint8_t out[CB_AUDIT_CHECK_BYTES], uint64_t records, int64_t time_us) {
    put_head(out, 'C', CB_AUDIT_CHECK_BYTES, time_us);
    put(out + CB_AUDIT_COMMON, records, 8);
    memset(out + CB_AUDIT_COMMON + 8, 0, CB_AUDIT_SIGNATURE_BYTES);
}

void cb_audit_frame_place(uint8_t *frame, uint64_t seq, const uint8_t chain[CB_AUDIT_HASH]) {
    put(frame + 8, seq, 8);
    memcpy(frame + 16, chain, CB_AUDIT_HASH);
}

void cb_audit_frame_chain(uint8_t *frame, size_t len, uint64_t seq, uint8_t chain[CB_AUDIT_HASH]) {
    cb_audit_frame_place(frame, seq, chain);
    cb_audit_hash(frame, len, chain);
}

/* ---- hash and signature ---- */

void cb_audit_hash(const void *bytes, size_t len, uint8_t out[CB_AUDIT_HASH]) {
    /* Cannot fail for SHA-256; if it ever did, the zeros would not verify. */
    if (gnutls_hash_fast(GNUTLS_DIG_SHA256, bytes, len, out) < 0) memset(out, 0, CB_AUDIT_HASH);
}

void cb_audit_signed(const uint8_t check[CB_AUDIT_CHECK_BYTES], uint8_t out[CB_AUDIT_SIGNED_BYTES]) {
    memcpy(out, signed_as, sizeof signed_as);
    memcpy(out + sizeof signed_as, check, CB_AUDIT_SIGNED_BYTES - sizeof signed_as);
}

bool cb_audit_signature_good(const uint8_t check[CB_AUDIT_CHECK_BYTES], const uint8_t key[CB_AUDIT_HASH]) {
    uint8_t text[CB_AUDIT_SIGNED_BYTES], raw_key[CB_AUDIT_HASH], raw[CB_AUDIT_SIGNATURE_BYTES];
    gnutls_pubkey_t pub = NULL;
    cb_audit_signed(check, text);
    memcpy(raw_key, key, sizeof raw_key);
    memcpy(raw, check + CB_AUDIT_CHECK_BYTES - sizeof raw, sizeof raw);
    if (gnutls_pubkey_init(&pub) < 0) return false;
    bool good = gnutls_pubkey_import_ecc_raw(pub, GNUTLS_ECC_CURVE_ED25519, &(gnutls_datum_t){raw_key, sizeof raw_key},
                                             NULL) >= 0 &&
                gnutls_pubkey_verify_data2(pub, GNUTLS_SIGN_EDDSA_ED25519, 0, &(gnutls_datum_t){text, sizeof text},
                                           &(gnutls_datum_t){raw, sizeof raw}) >= 0;
    gnutls_pubkey_deinit(pub);
    return good;
}
