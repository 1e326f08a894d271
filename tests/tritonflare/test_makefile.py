"""What ``make serve`` and ``make doctor`` start, with a stand-in for the command."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_COMMAND = """\
#!/bin/sh
echo "$* GATEWAY_GRPC_PORT=$GATEWAY_GRPC_PORT"
"""


@pytest.mark.parametrize("target", ["serve", "doctor"])
@pytest.mark.parametrize(("given", "used"), [(None, "8001"), ("9001", "9001"), ("", "")])
def test_make_turns_grpc_on_unless_another_port_or_none_is_set(
    tmp_path: Path, target: str, given: str | None, used: str
) -> None:
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "tritonflare"
    command.write_text(_COMMAND)
    command.chmod(0o755)
    # Newer than all that they are made of, so that make makes neither.
    (tmp_path / ".serve").touch()
    (tmp_path / "model").touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    if given is not None:
        environment["GATEWAY_GRPC_PORT"] = given
    done = subprocess.run(
        ["make", "--no-print-directory", target, f"VENV={tmp_path}", f"MODEL={tmp_path / 'model'}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{target} GATEWAY_GRPC_PORT={used}\n", "")
