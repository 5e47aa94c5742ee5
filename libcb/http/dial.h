/* In which order the addresses of a host are tried: Happy Eyeballs version 2 (RFC 8305, 4), also while answers for the
 * second family are still to come. */
#ifndef CB_HTTP_DIAL_H
#define CB_HTTP_DIAL_H

#include "base/addr.h"
#include <cb/resolver.h>

enum { CB_DIAL_MAX = 16 };

typedef struct cb_dial {
    struct {
        cb_addr at;
        bool tried, late;
    } to[CB_DIAL_MAX];
    size_t n;
    int first; /* family of the first attempt: AF_INET, or any other value for IPv6 */
    int last;  /* family of the attempt before; 0 = there was none */
} cb_dial;

void cb_dial_addr(cb_addr *out, const cb_host_address *h, uint16_t port);
/* Beyond CB_DIAL_MAX nothing is added, and nothing twice. late: only when nothing else is left (it was dead lately). */
void cb_dial_add(cb_dial *d, const cb_addr *at, bool late);
/* The next one, and marks it as tried: families in turn, beginning with `first`. NULL: none is left. */
const cb_addr *cb_dial_next(cb_dial *d);
/* An attempt that was broken off without a result may be made again, after the others. */
void cb_dial_again(cb_dial *d, const cb_addr *at);
bool cb_dial_has(const cb_dial *d, int family); /* one to try, of that family; 0 = of any */

#endif
