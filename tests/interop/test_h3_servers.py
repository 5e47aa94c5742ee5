"""Our clients against HTTP/3 servers of other families than the one below us: nginx and haproxy, each with a QUIC of its own, and caddy,
which is quic-go. Debian 12 has the first two without HTTP/3: a skip by name."""

import getpass
import re

import pytest

from conftest import TOP, compile_c, free_port, peer, program, run
from quicpeers import sha, wait_udp, www  # noqa: F401 (a fixture)

NGINX = """user {user}; worker_processes 1; daemon off; pid {tmp}/nginx.pid; error_log {tmp}/error.log warn;
events {{}}
http {{
    access_log off; client_body_temp_path {tmp}/b; proxy_temp_path {tmp}/p; fastcgi_temp_path {tmp}/f; uwsgi_temp_path {tmp}/u; scgi_temp_path {tmp}/s;
    ssl_certificate {cert}; ssl_certificate_key {key}; quic_retry on;
    server {{ listen 127.0.0.1:{port} quic; root {www}; }}
}}
"""
HAPROXY = """global
    limited-quic
defaults
    mode http
    timeout client 20s
    timeout server 20s
    timeout connect 5s
frontend main
    bind quic4@127.0.0.1:{port} ssl crt {tmp}/both.pem alpn h3
    http-request return status 200 content-type application/octet-stream file {www}/small if {{ path /small }}
    default_backend files
backend files
    server origin 127.0.0.1:{origin}
"""
CADDY = """{{
    admin off
    auto_https disable_redirects
}}
https://localhost:{port}, https://127.0.0.1:{port} {{
    bind 127.0.0.1
    tls {cert} {key}
    root * {www}
    file_server
}}
"""


def nginx(where, spawn):
    said = run(peer("nginx"), "-V").stderr
    if "http_v3_module" not in said:
        pytest.skip(f"{said.splitlines()[0].split(': ')[1]} has no HTTP/3")
    (where["tmp"] / "nginx.conf").write_text(NGINX.format(**where))
    return [peer("nginx"), "-c", where["tmp"] / "nginx.conf", "-e", where["tmp"] / "error.log"]


def haproxy(where, spawn):
    said = run(peer("haproxy"), "-vv").stdout
    if "+QUIC" not in said:
        pytest.skip(f"{said.splitlines()[0].split(' - ')[0]} has no QUIC")
    spawn(program("static_server"), f"127.0.0.1:{where['origin']}", where["www"])
    (where["tmp"] / "both.pem").write_text(where["cert"].read_text() + where["key"].read_text())
    (where["tmp"] / "haproxy.cfg").write_text(HAPROXY.format(**where))
    return [peer("haproxy"), "-db", "-f", where["tmp"] / "haproxy.cfg"]


def caddy(where, spawn):
    (where["tmp"] / "Caddyfile").write_text(CADDY.format(**where))
    return [peer("caddy"), "run", "--config", where["tmp"] / "Caddyfile", "--adapter", "caddyfile"]


@pytest.fixture(params=[nginx, haproxy, caddy], ids=lambda kind: kind.__name__)
def server(request, spawn, pki, www, tmp_path):
    """Starts the server; its port."""
    where = {"port": free_port(), "origin": free_port(), "tmp": tmp_path, "www": www, "cert": pki["cert"], "key": pki["key"], "user": getpass.getuser()}
    command = request.param(where, spawn)
    env = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    spawn(*command, env=env)
    wait_udp(where["port"], 10)
    return where["port"]


def test_files(server, pki, www, tmp_path):
    """Two files, and one that is not there; each on a connection of its own."""
    for path in ("small", "file"):
        done = run(program("http_client"), "-3", "--ca", pki["ca"], "--connect", f"127.0.0.1:{server}", "-o", tmp_path / "got", f"https://localhost:{server}/{path}")
        assert done.returncode == 0, done.stderr
        assert sha(tmp_path / "got") == sha(www / path)
    done = run(program("http_client"), "-3", "--ca", pki["ca"], "--connect", f"127.0.0.1:{server}", f"https://localhost:{server}/none")
    assert done.returncode == 22, done.stderr


def test_many_requests_on_one_connection(server, pki, tmp_path):
    load = compile_c(TOP / "tests/bench/h3load.c", tmp_path)
    done = run(load, "-n", 500, "-c", 1, "-m", 16, "-3", "--ca", pki["ca"], f"https://localhost:{server}/small")
    assert done.returncode == 0 and re.search(r'"failed": ?0\b', done.stdout), done.stdout + done.stderr


def test_resumption(server, pki, tmp_path):
    command = [program("http_client"), "-3", "-v", "--ca", pki["ca"], "--connect", f"127.0.0.1:{server}", "--sessions", tmp_path / "sessions",
               f"https://localhost:{server}/small"]
    for _ in range(2):
        done = run(*command)
        assert done.returncode == 0 and done.stdout == "small\n", done.stderr


def test_keyupdate(server, pki, tmp_path):
    client = compile_c(TOP / "tests/interop/quic_get.c", tmp_path)
    done = run(client, f"127.0.0.1:{server}", pki["ca"], "/file", "key-update")
    assert done.returncode == 0 and int(done.stdout.split()[1]) >= 1, done


def test_connectionmigration(server, pki, tmp_path, request):
    """nginx allows it; the others send disable_active_migration, and our client stays where it is."""
    client = compile_c(TOP / "tests/interop/quic_get.c", tmp_path)
    done = run(client, f"127.0.0.1:{server}", pki["ca"], "/file", "migrate")
    _, moves, _, _, _, refused = (int(word, 16) for word in done.stdout.split())
    assert done.returncode == 0 and ((moves >= 1 and not refused) if "nginx" in request.node.name else (moves == 0 and refused)), done
