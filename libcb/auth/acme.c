/* The ACME client's interface. */
#include "auth/acme_int.h"
#include "auth/ca_cert.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include <string.h>

enum { PATIENCE_S = 600, CONTACTS = 16 };

static const cb_alloc *const heap = &cb_alloc_libc;

static void texts_free(cb_acme_texts *t) {
    for (size_t i = 0; i < t->len; i++)
        cb_mem_free(heap, t->at[i]);
    cb_mem_free(heap, t->at);
    *t = (cb_acme_texts){NULL, 0};
}

static int texts_copy(cb_acme_texts *t, const char *const *from, size_t n) {
    texts_free(t);
    if (n == 0) return CB_OK;
    t->at = cb_mem_new(heap, n * sizeof *t->at);
    for (size_t i = 0; t->at && i < n; i++) {
        t->at[i] = cb_mem_text(heap, from[i]);
        if (!t->at[i]) return cb_fail(CB_ENOMEM, "no memory for texts");
        t->len++;
    }
    return t->at ? CB_OK : cb_fail(CB_ENOMEM, "no memory for texts");
}

static int check_opts(const cb_acme_opts *o) {
    if (!o->directory || !o->dir || !*o->dir || !o->client || !o->ops) {
        return cb_fail(CB_EINVAL, "cb_acme_opts: directory, dir, client and ops are needed");
    }
    if (cb_web_url_check(o->directory, o->directory, true, "directory") < 0) return CB_EINVAL;
    if (!o->eab_kid != !o->eab_key) return cb_fail(CB_EINVAL, "cb_acme_opts: eab_kid and eab_key belong together");
    if (o->contacts_len > CONTACTS) return cb_fail(CB_EINVAL, "cb_acme_opts: more than %d contacts", CONTACTS);
    for (size_t i = 0; i < o->contacts_len; i++) {
        if (!o->contacts[i] || !strchr(o->contacts[i], ':')) {
            return cb_fail(CB_EINVAL, "cb_acme_opts: contact %zu is no URL such as mailto:ops@example.org", i);
        }
    }
    return cb_ops_check(o->ops, sizeof *o->ops, "cb_acme_ops");
}

static int set_up(cb_acme *a, const cb_acme_opts *o) {
    int rc = cb_acme_core_copy(&a->directory, o->directory);
    if (rc >= 0 && o->eab_kid) rc = cb_acme_core_copy(&a->eab_kid, o->eab_kid);
    if (rc >= 0 && o->eab_key) {
        int64_t n = cb_acme_base64url_decode(a->eab_key, sizeof a->eab_key, o->eab_key);
        if (n < 16) return cb_fail(CB_EINVAL, "cb_acme_opts: eab_key is not a key in base64url");
        a->eab_key_len = (size_t)n;
    }
    if (rc >= 0) rc = texts_copy(&a->contacts, o->contacts, o->contacts_len);
    if (rc >= 0) rc = cb_acme_store_open(&a->store, o->dir);
    return rc >= 0 ? cb_acme_files_open(a) : rc;
}

int cb_acme_new(cb_acme **out, cb_loop *loop, const cb_acme_opts *opts) {
    cb_acme_opts o;
    if (!out || !loop) return cb_fail(CB_EINVAL, "cb_acme_new: out or loop is NULL");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_acme_opts");
    if (rc >= 0) rc = check_opts(&o);
    if (rc < 0) return rc;
    cb_acme *a = cb_mem_new(heap, sizeof *a);
    if (!a) return cb_fail(CB_ENOMEM, "no memory for an ACME client");
    a->loop = loop;
    a->client = o.client;
    a->ops = o.ops;
    a->user = o.user;
    a->patience_ms = (int64_t)(o.patience_s ? o.patience_s : PATIENCE_S) * 1000;
    a->settle_ms = o.settle_ms;
    a->agree_terms = o.agree_terms;
    a->other_hosts = o.other_hosts;
    a->store.fd = -1;
    cb_buf_init(&a->key_pem, heap, CB_ACME_KEY_BYTES);
    cb_buf_init(&a->csr, heap, CB_ACME_FILE_MAX);
    cb_buf_init(&a->cert_der, heap, CB_ACME_FILE_MAX);
    cb_fetch_init(&a->fetch, CB_ACME_ANSWER_BYTES, cb_acme_on_answer);
    rc = set_up(a, &o);
    if (rc < 0) {
        cb_acme_free(a);
        return rc;
    }
    *out = a;
    return CB_OK;
}

void cb_acme_free(cb_acme *a) {
    if (!a) return;
    cb_fetch_free(&a->fetch);
    cb_timer_free(a->timer);
    cb_acme_job_end(a);
    texts_free(&a->contacts);
    texts_free(&a->names);
    cb_jwk_clear(&a->key);
    cb_jwk_clear(&a->new_key);
    if (a->key_pem.base) cb_mem_wipe(a->key_pem.base, a->key_pem.cap);
    cb_buf_free(&a->key_pem);
    cb_buf_free(&a->csr);
    cb_buf_free(&a->cert_der);
    cb_acme_store_close(&a->store);
    cb_mem_free(heap, a->directory);
    cb_mem_free(heap, a->kid);
    cb_mem_free(heap, a->eab_kid);
    cb_mem_free(heap, a->profile);
    cb_mem_wipe(a, sizeof *a);
    cb_mem_free(heap, a);
}

static int check_order(const cb_acme_order *o) {
    if (!o->names || o->names_len == 0 || o->names_len > CB_ACME_NAMES) {
        return cb_fail(CB_EINVAL, "cb_acme_order: 1 to %d names", CB_ACME_NAMES);
    }
    if (o->challenge < 0 || o->challenge > CB_ACME_TLS_ALPN_01)
        return cb_fail(CB_EINVAL, "cb_acme_order: challenge %d", o->challenge);
    if (o->key_type < 0 || o->key_type > CB_KEY_ED25519)
        return cb_fail(CB_EINVAL, "cb_acme_order: key_type %d", o->key_type);
    if (o->profile && !cb_web_is_token(o->profile, strlen(o->profile), 64)) {
        return cb_fail(CB_EINVAL, "cb_acme_order: \"%.80s\" is no name of a profile", o->profile);
    }
    for (size_t i = 0; i < o->names_len; i++) {
        int rc = cb_cert_check_name(o->names[i]);
        if (rc < 0) return rc;
        if (o->names[i][0] == '*' && o->challenge != CB_ACME_DNS_01) {
            return cb_fail(CB_EINVAL, "%s: a wildcard needs dns-01", o->names[i]);
        }
        uint8_t ip[16];
        if (o->challenge == CB_ACME_DNS_01 && cb_cert_ip(o->names[i], ip)) {
            return cb_fail(CB_EINVAL, "%s: dns-01 shows no control of an IP address", o->names[i]);
        }
    }
    return CB_OK;
}

static int check_idle(const cb_acme *a) {
    if (!a) return cb_fail(CB_EINVAL, "cb_acme: a is NULL");
    return a->busy ? cb_fail(CB_EAGAIN, "an ACME job is under way") : CB_OK;
}

int cb_acme_issue(cb_acme *a, const cb_acme_order *order) {
    cb_acme_order o;
    int rc = check_idle(a);
    if (rc >= 0) rc = cb_opts_read(&o, sizeof o, order, "cb_acme_order");
    if (rc >= 0) rc = check_order(&o);
    if (rc >= 0) rc = texts_copy(&a->names, o.names, o.names_len);
    if (rc < 0) return rc;
    cb_mem_free(heap, a->profile);
    a->profile = cb_mem_text(heap, o.profile);
    if (o.profile && !a->profile) return cb_fail(CB_ENOMEM, "no memory for an ACME job");
    a->order = o;
    a->order.names = NULL;
    a->order.profile = NULL;
    if (!a->order.challenge) a->order.challenge = CB_ACME_HTTP_01;
    cb_acme_files_look(a, a->names.at[0], false); /* one that is not there or unreadable is replaced */
    return cb_acme_job_start(a, CB_ACME_JOB_ORDER);
}

int cb_acme_account(cb_acme *a, int op) {
    static const int jobs[] = {CB_ACME_JOB_ACCOUNT, CB_ACME_JOB_CONTACTS, CB_ACME_JOB_ROLL, CB_ACME_JOB_DEACTIVATE};
    int rc = check_idle(a);
    if (rc < 0) return rc;
    if (op < 0 || (size_t)op >= sizeof jobs / sizeof *jobs) return cb_fail(CB_EINVAL, "cb_acme_account: op %d", op);
    a->file[0] = '\0';
    memset(&a->cert, 0, sizeof a->cert);
    a->renew_at_s = 0;
    return cb_acme_job_start(a, jobs[op]);
}

int cb_acme_revoke(cb_acme *a, const char *name, uint32_t reason) {
    int rc = check_idle(a);
    if (rc >= 0) rc = cb_cert_check_name(name);
    if (rc >= 0) rc = cb_acme_files_look(a, name, true);
    if (rc < 0) return rc;
    a->plan.reason = reason;
    return cb_acme_job_start(a, CB_ACME_JOB_REVOKE);
}

const char *cb_acme_thumbprint(const cb_acme *a) {
    return a->key.thumbprint;
}
