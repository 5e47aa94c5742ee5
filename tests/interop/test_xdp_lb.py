"""libcb-xdp's forwarding between hosts in namespaces: real TCP and HTTP/3 through it in every form, a daemon that restarts, a program that is replaced under load,
members that come and drain. client - router - a bridge with the balancer `l` and the servers 1, 2 and 3, which answer by themselves."""

import hashlib
import os
import re
import subprocess
import sys
import time

import pytest

from conftest import BUILD, TOP, compile_c, peer, program

sys.path.insert(0, str(TOP / "tests/world"))
import world  # noqa: E402

GUE, IPIP, MAC = range(3)
VIP4, VIP6, PORT = "198.51.100.1", "2001:db8:51::1", 443
SERVERS = (1, 2, 3)


def why_not():
    if not (BUILD / "libcb-xdp.so").exists() and not next(BUILD.glob("**/libcb-xdp.so"), None):
        return "built without libcb-xdp (libbpf, clang, bpftool)"
    return world.why_not("ethtool", "clang", "curl")


pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


def address(host, six):
    number = 10 if host == "l" else 10 + host
    return f"2001:db8:99::{number}" if six else f"10.99.0.{number}"


class Path:
    """One datapath: a process on a host that is told what to do."""

    def __init__(self, driver, host):
        self.process = subprocess.Popen(host.inside(driver), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def send(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self

    def receive(self):
        lines = []
        while True:
            line = self.process.stdout.readline().rstrip("\n")
            assert line, f"the driver ended with {self.process.wait()}: {self.process.stderr.read()}"
            if line.startswith("error"):
                raise AssertionError(line)
            if line.startswith("ok "):
                self.result = int(line[3:])
                return lines
            lines.append(line)

    def tell(self, *words):
        return self.send(*words).receive()

    def numbers(self, what):
        return {line.split()[1]: int(line.split()[2]) for line in self.tell(what)}

    def end(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait(10)
        self.process.stdout.close()
        self.process.stderr.close()


class Place(world.World):
    """The hosts, and what all of them are told."""

    def __init__(self, driver, pki, folder, form=GUE, six=False, pin=None, up=SERVERS):
        super().__init__()
        self.driver, self.pki, self.files, self.form, self.six, self.pin, self.up = driver, pki, folder, form, six, pin, up
        self.paths, self.versions = {}, 0

    def build(self):
        self.router, self.client = self.host("r", forwards=True), self.host("c")
        self.link(self.client, "eth0", self.router, "to-c", v4=("10.98.0.2/24", "10.98.0.1/24"), v6=("2001:db8:98::2/64", "2001:db8:98::1/64"))
        self.client.ip("route add default via 10.98.0.1", "-6 route add default via 2001:db8:98::1")
        self.router.ip("link add br0 mtu 1600 type bridge", "link set dev br0 up")
        self.router.address("br0", "10.99.0.254/24", "2001:db8:99::fe/64")
        for name in ("l", *SERVERS):
            host = self.host(f"s{name}" if name != "l" else "l")
            self.link(host, "eth0", self.router, f"to-{name}", mtu=1600, offloads=False)
            self.router.ip(f"link set dev to-{name} master br0")
            self.router.xdp_pass(f"to-{name}")
            host.address("eth0", f"{address(name, False)}/24", f"{address(name, True)}/64")
            host.ip("route add default via 10.99.0.254", "-6 route add default via 2001:db8:99::fe")
            if name != "l":
                host.ip(f"addr add {VIP4}/32 dev lo", f"addr add {VIP6}/128 dev lo nodad")
        self.router.ip(f"route add {VIP4}/32 via {address('l', False)}", f"-6 route add {VIP6}/128 via {address('l', True)}")

    def __exit__(self, *exc):
        for path in self.paths.values():
            path.end()
        super().__exit__(*exc)

    def where(self, name):
        return self.hosts["l" if name == "l" else f"s{name}"]

    def pin_dir(self, name):
        return f"{self.pin}/{name}" if self.pin else "-"

    def configure(self, name):
        """A daemon starts on a host: all that is not in the table."""
        path = self.paths[name] = Path(self.driver, self.where(name))
        path.tell("new", 0 if name == "l" else name, self.pin_dir(name), address(name, False), address(name, True))
        for vip in (VIP4, VIP6):
            path.tell("vip", vip, 6, PORT, 0)
            path.tell("vip", vip, 17, PORT, 1)
        for other in SERVERS:
            path.tell("member", other, address(other, self.six), self.form)
        if name != "l":
            path.tell("member", 9, address("l", self.six), self.form)
        return path

    def change(self, *commands, now=0):
        """The writer (on l) does something; all hosts apply what it says. Then all tell that they did."""
        writer = self.paths["l"]
        for command in commands:
            writer.tell(*command)
        lines = writer.tell("run", now)
        for line in lines:
            for name, path in self.paths.items():
                if name != "l":
                    path.tell("record", line.split()[1])
        for path in self.paths.values():
            path.tell("sync")
        self.version = writer.numbers("stats")["version"]
        for name in self.up:
            writer.tell("ack", name, self.version)
        return len(lines)

    def open(self):
        for name in ("l", *SERVERS):
            self.configure(name)
        self.change(*[("up", name) for name in self.up], now=1)
        for name, path in self.paths.items():
            world.wait_for(lambda p=path: p.tell("resolve") is not None and p.result == 0, why=f"{name} does not find the members")
            path.tell("attach", "eth0", 1)
        return self

    def serve(self):
        big = os.urandom(3_000_000)
        self.sha = hashlib.sha256(big).hexdigest()
        for name in SERVERS:
            folder = self.files / f"files{name}"
            folder.mkdir()
            (folder / "host").write_text(str(name))
            (folder / "big").write_bytes(big)
            for vip in (VIP4, f"[{VIP6}]"):
                self.where(name).start(program("static_server"), f"{vip}:{PORT}", self.pki["cert"], self.pki["key"], folder).wait_for("serving")
        return self

    def curl(self, path, six=False, *more):
        return ["curl", "-sS", "--max-time", "40", "--cacert", self.pki["ca"], "--connect-to", f"localhost:443:{f'[{VIP6}]' if six else VIP4}:443", *more, f"https://localhost/{path}"]

    def http3(self, path, six, *more):
        return [program("http_client"), "-3", "--ca", self.pki["ca"], "--connect", f"{f'[{VIP6}]' if six else VIP4}:443", *more, f"https://localhost/{path}"]

    def downloads(self, n, rate="400k"):
        """Slow ones that run beside; (process, file) each."""
        running = []
        for i in range(n):
            out = self.files / f"got{time.monotonic_ns()}"
            running.append((self.client.start(*self.curl("big", i % 2 == 1, "--limit-rate", rate, "-o", out), name="curl"), out))
        world.wait_for(lambda: all(out.exists() and out.stat().st_size > 20000 for _, out in running), 20, "downloads do not begin")
        return running

    def connections(self, name):
        """(client, port, VIP, port) of what is established on a server."""
        found = []
        for line in self.where(name).run("ss", "-tnH", "state", "established").stdout.splitlines():
            own, other = (end.replace("[", "").replace("]", "").rpartition(":") for end in line.split()[2:4])
            found.append((other[0], other[2], own[0], own[2]))
        return [ends for ends in found if ends[2] in (VIP4, VIP6)]

    def all_arrived(self, running):
        for process, out in running:
            code = process.popen.wait(40)
            assert code == 0, (code, process.output())
            assert hashlib.sha256(out.read_bytes()).hexdigest() == self.sha


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    folder = tmp_path_factory.mktemp("xdp_host")
    libs = [next(iter(sorted(BUILD.glob(f"**/{name}"))), None) for name in ("libcb-xdp.so", "libcb.so")]
    out = folder / "xdp_host"
    subprocess.run(["cc", "-std=c11", "-D_GNU_SOURCE", f"-I{TOP}/include", str(TOP / "tests/interop/xdp_host.c"), *map(str, libs), f"-Wl,-rpath,{libs[0].parent}",
                    "-o", str(out)], check=True)
    return out


@pytest.fixture
def pins(tmp_path):
    """A BPF file system of the test's own."""
    folder = tmp_path / "bpf"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "bpf", "bpf", folder], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no BPF file system can be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("six", [False, True], ids=["over-ipv4", "over-ipv6"])
@pytest.mark.parametrize("form", [GUE, IPIP, MAC], ids=["gue", "ipip", "mac"])
def test_tcp_and_http3_reach_all_servers(driver, pki, tmp_path, form, six):
    with Place(driver, pki, tmp_path, form, six) as p:
        p.serve().open()
        for v6 in (False, True):
            seen = {p.client.run(*p.curl("host", v6)).stdout for _ in range(12)}
            assert len(seen) > 1 and seen <= {"1", "2", "3"}, (seen, "twelve connections, one server")
            assert {p.client.run(*p.http3("host", v6)).stdout for _ in range(4)} <= {"1", "2", "3"}
            out = tmp_path / f"big{v6}"
            p.client.run(*p.curl("big", v6, "-o", out))
            assert hashlib.sha256(out.read_bytes()).hexdigest() == p.sha
            p.client.run(*p.http3("big", v6, "-o", out))
            assert hashlib.sha256(out.read_bytes()).hexdigest() == p.sha
        counts = p.paths["l"].numbers("counts")
        assert counts["forwarded"] > 100 and counts["local"] == 0, counts
        lost = {name: counts[name] for name in ("malformed", "bad_tag", "no_owner", "no_neighbour", "loop", "too_big")}
        assert not any(lost.values()), lost
        taken = [p.paths[name].numbers("counts")["decapsulated"] for name in SERVERS]
        assert (sum(taken) == 0) if form == MAC else all(taken), taken


def test_a_daemon_restarts_while_downloads_run(driver, pki, tmp_path, pins):
    with Place(driver, pki, tmp_path, pin=pins) as p:
        p.serve().open()
        running = p.downloads(10)
        programs = {}
        for name in ("l", 1, 2, 3):  # all hosts, one after the other: the process ends, the datapath does not
            programs[name] = p.paths[name].numbers("stats")["program"]
            p.paths[name].end()
        assert p.client.run(*p.curl("host")).stdout in ("1", "2", "3"), "no daemon runs anywhere"
        for name in ("l", 1, 2, 3):
            stats = p.configure(name).numbers("stats")
            assert stats["adopted"] == 1 and stats["program"] != programs[name], stats
            p.paths[name].tell("attach", "eth0", 1)
            p.paths[name].tell("prune")
            assert p.paths[name].result == 0, "nothing was left over"
        p.all_arrived(running)
        leaving = ("tc", "filter", "show", "dev", "eth0", "egress")
        assert p.where(1).run(*leaving).stdout.count("bpf") == 2, "the MSS of SYN-ACKs: one filter, however often it was attached"
        for name in ("l", 1, 2, 3):
            p.paths[name].tell("free")
            p.paths[name].tell("unpin", p.pin_dir(name))
        assert "xdp" not in p.where("l").run("ip", "link", "show", "eth0").stdout and "bpf" not in p.where(1).run(*leaving).stdout
        assert os.listdir(pins) == ["maps.debug", "progs.debug"] or not [n for n in os.listdir(pins) if not n.endswith(".debug")]


def seen_by_driver(host):
    """Frames that the driver gave to a program."""
    return sum(int(n) for n in re.findall(r"rx_queue_\d+_xdp_packets: (\d+)", host.run("ethtool", "-S", "eth0").stdout))


def at_rest(path, host):
    """(packets that the program counted, frames that the driver gave to it), when nothing comes for a moment."""
    def same():
        one = sum(path.numbers("counts").values()), seen_by_driver(host)
        time.sleep(0.3)
        return one if one == (sum(path.numbers("counts").values()), seen_by_driver(host)) else None
    return world.wait_for(same, 20, "packets still come")


def test_the_program_is_replaced_under_load_without_a_packet_lost(driver, pki, tmp_path, pins):
    seconds = int(os.environ.get("CB_SWAP_SECONDS", "12"))  # scripts/bench lb takes more
    with Place(driver, pki, tmp_path, pin=pins) as p:
        p.serve().open()
        balancer, host = p.paths["l"], p.where("l")
        flood = Path(driver, p.client)
        p.paths["flood"] = flood
        balancer.tell("vip", VIP4, 17, 9, 0)
        before, frames = at_rest(balancer, host)
        running = p.downloads(4, "800k")
        flood.send("flood", VIP4, 9, seconds)
        swaps, end = 0, time.monotonic() + seconds - 0.5
        while time.monotonic() < end:
            balancer.tell("swap", 1)
            swaps += 1
        sent = int(flood.receive()[-1].split()[1])
        p.all_arrived(running)
        after = at_rest(balancer, host)
        counted, frames = after[0] - before, after[1] - frames
        print(f"{swaps} swaps in {seconds} s: {sent} datagrams, {frames} frames seen by the driver, {frames - counted} of them by no program")
        assert frames == counted, f"{frames - counted} of {frames} frames met no program"
        assert swaps >= 3 and frames > 20_000 and balancer.numbers("stats")["adopted"] == 1


def test_members_come_and_drain_and_nothing_breaks(driver, pki, tmp_path):
    with Place(driver, pki, tmp_path, up=(1, 2)) as p:
        p.serve().open()
        first = p.downloads(16)
        owners = {p.client.run(*p.curl("host")).stdout for _ in range(10)}
        assert owners == {"1", "2"}, owners
        p.up = SERVERS
        now = 1000
        for step in range(6):  # 3 comes: announced, moved
            p.change(*([("up", 3)] if not step else []), now=now)
            now += 100
        assert p.paths["l"].numbers("stats")["moved"] > 10000
        second = p.downloads(8)
        seen = {p.client.run(*p.curl("host")).stdout for _ in range(20)}
        assert "3" in seen, seen
        hops = sum(p.paths[name].numbers("counts")["second_hop"] for name in SERVERS)
        assert hops > 0, "flows of moved buckets are with their old owners"

        for name in (1, 2):  # buckets without a connection are reported, those with one are not
            lines = p.paths[name].tell("idle")
            buckets = [line.split()[1] for line in lines if line.startswith("bucket")]
            assert len(buckets) > 1000
            living = {p.paths[name].tell("bucket", *ends)[0].split()[1] for ends in p.connections(name)}
            assert living and not living & set(buckets), f"server {name} says that nothing lives where {living & set(buckets)} are"
            for bucket in buckets[:2000]:
                p.paths["l"].tell("report", name, bucket, now)
        p.change(now=now)
        left = p.paths["l"].numbers("stats")["moved"]
        p.change(("drain", 1), now=now + 100)
        for step in range(6):
            p.change(now=now + 2000 + 100 * step)
        third = p.downloads(4)
        assert "1" not in {p.client.run(*p.curl("host")).stdout for _ in range(12)}
        p.all_arrived(first + second + third)
        assert left > 0


# An ICMP error as a router sends it: too big, quoting a packet of QUIC with a short header, in which only the client's connection ID stands.
ICMP = """import socket, struct, sys
vip, client, six = sys.argv[1], sys.argv[2], ":" in sys.argv[1]
family = socket.AF_INET6 if six else socket.AF_INET
udp = struct.pack("!HHHH", 443, 50000, 8 + 40, 0) + b"\\x40" + bytes(range(39))
a, b = socket.inet_pton(family, vip), socket.inet_pton(family, client)
def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
if six:
    quote = struct.pack("!IHBB", 6 << 28, len(udp), 17, 64) + a + b + udp
    s = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)  # the kernel fills the checksum in
    s.sendto(struct.pack("!BBHI", 2, 0, 0, 1300) + quote, (vip, 0))
else:
    quote = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0x4000, 64, 17, 0) + a + b
    quote = quote[:10] + struct.pack("!H", checksum(quote)) + quote[12:] + udp
    text = struct.pack("!BBHHH", 3, 4, 0, 0, 1300) + quote
    s = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    s.sendto(text[:2] + struct.pack("!H", checksum(text)) + text[4:], (vip, 0))
"""


def errors_heard(host, six):
    """ICMP errors that the kernel of a host took."""
    if six:
        return int(re.search(r"Icmp6InPktTooBigs\s+(\d+)", host.run("cat", "/proc/net/snmp6").stdout)[1])
    names, values = (line.split() for line in host.run("cat", "/proc/net/snmp").stdout.splitlines() if line.startswith("Icmp:"))
    return int(values[names.index("InDestUnreachs")])


@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
def test_an_icmp_error_of_an_unknown_owner_reaches_all_members(driver, pki, tmp_path, six):
    with Place(driver, pki, tmp_path, six=six) as p:
        p.open()
        before = [errors_heard(p.where(name), six) for name in SERVERS]
        p.router.run(sys.executable, "-c", ICMP, VIP6 if six else VIP4, "2001:db8:98::2" if six else "10.98.0.2")
        world.wait_for(lambda: p.paths["l"].numbers("counts")["icmp_fanned"] == 1, why="nothing was handed to user space")
        assert p.paths["l"].tell("fan") == ["fanned 2 0"] and p.paths["l"].result == 1, "two members beside the one that has it"
        world.wait_for(lambda: [errors_heard(p.where(name), six) for name in SERVERS] == [n + 1 for n in before], 5,
                       lambda: f"{before} became {[errors_heard(p.where(name), six) for name in SERVERS]}")
        assert p.paths["l"].tell("fan") == ["fanned 2 0"], "once"


def test_the_example_is_a_balancer(driver, pki, tmp_path):
    with Place(driver, pki, tmp_path) as p:
        p.serve()
        members = [f"{name}={address(name, False)}" for name in SERVERS]
        running = [p.where(name).start("env", f"XDP_LB_ADDRESS={address('l', False)}", program("xdp_lb"), "eth0", VIP4, PORT, 0 if name == "l" else name, *members, name="xdp_lb")
                   for name in ("l", *SERVERS)]
        for process in running[:1]:
            process.wait_for("member 3 can be reached")
        world.wait_for(lambda: all(process.output().count("can be reached") >= 2 for process in running), 20, "some host does not find the others")
        assert len({p.client.run(*p.curl("host")).stdout for _ in range(12)}) > 1
        for process in running:
            assert process.stop() == 0, process.output()
        assert re.search(r"\d+ forwarded +sent to the first owner", running[0].output()) and "taken out of an encapsulation" in running[1].output()
        bad = p.where("l").run(program("xdp_lb"), "eth0", VIP4, PORT, 0, "1:192.0.2.1", check=False)
        assert bad.returncode == 1 and "ID=ADDRESS" in bad.stderr
