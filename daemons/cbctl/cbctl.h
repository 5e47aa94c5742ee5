/* cbctl: the operator's command. Each subcommand is a row of the table in main.c and a file beside it. */
#ifndef CBCTL_H
#define CBCTL_H

/* CBCTL_EXPIRED: it failed, and what it was for is not valid any more. */
enum { CBCTL_OK = 0, CBCTL_FAILED = 1, CBCTL_USAGE = 2, CBCTL_EXPIRED = 3 };

typedef struct cbctl_command {
    const char *group, *name; /* "ca", "dev" */
    const char *arguments;    /* as the usage line shows them */
    const char *summary;
    const char *options;               /* one line each, for --help */
    int (*run)(int argc, char **argv); /* argv[0] is the last word of the command; returns an exit code */
} cbctl_command;

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
