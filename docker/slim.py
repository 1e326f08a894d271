#!/usr/bin/env python3
"""Remove packages that an image never imports from the environment of the Python that runs this.

The gateway uses the generated messages and stubs of ``tritonclient.grpc`` alone, but importing them
runs the package's ``__init__``, which imports the whole client and with it numpy: half of all bytes.
Standard library only.
"""

from __future__ import annotations

import re
import shutil
import sys
import sysconfig
from importlib.metadata import PathDistribution, distributions
from pathlib import Path

_CLIENT_OF_TRITON = ("pygments", "python-rapidjson", "urllib3")
UNUSED = {
    "gateway": ("ml-dtypes", "numpy", *_CLIENT_OF_TRITON),
    # The exporter's packages, and what pytriton and tritonclient need besides the tritonserver in the wheel.
    "cpu": (
        *_CLIENT_OF_TRITON,
        *("contourpy", "cycler", "fonttools", "kiwisolver", "matplotlib", "pillow", "pyparsing"),
        *("hf-xet", "huggingface-hub", "ml-dtypes", "onnx", "pyyaml", "safetensors", "tqdm"),
        *("aiohttp", "brotli", "gevent", "geventhttpclient", "greenlet", "pyzmq", "typer", "zope-interface"),
    ),
}
"""The distributions that each image does without."""
_CLIENT = Path("tritonclient/grpc/__init__.py")
_WHEEL = Path("pytriton/tritonserver/python_backend_stubs")
_LIBRARIES = Path("nvidia_pytriton.libs")


def slim(site: Path, image: str) -> list[str]:
    """Remove the image's unused distributions from ``site``, and what imports them.

    Args:
        site: a folder of installed packages.
        image: a key of `UNUSED`.

    Returns:
        The names of those that were there.

    Raises:
        FileNotFoundError: there is no Triton client in this folder.
    """
    (site / _CLIENT).write_text('"""Emptied: the gateway imports the generated modules alone."""\n')
    shutil.rmtree(site / _CLIENT.parent / "__pycache__", ignore_errors=True)
    _remove_other_stubs(site)
    removed = []
    for distribution in list(distributions(path=[str(site)])):
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
        if name in UNUSED[image] and isinstance(distribution, PathDistribution):
            _remove(site, distribution)
            removed.append(name)
    return sorted(removed)


def _remove_other_stubs(site: Path) -> None:
    """Delete the stubs of the python backend for other Pythons, and the libpython that one of them links."""
    this = f"{sys.version_info.major}.{sys.version_info.minor}"
    for stub in (site / _WHEEL).glob("*"):
        if stub.name != this:
            shutil.rmtree(stub)
    # The others are linked against the libpython of the system.
    for library in (site / _LIBRARIES).glob("libpython*"):
        library.unlink()


def _remove(site: Path, distribution: PathDistribution) -> None:
    """Delete the distribution's folders and files below ``site``; scripts elsewhere stay."""
    tops = {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
    for top in tops:
        path = site / top
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def main() -> None:
    """Run the script for the image that it is given."""
    removed = slim(Path(sysconfig.get_path("purelib")), sys.argv[1])
    sys.stdout.write(f"removed {', '.join(removed)}\n")


if __name__ == "__main__":
    main()
