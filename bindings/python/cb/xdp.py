"""A layer-4 balancer in the kernel (cb/forward.h, libcb-xdp): VIPs whose packets reach the host that owns their flow.

    with cb.xdp.Forward(id=1, hash_key=secret, tag_key=other, address4="192.0.2.1", pin_dir="/sys/fs/bpf/place") as f:
        f.member(2, "192.0.2.2")
        f.vip("198.51.100.1", "tcp", 443)
        f.sync(table)                      # a cb.lb.Table, whenever it has changed
        f.attach("eth0")
        while True:
            f.resolve()                    # about once a second
            f.run()

Loading needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON. Importing this needs libcb-xdp; the rest of ``cb`` does not.
"""

from __future__ import annotations

from typing import Callable, Dict, Iterator, List, NamedTuple, Optional

try:
    from ._xdp import ffi, lib
except ImportError as error:  # not built, or the library cannot be loaded
    raise ImportError(f"cb.xdp needs libcb-xdp, which was not there when the package was built, or is not found now: {error}") from error

from . import _Handle, _text, check
from .lb import Table

__all__ = ["Forward", "Vip", "Member", "Interface", "GUE", "IPIP", "MAC", "AUTO", "NATIVE", "GENERIC", "EDGE", "UNDERLAY", "BOTH", "unpin"]

GUE, IPIP, MAC = lib.CB_FORWARD_GUE, lib.CB_FORWARD_IPIP, lib.CB_FORWARD_MAC
AUTO, NATIVE, GENERIC = lib.CB_FORWARD_AUTO, lib.CB_FORWARD_NATIVE, lib.CB_FORWARD_GENERIC
EDGE, UNDERLAY, BOTH = lib.CB_FORWARD_EDGE, lib.CB_FORWARD_UNDERLAY, lib.CB_FORWARD_BOTH
PROTOCOLS = {"any": lib.CB_FORWARD_ANY, "tcp": lib.CB_FORWARD_TCP, "udp": lib.CB_FORWARD_UDP}
PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


class Vip(NamedTuple):
    """A common address. ``adopted``: a predecessor's, not told since."""

    address: str
    protocol: str
    port: int
    quic: bool
    packets: int
    bytes: int
    adopted: bool


class Member(NamedTuple):
    """A host, and the way there. ``slot`` is None when the table does not have it; ``why`` says why no way is known."""

    id: int
    address: str
    slot: Optional[int]
    encapsulation: int
    live: bool
    itself: bool
    resolved: bool
    why: str
    mtu: int
    packets: int
    bytes: int
    adopted: bool


class Interface(NamedTuple):
    """Where the program sits. ``ifindex`` is 0 while the interface is gone."""

    name: str
    ifindex: int
    roles: int
    mode: int
    adopted: bool


def _options(type_name: str):
    options = ffi.new(f"{type_name} *")
    options.size = ffi.sizeof(type_name)
    return options


def _key(keep: list, key: Optional[bytes], name: str):
    if key is None:
        return ffi.NULL
    if len(key) != lib.CB_FORWARD_KEY_BYTES:
        raise ValueError(f"{name} has {len(key)} bytes, and not {lib.CB_FORWARD_KEY_BYTES}")
    held = ffi.new("uint8_t[]", bytes(key))
    keep.append(held)
    return held


@ffi.def_extern(error=-14)  # CB_EUSER
def cbpy_forward_idle(bucket: int, user) -> int:
    told, raised = ffi.from_handle(user)
    try:
        told(bucket)
    except BaseException as error:
        raised.append(error)
        return lib.CB_EUSER
    return lib.CB_OK


def unpin(pin_dir: str) -> None:
    """Ends the datapath that is pinned in a directory, and removes it."""
    keep: list = []
    check(lib.cb_forward_unpin(_text(keep, pin_dir)))


class Forward(_Handle):
    """The datapath of this host: loaded, or taken over from ``pin_dir``, where it goes on when this is closed."""

    def __init__(self, *, hash_key: bytes, id: int = 0, tag_key: Optional[bytes] = None, address4: Optional[str] = None, address6: Optional[str] = None,
                 pin_dir: Optional[str] = None, buckets: int = 0, vips_max: int = 0, dcids_max: int = 0, fragments_max: int = 0, hop_rate: int = 0,
                 icmp_rate: int = 0, underlay_mtu: int = 0, gue_port: int = 0, lower_mss: bool = True) -> None:
        keep: list = []
        options = _options("cb_forward_opts")
        options.hash_key, options.tag_key = _key(keep, hash_key, "hash_key"), _key(keep, tag_key, "tag_key")
        options.address4, options.address6, options.pin_dir = (_text(keep, text) for text in (address4, address6, pin_dir))
        for name, value in (("id", id), ("buckets", buckets), ("vips_max", vips_max), ("dcids_max", dcids_max), ("fragments_max", fragments_max),
                            ("hop_rate", hop_rate), ("icmp_rate", icmp_rate), ("underlay_mtu", underlay_mtu), ("gue_port", gue_port), ("no_mss", not lower_mss)):
            setattr(options, name, value)
        out = ffi.new("cb_forward **")
        check(lib.cb_forward_new(out, options))
        super().__init__(out[0], lib.cb_forward_free)

    # ---- what it is to do ----
    def attach(self, interface: str, mode: int = AUTO, roles: int = BOTH) -> None:
        """Puts the program on an interface, or changes the roles of one that has it."""
        keep: list = []
        check(lib.cb_forward_attach(self.pointer, _text(keep, interface), mode, roles))

    def detach(self, interface: str) -> None:
        keep: list = []
        check(lib.cb_forward_detach(self.pointer, _text(keep, interface)))

    def _vip(self, keep: list, address: str, protocol: str, port: int, quic: bool):
        if protocol not in PROTOCOLS:
            raise ValueError(f"protocol {protocol!r}: one of {', '.join(PROTOCOLS)}")
        options = _options("cb_forward_vip_opts")
        options.address, options.protocol, options.port, options.quic = _text(keep, address), PROTOCOLS[protocol], port, quic
        return options

    def vip(self, address: str, protocol: str = "any", port: int = 0, quic: bool = False) -> None:
        """Packets for this address (or prefix), protocol and port are forwarded; port 0 is all that have no VIP of their own."""
        keep: list = []
        check(lib.cb_forward_vip(self.pointer, self._vip(keep, address, protocol, port, quic)))

    def vip_remove(self, address: str, protocol: str = "any", port: int = 0) -> None:
        keep: list = []
        check(lib.cb_forward_vip_remove(self.pointer, self._vip(keep, address, protocol, port, False)))

    def member(self, id: int, address: str, encapsulation: int = GUE, mtu: int = 0) -> None:
        """Where a member of the table is reached; this host, too."""
        keep: list = []
        options = _options("cb_forward_member_opts")
        options.id, options.address, options.encapsulation, options.mtu = id, _text(keep, address), encapsulation, mtu
        check(lib.cb_forward_member(self.pointer, options))

    def member_remove(self, id: int) -> None:
        check(lib.cb_forward_member_remove(self.pointer, id))

    def prune(self) -> int:
        """Takes away what a predecessor was told and this one was not; how many."""
        return check(lib.cb_forward_prune(self.pointer))

    def cid(self, server_id_bytes: int, *, rotation: int = 0, nonce_bytes: int = 0, key: Optional[bytes] = None, four_passes: bool = False,
            no_host_bytes: bool = False) -> None:
        """The form of QUIC connection IDs of one rotation, as the servers make them; with a key they are encrypted."""
        keep: list = []
        options = _options("cb_quic_lb_opts")
        options.server_id_bytes, options.rotation, options.nonce_bytes, options.no_host_bytes = server_id_bytes, rotation, nonce_bytes, no_host_bytes
        options.key = _key(keep, key, "key")
        options.codec = lib.CB_QUIC_LB_PLAIN if key is None else lib.CB_QUIC_LB_AES_FOUR if four_passes else lib.CB_QUIC_LB_AES_ONE
        check(lib.cb_forward_cid(self.pointer, options))

    def cid_remove(self, rotation: int) -> None:
        check(lib.cb_forward_cid_remove(self.pointer, rotation))

    def server(self, rotation: int, server_id: bytes, member: int) -> None:
        """Which member a server ID names."""
        held = ffi.from_buffer(server_id)
        check(lib.cb_forward_server(self.pointer, rotation, [ffi.cast("uint8_t *", held), len(server_id)], member))

    def server_remove(self, rotation: int, server_id: bytes) -> None:
        held = ffi.from_buffer(server_id)
        check(lib.cb_forward_server_remove(self.pointer, rotation, [ffi.cast("uint8_t *", held), len(server_id)]))

    def tag_key(self, index: int, key: Optional[bytes], current: bool = False) -> None:
        """Makes a key known; None forgets it. ``current``: what is sent carries it from now on."""
        keep: list = []
        check(lib.cb_forward_tag_key(self.pointer, index, _key(keep, key, "key"), current))

    # ---- what is to be done again and again ----
    def sync(self, table: Table) -> int:
        """Brings what the table says into the datapath; how many words and members were written."""
        return check(lib.cb_forward_sync(self.pointer, table.pointer))

    def resolve(self) -> int:
        """Looks for the ways to the members; how many have none yet."""
        return check(lib.cb_forward_resolve(self.pointer))

    def idle(self, told: Optional[Callable[[int], None]] = None) -> List[int]:
        """The moved buckets in which nothing lives here any more, for cb.lb.Writer.idle(). What ``told`` raises stops it."""
        found: List[int] = []
        raised: List[BaseException] = []
        handle = ffi.new_handle((told or found.append, raised))
        rc = lib.cb_forward_idle(self.pointer, lib.cbpy_forward_idle, handle)
        if raised:
            raise raised[0]
        check(rc)
        return found

    def fileno(self) -> int:
        """Readable when run() has something to do."""
        return lib.cb_forward_fd(self.pointer)

    def run(self) -> int:
        """Sends ICMP errors that concern everybody to all members; how many came."""
        return check(lib.cb_forward_run(self.pointer))

    # ---- numbers ----
    def stats(self) -> Dict[str, int]:
        """table_version, vips, members, unresolved, interfaces, missing, program_id, adopted and more."""
        out = _options("cb_forward_stats")
        check(lib.cb_forward_stats_get(self.pointer, out))
        return {name: getattr(out, name) for name, _ in ffi.typeof("cb_forward_stats").fields if name != "size"}

    def counts(self) -> Dict[str, int]:
        """What became of packets, by name."""
        name, value, found = ffi.new("const char **"), ffi.new("uint64_t *"), {}
        while lib.cb_forward_count(self.pointer, len(found), name, ffi.NULL, value) == lib.CB_OK:
            found[ffi.string(name[0]).decode()] = value[0]
        return found

    def _each(self, type_name: str, get) -> Iterator:
        number = 0
        while True:
            out = _options(type_name)
            rc = get(self.pointer, number, out)
            if rc == lib.CB_ENOENT:
                return
            check(rc)
            yield out
            number += 1

    def vips(self) -> List[Vip]:
        return [Vip(ffi.string(v.address).decode(), PROTOCOL_NAMES[v.protocol], v.port, bool(v.quic), v.packets, v.bytes, bool(v.adopted))
                for v in self._each("cb_forward_vip_stats", lib.cb_forward_vip_stats_get)]

    def members(self) -> List[Member]:
        """In the order of their IDs."""
        return [Member(m.id, ffi.string(m.address).decode(), None if m.slot == 65535 else m.slot, m.encapsulation, bool(m.live), bool(m.self), bool(m.resolved),
                       ffi.string(m.why).decode(), m.mtu, m.packets, m.bytes, bool(m.adopted))
                for m in self._each("cb_forward_member_stats", lib.cb_forward_member_stats_get)]

    def interfaces(self) -> List[Interface]:
        return [Interface(ffi.string(i.name).decode(), i.ifindex, i.roles, i.mode, bool(i.adopted))
                for i in self._each("cb_forward_interface_stats", lib.cb_forward_interface_stats_get)]
