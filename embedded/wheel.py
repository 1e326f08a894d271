"""The tritonserver inside the installed nvidia-pytriton wheel, and what it needs to run."""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from pathlib import Path

from embedded.errors import EmbeddedError

INSTALL = (
    "install the extra `embedded` (in a clone, `make serve` does it; "
    "of a wheel, pip install 'FILE.whl[embedded]')"
)


def folder() -> Path:
    """Return the ``tritonserver`` folder inside the installed wheel.

    Raises:
        EmbeddedError: the wheel is not installed.
    """
    # find_spec does not import pytriton, whose import pulls in zmq and much else.
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise EmbeddedError(f"The nvidia-pytriton wheel is not installed; {INSTALL}.")
    return Path(spec.origin).parent / "tritonserver"


def library_folders() -> list[Path]:
    """Return the search path of the dynamic linker: the wheel's libraries and this Python's own."""
    folders = [folder().parents[1] / "nvidia_pytriton.libs"]
    own = sysconfig.get_config_var("LIBDIR")
    if own:
        folders.append(Path(own))
    return folders


def link_backends(backends: Path) -> None:
    """Make a backend directory with the python backend and the stub for this Python version.

    Triton expects the stub beside the backend's library, and the wheel keeps one stub for each
    Python version elsewhere.

    Raises:
        FileExistsError: the directory has a python backend.
    """
    stub = folder() / "python_backend_stubs" / f"{sys.version_info.major}.{sys.version_info.minor}"
    python = backends / "python"
    python.mkdir(parents=True)
    for source in (*(folder() / "backends" / "python").iterdir(), stub / "triton_python_backend_stub"):
        if source.is_file():
            (python / source.name).symlink_to(source)


def environment(device: str = "cpu") -> dict[str, str]:
    """Return the environment of Triton and its stubs: the wheel's libraries, this interpreter's packages.

    Args:
        device: ``cpu``, or ``cuda`` to pass on what tells programs where the driver and which GPUs are.
    """
    site = folder().parents[1]
    libraries = list(map(str, library_folders()))
    kept = ["HOME", "LANG", "TMPDIR", "TZ"]
    if device == "cuda":
        kept += (name for name in os.environ if name.startswith(("CUDA_", "NVIDIA_")))
        # Behind ours: notebooks and clusters have the driver's library in a place of their own.
        libraries += filter(None, [os.environ.get("LD_LIBRARY_PATH")])
    variables = {key: os.environ[key] for key in kept if key in os.environ}
    return variables | {
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
        "PATH": os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": str(site),
        "PYTHONDONTWRITEBYTECODE": "1",
        # ONNX Runtime has a thread pool of its own; a second one would compete with it for the cores.
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",
        # ONNX Runtime sends events and an identifier of the machine to its maker unless it is told not to.
        "ORT_DISABLE_TELEMETRY": "1",
        # Huge pages for the weights, where the kernel gives them to programs that ask (`madvise`): with pages
        # of 4 KiB, a short text's run spends some 5 % of its time on looking up addresses.
        "GLIBC_TUNABLES": _with_huge_pages(os.environ.get("GLIBC_TUNABLES", "")),
    }


def _with_huge_pages(tunables: str) -> str:
    """The user's tunables of glibc, and ours unless they decide it."""
    if "glibc.malloc.hugetlb" in tunables:
        return tunables
    return ":".join(filter(None, (tunables, "glibc.malloc.hugetlb=1")))
