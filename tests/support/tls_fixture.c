#include "support/tls_fixture.h"
#include "base/mem.h"
#include "support/scratch.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void tls_pki_make(tls_pki *p) {
    tls_pki_make_of(p, 0);
}

void tls_pki_make_of(tls_pki *p, int key_type) {
    p->key_type = key_type;
    scratch_folder(p->dir, sizeof p->dir, "pki");
    snprintf(p->ca_file, sizeof p->ca_file, "%s/ca.pem", p->dir);
    int rc = cb_ca_open(&p->ca, CB_OPTS(cb_ca_opts, .dir = p->dir, .key_type = key_type));
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
}

void tls_pki_drop(tls_pki *p) {
    cb_ca_free(p->ca);
    scratch_drop(p->dir);
}

void tls_pki_leaf(tls_pki *p, const char *names, int key_type, const char *stem, int64_t not_before_s, uint32_t days) {
    char copy[512], *rest = copy;
    const char *list[8];
    size_t n = 0;
    snprintf(copy, sizeof copy, "%s", names);
    for (char *name; n < 8 && (name = strtok_r(rest, ",", &rest));) {
        list[n++] = name;
    }
    int rc = cb_ca_issue(p->ca,
                         CB_OPTS(cb_leaf_opts, .names = list, .names_len = n, .file_stem = stem, .key_type = key_type,
                                 .not_before_s = not_before_s, .days = days),
                         NULL, NULL);
    cr_assert_eq(rc, CB_OK, "%s: %s", names, cb_last_error());
}

const char *tls_pki_path(tls_pki *p, const char *file, char out[160]) {
    snprintf(out, 160, "%s/%s", p->dir, file);
    return out;
}

cb_identity *tls_pki_identity(tls_pki *p, const char *names) {
    char cert[160], key[160];
    cb_identity *id = NULL;
    tls_pki_leaf(p, names, p->key_type, "leaf", 0, 0);
    int rc = cb_identity_new(&id, CB_OPTS(cb_identity_opts, .cert_file = tls_pki_path(p, "leaf.pem", cert),
                                          .key_file = tls_pki_path(p, "leaf-key.pem", key), .ca_file = p->ca_file));
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    return id;
}

cb_identity *tls_pki_client(tls_pki *p) {
    cb_identity *id = NULL;
    int rc = cb_identity_new(&id, CB_OPTS(cb_identity_opts, .ca_file = p->ca_file));
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    return id;
}

static int cipher_out(void *user, const cb_slice *v, size_t n) {
    tls_end *e = user;
    for (size_t i = 0; i < n; i++) {
        int rc = cb_buf_add(&e->out, v[i].base, v[i].len);
        if (rc < 0) return rc;
    }
    return CB_OK;
}

static int64_t plain_in(void *user, cb_slice data) {
    tls_end *e = user;
    size_t n = data.len < e->take ? data.len : e->take;
    int rc = cb_buf_add(&e->plain, data.base, n);
    return rc < 0 ? rc : (int64_t)n;
}

static void opened(void *user) {
    ((tls_end *)user)->opened++;
}

static void eof(void *user) {
    ((tls_end *)user)->eofs++;
}

void tls_end_prepare(tls_end *e, const cb_tls_opts *opts) {
    static const cb_tls_stream_ops ops = {cipher_out, plain_in, opened, eof};
    memset(e, 0, sizeof *e);
    e->take = SIZE_MAX;
    cb_buf_init(&e->out, &cb_alloc_libc, 64 << 20);
    cb_buf_init(&e->plain, &cb_alloc_libc, 64 << 20);
    int rc = cb_tls_session_new(&e->tls, &cb_alloc_libc, opts);
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    cb_tls_stream_attach(e->tls, &ops, e);
}

void tls_end_start(tls_end *e) {
    int rc = cb_tls_stream_start(e->tls);
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
}

void tls_end_make(tls_end *e, const cb_tls_opts *opts) {
    tls_end_prepare(e, opts);
    tls_end_start(e);
}

void tls_end_drop(tls_end *e) {
    cb_tls_session_free(e->tls);
    cb_buf_free(&e->out);
    cb_buf_free(&e->plain);
}

static bool move(tls_end *from, tls_end *to, size_t step) {
    size_t n = step && step < from->out.len ? step : from->out.len;
    if (n == 0) return false;
    if (to->rc >= 0) {
        to->rc = cb_tls_stream_feed(to->tls, (cb_slice){from->out.base, n});
        if (to->rc < 0) snprintf(to->error, sizeof to->error, "%s", cb_last_error());
    }
    cb_buf_drop(&from->out, n);
    return true;
}

void tls_talk(tls_end *client, tls_end *server, size_t step) {
    bool moved = true;
    while (moved) {
        moved = move(client, server, step);
        moved = move(server, client, step) || moved;
    }
}
