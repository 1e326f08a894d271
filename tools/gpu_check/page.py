"""The findings as one JSON document, and the same as a page of Markdown for docs/measurements.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loadtest.tables import markdown_table
from tools.gpu_check.grid import BUDGET, HTTP, IN_PROCESS, NULL, SENTENCES
from tools.gpu_check.job import PASSED, SKIPPED

FORMAT = 1
_ON_CPU = (
    "Everything that needs a GPU. ONNX Runtime's CPU provider computed what its CUDA provider is for, so "
    "that no figure tells how fast or how exact a GPU is; memory that runs out was simulated."
)
_CHARACTERS = 300
Row = Mapping[str, Any]


def as_document(
    device: str, short: bool, seconds: float, measured_at: str, results: Sequence[Row]
) -> dict[str, Any]:
    """What ``gpu-check.json`` holds.

    Args:
        device: ``cuda`` or ``cpu``.
        short: whether few texts and loads were tried.
        seconds: what everything took.
        measured_at: the day.
        results: of `runner.run_checks`.
    """
    machine = next(
        (result["figures"].get("machine") for result in results if result["name"] == "doctor"), None
    )
    document = {
        "format": FORMAT,
        "device": device,
        "short": short,
        "seconds": round(seconds, 1),
        "measured_at": measured_at,
        "machine": machine or {},
        "checks": list(results),
    }
    return document | {"not_proven": list(_not_proven(document))}


def failed(document: Row) -> list[str]:
    """The titles of the checks that neither passed nor were skipped."""
    return [each["title"] for each in document["checks"] if each["status"] not in (PASSED, SKIPPED)]


def _not_proven(document: Row) -> Iterable[str]:
    """A sentence for each thing that a reader may expect, and that this run does not show."""
    on_gpu = document["device"] == "cuda"
    if not on_gpu:
        yield _ON_CPU
    if document["short"]:
        yield "Behaviour under heavy load: a short run asks few texts over few connections."
    for check in document["checks"]:
        if check["status"] != PASSED:
            yield f"{check['title']} ({check['status']}): {_shorten(check['found'])}"
        if left_out := len(check["left_out"]):
            yield f"{check['title']}: {left_out} left out; gpu-check.json says which, and why."
    gpus = len(document["machine"].get("gpus", ()))
    if on_gpu and not gpus:
        yield "Utilisation, memory and power of the GPU: NVML told nothing."
    if gpus == 1:
        yield "Several GPUs: there is one here."
    if any(check["name"] == "plan" and check["status"] == PASSED for check in document["checks"]):
        yield "Answers of the TensorRT plan: it was built, not asked."


def _shorten(words: str) -> str:
    line = " ".join(words.split())
    return line if len(line) <= _CHARACTERS else line[: _CHARACTERS - 1] + "…"


def as_markdown(document: Row) -> str:
    """The page; its headings begin at the second level."""
    gpus = document["machine"].get("gpus", [])
    title = ", ".join(gpu["name"] for gpu in gpus) or "no GPU was found"
    if document["device"] == "cpu":
        title = "a run on the CPU"
    parts = [f"## GPU check: {title}", _about(document), _checks(document), "**Not proven by this run**"]
    parts.append("\n".join(f"- {sentence}" for sentence in document["not_proven"]) or "- Nothing is missing.")
    by_name = {check["name"]: check for check in document["checks"]}
    for name, shown in _SECTIONS:
        check = by_name.get(name)
        if check is not None and (check["rows"] or (name in _WITHOUT_ROWS and check["figures"])):
            parts += [f"### {check['title']}", shown(check)]
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def _about(document: Row) -> str:
    machine = document["machine"]
    command = f"make gpu-check DEVICE={document['device']}" + (" ARGS=--short" if document["short"] else "")
    lines = [f"`{command}` on {document['measured_at']}, {document['seconds']:.0f} s."]
    if machine:
        facts = [f"{machine['cores']} cores of {machine['cpu']}", f"Python {machine['python']}"]
        facts += [f"ONNX Runtime {machine['onnxruntime']}"]
        if machine.get("driver"):
            facts.append(f"driver {machine['driver']}")
        facts += [f"{gpu['name']} with {gpu['memory_mb']:,} MB" for gpu in machine.get("gpus", ())]
        packages = machine["packages"].items()
        shown = [
            (name, version) for name, version in packages if name.lower().startswith(("nvidia-", "tensorrt"))
        ]
        facts += [f"{name} {version}" for name, version in shown]
        lines.append("; ".join(facts) + ".")
    return "\n".join(lines)


def _checks(document: Row) -> str:
    return markdown_table(
        ("check", "result", "what was found", "seconds"),
        (
            (each["title"], each["status"], _shorten(each["found"]), f"{each['seconds']:.0f}")
            for each in document["checks"]
        ),
        texts=3,
    )


def _number(row: Row, key: str, form: str = ",.0f", unit: float = 1.0) -> str:
    value = row.get(key)
    return "" if value is None else format(value * unit, form)


def _doctor(check: Row) -> str:
    rows = ((row["what"], row["found"], "ok" if row["ok"] else "to be remedied") for row in check["rows"])
    return markdown_table(("requirement", "found", ""), rows, texts=3)


def _operators(check: Row) -> str:
    rows = (
        (
            row["precision"].upper(),
            row["provider"],
            ", ".join(f"{count} {name}" for name, count in row["operators"].items()),
            str(row["nodes"]),
        )
        for row in check["rows"]
    )
    table = markdown_table(("precision", "provider", "operators", "nodes"), rows, texts=3)
    speeds = (
        f"{name.rpartition('_')[2].replace('x', ' × ')} tokens: {speed:.2f}"
        for name, speed in check["figures"].items()
    )
    # On a CPU it is of one run, of one core.
    shown = "; ".join(speeds) if any(row["provider"].startswith("CUDA") for row in check["rows"]) else ""
    return table + (f"\nSpeed with lengths in the place of the mask, FP16, {shown}.\n" if shown else "")


def _gate(check: Row) -> str:
    rows = (
        (row["artefact"], row["check"], row["found"], row["allowed"], "passed" if row["passed"] else "FAILED")
        for row in check["rows"]
    )
    return markdown_table(("artefact", "limit", "found", "allowed", ""), rows, texts=5)


def _golden(check: Row) -> str:
    rows = (
        (
            row["precision"].upper(),
            f"{row['same_label']} of {row['texts']}",
            f"{row['largest_shift']:.1e}",
            f"{row['p99_shift']:.1e}",
            f"{row['p99_limit']:g}",
        )
        for row in check["rows"]
    )
    return markdown_table(
        ("precision", "labels as PyTorch's", "largest difference", "99th percentile", "allowed"), rows
    )


def _invariance(check: Row) -> str:
    rows = (
        (
            row["precision"].upper(),
            f"{row['answers']:,}",
            ", ".join(map(str, row["connections"])),
            f"{row['largest']:.1e}",
            f"{row['limit']:g}",
        )
        for row in check["rows"]
    )
    return markdown_table(
        ("precision", "answers compared", "connections", "largest difference", "allowed"), rows
    )


def _figures(check: Row) -> str:
    """Two columns; lists and tables of figures stay in the JSON."""
    rows = (
        (name.replace("_", " "), " ".join(f"{key}: {count}" for key, count in value.items()))
        if isinstance(value, dict)
        else (name.replace("_", " "), f"{value:g}" if isinstance(value, float) else str(value))
        for name, value in check["figures"].items()
    )
    return markdown_table(("figure", "value"), rows, texts=2)


_COLUMNS = (
    ("texts/s", "rate", ",.0f", 1.0),
    ("of the ceiling", "of_ceiling", ".2f", 1.0),
    ("p50 ms", "p50_ms", ".1f", 1.0),
    ("p99 ms", "p99_ms", ".1f", 1.0),
    ("GPU %", "gpu_busy", ".0f", 100.0),
    ("GPU memory GB", "gpu_memory_mb", ".1f", 1e-3),
    ("W", "gpu_watts", ".0f", 1.0),
    ("texts/s and W", "rate_per_watt", ".1f", 1.0),
)


def _bench(check: Row) -> str:
    """Tables of sentences, lengths, budgets of groups, null model; columns that no row has are left out."""
    rows = check["rows"]
    plain = [row for row in rows if row["way"] != BUDGET]
    budgets = [row for row in rows if row["way"] == BUDGET]
    lines = [
        f"Load: {check['figures']['load_generator']}, on the same cores. The ceiling is the fastest group in "
        "one process, of those that the server can form: the served graph with the same provider, tokens "
        "that lie on the device, one run in flight."
    ]
    for title, part in (
        ("Sentences", [row for row in plain if row["tokens"] == SENTENCES and row["way"] != NULL]),
        ("Lengths", [row for row in plain if row["tokens"] != SENTENCES]),
        (f"Groups. {check['figures'].get('best_budget', '')}".rstrip(" ."), budgets),
        (
            "Null model, which answers a constant: what everything but the model costs",
            [r for r in rows if r["way"] == NULL],
        ),
    ):
        if part:
            lines.append(f"**{title}**\n\n{_loads(part).rstrip()}")
    return "\n\n".join(lines)


def _loads(rows: Sequence[Row]) -> str:
    # The first column stays: it says what has failed, too.
    columns = [_COLUMNS[0], *(each for each in _COLUMNS[1:] if any(each[1] in row for row in rows))]
    shown = []
    for row in sorted(rows, key=lambda row: (row["tokens"], row["precision"], _ORDER.index(row["way"]))):
        name = " ".join(filter(None, (row["precision"].upper(), row["way"])))
        tokens = "sentences" if row["tokens"] == SENTENCES else f"{row['tokens']} tokens"
        unit = "a run" if row["way"] == IN_PROCESS else "connection" + "s" * (row["at_once"] > 1)
        at_once = f"{row['at_once']} {unit}"
        if row.get("budget"):
            at_once += f", {row['budget']}, round {row['round']}"
        if row["workers"] > 1:
            at_once += f", {row['workers']} gateway processes"
        cells = [_number(row, key, form, factor) for _, key, form, factor in columns]
        if row.get("error"):
            cells[0] = f"failed: {_shorten(row['error'])}"
        shown.append((name, tokens, at_once, *cells))
    return markdown_table(("way", "texts", "at once", *(title for title, *_ in columns)), shown, texts=3)


_ORDER = (IN_PROCESS, HTTP, NULL, BUDGET)
_SECTIONS = (
    ("doctor", _doctor),
    ("operators", _operators),
    ("gate", _gate),
    ("golden", _golden),
    ("invariance", _invariance),
    ("stub", _figures),
    ("memory", _figures),
    ("plan", _figures),
    ("bench", _bench),
)
_WITHOUT_ROWS = ("stub", "memory", "plan")
