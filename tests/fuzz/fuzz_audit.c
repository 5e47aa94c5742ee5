/* Audit logs as somebody may have left them: the verdict is the same whether the bytes come at once or in pieces, what
 * is read lies inside, and a tail is never more than there is. */
#include <cb/audit.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int on_record(const cb_audit_record *r, void *user) {
    size_t *sum = user;
    for (size_t i = 0; i < r->detail.len; i++)
        *sum += r->detail.base[i];
    if (!r->actor.len || !r->tenant.len || !r->action.len || r->outcome < CB_AUDIT_DONE) abort();
    return 0;
}

static int verdict(const uint8_t *data, size_t size, size_t step, cb_audit_report *report) {
    size_t sum = 0, at = 0, end = 0;
    cb_audit_verifier *v;
    const cb_audit_verify_opts o = {
        .size = sizeof o, .on_record = on_record, .user = &sum, .every_signature = step == 1};
    *report = (cb_audit_report){.size = sizeof *report};
    if (cb_audit_verifier_new(&v, &o) < 0) abort();
    while (end < size) {
        end = size - end > step ? end + step : size;
        int64_t used = cb_audit_verifier_feed(v, (cb_slice){data + at, end - at});
        if (used < 0) break;
        if ((size_t)used > end - at) abort();
        at += (size_t)used;
    }
    int rc = cb_audit_verifier_end(v, (cb_slice){data + at, end - at}, report);
    cb_audit_verifier_free(v);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cb_audit_report a, b, c;
    int whole = verdict(data, size, SIZE_MAX, &a), pieces = verdict(data, size, 37, &b);
    if (whole != pieces || a.flaw != b.flaw || a.seq != b.seq || a.offset != b.offset) abort();
    if ((whole == 0) != (a.flaw == CB_AUDIT_SOUND) || (whole == 0 && a.tail_bytes > size)) abort();
    if (size < 4096 && (verdict(data, size, 1, &c) == 0) && whole != 0) abort();
    return 0;
}
