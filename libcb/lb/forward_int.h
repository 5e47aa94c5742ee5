/* The inside of cb_forward, and what its files share:
 *
 *   forward.c          options, life
 *   forward_load.c     the program and its maps: loading, pinning, taking over
 *   forward_near.c     copies of what each packet asks for
 *   forward_attach.c   interfaces
 *   forward_vips.c     VIPs
 *   forward_members.c  members and what is written of them, by slot
 *   forward_quic.c     forms of connection IDs, server IDs, client-chosen IDs, tag keys
 *   forward_sync.c     the table into the datapath; pruning
 *   forward_idle.c     buckets in which nothing lives
 *   forward_way.c      routes and neighbours of members
 *   forward_fan.c      ICMP errors to all members
 *   forward_stats.c    numbers
 *
 * Everything below is guarded by `lock`, but for what a cb_dcid_hook touches: a map's descriptor and a counter. */
#ifndef CB_LB_FORWARD_INT_H
#define CB_LB_FORWARD_INT_H

#include "forward.h"
#include "lb/netlink.h"
#include <cb/forward.h>
#include <net/if.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct forward_bpf;
struct ring_buffer;

enum { FW_MAPS_MAX = 32, FW_WHY = 76, FW_VIP_ENTRIES = 3 /* of `vips`, at most: TCP, UDP, the address */ };

typedef struct fw_vip_entry {
    uint8_t address[16]; /* IPv4 as ::ffff:a.b.c.d */
    uint8_t bits;        /* 128: one address */
    uint8_t protocol;    /* enum cb_forward_protocol */
    uint8_t quic;
    bool told;
    uint16_t port; /* host byte order */
    uint32_t index;
} fw_vip_entry;

typedef struct fw_member_entry {
    uint32_t id;
    uint8_t address[16]; /* IPv4 as ::ffff:a.b.c.d */
    uint8_t encapsulation;
    bool told;
    bool live;       /* as the table has it */
    uint32_t mtu;    /* as it was told; 0 = by the route */
    uint32_t slot;   /* in the table; CB_FW_NOBODY */
    uint32_t placed; /* the slot that the datapath has it in; CB_FW_NOBODY */
    struct cb_fw_member written;
    /* the way, as of the latest cb_forward_resolve() */
    uint32_t ifindex, way_mtu; /* 0 = not known */
    uint8_t next_hop[6], source[6];
    char why[FW_WHY];
} fw_member_entry;

typedef struct fw_server_entry {
    struct cb_fw_server key;
    uint32_t member;
    uint32_t slot; /* as written; CB_FW_NOBODY: not written */
    bool told;
} fw_server_entry;

typedef struct fw_interface_entry {
    char name[IF_NAMESIZE];
    uint32_t ifindex; /* 0 = gone for now */
    uint32_t roles;
    int wanted, mode; /* enum cb_forward_mode */
    int link;
    bool told, mss, refused;
} fw_interface_entry;

/* A growing array of one kind of the above. */
typedef struct fw_list {
    void *at;
    size_t n, cap, each;
} fw_list;

struct cb_forward {
    cb_alloc alloc;
    const cb_log *log;
    pthread_mutex_t lock;
    char *pin_dir;
    uint32_t id, buckets, vips_max, underlay_mtu;
    bool no_mss, adopted;

    struct forward_bpf *skel;
    struct cb_fw_control *control;
    uint64_t *words;
    size_t words_bytes;
    unsigned processors;

    fw_list vips, members, servers, interfaces;
    uint8_t cid_told;             /* bits by rotation */
    uint32_t *slot_ids;           /* by slot: whom the datapath has there; 0 = nobody */
    uint32_t *moved_at;           /* by bucket: in which second it got its owners */
    uint8_t *index_used;          /* by index of a VIP */
    struct cb_fw_traffic *percpu; /* room for what the map has of one key, by processor */

    bool synced, members_changed;
    uint64_t table_version, table_content;
    uint32_t unknown; /* members of the table without an address */

    int routes, diag; /* netlink sockets; -1 = not open yet */
    uint32_t seq;
    uint32_t unresolved;

    struct ring_buffer *ring;
    int fan4, fan6; /* UDP sockets; -1 = not open */
    uint64_t fanned, fan_failed, reattached;

    int live_fd;
    _Atomic uint64_t dcids_full;

    cb_metrics *metrics;
};

/* ---- lists ---- */
/* Room for one more at place i, zeroed; the others move. NULL: no memory. */
void *fw_list_insert(cb_forward *f, fw_list *l, size_t i);
void fw_list_remove(fw_list *l, size_t i);
void fw_list_free(cb_forward *f, fw_list *l);

static inline fw_vip_entry *fw_vip_at(const cb_forward *f, size_t i) {
    return (fw_vip_entry *)f->vips.at + i;
}
static inline fw_member_entry *fw_member_at(const cb_forward *f, size_t i) {
    return (fw_member_entry *)f->members.at + i;
}
static inline fw_server_entry *fw_server_at(const cb_forward *f, size_t i) {
    return (fw_server_entry *)f->servers.at + i;
}
static inline fw_interface_entry *fw_interface_at(const cb_forward *f, size_t i) {
    return (fw_interface_entry *)f->interfaces.at + i;
}

/* ---- maps, by name ---- */
enum fw_map {
    FW_CONTROL,
    FW_TABLE,
    FW_MEMBERS,
    FW_IDS,
    FW_UNDERLAY,
    FW_VIPS,
    FW_PREFIXES,
    FW_CIDS,
    FW_SERVERS,
    FW_LIVE,
    FW_INTERFACES,
    FW_COUNTERS,
    FW_VIP_COUNTERS,
    FW_MEMBER_COUNTERS,
    FW_FANOUT,
    FW_NEAR
};
int fw_map_fd(const cb_forward *f, enum fw_map map);
/* A changing call with the map's name in the error. key and value as of the map. */
int fw_map_put(const cb_forward *f, enum fw_map map, const void *key, const void *value);
/* What is not there counts as deleted. */
int fw_map_del(const cb_forward *f, enum fw_map map, const void *key);

/* ---- forward_near.c: called by the two above for every map ---- */
int fw_near_put(const cb_forward *f, enum fw_map map, const void *key, const void *value);
int fw_near_del(const cb_forward *f, enum fw_map map, const void *key);
/* Anew from the hash maps, whatever became of a predecessor. */
int fw_near_build(cb_forward *f);

/* ---- forward_load.c ---- */
int fw_load(cb_forward *f, const cb_forward_opts *o);
/* Reads what a predecessor was told, and replaces its program (forward.c). */
int fw_adopt(cb_forward *f);
void fw_unload(cb_forward *f);
uint32_t fw_program_id(const cb_forward *f);
/* Descriptors of the programs; mss: -1 when there is none. */
int fw_program(const cb_forward *f);
int fw_program_mss(const cb_forward *f);
/* The result for a program that the kernel did not take: err is errno's, log what the verifier said (may be empty). */
int fw_load_failed(int err, const char *program, const char *log);
/* libbpf's lines on standard error are off between the two; libcb prints nothing. */
void *fw_quiet(void);
void fw_loud(void *before);
/* "link_7" in pin_dir. */
void fw_link_path(const char *dir, uint32_t ifindex, char *out, size_t cap);

/* ---- forward_attach.c ---- */
/* The links that pin_dir has: each gets the new program, or none does. */
int fw_attach_adopt(cb_forward *f);
void fw_attach_close(cb_forward *f);
int fw_detach_at(cb_forward *f, size_t i);
/* Attaches again to what came back; tells what has gone. */
void fw_attach_watch(cb_forward *f);
/* Takes the program for what leaves off an interface; another's stay. */
void fw_mss_detach(uint32_t ifindex);

/* ---- forward_vips.c ---- */
int fw_vips_adopt(cb_forward *f);
int fw_vip_remove_at(cb_forward *f, size_t i);
/* Is this address and port (network byte order) of a TCP VIP? */
bool fw_vip_has(const cb_forward *f, const uint8_t address[16], const uint8_t port[2]);

/* ---- forward_members.c ---- */
int fw_members_adopt(cb_forward *f);
/* The place of a member, or where it belongs. */
bool fw_member_find(const cb_forward *f, uint32_t id, size_t *at);
/* Writes what has changed of a member, if it is in the table. 1: something was. */
int fw_member_write(cb_forward *f, fw_member_entry *m);
/* Takes it out of its slot, unless another has it by now. */
int fw_member_unplace(cb_forward *f, fw_member_entry *m);
int fw_member_remove_at(cb_forward *f, size_t i);
int fw_member_family(const fw_member_entry *m);
/* Nobody else may send without a tag: forgets what a predecessor knew of hosts outside of the table. */
int fw_underlay_prune(cb_forward *f);

/* ---- forward_quic.c ---- */
int fw_quic_adopt(cb_forward *f);
/* Writes the server IDs whose member's slot has changed. How many. */
int fw_servers_write(cb_forward *f);
int fw_server_remove_at(cb_forward *f, size_t i);
int fw_cid_forget(cb_forward *f, uint32_t rotation);
bool fw_has_tag_key(const cb_forward *f);

/* ---- forward_way.c, forward_fan.c, forward_stats.c ---- */
int fw_netlink_open(int *fd, int protocol);
int fw_fan_open(cb_forward *f);
void fw_fan_close(cb_forward *f);
void fw_metrics_close(cb_forward *f);

/* ---- text ---- */
/* Reads an address without port, v4-mapped. 4, 6, or CB_EINVAL. */
int fw_address_parse(uint8_t out[16], const char *text, const char *field);
/* "198.51.100.0/24"; bits 128 (of the v4-mapped form) are not written. */
void fw_address_text(char out[CB_FORWARD_ADDRESS_TEXT], const uint8_t address[16], unsigned bits);
bool fw_is4(const uint8_t address[16]);
uint32_t fw_seconds(void); /* monotonic */

#define FW_LOCK(f)   pthread_mutex_lock(&(f)->lock)
#define FW_UNLOCK(f) pthread_mutex_unlock(&(f)->lock)

#endif
