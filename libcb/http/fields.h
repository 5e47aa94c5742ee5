/* Field syntax and message rules that hold for all versions (RFC 9110, 9112, 9113, 9114). */
#ifndef CB_HTTP_FIELDS_H
#define CB_HTTP_FIELDS_H

#include "base/buf.h"
#include <cb/http.h>
#include <stdbool.h>
#include <string.h>

/* Fields of one head or trailer section, copied into one arena: names in lower case. Bounded by bytes and count. */
typedef struct cb_fields {
    cb_field *at;
    size_t len, cap;
    cb_buf arena; /* slices point into it: valid once cb_fields_seal() was called */
    size_t bytes; /* names + values + 32 each, for the limit */
    uint32_t max_bytes, max_fields;
    bool sealed;
} cb_fields;

void cb_fields_init(cb_fields *f, const cb_alloc *alloc, uint32_t max_bytes, uint32_t max_fields);
void cb_fields_free(cb_fields *f);
/* Other limits, for what is cleared. */
void cb_fields_limit(cb_fields *f, uint32_t max_bytes, uint32_t max_fields);
void cb_fields_clear(cb_fields *f);                             /* keeps memory */
int cb_fields_add(cb_fields *f, cb_slice name, cb_slice value); /* CB_ELIMIT, CB_ENOMEM; does not validate */
void cb_fields_seal(cb_fields *f);
cb_slice cb_fields_get(const cb_fields *f, const char *lower_name); /* the first; base NULL: absent */

/* The pieces of cb_fields_add(), for those who gather in place: raw bytes into the arena (*out is good after
 * cb_fields_fix() once it is sealed; put later, room must have been reserved), and an entry for bytes that lie in the
 * arena already. CB_ELIMIT, CB_ENOMEM. */
int cb_fields_put(cb_fields *f, cb_slice bytes, cb_slice *out);
int cb_fields_note(cb_fields *f, size_t name_at, size_t name_len, size_t value_at, size_t value_len);
int cb_fields_over(const cb_fields *f);                             /* the error of cb_fields_room() */
static inline int cb_fields_room(const cb_fields *f, size_t more) { /* CB_ELIMIT when `more` bytes would be too many */
    bool fits = f->len < f->max_fields && more <= f->max_bytes && f->bytes <= f->max_bytes - more;
    return fits ? CB_OK : cb_fields_over(f);
}
void cb_fields_fix(const cb_fields *f, cb_slice *s);

extern const uint8_t cb_token_lower[256]; /* the lower-case byte of a token's byte; 0: no token contains it */

/* Comma lists: the next non-empty element, trimmed. */
bool cb_list_next(cb_slice *list, cb_slice *item);

bool cb_field_name_ok(cb_slice name); /* a token, not empty */
bool cb_field_name_no_upper(cb_slice name);
void cb_field_name_lower(uint8_t *name, size_t len); /* in place */
bool cb_field_name_fold(uint8_t *name, size_t len);  /* the same for what may not be a name: false */
bool cb_field_value_ok(cb_slice value);              /* no CR, LF, NUL or other controls but HTAB; trimmed */
static inline bool cb_slice_eq(cb_slice a, const char *b) {
    return a.len == strlen(b) && (!a.len || !memcmp(a.base, b, a.len));
}
bool cb_slice_same_letters(cb_slice a, const char *b);       /* of the same length */
static inline bool cb_slice_ieq(cb_slice a, const char *b) { /* ASCII case-insensitive */
    return cb_slice_eq(a, b) || (a.len == strlen(b) && cb_slice_same_letters(a, b));
}
static inline void cb_status_text(char out[4], int status) {
    out[0] = (char)('0' + status / 100 % 10);
    out[1] = (char)('0' + status / 10 % 10);
    out[2] = (char)('0' + status % 10);
    out[3] = '\0';
}
bool cb_field_has_token(cb_slice list, const char *token); /* comma list, case-insensitive */
bool cb_field_is_hop(
    cb_slice lower_name);                 /* connection, keep-alive, proxy-connection, te, transfer-encoding, upgrade */
bool cb_authority_ok(cb_slice authority); /* host [":" port], no userinfo */
bool cb_method_ok(cb_slice method);
bool cb_target_ok(cb_slice path);          /* origin form or "*"; no controls, spaces or fragments */
int64_t cb_content_length(cb_slice value); /* digits only (identical repeats joined by commas allowed); -1: malformed */

#endif
