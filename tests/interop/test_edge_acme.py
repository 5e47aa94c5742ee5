"""cb-edge gets its certificates by itself: from Debian's pebble with a fifth of all nonces refused, and from a server of our own."""

import calendar
import http.client
import json
import os
import pwd
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest
from acme_server import AcmeServer, dns_hook, start_pebble
from conftest import free_port, peer, program, run
from test_edge_metrics import Page

HOST = "a.example.org"


def make_ca(tmp_path):
    made = run(program("cbctl"), "ca", "dev", "--dir", tmp_path / "ca", "localhost", "127.0.0.1")
    assert made.returncode == 0, made.stderr
    return tmp_path / "ca"


class Edge:
    """One member: a plain port, a TLS port, and an issuer "test"."""

    def __init__(self, tmp_path, spawn, name, directory, ca, http=None, tls=None):
        self.spawn, self.name, self.file = spawn, name, tmp_path / f"{name}.json"
        self.state = tmp_path / "state"
        self.http, self.tls = http or free_port(), tls or free_port()
        self.issuer = {"directory": directory, "ca_file": str(ca / "ca.pem"), "agree_terms": True, "contacts": ["mailto:ops@example.org"]}
        self.groups = [[HOST]]
        self.more, self.root = {}, {}

    def write(self):
        certificates = [{"issuer": "test", "names": names} for names in self.groups]
        document = {"workers": 2, "log": {"levels": "info"},
                    "listeners": {"plain": {"address": f"127.0.0.1:{self.http}", "redirect_to_https": True},
                                  "tls": {"address": f"127.0.0.1:{self.tls}", "tls": {"certificates": certificates}}},
                    "acme": {"dir": str(self.state), "issuers": {"test": self.issuer}, **self.more}, **self.root}
        self.file.write_text(json.dumps(document))

    def go(self):
        self.write()
        self.process = self.spawn(program("cb-edge"), "--config", self.file, name=self.name).wait_for("ready with")
        return self

    def reload(self):
        self.write()
        self.process.send(signal.SIGHUP)

    def certificate(self, name=HOST):
        """(issuer, names, serial) of what the TLS port presents for a name."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", self.tls), 10) as raw, context.wrap_socket(raw, server_hostname=name) as tls:
            der = tls.getpeercert(True)
        text = subprocess.run([peer("openssl"), "x509", "-inform", "DER", "-noout", "-text", "-nameopt", "RFC2253"], input=der, capture_output=True, check=True).stdout.decode()
        return re.search(r"Issuer: (.*)", text)[1], re.findall(r"DNS:([^\s,]+)", text), re.search(r"Serial Number:\s*(\S+)", text)[1]

    def issued(self, name=HOST, serial=None, seconds=30):
        """Waits until no placeholder (and nothing of that serial number) is presented for a name."""
        end = time.monotonic() + seconds
        while True:
            issuer, names, got = self.certificate(name)
            if "placeholder" not in issuer and name in names and got != serial:
                return got
            assert time.monotonic() < end, self.process.output()
            time.sleep(0.05)


def until(condition, edge, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, edge.process.output()
        time.sleep(0.02)


@pytest.fixture
def pebble(tmp_path, spawn):
    """start(challenge, **issuer) gives an Edge whose issuer is a pebble that validates there."""
    def start(challenge="http_01", reject=20, settings=None, **issuer):
        ca = make_ca(tmp_path)
        http, tls = free_port(), free_port()
        ports, _ = start_pebble(tmp_path, spawn, ca, reject, ports={"http": http, "tls": tls}, **(settings or {}))
        edge = Edge(tmp_path, spawn, "edge", f"https://127.0.0.1:{ports['acme']}/dir", ca, http, tls)
        if challenge == "dns_01":
            issuer["dns_hook"] = str(dns_hook(tmp_path, ports["dns_admin"]))
        edge.issuer.update(challenge=challenge, **issuer)
        edge.ca = ca
        return edge
    return start


@pytest.mark.parametrize("challenge, names", [("http_01", [HOST, "b.example.org"]), ("tls_alpn_01", [HOST, "b.example.org"]), ("dns_01", [HOST, "*.example.org"])])
def test_a_first_certificate_and_one_more_by_a_reload(pebble, challenge, names):
    edge = pebble(challenge)
    edge.groups = [names]
    edge.go()
    first = edge.issued()
    assert edge.certificate()[1] == names and not list(edge.state.glob("*/*.order")) and not list(edge.state.glob("*/*.alpn01"))
    assert "new certificate for a.example.org" in edge.process.output()
    edge.groups.append(["c.example.org"])
    edge.root["metrics"] = {"listen": f"127.0.0.1:{free_port()}"}
    edge.reload()
    edge.issued("c.example.org")
    assert edge.certificate()[2] == first  # the other one was good
    page = Page(edge.root["metrics"]["listen"].split(":")[1])
    one = {"issuer": "test", "certificate": "c.example.org"}
    until(lambda: page.value("cb_edge_acme_state", state="waiting", **one) == 1, edge)
    assert page.value("cb_edge_acme_due_timestamp_seconds", **one) > time.time() and page.value("cb_edge_acme_consecutive_failures", **one) == 0
    edge.process.send(signal.SIGTERM)
    assert edge.process.popen.wait(20) == 0
    edge.go()  # from the files, at once
    assert edge.certificate()[2] == first


def test_killed_at_any_point_all_certificates_come(pebble):
    dice = random.Random(8555)
    edge = pebble("tls_alpn_01")
    edge.groups = []
    for i in range(6):
        edge.groups.append([f"k{i}.example.org"])
        edge.go()
        time.sleep(dice.uniform(0, 0.8))  # where it is then, chance says
        edge.process.send(signal.SIGKILL)
        edge.process.popen.wait(20)
    edge.go()
    for i in range(6):
        edge.issued(f"k{i}.example.org")
    until(lambda: not [f for end in (".order", ".alpn01", "~") for f in edge.state.glob("*/*" + end)], edge)


def test_what_a_killed_process_left_goes_though_nothing_is_due(pebble):
    """Killed after the certificate was in place, or while a file was written."""
    edge = pebble("tls_alpn_01", reject=0)
    edge.groups = [[HOST]]
    edge.go()
    first = edge.issued()
    edge.process.send(signal.SIGKILL)
    edge.process.popen.wait(30)
    folder = edge.state / "test"
    left = [folder / f"{HOST}{end}" for end in (".order", ".order~", ".pem~", ".alpn01", ".alpn01~")] + [folder / "account.json~"]
    for path in left:
        path.write_text("{}")
    (folder / "notes~").write_text("not ours")
    edge.go()
    until(lambda: not [path for path in left if path.exists()], edge)
    assert edge.certificate()[2] == first and (folder / "notes~").exists()


class Load:
    """Requests on one connection that stays, and on a new one each, until it is left."""

    def __init__(self, port):
        self.port, self.good, self.bad, self.over = port, 0, [], threading.Event()
        self.context = ssl.create_default_context()
        self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE
        self.threads = [threading.Thread(target=self.run, args=(keep,)) for keep in (True, False, False)]

    def connect(self):
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=self.context, timeout=20)

    def run(self, keep):
        kept = self.connect()
        while not self.over.is_set():
            connection = kept if keep else self.connect()
            connection.auto_open = 0 if keep and self.good else 1
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 404  # there is no route: the edge itself answers
                self.good += 1
            except Exception as error:
                self.bad.append(repr(error))
            if not keep:
                connection.close()
        kept.close()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()


def due_certificate(edge, name=HOST):
    """A certificate in the state that is due, as an earlier process left it."""
    folder = edge.state / "test"
    folder.mkdir(mode=0o700, parents=True)
    edge.state.chmod(0o700)
    now = time.time()
    early = [time.strftime("%Y%m%d%H%M%SZ", time.gmtime(now + d * 3600)) for d in (-20, 4)]
    # `openssl x509` cannot set dates before version 3.4; `openssl ca` can.
    (folder / "conf").write_text("[ca]\ndefault_ca=x\n[x]\ndatabase=%s/index\nnew_certs_dir=%s\nserial=%s/serial\ndefault_md=sha256\npolicy=p\n"
                                 "copy_extensions=copyall\nunique_subject=no\n[p]\ncommonName=supplied\n" % (folder, folder, folder))
    (folder / "index").write_text("")
    (folder / "serial").write_text("01")
    assert run(peer("openssl"), "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", folder / "k", "-subj", "/CN=old",
               "-addext", f"subjectAltName=DNS:{name}", "-out", folder / "r").returncode == 0
    made = run(peer("openssl"), "ca", "-batch", "-config", folder / "conf", "-selfsign", "-keyfile", folder / "k", "-in", folder / "r", "-notext",
               "-startdate", early[0], "-enddate", early[1], "-out", folder / "c")
    assert made.returncode == 0, made.stderr
    pem = (folder / "k").read_text() + (folder / "c").read_text()
    for file in folder.iterdir():
        file.unlink()
    (folder / f"{name}.pem").write_text(pem)
    (folder / f"{name}.pem").chmod(0o600)


def test_a_renewal_under_load_fails_no_request_and_no_connection(pebble):
    edge = pebble("http_01", settle_ms=1500)  # so that the load is there before and after
    due_certificate(edge)
    edge.go()
    with Load(edge.tls) as load:
        assert edge.certificate()[0] == "CN=old"
        end = time.monotonic() + 30
        while edge.certificate()[0] == "CN=old":
            assert time.monotonic() < end, edge.process.output()
        at = load.good
        while load.good < at + 50:
            assert time.monotonic() < end
            time.sleep(0.02)
    assert not load.bad and at > 20, load.bad[:3]


@pytest.mark.parametrize("challenge", ["http_01", "tls_alpn_01"])
def test_any_member_of_an_anycast_address_answers(pebble, tmp_path, spawn, challenge):
    follower = pebble(challenge, settle_ms=1500)  # the server's validations arrive here
    leader = Edge(tmp_path, spawn, "leader", follower.issuer["directory"], follower.ca)
    leader.issuer, follower.more = follower.issuer, {"follow": True}
    follower.root["metrics"] = {"listen": f"127.0.0.1:{free_port()}"}
    follower.go()
    leader.go()
    serial = leader.issued()
    assert follower.issued() == serial
    assert "new certificate" not in follower.process.output()
    page = Page(follower.root["metrics"]["listen"].split(":")[1])
    assert page.value("cb_edge_acme_state", issuer="test", certificate=HOST, state="following") == 1


def test_one_process_gets_certificates_and_its_successor_goes_on(pebble):
    edge = pebble("http_01")
    edge.go()
    serial = edge.issued()
    edge.process.send(signal.SIGUSR2)
    until(lambda: re.search(r"process (\d+) has taken over", edge.process.output()), edge)
    pid = int(re.search(r"process (\d+) has taken over", edge.process.output())[1])
    try:
        until(lambda: edge.process.output().count("this process gets the certificates") == 2, edge)
        assert edge.certificate()[2] == serial
        edge.groups.append(["c.example.org"])
        edge.write()
        os.kill(pid, signal.SIGHUP)
        edge.issued("c.example.org")
    finally:
        os.kill(pid, signal.SIGTERM)
        until(lambda: not Path(f"/proc/{pid}/exe").exists(), edge)  # it is nobody's child here


def test_an_account_is_bound_to_one_of_the_servers_operator(pebble, tmp_path):
    key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
    edge = pebble(settings={"externalAccountBindingRequired": True, "externalAccountMACKeys": {"kid-1": key}})
    edge.go()
    edge.process.wait_for("external account binding", seconds=20)
    (tmp_path / "eab").write_text(key + "\n")
    edge.issuer.update(eab_kid="kid-1", eab_key_file=str(tmp_path / "eab"))
    edge.groups = [["e.example.org"]]  # what failed waits its minute
    edge.reload()
    edge.issued("e.example.org")


@pytest.fixture
def simulated(tmp_path, spawn):
    ca = make_ca(tmp_path)
    server = AcmeServer(ca, free_port())
    edge = Edge(tmp_path, spawn, "edge", server.url, ca)
    edge.server = server
    yield edge
    server.stop()


def test_the_server_says_when_to_renew_and_what_profile_it_is(simulated):
    edge = simulated
    edge.issuer["profile"] = "shortlived"
    due_certificate(edge)
    edge.server.window = ("2099-01-01T00:00:00Z", "2099-01-02T00:00:00Z")
    edge.go()
    until(lambda: edge.server.asked, edge)
    edge.process.send(signal.SIGTERM)
    edge.process.popen.wait(20)
    (edge.state / "test" / f"{HOST}.pem").unlink()
    edge.go()
    serial = edge.issued()
    assert edge.server.orders[-1]["profile"] == "shortlived" and "replaces" not in edge.server.orders[-1]
    edge.process.send(signal.SIGTERM)
    edge.process.popen.wait(20)
    edge.server.window = ("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z")  # it wants it replaced at once
    edge.go()
    edge.process.wait_for("new certificate", seconds=20)
    assert edge.server.orders[-1]["replaces"] == edge.server.asked[-1] and len(edge.server.orders) == 2
    assert serial


def test_a_rate_limit_is_kept_through_reloads_and_a_placeholder_serves(simulated):
    edge = simulated
    edge.server.lie = "rate-limit"
    edge.root["metrics"] = {"listen": f"127.0.0.1:{free_port()}"}
    edge.go()
    edge.process.wait_for("rateLimited: too many", seconds=20)
    again = time.strptime(re.search(r"again at (\S+)", edge.process.output())[1], "%Y-%m-%dT%H:%M:%SZ")
    assert 3500 < calendar.timegm(again) - time.time() < 3700
    assert "placeholder" in edge.certificate()[0] and edge.certificate()[1] == [HOST]
    page, one = Page(edge.root["metrics"]["listen"].split(":")[1]), {"issuer": "test", "certificate": HOST}
    until(lambda: page.value("cb_edge_acme_state", state="failing", **one) == 1, edge)
    assert page.value("cb_edge_acme_consecutive_failures", **one) == 1 and page.value("cb_edge_acme_due_timestamp_seconds", **one) == calendar.timegm(again)
    assert page.value("cb_acme_orders_total", outcome="failed") == 1 and page.value("cb_acme_order_seconds_count") == 1
    edge.server.lie = None
    edge.groups.append(["c.example.org"])
    edge.reload()
    edge.issued("c.example.org")  # what was due before it would have come before it
    assert [o["identifiers"][0]["value"] for o in edge.server.orders] == ["c.example.org"] and "placeholder" in edge.certificate()[0]
    assert page.value("cb_acme_orders_total", outcome="issued") == 1 and page.value("cb_acme_order_seconds_count") == 2
    assert page.value("cb_acme_challenges_total", type="http_01") == 1


@pytest.mark.parametrize("change, says", [
    ({"names": ["*.example.org"]}, "dns_01"), ({"names": ["a b"]}, "neither a DNS name"), ({"issuer": "nobody"}, 'no issuer "nobody"'),
    ({"names": []}, "names"), ({"cert_file": "/x", "key_file": "/y"}, "one of both"),
])
def test_mistakes_in_certificates(simulated, change, says):
    edge = simulated
    edge.write()
    document = json.loads(edge.file.read_text())
    document["listeners"]["tls"]["tls"]["certificates"][0].update(change)
    edge.file.write_text(json.dumps(document))
    got = run(program("cb-edge"), "--check", "--config", edge.file)
    assert got.returncode == 1 and says in got.stderr and "/certificates/0" in got.stderr, got


@pytest.mark.parametrize("change, says", [
    ({"directory": "http://x/"}, "no https URL"), ({"challenge": "dns_01"}, "dns_hook"), ({"dns_hook": "/bin/true"}, "dns_01"),
    ({"eab_kid": "x"}, "eab_key_file"), ({"contacts": ["nobody"]}, "mailto:"), ({"ca_file": "/nowhere.pem"}, "/nowhere.pem"),
    ({"eab_kid": "x", "eab_key_file": "/nowhere.key"}, "/nowhere.key"), ({"profile": "a b"}, "profile"),
])
def test_mistakes_in_issuers(simulated, change, says):
    edge = simulated
    edge.issuer.update(change)
    edge.write()
    got = run(program("cb-edge"), "--check", "--config", edge.file)
    assert got.returncode == 1 and says in got.stderr and "issuers/test" in got.stderr, got
    assert not edge.state.exists()  # a check changes nothing


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_directory_is_the_users_that_it_becomes(simulated, tmp_path):
    edge = simulated
    with tempfile.TemporaryDirectory(prefix="cb-edge-acme-") as folder:  # where that user may go
        os.chmod(folder, 0o755)
        shutil.copy(tmp_path / "ca/ca.pem", folder)
        os.chmod(f"{folder}/ca.pem", 0o644)
        edge.state, edge.issuer["ca_file"] = Path(folder) / "state", f"{folder}/ca.pem"
        due_certificate(edge)  # root's, from before
        edge.root, edge.file = {"user": "nobody"}, Path(folder) / "edge.json"
        edge.go()
        serial = edge.issued(serial="1")  # that of the old one
        assert {pwd.getpwuid(f.stat().st_uid).pw_name for f in (edge.state, *edge.state.rglob("*"))} == {"nobody"}
        edge.groups.append(["c.example.org"])
        edge.reload()
        edge.issued("c.example.org")
        assert edge.certificate()[2] == serial
        edge.process.stop()
