"""cb-edge is asked and operated while it runs: who may, how it is, origins out and in, logs, reloads, drains, events, the audit log."""

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time

import pytest
from conftest import free_port, peer, program, run
from test_edge import Edge, edge, origin  # noqa: F401: fixtures
from test_edge_telemetry import until
from test_upgrade import Service
from unix_http import Connection, ask


class Asked:
    """A cb-edge with administration: get("/v1/status"), put(...), post(...)."""

    def __init__(self, edge, folder):
        self.edge, self.socket, self.state = edge, folder / "admin.sock", folder / "state"
        self.block = {"socket": str(self.socket), "state_dir": str(self.state)}

    def start(self, groups, routes=None, **more):
        self.edge.start(groups, routes, **{"admin": self.block, **more})
        until(lambda: "unix:" in self.edge.process.output())
        return self

    def get(self, path, status=200, **fields):
        got = ask(self.socket, "GET", path, **fields)
        assert got.status == status, got
        return got.json()

    def put(self, path, value, status=200, **fields):
        got = ask(self.socket, "PUT", path, value, **fields)
        assert got.status == status, got
        return got.json() if got.body else None

    def post(self, path, value=None, status=200, **fields):
        got = ask(self.socket, "POST", path, value, **fields)
        assert got.status == status, got
        return got.json() if got.body else None

    def pages(self, path, limit):
        items, cursor = [], None
        while True:
            got = self.get(f"{path}?limit={limit}" + (f"&cursor={cursor}" if cursor else ""))
            assert len(got["items"]) <= limit
            items += got["items"]
            cursor = got["next"]
            if not cursor:
                return items


@pytest.fixture
def asked(edge, tmp_path):
    return Asked(edge, tmp_path)


# ---- who ----

def test_the_door(asked, origin):
    asked.start({"web": [f"http://127.0.0.1:{origin()}"]})
    assert stat.S_IMODE(asked.socket.stat().st_mode) == 0o600 and stat.S_IMODE(asked.state.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in asked.state.iterdir())
    who = asked.get("/v1/whoami")
    assert who["name"] == f"uid:{os.geteuid()}" and who["roles"] == ["admin"]
    assert [ask(asked.socket, "GET", path).status for path in ("/livez", "/readyz", "/healthz")] == [200] * 3
    assert "cb_edge_workers 2" in ask(asked.socket, "GET", "/metrics").body.decode()
    paths = asked.get("/v1/openapi.json")["paths"]
    for path in ("/v1/status", "/v1/listeners", "/v1/routes", "/v1/pools", "/v1/pools/{group}", "/v1/pools/{group}/origins/{n}", "/v1/certificates",
                 "/v1/connections", "/v1/log", "/v1/log/reopen", "/v1/reload", "/v1/drain", "/v1/config", "/v1/revisions", "/v1/audit", "/v1/events"):
        assert path in paths, path
    assert ask(asked.socket, "GET", "/v1/status?colour=red").status == 400
    assert asked.edge.process.stop() == 0 and not asked.socket.exists()


def test_roles(asked, origin):
    me, web = f"uid:{os.geteuid()}", {"web": {"origins": [{"url": f"http://127.0.0.1:{origin()}"}], "tenant": "acme"},
                                      "other": {"origins": [{"url": "http://127.0.0.1:1"}], "tenant": "else"}}

    def use(*rows):
        asked.block["roles"] = list(rows)
        asked.edge.config(web, admin=asked.block)
        asked.edge.reload()

    asked.block["roles"] = [{"who": me, "role": "viewer"}]
    asked.start(web)
    assert asked.get("/v1/status")["revision"] == 1
    for method, path, body in (("POST", "/v1/reload", None), ("POST", "/v1/drain", {}), ("PUT", "/v1/log", {"levels": "debug"}), ("POST", "/v1/log/reopen", None),
                               ("PUT", "/v1/pools/web/origins/0", {"out": True}), ("PUT", "/v1/config/groups/web/retries", 3), ("GET", "/v1/audit", None)):
        assert ask(asked.socket, method, path, body).status == 403, (method, path)
    use({"who": me, "role": "operator"})
    asked.put("/v1/pools/web/origins/0", {"out": False})
    assert ask(asked.socket, "PUT", "/v1/config/groups/web/retries", 3).status == 403
    use({"who": me, "role": "tenant-admin", "tenant": "acme"})
    assert [pool["group"] for pool in asked.get("/v1/pools")["items"]] == ["web"] and [route["group"] for route in asked.get("/v1/routes")["items"]] == ["web"]
    assert ask(asked.socket, "GET", "/v1/pools/other").status == 404 and asked.get("/v1/pools/web")["tenant"] == "acme"
    for path in ("/v1/status", "/v1/listeners", "/v1/connections", "/v1/certificates", "/v1/events"):
        assert ask(asked.socket, "GET", path).status == 403, path
    use({"who": "uid:4000000", "role": "admin"})
    assert ask(asked.socket, "GET", "/v1/whoami").status == 403 and ask(asked.socket, "GET", "/livez").status == 200
    use({"who": me, "role": "auditor"})
    denied = [record for record in asked.pages("/v1/audit", 3) if record["outcome"] == "denied"]
    assert len(denied) > 7 and all(record["actor"] == me for record in denied)


@pytest.mark.parametrize("admin, pointer", [
    ({"roles": [{"who": "nobody-knows", "role": "admin"}]}, "/admin/roles/0"),
    ({"roles": [{"who": "uid:0", "role": "king"}]}, "/admin/roles/0"),
    ({"roles": [{"who": "uid:0", "role": "service-owner"}]}, "/admin/roles/0"),
    ({"roles": [{"who": "user:no-such-user-here", "role": "admin"}]}, "/admin/roles/0"),
    ({"socket": ""}, "/admin/socket"),
    ({"socket": "admin.sock"}, "/admin/socket"),
    ({"socket": "@cb-edge"}, "/admin/socket"),
    ({"door": 1}, "/admin/door"),
])
def test_mistakes(edge, admin, pointer):
    edge.config({"web": ["http://127.0.0.1:1"]}, admin=admin)
    got = run(program("cb-edge"), "--check", "--config", edge.file)
    assert got.returncode == 1 and pointer in got.stderr, got.stderr


def test_a_check_warns_of_a_folder_that_cannot_be_used(edge, tmp_path):
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose").chmod(0o777)
    (tmp_path / "plain").write_text("")
    for folder, why in (("no/such", "is not there"), ("loose", "chmod 700"), ("plain", "no directory"), ("made", None)):
        edge.config({"web": ["http://127.0.0.1:1"]}, admin={"socket": str(tmp_path / "s"), "state_dir": str(tmp_path / folder)})
        got = run(program("cb-edge"), "--check", "--config", edge.file)
        assert got.returncode == 0 and (f"/admin/state_dir: warning: " in got.stderr and why in got.stderr if why else "warning" not in got.stderr), got.stderr


def test_a_door_that_could_not_be_opened_is_opened_later(asked, origin, tmp_path):
    asked.socket = tmp_path / "later" / "admin.sock"
    asked.block["socket"] = str(asked.socket)
    groups = {"web": [f"http://127.0.0.1:{origin()}"]}
    asked.edge.start(groups, admin=asked.block)
    until(lambda: "administration is closed" in asked.edge.process.output())
    asked.edge.config(groups, admin=asked.block, drain_timeout_ms=1234)  # a change, of which nobody is told
    asked.edge.reload()
    time.sleep(1.2)  # it is tried again
    assert asked.edge.process.output().count("administration is closed") == 1
    asked.socket.parent.mkdir()
    until(lambda: asked.socket.exists(), seconds=30)
    assert asked.get("/v1/status")["revision"] == 2 and asked.get("/v1/config/drain_timeout_ms") == 1234
    events = Events(asked.socket)
    asked.put("/v1/config/drain_timeout_ms", 1000)
    until(lambda: events.of("config"))


def test_a_socket_that_is_lost_is_opened_again(asked, origin):
    asked.start({"web": [f"http://127.0.0.1:{origin()}"]})
    asked.socket.unlink()  # by who cleans up
    until(lambda: asked.socket.exists(), seconds=30)
    asked.put("/v1/config/drain_timeout_ms", 1000)
    stale = asked.socket.with_name("stale")
    with socket.socket(socket.AF_UNIX) as other:  # of a successor that failed after it had taken the path
        other.bind(str(stale))
    stale.rename(asked.socket)
    until(lambda: asked.edge.process.output().count("opened again") == 2, seconds=30)
    asked.put("/v1/config/drain_timeout_ms", 1001)
    assert asked.get("/v1/status")["revision"] == 3 and stat.S_IMODE(asked.socket.stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as other:  # another process that is alive is left alone
        other.bind(str(stale))
        other.listen()
        stale.rename(asked.socket)
        until(lambda: "a process listens there" in asked.edge.process.output(), seconds=30)
    assert asked.edge.process.stop() == 0


def test_a_folder_of_revisions_in_which_others_write(asked, origin):
    asked.state.mkdir(mode=0o700)
    asked.state.chmod(0o770)
    groups = {"web": [f"http://127.0.0.1:{origin()}"]}
    asked.start(groups)
    assert "chmod 700" in asked.edge.process.output() and not list(asked.state.iterdir())
    assert ask(asked.socket, "PUT", "/v1/config/drain_timeout_ms", 1000).status in (501, 507)
    asked.state.chmod(0o700)
    asked.edge.reload()
    until(lambda: ask(asked.socket, "PUT", "/v1/config/drain_timeout_ms", 1000).status == 200)


def test_a_refused_change_is_no_refused_file(asked, origin):
    groups = {"web": [f"http://127.0.0.1:{origin()}"]}
    asked.start(groups)

    def page(name):
        return re.search(rf"^{name} (.*)$", ask(asked.socket, "GET", "/metrics").body.decode(), re.M)[1]

    asked.put("/v1/config/routes/0/group", "nobody", status=422)
    assert page("cb_edge_config_last_reload_successful") == "1" and page(r'cb_edge_config_reloads_total{outcome="refused"}') == "1"
    asked.edge.file.write_text("{ no json")
    asked.edge.reload(good=False)
    asked.put("/v1/config/drain_timeout_ms", 1000)
    assert page("cb_edge_config_last_reload_successful") == "0"  # the next start reads that file
    asked.edge.config(groups, admin=asked.block)
    asked.edge.reload()
    assert page("cb_edge_config_last_reload_successful") == "1"


def test_privileges_are_dropped_and_the_door_opens(asked, origin, tmp_path, nobody):
    user, mine = nobody
    asked.edge.log = mine / "access.log"
    asked.state = mine / "state"
    asked.socket = tmp_path / "run" / "admin.sock"  # its folder is not there: it is made, for the user
    asked.block.update(socket=str(asked.socket), state_dir=str(asked.state))
    asked.start({"web": [f"http://127.0.0.1:{origin()}"]}, user="nobody")
    assert asked.socket.stat().st_uid == user.pw_uid and (asked.state / "audit").stat().st_uid == user.pw_uid
    assert asked.get("/v1/whoami")["roles"] == ["admin"]  # root, and the user
    command = ["setpriv", f"--reuid={user.pw_uid}", "--clear-groups", peer("curl"), "-s", "--unix-socket", str(asked.socket), "http://admin/v1/whoami"]
    got = run(*command)
    assert got.returncode == 0 and json.loads(got.stdout)["name"] == f"uid:{user.pw_uid}", got.stderr


class Machines:
    """A CA, and clients with SPIFFE IDs."""

    def __init__(self, folder):
        self.folder = folder
        self.ca("init", "--dir", folder)
        self.ca("issue", "--dir", folder, "--profile", "server", "--out", "server", "localhost", "127.0.0.1")
        for name in ("me", "other"):
            self.ca("issue", "--dir", folder, "--profile", "svid", "--uri", f"spiffe://td.test/{name}", "--out", name)

    def ca(self, *words):
        got = run(program("cbctl"), "ca", *words)
        assert got.returncode == 0, got.stderr

    def listen(self, port, **more):
        return {"address": f"127.0.0.1:{port}", "cert_file": str(self.folder / "server.pem"), "key_file": str(self.folder / "server-key.pem"),
                "client_ca_file": str(self.folder / "ca.pem"), "identities": ["machines"], **more}

    def ask(self, port, path, who=None, *options):
        shown = ["--cert", self.folder / f"{who}.pem", "--key", self.folder / f"{who}-key.pem"] if who else []
        got = run(peer("curl"), "-s", "-w", "\n%{http_code}", "--cacert", self.folder / "ca.pem", *shown, *options, f"https://localhost:{port}{path}")
        assert got.returncode == 0, got.stderr
        body, _, status = got.stdout.rpartition("\n")
        return int(status), body


def test_over_tcp(asked, origin, tmp_path):
    machines, port = Machines(tmp_path / "ca"), free_port()
    groups = {"web": [f"http://127.0.0.1:{origin()}"]}
    identities = {"machines": {"mtls": {"subject": "spiffe"}}}
    asked.block.update(listen=machines.listen(port), roles=[{"who": "spiffe://td.test/me", "role": "operator", "source": "machines"},
                                                            {"who": f"uid:{os.geteuid()}", "role": "admin"}])
    asked.start(groups, identities=identities)
    status, body = machines.ask(port, "/v1/whoami", "me")
    assert status == 200 and json.loads(body)["name"] == "machines:spiffe://td.test/me" and json.loads(body)["roles"] == ["operator"]
    assert machines.ask(port, "/v1/status")[0] == 403 and "no-certificate" in machines.ask(port, "/v1/status")[1] and machines.ask(port, "/v1/status", "other")[0] == 403
    assert machines.ask(port, "/v1/log", "me", "-X", "PUT", "-H", "content-type: application/json", "-d", '{"levels": "warn"}')[0] == 200
    assert [r["actor"] for r in asked.get("/v1/audit")["items"]].count("machines:spiffe://td.test/me") == 1
    names = [item["name"] for item in asked.get("/v1/certificates")["items"] if item["place"] == "admin"]
    assert "localhost" in names
    # a reload gives the open door another gate
    asked.block["listen"] = machines.listen(port, identities=["nobody"])
    asked.edge.config(groups, admin=asked.block, identities={"nobody": {"mtls": {"subject": "dns"}}})
    asked.edge.reload()
    assert machines.ask(port, "/v1/status", "me")[0] in (401, 403)
    asked.block["listen"] = machines.listen(free_port())
    asked.edge.config(groups, admin=asked.block, identities=identities)
    asked.edge.reload(good=False)
    assert "/admin/listen/address: it changed" in asked.edge.process.output()


@pytest.mark.parametrize("change, pointer", [
    ({"identities": ["nobody"]}, "/admin/listen/identities/0"), ({"identities": []}, "/admin/listen/identities"), ({"cert_file": "/nonexistent"}, "/admin/listen"),
    ({"client_ca_file": "/nonexistent"}, "/admin/listen"), ({"address": "here"}, "/admin/listen/address"),
])
def test_mistakes_of_the_door_over_tcp(edge, tmp_path, change, pointer):
    machines = Machines(tmp_path / "ca")
    edge.config({"web": ["http://127.0.0.1:1"]}, admin={"listen": machines.listen(1234, **change)}, identities={"machines": {"mtls": {"subject": "spiffe"}}})
    got = run(program("cb-edge"), "--check", "--config", edge.file)
    assert got.returncode == 1 and pointer in got.stderr, got.stderr


# ---- how it is ----

def test_status_and_listeners(asked, origin):
    begin = int(time.time())
    asked.start({"web": [f"http://127.0.0.1:{origin()}"]})
    edge = asked.edge
    for _ in range(5):
        assert edge.status("/page") == 200
    edge.status("/status?500", scheme="https")
    got = asked.get("/v1/status")
    assert got["name"] == "cb-edge" and got["pid"] == edge.process.pid and got["workers"] == got["workers_answered"] == 2
    assert begin <= got["started_at"] <= time.time() and got["uptime_s"] < 60 and got["ready"] and not got["draining"] and got["processes"] == 1
    assert got["totals"]["requests"] == 6 and got["totals"]["active"] == 0 and got["revision"] == 1
    plain, tls = asked.get("/v1/listeners")["items"]
    assert plain["name"] == "plain" and plain["address"] == f"127.0.0.1:{edge.port}" and not plain["tls"] and plain["requests"] == 5
    assert tls["tls"] and tls["versions"] == ["h1", "h2", "h3"] and tls["requests"] == 1 and tls["connections"]["ever"] == 1
    with socket.create_connection(("127.0.0.1", edge.tls_port)) as s:
        s.sendall(b"no TLS\n")
        s.recv(100)
    until(lambda: asked.get("/v1/listeners")["items"][1]["handshakes_failed"] == 1)


def test_routes(asked, origin):
    url = f"http://127.0.0.1:{origin()}"
    asked.start({"web": [url], "more": [url]}, [{"host": f"h{i}.test", "path": f"/{i}", "group": ["web", "more"][i % 2]} for i in range(25)])
    routes = asked.pages("/v1/routes", 7)
    assert [route["number"] for route in routes] == list(range(25)) and routes[3] == {"number": 3, "host": "h3.test", "path": "/3", "group": "more",
                                                                                      "tenant": None, "identities": []}
    assert ask(asked.socket, "GET", "/v1/routes?cursor=x").status == 400 and ask(asked.socket, "GET", "/v1/routes?limit=1001").status == 400


def test_certificates(asked, origin):
    asked.start({"web": [f"http://127.0.0.1:{origin()}"]})
    kinds = {item["kind"]: item for item in asked.get("/v1/certificates")["items"]}
    leaf = kinds["certificate"]
    assert leaf["place"] == "listener" and leaf["of"] == "tls" and "localhost" in leaf["names"] and leaf["file"] == str(asked.edge.pki["cert"])
    assert leaf["since"] <= time.time() < leaf["until"] and leaf["must_staple"] is False


def test_pools_are_the_sum_of_all_workers(asked, origin):
    a, dead = origin("a"), free_port()
    asked.start({"web": {"origins": [{"url": f"http://127.0.0.1:{a}", "weight": 3}, {"url": f"http://127.0.0.1:{dead}"}], "max_fails": 1, "fail_out_ms": 60000},
                 "other": [f"http://127.0.0.1:{a}"]}, workers=3)
    for _ in range(30):
        assert asked.edge.status("/page") == 200
    web, other = asked.get("/v1/pools")["items"]
    assert web["group"] == "web" and web["policy"] == "power_of_two" and other["group"] == "other"
    up, down = web["origins"]
    assert up["state"] == "up" and up["requests"] == 30 and up["weight"] == 3 and up["connections"]["open"] >= 1
    assert down["state"] in ("down", "failing") and down["workers_down"] >= 1 and 0 < down["back_in_ms"] <= 60000 and down["connections"]["failed"] >= 1
    assert other["origins"][0]["requests"] == 0 and asked.get("/v1/pools/other") == other
    assert ask(asked.socket, "GET", "/v1/pools/nobody").status == 404


def test_connections_by_pages(asked, origin):
    asked.start({"web": [f"http://127.0.0.1:{origin()}"]}, workers=3)
    edge = asked.edge
    held = []
    for _ in range(40):
        s = socket.create_connection(("127.0.0.1", edge.port))
        s.sendall(b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n")
        s.recv(4096)
        held.append(s)
    slow = subprocess.Popen([peer("curl"), "-sk", "--http2", "-o", os.devnull, f"https://localhost:{edge.tls_port}/slow?3000"])
    until(lambda: len(asked.get("/v1/connections?limit=1000")["items"]) == 41)
    for limit in (1, 7, 40, 41, 1000):
        got = asked.pages("/v1/connections", limit)
        assert len({c["id"] for c in got}) == len(got) == 41, limit
    plain = [c for c in got if c["listener"] == "plain"]
    mine = {f"127.0.0.1:{s.getsockname()[1]}" for s in held}
    assert {c["remote"] for c in plain} == mine and all(c["version"] == "1.1" and c["requests"] == 1 and c["active"] == 0 and c["tls"] is None for c in plain)
    tls, = [c for c in got if c["listener"] == "tls"]
    assert tls["version"] == "2" and tls["tls"] == "1.3" and tls["sni"] == "localhost" and tls["active"] == 1
    for bad in ("x", "1", "1.2", "1.0.3", "1.1.1.1", "-1.1.1x"):
        assert ask(asked.socket, "GET", f"/v1/connections?cursor={bad}").status == 400, bad
    for s in held:
        s.close()
    slow.kill()
    slow.wait()
    until(lambda: asked.get("/v1/connections")["items"] == [])


# ---- operating ----

def test_origins_out_and_in(asked, origin):
    a, b = origin("a"), origin("b")
    asked.start({"web": [f"http://127.0.0.1:{a}", f"http://127.0.0.1:{b}"]})
    edge = asked.edge

    def who(n=12):
        return {edge.curl("/name")[2] for _ in range(n)}

    assert who() == {b"a", b"b"}
    got = asked.put("/v1/pools/web/origins/0", {"out": True})
    assert got["number"] == 0 and got["out"] is True and got["state"] == "out"
    assert who() == {b"b"} and asked.get("/v1/pools/web")["origins"][0]["state"] == "out"
    asked.put("/v1/pools/web/origins/1", {"out": True})
    assert edge.status("/name") == 503
    until(lambda: edge.last("/name").get("reason") == "no_origin")
    asked.put("/v1/pools/web/origins/0", {"out": False})
    assert who() == {b"a"}
    asked.put("/v1/config/groups/web/retries", 2)  # another configuration: all are in
    assert who() == {b"a", b"b"}
    for path in ("/v1/pools/web/origins/2", "/v1/pools/web/origins/x", "/v1/pools/web/origins/-1", "/v1/pools/nobody/origins/0"):
        assert ask(asked.socket, "PUT", path, {"out": True}).status == 404, path
    assert ask(asked.socket, "PUT", "/v1/pools/web/origins/0", {"out": "yes"}).status == 400


def test_logs(asked, origin, tmp_path):
    log = tmp_path / "edge.log"
    asked.edge.config({"web": [f"http://127.0.0.1:{origin()}"]}, admin=asked.block, log={"target": str(log)})
    asked.edge.process = asked.edge.spawn(program("cb-edge"), "--config", asked.edge.file, name="cb-edge")
    until(asked.socket.exists)
    assert asked.get("/v1/log")["levels"] == "info"
    asked.put("/v1/log", {"levels": "warn,http=debug"})
    with socket.create_connection(("127.0.0.1", asked.edge.tls_port)) as s:
        s.sendall(b"no TLS\n")
        s.recv(100)
    until(lambda: "debug http: 127.0.0.1" in log.read_text())
    assert ask(asked.socket, "PUT", "/v1/log", {"levels": "loud"}).status == 400 and asked.get("/v1/log")["levels"] == "warn,http=debug"
    log.rename(tmp_path / "edge.log.1")
    asked.post("/v1/log/reopen", status=204)
    until(log.exists)
    asked.post("/v1/reload")  # the configuration's levels
    until(lambda: asked.get("/v1/log")["levels"] == "info")


def test_a_reload_says_what_is_wrong(asked, origin):
    url = f"http://127.0.0.1:{origin()}"
    asked.start({"web": [url]})
    asked.edge.config({"web": [url], "more": [url]}, admin=asked.block)
    assert asked.post("/v1/reload") == {"revision": 2} and len(asked.get("/v1/pools")["items"]) == 2
    asked.edge.config({"web": [url]}, [{"group": "nobody"}], admin=asked.block)
    got = ask(asked.socket, "POST", "/v1/reload")
    assert got.status == 400 and got.fields["content-type"] == "application/problem+json"
    error, = got.json()["errors"]
    assert error["pointer"] == "/routes/0/group" and "nobody" in error["detail"] and error["line"] > 1
    asked.edge.file.write_text("{")
    assert ask(asked.socket, "POST", "/v1/reload").status == 400 and asked.get("/v1/status")["revision"] == 2
    assert asked.edge.status("/page") == 200


def test_drain(asked, origin):
    asked.start({"web": [f"http://127.0.0.1:{origin()}"]})
    edge = asked.edge
    slow = subprocess.Popen([peer("curl"), "-s", "-o", os.devnull, "-w", "%{http_code}", f"http://127.0.0.1:{edge.port}/slow?4000"], stdout=subprocess.PIPE)
    until(lambda: asked.get("/v1/status")["totals"]["active"] == 1)
    assert asked.post("/v1/drain", {"timeout_ms": 20000}, status=202) == {"draining": True, "timeout_ms": 20000}
    until(lambda: asked.get("/v1/status")["draining"])  # it can be watched while it drains
    assert ask(asked.socket, "GET", "/readyz").status == 503 and ask(asked.socket, "POST", "/v1/drain").status == 409
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", edge.port), 1)
    assert slow.communicate(timeout=20)[0] == b"200"
    assert edge.process.popen.wait(30) == 0


def test_drain_cuts_at_its_own_time(asked, origin):
    asked.start({"web": [f"http://127.0.0.1:{origin()}"]}, drain_timeout_ms=60000)
    slow = subprocess.Popen([peer("curl"), "-s", "-o", os.devnull, f"http://127.0.0.1:{asked.edge.port}/slow?30000"])
    until(lambda: asked.get("/v1/status")["totals"]["active"] == 1)
    begin = time.monotonic()
    asked.post("/v1/drain", {"timeout_ms": 300}, status=202)
    assert asked.edge.process.popen.wait(30) == 0 and time.monotonic() - begin < 10
    assert slow.wait(30) != 0


# ---- events ----

class Events:
    """What /v1/events tells, as (type, value)."""

    def __init__(self, path, query=""):
        self.connection = Connection(path, timeout=20)
        self.connection.request("GET", "/v1/events" + query)
        self.response = self.connection.getresponse()
        assert self.response.status == 200
        self.got = []
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        kind = None
        try:
            for line in self.response:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "event":
                    kind = value
                elif name == "data":
                    self.got.append((kind, json.loads(value)))
        except (OSError, ValueError, AttributeError):
            pass

    def of(self, kind):
        return [value for what, value in list(self.got) if what == kind]


def test_events(asked, origin, tmp_path):
    url = f"http://127.0.0.1:{origin()}"
    asked.start({"web": [url]})
    events = Events(asked.socket)
    until(lambda: len(events.of("stats")) >= 2)
    asked.edge.status("/page")
    until(lambda: events.of("stats")[-1]["requests"] == 1)
    asked.put("/v1/config/groups/web/retries", 2)
    until(lambda: events.of("config"))
    assert events.of("config")[-1]["revision"] == 2
    asked.put("/v1/pools/web/origins/0", {"out": True})
    until(lambda: events.of("origin"))
    assert events.of("origin")[-1] == {"group": "web", "number": 0, "state": "out"}
    asked.put("/v1/log", {"levels": "warn"})
    until(lambda: events.of("log-levels"))
    asked.edge.config({"web": [url]}, [{"group": "nobody"}], admin=asked.block)
    ask(asked.socket, "POST", "/v1/reload")
    until(lambda: {"outcome": "refused"}.items() <= (events.of("reload") or [{}])[-1].items())
    made = run(program("cbctl"), "ca", "dev", "--dir", tmp_path / "another", "localhost")
    assert made.returncode == 0
    for name in ("cert", "key"):
        shutil.copy(tmp_path / "another" / {"cert": "localhost.pem", "key": "localhost-key.pem"}[name], tmp_path / f"{name}.pem")
    asked.edge.config({"web": [url]}, admin=asked.block, listeners={
        "plain": {"address": f"127.0.0.1:{asked.edge.port}"},
        "tls": {"address": f"127.0.0.1:{asked.edge.tls_port}", "tls": {"certificates": [{"cert_file": str(tmp_path / "cert.pem"), "key_file": str(tmp_path / "key.pem")}]}}})
    asked.post("/v1/reload")
    until(lambda: events.of("certificate"))
    assert events.of("reload")[-1]["outcome"] == "applied"
    asked.post("/v1/drain", status=202)
    until(lambda: events.of("drain"))


def test_events_of_origins_that_fail(asked, origin):
    port = free_port()
    asked.start({"web": {"origins": [{"url": f"http://127.0.0.1:{origin()}"}, {"url": f"http://127.0.0.1:{port}"}], "max_fails": 1, "fail_out_ms": 1500}}, workers=1)
    events = Events(asked.socket)
    until(lambda: events.of("stats"))
    time.sleep(1.2)  # how they are is known
    for _ in range(4):
        assert asked.edge.status("/page") == 200
    until(lambda: {"group": "web", "number": 1, "state": "down"} in events.of("origin"))
    until(lambda: {"group": "web", "number": 1, "state": "up"} in events.of("origin"))  # its time is over: it is tried again
    assert not [event for event in events.of("origin") if event["number"] == 0]


# ---- the audit log ----

def test_changes_are_in_the_audit_log(asked, origin):
    asked.start({"web": [f"http://127.0.0.1:{origin()}"]})
    asked.put("/v1/pools/web/origins/0", {"out": False})
    asked.put("/v1/config/groups/web/retries", 2)
    asked.post("/v1/reload")
    asked.put("/v1/log", {"levels": "debug"})
    ask(asked.socket, "PUT", "/v1/pools/web/origins/9", {"out": True})
    records = asked.pages("/v1/audit", 2)
    actions = [record["action"] for record in reversed(records)]
    assert actions[0] == "putOrigin" and "reload" in actions and len(records) >= 5 and all(record["actor"] == f"uid:{os.geteuid()}" for record in records)
    assert records[0]["outcome"] == "failed"
    page = ask(asked.socket, "GET", "/metrics").body.decode()
    assert int(re.search(r'cb_audit_records_total{name="admin"} (\d+)', page)[1]) >= 5 and 'cb_store_' in page
    assert asked.edge.process.stop() == 0
    got = run(program("cbctl"), "audit", "verify", asked.state / "audit")
    assert got.returncode == 0, got.stdout + got.stderr


def test_an_audit_log_that_was_changed_stops_changes_only(asked, origin):
    asked.start({"web": [f"http://127.0.0.1:{origin()}"]})
    for _ in range(3):
        asked.put("/v1/pools/web/origins/0", {"out": False})
    asked.edge.process.stop()
    raw = bytearray((asked.state / "audit").read_bytes())
    raw[len(raw) // 2] ^= 1
    (asked.state / "audit").write_bytes(raw)
    asked.edge.go()
    until(lambda: "unix:" in asked.edge.process.output())
    asked.edge.process.wait_for("the audit log is closed, and nothing can be changed")
    assert asked.edge.status("/page") == 200 and asked.get("/v1/status")["ready"]
    for method, path, body in (("PUT", "/v1/pools/web/origins/0", {"out": True}), ("PUT", "/v1/config/groups/web/retries", 4), ("POST", "/v1/reload", None)):
        assert ask(asked.socket, method, path, body).status == 507, path
    (asked.state / "audit").rename(asked.state / "audit.looked-at")
    asked.edge.process.send(signal.SIGHUP)  # tried again at once
    until(lambda: ask(asked.socket, "PUT", "/v1/pools/web/origins/0", {"out": False}).status == 200)


# ---- upgrades ----

def test_an_upgrade_takes_the_door_and_the_log_along(spawn, tmp_path, pki, request):
    service = Service(spawn, tmp_path, pki)
    request.addfinalizer(service.end)
    door, state = tmp_path / "admin.sock", tmp_path / "state"
    service.config(admin={"socket": str(door), "state_dir": str(state)})
    service.start()
    until(lambda: "unix:" in service.log())
    long = subprocess.Popen([peer("curl"), "-s", "--max-time", "20", "-o", os.devnull, f"http://127.0.0.1:{service.port}/drip?100000,6000"])

    def pid():
        try:
            got = ask(door, "GET", "/v1/status")
        except OSError:
            return None
        return got.json()["pid"] if got.status == 200 else None

    def change():
        return ask(door, "PUT", "/v1/pools/web/origins/0", {"out": False}).status

    assert pid() == service.pid() and change() == 200
    first = service.pid()
    service.upgrade()
    until(lambda: pid() == service.pid() != first)
    until(lambda: change() == 200)
    assert ask(door, "GET", "/v1/status").json()["processes"] == 2
    service.turn("/nonexistent")  # one that fails gives everything back
    service.signal_and_wait("this process goes on")
    until(lambda: change() == 200)
    assert pid() == service.pid()
    long.kill()
    long.wait()
    os.kill(service.pid(), signal.SIGTERM)
    until(lambda: not door.exists())
    got = run(program("cbctl"), "audit", "verify", state / "audit")
    assert got.returncode == 0, got.stdout + got.stderr
