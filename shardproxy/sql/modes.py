"""The sql_mode bits that change how a text is read: part of every key under which a plan is kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

# What the combination modes stand for (MySQL 5.7 names are still accepted by MariaDB).
_PIPES_QUOTES_SPACE = frozenset({"PIPES_AS_CONCAT", "ANSI_QUOTES", "IGNORE_SPACE"})
_COMBINATIONS = dict.fromkeys(("ANSI", "DB2", "MAXDB", "MSSQL", "ORACLE", "POSTGRESQL"), _PIPES_QUOTES_SPACE)

# MariaDB reads another language under these: PL/SQL blocks, [brackets] around names.
_FOREIGN = frozenset({"ORACLE", "MSSQL"})


@dataclass(frozen=True, slots=True)
class SqlModes:
    """How the client's text is to be read. Hashable; equal values read every text alike.

    ansi_quotes            "x" is an identifier
    no_backslash_escapes   \\ in a string is itself
    pipes_as_concat        || concatenates
    ignore_space           blanks may stand between a function's name and its (
    high_not               NOT binds tighter than comparison
    foreign                MariaDB's ORACLE or MSSQL mode: another grammar, refused by the planner
    zero_is_value          NO_AUTO_VALUE_ON_ZERO: a 0 in an AUTO_INCREMENT column is stored as it is
    single_byte            the client's character set has one byte a character and is not ASCII (latin1 …): a byte
                           from 0x80 on may be a blank or a sign, and text values are not UTF-8. Not part of
                           sql_mode; the session sets it with `dataclasses.replace`.
    three_bytes            the client's character set, or that of the connection, is utf8mb3: a character of four bytes
                           does not survive. Set by the session, too.
    gathered               a variable is set under which the answers of several shards cannot be put together, only
                           their rows (sql_select_limit …). Set by the session, too.
    auto_is_null           sql_auto_is_null is on. Set by the session, too.
    """

    ansi_quotes: bool = False
    no_backslash_escapes: bool = False
    pipes_as_concat: bool = False
    ignore_space: bool = False
    high_not: bool = False
    foreign: bool = False
    zero_is_value: bool = False
    single_byte: bool = False
    three_bytes: bool = False
    gathered: bool = False
    auto_is_null: bool = False

    @classmethod
    def parse(cls, sql_mode: str) -> Self:
        """From the value of @@sql_mode: names separated by commas, any case; names without effect are skipped."""
        given = {name.strip().upper() for name in sql_mode.split(",")}
        names = set(given)
        for name in given:
            names |= _COMBINATIONS.get(name, frozenset())
        return cls(
            ansi_quotes="ANSI_QUOTES" in names,
            no_backslash_escapes="NO_BACKSLASH_ESCAPES" in names,
            pipes_as_concat="PIPES_AS_CONCAT" in names,
            ignore_space="IGNORE_SPACE" in names,
            high_not="HIGH_NOT_PRECEDENCE" in names,
            foreign=bool(names & _FOREIGN),
            zero_is_value="NO_AUTO_VALUE_ON_ZERO" in names,
        )


def poorer(one: SqlModes, other: SqlModes) -> SqlModes:
    """The first, with the lacks of both character sets."""
    return replace(
        one,
        single_byte=one.single_byte or other.single_byte,
        three_bytes=one.three_bytes or other.three_bytes,
    )
