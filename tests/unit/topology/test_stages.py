"""The state machine of moves: exactly the transitions of the protocol, and what each stage means."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.errors import MoveError
from shardproxy.topology import moves
from shardproxy.topology.stages import FINAL, MEANINGS, POSITIONS, TRANSITIONS, Side, Stage, Step, Writes, follow

# Written out once more, by hand, from the protocol's steps 1–14.
LEGAL = """
prepared next copying
copying next armed
armed next closing
closing next switched
switched next open
open next completing
completing next done
closing time-out copying
prepared cancel cancelling
copying cancel cancelling
armed cancel cancelling
closing cancel cancelling
cancelling next cancelled
open reverse reverse_armed
reverse_armed next reverse_closing
reverse_closing next reverse_switched
reverse_switched next reverse_open
reverse_open next reverse_completing
reverse_completing next reverse_done
reverse_closing time-out open
"""
TABLE = {(Stage(a), Step(step)): Stage(b) for a, step, b in (line.split() for line in LEGAL.strip().splitlines())}


def test_the_transitions_are_those_of_the_protocol() -> None:
    assert dict(TRANSITIONS) == TABLE


@pytest.mark.parametrize(("stage", "step"), list(product(Stage, Step)))
def test_every_legal_step_leads_on_and_every_other_is_refused(stage: Stage, step: Step) -> None:
    if (stage, step) in TABLE:
        assert follow(stage, step) is TABLE[stage, step]
    else:
        with pytest.raises(MoveError) as caught:
            follow(stage, step)
        allowed = [s.value for p, s in TABLE if p is stage]
        assert str(caught.value).endswith(", ".join(allowed) or "nothing: the move has ended")


def reachable(start: Stage) -> set[Stage]:
    found = {start}
    while more := {TABLE[p, s] for p, s in TABLE if p in found} - found:
        found |= more
    return found


def test_every_phase_is_reached_and_every_way_ends() -> None:
    assert reachable(Stage.PREPARED) == set(Stage)
    for stage in Stage:
        assert reachable(stage) & FINAL
        assert (stage in FINAL) == (not any(p is stage for p, _ in TABLE))


def test_there_is_no_way_back_over_a_switch() -> None:
    assert Stage.CANCELLED not in reachable(Stage.SWITCHED)
    assert reachable(Stage.REVERSE_SWITCHED) == {
        Stage.REVERSE_SWITCHED,
        Stage.REVERSE_OPEN,
        Stage.REVERSE_COMPLETING,
        Stage.REVERSE_DONE,
    }


def test_the_owner_changes_only_at_the_switches_and_while_writes_are_held() -> None:
    changes = {(a, b) for (a, _), b in TABLE.items() if MEANINGS[a].owner is not MEANINGS[b].owner}
    assert changes == {(Stage.CLOSING, Stage.SWITCHED), (Stage.REVERSE_CLOSING, Stage.REVERSE_SWITCHED)}
    for a, b in changes:
        assert MEANINGS[a].writes is MEANINGS[b].writes is Writes.HELD


def test_the_side_that_does_not_own_the_keys_hides_them_until_it_has_no_rows() -> None:
    for stage, meaning in MEANINGS.items():
        assert meaning.hides is (None if stage in FINAL else meaning.owner.other)


def test_writes_become_fenced_before_they_are_held_and_held_before_the_switch() -> None:
    for (a, _), b in TABLE.items():
        before, after = MEANINGS[a].writes, MEANINGS[b].writes
        if after is Writes.HELD:
            assert before in (Writes.FENCED, Writes.HELD)
        if after is Writes.FENCED:
            assert before is Writes.FREE


def test_barriers_stand_where_the_protocol_has_them() -> None:
    """R3 in steps 1, 5 and 11, and their reverse."""
    assert {stage for stage, meaning in MEANINGS.items() if meaning.barrier} == {
        Stage.PREPARED,
        Stage.ARMED,
        Stage.SWITCHED,
        Stage.REVERSE_ARMED,
        Stage.REVERSE_SWITCHED,
    }


def test_positions_are_those_of_the_side_that_has_just_become_right() -> None:
    """R8: who owns the keys from a switch on; who has deleted them at an end."""
    assert POSITIONS.keys() == FINAL | {Stage.SWITCHED, Stage.REVERSE_SWITCHED}
    for stage, side in POSITIONS.items():
        owner = MEANINGS[stage].owner
        assert side is (owner.other if stage in FINAL else owner)


@given(st.lists(st.sampled_from(list(Step)), max_size=40))
def test_no_walk_switches_without_having_been_armed_since_the_last_time_out(steps: list[Step]) -> None:
    stage, armed = Stage.PREPARED, False
    for step in steps:
        if (stage, step) not in TABLE:
            continue
        stage = follow(stage, step)
        if MEANINGS[stage].writes is Writes.FENCED:
            armed = True
        elif MEANINGS[stage].writes is Writes.FREE:
            armed = False
        assert armed or MEANINGS[stage].writes is Writes.FREE


def test_proxies_see_the_way_back_as_a_move_the_other_way() -> None:
    """What a stage means is what its phase means, with source and target exchanged on the way back."""
    for stage, meaning in MEANINGS.items():
        hides = (
            Side.TARGET
            if stage.phase in moves.TARGET_HIDES
            else Side.SOURCE
            if stage.phase in moves.SOURCE_HIDES
            else None
        )
        assert meaning.hides is (hides.other if hides and stage.reverse else hides)
        assert (meaning.writes is Writes.HELD) == (stage.phase in moves.HELD)
        assert (meaning.writes is Writes.FENCED) == (stage.phase is moves.Phase.ARMED)
        assert (stage in FINAL) == (stage.phase in moves.OVER)


def test_sides_are_each_others_opposite() -> None:
    assert Side.SOURCE.other is Side.TARGET
    assert Side.TARGET.other is Side.SOURCE
