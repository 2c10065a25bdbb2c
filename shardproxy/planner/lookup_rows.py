"""A row as the entries of lookup indexes see it, out of what a server answers to `lookup_text.select_columns`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shardproxy.planner import lookup_text
from shardproxy.planner.lookup_plan import Index, Part, PartKind
from shardproxy.planner.sort_keys import is_padded
from shardproxy.topology.lookup import blank_stripped, entry_value

Blanks = Mapping[str, bytes]  # collation → weight of a blank


@dataclass(frozen=True, slots=True)
class FoundRow:
    """key: the shard key as an entry has it; values: of each index, None: no entry; shown: for messages; given: of each
    index its parts, for `lookup_text.given_literal`; primary: bytes of the primary key's columns."""

    key: bytes
    values: tuple[bytes | None, ...]
    shown: tuple[bytes, ...]
    given: tuple[tuple[bytes, ...], ...]
    primary: tuple[bytes, ...]


def found_row(
    row: Sequence[bytes | None], indexes: Sequence[Index], primary: Sequence[Part], blanks: Blanks
) -> FoundRow:
    """row: the columns in order. blanks: of every collation that `padded_collations` gives."""
    left = iter(row)
    key = lookup_text.key_bytes(indexes[0], next(left) or b"")
    values: list[bytes | None] = []
    shown: list[bytes] = []
    given: list[tuple[bytes, ...]] = []
    for index in indexes:
        raw = [next(left) for _ in index.parts]
        parts = [
            (next(left) if part.kind is PartKind.TEXT else value) or b""
            for part, value in zip(index.parts, raw, strict=True)
        ]
        given.append(tuple(parts))
        texts = [
            text if part.kind is PartKind.TEXT else _shown(text) for part, text in zip(index.parts, parts, strict=True)
        ]
        whole = [comparable(part, v, blanks) for part, v in zip(index.parts, raw, strict=True) if v is not None]
        values.append(entry_value(whole) if len(whole) == len(raw) else None)
        shown.append(b"-".join(texts))
    return FoundRow(key, tuple(values), tuple(shown), tuple(given), tuple(value or b"" for value in left))


_PRINTED = bytes(range(0x20, 0x7F))


def _shown(value: bytes) -> bytes:
    """A number or binary string as servers print it in messages."""
    return b"".join(bytes((c,)) if c in _PRINTED else b"\\x%02X" % c for c in value)


def comparable(part: Part, value: bytes, blanks: Blanks) -> bytes:
    """What a server gave for a column, such that equal bytes are equal values."""
    if part.kind is PartKind.TEXT and is_padded(part.collation):
        return blank_stripped(value, blanks[part.collation])
    return value


def padded_parts(indexes: Sequence[Index]) -> list[Part]:
    """One part for each collation whose blank must be known."""
    parts = {
        part.collation: part
        for index in indexes
        for part in index.parts
        if part.kind is PartKind.TEXT and is_padded(part.collation)
    }
    return list(parts.values())
