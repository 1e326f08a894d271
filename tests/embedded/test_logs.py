from __future__ import annotations

import logging

import pytest

from embedded.logs import LogRelay


@pytest.mark.parametrize(
    ("line", "level", "message"),
    [
        ('I1122 17:37:14.101010 77 model_lifecycle.cc:472] "loading: x:1"', logging.DEBUG, "loading: x:1"),
        ('E1122 17:37:14.101010 77 server.cc:10] "failed to load"', logging.ERROR, "failed to load"),
        ('W1122 17:37:14.101010 77 metrics.cc:5] "slow"', logging.WARNING, "slow"),
        (
            'E1122 17:37:14.101010 77 cuda.cc:5] "CUDA driver version is insufficient"',
            logging.DEBUG,
            "CUDA driver",
        ),
        ("| Model | Version |", logging.DEBUG, "| Model | Version |"),
    ],
)
def test_a_line_of_triton_gets_our_level(
    caplog: pytest.LogCaptureFixture, line: str, level: int, message: str
) -> None:
    caplog.set_level(logging.DEBUG, "tritonflare.triton")
    LogRelay().feed(line + "\n")
    (record,) = caplog.records
    assert record.levelno == level
    assert message in record.getMessage()


def test_the_last_lines_are_kept_for_the_error_message() -> None:
    relay = LogRelay(keep=2)
    for line in ("one", "", "two", "three"):
        relay.feed(line)
    assert relay.tail() == "two\nthree"
