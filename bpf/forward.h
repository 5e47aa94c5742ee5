/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What bpf/forward.bpf.c and libcb-xdp share: the maps' layout, and the form of what hosts send each other.
 * docs/design/datapath.md has the rules. Numbers in packets are in network byte order. */
#ifndef CB_FORWARD_SHARED_H
#define CB_FORWARD_SHARED_H

#include <linux/types.h>

enum {
    CB_FW_LAYOUT = 1,        /* of all that follows: pinned maps of another layout are not adopted */
    CB_FW_MEMBERS = 4096,    /* slots, as the table numbers them */
    CB_FW_NOBODY = 65535,    /* in a bucket's word: there is no such owner */
    CB_FW_ELSEWHERE = 65534, /* in `underlay`: a host of ours that is not in the table; it may send */
    CB_FW_TAG_KEYS = 4,
    CB_FW_CID_CONFIGS = 7, /* rotations 0..6 */
    CB_FW_GUE_PORT = 6080, /* IANA: gue; control.gue_port may be another */
    CB_FW_INTERFACES = 64,
    CB_FW_NEAR_BITS = 12,    /* of the number of places in `near` */
    CB_FW_VIPS = 4096,       /* entries of `vips`, of `prefixes`, and places of vip_counters */
    CB_FW_LIVE_CIDS = 65536, /* of `live` */
    CB_FW_FRAGMENTED = 4096, /* datagrams in pieces that are remembered */
    CB_FW_FANOUT_BYTES = 1 << 18
};

/* ---- control: ARRAY of one, mmapable; single fields change as a whole ---- */

enum cb_fw_control_flags {
    CB_FW_ANY_PORT = 1, /* some VIP has port 0: look for it */
    CB_FW_PREFIXES = 2  /* some VIP is a prefix: look for it */
};

struct cb_fw_control {
    __u64 hash_key[2];                /* of cb_lb_hash(), little endian: the same on all hosts */
    __u64 tag_key[CB_FW_TAG_KEYS][2]; /* of the tag of GUE headers */
    __u32 tag_current;                /* the key of what is sent; all keys that are not zero are taken */
    __u32 buckets;
    __u32 self; /* own ID; 0 = this host only forwards */
    __u32 self_slot;
    __u32 flags;         /* enum cb_fw_control_flags */
    __u32 hop_rate;      /* packets a second and CPU that may take the second hop; 0 = none */
    __u32 icmp_rate;     /* ICMP errors a second and CPU that are relayed or made */
    __u32 table_version; /* goes with the packets, for those who look into them */
    __u16 gue_port;      /* network byte order */
    __u16 underlay_mtu;  /* IP bytes that fit between hosts */
    __u8 address4[4];    /* own address as the outer source; zero = none */
    __u8 address6[16];
    __u32 layout; /* CB_FW_LAYOUT: of pinned maps who takes them over looks here first */
    __u32 near;   /* bits 1 << kind: all of this kind are in `near` */
    __u32 reserved[2];
};

/* ---- table: ARRAY of one word a bucket, mmapable: cb_lb_table_words() ---- */

/* ---- members: ARRAY by slot ---- */

enum cb_fw_member_flags {
    CB_FW_HERE = 1, /* there is such a member */
    CB_FW_LIVE = 2  /* up or draining: may be second hop, and owner by connection ID */
};

enum cb_fw_encapsulation {
    CB_FW_GUE = 0,
    CB_FW_IPIP = 1,
    CB_FW_MAC = 2 /* the same packet to another station of this network; no header, no previous owner */
};

struct cb_fw_member {
    __u32 id;
    __u32 ifindex;      /* where it is reached; 0 = not resolved yet */
    __u8 flags;         /* enum cb_fw_member_flags */
    __u8 family;        /* of the address: 4 or 6 */
    __u8 encapsulation; /* enum cb_fw_encapsulation */
    __u8 reserved;
    __u8 next_hop[6]; /* MACs, resolved in user space */
    __u8 source[6];
    __u8 address[16]; /* underlay; an IPv4 address is in the first four bytes */
    __u32 mtu;        /* IP bytes on that way */
    __u32 reserved2[5];
};

/* ids: HASH of a member's ID to its slot. underlay: HASH of an address (16 bytes, IPv4 as ::ffff:a.b.c.d) to the slot.
 */

/* ---- VIPs: HASH by struct cb_fw_vip_key; prefixes: LPM_TRIE by struct cb_fw_prefix ---- */

/* Each address that has an entry has one more with port 0 and protocol 0, whose value is not looked at: for what has no
 * ports (ICMP, later fragments, headers that contradict themselves). Prefixes need none. */
struct cb_fw_vip_key {
    __u8 address[16]; /* IPv4 as ::ffff:a.b.c.d */
    __u16 port;       /* network byte order; 0 = all that have no entry of their own */
    __u8 protocol;    /* IPPROTO_TCP, IPPROTO_UDP; 0 = this is the address of a VIP */
    __u8 reserved;
};

struct cb_fw_prefix {
    __u32 length; /* in bits of the 16 bytes: 96 + n for IPv4 */
    __u8 address[16];
};

enum cb_fw_vip_flags {
    CB_FW_QUIC = 1, /* UDP: by connection ID */
    CB_FW_TCP = 2,  /* of a prefix: which protocols */
    CB_FW_UDP = 4,
};

struct cb_fw_vip {
    __u32 index; /* in vip_counters */
    __u32 flags; /* enum cb_fw_vip_flags */
};

/* ---- connection IDs: cids, ARRAY by rotation; servers, HASH by struct cb_fw_server to a slot ---- */

/* To be filled by fw_cid_prepare() (fw_cid.h). */
struct cb_fw_cid {
    __u8 used;
    __u8 codec; /* enum cb_quic_lb_codec */
    __u8 server_id_bytes;
    __u8 nonce_bytes;
    __u8 cid_bytes; /* all of it: 1 + server ID + nonce + the bytes of the host */
    __u8 reserved[3];
    __u64 keep[2]; /* what of two words is server ID */
    __u64 left[2]; /* ... is the left half of server ID and nonce, and the right one: for four passes */
    __u64 right[2];
    __u32 round_keys[44]; /* AES-128, as words: for one pass those of the inverse cipher */
};

struct cb_fw_server {
    __u8 rotation_length; /* rotation << 4 | length of the server ID */
    __u8 server_id[15];   /* zeros behind it */
};

/* live: LRU_HASH of client-chosen connection IDs whose connections live here, by struct cb_fw_dcid to a counter of
 * changes; written by the QUIC endpoints of this host. */
struct cb_fw_dcid {
    __u8 length;
    __u8 bytes[20];
    __u8 reserved[3];
};

/* ---- fragments: LRU_HASH from what the first fragment tells to the slot that it went to ---- */

struct cb_fw_fragment {
    __u8 source[16], destination[16];
    __u32 id;
    __u8 protocol;
    __u8 reserved[3];
};

struct cb_fw_fragment_way {
    __u32 slot;
    __u32 second; /* whom `slot` may ask, CB_FW_NOBODY: it is to deliver */
    __u64 at;     /* bpf_ktime_get_ns() */
};

/* ---- fanout: RINGBUF of ICMP errors that quote a short header of QUIC, for user space to send to all members ---- */

enum { CB_FW_FANNED_BYTES = 1280 };

struct cb_fw_fanned {
    __u32 length; /* of the packet, from its IP header on */
    __u32 slot;   /* has it already */
    __u8 packet[CB_FW_FANNED_BYTES];
};

/* ---- rates: PERCPU_ARRAY of token buckets by enum cb_fw_rates ---- */

enum cb_fw_rates { CB_FW_RATE_HOP, CB_FW_RATE_ICMP, CB_FW_RATE_FANOUT, CB_FW_RATES };

struct cb_fw_rate {
    __u64 at;    /* bpf_ktime_get_ns() */
    __u64 saved; /* nanoseconds that have not been spent */
};

/* ---- interfaces: HASH by ifindex ---- */

enum cb_fw_interface_flags {
    CB_FW_EDGE = 1,    /* VIPs are forwarded from here */
    CB_FW_UNDERLAY = 2 /* encapsulated packets are taken from here; others drop them (CB_FW_BAD_INTERFACE) */
};

struct cb_fw_interface {
    __u32 flags;
    __u32 reserved;
};

/* ---- near: ARRAY of copies of what is in `interfaces`, `vips` and `servers` (fw_near.h), mmapable ---- */

enum cb_fw_near_kinds { CB_FW_NEAR_INTERFACE = 1, CB_FW_NEAR_VIP = 2, CB_FW_NEAR_SERVER = 3 };

struct cb_fw_near {
    __u64 key[3];   /* of struct fw_near_key; the last one is zero in a free place */
    __u32 value[2]; /* flags; a struct cb_fw_vip; the slot */
};

/* ---- what a GUE packet carries (draft-ietf-intarea-gue, variant 0): five words of private data ---- */

enum { CB_FW_GUE_WORDS = 5, CB_FW_GUE_BYTES = 4 + 4 * CB_FW_GUE_WORDS, CB_FW_PRIVATE = 0xcb };

enum cb_fw_gue_flags {
    CB_FW_BY_CID = 1, /* the connection ID named the receiver: it decides nothing */
    CB_FW_FINAL = 2,  /* no further hop: deliver */
    CB_FW_ASK = 4     /* QUIC with a client's connection ID: who does not know it returns it to `previous`, final */
};

struct cb_fw_gue {
    __u8 variant_length; /* 0, and CB_FW_GUE_WORDS in the lower five bits */
    __u8 protocol;       /* of the inner packet: IPPROTO_IPIP or IPPROTO_IPV6 */
    __u16 flags;         /* of GUE: bit 0 of the lower byte (private data are there), no other */
    __u8 private;        /* CB_FW_PRIVATE: the form of what follows */
    __u8 hop;            /* 1 from the first host, 2 from the second ... */
    __u8 hop_flags;      /* enum cb_fw_gue_flags */
    __u8 tag_key;
    __u32 previous;      /* ID of the other owner of the bucket; with CB_FW_ASK of whom to return it to; 0 = nobody */
    __u32 table_version; /* of the sender */
    __u64 tag;           /* see the design page */
} __attribute__((packed));

enum { CB_FW_HOPS = 3 }; /* first owner, second owner, and back again */

/* ---- counters: PERCPU_ARRAY; the names are those of the metrics' label ---- */

#define CB_FW_COUNTERS(X)                                                                                              \
    X(PASSED, "passed", "not for a VIP, left to the kernel")                                                           \
    X(LOCAL, "local", "delivered here by the table")                                                                   \
    X(FORWARDED, "forwarded", "sent to the first owner")                                                               \
    X(BY_CID, "by_cid", "sent or delivered by connection ID")                                                          \
    X(CID_UNKNOWN, "cid_unknown", "a connection ID of our form that names no living member: by the table")             \
    X(DECAPSULATED, "decapsulated", "taken out of an encapsulation")                                                   \
    X(KEPT, "kept", "had another owner too, and stayed")                                                               \
    X(SECOND_HOP, "second_hop", "sent on to the other owner")                                                          \
    X(ASKED, "asked", "QUIC handshakes that the other owner was asked about")                                          \
    X(RETURNED, "returned", "of those, that came back or were sent back")                                              \
    X(FRAGMENTS, "fragments", "sent where their first fragment went")                                                  \
    X(ICMP, "icmp", "ICMP errors sent to the owner of what they quote")                                                \
    X(ICMP_FANNED, "icmp_fanned", "ICMP errors given to user space for all members")                                   \
    X(TOO_BIG_SENT, "too_big_sent", "ICMP too big sent to clients")                                                    \
    X(MSS_LOWERED, "mss_lowered", "SYN-ACKs of VIPs that left with a smaller MSS")                                     \
    X(MALFORMED, "malformed", "dropped: headers that contradict themselves or are cut short")                          \
    X(FRAGMENT_UNKNOWN, "fragment_unknown", "dropped: no first fragment was seen")                                     \
    X(TOO_BIG, "too_big", "dropped: do not fit between hosts")                                                         \
    X(BAD_TAG, "bad_tag", "dropped: encapsulated without a valid tag, or by a stranger")                               \
    X(NOT_VIP, "not_vip", "dropped: encapsulated, but for no VIP, or with another encapsulation inside")               \
    X(BAD_INTERFACE, "bad_interface", "dropped: encapsulated on an interface of the edge")                             \
    X(LOOP, "loop", "dropped: too many hops")                                                                          \
    X(NO_OWNER, "no_owner", "dropped: nobody owns the bucket")                                                         \
    X(NO_NEIGHBOUR, "no_neighbour", "dropped: the member's next hop is not known yet")                                 \
    X(RATE_LIMITED, "rate_limited", "dropped or kept: second hops or ICMP errors above the rate")

enum cb_fw_counter {
#define CB_FW_NAME(name, label, help) CB_FW_N_##name,
    CB_FW_COUNTERS(CB_FW_NAME)
#undef CB_FW_NAME
        CB_FW_N_ALL
};

/* vip_counters: PERCPU_ARRAY by cb_fw_vip.index; member_counters: PERCPU_ARRAY by slot (sent to it). */
struct cb_fw_traffic {
    __u64 packets, bytes;
};

#endif
