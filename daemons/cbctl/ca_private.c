/* cbctl ca: the private authority. */
#include "ca_args.h"
#include "cbctl.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { REQUEST_MAX = 64 << 10, DAY = 86400 };

/* --- authorities --- */

static int make(const ca_args *a, cb_ca *parent) {
    cb_ca *ca = NULL;
    char path[3][4096];
    const char *const names[3] = {"ca.pem", a->key_url ? "ca-key.url" : "ca-key.pem", "root.pem"};
    bool root = !parent;
    unsigned long path_len = a->path_len;
    int rc = cb_ca_open(&ca, CB_OPTS(cb_ca_opts, .dir = a->dir, .mode = CB_CA_MAKE, .parent = parent,
                                     .common_name = a->cn  ? a->cn
                                                    : root ? "Private root"
                                                           : "Private intermediate",
                                     .organization = a->organization,
                                     .days = (uint32_t)(a->days ? a->days
                                                        : root  ? 3650
                                                                : 1825),
                                     .key_type = a->key_type, .key_url = a->key_url, .path_len = (uint32_t)path_len,
                                     .permitted = a->names, .permitted_len = a->names_len));
    if (rc < 0) return cbctl_ca_failed(rc);
    cb_ca_free(ca);
    for (size_t i = 0; i < 3; i++) {
        snprintf(path[i], sizeof path[i], "%s/%s", a->dir, names[i]);
    }
    cbctl_ca_print(a->json, "certificate:", "certificate", path[0], true);
    cbctl_ca_print(a->json, "key:", "key", path[1], false);
    cbctl_ca_print(a->json, "trust:", "trust", path[2], false);
    if (a->json) puts("}");
    return CBCTL_OK;
}

int cbctl_ca_init(int argc, char **argv) {
    ca_args a;
    int code = cbctl_ca_parse(&a, argc, argv, " dir cn organization days key-type key-url path-len json ");
    if (code != CBCTL_OK) return code;
    if (a.rest_len) return cbctl_usage("ca init: what is \"%s\"?", a.rest[0]);
    bool given = false;
    for (int i = 1; i < argc; i++) {
        given |= strncmp(argv[i], "--path-len", 10) == 0;
    }
    if (!given) a.path_len = 1;
    return make(&a, NULL);
}

int cbctl_ca_intermediate(int argc, char **argv) {
    ca_args a;
    cb_ca *parent = NULL;
    int code =
        cbctl_ca_parse(&a, argc, argv, " dir parent cn organization days key-type key-url path-len permit json ");
    if (code != CBCTL_OK) return code;
    if (a.rest_len) return cbctl_usage("ca intermediate: what is \"%s\"?", a.rest[0]);
    if (!a.parent) return cbctl_usage("ca intermediate: which --parent DIR signs it?");
    int rc = cb_ca_open(&parent, CB_OPTS(cb_ca_opts, .dir = a.parent, .mode = CB_CA_OPEN));
    if (rc < 0) return cbctl_ca_failed(rc);
    code = make(&a, parent);
    cb_ca_free(parent);
    return code;
}

/* --- leaves --- */

int cbctl_ca_issue(int argc, char **argv) {
    ca_args a;
    cb_ca *ca = NULL;
    char *cert = NULL, *key = NULL, trust[4096];
    int code = cbctl_ca_parse(&a, argc, argv, " dir days hours key-type profile uri out must-staple json ");
    if (code != CBCTL_OK) return code;
    if (a.days && a.hours) return cbctl_usage("ca issue: --days or --hours, not both");
    if (a.out && !*a.out) return cbctl_usage("ca issue: --out \"\" names no files");
    for (size_t i = 0; i < a.rest_len && code == CBCTL_OK; i++) {
        code = cbctl_ca_add(a.names, &a.names_len, a.rest[i], "names");
    }
    if (code != CBCTL_OK) return code;
    cb_leaf_opts leaf = cbctl_ca_leaf(&a);
    int rc = cbctl_ca_open(&a, &ca);
    if (rc >= 0) rc = cb_ca_issue(ca, &leaf, &cert, &key);
    cb_ca_free(ca);
    if (rc < 0) return cbctl_ca_failed(rc);
    snprintf(trust, sizeof trust, "%s/root.pem", a.dir);
    cbctl_ca_print(a.json, "trust:", "trust", trust, true);
    cbctl_ca_print(a.json, "certificate:", "certificate", cert, false);
    cbctl_ca_print(a.json, "key:", "key", key, false);
    if (a.json) puts("}");
    cb_ca_text_free(cert);
    cb_ca_text_free(key);
    return CBCTL_OK;
}

int cbctl_ca_sign(int argc, char **argv) {
    static uint8_t request[REQUEST_MAX + 1];
    ca_args a;
    cb_ca *ca = NULL;
    char *cert = NULL;
    size_t len = 0;
    int code = cbctl_ca_parse(&a, argc, argv, " dir days hours profile name uri must-staple ");
    if (code != CBCTL_OK) return code;
    if (a.days && a.hours) return cbctl_usage("ca sign: --days or --hours, not both");
    if (a.rest_len != 1) return cbctl_usage("ca sign: one FILE with a signing request, or - for standard input");
    if (a.names_len + a.uris_len == 0) return cbctl_usage("ca sign: which --name or --uri may it have?");
    code = cbctl_ca_read(a.rest[0], request, sizeof request, &len);
    if (code != CBCTL_OK) return code;
    cb_leaf_opts leaf = cbctl_ca_leaf(&a);
    int rc = cbctl_ca_open(&a, &ca);
    if (rc >= 0) rc = cb_ca_sign(ca, (cb_slice){request, len}, &leaf, &cert);
    cb_ca_free(ca);
    if (rc < 0) return cbctl_failed(rc);
    fputs(cert, stdout);
    cb_ca_text_free(cert);
    return CBCTL_OK;
}

/* --- what was issued --- */

int cbctl_ca_revoke(int argc, char **argv) {
    ca_args a;
    cb_ca *ca = NULL;
    int code = cbctl_ca_parse(&a, argc, argv, " dir reason ");
    if (code != CBCTL_OK) return code;
    if (a.rest_len != 1) return cbctl_usage("ca revoke: which SERIAL? \"cbctl ca list\" has them");
    int reason = a.reason ? cbctl_ca_value(cbctl_ca_reasons, a.reason) : CB_REVOKE_UNSPECIFIED;
    if (reason < 0) return cbctl_usage("--reason: no such reason: \"%s\"", a.reason);
    int rc = cbctl_ca_open(&a, &ca);
    if (rc >= 0) rc = cb_ca_revoke(ca, a.rest[0], reason);
    cb_ca_free(ca);
    return rc < 0 ? cbctl_ca_failed(rc) : CBCTL_OK;
}

int cbctl_ca_crl(int argc, char **argv) {
    ca_args a;
    cb_ca *ca = NULL;
    int code = cbctl_ca_parse(&a, argc, argv, " dir days hours ");
    if (code != CBCTL_OK) return code;
    if (a.days && a.hours) return cbctl_usage("ca crl: --days or --hours, not both");
    if (a.days > 366) return cbctl_usage("--days: a CRL is valid for at most 366 days");
    if (a.rest_len) return cbctl_usage("ca crl: what is \"%s\"?", a.rest[0]);
    int rc = cbctl_ca_open(&a, &ca);
    if (rc >= 0) rc = cb_ca_crl(ca, (uint32_t)(a.days * DAY + a.hours * 3600), NULL);
    cb_ca_free(ca);
    if (rc < 0) return cbctl_ca_failed(rc);
    printf("%s/ca.crl\n", a.dir);
    return CBCTL_OK;
}

struct listing {
    const ca_args *a;
    size_t n;
};

static void print_time(int64_t at, char out[32]) {
    time_t when = (time_t)at;
    struct tm tm;
    gmtime_r(&when, &tm);
    strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

static int print_entry(const cb_ca_entry *e, void *user) {
    struct listing *l = user;
    char from[32], until[32], revoked[32] = "";
    if (l->a->revoked_only && !e->revoked_s) return 0;
    print_time(e->not_before_s, from);
    print_time(e->not_after_s, until);
    if (e->revoked_s) print_time(e->revoked_s, revoked);
    bool first = l->n++ == 0;
    if (!l->a->json) {
        printf("%s  %s  %-9s  %s%s%s\n", e->serial, until, cbctl_ca_word(cbctl_ca_profiles, e->profile), e->names,
               e->revoked_s ? "  revoked: " : "", e->revoked_s ? cbctl_ca_word(cbctl_ca_reasons, e->reason) : "");
        return 0;
    }
    printf("%s{\"serial\": \"%s\", \"profile\": \"%s\", \"not_before\": \"%s\", \"not_after\": \"%s\", \"names\": ",
           first ? "" : ",\n ", e->serial, cbctl_ca_word(cbctl_ca_profiles, e->profile), from, until);
    cbctl_json_text(e->names);
    if (e->revoked_s)
        printf(", \"revoked\": \"%s\", \"reason\": \"%s\"", revoked, cbctl_ca_word(cbctl_ca_reasons, e->reason));
    putchar('}');
    return 0;
}

int cbctl_ca_list(int argc, char **argv) {
    ca_args a;
    cb_ca *ca = NULL;
    int code = cbctl_ca_parse(&a, argc, argv, " dir revoked json ");
    if (code != CBCTL_OK) return code;
    if (a.rest_len) return cbctl_usage("ca list: what is \"%s\"?", a.rest[0]);
    struct listing l = {.a = &a};
    int rc = cbctl_ca_open(&a, &ca);
    if (rc < 0) return cbctl_ca_failed(rc);
    if (a.json) putchar('[');
    rc = cb_ca_list(ca, print_entry, &l);
    if (a.json) puts("]");
    cb_ca_free(ca);
    return rc < 0 ? cbctl_ca_failed(rc) : CBCTL_OK;
}
