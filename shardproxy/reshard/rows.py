"""Statements that write many rows at once, cut to what a server takes in one packet."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from shardproxy.errors import ReshardError
from shardproxy.reshard.columns import TableShape
from shardproxy.reshard.link import Answer

# Measured: MySQL needs a quarter more CPU for the same rows in statements of 1 MiB; still smaller ones gain nothing.
STATEMENT_BYTES = 1 << 17
_MOST_KEYS = 1000
_SLACK = 4096  # of max_allowed_packet
# Possessive: a value of many megabytes must not be remembered step by step.
_VALUE = re.compile(rb"(_utf8mb4|_latin1)?'((?:[^']++|'')*+)'|[^,']++", re.DOTALL)


def inserts(table: TableShape, literals: Sequence[bytes], most: int) -> Iterator[tuple[list[bytes], int]]:
    """Statements, and how many rows the last of each list must insert. most: the target's max_allowed_packet."""
    head = table.insert_head
    limit = min(STATEMENT_BYTES, most - _SLACK)
    start = size = 0
    for i, literal in enumerate(literals):
        if size and size + len(literal) > limit:
            yield [head + b",".join(literals[start:i])], i - start
            start, size = i, 0
        if len(literal) + len(head) > most - _SLACK:
            yield _in_pieces(table, literal, most), 1
            start, size = i + 1, 0
            continue
        size += len(literal) + 1
    if start < len(literals):
        yield [head + b",".join(literals[start:])], len(literals) - start


def _in_pieces(table: TableShape, literal: bytes, most: int) -> list[bytes]:
    """A row that does not fit a packet: its large values are put together in user variables first."""
    piece = most // 4
    values = []
    statements = []
    for number, match in enumerate(_VALUE.finditer(literal[1:-1])):
        if len(match[0]) < piece or match[2] is None:
            values.append(match[0])
            continue
        raw = match[2].replace(b"''", b"'")
        name = b"@_shardproxy_value_%d" % number
        statements.append(b"SET %s = ''" % name)
        for at in range(0, len(raw), piece):
            part = raw[at : at + piece].replace(b"'", b"''")
            statements.append(b"SET %s = CONCAT(%s, '%s')" % (name, name, part))
        # One that is too long would be NULL: a statement that fails says so.
        statements.append(
            b"SELECT (SELECT 1 UNION ALL SELECT 2 FROM DUAL WHERE NOT LENGTH(%s) <=> %d)" % (name, len(raw))
        )
        values.append(b"CONVERT(%s USING %s)" % (name, match[1][1:]) if match[1] else name)
    return [*statements, table.insert_head + b"(" + b",".join(values) + b")"]


def deletes(table: TableShape, keys: Sequence[bytes]) -> Iterator[tuple[bytes, int]]:
    """Statements, and how many rows each must delete. keys: as `TableShape.primary_literal` gives them."""
    start = size = 0
    for i, key in enumerate(keys):
        if i - start >= _MOST_KEYS or size > STATEMENT_BYTES:
            yield _delete(table, keys[start:i]), i - start
            start, size = i, 0
        size += len(key) + 1
    if start < len(keys):
        yield _delete(table, keys[start:]), len(keys) - start


def _delete(table: TableShape, keys: Sequence[bytes]) -> bytes:
    if len(keys) == 1:
        return b"DELETE FROM %s WHERE %s = %s" % (table.quoted, table.primary_row, keys[0])
    return b"DELETE FROM %s WHERE %s IN (%s)" % (table.quoted, table.primary_row, b",".join(keys))


class Expected:
    """Statements with what they must answer; `check` raises ReshardError on the first that differs."""

    def __init__(self) -> None:
        self.statements: list[bytes] = []
        self._wanted: list[tuple[int, int, TableShape, bool]] = []

    def delete(self, table: TableShape, keys: Sequence[bytes]) -> None:
        for statement, count in deletes(table, keys):
            self._wanted.append((len(self.statements), count, table, False))
            self.statements.append(statement)

    def insert(self, table: TableShape, literals: Sequence[bytes], most: int) -> None:
        for statements, count in inserts(table, literals, most):
            self.statements += statements
            self._wanted.append((len(self.statements) - 1, count, table, True))
            if any(column.data_type == "enum" for column in table.columns):
                self.statements.append(b"SHOW WARNINGS")

    def check(self, answers: Sequence[Answer]) -> None:
        """answers: of the statements, in order."""
        for place, count, table, inserted in self._wanted:
            answer = answers[place]
            if answer.affected != count:
                raise ReshardError(
                    f"{table.database}.{table.name}: {count} rows were to be {'inserted' if inserted else 'deleted'} "
                    f"on the target, and {answer.affected} were: its rows are not what the source had; nothing was "
                    f"changed; cancel the move and look who else writes them. {_shown(self.statements[place])}"
                )
            if inserted and answer.warnings:
                self._allow(table, place, answers)

    def _allow(self, table: TableShape, place: int, answers: Sequence[Answer]) -> None:
        """Only the number 0 of an ENUM, which has no text, is stored as it is with a warning."""
        shown = answers[place + 1].values() if place + 1 < len(answers) and answers[place + 1].columns == 3 else []
        serious = [row for row in shown if row[0] != b"Note" and not _enum_zero(table, row)]
        if serious or not shown:
            text = (
                (serious[0][2] or b"").decode("utf-8", "replace") if serious else f"{answers[place].warnings} warnings"
            )
            raise ReshardError(
                f"{table.database}.{table.name}: the target did not take rows as they are: {text}; its definition must "
                f"be the source's. {_shown(self.statements[place])}"
            )


def _enum_zero(table: TableShape, row: Sequence[bytes | None]) -> bool:
    text = (row[2] or b"").decode("utf-8", "replace")
    return row[1] == b"1265" and any(c.data_type == "enum" and f"'{c.name}'" in text for c in table.columns)


def _shown(statement: bytes) -> str:
    return "Statement: " + statement[:400].decode("utf-8", "backslashreplace")
