from __future__ import annotations

import logging

from gateway.logs import QuietFormatter


def test_an_exception_is_logged_by_class_and_place_without_message_or_path() -> None:
    formatter = QuietFormatter("%(message)s")
    try:
        raise ValueError("somebody's private text")
    except ValueError as error:
        problem = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "request failed", (), problem)
    line = formatter.format(record)
    assert line.splitlines()[1].startswith("ValueError at tests.unit.gateway.test_logs:")
    assert "private" not in line
    assert ".py" not in line
