/* What test_oidc.py asks a provider through cb/oidc.h:
 *
 *   oidc_client ISSUER [id=ID] [secret=SECRET] [key=JWK_FILE] [auth=NUMBER] VERB [ARGUMENT ...]
 *
 *   credentials SCOPE RESOURCE    refresh TOKEN    revoke TOKEN    device SCOPE    introspect TOKEN...
 *   login REDIRECT_URI SCOPE      prints the URL, reads the query that came back
 *   watch AUDIENCE                keeps keys fresh; verifies a token for each line of stdin, in another thread
 *
 * "" stands for none. Prints NAME=VALUE lines; the exit status is 1 when it failed. */
#include <cb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static cb_loop *loop;
static cb_http_client *client;
static cb_oidc *provider;
static int failed;

static const char *none(const char *text) {
    return text && *text ? text : NULL;
}

static int say(const char *name, const char *value) {
    int n = value ? printf("%s=%s\n", name, value) : 0;
    fflush(stdout);
    return n;
}

static int fail(int rc) {
    failed = 1;
    printf("failed=%s: %s\n", cb_strerror(rc), cb_last_error());
    fflush(stdout);
    return rc;
}

static void on_done(cb_oidc_request *r, int rc, const cb_oidc_tokens *t, const char *error, void *user) {
    (void)user;
    if (rc < 0) {
        say("error", error);
        fail(rc);
    }
    if (t) {
        say("access_token", t->access_token);
        say("refresh_token", t->refresh_token);
        say("token_type", t->token_type);
        say("scope", t->scope);
        printf("lifetime=%lld\n", (long long)(t->expires_at_s - t->received_at_s));
        if (t->identity) say("subject", cb_jwt_subject(t->identity));
    }
    say("done", rc < 0 ? "no" : "yes");
    cb_oidc_request_free(r);
    cb_loop_stop(loop);
}

static void on_device(cb_oidc_request *r, const cb_oidc_device *d, void *user) {
    (void)r;
    (void)user;
    say("user_code", d->user_code);
    say("url", d->url);
    say("url_complete", d->url_complete);
}

static void request(cb_oidc_request_opts o) {
    cb_oidc_request *r = NULL;
    o.size = sizeof o;
    o.provider = provider;
    o.client = client;
    o.on_device = on_device;
    int rc = cb_oidc_request_start(&r, loop, &o, on_done, NULL);
    if (rc < 0)
        fail(rc);
    else
        cb_loop_run(loop);
}

/* ---- introspection ---- */

static void show(int rc, const cb_jwt *token, int32_t reason) {
    if (rc == CB_OK)
        say("active", cb_jwt_subject(token) ? cb_jwt_subject(token) : "-");
    else if (rc == CB_EAUTH)
        say("refused", cb_jwt_reason_text(reason));
    else
        fail(rc);
}

static void on_told(int rc, cb_jwt *token, int32_t reason, void *user) {
    (void)user;
    show(rc, token, reason);
    cb_loop_stop(loop);
}

static void introspect(char **tokens) {
    cb_introspector *in = NULL;
    int rc = cb_introspector_new(&in, loop, CB_OPTS(cb_introspector_opts, .provider = provider, .client = client));
    if (rc < 0) fail(rc);
    for (; rc >= 0 && *tokens; tokens++) {
        cb_jwt *token = NULL;
        int32_t reason = 0;
        int told = cb_introspect(in, NULL, cb_slice_str(*tokens), time(NULL), &token, &reason, on_told, NULL);
        if (told == CB_EAGAIN)
            cb_loop_run(loop);
        else
            show(told, token, reason);
        cb_jwt_unref(token);
    }
    cb_introspector_free(in);
    cb_oidc_stats s = {.size = sizeof s};
    cb_oidc_stats_get(provider, &s);
    printf("asked=%llu\n", (unsigned long long)s.introspections);
}

/* ---- logins ---- */

static void poll_discovery(cb_loop *l, void *user) {
    char url[1025];
    (void)user;
    if (cb_oidc_endpoint(provider, CB_OIDC_TOKEN, url, sizeof url) > 0) cb_loop_stop(l);
}

static void login(const char *redirect_uri, const char *scope) {
    static char line[8192];
    cb_timer *timer = NULL;
    cb_oidc_login *l = NULL;
    cb_oidc_request_opts o = {.size = sizeof o};
    char error[64];
    cb_oidc_run(provider, loop, client);
    cb_timer_start(&timer, loop, 5, 5, poll_discovery, NULL);
    cb_loop_run(loop);
    cb_timer_free(timer);
    int rc = cb_oidc_login_new(
        &l, provider, CB_OPTS(cb_oidc_login_opts, .redirect_uri = redirect_uri, .scope = scope, .prompt = "consent"));
    if (rc >= 0) {
        say("url", cb_oidc_login_url(l));
        if (!fgets(line, sizeof line, stdin)) exit(2);
        line[strcspn(line, "\n")] = '\0';
        rc = cb_oidc_login_answer(l, cb_slice_str(line), &o, error);
        if (rc < 0) say("error", error);
    }
    if (rc < 0)
        fail(rc);
    else
        request(o);
    cb_oidc_login_free(l);
}

/* ---- keys ---- */

static void *verify_lines(void *user) {
    static char line[16384];
    const char *const audiences[] = {user};
    while (fgets(line, sizeof line, stdin)) {
        cb_jwt *token = NULL;
        int32_t reason = 0;
        line[strcspn(line, "\n")] = '\0';
        int rc = cb_oidc_verify(provider, NULL, &token, cb_slice_str(line),
                                CB_OPTS(cb_jwt_rules, .audiences = audiences, .audiences_len = 1, .typ = "at+jwt"),
                                CB_OPTS(cb_jwt_facts, .now_s = time(NULL)), &reason);
        say(rc == CB_OK       ? "good"
            : rc == CB_EAGAIN ? "again"
                              : "refused",
            rc == CB_OK ? cb_jwt_kid(token) : cb_jwt_reason_text(reason));
        cb_jwt_unref(token);
    }
    cb_loop_stop(loop);
    return NULL;
}

static void watch(char *audience) {
    pthread_t thread;
    int rc = cb_oidc_run(provider, loop, client);
    if (rc < 0) {
        fail(rc);
        return;
    }
    pthread_create(&thread, NULL, verify_lines, audience);
    cb_loop_run(loop);
    pthread_join(thread, NULL);
}

/* ---- */

static cb_jwt_signer *load_key(const char *path) {
    static char text[8192];
    cb_jwt_signer *s = NULL;
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, sizeof text, f) : 0;
    if (f) fclose(f);
    int rc = cb_jwt_signer_new(&s, CB_OPTS(cb_jwt_signer_opts, .jwk = {(const uint8_t *)text, n}));
    if (rc < 0) fail(rc);
    return s;
}

int main(int argc, char **argv) {
    cb_oidc_opts o = {.size = sizeof o, .issuer = argv[1], .loopback_http = 1, .refresh_s = 2, .grace_s = 600};
    int at = 2;
    for (; at < argc && strchr(argv[at], '='); at++) {
        char *value = strchr(argv[at], '=') + 1;
        if (!strncmp(argv[at], "id=", 3)) o.client_id = value;
        if (!strncmp(argv[at], "secret=", 7)) o.client_secret = value;
        if (!strncmp(argv[at], "key=", 4)) o.client_key = load_key(value);
        if (!strncmp(argv[at], "auth=", 5)) o.client_auth = atoi(value);
    }
    if (at >= argc) return 2;
    const char *verb = argv[at++], *first = at < argc ? argv[at] : "", *second = at + 1 < argc ? argv[at + 1] : "";
    int rc = cb_loop_new(&loop, NULL);
    if (rc >= 0) rc = cb_http_client_new(&client, loop, NULL);
    if (rc >= 0) rc = cb_oidc_new(&provider, &o);
    if (rc < 0) {
        fail(rc);
    } else if (!strcmp(verb, "credentials")) {
        request(
            (cb_oidc_request_opts){.type = CB_OIDC_CLIENT_CREDENTIALS, .scope = none(first), .resource = none(second)});
    } else if (!strcmp(verb, "refresh")) {
        request((cb_oidc_request_opts){.type = CB_OIDC_REFRESH, .token = first});
    } else if (!strcmp(verb, "revoke")) {
        request((cb_oidc_request_opts){.type = CB_OIDC_REVOKE, .token = first});
    } else if (!strcmp(verb, "device")) {
        request((cb_oidc_request_opts){.type = CB_OIDC_DEVICE_CODE, .scope = none(first)});
    } else if (!strcmp(verb, "introspect")) {
        introspect(argv + at);
    } else if (!strcmp(verb, "login")) {
        login(first, second);
    } else if (!strcmp(verb, "watch")) {
        watch(argv[at]);
    } else {
        failed = 2;
    }
    if (provider) cb_oidc_stop(provider);
    cb_oidc_unref(provider);
    cb_jwt_signer_unref(o.client_key);
    cb_http_client_free(client);
    cb_loop_free(loop);
    return failed;
}
