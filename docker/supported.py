#!/usr/bin/env python3
"""End a build with one sentence where the lock files have no packages: pip would ignore them all."""

from __future__ import annotations

import platform
import sys

PYTHONS = ((3, 10), (3, 11), (3, 12))


def main() -> str | int:
    """Return the reason why the packages cannot be installed, or 0."""
    if platform.machine() != "x86_64":
        return (
            f"The images are for x86-64, and this is {platform.machine()}: "
            "build and run with DOCKER_DEFAULT_PLATFORM=linux/amd64."
        )
    if sys.version_info[:2] not in PYTHONS:
        return f"PYTHON_IMAGE has Python {platform.python_version()}; 3.10, 3.11 or 3.12 is needed."
    return 0


if __name__ == "__main__":
    sys.exit(main())
