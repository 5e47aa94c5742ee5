"""What cb-edge says about itself: its log, metrics and traces."""

import http.server
import json
import os
import re
import signal
import socket
import threading
import time
import urllib.request

import pytest
from conftest import free_port, program, run
from test_edge import Edge, edge, origin  # noqa: F401: fixtures


def until(what, seconds=30):
    """Asks until the answer is true, and gives it."""
    end = time.monotonic() + seconds
    while not (got := what()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
    return got


def has(path, text):
    return lambda: path.exists() and text in path.read_text()


# ---- the log ----

def test_log_formats_and_targets(edge, origin, tmp_path):
    log, second, moved = tmp_path / "edge.log", tmp_path / "second.log", tmp_path / "edge.log.1"
    groups = {"web": [f"http://127.0.0.1:{origin()}"]}
    edge.config(groups, log={"target": str(log), "format": "json", "levels": "warn,edge=info"})
    edge.process = edge.spawn(program("cb-edge"), "--config", edge.file, name="cb-edge")
    until(has(log, "ready with"))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["module"] for line in lines} == {"edge"} and all(line["level"] in ("info", "warn") and line["time"].endswith("Z") for line in lines)
    assert "ready with" not in edge.process.output()
    os.rename(log, moved)  # as logrotate does
    edge.process.send(signal.SIGUSR1)
    until(log.exists)
    edge.config(groups, log={"target": str(second), "format": "rfc5424"})
    edge.process.send(signal.SIGHUP)
    until(has(second, "reloaded"))
    assert re.match(r"<30>1 \S+ \S+ cb-edge \d+ edge - reloaded .*\n", second.read_text())
    assert log.read_text() == "" and "reloaded" not in moved.read_text()
    edge.config(groups, log={"target": "-"})
    edge.reload()
    assert re.search(r"^\S+Z info edge: reloaded ", edge.process.output(), re.M)
    assert edge.process.stop() == 0
    assert "draining" in edge.process.output() and "draining" not in second.read_text()


def test_log_levels_of_modules(edge, origin, tmp_path):
    log = tmp_path / "edge.log"
    groups = {"web": [f"http://127.0.0.1:{origin()}"]}
    more = {"target": str(log)}
    edge.config(groups, log={**more, "levels": "info,http=debug"})
    edge.process = edge.spawn(program("cb-edge"), "--config", edge.file, name="cb-edge")
    until(has(log, "ready with"))

    def fail_a_handshake():
        with socket.create_connection(("127.0.0.1", edge.tls_port)) as s:
            s.sendall(b"this is no TLS at all\n")
            s.recv(100)

    fail_a_handshake()
    until(has(log, "debug http: 127.0.0.1"))
    edge.config(groups, log={**more, "levels": "info,http=off"})
    edge.process.send(signal.SIGHUP)
    until(has(log, "reloaded"))
    before = log.read_text().count(" http: ")
    fail_a_handshake()
    time.sleep(0.2)
    assert log.read_text().count(" http: ") == before


def test_log_lines_are_not_lost_in_reloads(edge, origin, tmp_path):
    """Handshakes that fail make a line each, while the target changes under them."""
    logs = [tmp_path / f"{i}.log" for i in range(4)]
    groups = {"web": [f"http://127.0.0.1:{origin()}"]}
    edge.config(groups, log={"target": str(logs[0]), "levels": "info,http=debug"})
    edge.process = edge.spawn(program("cb-edge"), "--config", edge.file, name="cb-edge")
    until(has(logs[0], "ready with"))
    failed = 0
    for log in logs[1:]:
        edge.config(groups, log={"target": str(log), "levels": "info,http=debug", "format": ["text", "json"][failed % 2]})
        edge.process.send(signal.SIGHUP)
        while not has(log, "reloaded")():
            with socket.create_connection(("127.0.0.1", edge.tls_port)) as s:
                s.sendall(b"no TLS\n")
                s.recv(100)
            failed += 1

    def count():
        return sum(len(re.findall(r'http: 127|"http","text":"127', log.read_text())) for log in logs)

    until(lambda: count() == failed)
    assert failed > 3


def test_log_to_syslog_over_udp(edge, origin):
    server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    server.bind(("::1", 0))
    server.settimeout(10)
    edge.config({"web": [f"http://127.0.0.1:{origin()}"]}, log={"target": f"udp:[::1]:{server.getsockname()[1]}"})
    edge.process = edge.spawn(program("cb-edge"), "--config", edge.file, name="cb-edge")
    text = ""
    while "ready with" not in text:
        text = server.recv(4096).decode()
        assert re.match(r"<\d+>1 \S+ \S+ cb-edge \d+ \w+ - ", text), text
    server.close()


def test_a_log_file_is_the_users(edge, origin, nobody):
    """Made after the rights are given up, or a rotation could not make the next one."""
    user, folder = nobody
    edge.log = folder / "access.log"
    edge.config({"web": [f"http://127.0.0.1:{origin()}"]}, user="nobody", log={"target": str(folder / "edge.log")})
    edge.process = edge.spawn(program("cb-edge"), "--config", edge.file, name="cb-edge")
    until(has(folder / "edge.log", "ready with"))
    assert (folder / "edge.log").stat().st_uid == user.pw_uid and (folder / "edge.log").stat().st_mode & 0o777 == 0o640
    os.rename(folder / "edge.log", folder / "edge.log.1")
    edge.process.send(signal.SIGUSR1)
    until((folder / "edge.log").exists)


@pytest.mark.parametrize("log, pointer, what", [
    ({"levels": "info,quic=loud"}, "/log/levels", "loud"),
    ({"target": "/nonexistent/edge.log"}, "/log/target", "/nonexistent/edge.log"),
    ({"target": "/tmp"}, "/log/target", "/tmp"),
    ({"target": "udp:somewhere"}, "/log/target", "somewhere"),
    ({"format": "xml"}, "/log/format", "rfc5424"),
    ({"level": "info"}, "/log/level", "level"),
])
def test_log_mistakes(edge, log, pointer, what):
    edge.config({"web": ["http://127.0.0.1:1"]}, log=log)
    for options in (["--check"], []):
        got = run(program("cb-edge"), *options, "--config", edge.file)
        assert got.returncode == 1 and pointer in got.stderr and what in got.stderr, got.stderr


def test_log_check_makes_no_file(edge, tmp_path):
    edge.config({"web": ["http://127.0.0.1:1"]}, log={"target": str(tmp_path / "edge.log")})
    assert run(program("cb-edge"), "--check", "--config", edge.file).returncode == 0
    assert not (tmp_path / "edge.log").exists()


def test_a_bad_log_stops_a_reload(edge, origin):
    groups = {"web": [f"http://127.0.0.1:{origin()}"]}
    edge.start(groups)
    edge.config(groups, log={"target": "/nonexistent/edge.log"})
    edge.reload(good=False)
    assert "/log/target" in edge.process.output()
    assert edge.status("/page") == 200


# ---- traces ----

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Spans:
    """A collector for OTLP/JSON: what came, and what it was asked with."""

    def __init__(self):
        spans = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                spans.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                for resource in body["resourceSpans"]:
                    spans.resources.append({a["key"]: a["value"].get("stringValue") for a in resource["resource"]["attributes"]})
                    spans.all += [span for scope in resource["scopeSpans"] for span in scope["spans"]]
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.requests, self.resources, self.all = [], [], []
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def servers(self):
        return [span for span in list(self.all) if span["kind"] == 2]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def spans():
    collector = Spans()
    yield collector
    collector.close()


def test_spans_reach_the_collector(edge, origin, spans, tmp_path):
    secret = tmp_path / "token"
    secret.write_text("Bearer let-me-in\n")
    secret.chmod(0o600)
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]}, trusted_proxies=["127.0.0.0/8"],
               tracing={"url": spans.url, "format": "json", "authorization_file": str(secret), "service_name": "edge-of-a-test",
                        "resource": {"deployment.environment.name": "test"}})
    body = edge.curl("/head", "-H", f"traceparent: {CALLER}")[2]
    until(lambda: spans.servers())
    span = spans.servers()[0]
    assert span["traceId"] == CALLER[3:35] and span["parentSpanId"] == CALLER[36:52]
    assert f"traceparent: 00-{CALLER[3:35]}-".encode() in body and CALLER[36:52].encode() not in body
    path, head = spans.requests[0]
    assert path == "/v1/traces" and head["authorization"] == "Bearer let-me-in" and "let-me-in" not in edge.process.output()
    resource = spans.resources[0]
    assert resource["service.name"] == "edge-of-a-test" and resource["deployment.environment.name"] == "test"
    assert resource["service.instance.id"].endswith(f":{edge.process.pid}") and resource["host.name"] == socket.gethostname()
    line = edge.last("/head")
    assert line["trace_id"] == span["traceId"] and line["span_id"] == span["spanId"]


@pytest.mark.parametrize("trust, goes_on", [("trusted", False), ("all", True), ("nobody", False)])
def test_whose_trace_goes_on(edge, origin, spans, trust, goes_on):
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]}, tracing={"url": spans.url, "format": "json", "trust": trust})
    edge.curl("/page", "-H", f"traceparent: {CALLER}")
    until(lambda: spans.servers())
    assert (spans.servers()[0]["traceId"] == CALLER[3:35]) == goes_on


def test_which_traces_are_recorded(edge, origin, spans):
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]}, tracing={"url": spans.url, "format": "json", "one_in": 1000000000, "slow_ms": 300})
    for path in ("/page", "/page", "/status?503", "/slow?500"):
        edge.curl(path)
    until(lambda: len(spans.servers()) >= 2)
    time.sleep(1.2)  # more than a batch waits
    paths = sorted(attribute["value"]["stringValue"] for span in spans.servers() for attribute in span["attributes"] if attribute["key"] == "url.path")
    assert paths == ["/slow", "/status"]


def test_tracing_changes_by_a_reload_and_ends_with_all_spans(edge, origin, spans):
    groups = {"web": [f"http://127.0.0.1:{origin()}"]}
    edge.start(groups)
    edge.curl("/page")
    edge.config(groups, tracing={"url": spans.url, "format": "json", "per_second": 0})
    edge.reload()
    for _ in range(20):
        edge.curl("/page")
    edge.config(groups, tracing={"url": spans.url, "format": "json", "per_second": 0, "service_name": "second"})
    edge.reload()
    for _ in range(20):
        edge.curl("/page")
    assert edge.process.stop() == 0
    assert len(spans.servers()) == 40
    assert {resource["service.name"] for resource in spans.resources} == {"cb-edge", "second"}


def test_a_dead_collector_costs_nothing(edge, origin):
    page = free_port()
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]}, tracing={"url": f"http://127.0.0.1:{free_port()}"}, metrics={"listen": f"127.0.0.1:{page}"})
    for _ in range(5):
        assert edge.status("/page") == 200
    edge.process.wait_for("does not take spans")
    with urllib.request.urlopen(f"http://127.0.0.1:{page}/metrics", timeout=10) as got:
        text = got.read().decode()
    assert int(re.search(r'cb_trace_failed_requests_total{name="requests"} (\d+)', text)[1]) >= 1
    assert int(re.search(r'cb_trace_spans_total{name="requests"} (\d+)', text)[1]) >= 5
    begin = time.monotonic()
    assert edge.process.stop() == 0 and time.monotonic() - begin < 5


@pytest.mark.parametrize("tracing, pointer, what", [
    ({"url": "no url"}, "/tracing", "url"),
    ({"url": "http://127.0.0.1:1", "authorization_file": "/nonexistent"}, "/tracing/authorization_file", "/nonexistent"),
    ({"url": "https://127.0.0.1:1", "ca_file": "/nonexistent"}, "/tracing", "/nonexistent"),
    ({"url": "http://127.0.0.1:1", "cert_file": "x"}, "/tracing", "belong together"),
    ({"format": "json"}, "/tracing", "url"),
    ({"url": "http://127.0.0.1:1", "one_in": 0}, "/tracing/one_in", "1"),
])
def test_tracing_mistakes(edge, tracing, pointer, what):
    edge.config({"web": ["http://127.0.0.1:1"]}, tracing=tracing)
    for options in (["--check"], []):
        got = run(program("cb-edge"), *options, "--config", edge.file)
        assert got.returncode == 1 and pointer in got.stderr and what in got.stderr, got.stderr
