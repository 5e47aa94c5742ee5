/* cbctl: the operator's command. Each subcommand is a row of the table in main.c and a file beside it. */
#ifndef CBCTL_H
#define CBCTL_H

#include <stddef.h>

enum cbctl_code {
    CBCTL_OK = 0,
    CBCTL_FAILED = 1,
    CBCTL_USAGE = 2,
    CBCTL_EXPIRED = 3, /* ca renew: it failed, and what it was for is not valid any more */
    CBCTL_DENIED = 3,  /* no right to that */
    CBCTL_CONFLICT = 4,
    CBCTL_UNREACHABLE = 5,
    CBCTL_INVALID = 6 /* a configuration with mistakes */
};

/* One table serves parsing, --help, completion, and the test that the man page is complete. */
typedef struct cbctl_option {
    const char *name;    /* "dir"; NULL ends the list */
    const char *value;   /* what it takes, for people: "DIR"; NULL: nothing */
    const char *help;    /* lines are divided by \n */
    const char *choices; /* values to complete, divided by blanks; NULL: none, or files where `value` says so */
    size_t at;           /* commands of the admin interface: where in cbctl_args it goes */
} cbctl_option;

enum { CBCTL_OPTION_LISTS = 5 };

struct cbctl_admin;

typedef struct cbctl_command {
    const char *group, *name; /* "ca", "dev"; name NULL: "status" */
    const char *arguments;    /* as the usage line shows them */
    const char *summary;
    const cbctl_option *options[CBCTL_OPTION_LISTS]; /* lists, until NULL */
    int (*run)(int argc, char **argv);               /* argv[0] is the last word of the command; returns an exit code */
    int (*admin)(struct cbctl_admin *a);             /* or this: a client of the admin interface (admin.h) */
} cbctl_command;

/* Each ends with a row without a group. */
extern const cbctl_command cbctl_file_commands[], cbctl_admin_commands[];
/* All of them by number, from 0; NULL: there are no more. */
const cbctl_command *cbctl_command_at(size_t i);
/* A command's options by number, from 0; NULL: there are no more. */
const cbctl_option *cbctl_option_at(const cbctl_command *c, size_t i);

int cbctl_acme_issue(int argc, char **argv);
int cbctl_acme_renew(int argc, char **argv);
int cbctl_acme_account(int argc, char **argv);
int cbctl_acme_revoke(int argc, char **argv);
int cbctl_audit_show(int argc, char **argv);
int cbctl_audit_verify(int argc, char **argv);
int cbctl_auth_key(int argc, char **argv);
int cbctl_auth_revoke(int argc, char **argv);
int cbctl_auth_token(int argc, char **argv);
int cbctl_ca_dev(int argc, char **argv);
int cbctl_ca_init(int argc, char **argv);
int cbctl_ca_intermediate(int argc, char **argv);
int cbctl_ca_issue(int argc, char **argv);
int cbctl_ca_sign(int argc, char **argv);
int cbctl_ca_revoke(int argc, char **argv);
int cbctl_ca_crl(int argc, char **argv);
int cbctl_ca_list(int argc, char **argv);
int cbctl_ca_renew(int argc, char **argv);
int cbctl_ca_ocsp(int argc, char **argv);
int cbctl_ca_staple(int argc, char **argv);
int cbctl_completion(int argc, char **argv);
int cbctl_policy_check(int argc, char **argv);
int cbctl_policy_explain(int argc, char **argv);
int cbctl_policy_schema(int argc, char **argv);
int cbctl_seal_close(int argc, char **argv);
int cbctl_seal_open(int argc, char **argv);
int cbctl_seal_renew(int argc, char **argv);
int cbctl_seal_show(int argc, char **argv);
int cbctl_tickets_turn(int argc, char **argv);
int cbctl_tickets_show(int argc, char **argv);

/* Prints "cbctl: ..." and how to get help to stderr; returns CBCTL_USAGE. */
int cbctl_usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Prints the name of rc and libcb's detail to stderr; returns CBCTL_FAILED. */
int cbctl_failed(int rc);
/* enum cb_key_type by its name; -1 when there is none such. */
int cbctl_key_type(const char *text);
/* Prints a text as a JSON string, quotes included. */
void cbctl_json_text(const char *text);

#endif
