"""Nothing includes or calls upward (docs/design/architecture.md). A file's floor stands in libcb/sources.txt."""
import re

import guard

# What a floor may not include of other people's headers. Floor 0 has libc only.
THIRD_PARTY = r"(?:uv|ares|llhttp|gnutls/|nettle/|nghttp|ngtcp2|cjson/|cJSON|bpf/|openssl/|sqlite3)"
DRIVERS = r"(?:uv\.h|ares|bpf/)"

BOTH = ("sources.txt", "sources-xdp.txt")

# The one exception: cores may use the TLS session, which GnuTLS makes impure (it reads clock and random numbers by itself)
# and which takes its keys from what threads share (docs/design/decisions.md, 4).
TLS_SESSION = {"transport/tls_session.c", "transport/tls_stream.c"}

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">]+)[">]', re.M)


def includes(text):
    return [(found[1] == "<", found[2]) for found in INCLUDE.finditer(guard.without_comments(text))]


def upward_includes(table, read):
    """Problems of the include graph. table: {source: floor}; read(path) gives the text of libcb/path or None."""
    problems = []
    for source, floor in sorted(table.items()):
        seen, todo = set(), [source]
        while todo:
            path = todo.pop()
            for system, name in includes(read(path) or ""):
                if system and floor == 0 and re.match(THIRD_PARTY, name):
                    problems.append(f"{source} (F0) includes <{name}>: floor 0 has libc only")
                if system and floor == 1 and re.match(DRIVERS, name):
                    problems.append(f"{source} (F1) includes <{name}>: that belongs to a driver (F2)")
                if system or name in seen or read(name) is None:
                    continue
                seen.add(name)
                todo.append(name)
                home = re.sub(r"\.h$", ".c", name)
                above = table.get(home)
                if above is not None and above > floor and not (home in TLS_SESSION and floor == 1):
                    problems.append(f"{source} (F{floor}) includes {name} (F{above}): move the code, or its floor in "
                                    "libcb/sources.txt, so that nothing looks upward")
    return problems


def read_libcb(path):
    file = guard.ROOT / "libcb" / path
    return file.read_text() if file.is_file() else None


def symbols(path):
    """(defined, undefined) global symbols of an object file."""
    defined, undefined = set(), set()
    for line in guard.output("nm", "-g", path)[1].splitlines():
        kind, name = line.split()[-2:]
        (undefined if kind in "Uwv" else defined).add(name)
    return defined, undefined


def upward_calls(table, symbols_of):
    """Problems of the call graph. symbols_of: {source: (defined, undefined)}."""
    home = {name: source for source, (defined, _) in symbols_of.items() for name in defined}
    return [f"{source} (F{table[source]}) uses {name}() of {home[name]} (F{table[home[name]]}): pass it in as an "
            "operation, or move it down"
            for source, (_, undefined) in sorted(symbols_of.items()) for name in sorted(undefined)
            if name in home and table[home[name]] > table[source]
            and not (home[name] in TLS_SESSION and table[source] == 1)]


def unlisted(table):
    found = {str(path.relative_to(guard.ROOT / "libcb")) for path in (guard.ROOT / "libcb").rglob("*.c")}
    return ([f"libcb/{path} is not in libcb/sources.txt: add it with its floor" for path in sorted(found - set(table))]
            + [f"libcb/sources.txt names {path}, which does not exist" for path in sorted(set(table) - found)])


def foreign_includes(path, text):
    """F4: daemons, examples and bindings use public headers only (and headers of their own folder)."""
    return [f"{path} includes \"{name}\": daemons, examples and bindings see public headers only (<cb/...>)"
            for system, name in includes(text)
            if re.match(r"(?:\.\./|libcb/|base/|loop/|transport/|http/|tunnel/|lb/|auth/|config/|telemetry/)", name)
            or (system and re.match(THIRD_PARTY, name))]


def test_sources_are_listed():
    guard.report(unlisted(guard.sources(BOTH)))


def test_the_exception_exists():
    guard.report([f"tests/guards/test_floors.py excepts {path}, which is not in libcb/sources.txt: remove the exception"
                  for path in sorted(TLS_SESSION - set(guard.sources()))])


def test_includes_go_downward():
    guard.report(upward_includes(guard.sources(BOTH), read_libcb))


def test_calls_go_downward():
    guard.report(upward_calls(guard.sources(), {path: symbols(file) for path, file in guard.objects().items()}))


def test_top_floor_sees_public_headers_only():
    problems = []
    for folder in ("daemons", "examples", "bindings"):
        for file in sorted((guard.ROOT / folder).rglob("*.[ch]")):
            problems += foreign_includes(file.relative_to(guard.ROOT), file.read_text())
    guard.report(problems)


def test_guard_sees_upward_include():
    tree = {"a/core.c": '#include "a/mid.h"\n', "a/mid.h": '#include "b/driver.h"', "b/driver.h": "", "b/driver.c": ""}
    table = {"a/core.c": 1, "b/driver.c": 2}
    assert len(upward_includes(table, tree.get)) == 1
    assert not upward_includes({"a/core.c": 2, "b/driver.c": 2}, tree.get)
    assert upward_includes({"a/core.c": 1}, {"a/core.c": "#include <uv.h>"}.get)
    assert upward_includes({"a/core.c": 0}, {"a/core.c": "#include <gnutls/gnutls.h>"}.get)
    assert not upward_includes({"a/core.c": 1}, {"a/core.c": "/* #include <uv.h> */"}.get)


def test_guard_sees_upward_call():
    objects = {"core.c": ({"core"}, {"driver"}), "driver.c": ({"driver"}, {"core"})}
    assert len(upward_calls({"core.c": 1, "driver.c": 2}, objects)) == 1
    session = {"core.c": ({"core"}, {"session"}), "transport/tls_session.c": ({"session"}, set())}
    assert not upward_calls({"core.c": 1, "transport/tls_session.c": 2}, session)
    assert upward_calls({"core.c": 0, "transport/tls_session.c": 2}, session)


def test_guard_sees_private_header_in_program():
    assert foreign_includes("examples/x.c", '#include "base/buf.h"')
    assert foreign_includes("examples/x.c", "#include <uv.h>")
    assert not foreign_includes("examples/x.c", '#include <cb.h>\n#include "wiring.h"\n#include <stdio.h>')


if __name__ == "__main__":
    guard.main(globals())
