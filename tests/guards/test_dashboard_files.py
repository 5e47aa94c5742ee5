"""dashboards/*.json are what their descriptions and the catalogue say, and Grafana can take them: numbers and places that do not
clash, a data source to choose, a unit and a description on each panel. `dashboards/make.py --write` writes them anew."""
import copy
import json
import re
import sys

import guard

sys.path.insert(0, str(guard.ROOT / "dashboards"))
import catalogue  # noqa: E402
import make  # noqa: E402

TOPICS = {"topology", "performance", "ddos", "health", "resources", "bgp", "identity", "geography", "tenants", "traffic", "latency", "errors"}


def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def overlaps(dashboard):
    """Pairs of panels that share a field of the grid, and those that stand beside it."""
    taken = {}
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        if at["x"] < 0 or at["x"] + at["w"] > 24 or at["w"] < 1 or at["h"] < 1:
            yield f"panel {panel['id']} stands beside the grid"
        for field in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            if field in taken:
                yield f"panels {taken[field]} and {panel['id']} overlap"
                break
            taken[field] = panel["id"]


def panel_mistakes(panel, variables):
    if not panel.get("title") or not panel.get("description"):
        yield "it needs a title and a description"
    if panel["type"] == "text":
        return
    if not panel["fieldConfig"]["defaults"].get("unit"):
        yield "it has no unit"
    if panel.get("datasource", {}).get("uid") != "${datasource}":
        yield "its data source is not the chosen one"
    references = [target["refId"] for target in panel["targets"]]
    if not references or len(set(references)) != len(references):
        yield "its queries need names of their own"
    for target in panel["targets"]:
        used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval", "__range", "__interval"}
        if used - variables:
            yield f"it uses {', '.join(sorted(used - variables))}, which is no variable"
        if target["datasource"].get("uid") != "${datasource}":
            yield "a query has another data source"


def mistakes(dashboard):
    """What is wrong with a dashboard as Grafana sees it."""
    title = dashboard["title"]
    numbers = [panel["id"] for panel in dashboard["panels"]]
    variables = {one["name"]: one for one in dashboard["templating"]["list"]}
    if len(set(numbers)) != len(numbers):
        yield f"{title}: panels with the same number"
    if not re.fullmatch(r"cb-[a-z]{2,30}", dashboard["uid"]):
        yield f"{title}: the uid {dashboard['uid']} is not stable or too long"
    if variables.get("datasource", {}).get("type") != "datasource" or "instance" not in variables:
        yield f"{title}: needs the variables datasource and instance"
    yield from (f"{title}: {wrong}" for wrong in overlaps(dashboard))
    for panel in panels(dashboard):
        yield from (f"{title}: {panel.get('title')}: {wrong}" for wrong in panel_mistakes(panel, set(variables)))


def made():
    return {path.stem: json.loads(path.read_text()) for path in sorted((guard.ROOT / "dashboards").glob("*.json"))}


def test_dashboards_are_current():
    guard.report(make.stale())


def test_grafana_can_take_them():
    dashboards = made()
    uids = [dashboard["uid"] for dashboard in dashboards.values()]
    assert len(set(uids)) == len(uids), "two dashboards have one uid"
    guard.report([wrong for dashboard in dashboards.values() for wrong in mistakes(dashboard)])


def test_every_topic_has_a_dashboard():
    assert not TOPICS - set(made()), f"no dashboard for {', '.join(sorted(TOPICS - set(made())))}"


def test_queries_name_what_exists():
    table = catalogue.families()
    guard.report([f"{name}: {panel['title']}: {wrong}" for name, dashboard in made().items() for panel in panels(dashboard)
                  for target in panel.get("targets", []) for wrong in catalogue.problems(target["expr"], table, catalogue.recorded())])


def test_guard_sees_bad_dashboards():
    good = made()["ddos"]
    assert not list(mistakes(good))

    def broken(change):
        dashboard = copy.deepcopy(good)
        change(dashboard, panels(dashboard))
        return list(mistakes(dashboard))

    assert broken(lambda d, p: d.update(uid="x"))
    assert broken(lambda d, p: p[1].update(id=p[0]["id"]))
    assert broken(lambda d, p: p[2]["gridPos"].update(p[1]["gridPos"]))
    assert broken(lambda d, p: p[1]["gridPos"].update(x=23))
    assert broken(lambda d, p: p[1].update(description=""))
    assert broken(lambda d, p: p[1]["fieldConfig"]["defaults"].pop("unit"))
    assert broken(lambda d, p: p[1].update(datasource={"type": "prometheus", "uid": "mine"}))
    assert broken(lambda d, p: p[1]["targets"][0].update(expr='x{a="$nothing"}'))
    assert broken(lambda d, p: d["templating"]["list"].pop(0))


def test_guard_sees_bad_expressions():
    table = catalogue.families('X(A, kernel, COUNTER, "cb_a", "", 0, "version=4|6", "A.")\nX(B, kernel, HISTOGRAM, "cb_b_seconds", "seconds", 9, "route", "B.")')
    for good in ('rate(cb_a_total{version="4"}[5m])', "sum by (version, instance) (cb_a_total)", 'sum by (le, route) (cb_b_seconds_bucket{le="1"})',
                 'cb_a_total{version=~"$x", instance="{}"}', 'ALERTS{alertname="X"}'):
        assert not list(catalogue.problems(good, table)), good
    for bad in ("cb_a", "rate(cb_c_total[5m])", "cb_b_seconds", 'cb_a_total{route="x"}', 'cb_a_total{version="5"}', "sum by (tenant) (cb_a_total)",
                'cb_a_total{version=~"5|7"}'):
        assert list(catalogue.problems(bad, table)), bad
    assert catalogue.narrow('cb_a_total + cb_b_seconds_count{route="/x"}', table, {"instance": "instance", "route": "route"}) == (
        'cb_a_total{instance=~"$instance"} + cb_b_seconds_count{instance=~"$instance", route="/x"}')
    assert catalogue.narrow("slo:errors:budget", table, {"instance": "instance"}) == "slo:errors:budget", "a record has no instance"


if __name__ == "__main__":
    guard.main(globals())
