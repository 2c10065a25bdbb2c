"""The state machine of moves: exactly the transitions of the protocol, and what each phase means."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.errors import MoveError
from shardproxy.topology.phases import FINAL, MEANINGS, POSITIONS, TRANSITIONS, Phase, Side, Step, Writes, follow

# Written out once more, by hand, from the protocol's steps 1–14.
LEGAL = """
prepared next copying
copying next armed
armed next closing
closing next drained
drained next ready
ready next switched
switched next open
open next completing
completing next done
closing time-out copying
drained time-out copying
ready time-out copying
prepared cancel cancelling
copying cancel cancelling
armed cancel cancelling
closing cancel cancelling
drained cancel cancelling
ready cancel cancelling
cancelling next cancelled
open reverse reverse_armed
reverse_armed next reverse_closing
reverse_closing next reverse_drained
reverse_drained next reverse_ready
reverse_ready next reverse_switched
reverse_switched next reverse_open
reverse_open next reverse_completing
reverse_completing next reverse_done
reverse_closing time-out open
reverse_drained time-out open
reverse_ready time-out open
"""
TABLE = {(Phase(a), Step(step)): Phase(b) for a, step, b in (line.split() for line in LEGAL.strip().splitlines())}


def test_the_transitions_are_those_of_the_protocol() -> None:
    assert dict(TRANSITIONS) == TABLE


@pytest.mark.parametrize(("phase", "step"), list(product(Phase, Step)))
def test_every_legal_step_leads_on_and_every_other_is_refused(phase: Phase, step: Step) -> None:
    if (phase, step) in TABLE:
        assert follow(phase, step) is TABLE[phase, step]
    else:
        with pytest.raises(MoveError) as caught:
            follow(phase, step)
        allowed = [s.value for p, s in TABLE if p is phase]
        assert str(caught.value).endswith(", ".join(allowed) or "nothing: the move has ended")


def reachable(start: Phase) -> set[Phase]:
    found = {start}
    while more := {TABLE[p, s] for p, s in TABLE if p in found} - found:
        found |= more
    return found


def test_every_phase_is_reached_and_every_way_ends() -> None:
    assert reachable(Phase.PREPARED) == set(Phase)
    for phase in Phase:
        assert reachable(phase) & FINAL
        assert (phase in FINAL) == (not any(p is phase for p, _ in TABLE))


def test_there_is_no_way_back_over_a_switch() -> None:
    assert Phase.CANCELLED not in reachable(Phase.SWITCHED)
    assert reachable(Phase.REVERSE_SWITCHED) == {
        Phase.REVERSE_SWITCHED,
        Phase.REVERSE_OPEN,
        Phase.REVERSE_COMPLETING,
        Phase.REVERSE_DONE,
    }


def test_the_owner_changes_only_at_the_switches_and_while_writes_are_held() -> None:
    changes = {(a, b) for (a, _), b in TABLE.items() if MEANINGS[a].owner is not MEANINGS[b].owner}
    assert changes == {(Phase.READY, Phase.SWITCHED), (Phase.REVERSE_READY, Phase.REVERSE_SWITCHED)}
    for a, b in changes:
        assert MEANINGS[a].writes is MEANINGS[b].writes is Writes.HELD


def test_the_side_that_does_not_own_the_keys_hides_them_until_it_has_no_rows() -> None:
    for phase, meaning in MEANINGS.items():
        assert meaning.hides is (None if phase in FINAL else meaning.owner.other)


def test_writes_become_fenced_before_they_are_held_and_held_before_the_switch() -> None:
    for (a, _), b in TABLE.items():
        before, after = MEANINGS[a].writes, MEANINGS[b].writes
        if after is Writes.HELD:
            assert before in (Writes.FENCED, Writes.HELD)
        if after is Writes.FENCED:
            assert before is Writes.FREE


def test_barriers_stand_where_the_protocol_has_them() -> None:
    """R3 in steps 1, 5 and 11, and their reverse."""
    assert {phase for phase, meaning in MEANINGS.items() if meaning.barrier} == {
        Phase.PREPARED,
        Phase.ARMED,
        Phase.SWITCHED,
        Phase.REVERSE_ARMED,
        Phase.REVERSE_SWITCHED,
    }


def test_positions_are_those_of_the_side_that_has_just_become_right() -> None:
    """R8: who owns the keys from a switch on; who has deleted them at an end."""
    assert POSITIONS.keys() == FINAL | {Phase.SWITCHED, Phase.REVERSE_SWITCHED}
    for phase, side in POSITIONS.items():
        owner = MEANINGS[phase].owner
        assert side is (owner.other if phase in FINAL else owner)


@given(st.lists(st.sampled_from(list(Step)), max_size=40))
def test_no_walk_switches_without_having_been_armed_since_the_last_time_out(steps: list[Step]) -> None:
    phase, armed = Phase.PREPARED, False
    for step in steps:
        if (phase, step) not in TABLE:
            continue
        phase = follow(phase, step)
        if MEANINGS[phase].writes is Writes.FENCED:
            armed = True
        elif MEANINGS[phase].writes is Writes.FREE:
            armed = False
        assert armed or MEANINGS[phase].writes is Writes.FREE


def test_sides_are_each_others_opposite() -> None:
    assert Side.SOURCE.other is Side.TARGET
    assert Side.TARGET.other is Side.SOURCE
