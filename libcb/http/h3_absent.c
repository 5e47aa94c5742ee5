/* Until HTTP/3 framing joins the build: connections for it are refused. Weak, so that the real ones win. */
#include "base/error.h"
#include "http/hconn.h"

__attribute__((weak)) int cb_h3_new(cb_hconn **out, const cb_hconn_env *env, cb_quic_conn *qc) {
    (void)out;
    (void)env;
    (void)qc;
    return cb_fail(CB_ENOTSUP, "this build has no HTTP/3");
}

__attribute__((weak)) struct cb_quic_app *cb_h3_app(cb_hconn *h) {
    (void)h;
    return NULL;
}
