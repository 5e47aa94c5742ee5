/* Revocations in files, and the lines of which they are made. */
#include "auth/revocations.h"
#include "support/scratch.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NOW = 1700000000 };

static void write_file(const char *path, const char *text) {
    FILE *f = fopen(path, "w");
    cr_assert_not_null(f);
    fputs(text, f);
    fclose(f);
}

Test(revocations, files) {
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"nonsense\n", "line 1: "},
        {"# fine\n\n[]\n", "line 3: it is no JSON object"},
        {"{\"jti\": \"1\"}", "\"issuer\" is missing"},
        {"{\"issuer\": \"me\"}", "\"before\" is missing"},
        {"{\"issuer\": \"me\", \"subject\": \"a\"}", "\"before\" is missing"},
        {"{\"issuer\": \"me\", \"subject\": \"a\", \"jti\": \"1\", \"before\": 1}", "not both"},
        {"{\"issuer\": \"me\", \"jti\": 1}", "\"jti\" must be a text"},
        {"{\"issuer\": \"me\", \"jti\": \"1\", \"until\": \"soon\"}", "seconds since 1970"},
        {"{\"issuer\": \"me\", \"jti\": \"1\", \"untl\": 1}", "\"untl\" is not known here"},
        {"{\"issuer\": \"me\", \"jti\": \"1\", \"jti\": \"2\"}", "twice"},
        {"{\"issuer\": \"me\", \"jti\": \"1\"}\n{\"issuer\": \"me\"", "line 2: "},
    };
    char path[SCRATCH_TEXT];
    cb_revocations *r = NULL;
    close(scratch_file(path, sizeof path, "revoked"));
    cr_assert_eq(cb_revocations_new(&r, 0), CB_OK);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_file(path, bad[i].text);
        cr_expect_eq(cb_revocations_load(r, path, NOW), CB_EINVAL, "row %zu", i);
        cr_expect(strstr(cb_last_error(), bad[i].says), "row %zu: %s", i, cb_last_error());
        cr_expect_eq(cb_revocations_len(r), 0, "row %zu: half of it was taken", i);
    }
    write_file(path, "# three, of which one is over\n{\"issuer\": \"me\", \"jti\": \"1\", \"note\": \"lost\"}\r\n\n"
                     "{\"issuer\": \"me\", \"subject\": \"joe\", \"before\": 1699999000, \"until\": 1800000000}\n"
                     "{\"issuer\": \"me\", \"jti\": \"old\", \"until\": 1600000000}");
    cr_expect_eq(cb_revocations_load(r, path, NOW), CB_OK, "%s", cb_last_error());
    cr_expect_eq(cb_revocations_len(r), 2);
    cr_expect(cb_revocations_hit(r, "me", "1", "ann", NOW) && !cb_revocations_hit(r, "me", "2", "ann", NOW));
    cr_expect(cb_revocations_hit(r, "me", NULL, "joe", 1699999000) && !cb_revocations_hit(r, "me", NULL, "joe", NOW));
    cr_expect(!cb_revocations_hit(r, "me", "old", "ann", NOW));
    unlink(path);
    cr_expect_eq(cb_revocations_load(r, path, NOW), CB_ENOENT);
    cr_expect_eq(cb_revocations_load(r, NULL, NOW), CB_EINVAL);
    cb_revocations_unref(r);
}

Test(revocations, lines) {
    static const struct {
        cb_revocation what;
        const char *line; /* NULL: refused */
    } rows[] = {
        {{.issuer = "me", .jti = "a\"b\n"}, "{\"issuer\": \"me\", \"jti\": \"a\\\"b\\u000a\"}"},
        {{.issuer = "me", .subject = "joe", .before_s = 5, .until_s = 9},
         "{\"issuer\": \"me\", \"subject\": \"joe\", \"before\": 5, \"until\": 9}"},
        {{.issuer = "me", .before_s = 5}, "{\"issuer\": \"me\", \"before\": 5}"},
        {{.issuer = "me"}, NULL},
        {{.jti = "1"}, NULL},
        {{.issuer = "me", .jti = "1", .subject = "joe"}, NULL},
        {{.issuer = "me", .jti = "\xff"}, NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_revocation what = rows[i].what;
        char *line = NULL;
        what.size = sizeof what;
        int rc = cb_revocation_line(&line, &what);
        cr_expect_eq(rc, rows[i].line ? CB_OK : CB_EINVAL, "row %zu: %d", i, rc);
        if (rows[i].line) cr_expect_str_eq(line, rows[i].line, "row %zu: %s", i, line);
        cb_jwt_text_free(line);
    }
}
