"""The systemd unit: well-formed, restricted, and with time enough to stop. systemd itself does not run it."""

from __future__ import annotations

import subprocess
from configparser import ConfigParser
from pathlib import Path

from embedded.server import EXIT_TIMEOUT_S
from gateway.settings import Settings
from tests.support.programs import required

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "tritonflare.service"
COMMAND = "/opt/tritonflare/bin/tritonflare"
MAX_EXPOSURE = 2.0
"""Of 10, as `systemd-analyze security` counts; a unit without restrictions has 9.2 to 9.6."""


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = required("systemd-analyze", "needs systemd-analyze (apt-get install systemd)")
    return subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


def service() -> dict[str, str]:
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    return dict(parser["Service"])


def test_systemd_has_nothing_to_say_about_the_unit(tmp_path: Path) -> None:
    text = UNIT.read_text(encoding="utf-8")
    assert text.count(COMMAND) == 1
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace(COMMAND, "/bin/true"))  # the command has to exist
    done = analyze("verify", "--man=no", unit)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_unit_is_restricted() -> None:
    threshold = round(10 * MAX_EXPOSURE)
    done = analyze("security", "--offline=true", "--no-pager", f"--threshold={threshold}", UNIT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_gateway_and_triton_have_time_to_stop() -> None:
    settings = Settings()
    drain_s = settings.shutdown_delay_s + settings.drain_timeout_s
    triton_s = EXIT_TIMEOUT_S + 5
    assert float(service()["TimeoutStopSec"].removesuffix("s")) >= drain_s + triton_s + 10


def test_only_the_gateway_gets_the_signal_to_stop() -> None:
    assert service()["KillMode"] == "mixed"


def test_the_service_writes_to_its_state_folder_only() -> None:
    found = service()
    assert found["Environment"] == "TRITONFLARE_HOME=%S/" + found["StateDirectory"]
    assert found["ProtectSystem"] == "strict"
    assert "ReadWritePaths" not in found
