/* Certificates from an ACME server: challenges are answered by a small server, through a web server's folder, or by a
 * command that changes the DNS. */
#include "cbctl.h"
#include <cb.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { CONTACTS = 16, KEY_TEXT = 1024, PATH_BYTES = 4096 };

struct job {
    cb_acme_opts opts;
    cb_acme_order order;
    const char *ca, *standalone, *tls_alpn, *webroot, *hook, *eab_key_file;
    const char *contacts[CONTACTS];
    char eab_key[KEY_TEXT];
    unsigned long reason;
    int account_op, rc;
    bool revoke, account;
    cb_loop *loop;
    cb_acme *acme;
    cb_http_server *server;
    cb_alpn01 *alpn01; /* of tls_alpn */
};

/* --- answering challenges --- */

static int on_request(cb_exchange *x, void *user) {
    struct job *j = user;
    char text[CB_ACME_HTTP01_BYTES];
    const cb_field type = {cb_slice_str("content-type"), cb_slice_str("application/octet-stream")};
    int64_t n = cb_acme_http01(text, sizeof text, cb_acme_thumbprint(j->acme), cb_exchange_path(x));
    if (n < 0) return cb_exchange_send_text(x, 404, "not found\n");
    return cb_exchange_send(x, 200, &type, 1, (cb_slice){(const uint8_t *)text, (size_t)n});
}

static int run_hook(const char *hook, const char *verb, const cb_acme_challenge *c) {
    char *const argv[] = {(char *)(uintptr_t)hook, (char *)(uintptr_t)verb, (char *)(uintptr_t)c->name,
                          (char *)(uintptr_t)c->dns_value, NULL};
    char text[300];
    pid_t pid;
    int status = 0, err = posix_spawnp(&pid, hook, NULL, NULL, argv, environ);
    while (!err && waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) err = errno;
    }
    if (!err && WIFEXITED(status) && WEXITSTATUS(status) == 0) return CB_OK;
    snprintf(text, sizeof text, "%.100s %s %.100s: %s", hook, verb, c->name, err ? strerror(err) : "it failed");
    return cb_error_set(CB_EUSER, text);
}

static int file_failed(const char *path) {
    char text[PATH_BYTES + 100];
    snprintf(text, sizeof text, "%s: %s", path, strerror(errno));
    return cb_error_set(CB_EUSER, text);
}

static int write_token(const char *webroot, const cb_acme_challenge *c) {
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/.well-known", webroot);
    if (mkdir(path, 0755) < 0 && errno != EEXIST) return file_failed(path);
    snprintf(path, sizeof path, "%s/.well-known/acme-challenge", webroot);
    if (mkdir(path, 0755) < 0 && errno != EEXIST) return file_failed(path);
    snprintf(path, sizeof path, "%s/.well-known/acme-challenge/%s", webroot, c->token);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) return file_failed(path);
    const ssize_t len = (ssize_t)strlen(c->key_auth);
    int rc = fchmod(fd, 0644) < 0 || write(fd, c->key_auth, (size_t)len) != len ? file_failed(path) : CB_OK;
    close(fd);
    return rc;
}

static int on_challenge(cb_acme *a, const cb_acme_challenge *c, void *user) {
    const struct job *j = user;
    (void)a;
    if (c->type == CB_ACME_DNS_01) return run_hook(j->hook, "add", c);
    if (c->type == CB_ACME_TLS_ALPN_01) return cb_alpn01_set(j->alpn01, c->name, c->pem);
    return j->webroot ? write_token(j->webroot, c) : CB_OK;
}

static void on_challenge_done(cb_acme *a, const cb_acme_challenge *c, void *user) {
    const struct job *j = user;
    char path[PATH_BYTES];
    (void)a;
    if (c->type == CB_ACME_DNS_01 && run_hook(j->hook, "remove", c) < 0) cbctl_failed(CB_EUSER);
    if (!j->webroot) return;
    snprintf(path, sizeof path, "%s/.well-known/acme-challenge/%s", j->webroot, c->token);
    unlink(path);
}

/* --- the outcome --- */

static void print_time(const char *name, int64_t at) {
    char when[32] = "?";
    struct tm tm;
    const time_t t = (time_t)at;
    if (!at) return;
    if (gmtime_r(&t, &tm)) strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm);
    printf("%-12s %s\n", name, when);
}

static void on_done(cb_acme *a, int rc, const cb_acme_result *r, void *user) {
    struct job *j = user;
    (void)a;
    j->rc = rc;
    cb_loop_stop(j->loop);
    if (rc < 0) {
        cbctl_failed(rc);
        if (rc == CB_ELIMIT) print_time("retry-at:", r->retry_at_s);
        return;
    }
    if (j->account) {
        printf("%-12s %s\n%-12s %s\n", "account:", r->account ? r->account : "", "thumbprint:", cb_acme_thumbprint(a));
        return;
    }
    printf("%-12s %s\n", j->revoke ? "revoked:" : r->issued ? "issued:" : "kept:", r->file);
    if (j->revoke) return;
    print_time("expires:", r->not_after_s);
    print_time("renew-at:", r->renew_at_s);
    if (r->explanation) printf("%-12s %s\n", "see:", r->explanation);
}

/* --- options --- */

static int read_key(struct job *j) {
    FILE *f = fopen(j->eab_key_file, "re");
    if (!f || !fgets(j->eab_key, sizeof j->eab_key, f)) {
        if (f) fclose(f);
        return cbctl_usage("--eab-key-file: %s: cannot be read", j->eab_key_file);
    }
    fclose(f);
    j->eab_key[strcspn(j->eab_key, "\r\n")] = '\0';
    j->opts.eab_key = j->eab_key;
    return CBCTL_OK;
}

static int take_option(struct job *j, int option, const char *value) {
    struct {
        int option;
        const char **to;
    } const texts[] = {
        {'u', &j->opts.directory}, {'d', &j->opts.dir},     {'C', &j->ca},
        {'s', &j->standalone},     {'w', &j->webroot},      {'h', &j->hook},
        {'p', &j->order.profile},  {'e', &j->opts.eab_kid}, {'E', &j->eab_key_file},
        {'T', &j->tls_alpn},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (texts[i].option != option) continue;
        *texts[i].to = value;
        return CBCTL_OK;
    }
    switch (option) {
    case 'c':
        if (j->opts.contacts_len == CONTACTS) return cbctl_usage("--contact: more than %d", CONTACTS);
        j->contacts[j->opts.contacts_len++] = value;
        return CBCTL_OK;
    case 'a':
        j->opts.agree_terms = 1;
        return CBCTL_OK;
    case 'o':
        j->opts.other_hosts = 1;
        return CBCTL_OK;
    case 't': {
        char *end;
        const unsigned long s = strtoul(value, &end, 10);
        if (*value < '0' || *value > '9' || *end || s < 1 || s > 86400)
            return cbctl_usage("--patience-s: \"%s\" is not 1 to 86400", value);
        j->opts.patience_s = (uint32_t)s;
        return CBCTL_OK;
    }
    case 'r': {
        char *end;
        j->reason = strtoul(value, &end, 10);
        if (*value < '0' || *value > '9' || *end || j->reason > 10)
            return cbctl_usage("--reason: \"%s\" is not 0 to 10", value);
        return CBCTL_OK;
    }
    case 'k':
        j->order.key_type = cbctl_key_type(value);
        return j->order.key_type < 0
                   ? cbctl_usage("--key-type: \"%s\" is not ecdsa-p256, ecdsa-p384, rsa-2048 or ed25519", value)
                   : CBCTL_OK;
    default: /* what `account` does: 1000 + enum cb_acme_account_op */
        if (j->account_op) return cbctl_usage("one of --set-contacts, --roll-key and --deactivate at a time");
        j->account_op = option - 1000;
        return CBCTL_OK;
    }
}

static int parse(struct job *j, int argc, char **argv, const char *what, const char *allowed) {
    static const struct option all[] = {{"directory", required_argument, NULL, 'u'},
                                        {"dir", required_argument, NULL, 'd'},
                                        {"ca", required_argument, NULL, 'C'},
                                        {"standalone", required_argument, NULL, 's'},
                                        {"tls-alpn", required_argument, NULL, 'T'},
                                        {"webroot", required_argument, NULL, 'w'},
                                        {"dns-hook", required_argument, NULL, 'h'},
                                        {"profile", required_argument, NULL, 'p'},
                                        {"eab-kid", required_argument, NULL, 'e'},
                                        {"eab-key-file", required_argument, NULL, 'E'},
                                        {"contact", required_argument, NULL, 'c'},
                                        {"agree-terms", no_argument, NULL, 'a'},
                                        {"other-hosts", no_argument, NULL, 'o'},
                                        {"patience-s", required_argument, NULL, 't'},
                                        {"reason", required_argument, NULL, 'r'},
                                        {"key-type", required_argument, NULL, 'k'},
                                        {"set-contacts", no_argument, NULL, 1000 + CB_ACME_CONTACTS},
                                        {"roll-key", no_argument, NULL, 1000 + CB_ACME_ROLL_KEY},
                                        {"deactivate", no_argument, NULL, 1000 + CB_ACME_DEACTIVATE},
                                        {NULL, 0, NULL, 0}};
    int option, code = CBCTL_OK;
    j->opts = (cb_acme_opts){.size = sizeof j->opts, .dir = "acme"};
    j->order = (cb_acme_order){.size = sizeof j->order};
    opterr = 0;
    while (code == CBCTL_OK && (option = getopt_long(argc, argv, ":", all, NULL)) != -1) {
        if (option == ':') return cbctl_usage("%s needs a value", argv[optind - 1]);
        if (option == '?' || !(option >= 1000 ? j->account : strchr(allowed, option) != NULL)) {
            return cbctl_usage(
                "acme %s: unknown option %s", what,
                argv[optind - (option == '?' || option == 'a' || option == 'o' || option >= 1000 ? 1 : 2)]);
        }
        code = take_option(j, option, optarg);
    }
    j->opts.contacts = j->contacts;
    if (code == CBCTL_OK && j->eab_key_file) code = read_key(j);
    if (code == CBCTL_OK && !j->opts.directory) code = cbctl_usage("acme %s: --directory: which server?", what);
    return code;
}

/* --- running --- */

static int begin(struct job *j) {
    if (j->account) return cb_acme_account(j->acme, j->account_op);
    if (j->revoke) return cb_acme_revoke(j->acme, j->order.names[0], (uint32_t)j->reason);
    return cb_acme_issue(j->acme, &j->order);
}

/* What answers the challenges: port 80 or 443 of the names leads here. */
static int open_server(struct job *j) {
    static const cb_exchange_ops http = {.size = sizeof http, .on_head = on_request};
    cb_identity *me = NULL;
    char *pem = NULL;
    int rc = CB_OK;
    if (!j->standalone && !j->tls_alpn) return CB_OK;
    if (j->tls_alpn) { /* who does not validate gets a certificate that nobody trusts */
        static const char *const nobody[] = {"acme.invalid"};
        rc = cb_acme_placeholder(&pem, nobody, 1, (int64_t)time(NULL));
        if (rc >= 0) rc = cb_alpn01_new(&j->alpn01);
        if (rc >= 0) rc = cb_identity_new(&me, CB_OPTS(cb_identity_opts, .pem = pem, .alpn01 = j->alpn01));
    }
    if (rc >= 0)
        rc = cb_http_server_new(&j->server, j->loop,
                                CB_OPTS(cb_http_server_opts, .listen = j->standalone ? j->standalone : j->tls_alpn,
                                        .identity = me, .ops = &http, .user = j, .versions = CB_HTTP_1));
    cb_acme_text_free(pem);
    cb_identity_unref(me);
    return rc;
}

static int run(struct job *j) {
    static const cb_acme_ops ops = {
        .size = sizeof ops, .on_challenge = on_challenge, .on_challenge_done = on_challenge_done, .on_done = on_done};
    cb_identity *roots = NULL;
    cb_http_client *client = NULL;
    j->rc = CB_ECLOSED;
    int rc = cb_loop_new(&j->loop, NULL);
    if (rc >= 0 && j->ca) rc = cb_identity_new(&roots, CB_OPTS(cb_identity_opts, .ca_file = j->ca));
    if (rc >= 0)
        rc = cb_http_client_new(&client, j->loop, CB_OPTS(cb_http_client_opts, .identity = roots, .alt_svc = 1));
    j->opts.client = client;
    j->opts.ops = &ops;
    j->opts.user = j;
    if (rc >= 0) rc = cb_acme_new(&j->acme, j->loop, &j->opts);
    if (rc >= 0) rc = open_server(j);
    if (rc >= 0) rc = begin(j);
    int code = rc < 0 ? cbctl_failed(rc) : CBCTL_OK;
    if (rc >= 0 && cb_loop_run(j->loop) < 0) code = cbctl_failed(CB_ESYS);
    if (code == CBCTL_OK && j->rc < 0) code = CBCTL_FAILED;
    if (rc == CB_EINVAL) code = CBCTL_USAGE;
    cb_acme_free(j->acme);
    cb_http_server_free(j->server);
    cb_alpn01_unref(j->alpn01);
    cb_http_client_free(client);
    cb_identity_unref(roots);
    cb_loop_free(j->loop);
    explicit_bzero(j->eab_key, sizeof j->eab_key);
    return code;
}

static int issue(int argc, char **argv, const char *what, uint8_t if_due) {
    struct job j = {0};
    int code = parse(&j, argc, argv, what, "udCsTwhpeEcaotk");
    if (code != CBCTL_OK) return code;
    if (optind == argc) return cbctl_usage("acme %s: which NAME shall the certificate be for?", what);
    if (!!j.standalone + !!j.tls_alpn + !!j.webroot + !!j.hook != 1) {
        return cbctl_usage("acme %s: one of --standalone, --tls-alpn, --webroot and --dns-hook answers the challenges",
                           what);
    }
    j.order.names = (const char *const *)(argv + optind);
    j.order.names_len = (size_t)(argc - optind);
    j.order.challenge = j.hook ? CB_ACME_DNS_01 : j.tls_alpn ? CB_ACME_TLS_ALPN_01 : CB_ACME_HTTP_01;
    j.order.if_due = if_due;
    return run(&j);
}

int cbctl_acme_issue(int argc, char **argv) {
    return issue(argc, argv, "issue", 0);
}

int cbctl_acme_renew(int argc, char **argv) {
    return issue(argc, argv, "renew", 1);
}

int cbctl_acme_account(int argc, char **argv) {
    struct job j = {.account = true};
    int code = parse(&j, argc, argv, "account", "udCeEcaot");
    if (code != CBCTL_OK) return code;
    return optind == argc ? run(&j) : cbctl_usage("acme account: no arguments but options");
}

int cbctl_acme_revoke(int argc, char **argv) {
    struct job j = {.revoke = true};
    int code = parse(&j, argc, argv, "revoke", "udCotr");
    if (code != CBCTL_OK) return code;
    if (optind + 1 != argc) return cbctl_usage("acme revoke: one NAME, the first of the certificate");
    j.order.names = (const char *const *)(argv + optind);
    return run(&j);
}
