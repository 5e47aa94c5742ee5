"""Spans as a collector gets them: decoded by protoc with OpenTelemetry's own .proto files."""

import http.server
import re
import threading
import time
from pathlib import Path

import pytest

from conftest import compile_c, free_port, peer, program, run

PROTO = Path("/usr/include")
SERVICE = "opentelemetry/proto/collector/trace/v1/trace_service.proto"
CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Collector(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.got.append((self.path, dict(self.headers), self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def collector():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        server.got = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def decoded(body, folder):
    if not (PROTO / SERVICE).exists():
        pytest.skip("opentelemetry-proto is not installed")
    (folder / "body").write_bytes(body)
    got = run("sh", "-c", f"'{peer('protoc')}' -I {PROTO} --decode=opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest {SERVICE} < {folder}/body")
    assert got.returncode == 0, got.stderr
    return got.stdout


def test_protoc_decodes_what_is_sent(collector, tmp_path):
    got = run(program("tracing"), f"http://127.0.0.1:{collector.server_port}", CALLER)
    assert got.returncode == 0 and got.stdout.endswith(": 2 sent, 0 dropped\n"), got.stdout + got.stderr
    assert got.stdout.startswith("00-4bf92f3577b34da6a3ce929d0e0e4736-")
    (path, headers, body), = collector.got
    assert path == "/v1/traces" and headers["content-type"] == "application/x-protobuf"
    text = decoded(body, tmp_path)
    for part in ('string_value: "tracing-example"', 'name: "libcb"', 'name: "query"', "kind: SPAN_KIND_CLIENT", 'name: "GET /"', "kind: SPAN_KIND_SERVER",
                 'key: "http.request.method"', "int_value: 500", 'message: "the database is asleep"', "code: STATUS_CODE_ERROR",
                 r'parent_span_id: "\000\360g\252\013\251\002\267"', r'trace_id: "K\371/5w\263M\246\243\316\222\235\016\016G6"', "flags: 1"):
        assert part in text, text
    assert not [line for line in text.splitlines() if line.strip()[:1].isdigit()], "fields that the .proto files do not know"


def test_a_trace_of_its_own(collector, tmp_path):
    got = run(program("tracing"), f"http://127.0.0.1:{collector.server_port}/", "00-zz")
    assert got.returncode == 0, got.stderr
    assert decoded(collector.got[0][2], tmp_path).count("parent_span_id") == 1  # of the query, below the request


def test_no_collector(tmp_path):
    got = run(program("tracing"), "not a url")
    assert got.returncode == 1 and "CB_EINVAL" in got.stderr


class Origin(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.got.append({name.lower(): value for name, value in self.headers.items()})
        self.send_response(503 if "broken" in self.path else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def origin():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin) as server:
        server.got = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def octal(text):
    """Bytes as protoc writes them, in hexadecimal."""
    names = {"n": 10, "r": 13, "t": 9, '"': 34, "'": 39, "\\": 92}
    out = bytearray()
    for escape, plain in re.findall(r"\\([0-7]{1,3}|.)|([^\\])", text):
        out.append(ord(plain) if plain else int(escape, 8) if escape[0] in "01234567" else names[escape])
    return out.hex()


def spans_of(text):
    """The spans of what protoc prints: name, kind, IDs, attributes."""
    spans = []
    for block in re.split(r"^    spans \{$", text, flags=re.M)[1:]:
        field = dict(re.findall(r'^      (\w+): "?(.*?)"?$', block, re.M))
        attributes = {key: value.strip('"') for key, value in re.findall(r'key: "([^"]+)"\s+value \{\s+\w+_value: (.*)', block)}
        spans.append({"name": field["name"], "kind": field.get("kind"), "trace": octal(field["trace_id"]), "id": octal(field["span_id"]),
                      "parent": octal(field.get("parent_span_id", "")), "from": int(field["start_time_unix_nano"]),
                      "to": int(field["end_time_unix_nano"]), "failed": "code: STATUS_CODE_ERROR" in block, "at": attributes})
    return spans


@pytest.fixture
def traced(spawn, pki, collector, origin, tmp_path, tmp_path_factory):
    """A proxy in front of a proxy; get(path, ...) asks the first, all(n) gives the n spans that came."""
    binary = compile_c(Path(__file__).parent / "traced_proxy.c", tmp_path_factory.mktemp("traced"))
    ports = [free_port(), free_port()]
    urls = [f"https://localhost:{ports[1]}", f"http://127.0.0.1:{origin.server_port}"]
    for i, (port, url) in enumerate(zip(ports, urls)):
        spawn(binary, f"127.0.0.1:{port}", pki["cert"], pki["key"], pki["ca"], url, f"http://127.0.0.1:{collector.server_port}", name=f"traced-{i}").wait_for("listening on")

    class Traced:
        hop = 1

        def get(self, path, *options):
            got = run(peer("curl"), "-s", "-o", "/dev/null", "-w", "%{http_code} %{http_version}", "--max-time", "20", "--cacert", pki["ca"], *options,
                      f"https://localhost:{ports[self.hop]}{path}")
            assert got.returncode == 0, got.stderr
            return got.stdout

        def all(self, n):
            end = time.monotonic() + 30
            while True:
                found = [span for _, _, body in list(collector.got) for span in spans_of(decoded(body, tmp_path))]
                if len(found) >= n or time.monotonic() > end:
                    return found
                time.sleep(0.05)

    return Traced()


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_a_proxy_is_a_part_of_its_callers_trace(traced, origin, version):
    assert traced.get("/x?a=1&token=hush", version, "-H", f"traceparent: {CALLER}", "-H", "tracestate: congo=t61,rojo=1").startswith("200")
    spans = {span["name"]: span for span in traced.all(6)}
    assert set(spans) == {"GET /", "GET", "accept", "handshake", "route", "connect"}, spans
    assert {span["trace"] for span in spans.values()} == {CALLER[3:35]}
    server, client = spans["GET /"], spans["GET"]
    assert (server["kind"], client["kind"]) == ("SPAN_KIND_SERVER", "SPAN_KIND_CLIENT")
    assert server["parent"] == CALLER[36:52] and client["parent"] == server["id"] and spans["connect"]["parent"] == client["id"]
    assert spans["accept"]["parent"] == server["id"] and spans["handshake"]["parent"] == spans["accept"]["id"]
    assert origin.got[0]["traceparent"] == f"00-{CALLER[3:35]}-{client['id']}-01" and origin.got[0]["tracestate"] == "congo=t61,rojo=1"
    assert spans["handshake"]["from"] <= spans["handshake"]["to"] <= server["to"] and server["from"] <= client["from"] <= client["to"] <= server["to"]
    assert server["at"]["url.query"] == "a=1&token=REDACTED" and server["at"]["network.protocol.version"] == ("2" if version == "--http2" else "1.1")
    assert server["at"]["http.response.status_code"] == "200" and server["at"]["http.route"] == "/" and client["at"]["url.full"].endswith("token=REDACTED")
    assert abs(server["to"] / 1e9 - time.time()) < 60, "nanoseconds since 1970"


def test_a_failure_of_the_origin(traced, origin):
    assert traced.get("/broken").startswith("503")
    spans = {span["name"]: span for span in traced.all(6)}
    assert spans["GET /"]["failed"] and spans["GET"]["failed"] and spans["GET"]["at"]["error.type"] == "503" and spans["GET /"]["parent"] == ""
    assert not spans["connect"]["failed"]


def test_two_proxies_are_one_trace(traced, origin):
    """The second hop's span is below the first's attempt, over HTTP/2 with TLS between them."""
    traced.hop = 0
    assert traced.get("/", "--http2", "-H", f"traceparent: {CALLER}").startswith("200")
    spans = traced.all(12)
    assert len(spans) == 12 and {span["trace"] for span in spans} == {CALLER[3:35]}
    by_id = {span["id"]: span for span in spans}
    last = next(span for span in spans if span["kind"] == "SPAN_KIND_CLIENT" and origin.got[0]["traceparent"].split("-")[2] == span["id"])
    chain = [last["name"]]
    while last["parent"] in by_id:
        last = by_id[last["parent"]]
        chain.append(last["name"])
    assert chain == ["GET", "GET /", "GET", "GET /"] and last["parent"] == CALLER[36:52]
