"""Checks of real peers, by examples/health_watch: nginx, haproxy and gRPC's own library come, go, hang and say that they are not well."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from conftest import PATIENCE, TOP, free_port, peer, program, run, wait_tcp

PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
HERE = TOP / "tests/interop"


class Watch:
    """health_watch of some endpoints; to(endpoint, "down", "refused") waits for that change and gives its line."""

    def __init__(self, spawn, *endpoints, interval=100, inside=(), options=(), damping=0):
        self.seen = 0
        self.process = spawn(*inside, program("health_watch"), "--interval", interval, "--timeout", 500, "--rise", 1, "--fall", 1, "--damping", damping, *options, *endpoints)

    def to(self, endpoint, state, says="", seconds=PATIENCE):
        """says: what the line has, or some words of which it has one."""
        words = (says,) if isinstance(says, str) else says
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            lines = self.process.output().splitlines()
            for i in range(self.seen, len(lines)):
                if lines[i].startswith(f"{endpoint} {state} ") and any(word in lines[i] for word in words):
                    self.seen = i + 1
                    return lines[i]
            assert self.process.alive(), self.process.output()
            time.sleep(0.01)
        raise AssertionError(f"{endpoint} did not become {state} ({says}):\n{self.process.output()}")


class Nginx:
    def __init__(self, spawn, folder, pki):
        self.spawn, self.folder, self.port, self.tls_port = spawn, folder, free_port(), free_port()
        self.body, self.pki = "well", pki

    def start(self, answer="return 200 well;"):
        conf = self.folder / "nginx.conf"
        conf.write_text(f"""
daemon off; master_process off; pid {self.folder}/nginx.pid; error_log {self.folder}/error.log;
events {{ }}
http {{
  access_log off; client_body_temp_path {self.folder}/a; proxy_temp_path {self.folder}/b; fastcgi_temp_path {self.folder}/c;
  uwsgi_temp_path {self.folder}/d; scgi_temp_path {self.folder}/e;
  server {{
    listen 127.0.0.1:{self.port}; listen 127.0.0.1:{self.tls_port} ssl http2;
    ssl_certificate {self.pki["cert"]}; ssl_certificate_key {self.pki["key"]};
    location /ready {{ default_type text/plain; {answer} }}
  }}
}}""")
        self.process = self.spawn(peer("nginx"), "-p", self.folder, "-c", conf)
        wait_tcp(self.port)
        return self

    def stop(self):
        self.process.stop(signal.SIGTERM)


@pytest.fixture
def nginx(spawn, tmp_path, pki):
    return Nginx(spawn, tmp_path, pki)


def test_nginx_comes_and_goes(nginx, spawn, pki):
    nginx.start()
    plain, tls, h2, tcp = (f"{s}://localhost:{p}/ready" if s != "tcp" else f"tcp://127.0.0.1:{p}" for s, p in
                           (("http", nginx.port), ("https", nginx.tls_port), ("h2c", nginx.port), ("tcp", nginx.port)))
    watch = Watch(spawn, plain, tls, tcp, h2, options=("--ca", pki["ca"]))
    assert "status 200 by HTTP/1.1" in watch.to(plain, "up")
    watch.seen = 0
    assert "status 200 by HTTP/2" in watch.to(tls, "up")
    watch.seen = 0
    watch.to(tcp, "up", "connected to 127.0.0.1")
    watch.seen = 0
    watch.to(h2, "down")  # nginx speaks no HTTP/2 by prior knowledge where it speaks HTTP/1.1
    nginx.stop()
    seen = watch.seen
    for endpoint in (plain, tls, tcp):
        watch.seen = seen
        assert re.search(r"Connection refused, after \d+\.\d ms", watch.to(endpoint, "down", "refused"))
    nginx.start("return 500;")
    watch.to(tcp, "up")
    watch.process.stop()
    watch = Watch(spawn, plain)
    assert "status 500 by HTTP/1.1" in watch.to(plain, "down", "none of 200-299")
    nginx.stop()
    nginx.start()
    watch.to(plain, "up")


def test_nginx_that_hangs(nginx, spawn):
    nginx.start()
    url = f"http://127.0.0.1:{nginx.port}/ready"
    watch = Watch(spawn, url)
    watch.to(url, "up")
    nginx.process.send(signal.SIGSTOP)  # the kernel still accepts: only an answer tells
    watch.to(url, "down", "no answer within 500 ms")
    nginx.process.send(signal.SIGCONT)
    watch.to(url, "up")


def test_a_certificate_that_does_not_fit(nginx, spawn, pki):
    nginx.start()
    url = f"https://localhost:{nginx.tls_port}/ready"
    strange = Watch(spawn, url)  # the system's roots
    assert "certificate" in strange.to(url, "down").lower()
    named = f"https://127.0.0.2:{nginx.tls_port}/ready"
    Watch(spawn, named, options=("--ca", pki["ca"])).to(named, "down")


def test_haproxy_whose_servers_are_gone(spawn, tmp_path):
    port, origin = free_port(), free_port()
    conf = tmp_path / "haproxy.cfg"
    conf.write_text(f"""
defaults
  mode http
  timeout connect 1s
  timeout client 5s
  timeout server 5s
frontend f
  bind 127.0.0.1:{port}
  default_backend b
backend b
  server s 127.0.0.1:{origin} check inter 100ms rise 1 fall 1
""")
    spawn(peer("haproxy"), "-db", "-f", conf).wait_for("s is DOWN")
    wait_tcp(port)
    url = f"http://127.0.0.1:{port}/name"
    watch = Watch(spawn, url)
    watch.to(url, "down", "status 503")
    served = spawn(PYTHON, HERE / "edge_origin.py", origin, "o")
    served.wait_for("origin on")
    watch.to(url, "up", "status 200")
    served.stop()
    watch.to(url, "down")  # 503, or no answer in time: haproxy tries again for a second until its own check has failed


def test_http3(spawn, pki):
    port = free_port()
    served = spawn(program("http3_server"), f"127.0.0.1:{port}", pki["cert"], pki["key"])
    url = f"h3://localhost:{port}/"
    watch = Watch(spawn, url, options=("--ca", pki["ca"]))
    watch.to(url, "up", "by HTTP/3")
    served.stop()
    watch.to(url, "down")


# ---- gRPC ----

@pytest.fixture(scope="session")
def messages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grpc")
    subprocess.run([peer("protoc"), f"-I{HERE}/protos", f"--python_out={folder}", "health.proto"], check=True)
    return folder


@pytest.fixture
def health_server(spawn, tmp_path, messages):
    if run(PYTHON, "-c", "import grpc, google.protobuf").returncode:
        pytest.skip("python3-grpcio and python3-protobuf are not installed")
    shutil.copy(messages / "health_pb2.py", tmp_path)
    status = tmp_path / "status"

    def start(answer="SERVING", *tls):
        port = free_port()
        status.write_text(answer)
        process = spawn(PYTHON, "-P", HERE / "grpc_health.py", port, tmp_path, *tls, name="grpc_health")
        process.wait_for("serving")
        return port, status, process

    return start


# Who gives up first is the server, which hears of our limit, or we.
HANGS = ("no answer within 500 ms", "gRPC status 4 (DEADLINE_EXCEEDED)")


def test_grpc_of_all_answers(health_server, spawn):
    port, status, process = health_server()
    url = f"grpc://127.0.0.1:{port}/shop.Cart"
    watch = Watch(spawn, url)
    watch.to(url, "up", 'service "shop.Cart" is SERVING')
    process.wait_for("asked for 'shop.Cart'")  # Google's protobuf reads what we wrote by hand
    for answer, says in [("NOT_SERVING", "is NOT_SERVING"), ("UNKNOWN", "is UNKNOWN"), ("SERVICE_UNKNOWN", "is SERVICE_UNKNOWN"),
                         ("abort NOT_FOUND gone", "SERVICE_UNKNOWN: it knows no service"), ("abort UNAVAILABLE at lunch", "gRPC status 14 (UNAVAILABLE), message \"at lunch\""),
                         ("hang", HANGS)]:
        status.write_text(answer)
        watch.to(url, "down", says)
        status.write_text("SERVING")
        watch.to(url, "up")
    process.stop(signal.SIGKILL)
    watch.to(url, "down", "Connection refused")


def test_grpc_without_a_health_service(health_server, spawn):
    port, _, _ = health_server("none")
    url = f"grpc://127.0.0.1:{port}"
    Watch(spawn, url).to(url, "down", "UNIMPLEMENTED: it has no grpc.health.v1.Health")


def test_grpc_over_tls(health_server, spawn, pki):
    port, _, process = health_server("SERVING", pki["cert"], pki["key"])
    url = f"grpcs://localhost:{port}"
    Watch(spawn, url, options=("--ca", pki["ca"])).to(url, "up", 'service "" is SERVING')
    Watch(spawn, url).to(url, "down", "certificate")


def test_what_is_no_grpc(nginx, spawn):
    nginx.start()
    url = f"grpc://127.0.0.1:{nginx.port}"
    Watch(spawn, url).to(url, "down")


# ---- ICMP ----

def test_echo_between_namespaces(spawn):
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    names = [f"health-{os.getpid()}-{x}" for x in "ab"]

    def ip(*command):
        subprocess.run(["ip", *command], check=True)

    try:
        for name in names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("link", "add", "va", "netns", names[0], "type", "veth", "peer", "name", "vb", "netns", names[1])
        for name, link, host in ((names[0], "va", 1), (names[1], "vb", 2)):
            ip("-n", name, "addr", "add", f"10.77.0.{host}/24", "dev", link)
            ip("-n", name, "addr", "add", f"fd77::{host}/64", "dev", link, "nodad")
            ip("-n", name, "link", "set", link, "up")
        inside = ("ip", "netns", "exec", names[0])
        for ping_group in ("1 0", "0 2147483647"):  # by a raw socket, and by a ping socket
            subprocess.run([*inside, "sysctl", "-qw", f"net.ipv4.ping_group_range={ping_group}"], check=True)
            watch = Watch(spawn, "icmp://10.77.0.2", "icmp://fd77::2", "icmp://10.77.0.9", inside=inside)
            for endpoint, state, says in (("icmp://10.77.0.2", "up", "replied after"), ("icmp://fd77::2", "up", "replied after"), ("icmp://10.77.0.9", "down", "")):
                watch.seen = 0
                watch.to(endpoint, state, says)
            watch.process.stop()
        watch = Watch(spawn, "icmp://10.77.0.2", inside=inside)
        watch.to("icmp://10.77.0.2", "up")
        ip("-n", names[1], "link", "set", "vb", "down")
        watch.to("icmp://10.77.0.2", "down")
        ip("-n", names[1], "link", "set", "vb", "up")
        watch.to("icmp://10.77.0.2", "up")
        watch.process.stop()
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name])


def test_echo_without_the_right(spawn):
    if os.geteuid() != 0:
        pytest.skip("only root can give rights up")
    done = subprocess.run(["unshare", "-n", "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set", "-all", "--inh-caps", "-all",
                           "sh", "-c", f"timeout 5 {program('health_watch')} icmp://127.0.0.1"], capture_output=True, text=True, timeout=60)
    assert "this process has no right to send ICMP: net.ipv4.ping_group_range" in done.stdout, (done.stdout, done.stderr)


# ---- programs ----

def test_a_program(spawn, tmp_path):
    script, flag = tmp_path / "check", tmp_path / "flag"
    script.write_text(f'#!/bin/sh\n[ -e {flag} ] || {{ echo "is not there: $CB_CHECK_NAME"; exit 7; }}\n')
    script.chmod(0o755)
    url = f"exec:{script}"
    watch = Watch(spawn, url)
    assert f'exit status 7' in watch.to(url, "down") and "is not there" in watch.process.output()
    flag.touch()
    watch.to(url, "up", "exit status 0")


# ---- flaps ----

def test_an_endpoint_that_flaps(spawn):
    """Up and down four times within seconds: it is left out although it answers."""
    port = free_port()
    url = f"tcp://127.0.0.1:{port}"
    watch = Watch(spawn, url, interval=50, damping=1)
    watch.to(url, "down")
    for i in range(3):
        with socket.create_server(("127.0.0.1", port)) as server:
            server.listen()
            threading.Thread(target=drain, args=(server,), daemon=True).start()
            watch.to(url, "up")
            server.shutdown(socket.SHUT_RDWR)
        watch.to(url, "down", "refused")
    with socket.create_server(("127.0.0.1", port)) as server:
        threading.Thread(target=drain, args=(server,), daemon=True).start()
        assert "damping" in watch.to(url, "down", "up and down too often")
        server.shutdown(socket.SHUT_RDWR)


def drain(server):
    try:
        while True:
            server.accept()[0].close()
    except OSError:
        pass


# ---- mistakes ----

@pytest.mark.parametrize("words, code, says", [
    ([], 2, "usage: health_watch"), (["--help"], 2, "usage: "), (["--intervall", "5", "tcp://127.0.0.1:1"], 2, "usage: "), (["--rise", "x", "tcp://127.0.0.1:1"], 2, "usage: "),
    (["tcp://127.0.0.1:1", "gopher://a:1"], 1, '"gopher://a:1" begins with none of'), (["tcp://127.0.0.1:99999"], 1, "99999")])
def test_what_is_wrong_is_said(words, code, says):
    done = subprocess.run([program("health_watch"), *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == code and says in done.stderr, done.stderr
