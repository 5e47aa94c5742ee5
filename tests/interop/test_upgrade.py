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
        self.spawn, self.folder, self.pki, self.wrap, self.host = spawn, folder, pki, list(wrap), "127.0.0.1"
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
        host = self.host
        document = {"workers": 2, "drain_timeout_ms": 8000, "pid_file": str(self.pid_file),
                    "listeners": {"tls": {"address": f"{host}:{self.tls_port}", "tls": {"certificates": [certificate]}},
                                  "plain": {"address": f"{host}:{self.port}"}},
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

    def wait_log(self, text, before, seconds=30):
        """Waits until text is in the log more often than before; gives the rest of its line."""
        end = time.monotonic() + seconds
        while self.log().count(text) <= before:
            assert time.monotonic() < end, f"no {text!r}:\n{self.log()}"
            time.sleep(0.01)
        return re.findall(re.escape(text) + r"(.*)\n?", self.log())[-1]

    def signal_and_wait(self, text, seconds=30):
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

    def udp_sockets(self):
        """Inodes of the UDP sockets at which the process that serves listens."""
        bound = {row.split()[9] for row in Path("/proc/net/udp").read_text().splitlines()[1:] if row.split()[1].endswith(f":{self.tls_port:04X}")}
        links = []
        for file in Path(f"/proc/{self.pid()}/fd").iterdir():
            try:
                links.append(os.readlink(file))
            except OSError:  # of a connection that has just ended
                pass
        return bound & {link[8:-1] for link in links if link.startswith("socket:[")}

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
            end = time.monotonic() + 30
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

    def make(wrap=(), host="127.0.0.1", **config):
        made.append(Service(spawn, tmp_path, pki, wrap))
        made[-1].host = host
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
        assert data.split()[1] == b"200", data
        return 200, b"connection: close" in data.lower()

    def again(self):
        """The old one answers, and asks to come elsewhere the next time; it says so as soon as it has heard of its end."""
        for s in self.sockets:
            end = time.monotonic() + 30
            while not self.ask(s)[1]:
                assert time.monotonic() < end, "the old process does not drain"
                time.sleep(0.02)
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
            # it calls it an error when the server, done with all that was asked, closes the connection before it does
            ended = got.returncode == 0 or "ERR_DRAINING" in got.stderr
            return None if good and ended else f"gtlsclient ({name}), {'complete' if good else 'cut'}"

        running.append(Downloads(service, ["gtlsclient", "-q", "--no-quic-dump", "--no-http-dump", "--exit-on-all-streams-close", f"--download={h3}",
                                           "127.0.0.1", str(service.tls_port), url], check))
    return running


@pytest.mark.alone
def test_twenty_upgrades_under_load(service, steering, upgrade_load):
    """20 upgrades, each to another file under the same name: no request fails."""
    s = service(steering)
    kernel = not steering and os.geteuid() == 0
    size, ms = 2_000_000, 1500
    load = s.spawn(upgrade_load, s.pki["ca"], f"https://localhost:{s.tls_port}", size, ms, name="load").wait_for("asking")
    downloads = independent_downloads(s, size, ms)
    first, before = s.pid(), s.udp_sockets()
    assert len(before) == 2
    for i in range(20):
        idle = Idle(s)
        s.turn("two" if i % 2 == 0 else "one")
        s.upgrade()
        assert os.readlink(f"/proc/{s.pid()}/exe").endswith("cb-edge-two" if i % 2 == 0 else "cb-edge-one")
        idle.again()
        now = s.udp_sockets()
        assert not now & before if kernel else now == before, "sockets of its own under the kernel's steering, else the same ones"
        before = now
    assert s.process.popen.wait(20) == 0, "the first one has drained and ended"
    load.send(signal.SIGTERM)
    load.popen.wait(30)
    downloads = [d.end() for d in downloads]
    print(*[line for line in load.output().splitlines() if line.startswith("total")], *[d.good for d in downloads], sep="\n")
    assert load.popen.returncode == 0, load.output() + s.log()
    assert all(int(n) > 5 for n in re.findall(r"(\d+) good", load.output())), load.output()
    for d in downloads:
        assert d.good >= 3 and not d.bad, d.bad
    assert s.pid() != first and len(s.lines("has taken over")) == 20
    s.works()


@pytest.mark.alone
def test_listeners_are_opened_anew_under_load(service, steering, upgrade_load):
    """Reloads that open the listeners anew at their addresses, in one process: no request fails either."""
    s = service(steering)
    size, ms = 1_000_000, 1000
    load = s.spawn(upgrade_load, s.pki["ca"], f"https://localhost:{s.tls_port}", size, ms, name="load").wait_for("asking")
    downloads = independent_downloads(s, size, ms)
    end, done, refused = time.monotonic() + 20, 0, 0
    while done < 8:
        idle = Idle(s)
        s.config(server_name=f"edge{done}", congestion_control="reno" if done % 2 else "cubic")
        before = s.log().count("reloaded")
        s.process.send(signal.SIGHUP)
        s.wait_log("reloaded", before)
        if "was not reloaded" in s.lines("reloaded")[-1]:
            assert "4 generations" in s.log() and time.monotonic() < end, s.log()
            refused += 1
            time.sleep(0.1)
            continue
        done += 1
        idle.again()
    load.send(signal.SIGTERM)
    load.popen.wait(30)
    downloads = [d.end() for d in downloads]
    assert load.popen.returncode == 0, load.output() + s.log()
    assert all(int(n) > 1 for n in re.findall(r"(\d+) good", load.output())), load.output()
    for d in downloads:
        assert d.good >= 1 and not d.bad, d.bad
    s.works()


# ---- successors that are no good ----

@pytest.mark.parametrize("what, text", [
    ("broken configuration", "ended with status 1 before it served"),
    ("crash", "was killed by signal 11 before it served"),
    ("another program", "ended with status 0 before it served"),
    ("a program that answers nonsense", "handoff: what came is none"),
    ("dies at the last moment", "ended with status 3 before it served"),
    ("hang", "did not serve within 700 ms and was ended"),
    ("nothing there", "cannot be started: No such file or directory"),
    ("busy port", "ended with status 1 before it served"),
])
def test_a_bad_successor_changes_nothing(service, what, text, tmp_path):
    s = service(upgrade_timeout_ms=700 if what == "hang" else 20000)
    idle = Idle(s)
    pid = s.pid()
    script = tmp_path / "bad"
    answer = f"import os, socket\ns = socket.socket(fileno=int(os.environ['CB_EDGE_UPGRADE']))\ns.sendall(b'x' * 64)\ns.recv(1)\nwhile s.recv(65536): pass"
    last = ("import os, socket\ns = socket.socket(fileno=int(os.environ['CB_EDGE_UPGRADE']))\ns.recv(24)\n"
            "s.sendall(b'CBHANDOF' + bytes([1]) + bytes(15))\ndata = b''\nwhile not data.endswith(b'CBHANDOF' + bytes([1]) + bytes(15)): data += s.recv(1 << 20)\nos._exit(3)")
    script.write_text({"crash": "#!/bin/sh\nkill -SEGV $$\n", "another program": "#!/bin/sh\nexit 0\n", "hang": "#!/bin/sh\nexec sleep 60\n",
                       "a program that answers nonsense": f"#!{PYTHON}\n{answer}\n",
                       "dies at the last moment": f"#!{PYTHON}\n{last}\n"}.get(what, ""))
    script.chmod(0o755)
    taken = socket.socket()
    if what == "broken configuration":
        s.file.write_text('{"listeners": 1}')
    elif what == "busy port":
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        s.config(listeners={"tls": {"address": f"127.0.0.1:{s.tls_port}", "tls": {"certificates": [
            {"cert_file": str(s.pki["cert"]), "key_file": str(s.pki["key"])}]}}, "more": {"address": f"127.0.0.1:{taken.getsockname()[1]}"}})
    elif what == "nothing there":
        s.link.unlink()
    else:
        s.turn(script)
    s.signal_and_wait("this process goes on")
    assert text in s.lines("this process goes on")[-1], s.log()
    assert s.pid() == pid and s.living() == [pid]
    for sock in idle.sockets:
        assert idle.ask(sock) == (200, False)
    for _ in range(10):
        s.works()
    taken.close()
    s.config()
    s.turn("two")
    s.upgrade()  # and now a good one
    idle.again()
    s.works()
    assert s.process.popen.wait(30) == 0


def test_one_upgrade_at_a_time(service, tmp_path):
    s = service(upgrade_timeout_ms=20000)
    script = tmp_path / "slow"
    script.write_text("#!/bin/sh\nsleep 1\nexec " + str(tmp_path / "cb-edge-two") + ' "$@"\n')
    script.chmod(0o755)
    s.turn(script)
    old = s.pid()
    os.kill(old, signal.SIGUSR2)
    s.wait_log("upgrade: starting", 0)
    s.signal_and_wait("upgrade: refused: one is under way")
    s.process.send(signal.SIGHUP)
    s.wait_log("was not reloaded: an upgrade is under way", 0)
    s.works()
    s.wait_log("has taken over", 0)
    assert s.pid() != old
    s.works()


def test_sigterm_during_an_upgrade(service, tmp_path):
    """Whoever ends the service ends the successor too that is not ready yet."""
    s = service(upgrade_timeout_ms=20000)
    script = tmp_path / "slow"
    script.write_text("#!/bin/sh\nsleep 1\nexec " + str(tmp_path / "cb-edge-two") + ' "$@"\n')
    script.chmod(0o755)
    s.turn(script)
    s.signal_and_wait("upgrade: starting")
    assert s.process.stop() == 0
    end = time.monotonic() + 30
    while s.living():
        assert time.monotonic() < end, s.log()
        time.sleep(0.05)


def test_sigterm_while_workers_still_give_what_they_have(service):
    """Both signals at once: no worker has got to it when the process is told to end."""
    s = service()
    for _ in range(10):
        s.process.send(signal.SIGUSR2)
        s.process.send(signal.SIGTERM)
        assert s.process.popen.wait(20) == 0, s.log()
        end = time.monotonic() + 30
        while s.living():
            assert time.monotonic() < end, s.log()
            time.sleep(0.05)
        s.start()


def test_a_fifth_generation_is_refused(service):
    s = service(drain_timeout_ms=3000)
    long = []
    for i in range(4):
        long.append(subprocess.Popen([peer("curl"), "-s", "--max-time", "20", "-o", os.devnull, f"http://127.0.0.1:{s.port}/drip?100000,2500"]))
        time.sleep(0.15)
        if i < 3:
            s.upgrade()
    s.signal_and_wait("upgrade: refused: 4 generations of this process live already")
    s.works()
    assert [p.wait(20) for p in long] == [0] * 4
    s.upgrade()
    s.works()


@pytest.mark.parametrize("host", ["127.0.0.1", ""], ids=["v4", "both families"])
def test_what_a_reload_cannot_change(service, host):
    """Workers, via and more: a reload says what to do, an upgrade does it."""
    s = service(host=host)
    for workers in (4, 1, 3):
        s.config(workers=workers, via=f"edge{workers}")
        before = s.log().count("was not reloaded")
        os.kill(s.pid(), signal.SIGHUP)
        s.wait_log("was not reloaded", before)
        assert "/workers: it changed, and that needs an upgrade (SIGUSR2)" in s.log()
        s.upgrade()
        assert f"ready with {workers} worker" in s.lines("ready with")[-1]
        assert f"via: 1.1 edge{workers}" in s.get("--http1.1", path="/head", scheme="http")[1].lower()
        for _ in range(12):
            s.works()


def test_tickets_survive(service, tmp_path):
    """Sessions of before are resumed by the new process, without files."""
    s = service()
    kept = tmp_path / "session"

    def connect(*how):
        got = run(peer("openssl"), "s_client", "-connect", f"127.0.0.1:{s.tls_port}", "-servername", "localhost", "-CAfile", s.pki["ca"], "-tls1_3", *how,
                  input="GET /name HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", stdin=None)
        return got.stdout + got.stderr

    assert "New, TLSv1.3" in connect("-ign_eof", "-sess_out", kept)
    s.upgrade()
    assert "Reused, TLSv1.3" in connect("-ign_eof", "-sess_in", kept)


@pytest.mark.parametrize("keep", [True, False])
def test_privileges(spawn, pki, tmp_path, nobody, keep):
    """Started as root, run by another user, on a port below 1024: sockets pass, with the right to open such ports and without."""
    (user, owned), lib = nobody, tmp_path / "lib"
    lib.mkdir()
    for file in BUILD.glob("libcb*.so*"):
        shutil.copy(file, lib)
    mine = {**pki, "key": owned / "key.pem", "cert": owned / "cert.pem"}
    for name in ("key", "cert"):
        shutil.copy(pki[name], mine[name])
    for path in (owned, *owned.iterdir()):
        os.chown(path, user.pw_uid, user.pw_gid)
    s = Service(spawn, tmp_path, mine)
    s.tls_port = next(port for port in range(700, 1000) if free(port))
    s.pid_file = owned / "pid"
    s.config(user="nobody", keep_bind_capability=keep, drain_timeout_ms=3000)
    s.file.chmod(0o644)
    try:
        s.start(env={**os.environ, "LD_LIBRARY_PATH": str(lib)})
        for i in range(3):
            idle = Idle(s)
            s.turn("two" if i % 2 == 0 else "one")
            s.upgrade()
            status = Path(f"/proc/{s.pid()}/status").read_text()
            assert re.search(rf"^Uid:\t{user.pw_uid}\t{user.pw_uid}\t", status, re.M) and re.search(r"^NoNewPrivs:\t1", status, re.M)
            assert int(re.search(r"^CapEff:\t(\S+)", status, re.M)[1], 16) == (1 << 10 if keep else 0)
            idle.again()
            for _ in range(8):
                s.works()
    finally:
        s.end()


def free(port):
    with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        try:
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def test_systemd_learns_the_main_process(service, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(10)
        os.environ["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        try:
            s = service()
        finally:
            del os.environ["NOTIFY_SOCKET"]
        assert b"READY=1" in notify.recv(4096)
        old = s.pid()
        s.upgrade()
        message = notify.recv(4096)
        assert b"RELOADING=1" in message and b"MONOTONIC_USEC=" in message
        message = notify.recv(4096)
        assert b"MAINPID=%d\n" % s.pid() in message and b"READY=1" in message
        assert s.process.popen.wait(30) == 0
        os.kill(s.pid(), signal.SIGTERM)
        assert b"STOPPING=1" in notify.recv(4096), "not from the one that drained for its successor"
        assert old != s.pid()


def test_the_variable_is_not_for_people(service, tmp_path):
    s = service()
    for value in ("x", "3", "0", "-1", "99999"):
        got = run(s.link, "--config", s.file, env={**os.environ, "CB_EDGE_UPGRADE": value, "LD_LIBRARY_PATH": str(BUILD)})
        assert got.returncode == 1 and "names no socket" in got.stderr, got.stderr
    a, b = socket.socketpair()
    os.set_inheritable(b.fileno(), True)
    a.sendall(b"G" * 200)
    got = run(s.link, "--config", s.file, env={**os.environ, "CB_EDGE_UPGRADE": str(b.fileno()), "LD_LIBRARY_PATH": str(BUILD)}, pass_fds=[b.fileno()])
    assert got.returncode == 1 and "nothing to take over: handoff: what came is none" in got.stderr, got.stderr
    s.works()
