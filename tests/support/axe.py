"""What axe-core finds on a page: contrast, names, roles, what a keyboard cannot reach."""

from __future__ import annotations

from functools import cache

from playwright.sync_api import Page

from tests.support.clients.node import JS, missing

_PROGRAM = JS / "node_modules" / "axe-core" / "axe.min.js"
_RUN = """async () => (await axe.run()).violations
  .filter(({ impact }) => impact === "serious" || impact === "critical")
  .map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 120)).join(" ")}`)"""


@cache
def _program() -> str:
    return _PROGRAM.read_text(encoding="utf-8")


def serious_violations(page: Page) -> list[str]:
    """Return the rules of axe-core that the page breaks seriously or critically, with the elements.

    Skips the test where the packages of the JavaScript clients are missing; in CI it fails.
    """
    if not _PROGRAM.is_file():
        missing("axe-core is not installed: make clients-env")
    page.evaluate(_program())
    found: list[str] = page.evaluate(_RUN)
    return found
