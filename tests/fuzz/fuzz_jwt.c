/* Any bytes as a token: an answer with a reason, no crash, no leak. And any bytes as JSON: what is read has its shape.
 */
#include "auth/json.h"
#include <cb/auth.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char keys_text[] =
    "{\"keys\":[{\"kty\":\"oct\",\"alg\":\"HS256\",\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75a"
    "KtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow\"},{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_"
    "7TyWQHOg7hcvPapiMlrwIaaPcHURo\"},"
    "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"y\":"
    "\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}]}";

static void walk(const cb_json *j, const cb_json_node *of) {
    uint32_t n = 0;
    for (const cb_json_node *at = cb_json_first(j, of); at; at = cb_json_next(j, of, at), n++) {
        if (at >= j->nodes + j->len || at->next > of->next) abort();
        if (of->kind == CB_JSON_OBJECT && cb_json_get(j, of, j->text + at->name, at->name_len) != at) abort();
        if (at->kind == CB_JSON_NUMBER) (void)cb_json_number(j, at);
        if (at->kind == CB_JSON_TEXT && strlen(j->text + at->at) != at->len) abort();
        walk(j, at);
    }
    if ((of->kind == CB_JSON_OBJECT || of->kind == CB_JSON_LIST) && n != of->len) abort();
}

static void read_as_json(const uint8_t *data, size_t size) {
    size_t room = cb_json_room((const char *)data, size);
    char *text = malloc(size + 1);
    cb_json_node *nodes = malloc(room * sizeof *nodes);
    cb_json j;
    memcpy(text, data, size);
    if (cb_json_read(&j, text, size, nodes, room) == 0) walk(&j, j.nodes);
    free(nodes);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const cb_jwt_rules rules = {
        .size = sizeof rules, .any_issuer = 1, .any_audience = 1, .exp_optional = 1, .max_token_bytes = 65536};
    static const cb_jwt_facts facts = {.size = sizeof facts, .now_s = 1300819000};
    static cb_jwks *keys;
    cb_jwt *t = NULL;
    int32_t reason = -1;
    if (!keys && cb_jwks_new(&keys, CB_OPTS(cb_jwks_opts, .json = cb_slice_str(keys_text), .symmetric = 1)) < 0)
        abort();
    int rc = cb_jwt_verify(&t, (cb_slice){data, size}, keys, &rules, &facts, &reason);
    if ((rc == CB_OK) != (reason == CB_JWT_GOOD) || (rc != CB_OK && rc != CB_EAUTH) || (rc == CB_OK) != (t != NULL))
        abort();
    cb_jwt_unref(t);
    read_as_json(data, size);
    return 0;
}
