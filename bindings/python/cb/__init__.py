"""libcb for Python: typed errors, identities, ticket rings and a private CA. The network is in :mod:`cb.aio`."""

from __future__ import annotations

import os
import time
from typing import Iterable, NamedTuple, Optional, Sequence, Tuple, Type, Union

from ._cb import ffi, lib

__all__ = ["Error", "Identity", "Peer", "Tickets", "Sessions", "CA", "Renewed", "Ocsp", "OcspAnswer", "HTTP_1", "HTTP_2", "HTTP_3", "version"]

HTTP_1: int = lib.CB_HTTP_1
HTTP_2: int = lib.CB_HTTP_2
HTTP_3: int = lib.CB_HTTP_3

Path = Union[str, "os.PathLike[str]"]


class Error(Exception):
    """A libcb call failed. ``code`` is one of enum cb_error; the text says what, where, and what to do."""

    def __init__(self, code: int, detail: Optional[str] = None) -> None:
        self.code = code
        self.name = ffi.string(lib.cb_strerror(code)).decode()
        self.detail = ffi.string(lib.cb_last_error()).decode(errors="replace") if detail is None else detail
        super().__init__(f"{self.name}: {self.detail}" if self.detail else self.name)


def check(rc: int) -> int:
    """Passes a result through, or raises what it says."""
    if rc < 0:
        raise Error(rc)
    return rc


def version() -> str:
    """The version of the loaded library."""
    return ffi.string(lib.cb_version_text()).decode()


def _text(keep: list, value: Optional[Path]):
    """A C string that lives as long as ``keep``; None stays NULL."""
    if value is None:
        return ffi.NULL
    text = ffi.new("char[]", os.fspath(value).encode())
    keep.append(text)
    return text


def _options(type_name: str):
    """A zeroed option struct with its size set."""
    opts = ffi.new(f"{type_name} *")
    opts.size = ffi.sizeof(type_name)
    return opts


def _slice_bytes(s) -> bytes:
    return bytes(ffi.buffer(s.base, s.len)) if s.len else b""


class _Handle:
    """Something of libcb that is freed once: by close(), the end of a with-block, or the collector."""

    def __init__(self, pointer, free) -> None:
        self._pointer = ffi.gc(pointer, free)

    def close(self) -> None:
        if self._pointer is not None:
            ffi.release(self._pointer)
            self._pointer = None

    @property
    def pointer(self):
        if self._pointer is None:
            raise ValueError(f"{type(self).__name__} is closed")
        return self._pointer

    def __enter__(self):
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], value, trace) -> None:
        self.close()


class Identity(_Handle):
    """Certificates with their keys, and trust roots. Shared and thread-safe."""

    def __init__(self, cert_file: Optional[Path] = None, key_file: Optional[Path] = None, ca_file: Optional[Path] = None) -> None:
        keep: list = []
        out = ffi.new("cb_identity **")
        check(lib.cb_identity_new(out, self._opts(keep, cert_file, key_file, ca_file)))
        super().__init__(out[0], lib.cb_identity_unref)

    @staticmethod
    def _opts(keep: list, cert_file, key_file, ca_file):
        opts = _options("cb_identity_opts")
        opts.cert_file, opts.key_file, opts.ca_file = (_text(keep, f) for f in (cert_file, key_file, ca_file))
        return opts

    def add(self, cert_file: Path, key_file: Path) -> None:
        """Adds a certificate for other names (SNI)."""
        keep: list = []
        check(lib.cb_identity_add(self.pointer, self._opts(keep, cert_file, key_file, None)))

    def reload(self) -> None:
        """Reads every file again; on failure the old set stays."""
        check(lib.cb_identity_reload(self.pointer))

    CLIENTS = {"default": 0, "none": 1, "ask": 2, "require": 3}

    def trust(self, ca_file: Optional[Path] = None, *, host: Optional[str] = None, clients: str = "default", crl_file: Optional[Path] = None,
              names: Sequence[str] = (), pins: Sequence[str] = (), stale_crl: bool = False, single_pin: bool = False,
              require_staple: bool = False) -> None:
        """Whom we let in: a rule for the clients of one host of a server (None: all others), or for the servers of a client. See
        cb_identity_trust() in cb/tls.h."""
        keep: list = []
        opts = _options("cb_trust_opts")
        opts.ca_file, opts.crl_file, opts.host = (_text(keep, value) for value in (ca_file, crl_file, host))
        for field, texts in (("names", names), ("pins", pins)):
            array = ffi.new("const char *[]", [_text(keep, text) for text in texts])
            keep.append(array)
            setattr(opts, field, array if texts else ffi.NULL)
            setattr(opts, field + "_len", len(texts))
        opts.clients, opts.stale_crl, opts.single_pin, opts.require_staple = self.CLIENTS[clients], stale_crl, single_pin, require_staple
        check(lib.cb_identity_trust(self.pointer, opts))

    def refresh(self) -> bool:
        """Reads everything again when a revocation list or an OCSP answer has changed; says whether one has."""
        return check(lib.cb_identity_refresh(self.pointer)) == 1

    @property
    def expires(self) -> int:
        """When the first certificate expires, in seconds since 1970; 0 when there is none."""
        return lib.cb_identity_expires(self.pointer)


class Tickets(_Handle):
    """A ring of session-ticket keys, shared by servers and, with a file, by processes."""

    def __init__(self, file: Optional[Path] = None, rotate_s: int = 0, lifetime_s: int = 0) -> None:
        keep: list = []
        opts = _options("cb_tickets_opts")
        opts.file, opts.rotate_s, opts.lifetime_s = _text(keep, file), rotate_s, lifetime_s
        out = ffi.new("cb_tickets **")
        check(lib.cb_tickets_new(out, opts))
        super().__init__(out[0], lib.cb_tickets_unref)

    def rotate(self) -> None:
        check(lib.cb_tickets_rotate(self.pointer, 1))


class Sessions(_Handle):
    """What clients keep to resume TLS: in memory or, with a file, over runs and shared by processes. See cb_sessions_new() in cb/tls.h.

    A file that cannot be used (damaged, not a file of sessions, open to others) is ignored; flush() says why.
    """

    def __init__(self, file: Optional[Path] = None, max_sessions: int = 0) -> None:
        keep: list = []
        opts = _options("cb_sessions_opts")
        opts.file, opts.max_sessions = _text(keep, file), max_sessions
        out = ffi.new("cb_sessions **")
        check(lib.cb_sessions_new(out, opts))
        super().__init__(out[0], lib.cb_sessions_unref)

    def flush(self) -> None:
        """Waits until the file has what the store has; raises Error when it cannot be used or written."""
        check(lib.cb_sessions_flush(self.pointer))


class Renewed(NamedTuple):
    """What came of renewing a certificate: is it new, when it expires and when it is due, in seconds since 1970."""

    renewed: bool
    expires: int
    renew_at: int


class CA(_Handle):
    """A private certificate authority in a directory. With a parent, a new one is an intermediate signed by it; with key_url, its key is on a
    PKCS#11 token."""

    PROFILES = {"both": 0, "server": 1, "client": 2, "svid": 3, "ocsp": 4}

    def __init__(self, directory: Path, common_name: Optional[str] = None, *, parent: Optional["CA"] = None,
                 permitted: Sequence[str] = (), path_len: int = 0, days: int = 0, key_url: Optional[str] = None) -> None:
        keep: list = []
        opts = _options("cb_ca_opts")
        opts.key_url = _text(keep, key_url)
        opts.dir, opts.common_name = _text(keep, directory), _text(keep, common_name)
        opts.permitted, opts.permitted_len = self._texts(keep, permitted), len(permitted)
        opts.path_len, opts.days = path_len, days
        if parent is not None:
            opts.parent = parent.pointer
        out = ffi.new("cb_ca **")
        check(lib.cb_ca_open(out, opts))
        self.ca_file = os.path.join(os.fspath(directory), "ca.pem")
        self.root_file = os.path.join(os.fspath(directory), "root.pem")
        super().__init__(out[0], lib.cb_ca_free)

    @staticmethod
    def _texts(keep: list, texts: Sequence[str]):
        array = ffi.new("const char *[]", [_text(keep, text) for text in texts])
        keep.append(array)
        return array

    def _leaf(self, keep: list, names: Sequence[str], uris: Sequence[str], days: int, lifetime_s: int, profile: str):
        opts = _options("cb_leaf_opts")
        opts.names, opts.names_len = self._texts(keep, names), len(names)
        opts.uris, opts.uris_len = self._texts(keep, uris), len(uris)
        opts.days, opts.lifetime_s, opts.profile = days, lifetime_s, self.PROFILES[profile]
        return opts

    def issue(self, *names: str, uris: Sequence[str] = (), days: int = 0, lifetime_s: int = 0,
              profile: str = "both") -> Tuple[str, str]:
        """Makes a key and a certificate (24 hours) for these names; returns the paths of both files."""
        keep: list = []
        opts = self._leaf(keep, names, uris, days, lifetime_s, profile)
        paths = ffi.new("char *[2]")
        check(lib.cb_ca_issue(self.pointer, opts, paths, paths + 1))
        try:
            return ffi.string(paths[0]).decode(), ffi.string(paths[1]).decode()
        finally:
            lib.cb_ca_text_free(paths[0])
            lib.cb_ca_text_free(paths[1])

    def sign(self, request: bytes, *, names: Sequence[str] = (), uris: Sequence[str] = (), days: int = 0,
             lifetime_s: int = 0, profile: str = "both") -> str:
        """Certifies the key of a signing request (PKCS#10), which may have these names; returns the chain as PEM."""
        keep: list = []
        opts = self._leaf(keep, names, uris, days, lifetime_s, profile)
        data = ffi.from_buffer(request)
        out = ffi.new("char **")
        check(lib.cb_ca_sign(self.pointer, ffi.new("cb_slice *", {"base": ffi.cast("const uint8_t *", data), "len": len(request)})[0],
                             opts, out))
        try:
            return ffi.string(out[0]).decode()
        finally:
            lib.cb_ca_text_free(out[0])

    def renew(self, cert_file: Path, key_file: Optional[Path] = None, *, if_due: bool = False) -> Renewed:
        """Renews a certificate in its place: a new key, the same names and lifetime; with if_due only when it is time."""
        keep: list = []
        opts = _options("cb_renew_opts")
        opts.cert_file, opts.key_file, opts.if_due = _text(keep, cert_file), _text(keep, key_file), if_due
        result = _options("cb_renew_result")
        check(lib.cb_ca_renew(self.pointer, opts, result))
        return Renewed(bool(result.renewed), result.not_after_s, result.renew_at_s)

    def revoke(self, serial: str, reason: int = 0) -> None:
        """Takes back the certificate with this serial number (hexadecimal); crl() then tells."""
        check(lib.cb_ca_revoke(self.pointer, serial.encode(), reason))

    def crl(self, next_update_s: int = 0) -> str:
        """Signs the list of revoked certificates (ca.crl); returns it as PEM."""
        out = ffi.new("char **")
        check(lib.cb_ca_crl(self.pointer, next_update_s, out))
        try:
            return ffi.string(out[0]).decode()
        finally:
            lib.cb_ca_text_free(out[0])


class OcspAnswer(NamedTuple):
    """What an OCSP responder says: the bytes to send, enum cb_ocsp_status, whether caches may keep it, and from when until when it holds."""

    der: bytes
    status: int
    cacheable: bool
    this_update: int
    next_update: int


class Ocsp(_Handle):
    """An OCSP responder (RFC 6960) for the authority in a directory: requests in, answers out. See cb_ocsp_new() in cb/ca.h.

    Signs with the authority's key or, given cert_file and key_file, with those of a delegated responder (profile "ocsp").
    """

    def __init__(self, directory: Path, cert_file: Optional[Path] = None, key_file: Optional[Path] = None, *, valid_s: int = 0) -> None:
        keep: list = []
        opts = _options("cb_ocsp_opts")
        opts.dir, opts.cert_file, opts.key_file = (_text(keep, one) for one in (directory, cert_file, key_file))
        opts.valid_s = valid_s
        out = ffi.new("cb_ocsp **")
        check(lib.cb_ocsp_new(out, opts))
        super().__init__(out[0], lib.cb_ocsp_free)

    def refresh(self) -> None:
        """Reads the index and the delegate's files again where they have changed."""
        check(lib.cb_ocsp_refresh(self.pointer))

    def _ask(self, function, data: bytes) -> OcspAnswer:
        answer = _options("cb_ocsp_answer")
        held = ffi.from_buffer(data)
        check(function(self.pointer, ffi.new("cb_slice *", {"base": ffi.cast("const uint8_t *", held), "len": len(data)})[0], int(time.time()), answer))
        return OcspAnswer(bytes(ffi.buffer(answer.der.base, answer.der.len)), answer.status, bool(answer.cacheable), answer.this_update_s,
                          answer.next_update_s)

    def respond(self, request: bytes) -> OcspAnswer:
        """Answers a request (application/ocsp-request)."""
        return self._ask(lib.cb_ocsp_respond, request)

    def staple(self, certificate: bytes) -> OcspAnswer:
        """An answer about a certificate (PEM), for its server to staple."""
        return self._ask(lib.cb_ocsp_staple, certificate)


def _fields(keep: list, headers: Iterable[Tuple[str, str]]):
    """An array of cb_field and its length."""
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    array = ffi.new("cb_field[]", len(pairs))
    for at, (name, value) in zip(array, pairs):
        name_c, value_c = ffi.from_buffer("uint8_t[]", name), ffi.from_buffer("uint8_t[]", value)
        keep.extend((name_c, value_c))
        at.name.base, at.name.len, at.value.base, at.value.len = name_c, len(name), value_c, len(value)
    keep.append(array)
    return array, len(pairs)


from .peer import Peer  # noqa: E402  (re-exported for convenience)
