"""The document as tables, for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtest.bench import gpu, protocols
from loadtest.bench.peers import table as peers_table
from loadtest.bench.peers import ways as peers
from loadtest.tables import markdown_table

TITLES = {
    "ceiling": "In-process: what the machine can do",
    "precision": "The same in FP32",
    "grpc": "Triton over gRPC",
    "http": "Gateway over HTTP",
    "protocols": "Gateway over HTTP and gRPC",
    "null": "Null model: the cost of serving alone",
    "length": "Gateway over HTTP, by length",
    "peers": "Beside other servers of the same model",
}
_COLUMNS = (
    ("texts/s", "rate", ".0f"),
    ("of ceiling", "of_ceiling", ".2f"),
    ("p50 ms", "p50_ms", ".1f"),
    ("p99 ms", "p99_ms", ".1f"),
    ("gateway CPU s", "gateway_cpu_s", ".2f"),
    ("Triton CPU s", "triton_cpu_s", ".2f"),
    ("load CPU s", "load_cpu_s", ".2f"),
    ("texts/call", "call_texts", ".1f"),
    ("tokenizer batch", "tokenizer_batch", ".1f"),
    ("encoder batch", "encoder_batch", ".1f"),
    ("padding eff.", "padding_efficiency", ".3f"),
    ("GPU busy", "gpu_busy", ".2f"),
    ("GPU MB", "gpu_memory_mb", ".0f"),
    ("GPU W", "gpu_watts", ".0f"),
    ("texts/s/W", "rate_per_watt", ".1f"),
)

_GPU_FIGURES = (
    "GPU busy: share of the time in which a kernel ran, mean of the devices. GPU MB: the most memory in "
    "use on all. GPU W: mean power of all, without the rest of the machine. texts/s/W: texts a second for "
    "each watt."
)

_DEVICES = {None: "", "cuda": " on a GPU", "cpu": ", which was exported for a GPU, on the CPU"}


@dataclass(frozen=True)
class Table:
    """A title, the heads of the columns, and rows of as many cells; the first column is text."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(document: Mapping[str, Any]) -> Iterator[Table]:
    """One table a section that was measured, then the summary."""
    for section, title in TITLES.items():
        rows = [row for row in document["ways"] if row["section"] == section]
        if rows and section == peers.SECTION:
            yield Table(
                title + _texts(document), peers_table.heads("text"), list(peers_table.comparison(rows))
            )
        elif rows:
            yield _section(title, rows)
        if rows and section == protocols.SECTION:
            yield Table("gRPC beside HTTP", protocols.HEADS, list(protocols.comparison(rows)))
    facts = [(what, f"{value:.4g}") for what, value in document["summary"]]
    if invariance := document["invariance"]:
        facts.append(
            (
                f"largest |difference| of a score, under load and alone ({invariance['answers']} answers)",
                f"{invariance['largest']:.1e}",
            )
        )
    facts += [
        (f"resident memory at the end, {name}", f"{mb:.0f} MB") for name, mb in document["memory_mb"].items()
    ]
    if facts:
        yield Table("Summary", ("", "found"), facts)


def _texts(document: Mapping[str, Any]) -> str:
    """What a title adds if others than real sentences are asked."""
    tokens = document["settings"].get("tokens")
    return "" if tokens is None else f", texts of about {tokens} tokens"


def _section(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = [column for column in _COLUMNS if any(column[1] in row["medians"] for row in rows)]
    if rows[0]["section"] in ("null", "length"):  # the ceiling is for the real model and real sentences
        columns = [column for column in columns if column[1] != "of_ceiling"]
    cells = [
        [
            row["name"],
            *(
                format(row["medians"][key], form) if key in row["medians"] else "–"
                for _, key, form in columns
            ),
        ]
        for row in rows
    ]
    return Table(title, ("", *(head for head, _, _ in columns)), cells)


def about(document: Mapping[str, Any]) -> list[str]:
    """Sentences on how it was measured."""
    settings, environment = document["settings"], document["environment"]
    asked = "sentences" if settings.get("tokens") is None else "texts"
    lines = [
        f"{environment['cpu']}, {environment['cores']} cores; load generator on the same cores: "
        f"{settings['load_generator']}.",
        f"Medians of {settings['rounds']} alternating rounds of {settings['seconds']:g} s; "
        f"{settings['texts']} {asked} of {settings['tokens_mean']:.1f} tokens on average; "
        f"{settings['model']} in {settings['precision']}{_DEVICES[settings.get('device')]}.",
    ]
    if gpus := environment.get("gpus"):
        lines += [gpu.sentence(gpus), _GPU_FIGURES]
    if any("gateway_cpu_s" in row["medians"] for row in document["ways"]):
        lines.append(
            "CPU: seconds per 1,000 texts, user and system, children included. Batches: mean texts, as "
            "Triton counts them. Padding efficiency: real tokens as a share of computed ones."
        )
    if any(row["section"] == protocols.SECTION for row in document["ways"]):
        lines.append(f"{TITLES[protocols.SECTION]}: the load generator is our own asyncio clients.")
    if compared := settings.get("peers"):
        lines += [
            f"{name}: {', '.join(f'{package} {version}' for package, version in packages.items())}."
            for name, packages in compared["packages"].items()
        ]
        lines.append(
            f"All servers gave the same scores to {settings['texts']} {asked}, but for "
            f"{compared['largest_difference']:.1e}. CPU ms/text: user and system time of all its processes."
        )
    return lines + [f"Left out: {sentence}" for sentence in document["left_out"]]


def as_markdown(document: Mapping[str, Any], extra: Sequence[Table] = ()) -> str:
    """The whole report; ``extra`` tables come last."""
    parts = ["# Bench\n", "  \n".join(about(document)) + "\n"]
    for table in (*tables(document), *extra):
        parts += [f"## {table.title}\n", markdown_table(table.heads, table.rows)]
    return "\n".join(parts)
