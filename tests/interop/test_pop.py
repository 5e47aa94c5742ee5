"""Stories of a PoP whose servers all forward: whichever of them the router picks, each connection reaches its owner, through every change."""

import os
import socket
import struct
import sys
import threading
import time

import pytest

from conftest import BUILD, TOP

sys.path.insert(0, str(TOP / "tests/world"))
import capture  # noqa: E402
import pop  # noqa: E402
import world  # noqa: E402
from plane import Plane  # noqa: E402
from pop import VIP4, VIP6, Pops  # noqa: E402


def why_not():
    if not list(BUILD.glob("**/libcb-xdp.so")):
        return "libcb-xdp was not built (clang, libbpf-dev and bpftool)"
    return world.why_not(*pop.PROGRAMS)


pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
FLOWS = 60


def unbroken(load, why, seconds=2):
    """How the load is after some seconds, none of it broken."""
    counts = load.settle(seconds)
    for kind in ("tcp", "quic"):
        assert (counts[kind]["broken"], counts[kind]["moved"]) == (0, 0), (why, counts)
        assert counts[kind]["live"] == load.want[kind], (why, counts)
    return counts


def total(plane, *names):
    return {name: sum(plane.counts(host).get(name, 0) for host in plane.hosts) for name in names}


def no_drops(plane):
    bad = total(plane, "malformed", "bad_tag", "not_vip", "bad_interface", "loop", "no_owner", "no_neighbour", "too_big")
    assert not any(bad.values()), bad


@pytest.mark.parametrize("form", ["gue", "ipip", "mac"])
@pytest.mark.parametrize("underlay", [4, 6])
def test_all_encapsulations(form, underlay):
    """Both families of clients, both of the network between servers. The third server owns nothing, so all that reaches it goes on."""
    with Pops(BUILD, pops=(3,), clients=1) as w:
        plane = Plane(w, 1, encapsulation=form, underlay=underlay)
        w.serve()
        plane.begin(["s11", "s12"])
        plane.member("s13", weight=0)  # a member, for IPIP is taken from members only
        plane.settle()
        with capture.Capture(w.hosts["r1"], "to-s13", lambda p: p.dport == 443) as seen:
            load = w.load(FLOWS, FLOWS, every_ms=300).until_live()
            load.mark()
            counts = unbroken(load, form)
        for kind in ("tcp", "quic"):
            assert sorted(counts[kind]["servers"]) == ["s11", "s12"], counts
        packets = seen.packets()
        came = [p for p in packets if p.tunnel is None and p.dst in (VIP4, VIP6)]
        for family, there in ((4, VIP4), (6, VIP6)):
            inner = [p for p in packets if p.dst == there]
            assert {p.protocol for p in inner} == {"tcp", "udp"}
            if form == "mac":
                assert {p.tunnel for p in inner} == {None} and len({p.hops for p in inner}) == 2  # once as it came, once with a TTL lowered by one
                continue
            went = [p for p in inner if p.tunnel]
            # (some were under way when the capture began or ended)
            assert {p.tunnel for p in went} == {form} and abs(len(went) - sum(p.dst == there for p in came)) < 10
            ends = {w.servers[s].v4 if underlay == 4 else w.servers[s].v6 for s in ("s11", "s12")}
            assert {p.outer_dst for p in went} == ends and {p.outer_src for p in went} == {w.servers["s13"].v4 if underlay == 4 else w.servers["s13"].v6}
            if form == "gue":
                assert {p.outer_sum for p in went} == {0} and {p.between_hosts.hop for p in went} == {1}
                assert min(p.outer_ports[0] for p in went) >= 49152 and len({p.outer_ports[0] for p in went}) > 10
        s13 = plane.counts("s13")
        assert s13["forwarded"] > 0 and s13["local"] == 0, s13
        assert form == "mac" or s13["forwarded"] + s13["by_cid"] >= len(came) * 0.9
        no_drops(plane)


def test_changes_break_nothing():
    """Add, drain, back, weight, three in succession, other routes, the forwarder's end and its crash: 0 broken. A death: its own, and no others."""
    with Pops(BUILD, pops=(4,), clients=2, spare=1) as w:
        plane = Plane(w, 1)
        w.serve()
        plane.begin(["s11", "s12", "s13"])
        load = w.load(FLOWS, FLOWS, every_ms=300).until_live()
        load.mark()
        before = unbroken(load, "nothing")
        w.start_edge("s14")
        plane.start_host("s14")  # before the router knows it
        w.start("s14")
        unbroken(load, "a route for one that forwards only", 1)
        plane.member("s14")
        plane.settle()
        unbroken(load, "add")
        plane.member("s12", state="draining")
        plane.settle()
        unbroken(load, "drain")
        fresh = w.load(FLOWS, FLOWS, every_ms=300).until_live()
        fresh.mark()
        servers = unbroken(fresh, "new ones while one drains", 1)
        assert "s12" not in servers["tcp"]["servers"] and "s12" not in servers["quic"]["servers"] and "s14" in servers["tcp"]["servers"], servers
        plane.member("s12")
        plane.settle()
        unbroken(load, "back")
        plane.member("s11", weight=300)
        plane.settle()
        unbroken(load, "weight")
        for change in ({"name": "s13", "state": "draining"}, {"name": "s14", "weight": 50}, {"name": "s11", "weight": 100}):
            plane.member(**change)
            time.sleep(0.4)
        unbroken(load, "three, in between")
        plane.settle()
        unbroken(load, "three")
        plane.member("s13")
        plane.settle()
        w.withdraw("s11")  # another hash of the router for all of them
        unbroken(load, "rehash")
        w.start("s11")
        unbroken(load, "rehash again")
        plane.stop_host("s12")
        unbroken(load, "without the process")
        plane.start_host("s12")
        unbroken(load, "taken over")
        plane.crash_host("s13")
        unbroken(load, "crash")
        plane.start_host("s13")
        after = unbroken(load, "after a crash", 1)
        assert [after[k]["servers"] for k in ("tcp", "quic")] == [before[k]["servers"] for k in ("tcp", "quic")]
        assert total(plane, "second_hop")["second_hop"] > 0
        no_drops(plane)
        dead = {k: after[k]["servers"]["s13"] for k in ("tcp", "quic")}
        plane.kill("s13")
        counts = load.settle(8)
        for kind in ("tcp", "quic"):
            assert (counts[kind]["broken"], counts[kind]["broken_of"]) == (dead[kind], {"s13": dead[kind]}), counts
        unbroken(fresh if "s13" not in servers["tcp"]["servers"] and "s13" not in servers["quic"]["servers"] else w.load(FLOWS, FLOWS).until_live(), "new ones after a death", 1)


@pytest.mark.parametrize("late", ["s11", "s12", "s13"])
def test_hosts_a_version_apart(late):
    """One host hears of the announcement when all others have, and of the move when connections of the new owner live: nothing breaks, old or new."""
    with Pops(BUILD, pops=(3,), clients=1) as w:
        plane = Plane(w, 1, moves_per_step=65537, ack_ms=60000)
        w.serve()
        plane.begin(["s11", "s12"])
        old = w.load(FLOWS, FLOWS, every_ms=300).until_live()
        old.mark()
        plane.hold(late)
        begun = len(plane.records)
        plane.member("s13")
        world.wait_for(lambda: len(plane.records) >= begun + 2 and all(plane.applied[n] >= begun + 2 for n in plane.hosts if n != late), 10, lambda: f"{plane.applied}")
        time.sleep(1)
        behind = len(plane.records)
        assert plane.applied[late] == begun, "the writer waits for it"
        first = w.load(FLOWS, FLOWS, every_ms=300).until_live()  # some hosts know of the announcement, one does not
        first.mark()
        unbroken(old, "announced for all but one", 1)
        with plane.lock:
            plane.release(late)
            others = [n for n in plane.hosts if n != late]
            for name in others[:1]:
                plane.hold(name)
        world.wait_for(lambda: len(plane.records) > behind and plane.applied[late] == len(plane.records), 10, lambda: f"{plane.applied} of {len(plane.records)}")
        assert plane.applied[others[0]] == behind
        second = w.load(FLOWS, FLOWS, every_ms=300).until_live()  # the others' new connections live at s13 already
        second.mark()
        for load in (old, first, second):
            unbroken(load, "moved for all but one", 1)
        assert "s13" in second.report()["tcp"]["servers"], second.report()
        plane.release(others[0])
        plane.settle()
        for load in (old, first, second):
            unbroken(load, "all", 1)
        assert total(plane, "second_hop")["second_hop"] > 0
        no_drops(plane)


def test_clients_that_move_keep_their_server():
    """QUIC goes by connection ID: another address, another NAT's, another uplink, and always the same server of four."""
    with Pops(BUILD, pops=(4,), clients=1) as w:
        plane = Plane(w, 1)
        w.serve()
        plane.begin(["s11", "s12", "s13", "s14"])
        load = w.load(0, FLOWS, every_ms=300, follow=True).until_live()
        load.mark()
        servers = unbroken(load, "nothing", 1)["quic"]["servers"]
        assert len(servers) == 4
        for _ in range(3):
            w.rebind("c1")
            assert unbroken(load, "rebind", 1)["quic"]["servers"] == servers
        w.move("c1")
        assert unbroken(load, "move", 3)["quic"]["servers"] == servers
        w.hosts["c1"].cut("up1")
        assert unbroken(load, "the other uplink", 4)["quic"]["servers"] == servers
        assert total(plane, "by_cid")["by_cid"] > 0
        no_drops(plane)


def test_the_path_s_mtu_reaches_the_owner():
    """A router towards the client has less room than the servers think. What it says of their packets comes to whichever server the routes lead it to, and goes on to the one that
    has the connection: downloads over TCP end, in both families, which would stand still otherwise."""
    with Pops(BUILD, pops=(3,), clients=1) as w:
        plane = Plane(w, 1)
        w.serve()
        plane.begin(["s11", "s12", "s13"])
        client = w.clients["c1"].host
        w.hosts["r1"].ip("link set dev c1-up1 mtu 1300")  # the client's own end says 1500, and so does its MSS
        before = total(plane, "icmp")["icmp"]
        for vip in (VIP4, f"[{VIP6}]"):
            for _ in range(6):
                got = client.run("curl", "-sS", "--max-time", "20", "--http1.1", "--cacert", w.ca / "ca.pem", "-o", "/dev/null", "-w", "%{http_code} %{size_download}",
                                 f"https://{vip}/large?300000", check=False)
                assert (got.returncode, got.stdout) == (0, "200 300000"), (vip, got, total(plane, "icmp"))
        assert total(plane, "icmp")["icmp"] > before, "some errors came to servers that had another's connection"
        no_drops(plane)


def test_edges_that_forward():
    """The same with cb-edge's own forwarding: servers drain, come back, get other shares, lose their route, die and return, while connections live."""
    with Pops(BUILD, pops=(3,), clients=2, forwarding=True) as w:
        w.serve()
        load = w.load(FLOWS, FLOWS, every_ms=300).until_live()
        load.mark()
        before = unbroken(load, "nothing", 1)
        for name, change in (("drain", lambda: w.drain("s11")), ("back", lambda: w.undrain("s11")), ("weight", lambda: w.weight("s12", 300)),
                             ("rehash", lambda: w.withdraw("s13")), ("rehash again", lambda: w.start("s13"))):
            change()
            w.until_moved(1)
            unbroken(load, name, 1)
        assert 0.59 < w.members(1)["s12"]["share"] < 0.61  # 300 of 500
        w.kill("s11")
        w.until_moved(1)
        world.wait_for(lambda: w.members(1)["s11"]["state"] == "dead", 10, lambda: str(w.members(1)))
        counts = load.settle(8)
        for kind in ("tcp", "quic"):
            lost = before[kind]["servers"]["s11"]
            assert (counts[kind]["broken"], counts[kind]["broken_of"], counts[kind]["moved"]) == (lost, {"s11": lost}, 0), counts
        w.start("s11")
        w.until_moved(1)
        again = w.load(FLOWS, FLOWS, every_ms=300).until_live()
        again.mark()
        assert sorted(unbroken(again, "all three", 1)["tcp"]["servers"]) == ["s11", "s12", "s13"]
        paths = [w.datapath(name) for name in ("s11", "s12", "s13")]
        assert sum(p["forwarded"] for p in paths) > 0 and sum(p["decapsulated"] for p in paths) > 0, paths
        assert not any(p[name] for p in paths for name in ("malformed", "bad_tag", "loop", "not_vip")), paths


class Flood(threading.Thread):
    """TCP segments with ACK from everywhere to the service, for some seconds, and no more than leaves the processors time for the servers: they are the same ones here."""

    RATE = 5000  # a second

    def __init__(self, client, seconds):
        super().__init__(daemon=True)
        self.seconds, self.sent = seconds, 0
        self.sock = capture.socket_inside(client.host.space, self._open)
        mac = client.host.run("ip", "-json", "neigh", "show", f"10.{20 + client.number}.1.1").stdout
        self.to = bytes.fromhex(mac.split('"lladdr":"')[1][:17].replace(":", ""))

    @staticmethod
    def _open():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        sock.bind(("up1", 0x0800))
        return sock

    @staticmethod
    def segment(number):
        source, port = struct.pack("!BBH", 10, 21, number & 0xFFFF), 1024 + number % 60000
        tcp = struct.pack("!HHIIBBHHH", port, 443, number * 7919 & 0xFFFFFFFF, number * 104729 & 0xFFFFFFFF, 0x50, 0x10, 1000, 0, 0)
        there = socket.inet_aton(VIP4)
        head = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0x4000, 64, 6, 0) + source + there

        def add_up(data):
            n = sum(struct.unpack(f"!{len(data) // 2}H", data))
            while n >> 16:
                n = (n & 0xFFFF) + (n >> 16)
            return struct.pack("!H", 0xFFFF ^ n)

        tcp = tcp[:16] + add_up(source + there + struct.pack("!HH", 6, 20) + tcp) + tcp[18:]
        return head[:10] + add_up(head) + head[12:] + tcp

    def run(self):
        frames = [self.to + bytes(6) + b"\x08\x00" + self.segment(i) for i in range(20000)]
        begun = time.monotonic()
        while (late := time.monotonic() - begun) < self.seconds:
            for frame in frames[self.sent % len(frames):][:max(0, int(late * self.RATE) - self.sent)]:
                self.sock.send(frame)
                self.sent += 1
            time.sleep(0.005)
        self.sock.close()


def test_a_flood_of_acks_while_buckets_move():
    """Segments of no connection, for buckets that have two owners: each takes one hop more, up to a rate, and then ends at who is first. Connections in the same buckets go on."""
    with Pops(BUILD, pops=(2,), clients=2) as w:
        plane = Plane(w, 1, reports=False)
        w.serve()
        plane.begin(["s11"])
        load = w.load(FLOWS, FLOWS, every_ms=300).until_live()
        load.mark()
        plane.member("s12")
        plane.settle()  # half of all buckets have s12 first and s11 second
        unbroken(load, "moved", 1)
        before = total(plane, "second_hop", "rate_limited", "loop")
        flood = Flood(w.clients["c2"], 4)
        flood.start()
        unbroken(load, "under the flood", 4)
        flood.join()
        after = total(plane, "second_hop", "rate_limited", "loop")
        hops = after["second_hop"] - before["second_hop"]
        assert flood.sent > 5000 and flood.sent / 8 < hops < flood.sent * 0.75, (flood.sent, after)  # half of them, and never two for one
        assert after["loop"] == 0
        unbroken(load, "after it", 2)


def test_the_second_hop_has_a_rate():
    with Pops(BUILD, pops=(2,), clients=2) as w:
        plane = Plane(w, 1, hop_rate=100, reports=False)
        w.serve()
        plane.begin(["s11"])
        load = w.load(0, FLOWS, every_ms=300).until_live()  # QUIC is where its connection ID says: no hop
        load.mark()
        plane.member("s12")
        plane.settle()
        flood = Flood(w.clients["c2"], 4)
        begun = time.monotonic()
        before = plane.counts("s12")
        flood.start()
        counts = load.settle(4)
        flood.join()
        after, took = plane.counts("s12"), time.monotonic() - begun
        hops, limited = after["second_hop"] - before["second_hop"], after["rate_limited"] - before["rate_limited"]
        assert hops <= 100 * 2 * (took + 2) * len(os.sched_getaffinity(0)), (hops, took)
        assert limited > hops, (hops, limited, flood.sent)
        assert counts["quic"]["broken"] == 0, counts
