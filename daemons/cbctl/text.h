/* What others wrote, on a terminal: nothing of it may move the cursor, colour or reorder what people see. */
#ifndef CBCTL_TEXT_H
#define CBCTL_TEXT_H

#include "json.h"
#include <cb.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum cbctl_tone { CBCTL_PLAIN, CBCTL_GOOD, CBCTL_WARN, CBCTL_BAD, CBCTL_DIM, CBCTL_BOLD };

/* Reads a character of UTF-8; its length, or 0: that is none. harmless: it may go to a terminal as it is. */
size_t cbctl_read_char(const char *p, size_t len, uint32_t *c, bool *harmless);
/* Text with everything escaped that is not printable: controls (C0, C1), bytes that are no UTF-8, marks of direction
 * and what breaks lines. malloc'd; NULL: no memory. */
char *cbctl_safe(const char *text, size_t len);
void cbctl_put(FILE *f, const char *text); /* the same, printed */
size_t cbctl_columns(const char *safe);    /* that a safe text takes */

/* Are colours wanted on this stream? A terminal that can, and no NO_COLOR (no-color.org). */
bool cbctl_colours(FILE *f);
/* Escape sequences for a tone, and to end it. "" where there are no colours. */
const char *cbctl_tone_on(bool colours, enum cbctl_tone tone);
const char *cbctl_tone_off(bool colours, enum cbctl_tone tone);
/* The tone of a word that says how something is: "up", "down", "draining", ... */
enum cbctl_tone cbctl_tone_of(const char *word);

/* ---- JSON ---- */

/* Prints JSON that was parsed before: two spaces a level, numbers as they were written, texts without anything that
 * cbctl_safe() would escape (still JSON: \uXXXX). */
void cbctl_json_print(FILE *f, const char *text, size_t len);
void cbctl_json_line(FILE *f, const char *text, size_t len); /* the same on one line */
/* A scalar for people, malloc'd: texts as they are, numbers without needless digits. Objects and arrays in short. */
char *cbctl_json_cell(const json_node *v);

/* The same for a member: "age_ms" is shown as a time, "until" as a date, and cbctl_json_head() is its name then
 * ("age"). malloc'd. */
char *cbctl_json_named(const char *name, const json_node *v);
char *cbctl_json_head(const char *name);

/* ---- tables ---- */

typedef struct cbctl_table {
    size_t columns, cells, cap;
    char **cell; /* safe texts, row by row; the first row is the head */
    bool *right; /* of each column */
    bool failed; /* no memory: it is not printed */
} cbctl_table;

void cbctl_table_begin(cbctl_table *t, size_t columns);
/* Cells come row by row. text is copied. */
void cbctl_table_cell(cbctl_table *t, const char *text);
void cbctl_table_take(cbctl_table *t, char *text); /* the same; malloc'd text is the table's to free */
void cbctl_table_right(cbctl_table *t, size_t column);
/* An exit code; the table is empty again. */
int cbctl_table_print(cbctl_table *t, FILE *f, const char *indent);

#endif
