/* What a forwarding table and a pool cost, in processor time:
 *   lb_speed repair BUCKETS MEMBERS: kills one member after the other and brings each back (medians):
 *     "repair_us apply_us record_bytes orphans moved maglev_us maglev_excess seed_ms"
 *   lb_speed lookup BUCKETS MEMBERS COUNT: "table_ns rendezvous_ns hash_ns"
 *   lb_speed pick POLICY BACKENDS COUNT: "choice_ns", with the end of a call
 *   lb_speed cid CODEC SERVER_ID_BYTES NONCE_BYTES COUNT: "write_ns read_ns" of a connection ID */
#include <cb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { KILLS = 31 };

static double cpu(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void must(int good, const char *what) {
    if (good) return;
    fprintf(stderr, "lb_speed: %s: %s\n", what, cb_last_error());
    exit(1);
}

typedef struct host {
    cb_lb_table *table;
    double apply, all; /* the latest record; all since somebody cleared it */
    size_t bytes;
} host;

/* What every other host does with a record. */
static int publish(cb_slice record, void *user) {
    host *h = user;
    const double start = cpu();
    must(cb_lb_table_apply(h->table, record) == CB_OK, "apply");
    h->apply = cpu() - start;
    h->all += h->apply;
    h->bytes = record.len;
    return CB_OK;
}

typedef struct plant {
    cb_lb_table *table;
    cb_lb_writer *writer;
    host host;
    uint32_t buckets, members;
    double seed;
} plant;

static void want(plant *p, uint32_t id, int state) {
    must(cb_lb_writer_member(p->writer, CB_OPTS(cb_lb_member, .id = id, .weight = 100, .state = state)) == CB_OK,
         "member");
}

static void run(plant *p) {
    must(cb_lb_writer_run(p->writer, 1) == CB_OK, "run");
}

static void make(plant *p, uint32_t buckets, uint32_t members) {
    *p = (plant){.buckets = buckets, .members = members};
    must(cb_lb_table_new(&p->table, NULL) == CB_OK && cb_lb_table_new(&p->host.table, NULL) == CB_OK, "table");
    must(cb_lb_writer_new(&p->writer, CB_OPTS(cb_lb_writer_opts, .table = p->table, .publish = publish,
                                              .user = &p->host, .epoch = 1, .buckets = buckets, .local = 1)) == CB_OK,
         "writer");
    for (uint32_t id = 1; id <= members; id++)
        want(p, id, CB_LB_UP);
    const double start = cpu();
    run(p);
    p->seed = (cpu() - start) / 2; /* here and at the host */
}

static void drop(plant *p) {
    cb_lb_writer_free(p->writer);
    cb_lb_table_free(p->table);
    cb_lb_table_free(p->host.table);
}

static uint32_t owner(const plant *p, uint32_t bucket) {
    cb_lb_owner o;
    must(cb_lb_table_bucket(p->table, bucket, &o) == CB_OK, "bucket");
    return o.first;
}

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *x, size_t n) {
    qsort(x, n, sizeof *x, by_size);
    return x[n / 2];
}

/* The same death for a table that is built anew: microseconds, and how many others' buckets move, in parts of theirs.
 */
static double maglev(uint32_t buckets, uint32_t members, double *excess) {
    cb_lb_member *m = calloc(members, sizeof *m);
    uint32_t *a = malloc(buckets * sizeof *a), *b = malloc(buckets * sizeof *b), moved = 0, theirs = 0;
    must(m && a && b, "memory");
    for (uint32_t i = 0; i < members; i++)
        m[i] = (cb_lb_member){.size = sizeof *m, .id = i + 1, .weight = 100};
    must(cb_lb_maglev(a, buckets, m, members, 0) == CB_OK, "maglev");
    m[0].state = CB_LB_DEAD;
    const double start = cpu();
    must(cb_lb_maglev(b, buckets, m, members, 0) == CB_OK, "maglev");
    const double took = cpu() - start;
    for (uint32_t i = 0; i < buckets; i++) {
        theirs += a[i] != 0;
        moved += a[i] != 0 && a[i] != b[i];
    }
    *excess = (double)moved / theirs;
    free(m);
    free(a);
    free(b);
    return took;
}

static void repair(uint32_t buckets, uint32_t members) {
    plant p;
    double took[KILLS], applied[KILLS], excess;
    size_t bytes = 0;
    uint32_t *before = malloc(buckets * sizeof *before), orphans = 0, moved = 0;
    must(before != NULL, "memory");
    make(&p, buckets, members);
    for (uint32_t k = 0; k < KILLS; k++) {
        const uint32_t id = 1 + k * 7919 % members;
        for (uint32_t b = 0; b < buckets; b++)
            before[b] = owner(&p, b);
        want(&p, id, CB_LB_DEAD);
        p.host.all = 0;
        const double start = cpu();
        run(&p);
        applied[k] = p.host.apply;
        took[k] = cpu() - start - p.host.all; /* without the host's part */
        bytes = p.host.bytes > bytes ? p.host.bytes : bytes;
        for (uint32_t b = 0; b < buckets; b++) {
            orphans += before[b] == id;
            moved += before[b] != owner(&p, b);
        }
        want(&p, id, CB_LB_UP);
        run(&p);
    }
    const double anew = maglev(buckets, members, &excess);
    printf("%.1f %.1f %zu %u %u %.1f %.6f %.2f\n", median(took, KILLS) * 1e6, median(applied, KILLS) * 1e6, bytes,
           orphans, moved, anew * 1e6, excess, p.seed * 1e3);
    free(before);
    drop(&p);
}

static void lookup(uint32_t buckets, uint32_t members, long count) {
    static const uint8_t key[CB_LB_KEY_BYTES] = "a key for hashes";
    plant p;
    uint64_t x = 1, sum = 0;
    cb_lb_member *m = calloc(members, sizeof *m);
    must(m != NULL, "memory");
    for (uint32_t i = 0; i < members; i++)
        m[i] = (cb_lb_member){.size = sizeof *m, .id = i + 1, .weight = 100};
    make(&p, buckets, members);
    double start = cpu();
    for (long i = 0; i < count; i++) {
        cb_lb_owner o;
        x = x * 6364136223846793005u + 1442695040888963407u;
        (void)cb_lb_table_lookup(p.table, x, &o);
        sum += o.first;
    }
    const double table = cpu() - start;
    const long few = count / members + 1;
    start = cpu();
    for (long i = 0; i < few; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        sum += (uint64_t)cb_lb_rendezvous(m, members, x);
    }
    const double rendezvous = cpu() - start;
    uint8_t tuple[37] = {0}; /* two IPv6 addresses, two ports, protocol */
    start = cpu();
    for (long i = 0; i < count; i++) {
        memcpy(tuple, &sum, sizeof sum);
        sum += cb_lb_hash(key, tuple, sizeof tuple);
    }
    const double hash = cpu() - start;
    printf("%.2f %.1f %.2f %llu\n", table / (double)count * 1e9, rendezvous / (double)few * 1e9,
           hash / (double)count * 1e9, (unsigned long long)(sum & 1));
    free(m);
    drop(&p);
}

/* A call that ends after twenty others. */
static void picks(int policy, uint32_t backends, long count) {
    enum { RUN = 20 };
    cb_lb_pool *p = NULL;
    uint32_t at[RUN];
    must(cb_lb_pool_new(&p, CB_OPTS(cb_lb_pool_opts, .policy = policy, .seed = 1)) == CB_OK, "pool");
    for (uint32_t i = 0; i < backends; i++)
        must(cb_lb_pool_add(p, CB_OPTS(cb_lb_backend, .id = i + 1, .weight = 100)) >= 0, "backend");
    double start = 0;
    for (long i = -RUN; i < count; i++) {
        const cb_time now = (cb_time)(i + RUN + 1) * 10000;
        if (!i) start = cpu();
        if (i >= 0) (void)cb_lb_pool_done(p, at[i % RUN], CB_LB_WORKED, 1000000, now);
        const int64_t got =
            cb_lb_pool_pick(p, CB_OPTS(cb_lb_call, .now = now, .hash = (uint64_t)(i + RUN + 1) * 0x9e3779b97f4a7c15u));
        must(got >= 0, "pick");
        at[(i + RUN) % RUN] = (uint32_t)got;
    }
    printf("%.1f\n", (cpu() - start) / (double)count * 1e9);
    cb_lb_pool_free(p);
}

static void cids(int codec, uint32_t id_bytes, uint32_t nonce_bytes, long count) {
    static const uint8_t key[16] = "a key for blocks", mask_key[16] = "a key for masks", id[CB_QUIC_LB_SERVER_ID_MAX];
    uint8_t cid[CB_QUIC_LB_CID_MAX], nonce[CB_QUIC_LB_CID_MAX] = {0};
    cb_quic_lb *lb = NULL;
    cb_quic_lb_info info;
    long ours = 0;
    must(cb_quic_lb_new(&lb, CB_OPTS(cb_quic_lb_opts, .server_id = id, .server_id_bytes = id_bytes,
                                     .nonce_bytes = nonce_bytes, .mask_key = mask_key, .codec = codec,
                                     .key = codec == CB_QUIC_LB_PLAIN ? NULL : key)) == CB_OK,
         "codec");
    double start = cpu();
    for (long i = 0; i < count; i++) {
        memcpy(nonce, &i, sizeof i);
        must(cb_quic_lb_encode(lb, cid, sizeof cid, nonce, 1, 2) > 0, "encode");
    }
    const double wrote = cpu() - start;
    start = cpu();
    for (long i = 0; i < count; i++) {
        ours += cb_quic_lb_decode(lb, (cb_slice){cid, cb_quic_lb_cid_bytes(lb)}, &info) == CB_QUIC_LB_OURS;
        cid[cb_quic_lb_cid_bytes(lb) - 1] ^= (uint8_t)i; /* of the host: the block stays ours */
    }
    const double read = cpu() - start;
    must(ours == count, "decode");
    printf("%.1f %.1f\n", wrote / (double)count * 1e9, read / (double)count * 1e9);
    cb_quic_lb_free(lb);
}

int main(int argc, char **argv) {
    if (argc == 6 && strcmp(argv[1], "cid") == 0 && atol(argv[5]) > 0) {
        cids(atoi(argv[2]), (uint32_t)atoi(argv[3]), (uint32_t)atoi(argv[4]), atol(argv[5]));
        return 0;
    }
    if (argc == 5 && strcmp(argv[1], "pick") == 0 && cb_lb_policy_name(atoi(argv[2])) && atoi(argv[3]) > 0) {
        picks(atoi(argv[2]), (uint32_t)atoi(argv[3]), atol(argv[4]));
        return 0;
    }
    const uint32_t buckets = argc > 3 ? (uint32_t)atol(argv[2]) : 0, members = argc > 3 ? (uint32_t)atol(argv[3]) : 0;
    if (buckets < 2 || members < 2 || members > CB_LB_MEMBERS_MAX) {
        fprintf(stderr,
                "usage: lb_speed repair BUCKETS MEMBERS | lookup BUCKETS MEMBERS COUNT | pick POLICY BACKENDS COUNT |"
                " cid CODEC SERVER_ID_BYTES NONCE_BYTES COUNT\n");
        return 2;
    }
    if (strcmp(argv[1], "lookup") == 0)
        lookup(buckets, members, argc > 4 ? atol(argv[4]) : 1000000);
    else
        repair(buckets, members);
    return 0;
}
