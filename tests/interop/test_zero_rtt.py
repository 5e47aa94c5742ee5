"""0-RTT as whoever sits on the path sees it: first flights recorded between client and cb-edge, replayed; round trips by packet times."""

import collections
import heapq
import os
import re
import select
import shutil
import socket
import subprocess
import threading
import time

import pytest
from conftest import free_port, peer, program, run, wait_tcp
from quicpeers import gtlsserver, www  # noqa: F401 (fixtures)
from test_edge import Edge, nginx

REPLAYS = 100


class Origin:
    """Counts what it is asked for."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.seen = []  # (method, path, Early-Data, time)
        self.status = 200
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        data = b""
        with connection:
            while True:
                while b"\r\n\r\n" not in data:
                    try:
                        more = connection.recv(65536)
                    except ConnectionResetError:
                        return
                    if not more:
                        return
                    data += more
                at = time.monotonic()
                head, _, data = data.partition(b"\r\n\r\n")
                lines = head.decode("latin-1").split("\r\n")
                fields = collections.defaultdict(list)
                for line in lines[1:]:
                    name, _, value = line.partition(":")
                    fields[name.lower()].append(value.strip())
                length = int((fields["content-length"] or ["0"])[0])
                while len(data) < length:
                    data += connection.recv(65536)
                data = data[length:]
                method, path, _ = lines[0].split(" ")
                self.seen.append((method, path, fields["early-data"], at))
                connection.sendall(b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nok" % self.status)

    def of(self, path):
        return [entry for entry in self.seen if entry[1] == path]

    def close(self):
        self.socket.close()


class Relay:
    """UDP between one client and a server: it records, delays, and forwards or holds back."""

    def __init__(self, server_port, delay=0.0):
        self.server, self.delay, self.hold = ("127.0.0.1", server_port), delay, False
        self.front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.front.bind(("127.0.0.1", 0))
        self.port = self.front.getsockname()[1]
        self.back, self.client, self.packets, self.queue, self.alive = None, None, [], [], True
        self.thread = threading.Thread(target=self.loop, daemon=True)
        self.thread.start()

    def begin(self, hold=False):
        """A new connection of a client: what was recorded is forgotten."""
        if self.back:
            self.back.close()
        self.packets, self.queue, self.client, self.hold = [], [], None, hold
        self.back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.back.connect(self.server)

    def loop(self):
        while self.alive:
            sockets = [s for s in (self.front, self.back) if s and s.fileno() >= 0]
            wait = min(0.05, max(0.0, self.queue[0][0] - time.monotonic())) if self.queue else 0.05
            try:
                ready = select.select(sockets, [], [], wait)[0]
                for s in ready:
                    data, source = s.recvfrom(65536)
                    at, up = time.monotonic(), s is self.front
                    if up:
                        self.client = source
                    self.packets.append((at, up, data))
                    if not self.hold:
                        heapq.heappush(self.queue, (at + self.delay, len(self.packets), up, data))
                while self.queue and self.queue[0][0] <= time.monotonic():
                    _, _, up, data = heapq.heappop(self.queue)
                    if up:
                        self.back.send(data)
                    elif self.client:
                        self.front.sendto(data, self.client)
            except (OSError, ValueError):
                continue  # a socket was closed meanwhile

    def sent(self):
        return [data for _, up, data in self.packets if up]

    def close(self):
        self.alive = False
        self.thread.join()


@pytest.fixture
def counted():
    origin = Origin()
    yield origin
    origin.close()


@pytest.fixture
def hosts(spawn, tmp_path, pki, counted):
    """hosts(name, ...) starts cb-edge with 0-RTT, four workers, and the ticket keys of the first one."""
    ring = tmp_path / "tickets-of-all"

    def start(name, listeners=1, keys=None, **more):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        # Without the right to steer in the kernel: packets spread over the workers by address, so that each gets replays.
        plain = [peer("setpriv"), "--bounding-set=-sys_admin,-bpf,-net_admin"] if os.geteuid() == 0 else []
        edge = Edge(lambda *command, **kw: spawn(*plain, *command, **kw), folder, pki)
        keys = keys or folder / "tickets"
        if ring.exists() and not keys.exists():
            shutil.copy(ring, keys)
        tls = {"certificates": [{"cert_file": str(pki["cert"]), "key_file": str(pki["key"])}], "early_data": True}
        edge.ports = [edge.tls_port] + [free_port() for _ in range(listeners - 1)]
        edge.keys = keys
        more = {"limits": {"head_timeout_ms": 800}, "log": {"levels": "debug"}, "workers": 4, "drain_timeout_ms": 500, **more}
        edge.start({"web": [f"http://127.0.0.1:{counted.port}"]}, ticket_key_file=str(keys),
                   listeners={f"tls{i}": {"address": f"127.0.0.1:{port}", "tls": tls} for i, port in enumerate(edge.ports)}, **more)
        if not ring.exists():
            shutil.copy(keys, ring)
        return edge

    return start


def ours(relay, pki, sessions, path, early=True, timeout=20):
    return [program("http_client"), "-3", "--ca", pki["ca"], "--connect", f"127.0.0.1:{relay.port}", "--sessions", sessions,
            *(["--early"] if early else []), f"https://localhost:{relay.server[1]}{path}"]


def gtls(relay, folder, path, *options):
    return [peer("gtlsclient"), "--no-quic-dump", "--no-http-dump", "--exit-on-all-streams-close", "--session-file", folder / "session",
            "--tp-file", folder / "tp", *options, "--sni=localhost", "127.0.0.1", relay.port, f"https://localhost:{relay.server[1]}{path}"]


def capture(relay, command):
    """The first flight of a client, which reaches nobody."""
    relay.begin(hold=True)
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 30
        while not relay.sent():
            assert time.monotonic() < end and process.poll() is None, "the client sent nothing"
            time.sleep(0.01)
        time.sleep(0.3)  # before its probe timeout
    finally:
        process.kill()
        process.wait()
    flight = relay.sent()
    assert sum(len(d) for d in flight) >= 1200
    return flight


def replay(flight, port, times=REPLAYS, rounds=4):
    """Sends a flight from so many addresses; returns how many were answered. Between rounds connections die."""
    answered = 0
    for r in range(rounds):
        sockets = []
        for _ in range(times // rounds):
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            s.connect(("127.0.0.1", port))
            for datagram in flight:
                s.send(datagram)
            sockets.append(s)
            time.sleep(0.002)
        time.sleep(1.5 if r + 1 < rounds else 0.5)
        for s in sockets:
            s.setblocking(False)
            try:
                answered += len(s.recv(65536)) > 0
            except (BlockingIOError, ConnectionRefusedError):
                pass
            s.close()
    return answered


def attempts(edge):
    return edge.process.output().count("handshake with")


def test_a_replayed_first_flight(hosts, pki, tmp_path, counted):
    """Recorded once, replayed 100 times: it runs once at the host that it was meant for, and at a second listener and after a restart not at all; at another host with
    the same ticket keys at most once; and nowhere anything but a safe method."""
    here, there = hosts("here", listeners=2), hosts("there")
    relay = Relay(here.tls_port)
    relay.begin()
    assert run(*ours(relay, pki, tmp_path / "sessions", "/first")).returncode == 0
    assert len(counted.of("/first")) == 1

    flight = capture(relay, ours(relay, pki, tmp_path / "sessions", "/once"))
    assert counted.of("/once") == []
    before = attempts(here)
    assert replay(flight, here.tls_port) >= 4
    assert [(m, e) for m, _, e, _ in counted.of("/once")] == [("GET", ["1"])]
    assert attempts(here) - before >= 8, "the replays did not become connections"  # four rounds, four workers
    replay(flight, here.ports[1], times=10, rounds=1)
    assert len(counted.of("/once")) == 1, "again at another listener of the same host"
    assert replay(flight, there.tls_port) >= 4
    assert len(counted.of("/once")) <= 2 and {m for m, *_ in counted.of("/once")} == {"GET"}

    # an honest client goes on meanwhile, early
    relay.begin()
    run(*ours(relay, pki, tmp_path / "sessions", "/again"))  # its saved session was used up by the capture, or is the second ticket
    relay.begin()
    assert run(*ours(relay, pki, tmp_path / "sessions", "/early")).returncode == 0
    assert [e for _, _, e, _ in counted.of("/early")] == [["1"]]

    # an unsafe method, early: no client of ours does that, an independent one does
    (tmp_path / "body").write_bytes(b"100 coins")
    relay.begin()
    run(*gtls(relay, tmp_path, "/ticket", "--wait-for-ticket"))
    flight = capture(relay, gtls(relay, tmp_path, "/pay", "-m", "POST", "-d", tmp_path / "body"))
    for edge in (here, there):
        assert replay(flight, edge.tls_port, times=20, rounds=1) >= 1
        assert edge.last("/pay")["status"] == 425, "no early data came"
        assert {line["status"] for line in edge.lines() if line["path"] == "/pay"} == {425}
    assert counted.of("/pay") == []

    # after a restart nothing is remembered, so nothing from before runs early
    relay.begin()
    assert run(*ours(relay, pki, tmp_path / "sessions", "/before")).returncode == 0
    flight = capture(relay, ours(relay, pki, tmp_path / "sessions", "/restart"))
    assert here.process.stop() == 0
    here.go()
    assert replay(flight, here.tls_port, times=20, rounds=1) >= 1
    assert counted.of("/restart") == []
    relay.begin()
    assert run(*ours(relay, pki, tmp_path / "sessions", "/after")).returncode == 0  # by one round trip more
    assert [e for _, _, e, _ in counted.of("/after")] == [[]]
    relay.close()


def test_too_early_for_the_origin(hosts, pki, tmp_path, counted):
    """A 425 of the origin goes through to the client, which asks again after the handshake, by itself."""
    edge = hosts("edge")
    relay = Relay(edge.tls_port)
    relay.begin()
    assert run(*ours(relay, pki, tmp_path / "sessions", "/first")).returncode == 0
    counted.status = 425
    relay.begin()
    got = run(*ours(relay, pki, tmp_path / "sessions", "/not-yet"))
    assert got.returncode == 22 and got.stdout == "ok"  # the second answer is 425 too, and then it is the answer
    assert [e for _, _, e, _ in counted.of("/not-yet")] == [["1"], []]
    assert {line["status"] for line in edge.lines(3) if line["path"] == "/not-yet"} == {425}
    relay.close()


@pytest.mark.parametrize("fields,status,passed", [
    (["Early-Data: 1"], 200, ["1"]),
    (["Early-Data: 0", "Early-Data: yes"], 200, ["1"]),  # RFC 8470, 5.1: several, or invalid ones, are one with the value 1
    (["Early-Data: 1", "Connection: early-data"], 200, ["1"]),  # nor can Connection take it away
    (["Early-Data: 1", "-X POST"], 425, None),
    (["Early-Data: 1", "-d x"], 425, None),
    ([], 200, []),
])
def test_early_data_of_an_earlier_hop(hosts, counted, fields, status, passed):
    """The field from a client that nobody trusts: it can only make things stricter."""
    edge = hosts("edge")
    options = [o for f in fields for o in (f.split(" ", 1) if f.startswith("-") else ("-H", f))]
    if edge.curl("/", "--http2", scheme="https")[0]:
        pytest.skip("curl speaks no HTTP/2 here")
    for version in ("--http1.1", "--http2"):
        if version == "--http2" and any("Connection" in f or f.startswith("-d") for f in fields):
            continue  # no such field there; and curl 7.88 may lose an answer that comes before its body is sent
        path = f"/hop{version}"
        assert edge.status(path, version, *options, scheme="https") == status
        assert [e for _, _, e, _ in counted.of(path)] == ([] if passed is None else [passed])


@pytest.mark.alone
def test_round_trips(hosts, pki, tmp_path, counted, capsys):
    """How long until the origin has the request, in round trips, by the times of packets: a full handshake and a resumed one take one more than 0-RTT, which takes none."""
    delay = 0.25
    edge = hosts("edge", limits={})
    relay = Relay(edge.tls_port, delay)
    rows = {}
    for path, early, expected in (("/full", False, 1), ("/resumed", False, 1), ("/zero", True, 0)):
        relay.begin()
        assert run(*ours(relay, pki, tmp_path / "sessions", path, early)).returncode == 0
        began = next(at for at, up, _ in relay.packets if up)
        (_, _, marked, asked), = counted.of(path)
        assert marked == (["1"] if early else [])
        rows[path] = ((asked - began) / (2 * delay) - 0.5, expected, sum(len(d) for _, up, d in relay.packets if not up))
    relay.close()
    with capsys.disabled():
        print()
        for path, (waited, expected, down) in rows.items():
            print(f"    {path[1:]:8} {waited:5.2f} round trips before the request arrives ({expected} expected), {down} bytes from the server")
    for path, (waited, expected, down) in rows.items():
        assert abs(waited - expected) < 0.45, rows
    assert rows["/resumed"][2] < rows["/full"][2], "no certificate is sent again"


def test_sessions_of_independent_servers(spawn, pki, tmp_path, gtlsserver):
    """What our client keeps on disk is taken by others: nginx over TCP (h1 and h2), gtlsserver over QUIC, early data and all."""
    port = free_port()
    nginx(spawn, tmp_path, pki, f'server {{ listen 127.0.0.1:{port} ssl http2; ssl_protocols TLSv1.3; ssl_certificate {pki["cert"]}; ssl_certificate_key {pki["key"]};'
                                ' location / { return 200 "$ssl_session_reused"; } }')
    wait_tcp(port)
    client = [program("http_client"), "--ca", pki["ca"], "--sessions", tmp_path / "sessions"]
    for version in ("-1", "-2"):
        told = [run(*client, version, "--connect", f"127.0.0.1:{port}", f"https://localhost:{port}/").stdout for _ in range(3)]
        assert told == [".", "r", "r"], version
    port = gtlsserver(log=True)
    for early in ([], ["--early"]):
        got = run(*client, "-3", *early, "--connect", f"127.0.0.1:{port}", f"https://localhost:{port}/small")
        assert (got.returncode, got.stdout) == (0, "small\n"), got.stderr
    log = gtlsserver.process.output()
    assert re.search(r"frm rx .*0RTT STREAM", log), log[-3000:]
