"""cbctl top: the figures of one picture, and a live terminal: its size, its keys, and how it is left behind."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import pytest
from conftest import program, run
from fake_admin import Edge, FakeAdmin, problem


@pytest.fixture
def fake(tmp_path):
    made = []

    def make(answers, name="admin.sock"):
        made.append(FakeAdmin(tmp_path / name, answers))
        return made[-1]

    yield make
    for one in made:
        one.close()


def once(admin, *words, **kw):
    return run(program("cbctl"), "top", "--once", "--interval", "1s", "--socket", admin.path, *words, **kw)


PICTURE = """\
cb-edge 0.1.0  pid 4711  revision 17  unix:{path}

requests    1.00k/s  2xx 996  3xx 0  4xx 0  5xx 2.99  running 7  total 1.00k
latency     p50 1.00ms  p90 10.0ms  p99 91.0ms  mean 5.00ms
bytes       in 1020B/s  out 1020KiB/s
connections 10  h1 1  h2 4  h3 5  handshakes 1.99/s  failed -
process     workers 2  busy 25%  CPU 50%  memory 34.0MiB  files 42

group        origin            state       req/s    err/s     p50     p99 active
web          10.0.0.0:80       up           9.96        0  1.00ms  10.0ms      0
web          10.0.0.1:80       down         11.0        0  1.00ms  10.0ms      1
"""


def test_once(fake):
    admin = fake(Edge().answers())
    got = once(admin, env={**os.environ, "COLUMNS": "80"})
    assert got.returncode == 0, got
    lines = got.stdout.splitlines()
    assert all(len(line) <= 80 for line in lines) and "\033" not in got.stdout
    assert [re.sub(r" +[\d.]+k?", " N", line) for line in lines[2:]] == [re.sub(r" +[\d.]+k?", " N", line) for line in PICTURE.splitlines()[2:]]
    assert lines[0].startswith("cb-edge 0.1.0  pid 4711  revision 17  unix:/")
    assert " p50 1.00ms  p90 10.0ms  p99 91.0ms  mean 5.00ms" in lines[3]
    assert "busy 25%" in lines[6] and "workers 2 " in lines[6] and "memory 34.0MiB" in lines[6]


def test_once_as_json(fake):
    v = json.loads(once(fake(Edge(8).answers()), "--json", "--sort", "requests").stdout)
    assert 900 < v["requests_per_s"] <= 1003 and v["answers_per_s"]["5xx"] == pytest.approx(v["requests_per_s"] * 3 / 1003)
    assert v["latency_p50_s"] == pytest.approx(0.001) and v["latency_p99_s"] == pytest.approx(0.091)
    assert v["connections_by_version"] == {"h1": 1, "h2": 4, "h3": 5} and v["connections"] == 10
    assert v["cpu"] == pytest.approx(0.5, rel=0.1) and v["busy"] == pytest.approx(0.25) and v["handshakes_failed_per_s"] is None
    assert [o["origin"][-4:] for o in v["origins"]] == [f"{i}:80"[-4:].rjust(4, ".") for i in reversed(range(8))]
    assert v["origins"][2]["state"] == "out" and v["origins"][6]["state"] == "down"


def test_without_some_answers(fake):
    edge = Edge()
    answers = {**edge.answers(), "GET /v1/status": problem(403, "Forbidden"), "GET /v1/pools": (200, {"content-type": "text/html"}, "<p>")}
    v = json.loads(once(fake(answers), "--json").stdout)
    assert v["requests_per_s"] > 900 and v["version"] == "" and [o["state"] for o in v["origins"]] == ["", ""]
    answers = {**edge.answers(), "GET /metrics": problem(403, "Forbidden")}
    assert once(fake(answers, "b.sock")).returncode == 3
    answers["GET /metrics"] = (200, {"content-type": "text/plain"}, "no metrics\n")
    got = once(fake(answers, "c.sock"))
    assert got.returncode == 1 and "line 1 of the metrics" in got.stderr
    answers["GET /metrics"] = (200, {"content-type": "text/plain"}, "process_open_fds 1\n")
    assert json.loads(once(fake(answers, "d.sock"), "--json").stdout)["requests_per_s"] is None


def test_a_daemon_that_starts_anew_counts_from_nothing(fake):
    edge = Edge()
    edge.scrapes = 1000
    answers = edge.answers()

    def metrics(handler):
        answer = edge.metrics()
        edge.scrapes = 1
        return answer

    answers["GET /metrics"] = metrics
    v = json.loads(once(fake(answers), "--json").stdout)
    assert v["requests_per_s"] == 0 and v["latency_p50_s"] is None


def test_no_terminal(fake):
    got = run(program("cbctl"), "top", "--socket", "/nowhere")
    assert got.returncode == 2 and "--once" in got.stderr


# ---- live ----

class Live:
    """cbctl top on a terminal of its own."""

    def __init__(self, admin, *words, rows=24, columns=80, **env):
        self.leader, follower = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(follower)
        self.popen = subprocess.Popen([program("cbctl"), "top", "--socket", admin.path, "--interval", "200ms", *words], stdin=follower, stdout=follower,
                                      stderr=follower, start_new_session=True, env={**os.environ, "TERM": "xterm", **env},
                                      preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        self.follower, self.said = follower, b""

    def resize(self, rows, columns):
        fcntl.ioctl(self.leader, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, seconds=0.05):
        while select.select([self.leader], [], [], seconds)[0]:
            try:
                data = os.read(self.leader, 65536)
            except OSError:
                return
            if not data:
                return
            self.said += data

    def frames(self):
        """Pictures that are complete: lists of lines without colours."""
        whole = re.findall(rb"\033\[H(?!\033\[2J)(.*?)\033\[J", self.said, re.S)
        return [re.sub(r"\033\[[0-9;]*[mK]", "", f.decode()).split("\r\n") for f in whole]

    def until(self, true, seconds=30):
        """The last frame for which that is so."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.read()
            for frame in reversed(self.frames()):
                if true(frame):
                    return frame
        raise AssertionError(f"never came; last: {self.frames()[-1:]}")

    def fresh(self, true):
        self.read(0)
        self.said = b""
        return self.until(true)

    def key(self, text):
        os.write(self.leader, text.encode())

    def wait(self):
        end = time.monotonic() + 30
        while self.popen.poll() is None and time.monotonic() < end:
            self.read()
        self.read(0.2)
        return self.popen.returncode

    def left_as_before(self):
        assert self.said.rstrip().endswith(b"\033[?1049l") or b"\033[?1049l" in self.said[-400:], self.said[-200:]
        assert self.said.rfind(b"\033[?25h") > self.said.rfind(b"\033[?25l"), "the cursor is there again"
        assert termios.tcgetattr(self.follower)[:4] == self.before[:4]

    def close(self):
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        os.close(self.leader)
        os.close(self.follower)


@pytest.fixture
def live(fake):
    started = []

    def start(admin, *words, **kw):
        started.append(Live(admin, *words, **kw))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_it_fits_and_follows_the_size(fake, live):
    top = live(fake(Edge(40).answers()))
    for rows, columns in ((24, 80), (10, 40), (50, 132), (3, 20), (24, 80)):
        top.resize(rows, columns)
        frame = top.fresh(lambda f: len(f) == rows and any("requests" in line for line in f))
        assert all(len(line) <= columns for line in frame), frame
        assert len(frame) <= rows, frame
    assert frame[-1].startswith("q end") and "origins 1 to 14 of 40" in frame[-1], frame
    assert frame[0].startswith("cb-edge 0.1.0")
    top.key("q")
    assert top.wait() == 0
    top.left_as_before()


def test_keys(fake, live):
    edge = Edge(40)
    top = live(fake(edge.answers()))
    first = top.until(lambda f: "10.0.0.0" in f[9])
    assert "sort: name" in first[-1]
    top.key("\033[B\033[B")
    top.until(lambda f: "10.0.0.10:" in f[9] or "origins 3 to" in f[-1])
    top.key("\033[6~")
    top.until(lambda f: "origins 17 to" in f[-1])
    top.key("G\033[F")
    top.until(lambda f: "to 40 of 40" in f[-1])
    top.key("\033[5~\033[5~\033[5~\033[5~")
    top.until(lambda f: "origins 1 to" in f[-1])
    top.key("s")
    assert " down " in top.until(lambda f: "sort: state" in f[-1])[9]
    top.key("s")
    assert "10.0.0.39" in top.until(lambda f: "sort: requests" in f[-1])[9]
    top.key("?")
    top.until(lambda f: any("stop, and go on" in line for line in f) and len(f) == 24)
    top.key("\033")
    top.until(lambda f: "origin" in f[8])
    top.key("-")
    top.until(lambda f: "every 0.4s" in f[-1])
    top.key("+")
    top.until(lambda f: "every 0.2s" in f[-1])
    top.key(" ")
    top.until(lambda f: "stopped" in f[0])
    time.sleep(0.3)
    asked = edge.scrapes
    time.sleep(0.7)
    assert edge.scrapes == asked, "it asks nothing while it is stopped"
    top.key("xyz\033[99~\033OZ\0\xff")
    top.key("p")
    top.fresh(lambda f: "stopped" not in f[0] and edge.scrapes > asked + 1)
    top.key("q")
    assert top.wait() == 0
    top.left_as_before()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGSEGV, signal.SIGABRT])
def test_the_terminal_is_as_before_whatever_ends_it(fake, live, number):
    top = live(fake(Edge().answers()))
    top.until(lambda f: len(f) == 24)
    top.popen.send_signal(number)
    assert top.wait() == -number
    top.left_as_before()


def test_control_c_and_control_z(fake, live):
    top = live(fake(Edge().answers()))
    top.until(lambda f: len(f) == 24)
    top.popen.send_signal(signal.SIGTSTP)
    end = time.monotonic() + 30
    while open(f"/proc/{top.popen.pid}/stat").read().rsplit(")", 1)[1].split()[0] != "T" and time.monotonic() < end:
        time.sleep(0.02)
    top.read(0.2)
    top.left_as_before()
    top.popen.send_signal(signal.SIGCONT)
    top.fresh(lambda f: len(f) == 24)
    top.key("\x03")
    assert top.wait() == -signal.SIGINT
    top.left_as_before()


def test_a_daemon_that_goes_and_comes_back(fake, live):
    first = fake(Edge().answers())
    top = live(first)
    top.until(lambda f: "1.00k/s" in f[2] or "k/s" in f[2])
    os.unlink(first.path)
    first.close()
    top.until(lambda f: "there is no such socket" in f[1])
    fake(Edge().answers())
    top.fresh(lambda f: f[1] == "" and "k/s" in f[2])
    top.key("q")
    assert top.wait() == 0


def test_colours_only_where_they_are_wanted(fake, live):
    top = live(fake(Edge().answers()))
    top.until(lambda f: len(f) == 24 and "down" in f[10])
    assert b"\033[1;31mdown" in top.said
    for n, env in enumerate(({"NO_COLOR": "1"}, {"TERM": "dumb"})):
        plain = live(fake(Edge().answers(), f"plain{n}.sock"), **env)
        plain.until(lambda f: len(f) == 24 and "down" in f[10])
        assert not re.search(rb"\033\[[0-9;]*m(?<!\033\[0m)", plain.said.replace(b"\033[0m", b""))


def test_nobody_at_the_keyboard(fake, live):
    top = live(fake(Edge().answers()))
    top.until(lambda f: len(f) == 24)
    os.close(top.leader)
    assert top.popen.wait(30) in (0, -signal.SIGHUP)
    top.leader = os.open("/dev/null", os.O_RDONLY)
