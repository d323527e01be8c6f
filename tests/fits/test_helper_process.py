"""Files are examined in a process that can do nothing else, and whatever becomes of it, the next file is examined."""

import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import astropy.io.fits
import pytest
import trio

from skygw.fits.finding import FitsFinding, read_finding
from skygw.fits.supervisor import FitsHelper, HelperAway, HelperLimits, open_fits_helper
from tests.fakes.fits_files import SKY, image

SAMPLES = Path(astropy.io.fits.__file__).parent / "tests" / "data"
OBEDIENT = (sys.executable, "-m", "tests.fakes.fits_helper")
TIGHT = HelperLimits(wall_s=0.5, memory_bytes=256 * 1024 * 1024)


@contextmanager
def as_file(content: bytes) -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        descriptor = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


async def examined(helper: FitsHelper, content: bytes) -> FitsFinding:
    with trio.fail_after(60), as_file(content) as descriptor:
        return await helper.examine(descriptor)


@pytest.fixture
async def obedient() -> AsyncIterator[FitsHelper]:
    async with open_fits_helper(command=OBEDIENT, limits=TIGHT) as helper:
        yield helper


async def test_a_real_frame_is_whole_and_lies_where_its_header_says(caplog: pytest.LogCaptureFixture) -> None:
    answers: dict[str, FitsFinding] = {}
    async with open_fits_helper() as helper, trio.open_nursery() as nursery:

        async def ask(name: str, content: bytes) -> None:
            answers[name] = await examined(helper, content)

        # All at once: they are answered one after the other, by one process.
        for name, content in (
            ("simple", image(4, 3, *SKY)),
            ("packed", (SAMPLES / "comp.fits").read_bytes()),
            ("without", image()),
            ("cut", image()[:-2880]),
        ):
            nursery.start_soon(ask, name, content)

    assert all(answers[name].problem is None for name in ("simple", "packed", "without"))
    box, packed = answers["simple"].box, answers["packed"].box
    assert box is not None
    assert box.center == pytest.approx((120.0, 30.0))
    assert box.corners[0] == pytest.approx((120.0231, 29.985), abs=1e-3)
    assert box.corners[2] == pytest.approx((119.9769, 30.015), abs=1e-3)
    assert packed is not None
    assert packed.center == pytest.approx((50.687, -37.201), abs=1e-3)
    assert answers["without"].box is None
    assert (answers["cut"].problem or "").startswith("It is cut off")
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ("crash", "broke the program"),
        ("exit", "broke the program"),
        ("hang", "took longer than 0.5 s"),
        ("spin", "took longer than 0.5 s"),
        ("eat", "more memory than may be spent"),
    ],
)
async def test_a_process_that_a_file_breaks_is_replaced(obedient: FitsHelper, order: str, says: str) -> None:
    broken = await examined(obedient, order.encode())
    assert obedient.replaced == (0 if order == "eat" else 2)
    assert broken.problem is not None
    assert says in broken.problem
    assert await examined(obedient, b"well") == FitsFinding(None)


@pytest.mark.parametrize("deed", ["open /etc/hostname", "connect {port}", "run", "kill {pid}"])
async def test_a_process_that_is_broken_into_can_do_nothing(obedient: FitsHelper, deed: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        order = deed.format(port=server.getsockname()[1], pid=os.getpid())
        finding = await examined(obedient, order.encode())
    assert finding == FitsFinding("refused: Operation not permitted")


async def test_a_file_cannot_be_written_through_its_descriptor(obedient: FitsHelper) -> None:
    with as_file(b"write") as descriptor:
        finding = await obedient.examine(descriptor)
        assert finding.problem is not None
        assert os.pread(descriptor, 100, 0) == b"write"


async def test_a_helper_that_never_gets_ready_is_nothing_that_is_said_of_the_file() -> None:
    async with open_fits_helper(command=(sys.executable, "-c", "")) as helper:
        with pytest.raises(HelperAway):
            await examined(helper, image())


async def test_whoever_stops_waiting_leaves_the_next_one_a_process(obedient: FitsHelper) -> None:
    with trio.move_on_after(0.2):
        await examined(obedient, b"hang")
    assert await examined(obedient, b"well") == FitsFinding(None)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"[]",
        b"{",
        b'{"problem": 3}',
        b'{"box": {"corners": [[0.0, 0.0]], "center": [0.0, 0.0]}}',
        b'{"box": {"corners": [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 91.0]], "center": [0.0, 0.0]}}',
        b'{"box": {"corners": [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, NaN]], "center": [0.0, 0.0]}}',
    ],
)
def test_what_a_broken_helper_says_is_not_believed(said: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        read_finding(said)


def test_what_a_helper_says_is_short_and_plain() -> None:
    said = read_finding(b'{"problem": "a\\u0000\\n\\u202eb' + b"c" * 500 + b'"}')
    assert said.problem is not None
    assert said.problem.startswith("a???bccc")
    assert len(said.problem) == 250
