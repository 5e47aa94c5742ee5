/* xdp_host - a host's datapath, told what to do line by line: each line is a command, each answer is a line that begins
 * with "ok" or "error". Lines before it begin with another word.
 *
 *   new ID PIN_DIR|- ADDRESS|- ...   up ID  drain ID  dead ID  remove ID  run MS  ack ID VERSION
 *   vip ADDRESS PROTOCOL PORT QUIC   member ID ADDRESS FORM   attach IF MODE   detach IF   record HEX   sync   resolve
 *   idle   report ID BUCKET MS   bucket ADDRESS PORT VIP PORT   counts   stats   fan   prune   swap N   free   unpin
 * DIR flood ADDRESS PORT SECONDS */
#include <arpa/inet.h>
#include <cb.h>
#include <cb/forward.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { WORDS = 12 };

static const uint8_t hash_key[16] = "hash key 16 byte", tag_key[16] = "tag key 16 bytes",
                     log_key[16] = "log key 16 bytes";

static cb_forward *f;
static cb_forward_opts opts;
static char pin_dir[256], address4[64], address6[64];
static cb_lb_table *table;
static cb_lb_writer *writer;
static uint32_t own;

typedef struct command {
    const char *name;
    int words; /* with its name, at least */
    int (*run)(char **w, int n);
} command;

static uint32_t number(const char *text) {
    return (uint32_t)strtoul(text, NULL, 10);
}

static void log_line(int level, const char *module, const char *text, void *user) {
    (void)level, (void)user;
    fprintf(stderr, "%s: %s\n", module, text);
}
static const cb_log logs = {.write = log_line};

static int do_new(char **w, int n) {
    opts = (cb_forward_opts){.size = sizeof opts, .log = &logs, .hash_key = hash_key, .tag_key = tag_key};
    own = opts.id = number(w[1]);
    snprintf(pin_dir, sizeof pin_dir, "%s", w[2]);
    if (strcmp(w[2], "-") != 0) opts.pin_dir = pin_dir;
    for (int i = 3; i < n; i++) {
        const int six = strchr(w[i], ':') != NULL;
        snprintf(six ? address6 : address4, sizeof address4, "%s", w[i]);
        *(six ? &opts.address6 : &opts.address4) = six ? address6 : address4;
    }
    int rc = table ? CB_OK : cb_lb_table_new(&table, CB_OPTS(cb_lb_table_opts, .key = log_key));
    return rc < 0 ? rc : cb_forward_new(&f, &opts);
}

static int print_record(cb_slice record, void *user) {
    (void)user;
    printf("record ");
    for (size_t i = 0; i < record.len; i++)
        printf("%02x", record.base[i]);
    printf("\n");
    return CB_OK;
}

static int do_state(char **w, int n) {
    static const char *const names[] = {"up", "drain", "dead"};
    int state = 0, rc = CB_OK;
    (void)n;
    while (strcmp(w[0], names[state]) != 0)
        state++;
    if (!writer)
        rc = cb_lb_writer_new(&writer, CB_OPTS(cb_lb_writer_opts, .table = table, .epoch = 1, .publish = print_record,
                                               .moves_per_step = 65537, .step_ms = 1));
    if (rc < 0) return rc;
    return cb_lb_writer_member(writer, CB_OPTS(cb_lb_member, .id = number(w[1]), .weight = 100, .state = state));
}

static int do_remove(char **w, int n) {
    (void)n;
    return cb_lb_writer_remove(writer, number(w[1]));
}

static int do_run(char **w, int n) {
    (void)n;
    return cb_lb_writer_run(writer, strtoull(w[1], NULL, 10) * 1000000);
}

static int do_ack(char **w, int n) {
    (void)n;
    return cb_lb_writer_ack(writer, number(w[1]), strtoull(w[2], NULL, 10));
}

static int do_report(char **w, int n) {
    (void)n;
    return cb_lb_writer_idle(writer, number(w[1]), number(w[2]), strtoull(w[3], NULL, 10) * 1000000);
}

static int do_record(char **w, int n) {
    static uint8_t bytes[1 << 20];
    size_t len = 0;
    (void)n;
    for (const char *at = w[1]; at[0] && at[1] && len < sizeof bytes; at += 2) {
        const char pair[3] = {at[0], at[1], 0};
        bytes[len++] = (uint8_t)strtoul(pair, NULL, 16);
    }
    return cb_lb_table_apply(table, (cb_slice){bytes, len});
}

static int do_vip(char **w, int n) {
    (void)n;
    return cb_forward_vip(f, CB_OPTS(cb_forward_vip_opts, .address = w[1], .protocol = atoi(w[2]),
                                     .port = (uint16_t)number(w[3]), .quic = w[4][0] == '1'));
}

static int do_member(char **w, int n) {
    (void)n;
    return cb_forward_member(
        f, CB_OPTS(cb_forward_member_opts, .id = number(w[1]), .address = w[2], .encapsulation = atoi(w[3])));
}

static int do_attach(char **w, int n) {
    (void)n;
    return cb_forward_attach(f, w[1], atoi(w[2]), 0);
}

static int do_detach(char **w, int n) {
    (void)n;
    return cb_forward_detach(f, w[1]);
}

static int do_sync(char **w, int n) {
    (void)w, (void)n;
    return cb_forward_sync(f, table);
}

static int do_resolve(char **w, int n) {
    (void)w, (void)n;
    return cb_forward_resolve(f);
}

static uint32_t idle[CB_LB_BUCKETS];

static int keep_bucket(uint32_t bucket, void *user) {
    size_t *n = user;
    idle[(*n)++] = bucket;
    return CB_OK;
}

static double seconds_of(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double seconds(void) {
    return seconds_of(CLOCK_MONOTONIC);
}

static int do_idle(char **w, int n) {
    (void)w, (void)n;
    size_t found = 0;
    const double from = seconds_of(CLOCK_PROCESS_CPUTIME_ID); /* the kernel's part, too */
    int rc = cb_forward_idle(f, keep_bucket, &found);
    const double took = seconds_of(CLOCK_PROCESS_CPUTIME_ID) - from;
    for (size_t i = 0; i < found; i++)
        printf("bucket %u\n", idle[i]);
    printf("took %.6f\n", took);
    return rc;
}

/* Of a TCP packet from a client: ADDRESS PORT VIP PORT. */
static int do_bucket(char **w, int n) {
    uint8_t tuple[37];
    const size_t len = strchr(w[1], ':') ? 16 : 4;
    (void)n;
    for (size_t end = 0; end < 2; end++) {
        const uint16_t port = htons((uint16_t)number(w[2 + 2 * end]));
        if (inet_pton(len == 16 ? AF_INET6 : AF_INET, w[1 + 2 * end], tuple + end * len) != 1)
            return cb_error_set(CB_EINVAL, "no address");
        memcpy(tuple + 2 * len + 2 * end, &port, 2);
    }
    tuple[2 * len + 4] = 6;
    printf("bucket %u\n", cb_lb_bucket(cb_lb_hash(hash_key, tuple, 2 * len + 5), CB_LB_BUCKETS));
    return CB_OK;
}

static int do_counts(char **w, int n) {
    const char *name;
    uint64_t value;
    (void)w, (void)n;
    for (uint32_t i = 0; cb_forward_count(f, i, &name, NULL, &value) == CB_OK; i++)
        printf("count %s %llu\n", name, (unsigned long long)value);
    return CB_OK;
}

static int do_stats(char **w, int n) {
    cb_forward_stats s = {.size = sizeof s};
    cb_lb_table_stats t = {.size = sizeof t};
    (void)w, (void)n;
    int rc = cb_forward_stats_get(f, &s);
    if (rc == CB_OK) rc = cb_lb_table_stats_get(table, &t);
    printf(
        "stat adopted %u\nstat program %u\nstat unresolved %u\nstat version %llu\nstat announced %u\nstat moved %u\n",
        s.adopted, s.program_id, s.unresolved, (unsigned long long)t.version, t.announced, t.moved);
    printf("stat vips %u\nstat members %u\nstat interfaces %u\n", s.vips, s.members, s.interfaces);
    return rc;
}

/* What waits in the ring of ICMP errors goes to all members. */
static int do_fan(char **w, int n) {
    cb_forward_stats s = {.size = sizeof s};
    (void)w, (void)n;
    int rc = cb_forward_run(f);
    if (rc >= 0 && cb_forward_stats_get(f, &s) == CB_OK)
        printf("fanned %llu %llu\n", (unsigned long long)s.fanned, (unsigned long long)s.fan_failed);
    return rc;
}

static int do_prune(char **w, int n) {
    (void)w, (void)n;
    return cb_forward_prune(f);
}

/* A successor takes over, as often as that. */
static int do_swap(char **w, int n) {
    int rc = CB_OK;
    (void)n;
    const double from = seconds();
    for (uint32_t i = 0; i < number(w[1]) && rc == CB_OK; i++) {
        cb_forward *next = NULL;
        rc = cb_forward_new(&next, &opts);
        if (rc < 0) break;
        cb_forward_free(f);
        f = next;
    }
    printf("took %.6f\n", seconds() - from);
    return rc;
}

static int do_free(char **w, int n) {
    (void)w, (void)n;
    cb_forward_free(f);
    f = NULL;
    return CB_OK;
}

static int do_unpin(char **w, int n) {
    (void)n;
    return cb_forward_unpin(w[1]);
}

/* UDP from as many ports as the kernel gives: each is another flow. Prints how many datagrams left. */
static int do_flood(char **w, int n) {
    enum { SOCKETS = 64, BATCH = 32 };
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)number(w[2]))};
    static char text[] = "some datagram of no great length";
    struct iovec part = {text, sizeof text};
    struct mmsghdr batch[BATCH] = {{.msg_len = 0}};
    int fds[SOCKETS], rc = CB_OK;
    uint64_t sent = 0;
    (void)n;
    if (inet_pton(AF_INET, w[1], &to.sin_addr) != 1) return cb_error_set(CB_EINVAL, "no IPv4 address");
    for (int i = 0; i < SOCKETS; i++) {
        fds[i] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (connect(fds[i], (struct sockaddr *)&to, sizeof to) < 0) rc = cb_error_set(CB_ESYS, "connect");
    }
    for (int i = 0; i < BATCH; i++)
        batch[i].msg_hdr = (struct msghdr){.msg_iov = &part, .msg_iovlen = 1};
    for (const double end = seconds() + atof(w[3]); rc == CB_OK && seconds() < end;)
        for (int i = 0; i < SOCKETS; i++) {
            int done = sendmmsg(fds[i], batch, BATCH, 0);
            if (done > 0) sent += (uint64_t)done;
        }
    for (int i = 0; i < SOCKETS; i++)
        close(fds[i]);
    printf("sent %llu\n", (unsigned long long)sent);
    return rc;
}

static const command commands[] = {
    {"new", 3, do_new},       {"up", 2, do_state},      {"drain", 2, do_state},     {"dead", 2, do_state},
    {"remove", 2, do_remove}, {"run", 2, do_run},       {"ack", 3, do_ack},         {"report", 4, do_report},
    {"record", 2, do_record}, {"vip", 5, do_vip},       {"member", 4, do_member},   {"attach", 3, do_attach},
    {"detach", 2, do_detach}, {"sync", 1, do_sync},     {"resolve", 1, do_resolve}, {"idle", 1, do_idle},
    {"bucket", 5, do_bucket}, {"counts", 1, do_counts}, {"stats", 1, do_stats},     {"fan", 1, do_fan},
    {"prune", 1, do_prune},   {"swap", 2, do_swap},     {"flood", 4, do_flood},     {"free", 1, do_free},
    {"unpin", 2, do_unpin}};

static int obey(char *line) {
    char *words[WORDS], *rest = NULL;
    int n = 0;
    for (char *at = strtok_r(line, " \n", &rest); at && n < WORDS; at = strtok_r(NULL, " \n", &rest))
        words[n++] = at;
    for (size_t i = 0; n && i < sizeof commands / sizeof *commands; i++)
        if (!strcmp(commands[i].name, words[0]) && n >= commands[i].words) return commands[i].run(words, n);
    return cb_error_set(CB_EINVAL, "no such command");
}

int main(void) {
    char *line = NULL;
    size_t cap = 0;
    while (getline(&line, &cap, stdin) > 0) {
        int rc = obey(line);
        if (rc < 0)
            printf("error %s: %s\n", cb_strerror(rc), cb_last_error());
        else
            printf("ok %d\n", rc);
        fflush(stdout);
    }
    cb_forward_free(f);
    cb_lb_writer_free(writer);
    cb_lb_table_free(table);
    free(line);
    return 0;
}
