"""Joins over scratch tables with random conditions, beside one lone server: what is not gathered must not be missed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pymysql
import pytest

from shardproxy.local import LocalCluster, LocalServer
from tests.proxy import ProxyUnderTest, eventually, start_proxy

STATEMENTS = 250
KEYSPACES = """
[keyspaces.needs]
key_type = "int"
map = "range"
[[keyspaces.needs.ranges]]
from = "min"
to = 20
shard = "shard1"
[[keyspaces.needs.ranges]]
from = 20
to = "max"
shard = "shard2"
[keyspaces.needs.tables]
a = { key = "id" }
b = { key = "id" }
r = { reference = true }
"""
COLUMNS = (
    "(id INT NOT NULL, x INT, y BIGINT NOT NULL, n DECIMAL(9,2), t VARCHAR(20), c CHAR(3) NOT NULL DEFAULT 'c', "
    "d DATE, m DATETIME NOT NULL, spare TEXT NOT NULL, half DOUBLE, KEY (x, y){key})"
)
NUMBERS = ("0", "1", "2", "3", "-1", "2.5", "1e0")
TEXTS = ("'a'", "'A'", "'b'", "''", "'a '", "'x%'", "'_'")
DATES = (
    "'2020-01-01'", "'2020-02-03'", "DATE '2020-01-02'", "'2020-01-02 03:04:05'",
    "DATE '2020-02-01' - INTERVAL 1 MONTH",
)  # fmt: skip
ALIASES = {"a": "abc", "b": "uvw", "r": "rst"}


def _rows(dice: random.Random, first: int) -> list[str]:
    def maybe(text: str) -> str:
        return "NULL" if dice.random() < 0.2 else text

    return [
        f"({first + i}, {maybe(str(dice.randint(-1, 4)))}, {dice.randint(0, 9)}, "
        f"{maybe(dice.choice(('0', '1.5', '2.5', '3')))}, {maybe(dice.choice(TEXTS[:5]))}, {dice.choice(TEXTS[:3])}, "
        f"{maybe(dice.choice(DATES[:2]))}, {dice.choice(DATES[:3])}, 'spare', {maybe('0.5')})"
        for i in range(20)
    ]


class Statements:
    """Random SELECTs that need scratch tables."""

    def __init__(self, seed: str) -> None:
        self.dice = random.Random(seed)

    def one(self) -> str:
        dice = self.dice
        tables = [dice.choice("aabbr") for _ in range(dice.choice((1, 2, 2, 3)))]
        names = [t if tables.count(t) == 1 and dice.random() < 0.5 else ALIASES[t][i] for i, t in enumerate(tables)]
        text = self.factor(tables[0], names[0])
        since = 0  # the first table behind the last comma: ON knows these only
        for i in range(1, len(tables)):
            join = dice.choice((" JOIN", " LEFT JOIN", " RIGHT JOIN", " JOIN", ","))
            text += f"{join} {self.factor(tables[i], names[i])}"
            if join == ",":
                since = i
            else:
                text += f" ON {self.condition(names[since : i + 1], 2)}"
        items = ", ".join(f"{name}.id" for name in names)
        star = f", {names[0]}.*" if dice.random() < 0.2 else ""
        where = f" WHERE {self.condition(names, 3)}" if dice.random() < 0.9 else ""
        return f"SELECT COUNT(*) OVER () AS k, {items}{star} FROM {text}{where}"

    def factor(self, table: str, name: str) -> str:
        return table if table == name else f"{table} {self.dice.choice(('', 'AS '))}{name}"

    def condition(self, names: list[str], depth: int) -> str:
        dice = self.dice
        if depth and dice.random() < 0.6:
            parts = [self.condition(names, depth - 1) for _ in range(dice.choice((2, 2, 3)))]
            text = f" {dice.choice(('AND', 'AND', 'OR'))} ".join(parts)
            return f"({text})" if dice.random() < 0.5 else text
        if dice.random() < 0.1:
            return f"NOT ({self.condition(names, 0)})"
        return self.term(names)

    def term(self, names: list[str]) -> str:
        dice = self.dice
        name, other = dice.choice(names), dice.choice(names)
        number, text = dice.choice(NUMBERS), dice.choice(TEXTS)
        low, high = sorted((dice.choice(DATES[:2]), dice.choice(DATES[:2])))
        sign = dice.choice(("=", "<", ">", "<=", ">=", "<>", "<=>"))
        column = dice.choice(("x", "y", "n", "half"))
        return dice.choice((
            f"{name}.{column} {sign} {number}",
            f"{number} {sign} {name}.{column}",
            f"{name}.{column} BETWEEN {number} AND 3",
            f"{name}.x {dice.choice(('', 'NOT '))}IN ({number}, 2, NULL)",
            f"{name}.t {sign} {text}",
            f"{name}.t LIKE {text}",
            f"{name}.c NOT LIKE 'a%'",
            f"LEFT({name}.t, 1) = {text}",
            f"SUBSTRING({name}.c FROM 1 FOR 1) IN ('a', 'b')",
            f"CHAR_LENGTH({name}.t) > {dice.choice('012')}",
            f"{name}.d {sign} {dice.choice(DATES)}",
            f"{name}.m BETWEEN {low} AND {high}",
            f"YEAR({name}.m) = 2020",
            f"{name}.{dice.choice('xntd')} IS {dice.choice(('', 'NOT '))}NULL",
            f"{name}.x {sign} {name}.y",
            f"{name}.x = {other}.y",
            f"{name}.id = {other}.x",
            f"{name}.y = {other}.id AND {other}.x = {number}",
            f"EXISTS (SELECT * FROM b i WHERE i.x = {name}.y AND i.n > {number})",
            f"{name}.x IN (SELECT y FROM a i WHERE i.t = {text} AND i.id = {name}.y)",
            f"{name}.y > (SELECT COUNT(*) FROM a k WHERE k.y = {name}.x AND k.c = {text})",
            f"{name}.x + 1 = {number}",
            f"({name}.x, {name}.y) = (1, 2)",
            f"CASE WHEN {name}.x = 1 AND {name}.y = 2 THEN 1 ELSE 0 END = 0",
        ))  # fmt: skip


@pytest.fixture(scope="module")
def sides(cluster: LocalCluster, oracle: LocalServer) -> Iterator[tuple[ProxyUnderTest, LocalServer]]:
    dice = random.Random(3)
    servers = [cluster.shards[0].primary, cluster.shards[1].primary, oracle]
    rows = {table: _rows(dice, 0) + _rows(dice, 20) for table in "abr"}
    for number, server in enumerate(servers):
        server.rows("DROP DATABASE IF EXISTS needs")
        server.rows("CREATE DATABASE needs CHARACTER SET utf8mb4")
        for table, all_rows in rows.items():
            key = ", PRIMARY KEY (id)" if table != "b" else ", UNIQUE KEY (id, c, y)"
            server.rows(f"CREATE TABLE needs.{table} {COLUMNS.format(key=key)}")
            mine = all_rows if number == 2 or table == "r" else all_rows[number * 20 : number * 20 + 20]
            server.rows(f"INSERT INTO needs.{table} VALUES {', '.join(mine)}")
    cluster.wait_replicated()
    users = {"app": {"password": "app", "reads": "primary"}}
    proxy = start_proxy(cluster, "needs", users=users, keyspaces=KEYSPACES, proxy={"workers": 1})
    yield proxy, oracle
    proxy.process.stop()
    for server in servers:
        server.rows("DROP DATABASE needs")


def _outcome(connection: Any, sql: str) -> object:
    with connection.cursor() as cursor:
        try:
            cursor.execute(sql)
        except pymysql.MySQLError as error:
            return f"error {error.args[0]}"
        return sorted(cursor.fetchall(), key=repr)


@pytest.mark.parametrize("seed", range(2))
def test_random_conditions(sides: tuple[ProxyUnderTest, LocalServer], seed: int) -> None:
    proxy, oracle = sides
    made = Statements(f"{seed}")
    answered = rows = 0
    with proxy.connect(database="needs") as connection, oracle.connect("needs") as lone:
        for number in range(STATEMENTS):
            sql = made.one()
            theirs = _outcome(lone, sql)
            ours = _outcome(connection, sql)
            assert ours == theirs, f"{number}: {sql}"
            if isinstance(theirs, list):
                answered += 1
                rows += len(theirs)
    assert answered > STATEMENTS * 0.9
    assert rows > STATEMENTS
    assert proxy.metric("shardproxy_scratch_queries_total") > answered / 2


def test_rows_and_columns_that_are_not_needed_are_not_gathered(sides: tuple[ProxyUnderTest, LocalServer]) -> None:
    proxy, _ = sides

    def gathered(sql: str) -> tuple[float, float]:
        names = "shardproxy_scratch_rows_total", "shardproxy_scratch_bytes_total", "shardproxy_scratch_queries_total"
        before = [proxy.metric(name) for name in names]
        with proxy.connect(database="needs") as connection:
            _outcome(connection, sql)
        eventually(lambda: proxy.metric(names[2]) > before[2], "the statement is counted")
        rows, size, _ = (proxy.metric(name) - value for name, value in zip(names, before, strict=True))
        return rows, size

    every, whole = gathered("SELECT COUNT(*) OVER (), a.* FROM a")
    assert gathered("SELECT COUNT(*) OVER (), a.id FROM a") < (every + 1, whole / 2)
    assert gathered("SELECT COUNT(*) OVER (), a.* FROM a WHERE id BETWEEN 15 AND 24")[0] == 10
    assert gathered("SELECT COUNT(*) OVER (), a.* FROM a WHERE id < 'x'")[0] == every
    assert gathered("SELECT COUNT(*) OVER () FROM a JOIN b ON b.y = a.x WHERE a.id = 10 AND a.id = 11")[0] == 0
    assert gathered("SELECT COUNT(*) OVER () FROM a LEFT JOIN b ON b.id = a.id WHERE a.id IN (1, 2, 30)")[0] == 6
