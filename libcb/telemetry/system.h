/* What a machine tells about itself, for a registry of metrics: only libcb/telemetry/system*.c look at it. */
#ifndef CB_TELEMETRY_SYSTEM_H
#define CB_TELEMETRY_SYSTEM_H

#include "telemetry/catalogue.h"

enum { CB_SYSTEM_FILE_BYTES = 64 << 10 };

typedef struct cb_system {
    uint32_t parts;
    char *proc, *sys;
    cb_alloc alloc;
    cb_meter *meter; /* of the rendering under way */
    cb_metric *families[CB_FAMILIES];
    char text[CB_SYSTEM_FILE_BYTES]; /* of the file at hand */
} cb_system;

/* Reads a file below a folder into s->text (cut where it is longer) and returns that; NULL: it cannot be read. */
char *cb_system_read(cb_system *s, const char *folder, const char *name);
/* Sets a series. labels: a value for each label of the family, NULL for none. */
void cb_system_show(cb_system *s, enum cb_metric_row family, const char *label, uint64_t value);

void cb_system_process(cb_system *s);
void cb_system_interfaces(cb_system *s);
void cb_system_kernel(cb_system *s);

#endif
