/* Which traces are kept, and the IDs of new ones. */
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include <cb/trace.h>
#include <gnutls/crypto.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#define RANDOM_RANGE (UINT64_C(1) << 56) /* the last seven bytes of a trace ID */

struct cb_sampler {
    cb_sampler_opts o;
    uint64_t threshold; /* trace IDs from here on are sampled */
    pthread_mutex_t lock;
    double tokens;
    cb_time filled; /* when tokens was right; 0 = never */
};

int cb_trace_context_new(cb_trace_context *out, const cb_trace_context *parent) {
    if (!out || out->size < sizeof *out)
        return cb_fail(CB_EINVAL, "cb_trace_context_new: out, and its size, are needed");
    cb_trace_context c = {.size = sizeof c, .flags = CB_TRACE_RANDOM};
    if (gnutls_rnd(GNUTLS_RND_NONCE, c.span_id, sizeof c.span_id) < 0) return cb_fail(CB_ETLS, "no random bytes");
    c.span_id[0] |= c.span_id[0] == 0; /* never all zero */
    if (parent) {
        memcpy(c.trace_id, parent->trace_id, sizeof c.trace_id);
        c.flags = parent->flags;
    } else if (gnutls_rnd(GNUTLS_RND_NONCE, c.trace_id, sizeof c.trace_id) < 0) {
        return cb_fail(CB_ETLS, "no random bytes");
    }
    c.trace_id[0] |= c.trace_id[0] == 0;
    *out = c;
    return CB_OK;
}

int cb_sampler_new(cb_sampler **out, const cb_sampler_opts *opts) {
    cb_sampler_opts o;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_sampler_opts");
    if (rc < 0) return rc;
    if (!out) return cb_fail(CB_EINVAL, "cb_sampler_new: out is needed");
    if (!(o.ratio >= 0 && o.ratio <= 1)) return cb_fail(CB_EINVAL, "sampler: ratio %g is not 0 to 1", o.ratio);
    if (!(o.per_second >= 0) || !isfinite(o.per_second))
        return cb_fail(CB_EINVAL, "sampler: per_second %g is no rate", o.per_second);
    cb_sampler *s = cb_mem_new(&cb_alloc_libc, sizeof *s);
    if (!s) return cb_fail(CB_ENOMEM, "no memory for a sampler");
    s->o = o;
    s->threshold = RANDOM_RANGE - (uint64_t)(o.ratio * (double)RANDOM_RANGE);
    pthread_mutex_init(&s->lock, NULL);
    *out = s;
    return CB_OK;
}

void cb_sampler_free(cb_sampler *s) {
    if (!s) return;
    pthread_mutex_destroy(&s->lock);
    cb_mem_free(&cb_alloc_libc, s);
}

/* A bucket that holds what a second may have, and one at least. */
static bool take_token(cb_sampler *s, cb_time now) {
    double most = s->o.per_second > 1 ? s->o.per_second : 1;
    pthread_mutex_lock(&s->lock);
    s->tokens = s->filled ? s->tokens + (double)(now > s->filled ? now - s->filled : 0) * 1e-9 * s->o.per_second : most;
    if (s->tokens > most) s->tokens = most;
    if (now > s->filled || !s->filled) s->filled = now ? now : 1;
    bool got = s->tokens >= 1;
    if (got) s->tokens -= 1;
    pthread_mutex_unlock(&s->lock);
    return got;
}

int cb_sampler_begin(cb_sampler *s, cb_trace_context *context, const cb_trace_context *parent, cb_time now) {
    bool sampled;
    if (parent && !s->o.not_parent) {
        sampled = parent->flags & CB_TRACE_SAMPLED;
    } else {
        uint64_t random = 0;
        for (int i = 9; i < 16; i++)
            random = random << 8 | context->trace_id[i];
        sampled = random >= s->threshold && (s->o.per_second == 0 || take_token(s, now));
    }
    context->flags = (uint8_t)((context->flags & ~CB_TRACE_SAMPLED) | (sampled ? CB_TRACE_SAMPLED : 0));
    return sampled;
}

int cb_sampler_keep(const cb_sampler *s, const cb_trace_context *context, int failed, uint64_t duration_ns) {
    if (context->flags & CB_TRACE_SAMPLED) return 1;
    if (failed && s->o.errors) return 1;
    return s->o.slow_ms > 0 && duration_ns >= s->o.slow_ms * UINT64_C(1000000);
}
