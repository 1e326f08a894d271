from __future__ import annotations

import json
import logging

from gateway.telemetry.logs import JsonFormatter, QuietFormatter


def test_an_exception_is_logged_by_class_and_place_without_message_or_path() -> None:
    formatter = QuietFormatter("%(message)s")
    try:
        raise ValueError("a caller's private text")
    except ValueError as error:
        problem = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "request failed", (), problem)
    line = formatter.format(record)
    assert line.splitlines()[1].startswith("ValueError at tests.gateway.telemetry.test_logs:")
    assert "private" not in line
    assert ".py" not in line


def formatted(record: logging.LogRecord) -> dict[str, str]:
    line = JsonFormatter().format(record)
    assert "\n" not in line
    found: dict[str, str] = json.loads(line)
    return found


def test_a_line_of_json_has_time_level_logger_and_message() -> None:
    record = logging.LogRecord("tritonflare.x", logging.WARNING, __file__, 1, 'not "%s"', ("ready",), None)
    record.created = 1_795_342_530.1239
    assert formatted(record) == {
        "time": "2026-11-22T10:15:30.123Z",
        "level": "warning",
        "logger": "tritonflare.x",
        "message": 'not "ready"',
    }


def test_an_exception_in_json_has_neither_message_nor_path_and_the_ray_has_a_field() -> None:
    try:
        raise ValueError("a caller's private text")
    except ValueError as error:
        problem = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "request failed", (), problem)
    record.ray = "abc-TFL"
    line = formatted(record)
    assert line["ray"] == "abc-TFL"
    assert line["exception"].startswith("ValueError at tests.gateway.telemetry.test_logs:")
    assert "private" not in str(line)
    assert ".py" not in str(line)
