#include "store/store_db.h"
#include "base/error.h"
#include "base/mem.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { APPLICATION = 0x63627374, FORMAT = 1, KEEP = 1000, MAX_MIB = 1024, PAGE = 4096, ANSWER_BYTES = 64 << 20 };
static const cb_alloc *const heap = &cb_alloc_libc;

/* A row of `change` is a key after a change; `latest` names the last one of each key. AUTOINCREMENT: a number is never
 * given twice, also when the change that had it was forgotten. */
static const char schema[] =
    "CREATE TABLE change(revision INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL, value BLOB, note BLOB NOT NULL,"
    " time_ms INTEGER NOT NULL);"
    "CREATE INDEX change_key ON change(key, revision);"
    "CREATE TABLE latest(key BLOB PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
    "INSERT INTO meta VALUES('oldest', 1);";

enum statement {
    BEGIN,
    BEGIN_READ,
    COMMIT,
    ROLLBACK,
    LATEST,
    ADD,
    SET_LATEST,
    FORGET_BEFORE,
    FORGET,
    SET_OLDEST,
    GET,
    LIST,
    HISTORY,
    CHANGES,
    REVISION,
    OLDEST,
    STATEMENTS
};
#define ROW "c.key, c.value, c.note, c.revision, c.time_ms"
static const char *const texts[STATEMENTS] = {
    [BEGIN] = "BEGIN IMMEDIATE",
    [BEGIN_READ] = "BEGIN",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
    [LATEST] = "SELECT " ROW " FROM latest l JOIN change c ON c.revision = l.revision WHERE l.key = ?1",
    [ADD] = "INSERT INTO change(key, value, note, time_ms) VALUES(?1, ?2, ?3, ?4)",
    [SET_LATEST] = "INSERT INTO latest VALUES(?1, ?2) ON CONFLICT(key) DO UPDATE SET revision = excluded.revision",
    [FORGET_BEFORE] = "SELECT revision FROM change WHERE key = ?1 ORDER BY revision DESC LIMIT 1 OFFSET ?2",
    [FORGET] = "DELETE FROM change WHERE key = ?1 AND revision <= ?2",
    [SET_OLDEST] = "UPDATE meta SET value = max(value, ?1) WHERE name = 'oldest'",
    [GET] = "SELECT " ROW " FROM change c WHERE c.key = ?1 AND c.revision <= ?2 ORDER BY c.revision DESC LIMIT 1",
    [LIST] = "SELECT " ROW " FROM latest l JOIN change c ON c.revision = l.revision"
             " WHERE l.key >= ?1 AND l.key < ?2 AND c.value IS NOT NULL ORDER BY l.key LIMIT ?3",
    [HISTORY] = "SELECT " ROW " FROM change c WHERE c.key = ?1 AND c.revision < ?2 ORDER BY c.revision DESC LIMIT ?3",
    [CHANGES] = "SELECT " ROW " FROM change c WHERE c.key >= ?1 AND c.key < ?2 AND c.revision >= ?4"
                " ORDER BY c.revision LIMIT ?3",
    [REVISION] = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'change'",
    [OLDEST] = "SELECT value FROM meta WHERE name = 'oldest'",
};

struct cb_store_db {
    sqlite3 *sqlite;
    sqlite3_stmt *statements[STATEMENTS];
    char *path;
    int lock; /* of the file beside it, which says who writes; -1 = read only */
    uint32_t keep;
    bool read_only;
    dev_t device; /* of the file that was opened */
    ino_t inode;
};

/* ---- results ---- */

void cb_store_rows_free(cb_store_rows *r) {
    for (size_t i = 0; i < r->n; i++)
        cb_mem_free(heap, (uint8_t *)r->at[i].key.base);
    cb_mem_free(heap, r->at);
    *r = (cb_store_rows){0};
}

static cb_slice column(sqlite3_stmt *s, int i) {
    const void *base = sqlite3_column_blob(s, i);
    return (cb_slice){base, (size_t)sqlite3_column_bytes(s, i)};
}

/* A copy of the statement's row. */
static int row_add(cb_store_rows *r, sqlite3_stmt *s) {
    cb_slice key = column(s, 0), value = column(s, 1), note = column(s, 2);
    if (r->n == r->cap) {
        size_t cap = r->cap ? r->cap * 2 : 8;
        cb_store_entry *at = cb_mem_grow(heap, r->at, cap * sizeof *at);
        if (!at) return cb_fail(CB_ENOMEM, "no memory for entries of a store");
        r->at = at;
        r->cap = cap;
    }
    uint8_t *bytes = cb_mem_get(heap, key.len + value.len + note.len + 1);
    if (!bytes) return cb_fail(CB_ENOMEM, "no memory for entries of a store");
    cb_slice *parts[] = {&key, &value, &note};
    for (size_t i = 0, at = 0; i < 3; i++) {
        if (parts[i]->len > 0) memcpy(bytes + at, parts[i]->base, parts[i]->len);
        parts[i]->base = bytes + at;
        at += parts[i]->len;
    }
    r->at[r->n++] = (cb_store_entry){.size = sizeof(cb_store_entry),
                                     .key = key,
                                     .value = value,
                                     .note = note,
                                     .revision = (uint64_t)sqlite3_column_int64(s, 3),
                                     .time_ms = sqlite3_column_int64(s, 4),
                                     .deleted = sqlite3_column_type(s, 1) == SQLITE_NULL};
    r->bytes += key.len + value.len + note.len;
    return CB_OK;
}

/* What SQLite says, as an error of ours. */
static int failed(const cb_store_db *db) {
    const char *path = db->path;
    sqlite3 *sqlite = db->sqlite;
    const char *why = sqlite3_errmsg(sqlite);
    int code = sqlite3_errcode(sqlite) & 0xFF, system = sqlite3_system_errno(sqlite);
    switch (code) {
    case SQLITE_NOMEM:
        return cb_fail(CB_ENOMEM, "%s: no memory", path);
    case SQLITE_FULL:
        if (system != ENOSPC && system != EDQUOT) return cb_fail(CB_ELIMIT, "%s: the store has reached max_mib", path);
        return cb_fail(CB_ESYS, "%s: %s", path, strerror(system));
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_SCHEMA:
        return cb_fail(CB_EPROTO, "%s: damaged: %s", path, why);
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return cb_fail(CB_EPERM, "%s: %s", path, why);
    case SQLITE_CANTOPEN:
        if (system == ENOENT) return cb_fail(CB_ENOENT, "%s: %s", path, strerror(system));
        if (system == EACCES || system == EPERM) return cb_fail(CB_EPERM, "%s: %s", path, strerror(system));
        return cb_fail(CB_ESYS, "%s: %s", path, system ? strerror(system) : why);
    default:
        return cb_fail(CB_ESYS, "%s: %s%s%s", path, why, system ? ": " : "", system ? strerror(system) : "");
    }
}

/* ---- statements ---- */

static int prepare(cb_store_db *db, enum statement which, sqlite3_stmt **out) {
    sqlite3_stmt **s = &db->statements[which];
    if (!*s && sqlite3_prepare_v3(db->sqlite, texts[which], -1, SQLITE_PREPARE_PERSISTENT, s, NULL) != SQLITE_OK)
        return failed(db);
    *out = *s;
    return CB_OK;
}

static void bind_slice(sqlite3_stmt *s, int at, cb_slice v) {
    static const uint8_t nothing[1];
    sqlite3_bind_blob64(s, at, v.len > 0 ? v.base : nothing, v.len, SQLITE_STATIC);
}

static void bind_number(sqlite3_stmt *s, int at, uint64_t v) {
    sqlite3_bind_int64(s, at, v > INT64_MAX ? INT64_MAX : (int64_t)v);
}

/* Runs a bound statement to its end: rows to `out` (may be NULL), or the number of the first row's first column. */
static int run(cb_store_db *db, sqlite3_stmt *s, cb_store_rows *out, uint64_t *number) {
    int rc = CB_OK, step;
    bool first = true;
    while (rc == CB_OK && (step = sqlite3_step(s)) != SQLITE_DONE) {
        if (step != SQLITE_ROW) {
            rc = failed(db);
            break;
        }
        if (number && first) *number = (uint64_t)sqlite3_column_int64(s, 0);
        first = false;
        if (out && out->n > 0 && out->bytes > ANSWER_BYTES) break; /* the caller goes on behind the last one */
        if (out) rc = row_add(out, s);
    }
    sqlite3_reset(s);
    sqlite3_clear_bindings(s);
    return rc;
}

static int simple(cb_store_db *db, enum statement which, uint64_t *number) {
    sqlite3_stmt *s = NULL;
    int rc = prepare(db, which, &s);
    return rc < 0 ? rc : run(db, s, NULL, number);
}

/* ---- opening ---- */

static int execute(cb_store_db *db, const char *text) {
    return sqlite3_exec(db->sqlite, text, NULL, NULL, NULL) == SQLITE_OK ? CB_OK : failed(db);
}

static int pragma_number(cb_store_db *db, const char *text, int64_t *out) {
    sqlite3_stmt *s = NULL;
    if (sqlite3_prepare_v2(db->sqlite, text, -1, &s, NULL) != SQLITE_OK) return failed(db);
    int rc = sqlite3_step(s) == SQLITE_ROW ? CB_OK : failed(db);
    if (rc == CB_OK) *out = sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    return rc;
}

/* A file that is empty becomes a store; another must be one. */
static int check_format(cb_store_db *db) {
    int64_t application = 0, format = 0, tables = 0;
    int rc = pragma_number(db, "PRAGMA application_id", &application);
    if (rc == CB_OK) rc = pragma_number(db, "PRAGMA user_version", &format);
    if (rc == CB_OK) rc = pragma_number(db, "SELECT count(*) FROM sqlite_schema", &tables);
    if (rc < 0) return rc;
    if (application == 0 && format == 0 && tables == 0 && !db->read_only) {
        char mark[96];
        snprintf(mark, sizeof mark, "PRAGMA application_id = %d; PRAGMA user_version = %d", APPLICATION, FORMAT);
        rc = execute(db, "BEGIN IMMEDIATE");
        if (rc == CB_OK) rc = execute(db, schema);
        if (rc == CB_OK) rc = execute(db, mark);
        return rc < 0 ? rc : execute(db, "COMMIT");
    }
    if (application != APPLICATION) return cb_fail(CB_EPROTO, "%s: this is no store of libcb", db->path);
    if (format != FORMAT)
        return cb_fail(CB_EPROTO, "%s: format %lld; this library knows %d", db->path, (long long)format, FORMAT);
    sqlite3_stmt *s = NULL;
    if (sqlite3_prepare_v2(db->sqlite, "PRAGMA quick_check(1)", -1, &s, NULL) != SQLITE_OK) return failed(db);
    bool good = sqlite3_step(s) == SQLITE_ROW && strcmp((const char *)sqlite3_column_text(s, 0), "ok") == 0;
    if (!good) rc = cb_fail(CB_EPROTO, "%s: damaged: %s", db->path, (const char *)sqlite3_column_text(s, 0));
    sqlite3_finalize(s);
    return rc;
}

static int settings(cb_store_db *db, const cb_store_file_opts *o) {
    char limit[64];
    uint64_t mib = o->max_mib ? o->max_mib : MAX_MIB;
    snprintf(limit, sizeof limit, "PRAGMA max_page_count = %llu", (unsigned long long)mib * (1 << 20) / PAGE);
    sqlite3_busy_timeout(db->sqlite, 5000);
    sqlite3_extended_result_codes(db->sqlite, 1);
    sqlite3_db_config(db->sqlite, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(db->sqlite, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    if (db->read_only) return CB_OK;
    int rc = execute(db, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 256");
    return rc < 0 ? rc : execute(db, limit);
}

/* The file is made here, so that nobody else can read it for a moment; the lock is a file beside it, because closing a
 * descriptor of a database would end SQLite's own locks. */
static int take_place(cb_store_db *db) {
    char lock[PATH_MAX];
    if (snprintf(lock, sizeof lock, "%s.lock", db->path) >= (int)sizeof lock)
        return cb_fail(CB_EINVAL, "the path of a store is longer than %d bytes", PATH_MAX - 6);
    db->lock = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (db->lock < 0) return cb_fail_errno(errno, "%s", lock);
    if (flock(db->lock, LOCK_EX | LOCK_NB) < 0)
        return cb_fail(CB_EEXIST, "%s: another process writes to this store", db->path);
    int fd = open(db->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return cb_fail_errno(errno, "%s", db->path);
    close(fd);
    return CB_OK;
}

int cb_store_db_open(cb_store_db **out, const cb_store_file_opts *opts) {
    struct stat st;
    cb_store_db *db = cb_mem_new(heap, sizeof *db);
    if (!db) return cb_fail(CB_ENOMEM, "no memory for a store");
    db->lock = -1;
    db->keep = opts->keep ? opts->keep : KEEP;
    db->read_only = opts->read_only;
    db->path = cb_mem_text(heap, opts->path);
    int rc = db->path ? CB_OK : cb_fail(CB_ENOMEM, "no memory for a store");
    if (rc == CB_OK && !db->read_only) rc = take_place(db);
    int flags = SQLITE_OPEN_NOMUTEX | (db->read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE);
    if (rc == CB_OK && sqlite3_open_v2(db->path, &db->sqlite, flags, NULL) != SQLITE_OK)
        rc = db->sqlite ? failed(db) : cb_fail(CB_ENOMEM, "no memory for a store");
    if (rc == CB_OK) rc = settings(db, opts);
    if (rc == CB_OK) rc = check_format(db);
    if (rc == CB_OK && stat(db->path, &st) < 0) rc = cb_fail_errno(errno, "%s", db->path);
    if (rc < 0) {
        cb_store_db_close(db);
        return rc;
    }
    db->device = st.st_dev;
    db->inode = st.st_ino;
    *out = db;
    return CB_OK;
}

void cb_store_db_close(cb_store_db *db) {
    if (!db) return;
    for (int i = 0; i < STATEMENTS; i++)
        sqlite3_finalize(db->statements[i]);
    sqlite3_close(db->sqlite);
    if (db->lock >= 0) close(db->lock);
    cb_mem_free(heap, db->path);
    cb_mem_free(heap, db);
}

/* ---- questions ---- */

/* SQLite would go on writing to a file that has no name any more. */
static int still_there(const cb_store_db *db) {
    struct stat st;
    if (stat(db->path, &st) < 0) return cb_fail_errno(errno, "%s", db->path);
    if (st.st_dev == db->device && st.st_ino == db->inode) return CB_OK;
    return cb_fail(CB_ESYS, "%s: this is not the file that was opened", db->path);
}

static int latest(cb_store_db *db, cb_slice key, cb_store_rows *out) {
    sqlite3_stmt *s = NULL;
    int rc = prepare(db, LATEST, &s);
    if (rc < 0) return rc;
    bind_slice(s, 1, key);
    return run(db, s, out, NULL);
}

static int add(cb_store_db *db, const cb_store_put_opts *p, uint64_t *revision) {
    sqlite3_stmt *s = NULL;
    int rc = prepare(db, ADD, &s);
    if (rc < 0) return rc;
    bind_slice(s, 1, p->key);
    if (p->value.base) bind_slice(s, 2, p->value);
    bind_slice(s, 3, p->note);
    sqlite3_bind_int64(s, 4, p->time_ms);
    if ((rc = run(db, s, NULL, NULL)) < 0) return rc;
    *revision = (uint64_t)sqlite3_last_insert_rowid(db->sqlite);
    if ((rc = prepare(db, SET_LATEST, &s)) < 0) return rc;
    bind_slice(s, 1, p->key);
    bind_number(s, 2, *revision);
    return run(db, s, NULL, NULL);
}

/* Changes of the key beyond what is kept. */
static int forget(cb_store_db *db, cb_slice key) {
    sqlite3_stmt *s = NULL;
    uint64_t last = 0;
    int rc = prepare(db, FORGET_BEFORE, &s);
    if (rc < 0) return rc;
    bind_slice(s, 1, key);
    bind_number(s, 2, (uint64_t)db->keep + 1);
    if ((rc = run(db, s, NULL, &last)) < 0 || last == 0) return rc;
    if ((rc = prepare(db, FORGET, &s)) < 0) return rc;
    bind_slice(s, 1, key);
    bind_number(s, 2, last);
    if ((rc = run(db, s, NULL, NULL)) < 0 || (rc = prepare(db, SET_OLDEST, &s)) < 0) return rc;
    bind_number(s, 1, last + 1);
    return run(db, s, NULL, NULL);
}

/* Within a transaction. Leaves the new entry in `out`, or what stood against it. */
static int change(cb_store_db *db, const cb_store_put_opts *p, cb_store_rows *out) {
    uint64_t revision = 0;
    int rc = latest(db, p->key, out);
    if (rc < 0) return rc;
    bool there = out->n > 0 && !out->at[0].deleted;
    uint64_t at = there ? out->at[0].revision : 0;
    if (p->expected != CB_STORE_ANY && p->expected != at) {
        if (!there) cb_store_rows_free(out);
        return cb_fail(CB_EEXIST, "%s: the key is at revision %llu, not %llu", db->path, (unsigned long long)at,
                       (unsigned long long)p->expected);
    }
    if (!p->value.base && !there) return cb_fail(CB_ENOENT, "%s: there is no such key to remove", db->path);
    cb_store_rows_free(out);
    if ((rc = add(db, p, &revision)) < 0 || (rc = forget(db, p->key)) < 0) return rc;
    return latest(db, p->key, out);
}

int cb_store_db_put(cb_store_db *db, const cb_store_put_opts *p, cb_store_rows *out) {
    if (db->read_only) return cb_fail(CB_EPERM, "%s: the store is open for reading only", db->path);
    int rc = still_there(db);
    if (rc == CB_OK) rc = simple(db, BEGIN, NULL);
    if (rc < 0) return rc;
    rc = change(db, p, out);
    if (rc == CB_OK) rc = simple(db, COMMIT, NULL);
    if (rc == CB_OK) return rc;
    char why[1024]; /* rolling back may say something of its own */
    snprintf(why, sizeof why, "%s", cb_last_error());
    if (!sqlite3_get_autocommit(db->sqlite)) simple(db, ROLLBACK, NULL);
    if (rc != CB_EEXIST) cb_store_rows_free(out);
    return cb_fail(rc, "%s", why);
}

int cb_store_db_state(cb_store_db *db, uint64_t *revision, uint64_t *oldest, uint64_t *file_bytes) {
    struct stat st;
    int rc = simple(db, REVISION, revision);
    if (rc == CB_OK) rc = simple(db, OLDEST, oldest);
    if (rc == CB_OK) *file_bytes = stat(db->path, &st) == 0 ? (uint64_t)st.st_size : 0;
    return rc;
}

int cb_store_db_get(cb_store_db *db, cb_slice key, uint64_t at, cb_store_rows *out) {
    sqlite3_stmt *s = NULL;
    uint64_t revision = 0, oldest = 0, bytes = 0;
    int rc = prepare(db, GET, &s);
    if (rc < 0) return rc;
    bind_slice(s, 1, key);
    bind_number(s, 2, at ? at : CB_STORE_ANY);
    if ((rc = run(db, s, out, NULL)) < 0) return rc;
    if (out->n > 0 && !out->at[0].deleted) return CB_OK;
    bool removed = out->n > 0;
    cb_store_rows_free(out);
    if (!removed && at && cb_store_db_state(db, &revision, &oldest, &bytes) == CB_OK && at < oldest)
        return cb_fail(CB_ENOENT, "%s: revision %llu was forgotten", db->path, (unsigned long long)at);
    return cb_fail(CB_ENOENT, "%s: there is no such key", db->path);
}

/* Keys from `from` on that begin with prefix: those below the prefix with its last byte raised. No byte of UTF-8 is
 * 0xFF. */
static void bind_range(sqlite3_stmt *s, cb_slice from, cb_slice prefix, uint8_t end[CB_STORE_KEY_BYTES],
                       uint32_t most) {
    size_t len = prefix.len > 0 ? prefix.len : 1;
    end[0] = 0xFF;
    if (prefix.len > 0) memcpy(end, prefix.base, prefix.len);
    if (prefix.len > 0) end[len - 1]++;
    bind_slice(s, 1, from);
    bind_slice(s, 2, (cb_slice){end, len});
    bind_number(s, 3, most);
}

int cb_store_db_list(cb_store_db *db, cb_slice prefix, cb_slice from, uint32_t most, cb_store_rows *out) {
    uint8_t end[CB_STORE_KEY_BYTES];
    sqlite3_stmt *s = NULL;
    int rc = prepare(db, LIST, &s);
    if (rc < 0) return rc;
    bool behind = from.len > 0 && (prefix.len == 0 ||
                                   memcmp(from.base, prefix.base, from.len < prefix.len ? from.len : prefix.len) >= 0);
    bind_range(s, behind ? from : prefix, prefix, end, most);
    return run(db, s, out, NULL);
}

int cb_store_db_history(cb_store_db *db, cb_slice key, uint64_t before, uint32_t most, cb_store_rows *out) {
    sqlite3_stmt *s = NULL;
    int rc = prepare(db, HISTORY, &s);
    if (rc < 0) return rc;
    bind_slice(s, 1, key);
    bind_number(s, 2, before ? before : CB_STORE_ANY);
    bind_number(s, 3, most);
    rc = run(db, s, out, NULL);
    return rc < 0 || out->n > 0 || before ? rc : cb_fail(CB_ENOENT, "%s: there is no such key", db->path);
}

int cb_store_db_changes(cb_store_db *db, cb_slice prefix, uint64_t from, uint32_t most, cb_store_rows *out) {
    uint8_t end[CB_STORE_KEY_BYTES];
    sqlite3_stmt *s = NULL;
    uint64_t oldest = 0;
    int rc = simple(db, BEGIN_READ, NULL); /* nothing is forgotten between the two questions */
    if (rc < 0) return rc;
    rc = simple(db, OLDEST, &oldest);
    if (rc == CB_OK && from < oldest)
        rc =
            cb_fail(CB_ENOENT, "%s: changes before revision %llu were forgotten", db->path, (unsigned long long)oldest);
    if (rc == CB_OK) rc = prepare(db, CHANGES, &s);
    if (rc == CB_OK) {
        bind_range(s, prefix, prefix, end, most);
        bind_number(s, 4, from);
        rc = run(db, s, out, NULL);
    }
    int ended = simple(db, COMMIT, NULL);
    return rc < 0 ? rc : ended;
}
