/* Sources and gates: made once, immutable from then on. */
#include "auth/authn_int.h"
#include "auth/revocations.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "http/fields.h"
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { TEXTS_MAX = 256, REALM_BYTES = 128, SCOPES_BYTES = 1024 };

const char *cb_authn_kind_text(int kind) {
    static const char *const names[] = {
        [CB_AUTHN_JWT] = "jwt", [CB_AUTHN_TOKEN] = "token", [CB_AUTHN_MTLS] = "mtls", [CB_AUTHN_API_KEY] = "api_key"};
    return kind > 0 && kind < CB_AUTHN_KINDS ? names[kind] : "unknown";
}

/* ---- lists of texts ---- */

void cb_authn_texts_free(char **texts, size_t n) {
    for (size_t i = 0; texts && i < n; i++)
        cb_mem_free(&cb_alloc_libc, texts[i]);
    cb_mem_free(&cb_alloc_libc, texts);
}

int cb_authn_texts(char ***out, size_t *n, const char *const *from, size_t len, const char *what) {
    if (!len) return CB_OK;
    if (!from || len > TEXTS_MAX) return cb_fail(CB_EINVAL, "%s: NULL, or more than %d", what, TEXTS_MAX);
    char **texts = cb_mem_new(&cb_alloc_libc, len * sizeof *texts);
    int rc = texts ? CB_OK : cb_fail(CB_ENOMEM, "no memory for %s", what);
    for (size_t i = 0; i < len && rc == CB_OK; i++) {
        if (!from[i] || !*from[i])
            rc = cb_fail(CB_EINVAL, "%s: number %zu is empty", what, i);
        else if (!(texts[i] = cb_mem_text(&cb_alloc_libc, from[i])))
            rc = cb_fail(CB_ENOMEM, "no memory for %s", what);
    }
    if (rc < 0) {
        cb_authn_texts_free(texts, len);
        return rc;
    }
    *out = texts;
    *n = len;
    return CB_OK;
}

static int copy_text(char **out, const char *text) {
    *out = cb_mem_text(&cb_alloc_libc, text);
    return text && !*out ? cb_fail(CB_ENOMEM, "no memory for a text") : CB_OK;
}

/* ---- sources ---- */

static int read_claims(cb_authn_source *s, const cb_authn_claims *claims) {
    cb_authn_claims c;
    int rc = cb_opts_read(&c, sizeof c, claims, "cb_authn_claims");
    if (rc < 0) return rc;
    if (c.tenant && c.tenant_is) return cb_fail(CB_EINVAL, "cb_authn_claims: tenant or tenant_is, not both");
    if (c.tenant_is && !*c.tenant_is) return cb_fail(CB_EINVAL, "cb_authn_claims: tenant_is is empty");
    rc = copy_text(&s->subject, c.subject ? c.subject : "sub");
    if (rc == CB_OK) rc = copy_text(&s->tenant, c.tenant);
    if (rc == CB_OK) rc = copy_text(&s->tenant_is, c.tenant_is);
    return rc == CB_OK ? copy_text(&s->roles, c.roles) : rc;
}

int cb_authn_source_make(cb_authn_source **out, size_t bytes, const cb_authn_source_vt *vt, const char *name,
                         const cb_authn_claims *claims, cb_revocations *revocations) {
    if (!name || !*name) return cb_fail(CB_EINVAL, "a source of identities needs a name");
    cb_authn_source *s = cb_mem_new(&cb_alloc_libc, bytes);
    if (!s) return cb_fail(CB_ENOMEM, "no memory for a source of identities");
    atomic_init(&s->refs, 1);
    s->vt = vt;
    s->revocations = revocations ? cb_revocations_ref(revocations) : NULL;
    int rc = copy_text(&s->name, name);
    if (rc == CB_OK) rc = read_claims(s, claims);
    if (rc < 0) {
        cb_authn_source_unref(s);
        return rc;
    }
    *out = s;
    return CB_OK;
}

const char *cb_authn_source_name(const cb_authn_source *s) {
    return s->name;
}

int cb_authn_source_kind(const cb_authn_source *s) {
    return s->vt->kind;
}

cb_authn_source *cb_authn_source_ref(cb_authn_source *s) {
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void cb_authn_source_unref(cb_authn_source *s) {
    if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1) return;
    s->vt->free(s);
    char *const texts[] = {s->name, s->subject, s->tenant, s->tenant_is, s->roles, s->field};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        cb_mem_free(&cb_alloc_libc, texts[i]);
    cb_revocations_unref(s->revocations);
    cb_mem_free(&cb_alloc_libc, s);
}

/* ---- gates ---- */

/* What stands between quotes without any escape: also the characters of a scope (RFC 6749, 3.3) but the space. */
static bool quotable(const char *text, bool spaces) {
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        if (*p < (spaces ? 0x20 : 0x21) || *p > 0x7e || *p == '"' || *p == '\\') return false;
    return true;
}

static int read_scopes(cb_authn *a) {
    cb_buf text;
    int rc = CB_OK;
    cb_buf_init(&text, &cb_alloc_libc, SCOPES_BYTES);
    for (size_t i = 0; i < a->n_scopes && rc == CB_OK; i++) {
        if (!quotable(a->scopes[i], false))
            rc = cb_fail(CB_EINVAL, "cb_authn_opts: scope \"%.100s\" is none of RFC 6749", a->scopes[i]);
        if (rc == CB_OK && i) rc = cb_buf_text(&text, " ");
        if (rc == CB_OK) rc = cb_buf_text(&text, a->scopes[i]);
    }
    if (rc == CB_OK && a->n_scopes) rc = cb_buf_add(&text, "", 1);
    if (rc < 0)
        cb_buf_free(&text);
    else
        a->scope_text = (char *)text.base;
    return rc;
}

static int read_sources(cb_authn *a, const cb_authn_opts *o) {
    for (size_t i = 0; i < o->n_sources; i++) {
        if (!o->sources[i]) return cb_fail(CB_EINVAL, "cb_authn_opts: source number %zu is NULL", i);
        a->sources[a->n++] = cb_authn_source_ref(o->sources[i]);
        a->bearer = a->bearer || o->sources[i]->bearer;
        a->dpop = a->dpop || o->sources[i]->dpop;
        a->authorization = a->authorization || o->sources[i]->vt->carrier == CB_CARRIER_AUTHORIZATION;
    }
    return CB_OK;
}

int cb_authn_new(cb_authn **out, const cb_authn_opts *opts) {
    cb_authn_opts o;
    if (!out) return cb_fail(CB_EINVAL, "cb_authn_new: out is NULL");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_authn_opts");
    if (rc < 0) return rc;
    const char *realm = o.realm ? o.realm : "api";
    if (!o.sources || !o.n_sources || o.n_sources > CB_AUTHN_SOURCES)
        return cb_fail(CB_EINVAL, "cb_authn_opts: 1 to %d sources are needed", CB_AUTHN_SOURCES);
    if (!quotable(realm, true) || strlen(realm) > REALM_BYTES)
        return cb_fail(CB_EINVAL, "cb_authn_opts: realm \"%.100s\" has a quote, a control, or is too long", realm);
    cb_authn *a = cb_mem_new(&cb_alloc_libc, sizeof *a);
    if (!a) return cb_fail(CB_ENOMEM, "no memory for a gate");
    atomic_init(&a->refs, 1);
    a->all = o.all != 0;
    a->need_tenant = o.need_tenant || o.tenant;
    rc = copy_text(&a->realm, realm);
    if (rc == CB_OK) rc = copy_text(&a->tenant, o.tenant);
    if (rc == CB_OK) rc = cb_authn_texts(&a->scopes, &a->n_scopes, o.scopes, o.n_scopes, "cb_authn_opts: scopes");
    if (rc == CB_OK) rc = cb_authn_texts(&a->roles, &a->n_roles, o.roles, o.n_roles, "cb_authn_opts: roles");
    if (rc == CB_OK) rc = read_scopes(a);
    if (rc == CB_OK) rc = read_sources(a, &o);
    if (rc < 0) {
        cb_authn_unref(a);
        return rc;
    }
    *out = a;
    return CB_OK;
}

cb_authn *cb_authn_ref(cb_authn *a) {
    atomic_fetch_add_explicit(&a->refs, 1, memory_order_relaxed);
    return a;
}

void cb_authn_unref(cb_authn *a) {
    if (!a || atomic_fetch_sub_explicit(&a->refs, 1, memory_order_acq_rel) != 1) return;
    for (size_t i = 0; i < a->n; i++)
        cb_authn_source_unref(a->sources[i]);
    cb_authn_texts_free(a->scopes, a->n_scopes);
    cb_authn_texts_free(a->roles, a->n_roles);
    cb_mem_free(&cb_alloc_libc, a->realm);
    cb_mem_free(&cb_alloc_libc, a->tenant);
    cb_mem_free(&cb_alloc_libc, a->scope_text);
    cb_mem_free(&cb_alloc_libc, a);
}

int cb_authn_reads(const cb_authn *a, cb_slice name) {
    if (a->authorization && cb_slice_eq(name, "authorization")) return 1;
    if (a->dpop && cb_slice_eq(name, "dpop")) return 1;
    for (size_t i = 0; i < a->n; i++)
        if (a->sources[i]->field && cb_slice_eq(name, a->sources[i]->field)) return 1;
    return 0;
}

int cb_authn_reads_like(const cb_authn *a, cb_slice name) {
    for (size_t i = 0; i < a->n; i++) {
        const char *field = a->sources[i]->field;
        size_t k = 0;
        if (!field || strlen(field) != name.len) continue;
        while (k < name.len && (name.base[k] == (uint8_t)field[k] || (name.base[k] == '_' && field[k] == '-')))
            k++;
        if (k == name.len) return 1;
    }
    return 0;
}
