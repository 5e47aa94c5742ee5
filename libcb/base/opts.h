/* Size-first structs: copies what both sides know and refuses what only the caller knows. */
#ifndef CB_BASE_OPTS_H
#define CB_BASE_OPTS_H

#include <cb/base.h>

/* Fills dst (dst_size bytes, its first member a size_t) from src, zeroing what src does not carry.
 * src NULL gives all zero. CB_EINVAL when src->size is too small to be one; CB_E2BIG when src is
 * longer and the bytes beyond are not all zero. `name` is the type's name, for the error text. */
int cb_opts_read(void *dst, size_t dst_size, const void *src, const char *name);

/* May a table of callbacks be called by its pointer? Its size must reach `known` bytes, what the first release had;
 * CB_EINVAL when it does not, CB_E2BIG when a member beyond is set. */
int cb_ops_check(const void *ops, size_t known, const char *name);

/* Fills the caller's statistics struct, whose first member says how large it is, from `all` (known bytes). Bytes that
 * only the caller knows become 0; size becomes what was filled. CB_EINVAL: out is NULL, or its size is not set. */
int cb_stats_give(void *out, const void *all, size_t known, const char *name);

#endif
