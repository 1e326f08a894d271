#!/opt/tritonflare/bin/python
"""Run the wheel's tritonserver with the caller's options, as NVIDIA's image does by its own paths."""

from __future__ import annotations

import os
import sys

from embedded import wheel

BACKENDS = "/opt/tritonflare/backends"
"""Made when the image is built."""

if __name__ == "__main__":
    program = str(wheel.folder() / "bin" / "tritonserver")
    arguments = [program, f"--backend-directory={BACKENDS}", *sys.argv[1:]]
    os.execve(program, arguments, wheel.environment())  # noqa: S606 (becoming the server is the point)
