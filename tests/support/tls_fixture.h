/* For tests that need TLS: a development CA in a fresh folder under /tmp, leaves of it, and a client and a server that
 * talk through memory. */
#ifndef CB_TEST_TLS_FIXTURE_H
#define CB_TEST_TLS_FIXTURE_H

#include "base/buf.h"
#include "transport/tls_session.h"
#include <cb/ca.h>
#include <cb/tls.h>

typedef struct tls_pki {
    char dir[64];
    char ca_file[96];
    cb_ca *ca;
    int key_type; /* of the CA and of tls_pki_identity(); 0 = the defaults */
} tls_pki;

void tls_pki_make(tls_pki *p);
void tls_pki_make_of(tls_pki *p, int key_type);
void tls_pki_drop(tls_pki *p); /* removes the folder with everything in it */
/* A leaf for `names` (comma list); 0 values mean the defaults. The paths are static until the next call. */
void tls_pki_leaf(tls_pki *p, const char *names, int key_type, const char *stem, int64_t not_before_s, uint32_t days);
const char *tls_pki_path(tls_pki *p, const char *file, char out[160]); /* dir/file */
/* An identity with one leaf (made with the given names), trusting the CA. */
cb_identity *tls_pki_identity(tls_pki *p, const char *names);
cb_identity *tls_pki_client(tls_pki *p); /* no certificate, trusts the CA */

/* One end of a conversation in memory. */
typedef struct tls_end {
    cb_tls_session *tls;
    cb_buf out;   /* ciphertext on its way to the other end */
    cb_buf plain; /* what arrived */
    size_t take;  /* of each delivery take at most this; SIZE_MAX = all */
    int opened, eofs, rc;
    char error[256];
} tls_end;

void tls_end_make(tls_end *e, const cb_tls_opts *opts); /* prepare and start */
void tls_end_prepare(tls_end *e, const cb_tls_opts *opts);
void tls_end_start(tls_end *e);
void tls_end_drop(tls_end *e);
/* Moves bytes, `step` at a time (0 = all there is), until nothing moves; the ends' rc say how it went. */
void tls_talk(tls_end *client, tls_end *server, size_t step);

#endif
