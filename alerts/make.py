#!/usr/bin/env python3
"""Makes rules for Prometheus (alerts/*.rules.yml), their tests for promtool (alerts/tests/*.test.yml) and docs/guide/alerts.md
from alerts/*.toml.

    alerts/make.py            says which are not what their source says
    alerts/make.py --write    writes them

A source has `title`, `place` (its place on the page), `about`, records and alerts. A [[record]] has name, expr and may have
`windows`: then it is one record for each, with that in the place of {w}. An [[alert]] has

    name, expr, for           as in Prometheus; `for` may be absent
    severity                  page (somebody gets up), ticket (somebody looks tomorrow)
    dashboard                 the uid of the dashboard that shows more
    summary, description      templates: {{ $labels.x }}, {{ $value | ... }}
    runbook                   what it means and what to do
    fires, quiet              cases: `at`, `series` {series: values, one a minute}, and of `fires`: `labels` (those of the alert
                              beside severity and dashboard) and `value`, the text that $value becomes
"""
import json
import re
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "dashboards"))

import catalogue  # noqa: E402

PAGE = ROOT / "docs/guide/alerts.md"
SEVERITIES = {"page": "somebody must act now", "ticket": "somebody must act within days"}
MEMBERS = {"name", "expr", "for", "severity", "dashboard", "summary", "description", "runbook", "fires", "quiet"}
MADE = "# Made by alerts/make.py from alerts/{}.toml: change that.\n"
HEAD = """# Alerts

What each alert of `alerts/*.rules.yml` means, and what to do. `page` means that {page}, `ticket` that {ticket}. The label `dashboard` is the uid of the
dashboard that shows more: `/d/UID` in Grafana. How to install the files is in [the guide](telemetry.md#alerts). This page, the rules and their tests are made from `alerts/*.toml` by
`alerts/make.py --write`, and a guard compares them.
"""


def quoted(value):
    return json.dumps(value, ensure_ascii=False)


def block(value, indent):
    """A text as a literal block, or quoted when it is one line."""
    lines = value.strip().splitlines()
    if len(lines) == 1:
        return " " + quoted(lines[0])
    return " |-\n" + "\n".join(" " * indent + line for line in lines)


def sources():
    """{name: source}, in the order of the page"""
    read = {path.stem: tomllib.loads(path.read_text()) for path in HERE.glob("*.toml")}
    for source in read.values():
        source["record"] = catalogue.records(source)
    return dict(sorted(read.items(), key=lambda item: item[1]["place"]))


def anchor(name):
    return f"alerts.md#{name.lower()}"


def rules(stem, source):
    """The rules of a source, in YAML."""
    out = [MADE.format(stem), "groups:\n", f"  - name: libcb-{stem}\n", "    rules:\n"]
    for record in source.get("record", []):
        out.append(f"      - record: {record['name']}\n        expr:{block(record['expr'], 10)}\n")
    for alert in source.get("alert", []):
        out.append(f"      - alert: {alert['name']}\n        expr:{block(alert['expr'], 10)}\n")
        if "for" in alert:
            out.append(f"        for: {alert['for']}\n")
        out.append(f"        labels:\n          severity: {alert['severity']}\n          dashboard: {alert['dashboard']}\n        annotations:\n")
        for name, value in annotations(alert).items():
            out.append(f"          {name}: {quoted(value)}\n")
    return "".join(out)


def annotations(alert):
    return {"summary": alert["summary"].strip(), "description": " ".join(alert["description"].split()), "runbook": anchor(alert["name"])}


def rendered(template, case):
    """A template as Prometheus fills it in for a case."""
    text = re.sub(r"\{\{\s*\$labels\.(\w+)\s*\}\}", lambda m: case["labels"][m[1]], template)
    return re.sub(r"\{\{\s*\$value[^}]*\}\}", lambda m: case["value"], text)


def expected(alert, case):
    labels = {**case["labels"], "severity": alert["severity"], "dashboard": alert["dashboard"]}
    out = ["          - exp_labels:\n"]
    out += [f"              {name}: {quoted(value)}\n" for name, value in sorted(labels.items())]
    out.append("            exp_annotations:\n")
    out += [f"              {name}: {quoted(rendered(value, case))}\n" for name, value in annotations(alert).items()]
    return "".join(out)


def cases(stem, source):
    """The tests of a source's alerts, in YAML."""
    out = [MADE.format(stem), f"rule_files:\n  - ../{stem}.rules.yml\nevaluation_interval: 1m\ntests:\n"]
    for alert in source["alert"]:
        for kind in ("fires", "quiet"):
            case = alert[kind]
            out.append(f"  - name: {alert['name']} {kind}\n    interval: 1m\n    input_series:\n")
            out += [f"      - series: {quoted(series)}\n        values: {quoted(values)}\n" for series, values in case["series"].items()]
            out.append(f"    alert_rule_test:\n      - eval_time: {case['at']}\n        alertname: {alert['name']}\n        exp_alerts:")
            out.append("\n" + expected(alert, case) if kind == "fires" else " []\n")
    return "".join(out)


def names_in(series):
    return {re.split(r"[{ ]", one)[0] for one in series}


def untrue(series, table):
    """What a series of a case has that the real one has not: a case with other labels than those proves nothing."""
    known = catalogue.by_series(table)
    name, _, rest = series.partition("{")
    if name not in known:
        if name != "up":
            yield f"{series}: no such series"
        return
    wanted, have = known[name][1], {label for label, _, _ in catalogue.matchers("{" + rest)}
    if have - catalogue.TARGET_LABELS != wanted:
        yield f"{series}: its labels are {', '.join(sorted(wanted)) or 'none'}"
    for label, _, value in catalogue.matchers("{" + rest):
        fixed = known[name][0].labels.get(label)
        if fixed and value not in fixed:
            yield f"{series}: {label} is one of {', '.join(fixed)}"


def mistakes(stem, source, table, dashboards):
    """What is wrong with a source, as sentences."""
    rules_of = catalogue.recorded()
    for record in source.get("record", []):
        for wrong in catalogue.problems(record["expr"], table, rules_of):
            yield f"alerts/{stem}.toml: {record['name']}: {wrong}"
    for alert in source.get("alert", []):
        where = f"alerts/{stem}.toml: {alert.get('name')}"
        missing, unknown = MEMBERS - {"for"} - set(alert), set(alert) - MEMBERS
        if missing or unknown:
            yield f"{where}: missing {sorted(missing)}, unknown {sorted(unknown)}"
            continue
        yield from (f"{where}: {wrong}" for wrong in catalogue.problems(alert["expr"], table, rules_of))
        if alert["severity"] not in SEVERITIES:
            yield f"{where}: severity is one of {', '.join(SEVERITIES)}"
        if alert["dashboard"] not in dashboards:
            yield f"{where}: there is no dashboard {alert['dashboard']}"
        if not alert["name"].startswith("Cb"):
            yield f"{where}: a name begins with Cb"
        if len(alert["runbook"].split()) < 15:
            yield f"{where}: the runbook says what it means and what to do"
        fires, quiet = alert["fires"], alert["quiet"]
        for series in [*fires["series"], *quiet["series"]]:
            yield from (f"{where}: {wrong}" for wrong in untrue(series, table))
        if names_in(fires["series"]) != names_in(quiet["series"]):
            yield f"{where}: both cases have the same series with other values"
        if fires["series"] == quiet["series"] and fires["at"] == quiet["at"]:
            yield f"{where}: the cases do not differ"


def page(all_sources):
    count = sum(len(source.get("alert", [])) for source in all_sources.values())
    parts = [HEAD.format(**SEVERITIES), f"{count} alerts: " + " · ".join(
        f"[{source['title']}](#{source['title'].lower().replace(' ', '-')})" for source in all_sources.values()) + "\n"]
    for source in all_sources.values():
        parts.append(f"## {source['title']}\n\n{' '.join(source['about'].split())}\n")
        for alert in source["alert"]:
            waits = f", after {alert['for']}" if "for" in alert else ""
            parts.append(f"### {alert['name']}\n\n{alert['severity']}{waits}, dashboard `{alert['dashboard']}`\n\n```\n{alert['expr'].strip()}\n```\n\n"
                         f"{alert['runbook'].strip()}\n")
    return "\n".join(parts)


def outputs(all_sources=None):
    """{file: its text}"""
    all_sources = all_sources if all_sources is not None else sources()
    made = {PAGE: page(all_sources)}
    for stem, source in all_sources.items():
        made[HERE / f"{stem}.rules.yml"] = rules(stem, source)
        made[HERE / f"tests/{stem}.test.yml"] = cases(stem, source)
    return made


def dashboards():
    return {f"cb-{path.stem}" for path in (ROOT / "dashboards").glob("*.toml")}


def wrong_in(all_sources, table):
    found = [wrong for stem, source in all_sources.items() for wrong in mistakes(stem, source, table, dashboards())]
    names = [alert["name"] for source in all_sources.values() for alert in source.get("alert", []) if "name" in alert]
    return found + [f"{name} stands twice" for name in set(names) if names.count(name) > 1]


def stale():
    """What is not as it should be, as sentences."""
    all_sources = sources()
    wrong = wrong_in(all_sources, catalogue.families())
    if wrong:
        return wrong
    made = outputs(all_sources)
    return [f"{path.relative_to(ROOT)} is not what its source says: alerts/make.py --write" for path, text in made.items()
            if not path.is_file() or path.read_text() != text] + [
            f"{path.relative_to(ROOT)} has no source" for path in [*HERE.glob("*.yml"), *HERE.glob("tests/*.yml")] if path not in made]


def main():
    wrong = wrong_in(sources(), catalogue.families()) if "--write" in sys.argv else stale()
    if not wrong and "--write" in sys.argv:
        (HERE / "tests").mkdir(exist_ok=True)
        for path, text in outputs().items():
            path.write_text(text)
    print("\n".join(wrong), end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
