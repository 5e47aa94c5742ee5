#include "cbctl.h"
#include <cb.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Options that the ACME commands share. */
#define ACME_SERVER                                                                                                    \
    "  --directory URL      the server's directory; required\n"                                                        \
    "  --dir DIR            the account and its certificates (default: acme)\n"                                        \
    "  --ca FILE            trust roots for the server (default: the system's)\n"                                      \
    "  --patience-s N       give up after N seconds (default: 600)\n"                                                  \
    "  --other-hosts        URLs of the server may lead to other hosts\n"
#define ACME_ACCOUNT                                                                                                   \
    "  --contact URL        of a new account, such as mailto:ops@example.org; may be repeated\n"                       \
    "  --agree-terms        a new account agrees to the server's terms of service\n"                                   \
    "  --eab-kid ID         external account binding: the name of the key\n"                                           \
    "  --eab-key-file FILE  and a file with the key in base64url\n"
#define ACME_CERTIFICATE                                                                                               \
    "  --standalone ADDR    answer http-01 on this address, such as :80\n"                                             \
    "  --tls-alpn ADDR      answer tls-alpn-01 on this address, such as :443\n"                                        \
    "  --webroot DIR        answer http-01 through the folder of a web server\n"                                       \
    "  --dns-hook COMMAND   answer dns-01: COMMAND add|remove NAME VALUE sets _acme-challenge.NAME TXT VALUE\n"        \
    "  --profile NAME       of the server, such as shortlived\n"                                                       \
    "  --key-type TYPE      ecdsa-p256 (default), ecdsa-p384, rsa-2048 or ed25519\n"

#define SEAL_KEYS                                                                                                      \
    "  --key KEY       what seals: a file of 32 bytes, or the pkcs11: URL of an RSA key\n"                             \
    "  --purpose TEXT  what the content is for; it must be the same to open it\n"
#define SEAL_MAKE "  --make-key      make KEY when it is a file that is absent\n"
#define SEAL_OLD  "  --old-key KEY   opens too; may be repeated\n"

static const cbctl_command commands[] = {
    {"acme", "issue", "--directory URL [OPTION]... NAME...", "get a certificate for NAMEs from an ACME server",
     ACME_SERVER ACME_ACCOUNT ACME_CERTIFICATE, cbctl_acme_issue},
    {"acme", "renew", "--directory URL [OPTION]... NAME...",
     "the same when there is none yet, or when it is time to renew it", ACME_SERVER ACME_ACCOUNT ACME_CERTIFICATE,
     cbctl_acme_renew},
    {"acme", "account", "--directory URL [OPTION]...", "make the account or show it; change it",
     ACME_SERVER ACME_ACCOUNT "  --set-contacts       set the contacts to those of --contact\n"
                              "  --roll-key           give it a new key\n"
                              "  --deactivate         end it for ever\n",
     cbctl_acme_account},
    {"acme", "revoke", "--directory URL [OPTION]... NAME", "revoke the certificate whose first name is NAME",
     ACME_SERVER "  --reason N           of RFC 5280, 5.3.1 (default: 0)\n", cbctl_acme_revoke},
    {"audit", "show",
     "[--actor TEXT] [--tenant TEXT] [--action TEXT] [--object TEXT] [--outcome WORD] [--format FORM] [--alone] FILE",
     "print the records of an audit log, one a line, and verify it",
     "  --actor TEXT, --tenant TEXT, --action TEXT, --object TEXT\n"
     "                  only records with exactly this text\n"
     "  --outcome WORD  only done, denied or failed ones\n"
     "  --format FORM   json (default), syslog (RFC 5424) or syslog:HOST\n"
     "  --alone         without the files that were put aside before (FILE.000001 ...)\n",
     cbctl_audit_show},
    {"audit", "verify", "[--head NUMBER:HASH] [--key HEX] [--alone] [--json] FILE",
     "tell whether an audit log was changed, and where",
     "  --head NUMBER:HASH  a head that is known from elsewhere: the log must contain it\n"
     "  --key HEX           the public key that must have signed it; without, the one that it names\n"
     "  --alone             without the files that were put aside before (FILE.000001 ...)\n"
     "  --json              print the report as JSON\n",
     cbctl_audit_verify},
    {"auth", "key",
     "new --hash-key FILE --subject TEXT [--tenant TEXT] [--role TEXT]... [--days N] [--keys FILE] [--json]",
     "make an API key, and the line by which cb-edge knows it",
     "  --hash-key FILE  the 32 bytes that hash keys; made with mode 0600 when absent\n"
     "  --subject TEXT   whose key it is\n"
     "  --tenant TEXT    the tenant that it belongs to (default: none)\n"
     "  --role TEXT      a role that it has; may be repeated\n"
     "  --days N         how long it is good (default: for ever)\n"
     "  --keys FILE      append the line to this file, too\n"
     "  --json           print key and line as JSON\n",
     cbctl_auth_key},
    {"auth", "revoke", "--file FILE --issuer TEXT --jti TEXT|--subject TEXT|--all [--days N]",
     "revoke tokens, keys or certificates before they expire",
     "  --file FILE      cb-edge's revocations_file; made when absent\n"
     "  --issuer TEXT    the iss of tokens; for API keys and client certificates the name of the identities\n"
     "  --jti TEXT       this token, the ID of an API key, the serial number of a certificate\n"
     "  --subject TEXT   all of this subject that were issued until now\n"
     "  --all            all of the issuer that were issued until now\n"
     "  --days N         forget it then: when the last one has expired (default: never)\n",
     cbctl_auth_revoke},
    {"auth", "token", "--issuer URL --client-id ID (--secret-file FILE|--key-file FILE|--device) [OPTION]...",
     "get an access token from an OpenID provider and print it",
     "  --issuer URL       the provider, exactly as it calls itself\n"
     "  --client-id ID     who we are\n"
     "  --secret-file FILE the client's secret is the first line of FILE (\"-\": standard input)\n"
     "  --secret-post      show it in the form instead of in the field Authorization\n"
     "  --key-file FILE    the client's private key, PEM or JWK (private_key_jwt); --key-id ID names it\n"
     "  --account FILE     instead of these: the key file of a Zitadel service account or application\n"
     "  --assertion-audience URL  to whom the key's assertions speak (default: the issuer)\n"
     "  --device           for the person who sits here: says where to log in, and waits\n"
     "  --scope TEXT, --audience TEXT, --resource URL  what the token is for\n"
     "  --ca FILE          trust roots for the provider (default: the system's)\n"
     "  --other-hosts      its endpoints may be on other https hosts than the issuer\n"
     "  --loopback-http    http is fine for a provider on this machine\n"
     "  --json             print all that came as JSON\n",
     cbctl_auth_token},
    {"ca", "dev", "[--dir DIR] [--days N] [--key-type TYPE] [--json] NAME...",
     "make a certificate for NAMEs, signed by a development CA",
     "  --dir DIR        where the CA lives; made when absent (default: ca)\n"
     "  --days N         how long the certificate is valid (default: 90)\n"
     "  --key-type TYPE  ecdsa-p256 (default), ecdsa-p384, rsa-2048 or ed25519\n"
     "  --json           print the paths as JSON\n",
     cbctl_ca_dev},
    {"ca", "init", "[--dir DIR] [--cn NAME] [--organization NAME] [--days N] [--key-type TYPE] [--path-len N] [--json]",
     "make a private root authority",
     "  --dir DIR            where it lives; there must be none yet (default: ca)\n"
     "  --cn NAME            its common name (default: Private root)\n"
     "  --organization NAME  its organization and that of all it certifies (default: libcb)\n"
     "  --days N             how long it is valid (default: 3650)\n"
     "  --key-type TYPE      ecdsa-p384 (default), ecdsa-p256, rsa-2048 or ed25519\n"
     "  --key-url URL        its key is on a PKCS#11 token: pkcs11:token=T;object=K?pin-source=file:/path\n"
     "  --path-len N         how many intermediates may stand below each other (default: 1)\n"
     "  --json               print the paths as JSON\n",
     cbctl_ca_init},
    {"ca", "intermediate", "--parent DIR [--dir DIR] [--permit NAME]... [OPTION]...",
     "make an intermediate authority, signed by the one in --parent",
     "  --parent DIR   whose authority signs it\n"
     "  --dir DIR      where it lives; there must be none yet (default: ca)\n"
     "  --permit NAME  certify only this DNS name and all below it, or this prefix (10.0.0.0/8)\n"
     "  --cn, --organization, --days (default: 1825), --key-type, --key-url, --path-len (default: 0), --json as\n"
     "                 of \"ca init\"\n",
     cbctl_ca_intermediate},
    {"ca", "issue", "[--dir DIR] [--hours N|--days N] [--profile NAME] [--uri URI]... [OPTION]... [NAME]...",
     "make a key and a short-lived certificate for NAMEs",
     "  --dir DIR        where the authority lives (default: ca)\n"
     "  --hours N        how long it is valid (default: 24)\n"
     "  --days N         the same in days, at most 366\n"
     "  --profile NAME   both (default), server, client, svid or ocsp\n"
     "  --uri URI        a URI name, such as spiffe://example.org/web\n"
     "  --out STEM       names the files STEM.pem and STEM-key.pem (default: the first name)\n"
     "  --key-type TYPE  ecdsa-p256 (default), ecdsa-p384, rsa-2048 or ed25519\n"
     "  --must-staple    servers must staple an OCSP response\n"
     "  --json           print the paths as JSON\n",
     cbctl_ca_issue},
    {"ca", "sign", "[--dir DIR] [--name NAME]... [--uri URI]... [--hours N|--days N] [--profile NAME] FILE",
     "certify the key of a signing request (PKCS#10) and print the chain",
     "  --name NAME      a name that it may have; .example.org allows all below, \"*\" any\n"
     "  --uri URI        a URI that it may have; with / at the end all below\n"
     "  --dir, --hours, --days, --profile and --must-staple as of \"ca issue\"\n",
     cbctl_ca_sign},
    {"ca", "revoke", "[--dir DIR] [--reason REASON] SERIAL", "take a certificate back; \"ca crl\" then tells the world",
     "  --dir DIR        where the authority lives (default: ca)\n"
     "  --reason REASON  unspecified (default), key-compromise, ca-compromise, affiliation-changed, superseded,\n"
     "                   cessation or privilege-withdrawn\n",
     cbctl_ca_revoke},
    {"ca", "crl", "[--dir DIR] [--hours N|--days N]", "sign the list of revoked certificates, DIR/ca.crl",
     "  --dir DIR  where the authority lives (default: ca)\n"
     "  --hours N  the next list comes within so many hours\n"
     "  --days N   the same in days (default: 7)\n",
     cbctl_ca_crl},
    {"ca", "list", "[--dir DIR] [--revoked] [--json]", "list the certificates that were issued",
     "  --dir DIR  where the authority lives (default: ca)\n"
     "  --revoked  only those that were taken back\n"
     "  --json     as JSON\n",
     cbctl_ca_list},
    {"ca", "renew", "[--dir DIR] [--if-due] [--key FILE] [--staple FILE] [--pid-file FILE] [--json] FILE",
     "renew the certificate in FILE: a new key, the same names and lifetime, in its place",
     "  --dir DIR        where its authority lives (default: ca)\n"
     "  --if-due         only after two thirds of its life (half of one under ten days)\n"
     "  --key FILE       its key (default: NAME-key.pem for NAME.pem); may be the same file\n"
     "  --staple FILE    an OCSP answer about it, for a day; with --if-due made anew at half of that\n"
     "  --pid-file FILE  then send SIGHUP to the process whose number is in FILE\n"
     "  --json           print the outcome as JSON\n",
     cbctl_ca_renew},
    {"ca", "ocsp", "--listen ADDR [--dir DIR] [--cert FILE --key FILE] [--hours N]",
     "answer over HTTP whether certificates are still good (OCSP)",
     "  --listen ADDR  such as :8888; required\n"
     "  --dir DIR      where the authority lives, or a copy of its ca.pem and index (default: ca)\n"
     "  --cert FILE    a delegated certificate (profile ocsp) that signs (default: the authority's key signs)\n"
     "  --key FILE     and its key\n"
     "  --hours N      how long an answer is valid (default: 1)\n",
     cbctl_ca_ocsp},
    {"ca", "staple", "[--dir DIR] [--cert FILE --key FILE] [--hours N] [--out FILE] FILE",
     "write an OCSP answer about the certificate in FILE, for its server to staple",
     "  --hours N  how long it is valid (default: 24)\n"
     "  --out FILE where it goes (default: NAME.ocsp for NAME.pem)\n"
     "  --dir, --cert and --key as of \"ca ocsp\"\n",
     cbctl_ca_staple},
    {"policy", "check", "[--json] FILE", "tell whether a policy is one, and each mistake with its place",
     "  --json  print the result as JSON\n", cbctl_policy_check},
    {"policy", "explain", "--tenant TENANT [OPTION]... FILE",
     "tell what a policy decides, and which conditions of each rule do not fit; exit status 3 when it denies",
     "  --tenant TEXT, --subject TEXT, --issuer TEXT, --spiffe ID\n"
     "                     whose request it is\n"
     "  --role TEXT        a role; may be repeated\n"
     "  --claim PATH=TEXT  a claim by name or JSON pointer; may be repeated, also with the same PATH\n"
     "  --route TEXT, --method TEXT, --path PATH, --target HOST:PORT, --verb TEXT\n"
     "                     what is asked for\n"
     "  --source ADDRESS   of the client\n"
     "  --mtls             the client showed a certificate that was verified\n"
     "  --time TIME        such as 2027-01-31T08:00:00Z (default: now)\n"
     "  --json             print the result as JSON\n",
     cbctl_policy_explain},
    {"policy", "schema", "", "print the form of policies as JSON Schema", "", cbctl_policy_schema},
    {"seal", "close", "--key KEY --purpose TEXT [--make-key] FILE SEALED",
     "seal a file, so that only the owner of the key can read and change it", SEAL_KEYS SEAL_MAKE, cbctl_seal_close},
    {"seal", "open", "--key KEY --purpose TEXT [--old-key KEY]... SEALED", "print what a sealed file holds",
     SEAL_KEYS SEAL_OLD, cbctl_seal_open},
    {"seal", "renew", "--key KEY --purpose TEXT [--old-key KEY]... [--make-key] [--force] SEALED...",
     "seal files again under KEY where an old key sealed them",
     SEAL_KEYS SEAL_OLD SEAL_MAKE "  --force         those that KEY sealed, too\n", cbctl_seal_renew},
    {"seal", "show", "[--json] SEALED", "tell for what a file was sealed, and by which key",
     "  --json  print it as JSON\n", cbctl_seal_show},
    {"tickets", "turn", "[--rotate-s N] [--lead-s N] [--force] FILE",
     "make a ring of session-ticket keys, or give it a new key when that is due",
     "  --rotate-s N  a new key so often (default: 43200, 12 h)\n"
     "  --lead-s N    it is in the file so long before it is used (default: 0)\n"
     "  --force       now, due or not\n",
     cbctl_tickets_turn},
    {"tickets", "show", "[--json] FILE", "tell from when on the keys of a ring are used; never the keys",
     "  --json  print them as JSON\n", cbctl_tickets_show},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

int cbctl_usage(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fputs("cbctl: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputs("\nTry \"cbctl --help\".\n", stderr);
    va_end(ap);
    return CBCTL_USAGE;
}

int cbctl_failed(int rc) {
    const char *detail = cb_last_error();
    fprintf(stderr, "cbctl: %s\n", *detail ? detail : cb_strerror(rc));
    return CBCTL_FAILED;
}

void cbctl_json_text(const char *text) {
    putchar('"');
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p == '"' || *p == '\\') {
            printf("\\%c", *p);
        } else if (*p < 0x20) {
            printf("\\u%04x", *p);
        } else {
            putchar(*p);
        }
    }
    putchar('"');
}

static int help(void) {
    puts("Usage: cbctl COMMAND [OPTION]... [ARGUMENT]...\n\nCommands:");
    for (size_t i = 0; i < COMMANDS; i++) {
        printf("  %s %s %s\n      %s\n", commands[i].group, commands[i].name, commands[i].arguments,
               commands[i].summary);
    }
    puts("\n\"cbctl COMMAND --help\" lists a command's options; cbctl(1) says more.\n"
         "  --help     print this and exit\n"
         "  --version  print the version and exit");
    return CBCTL_OK;
}

static int help_command(const cbctl_command *c) {
    printf("Usage: cbctl %s %s %s\n%c%s.\n\n%s", c->group, c->name, c->arguments, c->summary[0] - 'a' + 'A',
           c->summary + 1, c->options);
    return CBCTL_OK;
}

static bool wants_help(int argc, char **argv) {
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return true;
    }
    return false;
}

static int dispatch(int argc, char **argv) {
    bool group_known = false;
    if (argc < 2) return cbctl_usage("no command");
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) return help();
    if (strcmp(argv[1], "--version") == 0) {
        printf("cbctl %s\n", cb_version_text());
        return CBCTL_OK;
    }
    for (size_t i = 0; i < COMMANDS; i++) {
        const cbctl_command *c = &commands[i];
        if (strcmp(argv[1], c->group) != 0) continue;
        group_known = true;
        if (argc > 2 && strcmp(argv[2], c->name) == 0) {
            return wants_help(argc - 2, argv + 2) ? help_command(c) : c->run(argc - 2, argv + 2);
        }
    }
    if (!group_known) return cbctl_usage("no such command: %s", argv[1]);
    if (argc > 2 && wants_help(argc - 1, argv + 1)) return help();
    if (argc == 2) return cbctl_usage("%s: which command?", argv[1]);
    return cbctl_usage("no such command: %s %s", argv[1], argv[2]);
}

int main(int argc, char **argv) {
    int code = dispatch(argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        perror("cbctl: standard output");
        if (code == CBCTL_OK) code = CBCTL_FAILED;
    }
    return code;
}
