"""The examples, run as a person would: by curl (HTTP/1.1 and /2), gtlsclient (HTTP/3), our own client, and raw sockets."""

import base64
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import time

import pytest

from conftest import free_port, peer, program, run, wait_udp

VERSIONS = {"1": ("1.1", "--http1.1"), "2": ("2", "--http2"), "3": ("3", None)}


def serve(spawn, *command):
    """Starts an example that prints its address; returns the process and the port."""
    process = spawn(*command)
    process.wait_for(" on 127.0.0.1:")
    return process, int(re.search(r"on 127\.0\.0\.1:(\d+)", process.output()).group(1))


@pytest.fixture
def origin(spawn, pki):
    process, port = serve(spawn, program("origin_demo"), "127.0.0.1:0", pki["cert"], pki["key"])
    return {"process": process, "port": port, "url": f"https://localhost:{port}"}


def client(pki, *args, **kw):
    return run(program("http_client"), "--ca", pki["ca"], *args, **kw)


def curl(pki, *args, **kw):
    return run(peer("curl"), "-sS", "--cacert", pki["ca"], *args, **kw)


# ---- http3_server ----

@pytest.fixture
def hello(spawn, pki):
    port = free_port()
    process = spawn(program("http3_server"), f"127.0.0.1:{port}", pki["cert"], pki["key"])
    wait_udp(port)  # it opens that after the one for TCP
    return {"process": process, "port": port, "url": f"https://localhost:{port}/"}


@pytest.mark.parametrize("version", VERSIONS)
def test_hello_to_our_client(hello, pki, version):
    got = client(pki, f"-{version}", "-v", hello["url"])
    assert got.returncode == 0, got.stderr
    assert got.stdout == "hello from the edge\n"
    assert got.stderr.startswith(f"HTTP/{VERSIONS[version][0]} 200\n")


@pytest.mark.parametrize("version", ["1", "2"])
def test_hello_to_curl(hello, pki, version):
    got = curl(pki, VERSIONS[version][1], "-w", "%{http_version}", hello["url"])
    assert got.stdout == "hello from the edge\n" + VERSIONS[version][0], got.stderr


def test_hello_to_gtlsclient(hello):
    got = run(peer("gtlsclient"), "--exit-on-all-streams-close", "127.0.0.1", hello["port"], f"https://localhost:{hello['port']}/")
    text = got.stdout + got.stderr
    assert got.returncode == 0, text
    assert "[:status: 200]" in text and "stream 0x0 body 20 bytes" in text, text[-3000:]


def test_hello_ends_on_sigterm(hello, pki):
    assert client(pki, hello["url"]).returncode == 0
    assert hello["process"].stop(signal.SIGTERM) == 0


def test_hello_says_what_is_wrong(hello, pki, tmp_path):
    port = hello["port"]
    rows = [((f"127.0.0.1:{port}", pki["cert"], pki["key"]), f"127.0.0.1:{port}"),
            (("127.0.0.1:0", tmp_path / "none.pem", pki["key"]), "none.pem"), (("127.0.0.1:0", pki["ca"], pki["key"]), "ca.pem"),
            (("nowhere:1", pki["cert"], pki["key"]), "nowhere")]
    for args, text in rows:
        got = run(program("http3_server"), *args)
        assert got.returncode == 1 and text in got.stderr, (args, got.stderr)
    got = run(program("http3_server"))
    assert got.returncode == 2 and "usage: http3_server LISTEN CERT KEY" in got.stderr, got.stderr


# ---- http_client ----

def test_client_exit_codes(origin, pki):
    rows = [(("/",), 0), (("/fail",), 22), (("/nothing-here",), 22), (("/drop",), 1)]
    for args, code in rows:
        got = client(pki, origin["url"] + args[0])
        assert got.returncode == code, (args, got.stderr)
    assert client(pki, "no-url").returncode == 1
    assert client(pki).returncode == 2
    assert client(pki, "-z", origin["url"]).returncode == 2
    refused = client(pki, f"http://127.0.0.1:{free_port()}/")
    assert refused.returncode == 1 and "CB_EUNREACH" in refused.stderr
    stranger = run(program("http_client"), origin["url"] + "/")
    assert stranger.returncode == 1 and re.search("CB_E(TLS|AUTH)", stranger.stderr), stranger.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_client_posts_and_saves(origin, pki, version, tmp_path):
    got = client(pki, f"-{version}", "-d", "some words", origin["url"] + "/echo")
    assert (got.returncode, got.stdout) == (0, "some words"), got.stderr
    got = client(pki, f"-{version}", "-X", "PUT", "-H", "X-Word: one two", origin["url"] + "/headers")
    assert got.stdout.startswith("PUT /headers") and "x-word: one two\n" in got.stdout, got.stdout
    out = tmp_path / "large"
    got = client(pki, f"-{version}", "-o", out, origin["url"] + "/large?30000000")
    assert got.returncode == 0, got.stderr
    assert out.stat().st_size == 30000000 and set(out.read_bytes()) == {ord("x")}
    assert client(pki, f"-{version}", "-X", "HEAD", "-v", origin["url"] + "/large?500").stdout == ""


# ---- origin_demo ----

@pytest.mark.parametrize("version", ["1", "2"])
def test_origin_paths_to_curl(origin, pki, version, tmp_path):
    flag, url = VERSIONS[version][1], origin["url"]
    assert "<h1>It works</h1>" in curl(pki, flag, url + "/").stdout
    data = os.urandom(5_000_000)
    (tmp_path / "data").write_bytes(data)
    got = curl(pki, flag, "--data-binary", f"@{tmp_path / 'data'}", url + "/echo", binary=True)
    assert hashlib.sha256(got.stdout).digest() == hashlib.sha256(data).digest()
    begun = time.monotonic()
    assert curl(pki, flag, url + "/slow?200").stdout == "slow, and there\n"
    assert time.monotonic() - begun >= 0.2
    assert curl(pki, flag, "-o", "/dev/null", "-w", "%{http_code}", url + "/fail").stdout == "500"
    assert curl(pki, flag, "-o", "/dev/null", url + "/drop").returncode in (18, 92)
    assert ", for localhost" in curl(pki, flag, url + "/headers").stdout


# ---- static_server ----

@pytest.fixture
def files(tmp_path, spawn, pki):
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    (root / "index.html").write_text("<h1>index</h1>")
    (root / "sub" / "index.html").write_text("<h1>sub</h1>")
    (root / "a b.txt").write_text("blank")
    (root / "empty.css").write_text("")
    (root / ".hidden").write_text("secret")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    (root / "sublink").symlink_to(tmp_path)
    (root / "big.bin").write_bytes(os.urandom(20_000_000))
    os.mkfifo(root / "fifo")
    process, port = serve(spawn, program("static_server"), "127.0.0.1:0", pki["cert"], pki["key"], root)
    return {"root": root, "process": process, "port": port, "url": f"https://localhost:{port}"}


STATIC = [("/", 200, "text/html; charset=utf-8", "<h1>index</h1>"), ("/index.html?x=1", 200, "text/html; charset=utf-8", "<h1>index</h1>"),
          ("/sub/", 200, "text/html; charset=utf-8", "<h1>sub</h1>"), ("/a%20b.txt", 200, "text/plain; charset=utf-8", "blank"),
          ("/empty.css", 200, "text/css", ""), ("//index.html", 200, "text/html; charset=utf-8", "<h1>index</h1>"),
          ("/none.txt", 404, None, None), ("/sub", 404, None, None), ("/index.html/x", 404, None, None), ("/fifo", 404, None, None),
          ("/.hidden", 403, None, None), ("/../secret.txt", 403, None, None), ("/sub/../../secret.txt", 403, None, None),
          ("/%2e%2e/secret.txt", 403, None, None), ("/..%2fsecret.txt", 403, None, None), ("/link.txt", 403, None, None),
          ("/sublink/secret.txt", None, None, None), ("/%", 400, None, None), ("/%zz", 400, None, None), ("/a%00b", 400, None, None),
          ("/" + "a" * 3000, 400, None, None)]


@pytest.mark.parametrize("version", ["1", "2"])
def test_static_paths(files, pki, version):
    for path, status, kind, body in STATIC:
        got = curl(pki, VERSIONS[version][1], "--path-as-is", "-w", "\n%{http_code} %{content_type}", files["url"] + path)
        text, _, tail = got.stdout.rpartition("\n")
        assert "secret" not in text, path
        assert status is None or tail.startswith(str(status)), (path, tail)
        if body is not None:
            assert (text, tail) == (body, f"{status} {kind}"), path


@pytest.mark.parametrize("version", VERSIONS)
def test_static_big_file(files, pki, version, tmp_path):
    out = tmp_path / "out"
    got = client(pki, f"-{version}", "-o", out, files["url"] + "/big.bin")
    assert got.returncode == 0, got.stderr
    assert hashlib.sha256(out.read_bytes()).digest() == hashlib.sha256((files["root"] / "big.bin").read_bytes()).digest()


def test_static_methods(files, pki):
    assert curl(pki, "-I", files["url"] + "/big.bin").stdout.lower().count("content-length: 20000000") == 1
    assert curl(pki, "-X", "DELETE", "-o", "/dev/null", "-w", "%{http_code}", files["url"] + "/").stdout == "405"


def test_static_leaves_no_descriptors(files, pki):
    folder = f"/proc/{files['process'].pid}/fd"
    for _ in range(3):
        curl(pki, files["url"] + "/big.bin", "--max-filesize", "1", "-o", "/dev/null")
        curl(pki, files["url"] + "/index.html", "-o", "/dev/null")
    inside = f"{files['root']}/"
    end = time.monotonic() + 30
    while any(os.readlink(f"{folder}/{fd}").startswith(inside) for fd in os.listdir(folder)):
        assert time.monotonic() < end, "files stay open"
        time.sleep(0.05)


def test_static_clear_text_and_slow_reader(spawn, tmp_path):
    """A reader that stops does not make the server's memory grow with the file, and others are served meanwhile."""
    (tmp_path / "big").write_bytes(bytes(50_000_000))
    (tmp_path / "small.txt").write_text("small")
    process, port = serve(spawn, program("static_server"), "127.0.0.1:0", tmp_path)

    def rss():
        return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{process.pid}/status").read()).group(1))

    assert run(peer("curl"), "-sS", f"http://127.0.0.1:{port}/small.txt").stdout == "small"
    before = rss()
    readers = []
    for _ in range(20):
        s = socket.create_connection(("127.0.0.1", port))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
        readers.append(s)
    time.sleep(0.5)
    assert run(peer("curl"), "-sS", f"http://127.0.0.1:{port}/small.txt").stdout == "small"
    grown = rss() - before
    assert grown < 20 * 700, f"{grown} KiB for 20 readers that stopped"
    for s in readers:
        s.close()


# ---- simulations ----

def test_protocol_in_virtual_time():
    """Every message arrives once; a run takes no time, and the same seed gives the same run."""
    first = run(program("sim_protocol"), 50, 7)
    assert first.returncode == 0 and first.stdout.startswith("1000 messages in "), first.stdout + first.stderr
    assert run(program("sim_protocol"), 50, 7).stdout == first.stdout
    other = run(program("sim_protocol"), 50, 8)
    assert other.returncode == 0 and other.stdout != first.stdout
    clean = run(program("sim_protocol"), 0)
    assert clean.returncode == 0 and float(re.search(r"in ([\d.]+) s", clean.stdout)[1]) < 60 < float(re.search(r"in ([\d.]+) s", first.stdout)[1])


def test_download_in_virtual_time(tmp_path):
    made = run(program("cbctl"), "ca", "dev", "--dir", tmp_path, "server")
    assert made.returncode == 0, made.stderr
    files = [tmp_path / "server.pem", tmp_path / "server-key.pem", tmp_path / "ca.pem"]
    for mbit in (5, 20):
        got = run(program("sim_download"), *files, mbit, 40, 1, "cubic", 5)
        assert got.returncode == 0, got.stderr
        goodput, mean = (float(n) for n in re.search(r"goodput ([\d.]+) .*mean ([\d.]+) ms", got.stdout).groups())
        assert mbit * 0.6 < goodput < mbit * 0.97 and 0 < mean < 40, got.stdout
    assert run(program("sim_download")).returncode == 2
    wrong = run(program("sim_download"), *files, 5, 40, -1)
    assert wrong.returncode == 1 and "buffer_bdp" in wrong.stderr
    wrong = run(program("sim_download"), *files, 5, 40, 1, "vegas")
    assert wrong.returncode == 1 and "vegas" in wrong.stderr


def test_lb_embed():
    """What it says adds up: shares by weight, and a death moves nothing but the dead one's."""
    got = run(program("lb_embed"), "somebody")
    assert got.returncode == 0, got.stderr
    before, after, where = got.stdout.splitlines()
    owned = [{int(m): int(n) for m, n in re.findall(r"(\d+) has (\d+)", line)} for line in (before, after)]
    assert all(sum(o.values()) == 65537 for o in owned)
    assert all(abs(n - 65537 * m / 10) < 1 for m, n in owned[0].items()) and set(owned[0]) == {1, 2, 3, 4}
    assert owned[1][2] == 0 and all(owned[1][m] >= owned[0][m] for m in (1, 3, 4))
    assert re.fullmatch("somebody goes to [134]", where)


def test_jwt_check(tmp_path):
    """A token that openssl signed; then with another audience, and with a bit changed."""
    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    key, public = tmp_path / "key.pem", tmp_path / "public.pem"
    assert run(peer("openssl"), "genpkey", "-algorithm", "ED25519", "-out", key).returncode == 0
    assert run(peer("openssl"), "pkey", "-in", key, "-pubout", "-out", public).returncode == 0
    claims = {"iss": "https://issuer.example", "aud": "api", "sub": "joe", "exp": int(time.time()) + 600}
    signed = part(b'{"alg":"EdDSA"}') + "." + part(json.dumps(claims).encode())
    (tmp_path / "signed").write_text(signed)
    assert run(peer("openssl"), "pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", tmp_path / "signed", "-out", tmp_path / "sig").returncode == 0
    token = signed + "." + part((tmp_path / "sig").read_bytes())
    good = run(program("jwt_check"), public, "https://issuer.example", "api", token)
    assert good.returncode == 0 and "subject joe" in good.stdout, good.stderr
    for reason, *words in (("audience", "https://issuer.example", "other", token), ("issuer", "https://evil.example", "api", token),
                           ("base64", "https://issuer.example", "api", token + "=="), ("format", "https://issuer.example", "api", signed)):
        wrong = run(program("jwt_check"), public, *words)
        assert wrong.returncode == 1 and f": {reason}: " in wrong.stderr, wrong.stderr
    assert run(program("jwt_check")).returncode == 2
