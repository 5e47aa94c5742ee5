/* Size-first option structs: copies what both sides know and refuses what only the caller knows. */
#ifndef CB_BASE_OPTS_H
#define CB_BASE_OPTS_H

#include <cb/base.h>

/* Fills dst (dst_size bytes, its first member a size_t) from src, zeroing what src does not carry.
 * src NULL gives all zero. CB_EINVAL when src->size is too small to be one; CB_E2BIG when src is
 * longer and the bytes beyond are not all zero. `name` is the type's name, for the error text. */
int cb_opts_read(void *dst, size_t dst_size, const void *src, const char *name);

#endif
