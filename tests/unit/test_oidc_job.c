/* What a client asks of its provider, in virtual time: device flow, repetition, answers, ID tokens, logins. */
#include "auth/base64url.h"
#include "auth/oidc_answer.h"
#include "auth/oidc_job.h"
#include "auth/token_source.h"
#include "base/mem.h"
#include "support/jwt_keys.h"
#include <criterion/criterion.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <string.h>

#define ISSUER "https://id.example"
#define META                                                                                                           \
    "{\"issuer\":\"" ISSUER "\",\"jwks_uri\":\"" ISSUER "/keys\",\"token_endpoint\":\"" ISSUER                         \
    "/token\",\"device_authorization_endpoint\":\"" ISSUER "/device\",\"revocation_endpoint\":\"" ISSUER "/revoke\"}"
#define ED_PRIVATE "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"ed\"," ED_X "," ED_D "}"
#define ED_SET     "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"ed\"," ED_X "}]}"
#define EC_SET     "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"ec\"," EC_XY "}]}"

enum { NOW = 1700000000 };

static const uint8_t chance[16] = {1, 2, 3};

static char *plain(const char *text) {
    return (char *)(uintptr_t)text;
}

static const cb_oidc_conf *conf(void) {
    static cb_oidc_conf c;
    c = (cb_oidc_conf){.issuer = plain(ISSUER),
                       .client_id = plain("app"),
                       .client_secret = plain("s"),
                       .assertion_aud = plain(ISSUER),
                       .client_auth = CB_OIDC_AUTH_POST};
    return &c;
}

typedef struct talk {
    cb_oidc_job job;
    int64_t now; /* ms */
    int sends, prompts;
} talk;

static void begin(talk *t, int kind) {
    *t = (talk){.now = 1000};
    cb_oidc_job_init(&t->job, conf(), kind);
}

/* Lets time go by until something is to be sent (true), or it is over (false). */
static bool next(talk *t) {
    for (;;) {
        switch (cb_oidc_job_next(&t->job, t->now, NOW + t->now / 1000, chance)) {
        case CB_OIDC_JOB_SEND:
            t->sends++;
            return true;
        case CB_OIDC_JOB_WAIT:
            cr_assert_gt(t->job.wake_ms, t->now);
            cr_assert_lt(t->job.wake_ms, INT64_MAX);
            t->now = t->job.wake_ms;
            break;
        case CB_OIDC_JOB_PROMPT:
            t->prompts++;
            cb_oidc_job_prompted(&t->job, t->now);
            break;
        case CB_OIDC_JOB_DONE:
            return false;
        }
    }
}

static void answer(talk *t, int status, const char *body) {
    const cb_oidc_answer a = {
        .status = status, .content_type = cb_slice_str("application/json"), .body = cb_slice_str(body)};
    cb_oidc_job_answer(&t->job, &a, t->now, NOW + t->now / 1000);
}

static void discover(talk *t) {
    cr_assert(next(t));
    cr_assert_str_eq(t->job.method, "GET");
    answer(t, 200, META);
    cr_assert(next(t));
    cr_assert_str_eq(t->job.method, "POST");
}

static bool body_has(const talk *t, const char *text) {
    return t->job.body.len && memmem(t->job.body.base, t->job.body.len, text, strlen(text));
}

Test(oidc_job, device_flow) {
    talk t;
    begin(&t, CB_OIDC_JOB_DEVICE);
    discover(&t);
    cr_expect_str_eq(t.job.url, ISSUER "/device");
    answer(&t, 200,
           "{\"device_code\":\"dc\",\"user_code\":\"ABCD\",\"verification_uri\":\"https://go.example/"
           "\",\"expires_in\":100,"
           "\"interval\":5}");
    int64_t last = t.now;
    static const char *const says[] = {"authorization_pending", "slow_down", "authorization_pending"};
    static const int64_t waits[] = {5000, 5000, 10000};
    for (int i = 0; i < 3; i++) {
        char body[100];
        cr_assert(next(&t), "%s", t.job.detail);
        cr_expect_str_eq(t.job.url, ISSUER "/token");
        cr_expect(body_has(&t, "device_code=dc") && body_has(&t, "client_id=app"));
        cr_expect_eq(t.now - last, waits[i], "poll %d", i);
        last = t.now;
        snprintf(body, sizeof body, "{\"error\":\"%s\"}", says[i]);
        answer(&t, 400, body);
    }
    cr_expect_eq(t.prompts, 1);
    cr_expect_str_eq(t.job.device.user_code, "ABCD");
    cr_assert(next(&t));
    cb_error_set(CB_ETIMEOUT, "slow");
    cb_oidc_job_unanswered(&t.job, CB_ETIMEOUT, t.now); /* RFC 8628 3.5: once more, more slowly */
    last = t.now;
    cr_assert(next(&t));
    cr_expect_eq(t.now - last, 20000);
    answer(&t, 200, "{\"access_token\":\"at\",\"token_type\":\"bearer\",\"expires_in\":60}");
    cr_expect(!next(&t));
    cr_expect_eq(t.job.rc, CB_OK, "%s", t.job.detail);
    cr_expect_str_eq(t.job.tokens.access_token, "at");
    cr_expect_eq(t.job.tokens.expires_at_s, NOW + t.now / 1000 + 60);
    cb_oidc_job_clear(&t.job);
}

Test(oidc_job, device_flow_ends) {
    static const struct {
        const char *device, *poll;
        int rc;
        const char *why;
    } rows[] = {
        {"{\"device_code\":\"d\",\"user_code\":\"U\",\"verification_uri\":\"https://g.example\",\"expires_in\":12}",
         "{\"error\":\"authorization_pending\"}", CB_ETIMEOUT, "nobody"},
        {"{\"device_code\":\"d\",\"user_code\":\"U\",\"verification_uri\":\"https://g.example\",\"expires_in\":60}",
         "{\"error\":\"access_denied\",\"error_description\":\"no\\u0007\"}", CB_EAUTH, "access_denied: no?"},
        {"{\"device_code\":\"d\",\"user_code\":\"U\",\"verification_uri\":\"https://g.example\",\"expires_in\":60}",
         "{\"error\":\"expired_token\"}", CB_EAUTH, "expired_token"},
        {"{\"device_code\":\"d\",\"user_code\":\"U\",\"verification_uri\":\"javascript:alert(1)\",\"expires_in\":60}",
         NULL, CB_EPROTO, "verification_uri"},
        {"{\"device_code\":\"d\",\"user_code\":\"U V\",\"verification_uri\":\"https://g.example\",\"expires_in\":60}",
         NULL, CB_EPROTO, "user_code"},
        {"{\"user_code\":\"U\",\"verification_uri\":\"https://g.example\",\"expires_in\":60}", NULL, CB_EPROTO,
         "device_code"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        talk t;
        begin(&t, CB_OIDC_JOB_DEVICE);
        discover(&t);
        answer(&t, 200, rows[i].device);
        while (next(&t))
            answer(&t, 400, rows[i].poll);
        cr_expect_eq(t.job.rc, rows[i].rc, "row %zu: %s", i, t.job.detail);
        cr_expect(strstr(t.job.detail, rows[i].why) != NULL, "row %zu: %s", i, t.job.detail);
        cb_oidc_job_clear(&t.job);
    }
}

Test(oidc_job, what_may_be_sent_twice_is) {
    for (int once = 0; once < 2; once++) {
        talk t;
        begin(&t, CB_OIDC_JOB_TOKEN);
        t.job.once = once;
        discover(&t);
        do {
            answer(&t, 503, "{}");
        } while (next(&t));
        cr_expect_eq(t.job.rc, CB_EUNREACH);
        cr_expect_eq(t.sends, once ? 2 : 4, "discovery and %d", t.sends - 1);
        cb_oidc_job_clear(&t.job);
    }
}

Test(oidc_job, token_answers_are_judged) {
    static const struct {
        int status;
        const char *body;
        int rc;
        const char *why;
    } rows[] = {
        {200, "{\"access_token\":\"a\",\"token_type\":\"Bearer\"}", CB_OK, ""},
        {200, "{\"access_token\":\"a\",\"token_type\":\"DPoP\",\"expires_in\":\"60\"}", CB_OK, ""},
        {200, "{\"token_type\":\"Bearer\"}", CB_EPROTO, "access_token"},
        {200, "{\"access_token\":\"\",\"token_type\":\"Bearer\"}", CB_EPROTO, "access_token"},
        {200, "{\"access_token\":\"a b\",\"token_type\":\"Bearer\"}", CB_EPROTO, "access_token"},
        {200, "{\"access_token\":\"a\\r\\nX: y\",\"token_type\":\"Bearer\"}", CB_EPROTO, "access_token"},
        {200, "{\"access_token\":7,\"token_type\":\"Bearer\"}", CB_EPROTO, "no text"},
        {200, "{\"access_token\":\"a\"}", CB_EPROTO, "token_type"},
        {200, "{\"access_token\":\"a\",\"token_type\":\"mac\"}", CB_EPROTO, "token_type"},
        {200, "{\"access_token\":\"a\",\"token_type\":\"Bearer\",\"expires_in\":-1}", CB_EPROTO, "expires_in"},
        {200, "{\"access_token\":\"a\",\"token_type\":\"Bearer\",\"expires_in\":1e300}", CB_EPROTO, "expires_in"},
        {200, "{\"access_token\":\"a\",\"access_token\":\"b\",\"token_type\":\"Bearer\"}", CB_EPROTO, "twice"},
        {201, "{\"access_token\":\"a\",\"token_type\":\"Bearer\"}", CB_EPROTO, "status 201"},
        {307, "{\"access_token\":\"a\",\"token_type\":\"Bearer\"}", CB_EPROTO, "redirects"},
        {400, "{\"error\":\"invalid_grant\",\"error_description\":\"used\"}", CB_EAUTH, "invalid_grant: used"},
        {401, "nonsense", CB_EAUTH, "status 401"},
        {400, "{\"error\":\"authorization_pending\"}", CB_EAUTH, "authorization_pending"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        talk t;
        begin(&t, CB_OIDC_JOB_TOKEN);
        discover(&t);
        answer(&t, rows[i].status, rows[i].body);
        cr_expect(!next(&t), "row %zu", i);
        cr_expect_eq(t.job.rc, rows[i].rc, "row %zu: %s", i, t.job.detail);
        cr_expect(strstr(t.job.detail, rows[i].why) != NULL, "row %zu: %s", i, t.job.detail);
        cb_oidc_job_clear(&t.job);
    }
}

/* ---- ID tokens ---- */

typedef struct id_row {
    const char *iss, *aud_json, *azp, *nonce, *at_hash, *sub;
    int64_t exp;
    int32_t reason;
    int64_t auth_time; /* seconds ago; 0: none is there, and none is asked for; -1: asked for */
} id_row;

static void half_hash(char out[64], const char *text) {
    uint8_t digest[64];
    gnutls_hash_fast(GNUTLS_DIG_SHA512, text, strlen(text), digest);
    cb_base64url_encode(out, digest, 32);
}

static char *id_token(const id_row *r) {
    cb_jwt_signer *s = NULL;
    char *out = NULL;
    cb_jwt_field f[9];
    size_t n = 0;
    cr_assert_eq(cb_jwt_signer_new(&s, CB_OPTS(cb_jwt_signer_opts, .jwk = cb_slice_str(ED_PRIVATE))), CB_OK);
    f[n++] = (cb_jwt_field){.name = "iss", .text = r->iss};
    f[n++] = (cb_jwt_field){.name = "aud", .json = r->aud_json};
    f[n++] = (cb_jwt_field){.name = "exp", .number = NOW + r->exp};
    f[n++] = (cb_jwt_field){.name = "iat", .number = NOW};
    if (r->auth_time > 0) f[n++] = (cb_jwt_field){.name = "auth_time", .number = NOW - r->auth_time};
    if (r->sub) f[n++] = (cb_jwt_field){.name = "sub", .text = r->sub};
    if (r->azp) f[n++] = (cb_jwt_field){.name = "azp", .text = r->azp};
    if (r->nonce) f[n++] = (cb_jwt_field){.name = "nonce", .text = r->nonce};
    if (r->at_hash) f[n++] = (cb_jwt_field){.name = "at_hash", .text = r->at_hash};
    cr_assert_eq(cb_jwt_sign(&out, s, NULL, 0, f, n), CB_OK, "%s", cb_last_error());
    cb_jwt_signer_unref(s);
    return out;
}

Test(oidc_job, id_tokens_are_judged) {
    char hash[64];
    half_hash(hash, "at");
    const id_row rows[] = {
        {ISSUER, "\"app\"", NULL, "n", NULL, "joe", 60, CB_JWT_GOOD, 0},
        {ISSUER, "[\"app\",\"other\"]", "app", "n", hash, "joe", 60, CB_JWT_GOOD, 0},
        {ISSUER, "[\"app\",\"other\"]", NULL, "n", NULL, "joe", 60, CB_JWT_AUDIENCE, 0},
        {ISSUER, "\"app\"", "other", "n", NULL, "joe", 60, CB_JWT_AUDIENCE, 0},
        {ISSUER, "\"other\"", NULL, "n", NULL, "joe", 60, CB_JWT_AUDIENCE, 0},
        {"https://evil.example", "\"app\"", NULL, "n", NULL, "joe", 60, CB_JWT_ISSUER, 0},
        {ISSUER, "\"app\"", NULL, "m", NULL, "joe", 60, CB_JWT_CLAIM, 0},
        {ISSUER, "\"app\"", NULL, NULL, NULL, "joe", 60, CB_JWT_CLAIM, 0},
        {ISSUER, "\"app\"", NULL, "n", "AAAA", "joe", 60, CB_JWT_CLAIM, 0},
        {ISSUER, "\"app\"", NULL, "n", NULL, NULL, 60, CB_JWT_CLAIM, 0},
        {ISSUER, "\"app\"", NULL, "n", NULL, "joe", -60, CB_JWT_EXPIRED, 0},
        {ISSUER, "\"app\"", NULL, "n", NULL, "joe", 60, CB_JWT_GOOD, 90},
        {ISSUER, "\"app\"", NULL, "n", NULL, "joe", 60, CB_JWT_TOO_OLD, 140},
        {ISSUER, "\"app\"", NULL, "n", NULL, "joe", 60, CB_JWT_TOO_OLD, -1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        talk t;
        char body[2048];
        char *token = id_token(rows + i);
        snprintf(body, sizeof body, "{\"access_token\":\"at\",\"token_type\":\"Bearer\",\"id_token\":\"%s\"}", token);
        begin(&t, CB_OIDC_JOB_TOKEN);
        t.job.nonce = "n";
        t.job.need_id = true;
        t.job.max_age_s = rows[i].auth_time ? 100 : 0;
        discover(&t);
        answer(&t, 200, body);
        cr_assert(next(&t));
        cr_expect_str_eq(t.job.url, ISSUER "/keys");
        answer(&t, 200, ED_SET);
        cr_expect(!next(&t));
        cr_expect_eq(t.job.rc, rows[i].reason ? CB_EAUTH : CB_OK, "row %zu: %s", i, t.job.detail);
        cr_expect_eq(t.job.reason, rows[i].reason, "row %zu: %s", i, t.job.detail);
        cr_expect_eq(t.job.tokens.identity != NULL, !rows[i].reason);
        cb_oidc_job_clear(&t.job);
        cb_jwt_text_free(token);
    }
}

Test(oidc_job, keys_are_fetched_once_for_an_id_token) {
    const id_row row = {ISSUER, "\"app\"", NULL, NULL, NULL, "joe", 60, 0, 0};
    char body[2048], *token = id_token(&row);
    snprintf(body, sizeof body, "{\"access_token\":\"at\",\"token_type\":\"Bearer\",\"id_token\":\"%s\"}", token);
    for (int good = 0; good < 2; good++) {
        talk t;
        begin(&t, CB_OIDC_JOB_TOKEN);
        cr_assert_eq(cb_jwks_new(&t.job.keys, CB_OPTS(cb_jwks_opts, .json = cb_slice_str(EC_SET))), CB_OK);
        discover(&t);
        answer(&t, 200, body);
        cr_assert(next(&t), "the keys that are known do not have it");
        answer(&t, 200, good ? ED_SET : EC_SET);
        cr_expect(!next(&t));
        cr_expect_eq(t.job.rc, good ? CB_OK : CB_EAUTH);
        cb_oidc_job_clear(&t.job);
    }
    talk t;
    begin(&t, CB_OIDC_JOB_TOKEN);
    t.job.need_id = true;
    discover(&t);
    answer(&t, 200, "{\"access_token\":\"at\",\"token_type\":\"Bearer\"}");
    cr_expect(!next(&t));
    cr_expect_eq(t.job.rc, CB_EPROTO);
    cb_oidc_job_clear(&t.job);
    cb_jwt_text_free(token);
}

/* ---- who we are ---- */

Test(oidc_job, clients_show_who_they_are) {
    static const struct {
        int auth;
        const char *form, *field;
    } rows[] = {{CB_OIDC_AUTH_NONE, "client_id=app", ""},
                {CB_OIDC_AUTH_TLS, "client_id=app", ""},
                {CB_OIDC_AUTH_POST, "client_id=app&client_secret=%C3%A4+%26", ""},
                {CB_OIDC_AUTH_BASIC, "", "Basic YXBwOiVDMyVBNCslMjY="}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_oidc_conf c = *conf();
        cb_buf form, field;
        c.client_auth = rows[i].auth;
        c.client_secret = plain("\u00e4 &");
        cb_buf_init(&form, &cb_alloc_libc, 65536);
        cb_buf_init(&field, &cb_alloc_libc, 65536);
        cr_assert_geq(cb_oidc_form_client(&form, &field, &c, chance, NOW), 0);
        cr_assert_geq(cb_buf_add(&form, "", 1), 0);
        cr_assert_geq(cb_buf_add(&field, "", 1), 0);
        cr_expect_str_eq((const char *)form.base, rows[i].form, "row %zu", i);
        cr_expect_str_eq((const char *)field.base, rows[i].field, "row %zu", i);
        cb_buf_free(&form);
        cb_buf_free(&field);
    }
}

/* RFC 8705 5: who shows a certificate goes where it is asked for. */
Test(oidc_job, endpoints_for_certificates) {
    static const char text[] =
        "{\"issuer\":\"" ISSUER "\",\"token_endpoint\":\"" ISSUER "/t\",\"revocation_endpoint\":\"" ISSUER
        "/r\",\"mtls_endpoint_aliases\":{\"token_endpoint\":\"%s/t\"}}";
    for (int i = 0; i < 4; i++) {
        char body[512];
        cb_oidc_conf c = *conf();
        cb_oidc_meta *m = NULL;
        c.client_auth = i & 1 ? CB_OIDC_AUTH_TLS : CB_OIDC_AUTH_POST;
        snprintf(body, sizeof body, text, i & 2 ? "https://mtls.example" : ISSUER "/mtls");
        const cb_oidc_answer a = {
            .status = 200, .content_type = cb_slice_str("application/json"), .body = cb_slice_str(body)};
        cr_expect_eq(cb_oidc_meta_read(&m, &c, &a), i == 3 ? CB_EPROTO : CB_OK, "%d: %s", i, cb_last_error());
        if (!m) continue;
        cr_expect_str_eq(m->endpoints[CB_OIDC_TOKEN], i & 1 ? ISSUER "/mtls/t" : ISSUER "/t");
        cr_expect_str_eq(m->endpoints[CB_OIDC_REVOCATION], ISSUER "/r");
        cb_oidc_meta_unref(m);
    }
}

Test(oidc_job, assertions_say_who_and_to_whom) {
    cb_jwt_signer *s = NULL;
    cb_jwks *keys = NULL;
    cb_jwt *token = NULL;
    cb_buf form, field;
    cb_oidc_conf c = *conf();
    cr_assert_eq(cb_jwt_signer_new(&s, CB_OPTS(cb_jwt_signer_opts, .jwk = cb_slice_str(ED_PRIVATE))), CB_OK);
    cr_assert_eq(cb_jwks_new(&keys, CB_OPTS(cb_jwks_opts, .json = cb_slice_str(ED_SET))), CB_OK);
    c.client_auth = CB_OIDC_AUTH_KEY;
    c.client_key = s;

    cb_buf_init(&form, &cb_alloc_libc, 65536);
    cb_buf_init(&field, &cb_alloc_libc, 65536);
    cr_assert_geq(cb_oidc_form_client(&form, &field, &c, chance, NOW), 0);
    static const char lead[] =
        "client_id=app&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%"
        "3Ajwt-bearer&client_assertion=";
    cr_assert_gt(form.len, sizeof lead);
    cr_assert_eq(memcmp(form.base, lead, sizeof lead - 1), 0);
    const cb_slice text = {form.base + sizeof lead - 1, form.len - (sizeof lead - 1)};
    static const char *const to[] = {ISSUER};
    cr_assert_eq(cb_jwt_verify(&token, text, keys,
                               CB_OPTS(cb_jwt_rules, .issuer = "app", .audiences = to, .audiences_len = 1),
                               CB_OPTS(cb_jwt_facts, .now_s = NOW), NULL),
                 CB_OK, "%s", cb_last_error());
    cr_expect_str_eq(cb_jwt_subject(token), "app");
    cr_expect_eq(cb_jwt_expires(token), NOW + 60);
    cr_expect_not_null(cb_jwt_text(token, "jti"));
    cr_expect_eq(field.len, 0);
    cb_jwt_unref(token);
    cb_buf_free(&form);
    cb_buf_free(&field);
    cb_jwks_unref(keys);
    cb_jwt_signer_unref(s);
}

Test(oidc_job, tokens_are_renewed_before_they_expire) {
    for (uint64_t random = 0; random <= UINT32_MAX; random += 0x0fffffff) {
        const int64_t at = cb_token_renew_ms(3600000, (uint32_t)random);
        cr_expect(at > 2520000 - 2 && at <= 2880000, "%lld", (long long)at);
        cr_expect(cb_token_retry_ms(1, (uint32_t)random) > 749 && cb_token_retry_ms(1, (uint32_t)random) <= 1000);
        cr_expect(cb_token_retry_ms(500, (uint32_t)random) > 44999 &&
                  cb_token_retry_ms(500, (uint32_t)random) <= 60000);
    }
    cr_expect_eq(cb_token_renew_ms(0, 5), 1000);
    cr_expect_neq(cb_token_renew_ms(3600000, 1u << 31), cb_token_renew_ms(3600000, 0));
}
