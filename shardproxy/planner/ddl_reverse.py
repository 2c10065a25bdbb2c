"""How a schema change is undone, and whether it may run twice. Both are judged by the words of the statement alone."""

from __future__ import annotations

from shardproxy.planner.ddl_plan import Reverse
from shardproxy.planner.draft import Draft, is_name
from shardproxy.sql.words import words

_NO_COLUMN = words("INDEX KEY UNIQUE FULLTEXT SPATIAL VECTOR PRIMARY CONSTRAINT FOREIGN CHECK PARTITION PERIOD SYSTEM")
_RESUME = "resume it, or undo it on each shard that has it with a hint /*shardproxy: shard=NAME*/"


def repeatable(draft: Draft, names: tuple[str, ...]) -> bool:
    """Whether the statement does no harm on a shard where it ran already without changing a definition.

    Not so: TRUNCATE and its kin lose rows that came since; a swap of two tables by RENAME may leave both definitions
    as they were; a column that is dropped and added again.
    """
    if draft.has("TRUNCATE") or (draft.has("REPLACE") and draft.has("TABLE") and not draft.has("VIEW")):
        return False
    if draft.word(0) == "RENAME":
        return len(names) == 2 * _renames(draft)
    return not (draft.word(0) == "ALTER" and draft.has("DROP") and draft.has("ADD"))


def reverse(draft: Draft, database: str, names: tuple[str, ...]) -> Reverse:
    """The reverse of a change of these tables of one database."""
    verb = draft.word(0)
    table = _name(database, names[0])
    if verb == "CREATE" and draft.has("VIEW"):
        if draft.word(1) == "OR":
            return Reverse(why_not=f"the former definition, if any, is in `shardctl ddl show`: {_RESUME}")
        return Reverse((f"DROP VIEW {table}",))
    if verb == "CREATE" and "TABLE" in (draft.word(1), draft.word(3)):
        if draft.word(1) == "OR":
            return Reverse(why_not=f"CREATE OR REPLACE has dropped the former table with its rows: {_RESUME}")
        return Reverse((f"DROP TABLE {table}",), empty=names[0])
    if verb == "CREATE":
        return _index(draft, table)
    if verb == "RENAME":
        return _rename(draft, database, names)
    if verb == "ALTER" and draft.word(1) == "TABLE":
        return _alter(draft, table)
    lost = {"DROP": "what was dropped is gone", "TRUNCATE": "the rows are gone"}.get(verb)
    return Reverse(why_not=f"{lost or f'no safe reverse of this {verb} is known'}: {_RESUME}")


def _name(*parts: str) -> str:
    return ".".join("`" + part.replace("`", "``") + "`" for part in parts)


def _index(draft: Draft, table: str) -> Reverse:
    """CREATE [UNIQUE] INDEX [IF NOT EXISTS] name …"""
    at = next((i for i in range(len(draft.tokens)) if draft.word(i) in ("INDEX", "KEY")), len(draft.tokens)) + 1
    if draft.word(at) == "IF":
        at += 3
    if draft.word(1) == "OR" or at >= len(draft.tokens) or not is_name(draft.tokens[at]):
        return Reverse(why_not=f"no safe reverse of this CREATE INDEX is known: {_RESUME}")
    return Reverse((f"DROP INDEX {_name(draft.tokens[at].text)} ON {table}",))


def _rename(draft: Draft, database: str, names: tuple[str, ...]) -> Reverse:
    """RENAME TABLE a TO b, c TO d: back in the other order. `names` are these in order, each once."""
    if len(names) != 2 * _renames(draft):
        return Reverse(why_not=f"a name stands in it twice: {_RESUME}")
    pairs = zip(names[::2], names[1::2], strict=True)
    back = [f"{_name(database, new)} TO {_name(database, old)}" for old, new in reversed(list(pairs))]
    return Reverse(("RENAME TABLE " + ", ".join(back),))


def _renames(draft: Draft) -> int:
    return sum(1 for token in draft.tokens if token.upper == "TO")


def _alter(draft: Draft, table: str) -> Reverse:
    """ALTER TABLE t ADD [COLUMN] name …, ADD INDEX name …: one action only."""
    adds = [i for i in range(len(draft.tokens)) if draft.word(i) == "ADD"]
    unknown = Reverse(why_not=f"only ALTER TABLE with one ADD COLUMN or ADD INDEX has a known reverse: {_RESUME}")
    if len(adds) != 1 or _commas(draft):
        return unknown
    at = adds[0] + 1
    if at not in (4, 6):  # ALTER TABLE [database .] table ADD
        return unknown
    what = "COLUMN"
    while draft.word(at) in ("UNIQUE", "FULLTEXT", "SPATIAL"):
        at += 1
        what = "INDEX"
    if draft.word(at) in ("INDEX", "KEY"):
        at += 1
        what = "INDEX"
    elif draft.word(at) == "COLUMN":
        at += 1
    elif draft.word(at) in _NO_COLUMN:
        return unknown
    if draft.word(at) == "IF":
        at += 3
    if at >= len(draft.tokens) or not is_name(draft.tokens[at]) or draft.word(at) in ("USING", "ON"):
        return unknown
    name = draft.tokens[at].text
    if what == "INDEX":
        return Reverse((f"ALTER TABLE {table} DROP INDEX {_name(name)}",))
    if draft.has("UNIQUE", "PRIMARY", "REFERENCES", "KEY"):
        return unknown  # the column brought an index or a constraint along
    return Reverse((f"ALTER TABLE {table} DROP COLUMN {_name(name)}",), warning=f"the values of column {name} are lost")


def _commas(draft: Draft) -> bool:
    """Whether a comma stands outside brackets: more than one action."""
    depth = 0
    for token in draft.tokens:
        depth += {"(": 1, ")": -1}.get(token.upper, 0)
        if token.upper == "," and depth == 0:
            return True
    return False
