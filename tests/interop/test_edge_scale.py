"""cb-edge with much of everything: a gibibyte through each pair of protocols, ten thousand idle connections, readers that do not read."""

import hashlib
import json
import os
import resource
import socket
import ssl
import subprocess
import time

import pytest

from conftest import free_port, peer, program, rss_kib, run, wait_tcp

pytestmark = pytest.mark.alone

GIB = 1 << 30


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """A folder with one file of 1 GiB of bytes that repeat only after a prime number, and its digest."""
    folder = tmp_path_factory.mktemp("big")
    block, digest, left = os.urandom(8_388_593), hashlib.sha256(), GIB
    with open(folder / "gib", "wb") as f:
        while left:
            piece = block[:left]
            f.write(piece)
            digest.update(piece)
            left -= len(piece)
    yield folder, digest.hexdigest()
    (folder / "gib").unlink()


def edge_config(port, pki, origin_url, clear_port=None, **group):
    certificate = {"cert_file": str(pki["cert"]), "key_file": str(pki["key"])}
    listeners = {"tls": {"address": f"127.0.0.1:{port}", "tls": {"certificates": [certificate]}}}
    if clear_port:
        listeners["clear"] = {"address": f"127.0.0.1:{clear_port}"}
    return {"workers": 2, "listeners": listeners, "groups": {"o": {"origins": [{"url": origin_url}], **group}}, "routes": [{"group": "o"}],
            "limits": {"idle_timeout_ms": 600000, "send_timeout_ms": 600000}}


def start_edge(spawn, tmp_path, config):
    path = tmp_path / "edge.json"
    path.write_text(json.dumps(config))
    return spawn(program("cb-edge"), "--config", path, name="cb-edge").wait_for("ready with")


def sha256_of(command):
    """The digest of what a command prints, streamed, and its exit code."""
    digest = hashlib.sha256()
    with subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while piece := process.stdout.read(1 << 20):
            digest.update(piece)
        errors = process.stderr.read().decode(errors="replace")
    return digest.hexdigest(), process.returncode, errors


@pytest.mark.parametrize("origin_version", ["h1", "h2"])
@pytest.mark.parametrize("version", ["1", "2", "3"])
def test_a_gibibyte(spawn, pki, tmp_path, big, version, origin_version):
    """Client (h1, h2, h3) -> cb-edge -> nginx (h1 clear, h2 over TLS): every byte arrives, and memory stays small."""
    folder, expected = big
    origin_port, port = free_port(), free_port()
    conf = tmp_path / "nginx.conf"
    h2 = origin_version == "h2"
    tls = f"ssl_certificate {pki['cert']}; ssl_certificate_key {pki['key']}; ssl_protocols TLSv1.3;" if h2 else ""
    conf.write_text(f"""daemon off; worker_processes 1; pid {tmp_path}/nginx.pid; error_log {tmp_path}/nginx.err;
{'user root;' if os.geteuid() == 0 else ''}
events {{}} http {{ access_log off; server {{ listen 127.0.0.1:{origin_port}{' ssl http2' if h2 else ''}; {tls} root {folder}; }} }}""")
    spawn(peer("nginx"), "-c", conf)
    wait_tcp(origin_port)
    group = {"versions": ["h2"], "ca_file": str(pki["ca"])} if h2 else {}
    origin = f"https://localhost:{origin_port}" if h2 else f"http://127.0.0.1:{origin_port}"
    edge = start_edge(spawn, tmp_path, edge_config(port, pki, origin, **group))
    before = rss_kib(edge.pid)
    got, code, errors = sha256_of([program("http_client"), f"-{version}", "--ca", pki["ca"], f"https://localhost:{port}/gib"])
    assert code == 0, errors + edge.output()
    assert got == expected
    grown = rss_kib(edge.pid) - before
    assert grown < 32 * 1024, f"{grown} KiB more after a download: it was not streamed"


def raise_descriptor_limit(wanted):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} descriptors, the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def test_ten_thousand_idle_connections(spawn, pki, tmp_path, record_property):
    """9,000 clear and 1,000 TLS connections that have asked once are held; then each of some still answers."""
    raise_descriptor_limit(11_000)
    origin_port, port, clear_port = free_port(), free_port(), free_port()
    www = tmp_path / "www"
    www.mkdir()
    (www / "small").write_bytes(b"small\n")
    spawn(program("static_server"), f"127.0.0.1:{origin_port}", www)
    wait_tcp(origin_port)
    edge = start_edge(spawn, tmp_path, edge_config(port, pki, f"http://127.0.0.1:{origin_port}", clear_port))
    context = ssl.create_default_context(cafile=pki["ca"])
    request = b"GET /small HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def ask(s):
        s.sendall(request)
        data = b""
        while not data.endswith(b"\r\n\r\nsmall\n"):
            more = s.recv(4096)
            assert more, f"closed after {data!r}"
            data += more
        assert data.startswith(b"HTTP/1.1 200"), data

    def connect(secure):
        s = socket.create_connection(("127.0.0.1", port if secure else clear_port), timeout=20)
        if secure:
            s = context.wrap_socket(s, server_hostname="localhost")
        ask(s)
        return s

    held = []
    try:
        before = rss_kib(edge.pid)
        held.extend(connect(False) for _ in range(9000))
        clear = rss_kib(edge.pid)
        held.extend(connect(True) for _ in range(1000))
        secure = rss_kib(edge.pid)
        for s in held[::100]:
            ask(s)
        assert edge.alive()
    finally:
        for s in held:
            s.close()
    per_clear, per_tls = (clear - before) / 9000, (secure - clear) / 1000
    print(f"KiB of PSS for an idle connection: clear {per_clear:.1f}, TLS {per_tls:.1f}")
    record_property("idle_clear_kib", per_clear)
    record_property("idle_tls_kib", per_tls)
    assert per_clear < 16 and per_tls < 64


@pytest.mark.parametrize("version", ["h1", "h2"])
def test_slow_readers_bound_memory(spawn, pki, tmp_path, version, big, record_property):
    """50 clients ask for a gibibyte and do not read it: what cb-edge holds for each is bounded, and others are served."""
    folder, _ = big
    origin_port, port = free_port(), free_port()
    spawn(program("static_server"), f"127.0.0.1:{origin_port}", folder)
    wait_tcp(origin_port)
    edge = start_edge(spawn, tmp_path, edge_config(port, pki, f"http://127.0.0.1:{origin_port}"))
    context = ssl.create_default_context(cafile=pki["ca"])
    context.set_alpn_protocols(["h2" if version == "h2" else "http/1.1"])
    if version == "h2":  # preface; SETTINGS with a window of 16 MiB; HEADERS of GET https localhost /gib
        head = b"\x82\x87\x04\x04/gib\x01\x09localhost"
        ask = (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\6\4\0\0\0\0\0\0\4\1\0\0\0" + b"\0\0\4\x08\0\0\0\0\0\1\0\0\0" + len(head).to_bytes(3, "big")
               + b"\1\5\0\0\0\1" + head)
    else:
        ask = b"GET /gib HTTP/1.1\r\nHost: localhost\r\n\r\n"
    before, held = rss_kib(edge.pid), []
    try:
        for _ in range(50):
            raw = socket.socket()
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            raw.connect(("127.0.0.1", port))
            s = context.wrap_socket(raw, server_hostname="localhost")
            s.sendall(ask)
            held.append(s)
        time.sleep(1.5)
        each = (rss_kib(edge.pid) - before) / 50
        got = run(program("http_client"), "-2", "--ca", pki["ca"], f"https://localhost:{port}/none", "-v")
        assert "404" in got.stderr
    finally:
        for s in held:
            s.close()
    print(f"KiB of PSS for a stalled {version} download: {each:.0f}")
    record_property("stalled_kib", each)
    assert each < 1024


def test_many_unread_streams_of_one_connection_share_a_bound(spawn, pki, tmp_path, big, record_property):
    """One HTTP/2 client opens 100 downloads, grants large windows, and reads nothing: the connection as a whole is bounded."""
    folder, _ = big
    origin_port, port = free_port(), free_port()
    spawn(program("static_server"), f"127.0.0.1:{origin_port}", folder)
    wait_tcp(origin_port)
    edge = start_edge(spawn, tmp_path, edge_config(port, pki, f"http://127.0.0.1:{origin_port}"))
    context = ssl.create_default_context(cafile=pki["ca"])
    context.set_alpn_protocols(["h2"])
    head = b"\x82\x87\x04\x04/gib\x01\x09localhost"
    ask = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\6\4\0\0\0\0\0\0\4\1\0\0\0" + b"\0\0\4\x08\0\0\0\0\0\x40\0\0\0"
    ask += b"".join(len(head).to_bytes(3, "big") + b"\1\5" + (2 * i + 1).to_bytes(4, "big") + head for i in range(100))
    before = rss_kib(edge.pid)
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    raw.connect(("127.0.0.1", port))
    with context.wrap_socket(raw, server_hostname="localhost") as s:
        s.sendall(ask)
        time.sleep(2)
        grown = rss_kib(edge.pid) - before
        got = run(program("http_client"), "-2", "--ca", pki["ca"], f"https://localhost:{port}/none", "-v")
        assert "404" in got.stderr
    print(f"KiB of PSS for 100 unread streams of one connection: {grown}")
    record_property("unread_streams_kib", grown)
    assert grown < 24 * 1024
