/* Sends clients of clear HTTP to https. */
#include "base/error.h"
#include "http/fields.h"
#include "http/proxy_int.h"
#include <stdio.h>
#include <string.h>

static int on_redirect(cb_exchange *x, void *user) {
    cb_proxy *p = user;
    cb_slice host = cb_exchange_authority(x), path = cb_exchange_path(x), method = cb_exchange_method(x);
    cb_pass *pass = cb_pass_new(p, x);
    char port[8] = "";
    if (!pass) return cb_fail(CB_ENOMEM, "no memory for one more request");
    bool v6 = host.len && host.base[0] == '[';
    const uint8_t *colon = host.len ? memrchr(host.base, ':', host.len) : NULL;
    if (colon && (!v6 || colon[-1] == ']')) host.len = (size_t)(colon - host.base);
    if (!host.len || !path.len || path.base[0] != '/') return cb_pass_refuse(pass, 400, "no_host");
    if (p->https_port != 443) snprintf(port, sizeof port, ":%u", p->https_port);
    int n = snprintf(p->location, sizeof p->location, "https://%.*s%s%.*s", (int)host.len, (const char *)host.base,
                     port, (int)path.len, (const char *)path.base);
    if (n < 0 || (size_t)n >= sizeof p->location) return cb_pass_refuse(pass, 400, "bad_path");
    bool plain = cb_slice_eq(method, "GET") || cb_slice_eq(method, "HEAD");
    const cb_field fields[] = {{cb_slice_str("location"), cb_slice_str(p->location)}};
    cb_cells_add(cb_loop_cells(p->loop), CB_C_PROXY_REDIRECTS, 1);
    pass->answered = 1;
    pass->status = plain ? 301 : 308;
    int rc = cb_exchange_send(x, pass->status, fields, 1, cb_slice_str(""));
    return rc == CB_ECLOSED ? CB_OK : rc;
}

const cb_exchange_ops cb_proxy_new_redirect_ops = {.size = sizeof cb_proxy_new_redirect_ops, .on_head = on_redirect};
