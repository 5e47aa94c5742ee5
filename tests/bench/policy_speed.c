/* What a decision costs: `policy_speed ROW RULES COUNT` prints "count cpu_seconds allocations".
 *
 * ROW says what tells the rules apart, and the request is allowed by the last of them: `roles` (the sets decide),
 * `paths` (a pattern of its own for each rule, with a segment that is free), `claims` (a value of one claim of a token
 * for each rule, below a pointer), `mixed` (roles, methods, paths, sources and times; a tenth are denials). */
#include "allocations.h"
#include <cb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { NOW = 1700000000, ROOM = 1 << 20 };

static double cpu(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void must(int good, const char *what) {
    if (good) return;
    fprintf(stderr, "policy_speed: %s: %s\n", what, cb_last_error());
    exit(1);
}

/* The members of rule i. */
static size_t rule(char *out, size_t room, char row, int i) {
    int n = 0;
    if (row == 'r') n = snprintf(out, room, "\"roles\": [\"role-%d\", \"other-%d\"], \"methods\": [\"GET\"]", i, i);
    if (row == 'p') n = snprintf(out, room, "\"methods\": [\"GET\"], \"paths\": [\"/v1/tenants/*/service-%d/**\"]", i);
    if (row == 'c')
        n = snprintf(
            out, room,
            "\"methods\": [\"GET\"], \"claims\": [{\"path\": \"/realm_access/roles\", \"any\": [\"role-%d\"]}]", i);
    if (row == 'm')
        n = snprintf(
            out, room,
            "\"roles\": [\"role-%d\"], \"methods\": [\"GET\", \"HEAD\"], \"paths\": [\"/v1/tenants/*/service-%d/**\"], "
            "\"sources\": [\"10.%d.0.0/16\", \"198.51.100.0/24\"], \"times\": [{\"days\": [\"tue\", \"wed\"]}]",
            i / 10, i, i % 250);
    return n > 0 ? (size_t)n : 0;
}

static cb_policy *policy_of(char row, int rules) {
    cb_policy *p = NULL;
    char *text = malloc(ROOM);
    size_t n = (size_t)snprintf(text, ROOM, "{\"rules\": [");
    for (int i = 0; i < rules; i++) {
        n += (size_t)snprintf(text + n, ROOM - n,
                              "%s{\"name\": \"rule-%d\", \"effect\": \"%s\", \"tenants\": [\"acme\"], ", i ? "," : "",
                              i, row == 'm' && i % 10 == 3 ? "deny" : "allow");
        n += rule(text + n, ROOM - n, row, i);
        n += (size_t)snprintf(text + n, ROOM - n, "}");
    }
    n += (size_t)snprintf(text + n, ROOM - n, "]}");
    must(cb_policy_parse(&p, (cb_slice){(const uint8_t *)text, n}, "bench", NULL, NULL) == 0, "policy");
    free(text);
    return p;
}

/* A token as providers give them; its roles end with the one that the last rule asks for. */
static cb_jwt *token_of(int rules) {
    static const uint8_t secret[32] = "a secret of exactly 32 bytes ..";
    char roles[256];
    const cb_slice s = {secret, sizeof secret};
    snprintf(roles, sizeof roles, "{\"roles\":[\"offline_access\",\"uma_authorization\",\"viewer\",\"role-%d\"]}",
             rules - 1);
    const cb_jwt_field claims[] = {{.name = "iss", .text = "https://issuer.example"},
                                   {.name = "sub", .text = "0f8fad5b-d9cb-469f-a165-70867728950e"},
                                   {.name = "aud", .text = "edge"},
                                   {.name = "exp", .number = NOW + 3000},
                                   {.name = "iat", .number = NOW - 10},
                                   {.name = "jti", .text = "7c9e6679-7425-40de-944b-e07fc1f90ae7"},
                                   {.name = "client_id", .text = "234567890123456789@project"},
                                   {.name = "scope", .text = "openid profile email read write"},
                                   {.name = "realm_access", .json = roles}};
    const cb_jwk_opts key = {.size = sizeof key, .secret = s, .alg = CB_JWT_HS256};
    const cb_jwk_opts *keys[] = {&key};
    cb_jwt_signer *signer = NULL;
    cb_jwks *set = NULL;
    cb_jwt *token = NULL;
    char *text = NULL;
    must(cb_jwt_signer_new(&signer, CB_OPTS(cb_jwt_signer_opts, .secret = s, .alg = CB_JWT_HS256)) == 0, "signer");
    must(cb_jwt_sign(&text, signer, NULL, 0, claims, sizeof claims / sizeof *claims) == 0, "token");
    must(cb_jwks_new(&set, CB_OPTS(cb_jwks_opts, .keys = keys, .keys_len = 1)) == 0, "keys");
    must(cb_jwt_verify(&token, cb_slice_str(text), set, CB_OPTS(cb_jwt_rules, .any_issuer = 1, .any_audience = 1),
                       CB_OPTS(cb_jwt_facts, .now_s = NOW), NULL) == 0,
         "verify");
    cb_jwt_text_free(text);
    cb_jwks_unref(set);
    cb_jwt_signer_unref(signer);
    return token;
}

int main(int argc, char **argv) {
    const int rules = argc == 4 ? atoi(argv[2]) : 0;
    if (rules < 1 || rules > 4096) {
        fprintf(stderr, "usage: policy_speed roles|paths|claims|mixed RULES COUNT\n");
        return 2;
    }
    const char row = *argv[1];
    cb_policy *p = policy_of(row, rules);
    cb_jwt *token = token_of(rules);
    char path[128], role[32];
    static const uint8_t source[4] = {198, 51, 100, 7};
    snprintf(path, sizeof path, "/v1/tenants/acme/service-%d/items/4711?expand=1", rules - 1);
    snprintf(role, sizeof role, "role-%d", row == 'm' ? (rules - 1) / 10 : rules - 1);
    const cb_slice roles[] = {cb_slice_str("viewer"), cb_slice_str("editor"), cb_slice_str(role)};
    const cb_policy_request r = {.size = sizeof r,
                                 .tenant = cb_slice_str("acme"),
                                 .roles = roles,
                                 .roles_len = 3,
                                 .token = row == 'c' ? token : NULL,
                                 .subject = cb_slice_str("0f8fad5b-d9cb-469f-a165-70867728950e"),
                                 .method = cb_slice_str("GET"),
                                 .path = cb_slice_str(path),
                                 .source = {source, sizeof source},
                                 .now_s = NOW}; /* a Tuesday */
    cb_policy_decision d = {.size = sizeof d};
    for (int i = 0; i < 100; i++)
        must(cb_policy_decide(p, &r, &d) == CB_OK && d.index == (uint32_t)rules - 1, "the last rule decides");
    const long count = atol(argv[3]);
    const unsigned long before = allocations;
    const double start = cpu();
    for (long i = 0; i < count; i++)
        (void)cb_policy_decide(p, &r, &d);
    printf("%ld %.6f %lu\n", count, cpu() - start, allocations - before);
    cb_jwt_unref(token);
    cb_policy_unref(p);
    return 0;
}
