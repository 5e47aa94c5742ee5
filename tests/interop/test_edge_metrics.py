"""The page of cb-edge's metrics and health: what is on it, and that it is there whatever happens."""

import ctypes
import os
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest
from conftest import free_port, peer, program, run
from test_edge import Edge, edge, origin  # noqa: F401: fixtures
from test_edge_telemetry import until
from test_metrics import Prometheus
from test_upgrade import Service

FAMILY = re.compile(r'^(\w+)(?:\{(.*)\})? (\S+)$')


def page(port, path="/metrics", host="127.0.0.1"):
    """(status, text)"""
    try:
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=10) as got:
            return got.status, got.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Page:
    """The page at a port; value("family", label="...") is a number, or None when there is no such series."""

    def __init__(self, port):
        self.port = port

    def values(self, family):
        out = {}
        for line in page(self.port)[1].splitlines():
            found = FAMILY.match(line)
            if found and found[1] == family:
                out[frozenset(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found[2] or ""))] = float(found[3])
        return out

    def value(self, family, **labels):
        return self.values(family).get(frozenset(labels.items()))


@pytest.fixture
def watched(edge, origin):
    """A cb-edge with a page: page.value(...), and edge.write(**more) writes its configuration."""
    port = free_port()
    web = {"web": [f"http://127.0.0.1:{origin()}"]}

    def write(groups=None, routes=None, **more):
        edge.config(groups or web, routes, **{"metrics": {"listen": f"127.0.0.1:{port}"}, **more})

    edge.write, edge.web, edge.page = write, web, Page(port)
    write()
    edge.go()
    return edge


def test_promtool_finds_nothing_to_say(watched, tmp_path):
    for scheme in ("http", "https"):
        assert watched.status("/page", scheme=scheme) == 200
    (tmp_path / "page").write_text(page(watched.page.port)[1])
    got = run("sh", "-c", f"'{peer('promtool')}' check metrics < {tmp_path}/page")
    assert (got.returncode, got.stdout + got.stderr) == (0, "")


def test_prometheus_scrapes_the_daemon(watched, spawn, tmp_path):
    server = Prometheus(spawn, tmp_path, watched.page.port)
    server.until("up", ["1"])
    server.until("cb_edge_workers", ["2"])
    server.until("cb_edge_certificate_expiry_timestamp_seconds > time()", lambda got: len(got) == 1)
    server.until("sum(cb_loop_turns_total) > 0", lambda got: len(got) == 1)


def test_the_configuration(watched):
    p = watched.page
    begin = time.time()
    assert (p.value("cb_edge_config_listeners"), p.value("cb_edge_config_groups"), p.value("cb_edge_config_routes")) == (2, 1, 1)
    assert p.value("cb_edge_config_origins", group="web") == 1 and p.value("cb_edge_workers") == 2
    assert p.value("cb_edge_config_revision") == 1 and p.value("cb_edge_config_last_reload_successful") == 1
    two = {"web": watched.web["web"] * 2, "more": watched.web["web"]}
    watched.write(two)
    watched.reload()
    assert (p.value("cb_edge_config_groups"), p.value("cb_edge_config_routes")) == (2, 2)
    assert p.value("cb_edge_config_origins", group="web") == 2 and p.value("cb_edge_config_origins", group="more") == 1
    assert p.value("cb_edge_config_revision") == 2 and begin <= p.value("cb_edge_config_applied_timestamp_seconds") <= time.time()
    assert p.value("cb_edge_config_reloads_total", outcome="applied") == 1 and p.value("cb_edge_config_reload_seconds_count") == 1
    assert 0 < p.value("cb_edge_config_reload_seconds_sum") < 5
    watched.write(routes=[{"group": "nobody"}])
    watched.reload(good=False)
    assert p.value("cb_edge_config_last_reload_successful") == 0 and p.value("cb_edge_config_reloads_total", outcome="refused") == 1
    assert p.value("cb_edge_config_revision") == 2 and p.value("cb_edge_config_origins", group="more") == 1
    watched.write()
    watched.reload()
    assert p.value("cb_edge_config_last_reload_successful") == 1 and p.value("cb_edge_config_origins", group="more") is None


def test_health_while_it_drains(watched):
    port = watched.page.port
    assert [page(port, path)[0] for path in ("/livez", "/readyz", "/healthz")] == [200] * 3
    assert watched.page.value("cb_edge_ready") == 1 and watched.page.value("cb_edge_draining") == 0
    slow = subprocess.Popen([peer("curl"), "-s", "-o", os.devnull, f"http://127.0.0.1:{watched.port}/slow?2500"])
    time.sleep(0.3)
    watched.process.send(signal.SIGTERM)
    until(lambda: page(port, "/readyz")[0] == 503)
    status, text = page(port, "/readyz")
    assert status == 503 and "drains" in text and page(port, "/livez")[0] == 200 and page(port, "/healthz")[0] == 503
    assert watched.page.value("cb_edge_ready") == 0 and watched.page.value("cb_edge_draining") == 1
    assert slow.wait(30) == 0 and watched.process.stop() == 0


def test_a_worker_that_hangs(watched):
    """A tracer holds one thread of the process: the page is still there, and says so after 15 seconds."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    tasks = sorted(int(t) for t in os.listdir(f"/proc/{watched.process.pid}/task"))
    seize, interrupt, detach = 0x4206, 0x4207, 17
    p = watched.page
    assert all(seconds < 5 for seconds in p.values("cb_edge_worker_silence_seconds").values()) and page(p.port, "/livez")[0] == 200
    done, held = threading.Event(), threading.Event()

    def hold(task):  # who seizes a thread is the one to let it go
        if libc.ptrace(seize, task, None, None) == 0 and libc.ptrace(interrupt, task, None, None) == 0:
            os.waitpid(task, 0x40000000)  # __WALL
            held.set()
            done.wait(60)
            libc.ptrace(detach, task, None, None)

    workers = [t for t in tasks if open(f"/proc/{watched.process.pid}/task/{t}/comm").read().strip() == "cb-worker-0"]
    thread = threading.Thread(target=hold, args=(workers[0],), daemon=True)
    thread.start()
    if not held.wait(5):
        pytest.skip("this system lets no process be traced")
    try:
        until(lambda: page(p.port, "/livez")[0] == 503, seconds=30)
        assert "worker 0" in page(p.port, "/livez")[1] and p.value("cb_edge_worker_silence_seconds", worker="0") > 15
        assert p.value("cb_edge_worker_silence_seconds", worker="1") < 5
    finally:
        done.set()
        thread.join()
    until(lambda: page(p.port, "/livez")[0] == 200)


def test_reloads_move_the_page(watched):
    first = watched.page.port
    second = free_port()
    watched.write(metrics={"listen": f"[::1]:{second}"})
    watched.reload()
    assert page(second, "/readyz", "[::1]")[0] == 200
    with pytest.raises(OSError):
        page(first)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        watched.write(metrics={"listen": f"127.0.0.1:{other.getsockname()[1]}"})
        watched.reload(good=False)
    assert "/metrics/listen" in watched.process.output() and page(second, "/livez", "[::1]")[0] == 200
    watched.config(watched.web)
    watched.reload()
    with pytest.raises(OSError):
        page(second, "/livez", "[::1]")
    watched.write()
    watched.reload()
    assert page(first, "/livez")[0] == 200


@pytest.mark.parametrize("listen", ["0.0.0.0:9464", ":9464", "192.0.2.1:9464", "[::]:9464", "[2001:db8::1]:9464"])
def test_loopback_only(edge, listen):
    edge.config({"web": ["http://127.0.0.1:1"]}, metrics={"listen": listen})
    got = run(program("cb-edge"), "--check", "--config", edge.file)
    assert got.returncode == 1 and "/metrics/listen: it must be a loopback address" in got.stderr


def test_it_can_only_be_read(watched):
    for method in ("POST", "PUT", "DELETE"):
        request = urllib.request.Request(f"http://127.0.0.1:{watched.page.port}/metrics", method=method, data=b"x")
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request, timeout=10)
        assert error.value.code == 405
    assert page(watched.page.port, "/v1/status")[0] == 404


def test_scrapers_that_never_read(watched):
    """They cost requests, reloads and other scrapers nothing, and are cut in the end."""
    deaf = []
    for _ in range(20):
        s = socket.create_connection(("127.0.0.1", watched.page.port))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200)
        deaf.append(s)
    begin = time.monotonic()
    for _ in range(20):
        assert watched.status("/page") == 200
    watched.reload()
    assert time.monotonic() - begin < 5
    until(lambda: page(watched.page.port)[0] == 200)
    status = open(f"/proc/{watched.process.pid}/status").read()
    assert int(re.search(r"^VmRSS:\s+(\d+) kB", status, re.M)[1]) < 200_000
    for s in deaf:
        s.close()
    begin = time.monotonic()
    assert watched.process.stop() == 0 and time.monotonic() - begin < 5


def test_an_upgrade_takes_the_page_along(spawn, tmp_path, pki, request):
    """Scrapes go on all the while; none is refused, and none sees a process that is not ready."""
    port = free_port()
    service = Service(spawn, tmp_path, pki)
    request.addfinalizer(service.end)  # its successors are not ours to wait for
    service.config(metrics={"listen": f"127.0.0.1:{port}"})
    service.start()
    p, failures, stop = Page(port), [], threading.Event()
    assert p.value("cb_edge_upgrades_total", outcome="succeeded") == 0 and p.value("cb_edge_processes") == 1
    long = subprocess.Popen([peer("curl"), "-s", "--max-time", "20", "-o", os.devnull, f"http://127.0.0.1:{service.port}/drip?100000,15000"])

    def scrape():
        while not stop.is_set():
            try:
                if page(port, "/readyz")[0] != 200 or page(port)[0] != 200:
                    failures.append("not ready")
            except OSError as error:
                failures.append(str(error))

    threads = [threading.Thread(target=scrape, daemon=True) for _ in range(3)]
    for t in threads:
        t.start()
    before = p.value("process_start_time_seconds")
    try:
        for n in (1, 2):
            service.upgrade()
            until(lambda: p.value("cb_edge_upgrades_total", outcome="succeeded") == n)
        assert p.value("process_start_time_seconds") > before
        until(lambda: p.value("cb_edge_processes") >= 2)  # the first one still has the long request
    finally:
        stop.set()
        for t in threads:
            t.join(20)
    assert not failures, failures[:5]
    long.kill()  # nothing holds the first process any more
    long.wait()
    until(lambda: p.value("cb_edge_processes") == 1)
    service.turn("/nonexistent")
    os.kill(service.pid(), signal.SIGUSR2)
    until(lambda: p.value("cb_edge_upgrades_total", outcome="failed") == 1)
    assert p.value("cb_edge_upgrades_total", outcome="succeeded") == 2 and page(port, "/readyz")[0] == 200


# ---- what expires ----

def ca(*words):
    got = run(program("cbctl"), "ca", *words)
    assert got.returncode == 0, got.stderr


def date_of(*command):
    """Seconds since 1970 of what openssl prints as NAME=DATE."""
    text = run(peer("openssl"), *command).stdout
    return time.mktime(time.strptime(text.split("=", 1)[1].strip(), "%b %d %H:%M:%S %Y %Z")) - time.timezone


def test_what_expires(edge, origin, tmp_path):
    folder = tmp_path / "ca"
    ca("init", "--dir", folder)
    ca("issue", "--dir", folder, "--profile", "server", "expires.test")
    ca("crl", "--dir", folder)
    chain, staple = tmp_path / "chain.pem", tmp_path / "staple.ocsp"
    chain.write_text((folder / "expires.test.pem").read_text() + (folder / "ca.pem").read_text())
    ca("staple", "--dir", folder, "--out", staple, folder / "expires.test.pem")
    port = free_port()
    tls = {"certificates": [{"cert_file": str(chain), "key_file": str(folder / "expires.test-key.pem"), "ocsp_file": str(staple)}],
           "clients": [{"host": "expires.test", "certificates": "ask", "ca_file": str(folder / "ca.pem"), "crl_file": str(folder / "ca.crl")}]}
    group = {"origins": [{"url": f"http://127.0.0.1:{origin()}"}], "ca_file": str(folder / "ca.pem"), "crl_file": str(folder / "ca.crl")}
    begin = time.time()
    edge.start({"web": group}, listeners={"tls": {"address": f"127.0.0.1:{edge.tls_port}", "tls": tls}}, metrics={"listen": f"127.0.0.1:{port}"})
    p = Page(port)
    leaf, root = (date_of("x509", "-enddate", "-noout", "-in", folder / name) for name in ("expires.test.pem", "ca.pem"))
    due = date_of("crl", "-nextupdate", "-noout", "-in", folder / "ca.crl")
    here = {"kind": "listener", "name": "tls", "certificate": "expires.test"}
    assert p.value("cb_edge_certificate_expiry_timestamp_seconds", **here) == leaf
    assert p.value("cb_edge_certificate_chain_expiry_timestamp_seconds", **here) == root
    assert begin < p.value("cb_edge_ocsp_next_update_timestamp_seconds", **here) < begin + 30 * 86400
    assert p.value("cb_edge_authority_expiry_timestamp_seconds", kind="listener", name="tls", host="expires.test") == root
    assert p.value("cb_edge_authority_expiry_timestamp_seconds", kind="group", name="web", host="") == root
    lists = p.values("cb_edge_crl_next_update_timestamp_seconds")
    assert {dict(labels)["kind"] for labels in lists} == {"listener", "group"} and set(lists.values()) == {due}
    assert begin - 2 <= p.value("cb_edge_ticket_key_timestamp_seconds") <= time.time() + 1
    # another certificate, by a reload
    ca("issue", "--dir", folder, "--profile", "server", "--hours", "100", "--out", "other", "other.test")
    tls["certificates"][0] = {"cert_file": str(folder / "other.pem"), "key_file": str(folder / "other-key.pem")}
    edge.config({"web": group}, listeners={"tls": {"address": f"127.0.0.1:{edge.tls_port}", "tls": tls}}, metrics={"listen": f"127.0.0.1:{port}"})
    edge.reload()
    assert p.value("cb_edge_certificate_expiry_timestamp_seconds", **here) is None
    assert p.value("cb_edge_certificate_expiry_timestamp_seconds", kind="listener", name="tls", certificate="other.test") > leaf
    assert not p.values("cb_edge_ocsp_next_update_timestamp_seconds")


def test_the_log_counts(watched):
    p = watched.page
    before = p.value("cb_log_lines_total", name="edge")
    watched.write(routes=[{"group": "nobody"}])
    watched.reload(good=False)
    assert p.value("cb_log_lines_total", name="edge") > before and p.value("cb_log_dropped_lines_total", name="edge") == 0
    watched.write(log={"target": f"udp:127.0.0.1:{free_port()}", "levels": "info,http=debug"})  # nobody is there
    watched.process.send(signal.SIGHUP)
    until(lambda: p.value("cb_edge_config_reloads_total", outcome="applied") == 1)

    def lost():
        with socket.create_connection(("127.0.0.1", watched.tls_port)) as s:
            s.sendall(b"no TLS\n")
            s.recv(100)
        return p.value("cb_log_dropped_lines_total", name="edge")

    until(lost)
