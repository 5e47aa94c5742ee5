"""scripts/demo: what it prints works as printed, and Ctrl-C leaves nothing behind."""

import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from conftest import TOP, free_port, run

sys.path.insert(0, str(TOP / "tests/world"))
import pop  # noqa: E402
import world  # noqa: E402

needs_world = pytest.mark.skipif(world.why_not(*pop.PROGRAMS) is not None, reason=str(world.why_not(*pop.PROGRAMS)))


@pytest.mark.beside
def test_demo(tmp_path):
    log = tmp_path / "demo.log"
    port, http_port, metrics_port = free_port(), free_port(), free_port()
    with open(log, "wb") as out:
        demo = subprocess.Popen(["nice", TOP / "scripts/demo"], stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
                                env={**os.environ, "PORT": str(port), "HTTP_PORT": str(http_port), "METRICS_PORT": str(metrics_port),
                                     "TMPDIR": str(tmp_path)},
                                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    try:
        end = time.monotonic() + 900
        while "Ctrl-C ends it." not in log.read_text():
            assert demo.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        text = log.read_text().replace("\\\n", " ")
        commands = [line.strip() for line in text.splitlines() if re.match(r"      (\S*http_client|curl|gtlsclient|cbctl) ", line)]
        setting = re.search(r"^      (export CBCTL_SOCKET=.*)$", text, re.M)[1]
        ends = {"cbctl top": "cbctl top --once", "cbctl events": "cbctl events --limit 1"}  # the printed ones go on until somebody ends them
        tried = 0
        for command in commands:
            if shutil.which(command.split()[0], path=f"{os.environ['PATH']}:{TOP}:{TOP / 'build/release'}") is None and not (TOP / command.split()[0]).exists():
                continue
            got = run("bash", "-c", f"{setting}; {ends.get(command, command)}", cwd=TOP)
            status = {"/drop": (1, 18, 56, 92), "/fail": (0, 22)}.get("/" + command.rsplit("/", 1)[-1], (0,))
            assert got.returncode in status, (command, got.stdout[-500:], got.stderr)
            if "/headers" in command and "-i" not in command:
                assert f"via: {'1.1' if '--http1.1' in command else '3' if 'gtls' in command else '2'} cb-edge" in got.stdout, command
            said = {"cbctl top": "h3 ", "cbctl diff": "+ /groups/web/max_connections: 50", "cbctl history": "fewer connections", "cbctl rollback 1": "revision 3",
                    "cbctl metrics": "p99 ", "cbctl pools": " up ", "cbctl set groups.web.max_connections many": "nothing has changed"}
            for begin, text in said.items():
                assert not command.startswith(begin) or text in got.stdout, (command, got)
            if command.endswith("/metrics"):
                assert "\ncb_http_server_requests_total{" in got.stdout
            if "/echo" in command:
                assert got.stdout == "hello edge"
            tried += 1
        assert tried >= 16, commands
    finally:
        os.killpg(demo.pid, signal.SIGINT)
        try:
            assert demo.wait(20) == 0, log.read_text()
        except subprocess.TimeoutExpired:
            os.killpg(demo.pid, signal.SIGKILL)
            raise
    assert not list(tmp_path.glob("cb-demo.*"))
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert str(tmp_path).encode() not in process.read_bytes()
        except OSError:
            pass


def demo_pop(tmp_path, *options, **kw):
    return subprocess.Popen([TOP / "scripts/demo", "--pop", *options], start_new_session=True, env={**os.environ, "TMPDIR": str(tmp_path)},
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **kw)


def nothing_left(tmp_path):
    assert not list(tmp_path.glob("cb-world.*"))
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert str(tmp_path).encode() not in process.read_bytes(), process.read_bytes()
        except OSError:
            pass


@needs_world
def test_pop_without_a_terminal(tmp_path):
    demo = demo_pop(tmp_path, "--seconds", "90", "--flows", "20", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = []

    def until(pattern):
        for line in demo.stdout:
            lines.append(line)
            if re.search(pattern, line):
                return line
        raise AssertionError(f"never said {pattern}:\n{''.join(lines)}")

    def do(command):
        demo.stdin.write(command + "\n")
        demo.stdin.flush()

    try:
        until(r"^00:00 live 20 TCP 20 QUIC, broken 0 0, moved 0; s11=\d+\+\d+ .*r1>s11,s12 r2>s21,s22")
        printed = [line.strip() for line in lines if re.match(r"  (nsenter|birdc|ip|\S*/cbctl) ", line)]
        assert len(printed) == 7
        for command in printed:  # what it prints works as printed
            if "cbctl top" in command:
                command += " --once"
            got = run("bash", "-c", command, cwd="/", timeout=30)
            assert got.returncode == 0 and got.stdout, (command, got)
        do("kill s11")
        until(r"r1 leads to s12$")
        until(r"broken: \d+ TCP, \d+ QUIC; they were with s11$")
        assert " r1>s12 " in until(r"^00:\d\d live 20 TCP 20 QUIC")
        do("kill s11")
        until(r"s11 does not run: start s11")
        do("start s11")
        until(r"r1 leads to s11, s12")
        time.sleep(5)  # what was with s11 has noticed by then
        do("mend c2")
        until("mend c2: done")
        broken = re.search(r"broken \d+ \d+", until(r"^00:\d\d live 20 TCP 20 QUIC"))[0]
        for command in ("drain s12", "weight s11 300", "back s12", "rebind c1"):
            do(command)
            until(f"{command}: done")
        time.sleep(2)
        do("mend c1")
        until("mend c1: done")
        assert broken in until(r"^00:\d\d live 20 TCP 20 QUIC")  # the servers forward
        for command in ("cut c1", "mend c1", "move c2 up1", "rebind c2", "delay c2 up1 5", "loss c2 up1 0"):
            do(command)
            until(f"{command}: done")
        for command, said in (("kill s99", "there is no server s99"), ("cut c1 up7", "no up7"), ("loss c1 up1 many", "'many' is no number from 0 to 100"), ("kill", "kill SERVER"), ("weight s11 x", "'x' is no number"),
                              ("fly", "'fly' is no command")):
            do(command)
            until(said)
        do("quit")
        until(r"^00:\d\d live")
        assert demo.wait(30) == 0
    finally:
        demo.kill()
        demo.stdin.close()
        demo.stdout.close()
    nothing_left(tmp_path)


@needs_world
def test_pop_without_forwarding(tmp_path):
    got = subprocess.run([TOP / "scripts/demo", "--pop", "--ecmp", "--seconds", "9", "--flows", "30", "--pops", "2"], input="drain s11\nweight s12 5\n", capture_output=True, text=True,
                         timeout=300, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert got.returncode == 0 and "drain s11: done" in got.stdout and "r1 leads to s12\n" in got.stdout and "ECMP has no weights" in got.stdout, got
    assert re.search(r"broken: \d+ TCP, \d+ QUIC; they were with s11\n", got.stdout), got.stdout
    nothing_left(tmp_path)


@needs_world
def test_pop_on_a_terminal(tmp_path):
    own, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    demo = demo_pop(tmp_path, "--flows", "10", "--pops", "2", stdin=its, stdout=its, stderr=its)
    os.close(its)
    seen = ""

    def until(text):
        nonlocal seen
        end = time.monotonic() + 120
        while text not in seen:
            assert time.monotonic() < end and demo.poll() is None, seen[-3000:]
            if select.select([own], [], [], 0.2)[0]:
                seen += os.read(own, 65536).decode(errors="replace")
        seen = seen[seen.index(text) + len(text):]

    try:
        until("Enter shows it.")
        os.write(own, b"\n")
        until("PoP 1: c1, c2 == r1 -> s11, s12")
        os.write(own, b"drain s13\x7f2\r")
        until("s12  drain")
        os.write(own, b"cut c1\r")
        until("c1 (up1 cut)")
        demo.send_signal(signal.SIGINT)
        assert demo.wait(30) == 0
    finally:
        demo.kill()
        os.close(own)
    nothing_left(tmp_path)


def test_pop_needs_root(tmp_path):
    if os.geteuid() == 0:
        got = run("setpriv", "--reuid=65534", "--clear-groups", TOP / "scripts/demo", "--pop")
    else:
        got = run(TOP / "scripts/demo", "--pop")
    assert got.returncode == 1 and got.stderr.strip() == "demo: network namespaces need root", got
