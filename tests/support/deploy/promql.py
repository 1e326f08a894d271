"""Which metrics an expression of Prometheus asks for."""

from __future__ import annotations

from typing import Any

import promql_parser

_PARTS = ("expr", "lhs", "rhs", "param", "vector_selector")


def metrics(expression: str) -> set[str]:
    """Names of all metrics in it.

    Raises:
        ValueError: it is no PromQL.
    """
    return set(_names(promql_parser.parse(expression)))


def _names(node: Any) -> list[str]:
    if isinstance(node, promql_parser.VectorSelector):
        return [node.name] if node.name else []
    children = [getattr(node, part) for part in _PARTS if getattr(node, part, None) is not None]
    children += getattr(node, "args", ())
    return [name for child in children for name in _names(child)]
