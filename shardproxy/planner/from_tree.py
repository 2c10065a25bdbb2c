"""How the tables of a FROM clause are joined, found in its tokens: which conditions hold for the rows of each.

A condition of WHERE holds for every row of a table that is left in the end, unless an outer join may have put NULLs in
its place. One of ON holds for the tables that are joined by it, as far as they are not kept without a partner.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from shardproxy.planner.calls import closing
from shardproxy.planner.draft import Draft, is_name
from shardproxy.planner.scratch_tables import Reference, Select
from shardproxy.planner.select_parts import Span
from shardproxy.sql.words import words

_ENDS = words("GROUP HAVING ORDER LIMIT WINDOW FOR LOCK INTO PROCEDURE UNION EXCEPT INTERSECT")
_UNCLEAR = words("OFFSET FETCH MINUS RETURNING")  # begin a clause on one server, and may be names on the other
_JOINS = words("JOIN INNER CROSS LEFT RIGHT NATURAL STRAIGHT_JOIN")
_QUERY = words("SELECT WITH TABLE VALUES")


@dataclass(eq=False, slots=True)
class Leaf:
    """One place in a FROM clause. reference: the table, None for anything else; alias: "" where it is not known;
    conditions: spans of tokens, each an expression that is true for every row of it that counts; scopes: for each of
    them the leaves whose columns it may name."""

    reference: Reference | None
    alias: str
    conditions: list[Span] = field(default_factory=list)
    scopes: list[list[Leaf]] = field(default_factory=list)
    nullable: bool = False

    def hold(self, condition: Span, scope: list[Leaf]) -> None:
        self.conditions.append(condition)
        self.scopes.append(scope)


class Unclear(Exception):
    """The clause is not one that is understood here."""


def leaves(draft: Draft, select: Select, references: dict[int, Reference]) -> tuple[list[Leaf], bool]:
    """The leaves of a SELECT's FROM, and whether columns of two tables are made one there. references: by their first
    token. Raises Unclear."""
    reader = _From(draft, references)
    found, at = reader.listed(select.first)
    if draft.word(at) == "WHERE":
        end = _end(draft, at + 1)
        for leaf in found:
            if not leaf.nullable:
                leaf.hold(Span(at + 1, end), found)
    elif at < len(draft.tokens) and draft.word(at) != ")" and draft.word(at) not in _ENDS:
        raise Unclear
    return found, reader.merged


def _end(draft: Draft, at: int) -> int:
    """Where an expression that is followed by a clause ends."""
    for i in _outside(draft, at, len(draft.tokens)):
        if draft.word(i) == ")" or draft.word(i) in _ENDS:
            return i
    return len(draft.tokens)


def _outside(draft: Draft, first: int, end: int) -> Iterator[int]:
    """Indexes of tokens that are not inside parentheses."""
    at = first
    while at < end:
        if draft.word(at) in _UNCLEAR:
            raise Unclear
        yield at
        at = closing(draft, at) + 1 if draft.word(at) == "(" else at + 1


class _From:
    def __init__(self, draft: Draft, references: dict[int, Reference]) -> None:
        self.draft = draft
        self.references = references
        self.merged = False

    def listed(self, at: int) -> tuple[list[Leaf], int]:
        """Table references with commas between them."""
        found, at = self._joined(at)
        while self.draft.word(at) == ",":
            more, at = self._joined(at + 1)
            found += more
        return found, at

    def _joined(self, at: int) -> tuple[list[Leaf], int]:
        draft = self.draft
        left, at = self._factor(at)
        while draft.word(at) in _JOINS:
            natural = draft.word(at) == "NATURAL"
            at += natural
            side = draft.word(at) if draft.word(at) in ("LEFT", "RIGHT") else ""
            at += draft.word(at) in ("LEFT", "RIGHT", "INNER", "CROSS")
            at += bool(side) and draft.word(at) == "OUTER"
            if draft.word(at) not in ("JOIN", "STRAIGHT_JOIN"):
                raise Unclear
            right, at = self._factor(at + 1)
            both = [*left, *right]
            self.merged = self.merged or natural
            on: Span | None = None
            if draft.word(at) == "USING":
                self.merged = True
                at = closing(draft, at + 1) + 1
            elif draft.word(at) == "ON":
                end = self._on_end(at + 1)
                on, at = Span(at + 1, end), end
            elif not natural and (side or draft.word(at) in _JOINS):
                raise Unclear  # a join nested to the right, whose ON comes later
            held = {"LEFT": right, "RIGHT": left}.get(side, both)
            for leaf in held:
                if on is not None and not leaf.nullable:
                    leaf.hold(on, both)
            for leaf in held if side else ():
                leaf.nullable = True
            left = both
        return left, at

    def _on_end(self, at: int) -> int:
        for i in _outside(self.draft, at, len(self.draft.tokens)):
            word = self.draft.word(i)
            if word in (")", ",", "WHERE", "ON", "USING") or word in _ENDS:
                return i
            if word in _JOINS and not (word in ("LEFT", "RIGHT") and self.draft.word(i + 1) == "("):  # a function
                return i
        return len(self.draft.tokens)

    def _factor(self, at: int) -> tuple[list[Leaf], int]:
        draft = self.draft
        at += draft.word(at) == "LATERAL"
        reference = self.references.get(at)
        if reference is not None:
            return [Leaf(reference, reference.alias)], self._behind_alias(reference.end)
        if draft.word(at) == "(" and draft.word(at + 1) not in _QUERY:
            inner, end = self.listed(at + 1)
            if draft.word(end) != ")":
                raise Unclear
            return inner, end + 1
        if draft.word(at) == "JSON_TABLE":
            at += 1
        if draft.word(at) == "(":
            at = self._behind_alias(closing(draft, at) + 1)
            return [Leaf(None, "")], closing(draft, at) + 1 if draft.word(at) == "(" else at
        if draft.word(at) == "DUAL":
            return [Leaf(None, "")], at + 1
        raise Unclear

    def _behind_alias(self, at: int) -> int:
        """Behind an alias and index hints."""
        draft = self.draft
        if draft.word(at) in _UNCLEAR:
            raise Unclear
        if draft.word(at) == "AS":
            at += 2
        elif at < len(draft.tokens) and is_name(draft.tokens[at]) and not self._goes_on(at):
            at += 1
        while draft.word(at) in ("USE", "IGNORE", "FORCE"):
            while at < len(draft.tokens) and draft.word(at) != "(":
                at += 1
            at = closing(draft, at) + 1
            at += draft.word(at) == "," and draft.word(at + 1) in ("USE", "IGNORE", "FORCE")
        return at

    def _goes_on(self, at: int) -> bool:
        """Whether the word is one that follows a table and no alias of it."""
        word = self.draft.word(at)
        return (
            word in _JOINS
            or word in _ENDS
            or word in ("ON", "USING", "WHERE", "USE", "IGNORE", "FORCE", "SET", "PARTITION")
        )
