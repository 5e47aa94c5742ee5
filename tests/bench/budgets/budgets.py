"""Counts the instructions of libcb's hot paths and compares them with the budgets in tests/bench/budgets/budgets.json.

    scripts/budgets [--record] [--build DIR] [NAME...]

callgrind counts (a figure of wall time would say more about the machine), in the `dev` build, and of its counts only those of
libcb's own functions: what libraries cost depends on their version and on the processor, and is shown beside. Each path runs until it is warm and is
then counted; input and order of events are fixed, HTTP/3 runs in virtual time, and packet protection is GnuTLS's.

The counts depend on the compiler, so budgets.json has a column for each one that was recorded. Where the version of the compiler or the
release of Debian (and with it the libraries) is in no column, the last column of that compiler counts, with the wider margin: libraries
call us more or less often. With another compiler or processor than any column has, nothing is compared. --record measures here and
writes the column of this machine; say in the commit why a budget grew.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

TOP = Path(__file__).resolve().parents[3]
FILE = Path(__file__).with_name("budgets.json")
OWN = re.compile(r"(?:^|/)libcb/(?!sim/)[a-z]+/[a-z0-9_]+\.[ch]$")
KEPT = 0.001  # of a path's count: functions below are not in the file
SHOWN = 8


def read_dump(path):
    """(name, times, {function: instructions}, instructions of everything) of one dump of callgrind."""
    name, times, counts, everything = None, 0, Counter(), 0
    file, own, function, inclusive = "", False, "", False
    for line in path.read_text().splitlines():
        if found := re.match(r"desc: Trigger: Client Request: path (\S+) (\d+)", line):
            name, times = found[1], int(found[2])
        elif line.startswith(("fl=", "fi=", "fe=")):
            file = line[3:]
        elif line.startswith("fn="):
            own = OWN.search(file) is not None
            function = re.sub(r"\.(constprop|isra|part|lto_priv|cold)\b.*", "", line[3:])
        elif line.startswith("calls="):
            inclusive = True  # the next line is what the callee cost
        elif re.match(r"[\d+*-]", line):
            cost = 0 if inclusive else int(line.split()[1])
            everything += cost
            if own and cost:
                counts[function] += cost
            inclusive = False
    return name, times, counts, everything


def measure(build, names):
    """{path: ({function: instructions each time}, instructions with libraries and the driver)}"""
    env = {**os.environ, "CBR_AEAD": "gnutls"}
    with tempfile.TemporaryDirectory(prefix="cb-budgets-") as folder:
        pki = Path(folder) / "ca"
        subprocess.run([build / "cbctl", "ca", "dev", "--dir", pki, "localhost", "server"], check=True, capture_output=True)
        command = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", "--dump-line=no", "--compress-strings=no",
                   "--compress-pos=no", f"--callgrind-out-file={folder}/count", build / "tests/bench/budget_paths",
                   pki / "localhost.pem", pki / "localhost-key.pem", pki / "ca.pem", *names]
        done = subprocess.run([str(part) for part in command], env=env, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"budget_paths failed:\n{done.stdout}{done.stderr}")
        found = {}
        for dump in Path(folder).glob("count.*"):
            name, times, counts, everything = read_dump(dump)
            if name:
                found[name] = {function: round(n / times, 1) for function, n in counts.most_common()}, everything / times
    if not found or (names and set(names) != set(found)):
        raise SystemExit(f"callgrind wrote {sorted(found)}")
    return found


def column_of(build):
    """What the counts depend on: the compiler of the build, and the libraries, which come with the release."""
    text = next(build.glob("CMakeFiles/*/CMakeCCompiler.cmake")).read_text()
    ident = re.search(r'CMAKE_C_COMPILER_ID "(\w+)"', text)[1]
    version = re.search(r'CMAKE_C_COMPILER_VERSION "([\d.]+)"', text)[1]
    release = re.search(r"^VERSION_ID=\"?([\d.]+)", Path("/etc/os-release").read_text(), re.M)
    arch = re.search(r'CMAKE_C_COMPILER_ARCHITECTURE_ID "([\w-]*)"', text)
    machine = os.uname().machine if not arch or not arch[1] else arch[1]
    return f"{ident} {version}, Debian {release[1] if release else '?'}, {machine}"


def nearest(table, column):
    """The last column of this compiler and processor, whatever the versions; None: there is none."""
    def kind(text):
        return text.split()[0], text.split()[-1]
    return next((c for c in reversed(table["columns"]) if kind(c) == kind(column)), None)


def compare(name, budget, counts, everything, margin):
    """What to say of one path: (bad, text)."""
    was, now = budget["total"], sum(counts.values())
    change = now / was - 1
    text = f"{name}: was {was:,.0f}, is {now:,.0f} ({change:+.1%}; with libraries {budget['everything']:,.0f} -> {everything:,.0f})"
    if change <= margin:
        return False, text + ("; record it" if change < -margin else "")
    grown = sorted(((n - budget["functions"].get(f, 0), f, n) for f, n in counts.items()), reverse=True)[:SHOWN]
    lines = [f"    {f}: {budget['functions'].get(f, 0):,.0f} -> {n:,.0f} ({more:+,.0f})" for more, f, n in grown if more > 0]
    return True, "\n".join([text + f", more than {margin:.0%} above the budget; what grew most:", *lines])


def record(column, found):
    table = json.loads(FILE.read_text()) if FILE.exists() else {"margin": 0.02, "margin_elsewhere": 0.3, "columns": {}}
    own = table["columns"].setdefault(column, {})
    for name, (counts, everything) in found.items():
        total = round(sum(counts.values()))
        own[name] = {"total": total, "everything": round(everything),
                     "functions": {f: round(n) for f, n in counts.items() if n >= max(1, KEPT * total)}}
    text = json.dumps(table, indent=1, sort_keys=False)
    text = re.sub(r'"functions": \{([^}]*)\}', lambda m: '"functions": {' + re.sub(r"\s+", " ", m[1]).strip() + "}", text)
    FILE.write_text(text + "\n")


def check(column, found):
    table = json.loads(FILE.read_text())
    budgets, margin = table["columns"].get(column), table["margin"]
    if budgets is None:
        near = nearest(table, column)
        print(f"no column for \"{column}\": compared with \"{near}\", {table['margin_elsewhere']:.0%} allowed")
        budgets, margin = table["columns"][near], table["margin_elsewhere"]
    bad = 0
    for name, (counts, everything) in found.items():
        if name not in budgets:
            wrong, text = True, f"{name}: has no budget: scripts/budgets --record"
        else:
            wrong, text = compare(name, budgets[name], counts, everything, margin)
        print(("FAILED " if wrong else "ok     ") + text)
        bad += wrong
    return bad


def main():
    parser = argparse.ArgumentParser(prog="scripts/budgets", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="write what is counted here into budgets.json")
    parser.add_argument("--build", type=Path, default=TOP / "build/dev")
    parser.add_argument("names", nargs="*", metavar="NAME", help="paths; default: all")
    args = parser.parse_args()
    column = column_of(args.build)
    if not args.record and not nearest(json.loads(FILE.read_text()), column):
        print(f"skipped: no budgets were recorded for anything like \"{column}\"")
        return 0
    found = measure(args.build, args.names)
    if args.record:
        record(column, found)
        print(f"recorded {len(found)} paths for \"{column}\"")
        return 0
    return 1 if check(column, found) else 0


if __name__ == "__main__":
    sys.exit(main())
