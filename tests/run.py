"""Runs the stages of the test suite and adds up their results. Called by scripts/test.

Logs go to build/log/. The last line is `N passed, N failed, N skipped`; the exit status is 0 only when nothing failed.
"""
import argparse
import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
LOG = BUILD / "log"
STAGED = BUILD / "stage"
PYTHON = "/usr/bin/python3"
TAIL = 40
CPUS = len(os.sched_getaffinity(0))


class Results:
    def __init__(self):
        self.passed = 0
        self.failed = []   # (name, what to look at)
        self.skipped = []  # (name, reason)

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def line(self):
        return f"{self.passed} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"


def one(name, ok, log):
    """The result of a step that is one test."""
    results = Results()
    if ok:
        results.passed = 1
    else:
        results.failed.append((name, tail(log)))
    return results


def tail(log):
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join([f"{log.relative_to(ROOT)}:"] + ["  " + line for line in lines[-TAIL:]])


def run(command, log, env=None, cwd=ROOT, timeout=900):
    """Runs a command in a process group of its own, its output in a file. Returns the exit status; 124 = too slow."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as out:
        child = subprocess.Popen([str(part) for part in command], stdout=out, stderr=subprocess.STDOUT, cwd=cwd,
                                 stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})}, start_new_session=True)
        try:
            return child.wait(timeout)
        except subprocess.TimeoutExpired:
            out.write(f"\nno end after {timeout} s: stopped\n".encode())
            return 124
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


built = {}


def build(preset):
    """Configures and builds a preset once. Returns whether it worked."""
    if preset not in built:
        log = LOG / f"build-{preset}.log"
        extra = ["-DCMAKE_C_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []
        ok = run(["cmake", "--preset", preset, *extra], LOG / f"configure-{preset}.log", timeout=300) == 0
        if not ok:
            log = LOG / f"configure-{preset}.log"
        ok = ok and run(["cmake", "--build", "--preset", preset], log, timeout=1800) == 0
        built[preset] = one(f"build {preset}", ok, log)
    return not built[preset].failed


def install():
    """Installs the dev build into build/stage once."""
    if "install" not in built:
        shutil.rmtree(STAGED, ignore_errors=True)
        log = LOG / "install.log"
        ok = build("dev") and run(["cmake", "--install", BUILD / "dev", "--prefix", STAGED], log) == 0
        built["install"] = one("install", ok, log)
    return not built["install"].failed


def staged_env():
    lib = next((path.parent for path in STAGED.glob("**/libcb.so")), STAGED / "lib")
    folders = [lib / "pkgconfig", ROOT / "out/peers/lib/pkgconfig", os.environ.get("PKG_CONFIG_PATH")]
    return {
        "CB_SOURCE": str(ROOT),
        "CB_BUILD": str(BUILD / "dev"),
        "CB_PREFIX": str(STAGED),
        "LD_LIBRARY_PATH": str(lib),
        "PKG_CONFIG_PATH": ":".join(str(folder) for folder in folders if folder),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def pytest(name, paths, env=None, timeout=900):
    """Runs pytest over paths and reads its JUnit file."""
    report, log = LOG / f"{name}.xml", LOG / f"{name}.log"
    report.unlink(missing_ok=True)
    status = run([PYTHON, "-m", "pytest", "-q", "-ra", "--tb=short", "-p", "no:cacheprovider", f"--junitxml={report}",
                  "-o", "faulthandler_timeout=240", "--durations=10", *paths], log, env={**staged_env(), **(env or {})},
                 timeout=timeout)
    results = Results()
    if status == 5:  # nothing collected
        return one(name, False, log)
    if not report.exists():
        return one(name, False, log)
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        title = f"{case.get('classname')}::{case.get('name')}"
        bad = case.find("failure") if case.find("failure") is not None else case.find("error")
        if bad is not None:
            results.failed.append((title, (bad.text or bad.get("message") or "")[-4000:]))
        elif case.find("skipped") is not None:
            results.skipped.append((title, case.find("skipped").get("message")))
        else:
            results.passed += 1
    if status not in (0, 1):
        results.failed.append((name, tail(log)))
    return results


def stage_guards():
    build("dev")
    return pytest("guards", ["tests/guards"], env={"LD_LIBRARY_PATH": str(BUILD / "dev")})  # nothing is installed yet


@contextlib.contextmanager
def scratch():
    """A folder for what tests make (support/scratch.h): of a process that crashed or hung something is left there, and goes with it."""
    with tempfile.TemporaryDirectory(prefix="cb", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o711)  # some tests' children are other users
        yield {"TMPDIR": folder}


def stage_unit():
    if not build("dev"):
        return Results()
    program, report, log = BUILD / "dev/unit_tests", LOG / "unit.tap", LOG / "unit.log"
    report.unlink(missing_ok=True)
    with scratch() as env:
        status = run([program, f"--output=tap:{report}", "--timeout", "120"], log, env=env)
    results = Results()
    for line in report.read_text().splitlines() if report.exists() else []:
        found = re.match(r"(ok|not ok) - (\S+)(.*)", line)
        if found is None:
            continue
        if "# SKIP" in found[3]:
            results.skipped.append((found[2], found[3].split("# SKIP")[1].strip() or "no reason was given"))
        elif found[1] == "ok":
            results.passed += 1
        else:
            results.failed.append((found[2], tail(log)))
    if (status != 0 and not results.failed) or not results.passed:
        results.failed.append(("unit_tests", tail(log)))
    return results


SANITIZER_ENV = {
    "asan": {"ASAN_OPTIONS": "abort_on_error=1:detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1",
             "UBSAN_OPTIONS": "print_stacktrace=1",
             "LSAN_OPTIONS": f"suppressions={ROOT / 'tests/support/lsan.supp'}:print_suppressions=0"},
    "tsan": {"TSAN_OPTIONS": f"halt_on_error=0:exitcode=66:suppressions={ROOT / 'tests/support/tsan.supp'}"},
}


def in_process(preset):
    """The same test files in one process, under a sanitizer; in parts beside each other, for most tests wait more than they compute."""
    if not build(preset):
        return Results()
    parts = min(CPUS, 4)
    results = Results()
    with ThreadPoolExecutor(parts) as pool:
        for part in pool.map(lambda k: one_part(preset, k, parts), range(1, parts + 1)):
            results.add(part)
    return results


def one_part(preset, number, parts):
    log = LOG / f"{preset}-{number}.log"
    with scratch() as env:
        status = run([BUILD / preset / "unit_inproc", "--part", f"{number}/{parts}"], log, env={**SANITIZER_ENV[preset], **env})
    text = log.read_text(errors="replace")
    results = Results()
    totals = re.search(r"^(\d+) passed, \d+ failed, \d+ skipped$", text, re.M)
    results.passed = int(totals[1]) if totals else 0
    for word, name, reason in re.findall(r"^(FAILED|skipped) +(\S+) \([\d.]+ ms\)(?:: (.*))?$", text, re.M):
        if word == "FAILED":
            results.failed.append((f"{preset}: {name}", tail(log)))
        else:
            results.skipped.append((f"{preset}: {name}", reason or "no reason was given"))
    if (status != 0 and not results.failed) or not results.passed:
        results.failed.append((f"{preset}: unit_inproc (exit status {status})", tail(log)))
    return results


def stage_asan():
    return in_process("asan")


def stage_tsan():
    return in_process("tsan")


def stage_budgets():
    """Instructions of the hot paths, counted by callgrind."""
    results = Results()
    if not shutil.which("valgrind"):
        results.skipped.append(("budgets", "valgrind is not installed (scripts/setup test installs it)"))
        return results
    log = LOG / "build-budgets.log"
    ok = build("dev") and run(["cmake", "--build", "--preset", "dev", "--target", "budget_paths"], log, timeout=600) == 0
    built["budget_paths"] = one("build budget_paths", ok, log)
    if not ok:
        return results
    log = LOG / "budgets.log"
    status = run([PYTHON, "tests/bench/budgets/budgets.py"], log, timeout=300)
    for word, name, detail in re.findall(r"^(ok|FAILED) +([\w-]+): (.*(?:\n    .*)*)", log.read_text(), re.M):
        if word == "ok":
            results.passed += 1
        else:
            results.failed.append((f"budgets: {name}", detail))
    if status == 0 and (found := re.match(r"skipped: (.*)", log.read_text())):
        results.skipped.append(("budgets", found[1]))
    elif (status != 0 and not results.failed) or not results.passed:
        results.failed.append(("budgets", tail(log)))
    return results


def stage_fuzz():
    results = Results()
    if not build("asan"):
        return results
    targets = sorted((ROOT / "tests/fuzz").glob("fuzz_*.c"))
    for target in targets:
        log = LOG / f"{target.stem}.log"
        corpus = ROOT / "tests/fuzz/corpus" / target.stem.removeprefix("fuzz_")
        status = run([BUILD / "asan" / target.stem, corpus], log, env=SANITIZER_ENV["asan"], timeout=300)
        results.add(one(f"replay {target.stem}", status == 0, log))
    return results


def stage_install():
    """Builds every example as a stranger would: with pkg-config, and with CMake's find_package."""
    results = Results()
    if not install():
        return results
    examples = sorted((ROOT / "examples").glob("*.c"))
    env, out = staged_env(), BUILD / "stage-examples"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for example in examples:
        log = LOG / f"example-{example.stem}.log"
        package = "libcb-xdp" if example.stem.startswith("xdp_") else "libcb"
        command = f'cc -Wall -Wextra -Werror "{example}" -o "{out / example.stem}" $(pkg-config --cflags --libs {package})'
        results.add(one(f"pkg-config: {example.name}", run(["sh", "-c", command], log, env=env) == 0, log))
    log, program = LOG / "cplusplus.log", out / "server_client"
    command = f'g++ -std=c++17 -Wall -Wextra -Wpedantic -Werror tests/install/server_client.cpp -o "{program}" ' \
              f'$(pkg-config --cflags --libs libcb) && "{program}"'
    results.add(one("C++: a server and a client on one loop", run(["sh", "-c", command], log, env=env, timeout=60) == 0, log))
    log = LOG / "find-package.log"
    command = f'cmake -G Ninja -S tests/install -B "{out}/cmake" -DCMAKE_PREFIX_PATH="{STAGED}" && cmake --build "{out}/cmake"'
    results.add(one("find_package(libcb)", run(["sh", "-c", command], log) == 0, log))
    return results


def stage_interop():
    if not install():
        return Results()
    log = LOG / "build-load.log"
    ok = run(["cmake", "--build", "--preset", "dev", "--target", "bench_programs"], log, timeout=600) == 0
    built["bench_programs"] = one("build bench_programs", ok, log)
    return interop_tests()


def interop_tests():
    """Most tests wait more than they compute: some workers take file after file. Then come those that must have the machine to themselves."""
    if importlib.util.find_spec("xdist") is None:
        return pytest("interop", ["tests/interop"], timeout=1800)
    workers = min(CPUS + 1, 6)
    results = pytest("interop", ["-m", "not alone", "-n", workers, "--dist", "loadfile", "tests/interop"], timeout=1200)
    results.add(pytest("interop-alone", ["-m", "alone", "tests/interop"], timeout=1200))
    return results


def stage_python():
    """Builds the binding from the installed headers, beside the tree, and tests it."""
    folder, out, log = ROOT / "bindings/python", BUILD / "python", LOG / "build-python.log"
    if not install() or not folder.exists():
        return Results()
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(folder, out / "src")
    ok = run([PYTHON, "setup.py", "-q", "build", "--build-lib", out / "lib"], log, env=staged_env(), cwd=out / "src") == 0
    built["python"] = one("build the Python binding", ok, log)
    return pytest("python", [folder / "tests"], env={"PYTHONPATH": str(out / "lib")}) if ok else Results()


STAGES = {
    "guards": (stage_guards, "floors, purity, headers, symbols, formats, documents"),
    "unit": (stage_unit, "unit tests, a process each (Criterion)"),
    "asan": (stage_asan, "the same in one process with address, leak and undefined-behaviour sanitizers"),
    "tsan": (stage_tsan, "the same with the thread sanitizer"),
    "budgets": (stage_budgets, "instructions of the hot paths, counted by callgrind, beside their budgets"),
    "fuzz": (stage_fuzz, "the fuzz corpora, replayed under the address sanitizer"),
    "install": (stage_install, "examples built against the installed tree"),
    "interop": (stage_interop, "whole programs and independent peers"),
    "python": (stage_python, "the Python binding"),
}


# Stages that run beside each other when they are asked for together, and what each has built. Their tests wait for clocks and each other.
BESIDE = {"unit": "dev", "asan": "asan", "tsan": "tsan"}


def timed(name):
    begin = time.monotonic()
    results = STAGES[name][0]()
    print(f"{name:8} {results.line()} ({time.monotonic() - begin:.0f} s)", flush=True)
    return results


def main():
    parser = argparse.ArgumentParser(prog="scripts/test", formatter_class=argparse.RawDescriptionHelpFormatter,
                                     description="Builds libcb and runs its tests.",
                                     epilog="stages:\n" + "\n".join(f"  {k:8} {v[1]}" for k, v in STAGES.items()))
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="default: all")
    chosen = parser.parse_args().stages
    if unknown := [name for name in chosen if name not in STAGES]:
        parser.error(f"no such stage: {', '.join(unknown)}")

    total, start, left = Results(), time.monotonic(), list(chosen or STAGES)
    while left:
        names = [name for name in left if name in BESIDE] if left[0] in BESIDE else left[:1]
        left = [name for name in left if name not in names]
        before = set(built)
        for name in names:
            print(f"{name:8} {STAGES[name][1]} ...", flush=True)
        if len(names) > 1:
            for preset in [BESIDE[name] for name in names]:
                build(preset)
        with ThreadPoolExecutor(len(names)) as pool:
            for results in pool.map(timed, names):
                total.add(results)
        for step in set(built) - before:  # a build that works is no test that passed
            total.failed += built[step].failed

    for name, reason in total.skipped:
        print(f"skipped: {name}: {reason}")
    for name, detail in total.failed:
        print(f"\nFAILED: {name}\n{detail}")
    print(f"\nlogs: build/log/; {time.monotonic() - start:.0f} s")
    print(total.line())
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
