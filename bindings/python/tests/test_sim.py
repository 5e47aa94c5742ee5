"""Protocols of one's own in virtual time."""

import pytest

import cb
import cb.metrics
import cb.sim


def echo(seed, **opts):
    """20 questions over a line; returns what came back, the time, the digest, and the counters of the way there."""
    got = []
    with cb.sim.Simulation(seed=seed) as sim:
        near, far = sim.host("near", "10.0.0.1,fd00::1"), sim.host("far", "10.0.0.2")
        there, _ = sim.connect(near, far, **opts)
        far.socket(7, lambda socket, data, source: socket.send(source, data))
        asking = near.socket(0, lambda socket, data, source: got.append((data, source)))
        for n in range(20):
            sim.at(n * 0.1, lambda n=n: asking.send("far:7", b"%d" % n))
        sim.run()
        return got, sim.now, sim.digest, there.stats()


def test_an_echo_takes_the_time_of_the_line():
    got, now, digest, stats = echo(1, delay_us=10_000)
    assert got == [(b"%d" % n, "10.0.0.2:7") for n in range(20)]
    assert now == pytest.approx(1.9 + 0.02)
    assert stats["in_packets"] == stats["out_packets"] == 20
    assert echo(1, delay_us=10_000)[2] == digest


def test_a_bad_line_repeats_itself():
    one, two, other = (echo(seed, delay_us=10_000, loss=0.3, duplicate=0.2) for seed in (5, 5, 6))
    assert one == two and one != other
    assert 0 < one[3]["drop_loss"] < 20


def test_timers_links_and_addresses_change():
    seen, alarms = [], []
    with cb.sim.Simulation() as sim:
        a, b = sim.host("a", "10.0.0.1"), sim.host("b", "10.0.0.2")
        there, _ = sim.connect(a, b, rate_bps=1_000_000)
        b.socket(9, lambda socket, data, source: seen.append((round(sim.now, 6), source)))
        out = a.socket(5, lambda *_: None)
        out.send("10.0.0.2:9", bytes(972))  # 1,000 bytes on the wire: 8 ms
        sim.run()
        there.change(rate_bps=2_000_000)
        assert there.stats()["in_packets"] == 1
        out.send("10.0.0.2:9", bytes(972))
        sim.run()
        there.down()
        out.send("10.0.0.2:9", b"lost")
        there.down(False)
        a.remove_address("10.0.0.1")
        a.add_address("10.0.0.9")
        out.send("10.0.0.2:9", b"")
        sim.run()
        assert [source for _, source in seen] == ["10.0.0.1:5", "10.0.0.1:5", "10.0.0.9:5"]
        assert (seen[0][0], seen[1][0]) == (0.008, 0.012)
        assert there.stats()["drop_down"] == 1
        a.timer(1.5, lambda: alarms.append(sim.now))
        a.timer(2, lambda: alarms.append("never")).cancel()
        sim.run_until(5)
        assert sim.now == 5 and alarms == [pytest.approx(1.5 + seen[2][0], abs=0.002)]
        a.timer(60, lambda: None)  # goes with the simulation


def test_a_nat():
    sources = []
    with cb.sim.Simulation() as sim:
        a, b = sim.host("a", "192.168.0.2"), sim.host("b", "10.0.0.2")
        sim.connect(a, b)
        nat = a.nat("203.0.113.1")
        b.socket(9, lambda socket, data, source: sources.append(source))
        out = a.socket(5, lambda *_: None)
        for address in (None, "203.0.113.2"):
            out.send("b:9", b"x")
            sim.run()
            nat.rebind(address)
        out.send("b:9", b"x")
        sim.run()
        assert [source.split(":")[0] for source in sources] == ["203.0.113.1", "203.0.113.1", "203.0.113.2"]
        assert len(set(sources)) == 3 and nat.flows == 1


def test_what_goes_wrong_is_told():
    def raise_it(*_):
        raise KeyError("in a callback")

    sim = cb.sim.Simulation(max_time_ms=1000)
    a = sim.host("a", "10.0.0.1")
    with pytest.raises(cb.Error, match="no host|neither"):
        a.socket(1, raise_it).send("nowhere:1", b"")
    with pytest.raises(cb.Error, match="in use"):
        a.socket(1, raise_it)
    with pytest.raises(cb.Error, match="loss 2"):
        sim.link(loss=2)
    with pytest.raises(TypeError, match="rate_bps"):
        sim.link(rate=2)
    with pytest.raises(cb.Error, match="such a host"):
        sim.host("a", "10.0.0.5")
    sim.at(0.5, raise_it)
    with pytest.raises(KeyError, match="in a callback"):
        sim.run()
    sim.run()
    ticks = []

    def tick():
        ticks.append(a.timer(0.4, tick))
    tick()
    with pytest.raises(cb.Error, match="max_time_ms"):
        sim.run()
    assert len(ticks) == 2
    socket = a.socket(2, raise_it)
    socket.close()
    with pytest.raises(ValueError):
        socket.send("a:1", b"")
    sim.close()
    sim.close()
    with pytest.raises(ValueError):
        sim.now


def test_loops_count():
    with cb.metrics.Registry() as metrics:
        with cb.sim.Simulation(metrics=metrics) as sim:
            a = sim.host("a", "10.0.0.1")
            sim.host("b", "10.0.0.2")
            a.timer(0.1, lambda: None)
            sim.run()
            assert "cb_loops 2\n" in metrics.render()
            assert metrics.find("cb_loop_timer_delay_seconds").value() == 1
        assert "cb_loops 0\n" in metrics.render() or "cb_loops" not in metrics.render()
        with pytest.raises(KeyError):
            metrics.find("cb_nothing")
