"""What a datagram costs by AF_XDP, beside a UDP socket with recvmmsg, sendmmsg, GRO and GSO (docs/benchmarks.md).

    scripts/bench xsk [--rounds N] [--count N] [--only ROW]

Two network namespaces with a veth pair; one asks (tests/bench/xsk_load.c, an ordinary socket), the other answers (examples/xdp_echo.c: the same handler over both). The server and
the client have a processor each. Socket and AF_XDP alternate; medians over the rounds. `server`: processor time of the server's process for a datagram that comes and its answer.
`both`: with that of the client's process. On a veth the sender's processor carries a datagram into the receiver's kernel: what that does (its network stack for the socket,
the XDP program and a copy for AF_XDP) happens on the client's processor, and the answers' way through the client's stack on the server's. So `server` alone flatters whoever leaves more to the kernel.
Copy mode: veth has no zero-copy. Needs root.
"""

import argparse
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROWS = {  # name: (what the client does, arguments of xdp_echo)
    "64 B, 64 flows": (dict(size=64, flows=64, window=256), ()),
    "512 B, 64 flows": (dict(size=512, flows=64, window=256), ()),
    "1,400 B, 64 flows": (dict(size=1400, flows=64, window=256), ()),
    "64 B, answers of 512 B": (dict(size=64, answer=512, flows=64, window=256), ("--answer", "512")),
    "64 B, one flow": (dict(size=64, flows=1, window=256), ()),
    "1,400 B, one flow, trains of 16": (dict(size=1400, flows=1, window=256, gso=16), ()),
}
WAYS = ("socket", "AF_XDP")
ADDRESSES = {"IPv4": ("10.77.0.1/24", "10.77.0.2/24"), "IPv6": ("fd77::1/64", "fd77::2/64")}


class Pair:
    def __init__(self):
        self.names = [f"bench-xsk-{os.getpid() % 100000}-{who}" for who in "cs"]

    def inside(self, who, *command):
        return ["ip", "netns", "exec", self.names[who], *map(str, command)]

    def __enter__(self):
        try:
            for name in self.names:
                subprocess.run(["ip", "netns", "add", name], check=True)
            subprocess.run(["ip", "link", "add", "v0", "netns", self.names[0], "type", "veth", "peer", "name", "v0", "netns", self.names[1]], check=True)
            for who in (0, 1):
                subprocess.run(self.inside(who, "ethtool", "-K", "v0", "tx", "off"), check=True, capture_output=True)
                for pair in ADDRESSES.values():
                    subprocess.run(["ip", "-n", self.names[who], "addr", "add", pair[who], "dev", "v0", *(["nodad"] if ":" in pair[who] else [])], check=True)
                subprocess.run(["ip", "-n", self.names[who], "link", "set", "v0", "up"], check=True)
            time.sleep(1)  # until the link is up
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc):
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def numbers(text):
    return {name: int(n) for name, n in re.findall(r"(\w+) (\d+)", text)}


def on_cpu_ns(pid):
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def children_s():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def ask(net, args, address, count, plan):
    words = [str(word) for item in {**plan, "count": count}.items() for word in item]
    done = subprocess.run(net.inside(0, "taskset", "-c", args.cpus[0], args.build / "tests/bench/xsk_load", address, 7, *words), check=True, capture_output=True, text=True)
    return numbers(done.stdout)


def measure(net, args, way, address, plan, extra):
    """(ns of the server, ns of both) a datagram."""
    command = net.inside(1, "taskset", "-c", args.cpus[1], args.build / "examples/xdp_echo", *extra, *(["--socket"] if way == "socket" else []), "v0", "[::]:7")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            said = server.stdout.readline()
            assert ("AF_XDP" in said) == (way == "AF_XDP"), said
            ask(net, args, address, 2000, plan)
            server_before, client_before = on_cpu_ns(server.pid), children_s()
            got = ask(net, args, address, args.count, plan)
            server_ns, client_ns = on_cpu_ns(server.pid) - server_before, (children_s() - client_before) * 1e9
            assert got["bad"] == 0 and got["received"] >= got["sent"] * 0.99, got
        finally:
            server.send_signal(signal.SIGTERM)
            tail = server.stdout.read()
    if way == "AF_XDP":
        s = numbers(tail)
        assert s["xdp_rx"] >= s["rx"] * 0.99 and s["xdp_tx"] >= s["tx"] * 0.99, s
    return server_ns / got["received"], (server_ns + client_ns) / got["received"]


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench xsk", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=200_000, help="datagrams a round (200,000)")
    parser.add_argument("--only", help="rows whose name contains this")
    args = parser.parse_args()
    args.build = args.build.resolve()
    cpus = sorted(os.sched_getaffinity(0))
    args.cpus = (cpus[0], cpus[-1])
    if os.geteuid() != 0:
        print("scripts/bench xsk needs root: AF_XDP, network namespaces", file=sys.stderr)
        return 1
    print("| datagrams | socket: server ns | AF_XDP: server ns | ratio | socket: both ns | AF_XDP: both ns | ratio |\n|---|---|---|---|---|---|---|")
    with Pair() as net:
        for name, (plan, extra) in ROWS.items():
            for family, pair in ADDRESSES.items():
                label = f"{name}, {family}"
                if (args.only and args.only not in label) or (family == "IPv6" and name != "64 B, 64 flows"):
                    continue
                found = {way: [] for way in WAYS}
                for _ in range(args.rounds):
                    for way in WAYS:
                        found[way].append(measure(net, args, way, pair[1].split("/")[0], plan, extra))
                middle = {way: [statistics.median(column) for column in zip(*rows)] for way, rows in found.items()}
                (socket_server, socket_both), (xdp_server, xdp_both) = (middle[way] for way in WAYS)
                print(f"| {label} | {socket_server:,.0f} | {xdp_server:,.0f} | {xdp_server / socket_server:.2f} | {socket_both:,.0f} | {xdp_both:,.0f} "
                      f"| {xdp_both / socket_both:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
