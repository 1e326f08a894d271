"""Which texts of a request were cut, as a header says it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.api.results import batch_headers, truncated_texts
from gateway.domain.service import BatchItem, Classification


def test_a_list_of_cut_texts_that_is_too_long_for_a_header_is_left_out() -> None:
    items = [BatchItem(None, Classification([], 1, truncated=place % 2 == 0)) for place in range(1000)]
    headers = dict(batch_headers(items, "id"))
    assert headers[b"x-truncated"] == b"true"
    assert b"x-truncated-texts" not in headers
    assert dict(batch_headers(items[:200], "id"))[b"x-truncated-texts"].startswith(b"0,2,4,")


@given(st.lists(st.booleans(), max_size=40))
def test_the_ranges_of_cut_texts_name_each_of_them_once(cut: list[bool]) -> None:
    runs = [part.partition("-") for part in truncated_texts(cut).split(",") if part]
    named = [place for first, _, last in runs for place in range(int(first), int(last or first) + 1)]
    assert named == [place for place, is_cut in enumerate(cut) if is_cut]
