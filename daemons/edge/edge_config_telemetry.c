/* What of a configuration is about watching the daemon, and administration. */
#include "edge_config.h"
#include "edge_schema.h"
#include <cb/log_writer.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const char *const format_names[] = {"text", "json", "rfc5424", NULL};
static const char *const otlp_names[] = {"protobuf", "json", NULL};
static const char *const trust_names[] = {"all", "trusted", "nobody", NULL}; /* enum cb_trace_from */

const cb_config_rule edge_log_rules[] = {
    {MEMBER(edge_log_conf, target), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE, .fallback = "-",
     .doc = "A file, opened again on SIGUSR1; \"-\" is standard error; \"syslog\" is /dev/log; \"udp:ADDRESS:PORT\"."},
    {MEMBER(edge_log_conf, format), .kind = CB_CONFIG_ENUM, .names = format_names, .fallback = "text",
     .doc = "How lines look. To syslog and udp they are always RFC 5424."},
    {MEMBER(edge_log_conf, levels), .kind = CB_CONFIG_TEXT, .fallback = "info",
     .doc = "The least grave lines that are written (debug, info, warn, error, off), also by module: "
            "\"info,quic=debug\"."},
    END};

const cb_config_rule edge_metrics_rules[] = {
    {MEMBER(edge_metrics_conf, listen), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_LISTEN,
     .fallback = "127.0.0.1:9464",
     .doc = "A loopback address and port: /metrics, /livez, /readyz and /healthz, for everybody on this host."},
    END};

const cb_config_rule edge_tracing_rules[] = {
    {MEMBER(edge_tracing_conf, url), .kind = CB_CONFIG_TEXT, .required = 1, .min = 1, .max = 2048,
     .doc = "URL of the collector (OTLP over HTTP); /v1/traces where it has no path."},
    {MEMBER(edge_tracing_conf, format), .kind = CB_CONFIG_ENUM, .names = otlp_names, .fallback = "protobuf",
     .doc = "How spans are sent."},
    {MEMBER(edge_tracing_conf, service_name), .kind = CB_CONFIG_TEXT, .min = 1, .max = 256, .fallback = "cb-edge",
     .doc = "service.name."},
    {MEMBER(edge_tracing_conf, resource), .kind = CB_CONFIG_MAP, .max = EDGE_RESOURCE_MAX,
     .doc = "Further attributes of this process, such as \"deployment.environment.name\"."},
    {MEMBER(edge_tracing_conf, authorization_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "File with the value of the Authorization field, such as \"Bearer ...\": one line, read again on SIGHUP."},
    {MEMBER(edge_tracing_conf, ca_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "PEM file with trust roots for the collector; the system's when absent."},
    {MEMBER(edge_tracing_conf, cert_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "PEM file with a certificate to show it."},
    {MEMBER(edge_tracing_conf, key_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "PEM file with its private key."},
    {MEMBER(edge_tracing_conf, one_in), COUNT(1000000000), .fallback = "1",
     .doc = "One in so many traces that begin here is recorded."},
    {MEMBER(edge_tracing_conf, per_second), .kind = CB_CONFIG_INT, .min = 0, .max = 1000000, .fallback = "100",
     .doc = "Of these, so many a second at most; 0 = no limit."},
    {MEMBER(edge_tracing_conf, errors), .kind = CB_CONFIG_BOOL, .fallback = "true",
     .doc = "Requests that failed are recorded in any case."},
    {MEMBER(edge_tracing_conf, slow_ms), .kind = CB_CONFIG_INT, .min = 0, .max = 86400000, .fallback = "0",
     .doc = "So are requests that took so long; 0 = not for that."},
    {MEMBER(edge_tracing_conf, trust), .kind = CB_CONFIG_ENUM, .names = trust_names, .fallback = "trusted",
     .doc =
         "Whose trace goes on here: everybody's, that of trusted_proxies, or nobody's. For others a new one begins."},
    {MEMBER(edge_tracing_conf, decide_anew), .kind = CB_CONFIG_BOOL, .fallback = "false",
     .doc = "Do not follow the caller's decision to record a trace, or not to."},
    END};

static const cb_config_rule role_rules[] = {
    {MEMBER(edge_role_conf, who), .kind = CB_CONFIG_TEXT, .required = 1,
     .doc = "On the socket \"uid:1000\", \"gid:27\", \"user:alice\" or \"group:adm\"; over TCP \"subject:NAME\", "
            "\"role:NAME\" or a SPIFFE ID."},
    {MEMBER(edge_role_conf, role), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_NAME, .required = 1,
     .doc = "viewer, operator, service-owner, tenant-admin, admin or auditor."},
    {MEMBER(edge_role_conf, source), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_NAME,
     .doc = "Over TCP: which of \"identities\" must vouch for them; any when absent."},
    {MEMBER(edge_role_conf, owned), .kind = CB_CONFIG_ARRAY, .format = CB_FORMAT_NAME,
     .doc = "service-owner: owners whose groups they may change."},
    {MEMBER(edge_role_conf, tenant), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_NAME,
     .doc = "tenant-admin: their tenant."},
    END};

static const cb_config_rule admin_listen_rules[] = {
    {MEMBER(edge_admin_listen_conf, address), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_LISTEN, .required = 1,
     .doc = "Address and port. Not by a reload; by an upgrade."},
    {MEMBER(edge_admin_listen_conf, cert_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE, .required = 1,
     .doc = "PEM file with the certificate chain."},
    {MEMBER(edge_admin_listen_conf, key_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE, .required = 1,
     .doc = "PEM file with the private key."},
    {MEMBER(edge_admin_listen_conf, client_ca_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "PEM file with the authorities of client certificates, for identities by mtls."},
    {MEMBER(edge_admin_listen_conf, client_crl_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "Revocation lists of these authorities."},
    {MEMBER(edge_admin_listen_conf, identities), .kind = CB_CONFIG_ARRAY, .format = CB_FORMAT_NAME, .min = 1, .max = 16,
     .required = 1, .doc = "Who is known there: names of \"identities\", of which one must know the asker."},
    END};

const cb_config_rule edge_admin_rules[] = {
    {MEMBER(edge_admin_conf, socket), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE, .max = 100,
     .fallback = "/run/cb-edge/admin.sock",
     .doc = "Unix socket (mode 0600) on which it is asked and changed while it runs."},
    {MEMBER(edge_admin_conf, listen), .kind = CB_CONFIG_OBJECT, .members = admin_listen_rules,
     .item_size = sizeof(edge_admin_listen_conf), .doc = "The same over TCP with TLS. None when absent."},
    {MEMBER(edge_admin_conf, roles), .kind = CB_CONFIG_ARRAY, .members = role_rules,
     .item_size = sizeof(edge_role_conf),
     .doc = "Who may what. Who is not here may nothing. Without it: root, and the user that it is, may everything."},
    {MEMBER(edge_admin_conf, audit_head_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "File, on another machine's disk, that gets the head of the audit log: with it a log that was cut shows."},
    {MEMBER(edge_admin_conf, state_dir), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc =
         "Directory of the revisions (mode 0700; made when absent): each configuration that was accepted, by whom and "
         "when. Without it only the file changes anything. Not by a reload; by an upgrade."},
    END};

/* ---- what rules cannot say ---- */

static void check_log(cb_config_draft *d, const edge_conf *c) {
    const cb_log_writer_opts o = {.size = sizeof o, .target = "-", .levels = c->log->levels};
    if (cb_log_writer_check(&o) < 0) cb_config_complain(d, "/log/levels", cb_last_error());
}

static bool is_loopback(const char *address) {
    return strncmp(address, "127.", 4) == 0 || strncmp(address, "[::1]:", 6) == 0;
}

static bool has_identity(const edge_conf *c, const char *name) {
    const edge_identity_conf *all = c->identities.at;
    for (size_t i = 0; i < c->identities.len; i++)
        if (strcmp(all[i].name, name) == 0) return true;
    return false;
}

static void check_admin(cb_config_draft *d, const edge_conf *c) {
    const edge_admin_listen_conf *l = c->admin ? c->admin->listen : NULL;
    char pointer[64], text[256];
    if (c->admin && *c->admin->socket != '/') cb_config_complain(d, "/admin/socket", "it must be an absolute path");
    if (!l) return;
    if (l->client_crl_file && !l->client_ca_file)
        cb_config_complain(d, "/admin/listen/client_crl_file", "needs client_ca_file");
    for (size_t i = 0; i < l->identities.len; i++) {
        const char *name = ((const char *const *)l->identities.at)[i];
        if (has_identity(c, name)) continue;
        snprintf(pointer, sizeof pointer, "/admin/listen/identities/%zu", i);
        snprintf(text, sizeof text, "there are no identities \"%.100s\"", name);
        cb_config_complain(d, pointer, text);
    }
}

void edge_config_check_telemetry(cb_config_draft *d, const edge_conf *c) {
    const edge_tracing_conf *t = c->tracing;
    check_log(d, c);
    check_admin(d, c);
    if (c->metrics && !is_loopback(c->metrics->listen))
        cb_config_complain(d, "/metrics/listen",
                           "it must be a loopback address, such as 127.0.0.1:9464: it is for everybody who reaches it");
    if (t && !t->cert_file != !t->key_file) cb_config_complain(d, "/tracing", "cert_file and key_file belong together");
}
