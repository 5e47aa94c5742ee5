"""docs/metrics.md lists the families of libcb/telemetry/catalogue.def; a part of libcb counts into no other. `python3
tests/guards/test_metrics_page.py --write` writes the page anew."""
import re
import sys

import guard

CATALOGUE = guard.ROOT / "libcb/telemetry/catalogue.def"
PAGE = guard.ROOT / "docs/metrics.md"
STRING = r'"((?:\\.|[^"\\])*)"'
ROW = re.compile(rf"^X\((\w+), (\w+), (COUNTER|GAUGE|HISTOGRAM), {STRING}, {STRING}, (\d+), {STRING}, {STRING}\)$")
MODULES = {"process": "The process", "interface": "Network interfaces (L1, L2)", "kernel": "The kernel's network stack (L3, L4)"}
HEAD = """# Metrics

The families that libcb and its daemons have. A counter is shown with `_total` behind its name; a histogram has `_bucket`, `_sum` and `_count`, or is a native one. This page
is made from `libcb/telemetry/catalogue.def` by `python3 tests/guards/test_metrics_page.py --write`, and a guard compares it. How to count things of your own is in
[the guide](guide/telemetry.md).
"""


def rows(text):
    """(id, module, kind, name, unit, decimals, labels, help) of each row."""
    found = []
    for line in text.splitlines():
        if line.startswith("X("):
            row = ROW.match(line)
            assert row, f"a row that this guard cannot read: {line[:80]}"
            found.append(row.groups())
    return found


def page():
    table = rows(CATALOGUE.read_text())
    parts = [HEAD, f"{len(table)} families.\n"]
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
    guard.report(list(mistakes(rows(CATALOGUE.read_text()))))


def test_page_is_current():
    assert PAGE.read_text() == page(), "docs/metrics.md is not what the catalogue says: python3 tests/guards/test_metrics_page.py --write"


def test_every_family_has_a_user():
    """A row whose number stands nowhere else in the library counts nothing."""
    code = "\n".join(path.read_text() for path in (guard.ROOT / "libcb").rglob("*.c"))
    used = set(re.findall(r"\bCB_F_(\w+)", code))
    guard.report([f"{row[0]}: nothing counts into {row[3]}" for row in rows(CATALOGUE.read_text()) if row[0] not in used])


def test_guard_sees_a_bad_row():
    bad = rows('X(A, kernel, GAUGE, "b_speed", "bytes", 0, "", "No sentence")\nX(A, nowhere, GAUGE, "b_speed", "", 0, "", "One.")')
    assert len(list(mistakes(bad))) == 7


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(page())
    else:
        guard.main(globals())
