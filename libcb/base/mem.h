/* Memory through a cb_alloc. NULL from these means CB_ENOMEM to the caller. */
#ifndef CB_BASE_MEM_H
#define CB_BASE_MEM_H

#include <cb/base.h>

extern const cb_alloc cb_alloc_libc; /* realloc() and free() */

void *cb_mem_new(const cb_alloc *a, size_t size); /* zeroed; size > 0 */
void *cb_mem_get(const cb_alloc *a, size_t size); /* not zeroed */
void *cb_mem_grow(const cb_alloc *a, void *p, size_t size);
void cb_mem_free(const cb_alloc *a, void *p);           /* NULL is fine */
char *cb_mem_text(const cb_alloc *a, const char *text); /* copy of a text; NULL stays NULL */
void cb_mem_wipe(void *p, size_t size);                 /* for key material; not optimised away */

#endif
