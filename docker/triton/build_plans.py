#!/usr/bin/env python3
"""Build, judge and install the TensorRT plans of all exported models, before Triton starts.

Runs inside NVIDIA's tritonserver image with its own Python and nothing else. Without a GPU,
without trtexec, or where a plan is not good enough, the ONNX Runtime encoder stays and the
exit code is 0: serving goes on. Nothing is built twice for the same TensorRT, GPU, graph
and flags.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plans import trtexec
from plans.cache import CacheError, PlanCache, ingredients, plan_key, write_json
from plans.host import Host, NoTensorRT, find_host
from plans.install import InstallError, Repository
from plans.kit import Candidate, Kit, KitError, read_kit
from plans.measure import Measured, measure

_log = logging.getLogger("build_plans")


@dataclass
class Run:
    """One call of this script: what it works on, and what it found so far."""

    cache: PlanCache
    repository: Repository
    summary: list[dict[str, Any]] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def say(self, kit: str, decision: str, sentence: str, **details: Any) -> None:
        """One decision: one line for the reader, one entry for the summary."""
        _log.info("%s: %s", kit, sentence)
        self.summary.append({"model": kit, "decision": decision, "sentence": sentence, **details})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script.

    Exit codes: 0 everything in the repository can be served, on ONNX Runtime where there is
    no plan; 1 no plan could be built for want of a GPU or because of a damaged kit, and
    --require-gpu was given; 2 the repository or the cache cannot be used, so that it may hold
    a plan of another host: do not start Triton.
    """
    options = _options(arguments)
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s", force=True)
    host: Host | None = None
    try:
        host = find_host(options.trtexec)
    except NoTensorRT as error:
        _log.info("No TensorRT plan is built: %s The ONNX Runtime encoders serve.", error)
    if host is not None:
        _log.info(
            "TensorRT %s on %s (compute capability %s).", host.tensorrt, host.gpu, host.compute_capability
        )
    if options.dry_run:
        return _dry_run(options.kits, host)
    try:
        damaged = _run(options, host)
    except (CacheError, InstallError, OSError) as error:
        _log.error("%s", error)
        return 2
    return 1 if options.require_gpu and (host is None or damaged) else 0


def _run(options: argparse.Namespace, host: Host | None) -> bool:
    """All kits; True if one of them could not be used, in which case its model serves as before."""
    run = Run(PlanCache(options.cache), Repository(options.repository))
    damaged = False
    with run.cache.locked(), run.repository.changing():
        # First of all: a plan of another host must not be there when Triton starts.
        for ensemble in run.repository.take_out_strangers(host):
            run.say(ensemble, "stale", "its plan was not built for this host; back on ONNX Runtime.")
        for folder in _kits(options.kits):
            try:
                _serve_the_best(run, host, read_kit(folder))
            except (KitError, InstallError) as error:
                damaged = True
                run.say(folder.parent.name, "error", str(error))
        if options.prune and host is not None and not damaged:
            for key in run.cache.prune(run.used):
                _log.info("Removed the unused plan %s.", key[:12])
        write_json(options.summary or options.cache / "summary.json", {"models": run.summary})
    return damaged


def _serve_the_best(run: Run, host: Host | None, kit: Kit) -> None:
    """Decide for one model, and make the repository agree with the decision."""
    served = run.repository.serves(kit)
    if served is None:
        run.say(kit.name, "skipped", f"{kit.ensemble} serves what is not of this kit; left alone.")
        return
    if host is None:
        run.say(kit.name, "onnxruntime", "served by ONNX Runtime.")
        return
    keys = {c.precision: _key(host, kit, c) for c in kit.candidates}
    run.used.update(keys.values())
    installed = next((c for c in kit.candidates if c.precision == served), None)
    if installed and run.repository.installed_key(installed) != keys[served]:
        run.repository.fall_back(kit.ensemble)
        run.say(kit.name, "stale", "its plan was built from another graph or flags; back on ONNX Runtime.")
        installed = None
    winner = _best(run, host, kit, keys)
    if winner is None:
        run.repository.fall_back(kit.ensemble)
        run.say(kit.name, "onnxruntime", "no plan may be served; ONNX Runtime serves.")
        return
    key = keys[winner.precision]
    sentence = f"the {winner.precision} plan is served already."
    if installed != winner:
        run.repository.install(host, kit, winner, run.cache.path(key), key)
        sentence = f"the {winner.precision} plan is served now, as {winner.encoder}."
    run.say(kit.name, "tensorrt", sentence, precision=winner.precision, key=key)


def _best(run: Run, host: Host, kit: Kit, keys: dict[str, str]) -> Candidate | None:
    """FP16 if it passes the gate; INT8 if it also does and is measured faster."""
    best: tuple[Candidate, Measured] | None = None
    for candidate in kit.candidates:
        if candidate.precision != "fp16" and best is None:
            break
        measured = _measured(run, host, kit, candidate, keys[candidate.precision])
        if measured is None:
            continue
        needed = candidate.limits.speedup * best[1].texts_per_second if best else 0.0
        if measured.texts_per_second < needed and best:
            run.say(
                kit.name,
                "slower",
                f"{candidate.precision} runs {measured.texts_per_second:.0f} {kit.noun}/s, "
                f"{best[0].precision} {best[1].texts_per_second:.0f}; it has to be "
                f"{candidate.limits.speedup:.2f} times as fast.",
            )
            continue
        best = candidate, measured
    return best[0] if best else None


def _measured(run: Run, host: Host, kit: Kit, candidate: Candidate, key: str) -> Measured | None:
    """The plan's measurement if it may be served, building and measuring what is not in the cache."""
    try:
        plan = run.cache.plan(key) or _build(run, host, kit, candidate, key)
        measured_on = f"{kit.samples_sha256} {candidate.limits}"
        known = run.cache.verdict(key, measured_on)
        measured = Measured.from_json(known) if known else measure(host, kit, candidate, plan)
        run.cache.keep_verdict(key, measured_on, measured.as_json())
    except trtexec.TrtexecError as error:
        run.say(kit.name, "failed", f"{candidate.precision}: {error}")
        return None
    details = {"precision": candidate.precision, "cached": known is not None, **measured.as_json()}
    if measured.verdict.failed:
        run.say(
            kit.name, "refused", f"{candidate.precision}: {'; '.join(measured.verdict.failed)}.", **details
        )
        return None
    run.say(
        kit.name,
        "passed",
        f"{candidate.precision}: agrees with FP32 on {measured.verdict.agreement:.2%} of "
        f"{measured.verdict.texts} {kit.noun}, {measured.texts_per_second:.0f} {kit.noun}/s on the length "
        "mix.",
        **details,
    )
    return measured


def _build(run: Run, host: Host, kit: Kit, candidate: Candidate, key: str) -> Path:
    flags = trtexec.build_flags(host, kit.profiles, kit.flags)
    _log.info("%s: building the %s plan, which takes minutes.", kit.name, candidate.precision)
    with run.cache.building(key, ingredients(host, candidate.onnx_sha256, flags)) as plan:
        onnx = candidate.folder / "model.onnx"
        trtexec.run(
            trtexec.build_command(host, onnx, plan, run.cache.timing_cache(host), flags),
            trtexec.BUILD_SECONDS,
        )
        if not plan.is_file():
            raise trtexec.TrtexecError("trtexec ended well but wrote no plan.")
    return run.cache.path(key)


def _key(host: Host, kit: Kit, candidate: Candidate) -> str:
    return plan_key(host, candidate.onnx_sha256, trtexec.build_flags(host, kit.profiles, kit.flags))


def _dry_run(kits: Path, host: Host | None) -> int:
    """Print the build commands; without a GPU or trtexec, those of TensorRT 11 in NVIDIA's image."""
    shown = host or Host(Path("/usr/src/tensorrt/bin/trtexec"), "11.0.0", "none", "0.0")
    for folder in _kits(kits):
        try:
            kit = read_kit(folder)
        except KitError as error:
            _log.error("%s", error)
            return 2
        flags = trtexec.build_flags(shown, kit.profiles, kit.flags)
        for candidate in kit.candidates:
            onnx, plan = candidate.folder / "model.onnx", Path("model.plan")
            command = trtexec.build_command(shown, onnx, plan, Path("timing.cache"), flags)
            _log.info("%s", shlex.join(command))
    return 0


def _kits(root: Path) -> list[Path]:
    found = sorted(file.parent for file in root.glob("**/tensorrt/kit.json"))
    if not found:
        _log.info("There is no kit under %s: no model was exported for TensorRT.", root)
    return found


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--kits", type=Path, required=True, help="folder under which the export wrote its kits")
    add("--repository", type=Path, required=True, help="the model repository that Triton reads")
    add("--cache", type=Path, required=True, help="folder that keeps the plans between starts")
    add("--trtexec", type=Path, help="trtexec, if it is not on PATH nor where the image has it")
    add("--summary", type=Path, help="where to write the JSON summary [<cache>/summary.json]")
    add("--prune", action="store_true", help="remove plans that no kit on this host uses")
    add("--require-gpu", action="store_true", help="status 1 without a GPU or with a damaged kit")
    add("--dry-run", action="store_true", help="print the build commands and change nothing")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
