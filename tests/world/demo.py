"""What `scripts/demo --pop` shows: the world of pop.py with connections that live, a view of it once a second, and commands that break things.

    demo.py --build DIR [--seconds N] [--flows N] [--pops N,N] [--ecmp]

On a terminal the view stays in place and commands are typed below it. Else a line a second is printed, and commands are read from standard input.
"""

import argparse
import codecs
import os
import queue
import select
import shutil
import signal
import sys
import termios
import threading
import time
import tty
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import pop  # noqa: E402
import world  # noqa: E402

KINDS = ("tcp", "quic")
BAR = 30


class Refused(Exception):
    """A command that cannot be: its text says why."""


class Demo:
    def __init__(self, w, load):
        self.w, self.load = w, load
        self.started = time.monotonic()
        self.events, self.work, self.busy = [], queue.Queue(), None
        self.before, self.rerouted = None, None
        self.ended = False
        threading.Thread(target=self._obey, daemon=True).start()

    # ---- commands ----
    def server(self, name):
        if name not in self.w.servers:
            raise Refused(f"there is no server {name}; there are {', '.join(self.w.servers)}")
        return name

    def running(self, name):
        if not self.w.servers[self.server(name)].up:
            raise Refused(f"{name} does not run: start {name}")
        return name

    def uplink(self, client, device="up1"):
        if client not in self.w.clients:
            raise Refused(f"there is no client {client}; there are {', '.join(self.w.clients)}")
        if device not in ("up1", "up2"):
            raise Refused(f"{client} has up1 and up2, and no {device}")
        return client, device

    def kill(self, name):
        self.w.kill(self.running(name), wait=False)

    def start(self, name):
        self.w.start(self.server(name))

    def drain(self, name):
        self.w.drain(self.running(name))

    def back(self, name):
        self.w.undrain(self.running(name))

    def weight(self, name, weight):
        if not self.w.forwarding:
            raise Refused("ECMP has no weights: without --ecmp there are")
        if not weight.isdigit() or not 1 <= int(weight) <= 65535:
            raise Refused(f"{weight!r} is no number from 1 to 65535 (100 is what all begin with)")
        self.w.weight(self.server(name), int(weight))

    def cut(self, client, device="up1"):
        client, device = self.uplink(client, device)
        self.w.hosts[client].cut(device)

    def mend(self, client, device="up1"):
        client, device = self.uplink(client, device)
        self.w.hosts[client].mend(device)

    def move(self, client, device="up1"):
        client, device = self.uplink(client, device)
        self.w.move(client, int(device[2:]))

    def rebind(self, client, device="up1"):
        client, device = self.uplink(client, device)
        self.w.rebind(client, int(device[2:]))

    def wire(self, what, client, device, value):
        client, device = self.uplink(client, device)
        try:
            number = float(value)
        except ValueError:
            number = -1
        most = {"loss": 100, "delay": 1000}[what]
        if not 0 <= number <= most:
            raise Refused(f"{value!r} is no number from 0 to {most}")
        self.w.shim(client, device, **{what: number})

    def loss(self, client, device, value):
        self.wire("loss", client, device, value)

    def delay(self, client, device, value):
        self.wire("delay", client, device, value)

    COMMANDS = {
        "kill": (kill, "SERVER", 1, 1, "power off, without a word to anybody"),
        "start": (start, "SERVER", 1, 1, "it comes back"),
        "drain": (drain, "SERVER", 1, 1, "it is to get no new connections"),
        "back": (back, "SERVER", 1, 1, "it gets some again"),
        "weight": (weight, "SERVER WEIGHT", 2, 2, "its share of what is new; all begin with 100"),
        "cut": (cut, "CLIENT [UPLINK]", 1, 2, "the cable of an uplink is pulled"),
        "mend": (mend, "CLIENT [UPLINK]", 1, 2, "and put back"),
        "move": (move, "CLIENT [UPLINK]", 1, 2, "the client gets another address"),
        "rebind": (rebind, "CLIENT [UPLINK]", 1, 2, "its NAT gives it another address, and it does not know"),
        "delay": (delay, "CLIENT UPLINK MS", 3, 3, "one way"),
        "loss": (loss, "CLIENT UPLINK PERCENT", 3, 3, "in both directions"),
    }

    def say(self, text):
        self.events.append(f"{self.clock()} {text}")

    def clock(self):
        seconds = int(time.monotonic() - self.started)
        return f"{seconds // 60:02}:{seconds % 60:02}"

    def command(self, line):
        words = line.split()
        if not words:
            return
        if words[0] in ("quit", "exit", "q"):
            self.ended = True
        elif words[0] not in self.COMMANDS:
            self.say(f"{words[0]!r} is no command; there are {', '.join(self.COMMANDS)}, quit")
        else:
            self.work.put(words)

    def _obey(self):
        while True:
            words = self.work.get()
            function, form, least, most, _ = self.COMMANDS[words[0]]
            self.busy, begun = " ".join(words), time.monotonic()
            try:
                if not least <= len(words) - 1 <= most:
                    raise Refused(f"{words[0]} {form}")
                function(self, *words[1:])
                self.say(f"{' '.join(words)}: done in {time.monotonic() - begun:.1f} s")
            except Refused as why:
                self.say(f"{' '.join(words)}: {why}")
            except Exception as error:  # noqa: BLE001 - a person looks at it, and goes on
                if not self.ended:
                    self.say(f"{' '.join(words)}: failed: {str(error).splitlines()[0][:150]}")
            self.busy = None

    # ---- what is seen ----
    def look(self):
        """How things are now; what changed goes to the events."""
        counts = self.load.counts()
        routes = {}
        for p in range(1, len(self.w.pops) + 1):
            routes[f"r{p}"] = self.w.next_hops(f"r{p}")
        if self.before:
            lost = {k: counts[k]["broken"] - self.before[k]["broken"] for k in KINDS}
            if any(lost.values()):
                whose = sorted({n for k in KINDS for n, v in counts[k]["broken_of"].items() if v > self.before[k]["broken_of"].get(n, 0)})
                self.say(f"broken: {lost['tcp']} TCP, {lost['quic']} QUIC; they were with {', '.join(whose)}")
        if self.rerouted not in (None, routes):
            for r, hops in routes.items():
                if hops != self.rerouted[r]:
                    self.say(f"{r} leads to {', '.join(hops) or 'nobody'}")
        self.before, self.rerouted = counts, routes
        return counts, routes

    def table(self):
        """What the writers of the tables say of the servers: {name: member}."""
        found = {}
        for p in range(1, len(self.w.pops) + 1) if self.w.forwarding else ():
            found.update(self.w.members(p))
        return found

    @staticmethod
    def state(server, routes, table):
        if not server.up:
            return "off"
        member = table.get(server.name)
        if member and member["drained"]:
            return "draining" if member["first"] or member["leaving"] else "drained"
        if member and member["state"] != "up":
            return "not in the table"
        return "serving" if server.name in routes[f"r{server.pop}"] else "running, no route"

    def uplinks(self, client):
        without = [d for d in ("up1", "up2") if (client.name, d) in self.w.pulled]
        return client.name + (f" ({' and '.join(without)} cut)" if without else "")

    def line(self):
        counts, routes = self.look()
        shares = " ".join(f"{s.name}={counts['tcp']['servers'].get(s.name, 0)}+{counts['quic']['servers'].get(s.name, 0)}" for s in self.w.servers.values())
        return (f"{self.clock()} live {counts['tcp']['live']} TCP {counts['quic']['live']} QUIC, broken {counts['tcp']['broken']} {counts['quic']['broken']}, "
                f"moved {counts['tcp']['moved'] + counts['quic']['moved']}; {shares}; " + " ".join(f"{r}>{','.join(h) or '-'}" for r, h in routes.items()))

    def view(self, width, height):
        counts, routes = self.look()
        table = self.table()
        total = sum(counts[k]["live"] for k in KINDS) or 1
        lines = [f"A service at {pop.VIP4} and {pop.VIP6}, {len(self.w.pops)} PoPs, {len(self.w.servers)} servers   {self.clock()}",
                 f"{counts['tcp']['live']} TCP + {counts['quic']['live']} QUIC connections live · broken since the start: {counts['tcp']['broken']} TCP, "
                 f"{counts['quic']['broken']} QUIC · answered by another server: {counts['tcp']['moved'] + counts['quic']['moved']}", ""]
        for p in range(1, len(self.w.pops) + 1):
            near = ", ".join(self.uplinks(c) for c in self.w.clients.values() if c.router.name == f"r{p}")
            lines.append(f"PoP {p}: {near or 'no client'} == r{p} -> {', '.join(routes[f'r{p}']) or 'nobody'}")
            for server in (s for s in self.w.servers.values() if s.pop == p):
                tcp, quic = (counts[k]["servers"].get(server.name, 0) for k in KINDS)
                bar = "#" * round(BAR * (tcp + quic) / total)
                lines.append(f"   {server.name}  {self.state(server, routes, table):18} {tcp:5} TCP {quic:5} QUIC  {bar:{BAR}} {100 * (tcp + quic) / total:3.0f} %"
                             + (f"   of new ones {100 * table[server.name]['share']:3.0f} %" if server.name in table else ""))
        lines += ["", *(f"{name} {form}" + " " * (32 - len(name) - len(form)) + text for name, (_, form, _, _, text) in self.COMMANDS.items()),
                  "quit" + " " * 29 + "or Ctrl-C: everything ends and nothing is left", ""]
        room = max(height - len(lines) - 2, 1)
        lines += self.events[-room:]
        if self.busy:
            lines.append(f"... {self.busy}")
        return [line[:width] for line in lines[:height - 1]]


def hints(w, build):
    """Commands for another terminal."""
    some, client, router = next(iter(w.servers.values())), next(iter(w.clients.values())), "r1"
    inside = " ".join(client.host.inside())
    how = "Every server forwards to the owner of a connection; k1, k2 write the tables." if w.forwarding else "Only the routers decide who gets a connection (--ecmp)."
    return f"""
    up1               s11 s12 ...        {client.name} has two uplinks to {client.router.name}; r1 and r2 speak BGP
c1 ===== r1 ---------'                   with their servers and each other (BIRD), and share
    up2   |  \\                           connections out by ECMP. All servers have {pop.VIP4}
          |   origin                     and {pop.VIP6}. s11 is 10.1.0.11,
c2 ===== r2 ---------.                   2001:db8:1::11; c1 is 10.21.1.10 on up1, 10.21.2.10 on up2.
                      s21 s22 ...         {how}

In another terminal, as root:
  {inside} curl -i --cacert {w.ca}/ca.pem https://{pop.VIP4}/headers
  {inside} {build}/examples/http_client --ca {w.ca}/ca.pem -3 -v 'https://[{pop.VIP6}]/headers'
  {' '.join(some.host.inside())} {build}/cbctl top --socket {w.folder}/{some.name}.sock
{f"  {build}/cbctl lb members --socket {w.folder}/k1.sock{chr(10)}  {build}/cbctl lb counters --socket {w.folder}/{some.name}.sock{chr(10)}" if w.forwarding else ""}  birdc -s {w.folder}/{router}.bird.ctl show route for {pop.VIP4}/32 all
  ip -n {w.hosts[router].space} route show {pop.VIP4}
The logs are in {w.folder}.
"""


def interact(demo, seconds):
    """The terminal's loop."""
    kept = termios.tcgetattr(sys.stdin)
    typed, due, decoder = "", 0.0, codecs.getincrementaldecoder("utf-8")("ignore")
    try:
        tty.setcbreak(sys.stdin)
        sys.stdout.write("\x1b[?1049h")
        while not demo.ended and not over(demo, seconds):
            if time.monotonic() >= due:
                due = time.monotonic() + 1
                width, height = shutil.get_terminal_size()
                lines = demo.view(width, height)
                sys.stdout.write("\x1b[H" + "".join(f"{line}\x1b[K\r\n" for line in lines) + "\x1b[J")
            sys.stdout.write(f"\r> {typed}\x1b[K")
            sys.stdout.flush()
            if not select.select([sys.stdin], [], [], 0.1)[0]:
                continue
            for c in decoder.decode(os.read(sys.stdin.fileno(), 1024)):
                if c in "\r\n":
                    demo.command(typed)
                    typed, due = "", 0.0
                elif c in "\x7f\b":
                    typed = typed[:-1]
                elif c == "\x04":
                    demo.ended = True
                elif c.isprintable() and len(typed) < 60:
                    typed += c
    finally:
        sys.stdout.write("\x1b[?1049l")
        sys.stdout.flush()
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, kept)


def over(demo, seconds):
    return seconds is not None and time.monotonic() - demo.started >= seconds


def report(demo, seconds):
    """Without a terminal."""
    told, due, rest, open_ = 0, 0.0, b"", True
    while not demo.ended and not over(demo, seconds):
        if time.monotonic() >= due:
            due = time.monotonic() + 1
            print(demo.line(), flush=True)
        while told < len(demo.events):
            print(f"  {demo.events[told]}", flush=True)
            told += 1
        if not select.select([sys.stdin] if open_ else [], [], [], 0.1)[0]:
            continue
        data = os.read(sys.stdin.fileno(), 4096)
        open_ = bool(data)
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            demo.command(line.decode(errors="replace"))


def shape(text):
    try:
        numbers = tuple(int(n) for n in text.split(","))
    except ValueError:
        numbers = ()
    if not 1 <= len(numbers) <= 2 or not all(1 <= n <= 9 for n in numbers):
        raise argparse.ArgumentTypeError("one or two numbers of servers from 1 to 9, such as 2,2")
    return numbers


def positive(text):
    if not text.isdigit() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError("a number from 1 to 100000")
    return int(text)


def main():
    parser = argparse.ArgumentParser(prog="scripts/demo --pop", description="Two PoPs of two servers to look at and to break, in network namespaces of this machine. Needs root.")
    parser.add_argument("--build", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=positive, help="end after so many")
    parser.add_argument("--flows", type=positive, default=100, help="connections of TCP, and as many of QUIC (100)")
    parser.add_argument("--pops", type=shape, default=(2, 2), help="servers of each PoP (2,2)")
    parser.add_argument("--ecmp", action="store_true", help="the servers do not forward: see what becomes of connections then")
    parser.add_argument("--may", action="store_true", help=argparse.SUPPRESS)  # only says whether it could run
    args = parser.parse_args()
    why = world.why_not(*pop.PROGRAMS)
    if why:
        raise SystemExit(f"demo: {why}")
    if args.may:
        return 0

    def end(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, end)
    demo = None
    try:
        forwarding = not args.ecmp and (args.build / "libcb-xdp.so").exists()
        if not forwarding and not args.ecmp:
            print("demo: libcb-xdp was not built (it needs clang, bpftool and libbpf-dev), so the servers do not forward, as with --ecmp", flush=True)
        with pop.Pops(args.build, pops=args.pops, clients=2, shims=True, forwarding=forwarding) as w:
            print("== hosts, wires, BGP and servers", flush=True)
            w.serve()
            load = w.load(tcp=args.flows, quic=args.flows, every_ms=1000, stall_ms=3000, again=True, follow=True).until_live(120)
            load.mark()
            print(hints(w, args.build.resolve()), flush=True)
            demo = Demo(w, load)
            if sys.stdin.isatty() and sys.stdout.isatty():
                print("Enter shows it.", flush=True)
                sys.stdin.readline()
                interact(demo, args.seconds)
            else:
                report(demo, args.seconds)
            demo.ended = True
            print(demo.line(), flush=True)
    except KeyboardInterrupt:
        print("ending", flush=True)
    except AssertionError as error:
        raise SystemExit(f"demo: {error}") from None
    return 0


if __name__ == "__main__":
    sys.exit(main())
