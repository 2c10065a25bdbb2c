"""Rows on two shards and all of them on one lone server, for answers that are merged."""

from __future__ import annotations

import random

from shardproxy.local import LocalCluster, LocalServer
from shardproxy.protocol.mysql.columns import ColumnDefinition
from tests.proxy import start_proxy
from tests.wire import RawClient, Result

KEYSPACES = """
[keyspaces.merging]
key_type = "int"
map = "range"
[[keyspaces.merging.ranges]]
from = "min"
to = 500
shard = "shard1"
[[keyspaces.merging.ranges]]
from = 500
to = "max"
shard = "shard2"
[keyspaces.merging.tables]
things = { key = "id" }
entries = { key = "id" }
void = { key = "id" }
"""
NO_PAD = {"mariadb": "utf8mb4_unicode_nopad_ci", "mysql": "utf8mb4_0900_ai_ci"}
COLUMNS = """
id BIGINT NOT NULL PRIMARY KEY, i8 TINYINT, u8 TINYINT UNSIGNED, i32 INT, u64 BIGINT UNSIGNED, z INT(6) ZEROFILL,
f FLOAT, d DOUBLE, n DECIMAL(20,6), n9 DECIMAL(14,5), b BIT(12), g VARCHAR(40) COLLATE utf8mb4_general_ci,
un VARCHAR(40) COLLATE utf8mb4_unicode_ci, np VARCHAR(40) COLLATE {no_pad}, bi VARCHAR(40) COLLATE utf8mb4_bin,
la VARCHAR(40) CHARACTER SET latin1, c CHAR(7), tx TEXT, bin BINARY(6), vb VARBINARY(9), e ENUM('zz','one','aa'),
s SET('c','a','b'), j JSON, da DATE, ti TIME(3), dt DATETIME(6), ts TIMESTAMP(3) NULL, y YEAR, few INT
"""
TEXTS = [
    "a", "A", "a ", "ä", "b", "B", "", " ", "a\t", "a\tb", "ab", "Zoë", "zoe", "ß", "ss", "é", "a" * 30, "a" * 30 + "b",
    "a" * 24, "a" * 24 + "\tx", "a" * 23 + " x", "日本", "\U0001f600", "x\x00y", "0", "10", "9", "-1",
]  # fmt: skip


def quoted(text: str) -> str:
    return "_utf8mb4 0x" + text.encode().hex() if text else "''"


def _row(dice: random.Random, ident: int) -> str:
    def number(low: int, high: int) -> str:
        return str(dice.choice((low, high, 0, 1, dice.randint(low, high))))

    def latin(text: str) -> str:
        return quoted(text if text.encode("latin1", "ignore").decode("latin1") == text else "l")

    def text() -> str:
        return dice.choice(TEXTS)

    values = [
        number(-128, 127), number(0, 255), number(-(2**31), 2**31 - 1), number(0, 2**64 - 1), number(0, 999999),
        repr(dice.choice((0.0, -1.5, 3.1415926, 1e30, -2.5e-20, dice.uniform(-9, 9)))),
        repr(dice.choice((0.0, -0.0, -1.5, 1e300, 5e-320, dice.uniform(-9, 9), dice.uniform(-1e9, 1e9)))),
        dice.choice(("0", "-0.000001", "0.5", "99999999999999.999999", "-99999999999999.999999",
                     f"{dice.randint(-99, 99)}.25")),
        dice.choice(("0", "0.00001", "-0.00001", "3.33333", f"{dice.randint(-9999, 9999)}.12345")),
        f"b'{dice.randint(0, 4095):b}'", quoted(text()), quoted(text()), quoted(text()), quoted(text()),
        latin(text()),
        quoted(text()[:7]), quoted(text()), quoted(text()[:1]), quoted(text()[:2]),
        dice.choice(("'zz'", "'one'", "'aa'")), dice.choice(("''", "'c'", "'a,b'", "'c,b'", "'c,a,b'")),
        dice.choice(("'1'", "'[2]'", "'{}'")),
        dice.choice(("'2024-02-29'", "'1000-01-01'", "'9999-12-31'", "'2020-05-05'")),
        dice.choice(("'-838:59:58.999'", "'-00:00:00.001'", "'00:00:00'",
                     "'99:00:01'", "'838:00:00.5'", "'-12:00:00'")),
        dice.choice(("'2024-01-01 00:00:00.000001'", "'1999-12-31 23:59:59'", "'2024-01-01'")),
        dice.choice(("'2024-01-01 00:00:00.001'", "'2010-10-31 02:30:00'", "'2010-10-31 03:30:00'")),
        dice.choice(("1901", "2155", "0")), str(dice.randint(0, 5)),
    ]  # fmt: skip
    return f"({ident}, {', '.join('NULL' if dice.random() < 0.12 else value for value in values)})"


class Both:
    """The proxy and the lone server, each with the same rows."""

    def __init__(self, cluster: LocalCluster, oracle: LocalServer) -> None:
        self.flavor = cluster.flavor
        self.servers = [cluster.shards[0].primary, cluster.shards[1].primary, oracle]
        dice = random.Random(5)
        things = [(i, _row(dice, i)) for i in (*range(150), *range(500, 650))]
        entries = [
            (i % 7 * 101, f"({i}, {i % 7 * 101}, {dice.randint(0, 9)}, {dice.randint(-50, 50)})") for i in range(200)
        ]
        for number, server in enumerate(self.servers):
            server.rows("DROP DATABASE IF EXISTS merging")
            server.rows("CREATE DATABASE merging CHARACTER SET utf8mb4")
            columns = COLUMNS.replace("{no_pad}", NO_PAD[self.flavor])
            server.rows(f"CREATE TABLE merging.things ({columns})")
            server.rows(f"CREATE TABLE merging.void ({columns})")
            server.rows(
                "CREATE TABLE merging.entries (line INT NOT NULL, id BIGINT NOT NULL, kind INT, amount INT, KEY (id))"
            )
            for table, rows in (("things", things), ("entries", entries)):
                mine = [row for key, row in rows if number == 2 or (key >= 500) == (number == 1)]
                server.rows(f"INSERT INTO merging.{table} VALUES {', '.join(mine)}")
        cluster.wait_replicated()
        self.proxy = start_proxy(
            cluster,
            "merging",
            users={"app": {"password": "app", "reads": "primary"}},
            keyspaces=KEYSPACES,
            proxy={"workers": 1},
        )
        self.oracle = oracle

    def client(self, deprecate_eof: bool = True) -> RawClient:
        return RawClient(self.proxy.port, database="merging", deprecate_eof=deprecate_eof)

    def lone(self, deprecate_eof: bool = True) -> RawClient:
        server = self.oracle
        return RawClient(
            server.port, server.admin_user, server.admin_password, "merging", deprecate_eof=deprecate_eof
        )  # fmt: skip

    def close(self) -> None:
        self.proxy.process.stop()
        for server in self.servers:
            if server.running:
                server.rows("DROP DATABASE merging")


def shape(column: ColumnDefinition) -> tuple[object, ...]:
    # Of texts, decimals say whether the optimizer took a temporary table, as GROUP_FLAG does.
    return (
        column.name,
        column.type,
        column.charset,
        column.length,
        0 if column.type in (252, 253, 254) else column.decimals,
        column.flags & 0x1FE1,
        column.org_table,
    )


def answers(client: RawClient, sql: str, binary: bool, parameters: tuple[int, ...] = ()) -> Result:
    if not binary:
        return client.query(sql)
    prepared = client.prepare(sql)
    return client.execute(prepared, [(8, False, value) for value in parameters])


def same(both: Both, sql: str, ordered: bool = True) -> None:
    for binary in (False, True):
        for eof in (True, False):
            with both.client(eof) as client, both.lone(eof) as lone:
                ours, theirs = answers(client, sql, binary), answers(lone, sql, binary)
            assert [shape(c) for c in ours.columns] == [shape(c) for c in theirs.columns], sql
            if ordered:
                assert ours.rows == theirs.rows, sql
            else:
                assert sorted(ours.rows, key=repr) == sorted(theirs.rows, key=repr), sql
