"""cbctl and a real cb-edge: what an operator does in a day, over the unix socket."""

import json
import os
import re
import subprocess
import threading
import time
import urllib.request

import pytest
from conftest import free_port, program, run


@pytest.fixture
def edge(spawn, tmp_path):
    """A cb-edge with an admin socket, an origin that answers and one that is not there."""
    origin = spawn(program("origin_demo"), "127.0.0.1:0").wait_for("origin on ")
    at = re.search(r"origin on (\S+)", origin.output())[1]
    port = free_port()
    config = {"workers": 2, "drain_timeout_ms": 1000, "listeners": {"http": {"address": f"127.0.0.1:{port}"}},
              "groups": {"web": {"origins": [{"url": f"http://{at}"}]}}, "routes": [{"group": "web"}], "metrics": {"listen": "127.0.0.1:0"},
              "admin": {"socket": str(tmp_path / "admin.sock"), "state_dir": str(tmp_path / "state"),
                        "roles": [{"who": f"uid:{os.getuid()}", "role": "admin"}]}}
    config["metrics"] = {"listen": f"127.0.0.1:{free_port()}"}
    file = tmp_path / "edge.json"
    file.write_text(json.dumps(config, indent=4))
    process = spawn(program("cb-edge"), "--config", file).wait_for("ready with").wait_for("admin.sock: administration")

    class Edge:
        url, socket, dead = f"http://127.0.0.1:{port}", tmp_path / "admin.sock", f"http://127.0.0.1:{free_port()}"

    Edge.file, Edge.process, Edge.config, Edge.origin = file, process, config, f"http://{at}"
    return Edge


def cbctl(edge, *words, code=0, **kw):
    got = run(program("cbctl"), *words, "--socket", edge.socket, **kw)
    assert got.returncode == code, got
    return got


def table(text):
    """Rows of a table as dictionaries; cells without blanks."""
    head, *rows = [line.split() for line in text.splitlines()]
    return [dict(zip(head, row)) for row in rows]


def test_a_change_is_looked_at_made_and_taken_back(edge, tmp_path):
    assert cbctl(edge, "get", "groups.web.origins.0.url").stdout == edge.origin + "\n"
    changed = {**edge.config, "groups": {"web": {"origins": [{"url": edge.origin}, {"url": edge.dead}]}}}
    file = tmp_path / "next.json"
    file.write_text("// comments stay\n" + json.dumps(changed, indent=2))
    assert cbctl(edge, "diff", file).stdout == f'+ /groups/web/origins/1: {{"url":"{edge.dead}"}}\n'
    assert "nothing was changed" in cbctl(edge, "apply", "--dry-run", file).stdout
    assert cbctl(edge, "apply", "--if-match", "1", "--why", "a second one", file).stdout == "revision 2\n"
    assert "it has changed" in cbctl(edge, "set", "--if-match", "1", "groups.web.origins.1.weight", "2", code=4).stderr
    assert cbctl(edge, "set", "groups.web.origins.1.weight", "2").stdout == "revision 3\n"
    assert cbctl(edge, "diff").stdout.startswith("+ /groups/web/origins/1/weight: 2")
    rows = json.loads(cbctl(edge, "history", "--json").stdout)
    assert [(r["revision"], r["reason"], r["running"]) for r in rows] == [(3, "", True), (2, "a second one", False), (1, "", False)]
    assert cbctl(edge, "unset", "groups.web.origins.1").stdout == "revision 4\n"
    assert cbctl(edge, "rollback", "2", "--why", "it was good").stdout == "revision 5\n"
    assert cbctl(edge, "diff", "2", "5").stdout == "" and cbctl(edge, "diff", file).stdout == ""
    patch = tmp_path / "patch.json"
    patch.write_text('{"groups": {"web": {"origins": [{"url": "%s"}]}}}' % edge.origin)
    assert cbctl(edge, "apply", "--merge", patch).stdout == "revision 6\n"
    patch.write_text('[{"op": "test", "path": "/groups/web/origins/0/url", "value": "other"}]')
    cbctl(edge, "apply", "--json-patch", patch, code=4)
    assert cbctl(edge, "diff", "1").stdout == ""


def test_mistakes_in_a_file(edge, tmp_path):
    file = tmp_path / "bad.json"
    lines = json.dumps(edge.config, indent=4).splitlines()
    lines.insert(1, '    "odd": 1,')
    file.write_text("\n".join(lines).replace(edge.origin, "ftp://x"))
    got = cbctl(edge, "apply", file, code=6)
    where = next(i for i, line in enumerate(file.read_text().splitlines(), 1) if "ftp" in line)
    assert f"{file}:2:5: /odd: " in got.stderr and re.search(rf"^{file}:{where}:\d+: /groups/web/origins/0/url: ", got.stderr, re.M), got.stderr
    file.write_text('{"workers": 2,}')
    assert re.search(rf"^{file}:1:\d+: ", cbctl(edge, "apply", file, code=6).stderr, re.M)
    assert [r["revision"] for r in json.loads(cbctl(edge, "history", "--json").stdout)] == [1]


def test_how_it_is(edge):
    for _ in range(3):
        assert urllib.request.urlopen(edge.url + "/headers", timeout=10).status == 200
    status = json.loads(cbctl(edge, "status", "--json").stdout)
    assert status["pid"] == edge.process.pid and status["revision"] == 1 and status["workers"] == 2
    assert f"\npid                 {edge.process.pid}\n" in cbctl(edge, "status").stdout
    assert "uid:" in cbctl(edge, "whoami").stdout
    assert table(cbctl(edge, "listeners").stdout)[0]["name"] == "http"
    assert table(cbctl(edge, "routes").stdout)[0]["group"] == "web"
    pool = table(cbctl(edge, "pools").stdout)[0]
    assert (pool["group"], pool["url"], pool["state"]) == ("web", edge.origin, "up")
    assert edge.origin in cbctl(edge, "pools", "web").stdout
    assert "404" in cbctl(edge, "pools", "nothing", code=1).stderr
    assert json.loads(cbctl(edge, "openapi").stdout)["openapi"].startswith("3.1")
    assert cbctl(edge, "metrics", "cb_build_info", "process_").stdout.splitlines()[0].split() == ["metric", "labels", "value"]
    assert len(json.loads(cbctl(edge, "metrics", "--json").stdout)) > 50
    assert "# TYPE process_open_fds gauge\n" in cbctl(edge, "metrics", "--raw", "process_open_fds").stdout
    served = json.loads(cbctl(edge, "metrics", "cb_http_server_requests", "--json").stdout)[0]["samples"]
    assert sum(s["value"] for s in served) == 3, "what people look at is no traffic"
    for words in (["certificates"], ["connections"]):
        cbctl(edge, *words)


def test_operating(edge):
    assert "levels" in cbctl(edge, "log").stdout
    cbctl(edge, "log", "info,http=debug")
    assert json.loads(cbctl(edge, "log", "--json").stdout)["levels"] == "info,http=debug"
    assert "a level is debug" in cbctl(edge, "log", "loud", code=6).stderr
    cbctl(edge, "origin", "out", "web", "0")
    assert table(cbctl(edge, "pools").stdout)[0]["state"] == "out"
    cbctl(edge, "origin", "in", "web", "0")
    assert table(cbctl(edge, "pools").stdout)[0]["state"] == "up"
    cbctl(edge, "origin", "out", "web", "7", code=1)
    edge.file.write_text(edge.file.read_text().replace(edge.origin, edge.dead))
    assert cbctl(edge, "reload").stdout == "reloaded\n"
    assert cbctl(edge, "get", "/groups/web/origins/0/url").stdout == edge.dead + "\n"
    edge.file.write_text("{")
    cbctl(edge, "reload", code=6)
    assert cbctl(edge, "drain", "--timeout", "500ms").returncode == 0
    assert edge.process.popen.wait(30) == 0
    cbctl(edge, "status", code=5)


def test_events_survive_a_change(edge):
    follow = subprocess.Popen([program("cbctl"), "events", "--type", "config,log-levels", "--limit", "3", "--json", "--socket", edge.socket],
                              stdout=subprocess.PIPE, text=True)
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(follow.stdout), daemon=True)
    reader.start()
    end = time.monotonic() + 20
    level = 0
    while not lines and time.monotonic() < end:  # until it listens
        cbctl(edge, "log", ("info", "warn")[level := 1 - level])
        time.sleep(0.1)
    assert cbctl(edge, "set", "groups.web.origins.0.weight", "3", "--why", "seen").stdout == "revision 2\n"
    while not any('"config"' in line for line in lines) and time.monotonic() < end:
        time.sleep(0.05)
    while follow.poll() is None and time.monotonic() < end:
        cbctl(edge, "log", ("info", "warn")[level := 1 - level])
        time.sleep(0.1)
    reader.join(5)
    assert follow.wait(30) == 0
    events = [json.loads(line) for line in lines]
    assert [e["data"]["reason"] for e in events if e["event"] == "config"] == ["seen"] and len(events) == 3


def test_top_sees_what_is_done(edge):
    stop = threading.Event()

    def load():
        while not stop.is_set():
            urllib.request.urlopen(edge.url + "/headers", timeout=10).read()

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        view = json.loads(cbctl(edge, "top", "--once", "--json").stdout)
        text = cbctl(edge, "top", "--once", env={**os.environ, "COLUMNS": "80"}).stdout
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert view["version"].startswith("cb-edge") and view["revision"] == "1" and view["workers"] == 2 and view["pid"] == edge.process.pid
    assert view["requests_per_s"] > 5 and view["answers_per_s"]["2xx"] == pytest.approx(view["requests_per_s"], rel=0.2)
    assert 0 < view["latency_p50_s"] <= view["latency_p99_s"] < 10 and view["bytes_out_per_s"] > 0
    origin = view["origins"][0]
    assert (origin["group"], origin["origin"], origin["state"]) == ("web", edge.origin, "up") and origin["requests_per_s"] > 5
    assert len(view["origins"]) == 1 and origin["latency_p50_s"] > 0
    assert all(len(line) <= 80 for line in text.splitlines()) and edge.origin[7:] in text


def test_somebody_without_a_right(edge, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    config = json.loads(json.dumps(edge.config))
    config["admin"]["roles"] = [{"who": "uid:0", "role": "viewer"}]
    edge.file.write_text(json.dumps(config))
    cbctl(edge, "reload")
    cbctl(edge, "status")
    for words in (["set", "groups.web.origins.0.weight", "2"], ["reload"], ["drain"], ["log", "debug"], ["origin", "out", "web", "0"], ["rollback", "1"]):
        assert "403" in cbctl(edge, *words, code=3).stderr
