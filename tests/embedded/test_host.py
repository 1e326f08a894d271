from __future__ import annotations

import importlib.metadata
import platform
import sys

import pytest

from embedded import host, wheel
from embedded.errors import EmbeddedError


def finding(name: str) -> host.HostFinding:
    return next(f for f in host.findings() if f.name == name)


def test_this_machine_passes_every_check() -> None:
    host.require()


def test_numpy_2_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "2.4.0" if name == "numpy" else real(name)
    )
    with pytest.raises(EmbeddedError, match=r"^numpy: 2\.4\.0\. .*pip install 'numpy<2'"):
        host.require()


@pytest.mark.parametrize(
    ("version", "good"), [("2.34", False), ("2.35", True), ("2.36", True), ("3.0", True)]
)
def test_an_old_c_library_is_refused(monkeypatch: pytest.MonkeyPatch, version: str, good: bool) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", version))
    assert finding("C library").ok is good


def test_another_c_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert "docker compose" in finding("C library").remedy


@pytest.mark.parametrize("version", [(3, 9), (3, 13)])
def test_a_python_without_a_stub_is_refused(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int]
) -> None:
    monkeypatch.setattr(sys, "version_info", (*version, 0))
    assert "3.10, 3.11 and 3.12" in host._python().remedy


def test_a_missing_libpython_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_config_var", lambda name: "/nowhere")
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    assert f"apt-get install libpython3.{sys.version_info.minor}" in finding("libpython").remedy


def test_a_missing_wheel_comes_with_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EmbeddedError, match="make serve"):
        wheel.folder()
    assert "make serve" in finding("nvidia-pytriton").remedy


def test_another_processor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert "x86-64" in finding("platform").remedy
