"""Connections that break when the servers of a PoP change (docs/benchmarks.md), in network namespaces; needs root.

    scripts/bench pop [--flows N] [--only METHOD] [--row ROW] [--every MS]

A router with BIRD, four servers with cb-edge and a fifth that is added, two clients with N flows of TCP (HTTP/1.1 over TLS) and N of QUIC (HTTP/3) between them, half of each over IPv6. Each flow asks
every few seconds, through the server, an origin behind it. It is broken when its connection ends, when nothing comes for five seconds, or when another connection had to be opened
in its place. What broke is opened anew before the next row.

  ecmp     the router shares connections out among the servers that announce the address, by the kernel's hash
  maglev   the router has a table made by plain Maglev, of 65,537 slots, that is made anew at each change
  libcb    BIRD's routes, and every server forwards (libcb-xdp, GUE) by a table of 65,537 buckets that moves in two phases

  add         a fifth server comes
  drain       one is to get no new connections
  back        it gets some again
  weight      one server's share doubles
  three       one is drained, another one's share doubles, a third is drained: within two seconds
  rehash      one server's announcement goes for three seconds: other routes for all connections, the same servers (libcb: its forwarding
              crashes and starts again meanwhile)
  kill        one server's power goes off

Figures are broken connections, TCP + QUIC; of `kill` those of other servers than the dead one stand after the dead one's own.
"""

import argparse
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tests/world"))
import pop  # noqa: E402
import world  # noqa: E402
from maglev import Maglev  # noqa: E402
from plane import Plane  # noqa: E402

ROWS = ("add", "drain", "back", "weight", "three", "rehash", "kill")
STALL_MS = 5000
SERVERS, SPARE = 5, "s15"


class Ecmp:
    """BIRD's routes are all there is. A server without a route is drained; shares can not be set."""

    name = "ecmp"
    skips = ("weight", "three")

    def begin(self, w):
        self.w = w
        w.serve()

    def add(self):
        self.w.start(SPARE)

    def drain(self):
        self.w.withdraw("s12")

    def back(self):
        self.w.start("s12")

    def rehash(self):
        self.w.withdraw("s11")
        time.sleep(3)
        self.w.start("s11")

    def kill(self):
        self.w.kill("s13")


class PlainMaglev:
    name = "maglev"
    skips = ()

    def begin(self, w):
        self.w, self.weights = w, {f"s1{i}": 1 for i in range(1, SERVERS)}
        w.serve()
        w.start_edge(SPARE)  # it runs; only the table decides
        self.maglev = Maglev(w, 1)
        self.maglev.set(self.weights)

    def change(self, **weights):
        self.weights.update(weights)
        self.maglev.set(self.weights)

    def add(self):
        self.change(**{SPARE: 1})

    def drain(self):
        self.change(s12=0)

    def back(self):
        self.change(s12=1)

    def weight(self):
        self.change(s11=2)

    def three(self):
        for step in ({"s12": 0}, {"s14": 2}, {"s13": 0}):
            self.change(**step)
            time.sleep(1)

    def after_three(self):
        self.change(s12=1, s14=1, s13=1)

    def rehash(self):
        """Another balancer has the same table: nothing changes for the router's packets."""
        self.w.withdraw("s11")
        time.sleep(3)
        self.w.start("s11")

    def kill(self):
        self.w.kill("s13")
        self.change(s13=0)


class Libcb:
    name = "libcb"
    skips = ()

    def begin(self, w):
        self.w, self.plane = w, Plane(w, 1)
        w.serve()
        self.plane.begin([f"s1{i}" for i in range(1, SERVERS)])

    def change(self, name, **how):
        self.plane.member(name, **how)
        self.plane.settle()

    def add(self):
        self.w.start_edge(SPARE)
        self.plane.start_host(SPARE)
        self.w.start(SPARE)
        self.change(SPARE)

    def drain(self):
        self.change("s12", state="draining")

    def back(self):
        self.change("s12")

    def weight(self):
        self.change("s11", weight=200)

    def three(self):
        for name, how in (("s12", {"state": "draining"}), ("s14", {"weight": 200}), ("s13", {"state": "draining"})):
            self.plane.member(name, **how)
            time.sleep(1)
        self.plane.settle()

    def after_three(self):
        for name in ("s12", "s14", "s13"):
            self.change(name)

    def rehash(self):
        self.plane.crash_host("s11")
        self.w.withdraw("s11")
        time.sleep(3)
        self.plane.start_host("s11")
        self.w.start("s11")

    def kill(self):
        self.plane.kill("s13")


METHODS = (Ecmp, PlainMaglev, Libcb)


def measure(method, args):
    """{row: (tcp of the victims, quic of them, of others tcp, of others quic, moved)}"""
    found = {}
    with pop.Pops(args.build, pops=(SERVERS,), clients=2, spare=1) as w:
        method.begin(w)
        load = None
        for row in ROWS:
            if row in method.skips or args.row not in (None, row):
                continue
            if not load or row == "kill":  # the dead one's share is to be what the table says, not what was left of it
                if load:
                    load.stop()
                load = w.load(tcp=args.flows, quic=args.flows, every_ms=args.every, stall_ms=STALL_MS, again=True)
                load.until_live(300)
                calm(load, args)
            load.mark()
            getattr(method, row)()
            time.sleep((args.every + STALL_MS) / 1000 + 2)
            counts = load.report()
            dead = ("s13",) if row == "kill" else ()
            own = [sum(counts[k]["broken_of"].get(n, 0) for n in dead) for k in ("tcp", "quic")]
            found[row] = own + [counts[k]["broken"] - n for k, n in zip(("tcp", "quic"), own)] + [sum(counts[k]["moved"] for k in ("tcp", "quic"))]
            print(f"{method.name} {row}: {found[row]} {({k: counts[k]['reasons'] for k in ('tcp', 'quic')})} {counts['detail'][:1]}", file=sys.stderr, flush=True)
            getattr(method, f"after_{row}", lambda: None)()
            load.until_live(300)
            time.sleep((args.every + STALL_MS) / 1000)
            load.until_live(300)
            calm(load, args)
    return found


def calm(load, args):
    """Nothing may break while nothing happens: else the machine is too slow for the load, and figures would say nothing."""
    load.mark()
    counts = load.settle(args.every / 1000 + 1)
    lost = sum(counts[k]["broken"] for k in ("tcp", "quic"))
    if lost:
        raise SystemExit(f"scripts/bench pop: {lost} connections broke although nothing had happened ({counts['detail']}): try fewer --flows or a longer --every")


def cell(row, values):
    if values is None:
        return "-"
    own_tcp, own_quic, tcp, quic, moved = values
    text = f"{tcp:,} + {quic:,}"
    if row == "kill":
        text = f"{own_tcp:,} + {own_quic:,} of its own, {text} others"
    return text + (f", {moved} answered by another server" if moved else "")


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench pop", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--flows", type=int, default=2000)
    parser.add_argument("--every", type=int, default=4000)
    parser.add_argument("--only", choices=[m.name for m in METHODS])
    parser.add_argument("--row", choices=ROWS)
    args = parser.parse_args()
    why = world.why_not(*pop.PROGRAMS)
    if why:
        raise SystemExit(f"scripts/bench pop: {why}")
    found = {m.name: measure(m(), args) for m in METHODS if args.only in (None, m.name)}
    print(f"\n| of {args.flows:,} TCP + {args.flows:,} QUIC | " + " | ".join(found) + " |\n|---|" + "---|" * len(found))
    for row in ROWS:
        if any(row in rows for rows in found.values()):
            print(f"| {row} | " + " | ".join(cell(row, rows.get(row)) for rows in found.values()) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
