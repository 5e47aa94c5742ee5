/* Shorthands of the tables of rules. */
#ifndef CB_EDGE_SCHEMA_H
#define CB_EDGE_SCHEMA_H

#include <cb/config.h>
#include <stddef.h>

/* What every row has in common: the member's name is that of the struct's. */
#define MEMBER(type, member) .name = #member, .offset = offsetof(type, member)
#define MILLISECONDS         .kind = CB_CONFIG_INT, .min = 1, .max = 86400000
#define COUNT(most)          .kind = CB_CONFIG_INT, .min = 1, .max = most
#define END                                                                                                            \
    { .name = NULL }

#endif
