"""EXPLAIN ROUTE through the MySQL port."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pymysql

from tests.proxy import ProxyUnderTest


def explained(proxy: ProxyUnderTest, sql: str) -> list[dict[str, Any]]:
    with closing(proxy.connect(cursorclass=pymysql.cursors.DictCursor)) as client, client.cursor() as cursor:
        cursor.execute(f"EXPLAIN ROUTE {sql}")
        return list(cursor.fetchall())


def test_one_shard_is_named_with_the_text_it_gets(proxy: ProxyUnderTest) -> None:
    [row] = explained(proxy, "SELECT * FROM users WHERE uid = 1500")
    assert (row["shard"], row["rung"], row["opcode"]) == ("shard2", "1: one shard", "EqualUnique")
    assert row["sql"] == "SELECT * FROM users WHERE uid = 1500"


def test_several_shards_have_a_row_each_and_say_why(proxy: ProxyUnderTest) -> None:
    rows = explained(proxy, "SELECT name FROM users ORDER BY name")
    assert [row["shard"] for row in rows] == ["shard1", "shard2"]
    assert rows[0]["rung"] == "2: merge"
    assert rows[0]["not_above"]


def test_a_write_is_not_run_and_an_error_is_shown(proxy: ProxyUnderTest) -> None:
    explained(proxy, "INSERT INTO users (uid, name) VALUES (5, 'x')")
    assert proxy.primary(0).rows("SELECT * FROM main.users") == []
    [row] = explained(proxy, "SELECT * FROM nothere")
    assert (row["shard"], row["rung"]) == (None, "4: error")
    assert "nothere" in row["reason"]
