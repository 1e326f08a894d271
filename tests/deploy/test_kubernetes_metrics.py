"""What the autoscalers ask for: the adapter makes it, of metrics that the gateway and Triton export."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import pytest

from export.spec import LAYOUTS
from gateway.telemetry.gauges import IN_FLIGHT, READY
from gateway.telemetry.metrics import Metrics
from tests.export.golden_configs import CPU
from tests.support.deploy.manifests import VARIANTS, of_kind, read, render
from tests.support.deploy.promql import metrics

TRITON = {"nv_inference_queue_duration_us", "nv_inference_compute_infer_duration_us"}
"""test_kubernetes_triton.py sees a real tritonserver export them."""
LABELS = 'namespace="tritonflare",pod=~"one|two"'


def of_gateway() -> set[str]:
    metrics_of_gateway = Metrics()
    metrics_of_gateway.register_gauges({IN_FLIGHT: lambda: 0, READY: lambda: 1})
    exported = metrics_of_gateway.render().decode()
    return exported_names(exported)


def exported_names(text: str) -> set[str]:
    """Names in the text format, as Prometheus keeps them."""
    return set(re.findall(r"^(\w+)[{ ]", text, re.MULTILINE))


def rules(kind: str) -> dict[str, Any]:
    return {rule["name"]["as"]: rule for rule in read("prometheus/adapter.yaml")["rules"][kind]}


def queries(rule: Any) -> Iterator[str]:
    """What the adapter asks Prometheus, its templates filled in."""
    series = rule["seriesQuery"].partition("{")[0]
    group = ",".join(rule["resources"]["overrides"])
    yield rule["seriesQuery"]
    yield (
        rule["metricsQuery"]
        .replace("<<.Series>>", series)
        .replace("<<.LabelMatchers>>", LABELS)
        .replace("<<.GroupBy>>", group)
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_adapter_makes_every_metric_that_is_scaled_on(variant: str) -> None:
    asked: dict[str, set[str]] = {"Pods": set(), "External": set(), "Resource": set()}
    for scaler in of_kind(render(variant), "HorizontalPodAutoscaler"):
        for metric in scaler["spec"]["metrics"]:
            kind = metric["type"]
            source = metric[kind.lower()]
            asked[kind].add(source["name"] if kind == "Resource" else source["metric"]["name"])
    assert asked["Pods"] <= set(rules("custom"))
    assert asked["External"] <= set(rules("external"))
    assert asked["Resource"] <= {"cpu"}


def test_the_adapter_makes_no_metric_without_a_use() -> None:
    asked = {
        source["metric"]["name"]
        for variant in VARIANTS
        for scaler in of_kind(render(variant), "HorizontalPodAutoscaler")
        for metric in scaler["spec"]["metrics"]
        if "metric" in (source := metric[metric["type"].lower()])
    }
    assert asked == {*rules("custom"), *rules("external")}


@pytest.mark.parametrize("kind", ["custom", "external"])
def test_the_adapter_asks_for_metrics_that_exist(kind: str) -> None:
    for rule in rules(kind).values():
        for query in queries(rule):
            assert "<<" not in query
            found = metrics(query)
            assert found
            assert found <= of_gateway() | TRITON, query


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_ratio_is_that_of_the_step_with_the_encoder(layout: str) -> None:
    model = dataclasses.replace(CPU, layout=layout)
    query = rules("custom")["triton_queue_to_compute_ratio"]["metricsQuery"]
    patterns = re.findall('model=~"(.+?)"', query)
    assert len(patterns) == 2  # queue and compute
    for pattern in patterns:
        # Prometheus matches whole names, as fullmatch does.
        chosen = {
            name for name in (model.ensemble, model.tokenizer, model.encoder) if re.fullmatch(pattern, name)
        }
        assert chosen == {model.encoder}


def test_what_is_no_promql_or_another_name_is_found_out() -> None:
    with pytest.raises(ValueError, match="unclosed left parenthesis"):
        metrics("sum(rate(a[1m])")
    assert metrics("sum(rate(a[1m])) by (pod) / on() (b > 2) or absent(c)") == {"a", "b", "c"}


def test_pods_are_weighed_each_by_itself() -> None:
    for rule in rules("custom").values():
        assert re.search(r"by \(<<\.GroupBy>>\)", rule["metricsQuery"])
        assert {"namespace", "pod"} == set(rule["resources"]["overrides"])
