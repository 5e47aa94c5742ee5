#include "support/udp_relay.h"
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

static int socket_on(uint16_t port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    const int big = 4 << 20;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    cr_assert_geq(fd, 0, "socket");
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &big, sizeof big);
    cr_assert_eq(bind(fd, (struct sockaddr *)&at, sizeof at), 0, "bind to %u", port);
    return fd;
}

static void to_client(cb_watch *w, unsigned events, void *user) {
    (void)w;
    (void)events;
    struct relay_side *s = user;
    uint8_t packet[2048];
    ssize_t n;
    while ((n = recv(s->back, packet, sizeof packet, 0)) > 0) {
        if (s->relay->blocked) {
            s->relay->swallowed++;
            continue;
        }
        s->relay->passed++;
        (void)sendto(s->relay->front, packet, (size_t)n, 0, (struct sockaddr *)&s->client, sizeof s->client);
    }
}

static void side_bind(struct relay_side *s) {
    s->back = socket_on(0);
    cr_assert_eq(cb_watch_new(&s->watch, s->relay->loop, s->back, CB_READABLE, to_client, s), CB_OK, "watch");
}

static struct relay_side *side_of(udp_relay *r, const struct sockaddr_in *client) {
    for (size_t i = 0; i < r->sides; i++)
        if (r->side[i].client.sin_port == client->sin_port) return &r->side[i];
    cr_assert_lt(r->sides, RELAY_CLIENTS, "too many clients");
    struct relay_side *s = &r->side[r->sides++];
    *s = (struct relay_side){.relay = r, .client = *client};
    side_bind(s);
    return s;
}

static void to_server(cb_watch *w, unsigned events, void *user) {
    (void)w;
    (void)events;
    udp_relay *r = user;
    uint8_t packet[2048];
    struct sockaddr_in from;
    socklen_t len = sizeof from;
    ssize_t n;
    while ((n = recvfrom(r->front, packet, sizeof packet, 0, (struct sockaddr *)&from, &len)) > 0) {
        if (r->blocked) {
            r->swallowed++;
            continue;
        }
        r->passed++;
        (void)sendto(side_of(r, &from)->back, packet, (size_t)n, 0, &r->server.sa, cb_addr_len(&r->server));
    }
}

void udp_relay_open(udp_relay *r, cb_loop *loop, uint16_t port, uint16_t server_port) {
    struct sockaddr_in at;
    socklen_t len = sizeof at;
    memset(r, 0, sizeof *r);
    r->loop = loop;
    r->front = socket_on(port);
    cr_assert_eq(getsockname(r->front, (struct sockaddr *)&at, &len), 0);
    r->port = ntohs(at.sin_port);
    cr_assert_eq(cb_addr_parse(&r->server, "127.0.0.1", server_port), CB_OK);
    cr_assert_eq(cb_watch_new(&r->front_watch, loop, r->front, CB_READABLE, to_server, r), CB_OK, "watch");
}

void udp_relay_rebind(udp_relay *r) {
    for (size_t i = 0; i < r->sides; i++) {
        cb_watch_free(r->side[i].watch);
        close(r->side[i].back);
        side_bind(&r->side[i]);
    }
}

void udp_relay_close(udp_relay *r) {
    for (size_t i = 0; i < r->sides; i++) {
        cb_watch_free(r->side[i].watch);
        close(r->side[i].back);
    }
    cb_watch_free(r->front_watch);
    close(r->front);
}
