"""Prometheus' rules and Grafana's dashboard: well-formed, complete, and each alert tried."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.monitoring import (
    FOLDER,
    dashboard,
    expressions,
    panels,
    promtool,
    rules,
    wrong_in,
)

ALERTS = [rule for rule in rules() if "alert" in rule]
TESTS = FOLDER / "prometheus" / "rules_test.yml"


def run(*arguments: str | Path) -> str:
    done = subprocess.run(
        [promtool(), *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_the_configuration_and_the_rules() -> None:
    assert f"{len(rules())} rules found" in run("check", "config", FOLDER / "prometheus" / "prometheus.yml")


def test_each_alert_fires_when_it_should_and_not_beside_it() -> None:
    assert "SUCCESS" in run("test", "rules", TESTS)
    tests = yaml.safe_load(TESTS.read_text())["tests"]
    tried = set()
    for case in tests:
        (query,) = case["promql_expr_test"]
        alert = re.findall(r'alertname="(\w+)"', query["expr"])[0]
        assert any('instance="bad"' in sample["labels"] for sample in query["exp_samples"])
        assert any("good" in series["series"] for series in case["input_series"]), case["name"]
        tried.add(alert)
    assert tried == {rule["alert"] for rule in ALERTS}


def test_prometheus_takes_every_query_of_the_dashboard(tmp_path: Path) -> None:
    asked = [{"record": f"panel:{number}", "expr": query} for number, (_, query) in enumerate(expressions())]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": asked}]}))
    assert f"{len(asked)} rules found" in run("check", "rules", file)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: str(rule["alert"]))
def test_an_alert_has_severity_meaning_and_remedy(rule: dict[str, dict[str, str]]) -> None:
    assert rule["labels"]["severity"] in {"page", "ticket", "info"}
    assert rule["annotations"].keys() == {"summary", "description"}
    assert re.search(r"\{\{ \$labels\.\w+ \}\}", rule["annotations"]["summary"])
    assert len(rule["annotations"]["description"]) > 80


def test_the_dashboards_panels_are_distinct_placed_and_queried() -> None:
    document = dashboard()
    everything = document["panels"]
    ids = [panel["id"] for panel in everything]
    assert len(ids) == len(set(ids))
    titles = [panel["title"] for panel in everything]
    assert len(titles) == len(set(titles))
    cells: set[tuple[int, int]] = set()
    for panel in everything:
        place = panel["gridPos"]
        assert 0 <= place["x"] <= 24 - place["w"], panel["title"]
        covered = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not covered & cells, panel["title"]
        cells |= covered
    for panel in panels():
        assert panel["targets"], panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(references) == len(set(references))
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all(target["expr"].strip() for target in panel["targets"])


def test_the_dashboards_variables_exist_and_all_of_them_are_used() -> None:
    document = dashboard()
    variables = {variable["name"]: variable for variable in document["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    queries = " ".join(target["expr"] for panel in panels() for target in panel["targets"])
    used = set(re.findall(r"\$\{?(\w+)", queries)) - {"__rate_interval"}
    assert used | {"datasource"} == set(variables)


def test_grafana_is_provisioned_with_the_data_source_and_of_the_dashboards_folder() -> None:
    provisioning = FOLDER / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert (source["type"], source["access"], source["isDefault"]) == ("prometheus", "proxy", True)
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "tritonflare.yml").read_text())["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"].startswith("/")


def test_a_query_about_a_metric_that_does_not_exist_would_be_noticed() -> None:
    known = {"tritonflare_ready": {"model"}}
    assert wrong_in("max by (instance) (tritonflare_ready)", known) == []
    assert wrong_in("tritonflare_raedy == 0", known) == ["tritonflare_raedy"]
    assert wrong_in('tritonflare_ready{modle="x"}', known) == ["tritonflare_ready has no label modle"]
    assert wrong_in("sum by (code) (tritonflare_ready)", known) == ["nothing has a label code"]
    assert wrong_in("vector(1)", known) == ["no metric at all"]
