"""cbctl acme against Debian's pebble, and against a small server of our own that has what pebble lacks, and that lies."""

import random
import re
import signal
import stat
import subprocess
import time

import pytest
from acme_server import AcmeServer, dns_hook, start_pebble
from conftest import free_port, peer, program, run

CBCTL = lambda: program("cbctl")


def make_ca(tmp_path):
    made = run(CBCTL(), "ca", "dev", "--dir", tmp_path / "ca", "localhost", "127.0.0.1")
    assert made.returncode == 0, made.stderr
    return tmp_path / "ca"


class Client:
    def __init__(self, directory, ca, state, http_port):
        self.state, self.http_port = state, http_port
        self.common = ["--directory", directory, "--ca", str(ca), "--dir", str(state)]
        self.answer = ["--standalone", f"127.0.0.1:{http_port}"]

    def command(self, verb, *words):
        extra = self.answer if verb in ("issue", "renew") and not {"--dns-hook", "--webroot", "--tls-alpn"} & set(words) else []
        terms = [] if verb == "revoke" else ["--agree-terms"]
        return [CBCTL(), "acme", verb, *self.common, *terms, *extra, *map(str, words)]

    def __call__(self, verb, *words):
        return run(*self.command(verb, *words))

    def good(self, verb, *words):
        got = self(verb, *words)
        assert got.returncode == 0, got.stderr + got.stdout
        return got.stdout


@pytest.fixture
def pebble(tmp_path, spawn):
    """A function that starts pebble with an environment and gives a Client of it."""
    def start(reject=0, strict=False, **settings):
        ca = make_ca(tmp_path)
        ports, server = start_pebble(tmp_path, spawn, ca, reject, strict, **settings)
        client = Client(f"https://127.0.0.1:{ports['acme']}/dir", ca / "ca.pem", tmp_path / "state", ports["http"])
        client.dns_admin, client.server, client.tls_port = ports["dns_admin"], server, ports["tls"]
        return client
    return start


def certificate(path, *check):
    """What openssl says about the certificate in a file of key and chain."""
    got = run(peer("openssl"), "x509", "-in", path, "-noout", "-text", *check)
    assert got.returncode == 0, got.stderr
    return got.stdout


def matches(path):
    public = run(peer("openssl"), "pkey", "-in", path, "-pubout").stdout
    return public and public == run(peer("openssl"), "x509", "-in", path, "-noout", "-pubkey").stdout


def test_pebble_issues_for_names_and_addresses_with_each_kind_of_key(pebble):
    acme = pebble(strict=True)
    for kind in ("ecdsa-p256", "ecdsa-p384", "rsa-2048"):
        acme.good("issue", "--key-type", kind, "--contact", "mailto:ops@example.org", "a.example.org", "b.example.org", "127.0.0.1")
        file = acme.state / "a.example.org.pem"
        text = certificate(file)
        assert all(name in text for name in ("DNS:a.example.org", "DNS:b.example.org", "IP Address:127.0.0.1")) and matches(file)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((acme.state / "account.key").stat().st_mode) == 0o600 and stat.S_IMODE(acme.state.stat().st_mode) == 0o700
    assert "kept:" in acme.good("renew", "a.example.org", "b.example.org", "127.0.0.1")
    assert "issued:" in acme.good("renew", "a.example.org")  # other names: another certificate
    assert not list(acme.state.glob("*.order")) and not list(acme.state.glob("*~"))


def test_pebble_that_rejects_a_fifth_of_all_nonces_issues_50_of_50(pebble):
    acme = pebble(reject=20)
    for i in range(50):
        acme.good("issue", f"n{i}.example.org")
    assert len(list(acme.state.glob("n*.pem"))) == 50


def test_pebble_dns_01_with_a_wildcard_and_webroot(pebble, tmp_path):
    acme = pebble()
    hook = dns_hook(tmp_path, acme.dns_admin)
    acme.good("issue", "--dns-hook", hook, "*.example.org")
    assert "DNS:*.example.org" in certificate(acme.state / "_.example.org.pem")
    assert (tmp_path / "hook.log").read_text() == "add example.org\nremove example.org\n"
    webroot = tmp_path / "www"
    webroot.mkdir()
    with subprocess.Popen(["python3", "-m", "http.server", "--bind", "127.0.0.1", "-d", webroot, str(acme.http_port)],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as web:
        try:
            wait_port(acme.http_port)
            acme.good("issue", "--webroot", webroot, "w.example.org")
        finally:
            web.terminate()
    assert not [p for p in webroot.rglob("*") if p.is_file()]
    failed = acme("issue", "--dns-hook", "/bin/false", "x.example.org")
    assert failed.returncode == 1 and "/bin/false add x.example.org" in failed.stderr


def test_pebble_tls_alpn_01_for_names_and_addresses(pebble):
    acme = pebble(reject=20)
    names = ("t.example.org", "u.example.org", "127.0.0.1")
    acme.good("issue", "--tls-alpn", f"127.0.0.1:{acme.tls_port}", *names)
    file = acme.state / "t.example.org.pem"
    text = certificate(file)
    assert all(name in text for name in ("DNS:t.example.org", "DNS:u.example.org", "IP Address:127.0.0.1")) and matches(file)
    refused = acme("issue", "--tls-alpn", f"127.0.0.1:{free_port()}", "v.example.org")  # the server does not find us there
    assert refused.returncode == 1 and "v.example.org is invalid" in refused.stderr


def wait_port(port):
    import socket
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    pytest.fail(f"nothing listens on {port}")


def test_pebble_account_is_bound_changed_rolled_and_ended(pebble, tmp_path):
    acme = pebble(externalAccountBindingRequired=True,
                  externalAccountMACKeys={"kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"})
    assert "external account binding" in acme("account").stderr
    (tmp_path / "eab").write_text("zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W\n")
    binding = ("--eab-kid", "kid-1", "--eab-key-file", tmp_path / "eab")
    first = acme.good("account", *binding)
    assert acme.good("account", *binding) == first
    acme.good("account", "--set-contacts", "--contact", "mailto:new@example.org")
    rolled = acme.good("account", "--roll-key")
    assert account(rolled) == account(first) and rolled != first
    acme.good("issue", "r.example.org")
    assert "revoked:" in acme.good("revoke", "--reason", "4", "r.example.org")
    again = acme("revoke", "r.example.org")
    assert again.returncode == 1 and "alreadyRevoked" in again.stderr
    acme.good("account", "--deactivate")
    ended = acme("issue", "r.example.org")
    assert ended.returncode == 1 and "ACME: " in ended.stderr


def account(text):
    return re.search(r"account: +(\S+)", text)[1]


def test_killed_at_any_point_it_finishes_the_next_time(pebble):
    acme = pebble(reject=20)
    dice = random.Random(8555)
    start = time.monotonic()
    acme.good("issue", "k.example.org")
    whole = time.monotonic() - start
    killed = 0
    for i in range(20):
        name = f"k{i}.example.org"
        with subprocess.Popen(acme.command("issue", name), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as job:
            time.sleep(dice.uniform(0, whole))
            killed += job.poll() is None
            job.send_signal(signal.SIGKILL)
        left = acme.state / f"{name}.pem"
        assert not left.exists() or matches(left)  # whole or not there
        acme.good("issue", name)
        assert matches(left) and f"DNS:{name}" in certificate(left)
    assert killed >= 5  # that they were killed under way
    assert not list(acme.state.glob("*.order"))


# --- what pebble 2.4 lacks, and what no honest server does ---


@pytest.fixture
def simulated(tmp_path):
    servers = []

    def start(lie=None):
        ca = make_ca(tmp_path)
        port = free_port()
        server = AcmeServer(ca, port, lie)
        servers.append(server)
        client = Client(server.url, ca / "ca.pem", tmp_path / "state", free_port())
        client.server = server
        return client
    yield start
    for server in servers:
        server.stop()


def test_profiles_and_renewal_information(simulated):
    acme = simulated()
    acme.good("issue", "--profile", "shortlived", "p.example.org")
    assert acme.server.orders[-1]["profile"] == "shortlived" and "replaces" not in acme.server.orders[-1]
    refused = acme("issue", "--profile", "nonsense", "p.example.org")
    assert refused.returncode == 1 and 'no profile "nonsense"' in refused.stderr
    acme.server.window = ("2099-01-01T00:00:00Z", "2099-01-02T00:00:00Z")
    assert "2099-01-01T" in acme.good("renew", "p.example.org") and len(acme.server.orders) == 1
    acme.server.window = ("2020-01-01T00:00:00Z", "2020-01-02T00:00:00+01:00")  # the server wants it replaced at once
    assert "issued:" in acme.good("renew", "p.example.org")
    assert acme.server.orders[-1]["replaces"] == acme.server.asked[-1] and acme.server.asked[-1].count(".") == 1
    acme.server.window = None  # no answer: by the lifetime
    kept = acme.good("renew", "p.example.org")
    assert "kept:" in kept and len(acme.server.orders) == 2
    at = lambda name: time.mktime(time.strptime(re.search(name + r": +(\S+)", kept)[1], "%Y-%m-%dT%H:%M:%SZ"))
    assert at("expires") - at("renew-at") == pytest.approx(3 * 86400, abs=7200)  # half of six days


def test_a_rate_limit_is_told_with_its_end(simulated):
    acme = simulated("rate-limit")
    got = acme("issue", "h.example.org")
    assert got.returncode == 1 and "rateLimited: too many" in got.stderr and "retry-at:" in got.stdout


@pytest.mark.parametrize("lie, says", [
    ("nested", "nested too deep"), ("huge", "more than 131072 bytes"), ("truncated", "without its closing quote"), ("not-json", "a value is missing"),
    ("list", "not an object"), ("twice", '"newNonce" is there twice'),
    ("wrong-type", "content type"), ("redirect", "redirects are not followed"), ("other-host", "leads to another host"),
    ("http-url", "not https"), ("odd-token", "token"), ("other-name", "not asked for"), ("nonce-flood", "nonces in a row"), ("no-nonce", "Replay-Nonce"),
    ("pending", "not done within 3 s"), ("late", "not done within 3 s"), ("other-key", "another key"), ("other-names", "not for h.example.org"),
    ("more-names", "not asked for"), ("bad-chain", "not signed by the next"), ("no-chain", "not PEM"), ("invalid", "the connection was refused"),
    ("no-account-url", "Location"), ("many-authz", "authorizations"), ("terminal", "?[31m"), ("server-error", "503"),
])
def test_a_server_that_lies_is_refused_and_told(simulated, lie, says):
    acme = simulated(lie)
    got = acme("issue", "--patience-s", "3" if lie in ("pending", "late", "server-error") else "60", "h.example.org")
    assert got.returncode == 1 and says in got.stderr, got
    assert not list(acme.state.glob("*.pem")) and acme.server.requests < 90
    acme.server.lie = None
    acme.good("issue", "h.example.org")  # nothing stays broken


@pytest.mark.parametrize("words, says", [
    (["issue"], "--directory"), (["issue", "--directory", "https://x/"], "NAME"), (["issue", "--directory", "https://x/", "a.example"], "--standalone"),
    (["issue", "--directory", "http://x/", "--webroot", "/tmp", "a.example"], "not https"), (["revoke", "--directory", "https://x/"], "NAME"),
    (["issue", "--directory", "https://x/", "--webroot", "/tmp", "*.a.example"], "dns-01"), (["account", "--directory", "https://x/", "--webroot", "x"], "--webroot"),
    (["account", "--directory", "https://x/", "--contact", "nobody"], "mailto:"), (["renew", "--reason", "1"], "--reason"),
])
def test_mistakes(tmp_path, words, says):
    got = run(CBCTL(), "acme", *words, cwd=tmp_path)
    assert got.returncode == 2 and says in got.stderr and got.stderr.startswith("cbctl: "), got
