#include "auth/audit_frame.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include <inttypes.h>
#include <string.h>

struct cb_audit_verifier {
    cb_audit_verify_opts opts;
    cb_audit_head known;
    cb_audit_report report;
    cb_audit_place last;
    const char *why;
    uint64_t offset, seq, before; /* of the next item; `before`: where the one before it begins */
    uint8_t expected[CB_AUDIT_HASH], chain[CB_AUDIT_HASH], check[CB_AUDIT_CHECK_BYTES];
    cb_audit_place file; /* id, number and begin of the file at hand */
    uint64_t zeros_at;
    char last_kind;
    bool zeros; /* only zeros may follow: a crash left a longer file than it has content */
    bool known_seen;
};

static int flaw(cb_audit_verifier *v, int what, uint64_t offset, const char *why) {
    if (v->report.flaw == CB_AUDIT_SOUND) {
        v->report.flaw = what;
        v->report.offset = offset;
        v->report.seq = v->seq;
        v->why = why;
    }
    return cb_fail(CB_EPROTO, "audit log: at byte %" PRIu64 ", number %" PRIu64 ": %s", v->report.offset, v->report.seq,
                   v->why);
}

int cb_audit_verifier_new(cb_audit_verifier **out, const cb_audit_verify_opts *opts) {
    cb_audit_verify_opts o;
    if (!out) return cb_fail(CB_EINVAL, "cb_audit_verifier_new: out is NULL");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_audit_verify_opts");
    if (rc < 0) return rc;
    cb_audit_verifier *v = cb_mem_new(&cb_alloc_libc, sizeof *v);
    if (!v) return cb_fail(CB_ENOMEM, "no memory to verify an audit log");
    v->seq = 1;
    v->opts = o;
    v->report.size = sizeof v->report;
    if (o.key) memcpy(v->expected, o.key, sizeof v->expected);
    if (o.head) v->known = *o.head;
    *out = v;
    return CB_OK;
}

void cb_audit_verifier_free(cb_audit_verifier *v) {
    cb_mem_free(&cb_alloc_libc, v);
}

void cb_audit_verifier_place(const cb_audit_verifier *v, cb_audit_place *out) {
    *out = v->last;
    memcpy(out->id, v->file.id, CB_AUDIT_ID);
    out->number = v->file.number;
    out->begun_us = v->file.begun_us;
}

static int begin(cb_audit_verifier *v, const cb_audit_frame *f) {
    const bool first = v->file.number == 0;
    if (!first && (v->last_kind != 'C' || f->u.link.number != v->file.number + 1 ||
                   memcmp(f->u.link.id, v->file.id, CB_AUDIT_ID) != 0))
        return flaw(v, CB_AUDIT_MALFORMED, v->offset, "a beginning that does not go on from the file before");
    if (!first && memcmp(f->u.link.key, v->report.key, CB_AUDIT_HASH) != 0)
        return flaw(v, CB_AUDIT_KEY, 0, "the file names another key than the one before");
    memcpy(v->report.key, f->u.link.key, CB_AUDIT_HASH);
    if (v->opts.key && memcmp(v->expected, v->report.key, CB_AUDIT_HASH) != 0)
        return flaw(v, CB_AUDIT_KEY, 0, "the log names another key than was expected");
    if (first) v->report.first_file = f->u.link.number;
    v->report.file = v->file.number = f->u.link.number;
    v->file.begun_us = f->time_us;
    memcpy(v->file.id, f->u.link.id, CB_AUDIT_ID);
    v->offset = v->last.committed = 0; /* offsets are those of the file */
    return CB_OK;
}

static int checkpoint(cb_audit_verifier *v, const cb_audit_frame *f) {
    memcpy(v->check, f->whole.base, sizeof v->check);
    if (v->opts.every_signature && !cb_audit_signature_good(v->check, v->report.key))
        return flaw(v, CB_AUDIT_SIGNATURE, v->offset, "a checkpoint that was not signed by the log's key");
    v->last = (cb_audit_place){.committed = v->offset + f->whole.len, .seq = f->seq};
    memcpy(v->last.chain, v->chain, CB_AUDIT_HASH);
    v->report.head = (cb_audit_head){.seq = f->seq, .time_us = f->time_us};
    memcpy(v->report.head.hash, v->chain, CB_AUDIT_HASH);
    return CB_OK;
}

/* A log may begin with a later file: what that is chained to is not here. */
static int first_item(cb_audit_verifier *v, const cb_audit_frame *f) {
    if (f->kind != 'L' || f->u.link.number == 0)
        return flaw(v, CB_AUDIT_MALFORMED, 0, "the beginning of the log is missing");
    if (f->u.link.number == 1) return CB_OK;
    v->seq = f->seq;
    memcpy(v->chain, f->prev, CB_AUDIT_HASH);
    if (f->seq == 0) return flaw(v, CB_AUDIT_MALFORMED, 0, "the log begins with the number 0");
    if (!v->opts.head || v->known.seq >= f->seq) return CB_OK;
    if (v->known.seq + 1 < f->seq)
        return flaw(v, CB_AUDIT_EARLIER, 0, "the known head lies in an earlier file, which is not here");
    v->known_seen = memcmp(v->known.hash, f->prev, CB_AUDIT_HASH) == 0; /* the end of the file before */
    return v->known_seen ? CB_OK : flaw(v, CB_AUDIT_HEAD, 0, "the file does not go on from the known head");
}

static int in_its_place(cb_audit_verifier *v, const cb_audit_frame *f) {
    int rc = v->file.number == 0 ? first_item(v, f) : CB_OK;
    if (rc < 0) return rc;
    if (f->seq > v->seq) return flaw(v, CB_AUDIT_LOST, v->offset, "records are missing before this one");
    if (f->seq < v->seq) return flaw(v, CB_AUDIT_ORDER, v->offset, "a record that was moved or repeated");
    if (memcmp(f->prev, v->chain, CB_AUDIT_HASH) != 0)
        return flaw(v, CB_AUDIT_CHANGED, v->before, "this is not the record that the next one was chained to");
    return CB_OK;
}

static int take(cb_audit_verifier *v, const cb_audit_frame *f) {
    int rc = in_its_place(v, f);
    if (rc < 0) return rc;
    cb_audit_hash(f->whole.base, f->whole.len, v->chain);
    if (v->known.seq == f->seq) {
        v->known_seen = true;
        if (memcmp(v->known.hash, v->chain, CB_AUDIT_HASH) != 0)
            return flaw(v, CB_AUDIT_HEAD, v->offset, "this is not the checkpoint of the known head");
    }
    if (f->kind == 'L') rc = begin(v, f);
    if (f->kind == 'C') rc = checkpoint(v, f);
    if (f->kind == 'R') {
        v->report.records++;
        if (v->opts.on_record) rc = v->opts.on_record(&f->u.record, v->opts.user);
    }
    v->before = v->offset;
    v->offset += f->whole.len;
    v->last_kind = f->kind;
    v->seq++;
    return rc;
}

static bool all_zero(cb_slice s) {
    size_t i = 0;
    while (i < s.len && s.base[i] == 0)
        i++;
    return i == s.len;
}

int64_t cb_audit_verifier_feed(cb_audit_verifier *v, cb_slice bytes) {
    size_t used = 0;
    if (v->report.flaw) return flaw(v, 0, 0, NULL);
    while (!v->zeros) {
        static const uint8_t nothing[8];
        const char *why;
        cb_audit_frame f;
        const cb_slice rest = {bytes.base ? bytes.base + used : NULL, bytes.len - used};
        int rc = cb_audit_frame_read(rest, &f, &why);
        if (rc == CB_EAGAIN) return (int64_t)used;
        if (rc == CB_EPROTO && v->last.committed && memcmp(rest.base, nothing, sizeof nothing) == 0) {
            v->zeros = true;
            v->zeros_at = v->offset;
            break;
        }
        rc = rc < 0 ? flaw(v, CB_AUDIT_MALFORMED, v->offset, why) : take(v, &f);
        if (rc != CB_OK) return rc;
        used += f.whole.len;
    }
    if (!all_zero((cb_slice){bytes.base + used, bytes.len - used}))
        return flaw(v, CB_AUDIT_MALFORMED, v->zeros_at, "zeros where a record should be");
    v->offset += bytes.len - used;
    return (int64_t)bytes.len;
}

/* A signed checkpoint inside what looks like a torn record: the length of that record was changed. */
static bool has_checkpoint(const cb_audit_verifier *v, cb_slice rest) {
    static const uint8_t head[8] = {0, 0, 0, CB_AUDIT_CHECK_BYTES - 4, 'C', 1, 0, 0};
    for (size_t i = 0; i + CB_AUDIT_CHECK_BYTES <= rest.len; i++) {
        if (memcmp(rest.base + i, head, sizeof head) == 0 && cb_audit_signature_good(rest.base + i, v->report.key))
            return true;
    }
    return false;
}

static int judge(cb_audit_verifier *v, cb_slice rest) {
    if (v->report.flaw) return flaw(v, 0, 0, NULL);
    if (v->last.committed == 0) return flaw(v, CB_AUDIT_MALFORMED, 0, "a log without a checkpoint");
    if (!v->opts.every_signature && !cb_audit_signature_good(v->check, v->report.key))
        return flaw(v, CB_AUDIT_SIGNATURE, v->last.committed - CB_AUDIT_CHECK_BYTES,
                    "a checkpoint that was not signed by the log's key");
    if (!v->zeros && has_checkpoint(v, rest))
        return flaw(v, CB_AUDIT_MALFORMED, v->offset, "a record whose length was changed: a checkpoint lies inside");
    if (v->opts.head && (!v->known_seen || v->last.seq < v->known.seq))
        return flaw(v, CB_AUDIT_CUT, v->offset, "the log ends before the head that is known");
    return CB_OK;
}

int cb_audit_verifier_end(cb_audit_verifier *v, cb_slice rest, cb_audit_report *report) {
    int rc = judge(v, rest);
    if (rc == CB_OK) v->report.tail_bytes = v->offset + rest.len - v->last.committed;
    int given = report ? cb_stats_give(report, &v->report, sizeof v->report, "cb_audit_report") : CB_OK;
    return rc < 0 ? rc : given;
}
