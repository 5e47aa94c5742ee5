/* The words of JSON (RFC 8259) that all of its readers have in common: numbers and escapes. */
#ifndef CB_BASE_JSON_LEX_H
#define CB_BASE_JSON_LEX_H

#include <stddef.h>
#include <stdint.h>

/* The number at the beginning of text: its length, or 0. *wrong says why (static text). */
size_t cb_json_lex_number(const char *text, size_t len, const char **wrong);
/* The escape at the beginning of text, which is a backslash; a surrogate pair is one. Its length, and the character in
 * *code; or 0, and *wrong says why (static text). U+0000 is refused: texts end with it. */
size_t cb_json_lex_escape(const char *text, size_t len, uint32_t *code, const char **wrong);

#endif
