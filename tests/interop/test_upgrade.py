"""cb-edge is replaced while it serves (SIGUSR2), and loses nothing: twenty times under mixed load, with the kernel's steering and
without; and when the successor is no good, the one before goes on."""

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import BUILD, TOP, free_port, peer, program, run

PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
HERE = TOP / "tests/interop"


@pytest.fixture(scope="session")
def upgrade_load(tmp_path_factory):
    """The load, built against the library that is tested."""
    out = tmp_path_factory.mktemp("load") / "upgrade_load"
    lib = next(iter(sorted(BUILD.glob("**/libcb.so"))), None)
    assert lib, f"no libcb.so in {BUILD}"
    cache = (BUILD / "CMakeCache.txt").read_text() if (BUILD / "CMakeCache.txt").exists() else ""
    sanitize = re.search(r"^CB_SANITIZE:STRING=(.+)$", cache, re.M)
    flags = ["-fsanitize=" + sanitize[1]] if sanitize else []
    subprocess.run(["cc", "-std=c11", "-D_GNU_SOURCE", *flags, f"-I{TOP}/include", str(HERE / "upgrade_load.c"), str(lib),
                    f"-Wl,-rpath,{lib.parent}", "-o", str(out)], check=True)
    return out


class Service:
    """cb-edge under a name that stays, whatever process has it. The program is a link that is turned to another copy."""

    def __init__(self, spawn, folder, pki, wrap=()):
        self.spawn, self.folder, self.pki, self.wrap = spawn, folder, pki, list(wrap)
        self.port, self.tls_port, self.origin_port = free_port(), free_port(), free_port()
        self.file, self.pid_file, self.link = folder / "edge.json", folder / "pid", folder / "cb-edge"
        for name in ("one", "two"):  # two builds: their files differ
            shutil.copy(program("cb-edge"), folder / f"cb-edge-{name}")
        with open(folder / "cb-edge-two", "ab") as f:
            f.write(b"another build")
        self.turn("one")
        spawn(PYTHON, HERE / "edge_origin.py", self.origin_port, name="origin").wait_for("origin on")

    def turn(self, to):
        target = self.folder / f"cb-edge-{to}" if to in ("one", "two") else to
        fresh = self.folder / "link"
        fresh.symlink_to(target)
        fresh.rename(self.link)

    def config(self, **more):
        certificate = {"cert_file": str(self.pki["cert"]), "key_file": str(self.pki["key"])}
        document = {"workers": 2, "drain_timeout_ms": 8000, "pid_file": str(self.pid_file),
                    "listeners": {"tls": {"address": f"127.0.0.1:{self.tls_port}", "tls": {"certificates": [certificate]}},
                                  "plain": {"address": f"127.0.0.1:{self.port}"}},
                    "groups": {"web": {"origins": [{"url": f"http://127.0.0.1:{self.origin_port}"}]}}, "routes": [{"group": "web"}], **more}
        self.file.write_text(json.dumps(document))

    def start(self, **kw):
        kw.setdefault("env", {**os.environ, "LD_LIBRARY_PATH": ":".join([str(BUILD), os.environ.get("LD_LIBRARY_PATH", "")])})
        self.process = self.spawn(*self.wrap, self.link, "--config", self.file, name="cb-edge", **kw).wait_for("ready with")
        return self

    def pid(self):
        return int(self.pid_file.read_text())

    def log(self):
        return self.process.output()

    def wait_log(self, text, before, seconds=20):
        """Waits until text is in the log more often than before; gives the rest of its line."""
        end = time.monotonic() + seconds
        while self.log().count(text) <= before:
            assert time.monotonic() < end, f"no {text!r}:\n{self.log()}"
            time.sleep(0.01)
        return re.findall(re.escape(text) + r"(.*)\n?", self.log())[-1]

    def signal_and_wait(self, text, seconds=20):
        before = self.log().count(text)
        os.kill(self.pid(), signal.SIGUSR2)
        return self.wait_log(text, before, seconds)

    def upgrade(self, seconds=30):
        """Until it has succeeded: a fifth generation is refused, and asked for again."""
        end, old = time.monotonic() + seconds, self.pid()
        while True:
            before = self.log().count("upgrade: ")
            os.kill(old, signal.SIGUSR2)
            while "has taken over" not in (new := "\n".join(self.lines("upgrade: ")[before:])):
                assert time.monotonic() < end, self.log()
                if "4 generations" in new:
                    break
                assert "goes on" not in new, self.log()
                time.sleep(0.01)
            else:
                assert self.pid() != old
                return
            time.sleep(0.2)

    def lines(self, part):
        return [line for line in self.log().splitlines() if part in line]

    def living(self):
        """Processes of this service: their command names the configuration."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if str(self.file).encode() in (folder / "cmdline").read_bytes().split(b"\0") and "State:\tZ" not in (folder / "status").read_text():
                    found.append(int(folder.name))
            except OSError:
                pass
        return found

    def end(self):
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.living():
                os.kill(pid, number)
            end = time.monotonic() + 10
            while self.living() and time.monotonic() < end:
                time.sleep(0.02)

    def get(self, *options, path="/name", scheme="https"):
        port = self.tls_port if scheme == "https" else self.port
        got = run(peer("curl"), "-s", "--max-time", "20", "--cacert", self.pki["ca"], *options, f"{scheme}://localhost:{port}{path}")
        return got.returncode, got.stdout

    def get_h3(self, path="/name"):
        got = run(program("http_client"), "-3", "--ca", self.pki["ca"], f"https://localhost:{self.tls_port}{path}")
        return got.returncode, got.stdout + got.stderr

    def works(self):
        assert self.get() == (0, "origin") and self.get(scheme="http") == (0, "origin") and self.get_h3() == (0, "origin"), self.log()


NO_BPF = ["--bounding-set=-bpf,-sys_admin,-perfmon"]


@pytest.fixture(params=["kernel", "user"])
def steering(request):
    """Packets steered in the kernel, or, without the right to load BPF, handed over in user space."""
    if request.param == "kernel" and os.geteuid() != 0:
        pytest.skip("needs root, to load BPF programs")
    if request.param == "user" and os.geteuid() == 0:
        return [peer("setpriv"), *NO_BPF, "--"]
    return []


@pytest.fixture
def service(spawn, tmp_path, pki):
    made = []

    def make(wrap=(), **config):
        made.append(Service(spawn, tmp_path, pki, wrap))
        made[-1].config(**config)
        return made[-1].start()

    yield make
    for s in made:
        s.end()


class Idle:
    """Kept connections of HTTP/1.1, used before an upgrade and again after it, by a client that never tries twice."""

    def __init__(self, service):
        self.context = ssl.create_default_context(cafile=service.pki["ca"])
        self.service = service
        self.sockets = [self.connect(tls) for tls in (False, True, True)]
        for s in self.sockets:
            assert self.ask(s)[0] == 200

    def connect(self, tls):
        s = socket.create_connection(("127.0.0.1", self.service.tls_port if tls else self.service.port), timeout=20)
        return self.context.wrap_socket(s, server_hostname="localhost") if tls else s

    @staticmethod
    def ask(s):
        s.sendall(b"GET /name HTTP/1.1\r\nHost: localhost\r\n\r\n")
        data = b""
        while not data.endswith(b"origin"):
            more = s.recv(4096)
            assert more, f"closed after {data!r}"
            data += more
        return int(data.split()[1]), b"connection: close" in data.lower()

    def again(self):
        for s in self.sockets:
            status, closes = self.ask(s)
            assert status == 200 and closes, "the old process answers, and asks to come elsewhere the next time"
            assert s.recv(1) == b""
            s.close()


class Downloads(threading.Thread):
    """Long downloads by an independent client, one after the other."""

    def __init__(self, service, command, check):
        super().__init__()
        self.service, self.command, self.check = service, command, check
        self.good, self.bad, self.over = 0, [], False
        self.start()

    def run(self):
        while not self.over:
            got = run(*self.command)
            error = self.check(got)
            if error is None:
                self.good += 1
            else:
                self.bad.append(f"{error}: {got.returncode} {got.stderr[-300:]}")

    def end(self):
        self.over = True
        self.join()
        return self


def independent_downloads(service, size, ms):
    """curl over h2, and ngtcp2's client over h3 where it is installed."""
    expected = bytes(i % 251 for i in range(251)) * (size // 251 + 1)
    expected = expected[:size]
    url = f"https://localhost:{service.tls_port}/drip?{size},{ms}"
    h2, h3 = service.folder / "h2.bytes", service.folder / "h3"
    h3.mkdir()
    running = [Downloads(service, [peer("curl"), "-s", "--http2", "--cacert", service.pki["ca"], "-o", h2, url],
                         lambda got: None if got.returncode == 0 and h2.read_bytes() == expected else "curl, h2")]
    if shutil.which("gtlsclient"):
        name = h3 / f"drip?{size},{ms}"

        def check(got):
            files = list(h3.iterdir())
            good = len(files) == 1 and files[0].read_bytes() == expected
            for f in files:
                f.unlink()
            return None if good and got.returncode == 0 else f"gtlsclient ({name})"

        running.append(Downloads(service, ["gtlsclient", "-q", "--no-quic-dump", "--no-http-dump", "--exit-on-all-streams-close", f"--download={h3}",
                                           "127.0.0.1", str(service.tls_port), url], check))
    return running


def test_twenty_upgrades_under_load(service, steering, upgrade_load):
    """20 upgrades, each to another file under the same name: no request fails."""
    s = service(steering)
    kernel = "BPF" if not steering else ""
    size, ms = 2_000_000, 2500
    load = s.spawn(upgrade_load, s.pki["ca"], f"https://localhost:{s.tls_port}", size, ms, name="load").wait_for("asking")
    downloads = independent_downloads(s, size, ms)
    first = s.pid()
    for i in range(20):
        idle = Idle(s)
        s.turn("two" if i % 2 == 0 else "one")
        s.upgrade()
        assert os.readlink(f"/proc/{s.pid()}/exe").endswith("cb-edge-two" if i % 2 == 0 else "cb-edge-one")
        idle.again()
    assert s.process.popen.wait(20) == 0, "the first one has drained and ended"
    load.send(signal.SIGTERM)
    load.popen.wait(30)
    downloads = [d.end() for d in downloads]
    print(kernel, *[line for line in load.output().splitlines() if line.startswith("total")], *[d.good for d in downloads], sep="\n")
    assert load.popen.returncode == 0, load.output() + s.log()
    assert all(int(n) > 5 for n in re.findall(r"(\d+) good", load.output())), load.output()
    for d in downloads:
        assert d.good >= 3 and not d.bad, d.bad
    assert s.pid() != first and len(s.lines("has taken over")) == 20
    s.works()
