"""What the inventory lists, and when an audit fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from tools.inventory import LOCK, as_shipped, pinned, verdict


def part(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "bom-ref": f"{name}==1", "version": "1", **more}


def test_the_lock_file_names_what_is_served() -> None:
    names = pinned(LOCK.read_text())
    assert {"grpcio", "nvidia-pytriton", "prometheus-client"} <= names
    assert "pytest" not in names


def test_only_what_is_served_is_listed_with_triton_and_the_weights() -> None:
    found = {
        "components": [part("Prometheus_Client"), part("pytest")],
        "dependencies": [
            {"ref": "Prometheus_Client==1", "dependsOn": ["pytest==1"]},
            {"ref": "pytest==1"},
        ],
    }
    document = as_shipped(found, {"prometheus-client"})
    names = [component["name"] for component in document["components"]]
    assert names == ["Prometheus_Client", "tritonserver", "minilm-sst2", "minilm-rerank"]
    assert document["dependencies"] == [{"ref": "Prometheus_Client==1", "dependsOn": []}]


@pytest.mark.parametrize("leak", ["file:///srv/x", "http://localhost:3141/simple", str(Path.cwd()) + "/x"])
def test_no_path_and_no_address_of_this_machine_gets_into_the_inventory(leak: str) -> None:
    found = {"components": [part("grpcio", externalReferences=[{"url": leak}])]}
    with pytest.raises(click.ClickException, match="paths or addresses"):
        as_shipped(found, {"grpcio"})


def test_an_audit_without_a_source_of_advisories_has_failed() -> None:
    skipped = [{"name": "a", "skip_reason": "not found"}, {"name": "b", "skip_reason": "not found"}]
    told, failed = verdict(skipped)
    assert failed
    assert told.startswith("Nothing was checked")


def test_an_audit_names_vulnerable_and_unchecked_packages() -> None:
    vulnerable = {"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}
    fine = {"name": "b", "version": "1", "vulns": []}
    unknown = {"name": "c", "skip_reason": "not found"}
    assert verdict([vulnerable, fine]) == ("a 1: PYSEC-1, mended in 2", True)
    assert verdict([fine]) == ("No known vulnerability in 1 packages.", False)
    told, failed = verdict([fine, unknown])
    assert failed
    assert told.endswith(": c")
