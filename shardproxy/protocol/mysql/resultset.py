"""A whole text result, parsed: for the answers that the proxy itself asks for."""

from __future__ import annotations

from dataclasses import dataclass

from shardproxy.errors import RemoteProtocolError
from shardproxy.protocol.mysql.binary import parse_binary_row
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.constants import MAX_PAYLOAD
from shardproxy.protocol.mysql.framing import PacketReader
from shardproxy.protocol.mysql.packets import EOF_HEADER, read_lenenc_int
from shardproxy.protocol.mysql.text import parse_text_row


@dataclass(frozen=True, slots=True)
class TextResult:
    """Columns and rows; a row has one entry a column, None for NULL."""

    columns: tuple[ColumnDefinition, ...]
    rows: tuple[list[bytes | None], ...]


def parse_resultset(data: bytes, deprecate_eof: bool, binary: bool = False) -> TextResult:
    """The wire bytes of one text result set, sequence ids from 1.

    binary: a result of a prepared statement whose columns are all strings.

    Raises RemoteProtocolError when it is not one, or not a whole one: an ERR among the rows, nothing after the last.
    """
    reader = PacketReader(len(data), next_seq=1)
    payloads = [payload for _, payload in reader.feed(data)]
    if not payloads or payloads[0][:1] in (b"\x00", b"\xff", b"\xfb"):
        raise RemoteProtocolError("an answer without rows where a result set was due")
    count, _ = read_lenenc_int(payloads[0], 0)
    first_row = 1 + count + (0 if deprecate_eof else 1)
    if len(payloads) < first_row + 1 or reader.buffered or not _is_end(payloads[-1], deprecate_eof):
        raise RemoteProtocolError("a result set cut short")
    if not deprecate_eof and not _is_end(payloads[first_row - 1], deprecate_eof):
        raise RemoteProtocolError("no EOF after the column definitions")
    columns = tuple(ColumnDefinition.parse(payload) for payload in payloads[1 : 1 + count])
    if binary:
        return TextResult(columns, tuple(_strings(payload, columns) for payload in payloads[first_row:-1]))
    rows = tuple(parse_text_row(payload, count) for payload in payloads[first_row:-1])
    return TextResult(columns, rows)


def _strings(payload: bytes, columns: tuple[ColumnDefinition, ...]) -> list[bytes | None]:
    row: list[bytes | None] = []
    for value in parse_binary_row(payload, columns):
        if value is not None and not isinstance(value, bytes):
            raise RemoteProtocolError("a value that is no string where one was due")
        row.append(value)
    return row


def _is_end(payload: bytes, deprecate_eof: bool) -> bool:
    """Whether it ends rows. A row may begin with the same byte, but is longer then."""
    return payload[:1] == bytes((EOF_HEADER,)) and len(payload) < (MAX_PAYLOAD if deprecate_eof else 9)
