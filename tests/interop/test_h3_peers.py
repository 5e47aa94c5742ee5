"""QUIC and HTTP/3 against independent programs: gtlsclient and gtlsserver (ngtcp2's own), libcurl, on loopback.

The server is cb-edge before an origin of our own, so that what is proved is what an operator runs.
"""

import os
import re
import signal
import socket
import subprocess
import time

import pytest

from conftest import TOP, free_port, peer, program, run
from quicpeers import SIZE, edge, gtlsclient, gtlsserver, sha, wait_udp, www  # noqa: F401 (fixtures)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([], id="plain"),
        pytest.param(["--key-update=20ms"], id="key-update"),
        pytest.param(["--change-local-addr=20ms"], id="migration"),
        # The request leaves from the new address: gtlsclient drops what still comes to the old one, and would have nothing to send.
        pytest.param(["--change-local-addr=20ms", "--nat-rebinding", "--delay-stream=60ms"], id="nat-rebinding"),
        pytest.param(["-t", "0.03", "-r", "0.03"], id="loss-both-ways"),
        pytest.param(["--ciphers=NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+CHACHA20-POLY1305"], id="chacha20"),
        pytest.param(["--ciphers=NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-256-GCM", "--key-update=20ms"], id="aes256"),
        pytest.param(["--max-udp-payload-size=1200", "--no-pmtud"], id="small-packets"),
        pytest.param(["--delay-stream=50ms", "--dcid=000102030405060708090a0b0c0d0e0f1011"], id="long-first-dcid"),
    ],
)
def test_gtlsclient(edge, tmp_path, www, options):
    process, port = edge()
    got, _ = gtlsclient(port, tmp_path, *options)
    assert sha(got) == sha(www / "file")
    assert process.alive()


@pytest.mark.parametrize("aead", ["gnutls", "ipsec-mb"])
def test_both_packet_protections(edge, gtlsserver, pki, tmp_path, www, monkeypatch, aead):
    """What CBR_AEAD names, as a server and as a client of ngtcp2's own programs, which use GnuTLS."""
    monkeypatch.setenv("CBR_AEAD", aead)
    if "packet protection by libipsec-mb" in run(program("http_client"), "-3", "https://localhost:1/").stderr:
        pytest.skip("libipsec-mb is not built in")
    _, port = edge()
    got, _ = gtlsclient(port, tmp_path, "--key-update=20ms")
    assert sha(got) == sha(www / "file")
    done = run(program("http_client"), "-3", "--ca", pki["ca"], "-o", tmp_path / "mine", f"https://localhost:{gtlsserver()}/file")
    assert done.returncode == 0, done.stderr
    assert sha(tmp_path / "mine") == sha(www / "file")


def test_version_negotiation(edge):
    """An unknown version is answered with the list of ours (gtlsclient shows the packet and ends there)."""
    _, port = edge()
    done = run(peer("gtlsclient"), "-v", "0x1a2a3a4a", "--no-quic-dump", "--timeout=5s", "127.0.0.1", port, f"https://localhost:{port}/small")
    log = done.stdout + done.stderr
    assert "VN v=0x00000001" in log and "VN v=0x6b3343cf" in log, log[-2000:]


def test_version_2(edge, tmp_path, www):
    """QUIC v2 (RFC 9369) chosen by compatible version negotiation (RFC 9368)."""
    _, port = edge()
    got, log = gtlsclient(port, tmp_path, "--preferred-versions=0x6b3343cf,0x1", "--available-versions=0x6b3343cf,0x1", log=True)
    assert sha(got) == sha(www / "file")
    assert "6b3343cf" in log, "the connection stayed on version 1"


def test_many_streams_of_one_connection(edge, tmp_path):
    _, port = edge()
    done = run(peer("gtlsclient"), "-q", "--exit-on-all-streams-close", "-n", 300, "--timeout=20s", "127.0.0.1", port,
               f"https://localhost:{port}/small")
    assert done.returncode == 0, done.stderr[-2000:]


def test_resumption_and_early_data(edge, tmp_path, www):
    _, port = edge(tls={"early_data": True})
    state = [f"--session-file={tmp_path}/session", f"--tp-file={tmp_path}/tp"]
    gtlsclient(port, tmp_path, *state, "--wait-for-ticket", path="small")
    assert (tmp_path / "session").stat().st_size > 0
    got, log = gtlsclient(port, tmp_path, *state, path="small", log=True)
    assert got.read_bytes() == b"small\n"
    assert re.search(r"type=0RTT|0RTT", log), "no early data was sent"
    assert "Early data was rejected" not in log


def test_early_data_is_off_by_default(edge, tmp_path):
    _, port = edge()
    state = [f"--session-file={tmp_path}/session", f"--tp-file={tmp_path}/tp"]
    gtlsclient(port, tmp_path, *state, "--wait-for-ticket", path="small")
    got, log = gtlsclient(port, tmp_path, *state, path="small", log=True)
    assert got.read_bytes() == b"small\n"
    assert "type=0RTT" not in log or "rejected" in log


def test_new_token_saves_nothing_from_strangers(edge, tmp_path):
    """A NEW_TOKEN token is taken back on the next connection; a broken one does no harm."""
    _, port = edge()
    token = tmp_path / "token"
    gtlsclient(port, tmp_path, f"--token-file={token}", path="small")
    assert token.exists() and token.stat().st_size > 0, "no NEW_TOKEN came"
    gtlsclient(port, tmp_path, f"--token-file={token}", path="small")


def test_post_is_taken(edge, tmp_path, www):
    """A request body over HTTP/3; the static origin answers POST with 405, and the connection lives on."""
    _, port = edge()
    done = run(peer("gtlsclient"), "-m", "POST", "-d", www / "file", "--no-quic-dump", "--exit-on-all-streams-close", "--timeout=20s", "127.0.0.1", port,
               f"https://localhost:{port}/file", timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "[:status: 405]" in done.stderr + done.stdout, (done.stdout + done.stderr)[-2000:]


# ---- libcurl ----


@pytest.fixture(scope="module")
def curl_h3(tmp_path_factory):
    env = {**os.environ, "PKG_CONFIG_PATH": f"{TOP}/out/peers/lib/pkgconfig:" + os.environ.get("PKG_CONFIG_PATH", "")}
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "libcurl"], capture_output=True, text=True, env=env)
    if flags.returncode != 0:
        pytest.skip("libcurl's development files are not installed")
    out = tmp_path_factory.mktemp("curl") / "curl_h3"
    subprocess.run(["cc", "-o", out, TOP / "tests/interop/curl_h3.c", *flags.stdout.split()], check=True)
    if run(out).returncode == 77:
        pytest.skip("this libcurl has no HTTP/3")
    return out


def test_libcurl(edge, pki, curl_h3):
    _, port = edge()
    urls = [f"https://localhost:{port}/{name}" for name in ("small", "file", "none")]
    done = run(curl_h3, pki["ca"], *urls)
    assert done.returncode == 0, done.stderr
    first, second, third = (line.split() for line in done.stdout.splitlines())
    assert first == ["200", "HTTP/3", "6", "1"]
    assert second == ["200", "HTTP/3", str(SIZE), "0"], "the connection was not reused"
    assert third[:2] == ["404", "HTTP/3"] and third[3] == "0"


def test_libcurl_uploads(edge, pki, curl_h3):
    _, port = edge()
    done = run(curl_h3, pki["ca"], "-u", 5_000_000, f"https://localhost:{port}/small")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:2] == ["405", "HTTP/3"]


def test_libcurl_refuses_a_stranger(edge, pki, curl_h3, tmp_path):
    _, port = edge()
    run(program("cbctl"), "ca", "dev", "--dir", tmp_path / "other", "localhost")
    done = run(curl_h3, tmp_path / "other" / "ca.pem", f"https://localhost:{port}/small")
    assert done.returncode == 1


# ---- our client against gtlsserver ----


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([], id="plain"),
        pytest.param(["-V"], id="retry"),
        pytest.param(["-t", "0.03", "-r", "0.03"], id="loss-both-ways"),
        pytest.param(["--preferred-versions=0x6b3343cf"], id="prefers-v2"),
        pytest.param(["--available-versions=0x6b3343cf"], id="only-v2-besides-the-first"),
        pytest.param(["--send-trailers"], id="trailers"),
        pytest.param(["--max-udp-payload-size=1200", "--no-pmtud"], id="small-packets"),
        pytest.param(["--max-data=65536", "--max-stream-data-bidi-remote=32768", "--max-streams-bidi=1"], id="small-windows"),
    ],
)
def test_our_client(gtlsserver, pki, www, tmp_path, options):
    port = gtlsserver(*options)
    done = run(program("http_client"), "-3", "--ca", pki["ca"], "-o", tmp_path / "got", f"https://localhost:{port}/file")
    assert done.returncode == 0, done.stderr
    assert sha(tmp_path / "got") == sha(www / "file")


def test_our_client_wants_the_right_certificate(gtlsserver, pki):
    port = gtlsserver()
    done = run(program("http_client"), "-3", f"https://localhost:{port}/small")
    assert done.returncode != 0 and "certificate" in done.stderr, done.stderr


def test_a_server_that_dies_is_an_error_in_time(spawn, pki, www, gtlsserver, tmp_path):
    """The server is stopped in the middle of a download: the client says so, and ends."""
    port = free_port()
    server = spawn(peer("gtlsserver"), "-q", "--no-quic-dump", "--no-http-dump", "-d", www, "127.0.0.1", port, pki["key"], pki["cert"])
    wait_udp(port)
    server.stop(signal.SIGKILL)
    begun = time.monotonic()
    done = run(program("http_client"), "-3", f"https://127.0.0.1:{port}/small", "--ca", pki["ca"], timeout=30)
    assert done.returncode != 0 and done.stderr
    assert time.monotonic() - begun < 20


# ---- what is not QUIC ----


def test_noise_is_ignored(edge, pki, tmp_path, www):
    """Random datagrams, truncated copies of a real Initial, and other protocols: silence or a reset, and others are served."""
    process, port = edge()
    noise = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for n in (0, 1, 7, 20, 21, 40, 1199, 1200, 1472):
        noise.sendto(os.urandom(n), ("127.0.0.1", port))
    for first in range(256):
        noise.sendto(bytes([first]) + b"\0\0\0\1" + os.urandom(60), ("127.0.0.1", port))
    noise.sendto(b"GET / HTTP/1.1\r\n\r\n", ("127.0.0.1", port))
    got, _ = gtlsclient(port, tmp_path, path="small")
    assert got.read_bytes() == b"small\n"
    assert process.alive()
