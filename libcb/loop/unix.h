/* Listening unix sockets: a path that appears in one step, and goes only when it is still ours. */
#ifndef CB_LOOP_UNIX_H
#define CB_LOOP_UNIX_H

#include "base/addr.h"
#include <sys/stat.h>

enum { CB_UNIX_PATH = 100, CB_UNIX_MODE = 0600 }; /* with the NUL; sun_path also has to hold the name before renaming */

typedef struct cb_unix_place {
    char path[CB_UNIX_PATH];
    dev_t dev;
    ino_t ino;
    bool ours; /* the path is to go with the socket */
} cb_unix_place;

/* May a socket listen at path? CB_EINVAL: it is relative, abstract, or too long. */
int cb_unix_listenable(struct sockaddr_un *out, const char *path);
/* A listening, non-blocking socket at path. A path on which a process listens is taken over only with replace.
 * CB_EEXIST (it does; or what is there is no socket), CB_EINVAL, CB_ENOENT, CB_EPERM, CB_ESYS. */
int cb_unix_listen(int *fd, cb_unix_place *place, const char *path, uint32_t mode, bool replace);
/* Removes the path, if it leads to the socket that was bound there. */
void cb_unix_leave(cb_unix_place *place);

#endif
