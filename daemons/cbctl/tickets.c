/* The ring of session-ticket keys that the hosts of a service share: turned on one of them, looked at anywhere. */
#include "cbctl.h"
#include <cb.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { KEYS = 3, ENTRY = 40, SIZE = 8 + KEYS * ENTRY };

static bool number(const char *text, uint32_t *out) {
    char *end;
    errno = 0;
    unsigned long v = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || v > 31536000) return false;
    *out = (uint32_t)v;
    return true;
}

int cbctl_tickets_turn(int argc, char **argv) {
    static const struct option options[] = {{"rotate-s", required_argument, NULL, 'r'},
                                            {"lead-s", required_argument, NULL, 'l'},
                                            {"force", no_argument, NULL, 'f'},
                                            {NULL, 0, NULL, 0}};
    cb_tickets_opts o = {.size = sizeof o};
    cb_tickets *ring = NULL;
    bool force = false;
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        uint32_t *to = option == 'r' ? &o.rotate_s : &o.lead_s;
        switch (option) {
        case 'r':
        case 'l':
            if (!number(optarg, to)) return cbctl_usage("%s: \"%s\" is no number of seconds", argv[optind - 2], optarg);
            break;
        case 'f':
            force = true;
            break;
        case ':':
            return cbctl_usage("%s needs a value", argv[optind - 1]);
        default:
            return cbctl_usage("tickets turn: unknown option %s", argv[optind - 1]);
        }
    }
    if (optind + 1 != argc) return cbctl_usage("tickets turn: one FILE");
    o.file = argv[optind];
    int rc = cb_tickets_new(&ring, &o); /* makes it, and turns it when that is due */
    if (rc >= 0 && force) rc = cb_tickets_rotate(ring, 1);
    cb_tickets_unref(ring);
    return rc < 0 ? cbctl_failed(rc) : CBCTL_OK;
}

static int64_t time_of(const uint8_t *p) {
    uint64_t v = 0;
    for (int i = 0; i < 8; i++)
        v = v << 8 | p[i];
    return (int64_t)v;
}

static void print(const uint8_t ring[SIZE], bool json) {
    const int64_t now = (int64_t)time(NULL);
    bool sealing = false;
    for (int i = 0; i < KEYS; i++) {
        const int64_t from = time_of(ring + 8 + i * ENTRY);
        if (from == 0) break;
        const bool seals = !sealing && from <= now;
        const char *state = from > now ? "next" : seals ? "in use" : "opens only";
        char when[32] = "?";
        struct tm tm;
        if (gmtime_r(&from, &tm)) strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm);
        sealing = sealing || seals;
        if (json)
            printf("%s{\"from\": \"%s\", \"age_s\": %" PRId64 ", \"state\": \"%s\"}", i ? ", " : "[", when, now - from,
                   state);
        else
            printf("%s  %s\n", when, state);
    }
    if (json) puts("]");
}

int cbctl_tickets_show(int argc, char **argv) {
    static const struct option options[] = {{"json", no_argument, NULL, 'j'}, {NULL, 0, NULL, 0}};
    uint8_t ring[SIZE + 1];
    bool json = false;
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        if (option != 'j') return cbctl_usage("tickets show: unknown option %s", argv[optind - 1]);
        json = true;
    }
    if (optind + 1 != argc) return cbctl_usage("tickets show: one FILE");
    FILE *file = fopen(argv[optind], "rbe");
    if (!file) {
        fprintf(stderr, "cbctl: %s: %s\n", argv[optind], strerror(errno));
        return CBCTL_FAILED;
    }
    size_t n = fread(ring, 1, sizeof ring, file);
    fclose(file);
    if (n != SIZE || memcmp(ring, "CBTICK1\n", 8) != 0 || time_of(ring + 8) <= 0) {
        fprintf(stderr, "cbctl: %s: not a ring of ticket keys\n", argv[optind]);
        return CBCTL_FAILED;
    }
    print(ring, json);
    explicit_bzero(ring, sizeof ring);
    return CBCTL_OK;
}
