"""Ask a built plan about the kit's sentences, and time it on the kit's mix of lengths."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plans import trtexec
from plans.gate import Verdict, judge, texts_per_second
from plans.host import Host
from plans.kit import Candidate, Kit


@dataclass(frozen=True)
class Measured:
    """One plan, judged; texts_per_second is 0 for a plan that failed the gate and was not timed."""

    verdict: Verdict
    texts_per_second: float

    def as_json(self) -> dict[str, Any]:
        """For the cache and the summary."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Measured:
        """What as_json gave."""
        verdict = dict(content["verdict"])
        return cls(Verdict(**{**verdict, "failed": tuple(verdict["failed"])}), content["texts_per_second"])


def measure(host: Host, kit: Kit, candidate: Candidate, plan: Path) -> Measured:
    """Judge a plan and, if it may be served, time it.

    Raises:
        TrtexecError: the plan does not run.
    """
    samples = kit.folder / "samples"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        found = []
        for batch in kit.judged:
            profile = kit.profile_of(batch.shape)
            command = trtexec.answer_command(host, plan, profile, batch, samples, out)
            trtexec.run(command, trtexec.RUN_SECONDS)
            found.append(trtexec.read_logits(out))
        verdict = judge(found, kit.judged, kit.problem_type, candidate.limits)
        if verdict.failed:
            return Measured(verdict, 0.0)
        times = []
        for batch in kit.timed:
            profile = kit.profile_of(batch.shape)
            command = trtexec.timing_command(host, plan, profile, batch, samples, out)
            trtexec.run(command, trtexec.RUN_SECONDS)
            times.append(trtexec.read_median_ms(out))
    return Measured(verdict, texts_per_second(times, kit.timed))
