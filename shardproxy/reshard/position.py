"""Places in a source's history: which transactions have been read. Pure.

MariaDB counts transactions of a domain, so a place is the last one of each domain ("0-1-100,1-2-7"); MySQL keeps the
set of all ("uuid:1-100:105"). Both are texts in `_shardproxy.stream`.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from uuid import UUID

MariaGtid = tuple[int, int, int]  # domain, server, number
MySQLGtid = tuple[str, int]  # source uuid, number
Gtid = MariaGtid | MySQLGtid

# Where in the binlog files of one server: number of the file, offset in it.
Coordinates = tuple[int, int]


def coordinates(file: str, offset: int) -> Coordinates:
    """From "binlog.000012", 345. The name grows a digit after 999999, so the number is what counts."""
    return int(file.rpartition(".")[2]), offset


class Position(ABC):
    """Changes by `add` only; `copy` before keeping one."""

    @abstractmethod
    def add(self, gtid: Gtid) -> None:
        """The transaction has been read, after all those before it."""

    @abstractmethod
    def has(self, gtid: Gtid) -> bool:
        """Whether the transaction lies before this place."""

    @abstractmethod
    def covers(self, other: Position) -> bool:
        """Whether everything before `other` lies before this."""

    @abstractmethod
    def copy(self) -> Position: ...

    @abstractmethod
    def __str__(self) -> str: ...

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __repr__(self) -> str:
        return f"<{self}>"


class MariaPosition(Position):
    """domains: domain → (server, number) of its last transaction."""

    __slots__ = ("domains",)

    def __init__(self, domains: dict[int, tuple[int, int]]) -> None:
        self.domains = domains

    @classmethod
    def parse(cls, text: str) -> MariaPosition:
        """From "0-1-100,1-2-7". Raises ValueError."""
        domains = {}
        for part in filter(None, (p.strip() for p in text.split(","))):
            domain, server, number = (int(piece) for piece in part.split("-"))
            domains[domain] = (server, number)
        return cls(domains)

    def add(self, gtid: Gtid) -> None:
        domain, server, number = gtid  # type: ignore[misc]  # of this kind of server
        self.domains[domain] = (server, number)

    def has(self, gtid: Gtid) -> bool:
        domain, _, number = gtid  # type: ignore[misc]  # of this kind of server
        last = self.domains.get(domain)
        return last is not None and last[1] >= number

    def covers(self, other: Position) -> bool:
        assert isinstance(other, MariaPosition)
        mine = self.domains
        return all(d in mine and mine[d][1] >= number for d, (_, number) in other.domains.items())

    def copy(self) -> MariaPosition:
        return MariaPosition(dict(self.domains))

    def __str__(self) -> str:
        return ",".join(f"{d}-{s}-{n}" for d, (s, n) in sorted(self.domains.items()))


class MySQLPosition(Position):
    """sources: uuid (with ":tag") → disjoint closed intervals of numbers, in order."""

    __slots__ = ("sources",)

    def __init__(self, sources: dict[str, list[tuple[int, int]]]) -> None:
        self.sources = sources

    @classmethod
    def parse(cls, text: str) -> MySQLPosition:
        """From "uuid:1-5:7,uuid:tag:1-3". Raises ValueError."""
        position = cls({})
        for part in filter(None, ("".join(p.split()) for p in text.split(","))):
            uuid, *pieces = part.split(":")
            key = str(UUID(uuid))
            source = key
            for piece in pieces:
                if not piece[0].isdigit():
                    source = f"{key}:{piece.lower()}"
                    continue
                start, _, end = piece.partition("-")
                position._insert(source, int(start), int(end or start))
        return position

    def add(self, gtid: Gtid) -> None:
        source, number = gtid  # type: ignore[misc]  # of this kind of server
        intervals = self.sources.get(source)
        if intervals and intervals[-1][1] == number - 1:
            intervals[-1] = (intervals[-1][0], number)
        else:
            self._insert(source, number, number)

    def _insert(self, source: str, start: int, end: int) -> None:
        merged: list[tuple[int, int]] = []
        for low, high in sorted([*self.sources.get(source, ()), (start, end)]):
            if merged and low <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(merged[-1][1], high))
            else:
                merged.append((low, high))
        self.sources[source] = merged

    def has(self, gtid: Gtid) -> bool:
        source, number = gtid  # type: ignore[misc]  # of this kind of server
        return any(low <= number <= high for low, high in reversed(self.sources.get(source, ())))

    def covers(self, other: Position) -> bool:
        assert isinstance(other, MySQLPosition)
        for source, intervals in other.sources.items():
            mine = self.sources.get(source, ())
            for start, end in reversed(intervals):
                if not any(low <= start and end <= high for low, high in reversed(mine)):
                    return False
        return True

    def copy(self) -> MySQLPosition:
        return MySQLPosition({source: list(intervals) for source, intervals in self.sources.items()})

    def __str__(self) -> str:
        return ",".join(
            ":".join([source, *(f"{low}-{high}" if low != high else f"{low}" for low, high in intervals)])
            for source, intervals in sorted(self.sources.items())
        )

    def encoded(self) -> bytes:
        """As COM_BINLOG_DUMP_GTID wants it. Raises ValueError for tagged transactions, which we do not read."""
        if any(":" in source for source in self.sources):
            raise ValueError("the source has transactions with tagged GTIDs, which cannot be followed")
        parts = [struct.pack("<Q", len(self.sources))]
        for source, intervals in sorted(self.sources.items()):
            parts.append(UUID(source).bytes + struct.pack("<Q", len(intervals)))
            parts += [struct.pack("<QQ", low, high + 1) for low, high in intervals]
        return b"".join(parts)


def parse_position(text: str, mariadb: bool) -> Position:
    """A place as a text of its flavour. Raises ValueError."""
    return MariaPosition.parse(text) if mariadb else MySQLPosition.parse(text)
