"""Metrics through the binding."""

import threading

import pytest

import cb
import cb.metrics


def test_the_three_kinds():
    with cb.metrics.Registry() as m:
        visits = m.counter("visits", "Pages served.", labels=["page", "code"])
        visits.add(page="/", code=200)
        visits.add(2, code=200, page="/")
        visits.add(page="/ä\"", code=404)
        load = m.gauge("load_ratio", "How busy.", unit="ratio", decimals=3)
        load.set(0.75)
        load.add(-0.5)
        took = m.histogram("serve_seconds", "Time.", unit="seconds", decimals=9, buckets=[0.001, 0.1])
        took.add(0.0005)
        took.add(0.05)
        assert visits.value(page="/", code=200) == 3 and load.value() == 0.25 and took.value() == 2
        page = m.render()
        assert 'visits_total{page="/",code="200"} 3\n' in page and 'visits_total{page="/ä\\"",code="404"} 1\n' in page
        assert "load_ratio 0.25\n" in page
        assert 'serve_seconds_bucket{le="0.001"} 1\n' in page and "serve_seconds_sum 0.0505\n" in page
        assert m.render(cb.metrics.OPENMETRICS).endswith("# EOF\n")
        assert b"serve_seconds" in m.render(cb.metrics.PROTOBUF)


def test_each_thread_counts_by_itself():
    with cb.metrics.Registry() as m:
        hits = m.counter("hits", "Hits.")

        def work():
            for _ in range(1000):
                hits.add()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert hits.value() == 4000


def test_mistakes():
    with cb.metrics.Registry() as m:
        with pytest.raises(cb.Error, match="does not end in _total"):
            m.counter("x_total", "X.")
        x = m.counter("x", "X.", labels=["a"])
        with pytest.raises(cb.Error, match="defined already"):
            m.gauge("x", "X.")
        with pytest.raises(ValueError, match="labels are a, not b"):
            x.add(b="1")
        with pytest.raises(ValueError, match="negative"):
            x.add(-1, a="1")
        with pytest.raises(TypeError):
            x.set(1, a="1")
        with pytest.raises(cb.Error):
            x.value(a="never")


def test_formats():
    assert cb.metrics.negotiate("application/openmetrics-text;version=1.0.0") == cb.metrics.OPENMETRICS
    assert cb.metrics.content_type(cb.metrics.negotiate("")).startswith("text/plain; version=0.0.4")
