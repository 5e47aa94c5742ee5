/* Reading what an ACME server says, which is not trusted. */
#ifndef CB_AUTH_ACME_READ_H
#define CB_AUTH_ACME_READ_H

#include "auth/web.h"
#include <cjson/cJSON.h>

enum { CB_ACME_DEPTH = 16, CB_ACME_ANSWER_BYTES = 131072, CB_ACME_TOKEN_BYTES = 256 };

/* One JSON object of bounded depth, to be freed with cJSON_Delete(); NULL with the detail. */
cJSON *cb_acme_json(cb_slice body);

#endif
