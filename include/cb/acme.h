/* cb/acme.h - certificates from an ACME server (RFC 8555), with renewal information (RFC 9773), external account
 * binding, and profiles (draft-ietf-acme-profiles).
 *
 * A cb_acme is one account at one server, with its state in a directory (mode 0700):
 *   account.key   the account's key (ECDSA P-256), mode 0600      account.json  where the account is
 *   STEM.order    an order under way, with its new key, 0600      STEM.pem      private key and chain in one file, 0600
 * STEM is the first name of a certificate, "*" and ":" as "_". STEM.pem serves as cert_file and as key_file of
 * cb_identity_opts. Every file is replaced as a whole, after it is on the disk: after a crash at any point the next
 * call goes on with the order that was under way. One process at a time uses a directory.
 *
 * http-01 is answered by cb_acme_http01(), tls-alpn-01 by servers whose identities have a cb_alpn01 (cb/tls.h).
 *
 * The server is not trusted: answers are bounded, every URL in them must be https and, unless `other_hosts` is set, of
 * the directory's origin; redirects are not followed; a certificate is kept only when it has the names that were asked
 * for and the key that was made for it. Everything runs on the loop's thread; files are written there (small ones). */
#ifndef CB_ACME_H
#define CB_ACME_H

#include <cb/http.h>

CB_BEGIN

typedef struct cb_acme cb_acme;

/* How control of a name is shown. */
enum cb_acme_challenge_type {
    CB_ACME_DEFAULT = 0,    /* CB_ACME_HTTP_01 */
    CB_ACME_HTTP_01 = 1,    /* RFC 8555 8.3, on port 80 */
    CB_ACME_DNS_01 = 2,     /* RFC 8555 8.4: needed for wildcards, and not for IP addresses */
    CB_ACME_TLS_ALPN_01 = 3 /* RFC 8737, on port 443 */
};

/* A challenge that has to be answered, valid during the call. Filled by the library. */
typedef struct cb_acme_challenge {
    size_t size;
    const char *name;      /* as it is to be shown: without "*." */
    const char *token;     /* http-01: path /.well-known/acme-challenge/TOKEN */
    const char *key_auth;  /* http-01: what that answers */
    const char *dns_value; /* dns-01: a TXT record of _acme-challenge.NAME; several may be there at a time */
    int32_t type;          /* enum cb_acme_challenge_type */
    uint32_t reserved;
    const char *pem; /* tls-alpn-01: key and certificate for cb_alpn01_set(); NULL in on_challenge_done() */
} cb_acme_challenge;

/* What a job came to; valid during the call. Filled by the library; what does not apply is 0 or NULL. */
typedef struct cb_acme_result {
    size_t size;
    const char *account;     /* URL of the account */
    const char *file;        /* STEM.pem, with its path */
    const char *explanation; /* ARI: a page that says why the server wants it renewed */
    int64_t not_before_s;    /* of the certificate in file, seconds since 1970 */
    int64_t not_after_s;
    int64_t renew_at_s; /* when to renew: as the server says (ARI), else after 2/3 of the lifetime, 1/2 under 10 days */
    int64_t retry_at_s; /* of what failed: when to try again; after a rate limit as the server says */
    int32_t issued;     /* 1: file is new */
    uint32_t reserved;
    int64_t check_at_s; /* ARI: when the server wants to be asked again (RFC 9773, 4.3): a minute to a day from now */
} cb_acme_result;

typedef struct cb_acme_ops {
    size_t size;
    /* Shows what c asks for, so that the server finds it from now on. Negative fails the job. NULL: nothing is to be
     * done, since cb_acme_http01() answers (tls-alpn-01 needs it). May block the loop (a command). Neither this nor
     * on_challenge_done() may free the object. */
    int (*on_challenge)(cb_acme *a, const cb_acme_challenge *c, void *user);
    /* It is not needed any more. Comes once for each on_challenge() that was good, unless the object is freed. */
    void (*on_challenge_done)(cb_acme *a, const cb_acme_challenge *c, void *user);
    /* The job is over. rc: CB_OK, or why not, with the server's words in cb_last_error(). Comes exactly once for each
     * job unless the object is freed; may start the next job and may free the object. */
    void (*on_done)(cb_acme *a, int rc, const cb_acme_result *result, void *user);
} cb_acme_ops;

typedef struct cb_acme_opts {
    size_t size;
    const char *directory;  /* https URL of the server's directory; required */
    const char *dir;        /* where the state is; made when absent (not what is above); required */
    cb_http_client *client; /* borrowed: must outlive the object; required */
    const cb_acme_ops *ops; /* borrowed; required */
    void *user;
    const char *const *contacts; /* of a new account: "mailto:..." */
    size_t contacts_len;
    const char *eab_kid; /* external account binding (RFC 8555 7.3.4): the key's name, and the key in base64url */
    const char *eab_key;
    uint32_t patience_s; /* of one job; 0 = 600 */
    uint8_t agree_terms; /* 1: a new account agrees to the server's terms of service */
    uint8_t other_hosts; /* 1: URLs in answers may lead to other https hosts */
    uint8_t reserved[2];
    uint32_t settle_ms; /* so long after the last on_challenge() the server is asked to look: time for name servers, and
                         * for other hosts that answer, to learn of it; 0 = at once */
    uint32_t reserved2;
} cb_acme_opts;

/* Opens the state, and makes the account's key when there is none. Nothing is sent. CB_EINVAL (out, loop; a field or a
 * file: named; the directory's account is at another server), CB_EEXIST (another process uses the directory),
 * CB_ENOENT, CB_EPERM, CB_ESYS, CB_ETLS, CB_ENOMEM, CB_E2BIG. */
CB_API int cb_acme_new(cb_acme **out, cb_loop *loop, const cb_acme_opts *opts);
/* A job under way ends without on_done; the next object goes on with its order. NULL is fine. */
CB_API void cb_acme_free(cb_acme *a);

typedef struct cb_acme_order {
    size_t size;
    const char *const *names; /* DNS names, wildcards, IP addresses; at least 1, at most 100 */
    size_t names_len;
    const char *profile; /* such as "shortlived"; NULL = the server's default */
    int32_t challenge;   /* enum cb_acme_challenge_type */
    int32_t key_type;    /* enum cb_key_type of the certificate's key, a new one each time; 0 = ECDSA P-256 */
    uint8_t if_due;      /* 1: only when there is no certificate of these names, or it is time to renew it */
    uint8_t failures;    /* how often in a row it failed before: retry_at_s goes by it, a minute to six hours */
    uint8_t reserved[6];
} cb_acme_order;

/* Gets a certificate; the account is made when there is none. The jobs: one at a time, else CB_EAGAIN; on_done tells
 * the outcome. CB_EINVAL (names, profile, key_type, challenge: named), CB_ENOMEM, CB_E2BIG. on_done: CB_EAUTH (the
 * server refuses, or could not verify a name), CB_ELIMIT (rate limit: retry_at_s), CB_EPROTO (the server breaks the
 * protocol), CB_ETIMEOUT (patience_s), what the client's requests give, and what writing files gives. */
CB_API int cb_acme_issue(cb_acme *a, const cb_acme_order *order);

enum cb_acme_account_op {
    CB_ACME_REGISTER = 0, /* make the account, or find it by its key */
    CB_ACME_CONTACTS = 1, /* set the contacts to those of cb_acme_opts */
    CB_ACME_ROLL_KEY = 2, /* a new key for the account (RFC 8555 7.3.5); a crash in between is mended by the next job */
    CB_ACME_DEACTIVATE = 3
};
CB_API int cb_acme_account(cb_acme *a, int op); /* as cb_acme_issue() */

/* Revokes the certificate in STEM.pem of the first name; the file stays. reason: RFC 5280 5.3.1, 0 = unspecified. As
 * cb_acme_issue(); CB_ENOENT (no such file). */
CB_API int cb_acme_revoke(cb_acme *a, const char *name, uint32_t reason);

/* The account key's RFC 7638 thumbprint: 43 characters. Lives until the key is rolled. */
CB_API const char *cb_acme_thumbprint(const cb_acme *a);

enum { CB_ACME_HTTP01_BYTES = 384 };

/* Answers an http-01 challenge without any state: out (cap bytes, at least CB_ACME_HTTP01_BYTES) gets what a request
 * for path is to be answered with (200, application/octet-stream), for the account with this thumbprint. Any host that
 * knows the thumbprint, which is no secret, answers so, behind anycast too. Returns the length; CB_ENOENT: path is not
 * /.well-known/acme-challenge/ with a token; CB_EINVAL (out, cap, thumbprint). Thread-safe. */
CB_API int64_t cb_acme_http01(char *out, size_t cap, const char *thumbprint, cb_slice path);

/* A self-signed certificate and its key, PEM, for names that wait for their first certificate: a server can start with
 * it (pem of cb_identity_opts), and no client trusts it. To be freed with cb_acme_text_free(), which wipes. CB_EINVAL
 * (pem; a name: told), CB_ETLS, CB_ENOMEM. Thread-safe. */
CB_API int cb_acme_placeholder(char **pem, const char *const *names, size_t names_len, int64_t now_s);
CB_API void cb_acme_text_free(char *text); /* NULL is fine */

CB_END
#endif
