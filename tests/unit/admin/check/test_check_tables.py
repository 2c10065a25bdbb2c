"""Rules about tables and their keys."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardproxy.admin.check.data import content_sql, stray_sql
from shardproxy.admin.check.facts import Index, ServerFacts, TableFacts
from shardproxy.admin.check.findings import Finding, Severity
from shardproxy.admin.check.keys import key_findings, sharded_table
from shardproxy.admin.check.tables import differences, table_findings
from shardproxy.config import parse
from shardproxy.topology.build import build_snapshot
from shardproxy.topology.keys import KeyType
from shardproxy.topology.maps import BucketMap
from shardproxy.topology.model import Table, TableKind
from shardproxy.topology.moves import LoneTable, Move, Phase, Stream
from shardproxy.topology.moving import MovingKeys
from shardproxy.topology.schema import Column
from tests.unit.admin.check.check_facts import NAME, PRIMARY, UID, config_data, healthy, snapshot, table, with_tables

E, W = Severity.ERROR, Severity.WARNING


def found(facts: dict[str, ServerFacts]) -> list[Finding]:
    values = list(facts.values())
    return [*table_findings(snapshot(), values), *key_findings(snapshot(), values)]


def test_healthy_tables_have_no_findings() -> None:
    assert found(healthy()) == []


def test_a_missing_database_is_told_once_and_hides_its_tables() -> None:
    facts = healthy()
    facts["b/primary"] = replace(facts["b/primary"], databases={}, tables={})
    [finding] = found(facts)
    assert (finding.severity, finding.where) == (E, "b/primary")
    assert "the database main does not exist" in finding.what


@pytest.mark.parametrize(
    ("server", "name", "what"),
    [
        ("b/primary", "users", "it does not exist on b"),
        ("b/primary", "countries", "it does not exist on b"),
        ("a/primary", "settings", "it does not exist on a"),
    ],
)
def test_a_missing_table_is_an_error(server: str, name: str, what: str) -> None:
    facts = healthy()
    facts[server] = with_tables(facts[server], {name: None})
    [finding] = found(facts)
    assert (finding.severity, finding.where, finding.what) == (E, f"main.{name}", what)


@pytest.mark.parametrize(("name", "warned"), [("settings", 0), ("users", 1)])
def test_what_a_move_has_brought_is_no_finding(name: str, warned: int) -> None:
    coming = MovingKeys(KeyType.INT, intervals=[(100, 200)])
    move = Move(1, Phase.COPYING, 0, (Stream(0, 1, coming),), LoneTable(name, 0))
    keyspace = replace(snapshot().keyspaces["main"], move=move)
    facts = healthy()
    facts["b/primary"] = with_tables(facts["b/primary"], {"settings": table("settings")})
    moving = replace(snapshot(), keyspaces={"main": keyspace})
    assert len(list(table_findings(moving, list(facts.values())))) == warned
    assert "BETWEEN" not in stray_sql(keyspace, "users", "uid", 1), "the move is of one table, which shard a has"
    whole = replace(keyspace, move=replace(move, table=None))
    assert stray_sql(whole, "users", "uid", 1).endswith("OR (`uid` BETWEEN 100 AND 199))")
    assert "BETWEEN" not in stray_sql(whole, "users", "uid", 0)
    whole = replace(keyspace, move=replace(move, table=None, phase=Phase.OPEN))
    assert stray_sql(whole, "users", "uid", 0).endswith("OR (`uid` BETWEEN 100 AND 199))")


def test_a_single_table_on_another_shard_is_a_warning() -> None:
    facts = healthy()
    facts["b/primary"] = with_tables(facts["b/primary"], {"settings": table("settings")})
    [finding] = found(facts)
    assert (finding.severity, finding.where) == (W, "main.settings")
    assert "single on a but exists on b too" in finding.what


def test_unlisted_tables_are_one_warning() -> None:
    facts = healthy()
    facts["a/primary"] = with_tables(facts["a/primary"], {f"t{i:02}": table(f"t{i:02}") for i in range(12)})
    [finding] = found(facts)
    assert finding.severity is W
    assert finding.what.endswith("t00, t01, t02, t03, t04, t05, t06, t07, t08, t09 and 2 more")


def test_different_default_collations_of_the_database_are_a_warning() -> None:
    facts = healthy()
    facts["b/primary"] = replace(facts["b/primary"], databases={"main": "latin1_bin"})
    [finding] = found(facts)
    assert (finding.severity, finding.where) == (W, "main")


BASE = table("users", (UID, NAME), (PRIMARY, Index("n", False, "BTREE", ("name(10)",), ("name",))))


@pytest.mark.parametrize(
    ("other", "phrase"),
    [
        (table("users", (UID,), BASE.indexes), "columns differ: name against none"),
        (table("users", (NAME, UID), BASE.indexes), "the order of columns differs: uid, name against name, uid"),
        (
            table("users", (UID, replace(NAME, collation="utf8mb4_general_ci")), BASE.indexes),
            "column name differs: varchar(40) utf8mb4_bin NULL against varchar(40) utf8mb4_general_ci NULL",
        ),
        (
            table("users", (replace(UID, nullable=True), NAME), BASE.indexes),
            "column uid differs: bigint unsigned NOT NULL against bigint unsigned NULL",
        ),
        (
            table("users", (replace(UID, default="0"), NAME), BASE.indexes),
            "column uid differs: bigint unsigned NOT NULL against bigint unsigned NOT NULL DEFAULT 0",
        ),
        (table("users", (UID, NAME), (PRIMARY,)), "index n differs: BTREE (name(10)) against none"),
        (
            table("users", (UID, NAME), (PRIMARY, Index("n", True, "BTREE", ("name",), ("name",)))),
            "index n differs: BTREE (name(10)) against UNIQUE BTREE (name)",
        ),
        (replace(BASE, engine="MyISAM"), "engine differs: InnoDB against MyISAM"),
        (replace(BASE, collation="latin1_bin"), "collation differs: utf8mb4_bin against latin1_bin"),
        (replace(BASE, foreign_keys=("f (a) → t (b)",)), "foreign keys differ: none against f (a) → t (b)"),
        (replace(BASE, triggers=("t BEFORE INSERT: x",)), "triggers differ: none against t BEFORE INSERT: x"),
        (
            replace(BASE, expressions={"name": "upper(x)"}),
            "column name differs: varchar(40) utf8mb4_bin NULL against varchar(40) utf8mb4_bin NULL (upper(x))",
        ),
        (replace(BASE, schema=replace(BASE.schema, is_view=True)), "one is a table, the other a view"),
    ],
)
def test_each_difference_of_two_definitions_is_told(other: TableFacts, phrase: str) -> None:
    assert differences(BASE, other) == [phrase]


def test_equal_definitions_have_no_difference_whatever_the_display_width() -> None:
    wide, narrow = (
        table("users", (replace(UID, column_type=t), NAME)) for t in ("bigint(20) unsigned", "bigint unsigned")
    )
    assert differences(wide, narrow) == []
    assert differences(BASE, BASE) == []


def test_a_difference_names_table_and_shards() -> None:
    facts = healthy()
    facts["b/primary"] = with_tables(facts["b/primary"], {"users": table("users", (UID,))})
    [finding] = found(facts)
    assert (finding.severity, finding.where) == (E, "main.users")
    assert finding.what == "columns differ: name against none (a, b)"


def test_engines_foreign_keys_and_triggers_are_warnings() -> None:
    facts = healthy()
    odd = replace(table("users"), engine="MyISAM", foreign_keys=("f (a) → t (b)",), triggers=("t BEFORE INSERT: x",))
    for name in ("a/primary", "b/primary"):
        facts[name] = with_tables(facts[name], {"users": odd})
    findings = found(facts)
    assert [(f.severity, f.where) for f in findings] == [(W, "main.users")] * 3
    assert [f.what.split(":")[0].split(" is ")[0] for f in findings] == [
        "its engine",
        "foreign key f (a) → t (b)",
        "trigger t BEFORE INSERT runs on each shard and sees only the rows of that shard",
    ]


USERS = Table("users", TableKind.SHARDED, key="uid")


def of_key(column: Column, key_type: KeyType = KeyType.INT) -> list[Finding]:
    index = Index("PRIMARY", True, "BTREE", ("uid",), ("uid",))
    return list(sharded_table("main.users", USERS, key_type, table("users", (column, NAME), (index,))))


def column(data_type: str, column_type: str = "", charset: str | None = None, collation: str | None = None) -> Column:
    return Column("uid", data_type, column_type or data_type, False, charset=charset, collation=collation)


@pytest.mark.parametrize(
    ("key_type", "good"),
    [
        *((KeyType.INT, column(t)) for t in ("tinyint", "smallint", "mediumint", "int", "bigint")),
        (KeyType.INT, column("bigint", "bigint(20) unsigned")),
        (KeyType.TEXT, column("varchar", "varchar(9)", "utf8mb4", "utf8mb4_bin")),
        (KeyType.TEXT, column("varchar", "varchar(9)", "utf8mb4", "utf8mb4_0900_bin")),
        (KeyType.TEXT, column("char", "char(9)", "ascii", "ascii_bin")),
        (KeyType.TEXT, column("text", "text", "utf8mb3", "utf8mb3_bin")),
        (KeyType.BINARY, column("varbinary", "varbinary(16)")),
        (KeyType.BINARY, column("blob")),
    ],
)
def test_types_that_can_be_keys(key_type: KeyType, good: Column) -> None:
    assert of_key(good, key_type) == []


@pytest.mark.parametrize(
    ("key_type", "bad", "what"),
    [
        (KeyType.INT, column("varchar", "varchar(9)", "utf8mb4", "utf8mb4_bin"), 'has key_type = "int"'),
        *(
            (KeyType.INT, column(t), 'has key_type = "int"')
            for t in ("decimal", "double", "float", "bit", "year", "date")
        ),
        (KeyType.INT, column("int", "int(10) unsigned zerofill"), "ZEROFILL changes the text"),
        (KeyType.TEXT, column("int"), 'has key_type = "text"'),
        (KeyType.TEXT, column("varbinary"), 'has key_type = "text"'),
        (KeyType.TEXT, column("enum", "enum('a')", "utf8mb4", "utf8mb4_bin"), 'has key_type = "text"'),
        (KeyType.TEXT, column("varchar", "varchar(9)", "utf8mb4", "utf8mb4_general_ci"), "calls equal"),
        (KeyType.TEXT, column("varchar", "varchar(9)", "latin1", "latin1_bin"), "calls equal"),
        (KeyType.TEXT, column("varchar", "varchar(9)", "utf16", "utf16_bin"), "calls equal"),
        (KeyType.BINARY, column("varchar", "varchar(9)", "ascii", "ascii_bin"), 'has key_type = "binary"'),
    ],
)
def test_types_that_cannot_be_keys(key_type: KeyType, bad: Column, what: str) -> None:
    [finding] = of_key(bad, key_type)
    assert finding.severity is E
    assert what in finding.what


def test_a_fixed_binary_key_is_a_warning_about_padding() -> None:
    [finding] = of_key(column("binary", "binary(16)"), KeyType.BINARY)
    assert finding.severity is W
    assert "pads shorter values with NUL" in finding.what
    assert "all 16 bytes" in finding.fix


def test_a_missing_key_column_is_an_error_that_names_the_others() -> None:
    [finding] = sharded_table("main.users", Table("users", TableKind.SHARDED, key="id"), KeyType.INT, BASE)
    assert (finding.severity, finding.what) == (E, "it has no column id (its columns: uid, name)")


def test_key_columns_match_whatever_their_case() -> None:
    assert (
        list(sharded_table("main.users", Table("users", TableKind.SHARDED, key="UID"), KeyType.INT, table("users")))
        == []
    )


def test_habits_of_key_columns() -> None:
    nullable = replace(UID, nullable=True)
    generated = replace(UID, extra="STORED GENERATED")
    counting = Column("id", "int", "int", False, extra="auto_increment")
    cases: list[tuple[TableFacts, Severity, str]] = [
        (table("users", (nullable, NAME)), W, "may be NULL"),
        (table("users", (generated, NAME)), E, "is generated"),
        (table("users", (UID, counting)), W, "column id is AUTO_INCREMENT"),
        (table("users", (UID, NAME), ()), W, "no index begins with the key column uid"),
        (
            table("users", (UID, NAME), (PRIMARY, Index("n", True, "BTREE", ("name",), ("name",)))),
            W,
            "unique index n (name) lacks the key column uid",
        ),
        (
            table("users", (UID, NAME), (PRIMARY, Index("x", True, "BTREE", ("(lower(name))",), (None,)))),
            W,
            "unique index x ((lower(name))) lacks the key column uid",
        ),
        (
            table("users", (UID, NAME), (Index("n", False, "BTREE", ("name", "uid"), ("name", "uid")),)),
            W,
            "no index begins with the key column uid",
        ),
    ]
    for facts, severity, what in cases:
        [finding] = sharded_table("main.users", USERS, KeyType.INT, facts)
        assert finding.severity is severity
        assert what in finding.what


def test_a_composite_unique_key_with_the_shard_key_is_fine() -> None:
    both = Index("n", True, "BTREE", ("name", "uid"), ("name", "uid"))
    assert list(sharded_table("main.users", USERS, KeyType.INT, table("users", (UID, NAME), (PRIMARY, both)))) == []


def test_the_statements_that_read_rows_quote_names_and_follow_the_map() -> None:
    odd = table("o`dd", (replace(UID, name="u`id"),))
    assert "FROM `main`.`o``dd`" in content_sql(odd)
    assert "ISNULL(`u``id`)" in content_sql(odd)
    ranges = [
        {"from": "min", "to": 5, "shard": "a"},
        {"from": 5, "to": 9, "shard": "b"},
        {"from": 9, "to": "max", "shard": "a"},
    ]
    data = config_data(map="range", ranges=ranges)
    del data["keyspaces"]["main"]["ring"]
    keyspace = build_snapshot(parse(data)).keyspaces["main"]
    assert stray_sql(keyspace, "users", "uid", 0) == (
        "SELECT COUNT(*) AS n FROM `main`.`users` WHERE `uid` IS NULL OR NOT ((`uid` < 5) OR (`uid` >= 9))"
    )
    hashed = snapshot().keyspaces["main"]
    sql = stray_sql(hashed, "users", "uid", 1)
    assert "CRC32(CRC32(`uid`)) % 4096 IN (" in sql
    assert isinstance(hashed.map, BucketMap)
    assert sql.count(",") == hashed.map.buckets.count(1) - 1
