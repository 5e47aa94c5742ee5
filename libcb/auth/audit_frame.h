/* The bytes of an audit log. Numbers are big-endian.
 *
 *   0  4  length of what follows        8  8  number (seq), from 1, without a gap
 *   4  1  kind: 'L', 'R' or 'C'        16 32  SHA-256 of the whole item before (32 x 0 before the first)
 *   5  1  version: 1                   48  8  time, microseconds since 1970
 *   6  2  0                            56     by kind:
 *
 *   L  begins a file: 8 "CBAUDIT1", 32 public key, 16 identity of the log, 8 number of the file
 *   R  a record: 1 outcome, 3 zeros, then actor, tenant, action, object, detail, before, after, each as 2 length, bytes
 *   C  a checkpoint: 8 records since the last one, 64 Ed25519 signature of a prefix and all bytes before it */
#ifndef CB_AUTH_AUDIT_FRAME_H
#define CB_AUTH_AUDIT_FRAME_H

#include "base/buf.h"
#include <cb/audit.h>
#include <stdbool.h>

enum {
    CB_AUDIT_COMMON = 56,
    CB_AUDIT_LINK_BYTES = CB_AUDIT_COMMON + 64,
    CB_AUDIT_CHECK_BYTES = CB_AUDIT_COMMON + 72,
    CB_AUDIT_SIGNATURE_BYTES = 64,
    CB_AUDIT_ID = 16,
    CB_AUDIT_FRAME_MAX = CB_AUDIT_COMMON + 4 + 7 * 2 + 3 * CB_AUDIT_TEXT_MAX + CB_AUDIT_OBJECT_MAX +
                         CB_AUDIT_DETAIL_MAX + 2 * CB_AUDIT_HASH
};

typedef struct cb_audit_frame {
    cb_slice whole;
    uint64_t seq;
    int64_t time_us;
    const uint8_t *prev;
    union {
        cb_audit_record record;
        struct {
            const uint8_t *key, *id;
            uint64_t number;
        } link;
        struct {
            uint64_t records;
            const uint8_t *signature;
        } check;
    } u;
    char kind;
} cb_audit_frame;

/* One item at the beginning of `in`. CB_EAGAIN: it goes on beyond; CB_EPROTO: it is none, *why says what is wrong. */
int cb_audit_frame_read(cb_slice in, cb_audit_frame *out, const char **why);

/* Adds a record, its number and chain still zero. CB_EINVAL names what is wrong with it. */
int cb_audit_frame_record(cb_buf *out, const cb_audit_record *record, int64_t time_us);
void cb_audit_frame_link(uint8_t out[CB_AUDIT_LINK_BYTES], const uint8_t key[CB_AUDIT_HASH],
                         const uint8_t id[CB_AUDIT_ID], uint64_t number, int64_t time_us);
/* Unsigned. */
void cb_audit_frame_check(uint8_t out[CB_AUDIT_CHECK_BYTES], uint64_t records, int64_t time_us);
/* Puts number and chain into an item and makes `chain` the hash of it. */
void cb_audit_frame_chain(uint8_t *frame, size_t len, uint64_t seq, uint8_t chain[CB_AUDIT_HASH]);
/* The same in two steps, for checkpoints: their signature comes between. */
void cb_audit_frame_place(uint8_t *frame, uint64_t seq, const uint8_t chain[CB_AUDIT_HASH]);
void cb_audit_hash(const void *bytes, size_t len, uint8_t out[CB_AUDIT_HASH]);

/* What a checkpoint's signature is over. */
enum { CB_AUDIT_SIGNED_BYTES = 24 + CB_AUDIT_CHECK_BYTES - CB_AUDIT_SIGNATURE_BYTES };
void cb_audit_signed(const uint8_t check[CB_AUDIT_CHECK_BYTES], uint8_t out[CB_AUDIT_SIGNED_BYTES]);
bool cb_audit_signature_good(const uint8_t check[CB_AUDIT_CHECK_BYTES], const uint8_t key[CB_AUDIT_HASH]);

/* ---- what the writer wants to know of a verifier ---- */

typedef struct cb_audit_place {
    uint64_t committed; /* offset behind the last checkpoint; 0: there is none */
    uint64_t seq;       /* of it */
    uint8_t chain[CB_AUDIT_HASH];
    uint8_t id[CB_AUDIT_ID]; /* of the log */
    uint64_t number;         /* of the file */
    int64_t begun_us;        /* when the file was */
} cb_audit_place;
void cb_audit_verifier_place(const cb_audit_verifier *v, cb_audit_place *out);

#endif
