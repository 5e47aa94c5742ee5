"""The families of libcb/telemetry/catalogue.def, and those of the daemons, as Prometheus shows them, and what an expression may say about them.
dashboards/make.py, alerts/make.py and the guard of docs/metrics.md read the catalogue through this."""
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CATALOGUE = ROOT / "libcb/telemetry/catalogue.def"
DAEMONS = sorted(ROOT.glob("daemons/*/families.def"))  # what only they have, in the same form
STRING = r'"((?:\\.|[^"\\])*)"'
ROW = re.compile(rf"^X\((\w+), (\w+), (COUNTER|GAUGE|HISTOGRAM), {STRING}, {STRING}, (\d+), {STRING}, {STRING}\)$")

# What Prometheus adds to each series, and what it says about alerts.
TARGET_LABELS = {"instance", "job"}
ALERT_SERIES = {"ALERTS": {"alertname", "alertstate", "severity", "dashboard"},
                "ALERTS_FOR_STATE": {"alertname", "severity", "dashboard"}}
MATCHERS = r'\{(?:[^{}"]|"(?:\\.|[^"\\])*")*\}'
MATCHER = re.compile(rf"\s*(\w+)\s*(=~|!~|!=|=)\s*{STRING}\s*(?:,|$)")
NAME = r"(?<![\w:$])(?:cb|process|slo)[_:][a-z0-9_:]+|(?<![\w:])ALERTS(?:_FOR_STATE)?\b|(?<![\w:])up\b"
SERIES = re.compile(rf"({NAME})(\s*{MATCHERS})?")
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^()]*)\)")


class Family:
    """A row of the catalogue."""

    def __init__(self, identity, module, kind, name, unit, decimals, labels, text):
        self.id, self.module, self.kind, self.name, self.unit = identity, module, kind, name, unit
        self.decimals, self.help = int(decimals), text.replace('\\"', '"')
        pairs = [label.partition("=") for label in labels.split(",") if label]
        self.labels = {label: values.split("|") if values else None for label, _, values in pairs}

    def series(self):
        """{name of a series: labels that only it has}"""
        if self.kind == "COUNTER":
            return {self.name + "_total": set()}
        if self.kind == "GAUGE":
            return {self.name: set()}
        return {self.name + "_bucket": {"le"}, self.name + "_sum": set(), self.name + "_count": set()}


def rows(text):
    """(id, module, kind, name, unit, decimals, labels, help) of each row."""
    found = []
    for line in text.splitlines():
        if line.startswith("X("):
            row = ROW.match(line)
            assert row, f"a row that cannot be read: {line[:80]}"
            found.append(row.groups())
    return found


def families(text=None):
    """{name: Family}"""
    if text is None:
        text = "\n".join(path.read_text() for path in [CATALOGUE, *DAEMONS])
    return {row[3]: Family(*row) for row in rows(text)}


def records(source):
    """The [[record]]s of a source of alerts; one with `windows` stands for a record each, with that in the place of {w}."""
    return [{key: value.replace("{w}", w) if w else value for key, value in record.items() if key != "windows"}
            for record in source.get("record", []) for w in record.get("windows", [None])]


def recorded():
    """{a record of alerts/*.toml: the labels that its expression groups by}"""
    found = {}
    for path in sorted((ROOT / "alerts").glob("*.toml")):
        for record in records(tomllib.loads(path.read_text())):
            groups = re.findall(r"\bby\s*\(([^()]*)\)", record["expr"])
            found[record["name"]] = {part.strip() for part in ",".join(groups).split(",") if part.strip()}
    return found


def by_series(table):
    """{name of a series: (its family, its labels)}"""
    return {name: (family, set(family.labels) | more) for family in table.values() for name, more in family.series().items()}


def matchers(text):
    """[(label, operator, value)] of what stands between braces."""
    found, at, inside = [], 0, ((text or "").strip() or "{}")[1:-1]
    while at < len(inside.rstrip()):
        one = MATCHER.match(inside, at)
        assert one, f"matchers that cannot be read: {text}"
        found.append(one.groups())
        at = one.end()
    return found


def named(expression, table):
    """The families that an expression names, in order and once."""
    known = by_series(table)
    return list(dict.fromkeys(known[name][0].name for name, _ in SERIES.findall(expression) if name in known))


def problems(expression, table, recorded=None):
    """What an expression says that the catalogue does not: families, labels, values. recorded: {rule: its labels}."""
    known, recorded, usable = by_series(table), recorded or {}, set()
    for name, braces in SERIES.findall(expression):
        if name in known:
            family, labels = known[name]
        elif name in ALERT_SERIES or name in recorded or name == "up":
            family, labels = None, ALERT_SERIES.get(name) or recorded.get(name, set())
        else:
            yield f"{name} is no series of the catalogue"
            continue
        usable |= labels
        for label, operator, value in matchers(braces):
            fixed = family.labels.get(label) if family else None
            if label not in labels | TARGET_LABELS:
                yield f"{name} has no label {label}"
            elif fixed and operator == "=" and value not in fixed:
                yield f"{name}: {label} is one of {', '.join(fixed)}, not {value}"
            elif fixed and operator == "=~" and not value.startswith("$") and not any(re.fullmatch(value, one) for one in fixed):
                yield f"{name}: no {label} matches {value}"
    for group in GROUPING.findall(expression):
        for label in filter(None, (part.strip() for part in group.split(","))):
            if label not in usable | TARGET_LABELS:
                yield f"no series of the expression has the label {label}"


def narrow(expression, table, variables):
    """The expression with a matcher for each variable ({label: variable}) that a series has and does not name yet."""
    known = by_series(table)

    def one(found):
        name, braces = found[1], found[2]
        labels = set()  # records and alerts may have no instance
        if name in known or name == "up":
            labels = TARGET_LABELS | (known[name][1] if name in known else set())
        have = matchers(braces)
        said = {label for label, _, _ in have}
        more = [(label, "=~", f"${variable}") for label, variable in variables.items() if label in labels - said]
        inside = ", ".join(f'{label}{operator}"{value}"' for label, operator, value in more + have)
        return f"{name}{{{inside}}}" if inside else name

    return SERIES.sub(one, expression)
