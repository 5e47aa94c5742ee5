"""alerts/*.rules.yml, their tests and docs/guide/alerts.md are what alerts/*.toml and the catalogue say: each alert has a case in
which it fires and one in which it does not, a runbook and a dashboard. `alerts/make.py --write` writes them anew."""
import copy
import importlib.util

import guard

SPEC = importlib.util.spec_from_file_location("alerts_make", guard.ROOT / "alerts/make.py")
make = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make)
LEAST = 70


def test_alerts_are_current():
    guard.report(make.stale())


def test_there_are_enough():
    count = sum(len(source.get("alert", [])) for source in make.sources().values())
    assert count >= LEAST, f"{count} alerts"


def test_every_alert_has_both_cases_and_a_runbook():
    """Read from what was made, not from where it comes from."""
    problems, page = [], make.PAGE.read_text()
    for stem, source in make.sources().items():
        tests = (guard.ROOT / f"alerts/tests/{stem}.test.yml").read_text()
        for alert in source["alert"]:
            name = alert["name"]
            for kind in ("fires", "quiet"):
                if f"  - name: {name} {kind}\n" not in tests:
                    problems.append(f"{name}: no case in which it {kind}")
            if f"### {name}\n" not in page:
                problems.append(f"{name}: docs/guide/alerts.md has no section")
    guard.report(problems)


def test_guard_sees_bad_alerts():
    good = next(iter(make.sources().items()))
    table = make.catalogue.families()

    def broken(**change):
        source = copy.deepcopy(good[1])
        source["alert"][0].update(change)
        return list(make.mistakes(good[0], source, table, make.dashboards()))

    alert = good[1]["alert"][0]
    assert not broken()
    assert broken(expr="cb_nothing_total > 1")
    assert broken(expr='cb_build_info{colour="red"}')
    assert broken(severity="loud")
    assert broken(dashboard="cb-nowhere")
    assert broken(name="Other")
    assert broken(runbook="Do something.")
    assert broken(quiet=alert["fires"])
    assert broken(quiet={"at": "1m", "series": {}})
    assert broken(fires={**alert["fires"], "series": {**alert["fires"]["series"], 'process_open_fds{kind="x"}': "1"}})
    assert broken(unknown=1)


if __name__ == "__main__":
    guard.main(globals())
