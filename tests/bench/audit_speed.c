/* audit_speed - durable audit records a second, and verified ones.
 *   audit_speed FOLDER COUNT
 * Writes COUNT records of about 300 bytes to FOLDER/log from one thread, waits until the last is durable, and verifies
 * the log. Prints: records, seconds until durable, syncs, seconds to verify, seconds of processor time for that, bytes.
 */
#include <cb.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

static double clock_of(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int fail(const char *what) {
    fprintf(stderr, "audit_speed: %s: %s\n", what, cb_last_error());
    return 1;
}

int main(int argc, char **argv) {
    static const uint8_t hash[CB_AUDIT_HASH] = {1};
    char path[4096], key[4096];
    cb_audit *log;
    cb_audit_stats stats = {.size = sizeof stats};
    cb_audit_report report = {.size = sizeof report};
    cb_audit_record r = {.size = sizeof r,
                         .actor = cb_slice_str("service:deploy@example.org"),
                         .tenant = cb_slice_str("acme"),
                         .action = cb_slice_str("route.set"),
                         .object = cb_slice_str("/tenants/acme/routes/web"),
                         .detail =
                             cb_slice_str("{\"from\":\"192.0.2.17\",\"request\":\"6d1f4c1a\",\"agent\":\"cbctl\"}"),
                         .before = {hash, sizeof hash},
                         .after = {hash, sizeof hash},
                         .outcome = CB_AUDIT_DONE};
    if (argc != 3) return fprintf(stderr, "usage: audit_speed FOLDER COUNT\n"), 2;
    const long count = strtol(argv[2], NULL, 10);
    snprintf(path, sizeof path, "%s/log", argv[1]);
    snprintf(key, sizeof key, "%s/key", argv[1]);
    if (cb_audit_open(&log, CB_OPTS(cb_audit_opts, .path = path, .key_file = key)) < 0) return fail("open");
    double begin = clock_of(CLOCK_MONOTONIC);
    for (long i = 1; i < count; i++) {
        int rc;
        while ((rc = cb_audit_append(log, &r, NULL, NULL)) == CB_EAGAIN)
            sched_yield();
        if (rc < 0) return fail("append");
    }
    if (cb_audit_write(log, &r, NULL) < 0) return fail("write");
    const double wrote = clock_of(CLOCK_MONOTONIC) - begin;
    cb_audit_stats_get(log, &stats);
    cb_audit_free(log);
    begin = clock_of(CLOCK_MONOTONIC);
    double cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID);
    if (cb_audit_verify(path, NULL, &report) < 0) return fail("verify");
    cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    const double verified = clock_of(CLOCK_MONOTONIC) - begin;
    struct stat st = {0};
    stat(path, &st);
    if (stats.failed || report.records != (uint64_t)count) return fail("not all records are there");
    printf("%ld %.6f %llu %.6f %.6f %lld\n", count, wrote, (unsigned long long)stats.commits, verified, cpu,
           (long long)st.st_size);
    return 0;
}
