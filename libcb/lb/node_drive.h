/* A node's driver: its loop, its connections, its file. */
#ifndef CB_LB_NODE_DRIVE_H
#define CB_LB_NODE_DRIVE_H

#include "lb/node_core.h"
#include "lb/node_file.h"
#include "loop/loop_int.h"
#include "loop/work.h"
#include <cb/http.h>

/* A follower's request that is under way. */
typedef struct cb_lb_asking {
    cb_http_client *client; /* NULL: the next request makes one */
    cb_exchange *x;
    cb_buf body, answer;
    size_t sent;
    int rc; /* why there is no answer; CB_OK */
    char detail[256];
    bool full; /* the client verifies the name of the URL's host */
} cb_lb_asking;

struct cb_lb_node {
    cb_loop *loop;
    cb_lb_core *core;
    cb_lb_node_ops ops;
    void *user;
    uint32_t id, writer;
    cb_identity *identity;
    char *state_file;
    size_t body_max; /* of a request or answer with a table */
    cb_http_server *server;
    cb_list calls; /* of the server */
    cb_lb_asking asking;
    cb_alarm alarm;
    cb_defer defer;
    cb_work *work;
    struct cb_lb_node_job *job;
    uint32_t jobs;
    bool told, freed; /* told: on_state is due */
    cb_grave grave;
    struct cb_lb_node_shown *shown;
};

void cb_lb_node_soon(cb_lb_node *n); /* a turn, at the end of this one of the loop */
/* node_serve.c */
int cb_lb_serve_open(cb_lb_node *n, const char *listen);
void cb_lb_serve_answer(void *held, cb_slice answer);
/* node_ask.c */
void cb_lb_ask_pump(cb_lb_node *n);
void cb_lb_ask_stop(cb_lb_node *n);
void cb_lb_ask_free(cb_lb_node *n);

#define CB_LB_PATH  "/lb/v1/sync"
#define CB_LB_MEDIA "application/vnd.libcb.lb"

#endif
