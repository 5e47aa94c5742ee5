/* The configuration of cb-edge as a struct, and its schema. */
#ifndef CB_EDGE_CONFIG_H
#define CB_EDGE_CONFIG_H

#include <cb/access_log.h>
#include <cb/config.h>
#include <cb/monitor.h>
#include <stdbool.h>

typedef struct edge_certificate_conf {
    const char *cert_file, *key_file, *ocsp_file, *issuer_file;
    const char *issuer;   /* or a name of acme's issuers, with */
    cb_config_list names; /* const char * */
} edge_certificate_conf;

/* What a certificate of the other side must be. */
typedef struct edge_trust_conf {
    const char *ca_file, *crl_file;
    cb_config_list names, pins; /* const char * */
    int32_t pins_report, old_crl;
} edge_trust_conf;

typedef struct edge_clients_conf {
    const char *host;
    int32_t certificates; /* none, ask, require */
    edge_trust_conf trust;
} edge_clients_conf;

typedef struct edge_tls_conf {
    cb_config_list certificates; /* of edge_certificate_conf */
    const char *client_ca_file, *client_crl_file;
    int32_t client_certificates; /* none, ask, require */
    cb_config_list clients;      /* of edge_clients_conf */
    int32_t tls12, early_data;
} edge_tls_conf;

typedef struct edge_listener_conf {
    const char *name, *address;
    const edge_tls_conf *tls;
    uint32_t versions; /* enum cb_http_version, or-ed; 0 = all that fit */
    int32_t proxy_protocol, redirect_to_https;
    int64_t max_connections;
} edge_listener_conf;

typedef struct edge_origin_conf {
    const char *url;
    int64_t weight;
    int64_t priority;
} edge_origin_conf;

typedef struct edge_damping_conf {
    int64_t half_life_ms, suppress, reuse, max_ms;
    int32_t off;
} edge_damping_conf;

typedef struct edge_check_conf {
    int32_t kind, start; /* enum cb_check_kind, from CB_CHECK_TCP; up, down */
    int64_t port, interval_ms, fast_interval_ms, timeout_ms, jitter_percent, rise, fall;
    const edge_damping_conf *damping;
    const char *method, *path, *host, *statuses, *body, *service, *send, *expect;
    cb_config_list command; /* const char * */
    uint32_t versions;
} edge_check_conf;

typedef struct edge_outlier_conf {
    int64_t consecutive_errors, connect_fails, error_percent, success_deviations, latency_percent, interval_ms,
        min_requests, min_origins, eject_ms, max_eject_ms, max_eject_percent;
} edge_outlier_conf;

typedef struct edge_health_conf {
    const edge_check_conf *check;
    const edge_outlier_conf *outliers;
    int64_t slow_start_ms;
    int32_t when_all_down; /* try, refuse */
} edge_health_conf;

typedef struct edge_group_conf {
    const char *name;
    cb_config_list origins; /* of edge_origin_conf */
    const char *cert_file, *key_file, *server_name, *host, *tenant, *owner;
    edge_trust_conf trust;
    int32_t policy, verify, tls12, proxy_protocol, require_staple, client_cert;
    uint32_t versions;
    int64_t connect_timeout_ms, response_timeout_ms, idle_timeout_ms, tunnel_timeout_ms, keep_alive_ms;
    int64_t max_connections, max_idle, max_queue, max_fails, fail_window_ms, fail_out_ms, retries;
    const edge_health_conf *health;
} edge_group_conf;

typedef struct edge_provider_conf {
    const char *name, *issuer, *client_id, *client_secret_file, *ca_file;
    int32_t other_hosts, loopback_http;
    int64_t refresh_s, grace_s, stale_s, timeout_ms, introspect_ttl_s;
} edge_provider_conf;

typedef struct edge_jwt_conf {
    const char *provider; /* or issuer and keys_file */
    const char *issuer, *keys_file, *type;
    cb_config_list audiences; /* const char * */
    int32_t any_audience, algorithm, symmetric, dpop;
    int64_t leeway_s, max_age_s;
} edge_jwt_conf;

enum { EDGE_DPOP_OFF, EDGE_DPOP_ACCEPT, EDGE_DPOP_REQUIRE };

typedef struct edge_introspect_conf {
    const char *provider;
    cb_config_list audiences; /* const char * */
    int32_t any_audience, exp_optional;
} edge_introspect_conf;

typedef struct edge_mtls_conf {
    int32_t subject; /* enum cb_authn_name */
} edge_mtls_conf;

typedef struct edge_api_key_conf {
    const char *keys_file, *hash_key_file, *header;
} edge_api_key_conf;

typedef struct edge_identity_conf {
    const char *name;
    const edge_jwt_conf *jwt; /* exactly one of these */
    const edge_introspect_conf *introspect;
    const edge_mtls_conf *mtls;
    const edge_api_key_conf *api_key;
    const char *subject_claim, *tenant_claim, *tenant, *roles_claim;
} edge_identity_conf;

typedef struct edge_opa_conf {
    const char *url, *token_file;
    int32_t fail_open;
    int64_t timeout_ms, cache_ms;
} edge_opa_conf;

typedef struct edge_auth_conf {
    const edge_opa_conf *opa;
    cb_config_list any, all, scopes, roles; /* const char * */
    cb_config_list headers;                 /* cb_config_pair */
    const char *realm, *tenant, *policy_file;
    int32_t need_tenant, keep_credentials, preflight;
} edge_auth_conf;

typedef struct edge_route_conf {
    const char *host, *path, *group, *tenant;
    const edge_auth_conf *auth;
} edge_route_conf;

typedef struct edge_limits_conf {
    int64_t max_head_bytes, max_fields, max_target_bytes, max_body_bytes, max_streams, head_timeout_ms, body_timeout_ms,
        idle_timeout_ms, send_timeout_ms, max_resets_per_s, max_requests;
} edge_limits_conf;

typedef struct edge_access_log_conf {
    const char *path;
    cb_config_list fields; /* const char * */
    int32_t format;        /* enum cb_access_format */
    int32_t show_secrets;
    int64_t one_in;
} edge_access_log_conf;

typedef struct edge_log_conf {
    const char *target, *levels;
    int32_t format; /* enum cb_log_format */
} edge_log_conf;

typedef struct edge_metrics_conf {
    const char *listen;
} edge_metrics_conf;

enum { EDGE_RESOURCE_MAX = 64 };

typedef struct edge_tracing_conf {
    const char *url, *service_name, *authorization_file, *ca_file, *cert_file, *key_file;
    int64_t one_in, per_second, slow_ms;
    int32_t errors, decide_anew, format;
    int32_t trust;           /* enum cb_trace_from */
    cb_config_list resource; /* cb_config_pair */
} edge_tracing_conf;

typedef struct edge_quic_lb_conf {
    const char *server_id, *cid_key_file;
    int64_t rotation;
} edge_quic_lb_conf;

typedef struct edge_forward_interface_conf {
    const char *name;
    int32_t role, mode; /* enum cb_forward_role less 1; enum cb_forward_mode */
} edge_forward_interface_conf;

typedef struct edge_forward_vip_conf {
    const char *address;
    int32_t protocol, quic; /* EDGE_VIP_... */
    int64_t port;
} edge_forward_vip_conf;

enum { EDGE_VIP_BOTH, EDGE_VIP_TCP, EDGE_VIP_UDP };

typedef struct edge_forward_member_conf {
    const char *address, *control, *peer, *server_id;
    int64_t id, weight, mtu;
    int32_t encapsulation; /* 0: as the block says; else one more than enum cb_forward_encapsulation */
} edge_forward_member_conf;

typedef struct edge_forward_cid_conf {
    const char *cid_key_file;
    int64_t rotation;
} edge_forward_cid_conf;

typedef struct edge_forward_control_conf {
    const char *listen, *cert_file, *key_file, *ca_file;
} edge_forward_control_conf;

enum { EDGE_CHECK_NONE, EDGE_CHECK_TCP, EDGE_CHECK_HTTP, EDGE_CHECK_HTTPS };
enum { EDGE_DOWN_DEAD, EDGE_DOWN_DRAIN };

typedef struct edge_forward_health_conf {
    const char *path, *host, *ca_file;
    int32_t kind, down, by_load, verify;
    int64_t port, interval_ms, timeout_ms, rise, fall, slow_start_ms;
    int64_t load_step_ms, load_min_percent, load_max_percent;
} edge_forward_health_conf;

typedef struct edge_forwarding_conf {
    int64_t id, writer, buckets, tag_key, underlay_mtu, gue_port;
    int64_t heartbeat_ms, misses, rise_ms, min_live_percent, start_ms;
    int64_t moves_per_step, step_ms, ack_ms, settle_ms;
    cb_config_list interfaces, vips, members, cids;
    const edge_forward_control_conf *control;
    const edge_forward_health_conf *health;
    const char *key_file, *state_file, *pin_dir;
    int32_t encapsulation, add_addresses;
} edge_forwarding_conf;

typedef struct edge_tickets_conf {
    int32_t follow;
    int64_t rotate_s, lifetime_s, lead_s, skew_s;
} edge_tickets_conf;

enum { EDGE_HTTP_01, EDGE_TLS_ALPN_01, EDGE_DNS_01 };

typedef struct edge_issuer_conf {
    const char *name, *directory, *ca_file, *eab_kid, *eab_key_file, *profile, *dns_hook;
    cb_config_list contacts; /* const char * */
    int32_t agree_terms, challenge, key_type, other_hosts;
    int64_t settle_ms, patience_s;
} edge_issuer_conf;

typedef struct edge_acme_conf {
    const char *dir;
    int32_t follow;
    cb_config_list issuers; /* edge_issuer_conf */
} edge_acme_conf;

typedef struct edge_role_conf {
    const char *who, *role, *tenant, *source;
    cb_config_list owned; /* const char * */
} edge_role_conf;

typedef struct edge_admin_listen_conf {
    const char *address, *cert_file, *key_file, *client_ca_file, *client_crl_file;
    cb_config_list identities; /* const char * */
} edge_admin_listen_conf;

typedef struct edge_admin_conf {
    const edge_admin_listen_conf *listen;
    const char *socket, *state_dir, *audit_head_file;
    cb_config_list roles; /* edge_role_conf */
} edge_admin_conf;

typedef struct edge_conf {
    const char *user, *group;
    int32_t keep_bind_capability, congestion_control;
    int64_t workers, drain_timeout_ms;
    cb_config_list listeners, groups, routes; /* edge_listener_conf, edge_group_conf, edge_route_conf */
    cb_config_list providers, identities;     /* edge_provider_conf, edge_identity_conf */
    const char *revocations_file;
    cb_config_list trusted_proxies; /* const char * */
    const edge_limits_conf *limits;
    const edge_access_log_conf *access_log;
    const edge_log_conf *log;
    const edge_metrics_conf *metrics;
    const edge_tracing_conf *tracing;
    const edge_tickets_conf *tickets;
    const edge_acme_conf *acme;
    int64_t upgrade_timeout_ms;
    const char *pid_file;
    cb_config_list state_old_keys; /* const char * */
    const char *state_key;
    const char *ticket_key_file, *quic_secret_file, *resolver, *via, *server_name;
    const edge_quic_lb_conf *quic_lb;
    const edge_forwarding_conf *forwarding;
    const edge_admin_conf *admin;
} edge_conf;

extern const cb_config_schema edge_schema;
/* What a log is opened with; its texts are the configuration's. */
cb_access_log_opts edge_access_log_opts(const edge_access_log_conf *l);

/* --- edge_config_telemetry.c --- */
extern const cb_config_rule edge_log_rules[], edge_metrics_rules[], edge_tracing_rules[], edge_admin_rules[];
void edge_config_check_telemetry(cb_config_draft *d, const edge_conf *c);

/* --- edge_config_auth.c --- */
extern const cb_config_rule edge_provider_rules[], edge_identity_rules[], edge_auth_rules[];
void edge_config_check_auth(cb_config_draft *d, const edge_conf *c);

/* --- edge_config_forwarding.c --- */
extern const cb_config_rule edge_forwarding_rules[];
/* An address or a prefix ("198.51.100.1", "2001:db8::/64"), IPv4 within IPv6; bits beyond its length are 0. */
typedef struct edge_prefix {
    uint8_t bytes[16], bits;
} edge_prefix;

bool edge_prefix_read(edge_prefix *out, const char *text);
bool edge_prefix_same(const char *a, const char *b); /* false as well: one of them is none */
void edge_config_check_forwarding(cb_config_draft *d, const edge_conf *c);

/* --- acme_config.c: what rules cannot say of issuers, and of certificates by them --- */
void edge_acme_check(cb_config_draft *d, const edge_conf *c);
const edge_issuer_conf *edge_issuer_of(const edge_conf *c, const char *name); /* NULL: there is none */

/* --- edge_config_health.c --- */
extern const cb_config_rule edge_health_rules[];
void edge_config_check_health(cb_config_draft *d, const edge_conf *c);
void edge_outliers_of(cb_outlier_opts *o, const edge_outlier_conf *c);

enum { EDGE_ADDRESS = 300 };

/* A check of an origin, and what it points to. */
typedef struct edge_check {
    cb_check check;
    cb_health_opts health;
    char address[EDGE_ADDRESS];
    const char *argv[CB_CHECK_ARGS_MAX + 1];
} edge_check;

/* The group must have one. identity is for the caller to set. */
void edge_check_of(edge_check *out, const edge_group_conf *g, const char *url);

#endif
