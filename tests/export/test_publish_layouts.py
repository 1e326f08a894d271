"""A model changes its layout as it changes its precision: the next version, and the other folders go."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from export.errors import ExportError
from export.repository.inventory import read_inventory, verify_repository
from export.repository.publish import remove_model
from tests.export.test_publish import MOOD, Shop


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_a_joined_model_has_two_folders_and_no_shared_tokenizer(shop: Shop) -> None:
    model = shop.publish(layout="joined")
    assert model.encoder == model.tokenizer == "cf-acme-mood_joined_int8"
    assert shop.entries() == {"cf-acme-mood", "cf-acme-mood_joined_int8"}
    (published,) = read_inventory(shop.repository)
    assert published.layout == "joined"
    assert published.folders == ("cf-acme-mood", "cf-acme-mood_joined_int8")
    assert published.weights_file(shop.repository).read_text() == "w"
    assert published.tokenizer_file(shop.repository).read_text() == "t"
    assert verify_repository(shop.repository) == []


def test_the_layout_changes_and_changes_back(shop: Shop) -> None:
    first = shop.publish()
    second = shop.publish(layout="joined")
    assert (second.version, shop.numbers(second.encoder), shop.numbers(second.ensemble)) == (
        2,
        {"2"},
        {"1", "2"},
    )
    assert shop.entries() == {"cf-acme-mood", second.encoder}
    third = shop.publish()
    assert (third.version, shop.numbers(third.encoder), shop.numbers(third.ensemble)) == (
        3,
        {"3"},
        {"2", "3"},
    )
    assert shop.entries() == {"cf-acme-mood", first.encoder, first.tokenizer}
    assert [model.layout for model in read_inventory(shop.repository)] == ["steps"]
    assert verify_repository(shop.repository) == []


def test_a_joined_model_keeps_its_number_and_its_bytes(shop: Shop) -> None:
    shop.publish(layout="joined")
    before = shop.files()
    assert shop.publish(layout="joined").version == 1
    assert shop.files() == before


@pytest.mark.parametrize("change", [{"weights": "other"}, {"tokens": "other"}, {"max_tokens": 32}])
def test_other_content_of_a_joined_model_is_the_next_version(shop: Shop, change: dict[str, Any]) -> None:
    shop.publish(layout="joined")
    for expected, again in ((2, change), (3, {})):
        model = shop.publish(layout="joined", **again)
        assert model.version == expected
        assert (
            shop.numbers(model.encoder) == shop.numbers(model.ensemble) == {str(expected - 1), str(expected)}
        )
        assert verify_repository(shop.repository) == []


def test_a_joined_model_without_weights_is_filled_in_and_not_counted(shop: Shop) -> None:
    model = shop.publish(layout="joined")
    before = shop.files()
    (shop.repository / model.encoder / "1" / "model.onnx").unlink()
    (shop.repository / model.encoder / "1" / "tokenizer.json").unlink()
    assert shop.publish(layout="joined").version == 1
    assert shop.files() == before


def test_a_tokenizer_stays_for_the_models_that_still_share_it(shop: Shop) -> None:
    shop.publish()
    other = shop.publish(name="@x/two")
    joined = shop.publish(layout="joined")
    assert shop.entries() == {
        joined.ensemble, joined.encoder, other.ensemble, other.encoder, other.tokenizer,
    }  # fmt: skip
    remove_model(shop.repository, other.name)
    assert shop.entries() == {joined.ensemble, joined.encoder}
    assert verify_repository(shop.repository) == []


def test_another_precision_of_a_joined_model_takes_the_place_of_the_first(shop: Shop) -> None:
    shop.publish(layout="joined")
    model = shop.publish(layout="joined", precision="fp32")
    assert model.version == 2
    assert shop.entries() == {"cf-acme-mood", "cf-acme-mood_joined_fp32"}


def test_a_joined_model_is_removed_whole(shop: Shop) -> None:
    shop.publish(layout="joined")
    remove_model(shop.repository, MOOD.name)
    assert shop.entries() == set()


def test_a_joined_folder_whose_configuration_is_damaged_is_replaced(shop: Shop) -> None:
    model = shop.publish(layout="joined")
    for folder in (model.ensemble, model.encoder):
        file = shop.repository / folder / "config.pbtxt"
        file.unlink()
        file.write_text("{")
    shop.publish(layout="joined")
    assert verify_repository(shop.repository) == []


@pytest.mark.parametrize("layout", ["steps", "joined"])
def test_a_joined_folder_that_was_left_behind_goes(shop: Shop, layout: str) -> None:
    left = shop.publish(layout="joined", precision="fp32")
    shop.repository.joinpath(left.ensemble, "config.pbtxt").unlink()
    model = shop.publish(layout=layout)
    assert left.encoder not in shop.entries()
    assert verify_repository(shop.repository) == []
    assert model.encoder in shop.entries()


@pytest.mark.parametrize("target", ["cuda", "onnxruntime", "tensorrt"])
def test_only_the_cpus_model_can_be_joined(target: str) -> None:
    with pytest.raises(ExportError, match="the layout joined is for the target cpu"):
        dataclasses.replace(MOOD, target=target, layout="joined")
    with pytest.raises(ExportError, match="'one' is no layout; known are steps and joined"):
        dataclasses.replace(MOOD, layout="one")


def test_the_catalogue_entry_is_the_same_in_either_layout() -> None:
    assert dataclasses.replace(MOOD, layout="joined").parameters() == MOOD.parameters()
