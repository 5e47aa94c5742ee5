#include "telemetry/access_line.h"
#include <cb/http.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_buf b;
        cb_buf_init(&b, NULL, 4096);
        cr_assert_eq(cb_access_line(&b, &rows[i].r), CB_OK);
        cr_expect(b.len == strlen(rows[i].line) && !memcmp(b.base, rows[i].line, b.len), "%.*s", (int)b.len,
                  (const char *)b.base);
        cb_buf_free(&b);
    }
}

Test(access_log, bytes_of_the_network_are_escaped_and_bounded) {
    static uint8_t big[5000];
    static const uint8_t odd[] = "a\"\\\n\xc3\xa9\0z";
    memset(big, 'x', sizeof big);
    cb_buf b;
    cb_buf_init(&b, NULL, 4096);
    cb_access_record r = {
        .size = sizeof r, .path = {odd, sizeof odd - 1}, .host = {big, sizeof big}, .version = CB_HTTP_1};
    cr_assert_eq(cb_access_line(&b, &r), CB_OK);
    cr_expect(memmem(b.base, b.len, "\"path\":\"a\\\"\\\\\\u000a\\u00c3\\u00a9\\u0000z\"", 37) != NULL, "%.*s",
              (int)b.len, (const char *)b.base);
    cr_expect(memmem(b.base, b.len, "xxx...\"", 7) != NULL);
    size_t before = b.len;
    cr_expect_eq(cb_access_line(&b, &r), CB_ELIMIT);
    cr_expect_eq(b.len, before);
    cb_buf_free(&b);
}

static size_t file_size(const char *path) {
    int fd = open(path, O_RDONLY);
    off_t n = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    if (fd >= 0) close(fd);
    return (size_t)n;
}

Test(access_log, a_file_and_its_rotation) {
    char path[] = "/tmp/cb-access-XXXXXX", moved[64];
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    close(fd);
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
