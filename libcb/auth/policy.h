/* Policies from the inside: the document, its patterns, and the table that they become. */
#ifndef CB_AUTH_POLICY_H
#define CB_AUTH_POLICY_H

#include "base/map.h"
#include "base/prefix.h"
#include <cb/policy.h>
#include <stdbool.h>

enum { CB_POLICY_RULES = 4096, CB_POLICY_TEXT = 1024, CB_POLICY_CLAIM_PATHS = 64, CB_POLICY_PATH_BYTES = 4096 };

/* ---- the document, as cb/config.h decodes it ---- */

typedef struct cb_policy_doc_claim {
    const char *path;
    cb_config_list any;
} cb_policy_doc_claim;

typedef struct cb_policy_doc_time {
    const char *from, *to, *offset;
    uint32_t days, reserved;
} cb_policy_doc_time;

typedef struct cb_policy_doc_rule {
    const char *name, *not_before, *not_after;
    cb_config_list tenants, roles, subjects, issuers, spiffe, claims, acr, amr;
    cb_config_list routes, methods, paths, targets, verbs, sources, times;
    int32_t effect; /* 0 deny, 1 allow */
    int32_t mtls;   /* 0 any, 1 present, 2 absent */
} cb_policy_doc_rule;

typedef struct cb_policy_doc {
    cb_config_list rules;
} cb_policy_doc;

extern const cb_config_schema cb_policy_schema;

/* ---- patterns: each _read gives NULL, or what is wrong with the text ---- */

/* Segments between slashes; "*" is any one segment. `below`: the pattern ended in "**", which is not in `text`: it fits
 * the text itself and all below. Texts begin behind "/" and "spiffe://". */
typedef struct cb_policy_segments {
    const char *text;
    uint32_t len;
    int32_t below;
} cb_policy_segments;

typedef struct cb_policy_target {
    const char *host; /* in lower case; of "*.name": ".name"; NULL: a prefix, or any */
    uint32_t host_len;
    uint16_t port_min, port_max;
    bool any, below;
    cb_prefix prefix;
} cb_policy_target;

typedef struct cb_policy_time {
    uint32_t days;    /* bit 0 is Monday */
    int32_t offset_s; /* from UTC, eastwards */
    int32_t from, to; /* minutes of a day; to may lie before from: then it is the next day's */
} cb_policy_time;

/* `room` gets the pattern's text: as long as `text` and its NUL. */
const char *cb_policy_path_read(cb_policy_segments *out, char *room, const char *text);
const char *cb_policy_spiffe_read(cb_policy_segments *out, char *room, const char *text);
const char *cb_policy_target_read(cb_policy_target *out, char *room, const char *text);
const char *cb_policy_time_read(cb_policy_time *out, const cb_policy_doc_time *doc);
const char *cb_policy_date_read(int64_t *out, const char *text); /* RFC 3339, or a date alone */
const char *cb_policy_pointer_wrong(const char *text);

/* ---- what they are compared with ---- */

/* Compares with one pattern; the tree of the index compares with all. */
bool cb_policy_segments_fit(const cb_policy_segments *p, cb_slice text);

/* A path as it is judged: decoded, without query, the slashes at its ends and repeated ones; `room` has
 * CB_POLICY_PATH_BYTES. False: it can be read in several ways. When there is none, and of "*", base is NULL. */
bool cb_policy_path_clear(cb_slice path, char *room, cb_slice *out);

typedef struct cb_policy_host {
    char name[256]; /* in lower case, without a dot at the end; empty for an address */
    size_t len;
    uint8_t address[16];
    bool is_address;
} cb_policy_host;

/* False: it is neither a name nor an address, or a number that some read as an address. */
bool cb_policy_host_clear(cb_slice host, cb_policy_host *out);
bool cb_policy_target_fits(const cb_policy_target *p, const cb_policy_host *host, int32_t port);
bool cb_policy_time_fits(const cb_policy_time *p, int64_t now_s);

/* ---- the parsed document becomes a policy; takes the reference of doc ---- */
int cb_policy_compile(cb_policy **out, cb_config *doc);

#endif
