"""A small network in namespaces: a client, a router, and two points of presence behind it, for handover tests and figures.

client (10.88.0.0/24) -- router -- pop1 (10.91.0.2) and pop2 (10.92.0.2). Needs root and ip(8). Names of namespaces begin with "client-".
"""

import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

POPS = ("10.91.0.2", "10.92.0.2")
NAME = "pop.test"


def why_not():
    """Why there can be no network here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None or shutil.which("tc") is None:
        return "ip and tc (iproute2) are not installed"
    probe = f"client-probe-{os.getpid()}"
    done = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", probe], capture_output=True)
    return None if done.returncode == 0 else f"no network namespaces here: {done.stderr.strip()}"


def build_client(folder, build, flags=()):
    """tests/interop/handover_client.c, linked with the library of `build`."""
    top = Path(__file__).resolve().parents[2]
    out = Path(folder) / "handover_client"
    lib = next(p for p in (Path(build) / "libcb.so", *Path(build).rglob("libcb.so")) if p.exists())
    subprocess.run(["cc", "-std=c11", "-D_GNU_SOURCE", "-O1", *flags, f"-I{top}/include", str(top / "tests/interop/handover_client.c"), str(lib), "-lgnutls",
                    f"-Wl,-rpath,{lib.parent}", "-o", str(out)], check=True)
    return out


class Net:
    """with Net() as net: the namespaces exist; all of them go at the end."""

    def __init__(self, rate="160mbit"):
        self.tag = f"client-{os.getpid() % 100000}"
        self.names = {who: f"{self.tag}-{who}" for who in ("c", "r", "p1", "p2")}
        self.rate, self.last = rate, 10

    def ip(self, who, *command):
        done = subprocess.run(["ip", "-n", self.names[who], *command], capture_output=True, text=True)
        assert done.returncode == 0, (done.args, done.stderr)

    def inside(self, who, *command):
        return ["ip", "netns", "exec", self.names[who], *map(str, command)]

    def link(self, a, name_a, address_a, b, name_b, address_b):
        subprocess.run(["ip", "link", "add", name_a, "netns", self.names[a], "type", "veth", "peer", "name", name_b, "netns", self.names[b]], check=True)
        for who, name, address in ((a, name_a, address_a), (b, name_b, address_b)):
            self.ip(who, "addr", "add", address, "dev", name)
            self.ip(who, "link", "set", name, "up")
            # no segments of 64 KiB: as on a wire
            subprocess.run(self.inside(who, "ethtool", "-K", name, "tso", "off", "gso", "off"), capture_output=True)

    def __enter__(self):
        try:
            for name in self.names.values():
                subprocess.run(["ip", "netns", "add", name], check=True)
            for who in self.names:
                self.ip(who, "link", "set", "lo", "up")
            self.link("c", "eth0", f"10.88.0.{self.last}/24", "r", "to-c", "10.88.0.1/24")
            for i, pop in enumerate(("p1", "p2")):
                self.link(pop, "eth0", f"{POPS[i]}/24", "r", f"to-{pop}", f"{POPS[i][:-1]}1/24")
                self.ip(pop, "route", "add", "default", "via", f"{POPS[i][:-1]}1")
            self.ip("c", "route", "add", "default", "via", "10.88.0.1")
            for who, key in (("r", "net/ipv4/ip_forward"), ("c", "net/ipv4/conf/all/promote_secondaries")):
                subprocess.run(self.inside(who, "sh", "-c", f"echo 1 > /proc/sys/{key}"), check=True)
            if self.rate:
                subprocess.run(self.inside("r", "tc", "qdisc", "add", "dev", "to-c", "root", "tbf", "rate", self.rate, "burst", "64kb", "latency", "30ms"), check=True)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc):
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def move(self, gap=None):
        """The client gets another address. gap None: the new one is there before the old one goes; else there is none for so
        many seconds. Returns when the new one was there (time.monotonic())."""
        old, self.last = self.last, self.last + 1 if self.last < 250 else 10
        if gap is None:
            self.ip("c", "addr", "add", f"10.88.0.{self.last}/24", "dev", "eth0")
        self.ip("c", "addr", "del", f"10.88.0.{old}/24", "dev", "eth0")
        if gap is None:
            return time.monotonic()
        time.sleep(gap)
        self.ip("c", "addr", "add", f"10.88.0.{self.last}/24", "dev", "eth0")
        self.ip("c", "route", "add", "default", "via", "10.88.0.1")
        return time.monotonic()

    def drop_udp(self, on):
        """The router swallows UDP to and from the client, or does no more."""
        self.ip("r", "rule", "add" if on else "del", "ipproto", "17", "priority", "10", "blackhole")  # UDP: a bare machine has no /etc/protocols

    def die(self, pop):
        """A point of presence falls silent, with everything in it."""
        self.ip("r", "link", "set", f"to-{pop}", "down")

    def live(self, pop):
        self.ip("r", "link", "set", f"to-{pop}", "up")


def answer(question, addresses):
    """The reply of a name server that knows one name, with these addresses."""
    at, labels = 12, []
    while question[at]:
        labels.append(question[at + 1:at + 1 + question[at]].decode())
        at += 1 + question[at]
    kind, end = struct.unpack("!H", question[at + 1:at + 3])[0], at + 5
    known = ".".join(labels).lower() == NAME
    found = [socket.inet_aton(a) for a in addresses] if known and kind == 1 else []
    head = question[:2] + struct.pack("!HHHHH", 0x8580 | (0 if known else 3), 1, len(found), 0, 0)
    return head + question[12:end] + b"".join(b"\xc0\x0c\0\x01\0\x01" + struct.pack("!IH", 60, 4) + a for a in found)


class NameServer(threading.Thread):
    """Serves NAME in the client's namespace, on 127.0.0.1:53."""

    def __init__(self, net, addresses=POPS):
        super().__init__(daemon=True)
        self.addresses = addresses
        self.socket = self.open_inside(net.names["c"])
        self.start()

    @staticmethod
    def open_inside(name):
        """A socket of another namespace: a thread goes there, and ends with it."""
        made = []

        def go():
            with open(f"/run/netns/{name}") as there:
                import ctypes
                if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), 0x40000000) != 0:
                    return
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind(("127.0.0.1", 53))
            made.append(sock)

        worker = threading.Thread(target=go)
        worker.start()
        worker.join()
        return made[0]

    def run(self):
        while True:
            try:
                question, peer = self.socket.recvfrom(512)
                self.socket.sendto(answer(question, self.addresses), peer)
            except (OSError, IndexError, UnicodeDecodeError):
                if self.socket.fileno() < 0:
                    return

    def stop(self):
        self.socket.close()


def parse(output):
    """(ends, gaps, stats) of a handover_client's output."""
    ends, gaps, stats = [], [], {}
    for line in output.splitlines():
        word = line.split(" ", 9)
        if word[0] == "end":
            ends.append({"start": float(word[1]), "head": float(word[2]), "end": float(word[3]), "rc": int(word[4]), "status": int(word[5]),
                         "version": int(word[6]), "bytes": int(word[7]), "sha256": word[8], "detail": word[9] if len(word) > 9 else ""})
        elif word[0] == "gap":
            gaps.append((float(word[1]), float(word[2])))
        elif word[0] == "stats":
            stats = {k: int(v) for k, v in (pair.split("=") for pair in line.split()[1:])}
    return ends, gaps, stats
