"""Rows of keys on their way between shards (a move) are on two shards, and must be seen on one of them.

Which shard hides which keys says the map (`Move.hidden`); a shard never hides keys that it owns. A statement that goes
to one shard because of its conditions on the key needs nothing: a row that it can see has a key of that shard (see
router.route). One that goes to several is sent to a shard that hides keys with a condition on the key put in.

One condition is enough, on one source of the outermost block, where the statement is one that several shards can
answer by themselves (`spread.obstacle`, one group). Let S be a sharded source of that block, a member of the group's
home, and on no nullable side of an outer join. Then every row that FROM and WHERE give has a row of S in it, and from
all other sharded sources a tie leads to S: of their rows only those with S's key can matter, for the row itself or for
a subquery's answer to it (see blocks). So:

- A row whose S has a hidden key is wrong here, and left out. A row whose S has another key meets rows of that key
  alone: none is hidden, whichever way they are joined. An outer join's ON compares keys, so a hidden row of its
  nullable side matches no row that stays, and does not keep one from being extended with NULLs.
- WHERE comes before groups, DISTINCT, window functions, HAVING, ORDER BY and LIMIT: all of them count the rows that
  stay. FOR UPDATE locks those.
- The condition stands before the client's own: a row that must not be seen gives no warning either, as far as a
  server takes conditions in their order.
- UNION, WITH, subqueries in FROM, and subqueries that no key ties to the outer row are no statements of this kind:
  they go over scratch tables, and there each table is gathered with the condition on its own key.
- UPDATE and DELETE choose their rows in the same way, of all tables that they join.

Where there is no such S, or no such place in the text, the statement takes the next rung.
"""

from __future__ import annotations

from collections.abc import Iterable

from shardproxy.planner.blocks import Facts, Source, SourceKind
from shardproxy.planner.draft import Draft
from shardproxy.planner.groups import homes
from shardproxy.planner.plan import Group
from shardproxy.planner.select_parts import as_written
from shardproxy.planner.template import Piece, Template, Unseen
from shardproxy.topology.model import Keyspace
from shardproxy.topology.moving import MovingKeys

# What else may follow a WHERE (OFFSET, FETCH, WINDOW, INTO, RETURNING …) keeps the shards from answering by themselves,
# or follows one of these.
_ENDS_WHERE = frozenset({"GROUP", "HAVING", "ORDER", "LIMIT", "FOR", "LOCK"})
_VERBS = frozenset({"SELECT", "UPDATE", "DELETE"})
Hidden = tuple[tuple[int, tuple[MovingKeys, ...]], ...]


def hidden_of(keyspace: Keyspace) -> Hidden:
    """Shard index → keys that it hides; () while no rows are on their way."""
    return () if keyspace.move is None else tuple(sorted(keyspace.move.hidden.items(), key=lambda entry: entry[0]))


def hides(keyspaces: Iterable[Keyspace]) -> bool:
    """Whether any of these has keys that some shard hides."""
    return any(hidden_of(keyspace) for keyspace in keyspaces)


def key_condition(keyspace: Keyspace, table: str, before: bytes = b"", after: bytes = b"") -> Unseen | None:
    """The piece of a text over this one table. None where nothing is hidden, or the table has no key."""
    hidden = hidden_of(keyspace)
    key = keyspace.tables[table].key
    if not hidden or key is None:
        return None
    return Unseen(hidden, before, _quoted(key), after)


def unseen(draft: Draft, facts: Facts, groups: tuple[Group, ...]) -> tuple[Hidden, bytes] | str:
    """What is hidden, and S's key as the statement names it; or, for people, why there is none. Only of statements for
    which `spread.obstacle` or `merge` have found nothing."""
    [group] = groups
    source = _anchor(facts)
    if source is None or source.table is None or source.table.key is None:
        return "rows on their way between shards, and no table of which every row of the answer has one"
    if not source.name.isascii() or not source.table.key.isascii():
        return f"rows on their way between shards, and a name that is not ASCII ({source.name}.{source.table.key})"
    if b"/*!" in draft.sql or b"/*M!" in draft.sql:
        return "rows on their way between shards, and an executable comment"
    return hidden_of(group.keyspace), _quoted(source.name) + b"." + _quoted(source.table.key)


def _anchor(facts: Facts) -> Source | None:
    found = homes(facts)
    root = facts.root
    if len(found) != 1 or root is None:
        return None
    names = [source.name.lower() for source in root.sources]
    for source in found[0]:
        certain = source.kind is SourceKind.SHARDED and source.block is root and not source.nullable
        if certain and names.count(source.name.lower()) == 1:
            return source
    return None


def with_condition(draft: Draft, facts: Facts, groups: tuple[Group, ...]) -> Template | str:
    """The statement as it is, with the condition for shards that hide keys; or, for people, why not."""
    found = unseen(draft, facts, groups)
    if isinstance(found, str):
        return found
    if draft.word(0) not in _VERBS or _where(draft, 0) is None:  # in parentheses, TABLE, or worse
        return "rows on their way between shards, and no certain place for a condition"
    return conditioned(draft, 0, len(draft.tokens), *found) + draft.sql[draft.tokens[-1].end :]


def conditioned(draft: Draft, first: int, end: int, hidden: Hidden, column: bytes) -> Template:
    """Tokens first to end as they are, with the condition: they hold the outermost WHERE, or the place for it. Only
    where `with_condition` has found it."""
    span = _where(draft, first)
    assert span is not None
    where, last = span
    last = min(last, end)
    tail = Template(_between(draft, last, end))
    if where < 0:
        return Template(_between(draft, first, last)) + _bare(hidden, column) + tail
    inner = Template(_between(draft, where + 1, last))
    return Template(_between(draft, first, where + 1)) + _conjoined(inner, hidden, column) + tail


def body(draft: Draft, first: int, end: int, hidden: Hidden, column: bytes) -> Template:
    """FROM … WHERE, which stands between these tokens and nothing else does, with the condition."""
    depth, where = 0, -1
    for i in range(first, end):
        word = draft.word(i)
        depth += (word == "(") - (word == ")")
        if word == "WHERE" and not depth:
            where = i
    if where < 0:
        return as_written(draft, first, end) + _bare(hidden, column)
    return as_written(draft, first, where + 1) + _conjoined(Template(_between(draft, where + 1, end)), hidden, column)


def _bare(hidden: Hidden, column: bytes) -> Template:
    """The condition as a WHERE of its own."""
    return Template((Unseen(hidden, b" WHERE ", column),))


def _conjoined(condition: Template, hidden: Hidden, column: bytes) -> Template:
    """The condition before the client's own, which begins with what stands between it and its WHERE."""
    return Template((Unseen(hidden, b" ", column, b" AND ("), *condition.pieces, Unseen(hidden, b")")))


def _where(draft: Draft, first: int) -> tuple[int, int] | None:
    """Index of the outermost WHERE from a token on, −1 for none, and where what it says ends, or would. None where that
    is not certain."""
    where, depth = -1, 0
    for i in range(first, len(draft.tokens)):
        word = draft.word(i)
        depth += (word == "(") - (word == ")")
        if depth:
            continue
        if word == "WHERE":
            if where >= 0:
                return None
            where = i
        elif word in _ENDS_WHERE and draft.word(i - 1) not in ("FOR", "INDEX", "KEY"):
            return (where, i) if "WHERE" not in _outer(draft, i) else None
    return where, len(draft.tokens)


def _outer(draft: Draft, first: int) -> set[str]:
    """Words outside parentheses from a token on."""
    found, depth = set(), 0
    for i in range(first, len(draft.tokens)):
        word = draft.word(i)
        depth += (word == "(") - (word == ")")
        if not depth:
            found.add(word)
    return found


def _between(draft: Draft, first: int, end: int) -> tuple[Piece, ...]:
    """Tokens first to end, with what stands before each of them as it was written."""
    pieces: list[Piece] = []
    at = draft.tokens[first - 1].end if first else 0
    for token in draft.tokens[first:end]:
        if token.literal >= 0:
            pieces += [draft.sql[at : token.start], token.literal]
            at = token.end
    if end > first:
        pieces.append(draft.sql[at : draft.tokens[end - 1].end])
    return tuple(piece for piece in pieces if piece != b"")


def _quoted(name: str) -> bytes:
    return b"`" + name.replace("`", "``").encode() + b"`"
