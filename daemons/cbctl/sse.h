/* Server-sent events (the EventSource chapter of HTML), from bytes as they come. */
#ifndef CBCTL_SSE_H
#define CBCTL_SSE_H

#include <stdbool.h>
#include <stddef.h>

enum { SSE_MAX = 1 << 20 };

typedef struct cbctl_sse {
    /* One event; texts are NUL-terminated and valid during the call. < 0 ends reading with that. */
    int (*on_event)(const char *event, const char *data, size_t len, void *user);
    void *user;
    char *line, *data;
    size_t line_len, line_cap, data_len, data_cap;
    char event[64];
    char id[64];      /* of the last event that was whole; "" = none had one */
    char next_id[64]; /* of the one that is being read */
    bool has_data, after_cr;
} cbctl_sse;

/* CB_ELIMIT: a line or an event of more than SSE_MAX bytes; CB_ENOMEM; what on_event gave. */
int cbctl_sse_feed(cbctl_sse *s, const char *bytes, size_t len);
/* An event that is not complete is dropped. Reading may begin anew, with the bytes of another stream. */
void cbctl_sse_end(cbctl_sse *s);

#endif
