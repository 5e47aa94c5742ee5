/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What bpf/xsk.bpf.c and libcb/packet/program.c share: which packets go to AF_XDP sockets. */
#ifndef CB_BPF_XSK_H
#define CB_BPF_XSK_H

enum {
    CB_XSK_MAP_QUEUES = 256,
    CB_XSK_MAP_RULES = 256,
    CB_XSK_PROTOCOL_ANY = 255 /* no protocol of IP (reserved by IANA) */
};

/* What a rule leaves open. The program asks the table once for each combination that some rule has. */
enum { CB_XSK_OPEN_ADDRESS = 1, CB_XSK_OPEN_PORT = 2, CB_XSK_OPEN_PROTOCOL = 4, CB_XSK_SHAPES = 8 };

/* A rule. What it leaves open is 0 (the protocol: CB_XSK_PROTOCOL_ANY). */
struct cb_xsk_key {
    unsigned char address[16]; /* destination; IPv4 in the first 4 bytes */
    unsigned short port;       /* in the order of the wire */
    unsigned char protocol;
    unsigned char family; /* 4 or 6 */
};

/* What user space tells the program while it runs. */
struct cb_xsk_state {
    unsigned int shapes; /* bit n: there is a rule that leaves n (CB_XSK_OPEN_...) open */
    unsigned char mac[6];
    unsigned char reserved[2];
};

enum { CB_XSK_TAKEN, CB_XSK_PASSED, CB_XSK_UNSUITABLE, CB_XSK_NO_SOCKET, CB_XSK_COUNTERS };

#endif
