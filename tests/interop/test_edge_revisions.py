"""cb-edge and the revisions of its configuration: changed over its socket and by its file, kept through kills, upgrades, full disks
and mistakes."""

import http.client
import json
import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time

import pytest
from conftest import BUILD, peer, program
from test_edge import Edge, Load, edge, origin  # noqa: F401
from unix_http import Connection, ask

MERGE, PATCH = "application/merge-patch+json", "application/json-patch+json"


class Kept(Edge):
    """With a socket and a store."""

    role = {"who": "uid:%d" % os.getuid(), "role": "admin"}

    def config(self, groups, routes=None, **more):
        admin = {"socket": str(self.socket), "roles": [self.role], "state_dir": str(self.state), **more.pop("admin", {})}
        return super().config(groups, routes, admin=admin, **more)

    socket = property(lambda self: self.folder / "s")
    state = property(lambda self: self.folder / "state")

    def ask(self, method, target, value=None, **more):
        return ask(self.socket, method, target, value, **more)

    def put(self, target, value, **more):
        return self.ask("PUT", "/v1/config" + target, value, **more)

    def runs(self, target=""):
        got = self.ask("GET", "/v1/config" + target)
        return got.json() if got.status == 200 else None

    def revision(self):
        return self.ask("GET", "/v1/config").revision

    def stop(self):
        self.process.send(signal.SIGTERM)
        self.process.wait(30) if hasattr(self.process, "wait") else self.process.popen.wait(10)

    def again(self, number=[0], **kw):
        number[0] += 1
        self.process = self.spawn(program("cb-edge"), "--config", self.file, name=f"again{number[0]}", **kw).wait_for("administration")
        return self

    def go(self, **kw):
        super().go(**kw)
        self.process.wait_for("administration")
        return self


@pytest.fixture
def kept(spawn, tmp_path, pki):
    return Kept(spawn, tmp_path, pki)


def web(port):
    return {"web": [f"http://127.0.0.1:{port}"]}


# ---- changes ----

def test_a_change_is_in_force_when_it_is_answered(kept, origin):
    a, b = origin("a"), origin("b")
    kept.start(web(a))
    assert kept.curl("/name")[2] == b"a"
    for i in range(30):
        name, port = (("b", b), ("a", a))[i % 2]
        got = kept.put("/groups/web/origins/0/url", f"http://127.0.0.1:{port}")
        assert got.status == 200 and got.revision == i + 2, got
        for _ in range(3):  # whichever worker has it
            assert kept.curl("/name")[2] == name.encode()
    assert kept.ask("PATCH", "/v1/config", {"limits": {"max_fields": 77}}, kind=MERGE).status == 200
    assert kept.runs("/limits") == {"max_fields": 77}
    got = kept.ask("PATCH", "/v1/config/groups", [{"op": "copy", "from": "/web", "path": "/more"}], kind=PATCH)
    assert got.status == 200, got
    assert kept.ask("DELETE", "/v1/config/groups/more").status == 200
    assert kept.put("/groups/web/retries", 3, if_match='"3"').status == 412
    got = kept.ask("GET", f"/v1/revisions/{kept.revision()}/diff?form=text")
    assert got.body.startswith(b"- /groups/more: {"), got
    assert kept.ask("POST", "/v1/revisions/1/rollback?reason=enough").status == 200
    assert kept.curl("/name")[2] == b"a" and kept.runs("/limits") is None
    page = kept.ask("GET", "/v1/revisions?limit=2").json()
    assert page["items"][0]["reason"] == "enough" and page["items"][0]["from"] == 1 and page["next"]


def test_a_text_keeps_its_comments(kept, origin):
    kept.start(web(origin("a")))
    first = kept.ask("GET", "/v1/revisions/1").json()
    assert first["text"].startswith("// made by a test") and first["actor"] == "file"
    text = kept.file.read_text().replace("// made by a test", "/* by hand */").replace('"workers": 2', '"workers": 2, "via": "cb-edge"')
    got = kept.put("", text.encode())
    assert got.status == 200, got
    assert kept.ask("GET", "/v1/revisions/2").json()["text"].startswith("/* by hand */")


def test_mistakes_say_where_they_are(kept, origin):
    kept.start(web(origin("a")))
    text = kept.file.read_text().replace('"origins"', '"orignis"', 1)
    got = kept.put("", text.encode())
    line = text[: text.index('"orignis"')].count("\n") + 1
    errors = got.json()["errors"]
    assert got.status == 422 and any({"pointer": "/groups/web/orignis", "line": line}.items() <= e.items() for e in errors), got
    got = kept.put("/listeners/more", {"address": "127.0.0.1:1", "tls": {"certificates": [{"cert_file": "/nope", "key_file": "/nope"}]}})
    assert got.status == 422 and got.json()["errors"][0]["pointer"] == "/listeners/more/tls/certificates/0", got
    got = kept.put("/access_log/path", "/nonexistent/dir/log")
    assert got.status == 422 and got.json()["errors"][0]["pointer"] == "/access_log/path", got
    got = kept.put("/workers", 5)
    assert got.status == 422 and "upgrade" in got.json()["errors"][0]["detail"], got
    got = kept.put("/admin/state_dir", "/elsewhere")
    assert got.status == 403 and got.json()["errors"][0]["pointer"] == "/admin/state_dir", got
    got = kept.put("/groups/web/retries?dry_run=true", 11)
    assert got.status == 422, got
    got = kept.put("/groups/web/retries?dry_run=true", 4)
    assert got.status == 200 and got.json() == {"revision": 1, "changed": True, "dry_run": True}, got
    assert kept.revision() == 1 and kept.curl("/name")[2] == b"a"


# ---- the file and the revisions ----

def test_whoever_wrote_last_wins(kept, origin):
    a, b, c = origin("a"), origin("b"), origin("c")
    kept.start(web(a))
    assert kept.put("/groups/web/origins/0/url", f"http://127.0.0.1:{b}").status == 200
    kept.reload()  # the file was not edited
    assert kept.curl("/name")[2] == b"b" and kept.revision() == 2
    kept.stop()
    kept.again()
    assert kept.curl("/name")[2] == b"b" and kept.revision() == 2 and "revision 2 runs" in kept.process.output()
    kept.config(web(c))
    kept.reload()
    assert kept.curl("/name")[2] == b"c" and kept.revision() == 3
    assert kept.put("/groups/web/origins/0/url", f"http://127.0.0.1:{b}").status == 200
    kept.stop()
    kept.config(web(a))  # edited while nothing runs
    kept.again()
    assert kept.curl("/name")[2] == b"a" and kept.revision() == 5
    items = kept.ask("GET", "/v1/revisions").json()["items"]
    assert [i["actor"] for i in items] == ["file", "uid:%d" % os.getuid(), "file", "uid:%d" % os.getuid(), "file"]


def test_the_latest_that_can_be_run_runs(kept, origin, tmp_path, pki):
    a, b = origin("a"), origin("b")
    kept.start(web(a))
    cert = tmp_path / "mine.pem"
    shutil.copy(pki["cert"], cert)
    assert kept.put("/groups/web/origins/0/url", f"http://127.0.0.1:{b}").status == 200
    assert kept.put("/listeners/tls/tls/certificates/0/cert_file", str(cert)).status == 200
    assert kept.revision() == 3
    kept.stop()
    cert.unlink()
    kept.again()
    out = kept.process.output()
    assert kept.curl("/name")[2] == b"b" and kept.revision() == 2
    assert "revision 3 cannot be run" in out and str(cert) in out and "revision 2 runs, the latest that can" in out, out
    shutil.copy(pki["cert"], cert)
    kept.reload()
    assert kept.revision() == 3
    kept.stop()
    # A file that cannot be run is no reason not to run what could be.
    kept.config(web(a), listeners={"plain": {"address": f"127.0.0.1:{kept.port}", "nonsense": 1}})
    kept.again()
    assert kept.revision() == 3 and "nonsense" in kept.process.output() and "cannot be run" in kept.process.output()


# ---- a store in trouble ----

def fill(kept, a):
    """Changes until one is refused; its answer."""
    for i in range(400):
        got = kept.put("/groups/big", {"origins": [{"url": f"http://127.0.0.1:{a}"}] * 200, "retries": i % 10})
        if got.status != 200:
            return got
    raise AssertionError("the store is never full")


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: a file system of its own")
def test_a_full_store_stops_changes_only(kept, origin, spawn):
    a, b = origin("a"), origin("b")
    kept.config(web(a))
    kept.state.mkdir(mode=0o700)
    kept.process = spawn(peer("unshare"), "--mount", "sh", "-c", f"mount -t tmpfs -o size=600k,mode=700 none {kept.state} && exec {program('cb-edge')} -c {kept.file}",
                         name="cb-edge").wait_for("administration")
    got = fill(kept, a)
    before = kept.ask("GET", "/v1/config")
    assert got.status == 507 and got.fields["content-type"] == "application/problem+json", got
    assert kept.put("/groups/web/origins/0/url", f"http://127.0.0.1:{b}").status in (200, 507)  # a small one may fit
    load = Load(kept)
    for _ in range(20):
        fill(kept, a)
    good, bad = load.end()
    assert not bad and good > 20, (good, bad[:3])
    after = kept.ask("GET", "/v1/config")
    assert after.revision >= before.revision and kept.curl("/name")[0] == 0
    assert kept.ask("GET", "/v1/revisions?limit=1").json()["items"][0]["revision"] == after.revision
    kept.reload()


def test_a_lost_store_stops_changes_only(kept, origin):
    a, b = origin("a"), origin("b")
    kept.start(web(a))
    shutil.rmtree(kept.state)
    got = kept.put("/groups/web/origins/0/url", f"http://127.0.0.1:{b}")
    assert got.status == 507 and kept.revision() == 1 and kept.curl("/name")[2] == b"a", got
    kept.reload()  # makes it anew
    end = time.monotonic() + 30
    while (got := kept.put("/groups/web/origins/0/url", f"http://127.0.0.1:{b}")).status == 507:  # the audit log may take a moment
        assert time.monotonic() < end, got
        time.sleep(0.05)
    assert got.status == 200 and kept.curl("/name")[2] == b"b", got
    shutil.rmtree(kept.state)
    kept.reload()  # what runs stays, and is written
    assert kept.curl("/name")[2] == b"b" and kept.revision() == 1
    kept.stop()
    kept.again()
    assert kept.curl("/name")[2] == b"b" and kept.revision() == 1
    kept.stop()
    shutil.rmtree(kept.state)
    kept.config(web(b))
    kept.state.write_text("no folder")
    kept.again()
    assert kept.curl("/name")[2] == b"b" and "can only be changed by its file" in kept.process.output()
    assert kept.put("/groups/web/retries", 4).status == 501
    kept.state.unlink()
    kept.reload()  # tries again
    assert kept.put("/groups/web/retries", 4).status == 200 and kept.runs("/groups/web/retries") == 4


def test_a_damaged_store_is_left_alone(kept, origin):
    kept.start(web(origin("a")))
    kept.stop()
    (kept.state / "revisions").write_bytes(b"no database" * 1000)
    kept.again()
    assert kept.curl("/name")[2] == b"a" and "can only be changed by its file" in kept.process.output()
    assert (kept.state / "revisions").read_bytes() == b"no database" * 1000


# ---- one process after the other ----

def successor(kept, old):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        found = re.search(r"process (\d+) has taken over", kept.process.output())
        if found and int(found[1]) != old:
            return int(found[1])
        time.sleep(0.02)
    raise AssertionError(kept.process.output())


def test_an_upgrade_takes_the_store_along(kept, origin):
    a, b = origin("a"), origin("b")
    kept.start(web(a), drain_timeout_ms=300)
    assert kept.put("/groups/web/origins/0/url", f"http://127.0.0.1:{b}").status == 200
    kept.process.send(signal.SIGUSR2)
    pid = successor(kept, kept.process.pid)
    try:
        kept.process.popen.wait(30)
        assert kept.curl("/name")[2] == b"b" and kept.revision() == 2
        assert kept.put("/groups/web/origins/0/url", f"http://127.0.0.1:{a}").status == 200
        assert kept.curl("/name")[2] == b"a" and kept.revision() == 3
    finally:
        os.kill(pid, signal.SIGTERM)


def test_an_upgrade_that_fails_gives_the_store_back(kept, origin):
    a, b = origin("a"), origin("b")
    kept.start(web(a))
    good = kept.file.read_text()
    kept.file.write_text("{ no json")
    kept.process.send(signal.SIGUSR2)
    kept.process.wait_for("this process goes on")
    got = kept.put("/groups/web/origins/0/url", f"http://127.0.0.1:{b}")
    assert got.status == 200 and kept.curl("/name")[2] == b"b" and kept.revision() == 2, got
    kept.file.write_text(good)


def test_changes_go_on_through_upgrades(kept, origin):
    kept.start(web(origin("a")), drain_timeout_ms=10000)
    pid, children, statuses, acked, ends = kept.process.pid, [], [], [10000], threading.Event()

    def change():
        value = 10000
        while not ends.is_set():
            try:
                got = kept.put("/drain_timeout_ms", value + 1)
            except (OSError, http.client.HTTPException):
                continue  # between two processes
            statuses.append(got.status)
            if got.status == 200:
                value += 1
                acked.append(value)

    thread = threading.Thread(target=change, daemon=True)
    thread.start()
    try:
        for _ in range(3):
            time.sleep(0.3)
            done = len(re.findall(r"has taken over", kept.process.output()))
            os.kill(pid, signal.SIGUSR2)
            end = time.monotonic() + 15
            while len(found := re.findall(r"process (\d+) has taken over", kept.process.output())) == done:
                assert time.monotonic() < end, kept.process.output()
                time.sleep(0.01)
            pid = int(found[-1])
            children.append(pid)
        time.sleep(0.3)
    finally:
        ends.set()
        thread.join(25)
        runs = kept.ask("GET", "/v1/config")
        for child in reversed(children):
            os.kill(child, signal.SIGTERM)
    assert runs.json()["drain_timeout_ms"] in (acked[-1], acked[-1] + 1), (runs, acked[-1])
    assert runs.revision >= len(acked) and len(acked) > 30 and set(statuses) <= {200, 503}, (runs, len(acked), set(statuses))


# ---- who may what ----

def test_an_owner_changes_their_groups(kept, origin):
    a, b = origin("a"), origin("b")
    kept.role = {"who": kept.role["who"], "role": "service-owner", "owned": ["team-a", "team-c"]}
    groups = {"web": {"owner": "team-a", "origins": [{"url": f"http://127.0.0.1:{a}"}]}, "other": {"owner": "team-b", "origins": [{"url": f"http://127.0.0.1:{a}"}]},
              "nobodys": {"origins": [{"url": f"http://127.0.0.1:{a}"}]}}
    kept.start(groups)
    assert set(kept.runs("/groups")) == set(groups)  # reading is everybody's with a role
    assert kept.put("/groups/web/origins/0/url", f"http://127.0.0.1:{b}").status == 200 and kept.curl("/name")[2] == b"b"
    both = {"groups": {"web": {"retries": 3}, "other": {"retries": 3}}}
    for method, target, value, kind in [("PUT", "/groups/other/retries", 3, None), ("PUT", "/groups/nobodys/retries", 3, None),
                                        ("PUT", "/groups/web/owner", "team-c", None), ("PATCH", "", both, MERGE), ("DELETE", "/groups/web", None, None),
                                        ("PUT", "/groups/new", {"owner": "team-a", "origins": [{"url": "http://127.0.0.1:1"}]}, None),
                                        ("PUT", "/routes/0/path", "/y", None), ("PUT", "/groups/web/key_file", "/etc/shadow", None)]:
        got = kept.ask(method, "/v1/config" + target, value, kind=kind or "application/json")
        assert got.status == 403 and got.json()["errors"], (method, target, got)
    assert kept.revision() == 2 and kept.runs("/groups/web/retries") is None


def test_a_tenant_changes_its_own(kept, origin):
    a, b = origin("a"), origin("b")
    kept.role = {"who": kept.role["who"], "role": "tenant-admin", "tenant": "acme"}
    groups = {"web": {"tenant": "acme", "owner": "team-a", "origins": [{"url": f"http://127.0.0.1:{a}"}]},
              "other": {"tenant": "other", "origins": [{"url": f"http://127.0.0.1:{a}"}]}}
    kept.start(groups, [{"path": "/", "group": "web", "host": "localhost"}, {"path": "/o", "group": "other", "host": "o.example"},
                        {"path": "/x", "group": "other"}])
    assert set(kept.runs()) == {"groups", "routes"} and set(kept.runs("/groups")) == {"web"}
    assert [r and r["path"] for r in kept.runs("/routes")] == ["/", None, None]
    assert kept.put("/groups/web/origins/0/url", f"http://127.0.0.1:{b}").status == 200 and kept.curl("/name")[2] == b"b"
    assert kept.put("/routes/-", {"path": "/more", "group": "web", "host": "localhost"}).status == 200
    assert kept.ask("DELETE", "/v1/config/routes/3").status == 200
    route = {"path": "/more", "group": "web", "host": "localhost"}
    for target, value, why in [("/groups/web/tenant", "other", "that is the admin's to say"),
                               ("/groups/web/owner", "me", "that is the admin's to say"),
                               ("/groups/new", {"tenant": "acme", "origins": [{"url": "http://127.0.0.1:1"}]}, "not theirs"),
                               ("/groups/web/ca_file", "/etc/passwd", "files of the host"),
                               ("/groups/web/health", {"check": {"kind": "exec", "command": ["/bin/sh", "-c", "id"]}}, "programs of the host"),
                               ("/routes/0/auth", {"any": ["x"], "policy_file": "/etc/passwd"}, "files of the host"),
                               ("/routes/0/auth", {"any": ["x"], "headers": {"authorization": "subject"}}, "hidden on every route"),
                               ("/routes/-", {**route, "group": "other"}, "would not be theirs"),
                               ("/routes/-", {**route, "tenant": "acme", "group": "other"}, "its group is not theirs"),
                               ("/routes/-", {**route, "host": "o.example"}, "its host is not theirs"),
                               ("/routes/0/host", "*", "its host is not theirs"),
                               ("/routes", [], "this route is not theirs"),
                               ("/workers", 3, "does not see")]:
        got = kept.put(target, value)
        assert got.status == 403 and any(why in e["detail"] for e in got.json()["errors"]), (target, got)
    for target, value in [("/groups/other/retries", 3), ("/routes/1/path", "/y")]:  # what they do not see is not there
        assert kept.put(target, value).status == 404, target
    assert kept.ask("DELETE", "/v1/config/groups/web").status == 403
    assert kept.ask("POST", "/v1/revisions/1/rollback").status == 200  # only their own has changed since
    assert kept.curl("/name")[2] == b"a"


def test_a_tenant_learns_nothing_of_others(kept, origin):
    kept.role = {"who": kept.role["who"], "role": "tenant-admin", "tenant": "acme"}
    mine, theirs = {"tenant": "acme", "origins": [{"url": f"http://127.0.0.1:{origin('a')}"}]}, {"tenant": "hidden-name", "host": "hidden.example", "origins": [{"url": "http://192.0.2.7:77"}]}
    routes = [{"path": "/", "group": "web", "host": "localhost"}, {"path": "/o", "group": "hidden-group", "host": "hidden.example"}]
    kept.start({"web": mine, "hidden-group": theirs}, routes)
    kept.config({"web": mine, "hidden-group": {**theirs, "retries": 2}, "hidden-too": {**theirs, "tenant": "x"}}, routes)
    kept.reload()
    told = ""

    def refused(method, target, value=None, kind="application/json"):
        nonlocal told
        got = kept.ask(method, target, value, kind=kind)
        told += got.body.decode().replace("/groups/hidden-group" if "hidden-group" in f"{target}{value}" else "?", "")  # what they have named themselves
        assert 400 <= got.status < 500, (method, target, value, got)
        return got.status

    def patch(*operations):
        return refused("PATCH", "/v1/config", operations, PATCH)

    patch({"op": "copy", "from": "/groups/hidden-group/origins", "path": "/groups/web/origins"})
    patch({"op": "copy", "from": "/groups/hidden-group/host", "path": "/groups/web/host"})
    patch({"op": "copy", "from": "/routes/1/host", "path": "/groups/web/host"})
    patch({"op": "copy", "from": "/admin/state_dir", "path": "/groups/web/host"})
    patch({"op": "add", "path": "/routes/0", "value": routes[0]}, {"op": "copy", "from": "/routes/2/host", "path": "/groups/web/host"})
    patch({"op": "move", "from": "/groups/hidden-group/host", "path": "/groups/web/host"})
    for guess in ("hidden.example", "other"):  # the same answer, right or wrong
        assert patch({"op": "test", "path": "/groups/hidden-group/host", "value": guess}) == 409
        assert patch({"op": "test", "path": "/routes/1/host", "value": guess}) == 409
        assert refused("PUT", "/v1/config/groups/hidden-group/host", guess) == 404
        assert refused("PATCH", "/v1/config", {"groups": {"hidden-group": {"host": guess}}}, MERGE) == 403
        assert refused("PUT", "/v1/config/routes/1/host", guess) == 404
    assert refused("PUT", "/v1/config/groups", {}) == 403 and refused("PUT", "/v1/config", {}) == 403
    assert refused("POST", "/v1/revisions/1/rollback") == 403
    assert "hidden" not in told and "192.0.2" not in told and str(kept.state) not in told, told
    assert kept.runs("/groups") == {"web": mine} and kept.runs("/routes") == [routes[0], None]
    # What they see is tested, copied and moved as for everybody.
    got = kept.ask("PATCH", "/v1/config", [{"op": "test", "path": "/routes/0", "value": routes[0]}, {"op": "copy", "from": "/routes/0/host", "path": "/groups/web/host"}], kind=PATCH)
    assert got.status == 200 and kept.runs("/groups/web/host") == "localhost"
    assert kept.ask("PATCH", "/v1/config", {"groups": {"web": {"host": "localhost"}}}, kind=MERGE).json()["changed"] is False


# ---- mistakes of every kind ----

def spoils(schema, value, at=""):
    """(pointer, value) that do not fit, for each member that the schema knows below a value of it."""
    kind = schema.get("type")
    for wrong in {"string": [7, None, {}], "integer": ["7", 1.5, None, []], "boolean": ["true", 1, None], "array": [{}, "x", 1],
                  "object": [[], "x", 1]}.get(kind, []):
        yield at, wrong
    if kind == "integer" and "minimum" in schema:
        yield at, schema["minimum"] - 1
        yield at, schema["maximum"] + 1
    if "enum" in schema:
        yield at, "no-such-name"
    if kind == "object":
        if "properties" in schema:
            yield at + "/surely_not_known", 1
        for name, below in schema.get("properties", {}).items():
            if name != "admin":
                yield from spoils(below, (value or {}).get(name), f"{at}/{name}")
        for name in list((value or {}))[:1] if "additionalProperties" in schema and schema["additionalProperties"] else []:
            yield from spoils(schema["additionalProperties"], value[name], f"{at}/{name}")
    if kind == "array" and value and "items" in schema:
        yield from spoils(schema["items"], value[0], at + "/0")


def make_way(document, pointer):
    """Objects on the way to a pointer that are not there; the pointer of the first of them and a value with the spoilt one in it."""
    parts = pointer.split("/")[1:]
    here = document
    for i, part in enumerate(parts):
        inside = here[int(part)] if isinstance(here, list) else here.get(part) if isinstance(here, dict) else None
        if inside is None:
            return "/" + "/".join(parts[: i + 1]), parts[i + 1:]
        here = inside
    return pointer, []


def test_no_mistake_of_the_schema_gets_in(kept, origin):
    a = origin("a")
    kept.start(web(a), trusted_proxies=["127.0.0.1"], limits={"max_fields": 50})
    schema = json.loads(subprocess.run([program("cb-edge"), "--schema"], capture_output=True, check=True).stdout)
    before = kept.ask("GET", "/v1/config")
    document = before.json()
    everything = [(p, v) for p, v in spoils(schema, document) if p]
    seed = random.randrange(1 << 30)
    chosen = random.Random(seed).sample(everything, min(len(everything), 300))
    connection = Connection(kept.socket)
    for pointer, wrong in chosen:
        first, rest = make_way(document, pointer)
        value = wrong
        for part in reversed(rest):
            value = {part: value}
        got = ask(None, "PUT", "/v1/config" + first, json.dumps(value).encode(), connection=connection)
        assert got.status == 422, (seed, pointer, wrong, got)
        errors = got.json()["errors"]
        assert any(e["pointer"].startswith(first) or first.startswith(e["pointer"]) for e in errors), (seed, pointer, wrong, errors)
        if not rest:
            assert any(e["pointer"] == pointer for e in errors), (seed, pointer, wrong, errors)
    after = kept.ask("GET", "/v1/config")
    assert after.revision == before.revision and after.body == before.body and len(chosen) > 100
    assert kept.curl("/name")[2] == b"a"


# ---- killed in the middle ----

class Writer(threading.Thread):
    """Changes one number, again and again, until the process is gone."""

    def __init__(self, kept, value):
        super().__init__(daemon=True)
        self.kept, self.acked, self.tried, self.revision = kept, value, value, 0

    def run(self):
        connection = Connection(self.kept.socket)
        try:
            while True:
                self.tried = self.acked + 1
                got = ask(None, "PUT", "/v1/config/drain_timeout_ms", 10000 + self.tried, connection=connection)
                assert got.status == 200, got
                self.acked, self.revision = self.tried, got.revision
        except (OSError, http.client.HTTPException):
            pass


def test_a_hundred_kills_lose_nothing_that_was_answered(kept, origin):
    kept.start(web(origin("a")), drain_timeout_ms=10000)
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    value = in_flight = writes = 0
    for i in range(100):
        writer = Writer(kept, value)
        writer.start()
        time.sleep(chance.uniform(0.002, 0.06))
        kept.process.popen.kill()
        kept.process.popen.wait()
        writer.join(10)
        writes += writer.acked - value
        kept.again()
        got = kept.ask("GET", "/v1/config")
        runs = got.json()["drain_timeout_ms"] - 10000
        assert runs in (writer.acked, writer.tried), (seed, i, runs, writer.acked, writer.tried)
        assert got.revision >= writer.revision, (seed, i, got.revision, writer.revision)
        assert got.revision == kept.ask("GET", "/v1/revisions?limit=1").json()["items"][0]["revision"]
        in_flight += runs != writer.acked
        value = runs
    assert writes > 100, writes
    print(f"{writes} writes were answered, {in_flight} were on the disk without an answer (seed {seed})")


# ---- many reloads ----

def rss_kib(pid):
    return int(re.search(r"^VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read(), re.M)[1])


def test_reloads_under_load_fail_nobody_and_keep_memory(kept, origin):
    a, b = origin("a"), origin("b")
    kept.start(web(a))
    load, tls = Load(kept, threads=2), Load(kept, tls=True, threads=1)
    connection, sizes = Connection(kept.socket), []
    for i in range(150):
        got = ask(None, "PUT", "/v1/config/groups/web/origins/0/url", f"http://127.0.0.1:{(b, a)[i % 2]}", connection=connection)
        assert got.status == 200, got
        if i % 10 == 0:
            kept.process.send(signal.SIGHUP)
        sizes.append(rss_kib(kept.process.pid))
    for l in (load, tls):
        good, bad = l.end()
        assert not bad and good > 50, (good, bad[:3])
    if not re.search(r"^CB_SANITIZE:STRING=.+$", (BUILD / "CMakeCache.txt").read_text(), re.M):  # they keep what was freed
        assert max(sizes[100:]) < max(sizes[:75]) + 2048, sizes
    assert kept.revision() == 151
