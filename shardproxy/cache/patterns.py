"""Which Redis keys are rows of which tables. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from shardproxy.planner.query_cache import QueryCaching, QueryRule
from shardproxy.topology.model import Snapshot, TableKind

_COLUMN = re.compile(r"\{([^{}]+)\}")
_INTEGER = "(0|-?[1-9][0-9]{0,19})"  # as a server writes it: each row has one key


@dataclass(frozen=True)
class CachedRows:
    """Rows of one table as Redis keys, as in `[cache.rows.NAME]`. pattern: text with {COLUMN}; form: "json" or "hash";
    ttl, absent_ttl: milliseconds, 0: rows that are not there are not remembered; write: Redis commands write them;
    refresh_before, stale_for: milliseconds before and after the end of ttl in which a row that is there is given while
    somebody loads it anew."""

    name: str
    pattern: str
    database: str
    table: str
    form: str
    ttl: int
    absent_ttl: int
    write: bool = False
    refresh_before: int = 0
    stale_for: int = 0
    columns: tuple[str, ...] = field(init=False)  # the primary key's, in the pattern's order
    prefix: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(_COLUMN.findall(self.pattern)))
        object.__setattr__(self, "prefix", self.pattern.partition("{")[0].encode())

    def key(self, parts: Sequence[int]) -> bytes:
        """The Redis key of a row."""
        values = iter(parts)
        return _COLUMN.sub(lambda _: str(next(values)), self.pattern).encode()

    @property
    def stamped(self) -> bool:
        """Whether values are loaded anew while they are given: they have a stamp then."""
        return self.refresh_before > 0 or self.stale_for > 0

    @property
    def label(self) -> str:
        """The table, for messages."""
        return f"{self.database}.{self.table}"


@dataclass(frozen=True)
class CacheSettings:
    """`[cache]`. Durations in seconds; see docs/configuration.md. placement: says which node has which key; strict:
    writes make rows void before they are acknowledged; write_wait: seconds that they wait for a node; sample: the share
    of hits that is compared with the row. Answers of
    queries: queried: tables that they may be read from; biggest: bytes of one; rules: which are kept without a hint."""

    rows: tuple[CachedRows, ...]
    hold_off: float
    bound: float
    lease: float
    wait: float
    placement: str
    strict: bool = False
    write_wait: float = 5.0
    sample: float = field(default=0.0, repr=False)  # proxies may differ in it
    queried: tuple[tuple[str, str], ...] = ()
    biggest: int = 0
    rules: tuple[QueryRule, ...] = ()

    @property
    def tables(self) -> frozenset[tuple[str, str]]:
        """Tables with cached rows, or that kept answers are read from, with their keyspaces."""
        return frozenset((rows.database, rows.table) for rows in self.rows).union(self.queried)

    @property
    def caching(self) -> QueryCaching | None:
        """What plans must know of it."""
        return QueryCaching(frozenset(self.queried), self.rules) if self.queried else None

    @property
    def digest(self) -> str:
        """Proxies that differ in it must share nothing."""
        return sha256(repr(self).encode()).hexdigest()[:12]


def has_table(snapshot: Snapshot, shard: int, name: tuple[str, str]) -> bool:
    """Whether a shard, by its place in the map, has rows of a table."""
    keyspace = snapshot.keyspaces.get(name[0])
    table = None if keyspace is None else keyspace.tables.get(name[1])
    if keyspace is None or table is None:
        return False
    return table.shard == shard if table.kind is TableKind.SINGLE else shard in keyspace.shards


class Patterns:
    """All patterns. `owns` is asked for every command while there are any."""

    def __init__(self, rows: Sequence[CachedRows]) -> None:
        self.prefixes = tuple(r.prefix for r in rows)
        self._rows = [(r, re.compile(_expression(r.pattern).encode())) for r in rows]

    def owns(self, key: bytes) -> bool:
        """Whether a key is, or looks like, a row's: it is no key of a node then."""
        return key.startswith(self.prefixes)

    def find(self, key: bytes) -> tuple[CachedRows, tuple[int, ...]] | None:
        """The rows that a key is of, and its columns' values in the pattern's order; None when it fits no pattern."""
        for rows, expression in self._rows:
            match = expression.fullmatch(key)
            if match is not None:
                return rows, tuple(map(int, match.groups()))
        return None

    def near(self, key: bytes) -> Iterator[CachedRows]:
        """Rows whose keys begin as this one."""
        return (rows for rows, _ in self._rows if key.startswith(rows.prefix))


def _expression(pattern: str) -> str:
    parts = _COLUMN.split(pattern)  # text, column, text, column, … text
    return "".join(_INTEGER if i % 2 else re.escape(part) for i, part in enumerate(parts))
