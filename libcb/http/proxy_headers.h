/* Which fields pass a proxy, and which it adds (RFC 9110, 7.6; RFC 7239; RFC 8470). F1. */
#ifndef CB_HTTP_PROXY_HEADERS_H
#define CB_HTTP_PROXY_HEADERS_H

#include "base/buf.h"
#include "base/prefix.h"
#include <cb/http.h>
#include <stdbool.h>

/* Is the host of "address", "address:port" or "[address]:port" within one of them? False when it is no address. */
bool cb_prefix_any(const cb_prefix *at, size_t n, cb_slice host_port);

/* The host of "address", "address:port", "[address]:port"; "" when it is longer than an address can be. */
cb_slice cb_host_part(cb_slice host_port);

/* What surrounds a message. Texts and slices live during the call. */
typedef struct cb_relay_env {
    const cb_prefix *trusted;
    size_t n_trusted;
    const char *remote; /* "address:port" of the peer */
    const char *via;    /* our pseudonym */
    cb_slice authority; /* that the client asked for */
    int version;        /* enum cb_http_version that the message came in */
    bool secure, early;
    bool no_forwarded, no_x_forwarded;
    char *const *hidden; /* names, in lower case with "-", of fields that do not pass, in no spelling */
    size_t n_hidden;
    const cb_peer *peer;     /* who showed a certificate; NULL = nobody */
    int client_cert;         /* cb_origin_group_opts.client_cert */
    bool own_trace;          /* traceparent and tracestate do not pass, but these do: */
    const char *traceparent; /* NULL = none */
    cb_slice tracestate;     /* empty = none */
    const cb_field *more;    /* fields to add, at most CB_ROUTE_HEADERS; they outlive the message */
    size_t n_more;
} cb_relay_env;

/* Fields for the next hop. Slices point into the incoming message and into `text`; all are valid until the next call.
 */
typedef struct cb_relay {
    cb_field *at;
    size_t n, cap;
    cb_buf text;
    int64_t length;  /* content-length among them, or -1 */
    cb_slice client; /* address of the client, as far as trusted peers tell */
} cb_relay;

void cb_relay_init(cb_relay *f, const cb_alloc *alloc);
void cb_relay_free(cb_relay *f);

/* A request's fields towards an origin. Host is left out: it goes by the authority. CB_ENOMEM; CB_ELIMIT: the request
 * has passed this proxy too often (a loop). */
int cb_relay_request(cb_relay *f, const cb_field *in, size_t n, const cb_relay_env *env);
/* A response's fields towards the client. */
int cb_relay_response(cb_relay *f, const cb_field *in, size_t n, const cb_relay_env *env);
/* Trailers that may pass: none that frames, routes or authenticates (RFC 9110, 6.5.1), and none that is hidden. */
int cb_relay_trailers(cb_relay *f, const cb_field *in, size_t n, const cb_relay_env *env);
/* Are the names the same where "_" counts as "-"? known has no "_". */
bool cb_forward_name_like(cb_slice name, const char *known);
/* Adds one field; name is static, value is copied. */
int cb_relay_add(cb_relay *f, const char *name, cb_slice value);
void cb_relay_drop(cb_relay *f, const char *lower_name);

#endif
