/* What files that must survive a crash need of the disk. */
#ifndef CB_AUTH_DISK_H
#define CB_AUTH_DISK_H

#include <cb/base.h>

/* Writes all of it; an errno value, 0: written. */
int cb_disk_write(int fd, cb_slice bytes);
/* Names that were given in the folder of this path are on the disk. An errno value. */
int cb_disk_sync_folder(const char *path);

#endif
