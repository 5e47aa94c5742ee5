/* A document that is being checked and decoded. */
#ifndef CB_CONFIG_DRAFT_H
#define CB_CONFIG_DRAFT_H

#include "config/scan.h"
#include <cb/config.h>
#include <cjson/cJSON.h>
#include <stdbool.h>

enum { CB_CONFIG_ERRORS = 20, CB_CONFIG_ITEMS = 4096, CB_CONFIG_PATH = 512 };

typedef struct cb_config_mistake {
    uint32_t at; /* offset in the text */
    uint32_t order;
    char pointer[CB_CONFIG_PATH];
    char text[256];
} cb_config_mistake;

typedef struct cb_config_block cb_config_block;

struct cb_config {
    _Atomic uint32_t refs;
    cb_config_block *blocks; /* arena */
    const void *root;
};

struct cb_config_draft {
    const char *text; /* comments blanked */
    cb_config_scan scan;
    cJSON *root; /* valueint of each item: its index in scan */
    cb_config *out;
    cb_config_mistake *mistakes;
    size_t n_mistakes;
    bool no_memory;
    char path[CB_CONFIG_PATH]; /* pointer to the value at hand */
    size_t path_len;
};

/* Memory of the snapshot, zeroed. NULL: no_memory is set. */
void *cb_config_arena(cb_config_draft *d, size_t size);
/* A mistake at an item; at_key: at its name. */
void cb_config_wrong(cb_config_draft *d, const cJSON *item, bool at_key, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void cb_config_push(cb_config_draft *d, const char *name); /* one level into path; returns by pop(old length) */
void cb_config_push_index(cb_config_draft *d, size_t i);
void cb_config_pop(cb_config_draft *d, size_t len);
/* Decodes the root object: mistakes are collected. */
void cb_config_decode(cb_config_draft *d, const cb_config_schema *schema);

/* What is wrong with a text of that format, or NULL. F1: syntax only. */
const char *cb_config_format_wrong(int format, const char *text);
const char *cb_config_format_name(int format); /* for the JSON Schema; NULL for CB_FORMAT_ANY */

/* "did you mean": the nearest of the names, or NULL when none is near. */
const char *cb_config_nearest(const char *text, const char *const *names, size_t n);

#endif
