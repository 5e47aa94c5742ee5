"""cb-edge as a whole: a real process on loopback, a scripted origin behind it, curl and our own clients in front."""

import concurrent.futures
import grp
import json
import os
import pwd
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time

import pytest
from conftest import BUILD, TOP, compile_c, free_port, peer, program, run, wait_tcp
from relay import DOWN, Relay

PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
HERE = TOP / "tests/interop"


@pytest.fixture
def origin(spawn):
    """origin(name) starts one and gives its port."""

    def start(name="origin"):
        port = free_port()
        spawn(PYTHON, HERE / "edge_origin.py", port, name, name=f"origin-{name}").wait_for("origin on")
        return port

    return start


class Edge:
    def __init__(self, spawn, folder, pki):
        self.spawn, self.folder, self.pki = spawn, folder, pki
        self.port, self.tls_port = free_port(), free_port()
        self.file, self.log = folder / "edge.json", folder / "access.log"
        self.process = None

    def config(self, groups, routes=None, **more):
        listeners = more.pop("listeners", {
            "plain": {"address": f"127.0.0.1:{self.port}"},
            "tls": {"address": f"127.0.0.1:{self.tls_port}",
                    "tls": {"certificates": [{"cert_file": str(self.pki["cert"]), "key_file": str(self.pki["key"])}]}}})
        groups = {name: g if isinstance(g, dict) else {"origins": [{"url": u} for u in g]} for name, g in groups.items()}
        routes = routes or [{"path": f"/{n}" if n != "web" else "/", "group": n} for n in groups]
        document = {"workers": 2, "listeners": listeners, "groups": groups, "routes": routes, "access_log": {"path": str(self.log)},
                    "drain_timeout_ms": 5000, **more}
        self.file.write_text("// made by a test\n" + json.dumps(document, indent=1))
        return self

    def start(self, groups, routes=None, **more):
        self.config(groups, routes, **more)
        return self.go()

    def go(self, **kw):
        self.process = self.spawn(program("cb-edge"), "--config", self.file, name="cb-edge", **kw).wait_for("ready with")
        return self

    def curl(self, path, *options, scheme="http", host="localhost"):
        port = self.tls_port if scheme == "https" else self.port
        got = run(peer("curl"), "-s", "--max-time", "20", "-o", "-", "-D", self.folder / "head", "--cacert", self.pki["ca"], *options,
                  f"{scheme}://{host}:{port}{path}", binary=True)
        head = (self.folder / "head").read_text().replace("\r", "") if (self.folder / "head").exists() else ""
        return got.returncode, head, got.stdout

    def status(self, path, *options, **kw):
        return int(re.findall(r"^HTTP/\S+ (\d+)", self.curl(path, *options, **kw)[1], re.M)[-1])

    def lines(self, at_least=1):
        end = time.monotonic() + 30
        while True:
            lines = self.log.read_text().splitlines() if self.log.exists() else []
            if len(lines) >= at_least or time.monotonic() > end:
                return [json.loads(line) for line in lines]
            time.sleep(0.02)

    def last(self, path):
        """The access line of the latest request for a path."""
        end = time.monotonic() + 30
        while True:
            found = [line for line in self.lines() if line.get("path") == path]
            if found or time.monotonic() > end:
                return found[-1]
            time.sleep(0.02)

    def raw(self, data, seconds=5):
        """Bytes in, all bytes out until the server closes or is quiet."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as s:
            s.sendall(data)
            s.settimeout(1)
            out = b""
            try:
                while more := s.recv(65536):
                    out += more
            except TimeoutError:
                pass
        return out

    def reload(self, good=True, seconds=30):
        before = self.process.output().count("reloaded")
        self.process.send(signal.SIGHUP)
        end = time.monotonic() + seconds
        while self.process.output().count("reloaded") == before:
            assert time.monotonic() < end, self.process.output()
            time.sleep(0.01)
        last = [line for line in self.process.output().splitlines() if "reloaded" in line][-1]
        assert ("was not reloaded" not in last) == good, self.process.output()


@pytest.fixture
def edge(spawn, tmp_path, pki):
    return Edge(spawn, tmp_path, pki)


@pytest.fixture(scope="session")
def ws_client(tmp_path_factory):
    return compile_c(HERE / "ws_client.c", tmp_path_factory.mktemp("ws"))


# ---- requests and responses ----

@pytest.mark.parametrize("how", ["h1", "h1-tls", "h2", "h3"])
def test_versions(edge, origin, pki, how):
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]})
    if how == "h3":
        got = run(program("http_client"), "-3", "--ca", pki["ca"], f"https://localhost:{edge.tls_port}/head", binary=True)
        assert got.returncode == 0, got.stderr
        body = got.stdout.decode()
    else:
        code, head, body = edge.curl("/head", *{"h1": [], "h1-tls": ["--http1.1"], "h2": ["--http2"]}[how], scheme="http" if how == "h1" else "https")
        assert code == 0 and re.match(r"HTTP/(2|1.1) 200", head), head
        body = body.decode()
        if how != "h1":
            assert f'alt-svc: h3=":{edge.tls_port}"' in head.lower()
    version = {"h1": "1.1", "h1-tls": "1.1", "h2": "2", "h3": "3"}[how]
    assert f"via: {version} cb-edge" in body and "x-forwarded-for: 127.0.0.1" in body
    assert f"x-forwarded-proto: {'http' if how == 'h1' else 'https'}" in body
    line = edge.last("/head")
    assert line["status"] == 200 and line["version"] == version and line["route"] == "web" and "reason" not in line
    assert line["bytes_out"] == len(body.encode())


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_load_balancer_reads_the_connection_ids(edge, origin, pki, tmp_path, encrypted):
    """Every ID that the server takes is of its configuration and has its number in it, to be read by openssl with the key; a reload cannot change that."""
    key, secret = tmp_path / "cid-key", os.urandom(16)
    key.write_bytes(secret)
    key.chmod(0o600)
    lb = {"server_id": "c0ffee", "rotation": 4, **({"cid_key_file": str(key)} if encrypted else {})}
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]}, quic_lb=lb)
    ids = set()

    def judge(way, number, data):
        if way == DOWN and data[0] & 0x80:  # a long header: version, destination ID, source ID
            at = 6 + data[5]
            ids.add(data[at + 1:at + 1 + data[at]])
        return data

    relay = Relay(edge.tls_port, judge=judge)
    try:
        for _ in range(5):
            got = run(program("http_client"), "-3", "--ca", pki["ca"], f"https://localhost:{relay.port}/head", binary=True)
            assert got.returncode == 0, got.stderr
    finally:
        relay.close()
    assert len(ids) >= 5
    for cid in ids:
        assert len(cid) == 19 and cid[0] == 4 << 5 | 18, cid.hex()
        opened = subprocess.run(["openssl", "enc", "-d", "-aes-128-ecb", "-nopad", "-K", secret.hex()], input=cid[1:17], capture_output=True, check=True).stdout
        assert (opened if encrypted else cid[1:17]).startswith(bytes.fromhex("c0ffee")), cid.hex()
        assert not (encrypted and cid[1:].startswith(bytes.fromhex("c0ffee")))
    edge.config({"web": ["http://127.0.0.1:1"]}, quic_lb={**lb, "rotation": 5})
    edge.process.send(signal.SIGHUP)
    edge.process.wait_for("/quic_lb: it changed, and that needs a restart")


@pytest.mark.parametrize("scheme, size", [("http", 3_000_000), ("https", 3_000_000), ("http", 0), ("https", 1)])
@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_both_ways(edge, origin, tmp_path, scheme, size, chunked):
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]})
    (tmp_path / "body").write_bytes(os.urandom(size))
    options = ["-H", "Transfer-Encoding: chunked", "--http1.1"] if chunked else []
    code, _, body = edge.curl("/echo", "--data-binary", f"@{tmp_path}/body", "-H", "Expect:", *options, scheme=scheme)
    assert code == 0 and body == (tmp_path / "body").read_bytes()
    line = edge.last("/echo")
    assert line["bytes_in"] == line["bytes_out"] == size


def test_h3_body(edge, origin, pki, tmp_path):
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]})
    got = run(program("http_client"), "-3", "--ca", pki["ca"], "-o", tmp_path / "out", f"https://localhost:{edge.tls_port}/big?5000000")
    assert got.returncode == 0, got.stderr
    assert (tmp_path / "out").read_bytes() == b"x" * 5_000_000


def test_details_of_messages(edge, origin):
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]})
    assert edge.curl("/page", "-I")[1].startswith("HTTP/1.1 200")  # HEAD
    code, head, body = edge.curl("/page", "-I", scheme="https")
    assert code == 0 and "content-length: " in head and body.count(b"page of") == 0
    # trailers, from the origin and to it
    out = edge.raw(b"GET /chunks HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE, close\r\n\r\n")
    assert b"\r\nx-sum: 42\r\n" in out.lower() and b"abc" in out
    out = edge.raw(b"POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Check: 7\r\nX-Forwarded-For: 1\r\n\r\n")
    assert b"x-trailers: x-check: 7\r\n" in out.lower() and out.endswith(b"abc")
    # 1xx
    out = edge.raw(b"GET /info HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert out.startswith(b"HTTP/1.1 103") and b"rel=preload" in out and out.endswith(b"after")
    # Expect goes to the origin, and its answer comes back
    out = edge.raw(b"POST /refuse HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert b" 417 " in out.splitlines()[-5 if out.count(b"\r\n") > 4 else 0] or b"HTTP/1.1 417" in out
    code, _, body = edge.curl("/echo", "-H", "Expect: 100-continue", "--data-binary", "abc")
    assert code == 0 and body == b"abc"
    for status in (204, 304, 404, 500):
        assert edge.status(f"/status?{status}") == status


def test_hop_by_hop(edge, origin):
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]})
    _, head, _ = edge.curl("/hop")
    head = head.lower()
    assert "x-gone" not in head and "keep-alive" not in head and "alt-svc" not in head
    assert "x-kept: 2" in head and "set-cookie: a=1\nset-cookie: b=2" in head and "via: 1.1 cb-edge" in head
    body = edge.curl("/head", "-H", "Connection: X-Secret", "-H", "X-Secret: 1", "-H", "X-Open: 2", "-H", "Proxy-Authorization: x", "-H", "Keep-Alive: 5")[2].lower()
    assert b"x-secret" not in body and b"x-open: 2" in body and b"proxy-authorization" not in body and b"\r\nkeep-alive: 5" not in body


def test_who_is_the_client(edge, origin):
    port = origin()
    edge.start({"web": [f"http://127.0.0.1:{port}"]})
    spoof = ["-H", "X-Forwarded-For: 6.6.6.6", "-H", "Forwarded: for=6.6.6.6", "-H", "X-Forwarded-Proto: https", "-H", "X-Real-IP: 6.6.6.6"]
    assert b"6.6.6.6" not in edge.curl("/head", *spoof)[2] and edge.last("/head")["remote"] == "127.0.0.1"
    edge.config({"web": [f"http://127.0.0.1:{port}"]}, trusted_proxies=["127.0.0.0/8", "10.0.0.0/8"])
    edge.reload()
    body = edge.curl("/head?2", "-H", "X-Forwarded-For: 6.6.6.6, 203.0.113.5, 10.1.1.1", "-H", "X-Forwarded-Proto: https")[2]
    assert b"x-forwarded-for: 6.6.6.6, 203.0.113.5, 10.1.1.1, 127.0.0.1\r\n" in body and b"x-forwarded-proto: https\r\n" in body
    assert edge.last("/head?2")["remote"] == "203.0.113.5"


# ---- smuggling and malformed requests ----

@pytest.mark.parametrize("request_bytes", [
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdefGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nabcdeGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nabcdeGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /head HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /head HTTP/1.1\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /head HTTP/1.1\r\nHost: a\r\n X: folded\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /head HTTP/1.1\nHost: a\n\nGET /smuggled HTTP/1.1\nHost: a\n\n",
])
def test_ambiguous_requests_are_refused(edge, origin, request_bytes):
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]})
    out = edge.raw(request_bytes)
    assert re.match(rb"HTTP/1.1 (400|501) ", out), out
    assert out.count(b"HTTP/1.1 ") == 1, out
    assert edge.status("/page") == 200
    assert all("smuggled" not in line.get("path", "") for line in edge.lines())


def test_methods_and_targets(edge, origin):
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]})
    assert edge.status("/page", "-X", "TRACE") == 405
    assert edge.raw(b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n").startswith(b"HTTP/1.1 405")
    assert edge.raw(b"GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert edge.raw(b"OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\nConnection: close\r\n\r\n").lower().count(b"\r\nallow: ") == 1
    assert edge.raw(b"GET /page HTTP/1.1\r\nHost: a\r\nVia: " + b", ".join([b"1.1 cb-edge"] * 10) + b"\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 508")


def test_routes(edge, origin):
    a, b = origin("a"), origin("b")
    edge.start({"a": [f"http://127.0.0.1:{a}"], "b": [f"http://127.0.0.1:{b}"]},
               [{"host": "a.test", "group": "a"}, {"host": "*.test", "group": "b"}, {"host": "a.test", "path": "/name", "group": "b"}])
    for host, path, want in (("a.test", "/x", b"page of a"), ("A.TEST:80", "/x", b"page of a"), ("a.test", "/name", b"b"), ("a.test", "/%6eame", b"page of b"),
                             ("a.test", "/names", b"page of a"), ("x.y.test", "/x", b"page of b")):
        assert edge.curl(path, "-H", f"Host: {host}")[2] == want, (host, path)
    assert edge.status("/none", "-H", "Host: other") == 404 and edge.last("/none")["reason"] == "no_host"
    assert edge.status("/x", "-k", "--connect-to", f"x.test:{edge.tls_port}:127.0.0.1:{edge.tls_port}", scheme="https", host="x.test") == 200


# ---- origins that fail ----

def test_failures_have_reasons(edge, origin, pki):
    good = origin()
    quick = {"connect_timeout_ms": 300, "response_timeout_ms": 300, "idle_timeout_ms": 300}
    blackhole = socket.socket()  # a full accept queue: connecting to it takes for ever
    blackhole.bind(("127.0.0.1", 0))
    blackhole.listen(0)
    fill = [socket.socket() for _ in range(4)]
    for s in fill:
        s.setblocking(False)
        s.connect_ex(blackhole.getsockname())
    groups = {"web": {"origins": [{"url": f"http://127.0.0.1:{good}"}], **quick},
              "refused": [f"http://127.0.0.1:{free_port()}"],
              "name": ["http://nosuch.invalid:80"],
              "tls": [f"https://127.0.0.1:{edge.port}"],
              "blackhole": {"origins": [{"url": "http://127.0.0.1:%d" % blackhole.getsockname()[1]}], **quick},
              "untrusted": [f"https://localhost:{edge.tls_port}"]}
    edge.start(groups)
    rows = [("/refused", 502, "connect_failed"), ("/name", 503, "resolve_failed"), ("/tls", 502, "tls_failed"), ("/dieearly", 502, "origin_closed"),
            ("/hang", 504, "response_timeout"), ("/blackhole", 504, "connect_timeout")]
    for path, status, reason in rows:
        assert edge.status(path) == status, path
        assert edge.last(path)["reason"] == reason, path
    assert edge.status("/untrusted") == 502 and edge.last("/untrusted")["reason"] in ("tls_untrusted", "tls_failed")
    assert edge.status("/page") == 200  # the others are unharmed
    for s in fill + [blackhole]:
        s.close()


def test_an_origin_that_falls_silent(edge, origin):
    edge.start({"web": {"origins": [{"url": f"http://127.0.0.1:{origin()}"}], "idle_timeout_ms": 300}})
    begin = time.monotonic()
    assert edge.curl("/stall")[0] in (18, 56) and 0.25 < time.monotonic() - begin < 5
    assert edge.last("/stall")["reason"] == "idle_timeout" and edge.last("/stall")["status"] == 200


def test_early_data(edge, origin, tmp_path):
    tls = {"certificates": [{"cert_file": str(edge.pki["cert"]), "key_file": str(edge.pki["key"])}], "early_data": True}
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]}, listeners={"tls": {"address": f"127.0.0.1:{edge.tls_port}", "tls": tls}}, workers=1)
    (tmp_path / "body").write_bytes(b"abc")
    resume = ["--session-file", tmp_path / "session", "--tp-file", tmp_path / "tp"]

    def ask(path, *options):
        return run(peer("gtlsclient"), "--no-quic-dump", "--exit-on-all-streams-close", *resume, *options, "--sni=localhost", "127.0.0.1", edge.tls_port,
                   f"https://localhost:{edge.tls_port}{path}")

    for path, options, status in (("/first", ["--wait-for-ticket"], 200), ("/get", ["--wait-for-ticket"], 200), ("/post", ["-m", "POST", "-d", tmp_path / "body"], 425)):
        ask(path, *options)
        assert edge.last(path)["status"] == status, (path, edge.lines())
    assert edge.last("/post")["reason"] == "early_data"


@pytest.mark.parametrize("path", ["/die", "/diechunk"])
def test_an_origin_that_dies_in_mid_body(edge, origin, path):
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]})
    assert edge.curl(path)[0] in (18, 56)  # partial file, or reset: never a clean end
    assert edge.last(path)["reason"] == "origin_cut"
    assert edge.curl(path, scheme="https")[0] in (18, 56, 92)
    got = run(program("http_client"), "-3", "--ca", edge.pki["ca"], f"https://localhost:{edge.tls_port}{path}")
    assert got.returncode == 1, got.stdout
    assert edge.status("/page") == 200


def test_another_origin_is_tried(edge, origin):
    a = origin("a")
    dead = free_port()
    edge.start({"web": {"origins": [{"url": f"http://127.0.0.1:{dead}"}, {"url": f"http://127.0.0.1:{a}"}], "max_fails": 1, "fail_out_ms": 600}})
    for i in range(20):
        assert edge.curl("/name")[2] == b"a"
        assert edge.curl("/echo", "--data-binary", "body")[2] == b"body"
    assert "is left out for 600 ms" in edge.process.output()


def test_round_robin_and_heal(edge, origin, spawn):
    ports = [origin("a"), origin("b")]
    late = free_port()
    edge.start({"web": {"origins": [{"url": f"http://127.0.0.1:{p}"} for p in ports], "policy": "round_robin"},
                "late": {"origins": [{"url": f"http://127.0.0.1:{late}"}], "max_fails": 1}}, workers=1)
    got = [edge.curl("/name")[2] for _ in range(6)]
    assert got in ([b"a", b"b"] * 3, [b"b", b"a"] * 3)
    assert edge.status("/late") == 502
    spawn(PYTHON, HERE / "edge_origin.py", late, "late").wait_for("origin on")
    assert edge.status("/late") == 200  # all are out: tried anyway


@pytest.mark.parametrize("policy", ["power_of_two", "round_robin", "least_connections", "latency", "ip_hash", "ring_hash", "maglev"])
def test_policies(edge, origin, policy):
    """What goes by hash of the client stays at one origin, everything else is shared."""
    edge.start({"web": {"origins": [{"url": f"http://127.0.0.1:{origin(name)}"} for name in "abc"], "policy": policy}}, workers=2)
    got = {edge.curl("/name")[2] for _ in range(30)}
    assert got < {b"a", b"b", b"c"} and len(got) == 1 if policy in ("ip_hash", "ring_hash", "maglev") else len(got) > 1


def test_origins_stand_by(edge, origin, spawn):
    """Active-passive: the second priority serves while less than half of the first is in, and no longer."""
    first = free_port()
    one = spawn(PYTHON, HERE / "edge_origin.py", first, "first")
    one.wait_for("origin on")
    edge.start({"web": {"origins": [{"url": f"http://127.0.0.1:{first}"}, {"url": f"http://127.0.0.1:{origin('second')}", "priority": 1}],
                        "max_fails": 1, "fail_out_ms": 700}}, workers=1)
    assert {edge.curl("/name")[2] for _ in range(20)} == {b"first"}
    one.stop()
    assert {edge.curl("/name")[2] for _ in range(20)} == {b"second"}
    spawn(PYTHON, HERE / "edge_origin.py", first, "first").wait_for("origin on")
    deadline = time.monotonic() + 30
    while edge.curl("/name")[2] != b"first" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert {edge.curl("/name")[2] for _ in range(20)} == {b"first"}


def test_connections_to_origins_are_kept(edge, origin):
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]}, workers=1)
    for _ in range(10):
        edge.curl("/name")
    assert edge.curl("/conns")[2] == b"1"


def test_a_slow_reader_bounds_memory(edge, origin):
    if "CB_SANITIZE:STRING=\n" not in ((BUILD / "CMakeCache.txt").read_text() if (BUILD / "CMakeCache.txt").exists() else "CB_SANITIZE:STRING=\n"):
        pytest.skip("sanitizers keep freed memory: figures mean nothing")
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]}, workers=1)
    edge.curl("/page")
    from conftest import rss_kib
    before = rss_kib(edge.process.pid)
    readers = []
    for _ in range(20):
        s = socket.create_connection(("127.0.0.1", edge.port))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.sendall(b"GET /big?50000000 HTTP/1.1\r\nHost: a\r\n\r\n")
        readers.append(s)
    time.sleep(1.5)
    grown = rss_kib(edge.process.pid) - before
    for s in readers:
        s.close()
    assert grown < 20 * 1024, f"{grown} KiB for 20 readers that do not read"


# ---- origins over other protocols ----

def nginx(spawn, folder, pki, text):
    config = folder / "nginx.conf"
    config.write_text(f"daemon off; pid {folder}/nginx.pid; error_log stderr info; worker_processes 1;\nevents {{ worker_connections 256; }}\n"
                      f"http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;"
                      f" uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n{text}\n}}\n")
    return spawn(peer("nginx"), "-p", folder, "-c", config, name="nginx")


@pytest.mark.parametrize("versions, protocol", [(["h1"], "HTTP/1.1"), (["h2"], "HTTP/2.0"), (["h1", "h2"], "HTTP/2.0")])
def test_https_origin(edge, pki, spawn, tmp_path, versions, protocol):
    port = free_port()
    nginx(spawn, tmp_path, pki, f'server {{ listen 127.0.0.1:{port} ssl http2; ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {pki["cert"]}; ssl_certificate_key {pki["key"]};'
          'location / { return 200 "$server_protocol $ssl_protocol $host"; } }')
    wait_tcp(port)
    edge.start({"web": {"origins": [{"url": f"https://localhost:{port}"}], "ca_file": str(pki["ca"]), "versions": versions}})
    code, _, body = edge.curl("/x", scheme="https")
    assert code == 0 and body.decode() == f"{protocol} TLSv1.3 localhost"


def test_origin_certificates_are_verified(edge, pki, spawn, tmp_path):
    port = free_port()
    nginx(spawn, tmp_path, pki, f'server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {pki["cert"]}; ssl_certificate_key {pki["key"]};'
          'location / { return 200 "ok"; } }')
    wait_tcp(port)
    url = f"https://localhost:{port}"
    edge.start({"web": {"origins": [{"url": url}], "ca_file": str(pki["ca"])}, "system": [url],
                "name": {"origins": [{"url": url}], "ca_file": str(pki["ca"]), "server_name": "other.example"},
                "off": {"origins": [{"url": url}], "verify": "none"}})
    assert edge.status("/") == 200 and edge.status("/off") == 200
    for path in ("/system", "/name"):
        assert edge.status(path) == 502
        assert edge.last(path)["reason"] in ("tls_untrusted", "tls_failed")


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_proxy_protocol_out(edge, pki, spawn, tmp_path, version):
    port = free_port()
    nginx(spawn, tmp_path, pki, f'server {{ listen 127.0.0.1:{port} proxy_protocol; location / {{ return 200 "$proxy_protocol_addr"; }} }}')
    wait_tcp(port)
    edge.start({"web": {"origins": [{"url": f"http://127.0.0.1:{port}"}], "proxy_protocol": version}})
    assert edge.curl("/x")[2] == b"127.0.0.1"
    assert edge.curl("/x", scheme="https")[2] == b"127.0.0.1"


def test_proxy_protocol_in(edge, origin):
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]}, listeners={"plain": {"address": f"127.0.0.1:{edge.port}", "proxy_protocol": True}})
    out = edge.raw(b"PROXY TCP4 198.51.100.9 192.0.2.1 5555 80\r\nGET /head HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert b"x-forwarded-for: 198.51.100.9\r\n" in out
    assert edge.last("/head")["remote"] == "198.51.100.9"
    v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + socket.inet_aton("203.0.113.7") + socket.inet_aton("192.0.2.1") + b"\x15\xb3\0\x50"
    out = edge.raw(v2 + b"GET /head HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert b"x-forwarded-for: 203.0.113.7\r\n" in out
    assert not edge.raw(b"GET /head HTTP/1.1\r\nHost: a\r\n\r\n").startswith(b"HTTP/1.1 200")


# ---- WebSocket ----

@pytest.mark.parametrize("version", [1, 2, 3])
def test_websocket(edge, origin, pki, ws_client, version):
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]})
    got = run(ws_client, version, pki["ca"], f"https://localhost:{edge.tls_port}/ws", "hello", 5)
    assert got.returncode == 0 and got.stdout.count("text hello") == 5, got.stdout + got.stderr
    assert edge.last("/ws")["status"] == (101 if version == 1 else 200)


def test_websocket_that_the_origin_does_not_accept(edge, origin, pki, ws_client):
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]})
    got = run(ws_client, 2, pki["ca"], f"https://localhost:{edge.tls_port}/ws?wrong", "hello", 1)
    assert "status 502" in got.stdout and edge.last("/ws?wrong")["reason"] == "bad_upgrade"
    got = run(ws_client, 2, pki["ca"], f"https://localhost:{edge.tls_port}/page", "hello", 1)
    assert "status 502" in got.stdout  # 200 to GET is no WebSocket
    got = run(ws_client, 3, pki["ca"], f"https://localhost:{edge.tls_port}/status?403", "hello", 1)
    assert "status 403" in got.stdout


@pytest.mark.parametrize("version", [1, 2, 3])
def test_websocket_to_an_h2_origin(edge, spawn, origin, pki, ws_client, tmp_path, version):
    (tmp_path / "inner").mkdir()
    inner = Edge(spawn, tmp_path / "inner", pki).start({"web": [f"http://127.0.0.1:{origin()}"]})
    edge.start({"web": {"origins": [{"url": f"https://localhost:{inner.tls_port}"}], "ca_file": str(pki["ca"]), "versions": ["h2"]}})
    got = run(ws_client, version, pki["ca"], f"https://localhost:{edge.tls_port}/ws", "hello", 5)
    assert got.returncode == 0 and got.stdout.count("text hello") == 5, got.stdout + got.stderr
    assert inner.last("/ws")["version"] == "2" and inner.last("/ws")["method"] == "CONNECT"


def test_websocket_with_another_library(edge, spawn, tmp_path):
    websockets = run(PYTHON, "-c", "import websockets")
    if websockets.returncode != 0:
        pytest.skip("python3-websockets is not installed")
    port = free_port()
    (tmp_path / "echo.py").write_text("import asyncio, sys, websockets\nasync def echo(ws):\n    async for m in ws:\n        await ws.send(m)\n"
                                      "async def main():\n    async with websockets.serve(echo, '127.0.0.1', int(sys.argv[1])):\n        print('serving', flush=True)\n"
                                      "        await asyncio.Future()\nasyncio.run(main())\n")
    (tmp_path / "ask.py").write_text("import asyncio, sys, websockets\nasync def main():\n    async with websockets.connect(sys.argv[1], max_size=None) as ws:\n"
                                     "        for size in (0, 1, 125, 126, 70000, 1000000):\n            await ws.send('x' * size)\n"
                                     "            assert await ws.recv() == 'x' * size\n    print('all equal')\nasyncio.run(main())\n")
    spawn(PYTHON, tmp_path / "echo.py", port).wait_for("serving")
    edge.start({"web": [f"http://127.0.0.1:{port}"]})
    got = run(PYTHON, tmp_path / "ask.py", f"ws://127.0.0.1:{edge.port}/chat")
    assert "all equal" in got.stdout, got.stderr


# ---- life ----

class Load:
    """Requests in a loop from several threads; counts what failed."""

    def __init__(self, edge, path="/name", threads=4, tls=False, fields=lambda: ""):
        self.edge, self.path, self.tls, self.fields, self.stop, self.good, self.bad = edge, path, tls, fields, threading.Event(), 0, []
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(threads)]
        for t in self.threads:
            t.start()

    def connect(self):
        s = socket.create_connection(("127.0.0.1", self.edge.tls_port if self.tls else self.edge.port), timeout=10)
        if self.tls:
            context = ssl.create_default_context(cafile=str(self.edge.pki["ca"]))
            s = context.wrap_socket(s, server_hostname="localhost")
        return s

    def run(self):
        good, bad, s, used = 0, [], None, 0
        while not self.stop.is_set():
            try:
                if s is None:
                    s, used = self.connect(), 0
                s.sendall(f"GET {self.path} HTTP/1.1\r\nHost: localhost\r\n{self.fields()}\r\n".encode())
                out = b""
                while b"\r\n\r\n" not in out:
                    more = s.recv(65536)
                    if not more:
                        raise ConnectionError("closed")
                    out += more
                head, _, body = out.partition(b"\r\n\r\n")
                length = int(re.search(rb"content-length: (\d+)", head, re.I)[1])
                while len(body) < length:
                    body += s.recv(65536)
                used += 1
                if head.startswith(b"HTTP/1.1 200"):
                    good += 1
                else:
                    bad.append(head.split(b"\r\n")[0])
                if b"connection: close" in head.lower() or used == 50:
                    s.close()
                    s = None
            except (OSError, ConnectionError) as e:
                if used:  # a kept connection that was closed between two requests: any client tries again
                    s = None
                    continue
                bad.append(repr(e))
                s = None
        with self.lock:
            self.good += good
            self.bad += bad

    def end(self):
        self.stop.set()
        for t in self.threads:
            t.join()
        return self.good, self.bad


def test_reload_under_load(edge, origin):
    a, b = origin("a"), origin("b")
    edge.start({"web": [f"http://127.0.0.1:{a}"]})
    load, tls = Load(edge), Load(edge, tls=True, threads=2)
    time.sleep(0.3)
    for i in range(10):
        edge.config({"web": [f"http://127.0.0.1:{(a, b)[i % 2]}"]}, limits={"max_fields": 100 + i})
        edge.reload()
    time.sleep(0.2)
    for l in (load, tls):
        good, bad = l.end()
        assert not bad, bad[:5]
        assert good > 50, good
    assert edge.curl("/name")[2] == b"b"


def test_a_reload_is_all_or_nothing(edge, origin):
    a, b = origin("a"), origin("b")
    edge.start({"web": [f"http://127.0.0.1:{a}"]})
    busy = socket.create_server(("127.0.0.1", 0))
    for broken in ({"listeners": {"x": {"address": "127.0.0.1:%d" % busy.getsockname()[1]}}}, {"workers": 5}, {"nonsense": 1},
                   {"access_log": {"path": "/nonexistent/dir/log"}}):
        edge.config({"web": [f"http://127.0.0.1:{b}"]}, **broken)
        edge.reload(good=False)
        assert edge.curl("/name")[2] == b"a", broken
    edge.file.write_text("{ not json")
    edge.reload(good=False)
    assert edge.curl("/name")[2] == b"a"
    out = edge.process.output()
    assert "is in use" in out and "did you mean" not in out and "/workers: it changed" in out and "/nonexistent/dir/log" in out and "edge.json:1:3" in out
    edge.config({"web": [f"http://127.0.0.1:{b}"]})
    edge.reload()
    assert edge.curl("/name")[2] == b"b"
    busy.close()


def test_limits_change_by_reload(edge, origin):
    port = origin()
    edge.start({"web": [f"http://127.0.0.1:{port}"]})
    kept = socket.create_connection(("127.0.0.1", edge.port))
    many = b"GET /name HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 50 + b"\r\n"
    kept.sendall(many)
    assert b" 200 " in kept.recv(4096)
    edge.config({"web": [f"http://127.0.0.1:{port}"]}, limits={"max_fields": 20})
    edge.reload()
    kept.sendall(many)  # the connection is still there
    assert b"HTTP/1.1 " in kept.recv(4096)
    kept.close()
    assert edge.raw(many).startswith(b"HTTP/1.1 431") and edge.status("/name") == 200


def test_listeners_come_and_go(edge, origin):
    a = origin("a")
    edge.start({"web": [f"http://127.0.0.1:{a}"]})
    other = free_port()
    edge.config({"web": [f"http://127.0.0.1:{a}"]}, listeners={"new": {"address": f"127.0.0.1:{other}"}})
    edge.reload()
    assert run(peer("curl"), "-s", f"http://127.0.0.1:{other}/name").stdout == "a"
    end = time.monotonic() + 30
    while run(peer("curl"), "-s", f"http://127.0.0.1:{edge.port}/name").returncode != 7:
        assert time.monotonic() < end
        time.sleep(0.05)


def served_certificate(port):
    return ssl.get_server_certificate(("127.0.0.1", port))


@pytest.mark.parametrize("same_files", [True, False])
def test_certificate_swap_under_load(edge, origin, tmp_path, pki, same_files):
    cert, key = tmp_path / "site.pem", tmp_path / "site-key.pem"
    for source, target in ((pki["cert"], cert), (pki["key"], key)):
        shutil.copy(source, target)
    run(program("cbctl"), "ca", "dev", "--dir", pki["dir"], "second.test", "localhost", "127.0.0.1")
    second = pki["dir"] / "second.test.pem", pki["dir"] / "second.test-key.pem"
    port = origin()

    def config(c, k):
        edge.config({"web": [f"http://127.0.0.1:{port}"]}, listeners={
            "plain": {"address": f"127.0.0.1:{edge.port}"},
            "tls": {"address": f"127.0.0.1:{edge.tls_port}", "tls": {"certificates": [{"cert_file": str(c), "key_file": str(k)}]}}})

    config(cert, key)
    edge.go()
    before = served_certificate(edge.tls_port)
    load = Load(edge, tls=True)
    time.sleep(0.2)
    if same_files:
        shutil.copy(second[0], cert)
        shutil.copy(second[1], key)
    else:
        config(*second)
    edge.reload()
    assert served_certificate(edge.tls_port) != before
    cert.write_text("broken")
    if same_files:
        edge.reload(good=False)
        assert served_certificate(edge.tls_port) != before
    good, bad = load.end()
    assert not bad and good > 10, bad[:5]


def test_drain(edge, origin):
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]})
    with concurrent.futures.ThreadPoolExecutor() as pool:
        slow = [pool.submit(edge_get, edge, "/slow?1000", tls) for tls in (False, True)]
        time.sleep(0.4)
        edge.process.send(signal.SIGTERM)
        time.sleep(0.2)
        assert run(peer("curl"), "-s", f"http://127.0.0.1:{edge.port}/name").returncode == 7  # no new connections
        for f in slow:
            assert f.result().endswith("origin")
    assert edge.process.stop() == 0


def edge_get(edge, path, tls):
    port = edge.tls_port if tls else edge.port
    return run(peer("curl"), "-s", "--cacert", edge.pki["ca"], f"{'https' if tls else 'http'}://localhost:{port}{path}").stdout


def test_drain_deadline_and_second_sigint(edge, origin):
    port = origin()
    edge.start({"web": [f"http://127.0.0.1:{port}"]}, drain_timeout_ms=300)
    client = subprocess.Popen([peer("curl"), "-s", f"http://127.0.0.1:{edge.port}/hang"])
    time.sleep(0.3)
    begin = time.monotonic()
    assert edge.process.stop(signal.SIGTERM) == 0 and 0.2 < time.monotonic() - begin < 3
    assert client.wait(30) != 0
    edge.config({"web": [f"http://127.0.0.1:{port}"]}, drain_timeout_ms=60000)
    edge.go()
    client = subprocess.Popen([peer("curl"), "-s", f"http://127.0.0.1:{edge.port}/hang"])
    time.sleep(0.3)
    edge.process.send(signal.SIGINT)
    time.sleep(0.2)
    assert edge.process.alive()
    assert edge.process.stop(signal.SIGINT) == 0
    assert client.wait(30) != 0


def test_access_log_is_reopened(edge, origin):
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]})
    edge.curl("/one")
    edge.last("/one")
    edge.log.rename(edge.folder / "rotated")
    edge.process.send(signal.SIGUSR1)
    end = time.monotonic() + 30
    while not edge.log.exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    edge.curl("/two")
    assert edge.last("/two")["status"] == 200 and "/two" not in (edge.folder / "rotated").read_text()


def test_access_log_fields(edge, origin):
    chosen = ["path", "status=code", "tls_version", "sni", "pattern", "tenant", "request.authorization=auth", "request.user-agent",
              "response.via=hop", "first_byte_ms", "head_ms"]
    edge.start({"web": {"origins": [{"url": f"http://127.0.0.1:{origin()}"}], "tenant": "acme"}}, access_log={"path": str(edge.log), "fields": chosen})
    edge.curl("/name?token=hush&x=1", "-H", "Authorization: Bearer hush", "-A", "me", scheme="https")
    line = edge.last("/name?token=REDACTED&x=1")
    assert {k: v for k, v in line.items() if not k.endswith("_ms")} == {
        "path": "/name?token=REDACTED&x=1", "code": 200, "tls_version": "1.3", "sni": "localhost", "pattern": "*/", "tenant": "acme",
        "auth": "REDACTED", "user-agent": "me", "hop": "1.1 cb-edge"}
    assert line["first_byte_ms"] >= 0 and line["head_ms"] >= 0 and "hush" not in edge.log.read_text()
    for wrong, why in (({"fields": ["nonsense"]}, 'there is no field \\"nonsense'), ({"format": "combined", "fields": ["path"]}, "the combined format has its own")):
        edge.config({"web": ["http://127.0.0.1:1"]}, access_log={"path": str(edge.log), **wrong})
        got = run(program("cb-edge"), "--check", "--config", edge.file)
        assert got.returncode == 1 and why.replace("\\", "") in got.stderr and "/access_log" in got.stderr, got.stderr
    edge.config({"web": [f"http://127.0.0.1:{origin('b')}"]}, access_log={"path": str(edge.folder / "combined"), "format": "combined", "show_secrets": True})
    edge.reload()
    edge.curl("/name?token=hush", "-A", 'a "b"', "-e", "https://x/")
    end = time.monotonic() + 30
    while not (text := (edge.folder / "combined").read_text()) and time.monotonic() < end:
        time.sleep(0.02)
    assert re.fullmatch(r'127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0000\] "GET /name\?token=hush HTTP/1\.1" 200 1 "https://x/" "a \\"b\\""\n', text), text


def test_redirect(edge, origin):
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]}, listeners={
        "http": {"address": f"127.0.0.1:{edge.port}", "redirect_to_https": True},
        "tls": {"address": f"127.0.0.1:{edge.tls_port}", "tls": {"certificates": [{"cert_file": str(edge.pki["cert"]), "key_file": str(edge.pki["key"])}]}}})
    for method, status in (("GET", 301), ("HEAD", 301), ("POST", 308)):
        out = edge.raw(f"{method} /a?b=c HTTP/1.1\r\nHost: example.org:80\r\nConnection: close\r\n\r\n".encode()).decode()
        assert out.startswith(f"HTTP/1.1 {status} ") and f"location: https://example.org:{edge.tls_port}/a?b=c\r\n" in out.lower(), out


# ---- starting ----

def test_busy_port(edge, origin, spawn):
    with socket.create_server(("127.0.0.1", edge.port)):
        edge.config({"web": [f"http://127.0.0.1:{origin()}"]})
        got = run(program("cb-edge"), "-c", edge.file)
        assert got.returncode == 1 and f"127.0.0.1:{edge.port} is in use" in got.stderr, got.stderr
    edge.go()
    again = run(program("cb-edge"), "-c", edge.file)  # our own sockets could share the port
    assert again.returncode == 1 and "is in use by another program" in again.stderr


def test_who_is_let_in_at_the_start_is_served(edge, origin):
    """The first connection that stands is answered, not reset, though the port is looked at before. listen() is made slow, that nothing be missed."""
    source, slow = edge.folder / "slow.c", edge.folder / "slow.so"
    source.write_text("#include <sys/syscall.h>\n#include <unistd.h>\n"
                      "int listen(int fd, int n) { long rc = syscall(SYS_listen, fd, n); usleep(100000); return (int)rc; }\n")
    subprocess.run(["cc", "-D_GNU_SOURCE", "-shared", "-fPIC", source, "-o", slow], check=True)
    edge.config({"web": [f"http://127.0.0.1:{origin()}"]})
    process = edge.spawn(program("cb-edge"), "--config", edge.file, name="cb-edge",
                         env={**os.environ, "LD_PRELOAD": str(slow), "ASAN_OPTIONS": "verify_asan_link_order=0"})
    wait_tcp(edge.port)
    with socket.create_connection(("127.0.0.1", edge.port), 30) as s:
        s.sendall(b"GET /name HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b"".join(iter(lambda: s.recv(4096), b"")).startswith(b"HTTP/1.1 200 "), process.output()


@pytest.mark.parametrize("change, text", [
    ({"listners": {}}, r'edge.json:\d+:\d+: /listners: "listners" is not known here; did you mean "listeners"\?'),
    ({"workers": 1000}, r"/workers: 1000 is out of range: 0 to 256"),
    ({"routes": [{"group": "nope"}]}, r'/routes/0/group: there is no group "nope"'),
    ({"listeners": {}}, r"/listeners: has 0 members, must have 1 to 256"),
    ({"listeners": {"a": {"address": "localhost:80"}}}, r'/listeners/a/address: "localhost:80": must be'),
    ({"listeners": {"a": {"address": ":80", "versions": ["h3"]}}}, r'/listeners/a: h3 needs "tls"'),
    ({"listeners": {"a": {"address": ":443", "tls": {"certificates": [{"cert_file": "/nonexistent", "key_file": "/x"}]}}}},
     r"/listeners/a/tls/certificates/0: .*/nonexistent"),
    ({"groups": {"g": {"origins": [{"url": "http://a/b"}]}}}, r'/groups/g/origins/0/url: "http://a/b": must be only'),
    ({"groups": {"g": {"origins": [{"url": "https://a"}], "ca_file": "/nonexistent"}}}, r"/groups/g/ca_file: .*/nonexistent"),
    ({"trusted_proxies": ["10.0.0.1/8"]}, r"/trusted_proxies/0: .*has bits set beyond its prefix length"),
    ({"user": "no-such-user-here"}, r'/user: there is no user "no-such-user-here"'),
    ({"group": "x"}, r'/group: needs "user" too'),
    ({"quic_lb": {"server_id": "0a0"}}, r'/quic_lb: server_id "0a0"'),
    ({"quic_lb": {"server_id": "0a", "rotation": 7}}, r"/quic_lb/rotation: 7 is out of range"),
    ({"quic_lb": {"server_id": "0a", "cid_key_file": "/nonexistent"}}, r"/quic_lb: .*/nonexistent"),
    ({"quic_lb": {"server_id": "0a"}, "quic_secret_file": "/dev/null"}, r"/quic_secret_file: "),
])
def test_check_says_what_is_wrong(edge, change, text):
    edge.config({"web": ["http://127.0.0.1:1"]}, **change) if "groups" not in change else edge.config(change["groups"])
    got = run(program("cb-edge"), "--check", "-c", edge.file)
    assert got.returncode == 1 and re.search(text, got.stderr), got.stderr
    assert run(program("cb-edge"), "-c", edge.file).returncode == 1


@pytest.mark.parametrize("variable, text", [("CBR_CC=vegas", r'CBR_CC: .*"vegas"'), ("CBR_AEAD=rot13", r'CBR_AEAD: "rot13" is not one of')])
def test_check_reads_the_environment(edge, variable, text):
    edge.config({"web": ["http://127.0.0.1:1"]})
    got = run("env", variable, program("cb-edge"), "--check", "-c", edge.file)
    assert got.returncode == 1 and re.search(text, got.stderr), got.stderr
    assert run(program("cb-edge"), "--check", "-c", edge.file).returncode == 0


def test_check_tells_all_mistakes(edge):
    edge.file.write_text('{"workers": "two", "listeners": {"a": {"adress": ":80"}}, "rutes": []}')
    got = run(program("cb-edge"), "--check", "-c", edge.file)
    assert got.returncode == 1 and len(got.stderr.splitlines()) == 4, got.stderr


def test_command_line(edge):
    edge.config({"web": ["http://127.0.0.1:1"]})
    good = run(program("cb-edge"), "--check", "--config", edge.file)
    assert good.returncode == 0 and good.stdout.strip().endswith("edge.json: good")
    assert run(program("cb-edge"), "--schema").stdout == (TOP / "daemons/edge/config.schema.json").read_text(), "run cb-edge --schema > daemons/edge/config.schema.json"
    assert run(program("cb-edge"), "--version").stdout.startswith("cb-edge ")
    assert "--check" in run(program("cb-edge"), "--help").stdout
    for wrong in ([], ["--nonsense"], ["-c"], ["-c", "x", "y"]):
        assert run(program("cb-edge"), *wrong).returncode == 2
    assert "nonexistent" in run(program("cb-edge"), "-c", "/nonexistent").stderr
    assert "not a regular file" in run(program("cb-edge"), "--check", "-c", edge.file.parent).stderr


def test_a_state_key_seals_the_ticket_keys(edge, tmp_path):
    tickets, key, new = (tmp_path / name for name in ("tickets", "state.key", "new.key"))
    check = lambda **more: (edge.config({"web": ["http://127.0.0.1:1"]}, ticket_key_file=str(tickets), **more), run(program("cb-edge"), "--check", "-c", edge.file))[1]
    assert check(state_key=str(key)).returncode == 0
    assert tickets.read_bytes().startswith(b"CBSEAL1\n") and stat.S_IMODE(key.stat().st_mode) == 0o600
    seal = lambda by: run(program("cbctl"), "seal", "open", "--key", by, "--purpose", "tickets", tickets, binary=True)
    ring = seal(key).stdout
    assert ring.startswith(b"CBTICK1\n")
    bare = check()
    assert bare.returncode == 1 and "/ticket_key_file" in bare.stderr and "sealed" in bare.stderr
    other = check(state_key=str(new))
    assert other.returncode == 1 and "is not here" in other.stderr
    assert check(state_key=str(new), state_old_keys=[str(key)]).returncode == 0
    assert seal(new).stdout == ring and seal(key).returncode == 1


def test_a_key_for_everybody_is_warned_of(edge, pki, tmp_path):
    key = shutil.copy(pki["key"], tmp_path / "key.pem")
    edge.config({"web": ["http://127.0.0.1:1"]}, listeners={
        "tls": {"address": ":0", "tls": {"certificates": [{"cert_file": str(pki["cert"]), "key_file": str(key)}]}}})
    for mode, warned in ((0o640, False), (0o644, True)):
        os.chmod(key, mode)
        got = run(program("cb-edge"), "--check", "-c", edge.file)
        assert got.returncode == 0 and ("may read this private key" in got.stderr) == warned, got.stderr


def test_the_sample_is_good(tmp_path, pki):
    """edge.json of the package, with the files that it names put where they are here."""
    text = (TOP / "daemons/edge/edge.json").read_text()
    text = re.sub(r'"/etc/cb-edge/[^"]*\.key\.pem"', json.dumps(str(pki["key"])), text)
    text = re.sub(r'"/etc/cb-edge/[^"]*\.pem"', json.dumps(str(pki["cert"])), text)
    text = re.sub(r'"(/var/lib/cb-edge)/([^"]*)"', lambda m: json.dumps(str(tmp_path / m[2])), text)
    text = re.sub(r'"user": "[^"]*"', f'"user": "{pwd.getpwuid(os.getuid()).pw_name}"', text)
    (tmp_path / "sample.json").write_text(text)
    got = run(program("cb-edge"), "--check", "-c", tmp_path / "sample.json")
    assert got.returncode == 0, got.stderr


def test_privileges_are_dropped(edge, origin, nobody):
    user, logs = nobody
    edge.log = logs / "access.log"
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]}, user="nobody", keep_bind_capability=True,
               ticket_key_file=str(logs / "tickets"), quic_secret_file=str(logs / "secret"))
    for secret in ("tickets", "secret"):  # made by root, rotated by the user
        if (logs / secret).exists():
            assert (logs / secret).stat().st_uid == user.pw_uid and (logs / secret).stat().st_mode & 0o777 == 0o600
    assert (logs / "tickets").exists()
    status = open(f"/proc/{edge.process.pid}/status").read()
    assert re.search(rf"^Uid:\t{user.pw_uid}\t{user.pw_uid}\t{user.pw_uid}\t", status, re.M), status
    assert re.search(rf"^Gid:\t{user.pw_gid}\t", status, re.M) and re.search(r"^NoNewPrivs:\t1", status, re.M)
    assert int(re.search(r"^CapEff:\t(\S+)", status, re.M)[1], 16) == 1 << 10  # CAP_NET_BIND_SERVICE alone
    for task in os.listdir(f"/proc/{edge.process.pid}/task"):
        status = open(f"/proc/{edge.process.pid}/task/{task}/status").read()
        assert f"Uid:\t{user.pw_uid}\t" in status and "NoNewPrivs:\t1" in status, status
        assert int(re.search(r"^CapEff:\t(\S+)", status, re.M)[1], 16) in (0, 1 << 10), status
    soft, hard = re.search(r"^Max open files\s+(\d+)\s+(\d+)", open(f"/proc/{edge.process.pid}/limits").read(), re.M).groups()
    assert soft == hard
    assert edge.status("/page") == 200 and edge.last("/page")
    assert edge.log.stat().st_uid == user.pw_uid
    assert grp.getgrgid(user.pw_gid)


def test_systemd_is_told(edge, origin, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(5)
        edge.config({"web": [f"http://127.0.0.1:{origin()}"]})
        edge.go(env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert b"READY=1" in notify.recv(4096)
        edge.reload()
        message = notify.recv(4096)
        assert b"RELOADING=1" in message and re.search(rb"MONOTONIC_USEC=\d+", message)
        assert b"READY=1" in notify.recv(4096)
        edge.process.stop()
        assert b"STOPPING=1" in notify.recv(4096)


def test_the_example(origin, spawn, pki):
    a, b = origin("a"), origin("b")
    port = free_port()
    proxy = spawn(program("reverse_proxy"), f"127.0.0.1:{port}", pki["cert"], pki["key"], f"http://127.0.0.1:{a}", f"http://127.0.0.1:{b}")
    proxy.wait_for(f"https://127.0.0.1:{port}")
    urls = [f"https://localhost:{port}/name"] * 40  # the choice of two is a random one
    got = run(peer("curl"), "-s", "--cacert", pki["ca"], *urls).stdout
    assert set(got) == {"a", "b"} and len(got) == 40
    got = run(program("http_client"), "-3", "--ca", pki["ca"], f"https://localhost:{port}/name")
    assert got.stdout in ("a", "b"), got.stderr
    assert proxy.stop(signal.SIGTERM) == 0
    assert run(program("reverse_proxy")).returncode == 2
