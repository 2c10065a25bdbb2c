"""What a subquery has found, as text in its place: literals that compare exactly as its own values would.

The column before it and the subquery's are of one kind (Compared), and of texts both have the same collation. Numbers
are integers and DECIMAL: their literals are integers and DECIMAL, too. Dates are typed literals. A text is given by its
bytes, its character set and its collation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import date

from shardproxy.planner.lookup_text import binary
from shardproxy.planner.subquery_plan import Compared, Form, Subquery
from shardproxy.protocol.mysql.constants import FieldType

MOST = 999  # values of one subquery: of 1000 and more MariaDB makes a subquery again
_LONGEST = 64 * 1024  # bytes of their literals
_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?").fullmatch
_MOST_NEGATIVE = 9_223_372_036_854_775_808  # its literal is no integer any more
_MOMENTS = {
    Compared.DATE: (re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}").fullmatch, b"DATE"),
    Compared.DATETIME: (
        re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?").fullmatch, b"TIMESTAMP"
    ),
}  # fmt: skip
_TYPES = {
    Compared.NUMBER: frozenset(
        (FieldType.TINY, FieldType.SHORT, FieldType.INT24, FieldType.LONG, FieldType.LONGLONG, FieldType.NEWDECIMAL)
    ),
    Compared.DATE: frozenset((FieldType.DATE,)),
    Compared.DATETIME: frozenset((FieldType.DATETIME,)),
    Compared.TEXT: frozenset((FieldType.VAR_STRING,)),
}

Cell = bytes | None


def limited(one: Subquery) -> bytes:
    """What ends the text of a subquery on each shard: no more rows than it takes to know enough."""
    return b" LIMIT %d" % {Form.EXISTS: 1, Form.SCALAR: 2}.get(one.form, MOST + 1)


def in_place(one: Subquery, types: Iterable[int], values: Sequence[Cell]) -> bytes | None:
    """The text that stands for a subquery. None where there is none that is certain to mean the same.

    types: field types of the column that it gave, on each shard; values: those of its rows, texts in UTF-8.
    """
    if one.form is Form.EXISTS:
        return b" (1 = 1) " if values else b" (1 = 0) "
    if not set(types) <= _TYPES[one.compared]:
        return None
    if one.form is Form.SCALAR:
        if len(values) > 1:
            return None  # the server's error
        return literal(one, values[0] if values else None)
    return _listed(one, values)


def _listed(one: Subquery, values: Sequence[Cell]) -> bytes | None:
    """The list; as many entries as a power of two, so that texts have few digests."""
    found: dict[bytes, None] = {}
    for value in values:
        text = literal(one, value)
        if text is None:
            return None
        found[text] = None
    texts = list(found)
    if not texts:
        # IN is false, and its term of the ANDs rejects the row, as NULL does. NOT IN of nothing is true of every row.
        return b"(NULL)" if one.form is Form.IN else b"(SELECT 1 FROM DUAL WHERE 1 = 0)"
    if len(texts) > MOST:
        return None
    texts += texts[-1:] * (min(1 << (len(texts) - 1).bit_length(), MOST) - len(texts))
    joined = b"(" + b",".join(texts) + b")"
    return joined if len(joined) <= _LONGEST else None


def literal(one: Subquery, value: Cell) -> bytes | None:
    """One value; None where its literal might mean something else."""
    if value is None:
        return b"NULL"
    if one.compared is Compared.NUMBER:
        if _NUMBER(value) is None or (value.startswith(b"-") and b"." not in value and -int(value) >= _MOST_NEGATIVE):
            return None
        return value
    if one.compared is Compared.TEXT:
        return b"_utf8mb4 " + binary(value) + b" COLLATE " + one.collation.encode()
    whole, word = _MOMENTS[one.compared]
    if whole(value) is None or not _is_date(value[:10]):
        return None
    return word + b"'" + value + b"'"


def _is_date(text: bytes) -> bool:
    """Not so 0000-00-00, nor 30 February, which some sql_modes store and take in no literal."""
    try:
        date.fromisoformat(text.decode())
    except ValueError:
        return False
    return True
