"""docs/protocol-errors.md lists the rows of the error table, docs/interop.md where each case of the interop matrix is proven: neither
can say something else than the tests. `python3 tests/guards/test_interop_pages.py --write` writes the first anew."""
import re
import sys

import guard

ERRORS = guard.ROOT / "docs/protocol-errors.md"
MATRIX = guard.ROOT / "docs/interop.md"
TABLES = (("QUIC and its TLS", "tests/support/violations_quic.c"), ("HTTP/3", "tests/support/violations_h3.c"))
STRING = r'"(?:\\.|[^"\\])*"'
ROW = re.compile(rf'^    \{{({STRING}), ({STRING}), (\w+), ({STRING}), (\w+), (\w+), (\w+), (NULL|{STRING})\}},$')
PART = re.compile(r"^    /\* (.+) \*/$")
WHO = {"SERVER": "server", "CLIENT": "client", "BOTH": "both"}
CASES = ("handshake transfer longrtt chacha20 multiplexing retry resumption zerortt http3 blackhole keyupdate ecn amplificationlimit "
         "handshakeloss transferloss handshakecorruption transfercorruption ipv6 v2 rebind-port rebind-addr connectionmigration "
         "versionnegotiation goodput crosstraffic").split()
HEAD = """# What is answered to a peer that breaks the rules

Each row is a test: a peer that is driven by hand, makes a real handshake and really encrypts, does this to our server, to our client or to both, and gets
this answer. The rows stand in `tests/support/violations_quic.c` and `violations_h3.c` and run as `quic_violations` and `h3_violations`; this page is made from
them by `python3 tests/guards/test_interop_pages.py --write`, and a guard compares it.

*Closed* is CONNECTION_CLOSE with the error, *reset* means that the stream is reset with it and the connection goes on, *ignored* that the connection goes on
as before, *dropped* that the packet counts as if it had never come (RFC 9000, 5.2 allows that for Initial packets, which anybody on the path can forge). A
name in lower case is an alert of TLS: the code is 0x100 and the alert. Where a library below us does otherwise than the RFC says, the row says so.
"""


def text(literal):
    return literal[1:-1].replace('\\r', "CR").replace('\\"', '"')


def row(found):
    what, rfc, who, _, end, code, _, note = found.groups()
    name = code.removeprefix("TLS_")
    answer = {"CLOSE": f"closed: {name}", "RESET": f"reset: {name}", "IGNORE": "ignored", "DROP": "dropped"}[end]
    number, section = text(rfc).split(" ", 1)
    remark = "" if note == "NULL" else f"; {text(note)}"
    return f"| {text(what)} | RFC {number}, {section} | {WHO[who]} | {answer}{remark} |"


def table(source):
    """(lines of the page, rows) of one C file."""
    lines, count, inside = [], 0, False
    for line in source.splitlines():
        inside = inside or line.startswith("const violation ")
        part, found = PART.match(line), ROW.match(line)
        if inside and part:
            lines += ["", f"### {part[1][0].upper()}{part[1][1:]}", "", "| what the peer does | source | to our | answer |", "|---|---|---|---|"]
        elif found:
            count += 1
            lines.append(row(found))
        elif inside and line.startswith("    {"):
            raise AssertionError(f"a row that this guard cannot read: {line.strip()[:80]}")
    return lines, count


def page():
    parts, total = [], 0
    for title, path in TABLES:
        lines, count = table((guard.ROOT / path).read_text())
        total += count
        parts += ["", f"## {title}: {count} rows"] + lines
    return HEAD + "\n".join(parts) + "\n", total


def matrix_problems(matrix):
    """Rows | case | server | client |: each case, each cell with a proof `path#name` that exists, or "no: reason"."""
    problems, seen = [], []
    for line in matrix.splitlines():
        found = re.match(r"\| `([\w-]+)` \| (.*) \| (.*) \|$", line)
        if not found:
            continue
        seen.append(found[1])
        for role, cell in (("server", found[2]), ("client", found[3])):
            proofs = re.findall(r"`([^`#]+)#([^`]+)`", cell)
            if not proofs and not cell.startswith("no: "):
                problems.append(f"docs/interop.md: {found[1]}, {role}: neither a proof `path#name` nor \"no: reason\"")
            for path, name in proofs:
                file = guard.ROOT / path
                if not file.is_file() or name not in file.read_text():
                    problems.append(f"docs/interop.md: {found[1]}, {role}: {path} has no {name}")
    if seen != CASES:
        problems.append(f"docs/interop.md: the cases are not {', '.join(CASES)}, in this order, each once")
    return problems


# ---- tests ----

def test_page_of_errors():
    made, total = page()
    assert total >= 40, f"only {total} rows"
    assert ERRORS.is_file() and ERRORS.read_text() == made, f"{ERRORS} is old: run python3 tests/guards/test_interop_pages.py --write"


def test_matrix():
    guard.report(matrix_problems(MATRIX.read_text()))


def test_the_guard_sees_bad_samples():
    good = '    {"a", "9000 1.2", BOTH, "app: 01", CLOSE, PROTOCOL_VIOLATION, NONE, "x"},'
    assert table(f"const violation v[] = {{\n{good}\n")[0] == ["| a | RFC 9000, 1.2 | both | closed: PROTOCOL_VIOLATION; x |"]
    try:
        table("const violation v[] = {\n    {broken},\n")
    except AssertionError:
        pass
    else:
        raise AssertionError("a broken row was passed over")
    rows = [f"| `{case}` | `docs/interop.md#{case}` | no: it cannot |" for case in CASES]
    assert matrix_problems("\n".join(rows)) == []
    assert matrix_problems("\n".join(rows[1:]))
    assert matrix_problems("\n".join(rows).replace("no: it cannot", "yes", 1))
    assert matrix_problems("\n".join(rows).replace("docs/interop.md#retry", "docs/interop.md#no such thing"))


if __name__ == "__main__":
    if "--write" in sys.argv:
        ERRORS.write_text(page()[0])
    guard.main(globals())
