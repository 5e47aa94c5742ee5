/* What operators do: reload, drain, levels of the log, origins out and in. */
#include "admin.h"
#include "text.h"
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 1024, BODY_BYTES = 1024, DRAIN_GRACE_MS = 15000 };

/* Asks and says `done`, or prints the answer with --json. */
static int act(cbctl_admin *a, const cbctl_question *q, const char *done) {
    cbctl_answer r;
    int code = cbctl_ask(a, q, &r);
    if (code != CBCTL_OK) return code;
    if (a->args.json && r.len && strstr(r.type, "json"))
        cbctl_json_print(stdout, r.body, r.len);
    else
        puts(a->args.json ? "{}" : done);
    cbctl_answer_free(&r);
    return CBCTL_OK;
}

int cbctl_reload(cbctl_admin *a) {
    if (a->args.n_words) return cbctl_usage("reload: what is \"%s\"?", a->args.words[0]);
    return act(a,
               &(cbctl_question){
                   .method = "POST", .path = "/v1/reload", .body = "", .change = true, .document = "configuration"},
               "reloaded");
}

int cbctl_drain(cbctl_admin *a) {
    char body[64] = "{}";
    const int64_t ms = a->args.timeout ? cbctl_duration_ms(a->args.timeout) : 0;
    if (a->args.n_words) return cbctl_usage("drain: what is \"%s\"?", a->args.words[0]);
    if (ms < 0) return cbctl_usage("--timeout: \"%s\" is not a time such as 30s", a->args.timeout);
    if (a->args.timeout) snprintf(body, sizeof body, "{\"timeout_ms\": %lld}", (long long)ms);
    const uint64_t wait = (uint64_t)ms + DRAIN_GRACE_MS;
    return act(a,
               &(cbctl_question){.method = "POST",
                                 .path = "/v1/drain",
                                 .type = "application/json",
                                 .body = body,
                                 .len = strlen(body),
                                 .change = true,
                                 .timeout_ms = wait > a->patience_ms ? (uint32_t)wait : 0},
               "it takes no requests any more, and ends");
}

static int set_levels(cbctl_admin *a, const char *levels) {
    cb_json_out *o = NULL;
    cb_slice body = {NULL, 0};
    int rc = cb_json_out_new(&o, 0);
    if (rc < 0) return cbctl_failed(rc);
    cb_json_put_object(o, NULL);
    cb_json_put_str(o, "levels", levels);
    cb_json_put_end(o);
    rc = cb_json_out_text(o, &body);
    int code = rc < 0 ? cbctl_failed(rc)
                      : act(a,
                            &(cbctl_question){.method = "PUT",
                                              .path = "/v1/log",
                                              .type = "application/json",
                                              .body = (const char *)body.base,
                                              .len = body.len,
                                              .change = true,
                                              .document = "LEVELS"},
                            "the levels are set");
    cb_json_out_free(o);
    return code;
}

int cbctl_log_levels(cbctl_admin *a) {
    const cbctl_args *g = &a->args;
    if (g->n_words > 1) return cbctl_usage("log: what is \"%s\"? (levels are one word: info,quic=debug)", g->words[1]);
    if (g->reopen && g->n_words) return cbctl_usage("log: LEVELS or --reopen, not both");
    if (g->reopen)
        return act(a, &(cbctl_question){.method = "POST", .path = "/v1/log/reopen", .body = "", .change = true},
                   "the files of the log were opened anew");
    return g->n_words ? set_levels(a, g->words[0]) : cbctl_show(a, "/v1/log");
}

/* origin out|in GROUP N */
int cbctl_origin(cbctl_admin *a) {
    const cbctl_args *g = &a->args;
    const bool out = strcmp(a->command->name, "out") == 0;
    char path[PATH_BYTES], group[PATH_BYTES - 64], said[BODY_BYTES];
    if (g->n_words != 2) return cbctl_usage("origin %s: GROUP and the number of an origin, from 0", a->command->name);
    const int64_t n = cbctl_number(g->words[1], 0, 65535);
    if (n < 0) return cbctl_usage("origin %s: \"%s\" is not a number", a->command->name, g->words[1]);
    if (cbctl_url_encode(group, sizeof group, g->words[0], "") <= 0)
        return cbctl_usage("origin %s: \"%s\" is no name of a group", a->command->name, g->words[0]);
    const char *body = out ? "{\"out\": true}" : "{\"out\": false}";
    snprintf(path, sizeof path, "/v1/pools/%s/origins/%lld", group, (long long)n);
    snprintf(said, sizeof said, "origin %lld of %.200s is %s", (long long)n, group, out ? "out" : "in");
    return act(a,
               &(cbctl_question){.method = "PUT",
                                 .path = path,
                                 .type = "application/json",
                                 .body = body,
                                 .len = strlen(body),
                                 .change = true},
               said);
}
