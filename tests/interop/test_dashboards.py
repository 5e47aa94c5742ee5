"""The dashboards as others see them: Grafana's own types, and a Prometheus that scrapes what they show."""

import importlib.util
import json
import re
import sys
import time

import pytest

from conftest import TOP, free_port, npm_modules, peer, program, run, wait_tcp
from prometheus import Prometheus

sys.path.insert(0, str(TOP / "dashboards"))
import catalogue  # noqa: E402

GRAFANA = TOP / "tests/interop/grafana"
DASHBOARDS = sorted((TOP / "dashboards").glob("*.json"))
RULES = sorted((TOP / "alerts").glob("*.rules.yml"))
TABLE = catalogue.families()
WINDOWS = {"$__rate_interval": "30s", "$__range": "1m", "$__interval": "1s"}
# Series that a machine need not have.
MAY_LACK = {"cb_interface_speed_bytes": "drivers of virtual links do not say it",
            "cb_tls_signature_wait_seconds": "only keys on tokens are slow"}


@pytest.fixture(scope="session")
def tsc(tmp_path_factory):
    """tsc({name: dashboard}) compiles dashboards against Grafana's types: (exit status, output)."""
    modules = npm_modules(GRAFANA, "grafana-schema")

    def compile_them(dashboards):
        folder = tmp_path_factory.mktemp("tsc")
        (folder / "node_modules").symlink_to(modules)
        (folder / "types.ts").write_text((GRAFANA / "types.ts").read_text())
        for name, dashboard in dashboards.items():
            (folder / f"{name}.ts").write_text(f'import type {{ Made }} from "./types";\nexport const made: Made = {json.dumps(dashboard, indent=1)};\n')
        got = run(peer("node"), modules / "typescript/bin/tsc", "--noEmit", "--strict", "--skipLibCheck", "--target", "es2022", "--module", "esnext",
                  "--moduleResolution", "bundler", *folder.glob("*.ts"), timeout=300)
        return got.returncode, got.stdout + got.stderr

    return compile_them


def test_grafanas_types_fit(tsc):
    status, output = tsc({path.stem: json.loads(path.read_text()) for path in DASHBOARDS})
    assert status == 0, output


def test_grafanas_types_see_mistakes(tsc):
    good = (TOP / "dashboards/ddos.json").read_text()
    changes = {"enum": ('"graphMode": "area"', '"graphMode": "areas"'), "member": ('"legendFormat"', '"legend"'), "number": ('"schemaVersion": 39', '"schemaVersion": "39"')}
    for name, (old, new) in changes.items():
        assert old in good
        status, output = tsc({name: json.loads(good.replace(old, new))})
        assert status != 0 and f"{name}.ts" in output, f"{name}: {output}"


# ---- what they show ----

def asked(expression):
    """A query as Grafana sends it, with everything chosen."""
    for name, span in WINDOWS.items():
        expression = expression.replace(name, span)
    return re.sub(r"\$\w+", ".*", expression)


def shown(modules):
    """(where, query) of each query of the dashboards that names families of these modules only."""
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                names = catalogue.named(target["expr"], TABLE)
                if {TABLE[name].module for name in names} <= modules and ("proxy" in modules or "slo:" not in target["expr"]):
                    yield f"{path.stem}: {panel['title']}", asked(target["expr"])


def watched(modules):
    """(alert, selector) of each series that an alert looks at, if it looks at these modules only."""
    known = catalogue.by_series(TABLE)
    for name, alert in alerts().items():
        found = [(series, braces or "") for series, braces in catalogue.SERIES.findall(alert["expr"]) if series in known]
        if {known[series][0].module for series, _ in found} <= modules:
            yield from ((name, series + braces) for series, braces in found)


def alerts():
    spec = importlib.util.spec_from_file_location("alerts_make", TOP / "alerts/make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    return {alert["name"]: alert for source in make.sources().values() for alert in source["alert"]}


def firing(folder):
    """A rule for each dashboard that always fires: so the panels that list alerts have something to list."""
    rules = "".join(f"      - alert: Test\n        expr: vector(1)\n        labels: {{dashboard: cb-{path.stem}, severity: page}}\n" for path in DASHBOARDS)
    (folder / "test.rules.yml").write_text("groups:\n  - name: test\n    rules:\n" + rules)
    return folder / "test.rules.yml"


def unanswered(server, modules):
    """Queries of dashboards and alerts that have no answer, or one that is no number."""
    for where, query in shown(modules):
        if any(name in query for name in MAY_LACK):
            continue
        rows = server.rows(query)
        if not rows:
            yield f"{where}: nothing for {query}"
        elif all(value != value for _, value in rows):
            yield f"{where}: no number for {query}"
    for name, selector in watched(modules):
        if not any(lacking in selector for lacking in MAY_LACK) and not server.rows(f"last_over_time({selector}[1m])"):
            yield f"{name}: nothing for {selector}"


def answered(server, modules, seconds=60):
    """Waits until every query has an answer, at most so long."""
    end = time.monotonic() + seconds
    while wrong := list(unanswered(server, modules)):
        assert time.monotonic() < end, "\n".join(wrong)
        time.sleep(1)


def test_a_program_fills_what_is_its_own(spawn, tmp_path):
    """Any program that gives its loops a registry: the process, the network below, the loops."""
    port = free_port()
    spawn(program("metrics"), f"127.0.0.1:{port}", name="metrics")
    wait_tcp(port)
    server = Prometheus(spawn, tmp_path, port, rules=[*RULES, firing(tmp_path)])
    modules = {"process", "interface", "kernel", "loop"}
    assert len(list(shown(modules))) > 50 and len(list(watched(modules))) > 20
    answered(server, modules)
