/* Certificates from ACME servers: what its files share. All but `lock` and what it guards is of the ACME thread. */
#ifndef CB_EDGE_ACME_H
#define CB_EDGE_ACME_H

#include "edge.h"
#include <limits.h>
#include <sys/stat.h>

enum { EDGE_ACME_STEM = 300, EDGE_ACME_THUMBPRINT = 44, EDGE_ACME_EAB = 1024 };

/* A certificate to keep. */
typedef struct edge_acme_cert {
    struct edge_acme_cert *next;
    const edge_certificate_conf *conf;
    char file[PATH_MAX];
    struct stat seen;
    int64_t due_s; /* when to look after it again */
    uint8_t failures;
} edge_acme_cert;

/* An account at a server. */
typedef struct edge_acme_issuer {
    struct edge_acme_issuer *next;
    edge_acme *acme;
    const edge_issuer_conf *conf;
    char dir[PATH_MAX];
    cb_identity *roots;
    cb_http_client *client;
    cb_acme *handle; /* NULL: another process has the directory, or it is not open yet */
    edge_acme_cert *certs, *current;
    int64_t open_at_s;
    unsigned open_failures;
    bool follows; /* the log knows */
    char thumbprint[EDGE_ACME_THUMBPRINT];
} edge_acme_issuer;

/* A name whose http-01 challenges are answered here, and for which account. */
typedef struct edge_acme_host {
    char name[256], thumbprint[EDGE_ACME_THUMBPRINT];
} edge_acme_host;

struct edge_acme {
    edge *edge;
    cb_alpn01 *alpn01;
    pthread_t thread;
    bool threaded; /* of the main thread */
    _Atomic bool stopping;
    cb_loop *loop;
    cb_timer *tick;
    edge_snapshot *snapshot;
    edge_acme_issuer *issuers;
    bool stale; /* listeners do not present what is in the files */
    int64_t refresh_at_s;
    char **shown; /* names whose tls-alpn-01 answers came from another member */
    size_t shown_len;
    pthread_mutex_t lock; /* guards what follows */
    edge_snapshot *told;
    edge_acme_host *hosts;
    size_t hosts_len;
    edge_acme_item *items;
    size_t items_len;
};

/* --- acme_files.c --- */
const char *edge_acme_stem(char out[EDGE_ACME_STEM], const char *name, const char *tail);
/* Where a certificate of the configuration is. False: the path is too long. */
bool edge_acme_path(char out[PATH_MAX], const edge_conf *c, const edge_certificate_conf *cert);
/* Replaces a file as a whole, mode 0600. */
int edge_acme_put(const char *dir, const char *name, const char *before, const char *text);
void edge_acme_remove(const char *dir, const char *name);
/* The first line of a file; "" when there is none. */
void edge_acme_line(char *out, size_t cap, const char *dir, const char *name);
/* Answers to tls-alpn-01 that the member which has the directory shows: taken over, and dropped when they are gone. */
void edge_acme_follow_answers(edge_acme *a);
void edge_acme_drop_answers(const char *dir);

/* --- acme_hook.c --- */
/* Runs PROGRAM VERB NAME VALUE, a minute at most; stopping ends it. Its failure is in cb_last_error(). */
int edge_acme_hook(const char *program, const char *verb, const cb_acme_challenge *c, const _Atomic bool *stopping);

#endif
