/* cbctl as a client of a daemon's admin interface: HTTP over its unix socket or over TLS. */
#ifndef CBCTL_ADMIN_H
#define CBCTL_ADMIN_H

#include "cbctl.h"
#include "json.h"
#include <cb.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* What the options of these commands say; commands_admin.c has the rows. Texts for values, bool for flags. */
typedef struct cbctl_args {
    const char *socket, *url, *ca, *cert, *key, *token_file, *patience;
    const char *if_match, *why, *idempotency_key, *timeout, *limit, *interval, *type, *sort;
    const char *actor, *action, *outcome, *since;
    bool json, dry_run, merge, json_patch, text, raw, once, reopen;
    char **words; /* what is left */
    size_t n_words;
} cbctl_args;

typedef struct cbctl_admin {
    const cbctl_command *command;
    cbctl_args args;
    cb_loop *loop;
    cb_http_client *http;
    cb_identity *identity;
    const char *connect_to; /* "unix:/path"; NULL: the URL's own host */
    char place[160];        /* whom we talk to, for people */
    char base[256];         /* of URLs */
    char to[128];
    char bearer[8448]; /* "Bearer ..."; "" = none */
    uint32_t patience_ms;
} cbctl_admin;

/* Parses the options of a command and runs it. */
int cbctl_admin_main(const cbctl_command *c, int argc, char **argv);

/* ---- asking (admin_ask.c) ---- */

typedef struct cbctl_question {
    const char *method; /* NULL: GET */
    const char *path;   /* "/v1/status?..." */
    const char *type;   /* of the body */
    const char *body;   /* NULL: none */
    size_t len;
    const char *document; /* what mistakes in the body are said to be in */
    bool whole;           /* the body is a whole configuration */
    const char *accept;   /* NULL: JSON */
    uint32_t timeout_ms;  /* 0: as --patience says */
    bool change;          /* with --if-match and --idempotency-key; not without a right */
    /* Takes what comes in place of the answer's body, which must be of the type `accept`; not NULL: no time limit but
     * for the head. < 0 ends it, which is good when *enough. */
    int (*on_data)(cb_slice data, void *user);
    const bool *enough;
    const char *last_event_id; /* of events: go on behind that one; "" and NULL = from now on */
    void *user;
} cbctl_question;

typedef struct cbctl_answer {
    int status;
    char *body; /* NUL-terminated; free with cbctl_answer_free() */
    size_t len;
    char type[64], etag[64];
} cbctl_answer;

/* An exit code. Whatever is not good has been told then, mistakes of a configuration one a line. a zeroed answer is
 * fine to free. */
int cbctl_ask(cbctl_admin *a, const cbctl_question *q, cbctl_answer *r);
/* The same, telling nothing: the exit code is about the way to the daemon only, and why[] says what went wrong there.
 */
int cbctl_ask_quietly(cbctl_admin *a, const cbctl_question *q, cbctl_answer *r, char *why, size_t cap);
/* What an answer means that was not asked for by cbctl_ask(): an exit code; what is not good is told. */
int cbctl_judge(const cbctl_admin *a, const cbctl_question *q, cbctl_answer *r);
/* The same for an answer in JSON; *out is to be freed by json_free(). */
int cbctl_ask_json(cbctl_admin *a, const cbctl_question *q, json_tree **out, cbctl_answer *r);
void cbctl_answer_free(cbctl_answer *r);
/* Starts it and returns; `over` is told how it ended. For `top`, which has a loop of its own. */
typedef struct cbctl_asking cbctl_asking;
typedef void (*cbctl_over_fn)(cbctl_asking *k, void *user);
int cbctl_ask_start(cbctl_asking **out, cbctl_admin *a, const cbctl_question *q, cbctl_over_fn over, void *user);
/* Once over: gives the answer, or the exit code and in why[] the reason. */
int cbctl_ask_end(cbctl_asking *k, cbctl_answer *r, char *why, size_t cap);

/* "30", "30s", "500ms", "2m", "1h" in milliseconds; < 0: it is not that. */
int64_t cbctl_duration_ms(const char *text);
/* A whole number from min to max; < 0: it is not that. */
int64_t cbctl_number(const char *text, int64_t min, int64_t max);
/* Everything but unreserved characters (RFC 3986, 2.3) and those of `also` as %XX. The length, or < 0: no room. */
int cbctl_url_encode(char *out, size_t cap, const char *text, const char *also);

/* ---- showing (admin_show.c) ---- */

/* Asks and prints what comes: an object as lines, a list as a table, with --json as it is. Exit codes. */
int cbctl_show(cbctl_admin *a, const char *path);
/* The same for a list that comes by pages, of at most --limit or `most` items. */
int cbctl_show_pages(cbctl_admin *a, const char *path, int64_t most);
int cbctl_print_json(const cbctl_admin *a, const json_node *v, const cbctl_answer *r);

/* ---- the commands ---- */

int cbctl_status(cbctl_admin *a);
int cbctl_list(cbctl_admin *a);
int cbctl_connections(cbctl_admin *a);
int cbctl_whoami(cbctl_admin *a);
int cbctl_openapi(cbctl_admin *a);
int cbctl_audit_list(cbctl_admin *a);
int cbctl_get(cbctl_admin *a);
int cbctl_set(cbctl_admin *a);
int cbctl_unset(cbctl_admin *a);
int cbctl_apply(cbctl_admin *a);
int cbctl_diff(cbctl_admin *a);
int cbctl_history(cbctl_admin *a);
int cbctl_rollback(cbctl_admin *a);
int cbctl_drain(cbctl_admin *a);
int cbctl_reload(cbctl_admin *a);
int cbctl_log_levels(cbctl_admin *a);
int cbctl_origin(cbctl_admin *a);
int cbctl_metrics(cbctl_admin *a);
int cbctl_events(cbctl_admin *a);
int cbctl_top(cbctl_admin *a);
int cbctl_lb(cbctl_admin *a);
int cbctl_lb_counters(cbctl_admin *a);
int cbctl_lb_owner(cbctl_admin *a);
int cbctl_lb_change(cbctl_admin *a);
int cbctl_lb_top(cbctl_admin *a);

#endif
