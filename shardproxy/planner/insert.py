"""INSERT and REPLACE, read from the tokens: rows of values are too many for the parser, and it does not know all forms.

INSERT [modifiers] [INTO] table [PARTITION (…)] [(columns)] VALUES (…), … | SET … | SELECT …
    [AS alias [(columns)]] [ON DUPLICATE KEY UPDATE …] [RETURNING …]
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from shardproxy.planner import routes
from shardproxy.planner.blocks import Facts, find_table, refuse_view
from shardproxy.planner.bounds import KeyBounds, key_bounds
from shardproxy.planner.calls import closing
from shardproxy.planner.draft import Draft, is_name, literal_value, refuse
from shardproxy.planner.gather import gather
from shardproxy.planner.insert_select import key_of_select, reference_select, select_into
from shardproxy.planner.lookup_writes import enter
from shardproxy.planner.parse import parse
from shardproxy.planner.plan import Group, InsertId, KeyIn, Plan, Rung, Spread, StatementKind, Value
from shardproxy.planner.reference_writes import check_target, spread_everywhere
from shardproxy.planner.sequence import numbers, unnumbered
from shardproxy.planner.template import template
from shardproxy.planner.unseen import hides
from shardproxy.planner.write_obstacles import reads_clock, rows_obstacle
from shardproxy.planner.write_plan import SEVERAL_SHARDS, SplitRows
from shardproxy.sql.functions import SEQUENCES
from shardproxy.sql.tokens import Token
from shardproxy.topology.model import Keyspace, Table, TableKind
from shardproxy.topology.schema import TableSchema

_MODIFIERS = frozenset({"LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY", "IGNORE", "INTO"})
Expression = tuple[Token, ...]


@dataclass(slots=True)
class Insert:
    """The statement taken apart. columns: None when the text lists none; rows: the expressions of each row; spans: for
    each row of VALUES its first token and the one behind the last; select: the tokens of a query in place of rows;
    updates: assigned columns of ON DUPLICATE KEY UPDATE; ignores: INSERT IGNORE."""

    keyspace: Keyspace
    table: Table
    columns: list[str] | None = None
    rows: list[list[Expression]] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    select: tuple[Token, ...] = ()
    updates: list[str] = field(default_factory=list)
    ignores: bool = False


def insert(draft: Draft) -> Plan | None:
    """The plan of an INSERT or REPLACE."""
    if draft.kind not in (StatementKind.INSERT, StatementKind.REPLACE):
        return None
    if draft.functions & SEQUENCES:
        raise refuse("sequences count on each shard by themselves: they are not supported")
    parts = insert_parts(draft)
    sequence = numbers(draft, parts.keyspace, parts.table)
    if sequence is not None and sequence.open:
        return unnumbered(draft, parts.keyspace, parts.table, sequence)
    match parts.table.kind:
        case TableKind.REFERENCE:
            plan = _into_reference(draft, parts)
        case TableKind.SINGLE:
            plan = _into_single(draft, parts)
        case TableKind.SHARDED:
            plan = _into_sharded(draft, parts)
    plan = enter(draft, parts, replace(plan, insert_id=_insert_id(draft, parts, bool(plan.nonzero))))
    return plan if sequence is None else replace(plan, sequence=sequence, nonzero=())


def facts_of_rows(draft: Draft) -> Facts:
    """What is known of the query that gives an INSERT its rows. Raises where there is none or it cannot be analysed."""
    parts = insert_parts(draft)
    if not parts.select:
        raise refuse("no query")
    return gather(draft, parse(draft, parts.select))


# ── taking it apart ──


def insert_parts(draft: Draft) -> Insert:
    """The statement taken apart. Raises UnsupportedError."""
    at = 1
    while draft.word(at) in _MODIFIERS:
        at += 1
    if draft.has("DELAYED"):
        raise refuse("INSERT DELAYED is not supported")
    database, name, at = _table_name(draft, at)
    keyspace, table = find_table(draft, database, name)
    if keyspace is None or table is None:
        raise refuse(f"{draft.kind.value} into a system table is not supported")
    refuse_view(draft, keyspace, table)
    parts = Insert(keyspace, table, ignores="IGNORE" in {draft.word(i) for i in range(1, at)})
    if draft.word(at) == "PARTITION":
        at = closing(draft, at + 1) + 1
    if draft.word(at) == "(" and draft.word(at + 1) not in ("SELECT", "WITH", "(", "TABLE", "VALUES"):
        end = closing(draft, at)
        parts.columns = [_column(part) for part in _split(draft.tokens[at + 1 : end])] if end > at + 1 else []
        at = end + 1
    if draft.word(at) in ("VALUES", "VALUE"):
        at = _rows(draft, at + 1, parts)
    elif draft.word(at) == "SET" and parts.columns is None:
        at = _set_form(draft, at + 1, parts)
    elif draft.word(at) in ("SELECT", "WITH", "(", "TABLE"):
        end = _on_duplicate(draft, at)
        parts.select = draft.tokens[at:end]
        at = end
    else:
        raise refuse(f"cannot read this {draft.kind.value}", 1064)
    _tail(draft, at, parts)
    return parts


def _table_name(draft: Draft, at: int) -> tuple[str, str, int]:
    """(database or "", table, index behind)."""
    if at >= len(draft.tokens) or not is_name(draft.tokens[at]):
        raise refuse(f"cannot read this {draft.kind.value}", 1064)
    if draft.word(at + 1) == "." and at + 2 < len(draft.tokens):
        return draft.tokens[at].text, draft.tokens[at + 2].text, at + 3
    return "", draft.tokens[at].text, at + 1


def _split(tokens: tuple[Token, ...]) -> list[Expression]:
    """Cut at commas outside parentheses."""
    parts: list[Expression] = []
    depth = start = 0
    for i, token in enumerate(tokens):
        upper = token.upper
        if upper == "(":
            depth += 1
        elif upper == ")":
            depth -= 1
        elif upper == "," and depth == 0:
            parts.append(tokens[start:i])
            start = i + 1
    parts.append(tokens[start:])
    return parts


def _column(tokens: Expression) -> str:
    """The column's name in lower case: the last part of database.table.column."""
    if not tokens or not all(is_name(t) if i % 2 == 0 else t.text == "." for i, t in enumerate(tokens)):
        raise refuse("cannot read the list of columns", 1064)
    return tokens[-1].text.lower()


def _rows(draft: Draft, at: int, parts: Insert) -> int:
    while True:
        first = at
        if draft.word(at) == "ROW":
            at += 1
        if draft.word(at) != "(":
            raise refuse(f"cannot read the rows of this {draft.kind.value}", 1064)
        end = closing(draft, at)
        parts.spans.append((first, end + 1))
        parts.rows.append(_split(draft.tokens[at + 1 : end]) if end > at + 1 else [])
        at = end + 1
        if draft.word(at) != ",":
            return at
        at += 1


def _set_form(draft: Draft, at: int, parts: Insert) -> int:
    end = at
    depth = 0
    while end < len(draft.tokens):
        depth += {"(": 1, ")": -1}.get(draft.word(end), 0)
        if depth == 0 and draft.word(end) in ("ON", "AS", "RETURNING"):
            break
        end += 1
    columns: list[str] = []
    row: list[Expression] = []
    for assignment in _split(draft.tokens[at:end]):
        sign = next((i for i, t in enumerate(assignment) if t.text in ("=", ":=") and t.upper), 0)
        columns.append(_column(assignment[:sign]))
        row.append(assignment[sign + 1 :])
    parts.columns, parts.rows = columns, [row]
    return end


def _on_duplicate(draft: Draft, at: int) -> int:
    """Index of the ON DUPLICATE KEY UPDATE, or RETURNING, that ends a query; the statement's end without one."""
    depth = 0
    for i in range(at, len(draft.tokens)):
        depth += {"(": 1, ")": -1}.get(draft.word(i), 0)
        if depth == 0 and (
            draft.word(i) == "RETURNING" or (draft.word(i) == "ON" and draft.word(i + 1) == "DUPLICATE")
        ):
            return i
    return len(draft.tokens)


def _tail(draft: Draft, at: int, parts: Insert) -> None:
    """[AS alias [(columns)]] [ON DUPLICATE KEY UPDATE …] [RETURNING …] up to the end."""
    if draft.word(at) == "AS":
        at += 2
        if draft.word(at) == "(":
            at = closing(draft, at) + 1
    end = next((i for i in range(at, len(draft.tokens)) if draft.word(i) == "RETURNING"), len(draft.tokens))
    if at < end:
        if [draft.word(at + i) for i in range(4)] != ["ON", "DUPLICATE", "KEY", "UPDATE"]:
            raise refuse(f"cannot read the end of this {draft.kind.value}", 1064)
        for assignment in _split(draft.tokens[at + 4 : end]):
            sign = next((i for i, t in enumerate(assignment) if t.text == "="), 0)
            parts.updates.append(_column(assignment[:sign]))
    tail = {t.upper for t in draft.tokens[at:]} | {t.upper for row in parts.rows for e in row for t in e}
    if tail & {"SELECT", "TABLE"}:
        raise refuse(
            f"a subquery inside VALUES, ON DUPLICATE KEY UPDATE or RETURNING is not supported in {draft.kind.value}"
        )


def _insert_id(draft: Draft, parts: Insert, nonzero: bool) -> InsertId:
    """nonzero: every row's value of the AUTO_INCREMENT column is given, and not 0."""
    schema = draft.context.catalog.get(parts.keyspace.name, parts.table.name)
    if schema is None:
        return InsertId.ASKED
    counting = next((c.name.lower() for c in schema.columns if c.auto_increment), None)
    if counting is None:
        return InsertId.REPORTED  # there is one only by LAST_INSERT_ID(expr)
    columns = parts.columns if parts.columns is not None else [c.name.lower() for c in schema.columns]
    given: list[bool] = []
    if not parts.select and counting in columns:
        place = columns.index(counting)
        given = [
            bool(row) and (place >= len(row) or [t.upper for t in row[place]] not in (["NULL"], ["DEFAULT"]))
            for row in parts.rows
        ]
    if draft.has("RETURNING") and not nonzero:
        raise refuse(f"INSERT … RETURNING into a table that counts {counting} by itself: use LAST_INSERT_ID()")
    if parts.select or parts.updates or "last_insert_id" in draft.functions:
        return InsertId.ASKED
    if nonzero:
        return InsertId.KEPT
    if any(given):
        return InsertId.ASKED
    return InsertId.REPORTED


# ── where it goes ──


def _into_single(draft: Draft, parts: Insert) -> Plan:
    assert parts.table.shard is not None
    home = Group((parts.table.name,), parts.keyspace, shard=parts.table.shard)
    if parts.select:
        return select_into(draft, home, gather(draft, parse(draft, parts.select)), None)
    return _one_shard(draft, parts, home, None, ())


def _into_reference(draft: Draft, parts: Insert) -> Plan:
    schema = check_target(draft, parts.keyspace, parts.table.name)
    columns = parts.columns if parts.columns is not None else [c.name.lower() for c in schema.columns]
    counting = next((c.name.lower() for c in schema.columns if c.auto_increment), None)
    nonzero: tuple[Value, ...] = ()
    tables = [parts.table.name]
    if parts.select:
        tables += reference_select(draft, parts.select, parts.keyspace, bool(parts.updates))
        if counting is not None:
            raise refuse(
                f"INSERT … SELECT into reference table {parts.table.name} is not supported: its AUTO_INCREMENT column "
                f"{counting} must be the same on every shard"
            )
    elif counting is not None:
        nonzero = _given(parts, columns, counting)
    return replace(spread_everywhere(draft, parts.keyspace, tuple(tables), [schema]), nonzero=nonzero)


def _check_hidden(draft: Draft, parts: Insert, schema: TableSchema | None, key: str) -> None:
    """Raises where a server would take a row that it hides for the duplicate of a new one, and silently change it, or
    leave out the new one. (An INSERT gets error 1062.) By a key with the shard key in it that cannot be; nor by numbers
    that are counted, for no two shards have the same."""
    if not hides((parts.keyspace,)) or not (draft.kind is StatementKind.REPLACE or parts.updates or parts.ignores):
        return
    counted = {c.name.lower() for c in schema.columns if c.auto_increment} if schema is not None else set()
    for unique in schema.unique_keys if schema is not None else ((),):
        if not {key.lower(), *counted} & {column.lower() for column in unique}:
            raise refuse(
                f"{draft.kind.value} of rows that may be there already, while rows of {parts.table.name} are on their "
                f"way between shards and a unique key ({', '.join(unique) or 'not known'}) lacks the shard key {key}"
            )


def _into_sharded(draft: Draft, parts: Insert) -> Plan:
    name, key = f"{parts.keyspace.name}.{parts.table.name}", parts.table.key
    assert key is not None
    schema = draft.context.catalog.get(parts.keyspace.name, parts.table.name)
    if key.lower() in parts.updates:
        raise refuse(f"ON DUPLICATE KEY UPDATE may not assign the shard key {key}: the row would have to move")
    _check_hidden(draft, parts, schema, key)
    only = routes.only_shard(parts.keyspace)
    if only is not None and not parts.select:
        return _one_shard(draft, parts, Group((parts.table.name,), parts.keyspace, shard=only), None, ())
    if parts.select:
        return _select_into_sharded(draft, parts, key, schema)
    columns = parts.columns
    if columns is None:
        if schema is None:
            raise refuse(
                f"the columns of '{name}' could not be read from the servers: list the columns in the statement"
            )
        columns = [column.name.lower() for column in schema.columns]
    if columns.count(key.lower()) != 1:
        raise refuse(f"{draft.kind.value} into {parts.table.name} must give its shard key {key}")
    place = columns.index(key.lower())
    values = []
    for number, row in enumerate(parts.rows, 1):
        value = literal_value(row[place]) if len(row) == len(columns) else None
        if len(row) != len(columns):
            raise refuse(f"Column count doesn't match value count at row {number}", 1136)
        if value is None:
            raise refuse(
                f"the shard key {key} of each new row must be a plain value: not NULL, DEFAULT or an expression"
            )
        values.append(value)
    group = Group((parts.table.name,), parts.keyspace, KeyIn(tuple(dict.fromkeys(values))))
    nonzero = _count_by_shards(parts, columns, schema)
    return _one_shard(draft, parts, group, _bounds(parts, key, schema), nonzero)


def _bounds(parts: Insert, key: str, schema: TableSchema | None) -> KeyBounds:
    """Raises when the key column's definition is not known, or is not of the keyspace's type."""
    name = f"{parts.keyspace.name}.{parts.table.name}"
    column = schema.column(key) if schema is not None else None
    if column is None:
        raise refuse(f"the definition of '{name}' with its key {key} could not be read from the servers")
    bounds = key_bounds(parts.table.name, column, parts.keyspace.key_type)
    if bounds is None:
        raise refuse(
            f"the key {key} of '{name}' has type {column.column_type}, which is no {parts.keyspace.key_type.value} key"
        )
    return bounds


def _count_by_shards(parts: Insert, columns: list[str], schema: TableSchema | None) -> tuple[Value, ...]:
    """Values of an AUTO_INCREMENT column, which must be given where several shards would each count by itself."""
    column = next((c for c in schema.columns if c.auto_increment), None) if schema is not None else None
    if column is None or len(parts.keyspace.shards) == 1:
        return ()
    return _given(parts, columns, column.name.lower())


def _given(parts: Insert, columns: list[str], counting: str) -> tuple[Value, ...]:
    """The literals of an AUTO_INCREMENT column, which may not be 0: MySQL takes that for "the next number"."""
    place = columns.index(counting) if counting in columns else -1
    values = [literal_value(row[place]) if 0 <= place < len(row) else None for row in parts.rows]
    found = tuple(dict.fromkeys(value for value in values if value is not None))
    if None in values:
        raise refuse(
            f"{parts.table.name}.{counting} is AUTO_INCREMENT, and each shard would count by itself: give its value"
        )
    return found


def _select_into_sharded(draft: Draft, parts: Insert, key: str, schema: TableSchema | None) -> Plan:
    if schema is None:
        raise refuse(f"the definition of '{parts.keyspace.name}.{parts.table.name}' could not be read from the servers")
    columns = parts.columns if parts.columns is not None else [c.name.lower() for c in schema.columns]
    counting = next((c.name.lower() for c in schema.columns if c.auto_increment), None)
    if len(parts.keyspace.shards) == 1:
        counting = None
    tree = parse(draft, parts.select)
    facts = gather(draft, tree)
    place = key_of_select(draft, tree, facts, parts.keyspace, schema, columns, key, counting)
    bounds = _bounds(parts, key, schema) if isinstance(place, Value) else None
    condition = KeyIn((place,)) if isinstance(place, Value) else None
    home = Group((parts.table.name,), parts.keyspace, condition) if condition is not None else None
    plan = select_into(draft, home, facts, bounds)
    return replace(plan, tables=(parts.table.name, *plan.tables))


def _one_shard(draft: Draft, parts: Insert, group: Group, bounds: KeyBounds | None, nonzero: tuple[Value, ...]) -> Plan:
    groups = (group,)
    why = rows_obstacle(draft)
    split = None if why else _split_rows(draft, parts, group)
    several = split is not None and len(split.rows) > 1
    spread = Spread.REFUSE if split is None else Spread.WRITE
    schema = draft.context.catalog.get(parts.keyspace.name, parts.table.name)
    return draft.plan(
        routes.opcode(groups),
        routes.reason(groups, draft, spread),
        Rung.MERGE if several else Rung.ONE_SHARD,
        keyspace=parts.keyspace,
        groups=groups,
        spread=spread,
        spread_error=f"{draft.kind.value} of rows of several shards with {why} is not supported: split it by "
        f"{parts.table.name}.{parts.table.key}"
        if why
        else "",
        not_above=SEVERAL_SHARDS if several else "",
        fixed_time=split is not None and reads_clock(draft, [schema] if schema is not None else []),
        tables=(parts.table.name,),
        key_bounds=bounds,
        nonzero=nonzero,
        write=split,
    )


def _split_rows(draft: Draft, parts: Insert, group: Group) -> SplitRows | None:
    """How the rows are split by shard; None when they cannot be of several: one place for all, or the SET form."""
    if group.shard is not None or not parts.spans:
        return None
    head = template(draft, 0, parts.spans[0][0]) + b" "
    tail = b" " + template(draft, parts.spans[-1][1], len(draft.tokens))
    rows = tuple(template(draft, *span) for span in parts.spans)
    return SplitRows(head, rows, tail, parts.ignores, omits=not draft.has("DEFAULT"))
