"""Builds the extension module cb._cb with cffi in API mode, from the installed public headers.

The headers are preprocessed with empty standard headers and an empty CB_API, so that what reaches cffi's parser is libcb's own
declarations only; the C compiler later checks every one of them against the real headers. libcb is found by pkg-config.
"""

import os
import subprocess
import tempfile

from cffi import FFI

STANDARD_HEADERS = ("stddef.h", "stdint.h", "stdbool.h")

# One C function for each kind of callback; the object that it is for comes back through the `void *user` handle.
CALLBACKS = """
extern "Python" int cbpy_on_head(cb_exchange *, void *);
extern "Python" int64_t cbpy_on_body(cb_exchange *, cb_slice, void *);
extern "Python" int cbpy_on_end(cb_exchange *, void *);
extern "Python" int cbpy_on_writable(cb_exchange *, void *);
extern "Python" void cbpy_on_close(cb_exchange *, int, void *);
extern "Python" int cbpy_on_request(cb_exchange *, void *);
extern "Python" void cbpy_on_drained(cb_loop *, void *);
extern "Python" void cbpy_sim_at(cb_sim *, void *);
extern "Python" void cbpy_sim_timer(cb_loop *, void *);
extern "Python" void cbpy_sim_datagram(cb_sim_socket *, const cb_sim_datagram *, void *);
extern "Python" void cbpy_log(int, const char *, const char *, void *);
extern "Python" int cbpy_metrics_piece(cb_slice, void *);
extern "Python" int cbpy_audit_record(const cb_audit_record *, void *);
extern "Python" int cbpy_lb_publish(cb_slice, void *);
extern "Python" void cbpy_policy_step(const cb_policy_step *, void *);
extern "Python" int cbpy_acme_challenge(cb_acme *, const cb_acme_challenge *, void *);
extern "Python" void cbpy_acme_challenge_done(cb_acme *, const cb_acme_challenge *, void *);
extern "Python" void cbpy_acme_done(cb_acme *, int, const cb_acme_result *, void *);
extern "Python" void cbpy_oidc_start(cb_loop *, void *);
extern "Python" void cbpy_oidc_told(int, cb_jwt *, int32_t, void *);
extern "Python" void cbpy_oidc_device(cb_oidc_request *, const cb_oidc_device *, void *);
extern "Python" void cbpy_oidc_done(cb_oidc_request *, int, const cb_oidc_tokens *, const char *, void *);
"""


def pkg_config(*args):
    out = subprocess.run(["pkg-config", *args, "libcb"], check=True, capture_output=True, text=True)
    return out.stdout.split()


def declarations(include_flags, headers="#include <cb.h>\n"):
    """The public headers as one text that cffi's parser takes."""
    with tempfile.TemporaryDirectory() as stubs:
        for name in STANDARD_HEADERS:
            open(os.path.join(stubs, name), "w").close()
        command = [os.environ.get("CC", "cc"), "-E", "-P", "-undef", "-nostdinc", "-x", "c", "-I", stubs, *include_flags, "-"]
        out = subprocess.run(command, input=headers, check=True, capture_output=True, text=True)
    return out.stdout


include_flags = pkg_config("--cflags-only-I") or ["-I/usr/include"]
library_dirs = [flag[2:] for flag in pkg_config("--libs-only-L")]

ffi = FFI()
ffi.cdef(declarations(include_flags) + CALLBACKS)
ffi.set_source(
    "cb._cb",
    "#include <cb.h>",
    include_dirs=[flag[2:] for flag in include_flags],
    library_dirs=library_dirs,
    runtime_library_dirs=library_dirs,
    libraries=["cb"],
)

if __name__ == "__main__":
    ffi.compile(verbose=True)
