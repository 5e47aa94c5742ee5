#!/usr/bin/env python3
"""Makes the Grafana dashboards (dashboards/*.json) and their table in docs/guide/telemetry.md from their descriptions
(dashboards/*.toml) and the catalogue of metrics.

    dashboards/make.py            says which are not what their description says
    dashboards/make.py --write    writes them

A description has rows of panels. A panel names a family, or has an expression; kind, labels, unit and help of the family say the
rest. Its members:

    kind      stat, graph, bars, table, heat, states, text
    family    the family, and `show`: rate (counters), value (gauges), share (of `of`, with the same `where`, or of the family itself
              without it), total (over the time range), quantiles, p50, p90, p99, mean (histograms)
    where     matchers of the series that are wanted; by: labels to tell apart; q: the aggregation (sum); top: only so many
    expr      instead of these: PromQL; [[row.panel.query]] for several, each with these members and `legend`
    title     the help without its full stop, if absent; note: a sentence behind the help: what to make of it
    unit      of Grafana, if the family's does not say it; warn, bad: thresholds; below: they are lower ones; map: texts for values
    link      the name of the dashboard that shows more; drill: the column of a table that has uids of dashboards
    w, h      size on a grid of 24 columns; none: what to say when there is nothing; stack, min, max: of graphs
"""
import json
import sys
import tomllib
from pathlib import Path

import catalogue

HERE = Path(__file__).resolve().parent
GUIDE = catalogue.ROOT / "docs/guide/telemetry.md"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
SIZES = {"stat": (4, 4), "graph": (12, 8), "bars": (8, 8), "table": (24, 8), "heat": (12, 9), "states": (12, 8), "text": (24, 3)}
TYPES = {"stat": "stat", "graph": "timeseries", "bars": "bargauge", "table": "table", "heat": "heatmap", "states": "state-timeline",
         "text": "text"}
COLUMNS = 24
# Labels that a person chooses by, if a family of the dashboard has them; the order is that of the page.
CHOICES = {"listener": "Listener", "route": "Route", "group": "Group", "tenant": "Tenant", "interface": "Interface"}
RATES = {"bytes": "Bps", "seconds": "short"}
LEVELS = {"bytes": "bytes", "seconds": "s", "bytes_per_second": "Bps", "": "short", "pages": "short"}
ENDINGS = {"packets": "pps", "datagrams": "pps", "segments": "pps", "requests": "reqps"}
PANEL = {"kind", "title", "note", "unit", "warn", "bad", "below", "map", "w", "h", "query", "stack", "text", "min", "max", "none", "drill", "link"}
QUERY = {"family", "show", "where", "by", "q", "top", "of", "expr", "legend", "unit"}
MODE = {"COUNTER": "rate", "GAUGE": "value", "HISTOGRAM": "quantiles"}
QUANTILES = {"p50": "0.5", "p90": "0.9", "p99": "0.99"}
RATE = "$__rate_interval"


class Bad(Exception):
    """A description that makes no dashboard."""


def brief(family):
    return family.help.split("; ")[0].split(": ")[0].rstrip(".")


def ratio(part, whole):
    """A share that is 0, and not absent, while nothing of the part has happened."""
    return f"({part} or 0 * {whole}) / ({whole} > 0)"


def ranged(kind, series, where, by, span=RATE, function="rate"):
    braces = f"{{{where}}}" if where else ""
    grouped = f" by ({', '.join(by)})" if by else ""
    return f"{kind}{grouped} ({function}({series}{braces}[{span}]))"


def quantile(q, family, where, by):
    return f"histogram_quantile({q}, {ranged('sum', family.name + '_bucket', where, ['le', *by])})"


def targets(query, table):
    """[(expression, legend)] of a query."""
    by, where = query.get("by", []), query.get("where", "")
    legend = query.get("legend") or " ".join(f"{{{{{label}}}}}" for label in by)
    if "expr" in query:
        return [(query["expr"].strip(), legend)]
    if query.get("family") not in table:
        raise Bad(f"{query.get('family')} is no family of the catalogue")
    family = table[query["family"]]
    show, how = query.get("show", MODE[family.kind]), query.get("q", "sum")
    fits = {"COUNTER": {"rate", "total", "share"}, "GAUGE": {"value", "share"}, "HISTOGRAM": {"quantiles", "mean", "rate", "total", "buckets", *QUANTILES}}
    if show not in fits[family.kind]:
        raise Bad(f"{family.name} is a {family.kind.lower()}: show is one of {', '.join(sorted(fits[family.kind]))}, not {show}")
    counted = {"COUNTER": family.name + "_total", "HISTOGRAM": family.name + "_count"}.get(family.kind)
    if show == "buckets":
        return [(ranged("sum", family.name + "_bucket", where, ["le"], RATE, "increase"), "{{le}}")]
    if show == "quantiles":
        return [(quantile(q, family, where, by), f"{name} {legend}".strip()) for name, q in QUANTILES.items()]
    if show in QUANTILES:
        made = quantile(QUANTILES[show], family, where, by)
    elif show == "mean":
        made = " / ".join(ranged("sum", family.name + end, where, by) for end in ("_sum", "_count"))
    elif show == "share" and family.kind == "COUNTER":
        whole = table[query["of"]].name + "_total" if "of" in query else counted
        made = ratio(ranged(how, counted, where, by), ranged(how, whole, where if "of" in query else "", by))
    elif show == "share":
        made = f"{how} by ({', '.join(by)}) ({family.name}{{{where}}}) / {how} by ({', '.join(by)}) ({query['of']}{{{where}}})"
    elif show == "total":
        made = ranged(how, counted, where, by, "$__range", "increase")
    elif show == "rate":
        made = ranged(how, counted, where, by)
    else:
        grouped = f" by ({', '.join(by)})" if by else ""
        made = f"{how}{grouped} ({family.name}{f'{{{where}}}' if where else ''})"
    return [(f"topk({query['top']}, {made})" if "top" in query else made, legend)]


def unit_of(query, table):
    family = table.get(query.get("family"))
    if "unit" in query or family is None:
        return query.get("unit")
    show = query.get("show", MODE[family.kind])
    if show == "share":
        return "percentunit"
    if show == "buckets":
        return LEVELS.get(family.unit, "short")
    if family.kind == "COUNTER" and show == "total":
        return "bytes" if family.unit == "bytes" else "short"
    if show == "rate":
        ending = next((unit for end, unit in ENDINGS.items() if family.name.endswith("_" + end)), "cps")
        return RATES.get(family.unit, ending) if family.kind == "COUNTER" else ending
    return LEVELS.get(family.unit, "short")


def thresholds(panel):
    """Grafana's steps. With `below`, what is less than `bad` is bad."""
    warn, bad = panel.get("warn"), panel.get("bad")
    marks = [("orange", warn), ("red", bad)]
    if panel.get("below"):
        steps, marks = [("red", None)], [("orange", bad), ("green", warn if warn is not None else bad)]
        marks = marks if warn is not None else marks[1:]
    else:
        steps = [("green", None)]
    steps += [(color, value) for color, value in marks if value is not None]
    return {"mode": "absolute", "steps": [{"color": color, "value": value} for color, value in steps]}


def mappings(panel):
    """map = {"0" = "down!", "1" = "up"}: a text that ends in ! is a bad one."""
    shown = {value: {"text": text.rstrip("!"), "color": "red" if text.endswith("!") else "green", "index": at}
             for at, (value, text) in enumerate(panel.get("map", {}).items())}
    return [{"type": "value", "options": shown}] if shown else []


def field(panel, kind, unit):
    defaults = {"unit": unit, "mappings": mappings(panel), "thresholds": thresholds(panel), "color": {"mode": "thresholds"}}
    defaults |= {name: panel[given] for given, name in (("min", "min"), ("max", "max"), ("none", "noValue")) if given in panel}
    marked = "warn" in panel or "bad" in panel
    if kind == "timeseries":
        defaults["color"] = {"mode": "palette-classic"}
        defaults.setdefault("min", 0)
        defaults["custom"] = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 30 if panel.get("stack") else 8, "showPoints": "auto",
                              "spanNulls": False, "stacking": {"mode": "normal" if panel.get("stack") else "none", "group": "A"},
                              "thresholdsStyle": {"mode": "dashed" if marked else "off"}}
    elif kind == "table" and marked:
        defaults["custom"] = {"cellOptions": {"type": "color-text"}}
    elif kind == "state-timeline":
        defaults["custom"] = {"fillOpacity": 80, "lineWidth": 0}
    return {"defaults": defaults, "overrides": []}


CARRIED = "${__url_time_range}&${__all_variables}"


def drill(column):
    """A column whose values are uids: each leads to its dashboard."""
    link = {"title": "open", "url": "/d/${__value.text}?" + CARRIED, "targetBlank": False}
    return {"matcher": {"id": "byName", "options": column}, "properties": [{"id": "links", "value": [link]}]}


REDUCE = {"calcs": ["lastNotNull"], "fields": "", "values": False}
OPTIONS = {
    "stat": {"colorMode": "value", "graphMode": "area", "justifyMode": "auto", "orientation": "auto", "textMode": "auto", "wideLayout": True,
             "percentChangeColorMode": "standard", "showPercentChange": False, "reduceOptions": REDUCE},
    "timeseries": {"legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["mean", "max", "lastNotNull"]},
                   "tooltip": {"mode": "multi", "sort": "desc"}},
    "bargauge": {"displayMode": "basic", "orientation": "horizontal", "valueMode": "color", "namePlacement": "auto", "showUnfilled": True,
                 "sizing": "auto", "minVizWidth": 8, "minVizHeight": 16, "maxVizHeight": 300, "reduceOptions": REDUCE,
                 "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []}},
    "table": {"showHeader": True, "cellHeight": "sm", "frameIndex": 0, "footer": {"show": False, "reducer": ["sum"], "countRows": False}},
    "state-timeline": {"mergeValues": True, "showValue": "auto", "alignValue": "left", "rowHeight": 0.9,
                       "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
                       "tooltip": {"mode": "single", "sort": "none"}},
}


def heatmap(unit):
    return {"calculate": False, "cellGap": 1, "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "fill": "dark-orange",
                                                       "reverse": False, "scale": "exponential"},
            "yAxis": {"unit": unit, "axisPlacement": "left", "reverse": False}, "rowsFrame": {"layout": "auto"}, "showValue": "never",
            "tooltip": {"mode": "single", "yHistogram": True, "showColorScale": False}, "legend": {"show": True},
            "exemplars": {"color": "rgba(255,0,255,0.7)"}, "filterValues": {"le": 1e-9}}


def merged(renames):
    """A table with one line for each set of labels, and a column for each query."""
    hidden = {"Time": True, "__name__": True, "job": True} | {f"Time {i}": True for i in range(1, 9)}
    return [{"id": "merge", "options": {}},
            {"id": "organize", "options": {"excludeByName": hidden, "indexByName": {}, "renameByName": renames}}]


def queries(panel, table):
    given = panel.get("query") or [{key: value for key, value in panel.items() if key in QUERY}]
    if panel["kind"] == "heat":
        given = [{**query, "show": "buckets"} for query in given]
    for query in given:
        if unknown := set(query) - QUERY:
            raise Bad(f"a query has no member {', '.join(sorted(unknown))}")
    return given


def help_of(panel, given, table):
    """What the panel's mark tells: the note, and the help of each family."""
    told = {}
    for query in given:
        for name in catalogue.named(query["expr"], table) if "expr" in query else [query["family"]]:
            told[name] = f"`{name}`: {table[name].help}"
    helps = list(told.values()) if len(told) != 1 else [table[next(iter(told))].help]
    return "\n\n".join(part for part in (panel.get("note", ""), *helps) if part)


def make_panel(panel, table, variables):
    """A panel without its number and place."""
    kind = TYPES.get(panel.get("kind"))
    if kind is None:
        raise Bad(f"kind is one of {', '.join(TYPES)}, not {panel.get('kind')}")
    if unknown := set(panel) - PANEL - QUERY:
        raise Bad(f"a panel has no member {', '.join(sorted(unknown))}")
    if kind == "text":
        return {"type": kind, "title": panel["title"], "description": panel.get("note", panel["title"]), "transparent": True,
                "options": {"mode": "markdown", "content": panel["text"], "code": {"language": "plaintext", "showLineNumbers": False,
                                                                                  "showMiniMap": False}}}
    given, made = queries(panel, table), []
    unit = panel.get("unit") or next(filter(None, (unit_of(query, table) for query in given)), None)
    for query in given:
        for expression, legend in targets(query, table):
            if wrong := list(catalogue.problems(expression, table, catalogue.recorded())):
                raise Bad("; ".join(wrong))
            made.append((catalogue.narrow(expression, table, variables), legend))
    described = help_of(panel, given, table)
    first = table.get(given[0].get("family"))
    title = panel.get("title") or (brief(first) if first else None)
    if not title or not described or not unit:
        raise Bad(f"title, description and unit are needed: {title!r}, {described!r}, {unit!r}")
    out = {"type": kind, "title": title, "description": described, "datasource": SOURCE, "targets": [],
           "fieldConfig": field(panel, kind, unit), "options": heatmap(unit) if kind == "heatmap" else OPTIONS[kind]}
    for at, (expression, legend) in enumerate(made):
        instant = kind in ("table", "bargauge") or panel.get("show") == "total"
        target = {"refId": chr(ord("A") + at), "datasource": SOURCE, "editorMode": "code", "expr": expression,
                  "legendFormat": legend or "__auto", "instant": instant, "range": not instant}
        if kind == "table":
            target["format"] = "table"
        if kind == "heatmap":
            target["format"] = "heatmap"
        if kind == "timeseries" and "histogram_quantile" in expression:
            target["exemplar"] = True
        out["targets"].append(target)
    if kind == "table":
        names = {f"Value #{target['refId']}": legend for target, (_, legend) in zip(out["targets"], made)} if len(made) > 1 else {"Value": made[0][1]}
        out["transformations"] = merged(names)
        overrides = [{"matcher": {"id": "byName", "options": legend}, "properties": [{"id": "unit", "value": unit_of(query, table)}]}
                     for query in given for _, legend in targets(query, table) if unit_of(query, table) not in (None, unit)]
        out["fieldConfig"]["overrides"] = overrides
        if panel.get("drill"):
            out["fieldConfig"]["overrides"].append(drill(panel["drill"]))
    if "link" in panel:
        out["links"] = [{"title": f"cb-{panel['link']}", "type": "link", "url": f"/d/cb-{panel['link']}?{CARRIED}", "icon": "external link", "tooltip": "",
                         "tags": [], "asDropdown": False, "targetBlank": False, "includeVars": False, "keepTime": False}]
    return out


def place(rows):
    """Numbers and places: each panel as high, then as far left as it fits below its row's title."""
    out, y, number = [], 0, 0
    for title, panels in rows:
        number += 1
        out.append({"id": number, "type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1}})
        filled = [y + 1] * COLUMNS
        for panel, (w, h) in panels:
            top, x = min((max(filled[x:x + w]), x) for x in range(COLUMNS - w + 1))
            number += 1
            out.append({"id": number, **panel, "gridPos": {"x": x, "y": top, "w": w, "h": h}})
            filled[x:x + w] = [top + h] * w
        y = max(filled)
    return out


def firing(uid):
    """The first row of each dashboard: its alerts and since when."""
    which = f'{{alertstate="firing", dashboard="{uid}"}}' if uid != "cb-health" else '{alertstate="firing", dashboard=~"cb-.*"}'
    since = which.replace('alertstate="firing", ', "")
    return {"kind": "table", "title": "Alerts that fire, and since when", "unit": "dateTimeFromNow", "w": 12, "h": 8, "legend": "since", "none": "Nothing fires", "drill": "dashboard",
            "note": "Alerts of alerts/*.rules.yml that belong to this dashboard. What each means and what to do is in docs/guide/alerts.md.",
            "expr": f"1000 * ALERTS_FOR_STATE{since} and ignoring (alertstate) ALERTS{which}"}


def choice(label, title, source, multi=True):
    every = {} if label == "instance" else {"allValue": ".*"}
    return {"name": label, "label": title, "type": "query", "datasource": SOURCE,
            "query": {"query": f"label_values({source}, {label})", "refId": label}, "refresh": 2, "sort": 1, "multi": multi,
            "includeAll": True, **every, "current": {"selected": True, "text": ["All"], "value": ["$__all"]}, "hide": 0, "regex": "",
            "skipUrlSync": False, "options": []}


def variables_of(description, table):
    """{label: title} of what a person can choose by, and from which series the values come."""
    names = []
    for row in description["row"]:
        for panel in row["panel"]:
            for query in panel.get("query") or [panel]:
                names += catalogue.named(query["expr"], table) if "expr" in query else [query.get("family")]
    found = {}
    for label in CHOICES:
        owner = next((table[name] for name in names if name in table and label in table[name].labels), None)
        if owner is not None:
            narrowed = catalogue.narrow(next(iter(owner.series())), table, {"instance": "instance"})
            found[label] = narrowed
    return found


def annotation(name, expression, color, title, **more):
    return {"name": name, "datasource": SOURCE, "enable": True, "hide": False, "iconColor": color,
            "target": {"refId": "Anno", "expr": expression}, "titleFormat": title, "textFormat": "", "tagKeys": "", "step": "", "useValueForTime": False, **more}


def sizes_in(panels):
    """Three graphs side by side where that leaves no gap; and first signs in two lines beside the alerts."""
    kinds = [panel.get("kind") for panel in panels]
    graphs, signs = kinds.count("graph"), kinds.count("stat")
    return SIZES | ({"graph": (8, 8)} if graphs and graphs % 3 == 0 and "heat" not in kinds else {}) | ({"stat": (3, 4)} if signs > 6 else {})


def dashboard(name, description, table):
    """The whole of Grafana's model for a description."""
    uid = f"cb-{name}"
    choices = variables_of(description, table)
    narrow = {"instance": "instance", **{label: label for label in choices}}
    rows = []
    for at, row in enumerate(description["row"]):
        panels = ([firing(uid)] if at == 0 else []) + row["panel"]
        made, sizes = [], sizes_in(panels)
        for panel in panels:
            try:
                size = sizes.get(panel.get("kind"), (0, 0))
                made.append((make_panel(panel, table, narrow), (panel.get("w", size[0]), panel.get("h", size[1]))))
            except Bad as wrong:
                raise Bad(f"{name}.toml: row {row['title']}, {panel.get('title') or panel.get('family')}: {wrong}") from None
        rows.append((row["title"], made))
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1, "hide": 0, "regex": "",
              "multi": False, "includeAll": False, "options": [], "skipUrlSync": False}
    listed = [source, choice("instance", "Instance", "cb_build_info")]
    listed += [choice(label, CHOICES[label], from_) for label, from_ in choices.items()]
    return {
        "uid": uid, "title": f"libcb / {description['title']}", "description": description["question"], "tags": ["libcb"],
        "schemaVersion": 39, "version": 1, "id": None, "editable": True, "graphTooltip": 1, "refresh": "30s", "timezone": "browser",
        "fiscalYearStartMonth": 0, "weekStart": "", "liveNow": False, "time": {"from": "now-1h", "to": "now"}, "timepicker": {},
        "annotations": {"list": [
            annotation("Alerts", f'ALERTS{{alertstate="firing", dashboard="{uid}"}}', "red", "{{alertname}} {{instance}}"),
            annotation("Starts", '1000 * process_start_time_seconds{instance=~"$instance"}', "blue", "{{instance}} started", useValueForTime=True)]},
        "links": [{"type": "dashboards", "title": "libcb", "tags": ["libcb"], "asDropdown": True, "includeVars": True, "keepTime": True,
                   "targetBlank": False, "icon": "external link", "tooltip": "", "url": ""}],
        "templating": {"list": listed}, "panels": place(rows)}


def descriptions():
    return {path.stem: tomllib.loads(path.read_text()) for path in sorted(HERE.glob("*.toml"))}


def text(made):
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def guide():
    """The guide with the table of dashboards as it should be."""
    told = GUIDE.read_text()
    head = "| dashboard | question |\n|---|---|\n"
    before, after = told.split(head)
    lines = "".join(f"| {one['title']} (`cb-{name}`) | {one['question']} |\n" for name, one in descriptions().items())
    return before + head + lines + "\n" + after[after.index("\n\n") + 2:]


def outputs():
    """{file: its text}"""
    table = catalogue.families()
    return {GUIDE: guide()} | {HERE / f"{name}.json": text(dashboard(name, description, table)) for name, description in descriptions().items()}


def stale():
    """What is not as it should be, as sentences."""
    try:
        wanted = outputs()
    except Bad as bad:
        return [str(bad)]
    return [f"{path.relative_to(catalogue.ROOT)} is not what the descriptions say: dashboards/make.py --write" for path, made in wanted.items()
            if not path.is_file() or path.read_text() != made] + [
            f"dashboards/{path.name} has no description" for path in HERE.glob("*.json") if path not in wanted]


def write():
    try:
        for path, made in outputs().items():
            path.write_text(made)
    except Bad as bad:
        return [str(bad)]
    return []


def main():
    wrong = write() if "--write" in sys.argv else stale()
    print("\n".join(wrong), end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
