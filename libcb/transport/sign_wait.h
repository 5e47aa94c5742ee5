/* Handshakes that wait for a slow private key (on a token) while their loop goes on: the signature is made on another
 * thread, and the handshake, which GnuTLS cannot interrupt, waits for it on a stack of its own. */
#ifndef CB_TRANSPORT_SIGN_WAIT_H
#define CB_TRANSPORT_SIGN_WAIT_H

#include <cb/loop.h>
#include <gnutls/gnutls.h>
#include <stdbool.h>

/* --- the handshake's side: all on the loop's thread --- */
typedef struct cb_sign_wait cb_sign_wait;
/* ready() is called from the loop when a handshake can go on. CB_ENOMEM. */
int cb_sign_wait_new(cb_sign_wait **out, cb_loop *loop, void (*ready)(void *user), void *user);
/* gnutls_handshake(); GNUTLS_E_AGAIN also while a signature is waited for. */
int cb_sign_wait_handshake(cb_sign_wait *w, gnutls_session_t session);
bool cb_sign_wait_pending(const cb_sign_wait *w); /* NULL: false */
/* What still waits fails inside this call. NULL is fine. */
void cb_sign_wait_free(cb_sign_wait *w);

/* --- the key's side --- */
typedef struct cb_sign_job cb_sign_job;
struct cb_sign_job {
    void (*run)(cb_sign_job *job);  /* signs: fills the next two; on any thread */
    void (*drop)(cb_sign_job *job); /* frees the job, and the signature unless it was taken */
    int rc;                         /* of GnuTLS */
    gnutls_datum_t signature;       /* by gnutls_malloc() */
};
/* Has the job run: inside a handshake that can wait on another thread, else here. Drops it. */
int cb_sign_job_do(cb_sign_job *job, gnutls_datum_t *signature);

#endif
