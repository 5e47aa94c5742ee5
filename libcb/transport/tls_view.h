/* What the files of an identity say, read and checked: made by tls_identity.c, asked by handshakes (tls_identity.h). */
#ifndef CB_TRANSPORT_TLS_VIEW_H
#define CB_TRANSPORT_TLS_VIEW_H

#include "transport/tls_identity.h"

/* What a view is read from. */
typedef struct cb_identity_content {
    cb_identity_opts *sources; /* their texts are ours */
    size_t sources_len;
    cb_trust_source *trusts; /* sorted by host, one at least */
    size_t trusts_len;
    cb_alpn01 *alpn01; /* may be NULL */
} cb_identity_content;

/* Reads everything. Errors as cb_identity_new(). */
int cb_identity_view_load(cb_identity_view **out, const cb_identity_content *c);
/* cb_identity_examine(); c is what the view was read from. */
void cb_identity_view_examine(const cb_identity_view *v, const cb_identity_content *c, int64_t now_s, uint32_t within_s,
                              void (*fn)(int level, const char *text, void *user), void *user);
/* cb_identity_list(); c is what the view was read from. CB_ENOMEM. */
int cb_identity_view_list(const cb_identity_view *v, const cb_identity_content *c,
                          void (*fn)(const cb_identity_item *item, void *user), void *user);
/* When the first of the certificates expires; 0 when there is none. */
int64_t cb_identity_view_expires(const cb_identity_view *v);

#endif
