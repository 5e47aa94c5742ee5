"""cbctl as a client of an admin interface: what it asks, what it prints, its exit codes, and answers that nobody should send."""

import http.server
import json
import os
import re
import ssl
import subprocess
import threading
import time

import pytest
from conftest import TOP, free_port, peer, program, run
from fake_admin import METRICS, FakeAdmin, deaf, problem

CONFIG = {"workers": 2, "groups": {"web": {"origins": [{"url": "http://127.0.0.1:1"}]}}}


@pytest.fixture
def fake(tmp_path):
    made = []

    def make(answers):
        made.append(FakeAdmin(tmp_path / f"admin{len(made)}.sock", answers))
        return made[-1]

    yield make
    for one in made:
        one.close()


def cbctl(to, *words, **kw):
    return run(program("cbctl"), *words, "--socket", getattr(to, "path", to), env={**os.environ, "TERM": "xterm"}, **kw)


# ---- what it asks ----

@pytest.mark.parametrize("words, request_line, body", [
    (["status"], "GET /v1/status", ""),
    (["whoami"], "GET /v1/whoami", ""),
    (["get"], "GET /v1/config", ""),
    (["get", "/groups/web"], "GET /v1/config/groups/web", ""),
    (["get", "groups.web.origins.0"], "GET /v1/config/groups/web/origins/0", ""),
    (["get", "/a~1b/c d/ü"], "GET /v1/config/a~1b/c%20d/%C3%BC", ""),
    (["get", "/a?b#c%"], "GET /v1/config/a%3Fb%23c%25", ""),
    (["set", "workers", "4"], "PUT /v1/config/workers", "4"),
    (["set", "/log/level", "debug"], "PUT /v1/config/log/level", '"debug"'),
    (["set", "/x", '{"a": [1, 2.50]}'], "PUT /v1/config/x", '{"a": [1, 2.50]}'),
    (["set", "--text", "/x", "true"], "PUT /v1/config/x", '"true"'),
    (["set", "--dry-run", "/x", "true"], "PUT /v1/config/x?dry_run=true", "true"),
    (["unset", "groups.web"], "DELETE /v1/config/groups/web", ""),
    (["rollback", "17"], "POST /v1/revisions/17/rollback", ""),
    (["rollback", "17", "--dry-run"], "POST /v1/revisions/17/rollback?dry_run=true", ""),
    (["history"], "GET /v1/revisions?limit=20", ""),
    (["history", "--limit", "5"], "GET /v1/revisions?limit=5", ""),
    (["reload"], "POST /v1/reload", ""),
    (["drain"], "POST /v1/drain", "{}"),
    (["drain", "--timeout", "2m"], "POST /v1/drain", '{"timeout_ms": 120000}'),
    (["drain", "--timeout", "500ms"], "POST /v1/drain", '{"timeout_ms": 500}'),
    (["log"], "GET /v1/log", ""),
    (["log", "info,quic=debug"], "PUT /v1/log", '{"levels":"info,quic=debug"}'),
    (["log", "--reopen"], "POST /v1/log/reopen", ""),
    (["origin", "out", "we b", "3"], "PUT /v1/pools/we%20b/origins/3", '{"out": true}'),
    (["origin", "in", "web", "0"], "PUT /v1/pools/web/origins/0", '{"out": false}'),
    (["listeners"], "GET /v1/listeners", ""),
    (["routes"], "GET /v1/routes", ""),
    (["pools"], "GET /v1/pools", ""),
    (["pools", "web"], "GET /v1/pools/web", ""),
    (["certificates"], "GET /v1/certificates", ""),
    (["connections"], "GET /v1/connections?limit=1000", ""),
    (["audit", "list"], "GET /v1/audit?limit=100", ""),
    (["audit", "list", "--actor", "uid:0 & co", "--action", "putConfig", "--outcome", "denied", "--since", "@1700000000", "--limit", "7"],
     "GET /v1/audit?actor=uid%3A0%20%26%20co&action=putConfig&outcome=denied&since=1700000000&limit=7", ""),
    (["openapi"], "GET /v1/openapi.json", ""),
])
def test_what_is_asked(fake, words, request_line, body):
    method, target = request_line.split(" ", 1)
    admin = fake({f"{method} {target.split('?')[0]}": (200, {"etag": '"18"'}, {"items": [], "ok": True})})
    got = cbctl(admin, *words)
    assert got.returncode == 0, got
    assert [(a[0] + " " + a[1], a[3].decode()) for a in admin.asked] == [(request_line, body)]


def test_audit_since(fake):
    admin = fake({"GET /v1/audit": (200, {}, {"items": [{"seq": 3, "time": "2026-11-26T01:02:03.000004Z", "outcome": "denied", "action": "drain", "actor": "a"}]})})
    before = time.time()
    got = cbctl(admin, "audit", "list", "--since", "2h")
    asked = int(re.fullmatch(r"/v1/audit\?since=(\d+)&limit=100", admin.asked[0][1])[1])
    assert before - 7201 <= asked <= time.time() - 7200 and got.returncode == 0
    assert [line.split()[0] for line in got.stdout.splitlines()] == ["seq", "3"] and "denied" in got.stdout
    for wrong in ("soon", "@x", "@-1", "@"):
        refused = cbctl(admin, "audit", "list", "--since", wrong)
        assert refused.returncode == 2 and f'--since: "{wrong}"' in refused.stderr
    assert len(admin.asked) == 1


def test_fields_of_changes(fake):
    admin = fake({"PUT /v1/config/a": (200, {"etag": '"18"'}, {"revision": 18, "changed": True})})
    got = cbctl(admin, "set", "a", "1", "--if-match", "17", "--why", "more & more of it", "--idempotency-key", "k1")
    assert (got.returncode, got.stdout) == (0, "revision 18\n"), got
    fields = admin.asked[0][2]
    assert fields["if-match"] == '"17"' and fields["idempotency-key"] == "k1"
    assert admin.asked[0][1] == "/v1/config/a?reason=more%20%26%20more%20of%20it"
    assert fields["content-type"] == "application/json"
    cbctl(admin, "set", "a", "1", "--if-match", '"17"')
    cbctl(admin, "set", "a", "1", "--if-match", "*")
    assert [a[2].get("if-match") for a in admin.asked] == ['"17"', '"17"', "*"]
    assert cbctl(admin, "set", "a", "1", "--dry-run", "--why", "x").stdout == "it fits; nothing was changed\n"
    assert admin.asked[-1][1] == "/v1/config/a?dry_run=true&reason=x"
    admin.answers["PUT /v1/config/a"] = (200, {"etag": '"18"'}, {"revision": 18, "changed": False})
    assert cbctl(admin, "set", "a", "1").stdout == "revision 18, as before: it is so already\n"
    assert cbctl(admin, "set", "a", "1", "--why", "x" * 301).returncode == 2
    cbctl(admin, "get", "a")
    assert "if-match" not in admin.asked[-1][2]


@pytest.mark.parametrize("words, method, kind", [([], "PUT", "application/json"), (["--merge"], "PATCH", "application/merge-patch+json"),
                                                 (["--json-patch"], "PATCH", "application/json-patch+json")])
def test_a_document_is_applied_as_it_is(fake, tmp_path, words, method, kind):
    file = tmp_path / "edge.json"
    file.write_text('// comments stay\n{"workers": 4}\n')
    admin = fake({f"{method} /v1/config": (200, {"etag": '"2"'}, {})})
    assert cbctl(admin, "apply", *words, file).stdout == "revision 2\n"
    asked, url, fields, body = admin.asked[0]
    assert (asked, url, fields["content-type"], body) == (method, "/v1/config", kind, file.read_bytes())
    with file.open() as stdin:
        assert cbctl(admin, "apply", *words, "-", stdin=stdin).returncode == 0
    assert admin.asked[1][3] == file.read_bytes()


# ---- what is printed ----

def test_a_row_for_each_origin(fake):
    origins = [{"number": 0, "url": "http://a", "state": "up", "connections": {"open": 3, "failed": 0}, "back_in_ms": 0, "weight": 1},
               {"number": 1, "url": "http://b", "state": "down", "connections": {"open": 0, "failed": 12}, "back_in_ms": 2500, "weight": 1}]
    admin = fake({"GET /v1/pools": (200, {}, {"items": [{"group": "web", "policy": "round_robin", "origins": origins}, {"group": "none", "origins": []},
                                                        {"group": "x", "origins": origins[:1]}], "next": None}),
                  "GET /v1/certificates": (200, {}, {"items": [{"name": "a", "until": 1800000000, "age_ms": 90500, "good": True}], "next": None})})
    assert cbctl(admin, "pools").stdout == (
        "group  number  url       weight  state  connections.open  connections.failed  back_in\n"
        "web         0  http://a       1  up                    3                   0        0\n"
        "web         1  http://b       1  down                  0                  12    2.50s\n"
        "x           0  http://a       1  up                    3                   0        0\n")
    assert cbctl(admin, "certificates").stdout.splitlines()[1].split() == ["a", "2027-01-15", "08:00:00Z", "90.5s", "yes"]


def test_tables(fake):
    admin = fake({"GET /v1/routes": (200, {}, {"items": [
        {"group": "web", "origins": 2, "tls": {"version": "1.3"}, "tags": ["a", "b"]},
        {"group": "a longer name", "origins": 12, "state": "down"}], "next": None})})
    assert cbctl(admin, "routes").stdout == (
        "group          origins  tls.version  tags  state\n"
        "web                  2  1.3          a,b   -\n"
        "a longer name       12  -            -     down\n")
    assert json.loads(cbctl(admin, "routes", "--json").stdout)["items"][1]["origins"] == 12


def test_an_object_and_its_tables(fake):
    admin = fake({"GET /v1/status": (200, {}, {"version": "0.1.0", "draining": False, "load": 0.25, "since": None,
                                               "workers": [{"n": 0, "connections": 4}], "totals": {"requests": 123456789012}})})
    assert cbctl(admin, "status").stdout == (
        "version          0.1.0\n"
        "draining         no\n"
        "load             0.25\n"
        "since            -\n"
        "totals.requests  123456789012\n"
        "\n"
        "workers\n"
        "  n  connections\n"
        "  0            4\n")


def test_get_prints_json_and_texts(fake):
    admin = fake({"GET /v1/config": (200, {}, '{"n": 12345678901234567890, "f": 1.50, "e": {}, "l": [], "t": "a\\u0000\\"b"}'),
                  "GET /v1/config/t": (200, {}, '"plain text"')})
    assert cbctl(admin, "get").stdout == '{\n  "n": 12345678901234567890,\n  "f": 1.50,\n  "e": {},\n  "l": [],\n  "t": "a\\u0000\\"b"\n}\n'
    assert cbctl(admin, "get", "t").stdout == "plain text\n"
    assert cbctl(admin, "get", "t", "--json").stdout == '"plain text"\n'


EVIL = "a\x1b[2J\x1b]0;x\x07\x9b1m\u202eb\u2028c\td\ne\x7f\U000e0041 ü 漢"


def texts_of(value):
    """Every text in a JSON value, names included."""
    if isinstance(value, dict):
        return [t for pair in value.items() for part in pair for t in texts_of(part)]
    return [t for part in value for t in texts_of(part)] if isinstance(value, list) else [value]


def test_what_others_wrote_cannot_move_the_cursor(fake):
    admin = fake({"GET /v1/routes": (200, {}, {"items": [{EVIL: EVIL}]}),
                  "GET /v1/status": (200, {}, {EVIL: EVIL, "list": [{EVIL: EVIL}]}),
                  "GET /v1/config": (200, {}, json.dumps({EVIL: EVIL}, ensure_ascii=False)),
                  "GET /v1/config/t": (200, {}, json.dumps(EVIL)),
                  "GET /v1/config/bytes": (200, {}, b'"\xff\xfe\x80 \xc0\x80 \xed\xa0\x80"'),
                  "GET /v1/config/x": problem(404, EVIL, EVIL, errors=[{"pointer": EVIL, "detail": EVIL}]),
                  "GET /v1/config/y": (200, {"content-type": "text/\x1b[31mx"}, "?"),
                  "GET /v1/events": (200, {"content-type": "text/event-stream"},
                                     "event: a\x1b[2J\ndata: " + json.dumps({EVIL: EVIL}, ensure_ascii=False) + "\n\n"),
                  "GET /metrics": (200, {"content-type": "text/plain"}, '# HELP x a\x1b[2J\n# TYPE x gauge\nx{l="\x1b[2J\u202e"} 1\n')})
    for words in (["routes"], ["status"], ["get"], ["get", "t"], ["get", "bytes"], ["get", "x"], ["get", "y"], ["events", "--limit", "1"], ["metrics"],
                  ["routes", "--json"], ["get", "--json"], ["metrics", "--json"], ["metrics", "--raw"], ["events", "--limit", "1", "--json"],
                  ["get", "x", "--json"]):
        got = cbctl(admin, *words, binary=True)
        said = (got.stdout + got.stderr).decode("utf-8")  # and all of it is UTF-8
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U0010ffff]", said), (words, said)
        if "--json" in words and got.returncode == 0:
            values = [json.loads(line) for line in got.stdout.splitlines()] if words[0] == "events" else [json.loads(got.stdout)]
            assert words[0] == "metrics" or EVIL in texts_of(values), words


def test_metrics(fake):
    admin = fake({"GET /metrics": (200, {"content-type": "text/plain; version=0.0.4"}, METRICS)})
    got = cbctl(admin, "metrics").stdout.splitlines()
    assert got[0].split() == ["metric", "labels", "value"]
    assert got[1].split() == ["cb_demo_requests_total", "route=web,class=2xx", "120"]
    assert got[3].split(None, 2) == ["cb_demo_seconds", "route=web", "100: mean 5.00ms, p50 1.00ms, p90 10.0ms, p99 91.0ms"]
    assert got[4].split() == ["process_open_fds", "12"]
    assert len(cbctl(admin, "metrics", "process").stdout.splitlines()) == 2
    assert len(cbctl(admin, "metrics", "*_seconds", "process_open_fds").stdout.splitlines()) == 3
    assert cbctl(admin, "metrics", "--raw").stdout == METRICS
    assert cbctl(admin, "metrics", "--raw", "process").stdout == "# TYPE process_open_fds gauge\nprocess_open_fds 12\n"
    families = json.loads(cbctl(admin, "metrics", "--json", "cb_demo").stdout)
    assert [f["type"] for f in families] == ["counter", "histogram"]
    assert families[0]["samples"][1] == {"name": "cb_demo_requests_total", "labels": {"route": "web", "class": "5xx"}, "value": 3}
    assert families[1]["samples"][3]["labels"]["le"] == "+Inf"


def test_events(fake):
    stream = ": hello\n\nevent: config\nid: 1\ndata: {\"revision\": 18}\n\nevent: stats\rdata: {\"rps\":\rdata: 5}\r\rdata: not JSON\r\n\r\nevent: empty\n\nevent: cut\ndata: {}"
    admin = fake({"GET /v1/events": (200, {"content-type": "text/event-stream"}, stream)})
    got = cbctl(admin, "events", "--limit", "3")
    assert got.returncode == 0, got
    assert [line.split(" ", 1)[1] for line in got.stdout.splitlines()] == ["config revision=18", "stats rps=5", "message not JSON"]
    got = cbctl(admin, "events", "--type", "stats,drain", "--limit", "1", "--json")
    assert (got.returncode, json.loads(got.stdout)) == (0, {"event": "stats", "data": {"rps": 5}})
    assert [a[1] for a in admin.asked] == ["/v1/events", "/v1/events?types=stats,drain"]


def test_events_go_on_where_they_ended(fake):
    def stream(handler):
        n = int(handler.headers.get("last-event-id") or 0) + 1
        if n == 4:
            return b""
        if n == 5:
            return problem(403, "Forbidden")
        return 200, {"content-type": "text/event-stream"}, f"id: {n}\nevent: config\ndata: {n}\n\nid: 99\nevent: cut"

    admin = fake({"GET /v1/events": stream})
    got = cbctl(admin, "events", "--limit", "3")
    assert (got.returncode, [line.split()[2] for line in got.stdout.splitlines()]) == (0, ["1", "2", "3"]), got
    assert [a[2].get("last-event-id") for a in admin.asked] == [None, "1", "2"]
    got = cbctl(admin, "events", "--patience", "1s")
    assert got.returncode == 5 and len(got.stdout.splitlines()) == 3 and "closed" in got.stderr, got
    admin.answers["GET /v1/events"] = problem(403, "Forbidden")
    assert cbctl(admin, "events").returncode == 3


def test_pages(fake):
    def page(handler):
        cursor = int((re.search(r"cursor=(\d+)", handler.path) or [0, 0])[1])
        limit = int(re.search(r"limit=(\d+)", handler.path)[1])
        items = [{"n": i} for i in range(cursor, min(cursor + min(limit, 400), 1500))]
        end = cursor + len(items)
        return 200, {}, {"items": items, "next": str(end) if end < 1500 else None}

    admin = fake({"GET /v1/connections": page})
    assert len(json.loads(cbctl(admin, "connections", "--json").stdout)) == 1000
    assert len(json.loads(cbctl(admin, "connections", "--json", "--limit", "5000").stdout)) == 1500
    assert len(json.loads(cbctl(admin, "connections", "--json", "--limit", "401").stdout)) == 401
    again = fake({"GET /v1/connections": (200, {}, {"items": [], "next": "again"})})
    assert cbctl(again, "connections").returncode == 0 and len(again.asked) == 1, "a page without items ends it"


def test_diff(fake, tmp_path):
    other = {"workers": 4, "groups": {"web": {"origins": [{"url": "http://127.0.0.1:1"}, {"url": "http://127.0.0.1:2"}]}}}
    admin = fake({"GET /v1/config": (200, {"etag": '"3"'}, other),
                  "GET /v1/revisions": (200, {}, {"items": [{"revision": 3}, {"revision": 1}], "next": None}),
                  "GET /v1/revisions/1": (200, {}, {"revision": 1, "document": CONFIG}),
                  "GET /v1/revisions/3": (200, {}, {"revision": 3, "document": other})})
    file = tmp_path / "edge.json"
    file.write_text("{\"workers\": 2, // as it was\n" + json.dumps(CONFIG)[1:].split(",", 1)[1])
    forward = ['- /workers: 2', '+ /workers: 4', '+ /groups/web/origins/1: {"url":"http://127.0.0.1:2"}']
    for words in ([], ["1"], ["1", "3"]):
        assert sorted(cbctl(admin, "diff", *words).stdout.splitlines()) == sorted(forward), words
    assert '+ /workers: 2' in cbctl(admin, "diff", file).stdout
    assert cbctl(admin, "diff", "3").stdout == ""
    patch = json.loads(cbctl(admin, "diff", "1", "--json").stdout)
    assert {"op": "replace", "path": "/workers", "value": 4} in patch
    file.write_text('{"workers": 2,}')
    got = cbctl(admin, "diff", file)
    assert got.returncode == 6 and got.stderr.startswith(f"{file}:1:15: "), got
    assert cbctl(admin, "diff", "1", file).returncode == 2


# ---- when it does not do ----

@pytest.mark.parametrize("answer, code, says", [
    (problem(400, "Bad Request", "unknown query parameter"), 1, "400 Bad Request: unknown query parameter"),
    (problem(401, "Unauthorized"), 3, "401 Unauthorized"),
    (problem(403, "Forbidden", "uid:1000 has no right to change"), 3, "uid:1000"),
    (problem(404, "Not Found"), 1, "404 Not Found"),
    (problem(409, "Conflict"), 4, "409"),
    (problem(412, "Precondition Failed", "the current revision is 18"), 4, "is 18"),
    (problem(428, "Precondition Required"), 4, "428"),
    (problem(422, "Unprocessable", errors=[]), 1, "422"),
    (problem(507, "Insufficient Storage"), 1, "507"),
    (problem(503, "Service Unavailable"), 1, "503"),
    ((302, {"location": "/x"}, ""), 1, "302"),
    ((500, {"content-type": "text/html"}, "<h1>oh</h1>"), 1, "500"),
    ((500, {"content-type": "application/problem+json"}, "not even JSON"), 1, "500"),
    ((500, {"content-type": "application/problem+json"}, '["a list"]'), 1, "500"),
    ((500, {"content-type": "application/problem+json"}, '{"title": 5, "detail": {}, "errors": "x"}'), 1, "500"),
])
def test_errors_have_their_codes(fake, answer, code, says):
    admin = fake({"PUT /v1/config/a": answer})
    got = cbctl(admin, "set", "a", "1")
    assert (got.returncode, got.stdout) == (code, ""), got
    assert says in got.stderr and got.stderr.startswith(f"cbctl: unix:{admin.path}: ")


def test_mistakes_have_their_places(fake, tmp_path):
    file = tmp_path / "edge.json"
    file.write_text('{\n  "workers": 1,\n  "odd": {"in": 5}}\n')
    mistakes = [{"pointer": "/groups/web/origins/0/url", "detail": "no URL", "line": 12, "column": 5}, {"pointer": "", "detail": "no routes"},
                {"detail": "x", "line": -1, "column": 1e99}, "odd", None, {"pointer": "/odd/in", "detail": "no number"},
                {"pointer": 5, "line": "1"}]
    admin = fake({"PUT /v1/config": problem(400, "Bad Request", "2 mistakes", errors=mistakes)})
    got = cbctl(admin, "apply", file)
    assert got.returncode == 6
    lines = got.stderr.splitlines()
    assert lines[1:4] == [f"{file}:12:5: /groups/web/origins/0/url: no URL", f"{file}:1:1: no routes", f"{file}: x"]
    assert lines[6] == f"{file}:3:11: /odd/in: no number" and len(lines) == 8, "a place that the daemon does not know is found in the file"
    got = cbctl(admin, "apply", file, "--json")
    assert json.loads(got.stdout)["errors"][0]["line"] == 12


ODD = [
    (b"", 5, "closed"),
    (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"a\":", 1, "cut off"),
    (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":", 1, "cut off"),
    (b"SSH-2.0-OpenSSH\r\n", 5, "HTTP"),
    (b"\x00" * 500, 5, ""),
    (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000, 5, ""),
    (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi", 1, "text/html, not JSON"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 1, "of no type, not JSON"),
    (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n{", 1, "not JSON, although"),
    (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n", 1, "not JSON, although"),
    (b"HTTP/1.1 204 No Content\r\n\r\n", 1, "not JSON"),
]


@pytest.mark.parametrize("raw, code, says", ODD, ids=range(len(ODD)))
def test_odd_answers(fake, raw, code, says):
    admin = fake({"GET /v1/status": lambda handler: raw})
    got = cbctl(admin, "status")
    assert (got.returncode, got.stdout) == (code, "") and says in got.stderr, got


def test_huge_and_deep_answers(fake):
    block = b"a" * (1 << 20)

    def huge(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % (70 << 20))
        for _ in range(70):
            handler.wfile.write(block)
        return b""

    admin = fake({"GET /metrics": huge, "GET /v1/status": (200, {}, "[" * 100_000 + "]" * 100_000),
                  "GET /v1/routes": (200, {}, json.dumps({"items": [{f"m{i}": i for i in range(200)}] * 50})),
                  "GET /v1/config": (200, {}, "[" * 100 + "]" * 100)})
    got = cbctl(admin, "metrics")
    assert got.returncode == 1 and "larger than 64 MiB" in got.stderr
    assert cbctl(admin, "status").returncode == 1
    assert len(cbctl(admin, "routes").stdout.splitlines()) == 51
    assert cbctl(admin, "get").returncode == 0


def test_bad_metrics(fake):
    rows = ["x{", "x{a}", 'x{a="b} 1', 'x{a="b"', "x", "x y", "{} 1", "x 1 2 3\n# TYPE", 'x{a="\\q"} 1', "x\0 1", "1x 1", "# HELP", "x 1\n" * 3 + "?"]
    for row in rows:
        admin = fake({"GET /metrics": (200, {"content-type": "text/plain"}, row)})
        got = cbctl(admin, "metrics")
        assert got.returncode in (0, 1) and (got.returncode == 0 or "of the metrics" in got.stderr), (row, got)
    admin = fake({"GET /metrics": (200, {"content-type": "text/plain"}, "")})
    assert cbctl(admin, "metrics").returncode == 0


def test_nobody_there(tmp_path):
    silent = deaf(tmp_path / "deaf.sock")
    began = time.monotonic()
    got = cbctl(tmp_path / "deaf.sock", "status", "--patience", "300ms")
    assert got.returncode == 5 and time.monotonic() - began < 5, got
    got = cbctl(tmp_path / "deaf.sock", "events", "--patience", "300ms")
    assert got.returncode == 5 and "in time" in got.stderr, got
    silent.close()
    for path, why in ((tmp_path / "absent.sock", "there is no such socket"), (tmp_path / "deaf.sock", "Connection refused")):
        got = cbctl(path, "status")
        assert got.returncode == 5 and f"unix:{path}: {why}" in got.stderr, got
    got = run(program("cbctl"), "status", "--url", f"http://127.0.0.1:{free_port()}")
    assert got.returncode == 5, got
    got = run(program("cbctl"), "status", env={**os.environ, "CBCTL_SOCKET": str(tmp_path / "from-env.sock")})
    assert got.returncode == 5 and "from-env.sock" in got.stderr


def test_a_socket_of_somebody_else(tmp_path):
    admin = FakeAdmin(tmp_path / "admin.sock", {"GET /v1/status": (200, {}, {"ok": True})})
    try:
        os.chmod(admin.path, 0o600)
        if os.geteuid() != 0:
            pytest.skip("needs root to be somebody else")
        os.chmod(tmp_path, 0o755)
        got = subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", program("cbctl"), "status", "--socket", admin.path],
                             capture_output=True, text=True, timeout=30)
        if "failed to execute" in got.stderr or "Permission denied" not in got.stderr:
            pytest.skip("the folders above are not open to others")
        assert got.returncode == 3, got
    finally:
        admin.close()


@pytest.mark.parametrize("words, says", [
    (["status", "x"], 'what is "x"'),
    (["set", "a"], "PATH and VALUE"),
    (["apply"], "one FILE"),
    (["apply", "--merge", "--json-patch", "/etc/hosts"], "not both"),
    (["rollback"], "one revision"),
    (["rollback", "x"], "one revision"),
    (["rollback", "-1"], "unknown option"),
    (["drain", "--timeout", "soon"], "--timeout"),
    (["status", "--patience", "0"], "--patience"),
    (["status", "--patience", "99999h"], "--patience"),
    (["status", "--url", "http://example.org"], "is not https://"),
    (["status", "--url", "http://127.0.0.1.example.org"], "is not https://"),
    (["status", "--url", "https://x", "--socket", "/x"], "not both"),
    (["status", "--ca", "/x"], "--url"),
    (["status", "--url", "https://x", "--cert", "/x"], "belong together"),
    (["status", "--socket", "/" + "x" * 200], "too long"),
    (["status", "--nothing"], "--nothing"),
    (["status", "--socket"], "needs a value"),
    (["log", "info", "quic=debug"], "one word"),
    (["origin", "out", "web"], "GROUP and the number"),
    (["origin", "out", "web", "first"], "not a number"),
    (["origin"], "which command"),
    (["metrics", "--raw", "--json"], "not both"),
    (["history", "--limit", "0"], "--limit"),
    (["top", "--interval", "1ms"], "--interval"),
    (["top", "--sort", "luck"], "--sort"),
    (["completion"], "which shell"),
    (["completion", "csh"], "csh"),
    (["diff", "1", "2", "3"], "diff"),
])
def test_usage(words, says):
    got = run(program("cbctl"), *words)
    assert (got.returncode, got.stdout) == (2, "") and says in got.stderr, got


# ---- over a network ----

@pytest.fixture
def door(pki):
    """An https server that tells who came: its URL, and what it was asked."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def do_GET(self):
            asked.append((self.path, self.headers.get("authorization"), self.connection.getpeercert()))
            body = b'{"ok": true}'
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki["cert"], pki["key"])
    context.load_verify_locations(pki["ca"])
    context.verify_mode = ssl.CERT_OPTIONAL
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"https://localhost:{server.server_port}", asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_over_tls(door, pki, tmp_path):
    url, asked = door
    token = tmp_path / "token"
    token.write_text("abc.def\nnot this\n")
    got = run(program("cbctl"), "status", "--url", url + "/", "--ca", pki["ca"], "--token-file", token)
    assert (got.returncode, got.stdout) == (0, "ok  yes\n"), got
    assert asked[-1][:2] == ("/v1/status", "Bearer abc.def") and not asked[-1][2]
    with token.open() as stdin:
        assert run(program("cbctl"), "status", "--url", url, "--ca", pki["ca"], "--token-file", "-", stdin=stdin).returncode == 0
    assert asked[-1][1] == "Bearer abc.def"
    run(program("cbctl"), "ca", "dev", "--dir", pki["dir"], "operator.test")
    got = run(program("cbctl"), "status", "--url", url, "--ca", pki["ca"], "--cert", pki["dir"] / "operator.test.pem", "--key", pki["dir"] / "operator.test-key.pem")
    assert got.returncode == 0 and ("DNS", "operator.test") in asked[-1][2]["subjectAltName"], got
    got = run(program("cbctl"), "status", "--url", url)
    assert got.returncode == 5 and url in got.stderr and len(asked) == 3, "without --ca its certificate is nobody's"
    got = run(program("cbctl"), "status", "--url", url.replace("localhost", "127.0.0.2"), "--ca", pki["ca"])
    assert got.returncode == 5 and len(asked) == 3
    for bad in ("", "\nsecond line\n", "x" * 8193):
        token.write_text(bad)
        assert run(program("cbctl"), "status", "--url", url, "--ca", pki["ca"], "--token-file", token).returncode == 2
    assert run(program("cbctl"), "status", "--url", url, "--ca", pki["ca"], "--token-file", tmp_path / "none").returncode == 1
    assert len(asked) == 3


# ---- help, completion and the man page know the same ----

def commands():
    """(words of the command, its options) as --help has them."""
    lines = run(program("cbctl"), "--help").stdout.splitlines()
    usage = [line.split() for line in lines if re.match(r"  [a-z]", line)]
    groups = [words[0] for words in usage]
    for words in usage:
        name = words[:2] if groups.count(words[0]) > 1 or words[0] == "ca" else words[:1]
        got = run(program("cbctl"), *name, "--help")
        assert got.returncode == 0 and got.stdout.startswith("Usage: cbctl " + " ".join(name)), name
        yield name, re.findall(r"^  --([a-z0-9-]+)", got.stdout, re.M)


def test_the_man_page_is_complete():
    page = (TOP / "daemons/cbctl/cbctl.1.scd").read_text()
    found = list(commands())
    assert len(found) > 45 and ["top"] in [name for name, _ in found]
    for name, options in found:
        assert re.search(rf"^.*\*cbctl {' '.join(name)}[ *]", page, re.M), f"cbctl.1.scd: no {name}"
        assert options or name in (["policy", "schema"], ["completion"]), name
        for option in options:
            assert f"*--{option}*" in page, f"cbctl.1.scd: no --{option} of {name}"
    for code in re.findall(r"= (\d)", re.search(r"enum cbctl_code \{(.*?)\};", (TOP / "daemons/cbctl/cbctl.h").read_text(), re.S)[1]):
        assert re.search(rf"^[|]\[? +\*{code}\*$", page, re.M), f"cbctl.1.scd: no exit status {code}"


def test_help_names_what_is_taken():
    """The older commands parse their options by tables of their own: each of those is in the help of some command of that file."""
    listed = {}
    for name, options in commands():
        listed.setdefault(name[0], set()).update(options)
    for file in sorted((TOP / "daemons/cbctl").glob("*.c")):
        taken = set(re.findall(r'\{"([a-z0-9-]+)", (?:no|required)_argument', file.read_text()))
        group = file.stem.split("_")[0]
        assert not taken or taken <= listed[group], (file.name, taken - listed[group])


def bash(*words):
    """What bash would complete behind these words."""
    script = ('eval "$(%s completion bash)"; COMP_WORDS=(cbctl %s); COMP_CWORD=$((${#COMP_WORDS[@]}-1)); _cbctl; printf "%%s\\n" "${COMPREPLY[@]}"'
              % (program("cbctl"), " ".join(f"'{w}'" for w in words)))
    got = run(peer("bash"), "--norc", "-c", script)
    assert got.returncode == 0, got.stderr
    return got.stdout.split()


def test_bash_completes_all():
    found = list(commands())
    assert set(bash("")) == {name[0] for name, _ in found} | {"--help", "--version"}
    for name, options in found:
        if len(name) == 2:
            assert name[1] in bash(name[0], "")
        if name != ["completion"]:
            assert set(bash(*name, "--")) == {f"--{o}" for o in options} | {"--help"}, name


def test_bash_completes_values(tmp_path):
    (tmp_path / "a file.json").write_text("{}")
    (tmp_path / "folder").mkdir()
    assert bash("ca", "issue", "--profile", "s") == ["server", "svid"]
    assert bash("top", "--sort", "req") == ["requests"]
    assert bash("ca", "issue", "--dir", f"{tmp_path}/") == [f"{tmp_path}/folder"]
    assert f"{tmp_path}/folder" in bash("apply", f"{tmp_path}/")
    assert bash("get", "--url", "x") == [] and bash("completion", "z") == ["zsh"]
    assert bash("sta") == ["status"] and bash("nothing", "") == []


@pytest.mark.parametrize("shell, check", [("bash", ["-n"]), ("zsh", ["-n"]), ("fish", ["--no-execute"])])
def test_completions_parse(tmp_path, shell, check):
    text = run(program("cbctl"), "completion", shell).stdout
    for name, options in commands():
        for word in [*name, *options]:
            assert word in text, (shell, name, word)
    script = tmp_path / "script"
    script.write_text(text)
    got = run(peer(shell), *check, script)
    assert got.returncode == 0, got.stderr
