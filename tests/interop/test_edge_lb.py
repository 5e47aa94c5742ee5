"""Hosts of a PoP share one forwarding table: three cb-edges on loopback (no datapath), cbctl in front; what dies, comes back, differs or is a stranger."""

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import time

import pytest
from conftest import free_port, program, run
from test_edge import Edge, origin  # noqa: F401: fixtures
from test_edge_telemetry import until
from unix_http import ask

BUCKETS = 1009


class Host:
    def __init__(self, pop, number):
        self.pop, self.number = pop, number
        self.folder = pop.folder / f"host{number}"
        self.folder.mkdir()
        self.edge = Edge(pop.spawn, self.folder, pop.site)
        self.socket, self.state = self.folder / "admin.sock", self.folder / "lb.state"
        self.block = {"id": number, "writer": 1, "members": pop.members, "key_file": str(pop.key), "state_file": str(self.state), "buckets": BUCKETS,
                      "control": {"cert_file": str(pop.certs[number][0]), "key_file": str(pop.certs[number][1]), "ca_file": str(pop.ca)},
                      "heartbeat_ms": 100, "misses": 5, "rise_ms": 300, "start_ms": 1500, "step_ms": 100, "moves_per_step": 200}

    def config(self, **more):
        self.block.update(more)
        self.edge.config({"web": ["http://127.0.0.1:1"]}, admin={"socket": str(self.socket)}, forwarding=self.block)
        return self

    def start(self, **more):
        self.config(**more)
        self.edge.go()
        until(lambda: "unix:" in self.edge.process.output() or self.socket.exists())
        return self

    def lb(self, path="", status=200):
        got = ask(self.socket, "GET", f"/v1/lb{path}")
        assert got.status == status, got
        return got.json()

    def member(self, number):
        return self.lb(f"/members/{number}")

    def ctl(self, *words, code=0):
        got = run(program("cbctl"), "lb", words[0], "--socket", self.socket, *words[1:])
        assert got.returncode == code, (got.stdout, got.stderr)
        return got.stdout if code == 0 else got.stderr

    def kill(self):
        self.edge.process.send(signal.SIGKILL)
        self.edge.process.stop()


class Pop:
    def __init__(self, spawn, folder, site):
        self.spawn, self.folder, self.site = spawn, folder, site
        self.key = folder / "pop.key"
        self.key.write_bytes(os.urandom(32))
        self.key.chmod(0o600)
        self.ca, self.certs = folder / "ca/ca.pem", {}
        for number in (1, 2, 3, 9):
            names = [f"edge{number}.test"] + (["127.0.0.1"] if number == 1 else [])
            made = run(program("cbctl"), "ca", "dev", "--json", "--dir", folder / "ca", *names)
            assert made.returncode == 0, made.stderr
            self.certs[number] = (folder / f"ca/edge{number}.test.pem", folder / f"ca/edge{number}.test-key.pem")
        self.port = free_port()
        self.members = [{"id": n, "address": f"192.0.2.{n}", "peer": f"edge{n}.test"} for n in (1, 2, 3)]
        self.members[0]["control"] = f"127.0.0.1:{self.port}"
        self.hosts = {}

    def start(self, *numbers):
        for number in numbers or (1, 2, 3):
            self.hosts[number] = Host(self, number).start()
        return self

    def settled(self, *numbers, members=3):
        """All have one table, with so many members up, and nothing on the move."""
        hosts = [self.hosts[n] for n in numbers or self.hosts]

        def same():
            all_ = [h.lb() for h in hosts]
            ups = [m for m in hosts[0].lb("/members")["items"] if m["state"] == "up"]
            return (len({(s["epoch"], s["version"], s["content"]) for s in all_}) == 1 and len(ups) == members
                    and all(s["buckets"]["announced"] == s["buckets"]["moved"] == s["buckets"]["unowned"] == 0 for s in all_)
                    and all(s["phase"] in ("writing", "following") for s in all_))

        until(same, seconds=30)
        return self.hosts[1].lb() if 1 in self.hosts else hosts[0].lb()


@pytest.fixture
def pop(spawn, tmp_path, pki):
    return Pop(spawn, tmp_path, pki)


def test_three_hosts_have_one_table(pop):
    pop.start().settled()
    one, two, three = (pop.hosts[n] for n in (1, 2, 3))
    status = one.lb()
    assert status["phase"] == "writing" and status["writer"] == 1 and status["listens"] == f"127.0.0.1:{pop.port}" and status["trouble"] is None
    assert two.lb()["phase"] == "following" and two.lb()["chain"] == status["chain"] and two.lb()["contact_ms"] < 1000
    members = one.lb("/members?limit=2")
    assert [m["id"] for m in members["items"]] == [1, 2] and members["next"]
    assert sorted(m["first"] for m in one.lb("/members")["items"]) == [336, 336, 337]
    assert all(m["load"] is not None or m["id"] for m in one.lb("/members")["items"])
    # every host says the same of each flow
    flow = "/owner?from=198.51.100.7:4711&to=203.0.113.1:443"
    assert one.lb(flow) == two.lb(flow) == three.lb(flow) and one.lb(flow)["phase"] == "stable"
    assert one.lb("/owner?from=[2001:db8::7]:4711&to=[2001:db8::1]:443&protocol=udp")["first"] in (1, 2, 3)
    assert one.lb(f"/buckets/{one.lb(flow)['bucket']}") == one.lb(flow)
    page = one.lb("/buckets?limit=1000&member=2")
    assert len(page["items"]) in (336, 337) and page["next"] is None
    for path, status in (("/owner?from=198.51.100.7:1", 400), ("/owner?from=x&to=1.2.3.4:5", 400), ("/owner?from=1.2.3.4:5&to=1.2.3.4:5&protocol=icmp", 400),
                         (f"/buckets/{BUCKETS}", 404), ("/buckets/x", 404), ("/members/7", 404), ("/members/x", 404)):
        one.lb(path, status=status)
    # the state file is the owner's alone
    until(lambda: three.state.exists())
    assert three.state.stat().st_mode & 0o777 == 0o600


def test_operators_drain_and_weigh(pop):
    pop.start().settled()
    one, two = pop.hosts[1], pop.hosts[2]
    assert "member 3 is drained" in one.ctl("drain", "3")
    until(lambda: one.member(3)["state"] == "draining" and one.member(3)["first"] == 0)
    assert one.member(3)["drained"] and "3" in one.ctl("moves", "--json")
    assert "gets its share again" in one.ctl("undrain", "3")
    assert "has weight 400" in one.ctl("weight", "2", "400")
    until(lambda: one.member(2)["table_weight"] == 400 and one.member(2)["given_weight"] == 400)
    until(lambda: one.member(2)["first"] > 600)
    # the operation is the writer's; others say whom to ask
    assert "member 1" in two.ctl("drain", "3", code=4) and one.member(3)["state"] != "draining"
    got = ask(two.socket, "PUT", "/v1/lb/members/3", {"drained": "yes"})
    assert got.status == 409 and "is the writer" in got.json()["detail"]
    for body in ({}, {"drained": "maybe"}, {"weight": 70000}, {"colour": 1}):
        assert ask(one.socket, "PUT", "/v1/lb/members/3", body).status == 400, body
    assert ask(one.socket, "PUT", "/v1/lb/members/8", {"drained": "yes"}).status == 404
    assert "has its configured weight again" in one.ctl("weight", "2", "0")
    until(lambda: one.member(2)["table_weight"] == 100)
    for words in (("drain",), ("drain", "x"), ("weight", "2"), ("weight", "2", "99999"), ("owner",), ("owner", "x"), ("owner", "a", "b", "icmp"), ("status", "x")):
        one.ctl(*words, code=2)
    for command, text in (("status", "phase"), ("table", "share"), ("members", "trouble"), ("counters", "running")):
        assert text in one.ctl(command), command
        json.loads(one.ctl(command, "--json"))
    assert "buckets" in one.ctl("top", "--once") and "first" in one.ctl("owner", "198.51.100.7:4711", "203.0.113.1:443", "tcp")
    assert one.ctl("owner", "17", "--json")


def test_members_as_they_are_now(pop):
    """cbctl lb top draws anew until q."""
    pop.start().settled()
    main, side = pty.openpty()
    with subprocess.Popen([str(program("cbctl")), "lb", "top", "--socket", str(pop.hosts[1].socket), "--interval", "200ms"], stdin=side, stdout=side, stderr=side,
                          env={**os.environ, "TERM": "xterm"}, start_new_session=True) as process:
        os.close(side)
        text = ""
        while text.count("1009 buckets") < 3:
            assert select.select([main], [], [], 10)[0], text
            text += os.read(main, 65536).decode()
        assert "member 1 writing" in text and "share" in text
        os.write(main, b"q")
        try:
            while select.select([main], [], [], 10)[0] and os.read(main, 65536):
                pass
        except OSError:
            pass  # it has ended
        assert process.wait(10) == 0
    os.close(main)


def test_the_writer_dies_and_comes_back(pop):
    before = pop.start().settled()
    one, two = pop.hosts[1], pop.hosts[2]
    one.ctl("weight", "3", "50")
    until(lambda: one.member(3)["table_weight"] == 50 and one.lb()["saved"])
    one.kill()
    until(lambda: two.lb()["phase"] == "alone")
    assert two.lb()["contact_ms"] > 400 and two.lb()["buckets"]["unowned"] == 0 and "does not answer" in two.lb()["trouble"]
    content = two.lb()["content"]
    one.start()
    until(lambda: one.lb()["phase"] == "writing")
    after = pop.settled()
    assert after["epoch"] == before["epoch"] + 1 and one.member(3)["table_weight"] == 50 and two.lb()["trouble"] is None
    # its disk is lost: it goes on from the newest of the others, and no bucket moves for nothing
    pop.settled()
    content = one.lb()["content"]
    one.kill()
    one.state.unlink()
    one.start()
    until(lambda: one.lb()["phase"] == "writing")
    until(lambda: "goes on from that of member" in one.edge.process.output())
    assert one.lb()["epoch"] > after["epoch"]
    until(lambda: one.member(3)["table_weight"] == 100)  # what operators said was on the disk
    pop.settled()
    assert content


def test_a_member_dies_and_comes_back(pop):
    pop.start().settled()
    one, three = pop.hosts[1], pop.hosts[3]
    three.kill()
    until(lambda: one.member(3)["state"] == "dead")
    assert one.member(3)["first"] == 0 and one.lb()["buckets"]["unowned"] == 0 and one.lb()["writes"]["deaths"] == 1
    until(lambda: "member 3 has been silent" in one.edge.process.output())
    three.start()
    pop.settled()
    assert one.lb()["writes"]["rises"] == 1 and one.member(3)["first"] > 300
    # a spoiled state file is put aside
    three.kill()
    three.state.write_bytes(b"cbln" + bytes(100))
    three.start()
    assert (three.folder / "lb.state.bad").exists()
    pop.settled()


def test_most_members_silent_means_that_we_are_cut_off(pop):
    pop.start().settled()
    one = pop.hosts[1]
    for number in (2, 3):
        pop.hosts[number].edge.process.send(signal.SIGSTOP)
    try:
        until(lambda: one.lb()["writes"]["silent"] == 2)
        time.sleep(0.5)
        assert one.lb()["writes"]["deaths"] == 0 and "cut off" in one.lb()["trouble"] and one.member(2)["held"]
    finally:
        for number in (2, 3):
            pop.hosts[number].edge.process.send(signal.SIGCONT)
    pop.settled()
    assert one.lb()["trouble"] is None


def test_a_stranger_is_refused_on_both_sides(pop):
    pop.start(1, 2)
    pop.settled(1, 2, members=2)
    three = pop.hosts[3] = Host(pop, 3)
    three.block["control"].update(cert_file=str(pop.certs[9][0]), key_file=str(pop.certs[9][1]))
    three.start()
    until(lambda: "is not that of member 3" in (three.lb()["trouble"] or ""))
    assert three.lb()["phase"] == "joining" and three.lb()["version"] == 0
    until(lambda: "is not that of member 3" in pop.hosts[1].edge.process.output())
    assert pop.hosts[1].member(3)["state"] == "absent" and pop.hosts[1].lb()["writes"]["refused"] > 0
    # a reload with the right certificate is enough
    three.block["control"].update(cert_file=str(pop.certs[3][0]), key_file=str(pop.certs[3][1]))
    three.config()
    three.edge.reload()
    pop.settled()


def test_what_differs_is_said_on_both_sides(pop):
    pop.start(1, 2)
    pop.settled(1, 2, members=2)
    one = pop.hosts[1]
    other = pop.folder / "other.key"
    other.write_bytes(os.urandom(32))
    other.chmod(0o600)
    for change, words in (({"key_file": str(other)}, "another key than the writer"), ({"buckets": 997}, "997 buckets, the writer for 1009"),
                          ({"writer": 2, "members": [pop.members[0], {**pop.members[1], "control": f"127.0.0.1:{pop.port}", "peer": "edge1.test"}, pop.members[2]]},
                           "takes 2 for the writer, but 1 asks to be it")):
        three = Host(pop, 3)
        pop.hosts[3] = three
        three.start(**change)
        until(lambda: three.lb()["phase"] == "refused")
        assert words in three.lb()["trouble"], three.lb()
        until(lambda: words in (one.member(3)["trouble"] or ""))
        until(lambda: words in one.edge.process.output())
        assert three.lb()["version"] == 0
        three.kill()
        three.folder.rename(pop.folder / f"old-{words.split()[1]}")
    # lists of members that differ keep nobody out, but keep a new member waiting
    three = pop.hosts[3] = Host(pop, 3)
    three.start()
    pop.settled()
    more = [*pop.members, {"id": 4, "address": "192.0.2.4"}]
    one.config(members=more)
    one.edge.reload()
    until(lambda: "has no member 4" in (three.lb()["trouble"] or ""))
    assert one.member(4)["state"] == "absent"
    for number in (2, 3):
        pop.hosts[number].config(members=more)
        pop.hosts[number].edge.reload()
    until(lambda: pop.hosts[3].lb()["trouble"] is None)
    # and one that is missing leaves
    less = pop.members[:2]
    one.config(members=less)
    one.edge.reload()
    until(lambda: one.member(3)["state"] == "draining" and one.member(3)["removed"])


def test_reloads_that_cannot_be(pop):
    pop.start(1)
    one = pop.hosts[1]
    until(lambda: one.lb()["phase"] == "writing")
    one.config(heartbeat_ms=500)
    one.edge.reload(good=False)
    until(lambda: "/forwarding: it changed, and that needs an upgrade" in one.edge.process.output())
    one.config(heartbeat_ms=100, control={**one.block["control"], "cert_file": "/nonexistent"})
    one.edge.reload(good=False)
    until(lambda: "/forwarding/control: " in one.edge.process.output())


def test_an_upgrade_takes_the_table_along(pop, request):
    pop.start().settled()
    one = pop.hosts[1]

    def end_successor():
        for pid in re.findall(r"process (\d+) has taken over", one.edge.process.output()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    request.addfinalizer(end_successor)  # it is no child of ours
    version, content = one.lb()["version"], one.lb()["content"]
    one.edge.process.send(signal.SIGUSR2)
    until(lambda: one.edge.process.output().count("ready with") == 2, seconds=20)

    def writes():
        got = ask(one.socket, "GET", "/v1/lb")
        return got.status == 200 and got.json()["phase"] == "writing" and got.json()["epoch"] == 2

    until(writes, seconds=20)
    after = pop.settled()
    assert after["content"] == content or after["version"] > version


def test_hosts_without_a_pop(spawn, tmp_path, pki, pop):
    edge = Edge(spawn, tmp_path, pki)
    socket = tmp_path / "plain.sock"
    edge.start({"web": ["http://127.0.0.1:1"]}, admin={"socket": str(socket)})
    until(lambda: socket.exists())
    got = ask(socket, "GET", "/v1/lb")
    assert got.status == 404 and "no \"forwarding\"" in got.json()["detail"]


class Service:
    """What a member is asked for: answers 200, or nothing."""

    def __init__(self, spawn, address, port):
        self.spawn, self.command = spawn, ("/usr/bin/python3", "-m", "http.server", "--bind", address, str(port))
        self.start()

    def start(self):
        self.process = self.spawn(*self.command, name="service")

    def stop(self):
        self.process.stop(signal.SIGKILL)


TLS_SERVICE = """
import http.server, ssl, sys
class Quiet(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[3], sys.argv[4])
server = http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Quiet)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def test_https_members_are_verified(pop, spawn):
    port = free_port()
    for n, member in enumerate(pop.members, 1):
        member["address"] = f"127.0.1.{n}"
        spawn("/usr/bin/python3", "-c", TLS_SERVICE, f"127.0.1.{n}", str(port), *map(str, pop.certs[1]), name="service")
    check = {"kind": "https", "port": port, "interval_ms": 100, "timeout_ms": 5000, "rise": 2, "fall": 2, "down": "drain", "ca_file": str(pop.ca), "host": "edge1.test"}
    for n in (1, 2, 3):
        pop.hosts[n] = Host(pop, n).start(health=check)
    pop.settled()
    one = pop.hosts[1]

    def sees(**change):
        one.config(health={k: v for k, v in {**check, **change}.items() if v is not None})
        one.edge.reload()
        return one

    until(lambda: one.member(2)["health"] == "up")
    sees(host="other.test")  # a name that the certificate does not have
    until(lambda: one.member(2)["health"] == "draining")
    sees(host="other.test", verify="chain")
    until(lambda: one.member(2)["health"] == "up")
    sees(ca_file=None)  # the system's roots do not know the authority
    until(lambda: one.member(2)["health"] == "draining")
    sees()
    until(lambda: one.member(2)["health"] == "up")


def test_who_is_not_well_gets_nothing(pop, spawn):
    port = free_port()
    for n, member in enumerate(pop.members, 1):
        member["address"] = f"127.0.1.{n}"
    services = {n: Service(spawn, f"127.0.1.{n}", port) for n in (1, 2, 3)}
    check = {"kind": "http", "port": port, "interval_ms": 100, "timeout_ms": 500, "rise": 2, "fall": 2, "slow_start_ms": 1500}
    for n in (1, 2, 3):
        pop.hosts[n] = Host(pop, n).start(health=check)
    pop.settled()
    one = pop.hosts[1]
    until(lambda: one.member(3)["health"] == "up")
    services[3].stop()
    until(lambda: one.member(3)["state"] == "dead" and one.member(3)["health"] == "dead")
    assert one.member(3)["first"] == 0 and not one.member(3)["dead"], "it is not silent"
    # a reload forgets nothing: no flow gets there until a check has passed
    def version():
        before = one.lb()["version"]
        time.sleep(0.7)
        return before if one.lb()["version"] == before and not one.lb()["buckets"]["announced"] else None

    until(version)
    version = one.lb()["version"]
    one.config(health={**check, "timeout_ms": 400})
    one.edge.reload()
    time.sleep(0.5)
    assert one.member(3)["state"] == "dead" and one.lb()["version"] == version, one.edge.process.output()
    services[2].stop()
    until(lambda: one.member(2)["health"] == "dead")
    time.sleep(0.3)
    assert one.member(2)["state"] == "up", "never more than the share"
    services[3].start()
    until(lambda: one.member(3)["state"] == "up")
    assert one.member(3)["percent"] < 100, "slow start"
    until(lambda: one.member(3)["percent"] == 100)
    services[2].start()
    pop.settled()
    # drain instead of dead, by a reload; and no checks at all
    one.config(health={**check, "down": "drain"})
    one.edge.reload()
    services[3].stop()
    until(lambda: one.member(3)["state"] == "draining")
    del one.block["health"]
    one.config()
    one.edge.reload()
    pop.settled()


def test_who_is_busy_gets_less(pop, spawn, tmp_path):
    source = tmp_path / "load.c"
    source.write_text("""
#include <stdio.h>
#include <stdlib.h>
int getloadavg(double *to, int n) {
    FILE *f = fopen(getenv("LOAD_FILE"), "r");
    int got = f ? fscanf(f, "%lf", to) : -1;
    if (f) fclose(f);
    return n > 0 && got == 1 ? 1 : -1;
}
""")
    library = tmp_path / "load.so"
    assert run("cc", "-shared", "-fPIC", "-o", library, source).returncode == 0
    for n in (1, 2, 3):
        host = pop.hosts[n] = Host(pop, n)
        (host.folder / "load").write_text(str(0.3 * os.cpu_count()))
        host.config(health={"by_load": True, "load_step_ms": 200})
        host.edge.go(env={**os.environ, "LD_PRELOAD": str(library), "LOAD_FILE": str(host.folder / "load"), "ASAN_OPTIONS": "verify_asan_link_order=0"})
        until(host.socket.exists)
    pop.settled()
    one = pop.hosts[1]
    until(lambda: all(abs((one.member(n)["load"] or 0) - 0.3) < 0.01 for n in (1, 2, 3)))
    before = one.member(3)["first"]
    (pop.hosts[3].folder / "load").write_text(str(0.9 * os.cpu_count()))
    until(lambda: one.member(3)["percent"] < 80 and one.member(1)["percent"] > 100, seconds=30)
    until(lambda: one.member(3)["first"] < before * 0.9, seconds=30)
    assert one.member(3)["table_weight"] < 100 < one.member(2)["table_weight"]


@pytest.mark.parametrize("change, text", [
    ({"id": 7}, r"/forwarding/id: it is none of"),
    ({"writer": 7}, r"/forwarding/writer: it is none of"),
    ({"buckets": 1000}, r"/forwarding/buckets: it must be a prime"),
    ({"control": None}, r'/forwarding: "control" is needed'),
    ({"key_file": "/nonexistent"}, r"/forwarding/key_file: .*/nonexistent"),
    ({"key_file": "/dev/null"}, r"/forwarding/key_file: .*32 bytes"),
    ({"misses": 2}, r"/forwarding/misses: 2 is out of range"),
    ({"vips": [{"address": "somewhere"}]}, r"/forwarding/vips/0: address must be"),
    ({"vips": [{"address": "192.0.2.0/24", "port": 80}]}, r"/forwarding/vips/0: a prefix has no port"),
    ({"vips": [{"address": "192.0.2.1", "protocol": "tcp", "quic": True}]}, r"/forwarding/vips/0: quic is by UDP"),
    ({"members": [{"id": 1, "address": "192.0.2.1", "control": "x:1"}, {"id": 1, "address": "192.0.2.2"}]}, r"/forwarding/members/1/id: two members have the id 1"),
    ({"members": [{"id": 1, "address": "192.0.2.1", "control": "x:1"}, {"id": 2, "address": "192.0.2.1"}]}, r"/members/1/address: members 1 and 2 have one address"),
    ({"members": [{"id": 1, "address": "nowhere", "control": "x:1"}]}, r"/members/0/address: it must be an IPv4 or IPv6 address"),
    ({"members": [{"id": 1, "address": "192.0.2.1"}, {"id": 2, "address": "192.0.2.2"}]}, r'/forwarding/members: the writer needs "control"'),
    ({"members": [{"id": 1, "address": "192.0.2.1", "control": "x:1", "server_id": "0a0b"}]}, r"our own server_id is not that of"),
    ({"vips": [{"address": "192.0.2.0/33"}]}, r"/forwarding/vips/0: address must be"),
    ({"vips": [{"address": "192.0.2.0/x"}]}, r"/forwarding/vips/0: address must be"),
    ({"vips": [{"address": "2001:db8::1", "port": 1}, {"address": "2001:DB8:0::1", "port": 1, "protocol": "tcp"}]}, r"/forwarding/vips/1: one before it has"),
    ({"members": [{"id": 1, "address": "192.0.2.1", "control": "nowhere"}]}, r'/forwarding/members/0/control: it must be "HOST:PORT"'),
    ({"members": [{"id": 1, "address": "192.0.2.1", "control": "x:65536"}]}, r'/forwarding/members/0/control: it must be "HOST:PORT"'),
    ({"members": [{"id": 1, "address": "2001:db8::1", "control": "x:1"}, {"id": 2, "address": "2001:DB8:0::1"}]}, r"/members/1/address: members 1 and 2 have one address"),
    ({"members": [{"id": 1, "address": "192.0.2.1", "control": "x:1"}, {"id": 2, "address": "2001:db8::1"}], "interfaces": [{"name": "eth0"}]}, r"/members/1/address: our own is of the other"),
    ({"members": [{"id": 1, "address": "192.0.2.1", "control": "x:1", "mtu": 1}]}, r"/forwarding/members/0/mtu: it must be 0, or 576"),
    ({"members": [{"id": 1, "address": "192.0.2.1", "control": "x:1", "server_id": "abc"}]}, r"/forwarding/members/0/server_id: it must be hex"),
    ({"members": [{"id": 1, "address": "192.0.2.1", "control": "x:1", "server_id": "zz"}]}, r"/forwarding/members/0/server_id: it must be hex"),
    ({"underlay_mtu": 1}, r"/forwarding/underlay_mtu: it must be 0, or 576"),
    ({"interfaces": [{"name": "eth0"}, {"name": "eth0"}]}, r"/forwarding/interfaces/1/name: it is there twice"),
    ({"cids": [{"rotation": 1}, {"rotation": 1}]}, r"/forwarding/cids/1/rotation: it is there twice"),
    ({"health": {"kind": "https", "ca_file": "/nonexistent.pem"}}, r"/forwarding/health/ca_file: .*/nonexistent\.pem"),
    ({"cids": [{"rotation": 1, "cid_key_file": "/nonexistent"}]}, r'/forwarding/cids/0/cid_key_file: "/nonexistent" cannot be read'),
    ({"health": {"kind": "smoke"}}, r"/forwarding/health/kind: "),
    ({"interfaces": [{"name": "eth0", "role": "none"}]}, r'/forwarding/interfaces/0/role: '),
])
def test_check_says_what_is_wrong(pop, change, text):
    host = Host(pop, 1)
    host.config(**change)
    if change.get("control", 1) is None:
        del host.block["control"]
        host.config()
    got = run(program("cb-edge"), "--check", "-c", host.edge.file)
    assert got.returncode == 1 and re.search(text, got.stderr), got.stderr


def test_without_rights_or_interfaces_the_proxy_still_runs(pop, origin):
    """An interface that is not there, or a kernel that does not let us: said, and requests are served."""
    host = pop.hosts[1] = Host(pop, 1)
    host.config(interfaces=[{"name": "nosuch0"}], vips=[{"address": "203.0.113.77", "protocol": "tcp", "port": 443}])
    document = json.loads(host.edge.file.read_text().split("\n", 1)[1])
    document["groups"]["web"]["origins"] = [{"url": f"http://127.0.0.1:{origin()}"}]
    host.edge.file.write_text(json.dumps(document))
    host.edge.go()
    until(lambda: host.socket.exists())
    assert host.edge.status("/name") == 200
    path = host.lb()["datapath"]
    until(lambda: path["trouble"] and path["trouble"] in host.edge.process.output())
    until(lambda: "VIP 203.0.113.77 is no address of this host" in host.edge.process.output())


def test_metrics_of_the_table(pop):
    pop.start().settled()
    page = ask(pop.hosts[1].socket, "GET", "/metrics").body.decode()
    for line in ('cb_lb_node_phase{phase="writing"} 1', 'cb_lb_members{state="up"} 3', f'cb_lb_buckets{{phase="stable"}} {BUCKETS}', "cb_lb_silent_members 0",
                 "cb_lb_table_epoch 1"):
        assert line in page, line
    assert 'cb_lb_node_phase{phase="following"} 1' in ask(pop.hosts[2].socket, "GET", "/metrics").body.decode()
