"""Versions that were published before: kept, listed, verified, published again, and removed."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path

import pytest

from export import fingerprint
from export.errors import ExportError
from export.evaluation.gate import DEFAULT_LIMITS
from export.evaluation.host import Processor
from export.fingerprint import chosen_differences
from export.plan import ExportPlan
from export.record import RECORD, ExportNeeded, unchanged_export
from export.repository import publish
from export.repository.exchange import replace_repository
from export.repository.inventory import read_inventory, verify_repository
from export.repository.kept import kept_versions, verify_kept
from export.repository.pin import pin_version, pinned_version, unpin
from export.repository.publish import publish_model, rollback_model
from export.repository.versions import kept_root
from export.run import run_export
from export.spec import JOINED
from tests.export.test_publish import MOOD, Shop
from tests.export.test_run import ask
from tests.support.small_checkpoints import LENIENT, write_checkpoint

NAME = MOOD.name


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def kept(shop: Shop) -> list[int]:
    return kept_versions(shop.repository, MOOD.ensemble)


def served(shop: Shop) -> dict[str, bytes]:
    """What Triton reads of the model: the highest version of each of its folders, and all else in them."""
    (model,) = [each for each in read_inventory(shop.repository) if each.name == NAME]
    found = {}
    for folder in model.folders:
        last = max(shop.numbers(folder), key=int)
        for file in (shop.repository / folder).rglob("*"):
            place = file.relative_to(shop.repository)
            if file.is_file() and (not place.parts[1].isdecimal() or place.parts[1] == last):
                found[str(place)] = file.read_bytes()
    return found


@pytest.mark.parametrize("layout", ["steps", JOINED])
def test_a_rollback_serves_every_byte_that_was_served_then_and_can_be_taken_back(
    shop: Shop, layout: str
) -> None:
    shop.publish("w1", labels=("x", "y"), layout=layout)
    first = served(shop)
    shop.publish("w2", "t2", layout=layout)
    second = served(shop)
    assert rollback_model(shop.repository, NAME) == (2, 1)
    assert served(shop) == first
    assert [model.labels for model in read_inventory(shop.repository)] == [("x", "y")]
    assert verify_repository(shop.repository) == []
    assert rollback_model(shop.repository, NAME, 2) == (1, 2)
    assert served(shop) == second


def test_a_rollback_goes_back_one_version_at_a_time_and_then_says_that_there_is_none(shop: Shop) -> None:
    for weights in ("w1", "w2", "w3"):
        shop.publish(weights)
    assert [rollback_model(shop.repository, NAME) for _ in range(2)] == [(3, 2), (2, 1)]
    with pytest.raises(ExportError, match="no version of @cf/acme/mood before 1 is kept; kept: 3, 2"):
        rollback_model(shop.repository, NAME)
    with pytest.raises(ExportError, match="version 7 of @cf/acme/mood is not kept; kept: 3, 2"):
        rollback_model(shop.repository, NAME, 7)
    with pytest.raises(ExportError, match="no model is called @cf/acme/mod; published: @cf/acme/mood"):
        rollback_model(shop.repository, "@cf/acme/mod")


def test_what_is_published_after_a_rollback_takes_no_number_twice(shop: Shop) -> None:
    for weights in ("w1", "w2", "w3"):
        shop.publish(weights)
    rollback_model(shop.repository, NAME, 1)
    assert shop.publish("w1").version == 1  # what is published already
    assert shop.publish("w4").version == 4
    assert kept(shop) == [1, 2, 3]


def test_as_many_are_kept_as_asked_for_the_newest_ones(shop: Shop) -> None:
    for number in range(1, 7):
        shop.publish(f"w{number}")
    assert kept(shop) == [3, 4, 5]
    publish_with = shop.publish("w7")
    assert (publish_with.version, kept(shop)) == (7, [4, 5, 6])
    publish_model(shop.repository, publish_with, shop.folder / "w7.onnx", shop.folder / "t.json", keep=1)
    assert kept(shop) == [6]
    publish_model(shop.repository, publish_with, shop.folder / "w7.onnx", shop.folder / "t.json", keep=0)
    assert not shop.repository.with_name("repository.versions").exists()


def test_triton_sees_no_kept_version_and_the_weights_take_no_room_twice(shop: Shop) -> None:
    shop.publish("w1")
    weights = shop.repository / f"{MOOD.ensemble}_encoder_int8" / "1" / "model.onnx"
    inode = weights.stat().st_ino
    before = shop.entries()
    shop.publish("w2")
    shop.publish("w3")
    assert shop.entries() == before
    root = kept_root(shop.repository, MOOD.ensemble)
    assert not root.is_relative_to(shop.repository.resolve())
    assert (root / "1" / weights.parts[-3] / "1" / "model.onnx").stat().st_ino == inode
    assert {path.name for path in root.rglob("[0-9]*") if path.parent != root} <= {"1", "2"}


def test_a_tokenizer_that_another_model_uses_stays_as_it_is(shop: Shop) -> None:
    shop.publish("w1")
    shop.publish("w2")
    shop.publish("w1", name="@cf/acme/other")
    (tokenizer,) = (name for name in shop.entries() if name.startswith("tokenizer_"))
    # As an older exporter would have written it.
    program = kept_root(shop.repository, MOOD.ensemble) / "1" / tokenizer / "1" / "model.py"
    program.unlink()
    program.write_text("older")
    rollback_model(shop.repository, NAME)
    assert verify_repository(shop.repository) == []
    assert (shop.repository / tokenizer / "1" / "model.py").read_text() != "older"


def test_a_damaged_version_is_not_published_and_verify_names_it(shop: Shop) -> None:
    shop.publish("w1")
    shop.publish("w2")
    (weights,) = kept_root(shop.repository, MOOD.ensemble).rglob("model.onnx")
    weights.unlink()
    weights.write_text("damaged")
    before = shop.files()
    with pytest.raises(ExportError, match=r"kept version 1 of @cf/acme/mood is damaged: .*not the file"):
        rollback_model(shop.repository, NAME)
    assert shop.files() == before
    (finding,) = verify_kept(shop.repository)
    assert "kept version 1" in finding
    assert ask("--verify", "--repository", str(shop.repository)).exit_code == 3


def test_a_damaged_publication_is_rolled_back_and_not_kept(shop: Shop) -> None:
    shop.publish("w1")
    shop.publish("w2")
    (shop.repository / f"{MOOD.ensemble}_encoder_int8" / "2" / "model.onnx").unlink()
    assert rollback_model(shop.repository, NAME) == (2, 1)
    assert kept(shop) == [1]
    assert verify_repository(shop.repository) == []


def test_a_rollback_replaces_no_folder_of_somebody_else(shop: Shop) -> None:
    shop.publish("w1", precision="fp32")
    shop.publish("w2")
    foreign = shop.repository / f"{MOOD.ensemble}_encoder_fp32"
    foreign.mkdir()
    (foreign / "config.pbtxt").write_text('name: "theirs"')
    before = shop.files()
    with pytest.raises(ExportError, match="encoder_fp32 in the repository is not this exporter's"):
        rollback_model(shop.repository, NAME)
    assert shop.files() == before


def test_a_rollback_that_fails_changes_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.publish("w1")
    shop.publish("w2")
    before = shop.files()

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(publish, "copy_model_folder", full)
    with pytest.raises(ExportError, match="was not changed: No space left"):
        rollback_model(shop.repository, NAME)
    assert shop.files() == before


def test_a_half_kept_version_of_a_killed_export_is_none(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.publish("w1")
    part = kept_root(shop.repository, MOOD.ensemble) / ".part"
    (part / MOOD.ensemble).mkdir(parents=True)
    assert kept(shop) == []
    shop.publish("w1")
    assert not part.exists()
    part.mkdir(parents=True)
    shop.publish("w2")
    assert kept(shop) == [1]
    assert not part.exists()


def test_removing_a_model_removes_its_versions_and_artefacts_and_says_how_much(shop: Shop) -> None:
    shop.publish("w1", "t1")
    shop.publish("w2", "t2")
    artefacts = shop.folder / "artefacts"
    folder = artefacts / MOOD.ensemble
    (folder / "fp32").mkdir(parents=True)
    (folder / "fp32" / "model.onnx").write_bytes(bytes(2_000_000))
    os.link(folder / "fp32" / "model.onnx", folder / "linked.onnx")  # takes no room twice
    (artefacts / "other").mkdir()
    found = ask("--remove", NAME, "--repository", str(shop.repository), "--artefacts", str(artefacts))
    assert found.exit_code == 0
    (megabytes,) = re.findall(r"its kept versions and its artefacts: ([\d.]+) MB", found.output)
    assert 2.0 <= float(megabytes) < 2.5
    assert [path.name for path in artefacts.iterdir() if path.is_dir()] == ["other"]
    assert not shop.repository.with_name("repository.versions").exists()
    assert shop.entries() == set()


def test_the_list_and_verify_tell_of_kept_versions(shop: Shop) -> None:
    for weights in ("w1", "w2", "w3"):
        shop.publish(weights)
    place = ("--repository", str(shop.repository))
    head, line = ask("--list", *place).output.splitlines()
    assert dict(zip(head.split(), line.split(), strict=False))["kept"] == "2,1"
    # The made-up steps are not this exporter's programs' whole warm-up, but their files are intact.
    assert list(verify_kept(shop.repository)) == []
    found = ask("--rollback", NAME, *place)
    assert found.exit_code == 0
    assert "Published version 2 of @cf/acme/mood again" in found.output
    assert "version 3 is kept" in found.output


@pytest.mark.parametrize(
    "arguments", [("--to", "1"), ("--rollback", NAME, "--list"), ("--rollback", NAME, "--remove", NAME)]
)
def test_options_that_do_not_go_together_are_refused(arguments: tuple[str, ...]) -> None:
    assert ask(*arguments).exit_code == 2


@pytest.fixture
def plans(tmp_path: Path) -> list[ExportPlan]:
    """Two exports of one name from two sources, done in this order."""
    sources = [write_checkpoint(tmp_path / f"mood{seed}", seed=seed) for seed in (0, 1)]
    found = [
        ExportPlan(
            source,
            tmp_path / "repository",
            tmp_path / "artefacts",
            name="@x/mood",
            timing=None,
            limits=LENIENT,
            all_precisions=False,
        )
        for source in sources
    ]
    for plan in found:
        run_export(plan)
    return found


def test_a_start_of_a_container_does_not_undo_a_rollback(plans: list[ExportPlan]) -> None:
    rollback_model(plans[1].repository, "@x/mood")
    record = unchanged_export(plans[1])
    assert (record.version, record.pinned) == (2, 1)
    # Another source is a reason to export, and so is a damaged file.
    with pytest.raises(ExportNeeded, match="changed since"):
        unchanged_export(plans[0])
    (plans[1].repository / "x-mood_encoder_int8" / "1" / "model.onnx").unlink()
    with pytest.raises(ExportNeeded, match="not as the last one left it"):
        unchanged_export(plans[1])
    rollback_model(plans[1].repository, "@x/mood", 2)
    assert unchanged_export(plans[1]).pinned == 2


def test_neither_an_update_nor_another_host_undoes_a_rollback_but_an_option_does(
    plans: list[ExportPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plans[1]
    rollback_model(plan.repository, "@x/mood")
    monkeypatch.setattr(fingerprint, "describe_processor", lambda: Processor("another", ("none",), False))
    monkeypatch.setattr(
        fingerprint, "_exporter", lambda: {"tritonflare": "9", "exporter": "x", "package onnx": "9"}
    )
    assert unchanged_export(plan).pinned == 1
    for changed in (
        {"instances": 2},
        {"precision": "fp32"},
        {"allow_poor": True},
        {"limits": DEFAULT_LIMITS},
    ):
        with pytest.raises(ExportNeeded, match=f"changed since the last one: option {next(iter(changed))}$"):
            unchanged_export(dataclasses.replace(plan, **changed))
    examples = plan.artefacts / "reviews.csv"
    examples.write_text("text,label\ngood,LABEL_0\n", encoding="utf-8")
    with pytest.raises(ExportNeeded, match=r"changed since the last one: evaluation file$"):
        unchanged_export(dataclasses.replace(plan, examples=examples))
    # Without the rollback, the update counts.
    unpin(plan.repository, "x-mood")
    with pytest.raises(ExportNeeded, match="exporter"):
        unchanged_export(plan)


def test_an_option_that_an_update_brings_or_whose_default_it_changes_does_not_undo_a_rollback(
    plans: list[ExportPlan],
) -> None:
    rollback_model(plans[1].repository, "@x/mood")
    file = plans[1].artefacts / "x-mood" / RECORD
    record = json.loads(file.read_text())
    del record["fingerprint"]["option allow_poor"]
    record["fingerprint"]["option instances"] = "7"  # left at its default, which was another then
    record["fingerprint"]["option of old"] = "true"
    file.write_text(json.dumps(record))
    assert unchanged_export(plans[1]).pinned == 1
    with pytest.raises(ExportNeeded, match="option allow_poor"):
        unchanged_export(dataclasses.replace(plans[1], allow_poor=True))
    with pytest.raises(ExportNeeded, match="option instances"):
        unchanged_export(dataclasses.replace(plans[1], instances=2))


def test_a_hub_that_does_not_answer_does_not_undo_a_rollback() -> None:
    before = fingerprint.hub_digests("org/mood", "a" * 40)
    assert chosen_differences(before, fingerprint.hub_digests("org/mood", "b" * 40)) == ["commit on the hub"]
    assert chosen_differences(before, fingerprint.unanswered_digests("org/mood")) == []
    assert chosen_differences(before, fingerprint.unanswered_digests("org/mad")) == ["checkpoint"]


def test_an_export_ends_what_a_rollback_chose(shop: Shop) -> None:
    shop.publish("w1")
    shop.publish("w2")
    rollback_model(shop.repository, NAME)
    assert pinned_version(shop.repository, MOOD.ensemble) == 1
    shop.publish("w2")
    assert pinned_version(shop.repository, MOOD.ensemble) is None


def test_a_choice_that_was_never_published_counts_for_nothing(plans: list[ExportPlan]) -> None:
    pin_version(plans[1].repository, "x-mood", 1)
    assert unchanged_export(plans[1]).pinned == 0


def test_a_version_whose_alias_another_model_has_by_now_is_not_published(shop: Shop) -> None:
    shop.publish("w1", aliases=("mood",))
    shop.publish("w2")
    shop.publish("w3", name="@cf/acme/other", aliases=("mood",))
    before = shop.files()
    with pytest.raises(ExportError, match="answers to mood too, which is a name of @cf/acme/other now"):
        rollback_model(shop.repository, NAME)
    assert shop.files() == before
    shop.publish("w3", name="@cf/acme/other")
    assert rollback_model(shop.repository, NAME) == (2, 1)


def test_what_follows_the_exchange_still_holds_the_lock(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    seen = []

    def replaced(result: str) -> None:
        seen.append((result, json.loads((repository / "note").read_text())))

    def change(root: Path) -> str:
        (root / "note").write_text("1")
        return "done"

    assert replace_repository(repository, change, replaced) == "done"
    assert seen == [("done", 1)]
