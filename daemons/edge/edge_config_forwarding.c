/* What of a configuration is about the PoP: members, VIPs, the table that they share. */
#include "edge_config.h"
#include "edge_schema.h"
#include <arpa/inet.h>
#include <cb/lb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MTU_MIN = 576 };

static const char *const role_names[] = {"edge", "underlay", "both", NULL};      /* from CB_FORWARD_EDGE on */
static const char *const mode_names[] = {"auto", "native", "generic", NULL};     /* enum cb_forward_mode */
static const char *const verify_names[] = {"full", "chain", "none", NULL};       /* enum cb_verify */
static const char *const check_names[] = {"none", "tcp", "http", "https", NULL}; /* EDGE_CHECK_... */
static const char *const down_names[] = {"dead", "drain", NULL};                 /* EDGE_DOWN_... */
static const char *const protocol_names[] = {"tcp+udp", "tcp", "udp", NULL};     /* EDGE_VIP_... */
static const char *const encapsulation_names[] = {"gue", "ipip", "mac", NULL};   /* enum cb_forward_encapsulation */
static const char *const member_encapsulation_names[] = {"default", "gue", "ipip", "mac", NULL};

static const cb_config_rule interface_rules[] = {
    {MEMBER(edge_forward_interface_conf, name), .kind = CB_CONFIG_TEXT, .required = 1, .min = 1, .max = 15,
     .doc = "Its name, such as \"eth0\". One that goes away and comes back is taken again."},
    {MEMBER(edge_forward_interface_conf, role), .kind = CB_CONFIG_ENUM, .names = role_names, .fallback = "both",
     .doc = "What comes in there: packets of clients, packets of other members, or both."},
    {MEMBER(edge_forward_interface_conf, mode), .kind = CB_CONFIG_ENUM, .names = mode_names, .fallback = "auto",
     .doc = "XDP in the driver (native), in the kernel's stack (generic, slower), or native where that is possible."},
    END};

static const cb_config_rule vip_rules[] = {
    {MEMBER(edge_forward_vip_conf, address), .kind = CB_CONFIG_TEXT, .required = 1, .min = 2, .max = 64,
     .doc = "\"198.51.100.1\", \"2001:db8::1\", or a prefix. Hosts have it on lo."},
    {MEMBER(edge_forward_vip_conf, protocol), .kind = CB_CONFIG_ENUM, .names = protocol_names, .fallback = "tcp+udp",
     .doc = "What of it is forwarded."},
    {MEMBER(edge_forward_vip_conf, port), .kind = CB_CONFIG_INT, .min = 0, .max = 65535, .fallback = "0",
     .doc = "0 = all ports that have no VIP of their own."},
    {MEMBER(edge_forward_vip_conf, quic), .kind = CB_CONFIG_BOOL, .fallback = "false",
     .doc = "UDP there is QUIC: it goes by connection ID, as quic_lb and server_id of members say."},
    END};

static const cb_config_rule member_rules[] = {
    {MEMBER(edge_forward_member_conf, id), COUNT(4294967295), .required = 1,
     .doc = "Its number, the same on all hosts and for ever."},
    {MEMBER(edge_forward_member_conf, address), .kind = CB_CONFIG_TEXT, .required = 1, .min = 2, .max = 45,
     .doc = "Where packets for it go: its address in the underlay."},
    {MEMBER(edge_forward_member_conf, control), .kind = CB_CONFIG_TEXT, .min = 3, .max = 120,
     .doc = "\"HOST:PORT\" where it listens as the writer; needed for the writer."},
    {MEMBER(edge_forward_member_conf, weight), COUNT(CB_LB_WEIGHT_MAX), .fallback = "100",
     .doc = "Its share. That of the writer's configuration counts."},
    {MEMBER(edge_forward_member_conf, peer), .kind = CB_CONFIG_TEXT, .min = 1, .max = 512,
     .doc = "What its certificate says: a SPIFFE ID, a DNS name or an address. Without it any certificate of the "
            "authority may speak for it."},
    {MEMBER(edge_forward_member_conf, server_id), .kind = CB_CONFIG_TEXT, .min = 2, .max = 30,
     .doc = "Its server_id of quic_lb, in hex; QUIC finds it by that."},
    {MEMBER(edge_forward_member_conf, encapsulation), .kind = CB_CONFIG_ENUM, .names = member_encapsulation_names,
     .fallback = "default", .doc = "How packets go to it, where that is not as the block says."},
    {MEMBER(edge_forward_member_conf, mtu), .kind = CB_CONFIG_INT, .min = 0, .max = 65535, .fallback = "0",
     .doc = "Bytes of IP that fit on the way there; 0 = what the route says."},
    END};

static const cb_config_rule cid_rules[] = {{MEMBER(edge_forward_cid_conf, rotation), .kind = CB_CONFIG_INT, .min = 0,
                                            .max = 6, .required = 1,
                                            .doc = "The rotation that these connection IDs have."},
                                           {MEMBER(edge_forward_cid_conf, cid_key_file), .kind = CB_CONFIG_TEXT,
                                            .format = CB_FORMAT_FILE, .doc = "Their key; they are plain when absent."},
                                           END};

static const cb_config_rule control_rules[] = {
    {MEMBER(edge_forward_control_conf, listen), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_LISTEN,
     .doc = "Writer: where to listen for the others, when that is not its \"control\"."},
    {MEMBER(edge_forward_control_conf, cert_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE, .required = 1,
     .doc = "PEM file with this host's certificate chain."},
    {MEMBER(edge_forward_control_conf, key_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE, .required = 1,
     .doc = "PEM file with its private key."},
    {MEMBER(edge_forward_control_conf, ca_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE, .required = 1,
     .doc = "PEM file with the authority of the PoP's hosts, and of nobody else."},
    END};

static const cb_config_rule health_rules[] = {
    {MEMBER(edge_forward_health_conf, kind), .kind = CB_CONFIG_ENUM, .names = check_names, .fallback = "none",
     .doc = "How members are asked, at their address: by a connection or a request, or not at all."},
    {MEMBER(edge_forward_health_conf, port), COUNT(65535), .fallback = "80", .doc = "Where they are asked."},
    {MEMBER(edge_forward_health_conf, path), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_PATH, .fallback = "/",
     .doc = "Of the request; 200 to 299 is well."},
    {MEMBER(edge_forward_health_conf, host), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_HOST,
     .doc = "Host of the request, and the name that an https member's certificate must have; the address when absent."},
    {MEMBER(edge_forward_health_conf, verify), .kind = CB_CONFIG_ENUM, .names = verify_names, .fallback = "full",
     .doc = "How https members are verified: chain, dates and name; chain and dates; or nothing (for tests only)."},
    {MEMBER(edge_forward_health_conf, ca_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "PEM file with trust roots for https members; the system's when absent."},
    {MEMBER(edge_forward_health_conf, down), .kind = CB_CONFIG_ENUM, .names = down_names, .fallback = "dead",
     .doc = "Who is not well loses its flows at once (dead), or only gets no new ones (drain)."},
    {MEMBER(edge_forward_health_conf, interval_ms), MILLISECONDS, .fallback = "5000", .doc = "From check to check."},
    {MEMBER(edge_forward_health_conf, timeout_ms), MILLISECONDS, .fallback = "2000", .doc = "Of a check."},
    {MEMBER(edge_forward_health_conf, rise), COUNT(100), .fallback = "2",
     .doc = "Successes in a row that bring it up."},
    {MEMBER(edge_forward_health_conf, fall), COUNT(100), .fallback = "3",
     .doc = "Failures in a row that take it down."},
    {MEMBER(edge_forward_health_conf, slow_start_ms), .kind = CB_CONFIG_INT, .min = 0, .max = 86400000, .fallback = "0",
     .doc = "Its share grows to the whole in this time when it comes up."},
    {MEMBER(edge_forward_health_conf, by_load), .kind = CB_CONFIG_BOOL, .fallback = "false",
     .doc = "Who is busier than the others gets less, slowly. All members tell their load."},
    {MEMBER(edge_forward_health_conf, load_step_ms), MILLISECONDS, .fallback = "60000",
     .doc = "Shares by load change this often at most. The load is an average over a minute: shorter steps overshoot."},
    {MEMBER(edge_forward_health_conf, load_min_percent), COUNT(100), .fallback = "20",
     .doc = "Of its own weight that load leaves to a member."},
    {MEMBER(edge_forward_health_conf, load_max_percent), .kind = CB_CONFIG_INT, .min = 101, .max = 1000,
     .fallback = "300", .doc = "Of its own weight that load gives to a member at most."},
    END};

const cb_config_rule edge_forwarding_rules[] = {
    {MEMBER(edge_forwarding_conf, id), COUNT(4294967295), .required = 1, .doc = "Which member this host is."},
    {MEMBER(edge_forwarding_conf, writer), COUNT(4294967295), .required = 1,
     .doc = "Which member decides about the table, the same on all hosts."},
    {MEMBER(edge_forwarding_conf, members), .kind = CB_CONFIG_ARRAY, .members = member_rules,
     .item_size = sizeof(edge_forward_member_conf), .min = 1, .max = CB_LB_MEMBERS_MAX, .required = 1,
     .doc = "The hosts of the PoP, the same on all of them. A new one gets flows when all know it."},
    {MEMBER(edge_forwarding_conf, key_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE, .required = 1,
     .doc =
         "32 random bytes (mode 0600), the same on all hosts, from which the keys of table, flows and tags are made."},
    {MEMBER(edge_forwarding_conf, state_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE, .required = 1,
     .doc = "Keeps the table, and what operators said of members; made when absent. Its folder must be writable."},
    {MEMBER(edge_forwarding_conf, control), .kind = CB_CONFIG_OBJECT, .members = control_rules,
     .item_size = sizeof(edge_forward_control_conf),
     .doc = "How hosts know each other; needed when there is more than one."},
    {MEMBER(edge_forwarding_conf, health), .kind = CB_CONFIG_OBJECT, .members = health_rules,
     .item_size = sizeof(edge_forward_health_conf),
     .doc = "Writer: checks of members, and shares by their load. Without it only silence takes a member out."},
    {MEMBER(edge_forwarding_conf, interfaces), .kind = CB_CONFIG_ARRAY, .members = interface_rules,
     .item_size = sizeof(edge_forward_interface_conf), .max = 64,
     .doc = "Where the datapath (XDP) sits. Without any, the table is shared and nothing forwards."},
    {MEMBER(edge_forwarding_conf, vips), .kind = CB_CONFIG_ARRAY, .members = vip_rules,
     .item_size = sizeof(edge_forward_vip_conf), .max = 1024, .doc = "Common addresses of the PoP."},
    {MEMBER(edge_forwarding_conf, add_addresses), .kind = CB_CONFIG_BOOL, .fallback = "false",
     .doc = "Add VIPs to lo that are not there. They stay when it ends."},
    {MEMBER(edge_forwarding_conf, encapsulation), .kind = CB_CONFIG_ENUM, .names = encapsulation_names,
     .fallback = "gue", .doc = "How packets go to members. Second hops always go by gue."},
    {MEMBER(edge_forwarding_conf, cids), .kind = CB_CONFIG_ARRAY, .members = cid_rules,
     .item_size = sizeof(edge_forward_cid_conf), .max = 7,
     .doc = "Connection IDs of other rotations than that of quic_lb, while servers turn from one to the other."},
    {MEMBER(edge_forwarding_conf, tag_key), .kind = CB_CONFIG_INT, .min = 0, .max = 1000000000, .fallback = "1",
     .doc =
         "Number of the key of tags. A host also takes those before and after: raise it by one on one host after the "
         "other."},
    {MEMBER(edge_forwarding_conf, buckets), .kind = CB_CONFIG_INT, .min = 2, .max = CB_LB_BUCKETS_MAX,
     .fallback = "65537", .doc = "Of the table; a prime."},
    {MEMBER(edge_forwarding_conf, pin_dir), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "Directory in a BPF file system where the datapath outlives the process, such as /sys/fs/bpf/cb-edge."},
    {MEMBER(edge_forwarding_conf, underlay_mtu), .kind = CB_CONFIG_INT, .min = 0, .max = 65535, .fallback = "0",
     .doc = "Bytes of IP that fit between hosts; 0 = what routes say."},
    {MEMBER(edge_forwarding_conf, gue_port), COUNT(65535), .fallback = "6080", .doc = "UDP port of gue."},
    {MEMBER(edge_forwarding_conf, heartbeat_ms), .kind = CB_CONFIG_INT, .min = 50, .max = 60000, .fallback = "1000",
     .doc = "Writer: how often each host is heard at least."},
    {MEMBER(edge_forwarding_conf, misses), .kind = CB_CONFIG_INT, .min = 3, .max = 100, .fallback = "3",
     .doc = "Writer: heartbeats without a word until a member is dead."},
    {MEMBER(edge_forwarding_conf, rise_ms), .kind = CB_CONFIG_INT, .min = 0, .max = 86400000, .fallback = "0",
     .doc = "Writer: how long it has to be back, doubled each time it dies again; 0 = misses heartbeats."},
    {MEMBER(edge_forwarding_conf, min_live_percent), COUNT(100), .fallback = "50",
     .doc = "Writer: never are fewer members alive by its word: it is rather cut off itself."},
    {MEMBER(edge_forwarding_conf, start_ms), MILLISECONDS, .fallback = "5000",
     .doc = "Writer: how long to wait at a start for hosts that may have a newer table."},
    {MEMBER(edge_forwarding_conf, moves_per_step), .kind = CB_CONFIG_INT, .min = 0, .max = CB_LB_BUCKETS_MAX,
     .fallback = "0", .doc = "Writer: buckets that begin to move at a time; 0 = a sixteenth of all."},
    {MEMBER(edge_forwarding_conf, step_ms), MILLISECONDS, .fallback = "1000", .doc = "Writer: between two such steps."},
    {MEMBER(edge_forwarding_conf, ack_ms), MILLISECONDS, .fallback = "2000",
     .doc = "Writer: how long hosts may take to apply an announcement; then moves go on, and flows may break."},
    {MEMBER(edge_forwarding_conf, settle_ms), MILLISECONDS, .fallback = "3600000",
     .doc = "Writer: how long the old owner of a bucket keeps flows at most."},
    END};

/* ---- what rules cannot say ---- */

static bool is_address(const char *text) {
    uint8_t bytes[16];
    return inet_pton(AF_INET, text, bytes) == 1 || inet_pton(AF_INET6, text, bytes) == 1;
}

static bool is_prime(int64_t n) {
    for (int64_t i = 2; i * i <= n; i++)
        if (n % i == 0) return false;
    return n > 1;
}

bool edge_prefix_read(edge_prefix *out, const char *text) {
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    char address[INET6_ADDRSTRLEN];
    const size_t n = strcspn(text, "/");
    uint32_t shift = 0, bits = 0;
    if (n >= sizeof address) return false;
    memcpy(address, text, n);
    address[n] = '\0';
    if (inet_pton(AF_INET6, address, out->bytes) != 1) {
        memcpy(out->bytes, mapped, sizeof mapped);
        shift = 96;
        if (inet_pton(AF_INET, address, out->bytes + 12) != 1) return false;
    }
    const char *digits = text + n + 1;
    const size_t len = text[n] ? strspn(digits, "0123456789") : 0;
    if (text[n] && (!len || len > 3 || digits[len])) return false;
    for (size_t i = 0; i < len; i++)
        bits = bits * 10 + (uint32_t)(digits[i] - '0');
    if (!text[n]) bits = 128 - shift;
    if (bits > 128 - shift) return false;
    out->bits = (uint8_t)(bits + shift);
    for (uint32_t i = out->bits; i < 128; i++)
        out->bytes[i / 8] &= (uint8_t) ~(0x80U >> i % 8);
    return true;
}

bool edge_prefix_same(const char *a, const char *b) {
    edge_prefix x, y;
    return edge_prefix_read(&x, a) && edge_prefix_read(&y, b) && x.bits == y.bits &&
           memcmp(x.bytes, y.bytes, sizeof x.bytes) == 0;
}

static const edge_forward_member_conf *member_of(const edge_forwarding_conf *f, int64_t id) {
    const edge_forward_member_conf *m = f->members.at;
    for (size_t i = 0; i < f->members.len; i++)
        if (m[i].id == id) return &m[i];
    return NULL;
}

static bool is_server_id(const char *text) {
    const size_t len = strlen(text);
    return len % 2 == 0 && strspn(text, "0123456789abcdefABCDEF") == len;
}

/* "HOST:PORT", "[ADDRESS]:PORT" */
static bool is_place(const char *text) {
    const char *colon = strrchr(text, ':');
    if (!colon || colon == text || (strchr(text, ':') != colon && (*text != '[' || colon[-1] != ']'))) return false;
    const size_t digits = strspn(colon + 1, "0123456789");
    const unsigned long port = digits && digits <= 5 && !colon[1 + digits] ? strtoul(colon + 1, NULL, 10) : 0;
    return port > 0 && port <= 65535;
}

static void complain(cb_config_draft *d, const char *list, size_t i, const char *member, const char *why) {
    char pointer[80];
    snprintf(pointer, sizeof pointer, "/forwarding/%s/%zu%s", list, i, member);
    cb_config_complain(d, pointer, why);
}

/* What the datapath would refuse when it is told. */
static void check_member(cb_config_draft *d, const edge_forwarding_conf *f, size_t i) {
    const edge_forward_member_conf *all = f->members.at, *m = &all[i], *us = member_of(f, f->id);
    const int32_t encapsulation = m->encapsulation ? m->encapsulation - 1 : f->encapsulation;
    const bool six = strchr(m->address, ':') != NULL, by_mac = strcmp(encapsulation_names[encapsulation], "mac") == 0;
    if (!is_address(m->address))
        complain(d, "members", i, "/address", "it must be an IPv4 or IPv6 address");
    else if (us && f->interfaces.len && !by_mac && six != (strchr(us->address, ':') != NULL))
        complain(d, "members", i, "/address", "our own is of the other family: only \"mac\" gets there");
    if (m->control && !is_place(m->control)) complain(d, "members", i, "/control", "it must be \"HOST:PORT\"");
    if (m->mtu && m->mtu < MTU_MIN) complain(d, "members", i, "/mtu", "it must be 0, or 576 to 65535");
    if (m->server_id && !is_server_id(m->server_id))
        complain(d, "members", i, "/server_id", "it must be hex, two digits for each byte");
    else if (m->server_id && us && us->server_id && strlen(m->server_id) != strlen(us->server_id))
        complain(d, "members", i, "/server_id", "all have to be as long as our own");
}

static void compare_members(cb_config_draft *d, const edge_forward_member_conf *m, size_t k, size_t i, bool one_address,
                            bool one_server_id) {
    const long long a = (long long)m[k].id, b = (long long)m[i].id;
    char text[160];
    snprintf(text, sizeof text, "two members have the id %lld", b);
    if (a == b) complain(d, "members", i, "/id", text);
    snprintf(text, sizeof text, "members %lld and %lld have one address", a, b);
    if (one_address) complain(d, "members", i, "/address", text);
    snprintf(text, sizeof text, "members %lld and %lld have one server_id", a, b);
    if (one_server_id) complain(d, "members", i, "/server_id", text);
}

/* There may be thousands. */
static void check_members(cb_config_draft *d, const edge_forwarding_conf *f) {
    const edge_forward_member_conf *m = f->members.at;
    edge_prefix *at = calloc(f->members.len, sizeof *at);
    for (size_t i = 0; at && i < f->members.len; i++) {
        check_member(d, f, i);
        const bool good = edge_prefix_read(&at[i], m[i].address);
        for (size_t k = 0; k < i; k++) {
            const bool one = good && memcmp(at[i].bytes, at[k].bytes, sizeof at[i].bytes) == 0;
            const bool ids = m[i].server_id && m[k].server_id && strcasecmp(m[i].server_id, m[k].server_id) == 0;
            if (one || ids || m[i].id == m[k].id) compare_members(d, m, k, i, one, ids);
        }
    }
    free(at);
}

static void check_who(cb_config_draft *d, const edge_conf *c) {
    const edge_forwarding_conf *f = c->forwarding;
    const edge_forward_member_conf *us = member_of(f, f->id), *writer = member_of(f, f->writer);
    if (!us) cb_config_complain(d, "/forwarding/id", "it is none of \"members\"");
    if (!writer) cb_config_complain(d, "/forwarding/writer", "it is none of \"members\"");
    if (f->members.len > 1 && !f->control)
        cb_config_complain(d, "/forwarding", "\"control\" is needed where there are other members");
    if (f->members.len > 1 && writer && !writer->control)
        cb_config_complain(d, "/forwarding/members", "the writer needs \"control\": where it listens");
    if (us && us->server_id && (!c->quic_lb || strcasecmp(c->quic_lb->server_id, us->server_id) != 0))
        cb_config_complain(d, "/forwarding/members", "our own server_id is not that of \"quic_lb\"");
}

/* Of prefixes there is one VIP, of an address and port one for each protocol. */
static bool overlap(const edge_forward_vip_conf *a, const edge_forward_vip_conf *b) {
    if (!edge_prefix_same(a->address, b->address) || a->port != b->port) return false;
    return strchr(a->address, '/') || a->protocol == b->protocol || !a->protocol || !b->protocol;
}

static void check_vips(cb_config_draft *d, const edge_forwarding_conf *f) {
    const edge_forward_vip_conf *v = f->vips.at;
    edge_prefix p = {.bits = 0};
    for (size_t i = 0; i < f->vips.len; i++) {
        if (!edge_prefix_read(&p, v[i].address))
            complain(d, "vips", i, "", "address must be an IPv4 or IPv6 address, or a prefix");
        else if (p.bits < 128 && v[i].port)
            complain(d, "vips", i, "", "a prefix has no port");
        if (v[i].quic && v[i].protocol == EDGE_VIP_TCP) complain(d, "vips", i, "", "quic is by UDP");
        for (size_t k = 0; k < i; k++) {
            if (!overlap(&v[i], &v[k])) continue;
            complain(d, "vips", i, "", "one before it has this address, port and protocol");
            break;
        }
    }
}

static void check_lists(cb_config_draft *d, const edge_conf *c) {
    const edge_forwarding_conf *f = c->forwarding;
    const edge_forward_interface_conf *n = f->interfaces.at;
    const edge_forward_cid_conf *r = f->cids.at;
    for (size_t i = 0; i < f->interfaces.len; i++)
        for (size_t k = 0; k < i; k++)
            if (strcmp(n[i].name, n[k].name) == 0) complain(d, "interfaces", i, "/name", "it is there twice");
    for (size_t i = 0; i < f->cids.len; i++) {
        bool twice = c->quic_lb && c->quic_lb->rotation == r[i].rotation;
        for (size_t k = 0; k < i; k++)
            twice |= r[i].rotation == r[k].rotation;
        if (twice) complain(d, "cids", i, "/rotation", "it is there twice, or that of \"quic_lb\"");
    }
}

void edge_config_check_forwarding(cb_config_draft *d, const edge_conf *c) {
    const edge_forwarding_conf *f = c->forwarding;
    if (!f) return;
    check_members(d, f);
    check_who(d, c);
    check_vips(d, f);
    check_lists(d, c);
    if (f->underlay_mtu && f->underlay_mtu < MTU_MIN)
        cb_config_complain(d, "/forwarding/underlay_mtu", "it must be 0, or 576 to 65535");
    if (!is_prime(f->buckets)) cb_config_complain(d, "/forwarding/buckets", "it must be a prime, such as 65537");
}
