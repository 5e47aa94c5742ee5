"""Who the other side is, by its certificate (cb/peer.h)."""

from __future__ import annotations

from typing import List

from ._cb import ffi, lib


class Peer:
    """What a verified certificate says: names, SPIFFE ID, fingerprints. It never changes."""

    def __init__(self, pointer) -> None:
        p = self._pointer = pointer
        self.subject: str = _text(lib.cb_peer_subject(p))
        self.issuer: str = _text(lib.cb_peer_issuer(p))
        self.common_name: str = _text(lib.cb_peer_common_name(p))
        self.serial: str = _text(lib.cb_peer_serial(p))
        self.spiffe_id: str = _text(lib.cb_peer_spiffe_id(p))
        self.dns, self.ip, self.email, self.uri = (
            self._names(kind) for kind in (lib.CB_SAN_DNS, lib.CB_SAN_IP, lib.CB_SAN_EMAIL, lib.CB_SAN_URI))
        self.key_sha256: bytes = bytes(ffi.buffer(lib.cb_peer_key_sha256(p), 32))
        self.cert_sha256: bytes = bytes(ffi.buffer(lib.cb_peer_cert_sha256(p), 32))
        self.not_before: int = lib.cb_peer_not_before(p)
        self.expires: int = lib.cb_peer_expires(p)

    def _names(self, kind: int) -> List[str]:
        return [_text(lib.cb_peer_name(self._pointer, kind, i)) for i in range(lib.cb_peer_names(self._pointer, kind))]

    @property
    def chain(self) -> List[bytes]:
        """The certificates that were sent, DER, the peer's own first."""
        out: List[bytes] = []
        while (der := lib.cb_peer_cert(self._pointer, len(out))).len:
            out.append(bytes(ffi.buffer(der.base, der.len)))
        return out

    def matches(self, name: str) -> bool:
        """Does one of the names fit? A DNS name, an address, an e-mail address, a URI; "spiffe://td/" fits all below."""
        return bool(lib.cb_peer_is(self._pointer, name.encode()))

    def __repr__(self) -> str:
        return f"<Peer {self.spiffe_id or self.subject or self.dns}>"


def hold(exchange):
    """A reference on the peer of an exchange, for Peer(); NULL when it showed no certificate."""
    pointer = lib.cb_exchange_peer(exchange)
    return ffi.gc(lib.cb_peer_ref(ffi.cast("cb_peer *", pointer)), lib.cb_peer_unref) if pointer else ffi.NULL


def _text(pointer) -> str:
    return ffi.string(pointer).decode()
