"""Health without sockets (cb/health.h): what the results of checks come to, outliers among endpoints, and weights by load.

Times are nanoseconds of whatever clock the caller has; the same calls in the same order give the same answers."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional

from . import _Handle, _options, check
from ._cb import ffi, lib

UNKNOWN: int = lib.CB_HEALTH_UNKNOWN
UP: int = lib.CB_HEALTH_UP
DOWN: int = lib.CB_HEALTH_DOWN
DRAINING: int = lib.CB_HEALTH_DRAINING
WAIT: int = lib.CB_HEALTH_WAIT
CHECK: int = lib.CB_HEALTH_CHECK
GIVE_UP: int = lib.CB_HEALTH_GIVE_UP
AS_CHECKED: int = lib.CB_HEALTH_AS_CHECKED
FORCE_UP: int = lib.CB_HEALTH_FORCE_UP
FORCE_DOWN: int = lib.CB_HEALTH_FORCE_DOWN
FORCE_DRAIN: int = lib.CB_HEALTH_FORCE_DRAIN
WORKED: int = lib.CB_OUTLIER_WORKED
ERROR: int = lib.CB_OUTLIER_ERROR
FAILED: int = lib.CB_OUTLIER_FAILED
CONNECT: int = lib.CB_OUTLIER_CONNECT
NEVER: int = 2**64 - 1


class Change(NamedTuple):
    """A change of an endpoint: its state and cause by name, and the percentage of its weight that it may have."""

    at: int
    number: int
    came_from: str
    to: str
    cause: str
    weight: int
    reason: str
    until: int


def _fill(type_name: str, members: Dict[str, Any]):
    options = _options(type_name)
    for name, value in members.items():
        setattr(options, name, value)
    return options


def _state(number: int) -> str:
    return ffi.string(lib.cb_health_state_name(number)).decode()


class Health(_Handle):
    """One endpoint that is checked. Options are the members of cb_health_opts: Health(now, rise=1, interval_ms=1000)."""

    def __init__(self, now: int, **options: Any) -> None:
        out = ffi.new("cb_health **")
        check(lib.cb_health_new(out, _fill("cb_health_opts", options), now))
        super().__init__(out[0], lib.cb_health_free)

    def run(self, now: int) -> int:
        """What is to be done: WAIT, CHECK, or GIVE_UP the check that runs."""
        return lib.cb_health_run(self.pointer, now)

    def next(self) -> int:
        """When to run again; NEVER."""
        return lib.cb_health_next(self.pointer)

    def feed(self, passed: bool, now: int, reason: Optional[str] = None, duration_ns: int = 0) -> bool:
        """The result of the check that ran. True: the state, or the weight, has changed."""
        result, held = _options("cb_health_result"), ffi.new("char[]", (reason or "").encode())
        result.passed, result.reason, result.duration_ns = passed, held, duration_ns
        return bool(check(lib.cb_health_feed(self.pointer, result, now)))

    def suspect(self, now: int) -> None:
        """The next check is due soon."""
        lib.cb_health_suspect(self.pointer, now)

    def override(self, kind: int, now: int, why: str = "") -> bool:
        """AS_CHECKED, FORCE_UP, FORCE_DOWN or FORCE_DRAIN."""
        return bool(check(lib.cb_health_override(self.pointer, kind, why.encode(), now)))

    def changes(self) -> List[Change]:
        """Those that were not taken yet, the oldest first."""
        c, found = _options("cb_health_change"), []
        while lib.cb_health_take(self.pointer, c) == lib.CB_OK:
            cause = ffi.string(lib.cb_health_cause_name(c.cause)).decode()
            found.append(Change(c.at, c.number, _state(getattr(c, "from")), _state(c.to), cause, c.weight,
                                ffi.string(c.reason).decode("utf-8", "replace"), c.until))
        return found

    def status(self, now: int) -> Dict[str, Any]:
        """The members of cb_health_status; state and cause by name."""
        out = _options("cb_health_status")
        check(lib.cb_health_status_get(self.pointer, out, now))
        found = {name: getattr(out, name) for name, _ in ffi.typeof("cb_health_status").fields if name not in ("size", "reserved")}
        found["state"], found["cause"] = _state(out.state), ffi.string(lib.cb_health_cause_name(out.cause)).decode()
        found["reason"], found["last"] = (ffi.string(t).decode("utf-8", "replace") for t in (out.reason, out.last))
        return found


class Outliers(_Handle):
    """Endpoints by what calls to them come to. Options are the members of cb_outlier_opts."""

    def __init__(self, endpoints: int = 0, **options: Any) -> None:
        out = ffi.new("cb_outlier **")
        check(lib.cb_outlier_new(out, _fill("cb_outlier_opts", options)))
        super().__init__(out[0], lib.cb_outlier_free)
        for _ in range(endpoints):
            self.add()

    def add(self) -> int:
        """Another endpoint: its number."""
        return check(lib.cb_outlier_add(self.pointer))

    def present(self, endpoint: int, present: bool) -> None:
        check(lib.cb_outlier_present(self.pointer, endpoint, present))

    def report(self, endpoint: int, result: int, now: int, latency_ns: int = 0) -> bool:
        """WORKED, ERROR, FAILED or CONNECT. True: this one left it out."""
        return bool(check(lib.cb_outlier_report(self.pointer, endpoint, result, latency_ns, now)))

    def run(self, now: int) -> int:
        """Judges an interval that is over: how many it left out."""
        return lib.cb_outlier_run(self.pointer, now)

    def is_out(self, endpoint: int, now: int) -> bool:
        return bool(check(lib.cb_outlier_is_out(self.pointer, endpoint, now)))

    def readmit(self, endpoint: int) -> None:
        check(lib.cb_outlier_readmit(self.pointer, endpoint))

    def stats(self, endpoint: int) -> Dict[str, Any]:
        """The members of cb_outlier_stats; rule and ejections by name."""
        out = _options("cb_outlier_stats")
        check(lib.cb_outlier_stats_get(self.pointer, endpoint, out))
        found = {name: getattr(out, name) for name, _ in ffi.typeof("cb_outlier_stats").fields if name not in ("size", "reserved")}
        names = [ffi.string(lib.cb_outlier_rule_name(i)).decode() for i in range(lib.CB_OUTLIER_RULES)]
        found["rule"], found["ejections"] = names[out.rule], dict(zip(names, out.ejections))
        return found


class Adapt(_Handle):
    """Weights by load. Options are the members of cb_lb_adapt_opts."""

    def __init__(self, weights: List[int], **options: Any) -> None:
        out = ffi.new("cb_lb_adapt **")
        check(lib.cb_lb_adapt_new(out, _fill("cb_lb_adapt_opts", options)))
        super().__init__(out[0], lib.cb_lb_adapt_free)
        for weight in weights:
            check(lib.cb_lb_adapt_add(self.pointer, weight))
        self._n = len(weights)

    def report(self, member: int, load: Optional[float], now: int) -> None:
        """0 to 1 and above; None: not known."""
        check(lib.cb_lb_adapt_report(self.pointer, member, -1.0 if load is None else load, now))

    def present(self, member: int, present: bool) -> None:
        check(lib.cb_lb_adapt_present(self.pointer, member, present))

    def run(self, now: int) -> bool:
        """Makes a step when one is due. True: weights have changed."""
        return bool(lib.cb_lb_adapt_run(self.pointer, now))

    def next(self) -> int:
        return lib.cb_lb_adapt_next(self.pointer)

    def weights(self) -> List[int]:
        return [check(lib.cb_lb_adapt_weight(self.pointer, i)) for i in range(self._n)]
