"""What a host's datapath costs its daemon, and what a change of the program costs traffic (docs/design/datapath.md); needs root.

    scripts/bench forward [--swaps N] [--sockets N]

`swap`: UDP of 64 flows comes as fast as one processor can send it; meanwhile N successors take the datapath over, one after the other: each loads its program, finds the pinned maps and
replaces the program in one step. Frames that the driver gave to a program less those that a program counted are lost: 0 is the bar.
`idle`: a look at N TCP sockets (both ends are in this namespace, so half of them are a VIP's) for moved buckets in which nothing lives: medians of processor time.
`sync`: the table of 65,537 buckets into the datapath: all of it, and when nothing has changed.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tests/world"))
import world  # noqa: E402

VIP, PER_PROCESS = "198.51.100.1", 15000


class Driver:
    """tests/interop/xdp_host.c: a host's datapath, told what to do."""

    def __init__(self, program, host):
        self.process = subprocess.Popen(host.inside(program), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def send(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def receive(self):
        lines = []
        while not (line := self.process.stdout.readline()).startswith(("ok", "error")):
            if not line:
                raise SystemExit("the driver ended")
            lines.append(line.split())
        if line.startswith("error"):
            raise SystemExit(line)
        return lines

    def tell(self, *words):
        self.send(*words)
        return self.receive()

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def build(args, folder):
    libs = [next(iter(sorted(args.build.resolve().glob(f"**/{name}")))) for name in ("libcb-xdp.so", "libcb.so")]
    out = Path(folder) / "xdp_host"
    subprocess.run(["cc", "-O2", "-std=c11", "-D_GNU_SOURCE", f"-I{TOP}/include", TOP / "tests/interop/xdp_host.c", *libs, f"-Wl,-rpath,{libs[0].parent}", "-o", out],
                   check=True)
    return out


# ---- swap ----

def seen(host):
    return sum(int(n) for n in re.findall(r"rx_queue_\d+_xdp_packets: (\d+)", host.run("ethtool", "-S", "eth0").stdout))


def at_rest(driver, host):
    """(counted by a program, given to one), when nothing comes any more."""
    while True:
        one = sum(int(line[2]) for line in driver.tell("counts")), seen(host)
        time.sleep(0.3)
        if one == (sum(int(line[2]) for line in driver.tell("counts")), seen(host)):
            return one


def swap(args, program, folder):
    pins = Path(folder) / "bpf"
    pins.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", pins], check=True)
    try:
        with world.World() as w:
            client, balancer, member = w.host("c"), w.host("l"), w.host("m")
            w.link(client, "eth0", balancer, "eth0", v4=("10.98.0.2/24", "10.98.0.1/24"), offloads=False)
            w.link(balancer, "eth1", member, "eth0", v4=("10.99.0.1/24", "10.99.0.2/24"), mtu=1600, offloads=False)
            member.xdp_pass("eth0")
            client.ip(f"route add {VIP}/32 via 10.98.0.1")
            driver, flood = Driver(program, balancer), Driver(program, client)
            for words in (("new", 0, pins / "l", "10.99.0.1"), ("vip", VIP, 17, 9, 0), ("member", 1, "10.99.0.2", 0), ("up", 1), ("run", 1), ("sync",)):
                driver.tell(*words)
            world.wait_for(lambda: driver.tell("resolve") == [] and balancer.run("ip", "neigh").stdout.count("lladdr"))
            driver.tell("resolve")
            driver.tell("attach", "eth0", 1)
            before, done, took, sent = at_rest(driver, balancer), 0, [], 0
            while done < args.swaps:
                flood.send("flood", VIP, 9, 5)
                end = time.monotonic() + 4.7
                while time.monotonic() < end and done < args.swaps:
                    took.append(float(driver.tell("swap", 1)[-1][1]))
                    done += 1
                sent += int(flood.receive()[-1][1])
            after = at_rest(driver, balancer)
            driver.end(), flood.end()
    finally:
        subprocess.run(["umount", pins], check=True)
    counted, frames = after[0] - before[0], after[1] - before[1]
    print("| programs replaced | each, ms | frames meanwhile | frames that met no program |\n|---|---|---|---|")
    print(f"| {done} | {statistics.median(took) * 1000:.0f} | {frames:,} | {frames - counted:,} |", flush=True)
    return frames == counted and frames > 100_000


# ---- idle, sync ----

HOLD = """import socket, sys
vip, first, port, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
server = socket.create_server((vip, port), backlog=1024)
kept = []
for i in range(n):
    a = socket.create_connection((vip, port), source_address=(f"127.{first}.0.{1 + i // 20000}", 0))
    kept += [a, server.accept()[0]]
print("held", flush=True)
sys.stdin.read()
"""


def idle(args, program):
    with world.World() as w:
        host = w.host("h")
        host.ip(f"addr add {VIP}/32 dev lo")
        host.sysctl({"net.ipv4.ip_local_port_range": "1024 65000"})
        driver = Driver(program, host)
        started = time.monotonic()
        for words in (("new", 1, "-", "10.99.0.1"), ("vip", VIP, 6, 0, 0), ("member", 1, "10.99.0.1", 0), ("up", 1), ("run", 1)):
            driver.tell(*words)
        begun = time.perf_counter()
        driver.tell("sync")
        all_of_it = time.perf_counter() - begun
        nothing = []
        for _ in range(50):
            begun = time.perf_counter()
            driver.tell("sync")
            nothing.append(time.perf_counter() - begun)
        driver.tell("up", 2)
        for step in range(2, 40):  # half of all buckets move from 1 to 2
            driver.tell("run", step * 2000)
        driver.tell("sync")
        holders, rows = [], []
        for target in (0, args.sockets // 10, args.sockets):
            while sum(n for _, n in holders) * 2 < target:
                n = min(PER_PROCESS // 2, target // 2 - sum(n for _, n in holders))
                process = subprocess.Popen(host.inside(sys.executable, "-c", HOLD, VIP, 1 + len(holders), 2000 + len(holders), n), stdin=subprocess.PIPE,
                                           stdout=subprocess.PIPE, text=True)
                assert process.stdout.readline().strip() == "held"
                holders.append((process, n))
            took, buckets = [], 0
            for _ in range(9):
                lines = driver.tell("idle")
                took.append(float(lines[-1][1]))
                buckets = len(lines) - 1
            rows.append((target, buckets, statistics.median(took)))
        for process, _ in holders:
            process.stdin.close()
            process.wait()
        driver.end()
    print("\n| TCP sockets | idle buckets | one look, ms |\n|---|---|---|")
    for target, buckets, seconds in rows:
        print(f"| {target:,} | {buckets:,} | {seconds * 1000:.1f} |")
    print(f"\nsync of 65,537 buckets: {all_of_it * 1000:.1f} ms; when nothing has changed: {statistics.median(nothing) * 1e6:.0f} µs (with the way to the driver and back)", flush=True)
    return time.monotonic() > started and rows[2][1] < rows[0][1]


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench forward", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--sockets", type=int, default=100_000)
    args = parser.parse_args()
    if why := world.why_not("ethtool", "clang"):
        raise SystemExit(f"scripts/bench forward: {why}")
    with tempfile.TemporaryDirectory() as folder:
        program = build(args, folder)
        good = swap(args, program, folder)
        good &= idle(args, program)
    print(f"\nBars (no frame without a program): {'held' if good else 'MISSED'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
