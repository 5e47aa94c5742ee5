/* admin - a kettle with an administration interface on a unix socket: who may ask and change it is said below.
 *   cc admin.c $(pkg-config --cflags --libs libcb) && ./a.out /tmp/kettle.sock &
 *   curl --unix-socket /tmp/kettle.sock http://kettle/v1/kettle
 *   curl --unix-socket /tmp/kettle.sock http://kettle/v1/kettle -X PUT -H 'If-Match: "1"' \
 *        -H 'content-type: application/json' -d '{"degrees": 90}'
 *   curl --unix-socket /tmp/kettle.sock http://kettle/v1/openapi.json; curl -N ... http://kettle/v1/events */
#include <cb.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

typedef struct kettle {
    int64_t degrees;
} kettle;

static kettle now = {20};
static int revision = 1;
static cb_admin *admin;

static const cb_config_rule members[] = {{.name = "degrees",
                                          .kind = CB_CONFIG_INT,
                                          .min = 5,
                                          .max = 100,
                                          .required = 1,
                                          .offset = offsetof(kettle, degrees),
                                          .doc = "How hot the water is to be."},
                                         {.name = NULL}};
static const cb_config_schema schema = {
    .size = sizeof schema, .title = "A kettle", .members = members, .root_size = sizeof(kettle)};

static int answer(cb_admin_call *call) {
    char etag[16];
    cb_json_out *o = cb_admin_json(call);
    snprintf(etag, sizeof etag, "\"%d\"", revision);
    cb_admin_etag(call, etag);
    cb_json_put_object(o, NULL);
    cb_json_put_int(o, "degrees", now.degrees);
    cb_json_put_end(o);
    return cb_admin_send(call, 200);
}

static int get_kettle(cb_admin_call *call, void *user) {
    (void)user;
    return answer(call);
}

static int put_kettle(cb_admin_call *call, void *user) {
    char etag[16], event[64];
    (void)user;
    snprintf(etag, sizeof etag, "\"%d\"", revision);
    if (cb_admin_check_match(call, etag) < 0) return CB_OK; /* it was answered: somebody else was faster */
    now = *(const kettle *)cb_admin_document(call);
    revision++;
    snprintf(event, sizeof event, "{\"degrees\":%d,\"by\":\"%s\"}", (int)now.degrees, cb_admin_who(call)->name);
    (void)cb_admin_event(admin, "kettle", cb_slice_str(event));
    return answer(call);
}

static const cb_admin_resource table[] = {{.size = sizeof table[0],
                                           .method = "GET",
                                           .path = "/v1/kettle",
                                           .id = "getKettle",
                                           .summary = "How hot it is",
                                           .rights = CB_RIGHT_READ,
                                           .handle = get_kettle},
                                          {.size = sizeof table[0],
                                           .method = "PUT",
                                           .path = "/v1/kettle",
                                           .id = "putKettle",
                                           .summary = "Heats or cools it",
                                           .rights = CB_RIGHT_OPERATE,
                                           .flags = CB_ADMIN_CHANGES,
                                           .document = &schema,
                                           .handle = put_kettle}};

static void gone(cb_loop *loop, void *user) {
    (void)user;
    cb_loop_stop(loop);
}

static void quit(cb_loop *loop, void *user) {
    (void)loop;
    (void)user;
    cb_admin_drain(admin, 1000, 0, gone, NULL);
}

int main(int argc, char **argv) {
    cb_loop *loop = NULL;
    cb_admin_roles *roles = NULL;
    char me[32], address[128];
    snprintf(me, sizeof me, "uid:%u", (unsigned)getuid());
    snprintf(address, sizeof address, "unix:%s", argc > 1 ? argv[1] : "/tmp/kettle.sock");
    int rc = cb_loop_new(&loop, NULL);
    if (rc == CB_OK) rc = cb_admin_roles_new(&roles);
    if (rc == CB_OK) rc = cb_admin_roles_add(roles, CB_OPTS(cb_admin_grant, .who = me, .role = "operator"));
    if (rc == CB_OK) rc = cb_admin_new(&admin, loop, CB_OPTS(cb_admin_opts, .name = "kettle", .roles = roles));
    for (size_t i = 0; i < sizeof table / sizeof *table && rc == CB_OK; i++)
        rc = cb_admin_add(admin, &table[i], NULL);
    if (rc == CB_OK) rc = cb_admin_listen(admin, CB_OPTS(cb_admin_door_opts, .address = address));
    if (rc >= 0) rc = cb_loop_on_signal(loop, SIGTERM, quit, NULL);
    if (rc == CB_OK) {
        cb_admin_ready(admin, 1, NULL);
        printf("%s\n", cb_admin_address(admin, 0));
        fflush(stdout);
        rc = cb_loop_run(loop);
    }
    if (rc < 0) fprintf(stderr, "admin: %s: %s\n", cb_strerror(rc), cb_last_error());
    cb_admin_free(admin);
    cb_admin_roles_unref(roles);
    cb_loop_free(loop);
    return rc < 0;
}
