/* Configurations compared: the one that runs, revisions, and files. */
#include "admin.h"
#include "ca_args.h"
#include "text.h"
#include <stdlib.h>
#include <string.h>

enum { DOCUMENT_MAX = 1 << 20, PATH_BYTES = 64, REVISION_BYTES = 24 };

static int parse(cb_document **out, const char *text, size_t len, const char *name) {
    cb_document_mistake m = {.size = sizeof m};
    int rc = cb_document_parse(out, (cb_slice){(const uint8_t *)text, len}, &m);
    if (rc >= 0) return CBCTL_OK;
    if (rc != CB_EINVAL) return cbctl_failed(rc);
    cbctl_put(stderr, name);
    fprintf(stderr, ":%u:%u: ", m.line, m.column);
    cbctl_put(stderr, m.text);
    putc('\n', stderr);
    return CBCTL_INVALID;
}

static int of_file(cb_document **out, const char *file) {
    char *text = malloc(DOCUMENT_MAX + 1);
    size_t len = 0;
    int code = text ? cbctl_ca_read(file, (uint8_t *)text, DOCUMENT_MAX + 1, &len) : cbctl_failed(CB_ENOMEM);
    if (code == CBCTL_OK && len > DOCUMENT_MAX) {
        fprintf(stderr, "cbctl: %s: more than 1 MiB\n", file);
        code = CBCTL_FAILED;
    }
    if (code == CBCTL_OK) code = parse(out, text, len, file);
    free(text);
    return code;
}

/* What the daemon has at path: the document itself, or in the member `document` of what is said about a revision. */
static int of_daemon(cbctl_admin *a, cb_document **out, const char *path) {
    cbctl_answer r;
    char *part = NULL;
    int code = cbctl_ask(a, &(cbctl_question){.path = path}, &r);
    if (code != CBCTL_OK) return code;
    code = parse(out, r.body ? r.body : "", r.len, a->place);
    cbctl_answer_free(&r);
    if (code != CBCTL_OK || strncmp(path, "/v1/revisions/", 14) != 0) return code;
    int rc = cb_document_text(&part, *out, "/document", CB_DOCUMENT_COMPACT);
    cb_document_free(*out);
    *out = NULL;
    if (rc == CB_ENOENT) {
        fprintf(stderr, "cbctl: %s: the answer has no document\n", a->place);
        return CBCTL_FAILED;
    }
    code = rc < 0 ? cbctl_failed(rc) : parse(out, part, strlen(part), a->place);
    cb_config_text_free(part);
    return code;
}

static bool is_revision(const char *word) {
    return cbctl_number(word, 1, INT64_MAX / 16) > 0;
}

static int open_word(cbctl_admin *a, cb_document **out, const char *word) { /* NULL: what runs */
    char path[PATH_BYTES] = "/v1/config";
    if (word && !is_revision(word)) return of_file(out, word);
    if (word) snprintf(path, sizeof path, "/v1/revisions/%s", word);
    return of_daemon(a, out, path);
}

static int print(const cbctl_admin *a, const cb_document *from, const cb_document *to) {
    const bool colours = cbctl_colours(stdout);
    char *text = NULL;
    int rc = a->args.json ? cb_document_diff_patch(&text, from, to) : cb_document_diff_text(&text, from, to);
    if (rc < 0) return cbctl_failed(rc);
    if (a->args.json) {
        cbctl_json_print(stdout, text, strlen(text));
    } else {
        for (const char *at = text; *at; at += strcspn(at, "\n"), at += *at == '\n') {
            const enum cbctl_tone tone = *at == '+' ? CBCTL_GOOD : CBCTL_BAD;
            char *safe = cbctl_safe(at, strcspn(at, "\n"));
            printf("%s%s%s\n", cbctl_tone_on(colours, tone), safe ? safe : "", cbctl_tone_off(colours, tone));
            free(safe);
        }
    }
    cb_config_text_free(text);
    return CBCTL_OK;
}

/* The number of the revision before the current one. CBCTL_OK with "": there is none. */
static int one_before(cbctl_admin *a, char out[REVISION_BYTES]) {
    cbctl_answer r;
    json_tree *tree = NULL;
    out[0] = '\0';
    int code = cbctl_ask_json(a, &(cbctl_question){.path = "/v1/revisions?limit=2"}, &tree, &r);
    if (code != CBCTL_OK) return code;
    const json_node *items = json_get(json_root(tree), "items"),
                    *first = json_is(items, JSON_LIST) ? items->child : NULL;
    const double number = json_number(json_get(first ? first->next : NULL, "revision"));
    if (number >= 1 && number < 1e15) snprintf(out, REVISION_BYTES, "%.0f", number);
    json_free(tree);
    cbctl_answer_free(&r);
    return code;
}

int cbctl_diff(cbctl_admin *a) {
    char before[REVISION_BYTES];
    cb_document *from = NULL, *to = NULL;
    char *const *w = a->args.words;
    const size_t n = a->args.n_words;
    if (n > 2 || (n == 2 && (!is_revision(w[0]) || !is_revision(w[1]))))
        return cbctl_usage("diff: a FILE, a revision, or two revisions");
    const char *first = n && is_revision(w[0]) ? w[0] : NULL, *second = n == 2 ? w[1] : n && !first ? w[0] : NULL;
    if (!n) { /* what the last change was */
        int code = one_before(a, before);
        if (code != CBCTL_OK || !*before) return code;
        first = before;
    }
    int code = open_word(a, &from, first);
    if (code == CBCTL_OK) code = open_word(a, &to, second);
    if (code == CBCTL_OK) code = print(a, from, to);
    cb_document_free(from);
    cb_document_free(to);
    return code;
}
