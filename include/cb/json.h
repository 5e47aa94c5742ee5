/* cb/json.h - writes JSON (RFC 8259) piece by piece, so that nobody has to quote by hand.
 *
 *   cb_json_put_object(o, NULL);
 *   cb_json_put_str(o, "name", "web");
 *   cb_json_put_list(o, "ports");
 *   cb_json_put_int(o, NULL, 443);
 *   cb_json_put_end(o);
 *   cb_json_put_end(o);
 *   int rc = cb_json_out_text(o, &text); // {"name":"web","ports":[443]}
 *
 * The first mistake or lack of memory is kept and told at the end, so that nothing has to be asked in between. Names
 * are for members of objects, and NULL in lists and for the outermost value. One writer, one thread. */
#ifndef CB_JSON_H
#define CB_JSON_H

#include <cb/base.h>

CB_BEGIN

typedef struct cb_json_out cb_json_out;

enum { CB_JSON_OUT_DEPTH = 32 }; /* of objects and lists within each other */

/* An empty document that may grow to max_bytes (0 = 64 MiB). CB_EINVAL (out), CB_ENOMEM. */
CB_API int cb_json_out_new(cb_json_out **out, size_t max_bytes);
CB_API void cb_json_out_free(cb_json_out *o); /* NULL is fine */
/* Begins anew, and keeps the memory. */
CB_API void cb_json_out_clear(cb_json_out *o);

CB_API void cb_json_put_object(cb_json_out *o, const char *name);
CB_API void cb_json_put_list(cb_json_out *o, const char *name);
CB_API void cb_json_put_end(cb_json_out *o); /* of the innermost object or list */
/* Bytes that are not UTF-8 become U+FFFD. */
CB_API void cb_json_put_text(cb_json_out *o, const char *name, cb_slice text);
CB_API void cb_json_put_str(cb_json_out *o, const char *name, const char *text); /* NULL: null */
CB_API void cb_json_put_int(cb_json_out *o, const char *name, int64_t value);
CB_API void cb_json_put_uint(cb_json_out *o, const char *name, uint64_t value);
/* With up to 17 digits, so that it reads back the same; what JSON cannot say (NaN, infinity) is null. */
CB_API void cb_json_put_number(cb_json_out *o, const char *name, double value);
CB_API void cb_json_put_bool(cb_json_out *o, const char *name, int value);
CB_API void cb_json_put_null(cb_json_out *o, const char *name);
/* A value that is JSON already, as it is. Not checked. */
CB_API void cb_json_put_raw(cb_json_out *o, const char *name, cb_slice json);

/* The document, as long as the writer is neither changed nor freed. CB_EINVAL (nothing was put; something is open; a
 * name where none may be, or none where one must be; too deep), CB_ELIMIT (max_bytes), CB_ENOMEM. */
CB_API int cb_json_out_text(const cb_json_out *o, cb_slice *out);

CB_END
#endif
