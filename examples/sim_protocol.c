/* sim_protocol - tests a small protocol of its own on a bad line, in virtual time: stop and wait over datagrams.
 *   sim_protocol [LOSS_PERCENT [SEED]]
 * The sender repeats each message until it is acknowledged. Does every message arrive once and in order, whatever the
 * line does? */
#include <cb/sim.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGES = 1000, TIMEOUT_MS = 100 };

static struct {
    cb_sim_host *host;
    cb_sim_socket *socket;
    cb_timer *timer;
    uint32_t now, sends; /* the message under way, and packets for all of them */
} sender;

static struct { uint32_t next, repeated; } receiver;

static void send_one(cb_loop *loop, void *user) {
    (void)user;
    cb_sim_socket_send(sender.socket, "receiver:7", (cb_slice){(const uint8_t *)&sender.now, sizeof sender.now}, 0);
    sender.sends++;
    cb_timer_free(sender.timer);
    cb_timer_start(&sender.timer, loop, TIMEOUT_MS, 0, send_one, NULL);
}

static void on_ack(cb_sim_socket *s, const cb_sim_datagram *d, void *user) {
    (void)s;
    (void)user;
    uint32_t number;
    if (d->data.len != sizeof number) return;
    memcpy(&number, d->data.base, sizeof number);
    if (number != sender.now) return; /* of a copy that came late */
    if (++sender.now < MESSAGES) {
        send_one(cb_sim_host_loop(sender.host), NULL);
    } else {
        cb_timer_free(sender.timer);
        sender.timer = NULL;
    }
}

static void on_message(cb_sim_socket *s, const cb_sim_datagram *d, void *user) {
    (void)user;
    uint32_t number;
    if (d->data.len != sizeof number) return;
    memcpy(&number, d->data.base, sizeof number);
    if (number == receiver.next)
        receiver.next++;
    else
        receiver.repeated++;
    cb_sim_socket_send(s, d->from, d->data, 0);
}

int main(int argc, char **argv) {
    double loss = argc > 1 ? atof(argv[1]) / 100 : 0.2;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    cb_sim *sim = NULL;
    cb_sim_host *far;
    cb_sim_socket *listener;
    int rc = cb_sim_new(&sim, CB_OPTS(cb_sim_opts, .seed = seed));
    if (rc == CB_OK) rc = cb_sim_host_new(&sender.host, sim, "sender", "10.0.0.1");
    if (rc == CB_OK) rc = cb_sim_host_new(&far, sim, "receiver", "10.0.0.2");
    if (rc == CB_OK)
        rc = cb_sim_connect(sender.host, far,
                            CB_OPTS(cb_sim_link_opts, .rate_bps = 1000000, .delay_us = 10000, .loss = loss,
                                    .duplicate = 0.05, .reorder = 0.1, .reorder_us = 15000),
                            NULL, NULL, NULL);
    if (rc == CB_OK) rc = cb_sim_socket_new(&sender.socket, sender.host, 0, on_ack, NULL);
    if (rc == CB_OK) rc = cb_sim_socket_new(&listener, far, 7, on_message, NULL);
    if (rc == CB_OK) send_one(cb_sim_host_loop(sender.host), NULL);
    if (rc == CB_OK) rc = cb_sim_run(sim); /* until nothing is left to happen */
    if (rc < 0) {
        fprintf(stderr, "sim_protocol: %s: %s\n", cb_strerror(rc), cb_last_error());
    } else {
        printf("%u messages in %.3f s of virtual time: %u packets sent, %u arrived again, run %016llx\n", receiver.next,
               (double)cb_sim_now(sim) / 1e9, sender.sends, receiver.repeated, (unsigned long long)cb_sim_digest(sim));
    }
    cb_timer_free(sender.timer);
    cb_sim_free(sim);
    return rc == CB_OK && receiver.next == MESSAGES ? 0 : 1;
}
