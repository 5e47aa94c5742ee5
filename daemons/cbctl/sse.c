#include "sse.h"
#include <cb/base.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int append(char **to, size_t *len, size_t *cap, const char *bytes, size_t n) {
    if (*len + n + 1 > *cap) {
        size_t grown_cap = *cap ? *cap : 256;
        while (grown_cap < *len + n + 1)
            grown_cap *= 2;
        if (grown_cap > 2 * SSE_MAX) return cb_error_set(CB_ELIMIT, "an event of more than 1 MiB");
        char *grown = realloc(*to, grown_cap);
        if (!grown) return CB_ENOMEM;
        *to = grown;
        *cap = grown_cap;
    }
    if (n) memcpy(*to + *len, bytes, n);
    *len += n;
    (*to)[*len] = '\0';
    return CB_OK;
}

static int dispatch(cbctl_sse *s) {
    int rc = CB_OK;
    memcpy(s->id, s->next_id, sizeof s->id);
    if (s->has_data) rc = s->on_event(*s->event ? s->event : "message", s->data, s->data_len, s->user);
    s->event[0] = '\0';
    s->data_len = 0;
    s->has_data = false;
    return rc;
}

/* "field: value"; other fields than event, data and id say nothing to us. */
static int take_line(cbctl_sse *s) {
    const char *line = s->line ? s->line : "";
    const size_t name = strcspn(line, ":");
    const char *value = line[name] ? line + name + 1 : "";
    if (!*line) return dispatch(s);
    if (*value == ' ') value++;
    if (name == 5 && memcmp(line, "event", 5) == 0) snprintf(s->event, sizeof s->event, "%s", value);
    if (name == 2 && memcmp(line, "id", 2) == 0) snprintf(s->next_id, sizeof s->next_id, "%s", value);
    if (name != 4 || memcmp(line, "data", 4) != 0) return CB_OK;
    int rc = s->has_data ? append(&s->data, &s->data_len, &s->data_cap, "\n", 1) : CB_OK;
    s->has_data = true;
    return rc < 0 ? rc : append(&s->data, &s->data_len, &s->data_cap, value, strlen(value));
}

int cbctl_sse_feed(cbctl_sse *s, const char *bytes, size_t len) {
    for (size_t i = 0; i < len;) {
        if (s->after_cr && bytes[i] == '\n') i++; /* one end of line, of two characters */
        s->after_cr = false;
        size_t n = 0;
        while (i + n < len && bytes[i + n] != '\n' && bytes[i + n] != '\r')
            n++;
        int rc = append(&s->line, &s->line_len, &s->line_cap, bytes + i, n);
        i += n;
        if (rc < 0) return rc;
        if (i == len) break;
        s->after_cr = bytes[i++] == '\r';
        rc = take_line(s);
        s->line_len = 0;
        if (s->line) s->line[0] = '\0';
        if (rc < 0) return rc;
    }
    return CB_OK;
}

void cbctl_sse_end(cbctl_sse *s) {
    free(s->line);
    free(s->data);
    s->line = s->data = NULL;
    s->line_len = s->line_cap = s->data_len = s->data_cap = 0;
    s->event[0] = '\0';
    memcpy(s->next_id, s->id, sizeof s->next_id);
    s->has_data = s->after_cr = false;
}
