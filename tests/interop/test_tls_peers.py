"""TLS on the channel against OpenSSL, GnuTLS and Python: versions, ALPN, resumption across processes, client certificates."""

import re
import shlex
import signal
import socket
import ssl
import subprocess
import time

import pytest
from conftest import BUILD, TOP, peer, program, run

LIBRARIES = "gnutls libuv libcares libnghttp2 libcjson libngtcp2 libngtcp2_crypto_gnutls libnghttp3 libllhttp"


@pytest.fixture(scope="module")
def tls_echo(tmp_path_factory):
    """The echo server, built from internal headers and the static library of this build."""
    archive = next(iter(BUILD.glob("**/libcb_internal.a")), None)
    assert archive, f"no libcb_internal.a in {BUILD}"
    libs = []
    for name in LIBRARIES.split():
        found = subprocess.run(["pkg-config", "--libs", name], capture_output=True, text=True)
        libs += shlex.split(found.stdout) if found.returncode == 0 else []
    out = tmp_path_factory.mktemp("tls_echo") / "tls_echo"
    cache = (BUILD / "CMakeCache.txt").read_text()
    sanitize = re.search(r"^CB_SANITIZE:STRING=(.+)$", cache, re.M)
    flags = ["-fsanitize=" + sanitize[1]] if sanitize else []
    command = ["cc", "-std=c11", "-D_GNU_SOURCE", "-O1", "-g", *flags, f"-I{TOP}/include", f"-I{TOP}/libcb",
               str(TOP / "tests/interop/tls_echo.c"), str(archive), *libs, "-lpthread", "-lm", "-o", str(out)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return out


@pytest.fixture
def server(tls_echo, pki, spawn):
    def start(*options):
        process = spawn(tls_echo, pki["cert"], pki["key"], *options).wait_for("port ")
        process.port = int(re.search(r"port (\d+)", process.output())[1])
        return process

    return start


def s_client(port, pki, *options):
    """Connects, says "ping", and ends when that came back (tickets come before it) or the connection failed."""
    command = [peer("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", pki["ca"], "-servername", "localhost",
               "-verify_hostname", "localhost", "-verify_return_error", *options]
    client = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out = b""
    try:
        client.stdin.write(b"ping\n")
        client.stdin.flush()
        while b"\nping\n" not in out:
            got = client.stdout.read1(65536)
            if not got:
                break
            out += got
        rest, err = client.communicate(b"Q\n", timeout=30)
    except BrokenPipeError:
        rest, err = client.communicate(timeout=30)
    finally:
        if client.poll() is None:
            client.kill()
    return subprocess.CompletedProcess(command, client.returncode, (out + rest).decode(errors="replace"), err.decode(errors="replace"))


@pytest.mark.parametrize("options, version", [((), "TLSv1.3"), (("12",), "TLSv1.3"), (("12", "-"), "TLSv1.2")])
def test_openssl_client(server, pki, options, version):
    s = server(*options)
    got = s_client(s.port, pki, "-alpn", "http/1.1", *(["-tls1_2"] if version == "TLSv1.2" else []))
    assert version in got.stdout and "Verify return code: 0 (ok)" in got.stdout, got.stdout + got.stderr
    assert "ALPN protocol: http/1.1" in got.stdout
    s.wait_for("open http/1.1 full")


def test_tls12_is_refused_unless_enabled(server, pki):
    s = server()
    got = s_client(s.port, pki, "-tls1_2")
    assert got.returncode != 0 and "protocol version" in got.stderr, got.stderr
    s.wait_for("does not speak TLS 1.3")


def test_alpn_without_overlap(server, pki):
    s = server()
    context = ssl.create_default_context(cafile=str(pki["ca"]))
    context.set_alpn_protocols(["smtp"])
    with socket.create_connection(("127.0.0.1", s.port)) as raw, pytest.raises(ssl.SSLError, match="(?i)no.application.protocol"):
        context.wrap_socket(raw, server_hostname="localhost")
    s.wait_for("no protocol that is spoken here")


@pytest.mark.parametrize("version", ["-tls1_3", "-tls1_2"])
def test_resumption_in_another_process_and_after_turns_of_the_ring(server, pki, tmp_path, version):
    ring, session = tmp_path / "ring", tmp_path / "session"
    first, second = server("12", f"tickets={ring}"), server("12", f"tickets={ring}")
    s_client(first.port, pki, version, "-sess_out", session)
    assert session.stat().st_size > 0
    for turns, words in ((0, "resumed"), (1, "resumed"), (2, "full")):
        if turns:  # the third key pushes the first one out
            for _ in range(turns):
                count = second.output().count("reload 0")
                second.send(signal.SIGHUP)
                wait_count(second, "reload 0", count + 1)
        before = opens(second)
        s_client(second.port, pki, version, "-sess_in", session)
        wait_count(second, "open ", len(before) + 1)
        assert opens(second)[-1].endswith(words), second.output()


def opens(process):
    return [line for line in process.output().splitlines() if line.startswith("open ")]


def wait_count(process, text, n):
    end = time.monotonic() + 30
    while process.output().count(text) < n:
        assert time.monotonic() < end, process.output()
        time.sleep(0.01)


def test_gnutls_client_resumes(server, pki, tmp_path):
    s = server(f"tickets={tmp_path / 'ring'}")
    got = run(peer("gnutls-cli"), "--x509cafile", pki["ca"], "--resume", "--alpn", "h2", "-p", s.port, "localhost", stdin=None, input="x\n")
    assert "This is a resumed session" in got.stdout, got.stdout + got.stderr
    s.wait_for("open h2 resumed")


def test_client_certificates(server, pki):
    s = server(f"ca={pki['ca']}")
    made = run(program("cbctl"), "ca", "dev", "--dir", pki["dir"], "a-client")
    assert made.returncode == 0, made.stderr
    good = s_client(s.port, pki, "-cert", pki["dir"] / "a-client.pem", "-key", pki["dir"] / "a-client-key.pem")
    assert "Verify return code: 0" in good.stdout
    s.wait_for("open ")
    s_client(s.port, pki)
    s.wait_for("showed no certificate")


def test_a_megabyte_comes_back(server, pki):
    s = server()
    data = bytes(range(256)) * 4096
    context = ssl.create_default_context(cafile=str(pki["ca"]))
    with socket.create_connection(("127.0.0.1", s.port)) as raw, context.wrap_socket(raw, server_hostname="127.0.0.1") as tls:
        got = b""
        for at in range(0, len(data), 65536):
            tls.sendall(data[at:at + 65536])
            while len(got) < at + 65536:
                got += tls.recv(65536)
        assert got == data
        tls.unwrap()
    s.wait_for("close 0")
