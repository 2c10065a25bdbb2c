"""Whole answers of a server, of every shape, with what a scanner must find at their end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import strategies as st

from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.commands import PrepareOk
from shardproxy.protocol.mysql.constants import Status
from shardproxy.protocol.mysql.packets import EOF_HEADER, build_eof, build_err, build_ok, lenenc_int, parse_ok
from shardproxy.protocol.mysql.response import ERR, FIELDS, OK, PREPARE, QUERY, ROWS, SINGLE
from shardproxy.protocol.mysql.text import join_packets, text_row

MORE = Status.MORE_RESULTS_EXISTS.value
_PLAIN = ColumnDefinition(b"c")

numbers = st.integers(0, 2**64 - 1) | st.sampled_from([0, 250, 251, 252, 65_535, 65_536, 2**24 - 1, 2**24, 2**64 - 1])
statuses = st.integers(0, 0xFFFF).map(lambda status: status & ~MORE)
counts = st.integers(0, 0xFFFF)
short = st.binary(max_size=12)
values = st.none() | short | st.sampled_from([b"v" * 250, b"v" * 251, b"v" * 300])
text_rows = st.integers(1, 3).flatmap(lambda n: st.lists(values, min_size=n, max_size=n)).map(text_row)
binary_rows = st.binary(max_size=20).map(lambda rest: b"\0\0" + rest)
names = st.binary(min_size=1, max_size=4)
definitions = st.builds(ColumnDefinition, names, default=st.none() | short)


@dataclass(frozen=True)
class Answer:
    """`payloads` of an answer, and what the scanner says after it; None where the answer does not say."""

    shape: int
    payloads: tuple[bytes, ...]
    outcome: int
    status: int | None = None
    warnings: int | None = None
    affected: int | None = None
    insert_id: int | None = None
    error_code: int | None = None

    @property
    def wire(self) -> bytes:
        return join_packets(self.payloads, 1)


def ended(shape: int, before: Sequence[bytes], last: bytes, eof_packet: bool) -> Answer:
    """An answer that ends in `last`: an ERR, an EOF (`eof_packet`), or an OK packet of either header."""
    payloads = (*before, last)
    if last[0] == 0xFF:
        return Answer(shape, payloads, ERR, warnings=1, error_code=int.from_bytes(last[1:3], "little"))
    if eof_packet:
        return Answer(shape, payloads, ROWS, int.from_bytes(last[3:5], "little"), int.from_bytes(last[1:3], "little"))
    ok = parse_ok(last)
    outcome = ROWS if last[0] == EOF_HEADER else OK
    return Answer(shape, payloads, outcome, ok.status, ok.warnings, ok.affected, ok.insert_id)


def errors() -> st.SearchStrategy[bytes]:
    return st.builds(build_err, counts, st.just("HY000"), st.binary(max_size=30))


def oks(header: int = 0, more: bool = False) -> st.SearchStrategy[bytes]:
    return st.builds(
        build_ok,
        numbers,
        numbers,
        statuses.map(lambda status: status | MORE if more else status),
        counts,
        st.binary(max_size=9),
        st.just(header),
        st.binary(max_size=9),
    )


def row_ends(deprecate_eof: bool, more: bool = False) -> st.SearchStrategy[bytes]:
    """The packet after the last row."""
    if deprecate_eof:
        return oks(EOF_HEADER, more)
    return st.builds(build_eof, statuses.map(lambda status: status | MORE if more else status), counts)


@st.composite
def result_bodies(draw: st.DrawFn, deprecate_eof: bool) -> list[bytes]:
    """Column count, definitions and rows of one result set, without its last packet."""
    columns = draw(st.lists(definitions, min_size=1, max_size=3) | st.sampled_from([[_PLAIN] * 250, [_PLAIN] * 260]))
    payloads = [lenenc_int(len(columns)), *(column.build() for column in columns)]
    if not deprecate_eof:
        payloads.append(build_eof(draw(statuses), draw(counts)))
    return payloads + draw(st.lists(text_rows, max_size=4) | st.lists(binary_rows, max_size=4))


@st.composite
def queries(draw: st.DrawFn, deprecate_eof: bool) -> Answer:
    """OK, ERR or a result set, after any number of results that say MORE_RESULTS."""
    before: list[bytes] = []
    for _ in range(draw(st.integers(0, 2))):
        if draw(st.booleans()):
            before += [*draw(result_bodies(deprecate_eof)), draw(row_ends(deprecate_eof, more=True))]
        else:
            before.append(draw(oks(more=True)))
    if draw(st.booleans()):
        return ended(QUERY, before, draw(oks() | errors()), False)
    before += draw(result_bodies(deprecate_eof))
    last = draw(row_ends(deprecate_eof) | errors())
    return ended(QUERY, before, last, not deprecate_eof)


@st.composite
def prepares(draw: st.DrawFn, deprecate_eof: bool) -> Answer:
    """The answer to COM_STMT_PREPARE."""
    if draw(st.integers(0, 5)) == 0:
        return ended(PREPARE, (), draw(errors()), False)
    blocks = [draw(st.lists(definitions, max_size=3) | st.just([_PLAIN] * 300)) for _ in range(2)]
    params, columns = blocks
    payloads = [PrepareOk(draw(st.integers(0, 2**32 - 1)), len(columns), len(params), draw(counts)).build()]
    for block in blocks:
        payloads += [column.build() for column in block]
        if block and not deprecate_eof:
            payloads.append(build_eof(draw(statuses), draw(counts)))
    return Answer(PREPARE, tuple(payloads), OK)


@st.composite
def field_lists(draw: st.DrawFn, deprecate_eof: bool) -> Answer:
    """The answer to COM_FIELD_LIST."""
    columns = [column.build(with_default=True) for column in draw(st.lists(definitions, max_size=3))]
    return ended(FIELDS, columns, draw(row_ends(deprecate_eof) | errors()), not deprecate_eof)


@st.composite
def singles(draw: st.DrawFn, deprecate_eof: bool) -> Answer:
    """One packet: OK, ERR, EOF, or the text of COM_STATISTICS."""
    if draw(st.booleans()):
        return Answer(SINGLE, (b"Uptime: " + draw(short),), OK)
    if draw(st.booleans()):
        return ended(SINGLE, (), draw(oks() | errors()), False)
    # COM_SET_OPTION
    eof = build_ok(0, 0, draw(statuses), draw(counts), header=EOF_HEADER)
    return ended(SINGLE, (), eof if deprecate_eof else build_eof(draw(statuses), draw(counts)), not deprecate_eof)


def answers(deprecate_eof: bool) -> st.SearchStrategy[Answer]:
    return st.one_of(
        queries(deprecate_eof), prepares(deprecate_eof), field_lists(deprecate_eof), singles(deprecate_eof)
    )


@st.composite
def pieces(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """`data` cut at random points, often close to each other."""
    cuts = sorted(draw(st.sets(st.integers(0, len(data)), max_size=12)))
    near = sorted({at + d for at in cuts for d in draw(st.sets(st.integers(0, 6), max_size=3)) if at + d < len(data)})
    marks = sorted({0, len(data), *cuts, *near})
    return [data[a:b] for a, b in pairwise(marks)]
