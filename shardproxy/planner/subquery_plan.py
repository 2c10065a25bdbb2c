"""Subqueries that run first, and the statement that then runs with their results in their place."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shardproxy.planner.template import Template


class Form(Enum):
    """What stands in WHERE, as a whole term of its ANDs."""

    IN = "IN"
    NOT_IN = "NOT IN"
    EXISTS = "EXISTS"
    SCALAR = "one value"


class Compared(Enum):
    """What the column before a subquery is; its values must be of the same kind."""

    NUMBER = "number"  # integers and DECIMAL
    DATE = "date"
    DATETIME = "datetime"
    TEXT = "text"
    NOTHING = "nothing"  # EXISTS


@dataclass(frozen=True, slots=True)
class Subquery:
    """form: see Form; text: the query; whole: its rows are more than those of the shards (an aggregate over all), so
    they must be merged; compared: with what; collation: of a text, both of the column and of the subquery's."""

    form: Form
    text: Template
    whole: bool
    compared: Compared
    collation: str = ""


@dataclass(frozen=True, slots=True)
class SubqueriesFirst:
    """first: in the order of the text; around: what stands before, between and behind them: one more; checked: a
    server must take the statement as it was written, for with a value in place of a subquery it takes some that are
    wrong (ONLY_FULL_GROUP_BY: a column that equals a constant)."""

    first: tuple[Subquery, ...]
    around: tuple[Template, ...]
    checked: bool = False

    def described(self) -> list[str]:
        """For people, one line each."""
        lines = [f"first: {one.form.value} ({one.text.shown()})" for one in self.first]
        return [*lines, f"then: {'…'.join(text.shown() for text in self.around)}"]
