"""What the guards share. A guard looks at the tree or at the dev build and returns a list of problems, each a sentence
that says what is wrong and how to mend it. The tests in this folder run under pytest, or directly: python3 test_x.py."""
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(os.environ.get("CB_SOURCE") or Path(__file__).resolve().parents[2])
BUILD = Path(os.environ.get("CB_BUILD") or ROOT / "build/dev")
PUBLIC = sorted((ROOT / "include").rglob("*.h"))
PUBLIC_XDP = [path for path in PUBLIC if path.name in ("xdp.h", "forward.h", "xsk.h")]  # of libcb-xdp, the rest is of libcb


def report(problems):
    """Fails the test with all problems."""
    assert not problems, "\n  " + "\n  ".join(problems)


def output(*command, stdin=None):
    """(exit status, stdout and stderr together) of a command."""
    done = subprocess.run([str(part) for part in command], input=stdin, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout


def tracked(*suffixes):
    """The files of the repository (or, in an unpacked archive, of the tree) with one of the suffixes."""
    status, text = output("git", "-C", ROOT, "ls-files", "-co", "--exclude-standard") if shutil.which("git") else (1, "")
    names = text.splitlines() if status == 0 else [
        str(name) for name in (path.relative_to(ROOT) for path in ROOT.rglob("*")) if name.parts[0] not in ("build", "out")]
    return sorted(ROOT / name for name in names if name.endswith(suffixes) and (ROOT / name).is_file())


def without_comments(text):
    """C text with comments blanked and line numbers kept."""
    return re.sub(r"/\*.*?\*/|//[^\n]*", lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.S)


def sources(names=("sources.txt",)):
    """{path below libcb/: floor} from libcb/sources.txt, or from sources-xdp.txt, which is that of libcb-xdp."""
    table = {}
    for line in "".join((ROOT / "libcb" / name).read_text() for name in names).splitlines():
        if line and not line.startswith("#"):
            path, floor = line.split()
            table[path] = int(floor[1:])
    return table


def objects():
    """{path below libcb/: object file} of the dev build."""
    found = {path: BUILD / "CMakeFiles/cb_objects.dir/libcb" / f"{path}.o" for path in sources()}
    missing = [path for path, built in found.items() if not built.exists()]
    assert not missing, f"not built: {', '.join(missing)}: run `cmake --preset dev && cmake --build --preset dev` first"
    return found


def main(namespace):
    """Runs the tests of a module without pytest."""
    bad = 0
    for name, test in sorted(namespace.items()):
        if not name.startswith("test_"):
            continue
        try:
            test()
            print(f"ok {name}")
        except AssertionError as failure:
            bad += 1
            print(f"FAILED {name}: {failure}")
    sys.exit(1 if bad else 0)
