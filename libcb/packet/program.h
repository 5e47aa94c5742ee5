/* The inside of a cb_xsk_program, for the sockets that use it. */
#ifndef CB_PACKET_PROGRAM_H
#define CB_PACKET_PROGRAM_H

#include "packet/interface.h"
#include <cb/xsk.h>
#include <stdbool.h>

/* CB_ENOENT: there is none of that name, or it is no Ethernet. */
int xsk_interface_read(xsk_interface *out, const char *name);

const xsk_interface *xsk_program_interface(const cb_xsk_program *p);
bool xsk_program_native(const cb_xsk_program *p);
/* Frames of this queue go to the socket fd from now on. The entry goes with the socket. CB_EEXIST: the queue has one.
 */
int xsk_program_join(cb_xsk_program *p, uint32_t queue, int fd);
void xsk_program_leave(cb_xsk_program *p, uint32_t queue);

#endif
