#include "support/scratch.h"
#include "telemetry/catalogue.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A machine made of files: each number stands once. */
static const struct {
    const char *path, *text;
} files[] = {
    {"proc/net/snmp", "Ip: Other InReceives InDelivers OutRequests ForwDatagrams InHdrErrors InAddrErrors InDiscards "
                      "OutDiscards OutNoRoutes ReasmOKs ReasmFails FragOKs FragFails\n"
                      "Ip: 7 1001 1002 1003 1004 1005 1006 1007 1008 1009 1010 1011 1012 1013\n"
                      "Icmp: Other InMsgs OutMsgs InErrors InDestUnreachs InTimeExcds OutRateLimitHost\n"
                      "Icmp: 7 1019 1020 1021 1022 1023 1024\n"
                      "Tcp: Other ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs "
                      "RetransSegs InErrs OutRsts InCsumErrors\n"
                      "Tcp: 7 1025 1026 1027 1028 1029 1030 1031 1032 1033 1034 1035\n"
                      "Udp: Other InDatagrams OutDatagrams NoPorts InErrors RcvbufErrors SndbufErrors InCsumErrors\n"
                      "Udp: 7 1052 1053 1054 1055 1056 1057 1058\n"},
    {"proc/net/netstat",
     "IpExt: InOctets OutOctets InNoRoutes InTruncatedPkts InCEPkts Other\n"
     "IpExt: 1014 1015 1016 1017 1018 -1\n"
     "TcpExt: TCPTimeouts TCPFastRetrans TCPLostRetransmit TCPSpuriousRTOs TCPSackRecovery TCPOFOQueue ListenOverflows "
     "ListenDrops SyncookiesSent SyncookiesRecv SyncookiesFailed TCPAbortOnMemory TCPMemoryPressures TCPBacklogDrop "
     "TCPRcvCollapsed TCPToZeroWindowAdv Other\n"
     "TcpExt: 1036 1037 1038 1039 1040 1041 1042 1043 1044 1045 1046 1047 1048 1049 1050 1051 -1\n"},
    {"proc/net/snmp6", "Ip6InReceives                   \t1059\n"
                       "Ip6InDelivers                   \t1060\n"
                       "Ip6OutRequests                  \t1061\n"
                       "Ip6OutForwDatagrams             \t1062\n"
                       "Ip6InOctets                     \t1063\n"
                       "Ip6OutOctets                    \t1064\n"
                       "Ip6InHdrErrors                  \t1065\n"
                       "Ip6InAddrErrors                 \t1066\n"
                       "Ip6InTruncatedPkts              \t1067\n"
                       "Ip6InDiscards                   \t1068\n"
                       "Ip6OutDiscards                  \t1069\n"
                       "Ip6InNoRoutes                   \t1070\n"
                       "Ip6OutNoRoutes                  \t1071\n"
                       "Ip6ReasmOKs                     \t1072\n"
                       "Ip6ReasmFails                   \t1073\n"
                       "Ip6FragOKs                      \t1074\n"
                       "Ip6FragFails                    \t1075\n"
                       "Ip6InCEPkts                     \t1076\n"
                       "Icmp6InMsgs                     \t1077\n"
                       "Icmp6OutMsgs                    \t1078\n"
                       "Icmp6InErrors                   \t1079\n"
                       "Icmp6InDestUnreachs             \t1080\n"
                       "Icmp6InTimeExcds                \t1081\n"
                       "Icmp6OutRateLimitHost           \t1082\n"
                       "Udp6InDatagrams                 \t1083\n"
                       "Udp6OutDatagrams                \t1084\n"
                       "Udp6NoPorts                     \t1085\n"
                       "Udp6InErrors                    \t1086\n"
                       "Udp6RcvbufErrors                \t1087\n"
                       "Udp6SndbufErrors                \t1088\n"
                       "Udp6InCsumErrors                \t1089\n"},
    {"proc/net/sockstat", "sockets: used 9\n"
                          "TCP: inuse 1090 tw 1091 orphan 1092 mem 1093 other 5\n"
                          "UDP: inuse 1094 mem 1095 other 5\n"},
    {"proc/net/sockstat6", "TCP6: inuse 1096 other 5\n"
                           "UDP6: inuse 1097 other 5\n"},
    {"proc/net/softnet_stat", "0000000a 00000002 00000003 0 0 0 0 0 0 0 0 0 00000000\n"
                              "0000000b 00000004 00000005 0 0 0 0 0 0 0 0 0 00000007\n"},
    {"sys/class/net/eth7/carrier_changes", "2001\n"},
    {"sys/class/net/eth7/statistics/rx_bytes", "2002\n"},
    {"sys/class/net/eth7/statistics/tx_bytes", "2003\n"},
    {"sys/class/net/eth7/statistics/rx_packets", "2004\n"},
    {"sys/class/net/eth7/statistics/tx_packets", "2005\n"},
    {"sys/class/net/eth7/statistics/rx_errors", "2006\n"},
    {"sys/class/net/eth7/statistics/tx_errors", "2007\n"},
    {"sys/class/net/eth7/statistics/rx_dropped", "2008\n"},
    {"sys/class/net/eth7/statistics/tx_dropped", "2009\n"},
    {"sys/class/net/eth7/statistics/multicast", "2010\n"},
    {"sys/class/net/eth7/statistics/rx_crc_errors", "2011\n"},
    {"sys/class/net/eth7/statistics/rx_frame_errors", "2012\n"},
    {"sys/class/net/eth7/statistics/rx_length_errors", "2013\n"},
    {"sys/class/net/eth7/statistics/rx_fifo_errors", "2014\n"},
    {"sys/class/net/eth7/statistics/rx_missed_errors", "2015\n"},
    {"sys/class/net/eth7/statistics/rx_nohandler", "2016\n"},
    {"sys/class/net/eth7/statistics/tx_carrier_errors", "2017\n"},
    {"sys/class/net/eth7/statistics/tx_fifo_errors", "2018\n"},
    {"sys/class/net/eth7/statistics/collisions", "2019\n"},
    {"sys/class/net/eth7/mtu", "2020\n"},
    {"sys/class/net/eth7/operstate", "up\n"},
    {"sys/class/net/eth7/speed", "1000\n"},
    {"sys/class/net/down0/operstate", "down\n"},
    {"sys/class/net/down0/speed", "-1\n"},
};

static const struct {
    const char *name, *label;
    double value;
} expected[] = {
    {"cb_ip_received_packets", "4", 1001},
    {"cb_ip_delivered_packets", "4", 1002},
    {"cb_ip_sent_packets", "4", 1003},
    {"cb_ip_forwarded_packets", "4", 1004},
    {"cb_ip_header_errors", "4", 1005},
    {"cb_ip_address_errors", "4", 1006},
    {"cb_ip_receive_discards", "4", 1007},
    {"cb_ip_send_discards", "4", 1008},
    {"cb_ip_send_no_routes", "4", 1009},
    {"cb_ip_reassembled_packets", "4", 1010},
    {"cb_ip_reassembly_failures", "4", 1011},
    {"cb_ip_fragmented_packets", "4", 1012},
    {"cb_ip_fragmentation_failures", "4", 1013},
    {"cb_ip_received_bytes", "4", 1014},
    {"cb_ip_sent_bytes", "4", 1015},
    {"cb_ip_receive_no_routes", "4", 1016},
    {"cb_ip_truncated_packets", "4", 1017},
    {"cb_ip_congestion_marked_packets", "4", 1018},
    {"cb_icmp_received_messages", "4", 1019},
    {"cb_icmp_sent_messages", "4", 1020},
    {"cb_icmp_receive_errors", "4", 1021},
    {"cb_icmp_received_unreachables", "4", 1022},
    {"cb_icmp_received_time_exceededs", "4", 1023},
    {"cb_icmp_rate_limited_messages", "4", 1024},
    {"cb_tcp_active_opens", NULL, 1025},
    {"cb_tcp_passive_opens", NULL, 1026},
    {"cb_tcp_failed_attempts", NULL, 1027},
    {"cb_tcp_established_resets", NULL, 1028},
    {"cb_tcp_established_connections", NULL, 1029},
    {"cb_tcp_received_segments", NULL, 1030},
    {"cb_tcp_sent_segments", NULL, 1031},
    {"cb_tcp_retransmitted_segments", NULL, 1032},
    {"cb_tcp_receive_errors", NULL, 1033},
    {"cb_tcp_sent_resets", NULL, 1034},
    {"cb_tcp_checksum_errors", NULL, 1035},
    {"cb_tcp_timeouts", NULL, 1036},
    {"cb_tcp_fast_retransmits", NULL, 1037},
    {"cb_tcp_lost_retransmits", NULL, 1038},
    {"cb_tcp_spurious_timeouts", NULL, 1039},
    {"cb_tcp_sack_recoveries", NULL, 1040},
    {"cb_tcp_out_of_order_segments", NULL, 1041},
    {"cb_tcp_listen_overflows", NULL, 1042},
    {"cb_tcp_listen_drops", NULL, 1043},
    {"cb_tcp_syn_cookies_sent", NULL, 1044},
    {"cb_tcp_syn_cookies_received", NULL, 1045},
    {"cb_tcp_syn_cookies_failed", NULL, 1046},
    {"cb_tcp_memory_aborts", NULL, 1047},
    {"cb_tcp_memory_pressures", NULL, 1048},
    {"cb_tcp_backlog_drops", NULL, 1049},
    {"cb_tcp_receive_collapsed_segments", NULL, 1050},
    {"cb_tcp_zero_windows", NULL, 1051},
    {"cb_udp_received_datagrams", "4", 1052},
    {"cb_udp_sent_datagrams", "4", 1053},
    {"cb_udp_unreachable_datagrams", "4", 1054},
    {"cb_udp_receive_errors", "4", 1055},
    {"cb_udp_receive_buffer_errors", "4", 1056},
    {"cb_udp_send_buffer_errors", "4", 1057},
    {"cb_udp_checksum_errors", "4", 1058},
    {"cb_ip_received_packets", "6", 1059},
    {"cb_ip_delivered_packets", "6", 1060},
    {"cb_ip_sent_packets", "6", 1061},
    {"cb_ip_forwarded_packets", "6", 1062},
    {"cb_ip_received_bytes", "6", 1063},
    {"cb_ip_sent_bytes", "6", 1064},
    {"cb_ip_header_errors", "6", 1065},
    {"cb_ip_address_errors", "6", 1066},
    {"cb_ip_truncated_packets", "6", 1067},
    {"cb_ip_receive_discards", "6", 1068},
    {"cb_ip_send_discards", "6", 1069},
    {"cb_ip_receive_no_routes", "6", 1070},
    {"cb_ip_send_no_routes", "6", 1071},
    {"cb_ip_reassembled_packets", "6", 1072},
    {"cb_ip_reassembly_failures", "6", 1073},
    {"cb_ip_fragmented_packets", "6", 1074},
    {"cb_ip_fragmentation_failures", "6", 1075},
    {"cb_ip_congestion_marked_packets", "6", 1076},
    {"cb_icmp_received_messages", "6", 1077},
    {"cb_icmp_sent_messages", "6", 1078},
    {"cb_icmp_receive_errors", "6", 1079},
    {"cb_icmp_received_unreachables", "6", 1080},
    {"cb_icmp_received_time_exceededs", "6", 1081},
    {"cb_icmp_rate_limited_messages", "6", 1082},
    {"cb_udp_received_datagrams", "6", 1083},
    {"cb_udp_sent_datagrams", "6", 1084},
    {"cb_udp_unreachable_datagrams", "6", 1085},
    {"cb_udp_receive_errors", "6", 1086},
    {"cb_udp_receive_buffer_errors", "6", 1087},
    {"cb_udp_send_buffer_errors", "6", 1088},
    {"cb_udp_checksum_errors", "6", 1089},
    {"cb_tcp_sockets", "4", 1090},
    {"cb_tcp_time_wait_sockets", NULL, 1091},
    {"cb_tcp_orphan_sockets", NULL, 1092},
    {"cb_tcp_memory_pages", NULL, 1093},
    {"cb_udp_sockets", "4", 1094},
    {"cb_udp_memory_pages", NULL, 1095},
    {"cb_tcp_sockets", "6", 1096},
    {"cb_udp_sockets", "6", 1097},
    {"cb_softnet_processed_packets", "0", 10},
    {"cb_softnet_dropped_packets", "0", 2},
    {"cb_softnet_squeezes", "0", 3},
    {"cb_softnet_processed_packets", "7", 11},
    {"cb_softnet_dropped_packets", "7", 4},
    {"cb_softnet_squeezes", "7", 5},
    {"cb_interface_carrier_changes", "eth7", 2001},
    {"cb_interface_received_bytes", "eth7", 2002},
    {"cb_interface_sent_bytes", "eth7", 2003},
    {"cb_interface_received_packets", "eth7", 2004},
    {"cb_interface_sent_packets", "eth7", 2005},
    {"cb_interface_receive_errors", "eth7", 2006},
    {"cb_interface_send_errors", "eth7", 2007},
    {"cb_interface_receive_drops", "eth7", 2008},
    {"cb_interface_send_drops", "eth7", 2009},
    {"cb_interface_received_multicast_packets", "eth7", 2010},
    {"cb_interface_receive_crc_errors", "eth7", 2011},
    {"cb_interface_receive_frame_errors", "eth7", 2012},
    {"cb_interface_receive_length_errors", "eth7", 2013},
    {"cb_interface_receive_fifo_errors", "eth7", 2014},
    {"cb_interface_receive_missed_packets", "eth7", 2015},
    {"cb_interface_receive_unhandled_packets", "eth7", 2016},
    {"cb_interface_send_carrier_errors", "eth7", 2017},
    {"cb_interface_send_fifo_errors", "eth7", 2018},
    {"cb_interface_collisions", "eth7", 2019},
    {"cb_interface_mtu_bytes", "eth7", 2020},
    {"cb_interface_up", "eth7", 1},
    {"cb_interface_speed_bytes", "eth7", 125000000},
};

static void write_file(const char *root, const char *path, const char *text) {
    char full[512];
    snprintf(full, sizeof full, "%s/%s", root, path);
    for (char *p = full + 1; *p; p++) {
        if (*p != '/') continue;
        *p = '\0';
        mkdir(full, 0700);
        *p = '/';
    }
    FILE *f = fopen(full, "w");
    cr_assert(f && fputs(text, f) >= 0 && fclose(f) == 0, "%s", full);
}

static int drop(cb_slice piece, void *user) {
    (void)piece, (void)user;
    return 0;
}

static int count_lines(cb_slice piece, void *user) {
    for (size_t i = 0; i < piece.len; i++)
        *(int *)user += piece.base[i] == '\n';
    return 0;
}

Test(metrics_system, each_number_of_the_kernel_has_its_family) {
    char root[SCRATCH_TEXT], proc[SCRATCH_TEXT + 8], sys[SCRATCH_TEXT + 8], command[SCRATCH_TEXT + 8];
    cb_metrics *m = NULL;
    double v = 0;
    scratch_folder(root, sizeof root, "system");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        write_file(root, files[i].path, files[i].text);
    snprintf(proc, sizeof proc, "%s/proc", root);
    snprintf(sys, sizeof sys, "%s/sys", root);
    cr_assert_eq(cb_metrics_new(&m, NULL), CB_OK);
    cr_assert_eq(cb_metrics_add_system(m, CB_OPTS(cb_system_opts, .proc = proc, .sys = sys,
                                                  .parts = CB_SYSTEM_INTERFACES | CB_SYSTEM_KERNEL)),
                 CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_metrics_render(m, CB_METRICS_TEXT, 0, drop, NULL), CB_OK);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        const cb_slice label = cb_slice_str(expected[i].label);
        cr_expect_eq(cb_metrics_value(m, expected[i].name, &label, &v), CB_OK, "%s: %s", expected[i].name,
                     cb_last_error());
        cr_expect_eq(v, expected[i].value, "%s{%s}: %g", expected[i].name, expected[i].label ? expected[i].label : "",
                     v);
    }
    const cb_slice down = cb_slice_str("down0");
    cr_expect_eq(cb_metrics_value(m, "cb_interface_up", &down, &v), CB_OK);
    cr_expect_eq(v, 0);
    cr_expect_eq(cb_metrics_value(m, "cb_interface_speed_bytes", &down, &v), CB_ENOENT, "unknown is not shown");
    cr_expect_null(cb_metrics_find(m, "process_open_fds"), "not asked for");
    cb_metrics_unref(m);
    snprintf(command, sizeof command, "rm -r %s", root);
    cr_expect_eq(system(command), 0);
}

Test(metrics_system, a_process_knows_itself) {
    static const char *const names[] = {"process_cpu_seconds",
                                        "process_resident_memory_bytes",
                                        "process_virtual_memory_bytes",
                                        "process_open_fds",
                                        "process_max_fds",
                                        "process_threads",
                                        "process_start_time_seconds"};
    cb_metrics *m = NULL;
    double v = 0, before = 0, after = 0;
    cr_assert_eq(cb_metrics_new(&m, NULL), CB_OK);
    cr_assert_eq(cb_metrics_add_system(m, CB_OPTS(cb_system_opts, .parts = CB_SYSTEM_PROCESS)), CB_OK);
    cr_assert_eq(cb_metrics_render(m, CB_METRICS_TEXT, 0, drop, NULL), CB_OK);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        cr_expect_eq(cb_metrics_value(m, names[i], NULL, &v), CB_OK, "%s", names[i]);
        cr_expect_gt(v, 0, "%s", names[i]);
    }
    static const char *const kinds[][2] = {{"process_page_faults", "minor"},
                                           {"process_page_faults", "major"},
                                           {"process_context_switches", "voluntary"},
                                           {"process_context_switches", "involuntary"}};
    for (size_t i = 0; i < 4; i++) {
        const cb_slice kind = cb_slice_str(kinds[i][1]);
        cr_expect_eq(cb_metrics_value(m, kinds[i][0], &kind, &v), CB_OK, "%s", kinds[i][1]);
    }
    const cb_slice version = cb_slice_str(cb_version_text());
    cr_expect_eq(cb_metrics_value(m, "cb_build_info", &version, &v), CB_OK);
    cr_expect_eq(v, 1);
    cr_expect_eq(cb_metrics_value(m, "process_open_fds", NULL, &before), CB_OK);
    int fd = dup(0);
    if (fd < 0) fd = dup(1);
    cr_assert_eq(cb_metrics_render(m, CB_METRICS_TEXT, 0, drop, NULL), CB_OK);
    cr_expect_eq(cb_metrics_value(m, "process_open_fds", NULL, &after), CB_OK);
    cr_expect_eq(after, before + 1);
    close(fd);
    cb_metrics_unref(m);
}

/* Hostile or strange files: nothing is read beyond them, and nothing is shown of them. */
Test(metrics_system, strange_files) {
    static const char *const texts[] = {
        "",           "\n",           "Tcp:",          "Tcp: A B\n",    "Tcp: A\nTcp:\n",  "Tcp: InSegs\nTcp: \n",
        ":::\n:::\n", "TCP: inuse\n", "TCP: inuse \n", "Ip6InReceives", "Ip6InReceives\n", "xyz\n\n\nTcp: InSegs"};
    static const char *const names[] = {"snmp", "netstat", "snmp6", "sockstat", "sockstat6"};
    char root[SCRATCH_TEXT], path[64], command[SCRATCH_TEXT + 8];
    scratch_folder(root, sizeof root, "system");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        cb_metrics *m = NULL;
        int lines = 0;
        for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
            snprintf(path, sizeof path, "net/%s", names[k]);
            write_file(root, path, texts[i]);
        }
        cr_assert_eq(cb_metrics_new(&m, NULL), CB_OK);
        cr_assert_eq(cb_metrics_add_system(
                         m, CB_OPTS(cb_system_opts, .proc = root, .sys = "/nonexistent", .parts = CB_SYSTEM_KERNEL)),
                     CB_OK);
        cr_assert_eq(cb_metrics_render(m, CB_METRICS_TEXT, 0, count_lines, &lines), CB_OK);
        cr_expect_leq(lines, 6, "row %zu", i);
        cb_metrics_unref(m);
    }
    snprintf(command, sizeof command, "rm -r %s", root);
    cr_expect_eq(system(command), 0);
}

Test(metrics_system, every_row_of_the_catalogue_is_a_family) {
    cb_metrics *m = NULL;
    cb_metric *f = NULL;
    cr_assert_eq(cb_metrics_new(&m, NULL), CB_OK);
    for (int i = 0; i < CB_FAMILIES; i++)
        cr_expect_eq(cb_catalogue_define(&f, m, (enum cb_metric_row)i), CB_OK, "row %d: %s", i, cb_last_error());
    cb_metrics_unref(m);
}

Test(metrics_system, bad_options) {
    cb_metrics *m = NULL;
    cr_assert_eq(cb_metrics_new(&m, NULL), CB_OK);
    cr_expect_eq(cb_metrics_add_system(m, CB_OPTS(cb_system_opts, .parts = 8)), CB_EINVAL);
    cr_expect_eq(cb_metrics_add_system(NULL, NULL), CB_EINVAL);
    cb_metrics_unref(m);
}
