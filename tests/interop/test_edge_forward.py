"""Two cb-edges as a PoP in namespaces: the router gives all packets to the first, half of the flows live at the second, which answers by itself. Drains, a
daemon that restarts, an upgrade, a death."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
from conftest import BUILD, TOP, program, run

sys.path.insert(0, str(TOP / "tests/world"))
import world  # noqa: E402

VIP4, VIP6, PORT = "198.51.100.1", "2001:db8:51::1", 443
PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
KEEPER = """
import socket, ssl, sys
# Opens connections, asks each who serves it, and again for each line of input.
def ask(s):
    s.sendall(b"GET /name HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
    got = b""
    while b"\\r\\n\\r\\n" not in got or len(got.split(b"\\r\\n\\r\\n", 1)[1]) < 5:
        more = s.recv(4096)
        if not more: return "closed"
        got += more
    return got.split(b"\\r\\n\\r\\n", 1)[1].decode()
context = ssl.create_default_context(cafile=sys.argv[2])
all = []
for i in range(int(sys.argv[3])):
    s = socket.create_connection((sys.argv[1], 443), 10)
    s.settimeout(10)
    all.append(context.wrap_socket(s, server_hostname="localhost"))
while True:
    out = []
    for s in all:
        try: out.append(ask(s))
        except OSError as e: out.append(type(e).__name__)
    print(" ".join(out), flush=True)
    if not sys.stdin.readline(): break
"""


def why_not():
    if not next(BUILD.glob("**/libcb-xdp.so"), None):
        return "built without libcb-xdp (libbpf, clang, bpftool)"
    return world.why_not("ethtool", "clang", "curl")


pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


class Pop(world.World):
    def __init__(self, pki, pins, files, user=None):
        super().__init__()
        self.pki, self.pins, self.files, self.user = pki, pins, files, user
        self.key, self.cid_key = files / "pop.key", files / "cid.key"
        for file, size in ((self.key, 32), (self.cid_key, 16)):
            file.write_bytes(os.urandom(size))
            file.chmod(0o600)
        for number in (1, 2):
            made = run(program("cbctl"), "ca", "dev", "--dir", files / "ca", f"edge{number}.test")
            assert made.returncode == 0, made.stderr
        if user:
            self.pki = {name: shutil.copy(pki[name], files) for name in ("cert", "key", "ca")}
            for file in [file for folder in (files, files / "ca") for file in folder.iterdir()]:
                os.chown(file, user.pw_uid, user.pw_gid)
        self.members = [{"id": n, "address": f"10.99.0.{10 + n}", "peer": f"edge{n}.test", "server_id": f"000{n}"} for n in (1, 2)]
        self.members[0]["control"] = "10.99.0.11:7946"
        self.edges = {}

    def build(self):
        router, client = self.host("r", forwards=True), self.host("c")
        self.client = client
        self.link(client, "eth0", router, "to-c", v4=("10.98.0.2/24", "10.98.0.1/24"), v6=("2001:db8:98::2/64", "2001:db8:98::1/64"))
        client.ip("route add default via 10.98.0.1", "-6 route add default via 2001:db8:98::1")
        router.ip("link add br0 mtu 1600 type bridge", "link set dev br0 up")
        router.address("br0", "10.99.0.254/24", "2001:db8:99::fe/64")
        for n in (1, 2):
            host = self.host(f"s{n}")
            self.link(host, "eth0", router, f"to-s{n}", mtu=1600, offloads=False)
            router.ip(f"link set dev to-s{n} master br0")
            router.xdp_pass(f"to-s{n}")
            host.address("eth0", f"10.99.0.{10 + n}/24", f"2001:db8:99::{10 + n}/64")
            host.ip("route add default via 10.99.0.254", "-6 route add default via 2001:db8:99::fe")
            host.start(PYTHON, TOP / "tests/interop/edge_origin.py", 8080, f"host{n}").wait_for("origin on")
        router.ip(f"route add {VIP4}/32 via 10.99.0.11", f"-6 route add {VIP6}/128 via 2001:db8:99::11")

    def configure(self, n, **more):
        vips = [{"address": vip, "protocol": protocol, "port": PORT, **({"quic": True} if protocol == "udp" else {})}
                for vip in (VIP4, VIP6) for protocol in ("tcp", "udp")]
        tls = {"certificates": [{"cert_file": str(self.pki["cert"]), "key_file": str(self.pki["key"])}]}
        document = {**({"user": self.user.pw_name} if self.user else {}), "workers": 2, "drain_timeout_ms": 2000, "listeners": {"four": {"address": f"{VIP4}:{PORT}", "tls": tls}, "six": {"address": f"[{VIP6}]:{PORT}", "tls": tls}},
                    "groups": {"web": {"origins": [{"url": "http://127.0.0.1:8080"}]}}, "routes": [{"group": "web"}],
                    "admin": {"socket": str(self.socket(n))}, "quic_lb": {"server_id": f"000{n}", "cid_key_file": str(self.cid_key)},
                    "forwarding": {"id": n, "writer": 1, "members": self.members, "key_file": str(self.key), "state_file": str(self.files / f"lb{n}.state"),
                                   "control": {"cert_file": str(self.files / f"ca/edge{n}.test.pem"), "key_file": str(self.files / f"ca/edge{n}.test-key.pem"),
                                               "ca_file": str(self.files / "ca/ca.pem")},
                                   "interfaces": [{"name": "eth0"}], "vips": vips, "add_addresses": True, "pin_dir": f"{self.pins}/s{n}",
                                   "heartbeat_ms": 200, "misses": 5, "rise_ms": 300, "step_ms": 100, "moves_per_step": 70000, "start_ms": 2000, **more}}
        file = self.files / f"edge{n}.json"
        file.write_text(json.dumps(document))
        return file

    def socket(self, n):
        return self.files / f"edge{n}.sock"

    def serve(self, n, **more):
        host = self.hosts[f"s{n}"]
        for vip, length in ((VIP4, 32), (VIP6, 128)):  # the listeners need them before cb-edge would add them
            host.ip(f"addr add {vip}/{length} dev lo nodad" if ":" in vip else f"addr add {vip}/{length} dev lo", check=False)
        self.edges[n] = host.start(program("cb-edge"), "--config", self.configure(n, **more), name="cb-edge").wait_for("ready with")
        return self.edges[n]

    def ctl(self, n, *words):
        done = run(program("cbctl"), "lb", words[0], "--socket", self.socket(n), "--json", *words[1:])
        assert done.returncode == 0, (done.stdout, done.stderr, self.edges[n].output())
        return json.loads(done.stdout)

    def members_up(self, *numbers):
        def same():
            seen = {}
            for n in (1, 2):
                if n in self.edges:
                    done = run(program("cbctl"), "lb", "status", "--socket", self.socket(n), "--json")
                    if done.returncode:
                        return False
                    seen[n] = json.loads(done.stdout)
            members = run(program("cbctl"), "lb", "members", "--socket", self.socket(1), "--json")
            up = {m["id"] for m in json.loads(members.stdout if members.returncode == 0 else "[]") if m["state"] == "up"}
            return (up == set(numbers) and len({(s["version"], s["content"]) for s in seen.values()}) == 1 and not any(s["buckets"]["announced"] for s in seen.values())
                    and all(s["datapath"]["running"] and s["datapath"]["unresolved"] == 0 and s["datapath"]["table_version"] == s["version"] for s in seen.values()))
        world.wait_for(same, 30, lambda: f"not up: {numbers}: {[self.edges[n].output() for n in self.edges]}")
        return self

    def get(self, six=False, h3=False):
        vip = f"[{VIP6}]" if six else VIP4
        if h3:
            return self.client.run(program("http_client"), "-3", "--ca", self.pki["ca"], "--connect", f"{vip}:{PORT}", "https://localhost/name").stdout.strip()
        return self.client.run("curl", "-sS", "--max-time", "10", "--cacert", self.pki["ca"], "--connect-to", f"localhost:443:{vip}:{PORT}", "https://localhost/name").stdout

    def keep(self, n, six=False):
        """Connections that stay open; (process, who serves each)."""
        process = subprocess.Popen(self.client.inside(PYTHON, "-c", KEEPER, VIP6 if six else VIP4, self.pki["ca"], n), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.closers.append(process.kill)
        return process, process.stdout.readline().split()

    @staticmethod
    def again(process):
        process.stdin.write("\n")
        process.stdin.flush()
        return process.stdout.readline().split()


def pops(pki, files, user=None):
    """A BPF file system, and in it a PoP whose hosts are up."""
    pins = files / "bpf"
    pins.mkdir()
    done = subprocess.run(["mount", "-t", "bpf", "bpf", pins], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no BPF file system can be mounted: {done.stderr.strip()}")
    try:
        with Pop(pki, pins, files, user) as p:
            p.serve(1)
            p.serve(2)
            yield p.members_up(1, 2)
    finally:
        subprocess.run(["umount", pins], check=True)


@pytest.fixture
def pop(pki, tmp_path):
    yield from pops(pki, tmp_path)


@pytest.fixture
def users_pop(pki, nobody):
    user, folder = nobody
    yield from pops(pki, folder, user)


def counters(pop, n):
    return pop.ctl(n, "counters")["counters"]


def test_half_of_the_flows_live_at_the_other_host(pop):
    for six in (False, True):
        seen = [pop.get(six) for _ in range(24)]
        assert set(seen) == {"host1", "host2"}, seen
        assert {pop.get(six, h3=True) for _ in range(12)} == {"host1", "host2"}
    path = pop.ctl(1, "counters")
    assert path["running"] and path["trouble"] is None and path["unresolved"] == 0 and path["counters"]["forwarded"] > 100, path
    assert {v["address"] for v in path["vips"]} == {VIP4, VIP6} and path["interfaces"][0]["name"] == "eth0" and len(path["ways"]) == 2
    assert counters(pop, 2)["decapsulated"] > 100 and not any(counters(pop, 2)[name] for name in ("bad_tag", "malformed", "loop"))
    # what `cbctl lb owner` says is what the datapath does
    with_port = pop.client.run("curl", "-sS", "--cacert", pop.pki["ca"], "--connect-to", f"localhost:443:{VIP4}:{PORT}", "-w", "\n%{local_port}", "https://localhost/name").stdout
    name, port = with_port.split("\n")
    assert pop.ctl(2, "owner", f"10.98.0.2:{port}", f"{VIP4}:{PORT}")["first"] == int(name[-1])
    page = run("curl", "-s", "--unix-socket", pop.socket(1), "http://localhost/metrics").stdout
    assert re.search(r'cb_forward_packets_total\{reason="forwarded"\} [1-9]', page) and "cb_lb_table_applied_version" in page


def test_connections_outlive_drains_restarts_and_upgrades(pop):
    process, first = pop.keep(30)
    assert set(first) == {"host1", "host2"}
    pop.ctl(1, "drain", "2")
    world.wait_for(lambda: {pop.get() for _ in range(6)} == {"host1"}, 20, "new connections still come to a host that drains")
    assert pop.again(process) == first, "a drain broke connections"
    assert pop.ctl(1, "members")[1]["first"] == 0
    pop.ctl(1, "undrain", "2")
    pop.members_up(1, 2)
    world.wait_for(lambda: "host2" in {pop.get() for _ in range(6)}, 20)
    assert pop.again(process) == first, "moving back broke connections"
    # the first host's daemon dies: what lives at the second does not notice, for the datapath goes on
    there = [i for i, who in enumerate(first) if who == "host2"]
    pop.edges[1].stop(signal.SIGKILL)
    now = pop.again(process)
    assert [now[i] for i in there] == ["host2"] * len(there), now
    pop.serve(1)
    pop.members_up(1, 2)
    assert pop.ctl(1, "status")["datapath"]["adopted"]
    now = pop.again(process)
    assert [now[i] for i in there] == ["host2"] * len(there), now
    # and upgrades of both
    process, first = pop.keep(20)
    for n in (2, 1):
        pop.edges[n].send(signal.SIGUSR2)
        world.wait_for(lambda: pop.edges[n].output().count("ready with") == 2, 20, lambda: pop.edges[n].output())
        pop.members_up(1, 2)
    assert {pop.get() for _ in range(12)} == {"host1", "host2"}
    now = pop.again(process)
    assert not [who for who in now if who not in ("host1", "host2", "closed")], now


def test_a_host_dies_with_its_flows_and_no_others(pop):
    process, first = pop.keep(30, six=True)
    assert set(first) == {"host1", "host2"}
    pop.hosts["s2"].die()
    del pop.edges[2]
    world.wait_for(lambda: pop.ctl(1, "members")[1]["state"] == "dead", 20)
    assert [pop.get() for _ in range(8)] == ["host1"] * 8
    process.stdin.write("\n")
    process.stdin.flush()
    now = process.stdout.readline().split()
    assert [who for who, before in zip(now, first) if before == "host1"] == ["host1"] * first.count("host1"), now


def test_a_reload_changes_members_vips_and_interfaces(pop):
    document = json.loads(pop.configure(2).read_text())
    document["forwarding"]["vips"].append({"address": "198.51.100.9", "protocol": "tcp", "port": 80})
    document["forwarding"]["tag_key"] = 2
    document["forwarding"]["encapsulation"] = "ipip"
    (pop.files / "edge2.json").write_text(json.dumps(document))
    pop.edges[2].send(signal.SIGHUP)
    pop.edges[2].wait_for("reloaded")
    path = pop.ctl(2, "counters")
    assert "198.51.100.9" in {v["address"] for v in path["vips"]} and {w["encapsulation"] for w in path["ways"]} == {"ipip"}
    pop.edges[2].wait_for("VIP 198.51.100.9 was added to lo")
    assert {pop.get() for _ in range(12)} == {"host1", "host2"}, "one host is a tag key ahead"
    pop.configure(2)
    pop.edges[2].send(signal.SIGHUP)
    world.wait_for(lambda: "198.51.100.9" not in {v["address"] for v in pop.ctl(2, "counters")["vips"]}, 10)
    assert {pop.get() for _ in range(12)} == {"host1", "host2"}


def test_a_reload_may_write_addresses_otherwise_and_turn_things_round(pop):
    """Another way to write an address is the same VIP; what comes may have what others had before."""
    def vips():
        return {(v["address"], v["port"]): v["protocol"] for v in pop.ctl(2, "counters")["vips"]}

    def reload(vips, members):
        pop.configure(2, vips=vips, members=members)
        pop.edges[2].send(signal.SIGHUP)

    odd = [{"address": "2001:DB8:51:0::1", "protocol": "tcp", "port": 443}, {"address": "198.51.100.77/24"}, {"address": "198.51.100.9", "port": 80}]
    third = {"id": 3, "address": "10.99.0.13", "peer": "edge3.test", "server_id": "0003"}
    reload(odd, [*pop.members, third])
    world.wait_for(lambda: vips() == {("2001:db8:51::1", 443): "tcp", ("198.51.100.0/24", 0): "tcp+udp", ("198.51.100.9", 80): "tcp+udp"}, 10, lambda: f"{vips()} {pop.edges[2].output()}")
    # one of the protocols of what was both, and a member that has the address of one that went
    odd[2]["protocol"] = "tcp"
    reload(odd, [*pop.members, {**third, "id": 4, "server_id": "0004"}])
    world.wait_for(lambda: vips()[("198.51.100.9", 80)] == "tcp", 10, lambda: f"{vips()} {pop.edges[2].output()}")
    path = pop.ctl(2, "counters")
    assert {w["member"]: w["address"] for w in path["ways"]} == {1: "10.99.0.11", 2: "10.99.0.12", 4: "10.99.0.13"} and path["trouble"] is None, path


def test_rotations_go_with_a_reload(pop):
    """What a rotation was made for is over: its connection IDs are not believed any more."""
    def rotations():
        dump = run("bpftool", "-j", "map", "dump", "pinned", f"{pop.pins}/s2/cids").stdout
        return [i for i, entry in enumerate(json.loads(dump)) if any(int(byte, 16) for byte in entry["value"])]  # an array: rotation by rotation

    for cids, seen in (([{"rotation": 3, "cid_key_file": str(pop.cid_key)}], [0, 3]), ([], [0])):
        pop.configure(2, cids=cids)
        pop.edges[2].send(signal.SIGHUP)
        world.wait_for(lambda: rotations() == seen, 10, lambda: f"{rotations()} {pop.edges[2].output()}")
    assert {pop.get(h3=True) for _ in range(12)} == {"host1", "host2"}


def test_an_upgrade_that_fails_leaves_the_datapath_as_it_was(pop):
    """The successor gets as far as the datapath, and fails then."""
    document = json.loads(pop.configure(1).read_text())
    document["forwarding"]["vips"] = [{"address": "198.51.100.9", "protocol": "tcp", "port": 80}]
    document["forwarding"]["control"]["cert_file"] = "/nonexistent"
    (pop.files / "edge1.json").write_text(json.dumps(document))
    pop.edges[1].send(signal.SIGUSR2)
    pop.edges[1].wait_for("this process goes on")
    assert {v["address"] for v in pop.ctl(1, "counters")["vips"]} == {VIP4, VIP6}
    assert {pop.get() for _ in range(12)} == {"host1", "host2"}


def test_hosts_that_gave_root_s_rights_up_forward_all_the_same(users_pop):
    """With what they keep they attach to more, take a predecessor's datapath over, and find their ways again."""
    pop = users_pop
    assert os.stat(f"/proc/{pop.edges[2].pid}").st_uid == pop.user.pw_uid
    assert {pop.get() for _ in range(12)} == {"host1", "host2"}
    host = pop.hosts["s2"]
    host.ip("link add d0 type veth peer name d1", "link set d0 up")
    pop.configure(2, interfaces=[{"name": "eth0"}, {"name": "d0", "mode": "generic"}])
    pop.edges[2].send(signal.SIGHUP)
    world.wait_for(lambda: "d0" in {i["name"] for i in pop.ctl(2, "counters")["interfaces"]}, 10, pop.edges[2].output)
    for n in (2, 1):
        pop.edges[n].send(signal.SIGUSR2)
        world.wait_for(lambda: pop.edges[n].output().count("ready with") == 2, 20, lambda: pop.edges[n].output())
        pop.members_up(1, 2)
        path = pop.ctl(n, "status")["datapath"]
        assert path.get("adopted"), (path, pop.edges[n].output())
    assert {pop.get() for _ in range(12)} == {"host1", "host2"}
