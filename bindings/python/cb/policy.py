"""Policies (cb/policy.h): who may do what, by rules in a JSON document."""

from __future__ import annotations

import ipaddress
import time
from typing import Iterable, List, NamedTuple, Optional, Tuple

from . import Error, Path, _Handle, _options, _text, check
from ._cb import ffi, lib


class Decision(NamedTuple):
    """Allowed or not, why ("rule", "no-rule", "no-tenant", "unclear-path" ...), and by which rule."""

    allowed: bool
    reason: str
    rule: Optional[str]


class Step(NamedTuple):
    """How one rule stands to a request: the conditions that it has, and those that do not fit."""

    rule: str
    effect: str
    matches: bool
    conditions: Tuple[str, ...]
    failed: Tuple[str, ...]


class Policy(_Handle):
    """Rules, compiled. Give the document as text, or the name of its file. Raises cb.Error with line, column and JSON pointer of a mistake."""

    def __init__(self, text: Optional[str] = None, *, file: Optional[Path] = None) -> None:
        if (text is None) == (file is None):
            raise ValueError("one of text and file")
        keep: list = []
        out = ffi.new("cb_policy **")
        if file is not None:
            check(lib.cb_policy_load(out, _text(keep, file), ffi.NULL, ffi.NULL))
        else:
            check(lib.cb_policy_parse(out, _slice(keep, text)[0], b"policy", ffi.NULL, ffi.NULL))
        super().__init__(out[0], lib.cb_policy_unref)

    def decide(self, tenant: str, **request) -> Decision:
        """Decides. Further arguments: subject, issuer, spiffe_id, roles, token (cb.jwt.Token), route, method, path, target (host, port), verb,
        source (an address), mtls, now (seconds since 1970; None: the clock)."""
        return self._ask(tenant, request, None)

    def explain(self, tenant: str, **request) -> Tuple[Decision, List[Step]]:
        """The same, and how each rule stands to it."""
        steps: List[Step] = []
        return self._ask(tenant, request, steps), steps

    def _ask(self, tenant: str, request: dict, steps: Optional[List[Step]]) -> Decision:
        keep: list = []
        ask, decision = _request(keep, tenant, **request), _options("cb_policy_decision")
        if steps is None:
            rc = lib.cb_policy_decide(self.pointer, ask, decision)
        else:
            handle = ffi.new_handle(steps)
            rc = lib.cb_policy_explain(self.pointer, ask, decision, lib.cbpy_policy_step, handle)
        if rc not in (lib.CB_OK, lib.CB_EAUTH):
            raise Error(rc)
        rule = None if decision.rule == ffi.NULL else ffi.string(decision.rule).decode()
        return Decision(bool(decision.allowed), ffi.string(lib.cb_policy_reason_text(decision.reason)).decode(), rule)


def _slice(keep: list, text: Optional[str]):
    data = (text or "").encode()
    held = ffi.from_buffer(data)
    out = ffi.new("cb_slice *", {"base": ffi.cast("const uint8_t *", held), "len": len(data)})
    keep += [data, held, out]
    return out


def _request(keep: list, tenant: str, *, subject: Optional[str] = None, issuer: Optional[str] = None, spiffe_id: Optional[str] = None,
             roles: Iterable[str] = (), token=None, route: Optional[str] = None, method: Optional[str] = None, path: Optional[str] = None,
             target: Optional[Tuple[str, int]] = None, verb: Optional[str] = None, source: Optional[str] = None, mtls: bool = False,
             now: Optional[int] = None):
    r = _options("cb_policy_request")
    for name, value in (("tenant", tenant), ("subject", subject), ("issuer", issuer), ("spiffe_id", spiffe_id), ("route", route),
                        ("method", method), ("path", path), ("verb", verb), ("target_host", target and target[0])):
        setattr(r, name, _slice(keep, value)[0])
    names = [_slice(keep, role)[0] for role in roles]
    r.roles = held = ffi.new("cb_slice[]", names)
    r.roles_len = len(names)
    keep += [held, token]
    if token is not None:
        r.token = token.pointer
    if target is not None:
        r.target_port = target[1]
    if source is not None:
        address = ffi.from_buffer(ipaddress.ip_address(source).packed)
        keep.append(address)
        r.source = {"base": ffi.cast("const uint8_t *", address), "len": len(address)}
    r.mtls = mtls
    r.now_s = int(time.time()) if now is None else now
    return r


def _conditions(bits: int) -> Tuple[str, ...]:
    return tuple(ffi.string(lib.cb_policy_condition_text(c)).decode() for c in range(lib.CB_POLICY_CONDITIONS) if bits >> c & 1)


@ffi.def_extern()
def cbpy_policy_step(step, user):
    ffi.from_handle(user).append(Step(ffi.string(step.rule).decode(), "allow" if step.allow else "deny", bool(step.matches),
                                      _conditions(step.conditions), _conditions(step.failed)))
