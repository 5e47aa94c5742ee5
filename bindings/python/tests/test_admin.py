"""The client of an administration interface, against a server of the binding's own on a unix socket, and against cb-edge where it was built."""

import asyncio
import json
import math
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cb
import cb.admin
import cb.aio
import cb.metrics

METRICS = """\
# HELP web_requests Requests, "all" of them.
# TYPE web_requests counter
web_requests_total{route="a",class="2xx"} 120
web_requests_total{route="a",class="5xx"} 3
web_requests_total{route="b \\"q\\" \\\\ \\n, x=1",class="2xx"} 7 1700000000000
# TYPE web_seconds histogram
web_seconds_bucket{route="a",le="0.001"} 50
web_seconds_bucket{route="a",le="0.01"} 90
web_seconds_bucket{route="a",le="+Inf"} 100
web_seconds_sum{route="a"} 0.5
web_seconds_count{route="a"} 100
web_seconds_bucket{route="b",le="0.001"} 0
web_seconds_bucket{route="b",le="0.01"} 10
web_seconds_bucket{route="b",le="+Inf"} 100
web_seconds_sum{route="b"} 9.5
web_seconds_count{route="b"} 100
# TYPE odd gauge
odd NaN
plain{} 1e3
"""


def answer(status, body, kind="application/json", **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return cb.aio.Response(status, {"content-type": kind, **headers}, data)


def problem(status, title, **more):
    return answer(status, {"type": "about:blank", "title": title, "status": status, **more}, "application/problem+json")


class Daemon:
    """As much of a daemon as a client can tell: revisions of a document, entity tags, pages, events."""

    def __init__(self):
        self.kept = [{"groups": {"web": {"origins": [{"url": "http://127.0.0.1:1"}]}}}]
        self.asked, self.odd = [], None

    @property
    def etag(self):
        return f'"{len(self.kept)}"'

    def change(self, request, query, document):
        if request.header("if-match") not in (None, "*", self.etag):
            return problem(412, "Precondition Failed", detail=f"the current revision is {len(self.kept)}")
        if "bad" in json.dumps(document):
            return problem(422, "Unprocessable Content", errors=[{"pointer": "/bad", "detail": "no such member", "line": 1, "column": 2}, "odd", {"line": -1}])
        changed = document != self.kept[-1]
        if changed and "dry_run=true" not in query:
            self.kept.append(document)
        return answer(200, {"revision": len(self.kept), "changed": changed}, etag=self.etag)

    async def __call__(self, request):
        body = await request.read()
        path, _, query = request.path.partition("?")
        self.asked.append((request.method, request.path, dict(request.headers), body))
        if self.odd is not None:
            return self.odd
        if path == "/metrics":
            return answer(200, METRICS.encode(), "text/plain; version=0.0.4")
        if path == "/v1/status":
            return answer(200, {"version": "0.1.0", "revision": len(self.kept)})
        if path == "/v1/config" and request.method == "GET":
            return answer(200, self.kept[-1], etag=self.etag)
        if path == "/v1/config/groups/web/origins" and request.method == "GET":
            return answer(200, self.kept[-1]["groups"]["web"]["origins"], etag=self.etag)
        if path == "/v1/config/groups/web/origins":
            return self.change(request, query, {"groups": {"web": {"origins": json.loads(body)}}})
        if path == "/v1/config" and request.method == "PUT":
            return self.change(request, query, json.loads(body))
        if path == "/v1/revisions":
            newest = int(query.split("cursor=")[1]) if "cursor=" in query else len(self.kept)
            limit = min(2, int(query.split("limit=")[1].split("&")[0]))
            items = [{"revision": n, "time": "2026-11-26T00:00:00Z", "actor": "uid:0", "reason": "", "running": n == len(self.kept)}
                     for n in range(newest, max(0, newest - limit), -1)]
            return answer(200, {"items": items, "next": str(newest - limit) if newest > limit else None})
        if path.endswith("/rollback"):
            return self.change(request, query, self.kept[int(path.split("/")[3]) - 1])
        if path.startswith("/v1/revisions/"):
            n = int(path.split("/")[3])
            return answer(200, {"revision": n, "actor": "file", "document": self.kept[n - 1]})
        if path == "/v1/events":
            assert query in ("", "types=stats")

            async def stream():
                yield b": hello\n\nid: 7\nevent: config\nda"
                yield b"ta: {\"revision\": 2}\n"
                yield b"\nevent: stats\r\ndata: {\"rps\":\r"
                yield b"\ndata: 5}\r\n\r\ndata: plain text\n\nevent: nothing\n\nevent: cut\ndata: {}"
            return cb.aio.Response(200, {"content-type": "text/event-stream"}, stream())
        if path == "/v1/log" and request.method == "GET":
            return answer(200, {"levels": "info,quic=debug"})
        if request.method in ("POST", "PUT"):
            return cb.aio.Response(204)
        return problem(404, "Not Found", detail=path)


def talk(tmp_path, story, daemon=None):
    daemon = daemon or Daemon()

    async def run():
        async with cb.aio.Server(f"unix:{tmp_path}/admin.sock", None, daemon, drain=0.2):
            async with cb.admin.Admin(tmp_path / "admin.sock", timeout=10) as admin:
                await story(admin, daemon)

    asyncio.run(run())


def test_configuration(tmp_path):
    async def story(admin, daemon):
        assert (await admin.status())["version"] == "0.1.0"
        config = await admin.config()
        assert config.revision == 1 and config.value == daemon.kept[0]
        origins = await admin.config("/groups/web/origins")
        change = await admin.put("/groups/web/origins", [*origins.value, {"url": "http://ö"}], if_match=origins.revision, why="one & more", key="k")
        assert change == cb.admin.Change(2, True, False)
        method, path, headers, _ = daemon.asked[-1]
        assert (method, path) == ("PUT", "/v1/config/groups/web/origins?reason=one%20%26%20more")
        assert headers["if-match"] == '"1"' and headers["idempotency-key"] == "k" and headers["content-type"] == "application/json"
        with pytest.raises(cb.admin.Conflict, match="current revision is 2") as told:
            await admin.put("/groups/web/origins", [], if_match=1)
        assert told.value.status == 412 and len(daemon.kept) == 2
        same = await admin.put("", daemon.kept[-1], if_match="*")
        assert same.changed is False and same.revision == 2
        tried = await admin.put("", {"x": 1}, dry_run=True)
        assert tried.dry_run and tried.changed and len(daemon.kept) == 2 and daemon.asked[-1][1] == "/v1/config?dry_run=true"
        back = await admin.rollback(1, why="no")
        assert back.revision == 3 and daemon.kept[2] == daemon.kept[0]
        assert [(r.number, r.running) async for r in admin.revisions()] == [(3, True), (2, False), (1, False)]
        assert [r.number async for r in admin.revisions(limit=1)] == [3]
        assert (await admin.revision(2)).document == daemon.kept[1]

    talk(tmp_path, story)


def test_what_is_asked(tmp_path):
    async def story(admin, daemon):
        await admin.merge({"a": None}, "/x~1y/ü?", if_match=3)
        await admin.patch([{"op": "remove", "path": "/a"}])
        await admin.reload()
        await admin.drain(2.5)
        await admin.drain()
        await admin.set_log_levels("debug")
        assert await admin.log_levels() == "info,quic=debug"
        await admin.origin("a/b", 2, out=True)
        assert [(m, p, b.decode()) for m, p, _, b in daemon.asked] == [
            ("PATCH", "/v1/config/x~1y/%C3%BC%3F", '{"a": null}'), ("PATCH", "/v1/config", '[{"op": "remove", "path": "/a"}]'), ("POST", "/v1/reload", ""),
            ("POST", "/v1/drain", '{"timeout_ms": 2500}'), ("POST", "/v1/drain", "{}"), ("PUT", "/v1/log", '{"levels": "debug"}'), ("GET", "/v1/log", ""),
            ("PUT", "/v1/pools/a%2Fb/origins/2", '{"out": true}')]
        assert [daemon.asked[i][2]["content-type"] for i in (0, 1)] == ["application/merge-patch+json", "application/json-patch+json"]

    class Deaf(Daemon):
        async def __call__(self, request):
            return await super().__call__(request) if request.method != "PATCH" else await self.patched(request)

        async def patched(self, request):
            self.asked.append((request.method, request.path, dict(request.headers), await request.read()))
            return answer(200, {"revision": 1, "changed": True}, etag='"1"')

    talk(tmp_path, story, Deaf())


def test_mistakes_and_denials(tmp_path):
    async def story(admin, daemon):
        with pytest.raises(cb.admin.InvalidConfig) as told:
            await admin.put("", {"bad": 1})
        assert told.value.errors[0] == cb.admin.Mistake("/bad", "no such member", 1, 2) and len(told.value.errors) == 2
        assert "1:2: /bad: no such member" in str(told.value) and len(daemon.kept) == 1
        for status, kind in ((401, cb.admin.Denied), (403, cb.admin.Denied), (409, cb.admin.Conflict), (428, cb.admin.Conflict), (404, cb.admin.Problem)):
            daemon.odd = problem(status, "No")
            with pytest.raises(kind) as told:
                await admin.status()
            assert told.value.status == status and told.value.body["title"] == "No"
            with pytest.raises(kind):
                await anext(admin.events())
        with pytest.raises(ValueError, match="JSON pointer"):
            await admin.config("groups")

    talk(tmp_path, story)


def test_odd_answers(tmp_path):
    async def story(admin, daemon):
        rows = [(answer(200, b"<p>", "text/html"), "not JSON: is that"), (answer(200, b"{", "application/json"), "although it says so"),
                (answer(200, b"[" * 100_000, "application/json"), "although it says so"), (answer(200, b"", "application/json"), "although it says so")]
        for odd, says in rows:
            daemon.odd = odd
            with pytest.raises(cb.Error, match=says):
                await admin.status()
        for odd in (answer(500, b"oh", "text/html"), answer(500, b"not JSON", "application/problem+json"), answer(500, ["a list"], "application/problem+json"),
                    answer(500, {"title": 5, "errors": "x"}, "application/problem+json")):
            daemon.odd = odd
            with pytest.raises(cb.admin.Problem) as told:
                await admin.status()
            assert told.value.status == 500
        daemon.odd = answer(200, {"items": "x"})
        with pytest.raises(cb.Error, match="without items"):
            [r async for r in admin.revisions()]
        daemon.odd = answer(200, {"items": [], "next": "again"})
        assert [r async for r in admin.revisions()] == []
        daemon.odd = answer(200, {"items": [{"revision": "1"}], "next": None})
        with pytest.raises(cb.Error, match="without its number"):
            [r async for r in admin.revisions()]

        async def cut():
            yield b'{"a":'
            raise RuntimeError("cut")

        daemon.odd = cb.aio.Response(200, {"content-type": "application/json"}, cut())
        with pytest.raises(cb.Error):
            await admin.status()

        async def huge():
            for _ in range(70):
                yield b"x" * (1 << 20)

        daemon.odd = cb.aio.Response(200, {"content-type": "text/plain"}, huge())
        with pytest.raises(cb.Error, match="larger than 64 MiB"):
            await admin.metrics()

    talk(tmp_path, story)


def test_events(tmp_path):
    async def story(admin, daemon):
        events = [e async for e in admin.events(patience=0)]
        assert events == [cb.admin.Event("config", {"revision": 2}, "7"), cb.admin.Event("stats", {"rps": 5}, "7"), cb.admin.Event("message", "plain text", "7")]
        assert [e.data async for e in admin.events("stats", last_id="5", patience=0)] == [{"rps": 5}]
        assert daemon.asked[-1][2]["last-event-id"] == "5"
        async for event in admin.events():
            break  # leaving early ends the stream
        assert (await admin.status())["revision"] == 1
        daemon.odd = answer(200, {"no": "stream"})
        with pytest.raises(cb.admin.Problem):
            await anext(admin.events())

    talk(tmp_path, story)


def test_events_go_on_where_they_ended(tmp_path):
    class Ending(Daemon):
        async def __call__(self, request):
            if request.path != "/v1/events":
                return await super().__call__(request)
            n = int(request.header("last-event-id") or 0) + 1
            self.asked.append(n)
            return answer(200, f"id: {n}\ndata: {n}\n\nid: 99\ndata: cut".encode(), "text/event-stream")

    async def story(admin, daemon):
        seen = []
        async for event in admin.events():
            seen.append(event.data)
            if len(seen) == 3:
                break
        assert seen == [1, 2, 3] and daemon.asked == [1, 2, 3]

    talk(tmp_path, story, Ending())

    async def gone():
        async with cb.aio.Server(f"unix:{tmp_path}/admin.sock", None, Ending(), drain=0.1):
            async with cb.admin.Admin(tmp_path / "admin.sock") as admin:
                events = admin.events(patience=0.5)
                assert (await anext(events)).data == 1
        async with cb.admin.Admin(tmp_path / "admin.sock") as admin:
            with pytest.raises(cb.Error):
                await anext(admin.events(patience=0.5))

    asyncio.run(gone())


def test_nobody_there(tmp_path):
    async def run():
        async with cb.admin.Admin(tmp_path / "absent.sock") as admin:
            with pytest.raises(cb.Error, match="absent.sock: there is no such socket"):
                await admin.status()

    asyncio.run(run())
    for bad in ({"socket": "/x", "url": "https://x"}, {"url": "http://x"}):
        with pytest.raises(ValueError):
            cb.admin.Admin(**bad)


def test_over_tls_with_a_token(tmp_path):
    async def run():
        daemon = Daemon()
        with cb.CA(tmp_path / "ca") as ca:
            cert, key = ca.issue("localhost")
            with cb.Identity(cert, key) as identity:
                async with cb.aio.Server("127.0.0.1:0", identity, daemon, drain=0.2) as server:
                    url = "https://localhost:" + server.address.rsplit(":", 1)[1]
                    async with cb.admin.Admin(url=url + "/", ca_file=ca.ca_file, token="secret") as admin:
                        assert (await admin.status())["revision"] == 1
                    assert daemon.asked[0][2]["authorization"] == "Bearer secret"

    asyncio.run(run())


def test_metrics_are_parsed(tmp_path):
    page = cb.admin.Metrics(METRICS)
    assert list(page) == ["web_requests", "web_seconds", "odd", "plain"] and page["web_requests"].help == 'Requests, "all" of them.'
    assert page.value("web_requests", route="a") == 123 and page.value("web_requests_total", **{"class": "2xx"}) == 127
    assert page["web_requests"].samples[2].labels["route"] == 'b "q" \\ \n, x=1'
    assert math.isnan(page.value("absent")) and math.isnan(page.value("odd")) and page.value("plain") == 1000
    a, both = page.histogram("web_seconds", route="a"), page.histogram("web_seconds")
    assert a.count == 100 and a.mean == 0.005 and a.quantile(0.5) == 0.001 and a.quantile(0.7) == pytest.approx(0.0055)
    assert both.count == 200 and both.buckets[1] == (0.01, 100.0) and both.quantile(0.99) == 0.01
    assert both.since(a).count == 100 and math.isnan(a.since(a).quantile(0.5)) and math.isnan(page.histogram("absent").mean)
    for bad in ("x", "x y", "{} 1", 'x{a="b} 1', 'x{a=b} 1', "1x 1", 'x{a="\\q"} 1', "x{a} 1"):
        with pytest.raises(ValueError, match="line 2"):
            cb.admin.Metrics("ok 1\n" + bad)

    async def story(admin, daemon):
        assert (await admin.metrics()).value("web_requests", route="a") == 123

    talk(tmp_path, story)


def test_what_the_binding_renders_is_read():
    with cb.metrics.Registry() as m:
        took = m.histogram("took_seconds", "Time.", ["page"], unit="seconds", decimals=9, buckets=[0.001, 0.1, 1])
        for i in range(100):
            took.add(0.0005 if i < 60 else 0.05, page='/ä"\n')
        page = cb.admin.Metrics(m.render())
    h = page.histogram("took_seconds", page='/ä"\n')
    assert h.count == 100 and h.buckets[0] == (0.001, 60) and h.quantile(0.5) < 0.001 < h.quantile(0.9) <= 0.1


# ---- a real daemon ----

BUILD = os.environ.get("CB_BUILD")
SOURCE = Path(os.environ.get("CB_SOURCE", Path(__file__).resolve().parents[3]))


@pytest.fixture
def edge(tmp_path):
    """A cb-edge with an administration socket; its configuration."""
    program = next((p for p in (Path(BUILD or "/nowhere") / "cb-edge",) if p.exists()), None)
    if program is None:
        pytest.skip("cb-edge: CB_BUILD names no build with it")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    config = {"workers": 1, "drain_timeout_ms": 500, "listeners": {"http": {"address": f"127.0.0.1:{port}"}}, "routes": [{"group": "web"}],
              "groups": {"web": {"origins": [{"url": "http://127.0.0.1:9"}]}},
              "admin": {"socket": str(tmp_path / "edge.sock"), "state_dir": str(tmp_path / "state"), "roles": [{"who": f"uid:{os.getuid()}", "role": "admin"}]}}
    (tmp_path / "edge.json").write_text(json.dumps(config))
    process = subprocess.Popen([program, "--config", tmp_path / "edge.json"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    end = time.monotonic() + 10
    while not (tmp_path / "edge.sock").exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    yield tmp_path / "edge.sock", config, f"http://127.0.0.1:{port}"
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    finally:
        process.stdout.close()


def test_a_real_edge(edge):
    path, config, url = edge

    async def run():
        async with cb.admin.Admin(path) as admin, cb.aio.Client() as client:
            assert (await (await client.get(url + "/")).read()) is not None  # 502: nobody is behind it
            status = await admin.status()
            assert status["name"] == "cb-edge" and status["revision"] == 1
            page = await admin.metrics()
            assert page.value("cb_http_server_requests", **{"class": "5xx"}) == 1 and page.histogram("cb_http_server_request_seconds").count == 1
            events = admin.events("config")
            first = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0.3)
            origins = await admin.config("/groups/web/origins")
            change = await admin.put("/groups/web/origins", [*origins.value, {"url": "http://127.0.0.1:10"}], if_match=origins.revision, why="one more")
            assert change == cb.admin.Change(2, True, False)
            event = await asyncio.wait_for(first, 10)
            assert event.type == "config" and event.data["revision"] == 2 and event.data["reason"] == "one more" and event.id
            with pytest.raises(cb.admin.Conflict):
                await admin.put("/groups/web/origins", [], if_match=1)
            with pytest.raises(cb.admin.InvalidConfig) as told:
                await admin.put("", {**config, "odd": 1})
            assert told.value.errors[0].pointer == "/odd" and told.value.errors[0].line == 1
            assert (await admin.merge({"groups": {"web": {"retries": 2}}})).revision == 3
            assert (await admin.patch([{"op": "replace", "path": "/groups/web/retries", "value": 3}])).revision == 4
            assert (await admin.delete("/groups/web/retries", dry_run=True)).dry_run
            assert (await admin.rollback(1, why="as it was")).revision == 5
            assert (await admin.config("/groups")).value == config["groups"]
            assert [r.number async for r in admin.revisions(limit=2)] == [5, 4]
            assert (await admin.revision(5)).reason == "as it was"
            await admin.origin("web", 0, out=True)
            assert (await admin.get("/v1/pools"))["items"][0]["origins"][0]["state"] == "out"
            await admin.set_log_levels("warn,http=debug")
            assert await admin.log_levels() == "warn,http=debug"
            await admin.reload()
            assert [c async for c in admin.items("/v1/connections")][0]["listener"] == "http"
            await events.aclose()
            await admin.drain(0.1)

    asyncio.run(run())


def test_the_example(edge):
    path, config, _ = edge
    ran = subprocess.run([sys.executable, SOURCE / "examples/admin_client.py", path, "web", "http://127.0.0.1:10"], capture_output=True, text=True, timeout=60,
                         env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[1:] == ["revision 1 became 2", "and 1 again, as 3"] and "requests, p99" in ran.stdout
    ran = subprocess.run([sys.executable, SOURCE / "examples/admin_client.py", path, "web", "not a URL"], capture_output=True, text=True, timeout=60,
                         env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert ran.returncode == 0 and "/groups/web/origins/1/url: " in ran.stdout, ran
