/* Saved TLS sessions of a client, and the file in which several processes share them.
 *
 * The file: "CBSESS1\n", the number of sessions (4 bytes, big-endian like everything), the sessions, and a checksum
 * (8 bytes) against accidents. A session: id, made, expires (8 bytes each), the lengths of key, session and extra
 * (2 bytes each), and those. */
#ifndef CB_TRANSPORT_SESSIONS_FILE_H
#define CB_TRANSPORT_SESSIONS_FILE_H

#include "base/buf.h"
#include "base/list.h"
#include <cb/base.h>
#include <sys/types.h>
#include <time.h>

#define CB_SESSIONS_FILE_MAX  (4u << 20)
#define CB_SESSION_LIFE_MAX_S 604800 /* RFC 8446, 4.6.1 */

typedef struct cb_saved_session {
    cb_list link;
    uint64_t id;           /* random: the same session in another process has the same */
    int64_t made, expires; /* seconds since 1970 */
    bool stored, writing;  /* in the file; in the file that is being written */
    uint16_t key_len, session_len, extra_len;
    uint8_t bytes[]; /* key with its NUL, session, extra */
} cb_saved_session;

/* NULL: no memory, or something is too long. */
cb_saved_session *cb_saved_session_new(cb_slice key, cb_slice session, cb_slice extra);
void cb_saved_session_free(cb_saved_session *e); /* wiped; NULL is fine */
cb_slice cb_saved_session_data(const cb_saved_session *e);
cb_slice cb_saved_session_extra(const cb_saved_session *e);
void cb_saved_sessions_free(cb_list *all);

/* Adds the sessions of a file to `out`, oldest first. On failure none. CB_EPROTO: damaged (ours, but not whole);
 * CB_EINVAL: another kind of file; CB_ENOTSUP: of a newer version; CB_ENOMEM. */
int cb_sessions_decode(cb_list *out, cb_slice file);
/* The newest that fit CB_SESSIONS_FILE_MAX; those are marked `writing`. */
int cb_sessions_encode(cb_buf *out, cb_list *all);

/* By what a changed file is known. */
typedef struct cb_sessions_stamp {
    struct timespec mtime;
    ino_t inode;
    off_t size;
} cb_sessions_stamp;

bool cb_sessions_file_changed(const char *path, const cb_sessions_stamp *stamp);
/* Reads the file. CB_ENOENT: there is none, or an empty one; CB_EPROTO: damaged, may be replaced; else it is not ours
 * to touch: CB_EINVAL (not a file of sessions, of somebody else, or open to others), CB_ENOTSUP, CB_EPERM, CB_ESYS. */
int cb_sessions_file_read(cb_list *out, const char *path, cb_sessions_stamp *stamp);
/* A new file beside it, synced, and renamed over it. */
int cb_sessions_file_write(const char *path, cb_slice content, cb_sessions_stamp *stamp);

#endif
