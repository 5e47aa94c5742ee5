/* The secret of a PoP, and what is made from it. */
#include "base/addr.h"
#include "base/error.h"
#include "base/mem.h"
#include <cb/lb_node.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int cb_lb_secret_read(uint8_t *secret, const char *path) {
    uint8_t bytes[CB_LB_SECRET_BYTES + 1];
    struct stat st;
    if (!secret || !path) return cb_fail(CB_EINVAL, "cb_lb_secret_read: secret and path are needed");
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* a pipe would let us wait */
    if (fd < 0) return cb_fail_errno(errno, "secret \"%s\"", path);
    int rc = CB_OK;
    const ssize_t n = fstat(fd, &st) < 0 ? -1 : S_ISREG(st.st_mode) ? read(fd, bytes, sizeof bytes) : 0;
    if (n < 0)
        rc = cb_fail_errno(errno, "secret \"%s\"", path);
    else if (!S_ISREG(st.st_mode) || n != CB_LB_SECRET_BYTES)
        rc = cb_fail(CB_EINVAL, "secret \"%s\": it has to be a file of %d bytes", path, CB_LB_SECRET_BYTES);
    else if (st.st_mode & 077)
        rc = cb_fail(CB_EPERM, "secret \"%s\" is open to others (mode %03o); it must be 0600", path,
                     (unsigned)st.st_mode & 0777);
    else
        memcpy(secret, bytes, CB_LB_SECRET_BYTES);
    close(fd);
    cb_mem_wipe(bytes, sizeof bytes);
    return rc;
}

int cb_lb_secret_key(uint8_t *key, const uint8_t *secret, const char *purpose) {
    static uint8_t salt[] = "libcb forwarding";
    uint8_t prk[32], in[CB_LB_SECRET_BYTES], out[32];
    if (!key || !secret || !purpose) return cb_fail(CB_EINVAL, "cb_lb_secret_key: key, secret and purpose are needed");
    memcpy(in, secret, sizeof in);
    const gnutls_datum_t ikm = {in, sizeof in}, s = {salt, sizeof salt - 1}, p = {prk, sizeof prk};
    const gnutls_datum_t info = {(unsigned char *)purpose, (unsigned)strlen(purpose)};
    int rc = gnutls_hkdf_extract(GNUTLS_MAC_SHA256, &ikm, &s, prk);
    if (rc == 0) rc = gnutls_hkdf_expand(GNUTLS_MAC_SHA256, &p, &info, out, sizeof out);
    if (rc == 0) memcpy(key, out, CB_LB_KEY_BYTES);
    cb_mem_wipe(prk, sizeof prk);
    cb_mem_wipe(in, sizeof in);
    cb_mem_wipe(out, sizeof out);
    return rc == 0 ? CB_OK : cb_fail(CB_ETLS, "a key cannot be derived: %s", gnutls_strerror(rc));
}

static size_t put_host(uint8_t *to, const cb_addr *a) {
    if (a->sa.sa_family == AF_INET) {
        memcpy(to, &a->v4.sin_addr, 4);
        return 4;
    }
    memcpy(to, &a->v6.sin6_addr, 16);
    return 16;
}

int cb_lb_flow_hash(uint64_t *out, const uint8_t *key, const char *source, const char *destination, int protocol) {
    cb_addr from, to;
    uint8_t tuple[37];
    size_t n;
    if (!out || !key || !source || !destination)
        return cb_fail(CB_EINVAL, "cb_lb_flow_hash: out, key, source and destination are needed");
    int rc = cb_addr_parse(&from, source, 0);
    if (rc == CB_OK) rc = cb_addr_parse(&to, destination, 0);
    if (rc < 0) return rc;
    cb_addr_unmap(&from);
    cb_addr_unmap(&to);
    if (from.sa.sa_family != to.sa.sa_family)
        return cb_fail(CB_EINVAL, "\"%s\" and \"%s\" are of two families", source, destination);
    if (protocol != 6 && protocol != 17)
        return cb_fail(CB_EINVAL, "cb_lb_flow_hash: protocol %d; 6 (TCP) and 17 (UDP) are possible", protocol);
    n = put_host(tuple, &from);
    n += put_host(tuple + n, &to);
    const uint16_t ports[2] = {cb_addr_port(&from), cb_addr_port(&to)};
    for (int i = 0; i < 2; i++) {
        tuple[n++] = (uint8_t)(ports[i] >> 8);
        tuple[n++] = (uint8_t)ports[i];
    }
    tuple[n++] = (uint8_t)protocol;
    *out = cb_lb_hash(key, tuple, n);
    return CB_OK;
}
