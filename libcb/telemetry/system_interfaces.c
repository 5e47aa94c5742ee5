/* cb_interface_*: what the kernel counts for each network interface. */
#include "telemetry/system.h"
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INTERFACES_MAX = 4096 };

static const struct {
    enum cb_metric_row family;
    const char *file;
} counters[] = {
    {CB_F_IF_CARRIER, "carrier_changes"},
    {CB_F_IF_RX_BYTES, "statistics/rx_bytes"},
    {CB_F_IF_TX_BYTES, "statistics/tx_bytes"},
    {CB_F_IF_RX_PACKETS, "statistics/rx_packets"},
    {CB_F_IF_TX_PACKETS, "statistics/tx_packets"},
    {CB_F_IF_RX_ERRORS, "statistics/rx_errors"},
    {CB_F_IF_TX_ERRORS, "statistics/tx_errors"},
    {CB_F_IF_RX_DROPPED, "statistics/rx_dropped"},
    {CB_F_IF_TX_DROPPED, "statistics/tx_dropped"},
    {CB_F_IF_RX_MULTICAST, "statistics/multicast"},
    {CB_F_IF_RX_CRC, "statistics/rx_crc_errors"},
    {CB_F_IF_RX_FRAME, "statistics/rx_frame_errors"},
    {CB_F_IF_RX_LENGTH, "statistics/rx_length_errors"},
    {CB_F_IF_RX_FIFO, "statistics/rx_fifo_errors"},
    {CB_F_IF_RX_MISSED, "statistics/rx_missed_errors"},
    {CB_F_IF_RX_NOHANDLER, "statistics/rx_nohandler"},
    {CB_F_IF_TX_CARRIER, "statistics/tx_carrier_errors"},
    {CB_F_IF_TX_FIFO, "statistics/tx_fifo_errors"},
    {CB_F_IF_COLLISIONS, "statistics/collisions"},
    {CB_F_IF_MTU, "mtu"},
};

static void interface(cb_system *s, const char *folder, const char *name) {
    for (size_t i = 0; i < sizeof counters / sizeof *counters; i++) {
        const char *text = cb_system_read(s, folder, counters[i].file);
        if (text) cb_system_show(s, counters[i].family, name, strtoull(text, NULL, 10));
    }
    const char *state = cb_system_read(s, folder, "operstate"); /* RFC 2863; loopback says "unknown" */
    if (state) cb_system_show(s, CB_F_IF_UP, name, strncmp(state, "up", 2) == 0 || strncmp(state, "unknown", 7) == 0);
    const char *speed = cb_system_read(s, folder, "speed"); /* in Mbit/s; -1 when it is not known */
    if (speed && atoll(speed) > 0) cb_system_show(s, CB_F_IF_SPEED, name, (uint64_t)atoll(speed) * 125000);
}

void cb_system_interfaces(cb_system *s) {
    char path[PATH_MAX], folder[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/class/net", s->sys) >= (int)sizeof path) return;
    DIR *d = opendir(path);
    if (!d) return;
    const struct dirent *e;
    for (int n = 0; n < INTERFACES_MAX && (e = readdir(d));) {
        if (e->d_name[0] == '.' || snprintf(folder, sizeof folder, "%s/%s", path, e->d_name) >= (int)sizeof folder)
            continue;
        interface(s, folder, e->d_name);
        n++;
    }
    closedir(d);
}
