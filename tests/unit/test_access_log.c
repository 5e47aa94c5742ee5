#include "support/moved.h"
#include "support/scratch.h"
#include "telemetry/access_line.h"
#include <cb/http.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const cb_access_log_opts usual = {.size = sizeof usual, .path = "-"};

/* The line of a record, as text; longer than the buffer: empty. */
static const char *line_of(const cb_access_log_opts *o, const cb_access_record *r) {
    static char text[8192];
    cb_access_plan plan;
    cb_buf b;
    cb_buf_init(&b, NULL, sizeof text - 1);
    cr_assert_eq(cb_access_plan_make(&plan, NULL, o), CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_access_line(&b, &plan, r), CB_OK);
    memcpy(text, b.base, b.len);
    text[b.len] = '\0';
    cb_access_plan_free(&plan);
    cb_buf_free(&b);
    return text;
}

Test(access_log, lines) {
    static const struct {
        cb_access_record r;
        const char *line;
    } rows[] = {
        {{.size = sizeof(cb_access_record),
          .time_ms = 951782399123,
          .remote = "192.0.2.1:5",
          .duration_us = 1234,
          .version = CB_HTTP_3,
          .status = 200,
          .bytes_in = 1,
          .bytes_out = UINT64_MAX,
          .route = "web",
          .origin = "http://o",
          .reason = "x"},
         "{\"time\":\"2000-02-28T23:59:59.123Z\",\"remote\":\"192.0.2.1:5\",\"status\":200,\"version\":\"3\",\"bytes_"
         "in\":1,"
         "\"bytes_out\":18446744073709551615,\"duration_ms\":1.234,\"route\":\"web\",\"origin\":\"http://"
         "o\",\"reason\":\"x\"}\n"},
        {{.size = sizeof(cb_access_record), .time_ms = -1, .version = CB_HTTP_2},
         "{\"time\":\"1969-12-31T23:59:59.999Z\",\"status\":0,\"version\":\"2\",\"bytes_in\":0,\"bytes_out\":0,"
         "\"duration_ms\":0.000}\n"},
        {{.size = sizeof(cb_access_record), .time_ms = 1709251200000, .version = CB_HTTP_1},
         "{\"time\":\"2024-03-01T00:00:00.000Z\",\"status\":0,\"version\":\"1.1\",\"bytes_in\":0,\"bytes_out\":0,"
         "\"duration_ms\":0.000}\n"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect_str_eq(line_of(&usual, &rows[i].r), rows[i].line);
}

Test(access_log, bytes_of_the_network_are_escaped_and_bounded) {
    static uint8_t big[5000];
    static const uint8_t odd[] = "a\"\\\n\xc3\xa9\0z";
    memset(big, 'x', sizeof big);
    cb_access_plan plan;
    cb_buf b;
    cb_buf_init(&b, NULL, 4096);
    cr_assert_eq(cb_access_plan_make(&plan, NULL, &usual), CB_OK);
    cb_access_record r = {
        .size = sizeof r, .path = {odd, sizeof odd - 1}, .host = {big, sizeof big}, .version = CB_HTTP_1};
    cr_assert_eq(cb_access_line(&b, &plan, &r), CB_OK);
    cr_expect(memmem(b.base, b.len, "\"path\":\"a\\\"\\\\\\u000a\\u00c3\\u00a9\\u0000z\"", 37) != NULL, "%.*s",
              (int)b.len, (const char *)b.base);
    cr_expect(memmem(b.base, b.len, "xxx...\"", 7) != NULL);
    size_t before = b.len;
    cr_expect_eq(cb_access_line(&b, &plan, &r), CB_ELIMIT);
    cr_expect_eq(b.len, before);
    cb_access_plan_free(&plan);
    cb_buf_free(&b);
}

static size_t file_size(const char *path) {
    int fd = open(path, O_RDONLY);
    off_t n = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    if (fd >= 0) close(fd);
    return (size_t)n;
}

Test(access_log, a_file_and_its_rotation) {
    char path[SCRATCH_TEXT], moved[SCRATCH_TEXT + 2];
    close(scratch_file(path, sizeof path, "access"));
    snprintf(moved, sizeof moved, "%s.1", path);
    cb_loop *loop = NULL;
    cb_access_log *log = NULL;
    cr_assert_eq(cb_loop_new(&loop, NULL), CB_OK);
    cr_expect_eq(cb_access_log_open(&log, loop, CB_OPTS(cb_access_log_opts, .path = "/nonexistent/x/y")), CB_ENOENT);
    cr_expect_eq(cb_access_log_open(&log, loop, CB_OPTS(cb_access_log_opts, .path = NULL)), CB_EINVAL);
    cr_assert_eq(cb_access_log_open(&log, loop, CB_OPTS(cb_access_log_opts, .path = path, .buffer_bytes = 400)), CB_OK);
    cb_access_record r = {.size = sizeof r, .remote = "r", .version = CB_HTTP_1};
    for (int i = 0; i < 10; i++)
        cb_access_log_add(log, &r);
    cr_expect_gt(cb_access_log_dropped(log), 0);
    cr_expect_eq(cb_loop_run(loop), CB_OK); /* ends when everything is written */
    size_t first = file_size(path);
    cr_expect_gt(first, 200);
    cr_assert_eq(rename(path, moved), 0);
    cb_access_log_add(log, &r);
    cr_expect_eq(cb_access_log_reopen(log), CB_OK, "%s", cb_last_error());
    cb_access_log_add(log, &r);
    cb_access_log_free(log);
    cb_access_log_free(NULL);
    cr_expect_gt(file_size(moved), first, "what came before the rotation stays in the old file");
    cr_expect_gt(file_size(path), 0);
    cb_loop_free(loop);
    unlink(path);
    unlink(moved);
}

#define FIELD(name, value)                                                                                             \
    {                                                                                                                  \
        {(const uint8_t *)(name), sizeof(name) - 1}, {                                                                 \
            (const uint8_t *)(value), sizeof(value) - 1                                                                \
        }                                                                                                              \
    }

static const cb_field asked[] = {FIELD("authorization", "Bearer hush"), FIELD("user-agent", "a \"browser\""),
                                 FIELD("referer", "https://x.org/?a=1&token=hush"), FIELD("accept", "a"),
                                 FIELD("accept", "b")};
static const cb_field answered[] = {FIELD("set-cookie", "hush1"), FIELD("set-cookie", "hush2"), FIELD("etag", "\"e\"")};

static cb_access_record full(void) {
    return (cb_access_record){.size = sizeof(cb_access_record),
                              .time_ms = 1709251200000,
                              .remote = "2001:db8::1",
                              .method = cb_slice_str("GET"),
                              .path = cb_slice_str("/a?api_key=hush&x=1"),
                              .scheme = cb_slice_str("https"),
                              .status = 200,
                              .version = CB_HTTP_2,
                              .bytes_out = 12,
                              .subject = "o neill",
                              .tls_version = "1.3",
                              .tls_cipher = "TLS_AES_128_GCM_SHA256",
                              .tls_resumed = 1,
                              .early = 1,
                              .retries = 2,
                              .pattern = "*/a",
                              .local = "[::1]:443",
                              .trace_id = cb_slice_str("4bf92f3577b34da6a3ce929d0e0e4736"),
                              .phases = 1u << CB_ACCESS_AUTH | 1u << CB_ACCESS_BODY,
                              .phase_us = {1, 2003, 4, 5, 6, 70000},
                              .request_fields = asked,
                              .n_request_fields = 5,
                              .response_fields = answered,
                              .n_response_fields = 3};
}

Test(access_log, fields_are_chosen_and_renamed) {
    static const char *const fields[] = {"trace_id=trace.id",
                                         "status=code",
                                         "path",
                                         "request.User-Agent=ua",
                                         "request.accept",
                                         "request.nothing",
                                         "request.authorization",
                                         "request.referer",
                                         "response.set-cookie",
                                         "response.etag",
                                         "tls_version",
                                         "tls_cipher",
                                         "tls_resumed",
                                         "early",
                                         "retries",
                                         "pattern",
                                         "local",
                                         "scheme",
                                         "head_ms",
                                         "auth_ms",
                                         "wait_ms",
                                         "connect_ms",
                                         "first_byte_ms",
                                         "body_ms"};
    cb_access_log_opts o = {
        .size = sizeof o, .path = "-", .fields = fields, .n_fields = sizeof fields / sizeof *fields};
    const cb_access_record r = full();
    cr_expect_str_eq(
        line_of(&o, &r),
        "{\"trace.id\":\"4bf92f3577b34da6a3ce929d0e0e4736\",\"code\":200,\"path\":\"/a?api_key=REDACTED&x=1\","
        "\"ua\":\"a \\\"browser\\\"\",\"accept\":\"a, b\",\"authorization\":\"REDACTED\","
        "\"referer\":\"https://x.org/?a=1&token=REDACTED\",\"set-cookie\":\"REDACTED\",\"etag\":\"\\\"e\\\"\","
        "\"tls_version\":\"1.3\",\"tls_cipher\":\"TLS_AES_128_GCM_SHA256\",\"tls_resumed\":true,\"early\":true,"
        "\"retries\":2,\"pattern\":\"*/a\",\"local\":\"[::1]:443\",\"scheme\":\"https\","
        "\"auth_ms\":2.003,\"body_ms\":70.000}\n");
    cr_expect_null(strstr(line_of(&o, &r), "hush"));
    o.show_secrets = 1;
    const char *open = line_of(&o, &r);
    cr_expect(strstr(open, "\"Bearer hush\"") && strstr(open, "api_key=hush&") && strstr(open, "token=hush\"") &&
                  strstr(open, "\"hush1, hush2\""),
              "%s", open);
    cr_expect_null(strstr(line_of(&usual, &r), "hush"));
    const char *only[] = {"reason"};
    o.fields = only;
    o.n_fields = 1;
    cr_expect_str_eq(line_of(&o, &r), "{}\n");
}

Test(access_log, combined) {
    static uint8_t big[5000];
    const cb_access_log_opts o = {.size = sizeof o, .path = "-", .format = CB_ACCESS_COMBINED};
    cb_access_record r = full();
    memset(big, 'x', sizeof big);
    cr_expect_str_eq(
        line_of(&o, &r),
        "2001:db8::1 - o\\x20neill [01/Mar/2024:00:00:00 +0000] \"GET /a?api_key=REDACTED&x=1 HTTP/2\" 200 "
        "12 \"https://x.org/?a=1&token=REDACTED\" \"a \\\"browser\\\"\"\n");
    r.path = (cb_slice){big, sizeof big};
    r.n_request_fields = 0;
    r.remote = r.subject = NULL;
    r.status = 0;
    const char *cut = line_of(&o, &r);
    cr_expect(strlen(cut) < 2200 && strstr(cut, "x HTTP/2\" 000 12 \"-\" \"-\"\n") && !strncmp(cut, "- - - [", 7), "%s",
              cut);
}

Test(access_log, options_that_are_refused) {
    static const char *const bad[] = {"nothing",         "status=", "status=a b",  "request.",    "request.a b",
                                      "status=\"code\"", "=x",      "response.=x", "header.etag", ""};
    static const char *const twice[] = {"status", "request.status"}, *const none[] = {NULL};
    char big[400];
    memset(big, 'a', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    const char *const huge[] = {big};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_eq(cb_access_log_check(CB_OPTS(cb_access_log_opts, .path = "-", .fields = &bad[i], .n_fields = 1)),
                     CB_EINVAL, "%s", bad[i]);
    cr_expect_eq(cb_access_log_check(CB_OPTS(cb_access_log_opts, .path = "-", .fields = twice, .n_fields = 2)),
                 CB_EINVAL);
    cr_expect_not_null(strstr(cb_last_error(), "\"status\""));
    cr_expect_eq(cb_access_log_check(CB_OPTS(cb_access_log_opts, .path = "-", .fields = none, .n_fields = 1)),
                 CB_EINVAL);
    cr_expect_eq(cb_access_log_check(CB_OPTS(cb_access_log_opts, .path = "-", .fields = huge, .n_fields = 1)),
                 CB_EINVAL);
    cr_expect_eq(cb_access_log_check(CB_OPTS(cb_access_log_opts, .path = "-", .n_fields = 1)), CB_EINVAL);
    cr_expect_eq(cb_access_log_check(CB_OPTS(cb_access_log_opts, .path = "-", .format = 2)), CB_EINVAL);
    cr_expect_eq(cb_access_log_check(CB_OPTS(cb_access_log_opts, .path = "-", .format = CB_ACCESS_COMBINED,
                                             .fields = twice, .n_fields = 1)),
                 CB_EINVAL);
    cr_expect_eq(cb_access_log_check(CB_OPTS(cb_access_log_opts, .path = "")), CB_EINVAL);
    cr_expect_eq(cb_access_log_check(CB_OPTS(cb_access_log_opts, .path = "-", .fields = twice, .n_fields = 1)), CB_OK);
}

/* One line in so many, and all that failed. */
Test(access_log, sampling) {
    char path[SCRATCH_TEXT];
    close(scratch_file(path, sizeof path, "access"));
    cb_loop *loop = NULL;
    cb_access_log *log = NULL;
    cb_access_log_stats stats = {.size = sizeof stats};
    cb_metrics *m = NULL;
    cr_assert_eq(cb_metrics_new(&m, NULL), CB_OK);
    cr_assert_eq(cb_loop_new(&loop, CB_OPTS(cb_loop_opts, .metrics = m)), CB_OK);
    cr_assert_eq(cb_access_log_open(&log, loop, CB_OPTS(cb_access_log_opts, .path = path, .one_in = 10)), CB_OK);
    cb_access_record good = {.size = sizeof good, .status = 200, .version = CB_HTTP_1}, failed = good, cut = good;
    failed.status = 500;
    cut.reason = "client_gone";
    for (int i = 0; i < 5000; i++)
        cb_access_log_add(log, &good);
    cr_assert_eq(cb_access_log_stats_get(log, &stats), CB_OK);
    cr_expect(stats.lines > 350 && stats.lines < 650, "%llu lines of 5,000", (unsigned long long)stats.lines);
    cr_expect_eq(stats.lines + stats.left_out, 5000);
    const uint64_t before = stats.lines;
    for (int i = 0; i < 50; i++) {
        cb_access_log_add(log, &failed);
        cb_access_log_add(log, &cut);
    }
    cr_expect_eq(cb_loop_run(loop), CB_OK);
    stats = (cb_access_log_stats){.size = sizeof stats};
    cr_assert_eq(cb_access_log_stats_get(log, &stats), CB_OK);
    cr_expect_eq(stats.lines, before + 100);
    cr_expect(stats.waiting_bytes == 0 && stats.dropped == 0 && stats.failures == 0);
    cr_expect_eq(stats.written_bytes, file_size(path));
    cr_expect_eq(cb_access_log_stats_get(log, NULL), CB_EINVAL);
    EXPECT_MOVED(m, stats.lines, "cb_access_log_lines", "taken");
    EXPECT_MOVED(m, stats.left_out, "cb_access_log_lines", "left_out");
    EXPECT_MOVED(m, stats.written_bytes, "cb_access_log_bytes");
    cb_access_log_free(log);
    cr_assert_eq(cb_access_log_open(&log, loop, CB_OPTS(cb_access_log_opts, .path = "/dev/full", .buffer_bytes = 300)),
                 CB_OK);
    for (int i = 0; i < 10; i++)
        cb_access_log_add(log, &good);
    EXPECT_MOVED(m, cb_access_log_dropped(log), "cb_access_log_lines", "dropped");
    cr_expect_gt(cb_access_log_dropped(log), 0);
    cb_access_log_free(log);
    EXPECT_MOVED(m, 1, "cb_access_log_failures");
    cb_loop_free(loop);
    cb_metrics_unref(m);
    unlink(path);
}
