/* The file behind a store: one connection to SQLite, used by one thread at a time. All calls block. */
#ifndef CB_STORE_DB_H
#define CB_STORE_DB_H

#include <cb/store.h>
#include <stdbool.h>

typedef struct cb_store_db cb_store_db;

/* Entries with their bytes, in one block each. */
typedef struct cb_store_rows {
    cb_store_entry *at;
    size_t n, cap, bytes;
} cb_store_rows;

void cb_store_rows_free(cb_store_rows *r);

int cb_store_db_open(cb_store_db **out, const cb_store_file_opts *opts);
void cb_store_db_close(cb_store_db *db); /* NULL is fine */

/* Results as cb_store_done; arguments were checked. */
int cb_store_db_put(cb_store_db *db, const cb_store_put_opts *put, cb_store_rows *out);
int cb_store_db_get(cb_store_db *db, cb_slice key, uint64_t at, cb_store_rows *out);
int cb_store_db_list(cb_store_db *db, cb_slice prefix, cb_slice from, uint32_t most, cb_store_rows *out);
int cb_store_db_history(cb_store_db *db, cb_slice key, uint64_t before, uint32_t most, cb_store_rows *out);
/* Changes from a revision on, the earliest first. CB_ENOENT: some of them were forgotten. */
int cb_store_db_changes(cb_store_db *db, cb_slice prefix, uint64_t from, uint32_t most, cb_store_rows *out);
int cb_store_db_state(cb_store_db *db, uint64_t *revision, uint64_t *oldest, uint64_t *file_bytes);

#endif
