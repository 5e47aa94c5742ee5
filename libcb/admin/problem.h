/* What goes with problem+json (RFC 9457). */
#ifndef CB_ADMIN_PROBLEM_H
#define CB_ADMIN_PROBLEM_H

/* What a status of 400 and more is called (RFC 9110, 15; RFC 6585). */
const char *cb_admin_status_text(int status);

#endif
