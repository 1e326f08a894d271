"""Answers of two models are compared by the names of their labels."""

from __future__ import annotations

import pytest

from gateway.domain.service import Classification
from gateway.settings.inference import read_shadows
from gateway.shadow.comparison import compare


def answer(**scores: float) -> Classification:
    return Classification(list(scores.items()), tokens=3, truncated=False)


def test_the_order_of_labels_does_not_matter() -> None:
    found = compare(answer(bad=0.2, good=0.8), answer(good=0.7, bad=0.3))
    assert found.agrees
    assert found.shift == pytest.approx(-0.1)


def test_the_shift_is_that_of_the_label_that_the_caller_got() -> None:
    found = compare(answer(bad=0.2, good=0.8), answer(bad=0.9, good=0.1))
    assert not found.agrees
    assert found.shift == pytest.approx(-0.7)


def test_a_label_that_the_second_model_does_not_have_has_no_shift() -> None:
    found = compare(answer(bad=0.2, good=0.8), answer(negative=0.1, positive=0.9))
    assert (found.agrees, found.shift) == (False, None)


def test_the_setting_names_second_models_and_shares() -> None:
    assert read_shadows(" @cf/a/b = @cf/a/c:0.1 , x=y:z:1 ") == {
        "@cf/a/b": ("@cf/a/c", 0.1),
        "x": ("y:z", 1.0),
    }
    assert read_shadows("") == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a", "of the form"),
        ("a=b", "of the form"),
        ("a=b:x", "of the form"),
        ("a=b:nan", "of the form"),
        ("a=b:1e-3", "of the form"),
        ("a=b=c:1", "of the form"),
        ("=b:1", "of the form"),
        ("a=b:0", "share"),
        ("a=b:0.0", "share"),
        ("a=b:1.5", "share"),
        ("a=a:1", "its own"),
        ("a=b:1,a=c:1", "twice"),
    ],
)
def test_what_is_no_such_list_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_shadows(text)
