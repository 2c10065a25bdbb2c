"""Rung 3 against real servers: what one server with all the rows answers, the proxy answers from scratch tables."""

from __future__ import annotations

import threading
from typing import Any

import pymysql
import pytest

from shardproxy.local import LocalCluster, LocalServer
from shardproxy.protocol.mysql.constants import FieldType
from tests.proxy import SPLIT, TABLES, ProxyUnderTest, create_tables, empty_tables, start_proxy
from tests.wire import RawClient, Refused

USERS = [
    (1, "ann", 10),
    (2, "Bob", 20),
    (3, "cid", 10),
    (SPLIT, "dan", 30),
    (SPLIT + 1, "Ann", 20),
    (SPLIT + 2, "eve", -5),
]
ORDERS = [(1, 1, "1.50"), (1, 2, "2.25"), (2, 1, "9.99"), (SPLIT, 1, "1.50"), (SPLIT + 2, 7, "100.00")]


class Pair:
    """The proxy over two shards, and one server with the same rows."""

    def __init__(self, proxy: ProxyUnderTest, oracle: LocalServer) -> None:
        self.proxy = proxy
        self.oracle = oracle
        self.through = proxy.connect()
        self.straight = oracle.connect(database="main")

    def both(self, statement: str, arguments: Any = None) -> None:
        """Run a write on both."""
        for connection in (self.through, self.straight):
            with connection.cursor() as cursor:
                cursor.execute(statement, arguments)
            connection.commit()

    def alike(self, statement: str, ordered: bool = False) -> list[Any]:
        """The rows, having checked that both have the same, under the same labels and types."""
        found = [self.answer(c, statement, ordered) for c in (self.through, self.straight)]
        assert found[0] == found[1], statement
        rows: list[Any] = found[0][2]
        return rows

    def answer(self, connection: Any, statement: str, ordered: bool) -> tuple[Any, ...]:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            rows = list(cursor.fetchall())
            described = [(d[0], d[1]) for d in cursor.description]
            warnings = cursor.warning_count
        return (described, warnings, rows if ordered else sorted(rows, key=repr))


@pytest.fixture
def pair(proxy: ProxyUnderTest, oracle: LocalServer) -> Any:
    create_tables(oracle)
    empty_tables(oracle)
    made = Pair(proxy, oracle)
    for user in USERS:
        made.both("INSERT INTO users VALUES (%s, %s, %s)", user)
    for order in ORDERS:
        made.both("INSERT INTO orders VALUES (%s, %s, %s)", order)
    for code, name in (("de", "Germany"), ("fr", "France")):
        made.both("INSERT INTO countries VALUES (%s, %s)", (code, name))
    made.both("INSERT INTO settings (id, name, value) VALUES (1, 'limit', '20')")
    made.both("INSERT INTO hashed.notes (id, text) VALUES (1, 'a note'), (2, 'ann')")
    for sku, price in (("a", 1), ("b", 2), ("c", 3), ("ann", 4)):
        made.both("INSERT INTO hashed.items VALUES (%s, %s)", (sku, price))
    yield made
    made.through.close()
    made.straight.close()
    assert TABLES


STATEMENTS = [
    "SELECT COUNT(*), SUM(balance), AVG(balance), MAX(name) FROM users",
    "SELECT name, ROW_NUMBER() OVER (ORDER BY balance, uid) AS n FROM users",
    "SELECT balance, GROUP_CONCAT(name ORDER BY uid) FROM users GROUP BY balance WITH ROLLUP",
    "SELECT a.name, b.name FROM users a JOIN users b ON a.balance = b.balance AND a.uid < b.uid",
    "SELECT users.name, b.name FROM users, main.users b WHERE main.users.balance = b.balance",
    "SELECT u.name, o.total FROM users u LEFT JOIN orders o ON u.balance > o.total",
    "SELECT u.name, o.total FROM users u RIGHT JOIN orders o ON u.balance > o.total "
    "LEFT JOIN countries c ON c.code = 'de'",
    "SELECT name FROM users u WHERE balance = (SELECT MAX(balance) FROM users)",
    "SELECT name FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.total > u.balance)",
    "SELECT uid FROM users UNION SELECT oid FROM orders",
    "SELECT uid FROM users WHERE uid NOT IN (SELECT uid FROM orders) UNION ALL SELECT uid FROM users",
    "WITH c AS (SELECT balance, COUNT(*) AS n FROM users GROUP BY balance) "
    "SELECT x.n, y.n FROM c x JOIN c y ON x.n = y.n",
    "WITH c AS (SELECT * FROM users), d AS (SELECT * FROM c WHERE balance > 10) SELECT COUNT(*) FROM d a, d b, c",
    "WITH RECURSIVE r AS (SELECT uid, 1 AS n FROM users UNION ALL SELECT uid, n + 1 FROM r WHERE n < 3) "
    "SELECT COUNT(*) FROM r a JOIN r b ON a.n = b.n",
    "WITH users AS (SELECT uid AS x FROM users WHERE uid > 1) SELECT * FROM users",
    "SELECT * FROM (SELECT balance, COUNT(*) FROM users GROUP BY 1) d JOIN users u ON u.balance = d.balance",
    "SELECT (SELECT COUNT(*) FROM users), (SELECT COUNT(*) FROM orders)",
    "SELECT * FROM settings, hashed.notes",
    "SELECT i.sku, u.name FROM hashed.items i JOIN users u ON u.name = i.sku",
    "SELECT DISTINCT balance FROM users",
    "SELECT name COLLATE utf8mb4_bin AS n FROM users ORDER BY n",
    "SELECT COUNT(*) FROM users u, JSON_TABLE('[1,2]', '$[*]' COLUMNS (x INT PATH '$')) j",
    "SELECT name, 'x' + 1 FROM (SELECT * FROM users WHERE uid = 1 OR balance = 77 ORDER BY name LIMIT 1) d",
    "SELECT COUNT(DISTINCT name), COUNT(DISTINCT balance) FROM users WHERE uid IN (1, 1000, 1001)",
    "SELECT c.name, COUNT(*) FROM countries c, users GROUP BY c.name",
    "SELECT COUNT(*) FROM users WHERE uid = 1 OR balance = 20",
    "SELECT DATABASE(), COUNT(*) FROM users",
    "SELECT STDDEV(balance), VARIANCE(balance), BIT_XOR(uid) FROM users",
    "SELECT * FROM users NATURAL JOIN orders WHERE users.uid > 0 ORDER BY total, oid",
    "SELECT * FROM ((SELECT uid FROM users) UNION (SELECT uid FROM orders)) d",
]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_equals_one_server(pair: Pair, statement: str) -> None:
    pair.alike(statement, ordered="ORDER BY" in statement)


LABELS = [
    "SELECT (SELECT COUNT(*) FROM users),\n (select\n count(*)   from users where name<>'`x''y') , "
    "(SELECT MAX(uid) FROM users) z, (SELECT MAX(uid) FROM users) + 1",
    "SELECT * FROM (SELECT (SELECT COUNT(*) FROM users u), (SELECT COUNT(*)\tFROM users u where uid > 0)) d",
    "SELECT CASE WHEN EXISTS (SELECT 1 FROM users u) THEN 'é' ELSE 2 END, 1+\n2, users . uid FROM users",
    "WITH c AS (SELECT uid, 1  + 1 FROM users) SELECT a.*, b.*, (SELECT COUNT(*)  FROM c) FROM c a, c b",
    "SELECT (WITH c AS (SELECT balance FROM users) SELECT COUNT(*) FROM c x, c y), (SELECT 1 FROM users LIMIT 1)",
    f"SELECT (SELECT 1 FROM users LIMIT 1), (SELECT COUNT(*) FROM users WHERE name <> '{'x' * 300}')",
]


@pytest.mark.parametrize("statement", LABELS)
def test_labels_are_the_clients_own_text(pair: Pair, statement: str) -> None:
    pair.alike(statement)


def test_prepared_over_tables_that_no_shard_has_all_of(pair: Pair, proxy: ProxyUnderTest, oracle: LocalServer) -> None:
    sql = (
        "WITH s AS (SELECT name, ? AS x FROM settings WHERE id > ?) SELECT a.name, a.x, b.x AS y, n.text, ? AS z "
        "FROM s a, s b, hashed.notes n WHERE n.id < ?"
    )
    parameters = [(FieldType.LONGLONG, False, value) for value in (7, 0, 8, 3)]
    with (
        RawClient(proxy.port) as through,
        RawClient(oracle.port, oracle.admin_user, oracle.admin_password) as straight,
    ):
        found = []
        for client in (through, straight):
            client.query("USE main")
            statement = client.prepare(sql)
            assert len(statement.parameters) == 4
            found.append(sorted(client.execute(statement, parameters).rows))
        assert found[0] == found[1] == [[b"limit", 7, 7, b"a note", 8], [b"limit", 7, 7, b"ann", 8]]
        for client in (through, straight):
            with pytest.raises(Refused) as refused:
                client.prepare("SELECT nothere FROM settings, hashed.notes")
            assert refused.value.code == 1054


def test_errors_are_the_servers_own(pair: Pair) -> None:
    for statement in ("SELECT COUNT(nothere) FROM users", "SELECT COUNT(*) FROM users GROUP BY"):
        codes = []
        for connection in (pair.through, pair.straight):
            with connection.cursor() as cursor, pytest.raises(pymysql.MySQLError) as caught:
                cursor.execute(statement)
            codes.append(caught.value.args[0])
        assert codes[0] == codes[1]


def test_many_at_once_do_not_wait_for_each_other(cluster: LocalCluster) -> None:
    """Each needs one connection a shard and one for its tables: out of one small pool they would never all get them."""
    running = start_proxy(cluster, "small", proxy={"workers": 1}, backend={"pool_size": 4, "pool_wait": "10s"})
    answers: list[int] = []

    def ask() -> None:
        with running.connect() as connection, connection.cursor() as cursor:
            for _ in range(5):
                cursor.execute("SELECT COUNT(*) FROM users a JOIN users b ON a.balance = b.balance")
                answers.append(cursor.fetchone()[0])

    try:
        with running.connect() as connection, connection.cursor() as cursor:
            cursor.execute("DELETE FROM users")
            cursor.execute("INSERT INTO users VALUES (1, 'a', 1), (2, 'b', 2), (1001, 'c', 1)")
        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        running.process.stop()
    assert answers == [5] * 60


COUNT = "SELECT COUNT(DISTINCT a.uid) FROM users a JOIN users b ON a.balance = b.balance AND a.uid <> b.uid"
WINDOW = "SELECT ROW_NUMBER() OVER (ORDER BY balance) FROM users"


def test_a_transaction_sees_its_own_rows_and_others_do_not(pair: Pair) -> None:
    before = pair.alike(COUNT)
    with pair.through.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(f"INSERT INTO users VALUES (90, 'new', 777), ({SPLIT + 90}, 'new', 777)")
        cursor.execute(COUNT)
        assert cursor.fetchall() == ((before[0][0] + 2,),)
        with pair.proxy.connect() as other, other.cursor() as outside:
            outside.execute(COUNT)
            assert list(outside.fetchall()) == before
        cursor.execute("ROLLBACK")
    assert pair.alike(COUNT) == before


def test_bounds_name_the_table_and_leave_nothing(cluster: LocalCluster) -> None:
    running = start_proxy(cluster, "scratch_bounds", proxy={"workers": 1}, scratch={"max_rows": 5, "max_bytes": "1KiB"})
    try:
        with running.connect() as connection, connection.cursor() as cursor:
            cursor.execute("DELETE FROM users")
            for uid in (1, 2, 3, SPLIT, SPLIT + 1):
                cursor.execute("INSERT INTO users VALUES (%s, 'x', 1)", (uid,))
            cursor.execute(WINDOW)
            assert len(cursor.fetchall()) == 5
            cursor.execute("INSERT INTO users VALUES (4, 'x', 1)")
            with pytest.raises(
                pymysql.MySQLError, match=r"more than 5 rows .* main\.users .*scratch\.max_rows"
            ) as caught:
                cursor.execute(WINDOW)
            assert caught.value.args[0] == 9110
            cursor.execute("DELETE FROM users WHERE uid > 2")
            cursor.execute("UPDATE users SET name = REPEAT('x', 50)")
            cursor.execute(COUNT)
            assert cursor.fetchall() == ((2,),)
            cursor.execute("SELECT 1")
    finally:
        running.process.stop()


def test_the_workers_bound_is_charged_as_long_as_rows_are_held(cluster: LocalCluster) -> None:
    bounds = {"max_bytes": "1KiB", "max_worker_bytes": "1KiB"}
    running = start_proxy(cluster, "scratch_worker", proxy={"workers": 1}, scratch=bounds)
    try:
        with running.connect() as connection, connection.cursor() as cursor:
            cursor.execute("DELETE FROM users")
            for uid in (1, SPLIT):
                cursor.execute("INSERT INTO users VALUES (%s, REPEAT('x', 90), 1)", (uid,))
            for _ in range(20):
                cursor.execute(WINDOW)
                assert len(cursor.fetchall()) == 2
            for uid in range(2, 20):
                cursor.execute("INSERT INTO users VALUES (%s, REPEAT('x', 90), 1)", (uid,))
            with pytest.raises(pymysql.MySQLError, match=r"scratch\.max_worker_bytes"):
                cursor.execute(WINDOW)
    finally:
        running.process.stop()
