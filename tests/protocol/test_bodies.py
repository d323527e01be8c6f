"""HTTP bodies made by the same writer as the frames: camelCase, null where nothing is, opaque values as they came."""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from skygw.protocol.frame import OpaqueObject, read_model, write_body
from skygw.protocol.json_text import Opaque, read_object, read_value


class Record(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    command_id: str
    first_result: OpaqueObject | None = None
    ended_at: str | None = None


def test_a_body_is_written_in_camel_case_with_nulls_and_opaque_text() -> None:
    record = Record(command_id="a", first_result=Opaque('{"snake_key": 1.10}', {"snake_key": 1.1}))
    assert write_body(record) == '{"commandId":"a","firstResult":{"snake_key": 1.10},"endedAt":null}'


def test_an_opaque_member_that_is_not_there_is_null() -> None:
    assert write_body(Record(command_id="a")) == '{"commandId":"a","firstResult":null,"endedAt":null}'


def test_a_body_is_read_in_either_spelling() -> None:
    one = read_model(Record, read_object('{"command_id":"a","first_result":{"b":[]}}'))
    other = read_model(Record, read_object('{"commandId":"a","firstResult":{"b":[]}}'))
    assert one == other


def test_text_that_was_read_strictly_before_is_parsed_again() -> None:
    assert read_value('{"a":[1,"é"]}') == {"a": [1, "é"]}
