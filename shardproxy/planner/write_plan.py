"""How a write over several shards is split, or done in steps. Held by plans: positions of literals, no values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shardproxy.planner.plan import Value
    from shardproxy.planner.template import Template

SEVERAL_SHARDS = "its rows are of several shards"  # Plan.not_above


@dataclass(frozen=True, slots=True)
class SplitRows:
    """INSERT and REPLACE of rows of several shards: each shard gets the statement with its rows alone.

    head, tail: the text before and behind the rows; rows: each row's text, in the order of the values of the plan's
    one group; ignores: INSERT IGNORE; omits: no value is DEFAULT, so that servers warn of a column without one once
    and not for each row. repeats: of a long INSERT the first row stands for so many more, their literals each `width`
    further on; the literals of all behind them are shifted by the whole.
    """

    head: Template
    rows: tuple[Template, ...]
    tail: Template
    ignores: bool = False
    omits: bool = False
    width: int = 0
    repeats: int = 0

    def each(self) -> Iterator[tuple[Template, int]]:
        """Each row of the statement, and by how much its literals are shifted."""
        for repeat in range(self.repeats + 1):
            yield self.rows[0], repeat * self.width
        for row in self.rows[1:]:
            yield row, self.behind

    @property
    def behind(self) -> int:
        """By how much the literals behind the repeated rows are shifted."""
        return self.width * self.repeats


@dataclass(frozen=True, slots=True)
class Limited:
    """UPDATE or DELETE with LIMIT and no order: any rows will do, so the shards are asked one after the other for what
    is still wanted. text: the statement up to the number; limit: the number."""

    text: Template
    limit: Value


WritePlan = SplitRows | Limited
