/* Sealed files: sealed, opened, sealed again under a new key, and looked at. */
#include "cbctl.h"
#include <cb.h>
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OLD_KEYS = 7 };

typedef struct seal_args {
    cb_seal_opts keys;
    const char *old[OLD_KEYS];
    const char *purpose;
    bool force, json;
} seal_args;

static const struct option seal_options[] = {{"key", required_argument, NULL, 'k'},
                                             {"old-key", required_argument, NULL, 'o'},
                                             {"purpose", required_argument, NULL, 'p'},
                                             {"make-key", no_argument, NULL, 'm'},
                                             {"force", no_argument, NULL, 'f'},
                                             {"json", no_argument, NULL, 'j'},
                                             {NULL, 0, NULL, 0}};

/* `letters`: the options that this command has. */
static int read_args(seal_args *a, int argc, char **argv, const char *name, const char *letters) {
    int option, at = 0;
    *a = (seal_args){.keys = {.size = sizeof a->keys}};
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":", seal_options, &at)) != -1) {
        if (option == ':') return cbctl_usage("%s needs a value", argv[optind - 1]);
        if (option == '?') return cbctl_usage("seal %s: unknown option %s", name, argv[optind - 1]);
        if (!strchr(letters, option))
            return cbctl_usage("seal %s: --%s is none of its options", name, seal_options[at].name);
        if (option == 'o' && a->keys.n_old_keys == OLD_KEYS) return cbctl_usage("--old-key: more than %d", OLD_KEYS);
        if (option == 'k') a->keys.key = optarg;
        if (option == 'o') a->old[a->keys.n_old_keys++] = optarg;
        if (option == 'p') a->purpose = optarg;
        if (option == 'm') a->keys.make = 1;
        if (option == 'f') a->force = true;
        if (option == 'j') a->json = true;
    }
    a->keys.old_keys = a->old;
    if (strchr(letters, 'k') && !a->keys.key) return cbctl_usage("seal %s: --key is missing", name);
    if (strchr(letters, 'p') && !a->purpose) return cbctl_usage("seal %s: --purpose is missing", name);
    return CBCTL_OK;
}

/* A whole file, to be freed with cb_seal_free(). */
static int read_all(const char *path, uint8_t **out, size_t *len) {
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "rbe");
    uint8_t *bytes = f ? malloc(CB_SEAL_BYTES_MAX + 1) : NULL;
    size_t n = bytes ? fread(bytes, 1, CB_SEAL_BYTES_MAX + 1, f) : 0;
    const int err = !f || (bytes && ferror(f)) ? errno : 0;
    if (f && f != stdin) fclose(f);
    if (err || !bytes || n > CB_SEAL_BYTES_MAX) {
        fprintf(stderr, "cbctl: %s: %s\n", path, err ? strerror(err) : bytes ? "larger than 16 MiB" : "no memory");
        free(bytes);
        return CBCTL_FAILED;
    }
    *out = bytes;
    *len = n;
    return CBCTL_OK;
}

int cbctl_seal_close(int argc, char **argv) {
    seal_args a;
    cb_seal *seal = NULL;
    uint8_t *plain = NULL;
    size_t len = 0;
    int code = read_args(&a, argc, argv, "close", "kmp");
    if (code == CBCTL_OK && optind + 2 != argc) code = cbctl_usage("seal close: FILE and SEALED");
    if (code == CBCTL_OK) code = read_all(argv[optind], &plain, &len);
    if (code != CBCTL_OK) return code;
    int rc = cb_seal_new(&seal, &a.keys);
    if (rc == CB_OK) rc = cb_seal_write(seal, argv[optind + 1], a.purpose, (cb_slice){plain, len});
    cb_seal_free(plain, len);
    cb_seal_unref(seal);
    return rc < 0 ? cbctl_failed(rc) : CBCTL_OK;
}

int cbctl_seal_open(int argc, char **argv) {
    seal_args a;
    cb_seal *seal = NULL;
    uint8_t *plain = NULL;
    size_t len = 0;
    int code = read_args(&a, argc, argv, "open", "kop");
    if (code == CBCTL_OK && optind + 1 != argc) code = cbctl_usage("seal open: one SEALED");
    if (code != CBCTL_OK) return code;
    int rc = cb_seal_new(&seal, &a.keys);
    if (rc == CB_OK) rc = cb_seal_read(seal, argv[optind], a.purpose, &plain, &len, NULL);
    if (rc == CB_OK) fwrite(plain, 1, len, stdout); /* main() tells when that failed */
    cb_seal_free(plain, len);
    cb_seal_unref(seal);
    return rc < 0 ? cbctl_failed(rc) : CBCTL_OK;
}

int cbctl_seal_renew(int argc, char **argv) {
    seal_args a;
    cb_seal *seal = NULL;
    int code = read_args(&a, argc, argv, "renew", "komfp");
    if (code == CBCTL_OK && optind == argc) code = cbctl_usage("seal renew: which SEALED?");
    if (code != CBCTL_OK) return code;
    int rc = cb_seal_new(&seal, &a.keys);
    if (rc < 0) code = cbctl_failed(rc);
    for (int i = optind; seal && i < argc; i++) {
        rc = cb_seal_renew(seal, argv[i], a.purpose, a.force);
        if (rc < 0)
            code = cbctl_failed(rc);
        else
            printf("%s: %s\n", argv[i], rc ? "sealed again" : "kept");
    }
    cb_seal_unref(seal);
    return code;
}

int cbctl_seal_show(int argc, char **argv) {
    seal_args a;
    cb_seal_label l = {.size = sizeof l};
    uint8_t *sealed = NULL;
    size_t len = 0;
    int code = read_args(&a, argc, argv, "show", "j");
    if (code == CBCTL_OK && optind + 1 != argc) code = cbctl_usage("seal show: one SEALED");
    if (code == CBCTL_OK) code = read_all(argv[optind], &sealed, &len);
    if (code != CBCTL_OK) return code;
    int rc = cb_seal_label_read(&l, (cb_slice){sealed, len});
    cb_seal_free(sealed, len);
    if (rc < 0) return cbctl_failed(rc);
    printf(a.json ? "{\"purpose\":\"%s\",\"key\":\"%s\",\"on_token\":%s}\n" : "purpose: %s\nkey: %s\non a token: %s\n",
           l.purpose, l.key_id,
           a.json       ? l.on_token ? "true" : "false"
           : l.on_token ? "yes"
                        : "no");
    return CBCTL_OK;
}
