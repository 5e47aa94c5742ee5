/* Files of audit logs: verified from a descriptor, and the key that signs them. */
#ifndef CB_AUTH_AUDIT_FILE_H
#define CB_AUTH_AUDIT_FILE_H

#include "auth/audit_frame.h"
#include <gnutls/abstract.h>

int cb_audit_fd_verify(int fd, const char *path, const cb_audit_verify_opts *opts, cb_audit_report *report,
                       cb_audit_place *place);
/* Reads the key, or makes it when there is none. */
int cb_audit_key_open(gnutls_privkey_t *out, uint8_t pub[CB_AUDIT_HASH], const char *file);

/* --- audit.c --- */
/* The file of a log: lives as long as the log. */
const char *cb_audit_path(const cb_audit *log);

#endif
