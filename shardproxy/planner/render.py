"""A plan as text for people: stable, one fact a line. Read by the golden plans and by `shardctl explain`."""

from __future__ import annotations

from collections.abc import Sequence

from shardproxy.planner.lookup_plan import EnteredRows, LookedUp
from shardproxy.planner.plan import (
    AllOf,
    AnyOf,
    Anywhere,
    Condition,
    Group,
    InsertId,
    KeyBetween,
    KeyIn,
    Nowhere,
    Plan,
    Rung,
    Spread,
    Value,
)
from shardproxy.planner.scratch_plan import Copy, ScratchPlan
from shardproxy.planner.unseen import hides
from shardproxy.planner.write_render import render_write

_MOST_VALUES = 8


def render_plan(plan: Plan, shards: Sequence[str] = ()) -> str:
    """The plan in lines without indent, the last without line feed.

    shards: their names by index, for tables fixed to one; without them the index is shown.
    """
    if plan.rung is Rung.ERROR:
        return f"{plan.kind.value}: error {plan.error_code}: {plan.error}"
    lines = [f"{plan.kind.value}: {plan.opcode.value}, rung {int(plan.rung)}: {plan.reason}"]
    lines += [_group(group, shards) for group in plan.groups]
    lines += _spread(plan)
    if plan.text is not None:
        lines.append(f"where rows are hidden: {plan.text.shown()}")
    lines += _entries(plan)
    if plan.local:
        lines.append("the proxy answers: " + ", ".join(f"{label} = {what.value}" for label, what in plan.local))
    if plan.pins:
        lines.append("pins: " + ", ".join(pin.value for pin in plan.pins))
    asked = plan.found_rows or bool(plan.assigns)
    marks = [
        (plan.read, "a replica may answer"),
        (plan.primary, "primary asked for"),
        (plan.snapshot, "one snapshot of all shards"),
        (plan.point, "point read"),
        (plan.key_index >= 0, f"key is literal {plan.key_index}"),
        (plan.carries_insert_id, "carries LAST_INSERT_ID()"),
        (plan.found_rows, "FOUND_ROWS() is asked"),
        (bool(plan.assigns), f"carries {', '.join(plan.assigns)}"),
        (plan.insert_id is not InsertId.REPORTED and not asked, f"LAST_INSERT_ID() is {plan.insert_id.value}"),
        (plan.fixed_time, "one time for all shards"),
        (plan.schema_change, "changes the schema"),
        (plan.shard_hint is not None, f"hinted to shard {plan.shard_hint}"),
        (plan.key_bounds is not None, "key bounds checked"),
        (plan.sequence is not None, "numbers of the sequence"),
        (bool(plan.nonzero), f"not 0: {_values(plan.nonzero)}"),
    ]
    said = [text for holds, text in marks if holds]
    if said:
        lines.append("; ".join(said))
    return "\n".join(lines)


def _group(group: Group, shards: Sequence[str]) -> str:
    name = f"{group.keyspace.name}: {', '.join(group.tables)}"
    if group.shard is not None:
        return f"{name} on shard {shards[group.shard] if shards else group.shard}"
    key = group.keyspace.tables[group.tables[0]].key
    return f"{name} where {_condition(group.condition, str(key))}"


def _condition(condition: Condition, key: str) -> str:
    match condition:
        case KeyIn((value,)):
            return f"{key} = {_value(value)}"
        case KeyIn(values):
            return f"{key} IN ({_values(values)})"
        case KeyBetween(low, high, low_open, high_open):
            below = "" if low is None else f"{_value(low)} {'<' if low_open else '<='} "
            above = "" if high is None else f" {'<' if high_open else '<='} {_value(high)}"
            return f"{below}{key}{above}"
        case AllOf(parts):
            return "(" + " AND ".join(_condition(part, key) for part in parts) + ")"
        case AnyOf(parts):
            return "(" + " OR ".join(_condition(part, key) for part in parts) + ")"
        case LookedUp(index, looked):
            return f"{index.name} = {' or '.join(_values(values) for values in looked)} by lookup index"
        case Nowhere():
            return "no row can match"
        case Anywhere():
            return "anything"


def _entries(plan: Plan) -> list[str]:
    if plan.entries is None:
        return []
    names = ", ".join(index.name for index in plan.entries.indexes)
    if isinstance(plan.entries, EnteredRows):
        return [f"in the same transaction: entries of lookup index {names}"]
    return [f"in the same transaction: entries of lookup index {names}, found by {plan.entries.rows.shown()}"]


def _values(values: tuple[Value, ...]) -> str:
    shown = ", ".join(_value(value) for value in values[:_MOST_VALUES])
    return shown if len(values) <= _MOST_VALUES else f"{shown}, … {len(values)} in all"


def _value(value: Value) -> str:
    """Literal 0 is ?0, after a minus -?0."""
    return f"{'-' if value.negative else ''}?{value.index}"


def _spread(plan: Plan) -> list[str]:
    match plan.spread:
        case Spread.CONCAT:
            return ["several shards: their rows one after the other"]
        case Spread.MERGE if plan.merge is not None:
            return [f"several shards: {plan.merge.described()}", f"not one after the other: {plan.not_above}"]
        case Spread.LISTS:
            return ["several shards: their lists as one, by name"]
        case Spread.EACH:
            return ["several shards: each changes its own rows, in one transaction"]
        case Spread.WRITE:
            odd = [] if plan.scratch is None else ["keys that cannot be placed: over scratch tables"]
            return [*render_write(plan.write), *odd]
        case Spread.REFUSE if plan.spread_error and any(group.shard is None for group in plan.groups):
            return [f"several shards: error: {plan.spread_error}"]
        case Spread.ANY if not plan.shard_hint:
            return ["any one shard" + (f" of {plan.keyspace.name}" if plan.keyspace is not None else "")]
        case Spread.ALL:
            return ["every shard" + (f" of {plan.keyspace.name}" if plan.keyspace and not plan.groups else "")]
        case Spread.SCRATCH if plan.scratch is not None:
            first = [] if plan.subqueries is None else plan.subqueries.described()
            return [*first, *_scratch(plan.scratch, plan.not_above, bool(first))]
    return []


def _scratch(plan: ScratchPlan, why: str, otherwise: bool = False) -> list[str]:
    when = "where types or the number of values forbid that" if otherwise else "several shards"
    lines = [f"{when}: gathered into scratch tables, for {why or 'the shards cannot answer together'}"]
    fresh = [] if plan.write is None else [t.table.name for t in plan.write.targets if not t.gathered]
    for i, copy in enumerate(plan.copies):
        name = f"{copy.database}.{copy.table}" + (f" as {copy.name}" if copy.name != copy.table else "")
        line = f"  scratch {name}: " + (_gathered(copy, i < len(fresh)))
        if copy.where is not None:
            line += f" where {copy.where.shown()}"
        if not copy.reference and hides(group.keyspace for group in copy.groups if group.shard is None):
            line += ", without what shards hide"
        for ours, place, theirs in copy.keys:
            line += f", {ours} among {plan.copies[place].name}.{theirs}"
        if copy.lock is not None and i >= len(fresh):
            line += f", read{copy.lock.shown()}"
        lines.append(line)
    if plan.text is not None:
        lines.append(f"  runs: {plan.text.shown()}")
    return lines


def _gathered(copy: Copy, fresh: bool) -> str:
    if fresh:
        return "new rows alone"
    return "one copy" if copy.reference else "all rows" if copy.where is None else "rows"
