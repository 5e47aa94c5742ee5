/* The OpenAPI 3.1 description, made from the table that routes. */
#ifndef CB_ADMIN_DESCRIBE_H
#define CB_ADMIN_DESCRIBE_H

#include "admin/router.h"

/* Puts the document into o. CB_EINVAL (a schema cannot be written), CB_ENOMEM. */
int cb_admin_describe_into(cb_json_out *o, const cb_admin_router *r, const char *title, const char *version);

#endif
