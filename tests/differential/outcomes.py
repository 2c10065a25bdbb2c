"""What a side answered to a statement, and whether two answers agree."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.constants import Com
from shardproxy.protocol.mysql.packets import Ok
from shardproxy.protocol.mysql.values import Value
from tests.differential.episodes import COUNT, ORDERED, Parameter, Step
from tests.wire import Closed, Prepared, RawClient, Refused, Result

_IN_TRANSACTION, _AUTOCOMMIT = 1, 2
READ_ONLY = 1792  # Cannot execute statement in a READ ONLY transaction
# NULL, duplicate, out of range, wrong or too long a value, a CHECK.
ERRORS_OF_ROWS = frozenset({1048, 1062, 1264, 1265, 1292, 1366, 1406, 1690, 3819, 4025})
_NOTHING = b"Rows matched: 0  Changed: 0  Warnings: 0"
_MALFORMED = 1835
_DUPLICATES = re.compile(rb"Duplicates: [0-9]+")
_SOME_WARNINGS = re.compile(rb"Warnings: [1-9][0-9]*")
# UNSIGNED, ZEROFILL, BLOB, ENUM, SET; the others (keys, NOT NULL, BINARY) depend on how a join was executed.
_SHAPE = 0x20 | 0x40 | 0x10 | 0x100 | 0x800

_UNSIGNED = 0x20
# Features whose columns are described alike however the statement is executed.
_PLAIN = ("select", "select join", "select order", "select lock", "select sharp", "select sharp join", "metadata")

_FAMILIES = {3: "integer", 8: "integer", 13: "integer", **dict.fromkeys((249, 250, 251, 252, 253, 254), "text")}
_WITH_DECIMALS = (7, 11, 12, 246)  # TIMESTAMP, TIME, DATETIME, DECIMAL

# Errors of the proxy's own that have MySQL's number for the very thing: known by how they begin.
_OWN_MESSAGES = ("cannot parse the statement", "cannot read ", "cannot be parsed")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One answer: an error, rows, or counts. status: server status flags, −1 unknown."""

    error: int = 0
    message: str = ""
    columns: tuple[ColumnDefinition, ...] | None = None
    rows: tuple[tuple[Value, ...], ...] = ()
    affected: int = 0
    insert_id: int = 0
    info: bytes = b""
    status: int = -1
    closed: bool = False

    @property
    def refused(self) -> bool:
        """A clear error of the proxy's own: it says that it does not answer."""
        if 9100 <= self.error <= 9199:
            return True
        if self.error == 1050:
            return "is a table of the configuration" in self.message
        if self.error == 1210:
            return "servers do not read" in self.message
        if self.error == 1264:
            return " cannot hold " in self.message or " holds " in self.message
        return self.error == 1064 and self.message.startswith(_OWN_MESSAGES)

    def shown(self, most: int = 12) -> str:
        """For people."""
        if self.closed:
            return "closed the connection"
        if self.error:
            return f"error {self.error}: {self.message}"
        if self.columns is None:
            return f"ok: {self.affected} affected, insert id {self.insert_id}, {self.info!r}, status {self.status:#x}"
        names = ", ".join(_described(c) for c in self.columns)
        head = f"{len(self.rows)} rows ({names}), status {self.status:#x}"
        lines = [head, *(f"  {row!r}" for row in self.rows[:most])]
        return "\n".join(lines) + ("\n  …" if len(self.rows) > most else "")


def _described(column: ColumnDefinition) -> str:
    name = column.name.decode("utf-8", "replace")
    return f"{name} type {column.type} charset {column.charset} flags {column.flags:#x} length {column.length}"


def ask(client: RawClient, step: Step) -> list[Outcome]:
    """Run a step on a side: one outcome, two when it is executed again."""
    try:
        if step.label == "reset":
            return [_outcome(client.command(Com.RESET_CONNECTION))]
        if not step.prepared:
            return [_outcome(client.query(step.sql.encode(step.charset)))]
        statement = client.prepare(step.sql.encode(step.charset))
        outcomes = [_executed(client, statement, step.parameters, True, step.long_data)]
        if step.again and not outcomes[0].error:
            outcomes.append(_executed(client, statement, tuple(map(_other_key, step.parameters)), False))
        client.close_statement(statement)
        return outcomes
    except Refused as refused:
        return [_failed(refused)]
    except (Closed, OSError) as error:
        return [Outcome(message=str(error), closed=True)]


def ask_both(proxy: RawClient, oracle: RawClient, step: Step) -> tuple[list[Outcome], list[Outcome]]:
    """Run a step that is a text on both sides at once."""
    try:
        for client in (proxy, oracle):
            client.send(bytes((Com.QUERY,)) + step.sql.encode(step.charset))
    except OSError as error:
        return [Outcome(message=str(error), closed=True)], [Outcome(message=str(error), closed=True)]
    return [_received(proxy)], [_received(oracle)]


def _received(client: RawClient) -> Outcome:
    try:
        return _outcome(client.result())
    except Refused as refused:
        return _failed(refused)
    except (Closed, OSError) as error:
        return Outcome(message=str(error), closed=True)


def _executed(
    client: RawClient, statement: Prepared, parameters: tuple[Parameter, ...], with_types: bool, ahead: bool = False
) -> Outcome:
    long_data = [i for i, (_, _, value) in enumerate(parameters) if ahead and isinstance(value, bytes)]
    for index in long_data:
        value = parameters[index][2]
        assert isinstance(value, bytes)
        client.send_long_data(statement, index, value[:1])
        client.send_long_data(statement, index, value[1:])
    try:
        return _outcome(client.execute(statement, parameters, with_types=with_types, long_data=long_data))
    except Refused as refused:
        return _failed(refused)


def _other_key(parameter: Parameter) -> Parameter:
    """The same type with a value that is on another shard."""
    kind, unsigned, value = parameter
    if kind == 8 and isinstance(value, int):
        return kind, unsigned, 42 if not 0 <= value < 100 else 500
    return parameter


def _failed(refused: Refused) -> Outcome:
    return Outcome(error=refused.code, message=refused.err.text)


def _outcome(result: Result) -> Outcome:
    end = result.end
    assert end is not None
    if result.columns:
        return Outcome(columns=tuple(result.columns), rows=tuple(map(tuple, result.rows)), status=end.status)
    assert isinstance(end, Ok)
    return Outcome(affected=end.affected, insert_id=end.insert_id, info=end.info, status=end.status)


def difference(
    step: Step, proxy: Outcome, oracle: Outcome, charsets: Mapping[int, str] | None, uncounted: bool = False
) -> str:
    """In what the proxy's answer differs from the lone server's; "" when it does not.

    charsets: by collation id; None when columns are not looked at beyond name and type: MySQL describes those of a
    second execution otherwise than those of a first. uncounted: AUTO_INCREMENT values of the two sides differ.
    """
    if proxy.closed or oracle.closed:
        return "a connection was closed"
    if proxy.error or oracle.error:
        if oracle.error == READ_ONLY and step.prepared and proxy.error:
            return ""  # the proxy has BEGIN READ ONLY still before it when it prepares, so it meets another error first
        if step.long_data and oracle.error == _MALFORMED:
            return ""  # text that is sent ahead MySQL does not read as a number; scratch tables get the number
        if step.label.startswith(("insert", "replace")) and {proxy.error, oracle.error} <= ERRORS_OF_ROWS:
            return ""  # rows of several shards are not stored in their order: another one may be the first to fail
        return "" if proxy.error == oracle.error else "error"
    if (proxy.columns is None) != (oracle.columns is None):
        return "kind of answer"
    if (proxy.status ^ oracle.status) & (_IN_TRANSACTION | _AUTOCOMMIT):
        return "status flags"
    if proxy.columns is None:
        mine, theirs = (one.info for one in (proxy, oracle))
        if step.label.startswith("update"):
            # Of conditions that cannot hold MariaDB says nothing.
            mine, theirs = (info or _NOTHING for info in (mine, theirs))
        if step.label.startswith(("update", "delete")) or "select" in step.label:
            # A comparison that warns does so for each row that is looked at: how many those are is the server's choice.
            mine, theirs = (_SOME_WARNINGS.sub(b"Warnings: some", info) for info in (mine, theirs))
        ids = (bool(one.insert_id) if uncounted else one.insert_id for one in (proxy, oracle))
        if (proxy.affected, next(ids), mine) != (oracle.affected, next(ids), theirs):
            return "counts"
        return ""
    assert oracle.columns is not None
    if step.label == "session" or charsets is None:
        # Answers of the proxy itself name no collation of the client's.
        same = [_named(c) for c in proxy.columns] == [_named(c) for c in oracle.columns]
        if step.label == "session":
            return "" if same and proxy.rows == oracle.rows else "rows or columns"
        if not same:
            return "columns"
    else:
        # A column of a view is the view's or the table's, as the server likes.
        seen = _seen if step.label in _PLAIN and "rich" not in step.sql.lower() else _described_as
        if len(proxy.columns) != len(oracle.columns):
            return "number of columns"
        for mine_column, their_column in zip(proxy.columns, oracle.columns, strict=True):
            # An expression may have become a column of a temporary table.
            if not mine_column.schema:  # a view has become a derived table, which is in no schema
                their_column = replace(their_column, schema=b"")
            described = seen if mine_column.org_name and their_column.org_name else _described_as
            if described(mine_column, charsets) != described(their_column, charsets):
                return f"columns: {described(mine_column, charsets)} instead of {described(their_column, charsets)}"
    if step.compare == COUNT:
        return "" if len(proxy.rows) == len(oracle.rows) else "number of rows"
    mine_rows, their_rows = (_comparable(step, one) for one in (proxy, oracle))
    if step.compare == ORDERED:
        return "" if mine_rows == their_rows else "rows or their order"
    return "" if sorted(mine_rows) == sorted(their_rows) else "rows"


def without_duplicates(answer: Outcome) -> Outcome:
    """The answer without its number of duplicates: of a row alone on its shard that is as it was, a server tells a
    client that counts found rows no more than that it has been found, or inserted."""
    return replace(answer, info=_DUPLICATES.sub(b"", answer.info))


def once_each(answer: Outcome) -> Outcome:
    """The answer about warnings with each of them once: how many rows a comparison warns for is the server's choice."""
    rows = [tuple(min(c, b"1") if isinstance(c, bytes) and c.isdigit() and len(r) == 1 else c for c in r)
            for r in answer.rows or ()]  # fmt: skip
    return replace(answer, rows=tuple(dict.fromkeys(rows)))


def _comparable(step: Step, answer: Outcome) -> list[str]:
    """Rows as texts that are the same when the rows count as the same."""
    if not step.loose:
        return list(map(repr, answer.rows))
    assert answer.columns is not None
    floats = [column.type in (4, 5) for column in answer.columns]
    return [repr([_loose(step, *cell) for cell in zip(row, floats, strict=True)]) for row in answer.rows]


def _loose(step: Step, cell: Value, is_float: bool) -> object:
    if "float" in step.loose and is_float and isinstance(cell, (bytes, float)):
        return f"{float(cell):.9g}"
    if "json" in step.loose and isinstance(cell, bytes) and cell[:1] == b"[":
        try:
            found = json.loads(cell)
        except ValueError:  # of binary strings MariaDB makes what is no JSON
            return sorted(cell)
        return sorted(map(repr, found)) if isinstance(found, list) else cell
    return cell


def _named(column: ColumnDefinition) -> tuple[bytes, str]:
    return column.name.lower(), _FAMILIES.get(column.type, str(column.type))


def _described_as(column: ColumnDefinition, charsets: Mapping[int, str]) -> tuple[object, ...]:
    """What every way to execute a statement tells of a column. From where it comes, how long it is, and whether an
    integer is INT or BIGINT and a text CHAR, VARCHAR or TEXT, follow from the server's choice to merge a derived table
    or to make a temporary one."""
    kind = _FAMILIES.get(column.type, str(column.type))
    charset = charsets.get(column.charset, column.charset) if kind == "text" else ""
    decimals = column.decimals if column.type in _WITH_DECIMALS else 0
    return column.name.lower(), kind, charset, column.flags & _UNSIGNED, decimals


def _seen(column: ColumnDefinition, charsets: Mapping[int, str]) -> tuple[object, ...]:
    """What a client sees of a column. Which collation the results have, beyond the character set, is not told apart:
    after SET collation_connection alone it is not carried to other connections."""
    charset = charsets.get(column.charset, column.charset)
    return (column.name, column.table, column.org_name, column.schema, column.type, charset, column.flags & _SHAPE,
            column.decimals, column.length)  # fmt: skip
