"""AF_XDP (cb/xsk.h) between two hosts, which are network namespaces with a veth pair: the kernel's own sockets ask, examples/xdp_echo answers."""

import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import time

import pytest

from conftest import BUILD, TOP, compile_c, program, run

V4, V6, PORT = ("10.77.0.1", "10.77.0.2"), ("fd77::1", "fd77::2"), 7
ECHO = "by AF_XDP in the driver, copied"


def why_not():
    if os.geteuid() != 0:
        return "AF_XDP and network namespaces need root"
    for name in ("ip", "ethtool"):
        if shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None:
            return f"{name} is not installed"
    if not any(BUILD.glob("**/libcb-xdp.so")):
        return "built without libcb-xdp (libbpf, clang, bpftool)"
    probe = f"afxdp-probe-{os.getpid()}"
    done = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", probe], capture_output=True)
    return None if done.returncode == 0 else f"no network namespaces here: {done.stderr.strip()}"


needs_root = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


class Pair:
    """Two hosts: c asks, s answers. The interface is v0 on both."""

    def __init__(self, queues=1, offload=False):
        self.names = {who: f"afxdp-{os.getpid() % 100000}-{who}" for who in "cs"}
        self.queues, self.offload = queues, offload

    def ip(self, who, *command):
        subprocess.run(["ip", "-n", self.names[who], *command], check=True, capture_output=True)

    def inside(self, who, *command):
        return ["ip", "netns", "exec", self.names[who], *map(str, command)]

    def __enter__(self):
        many = ["numrxqueues", str(self.queues), "numtxqueues", str(self.queues)]
        try:
            for name in self.names.values():
                subprocess.run(["ip", "netns", "add", name], check=True)
            subprocess.run(["ip", "link", "add", "v0", "netns", self.names["c"], *many, "type", "veth", "peer", "name", "v0", "netns", self.names["s"], *many],
                           check=True)
            for i, who in enumerate("cs"):
                self.ip(who, "link", "set", "lo", "up")
                if not self.offload:  # sums are filled in: nobody else would do it on this wire
                    subprocess.run(self.inside(who, "ethtool", "-K", "v0", "tx", "off"), check=True, capture_output=True)
                # its link-local address can ask for neighbours at once, and not after a second
                subprocess.run(self.inside(who, "sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/v0/accept_dad"), check=True)
                self.ip(who, "addr", "add", f"{V4[i]}/24", "dev", "v0")
                self.ip(who, "addr", "add", f"{V6[i]}/64", "dev", "v0", "nodad")
                self.ip(who, "link", "set", "v0", "up")
            limit = time.monotonic() + 10
            while not all("state UP" in run(*self.inside(who, "ip", "link", "show", "v0")).stdout for who in "cs"):
                assert time.monotonic() < limit, "the link does not come up"
                time.sleep(0.01)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc):
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def socket(self, who, family, kind, protocol=0):
        """A socket of this host: sockets stay where they were made."""
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/self/ns/net") as home, open(f"/run/netns/{self.names[who]}") as there:
            assert libc.setns(there.fileno(), 0x40000000) == 0
            try:
                return socket.socket(family, kind, protocol)
            finally:
                assert libc.setns(home.fileno(), 0x40000000) == 0

    def ping(self, who, address):
        """An echo by the kernels, after both have forgotten each other's stations."""
        for host in "cs":
            subprocess.run(["ip", "-n", self.names[host], "neigh", "flush", "dev", "v0"], check=True, capture_output=True)
        family, kind = (socket.AF_INET6, 58) if ":" in address else (socket.AF_INET, 1)
        with self.socket(who, family, socket.SOCK_RAW, kind) as s:
            s.settimeout(5)
            head = struct.pack("!BBHHH", 128 if ":" in address else 8, 0, 0, 77, 1)
            total = sum(struct.unpack("!4H", head))
            total = (total & 0xffff) + (total >> 16)
            s.sendto(head[:2] + struct.pack("!H", ~total & 0xffff) + head[4:], (address, 0))
            while True:  # its own question comes by too, and neighbour discovery
                got = s.recv(1500)
                if got[0 if ":" in address else 20] == (129 if ":" in address else 0):
                    return True


@pytest.fixture
def pair():
    with Pair() as p:
        yield p


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    return compile_c(TOP / "tests/bench/xsk_load.c", tmp_path_factory.mktemp("load"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return compile_c(TOP / "tests/interop/xsk_lab.c", tmp_path_factory.mktemp("lab"), "libcb-xdp.so")


def serve(spawn, pair, *args, listen=f"[::]:{PORT}", said=ECHO):
    process = spawn(*pair.inside("s", program("xdp_echo"), *args, "v0", listen), name="xdp_echo")
    process.wait_for(said)
    return process


def numbers(text):
    return {name: int(n) for name, n in re.findall(r"(\w+) (\d+)", text)}


def end(process):
    """Stops it; what it counted."""
    assert process.stop(signal.SIGTERM) == 0, process.output()
    return numbers(process.output().splitlines()[-1])


def look(process):
    """What it has counted by now."""
    lines = len(process.output().splitlines())
    os.kill(process.pid, signal.SIGUSR1)
    limit = time.monotonic() + 5
    while len(process.output().splitlines()) <= lines and time.monotonic() < limit:
        time.sleep(0.01)
    return numbers(process.output().splitlines()[-1])


def ask(pair, load, address, **plan):
    words = [str(word) for item in plan.items() for word in item]
    got = run(*pair.inside("c", load, address, PORT, *words), timeout=120)
    assert got.returncode == 0, got.stderr
    return numbers(got.stdout)


@needs_root
def test_a_hundred_thousand_without_loss(spawn, pair, load):
    server = serve(spawn, pair)
    for address in (V4[1], V6[1]):
        got = ask(pair, load, address, count=50_000, size=200, window=64, rate=40_000, flows=8)
        assert (got["sent"], got["received"], got["bad"]) == (50_000, 50_000, 0), (address, got)
    s = end(server)
    assert s["xdp_rx"] >= 99_900 and s["xdp_tx"] >= 99_900 and s["rx"] == s["tx"] == 100_000, s
    assert not any(s[name] for name in ("malformed", "checksum", "other", "ring_full", "fill_empty", "too_large", "invalid", "tx_dropped")), s


@needs_root
def test_all_sizes(spawn, pair, load):
    server = serve(spawn, pair)
    for address, largest in ((V4[1], 1472), (V6[1], 1452)):
        got = ask(pair, load, address, count=largest, size=largest, step=1, window=16)
        assert (got["received"], got["bad"]) == (largest, 0), (address, got)
    before = look(server)
    assert before["xdp_rx"] >= 2900 and before["xdp_tx"] >= 2900, before
    for address in (V4[1], V6[1]):  # in fragments: by the socket beside it, both ways
        got = ask(pair, load, address, count=40, size=9000, window=4)
        assert (got["received"], got["bad"]) == (40, 0), (address, got)
    s = end(server)
    assert s["xdp_rx"] == before["xdp_rx"] and s["rx"] == before["rx"] + 80, s


@needs_root
def test_the_kernel_goes_on_with_its_own(spawn, pair, load):
    server = serve(spawn, pair)
    for address in (V4[1], V6[1]):
        assert ask(pair, load, address, count=100)["received"] == 100
        assert pair.ping("c", address), "ARP, neighbour discovery and ICMP"
        assert ask(pair, load, address, count=100)["received"] == 100
    with pair.socket("s", socket.AF_INET, socket.SOCK_STREAM) as listener, pair.socket("c", socket.AF_INET, socket.SOCK_STREAM) as client:
        listener.bind(("", 8000))
        listener.listen()
        client.settimeout(5)
        client.connect((V4[1], 8000))
    with pair.socket("s", socket.AF_INET6, socket.SOCK_DGRAM) as other, pair.socket("c", socket.AF_INET6, socket.SOCK_DGRAM) as client:
        other.bind(("::", 8))
        other.settimeout(5)
        client.sendto(b"another port", (V6[1], 8))
        assert other.recv(100) == b"another port"
    assert end(server)["other"] == 0


@needs_root
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_answers_that_are_longer_than_questions(spawn, pair, load, family):
    address = (V4 if family == socket.AF_INET else V6)[1]
    for answer, fast in ((500, True), (1232, True), (1400, True), (4000, False)):
        server = serve(spawn, pair, "--answer", answer)
        got = ask(pair, load, address, count=2000, size=40, answer=answer, window=32)
        assert (got["received"], got["bad"]) == (2000, 0), (answer, got)
        s = end(server)
        assert s["xdp_tx"] >= 1900 if fast else s["xdp_tx"] == 0, (answer, s)


@needs_root
def test_a_specific_address_and_the_socket_way(spawn, pair, load):
    server = serve(spawn, pair, listen=f"{V4[1]}:{PORT}")
    assert ask(pair, load, V4[1], count=1000)["received"] == 1000
    assert end(server)["xdp_rx"] >= 990
    server = serve(spawn, pair, "--socket", said="by a socket")
    for address in (V4[1], V6[1]):
        assert ask(pair, load, address, count=1000)["received"] == 1000
    s = end(server)
    assert s["rx"] == s["tx"] == 2000 and s["xdp_rx"] == s["xdp_tx"] == 0, s


@needs_root
def test_an_interface_takes_one_program(spawn, pair, load):
    server = serve(spawn, pair)
    second = run(*pair.inside("s", program("xdp_echo"), "v0", "[::]:9"))
    there = run(*pair.inside("s", "ip", "-o", "-d", "link", "show", "v0")).stdout
    number = re.search(r"prog/xdp id (\d+)", there)[1]
    assert second.returncode == 1 and second.stderr.startswith("xdp_echo: CB_EEXIST"), second
    assert f'AF_XDP on v0: the XDP program "cb_xsk" (id {number}) is on this interface already' in second.stderr, second.stderr
    assert ask(pair, load, V4[1], count=100)["received"] == 100, "the first goes on"
    end(server)
    assert "prog/xdp" not in run(*pair.inside("s", "ip", "-o", "-d", "link", "show", "v0")).stdout, "it leaves with its process"
    end(serve(spawn, pair))


@needs_root
def test_programs_of_others_stay(spawn, pair, tmp_path):
    """One that somebody else attached, by name."""
    clang = next((path for name in ("clang", "clang-19", "clang-16", "clang-14") if (path := shutil.which(name))), None)
    assert clang, "libcb-xdp was built with one"
    (tmp_path / "other.c").write_text('__attribute__((section("xdp"), used)) int somebody_elses(void *ctx) { return 2; }\n'
                                      'char _license[] __attribute__((section("license"), used)) = "GPL";\n')
    subprocess.run([clang, "-O2", "-g", "-target", "bpf", "-c", tmp_path / "other.c", "-o", tmp_path / "other.o"], check=True)
    done = run(*pair.inside("s", "ip", "link", "set", "dev", "v0", "xdp", "obj", tmp_path / "other.o", "sec", "xdp"))
    assert done.returncode == 0, done.stderr
    got = run(*pair.inside("s", program("xdp_echo"), "v0", "[::]:9"))
    assert got.returncode == 1 and '"somebody_elses" (id ' in got.stderr, got.stderr
    assert "prog/xdp" in run(*pair.inside("s", "ip", "-o", "-d", "link", "show", "v0")).stdout
    subprocess.run(pair.inside("s", "ip", "link", "set", "dev", "v0", "xdp", "off"), check=True)
    end(serve(spawn, pair))


@needs_root
def test_the_balancer_and_af_xdp_name_each_other(spawn, pair, load):
    """cb_forward and AF_XDP on one interface: whoever comes second is told who is there, and changes nothing."""
    balancer = pair.inside("s", program("xdp_lb"), "v0", "10.77.0.99", "80", "1", f"1={V4[1]}", f"2={V4[0]}")
    first = spawn(*balancer, name="xdp_lb")
    limit = time.monotonic() + 20
    while "prog/xdp" not in run(*pair.inside("s", "ip", "-o", "-d", "link", "show", "v0")).stdout and time.monotonic() < limit:
        assert first.alive(), first.output()
        time.sleep(0.05)
    got = run(*pair.inside("s", program("xdp_echo"), "v0", "[::]:9"))
    assert got.returncode == 1 and re.search(r'CB_EEXIST.*AF_XDP on v0: the XDP program "\w*forward\w*" \(id \d+\) is on this interface already', got.stderr), got.stderr
    assert first.alive()
    first.stop(signal.SIGTERM)
    server = serve(spawn, pair)
    got = run(*balancer, timeout=60)
    assert got.returncode != 0 and '"cb_xsk"' in got.stderr, got
    assert ask(pair, load, V4[1], count=100)["received"] == 100
    end(server)


@needs_root
def test_without_rights_it_says_which(pair):
    got = run(*pair.inside("s", "setpriv", "--reuid=65534", "--clear-groups", program("xdp_echo"), "v0", "[::]:9000"))
    assert got.returncode == 1, got
    assert got.stderr.startswith("xdp_echo: CB_EPERM") and "CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW" in got.stderr, got.stderr


@needs_root
def test_sums_that_nobody_filled_in(spawn, load):
    """veth hands on what its other end left to hardware: that is counted, or not looked at."""
    with Pair(offload=True) as pair:
        server = serve(spawn, pair)
        got = ask(pair, load, V4[1], count=20, window=20)
        s = end(server)
        assert got["received"] == 0 and s["checksum"] == 20 == s["xdp_rx"] + s["checksum"], (got, s)
        server = serve(spawn, pair, "--veth")
        for address in (V4[1], V6[1]):
            assert ask(pair, load, address, count=1000)["received"] == 1000
        assert end(server)["checksum"] == 0


@needs_root
def test_bad_frames_are_counted_and_harm_nobody(spawn, pair, load):
    server = serve(spawn, pair)
    assert ask(pair, load, V4[1], count=10)["received"] == 10
    macs = [re.search(r"link/ether (\S+)", run(*pair.inside(who, "ip", "link", "show", "v0")).stdout)[1] for who in "sc"]
    ether = bytes.fromhex("".join(macs).replace(":", ""))

    def ip4(udp, **change):
        head = bytearray(struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + socket.inet_aton(V4[0]) + socket.inet_aton(change.get("to", V4[1])))
        for at, value in change.get("set", ()):
            head[at] = value
        total = sum(struct.unpack("!10H", head))
        total = (total & 0xffff) + (total >> 16)
        head[10:12] = struct.pack("!H", (~total + change.get("off", 0)) & 0xffff)
        return ether + b"\x08\0" + bytes(head) + udp

    def udp(length=12, check=0):
        return struct.pack("!HHHH", 5000, PORT, length, check) + b"data"

    bad = {"malformed": [ip4(udp(length=13)), ip4(udp(length=7)), ip4(udp(), set=[(2, 3)]), ip4(udp(), set=[(12, 224)]), ip4(udp())[:38]],
           "checksum": [ip4(udp(check=0x1234)), ip4(udp(), off=1)]}
    with pair.socket("c", socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind(("v0", 0x0800))
        for frames in bad.values():
            for frame in frames:
                s.send(frame)
        s.send(ip4(udp()))  # and a good one, whose answer the client's kernel does not know what to do with
    assert ask(pair, load, V4[1], count=10)["received"] == 10
    got = end(server)
    assert got["malformed"] == len(bad["malformed"]) and got["checksum"] == len(bad["checksum"]), got
    assert got["rx"] == got["tx"] == 21, got


@needs_root
def test_who_does_not_read_only_drops_and_counts(spawn, pair, load):
    server = serve(spawn, pair)
    assert ask(pair, load, V4[1], count=100)["received"] == 100
    os.kill(server.pid, signal.SIGSTOP)
    try:
        got = ask(pair, load, V4[1], count=20_000, window=20_000)
        assert got["received"] == 0 and got["sent"] == 20_000, got
        assert pair.ping("c", V4[1]), "the rest of the host does not notice"
    finally:
        os.kill(server.pid, signal.SIGCONT)
    limit = time.monotonic() + 10
    while look(server)["xdp_rx"] < 2000 and time.monotonic() < limit:
        time.sleep(0.05)
    s = look(server)
    lost = s["ring_full"] + s["fill_empty"]
    # what the veth itself drops while its receiver's processor is busy elsewhere, AF_XDP never sees
    assert lost > 15_000 and 19_000 <= s["rx"] + lost <= 20_100 and s["too_large"] == 0, s
    for address in (V4[1], V6[1]):
        assert ask(pair, load, address, count=5000, window=64)["received"] == 5000, "and it goes on"
    assert end(server)["frames_free"] == 2048, "no chunk was lost"


@needs_root
def test_opened_and_closed_again_and_again(spawn, pair, load, lab):
    process = spawn(*pair.inside("s", lab, "reopen", "v0", PORT, 40), name="reopen")
    process.wait_for("ready")
    got = ask(pair, load, V4[1], count=20_000, window=20_000, rate=10_000)
    assert got["received"] > 300 and got["bad"] == 0, got
    process.wait_for("reopened 40 times", 30)
    assert "prog/xdp" not in run(*pair.inside("s", "ip", "-o", "-d", "link", "show", "v0")).stdout


@needs_root
def test_the_interface_goes(spawn, pair, load):
    server = serve(spawn, pair)
    assert ask(pair, load, V4[1], count=100)["received"] == 100
    pair.ip("s", "link", "del", "v0")
    server.wait_for("the interface is gone")
    assert server.alive(), "it has a socket for what is left"
    assert end(server)["rx"] == 100


@needs_root
def test_several_queues_a_thread_each(spawn, load, lab):
    with Pair(queues=2) as pair:
        process = spawn(*pair.inside("s", lab, "queues", "v0", PORT, 2), name="queues")
        process.wait_for("ready")
        for address in (V4[1], V6[1]):
            got = ask(pair, load, address, count=20_000, flows=64, window=128)
            assert (got["received"], got["bad"]) == (20_000, 0), got
        assert process.stop(signal.SIGTERM) == 0, process.output()
        assert re.search(r"again: CB_EEXIST.*: AF_XDP on v0: queue 0 has a socket already", process.output()), process.output()
        queues = [numbers(line) for line in process.output().splitlines() if line.startswith("queue ")]
        assert len(queues) == 2 and all(q["xdp_rx"] > 1000 and q["xdp_tx"] > 1000 for q in queues), queues
        assert sum(q["rx"] for q in queues) == 40_000, queues


@needs_root
def test_a_queue_without_a_socket_is_served_by_the_other_way(spawn, load):
    with Pair(queues=2) as pair:
        server = serve(spawn, pair)
        got = ask(pair, load, V4[1], count=20_000, flows=64, window=128)
        assert (got["received"], got["bad"]) == (20_000, 0), got
        s = end(server)
        assert s["rx"] == 20_000 and 1000 < s["xdp_rx"] < 19_000, s


@needs_root
@pytest.mark.parametrize("how", ["raw", "generic", "kept"])
def test_frames(spawn, pair, load, lab, how):
    process = spawn(*pair.inside("s", lab, how, "v0", PORT), name=how)
    process.wait_for("ready")
    for address in (V4[1], V6[1]):
        got = ask(pair, load, address, count=6400, window=64)
        assert (got["received"], got["bad"]) == (6400, 0), got
    assert process.stop(signal.SIGTERM) == 0, process.output()
    s = numbers(process.output().splitlines()[-1])
    assert s["rx"] == s["tx"] == s["taken"] == 12_800 and s["out"] == 0 and s["native"] == (how != "generic"), s
    assert s["no_socket"] == 0, s


@needs_root
@pytest.mark.parametrize("family", [4, 6])
def test_peers_are_found_by_the_kernel(spawn, pair, lab, family):
    """The server asks first: the Ethernet address of the peer comes from ARP and neighbour discovery, and when it changes, from there too."""
    with pair.socket("c", socket.AF_INET6, socket.SOCK_DGRAM) as echo:
        echo.bind(("::", 5000))
        echo.settimeout(10)
        where = f"{V4[0]}:5000" if family == 4 else f"[{V6[0]}]:5000"
        process = spawn(*pair.inside("s", lab, "ask", "v0", where, 500), name="ask")
        for i in range(500):
            data, peer = echo.recvfrom(100)
            echo.sendto(data, peer)
        assert process.popen.wait(10) == 0, process.output()
    s = numbers(process.output().splitlines()[-1])
    assert s["asked"] == s["answered"] == 500, s
    assert s["unresolved"] >= 1 and s["xdp_tx"] >= 400 and s["xdp_tx"] + s["unresolved"] == 500, s


@needs_root
def test_without_a_socket_beside_it(spawn, pair, load, lab):
    process = spawn(*pair.inside("s", lab, "alone", "v0", PORT), name="alone")
    process.wait_for("ready")
    for address in (V4[1], V6[1]):
        got = ask(pair, load, address, count=2000, size=1400, window=32)  # larger than 1,280: by the kernel's routes
        lost = got["sent"] - got["received"]  # the first ones, if the kernel did not know the peer yet
        assert got["bad"] == 0 and lost <= 64, got
    with pair.socket("c", socket.AF_INET, socket.SOCK_DGRAM) as s:  # in fragments: nobody is there for them
        s.connect((V4[1], PORT))
        s.settimeout(5)
        s.send(bytes(5000))
        with pytest.raises(ConnectionRefusedError):
            s.recv(10)
    assert process.stop(signal.SIGTERM) == 0, process.output()
    s = numbers(process.output().splitlines()[-1])
    assert s["rx"] == s["xdp_rx"] == 4000 and s["tx"] == s["xdp_tx"] and s["tx"] + s["tx_dropped"] == 4000, s


@needs_root
def test_answers_outside_of_the_callback(spawn, pair, load, lab):
    process = spawn(*pair.inside("s", lab, "later", "v0", PORT), name="later")
    process.wait_for("ready")
    for address in (V4[1], V6[1]):
        for size in (100, 1200, 1400):
            got = ask(pair, load, address, count=3000, size=size, window=64, flows=16)
            assert (got["received"], got["bad"]) == (3000, 0), (address, size, got)
    assert process.stop(signal.SIGTERM) == 0, process.output()
    s = numbers(process.output().splitlines()[-1])
    assert s["rx"] == s["tx"] == 18_000 and s["xdp_tx"] > 17_500 and s["tx_dropped"] == 0, s


@needs_root
def test_a_smaller_path_is_heeded(spawn, pair, load):
    """What is larger than the route's MTU goes by the socket, which cuts it."""
    for family, address in (("-4", V4), ("-6", V6)):
        server = serve(spawn, pair, "--answer", 1400)
        run(*pair.inside("s", "ip", family, "route", "add", address[0], "dev", "v0", "mtu", "1300")).check_returncode()
        got = ask(pair, load, address[1], count=500, size=50, answer=1400, window=16)
        assert (got["received"], got["bad"]) == (500, 0), got
        s = end(server)
        assert s["xdp_rx"] >= 490 and s["xdp_tx"] == 0 and s["tx"] == 500, s


@needs_root
@pytest.mark.parametrize("family", [4, 6])
def test_peers_are_looked_for_without_a_socket_too(spawn, pair, lab, family):
    with pair.socket("c", socket.AF_INET6, socket.SOCK_DGRAM) as echo:
        echo.bind(("::", 5000))
        echo.settimeout(0.5)
        where = f"{V4[0]}:5000" if family == 4 else f"[{V6[0]}]:5000"
        process = spawn(*pair.inside("s", lab, "ask-alone", "v0", where, 500), name="ask")
        while process.alive():
            try:
                echo.sendto(*echo.recvfrom(100))
            except TimeoutError:
                continue
        assert process.popen.wait(10) == 0, process.output()
    s = numbers(process.output().splitlines()[-1])
    assert s["asked"] == 500 and s["unresolved"] >= 1, s  # those before the kernel found it are lost
    assert s["answered"] == s["xdp_tx"] == 500 - s["unresolved"] and s["xdp_tx"] > 400, s


@needs_root
def test_what_is_refused(pair, lab):
    said = run(*pair.inside("s", lab, "options", "v0")).stdout.splitlines()
    assert said[0].startswith("zero-copy: CB_ENOTSUP") and "its driver has no zero-copy" in said[0], said
    assert said[1].startswith("queue: CB_ENOENT") and "no queue 100" in said[1], said
    assert said[2].startswith("none: CB_OK"), said
    assert said[3].startswith("port: CB_EINVAL"), said
    large = run(*pair.inside("s", "sh", "-c", f"ip link set v0 mtu 3500 && {lab} options v0")).stdout.splitlines()
    assert large[2].startswith("none: CB_OK"), large
    huge = run(*pair.inside("s", "sh", "-c", f"ip link set v0 mtu 9000 && {lab} options v0")).stdout.splitlines()
    assert huge[2].startswith("none: CB_ENOTSUP") and "MTU" in huge[2], huge
