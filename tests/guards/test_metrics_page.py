"""docs/metrics.md lists the families of libcb/telemetry/catalogue.def, libcb/telemetry/cells.def the series that loops count
in, and nothing else is counted. `python3 tests/guards/test_metrics_page.py --write` writes both anew."""
import itertools
import re
import subprocess
import sys

import guard

sys.path.insert(0, str(guard.ROOT / "dashboards"))
from catalogue import CATALOGUE, DAEMONS, rows  # noqa: E402

PAGE = guard.ROOT / "docs/metrics.md"
CELLS = guard.ROOT / "libcb/telemetry/cells.def"
MODULES = {"process": "The process", "interface": "Network interfaces (L1, L2)", "kernel": "The kernel's network stack (L3, L4)", "loop": "Event loops",
           "udp": "UDP sockets of libcb", "xdp": "AF_XDP", "tcp": "TCP connections of libcb", "quic": "QUIC", "tls": "TLS", "admin": "Administration interfaces",
           "http": "HTTP servers", "pool": "Connections to origins", "dns": "Names", "proxy": "The reverse proxy", "health": "Checks of endpoints", "audit": "Audit logs", "store": "Stores",
           "log": "Logs", "access": "Access logs", "trace": "Traces", "auth": "Identities and policies", "acme": "Certificates by ACME", "lb": "Forwarding tables",
           "forward": "The datapath in the kernel (libcb-xdp)", "edge": "cb-edge"}
READ = ("process", "interface", "kernel", "forward")  # by collectors, at a scrape
SHOWN = (*READ, "lb")  # of these no loop has cells
HEAD = """# Metrics

The families that libcb and its daemons have. A counter is shown with `_total` behind its name; a histogram has `_bucket`, `_sum` and `_count`, or is a native one. This page
is made from `libcb/telemetry/catalogue.def` and `daemons/*/families.def` by `python3 tests/guards/test_metrics_page.py --write`, and a guard compares it. How to count things of your own is in
[the guide](guide/telemetry.md).
"""


CELLS_HEAD = """/* Every series of catalogue.def whose label values are all known there: X(ID, FAMILY, values with a NUL behind each). Made by
 * `python3 tests/guards/test_metrics_page.py --write`, and a guard compares it. */
"""


def cells(table):
    """(id, family, kind, values) of each series that a loop counts in."""
    for identity, module, kind, _, _, _, labels, _ in table:
        sets = [label.partition("=")[2] for label in labels.split(",")] if labels else []
        if module in SHOWN or not all(sets):
            continue
        for values in itertools.product(*(text.split("|") for text in sets)):
            words = [re.sub(r"[^A-Z0-9]+", "_", value.upper()).strip("_") for value in values]
            yield "_".join([identity, *words]), identity, kind, values


def cells_text(table):
    return CELLS_HEAD + "".join('X({}, {}, "{}")\n'.format(identity, family, "".join(value + "\\000" for value in values))
                                for identity, family, _, values in cells(table))


def everything():
    return rows("\n".join(path.read_text() for path in [CATALOGUE, *DAEMONS]))


def page():
    table = everything()
    parts = [HEAD]
    for module, title in MODULES.items():
        parts.append(f"## {title}\n\n| name | kind | labels | what |\n|---|---|---|---|\n" + "".join(
            f"| `{name}` | {kind.lower()} | {labels.replace(',', ', ').replace('|', ' ') or '-'} | {text} |\n"
            for _, of, kind, name, _, _, labels, text in table if of == module))
    return "\n".join(parts)


def mistakes(table):
    """What is wrong with rows beside what the library itself refuses."""
    names = [row[3] for row in table]
    for identity, module, _, name, unit, _, _, text in table:
        if not name.startswith(("cb_", "process_")):
            yield f"{identity}: {name} must begin with cb_"
        if module not in MODULES:
            yield f"{identity}: module {module} has no heading"
        if unit and not name.endswith("_" + unit):
            yield f"{identity}: {name} must end in _{unit}"
        if not text.endswith("."):
            yield f"{identity}: the help is a sentence"
        if names.count(name) > 1:
            yield f"{identity}: {name} is there twice"


def test_rows_are_sound():
    guard.report(list(mistakes(everything())))


def test_page_is_current():
    assert PAGE.read_text() == page(), "docs/metrics.md is not what the catalogue says: python3 tests/guards/test_metrics_page.py --write"


def test_cells_are_current():
    assert CELLS.read_text() == cells_text(rows(CATALOGUE.read_text())), \
        "libcb/telemetry/cells.def is not what the catalogue says: python3 tests/guards/test_metrics_page.py --write"


def test_what_is_read_comes_first():
    """libcb/telemetry/cells.c defines what follows."""
    read = [row[1] in READ for row in rows(CATALOGUE.read_text())]
    assert read == sorted(read, reverse=True), "rows of process, interface, kernel and forward stand before all others"


MACRO = re.compile(r"^#define (\w+)\(([\w, ]+)\)((?:.*\\\n)*.*)$", re.M)


def expanded(text, shared=()):
    """The text, and behind it what its macros that paste names of cells together make of their arguments."""
    made = []
    macros = [found for found in (*shared, *MACRO.findall(text)) if re.search(r"CB_C_\w*##", found[2])]
    for name, parameters, body in macros:
        for arguments in re.findall(rf"\b{name}\(([^()]*)\)", text):
            given = dict(zip((word.strip() for word in parameters.split(",")), (word.strip() for word in arguments.split(","))))
            made.append(re.sub(r"\w+", lambda word: given.get(word[0], word[0]), body).replace("##", ""))
    return "\n".join([text, *made])


def code():
    files = {path: path.read_text() for path in sorted((guard.ROOT / "libcb").rglob("*.[ch]"))}
    shared = MACRO.findall(files[guard.ROOT / "libcb/telemetry/count.h"])
    return "\n".join(expanded(text, shared if path.suffix == ".c" else ()) for path, text in files.items())


def test_every_family_has_a_user():
    """A row, or a label value of one, whose number stands nowhere else in the library counts nothing."""
    table, text = rows(CATALOGUE.read_text()), code()
    families, series = set(re.findall(r"\bCB_F_(\w+)", text)), set(re.findall(r"\bCB_C_(\w+)", text))
    counted = list(cells(table))
    closed = {family for _, family, _, _ in counted}
    guard.report([f"{row[0]}: nothing counts into {row[3]}" for row in table if row[0] not in families | closed]
                 + [f"CB_C_{cell}: nothing counts there" for cell, _, _, _ in counted if cell not in series])


def test_every_family_of_a_daemon_has_a_user():
    for path in DAEMONS:
        used = set(re.findall(r"\b[A-Z]+_F_(\w+)", "\n".join(code.read_text() for code in path.parent.glob("*.c"))))
        guard.report([f"{row[0]}: nothing shows {row[3]}" for row in rows(path.read_text()) if row[0] not in used])


USES = {"add": "COUNTER", "move": "GAUGE", "set": "GAUGE", "observe": "HISTOGRAM"}


def wrong_uses(table, text):
    """A gauge is not added to as a counter, and so on. Only where the number stands in the call."""
    kinds = {cell: kind for cell, _, kind, _ in cells(table)}
    for how, cell in re.findall(r"\bcb_cells_(\w+)\([^;]*?\bCB_C_(\w+)", text):
        if how in USES and kinds.get(cell) != USES[how]:
            yield f"cb_cells_{how}(CB_C_{cell}): that is a {kinds.get(cell, 'series that does not exist')}"


def test_counting_fits_the_kind():
    guard.report(list(wrong_uses(rows(CATALOGUE.read_text()), code())))


def untested(table, text):
    """Families that no test names, as a whole word in quotes or before the labels of a query."""
    named = set(re.findall(r"\b(?:cb|process)_[a-z0-9_]+", text))
    return [f"{name}: no test says how it moves" for _, _, _, name, _, _, _, _ in table
            if not named & {name, name + "_total", name + "_count", name + "_sum", name + "_bucket"}]


def test_every_family_is_moved_by_a_test():
    tests = [path for folder in ("unit", "interop", "support") for path in (guard.ROOT / "tests" / folder).rglob("*.*")
             if path.suffix in (".c", ".h", ".py")]
    guard.report(untested(everything(), "\n".join(path.read_text() for path in sorted(tests))))


def test_guard_sees_a_bad_row():
    bad = rows('X(A, kernel, GAUGE, "b_speed", "bytes", 0, "", "No sentence")\nX(A, nowhere, GAUGE, "b_speed", "", 0, "", "One.")')
    assert len(list(mistakes(bad))) == 7


def test_guard_sees_what_is_not_counted():
    table = rows('X(A, loop, COUNTER, "cb_a", "", 0, "version=4|http/1.1,to=in|out", "A.")\nX(B, loop, GAUGE, "cb_b", "", 0, "", "B.")\n'
                 'X(C, loop, GAUGE, "cb_c", "", 0, "listener", "C.")')
    assert [cell for cell, _, _, _ in cells(table)] == ["A_4_IN", "A_4_OUT", "A_HTTP_1_1_IN", "A_HTTP_1_1_OUT", "B"]
    assert cells_text(table).splitlines()[2:4] == [r'X(A_4_IN, A, "4\000in\000")', r'X(A_4_OUT, A, "4\000out\000")']
    assert len(list(wrong_uses(table, "cb_cells_add(c, CB_C_B, 1); cb_cells_add(c, CB_C_A_4_IN, 1); cb_cells_set(c, CB_C_D, 1);"))) == 2
    macro = "#define AT(way, what) CB_C_A_##what##_##way\nAT(OUT, 4);"
    assert "CB_C_A_4_OUT" in expanded(macro)
    assert len(untested(table, 'moved("cb_a_total", "cb_bb")')) == 2


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(page())
        CELLS.write_text(cells_text(rows(CATALOGUE.read_text())))
        subprocess.run([sys.executable, guard.ROOT / "dashboards/make.py", "--write"], check=True)  # they show units and helps
    else:
        guard.main(globals())
