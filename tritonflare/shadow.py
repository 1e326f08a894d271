"""``tritonflare shadow``: how the answers of second models differ, from the metrics of a running server."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from bulk.compare.statistics import Share

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from rich.table import Table

_PREFIX = "tritonflare_shadow_"
_TIMEOUT_S = 10.0
_BAR = 40


@dataclass
class Pair:
    """What was counted of two models in two versions; sums of scores, shares 0 to 1."""

    agrees: float = 0
    differs: float = 0
    failed: float = 0
    shifted: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By direction (up, down): how many scores, and the sum of their distances."""
    buckets: dict[float, float] = field(default_factory=lambda: defaultdict(float))
    """By upper bound: how many scores are at most so far apart, in both directions."""

    @property
    def compared(self) -> float:
        """Texts that both models have answered."""
        return self.agrees + self.differs

    @property
    def scores(self) -> float:
        """Texts whose best label the second model has as well."""
        return sum(count for count, _ in self.shifted.values())

    def agreement(self) -> tuple[float, float, float]:
        """The share of texts with the same best label, and its 95 % interval (Wilson, 1927)."""
        share = Share(round(self.agrees), round(self.compared))
        return share.value, *share.interval

    def mean_distance(self) -> float:
        """The mean |Δ| of the scores."""
        return sum(total for _, total in self.shifted.values()) / self.scores

    def mean_shift(self) -> float:
        """The mean Δ of the scores: positive where the second model is surer."""
        signs = {"up": 1, "down": -1}
        return sum(signs[way] * total for way, (_, total) in self.shifted.items()) / self.scores

    def histogram(self) -> Iterator[tuple[float, float, float]]:
        """Lower bound, upper bound and number of the scores between them."""
        lower = below = 0.0
        for upper, total in sorted(self.buckets.items()):
            yield lower, upper, total - below
            lower, below = upper, total


@dataclass(frozen=True)
class Report:
    """What a server has counted since it started."""

    pairs: Mapping[tuple[str, str, str, str], Pair]
    """By model, its version, second model, its version."""
    dropped: Mapping[tuple[str, str], Mapping[str, float]]
    """By model and second model: by reason, texts that the second model was not asked."""


def read_report(families: Iterable[Metric]) -> Report:
    """Read what the metrics say of second models."""
    pairs: dict[tuple[str, str, str, str], Pair] = defaultdict(Pair)
    dropped: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for sample in (each for family in families for each in family.samples):
        name, labels = sample.name.removeprefix(_PREFIX), sample.labels
        if name == sample.name:
            continue
        if name == "dropped_total":
            dropped[labels["model"], labels["shadow"]][labels["reason"]] = sample.value
            continue
        if "shadow_version" not in labels:
            continue
        pair = pairs[labels["model"], labels["version"], labels["shadow"], labels["shadow_version"]]
        if name == "texts_total":
            setattr(pair, labels["result"], sample.value)
        elif name == "score_shift_bucket":
            pair.buckets[float(labels["le"])] += sample.value
        elif name in ("score_shift_count", "score_shift_sum"):
            count, total = pair.shifted.get(labels["direction"], (0.0, 0.0))
            pair.shifted[labels["direction"]] = (
                (sample.value, total) if name.endswith("_count") else (count, sample.value)
            )
    return Report(pairs, dropped)


@click.command()
@click.option("--url", default="http://127.0.0.1:8787", show_default=True, help="The server.")
def shadow(url: str) -> None:
    """Show how second models (GATEWAY_SHADOW) answer what callers sent.

    Reads /metrics of a running server, with all of its worker processes: counts since its start, for
    each pair of versions. Which texts differ it cannot tell, because texts are not kept.
    """
    from prometheus_client.parser import text_string_to_metric_families
    from rich.console import Console

    families = list(text_string_to_metric_families(_metrics(url)))
    if not any(family.name.startswith(_PREFIX) for family in families):
        raise click.ClickException("no second model is asked there: set GATEWAY_SHADOW and start it again.")
    report = read_report(families)
    console = Console()
    if not report.pairs:
        console.print("No text was compared yet.")
    for names, pair in sorted(report.pairs.items()):
        console.print(_table(names, pair))
    for (model, second), reasons in sorted(report.dropped.items()):
        told = ", ".join(f"{reason} {count:,.0f}" for reason, count in sorted(reasons.items()))
        console.print(f"Not sent from {model} to {second}: {told}", highlight=False, soft_wrap=True)


def _metrics(url: str) -> str:
    import urllib.error
    import urllib.request

    address = f"{url.rstrip('/')}/metrics"
    if not address.startswith(("http://", "https://")):
        raise click.BadParameter("must begin with http:// or https://", param_hint="--url")
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer:  # noqa: S310 (checked above)
            return str(answer.read().decode())
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
        raise click.ClickException(f"{address} does not answer: {reason}.") from error


def _table(names: tuple[str, str, str, str], pair: Pair) -> Table:
    from rich.table import Table
    from rich.text import Text

    model, version, second, second_version = names
    table = Table(
        title=Text(f"{model} {version} → {second} {second_version}"), title_justify="left", show_header=False
    )
    table.add_column("")
    table.add_column("", justify="right")
    table.add_column("", no_wrap=True)
    table.add_row("texts compared", f"{pair.compared:,.0f}")
    if pair.failed:
        table.add_row("failed", f"{pair.failed:,.0f}")
    if pair.compared:
        share, low, high = pair.agreement()
        table.add_row(
            "same best label", f"{100 * share:.2f} %", f"95 %: {100 * low:.2f} to {100 * high:.2f} %"
        )
    if pair.scores:
        table.add_row("mean |Δ| of its score", f"{pair.mean_distance():.4f}")
        table.add_row("mean Δ", f"{pair.mean_shift():+.4f}")
        table.add_section()
        for lower, upper, count in pair.histogram():
            bound = f"to {upper:g}" if math.isfinite(upper) else f"above {lower:g}"
            table.add_row(f"|Δ| {bound}", f"{count:,.0f}", "█" * round(_BAR * count / pair.scores))
    return table
