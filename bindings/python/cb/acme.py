"""Certificates from an ACME server. See cb/acme.h.

    account = cb.acme.Account("https://acme-v02.api.letsencrypt.org/directory", "state", contacts=["mailto:ops@example.org"], agree_terms=True)
    got = account.issue(["www.example.org"])          # something of yours answers /.well-known/acme-challenge/
    identity = cb.Identity(got.file, got.file)

What answers http-01 needs no state: ``cb.acme.http01(account.thumbprint, path)``. Calls block; one at a time uses the directory.
"""

from __future__ import annotations

import os
from typing import Any, Callable, NamedTuple, Optional, Sequence

from . import Error, Path, _options, _text, check
from ._cb import ffi, lib

__all__ = ["Account", "Challenge", "Result", "http01", "placeholder"]

CHALLENGES = {"http-01": lib.CB_ACME_HTTP_01, "dns-01": lib.CB_ACME_DNS_01, "tls-alpn-01": lib.CB_ACME_TLS_ALPN_01}
KEYS = {"ecdsa-p256": lib.CB_KEY_ECDSA_P256, "ecdsa-p384": lib.CB_KEY_ECDSA_P384, "rsa-2048": lib.CB_KEY_RSA_2048, "ed25519": lib.CB_KEY_ED25519}


class Challenge(NamedTuple):
    """What has to be shown. Of http-01: ``key_auth`` under ``/.well-known/acme-challenge/`` and ``token``. Of dns-01: ``dns_value`` in a TXT
    record of ``_acme-challenge.`` and ``name``. Of tls-alpn-01: ``pem``, key and certificate (None when it is over)."""

    type: str
    name: str
    token: str
    key_auth: str
    dns_value: str
    pem: Optional[str]


class Result(NamedTuple):
    """What came of it; times in seconds since 1970, 0 where they do not apply."""

    account: Optional[str]
    file: Optional[str]
    issued: bool
    not_before: int
    not_after: int
    renew_at: int
    check_at: int
    explanation: Optional[str]


def http01(thumbprint: str, path: str) -> Optional[bytes]:
    """What a request for ``path`` is to be answered with, for the account with this thumbprint; None: it is no challenge."""
    out, data = ffi.new("char[]", lib.CB_ACME_HTTP01_BYTES), path.encode()
    n = lib.cb_acme_http01(out, lib.CB_ACME_HTTP01_BYTES, thumbprint.encode(), (ffi.from_buffer("uint8_t[]", data), len(data)))
    return None if n == lib.CB_ENOENT else ffi.buffer(out, check(n))[:]


def placeholder(names: Sequence[str], now: int) -> str:
    """A self-signed certificate and its key, PEM, for names that wait for their first certificate."""
    keep: list = []
    out = ffi.new("char **")
    check(lib.cb_acme_placeholder(out, _texts(keep, names), len(names), now))
    try:
        return ffi.string(out[0]).decode()
    finally:
        lib.cb_acme_text_free(out[0])


def _texts(keep: list, values: Sequence[str]):
    texts = ffi.new("const char *[]", [_text(keep, value) for value in values] or 1)
    keep.append(texts)
    return texts


def _string(value) -> Optional[str]:
    return ffi.string(value).decode(errors="replace") if value else None


class _Job:
    def __init__(self, loop, show, hide) -> None:
        self.loop, self.show, self.hide = loop, show, hide
        self.result: Optional[Result] = None
        self.problem: Optional[BaseException] = None
        self.handle = ffi.new_handle(self)


class Account:
    """An account at the server whose directory this is, kept in ``dir``; it is made by the first call that needs it.

    ``settle`` is how many seconds name servers get before the server looks. ``patience`` is for one call, in seconds."""

    def __init__(self, directory: str, dir: Path, *, contacts: Sequence[str] = (), agree_terms: bool = False, ca_file: Optional[Path] = None,
                 eab_kid: Optional[str] = None, eab_key: Optional[str] = None, other_hosts: bool = False, settle: float = 0,
                 patience: int = 0, resolver: Optional[str] = None) -> None:
        self._keep: list = []
        self._opts = opts = _options("cb_acme_opts")
        opts.directory, opts.dir = _text(self._keep, directory), _text(self._keep, dir)
        opts.contacts, opts.contacts_len = _texts(self._keep, contacts), len(contacts)
        opts.eab_kid, opts.eab_key = _text(self._keep, eab_kid), _text(self._keep, eab_key)
        opts.agree_terms, opts.other_hosts = agree_terms, other_hosts
        opts.settle_ms, opts.patience_s = int(settle * 1000), patience
        self._ca_file = None if ca_file is None else os.fspath(ca_file)
        self._resolver = resolver

    @property
    def thumbprint(self) -> str:
        """The RFC 7638 thumbprint of the account's key, which is made when there is none. It is no secret."""
        return self._with(lambda acme, job: ffi.string(lib.cb_acme_thumbprint(acme)).decode())

    def issue(self, names: Sequence[str], *, challenge: str = "http-01", on_challenge: Optional[Callable[[Challenge], Any]] = None,
              on_challenge_done: Optional[Callable[[Challenge], Any]] = None, profile: Optional[str] = None, key_type: str = "ecdsa-p256",
              if_due: bool = False) -> Result:
        """Gets a certificate. ``if_due``: only when there is none of these names, or it is time to renew it."""
        keep: list = []
        order = _options("cb_acme_order")
        order.names, order.names_len = _texts(keep, names), len(names)
        order.challenge, order.key_type, order.profile, order.if_due = CHALLENGES[challenge], KEYS[key_type], _text(keep, profile), if_due
        return self._run(lambda acme: lib.cb_acme_issue(acme, order), on_challenge, on_challenge_done)

    def register(self) -> Result:
        """Makes the account, or finds it by its key."""
        return self._run(lambda acme: lib.cb_acme_account(acme, lib.CB_ACME_REGISTER))

    def set_contacts(self) -> Result:
        return self._run(lambda acme: lib.cb_acme_account(acme, lib.CB_ACME_CONTACTS))

    def roll_key(self) -> Result:
        """Gives the account a new key; the thumbprint changes."""
        return self._run(lambda acme: lib.cb_acme_account(acme, lib.CB_ACME_ROLL_KEY))

    def deactivate(self) -> Result:
        """Ends the account for ever."""
        return self._run(lambda acme: lib.cb_acme_account(acme, lib.CB_ACME_DEACTIVATE))

    def revoke(self, name: str, reason: int = 0) -> Result:
        """Revokes the certificate whose first name this is (RFC 5280 5.3.1); the file stays."""
        return self._run(lambda acme: lib.cb_acme_revoke(acme, name.encode(), reason))

    # ---- a loop for a call ----

    def _run(self, begin, show=None, hide=None) -> Result:
        def run(acme, job):
            check(begin(acme))
            check(lib.cb_loop_run(job.loop))
            if job.problem:
                raise job.problem
            assert job.result
            return job.result
        return self._with(run, show, hide)

    def _with(self, fn, show=None, hide=None):
        keep: list = []
        loop, roots, client, acme = (ffi.new(f"{kind} **") for kind in ("cb_loop", "cb_identity", "cb_http_client", "cb_acme"))
        try:
            check(lib.cb_loop_new(loop, ffi.NULL))
            if self._ca_file:
                trust = _options("cb_identity_opts")
                trust.ca_file = _text(keep, self._ca_file)
                check(lib.cb_identity_new(roots, trust))
            opts = _options("cb_http_client_opts")
            opts.identity, opts.alt_svc, opts.resolver = roots[0], 1, _text(keep, self._resolver)
            check(lib.cb_http_client_new(client, loop[0], opts))
            job = _Job(loop[0], show, hide)
            ops = _options("cb_acme_ops")
            ops.on_challenge, ops.on_challenge_done, ops.on_done = lib.cbpy_acme_challenge, lib.cbpy_acme_challenge_done, lib.cbpy_acme_done
            self._opts.client, self._opts.ops, self._opts.user = client[0], ops, job.handle
            check(lib.cb_acme_new(acme, loop[0], self._opts))
            return fn(acme[0], job)
        finally:
            lib.cb_acme_free(acme[0])
            lib.cb_http_client_free(client[0])
            lib.cb_identity_unref(roots[0])
            if loop[0]:
                lib.cb_loop_free(loop[0])


def _challenge(c) -> Challenge:
    type_ = next(name for name, value in CHALLENGES.items() if value == c.type)
    return Challenge(type_, *(_string(value) for value in (c.name, c.token, c.key_auth, c.dns_value)), _string(c.pem))


@ffi.def_extern(error=lib.CB_EUSER)
def cbpy_acme_challenge(acme, c, user):
    job = ffi.from_handle(user)
    try:
        if job.show:
            job.show(_challenge(c))
        return lib.CB_OK
    except BaseException as problem:  # for whoever called
        job.problem = job.problem or problem
        return lib.cb_error_set(lib.CB_EUSER, f"on_challenge: {problem!r}".encode())


@ffi.def_extern()
def cbpy_acme_challenge_done(acme, c, user):
    job = ffi.from_handle(user)
    try:
        if job.hide:
            job.hide(_challenge(c))
    except BaseException as problem:
        job.problem = job.problem or problem


@ffi.def_extern()
def cbpy_acme_done(acme, rc, r, user):
    job = ffi.from_handle(user)
    if rc < 0 and not job.problem:
        job.problem = Error(rc)
        job.problem.retry_at = r.retry_at_s
    job.result = Result(_string(r.account), _string(r.file), bool(r.issued), r.not_before_s, r.not_after_s, r.renew_at_s, r.check_at_s,
                        _string(r.explanation))
    lib.cb_loop_stop(job.loop)
