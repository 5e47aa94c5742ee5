"""Metrics as Prometheus sees them: promtool's lint, and a real server that scrapes the example in each format."""

import pytest

from conftest import free_port, peer, program, run, wait_tcp
from prometheus import Prometheus


@pytest.fixture
def counted(spawn):
    port = free_port()
    spawn(program("metrics"), f"127.0.0.1:{port}", name="metrics")
    wait_tcp(port)
    for _ in range(20):
        assert run(peer("curl"), "-sS", f"http://127.0.0.1:{port}/").stdout == "hello\n"
    return port


def page(port, *options):
    got = run(peer("curl"), "-sS", "-i", *options, f"http://127.0.0.1:{port}/metrics")
    assert got.returncode == 0, got.stderr
    head, _, body = got.stdout.replace("\r", "").partition("\n\n")
    return head.lower(), body


def test_promtool_finds_nothing_to_say(counted, tmp_path):
    head, body = page(counted)
    assert "content-type: text/plain; version=0.0.4" in head and "visits_total 20\n" in body
    (tmp_path / "page").write_text(body)
    got = run("sh", "-c", f"'{peer('promtool')}' check metrics < {tmp_path}/page")
    assert (got.returncode, got.stdout + got.stderr) == (0, "")


def test_openmetrics_when_asked(counted):
    head, body = page(counted, "-H", "Accept: application/openmetrics-text; version=1.0.0")
    assert "content-type: application/openmetrics-text; version=1.0.0" in head
    assert "# UNIT serve_seconds seconds\n" in body and body.endswith("# EOF\n")


def test_other_methods(counted):
    assert page(counted, "-X", "POST", "-d", "x")[0].startswith("http/1.1 405") and "allow: get, head" in page(counted, "-X", "PUT")[0]
    assert "content-length" in page(counted, "-I")[0]


def test_prometheus_scrapes_openmetrics(counted, spawn, tmp_path):
    server = Prometheus(spawn, tmp_path, counted)
    server.until("visits_total", ["20"])
    server.until("up", ["1"])
    assert server.query('serve_seconds_bucket{le="+Inf"}') == ["20"] and server.query("serve_seconds_count") == ["20"]
    seconds = float(server.query("serve_seconds_sum")[0])
    assert 0 < seconds < 20


def test_prometheus_takes_native_histograms(counted, spawn, tmp_path):
    server = Prometheus(spawn, tmp_path, counted, "--enable-feature=native-histograms")
    server.until("histogram_count(serve_seconds)", ["20"])
    median, mean = (float(server.query(q)[0]) for q in ("histogram_quantile(0.5, serve_seconds)",
                                                        "histogram_sum(serve_seconds) / histogram_count(serve_seconds)"))
    assert 0 < median < 1 and 0 < mean < 1
    # the native buckets are counts of the values of which the page shows the classic ones
    assert 'serve_seconds_bucket{le="10.0"} 20\n' in page(counted)[1]
    assert abs(float(server.query("histogram_fraction(0, 10, serve_seconds)")[0]) - 1) < 1e-6
