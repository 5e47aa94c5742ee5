/* What a node keeps on the disk:
 *
 *   "cbln"  format 4  id 4  epoch 4  buckets 4  members 4  |  members times: id 4, weight 4, drained 4  |  a saved
 * table (cb_lb_table_save()), or nothing  |  SipHash of all before, 8
 *
 * Little-endian. Members are those of whom an operator wants something else than the configuration. */
#include "base/error.h"
#include "base/siphash.h"
#include "lb/node_int.h"
#include <string.h>

enum { HEAD = 24, WISH = 12, SUM = 8, FORMAT = 1 };

static const uint8_t magic[4] = {'c', 'b', 'l', 'n'};

static bool is_wished(const cb_lb_host *h) {
    return !h->removed && (h->given || h->drained);
}

static size_t wishes_of(const cb_lb_core *c) {
    size_t n = 0;
    for (size_t i = 0; i < c->n_hosts; i++)
        n += is_wished(&c->hosts[i]);
    return n;
}

static void wishes_write(const cb_lb_core *c, uint8_t *p) {
    for (size_t i = 0; i < c->n_hosts; i++) {
        const cb_lb_host *h = &c->hosts[i];
        if (!is_wished(h)) continue;
        cb_lb_put(p, h->id, 4);
        cb_lb_put(p + 4, h->given, 4);
        cb_lb_put(p + 8, h->drained, 4);
        p += WISH;
    }
}

static int write_all(cb_lb_core *c, uint8_t **out, size_t *len) {
    uint8_t *table = NULL;
    size_t table_len = 0;
    int rc = c->t->buckets ? cb_lb_table_save(c->t, &table, &table_len) : CB_OK;
    if (rc < 0) return rc;
    const size_t n = wishes_of(c), before = HEAD + n * WISH;
    *len = before + table_len + SUM;
    uint8_t *p = *out = cb_mem_new(&cb_alloc_libc, *len);
    if (p) {
        memcpy(p, magic, sizeof magic);
        cb_lb_put(p + 4, FORMAT, 4);
        cb_lb_put(p + 8, c->o.id, 4);
        cb_lb_put(p + 12, c->epoch, 4);
        cb_lb_put(p + 16, c->o.buckets, 4);
        cb_lb_put(p + 20, n, 4);
        wishes_write(c, p + HEAD);
        if (table_len) memcpy(p + before, table, table_len);
        cb_lb_put(p + *len - SUM, cb_siphash(c->key, p, *len - SUM), SUM);
    }
    cb_lb_table_saved_free(table);
    return p ? CB_OK : cb_fail(CB_ENOMEM, "no memory for a state file of %zu bytes", *len);
}

int cb_lb_core_save(cb_lb_core *c, uint8_t **out, size_t *len, int force, cb_time now) {
    if (!c->dirty || c->saving || (!force && now < c->save_at)) return 0;
    int rc = write_all(c, out, len);
    if (rc < 0) return rc;
    c->dirty = false;
    c->saving = true;
    c->epoch_saving = c->epoch;
    c->save_at = now + (cb_lb_core_leads(c) ? 100 : 1000) * CB_LB_MS;
    return 1;
}

void cb_lb_core_saved(cb_lb_core *c, int rc, cb_time now) {
    static const char said[] = "the state file cannot be written: ";
    c->saving = false;
    if (rc == CB_OK) {
        c->epoch_saved = c->epoch_saving;
        if (!strncmp(c->trouble, said, sizeof said - 1)) cb_lb_core_trouble(c, c->trouble, NULL);
    } else {
        cb_lb_core_trouble(c, c->trouble, "%s%s", said, cb_last_error());
        c->dirty = true;
        c->save_at = now + 5000 * CB_LB_MS;
    }
    cb_lb_core_run(c, now);
}

int cb_lb_saved_read(cb_lb_core *c, cb_slice in) {
    const uint8_t *p = in.base;
    if (in.len < HEAD + SUM || memcmp(p, magic, sizeof magic) != 0 || cb_lb_get(p + 4, 4) != FORMAT)
        return cb_fail(CB_EPROTO, "it is no state of a forwarding table of libcb %s", cb_version_text());
    if (cb_siphash(c->key, p, in.len - SUM) != cb_lb_get(p + in.len - SUM, SUM))
        return cb_fail(CB_EPROTO, "it is damaged, or of another key");
    const uint32_t id = (uint32_t)cb_lb_get(p + 8, 4), buckets = (uint32_t)cb_lb_get(p + 16, 4);
    const size_t n = cb_lb_get(p + 20, 4);
    if (id != c->o.id) return cb_fail(CB_EPROTO, "it is that of member %u, not of %u", (unsigned)id, (unsigned)c->o.id);
    if (buckets != c->o.buckets)
        return cb_fail(CB_EPROTO, "it has %u buckets, not %u", (unsigned)buckets, (unsigned)c->o.buckets);
    if (n > CB_LB_MEMBERS_MAX || in.len - HEAD - SUM < n * WISH) return cb_fail(CB_EPROTO, "it is cut");
    const cb_slice table = {p + HEAD + n * WISH, in.len - HEAD - SUM - n * WISH};
    int rc = table.len ? cb_lb_table_load(c->t, table) : CB_OK;
    if (rc < 0) return rc;
    c->epoch = c->epoch_saved = (uint32_t)cb_lb_get(p + 12, 4);
    for (size_t i = 0; i < n; i++) {
        const uint8_t *w = p + HEAD + i * WISH;
        cb_lb_host *h = cb_lb_host_find(c, (uint32_t)cb_lb_get(w, 4));
        const uint32_t given = (uint32_t)cb_lb_get(w + 4, 4);
        if (!h || given > CB_LB_WEIGHT_MAX) continue;
        h->given = given;
        h->drained = cb_lb_get(w + 8, 4) == 1;
    }
    return CB_OK;
}
