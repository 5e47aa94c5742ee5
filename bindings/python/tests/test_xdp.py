"""cb.xdp: the datapath from Python. Packets are tested in C and between hosts (tests/interop/test_xdp_lb.py)."""

import subprocess
import sys
import textwrap

import pytest

import cb
import cb.lb

xdp = pytest.importorskip("cb.xdp", reason="built without libcb-xdp")

HASH, TAG = b"hash key 16 byte", b"tag key 16 bytes"


@pytest.fixture
def forward():
    try:
        f = xdp.Forward(id=1, hash_key=HASH, tag_key=TAG, address4="192.0.2.1", address6="2001:db8::1", buckets=1009)
    except cb.Error as error:
        if error.name.startswith(("CB_EPERM", "CB_ENOTSUP")):
            pytest.skip(str(error))
        raise
    with f:
        yield f


@pytest.fixture
def place():
    with cb.lb.Table() as table, cb.lb.Writer(table, buckets=1009) as writer:
        for id in (1, 2):
            writer.member(id)
        writer.run(1)
        yield table, writer


def test_mistakes_are_told():
    with pytest.raises(ValueError, match="hash_key has 5 bytes"):
        xdp.Forward(hash_key=b"short")
    with pytest.raises(cb.Error, match="prime"):
        xdp.Forward(hash_key=HASH, buckets=1000)
    with pytest.raises(cb.Error, match="nowhere"):
        xdp.unpin("/nowhere/at/all")


def test_vips_members_and_the_table(forward, place):
    table, writer = place
    forward.vip("198.51.100.1", "tcp", 443)
    forward.vip("2001:db8:1::/64", "udp", quic=True)
    assert [v[:4] for v in forward.vips()] == [("198.51.100.1", "tcp", 443, False), ("2001:db8:1::/64", "udp", 0, True)]
    forward.vip_remove("198.51.100.1", "tcp", 443)
    with pytest.raises(ValueError, match="sctp"):
        forward.vip("198.51.100.1", "sctp")
    with pytest.raises(cb.Error, match="no such VIP"):
        forward.vip_remove("198.51.100.1", "tcp", 443)

    forward.member(1, "192.0.2.1")
    forward.member(2, "2001:db8::2", xdp.IPIP, mtu=1500)
    assert [m.slot for m in forward.members()] == [None, None]
    assert forward.sync(table) == 1009 + 2 and forward.sync(table) == 0
    one, two = forward.members()
    assert one.itself and one.live and two.live and not two.itself and two.encapsulation == xdp.IPIP and two.address == "2001:db8::2"
    assert {one.slot, two.slot} == {seat.slot for seat in table.members()}
    assert forward.resolve() == 1 and not forward.members()[1].resolved and forward.members()[1].why
    stats = forward.stats()
    assert stats["members"] == 2 and stats["vips"] == 1 and stats["table_version"] == table.stats()["version"] and stats["unresolved"] == 1
    forward.member_remove(2)
    assert len(forward.members()) == 1


def test_connection_ids_and_keys(forward, place):
    forward.cid(4, rotation=3, key=b"16 bytes of key.")
    forward.server(3, b"abcd", 2)
    with pytest.raises(cb.Error, match="server ID of 3 bytes"):
        forward.server(3, b"abc", 2)
    assert forward.stats()["servers"] == 1
    forward.server_remove(3, b"abcd")
    forward.cid_remove(3)
    forward.tag_key(1, b"the next tag key", current=True)
    forward.tag_key(0, None)
    with pytest.raises(cb.Error, match="current"):
        forward.tag_key(1, None)


def test_idle_buckets(forward, place):
    table, writer = place
    forward.sync(table)
    assert forward.idle() == [], "nothing has moved"
    writer.member(3)
    for step in range(1, 40):
        writer.run(step * 1_000_000_000)
        for id in (1, 2, 3):
            writer.ack(id, table.stats()["version"])
    moved = [i for i, owner in enumerate(table.owners()) if owner.phase == 2 and owner.second == 1]
    assert moved and forward.sync(table) > 0
    assert forward.idle() == moved, "we were first, and no socket is there"

    class Stop(Exception):
        pass

    def stop(bucket):
        raise Stop(bucket)

    with pytest.raises(Stop):
        forward.idle(stop)


def test_numbers(forward):
    counts = forward.counts()
    assert {"forwarded", "kept", "second_hop", "bad_tag", "no_owner"} <= set(counts) and not any(counts.values())
    assert forward.fileno() >= 0 and forward.run() == 0 and forward.prune() == 0 and forward.interfaces() == []
    with pytest.raises(cb.Error, match="no such interface"):
        forward.attach("no_such_if0")
    with pytest.raises(cb.Error, match="not attached"):
        forward.detach("lo")


def test_without_libcb_xdp_the_import_says_so():
    program = textwrap.dedent("""
        import sys
        sys.modules["cb._xdp"] = None
        import cb, cb.lb
        try:
            import cb.xdp
        except ImportError as error:
            print(error)
    """)
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "libcb-xdp" in said
