/* cb/forward.h - libcb-xdp: a layer-4 balancer in the kernel (XDP), on every host of a place.
 *
 * A packet for one of the common addresses (VIPs) may reach any host. The program that a cb_forward loads gives it to
 * the host that owns its flow by the table of cb/lb.h, or, QUIC, to the one that its connection ID names
 * (cb/quic_lb.h); the owner answers the client directly. There is no state of flows: connections stay with their owner
 * when hosts come, go or drain, because a bucket that moves has two owners until nothing lives in it.
 *
 *   cb_forward_new(&f, CB_OPTS(cb_forward_opts, .id = 1, .hash_key = k, .tag_key = t, .address4 = "192.0.2.1",
 *                              .pin_dir = "/sys/fs/bpf/place"));
 *   cb_forward_member(f, CB_OPTS(cb_forward_member_opts, .id = 2, .address = "192.0.2.2"));          for each host
 *   cb_forward_vip(f, CB_OPTS(cb_forward_vip_opts, .address = "198.51.100.1", .protocol = CB_FORWARD_TCP, .port =
 * 443)); cb_forward_sync(f, table);          when the table has changed cb_forward_resolve(f);              now, and
 * each second: the way to the members cb_forward_attach(f, "eth0", CB_FORWARD_AUTO, CB_FORWARD_BOTH);
 *
 * Loading needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; other processes get CB_EPERM and can go on as plain servers.
 * With pin_dir the datapath goes on when the process ends, and the next one takes it over: the program is replaced in
 * one step, without a packet lost. Without, all ends with the process.
 *
 * Threads: all functions may be called from any thread but cb_forward_free(); one change is made at a time.
 * docs/design/ datapath.md has the rules of the program, docs/guide/xdp.md what hosts need around it. */
#ifndef CB_FORWARD_H
#define CB_FORWARD_H

#include <cb/group.h>
#include <cb/lb.h>
#include <cb/metrics.h>
#include <cb/quic_lb.h>

CB_BEGIN

typedef struct cb_forward cb_forward;

enum cb_forward_limits {
    CB_FORWARD_KEY_BYTES = 16,   /* of hash_key and tag keys */
    CB_FORWARD_TAG_KEYS = 4,     /* that are known at a time; one is current */
    CB_FORWARD_INTERFACES = 64,  /* that one cb_forward attaches to */
    CB_FORWARD_PORT = 6080,      /* UDP, of GUE between hosts */
    CB_FORWARD_OVERHEAD4 = 52,   /* bytes that GUE takes of an IPv4 underlay's packets */
    CB_FORWARD_OVERHEAD6 = 72,   /* of an IPv6 underlay's */
    CB_FORWARD_ADDRESS_TEXT = 52 /* an address with its prefix length and NUL */
};

typedef struct cb_forward_opts {
    size_t size;
    const cb_alloc *alloc;   /* NULL = malloc; called under a lock, on any thread that calls */
    const cb_log *log;       /* referenced; NULL = nowhere. Lines come on the thread that calls */
    const uint8_t *hash_key; /* 16 bytes, copied: spreads flows over buckets; the same on all hosts. Required */
    const uint8_t *tag_key;  /* 16 bytes, copied: of GUE between the hosts, key 0 of cb_forward_tag_key(). NULL: none
                              * yet; packets by GUE are then neither sent nor taken */
    const char *address4;    /* this host's in the underlay, "192.0.2.1": the source of what it sends to members with
                              * IPv4 addresses. NULL = none; with no address at all, it only receives */
    const char *address6;    /* the same for IPv6 */
    const char *pin_dir;     /* in a BPF file system, as /sys/fs/bpf/NAME; made with mode 0700. NULL = nothing is
                              * pinned: all ends with the process */
    uint32_t id;             /* of this host among the members; 0 = it only forwards */
    uint32_t buckets;        /* of the table; 0 = CB_LB_BUCKETS */
    uint32_t vips_max;       /* 0 = 1,024; at most 65,536 */
    uint32_t dcids_max;      /* client-chosen connection IDs known at a time (cb_forward_dcid_hook()); 0 = 65,536 */
    uint32_t fragments_max;  /* fragmented packets under way; 0 = 16,384 */
    uint32_t hop_rate;       /* packets a second and processor that may go to a second owner; 0 = 200,000 */
    uint32_t icmp_rate;      /* ICMP errors a second and processor that are made or sent on; 0 = 1,000 */
    uint32_t underlay_mtu;   /* bytes of IP that fit between hosts; 0 = what the routes to the members say */
    uint16_t gue_port;       /* 0 = CB_FORWARD_PORT; the same on all hosts */
    uint8_t no_mss;          /* 1: no program lowers the MSS of SYN-ACKs on their way out */
    uint8_t reserved[5];
} cb_forward_opts;

/* Loads the datapath, or takes over what pin_dir has and replaces the program of all interfaces in one step each; what
 * the predecessor was told (VIPs, members, keys, interfaces) is there until cb_forward_prune(). On failure nothing is
 * changed. CB_EINVAL (the detail names the field, or: pin_dir is in no BPF file system), CB_EPERM (names the missing
 * capability), CB_ENOTSUP (the kernel lacks what the program needs; the detail has the program, the kernel's last words
 * and its version), CB_EEXIST (pin_dir has a datapath of another layout, size or hash_key, or another process is about
 * to take it over: see cb_forward_unpin()), CB_ENOMEM, CB_ESYS. */
CB_API int cb_forward_new(cb_forward **out, const cb_forward_opts *opts);
/* What is pinned goes on. NULL is fine. */
CB_API void cb_forward_free(cb_forward *f);
/* Ends the datapath that is pinned in a directory, detaches it everywhere and removes its files and the directory: for
 * those who stop for good, or change what cannot be taken over. Packets then reach the kernel as if nothing had been
 * there. CB_ENOENT: there is no such directory; CB_EINVAL: what is in there is not a datapath's; CB_EPERM, CB_ESYS. */
CB_API int cb_forward_unpin(const char *pin_dir);

/* ---- interfaces ---- */

/* How the program sits on an interface. */
enum cb_forward_mode {
    CB_FORWARD_AUTO = 0,   /* native, or else generic, with a line in the log */
    CB_FORWARD_NATIVE = 1, /* in the driver */
    CB_FORWARD_GENERIC = 2 /* in the kernel's stack: everywhere, and slower */
};

/* What an interface is for, as bits. */
enum cb_forward_role {
    CB_FORWARD_EDGE = 1,     /* clients' packets come in by it */
    CB_FORWARD_UNDERLAY = 2, /* encapsulated packets of other hosts do; on others they are dropped */
    CB_FORWARD_BOTH = 3
};

/* Puts the program on an interface, or changes the roles of one that has it. Should the interface go away and come back
 * (by name), cb_forward_resolve() sees it and attaches again. roles: of enum cb_forward_role, 0 = both. CB_ENOENT:
 * there is no such interface; CB_EEXIST: another XDP program is there (its ID and name are in the detail); CB_ENOTSUP:
 * the driver cannot (native only); CB_EINVAL (mode, roles), CB_ELIMIT, CB_EPERM, CB_ENOMEM, CB_ESYS. */
CB_API int cb_forward_attach(cb_forward *f, const char *interface, int mode, uint32_t roles);
/* CB_ENOENT: it is not attached there. */
CB_API int cb_forward_detach(cb_forward *f, const char *interface);

/* ---- VIPs ---- */

enum cb_forward_protocol {
    CB_FORWARD_ANY = 0, /* TCP and UDP */
    CB_FORWARD_TCP = 6,
    CB_FORWARD_UDP = 17
};

/* A common address: what comes for it is forwarded. */
typedef struct cb_forward_vip_opts {
    size_t size;
    const char *address; /* "198.51.100.1", "2001:db8::1", or a prefix of such: "2001:db8:1::/64". Required */
    int32_t protocol;    /* enum cb_forward_protocol */
    uint16_t port;       /* 0 = all that have no VIP of their own; always 0 for prefixes */
    uint8_t quic;        /* 1: what comes by UDP is QUIC; it goes by connection ID */
    uint8_t reserved;
} cb_forward_vip_opts;

/* Adds a VIP, or changes its `quic`. CB_EINVAL (address, protocol, port; quic without UDP), CB_ELIMIT (vips_max),
 * CB_ENOMEM, CB_ESYS. */
CB_API int cb_forward_vip(cb_forward *f, const cb_forward_vip_opts *vip);
/* Takes it away: what comes for it is left to the kernel. CB_ENOENT, CB_EINVAL. */
CB_API int cb_forward_vip_remove(cb_forward *f, const cb_forward_vip_opts *vip);

/* ---- members ---- */

/* How packets go to a member. */
enum cb_forward_encapsulation {
    CB_FORWARD_GUE = 0,  /* names the bucket's other owner too; needs a tag key */
    CB_FORWARD_IPIP = 1, /* 32 bytes less; the receiver looks into its own table */
    CB_FORWARD_MAC = 2   /* the same packet to another station of this link: no overhead */
};

/* Where a member of the table is reached. */
typedef struct cb_forward_member_opts {
    size_t size;
    const char *address;   /* in the underlay: "192.0.2.2" or "2001:db8::2". Required */
    uint32_t id;           /* as in the table */
    int32_t encapsulation; /* enum cb_forward_encapsulation */
    uint32_t mtu;          /* bytes of IP that fit on the way there; 0 = underlay_mtu, or what the route says */
    uint32_t reserved;
} cb_forward_member_opts;

/* Adds a member or changes it, this host too. Hosts that only forward (id 0) are told to the others as members as well,
 * by IDs that the table does not have: without a tag (IPIP) packets are taken from members only. Takes effect when the
 * table has it (cb_forward_sync()) and the way is known (cb_forward_resolve()). CB_EINVAL (id, address, encapsulation,
 * mtu; GUE without a tag key; no own address of its family, but for MAC), CB_EEXIST (another member has the address),
 * CB_ELIMIT (CB_LB_MEMBERS_MAX), CB_ENOMEM, CB_ESYS. */
CB_API int cb_forward_member(cb_forward *f, const cb_forward_member_opts *member);
/* Packets for it are dropped (no_owner) as long as the table has it. CB_ENOENT. */
CB_API int cb_forward_member_remove(cb_forward *f, uint32_t id);

/* Takes away what was taken over from a predecessor and has not been told since: VIPs, members, servers, forms of
 * connection IDs and interfaces. How many (the servers of a form that goes are not counted). CB_ESYS. */
CB_API int cb_forward_prune(cb_forward *f);

/* ---- QUIC ---- */

/* The form of connection IDs of one rotation, with their key: as the hosts make them (server_id and mask_key are not
 * needed). Replaces what this rotation had, and forgets its servers when the length of server IDs is another. Errors as
 * cb_quic_lb_new(); CB_ESYS. */
CB_API int cb_forward_cid(cb_forward *f, const cb_quic_lb_opts *form);
/* IDs of this rotation go by the table from now on. CB_ENOENT. */
CB_API int cb_forward_cid_remove(cb_forward *f, uint32_t rotation);
/* Which member a server ID of this rotation names; takes effect when the table has the member. CB_EINVAL: the rotation
 * has no form yet, or its server IDs have another length; CB_ELIMIT, CB_ENOMEM, CB_ESYS. */
CB_API int cb_forward_server(cb_forward *f, uint32_t rotation, cb_slice server_id, uint32_t member);
/* CB_ENOENT. */
CB_API int cb_forward_server_remove(cb_forward *f, uint32_t rotation, cb_slice server_id);
/* For cb_group_opts.dcids of the QUIC servers on this host: handshakes that have begun here stay here while their
 * bucket moves. Valid while f lives. */
CB_API cb_dcid_hook cb_forward_dcid_hook(cb_forward *f);

/* ---- keys ---- */

/* Makes a tag key known under a number (0..3), NULL forgets it; current 1: what is sent carries it from now on. To
 * change keys: known on all hosts first, then current on all, then the old one forgotten. CB_EINVAL (index; forgetting
 * the current one, or making an unknown one current), CB_ESYS. */
CB_API int cb_forward_tag_key(cb_forward *f, uint32_t index, const uint8_t *key, int current);

/* ---- the table, the ways, the end of flows ---- */

/* Brings what the table says into the datapath: members first, then buckets, each as one word. Cheap when nothing has
 * changed. How many words and members were written. CB_EINVAL: the table has another number of buckets; CB_ENOENT: it
 * is empty; CB_ESYS. */
CB_API int cb_forward_sync(cb_forward *f, const cb_lb_table *table);
/* Asks the kernel for the route and the neighbour of each member, makes it look for those that it does not know (or has
 * not heard from for long), and attaches to interfaces that came back. Call it when members changed and about each
 * second. How many members have no way yet. CB_ENOMEM, CB_ESYS. */
CB_API int cb_forward_resolve(cb_forward *f);
/* Finds the moved buckets where this host was first and nothing lives any more: no TCP socket of a VIP, and (with QUIC
 * VIPs) no handshake that may have begun before the move. on_idle gets each, to be passed on to
 * cb_lb_writer_idle(); a negative result stops, and is returned. Buckets come again as long as the table has them
 * moved. Looks at all TCP sockets of this network namespace, while buckets are on the move from here: then about
 * once a second is enough. How many were told. CB_EINVAL, CB_ENOMEM, CB_ESYS. */
CB_API int cb_forward_idle(cb_forward *f, int (*on_idle)(uint32_t bucket, void *user), void *user);

/* ---- ICMP for everybody ---- */

/* Errors for packets of QUIC whose owner cannot be told from what they quote: the program hands a few of them to user
 * space, which sends a copy to each member. The descriptor is readable when one waits; it lives as long as f. */
CB_API int cb_forward_fd(const cb_forward *f);
/* Sends on what waits. How many. CB_ESYS. */
CB_API int cb_forward_run(cb_forward *f);

/* ---- numbers ---- */

typedef struct cb_forward_stats {
    size_t size; /* set by the caller */
    uint64_t table_version;
    uint64_t fanned;     /* copies of ICMP errors sent to members by cb_forward_run() */
    uint64_t fan_failed; /* ... that could not be sent */
    uint64_t reattached; /* interfaces that came back */
    uint64_t dcids_full; /* connection IDs of clients that could not be made known */
    uint32_t vips, members, interfaces, servers;
    uint32_t unresolved; /* members without a way, at the latest cb_forward_resolve() */
    uint32_t missing;    /* interfaces that are gone for now */
    uint32_t program_id; /* in the kernel */
    uint32_t adopted;    /* 1: taken over from a predecessor */
} cb_forward_stats;

/* CB_EINVAL (out, size). */
CB_API int cb_forward_stats_get(cb_forward *f, cb_forward_stats *out);

/* The i-th kind of what became of packets: its name ("forwarded", "bad_tag" ..., static) and a sentence about it
 * (static), and their number since the datapath was loaded, of all processors. Any of the three may be NULL. CB_ENOENT:
 * there are no more. CB_ENOMEM, CB_ESYS. */
CB_API int cb_forward_count(cb_forward *f, uint32_t i, const char **name, const char **help, uint64_t *value);

typedef struct cb_forward_vip_stats {
    size_t size; /* set by the caller */
    uint64_t packets, bytes;
    int32_t protocol; /* enum cb_forward_protocol */
    uint16_t port;
    uint8_t quic;
    uint8_t adopted; /* 1: not told since it was taken over */
    char address[CB_FORWARD_ADDRESS_TEXT];
    uint8_t reserved[4];
} cb_forward_vip_stats;

/* The i-th VIP, in no order. CB_ENOENT: there are no more. CB_EINVAL (out, size), CB_ESYS. */
CB_API int cb_forward_vip_stats_get(cb_forward *f, size_t i, cb_forward_vip_stats *out);

typedef struct cb_forward_member_stats {
    size_t size;             /* set by the caller */
    uint64_t packets, bytes; /* sent there */
    uint32_t id;
    uint32_t slot;         /* in the table; 65,535 = not in it */
    int32_t encapsulation; /* enum cb_forward_encapsulation */
    uint32_t mtu;          /* bytes of IP on the way there; 0 = not known */
    uint32_t ifindex;      /* of the way there; 0 = not known, or this host */
    uint8_t live;          /* 1: the table has it up or draining */
    uint8_t self;          /* 1: this host */
    uint8_t resolved;      /* 1: the way is known */
    uint8_t adopted;       /* 1: not told since it was taken over */
    uint8_t next_hop[6];   /* MAC */
    uint8_t reserved[2];
    char address[CB_FORWARD_ADDRESS_TEXT];
    char why[76]; /* why the way is not known; empty when it is */
} cb_forward_member_stats;

/* The i-th member, in the order of IDs. CB_ENOENT: there are no more. CB_EINVAL (out, size), CB_ESYS. */
CB_API int cb_forward_member_stats_get(cb_forward *f, size_t i, cb_forward_member_stats *out);

typedef struct cb_forward_interface_stats {
    size_t size; /* set by the caller */
    char name[16];
    uint32_t ifindex; /* 0 = gone for now */
    uint32_t roles;   /* enum cb_forward_role, as bits */
    int32_t mode;     /* CB_FORWARD_NATIVE or CB_FORWARD_GENERIC */
    uint32_t adopted; /* 1: not told since it was taken over */
} cb_forward_interface_stats;

/* The i-th interface, in no order. CB_ENOENT: there are no more. CB_EINVAL (out, size). */
CB_API int cb_forward_interface_stats_get(cb_forward *f, size_t i, cb_forward_interface_stats *out);

/* Shows all of this in a registry (families cb_forward_*, docs/metrics.md) for as long as f lives; m is referenced. One
 * f a registry. Call it before other threads use f. CB_EINVAL (m), CB_EEXIST (it is shown already), CB_ENOMEM. */
CB_API int cb_forward_metrics(cb_forward *f, cb_metrics *m);

CB_END
#endif
