"""The private authority by cbctl: OpenSSL and GnuTLS accept what it makes, and refuse what they must."""

import json
import stat

import pytest
from conftest import peer, program, run


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


@pytest.mark.parametrize("words, code, says", [
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
