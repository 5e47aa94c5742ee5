/* What a daemon says of itself, for people: objects as lines, lists as tables. The members are the daemon's; what is
 * new there is shown without a change here. */
#include "admin.h"
#include "text.h"
#include <stdlib.h>
#include <string.h>

enum { COLUMNS_MAX = 24, NAME_BYTES = 96, DEPTH_MAX = 6, PAGE = 1000, PATH_BYTES = 1024, CURSOR_BYTES = 512 };

typedef struct columns {
    char name[COLUMNS_MAX][NAME_BYTES]; /* "tls.version" */
    bool number[COLUMNS_MAX];           /* and nothing else */
    size_t n;
} columns;

/* ---- tables ---- */

static const json_node *member(const json_node *o, const char *path) {
    char name[NAME_BYTES];
    while (o && *path) {
        const size_t n = strcspn(path, ".");
        snprintf(name, sizeof name, "%.*s", (int)n, path);
        const json_node *whole = json_get(o, path); /* a name may have dots itself */
        if (whole) return whole;
        o = json_get(o, name);
        path += path[n] ? n + 1 : n;
    }
    return o;
}

static void add_column(columns *c, const char *name, const json_node *v) {
    size_t i = 0;
    while (i < c->n && strcmp(c->name[i], name) != 0)
        i++;
    if (i == COLUMNS_MAX) return;
    if (i == c->n) {
        snprintf(c->name[c->n], NAME_BYTES, "%s", name);
        c->number[c->n++] = true;
    }
    c->number[i] &= json_is(v, JSON_NUMBER) || json_is(v, JSON_NULL);
}

/* Columns are the members in the order in which they come; objects in objects get a dot. */
static void find_columns(columns *c, const json_node *o, const char *prefix, int depth) {
    for (const json_node *v = o->child; v && depth < DEPTH_MAX; v = v->next) {
        char name[NAME_BYTES];
        if (!v->name) continue;
        const int n = snprintf(name, sizeof name, "%s%s%s", prefix, *prefix ? "." : "", v->name);
        if (n < 0 || (size_t)n >= sizeof name) continue;
        if (json_is(v, JSON_OBJECT) && v->child)
            find_columns(c, v, name, depth + 1);
        else
            add_column(c, name, v);
    }
}

/* What cbctl knows of a list: which members matter, in which order, and that the items of one of them are the rows. All
 * others are shown as they come. */
typedef struct view {
    const char *command;
    const char *rows;    /* NULL: the items themselves */
    const char *columns; /* divided by blanks */
} view;

static const view *view_of(const cbctl_admin *a) {
    static const view views[] = {
        {"pools", "origins",
         "group number url weight state active waiting connections.open connections.failed requests back_in_ms "
         "health.weight_percent "
         "health.since_ms health.reason"},
        {"connections", NULL, "id listener worker remote version tls sni age_ms requests active draining"},
        {"audit", NULL, "seq time outcome actor tenant action object detail"},
        {"lb members", NULL,
         "id state table_weight share first coming leaving load heard_ms acked drained dead health address trouble"},
        {"lb top", NULL, "id state table_weight share first coming leaving load heard_ms trouble"},
        {"lb table", NULL, "id state weight given_weight table_weight share first coming leaving"},
        {"history", NULL, "revision time actor how pointer from reason running"},
    };
    char command[64];
    const bool lb = strcmp(a->command->group, "lb") == 0; /* its commands have a list each */
    snprintf(command, sizeof command, "%s%s%s", a->command->group, lb ? " " : "", lb ? a->command->name : "");
    for (size_t i = 0; i < sizeof views / sizeof *views; i++)
        if (strcmp(views[i].command, command) == 0) return &views[i];
    return NULL;
}

/* Columns of a view, those that some item has. */
static void choose_columns(columns *c, const char *wanted) {
    columns *all = calloc(1, sizeof *all);
    if (!all) return;
    *all = *c;
    c->n = 0;
    for (const char *at = wanted; *at; at += strcspn(at, " "), at += *at == ' ') {
        for (size_t i = 0; i < all->n; i++) {
            if (strlen(all->name[i]) != strcspn(at, " ") || strncmp(all->name[i], at, strcspn(at, " ")) != 0) continue;
            memcpy(c->name[c->n], all->name[i], NAME_BYTES);
            c->number[c->n++] = all->number[i];
        }
    }
    if (!c->n) *c = *all; /* another daemon's */
    free(all);
}

/* A row of a table, and the item that it stands in (or itself). */
typedef struct row {
    const json_node *parent, *item;
} row;

static bool next_row(row *r, const json_node *items, const char *rows) {
    const json_node *next = r->item ? r->item->next : NULL;
    if (!rows) {
        r->item = r->parent = r->item ? next : json_first(items);
        return r->item != NULL;
    }
    while (!next) {
        r->parent = r->parent ? r->parent->next : json_first(items);
        if (!r->parent) return false;
        next = json_first(json_get(r->parent, rows));
    }
    r->item = next;
    return true;
}

static const json_node *cell_of(const row *r, const char *name) {
    if (!*name) return r->item;
    const json_node *v = member(r->item, name);
    return v ? v : member(r->parent, name);
}

static int print_rows(const json_node *items, const char *indent, const char *rows, columns *c) {
    cbctl_table t;
    row r = {NULL, NULL};
    cbctl_table_begin(&t, c->n ? c->n : 1);
    for (size_t k = 0; k < c->n; k++) {
        if (c->number[k]) cbctl_table_right(&t, k);
        cbctl_table_take(&t, cbctl_json_head(c->name[k]));
    }
    while (next_row(&r, items, rows)) {
        for (size_t k = 0; k < c->n; k++)
            cbctl_table_take(&t, cbctl_json_named(c->name[k], cell_of(&r, c->name[k])));
    }
    return cbctl_table_print(&t, stdout, indent);
}

static int print_table(const json_node *items, const char *indent, const view *v) {
    columns *c = calloc(1, sizeof *c);
    row r = {NULL, NULL};
    const char *rows = v ? v->rows : NULL;
    if (!c) return cbctl_failed(CB_ENOMEM);
    if (!rows || !json_is(json_get(json_first(items), rows), JSON_LIST)) rows = NULL;
    while (next_row(&r, items, rows)) {
        if (r.parent != r.item) find_columns(c, r.parent, "", 0);
        if (json_is(r.item, JSON_OBJECT))
            find_columns(c, r.item, "", 0);
        else
            add_column(c, "", r.item);
    }
    if (v) choose_columns(c, v->columns);
    int code = print_rows(items, indent, rows, c);
    free(c);
    return code;
}

/* ---- objects ---- */

static bool is_table(const json_node *v) {
    return json_is(v, JSON_LIST) && v->child && json_is(v->child, JSON_OBJECT);
}

static void add_lines(cbctl_table *t, const json_node *o, const char *prefix, int depth) {
    for (const json_node *v = o->child; v && depth < DEPTH_MAX; v = v->next) {
        char name[NAME_BYTES];
        snprintf(name, sizeof name, "%s%s%s", prefix, *prefix ? "." : "", v->name ? v->name : "");
        if (is_table(v)) continue;
        if (json_is(v, JSON_OBJECT) && v->child) {
            add_lines(t, v, name, depth + 1);
            continue;
        }
        cbctl_table_take(t, cbctl_json_head(name));
        cbctl_table_take(t, cbctl_json_named(name, v));
    }
}

static int print_tables(const json_node *o, int depth) {
    int code = CBCTL_OK;
    for (const json_node *v = o->child; v && depth < DEPTH_MAX && code == CBCTL_OK; v = v->next) {
        if (json_is(v, JSON_OBJECT)) code = print_tables(v, depth + 1);
        if (!is_table(v)) continue;
        putchar('\n');
        cbctl_put(stdout, v->name ? v->name : "");
        putchar('\n');
        code = print_table(v, "  ", NULL);
    }
    return code;
}

static int print_object(const json_node *o) {
    cbctl_table t;
    cbctl_table_begin(&t, 2);
    add_lines(&t, o, "", 0);
    int code = cbctl_table_print(&t, stdout, "");
    return code == CBCTL_OK ? print_tables(o, 0) : code;
}

/* A list by itself, or the page that has one and says where the next begins. */
static const json_node *items_of(const json_node *v) {
    const json_node *items = json_get(v, "items");
    return json_is(v, JSON_LIST) ? v : json_is(items, JSON_LIST) ? items : NULL;
}

int cbctl_print_json(const cbctl_admin *a, const json_node *v, const cbctl_answer *r) {
    if (a->args.json) {
        cbctl_json_print(stdout, r->body, r->len);
        return CBCTL_OK;
    }
    const json_node *items = items_of(v);
    if (items) return print_table(items, "", view_of(a));
    if (json_is(v, JSON_OBJECT)) return print_object(v);
    char *cell = cbctl_json_cell(v);
    if (cell) cbctl_put(stdout, cell);
    putchar('\n');
    free(cell);
    return CBCTL_OK;
}

int cbctl_show(cbctl_admin *a, const char *path) {
    cbctl_answer r;
    json_tree *tree = NULL;
    int code = cbctl_ask_json(a, &(cbctl_question){.path = path}, &tree, &r);
    if (code == CBCTL_OK) code = cbctl_print_json(a, json_root(tree), &r);
    json_free(tree);
    cbctl_answer_free(&r);
    return code;
}

/* ---- pages ---- */

/* Bytes that mean themselves in a URL (RFC 3986, 2.3); `also` lists further ones. */
int cbctl_url_encode(char *out, size_t cap, const char *text, const char *also) {
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    size_t n = 0;
    for (; *text; text++) {
        if (n + 4 > cap) return -1;
        if (strchr(plain, *text) || strchr(also, *text))
            out[n++] = *text;
        else
            n += (size_t)sprintf(out + n, "%%%02X", (unsigned char)*text);
    }
    if (n == cap) return -1;
    out[n] = '\0';
    return (int)n;
}

/* Page after page, until `most` items are there. One list comes of it. */
static int collect(cbctl_admin *a, const char *path, int64_t most, cb_json_out *all) {
    char at[PATH_BYTES], cursor[CURSOR_BYTES] = "";
    int64_t have = 0;
    int code = CBCTL_OK;
    while (code == CBCTL_OK && have < most) {
        const int64_t want = most - have < PAGE ? most - have : PAGE, before = have;
        cbctl_answer r;
        json_tree *page = NULL;
        snprintf(at, sizeof at, "%s%climit=%lld%s%s", path, strchr(path, '?') ? '&' : '?', (long long)want,
                 *cursor ? "&cursor=" : "", cursor);
        code = cbctl_ask_json(a, &(cbctl_question){.path = at}, &page, &r);
        cbctl_answer_free(&r);
        if (code != CBCTL_OK) break;
        const char *next = json_text(json_root(page), "next");
        for (const json_node *i = json_first(items_of(json_root(page))); i && have < most; i = i->next, have++)
            cb_json_put_raw(all, NULL, (cb_slice){(const uint8_t *)i->raw, i->raw_len});
        const bool more = next && cbctl_url_encode(cursor, sizeof cursor, next, "") > 0;
        json_free(page);
        if (!more || have == before) break; /* a page without items is the last, whatever it says */
    }
    return code;
}

static int print_collected(const cbctl_admin *a, const cb_json_out *all) {
    cb_slice s = {NULL, 0};
    int rc = cb_json_out_text(all, &s);
    if (rc < 0) return cbctl_failed(rc);
    if (a->args.json) {
        cbctl_json_print(stdout, (const char *)s.base, s.len);
        return CBCTL_OK;
    }
    json_tree *tree = json_read((const char *)s.base, s.len);
    int code = tree ? print_table(json_root(tree), "", view_of(a))
                    : cbctl_failed(cb_error_set(CB_ELIMIT, "too much for a table"));
    json_free(tree);
    return code;
}

int cbctl_show_pages(cbctl_admin *a, const char *path, int64_t most) {
    cb_json_out *all = NULL;
    if (a->args.limit && (most = cbctl_number(a->args.limit, 1, 1000000)) < 0)
        return cbctl_usage("--limit: \"%s\" is not from 1 to 1000000", a->args.limit);
    int rc = cb_json_out_new(&all, 0);
    if (rc < 0) return cbctl_failed(rc);
    cb_json_put_list(all, NULL);
    int code = collect(a, path, most, all);
    cb_json_put_end(all);
    if (code == CBCTL_OK) code = print_collected(a, all);
    cb_json_out_free(all);
    return code;
}

/* ---- commands ---- */

static int no_words(const cbctl_admin *a) {
    return a->args.n_words ? cbctl_usage("%s: what is \"%s\"?", a->command->group, a->args.words[0]) : CBCTL_OK;
}

int cbctl_status(cbctl_admin *a) {
    int code = no_words(a);
    return code == CBCTL_OK ? cbctl_show(a, "/v1/status") : code;
}

int cbctl_whoami(cbctl_admin *a) {
    int code = no_words(a);
    return code == CBCTL_OK ? cbctl_show(a, "/v1/whoami") : code;
}

/* listeners, routes, certificates, and pools, which take a name. */
int cbctl_list(cbctl_admin *a) {
    char path[PATH_BYTES], name[PATH_BYTES - 64] = "";
    const bool pools = strcmp(a->command->group, "pools") == 0;
    if (a->args.n_words > (pools ? 1 : 0))
        return cbctl_usage("%s: what is \"%s\"?", a->command->group, a->args.words[pools]);
    if (a->args.n_words && cbctl_url_encode(name, sizeof name, a->args.words[0], "") <= 0)
        return cbctl_usage("pools: \"%s\" is no name of a group", a->args.words[0]);
    snprintf(path, sizeof path, "/v1/%s%s%s", a->command->group, *name ? "/" : "", name);
    return cbctl_show(a, path);
}

int cbctl_connections(cbctl_admin *a) {
    int code = no_words(a);
    return code == CBCTL_OK ? cbctl_show_pages(a, "/v1/connections", PAGE) : code;
}

int cbctl_openapi(cbctl_admin *a) {
    cbctl_answer r;
    json_tree *tree = NULL;
    int code = no_words(a);
    if (code != CBCTL_OK) return code;
    code = cbctl_ask_json(a, &(cbctl_question){.path = "/v1/openapi.json"}, &tree, &r);
    if (code == CBCTL_OK) cbctl_json_print(stdout, r.body, r.len);
    json_free(tree);
    cbctl_answer_free(&r);
    return code;
}
