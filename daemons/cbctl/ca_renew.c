/* cbctl ca renew: certificates of the private authority, in time. */
#include "ca_args.h"
#include "cbctl.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void print_time(const ca_args *a, const char *label, const char *key, int64_t at) {
    char text[32];
    const time_t when = (time_t)at;
    struct tm tm;
    gmtime_r(&when, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    cbctl_ca_print(a->json, label, key, text, false);
}

/* Asks a daemon to read its certificates again. */
static int reload(const char *pid_file) {
    char text[32] = "", *end = text;
    FILE *f = fopen(pid_file, "re");
    const bool got = f && fgets(text, sizeof text, f);
    int err = errno;
    if (f) fclose(f);
    const long pid = got ? strtol(text, &end, 10) : 0;
    if (got && pid > 1 && (*end == '\n' || !*end)) {
        if (kill((pid_t)pid, SIGHUP) == 0) return CBCTL_OK;
        err = errno;
    } else if (f) {
        err = EINVAL;
    }
    fprintf(stderr, "cbctl: %s: %s\n", pid_file, err == EINVAL ? "no process id in it" : strerror(err));
    return CBCTL_FAILED;
}

/* Says why, and whether what is there still holds. */
static int failed(const ca_args *a, int rc, const cb_renew_result *r) {
    const int code = cbctl_ca_failed(rc);
    if (r->not_after_s == 0 || r->not_after_s > (int64_t)time(NULL)) return code;
    fprintf(stderr, "cbctl: %s: the certificate has expired\n", a->rest[0]);
    return CBCTL_EXPIRED;
}

int cbctl_ca_renew(int argc, char **argv) {
    ca_args a;
    cb_ca *ca = NULL;
    cb_renew_result r = {.size = sizeof r};
    int code = cbctl_ca_parse(&a, argc, argv, " dir key staple if-due pid-file json ");
    if (code != CBCTL_OK) return code;
    if (a.rest_len != 1) return cbctl_usage("ca renew: which one FILE has the certificate?");
    int rc = cbctl_ca_open(&a, &ca);
    if (rc >= 0) {
        rc = cb_ca_renew(ca,
                         CB_OPTS(cb_renew_opts, .cert_file = a.rest[0], .key_file = a.key, .if_due = a.if_due,
                                 .ocsp_file = a.staple),
                         &r);
    }
    cb_ca_free(ca);
    if (rc < 0) return failed(&a, rc, &r);
    const char *word = r.renewed ? "renewed" : "kept";
    cbctl_ca_print(a.json, r.renewed ? "renewed:" : "kept:", a.json ? "outcome" : word, a.json ? word : a.rest[0],
                   true);
    print_time(&a, "expires:", "expires", r.not_after_s);
    print_time(&a, "renew-at:", "renew_at", r.renew_at_s);
    if (a.json) puts("}");
    return (r.renewed || r.stapled) && a.pid_file ? reload(a.pid_file) : CBCTL_OK;
}
