/* The forwarding table of a PoP: how it is, whose a flow is, and what operators do to members. */
#include "admin.h"
#include "term.h"
#include "text.h"
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 512, BODY_BYTES = 64, MOVES = 100, MEMBERS = 4096, EVERY_MS = 1000 };

static bool is_called(const cbctl_admin *a, const char *name) {
    return strcmp(a->command->name, name) == 0;
}

static int too_many(const cbctl_admin *a, size_t most) {
    if (a->args.n_words <= most) return CBCTL_OK;
    return cbctl_usage("lb %s: what is \"%s\"?", a->command->name, a->args.words[most]);
}

/* lb status, members, table, moves */
int cbctl_lb(cbctl_admin *a) {
    int code = too_many(a, 0);
    if (code != CBCTL_OK) return code;
    if (is_called(a, "status")) return cbctl_show(a, "/v1/lb");
    return is_called(a, "moves") ? cbctl_show_pages(a, "/v1/lb/buckets?moving=true", MOVES)
                                 : cbctl_show_pages(a, "/v1/lb/members", MEMBERS);
}

/* lb counters: the datapath alone. */
int cbctl_lb_counters(cbctl_admin *a) {
    cbctl_answer r;
    json_tree *tree = NULL;
    int code = too_many(a, 0);
    if (code != CBCTL_OK) return code;
    code = cbctl_ask_json(a, &(cbctl_question){.path = "/v1/lb"}, &tree, &r);
    const json_node *path = code == CBCTL_OK ? json_get(json_root(tree), "datapath") : NULL;
    if (path && a->args.json)
        cbctl_json_print(stdout, path->raw, path->raw_len);
    else if (path)
        code = cbctl_print_json(a, path, &r);
    json_free(tree);
    cbctl_answer_free(&r);
    return code;
}

/* lb owner BUCKET, lb owner FROM TO [tcp|udp] */
int cbctl_lb_owner(cbctl_admin *a) {
    const cbctl_args *g = &a->args;
    char path[PATH_BYTES], from[160], to[160];
    int code = too_many(a, 3);
    if (code != CBCTL_OK) return code;
    if (!g->n_words) return cbctl_usage("lb owner: FROM and TO (\"ADDRESS:PORT\" of client and VIP), or a bucket");
    if (g->n_words == 1) {
        const int64_t bucket = cbctl_number(g->words[0], 0, UINT32_MAX);
        if (bucket < 0)
            return cbctl_usage("lb owner: \"%s\" is no bucket; of a flow, FROM and TO are needed", g->words[0]);
        snprintf(path, sizeof path, "/v1/lb/buckets/%lld", (long long)bucket);
        return cbctl_show(a, path);
    }
    const char *protocol = g->n_words > 2 ? g->words[2] : "tcp";
    if (strcmp(protocol, "tcp") != 0 && strcmp(protocol, "udp") != 0)
        return cbctl_usage("lb owner: \"%s\" is neither tcp nor udp", protocol);
    if (cbctl_url_encode(from, sizeof from, g->words[0], "") <= 0 ||
        cbctl_url_encode(to, sizeof to, g->words[1], "") <= 0)
        return cbctl_usage("lb owner: \"%s\" \"%s\": addresses with ports are needed", g->words[0], g->words[1]);
    snprintf(path, sizeof path, "/v1/lb/owner?from=%s&to=%s&protocol=%s", from, to, protocol);
    return cbctl_show(a, path);
}

/* ---- changes ---- */

static int change(cbctl_admin *a, const char *body, const char *done) {
    char path[PATH_BYTES];
    cbctl_answer r;
    const int64_t id = cbctl_number(a->args.words[0], 1, UINT32_MAX);
    if (id < 0) return cbctl_usage("lb %s: \"%s\" is no ID of a member", a->command->name, a->args.words[0]);
    snprintf(path, sizeof path, "/v1/lb/members/%lld", (long long)id);
    int code = cbctl_ask(a,
                         &(cbctl_question){.method = "PUT",
                                           .path = path,
                                           .type = "application/json",
                                           .body = body,
                                           .len = strlen(body),
                                           .change = true},
                         &r);
    if (code != CBCTL_OK) return code;
    if (a->args.json)
        cbctl_json_print(stdout, r.body, r.len);
    else
        printf("member %lld %s\n", (long long)id, done);
    cbctl_answer_free(&r);
    return CBCTL_OK;
}

/* lb drain ID, lb undrain ID, lb weight ID N */
int cbctl_lb_change(cbctl_admin *a) {
    const cbctl_args *g = &a->args;
    const bool weight = is_called(a, "weight");
    char body[BODY_BYTES], done[BODY_BYTES];
    int code = too_many(a, weight ? 2 : 1);
    if (code != CBCTL_OK) return code;
    if (g->n_words < (weight ? 2u : 1u))
        return cbctl_usage("lb %s: the ID of a member%s", a->command->name,
                           weight ? ", and a weight (0: as configured)" : "");
    if (!weight) {
        const bool drain = is_called(a, "drain");
        return change(a, drain ? "{\"drained\": \"yes\"}" : "{\"drained\": \"no\"}",
                      drain ? "is drained: its flows end there, and new ones go to others" : "gets its share again");
    }
    const int64_t n = cbctl_number(g->words[1], 0, CB_LB_WEIGHT_MAX);
    if (n < 0) return cbctl_usage("lb weight: \"%s\" is not from 0 to %d", g->words[1], CB_LB_WEIGHT_MAX);
    snprintf(body, sizeof body, "{\"weight\": %lld}", (long long)n);
    if (n)
        snprintf(done, sizeof done, "has weight %lld", (long long)n);
    else
        snprintf(done, sizeof done, "has its configured weight again");
    return change(a, body, done);
}

/* ---- top ---- */

static int draw(cbctl_admin *a) {
    cbctl_answer r;
    json_tree *tree = NULL;
    int code = cbctl_ask_json(a, &(cbctl_question){.path = "/v1/lb"}, &tree, &r);
    if (code != CBCTL_OK) return code;
    const json_node *o = json_root(tree), *buckets = json_get(o, "buckets");
    const char *phase = json_text(o, "phase"), *trouble = json_text(o, "trouble");
    printf("member %.0f %s, epoch %.0f, version %.0f; %.0f buckets: %.0f announced, %.0f moved, %.0f unowned\n",
           json_number(json_get(o, "id")), phase ? phase : "?", json_number(json_get(o, "epoch")),
           json_number(json_get(o, "version")), json_number(json_get(buckets, "all")),
           json_number(json_get(buckets, "announced")), json_number(json_get(buckets, "moved")),
           json_number(json_get(buckets, "unowned")));
    if (trouble) cbctl_put(stdout, trouble);
    if (trouble) putchar('\n');
    putchar('\n');
    json_free(tree);
    cbctl_answer_free(&r);
    return cbctl_show_pages(a, "/v1/lb/members", MEMBERS);
}

int cbctl_lb_top(cbctl_admin *a) {
    const int64_t every = a->args.interval ? cbctl_duration_ms(a->args.interval) : EVERY_MS;
    int code = too_many(a, 0);
    if (code != CBCTL_OK) return code;
    if (every < 100 || every > 3600000)
        return cbctl_usage("--interval: \"%s\" is not from 100ms to 1h", a->args.interval);
    if (a->args.once || !cbctl_term_open()) return draw(a);
    while (code == CBCTL_OK) {
        fputs("\033[H\033[2J", stdout);
        code = draw(a);
        puts("\nq ends");
        fflush(stdout);
        (void)cbctl_term_wait(-1, every);
        const int key = cbctl_term_key();
        if (key == 'q' || key == KEY_ENDED) break;
    }
    cbctl_term_close();
    return code;
}
