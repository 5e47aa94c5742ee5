/* API keys and revocations: lines for the files that cb-edge reads. */
#include "cbctl.h"
#include <cb.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { ROLES_MAX = 64, DAY_S = 86400, DAYS_MAX = 36500 };

static bool days(const char *text, int64_t *out_s) {
    char *end;
    unsigned long v = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || !v || v > DAYS_MAX) return false;
    *out_s = (int64_t)v * DAY_S;
    return true;
}

/* ---- one more line ---- */

static bool ends_open(int fd) {
    struct stat st;
    char last = '\n';
    if (fstat(fd, &st) < 0 || st.st_size == 0) return false;
    return pread(fd, &last, 1, st.st_size - 1) == 1 && last != '\n';
}

/* In one write, so that a reader sees all of it or nothing; it is on the disk before we say so. */
static int append(const char *path, const char *line) {
    char *text = NULL;
    int fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
    bool good = fd >= 0 && flock(fd, LOCK_EX) == 0;
    int n = good ? asprintf(&text, "%s%s\n", ends_open(fd) ? "\n" : "", line) : -1;
    good = n > 0 && write(fd, text, (size_t)n) == n && fsync(fd) == 0;
    if (!good) fprintf(stderr, "cbctl: %s: %s\n", path, strerror(errno));
    if (n > 0) free(text);
    if (fd >= 0) close(fd);
    return good ? CBCTL_OK : CBCTL_FAILED;
}

/* ---- keys ---- */

static int make_key(const cb_api_key_opts *o, const char *hash_key, const char *keys_file, bool json) {
    cb_api_keys *keys = NULL;
    char key[CB_API_KEY_BYTES], *line = NULL;
    int rc = cb_api_keys_load(&keys, NULL, hash_key, 1);
    if (rc == CB_OK) rc = cb_api_key_make(key, &line, keys, o);
    cb_api_keys_unref(keys);
    if (rc < 0) return cbctl_failed(rc);
    int code = keys_file ? append(keys_file, line) : CBCTL_OK;
    if (code == CBCTL_OK && json)
        printf("{\"key\": \"%s\", \"line\": %s}\n", key, line);
    else if (code == CBCTL_OK)
        printf("key:  %s\nline: %s\n", key, line);
    explicit_bzero(key, sizeof key);
    cb_jwt_text_free(line);
    return code;
}

int cbctl_auth_key(int argc, char **argv) {
    static const struct option options[] = {
        {"hash-key", required_argument, NULL, 'h'}, {"keys", required_argument, NULL, 'k'},
        {"subject", required_argument, NULL, 's'},  {"tenant", required_argument, NULL, 't'},
        {"role", required_argument, NULL, 'r'},     {"days", required_argument, NULL, 'd'},
        {"json", no_argument, NULL, 'j'},           {NULL, 0, NULL, 0}};
    const char *roles[ROLES_MAX], *hash_key = NULL, *keys_file = NULL;
    cb_api_key_opts o = {.size = sizeof o, .roles = roles, .now_s = (int64_t)time(NULL)};
    int64_t lives_s = 0;
    bool json = false;
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        switch (option) {
        case 'h':
            hash_key = optarg;
            break;
        case 'k':
            keys_file = optarg;
            break;
        case 's':
            o.subject = optarg;
            break;
        case 't':
            o.tenant = optarg;
            break;
        case 'r':
            if (o.n_roles == ROLES_MAX) return cbctl_usage("auth key: at most %d roles", ROLES_MAX);
            roles[o.n_roles++] = optarg;
            break;
        case 'd':
            if (!days(optarg, &lives_s)) return cbctl_usage("--days: \"%s\" is not 1 to %d", optarg, DAYS_MAX);
            break;
        case 'j':
            json = true;
            break;
        case ':':
            return cbctl_usage("%s needs a value", argv[optind - 1]);
        default:
            return cbctl_usage("auth key: unknown option %s", argv[optind - 1]);
        }
    }
    if (optind + 1 != argc || strcmp(argv[optind], "new") != 0) return cbctl_usage("auth key: only \"new\" is known");
    if (!hash_key || !o.subject) return cbctl_usage("auth key new: --hash-key and --subject are needed");
    if (lives_s) o.expires_s = o.now_s + lives_s;
    return make_key(&o, hash_key, keys_file, json);
}

/* ---- revocations ---- */

int cbctl_auth_revoke(int argc, char **argv) {
    static const struct option options[] = {{"file", required_argument, NULL, 'f'},
                                            {"issuer", required_argument, NULL, 'i'},
                                            {"jti", required_argument, NULL, 'j'},
                                            {"subject", required_argument, NULL, 's'},
                                            {"all", no_argument, NULL, 'a'},
                                            {"days", required_argument, NULL, 'd'},
                                            {NULL, 0, NULL, 0}};
    const char *file = NULL;
    cb_revocation what = {.size = sizeof what, .before_s = (int64_t)time(NULL)};
    int64_t days_s = 0;
    bool all = false;
    char *line = NULL;
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        switch (option) {
        case 'f':
            file = optarg;
            break;
        case 'i':
            what.issuer = optarg;
            break;
        case 'j':
            what.jti = optarg;
            break;
        case 's':
            what.subject = optarg;
            break;
        case 'a':
            all = true;
            break;
        case 'd':
            if (!days(optarg, &days_s)) return cbctl_usage("--days: \"%s\" is not 1 to %d", optarg, DAYS_MAX);
            break;
        case ':':
            return cbctl_usage("%s needs a value", argv[optind - 1]);
        default:
            return cbctl_usage("auth revoke: unknown option %s", argv[optind - 1]);
        }
    }
    if (optind != argc) return cbctl_usage("auth revoke: %s is too much", argv[optind]);
    if (!file || !what.issuer) return cbctl_usage("auth revoke: --file and --issuer are needed");
    if (!!what.jti + !!what.subject + all != 1) return cbctl_usage("auth revoke: one of --jti, --subject and --all");
    if (what.jti) what.before_s = 0;
    if (days_s) what.until_s = (int64_t)time(NULL) + days_s;
    int rc = cb_revocation_line(&line, &what);
    if (rc < 0) return cbctl_failed(rc);
    int code = append(file, line);
    if (code == CBCTL_OK) puts(line);
    cb_jwt_text_free(line);
    return code;
}
