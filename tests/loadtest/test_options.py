"""What the load test's options take and refuse."""

from __future__ import annotations

import argparse

import pytest

from loadtest.options import add_arguments, share


class _Parser(argparse.ArgumentParser):
    """Argparse in the place of configargparse, which knows environment variables as well."""

    def add_argument(self, *flags: str, env_var: str = "", **more: object) -> argparse.Action:
        return super().add_argument(*flags, **more)  # type: ignore[arg-type]


def parser() -> argparse.ArgumentParser:
    """A parser with our options alone."""
    made = _Parser(exit_on_error=False)
    add_arguments(made)
    return made


@pytest.mark.parametrize(("text", "value"), [("0", 0.0), ("0.25", 0.25), ("1", 1.0)])
def test_a_share_is_between_none_and_all(text: str, value: float) -> None:
    assert share(text) == value


@pytest.mark.parametrize("option", ["--max-error-share", "--min-achieved-share"])
@pytest.mark.parametrize("text", ["nan", "-0.1", "1.01", "inf", "half", ""])
def test_a_limit_that_would_let_everything_pass_is_refused(option: str, text: str) -> None:
    with pytest.raises(argparse.ArgumentError, match="no share from 0 to 1"):
        parser().parse_args([f"{option}={text}"])
