#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/opts.h"
#include "base/version.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

Test(base_error, every_code_has_its_name) {
    static const struct {
        int rc;
        const char *name;
    } rows[] = {
        {CB_OK, "CB_OK:"},
        {CB_EINVAL, "CB_EINVAL:"},
        {CB_ENOMEM, "CB_ENOMEM:"},
        {CB_EAGAIN, "CB_EAGAIN:"},
        {CB_ECLOSED, "CB_ECLOSED:"},
        {CB_ETIMEOUT, "CB_ETIMEOUT:"},
        {CB_EPROTO, "CB_EPROTO:"},
        {CB_ETLS, "CB_ETLS:"},
        {CB_EAUTH, "CB_EAUTH:"},
        {CB_EDNS, "CB_EDNS:"},
        {CB_ESYS, "CB_ESYS:"},
        {CB_ELIMIT, "CB_ELIMIT:"},
        {CB_E2BIG, "CB_E2BIG:"},
        {CB_ENOTSUP, "CB_ENOTSUP:"},
        {CB_EUSER, "CB_EUSER:"},
        {CB_ENOENT, "CB_ENOENT:"},
        {CB_EEXIST, "CB_EEXIST:"},
        {CB_EPERM, "CB_EPERM:"},
        {CB_EUNREACH, "CB_EUNREACH:"},
        {7, "CB_OK:"},
        {-19, "unknown error"},
        {-100000, "unknown error"},
        {(-2147483647 - 1), "unknown error"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect(!strncmp(cb_strerror(rows[i].rc), rows[i].name, strlen(rows[i].name)), "rc %d: %s", rows[i].rc,
                  cb_strerror(rows[i].rc));
}

Test(base_error, the_detail_is_kept_cut_and_may_quote_itself) {
    char longer[3000];
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = '\0';

    cr_assert_eq(cb_fail(CB_EINVAL, "port %d", 7), CB_EINVAL);
    cr_assert_str_eq(cb_last_error(), "port 7");
    cb_fail(CB_EINVAL, "listen: %s", cb_last_error());
    cr_assert_str_eq(cb_last_error(), "listen: port 7");
    cr_assert_eq(cb_error_set(CB_EUSER, cb_last_error() + 8), CB_EUSER);
    cr_assert_str_eq(cb_last_error(), "port 7");
    cr_assert_eq(cb_error_set(CB_EUSER, longer), CB_EUSER);
    cr_assert(strlen(cb_last_error()) > 500 && strlen(cb_last_error()) < sizeof longer);
    cb_fail(CB_EINVAL, "%s", longer);
    cr_assert(strlen(cb_last_error()) > 500);
    cr_assert(strlen(cb_last_error()) < sizeof longer);
}

Test(base_error, errno_is_mapped_and_explained) {
    static const struct {
        int err, rc;
        const char *text;
    } rows[] = {
        {EADDRINUSE, CB_EEXIST, "bind: Address already in use"},
        {EACCES, CB_EPERM, "bind: Permission denied"},
        {EPERM, CB_EPERM, "bind: Operation not permitted"},
        {ENOENT, CB_ENOENT, "bind: No such file or directory"},
        {ENOMEM, CB_ENOMEM, "bind: Cannot allocate memory"},
        {ECONNREFUSED, CB_EUNREACH, "bind: Connection refused"},
        {ETIMEDOUT, CB_ETIMEOUT, "bind: Connection timed out"},
        {EMFILE, CB_ENOMEM, "bind: Too many open files"},
        {99999, CB_ESYS, "bind: errno 99999"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_expect_eq(cb_fail_errno(rows[i].err, "%s", "bind"), rows[i].rc, "errno %d", rows[i].err);
        cr_expect_str_eq(cb_last_error(), rows[i].text);
    }
}

typedef struct probe_opts {
    size_t size;
    uint64_t a, b;
} probe_opts;

Test(base_opts, both_directions_of_age) {
    struct newer {
        probe_opts known;
        uint64_t extra;
    } big = {.known = {.size = sizeof big, .a = 1, .b = 2}};
    probe_opts got, now = {.size = sizeof now, .a = 3, .b = 4};

    cr_assert_eq(cb_opts_read(&got, sizeof got, NULL, "probe_opts"), CB_OK);
    cr_assert(got.size == sizeof got && !got.a && !got.b);
    cr_assert_eq(cb_opts_read(&got, sizeof got, &now, "probe_opts"), CB_OK);
    cr_assert(got.a == 3 && got.b == 4);
    now.size = 16; /* an older caller, which does not know b */
    cr_assert_eq(cb_opts_read(&got, sizeof got, &now, "probe_opts"), CB_OK);
    cr_assert(got.size == sizeof got && got.a == 3 && !got.b);
    cr_assert_eq(cb_opts_read(&got, sizeof got, &big, "probe_opts"), CB_OK);
    cr_assert(got.a == 1 && got.b == 2);
    big.extra = 1;
    cr_assert_eq(cb_opts_read(&got, sizeof got, &big, "probe_opts"), CB_E2BIG);
    cr_assert(strstr(cb_last_error(), "probe_opts"));
    static const size_t wrong[] = {0, 1, 7, 100000, SIZE_MAX};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        now.size = wrong[i];
        cr_expect_eq(cb_opts_read(&got, sizeof got, &now, "probe_opts"), CB_EINVAL, "size %zu", wrong[i]);
    }
}

Test(base_version, number_and_text_agree) {
    char text[32];
    snprintf(text, sizeof text, "%u.%u.%u", (unsigned)(cb_version() >> 16), (unsigned)(cb_version() >> 8 & 255),
             (unsigned)(cb_version() & 255));
    cr_assert_str_eq(text, cb_version_text());
}

static int seen_level;
static char seen_text[2048];

static void keep_line(int level, const char *module, const char *text, void *user) {
    (void)user;
    seen_level = level;
    snprintf(seen_text, sizeof seen_text, "%s|%s", module, text);
}

Test(base_log, levels_filter_and_lines_stay_lines) {
    cb_log log = {.write = keep_line};
    cr_assert(!cb_log_on(NULL, CB_LOG_ERROR));
    cr_assert(!cb_log_on(&log, CB_LOG_DEBUG));
    cr_assert(cb_log_on(&log, CB_LOG_INFO));
    cr_assert(!cb_log_on(&log, CB_LOG_OFF));
    log.level = CB_LOG_OFF;
    cr_assert(!cb_log_on(&log, CB_LOG_ERROR));
    log.level = CB_LOG_WARN;
    cb_log_line(&log, CB_LOG_INFO, "quic", "no");
    cr_assert_eq(seen_level, 0);
    cb_log_line(&log, CB_LOG_WARN, "quic", "a\nb %d", 5);
    cr_assert_eq(seen_level, CB_LOG_WARN);
    cr_assert_str_eq(seen_text, "quic|a b 5");
}

Test(base_log, bytes_are_escaped_and_cut) {
    static const struct {
        const char *in;
        size_t in_len, cap;
        const char *out;
    } rows[] = {
        {"plain", 5, 64, "plain"},
        {"a\r\n\0z", 5, 64, "a\\x0d\\x0a\\x00z"},
        {"\\\x7f\xff", 3, 64, "\\x5c\\x7f\\xff"},
        {"123456789", 9, 10, "123456789"},
        {"1234567890", 10, 10, "123456..."},
        {"12345\x01", 6, 8, "1234..."},
        {"", 0, 1, ""},
        {"abc", 3, 1, ""},
        {"abcdef", 6, 4, "..."},
        {"\x01\x01\x01", 3, 9, "\\x01..."},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char out[64];
        memset(out, '#', sizeof out);
        cb_text_escape(out, rows[i].cap, (cb_slice){(const uint8_t *)rows[i].in, rows[i].in_len});
        cr_expect_str_eq(out, rows[i].out, "row %zu: %s", i, out);
    }
}
