"""The state of one move as its orchestrator keeps it: what for, how far, who leads it, what has happened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from shardproxy.errors import MoveError
from shardproxy.topology.map_document import Lookups, MapDocument, Move, MoveId, Stream, TableMove, advance, begin
from shardproxy.topology.map_form import MapForm, NamedRange
from shardproxy.topology.stages import FINAL, Stage, Step, follow
from shardproxy.topology.stored import Stored

Figure = int | float | str
Text = Annotated[str, Field(min_length=1)]


class Plan(Stored):
    """What shall move. goal: in words, as the operator asked for it. home, lookups: see `map_document.begin`. other:
    the new map where it is of another kind. table: the one whose rows alone move. next_home: another home shard.
    opened: keys that get their first shard. keyless: see `map_document.Move`."""

    goal: str
    streams: Annotated[tuple[Stream, ...], Field(min_length=1)]
    home: str = ""
    lookups: Lookups | None = None
    other: MapForm | None = None
    table: TableMove | None = None
    next_home: str | None = None
    opened: tuple[NamedRange, ...] = ()
    keyless: tuple[str, ...] | None = None


class Happening(Stored):
    """An entry of the history. at: seconds since 1970. stage: the one that was reached."""

    at: float
    stage: Stage
    what: str = ""


class Workflow(Stored):
    """A move, under way or ended.

    owner: the run of the orchestrator that leads it, a name that nobody else ever has: by it a writer knows its own
    change again after a lost answer. generation: raised by every new owner before it does anything else (R1). version:
    raised by every change, so that the document differs from all earlier ones. figures: rows, bytes, seconds and so on,
    by name. problem: why it stands still, for people.
    """

    format: Literal[1] = 1
    id: MoveId
    keyspace: Text
    owner: Text
    generation: Annotated[int, Field(ge=1)]
    version: Annotated[int, Field(ge=1)]
    stage: Stage
    plan: Plan
    paused: bool = False
    problem: str = ""
    figures: dict[str, Figure] = Field(default_factory=dict)
    history: Annotated[tuple[Happening, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> Workflow:
        if self.history[-1].stage is not self.stage:
            raise ValueError("the history does not end with the stage")
        return self

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do."""
        return self.stage in FINAL


def next_id(workflows: Iterable[Workflow]) -> int:
    """An id for a new move, from all workflows ever stored. Two who ask at once get one id; only one of them can store
    its workflow under the condition that the key is absent."""
    return max((workflow.id for workflow in workflows), default=0) + 1


def start(document: MapDocument, ident: int, owner: str, plan: Plan, at: float) -> tuple[Workflow, MapDocument]:
    """A new workflow and the map with its move, to be stored in one commit. Raises MoveError."""
    move = Move(
        id=ident, stage=Stage.PREPARED, streams=plan.streams, other=plan.other, table=plan.table, home=plan.next_home,
        opened=plan.opened, keyless=plan.keyless,
    )  # fmt: skip
    workflow = Workflow(
        id=ident,
        keyspace=document.keyspace,
        owner=owner,
        generation=1,
        version=1,
        stage=Stage.PREPARED,
        plan=plan,
        history=(Happening(at=at, stage=Stage.PREPARED, what=plan.goal),),
    )
    return workflow, begin(document, move, plan.home, plan.lookups)


def claim(workflow: Workflow, owner: str, at: float) -> Workflow:
    """The workflow under a new leader: the first thing that a starting orchestrator stores (R1). Raises MoveError."""
    if workflow.ended:
        raise MoveError(f"move {workflow.id} is {workflow.stage.value}: there is nothing left to lead")
    if owner == workflow.owner:
        raise MoveError(f"move {workflow.id} is led by {owner} already; a new run needs a new name")
    what = f"led by {owner}, generation {workflow.generation + 1}"
    return _changed(
        workflow,
        owner=owner,
        generation=workflow.generation + 1,
        history=(*workflow.history, Happening(at=at, stage=workflow.stage, what=what)),
    )


def proceed(
    workflow: Workflow,
    document: MapDocument,
    step: Step,
    at: float,
    positions: Mapping[str, str] | None = None,
    what: str = "",
) -> tuple[Workflow, MapDocument]:
    """Workflow and map after a step, to be stored in one commit that expects both versions. See map_document.advance.

    Raises MoveError.
    """
    move = document.move
    if move is None or move.id != workflow.id:
        raise MoveError(f"move {workflow.id} is not under way in the map of {workflow.keyspace}: read both anew")
    if move.stage is not workflow.stage:
        raise MoveError(
            f"move {workflow.id} is {workflow.stage.value}, but {move.stage.value} in the map: read both anew"
        )
    after = advance(document, step, positions)
    stage = follow(move.stage, step)
    happening = Happening(at=at, stage=stage, what=what or step.value)
    return _changed(workflow, stage=stage, problem="", history=(*workflow.history, happening)), after


def note(workflow: Workflow, **changes: object) -> Workflow:
    """The workflow with other values of `paused`, `problem` or `figures`."""
    unknown = changes.keys() - {"paused", "problem", "figures"}
    if unknown:
        raise ValueError(f"note does not change {sorted(unknown)}")
    return _changed(workflow, **changes)


def _changed(workflow: Workflow, **changes: object) -> Workflow:
    values = {name: getattr(workflow, name) for name in Workflow.model_fields}
    return Workflow.model_validate({**values, **changes, "version": workflow.version + 1})
