"""SELECTs that read views of tables on several shards, beside one lone server with the same views and rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pymysql
import pytest

from shardproxy.local import LocalServer
from tests.proxy import SPLIT, TABLES, ProxyUnderTest, eventually

VIEWS = {
    "rich (id, money)": "SELECT uid, balance + 1 FROM users WHERE balance > 60 OR name = 'it''s \\\\ x'",
    "spent": "SELECT u.uid, u.name, SUM(o.total) AS spent, COUNT(o.oid) AS n, 'x' AS tag "
    "FROM users u LEFT JOIN orders o ON u.uid = o.uid AND o.total > 5 GROUP BY u.uid, u.name",
    "totals": "SELECT COUNT(*) AS users, SUM(balance) AS money, MAX(name) AS last FROM users",
    "nested": "SELECT rich.id, rich.money, spent.n FROM rich JOIN spent ON rich.id = spent.uid WHERE spent.n < 5",
    "both_of": "SELECT uid, 'user' AS what FROM users UNION ALL SELECT uid, 'order' FROM orders",
    "few": "SELECT * FROM users WHERE EXISTS (SELECT 1 FROM orders WHERE orders.total > users.balance / 20)",
    "places": "SELECT code, name FROM countries WHERE code <> 'xx'",
    "sorted": "SELECT uid FROM users ORDER BY balance LIMIT 2",
    "listed": "SELECT uid, name FROM users ORDER BY balance DESC, uid",
}
OF_TWO_KEYSPACES = "SELECT items.sku, users.uid FROM users JOIN hashed.items ON items.price = users.balance"
SELECTS = [
    "SELECT * FROM rich ORDER BY id",
    "SELECT COUNT(*), SUM(money) FROM rich r WHERE r.money > 100",
    "SELECT a.id, b.money FROM rich a JOIN rich AS b ON a.id < b.id ORDER BY 1, 2",
    "SELECT rich.*, users.name FROM main.rich JOIN users ON users.uid = rich.id ORDER BY id",
    "SELECT main.rich.id, main.rich.*, main.rich.money + 1 AS more FROM rich WHERE main.rich.id > 1 "
    "ORDER BY main.rich.id",
    "SELECT * FROM spent ORDER BY uid",
    "SELECT tag, SUM(spent), SUM(n) FROM spent GROUP BY tag",
    "SELECT * FROM totals",
    "SELECT users + 1 AS more, (SELECT last FROM totals) AS last FROM totals WHERE money > 5",
    "SELECT * FROM nested ORDER BY id",
    "SELECT what, COUNT(*) FROM both_of GROUP BY what ORDER BY what",
    "SELECT * FROM few ORDER BY uid",
    "WITH w AS (SELECT id FROM rich) SELECT * FROM w WHERE id IN (SELECT uid FROM orders) ORDER BY id",
    "SELECT * FROM rich UNION SELECT uid, balance FROM users ORDER BY 1, 2",
    "SELECT id, money, ROW_NUMBER() OVER (ORDER BY money DESC, id) FROM rich ORDER BY id",
    "SELECT * FROM users WHERE uid IN (SELECT id FROM rich WHERE money BETWEEN 5 AND 101) ORDER BY uid",
    "SELECT * FROM places ORDER BY code",
    "SELECT * FROM sorted",
    "SELECT COUNT(*) FROM sorted JOIN users USING (uid)",
    "SHOW COLUMNS FROM spent",
    "DESCRIBE main.sorted",
]
USERS = [(1, "one", 100), (2, "two", 50), (3, r"it\'s \\ x", 1), (SPLIT + 1, "other", 100), (SPLIT + 2, "last", 70)]
ORDERS = [(1, 1, 5), (1, 4, 8), (SPLIT + 1, 2, 7), (SPLIT + 1, 3, 5), (SPLIT + 2, 5, 60)]


def run(connection: Any, *statements: str) -> Any:
    """The rows of the last statement."""
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall()


@pytest.fixture
def sides(proxy: ProxyUnderTest, oracle: LocalServer) -> Iterator[tuple[ProxyUnderTest, LocalServer]]:
    for database in ("main", "hashed"):
        oracle.rows(f"DROP DATABASE IF EXISTS {database}")
        oracle.rows(f"CREATE DATABASE {database} CHARACTER SET utf8mb4")
        for definition in TABLES[database]:
            oracle.rows(definition, database=database)
    for connection in (proxy.connect(), oracle.connect("main")):
        with connection:
            for uid, name, balance in USERS:
                run(connection, f"INSERT INTO users VALUES ({uid}, '{name}', {balance})")
            for row in ORDERS:
                run(connection, f"INSERT INTO orders VALUES {row}")
            run(connection, "INSERT INTO hashed.items VALUES ('a', 100), ('b', 1), ('c', 70), ('d', 100), ('e', 7)")
            run(connection, f"DROP VIEW IF EXISTS {', '.join(name.split()[0] for name in VIEWS)}")
            run(connection, "REPLACE INTO countries VALUES ('de', 'Germany'), ('xx', 'nowhere')")
            for name, text in VIEWS.items():
                run(connection, f"CREATE VIEW {name} AS {text}")
    yield proxy, oracle
    with proxy.connect() as connection:
        run(connection, f"DROP VIEW {', '.join(name.split()[0] for name in VIEWS)}")
    for database in ("main", "hashed"):
        oracle.rows(f"DROP DATABASE {database}")


def test_rows_are_those_of_one_server(sides: tuple[ProxyUnderTest, LocalServer]) -> None:
    proxy, oracle = sides
    with proxy.connect() as connection, oracle.connect("main") as lone:
        for sql in SELECTS:
            with connection.cursor() as cursor, lone.cursor() as other:
                cursor.execute(sql)
                other.execute(sql)
                assert cursor.fetchall() == other.fetchall(), sql
                names = [[column[0] for column in done.description] for done in (cursor, other)]
                assert names[0] == names[1], sql


def test_an_order_without_limit(sides: tuple[ProxyUnderTest, LocalServer]) -> None:
    """MariaDB orders the rows of a merged view, and not those of a derived table: there it is refused."""
    proxy, oracle = sides
    with proxy.connect() as connection, oracle.connect("main") as lone:
        for sql in ("SELECT * FROM listed", "SELECT COUNT(*) FROM listed", "SELECT * FROM listed ORDER BY name"):
            if proxy.mariadb:
                with pytest.raises(pymysql.MySQLError, match="ORDER BY"):
                    run(connection, sql)
            else:
                assert run(connection, sql) == run(lone, sql), sql


def test_a_view_of_two_keyspaces(sides: tuple[ProxyUnderTest, LocalServer]) -> None:
    """MySQL says that its columns are of the view's database, which is not so with the definition in its place."""
    proxy, oracle = sides
    with proxy.connect() as connection, oracle.connect("main") as lone:
        run(lone, f"CREATE VIEW priced AS {OF_TWO_KEYSPACES}")
        if not proxy.mariadb:
            with pytest.raises(pymysql.MySQLError, match="tables of another"):
                run(connection, f"CREATE VIEW priced AS {OF_TWO_KEYSPACES}")
            return
        run(connection, f"CREATE VIEW priced AS {OF_TWO_KEYSPACES}")
        for sql in ("SELECT * FROM priced ORDER BY sku, uid", "SELECT sku FROM priced WHERE uid = 1 ORDER BY sku"):
            assert run(connection, sql) == run(lone, sql), sql
        run(connection, "DROP VIEW priced")


def test_a_table_is_no_view(sides: tuple[ProxyUnderTest, LocalServer]) -> None:
    proxy, oracle = sides
    with proxy.connect() as connection, oracle.connect("main") as lone:
        for side in (connection, lone):
            with pytest.raises(pymysql.MySQLError) as raised:
                run(side, "DROP VIEW users")
            assert raised.value.args == ((4092, "Unknown VIEW: 'main.users'") if proxy.mariadb else
                                         (1347, "'main.users' is not VIEW"))  # fmt: skip


def test_a_changed_view_is_read_as_it_is_now(sides: tuple[ProxyUnderTest, LocalServer]) -> None:
    proxy, _ = sides
    with proxy.connect() as connection:
        assert len(run(connection, "SELECT * FROM rich")) == 4
        run(connection, "ALTER VIEW rich (id, money) AS SELECT uid, balance + 1 FROM users WHERE balance > 80")
        assert len(run(connection, "SELECT * FROM rich")) == 2
        for shard in (0, 1):
            proxy.primary(shard).rows(
                "ALTER VIEW rich (id, money) AS SELECT uid, balance + 1 FROM users WHERE balance > 0", database="main"
            )
        eventually(lambda: len(run(connection, "SELECT * FROM rich")) == 5, "a view changed past the proxy", 20)


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("SELECT * FROM rich FOR UPDATE", "lock"),
        ("SELECT main.rich.id + 1 FROM rich", "database"),
        ("SELECT (SELECT MAX(money) FROM rich) FROM users", "alias"),
        ("UPDATE rich SET money = 1", "configuration"),
    ],
)
def test_what_is_not_certain_is_refused(sides: tuple[ProxyUnderTest, LocalServer], sql: str, why: str) -> None:
    proxy, _ = sides
    with proxy.connect() as connection, pytest.raises(pymysql.MySQLError, match=why) as raised:
        run(connection, sql)
    assert 9100 <= raised.value.args[0] <= 9199
