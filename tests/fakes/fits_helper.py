"""A helper process that does to itself what the file it is given tells it to: it stands for one that is broken into.

Run as the real one is; it confines itself as the real one does.
"""

import ctypes
import os
import socket
import sys
import time
from collections.abc import Callable

from skygw.fits import confinement
from skygw.fits.finding import FitsFinding, NotFits
from skygw.fits.helper import serve

HELD: list[bytes] = []


def obey(descriptor: int) -> FitsFinding:
    word, _, rest = os.pread(descriptor, 200, 0).decode().partition(" ")
    match word:
        case "crash":
            ctypes.string_at(0)
        case "exit":
            os._exit(3)
        case "hang":
            time.sleep(3600)
        case "spin":
            while True:
                pass
        case "eat":
            while True:
                HELD.append(bytes(16 * 1024 * 1024))
        case "open":
            _try(lambda: os.open(rest, os.O_RDONLY))
        case "connect":
            _try(lambda: socket.socket().connect(("127.0.0.1", int(rest))))
        case "run":
            _try(lambda: os.posix_spawn("/bin/true", ["true"], {}))
        case "kill":
            _try(lambda: os.kill(int(rest), 0))
        case "write":
            _try(lambda: os.pwrite(descriptor, b"x", 0))
    return FitsFinding(None)


def _try(deed: Callable[[], object]) -> None:
    try:
        deed()
    except OSError as error:
        raise NotFits(f"refused: {os.strerror(error.errno or 0)}") from error


if __name__ == "__main__":
    connection = socket.socket(fileno=int(sys.argv[1]))
    confinement.limit(memory_bytes=int(sys.argv[2]), cpu_s=int(sys.argv[3]))
    serve(connection, obey)
