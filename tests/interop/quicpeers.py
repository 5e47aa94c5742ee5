"""Fixtures of the tests with gtlsclient and gtlsserver: cb-edge before an origin, and the two programs of ngtcp2."""

import hashlib
import json
import os
import socket
import time

import pytest

from conftest import free_port, peer, program, run, wait_tcp

SIZE = 3 * 1024 * 1024 + 17


@pytest.fixture(scope="module")
def www(tmp_path_factory):
    folder = tmp_path_factory.mktemp("www")
    (folder / "file").write_bytes(os.urandom(SIZE))
    (folder / "small").write_bytes(b"small\n")
    return folder


def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def edge(spawn, pki, www, tmp_path):
    """start(**tls) runs an origin and cb-edge before it; returns the edge and its port."""

    def start(listener=None, tls=None, host="127.0.0.1", **top):
        origin_port, port = free_port(), free_port() if host == "127.0.0.1" else free_port(socket.AF_INET6, "::1")
        spawn(program("static_server"), f"127.0.0.1:{origin_port}", www)
        wait_tcp(origin_port)
        config = {
            "workers": 2,
            "listeners": {"main": {"address": f"{host}:{port}",
                                   "tls": {"certificates": [{"cert_file": str(pki["cert"]), "key_file": str(pki["key"])}], **(tls or {})},
                                   **(listener or {})}},
            "groups": {"files": {"origins": [{"url": f"http://127.0.0.1:{origin_port}"}]}},
            "routes": [{"group": "files"}],
            "log": {"levels": "debug"},
            **top,
        }
        path = tmp_path / "edge.json"
        path.write_text(json.dumps(config))
        return spawn(program("cb-edge"), "--config", path, name="cb-edge").wait_for("ready with"), port

    return start


def gtlsclient(port, tmp_path, *options, path="file", host="127.0.0.1", timeout=60, log=False):
    """Fetches a file; returns its output. -q keeps the log short unless it is wanted."""
    target = tmp_path / "got"
    target.mkdir(exist_ok=True)
    (target / path).unlink(missing_ok=True)
    quiet = [] if log else ["-q"]
    done = run(peer("gtlsclient"), *quiet, "--no-quic-dump", "--no-http-dump", "--exit-on-all-streams-close", "--timeout=20s",
               f"--download={target}", *options, host, port, f"https://localhost:{port}/{path}", timeout=timeout)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-4000:]
    return (target / path), output


@pytest.fixture
def gtlsserver(spawn, pki, www):
    """start(options...) runs gtlsserver and returns its port; start.process is the program, which writes a log if asked to."""

    def start(*options, host="127.0.0.1", log=False, pki=pki):
        port = free_port() if host == "127.0.0.1" else free_port(socket.AF_INET6, host)
        quiet = [] if log else ["-q"]
        start.process = spawn(peer("gtlsserver"), *quiet, "--no-quic-dump", "--no-http-dump", "-d", www, *options, host, port, pki["key"], pki["cert"])
        wait_udp(port)
        return port

    return start


def wait_udp(port, seconds=5):
    """Waits until a UDP port is bound."""
    end = time.monotonic() + seconds
    needle = f":{port:04X} "
    while needle not in open("/proc/net/udp").read() + open("/proc/net/udp6").read():
        assert time.monotonic() < end, f"nothing is bound to UDP port {port}"
        time.sleep(0.01)
