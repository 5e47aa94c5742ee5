/* Whatever a provider answers: what we ask goes to https and to the issuer's origin, a request ends in bounded steps
 * with a result or a reason, and keys that were good stay. The first byte chooses: a request (0 to 3), the keys (4),
 * the query of a login (5), a key file (6). Then answers: a line of status and content type, and a body, each ended by
 * a line "--". */
#include "auth/oidc_core.h"
#include "auth/oidc_int.h"
#include "auth/oidc_job.h"
#include "base/mem.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ISSUER "https://id.example"

static const char meta_text[] =
    "{\"issuer\":\"" ISSUER "\",\"jwks_uri\":\"" ISSUER "/k\",\"token_endpoint\":\"" ISSUER
    "/t\",\"introspection_endpoint\":\"" ISSUER "/i\",\"revocation_endpoint\":\"" ISSUER
    "/r\",\"device_authorization_endpoint\":\"" ISSUER "/d\",\"authorization_endpoint\":\"" ISSUER "/a\"}";

static cb_oidc *provider;
static cb_oidc_login *login;

static void set_up(void) {
    cb_oidc_meta *meta = NULL;
    const cb_oidc_answer a = {
        .status = 200, .content_type = cb_slice_str("application/json"), .body = cb_slice_str(meta_text)};
    if (cb_oidc_new(&provider, CB_OPTS(cb_oidc_opts, .issuer = ISSUER, .client_id = "c", .client_secret = "s")) < 0)
        abort();
    if (cb_oidc_meta_read(&meta, &provider->conf, &a) < 0) abort();
    cb_oidc_meta_offer(provider, meta);
    cb_oidc_meta_unref(meta);
    if (cb_oidc_login_new(&login, provider, CB_OPTS(cb_oidc_login_opts, .redirect_uri = "https://me/")) < 0) abort();
}

static cb_slice next_part(cb_slice *rest) {
    const uint8_t *at = rest->len ? memmem(rest->base, rest->len, "\n--\n", 4) : NULL;
    const cb_slice part = {rest->base, at ? (size_t)(at - rest->base) : rest->len};
    const size_t used = at ? part.len + 4 : part.len;
    rest->base += used;
    rest->len -= used;
    return part;
}

static cb_oidc_answer next_answer(cb_slice *rest) {
    cb_slice part = next_part(rest);
    const uint8_t *line = part.len ? memchr(part.base, '\n', part.len) : NULL;
    const size_t n = line ? (size_t)(line - part.base) : part.len;
    cb_oidc_answer a = {.status = 200};
    if (n >= 3) a.status = (part.base[0] % 10) * 100 + (part.base[1] % 10) * 10 + part.base[2] % 10;
    if (n > 4) a.content_type = (cb_slice){part.base + 4, n - 4};
    if (line) a.body = (cb_slice){line + 1, part.len - n - 1};
    a.cache_control = a.etag = a.content_type;
    return a;
}

static void check_url(const char *url) {
    static const char origin[] = ISSUER;
    if (strncmp(url, origin, sizeof origin - 1) != 0 || !strchr("/?", url[sizeof origin - 1])) abort();
}

static void run_job(int kind, bool known, cb_slice rest) {
    static const uint8_t chance[16] = {1};
    cb_oidc_job job;
    int64_t now = 1000;
    cb_oidc_job_init(&job, &provider->conf, kind);
    if (known) job.meta = cb_oidc_meta_get(provider);
    for (int turn = 0; turn < 1000; turn++) {
        switch (cb_oidc_job_next(&job, now, 1700000000 + now / 1000, chance)) {
        case CB_OIDC_JOB_SEND: {
            check_url(job.url);
            const bool more = rest.len > 0;
            const cb_oidc_answer a = next_answer(&rest);
            if (more)
                cb_oidc_job_answer(&job, &a, now, 1700000000 + now / 1000);
            else
                cb_oidc_job_unanswered(&job, CB_EPROTO, now);
            break;
        }
        case CB_OIDC_JOB_WAIT:
            if (job.wake_ms <= now) abort();
            now = job.wake_ms;
            break;
        case CB_OIDC_JOB_PROMPT:
            if (!job.device.user_code || !job.device.url) abort();
            cb_oidc_job_prompted(&job, now);
            break;
        case CB_OIDC_JOB_DONE:
            if (job.rc < 0 && !job.detail[0]) abort();
            if (job.rc == CB_OK && kind < CB_OIDC_JOB_REVOKE && !job.tokens.access_token) abort();
            if (job.rc == CB_OK && kind == CB_OIDC_JOB_INTROSPECT && !job.token) abort();
            cb_oidc_job_clear(&job);
            return;
        }
    }
    abort();
}

static void run_keys(cb_slice rest) {
    cb_oidc_core core;
    int64_t now = 1000;
    cb_oidc_core_init(&core, &provider->conf, now);
    while (rest.len) {
        if (cb_oidc_core_next(&core, now) == CB_OIDC_SEND) {
            check_url(core.url);
            const cb_oidc_answer a = next_answer(&rest);
            const bool had = core.keys != NULL;
            cb_oidc_core_answer(&core, &a, now);
            if (had && !core.keys) abort();
            if (core.keys && !cb_jwks_len(core.keys)) abort();
        } else {
            if (core.wake_ms <= now) abort();
            now = core.wake_ms;
        }
        cb_oidc_core_miss(&core, now);
    }
    cb_oidc_core_clear(&core);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cb_oidc_request_opts request = {.size = sizeof request};
    cb_jwt_signer *key = NULL;
    char id[256], error[64];
    if (!provider) set_up();
    if (!size) return 0;
    const cb_slice rest = {data + 1, size - 1};
    const int what = data[0] % 7;
    if (what <= CB_OIDC_JOB_INTROSPECT) {
        run_job(what, data[0] & 64, rest);
    } else if (what == 4) {
        run_keys(rest);
    } else if (what == 5) {
        if (cb_oidc_login_answer(login, rest, &request, error) == CB_OK) abort(); /* nobody guesses the state */
    } else {
        cb_oidc_account_read(&key, id, sizeof id, rest);
        cb_jwt_signer_unref(key);
    }
    return 0;
}
