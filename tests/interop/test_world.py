"""The world of PoPs (tests/world) and what an anycast service is in it without a forwarding plane: BIRD, ECMP, and plain Maglev beside it."""

import os
import signal
import socket
import struct
import subprocess
import sys
import time

import pytest

from conftest import BUILD, TOP

sys.path.insert(0, str(TOP / "tests/world"))
import capture  # noqa: E402
import pop  # noqa: E402
import world  # noqa: E402
from maglev import SLOTS, Maglev, table  # noqa: E402
from pop import VIP4, VIP6, Pops  # noqa: E402

needs_world = pytest.mark.skipif(world.why_not(*pop.PROGRAMS) is not None, reason=str(world.why_not(*pop.PROGRAMS)))


def broken(counts, kind):
    return counts[kind]["broken"], counts[kind]["broken_of"], counts["detail"]


@needs_world
def test_both_families_reach_all_servers():
    with Pops(BUILD) as w:
        w.serve()
        assert w.next_hops("r1") == w.next_hops("r1", v6=True) == ["s11", "s12"] and w.next_hops("r2") == ["s21", "s22"]
        for client, pops_servers in (("c1", "s1"), ("c2", "s2")):
            for v6 in (False, True):
                assert f"via: 1.1 {pops_servers}" in w.curl(client, v6=v6), (client, v6)
                assert f"via: 1.1 {pops_servers}" in w.curl(client, "/headers", v6, "--http1.1")
        assert "s21" in w.cbctl("s21", "get", "via")
        load = w.load(tcp=40, quic=40).until_live()
        counts = load.settle(2)
        for kind in ("tcp", "quic"):
            assert sorted(counts[kind]["servers"]) == ["s11", "s12", "s21", "s22"], counts
            assert counts[kind]["live"] == 40 and counts[kind]["broken"] == counts[kind]["moved"] == 0 and counts[kind]["answers"] >= 80, counts
        # the load sees what the servers see
        served = sum(float(line.rsplit(" ", 1)[1]) for s in w.servers.values() for line in s.host.metrics(pop.METRICS).splitlines()
                     if line.startswith("cb_http_server_requests_total{"))
        counts = load.report()
        assert served >= counts["tcp"]["answers"] + counts["quic"]["answers"] - 80


@needs_world
def test_a_server_dies_and_comes_back():
    with Pops(BUILD, pops=(2,), clients=1) as w:
        w.serve()
        load = w.load(tcp=30, quic=30, stall_ms=3000).until_live()
        load.mark()
        before = load.report()
        begun = time.monotonic()
        w.kill("s11")
        took = time.monotonic() - begun
        assert w.next_hops("r1") == w.next_hops("r1", v6=True) == ["s12"] and took < 6, took
        assert "via: 1.1 s12" in w.curl("c1") and "via: 1.1 s12" in w.curl("c1", v6=True)
        after = load.settle(6)
        for kind in ("tcp", "quic"):
            # what was left of two is one: everything else goes on
            assert broken(after, kind)[:2] == (before[kind]["servers"]["s11"], {"s11": before[kind]["servers"]["s11"]}), (before, after)
            assert after[kind]["servers"] == {"s12": before[kind]["servers"]["s12"]}
        w.start("s11")
        assert w.next_hops("r1") == ["s11", "s12"]
        assert any("via: 1.1 s11" in w.curl("c1", v6=i % 2 == 0) for i in range(40))


@needs_world
def test_a_pop_without_servers_is_left():
    with Pops(BUILD, clients=1) as w:
        w.serve()
        assert "via: 1.1 s1" in w.curl("c1")
        w.kill("s11")
        w.withdraw("s12")
        w.until_routed("r1", ["r2"])
        for v6 in (False, True):
            assert "via: 1.1 s2" in w.curl("c1", v6=v6)
        w.start("s12")
        assert "via: 1.1 s12" in w.curl("c1")


@needs_world
def test_clients_move():
    with Pops(BUILD, pops=(2,), clients=1, spare=1) as w:
        w.serve()
        load = w.load(tcp=10, quic=10, follow=True).until_live()
        load.mark()
        seen = w.rebind("c1")
        with capture.Capture(w.hosts["s11"], "eth0", lambda p: p.protocol == "udp" and p.dport == 443) as packets:
            counts = load.settle(2)
        assert {p.src for p in packets.packets()} == set(seen)  # the NAT's new addresses, and only these
        assert broken(counts, "quic")[0] == broken(counts, "tcp")[0] == 0, counts
        w.move("c1")
        counts = load.settle(3)
        assert broken(counts, "quic")[0] == 0 and counts["quic"]["live"] == 10, counts
        assert counts["tcp"]["broken"] == 10  # what TCP is
        w.hosts["c1"].cut("up1")
        with capture.Capture(w.hosts["r1"], "c1-up2", lambda p: p.protocol == "udp" and p.dport == 443) as packets:
            counts = load.settle(4)
        assert {p.src for p in packets.packets()} == set(w.clients["c1"].addresses(2))
        assert broken(counts, "quic")[0] == 0 and counts["quic"]["live"] == 10, counts
        w.hosts["c1"].mend("up1")
        assert "via: 1.1 s11" in w.curl("c1", v6=True)


@needs_world
def test_wires_with_delay_rate_and_loss():
    with Pops(BUILD, pops=(1,), clients=1, shims=True) as w:
        sock = capture.socket_inside(w.hosts["c1"].space, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))

        def ping(count=5, size=56, seconds=0.5):
            """(percent that got no answer, the least time of an answer in ms)"""
            sent, times = {}, []
            for i in range(count):
                data = struct.pack("!BBHHH", 8, 0, 0, os.getpid() & 0xFFFF, i) + bytes(size)
                total = sum(struct.unpack(f"!{len(data) // 2}H", data))
                total = (total & 0xFFFF) + (total >> 16)
                sent[i] = time.monotonic()
                sock.sendto(data[:2] + struct.pack("!H", 0xFFFF ^ total) + data[4:], ("10.21.1.1", 0))
                time.sleep(0.002)
            sock.settimeout(seconds)
            while len(times) < count:
                try:
                    reply = sock.recv(65536)
                except socket.timeout:
                    break
                if reply[20] == 0:
                    times.append((time.monotonic() - sent[struct.unpack_from("!H", reply, 26)[0]]) * 1000)
            return 100 - 100 * len(times) / count, min(times, default=None)

        ping(1)
        assert ping()[1] < 15
        w.shim("c1", "up1", delay=25)
        assert 50 <= ping()[1] < 80
        w.shim("c1", "up1", delay=0, rate=1)
        assert ping(1, 1172)[1] >= 2 * 1214 * 8 / 1000  # milliseconds, at 1 Mbit/s, there and back
        w.shim("c1", "up1", rate=0, loss=100)
        assert ping(3)[0] == 100
        w.shim("c1", "up1", loss=30)
        assert 30 < ping(200)[0] < 75  # 51 %: there and back
        w.shim("c1", "up1", loss=0)
        assert ping()[0] == 0
        w.hosts["r1"].loss("c1-up1", 100)
        assert ping(2)[0] == 100
        w.hosts["r1"].loss("c1-up1", 0)
        assert ping()[0] == 0
        sock.close()
        w.serve()
        w.shim("c1", "up1", delay=10, loss=1)
        load = w.load(tcp=5, quic=5).until_live()
        counts = load.settle(3)
        assert counts["tcp"]["broken"] == counts["quic"]["broken"] == 0, counts


def test_maglev_is_even_and_nearly_minimal():
    weights = {f"s{i}": 1 for i in range(10)}
    full, less = table(weights), table({k: v for k, v in weights.items() if k != "s3"})
    assert max(full.count(n) for n in weights) - min(full.count(n) for n in weights) <= 1
    moved = sum(a != b for a, b in zip(full, less) if a != "s3")
    assert 0 < moved < SLOTS * 0.02
    heavy = table({"a": 3, "b": 1})
    assert heavy.count("a") == pytest.approx(SLOTS * 3 / 4, abs=3)


@needs_world
def test_plain_maglev_breaks_what_moves():
    """The comparison that the forwarding plane has to stand: a table without memory."""
    with Pops(BUILD, pops=(3,), clients=1) as w:
        w.serve()
        plain = Maglev(w, 1)
        plain.set({"s11": 1, "s12": 1})
        load = w.load(tcp=60, quic=60).until_live()
        load.mark()
        assert sorted(load.report()["tcp"]["servers"]) == ["s11", "s12"]
        assert SLOTS / 3 <= plain.set({"s11": 1, "s12": 1, "s13": 1}) < SLOTS * 0.45
        counts = load.settle(4)
        for kind in ("tcp", "quic"):
            assert 5 <= counts[kind]["broken"] <= 40, counts
            assert "s13" not in counts[kind]["servers"] and "s13" not in counts[kind]["broken_of"], counts


def ip4(protocol, source, destination, rest, hops=64):
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(rest), 0, 0, hops, protocol, 0, bytes(source), bytes(destination)) + rest


def ip6(protocol, source, destination, rest):
    return struct.pack("!IHBB16s16s", 6 << 28, len(rest), protocol, 64, source, destination) + rest


def test_decoding_of_tunnels():
    tcp = struct.pack("!HHIIBBHHH", 1000, 443, 1, 2, 0x50, 0x12, 100, 0, 0) + b"hello"
    inner = ip4(6, (10, 0, 0, 1), (192, 0, 2, 1), tcp)
    six = b"\x20\x01\x0d\xb8" + bytes(11)
    inner6 = ip6(17, six + b"\1", six + b"\2", struct.pack("!HHHH", 5, 443, 10, 0) + b"hi")
    plain = capture.decode_ip(inner)
    assert (plain.tunnel, plain.src, plain.dst, plain.protocol, plain.sport, plain.dport, plain.flags, plain.payload) == \
        (None, "10.0.0.1", "192.0.2.1", "tcp", 1000, 443, "SA", b"hello")
    for outer, protocol, carried in ((ip4, 4, inner), (ip4, 41, inner6), (ip6, 4, inner), (ip6, 41, inner6)):
        ends = ((10, 1, 0, 11), (10, 1, 0, 12)) if outer is ip4 else (six + b"\x0b", six + b"\x0c")
        seen = capture.decode_ip(outer(protocol, *ends, carried))
        assert seen.tunnel == "ipip" and seen.outer_dst == ("10.1.0.12" if outer is ip4 else "2001:db8::c") and seen.problem is None
        assert seen.dport == 443 and seen.src == ("10.0.0.1" if carried is inner else "2001:db8::1") and seen.payload == (b"hello" if carried is inner else b"hi")
        gue = struct.pack("!BBH", 2, protocol, 0) + b"12345678"
        seen = capture.decode_ip(outer(17, *ends, struct.pack("!HHHH", 777, 6080, 8 + len(gue) + len(carried), 0) + gue + carried))
        assert seen.tunnel == "gue" and seen.extra == b"12345678" and seen.outer_ports == (777, 6080) and seen.dport == 443 and seen.outer_sum == 0
    for data in (b"", b"\x45", inner[:19], inner[:30], b"\x45\0\0\x14" + inner[4:20], inner6[:39], b"\x41" + inner[1:]):
        assert capture.decode_ip(data).problem or capture.decode_ip(data).dport is None
    private = struct.pack("!BBHBBBBII8s", 5, 4, 1, 0xCB, 2, 4, 3, 0x01020304, 77, b"the tag!")
    seen = capture.decode_ip(ip4(17, (1, 1, 1, 1), (2, 2, 2, 2), struct.pack("!HHHH", 7, 6080, 8 + len(private) + len(inner), 0) + private + inner))
    assert seen.between_hosts == capture.Between(2, 4, 3, 0x01020304, 77, b"the tag!") and seen.dport == 443 and plain.between_hosts is None
    bad = struct.pack("!BBH", 31, 4, 0)
    assert capture.decode_ip(ip4(17, (1, 1, 1, 1), (2, 2, 2, 2), struct.pack("!HHHH", 7, 6080, 8 + len(bad) + len(inner), 0) + bad + inner)).problem
    assert capture.decode(b"\0" * 12 + b"\x08\x06" + bytes(28)) is None


@needs_world
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_however_it_ends(number, tmp_path):
    """Neither namespaces, nor programs, nor the folder."""
    script = f"""
import sys
sys.path.insert(0, {str(TOP / 'tests/world')!r})
from world import World
import time
with World() as w:
    a, b = w.host("a"), w.host("b")
    w.link(a, "eth0", b, "eth0", ("10.0.0.1/24", "10.0.0.2/24"))
    print(w.tag, w.folder, a.start("sleep", "1000").pid, flush=True)
    time.sleep(1000)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    tag, folder, pid = process.stdout.readline().split()
    assert len([name for name in world.spaces() if name.startswith(tag)]) == 2 and os.path.exists(folder)
    process.send_signal(number)
    process.wait(20)
    process.stdout.close()
    world.wait_for(lambda: not [n for n in world.spaces() if n.startswith(tag)] and not os.path.exists(folder) and not os.path.exists(f"/proc/{pid}"), 15,
                   lambda: f"left: {world.spaces()}, {folder}, {pid}")


@needs_world
def test_a_failure_while_it_is_built_leaves_nothing():
    class Bad(world.World):
        def build(self):
            self.host("a").ip("link set nothing up")

    with pytest.raises(AssertionError, match="nothing"):
        with Bad() as w:
            pytest.fail(str(w))
    assert not [name for name in world.spaces() if name.startswith(f"cbw-{os.getpid()}-")]


def test_without_root_or_programs_it_says_why():
    assert world.why_not("no-such-program") is not None


@needs_world
def test_the_benchmark_counts_what_breaks():
    """scripts/bench pop, small: a drained server's connections break where the router has nothing but routes."""
    done = subprocess.run([sys.executable, TOP / "tests/bench/pop.py", "--build", BUILD, "--flows", "24", "--every", "1000", "--only", "ecmp", "--row", "drain"],
                          capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    tcp, quic = (int(n) for n in done.stdout.split("| drain | ")[1].split(" |")[0].split(" + "))
    assert 0 < tcp <= 24 and 0 < quic <= 24, done.stdout
