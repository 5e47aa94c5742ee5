#include "ca_args.h"
#include "cbctl.h"
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct option options[] = {
    {"dir", required_argument, NULL, 'd'},
    {"parent", required_argument, NULL, 'P'},
    {"cn", required_argument, NULL, 'c'},
    {"organization", required_argument, NULL, 'O'},
    {"out", required_argument, NULL, 'o'},
    {"reason", required_argument, NULL, 'r'},
    {"name", required_argument, NULL, 'n'},
    {"permit", required_argument, NULL, 'n'},
    {"uri", required_argument, NULL, 'u'},
    {"days", required_argument, NULL, 'D'},
    {"hours", required_argument, NULL, 'H'},
    {"path-len", required_argument, NULL, 'l'},
    {"key-type", required_argument, NULL, 'k'},
    {"profile", required_argument, NULL, 'p'},
    {"json", no_argument, NULL, 'j'},
    {"must-staple", no_argument, NULL, 's'},
    {"revoked", no_argument, NULL, 'R'},
    {"listen", required_argument, NULL, 'L'},
    {"cert", required_argument, NULL, 'C'},
    {"key", required_argument, NULL, 'K'},
    {"if-due", no_argument, NULL, 'I'},
    {"pid-file", required_argument, NULL, 'f'},
    {"key-url", required_argument, NULL, 'U'},
    {"staple", required_argument, NULL, 'S'},
    {NULL, 0, NULL, 0},
};

const struct ca_word cbctl_ca_profiles[] = {{"both", CB_CERT_BOTH},     {"server", CB_CERT_SERVER},
                                            {"client", CB_CERT_CLIENT}, {"svid", CB_CERT_SVID},
                                            {"ocsp", CB_CERT_OCSP},     {NULL, 0}};
const struct ca_word cbctl_ca_reasons[] = {{"unspecified", CB_REVOKE_UNSPECIFIED},
                                           {"key-compromise", CB_REVOKE_KEY_COMPROMISE},
                                           {"ca-compromise", CB_REVOKE_CA_COMPROMISE},
                                           {"affiliation-changed", CB_REVOKE_AFFILIATION_CHANGED},
                                           {"superseded", CB_REVOKE_SUPERSEDED},
                                           {"cessation", CB_REVOKE_CESSATION},
                                           {"privilege-withdrawn", CB_REVOKE_PRIVILEGE_WITHDRAWN},
                                           {NULL, 0}};

int cbctl_ca_value(const struct ca_word *words, const char *text) {
    for (; words->text; words++) {
        if (strcmp(words->text, text) == 0) return words->value;
    }
    return -1;
}

const char *cbctl_ca_word(const struct ca_word *words, int value) {
    for (; words->text; words++) {
        if (words->value == value) return words->text;
    }
    return "authority";
}

static bool number(const char *text, unsigned long max, unsigned long *out) {
    char *end;
    errno = 0;
    *out = strtoul(text, &end, 10);
    return *text >= '0' && *text <= '9' && !*end && errno == 0 && *out <= max;
}

int cbctl_ca_add(const char **list, size_t *len, const char *text, const char *what) {
    if (*len == CBCTL_CA_NAMES) return cbctl_usage("%s: more than %d", what, CBCTL_CA_NAMES);
    list[(*len)++] = text;
    return CBCTL_OK;
}

static int take_number(const char *what, unsigned long min, unsigned long max, unsigned long *out) {
    if (number(optarg, max, out) && *out >= min) return CBCTL_OK;
    return cbctl_usage("%s: \"%s\" is not a number from %lu to %lu", what, optarg, min, max);
}

static int take(ca_args *a, int option) {
    const struct {
        int option;
        const char **to;
    } texts[] = {{'d', &a->dir}, {'P', &a->parent},   {'c', &a->cn},      {'O', &a->organization},
                 {'o', &a->out}, {'r', &a->reason},   {'L', &a->listen},  {'C', &a->cert},
                 {'K', &a->key}, {'f', &a->pid_file}, {'U', &a->key_url}, {'S', &a->staple}};
    const struct {
        int option;
        bool *to;
    } flags[] = {{'j', &a->json}, {'s', &a->must_staple}, {'R', &a->revoked_only}, {'I', &a->if_due}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (texts[i].option == option) *texts[i].to = optarg;
    }
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        if (flags[i].option == option) *flags[i].to = true;
    }
    switch (option) {
    case 'n':
        return cbctl_ca_add(a->names, &a->names_len, optarg, "names");
    case 'u':
        return cbctl_ca_add(a->uris, &a->uris_len, optarg, "--uri");
    case 'D':
        return take_number("--days", 1, 36500, &a->days);
    case 'H':
        return take_number("--hours", 1, 24 * 366, &a->hours);
    case 'l':
        return take_number("--path-len", 0, 8, &a->path_len);
    case 'k':
        if ((a->key_type = cbctl_key_type(optarg)) >= 0) return CBCTL_OK;
        return cbctl_usage("--key-type: \"%s\" is not ecdsa-p256, ecdsa-p384, rsa-2048 or ed25519", optarg);
    case 'p':
        if ((a->profile = cbctl_ca_value(cbctl_ca_profiles, optarg)) >= 0) return CBCTL_OK;
        return cbctl_usage("--profile: \"%s\" is not both, server, client, svid or ocsp", optarg);
    default:
        return CBCTL_OK;
    }
}

int cbctl_ca_parse(ca_args *a, int argc, char **argv, const char *known) {
    *a = (ca_args){.command = argv[0], .dir = "ca"};
    int option, at = -1;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":", options, &at)) != -1) {
        char word[32];
        if (option == ':') return cbctl_usage("%s needs a value", argv[optind - 1]);
        if (option != '?') snprintf(word, sizeof word, " %s ", options[at].name);
        if (option == '?' || !strstr(known, word)) {
            return cbctl_usage("ca %s: unknown option %s", a->command, argv[optind - 1]);
        }
        int code = take(a, option);
        if (code != CBCTL_OK) return code;
    }
    a->rest = argv + optind;
    a->rest_len = (size_t)(argc - optind);
    return CBCTL_OK;
}

int cbctl_ca_failed(int rc) {
    int code = cbctl_failed(rc);
    return rc == CB_EINVAL ? CBCTL_USAGE : code;
}

int cbctl_ca_open(const ca_args *a, cb_ca **ca) {
    return cb_ca_open(ca, CB_OPTS(cb_ca_opts, .dir = a->dir, .mode = CB_CA_OPEN));
}

void cbctl_ca_print(bool json, const char *label, const char *key, const char *value, bool first) {
    if (json) {
        printf("%s\"%s\": ", first ? "{" : ", ", key);
        cbctl_json_text(value);
    } else {
        printf("%-13s%s\n", label, value);
    }
}

cb_leaf_opts cbctl_ca_leaf(const ca_args *a) {
    return (cb_leaf_opts){
        .size = sizeof(cb_leaf_opts),
        .names = a->names,
        .names_len = a->names_len,
        .uris = a->uris,
        .uris_len = a->uris_len,
        .file_stem = a->out,
        .days = (uint32_t)a->days,
        .lifetime_s = (uint32_t)(a->hours * 3600),
        .key_type = a->key_type,
        .profile = a->profile,
        .must_staple = a->must_staple,
    };
}

int cbctl_ca_read(const char *path, uint8_t *to, size_t cap, size_t *len) {
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "rbe");
    if (!f) {
        fprintf(stderr, "cbctl: %s: %s\n", path, strerror(errno));
        return CBCTL_FAILED;
    }
    *len = fread(to, 1, cap, f);
    bool bad = ferror(f);
    if (f != stdin) fclose(f);
    if (!bad) return CBCTL_OK;
    fprintf(stderr, "cbctl: %s: cannot be read\n", path);
    return CBCTL_FAILED;
}
