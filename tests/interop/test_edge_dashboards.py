"""Two cb-edge under a little traffic of every kind, scraped by Prometheus: each panel and each alert has something to look at."""

import os
import socket
import ssl
import threading
import time

import pytest
from acme_server import AcmeServer
from conftest import free_port, peer, program, run
from prometheus import Prometheus
from test_dashboards import MAY_LACK, RULES, TABLE, answered, firing
from test_edge import Edge, origin, ws_client  # noqa: F401  (fixtures)
from test_edge_acme import Edge as AcmeEdge
from test_edge_acme import make_ca
from test_edge_auth import AUDIENCE, Agent, Provider, api_key, bearer, robots, signer, staff  # noqa: F401  (fixtures)
from test_mtls import ca, issue

OF_A_POP = {"lb", "forward"}  # several hosts that share a table and forward by it: test_edge_lb.py and test_edge_forward.py look at their pages
GARBAGE = b"\xc0\x1a\x2a\x3a\x4a\x08" + b"x" * 1300  # a long header of a version that nobody has


def servers(folder):
    """A CA with a certificate for localhost and an OCSP answer for it, and one with clients and a revocation list."""
    root, ours, theirs = folder / "root", folder / "servers", folder / "clients"
    ca("init", "--dir", root, "--cn", "Servers")
    ca("intermediate", "--dir", ours, "--parent", root)
    made = issue(ours, "--profile", "server", "localhost", "127.0.0.1", "mutual.test")
    ca("staple", "--dir", ours, "--out", folder / "answer.der", made["cert"])
    ca("init", "--dir", theirs, "--cn", "Clients")
    client = issue(theirs, "--profile", "svid", "--uri", "spiffe://td.test/me", "--out", "client")
    ca("crl", "--dir", theirs)
    return {"dir": ours, "ca": root / "ca.pem", "above": ours / "ca.pem", **made}, {"ca": theirs / "ca.pem", "crl": theirs / "ca.crl", **client}


class Full(Edge):
    """An edge with something of everything, and what it takes to ask it."""

    def __init__(self, spawn, folder):
        pki, self.client = servers(folder)
        super().__init__(spawn, folder, pki)
        self.scraped, self.provider, self.agent = free_port(), Provider(), Agent()
        self.provider.active = {"opaque": {"active": True, "sub": "app", "org": "acme", "aud": AUDIENCE, "exp": time.time() + 300}}

    def run_with(self, port):
        key = {"cert_file": str(self.pki["cert"]), "key_file": str(self.pki["key"])}
        listeners = {"plain": {"address": f"127.0.0.1:{self.port}"},
                     "tls": {"address": f"127.0.0.1:{self.tls_port}", "tls": {
                         "certificates": [{**key, "ocsp_file": str(self.folder / "answer.der"), "issuer_file": str(self.pki["above"])}], "early_data": True,
                         "clients": [{"host": "mutual.test", "ca_file": str(self.client["ca"]), "crl_file": str(self.client["crl"])}]}}}
        itself = {"origins": [{"url": f"https://localhost:{self.tls_port}"}], "ca_file": str(self.pki["ca"]), "host": "localhost", **key}
        groups = {"web": {"origins": [{"url": f"http://127.0.0.1:{port}"}], "tenant": "shop", "health": {"check": {"path": "/name", "interval_ms": 500}}},
                  "down": {"origins": [{"url": f"http://127.0.0.1:{free_port()}"}], "health": {"check": {"kind": "tcp", "interval_ms": 500}}},
                  "out": {"origins": [{"url": f"http://127.0.0.1:{port}"}, {"url": f"http://localhost:{port}"}],
                          "health": {"outliers": {"consecutive_errors": 1, "min_origins": 2, "eject_ms": 100}}},
                  "slow": {"origins": [{"url": f"http://127.0.0.1:{port}"}], "response_timeout_ms": 300}, "two": {**itself, "versions": ["h2"]},
                  "unknown": ["http://nowhere.invalid:1"],
                  "three": {**itself, "versions": ["h3"]}}
        routes = [{"group": "web"}, {"path": "/down", "group": "down"}, {"path": "/slow", "group": "slow"}, {"path": "/unknown", "group": "unknown"},
                  {"host": "out.test", "group": "out"},
                  {"host": "two.test", "group": "two"},
                  {"host": "three.test", "group": "three"},
                  {"path": "/staff", "group": "web", "auth": {"any": ["staff", "robots"], "need_tenant": True, "opa": {"url": self.agent.url}}},
                  {"path": "/apps", "group": "web", "auth": {"any": ["people", "apps"]}}]
        identities = {"staff": staff(self.folder), "robots": robots(self.folder), "people": {"jwt": {"provider": "idp", "audiences": [AUDIENCE]}},
                      "apps": {"introspect": {"provider": "idp", "audiences": [AUDIENCE]}}}
        self.config(groups, routes, listeners=listeners, identities=identities, providers=self.provider.config(self.folder, introspect_ttl_s=1),
                    metrics={"listen": f"127.0.0.1:{self.scraped}"}, admin={"socket": str(self.folder / "admin.sock"), "state_dir": str(self.folder / "state")},
                    tracing={"url": f"http://127.0.0.1:{port}"})
        return self.go(env={**os.environ, "CBR_CC": "bbrv3"})


def plain_requests(edge):
    for path in ("/head", "/big?300000", "/chunks", "/info", "/status?404", "/status?503", "/down", "/slow?1000", "/die", "/unknown"):
        edge.curl(path)
    edge.curl("/echo", "-d", "x" * 5000)
    edge.curl("/status?503", "-H", "Host: out.test")
    edge.curl("/name", "-H", "Host: two.test")
    edge.curl("/name", "-H", "Host: three.test")
    edge.raw(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    edge.raw(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100000 + b"\r\n\r\n")


    with socket.create_connection(("127.0.0.1", edge.port)) as s:  # a head that takes its time
        s.sendall(b"GET /name HTTP/1.1\r\n")
        time.sleep(0.05)
        s.sendall(b"Host: localhost\r\nConnection: close\r\n\r\n")
        while s.recv(65536):
            pass


def over_tls(edge, ws):
    sessions = edge.folder / "sessions"
    for version in ("--http1.1", "--http2"):
        edge.curl("/name", version, scheme="https")
    for options in ([], [], ["--early"]):
        run(program("http_client"), "-3", "--ca", edge.pki["ca"], "--sessions", sessions, *options, f"https://localhost:{edge.tls_port}/name")
    for shown in ([], ["--cert", edge.client["cert"], "--key", edge.client["key"]]):
        edge.curl("/name", "--resolve", f"mutual.test:{edge.tls_port}:127.0.0.1", *shown, scheme="https", host="mutual.test")
    run(peer("curl"), "-s", "--max-time", "5", f"https://localhost:{edge.tls_port}/")  # does not believe our CA
    for version in "123":
        run(ws, version, edge.pki["ca"], f"https://localhost:{edge.tls_port}/ws", "hello", "3")


def identities(edge, key, robot):
    for options in ([], bearer("garbage"), bearer(key.token(exp=1)), bearer(key.token()), bearer(key.token(org=None)), ["-H", f"x-api-key: {robot}"],
                    ["-H", "x-api-key: none"]):
        edge.curl("/staff", *options)
    for options in (edge.provider.bearer(), edge.provider.bearer(key), bearer("opaque"), bearer("nobody's")):
        edge.curl("/apps", *options)


def strangers(edge):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(GARBAGE, ("127.0.0.1", edge.tls_port))
        s.sendto(b"nothing", ("127.0.0.1", edge.tls_port))
    with socket.create_connection(("127.0.0.1", edge.tls_port)) as s:
        s.sendall(b"GET / HTTP/1.1\r\n\r\n")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode, old.maximum_version = False, ssl.CERT_NONE, ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", edge.tls_port)) as s, pytest.raises(OSError):
        old.wrap_socket(s)


class Traffic:
    """Rounds of traffic until it is closed, so that rates are there however long the queries take."""

    def __init__(self, *works):
        self.over, self.wrong = threading.Event(), []
        self.thread = threading.Thread(target=self.run, args=works, daemon=True)
        self.thread.start()

    def run(self, *works):
        while not self.over.is_set():
            for work in works:
                try:
                    work()
                except Exception as wrong:  # told by close()
                    self.wrong.append(wrong)
                    return

    def close(self):
        self.over.set()
        self.thread.join(60)
        if self.wrong:
            raise self.wrong[0]


@pytest.fixture
def by_acme(tmp_path, spawn):
    """A second edge, whose certificate comes by ACME; the port of its metrics."""
    folder = tmp_path / "acme"
    folder.mkdir()
    roots = make_ca(folder)
    server = AcmeServer(roots, free_port())
    edge, port = AcmeEdge(folder, spawn, "acme-edge", server.url, roots), free_port()
    edge.root["metrics"] = {"listen": f"127.0.0.1:{port}"}
    edge.go()
    yield port
    server.stop()


def families_of(page):
    return {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE ")}


def test_every_panel_and_alert_has_something_to_look_at(spawn, tmp_path, origin, signer, ws_client, by_acme):  # noqa: F811
    robot = api_key(tmp_path, "--subject", "robot", "--tenant", "acme")
    edge = Full(spawn, tmp_path).run_with(origin())
    server = Prometheus(spawn, tmp_path, [edge.scraped, by_acme], rules=[*RULES, firing(tmp_path)])
    traffic = Traffic(lambda: plain_requests(edge), lambda: over_tls(edge, ws_client), lambda: identities(edge, signer, robot), lambda: strangers(edge),
                      edge.reload)
    try:
        answered(server, {family.module for family in TABLE.values()} - OF_A_POP, seconds=90)
    finally:
        traffic.close()
        edge.provider.go()
        edge.agent.go()

    there = set()
    for port in (edge.scraped, by_acme):
        (tmp_path / "page").write_text(run(peer("curl"), "-sS", f"http://127.0.0.1:{port}/metrics").stdout)
        got = run("sh", "-c", f"'{peer('promtool')}' check metrics < {tmp_path}/page")
        assert (got.returncode, got.stdout + got.stderr) == (0, ""), got.stdout + got.stderr
        there |= families_of((tmp_path / "page").read_text())
    missing = [family.name for family in TABLE.values() if family.module not in OF_A_POP and not there & {family.name, family.name + "_total"}]
    assert not set(missing) - set(MAY_LACK), f"not on a page of cb-edge: {', '.join(missing)}"
