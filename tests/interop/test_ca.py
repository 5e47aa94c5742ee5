"""The private authority by cbctl: OpenSSL and GnuTLS accept what it makes, and refuse what they must."""

import base64
import json
import socket
import ssl
import stat
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
from conftest import free_port, peer, program, run, wait_tcp


def ca(*words, code=0):
    got = run(program("cbctl"), "ca", *words)
    assert got.returncode == code, got.stdout + got.stderr
    return got


def issue(where, *words):
    return json.loads(ca("issue", "--dir", where, "--json", *words).stdout)


def verify(paths, *options):
    """openssl's verdict on a chain by the private root; the chain's own intermediates are not trusted."""
    return run(peer("openssl"), "verify", "-x509_strict", "-CAfile", paths["trust"], "-untrusted", paths["certificate"],
               *options, paths["certificate"])


@pytest.fixture
def chain(tmp_path):
    ca("init", "--dir", tmp_path / "root", "--organization", "Example")
    ca("intermediate", "--dir", tmp_path / "ca", "--parent", tmp_path / "root", "--permit", "example.org", "--permit", "127.0.0.0/8")
    return tmp_path / "ca"


def test_profiles(chain):
    names = ("a.example.org", "127.0.0.1")
    purposes = {"both": {"sslserver", "sslclient"}, "server": {"sslserver"}, "client": {"sslclient"}, "svid": {"sslserver", "sslclient"},
                "ocsp": {"ocsphelper"}}
    for profile, expected in purposes.items():
        paths = issue(chain, "--profile", profile, "--out", profile, "--uri", "spiffe://example.org/web", *names)
        for purpose in ("sslserver", "sslclient"):
            assert (verify(paths, "-purpose", purpose).returncode == 0) == (purpose in expected), (profile, purpose)
        assert verify(paths).returncode == 0, verify(paths).stderr
        text = run(peer("openssl"), "x509", "-in", paths["certificate"], "-noout", "-text").stdout
        assert "URI:spiffe://example.org/web" in text and ("OCSP No Check" in text) == (profile == "ocsp")
    nameless = issue(chain, "--profile", "svid", "--out", "nameless", "--uri", "spiffe://example.org/only")
    assert verify(nameless).returncode == 0, verify(nameless).stderr
    assert "Subject Alternative Name: critical" in run(peer("openssl"), "x509", "-in", nameless["certificate"], "-noout", "-text").stdout


def test_openssl_and_certtool_agree(chain):
    good = issue(chain, "--profile", "server", "a.example.org")
    assert stat.S_IMODE((chain / "ca-key.pem").stat().st_mode) == 0o600
    assert verify(good, "-verify_hostname", "a.example.org").returncode == 0
    for wrong in (["-verify_hostname", "b.example.org"], ["-purpose", "sslclient"], ["-attime", "4000000000"]):
        assert verify(good, *wrong).returncode != 0, wrong
    certtool = [peer("certtool"), "--verify", "--load-ca-certificate", good["trust"], "--infile", good["certificate"]]
    assert run(*certtool, "--verify-hostname", "a.example.org").returncode == 0
    assert run(*certtool, "--verify-hostname", "b.example.org").returncode != 0


def test_path_length_and_constraints_bind_a_stolen_intermediate(chain, tmp_path):
    """What cbctl refuses, a thief does with the key and openssl: the verifiers refuse it."""
    ca("intermediate", "--dir", tmp_path / "low", "--parent", chain, code=2)
    ca("issue", "--dir", chain, "elsewhere.test", code=1)
    key, request, out = tmp_path / "k.pem", tmp_path / "r.pem", tmp_path / "stolen.pem"
    ext = tmp_path / "ext"
    for extension in ("subjectAltName=DNS:elsewhere.test", "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign"):
        ext.write_text(extension)
        made = run(peer("openssl"), "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", request,
                   "-subj", "/O=x")
        assert made.returncode == 0, made.stderr
        made = run(peer("openssl"), "x509", "-req", "-in", request, "-CA", chain / "ca.pem", "-CAkey", chain / "ca-key.pem", "-extfile", ext,
                   "-out", out, "-days", "1")
        assert made.returncode == 0, made.stderr
        checked, root = [out], chain / "root.pem"
        untrusted = chain / "ca.pem"
        if "CA:TRUE" in extension:  # a leaf below the stolen authority
            ext.write_text("subjectAltName=DNS:a.example.org")
            leaf = tmp_path / "leaf.pem"
            run(peer("openssl"), "req", "-new", "-key", key, "-out", request, "-subj", "/O=y")
            run(peer("openssl"), "x509", "-req", "-in", request, "-CA", out, "-CAkey", key, "-extfile", ext, "-out", leaf, "-days", "1")
            untrusted = tmp_path / "both.pem"
            untrusted.write_text((chain / "ca.pem").read_text() + out.read_text())
            checked = [leaf]
        got = run(peer("openssl"), "verify", "-CAfile", root, "-untrusted", untrusted, *checked)
        assert got.returncode != 0 and ("permitted subtree" in got.stderr or "path length" in got.stderr), got.stderr


def test_signing_requests_of_openssl(chain, tmp_path):
    key, request = tmp_path / "k.pem", tmp_path / "r.pem"
    made = run(peer("openssl"), "req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, "-subj", "/CN=x",
               "-addext", "subjectAltName=DNS:w.example.org,IP:127.0.0.9")
    assert made.returncode == 0, made.stderr
    got = ca("sign", "--dir", chain, "--name", ".example.org", "--name", "127.0.0.9", request)
    out = tmp_path / "out.pem"
    out.write_text(got.stdout)
    assert verify({"trust": chain / "root.pem", "certificate": out}, "-verify_hostname", "w.example.org").returncode == 0
    refused = ca("sign", "--dir", chain, "--name", "w.example.org", request, code=1)
    assert "127.0.0.9" in refused.stderr and "not allowed" in refused.stderr and refused.stdout == ""


def test_revocation(chain):
    bad, good = issue(chain, "bad.example.org"), issue(chain, "good.example.org")
    listed = json.loads(ca("list", "--dir", chain, "--json").stdout)
    assert [one["names"] for one in listed] == ["bad.example.org", "good.example.org"]
    ca("revoke", "--dir", chain, "--reason", "key-compromise", listed[0]["serial"])
    ca("revoke", "--dir", chain, listed[0]["serial"], code=1)
    ca("revoke", "--dir", chain, "--reason", "boredom", listed[0]["serial"], code=2)
    crl = ca("crl", "--dir", chain).stdout.strip()
    text = run(peer("openssl"), "crl", "-in", crl, "-CAfile", chain / "ca.pem", "-noout", "-text")
    assert "verify OK" in text.stderr and "Key Compromise" in text.stdout, text.stderr
    check = ["-crl_check", "-CRLfile", crl]
    assert "certificate revoked" in verify(bad, *check).stderr
    assert verify(good, *check).returncode == 0
    only = json.loads(ca("list", "--dir", chain, "--json", "--revoked").stdout)
    assert [(one["names"], one["reason"]) for one in only] == [("bad.example.org", "key-compromise")]
    assert run(peer("certtool"), "--verify-crl", "--load-ca-certificate", chain / "ca.pem", "--infile", crl).returncode == 0


def serial_of(certificate):
    return run(peer("openssl"), "x509", "-in", certificate, "-noout", "-serial").stdout.strip().split("=")[1]


@pytest.mark.parametrize("delegated", (False, True))
def test_ocsp_responder(chain, spawn, delegated):
    """openssl and ocsptool ask, by POST and by GET; caches are told what they may keep."""
    bad, good = issue(chain, "bad.example.org"), issue(chain, "good.example.org")
    signer = []
    if delegated:
        delegate = issue(chain, "--profile", "ocsp", "--out", "responder")
        signer = ["--cert", delegate["certificate"], "--key", delegate["key"]]
        (chain / "ca-key.pem").rename(chain / "offline.pem")
    port = free_port()
    responder = spawn(program("cbctl"), "ca", "ocsp", "--dir", chain, "--listen", f"127.0.0.1:{port}", *signer).wait_for("listening:")
    url = f"http://127.0.0.1:{port}/"

    def openssl(paths, *options, name_hash="-sha1"):
        return run(peer("openssl"), "ocsp", "-issuer", chain / "ca.pem", name_hash, "-cert", paths["certificate"], "-url", url,
                   "-CAfile", chain / "root.pem", "-verify_other", chain / "ca.pem", *options)

    for options in ([], ["-no_nonce"], ["-nonce"]):
        asked = openssl(good, *options, name_hash="-sha256" if options else "-sha1")
        assert "Response verify OK" in asked.stderr and ": good" in asked.stdout and "WARNING" not in asked.stderr, asked.stdout + asked.stderr
    if delegated:
        (chain / "offline.pem").rename(chain / "ca-key.pem")
    ca("revoke", "--dir", chain, "--reason", "key-compromise", serial_of(bad["certificate"]))
    if delegated:
        (chain / "ca-key.pem").rename(chain / "offline.pem")
    for _ in range(100):
        asked = openssl(bad)
        if ": revoked" in asked.stdout:
            break
        time.sleep(0.05)  # the responder looks each half second
    assert ": revoked" in asked.stdout and "keyCompromise" in asked.stdout and "Response verify OK" in asked.stderr, asked.stdout + asked.stderr
    unknown = run(peer("openssl"), "ocsp", "-issuer", chain / "ca.pem", "-serial", "0x7b", "-url", url, "-CAfile", chain / "root.pem",
                  "-verify_other", chain / "ca.pem")
    assert ": unknown" in unknown.stdout, unknown.stdout + unknown.stderr
    both = openssl(good, "-cert", bad["certificate"])
    assert ": good" in both.stdout and ": revoked" in both.stdout, both.stdout + both.stderr

    tool = [peer("ocsptool"), f"--ask={url}", "--load-issuer", chain / "ca.pem", "--load-trust", chain / "ca.pem", "--nonce"]
    asked = run(*tool, "--load-cert", good["certificate"])
    assert "Certificate Status: good" in asked.stdout and "Verifying OCSP Response: Success" in asked.stdout, asked.stdout + asked.stderr
    asked = run(*tool, "--load-cert", bad["certificate"])
    assert "Certificate Status: revoked" in asked.stdout and "Verifying OCSP Response: Success" in asked.stdout, asked.stdout + asked.stderr

    request = chain / "request.der"
    run(peer("openssl"), "ocsp", "-issuer", chain / "ca.pem", "-cert", good["certificate"], "-no_nonce", "-reqout", request)
    path = urllib.parse.quote(base64.b64encode(request.read_bytes()), safe="")
    with urllib.request.urlopen(url + path) as got:
        assert got.headers["content-type"] == "application/ocsp-response" and "max-age=1" in got.headers["cache-control"]
        assert got.headers["expires"] and got.headers["last-modified"]
        response = chain / "response.der"
        response.write_bytes(got.read())
    checked = run(peer("openssl"), "ocsp", "-respin", response, "-issuer", chain / "ca.pem", "-cert", good["certificate"], "-CAfile", chain / "root.pem",
                  "-verify_other", chain / "ca.pem")
    assert ": good" in checked.stdout and "Response verify OK" in checked.stderr, checked.stderr

    for data, kind, path, code, answer in (
            (b"nonsense", "application/ocsp-request", "", 200, b"\x30\x03\x0a\x01\x01"),
            (b"x" * 200_000, "application/ocsp-request", "", 200, b"\x30\x03\x0a\x01\x01"),
            (request.read_bytes(), "text/plain", "", 415, None),
            (None, None, "", 404, None), (None, None, "%zz", 404, None), (None, None, "A" * 5000, 200, b"\x30\x03\x0a\x01\x01")):
        question = urllib.request.Request(url + path, data=data, headers={"content-type": kind} if kind else {})
        try:
            with urllib.request.urlopen(question) as got:
                assert got.status == code and got.read() == answer and got.headers["cache-control"] == "no-store"
        except urllib.error.HTTPError as refused:
            assert refused.code == code, (path, refused.code)
    assert responder.stop() == 0, responder.output()


def test_staple(chain, spawn):
    """An answer that cbctl writes satisfies a client of a certificate that must be stapled; without it the client refuses."""
    paths = issue(chain, "--must-staple", "a.example.org", "127.0.0.1")
    staple = ca("staple", "--dir", chain, paths["certificate"]).stdout.strip()
    assert staple == paths["certificate"].removesuffix(".pem") + ".ocsp"
    for extra, good in ((["--ocsp-response", staple, "--ignore-ocsp-response-errors"], True), ([], False)):
        port = free_port()
        server = spawn(peer("gnutls-serv"), "--echo", "--port", port, "--x509certfile", paths["certificate"], "--x509keyfile", paths["key"], *extra)
        server.wait_for("listening on IPv4")
        got = run(peer("gnutls-cli"), "--port", port, "--x509cafile", chain / "root.pem", "--verify-hostname", "a.example.org", "127.0.0.1")
        assert (got.returncode == 0) == good, got.stdout + got.stderr
    ca("staple", "--dir", chain, chain / "root.pem", code=2)
    ca("staple", "--dir", chain, chain / "ca.pem", code=1)
    ca("staple", "--dir", chain, "/nonexistent", code=1)


def test_gnutls_cli_accepts_and_refuses(chain, spawn, tmp_path):
    """A handshake tells what a verifier thinks of names, uses, dates, chains and revocation."""
    ca("init", "--dir", tmp_path / "stranger")
    good = issue(chain, "--profile", "server", "a.example.org")
    client_only = issue(chain, "--profile", "client", "--out", "client", "b.example.org")
    revoked = issue(chain, "--profile", "server", "--out", "revoked", "a.example.org")
    foreign = issue(tmp_path / "stranger", "--profile", "server", "a.example.org")
    lone = tmp_path / "lone.pem"  # the leaf without its intermediate
    lone.write_text((chain / "a.example.org.pem").read_text().split("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n")
    ca("revoke", "--dir", chain, serial_of(revoked["certificate"]))
    ca("crl", "--dir", chain)
    both = tmp_path / "both.pem"  # GnuTLS takes a CRL only from whom it trusts
    both.write_text((chain / "root.pem").read_text() + (chain / "ca.pem").read_text())
    listed, plain = ["--x509cafile", both, "--x509crlfile", chain / "ca.crl"], ["--x509cafile", chain / "root.pem"]
    rows = (
        ("good", good, "a.example.org", plain, 0),
        ("good, by the list", good, "a.example.org", listed, 0),
        ("another name", good, "b.example.org", plain, 1),
        ("for clients only", client_only, "b.example.org", plain, 1),
        ("revoked", revoked, "a.example.org", listed, 1),
        ("of another authority", foreign, "a.example.org", plain, 1),
        ("no intermediate", {"certificate": lone, "key": good["key"]}, "a.example.org", plain, 1),
    )
    for what, paths, name, trust, code in rows:
        port = free_port()
        server = spawn(peer("gnutls-serv"), "--echo", "--port", port, "--x509certfile", paths["certificate"], "--x509keyfile", paths["key"])
        server.wait_for("listening on IPv4")
        got = run(peer("gnutls-cli"), "--port", port, *trust, "--verify-hostname", name, "127.0.0.1")
        assert got.returncode == code, (what, got.stdout, got.stderr)


def test_renew(chain):
    paths = issue(chain, "--days", "30", "--key-type", "rsa-2048", "--must-staple", "--profile", "server", "a.example.org", "127.0.0.1")
    text = lambda: run(peer("openssl"), "x509", "-in", paths["certificate"], "-noout", "-ext", "subjectAltName,tlsfeature,extendedKeyUsage").stdout
    serial, extensions = serial_of(paths["certificate"]), text()
    assert ca("renew", "--dir", chain, "--if-due", paths["certificate"]).stdout.startswith("kept:")
    assert serial_of(paths["certificate"]) == serial
    renewed = json.loads(ca("renew", "--dir", chain, "--json", paths["certificate"]).stdout)
    assert renewed["outcome"] == "renewed" and renewed["expires"] > renewed["renew_at"]
    assert serial_of(paths["certificate"]) != serial and text() == extensions
    assert verify(paths, "-verify_hostname", "a.example.org").returncode == 0
    staple = chain / "a.ocsp"
    ca("renew", "--dir", chain, "--staple", staple, paths["certificate"])
    checked = run(peer("openssl"), "ocsp", "-respin", staple, "-issuer", chain / "ca.pem", "-cert", paths["certificate"], "-CAfile", chain / "root.pem",
                  "-verify_other", chain / "ca.pem")
    assert ": good" in checked.stdout and "Response verify OK" in checked.stderr, checked.stderr
    ca("revoke", "--dir", chain, serial_of(paths["certificate"]))
    assert "revoked" in ca("renew", "--dir", chain, paths["certificate"], code=1).stderr
    other = issue(chain, "b.example.org")
    assert "no process" in ca("renew", "--dir", chain, "--pid-file", other["certificate"], other["certificate"], code=1).stderr


def test_an_edge_whose_certificate_is_renewed_again_and_again(chain, spawn, tmp_path):
    """Each renewal is taken up by SIGHUP; of the connections that are made all the while none fails."""
    paths = issue(chain, "localhost.example.org", "127.0.0.1")
    both = tmp_path / "edge.pem"
    both.write_text(open(paths["certificate"]).read() + open(paths["key"]).read())
    both.chmod(0o600)
    port, origin = free_port(), free_port()
    spawn("python3", "-m", "http.server", "--bind", "127.0.0.1", origin, "--directory", tmp_path, name="origin")
    wait_tcp(origin)
    config, pid_file = tmp_path / "edge.json", tmp_path / "edge.pid"
    config.write_text(json.dumps({
        "pid_file": str(pid_file),
        "listeners": {"https": {"address": f"127.0.0.1:{port}", "tls": {"certificates": [{"cert_file": str(both), "key_file": str(both)}]}}},
        "groups": {"app": {"origins": [{"url": f"http://127.0.0.1:{origin}"}]}},
        "routes": [{"group": "app"}]}))
    edge = spawn(program("cb-edge"), "-c", config).wait_for("ready with")
    context = ssl.create_default_context(cafile=chain / "root.pem")
    context.check_hostname = False
    (tmp_path / "page").write_text("it works")
    serials, failures, done = set(), [], threading.Event()

    def client():
        while not done.is_set():
            try:
                with socket.create_connection(("127.0.0.1", port), 10) as raw, context.wrap_socket(raw) as tls:
                    serials.add(tls.getpeercert()["serialNumber"])
                    tls.sendall(b"GET /page HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    answer = b"".join(iter(lambda: tls.recv(65536), b""))
                    if not answer.startswith(b"HTTP/1.1 200") or not answer.endswith(b"it works"):
                        failures.append(answer[:200])
            except OSError as why:
                failures.append(repr(why))

    clients = [threading.Thread(target=client) for _ in range(4)]
    for one in clients:
        one.start()
    try:
        for renewal in range(20):
            ca("renew", "--dir", chain, "--key", both, "--pid-file", pid_file, both)
            end, serial = time.monotonic() + 30, serial_of(both)
            while serial not in serials and not failures:
                assert time.monotonic() < end, f"renewal {renewal} was not taken up:\n{edge.output()}"
                time.sleep(0.01)
    finally:
        done.set()
        for one in clients:
            one.join()
    assert not failures, failures[:3]
    assert len(serials) >= 21 and edge.alive()


@pytest.mark.parametrize("words, code, says", [
    (["renew"], 2, "FILE"),
    (["renew", "/nonexistent.pem"], 1, "ca"),
    (["ocsp"], 2, "--listen"),
    (["ocsp", "--listen", ":1", "--cert", "x"], 2, "go together"),
    (["ocsp", "--listen", ":1", "--hours", "169"], 2, "168"),
    (["ocsp", "--listen", ":1", "--dir", "/nonexistent"], 1, "/nonexistent/ca.pem"),
    (["staple"], 2, "FILE"),
    (["init", "--days", "0"], 2, "--days"),
    (["init", "--profile", "svid"], 2, "unknown option"),
    (["init", "extra"], 2, "extra"),
    (["intermediate"], 2, "--parent"),
    (["issue", "--hours", "1", "--days", "1", "x"], 2, "not both"),
    (["issue", "--profile", "none", "x"], 2, "--profile"),
    (["issue", "--dir", "/nonexistent", "x"], 1, "/nonexistent"),
    (["sign", "--name", "x"], 2, "FILE"),
    (["sign", "x"], 2, "--name or --uri"),
    (["sign", "--name", "x", "/nonexistent"], 1, "/nonexistent"),
    (["revoke"], 2, "SERIAL"),
    (["crl", "--days", "400"], 2, "366"),
])
def test_what_is_not_understood(words, code, says, tmp_path):
    got = run(program("cbctl"), "ca", *words)
    assert got.returncode == code and says in got.stderr, got.stderr
