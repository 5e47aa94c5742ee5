"""The layout of every public struct and the value of every enumerator, as lines of text: what abi/libcb.layout records.
Run directly, it prints them. cffi's parser reads the headers, as it does for bindings (docs/design/decisions.md, 7)."""
import tempfile
from pathlib import Path

import guard

STANDARD = {"stddef.h", "stdint.h"}


def preprocess(headers):
    """Public headers as a foreign parser wants them: with empty standard headers and an empty CB_API."""
    with tempfile.TemporaryDirectory() as folder:
        for name in STANDARD:
            (Path(folder) / name).write_text("")
        text = "".join(f'#include "{header}"\n' for header in headers)
        status, said = guard.output("gcc", "-E", "-P", "-undef", "-nostdinc", "-std=c11", "-I", folder, "-I",
                                    guard.ROOT / "include", "-x", "c", "-", stdin=text)
    if status != 0:
        raise ValueError(f"the headers do not preprocess without a standard library:\n{said}")
    return said


def parse(text):
    import cffi
    ffi = cffi.FFI()
    ffi.cdef(text)
    return ffi


def lines_of(ffi):
    typedefs, structs, _ = ffi.list_types()
    found = []
    for name in sorted(set(typedefs + structs)):
        kind = ffi.typeof(name if name in typedefs else f"struct {name}")
        if kind.kind == "struct" and kind.fields is not None:
            found += [f"{name}: {field} at {info.offset}: {info.type.cname}" for field, info in kind.fields]
            found.append(f"{name}: size {ffi.sizeof(kind)}") if not name.endswith(("_opts", "_ops")) else None
    for key in sorted(ffi._parser._declarations):  # cffi has no public list of enums
        if key.startswith("enum "):
            found += [f"{key}: {name} = {value}" for name, value in sorted(ffi.typeof(key).relements.items(), key=lambda item: item[1])]
    return found


def lines():
    return lines_of(parse(preprocess(guard.PUBLIC)))


if __name__ == "__main__":
    print("\n".join(lines()))
