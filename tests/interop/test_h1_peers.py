"""HTTP/1.1 beside independent peers: curl, Python's http.client and plain sockets as clients; nginx and plain sockets as servers."""

import hashlib
import http.client
import os
import socket
import threading
import time

import pytest
from conftest import free_port, peer, program, run, wait_tcp


@pytest.fixture
def origin(spawn):
    p = spawn(program("origin_demo"), "127.0.0.1:0").wait_for("origin on ")
    return int(p.output().split("origin on ")[1].split()[0].rsplit(":", 1)[1])


def talk(port, data, seconds=5, half_close=False):
    """Everything the server says until it closes (or stays silent for a moment)."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as s:
        s.sendall(data)
        if half_close:
            s.shutdown(socket.SHUT_WR)
        got = b""
        s.settimeout(1)
        try:
            while part := s.recv(65536):
                got += part
        except TimeoutError:
            return got, False
        return got, True


def test_curl(origin, tmp_path):
    curl, base = peer("curl"), f"http://127.0.0.1:{origin}"
    big = tmp_path / "big"
    big.write_bytes(os.urandom(5_000_000))
    want = hashlib.sha256(big.read_bytes()).hexdigest()
    assert "It works" in run(curl, "-sf", base + "/").stdout
    assert run(curl, "-sI", base + "/").stdout.startswith("HTTP/1.1 200 OK")
    for name, extra in {
        "length": [],
        "chunked": ["-H", "Transfer-Encoding: chunked"],
        "expect": ["-H", "Expect: 100-continue"],
        "old": ["-0"],
    }.items():
        out = tmp_path / name
        run(curl, "-sf", "-X", "POST", "--data-binary", f"@{big}", *extra, "-o", out, base + "/echo")
        assert hashlib.sha256(out.read_bytes()).hexdigest() == want, name
    two = run(curl, "-sv", base + "/", base + "/headers", "-o", "/dev/null")
    assert two.stderr.count("Connected to") == 1
    assert run(curl, "-s", "-o", "/dev/null", "-w", "%{http_code}", base + "/fail").stdout == "500"
    drop = run(curl, "-s", "-o", "/dev/null", base + "/drop", check=False)
    assert drop.returncode in (18, 56), drop.returncode


def test_python_client_keeps_one_connection(origin):
    c = http.client.HTTPConnection("127.0.0.1", origin, timeout=10)
    c.connect()
    here = c.sock.getsockname()
    for i in range(50):
        c.request("POST", "/echo", body=b"%d" % i * 1000)
        assert c.getresponse().read() == b"%d" % i * 1000
        assert c.sock.getsockname() == here
    c.request("GET", "/large?3000000")
    assert len(c.getresponse().read()) == 3_000_000
    c.close()


def test_pipelining_answers_in_order(origin):
    asks = b"".join(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % p for p in (b"/slow?50", b"/", b"/nothing", b"/slow?1"))
    got, _ = talk(origin, asks + b"GET /headers HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    at = [got.find(s) for s in (b"slow, and there", b"It works", b"no such path", b"GET /headers")]
    assert -1 not in at and at == sorted(at), at
    assert got.count(b"HTTP/1.1 ") == 5


def test_half_closed_client_gets_its_answer(origin):
    got, closed = talk(origin, b"GET /slow?100 HTTP/1.1\r\nHost: a\r\n\r\n", half_close=True)
    assert b"slow, and there" in got and closed


def test_errors_reach_a_client_that_still_sends(origin):
    got, closed = talk(origin, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 300_000)
    assert got.startswith(b"HTTP/1.1 400 Bad Request") and b"connection: close" in got and closed


def test_slow_reader_gets_all(origin):
    with socket.create_connection(("127.0.0.1", origin), timeout=20) as s:
        s.sendall(b"GET /large?20000000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        time.sleep(0.3)  # until all buffers on the way are full
        got = 0
        while part := s.recv(100_000):
            got += len(part)
            if got < 2_000_000:
                time.sleep(0.005)
        assert 20_000_000 < got < 20_001_000


# ---- our client ----


def ask(*args, **kw):
    return run(program("http_client"), "-1", *args, **kw)


def test_our_client_to_nginx(tmp_path, spawn):
    nginx, port = peer("nginx"), free_port()
    root = tmp_path / "root"
    root.mkdir()
    (root / "page").write_bytes(os.urandom(1_000_000))
    conf = tmp_path / "nginx.conf"
    conf.write_text(
        f"""daemon off; master_process off; pid {tmp_path}/pid; error_log stderr; events {{}}
http {{ access_log off; client_body_temp_path {tmp_path}; proxy_temp_path {tmp_path}; fastcgi_temp_path {tmp_path};
uwsgi_temp_path {tmp_path}; scgi_temp_path {tmp_path};
server {{ listen 127.0.0.1:{port}; root {root}; }} }}"""
    )
    spawn(nginx, "-p", tmp_path, "-c", conf)
    wait_tcp(port)
    out = tmp_path / "out"
    ask("-o", out, f"http://127.0.0.1:{port}/page")
    assert out.read_bytes() == (root / "page").read_bytes()
    assert ask(f"http://127.0.0.1:{port}/none", check=False).returncode == 22


@pytest.fixture
def says():
    """A server that says given bytes to whoever asks, then closes."""
    listeners = []

    def start(data, keep=0.0):
        s = socket.create_server(("127.0.0.1", 0))
        listeners.append(s)

        def serve():
            while True:
                try:
                    c, _ = s.accept()
                except OSError:
                    return
                with c:
                    c.recv(65536)
                    for part in data if isinstance(data, list) else [data]:
                        c.sendall(part)
                        time.sleep(0.02)
                    time.sleep(keep)

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{s.getsockname()[1]}/"

    yield start
    for s in listeners:
        s.close()


@pytest.mark.parametrize(
    "answer,code,text",
    [
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 0, "until the end"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 0, "ok"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Enc", b"oding: chunked\r\n\r\n2\r", b"\nok\r\n0\r\n", b"\r\n"], 0, "ok"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", 1, None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n", 1, None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 1, None),
        (b"nonsense\r\n\r\n", 1, None),
        (b"", 1, None),
    ],
)
def test_our_client_to_odd_servers(says, answer, code, text):
    got = ask(says(answer), check=False)
    assert got.returncode == code, got.stderr
    assert text is None or got.stdout == text
    assert code != 1 or got.stderr.strip()
