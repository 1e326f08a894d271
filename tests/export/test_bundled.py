"""The bundled checkpoint and what an export of it writes."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from export.artefact import Artefact
from export.checkpoint import load_checkpoint
from export.graph.encoder import build_graph
from export.scores import probabilities
from tests.support.bundled import bundled_repository
from tests.support.layouts import publish_joined
from tests.support.texts import CHECKPOINT

ROOT = Path(__file__).parents[2]


def test_the_repositorys_page_shows_what_an_export_writes(tmp_path: Path) -> None:
    page = (ROOT / "model_repository/README.md").read_text(encoding="utf-8")
    exported = bundled_repository()
    publish_joined(exported, "@cf/huggingface/distilbert-sst-2-int8", tmp_path / "joined")
    blocks = [block.partition("```")[0] for block in page.split("```text\n")[1:]]
    for block, repository in zip(blocks, (tmp_path / "joined", exported), strict=True):
        shown, folder = set(), ""
        for line in block.splitlines():
            name = line.split()[0]
            if line.startswith(" "):
                shown.add(folder + name)
            else:
                folder = name
        files = {str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file()}
        written = {re.sub("(ones|text)_[0-9]+", r"\1_*", name) for name in files if "__pycache__" not in name}
        assert written == shown


def test_git_holds_nothing_that_an_export_writes() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")

    def git(*arguments: str) -> list[str]:
        listed = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
        return listed.stdout.splitlines()

    assert git("ls-files", "model_repository") == ["model_repository/README.md"]
    exported = bundled_repository()
    written = [f"model_repository/{path.relative_to(exported)}" for path in exported.rglob("*")]
    assert git("check-ignore", *written) == written


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    file = tmp_path_factory.mktemp("fp32") / "model.onnx"
    file.write_bytes(build_graph(load_checkpoint(CHECKPOINT).encoder, "fp32").SerializeToString())
    return Artefact(file, 2)


def tokens(texts: list[str]) -> list[list[int]]:
    tokenizer = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    return [encoding.ids for encoding in tokenizer.encode_batch(texts)]


def test_the_cards_accuracies_are_what_the_weights_give(fp32: Artefact) -> None:
    card = (CHECKPOINT / "README.md").read_text(encoding="utf-8")
    stated = {m[1]: (int(m[2]), int(m[3])) for m in re.finditer(r"\| (\w+) \| (\d+) / (\d+) \|", card)}
    with (CHECKPOINT / "heldout.tsv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    right = fp32.alone(tokens([row["text"] for row in rows])).argmax(axis=1) == [
        int(row["label"]) for row in rows
    ]
    found = {
        source: (
            sum(bool(ok) for ok, row in zip(right, rows, strict=True) if row["source"] == source),
            sum(row["source"] == source for row in rows),
        )
        for source in stated
    }
    assert set(stated) == {"movie", "amazon", "news", "tweet"}
    for source, (correct, total) in stated.items():
        assert found[source][1] == total
        assert abs(found[source][0] - correct) <= 1, source  # a tie may fall the other way on another CPU


def test_the_documented_example_is_clearly_positive(fp32: Artefact) -> None:
    logits = fp32.alone(tokens(["This pizza is great!"]))
    assert probabilities(logits, "single_label_classification")[0, 1] >= 0.99


def test_the_weights_are_small_enough_for_git() -> None:
    assert sum(file.stat().st_size for file in CHECKPOINT.iterdir()) < 50e6


def test_the_tokenizer_asks_for_no_padding_and_no_truncation() -> None:
    tokenizer = json.loads((CHECKPOINT / "tokenizer.json").read_text())
    assert tokenizer["padding"] is None
    assert tokenizer["truncation"] is None


def test_the_labels_are_in_the_contracts_order() -> None:
    assert load_checkpoint(CHECKPOINT).labels == ("NEGATIVE", "POSITIVE")
