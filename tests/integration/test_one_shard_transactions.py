"""Transactions that stay on one shard, savepoints, autocommit; a server does all of it."""

from __future__ import annotations

from shardproxy.protocol.mysql.constants import Com
from tests.proxy import SPLIT, ProxyUnderTest, eventually
from tests.wire import RawClient, Refused, code_of

FAR = SPLIT + 1  # a key on the second shard


def test_begin_before_any_shard_is_known(client: RawClient, other: RawClient) -> None:
    assert client.query("BEGIN").status & 1
    assert client.command(Com.PING).status & 1
    assert client.rows("SELECT 1") == [[b"1"]]
    client.query("COMMIT")
    assert not client.command(Com.PING).status & 1
    client.query("START TRANSACTION")
    client.query(f"INSERT INTO users VALUES ({FAR}, 'a', 1)")
    assert other.rows(f"SELECT * FROM users WHERE uid = {FAR}") == []
    assert client.rows("SELECT name FROM users WHERE uid = 1001") == [[b"a"]]
    result = client.query("COMMIT")
    assert not result.status & 1
    assert other.rows(f"SELECT name FROM users WHERE uid = {FAR}") == [[b"a"]]


def test_a_second_shard_joins(client: RawClient, other: RawClient) -> None:
    client.query("BEGIN")
    client.query("INSERT INTO users VALUES (1, 'a', 1)")
    for sql in (f"INSERT INTO users VALUES ({FAR}, 'b', 1)", "INSERT INTO countries VALUES ('de', 'x')",
                "INSERT INTO settings (name) VALUES ('x')"):  # fmt: skip
        assert client.query(sql).status & 1, sql
    assert len(client.query("SELECT * FROM users").rows) == 2
    assert other.rows("SELECT uid FROM users") == other.rows("SELECT code FROM countries") == []
    assert not client.query("COMMIT").status & 1
    assert len(other.rows("SELECT uid FROM users")) == 2
    assert other.rows("SELECT code FROM countries") == [[b"de"]]


def test_savepoints(client: RawClient, other: RawClient) -> None:
    client.query("BEGIN")
    client.query("SAVEPOINT a")
    client.query("ROLLBACK TO a")
    client.query("RELEASE SAVEPOINT A")
    assert code_of(client, "ROLLBACK TO SAVEPOINT a") == 1305
    client.query("SAVEPOINT one")
    client.query("INSERT INTO users VALUES (1, 'a', 1)")
    client.query("SAVEPOINT two")
    client.query("INSERT INTO users VALUES (2, 'b', 1)")
    client.query("ROLLBACK TO two")
    assert client.rows("SELECT uid FROM users WHERE uid IN (1, 2)") == [[b"1"]]
    client.query("ROLLBACK TO one")
    assert client.rows("SELECT uid FROM users WHERE uid IN (1, 2)") == []
    assert code_of(client, "RELEASE SAVEPOINT two") == 1305
    client.query("INSERT INTO users VALUES (3, 'c', 1)")
    client.query("COMMIT")
    assert other.rows("SELECT uid FROM users") == [[b"3"]]
    client.query("SAVEPOINT outside")
    assert code_of(client, "ROLLBACK TO outside") == 1305


def test_without_autocommit(client: RawClient, other: RawClient) -> None:
    assert not client.query("SET autocommit = 0").status & 2
    client.query("INSERT INTO users VALUES (1, 'a', 1)")
    assert other.rows("SELECT uid FROM users") == []
    client.query("ROLLBACK")
    assert client.rows("SELECT uid FROM users WHERE uid = 1") == []
    client.query("COMMIT")
    client.query(f"INSERT INTO users VALUES ({FAR}, 'a', 1)")
    client.query("SET autocommit = 1")  # commits
    assert other.rows("SELECT uid FROM users") == [[b"1001"]]
    client.query("INSERT INTO users VALUES (2, 'b', 1)")
    assert len(other.rows("SELECT uid FROM users")) == 2


def test_autocommit_on_ends_a_transaction_that_no_shard_knows_of_yet(client: RawClient, other: RawClient) -> None:
    client.query("SET autocommit = 0")
    client.query("BEGIN")
    client.query("SET autocommit = 1")
    assert not client.command(Com.PING).status & 1
    client.query("INSERT INTO users VALUES (1, 'a', 1)")
    assert other.rows("SELECT uid FROM users") == [[b"1"]]


def test_a_failed_first_statement(narrow: ProxyUnderTest) -> None:
    """An ERR says nothing about the transaction that it may have opened; nobody else may get that."""
    narrow.primary(0).rows("INSERT INTO main.users VALUES (1, 'a', 1)")
    with RawClient(narrow.port) as client, RawClient(narrow.port) as other:
        for session in client, other:
            session.query("SET autocommit = 0")
        assert code_of(client, "SELECT nonsense FROM users WHERE uid = 1") == 1054
        client.query("ROLLBACK")  # MariaDB has begun a transaction, MySQL has not
        assert other.rows("SELECT balance FROM users WHERE uid = 1") == [[b"1"]]
        other.query("COMMIT")
        assert code_of(client, "INSERT INTO users VALUES (1, 'b', 1)") == 1062
        assert client.command(Com.PING).status & 1  # as with one server, its row lock stays
        client.query("ROLLBACK")
        narrow.primary(0).rows("UPDATE main.users SET balance = 2 WHERE uid = 1")
        assert other.rows("SELECT balance FROM users WHERE uid = 1") == [[b"2"]]
        other.query("COMMIT")
        assert code_of(client, "INSERT INTO users VALUES (1, 'b', 1)") == 1062
        client.close()
        narrow.primary(0).rows("UPDATE main.users SET balance = 3 WHERE uid = 1")
        assert other.rows("SELECT balance FROM users WHERE uid = 1") == [[b"3"]]


def test_next_transaction_only(narrow: ProxyUnderTest) -> None:
    with RawClient(narrow.port) as client, RawClient(narrow.port) as other:
        client.query("INSERT INTO users VALUES (1, 'a', 1)")
        client.query("SET TRANSACTION READ ONLY")
        client.query("BEGIN")
        assert client.rows("SELECT name FROM users WHERE uid = 1") == [[b"a"]]
        assert code_of(client, "UPDATE users SET name = 'b' WHERE uid = 1") == 1792
        client.query("COMMIT")
        client.query("UPDATE users SET name = 'c' WHERE uid = 1")
        client.query("SET TRANSACTION READ ONLY")
        other.query("UPDATE users SET name = 'd' WHERE uid = 1")
        assert code_of(client, "UPDATE users SET name = 'e' WHERE uid = 1") == 1792
        client.query("UPDATE users SET name = 'f' WHERE uid = 1")
        client.query("SET TRANSACTION READ ONLY")
        client.close()
        other.query("UPDATE users SET name = 'g' WHERE uid = 1")
        client = RawClient(narrow.port)
        assert code_of(client, "SET TRANSACTION NONSENSE") == 1064
        client.query("UPDATE users SET name = 'h' WHERE uid = 1")
        client.query("BEGIN")
        assert code_of(client, "SET TRANSACTION READ ONLY") == 1568
        client.close()


def test_ddl_commits(client: RawClient, other: RawClient) -> None:
    client.query("BEGIN")
    client.query("INSERT INTO users VALUES (1, 'a', 1)")
    client.query("ALTER TABLE users COMMENT = 'x'")
    assert not client.command(Com.PING).status & 1
    assert other.rows("SELECT uid FROM users") == [[b"1"]]
    client.query("ROLLBACK")
    assert other.rows("SELECT uid FROM users") == [[b"1"]]
    client.query(f"INSERT INTO users VALUES ({FAR}, 'b', 1)")
    assert len(other.rows("SELECT uid FROM users")) == 2


def test_begin_commits_what_is_open(client: RawClient, other: RawClient) -> None:
    client.query("BEGIN")
    client.query("INSERT INTO users VALUES (1, 'a', 1)")
    client.query("BEGIN")
    assert other.rows("SELECT uid FROM users") == [[b"1"]]
    client.query(f"INSERT INTO users VALUES ({FAR}, 'b', 1)")
    client.query("ROLLBACK")
    assert other.rows("SELECT uid FROM users") == [[b"1"]]


def test_a_deadlock_leaves_a_usable_session(proxy: ProxyUnderTest, client: RawClient, other: RawClient) -> None:
    for uid in (1, 2):
        client.query(f"INSERT INTO users VALUES ({uid}, 'a', 1)")
    for session, uid in ((client, 1), (other, 2)):
        session.query("BEGIN")
        session.query(f"UPDATE users SET balance = 10 WHERE uid = {uid}")
    client.send(bytes((Com.QUERY,)) + b"UPDATE users SET balance = 20 WHERE uid = 2")
    other.send(bytes((Com.QUERY,)) + b"UPDATE users SET balance = 20 WHERE uid = 1")
    outcomes = {}
    for session in (client, other):
        try:
            session.result()
        except Refused as refused:
            outcomes[refused.code] = session
        else:
            outcomes[0] = session
    winner, loser = outcomes[0], outcomes[1213]
    winner.query("COMMIT")
    # The server has rolled back: nothing of the transaction is left, so any shard may come next.
    assert not loser.command(Com.PING).status & 1
    loser.query(f"INSERT INTO users VALUES ({FAR}, 'b', 1)")
    loser.query("BEGIN")
    loser.query("UPDATE users SET balance = 30 WHERE uid = 1")
    loser.query("COMMIT")
    assert proxy.primary(0).rows("SELECT balance FROM main.users ORDER BY uid") in ([(30,), (20,)], [(30,), (10,)])
    eventually(lambda: proxy.busy() == 0, "no connection is held any more")


def test_describing_a_table_does_not_lock_it(client: RawClient, other: RawClient) -> None:
    """Without autocommit MySQL 9 keeps a lock on the name of a table that is not there, and reports no transaction."""
    client.query("SET autocommit = 0")
    for sql in ("DESCRIBE users", "SHOW COLUMNS FROM users", "SHOW CREATE TABLE users", "SHOW INDEX FROM users"):
        client.query(sql)
    client.prepare("SELECT * FROM users WHERE uid = ?")
    client.query("COMMIT")
    assert code_of(client, "DESCRIBE people") == 1146
    other.query("SET lock_wait_timeout = 3")
    other.query("ALTER TABLE users COMMENT = 'y'")
    other.query("CREATE TABLE people (id BIGINT NOT NULL PRIMARY KEY, name VARCHAR(50))")
    other.query("DROP TABLE people")
