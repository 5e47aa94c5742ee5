/* Rings of ticket keys, as they come from another host: what is read is a ring, seals with a key of its own, and is the
 * same when written again. */
#include "transport/ticket_file.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const cb_ticket_turns turns = {43200, 600};
    cb_ticket_ring ring = {0};
    uint8_t again[CB_TICKET_RING_BYTES];
    if (cb_ticket_ring_read("fuzz", data, size, &ring) < 0) return 0;
    cb_ticket_ring_write(&ring, again);
    if (size != sizeof again || memcmp(again, data, size) != 0) abort();
    static const int64_t times[] = {0, 1, 1700000000, INT64_MAX / 2};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        int at = cb_ticket_ring_sealing(&ring, times[i]);
        if (at < 0 || at >= CB_TICKET_RING || ring.keys[at].made == 0) abort();
        (void)cb_ticket_ring_due(&ring, &turns, times[i]);
    }
    return 0;
}
