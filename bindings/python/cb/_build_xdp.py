"""Builds the extension module cb._xdp: libcb-xdp, where pkg-config finds it. It shares the types of cb._cb."""

import importlib.util
import os

from cffi import FFI

_spec = importlib.util.spec_from_file_location("cb_build", os.path.join(os.path.dirname(os.path.abspath(__file__)), "_build.py"))
base = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(base)

HEADER = "#include <cb/forward.h>\n"
CALLBACKS = 'extern "Python" int cbpy_forward_idle(uint32_t, void *);\n'


def own_declarations():
    """What <cb/forward.h> declares that cb._cb does not: the preprocessor's lines that are new."""
    everything = base.declarations(base.include_flags, "#include <cb.h>\n" + HEADER)
    known = base.declarations(base.include_flags)
    assert everything.startswith(known), "cb.h comes first"
    return everything[len(known):]


ffi = FFI()
ffi.include(base.ffi)
ffi.cdef(own_declarations() + CALLBACKS)
ffi.set_source(
    "cb._xdp",
    "#include <cb.h>\n" + HEADER,
    include_dirs=[flag[2:] for flag in base.include_flags],
    library_dirs=base.library_dirs,
    runtime_library_dirs=base.library_dirs,
    libraries=["cb-xdp", "cb"],
)

if __name__ == "__main__":
    ffi.compile(verbose=True)
