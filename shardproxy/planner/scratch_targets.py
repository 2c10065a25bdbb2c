"""Which tables a write changes, and where in its tokens they stand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from shardproxy.planner.calls import closing
from shardproxy.planner.draft import Draft, is_name, refuse
from shardproxy.planner.plan import StatementKind
from shardproxy.planner.scratch_tables import Reference, Tables, find_tables
from shardproxy.sql.words import words

_INSERT_MODIFIERS = words("LOW_PRIORITY HIGH_PRIORITY IGNORE INTO")
_CHANGE_MODIFIERS = words("LOW_PRIORITY QUICK IGNORE")
_QUERIES = words("SELECT WITH TABLE VALUES")


@dataclass(slots=True)
class Written:
    """targets: (database or "", table) of what is changed; kept: first tokens of the references that are targets (none
    for INSERT, whose target is no reference); tables: what the statement reads; body: the index behind an INSERT's
    table name. many: UPDATE or DELETE of more than one table's rows joined."""

    tables: Tables
    targets: list[tuple[str, str]] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    body: int = 0
    many: bool = False


def written(draft: Draft) -> Written:
    """Raises UnsupportedError for a form that cannot be read."""
    if draft.kind in (StatementKind.INSERT, StatementKind.REPLACE):
        return _inserted(draft)
    return _updated(draft) if draft.kind is StatementKind.UPDATE else _deleted(draft)


def _inserted(draft: Draft) -> Written:
    at = 1
    while draft.word(at) in _INSERT_MODIFIERS:
        at += 1
    (database, name), end = _name(draft, at)
    if draft.word(end) == "PARTITION":
        raise refuse("PARTITION of a table over several shards is not supported")
    return Written(find_tables(draft, end), [(database, name)], body=end)


def _name(draft: Draft, at: int) -> tuple[tuple[str, str], int]:
    """((database or "", table), the index behind)."""
    if at >= len(draft.tokens) or not is_name(draft.tokens[at]):
        raise refuse(f"cannot read this {draft.kind.value}", 1064)
    if draft.word(at + 1) == "." and at + 2 < len(draft.tokens) and is_name(draft.tokens[at + 2]):
        return (draft.tokens[at].text, draft.tokens[at + 2].text), at + 3
    return ("", draft.tokens[at].text), at + 1


def _after_modifiers(draft: Draft) -> int:
    at = _verb(draft) + 1
    while draft.word(at) in _CHANGE_MODIFIERS:
        at += 1
    return at


def _verb(draft: Draft) -> int:
    """The index of UPDATE or DELETE: 0 but where a WITH clause stands before it."""
    return _outside(draft, 0, draft.kind.value)


def _read(draft: Draft, start: int) -> Tables:
    return find_tables(draft, start, True, _verb(draft))


def _updated(draft: Draft) -> Written:
    start = _after_modifiers(draft)
    found = _read(draft, start)
    end = _outside(draft, start, "SET")
    joined = [r for r in _outermost(draft, found, start, end) if r.cte is None]
    owners = [_qualifier(draft, part) for part in _assignments(draft, end + 1)]
    if all(owners):
        joined = [r for r in joined if any(_is(r, owner) for owner in owners if owner)]
    return _of_references(draft, found, joined, start, end)


def _deleted(draft: Draft) -> Written:
    at = _after_modifiers(draft)
    if draft.word(at) != "FROM":  # DELETE a, b.* FROM …
        names, end = _names(draft, at)
        if draft.word(end) != "FROM":
            raise refuse("cannot read this DELETE", 1064)
        return _named(draft, names, end + 1)
    names, end = _names(draft, at + 1)
    if draft.word(end) == "USING":  # DELETE FROM a, b USING …
        return _named(draft, names, end + 1)
    found = _read(draft, at + 1)
    first = [r for r in found.references if r.first == at + 1 and r.cte is None]
    return _of_references(draft, found, first, at + 1, first[0].end if first else at + 1)


def _names(draft: Draft, at: int) -> tuple[list[tuple[str, str]], int]:
    """name[.*], …: the names, and the index behind them."""
    names = []
    while True:
        name, at = _name(draft, at)
        names.append(name)
        if draft.word(at) == "." and at + 1 < len(draft.tokens) and draft.tokens[at + 1].text == "*":
            at += 2
        if draft.word(at) != ",":
            return names, at
        at += 1


def _named(draft: Draft, names: list[tuple[str, str]], start: int) -> Written:
    found = _read(draft, start)
    end = min(_outside(draft, start, word) for word in ("WHERE", "RETURNING"))
    joined = [r for r in _outermost(draft, found, start, end) if r.cte is None]
    targets = [r for r in joined if any(_is(r, name) for name in names)]
    if len(targets) != len(set(names)):
        raise refuse("it is not certain which tables this DELETE changes")
    return _of_references(draft, found, targets, start, end)


def _is(reference: Reference, name: tuple[str, str]) -> bool:
    database, table = name
    return reference.alias.lower() == table.lower() and (not database or reference.database in ("", database))


def _of_references(draft: Draft, found: Tables, targets: list[Reference], start: int, end: int) -> Written:
    if not targets:
        raise refuse(f"it is not certain which table this {draft.kind.value} changes")
    names = [(r.database, r.name) for r in targets]
    schema = draft.context.schema or ""
    if len({(database or schema, name) for database, name in names}) != len(names):
        raise refuse(f"{draft.kind.value} of a table that is joined with itself over several shards is not supported")
    many = len(_outermost(draft, found, start, end)) > 1 or draft.word(start) == "("
    return Written(found, names, [r.first for r in targets], many=many)


def _outermost(draft: Draft, found: Tables, start: int, end: int) -> list[Reference]:
    """References between two tokens that no subquery there holds."""
    inside: set[int] = set()
    for i in range(start, end):
        if draft.word(i) == "(" and draft.word(i + 1) in _QUERIES:
            inside.update(range(i, closing(draft, i)))
    return [r for r in found.references if start <= r.first < end and r.first not in inside]


def _outside(draft: Draft, start: int, word: str) -> int:
    """The index of a word outside parentheses; the end without one."""
    depth = 0
    for i in range(start, len(draft.tokens)):
        depth += {"(": 1, ")": -1}.get(draft.word(i), 0)
        if depth == 0 and draft.word(i) == word:
            return i
    return len(draft.tokens)


def _assignments(draft: Draft, at: int) -> Iterable[int]:
    """The first token of each assignment of a SET clause."""
    depth = 0
    yield at
    for i in range(at, len(draft.tokens)):
        depth += {"(": 1, ")": -1}.get(draft.word(i), 0)
        if depth == 0 and draft.word(i) in ("WHERE", "ORDER", "LIMIT", "RETURNING"):
            return
        if depth == 0 and draft.word(i) == ",":
            yield i + 1


def _qualifier(draft: Draft, at: int) -> tuple[str, str] | None:
    """(database or "", table) before an assigned column; None for a column alone."""
    if draft.word(at + 1) != ".":
        return None
    if draft.word(at + 3) == ".":
        return draft.tokens[at].text, draft.tokens[at + 2].text
    return "", draft.tokens[at].text


def where_of(draft: Draft) -> tuple[int, int] | None:
    """The tokens of an UPDATE's or DELETE's own condition; None without one."""
    first = _outside(draft, 0, "WHERE")
    if first >= len(draft.tokens):
        return None
    end = min(_outside(draft, first, word) for word in ("ORDER", "LIMIT", "RETURNING"))
    return first + 1, end
