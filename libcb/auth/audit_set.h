/* The files of a log: the one that is written, and those that were put aside as PATH.NNNNNN. */
#ifndef CB_AUTH_AUDIT_SET_H
#define CB_AUTH_AUDIT_SET_H

#include "auth/audit_file.h"

enum { CB_AUDIT_PATH = 4096 };

typedef struct cb_audit_set {
    uint64_t *numbers; /* in order */
    size_t len;
} cb_audit_set;

/* CB_EINVAL: the path is too long. */
int cb_audit_set_name(char out[CB_AUDIT_PATH], const char *path, uint64_t number);
/* What lies beside the path. */
int cb_audit_set_list(cb_audit_set *out, const char *path);
void cb_audit_set_free(cb_audit_set *set);
/* The item that a file begins with. CB_EPROTO: none. */
int cb_audit_set_link(int fd, const char *path, uint8_t room[CB_AUDIT_LINK_BYTES], cb_audit_frame *out);
/* What a crash left of putting aside is undone: there was no record in the new file yet. */
int cb_audit_set_recover(const char *path, const cb_audit_set *set);
/* Does the file go on from the one before, as far as that is here? CB_EPROTO: no. */
int cb_audit_set_joined(int fd, const char *path, const cb_audit_set *set);
/* Makes a file beside the path with these bytes, synced and locked; gives its descriptor. */
int cb_audit_set_fresh(const char *path, cb_slice bytes, uint32_t mode);
/* The path's file gets the number for its name, that of cb_audit_set_fresh() the path. All or nothing. */
int cb_audit_set_turn(const char *path, uint64_t number);
/* A flawed file goes away as PATH.flawed-TIME: its new name, and the hash of what was in it. */
int cb_audit_set_aside(int fd, const char *path, int64_t time_us, char name[CB_AUDIT_PATH],
                       uint8_t hash[CB_AUDIT_HASH]);

int cb_audit_file_hash(int fd, const char *path, uint64_t from, uint64_t bytes, uint8_t out[CB_AUDIT_HASH]);
int cb_audit_folder_sync(const char *path);
/* Replaces a small file: not synced. */
int cb_audit_small_write(const char *path, const char *text);

#endif
