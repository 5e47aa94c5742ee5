"""Origins of cb-edge that are checked, slow, failing and flapping: who gets requests, what is told of it, and that clients notice nothing."""

import concurrent.futures
import http.client
import http.server
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from conftest import PATIENCE, free_port, program, run
from test_cbctl_edge import table
from test_edge import HERE, PYTHON, edge, origin  # noqa: F401: fixtures
from test_edge_admin import Asked, asked  # noqa: F401: a fixture
from test_edge_metrics import Page
from test_edge_telemetry import until

QUICK = {"interval_ms": 200, "fast_interval_ms": 50, "timeout_ms": 400, "rise": 2, "fall": 2, "damping": {"off": True}}


class Origin:
    """An origin on a thread: .health is what its check gets (a status, or None: it hangs); .status and .wait are for requests."""

    def __init__(self, name, port=None):
        self.name, self.port = name, port or free_port()
        self.health, self.status, self.wait, self.checks, self.requests = 200, 200, 0, 0, 0
        self.server = None

    def start(self):
        of = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                check = self.path == "/ready"
                of.checks += check
                of.requests += not check
                if check and of.health is None:
                    time.sleep(2)
                if not check and of.wait:
                    time.sleep(of.wait)
                body = of.name.encode()
                self.send_response((of.health or 200) if check else of.status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def process_request(self, request, address):
                of.sockets.add(request)
                super().process_request(request, address)

        self.sockets = set()
        self.server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def stop(self):
        """No more connections, and those that are open end."""
        self.server.shutdown()
        self.server.server_close()
        for s in list(self.sockets):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def origins():
    made = []

    def make(*names):
        made.extend(Origin(name).start() for name in names)
        return made[-len(names):]

    yield make
    for o in made:
        try:
            o.stop()
        except OSError:
            pass


def group(*made, check=True, **health):
    block = {**({"check": {"path": "/ready", **QUICK}} if check is True else {"check": check} if check else {}), **health}
    return {"origins": [{"url": o.url} for o in made], "policy": "round_robin", "health": block}


def state(asked, number=0, name="web"):
    return asked.get(f"/v1/pools/{name}")["origins"][number]


def names(edge, n=20):
    return {edge.curl("/")[2].decode() for _ in range(n)}


# ---- checks ----

def test_checks_take_out_and_bring_in(asked, edge, origins, spawn):
    a, b = origins("a", "b")
    page = Page(free_port())
    asked.start({"web": group(a, b)}, metrics={"listen": f"127.0.0.1:{page.port}"})
    until(lambda: state(asked)["health"]["state"] == "up" and state(asked, 1)["health"]["state"] == "up")
    assert names(edge) == {"a", "b"}
    a.health = 503
    until(lambda: state(asked)["state"] == "down")
    assert names(edge) == {"b"}
    got = state(asked)["health"]
    assert got["cause"] == "checks" and got["weight_percent"] == 0 and "status 503 by HTTP/1.1" in got["reason"] and got["since_ms"] < 10000
    edge.process.wait_for(f"health: {a.url} of web is down: {a.url}: status 503")
    line = next(row for row in table(run(program("cbctl"), "pools", "--socket", asked.socket).stdout) if row["url"] == a.url)
    assert line["state"] == "down"
    assert page.value("cb_health_up", group="web", target=a.url) == 0 and page.value("cb_health_up", group="web", target=b.url) == 1
    assert page.value("cb_health_state", group="web", target=a.url, state="down") == 1
    assert page.value("cb_health_share_ratio", group="web", target=a.url) == 0
    assert page.value("cb_health_checks_total", group="web", target=a.url, result="failed") >= 2
    assert page.value("cb_health_changes_total", group="web", target=a.url) == 2
    assert page.value("cb_health_check_seconds_count", kind="http") >= 4
    assert page.value("cb_origin_up", group="web", origin=a.url) == 0 and page.value("cb_origin_up", group="web", origin=b.url) == 2
    a.health = None  # hangs
    until(lambda: state(asked)["health"]["last"] == "no answer within 400 ms")
    assert page.value("cb_health_checks_total", group="web", target=a.url, result="timeout") >= 1
    a.health = 200
    until(lambda: state(asked)["state"] == "up")
    assert names(edge) == {"a", "b"}
    assert page.value("cb_origin_up", group="web", origin=a.url) == 2
    # checks are made once, not by each worker: at most one in each shortest interval
    before, since = b.checks, time.monotonic()
    time.sleep(1)
    assert b.checks - before <= (time.monotonic() - since) / 0.18 + 1


@pytest.mark.parametrize("how", ["try", "refuse"])
def test_when_all_are_down(asked, edge, origins, how):
    a, b = origins("a", "b")
    a.health = b.health = 500
    asked.start({"web": group(a, b, when_all_down=how)})
    until(lambda: state(asked)["state"] == "down" and state(asked, 1)["state"] == "down")
    if how == "try":
        assert names(edge) == {"a", "b"}
    else:
        assert edge.status("/") == 503
        assert edge.last("/")["reason"] == "no_origin"
    b.health = 200
    until(lambda: state(asked, 1)["state"] == "up")
    assert names(edge) == {"b"}


def test_nothing_goes_where_nothing_is_known(asked, edge, origins):
    """start: down. Before the first result an origin has nothing."""
    a, b = origins("a", "b")
    b.health = None
    asked.start({"web": group(a, b, check={"path": "/ready", **QUICK, "start": "down", "timeout_ms": 3000})})
    until(lambda: state(asked)["state"] == "up")
    assert names(edge) == {"a"} and state(asked, 1)["health"]["state"] == "unknown"


def test_clients_notice_nothing(asked, edge, origins):
    """Three origins, each of which says that it will go, goes (its connections, too), and returns, again and again: no request fails."""
    made = origins("a", "b", "c")
    asked.start({"web": {**group(*made), "retries": 2}})
    until(lambda: all(o["health"]["state"] == "up" for o in asked.get("/v1/pools/web")["origins"]))
    done, failed, seen = threading.Event(), [], set()

    def client(i):
        made_here = 0
        while not done.is_set():
            c = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=20)
            try:
                for _ in range(20):
                    c.request("GET", f"/{i}")
                    r = c.getresponse()
                    body = r.read()
                    made_here += 1
                    seen.add(body)
                    if r.status != 200:
                        failed.append((r.status, body))
            except OSError as error:
                failed.append(repr(error))
            finally:
                c.close()
        return made_here

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(client, i) for i in range(4)]
        for round_ in range(2):
            for n, o in enumerate(made):
                o.health = 503
                until(lambda: state(asked, n)["state"] == "down")
                time.sleep(0.2)  # what runs there ends
                o.stop()
                time.sleep(0.3)
                o.health = 200
                o.start()
                until(lambda: state(asked, n)["state"] == "up")
        done.set()
        total = sum(r.result() for r in runs)
    assert not failed, (len(failed), total, failed[:5])
    assert total > 100 and seen == {b"a", b"b", b"c"}


def test_one_that_dies_without_a_word(asked, edge, origins):
    """Refused connections go to another origin until a check says so; then nobody tries any more."""
    a, b = origins("a", "b")
    asked.start({"web": group(a, b)})
    until(lambda: state(asked)["health"]["state"] == "up")
    a.stop()
    assert {edge.status("/") for _ in range(20)} == {200}
    until(lambda: state(asked)["state"] == "down")
    assert "Connection refused" in state(asked)["health"]["reason"]
    failed = state(asked)["connections"]["failed"]
    assert {edge.status("/") for _ in range(20)} == {200} and state(asked)["connections"]["failed"] == failed


def test_slow_start(asked, edge, origins):
    a, b = origins("a", "b")
    asked.start({"web": group(a, b, slow_start_ms=4000)}, workers=1)
    until(lambda: state(asked)["health"]["state"] == "up")
    a.health = 500
    until(lambda: state(asked)["state"] == "down")
    a.health = 200
    until(lambda: state(asked)["state"] == "up")
    a.requests = b.requests = 0
    for _ in range(40):
        edge.curl("/")
    weight = state(asked)["health"]["weight_percent"]
    assert weight < 100 and a.requests < b.requests, (weight, a.requests, b.requests)
    until(lambda: state(asked)["health"]["weight_percent"] == 100)
    a.requests = b.requests = 0
    for _ in range(40):
        edge.curl("/")
    assert abs(a.requests - b.requests) <= 2


def test_a_reload_keeps_what_is_known(asked, edge, origins):
    a, b, c = origins("a", "b", "c")
    a.health = 500
    asked.start({"web": group(a, b)})
    until(lambda: state(asked)["state"] == "down")
    since = state(asked)["health"]["failed"]
    edge.config({"web": group(c, a, b)}, admin=asked.block)
    edge.reload()
    got = state(asked, 1)
    assert got["url"] == a.url and got["state"] == "down" and got["health"]["failed"] >= since
    assert names(edge) == {"b", "c"}
    # checks end: nothing is known any more
    edge.config({"web": group(c, a, b, check=None)}, admin=asked.block)
    edge.reload()
    assert "health" not in state(asked, 1) and names(edge) == {"a", "b", "c"}
    before = a.checks
    time.sleep(0.6)
    assert a.checks == before


def test_flaps_are_damped(asked, edge, origins):
    a, b = origins("a", "b")
    page = Page(free_port())
    quick = {**QUICK, "rise": 1, "fall": 1, "damping": {"half_life_ms": 60000}}
    asked.start({"web": group(a, b, check={"path": "/ready", **quick})}, metrics={"listen": f"127.0.0.1:{page.port}"})
    for _ in range(3):
        until(lambda: state(asked)["health"]["state"] == "up")
        a.health = 500
        until(lambda: state(asked)["health"]["state"] == "down")
        a.health = 200
    until(lambda: state(asked)["health"]["cause"] == "damping")
    got = state(asked)["health"]
    assert got["flaps"] == 3 and 60000 < got["suppressed_ms"] < 130000 and "too often" in got["reason"]
    assert names(edge) == {"b"} and page.value("cb_health_suppressions_total", group="web", target=a.url) == 1
    edge.process.wait_for("left out although checks pass (for ")


# ---- other kinds ----

def test_kinds(asked, edge, origins, tmp_path):
    (a,) = origins("a")
    script = tmp_path / "check"
    script.write_text('#!/bin/sh\necho "looked at $CB_CHECK_ADDRESS"\ntest ! -e ' + str(tmp_path / "bad") + "\n")
    script.chmod(0o755)
    kinds = {"tcp": {"kind": "tcp"}, "exec": {"kind": "exec", "command": [str(script)]}, "icmp": {"kind": "icmp"}, "grpc": {"kind": "grpc"},
             "bytes": {"kind": "tcp", "send": "GET /ready HTTP/1.0\r\n\r\n", "expect": "200 OK"}, "body": {"path": "/ready", "body": "a"}}
    asked.start({name: group(a, check={**QUICK, **check}) for name, check in kinds.items()})
    for name, to, says in [("tcp", "up", "connected to"), ("exec", "up", f'"looked at 127.0.0.1:{a.port}"'), ("icmp", "up", "replied after"),
                           ("grpc", "down", ""), ("bytes", "up", "answered as expected"), ("body", "up", "status 200")]:
        until(lambda: state(asked, 0, name)["health"]["state"] == to)
        if not says or "no right" not in state(asked, 0, name)["health"]["reason"]:
            assert says in state(asked, 0, name)["health"]["reason"], (name, state(asked, 0, name))
    (tmp_path / "bad").touch()
    until(lambda: state(asked, 0, "exec")["state"] == "down")
    assert "exit status 1" in state(asked, 0, "exec")["health"]["reason"]


def test_programs_get_nothing_of_the_daemon(asked, edge, origins, nobody):
    """Neither what it kept of root's rights, nor its descriptors, nor its environment."""
    user, folder = nobody
    (a,) = origins("a")
    script, out, edge.log = folder / "check", folder / "out", folder / "access.log"
    script.write_text(f"#!/bin/sh\ngrep -E '^(Cap(Prm|Eff|Amb)|SigBlk):' /proc/self/status > {out}.new; ls -l /proc/self/fd >> {out}.new; env >> {out}.new; mv {out}.new {out}\n")
    script.chmod(0o755)
    edge.config({"web": group(a, check={**QUICK, "kind": "exec", "command": [str(script)]})}, user=user.pw_name, keep_bind_capability=True)
    edge.go(env={**os.environ, "SECRET": "1"})
    until(out.exists)
    text = out.read_text()
    assert re.findall(r"^CapEff:\t0*(\S+)$", Path(f"/proc/{edge.process.pid}/status").read_text(), re.M) == ["400"], "it can bind itself"
    assert re.findall(r"^(?:Cap...|SigBlk):\t(\S+)$", text, re.M) == ["0" * 16] * 4, text
    assert {line.split()[-3] for line in text.splitlines() if " -> " in line} <= {"0", "1", "2", "3"} and "SECRET" not in text, text


def test_https_origins_are_verified(edge, asked, origin, spawn, pki):
    port = free_port()
    spawn(program("static_server"), f"127.0.0.1:{port}", pki["cert"], pki["key"], HERE).wait_for(" on 127")
    url = f"https://localhost:{port}"
    groups = {"good": {"origins": [{"url": url}], "ca_file": str(pki["ca"]), "health": {"check": {**QUICK, "path": "/relay.py"}}},
              "h3": {"origins": [{"url": url}], "ca_file": str(pki["ca"]), "health": {"check": {**QUICK, "path": "/relay.py", "versions": ["h3"]}}},
              "bad": {"origins": [{"url": url}], "health": {"check": {**QUICK, "path": "/relay.py"}}}}
    asked.start(groups)
    until(lambda: state(asked, 0, "good")["health"]["state"] == "up" and state(asked, 0, "bad")["health"]["state"] == "down")
    until(lambda: state(asked, 0, "h3")["health"]["state"] == "up")
    assert "HTTP/3" in state(asked, 0, "h3")["health"]["reason"]
    assert "certificate" in state(asked, 0, "bad")["health"]["reason"].lower()


# ---- outliers ----

def test_outliers_by_latency(asked, edge, origins):
    made = origins("a", "b", "c", "d")
    page = Page(free_port())
    made[2].wait = 0.08
    rules = {"consecutive_errors": 0, "latency_percent": 300, "interval_ms": 1000, "min_requests": 5, "eject_ms": 60000, "max_eject_percent": 25}
    asked.start({"web": group(*made, check=None, outliers=rules)}, workers=1, metrics={"listen": f"127.0.0.1:{page.port}"})

    def ask():
        for _ in range(8):
            edge.curl("/")
        return state(asked, 2)["state"] == "down"

    until(ask)
    assert state(asked, 2)["left_out_for"] == "latency" and names(edge) == {"a", "b", "d"}
    assert page.value("cb_origin_outliers_total", group="web", origin=made[2].url, rule="latency") == 1
    edge.process.wait_for(f"{made[2].url} is left out for 60000 ms: latency")
    # two may not be left out: a quarter of four is one
    made[3].wait = 0.08
    for _ in range(40):
        edge.curl("/")
    until(lambda: (edge.curl("/"), state(asked, 3)["spared"] > 0)[1])
    assert names(edge) == {"a", "b", "d"}


def test_outliers_by_errors_in_a_row(asked, edge, origins):
    a, b = origins("a", "b")
    a.status = 500
    asked.start({"web": group(a, b, check=None, outliers={"consecutive_errors": 3, "eject_ms": 1500})}, workers=1)
    codes = [edge.status("/") for _ in range(20)]
    assert codes.count(500) == 3, codes
    assert state(asked)["left_out_for"] == "errors in a row"
    b.status = 500  # and the last one stays, whatever it answers
    assert {edge.status("/") for _ in range(10)} == {500} and state(asked, 1)["state"] == "up" and state(asked, 1)["spared"] > 0
    a.status = b.status = 200
    until(lambda: "a" in names(edge, 4))


# ---- what is refused ----

@pytest.mark.parametrize("block,where,says", [
    ({"check": {"kind": "exec"}}, "/groups/web/health/check", "belong together"),
    ({"check": {"kind": "tcp", "command": ["x"]}}, "/groups/web/health/check", "belong together"),
    ({"check": {"statuses": "2xx"}}, "/groups/web/health/check", "statuses"),
    ({"check": {"path": "ready"}}, "/groups/web/health/check", "has to begin with"),
    ({"check": {"versions": ["h3"]}}, "/groups/web/health/check", "HTTP/3 needs tls"),
    ({"check": {"interval_ms": 100, "fast_interval_ms": 200}}, "/groups/web/health/check", "fast_interval_ms (200)"),
    ({"check": {"damping": {"suppress": 10}}}, "/groups/web/health/check", "flap_suppress (10)"),
    ({"check": {"kind": "ping"}}, "/groups/web/health/check/kind", "icmp"),
    ({"check": {"intervall_ms": 5}}, "/groups/web/health/check/intervall_ms", "interval_ms"),
    ({"slow_start_ms": 5}, "/groups/web/health/slow_start_ms", "needs \"check\""),
    ({"outliers": {"latency_percent": 100}}, "/groups/web/health/outliers", "latency_percent"),
    ({"outliers": {"eject_ms": 5000, "max_eject_ms": 100}}, "/groups/web/health/outliers", "max_eject_ms (100)"),
    ({"outliers": {"max_eject_percent": 0}}, "/groups/web/health/outliers/max_eject_percent", "1"),
])
def test_what_is_refused(edge, block, where, says):
    edge.config({"web": {"origins": [{"url": "http://127.0.0.1:1"}], "health": block}})
    got = run(program("cb-edge"), "--config", edge.file, "--check")
    assert got.returncode == 1 and f"{where}:" in got.stderr and says in got.stderr, got.stderr
