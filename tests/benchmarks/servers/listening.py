"""What every server under test does alike: listens on a free port and says which in one line of JSON."""

import json
import socket
import sys

BACKLOG = 2_048


def listening() -> socket.socket:
    """A listening socket on loopback."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    sock.listen(BACKLOG)
    return sock


def say_ready(port: int) -> None:
    sys.stdout.write(json.dumps({"port": port}) + "\n")
    sys.stdout.flush()
