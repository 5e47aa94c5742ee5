"""Handovers in network namespaces: the client's address changes, UDP is swallowed, a point of presence dies."""

import hashlib
import json
import os
import subprocess
import time

import netlab
import pytest
from conftest import BUILD, program

WHY = netlab.why_not()
pytestmark = pytest.mark.skipif(WHY is not None, reason=str(WHY))
MIB = 1 << 20


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Certificates of the points of presence, a file of 100 MiB, and the program that fetches it."""
    folder = tmp_path_factory.mktemp("handover")
    subprocess.run([program("cbctl"), "ca", "dev", "--dir", folder / "ca", "localhost", *netlab.POPS, netlab.NAME], check=True, capture_output=True)
    (folder / "www").mkdir()
    data = os.urandom(MIB) * 100
    (folder / "www" / "big").write_bytes(data)
    (folder / "www" / "small").write_bytes(b"small\n")
    sanitized = subprocess.run(["nm", "-D", program("http_client")], capture_output=True, text=True).stdout
    flags = ["-fsanitize=address,undefined"] if "__asan_init" in sanitized else []
    return {"dir": folder, "client": netlab.build_client(folder, BUILD, flags), "ca": folder / "ca" / "ca.pem", "sha256": hashlib.sha256(data).hexdigest()}


@pytest.fixture
def net():
    with netlab.Net() as made:
        yield made


def serve(spawn, net, world, pop):
    """A static server in a point of presence."""
    address = netlab.POPS[("p1", "p2").index(pop)]
    server = spawn(*net.inside(pop, program("static_server"), f"{address}:443", world["dir"] / "ca/localhost.pem", world["dir"] / "ca/localhost-key.pem",
                               world["dir"] / "www"), name=f"server-{pop}")
    wait_inside(net, pop, address)
    return server


def wait_inside(net, who, address, port=443):
    probe = f"import socket; socket.create_connection(('{address}', {port}), 1).close()"
    for _ in range(100):
        if subprocess.run(net.inside(who, "/usr/bin/python3", "-c", probe), capture_output=True).returncode == 0:
            return
        time.sleep(0.05)
    raise AssertionError(f"nobody listens on {address}:{port}")


def fetch(spawn, net, world, *arguments):
    return spawn(*net.inside("c", world["client"], *arguments), name="handover_client")


def wait_for_ends(client, n, seconds=30):
    """The output, when so many requests have ended."""
    end = time.monotonic() + seconds
    while client.output().count("\nend ") + client.output().startswith("end ") < n:
        assert time.monotonic() < end, client.output()
        assert client.alive() or client.output().count("end ") >= n, client.output()
        time.sleep(0.01)


def finish(client, seconds=60):
    client.popen.wait(seconds)
    ends, gaps, stats = netlab.parse(client.output())
    assert ends, client.output()
    return ends, gaps, stats


@pytest.mark.parametrize("gap", [None, 0.05], ids=["make-before-break", "break-before-make"])
def test_a_download_survives_twenty_address_changes(spawn, net, world, gap):
    serve(spawn, net, world, "p1")
    client = fetch(spawn, net, world, "-f", "-v", "4", world["ca"], f"https://{netlab.POPS[0]}/big")
    time.sleep(0.3)
    moved = 0
    for _ in range(20):
        net.move(gap)
        moved += client.alive()
        time.sleep(0.2)
    ends, _, stats = finish(client)
    assert moved == 20, "the download was over before the last change"
    assert ends[0]["rc"] == 0, ends
    assert (ends[0]["bytes"], ends[0]["sha256"], ends[0]["version"]) == (100 * MIB, world["sha256"], 4)
    assert stats["h3"] == 1 and stats["migrated"] == stats["counted"] == 20, stats  # counted: cb_pool_migrated_connections


def test_a_route_without_an_address_is_none(spawn, net, world):
    """Between two addresses there is a route for a while, and nothing to send from (the kernel says 0.0.0.0): nobody moves there, and then once."""
    serve(spawn, net, world, "p1")
    client = fetch(spawn, net, world, "-f", "-v", "4", world["ca"], f"https://{netlab.POPS[0]}/big")
    time.sleep(0.3)
    for _ in range(5):
        net.ip("c", "addr", "del", f"10.88.0.{net.last}/24", "dev", "eth0")
        net.ip("c", "route", "add", "default", "dev", "eth0")
        time.sleep(0.1)
        net.last += 1
        net.ip("c", "addr", "add", f"10.88.0.{net.last}/24", "dev", "eth0")
        net.ip("c", "route", "replace", "default", "via", "10.88.0.1")
        assert client.alive(), client.output()
        time.sleep(0.3)
    ends, _, stats = finish(client)
    assert (ends[0]["rc"], ends[0]["sha256"]) == (0, world["sha256"]), ends
    assert stats["h3"] == 1 and stats["migrated"] == stats["counted"] == 5, stats


def test_tcp_whose_address_went_is_left_at_once(spawn, net, world):
    serve(spawn, net, world, "p1")
    client = fetch(spawn, net, world, "-f", "-v", "2", "-n", "12", "-i", "100", world["ca"], f"https://{netlab.POPS[0]}/small")
    wait_for_ends(client, 2)
    for _ in range(3):
        net.move()
        time.sleep(0.2)
    ends, _, stats = finish(client)
    assert [e["rc"] for e in ends] == [0] * 12, ends
    assert max(e["end"] - e["start"] for e in ends) < 2, ends
    assert stats["h2"] >= 3, stats


def test_udp_is_swallowed_and_comes_back(spawn, net, world):
    """Requests in turn go on over TCP within two seconds, without an error, and return to HTTP/3."""
    serve(spawn, net, world, "p1")
    client = fetch(spawn, net, world, "-v", "7", "-n", "100", "-i", "50", world["ca"], f"https://{netlab.POPS[0]}/small")
    wait_for_ends(client, 3)
    net.drop_udp(True)
    wait_for_ends(client, 30)
    net.drop_udp(False)
    ends, _, stats = finish(client)
    assert [e["rc"] for e in ends] == [0] * 100, ends
    assert ends[0]["version"] == 4 and ends[29]["version"] == 2, ends
    slowest = max(e["end"] - e["start"] for e in ends)
    assert slowest < 4, f"{slowest} s; it should be below 2"
    assert stats["moved"] >= 1 and stats["silent"] == 1, stats


def edge(spawn, net, world, pop):
    """cb-edge before a static server, with the tickets that both points of presence share."""
    folder, address = world["dir"], netlab.POPS[("p1", "p2").index(pop)]
    spawn(*net.inside(pop, program("static_server"), "127.0.0.1:8080", folder / "www"), name=f"origin-{pop}")
    conf = {"listeners": {"https": {"address": f"{address}:443", "tls": {"certificates": [{"cert_file": str(folder / "ca/localhost.pem"),
                                                                                      "key_file": str(folder / "ca/localhost-key.pem")}]}}},
            "groups": {"app": {"origins": [{"url": "http://127.0.0.1:8080"}]}}, "routes": [{"host": netlab.NAME, "group": "app"}],
            "ticket_key_file": str(folder / "tickets")}
    path = folder / f"edge-{pop}.json"
    path.write_text(json.dumps(conf))
    spawn(*net.inside(pop, program("cb-edge"), "-c", path), name=f"edge-{pop}").wait_for("ready with")
    wait_inside(net, pop, "127.0.0.1", 8080)


def test_a_point_of_presence_dies(spawn, net, world):
    """The name has two addresses. When the one in use falls silent, requests go on at the other, with a resumed session."""
    for pop in ("p1", "p2"):
        edge(spawn, net, world, pop)
    names = netlab.NameServer(net)
    client = fetch(spawn, net, world, "-v", "4", "-r", "127.0.0.1:53", "-n", "60", "-i", "50", world["ca"], f"https://{netlab.NAME}/small")
    wait_for_ends(client, 5)
    net.die("p1")
    ends, _, stats = finish(client)
    names.stop()
    assert [e["rc"] for e in ends] == [0] * 60, ends
    assert stats["h3"] >= 2 and stats["moved"] >= 1 and stats["resumed"] >= 1, stats
    assert max(e["end"] - e["start"] for e in ends) < 4, ends
