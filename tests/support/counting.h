/* An allocator that counts, for tests of what a peer or a walk may cost, and of whether all of it comes back. */
#ifndef CB_TEST_COUNTING_H
#define CB_TEST_COUNTING_H

#include <cb/base.h>

typedef struct counting {
    size_t now, most; /* bytes */
} counting;

/* Over malloc(); for one thread. c must outlive what is allocated. */
cb_alloc counting_alloc(counting *c);

#endif
