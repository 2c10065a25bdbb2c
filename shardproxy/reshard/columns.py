"""Tables as the moving engine sees them, and values as SQL.

A value travels as the text that a SELECT gives under `SET NAMES binary`: bytes as stored for strings, digits for
numbers. `ColumnShape.select` is the expression whose text loses nothing; `literal` is what is written to the target.
Statements are read under NO_BACKSLASH_ESCAPES: in a quoted string only the quote itself is doubled. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

from shardproxy.topology.moving import MovingKeys

NULL = b"NULL"

# The session of every connection that reads or writes rows: nothing of a value may depend on a server's settings.
SQL_MODE = b"NO_BACKSLASH_ESCAPES,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES"


class Form(IntEnum):
    """How a value's text becomes a literal."""

    NUMBER = 0  # as it is
    QUOTED = 1  # in quotes: bytes, dates, floating point numbers
    CHARACTERS = 2  # in quotes; compared in the column's own character set
    JSON = 3  # in quotes, and said to be utf8mb4: MySQL refuses binary strings for JSON
    ASCII = 4  # in quotes, and said to be text: MariaDB takes a binary string for the 16 bytes of a UUID


_INTRODUCERS = {Form.JSON: b"_utf8mb4", Form.ASCII: b"_latin1"}
_AS_TEXT = frozenset({"uuid", "inet6", "inet4"})


_NUMBERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "year", "bit", "enum", "set"})
_BY_NUMBER = frozenset({"bit", "enum", "set"})  # their own text loses something


def quote_name(name: str) -> bytes:
    """An identifier in backquotes."""
    return b"`" + name.replace("`", "``").encode() + b"`"


def quote(value: bytes) -> bytes:
    """A string literal under NO_BACKSLASH_ESCAPES."""
    return b"'" + value.replace(b"'", b"''") + b"'"


@dataclass(frozen=True)
class ColumnShape:
    """One column. data_type: lower case, as information_schema has it; charset: None where it is no text."""

    name: str
    data_type: str
    column_type: str
    charset: str | None = None
    collation: str | None = None
    generated: bool = False
    nullable: bool = True

    @property
    def unsigned(self) -> bool:
        return "unsigned" in self.column_type.lower()

    @cached_property
    def form(self) -> Form:
        if self.data_type == "json":
            return Form.JSON
        if self.data_type in _NUMBERS:
            return Form.NUMBER
        if self.data_type in _AS_TEXT:
            return Form.ASCII
        return Form.QUOTED if self.charset is None else Form.CHARACTERS

    @cached_property
    def select(self) -> bytes:
        """The expression whose text is the whole value."""
        name = quote_name(self.name)
        if self.data_type in _BY_NUMBER:
            return b"CAST(%s AS UNSIGNED)" % name  # +0 would take a SET through DOUBLE
        if self.data_type == "float" or (self.data_type == "double" and "(" in self.column_type):
            return b"CAST(%s AS DOUBLE)" % name  # +0e0 would lose the sign of -0
        return name

    def literal(self, value: bytes | None) -> bytes:
        """The value as it is written in INSERT."""
        if value is None:
            return NULL
        form = self.form
        if form is Form.NUMBER:
            return value
        return _INTRODUCERS.get(form, b"") + quote(value)

    def compared(self, value: bytes) -> bytes:
        """The value as it stands beside the column in a condition, so that an index can be used."""
        if self.form is Form.CHARACTERS:
            assert self.charset is not None
            return b"_" + self.charset.encode() + quote(value)
        return self.literal(value)


@dataclass(frozen=True)
class WholeTable:
    """All rows: of a reference table."""

    within: None = None

    def holds_text(self, value: bytes | None) -> bool:
        """Every row."""
        return True

    def condition(self, column: str) -> bytes:
        """SQL that is true."""
        return b"(TRUE)"


@dataclass(frozen=True)
class EntryRows:
    """Rows of `_shardproxy.lookup`: those of one keyspace, of values in some buckets."""

    keyspace: str
    values: MovingKeys

    @property
    def within(self) -> tuple[str, bytes]:
        """A column, and the value that it has in these rows."""
        return "keyspace", self.keyspace.encode()

    def holds_text(self, value: bytes | None) -> bool:
        """Whether a row with this value goes, if it is of the keyspace."""
        return self.values.holds_text(value)

    def condition(self, column: str) -> bytes:
        """SQL that is true for these rows."""
        return b"(`keyspace` = _utf8mb4%s AND %s)" % (quote(self.keyspace.encode()), self.values.condition(column))


@dataclass(frozen=True)
class TableShape:
    """A table that moves. primary, key: places in `columns` of the primary key and of the column that places a row.
    rows: which of them go, where that is not what the move's keys say. also: where a row goes only if another column's
    value is among these keys too, that column's place, and the keys.
    """

    database: str
    name: str
    columns: tuple[ColumnShape, ...]
    primary: tuple[int, ...]
    key: int
    rows: WholeTable | EntryRows | None = None
    also: tuple[int, MovingKeys] | None = None

    @property
    def label(self) -> str:
        """Its name among the tables of a stream."""
        return f"{self.database}.{self.name}" if isinstance(self.rows, EntryRows) else self.name

    def condition(self, moving: MovingKeys) -> bytes:
        """SQL that is true for the rows that go."""
        condition = (self.rows or moving).condition(self.columns[self.key].name)
        if self.also is None:
            return condition
        place, others = self.also
        return b"(%s AND %s)" % (condition, others.condition(self.columns[place].name))

    @cached_property
    def quoted(self) -> bytes:
        """`database`.`table`."""
        return quote_name(self.database) + b"." + quote_name(self.name)

    @cached_property
    def written(self) -> tuple[int, ...]:
        """Places of the columns that are copied: generated ones make themselves."""
        return tuple(i for i, column in enumerate(self.columns) if not column.generated)

    @cached_property
    def written_primary(self) -> tuple[int, ...]:
        """Places of the primary key's columns in a copied row."""
        return tuple(self.written.index(i) for i in self.primary)

    @cached_property
    def forms(self) -> tuple[int, ...]:
        """Forms of the copied columns."""
        return tuple(int(self.columns[i].form) for i in self.written)

    @cached_property
    def select_list(self) -> bytes:
        return b",".join(self.columns[i].select for i in self.written)

    @cached_property
    def insert_head(self) -> bytes:
        names = b",".join(quote_name(self.columns[i].name) for i in self.written)
        return b"INSERT INTO %s (%s) VALUES " % (self.quoted, names)

    @cached_property
    def primary_names(self) -> tuple[bytes, ...]:
        return tuple(quote_name(self.columns[i].name) for i in self.primary)

    @cached_property
    def primary_row(self) -> bytes:
        """The primary key as the left side of IN."""
        names = self.primary_names
        return names[0] if len(names) == 1 else b"(" + b",".join(names) + b")"

    def primary_literal(self, values: Sequence[bytes]) -> bytes:
        """One element of that IN. values: of the primary key's columns."""
        parts = [self.columns[i].compared(value) for i, value in zip(self.primary, values, strict=True)]
        return parts[0] if len(parts) == 1 else b"(" + b",".join(parts) + b")"

    def condition_behind(self, moving: MovingKeys, watermark: Sequence[bytes] | None) -> bytes:
        """Of the moving rows whose primary key comes after the watermark; None: of all."""
        where = self.condition(moving)
        return where if watermark is None else where + b" AND " + self.behind(watermark)

    def behind(self, values: Sequence[bytes], names: Sequence[bytes] | None = None) -> bytes:
        """The condition that a row's primary key comes after `values`, in the server's own order."""
        names = names or self.primary_names
        literals = [self.columns[i].compared(value) for i, value in zip(self.primary, values, strict=True)]
        if len(names) == 1:
            return b"%s > %s" % (names[0], literals[0])
        choices = []
        for i, (name, value) in enumerate(zip(names, literals, strict=True)):
            equal = [b"%s = %s" % pair for pair in zip(names[:i], literals[:i], strict=True)]
            choices.append(b"(" + b" AND ".join([*equal, b"%s > %s" % (name, value)]) + b")")
        return b"%s >= %s AND (%s)" % (names[0], literals[0], b" OR ".join(choices))


# What stands before a value of each form in INSERT, with the quote that opens it.
OPENINGS = tuple(_INTRODUCERS.get(form, b"") + b"'" for form in Form)


def text_row_literals(rows: Sequence[bytes], forms: Sequence[int]) -> list[bytes]:
    """Rows of the text protocol, as payloads, to "(…)" of a multi-row INSERT."""
    out = []
    openings = OPENINGS
    for row in rows:
        at = 0
        parts = []
        for form in forms:
            length = row[at]
            at += 1
            if length > 250:
                if length == 251:
                    parts.append(NULL)
                    continue
                width = 2 if length == 252 else 3 if length == 253 else 8
                length = int.from_bytes(row[at : at + width], "little")
                at += width
            value = row[at : at + length]
            at += length
            if form:
                parts.append(openings[form] + value.replace(b"'", b"''") + b"'")
            else:
                parts.append(value)
        out.append(b"(" + b",".join(parts) + b")")
    return out
