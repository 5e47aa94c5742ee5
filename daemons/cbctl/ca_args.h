/* What the commands of cbctl ca share: one table of options, of which each names those that it knows. */
#ifndef CBCTL_CA_ARGS_H
#define CBCTL_CA_ARGS_H

#include <cb.h>
#include <stdbool.h>

enum { CBCTL_CA_NAMES = 100 };

typedef struct ca_args {
    const char *command, *dir, *parent, *cn, *organization, *out, *reason, *listen, *cert, *key, *pid_file, *key_url,
        *staple;
    const char *names[CBCTL_CA_NAMES], *uris[CBCTL_CA_NAMES];
    size_t names_len, uris_len;
    unsigned long days, hours, path_len;
    int key_type, profile;
    bool json, must_staple, revoked_only, if_due;
    char **rest;
    size_t rest_len;
} ca_args;

struct ca_word {
    const char *text;
    int value;
};
extern const struct ca_word cbctl_ca_profiles[], cbctl_ca_reasons[];
int cbctl_ca_value(const struct ca_word *words, const char *text); /* -1: there is none such */
const char *cbctl_ca_word(const struct ca_word *words, int value);

/* `known`: the options of this command, separated and enclosed by spaces. An exit code. */
int cbctl_ca_parse(ca_args *a, int argc, char **argv, const char *known);
int cbctl_ca_add(const char **list, size_t *len, const char *text, const char *what);
int cbctl_ca_failed(int rc); /* as cbctl_failed(); CB_EINVAL is CBCTL_USAGE */
int cbctl_ca_open(const ca_args *a, cb_ca **ca);
cb_leaf_opts cbctl_ca_leaf(const ca_args *a);
void cbctl_ca_print(bool json, const char *label, const char *key, const char *value, bool first);
/* A file or, for "-", standard input. An exit code; *len is cap when there is more. */
int cbctl_ca_read(const char *path, uint8_t *to, size_t cap, size_t *len);

#endif
