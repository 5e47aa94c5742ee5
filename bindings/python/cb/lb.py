"""Forwarding tables, rendezvous and Maglev hashing (cb/lb.h): build tables, replay their logs, look into them."""

from __future__ import annotations

import time
from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Union

from . import _Handle, _options, check
from ._cb import ffi, lib

UP: int = lib.CB_LB_UP
DRAINING: int = lib.CB_LB_DRAINING
DEAD: int = lib.CB_LB_DEAD
STABLE: int = lib.CB_LB_STABLE
ANNOUNCED: int = lib.CB_LB_ANNOUNCED
MOVED: int = lib.CB_LB_MOVED
BUCKETS: int = lib.CB_LB_BUCKETS
NEVER: int = 2**64 - 1
NO_KEY = bytes(lib.CB_LB_KEY_BYTES)


class Member(NamedTuple):
    """A member of a table, or of a choice."""

    id: int
    weight: int = 100
    state: int = UP


class Owner(NamedTuple):
    """Whose a bucket is: IDs of members, 0 for nobody, and a phase (STABLE, ANNOUNCED, MOVED)."""

    bucket: int
    first: int
    second: int
    phase: int


class Seat(NamedTuple):
    """A member as a table has it, with the buckets that are its own, that it is announced for, and that it is still second in."""

    id: int
    weight: int
    state: int
    slot: int
    first: int
    coming: int
    leaving: int


def hash(key: bytes, data: Union[bytes, str]) -> int:
    """SipHash-2-4 by a key of 16 bytes."""
    raw = data.encode() if isinstance(data, str) else bytes(data)
    return lib.cb_lb_hash(_key(key), raw, len(raw))


def bucket(hash: int, buckets: int = BUCKETS) -> int:
    """The bucket of a hash in a table of so many."""
    return lib.cb_lb_bucket(hash, buckets)


def rendezvous(members: Sequence[Member], hash: int) -> int:
    """The ID of the member that a hash belongs to, without a table."""
    return members[check(lib.cb_lb_rendezvous(_members(members), len(members), hash))].id


def maglev(members: Sequence[Member], buckets: int = BUCKETS, seed: int = 0) -> List[int]:
    """The owners of all buckets of a table without history."""
    owners = ffi.new("uint32_t[]", max(buckets, 1))
    check(lib.cb_lb_maglev(owners, buckets, _members(members), len(members), seed))
    return [members[i].id for i in owners]


class Table(_Handle):
    """A forwarding table. Hosts with the same key and log have the same table."""

    def __init__(self, key: bytes = NO_KEY) -> None:
        self.key = bytes(key)
        options, held = _options("cb_lb_table_opts"), ffi.new("uint8_t[]", _key(key))
        options.key = held
        out = ffi.new("cb_lb_table **")
        check(lib.cb_lb_table_new(out, options))
        super().__init__(out[0], lib.cb_lb_table_free)

    def apply(self, record: bytes) -> None:
        """The next record of the log, wholly or not at all (cb.Error: EEXIST had it, EAGAIN one is missing, EPERM, EPROTO)."""
        held = ffi.from_buffer(record)
        check(lib.cb_lb_table_apply(self.pointer, _slice(held, len(record))))

    def lookup(self, what: Union[int, bytes, str]) -> Optional[Owner]:
        """Whose a hash is, or a name by the table's key. None: nobody's."""
        number = what if isinstance(what, int) else hash(self.key, what)
        out = ffi.new("cb_lb_owner *")
        return _owner(out) if lib.cb_lb_table_lookup(self.pointer, number, out) == lib.CB_OK else None

    def bucket(self, number: int) -> Owner:
        """Whose a bucket is."""
        out = ffi.new("cb_lb_owner *")
        check(lib.cb_lb_table_bucket(self.pointer, number, out))
        return _owner(out)

    def owners(self) -> List[Owner]:
        """Whose all buckets are."""
        return [self.bucket(i) for i in range(self.stats()["buckets"])]

    def members(self) -> List[Seat]:
        """The members, in the order of their slots."""
        out, found = _options("cb_lb_member_stats"), []
        while lib.cb_lb_table_member(self.pointer, len(found), out) == lib.CB_OK:
            found.append(Seat(out.id, out.weight, out.state, out.slot, out.first, out.coming, out.leaving))
        return found

    def stats(self) -> Dict[str, int]:
        """version, chain, content, epoch, buckets, members, announced, moved, unowned."""
        out = _options("cb_lb_table_stats")
        check(lib.cb_lb_table_stats_get(self.pointer, out))
        return {name: getattr(out, name) for name, _ in ffi.typeof("cb_lb_table_stats").fields if name != "size"}

    def save(self) -> bytes:
        """All of the table, for hosts that join."""
        out, size = ffi.new("uint8_t **"), ffi.new("size_t *")
        check(lib.cb_lb_table_save(self.pointer, out, size))
        try:
            return bytes(ffi.buffer(out[0], size[0]))
        finally:
            lib.cb_lb_table_saved_free(out[0])

    def load(self, saved: bytes) -> None:
        """Takes over a saved table, unless it is older than this one."""
        held = ffi.from_buffer(saved)
        check(lib.cb_lb_table_load(self.pointer, _slice(held, len(saved))))


class Writer(_Handle):
    """The one that changes a table. ``publish`` gets each record, as bytes; what it raises stops the run, and the record comes again. Close it before its table."""

    def __init__(self, table: Table, publish: Optional[Callable[[bytes], None]] = None, *, epoch: int = 1, buckets: int = 0, seed: int = 0,
                 moves_per_step: int = 0, step_ms: int = 0, ack_ms: int = 0, settle_ms: int = 0, local: bool = False) -> None:
        options = _options("cb_lb_writer_opts")
        self.table, self._publish, self._raised = table, publish, None
        self._self = ffi.new_handle(self)
        options.table = table.pointer
        for name, value in (("epoch", epoch), ("buckets", buckets), ("seed", seed), ("moves_per_step", moves_per_step), ("step_ms", step_ms),
                            ("ack_ms", ack_ms), ("settle_ms", settle_ms), ("local", local)):
            setattr(options, name, value)
        if publish is not None:
            options.publish, options.user = lib.cbpy_lb_publish, self._self
        out = ffi.new("cb_lb_writer **")
        check(lib.cb_lb_writer_new(out, options))
        super().__init__(out[0], lib.cb_lb_writer_free)

    def member(self, id: int, weight: int = 100, state: int = UP) -> None:
        """Adds a member or changes it, with the next run."""
        one = _members([Member(id, weight, state)])
        check(lib.cb_lb_writer_member(self.pointer, one))

    def remove(self, id: int) -> None:
        """The member leaves: it drains first, unless it is dead."""
        check(lib.cb_lb_writer_remove(self.pointer, id))

    def ack(self, id: int, version: int) -> None:
        """A member has applied the log up to this version."""
        check(lib.cb_lb_writer_ack(self.pointer, id, version))

    def idle(self, id: int, bucket: int, now: Optional[int] = None) -> bool:
        """The old owner of a moved bucket has no flow in it any more. False: that does not count (yet)."""
        return bool(check(lib.cb_lb_writer_idle(self.pointer, id, bucket, _now(now))))

    def run(self, now: Optional[int] = None) -> None:
        """Writes what is due. ``now``: monotonic nanoseconds; None is the clock."""
        rc, raised, self._raised = lib.cb_lb_writer_run(self.pointer, _now(now)), self._raised, None
        if raised is not None:
            raise raised
        check(rc)

    @property
    def next(self) -> int:
        """When to run again although nothing happens; NEVER if only what happens can change anything."""
        return lib.cb_lb_writer_next(self.pointer)

    def stats(self) -> Dict[str, int]:
        """records, moves, taken, late, forced, waiting."""
        out = _options("cb_lb_writer_stats")
        check(lib.cb_lb_writer_stats_get(self.pointer, out))
        return {name: getattr(out, name) for name, _ in ffi.typeof("cb_lb_writer_stats").fields if name not in ("size", "reserved")}


def _now(now: Optional[int]) -> int:
    return time.monotonic_ns() if now is None else now


def _key(key: bytes) -> bytes:
    if len(key) != lib.CB_LB_KEY_BYTES:
        raise ValueError(f"a key has {lib.CB_LB_KEY_BYTES} bytes")
    return bytes(key)


def _slice(held, length: int):
    return ffi.new("cb_slice *", {"base": ffi.cast("const uint8_t *", held), "len": length})[0]


def _members(members: Iterable[Member]):
    size = ffi.sizeof("cb_lb_member")
    return ffi.new("cb_lb_member[]", [{"size": size, "id": m.id, "weight": m.weight, "state": m.state} for m in members])


def _owner(out) -> Owner:
    return Owner(out.bucket, out.first, out.second, out.phase)


@ffi.def_extern(error=lib.CB_EUSER)
def cbpy_lb_publish(record, user):
    writer = ffi.from_handle(user)
    try:
        writer._publish(bytes(ffi.buffer(record.base, record.len)))
    except BaseException as error:  # handed on by run()
        writer._raised = error
        return lib.CB_EUSER
    return lib.CB_OK
