"""First packets of QUIC (Initials with whole ClientHellos) from addresses that never answer, against one worker, and what honest clients make of it.

    scripts/bench flood [--seconds N] [--rate N]...

For each rate, in packets a second: what arrived, bytes out for bytes in (at most 3: RFC 9000, 8.1), how many were answered with Retry, the server's processor time, its
memory at most, and how many of the honest clients got their answer, and in what time. A client is a fresh process, without a token, one after the other. Everything
runs in a network namespace of its own when started as root; else on the machine's loopback. The server has processor 0, everything else processor 1.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench import LOAD_CPU, PORT, Server, cpu_name


def own(build, name):
    return next(path for path in sorted(Path(build).rglob(name)) if path.is_file() and os.access(path, os.X_OK))


class Target(Server):
    """The server, with the lines that it writes on SIGUSR1."""

    def __init__(self, *command, **kw):
        super().__init__(*command, **kw)
        time.sleep(0.3)  # it listens before it takes signals

    def seen(self):
        before = Path(self.log).read_text().count("\n")
        self.process.send_signal(signal.SIGUSR1)
        end = time.monotonic() + 20
        while Path(self.log).read_text().count("\n") == before:
            if time.monotonic() > end:
                raise SystemExit("the server does not answer a signal: it is stuck")
            time.sleep(0.02)
        return json.loads(Path(self.log).read_text().splitlines()[-1])


def fetch(build, ca):
    begin = time.monotonic()
    done = subprocess.run(["taskset", "-c", LOAD_CPU, own(build, "http_client"), "-3", "-o", "/dev/null", "--ca", ca, "--connect", f"127.0.0.1:{PORT}",
                           f"https://localhost:{PORT}/1k"], capture_output=True, timeout=60)
    return done.returncode == 0, 1000 * (time.monotonic() - begin)


def round_of(build, ca, server, rate, seconds):
    """One rate; returns the row."""
    flood = None
    if rate:
        flood = subprocess.Popen(["taskset", "-c", LOAD_CPU, own(build, "flood"), f"127.0.0.1:{PORT}", str(seconds), str(rate)], stdout=subprocess.PIPE, text=True)
        if flood.stdout.readline() != "go\n":
            raise SystemExit("flood did not start")
    before, cpu, begin, memory, times, failed = server.seen(), server.cpu_ns(), time.monotonic(), [], [], 0
    while time.monotonic() - begin < seconds:
        good, took = fetch(build, ca)
        failed += not good
        if good:
            times.append(took)
        memory.append(server.pss_kib())
    took, used = time.monotonic() - begin, server.cpu_ns() - cpu
    sent = int(flood.communicate()[0]) if flood else 0
    after = server.seen()
    d = {k: after[k] - before[k] for k in before}
    out = d["tx_bytes"] / d["rx_bytes"]
    return (f"| {rate} | {sent} | {d['rx_datagrams']} | {out:.2f} | {d['retries']} | {d['conns']} | {len(times)} of {len(times) + failed} | "
            f"{statistics.median(times) if times else 0:.0f} / {max(times, default=0):.0f} | {100 * used / 1e9 / took:.0f} | {max(memory) / 1024:.1f} |"), out


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench flood", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release", type=Path)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--rate", type=int, action="append", help="packets a second; default: 0, 1000, 5000, 20000, 0")
    args = parser.parse_args()
    if os.geteuid() == 0 and "CB_BENCH_NETNS" not in os.environ:
        return in_namespace()
    print(f"{cpu_name()}, {os.cpu_count()} processors; {args.seconds} s each. Times: of whole client processes.\n")
    print("| rate/s | sent | arrived | bytes out/in | Retry | connections | honest | ms median / most | server CPU % | PSS MiB |\n" + "|---" * 10 + "|")
    worst = 0.0
    with tempfile.TemporaryDirectory(prefix="cb-flood-") as folder:
        subprocess.run([own(args.build, "cbctl"), "ca", "dev", "--dir", folder, "localhost"], check=True, capture_output=True)
        server = Target([own(args.build, "bench_server"), f"127.0.0.1:{PORT}", f"{folder}/localhost.pem", f"{folder}/localhost-key.pem", "1"],
                        Path(folder) / "log", ready=PORT)
        try:
            for rate in args.rate or [0, 1000, 5000, 20000, 0]:
                row, out = round_of(args.build, f"{folder}/ca.pem", server, rate, args.seconds)
                print(row, flush=True)
                worst = max(worst, out if rate else 0)
                if rate:
                    time.sleep(12)  # until the half-open connections are given up
        finally:
            server.stop()
    return 0 if worst <= 3 else 1


def in_namespace():
    """Runs this again in a network namespace of its own."""
    name = f"cb-flood-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        inside = ["ip", "netns", "exec", name]
        subprocess.run([*inside, "ip", "link", "set", "lo", "up", "mtu", "1500"], check=True)
        return subprocess.run([*inside, sys.executable, __file__, *sys.argv[1:]], env={**os.environ, "CB_BENCH_NETNS": "1"}).returncode
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


if __name__ == "__main__":
    sys.exit(main())
