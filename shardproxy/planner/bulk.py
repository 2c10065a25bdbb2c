"""Long INSERTs: rows that look alike are planned as one row, and the plan's values repeated.

A text of a million literals would otherwise be cut into as many tokens, while everybody else waits. What is checked
here is only that the digest repeats itself: the first row's plan holds for all rows with the same text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from shardproxy.planner.lookup_plan import EnteredRows
from shardproxy.planner.plan import Condition, KeyIn, Plan, Rung, Value
from shardproxy.planner.write_plan import SEVERAL_SHARDS, SplitRows

_FEWEST = 16  # repetitions from which it is worth it
_PLAIN = rb"(?:[^()'\"`#/\\?-]|`[^`]*`)*"
_COLUMNS = rb"(?:\(" + _PLAIN + rb"\)\s*)?"
_VALUES = rb"(?<![0-9A-Za-z_$\x80-\xff`.])VALUES?\s*(?=\()"
_PREFIX = re.compile(rb"\s*(?:INSERT|REPLACE)\b" + _PLAIN + _COLUMNS + _VALUES, re.IGNORECASE)
_ROW = re.compile(rb"\([^()'\"`#/\\;]*\)")
_BETWEEN = re.compile(rb"\s*,\s*(?=\()")


@dataclass(frozen=True, slots=True)
class Shortened:
    """sql: the text with the first row alone; width: literals of a row; repeats: rows left out."""

    sql: bytes
    width: int
    repeats: int


def shorten(sql: bytes, digest: bytes, literals: list[bytes]) -> Shortened | None:
    """The INSERT with one of its like rows, None when it has too few."""
    if len(literals) < _FEWEST:
        return None
    prefix = _PREFIX.match(digest)
    row = _ROW.match(digest, prefix.end()) if prefix is not None else None
    between = _BETWEEN.match(digest, row.end()) if row is not None else None
    if row is None or between is None:
        return None
    width = row.group().count(b"?")
    unit = between.group() + row.group()
    run = re.compile(b"(?:" + re.escape(unit) + b")*+").match(digest, row.end())
    assert run is not None
    repeats = (run.end() - run.start()) // len(unit)
    if repeats < _FEWEST or width == 0 or b"--" in unit:
        return None
    first, all_rows = literals[:width], literals[: width * (repeats + 1)]
    first_end = row.end() + sum(map(len, first)) - len(first)
    last_end = run.end() + sum(map(len, all_rows)) - len(all_rows)
    return Shortened(sql[:first_end] + sql[last_end:], width, repeats)


def lengthen(plan: Plan, short: Shortened, digest_text: str) -> Plan:
    """The plan of the whole statement from the shortened one's."""
    groups = tuple(replace(group, condition=_condition(group.condition, short)) for group in plan.groups)
    if isinstance(plan.write, SplitRows):
        write = replace(plan.write, width=short.width, repeats=short.repeats)
        plan = replace(plan, write=write, rung=Rung.MERGE, not_above=SEVERAL_SHARDS)
    if isinstance(plan.entries, EnteredRows):
        plan = replace(plan, entries=replace(plan.entries, width=short.width, repeats=short.repeats))
    sequence = plan.sequence
    if sequence is not None:
        sequence = replace(sequence, width=short.width, repeats=short.repeats)
    nonzero = _values(plan.nonzero, short)
    return replace(plan, digest_text=digest_text, groups=groups, nonzero=nonzero, sequence=sequence)


def _condition(condition: Condition, short: Shortened) -> Condition:
    return KeyIn(_values(condition.values, short)) if isinstance(condition, KeyIn) else condition


def _values(values: tuple[Value, ...], short: Shortened) -> tuple[Value, ...]:
    """Those of the first row for every row, then those that stand behind the rows."""
    width, repeats = short.width, short.repeats
    inside = [value for value in values if value.index < width]
    behind = [Value(v.index + width * repeats, v.negative) for v in values if v.index >= width]
    repeated = [Value(v.index + width * row, v.negative) for row in range(repeats + 1) for v in inside]
    return (*repeated, *behind)
