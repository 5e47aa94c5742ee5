"""Who may pass a route of cb-edge: tokens, proofs, API keys and client certificates, with curl in front and a scripted origin behind."""

import base64
import hashlib
import http.server
import itertools
import json
import os
import re
import subprocess
import threading
import time
import urllib.parse
import uuid

import pytest
from conftest import free_port, peer, program, run
from test_edge import Edge, Load, edge, origin  # noqa: F401  (fixtures)

jwt = pytest.importorskip("jwt")
ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")

ISSUER, AUDIENCE = "https://id.example", "https://api.example"
HEADERS = {"x-user": "subject", "x-tenant": "tenant", "x-roles": "roles", "x-mail": "/email"}


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Key:
    """A P-256 key: signs tokens, and proofs that have it."""

    def __init__(self, kid=None):
        self.private, self.kid = ec.generate_private_key(ec.SECP256R1()), kid or uuid.uuid4().hex[:8]
        n = self.private.public_key().public_numbers()
        self.public = {"kty": "EC", "crv": "P-256", "x": b64(n.x.to_bytes(32, "big")), "y": b64(n.y.to_bytes(32, "big"))}
        self.jwk = {**self.public, "kid": self.kid}
        self.thumbprint = b64(hashlib.sha256(json.dumps(self.public, sort_keys=True, separators=(",", ":")).encode()).digest())

    def token(self, **claims):
        now = int(time.time())
        body = {"iss": ISSUER, "aud": AUDIENCE, "sub": "joe", "org": "acme", "iat": now, "exp": now + 300, **claims}
        return jwt.encode({k: v for k, v in body.items() if v is not None}, self.private, algorithm="ES256", headers={"kid": self.kid})

    def proof(self, method, url, token, nonce=None, jti=None):
        body = {"htm": method, "htu": url, "jti": jti or uuid.uuid4().hex, "iat": int(time.time()),
                "ath": b64(hashlib.sha256(token.encode()).digest()), **({"nonce": nonce} if nonce else {})}
        return jwt.encode(body, self.private, algorithm="ES256", headers={"typ": "dpop+jwt", "jwk": self.public})


def bearer(token):
    return ["-H", f"Authorization: Bearer {token}"]


@pytest.fixture
def signer(tmp_path):
    key = Key()
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [key.jwk]}))
    return key


def staff(folder, **more):
    kinds = {"issuer": ISSUER, "audiences": [AUDIENCE], "keys_file": str(folder / "jwks.json"), **more}
    return {"jwt": kinds, "tenant_claim": "org", "roles_claim": "urn:zitadel:iam:org:project:roles"}


def cbctl(*arguments, good=True):
    got = run(program("cbctl"), *arguments)
    assert (got.returncode == 0) == good, got.stderr
    return got


def api_key(folder, *options):
    got = cbctl("auth", "key", "new", "--hash-key", folder / "hash-key", "--keys", folder / "keys", "--json", *options)
    return json.loads(got.stdout)["key"]


def robots(folder):
    return {"api_key": {"keys_file": str(folder / "keys"), "hash_key_file": str(folder / "hash-key")}}


def open_gate(edge, port, identities, auth, **more):
    routes = [{"path": "/open", "group": "web"}, {"path": "/", "group": "web", "auth": {"headers": HEADERS, **auth}}]
    return edge.start({"web": [f"http://127.0.0.1:{port}"]}, routes, identities=identities, **more)


def challenges(head):
    return re.findall(r"^www-authenticate: (.*)$", head, re.M | re.I)


NUMBERS = itertools.count()


def why(edge, *options, status=401, scheme="http"):
    """Asks on a path of its own, so that its line is the only one; the reason of the refusal."""
    path = f"/head?{next(NUMBERS)}"
    got = edge.status(path, *options, scheme=scheme)
    line = edge.last(path)
    assert got == status and "origin" not in line, (got, line)
    return line["auth_reason"]


# ---- tokens ----

def test_tokens_good_and_bad(edge, origin, signer, tmp_path):
    open_gate(edge, origin(), {"staff": staff(tmp_path)}, {"any": ["staff"], "need_tenant": True, "scopes": ["read"], "realm": "shop"})
    stranger, now = Key(signer.kid), int(time.time())
    roles = {"urn:zitadel:iam:org:project:roles": {"admin": {"1": "acme.example"}, "dev": {}}}
    code, head, body = edge.curl("/head", *bearer(signer.token(scope="read write", email="joe@acme.example", **roles)), scheme="https")
    told = body.decode().lower()
    assert "200" in head.split("\n")[0], head
    for line in ("x-user: joe", "x-tenant: acme", "x-roles: admin, dev", "x-mail: joe@acme.example"):
        assert f"\n{line}\r\n" in told, told
    assert "authorization" not in told
    line = edge.last("/head")
    assert (line["subject"], line["tenant"], line["auth"]) == ("joe", "acme", "staff") and "auth_reason" not in line, line

    parts = signer.token(scope="read").split(".")
    none = ".".join([b64(b'{"alg":"none"}'), parts[1], ""])
    rows = {
        "expired": (signer.token(scope="read", exp=now - 100), 401, "expired"),
        "audience": (signer.token(scope="read", aud="other"), 401, "audience"),
        "issuer": (signer.token(scope="read", iss="other"), 401, "issuer"),
        "signature": (stranger.token(scope="read"), 401, "signature"),
        "unknown key": (Key().token(scope="read"), 401, "unknown-key"),
        "none": (none, 401, "alg"),
        "garbage": ("garbage", 401, "format"),
        "no scope": (signer.token(), 403, "scope"),
        "other scope": (signer.token(scope="reader"), 403, "scope"),
        "no tenant": (signer.token(scope="read", org=None), 403, "tenant"),
        "tenants": (signer.token(scope="read", org=["acme"]), 403, "tenant"),
    }
    for i, (name, (token, status, reason)) in enumerate(rows.items()):
        _, head, body = edge.curl(f"/{i}", *bearer(token), scheme="https")
        assert f" {status}" in head.split("\n")[0], (name, head)
        if status == 401:
            assert challenges(head) == [f'Bearer realm="shop", error="invalid_token", error_description="{reason}"'], (name, head)
        if reason == "scope":
            assert challenges(head) == ['Bearer realm="shop", error="insufficient_scope", error_description="scope", scope="read"'], head
        line = edge.last(f"/{i}")
        assert line["auth_reason"] == reason and line["reason"] == ("unauthorized" if status == 401 else "forbidden"), line
        assert "origin" not in line, f"{name}: it reached the origin: {line}"
    assert edge.status("/x", scheme="https") == 401 and edge.last("/x")["auth_reason"] == "no-credentials"
    assert challenges(edge.curl("/y", scheme="https")[1]) == ['Bearer realm="shop", scope="read"']
    assert edge.status("/open", scheme="https") == 200
    assert edge.status("/z", *bearer("a b"), scheme="https") == 400
    assert edge.status("/w", *bearer(signer.token(scope="read")), "-H", "Early-Data: 1", scheme="https") == 425
    everything = edge.log.read_text() + edge.process.output()
    assert signer.token(scope="read").split(".")[2] not in everything and "eyJ" not in everything, "a token in a log"


@pytest.mark.parametrize("how", ["h1", "h2", "h3"])
def test_identity_fields_cannot_be_sent(edge, origin, signer, tmp_path, how):
    """In any case, spelling and number, on guarded and on open routes, over each version."""
    open_gate(edge, origin(), {"staff": staff(tmp_path)}, {"any": ["staff"]})
    names = ["x-user", "X-User", "x_user", "X_USER", "X-MAIL", "x_mail", "x-roles", "x-roles", "x_Tenant"]
    fields = [f"{n}: evil{i}" for i, n in enumerate(names)] + ["Connection: x-user, x-tenant"] * (how == "h1")
    for path in ("/head", "/open"):
        sent = fields + [f"Authorization: Bearer {signer.token()}"] * (path == "/head")
        options = [o for f in sent for o in ("-H", f)]
        if how == "h3":
            got = run(program("http_client"), "-3", "--ca", edge.pki["ca"], *options, f"https://localhost:{edge.tls_port}{path}", binary=True)
            body = got.stdout
        else:
            _, head, body = edge.curl(path, "--http1.1" if how == "h1" else "--http2", *options, scheme="https")
        if path == "/open":
            continue
        told = body.decode().lower()
        assert "evil" not in told and told.count("x-user") == 1 and "\nx-user: joe\r\n" in told and "\nx-tenant: acme\r\n" in told, told
    # The origin tells nothing on /open: ask it for the head through a router where that is open.
    edge.config({"web": [re.search(r"http://127.0.0.1:\d+", edge.file.read_text())[0]]},
                [{"path": "/guarded", "group": "web", "auth": {"any": ["staff"], "headers": HEADERS}}, {"group": "web"}],
                identities={"staff": staff(tmp_path)})
    edge.reload()
    options = [o for f in fields for o in ("-H", f)]
    if how == "h3":
        body = run(program("http_client"), "-3", "--ca", edge.pki["ca"], *options, f"https://localhost:{edge.tls_port}/head", binary=True).stdout
    else:
        body = edge.curl("/head", "--http1.1" if how == "h1" else "--http2", *options, scheme="https")[2]
    assert b"GET /head" in body and b"evil" not in body, body


def test_trailers_do_not_tell_either(edge, origin, signer, tmp_path):
    open_gate(edge, origin(), {"staff": staff(tmp_path)}, {"any": ["staff"]})
    request = (f"POST /echo HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {signer.token()}\r\nTransfer-Encoding: chunked\r\n"
               "Connection: close\r\nTE: trailers\r\n\r\n3\r\nabc\r\n0\r\nX-User: evil\r\nx_mail: evil\r\nX-Sum: 1\r\n\r\n")
    out = edge.raw(request.encode())
    assert b" 200 " in out.split(b"\r\n")[0] and b"evil" not in out and b"X-Trailers: x-sum: 1" in out or b"x-trailers: x-sum: 1" in out.lower(), out


def test_choices_of_a_route(edge, origin, signer, tmp_path):
    open_gate(edge, origin(), {"staff": staff(tmp_path)}, {"any": ["staff"], "keep_credentials": True, "preflight": "pass", "roles": ["admin", "dev"]})
    roles = {"urn:zitadel:iam:org:project:roles": {"dev": {}}}
    token = signer.token(**roles)
    assert f"authorization: bearer {token}".lower() in edge.curl("/head", *bearer(token))[2].decode().lower()
    assert why(edge, *bearer(signer.token()), status=403) == "role"
    preflight = ["-X", "OPTIONS", "-H", "Origin: https://app.example", "-H", "Access-Control-Request-Method: PUT"]
    _, head, body = edge.curl("/head", *preflight, *bearer("bad"))
    assert " 200" in head and b"earer" not in body and b"x-user" not in body.lower(), body
    assert edge.status("/head", *preflight[:4]) == 401


def test_websocket(edge, origin, signer, tmp_path):
    open_gate(edge, origin(), {"staff": staff(tmp_path)}, {"any": ["staff"]})
    upgrade = ("GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n")
    assert edge.raw((upgrade % "").encode()).startswith(b"HTTP/1.1 401 ")
    out = edge.raw((upgrade % f"Authorization: Bearer {signer.token()}\r\n").encode() + b"\x82\x83\x00\x00\x00\x00abc")
    assert out.startswith(b"HTTP/1.1 101 ") and out.endswith(b"\x82\x03abc"), out


def test_early_data_is_for_open_routes(edge, origin, signer, tmp_path):
    """In the first flight of a resumed connection nobody is asked who it is: it could be a replay."""
    tls = {"certificates": [{"cert_file": str(edge.pki["cert"]), "key_file": str(edge.pki["key"])}], "early_data": True}
    open_gate(edge, origin(), {"staff": staff(tmp_path)}, {"any": ["staff"]}, workers=1,
              listeners={"tls": {"address": f"127.0.0.1:{edge.tls_port}", "tls": tls}})

    def ask(path):
        run(peer("gtlsclient"), "--no-quic-dump", "--exit-on-all-streams-close", "--wait-for-ticket", "--session-file", tmp_path / "session",
            "--tp-file", tmp_path / "tp", "--sni=localhost", "127.0.0.1", edge.tls_port, f"https://localhost:{edge.tls_port}{path}")
        return edge.last(path)

    assert ask("/first")["auth_reason"] == "no-credentials"
    assert ask("/open?early")["status"] == 200
    line = ask("/early")
    assert line["status"] == 425 and line["reason"] == "early_data" and "auth_reason" not in line, line


def test_proofs_of_possession(edge, origin, signer, tmp_path):
    open_gate(edge, origin(), {"staff": staff(tmp_path, dpop="require")}, {"any": ["staff"]})
    holder, url = Key(), f"https://localhost:{edge.tls_port}/head"
    token = signer.token(cnf={"jkt": holder.thumbprint})

    def fields(key=holder, method="GET", where=url, nonce=None, what=token, scheme="DPoP", jti=None):
        return ["-H", f"Authorization: {scheme} {what}", "-H", f"DPoP: {key.proof(method, where, what, nonce, jti)}"]

    _, head, _ = edge.curl("/head", *fields(), scheme="https")
    nonce = re.search(r"^dpop-nonce: (\S+)", head, re.M | re.I)
    assert " 401" in head and 'DPoP realm="api", error="use_dpop_nonce"' in challenges(head)[0] and nonce, head
    _, head, body = edge.curl("/head", *fields(nonce=nonce[1], jti="once"), scheme="https")
    assert " 200" in head and b"x-user: joe" in body.lower() and b"dpop" not in body.lower(), head
    for name, kw, reason in (("again", {"jti": "once"}, "dpop-replay"), ("another key", {"key": Key()}, "binding"), ("method", {"method": "POST"}, "dpop-method"),
                             ("url", {"where": url + "x"}, "dpop-url"), ("Bearer", {"scheme": "Bearer"}, "scheme"),
                             ("a token bound to nothing", {"what": signer.token()}, "binding")):
        assert why(edge, *fields(nonce=nonce[1], **kw), scheme="https") == reason, name
    # The proofs that were used stay used over a reload.
    edge.reload()
    assert why(edge, *fields(nonce=nonce[1], jti="once"), scheme="https") == "dpop-replay"
    assert edge.status("/head", *fields(nonce=nonce[1]), scheme="https") == 200


def test_paths_that_an_origin_may_read_otherwise(edge, origin, signer, tmp_path):
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]}, [{"group": "web"}, {"path": "/secret", "group": "web", "auth": {"any": ["staff"]}}],
               identities={"staff": staff(tmp_path)})
    for path, status in (("/open", 200), ("/secret", 401), ("/open/../secret", 401), ("/%73ecret", 401), ("/open/..%2fsecret", 400), ("//secret", 400),
                         ("/open/..%5Csecret", 400), ("/x;y/../secret", 401), ("/;y/secret", 400), ("/open/a%2fb//c;d", 200)):
        out = edge.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert out.startswith(b"HTTP/1.1 %d " % status), (path, out)
    assert edge.last("//secret")["reason"] == "ambiguous_path"


# ---- API keys ----

def test_api_keys(edge, origin, tmp_path):
    key = api_key(tmp_path, "--subject", "robot", "--tenant", "acme", "--role", "reader", "--role", "writer")
    open_gate(edge, origin(), {"robots": robots(tmp_path)}, {"any": ["robots"], "need_tenant": True, "roles": ["reader"]})
    _, head, body = edge.curl("/head", "-H", f"X-API-Key: {key}")
    told = body.decode().lower()
    assert " 200" in head and "x-user: robot\r\n" in told and "x-roles: reader, writer\r\n" in told and "api-key" not in told, told
    assert edge.status("/head", "-H", f"X-API-Key: {key[:-1]}") == 401
    assert challenges(edge.curl("/head", "-H", "X-API-Key: nonsense")[1]) == ['ApiKey realm="api", error="invalid_token", error_description="unknown-key"']
    assert edge.status("/head", "-H", f"X-API-Key: {key}", "-H", f"X-API-Key: {key}") == 400
    assert edge.status("/head", "-H", f"x_api_key: {key}") == 401, "another spelling is another field"
    second = api_key(tmp_path, "--subject", "second", "--tenant", "acme")
    assert edge.status("/head", "-H", f"X-API-Key: {second}") == 401
    edge.reload()
    assert edge.status("/head", "-H", f"X-API-Key: {second}") == 403, "it has no role"
    # A file with a bad line is refused as a whole, and the old set serves on.
    good = (tmp_path / "keys").read_text()
    (tmp_path / "keys").write_text(good + "nonsense\n")
    edge.reload(good=False)
    assert "/identities/robots/api_key: API keys" in edge.process.output() and "line 3" in edge.process.output()
    assert edge.status("/head", "-H", f"X-API-Key: {key}") == 200
    (tmp_path / "keys").write_text(good.splitlines()[1] + "\n")
    edge.reload()
    assert edge.status("/head", "-H", f"X-API-Key: {key}") == 401
    assert (tmp_path / "hash-key").stat().st_mode & 0o777 == 0o600
    assert key not in edge.log.read_text() + edge.process.output() + good


def test_hash_key_for_everybody(edge, tmp_path):
    api_key(tmp_path, "--subject", "robot")
    os.chmod(tmp_path / "hash-key", 0o644)
    edge.config({"web": ["http://127.0.0.1:1"]}, identities={"robots": robots(tmp_path)})
    got = run(program("cb-edge"), "--check", "-c", edge.file)
    assert got.returncode == 1 and "others may read it" in got.stderr, got.stderr


# ---- client certificates ----

def certificates(pki, folder):
    """A private authority, a SPIFFE identity and one with a DNS name; and a listener that asks for certificates of it."""
    cbctl("ca", "init", "--dir", folder / "ca")
    cbctl("ca", "issue", "--dir", folder / "ca", "--profile", "svid", "--uri", "spiffe://acme.example/web", "--out", "web")
    cbctl("ca", "issue", "--dir", folder / "ca", "--profile", "client", "laptop.acme.example", "--out", "laptop")
    root = folder / "ca/ca.pem" if (folder / "ca/ca.pem").exists() else folder / "ca/root.pem"
    return {"certificates": [{"cert_file": str(pki["cert"]), "key_file": str(pki["key"])}], "client_certificates": "ask", "client_ca_file": str(root)}


def shown(folder, name):
    return ["--cert", folder / f"ca/{name}.pem", "--key", folder / f"ca/{name}-key.pem"]


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_client_certificates(edge, origin, pki, tmp_path, version):
    listeners = {"tls": {"address": f"127.0.0.1:{edge.tls_port}", "tls": certificates(pki, tmp_path)}}
    open_gate(edge, origin(), {"machines": {"mtls": {"subject": "spiffe"}, "tenant": "acme"}}, {"any": ["machines"], "need_tenant": True}, listeners=listeners)
    _, head, body = edge.curl("/head", version, *shown(tmp_path, "web"), scheme="https")
    assert " 200" in head and b"x-user: spiffe://acme.example/web" in body.lower() and b"x-tenant: acme" in body.lower(), (head, body)
    assert edge.last("/head")["subject"] == "spiffe://acme.example/web"
    assert why(edge, version, *shown(tmp_path, "laptop"), status=403, scheme="https") == "subject"
    assert why(edge, version, status=403, scheme="https") == "no-certificate"
    assert edge.status("/open", version, scheme="https") == 200
    # Revoked by its serial number: at once, on the connections that there are, too.
    serial = next(row["serial"] for row in json.loads(cbctl("ca", "list", "--dir", tmp_path / "ca", "--json").stdout) if "spiffe" in json.dumps(row))
    (tmp_path / "revoked").write_text("")
    edge.config({"web": [re.search(r"http://127.0.0.1:\d+", edge.file.read_text())[0]]}, [{"group": "web", "auth": {"any": ["machines"]}}],
                identities={"machines": {"mtls": {}}}, listeners=listeners, revocations_file=str(tmp_path / "revoked"))
    edge.reload()
    assert edge.status("/head", version, *shown(tmp_path, "web"), scheme="https") == 200
    cbctl("auth", "revoke", "--file", tmp_path / "revoked", "--issuer", "machines", "--jti", serial.lower())
    until(lambda: edge.status("/head", version, *shown(tmp_path, "web"), scheme="https") == 403)
    assert why(edge, version, *shown(tmp_path, "web"), status=403, scheme="https") == "revoked"
    assert edge.status("/head", version, *shown(tmp_path, "laptop"), scheme="https") == 200


def test_tokens_bound_to_a_certificate(edge, origin, pki, signer, tmp_path):
    listeners = {"tls": {"address": f"127.0.0.1:{edge.tls_port}", "tls": certificates(pki, tmp_path)}}
    open_gate(edge, origin(), {"staff": staff(tmp_path)}, {"any": ["staff"]}, listeners=listeners)
    der = subprocess.run(["openssl", "x509", "-in", tmp_path / "ca/web.pem", "-outform", "DER"], capture_output=True, check=True).stdout
    bound = bearer(signer.token(cnf={"x5t#S256": b64(hashlib.sha256(der).digest())}))
    assert edge.status("/a", *bound, *shown(tmp_path, "web"), scheme="https") == 200
    for path, certificate in (("/b", shown(tmp_path, "laptop")), ("/c", [])):
        assert edge.status(path, *bound, *certificate, scheme="https") == 401 and edge.last(path)["auth_reason"] == "binding"


# ---- several ----

def test_any_and_all(edge, origin, pki, signer, tmp_path):
    key = api_key(tmp_path, "--subject", "robot")
    listeners = {"tls": {"address": f"127.0.0.1:{edge.tls_port}", "tls": certificates(pki, tmp_path)}}
    identities = {"staff": staff(tmp_path), "robots": robots(tmp_path), "machines": {"mtls": {}}}
    edge.start({"web": [f"http://127.0.0.1:{origin()}"]},
               [{"path": "/any", "group": "web", "auth": {"any": ["staff", "robots", "machines"]}},
                {"path": "/all", "group": "web", "auth": {"all": ["staff", "machines"]}}], identities=identities, listeners=listeners)
    token, bad, keyed, web = bearer(signer.token()), bearer("x.y.z"), ["-H", f"X-API-Key: {key}"], shown(tmp_path, "web")
    rows = [("/any", [], 401), ("/any", token, 200), ("/any", keyed, 200), ("/any", web, 200), ("/any", token + keyed, 200), ("/any", bad, 401),
            ("/any", bad + keyed, 401), ("/any", bad + web, 401), ("/any", token + ["-H", "X-API-Key: x"], 401),
            ("/all", [], 403), ("/all", token, 403), ("/all", web, 401), ("/all", token + web, 200), ("/all", bad + web, 401)]
    for path, options, status in rows:
        assert edge.status(path, *options, scheme="https") == status, (path, options, status)


# ---- change without loss ----

def until(true, seconds=30):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.05)


def test_keys_rotate_under_load(edge, origin, signer, tmp_path):
    open_gate(edge, origin(), {"staff": staff(tmp_path)}, {"any": ["staff"]}, limits={"max_requests": 1000000})
    keys, token = [signer], signer.token()
    load = Load(edge, fields=lambda: f"Authorization: Bearer {token}\r\n")
    for _ in range(6):
        keys.append(Key())
        (tmp_path / "jwks.json").write_text(json.dumps({"keys": [k.jwk for k in keys[-2:]]}))
        edge.reload()
        token = keys[-1].token()  # noqa: F841  (the load's)
        time.sleep(0.1)
    good, bad = load.end()
    assert not bad and good > 50, (good, bad[:5])
    assert edge.status("/x", *bearer(signer.token())) == 401, "a key that left signs nothing any more"
    assert edge.status("/x", *bearer(keys[-1].token())) == 200


def test_revocation_works_at_once(edge, origin, signer, tmp_path):
    (tmp_path / "revoked").write_text("# nothing yet\n")
    open_gate(edge, origin(), {"staff": staff(tmp_path)}, {"any": ["staff"]}, revocations_file=str(tmp_path / "revoked"), workers=3)
    one, two, other = (bearer(signer.token(jti=j, sub=s)) for j, s in (("1", "joe"), ("2", "joe"), ("3", "ann")))
    for token in (one, two, other):
        assert edge.status("/x", *token) == 200
    cbctl("auth", "revoke", "--file", tmp_path / "revoked", "--issuer", ISSUER, "--jti", "1")
    until(lambda: edge.status("/x", *one) == 401)
    for _ in range(12):  # on every worker: curl connects anew each time
        assert edge.status("/x", *one) == 401
    assert why(edge, *one) == "revoked" and edge.status("/x", *two) == 200
    cbctl("auth", "revoke", "--file", tmp_path / "revoked", "--issuer", ISSUER, "--subject", "joe", "--days", "1")
    until(lambda: edge.status("/x", *two) == 401)
    assert edge.status("/x", *other) == 200
    # A line that is no good takes nothing back, and is told once.
    with open(tmp_path / "revoked", "a") as f:
        f.write('{"issuer": 3}\n')
    edge.process.wait_for("line 4:")
    assert edge.status("/x", *two) == 401 and edge.status("/x", *other) == 200
    edge.reload(good=False)
    assert edge.status("/x", *two) == 401
    cbctl("auth", "revoke", "--file", tmp_path / "revoked", "--issuer", ISSUER, "--all", "--jti", "1", good=False)


# ---- mistakes ----

@pytest.mark.parametrize("identities, auth, text", [
    ({}, {"any": ["staff"]}, r'/routes/0/auth/any/0: there are no identities "staff"'),
    ({"staff": {"mtls": {}}}, {}, r'/routes/0/auth: needs "any" or "all"'),
    ({"staff": {"mtls": {}}}, {"any": ["staff"], "all": ["staff"]}, r'/routes/0/auth: needs "any" or "all"'),
    ({"staff": {"mtls": {}}}, {"any": ["staff"]}, r"/routes/0/auth/any/0: no listener asks for certificates"),
    ({"staff": {}}, None, r'/identities/staff: needs exactly one of'),
    ({"staff": {"mtls": {}, "api_key": {"keys_file": "/x", "hash_key_file": "/x"}}}, None, r'/identities/staff: needs exactly one of'),
    ({"staff": {"mtls": {}, "tenant": "a", "tenant_claim": "b"}}, None, r'/identities/staff: "tenant" or "tenant_claim", not both'),
    ({"staff": {"jwt": {"issuer": "x", "keys_file": "/nonexistent"}}}, None, r'/identities/staff/jwt: needs "audiences"'),
    ({"staff": {"jwt": {"issuer": "x", "any_audience": True, "keys_file": "/nonexistent"}}}, None, r"/identities/staff/jwt/keys_file: .*/nonexistent"),
    ({"staff": {"api_key": {"keys_file": "/nonexistent", "hash_key_file": "/nonexistent"}}}, None, r"/identities/staff/api_key: .*/nonexistent"),
    ({"staff": {"jwt": {"issuer": "x", "any_audience": True, "keys_file": "KEYS"}}}, {"any": ["staff"], "headers": {"host": "subject"}},
     r'/routes/0: identity field "host": HTTP needs it for itself'),
    ({"staff": {"jwt": {"issuer": "x", "any_audience": True, "keys_file": "KEYS"}}}, {"any": ["staff"], "headers": {"client-cert": "subject"}},
     r'/routes/0: identity field "client-cert": HTTP needs it for itself'),
    ({"staff": {"jwt": {"issuer": "x", "any_audience": True, "keys_file": "KEYS"}}}, {"any": ["staff"], "headers": {"x-user": "sub"}},
     r'/routes/0: identity field "x-user": "sub" is no part of an identity'),
])
def test_mistakes_are_told_with_their_place(edge, signer, tmp_path, identities, auth, text):
    identities = json.loads(json.dumps(identities).replace("KEYS", str(tmp_path / "jwks.json")))
    edge.config({"web": ["http://127.0.0.1:1"]}, [{"group": "web", **({"auth": auth} if auth is not None else {})}], identities=identities)
    got = run(program("cb-edge"), "--check", "-c", edge.file)
    assert got.returncode == 1 and re.search(text, got.stderr), got.stderr


# ---- a provider ----

class Provider:
    """A provider of tokens on loopback: discovery, keys, and what it knows of opaque tokens. It can go away and come back."""

    def __init__(self):
        self.port, self.keys, self.active, self.asked, self.server = free_port(), [Key()], {}, 0, None
        self.issuer = f"http://127.0.0.1:{self.port}"
        self.come()

    def come(self):
        provider = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self, document, status=200):
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                issuer = provider.issuer
                if self.path == "/.well-known/openid-configuration":
                    self.answer({"issuer": issuer, "jwks_uri": f"{issuer}/keys", "token_endpoint": f"{issuer}/token",
                                 "authorization_endpoint": f"{issuer}/auth", "introspection_endpoint": f"{issuer}/introspect",
                                 "response_types_supported": ["code"], "subject_types_supported": ["public"],
                                 "id_token_signing_alg_values_supported": ["ES256"]})
                else:
                    self.answer({"keys": [k.jwk for k in provider.keys]}, 200 if self.path == "/keys" else 404)

            def do_POST(self):
                form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                provider.asked += 1
                if self.headers.get("Authorization") != "Basic " + base64.b64encode(b"edge:secret").decode():
                    self.answer({"error": "invalid_client"}, 401)
                else:
                    self.answer(provider.active.get(form["token"][0], {"active": False}))

            def log_message(self, *_):
                pass

        self.serve(Handler)

    def serve(self, handler):
        class Server(http.server.ThreadingHTTPServer):
            daemon_threads, allow_reuse_address = True, True

        self.server = Server(("127.0.0.1", self.port), handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def go(self):
        self.server.shutdown()
        self.server.server_close()

    def config(self, folder, **more):
        (folder / "secret").write_text("secret\n")
        os.chmod(folder / "secret", 0o600)
        return {"idp": {"issuer": self.issuer, "loopback_http": True, "refresh_s": 1, "client_id": "edge",
                        "client_secret_file": str(folder / "secret"), "timeout_ms": 1000, **more}}

    def bearer(self, key=None, **claims):
        return bearer((key or self.keys[-1]).token(iss=self.issuer, **claims))


@pytest.fixture
def provider():
    made = Provider()
    yield made
    made.go()


BY_PROVIDER = {"staff": {"jwt": {"provider": "idp", "audiences": [AUDIENCE]}, "tenant_claim": "org"}}


def test_rotation_and_outage_under_load(edge, origin, provider, tmp_path):
    open_gate(edge, origin(), BY_PROVIDER, {"any": ["staff"]}, providers=provider.config(tmp_path, grace_s=0), limits={"max_requests": 1000000})
    until(lambda: edge.status("/x", *provider.bearer()) == 200)
    token = provider.bearer()[1]
    load = Load(edge, fields=lambda: token + "\r\n")
    for _ in range(3):  # a new key is published, then it signs, then the old one goes
        provider.keys.append(Key())
        until(lambda: edge.status("/x", *provider.bearer()) == 200)
        token = provider.bearer()[1]
        time.sleep(0.1)
        old = provider.keys.pop(0)
        until(lambda: edge.status("/x", *provider.bearer(old)) == 401)
    provider.go()
    edge.process.wait_for("provider idp: ", 30)
    edge.reload()  # what is known of the provider stays, over a reload too
    time.sleep(0.3)
    assert edge.status("/x", *provider.bearer()) == 200
    provider.keys.append(Key())  # nobody can know it yet
    assert edge.status("/x", *provider.bearer()) == 401
    good, bad = load.end()
    assert not bad and good > 50, (good, bad[:5])
    provider.come()
    until(lambda: edge.status("/x", *provider.bearer()) == 200, 90)
    edge.process.wait_for("all is well again", 90)


def test_a_provider_that_is_not_there_yet(edge, origin, provider, tmp_path):
    provider.go()
    open_gate(edge, origin(), BY_PROVIDER, {"any": ["staff"]}, providers=provider.config(tmp_path))
    _, head, _ = edge.curl("/x", *provider.bearer())
    assert " 503" in head and re.search("^retry-after: 1", head, re.M | re.I), head
    assert why(edge, *provider.bearer(), status=503) == "provider"
    assert edge.status("/x") == 401 and edge.status("/open") == 200
    provider.come()
    until(lambda: edge.status("/x", *provider.bearer()) == 200, 90)


def test_opaque_tokens(edge, origin, provider, tmp_path):
    identities = {"apps": {"introspect": {"provider": "idp", "audiences": [AUDIENCE]}, "tenant_claim": "org"}, **BY_PROVIDER}
    now = int(time.time())
    claims = {"active": True, "sub": "app", "org": "acme", "aud": AUDIENCE, "exp": now + 300, "scope": "read"}
    provider.active = {"good": claims, "other": {**claims, "aud": "other"}, "old": {**claims, "exp": now - 100}, "bound": {**claims, "cnf": {"jkt": "x"}}}
    open_gate(edge, origin(), identities, {"any": ["staff", "apps"], "need_tenant": True}, providers=provider.config(tmp_path))
    until(lambda: edge.status("/x", *bearer("good")) == 200)
    _, head, body = edge.curl("/head", *bearer("good"))
    assert " 200" in head and b"x-user: app" in body.lower() and b"x-tenant: acme" in body.lower(), (head, body)
    assert why(edge, *bearer("unknown")) == "inactive" and why(edge, *bearer("other")) == "audience" and why(edge, *bearer("bound")) == "binding"
    assert why(edge, *bearer("old")) in ("expired", "inactive")
    assert edge.status("/x", *provider.bearer()) == 200, "signed ones, too"
    asked = provider.asked
    for _ in range(10):
        assert edge.status("/x", *bearer("good")) == 200
    assert provider.asked == asked, "an answer that is remembered"
    # A body waits for the answer, and comes whole.
    (tmp_path / "body").write_bytes(os.urandom(300_000))
    provider.active["fresh"] = claims
    got = edge.curl("/echo", *bearer("fresh"), "--data-binary", f"@{tmp_path}/body", "-H", "Expect:", scheme="https")
    assert got[2] == (tmp_path / "body").read_bytes()
    provider.go()
    assert edge.status("/x", *bearer("good")) == 200 and why(edge, *bearer("new"), status=503) == "provider"
    provider.come()
    provider.active["new"] = claims
    until(lambda: edge.status("/x", *bearer("new")) == 200)
    assert "secret" not in edge.process.output().replace("client_secret", "")


# ---- policies ----

def test_policies(edge, origin, signer, tmp_path):
    rules = [{"name": "readers", "effect": "allow", "tenants": ["acme"], "roles": ["reader", "admin"], "methods": ["GET", "HEAD"], "paths": ["/docs/**"]},
             {"name": "admins", "effect": "allow", "tenants": ["acme"], "roles": ["admin"], "sources": ["192.0.2.0/24"]},
             {"name": "never", "effect": "deny", "tenants": ["*"], "paths": ["/docs/secret"]}]
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"rules": rules}))
    open_gate(edge, origin(), {"staff": staff(tmp_path)}, {"any": ["staff"], "policy_file": str(policy)}, trusted_proxies=["127.0.0.0/8"])

    def who(*roles, org="acme"):
        return bearer(signer.token(org=org, **{"urn:zitadel:iam:org:project:roles": {r: {} for r in roles}}))

    inside = ["-H", "X-Forwarded-For: 192.0.2.7"]
    rows = [("/docs/a", who("reader"), 200, "readers"), ("/docs/b", who("reader") + ["-X", "DELETE"], 403, None), ("/docs/c", who(), 403, None),
            ("/docs/secret", who("reader"), 403, "never"), ("/other", who("admin"), 403, None), ("/other1", who("admin") + inside, 200, "admins"),
            ("/other2", who("admin") + ["-H", "X-Forwarded-For: 198.51.100.1"], 403, None), ("/docs/d", who("reader", org="other"), 403, None),
            ("/docs/e", who("reader", org=None), 403, None), ("/docs/f", [], 401, None)]
    for path, options, status, rule in rows:
        assert edge.status(path, *options) == status, path
        line = edge.last(path)
        assert line.get("auth_rule") == rule, line
        assert line.get("auth_reason") == {200: None, 401: "no-credentials", 403: "policy"}[status], line
    # Another policy comes by a reload; one that is no good does not.
    policy.write_text(json.dumps({"rules": [{**rules[0], "name": "writers", "methods": ["DELETE"]}]}))
    edge.reload()
    assert edge.status("/docs/g", *who("reader"), "-X", "DELETE") == 200 and edge.last("/docs/g")["auth_rule"] == "writers"
    policy.write_text('{"rules": [{"name": "x", "effect": "perhaps"}]}')
    edge.reload(good=False)
    assert "/rules/0/effect" in edge.process.output()
    assert edge.status("/docs/h", *who("reader"), "-X", "DELETE") == 200


@pytest.mark.parametrize("more, text", [
    ({"identities": {"a": {"jwt": {"provider": "x", "any_audience": True}}}}, r'/identities/a/jwt/provider: there is no provider "x"'),
    ({"identities": {"a": {"jwt": {"any_audience": True}}}}, r'/identities/a/jwt: needs "provider", or "issuer" and "keys_file"'),
    ({"providers": {"x": {"issuer": "https://id.example"}}, "identities": {"a": {"introspect": {"provider": "x", "any_audience": True}}}},
     r"/identities/a/introspect/provider: it has no client_id"),
    ({"providers": {"x": {"issuer": "http://id.example"}}}, r"/providers/x: .*https"),
    ({"identities": {"a": {"mtls": {}}}, "listeners": {"a": {"address": ":0", "tls": {"certificates": [{"cert_file": "CERT", "key_file": "KEY"}],
                                                            "client_certificates": "ask", "client_ca_file": "CA"}}},
      "routes": [{"group": "web", "auth": {"any": ["a"], "opa": {"url": "http://127.0.0.1:1/v1/data/x", "token_file": "/nonexistent"}}}]},
     r'/routes/0: "/nonexistent": No such file'),
    ({"providers": {"x": {"issuer": "https://id.example", "client_id": "e", "client_secret_file": "/nonexistent"}}}, r'/providers/x/client_secret_file: "/nonexistent": No such file'),
])
def test_mistakes_about_providers(edge, pki, more, text):
    more = json.loads(json.dumps(more).replace('"CERT"', f'"{pki["cert"]}"').replace('"KEY"', f'"{pki["key"]}"').replace('"CA"', f'"{pki["ca"]}"'))
    edge.config({"web": ["http://127.0.0.1:1"]}, **more)
    got = run(program("cb-edge"), "--check", "-c", edge.file)
    assert got.returncode == 1 and re.search(text, got.stderr), got.stderr


class Agent(Provider):
    """An Open Policy Agent, as its REST API says: POST /v1/data/edge/allow with an input."""

    def __init__(self):
        self.port, self.server, self.inputs, self.allow, self.delay = free_port(), None, [], lambda i: {"result": True}, 0
        self.url = f"http://127.0.0.1:{self.port}/v1/data/edge/allow"
        self.come()

    def come(self):
        agent = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
                agent.inputs.append((self.headers.get("Authorization"), given))
                time.sleep(agent.delay)
                body = json.dumps(agent.allow(given)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.serve(Handler)


def test_policy_agent(edge, origin, signer, tmp_path):
    agent = Agent()
    try:
        (tmp_path / "token").write_text("agent-token\n")
        asks = {"url": agent.url, "token_file": str(tmp_path / "token"), "timeout_ms": 5000}
        open_gate(edge, origin(), {"staff": staff(tmp_path)}, {"any": ["staff"], "opa": asks})
        agent.allow = lambda given: {"result": given["method"] == "GET"}
        _, head, body = edge.curl("/head?x=1", *bearer(signer.token()))
        assert " 200" in head and b"x-user: joe" in body.lower()
        token, given = agent.inputs[-1]
        assert token == "Bearer agent-token" and given["subject"] == "joe" and given["tenant"] == "acme" and given["route"] == "web", given
        assert given["source"] == "127.0.0.1" and given["path"].startswith("/head"), given
        assert why(edge, "-X", "DELETE", *bearer(signer.token()), status=403) == "opa"
        asked = len(agent.inputs)
        assert why(edge, *bearer("x.y.z")) == "base64" and len(agent.inputs) == asked, "who is not let in is not asked about"
        (tmp_path / "body").write_bytes(os.urandom(200_000))  # waits for the answer, and comes whole
        agent.allow, agent.delay = lambda given: {"result": {"allow": True}}, 0.3
        got = edge.curl("/echo", *bearer(signer.token()), "--data-binary", f"@{tmp_path}/body", "-H", "Expect:", scheme="https")
        assert got[2] == (tmp_path / "body").read_bytes()
        agent.delay, agent.allow = 0, lambda given: {}
        path = f"/head?{next(NUMBERS)}"
        assert edge.status(path, *bearer(signer.token())) == 403 and edge.last(path)["auth_rule"] == "undefined"
        agent.go()
        assert why(edge, *bearer(signer.token()), status=403) == "opa"
        routes = [{"group": "web", "auth": {"any": ["staff"], "opa": {**asks, "fail_open": True}}}]
        edge.config({"web": [re.search(r"http://127.0.0.1:\d+", edge.file.read_text())[0]]}, routes, identities={"staff": staff(tmp_path)})
        edge.reload()
        assert edge.status("/x", *bearer(signer.token())) == 200 and edge.status("/x") == 401
        agent.come()
        agent.allow = lambda given: {"result": False}
        assert why(edge, *bearer(signer.token()), status=403) == "opa"
        assert "agent-token" not in edge.process.output() + edge.log.read_text()
    finally:
        agent.go()
