"""What the forwarding table costs, in processor time (docs/design/forwarding.md), and what the datapath does (docs/design/datapath.md).

    scripts/bench lb [--rounds N] [--part table|datapath]

`repair`: one member of N dies; the writer finds its buckets, gives them to others and writes the record; `apply` is what each other host does
with it. Beside it a table built anew by Maglev, and the share of the living members' buckets that this moves although nothing happened to them (the repair moves
none: `excess`). Then what one look-up takes, beside rendezvous hashing and the hash of a tuple of IPv6; and what a choice of each policy takes, with the end of a call; and what
it takes to write a connection ID of QUIC-LB and to read one. Medians over the rounds.

The datapath: nanoseconds a packet by the kernel's test run, as root, gross: with a harness that takes another flow and puts the frame back each time (without that, what encapsulates
would be measured once, and packets that pass a million times). `floor` is the same harness around a program that only makes room and writes constant headers. Goals hold for a floor of 51 ns, and are
larger in proportion where it is. Then packets that are taken out of an encapsulation, kept or sent on.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

SIZES = ((16381, 100), (65537, 10), (65537, 100), (65537, 1000), (655373, 100))
LOOKUPS = ((65537, 10), (65537, 100), (655373, 1000))
POLICIES, POOLS = ("round_robin", "least_connections", "power_of_two", "ip_hash", "ring_hash", "maglev", "latency"), (3, 10, 100)
CIDS = (("plain", 0, 8, 8), ("one block", 1, 8, 8), ("four passes, three to read", 2, 8, 9), ("four passes", 2, 9, 8))
BAR_US, BAR_SIZE = 200, (65537, 100)
FLOOR, FLOOR_NS, BY_FORM_NS = "floor, 20 bytes", 51, 25
FLOWS = {"1 flow": 130, "64 k flows": 150, "1 M flows": 160}
GOALS = {f"{protocol}, GUE with the other owner, {flows}": ns for protocol in ("TCP", "UDP") for flows, ns in FLOWS.items()}
GOALS |= {f"TCP, IPIP, {flows}": ns - 15 for flows, ns in FLOWS.items()}
GOALS |= {"QUIC, plain ID, 1 tuple": 110, "QUIC, plain ID, 1 M tuples": 110, "QUIC, one AES pass, 1 tuple": 165, "QUIC, one AES pass, 1 M tuples": 165}
CANNOT = 77


def run(args, *what):
    out = subprocess.run([args.build / "tests/bench/lb_speed", *map(str, what)], check=True, capture_output=True, text=True)
    return [float(x) for x in out.stdout.split()]


def medians(args, *what):
    return [statistics.median(column) for column in zip(*(run(args, *what) for _ in range(args.rounds)))]


def datapath(args):
    """Prints the table; whether all goals were met."""
    program = args.build / "tests/bench/forward_speed"
    if not program.exists():
        print("\nThe datapath was not measured: libcb-xdp is not built (libbpf, clang, bpftool).")
        return True
    ran = subprocess.run([program, str(args.rounds), str(args.packets)], capture_output=True, text=True)
    if ran.returncode == CANNOT:
        print("\nThe datapath was not measured: this process may not load BPF programs.")
        return True
    if ran.returncode:
        sys.exit(ran.stderr.strip())
    took = {name: (float(median), float(least)) for name, median, least in (line.split("\t") for line in ran.stdout.splitlines())}
    floor, good = took[FLOOR][0], True
    scale = max(1, floor / FLOOR_NS)
    print("\n| packet | ns | smallest | above the floor | goal | |\n|---|---|---|---|---|---|")
    for name, (median, least) in took.items():
        goal = GOALS[name] * scale if name in GOALS else None
        good &= goal is None or median <= goal
        print(f"| {name} | {median:.0f} | {least:.0f} | {median - floor:.0f} | {f'{goal:.0f}' if goal else '-'} | {'' if goal is None else 'met' if median <= goal else 'MISSED'} |")
    for flows in FLOWS:
        more = took[f"TCP, GUE with the other owner, {flows}"][0] - took[f"TCP, IPIP, {flows}"][0]
        good &= more <= BY_FORM_NS * scale
        print(f"| GUE above IPIP, {flows} | {more:.0f} | | | {BY_FORM_NS * scale:.0f} | {'met' if more <= BY_FORM_NS * scale else 'MISSED'} |", flush=True)
    return good


def between_hosts(args):
    """What the datapath's program costs packets of other hosts, and those that the sockets of this host decide about."""
    program = args.build / "tests/bench/forward_in_speed"
    if not program.exists():
        print("\nBetween hosts: not measured: built without libcb-xdp")
        return
    out = subprocess.run([program, str(max(args.rounds, 5)), "100000"], capture_output=True, text=True)
    if out.returncode == 77:
        print(f"\nBetween hosts: not measured: {out.stderr.strip()}")
        return
    out.check_returncode()
    print("\n| between hosts, by the kernel's test run | ns | least |\n|---|---|---|")
    for line in out.stdout.splitlines():
        print("| " + " | ".join(line.split("\t")) + " |", flush=True)


def table(args):
    """Prints the tables; whether all goals were met."""
    good = True
    print("| buckets | members | seed ms | repair µs | apply µs | record KiB | excess | Maglev anew µs | its excess |\n|---|---|---|---|---|---|---|---|---|")
    for buckets, members in SIZES:
        repair, apply, size, orphans, moved, maglev, excess, seed = medians(args, "repair", buckets, members)
        good &= moved == orphans and ((buckets, members) != BAR_SIZE or repair < BAR_US)
        print(f"| {buckets:,} | {members:,} | {seed:.2f} | {repair:.0f} | {apply:.0f} | {size / 1024:.1f} | {moved - orphans:.0f} of {orphans:,.0f} "
              f"| {maglev:.0f} | {excess:.2%} |", flush=True)
    print("\n| buckets | members | look-up ns | rendezvous ns | hash of a tuple ns |\n|---|---|---|---|---|")
    for buckets, members in LOOKUPS:
        found, rendezvous, tuple_ns, _ = medians(args, "lookup", buckets, members, 20_000_000)
        print(f"| {buckets:,} | {members:,} | {found:.1f} | {rendezvous:,.0f} | {tuple_ns:.1f} |", flush=True)
    print("\n| policy | " + " | ".join(f"{n} backends, ns" for n in POOLS) + " |\n|---|" + "---|" * len(POOLS))
    for number, name in enumerate(POLICIES, 1):
        print(f"| {name} | " + " | ".join(f"{medians(args, 'pick', number, n, 500_000)[0]:,.0f}" for n in POOLS) + " |", flush=True)
    print("\n| connection ID | server ID + nonce | write ns | read ns |\n|---|---|---|---|")
    for name, codec, server, nonce in CIDS:
        write, read = medians(args, "cid", codec, server, nonce, 2_000_000)
        print(f"| {name} | {server} + {nonce} | {write:.0f} | {read:.0f} |", flush=True)
    print(f"\nBars (no excess; a repair of {BAR_SIZE[0]:,} buckets, {BAR_SIZE[1]} members below {BAR_US} µs): {'held' if good else 'MISSED'}")
    return good


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench lb", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--packets", type=int, default=500_000, help="of each row of the datapath, a round")
    parser.add_argument("--part", choices=("table", "datapath"), help="only this one")
    args = parser.parse_args()
    good = table(args) if args.part != "datapath" else True
    if args.part != "table":
        good &= datapath(args)
        between_hosts(args)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
