"""Spans as a collector gets them: decoded by protoc with OpenTelemetry's own .proto files."""

import http.server
import threading
from pathlib import Path

import pytest

from conftest import peer, program, run

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
