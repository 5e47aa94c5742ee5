"""Audit logs (cb/audit.h): chained, signed, durable before the writer is told."""

from __future__ import annotations

from typing import Iterator, List, NamedTuple, Optional, Union

from . import Path, _Handle, _options, _slice_bytes, _text, check
from ._cb import ffi, lib

OUTCOMES = {"done": lib.CB_AUDIT_DONE, "denied": lib.CB_AUDIT_DENIED, "failed": lib.CB_AUDIT_FAILED}
_NAMES = {value: name for name, value in OUTCOMES.items()}


class Record(NamedTuple):
    """Who did what to what; time in seconds since 1970."""

    seq: int
    time: float
    actor: bytes
    tenant: bytes
    action: bytes
    object: bytes
    detail: bytes
    before: bytes
    after: bytes
    outcome: str


class Report(NamedTuple):
    """What verify() found in a sound log: how many records, in which files, its last head and the key that signed it."""

    records: int
    first_file: int
    file: int
    head: str
    key: bytes
    tail_bytes: int


def _slice(keep: list, value: Union[str, bytes, None]):
    data = b"" if value is None else value.encode() if isinstance(value, str) else value
    held = ffi.from_buffer(data)
    keep.append(held)
    return {"base": ffi.cast("const uint8_t *", held), "len": len(data)}


def _head(head) -> str:
    out = ffi.new("char[]", lib.CB_AUDIT_HEAD_MAX)
    lib.cb_audit_head_text(head, out)
    return ffi.string(out).decode()


class Audit(_Handle):
    """An audit log in a file, which is made when absent, as is its key (mode 0600). See cb_audit_open() in cb/audit.h.

    rotate_bytes and rotate_s put files aside by size and age; head_file gets the newest head; despite_flaw goes on with another log
    after a flaw, and records that.
    """

    def __init__(self, path: Path, key_file: Path, *, head_file: Optional[Path] = None, rotate_bytes: int = 0, rotate_s: int = 0,
                 despite_flaw: bool = False) -> None:
        keep: list = []
        opts = _options("cb_audit_opts")
        opts.path, opts.key_file, opts.head_file = (_text(keep, one) for one in (path, key_file, head_file))
        opts.rotate_bytes, opts.rotate_s, opts.despite_flaw = rotate_bytes, rotate_s, despite_flaw
        out = ffi.new("cb_audit **")
        check(lib.cb_audit_open(out, opts))
        super().__init__(out[0], lib.cb_audit_free)

    def write(self, actor: str, tenant: str, action: str, object: str = "", *, detail: str = "", before: bytes = b"", after: bytes = b"",
              outcome: str = "done") -> int:
        """Writes a record, waits until it is durable, and returns its number. On asyncio: await asyncio.to_thread(log.write, ...)."""
        keep: list = []
        record = _options("cb_audit_record")
        for name, value in (("actor", actor), ("tenant", tenant), ("action", action), ("object", object), ("detail", detail),
                            ("before", before), ("after", after)):
            setattr(record, name, _slice(keep, value))
        record.outcome = OUTCOMES[outcome]
        seq = ffi.new("uint64_t *")
        check(lib.cb_audit_write(self.pointer, record, seq))
        return seq[0]

    def rotate(self) -> None:
        """Puts the file aside as PATH.NNNNNN and begins the next, chained to it. Waits."""
        check(lib.cb_audit_rotate(self.pointer))

    @property
    def head(self) -> str:
        """The last checkpoint as "NUMBER:HASH": keep it elsewhere, for verify()."""
        out = ffi.new("cb_audit_head *")
        lib.cb_audit_head_get(self.pointer, out)
        return _head(out)

    @property
    def key(self) -> bytes:
        """The public key that checkpoints are signed with."""
        out = ffi.new("uint8_t[]", lib.CB_AUDIT_HASH)
        lib.cb_audit_key(self.pointer, out)
        return bytes(ffi.buffer(out))


@ffi.def_extern(error=lib.CB_EUSER)
def cbpy_audit_record(record, user):
    r = record
    ffi.from_handle(user).append(Record(r.seq, r.time_us / 1e6, *(_slice_bytes(s) for s in (r.actor, r.tenant, r.action, r.object, r.detail, r.before, r.after)),
                                        _NAMES[r.outcome]))
    return lib.CB_OK


def _verify(path: Path, head: Optional[str], key: Optional[bytes], records: Optional[List[Record]]) -> Report:
    keep: list = []
    opts, report = _options("cb_audit_verify_opts"), _options("cb_audit_report")
    if head is not None:
        opts.head = known = ffi.new("cb_audit_head *")
        check(lib.cb_audit_head_read(known, _text(keep, head)))
    if key is not None:
        if len(key) != lib.CB_AUDIT_HASH:
            raise ValueError("key must be 32 bytes")
        opts.key = public = ffi.new("uint8_t[]", key)
        keep.append(public)
    if records is not None:
        opts.user = handle = ffi.new_handle(records)
        keep.append(handle)
        opts.on_record = lib.cbpy_audit_record
    check(lib.cb_audit_verify(_text(keep, path), opts, report))
    return Report(report.records, report.first_file, report.file, _head(ffi.addressof(report, "head")), bytes(ffi.buffer(report.key)), report.tail_bytes)


def verify(path: Path, *, head: Optional[str] = None, key: Optional[bytes] = None) -> Report:
    """Verifies a log and the files that were put aside before it. Raises cb.Error when it was changed, which says where."""
    return _verify(path, head, key, None)


def read(path: Path, *, head: Optional[str] = None, key: Optional[bytes] = None) -> Iterator[Record]:
    """The records of a log that has been verified."""
    records: List[Record] = []
    _verify(path, head, key, records)
    return iter(records)
