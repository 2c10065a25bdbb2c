"""The two sides of TPC-H: a lone server that holds all rows, and the proxy over four shards that hold them together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from shardproxy.config import load
from shardproxy.local import LocalCluster, LocalServer
from shardproxy.local.flavors import FlavorName
from shardproxy.topology.build import build_snapshot
from tests.proxy import ProxyUnderTest, start_proxy
from tests.tpch.load import create_tables, load_rows
from tests.tpch.queries import Query
from tests.tpch.rows import Scale
from tests.tpch.schema import DATABASE, keyspace_toml
from tests.wire import RawClient, Refused, Result

SHARDS = 4
SEED = 20
_USER = "tpch"
_SECONDS = 300.0  # for one query, on a busy machine
_SHAPE = 0x20 | 0x40 | 0x10 | 0x100 | 0x800  # UNSIGNED, ZEROFILL, BLOB, ENUM, SET


class Differ(AssertionError):
    """The proxy answered, and not as the lone server did."""


@dataclass(frozen=True, slots=True)
class Sides:
    """Both, with the same rows."""

    proxy: ProxyUnderTest
    lone: LocalServer

    def ask_lone(self, sql: str) -> Result:
        """What the lone server answers."""
        server = self.lone
        with RawClient(server.port, server.admin_user, server.admin_password, DATABASE, seconds=_SECONDS) as client:
            return client.query(sql)

    def ask_proxy(self, sql: str) -> Result | Refused:
        """What the proxy answers; a clear error of its own is returned. Raises Refused for any other error."""
        with RawClient(self.proxy.port, _USER, _USER, DATABASE, seconds=_SECONDS) as client:
            try:
                return client.query(sql)
            except Refused as refused:
                if 9100 <= refused.code <= 9199:
                    return refused
                raise


@contextmanager
def both_sides(flavor: FlavorName, lone: LocalServer, scale: Scale) -> Iterator[Sides]:
    """Start four shards and a proxy, and load both sides; the database on `lone` is dropped at the end."""
    with LocalCluster(flavor, shards=SHARDS, replicas=0) as cluster:
        shards = [shard.primary for shard in cluster.shards]
        for server in (*shards, lone):
            create_tables(server)
        proxy = start_proxy(
            cluster,
            "tpch",
            users={_USER: {"password": _USER, "reads": "primary"}},
            keyspaces=keyspace_toml(shard.name for shard in cluster.shards),
            proxy={"workers": 1},
        )
        snapshot = build_snapshot(load(cluster.folder / "tpch.toml", {}))
        try:
            load_rows(lone, shards, snapshot.keyspaces[DATABASE].map, scale, SEED)
            yield Sides(proxy, lone)
        finally:
            proxy.process.stop()
            lone.rows(f"DROP DATABASE {DATABASE}")


def compare(query: Query, lone: Result, proxy: Result) -> None:
    """Raises Differ. Every value must be the same to the byte, and every column described alike."""
    described = [[_described(result, i) for i in range(len(result.columns))] for result in (lone, proxy)]
    if described[0] != described[1]:
        raise Differ(f"query {query.number}: columns {described[1]} instead of {described[0]}")
    if query.total:
        if lone.rows != proxy.rows:
            raise Differ(f"query {query.number}: {_first_difference(lone.rows, proxy.rows)}")
        return
    for index in query.ties:
        if [row[index] for row in lone.rows] != [row[index] for row in proxy.rows]:
            raise Differ(f"query {query.number}: the values of {lone.columns[index].name!r} come in another order")
    if sorted(map(repr, lone.rows)) != sorted(map(repr, proxy.rows)):
        pair = _first_difference(sorted(lone.rows, key=repr), sorted(proxy.rows, key=repr))
        raise Differ(f"query {query.number}: {pair}")


def _described(result: Result, index: int) -> tuple[object, ...]:
    column = result.columns[index]
    return (column.name, column.type, column.charset, column.length, column.decimals, column.flags & _SHAPE)


def _first_difference(wanted: Sequence[object], found: Sequence[object]) -> str:
    for number, (a, b) in enumerate(zip(wanted, found, strict=False)):
        if a != b:
            return f"row {number} is {b!r} instead of {a!r}"
    return f"{len(found)} rows instead of {len(wanted)}"
