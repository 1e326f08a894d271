"""Several models in one repository, their versions, and what goes when one goes."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest

from export.errors import ExportError
from export.repository.inventory import read_inventory, verify_repository
from export.repository.publish import publish_model, remove_model
from export.spec import ServedModel

MOOD = ServedModel(
    name="@cf/acme/mood", labels=("a", "b"), max_tokens=64, precision="int8", target="cpu",
    problem_type="single_label_classification", checkpoint="mood", description="moods",
    created_at="2026-01-01 00:00:00.000", weights_sha256="0" * 64, tokenizer_sha256="", model_sha256="",
)  # fmt: skip


class Shop:
    """A repository and a way to publish made-up content into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / "repository"

    def publish(self, weights: str = "w", tokens: str = "t", **change: Any) -> ServedModel:
        onnx, tokenizer = self.folder / f"{weights}.onnx", self.folder / f"{tokens}.json"
        onnx.write_text(weights)
        tokenizer.write_text(tokens)
        model = dataclasses.replace(
            MOOD,
            model_sha256=hashlib.sha256(weights.encode()).hexdigest(),
            tokenizer_sha256=hashlib.sha256(tokens.encode()).hexdigest(),
            **change,
        )
        return publish_model(self.repository, model, onnx, tokenizer)

    def entries(self) -> set[str]:
        return {path.name for path in self.repository.iterdir()}

    def numbers(self, folder: str) -> set[str]:
        return {path.name for path in (self.repository / folder).iterdir() if path.name.isdecimal()}

    def files(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.repository.rglob("*") if path.is_file()}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_the_same_content_keeps_its_number_and_its_bytes(shop: Shop) -> None:
    first = shop.publish()
    before = shop.files()
    assert shop.publish().version == first.version == 1
    assert shop.files() == before


def test_a_new_date_alone_is_no_new_version(shop: Shop) -> None:
    shop.publish()
    assert shop.publish(created_at="2027-01-01 00:00:00.000").version == 1
    (model,) = read_inventory(shop.repository)
    assert model.created_at == "2027-01-01 00:00:00.000"


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "other"},
        {"tokens": "other"},
        {"instances": 3},
        {"description": "other"},
        {"labels": ("x", "y")},
        {"precision": "fp32"},
        {"target": "onnxruntime"},
        {"layout": "joined"},
    ],
)
def test_any_other_content_is_the_next_version(shop: Shop, change: dict[str, Any]) -> None:
    shop.publish()
    new = shop.publish(**change)
    assert new.version == 2
    assert max(shop.numbers(new.encoder)) == max(shop.numbers(new.ensemble)) == "2"
    (model,) = read_inventory(shop.repository)
    assert (model.version, model.precision, model.target) == (2, new.precision, new.target)
    assert verify_repository(shop.repository) == []


def test_the_version_before_stays_and_older_ones_go(shop: Shop) -> None:
    for weights in "abcd":
        model = shop.publish(weights)
    assert shop.numbers(model.encoder) == shop.numbers(model.ensemble) == {"3", "4"}
    assert (shop.repository / model.encoder / "3" / "model.onnx").read_text() == "c"
    assert (shop.repository / model.encoder / "4" / "model.onnx").read_text() == "d"


def test_a_version_without_weights_is_filled_in_and_not_counted(shop: Shop) -> None:
    model = shop.publish()
    before = shop.files()
    # As in a fresh clone: git keeps the configurations and model.py.
    (shop.repository / model.encoder / "1" / "model.onnx").unlink()
    (shop.repository / model.tokenizer / "1" / "tokenizer.json").unlink()
    assert shop.publish().version == 1
    assert shop.files() == before
    (shop.repository / model.encoder / "1" / "model.onnx").unlink()
    assert shop.publish("other").version == 1


def test_a_damaged_model_is_replaced_under_its_number(shop: Shop) -> None:
    shop.publish("a")
    model = shop.publish("b")
    file = shop.repository / model.encoder / "2" / "model.onnx"
    file.unlink()
    file.write_text("damaged")
    assert shop.publish("b").version == 2
    assert file.read_text() == "b"


def test_a_damaged_configuration_is_replaced(shop: Shop) -> None:
    model = shop.publish()
    for folder in (model.ensemble, model.encoder, model.tokenizer):
        file = shop.repository / folder / "config.pbtxt"
        file.unlink()
        file.write_text("{")
    shop.publish()
    assert verify_repository(shop.repository) == []


def test_two_precisions_of_a_checkpoint_share_their_tokenizer(shop: Shop) -> None:
    one = shop.publish("int8")
    two = shop.publish("fp32", name="@cf/acme/mood-fp32", precision="fp32")
    assert one.tokenizer == two.tokenizer
    assert shop.entries() == {
        "cf-acme-mood", "cf-acme-mood_encoder_int8",
        "cf-acme-mood-fp32", "cf-acme-mood-fp32_encoder_fp32", one.tokenizer,
    }  # fmt: skip
    assert shop.numbers(one.tokenizer) == {"1"}
    assert verify_repository(shop.repository) == []


def test_a_tokenizer_goes_with_its_last_model(shop: Shop) -> None:
    one = shop.publish()
    shop.publish(name="@x/two")
    three = shop.publish(name="@x/three", tokens="other")
    remove_model(shop.repository, "@x/two")
    assert one.tokenizer in shop.entries()
    remove_model(shop.repository, "@cf/acme/mood")
    assert shop.entries() == {three.ensemble, three.encoder, three.tokenizer}


def test_a_replaced_model_takes_its_tokenizer_along_unless_another_uses_it(shop: Shop) -> None:
    old = shop.publish()
    other = shop.publish(name="@x/two")
    new = shop.publish(tokens="new")
    assert {old.tokenizer, new.tokenizer} <= shop.entries()
    remove_model(shop.repository, other.name)
    assert old.tokenizer not in shop.entries()
    new = shop.publish(tokens="newer")
    assert shop.entries() == {new.ensemble, new.encoder, new.tokenizer}


def test_a_tokenizer_stays_while_its_users_are_unknown(shop: Shop) -> None:
    one = shop.publish()
    two = shop.publish(name="@x/two")
    config = shop.repository / two.ensemble / "config.pbtxt"
    config.unlink()
    config.write_text("{")
    remove_model(shop.repository, one.name)
    assert two.tokenizer in shop.entries()


def test_what_is_not_ours_stays(shop: Shop) -> None:
    foreign = shop.repository / "somebody_elses" / "1"
    foreign.mkdir(parents=True)
    (foreign.parent / "config.pbtxt").write_text('name: "somebody_elses" field_of_a_newer_triton: 1')
    (shop.repository / "README.md").write_text("text")
    shop.publish()
    shop.publish("b")
    remove_model(shop.repository, MOOD.name)
    assert shop.entries() == {"somebody_elses", "README.md"}


def foreign(shop: Shop, folder: str, config: str | None = None) -> None:
    for version in "135":
        (shop.repository / folder / version).mkdir(parents=True)
        (shop.repository / folder / version / "model.onnx").write_text("theirs")
    if config is not None:
        (shop.repository / folder / "config.pbtxt").write_text(config)


@pytest.mark.parametrize("config", [None, "{", 'backend: "onnxruntime"', 'input { name: "input_ids" }'])
@pytest.mark.parametrize(
    ("folder", "layout"),
    [
        ("cf-acme-mood", "steps"),
        ("cf-acme-mood_encoder_int8", "steps"),
        ("TOKENIZER", "steps"),
        ("cf-acme-mood_joined_int8", "joined"),
    ],
)
def test_a_foreign_model_under_our_name_is_refused_and_kept(
    shop: Shop, folder: str, layout: str, config: str | None
) -> None:
    model = shop.publish(layout=layout)
    remove_model(shop.repository, model.name)
    foreign(shop, folder.replace("TOKENIZER", model.tokenizer), config)
    before = shop.files()
    with pytest.raises(ExportError, match="in the repository is not this exporter's; move it away"):
        shop.publish(layout=layout)
    assert shop.files() == before


def test_a_folder_that_is_a_link_is_not_written_through(shop: Shop) -> None:
    model = shop.publish()
    elsewhere = shop.folder / "elsewhere"
    for name in (model.ensemble, model.encoder, model.tokenizer):
        folder = shop.repository / name
        folder.rename(elsewhere)
        folder.symlink_to(elsewhere)
        with pytest.raises(ExportError, match=f"{name} in the repository is not this exporter's"):
            shop.publish("other")
        folder.unlink()
        elsewhere.rename(folder)
    assert shop.publish().version == 1


@pytest.mark.parametrize(
    "folder",
    [
        "encoder_v2",
        "encoder_experiment",
        "encoder_fp32",
        "encoder_int8_plan",
        "tokenizer",
        "joined_v2",
        "joined_fp32",
        "joined_int8",
    ],
)
def test_what_only_begins_like_our_name_stays(shop: Shop, folder: str) -> None:
    folder = f"cf-acme-mood_{folder}"
    shop.publish()
    foreign(shop, folder, 'backend: "onnxruntime"')
    theirs = {path: text for path, text in shop.files().items() if folder in path.parts}
    shop.publish("b")
    remove_model(shop.repository, MOOD.name)
    assert shop.files() == theirs


def test_the_fallback_behind_a_plan_goes_with_its_model(shop: Shop) -> None:
    model = shop.publish(target="onnxruntime", precision="fp16")
    config = shop.repository / model.ensemble / "config.pbtxt"
    served = config.read_text()
    config.unlink()
    config.write_text(served.replace(model.encoder, "cf-acme-mood_encoder_int8_plan"))
    remove_model(shop.repository, model.name)
    assert shop.entries() == set()


def test_a_plan_beside_the_fallback_goes_with_its_model(shop: Shop) -> None:
    model = shop.publish(target="onnxruntime", precision="fp16")
    plan = shop.repository / f"{model.encoder}_plan" / "1"
    plan.mkdir(parents=True)
    (plan / "model.plan").touch()
    (plan.parent / "plan.json").write_text("{}")
    shop.publish("b", target="onnxruntime", precision="fp16")
    assert not plan.exists()


def test_folders_of_the_first_release_are_replaced(shop: Shop) -> None:
    (shop.repository / "cf-acme-mood_tokenizer" / "1").mkdir(parents=True)
    shop.publish()
    assert "cf-acme-mood_tokenizer" not in shop.entries()


@pytest.mark.parametrize(
    "names",
    [("@a/b/c", "@a/b-c"), ("@a/b", "@a/b_encoder_int8"), ("@a/b", "@a/b_joined_int8"), ("@a/b", "a/b")],
)
def test_names_that_would_share_folders_are_refused_in_either_order(
    shop: Shop, names: tuple[str, str]
) -> None:
    for first, second in (names, names[::-1]):
        shop.publish(name=first)
        before = shop.files()
        with pytest.raises(ExportError, match="would share folders"):
            shop.publish(name=second)
        assert shop.files() == before
        remove_model(shop.repository, first)


def test_a_model_that_is_not_what_it_claims_is_not_published(shop: Shop, tmp_path: Path) -> None:
    shop.publish()
    before = shop.files()
    (tmp_path / "other").write_text("other")
    wrong = dataclasses.replace(MOOD, model_sha256="1" * 64, tokenizer_sha256="2" * 64)
    with pytest.raises(
        ExportError, match=r"was not changed, as @cf/acme/mood would be damaged: .*model\.onnx"
    ):
        publish_model(shop.repository, wrong, tmp_path / "other", tmp_path / "other")
    assert shop.files() == before


def test_removing_an_unknown_model_names_the_known_ones(shop: Shop) -> None:
    shop.publish()
    shop.publish(name="@x/two")
    before = shop.files()
    with pytest.raises(ExportError, match=r"no model is called @y; published: @cf/acme/mood, @x/two\."):
        remove_model(shop.repository, "@y")
    assert shop.files() == before


def test_removing_from_no_repository_makes_none(shop: Shop) -> None:
    with pytest.raises(ExportError, match="there is no model repository"):
        remove_model(shop.repository, "@y")
    assert not shop.repository.exists()
