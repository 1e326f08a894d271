"""``python -m tritonflare.watched_gateway FILE gateway …``: the gateway, which marks its times in FILE."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Watch the ends of the gateway's own work, and run the command line that follows FILE."""
    from gateway.server.connection import http_connection
    from gateway.triton.connection import AddressConnection
    from loadtest.timeline.marks import watch, write_to
    from tritonflare.main import main as command

    watch(http_connection.HttpConnection, "data_received", begins="gateway received")
    watch(AddressConnection, "call", begins="gateway calls")
    watch(AddressConnection, "_done", begins="gateway answered")
    watch(http_connection, "rendered", ends="gateway rendered")
    write_to(Path(sys.argv.pop(1)))
    command()


if __name__ == "__main__":
    main()
