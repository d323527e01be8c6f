"""What a node remembers of its place in the fleet."""

from pathlib import Path
from uuid import UUID

import pytest

from skygw.client.node_state import FILE_NAME, MAX_FENCES, StateUnreadable, load_state, save_state
from skygw.ids import Epoch, InstanceUid
from skygw.protocol.gateway_frames import LinkLossPolicy


def test_the_state_is_the_same_after_a_restart_and_for_its_owner_alone(tmp_path: Path) -> None:
    state = load_state(tmp_path, instance_uid=None).with_epoch(Epoch(5)).with_fence(UUID(int=1), 7)
    save_state(tmp_path, state)

    assert load_state(tmp_path, instance_uid=None) == state
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_epochs_and_fences_only_grow(tmp_path: Path) -> None:
    state = load_state(tmp_path, instance_uid=None).with_epoch(Epoch(5)).with_fence(UUID(int=1), 7)
    older = state.with_epoch(Epoch(4)).with_fence(UUID(int=1), 6)

    assert older == state


def test_no_more_fences_are_kept_than_a_hello_carries(tmp_path: Path) -> None:
    state = load_state(tmp_path, instance_uid=None)
    for number in range(MAX_FENCES + 10):
        state = state.with_fence(UUID(int=number), 1)

    assert len(state.last_fences) == MAX_FENCES
    assert UUID(int=MAX_FENCES + 9) in state.last_fences


def test_an_instance_made_at_the_first_start_stays_and_a_given_one_wins(tmp_path: Path) -> None:
    made = load_state(tmp_path, instance_uid=None).instance_uid
    given = InstanceUid(UUID(int=9))

    assert load_state(tmp_path, instance_uid=None).instance_uid == made
    assert load_state(tmp_path, instance_uid=given).instance_uid == given


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"instance_uid":"x"}', "\x00"])
def test_a_damaged_state_is_named_and_not_overwritten(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(StateUnreadable, match="is damaged"):
        load_state(tmp_path, instance_uid=None)

    assert (tmp_path / FILE_NAME).read_text() == text


def test_the_policy_is_read_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(
        '{"instance_uid":"00000000-0000-0000-0000-000000000001","last_epoch":1,"last_fences":{},'
        '"link_loss_policy":"safe_shutdown"}'
    )

    assert load_state(tmp_path, instance_uid=None).link_loss_policy is LinkLossPolicy.SAFE_SHUTDOWN
