"""cb.health: checks, outliers and loads in a clock of the test's own."""

import cb
import cb.health
import pytest
from cb.health import CHECK, CONNECT, FORCE_DRAIN, GIVE_UP, NEVER, WAIT, WORKED, Adapt, Health, Outliers

MS, S = 1_000_000, 1_000_000_000


def one(h, passed, reason="x"):
    """The next check, with its result at once."""
    while h.run(now := h.next()) != CHECK:
        pass
    h.feed(passed, now, reason)
    return now


def test_an_endpoint():
    with Health(0, rise=2, fall=2, no_jitter=1, interval_ms=1000, timeout_ms=300) as h:
        assert h.status(0)["state"] == "unknown" and h.status(0)["weight"] == 100
        assert one(h, True, "it answered") == 0
        assert one(h, False) == 1000 * MS and h.status(S)["state"] == "up"
        now = one(h, False, "it did not")
        assert now == 1200 * MS and h.status(now)["state"] == "down"  # in doubt a fifth
        first, second = h.changes()
        assert (first.came_from, first.to, first.cause, first.weight, first.reason) == ("unknown", "up", "checks", 100, "it answered")
        assert (second.to, second.weight, second.reason, second.at, second.number) == ("down", 0, "it did not", now, 2)
        assert h.run(at := h.next()) == CHECK and h.run(at) == WAIT and h.next() == at + 300 * MS and h.run(at + 300 * MS) == GIVE_UP
        assert h.status(at)["timeouts"] == 1
        with pytest.raises(cb.Error):
            h.feed(True, at)
        assert h.override(FORCE_DRAIN, at, "later") and h.status(at)["reason"] == "an operator said so: later"
    with pytest.raises(cb.Error, match="jitter_percent"):
        Health(0, jitter_percent=99)
    with pytest.raises(AttributeError):
        Health(0, no_such=1)


def test_outliers():
    with Outliers(3, connect_fails=2, eject_ms=1000) as o:
        assert not o.report(0, CONNECT, S) and o.report(0, CONNECT, S) and o.is_out(0, S) and not o.is_out(0, 2 * S)
        assert not any(o.report(1, CONNECT, S) for _ in range(5)) and o.stats(1)["spared"] == 2
        got = o.stats(0)
        assert got["rule"] == "failed connections in a row" and got["ejections"]["failed connections in a row"] == 1 and got["out"]
        o.readmit(0)
        assert not o.is_out(0, S) and o.report(2, WORKED, S, latency_ns=5) is False
        with pytest.raises(cb.Error):
            o.report(3, WORKED, S)


def test_loads():
    with Adapt([100, 100, 100]) as a:
        assert a.next() == NEVER
        for t in range(1, 200):
            weights = a.weights()
            for i, capacity in enumerate((50, 100, 100)):
                a.report(i, 150 * weights[i] / 300 / capacity, t * S)
            a.run(t * S)
        low, *rest = a.weights()
        assert sum(a.weights()) == 300 and low < 70 and min(rest) > 110
        a.report(0, None, 201 * S)
