/* cb/quic_lb.h - connection IDs that say where a connection lives (draft-ietf-quic-load-balancers).
 *
 * A load balancer reads the server from a connection ID without keeping state; the host reads from the two bytes
 * behind the QUIC-LB block which of its workers, and which generation of its process, owns the connection:
 *
 *     octet 0                     server ID   nonce   worker  generation
 *     3 bits rotation, 5 bits n   |---- block, sent as it is (plain) ----|  masked by SipHash(key, block)
 *
 * n is the length of all that follows the first octet. By default a connection ID has 19 bytes: a block of 17 (server
 * ID and nonce together 16) and the two of the host. A codec never changes after it was made: threads may share it. */
#ifndef CB_QUIC_LB_H
#define CB_QUIC_LB_H

#include <cb/base.h>

CB_BEGIN

typedef struct cb_quic_lb cb_quic_lb;

enum cb_quic_lb_codec {
    CB_QUIC_LB_PLAIN = 0,   /* server ID and nonce can be read by everybody */
    CB_QUIC_LB_AES_ONE = 1, /* one AES-128 block; not in this release (CB_ENOTSUP) */
    CB_QUIC_LB_AES_FOUR = 2 /* four-pass Feistel network; not in this release (CB_ENOTSUP) */
};

enum cb_quic_lb_limits {
    CB_QUIC_LB_CID_MAX = 20,      /* RFC 9000, 17.2 */
    CB_QUIC_LB_HOST_BYTES = 2,    /* worker and generation */
    CB_QUIC_LB_SERVER_ID_MAX = 13 /* what fits beside the shortest nonce, of 4 bytes */
};

typedef struct cb_quic_lb_opts {
    size_t size;
    const cb_alloc *alloc;    /* NULL = malloc; must be usable on the thread that frees the codec */
    const uint8_t *server_id; /* required, copied */
    const uint8_t *mask_key;  /* required, copied: 16 secret bytes, equal in all processes of a host */
    uint32_t server_id_bytes; /* 1..13 */
    uint32_t nonce_bytes;     /* 4..16, at most 17 with the server ID; 0 = 16 - server_id_bytes */
    uint32_t rotation;        /* configuration ID, 0..6 */
    int32_t codec;            /* enum cb_quic_lb_codec */
} cb_quic_lb_opts;

/* Makes a codec. CB_EINVAL names the field; CB_ENOTSUP (codec), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_quic_lb_new(cb_quic_lb **out, const cb_quic_lb_opts *opts);
/* Wipes the key and frees the codec. NULL is fine. */
CB_API void cb_quic_lb_free(cb_quic_lb *lb);

/* How long a connection ID of this codec is, and how much of it is nonce. */
CB_API size_t cb_quic_lb_cid_bytes(const cb_quic_lb *lb);
CB_API size_t cb_quic_lb_nonce_bytes(const cb_quic_lb *lb);

/* Writes a connection ID of cb_quic_lb_cid_bytes() bytes and returns that length. nonce: cb_quic_lb_nonce_bytes()
 * unpredictable bytes, not used before with this server ID. worker and generation: 0..255. CB_EINVAL: NULL,
 * cap is too small, or a number is too large. */
CB_API int cb_quic_lb_encode(const cb_quic_lb *lb, uint8_t *cid, size_t cap, const uint8_t *nonce, uint32_t worker,
                             uint32_t generation);

/* What cb_quic_lb_decode() found. */
enum cb_quic_lb_match {
    CB_QUIC_LB_FOREIGN = 0, /* not of this configuration's form: chosen by a client, or of another rotation */
    CB_QUIC_LB_OTHER = 1,   /* of the form, with another server's ID */
    CB_QUIC_LB_OURS = 2     /* of the form, with our server ID */
};

typedef struct cb_quic_lb_info {
    uint8_t rotation;
    uint8_t server_id_bytes;
    uint8_t worker;     /* of the host that issued it; meaningless with another mask key */
    uint8_t generation; /* likewise */
    uint8_t server_id[CB_QUIC_LB_SERVER_ID_MAX];
    uint8_t reserved[3];
} cb_quic_lb_info;

/* Reads a connection ID; an enum cb_quic_lb_match. *out is filled unless it is foreign (then only rotation is). */
CB_API int cb_quic_lb_decode(const cb_quic_lb *lb, cb_slice cid, cb_quic_lb_info *out);

CB_END
#endif
