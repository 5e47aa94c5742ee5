"""Keys on PKCS#11 tokens (SoftHSM): servers, clients and authorities whose keys never leave them."""

import json
import os
import socket
import ssl
import stat

import pytest
from conftest import free_port, peer, program, run, wait_tcp

MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so")
PIN = "2468"
KINDS = {"ec": ("EC:prime256v1", None), "rsa": ("rsa:2048", None), "p384": ("EC:secp384r1", None)}


class Token:
    """A SoftHSM token in a folder of its own, with a key of each kind."""

    def __init__(self, folder, pin_file):
        self.pin_file = pin_file
        config = folder / "softhsm.conf"
        (folder / "tokens").mkdir()
        config.write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n")
        self.env = {**os.environ, "SOFTHSM2_CONF": str(config)}
        self.env.pop("GNUTLS_PIN", None)
        made = run(peer("softhsm2-util"), "--init-token", "--free", "--label", "edge", "--pin", PIN, "--so-pin", "1357", env=self.env)
        assert made.returncode == 0, made.stderr
        self.module = next((path for path in MODULES if os.path.exists(path)), None)
        for number, (label, (kind, _)) in enumerate(KINDS.items()):
            made = run(peer("pkcs11-tool"), "--module", self.module, "--token-label", "edge", "--login", "--pin", PIN, "--keypairgen",
                       "--key-type", kind, "--label", label, "--id", f"0{number + 1}", env=self.env)
            assert made.returncode == 0, made.stdout + made.stderr

    def url(self, label, query=True):
        return f"pkcs11:token=edge;object={label};type=private" + (f"?pin-source=file:{self.pin_file}" if query else "")


@pytest.fixture(scope="module")
def token(tmp_path_factory):
    folder = tmp_path_factory.mktemp("token")
    pin_file = folder / "pin"
    pin_file.write_text(PIN + "\n")
    pin_file.chmod(0o600)
    return Token(folder, pin_file)


def ca(token, *words, code=0, **env):
    got = run(program("cbctl"), "ca", *words, env={**token.env, **env})
    assert got.returncode == code, got.stdout + got.stderr
    return got


def certificate(token, where, label, *names):
    """A certificate for a key on the token, by a signing request that openssl's or GnuTLS's tools make."""
    request, out = where / f"{label}.csr", where / f"{label}.pem"
    template = where / "template"
    template.write_text("cn = token\n" + "".join(f"{'ip_address' if name[0].isdigit() else 'dns_name'} = {name}\n" for name in names))
    made = run(peer("certtool"), "--generate-request", "--load-privkey", token.url(label, False), "--load-pubkey", token.url(label, False).replace("private", "public"),
               "--template", template, "--outfile", request, env={**token.env, "GNUTLS_PIN": PIN})
    assert made.returncode == 0, made.stdout + made.stderr
    out.write_text(ca(token, "sign", "--dir", where / "ca", *(word for name in names for word in ("--name", name)), request).stdout)
    return out


@pytest.fixture
def authority(token, tmp_path):
    ca(token, "init", "--dir", tmp_path / "ca", "--key-type", "ecdsa-p256")
    return tmp_path


@pytest.mark.parametrize("kind", ("p384", "rsa"))
def test_an_authority_whose_key_is_on_a_token(token, tmp_path, kind):
    where = tmp_path / "ca"
    made = json.loads(ca(token, "init", "--dir", where, "--key-url", token.url(kind), "--json").stdout)
    assert made["key"].endswith("ca-key.url") and not (where / "ca-key.pem").exists()
    assert stat.S_IMODE((where / "ca-key.url").stat().st_mode) == 0o600 and PIN not in (where / "ca-key.url").read_text()
    ca(token, "intermediate", "--dir", tmp_path / "low", "--parent", where)
    for folder in (where, tmp_path / "low"):
        paths = json.loads(ca(token, "issue", "--dir", folder, "--json", "a.example.org").stdout)
        checked = run(peer("openssl"), "verify", "-x509_strict", "-CAfile", where / "ca.pem", "-untrusted", paths["certificate"], paths["certificate"])
        assert checked.returncode == 0, checked.stderr
    serial = json.loads(ca(token, "list", "--dir", where, "--json").stdout)[-1]["serial"]
    ca(token, "revoke", "--dir", where, serial)
    ca(token, "crl", "--dir", where)
    text = run(peer("openssl"), "crl", "-in", where / "ca.crl", "-CAfile", where / "ca.pem", "-noout")
    assert "verify OK" in text.stderr, text.stderr
    ca(token, "staple", "--dir", where, where / "a.example.org.pem")
    checked = run(peer("openssl"), "ocsp", "-respin", where / "a.example.org.ocsp", "-issuer", where / "ca.pem", "-cert", where / "a.example.org.pem",
                  "-CAfile", where / "ca.pem")
    assert ": revoked" in checked.stdout and "Response verify OK" in checked.stderr, checked.stderr
    assert ca(token, "renew", "--dir", tmp_path / "low", tmp_path / "low/a.example.org.pem").stdout.startswith("renewed:")


def test_what_is_wrong_with_a_token_is_said(token, tmp_path):
    loose, wrong, empty = (tmp_path / name for name in ("loose", "wrong", "empty"))
    for file, text, mode in ((loose, PIN, 0o644), (wrong, "9999", 0o600), (empty, "\n", 0o600)):
        file.write_text(text)
        file.chmod(mode)
    base = token.url("ec", False)
    rows = (
        (base, {}, "wants a PIN"),
        (base, {"GNUTLS_PIN": "1111"}, "refuses the PIN: it is wrong"),
        (f"{base}?pin-source=file:{wrong}", {}, "refuses the PIN: it is wrong"),
        (f"{base}?pin-source=file:{loose}", {}, "others may read this PIN"),
        (f"{base}?pin-source=file:{empty}", {}, "no PIN in its first line"),
        (f"{base}?pin-source=file:{tmp_path}/nothing", {}, "No such file"),
        (f"{base}?pin-value={PIN}", {}, "does not belong into a URL"),
        (f"{base}?pin-source=%zz", {}, "not well escaped"),
        (f"{base}?module-path={tmp_path}/nothing.so", {}, "PKCS#11 module"),
        (base.replace("object=ec", "object=absent"), {"GNUTLS_PIN": PIN}, "no token has this private key"),
        (base.replace("token=edge", "token=absent"), {"GNUTLS_PIN": PIN}, "no token has this private key"),
        ("pkcs11:no%such;url", {}, "pkcs11:no"),
        ("file:/x", {}, "pkcs11:"),
    )
    for url, env, says in rows:
        got = run(program("cbctl"), "ca", "init", "--dir", tmp_path / "ca", "--key-url", url, env={**token.env, **env})
        assert got.returncode in (1, 2) and says in got.stderr and PIN not in got.stderr.replace(url, ""), (url, got.returncode, got.stderr)
        assert not (tmp_path / "ca" / "ca.pem").exists()
    none = {**token.env, "SOFTHSM2_CONF": str(tmp_path / "none.conf")}
    (tmp_path / "none.conf").write_text(f"directories.tokendir = {tmp_path}/no-tokens\n")
    got = run(program("cbctl"), "ca", "init", "--dir", tmp_path / "ca", "--key-url", base, env=none)
    assert got.returncode == 2 and ("no PKCS#11 token" in got.stderr or "no token has" in got.stderr), got.stderr
    ca(token, "init", "--dir", tmp_path / "ca", "--key-url", base + f"?module-path={token.module}", GNUTLS_PIN=PIN)
    (tmp_path / "ca" / "ca-key.url").write_text(token.url("rsa"))
    assert "is not the key of" in ca(token, "issue", "--dir", tmp_path / "ca", "x", code=2).stderr
    (tmp_path / "ca" / "ca-key.url").write_text("nonsense\n")
    assert "ca-key.url has no PKCS#11 URL" in ca(token, "issue", "--dir", tmp_path / "ca", "x", code=2).stderr


@pytest.mark.parametrize("kind", ("ec", "rsa"))
def test_an_edge_whose_key_is_on_a_token(token, authority, spawn, kind):
    """HTTP/1.1 and 2 over TCP and HTTP/3: what the clients see is a certificate like any other."""
    leaf = certificate(token, authority, kind, "edge.example.org", "127.0.0.1")
    port, origin = free_port(), free_port()
    (authority / "page").write_text("it works")
    spawn("python3", "-m", "http.server", "--bind", "127.0.0.1", origin, "--directory", authority, name="origin")
    wait_tcp(origin)
    config = authority / "edge.json"
    config.write_text(json.dumps({
        "listeners": {"https": {"address": f"127.0.0.1:{port}", "tls": {"certificates": [{"cert_file": str(leaf), "key_file": token.url(kind)}]}}},
        "groups": {"app": {"origins": [{"url": f"http://127.0.0.1:{origin}"}]}},
        "routes": [{"group": "app"}]}))
    checked = run(program("cb-edge"), "--check", "-c", config, env=token.env)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    wrong = run(program("cb-edge"), "--check", "-c", config, env={**token.env, "SOFTHSM2_CONF": "/nonexistent"})
    assert wrong.returncode != 0 and "pkcs11:" in wrong.stdout + wrong.stderr
    edge = spawn(program("cb-edge"), "-c", config, env=token.env).wait_for("ready with")
    context = ssl.create_default_context(cafile=authority / "ca/root.pem")
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port), 10) as raw, context.wrap_socket(raw, server_hostname="edge.example.org") as tls:
            tls.sendall(b"GET /page HTTP/1.1\r\nHost: edge.example.org\r\nConnection: close\r\n\r\n")
            assert b"".join(iter(lambda: tls.recv(65536), b"")).endswith(b"it works")
    for version in ("-1", "-2", "-3"):
        got = run(program("http_client"), version, "--ca", authority / "ca/root.pem", f"https://127.0.0.1:{port}/page")
        assert got.returncode == 0 and "it works" in got.stdout, (version, got.stdout, got.stderr)
    assert edge.stop() == 0, edge.output()


def test_state_files_wrapped_by_a_key_on_a_token(token, tmp_path):
    plain, sealed = tmp_path / "plain", tmp_path / "sealed"
    plain.write_text("the state of a daemon\n")

    def seal(*words, code=0, env=token.env):
        got = run(program("cbctl"), "seal", *words, env=env)
        assert got.returncode == code, got.stdout + got.stderr
        return got.stdout if code == 0 else got.stderr

    seal("close", "--key", token.url("rsa"), "--purpose", "state", plain, sealed)
    assert seal("open", "--key", token.url("rsa"), "--purpose", "state", sealed) == plain.read_text()
    assert json.loads(seal("show", "--json", sealed))["on_token"] is True
    seal("renew", "--key", tmp_path / "file", "--make-key", "--old-key", token.url("rsa"), "--purpose", "state", sealed)
    assert seal("open", "--key", tmp_path / "file", "--purpose", "state", sealed, env=None) == plain.read_text()
    seal("renew", "--key", token.url("rsa"), "--old-key", tmp_path / "file", "--purpose", "state", sealed)
    damaged = bytearray(sealed.read_bytes())
    for at in (40, len(damaged) - 1):  # the wrapped key, and the tag
        damaged[at] ^= 1
        sealed.write_bytes(damaged)
        seal("open", "--key", token.url("rsa"), "--purpose", "state", sealed, code=1)
        damaged[at] ^= 1
    assert "must be RSA" in seal("close", "--key", token.url("ec"), "--purpose", "state", plain, sealed, code=1)
