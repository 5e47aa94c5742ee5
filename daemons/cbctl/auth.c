/* Tokens at a shell: by client credentials, for a service account, or for the person who sits there (device flow). */
#include "ca_args.h"
#include "cbctl.h"
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { FILE_BYTES = 65536 };

struct job {
    cb_oidc_opts opts;
    cb_oidc_request_opts request;
    const char *ca, *secret_file, *key_file, *key_id, *account;
    char text[FILE_BYTES]; /* the secret */
    char id[256];          /* of the account */
    cb_loop *loop;
    int rc;
    bool device, json;
};

/* --- what came --- */

static void on_device(cb_oidc_request *r, const cb_oidc_device *d, void *user) {
    (void)r;
    (void)user;
    fprintf(stderr, "Open %s and enter %s\n", d->url, d->user_code);
    if (d->url_complete) fprintf(stderr, "or open %s\n", d->url_complete);
}

static void member(const char *name, const char *value, bool first) {
    if (!value) return;
    printf("%s\"%s\": ", first ? "{" : ", ", name);
    cbctl_json_text(value);
}

static void print(const struct job *j, const cb_oidc_tokens *t) {
    if (!j->json) {
        printf("%s\n", t->access_token);
        return;
    }
    member("access_token", t->access_token, true);
    member("token_type", t->token_type, false);
    member("refresh_token", t->refresh_token, false);
    member("id_token", t->id_token, false);
    member("scope", t->scope, false);
    if (t->identity) member("subject", cb_jwt_subject(t->identity), false);
    if (t->expires_at_s) printf(", \"expires_at\": %" PRId64, t->expires_at_s);
    printf("}\n");
}

static void on_done(cb_oidc_request *r, int rc, const cb_oidc_tokens *t, const char *error, void *user) {
    struct job *j = user;
    (void)error;
    j->rc = rc;
    if (rc < 0)
        cbctl_failed(rc);
    else
        print(j, t);
    cb_oidc_request_free(r);
    cb_loop_stop(j->loop);
}

/* --- options --- */

static int take_option(struct job *j, int option, const char *value) {
    const struct {
        int option;
        const char **to;
    } texts[] = {{'i', &j->opts.issuer},
                 {'c', &j->opts.client_id},
                 {'s', &j->secret_file},
                 {'k', &j->key_file},
                 {'K', &j->key_id},
                 {'a', &j->account},
                 {'S', &j->request.scope},
                 {'A', &j->request.audience},
                 {'R', &j->request.resource},
                 {'C', &j->ca},
                 {'x', &j->opts.assertion_aud}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (texts[i].option != option) continue;
        *texts[i].to = value;
        return CBCTL_OK;
    }
    switch (option) {
    case 'd':
        j->device = true;
        break;
    case 'j':
        j->json = true;
        break;
    case 'p':
        j->opts.client_auth = CB_OIDC_AUTH_POST;
        break;
    case 'o':
        j->opts.other_hosts = 1;
        break;
    case 'l':
        j->opts.loopback_http = 1;
        break;
    default:
        return CBCTL_USAGE;
    }
    return CBCTL_OK;
}

static int check(const struct job *j) {
    if (!j->opts.issuer) return cbctl_usage("auth token: --issuer: which provider?");
    if (j->account && (j->secret_file || j->key_file || j->device))
        return cbctl_usage("auth token: --account stands for itself: without --secret-file, --key-file and --device");
    if (j->secret_file && j->key_file) return cbctl_usage("auth token: --secret-file or --key-file, not both");
    if (!j->account && !j->opts.client_id) return cbctl_usage("auth token: --client-id: who are we?");
    if (!j->account && !j->device && !j->secret_file && !j->key_file)
        return cbctl_usage("auth token: --secret-file, --key-file, --account or --device: how do we show it?");
    return CBCTL_OK;
}

static int parse(struct job *j, int argc, char **argv) {
    static const struct option all[] = {{"issuer", required_argument, NULL, 'i'},
                                        {"client-id", required_argument, NULL, 'c'},
                                        {"secret-file", required_argument, NULL, 's'},
                                        {"secret-post", no_argument, NULL, 'p'},
                                        {"key-file", required_argument, NULL, 'k'},
                                        {"key-id", required_argument, NULL, 'K'},
                                        {"account", required_argument, NULL, 'a'},
                                        {"assertion-audience", required_argument, NULL, 'x'},
                                        {"device", no_argument, NULL, 'd'},
                                        {"scope", required_argument, NULL, 'S'},
                                        {"audience", required_argument, NULL, 'A'},
                                        {"resource", required_argument, NULL, 'R'},
                                        {"ca", required_argument, NULL, 'C'},
                                        {"other-hosts", no_argument, NULL, 'o'},
                                        {"loopback-http", no_argument, NULL, 'l'},
                                        {"json", no_argument, NULL, 'j'},
                                        {NULL, 0, NULL, 0}};
    int option, code = CBCTL_OK;
    opterr = 0;
    while (code == CBCTL_OK && (option = getopt_long(argc, argv, ":", all, NULL)) != -1) {
        if (option == ':') return cbctl_usage("%s needs a value", argv[optind - 1]);
        if (option == '?') return cbctl_usage("auth token: unknown option %s", argv[optind - 1]);
        code = take_option(j, option, optarg);
    }
    if (code == CBCTL_OK && optind < argc) return cbctl_usage("auth token: what is \"%s\"?", argv[optind]);
    return code == CBCTL_OK ? check(j) : code;
}

/* --- secrets and keys --- */

static int load(const char *path, char to[FILE_BYTES]) {
    size_t len = 0;
    int code = cbctl_ca_read(path, (uint8_t *)to, FILE_BYTES, &len);
    if (code != CBCTL_OK) return code;
    if (len == FILE_BYTES) {
        fprintf(stderr, "cbctl: %s: more than %d bytes\n", path, FILE_BYTES - 1);
        return CBCTL_FAILED;
    }
    to[len] = '\0';
    return CBCTL_OK;
}

/* What --key-file has: a JWK or PEM. */
static int read_key(const struct job *j, const char *text, cb_jwt_signer **key) {
    const bool json = text[strspn(text, " \t\r\n")] == '{';
    const cb_slice all = cb_slice_str(text), none = {NULL, 0};
    return cb_jwt_signer_new(
        key, CB_OPTS(cb_jwt_signer_opts, .pem = json ? none : all, .jwk = json ? all : none, .kid = j->key_id));
}

/* Reads whichever file says who we are. *key may become a key of ours. */
static int prepare(struct job *j, cb_jwt_signer **key) {
    const char *path = j->account ? j->account : j->key_file ? j->key_file : j->secret_file;
    int rc = CB_OK, code = path ? load(path, j->text) : CBCTL_OK;
    j->request.type = j->device ? CB_OIDC_DEVICE_CODE : CB_OIDC_CLIENT_CREDENTIALS;
    if (code != CBCTL_OK) return code;
    if (j->account) {
        rc = cb_oidc_account_read(key, j->id, sizeof j->id, cb_slice_str(j->text));
        j->request.type = rc;
        j->request.key = *key;
        j->request.subject = j->id;
        if (rc == CB_OIDC_CLIENT_CREDENTIALS) {
            j->opts.client_id = j->id;
            j->opts.client_key = *key;
        }
    } else if (j->key_file) {
        rc = read_key(j, j->text, key);
        j->opts.client_key = *key;
    } else if (j->secret_file) {
        j->text[strcspn(j->text, "\r\n")] = '\0';
        j->opts.client_secret = j->text;
    }
    return rc < 0 ? cbctl_ca_failed(rc) : CBCTL_OK;
}

/* --- running --- */

static int run(struct job *j) {
    cb_identity *roots = NULL;
    cb_http_client *client = NULL;
    cb_oidc *provider = NULL;
    cb_oidc_request *r = NULL;
    j->rc = CB_ECLOSED;
    int rc = cb_oidc_new(&provider, &j->opts);
    if (rc >= 0) rc = cb_loop_new(&j->loop, NULL);
    if (rc >= 0 && j->ca) rc = cb_identity_new(&roots, CB_OPTS(cb_identity_opts, .ca_file = j->ca));
    if (rc >= 0)
        rc = cb_http_client_new(&client, j->loop, CB_OPTS(cb_http_client_opts, .identity = roots, .alt_svc = 1));
    j->request.provider = provider;
    j->request.client = client;
    j->request.on_device = on_device;
    if (rc >= 0) rc = cb_oidc_request_start(&r, j->loop, &j->request, on_done, j);
    int code = rc < 0 ? cbctl_ca_failed(rc) : CBCTL_OK;
    if (rc >= 0 && cb_loop_run(j->loop) < 0) code = cbctl_failed(CB_ESYS);
    if (rc >= 0 && j->rc < 0) code = CBCTL_FAILED;
    cb_http_client_free(client);
    cb_oidc_unref(provider);
    cb_identity_unref(roots);
    cb_loop_free(j->loop);
    return code;
}

int cbctl_auth_token(int argc, char **argv) {
    static struct job j;
    cb_jwt_signer *key = NULL;
    j = (struct job){.opts = {.size = sizeof j.opts}, .request = {.size = sizeof j.request}};
    int code = parse(&j, argc, argv);
    if (code == CBCTL_OK) code = prepare(&j, &key);
    if (code == CBCTL_OK) code = run(&j);
    cb_jwt_signer_unref(key);
    explicit_bzero(j.text, sizeof j.text);
    return code;
}
