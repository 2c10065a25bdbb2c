"""Executable comments (/*! … */, /*M! … */) out of a text: what a server reads instead.

Servers take the marks out of what they read and leave no blank, also in the names of columns that have no alias; so
does this. Source: sql/sql_lex.cc of MySQL 9.7 and MariaDB 10.11.
"""

from __future__ import annotations

import re

from shardproxy.sql.digest import NAME_BYTES
from shardproxy.sql.modes import SqlModes
from shardproxy.sql.tokens import pieces

LONGEST = 64 * 1024  # bytes of a text that is looked into
_NAMES = re.compile(rb"[.@'\"`NAME]".replace(b"NAME", NAME_BYTES))
_SIGNS = re.compile(rb"[-+*/%<>=!|&^~:#?]")


def has_code(sql: bytes) -> bool:
    """Whether there may be an executable comment, in a text that is not too long to be looked into."""
    return (b"/*!" in sql or b"/*M!" in sql) and len(sql) <= LONGEST


def without_code(sql: bytes, modes: SqlModes, mariadb: bool) -> bytes:
    """The text without marks of executable comments, and without those that do not run.

    As it is where that is not certain: a version on which it depends, marks between what would become one word or sign,
    marks behind two minus signs, which would begin a comment before a blank and at the end; on MySQL a mark that ends
    right behind something else.
    """
    kept: list[bytes] = []
    joins = False
    for piece, code in pieces(sql, modes, mariadb):
        if code is None:
            return sql
        if code:
            if piece == b"*/" and not mariadb and kept and not kept[-1][-1:].isspace():
                return sql  # MySQL puts a blank there, or none, by what it has read before
            if b"".join(kept[-2:]).endswith(b"--"):
                return sql
            joins = bool(kept)
            continue
        if joins and _grow_together(kept[-1][-1:], piece[:1]):
            return sql
        joins = False
        kept.append(piece)
    return b"".join(kept)


def _grow_together(left: bytes, right: bytes) -> bool:
    return any(kind.match(left) and kind.match(right) for kind in (_NAMES, _SIGNS))
