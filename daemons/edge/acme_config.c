/* What the rules of the configuration cannot say of ACME. */
#include "edge_config.h"
#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

const edge_issuer_conf *edge_issuer_of(const edge_conf *c, const char *name) {
    const edge_issuer_conf *i = c->acme ? c->acme->issuers.at : NULL;
    for (size_t k = 0; i && k < c->acme->issuers.len; k++)
        if (strcmp(i[k].name, name) == 0) return &i[k];
    return NULL;
}

static bool is_ip(const char *name) {
    uint8_t ip[16];
    return inet_pton(AF_INET, name, ip) == 1 || inet_pton(AF_INET6, name, ip) == 1;
}

/* Labels of letters, digits, "-" and "_", with "*." before them at most. */
static bool is_name(const char *name) {
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    const char *p = strncmp(name, "*.", 2) == 0 ? name + 2 : name;
    if (is_ip(name)) return true;
    if (strlen(name) > 253) return false;
    for (;; p++) {
        const size_t n = strspn(p, allowed);
        p += n;
        if (n == 0 || n > 63 || (*p && *p != '.')) return false;
        if (!*p) return true;
    }
}

static void check_names(cb_config_draft *d, const char *pointer, const edge_certificate_conf *cert,
                        const edge_issuer_conf *issuer) {
    const char *const *names = cert->names.at;
    char text[400];
    for (size_t i = 0; i < cert->names.len; i++) {
        const char *why = !is_name(names[i]) ? "is neither a DNS name nor an IP address"
                          : names[i][0] == '*' && issuer->challenge != EDGE_DNS_01
                              ? "is a wildcard: that needs \"challenge\": \"dns_01\""
                          : is_ip(names[i]) && issuer->challenge == EDGE_DNS_01
                              ? "is an IP address: that needs another challenge than dns_01"
                              : NULL;
        snprintf(text, sizeof text, "names: \"%.260s\" %s", names[i], why ? why : "");
        if (why) cb_config_complain(d, pointer, text);
    }
}

static void check_certificate(cb_config_draft *d, const char *pointer, const edge_conf *c,
                              const edge_certificate_conf *cert) {
    const bool files = cert->cert_file || cert->key_file;
    char text[200];
    if (cert->issuer && (cert->ocsp_file || cert->issuer_file))
        cb_config_complain(d, pointer, "ocsp_file and issuer_file go with cert_file");
    if (files && (cert->issuer || cert->names.len)) {
        cb_config_complain(d, pointer, "cert_file and key_file, or issuer and names: one of both");
    } else if (files && !(cert->cert_file && cert->key_file)) {
        cb_config_complain(d, pointer, "cert_file and key_file belong together");
    } else if (!files && !(cert->issuer && cert->names.len)) {
        cb_config_complain(d, pointer, "needs cert_file and key_file, or issuer and names");
    } else if (!files) {
        const edge_issuer_conf *issuer = edge_issuer_of(c, cert->issuer);
        snprintf(text, sizeof text, "there is no issuer \"%.100s\" in /acme/issuers", cert->issuer);
        if (!issuer) cb_config_complain(d, pointer, text);
        if (issuer) check_names(d, pointer, cert, issuer);
    }
}

static bool same_names(const edge_certificate_conf *a, const edge_certificate_conf *b) {
    const char *const *x = a->names.at, *const *y = b->names.at;
    if (a->names.len != b->names.len) return false;
    for (size_t i = 0; i < a->names.len; i++)
        if (strcasecmp(x[i], y[i]) != 0) return false;
    return true;
}

/* The first name names the file: two certificates of an issuer cannot share it. */
static bool collide(const edge_certificate_conf *a, const edge_certificate_conf *b) {
    const char *const *x = a->names.at, *const *y = b->names.at;
    return a->issuer && b->issuer && a->names.len && b->names.len && strcmp(a->issuer, b->issuer) == 0 &&
           strcasecmp(x[0], y[0]) == 0 && !same_names(a, b);
}

static void check_listener(cb_config_draft *d, const edge_conf *c, size_t at) {
    const edge_listener_conf *l = c->listeners.at;
    const edge_certificate_conf *certs = l[at].tls->certificates.at;
    char pointer[256];
    for (size_t i = 0; i < l[at].tls->certificates.len; i++) {
        snprintf(pointer, sizeof pointer, "/listeners/%s/tls/certificates/%zu", l[at].name, i);
        check_certificate(d, pointer, c, &certs[i]);
        bool told = false;
        for (size_t k = 0; k <= at && !told; k++) {
            const edge_certificate_conf *others = l[k].tls ? l[k].tls->certificates.at : NULL;
            for (size_t m = 0; others && m < (k == at ? i : l[k].tls->certificates.len) && !told; m++)
                told = collide(&certs[i], &others[m]);
        }
        if (told) cb_config_complain(d, pointer, "another certificate of this issuer begins with the same name");
    }
}

void edge_acme_check(cb_config_draft *d, const edge_conf *c) {
    const edge_listener_conf *l = c->listeners.at;
    const edge_issuer_conf *issuers = c->acme ? c->acme->issuers.at : NULL;
    char pointer[256];
    for (size_t i = 0; i < c->listeners.len; i++)
        if (l[i].tls) check_listener(d, c, i);
    for (size_t i = 0; issuers && i < c->acme->issuers.len; i++) {
        snprintf(pointer, sizeof pointer, "/acme/issuers/%s", issuers[i].name);
        if (strncasecmp(issuers[i].directory, "https://", 8) != 0)
            cb_config_complain(d, pointer, "directory is no https URL");
        if (!issuers[i].eab_kid != !issuers[i].eab_key_file)
            cb_config_complain(d, pointer, "eab_kid and eab_key_file belong together");
        if ((issuers[i].challenge == EDGE_DNS_01) != !!issuers[i].dns_hook)
            cb_config_complain(d, pointer, "dns_hook and \"challenge\": \"dns_01\" belong together");
        const char *const *contacts = issuers[i].contacts.at;
        for (size_t k = 0; k < issuers[i].contacts.len; k++)
            if (!strchr(contacts[k], ':'))
                cb_config_complain(d, pointer, "contacts: a URL is wanted, such as mailto:ops@example.org");
    }
}
