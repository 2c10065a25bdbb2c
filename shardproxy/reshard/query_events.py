"""Statements in the binlog: ends of transactions, XA outcomes, and definitions that change under a move. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum, auto

from shardproxy.reshard.columns import TableShape


class Says(Enum):
    """What a statement means for the stream."""

    BEGIN = auto()
    COMMIT = auto()
    ROLLBACK = auto()
    ROLLBACK_TO = auto()  # a savepoint: rows before it in the binlog are undone
    XA_INSIDE = auto()  # XA START, XA END
    XA_COMMIT = auto()
    XA_ROLLBACK = auto()
    OTHER = auto()


_COMMENT = re.compile(rb"\s*(?:/\*(?![!M]).*?\*/|--[ \t][^\n]*\n|#[^\n]*\n)", re.DOTALL)
_XA = re.compile(rb"XA\s+(START|BEGIN|END|COMMIT|ROLLBACK)\s+(.*?)\s*$", re.IGNORECASE | re.DOTALL)
_DEFINES = re.compile(
    rb"(ALTER|RENAME|DROP|TRUNCATE)\b|CREATE\b[^(]*?\b(INDEX|TRIGGER)\b|CREATE\s+OR\s+REPLACE\s+TABLE\b", re.IGNORECASE
)
_TEMPORARY = re.compile(rb"DROP\s+(/\*!40005\s+)?TEMPORARY\b", re.IGNORECASE)
_DROPS_DATABASE = re.compile(rb"DROP\s+(DATABASE|SCHEMA)\b", re.IGNORECASE)
_CHANGES_ROWS = re.compile(rb"(INSERT|UPDATE|DELETE|REPLACE|LOAD|WITH)\b", re.IGNORECASE)
_FREE = re.compile(
    rb"ALTER\s+(USER|DATABASE|SCHEMA|EVENT|SERVER|INSTANCE)\b|DROP\s+(USER|EVENT|ROLE|SERVER|VIEW)\b", re.I
)
OUR_OWN = b"_shardproxy"  # in the names of our own triggers


def meaning(text: bytes) -> tuple[Says, bytes]:
    """What a statement says; for an XA outcome also the xid as the servers write it (X'..',X'..',1)."""
    head = text[:12].upper()
    if head == b"BEGIN" or head.startswith(b"START TRANSA"):
        return Says.BEGIN, b""
    if head == b"COMMIT":
        return Says.COMMIT, b""
    if head.startswith(b"ROLLBACK"):
        return (Says.ROLLBACK if head == b"ROLLBACK" else Says.ROLLBACK_TO), b""
    if head.startswith(b"XA "):
        match = _XA.match(text)
        if match:
            verb = match[1].upper()
            if verb in (b"COMMIT", b"ROLLBACK"):
                return (Says.XA_COMMIT if verb == b"COMMIT" else Says.XA_ROLLBACK), match[2].lower()
            return Says.XA_INSIDE, b""
    return Says.OTHER, b""


def xid_text(format_id: int, gtrid: bytes, bqual: bytes) -> bytes:
    """An xid as `meaning` gives it."""
    return b"x'%s',x'%s',%d" % (gtrid.hex().encode(), bqual.hex().encode(), format_id)


def _names(name: str, text: bytes) -> bool:
    word = re.escape(name.encode())
    return re.search(rb"(?<![\w$])" + word + rb"(?![\w$])", text, re.IGNORECASE) is not None


def stopped_by(text: bytes, schema: str, tables: Sequence[TableShape]) -> str | None:
    """Why a statement outside the row format ends a move: it changes a definition of its tables, or their rows by
    text. None when it does neither. schema: the session's when it ran."""
    while match := _COMMENT.match(text):
        text = text[match.end() :]
    text = text.lstrip()
    if OUR_OWN in text:
        return None
    defines = _DEFINES.match(text) is not None and not _TEMPORARY.match(text) and not _FREE.match(text)
    rows = _CHANGES_ROWS.match(text) is not None
    if not defines and not rows:
        return None
    for table in tables:
        here = schema == table.database or _names(table.database, text)
        if _DROPS_DATABASE.match(text):
            hit = _names(table.database, text)
        else:
            hit = here and _names(table.name, text)
        if hit:
            shown = text[:200].decode("utf-8", "replace")
            if rows:
                return (
                    f"a statement wrote {table.database}.{table.name} outside binlog_format=ROW: {shown!r}; the move "
                    "cannot follow it; cancel the move, or start it anew"
                )
            return (
                f"the definition of {table.database}.{table.name} was changed during the move: {shown!r}; make the "
                "same change on all shards, then start the copy anew, or cancel the move"
            )
    return None
