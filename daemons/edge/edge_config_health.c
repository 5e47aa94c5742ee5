/* What of a configuration is about the health of origins. */
#include "edge_config.h"
#include "edge_schema.h"
#include <cb/monitor.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const kind_names[] = {"tcp", "http", "grpc", "icmp", "exec", NULL}; /* from CB_CHECK_TCP on */
static const char *const version_names[] = {"h1", "h2", "h3", NULL}; /* bit i is enum cb_http_version 1 << i */
static const char *const start_names[] = {"up", "down", NULL};
static const char *const down_names[] = {"try", "refuse", NULL};

#define NUMBER(least, most) .kind = CB_CONFIG_INT, .min = least, .max = most

static const cb_config_rule damping_rules[] = {
    {MEMBER(edge_damping_conf, half_life_ms), MILLISECONDS, .fallback = "60000",
     .doc = "Each fall adds 1,000 to a penalty that halves in this time."},
    {MEMBER(edge_damping_conf, suppress), COUNT(1000000), .fallback = "2500",
     .doc = "Who has so much is left out although checks pass; above reuse."},
    {MEMBER(edge_damping_conf, reuse), COUNT(1000000), .fallback = "750", .doc = "Until so little is left of it."},
    {MEMBER(edge_damping_conf, max_ms), MILLISECONDS, .fallback = "300000",
     .doc = "But never longer than this after the last fall."},
    {MEMBER(edge_damping_conf, off), .kind = CB_CONFIG_BOOL, .fallback = "false", .doc = "No damping."},
    END};

static const cb_config_rule check_rules[] = {
    {MEMBER(edge_check_conf, kind), .kind = CB_CONFIG_ENUM, .names = kind_names, .fallback = "http",
     .doc = "How each origin is asked: by a connection, a request, gRPC's health service, an ICMP echo, or a program."},
    {MEMBER(edge_check_conf, port), NUMBER(0, 65535), .fallback = "0",
     .doc = "Another port than that of the origin's URL; 0 = that one."},
    {MEMBER(edge_check_conf, interval_ms), MILLISECONDS, .fallback = "5000", .doc = "From check to check."},
    {MEMBER(edge_check_conf, fast_interval_ms), NUMBER(0, 86400000), .fallback = "0",
     .doc = "The same while in doubt: before the first result, and until rise or fall is reached; 0 = a fifth."},
    {MEMBER(edge_check_conf, timeout_ms), MILLISECONDS, .fallback = "2000", .doc = "How long a check may take."},
    {MEMBER(edge_check_conf, jitter_percent), NUMBER(0, 50), .fallback = "10",
     .doc = "Intervals differ by so much, so that checks of many edges do not come together."},
    {MEMBER(edge_check_conf, rise), COUNT(1000), .fallback = "2", .doc = "Successes in a row that bring it up."},
    {MEMBER(edge_check_conf, fall), COUNT(1000), .fallback = "3", .doc = "Failures in a row that take it down."},
    {MEMBER(edge_check_conf, start), .kind = CB_CONFIG_ENUM, .names = start_names, .fallback = "up",
     .doc = "What it counts as before the first result, which decides alone."},
    {MEMBER(edge_check_conf, damping), .kind = CB_CONFIG_OBJECT, .members = damping_rules,
     .item_size = sizeof(edge_damping_conf), .fallback = "{}",
     .doc = "Who goes up and down too often is left out for a while."},
    {MEMBER(edge_check_conf, versions), .kind = CB_CONFIG_SET, .names = version_names,
     .doc = "http: versions to ask by; those of the group when absent."},
    {MEMBER(edge_check_conf, method), .kind = CB_CONFIG_TEXT, .min = 1, .max = 32, .fallback = "GET",
     .doc = "http: the method."},
    {MEMBER(edge_check_conf, path), .kind = CB_CONFIG_TEXT, .min = 1, .max = 2048, .fallback = "/",
     .doc = "http: path and query."},
    {MEMBER(edge_check_conf, host), .kind = CB_CONFIG_TEXT, .min = 1, .max = 260,
     .doc = "http, grpc: the Host field; the group's, or the origin's, when absent."},
    {MEMBER(edge_check_conf, statuses), .kind = CB_CONFIG_TEXT, .min = 1, .max = 256, .fallback = "200-299",
     .doc = "http: statuses that are well, such as \"200-299,401\"."},
    {MEMBER(edge_check_conf, body), .kind = CB_CONFIG_TEXT, .min = 1, .max = 4096,
     .doc = "http: a text that must be in the first 64 KiB of the body."},
    {MEMBER(edge_check_conf, service), .kind = CB_CONFIG_TEXT, .max = 1024, .fallback = "",
     .doc = "grpc: the service; \"\" is the server as a whole."},
    {MEMBER(edge_check_conf, send), .kind = CB_CONFIG_TEXT, .min = 1, .max = 4096, .doc = "tcp: what is sent."},
    {MEMBER(edge_check_conf, expect), .kind = CB_CONFIG_TEXT, .min = 1, .max = 4096,
     .doc = "tcp: what must be in the first 4 KiB that come."},
    {MEMBER(edge_check_conf, command), .kind = CB_CONFIG_ARRAY, .min = 1, .max = 64,
     .doc = "exec: the program and its arguments; no shell. CB_CHECK_ADDRESS says what it is to look at; exit status 0 "
            "is well."},
    END};

static const cb_config_rule outlier_rules[] = {
    {MEMBER(edge_outlier_conf, consecutive_errors), NUMBER(0, 1000000), .fallback = "5",
     .doc = "So many failures and responses of 500 and above in a row; 0 = not looked at, as in the rows below."},
    {MEMBER(edge_outlier_conf, connect_fails), NUMBER(0, 1000000), .fallback = "0",
     .doc = "So many connections in a row that could not be made."},
    {MEMBER(edge_outlier_conf, error_percent), NUMBER(0, 100), .fallback = "0",
     .doc = "So many of a hundred requests of an interval failed."},
    {MEMBER(edge_outlier_conf, success_deviations), NUMBER(0, 100000), .fallback = "0",
     .doc = "A success rate so many thousandths of a standard deviation below the mean of the group, such as 1900."},
    {MEMBER(edge_outlier_conf, latency_percent), NUMBER(0, 1000000), .fallback = "0",
     .doc = "A mean latency of so many percent of the group's median, such as 300; above 100."},
    {MEMBER(edge_outlier_conf, interval_ms), MILLISECONDS, .fallback = "10000",
     .doc = "Over which rates and latencies are taken."},
    {MEMBER(edge_outlier_conf, min_requests), COUNT(1000000), .fallback = "20",
     .doc = "Who had fewer in an interval, at one worker, is not judged by it."},
    {MEMBER(edge_outlier_conf, min_origins), COUNT(1024), .fallback = "3",
     .doc = "Nor is anybody by the others when fewer are judged."},
    {MEMBER(edge_outlier_conf, eject_ms), MILLISECONDS, .fallback = "30000",
     .doc = "How long it is left out the first time; each time in a row longer by as much."},
    {MEMBER(edge_outlier_conf, max_eject_ms), MILLISECONDS, .fallback = "300000", .doc = "But no longer than this."},
    {MEMBER(edge_outlier_conf, max_eject_percent), NUMBER(1, 100), .fallback = "50",
     .doc = "Never more of a group, and one always stays."},
    END};

const cb_config_rule edge_health_rules[] = {
    {MEMBER(edge_health_conf, check), .kind = CB_CONFIG_OBJECT, .members = check_rules,
     .item_size = sizeof(edge_check_conf),
     .doc = "Checks of each origin, made once for all workers; none when absent."},
    {MEMBER(edge_health_conf, outliers), .kind = CB_CONFIG_OBJECT, .members = outlier_rules,
     .item_size = sizeof(edge_outlier_conf),
     .doc = "Who is left out for what requests come to, by each worker, instead of max_fails, fail_window_ms and "
            "fail_out_ms."},
    {MEMBER(edge_health_conf, slow_start_ms), NUMBER(0, 86400000), .fallback = "0",
     .doc = "An origin that checks bring up gets a tenth of its share, and all of it after this time; 0 = at once."},
    {MEMBER(edge_health_conf, when_all_down), .kind = CB_CONFIG_ENUM, .names = down_names, .fallback = "try",
     .doc = "When checks say that all are down: try them all the same, or refuse with 503."},
    END};

/* ---- as the library has it ---- */

void edge_outliers_of(cb_outlier_opts *o, const edge_outlier_conf *c) {
    *o = (cb_outlier_opts){.size = sizeof *o,
                           .consecutive_errors = (uint32_t)c->consecutive_errors,
                           .connect_fails = (uint32_t)c->connect_fails,
                           .error_percent = (uint32_t)c->error_percent,
                           .success_deviations = (uint32_t)c->success_deviations,
                           .latency_percent = (uint32_t)c->latency_percent,
                           .interval_ms = (uint32_t)c->interval_ms,
                           .min_requests = (uint32_t)c->min_requests,
                           .min_endpoints = (uint32_t)c->min_origins,
                           .eject_ms = (uint32_t)c->eject_ms,
                           .max_eject_ms = (uint32_t)c->max_eject_ms,
                           .max_eject_percent = (uint32_t)c->max_eject_percent};
}

static void health_of(cb_health_opts *o, const edge_health_conf *h) {
    const edge_check_conf *c = h->check;
    *o = (cb_health_opts){.size = sizeof *o,
                          .interval_ms = (uint32_t)c->interval_ms,
                          .fast_interval_ms = (uint32_t)c->fast_interval_ms,
                          .timeout_ms = (uint32_t)c->timeout_ms,
                          .jitter_percent = (uint32_t)c->jitter_percent,
                          .no_jitter = c->jitter_percent == 0,
                          .rise = (uint32_t)c->rise,
                          .fall = (uint32_t)c->fall,
                          .slow_start_ms = (uint32_t)h->slow_start_ms,
                          .flap_half_life_ms = (uint32_t)c->damping->half_life_ms,
                          .flap_suppress = (uint32_t)c->damping->suppress,
                          .flap_reuse = (uint32_t)c->damping->reuse,
                          .flap_max_ms = (uint32_t)c->damping->max_ms,
                          .no_damping = (uint8_t)c->damping->off,
                          .unknown_is_down = c->start != 0};
}

/* "https://[::1]:8443": what is asked for, with another port where that is wanted. */
static void address_of(char out[EDGE_ADDRESS], const char *url, const edge_check_conf *c) {
    const char *host = strstr(url, "://") + 3, *end = host + strcspn(host, ":");
    const bool brackets = *host == '[', icmp = c->kind + CB_CHECK_TCP == CB_CHECK_ICMP;
    if (brackets) end = strchr(host, ']');
    const char *colon = strchr(end, ':');
    const unsigned long own = colon ? strtoul(colon + 1, NULL, 10) : strncmp(url, "https", 5) == 0 ? 443 : 80;
    const unsigned long port = c->port ? (unsigned long)c->port : own;
    const char *from = brackets && icmp ? host + 1 : host;
    const int len = (int)(end - from) + (brackets && !icmp);
    if (icmp)
        snprintf(out, EDGE_ADDRESS, "%.*s", len, from);
    else
        snprintf(out, EDGE_ADDRESS, "%.*s:%lu", len, from, port);
}

void edge_check_of(edge_check *out, const edge_group_conf *g, const char *url) {
    const edge_check_conf *c = g->health->check;
    const bool tls = strncmp(url, "https", 5) == 0, http = c->kind + CB_CHECK_TCP == CB_CHECK_HTTP;
    health_of(&out->health, g->health);
    address_of(out->address, url, c);
    for (size_t i = 0; i < c->command.len && i < CB_CHECK_ARGS_MAX; i++)
        out->argv[i] = ((const char *const *)c->command.at)[i];
    out->argv[c->command.len < CB_CHECK_ARGS_MAX ? c->command.len : CB_CHECK_ARGS_MAX] = NULL;
    out->check = (cb_check){.size = sizeof out->check,
                            .id = 1,
                            .kind = c->kind + CB_CHECK_TCP,
                            .address = out->address,
                            .name = url,
                            .group = g->name,
                            .health = &out->health,
                            .server_name = g->server_name,
                            .tls = tls,
                            .verify = (uint8_t)g->verify,
                            .tls13_only = (uint8_t)!g->tls12,
                            .versions = http ? c->versions ? c->versions : g->versions : 0,
                            .method = c->method,
                            .path = c->path,
                            .host = c->host ? c->host : g->host,
                            .statuses = c->statuses,
                            .body = c->body,
                            .service = c->service,
                            .send = cb_slice_str(c->send),
                            .expect = cb_slice_str(c->expect),
                            .argv = out->argv};
}

/* ---- what rules cannot say ---- */

static void check_checks(cb_config_draft *d, const edge_group_conf *g) {
    const edge_check_conf *c = g->health->check;
    const edge_origin_conf *o = g->origins.at;
    char pointer[256];
    edge_check made;
    snprintf(pointer, sizeof pointer, "/groups/%s/health/check", g->name);
    if ((c->kind + CB_CHECK_TCP == CB_CHECK_EXEC) != (c->command.len > 0)) {
        cb_config_complain(d, pointer, "\"command\" and \"kind\": \"exec\" belong together");
        return;
    }
    for (size_t i = 0; i < g->origins.len; i++) {
        edge_check_of(&made, g, o[i].url);
        if (cb_check_check(&made.check) == CB_OK) continue;
        cb_config_complain(d, pointer, cb_last_error());
        return; /* of all origins the same, most likely */
    }
}

void edge_config_check_health(cb_config_draft *d, const edge_conf *c) {
    const edge_group_conf *g = c->groups.at;
    char pointer[256];
    for (size_t i = 0; i < c->groups.len; i++) {
        const edge_health_conf *h = g[i].health;
        cb_outlier_opts o;
        cb_outlier *set = NULL;
        if (!h) continue;
        if (h->check) check_checks(d, &g[i]);
        snprintf(pointer, sizeof pointer, "/groups/%s/health/slow_start_ms", g[i].name);
        if (h->slow_start_ms && !h->check)
            cb_config_complain(d, pointer, "needs \"check\": it begins when checks bring one up");
        snprintf(pointer, sizeof pointer, "/groups/%s/health/outliers", g[i].name);
        if (!h->outliers) continue;
        edge_outliers_of(&o, h->outliers);
        if (cb_outlier_new(&set, &o) < 0) cb_config_complain(d, pointer, cb_last_error());
        cb_outlier_free(set);
    }
}
