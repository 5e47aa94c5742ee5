"""What the interop tests share: where the programs are, a private PKI, processes that are ended by pid, free ports, an origin.

Programs come from the build tree named by CB_BUILD (default: build/ at the top). A peer that is not installed makes a skip that
names it, never a pass.
"""

import fcntl
import itertools
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("CB_BUILD", TOP / "build")).resolve()


def program(name):
    """The path of one of our own programs; it must have been built."""
    for folder in ("bin", "examples", f"daemons/{name.removeprefix('cb-')}", "daemons", "tests", "tests/bench", "."):
        path = BUILD / folder / name
        if path.is_file() and os.access(path, os.X_OK):
            return str(path)
    pytest.fail(f"{name} is not in {BUILD}: build first")


def peer(name):
    """The path of an independent program, or a skip that names it."""
    path = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def compile_c(source, folder, *more):
    """Compiles a C file of these tests against libcb of the build, and more of its libraries by name; returns the program."""
    source, lib = Path(source), next(iter(sorted(BUILD.glob("**/libcb.so"))), None)
    assert lib, f"no libcb.so in {BUILD}"
    libs = [str(lib.parent / name) for name in more] + [str(lib)]
    cache = (BUILD / "CMakeCache.txt").read_text() if (BUILD / "CMakeCache.txt").exists() else ""
    sanitize = re.search(r"^CB_SANITIZE:STRING=(.+)$", cache, re.M)
    flags = ["-fsanitize=" + sanitize[1]] if sanitize else []
    out = Path(folder) / source.stem
    subprocess.run(["cc", "-std=c11", "-D_GNU_SOURCE", *flags, f"-I{TOP}/include", str(source), *libs, f"-Wl,-rpath,{lib.parent}", "-o", str(out)],
                   check=True)
    return out


class Process:
    """A program that runs beside the test; its output is in .log."""

    def __init__(self, command, log, **kw):
        self.command, self.log = [str(c) for c in command], Path(log)
        self._out = open(log, "ab")
        self.popen = subprocess.Popen(self.command, stdout=self._out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, **kw)
        self.pid = self.popen.pid

    def output(self):
        return self.log.read_text(errors="replace")

    def wait_for(self, text, seconds=30):
        """Waits until the output contains text."""
        end = time.monotonic() + seconds
        while text not in self.output():
            if self.popen.poll() is not None:
                raise AssertionError(f"{self.command[0]} ended with {self.popen.returncode} before it said {text!r}:\n{self.output()}")
            if time.monotonic() > end:
                raise AssertionError(f"{self.command[0]} did not say {text!r} in {seconds} s:\n{self.output()}")
            time.sleep(0.01)
        return self

    def send(self, number):
        self.popen.send_signal(number)

    def stop(self, number=signal.SIGTERM, seconds=30):
        """Ends it and returns its exit code; -9 means that it had to be killed."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
            try:
                self.popen.wait(seconds)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        self._out.close()
        return self.popen.returncode

    def alive(self):
        return self.popen.poll() is None

    def story(self):
        """What became of it, and the end of what it said: for the report of a test that failed."""
        code = self.popen.poll()
        lines = self.output().splitlines()
        return "\n".join(["runs" if code is None else f"ended by signal {-code}" if code < 0 else f"ended with {code}", *lines[-15:]])[-3000:]


def pytest_configure(config):
    config.addinivalue_line("markers", "alone: judges times or memory, or loads the machine: tests/run.py runs nothing beside it")
    config.addinivalue_line("markers", "beside: may run beside others, though its file has tests with networks of their own")


def pytest_collection_modifyitems(items):
    """Whole networks load the machine, and their tests judge by what arrives when."""
    for item in items:
        if vars(item.module).keys() & {"world", "netlab"} and not item.get_closest_marker("beside"):
            item.add_marker("alone")


STARTED = pytest.StashKey()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure tells about the programs beside the test, as they were then."""
    report = (yield).get_result()
    if report.failed and call.when in ("setup", "call") and hasattr(report.longrepr, "addsection"):
        for process in item.stash.get(STARTED, []):
            report.longrepr.addsection(f"{process.log.name}: {process.command[0]}", process.story())


@pytest.fixture
def spawn(request, tmp_path):
    """spawn(command..., name=) starts a Process; all are ended after the test, sanitizer reports fail it."""
    started = request.node.stash[STARTED] = []

    def start(*command, name=None, **kw):
        name = name or Path(str(command[0])).name
        process = Process(command, tmp_path / f"{name}-{len(started)}.log", **kw)
        started.append(process)
        return process

    yield start
    for process in reversed(started):
        process.stop()
    for process in started:
        for mark in ("AddressSanitizer", "LeakSanitizer", "runtime error:", "ThreadSanitizer"):
            assert mark not in process.output(), process.output()


def ports():
    """Below the range of ports that the kernel gives to clients, so that no connection under way takes one between the look and its use; never the
    same twice, for a test asks for several before it binds any; and none of those of other workers of this run."""
    worker, workers = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    mine = range(11_000 + worker, 32_000, workers)
    return iter(random.sample(mine, len(mine)))


PORTS = ports()


def free_port(family=socket.AF_INET, host="127.0.0.1"):
    """A port that is free for TCP and UDP right now."""
    for port in itertools.islice(PORTS, 50):
        with socket.socket(family, socket.SOCK_STREAM) as tcp, socket.socket(family, socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind((host, port))
                udp.bind((host, port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free for both TCP and UDP")


# A test waits for what is slow on a machine that is busy with something else; what is never there fails it some seconds later.
PATIENCE = 30


def wait_tcp(port, host="127.0.0.1", seconds=PATIENCE):
    """Waits until something listens there. It says nothing about the other ports of a program: cb-edge is there when it says "ready with"."""
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def wait_udp(port, seconds=PATIENCE):
    """Waits until some socket of this host has the port."""
    end = time.monotonic() + seconds
    while not any(line.split()[1].endswith(f":{port:04X}") for table in ("udp", "udp6") for line in table_of(table)):
        assert time.monotonic() < end, f"nobody has UDP port {port}"
        time.sleep(0.01)


def table_of(name):
    path = Path("/proc/net", name)
    return path.read_text().splitlines()[1:] if path.exists() else []


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    """A development CA made by cbctl, with a certificate for localhost, 127.0.0.1, ::1 and *.test."""
    folder = tmp_path_factory.mktemp("pki")
    subprocess.run([program("cbctl"), "ca", "dev", "--dir", folder, "localhost", "127.0.0.1", "::1", "*.test"], check=True,
                   capture_output=True)
    return {"dir": folder, "ca": folder / "ca.pem", "cert": folder / "localhost.pem", "key": folder / "localhost-key.pem"}


def run(*command, timeout=60, **kw):
    """Runs a program to its end; stdout and stderr as text (use binary=True for bytes)."""
    binary = kw.pop("binary", False)
    return subprocess.run([str(c) for c in command], capture_output=True, text=not binary, timeout=timeout, stdin=kw.pop("stdin", subprocess.DEVNULL),
                          **kw)


def npm_modules(source, name):
    """The node_modules that source/package-lock.json names, kept in out/peers; a skip where there is no Node, or npm cannot fetch them."""
    peer("node")
    npm = peer("npm")
    folder = TOP / "out" / "peers" / name
    lock = (source / "package-lock.json").read_text()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f"{name}.lock", "w") as turn:  # workers of a run, one after the other
        fcntl.flock(turn, fcntl.LOCK_EX)
        return fetch_modules(source, name, npm, folder, lock)


def fetch_modules(source, name, npm, folder, lock):
    if not (folder / "complete").exists() or (folder / "complete").read_text() != lock:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for part in ("package.json", "package-lock.json"):
            shutil.copy(source / part, folder)
        try:
            done = run(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", folder, timeout=300)
        except subprocess.TimeoutExpired:
            pytest.skip(f"npm could not fetch {name} in 300 s")
        if done.returncode:
            pytest.skip(f"npm could not fetch {name}: {done.stderr.strip().splitlines()[-1:]}")
        (folder / "complete").write_text(lock)
    return folder / "node_modules"


def rss_kib(pid, field="Pss"):
    """Memory of a process from smaps_rollup, in KiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise AssertionError(f"no {field} for {pid}")


if __name__ == "__main__":
    sys.exit("run the tests with pytest")


@pytest.fixture
def nobody(tmp_path):
    """(user, folder): the user nobody, for daemons that give root's rights up, and a folder that is theirs."""
    if os.geteuid() != 0:
        pytest.skip("needs root: gives root's rights up")
    user, folder = pwd.getpwnam("nobody"), tmp_path / "nobodys"
    for path in [tmp_path, *tmp_path.parents]:
        if path != path.parent and path.stat().st_uid == 0 and path.stat().st_mode & 0o055 != 0o055:
            path.chmod(path.stat().st_mode | 0o055)
    folder.mkdir()
    os.chown(folder, user.pw_uid, user.pw_gid)
    return user, folder
