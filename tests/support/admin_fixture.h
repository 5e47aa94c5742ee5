/* For tests of administration interfaces: one on a unix socket with its loop, and a client that speaks HTTP/1.1 by
 * hand, so that what no client would send can be sent. */
#ifndef CB_TEST_ADMIN_FIXTURE_H
#define CB_TEST_ADMIN_FIXTURE_H

#include <cb/admin.h>
#include <stdbool.h>

typedef struct admin_world {
    cb_loop *loop;
    cb_admin *a;
    cb_admin_roles *roles;
    cb_audit *audit;
    cb_metrics *metrics;
    cb_log_writer *logs;
    char folder[40], path[64], address[72], audit_path[64], key_path[64], log_path[64];
} admin_world;

/* What is opened beside it. */
enum { ADMIN_AUDIT = 1, ADMIN_METRICS = 2, ADMIN_LOG = 4, ADMIN_NO_DOOR = 8, ADMIN_NO_ROLE = 16 };

/* With the role for whoever runs the tests; `o` may be NULL. */
void admin_open(admin_world *w, uint32_t with, const char *role, const cb_admin_opts *o);
void admin_close(admin_world *w);
/* This user has these other roles from now on. */
void admin_role(admin_world *w, const char *role);
/* A series of the loop's registry (ADMIN_METRICS), by the values of its labels. */
double admin_metric(const admin_world *w, const char *name, const char *first, const char *second);
/* Turns of the loop, for so long. */
void admin_turn(admin_world *w, int ms);

/* A connection; at: NULL = the unix socket. */
int admin_dial(const char *path);
int admin_dial_tcp(const char *address);
/* Turns the loop until a whole response is there (by its content-length, or no more comes); its status, or -1. */
typedef struct admin_reply {
    int status;
    size_t len;
    char text[1 << 17]; /* head and body */
    const char *body;
} admin_reply;
int admin_read(admin_world *w, int fd, admin_reply *r);
/* One request on a connection of its own: a whole head's first line and fields without their ends ("GET /livez"), more
 * fields by newlines, and a body or NULL. */
int admin_ask(admin_world *w, admin_reply *r, const char *line, const char *fields, const char *body);
/* The value of a field of the response; "" = none. */
const char *admin_field(const admin_reply *r, const char *name, char out[256]);

#endif
