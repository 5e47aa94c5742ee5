"""OpenID Connect and OAuth 2.0: verify tokens by a provider's keys, ask for tokens, introspect and revoke. See cb/oidc.h.

    with cb.oidc.Provider("https://id.example", client_id="billing", client_secret=secret) as provider:
        tokens = provider.client_credentials(scope="read")      # tokens.access_token, tokens.expires_at
        provider.verify(tokens.access_token, audience="api").claims["sub"]                  # or raises cb.jwt.Refused

A provider has a thread of its own, which keeps the keys fresh. Its methods may be called from any thread; those that ask the
provider wait for its answer.
"""

from __future__ import annotations

import concurrent.futures
import threading
import time
from typing import Any, Callable, Iterable, NamedTuple, Optional, Tuple, Union

from . import Error, Identity, Path, _options, _text, check
from ._cb import ffi, lib
from .jwt import Refused, Signer, Text, Token, _rules, _set_slice

__all__ = ["Denied", "Device", "Provider", "Tokens", "read_account"]


class Tokens(NamedTuple):
    """What a token endpoint answered."""

    access_token: str
    token_type: str
    expires_at: int  # seconds since 1970; 0: it was not said
    refresh_token: Optional[str]
    scope: Optional[str]
    id_token: Optional[str]
    identity: Optional[Token]  # id_token, verified


class Device(NamedTuple):
    """What a person is to see in a device flow."""

    url: str
    user_code: str
    url_complete: Optional[str]
    expires_at: int


class Denied(Error):
    """The provider refused: ``error`` is its code, such as "invalid_grant"."""

    def __init__(self, code: int, error: str) -> None:
        super().__init__(code)
        self.error = error


def _string(text) -> Optional[str]:
    return ffi.string(text).decode() if text else None


def read_account(json: Text) -> Tuple[Signer, str]:
    """The key and the id of a Zitadel key file: of a service account (for jwt_bearer()) or an application (client_key)."""
    keep: list = []
    data, key, id_ = ffi.new("cb_slice *"), ffi.new("cb_jwt_signer **"), ffi.new("char[256]")
    _set_slice(keep, data, json)
    check(lib.cb_oidc_account_read(key, id_, 256, data[0]))
    return Signer._of(key[0]), ffi.string(id_).decode()


class _Job:
    """Something that the provider's thread does for another one, which waits for the result."""

    def __init__(self, start: Callable[["_Job"], None], on_device: Optional[Callable[[Device], Any]] = None) -> None:
        self.start, self.on_device = start, on_device
        self.result: concurrent.futures.Future = concurrent.futures.Future()
        self.handle = ffi.new_handle(self)
        self.request = ffi.NULL  # a cb_oidc_request under way

    def fail(self, problem: BaseException) -> None:
        if not self.result.done():
            self.result.set_exception(problem)


class Provider:
    """A provider of tokens. Close it, or use it in a with-block."""

    def __init__(self, issuer: str, *, client_id: Optional[str] = None, client_secret: Optional[str] = None, client_key: Optional[Signer] = None,
                 ca_file: Optional[Path] = None, refresh_s: int = 0, grace_s: int = 0, timeout: float = 0, other_hosts: bool = False,
                 loopback_http: bool = False) -> None:
        keep: list = []
        opts, client_opts = _options("cb_oidc_opts"), _options("cb_http_client_opts")
        opts.issuer, opts.client_id = _text(keep, issuer), _text(keep, client_id)
        opts.client_secret = _text(keep, client_secret)
        opts.client_key = client_key.pointer if client_key else ffi.NULL
        opts.refresh_s, opts.grace_s, opts.timeout_ms = refresh_s, grace_s, int(timeout * 1000)
        opts.other_hosts, opts.loopback_http = other_hosts, loopback_http
        identity = Identity(ca_file=ca_file) if ca_file else None
        client_opts.identity = identity.pointer if identity else ffi.NULL
        loop, client, oidc = ffi.new("cb_loop **"), ffi.new("cb_http_client **"), ffi.new("cb_oidc **")
        self._timeout = timeout or 10
        self._jobs: set = set()
        self._lock = threading.Lock()
        self._introspector = ffi.NULL
        check(lib.cb_oidc_new(oidc, opts))
        try:
            check(lib.cb_loop_new(loop, ffi.NULL))
            check(lib.cb_http_client_new(client, loop[0], client_opts))
            check(lib.cb_oidc_run(oidc[0], loop[0], client[0]))
        except Error:
            lib.cb_http_client_free(client[0])
            lib.cb_loop_free(loop[0])
            lib.cb_oidc_unref(oidc[0])
            raise
        self._loop, self._client, self._oidc = loop[0], client[0], oidc[0]
        self._thread: Optional[threading.Thread] = threading.Thread(target=lib.cb_loop_run, args=(self._loop,), daemon=True, name="cb.oidc")
        self._thread.start()

    def close(self) -> None:
        """Ends it; whoever waits for an answer gets an Error."""
        with self._lock:
            thread, self._thread = self._thread, None
        if not thread:
            return
        lib.cb_loop_stop(self._loop)
        thread.join()
        for job in list(self._jobs):
            lib.cb_oidc_request_free(job.request)
        lib.cb_introspector_free(self._introspector)
        lib.cb_oidc_stop(self._oidc)
        lib.cb_http_client_free(self._client)
        lib.cb_loop_free(self._loop)
        lib.cb_oidc_unref(self._oidc)
        for job in list(self._jobs):
            job.fail(Error(lib.CB_ECLOSED, "the provider is closed"))

    def __enter__(self) -> "Provider":
        return self

    def __exit__(self, *exc) -> None:
        self.close()

    # ---- tokens that others show ----

    def verify(self, token: Text, audience: Union[str, Iterable[str], None] = None, *, typ: Optional[str] = None, now: Optional[float] = None,
               leeway_s: int = 0, any_audience: bool = False, exp_optional: bool = False) -> Token:
        """Verifies a token by the provider's keys, as cb.jwt.verify(); waits for the first keys. Raises cb.jwt.Refused."""
        keep: list = []
        rules, facts = _rules(keep, None, audience, typ, now, leeway_s, False, any_audience, exp_optional)
        text, out, reason = ffi.new("cb_slice *"), ffi.new("cb_jwt **"), ffi.new("int32_t *")
        _set_slice(keep, text, token)
        end = time.monotonic() + self._timeout
        while True:
            with self._lock:
                self._check_open()
                rc = lib.cb_oidc_verify(self._oidc, ffi.NULL, out, text[0], rules, facts, reason)
            if rc != lib.CB_EAGAIN or time.monotonic() > end:
                break
            time.sleep(0.01)
        if rc == lib.CB_EAUTH:
            raise Refused(rc, reason[0])
        check(rc)
        return Token(out[0])

    def introspect(self, token: Text) -> Token:
        """Asks about an opaque token (RFC 7662), or remembers. The answer's members are the claims. Raises cb.jwt.Refused."""
        keep: list = []
        text = ffi.new("cb_slice *")
        _set_slice(keep, text, token)

        def start(job: _Job) -> None:
            out, reason = ffi.new("cb_jwt **"), ffi.new("int32_t *")
            if not self._introspector:
                opts, made = _options("cb_introspector_opts"), ffi.new("cb_introspector **")
                opts.provider, opts.client = self._oidc, self._client
                check(lib.cb_introspector_new(made, self._loop, opts))
                self._introspector = made[0]
            rc = lib.cb_introspect(self._introspector, ffi.NULL, text[0], int(time.time()), out, reason, lib.cbpy_oidc_told, job.handle)
            if rc != lib.CB_EAGAIN:
                _told(job, rc, Token(out[0]) if rc == lib.CB_OK else None, reason[0])

        return self._run(_Job(start))

    # ---- tokens of our own ----

    def client_credentials(self, scope: Optional[str] = None, *, audience: Optional[str] = None, resource: Optional[str] = None) -> Tokens:
        """A token for ourselves (RFC 6749 4.4). Raises Denied, or another Error."""
        return self._request(lib.CB_OIDC_CLIENT_CREDENTIALS, scope=scope, audience=audience, resource=resource)

    def jwt_bearer(self, key: Signer, subject: str, scope: Optional[str] = None, *, audience: Optional[str] = None) -> Tokens:
        """A token for a service account, whose key signs an assertion (RFC 7523; see read_account())."""
        return self._request(lib.CB_OIDC_JWT_BEARER, key=key, subject=subject, scope=scope, audience=audience)

    def refresh(self, refresh_token: str, scope: Optional[str] = None) -> Tokens:
        """A new token for a refresh token; tokens.refresh_token, if there is one, takes the place of the old."""
        return self._request(lib.CB_OIDC_REFRESH, token=refresh_token, scope=scope)

    def device(self, show: Callable[[Device], Any], scope: Optional[str] = None) -> Tokens:
        """A token for a person at another screen (RFC 8628): ``show`` tells them where to go, then this waits for them."""
        return self._request(lib.CB_OIDC_DEVICE_CODE, scope=scope, on_device=show)

    def revoke(self, token: str, hint: Optional[str] = None) -> None:
        """Gives a token back (RFC 7009)."""
        self._request(lib.CB_OIDC_REVOKE, token=token, token_hint=hint)

    # ---- the thread ----

    def _check_open(self) -> None:
        if self._thread is None:
            raise ValueError("Provider is closed")

    def _run(self, job: _Job) -> Any:
        with self._lock:
            self._check_open()
            self._jobs.add(job)
            rc = lib.cb_loop_post(self._loop, lib.cbpy_oidc_start, job.handle)
        try:
            check(rc)
            return job.result.result()
        finally:
            self._jobs.discard(job)

    def _request(self, type_: int, *, key: Optional[Signer] = None, on_device: Optional[Callable[[Device], Any]] = None, **texts) -> Any:
        keep: list = []
        opts = _options("cb_oidc_request_opts")
        opts.provider, opts.client, opts.type = self._oidc, self._client, type_
        opts.key = key.pointer if key else ffi.NULL
        opts.on_device = lib.cbpy_oidc_device if on_device else ffi.NULL
        for name, value in texts.items():
            setattr(opts, name, _text(keep, value))

        def start(job: _Job) -> None:
            out = ffi.new("cb_oidc_request **")
            check(lib.cb_oidc_request_start(out, self._loop, opts, lib.cbpy_oidc_done, job.handle))
            job.request = out[0]

        return self._run(_Job(start, on_device))


def _told(job: _Job, rc: int, token: Optional[Token], reason: int) -> None:
    if rc == lib.CB_OK:
        job.result.set_result(token)
    else:
        job.fail(Refused(rc, reason) if rc == lib.CB_EAUTH else Error(rc))


@ffi.def_extern()
def cbpy_oidc_start(loop, user):
    job = ffi.from_handle(user)
    try:
        job.start(job)
    except BaseException as problem:  # for the thread that waits
        job.fail(problem)


@ffi.def_extern()
def cbpy_oidc_told(rc, token, reason, user):
    _told(ffi.from_handle(user), rc, Token(lib.cb_jwt_ref(token)) if rc == lib.CB_OK else None, reason)


@ffi.def_extern()
def cbpy_oidc_device(request, device, user):
    job = ffi.from_handle(user)
    try:
        job.on_device(Device(_string(device.url), _string(device.user_code), _string(device.url_complete), device.expires_at_s))
    except BaseException as problem:
        lib.cb_oidc_request_free(request)
        job.request = ffi.NULL
        job.fail(problem)


@ffi.def_extern()
def cbpy_oidc_done(request, rc, tokens, error, user):
    job = ffi.from_handle(user)
    job.request = ffi.NULL
    if rc < 0:
        job.fail(Denied(rc, _string(error) or "") if rc == lib.CB_EAUTH else Error(rc))
    elif not tokens:
        job.result.set_result(None)
    else:
        identity = Token(lib.cb_jwt_ref(tokens.identity)) if tokens.identity else None
        job.result.set_result(Tokens(_string(tokens.access_token), _string(tokens.token_type), tokens.expires_at_s,
                                     _string(tokens.refresh_token), _string(tokens.scope), _string(tokens.id_token), identity))
    lib.cb_oidc_request_free(request)
