"""What cb-edge says about itself: its log, metrics and traces."""

import json
import os
import pwd
import re
import signal
import socket
import time

import pytest
from conftest import free_port, program, run
from test_edge import Edge, edge, origin  # noqa: F401: fixtures


def until(what, seconds=10):
    """Asks until the answer is true, and gives it."""
    end = time.monotonic() + seconds
    while not (got := what()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
    return got


def has(path, text):
    return lambda: path.exists() and text in path.read_text()


# ---- the log ----

def test_log_formats_and_targets(edge, origin, tmp_path):
    log, second, moved = tmp_path / "edge.log", tmp_path / "second.log", tmp_path / "edge.log.1"
    groups = {"web": [f"http://127.0.0.1:{origin()}"]}
    edge.config(groups, log={"target": str(log), "format": "json", "levels": "warn,edge=info"})
    edge.process = edge.spawn(program("cb-edge"), "--config", edge.file, name="cb-edge")
    until(has(log, "ready with"))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["module"] for line in lines} == {"edge"} and all(line["level"] in ("info", "warn") and line["time"].endswith("Z") for line in lines)
    assert "ready with" not in edge.process.output()
    os.rename(log, moved)  # as logrotate does
    edge.process.send(signal.SIGUSR1)
    until(log.exists)
    edge.config(groups, log={"target": str(second), "format": "rfc5424"})
    edge.process.send(signal.SIGHUP)
    until(has(second, "reloaded"))
    assert re.match(r"<30>1 \S+ \S+ cb-edge \d+ edge - reloaded .*\n", second.read_text())
    assert log.read_text() == "" and "reloaded" not in moved.read_text()
    edge.config(groups, log={"target": "-"})
    edge.reload()
    assert re.search(r"^\S+Z info edge: reloaded ", edge.process.output(), re.M)
    assert edge.process.stop() == 0
    assert "draining" in edge.process.output() and "draining" not in second.read_text()


def test_log_levels_of_modules(edge, origin, tmp_path):
    log = tmp_path / "edge.log"
    groups = {"web": [f"http://127.0.0.1:{origin()}"]}
    more = {"target": str(log)}
    edge.config(groups, log={**more, "levels": "info,http=debug"})
    edge.process = edge.spawn(program("cb-edge"), "--config", edge.file, name="cb-edge")
    until(has(log, "ready with"))

    def fail_a_handshake():
        with socket.create_connection(("127.0.0.1", edge.tls_port)) as s:
            s.sendall(b"this is no TLS at all\n")
            s.recv(100)

    fail_a_handshake()
    until(has(log, "debug http: 127.0.0.1"))
    edge.config(groups, log={**more, "levels": "info,http=off"})
    edge.process.send(signal.SIGHUP)
    until(has(log, "reloaded"))
    before = log.read_text().count(" http: ")
    fail_a_handshake()
    time.sleep(0.2)
    assert log.read_text().count(" http: ") == before


def test_log_lines_are_not_lost_in_reloads(edge, origin, tmp_path):
    """Handshakes that fail make a line each, while the target changes under them."""
    logs = [tmp_path / f"{i}.log" for i in range(4)]
    groups = {"web": [f"http://127.0.0.1:{origin()}"]}
    edge.config(groups, log={"target": str(logs[0]), "levels": "info,http=debug"})
    edge.process = edge.spawn(program("cb-edge"), "--config", edge.file, name="cb-edge")
    until(has(logs[0], "ready with"))
    failed = 0
    for log in logs[1:]:
        edge.config(groups, log={"target": str(log), "levels": "info,http=debug", "format": ["text", "json"][failed % 2]})
        edge.process.send(signal.SIGHUP)
        while not has(log, "reloaded")():
            with socket.create_connection(("127.0.0.1", edge.tls_port)) as s:
                s.sendall(b"no TLS\n")
                s.recv(100)
            failed += 1

    def count():
        return sum(len(re.findall(r'http: 127|"http","text":"127', log.read_text())) for log in logs)

    until(lambda: count() == failed)
    assert failed > 3


def test_log_to_syslog_over_udp(edge, origin):
    server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    server.bind(("::1", 0))
    server.settimeout(10)
    edge.config({"web": [f"http://127.0.0.1:{origin()}"]}, log={"target": f"udp:[::1]:{server.getsockname()[1]}"})
    edge.process = edge.spawn(program("cb-edge"), "--config", edge.file, name="cb-edge")
    text = ""
    while "ready with" not in text:
        text = server.recv(4096).decode()
        assert re.match(r"<\d+>1 \S+ \S+ cb-edge \d+ \w+ - ", text), text
    server.close()


def test_a_log_file_is_the_users(edge, origin, tmp_path):
    """Made after the rights are given up, or a rotation could not make the next one."""
    if os.geteuid() != 0:
        pytest.skip("needs root: gives root's rights up")
    user = pwd.getpwnam("nobody")
    for path in [tmp_path, *tmp_path.parents]:
        if path != path.parent and path.stat().st_uid == 0 and path.stat().st_mode & 0o055 != 0o055:
            path.chmod(path.stat().st_mode | 0o055)
    folder = tmp_path / "logs"
    folder.mkdir()
    os.chown(folder, user.pw_uid, user.pw_gid)
    edge.log = folder / "access.log"
    edge.config({"web": [f"http://127.0.0.1:{origin()}"]}, user="nobody", log={"target": str(folder / "edge.log")})
    edge.process = edge.spawn(program("cb-edge"), "--config", edge.file, name="cb-edge")
    until(has(folder / "edge.log", "ready with"))
    assert (folder / "edge.log").stat().st_uid == user.pw_uid and (folder / "edge.log").stat().st_mode & 0o777 == 0o640
    os.rename(folder / "edge.log", folder / "edge.log.1")
    edge.process.send(signal.SIGUSR1)
    until((folder / "edge.log").exists)


@pytest.mark.parametrize("log, pointer, what", [
    ({"levels": "info,quic=loud"}, "/log/levels", "loud"),
    ({"target": "/nonexistent/edge.log"}, "/log/target", "/nonexistent/edge.log"),
    ({"target": "/tmp"}, "/log/target", "/tmp"),
    ({"target": "udp:somewhere"}, "/log/target", "somewhere"),
    ({"format": "xml"}, "/log/format", "rfc5424"),
    ({"level": "info"}, "/log/level", "level"),
])
def test_log_mistakes(edge, log, pointer, what):
    edge.config({"web": ["http://127.0.0.1:1"]}, log=log)
    for options in (["--check"], []):
        got = run(program("cb-edge"), *options, "--config", edge.file)
        assert got.returncode == 1 and pointer in got.stderr and what in got.stderr, got.stderr


def test_log_check_makes_no_file(edge, tmp_path):
    edge.config({"web": ["http://127.0.0.1:1"]}, log={"target": str(tmp_path / "edge.log")})
    assert run(program("cb-edge"), "--check", "--config", edge.file).returncode == 0
    assert not (tmp_path / "edge.log").exists()


def test_a_bad_log_stops_a_reload(edge, origin):
    groups = {"web": [f"http://127.0.0.1:{origin()}"]}
    edge.start(groups)
    edge.config(groups, log={"target": "/nonexistent/edge.log"})
    edge.reload(good=False)
    assert "/log/target" in edge.process.output()
    assert edge.status("/page") == 200
