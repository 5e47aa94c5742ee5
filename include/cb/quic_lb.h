/* cb/quic_lb.h - connection IDs that say where a connection lives (draft-ietf-quic-load-balancers-21).
 *
 * A load balancer reads the server from a connection ID without keeping state; the host reads from the two bytes
 * behind the QUIC-LB block which of its workers, and which generation of its process, owns the connection:
 *
 *     octet 0                     server ID   nonce   worker  generation
 *     3 bits rotation, 5 bits n   |----- plain or encrypted -----|  masked by SipHash(mask_key, octet 0 and block)
 *
 * n is the length of all that follows the first octet. By default a connection ID has 19 bytes: a block of 17 (server
 * ID and nonce together 16) and the two of the host, which needs no key of the balancer's to read them.
 *
 * Encrypted, observers cannot tell which connection IDs lead to one server; whoever has the key can, so that hosts and
 * balancers of one place share it and nobody else has it. One block (AES_ONE) is cheaper than the four passes, which
 * are there for every other length. Neither is authentication: a made-up ID reads as some server's.
 *
 * A codec, and a set of them, never changes after it was made: threads may share it. */
#ifndef CB_QUIC_LB_H
#define CB_QUIC_LB_H

#include <cb/base.h>

CB_BEGIN

typedef struct cb_quic_lb cb_quic_lb;

enum cb_quic_lb_codec {
    CB_QUIC_LB_PLAIN = 0,   /* server ID and nonce can be read by everybody (draft, 5.2) */
    CB_QUIC_LB_AES_ONE = 1, /* one AES-128 block: server ID and nonce have 16 bytes together (5.4.1) */
    CB_QUIC_LB_AES_FOUR = 2 /* Feistel network of four AES-128 passes: any other length (5.4.2) */
};

enum cb_quic_lb_limits {
    CB_QUIC_LB_CID_MAX = 20,       /* RFC 9000, 17.2 */
    CB_QUIC_LB_HOST_BYTES = 2,     /* worker and generation */
    CB_QUIC_LB_SERVER_ID_MAX = 15, /* what fits beside the shortest nonce, of 4 bytes; 13 with the bytes of the host */
    CB_QUIC_LB_CONFIGS = 7         /* rotations 0..6 */
};

typedef struct cb_quic_lb_opts {
    size_t size;
    const cb_alloc *alloc;    /* NULL = malloc; must be usable on the thread that frees the codec */
    const uint8_t *server_id; /* copied; NULL = a balancer's codec, which only reads: it has no server of its own */
    const uint8_t *mask_key;  /* copied: 16 secret bytes, equal in all processes of a host. Required where server_id and
                               * the bytes of the host are; NULL: worker and generation are read as 0 */
    uint32_t server_id_bytes; /* 1..15 */
    uint32_t nonce_bytes;     /* 4..18, at most 17 with the server ID, 19 with no_host_bytes; 0 = 16 - server_id_bytes;
                               * required for AES_FOUR */
    uint32_t rotation;        /* configuration ID, 0..6 */
    int32_t codec;            /* enum cb_quic_lb_codec */
    const uint8_t *key;       /* copied: the 16 secret bytes of an encrypted codec, required there and only there */
    uint8_t no_host_bytes;    /* 1: a connection ID ends with the block, as other implementations have it */
    uint8_t reserved[7];
} cb_quic_lb_opts;

/* Makes a codec. CB_EINVAL names the field; CB_ENOMEM, CB_E2BIG. */
CB_API int cb_quic_lb_new(cb_quic_lb **out, const cb_quic_lb_opts *opts);
/* Wipes the keys and frees the codec. NULL is fine. */
CB_API void cb_quic_lb_free(cb_quic_lb *lb);

/* How long a connection ID of this codec is, and how much of it is nonce. */
CB_API size_t cb_quic_lb_cid_bytes(const cb_quic_lb *lb);
CB_API size_t cb_quic_lb_nonce_bytes(const cb_quic_lb *lb);

/* Writes a connection ID of cb_quic_lb_cid_bytes() bytes and returns that length. nonce: cb_quic_lb_nonce_bytes()
 * unpredictable bytes, not used before with this server ID and key. worker and generation: 0..255, and 0 with
 * no_host_bytes. Allocates nothing. CB_EINVAL: NULL, cap is too small, a number is too large, or the codec is a
 * balancer's. */
CB_API int cb_quic_lb_encode(const cb_quic_lb *lb, uint8_t *cid, size_t cap, const uint8_t *nonce, uint32_t worker,
                             uint32_t generation);

/* What cb_quic_lb_decode() found. */
enum cb_quic_lb_match {
    CB_QUIC_LB_FOREIGN = 0, /* not of this configuration's form: chosen by a client, or of another rotation; 7 is
                             * unroutable by definition */
    CB_QUIC_LB_OTHER = 1,   /* of the form, with another server's ID; a balancer's codec finds nothing else */
    CB_QUIC_LB_OURS = 2     /* of the form, with our server ID */
};

typedef struct cb_quic_lb_info {
    uint8_t rotation;
    uint8_t server_id_bytes;
    uint8_t worker;     /* of the host that issued it; meaningless with another mask key */
    uint8_t generation; /* likewise */
    uint8_t server_id[CB_QUIC_LB_SERVER_ID_MAX];
    uint8_t reserved;
} cb_quic_lb_info;

/* Reads a connection ID; an enum cb_quic_lb_match. *out is filled unless it is foreign (then only rotation is, 7 for an
 * empty one). Allocates nothing; at most four AES blocks and one SipHash. */
CB_API int cb_quic_lb_decode(const cb_quic_lb *lb, cb_slice cid, cb_quic_lb_info *out);

/* Several configurations at once (draft, 3.1). To turn from one to the next, balancers and hosts first get a set that
 * reads both; then hosts make connection IDs with the new codec; when no connection is left that knows IDs of the old
 * one, its rotation is free again. */
typedef struct cb_quic_lb_set cb_quic_lb_set;

/* Makes a set of copies of n codecs, 1..CB_QUIC_LB_CONFIGS, each of another rotation. alloc: NULL = malloc.
 * CB_EINVAL (NULL, n), CB_EEXIST (two have one rotation), CB_ENOMEM. */
CB_API int cb_quic_lb_set_new(cb_quic_lb_set **out, const cb_quic_lb *const *codecs, size_t n, const cb_alloc *alloc);
/* Wipes the keys and frees the set. NULL is fine. */
CB_API void cb_quic_lb_set_free(cb_quic_lb_set *set);
/* The set's codec of a rotation, which lives as long as the set. NULL: it has none. */
CB_API const cb_quic_lb *cb_quic_lb_set_codec(const cb_quic_lb_set *set, uint32_t rotation);
/* As cb_quic_lb_decode() with the codec that the rotation bits name, in out->rotation. CB_QUIC_LB_FOREIGN: there is
 * none, or the ID is not of its form. */
CB_API int cb_quic_lb_set_decode(const cb_quic_lb_set *set, cb_slice cid, cb_quic_lb_info *out);

CB_END
#endif
