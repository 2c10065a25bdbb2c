"""Workflows: in step with the map, one leader at a time, every change a new version."""

from __future__ import annotations

import pytest

from shardproxy.errors import DocumentError, MoveError
from shardproxy.topology.map_document import MapDocument, Stream, advance
from shardproxy.topology.map_form import Interval, KeySet, NamedRange, RangeForm
from shardproxy.topology.stages import Stage, Step
from shardproxy.topology.workflow import Happening, Plan, Workflow, claim, next_id, note, proceed, start

MAP = MapDocument(keyspace="main", key_type="int", epoch=4, map=RangeForm.of([NamedRange(0, 100, "a")]))
PLAN = Plan(goal="split at 50", streams=(Stream(source="a", target="b", keys=KeySet(ranges=(Interval(50, 100),))),))


def test_a_move_goes_its_way_in_both_documents() -> None:
    workflow, document = start(MAP, 7, "run-1", PLAN, 10.0)
    assert (workflow.generation, workflow.version, workflow.stage) == (1, 1, Stage.PREPARED)
    assert document.epoch == 5
    at = 10.0
    positions = {Stage.SWITCHED: {"b": "p1"}, Stage.DONE: {"a": "p2"}}
    for stage in list(Stage)[1:8]:
        at += 1
        before = workflow.version
        workflow, document = proceed(workflow, document, Step.NEXT, at, positions.get(stage))
        assert workflow.stage is stage
        assert workflow.version == before + 1
        assert workflow.history[-1] == Happening(at=at, stage=stage, what="next")
    assert workflow.ended
    assert document.move is None
    assert [entry.stage for entry in workflow.history] == list(Stage)[:8]
    assert workflow.history[0].what == "split at 50"


def test_a_workflow_that_is_not_where_the_map_is_takes_no_step() -> None:
    workflow, document = start(MAP, 7, "run-1", PLAN, 10.0)
    ahead = advance(document, Step.NEXT)
    with pytest.raises(MoveError, match="read both anew"):
        proceed(workflow, ahead, Step.NEXT, 11.0)
    with pytest.raises(MoveError, match="move 7 is not under way in the map of main"):
        proceed(workflow, MAP, Step.NEXT, 11.0)
    with pytest.raises(MoveError, match="cannot take the step"):
        proceed(workflow, document, Step.REVERSE, 11.0)


def test_a_new_leader_raises_the_generation() -> None:
    workflow, document = start(MAP, 7, "run-1", PLAN, 10.0)
    second = claim(workflow, "run-2", 11.0)
    assert (second.owner, second.generation, second.version, second.stage) == ("run-2", 2, 2, Stage.PREPARED)
    assert claim(workflow, "run-3", 11.0) != second, "two claims of one generation are told apart"
    with pytest.raises(MoveError, match="led by run-2 already"):
        claim(second, "run-2", 12.0)
    cancelled, document = proceed(second, document, Step.CANCEL, 12.0)
    cancelled, document = proceed(cancelled, document, Step.NEXT, 13.0, {"b": "p"})
    assert cancelled.stage is Stage.CANCELLED
    with pytest.raises(MoveError, match="nothing left to lead"):
        claim(cancelled, "run-3", 14.0)


def test_notes_change_what_people_see_and_a_step_clears_the_problem() -> None:
    workflow, document = start(MAP, 7, "run-1", PLAN, 10.0)
    noted = note(workflow, figures={"rows": 7, "rate": 1.5}, problem="disk full", paused=True)
    assert (noted.figures, noted.problem, noted.paused, noted.version) == (
        {"rows": 7, "rate": 1.5},
        "disk full",
        True,
        2,
    )
    with pytest.raises(ValueError, match="stage"):
        note(workflow, stage=Stage.DONE)
    after, _ = proceed(noted, document, Step.NEXT, 11.0)
    assert (after.problem, after.figures) == ("", noted.figures)


def test_a_history_that_tells_another_story_is_refused() -> None:
    workflow, _ = start(MAP, 7, "run-1", PLAN, 10.0)
    with pytest.raises(DocumentError, match="does not end with the stage"):
        Workflow.read("move/7", {**workflow.document(), "stage": "copying"})


def test_an_id_is_never_used_twice() -> None:
    workflow, _ = start(MAP, 7, "run-1", PLAN, 10.0)
    assert next_id([]) == 1
    assert next_id([workflow, workflow.model_copy(update={"id": 3})]) == 8
