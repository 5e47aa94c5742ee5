/* What a provider's keys are, without input and output: when to ask for what, and what stays while there is no answer.
 * Time is an argument, in milliseconds from any origin.
 *
 *   while (cb_oidc_core_next(c, now) == CB_OIDC_SEND) send c->url, then answer() or unanswered();
 *   else wait until c->wake_ms.
 *
 * Discovery every hour; the keys every refresh_ms and as early as Cache-Control asks for (not under 30 s), sooner after
 * a token with an unknown key, but 10 s after the last time at the earliest. Each of the two has a time of its own, so
 * that neither floods of unknown keys nor failures of the other push it back. */
#ifndef CB_AUTH_OIDC_CORE_H
#define CB_AUTH_OIDC_CORE_H

#include "auth/jwks.h"
#include "auth/oidc_meta.h"

enum cb_oidc_what { CB_OIDC_SEND, CB_OIDC_WAIT };
enum { CB_OIDC_OLD_SETS = 8, CB_OIDC_ETAG_BYTES = 256 };

typedef struct cb_oidc_core {
    const cb_oidc_conf *conf;
    cb_oidc_meta *meta; /* NULL: nothing was discovered yet */
    cb_jwks *keys;      /* that verify: those published, and those in their grace time; NULL: none */
    cb_jwks *published; /* in the last good answer */
    struct {
        cb_jwks *set;
        int64_t until_ms;
    } old[CB_OIDC_OLD_SETS]; /* what was published before, the oldest first */
    size_t old_len;
    char url[CB_OIDC_URL_BYTES + 1];              /* what is to be asked */
    char etag[CB_OIDC_ETAG_BYTES];                /* for If-None-Match, when asking for keys; "": none */
    bool asking_keys, sent, alt, missed, changed; /* changed: meta or keys; the driver clears it */
    int64_t wake_ms;                              /* INT64_MAX: only an answer matters */
    int64_t meta_at, keys_at, keys_asked_ms, good_ms;
    unsigned meta_failures, keys_failures; /* in a row */
    uint32_t random;
    uint64_t fetches, failures, rotations;
    char detail[512]; /* of the last failure; "" after a good answer */
} cb_oidc_core;

void cb_oidc_core_init(cb_oidc_core *c, const cb_oidc_conf *conf, int64_t now_ms);
void cb_oidc_core_clear(cb_oidc_core *c);
enum cb_oidc_what cb_oidc_core_next(cb_oidc_core *c, int64_t now_ms);
void cb_oidc_core_answer(cb_oidc_core *c, const cb_oidc_answer *a, int64_t now_ms);
/* There was none, for the reason in the thread's detail. */
void cb_oidc_core_unanswered(cb_oidc_core *c, int64_t now_ms);
/* A token names a key that is not there. */
void cb_oidc_core_miss(cb_oidc_core *c, int64_t now_ms);

#endif
