#include "cbctl.h"
#include <cb.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DAYS_MAX = 36500, AUTHORITY_DAYS = 825, LEAF_DAYS = 90 };

int cbctl_key_type(const char *text) {
    static const struct {
        const char *text;
        int type;
    } table[] = {
        {"ecdsa-p256", CB_KEY_ECDSA_P256},
        {"ecdsa-p384", CB_KEY_ECDSA_P384},
        {"rsa-2048", CB_KEY_RSA_2048},
        {"ed25519", CB_KEY_ED25519},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (strcmp(text, table[i].text) == 0) return table[i].type;
    }
    return -1;
}

static void print(const char *dir, const char *cert, const char *key, bool json) {
    if (!json) {
        printf("ca:          %s/ca.pem\ncertificate: %s\nkey:         %s\n", dir, cert, key);
        return;
    }
    char *ca = NULL;
    if (asprintf(&ca, "%s/ca.pem", dir) < 0) ca = NULL;
    const char *const members[][2] = {{"ca", ca ? ca : ""}, {"certificate", cert}, {"key", key}};
    for (size_t i = 0; i < 3; i++) {
        printf("%s\"%s\": ", i ? ", " : "{", members[i][0]);
        cbctl_json_text(members[i][1]);
    }
    puts("}");
    free(ca);
}

int cbctl_ca_dev(int argc, char **argv) {
    static const struct option options[] = {
        {"dir", required_argument, NULL, 'd'},
        {"days", required_argument, NULL, 'n'},
        {"key-type", required_argument, NULL, 'k'},
        {"json", no_argument, NULL, 'j'},
        {NULL, 0, NULL, 0},
    };
    const char *dir = "ca";
    unsigned long days = 0;
    int key_type = CB_KEY_DEFAULT, option;
    bool json = false;
    char *end;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        switch (option) {
        case 'd':
            dir = optarg;
            break;
        case 'n':
            days = strtoul(optarg, &end, 10);
            if (*optarg < '0' || *optarg > '9' || *end || days == 0 || days > DAYS_MAX) {
                return cbctl_usage("--days: \"%s\" is not a number from 1 to %d", optarg, DAYS_MAX);
            }
            break;
        case 'k':
            if ((key_type = cbctl_key_type(optarg)) < 0) {
                return cbctl_usage("--key-type: \"%s\" is not ecdsa-p256, ecdsa-p384, rsa-2048 or ed25519", optarg);
            }
            break;
        case 'j':
            json = true;
            break;
        case ':':
            return cbctl_usage("%s needs a value", argv[optind - 1]);
        default:
            return cbctl_usage("ca dev: unknown option %s", argv[optind - 1]);
        }
    }
    if (optind == argc) return cbctl_usage("ca dev: which NAME shall the certificate be for?");

    cb_ca *ca = NULL;
    char *cert = NULL, *key = NULL;
    int rc = cb_ca_open(&ca, CB_OPTS(cb_ca_opts, .dir = dir, .days = AUTHORITY_DAYS, .max_leaf_days = DAYS_MAX,
                                     .organization = "libcb development"));
    if (rc < 0) return cbctl_failed(rc);
    rc = cb_ca_issue(ca,
                     CB_OPTS(cb_leaf_opts, .names = (const char *const *)(argv + optind),
                             .names_len = (size_t)(argc - optind), .days = (uint32_t)(days ? days : LEAF_DAYS),
                             .key_type = key_type),
                     &cert, &key);
    int code = CBCTL_OK;
    if (rc < 0) {
        code = cbctl_failed(rc);
        if (rc == CB_EINVAL) code = CBCTL_USAGE; /* a NAME is none */
    } else {
        print(dir, cert, key, json);
    }
    cb_ca_text_free(cert);
    cb_ca_text_free(key);
    cb_ca_free(ca);
    return code;
}
