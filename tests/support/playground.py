"""An open playground, what a visitor does on it, and what can be seen of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from playwright.sync_api import Page
from tritonclient.grpc import InferInput
from tritonclient.utils import deserialize_bytes_tensor

from gateway.domain.errors import TritonflareError
from tests.support.harness import TOKEN

PHONE = (360, 740)
DESKTOP = (1200, 900)

CONTRAST = """() => {
  const channel = (part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map((part) => channel(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    const color = getComputedStyle(node).backgroundColor;
    return color === "rgba(0, 0, 0, 0)" && node.parentElement ? behind(node.parentElement) : color;
  };
  const shown = [...document.body.querySelectorAll("*")].filter((node) =>
    node.checkVisibility() && (node.matches("input, select, textarea") ||
    [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim())));
  return shown.map((node) => {
    const pair = [light(getComputedStyle(node).color), light(behind(node))].sort((a, b) => b - a);
    return [node.outerHTML.slice(0, 60), (pair[0] + 0.05) / (pair[1] + 0.05)];
  });
}"""
"""The contrast of every text on the page, as WCAG 2 computes it."""


@dataclass
class Visit:
    """An open page, and what went wrong on it without being seen."""

    page: Page
    origin: str
    complaints: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    def enter_token(self, token: str = TOKEN) -> None:
        self.page.get_by_label("API token").fill(token)
        self.page.get_by_label("API token").press("Tab")

    def write(self, *texts: str) -> None:
        self.page.get_by_label("Texts, a blank line between two").fill("\n\n".join(texts))

    def classify(self) -> None:
        self.page.get_by_role("button", name="Classify").click()

    def answer(self, place: int) -> str:
        return self.page.locator("#answers > li").nth(place).inner_text()

    def in_the_window(self, locator: str) -> bool:
        """Whether all of the first such element is on the screen."""
        inside: bool = self.page.locator(locator).first.evaluate(
            "(node) => { const { top, bottom } = node.getBoundingClientRect();"
            " return top >= 0 && bottom <= innerHeight; }"
        )
        return inside


@dataclass
class RecordedInference:
    """A stand-in for the client of `tritonclient.grpc`, and the one call that was made with it."""

    calls: list[RecordedInference] = field(repr=False, compare=False)
    address: str
    model: str = ""
    texts: tuple[str, ...] = ()
    authorization: str = ""
    queries: tuple[str, ...] = ()

    def infer(self, model: str, inputs: list[InferInput], headers: dict[str, str]) -> RecordedInference:
        tensors = {tensor.name(): _elements(tensor) for tensor in inputs}
        assert len(tensors) == len(inputs)
        self.model, self.authorization = model, headers["authorization"]
        self.texts, self.queries = tensors.pop("TEXT"), tensors.pop("QUERY", ())
        assert not tensors
        self.calls.append(self)
        return self

    def as_numpy(self, name: str) -> str:
        return name


def _elements(tensor: InferInput) -> tuple[str, ...]:
    assert tensor.datatype() == "BYTES"
    elements = deserialize_bytes_tensor(tensor._get_content())
    assert list(elements.shape) == tensor.shape()
    return tuple(element.decode() for element in elements)


def classes_with_code(root: type[TritonflareError]) -> list[type[TritonflareError]]:
    """Those below ``root`` that have a code."""
    below = [found for child in root.__subclasses__() for found in (child, *classes_with_code(child))]
    return [kind for kind in below if "code" in vars(kind)]
