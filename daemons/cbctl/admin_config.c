/* The configuration of a daemon that runs: read, changed, compared, and taken back. */
#include "admin.h"
#include "ca_args.h"
#include "text.h"
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { DOCUMENT_MAX = 1 << 20, POINTER_BYTES = 1024, REASON_BYTES = 300, PATH_BYTES = 4200, HISTORY = 20 };

/* ---- where ---- */

/* "/groups/web" as it is; "groups.web" is the same. "", "/" and "." are the whole. */
static int to_pointer(char out[POINTER_BYTES], const char *path) {
    const bool pointer = *path == '/';
    size_t n = 0;
    if (strcmp(path, "/") == 0 || strcmp(path, ".") == 0) path = "";
    if (strlen(path) + 2 > POINTER_BYTES) return cbctl_usage("the path is longer than %d bytes", POINTER_BYTES - 2);
    if (!pointer && *path) out[n++] = '/';
    for (; *path; path++)
        out[n++] = !pointer && *path == '.' ? '/' : *path;
    out[n] = '\0';
    return CBCTL_OK;
}

/* --dry-run and --why, behind a path. */
static int add_query(char out[PATH_BYTES], const cbctl_admin *a) {
    char why[3 * REASON_BYTES + 1] = "";
    const size_t n = strlen(out);
    if (a->args.why && strlen(a->args.why) > REASON_BYTES)
        return cbctl_usage("--why: longer than %d bytes", REASON_BYTES);
    if (a->args.why && cbctl_url_encode(why, sizeof why, a->args.why, "") < 0) return cbctl_usage("--why: too long");
    snprintf(out + n, PATH_BYTES - n, "%s%s%s%s", a->args.dry_run ? "?dry_run=true" : "",
             !*why             ? ""
             : a->args.dry_run ? "&"
                               : "?",
             *why ? "reason=" : "", why);
    return CBCTL_OK;
}

static int config_path(char out[PATH_BYTES], const char *path, const cbctl_admin *a) {
    char pointer[POINTER_BYTES], encoded[3 * POINTER_BYTES];
    int code = to_pointer(pointer, path);
    if (code != CBCTL_OK) return code;
    if (cbctl_url_encode(encoded, sizeof encoded, pointer, "/") < 0) return cbctl_usage("the path is too long");
    snprintf(out, PATH_BYTES, "/v1/config%s", encoded);
    return add_query(out, a);
}

/* ---- reading ---- */

int cbctl_get(cbctl_admin *a) {
    char path[PATH_BYTES];
    cbctl_answer r;
    json_tree *tree = NULL;
    if (a->args.n_words > 1) return cbctl_usage("get: one PATH");
    int code = config_path(path, a->args.n_words ? a->args.words[0] : "", a);
    if (code != CBCTL_OK) return code;
    code = cbctl_ask_json(a, &(cbctl_question){.path = path}, &tree, &r);
    if (code != CBCTL_OK) return code;
    const json_node *v = json_root(tree);
    if (json_is(v, JSON_TEXT) && !a->args.json) { /* a text alone is wanted without quotes */
        cbctl_put(stdout, v->text);
        putchar('\n');
    } else {
        cbctl_json_print(stdout, r.body, r.len);
    }
    json_free(tree);
    cbctl_answer_free(&r);
    return CBCTL_OK;
}

/* ---- changing ---- */

/* Whole, and NUL-terminated. */
static int read_document(const char *file, char **text, size_t *len) {
    *text = malloc(DOCUMENT_MAX + 2);
    if (!*text) return cbctl_failed(CB_ENOMEM);
    int code = cbctl_ca_read(file, (uint8_t *)*text, DOCUMENT_MAX + 1, len);
    if (code == CBCTL_OK && *len <= DOCUMENT_MAX) {
        (*text)[*len] = '\0';
        return CBCTL_OK;
    }
    if (code == CBCTL_OK) {
        fprintf(stderr, "cbctl: %s: more than 1 MiB\n", file);
        code = CBCTL_FAILED;
    }
    free(*text);
    *text = NULL;
    return code;
}

/* "17" of an entity tag. */
static void revision_of(char *out, size_t cap, const char *etag) {
    const char *from = strncmp(etag, "W/", 2) == 0 ? etag + 2 : etag;
    from += *from == '"';
    snprintf(out, cap, "%.*s", (int)strcspn(from, "\""), from);
}

static bool says_unchanged(const cbctl_answer *r) {
    json_tree *t = json_read(r->body ? r->body : "", r->len);
    const bool same = json_is(json_get(json_root(t), "changed"), JSON_FALSE);
    json_free(t);
    return same;
}

static int change(cbctl_admin *a, cbctl_question *q) {
    cbctl_answer r;
    char revision[64];
    q->change = true;
    int code = cbctl_ask(a, q, &r);
    if (code != CBCTL_OK) return code;
    revision_of(revision, sizeof revision, r.etag);
    const bool same = strstr(r.type, "json") && says_unchanged(&r);
    if (a->args.json && r.len) {
        cbctl_json_print(stdout, r.body, r.len);
    } else if (a->args.dry_run) {
        puts(same ? "it is so already" : "it fits; nothing was changed");
    } else {
        fputs("revision ", stdout);
        cbctl_put(stdout, *revision ? revision : "?");
        puts(same ? ", as before: it is so already" : "");
    }
    cbctl_answer_free(&r);
    return CBCTL_OK;
}

/* What VALUE is: JSON as it is; any other text is a text, so that "set /log/level debug" needs no quotes within quotes.
 * malloc'd. */
static char *value_of(const char *value, bool text) {
    json_tree *t = text ? NULL : json_read(value, strlen(value));
    cb_json_out *o = NULL;
    cb_slice s = {NULL, 0};
    char *out = NULL;
    if (t) {
        json_free(t);
        return strdup(value);
    }
    if (cb_json_out_new(&o, 0) < 0) return NULL;
    cb_json_put_str(o, NULL, value);
    if (cb_json_out_text(o, &s) >= 0) out = strndup((const char *)s.base, s.len);
    cb_json_out_free(o);
    return out;
}

int cbctl_set(cbctl_admin *a) {
    char path[PATH_BYTES], *body = NULL;
    size_t len = 0;
    if (a->args.n_words != 2) return cbctl_usage("set: PATH and VALUE (\"-\": from standard input)");
    const char *value = a->args.words[1];
    int code = config_path(path, a->args.words[0], a);
    if (code != CBCTL_OK) return code;
    if (strcmp(value, "-") == 0) {
        code = read_document("-", &body, &len);
    } else {
        body = value_of(value, a->args.text);
        len = body ? strlen(body) : 0;
        if (!body) code = cbctl_failed(CB_ENOMEM);
    }
    if (code == CBCTL_OK)
        code = change(a, &(cbctl_question){.method = "PUT",
                                           .path = path,
                                           .type = "application/json",
                                           .body = body,
                                           .len = len,
                                           .document = "VALUE"});
    free(body);
    return code;
}

int cbctl_unset(cbctl_admin *a) {
    char path[PATH_BYTES];
    if (a->args.n_words != 1) return cbctl_usage("unset: one PATH");
    int code = config_path(path, a->args.words[0], a);
    if (code != CBCTL_OK) return code;
    return change(a, &(cbctl_question){.method = "DELETE", .path = path, .document = "configuration"});
}

int cbctl_apply(cbctl_admin *a) {
    char path[PATH_BYTES], *body = NULL;
    size_t len = 0;
    const cbctl_args *g = &a->args;
    if (g->n_words != 1) return cbctl_usage("apply: one FILE (\"-\": standard input)");
    if (g->merge && g->json_patch) return cbctl_usage("apply: --merge or --json-patch, not both");
    const char *file = g->words[0];
    int code = config_path(path, "", a);
    if (code == CBCTL_OK) code = read_document(file, &body, &len);
    if (code != CBCTL_OK) return code;
    code = change(a, &(cbctl_question){.method = g->merge || g->json_patch ? "PATCH" : "PUT",
                                       .path = path,
                                       .type = g->merge        ? "application/merge-patch+json"
                                               : g->json_patch ? "application/json-patch+json"
                                                               : "application/json",
                                       .body = body,
                                       .len = len,
                                       .whole = !g->merge && !g->json_patch,
                                       .document = strcmp(file, "-") == 0 ? "stdin" : file});
    free(body);
    return code;
}

/* ---- revisions ---- */

/* The number of a revision; < 0: it is none. */
static int64_t revision_number(const char *text) {
    return cbctl_number(text, 1, INT64_MAX / 16);
}

int cbctl_history(cbctl_admin *a) {
    if (a->args.n_words) return cbctl_usage("history: what is \"%s\"?", a->args.words[0]);
    return cbctl_show_pages(a, "/v1/revisions", HISTORY);
}

int cbctl_rollback(cbctl_admin *a) {
    char path[PATH_BYTES], name[48];
    const int64_t n = a->args.n_words == 1 ? revision_number(a->args.words[0]) : -1;
    if (n < 0) return cbctl_usage("rollback: the number of one revision (see \"cbctl history\")");
    snprintf(path, sizeof path, "/v1/revisions/%lld/rollback", (long long)n);
    snprintf(name, sizeof name, "revision %lld", (long long)n);
    int code = add_query(path, a);
    if (code != CBCTL_OK) return code;
    return change(a, &(cbctl_question){.method = "POST", .path = path, .document = name});
}
