"""Hostile clients and hostile origins against a real cb-edge: bytes that no proper peer sends."""

import json
import os
import re
import signal
import socket
import time
import urllib.request

import pytest
from conftest import free_port, program, run
from rawpeers import CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, H2, HEADERS, PING, RST, RawOrigin, answers, block, frame, read_head, request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def polite(connection, seen):
    while True:
        read_head(connection, seen)
        connection.sendall(OK)


class Edge:
    def __init__(self, spawn, folder, pki, play, workers, **blocks):
        self.origin = RawOrigin(play)
        self.port, self.tls = free_port(), free_port()
        self.pki, self.log = pki, folder / "access.log"
        self.file = folder / "edge.json"
        self.file.write_text(json.dumps({
            "workers": workers,
            "listeners": {"plain": {"address": f"127.0.0.1:{self.port}"},
                          "tls": {"address": f"127.0.0.1:{self.tls}",
                                  "tls": {"certificates": [{"cert_file": str(pki["cert"]), "key_file": str(pki["key"])}]}}},
            "groups": {"web": {"origins": [{"url": f"http://127.0.0.1:{self.origin.port}"}]}},
            "routes": [{"path": "/", "group": "web"}], "access_log": {"path": str(self.log)}, "drain_timeout_ms": 2000, **blocks}))
        self.process = spawn(program("cb-edge"), "--config", self.file, name="cb-edge").wait_for("ready with")

    def raw(self, data, seconds=0.5):
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as s:
            s.sendall(data)
            s.settimeout(seconds)
            out = b""
            try:
                while more := s.recv(65536):
                    out += more
            except (TimeoutError, ConnectionError):
                pass
            return out

    def h2(self):
        return H2(self.tls, self.pki["ca"])

    def reason(self):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            lines = [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []
            if lines:
                return lines[-1].get("reason")
            time.sleep(0.02)
        return None


@pytest.fixture
def attacked(spawn, tmp_path, pki):
    made = []

    def start(play=polite, workers=1, **blocks):
        made.append(Edge(spawn, tmp_path, pki, play, workers, **blocks))
        return made[-1]

    yield start
    for one in made:
        one.origin.close()


def test_h2_heads_that_would_become_others_on_h1(attacked):
    edge = attacked()
    bad = [request("/a" + c + "b") for c in "\r\n \t\0#\x7f\x80"]
    bad += [request(more=[("x-a", "1" + c + "x-b: 2")]) for c in ("\r\n", "\n", "\r", "\0", "\x7f")]
    bad += [request(more=[("x" + c + "a", "1")]) for c in ("\r\n", "\n", " ", ":", "\0", "\x80")]
    bad += [request(method="GET" + c + "X") for c in (" ", "\r\n", "\0")]
    bad += [request(authority="a" + c + "b") for c in ("\r\n", " ", "/", "@", "#", "\0")]
    bad += [request(more=[f]) for f in (("transfer-encoding", "chunked"), ("connection", "close"), ("upgrade", "h2c"), ("te", "gzip"), ("host", "evil"),
                                        ("X-A", "1"), (":path", "/2"), (":x", "y"), ("proxy-connection", "close"), ("keep-alive", "1"))]
    bad += [request(""), request("abc"), request("http://x/")]
    client = edge.h2()
    for i, fields in enumerate(bad):
        if i % 10 == 9:  # a few a connection: more are an attack in themselves
            client.close()
            client = edge.h2()
        stream = 1 + 2 * i
        client.headers(stream, fields)
        end = client.end_of(stream)
        assert any(f[0] == RST and f[2] == stream for f in end) and not any(f[0] == GOAWAY for f in end), (fields, end)
    for length, body in (("10", b"abc"), ("1", b"abcGET /smuggled HTTP/1.1\r\n\r\n"), ("0", b"abc"), ("3, 3", b"abc"), ("+3", b"abc"), ("-1", b"abc")):
        client.close()
        client = edge.h2()
        client.send(frame(HEADERS, END_HEADERS, 1, block(request(method="POST", more=[("content-length", length)]))), frame(DATA, END_STREAM, 1, body))
        assert any(f[0] == RST for f in client.end_of(1)), length
    client.close()
    assert b"smuggled" not in edge.origin.all() and b"evil" not in edge.origin.all()
    assert b"200 OK" in edge.raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")


def test_framing_in_disguise(attacked):
    edge = attacked()
    edge.raw(b"POST /d HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\nTransfer_Encoding: chunked\r\nX_Real_IP: 1\r\nMy_Own: kept\r\nContent-Length: 1\r\n\r\nx")
    got = edge.origin.all().lower()
    assert b"content_length" not in got and b"transfer_encoding" not in got and b"x_real" not in got and b"my_own: kept" in got
    assert b"content-length: 1\r\n" in got


def test_websocket_declares_no_body(attacked):
    """An origin that declines would wait for it, and take what comes next on its connection for it."""

    def declines(connection, seen):
        read_head(connection, seen)
        connection.sendall(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n")
        while more := connection.recv(65536):
            seen += more

    edge = attacked(declines)
    client = edge.h2()
    client.frames(0.2)
    head = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":authority", "localhost"), (":path", "/ws"),
            ("sec-websocket-version", "13"), ("content-length", "31")]
    client.headers(1, head, False)
    client.send(frame(DATA, 0, 1, b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"))
    client.end_of(1)
    client.close()
    edge.raw(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b"content-length" not in edge.origin.got[0] and b"smuggled" not in edge.origin.all()
    assert not any(b"GET /ws" in seen and b"/next" in seen for seen in edge.origin.got)


def test_an_upgrade_that_nobody_wants(attacked):
    edge = attacked()
    assert b"200 OK" in edge.raw(b"GET /u HTTP/1.1\r\nHost: a\r\nUpgrade: foo/2\r\nConnection: Upgrade\r\n\r\n")
    got = edge.origin.all().lower()
    assert b"get /u" in got and b"transfer-encoding" not in got and b"upgrade" not in got


def test_hints_without_end(attacked):
    """A client that does not read makes no pile of them."""

    def hints(connection, seen):
        read_head(connection, seen)
        connection.sendall((b"HTTP/1.1 103 Early Hints\r\nLink: " + b"x" * 30000 + b"\r\n\r\n") * 40 + OK)

    edge = attacked(hints)
    out = edge.raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert out.startswith(b"HTTP/1.1 103") and out.endswith(b"ok") and len(out) < 100_000


@pytest.mark.parametrize("response, status, reason", [
    (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n", 502, "response_too_large"),
    (b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 300 + b"\r\n", 502, "response_too_large"),
    (b"HTTP/1.1 100 Continue\r\n\r\n" * 100 + OK, 502, "protocol_error"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 502, "protocol_error"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 502, "protocol_error"),
    (b"HTTP/1.1 200 OK\r\nX: a\rHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", 502, "protocol_error"),
    (b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 1\r\n\r\na", 502, "protocol_error"),
    (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 502, "protocol_error"),
    (b"SSH-2.0-OpenSSH\r\n", 502, "protocol_error"),
], ids=["long head", "many fields", "many 100s", "both lengths", "two lengths", "bare CR", "folded", "101 unasked", "not HTTP"])
def test_origins_that_break_rules(attacked, response, status, reason):
    edge = attacked(answers(response))
    out = edge.raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert int(re.findall(rb"HTTP/1.1 (\d+)", out)[-1]) == status, out[:200]
    assert edge.reason() == reason


def test_a_second_answer_goes_to_nobody(attacked):
    edge = attacked(lambda c, seen: [(read_head(c, seen), c.sendall(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")) for _ in range(9)])
    for _ in range(4):
        assert b"evil" not in edge.raw(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")


def quic(dcid, scid, version=1, first=0xC3, size=1200, token=b""):
    head = bytes([first]) + version.to_bytes(4, "big") + bytes([len(dcid)]) + dcid + bytes([len(scid)]) + scid
    if not first & 0x30:
        head += (0x4000 | len(token)).to_bytes(2, "big") + token
    rest = size - len(head) - 2
    return head + (0x4000 | rest).to_bytes(2, "big") + os.urandom(max(rest, 0))


@pytest.mark.parametrize("name, make, most", [
    ("Initials that cannot be opened", lambda i: quic(os.urandom(8), os.urandom(8)), 0),
    ("Initials that are too small", lambda i: quic(os.urandom(8), os.urandom(8), size=300), 0),
    ("tokens of nobody", lambda i: quic(os.urandom(8), os.urandom(8), token=b"\xb7" + os.urandom(80)), 1),
    ("versions of nobody", lambda i: quic(os.urandom(255), os.urandom(255), version=0xABABABAB), 1),
    ("small packets of unknown versions", lambda i: quic(os.urandom(8), os.urandom(8), version=0xABABABAB, size=100), 0),
    ("early data", lambda i: quic(os.urandom(8), os.urandom(8), first=0xD3), 0),
    ("short headers", lambda i: bytes([0x40]) + os.urandom(22 + i % 60), 1),
    ("version negotiation", lambda i: b"\x80\0\0\0\0\x08" + os.urandom(8) + b"\x08" + os.urandom(24), 0),
    ("noise", lambda i: os.urandom(1 + i % 1300), 1),
], ids=range(9))
def test_datagrams_of_strangers(attacked, name, make, most):
    """Never more bytes back than came."""
    edge = attacked()
    sent = got = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect(("127.0.0.1", edge.tls))
        s.settimeout(0.001)
        for i in range(400):
            sent += s.send(make(i))
            if i % 20 == 19:
                try:
                    while True:
                        got += len(s.recv(2048))
                except TimeoutError:
                    pass
    assert got <= sent * most, name
    assert run(program("http_client"), "-3", "--ca", edge.pki["ca"], f"https://localhost:{edge.tls}/x").stdout == "ok"


def test_reloads_and_the_end_at_one_time(attacked):
    edge = attacked(workers=2)
    for _ in range(5):
        edge.process.send(signal.SIGHUP)
        time.sleep(0.005)
    edge.process.send(signal.SIGHUP)
    edge.process.send(signal.SIGTERM)
    edge.process.send(signal.SIGHUP)
    while edge.process.alive():  # also on its very last steps
        edge.process.send(signal.SIGTERM)
        time.sleep(0.001)
    assert edge.process.stop() == 0, edge.process.output()


def test_continuations_and_the_like(attacked):
    """Each ends the connection, none the server."""
    edge = attacked()
    for name, frames in {
        "CONTINUATION of nothing": [frame(CONTINUATION, END_HEADERS, 1, b"")],
        "HEADERS without end": [frame(HEADERS, 0, 1, b"")] + [frame(CONTINUATION, 0, 1, b"")] * 100,
        "DATA after the end": [frame(HEADERS, END_HEADERS | END_STREAM, 1, block(request())), frame(DATA, 0, 1, b"a")] * 1,
        "streams of the server": [frame(HEADERS, END_HEADERS | END_STREAM, 2, block(request()))],
        "a frame that is too long": [frame(DATA, 0, 1, b"a" * 20000)],
    }.items():
        client = edge.h2()
        client.send(*frames)
        assert any(f[0] == GOAWAY for f in client.end_of(99, 1.0)), name
        client.close()
    assert b"200 OK" in edge.raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")


def never_read(client):
    """Asks for more than the windows let through, and gives none back."""
    client.headers(1, request("/large"))
    client.frames(2.0, lambda f: f[0] == GOAWAY)


LIMITS = {
    "resets": lambda c: [c.send(frame(HEADERS, END_HEADERS, n, block(request())) + frame(RST, 0, n, b"\0\0\0\x08")) for n in range(1, 1001, 2)],
    "continuations": lambda c: c.send(frame(HEADERS, 0, 1, b""), *[frame(CONTINUATION, 0, 1, b"")] * 100),
    "control": lambda c: c.send(*[frame(PING, 0, 0, bytes(8))] * 5000),
    "head_timeout": lambda c: c.send(frame(HEADERS, 0, 1, block(request()))),
    "send_timeout": never_read,
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits_are_counted_by_name(attacked, name):
    port = free_port()
    edge = attacked(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(1000000)), metrics={"listen": f"127.0.0.1:{port}"},
                    limits={"send_timeout_ms": 300, "head_timeout_ms": 300})

    def counts():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
            text = page.read().decode()
        return {k: int(v) for k, v in re.findall(r'^cb_http_server_limits_total{limit="(\w+)"} (\d+)$', text, re.M)}

    assert name in counts() and not any(counts().values())
    client = edge.h2()
    try:
        LIMITS[name](client)
    except OSError:
        pass  # it was closed before all was sent
    end = time.monotonic() + 30
    while counts()[name] == 0 and time.monotonic() < end:
        time.sleep(0.05)
    client.close()
    assert {k for k, v in counts().items() if v} == {name} and counts()[name] == 1
