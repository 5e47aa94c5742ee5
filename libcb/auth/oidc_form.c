#include "auth/oidc_form.h"
#include "auth/base64url.h"
#include "base/base64.h"
#include "base/error.h"
#include "base/mem.h"
#include <string.h>

enum { ASSERTION_S = 60 };

static int add_encoded(cb_buf *out, const char *text) {
    int rc = CB_OK;
    for (; rc >= 0 && *text; text++) {
        const unsigned char c = (unsigned char)*text;
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-._*", c)) {
            rc = cb_buf_add(out, text, 1);
        } else {
            rc = c == ' ' ? cb_buf_text(out, "+") : cb_buf_printf(out, "%%%02X", c);
        }
    }
    return rc;
}

int cb_oidc_form_add(cb_buf *form, const char *name, const char *value) {
    if (!value) return CB_OK;
    int rc = form->len ? cb_buf_text(form, "&") : CB_OK;
    if (rc >= 0) rc = add_encoded(form, name);
    if (rc >= 0) rc = cb_buf_text(form, "=");
    return rc >= 0 ? add_encoded(form, value) : rc;
}

/* RFC 6749 2.3.1: both are encoded as in a form before they are joined. */
static int basic(cb_buf *out, const cb_oidc_conf *conf) {
    cb_buf pair;
    cb_buf_init(&pair, &cb_alloc_libc, CB_OIDC_FORM_BYTES);
    int rc = add_encoded(&pair, conf->client_id);
    if (rc >= 0) rc = cb_buf_text(&pair, ":");
    if (rc >= 0) rc = add_encoded(&pair, conf->client_secret);
    if (rc >= 0) rc = cb_buf_text(out, "Basic ");
    if (rc >= 0) rc = cb_buf_reserve(out, cb_base64_chars(pair.len) + 1);
    if (rc >= 0) {
        cb_base64_encode((char *)out->base + out->len, pair.base, pair.len);
        out->len += cb_base64_chars(pair.len);
    }
    if (pair.base) cb_mem_wipe(pair.base, pair.len);
    cb_buf_free(&pair);
    return rc;
}

int cb_oidc_assertion(char **out, const cb_jwt_signer *key, const char *subject, const char *audience,
                      const uint8_t random[16], int64_t now_s) {
    char id[32];
    cb_base64url_encode(id, random, 16);
    const cb_jwt_field claims[] = {{.name = "iss", .text = subject},  {.name = "sub", .text = subject},
                                   {.name = "aud", .text = audience}, {.name = "jti", .text = id},
                                   {.name = "iat", .number = now_s},  {.name = "exp", .number = now_s + ASSERTION_S}};
    return cb_jwt_sign(out, key, NULL, 0, claims, sizeof claims / sizeof *claims);
}

static int add_assertion(cb_buf *form, const cb_oidc_conf *conf, const uint8_t random[16], int64_t now_s) {
    char *text = NULL;
    int rc = cb_oidc_assertion(&text, conf->client_key, conf->client_id, conf->assertion_aud, random, now_s);
    if (rc >= 0) rc = cb_oidc_form_add(form, "client_id", conf->client_id);
    if (rc >= 0) {
        rc = cb_oidc_form_add(form, "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    }
    if (rc >= 0) rc = cb_oidc_form_add(form, "client_assertion", text);
    cb_jwt_text_free(text);
    return rc;
}

int cb_oidc_form_client(cb_buf *form, cb_buf *authorization, const cb_oidc_conf *conf, const uint8_t random[16],
                        int64_t now_s) {
    if (!conf->client_id) return CB_OK;
    if (conf->client_auth == CB_OIDC_AUTH_BASIC) return basic(authorization, conf);
    if (conf->client_auth == CB_OIDC_AUTH_KEY) return add_assertion(form, conf, random, now_s);
    int rc = cb_oidc_form_add(form, "client_id", conf->client_id);
    if (rc >= 0 && conf->client_auth == CB_OIDC_AUTH_POST)
        rc = cb_oidc_form_add(form, "client_secret", conf->client_secret);
    return rc;
}
