/* What cbctl makes of a daemon's answers. The first byte says of which kind. Nothing that a terminal would obey comes
 * out; JSON printed again means the same; events are the same however their bytes are cut. */
#include "../../daemons/cbctl/json.h"
#include "../../daemons/cbctl/prom.h"
#include "../../daemons/cbctl/sse.h"
#include "../../daemons/cbctl/text.h"
#include <cb/base.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must_be_harmless(const char *text, size_t len) {
    for (size_t i = 0, step; i < len; i += step) {
        uint32_t c = 0;
        bool harmless = false;
        step = cbctl_read_char(text + i, len - i, &c, &harmless);
        if (!step || (!harmless && c != '\n')) abort();
    }
}

/* Do they mean the same? Not by recursion: they may be deep. */
static void must_be_equal(const json_node *a, const json_node *b) {
    const json_node *open[2][JSON_DEPTH + 1];
    size_t depth = 0;
    for (;;) {
        if (!a || !b) {
            if (a || b) abort();
            if (!depth) return;
            depth--;
            a = open[0][depth]->next;
            b = open[1][depth]->next;
            if (!depth) return;
            continue;
        }
        if (a->kind != b->kind || json_count(a) != json_count(b)) abort();
        if (a->kind == JSON_NUMBER && strcmp(a->text, b->text) != 0) abort();
        open[0][depth] = a;
        open[1][depth++] = b;
        a = a->child;
        b = b->child;
    }
}

static void try_json(const char *text, size_t len) {
    char *printed = NULL;
    size_t n = 0;
    json_tree *t = json_read(text, len);
    if (!t) return;
    for (int lines = 0; lines < 2; lines++) {
        FILE *f = open_memstream(&printed, &n);
        if (!f) abort();
        if (lines)
            cbctl_json_print(f, text, len);
        else
            cbctl_json_line(f, text, len);
        fclose(f);
        must_be_harmless(printed, n);
        json_tree *again = json_read(printed, n);
        if (!again) abort();
        must_be_equal(json_root(t), json_root(again));
        json_free(again);
        free(printed);
    }
    char *cell = cbctl_json_cell(json_root(t));
    free(cell);
    json_free(t);
}

static void try_text(const char *text, size_t len) {
    cbctl_table t;
    char *safe = cbctl_safe(text, len), *out = NULL;
    size_t n = 0;
    if (!safe) abort();
    if (strlen(safe) != 0 && strchr(safe, '\n')) abort();
    must_be_harmless(safe, strlen(safe));
    FILE *f = open_memstream(&out, &n);
    if (!f) abort();
    cbctl_table_begin(&t, 2);
    for (int i = 0; i < 3; i++)
        cbctl_table_cell(&t, safe);
    if (cbctl_table_print(&t, f, "  ") != 0) abort();
    fclose(f);
    free(out);
    free(safe);
}

static void try_prom(const char *text, size_t len) {
    prom_page p;
    char *copy = malloc(len + 1);
    char number[16];
    if (!copy) abort();
    memcpy(copy, text, len);
    copy[len] = '\0';
    if (prom_read(&p, copy, strlen(copy)) == 0) {
        prom_histogram *h = malloc(sizeof *h);
        if (!h) abort();
        size_t samples = 0;
        for (size_t i = 0; i < p.n_families; i++) {
            samples += p.families[i].n;
            (void)prom_sum(&p, p.families[i].name, (const char *const[]){"a", "b", NULL});
            if (!prom_histogram_read(h, &p, p.families[i].name, NULL)) continue;
            prom_short(number, prom_quantile(h, 0.99));
            prom_seconds(number, prom_quantile(h, 0.5));
            prom_bytes(number, h->sum);
            prom_histogram_since(h, h);
        }
        if (samples != p.n_samples) abort();
        free(h);
    }
    prom_free(&p);
}

struct seen {
    uint64_t sum;
    size_t n;
};

static int on_event(const char *event, const char *data, size_t len, void *user) {
    struct seen *s = user;
    if (strlen(event) >= 64) abort();
    for (size_t i = 0; event[i]; i++)
        s->sum = s->sum * 31 + (unsigned char)event[i];
    for (size_t i = 0; i < len; i++)
        s->sum = s->sum * 31 + (unsigned char)data[i];
    s->n++;
    return 0;
}

static void try_sse(const char *text, size_t len) {
    struct seen seen[2] = {{0, 0}, {0, 0}};
    for (int cut = 0; cut < 2; cut++) {
        cbctl_sse s = {.on_event = on_event, .user = &seen[cut]};
        for (size_t i = 0, step; i < len; i += step) {
            step = cut ? 1 + (len + i) % 3 : len;
            if (step > len - i) step = len - i;
            if (cbctl_sse_feed(&s, text + i, step) < 0) break;
        }
        cbctl_sse_end(&s);
    }
    if (seen[0].sum != seen[1].sum || seen[0].n != seen[1].n) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static void (*const all[])(const char *, size_t) = {try_json, try_text, try_prom, try_sse};
    if (size < 1 || size > 65536) return 0;
    char *text = malloc(size);
    if (!text) return 0;
    memcpy(text, data + 1, size - 1);
    all[data[0] % 4](text, size - 1);
    free(text);
    return 0;
}
