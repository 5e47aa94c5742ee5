/* Whole small files of an operator, and their lines. */
#ifndef CB_AUTH_FILE_H
#define CB_AUTH_FILE_H

#include <cb/base.h>
#include <stdbool.h>

/* Reads a file of at most `most` bytes into *out, to be freed with cb_mem_free(&cb_alloc_libc, ...). Blocks. The detail
 * begins with `what`. CB_ENOENT, CB_EPERM, CB_ESYS, CB_ELIMIT, CB_ENOMEM. */
int cb_file_read(char **out, size_t *len, const char *path, const char *what, size_t most);
/* The next line that is not empty and no comment (#), without blanks at its end; *number counts all of them. */
bool cb_line_next(cb_slice *text, cb_slice *line, size_t *number);

#endif
