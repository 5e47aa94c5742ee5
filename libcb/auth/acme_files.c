/* What an ACME client keeps: keys, the account, orders under way, certificates. */
#include "auth/acme_int.h"
#include "auth/ca_cert.h"
#include "auth/renew_time.h"
#include "base/error.h"
#include "base/mem.h"
#include <stdio.h>
#include <string.h>

static const char key_file[] = "account.key", new_key_file[] = "account.key.new", account_file[] = "account.json";
static const cb_alloc *const heap = &cb_alloc_libc;

static int load_key(cb_acme *a, cb_acme_key *key, const char *file) {
    cb_buf pem;
    char why[256];
    cb_buf_init(&pem, heap, CB_ACME_KEY_BYTES);
    int rc = cb_acme_store_read(&a->store, file, &pem);
    if (rc >= 0) {
        rc = cb_acme_key_read(key, cb_buf_slice(&pem));
        snprintf(why, sizeof why, "%s", cb_last_error());
        if (rc < 0) rc = cb_fail(rc, "%s/%s: %s", a->store.dir, file, why);
    }
    if (pem.base) cb_mem_wipe(pem.base, pem.len);
    cb_buf_free(&pem);
    return rc;
}

static int make_key(cb_acme *a, cb_acme_key *key, const char *file) {
    cb_buf pem;
    cb_buf_init(&pem, heap, CB_ACME_KEY_BYTES);
    int rc = cb_acme_make_key(&pem, CB_KEY_ECDSA_P256);
    if (rc >= 0) rc = cb_acme_store_write(&a->store, file, cb_buf_slice(&pem));
    if (rc >= 0) rc = cb_acme_key_read(key, cb_buf_slice(&pem));
    if (pem.base) cb_mem_wipe(pem.base, pem.len);
    cb_buf_free(&pem);
    return rc;
}

/* account.json: {"directory": ..., "account": URL}. What cannot be read is as if it were not there: the key finds the
 * account again. */
static int load_account(cb_acme *a) {
    cb_buf text;
    cb_buf_init(&text, heap, CB_ACME_FILE_MAX);
    int rc = cb_acme_store_read(&a->store, account_file, &text);
    cb_json json = {0};
    if (rc >= 0) (void)cb_acme_json(&json, cb_buf_slice(&text));
    const char *directory = cb_acme_text(cb_acme_root(&json), "directory");
    const char *kid = cb_acme_text(cb_acme_root(&json), "account");
    if (rc == CB_ENOENT) rc = CB_OK;
    if (rc >= 0 && directory && strcmp(directory, a->directory) != 0) {
        rc = cb_fail(CB_EINVAL, "%s: this account is at %s", a->store.dir, directory);
    } else if (rc >= 0 && kid && cb_web_url_check(kid, a->directory, a->other_hosts, "account") >= 0) {
        rc = cb_acme_core_copy(&a->kid, kid);
    }
    cb_json_close(&json);
    cb_buf_free(&text);
    return rc;
}

int cb_acme_files_save_account(cb_acme *a) {
    cb_buf text;
    cb_buf_init(&text, heap, CB_ACME_FILE_MAX);
    int rc = cb_buf_text(&text, "{\"directory\":");
    if (rc >= 0) rc = cb_web_put_text(&text, a->directory);
    if (rc >= 0) rc = cb_buf_text(&text, ",\"account\":");
    if (rc >= 0) rc = cb_web_put_text(&text, a->kid);
    if (rc >= 0) rc = cb_buf_text(&text, "}\n");
    if (rc >= 0) rc = cb_acme_store_write(&a->store, account_file, cb_buf_slice(&text));
    cb_buf_free(&text);
    return rc;
}

static int put_names(cb_acme *a, cb_buf *out) {
    int rc = cb_buf_text(out, "[");
    for (size_t i = 0; rc >= 0 && i < a->names.len; i++) {
        if (i) rc = cb_buf_text(out, ",");
        if (rc >= 0) rc = cb_web_put_text(out, a->names.at[i]);
    }
    return rc >= 0 ? cb_buf_text(out, "]") : rc;
}

int cb_acme_files_save_order(cb_acme *a) {
    cb_buf text;
    char name[300];
    cb_buf_init(&text, heap, CB_ACME_FILE_MAX);
    int rc = cb_buf_text(&text, "{\"names\":");
    if (rc >= 0) rc = put_names(a, &text);
    if (rc >= 0) rc = cb_buf_text(&text, ",\"profile\":");
    if (rc >= 0) rc = cb_web_put_text(&text, a->profile ? a->profile : "");
    if (rc >= 0) rc = cb_buf_text(&text, ",\"url\":");
    if (rc >= 0) rc = cb_web_put_text(&text, a->core.order_url);
    if (rc >= 0) rc = cb_buf_text(&text, ",\"key\":");
    if (rc >= 0) rc = cb_buf_add(&a->key_pem, "", 1); /* as text, for a moment */
    if (rc >= 0) {
        rc = cb_web_put_text(&text, (const char *)a->key_pem.base);
        a->key_pem.len--;
    }
    if (rc >= 0) rc = cb_buf_text(&text, "}\n");
    cb_acme_store_name(name, a->names.at[0], ".order");
    if (rc >= 0) rc = cb_acme_store_write(&a->store, name, cb_buf_slice(&text));
    if (text.base) cb_mem_wipe(text.base, text.len);
    cb_buf_free(&text);
    return rc;
}

static bool same_names(const cb_acme *a, cb_acme_value names) {
    if (!cb_acme_is(names, CB_JSON_LIST) || names.at->len != a->names.len) return false;
    cb_acme_value name = cb_acme_first(names);
    for (size_t i = 0; i < a->names.len; i++, name = cb_acme_next(names, name))
        if (!cb_acme_is(name, CB_JSON_TEXT) || strcmp(names.json->text + name.at->at, a->names.at[i]) != 0)
            return false;
    return true;
}

int cb_acme_files_load_order(cb_acme *a, char **url) {
    cb_buf text;
    char name[300];
    cb_buf_init(&text, heap, CB_ACME_FILE_MAX);
    cb_acme_store_name(name, a->names.at[0], ".order");
    int rc = cb_acme_store_read(&a->store, name, &text);
    cb_json json = {0};
    if (rc >= 0) (void)cb_acme_json(&json, cb_buf_slice(&text));
    const cb_acme_value root = cb_acme_root(&json);
    const char *key = cb_acme_text(root, "key"), *at = cb_acme_text(root, "url");
    const char *profile = cb_acme_text(root, "profile");
    if (rc == CB_ENOENT) rc = CB_OK;
    if (rc >= 0 && key && at && profile && strcmp(profile, a->profile ? a->profile : "") == 0 &&
        same_names(a, cb_acme_member(root, "names")) &&
        cb_web_url_check(at, a->directory, a->other_hosts, "order") >= 0) {
        rc = cb_acme_core_copy(url, at);
        if (rc >= 0) rc = cb_buf_text(&a->key_pem, key);
    }
    cb_json_close(&json);
    if (text.base) cb_mem_wipe(text.base, text.len);
    cb_buf_free(&text);
    return rc;
}

int cb_acme_files_open(cb_acme *a) {
    int rc = load_key(a, &a->key, key_file);
    if (rc == CB_ENOENT) rc = make_key(a, &a->key, key_file);
    if (rc >= 0) {
        rc = load_key(a, &a->new_key, new_key_file);
        if (rc == CB_ENOENT) rc = CB_OK;
    }
    return rc >= 0 ? load_account(a) : rc;
}

void cb_acme_files_forget_order(cb_acme *a, int rc) {
    char name[300];
    if (rc == CB_ETIMEOUT || rc == CB_ELIMIT || rc == CB_EUNREACH || rc == CB_ECLOSED || rc == CB_EDNS ||
        rc == CB_ESYS || rc == CB_ENOMEM || rc == CB_ETLS || rc == CB_EUSER) {
        return;
    }
    cb_acme_store_name(name, a->names.at[0], ".order");
    cb_acme_store_remove(&a->store, name);
}

int cb_acme_files_look(cb_acme *a, const char *name, bool any_names) {
    char file[300];
    cb_buf pem;
    cb_acme_store_name(file, name, ".pem");
    snprintf(a->file, sizeof a->file, "%s/%s", a->store.dir, file);
    memset(&a->cert, 0, sizeof a->cert);
    a->renew_at_s = 0;
    a->cert_der.len = 0;
    cb_buf_init(&pem, heap, CB_ACME_FILE_MAX);
    int rc = cb_acme_store_read(&a->store, file, &pem);
    if (rc >= 0 && (any_names || cb_acme_cert_has_names(cb_buf_slice(&pem), cb_acme_list(&a->names), a->names.len))) {
        rc = cb_acme_cert_read(&a->cert, cb_buf_slice(&pem), &a->cert_der);
    }
    if (pem.base) cb_mem_wipe(pem.base, pem.len);
    cb_buf_free(&pem);
    return rc;
}

int cb_acme_files_keep(cb_acme *a) {
    char name[300];
    cb_buf whole;
    int rc = cb_acme_chain_check(cb_buf_slice(&a->core.chain), cb_buf_slice(&a->key_pem), cb_acme_list(&a->names),
                                 a->names.len, cb_acme_wall_ms() / 1000);
    if (rc < 0) return rc;
    cb_buf_init(&whole, heap, CB_ACME_FILE_MAX);
    rc = cb_buf_add(&whole, a->key_pem.base, a->key_pem.len);
    if (rc >= 0) rc = cb_buf_add(&whole, a->core.chain.base, a->core.chain.len);
    cb_acme_store_name(name, a->names.at[0], ".pem");
    if (rc >= 0) rc = cb_acme_store_write(&a->store, name, cb_buf_slice(&whole));
    if (rc >= 0) rc = cb_acme_cert_read(&a->cert, cb_buf_slice(&whole), NULL);
    a->renew_at_s = cb_renew_at(a->cert.not_before_s, a->cert.not_after_s, a->cert.spread);
    if (whole.base) cb_mem_wipe(whole.base, whole.len);
    cb_buf_free(&whole);
    return rc;
}

int cb_acme_files_make_new_key(cb_acme *a) {
    return make_key(a, &a->new_key, new_key_file);
}

int cb_acme_files_take_new_key(cb_acme *a) {
    int rc = cb_acme_store_rename(&a->store, new_key_file, key_file);
    if (rc < 0) return rc;
    cb_jwk_clear(&a->key);
    a->key = a->new_key;
    memset(&a->new_key, 0, sizeof a->new_key);
    return CB_OK;
}

int cb_acme_files_drop_new_key(cb_acme *a) {
    cb_jwk_clear(&a->new_key);
    return cb_acme_store_remove(&a->store, new_key_file);
}
