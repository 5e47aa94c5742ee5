"""Forwarding tables: the same log gives the same table, and the format as docs/design/forwarding.md tells it, computed a second time here."""

from fractions import Fraction

import cb
import cb.lb
import pytest
from cb.lb import DEAD, DRAINING, Member

S = 1_000_000_000
KEY = b"a table of tests"
M64 = 2**64 - 1


# ---- the format, once more ----

def mix(x):
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & M64
    x = (x ^ x >> 27) * 0x94D049BB133111EB & M64
    return x ^ x >> 31


def quotas(weights, buckets):
    total = sum(weights.values())
    due = {m: divmod(buckets * w, total) for m, w in weights.items()}
    left = buckets - sum(q for q, _ in due.values())
    extra = sorted(due, key=lambda m: (-due[m][1], m))[:left]
    return {m: due[m][0] + (m in extra) for m in due}


def maglev(weights, buckets, seed):
    due, has = quotas(weights, buckets), dict.fromkeys(weights, 0)
    h = {m: mix(seed + m * 0x9E3779B97F4A7C15 & M64) for m in weights}
    at, skip = {m: h[m] % buckets for m in h}, {m: mix(h[m]) % (buckets - 1) + 1 for m in h}
    owners = [0] * buckets
    for _ in range(buckets):
        m = min((m for m in sorted(weights) if has[m] < due[m]), key=lambda m: (Fraction(has[m] + 1, weights[m]), m))
        while owners[at[m]]:
            at[m] = (at[m] + skip[m]) % buckets
        owners[at[m]], has[m] = m, has[m] + 1
    return owners


def content(table):
    total = mix(table.stats()["buckets"])
    for o in table.owners():
        total += mix(mix(o.bucket + 1) + mix(o.first << 32 | o.second) + (o.phase == cb.lb.ANNOUNCED) & M64)
    for m in table.members():
        total += mix(mix(~m.id & M64) + (m.weight << 8 | m.state) & M64)
    return total & M64


# ---- tables ----

class Rig:
    def __init__(self, buckets=251, **options):
        self.log, self.now = [], 100 * S
        self.table = cb.lb.Table(KEY)
        self.writer = cb.lb.Writer(self.table, self.log.append, buckets=buckets, seed=42, moves_per_step=buckets, **options)

    def finish(self):
        while True:
            self.writer.run(self.now)
            for m in self.table.members():
                self.writer.ack(m.id, self.table.stats()["version"])
            for o in self.table.owners():
                if o.phase == cb.lb.MOVED:
                    assert self.writer.idle(o.second, o.bucket, self.now)
            if self.writer.next == cb.lb.NEVER:
                return
            self.now = max(self.now, self.writer.next)

    def firsts(self):
        return [o.first for o in self.table.owners()]


@pytest.mark.parametrize("buckets", [2, 13, 251, 1021])
def test_the_seed_is_what_the_format_says(buckets):
    weights = {7: 1, 1: 1, 30: 5, 4: 2, 99: 65535} if buckets > 200 else {3: 1, 1: 2}
    expected = maglev(weights, buckets, 42)
    assert cb.lb.maglev([Member(m, w) for m, w in weights.items()], buckets, 42) == expected
    rig = Rig(buckets)
    for m, w in weights.items():
        rig.writer.member(m, w)
    rig.finish()
    assert rig.firsts() == expected
    assert rig.table.stats()["content"] == content(rig.table)


def test_a_log_replays():
    rig = Rig()
    for m in range(1, 9):
        rig.writer.member(m, 10 * m)
    rig.finish()
    before = rig.firsts()
    rig.writer.member(3, 30, DEAD)
    rig.writer.run(rig.now)
    rig.writer.member(5, 0)
    rig.writer.member(12, 77)
    rig.writer.run(rig.now)
    assert rig.table.stats()["announced"] and rig.table.stats()["content"] == content(rig.table)
    rig.finish()
    rig.writer.member(1, 10, DRAINING)
    rig.writer.remove(2)
    rig.finish()
    assert {m.id for m in rig.table.members()} == {1, 3, 4, 5, 6, 7, 8, 12}
    assert all(a == b or a in (1, 2, 3, 5) or b == 12 for a, b in zip(before, rig.firsts()))  # only these had a reason to move
    other = cb.lb.Table(KEY)
    for record in rig.log:
        other.apply(record)
    assert other.stats() == rig.table.stats() and other.owners() == rig.table.owners() and other.members() == rig.table.members()
    joined = cb.lb.Table(KEY)
    joined.load(other.save())
    assert joined.stats() == other.stats() and joined.owners() == other.owners()
    assert joined.lookup("somebody") == joined.bucket(cb.lb.bucket(cb.lb.hash(KEY, "somebody"), 251))


def test_what_is_refused():
    rig = Rig()
    assert rig.table.lookup(1) is None
    rig.writer.member(1)
    rig.finish()
    other, keyless = cb.lb.Table(KEY), cb.lb.Table()
    with pytest.raises(cb.Error, match="CB_EAGAIN"):
        other.apply(rig.log[1])
    with pytest.raises(cb.Error, match="CB_EPROTO"):
        keyless.apply(rig.log[0])
    other.apply(rig.log[0])
    with pytest.raises(cb.Error, match="CB_EEXIST"):
        other.apply(rig.log[0])
    with pytest.raises(cb.Error, match="CB_EPROTO"):
        other.load(rig.table.save()[:-1])
    with pytest.raises(cb.Error, match="prime"):
        cb.lb.maglev([Member(1)], 250)
    with pytest.raises(ValueError):
        cb.lb.Table(b"short")
    with pytest.raises(cb.Error, match="65536"):
        rig.writer.member(2, 65536)


def test_a_log_that_cannot_be_written():
    def full(record):
        raise OSError("disk full")

    table = cb.lb.Table(KEY)
    writer = cb.lb.Writer(table, full, buckets=13)
    writer.member(1)
    with pytest.raises(OSError, match="disk full"):
        writer.run(1)
    assert table.stats()["version"] == 0


def test_rendezvous():
    members = [Member(m, m) for m in range(1, 6)]
    owners = [cb.lb.rendezvous(members, cb.lb.hash(KEY, str(i))) for i in range(3000)]
    assert all(abs(owners.count(m) / 3000 - m / 15) < 0.03 for m in range(1, 6))
    fewer = [cb.lb.rendezvous(members[:-1], cb.lb.hash(KEY, str(i))) for i in range(3000)]
    assert all(a == b for a, b in zip(owners, fewer) if a != 5)
