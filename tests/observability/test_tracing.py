"""Traces are joined exactly as W3C Trace Context §3.2 says, and begun anew otherwise."""

import pytest

from skygw.observability.tracing import Trace

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


def counting(length: int) -> bytes:
    return bytes([0x11] * length)


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-ff", True),
        (f"00-{TRACE}-{SPAN}-02", False),
        (f"cc-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", True),
    ],
)
def test_a_valid_header_is_joined(header: str, sampled: bool) -> None:
    trace = Trace.parent(header, fresh=counting)
    assert trace == Trace(trace_id=TRACE, span_id="11" * 8, parent_span_id=SPAN, sampled=sampled)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "nonsense",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE[:-1]}\u0663-{SPAN}-01",
    ],
)
def test_a_missing_or_malformed_header_begins_a_new_trace(header: str | None) -> None:
    trace = Trace.parent(header, fresh=counting)
    assert trace == Trace(trace_id="11" * 16, span_id="11" * 8, parent_span_id=None, sampled=False)


def test_a_child_stays_in_the_trace_under_its_parent() -> None:
    parent = Trace.parent(f"00-{TRACE}-{SPAN}-01")
    child = parent.child(fresh=counting)
    assert child == Trace(trace_id=TRACE, span_id="11" * 8, parent_span_id=parent.span_id, sampled=True)


def test_what_is_sent_on_is_a_valid_header_of_version_00() -> None:
    trace = Trace.parent(f"cc-{TRACE}-{SPAN}-ff-extra", fresh=counting)
    assert trace.traceparent == f"00-{TRACE}-1111111111111111-01"
    assert Trace.parent(trace.traceparent).trace_id == TRACE


def test_ids_differ_and_are_never_all_zeros() -> None:
    assert Trace.parent(None).trace_id != Trace.parent(None).trace_id
    zeros = Trace.parent(None, fresh=bytes)
    assert int(zeros.trace_id, 16) == 1
    assert int(zeros.span_id, 16) == 1
