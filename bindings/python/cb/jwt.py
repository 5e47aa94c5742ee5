"""JSON Web Tokens: verify and sign. See cb/auth.h.

    keys = cb.jwt.Keys(json=jwks_document)
    token = cb.jwt.verify(text, keys, issuer="https://issuer.example", audience="api")   # or raises cb.jwt.Refused
    token.claims["sub"]

    signer = cb.jwt.Signer(pem=open("key.pem", "rb").read(), kid="1")
    text = signer.sign({"iss": "me", "aud": "api", "exp": int(time.time()) + 60})
"""

from __future__ import annotations

import json as _json
import time
from typing import Any, Dict, Iterable, List, Optional, Union

from . import Error, _Handle, _options, _text, check
from ._cb import ffi, lib

__all__ = ["Keys", "Refused", "Signer", "Token", "verify"]

Text = Union[str, bytes]


class Refused(Error):
    """The token was refused; ``reason`` is a stable name, such as "expired" (enum cb_jwt_reason)."""

    def __init__(self, code: int, reason: int) -> None:
        super().__init__(code)
        self.reason: str = ffi.string(lib.cb_jwt_reason_text(reason)).decode()


def _set_slice(keep: list, at, value: Optional[Text]) -> None:
    if value:
        data = ffi.from_buffer("uint8_t[]", value.encode() if isinstance(value, str) else value)
        keep.append(data)
        at.base, at.len = data, len(data)


def _alg(name: Optional[str]) -> int:
    return check(lib.cb_jwt_alg_find(name.encode())) if name else 0


class Keys(_Handle):
    """An immutable set of keys: a JWK set (``json``), or one key (``pem`` or ``secret``, with its ``alg``)."""

    def __init__(self, json: Optional[Text] = None, pem: Optional[Text] = None, secret: Optional[bytes] = None, kid: Optional[str] = None,
                 alg: Optional[str] = None, rsa_alg: Optional[str] = None, symmetric: bool = False) -> None:
        keep: list = []
        opts, key = _options("cb_jwks_opts"), _options("cb_jwk_opts")
        _set_slice(keep, opts.json, json)
        _set_slice(keep, key.pem, pem)
        _set_slice(keep, key.secret, secret)
        key.kid, key.alg = _text(keep, kid), _alg(alg)
        one = ffi.new("cb_jwk_opts *[1]", [key])
        if pem or secret:
            opts.keys, opts.keys_len = ffi.cast("const cb_jwk_opts *const *", one), 1
        opts.rsa_alg, opts.symmetric = _alg(rsa_alg), symmetric
        out = ffi.new("cb_jwks **")
        check(lib.cb_jwks_new(out, opts))
        super().__init__(out[0], lib.cb_jwks_unref)

    def __len__(self) -> int:
        return lib.cb_jwks_len(self.pointer)

    @property
    def notes(self) -> List[str]:
        """Which keys were left out, and why."""
        notes, at = [], 0
        while (note := lib.cb_jwks_note(self.pointer, at)) != ffi.NULL:
            notes.append(ffi.string(note).decode(errors="replace"))
            at += 1
        return notes


class Token(_Handle):
    """A verified token."""

    def __init__(self, pointer) -> None:
        super().__init__(pointer, lib.cb_jwt_unref)

    @property
    def claims(self) -> Dict[str, Any]:
        """All claims, as Python values."""
        root = ffi.new("cb_claim *")
        root.kind = lib.CB_CLAIM_OBJECT  # node 0
        return self._value(root)

    def _value(self, claim) -> Any:
        if claim.kind in (lib.CB_CLAIM_LIST, lib.CB_CLAIM_OBJECT):
            at, item, items = ffi.new("uint32_t *"), ffi.new("cb_claim *"), []
            while lib.cb_jwt_claim_next(self.pointer, claim, at, item) == 0:
                name = ffi.buffer(item.name.base, item.name.len)[:].decode() if item.name.base else ""
                items.append((name, self._value(item)))
            return dict(items) if claim.kind == lib.CB_CLAIM_OBJECT else [value for _, value in items]
        if claim.kind == lib.CB_CLAIM_NULL:
            return None
        if claim.kind == lib.CB_CLAIM_BOOL:
            return claim.number == 1
        text = ffi.buffer(claim.text.base, claim.text.len)[:].decode()
        return text if claim.kind == lib.CB_CLAIM_TEXT else _json.loads(text)

    def has(self, path: str, text: str) -> bool:
        """Is the claim at path this text, or a list or object with it?"""
        return bool(lib.cb_jwt_has(self.pointer, path.encode(), text.encode()))

    def has_scope(self, scope: str) -> bool:
        return bool(lib.cb_jwt_has_scope(self.pointer, scope.encode()))


def _rules(keep: list, issuer, audience, typ, now, leeway_s, any_issuer, any_audience, exp_optional):
    """cb_jwt_rules and cb_jwt_facts."""
    rules, facts = _options("cb_jwt_rules"), _options("cb_jwt_facts")
    wanted = [audience] if isinstance(audience, str) else list(audience or ())
    array = ffi.new("const char *[]", [_text(keep, name) for name in wanted])
    keep.append(array)
    rules.issuer, rules.typ = _text(keep, issuer), _text(keep, typ)
    rules.audiences, rules.audiences_len = array, len(wanted)
    rules.leeway_s, rules.any_issuer, rules.any_audience, rules.exp_optional = leeway_s, any_issuer, any_audience, exp_optional
    facts.now_s = int(time.time() if now is None else now)
    return rules, facts


def verify(token: Text, keys: Keys, issuer: Optional[str] = None, audience: Union[str, Iterable[str], None] = None,
           typ: Optional[str] = None, now: Optional[float] = None, leeway_s: int = 0, any_issuer: bool = False,
           any_audience: bool = False, exp_optional: bool = False) -> Token:
    """Verifies a token and judges its claims; raises Refused. ``issuer`` and ``audience`` are needed, or any_issuer and any_audience."""
    keep: list = []
    rules, facts = _rules(keep, issuer, audience, typ, now, leeway_s, any_issuer, any_audience, exp_optional)
    data = ffi.from_buffer("uint8_t[]", token.encode() if isinstance(token, str) else token)
    bytes_ = ffi.new("cb_slice *", {"base": data, "len": len(data)})
    out, reason = ffi.new("cb_jwt **"), ffi.new("int32_t *")
    rc = lib.cb_jwt_verify(out, bytes_[0], keys.pointer, rules, facts, reason)
    if rc == lib.CB_EAUTH:
        raise Refused(rc, reason[0])
    check(rc)
    return Token(out[0])


def _fields(keep: list, values: Dict[str, Any]):
    array = ffi.new("cb_jwt_field[]", len(values))
    for at, (name, value) in zip(array, values.items()):
        at.name = _text(keep, name)
        if isinstance(value, str):
            at.text = _text(keep, value)
        else:
            at.json = _text(keep, _json.dumps(value, allow_nan=False))
    return array


class Signer(_Handle):
    """A private key with its algorithm: from ``pem``, ``jwk`` or ``secret``."""

    def __init__(self, pem: Optional[Text] = None, jwk: Optional[Text] = None, secret: Optional[bytes] = None, kid: Optional[str] = None,
                 alg: Optional[str] = None) -> None:
        keep: list = []
        opts = _options("cb_jwt_signer_opts")
        for name, value in (("pem", pem), ("jwk", jwk), ("secret", secret)):
            _set_slice(keep, getattr(opts, name), value)
        opts.kid, opts.alg = _text(keep, kid), _alg(alg)
        out = ffi.new("cb_jwt_signer **")
        check(lib.cb_jwt_signer_new(out, opts))
        super().__init__(out[0], lib.cb_jwt_signer_unref)

    @classmethod
    def _of(cls, pointer) -> "Signer":
        signer = cls.__new__(cls)
        _Handle.__init__(signer, pointer, lib.cb_jwt_signer_unref)
        return signer

    @property
    def jwk(self) -> Optional[str]:
        """The public key as JSON; None for secrets."""
        text = lib.cb_jwt_signer_jwk(self.pointer)
        return ffi.string(text).decode() if text else None

    def sign(self, claims: Dict[str, Any], header: Optional[Dict[str, Any]] = None) -> str:
        """A signed token with these claims."""
        keep: list = []
        header = header or {}
        head, body = _fields(keep, header), _fields(keep, claims)
        out = ffi.new("char **")
        check(lib.cb_jwt_sign(out, self.pointer, head, len(header), body, len(claims)))
        try:
            return ffi.string(out[0]).decode()
        finally:
            lib.cb_jwt_text_free(out[0])
