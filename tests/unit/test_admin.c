/* cb_admin: doors, roles, and what every daemon has. */
#include "support/admin_fixture.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static admin_reply r;

Test(admin, health) {
    admin_world w;
    admin_open(&w, 0, "viewer", NULL);
    cr_expect_eq(admin_ask(&w, &r, "GET /livez", NULL, NULL), 200, "%s", r.text);
    cr_expect_eq(admin_ask(&w, &r, "GET /readyz", NULL, NULL), 503, "%s", r.text);
    cr_expect(strstr(r.body, "starting"), "%s", r.text);
    cb_admin_ready(w.a, 1, NULL);
    cr_expect_eq(admin_ask(&w, &r, "GET /readyz", NULL, NULL), 200, "%s", r.text);
    cr_expect_eq(admin_ask(&w, &r, "GET /healthz", NULL, NULL), 200, "%s", r.text);
    cb_admin_alive(w.a, 0, "worker 3 hangs");
    cr_expect_eq(admin_ask(&w, &r, "GET /healthz", NULL, NULL), 503, "%s", r.text);
    cr_expect(strstr(r.body, "worker 3 hangs"), "%s", r.text);
    cr_expect_eq(admin_ask(&w, &r, "POST /livez", NULL, NULL), 405, "%s", r.text);
    admin_close(&w);
}

Test(admin, whoami_says_what_the_kernel_says) {
    admin_world w;
    char name[32];
    admin_open(&w, ADMIN_METRICS, "service-owner", NULL);
    snprintf(name, sizeof name, "\"name\":\"uid:%u\"", getuid());
    cr_expect_eq(admin_ask(&w, &r, "GET /v1/whoami", NULL, NULL), 200, "%s", r.text);
    cr_expect(strstr(r.body, name), "%s", r.body);
    cr_expect(strstr(r.body, "\"roles\":[\"service-owner\"]"), "%s", r.body);
    cr_expect(strstr(r.body, "\"rights\":[\"read\",\"metrics\",\"change-owned\"]"), "%s", r.body);
    cr_expect(strstr(r.body, "\"owned\":[\"team-a\",\"team-b\"]"), "%s", r.body);
    cr_expect_eq(admin_ask(&w, &r, "GET /metrics", NULL, NULL), 200, "%s", r.text);
    cr_expect_eq(admin_ask(&w, &r, "GET /v1/openapi.json", NULL, NULL), 200, "%s", r.text);
    admin_close(&w);
}
