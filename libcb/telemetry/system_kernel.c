/* What the kernel's network stack counts (RFC 4293, 4022, 4113 and Linux' own), of this network namespace. */
#include "telemetry/system.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Files that hold pairs of lines: "Tcp: ActiveOpens PassiveOpens ..." and "Tcp: 12 3 ...". */
static const struct {
    const char *section, *key;
    enum cb_metric_row family;
    const char *label;
} pairs[] = {
    {"Ip", "InReceives", CB_F_IP_RECEIVED, "4"},
    {"Ip", "InDelivers", CB_F_IP_DELIVERED, "4"},
    {"Ip", "OutRequests", CB_F_IP_SENT, "4"},
    {"Ip", "ForwDatagrams", CB_F_IP_FORWARDED, "4"},
    {"Ip", "InHdrErrors", CB_F_IP_HEADER_ERRORS, "4"},
    {"Ip", "InAddrErrors", CB_F_IP_ADDRESS_ERRORS, "4"},
    {"Ip", "InDiscards", CB_F_IP_RECEIVE_DISCARDS, "4"},
    {"Ip", "OutDiscards", CB_F_IP_SEND_DISCARDS, "4"},
    {"Ip", "OutNoRoutes", CB_F_IP_SEND_NO_ROUTE, "4"},
    {"Ip", "ReasmOKs", CB_F_IP_REASSEMBLED, "4"},
    {"Ip", "ReasmFails", CB_F_IP_REASSEMBLY_FAILED, "4"},
    {"Ip", "FragOKs", CB_F_IP_FRAGMENTED, "4"},
    {"Ip", "FragFails", CB_F_IP_FRAGMENT_FAILED, "4"},
    {"IpExt", "InOctets", CB_F_IP_RECEIVED_BYTES, "4"},
    {"IpExt", "OutOctets", CB_F_IP_SENT_BYTES, "4"},
    {"IpExt", "InNoRoutes", CB_F_IP_RECEIVE_NO_ROUTE, "4"},
    {"IpExt", "InTruncatedPkts", CB_F_IP_TRUNCATED, "4"},
    {"IpExt", "InCEPkts", CB_F_IP_CE, "4"},
    {"Icmp", "InMsgs", CB_F_ICMP_RECEIVED, "4"},
    {"Icmp", "OutMsgs", CB_F_ICMP_SENT, "4"},
    {"Icmp", "InErrors", CB_F_ICMP_ERRORS, "4"},
    {"Icmp", "InDestUnreachs", CB_F_ICMP_UNREACHABLE, "4"},
    {"Icmp", "InTimeExcds", CB_F_ICMP_TIME_EXCEEDED, "4"},
    {"Icmp", "OutRateLimitHost", CB_F_ICMP_LIMITED, "4"},
    {"Tcp", "ActiveOpens", CB_F_TCP_ACTIVE, NULL},
    {"Tcp", "PassiveOpens", CB_F_TCP_PASSIVE, NULL},
    {"Tcp", "AttemptFails", CB_F_TCP_FAILED, NULL},
    {"Tcp", "EstabResets", CB_F_TCP_RESETS, NULL},
    {"Tcp", "CurrEstab", CB_F_TCP_ESTABLISHED, NULL},
    {"Tcp", "InSegs", CB_F_TCP_RECEIVED, NULL},
    {"Tcp", "OutSegs", CB_F_TCP_SENT, NULL},
    {"Tcp", "RetransSegs", CB_F_TCP_RETRANSMITTED, NULL},
    {"Tcp", "InErrs", CB_F_TCP_ERRORS, NULL},
    {"Tcp", "OutRsts", CB_F_TCP_RESETS_SENT, NULL},
    {"Tcp", "InCsumErrors", CB_F_TCP_CHECKSUM, NULL},
    {"TcpExt", "TCPTimeouts", CB_F_TCP_TIMEOUTS, NULL},
    {"TcpExt", "TCPFastRetrans", CB_F_TCP_FAST_RETRANSMITS, NULL},
    {"TcpExt", "TCPLostRetransmit", CB_F_TCP_LOST_RETRANSMITS, NULL},
    {"TcpExt", "TCPSpuriousRTOs", CB_F_TCP_SPURIOUS, NULL},
    {"TcpExt", "TCPSackRecovery", CB_F_TCP_SACK_RECOVERIES, NULL},
    {"TcpExt", "TCPOFOQueue", CB_F_TCP_REORDERED, NULL},
    {"TcpExt", "ListenOverflows", CB_F_TCP_LISTEN_OVERFLOWS, NULL},
    {"TcpExt", "ListenDrops", CB_F_TCP_LISTEN_DROPS, NULL},
    {"TcpExt", "SyncookiesSent", CB_F_TCP_COOKIES_SENT, NULL},
    {"TcpExt", "SyncookiesRecv", CB_F_TCP_COOKIES_GOOD, NULL},
    {"TcpExt", "SyncookiesFailed", CB_F_TCP_COOKIES_BAD, NULL},
    {"TcpExt", "TCPAbortOnMemory", CB_F_TCP_MEMORY_ABORTS, NULL},
    {"TcpExt", "TCPMemoryPressures", CB_F_TCP_MEMORY_PRESSURES, NULL},
    {"TcpExt", "TCPBacklogDrop", CB_F_TCP_BACKLOG_DROPS, NULL},
    {"TcpExt", "TCPRcvCollapsed", CB_F_TCP_RECEIVE_COLLAPSED, NULL},
    {"TcpExt", "TCPToZeroWindowAdv", CB_F_TCP_ZERO_WINDOWS, NULL},
    {"Udp", "InDatagrams", CB_F_UDP_RECEIVED, "4"},
    {"Udp", "OutDatagrams", CB_F_UDP_SENT, "4"},
    {"Udp", "NoPorts", CB_F_UDP_NO_PORT, "4"},
    {"Udp", "InErrors", CB_F_UDP_ERRORS, "4"},
    {"Udp", "RcvbufErrors", CB_F_UDP_RECEIVE_FULL, "4"},
    {"Udp", "SndbufErrors", CB_F_UDP_SEND_FULL, "4"},
    {"Udp", "InCsumErrors", CB_F_UDP_CHECKSUM, "4"},
};

/* A name and a value on each line. */
static const struct {
    const char *key;
    enum cb_metric_row family;
} ip6[] = {
    {"Ip6InReceives", CB_F_IP_RECEIVED},
    {"Ip6InDelivers", CB_F_IP_DELIVERED},
    {"Ip6OutRequests", CB_F_IP_SENT},
    {"Ip6OutForwDatagrams", CB_F_IP_FORWARDED},
    {"Ip6InOctets", CB_F_IP_RECEIVED_BYTES},
    {"Ip6OutOctets", CB_F_IP_SENT_BYTES},
    {"Ip6InHdrErrors", CB_F_IP_HEADER_ERRORS},
    {"Ip6InAddrErrors", CB_F_IP_ADDRESS_ERRORS},
    {"Ip6InTruncatedPkts", CB_F_IP_TRUNCATED},
    {"Ip6InDiscards", CB_F_IP_RECEIVE_DISCARDS},
    {"Ip6OutDiscards", CB_F_IP_SEND_DISCARDS},
    {"Ip6InNoRoutes", CB_F_IP_RECEIVE_NO_ROUTE},
    {"Ip6OutNoRoutes", CB_F_IP_SEND_NO_ROUTE},
    {"Ip6ReasmOKs", CB_F_IP_REASSEMBLED},
    {"Ip6ReasmFails", CB_F_IP_REASSEMBLY_FAILED},
    {"Ip6FragOKs", CB_F_IP_FRAGMENTED},
    {"Ip6FragFails", CB_F_IP_FRAGMENT_FAILED},
    {"Ip6InCEPkts", CB_F_IP_CE},
    {"Icmp6InMsgs", CB_F_ICMP_RECEIVED},
    {"Icmp6OutMsgs", CB_F_ICMP_SENT},
    {"Icmp6InErrors", CB_F_ICMP_ERRORS},
    {"Icmp6InDestUnreachs", CB_F_ICMP_UNREACHABLE},
    {"Icmp6InTimeExcds", CB_F_ICMP_TIME_EXCEEDED},
    {"Icmp6OutRateLimitHost", CB_F_ICMP_LIMITED},
    {"Udp6InDatagrams", CB_F_UDP_RECEIVED},
    {"Udp6OutDatagrams", CB_F_UDP_SENT},
    {"Udp6NoPorts", CB_F_UDP_NO_PORT},
    {"Udp6InErrors", CB_F_UDP_ERRORS},
    {"Udp6RcvbufErrors", CB_F_UDP_RECEIVE_FULL},
    {"Udp6SndbufErrors", CB_F_UDP_SEND_FULL},
    {"Udp6InCsumErrors", CB_F_UDP_CHECKSUM},
};

/* "TCP: inuse 1 orphan 0 tw 12": names and values in turn. */
static const struct {
    const char *section, *key;
    enum cb_metric_row family;
    const char *label;
} sockets[] = {
    {"TCP", "inuse", CB_F_TCP_IN_USE, "4"},    {"TCP", "tw", CB_F_TCP_TIME_WAIT, NULL},
    {"TCP", "orphan", CB_F_TCP_ORPHANS, NULL}, {"TCP", "mem", CB_F_TCP_MEMORY, NULL},
    {"UDP", "inuse", CB_F_UDP_IN_USE, "4"},    {"UDP", "mem", CB_F_UDP_MEMORY, NULL},
    {"TCP6", "inuse", CB_F_TCP_IN_USE, "6"},   {"UDP6", "inuse", CB_F_UDP_IN_USE, "6"},
};

#define ROWS(table) (sizeof(table) / sizeof *(table))

static void show_pair(cb_system *s, const char *section, const char *key, const char *value) {
    for (size_t i = 0; i < ROWS(pairs); i++) {
        if (strcmp(pairs[i].key, key) != 0 || strcmp(pairs[i].section, section) != 0) continue;
        cb_system_show(s, pairs[i].family, pairs[i].label, strtoull(value, NULL, 10));
        return;
    }
}

static void read_pairs(cb_system *s, const char *file) {
    char *rest = cb_system_read(s, s->proc, file);
    while (rest && *rest) {
        char *names = strsep(&rest, "\n"), *values = rest ? strsep(&rest, "\n") : NULL;
        char *section = strsep(&names, ":");
        if (!names || !values || !strsep(&values, ":") || !values) continue;
        for (char *name, *value; (name = strsep(&names, " ")) && (value = strsep(&values, " "));)
            if (*name && *value) show_pair(s, section, name, value);
    }
}

static void read_ip6(cb_system *s) {
    char *rest = cb_system_read(s, s->proc, "net/snmp6");
    while (rest && *rest) {
        char *line = strsep(&rest, "\n"), *key = strsep(&line, " \t");
        for (size_t i = 0; line && i < ROWS(ip6); i++)
            if (strcmp(ip6[i].key, key) == 0) cb_system_show(s, ip6[i].family, "6", strtoull(line, NULL, 10));
    }
}

static void read_sockets(cb_system *s, const char *file) {
    char *rest = cb_system_read(s, s->proc, file);
    while (rest && *rest) {
        char *line = strsep(&rest, "\n"), *section = strsep(&line, ":"), *word = NULL;
        while (line && (word = strsep(&line, " ")) && line) {
            if (!*word) continue;
            const char *value = strsep(&line, " ");
            for (size_t i = 0; i < ROWS(sockets); i++)
                if (strcmp(sockets[i].section, section) == 0 && strcmp(sockets[i].key, word) == 0)
                    cb_system_show(s, sockets[i].family, sockets[i].label, strtoull(value, NULL, 10));
        }
    }
}

/* A line of hexadecimal numbers for each processor; the thirteenth is its number, where the kernel says it. */
static void read_softnet(cb_system *s) {
    enum { PROCESSED, DROPPED, SQUEEZED, CPU = 12, FIELDS };
    char *rest = cb_system_read(s, s->proc, "net/softnet_stat");
    for (uint64_t i = 0; rest && *rest; i++) {
        char *line = strsep(&rest, "\n"), *word, cpu[24];
        uint64_t fields[FIELDS] = {[CPU] = i};
        for (int n = 0; n < FIELDS && (word = strsep(&line, " "));)
            if (*word) fields[n++] = strtoull(word, NULL, 16);
        snprintf(cpu, sizeof cpu, "%llu", (unsigned long long)fields[CPU]);
        cb_system_show(s, CB_F_SOFTNET_PROCESSED, cpu, fields[PROCESSED]);
        cb_system_show(s, CB_F_SOFTNET_DROPPED, cpu, fields[DROPPED]);
        cb_system_show(s, CB_F_SOFTNET_SQUEEZED, cpu, fields[SQUEEZED]);
    }
}

void cb_system_kernel(cb_system *s) {
    read_pairs(s, "net/snmp");
    read_pairs(s, "net/netstat");
    read_ip6(s);
    read_sockets(s, "net/sockstat");
    read_sockets(s, "net/sockstat6");
    read_softnet(s);
}
