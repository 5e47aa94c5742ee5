/* Folders and files of a test's own, under $TMPDIR or /tmp, with names that nobody else has. What is still there when
 * the process ends goes with it, also after a failure. */
#ifndef CB_TEST_SCRATCH_H
#define CB_TEST_SCRATCH_H

#include <stddef.h>

enum { SCRATCH_TEXT = 64 };

/* A new folder, of mode 0700; SCRATCH_TEXT bytes have room for any, 40 for one under /tmp. */
void scratch_folder(char *out, size_t cap, const char *name);
/* A new file, of mode 0600, that is empty and open for reading and writing. Returns its descriptor. */
int scratch_file(char *out, size_t cap, const char *name);
/* Removes a folder with all that is in it, or a file. */
void scratch_drop(const char *path);

#endif
