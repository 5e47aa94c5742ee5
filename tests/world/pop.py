"""The world of an anycast service: PoPs of servers behind routers that run BIRD, clients with two uplinks, an origin.

    with Pops(build, pops=(2, 2)) as w:
        w.serve()                                  # cb-edge and BIRD on every server, the address announced, routes there
        load = w.load(tcp=100, quic=100)           # live connections from all clients
        load.until_live()
        w.kill("s11")                              # power off: no word to anybody; BFD finds it
        print(load.report(), w.next_hops("r1"))

        up1 (10.21.1.0/24)                    lan (10.1.0.0/24)
    c1 ====================== r1 ============ s11 s12 ...
        up2 (10.21.2.0/24)    |  \\
                              |   o (the origin, 10.8.1.2 and 10.8.2.2, port 80)
        up1, up2 (10.22)      |  /
    c2 ====================== r2 ============ s21 s22 ...     IPv6: the same numbers in 2001:db8::/32, as 2001:db8:1::11 of s11's 10.1.0.11

Client cN is near PoP ((N-1) mod PoPs)+1: its router is there. When no server of that PoP is left the routers' BGP leads to another one. All servers announce
VIP4 and VIP6 to their router, which shares flows out among them by the hash of addresses and ports (ECMP). Wires have an MTU of 1500 towards clients and the
origin, and of 1600 in PoPs and between routers. Servers' wires take what is sent by XDP_TX.

With forwarding=True all servers of a PoP forward, by `forwarding` of cb-edge, and drain(), undrain() and weight() change their table. It is written on a host of its own in each PoP,
k1 and k2 (10.1.0.10), which serves nobody, so that any server can be killed.
"""

import fcntl
import json
import os
import re
import subprocess
import time
from pathlib import Path

from world import HERE, TOP, World, wait_for

VIP4, VIP6 = "192.0.2.1", "2001:db8:ffff::1"
NAME = "pop.test"
URL = f"https://{NAME}/headers"
BGP_ROUTER, BGP_SERVER = 65000, 65100  # and the PoP's number
METRICS = 9464
PROGRAMS = ("bird", "birdc", "nft", "ethtool", "clang", "curl")  # what must be installed


def build_program(name, build):
    """A program of this folder, linked with the library of a build tree and kept there."""
    build = Path(build).resolve()
    source, out = HERE / f"{name}.c", build / "tests/world" / name
    lib = next(path for path in (build / "libcb.so", *sorted(build.rglob("libcb.so"))) if path.exists())
    libs = [str(lib.with_name("libcb-xdp.so"))] if "<cb/forward.h>" in source.read_text() else []
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out.parent / ".lock", "w") as lock:  # several tests may come at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not out.exists() or out.stat().st_mtime < max(source.stat().st_mtime, lib.stat().st_mtime):
            cache = (build / "CMakeCache.txt").read_text() if (build / "CMakeCache.txt").exists() else ""
            sanitize = re.search(r"^CB_SANITIZE:STRING=(.+)$", cache, re.M)
            flags = [f"-fsanitize={sanitize[1]}"] if sanitize else []
            subprocess.run(["cc", "-std=c11", "-D_GNU_SOURCE", "-O2", *flags, f"-I{TOP}/include", str(source), *libs, str(lib), f"-Wl,-rpath,{lib.parent}", "-lpthread",
                            "-o", str(out)], check=True)
    return out


class Server:
    """What a PoP's server is and has: .host, .name, .pop, .number, .v4, .v6 (of the LAN); .edge and .bird once it serves."""

    def __init__(self, host, pop, number):
        self.host, self.name, self.pop, self.number = host, host.name, pop, number
        self.v4, self.v6 = f"10.{pop}.0.{10 + number}", f"2001:db8:{pop}::{10 + number}"
        self.edge = self.bird = None
        self.announced = False
        self.id = number + 1  # in the PoP's table; 1 is the writer

    @property
    def up(self):
        return bool(self.edge and self.edge.alive())


class Client:
    """A client with uplinks up1 and up2: .host, .addresses (of each uplink: IPv4, IPv6)."""

    def __init__(self, host, number, router):
        self.host, self.name, self.number, self.router = host, host.name, number, router
        self.last = {1: 10, 2: 10}
        self.seen_as = {}

    def addresses(self, uplink):
        n = self.last[uplink]
        return f"10.{20 + self.number}.{uplink}.{n}", f"2001:db8:{20 + self.number}:{uplink}::{n}"


class Pops(World):
    """pops: how many servers each PoP has; clients: how many clients there are; spare: servers of each PoP that serve() leaves off (the last ones).
    bfd_ms: BIRD looks for its neighbours so often, and gives them up after three times without a sign. edge_config(server, config): may change the
    configuration of an edge before it starts. delay_ms: one way, between clients and routers, by link_shim (the wire's numbers change while it runs: shim())."""

    def __init__(self, build, pops=(2, 2), clients=2, spare=0, bfd_ms=200, edge_config=None, shims=False, forwarding=False, folder=None):
        super().__init__(folder)
        self.forwarding, self.writers = forwarding, {}
        self.tree, self.pops, self.n_clients, self.spare, self.bfd_ms = Path(build).resolve(), pops, clients, spare, bfd_ms
        self.edge_config = edge_config or (lambda server, config: None)
        self.shims, self.shim_of = shims, {}
        self.servers, self.clients, self.birds, self.loads = {}, {}, {}, []

    # ---- hosts and wires ----
    def build(self):
        self.origin = self.host("o")
        for p in range(1, len(self.pops) + 1):
            self._pop(p)
        for p in range(2, len(self.pops) + 1):
            self.link(self.hosts["r1"], f"to-r{p}", self.hosts[f"r{p}"], "to-r1", (f"10.9.{p}.1/24", f"10.9.{p}.2/24"),
                      (f"2001:db8:9:{p}::1/64", f"2001:db8:9:{p}::2/64"), mtu=1600)
        for n in range(1, self.n_clients + 1):
            self._client(n, (n - 1) % len(self.pops) + 1)

    def _pop(self, p):
        router = self.host(f"r{p}", forwards=True)
        router.ip("link add lan mtu 1600 type bridge forward_delay 0", "link set dev lan up")
        router.address("lan", f"10.{p}.0.1/24", f"2001:db8:{p}::1/64")
        for s in range(0 if self.forwarding else 1, self.pops[p - 1] + 1):
            host = self.host(f"s{p}{s}" if s else f"k{p}")
            server = Server(host, p, s)
            (self.servers if s else self.writers)[host.name] = server
            self.link(host, "eth0", router, f"to-{host.name}", mtu=1600, offloads=False)
            router.ip(f"link set dev to-{host.name} master lan")
            router.xdp_pass(f"to-{host.name}")
            host.address("eth0", f"{server.v4}/24", f"{server.v6}/64")
            if s:
                host.address("lo", f"{VIP4}/32", f"{VIP6}/128")
            self.keep(host, "eth0", f"route add default via 10.{p}.0.1", f"-6 addr replace {server.v6}/64 dev eth0 nodad",
                      f"-6 route add default via 2001:db8:{p}::1")
        self.link(self.origin, f"to-r{p}", router, "to-o", (f"10.8.{p}.2/24", f"10.8.{p}.1/24"), (f"2001:db8:8:{p}::2/64", f"2001:db8:8:{p}::1/64"))
        self.origin.ip(f"route add 10.{p}.0.0/24 via 10.8.{p}.1", f"-6 route add 2001:db8:{p}::/64 via 2001:db8:8:{p}::1")

    def _client(self, n, p):
        host, router = self.host(f"c{n}"), self.hosts[f"r{p}"]
        client = self.clients[host.name] = Client(host, n, router)
        for up in (1, 2):
            device, there = f"up{up}", f"c{n}-up{up}"
            v4, v6 = client.addresses(up)
            if self.shims:
                self._shim(host, device, router, there)
            else:
                self.link(host, device, router, there)
            router.address(there, f"10.{20 + n}.{up}.1/24", f"2001:db8:{20 + n}:{up}::1/64")
            host.address(device, f"{v4}/24", f"{v6}/64")
            again = [f"-6 addr replace {v6}/64 dev {device} nodad"]
            for six, gateway in (("", f"10.{20 + n}.{up}.1"), ("-6 ", f"2001:db8:{20 + n}:{up}::1")):
                again += [f"{six}route add default via {gateway} dev {device} metric {100 * up}", f"{six}route add default via {gateway} dev {device} table {up}"]
            self.keep(host, device, *again)
            self.keep(router, there, f"-6 addr replace 2001:db8:{20 + n}:{up}::1/64 dev {there} nodad")
            host.ip(f"rule add from 10.{20 + n}.{up}.0/24 lookup {up}", f"-6 rule add from 2001:db8:{20 + n}:{up}::/64 lookup {up}")

    def _shim(self, host, device, router, there):
        """A wire with a host in its middle, whose program takes its time with what it passes on."""
        middle = self.host(f"x-{host.name}-{device}")
        middle.sysctl({"net.ipv6.conf.all.disable_ipv6": 1})
        self.link(host, device, middle, "near", offloads=False)
        self.link(middle, "far", router, there, offloads=False)
        program = middle.start(build_program("link_shim", self.tree), "near", "far", stdin=subprocess.PIPE, name="shim").wait_for("shim ready")
        self.shim_of[host.name, device] = program

    def shim(self, client, uplink, **values):
        """shim("c1", "up1", delay=20, loss=1, rate=50): milliseconds one way, percent, Mbit/s. For worlds with shims=True."""
        program = self.shim_of[client, uplink]
        program.popen.stdin.write("".join(f"{key} {value}\n" for key, value in values.items()).encode())
        program.popen.stdin.flush()

    # ---- routers ----
    def _bird_of_router(self, p):
        sessions = []
        for server in (s for s in self.servers.values() if s.pop == p):
            for family, own, other in (("4", f"10.{p}.0.1", server.v4), ("6", f"2001:db8:{p}::1", server.v6)):
                sessions.append(f"""protocol bgp {server.name}_{family} from quick {{
    local {own} as {BGP_ROUTER + p}; neighbor {other} as {BGP_SERVER + p}; bfd on;
    ipv{family} {{ import where net = {VIP4 + '/32' if family == '4' else VIP6 + '/128'}; export none; }};
}}""")
        for q in range(1, len(self.pops) + 1):
            if p == q or 1 not in (p, q):  # r1 is the middle
                continue
            n, mine = max(p, q), 1 if p < q else 2
            for family, net in (("4", f"10.9.{n}."), ("6", f"2001:db8:9:{n}::")):
                sessions.append(f"""protocol bgp r{q}_{family} from quick {{
    local {net}{mine} as {BGP_ROUTER + p}; neighbor {net}{3 - mine} as {BGP_ROUTER + q}; bfd on;
    ipv{family} {{ import all; export all; next hop self; }};
}}""")
        # BIRD gives a next hop of its own by default what the kernel has; merged paths become one multipath route.
        return self._bird_head(f"10.{p}.0.1") + """
protocol direct { ipv4; ipv6; interface "lan", "to-*", "c*"; }
protocol kernel k4 { ipv4 { import none; export where source = RTS_BGP; }; merge paths on limit 64; }
protocol kernel k6 { ipv6 { import none; export where source = RTS_BGP; }; merge paths on limit 64; }
""" + "\n".join(sessions) + "\n"

    def _bird_head(self, router_id):
        return f"""log stderr all;
router id {router_id};
protocol device {{ scan time 1; }}
protocol bfd {{ interface "*" {{ interval {self.bfd_ms} ms; idle tx interval {self.bfd_ms} ms; multiplier 3; }}; }}
template bgp quick {{ connect delay time 1; connect retry time 1; error wait time 1, 2; hold time 9; }}
"""

    def _bird_of_server(self, server):
        p = server.pop
        return self._bird_head(server.v4) + f"""
protocol static vip4 {{ disabled; ipv4; route {VIP4}/32 blackhole; }}
protocol static vip6 {{ disabled; ipv6; route {VIP6}/128 blackhole; }}
protocol bgp r_4 from quick {{
    local {server.v4} as {BGP_SERVER + p}; neighbor 10.{p}.0.1 as {BGP_ROUTER + p}; bfd on; ipv4 {{ import none; export all; }};
}}
protocol bgp r_6 from quick {{
    local {server.v6} as {BGP_SERVER + p}; neighbor 2001:db8:{p}::1 as {BGP_ROUTER + p}; bfd on; ipv6 {{ import none; export all; }};
}}
"""

    def start_bird(self, host, config):
        file, control = self.folder / f"{host.name}.bird.conf", self.folder / f"{host.name}.bird.ctl"
        file.write_text(config)
        control.unlink(missing_ok=True)
        process = host.start("bird", "-f", "-c", file, "-s", control, "-P", self.folder / f"{host.name}.bird.pid", name="bird")
        ask = ["birdc", "-s", control, "show", "status"]
        wait_for(lambda: not process.alive() or control.exists() and host.run(*ask, check=False).returncode == 0, 10,
                 lambda: f"{host.name}: BIRD did not start:\n{process.output()}")
        assert process.alive(), f"{host.name}: BIRD ended:\n{process.output()}"
        self.birds[host.name] = process
        return process

    def birdc(self, host, *words):
        return self.hosts[host].run("birdc", "-s", self.folder / f"{host}.bird.ctl", *words).stdout

    def next_hops(self, router, v6=False):
        """The names of the servers (or routers) to which a router's kernel shares the service's packets out."""
        text = self.hosts[router].run("ip", "-json", "-6" if v6 else "-4", "route", "show", VIP6 if v6 else VIP4).stdout
        found = set()
        for route in json.loads(text or "[]"):
            for hop in route.get("nexthops", [route]):
                found.add(self._whose(hop.get("gateway") or (hop.get("via") or {}).get("host"), hop.get("dev", "")))
        return sorted(found - {None})

    def _whose(self, gateway, device):
        for server in self.servers.values():
            if gateway in (server.v4, server.v6):
                return server.name
        return device.removeprefix("to-") if device.startswith("to-r") else None

    def until_routed(self, router, servers, seconds=30):
        """Waits until both families lead to exactly these."""
        want = sorted(servers)
        wait_for(lambda: self.next_hops(router) == want and self.next_hops(router, True) == want, seconds,
                 lambda: f"{router} leads to {self.next_hops(router)} and {self.next_hops(router, True)}, not to {want}:\n{self.birdc(router, 'show', 'protocols')}")

    # ---- servers ----
    def serve(self):
        """Certificates, the origin, BIRD everywhere, and cb-edge on all servers but the spare ones; returns when the routes are there."""
        cbctl = self.own("cbctl")
        self.ca = self.folder / "ca"
        subprocess.run([cbctl, "ca", "dev", "--dir", self.ca, NAME, VIP4, VIP6], check=True, capture_output=True)
        self.origin.start(self.own("examples/origin_demo"), "0.0.0.0:80", name="origin").wait_for("origin on")
        for p in range(1, len(self.pops) + 1):
            self.start_bird(self.hosts[f"r{p}"], self._bird_of_router(p))
        first = [s for s in self.servers.values() if s.number <= self.pops[s.pop - 1] - self.spare]
        if self.forwarding:
            self._prepare_forwarding()
            for server in first:
                self.start_edge(server.name)
            for p, writer in enumerate(self.writers.values(), 1):
                self.until_members(p, [s.name for s in first if s.pop == p])
                self.cbctl(writer.name, "lb", "drain", writer.id)  # it owns nothing
                self.until_moved(p)
        for server in first:
            self.start(server.name, wait=False)
        for p in range(1, len(self.pops) + 1):
            self.until_routed(f"r{p}", [s.name for s in first if s.pop == p])

    def own(self, name):
        path = self.tree / name
        if not path.exists():
            path = next((p for p in sorted(self.tree.rglob(Path(name).name)) if p.is_file() and os.access(p, os.X_OK)), None)
        assert path, f"{name} is not in {self.tree}: build first"
        return path

    def config_of(self, server):
        return {
            "workers": 1,
            "via": server.name,
            "drain_timeout_ms": 1000,
            "listeners": {
                "https": {"address": ":443", "tls": {"certificates": [{"cert_file": str(self.ca / f"{NAME}.pem"), "key_file": str(self.ca / f"{NAME}-key.pem")}]}},
                "http": {"address": ":80"},
            },
            "groups": {"web": {"origins": [{"url": f"http://10.8.{server.pop}.2"}]}},
            "routes": [{"group": "web"}],
            "limits": {"idle_timeout_ms": 600000},
            "log": {"levels": "warn"},
            "metrics": {"listen": f"127.0.0.1:{METRICS}"},
            "admin": {"socket": str(self.folder / f"{server.name}.sock"), "state_dir": str(self.folder / f"{server.name}-state"),
                      "roles": [{"who": f"uid:{os.getuid()}", "role": "admin"}]},
        }

    # ---- forwarding ----
    def _prepare_forwarding(self):
        """Keys and certificates of the PoPs, and their writers."""
        for name, size in (("pop.key", 32), ("cid.key", 16)):
            (self.folder / name).write_bytes(os.urandom(size))
            (self.folder / name).chmod(0o600)
        for server in (*self.servers.values(), *self.writers.values()):
            subprocess.run([self.own("cbctl"), "ca", "dev", "--dir", self.folder / "hosts", f"{server.name}.test"], check=True, capture_output=True)
        for name in self.writers:
            self.start_edge(name)

    def _forwarding_of(self, server):
        """The blocks `forwarding` and `quic_lb` of a host: all but its own number is the same on all hosts of its PoP."""
        members = [{"id": s.id, "address": s.v4, "peer": f"{s.name}.test", "server_id": f"{server.pop:02x}{s.id:02x}"}
                   for s in (*self.writers.values(), *self.servers.values()) if s.pop == server.pop]
        members[0].update(weight=1, control=f"{members[0]['address']}:7946")
        vips = [{"address": vip, "protocol": protocol, "port": port, **({"quic": True} if protocol == "udp" else {})}
                for vip in (VIP4, VIP6) for protocol, port in (("tcp", 443), ("udp", 443), ("tcp", 80))]
        return {
            "forwarding": {
                "id": server.id, "writer": 1, "members": members, "key_file": str(self.folder / "pop.key"), "state_file": str(self.folder / f"{server.name}-lb.state"),
                "control": {"cert_file": str(self.folder / f"hosts/{server.name}.test.pem"), "key_file": str(self.folder / f"hosts/{server.name}.test-key.pem"),
                            "ca_file": str(self.folder / "hosts/ca.pem")},
                "interfaces": [{"name": "eth0", "mode": "native"}] if server.number else [], "vips": vips, "pin_dir": str(self.bpffs() / server.name),
                "heartbeat_ms": 300, "misses": 4, "rise_ms": 500, "step_ms": 200, "start_ms": 1000, "min_live_percent": 1},
            "quic_lb": {"server_id": f"{server.pop:02x}{server.id:02x}", "cid_key_file": str(self.folder / "cid.key")}}

    def members(self, pop):
        """{name: what `cbctl lb members` says} of a PoP, by its writer."""
        names = {s.id: s.name for s in (*self.servers.values(), *self.writers.values()) if s.pop == pop}
        return {names[m["id"]]: m for m in json.loads(self.cbctl(f"k{pop}", "lb", "members", "--json"))}

    def datapath(self, name):
        """{counter: packets} of a server's datapath."""
        return json.loads(self.cbctl(name, "lb", "counters", "--json"))["counters"]

    def until_members(self, pop, names, seconds=30):
        """Waits until these are up for the writer, and each of them forwards by a table that has all of them."""
        def up():
            state = self.members(pop)
            if any(state[name]["state"] != "up" for name in names):
                return False
            said = [self.cbctl(name, "lb", "status", "--json", check=False) for name in names]
            if not all(said):  # its admin socket is not there yet
                return False
            path = [json.loads(text)["datapath"] for text in said]
            return all(p["running"] and p["unresolved"] == 0 for p in path)
        wait_for(up, seconds, lambda: f"not up: {self.members(pop)}\n" + "\n".join(s.edge.output() for s in self.servers.values() if s.pop == pop and s.edge))

    def until_moved(self, pop, seconds=30):
        """Waits until the table of a PoP has had nothing to change for a second, and all hosts have it."""
        def still():
            hosts = [f"k{pop}", *(s.name for s in self.servers.values() if s.pop == pop and s.up)]
            before = [json.loads(self.cbctl(name, "lb", "status", "--json")) for name in hosts]
            time.sleep(1)
            after = json.loads(self.cbctl(hosts[0], "lb", "status", "--json"))
            return {status["version"] for status in before} == {after["version"]} and after["buckets"]["announced"] == 0
        wait_for(still, seconds, lambda: f"still moving: {self.cbctl(f'k{pop}', 'lb', 'status')}")

    def _host_of(self, name):
        return self.servers.get(name) or self.writers[name]

    def start_edge(self, name):
        server = self._host_of(name)
        config = self.config_of(server)
        if self.forwarding:
            config.update(self._forwarding_of(server))
        self.edge_config(server, config)
        file = self.folder / f"{name}.json"
        file.write_text(json.dumps(config, indent=1))
        (self.folder / f"{name}.sock").unlink(missing_ok=True)
        server.edge = server.host.start(self.own("cb-edge"), "--config", file, name="edge")
        listening = ["sh", "-c", "grep -q ':01BB .* 0A' /proc/net/tcp6 && grep -q ':01BB ' /proc/net/udp6"]
        wait_for(lambda: server.host.run(*listening, check=False).returncode == 0 or not server.edge.alive(), 20,
                 lambda: f"{name}: cb-edge does not listen:\n{server.edge.output()}")
        assert server.edge.alive(), f"{name}: cb-edge ended:\n{server.edge.output()}"

    def start(self, name, wait=True):
        """A server begins (again) to serve: its cable is in, cb-edge and BIRD run, and it announces the service."""
        server = self.servers[name]
        server.host.mend("eth0")
        if not server.up:
            self.start_edge(name)
        if self.forwarding:
            self.until_members(server.pop, [name])
        if not (server.bird and server.bird.alive()):
            server.bird = self.start_bird(server.host, self._bird_of_server(server))
        self.announce(name)
        if wait:
            self.until_routed(f"r{server.pop}", self.announcing(server.pop))

    def announcing(self, pop):
        return [s.name for s in self.servers.values() if s.pop == pop and s.announced]

    def announce(self, name, on=True):
        server = self.servers[name]
        for vip in ("vip4", "vip6"):
            self.birdc(name, "enable" if on else "disable", vip)
        server.announced = on

    def withdraw(self, name, wait=True):
        """The server announces no more; all that runs on it goes on."""
        server = self.servers[name]
        self.announce(name, False)
        if wait and self.announcing(server.pop):
            self.until_routed(f"r{server.pop}", self.announcing(server.pop))

    def kill(self, name, wait=True):
        """Power off: the cable is dead and so is everything on the server, at once and without a word."""
        server = self.servers[name]
        server.host.cut("eth0")
        server.host.die()
        server.edge = server.bird = None
        server.announced = False
        if wait and self.announcing(server.pop):
            self.until_routed(f"r{server.pop}", self.announcing(server.pop))

    def drain(self, name):
        """The server is to get no new connections. Without a forwarding plane that means no packets at all."""
        if self.forwarding:
            self.cbctl(f"k{self.servers[name].pop}", "lb", "drain", self.servers[name].id)
        else:
            self.withdraw(name)

    def undrain(self, name):
        if self.forwarding:
            self.cbctl(f"k{self.servers[name].pop}", "lb", "undrain", self.servers[name].id)
        else:
            self.start(name)

    def weight(self, name, weight):
        """Its share, 100 when nothing was said; for worlds with forwarding=True."""
        self.cbctl(f"k{self.servers[name].pop}", "lb", "weight", self.servers[name].id, weight)

    def cbctl(self, name, *words, check=True):
        """cbctl of a server's cb-edge; what it printed."""
        return self._host_of(name).host.run(self.own("cbctl"), *words, "--socket", self.folder / f"{name}.sock", check=check).stdout

    # ---- clients ----
    def curl(self, client, path="/headers", v6=False, *more):
        """The response's head and body, from the service."""
        address = f"[{VIP6}]" if v6 else VIP4
        return self.clients[client].host.run("curl", "-s", "-i", "--max-time", "10", "--cacert", self.ca / "ca.pem", "--resolve", f"{NAME}:443:{address}",
                                             *more, f"https://{NAME}{path}").stdout

    def move(self, client, uplink=1):
        """The client's uplink gets other addresses, and the old ones go: what a change of network is to its programs."""
        c = self.clients[client]
        old4, old6 = c.addresses(uplink)
        c.last[uplink] += 1
        new4, new6 = c.addresses(uplink)
        c.host.address(f"up{uplink}", f"{new4}/24", f"{new6}/64")
        c.host.ip(f"addr del {old4}/24 dev up{uplink}", f"-6 addr del {old6}/64 dev up{uplink}")
        self.kept_routes[client, f"up{uplink}"][0] = f"-6 addr replace {new6}/64 dev up{uplink} nodad"
        c.host.ip(*self.kept_routes[client, f"up{uplink}"][1:], check=False)
        return new4, new6

    def rebind(self, client, uplink=1):
        """The NAT in front of the client forgets: from now on its UDP packets come from another address, and the client does not know."""
        c = self.clients[client]
        own4, own6 = c.addresses(uplink)
        n = c.seen_as[uplink] = c.seen_as.get(uplink, 100) + 1
        net4, net6 = own4.rsplit(".", 1)[0], own6.rsplit(":", 1)[0]
        seen4, seen6 = f"{net4}.{n}", f"{net6}:{n}"
        c.host.ip(f"addr add {seen4}/32 dev up{uplink}", f"-6 addr add {seen6}/128 dev up{uplink} nodad preferred_lft 0")
        # In the router, where packets are as on the wire: what the client sends as one and is divided later would get wrong checksums.
        device, table = f"{client}-up{uplink}", f"nat_{client}_{uplink}"
        c.router.nft(f"""add table inet {table}
delete table inet {table}
table inet {table} {{
    chain in {{ type filter hook prerouting priority -300;
        iifname "{device}" ip saddr {own4} udp dport 443 ip saddr set {seen4}
        iifname "{device}" ip6 saddr {own6} udp dport 443 ip6 saddr set {seen6}
    }}
    chain out {{ type filter hook postrouting priority 0;
        oifname "{device}" ip daddr {seen4} udp sport 443 ip daddr set {own4}
        oifname "{device}" ip6 daddr {seen6} udp sport 443 ip6 daddr set {own6}
    }}
}}
""")
        return seen4, seen6

    def load(self, tcp=50, quic=50, every_ms=500, stall_ms=5000, again=False, follow=False, clients=None, families=(4, 6)):
        """Live connections from the clients (all by default), in equal shares."""
        load = Load(self, tcp, quic, every_ms, stall_ms, again, follow, clients or list(self.clients), families)
        self.loads.append(load)
        return load


class Load:
    """flow_load on some clients. counts() sums over them what it last told; report() asks first."""

    def __init__(self, world, tcp, quic, every_ms, stall_ms, again, follow, clients, families):
        self.world, self.want = world, {"tcp": tcp, "quic": quic}
        self.processes = []
        to = {4: f"{VIP4}:443", 6: f"[{VIP6}]:443"}
        program = build_program("flow_load", world.tree)
        for i, client in enumerate(clients):
            share = {kind: n // len(clients) + (i < n % len(clients)) for kind, n in self.want.items()}
            command = [program, "--tcp", share["tcp"], "--quic", share["quic"], "--ca", world.ca / "ca.pem", "--every", every_ms, "--stall", stall_ms]
            for family in families:
                command += ["--to", to[family]]
            command += (["--again"] if again else []) + (["--follow"] if follow else []) + [URL]
            self.processes.append(world.hosts[client].start(*command, name="flows", stdin=subprocess.PIPE))

    def tell(self, word):
        for process in self.processes:
            process.popen.stdin.write(f"{word}\n".encode())
            process.popen.stdin.flush()

    @staticmethod
    def lines(process):
        text = process.output()
        return [json.loads(line) for line in text[:text.rfind("\n") + 1].splitlines() if line.startswith("{")]

    def _ask(self, word):
        before = [sum(line["at"] == word for line in self.lines(p)) for p in self.processes]
        self.tell(word)
        for process, n in zip(self.processes, before):
            wait_for(lambda: sum(line["at"] == word for line in self.lines(process)) > n or not process.alive(), 20, lambda: f"no {word} from flow_load:\n{process.output()[-2000:]}")
            assert process.alive(), process.output()[-2000:]

    def counts(self, at=None):
        """{"tcp": {...}, "quic": {...}, "detail": ...}: sums over the clients of their last lines (with this "at")."""
        total = {kind: {"live": 0, "opened": 0, "answers": 0, "moved": 0, "broken": 0, "slowest_ms": 0.0, "servers": {}, "reasons": {}, "broken_of": {}}
                 for kind in ("tcp", "quic")}
        total["detail"] = []
        for process in self.processes:
            last = next((line for line in reversed(self.lines(process)) if at in (None, line["at"])), None)
            if last is None:
                continue
            for kind in ("tcp", "quic"):
                for key, value in last[kind].items():
                    if key == "slowest_ms":
                        total[kind][key] = max(total[kind][key], value)
                    elif isinstance(value, dict):
                        for name, n in value.items():
                            total[kind][key][name] = total[kind][key].get(name, 0) + n
                    else:
                        total[kind][key] += value
            total["detail"] += [last["detail"]] if last["detail"] else []
        return total

    def report(self):
        self._ask("report")
        return self.counts("report")

    def mark(self):
        """Counters of broken and moved flows begin anew."""
        self._ask("mark")

    def until_live(self, seconds=60):
        def all_live():
            assert all(p.alive() for p in self.processes), [p.output()[-500:] for p in self.processes]
            return all(self.counts()[kind]["live"] >= n for kind, n in self.want.items())
        wait_for(all_live, seconds, lambda: f"not all flows came to life: {self.counts()}")
        return self

    def settle(self, seconds):
        """Lets the flows ask for so long; then how things stand."""
        time.sleep(seconds)
        return self.report()

    def stop(self):
        for process in self.processes:
            process.popen.stdin.close()
            process.stop()
