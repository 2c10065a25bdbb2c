"""Subqueries that run first beside one server: equal answers, and no scratch table where none is due."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shardproxy.local import LocalServer
from tests.beside import FAR, FILL, Sides, rows
from tests.proxy import ProxyUnderTest

QUERIES = (
    f"SELECT name FROM users WHERE uid IN (SELECT oid FROM orders) AND uid < {FAR}",
    "SELECT name FROM users WHERE uid IN (SELECT DISTINCT oid FROM orders WHERE total > 2)",
    "SELECT COUNT(*), SUM(balance) FROM users WHERE uid NOT IN (SELECT oid FROM orders)",
    "SELECT COUNT(*) FROM users WHERE uid NOT IN (SELECT oid FROM orders WHERE total > 999)",
    "SELECT COUNT(*) FROM users WHERE uid IN (SELECT oid FROM orders WHERE total > 999)",
    "SELECT uid, total FROM orders WHERE total = (SELECT MAX(total) FROM orders)",
    "SELECT name FROM users WHERE balance > (SELECT SUM(total) FROM orders) ORDER BY name DESC LIMIT 2",
    "SELECT COUNT(*) FROM users WHERE EXISTS (SELECT 1 FROM orders WHERE oid = 9)",
    "SELECT COUNT(*) FROM users WHERE NOT EXISTS (SELECT 1 FROM orders WHERE oid = 9) AND balance > 0",
    "SELECT name FROM users WHERE name IN (SELECT name FROM users u WHERE u.balance > 25) AND uid > 1",
    f"SELECT name FROM users WHERE uid = (SELECT uid FROM orders WHERE uid = {FAR} AND oid = 1) AND name <> 'z'",
)


@pytest.fixture
def sides(proxy: ProxyUnderTest, lone: LocalServer) -> Iterator[Sides]:
    made = Sides(proxy, lone)
    made.same(*FILL)
    yield made
    made.close()


def _scratch(proxy: ProxyUnderTest) -> int:
    """How many tables all servers have made, temporary ones too."""
    proxy.cluster.wait_replicated()
    shown = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Com_create_table', 'Com_create_temporary_table')"
    servers = [server for shard in proxy.cluster.shards for server in (shard.primary, *shard.replicas)]
    return sum(int(value) for server in servers for _, value in server.rows(shown))


def _explained(sides: Sides, sql: str) -> list[str]:
    """Rung, reason and why not the rung above."""
    return [row[2] + ": " + row[4] for row in rows(sides.here, f"EXPLAIN ROUTE {sql}")]


@pytest.mark.parametrize("transaction", [False, True])
def test_without_scratch_tables(sides: Sides, transaction: bool) -> None:
    # A proxy that has just read the definitions anew, as it does when they changed behind it, answers what it had begun
    # another way: a statement has one map. It does not do so again and again.
    assert any(_made_none(sides, transaction) for _ in range(3))
    assert _explained(sides, QUERIES[0])[0].startswith("2: merge: a subquery first")
    before = _scratch(sides.proxy)
    rows(sides.here, f"{QUERIES[0]} AND NOW() > 1")
    assert _scratch(sides.proxy) > before


def _made_none(sides: Sides, transaction: bool) -> bool:
    """Whether all queries were answered, and equally, without a scratch table."""
    before = _scratch(sides.proxy)
    if transaction:
        for side in (sides.here, sides.there):
            side.begin()
        sides.both("UPDATE users SET balance = balance + 1 WHERE uid IN (1, 2)")
    for sql in QUERIES:
        here, there = (rows(side, sql) for side in (sides.here, sides.there))
        assert sorted(here) == sorted(there), sql
        assert sides.here.server_status == sides.there.server_status
    for side in (sides.here, sides.there):
        side.rollback()
    return _scratch(sides.proxy) == before


def test_over_scratch_tables_after_all(sides: Sides) -> None:
    """Too many values; two rows where one may be; what only the whole statement has against it."""
    many = ", ".join(f"(7, {oid}, 1)" for oid in range(100, 1200))
    sides.both(f"INSERT INTO orders VALUES {many}")
    sides.rows_of("SELECT COUNT(*) FROM users WHERE uid NOT IN (SELECT oid FROM orders)")
    for wrong in (
        "SELECT name FROM users WHERE uid = (SELECT oid FROM orders)",
        "SELECT name FROM users WHERE uid IN (SELECT nothing FROM orders)",
        "SELECT nothing FROM users WHERE uid IN (SELECT oid FROM orders WHERE oid < 3)",
        "SELECT name FROM users WHERE uid IN (SELECT oid FROM orders WHERE nothing < 3)",
    ):
        sides.both(wrong)
    here, there = (
        rows(side, "SELECT name FROM users WHERE uid IN (SELECT oid FROM orders WHERE total > 'x3')")
        for side in (sides.here, sides.there)
    )
    assert sorted(here) == sorted(there)


def test_the_answer_is_of_one_moment_on_each_shard(sides: Sides) -> None:
    """The largest is always there, whoever is inserting larger ones."""
    with sides.proxy.connect() as other, other.cursor() as writing:
        for total in range(100, 160):
            writing.execute(f"UPDATE orders SET total = {total} WHERE uid = {FAR} AND oid = 1")
            found = rows(
                sides.here, f"SELECT total FROM orders WHERE uid = {FAR} AND total = (SELECT MAX(total) FROM orders)"
            )
            assert found == [(total,)]
