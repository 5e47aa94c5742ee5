/* http and https URLs of requests (RFC 9110, 4.2; RFC 3986), as configuration text. */
#ifndef CB_HTTP_URL_H
#define CB_HTTP_URL_H

#include <cb/base.h>
#include <stdbool.h>

enum { CB_URL_HOST_BYTES = 255, CB_URL_TEXT_MAX = 65536 };

typedef struct cb_url {
    bool tls;                               /* https */
    bool v6;                                /* the host is an IPv6 literal */
    bool add_slash;                         /* the path was empty: "/" goes before `target` */
    uint16_t port;                          /* the scheme's when none was given */
    char host[CB_URL_HOST_BYTES + 1];       /* lower case, without brackets */
    char authority[CB_URL_HOST_BYTES + 11]; /* host with brackets, ":port" unless it is the scheme's */
    cb_slice target;                        /* path and query, without the fragment; into the text */
} cb_url;

/* CB_EINVAL: the detail has the text and says what is wrong and where. User names in URLs are refused. */
int cb_url_parse(cb_url *out, const char *text);

#endif
