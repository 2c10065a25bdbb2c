"""An INSERT into whose text the next numbers of an AUTO_INCREMENT column are written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from shardproxy.planner.plan import Value
from shardproxy.planner.template import Rewritten, Template


@dataclass(frozen=True, slots=True)
class NumberedRow:
    """A row's text before and after its number. value: the literal that the client gave for it, None when the next
    number is due whatever the values are; given: its text."""

    before: Template
    after: Template
    value: Value | None = None
    given: Template = field(default_factory=Template)


@dataclass(frozen=True, slots=True)
class SequencePlan:
    """largest: number that the column can hold. ignore, updates: IGNORE, ON DUPLICATE KEY UPDATE: rows may be left out.

    repeats: of a long INSERT the first row stands for so many more, their literals each `width` further on; all behind
    them are shifted by the whole.
    """

    keyspace: str
    table: str
    column: str
    largest: int
    ignore: bool
    updates: bool
    head: Template = field(default_factory=Template)
    rows: tuple[NumberedRow, ...] = ()
    tail: Template = field(default_factory=Template)
    width: int = 0
    repeats: int = 0

    @property
    def open(self) -> bool:
        """Some row gets the next number whatever the values are."""
        return any(row.value is None for row in self.rows)

    def each(self) -> Iterator[tuple[NumberedRow, int]]:
        """Each row of the statement, and by how much its literals are shifted."""
        behind = self.width * self.repeats
        for i, row in enumerate(self.rows):
            if i:
                yield row, behind
            else:
                for repeat in range(self.repeats + 1):
                    yield row, repeat * self.width

    def values(self) -> Iterator[Value | None]:
        """The literal of each row's number; None where the next one is due."""
        for row, shift in self.each():
            value = row.value
            yield value if value is None or not shift else Value(value.index + shift, value.negative)

    def render(
        self,
        literals: Sequence[bytes],
        written: Sequence[int | None],
        parameters: Sequence[int] = (),
        count: int = -1,
    ) -> Rewritten:
        """The text with the numbers. written: for each row its number, None where the client's own value stays.

        For a prepared statement: parameters, for each literal its parameter number, else −1, and count, how many there
        are. Numbers are then further parameters: `count`, count + 1, …, in order.
        """
        out: list[bytes] = []
        used: list[int] = []

        def put(template: Template, shift: int) -> None:
            for piece in template.pieces:
                if isinstance(piece, bytes):
                    out.append(piece)
                    continue
                assert isinstance(piece, int)  # labels are of SELECTs
                out.append(literals[piece + shift])
                if parameters and parameters[piece + shift] >= 0:
                    used.append(parameters[piece + shift])

        put(self.head, 0)
        further = count
        for i, ((row, shift), number) in enumerate(zip(self.each(), written, strict=True)):
            if i:
                out.append(b", ")
            put(row.before, shift)
            if number is None:
                put(row.given, shift)
            elif count < 0:
                out.append(b"%d" % number)
            else:
                out.append(b"?")
                used.append(further)
                further += 1
            put(row.after, shift)
        put(self.tail, self.width * self.repeats)
        return Rewritten(b"".join(out), tuple(used))
