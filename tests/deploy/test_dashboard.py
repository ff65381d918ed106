"""Grafana's dashboard: it matches ``panels.py``, in a form that Grafana can show."""

import json
import re

from tests.support.deployment import DEPLOY, documents, panels, services
from tests.support.processes import REPOSITORY

GRAFANA = DEPLOY / "grafana"
COLUMNS = 24


def dashboard():
    return json.loads((GRAFANA / "dashboards" / "dspyq.json").read_text())


def cells(panel):
    place = panel["gridPos"]
    return {
        (x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])
    }


def test_the_dashboard_file_matches_its_panels(monkeypatch):
    monkeypatch.syspath_prepend(GRAFANA)
    import dashboard as writer

    assert dashboard() == writer.dashboard(), "run python deploy/grafana/dashboard.py"


def test_every_panel_has_a_question_a_source_and_something_to_show():
    for panel in panels():
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]
        for query in panel["targets"]:
            assert query["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert query["expr"].strip(), panel["title"]
        assert len({query["refId"] for query in panel["targets"]}) == len(panel["targets"])


def test_panels_have_names_and_numbers_of_their_own():
    titles = [panel["title"] for panel in panels()]
    assert len(set(titles)) == len(titles)
    numbers = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_no_panel_lies_over_another_or_beyond_the_edge():
    taken = set()
    for panel in dashboard()["panels"]:
        mine = cells(panel)
        assert not mine & taken, panel["title"]
        assert max(x for x, _ in mine) < COLUMNS, panel["title"]
        taken |= mine


def test_expressions_use_only_variables_that_there_are():
    stated = {variable["name"] for variable in dashboard()["templating"]["list"]} | {"__rate_interval"}
    for panel in panels():
        for query in panel["targets"]:
            assert set(re.findall(r"\$(\w+)", query["expr"])) <= stated, query["expr"]


def test_what_is_the_same_on_every_worker_is_not_summed_over_workers():
    fleet = (
        r"dspy_(circuit_breaker_open|budget_\w+_usd|cache_(hits_total|misses_total|size_bytes|entries)"
        r"|cost_avoided_usd_total|variant_(answers|cost_usd)_total|queue_(jobs|waiting_jobs|oldest_job_age_seconds)|dead_jobs"
        r"|experiment_\w+|lane_(lines|shipments|held_usd|unpaid_rows|oldest_shipment_seconds|repeated_failures|unattended))\b"
    )
    for panel in panels():
        for query in panel["targets"]:
            for found in re.finditer(fleet, query["expr"]):
                before = query["expr"][: found.start()]
                assert re.search(r"max(?: by \([\w, ]+\))? \(?(rate\()?$|max\((rate\()?$", before), query["expr"]


def test_grafana_is_provisioned_with_the_dashboard_and_prometheus():
    (provider,) = next(documents(GRAFANA / "provisioning" / "dashboards" / "dspyq.yml"))["providers"]
    (source,) = next(documents(GRAFANA / "provisioning" / "datasources" / "prometheus.yml"))["datasources"]
    mounted = {volume["target"]: volume["source"] for volume in services()["grafana"]["volumes"]}
    assert mounted[provider["options"]["path"]] == str(GRAFANA / "dashboards")
    assert mounted["/etc/grafana/provisioning"] == str(GRAFANA / "provisioning")
    assert source["url"] == "http://prometheus:9090"
    (configuration,) = documents(DEPLOY / "prometheus" / "prometheus.yml")
    assert source["jsonData"]["timeInterval"] == configuration["global"]["scrape_interval"]


def test_the_docs_describe_each_panel():
    docs = (REPOSITORY / "docs" / "dashboards.md").read_text()
    for panel in panels():
        assert f"| {panel['title']} | {panel['description']} |" in docs, panel["title"]
