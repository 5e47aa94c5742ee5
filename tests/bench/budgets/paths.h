/* The hot paths whose instructions are counted (scripts/budgets): each is prepared, run until it is warm, and then run
 * `count` times while callgrind counts. Input is fixed; nothing waits for anything but itself. */
#ifndef CB_BUDGETS_PATHS_H
#define CB_BUDGETS_PATHS_H

#include <cb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct path {
    const char *name;
    void (*prepare)(void);
    void (*run)(size_t times);
    void (*clean)(void);
    size_t warm, count;
} path;

extern const path paths_base[], paths_http[], paths_quic[]; /* each ends without a name */

extern const char *budget_cert, *budget_key, *budget_ca; /* files, for "localhost" and "server" */

/* What fails here is no matter of budgets. */
#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: this does not hold: %s (%s)\n", __FILE__, __LINE__, #condition, cb_last_error());  \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#endif
