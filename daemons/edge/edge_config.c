#include "edge_config.h"
#include "edge_schema.h"
#include <cb/http.h>
#include <cb/proxy.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const char *const version_names[] = {"h1", "h2", "h3", NULL}; /* bit i is enum cb_http_version 1 << i */
static const char *const policy_names[] = {
    "round_robin", "least_connections", "power_of_two", "ip_hash", "ring_hash", "maglev", "latency",
    NULL}; /* from CB_LB_ROUND_ROBIN on */
static const char *const verify_names[] = {"full", "chain", "none", NULL};
static const char *const client_cert_names[] = {"none", "leaf", "chain", NULL};
static const char *const old_names[] = {"refuse", "accept", NULL};
static const char *const client_names[] = {"none", "ask", "require", NULL};
static const char *const proxy_names[] = {"off", "v1", "v2", NULL};
static const char *const access_names[] = {"json", "combined", NULL}; /* enum cb_access_format */
static const char *const challenge_names[] = {"http_01", "tls_alpn_01", "dns_01", NULL};
static const char *const key_names[] = {"ecdsa_p256", "ecdsa_p384", "rsa_2048", "ed25519", NULL};
static const char *const cc_names[] = {"default", "cubic", "reno", "bbr", "bbrv3", NULL};

/* What two of them share: how certificates of the other side are judged. */
#define TRUST(type, member) .name = #member, .offset = offsetof(type, trust.member)
#define TRUST_RULES(type)                                                                                              \
    {TRUST(type, crl_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,                                          \
     .doc = "Revocation lists (PEM, or one in DER) that authorities of ca_file have signed; read again on change."},   \
        {TRUST(type, old_crl), .kind = CB_CONFIG_ENUM, .names = old_names, .fallback = "refuse",                       \
         .doc = "When a new list is overdue: refuse everybody, or accept by the old one."},                            \
        {TRUST(type, names), .kind = CB_CONFIG_ARRAY, .min = 1, .max = 1000,                                           \
         .doc =                                                                                                        \
             "Names of which a certificate must have one: DNS names, addresses, \"spiffe://domain/path\"; a SPIFFE "   \
             "ID with \"/\" at its end means all below. To origins they replace server_name in verification."},        \
        {TRUST(type, pins), .kind = CB_CONFIG_ARRAY, .min = 1, .max = 1000,                                            \
         .doc = "Keys of which one must be in the chain: SHA-256 of the public key in base64. Two at least."},         \
    {                                                                                                                  \
        TRUST(type, pins_report), .kind = CB_CONFIG_BOOL, .fallback = "false",                                         \
                                  .doc = "Only log certificates that fit no pin."                                      \
    }

static const cb_config_rule certificate_rules[] = {
    {MEMBER(edge_certificate_conf, cert_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "PEM file with the certificate chain, the server's own first."},
    {MEMBER(edge_certificate_conf, key_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "PEM file with the private key. It should be readable by its owner only."},
    {MEMBER(edge_certificate_conf, ocsp_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "OCSP answer to staple (DER or PEM), checked before it is used; read again on change."},
    {MEMBER(edge_certificate_conf, issuer_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "PEM file with the issuer's certificate, to check ocsp_file, when cert_file does not have it."},
    {MEMBER(edge_certificate_conf, issuer), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_NAME,
     .doc = "Instead of the two files: which of acme's issuers makes the certificate, and renews it."},
    {MEMBER(edge_certificate_conf, names), .kind = CB_CONFIG_ARRAY, .min = 1, .max = 100,
     .doc = "What that is for: DNS names and IP addresses; wildcards with dns_01. The first names its file."},
    END};

static const cb_config_rule clients_rules[] = {
    {MEMBER(edge_clients_conf, host), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_HOST, .fallback = "*",
     .doc = "The name that clients ask for (SNI): \"www.example.org\", \"*.example.org\" (one label), or \"*\" for "
            "others."},
    {MEMBER(edge_clients_conf, certificates), .kind = CB_CONFIG_ENUM, .names = client_names, .fallback = "require",
     .doc = "Whether they are asked for a certificate."},
    {TRUST(edge_clients_conf, ca_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "PEM file with the authorities that their certificates must chain to."},
    TRUST_RULES(edge_clients_conf),
    END};

static const cb_config_rule tls_rules[] = {
    {MEMBER(edge_tls_conf, certificates), .kind = CB_CONFIG_ARRAY, .members = certificate_rules,
     .item_size = sizeof(edge_certificate_conf), .min = 1, .max = 1024, .required = 1,
     .doc = "Certificates by the names in them; the first serves unknown names. Read again on SIGHUP."},
    {MEMBER(edge_tls_conf, client_certificates), .kind = CB_CONFIG_ENUM, .names = client_names, .fallback = "none",
     .doc = "Whether clients are asked for a certificate."},
    {MEMBER(edge_tls_conf, client_ca_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "PEM file with the roots that client certificates must chain to."},
    {MEMBER(edge_tls_conf, client_crl_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "Revocation lists of client_ca_file's authorities; see crl_file of \"clients\"."},
    {MEMBER(edge_tls_conf, clients), .kind = CB_CONFIG_ARRAY, .members = clients_rules,
     .item_size = sizeof(edge_clients_conf), .min = 1, .max = 1000,
     .doc = "Rules for client certificates by host. Other hosts go by client_certificates and client_ca_file."},
    {MEMBER(edge_tls_conf, tls12), .kind = CB_CONFIG_BOOL, .fallback = "false",
     .doc = "TLS 1.2 too, for old clients. TLS 1.3 is always there."},
    {MEMBER(edge_tls_conf, early_data), .kind = CB_CONFIG_BOOL, .fallback = "false",
     .doc = "Allow 0-RTT. Early requests may be replays: only safe methods pass, others get 425."},
    END};

static const cb_config_rule listener_rules[] = {
    {MEMBER(edge_listener_conf, address), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_LISTEN, .required = 1,
     .doc = "\"address:port\", \"[address]:port\", or \":port\" for every address. TCP, and UDP where h3 is served."},
    {MEMBER(edge_listener_conf, tls), .kind = CB_CONFIG_OBJECT, .members = tls_rules,
     .item_size = sizeof(edge_tls_conf), .doc = "TLS. Without it the listener speaks clear text, and never h3."},
    {MEMBER(edge_listener_conf, versions), .kind = CB_CONFIG_SET, .names = version_names,
     .doc = "HTTP versions; all that fit when absent."},
    {MEMBER(edge_listener_conf, proxy_protocol), .kind = CB_CONFIG_BOOL, .fallback = "false",
     .doc = "Every TCP connection begins with a PROXY header (v1 or v2), which names the client."},
    {MEMBER(edge_listener_conf, redirect_to_https), .kind = CB_CONFIG_BOOL, .fallback = "false",
     .doc = "Only send clients to the same URL on https: 301 for GET and HEAD, else 308."},
    {MEMBER(edge_listener_conf, max_connections), COUNT(10000000), .fallback = "100000",
     .doc = "Connections that one worker holds here; accepting pauses above."},
    END};

static const cb_config_rule origin_rules[] = {
    {MEMBER(edge_origin_conf, url), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_ORIGIN, .required = 1,
     .doc = "\"http://host:port\" or \"https://host:port\". Names are resolved again when their TTL is over."},
    {MEMBER(edge_origin_conf, weight), COUNT(1000), .fallback = "1", .doc = "Share of the requests."},
    {MEMBER(edge_origin_conf, priority), .kind = CB_CONFIG_INT, .min = 0, .max = 1000, .fallback = "0",
     .doc = "0 serves; others stand by until less than half of those below is in."},
    END};

static const cb_config_rule group_rules[] = {
    {MEMBER(edge_group_conf, origins), .kind = CB_CONFIG_ARRAY, .members = origin_rules,
     .item_size = sizeof(edge_origin_conf), .min = 1, .max = 1024, .required = 1, .doc = "Where requests go."},
    {MEMBER(edge_group_conf, policy), .kind = CB_CONFIG_ENUM, .names = policy_names, .fallback = "power_of_two",
     .doc = "How the next origin is chosen; by hash of the client's address: ip_hash, ring_hash, maglev."},
    {MEMBER(edge_group_conf, versions), .kind = CB_CONFIG_SET, .names = version_names,
     .doc = "HTTP versions towards origins; when absent h1, and with https h2. Only h2 on http is prior knowledge."},
    {MEMBER(edge_group_conf, verify), .kind = CB_CONFIG_ENUM, .names = verify_names, .fallback = "full",
     .doc = "How https origins are verified: chain, dates and name; chain and dates; or nothing (for tests only)."},
    {TRUST(edge_group_conf, ca_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "PEM file with trust roots for https origins; the system's when absent."},
    {MEMBER(edge_group_conf, cert_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "PEM file with the certificate chain that origins are shown when they ask for one."},
    {MEMBER(edge_group_conf, key_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "PEM file with its private key."},
    TRUST_RULES(edge_group_conf),
    {MEMBER(edge_group_conf, client_cert), .kind = CB_CONFIG_ENUM, .names = client_cert_names, .fallback = "none",
     .doc = "Tell origins what certificate the client showed (RFC 9440): in Client-Cert, and with Client-Cert-Chain."},
    {MEMBER(edge_group_conf, require_staple), .kind = CB_CONFIG_BOOL, .fallback = "false",
     .doc = "Origins must staple a good OCSP answer. Those with a must-staple certificate have to in any case."},
    {MEMBER(edge_group_conf, server_name), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_HOST,
     .doc = "Name for SNI and verification; the URL's host when absent."},
    {MEMBER(edge_group_conf, host), .kind = CB_CONFIG_TEXT,
     .doc = "Host field that origins get; the client's when absent."},
    {MEMBER(edge_group_conf, tls12), .kind = CB_CONFIG_BOOL, .fallback = "true",
     .doc = "TLS 1.2 too, to origins that have no 1.3."},
    {MEMBER(edge_group_conf, proxy_protocol), .kind = CB_CONFIG_ENUM, .names = proxy_names, .fallback = "off",
     .doc = "Begin connections to origins with a PROXY header. Each client then has connections of its own."},
    {MEMBER(edge_group_conf, connect_timeout_ms), MILLISECONDS, .fallback = "5000",
     .doc = "To resolve, connect and shake hands. 504 when it passes."},
    {MEMBER(edge_group_conf, response_timeout_ms), MILLISECONDS, .fallback = "60000",
     .doc = "From the request to the head of its response. 504 when it passes."},
    {MEMBER(edge_group_conf, idle_timeout_ms), MILLISECONDS, .fallback = "60000",
     .doc = "Without a byte of a response that has begun."},
    {MEMBER(edge_group_conf, tunnel_timeout_ms), MILLISECONDS, .fallback = "3600000",
     .doc = "Without a byte on a WebSocket."},
    {MEMBER(edge_group_conf, keep_alive_ms), MILLISECONDS, .fallback = "55000",
     .doc = "How long unused connections to origins are kept."},
    {MEMBER(edge_group_conf, max_connections), COUNT(100000), .fallback = "256",
     .doc = "Connections to one origin, for each worker; requests above wait."},
    {MEMBER(edge_group_conf, max_idle), COUNT(100000), .fallback = "64",
     .doc = "Unused connections kept to one origin, for each worker."},
    {MEMBER(edge_group_conf, max_queue), COUNT(1000000), .fallback = "1024",
     .doc = "Requests that wait for a connection to one origin, for each worker. 503 above."},
    {MEMBER(edge_group_conf, max_fails), COUNT(1000000), .fallback = "3",
     .doc = "Failures within fail_window_ms that take an origin out."},
    {MEMBER(edge_group_conf, fail_window_ms), MILLISECONDS, .fallback = "10000", .doc = "See max_fails."},
    {MEMBER(edge_group_conf, fail_out_ms), MILLISECONDS, .fallback = "10000",
     .doc = "How long an origin stays out. When all are out, all are tried."},
    {MEMBER(edge_group_conf, retries), .kind = CB_CONFIG_INT, .min = 0, .max = 10, .fallback = "1",
     .doc = "Further origins that a request goes to while no origin has got it."},
    {MEMBER(edge_group_conf, health), .kind = CB_CONFIG_OBJECT, .members = edge_health_rules,
     .item_size = sizeof(edge_health_conf), .doc = "Checks of the origins, and outliers among them."},
    {MEMBER(edge_group_conf, tenant), .kind = CB_CONFIG_TEXT, .min = 1, .max = 256,
     .doc = "Whose it is: who may change it by administration, and the tenant of its routes that name none."},
    {MEMBER(edge_group_conf, owner), .kind = CB_CONFIG_TEXT, .min = 1, .max = 256,
     .doc = "Its service owner, who may change it by administration."},
    END};

static const cb_config_rule route_rules[] = {
    {MEMBER(edge_route_conf, host), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_HOST, .fallback = "*",
     .doc = "\"www.example.org\", \"*.example.org\" or \"*\". An exact host wins over a wildcard, that over \"*\"."},
    {MEMBER(edge_route_conf, path), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_PATH, .fallback = "/",
     .doc = "Prefix of whole path segments; the longest of a host wins."},
    {MEMBER(edge_route_conf, group), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_NAME, .required = 1,
     .doc = "A name from \"groups\"."},
    {MEMBER(edge_route_conf, tenant), .kind = CB_CONFIG_TEXT, .min = 1, .max = 256,
     .doc = "Whose traffic it is, in metrics, traces and the access log, where nobody is let in by an identity with a "
            "tenant; the group's when absent."},
    {MEMBER(edge_route_conf, auth), .kind = CB_CONFIG_OBJECT, .members = edge_auth_rules,
     .item_size = sizeof(edge_auth_conf), .doc = "Who may; everybody when absent."},
    END};

static const cb_config_rule limits_rules[] = {
    {MEMBER(edge_limits_conf, max_head_bytes), .kind = CB_CONFIG_INT, .min = 1024, .max = 1048576, .fallback = "65536",
     .doc = "All fields of a request's head: names, values, and 32 each. 431 above."},
    {MEMBER(edge_limits_conf, max_fields), COUNT(10000), .fallback = "100", .doc = "Fields of a head. 431 above."},
    {MEMBER(edge_limits_conf, max_target_bytes), .kind = CB_CONFIG_INT, .min = 64, .max = 65536, .fallback = "8192",
     .doc = "Path and query. 414 above."},
    {MEMBER(edge_limits_conf, max_body_bytes), .kind = CB_CONFIG_INT, .min = 0, .max = INT64_MAX, .fallback = "0",
     .doc = "Body of a request; 0 = no limit. 413 above."},
    {MEMBER(edge_limits_conf, max_streams), COUNT(10000), .fallback = "128",
     .doc = "Requests at one time on an h2 or h3 connection."},
    {MEMBER(edge_limits_conf, head_timeout_ms), MILLISECONDS, .fallback = "10000",
     .doc = "From a request's first byte to the end of its head. 408 when it passes."},
    {MEMBER(edge_limits_conf, body_timeout_ms), MILLISECONDS, .fallback = "30000",
     .doc = "Without a byte of a body that is expected. 408 when it passes."},
    {MEMBER(edge_limits_conf, idle_timeout_ms), MILLISECONDS, .fallback = "60000",
     .doc = "Connections without requests are closed after this."},
    {MEMBER(edge_limits_conf, send_timeout_ms), MILLISECONDS, .fallback = "30000",
     .doc = "A client that takes no byte of its response for so long is cut."},
    {MEMBER(edge_limits_conf, max_resets_per_s), COUNT(100000), .fallback = "20",
     .doc = "Requests that a client resets early, a second (rapid reset)."},
    {MEMBER(edge_limits_conf, max_requests), COUNT(1000000000), .fallback = "100000",
     .doc = "Requests of one connection; then it is closed gracefully."},
    END};

static const cb_config_rule access_log_rules[] = {
    {MEMBER(edge_access_log_conf, path), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE, .required = 1,
     .doc = "File for one line a request; \"-\" is standard output. Opened again on SIGUSR1."},
    {MEMBER(edge_access_log_conf, format), .kind = CB_CONFIG_ENUM, .names = access_names, .fallback = "json",
     .doc = "JSON lines, or the text form that web servers call combined."},
    {MEMBER(edge_access_log_conf, fields), .kind = CB_CONFIG_ARRAY, .min = 1, .max = CB_ACCESS_FIELDS,
     .doc = "What JSON lines have: names of fields, \"request.NAME\" and \"response.NAME\" for one of the message; "
            "\"NAME=AS\" calls it AS. The usual ones when absent."},
    {MEMBER(edge_access_log_conf, one_in), COUNT(1000000), .fallback = "1",
     .doc = "One line in so many is written, and those of all requests that failed."},
    {MEMBER(edge_access_log_conf, show_secrets), .kind = CB_CONFIG_BOOL, .fallback = "false",
     .doc = "Show Authorization, cookies, and tokens, keys and passwords in URLs; else they are REDACTED."},
    END};

static const cb_config_rule quic_lb_rules[] = {
    {MEMBER(edge_quic_lb_conf, server_id), .kind = CB_CONFIG_TEXT, .required = 1,
     .doc = "This server's ID, 1 to 12 bytes in hex."},
    {MEMBER(edge_quic_lb_conf, rotation), .kind = CB_CONFIG_INT, .min = 0, .max = 6, .fallback = "0",
     .doc = "Which configuration of the load balancers this is."},
    {MEMBER(edge_quic_lb_conf, cid_key_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "16 bytes that the load balancers have, too: connection IDs are encrypted; everybody can read the server's "
            "ID when absent."},
    END};

static const cb_config_rule tickets_rules[] = {
    {MEMBER(edge_tickets_conf, rotate_s), .kind = CB_CONFIG_INT, .min = 60, .max = 2592000, .fallback = "43200",
     .doc = "A new key this often. The last three are known."},
    {MEMBER(edge_tickets_conf, lifetime_s), .kind = CB_CONFIG_INT, .min = 60, .max = 604800, .fallback = "7200",
     .doc = "How long clients may resume a session."},
    {MEMBER(edge_tickets_conf, lead_s), .kind = CB_CONFIG_INT, .min = 0, .max = 86400, .fallback = "0",
     .doc = "A new key is in the file so long before it is used: time to carry the file to other hosts."},
    {MEMBER(edge_tickets_conf, skew_s), .kind = CB_CONFIG_INT, .min = 0, .max = 3600, .fallback = "0",
     .doc = "How far the clocks of hosts that share the keys may differ; after a start 0-RTT waits so long."},
    {MEMBER(edge_tickets_conf, follow), .kind = CB_CONFIG_BOOL, .fallback = "false",
     .doc = "Only read ticket_key_file: another host makes the keys, and the file is brought here."},
    END};

static const cb_config_rule issuer_rules[] = {
    {MEMBER(edge_issuer_conf, directory), .kind = CB_CONFIG_TEXT, .required = 1,
     .doc = "https URL of the ACME server's directory (RFC 8555)."},
    {MEMBER(edge_issuer_conf, contacts), .kind = CB_CONFIG_ARRAY, .max = 16,
     .doc = "For the account, such as \"mailto:ops@example.org\"."},
    {MEMBER(edge_issuer_conf, agree_terms), .kind = CB_CONFIG_BOOL, .fallback = "false",
     .doc = "You agree to the server's terms of service. Most servers make no account without."},
    {MEMBER(edge_issuer_conf, challenge), .kind = CB_CONFIG_ENUM, .names = challenge_names, .fallback = "http_01",
     .doc = "How control of names is shown: port 80, port 443, or the DNS. Wildcards need dns_01."},
    {MEMBER(edge_issuer_conf, dns_hook), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "Program for dns_01: \"add NAME VALUE\" makes a TXT record of _acme-challenge.NAME, \"remove\" ends it."},
    {MEMBER(edge_issuer_conf, settle_ms), .kind = CB_CONFIG_INT, .min = 0, .max = 3600000, .fallback = "0",
     .doc = "Time for name servers, and for other members, to learn of an answer before the server looks."},
    {MEMBER(edge_issuer_conf, profile), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_NAME,
     .doc = "A profile that the server offers, such as \"shortlived\"."},
    {MEMBER(edge_issuer_conf, key_type), .kind = CB_CONFIG_ENUM, .names = key_names, .fallback = "ecdsa_p256",
     .doc = "Of the certificates' keys; a new key each time."},
    {MEMBER(edge_issuer_conf, eab_kid), .kind = CB_CONFIG_TEXT,
     .doc = "External account binding: the key's name, from the server's operator."},
    {MEMBER(edge_issuer_conf, eab_key_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "File with its key, in base64url."},
    {MEMBER(edge_issuer_conf, ca_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "PEM file with trust roots for a private ACME server; the system's when absent."},
    {MEMBER(edge_issuer_conf, other_hosts), .kind = CB_CONFIG_BOOL, .fallback = "false",
     .doc = "The server's URLs may lead to other https hosts than the directory's."},
    {MEMBER(edge_issuer_conf, patience_s), .kind = CB_CONFIG_INT, .min = 10, .max = 86400, .fallback = "600",
     .doc = "How long one certificate may take; then it is tried again later."},
    END};

static const cb_config_rule acme_rules[] = {
    {MEMBER(edge_acme_conf, dir), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE, .required = 1,
     .doc = "Directory of accounts, keys and certificates (mode 0700). Members of a PoP may share it."},
    {MEMBER(edge_acme_conf, follow), .kind = CB_CONFIG_BOOL, .fallback = "false",
     .doc = "Only read the directory: another host gets the certificates, and the files are brought here."},
    {MEMBER(edge_acme_conf, issuers), .kind = CB_CONFIG_MAP, .members = issuer_rules, .format = CB_FORMAT_NAME,
     .item_size = sizeof(edge_issuer_conf), .min = 1, .max = 64, .required = 1,
     .doc = "ACME servers, each with an account, by name."},
    END};

static const cb_config_rule root_rules[] = {
    {MEMBER(edge_conf, user), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_NAME,
     .doc = "User to become after the sockets are open; needs a start as root."},
    {MEMBER(edge_conf, group), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_NAME,
     .doc = "Group to become; the user's own when absent."},
    {MEMBER(edge_conf, keep_bind_capability), .kind = CB_CONFIG_BOOL, .fallback = "false",
     .doc = "Keep CAP_NET_BIND_SERVICE, so that a reload or an upgrade can open ports below 1024."},
    {MEMBER(edge_conf, workers), .kind = CB_CONFIG_INT, .min = 0, .max = 256, .fallback = "0",
     .doc = "Threads that serve, each with its own loop; 0 = one for each CPU. Not by a reload; by an upgrade."},
    {MEMBER(edge_conf, drain_timeout_ms), .kind = CB_CONFIG_INT, .min = 0, .max = 86400000, .fallback = "30000",
     .doc = "How long running requests may take to end after SIGTERM or an upgrade."},
    {MEMBER(edge_conf, upgrade_timeout_ms), MILLISECONDS, .fallback = "30000",
     .doc = "How long a successor (SIGUSR2) may take until it serves; else it is given up."},
    {MEMBER(edge_conf, pid_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "File with the number of the process that serves; its directory must be the user's."},
    {MEMBER(edge_conf, listeners), .kind = CB_CONFIG_MAP, .members = listener_rules, .format = CB_FORMAT_NAME,
     .item_size = sizeof(edge_listener_conf), .min = 1, .max = 256, .required = 1,
     .doc = "Addresses to serve, by name."},
    {MEMBER(edge_conf, groups), .kind = CB_CONFIG_MAP, .members = group_rules, .format = CB_FORMAT_NAME,
     .item_size = sizeof(edge_group_conf), .doc = "Groups of origins, by name."},
    {MEMBER(edge_conf, routes), .kind = CB_CONFIG_ARRAY, .members = route_rules, .item_size = sizeof(edge_route_conf),
     .doc = "Which group a request goes to, by host and path. No matching route: 404."},
    {MEMBER(edge_conf, providers), .kind = CB_CONFIG_MAP, .members = edge_provider_rules, .format = CB_FORMAT_NAME,
     .item_size = sizeof(edge_provider_conf), .max = 64,
     .doc = "OpenID Connect and OAuth 2.0 providers, by name: whose keys sign tokens, who knows opaque ones."},
    {MEMBER(edge_conf, identities), .kind = CB_CONFIG_MAP, .members = edge_identity_rules, .format = CB_FORMAT_NAME,
     .item_size = sizeof(edge_identity_conf), .max = 256, .doc = "Who is known, and by what, by name."},
    {MEMBER(edge_conf, revocations_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "What was revoked before it expires: lines of \"cbctl auth revoke\". Looked after twice a second."},
    {MEMBER(edge_conf, trusted_proxies), .kind = CB_CONFIG_ARRAY, .format = CB_FORMAT_CIDR,
     .doc = "Peers whose Forwarded and X-Forwarded-* fields are believed. From others they are removed."},
    {MEMBER(edge_conf, limits), .kind = CB_CONFIG_OBJECT, .members = limits_rules,
     .item_size = sizeof(edge_limits_conf), .fallback = "{}", .doc = "Limits for clients."},
    {MEMBER(edge_conf, access_log), .kind = CB_CONFIG_OBJECT, .members = access_log_rules,
     .item_size = sizeof(edge_access_log_conf), .doc = "Access log; none when absent."},
    {MEMBER(edge_conf, log), .kind = CB_CONFIG_OBJECT, .members = edge_log_rules, .item_size = sizeof(edge_log_conf),
     .fallback = "{}", .doc = "Lines about the server itself."},
    {MEMBER(edge_conf, metrics), .kind = CB_CONFIG_OBJECT, .members = edge_metrics_rules,
     .item_size = sizeof(edge_metrics_conf), .doc = "A page for Prometheus, and health checks; none when absent."},
    {MEMBER(edge_conf, tracing), .kind = CB_CONFIG_OBJECT, .members = edge_tracing_rules,
     .item_size = sizeof(edge_tracing_conf), .doc = "Requests as spans to a collector (OTLP); none when absent."},
    {MEMBER(edge_conf, congestion_control), .kind = CB_CONFIG_ENUM, .names = cc_names, .fallback = "default",
     .doc = "For h3: the default is cubic, or what CBR_CC names in the environment."},
    {MEMBER(edge_conf, ticket_key_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "Ring of session-ticket keys shared by processes; made when absent. Without it: in memory."},
    {MEMBER(edge_conf, state_key), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "File with the key (32 bytes, mode 0600; made when absent) that seals ticket_key_file. Without it: not "
            "sealed."},
    {MEMBER(edge_conf, state_old_keys), .kind = CB_CONFIG_ARRAY, .format = CB_FORMAT_FILE, .max = 7,
     .doc = "Former state_keys: they open what they sealed, which is then sealed anew."},
    {MEMBER(edge_conf, tickets), .kind = CB_CONFIG_OBJECT, .members = tickets_rules,
     .item_size = sizeof(edge_tickets_conf), .fallback = "{}", .doc = "Session tickets: how old, by whose keys."},
    {MEMBER(edge_conf, acme), .kind = CB_CONFIG_OBJECT, .members = acme_rules, .item_size = sizeof(edge_acme_conf),
     .doc = "Certificates from ACME servers, which cb-edge gets and renews by itself."},
    {MEMBER(edge_conf, quic_secret_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "32 bytes for QUIC tokens and stateless resets, shared by processes; made when absent."},
    {MEMBER(edge_conf, quic_lb), .kind = CB_CONFIG_OBJECT, .members = quic_lb_rules,
     .item_size = sizeof(edge_quic_lb_conf),
     .doc = "Connection IDs that load balancers read (QUIC-LB); the server's ID "
            "is random for each start when absent."},
    {MEMBER(edge_conf, forwarding), .kind = CB_CONFIG_OBJECT, .members = edge_forwarding_rules,
     .item_size = sizeof(edge_forwarding_conf),
     .doc = "This host is one of a PoP whose hosts all forward packets to the owner of their flow."},
    {MEMBER(edge_conf, resolver), .kind = CB_CONFIG_TEXT,
     .doc = "DNS servers, \"address[:port],...\"; the system's when absent."},
    {MEMBER(edge_conf, via), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_NAME, .fallback = "cb-edge",
     .doc = "How this hop calls itself in Via."},
    {MEMBER(edge_conf, server_name), .kind = CB_CONFIG_TEXT,
     .doc = "Value of a Server field on responses of our own; none when absent."},
    {MEMBER(edge_conf, admin), .kind = CB_CONFIG_OBJECT, .members = edge_admin_rules,
     .item_size = sizeof(edge_admin_conf), .doc = "Administration while it runs. This block is the file's alone."},
    END};

cb_access_log_opts edge_access_log_opts(const edge_access_log_conf *l) {
    return (cb_access_log_opts){.size = sizeof(cb_access_log_opts),
                                .path = l->path,
                                .format = l->format,
                                .fields = l->fields.at,
                                .n_fields = l->fields.len,
                                .one_in = (uint32_t)l->one_in,
                                .show_secrets = (uint8_t)l->show_secrets};
}

/* ---- what rules cannot say ---- */

static bool has_group(const edge_conf *c, const char *name) {
    const edge_group_conf *g = c->groups.at;
    for (size_t i = 0; i < c->groups.len; i++)
        if (strcmp(g[i].name, name) == 0) return true;
    return false;
}

static void check_routes(cb_config_draft *d, const edge_conf *c) {
    const edge_route_conf *r = c->routes.at;
    char pointer[64], text[256];
    for (size_t i = 0; i < c->routes.len; i++) {
        snprintf(pointer, sizeof pointer, "/routes/%zu/group", i);
        snprintf(text, sizeof text, "there is no group \"%.100s\"", r[i].group);
        if (!has_group(c, r[i].group)) cb_config_complain(d, pointer, text);
        for (size_t k = 0; k < i; k++) {
            if (strcasecmp(r[i].host, r[k].host) != 0 || strcmp(r[i].path, r[k].path) != 0) continue;
            snprintf(pointer, sizeof pointer, "/routes/%zu", i);
            snprintf(text, sizeof text, "the same host and path as /routes/%zu", k);
            cb_config_complain(d, pointer, text);
            break;
        }
    }
}

static void check_clients(cb_config_draft *d, const edge_listener_conf *l) {
    const edge_tls_conf *t = l->tls;
    const edge_clients_conf *rules = t->clients.at;
    char pointer[256];
    snprintf(pointer, sizeof pointer, "/listeners/%s", l->name);
    if (t->client_certificates && !t->client_ca_file)
        cb_config_complain(d, pointer, "client_certificates needs client_ca_file");
    if (t->client_crl_file && !t->client_ca_file)
        cb_config_complain(d, pointer, "client_crl_file needs client_ca_file");
    for (size_t i = 0; i < t->clients.len; i++) {
        snprintf(pointer, sizeof pointer, "/listeners/%s/tls/clients/%zu", l->name, i);
        if (rules[i].certificates && !rules[i].trust.ca_file) cb_config_complain(d, pointer, "needs ca_file");
        if (strcmp(rules[i].host, "*") == 0 && (t->client_ca_file || t->client_certificates))
            cb_config_complain(d, pointer, "\"*\" stands beside client_certificates or client_ca_file: one of both");
        for (size_t k = 0; k < i; k++)
            if (strcasecmp(rules[i].host, rules[k].host) == 0)
                cb_config_complain(d, pointer, "has a host that was there");
    }
}

static void check_listeners(cb_config_draft *d, const edge_conf *c) {
    const edge_listener_conf *l = c->listeners.at;
    char pointer[256], text[256];
    for (size_t i = 0; i < c->listeners.len; i++) {
        snprintf(pointer, sizeof pointer, "/listeners/%s", l[i].name);
        if (l[i].versions & CB_HTTP_3 && !l[i].tls) cb_config_complain(d, pointer, "h3 needs \"tls\"");
        if (l[i].redirect_to_https && l[i].tls)
            cb_config_complain(d, pointer, "redirect_to_https is for listeners without \"tls\"");
        if (l[i].tls) check_clients(d, &l[i]);
        for (size_t k = 0; k < i; k++) {
            if (strcmp(l[i].address, l[k].address) != 0 || strstr(l[i].address, ":0")) continue;
            snprintf(text, sizeof text, "has the same address as \"%.60s\"", l[k].name);
            cb_config_complain(d, pointer, text);
        }
    }
}

static void check_groups(cb_config_draft *d, const edge_conf *c) {
    const edge_group_conf *g = c->groups.at;
    char pointer[256];
    for (size_t i = 0; i < c->groups.len; i++) {
        const edge_origin_conf *o = g[i].origins.at;
        snprintf(pointer, sizeof pointer, "/groups/%s", g[i].name);
        if (!g[i].cert_file != !g[i].key_file) cb_config_complain(d, pointer, "cert_file and key_file belong together");
        if (g[i].trust.crl_file && !g[i].trust.ca_file) cb_config_complain(d, pointer, "crl_file needs ca_file");
        if (g[i].verify == CB_VERIFY_NONE && (g[i].trust.pins.len || g[i].trust.names.len || g[i].trust.crl_file))
            cb_config_complain(d, pointer, "\"verify\": \"none\" leaves crl_file, names and pins without effect");
        for (size_t k = 0; k < g[i].origins.len; k++) {
            if (g[i].versions != CB_HTTP_3 || strncmp(o[k].url, "https:", 6) == 0) continue;
            snprintf(pointer, sizeof pointer, "/groups/%s/origins/%zu/url", g[i].name, k);
            cb_config_complain(d, pointer, "h3 needs https");
        }
    }
}

static void check_access_log(cb_config_draft *d, const edge_conf *c) {
    const cb_access_log_opts o = edge_access_log_opts(c->access_log);
    if (cb_access_log_check(&o) < 0) cb_config_complain(d, "/access_log", cb_last_error());
}

static void check(cb_config_draft *d, const void *root) {
    const edge_conf *c = root;
    if (c->access_log) check_access_log(d, c);
    edge_config_check_telemetry(d, c);
    edge_config_check_forwarding(d, c);
    edge_acme_check(d, c);
    check_listeners(d, c);
    check_groups(d, c);
    edge_config_check_health(d, c);
    check_routes(d, c);
    edge_config_check_auth(d, c);
    if (c->group && !c->user) cb_config_complain(d, "/group", "needs \"user\" too");
}

const cb_config_schema edge_schema = {.size = sizeof edge_schema,
                                      .title = "cb-edge configuration",
                                      .members = root_rules,
                                      .root_size = sizeof(edge_conf),
                                      .check = check};
