"""Alert rules as Prometheus takes them: promtool reads them and tries each alert where it must fire and where it must not."""

import re

import pytest

from conftest import TOP, peer, run

RULES = sorted((TOP / "alerts").glob("*.rules.yml"))
TESTS = sorted((TOP / "alerts/tests").glob("*.test.yml"))


def test_promtool_takes_the_rules():
    got = run(peer("promtool"), "check", "rules", *RULES)
    assert got.returncode == 0, got.stdout + got.stderr
    found = sum(int(n) for n in re.findall(r"SUCCESS: (\d+) rules found", got.stdout))
    assert found == sum(len(re.findall(r"^ +- (?:alert|record): ", path.read_text(), re.M)) for path in RULES) >= 70


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name.split(".")[0])
def test_each_alert_fires_and_is_quiet(path):
    got = run(peer("promtool"), "test", "rules", path, timeout=120)
    assert got.returncode == 0 and "SUCCESS" in got.stdout + got.stderr, got.stdout + got.stderr


def test_a_wrong_expectation_is_seen(tmp_path):
    """The runs above would notice: with the cases turned round they fail."""
    text = next(path for path in TESTS if path.stem.startswith("process")).read_text()
    text = text.replace("../", f"{TOP}/alerts/").replace("exp_alerts: []", 'exp_alerts:\n          - exp_labels: {severity: page}')
    (tmp_path / "x.test.yml").write_text(text)
    got = run(peer("promtool"), "test", "rules", tmp_path / "x.test.yml", timeout=120)
    assert got.returncode != 0 and "FAILED" in got.stdout + got.stderr
