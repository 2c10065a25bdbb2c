"""Merged answers of two shards beside one lone server that holds all rows: values, order, column definitions."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import pytest

from shardproxy.local import LocalCluster, LocalServer
from shardproxy.protocol.mysql.columns import ColumnDefinition
from tests.proxy import ProxyUnderTest, start_proxy
from tests.wire import RawClient, Refused, Result

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


def _quoted(text: str) -> str:
    return "_utf8mb4 0x" + text.encode().hex() if text else "''"


def _row(dice: random.Random, ident: int) -> str:
    def number(low: int, high: int) -> str:
        return str(dice.choice((low, high, 0, 1, dice.randint(low, high))))

    def latin(text: str) -> str:
        return _quoted(text if text.encode("latin1", "ignore").decode("latin1") == text else "l")

    def text() -> str:
        return dice.choice(TEXTS)

    values = [
        number(-128, 127), number(0, 255), number(-(2**31), 2**31 - 1), number(0, 2**64 - 1), number(0, 999999),
        repr(dice.choice((0.0, -1.5, 3.1415926, 1e30, -2.5e-20, dice.uniform(-9, 9)))),
        repr(dice.choice((0.0, -0.0, -1.5, 1e300, 5e-320, dice.uniform(-9, 9), dice.uniform(-1e9, 1e9)))),
        dice.choice(("0", "-0.000001", "0.5", "99999999999999.999999", "-99999999999999.999999",
                     f"{dice.randint(-99, 99)}.25")),
        dice.choice(("0", "0.00001", "-0.00001", "3.33333", f"{dice.randint(-9999, 9999)}.12345")),
        f"b'{dice.randint(0, 4095):b}'", _quoted(text()), _quoted(text()), _quoted(text()), _quoted(text()),
        latin(text()),
        _quoted(text()[:7]), _quoted(text()), _quoted(text()[:1]), _quoted(text()[:2]),
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


@pytest.fixture(scope="module")
def both(cluster: LocalCluster, oracle: LocalServer) -> Iterator[Both]:
    made = Both(cluster, oracle)
    yield made
    made.close()


def _shape(column: ColumnDefinition) -> tuple[object, ...]:
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


def _answers(client: RawClient, sql: str, binary: bool, parameters: tuple[int, ...] = ()) -> Result:
    if not binary:
        return client.query(sql)
    prepared = client.prepare(sql)
    return client.execute(prepared, [(8, False, value) for value in parameters])


def _same(both: Both, sql: str, ordered: bool = True) -> None:
    for binary in (False, True):
        for eof in (True, False):
            with both.client(eof) as client, both.lone(eof) as lone:
                ours, theirs = _answers(client, sql, binary), _answers(lone, sql, binary)
            assert [_shape(c) for c in ours.columns] == [_shape(c) for c in theirs.columns], sql
            if ordered:
                assert ours.rows == theirs.rows, sql
            else:
                assert sorted(ours.rows, key=repr) == sorted(theirs.rows, key=repr), sql


SORTED_BY = [
    "i8", "u8", "i32", "u64", "z", "f", "d", "n", "n9", "b", "g", "un", "np", "bi", "la", "c", "tx", "bin", "vb", "e",
    "s", "da", "ti", "dt", "ts", "y",
]  # fmt: skip


@pytest.mark.parametrize("direction", ["", " DESC"])
def test_order_by_each_type(both: Both, direction: str) -> None:
    for column in SORTED_BY:
        _same(both, f"SELECT id, {column} FROM things ORDER BY {column}{direction}, id")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM things ORDER BY few, g DESC, id LIMIT 20",
        "SELECT id FROM things ORDER BY few DESC, un, d DESC, id LIMIT 7, 40",
        "SELECT id, UPPER(g)  AS  up, i8 + i32 FROM things ORDER BY up, 3 DESC, id",
        "SELECT id, CONCAT(un, 'x') FROM things ORDER BY CONCAT(un, 'x'), id",
        "SELECT id, CONCAT(np, '') FROM things ORDER BY CONCAT(np, ''), id DESC",
        "SELECT id FROM things ORDER BY n * 2 - 1, i8 IS NULL, id",
        "SELECT id FROM things ORDER BY d / 3, id",
        "SELECT id FROM things ORDER BY IFNULL(da, dt), id",
        "SELECT id FROM things ORDER BY COALESCE(vb, bin), id",
        "SELECT id, la FROM things ORDER BY la COLLATE latin1_german1_ci, id",
        "SELECT t.*, l.amount FROM things t JOIN entries l ON t.id = l.id ORDER BY l.amount, l.line",
        "SELECT l.amount, t.g FROM entries l LEFT JOIN things t ON t.id = l.id WHERE l.kind > 2 ORDER BY t.g, l.line",
        "SELECT g AS id, id AS g FROM things ORDER BY g",
        "SELECT id FROM things ORDER BY id LIMIT 0",
        "SELECT id FROM things ORDER BY id LIMIT 3 OFFSET 1000",
        "SELECT id FROM things ORDER BY id DESC LIMIT 18446744073709551615 OFFSET 290",
        "SELECT * FROM void ORDER BY g, CONCAT(g, un)",
        "SELECT a.id, b.line FROM things a, entries b WHERE a.id = b.id ORDER BY b.line",
        "SELECT *, few + 1 FROM things ORDER BY few + 1, id LIMIT 30",
        "SELECT id, COUNT(*), AVG(amount) FROM entries GROUP BY id HAVING COUNT(*) > 3 ORDER BY SUM(amount) DESC, id",
        "SELECT id, GROUP_CONCAT(amount ORDER BY line) FROM entries GROUP BY id ORDER BY COUNT(DISTINCT kind), id",
        "SELECT DISTINCT few FROM things ORDER BY few DESC",
        "SELECT DISTINCT few, e FROM things ORDER BY e, few DESC LIMIT 2, 9",
        "SELECT DISTINCT kind FROM entries ORDER BY kind",
    ],
)
def test_ordered_answers_are_those_of_one_server(both: Both, sql: str) -> None:
    _same(both, sql)


@pytest.mark.parametrize(
    "sql",
    ["SELECT DISTINCT few, i8 FROM things", "SELECT DISTINCT n, da FROM things", "SELECT DISTINCT id, few FROM things"],
)
def test_distinct_rows(both: Both, sql: str) -> None:
    _same(both, sql, ordered=False)


@pytest.mark.parametrize("column", ["g", "un", "np", "bi", "la", "c"])
def test_distinct_texts_are_as_many_as_on_one_server(both: Both, column: str) -> None:
    """Which of several equal ones is shown, one server does not say either."""
    with both.client() as client, both.lone() as lone:
        sql = f"SELECT DISTINCT {column} FROM things ORDER BY {column}"
        ours, theirs = client.rows(sql), lone.rows(sql)
        assert len(ours) == len(theirs)
        for [mine], [other] in zip(ours, theirs, strict=True):
            if mine is None or other is None:
                assert mine == other
                continue
            assert isinstance(mine, bytes)
            assert isinstance(other, bytes)
            both_there = " AND ".join(f"{column} = {_quoted(text.decode())}" for text in (mine, other))
            [[count]] = lone.rows(f"SELECT COUNT(*) FROM things WHERE {both_there}")
            assert count != b"0", (mine, other)


def test_limit_without_order_gives_that_many_rows(both: Both) -> None:
    with both.client() as client:
        rows = client.rows("SELECT id, g FROM things LIMIT 170")
        assert len(rows) == 170 and len({row[0] for row in rows}) == 170
        assert len(client.rows("SELECT id FROM things LIMIT 290, 100")) == 10


def test_prepared_limits_and_values(both: Both) -> None:
    with both.client() as client, both.lone() as lone:
        sql = "SELECT id, few + ? FROM things WHERE few > ? ORDER BY few + ?, id LIMIT ? OFFSET ?"
        for parameters in ((1, 2, 1, 10, 3), (5, 0, -1, 100, 0)):
            assert _answers(client, sql, True, parameters).rows == _answers(lone, sql, True, parameters).rows


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id FROM things ORDER BY nowhere",
        "SELECT nowhere FROM things ORDER BY id",
        "SELECT id FROM things ORDER BY 9",
        "SELECT DISTINCT few FROM things ORDER BY nowhere(few)",
        "SELECT t.id, l.id FROM things t JOIN entries l ON t.id = l.id ORDER BY UPPER(id)",
        "SELECT g FROM entries GROUP BY id, kind ORDER BY amount",
        "SELECT id FROM things ORDER BY id LIMIT 18446744073709551616 OFFSET 2",
        "SELECT id FROM things ORDER BY id LIMIT '2000' OFFSET 2",
    ],
)
def test_errors_are_those_of_the_clients_own_text(both: Both, sql: str) -> None:
    with both.client() as client, both.lone() as lone:
        with pytest.raises(Refused) as theirs:
            lone.query(sql)
        with pytest.raises(Refused) as ours:
            client.query(sql)
        assert ours.value.code in (theirs.value.code, 9100, 9101), (ours.value, theirs.value)
        assert "shp_" not in str(ours.value)
        assert client.rows("SELECT 1") == [[b"1"]]


AGGREGATED = [
    "SELECT COUNT(*) FROM things",
    "SELECT COUNT(*), COUNT(i8), SUM(i8), SUM(u64), SUM(n), AVG(i8), AVG(n), AVG(n9), AVG(i32) FROM things",
    "SELECT COUNT(i8), SUM(i8), AVG(n), MIN(g), MAX(da), BIT_AND(i8), BIT_OR(u8), BIT_XOR(i32) FROM void",
    "SELECT SUM(i8), MIN(i8), MAX(np) FROM things WHERE id = 3 OR id = 99999",
    "SELECT BIT_AND(u8), BIT_OR(i8), BIT_XOR(i32), BIT_AND(u64) FROM things WHERE i8 > 1",
    "SELECT few, AVG(n), AVG(n9), AVG(u64), AVG(few), AVG(n * n9), SUM(n * 2) FROM things GROUP BY few",
    "SELECT few AS k, COUNT(*) FROM things GROUP BY few ORDER BY few DESC LIMIT 3",
    "SELECT few AS k, COUNT(*) FROM things GROUP BY k ORDER BY k DESC LIMIT 1, 2",
    "SELECT e, few, COUNT(*) FROM things GROUP BY few, e ORDER BY e, few DESC",
    "SELECT few, COUNT(*) AS c FROM things GROUP BY few ORDER BY c DESC, few",
    "SELECT few, COUNT(*) FROM things GROUP BY few ORDER BY AVG(n), few",
    "SELECT few FROM things GROUP BY few ORDER BY MAX(np) DESC, few LIMIT 2 OFFSET 1",
    "SELECT COUNT(*), few FROM things GROUP BY 2 ORDER BY few",
    "SELECT YEAR(da) AS y4, COUNT(*), MIN(dt) FROM things GROUP BY YEAR(da) ORDER BY y4",
    "SELECT UPPER(bi) AS b2, COUNT(*) FROM things GROUP BY UPPER(bi) ORDER BY b2",
    "SELECT da, ti, COUNT(*) FROM things GROUP BY da, ti ORDER BY COUNT(*), da, ti",
    "SELECT l.kind, SUM(t.n), COUNT(*) FROM things t JOIN entries l ON t.id = l.id GROUP BY l.kind ORDER BY l.kind",
    "SELECT kind, AVG(amount)  AS  a FROM entries GROUP BY kind ORDER BY a, kind",
    "SELECT 'x', 5, COUNT(*) FROM entries",
    "SELECT few, e, COUNT(*) FROM things GROUP BY 1, 2 ORDER BY 3 DESC, 2, 1 LIMIT 7",
    "SELECT few + 1, SUM(n) FROM things GROUP BY 1 ORDER BY 2",
    "SELECT np, UPPER(bi), MAX(i8), COUNT(*) FROM things GROUP BY np, UPPER(bi) ORDER BY 3, 4 DESC, UPPER(bi), np",
    "SELECT id, UPPER(bi) FROM things GROUP BY id, UPPER(bi) ORDER BY UPPER(bi), id LIMIT 20",
    "SELECT few % 2, SUM(i8) FROM things GROUP BY few % 2 ORDER BY few % 2",
    *(f"SELECT few, MIN({c}), MAX({c}) FROM things GROUP BY few ORDER BY few" for c in (
        "i8", "u64", "f", "d", "n", "b", "bi", "bin", "vb", "e", "s", "da", "ti", "dt", "ts", "y", "z")),
    *(f"SELECT {c}, COUNT(*) FROM things GROUP BY {c} ORDER BY {c}" for c in (
        "i8", "u64", "z", "d", "n", "b", "bi", "bin", "vb", "e", "s", "da", "ti", "dt", "ts", "y")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("SELECT few, id FROM things WHERE id < 520 GROUP BY 1, 2 ORDER BY 1, 2", ()),
        ("SELECT few, COUNT(*) FROM things GROUP BY 1", ()),
        ("SELECT few, COUNT(*) FROM things GROUP BY '1'", ()),
        ("SELECT few, COUNT(*) FROM things GROUP BY ?", (1,)),
        ("SELECT MAX(few), COUNT(*) FROM things GROUP BY '2'", ()),
    ],
)
def test_only_plain_numbers_are_positions(both: Both, sql: str, parameters: tuple[int, ...]) -> None:
    with both.client() as client, both.lone() as lone:
        for connection in (client, lone):
            connection.query("SET sql_mode = ''")
        first, other = (_answers(c, sql, bool(parameters), parameters) for c in (client, lone))
        assert sorted(row[-1] or b"" for row in first.rows) == sorted(row[-1] or b"" for row in other.rows)


def test_an_error_behind_a_shards_first_rows_ends_the_answer(both: Both) -> None:
    with both.lone() as lone, both.client() as client:
        for sql in (
            "SELECT id, EXP(id * 10) FROM things ORDER BY id",
            "SELECT DISTINCT id, EXP(id * 10) FROM things ORDER BY id",
            "SELECT few, COUNT(*), MAX(EXP(id * 10)) FROM things GROUP BY few ORDER BY few",
        ):
            with pytest.raises(Refused) as theirs:
                lone.query(sql)
            with pytest.raises(Refused) as ours:
                client.query(sql)
            assert ours.value.code == theirs.value.code == 1690


@pytest.mark.parametrize("sql", AGGREGATED)
def test_groups_are_those_of_one_server(both: Both, sql: str) -> None:
    _same(both, sql, ordered="ORDER BY" in sql or "GROUP BY" not in sql)


CHOSEN = [
    "SELECT COUNT(DISTINCT few) FROM things",
    "SELECT COUNT(DISTINCT few), SUM(DISTINCT few), AVG(DISTINCT few), COUNT(*), SUM(n), AVG(n9) FROM things",
    "SELECT COUNT(DISTINCT few, e), MIN(dt), MAX(np) FROM things",
    "SELECT COUNT(DISTINCT i8), SUM(DISTINCT i8), AVG(DISTINCT i8), MAX(g), BIT_AND(u8), BIT_OR(u8) FROM void",
    "SELECT COUNT(DISTINCT i8) AS c, SUM(few) FROM void HAVING c = 0 AND SUM(few) IS NULL",
    "SELECT COUNT(DISTINCT i8) AS c FROM void HAVING c > 0",
    "SELECT AVG(DISTINCT n), SUM(DISTINCT n), COUNT(DISTINCT n) FROM things WHERE id > 10",
    "SELECT few, COUNT(DISTINCT e), COUNT(*), MIN(dt), AVG(n) FROM things GROUP BY few ORDER BY few",
    "SELECT few, COUNT(DISTINCT i8) AS c FROM things GROUP BY few ORDER BY c DESC, few LIMIT 3",
    "SELECT e, SUM(DISTINCT n9), AVG(DISTINCT n9), COUNT(DISTINCT n9) FROM things GROUP BY e ORDER BY e DESC LIMIT 1",
    "SELECT few, COUNT(DISTINCT da, ti) FROM things GROUP BY few ORDER BY 2, 1",
    "SELECT few, COUNT(DISTINCT few), SUM(DISTINCT few) FROM things GROUP BY few ORDER BY few",
    "SELECT COUNT(DISTINCT few % 3), SUM(i8) FROM things",
    "SELECT MIN(DISTINCT n), MAX(DISTINCT da), COUNT(*) FROM things",
    *(f"SELECT few, COUNT(DISTINCT {c}) FROM things GROUP BY few ORDER BY few" for c in (
        "i8", "u64", "z", "n", "b", "g", "un", "np", "bi", "la", "c", "bin", "vb", "e", "s", "da", "ti", "dt", "y")),
    *(f"SELECT COUNT(DISTINCT {c}), COUNT({c}) FROM things" for c in (
        "i8", "u64", "n", "d", "ts", "b", "g", "un", "np", "bi", "la", "c", "tx", "bin", "e", "s", "UPPER(g)",
        "CONCAT(un, 'x')", "i8 + n", "da + INTERVAL 1 DAY")),
    "SELECT few, COUNT(*) FROM things GROUP BY few HAVING COUNT(*) > 40 ORDER BY few",
    "SELECT few FROM things GROUP BY few HAVING SUM(n) > 0.5 AND AVG(i8) BETWEEN -100 AND 100 ORDER BY few",
    "SELECT few, AVG(few) FROM things GROUP BY few HAVING NOT (few IN (1, 2) OR few IS NULL) ORDER BY few DESC",
    "SELECT few AS f, COUNT(*) AS c FROM things GROUP BY few HAVING c <> 3 AND (f < 3 OR 4 <= f) ORDER BY c, f LIMIT 2",
    "SELECT kind, AVG(amount) FROM entries GROUP BY kind HAVING AVG(amount) < 1.2345 ORDER BY kind",
    "SELECT kind FROM entries GROUP BY kind HAVING COUNT(DISTINCT amount) >= 15 ORDER BY kind",
    "SELECT kind % 2 AS odd, MAX(amount) FROM entries GROUP BY odd HAVING odd = 1",
    "SELECT few, MIN(i8) FROM things GROUP BY few HAVING MIN(i8) = -128 AND MAX(i8) IS NOT NULL ORDER BY few",
    "SELECT COUNT(*) FROM things HAVING COUNT(*) = 300",
    "SELECT COUNT(*), MIN(few) FROM things HAVING COUNT(*) > 300.0",
    "SELECT 'x' FROM things HAVING SUM(few) > 1",
    "SELECT id, few FROM things HAVING few > 3 ORDER BY id LIMIT 8",
    # these go to scratch tables, some of them by what their columns turn out to be
    "SELECT few FROM things GROUP BY few HAVING SUM(d) > 1e3 ORDER BY few",
    "SELECT few FROM things GROUP BY few HAVING COUNT(*) > '40' ORDER BY few",
    "SELECT few FROM things GROUP BY few HAVING MAX(u64) > 3 ORDER BY few",
    "SELECT few FROM things GROUP BY few HAVING MIN(g) > 3 ORDER BY few",
    "SELECT few FROM things GROUP BY few HAVING MAX(z) > 999 ORDER BY few",
    "SELECT few FROM things GROUP BY few HAVING MAX(y) > 2000 ORDER BY few",
    "SELECT COUNT(DISTINCT few), COUNT(DISTINCT e) FROM things",
    "SELECT SUM(DISTINCT g), COUNT(DISTINCT g) FROM things WHERE g IN ('0', '9', '10')",
    "SELECT 5, COUNT(DISTINCT few) FROM void",
]  # fmt: skip


@pytest.mark.parametrize("sql", CHOSEN)
def test_distinct_values_and_having_are_those_of_one_server(both: Both, sql: str) -> None:
    _same(both, sql, ordered="ORDER BY" in sql or "GROUP BY" not in sql)


@pytest.mark.parametrize("begin", ["", "BEGIN"])
def test_having_compares_with_parameters(both: Both, begin: str) -> None:
    sql = "SELECT few, COUNT(*) FROM things GROUP BY few HAVING COUNT(*) > ? AND few <> -? ORDER BY few"
    with both.client() as client, both.lone() as lone:
        for connection in (client, lone):
            if begin:
                connection.query(begin)
        ours, theirs = client.prepare(sql), lone.prepare(sql)
        for code, values in ((8, (40, 1)), (8, (0, -2)), (5, (39.5, 1.0)), (253, (b"40", b"3")), (8, (41, 0))):
            bound = [(code, False, value) for value in values]
            assert client.execute(ours, bound).rows == lone.execute(theirs, bound).rows, values


ROLLED_UP = [
    "SELECT few, COUNT(*), SUM(i8), AVG(n), MIN(vb), MAX(f), MIN(d), MAX(da), BIT_AND(u8), BIT_OR(u8), BIT_XOR(i32)"
    " FROM things GROUP BY few WITH ROLLUP",
    "SELECT e, few, da, COUNT(*), AVG(i8), MAX(dt) FROM things GROUP BY e, few, da WITH ROLLUP",
    "SELECT few AS k, t.e, AVG(n9), MIN(ti) FROM things t GROUP BY k, t.e WITH ROLLUP LIMIT 3, 11",
    "SELECT COUNT(*), SUM(u64) FROM things GROUP BY few, i8 WITH ROLLUP HAVING COUNT(*) > 2 AND SUM(u64) > 100 LIMIT 9",
    "SELECT SUM(i8) AS s, few FROM things GROUP BY few WITH ROLLUP HAVING s < 0 OR MIN(n) IS NULL",
    "SELECT id, COUNT(*), MAX(c) FROM things GROUP BY id WITH ROLLUP",
    "SELECT line, id, SUM(amount) FROM entries WHERE kind > 2 GROUP BY id, line WITH ROLLUP",
    "SELECT few, e, COUNT(*), SUM(i8), AVG(n), MIN(c), BIT_AND(u8) FROM void GROUP BY few, e WITH ROLLUP",
    "SELECT few, COUNT(DISTINCT e) FROM things GROUP BY few WITH ROLLUP",
    "SELECT few, few, COUNT(*) FROM things GROUP BY few WITH ROLLUP",
    "SELECT few, COALESCE(few, 'all'), COUNT(*) FROM things GROUP BY few WITH ROLLUP",
    "SELECT few + 1, COUNT(*) FROM things GROUP BY few + 1 WITH ROLLUP",
    "SELECT l.kind, SUM(t.n), COUNT(*) FROM things t JOIN entries l ON t.id = l.id GROUP BY l.kind WITH ROLLUP",
    *(f"SELECT {c}, COUNT(*), MIN({c}), MAX({c}) FROM things GROUP BY {c} WITH ROLLUP" for c in (
        "i8", "u64", "z", "d", "n", "b", "bin", "vb", "e", "s", "da", "ti", "dt", "ts", "y")),
]  # fmt: skip


@pytest.mark.parametrize("sql", ROLLED_UP)
def test_rolled_up_groups_are_those_of_one_server(both: Both, sql: str) -> None:
    _same(both, sql)


def test_rollup_sorted_by_another_order_takes_another_way(both: Both) -> None:
    sql = "SELECT few, COUNT(*) FROM things GROUP BY few WITH ROLLUP ORDER BY 2, 1"
    if both.flavor == "mysql":
        _same(both, sql)
        return
    with both.client() as client, pytest.raises(Refused) as refused:
        client.query(sql)
    assert refused.value.code == 1221


@pytest.mark.parametrize("parameter", [3, 40])
def test_rollup_with_parameters(both: Both, parameter: int) -> None:
    sql = "SELECT few, SUM(i8) FROM things WHERE id < ? GROUP BY few WITH ROLLUP HAVING COUNT(*) > 1 LIMIT ?"
    with both.client() as client, both.lone() as lone:
        ours, theirs = (_answers(c, sql, True, (parameter, 5)) for c in (client, lone))
    assert (ours.rows, [_shape(c) for c in ours.columns]) == (theirs.rows, [_shape(c) for c in theirs.columns])


JOINED = [
    "SELECT few, GROUP_CONCAT(i8 ORDER BY i8) FROM things GROUP BY few ORDER BY few",
    "SELECT few, GROUP_CONCAT(i8, '/', n ORDER BY i8 DESC, n SEPARATOR '\\n; '), COUNT(*), AVG(n), MAX(da) FROM things"
    " WHERE id < 560 GROUP BY few ORDER BY few DESC LIMIT 4",
    "SELECT GROUP_CONCAT(DISTINCT few ORDER BY few DESC SEPARATOR ''), COUNT(*), SUM(i8) FROM things",
    "SELECT e, GROUP_CONCAT(DISTINCT u8, few ORDER BY few DESC, u8) FROM things WHERE u8 > 9 GROUP BY e ORDER BY e",
    "SELECT e, GROUP_CONCAT(DISTINCT da ORDER BY da), COUNT(DISTINCT few) FROM things GROUP BY e ORDER BY e",
    "SELECT few, GROUP_CONCAT(vb ORDER BY vb), MIN(n) FROM things WHERE few < 9 GROUP BY few ORDER BY COUNT(*), few",
    "SELECT few, GROUP_CONCAT(t.e ORDER BY e DESC) FROM things t WHERE id < 590 GROUP BY few ORDER BY few",
    "SELECT few, GROUP_CONCAT(id ORDER BY ti, id), GROUP_CONCAT(y ORDER BY ti, id) FROM things GROUP BY few"
    " ORDER BY few",
    "SELECT few, GROUP_CONCAT(id ORDER BY ts, id) FROM things GROUP BY few ORDER BY few",
    "SELECT few, GROUP_CONCAT(id ORDER BY np, id), SUM(n) FROM things GROUP BY few HAVING COUNT(*) > 30 ORDER BY few",
    "SELECT kind, GROUP_CONCAT(amount ORDER BY amount) FROM entries GROUP BY kind ORDER BY kind",
    "SELECT GROUP_CONCAT(i8 ORDER BY i8), COUNT(*) FROM void",
    "SELECT GROUP_CONCAT(i8), JSON_ARRAYAGG(i8), COUNT(*) FROM void",
    "SELECT few, GROUP_CONCAT(few), JSON_ARRAYAGG(few) FROM things GROUP BY few ORDER BY few",
    "SELECT GROUP_CONCAT(c ORDER BY c) FROM things WHERE c IS NULL",
    "SELECT few, GROUP_CONCAT(CONCAT(id, '=', la), i8 + 1 ORDER BY id * 2 DESC) FROM things GROUP BY few ORDER BY few",
    "SELECT few, GROUP_CONCAT(DISTINCT i8 % 7 ORDER BY i8 % 7 DESC) FROM things GROUP BY few ORDER BY few",
    "SELECT few, GROUP_CONCAT(CONVERT(la USING utf16) ORDER BY id) FROM things GROUP BY few ORDER BY few",
    "SELECT few, GROUP_CONCAT(la ORDER BY id SEPARATOR '日') FROM things GROUP BY few ORDER BY few",
]  # fmt: skip


@pytest.mark.parametrize("sql", JOINED)
def test_texts_of_groups_in_order_are_those_of_one_server(both: Both, sql: str) -> None:
    _same(both, sql)


@pytest.mark.parametrize("call", ["GROUP_CONCAT(i8)", "GROUP_CONCAT(DISTINCT bin)", "GROUP_CONCAT(la SEPARATOR 'é')",
                                  "JSON_ARRAYAGG(n)", "JSON_ARRAYAGG(bi)"])  # fmt: skip
@pytest.mark.parametrize("binary", [False, True])
def test_texts_of_groups_in_any_order_have_the_same_parts(both: Both, call: str, binary: bool) -> None:
    sql = f"SELECT few, {call} FROM things GROUP BY few ORDER BY few"
    with both.client() as client, both.lone() as lone:
        ours, theirs = _answers(client, sql, binary), _answers(lone, sql, binary)
    assert [_shape(c) for c in ours.columns] == [_shape(c) for c in theirs.columns]
    separator = "é".encode() if "é" in call else b", " if "JSON" in call and both.flavor == "mysql" else b","

    def parts(result: Result) -> list[list[object]]:
        texts = [(few, b"" if text is None else bytes(str(text), "utf-8", "surrogateescape")
                  if isinstance(text, str) else text) for few, text in result.rows]  # fmt: skip
        return [[few, sorted(text.strip(b"[]").split(separator))] for few, text in texts]  # type: ignore[union-attr]

    assert parts(ours) == parts(theirs)


@pytest.mark.parametrize("most", [20, 200, 500, 4000])
def test_texts_of_groups_are_cut_as_on_one_server(both: Both, most: int) -> None:
    sql = "SELECT few, GROUP_CONCAT(bi, id ORDER BY id) FROM things GROUP BY few ORDER BY few"
    with both.client() as client, both.lone() as lone:
        for connection in (client, lone):
            connection.query(f"SET group_concat_max_len = {most}")
        ours, theirs = client.query(sql), lone.query(sql)
        assert ours.rows == theirs.rows
        assert ours.ok.warnings == theirs.ok.warnings
        assert client.rows("SHOW COUNT(*) WARNINGS") == lone.rows("SHOW COUNT(*) WARNINGS")


def test_means_of_distinct_values_are_rounded_as_the_server_does(both: Both) -> None:
    """MySQL divides further there than for AVG of all values."""
    for i in (2, 3, 4, 5):
        expression = f"CAST(n9 AS DECIMAL(18,{i}))"
        for sql in (
            f"SELECT few, AVG(DISTINCT {expression}), AVG({expression}) FROM things GROUP BY few ORDER BY few",
            f"SELECT e, AVG(DISTINCT {expression}) FROM things GROUP BY e ORDER BY AVG(DISTINCT {expression}), e",
        ):
            _same(both, sql)
    _same(both, "SELECT few, AVG(DISTINCT n9), AVG(n9) FROM things GROUP BY few ORDER BY few")
    _same(both, "SELECT e, AVG(DISTINCT n9) FROM things GROUP BY e HAVING AVG(DISTINCT n9) < 100 ORDER BY e")


def test_having_compares_means_as_the_server_does(both: Both) -> None:
    """MariaDB as they are shown, MySQL before they are rounded where it need not sort groups afterwards."""
    with both.lone() as lone, both.client() as client:
        shown = lone.rows("SELECT kind, AVG(amount) FROM entries GROUP BY kind ORDER BY kind")
        for _, mean in shown:
            assert isinstance(mean, bytes)
            for sign in ("<", "=", ">"):
                for tail in ("", " ORDER BY kind", " ORDER BY COUNT(*), kind", " ORDER BY AVG(amount), kind"):
                    sql = f"SELECT kind FROM entries GROUP BY kind HAVING AVG(amount) {sign} {mean.decode()}{tail}"
                    assert sorted(client.rows(sql), key=repr) == sorted(lone.rows(sql), key=repr), sql


def test_a_plan_is_not_taken_for_other_constants(both: Both) -> None:
    """Two expressions are equal in one statement and not in another that reads the same but for a number."""
    with both.client() as client, both.lone() as lone:
        for connection in (client, lone):
            connection.query("SET sql_mode = ''")
        for first, other in ((3, 3), (3, 2), (2, 3), (4, 4)):
            for sql in (
                f"SELECT few % {first} AS a, COUNT(*) FROM things GROUP BY few % {first}, few % {other} ORDER BY "
                f"few % {other}, few % {first}",
                f"SELECT COUNT(DISTINCT few % {first}), SUM(DISTINCT few % {other}) FROM things",
                f"SELECT few, SUM(i8 + {first}) FROM things GROUP BY few HAVING SUM(i8 + {other}) > 9 ORDER BY few",
            ):
                assert client.rows(sql) == lone.rows(sql), sql


UNITED = [
    "SELECT id, few FROM things UNION ALL SELECT id, kind FROM entries",
    "SELECT id, 'thing' AS what FROM things WHERE few > 3 UNION ALL SELECT id, 'an entry' FROM entries WHERE kind = 1",
    "SELECT * FROM entries WHERE kind < 4 UNION ALL (SELECT * FROM entries WHERE amount > 0)",
    "SELECT i8 FROM things UNION ALL SELECT n FROM things UNION ALL SELECT g FROM things",
    "SELECT few FROM things UNION SELECT kind FROM entries",
    "SELECT few AS f FROM things UNION DISTINCT SELECT amount FROM entries ORDER BY f DESC",
    "SELECT few, e FROM things UNION SELECT kind, 'aa' FROM entries",
    "SELECT few FROM things UNION SELECT n FROM things ORDER BY 1 LIMIT 5, 11",
    "SELECT n, da FROM things UNION SELECT i8, dt FROM things ORDER BY 2 DESC, 1",
    "SELECT i32 AS a, few FROM things UNION ALL SELECT u64, i8 FROM things ORDER BY a, few LIMIT 40",
    "SELECT id, ti FROM things UNION ALL SELECT id, NULL FROM entries ORDER BY ti DESC, id LIMIT 30",
    "(SELECT t.few, l.amount FROM things t JOIN entries l ON t.id = l.id) UNION (SELECT kind, line FROM entries) "
    "ORDER BY amount, few",
    "SELECT bi FROM things WHERE bi > 'b' UNION SELECT bi FROM things WHERE few > 2 AND bi > 'aa' ORDER BY bi",
    "SELECT bi, few FROM things UNION ALL SELECT bi, i8 FROM things ORDER BY bi DESC, 2 LIMIT 30",
    "SELECT vb FROM things UNION SELECT bin FROM things ORDER BY 1",
    "SELECT kind + 1 AS k FROM entries UNION SELECT amount * 2 FROM entries WHERE kind = 3 ORDER BY k",
    "SELECT few FROM void UNION SELECT i8 FROM void ORDER BY 1",
    "SELECT id FROM things WHERE id = 3 UNION ALL SELECT id FROM entries WHERE id > 500",
    "SELECT COUNT(*) FROM things UNION ALL SELECT few FROM things",
    # by scratch tables
    "SELECT d FROM things UNION SELECT f FROM things ORDER BY 1",
    "SELECT e FROM things UNION SELECT s FROM things ORDER BY 1",
    "SELECT i8 FROM things UNION SELECT bi FROM things ORDER BY 1",
    "SELECT few FROM things UNION SELECT kind FROM entries UNION ALL SELECT 1 ORDER BY 1",
    "SELECT few FROM things UNION ALL SELECT ts FROM things ORDER BY 1",
    "SELECT y FROM things UNION SELECT few FROM things ORDER BY 1",
    "SELECT b FROM things UNION SELECT b FROM things ORDER BY 1",
]  # fmt: skip


@pytest.mark.parametrize("sql", UNITED)
def test_unions_are_those_of_one_server(both: Both, sql: str) -> None:
    _same(both, sql, ordered="ORDER BY" in sql)


@pytest.mark.parametrize("column", ["g", "un", "np", "bi", "la", "c"])
def test_unions_tell_texts_apart_as_one_server_does(both: Both, column: str) -> None:
    """Which of several equal texts is shown is open, their number and order are not."""
    sql = f"SELECT {column} FROM things UNION SELECT {column} FROM things WHERE few > 2"
    with both.client() as client, both.lone() as lone:
        assert len(client.rows(sql)) == len(lone.rows(sql))
        for limit in ("3", "4, 6"):
            assert len(client.rows(f"{sql} ORDER BY 1 LIMIT {limit}")) == int(limit[-1])
        sql = f"SELECT {column} AS x, id FROM things UNION ALL SELECT {column}, id + 1 FROM things ORDER BY x DESC, id"
        assert [row[1] for row in client.rows(sql)] == [row[1] for row in lone.rows(sql)]


def test_unions_with_limit_alone_and_parameters(both: Both) -> None:
    with both.client() as client, both.lone() as lone:
        assert len(client.rows("SELECT id FROM things UNION ALL SELECT id FROM entries LIMIT 350, 100")) == 100
        sql = "SELECT few + ? FROM things WHERE id < ? UNION SELECT kind FROM entries WHERE id > ? ORDER BY 1 LIMIT ?"
        for parameters in ((1, 100, 300, 5), (2, 600, 0, 20), (0, 0, 0, 3)):
            assert _answers(client, sql, True, parameters).rows == _answers(lone, sql, True, parameters).rows
        for sql in ("SELECT id FROM things UNION SELECT id, few FROM things",
                    "SELECT id FROM things UNION SELECT nowhere FROM things",
                    "SELECT id FROM things UNION SELECT id FROM entries ORDER BY 2"):  # fmt: skip
            with pytest.raises(Refused) as theirs:
                lone.query(sql)
            with pytest.raises(Refused) as ours:
                client.query(sql)
            assert ours.value.code == theirs.value.code


@pytest.mark.parametrize("column", ["g", "un", "np", "la", "c"])
def test_groups_of_texts_count_alike(both: Both, column: str) -> None:
    """Which of several equal texts stands for the group is open, their numbers are not."""
    sql = f"SELECT MIN({column}) IS NULL, COUNT(*), SUM(i8), MAX(id) FROM things GROUP BY {column} ORDER BY {column}"
    with both.client() as client, both.lone() as lone:
        assert client.rows(sql) == lone.rows(sql)  # by scratch tables: an expression of an aggregate
        sql = sql.replace(f"MIN({column}) IS NULL, ", "")
        assert client.rows(sql) == lone.rows(sql)


def test_floating_sums_are_not_merged(both: Both) -> None:
    """Their last digits depend on the order in which they are added: that is left to one server."""
    sql = "SELECT SUM(d) FROM things"
    with both.client() as client, both.lone() as lone:
        [[mine]], [[theirs]] = client.rows(sql), lone.rows(sql)
        assert isinstance(mine, bytes)
        assert isinstance(theirs, bytes)
        assert math.isclose(float(mine), float(theirs), rel_tol=1e-12)


@pytest.mark.parametrize("begin", ["", "BEGIN"])
@pytest.mark.parametrize("sql", ["SELECT NOW(6), uid FROM users", "SELECT NOW(6), uid FROM users ORDER BY uid"])
def test_all_shards_have_one_time(proxy: ProxyUnderTest, sql: str, begin: str) -> None:
    with RawClient(proxy.port) as client:
        client.query("INSERT INTO users VALUES (1, 'a', 1), (1001, 'b', 2)")
        if begin:
            client.query(begin)
        times = {client.query(sql).rows[0][0] for _ in range(3)}
        assert len(times) == 3, "the clock goes on from statement to statement"
        rows = client.query(sql).rows
        assert len(rows) == 2
        assert rows[0][0] == rows[1][0]
        assert client.query("SELECT NOW(6) < NOW(6) + INTERVAL 1 SECOND, @@timestamp > 0 FROM users WHERE uid = 1").rows
