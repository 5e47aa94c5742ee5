/* Whatever an ACME server answers: the job ends in bounded steps, with a reason, and every URL that it would ask is
 * https and of the directory's origin. The first byte chooses the job; then answers: status, fields and a body, each
 * cut off by a line that is "--". */
#include "auth/acme_core.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char key_text[] = "-----BEGIN PRIVATE KEY-----\n"
                               "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgSj57udKCwINyioQR\n"
                               "2K9wd81SM8hxE9ZzAHHkX+XmCOOhRANCAASaNjt5dqeYsM7mbaMVK9J2DTAQMV6J\n"
                               "Jev+ti/U7XmIOjJFLKa2VUIMghyyYlC76pS6QY9MKP8TKKJZt7wjp/09\n"
                               "-----END PRIVATE KEY-----\n";

static cb_slice next_part(cb_slice *rest) {
    static const char mark[] = "\n--\n";
    const uint8_t *at = rest->len ? memmem(rest->base, rest->len, mark, 4) : NULL;
    const cb_slice part = {rest->base, at ? (size_t)(at - rest->base) : rest->len};
    const size_t used = at ? part.len + 4 : part.len;
    rest->base += used;
    rest->len -= used;
    return part;
}

static cb_slice field(cb_slice head, const char *name) {
    const uint8_t *at = head.len ? memmem(head.base, head.len, name, strlen(name)) : NULL;
    if (!at) return (cb_slice){NULL, 0};
    at += strlen(name);
    const size_t left = head.len - (size_t)(at - head.base);
    const uint8_t *end = memchr(at, '\n', left);
    return (cb_slice){at, end ? (size_t)(end - at) : left};
}

static void run(cb_acme_core *c, cb_slice rest, int64_t now) {
    static const char origin[] = "https://ca.example";
    const size_t len = sizeof origin - 1;
    for (int turn = 0; turn < 400; turn++) {
        switch (cb_acme_core_next(c, now)) {
        case CB_ACME_SEND: {
            if (strncasecmp(c->request.url, origin, len) != 0 || !strchr("/?#", c->request.url[len])) abort();
            cb_slice head = next_part(&rest);
            const cb_slice body = next_part(&rest);
            const int status =
                head.len >= 3 ? (head.base[0] % 10) * 100 + (head.base[1] % 10) * 10 + head.base[2] % 10 : 200;
            const cb_acme_answer a = {.status = status < 100 ? 200 : status,
                                      .nonce = field(head, "nonce:"),
                                      .location = field(head, "location:"),
                                      .retry_after = field(head, "retry:"),
                                      .content_type = field(head, "type:"),
                                      .body = body};
            cb_acme_core_answer(c, &a, now);
            break;
        }
        case CB_ACME_WAIT:
            if (c->wake_ms <= now) abort();
            now = c->wake_ms;
            break;
        case CB_ACME_PRESENT:
            if (!cb_web_is_token(c->authz[c->at].token, strlen(c->authz[c->at].token), CB_ACME_TOKEN_BYTES)) abort();
            cb_acme_core_presented(c, CB_OK, now);
            break;
        case CB_ACME_SAVE:
            break;
        case CB_ACME_END:
            if (c->rc < 0 && !c->detail[0]) abort();
            return;
        }
        if (!rest.len && turn > 300) return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const names[] = {"a.example", "192.0.2.1"};
    static cb_acme_key key;
    if (size == 0) return 0;
    if (!key.priv && cb_acme_key_read(&key, cb_slice_str(key_text)) < 0) abort();
    cb_acme_core core;
    const cb_acme_plan plan = {.job = data[0] % (CB_ACME_JOB_ARI + 1),
                               .challenge = 1 + (data[0] >> 6) % 3,
                               .directory = "https://ca.example/dir",
                               .agree_terms = true,
                               .patience_ms = 600000,
                               .key = &key,
                               .new_key = &key,
                               .names = names,
                               .names_len = 2,
                               .csr = cb_slice_str("csr"),
                               .cert = cb_slice_str("cert"),
                               .cert_id = "a.b",
                               .replaces = "a.b"};
    if (cb_acme_core_init(&core, &plan, data[0] & 16 ? "https://ca.example/account/1" : NULL,
                          data[0] & 32 ? "https://ca.example/order/1" : NULL) < 0) {
        abort();
    }
    run(&core, (cb_slice){data + 1, size - 1}, 1700000000000);
    cb_acme_core_clear(&core);
    return 0;
}
