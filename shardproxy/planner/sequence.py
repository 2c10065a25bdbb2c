"""AUTO_INCREMENT where several shards would each count by themselves: where the numbers stand in an INSERT's text.

The proxy takes numbers from one sequence for all shards and writes them into the text, as if the client had given
them. What comes out is an ordinary INSERT, which is planned by its own text.
"""

from __future__ import annotations

from dataclasses import replace

from shardproxy.planner.bounds import integer_range
from shardproxy.planner.calls import closing
from shardproxy.planner.draft import Draft, is_name, literal_value, refuse
from shardproxy.planner.plan import Opcode, Plan, Spread, StatementKind
from shardproxy.planner.sequence_plan import NumberedRow, SequencePlan
from shardproxy.planner.template import Template, template
from shardproxy.sql.tokens import Token
from shardproxy.topology.model import Keyspace, Table, TableKind
from shardproxy.topology.schema import TableSchema

_MODIFIERS = frozenset({"LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY", "IGNORE", "INTO"})
_NEXT = (["NULL"], ["DEFAULT"])
Span = tuple[int, int]  # first token, and the one behind the last


def counting_column(keyspace: Keyspace, table: Table, schema: TableSchema | None) -> str | None:
    """The column, in lower case, whose numbers come from the global sequence; None when a server counts by itself."""
    if schema is None or table.kind is TableKind.SINGLE or len(keyspace.shards) == 1:
        return None
    return next((c.name.lower() for c in schema.columns if c.auto_increment), None)


def numbers(draft: Draft, keyspace: Keyspace, table: Table) -> SequencePlan | None:
    """Where an INSERT or REPLACE of values has its numbers; None when the table has no global sequence, or the rows
    come from a query. Raises for a value that is not plain."""
    schema = draft.context.catalog.get(keyspace.name, table.name)
    counting = counting_column(keyspace, table, schema)
    if schema is None or counting is None:
        return None
    at, listed = _columns(draft)
    column = schema.column(counting)
    assert column is not None
    largest = integer_range(column)[1]
    if not largest:
        raise refuse(f"{table.name}.{counting} is AUTO_INCREMENT of type {column.data_type}: give its value")
    found = SequencePlan(
        keyspace.name, table.name, column.name, largest, draft.kind is StatementKind.INSERT and draft.has("IGNORE"),
        draft.has("DUPLICATE"),
    )  # fmt: skip
    quoted = b"`" + column.name.replace("`", "``").encode() + b"`"
    if draft.word(at) in ("VALUES", "VALUE"):
        visible = [c.name.lower() for c in schema.columns if "invisible" not in c.extra.lower()]
        found = _values(draft, found, at, listed, counting, quoted, visible)
    elif draft.word(at) == "SET" and listed is None:
        found = _assignments(draft, found, at, counting, quoted)
    else:
        return None
    return found


def unnumbered(draft: Draft, keyspace: Keyspace, table: Table, found: SequencePlan) -> Plan:
    """The plan of a statement that takes numbers: what it does is known only when it has them."""
    return draft.plan(
        Opcode.EQUAL_UNIQUE if table.kind is TableKind.SHARDED else Opcode.REFERENCE,
        f"{found.table}.{found.column} gets its numbers from the sequence of all shards; then planned with them",
        keyspace=keyspace,
        spread=Spread.ANY,
        tables=(table.name,),
        sequence=found,
    )


# ── finding the places ──


def _columns(draft: Draft) -> tuple[int, Span | None]:
    """The index of VALUES, SET or SELECT, and the parentheses of the column list."""
    at = 1
    while draft.word(at) in _MODIFIERS:
        at += 1
    at += 3 if draft.word(at + 1) == "." else 1
    if draft.word(at) == "PARTITION":
        at = closing(draft, at + 1) + 1
    if draft.word(at) == "(" and draft.word(at + 1) not in ("SELECT", "WITH", "(", "TABLE", "VALUES"):
        end = closing(draft, at)
        return end + 1, (at, end)
    return at, None


def _parts(draft: Draft, first: int, end: int) -> list[Span]:
    """The tokens between commas outside parentheses; none for no tokens."""
    parts: list[Span] = []
    depth, start = 0, first
    for i in range(first, end):
        word = draft.word(i)
        depth += (word == "(") - (word == ")")
        if word == "," and depth == 0:
            parts.append((start, i))
            start = i + 1
    return [*parts, (start, end)] if end > first else []


def _values(
    draft: Draft, found: SequencePlan, at: int, listed: Span | None, counting: str, quoted: bytes, visible: list[str]
) -> SequencePlan:
    head, columns = template(draft, 0, at + 1) + b" ", visible
    rows, end = _rows(draft, at + 1)
    if listed is not None:
        columns = [draft.tokens[last - 1].text.lower() for _, last in _parts(draft, listed[0] + 1, listed[1])]
        if counting not in columns:
            more = (b", " if columns else b"") + quoted
            head = template(draft, 0, listed[1]) + more + template(draft, listed[1], at + 1) + b" "
    elif counting not in columns or all(close == opening + 1 for opening, close in rows):
        names = [] if counting in columns or all(c == o + 1 for o, c in rows) else columns
        written = b", ".join([b"`" + name.replace("`", "``").encode() + b"`" for name in names] + [quoted])
        head = template(draft, 0, at) + b" (" + written + b") " + template(draft, at, at + 1) + b" "
        columns = names
    place = columns.index(counting) if counting in columns else -1
    for number, (opening, close) in enumerate(rows, 1):
        if len(_parts(draft, opening + 1, close)) != len(columns):
            raise refuse(f"Column count doesn't match value count at row {number}", 1136)
    made = tuple(_row(draft, opening, close, place, counting) for opening, close in rows)
    return replace(found, head=head, rows=made, tail=b" " + template(draft, end, len(draft.tokens)))


def _rows(draft: Draft, at: int) -> tuple[list[Span], int]:
    """The parentheses of each row, and the index behind the last."""
    rows: list[Span] = []
    while True:
        at += draft.word(at) == "ROW"
        if draft.word(at) != "(":
            raise refuse(f"cannot read the rows of this {draft.kind.value}", 1064)
        close = closing(draft, at)
        rows.append((at, close))
        if draft.word(close + 1) != ",":
            return rows, close + 1
        at = close + 2


def _row(draft: Draft, opening: int, close: int, place: int, counting: str) -> NumberedRow:
    parts = _parts(draft, opening + 1, close)
    first = opening - (draft.word(opening - 1) == "ROW")
    if place < 0:
        _check_mentions(draft, parts, counting)
        before = template(draft, first, close) + (b", " if parts else b"")
        return NumberedRow(before, template(draft, close, close + 1))
    _check_mentions(draft, parts[:place] + parts[place + 1 :], counting)
    start, end = parts[place]
    return _given(draft, template(draft, first, start) + b" ", (start, end), template(draft, end, close + 1), counting)


def _assignments(draft: Draft, found: SequencePlan, at: int, counting: str, quoted: bytes) -> SequencePlan:
    end, depth = at + 1, 0
    while end < len(draft.tokens) and not (depth == 0 and draft.word(end) in ("ON", "AS", "RETURNING")):
        depth += (draft.word(end) == "(") - (draft.word(end) == ")")
        end += 1
    row: NumberedRow | None = None
    others: list[Span] = []
    for start, stop in _parts(draft, at + 1, end):
        sign = next((i for i in range(start, stop) if draft.tokens[i].text in ("=", ":=")), start)
        if draft.tokens[sign - 1].text.lower() == counting:
            rest = template(draft, stop, end)
            row = _given(draft, template(draft, at + 1, sign + 1) + b" ", (sign + 1, stop), rest, counting)
        else:
            others.append((sign + 1, stop))
    _check_mentions(draft, others, counting)
    if row is None:
        row = NumberedRow(template(draft, at + 1, end) + b", " + quoted + b" = ", Template())
    head = template(draft, 0, at + 1) + b" "
    return replace(found, head=head, rows=(row,), tail=b" " + template(draft, end, len(draft.tokens)))


def _given(draft: Draft, before: Template, part: Span, after: Template, counting: str) -> NumberedRow:
    tokens: tuple[Token, ...] = draft.tokens[part[0] : part[1]]
    words = [t.upper for t in tokens]
    if words == ["DEFAULT"] and draft.context.modes.zero_is_value:
        raise refuse(f"under NO_AUTO_VALUE_ON_ZERO DEFAULT stores 0 in {counting}: give NULL for the next number")
    if words in _NEXT:
        return NumberedRow(before, after)
    value = literal_value(tokens)
    if value is None:
        raise refuse(f"the value of the AUTO_INCREMENT column {counting} must be plain: a number, NULL or DEFAULT")
    return NumberedRow(before, after, value, template(draft, *part))


def _check_mentions(draft: Draft, parts: list[Span], counting: str) -> None:
    """A row's other values may not use the number: a server has not counted yet when it reads them."""
    if any(is_name(t) and t.text.lower() == counting for start, end in parts for t in draft.tokens[start:end]):
        raise refuse(f"a value of a new row uses the AUTO_INCREMENT column {counting}: give the values plainly")
