"""What a durable frame becomes: its stream, whom it is about, and the text that subscribers get."""

from uuid import UUID, uuid4

import pytest

from skygw.ids import InstallId
from skygw.nodes.ports import Binding, DurableReport
from skygw.nodes.reports import durable_report, refused_report
from skygw.protocol.codec import BadFrame, Read, from_node
from skygw.protocol.node_frames import Durable, NodeType
from skygw.protocol.streams import StreamName
from tests.fakes.rooms import Site

SITE = Site()
TELESCOPE, MOUNT = SITE.telescope_uid, SITE.device_uid
AT = '"observed_at":"2026-07-01T03:00:00Z"'
SHARED = Binding(
    install_id=InstallId(uuid4()),
    name="The roof",
    node_type=NodeType.OBSERVATORY,
    observatory_uid=uuid4(),
    telescopes=frozenset(),
    devices=frozenset({MOUNT}),
)


def report_of(text: str, *, binding: Binding = SITE.binding) -> DurableReport:
    (item,) = from_node.decode(text)
    assert isinstance(item, Read), item
    assert isinstance(item.frame, Durable)
    return durable_report(binding, item.frame, item.text)


def a_line(data: str, *, kind: str = "publish_log") -> str:
    return f'{{"kind":"{kind}","seq":7,"data":{data},{AT}}}'


@pytest.mark.parametrize(
    ("kind", "stream"), [("publish_log", StreamName.TELESCOPE_LOG), ("publish_event", StreamName.NODE_EVENT)]
)
def test_a_line_and_an_event_keep_their_text_and_are_about_their_nodes_telescope(kind: str, stream: StreamName) -> None:
    data = '{ "logEntryType": "device",  "exposure": 1.500, "snow": "\\u2603" }'
    text = a_line(data, kind=kind)
    report = report_of(text)
    assert (report.seq, report.kind, report.stream) == (7, kind, stream)
    assert (report.text, report.data) == (text, data)
    assert (report.telescope_uid, report.device_uid) == (TELESCOPE, None)
    assert report.observed_at is not None
    assert report.nacked is None


@pytest.mark.parametrize("spelling", ["device_uid", "deviceUid"])
def test_the_device_a_line_names_is_found_in_either_spelling(spelling: str) -> None:
    report = report_of(a_line(f'{{"{spelling}":"{MOUNT}"}}'))
    assert (report.nacked, report.telescope_uid, report.device_uid) == (None, TELESCOPE, MOUNT)


def test_an_observatorys_line_is_about_no_telescope() -> None:
    report = report_of(a_line(f'{{"device_uid":"{MOUNT}"}}'), binding=SHARED)
    assert (report.nacked, report.telescope_uid, report.device_uid) == (None, None, MOUNT)


@pytest.mark.parametrize("key", ["telescope_uid", "telescopeUid", "device_uid", "deviceUid"])
@pytest.mark.parametrize("said", [f'"{UUID(int=1)}"', '"the one over there"', "7", "{}", '""'])
def test_a_line_about_what_is_not_its_nodes_is_never_taken_and_the_sentence_names_it(key: str, said: str) -> None:
    report = report_of(a_line(f'{{"{key}":{said}}}'))
    assert report.nacked is not None
    assert report.nacked.startswith(f"data.{key}: ")
    assert (report.stream, report.data) == (StreamName.TELESCOPE_LOG, "{}")
    assert (report.telescope_uid, report.device_uid) == (None, None)


def test_both_spellings_are_looked_at() -> None:
    report = report_of(a_line(f'{{"device_uid":"{MOUNT}","deviceUid":"{UUID(int=1)}"}}'))
    assert report.nacked is not None


def test_a_null_names_nothing() -> None:
    report = report_of(a_line('{"telescope_uid":null,"deviceUid":null}'))
    assert (report.nacked, report.telescope_uid, report.device_uid) == (None, TELESCOPE, None)


@pytest.mark.parametrize(
    ("data", "missing"),
    [
        ('{"count":12}', 12),
        ('{"missing":3,"reason":"disk full"}', 3),
        ('{"count":"many","missing":3}', 3),
        ('{"count":true}', None),
        ('{"count":1.5}', None),
        ('{"count":-1}', None),
        ('{"count":9007199254740992}', None),
        ("{}", None),
    ],
)
def test_a_gap_is_in_no_stream_and_says_how_many_are_missing_if_the_node_does(data: str, missing: int | None) -> None:
    report = report_of(a_line(data, kind="publish_gap"))
    assert (report.stream, report.data, report.missing, report.nacked) == (None, data, missing, None)


def test_a_result_is_told_with_its_opaque_members_byte_for_byte() -> None:
    command_id = uuid4()
    report = report_of(
        f'{{"kind":"publish_command_result","seq":8,"commandId":"{command_id}","status":"canceled","progress":0.5,'
        '"result":{ "a" : 1.50 },"error":{"code" :"x"},"proof":{"devices":[ ]},"canceled":"interrupted",'
        f'"deadlineMs":5,"observedAt":"2026-07-01T03:00:00Z"}}'
    )
    assert report.data == (
        f'{{"command_id":"{command_id}","status":"canceled","progress":0.5,"result":{{ "a" : 1.50 }},'
        '"error":{"code" :"x"},"proof":{"devices":[ ]},"canceled":"interrupted"}'
    )
    assert (report.stream, report.telescope_uid) == (StreamName.COMMAND_RESULT, TELESCOPE)
    assert report.result is not None
    assert report.result.command_id == command_id


def test_a_result_that_says_little_is_told_without_what_it_does_not_say() -> None:
    command_id = uuid4()
    report = report_of(
        f'{{"kind":"publish_command_result","seq":8,"command_id":"{command_id}","status":"running","result":null}}'
    )
    assert report.data == f'{{"command_id":"{command_id}","status":"running"}}'
    assert report.observed_at is None


@pytest.mark.parametrize(
    ("kind", "stream"),
    [
        ("publish_log", StreamName.TELESCOPE_LOG),
        ("publish_event", StreamName.NODE_EVENT),
        ("publish_command_result", StreamName.COMMAND_RESULT),
        ("publish_gap", None),
    ],
)
def test_a_frame_that_is_none_keeps_its_place_and_its_stream_if_they_can_be_told(
    kind: str, stream: StreamName | None
) -> None:
    why = "observed_at: is missing"
    report = refused_report(BadFrame(why, kind, None, seq=4))
    assert report == DurableReport(seq=4, kind=kind, text="", nacked=why, stream=stream)
    assert refused_report(BadFrame("no seq", "publish_log", None, seq=None)) is None
