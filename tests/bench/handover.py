"""How long a client is without an answer when the network below it changes (docs/handover.md).

    scripts/bench handover [--quick] [--only ROW]

Rows that begin with `sim-` run in virtual time (tests/bench/handover_sim.c): a download over 20 Mbit/s with a buffer of one bandwidth-delay
product; the figure is the longest time without a byte after the change. The others run in network namespaces, as root, over links without a
delay of their own (a tbf of 160 Mbit/s towards the client) with tests/interop/handover_client.c: `move-*`, a download whose client gets another
address, from the moment that the new one is there to the first byte; `udp-swallowed`, requests every 20 ms, HTTP/3, from the moment that UDP is
swallowed to the end of the first request that came after or was under way; `pop-dies`, the same when the point of presence in use falls silent and
the name has another address. Medians with minimum and maximum.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tests/interop"))
import netlab  # noqa: E402


class Lab:
    def __init__(self, build, folder, rounds):
        self.build, self.folder, self.rounds, self.serial = build.resolve(), Path(folder), rounds, 0
        self.running = []

    def own(self, name):
        return next(p for p in sorted(self.build.rglob(name)) if p.is_file() and os.access(p, os.X_OK))

    def prepare(self):
        """Certificates, files and the client, for the rows in namespaces."""
        why = netlab.why_not()
        if why:
            raise SystemExit(f"scripts/bench handover: {why}; only rows that begin with sim- run")
        subprocess.run([self.own("cbctl"), "ca", "dev", "--dir", self.folder / "ca", "localhost", *netlab.POPS, netlab.NAME], check=True, capture_output=True)
        (self.folder / "www").mkdir()
        (self.folder / "www/small").write_bytes(b"small\n")
        with open(self.folder / "www/big", "wb") as f:
            f.truncate(400 << 20)
        self.client = netlab.build_client(self.folder, self.build)

    def start(self, *command):
        self.serial += 1
        out = self.folder / f"log-{self.serial}"
        with open(out, "wb") as log:
            process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        self.running.append(process)
        return process, out

    def stop(self, process):
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.running.remove(process)

    def stop_all(self):
        for process in list(self.running):
            self.stop(process)

    def serve(self, net, pop, edge):
        address = netlab.POPS[("p1", "p2").index(pop)]
        cert, key = self.folder / "ca/localhost.pem", self.folder / "ca/localhost-key.pem"
        if edge:
            self.start(*net.inside(pop, self.own("static_server"), "127.0.0.1:8080", self.folder / "www"))
            conf = self.folder / f"edge-{pop}.json"
            conf.write_text(json.dumps({"listeners": {"https": {"address": f"{address}:443", "tls": {"certificates": [{"cert_file": str(cert), "key_file": str(key)}]}}},
                                        "groups": {"app": {"origins": [{"url": "http://127.0.0.1:8080"}]}}, "routes": [{"host": netlab.NAME, "group": "app"}],
                                        "ticket_key_file": str(self.folder / "tickets")}))
            self.start(*net.inside(pop, self.own("cb-edge"), "-c", conf))
        else:
            self.start(*net.inside(pop, self.own("static_server"), f"{address}:443", cert, key, self.folder / "www"))
        time.sleep(0.5)

    def wait_ends(self, log, n):
        end = time.monotonic() + 30
        while log.read_text().count("end ") < n:
            if time.monotonic() > end:
                raise SystemExit(f"the client does not get on:\n{log.read_text()[-2000:]}")
            time.sleep(0.005)


def sim(kind, rtt):
    def row(lab):
        out = subprocess.run([lab.own("handover_sim"), kind, str(rtt), str(4 * lab.rounds)], check=True, capture_output=True, text=True)
        return [float(line) for line in out.stdout.split()]
    return row


def moves(gap):
    def row(lab):
        found = []
        with netlab.Net() as net:
            lab.serve(net, "p1", edge=False)
            client, log = lab.start(*net.inside("c", lab.client, "-f", "-v", "4", lab.folder / "ca/ca.pem", f"https://{netlab.POPS[0]}/big"))
            time.sleep(0.7)
            changes = []
            for _ in range(4 * lab.rounds):
                changes.append(net.move(gap))
                time.sleep(0.3)
            lab.stop(client)
            gaps = netlab.parse(log.read_text())[1]
            for at in changes:
                after = [end - at for begin, end in gaps if begin <= at + 0.002 and end > at]
                found.append(1000 * after[0] if after else 5.0)  # shorter pauses are not told apart
            lab.stop_all()
        return found
    return row


def until_answered(lab, net, arguments, strike):
    """From strike() to the end of the first request that ended well and began after it, or was under way."""
    client, log = lab.start(*net.inside("c", lab.client, *arguments))
    lab.wait_ends(log, 10)
    at = time.monotonic()
    strike()
    time.sleep(3)
    lab.stop(client)
    ends = netlab.parse(log.read_text())[0]
    bad = [e for e in ends if e["rc"]]
    if bad:
        raise SystemExit(f"a request failed: {bad[0]}")
    return 1000 * (next(e["end"] for e in ends if e["end"] > at + 0.05) - at)


def udp_swallowed(lab):
    found = []
    with netlab.Net() as net:
        lab.serve(net, "p1", edge=False)
        for _ in range(lab.rounds):
            found.append(until_answered(lab, net, ("-v", "7", "-n", "100000", "-i", "20", lab.folder / "ca/ca.pem", f"https://{netlab.POPS[0]}/small"),
                                        lambda: net.drop_udp(True)))
            net.drop_udp(False)
        lab.stop_all()
    return found


def pop_dies(lab):
    found = []
    with netlab.Net() as net:
        for pop in ("p1", "p2"):
            lab.serve(net, pop, edge=True)
        names = netlab.NameServer(net)
        for _ in range(lab.rounds):
            found.append(until_answered(lab, net, ("-v", "4", "-r", "127.0.0.1:53", "-n", "100000", "-i", "20", lab.folder / "ca/ca.pem", f"https://{netlab.NAME}/small"),
                                        lambda: net.die("p1")))
            net.live("p1")
            time.sleep(0.3)
        names.stop()
        lab.stop_all()
    return found


ROWS = {
    "sim-address-10": ("address replaced, 10 ms round trip", sim("address", 10)),
    "sim-address-40": ("address replaced, 40 ms", sim("address", 40)),
    "sim-address-200": ("address replaced, 200 ms", sim("address", 200)),
    "sim-nat-10": ("NAT rebinds, 10 ms", sim("nat", 10)),
    "sim-nat-40": ("NAT rebinds, 40 ms", sim("nat", 40)),
    "sim-nat-200": ("NAT rebinds, 200 ms", sim("nat", 200)),
    "move-overlap": ("address replaced, the new one is there first", moves(None)),
    "move-gap": ("address replaced, none for 50 ms: counted from the new one", moves(0.05)),
    "udp-swallowed": ("HTTP/3 in use, UDP swallowed: first answer over TCP", udp_swallowed),
    "pop-dies": ("PoP in use falls silent: first answer from another address", pop_dies),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 10")
    parser.add_argument("--only", choices=sorted(ROWS))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="client-handover-") as folder:
        os.chmod(folder, 0o755)
        lab = Lab(args.build, folder, 3 if args.quick else 10)
        names = [args.only] if args.only else list(ROWS)
        if not all(name.startswith("sim-") for name in names):
            lab.prepare()
        print("| row | what | ms without an answer | n |\n|---|---|---|---|")
        try:
            for name in names:
                what, row = ROWS[name]
                got = row(lab)
                print(f"| `{name}` | {what} | **{statistics.median(got):.0f}** ({min(got):.0f}-{max(got):.0f}) | {len(got)} |", flush=True)
        finally:
            lab.stop_all()


if __name__ == "__main__":
    main()
