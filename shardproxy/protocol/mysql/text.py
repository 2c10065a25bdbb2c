"""Text results: rows of length-encoded strings, and whole results of our own making."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.framing import packet, packet_count
from shardproxy.protocol.mysql.packets import (
    EOF_HEADER,
    NULL_VALUE,
    PayloadReader,
    build_eof,
    build_ok,
    lenenc_int,
    lenenc_str,
    read_lenenc_str,
)

_NULL = bytes((NULL_VALUE,))


def text_row(values: Sequence[bytes | None]) -> bytes:
    """Payload of one row; None is NULL."""
    return b"".join([_NULL if value is None else lenenc_str(value) for value in values])


def parse_text_row(payload: bytes, columns: int) -> list[bytes | None]:
    """The values of one row. Raises RemoteProtocolError when there are fewer or more than `columns`."""
    values: list[bytes | None] = []
    at = 0
    for _ in range(columns):
        if payload[at : at + 1] == _NULL:
            values.append(None)
            at += 1
        else:
            value, at = read_lenenc_str(payload, at)
            values.append(value)
    PayloadReader(payload, at).expect_end("a text row")
    return values


def resultset(
    columns: Sequence[ColumnDefinition],
    rows: Iterable[Sequence[bytes | None]],
    status: int,
    warnings: int,
    deprecate_eof: bool,
    first_seq: int = 1,
) -> bytes:
    """Wire bytes of a whole text result: column count, definitions, rows, terminator.

    `deprecate_eof`: no EOF after the definitions and an OK packet at the end (Cap.DEPRECATE_EOF).
    """
    return result_bytes(columns, map(text_row, rows), status, warnings, deprecate_eof, first_seq)


def result_bytes(
    columns: Sequence[ColumnDefinition],
    row_payloads: Iterable[bytes],
    status: int,
    warnings: int,
    deprecate_eof: bool,
    first_seq: int = 1,
) -> bytes:
    """Like `resultset`, of rows that are payloads already, text or binary."""
    payloads = [lenenc_int(len(columns)), *(column.build() for column in columns)]
    if not deprecate_eof:
        payloads.append(build_eof(status, 0))
    payloads += row_payloads
    if deprecate_eof:
        payloads.append(build_ok(0, 0, status, warnings, header=EOF_HEADER))
    else:
        payloads.append(build_eof(status, warnings))
    return join_packets(payloads, first_seq)


def join_packets(payloads: Iterable[bytes], first_seq: int) -> bytes:
    """Wire bytes of several payloads in a row."""
    parts = []
    seq = first_seq
    for payload in payloads:
        parts.append(packet(payload, seq))
        seq += packet_count(len(payload))
    return b"".join(parts)
