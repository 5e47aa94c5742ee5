/* IP addresses with ports, as the kernel takes them. */
#ifndef CB_BASE_ADDR_H
#define CB_BASE_ADDR_H

#include <cb/base.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

typedef union cb_addr {
    struct sockaddr sa;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} cb_addr;

#define CB_ADDR_TEXT 64 /* enough for "[address%scope]:port" */

/* "unix:/path" is a socket in the file system: its path; NULL when the text is none of that kind. A cb_addr of the
 * family AF_UNIX only says so, it has no room for a path. */
const char *cb_unix_path(const char *text);
/* CB_EINVAL: not an absolute path, or too long for the kernel (107 bytes). */
int cb_unix_addr(struct sockaddr_un *out, const char *path);

/* Reads "127.0.0.1:80", "[::1]:80", ":80" (any address: :: with both families), "127.0.0.1" with a default
 * port. No names. CB_EINVAL names the text and what is wrong with it. */
int cb_addr_parse(cb_addr *out, const char *text, uint16_t default_port);
/* "127.0.0.1:80" or "[::1]:80"; v4-mapped addresses print as IPv4, those of unix sockets as "unix". Returns out. */
const char *cb_addr_text(const cb_addr *a, char out[CB_ADDR_TEXT]);
const char *cb_addr_host(const cb_addr *a, char out[CB_ADDR_TEXT]); /* without port and brackets */
socklen_t cb_addr_len(const cb_addr *a);
uint16_t cb_addr_port(const cb_addr *a);
void cb_addr_set_port(cb_addr *a, uint16_t port);
bool cb_addr_equal(const cb_addr *a, const cb_addr *b);     /* address and port */
bool cb_addr_same_host(const cb_addr *a, const cb_addr *b); /* address only; v4-mapped equals v4 */
bool cb_addr_is_any(const cb_addr *a);                      /* 0.0.0.0 or :: */
void cb_addr_unmap(cb_addr *a);                             /* v4-mapped v6 becomes v4 */

#endif
