"""cb.oidc against a small provider of our own. C is tested against an independent one (tests/interop/test_oidc.py)."""

import http.server
import json
import threading
import time
import urllib.parse

import pytest

import cb
import cb.jwt
import cb.oidc

API = "https://api.example"
KEY = {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
       "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}  # RFC 8037 A.1


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def answer(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        issuer = self.server.issuer
        if self.path == "/.well-known/openid-configuration":
            self.answer({"issuer": issuer, **{name: f"{issuer}/{name}" for name in (
                "jwks_uri", "token_endpoint", "introspection_endpoint", "revocation_endpoint", "device_authorization_endpoint")}})
        else:
            self.answer({"keys": [{name: value for name, value in KEY.items() if name != "d"}]})

    def do_POST(self):
        form = dict(urllib.parse.parse_qsl(self.rfile.read(int(self.headers["content-length"])).decode()))
        self.server.forms.append((self.path, form, self.headers["authorization"]))
        token = self.server.signer.sign({"iss": self.server.issuer, "sub": form.get("client_id", "svc"), "aud": API, "exp": int(time.time()) + 300})
        if self.path == "/introspection_endpoint":
            self.answer({"active": form["token"] != "gone", "sub": "joe", "scope": "read write"})
        elif self.path == "/device_authorization_endpoint":
            self.answer({"device_code": "d", "user_code": "ABCD", "verification_uri": f"{self.server.issuer}/go", "expires_in": 60, "interval": 0})
        elif "device_code" in form and self.server.pending:
            self.answer({"error": "authorization_pending"}, 400)
        elif form.get("scope") == "forbidden":
            self.answer({"error": "invalid_scope", "error_description": "not for you"}, 400)
        else:
            self.answer({"access_token": token, "token_type": "Bearer", "expires_in": 300, "refresh_token": "again"})


@pytest.fixture
def idp():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.pending = False
    server.issuer, server.forms = f"http://127.0.0.1:{server.server_port}", []
    server.signer = cb.jwt.Signer(jwk=json.dumps(KEY))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def provider(idp):
    with cb.oidc.Provider(idp.issuer, client_id="svc", client_secret="s", loopback_http=True) as provider:
        yield provider


def test_client_credentials_and_verify(idp, provider):
    tokens = provider.client_credentials(scope="read")
    assert idp.forms[-1] == ("/token_endpoint", {"grant_type": "client_credentials", "scope": "read"}, "Basic c3ZjOnM=")
    assert tokens.token_type == "Bearer" and tokens.expires_at - time.time() > 200
    token = provider.verify(tokens.access_token, audience=API)
    assert token.claims["sub"] == "svc"
    with pytest.raises(cb.jwt.Refused) as refused:
        provider.verify(tokens.access_token, audience="another")
    assert refused.value.reason == "audience"
    with pytest.raises(cb.oidc.Denied, match="not for you") as denied:
        provider.client_credentials(scope="forbidden")
    assert denied.value.error == "invalid_scope"


def test_introspection_is_remembered(idp, provider):
    for _ in range(3):
        token = provider.introspect("opaque")
        assert token.claims["sub"] == "joe" and token.has_scope("write")
    assert len(idp.forms) == 1
    for _ in range(2):
        with pytest.raises(cb.jwt.Refused) as refused:
            provider.introspect("gone")
        assert refused.value.reason == "inactive"
    assert len(idp.forms) == 2


def test_other_grants(idp, provider):
    provider.refresh("r")
    assert idp.forms[-1][1] == {"grant_type": "refresh_token", "refresh_token": "r"}
    account = json.dumps({"type": "serviceaccount", "keyId": "7", "userId": "4711", "key":
                          "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n"})
    key, user = cb.oidc.read_account(account)
    assert user == "4711"
    provider.jwt_bearer(key, user, scope="openid")
    assertion = idp.forms[-1][1]["assertion"]
    assert cb.jwt.verify(assertion, cb.jwt.Keys(json=key.jwk), issuer="4711", audience=idp.issuer).claims["sub"] == "4711"
    seen = []
    assert provider.device(seen.append).refresh_token == "again"
    assert seen[0].user_code == "ABCD" and seen[0].url.endswith("/go") and seen[0].url_complete is None
    provider.revoke("t", "access_token")
    assert idp.forms[-1][:2] == ("/revocation_endpoint", {"token": "t", "token_type_hint": "access_token"})
    with pytest.raises(RuntimeError, match="no screen"):
        provider.device(lambda shown: (_ for _ in ()).throw(RuntimeError("no screen")))


def test_threads_ask_at_the_same_time(provider):
    results = []
    threads = [threading.Thread(target=lambda: results.append(provider.client_credentials().access_token)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8 and all(provider.verify(text, audience=API) for text in results)


def test_mistakes_are_told():
    with pytest.raises(cb.Error, match="not https"):
        cb.oidc.Provider("http://id.example")
    with pytest.raises(cb.Error, match="client_id"):
        cb.oidc.Provider("https://id.example", client_secret="s")
    with pytest.raises(cb.Error, match="serviceaccount"):
        cb.oidc.read_account("{}")
    provider = cb.oidc.Provider("http://127.0.0.1:1", loopback_http=True, timeout=0.2)
    with pytest.raises(cb.Error, match="no keys"):
        provider.verify("a.b.c", audience=API)
    provider.close()
    provider.close()
    with pytest.raises(ValueError, match="closed"):
        provider.client_credentials()


def test_closing_ends_what_waits(idp):
    idp.pending = True
    provider = cb.oidc.Provider(idp.issuer, client_id="svc", client_secret="s", loopback_http=True)
    shown = threading.Event()
    ended = []

    def wait():
        try:
            provider.device(lambda device: shown.set())
        except cb.Error as error:
            ended.append(error.name)

    thread = threading.Thread(target=wait)
    thread.start()
    assert shown.wait(20)
    provider.close()
    thread.join(20)
    assert ended and "CB_ECLOSED" in ended[0]
