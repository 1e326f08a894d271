"""``python -m tritonflare``."""

from tritonflare.main import main

main()
