/* Early data at most once: the ClientHellos whose early data this host has taken (RFC 8446, 8.1). */
#ifndef CB_TRANSPORT_TLS_REPLAY_H
#define CB_TRANSPORT_TLS_REPLAY_H

#include <cb/base.h>
#include <gnutls/gnutls.h>
#include <stdbool.h>

/* Shared by all workers; thread-safe. Bounded: when it is full, early data falls back to a full round trip. Tickets
 * that are older than the guard get no early data either, so a restart forgets nothing that matters. */
typedef struct cb_replay_guard cb_replay_guard;

/* What was taken is remembered for lifetime_s and skew_s at least. Early data of tickets from before the first use of
 * the guard is never taken. With skew_s none is taken for so long after that, and none of tickets that were made, by
 * whatever clock, before that. */
int cb_replay_guard_new(cb_replay_guard **out, uint32_t lifetime_s, uint32_t skew_s);
bool cb_replay_guard_ready(cb_replay_guard *g);
void cb_replay_guard_free(cb_replay_guard *g);
/* How many hellos it has seen again since this was asked last, by any thread. */
uint64_t cb_replay_guard_take_replays(cb_replay_guard *g);
void cb_replay_guard_enable(cb_replay_guard *g, gnutls_session_t session);

#endif
