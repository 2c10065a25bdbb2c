"""A small world to plan in: three shards, a range keyspace over integers, a hash keyspace over text, a lone shard."""

from __future__ import annotations

from shardproxy.planner.context import PlanContext
from shardproxy.sql.modes import SqlModes
from shardproxy.topology.keys import KeyType
from shardproxy.topology.maps import INT_MAX, INT_MIN, BucketMap, KeyRange, RangeMap
from shardproxy.topology.model import Keyspace, LookupIndex, Role, Server, Shard, Snapshot, Table, TableKind
from shardproxy.topology.ring import place_buckets
from shardproxy.topology.schema import Catalog, Column, TableSchema

NAMES = ("a", "b", "c")


def sharded(name: str, key: str, *lookups: LookupIndex) -> Table:
    return Table(name, TableKind.SHARDED, key=key, lookups=lookups)


def reference(name: str) -> Table:
    return Table(name, TableKind.REFERENCE)


def single(name: str, shard: int) -> Table:
    return Table(name, TableKind.SINGLE, shard=shard)


def by_name(*tables: Table) -> dict[str, Table]:
    return {table.name: table for table in tables}


def column(name: str, column_type: str, **more: str) -> Column:
    return Column(name, column_type.split("(")[0].split()[0], column_type, **more)  # type: ignore[arg-type]


def schema(
    database: str,
    name: str,
    *columns: Column,
    unique: tuple[tuple[str, ...], ...] = (),
    primary: tuple[str, ...] = (),
) -> tuple[tuple[str, str], TableSchema]:
    names = tuple(f"by_{'_'.join(key)}" for key in unique)
    return (database, name), TableSchema(database, name, columns, unique, primary, False, unique_names=names)


SHARDS = tuple(Shard(name, Server(f"{name}/primary", "127.0.0.1", 1, Role.PRIMARY, name)) for name in NAMES)
COUNTING = "auto_increment"
BIN = "utf8mb4_bin"

SHOP = Keyspace(
    "shop",
    KeyType.INT,
    RangeMap([KeyRange(0, 1000, 0), KeyRange(1000, 2000, 1)]),
    by_name(
        sharded("users", "uid"),
        sharded("orders", "uid"),
        sharded("items", "uid"),
        sharded("events", "uid"),
        sharded("unread", "uid"),
        sharded("derived", "uid"),
        sharded(
            "accounts",
            "uid",
            LookupIndex(("email",), True),
            LookupIndex(("tenant", "nick"), True),
            LookupIndex(("token",)),
        ),
        reference("countries"),
        reference("rates"),
        reference("tokens"),
        single("settings", 0),
        single("jobs", 1),
    ),
    (0, 1),
)
BLOG = Keyspace(
    "blog",
    KeyType.TEXT,
    BucketMap(place_buckets({"a": 1, "b": 1, "c": 2}, {"a": 0, "b": 1, "c": 2})),
    by_name(sharded("posts", "author"), sharded("comments", "author"), reference("tags"), single("drafts", 2)),
    (0, 1, 2),
)
FILES = Keyspace(
    "files",
    KeyType.BINARY,
    BucketMap(place_buckets({"a": 1, "b": 1}, {"a": 0, "b": 1})),
    by_name(sharded("blobs", "digest"), sharded("names", "digest")),
    (0, 1),
)
EVERY_KEY = RangeMap([KeyRange(INT_MIN, INT_MAX + 1, 2)])
LONE = Keyspace("lone", KeyType.INT, EVERY_KEY, by_name(sharded("things", "id")), (2,))
SNAPSHOT = Snapshot(1, SHARDS, {k.name: k for k in (SHOP, BLOG, FILES, LONE)})

CATALOG = Catalog(
    dict(
        [
            schema("shop", "users", column("uid", "bigint"), column("name", "varchar(50)"), column("country", "int"),
                   column("bio", "text"), unique=(("uid",),)),
            schema("shop", "orders", column("id", "bigint", extra=COUNTING), column("uid", "bigint"),
                   column("total", "int"), column("placed", "datetime"), unique=(("id",), ("uid", "placed"))),
            schema("shop", "items", column("uid", "bigint"), column("oid", "bigint"), column("amount", "int"),
                   unique=(("uid", "oid"),)),
            schema("shop", "events", column("uid", "int unsigned"), column("what", "varchar(20)")),
            schema("shop", "derived", column("id", "int"), column("uid", "int", extra="STORED GENERATED")),
            schema("shop", "accounts", column("uid", "bigint"), column("email", "varchar(80)", charset="utf8mb4",
                   collation="utf8mb4_general_ci"), column("tenant", "int"), column("nick", "varchar(20)",
                   charset="latin1", collation="latin1_swedish_ci"), column("token", "varbinary(16)"),
                   column("age", "int"), unique=(("uid",), ("email",), ("tenant", "nick"), ("token",)),
                   primary=("uid",)),
            schema("shop", "countries", column("id", "int"), column("name", "varchar(20)")),
            schema("shop", "rates", column("id", "int", extra=COUNTING), column("rate", "decimal(10,2)"),
                   column("at", "timestamp", default="current_timestamp()")),
            schema("shop", "tokens", column("id", "int"), column("token", "binary(16)", default="(uuid())")),
            schema("shop", "settings", column("name", "varchar(20)"), column("value", "int")),
            schema("shop", "jobs", column("id", "int"), column("what", "varchar(20)")),
            schema("blog", "posts", column("author", "varchar(20)", collation=BIN), column("title", "varchar(80)"),
                   unique=(("author",),)),
            schema("blog", "comments", column("author", "char(20)", collation=BIN), column("post", "int")),
            schema("blog", "tags", column("tag", "varchar(20)")),
            schema("files", "blobs", column("digest", "binary(4)"), column("size", "int")),
            schema("files", "names", column("digest", "varbinary(8)"), column("name", "varchar(20)")),
            schema("lone", "things", column("id", "int", extra=COUNTING), column("what", "varchar(20)")),
        ]
    )
)  # fmt: skip


def context(schema: str | None = "shop", modes: str = "", mariadb: bool = False) -> PlanContext:
    return PlanContext(SNAPSHOT, CATALOG, schema, SqlModes.parse(modes), mariadb)
