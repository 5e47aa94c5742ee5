/* cb/renewal.h - certificates of a private authority (cb/ca.h), renewed before they expire and swapped into servers.
 *
 * A certificate is due after two thirds of its life, or half of one under ten days, and earlier by up to a twentieth,
 * different for each certificate: so what was issued together is not all renewed together. Certificates from ACME
 * servers renew by cb/acme.h. */
#ifndef CB_RENEWAL_H
#define CB_RENEWAL_H

#include <cb/ca.h>
#include <cb/loop.h>
#include <cb/tls.h>

CB_BEGIN

typedef struct cb_renew_opts {
    size_t size;
    const char *cert_file; /* the certificate, and the place of the new one; required */
    const char *key_file;  /* its key; NULL = NAME-key.pem for NAME.pem. The same as cert_file: one file has both, and
                            * nobody ever sees a key beside another's certificate */
    const cb_leaf_opts *leaf; /* what the new one shall be. NULL: like the one that is there (names, profile, type of
                               * key, lifetime). Needed when there is none yet; one with other names is due at once.
                               * file_stem names a certificate without names */
    uint8_t if_due;           /* 1 = only when it is due */
    uint8_t reserved[7];
    const char *ocsp_file; /* an answer about it for servers to staple (DER; ocsp_file of cb_identity_opts), good for a
                            * day, signed by the authority's key: written with each new certificate, and anew at half
                            * of its time; NULL = none */
} cb_renew_opts;

typedef struct cb_renew_result {
    size_t size;                       /* set by the caller */
    int64_t not_before_s, not_after_s; /* of what is in the file now, seconds since 1970; 0 = nothing is */
    int64_t renew_at_s;                /* when it is due */
    int32_t renewed;                   /* 1 = it is new */
    int32_t stapled;                   /* 1 = the answer in ocsp_file is new */
} cb_renew_result;

/* Renews a certificate of this authority: a new key, and files that are replaced with the owner and mode they had.
 * Blocks. out (may be NULL) is also filled on failure, when the old certificate stays as it was. CB_EINVAL (ca, opts,
 * files that are not what they must be; the authority did not issue it), CB_ENOENT (there is none, and no leaf; its key
 * is missing: then it was made from a signing request, and needs a new one), CB_EPERM (it was revoked), else as
 * cb_ca_issue(). */
CB_API int cb_ca_renew(cb_ca *ca, const cb_renew_opts *opts, cb_renew_result *out);

/* Keeps one certificate fresh for as long as it lives: on a loop, with the work on another thread. */
typedef struct cb_renewal cb_renewal;

typedef struct cb_renewal_status {
    size_t size;                       /* set by the caller */
    int64_t not_before_s, not_after_s; /* of the certificate in the file; 0 = not known yet */
    int64_t next_s;                    /* when the next attempt is due */
    uint64_t renewed;                  /* how often */
    uint32_t failures;                 /* in a row; 0 = the last attempt was good */
    int32_t error;                     /* of the last attempt, enum cb_error */
} cb_renewal_status;

typedef struct cb_renewal_opts {
    size_t size;
    const char *ca_dir;         /* of the authority; required. It is opened for each attempt */
    const cb_renew_opts *renew; /* which certificate; required, copied. if_due does not count */
    cb_identity *identity;      /* reloaded after each renewal: new handshakes use the new certificate, connections stay
                                 * as they are. Referenced; NULL = none */
    const cb_log *log;          /* module "renewal"; borrowed; NULL = the loop's */
    void (*on_done)(cb_renewal *r, int rc, void *user); /* after each attempt that renewed or failed (cb_last_error()
                                                         * says why); may free the object; NULL = nobody */
    void *user;
    uint32_t retry_s;     /* after the first failure, then twice as long each time; 0 = 60 */
    uint32_t retry_max_s; /* at most; 0 = 3,600 */
} cb_renewal_opts;

/* Looks at the certificate soon, renews it when it is due, and goes on so. A failure keeps the old certificate, is
 * logged, and tried again. CB_EINVAL (out, loop, opts), CB_ENOTSUP (a loop of a simulation), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_renewal_new(cb_renewal **out, cb_loop *loop, const cb_renewal_opts *opts);
/* Renews at once, due or not. CB_EAGAIN: an attempt is under way. */
CB_API int cb_renewal_now(cb_renewal *r);
/* CB_EINVAL (r, out, its size). */
CB_API int cb_renewal_status_get(const cb_renewal *r, cb_renewal_status *out);
/* An attempt that is under way ends by itself, untold. NULL is fine. */
CB_API void cb_renewal_free(cb_renewal *r);

CB_END
#endif
