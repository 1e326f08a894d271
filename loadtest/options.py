"""The options that we add to locust's; each is also an environment variable ``LOADTEST_…``."""

from __future__ import annotations

import argparse
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.arrivals import SHAPES, SPIKE
from loadtest.golden import GOLDEN
from loadtest.traffic import KINDS, parse_traffic
from loadtest.verdict import VerdictLimits

PROTOCOLS = ("http", "grpc")
ACCOUNT = "0123456789abcdef0123456789abcdef"
MODEL = "@cf/huggingface/distilbert-sst-2-int8"
_UNITS = {"s": 1, "m": 60, "h": 3600, "": 1}


@dataclass(frozen=True)
class LoadOptions:
    """One run, as it was asked for."""

    account: str
    model: str
    protocol: str
    grpc_host: str
    traffic: str
    loop: str
    shape: str
    duration: float
    rate: float | None
    """Requests a second; None is ``load`` times what the server can do."""
    load: float
    calibration: float
    calibration_users: int
    arrivals: str
    max_in_flight: int
    timeout: float
    texts: int
    reference: Path | None
    golden: Path
    tolerance: float
    output: Path
    seed: int
    insecure: bool
    limits: VerdictLimits

    @property
    def calibration_s(self) -> float:
        """Seconds before the load proper."""
        return self.calibration if self.loop == "open" and self.rate is None else 0.0

    @classmethod
    def of(cls, namespace: argparse.Namespace) -> LoadOptions:
        """Take what ``add_arguments`` declared out of ``namespace``."""
        limits = VerdictLimits(
            namespace.max_p50_ms,
            namespace.max_p95_ms,
            namespace.max_p99_ms,
            namespace.max_error_share,
            namespace.min_achieved_share,
        )
        named = {name: getattr(namespace, name) for name in cls.__dataclass_fields__ if name != "limits"}
        named["reference"] = Path(named["reference"]) if named["reference"] else None
        named["golden"], named["output"] = Path(named["golden"]), Path(named["output"])
        return cls(**named, limits=limits)


def seconds(text: str) -> float:
    """Read ``90``, ``90s``, ``15m`` or ``1h``.

    Raises:
        argparse.ArgumentTypeError: it is no such time, or none at all.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if not match or not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 90s, 15m or 1h")
    return float(match[1]) * _UNITS[match[2]]


def positive(text: str) -> float:
    """Read a number above 0.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def share(text: str) -> float:
    """Read a share, 0 to 1.

    Raises:
        argparse.ArgumentTypeError: it is none; nan would let everything pass.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share from 0 to 1")
    return value


def rate(text: str) -> float | None:
    """Read requests a second; ``auto`` is None."""
    return None if text == "auto" else positive(text)


def _traffic(text: str) -> str:
    try:
        parse_traffic(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
    return text


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def add_arguments(parser: Any) -> None:
    """Declare the options on locust's parser (configargparse)."""

    def add(flag: str, default: object, help_text: str, **more: Any) -> None:
        variable = "LOADTEST_" + flag.lstrip("-").replace("-", "_").upper()
        parser.add_argument(flag, default=default, help=help_text, env_var=variable, **more)

    # Older and shorter names, as make and the README use them; an empty variable is none.
    account, model = os.environ.get("ACCOUNT") or ACCOUNT, os.environ.get("MODEL") or MODEL
    add("--account", account, "account id in the path (also ACCOUNT)")
    add("--model", model, "model (also MODEL)")
    add("--protocol", "http", "http: Workers AI's API; grpc: the Open Inference Protocol (http)",
        choices=PROTOCOLS)  # fmt: skip
    add("--grpc-host", "", "host:port of the gRPC server (the host of --host, port 8001)")
    add(
        "--traffic",
        "single",
        f"mixed, or kinds with weights: {', '.join(KINDS)} (single=9,long=1)",
        type=_traffic,
    )
    add("--loop", "open", "open: arrivals wait for no answer; closed: --users ask again when answered",
        choices=("open", "closed"))  # fmt: skip
    add("--shape", "constant", f"load over time; a ramp starts at a tenth, a spike is {SPIKE:g}-fold",
        choices=tuple(SHAPES))  # fmt: skip
    add("--duration", 60.0, "time under load, as 90s or 15m (60s)", type=seconds)
    add("--rate", None, "requests/s of the open loop, or auto: --load times the capacity (auto)", type=rate)
    add("--load", 0.7, "share of the capacity that --rate auto asks for (0.7)", type=positive)
    add("--calibration", 10.0, "time for finding the capacity, in a closed loop (10s)", type=seconds)
    add("--calibration-users", 64, "users of that closed loop (64)", type=_count)
    add("--arrivals", "random", "random: callers independent of each other; even: equal gaps",
        choices=("random", "even"))  # fmt: skip
    add("--max-in-flight", 2000, "requests under way at once of one load generator (2000)", type=_count)
    add("--timeout", 10.0, "longest wait for a connection or an answer (10s)", type=seconds)
    add("--texts", 256, "different held-out sentences to ask (256)", type=_count)
    add("--reference", "", "references.json of an earlier run to hold the answers against")
    add("--golden", str(GOLDEN), f"logits that the bundled model has to agree with ({GOLDEN.name})")
    add("--tolerance", 1e-4, "largest difference of a score from its reference (0.0001)", type=positive)
    add("--output", ".cache/loadtest", "folder for summary, references and plots (.cache/loadtest)")
    add("--seed", 1, "of traffic and arrivals (1)", type=int)
    parser.add_argument("--insecure", action="store_true", env_var="LOADTEST_INSECURE",
                        help="do not verify TLS certificates")  # fmt: skip
    limits = VerdictLimits()
    for name in ("p50", "p95", "p99"):
        allowed = getattr(limits, f"{name}_ms")
        add(
            f"--max-{name}-ms",
            allowed,
            f"fail above this {name} of good answers ({allowed:g})",
            type=positive,
        )
    add("--max-error-share", limits.error_share, "fail above this share of errors (0)", type=share)
    add("--min-achieved-share", limits.achieved_share, "open loop: fail below this good share (0.99)",
        type=share)  # fmt: skip
