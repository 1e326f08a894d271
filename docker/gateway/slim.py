#!/usr/bin/env python3
"""Take out of the gateway's image what the gateway never calls: above all what Triton's Python client needs.

The gateway uses the generated messages and stubs of ``tritonclient.grpc`` alone, but importing them
runs the package's ``__init__``, which imports the whole client and with it numpy: half of all bytes.
Standard library only.
"""

from __future__ import annotations

import re
import shutil
import sys
from importlib.metadata import PathDistribution, distributions
from pathlib import Path

UNUSED = ("ml-dtypes", "numpy", "pygments", "python-rapidjson", "urllib3")
_CLIENT = Path("tritonclient/grpc/__init__.py")


def slim(site: Path) -> list[str]:
    """Remove the unused distributions from ``site``, and what imports them.

    Returns:
        The names of those that were there.

    Raises:
        FileNotFoundError: there is no Triton client in this folder.
    """
    (site / _CLIENT).write_text('"""Emptied: the gateway imports the generated modules alone."""\n')
    shutil.rmtree(site / _CLIENT.parent / "__pycache__", ignore_errors=True)
    removed = []
    for distribution in list(distributions(path=[str(site)])):
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
        if name in UNUSED and isinstance(distribution, PathDistribution):
            _remove(site, distribution)
            removed.append(name)
    return sorted(removed)


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
    """Run the script on the folder that it is given."""
    removed = slim(Path(sys.argv[1]))
    sys.stdout.write(f"removed {', '.join(removed)}\n")


if __name__ == "__main__":
    main()
