"""One-label classifiers become rerankers: what is read, written, judged and published, without torch."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from plans.kit import read_kit
from plans.trtexec import answer_command, build_flags
from safetensors.numpy import load_file, save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from export.artefact import Artefact
from export.checkpoint import load_checkpoint
from export.checkpoint.pairs import PairTokenizer
from export.errors import CheckpointError, ExamplesError, VerificationError
from export.evaluation.data import MULTI_LABEL, Examples
from export.evaluation.gate import DEFAULT_LIMITS
from export.evaluation.metrics import Answers, answers
from export.evaluation.ranking import compare_rankings
from export.graph.encoder import FLAVOURS, build_graph
from export.plan import ExportPlan
from export.quantise.candidates import build_int8
from export.reference import logits
from export.repository.inventory import read_inventory, verify_repository
from export.rows import PairRow, types_of
from export.run import ranks_alike, run_export
from export.source import read_source
from export.spec import TYPE_IDS
from export.tensorrt.check import check_graph
from export.tensorrt.quantise import calibration
from tests.support.mixed_batches import mixed
from tests.support.small_checkpoints import FAMILIES, LENIENT, POSITIONS, write_checkpoint
from tritonflare.export import export

TYPED = ("input_ids", "attention_mask", TYPE_IDS)
BOUNDS = {"fp32": 2e-5, "fp16": 3e-2}
OTHER_LIMITS = {name: dataclasses.replace(each, kendall_tau=1.1) for name, each in LENIENT.items()}


def plan_of(tmp_path: Path, family: str = "bert", **options: Any) -> ExportPlan:
    source = write_checkpoint(tmp_path / "m", labels=1, family=family)
    settings: dict[str, Any] = {"limits": LENIENT, "timing": None, "all_precisions": False}
    return ExportPlan(source, tmp_path / "models", tmp_path / "artefacts", **(settings | options))


@pytest.mark.parametrize("problem", [None, "regression", "single_label_classification"])
@pytest.mark.parametrize("family", FAMILIES)
def test_one_label_is_a_reranker_whatever_it_was_trained_for(
    tmp_path: Path, family: str, problem: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tritonflare.export")
    write_checkpoint(tmp_path / "m", labels=1, family=family, problem_type=problem)
    checkpoint = load_checkpoint(tmp_path / "m", tmp_path / "work")
    assert (checkpoint.task, checkpoint.problem_type) == ("rerank", "multi_label_classification")
    assert checkpoint.token_types == (family == "bert")
    assert "m: task rerank, because its config names 1 label" in caplog.text


@pytest.mark.parametrize("family", FAMILIES)
def test_more_labels_stay_a_classifier_without_types(tmp_path: Path, family: str) -> None:
    write_checkpoint(tmp_path / "m", labels=2, family=family)
    checkpoint = load_checkpoint(tmp_path / "m", tmp_path / "work")
    assert (checkpoint.task, checkpoint.token_types, checkpoint.encoder.types) == (
        "classification",
        False,
        None,
    )


def test_a_head_with_another_number_of_labels_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "two", labels=2, id2label={"0": "relevance"})
    with pytest.raises(
        CheckpointError, match=r"scores 2 labels but its config names 1 label\. One label makes"
    ):
        load_checkpoint(tmp_path / "two", tmp_path / "work")
    write_checkpoint(tmp_path / "one", labels=1, id2label={"0": "a", "1": "b"})
    with pytest.raises(CheckpointError, match=r"scores 1 label but its config names 2 labels.*num_labels"):
        load_checkpoint(tmp_path / "one", tmp_path / "work")


def options(folder: Path, **values: Any) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(values))


def test_types_are_read_only_where_the_tokenizer_hands_them_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_checkpoint(tmp_path / "m", labels=1, family="bert")
    options(folder, model_input_names=["input_ids", "attention_mask"])
    assert not load_checkpoint(folder, tmp_path / "work").token_types
    assert "knows 2 token types, but" in caplog.text
    options(folder, tokenizer_class="PreTrainedTokenizerFast", model_input_names=list(TYPED))
    assert load_checkpoint(folder, tmp_path / "work").token_types


def test_a_type_without_a_row_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", labels=1, family="bert")
    file = folder / "model.safetensors"
    table = "bert.embeddings.token_type_embeddings.weight"
    tensors = load_file(file)
    save_file(tensors | {table: tensors[table][:1].copy()}, file)
    with pytest.raises(CheckpointError, match="token types up to 1, the model knows 1"):
        load_checkpoint(folder, tmp_path / "work")


def test_too_few_tokens_for_a_pair_are_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", labels=1, family="bert")
    file = folder / "model.safetensors"
    table = "bert.embeddings.position_embeddings.weight"
    tensors = load_file(file)
    save_file(tensors | {table: tensors[table][:4].copy()}, file)
    with pytest.raises(CheckpointError, match="takes 4 tokens, and its tokenizer adds 3 to every pair"):
        load_checkpoint(folder, tmp_path / "work")


def test_a_tokenizer_that_fails_on_a_text_for_the_warm_up_is_refused(tmp_path: Path) -> None:
    """Every other text is one known word."""
    plan = plan_of(tmp_path)
    options(tmp_path / "m", tokenizer_class="PreTrainedTokenizerFast", model_input_names=list(TYPED))
    file = tmp_path / "m" / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex("^(great ){64}$"), "☃"), normalizers.Replace(Regex("^[^☃]+$"), "a")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([])
    tokenizer.model = models.WordLevel({"[PAD]": 0, "a": 4}, unk_token="[UNK]")
    tokenizer.save(str(file))
    with pytest.raises(CheckpointError, match="cannot encode every pair"):
        read_source(plan, tmp_path / "work")


def pair_rows(count: int, seed: int = 4) -> list[PairRow]:
    """Rows of all lengths whose types change at a random place."""
    rng = np.random.default_rng(seed)
    lengths = [1, 2, POSITIONS, *rng.integers(2, POSITIONS, count)]
    rows = []
    for length in lengths:
        first = int(rng.integers(0, length + 1))
        rows.append(PairRow(rng.integers(4, 50, length).tolist(), [0] * first + [1] * (length - first)))
    return rows


@pytest.mark.parametrize("precision", BOUNDS)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_graph_with_types_computes_what_the_reference_computes(
    tmp_path: Path, flavour: str, precision: str
) -> None:
    encoder = load_checkpoint(
        write_checkpoint(tmp_path / "m", labels=1, family="bert"), tmp_path / "work"
    ).encoder
    graph = build_graph(encoder, precision, flavour)
    onnx.checker.check_model(graph)
    assert tuple(each.name for each in graph.graph.input) == TYPED
    artefact = Artefact(graph.SerializeToString(), 1)
    rows = pair_rows(20)
    wanted = np.array([logits(encoder, list(row), row.types) for row in rows])
    found = [artefact.alone(rows), mixed(artefact, rows)]
    assert max(float(np.abs(each - wanted).max()) for each in found) < BOUNDS[precision]
    flat = np.array([logits(encoder, list(row)) for row in rows])
    assert np.abs(flat - wanted).max() > 0.1  # types are no detail


@pytest.mark.parametrize("scheme", ["token", "static-minmax", "static-smoothed", "blocks"])
def test_int8_keeps_the_types(tmp_path: Path, scheme: str) -> None:
    encoder = load_checkpoint(
        write_checkpoint(tmp_path / "m", labels=1, family="bert"), tmp_path / "work"
    ).encoder
    rows = pair_rows(20)
    int8 = build_int8(build_graph(encoder, "fp32"), scheme, rows, saturates=False)
    artefact = Artefact(int8.SerializeToString(), 1)
    found = artefact.alone(rows)
    wanted = np.array([logits(encoder, list(row), row.types) for row in rows])
    assert np.abs(found - wanted).mean() < 0.1
    np.testing.assert_allclose(mixed(artefact, rows), found, atol=1e-5 if scheme == "token" else 1e-3)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_reranker_is_exported_judged_and_published(tmp_path: Path, family: str) -> None:
    result = run_export(plan_of(tmp_path, family))
    model = result.model
    assert (model.task, model.labels, model.precision) == ("rerank", ("LABEL_0",), "int8")
    assert model.tokenizer.endswith("_pairs_types" if family == "bert" else "_pairs")
    (published,) = read_inventory(tmp_path / "models")
    assert (published.tokenizer, published.encoder) == (model.tokenizer, model.encoder)
    assert verify_repository(tmp_path / "models") == []
    int8 = result.evaluation.measurements["int8-token"].ranking
    assert int8 is not None
    assert int8.queries == 24
    report = json.loads(result.report.with_suffix(".json").read_text())
    assert report["about"]["task"] == "rerank"
    assert report["artefacts"]["int8-token"]["ranking"]["kendall_tau"] == int8.kendall_tau
    words = result.report.read_text()
    assert "| Kendall's tau (lowest) | first text as fp32 |" in words
    assert "pairs of all lengths between alone and in a padded batch" in words
    assert "| pairs in them |" in words
    # The code of a pair's tokenizer is the exporter's own, and a change of it is found.
    (tmp_path / "models" / model.tokenizer / "1" / "pairs.py").write_text("")
    assert verify_repository(tmp_path / "models") == [
        f"{model.tokenizer}/1/pairs.py is not this exporter's; export {model.name} again."
    ]


@pytest.mark.usefixtures("no_pictures")
def test_another_order_fails_the_gate_with_the_option_that_helps(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, precision="fp32", limits=OTHER_LIMITS)
    with pytest.raises(VerificationError) as refused:
        run_export(plan)
    assert "Kendall's tau 1.0000 with fp32 (allowed: at least 1.1)" in str(refused.value)
    assert "--min-tau 1: accepts it as it is." in str(refused.value)
    assert not (tmp_path / "models").exists()


def labelled(tmp_path: Path, **changes: str) -> Path:
    """24 queries with four texts each, of which the first is relevant."""
    rows = [
        (f"{a} {b}", " ".join("abcdefghij"[(k * 3 + len(a + b) + i) % 10] for i in range(4 + k)), int(k == 0))
        for a in "abcdef"
        for b in "ghij"
        for k in range(4)
    ]
    file = tmp_path / "pairs.csv"
    lines = [f"{changes.get(query, query)},{text},{label}" for query, text, label in rows]
    file.write_text("query,text,label\n" + "\n".join(lines) + "\n")
    return file


@pytest.mark.usefixtures("no_pictures")
def test_relevance_is_judged_where_it_is_known(tmp_path: Path) -> None:
    result = run_export(plan_of(tmp_path, precision="fp32", examples=labelled(tmp_path)))
    ranking = result.evaluation.measurements["fp32"].ranking
    assert ranking is not None
    assert ranking.relevance is not None
    assert ranking.relevance.queries == 24
    assert f"MRR@10 {100 * ranking.relevance.mrr:.2f}, +0.00 points against fp32" in result.report.read_text()


@pytest.mark.usefixtures("no_pictures")
def test_a_query_without_room_is_named(tmp_path: Path) -> None:
    file = labelled(tmp_path, **{"a g": "a " * POSITIONS})
    with pytest.raises(
        ExamplesError, match=r"the query 'a a .*' leaves no room for a text; the model takes 64"
    ):
        run_export(plan_of(tmp_path, examples=file))


def test_rows_of_the_source_are_pairs_and_as_many_as_fit(tmp_path: Path) -> None:
    source = read_source(plan_of(tmp_path), tmp_path / "work")
    assert isinstance(source.tokenizer, PairTokenizer)
    assert len(source.rows) == len(source.examples.texts) == len(source.examples.queries or ())
    assert {type(row) for row in source.rows} == {PairRow}
    assert all(types_of(row)[-1] == 1 for row in source.rows)
    assert source.tokenizer.rows([("a " * POSITIONS, "b")]) == [None]


@pytest.mark.usefixtures("no_pictures")
def test_a_plan_kit_holds_the_types(tmp_path: Path) -> None:
    result = run_export(plan_of(tmp_path, target="tensorrt", precision="fp16"))
    assert result.kit is not None
    check_graph(onnx.load(result.kit / "fp16" / "model.onnx"), 1, TYPED)
    with pytest.raises(VerificationError, match="takes input_ids and attention_mask INT64"):
        check_graph(onnx.load(result.kit / "fp16" / "model.onnx"), 1)
    kit = read_kit(result.kit)
    assert kit.noun == "pairs"
    assert {batch.inputs for batch in (*kit.judged, *kit.timed)} == {TYPED}
    for batch in kit.judged:
        values = [np.fromfile(result.kit / "samples" / f"{batch.file}.{name}.bin", "<i8") for name in TYPED]
        ids, mask, types = (each.reshape(batch.shape) for each in values)
        assert (types[mask == 0] == 0).all()
        assert (types.max(axis=1) == 1).all()
        assert ids.shape == batch.shape
    host: Any = type("Host", (), {"trtexec": "trtexec", "major": 11})()
    command = answer_command(host, Path("plan"), 0, kit.judged[0], result.kit / "samples", Path("out"))
    shapes = build_flags(host, kit.profiles, ())
    assert any("token_type_ids:1x16" in each for each in shapes)
    assert sum("token_type_ids" in each for each in command) == 2


def test_types_calibrate_with_their_ids() -> None:
    rows = pair_rows(40)
    found = calibration(rows)
    assert set(found) == set(TYPED)
    flat = [each for row in rows for each in row.types]
    assert found[TYPE_IDS].ravel().tolist() == flat[: found[TYPE_IDS].size]
    assert set(calibration([list(row) for row in rows])) == set(TYPED[:2])


@pytest.mark.usefixtures("no_pictures")
def test_the_command_says_which_task_it_took_and_has_limits_for_it(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "m", labels=1, family="bert")
    places = ["--repository", str(tmp_path / "models"), "--artefacts", str(tmp_path / "artefacts")]
    command = [str(source), "--name", "@cf/acme/order", "--precision", "fp32", "--quick", *places]
    done = CliRunner().invoke(export, [*command, "--min-tau", "0.5", "--min-top", "50"])
    assert done.exit_code == 0, done.output
    assert "Task rerank, because the model has one label" in done.output
    assert re.search(r"^scoring [\d,]+ pairs with fp32$", done.output, re.MULTILINE), done.output
    assert "Kendall's tau 1.0000  first text 100.00 %" in done.output
    refused = CliRunner().invoke(export, [*command, "--min-top", "101"])
    assert refused.exit_code == 2
    assert "--min-top" in refused.output
    for precision, limits in DEFAULT_LIMITS.items():
        assert 0.9 <= limits.kendall_tau <= 1, precision


@pytest.mark.parametrize(
    ("moved", "limits", "passes"),
    [
        ([4, 3, 2, 1], {}, True),
        ([3, 4, 2, 1], {"top": 0.9}, False),
        ([4, 3, 1, 2], {"kendall_tau": 0.9}, False),
        ([3, 4, 2, 1], {"top": 0, "kendall_tau": 0.5, "accuracy_drop": 60.0}, True),
        ([3, 4, 2, 1], {"top": 0, "kendall_tau": 0.5}, False),  # the relevant text is second now
        ([9, 3, 2, 1], {"p99_shift": 0.01}, False),
    ],
)
def test_a_widened_artefact_passes_by_the_order_that_it_gives(
    moved: list[float], limits: dict[str, float], passes: bool
) -> None:
    """The check between two steps of widening, which has no time for the whole gate."""

    def given(scores: list[float]) -> Answers:
        return answers(np.array(scores, np.float32)[:, None], MULTI_LABEL)

    fp32 = np.array([4, 3, 2, 1], np.float32)
    relevant = np.array([True, False, False, False])
    ranking = compare_rankings(fp32, fp32, [(0, 1, 2, 3)], relevant)
    evaluation: Any = SimpleNamespace(
        measurements={"fp32": SimpleNamespace(answers=given([4, 3, 2, 1]), ranking=ranking)},
        examples=Examples(tuple("abcd"), relevant[:, None], "x", queries=("q",) * 4),
    )
    allowed = dataclasses.replace(LENIENT["int8"], kendall_tau=0.0, top=0.0, accuracy_drop=0.5)
    assert ranks_alike(given(moved), evaluation, dataclasses.replace(allowed, **limits)) == passes
