"""How the keyspace of the torture of moves begins, and where a row must be by a stored map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shardproxy.topology.keys import bucket_of
from shardproxy.topology.map_document import MapDocument
from shardproxy.topology.map_form import RangeForm, TableForm
from shardproxy.topology.ring import place_buckets
from tests.torture.audit import Row
from tests.torture.traffic import COLUMNS, KEY_COLUMNS, SHARDS, WIDTH

SINGLE = 1  # the number of the shard that has the table which is on one shard


def name(shard: int) -> str:
    return f"shard{shard + 1}"


def number(shard: str) -> int:
    return int(shard.removeprefix("shard")) - 1


def ranges() -> list[tuple[str, str, str]]:
    """From, to, shard: as many keys for each."""
    cuts = ["min", *(str(shard * WIDTH) for shard in range(1, SHARDS)), "max"]
    return [(cuts[shard], cuts[shard + 1], name(shard)) for shard in range(SHARDS)]


@dataclass(frozen=True)
class Layout:
    """ring: numbers of the shards among which buckets are placed, others own nothing; empty: ranges over all. single: a
    table that is on one shard; empty: all have keys."""

    ring: tuple[int, ...] = ()
    single: str = ""

    @property
    def members(self) -> tuple[int, ...]:
        """Shards with tables."""
        return self.ring or tuple(range(SHARDS))

    def keyspaces(self) -> str:
        """Of a configuration."""
        text = f'[keyspaces.main]\nkey_type = "int"\nmap = "{"hash" if self.ring else "range"}"\n'
        if self.ring:
            text += f"ring = {{ {', '.join(f'{name(shard)} = 1' for shard in self.ring)} }}\n"
        tables = (
            f'{table} = {{ single = "{name(SINGLE)}" }}' if table == self.single else f'{table} = {{ key = "{key}" }}'
            for table, key in KEY_COLUMNS.items()
        )
        text += f"tables = {{ {', '.join(tables)} }}\n"
        for start, end, shard in () if self.ring else ranges():
            start, end = (end if end.isdigit() else f'"{end}"' for end in (start, end))
            text += f'[[keyspaces.main.ranges]]\nfrom = {start}\nto = {end}\nshard = "{shard}"\n'
        return text

    def shard_of(self, table: str, key: int) -> int:
        """Where rows are in the beginning."""
        if table == self.single:
            return SINGLE
        if not self.ring:
            return key // WIDTH
        names = {name(shard): shard for shard in self.ring}
        return place_buckets(dict.fromkeys(names, 1), names)[bucket_of(key)]


RANGES = Layout()


def places(document: MapDocument) -> Callable[[str, Row], int]:
    """Table and row → the number of the shard on which it must be."""

    def of(table: str, row: Row) -> int:
        form = document.tables.get(table, TableForm(key=KEY_COLUMNS[table]))
        if form.key is None:
            assert form.single is not None
            return number(form.single)
        return owner(document, int(row[COLUMNS[table].index(form.key)]))

    return of


def owner(document: MapDocument, key: int) -> int:
    """The number of the shard that has a key."""
    if isinstance(document.map, RangeForm):
        return next(number(r.shard) for r in document.map.ranges if r.start <= key < r.end)
    return number(document.map.owners[bucket_of(key)])
