/* Configuration and revisions over HTTP: what its two halves share. */
#ifndef CB_ADMIN_REVISIONS_HTTP_H
#define CB_ADMIN_REVISIONS_HTTP_H

#include "admin/revisions_int.h"
#include "base/date.h"

enum { CB_REVISIONS_TAG = 32, CB_REVISIONS_POINTER = 2048 };

typedef struct cb_revisions_http {
    cb_revisions *r;
    cb_admin *a;
    cb_revisions_admin_opts o;
} cb_revisions_http;

/* The entity tag of what runs. */
void cb_revisions_tag(char out[CB_REVISIONS_TAG], const cb_revisions *r);
/* The pointer that a request's path names; CB_ELIMIT. */
int cb_revisions_pointer(char out[CB_REVISIONS_POINTER], const cb_admin_call *call);
/* {n} of the path; 0: it is none, and the call was answered. */
uint64_t cb_revisions_number_of(cb_admin_call *call);

/* ---- revisions_pages.c: asking ---- */
int cb_revisions_add_pages(cb_revisions_http *h);
/* What runs, as who asks may see it: *copy is to be freed, and NULL when that is all of it. */
int cb_revisions_visible(const cb_document **out, cb_document **copy, const cb_revisions_http *h,
                         const cb_admin_principal *who);

#endif
