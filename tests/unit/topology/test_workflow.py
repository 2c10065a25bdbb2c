"""Workflows: in step with the map, one leader at a time, every change a new version."""

from __future__ import annotations

import pytest

from shardproxy.errors import DocumentError, MoveError
from shardproxy.topology.map_document import MapDocument, Stream, advance
from shardproxy.topology.map_form import Interval, KeySet, NamedRange, RangeForm
from shardproxy.topology.phases import Phase, Step
from shardproxy.topology.workflow import Happening, Plan, Workflow, claim, note, proceed, start

MAP = MapDocument(keyspace="main", key_type="int", epoch=4, map=RangeForm.of([NamedRange(0, 100, "a")]))
PLAN = Plan(goal="split at 50", streams=(Stream(source="a", target="b", keys=KeySet(ranges=(Interval(50, 100),))),))


def test_a_move_goes_its_way_in_both_documents() -> None:
    workflow, document = start(MAP, "m1", "run-1", PLAN, 10.0)
    assert (workflow.generation, workflow.version, workflow.phase) == (1, 1, Phase.PREPARED)
    assert document.epoch == 5
    at = 10.0
    positions = {Phase.SWITCHED: {"b": "p1"}, Phase.DONE: {"a": "p2"}}
    for phase in list(Phase)[1:10]:
        at += 1
        before = workflow.version
        workflow, document = proceed(workflow, document, Step.NEXT, at, positions.get(phase))
        assert workflow.phase is phase
        assert workflow.version == before + 1
        assert workflow.history[-1] == Happening(at=at, phase=phase, what="next")
    assert workflow.ended
    assert document.moves == ()
    assert [entry.phase for entry in workflow.history] == list(Phase)[:10]
    assert workflow.history[0].what == "split at 50"


def test_a_workflow_that_is_not_where_the_map_is_takes_no_step() -> None:
    workflow, document = start(MAP, "m1", "run-1", PLAN, 10.0)
    ahead = advance(document, "m1", Step.NEXT)
    with pytest.raises(MoveError, match="read both anew"):
        proceed(workflow, ahead, Step.NEXT, 11.0)
    with pytest.raises(MoveError, match="no move m1"):
        proceed(workflow, MAP, Step.NEXT, 11.0)
    with pytest.raises(MoveError, match="cannot take the step"):
        proceed(workflow, document, Step.REVERSE, 11.0)


def test_a_new_leader_raises_the_generation() -> None:
    workflow, document = start(MAP, "m1", "run-1", PLAN, 10.0)
    second = claim(workflow, "run-2", 11.0)
    assert (second.owner, second.generation, second.version, second.phase) == ("run-2", 2, 2, Phase.PREPARED)
    assert claim(workflow, "run-3", 11.0) != second, "two claims of one generation are told apart"
    with pytest.raises(MoveError, match="led by run-2 already"):
        claim(second, "run-2", 12.0)
    cancelled, document = proceed(second, document, Step.CANCEL, 12.0)
    cancelled, document = proceed(cancelled, document, Step.NEXT, 13.0, {"b": "p"})
    assert cancelled.phase is Phase.CANCELLED
    with pytest.raises(MoveError, match="nothing left to lead"):
        claim(cancelled, "run-3", 14.0)


def test_notes_change_what_people_see_and_a_step_clears_the_problem() -> None:
    workflow, document = start(MAP, "m1", "run-1", PLAN, 10.0)
    noted = note(workflow, figures={"rows": 7, "rate": 1.5}, problem="disk full", paused=True)
    assert (noted.figures, noted.problem, noted.paused, noted.version) == (
        {"rows": 7, "rate": 1.5},
        "disk full",
        True,
        2,
    )
    with pytest.raises(ValueError, match="phase"):
        note(workflow, phase=Phase.DONE)
    after, _ = proceed(noted, document, Step.NEXT, 11.0)
    assert (after.problem, after.figures) == ("", noted.figures)


def test_a_history_that_tells_another_story_is_refused() -> None:
    workflow, _ = start(MAP, "m1", "run-1", PLAN, 10.0)
    with pytest.raises(DocumentError, match="does not end with the phase"):
        Workflow.read("move/m1", {**workflow.document(), "phase": "copying"})
