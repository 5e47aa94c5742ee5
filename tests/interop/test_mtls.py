"""Mutual TLS through cb-edge with independent clients: curl (HTTP/1.1 and /2, OpenSSL), gtlsclient (HTTP/3, GnuTLS), openssl s_client and
gnutls-cli; and an origin that wants to know who cb-edge is. Certificates come from cbctl; those that cbctl does not make, from certtool."""

import base64
import http.server
import json
import re
import signal
import ssl
import subprocess
import threading
import time

import pytest
from conftest import free_port, peer, program, run
from test_edge import edge, origin  # noqa: F401  (fixtures)

ME = "spiffe://td.test/me"
SECRET = "localhost"  # what gtlsclient asks for, whatever --sni says, when it is given an address


def ca(*words):
    got = run(program("cbctl"), "ca", *words)
    assert got.returncode == 0, got.stdout + got.stderr
    return got.stdout


def issue(where, *words):
    made = json.loads(ca("issue", "--dir", where, "--json", *words))
    return {"cert": made["certificate"], "key": made["key"]}


def serial(paths):
    return run(peer("openssl"), "x509", "-in", paths["cert"], "-noout", "-serial").stdout.strip().split("=")[1]


def pin(file):
    shell = f"openssl x509 -in '{file}' -noout -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64"
    return subprocess.run(["sh", "-c", shell], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """In the place of conftest's: a certificate that has the hosts of these tests by name."""
    folder = tmp_path_factory.mktemp("server")
    ca("init", "--dir", folder, "--cn", "Servers")
    made = issue(folder, "--profile", "server", "secret.test", "free.test", "other.test", "localhost", "127.0.0.1")
    return {"dir": folder, "ca": folder / "ca.pem", **made}


class Clients:
    """A CA with clients of all kinds."""

    def __init__(self, folder):
        self.folder, self.dir = folder, folder / "clients"
        ca("init", "--dir", self.dir, "--cn", "Clients")
        self.ca, self.crl = self.dir / "ca.pem", self.dir / "ca.crl"
        self.good = issue(self.dir, "--profile", "svid", "--uri", ME, "--out", "good")
        self.revoked = issue(self.dir, "--profile", "client", "--out", "revoked")
        self.wrong_use = issue(self.dir, "--profile", "server", "--out", "wronguse", "x.test")
        ca("init", "--dir", folder / "strangers", "--cn", "Strangers")
        self.stranger = issue(folder / "strangers", "--profile", "svid", "--uri", ME, "--out", "stranger")
        self.expired = self.by_certtool("expired", 'activation_date = "2024-01-01 00:00:00"', 'expiration_date = "2024-02-01 00:00:00"')
        self.nobody = None
        self.revoke(self.revoked)

    def by_certtool(self, stem, *lines):
        key, cert, template = (self.folder / f"{stem}{end}" for end in ("-key.pem", ".pem", ".tmpl"))
        template.write_text("\n".join(['cn = "x"', "tls_www_client", "signing_key", "serial = 77", *lines]) + "\n")
        assert run(peer("certtool"), "--generate-privkey", "--ecc", "--outfile", key).returncode == 0
        made = run(peer("certtool"), "--generate-certificate", "--load-privkey", key, "--load-ca-certificate", self.dir / "ca.pem",
                   "--load-ca-privkey", self.dir / "ca-key.pem", "--template", template, "--outfile", cert)
        assert made.returncode == 0, made.stderr
        return {"cert": cert, "key": key}

    def revoke(self, paths):
        ca("revoke", "--dir", self.dir, serial(paths))
        ca("crl", "--dir", self.dir)


@pytest.fixture(scope="module")
def clients(tmp_path_factory):
    return Clients(tmp_path_factory.mktemp("clients"))


def listeners(edge, rules, **more):  # noqa: F811
    certificate = {"cert_file": str(edge.pki["cert"]), "key_file": str(edge.pki["key"])}
    return {"tls": {"address": f"127.0.0.1:{edge.tls_port}", "tls": {"certificates": [certificate], "clients": rules, **more}}}


def secret(clients, **more):
    """The rule for the host of that name."""
    return {"host": SECRET, "ca_file": str(clients.ca), "crl_file": str(clients.crl), **more}


def fetch(edge, version, who, host=SECRET, authority=None, path="/head"):  # noqa: F811
    """Status (0: no answer) and body of a request over that version; over h3 always from a connection for SECRET."""
    port = edge.tls_port
    shown = ["--cert", who["cert"], "--key", who["key"]] if who else []
    if version == "h3":
        target = edge.folder / "got"
        target.mkdir(exist_ok=True)
        (target / path.strip("/")).unlink(missing_ok=True)
        shown = [f"--cert={who['cert']}", f"--key={who['key']}"] if who else []
        got = run(peer("gtlsclient"), "--no-quic-dump", "--exit-on-all-streams-close", "--timeout=5s", *shown, f"--download={target}", "127.0.0.1", port, f"https://{authority or host}:{port}{path}")
        found = re.findall(r":status: (\d+)", got.stdout + got.stderr)
        body = target / path.strip("/")
        return int(found[-1]) if found else 0, body.read_text() if body.exists() else ""
    other = ["-H", f"Host: {authority}:{port}"] if authority else []
    got = run(peer("curl"), "-sS", "--max-time", "20", "-w", "%{http_code}", f"--http{'2' if version == 'h2' else '1.1'}", "--cacert", edge.pki["ca"],
              "--resolve", f"{host}:{port}:127.0.0.1", *shown, *other, f"https://{host}:{port}{path}")
    return int(got.stdout[-3:]), got.stdout[:-3]


@pytest.mark.parametrize("version", ("h1", "h2", "h3"))
def test_who_gets_in(edge, origin, clients, version):  # noqa: F811
    """Each kind of client at a host with a rule; what the origin is told; and that other hosts ask nobody."""
    groups = {"web": {"origins": [{"url": f"http://127.0.0.1:{origin()}"}], "client_cert": "chain"}}
    edge.start(groups, listeners=listeners(edge, [secret(clients, names=["spiffe://td.test/", "x"])]))
    status, body = fetch(edge, version, clients.good)
    assert status == 200
    told = re.search(r"client-cert: :(\S+):", body, re.I)
    pem = open(clients.good["cert"]).read().split("-----")[2]
    assert told and base64.b64decode(told[1]) == base64.b64decode(pem)
    for kind in ("nobody", "stranger", "expired", "wrong_use", "revoked"):
        assert fetch(edge, version, getattr(clients, kind)) == (0, ""), kind
    if version == "h3":
        return
    assert fetch(edge, version, None, host="free.test")[0] == 200
    status, body = fetch(edge, version, clients.good, host="free.test")
    assert status == 200 and "client-cert" not in body.lower(), "nobody was asked there"


@pytest.mark.parametrize("version", ("h1", "h2", "h3"))
def test_misdirected(edge, origin, clients, version):  # noqa: F811
    """A connection for one host is no way to another one that has other rules."""
    web = {"web": [f"http://127.0.0.1:{origin()}"]}
    edge.start(web, listeners=listeners(edge, [secret(clients)]))
    assert fetch(edge, version, clients.good, authority="free.test")[0] == 421
    edge.config(web, listeners=listeners(edge, [secret(clients, host="secret.test")]))
    edge.reload()
    assert fetch(edge, version, clients.good, authority="secret.test")[0] == 421
    assert fetch(edge, version, clients.good, authority="other.test")[0] == 200
    if version != "h3":
        assert fetch(edge, version, clients.good, host="secret.test")[0] == 200
        assert fetch(edge, version, clients.good, host="secret.test", authority="Other.Test")[0] == 421


def s_client(edge, host, *options):  # noqa: F811
    got = run(peer("openssl"), "s_client", "-connect", f"127.0.0.1:{edge.tls_port}", "-servername", host, "-CAfile", edge.pki["ca"],
              "-verify_return_error", "-alpn", "http/1.1", "-ign_eof", *options, input=f"GET /name HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n",
              stdin=None)
    return got.stdout + got.stderr


def test_sessions_stay_with_their_host(edge, origin, clients, tmp_path):  # noqa: F811
    """A ticket of one host resumes there, and nowhere else; nor after a new revocation list."""
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]}, listeners=listeners(edge, [secret(clients)], tls12=True))
    me = ["-cert", clients.good["cert"], "-key", clients.good["key"]]
    for version in ("-tls1_3", "-tls1_2"):
        free, mine = tmp_path / "free", tmp_path / "mine"
        assert "New, TLSv1" in s_client(edge, "free.test", version, "-sess_out", free)
        assert "Reused, TLSv1" in s_client(edge, "free.test", version, "-sess_in", free, "-sess_out", free)
        got = s_client(edge, SECRET, version, "-sess_in", free)
        assert "Reused" not in got and "200 OK" not in got, got
        got = s_client(edge, SECRET, version, *me, "-sess_out", mine)
        assert "New, TLSv1" in got and "200 OK" in got, got
        got = s_client(edge, SECRET, version, *me, "-sess_in", mine, "-sess_out", mine)
        assert "Reused, TLSv1" in got and "200 OK" in got, got
        got = s_client(edge, "free.test", version, "-sess_in", mine)
        assert "Reused" not in got and "200 OK" in got, got
        ca("crl", "--dir", clients.dir)
        edge.reload()
        got = s_client(edge, SECRET, version, *me, "-sess_in", mine)
        assert "New, TLSv1" in got and "200 OK" in got, got


def test_gnutls_cli(edge, origin, clients):  # noqa: F811
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]}, listeners=listeners(edge, [secret(clients)]))

    def ask(who):
        shown = ["--x509certfile", who["cert"], "--x509keyfile", who["key"]] if who else []
        got = run(peer("gnutls-cli"), "--port", edge.tls_port, "--x509cafile", edge.pki["ca"], "--sni-hostname", SECRET, "--verify-hostname",
                  SECRET, "--alpn", "http/1.1", *shown, "127.0.0.1", stdin=None,
                  input="GET /name HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return got.stdout + got.stderr

    assert "200 OK" in ask(clients.good)
    for kind in ("nobody", "stranger", "expired", "wrong_use", "revoked"):
        assert "200 OK" not in ask(getattr(clients, kind)), kind


def test_a_revocation_list_is_followed(edge, origin, tmp_path):  # noqa: F811
    """Without a reload: who is revoked does not get in a few seconds later; a list that is damaged leaves the old one."""
    clients = Clients(tmp_path)
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]}, listeners=listeners(edge, [secret(clients)]), log={"levels": "debug"})
    assert fetch(edge, "h1", clients.good)[0] == 200
    clients.revoke(clients.good)
    edge.process.wait_for("were read again", 30)
    assert fetch(edge, "h1", clients.good)[0] == 0
    edge.process.wait_for("was revoked on", 10)
    clients.crl.write_text("nonsense")
    edge.process.wait_for("what was read before serves on", 30)
    assert fetch(edge, "h1", clients.good)[0] == 0
    edge.reload(good=False)


def test_pins(edge, origin, clients):  # noqa: F811
    other = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    web = {"web": [f"http://127.0.0.1:{origin()}"]}
    edge.start(web, listeners=listeners(edge, [secret(clients, pins=[pin(clients.good["cert"]), other])]))
    assert fetch(edge, "h2", clients.good)[0] == 200
    wrong = [other, other.replace("A", "B", 1)]
    edge.config(web, listeners=listeners(edge, [secret(clients, pins=wrong)]))
    edge.reload()
    assert fetch(edge, "h2", clients.good)[0] == 0
    edge.config(web, listeners=listeners(edge, [secret(clients, pins=wrong, pins_report=True)]))
    edge.reload()
    assert fetch(edge, "h2", clients.good)[0] == 200
    edge.process.wait_for("no pin fits the certificate")


class Origin(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(self.connection.getpeercert()).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def strict_origin():
    """An https origin of Python's (OpenSSL) that lets only clients of a CA in."""
    servers = []

    def start(identity, client_ca):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(identity["cert"], identity["key"])
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
        server.handle_error = lambda *args: None
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server.server_address[1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_an_origin_that_wants_to_know(edge, clients, strict_origin, tmp_path):  # noqa: F811
    """cb-edge shows its certificate, and knows the origin by its SPIFFE ID, its pin, and the list that does not have it."""
    ca("init", "--dir", tmp_path / "mesh")
    server = issue(tmp_path / "mesh", "--profile", "svid", "--uri", "spiffe://mesh.test/api", "--out", "api")
    ca("crl", "--dir", tmp_path / "mesh")
    port = strict_origin(server, clients.ca)
    base = {"origins": [{"url": f"https://127.0.0.1:{port}"}], "ca_file": str(tmp_path / "mesh/ca.pem"), "versions": ["h1"],
            "crl_file": str(tmp_path / "mesh/ca.crl"), "cert_file": str(clients.good["cert"]), "key_file": str(clients.good["key"])}
    pins = [pin(server["cert"]), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]
    groups = {
        "good": {**base, "names": ["spiffe://mesh.test/api"], "pins": pins},
        "othername": {**base, "names": ["spiffe://mesh.test/web"]},
        "byname": base,
        "otherpin": {**base, "names": ["spiffe://mesh.test/"], "pins": [pins[1], "B" + pins[1][1:]]},
        "silent": {**{k: v for k, v in base.items() if k not in ("cert_file", "key_file")}, "names": ["spiffe://mesh.test/"]},
    }
    edge.start(groups)
    code, head, body = edge.curl("/good")
    assert "200 OK" in head and ME in body.decode(), head
    for name, words in (("othername", "has none of the names"), ("byname", "is not for \"127.0.0.1\""), ("otherpin", "no pin fits"), ("silent", "")):
        assert edge.status(f"/{name}") == 502, name
        edge.process.wait_for(words)
    ca("revoke", "--dir", tmp_path / "mesh", serial(server))
    ca("crl", "--dir", tmp_path / "mesh")
    edge.reload()
    assert edge.status("/good") == 502
    edge.process.wait_for("was revoked on")


def test_stapling(edge, origin, tmp_path):  # noqa: F811
    """openssl sees the answer, gnutls-cli insists on it for a must-staple certificate; an answer is followed."""
    folder = tmp_path / "ca"
    ca("init", "--dir", folder)
    server = issue(folder, "--must-staple", "--profile", "server", "staple.test")
    answer = tmp_path / "answer.der"

    def config(**more):
        certificate = {"cert_file": str(server["cert"]), "key_file": str(server["key"]), **more}
        edge.config({"web": [f"http://127.0.0.1:{port}"]},
                    listeners={"tls": {"address": f"127.0.0.1:{edge.tls_port}", "tls": {"certificates": [certificate]}}})

    def ask():
        got = run(peer("gnutls-cli"), "--port", edge.tls_port, "--x509cafile", folder / "ca.pem", "--verify-hostname", "staple.test",
                  "--sni-hostname", "staple.test", "--alpn", "http/1.1", "127.0.0.1", stdin=None,
                  input="GET /name HTTP/1.1\r\nHost: staple.test\r\nConnection: close\r\n\r\n")
        return "200 OK" in got.stdout

    port = origin()
    config()
    checked = run(program("cb-edge"), "--check", "-c", edge.file)
    assert checked.returncode == 0 and "must staple, and there is no good OCSP answer" in checked.stderr, checked.stderr
    edge.go()
    assert not ask(), "a missing staple was accepted"
    ca("staple", "--dir", folder, "--out", answer, server["cert"])
    config(ocsp_file=str(answer))
    edge.reload(good=False)
    assert "issuer's certificate is neither" in edge.process.output()
    config(ocsp_file=str(answer), issuer_file=str(folder / "ca.pem"))
    edge.reload()
    assert ask()
    seen = run(peer("openssl"), "s_client", "-connect", f"127.0.0.1:{edge.tls_port}", "-servername", "staple.test", "-CAfile", folder / "ca.pem",
               "-status")
    assert "OCSP Response Status: successful" in seen.stdout and "Cert Status: good" in seen.stdout, seen.stdout
    ca("revoke", "--dir", folder, serial(server))
    ca("staple", "--dir", folder, "--out", answer, server["cert"])
    edge.process.wait_for("were read again", 30)
    assert not ask(), "a revoked one was called good"


def test_check_tells_what_expires(edge, clients, tmp_path):  # noqa: F811
    """Warnings, not failures: the file may be replaced in time."""
    old = clients.by_certtool("old-server", 'dns_name = "old.test"', "tls_www_server", 'activation_date = "2024-01-01 00:00:00"',
                              'expiration_date = "2024-02-01 00:00:00"')
    edge.config({"web": ["http://127.0.0.1:9"]}, listeners={
        "tls": {"address": f"127.0.0.1:{edge.tls_port}", "tls": {"certificates": [{"cert_file": str(old["cert"]), "key_file": str(old["key"])}]}}})
    got = run(program("cb-edge"), "--check", "-c", edge.file)
    assert got.returncode == 0 and "/listeners/tls: warning: " in got.stderr and "expired on 2024-02-01" in got.stderr, got.stderr


@pytest.mark.parametrize("rules, words", (
    ([{"host": "a.test"}], "/listeners/tls/tls/clients/0: needs ca_file"),
    ([{"host": "a.test", "certificates": "none"}, {"host": "A.test", "certificates": "none"}], "/listeners/tls/tls/clients/1: has a host that was there"),
    ([{"host": "a.test", "ca_file": "CA", "pins": ["AAAA"]}], "/listeners/tls/tls/clients/0: cb_trust_opts: one pin only"),
    ([{"host": "a.test", "ca_file": "CA", "crl_file": "/nonexistent"}], "/listeners/tls/tls/clients/0: /nonexistent"),
    ([{"host": "a.test", "ca_file": "CA", "names": ["spiffe://TD/x"]}], "spiffe://TD/x"),
))
def test_mistakes_are_told(edge, clients, rules, words):  # noqa: F811
    rules = json.loads(json.dumps(rules).replace('"CA"', json.dumps(str(clients.ca))))
    edge.config({"web": ["http://127.0.0.1:9"]}, listeners=listeners(edge, rules))
    got = run(program("cb-edge"), "--check", "-c", edge.file)
    assert got.returncode != 0 and words in got.stderr, got.stderr


def test_the_example(spawn, clients, pki):
    """examples/mtls_server.c: greets, refuses, and reads another list on SIGHUP."""
    port = free_port()
    server = spawn(program("mtls_server"), f"127.0.0.1:{port}", pki["cert"], pki["key"], clients.ca, clients.crl).wait_for("serving on")

    def ask(who):
        shown = ["--cert", who["cert"], "--key", who["key"]] if who else []
        return run(peer("curl"), "-s", "--max-time", "20", "--cacert", pki["ca"], *shown, f"https://localhost:{port}/").stdout

    again = issue(clients.dir, "--profile", "client", "--out", "again")
    assert ask(clients.good) == f"hello {ME}\n"
    assert ask(again) == "hello CN=again,O=libcb\n"
    assert ask(None) == ask(clients.revoked) == ask(clients.stranger) == ""
    clients.revoke(again)
    server.send(signal.SIGHUP)
    end = time.monotonic() + 30
    while ask(again):
        assert time.monotonic() < end, "still let in"
