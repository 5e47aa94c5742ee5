"""The governor on a real bottleneck: one HTTP/3 download through a token bucket (tbf) between two network namespaces, in real time.

    scripts/bench tbf [--rounds N] [--rate MBIT]... [--buffer-ms N] [--mib N]

The controls take turns in each round; the table has medians. The queue is tbf's backlog, sampled every 50 ms, as the time that it takes to
leave. Nothing here delays packets (no netem), so the empty path takes some 0.1 ms: this confirms the direction of what the simulator
measures exactly (scripts/bench cc), no more. Needs root.
"""

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONTROLS = ("cubic", "bbr", "bbrv3")
SERVER, CLIENT, PORT = "10.77.0.1", "10.77.0.2", "8443"


def ip(*args):
    subprocess.run(["ip", *args], check=True)


@contextlib.contextmanager
def line(rate, buffer_ms):
    """Two namespaces and a line between them, narrow from the server to the client."""
    server, client = (f"cb-tbf-{os.getpid()}-{end}" for end in "sc")
    try:
        ip("netns", "add", server)
        ip("netns", "add", client)
        ip("-n", server, "link", "add", "s", "type", "veth", "peer", "name", "c", "netns", client)
        for name, device, address in ((server, "s", SERVER), (client, "c", CLIENT)):
            ip("-n", name, "address", "add", f"{address}/24", "dev", device)
            ip("-n", name, "link", "set", device, "up")
            ip("-n", name, "link", "set", "lo", "up")
            subprocess.run(["ip", "netns", "exec", name, "ethtool", "-K", device, "tx-udp-segmentation", "off"], capture_output=True, check=False)
        subprocess.run(["tc", "-n", server, "qdisc", "add", "dev", "s", "root", "tbf", "rate", f"{rate}mbit", "burst", "4k",
                        "limit", str(int(rate * 125 * buffer_ms))], check=True)
        yield server, client
    finally:
        for name in (server, client):
            subprocess.run(["ip", "netns", "del", name], check=False)


def backlog(namespace):
    told = subprocess.run(["tc", "-n", namespace, "-s", "qdisc", "show", "dev", "s"], capture_output=True, text=True, check=True).stdout
    size, unit = re.search(r"backlog (\d+)([KM]?)b", told).groups()
    return int(size) * {"": 1, "K": 1 << 10, "M": 1 << 20}[unit], int(re.search(r"dropped (\d+)", told).group(1))


def cpu_s(pid):
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9


def download(args, pki, rate, control):
    with line(rate, args.buffer_ms) as (server, client):
        serve = subprocess.Popen(["ip", "netns", "exec", server, args.build / "tests/bench/bench_server", f"{SERVER}:{PORT}", pki / "localhost.pem",
                                  pki / "localhost-key.pem", str(args.mib)], env={**os.environ, "CBR_CC": control})
        load = None
        try:
            time.sleep(0.5)
            load = subprocess.Popen(["ip", "netns", "exec", client, args.build / "tests/bench/h3load", "-3", "-n", "1", "-c", "1", "-m", "1",
                                     "--ca", pki / "ca.pem", f"https://{SERVER}:{PORT}/bulk"], stdout=subprocess.PIPE)
            waits, drops, end = [], 0, time.monotonic() + 120
            while load.poll() is None and time.monotonic() < end:
                queue, drops = backlog(server)
                waits.append(queue * 8 / rate / 1000)
                time.sleep(0.05)
            used = cpu_s(serve.pid)
        finally:
            for process in (load, serve):
                if process and process.poll() is None:
                    process.terminate()
                    process.wait()
        got = json.loads(load.stdout.read())
        if got["bytes"] != args.mib << 20:
            raise SystemExit(f"{control}: {got}")
        waits = sorted(waits[len(waits) // 5:])
        return {"goodput": got["bytes"] * 8 / got["seconds"] / 1e6, "mean": statistics.mean(waits), "p95": waits[len(waits) * 95 // 100],
                "drops": drops, "cpu": used * 1024 / args.mib}


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench tbf", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=int, action="append", help="Mbit/s (default: 20 and 100)")
    parser.add_argument("--buffer-ms", type=int, default=50, help="of the bottleneck (default: 50)")
    parser.add_argument("--mib", type=int, default=24, help="to download (default: 24)")
    parser.add_argument("--build", type=lambda p: Path(p).resolve(), default="build/release", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if os.geteuid() != 0:
        print("scripts/bench tbf makes network namespaces, which needs root", file=sys.stderr)
        return 77
    with tempfile.TemporaryDirectory(prefix="cb-tbf-") as folder:
        subprocess.run([args.build / "cbctl", "ca", "dev", "--dir", folder, "localhost", SERVER], check=True, capture_output=True)
        print(f"HTTP/3, {args.mib} MiB, tbf with a buffer of {args.buffer_ms} ms, medians of {args.rounds} rounds\n")
        print("| Mbit/s | control | goodput Mbit/s | queue mean ms | queue p95 ms | dropped | server CPU s/GiB |\n|---|---|---|---|---|---|---|")
        for rate in args.rate or (20, 100):
            results = {control: [] for control in CONTROLS}
            for _ in range(args.rounds):
                for control in CONTROLS:
                    results[control].append(download(args, Path(folder), rate, control))
            for control, runs in results.items():
                m = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
                print(f"| {rate} | {control} | {m['goodput']:.2f} | {m['mean']:.2f} | {m['p95']:.2f} | {m['drops']:.0f} | {m['cpu']:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
