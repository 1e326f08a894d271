"""The pieces for a machine without a network: how they are cut, and that they can be put together there."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tools.gpu_check.bundle import LOCK, ROOT, for_python, main, write_bundle
from tools.gpu_check.pieces import MANIFEST, cut
from tritonflare.progress import Steps

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
COREUTILS = ("cat", "chmod", "dirname", "head", "mkdir", "rm", "sha256sum")
_BACKEND = """
import zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "project-1-py3-none-any.whl"
    with zipfile.ZipFile(folder + "/" + name, "w") as wheel:
        facts = "Metadata-Version: 2.1\\nName: project\\nVersion: 1\\n"
        wheel.writestr("project-1.dist-info/METADATA", facts)
        facts = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        wheel.writestr("project-1.dist-info/WHEEL", facts)
        wheel.writestr("project-1.dist-info/RECORD", "")
    return name
"""
_CHECK = "import part, sys; print('checked', part.VALUE, *sys.argv[1:])"


def test_large_files_are_split_and_small_ones_share_a_piece(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(range(256)) * 10)
    (tmp_path / "small").write_bytes(b"small")
    (tmp_path / "none").write_bytes(b"")
    out = tmp_path / "out"
    out.mkdir()
    found = cut(
        {"wheels/large": tmp_path / "large", "none": tmp_path / "none", "small": tmp_path / "small"},
        out,
        1000,
        lambda _done, _total: None,
    )
    assert [(piece.name, piece.size) for piece in found.pieces] == [
        ("piece-001", 1000), ("piece-002", 1000), ("piece-003", 565)
    ]  # fmt: skip
    joined = b"".join((out / piece.name).read_bytes() for piece in found.pieces)
    assert joined == bytes(range(256)) * 10 + b"small"
    for entry, content in ((found.files[0], joined[:2560]), (found.pieces[2], joined[2000:])):
        assert entry.sha256 == hashlib.sha256(content).hexdigest()
    assert found.manifest({"python": "3.12"}).splitlines() == [
        "python 3.12",
        *(f"piece {each.size} {each.sha256} {each.name}" for each in found.pieces),
        *(f"file {each.size} {each.sha256} {each.name}" for each in found.files),
    ]


@pytest.mark.parametrize("path", ["../x", "a b", "/x", "a/../../x"])
def test_a_path_that_would_leave_the_folder_or_that_a_shell_splits_is_refused(
    tmp_path: Path, path: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot be a path"):
        cut({path: tmp_path / "file"}, tmp_path, 10, lambda _done, _total: None)


def test_requirements_are_those_of_the_other_python() -> None:
    lock = (
        "# a comment\n"
        "a==1 ; python_full_version < '3.11' \\\n    --hash=sha256:11\n"
        "a==2 ; python_full_version >= '3.11' \\\n    --hash=sha256:22 \\\n    --hash=sha256:23\n"
        "b==3 ; sys_platform == 'win32' \\\n    --hash=sha256:33\n"
        "c==4 \\\n    --hash=sha256:44\n"
    )
    old, new = for_python(lock, "3.10"), for_python(lock, "3.12")
    assert old == "a==1 \\\n    --hash=sha256:11\nc==4 \\\n    --hash=sha256:44\n"
    assert new == ("a==2 \\\n    --hash=sha256:22 \\\n    --hash=sha256:23\nc==4 \\\n    --hash=sha256:44\n")
    with pytest.raises(ValueError, match="no exact version"):
        for_python("a>=1\n", "3.12")
    with pytest.raises(ValueError, match="no hash"):
        for_python("a==1\n", "3.12")


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12"])
def test_the_lock_file_for_a_gpu_gives_every_package_once(python: str) -> None:
    lines = for_python(LOCK.read_text(encoding="utf-8"), python).splitlines()
    names = [line.partition("==")[0] for line in lines if not line.startswith(" ")]
    assert len(names) == len(set(names))
    assert {"nvidia-pytriton", "onnxruntime-gpu", "nvidia-ml-py"} <= set(names)
    assert "onnxruntime" not in names, "it has the files of onnxruntime-gpu"


def test_the_document_says_how_many_pieces_there_are_and_how_large() -> None:
    page = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    found = re.search(r"(\d+) pieces of at most (\d+) MB, ([\d.]+) GB in all", page)
    assert found is not None
    pieces, most_mb, gigabytes = int(found[1]), int(found[2]), float(found[3])
    (default,) = (option.default for option in main.params if option.name == "piece_mb")
    assert most_mb == default
    # All but the last are full; the size is rounded to a tenth.
    assert (pieces - 1) * most_mb / 1000 < gigabytes + 0.05
    assert gigabytes - 0.05 < pieces * most_mb / 1000
    download = re.search(r"a driver; ([\d.]+) GB to download", page)
    assert download is not None
    assert float(download[1]) <= gigabytes, "the wheels, and the project"


def _stage(folder: Path) -> None:
    """A bundle's content with a wheel and a project that need nothing of a registry."""
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    wheel = wheels / "part-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as made:
        made.writestr("part.py", "VALUE = 42\n")
        made.writestr("part-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: part\nVersion: 1\n")
        facts = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        made.writestr("part-1.dist-info/WHEEL", facts)
        made.writestr("part-1.dist-info/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (folder / "requirements.txt").write_text(f"part==1 \\\n    --hash=sha256:{digest}\n")
    project = folder.parent / "project"
    (project / "tools" / "gpu_check").mkdir(parents=True)
    (project / "tools" / "gpu_check" / "__main__.py").write_text(_CHECK)
    (project / "backend.py").write_text(_BACKEND)
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    with tarfile.open(folder / "project.tar", "w") as archive:
        for file in sorted(project.iterdir()):
            archive.add(file, file.name)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A folder with pieces of 1,000 bytes."""
    _stage(tmp_path / "staged")
    output = tmp_path / "bundle"
    output.mkdir()
    write_bundle(tmp_path / "staged", output, 1000, {"python": PYTHON, "commit": "0123"}, Steps())
    return output


def _assemble(bundle: Path, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    """Run the script where there is nothing but coreutils and Python."""
    programs = bundle.parent / "bin"
    programs.mkdir(exist_ok=True)
    for name in COREUTILS:
        if not (programs / name).exists():
            (programs / name).symlink_to(shutil.which(name) or name)
    return subprocess.run(
        ["/bin/sh", "assemble.sh", "../made"],
        cwd=bundle,
        env={"PATH": str(programs), "PYTHON": python, "HOME": str(bundle.parent)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_pieces_become_a_program_with_coreutils_and_python_alone(bundle: Path) -> None:
    assert len(list(bundle.glob("piece-*"))) > 3
    done = _assemble(bundle)
    assert done.returncode == 0, done.stdout + done.stderr
    made = bundle.parent / "made"
    assert done.stdout.startswith("Done. Now: ")
    ran = subprocess.run([made / "gpu-check", "--device", "cpu"], capture_output=True, text=True, check=True)
    assert ran.stdout == "checked 42 --device cpu\n"


def test_a_damaged_or_missing_piece_is_named_and_nothing_is_made(bundle: Path) -> None:
    piece = bundle / "piece-002"
    content = piece.read_bytes()
    piece.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (bundle / "piece-003").unlink()
    done = _assemble(bundle)
    assert done.returncode == 1
    assert "piece-002: FAILED" in done.stdout
    assert "piece-003" in done.stdout + done.stderr
    assert "copy them again" in done.stderr
    assert not (bundle.parent / "made").exists()


def test_another_python_is_refused_before_anything_is_made(bundle: Path) -> None:
    manifest = bundle / MANIFEST
    manifest.write_text(manifest.read_text().replace(f"python {PYTHON}", "python 3.9"))
    done = _assemble(bundle)
    assert done.returncode == 1
    assert "Python 3.9 with venv is needed" in done.stderr
    assert not (bundle.parent / "made").exists()


def test_a_folder_that_exists_is_left_alone(bundle: Path) -> None:
    (bundle.parent / "made").mkdir()
    done = _assemble(bundle)
    assert done.returncode == 1
    assert "exists; remove it" in done.stderr
