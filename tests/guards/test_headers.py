"""Public headers: each compiles alone, as C11 and as C++17; option structs are laid out by hand; foreign parsers read them."""
import re
import shutil
import tempfile
from pathlib import Path

import guard
import layout

C = ["-x", "c", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wstrict-prototypes", "-Werror"]
CXX = ["-x", "c++", "-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
COMPILERS = [("gcc", C), ("clang", C), ("g++", CXX), ("clang++", CXX)]
STRUCT = re.compile(r"typedef struct (cb_\w+_(?:opts|ops)) \{(.*?)\} (cb_\w+);", re.S)


def compile_alone(header):
    text = f'#include "{header}"\n'
    return [f"{header} does not compile alone with {compiler} {flags[2]}:\n{said}"
            for compiler, flags in COMPILERS
            for status, said in [guard.output(compiler, *flags, "-fsyntax-only", "-I", guard.ROOT / "include", "-", stdin=text)]
            if status != 0]


def padding(header):
    """Implicit padding in option structs: compound literals leave it unset, so libcb could not tell what is zero."""
    text = header.read_text()
    ranges = [(found[1], text.count("\n", 0, found.start()) + 1, text.count("\n", 0, found.end()) + 1)
              for found in STRUCT.finditer(text)]
    _, said = guard.output("gcc", *C[:3], "-Wpadded", "-fsyntax-only", "-I", guard.ROOT / "include", "-",
                           stdin=f'#include "{header}"\n')
    problems = []
    for found in re.finditer(re.escape(str(header)) + r":(\d+):\d+: warning: (padding struct[^\n]*)", said):
        problems += [f"{header}:{found[1]}: {name}: {found[2]}: add an explicit `reserved` field"
                     for name, first, last in ranges if first <= int(found[1]) <= last]
    return problems


def shape(header):
    """`size` comes first in every struct that callers fill; nothing but the C library is included."""
    text = guard.without_comments(header.read_text())
    problems = [f"{header}: {found[1]} must begin with `size_t size;`"
                for found in STRUCT.finditer(text) if not re.match(r"\s*size_t size;", found[2])]
    problems += [f"{header} includes <{name}>: public headers need only each other and {', '.join(sorted(layout.STANDARD))}"
                 for name in re.findall(r'#\s*include\s*[<"]([^>"]+)', text)
                 if name not in layout.STANDARD and not name.startswith("cb/")]
    problems += [f"{header}: the function-like macro {name}: make it a function or an enum (foreign callers have no macros)"
                 for name in re.findall(r"#\s*define\s+(\w+)\(", text) if name not in ("CB_OPTS",)]
    return problems


def cffi_refuses(headers):
    try:
        layout.parse(layout.preprocess(headers))
    except Exception as error:  # the preprocessor's, cffi's own and pycparser's
        return [f"cffi cannot read the public headers: {error}"]
    return []


def test_each_compiles_alone():
    guard.report([f"{compiler} is not installed: run scripts/setup test" for compiler, _ in COMPILERS
                  if not shutil.which(compiler)])
    guard.report([problem for header in guard.PUBLIC for problem in compile_alone(header)])


def test_option_structs_have_no_hidden_padding():
    guard.report([problem for header in guard.PUBLIC for problem in padding(header)])


def test_layout_rules():
    guard.report([problem for header in guard.PUBLIC for problem in shape(header)])


def test_cffi_reads_them():
    guard.report(cffi_refuses(guard.PUBLIC))


def test_cb_h_has_them_all():
    text = (guard.ROOT / "include/cb.h").read_text()
    guard.report([f"include/cb.h lacks #include <cb/{header.name}>"
                  for header in sorted((guard.ROOT / "include/cb").glob("*.h"))
                  if header not in guard.PUBLIC_XDP and f"<cb/{header.name}>" not in text])


def sample(text, check):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bad.h"
        file.write_text(text)
        return check(file)


def test_guard_sees_bad_headers():
    assert sample("int f(size_t n);\n", compile_alone)
    assert sample("typedef int new_thing; int f(int new);\n", compile_alone)
    assert len(sample("#include <stddef.h>\ntypedef struct cb_x_opts {\n    size_t size;\n    int a;\n    const char *b;\n"
                      "} cb_x_opts;\n", padding)) == 1
    assert len(sample("#include <stddef.h>\ntypedef struct cb_x_opts {\n    size_t size;\n    int a;\n} cb_x_opts;\n",
                      padding)) == 1
    assert not sample("#include <stddef.h>\ntypedef struct cb_x_opts {\n    size_t size;\n    int a, reserved;\n} cb_x_opts;\n",
                      padding)
    assert sample("typedef struct cb_x_opts { int a; size_t size; } cb_x_opts;", shape)
    assert sample("#include <uv.h>\n", shape)
    assert sample("#define CB_MAX(a, b) a\n", shape)
    assert sample("int f(nothing_known x);\n", lambda file: cffi_refuses([file]))


if __name__ == "__main__":
    guard.main(globals())
