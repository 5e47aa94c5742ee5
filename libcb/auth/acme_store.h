/* The state of an ACME account in a directory. Every file is replaced as a whole. */
#ifndef CB_AUTH_ACME_STORE_H
#define CB_AUTH_ACME_STORE_H

#include "base/buf.h"

enum { CB_ACME_PATH = 4096, CB_ACME_FILE_MAX = 262144 };

typedef struct cb_acme_store {
    char *dir;
    int fd; /* of the directory, locked */
} cb_acme_store;

/* CB_EEXIST: another process has it. */
int cb_acme_store_open(cb_acme_store *s, const char *dir);
void cb_acme_store_close(cb_acme_store *s);
/* CB_ENOENT when there is none. */
int cb_acme_store_read(const cb_acme_store *s, const char *file, cb_buf *out);
int cb_acme_store_write(const cb_acme_store *s, const char *file, cb_slice data); /* mode 0600 */
int cb_acme_store_remove(const cb_acme_store *s, const char *file);
int cb_acme_store_rename(const cb_acme_store *s, const char *from, const char *to);
/* STEM and tail of a certificate's first name; out has 300 bytes. */
void cb_acme_store_name(char out[300], const char *name, const char *tail);

#endif
