/* Entity tags and what requests say about them (RFC 9110, 8.8.3 and 13). */
#ifndef CB_ADMIN_MATCH_H
#define CB_ADMIN_MATCH_H

#include <cb/base.h>
#include <stdbool.h>

enum cb_match {
    CB_MATCH_GO = 0,       /* do it */
    CB_MATCH_SAME = 304,   /* GET and HEAD: what is there is what the client has */
    CB_MATCH_FAILED = 412, /* it is not what the client thinks */
    CB_MATCH_BAD = 400     /* no list of entity tags */
};

/* Judges both fields (base NULL: absent) by the current tag with its quotes (NULL: nothing is there). */
int cb_admin_match(cb_slice if_match, cb_slice if_none_match, const char *etag, bool reads);
/* Is text an entity tag? */
bool cb_admin_is_etag(const char *text);

#endif
