/* forwarder - one host's part in a forwarding plane, told by lines on standard input what to do: for stories that need
 * each step by itself, as when hosts are a version of the table apart. (cb-edge does all of this by itself:
 * docs/guide/edge.md.)
 *
 *   forwarder host ID HASH-KEY TAG-KEY INTERFACE ADDRESS4 ADDRESS6 PIN-DIR HOP-RATE     a host: cb_forward with a table
 * (HOP-RATE 0: the default) member ID ADDRESS gue|ipip|mac    vip ADDRESS (TCP and UDP port 443, QUIC)    server ID HEX
 * (server ID of its connection IDs) record HEX     applies a record of the log, and says "applied ID VERSION" idle says
 * "idle ID BUCKET" for each bucket that it is done with, then "looked ID" counts         says "counts ID NAME=VALUE
 * ..." forwarder writer MOVES-PER-STEP ACK-MS                 the one who decides member ID WEIGHT up|draining|dead ack
 * ID VERSION   idle ID BUCKET says "record HEX", and "state WAITING LATE" when nothing is left to move or that has
 * changed
 *
 * The first form of connection IDs: rotation 0, plain, server IDs of four bytes. It ends with its input. */
#include <cb.h>
#include <cb/forward.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 1 << 22, SERVER_ID = 4 };

struct host {
    cb_forward *forward;
    cb_lb_table *table;
    unsigned id;
    int synced; /* the datapath follows the table */
};

struct writer {
    cb_lb_table *table;
    cb_lb_writer *writer;
    unsigned waiting;
    uint64_t late;
};

static const char *const encapsulations[] = {"gue", "ipip", "mac"}, *const states[] = {"up", "draining", "dead"};

static cb_time now(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (cb_time)ts.tv_sec * 1000000000 + (cb_time)ts.tv_nsec;
}

static int number_of(const char *word, const char *const *words, int n) {
    for (int i = 0; i < n; i++)
        if (!strcmp(word, words[i])) return i;
    return -1;
}

static size_t unhex(const char *hex, uint8_t *out, size_t cap) {
    size_t n = 0;
    for (unsigned byte; n < cap && sscanf(hex + 2 * n, "%2x", &byte) == 1; n++)
        out[n] = (uint8_t)byte;
    return n;
}

static void failed(const char *line, int rc) {
    printf("failed %.60s: %s: %s\n", line, cb_strerror(rc), cb_last_error());
}

/* ---- a host ---- */

static int say_idle(uint32_t bucket, void *user) {
    printf("idle %u %u\n", ((struct host *)user)->id, bucket);
    return CB_OK;
}

static int member(struct host *h, unsigned id, const char *address, const char *how) {
    const cb_forward_member_opts o = {
        .size = sizeof o, .id = id, .address = address, .encapsulation = number_of(how, encapsulations, 3)};
    const int rc = cb_forward_member(h->forward, &o);
    return rc < 0 ? rc : cb_forward_resolve(h->forward);
}

static int vip(struct host *h, const char *address) {
    const int protocols[] = {CB_FORWARD_TCP, CB_FORWARD_UDP};
    int rc = CB_OK;
    for (int i = 0; i < 2 && rc >= 0; i++)
        rc = cb_forward_vip(h->forward, CB_OPTS(cb_forward_vip_opts, .address = address, .protocol = protocols[i],
                                                .port = 443, .quic = protocols[i] == CB_FORWARD_UDP));
    return rc;
}

static int server(struct host *h, unsigned id, const char *hex) {
    uint8_t bytes[SERVER_ID];
    if (unhex(hex, bytes, sizeof bytes) != sizeof bytes) return CB_EINVAL;
    return cb_forward_server(h->forward, 0, (cb_slice){bytes, sizeof bytes}, id);
}

static int record(struct host *h, const char *hex) {
    static uint8_t bytes[LINE / 2];
    cb_lb_table_stats s = {.size = sizeof s};
    int rc = cb_lb_table_apply(h->table, (cb_slice){bytes, unhex(hex, bytes, sizeof bytes)});
    if (rc == CB_EEXIST) rc = CB_OK;
    if (rc >= 0 && h->synced) rc = cb_forward_sync(h->forward, h->table);
    if (rc == CB_ENOENT) rc = CB_OK; /* no member has a bucket yet */
    if (rc >= 0 && h->synced) rc = cb_lb_table_stats_get(h->table, &s);
    if (rc >= 0 && h->synced) printf("applied %u %" PRIu64 "\n", h->id, s.version);
    return rc;
}

static int begin(struct host *h) {
    cb_lb_table_stats s = {.size = sizeof s};
    int rc = cb_lb_table_stats_get(h->table, &s);
    h->synced = 1;
    if (rc >= 0 && s.version) rc = cb_forward_sync(h->forward, h->table);
    if (rc == CB_ENOENT) rc = CB_OK;
    if (rc >= 0 && s.version) printf("applied %u %" PRIu64 "\n", h->id, s.version);
    return rc;
}

static void counts(struct host *h) {
    cb_forward_stats s = {.size = sizeof s};
    if (cb_forward_stats_get(h->forward, &s) < 0) return;
    printf("counts %u unresolved=%u", h->id, s.unresolved);
    const char *name;
    uint64_t value;
    for (uint32_t i = 0; cb_forward_count(h->forward, i, &name, NULL, &value) == CB_OK; i++)
        printf(" %s=%" PRIu64, name, value);
    printf("\n");
}

static void host_line(void *user, const char *line) {
    struct host *h = user;
    static char word[LINE];
    char how[16];
    unsigned id;
    int rc = CB_EINVAL;
    if (sscanf(line, "member %u %63s %15s", &id, word, how) == 3) {
        rc = member(h, id, word, how);
    } else if (sscanf(line, "vip %63s", word) == 1) {
        rc = vip(h, word);
    } else if (sscanf(line, "server %u %63s", &id, word) == 2) {
        rc = server(h, id, word);
    } else if (!strncmp(line, "record ", 7)) {
        rc = record(h, line + 7);
    } else if (!strcmp(line, "begin")) {
        rc = begin(h);
    } else if (!strcmp(line, "idle")) {
        rc = cb_forward_idle(h->forward, say_idle, h);
        printf("looked %u\n", h->id);
    } else if (!strcmp(line, "counts")) {
        counts(h);
        rc = CB_OK;
    }
    if (rc < 0) failed(line, rc);
}

static void host_turn(void *user) {
    struct host *h = user;
    static cb_time due;
    cb_forward_run(h->forward);
    if (now() < due) return;
    due = now() + 1000000000;
    const int rc = cb_forward_resolve(h->forward);
    if (rc < 0) failed("resolve", rc);
}

static int host_new(struct host *h, char **args) {
    uint8_t hash[16], tag[16];
    if (unhex(args[1], hash, 16) != 16 || unhex(args[2], tag, 16) != 16) return CB_EINVAL;
    h->id = (unsigned)strtoul(args[0], NULL, 10);
    int rc = cb_lb_table_new(&h->table, NULL);
    if (rc == CB_OK)
        rc = cb_forward_new(&h->forward, CB_OPTS(cb_forward_opts, .id = h->id, .hash_key = hash, .tag_key = tag,
                                                 .address4 = args[4], .address6 = args[5], .pin_dir = args[6],
                                                 .hop_rate = (uint32_t)strtoul(args[7], NULL, 10)));
    if (rc == CB_OK) rc = cb_forward_cid(h->forward, CB_OPTS(cb_quic_lb_opts, .server_id_bytes = SERVER_ID));
    if (rc >= 0) rc = cb_forward_attach(h->forward, args[3], CB_FORWARD_NATIVE, CB_FORWARD_BOTH);
    return rc;
}

/* ---- the writer ---- */

static int publish(cb_slice bytes, void *user) {
    (void)user;
    printf("record ");
    for (size_t i = 0; i < bytes.len; i++)
        printf("%02x", bytes.base[i]);
    printf("\n");
    return CB_OK;
}

static void writer_line(void *user, const char *line) {
    struct writer *w = user;
    char how[16];
    unsigned id, weight, bucket;
    unsigned long long version;
    int rc = CB_EINVAL;
    if (sscanf(line, "member %u %u %15s", &id, &weight, how) == 3)
        rc = cb_lb_writer_member(w->writer,
                                 CB_OPTS(cb_lb_member, .id = id, .weight = weight, .state = number_of(how, states, 3)));
    else if (sscanf(line, "ack %u %llu", &id, &version) == 2)
        rc = cb_lb_writer_ack(w->writer, id, version);
    else if (sscanf(line, "idle %u %u", &id, &bucket) == 2)
        rc = cb_lb_writer_idle(w->writer, id, bucket, now());
    if (rc < 0 && rc != CB_ENOENT) failed(line, rc);
}

static void writer_turn(void *user) {
    struct writer *w = user;
    cb_lb_writer_stats s = {.size = sizeof s};
    cb_lb_table_stats t = {.size = sizeof t};
    const int rc = cb_lb_writer_run(w->writer, now());
    if (rc < 0) failed("run", rc);
    if (cb_lb_writer_stats_get(w->writer, &s) < 0 || cb_lb_table_stats_get(w->table, &t) < 0) return;
    const unsigned waiting = s.waiting + t.announced;
    if (waiting == w->waiting && s.late == w->late) return;
    w->waiting = waiting;
    w->late = s.late;
    printf("state %u %" PRIu64 "\n", waiting, s.late);
}

static int writer_new(struct writer *w, char **args) {
    w->waiting = UINT32_MAX;
    int rc = cb_lb_table_new(&w->table, NULL);
    if (rc == CB_OK)
        rc = cb_lb_writer_new(&w->writer, CB_OPTS(cb_lb_writer_opts, .table = w->table, .publish = publish, .epoch = 1,
                                                  .moves_per_step = (uint32_t)strtoul(args[0], NULL, 10),
                                                  .ack_ms = (uint32_t)strtoul(args[1], NULL, 10), .step_ms = 100));
    return rc;
}

/* ---- both ---- */

static int run(void (*line)(void *, const char *), void (*turn)(void *), void *user) {
    static char text[LINE];
    size_t typed = 0;
    for (;;) {
        struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
        if (poll(&p, 1, 20) > 0) {
            const ssize_t n = read(STDIN_FILENO, text + typed, sizeof text - 1 - typed);
            if (n <= 0) return 0;
            typed += (size_t)n;
            text[typed] = 0;
            char *begin = text;
            for (char *end; (end = strchr(begin, '\n')); begin = end + 1) {
                *end = 0;
                line(user, begin);
            }
            typed -= (size_t)(begin - text);
            memmove(text, begin, typed);
            if (typed == sizeof text - 1) return 1;
        }
        turn(user);
        fflush(stdout);
    }
}

int main(int argc, char **argv) {
    static struct host h;
    static struct writer w;
    const int host = argc == 10 && !strcmp(argv[1], "host"), writer = argc == 4 && !strcmp(argv[1], "writer");
    if (!host && !writer) {
        fprintf(stderr, "usage: see the beginning of forwarder.c\n");
        return 2;
    }
    const int rc = host ? host_new(&h, argv + 2) : writer_new(&w, argv + 2);
    if (rc < 0) {
        fprintf(stderr, "forwarder: %s: %s\n", cb_strerror(rc), cb_last_error());
        return 1;
    }
    puts("forwarder ready");
    fflush(stdout);
    const int end = host ? run(host_line, host_turn, &h) : run(writer_line, writer_turn, &w);
    cb_forward_free(h.forward);
    cb_lb_table_free(h.table);
    cb_lb_writer_free(w.writer);
    cb_lb_table_free(w.table);
    return end;
}
