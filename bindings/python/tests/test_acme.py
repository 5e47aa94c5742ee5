"""cb.acme with a responder of our own, against the small server of tests/interop (C is tested against pebble there)."""

import http.server
import os
import sys
import threading
import time
from pathlib import Path

import pytest

import cb
import cb.acme

sys.path.insert(0, str(Path(os.environ["CB_SOURCE"]) / "tests/interop"))
from acme_server import AcmeServer  # noqa: E402
from conftest import free_port  # noqa: E402

NAME = "py.example.org"


@pytest.fixture
def server(tmp_path):
    with cb.CA(str(tmp_path / "ca")) as ca:
        ca.issue("localhost", "127.0.0.1")
    server = AcmeServer(tmp_path / "ca", free_port())
    yield server
    server.stop()


@pytest.fixture
def responder():
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *words):
            pass

        def do_GET(self):
            answer = self.server.thumbprint and cb.acme.http01(self.server.thumbprint, self.path)
            self.send_response(200 if answer else 404)
            self.end_headers()
            self.wfile.write(answer or b"")

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.thumbprint = None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def account(server, tmp_path, **more):
    return cb.acme.Account(server.url, tmp_path / "state", ca_file=tmp_path / "ca/ca.pem", agree_terms=True, **more)


def test_a_certificate_with_a_responder_of_our_own(server, responder, tmp_path):
    acme = account(server, tmp_path, contacts=["mailto:ops@example.org"])
    server.http_port, responder.thumbprint = responder.server_port, acme.thumbprint
    seen = []
    got = acme.issue([NAME], on_challenge=seen.append, on_challenge_done=seen.append, profile="shortlived")
    assert got.issued and got.file == str(tmp_path / "state" / f"{NAME}.pem") and got.not_before < time.time() < got.renew_at < got.not_after
    assert [(c.type, c.name) for c in seen] == [("http-01", NAME)] * 2 and seen[0].key_auth == f"{seen[0].token}.{acme.thumbprint}"
    cb.Identity(got.file, got.file)  # the file serves at once
    server.window = ("2099-01-01T00:00:00Z", "2099-01-02T00:00:00Z")
    kept = acme.issue([NAME], if_due=True)
    assert not kept.issued and kept.renew_at > 4070908799 and kept.check_at == pytest.approx(time.time() + 21600, abs=60)
    assert acme.register().account == server.base + "/account/1"


def test_what_fails_says_why(server, responder, tmp_path):
    acme = account(server, tmp_path)
    server.http_port = responder.server_port  # which knows no thumbprint
    with pytest.raises(cb.Error, match="the connection was refused") as failed:
        acme.issue([NAME])
    assert failed.value.retry_at > time.time() + 40 and not list((tmp_path / "state").glob("*.pem"))

    def stumble(challenge):
        raise KeyError("mine")
    server.lie = None
    with pytest.raises(KeyError, match="mine"):
        acme.issue([NAME], on_challenge=stumble)
    with pytest.raises(cb.Error, match="dns-01"):
        acme.issue(["*.example.org"])
    with pytest.raises(cb.Error, match="not https"):
        cb.acme.Account("http://localhost/", tmp_path / "other").register()


def test_small_pieces():
    assert cb.acme.http01("a" * 43, "/.well-known/acme-challenge/tok") == b"tok." + b"a" * 43
    assert cb.acme.http01("a" * 43, "/index.html") is None
    with pytest.raises(cb.Error):
        cb.acme.http01("short", "/.well-known/acme-challenge/tok")
    pem = cb.acme.placeholder([NAME, "192.0.2.1"], int(time.time()))
    assert "PRIVATE KEY" in pem and "BEGIN CERTIFICATE" in pem
