"""Reads what is provisioned for Prometheus and Grafana, and what a server exports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.programs import required

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker" / "monitoring"
RULES = FOLDER / "prometheus" / "rules.yml"
DASHBOARD = FOLDER / "grafana" / "dashboards" / "tritonflare.json"
DOCUMENT = ROOT / "docs" / "observability.md"

OPTIONAL = {"tritonflare_rate_store_failures_total": {"instance"}}
"""Exported where rates are counted in Redis."""
DOCUMENTED_GPU = {
    name: {"gpu_uuid"}
    for name in (
        "nv_gpu_utilization",
        "nv_gpu_memory_used_bytes",
        "nv_gpu_memory_total_bytes",
        "nv_gpu_power_usage",
        "nv_gpu_power_limit",
        "nv_energy_consumption",
    )
}
"""Of Triton's documentation and program: there is no GPU here to see them."""
PROMETHEUS = {"up": set[str](), "ALERTS": {"alertname", "alertstate"}}
"""Prometheus' own."""
ADDED = {"instance", "job"}
"""Labels that Prometheus adds to what it scrapes."""

_NAME = re.compile(r"\b(?:tritonflare|process|nv)[_:][a-z0-9_:]+|\b(?:up|ALERTS)\b")
_MATCHERS = re.compile(rf"({_NAME.pattern})\{{([^}}]*)\}}")
_GROUPING = re.compile(r"\b(?:by|without) \(([^)]*)\)")
_OF_PROMETHEUS = {"le", "alertname"}


@dataclass(frozen=True)
class Family:
    """A metric as a page describes it."""

    kind: str
    labels: frozenset[str]


@dataclass
class Page:
    """What one server exports."""

    families: dict[str, Family] = field(default_factory=dict)
    samples: dict[str, set[str]] = field(default_factory=dict)
    """The labels of each name that a query can use."""


def read_page(text: str) -> Page:
    """Read the text form of metrics; a counter is called as its samples are."""
    page = Page()
    for family in text_string_to_metric_families(text):
        if family.name.endswith("_created"):
            continue  # when a series began: the client library adds one to each counter and histogram
        name = family.name + "_total" if family.type == "counter" else family.name
        labels = frozenset(label for sample in family.samples for label in sample.labels if label != "le")
        page.families[name] = Family(family.type, labels)
        for sample in family.samples:
            # The parser gives every counter a name with _total; Triton's have none.
            name = sample.name if f"\n{sample.name}" in text else sample.name.removesuffix("_total")
            page.samples.setdefault(name, set()).update(sample.labels)
    return page


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """Everything that asks Prometheus: where it stands, and the query without Grafana's variables."""
    for rule in rules():
        yield rule.get("alert") or rule["record"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield f"panel {panel['title']} {target['refId']}", plain(target["expr"])
    for annotation in dashboard()["annotations"]["list"]:
        yield f"annotation {annotation['name']}", plain(annotation["expr"])


def plain(query: str) -> str:
    """Put values in the place of Grafana's variables."""
    query = query.replace("$__rate_interval", "5m")
    return re.sub(r"\$\w+", ".*", query)


def names_in(query: str) -> set[str]:
    return set(_NAME.findall(query))


def wrong_in(query: str, known: dict[str, set[str]]) -> list[str]:
    """Say which names and labels of a query are not known."""
    names = names_in(query)
    wrong = [name for name in names if name not in known] or ([] if names else ["no metric at all"])
    labels = set().union(ADDED, _OF_PROMETHEUS, *(known.get(name, set()) for name in names))
    for name, matchers in _MATCHERS.findall(query):
        of_name = ADDED | known.get(name, set())
        used = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', '""', matchers))
        wrong += [f"{name} has no label {label}" for label in used if label not in of_name]
    for grouping in _GROUPING.findall(query):
        wrong += [
            f"nothing has a label {label}" for label in re.findall(r"\w+", grouping) if label not in labels
        ]
    return wrong


def recorded() -> dict[str, set[str]]:
    """What the rules record."""
    return {rule["record"]: {"instance"} for rule in rules() if "record" in rule}


def promtool() -> str:
    """Find promtool; skip without it, and fail where CI runs."""
    return required("promtool", "promtool is not installed (Debian: apt-get install prometheus)")
