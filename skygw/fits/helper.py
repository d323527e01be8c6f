"""The helper process: reads one file after the other by a descriptor it is handed, and says what it found.

Run as `python -m skygw.fits.helper <descriptor of its socket> <bytes of memory> <seconds of processor time>`. It ends
when the socket's other end is closed.
"""

import array
import os
import socket
import sys
from collections.abc import Callable

from skygw.fits import confinement
from skygw.fits.finding import FitsFinding, NotFits, write_finding
from skygw.fits.structure import walk

READY = b"ready"
NOT_SHUT_IN = b"not shut in: "
EXAMINE = b"examine"

Examine = Callable[[int], FitsFinding]


def main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    confinement.limit(memory_bytes=int(sys.argv[2]), cpu_s=int(sys.argv[3]))
    from skygw.fits import sky  # under the limits already

    sky.warm_up()

    def examine(descriptor: int) -> FitsFinding:
        found = None
        for hdu in walk(
            lambda offset, length: os.pread(descriptor, length, offset), os.lseek(descriptor, 0, os.SEEK_END)
        ):
            found = found or sky.box_of(hdu)
        return FitsFinding(None, found)

    serve(connection, examine)


def serve(connection: socket.socket, examine: Examine) -> None:
    """Answers requests, each one message with one descriptor, until there are no more. Everything must be loaded."""
    flaw = confinement.shut_in()
    connection.send(READY if flaw is None else NOT_SHUT_IN + flaw.encode())
    while True:
        request, ancillary, _, _ = connection.recvmsg(len(EXAMINE), socket.CMSG_SPACE(4))
        if not request:
            return
        [descriptor] = array.array("i", b"".join(data[:4] for _, _, data in ancillary))
        try:
            finding = examine(descriptor)
        except NotFits as wrong:
            finding = FitsFinding(str(wrong))
        except MemoryError:
            finding = FitsFinding("It takes more memory than may be spent on examining it.")
        finally:
            os.close(descriptor)
        connection.send(write_finding(finding))


if __name__ == "__main__":
    main()
