"""What libcb.so exports: exactly what the public headers declare, as recorded in abi/; and its ABI has not been broken."""
import re
import shutil
import tempfile
from pathlib import Path

import guard
import layout

RECORD = guard.ROOT / "abi/libcb.symbols"
LAYOUT = guard.ROOT / "abi/libcb.layout"
BASELINE = guard.ROOT / "abi/libcb.abi"
SUPPRESSIONS = guard.ROOT / "abi/suppressions.ini"
LIBRARY = guard.BUILD / "libcb.so"
NODE = "LIBCB_0.1"
XDP_LIBRARY = guard.BUILD / "libcb-xdp.so"
XDP_NODE = "LIBCB_XDP_0.1"
XDP_RECORD = guard.ROOT / "abi/libcb-xdp.symbols"
XDP_BASELINE = guard.ROOT / "abi/libcb-xdp.abi"


def declared(texts):
    """The names of all CB_API functions."""
    names = set()
    for text in texts:
        names |= set(re.findall(r"^CB_API\b[^;(]*?\b(cb_\w+)\(", guard.without_comments(text), re.M))
    return names


def exported(library, own=NODE):
    """{name: version node} of the dynamic symbols."""
    found = {}
    for line in guard.output("nm", "-D", "--defined-only", "--with-symbol-versions", library)[1].splitlines():
        name, _, node = line.split()[-1].partition("@")
        if name != own:
            found[name] = node.strip("@")
    return found


def differences(headers, library, record, own=NODE):
    problems = [f"{name}() is declared in include/ and not defined: implement it, or take the declaration out"
                for name in sorted(headers - set(library))]
    problems += [f"libcb.so exports {name}, which no public header declares" for name in sorted(set(library) - headers)]
    problems += [f"{name} has version node {node or '(none)'} and not {own}"
                 for name, node in sorted(library.items()) if node != own]
    problems += [f"{name} is new: run scripts/abi and commit abi/" for name in sorted(headers - record)]
    problems += [f"{name} is gone: programs that use it break. If that is meant, run scripts/abi and commit abi/"
                 for name in sorted(record - headers)]
    return problems


def layout_breaks(old, new):
    """Differences of abi/libcb.layout (lines from layout.py). Callers say how large their *_opts and *_ops are, so
    fields may be added to those, at the end; enumerators may be added anywhere; nothing else may change."""
    then, now = group(old), group(new)
    problems = []
    for name, members in then.items():
        have = now.get(name)
        if have is None:
            problems.append(f"{name} is gone from the public headers")
        elif name.startswith("enum "):
            problems += [f"{name}: {member} is gone or has another value" for member in members if member not in have]
        elif have[:len(members)] != members or (len(have) > len(members) and not re.search(r"_(opts|ops)$", name)):
            changed = [member for member in members if member not in have] or have[len(members):]
            problems.append(f"{name} has another layout than abi/libcb.layout says: {'; '.join(changed) or 'order'}")
    problems += [f"{name} is new" for name in now if name not in then]
    return [f"{problem}. If that is meant, run scripts/abi and commit abi/" for problem in problems]


def group(lines):
    groups = {}
    for line in lines:
        name, _, member = line.partition(": ")
        groups.setdefault(name, []).append(member)
    return groups


def abi_breaks(old, new, headers=guard.ROOT / "include"):
    """abidiff's report. The suppressions leave appended option fields alone (and more: see layout_breaks)."""
    status, text = guard.output("abidiff", "--suppressions", SUPPRESSIONS, "--no-added-syms", "--headers-dir2", headers, old, new)
    return [f"the ABI changed since {Path(old).name} in abi/. If that is meant, run scripts/abi and commit abi/:\n{text}"] if status else []


def test_exports_are_declared_and_recorded():
    assert LIBRARY.exists(), f"{LIBRARY} is not built"
    headers = [path.read_text() for path in guard.PUBLIC if path not in guard.PUBLIC_XDP]
    guard.report(differences(declared(headers), exported(LIBRARY), set(RECORD.read_text().split())))


def test_xdp_exports_are_declared_and_recorded():
    assert XDP_LIBRARY.exists(), f"{XDP_LIBRARY} is not built: run scripts/setup test for clang, bpftool and libbpf"
    headers = declared(path.read_text() for path in guard.PUBLIC_XDP)
    guard.report(differences(headers, exported(XDP_LIBRARY, XDP_NODE), set(XDP_RECORD.read_text().split()), XDP_NODE))


def test_abi_is_kept():
    assert shutil.which("abidiff"), "abidiff is not installed: run scripts/setup test"
    guard.report(abi_breaks(BASELINE, LIBRARY) + abi_breaks(XDP_BASELINE, XDP_LIBRARY))


def test_layout_is_kept():
    guard.report(layout_breaks(LAYOUT.read_text().splitlines(), layout.lines()))


def test_guard_sees_differences():
    assert declared(["CB_API const char *cb_a(int x);\nCB_API void\ncb_b(void);\n/* CB_API int cb_c(void); */"]) == {"cb_a", "cb_b"}
    good = {"cb_a": NODE}
    assert not differences({"cb_a"}, good, {"cb_a"})
    assert differences({"cb_a", "cb_b"}, good, {"cb_a", "cb_b"})
    assert differences({"cb_a"}, {**good, "leak": NODE}, {"cb_a"})
    assert differences({"cb_a"}, {"cb_a": ""}, {"cb_a"})
    assert differences({"cb_a"}, good, set())
    assert differences({"cb_a"}, good, {"cb_a", "cb_old"})


def test_guard_sees_abi_break():
    with tempfile.TemporaryDirectory() as folder:
        def library(name, fields, result="int"):
            source = Path(folder) / f"{name}.c"
            (Path(folder) / "x.h").write_text("")
            source.write_text(f"typedef struct cb_x_opts {{ unsigned long size; {fields} }} cb_x_opts;\n"
                              f"{result} cb_x(const cb_x_opts *o); {result} cb_x(const cb_x_opts *o) {{ return ({result})o->size; }}\n")
            status, text = guard.output("gcc", "-g", "-shared", "-fPIC", source, "-o", source.with_suffix(".so"))
            assert status == 0, text
            return source.with_suffix(".so")
        old = library("old", "int a, b;")
        assert not abi_breaks(old, library("grown", "int a, b; const char *c;"), folder)
        assert abi_breaks(old, library("result", "int a, b;", "long"), folder)


def test_guard_sees_layout_break():
    def lines(*declarations):
        return layout.lines_of(layout.parse("".join(declarations)))
    old = lines("typedef struct cb_x_opts { size_t size; int a; int b; } cb_x_opts;", "enum cb_e { CB_A = 1 };",
                "typedef struct cb_s { int a; } cb_s;")
    def broken(opts="int a; int b;", enum="CB_A = 1", plain="int a;"):
        return layout_breaks(old, lines(f"typedef struct cb_x_opts {{ size_t size; {opts} }} cb_x_opts;",
                                        f"enum cb_e {{ {enum} }};", f"typedef struct cb_s {{ {plain} }} cb_s;"))
    assert not broken()
    assert not broken(opts="int a; int b; long c;")
    assert not broken(enum="CB_A = 1, CB_B = 2")
    assert broken(opts="long a; int b;")
    assert broken(opts="int a; long c; int b;")
    assert broken(opts="int b; int a;")
    assert broken(opts="int a;")
    assert broken(enum="CB_A = 2")
    assert broken(plain="int a; int b;")


if __name__ == "__main__":
    guard.main(globals())
