"""scripts/demo: what it prints works as printed, and Ctrl-C leaves nothing behind."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

from conftest import TOP, free_port, run


def test_demo(tmp_path):
    log = tmp_path / "demo.log"
    port, http_port, metrics_port = free_port(), free_port(), free_port()
    with open(log, "wb") as out:
        demo = subprocess.Popen([TOP / "scripts/demo"], stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
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
