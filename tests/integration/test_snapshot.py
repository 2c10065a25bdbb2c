"""Snapshots of all shards at one instant, through the real proxy: a transaction over shards is seen whole or not."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic, time
from typing import Any

import pymysql
import pytest

from shardproxy.session.xid import TransactionId
from tests.proxy import SPLIT, ProxyUnderTest, eventually

ACCOUNTS, START = 6, 1000
TOTAL = 2 * ACCOUNTS * START
SUM = "SELECT SUM(balance) FROM users"
SNAPSHOT_SUM = "/*shardproxy: snapshot*/ SELECT SUM(balance) FROM users"
BEGINS = ("START TRANSACTION WITH CONSISTENT SNAPSHOT", "/*shardproxy: snapshot*/ BEGIN")


def run(connection: Any, *statements: str) -> Any:
    """The rows of the last statement."""
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall()


def error(connection: Any, statement: str) -> tuple[int, str]:
    """Number and message of the error that the statement gives."""
    with pytest.raises(pymysql.MySQLError) as raised:
        run(connection, statement)
    number, message = raised.value.args
    return int(number), str(message)


def total(connection: Any, statement: str = SUM) -> int:
    return int(run(connection, statement)[0][0])


def transfer(a: int, b: int, amount: int) -> tuple[str, str]:
    """From an account on shard 1 to one on shard 2."""
    return (
        f"UPDATE users SET balance = balance - {amount} WHERE uid = {a}",
        f"UPDATE users SET balance = balance + {amount} WHERE uid = {SPLIT + b}",
    )


@pytest.fixture
def bank(proxy: ProxyUnderTest) -> ProxyUnderTest:
    with proxy.connect() as connection:
        for uid in range(ACCOUNTS):
            run(connection, f"INSERT INTO users VALUES ({uid},'a',{START}), ({SPLIT + uid},'b',{START})")
    return proxy


_made = 0


@contextmanager
def half_committed(proxy: ProxyUnderTest, decided: bool = True) -> Iterator[Any]:
    """A transfer by another coordinator that stopped after its first shard's commit (or, not decided, before it).

    Gives a callable that commits the branch, too.
    """
    global _made
    _made += 1
    with proxy.primary(0).connect() as first, proxy.primary(1).connect() as second:
        ident = TransactionId("00000000beef", int(time()), _made, first.thread_id(), "shard1")
        name = ident.branch(second.thread_id())
        take, give = transfer(0, 0, 100)
        run(first, "USE main", "BEGIN", take)
        run(second, "USE main", f"XA START {name}", give, f"XA END {name}", f"XA PREPARE {name}")
        if decided:
            run(first, f"INSERT INTO _shardproxy.xa_decision VALUES ('{ident.text}','commit','x','x',NOW(3))", "COMMIT")
        yield lambda: run(second, f"XA COMMIT {name}")
        with suppress(pymysql.MySQLError):  # it is committed, or recovery has ended it and the connection
            run(second, f"XA ROLLBACK {name}")
        run(first, "ROLLBACK", f"DELETE FROM _shardproxy.xa_decision WHERE xid = '{ident.text}'", "COMMIT")


class Asked:
    """A statement in a thread of its own, and what it answered."""

    def __init__(self, connection: Any, *statements: str) -> None:
        self.rows: Any = None
        self.error: pymysql.MySQLError | None = None
        self._thread = threading.Thread(target=self._run, args=(connection, statements))
        self._thread.start()

    def _run(self, connection: Any, statements: tuple[str, ...]) -> None:
        try:
            self.rows = run(connection, *statements)
        except pymysql.MySQLError as error:
            self.error = error

    @property
    def waits(self) -> bool:
        return self._thread.is_alive()

    def join(self) -> Any:
        self._thread.join()
        if self.error is not None:
            raise self.error
        return self.rows


@pytest.mark.parametrize(
    "statements", [(SNAPSHOT_SUM,), *((begin, SUM) for begin in BEGINS)], ids=["read", "with", "hint"]
)
def test_a_half_committed_transaction_is_waited_for(bank: ProxyUnderTest, statements: tuple[str, ...]) -> None:
    with bank.connect() as connection, bank.connect() as reader, half_committed(bank) as commit:
        assert total(connection) == TOTAL - 100, "without the hint it is seen in half"
        asked = Asked(reader, *statements)
        seen = monotonic()
        eventually(lambda: monotonic() > seen + 0.5 or not asked.waits, "half a second")
        assert asked.waits
        assert total(connection) == TOTAL - 100
        commit()
        assert asked.join() == ((TOTAL,),)
        run(reader, "COMMIT")


@pytest.mark.alone
def test_recovery_ends_what_is_waited_for(bank: ProxyUnderTest) -> None:
    """Commits go on meanwhile."""
    with bank.connect() as connection, bank.connect() as reader, half_committed(bank):
        asked = Asked(reader, SNAPSHOT_SUM)
        slowest = 0.0
        while asked.waits:
            begun = monotonic()
            run(connection, "BEGIN", *transfer(1, 1, 1), "COMMIT")
            slowest = max(slowest, monotonic() - begun)
        assert asked.join() == ((TOTAL,),)
        assert slowest < 2


def test_an_undecided_transaction_is_not_waited_for(bank: ProxyUnderTest) -> None:
    with bank.connect() as reader, half_committed(bank, decided=False):
        assert total(reader, SNAPSHOT_SUM) == TOTAL


def test_sums_are_constant_while_money_moves(bank: ProxyUnderTest) -> None:
    end = threading.Event()
    moved = [0] * 4

    def client(number: int) -> None:
        with bank.connect() as connection:
            for n in itertools.count(number):
                if end.is_set():
                    return
                a, b = n % ACCOUNTS, n * 5 % ACCOUNTS
                with suppress(pymysql.err.OperationalError):  # a deadlock
                    run(connection, "BEGIN", *transfer(a, b, 1 + number), "COMMIT")
                    moved[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        with bank.connect() as reader, bank.connect() as other:
            for _ in range(150):
                assert total(reader, SNAPSHOT_SUM) == TOTAL
                run(other, BEGINS[0])
                halves = [
                    run(other, f"SELECT SUM(balance) FROM users WHERE uid BETWEEN {low} AND {low + ACCOUNTS}")[0][0]
                    for low in (0, SPLIT)
                ]
                assert sum(halves) == TOTAL
                run(other, "COMMIT")
    finally:
        end.set()
        for thread in threads:
            thread.join()
    assert min(moved) > 10, "commits have their turn"


def test_the_transaction_sees_what_was_when_it_began_and_may_write(bank: ProxyUnderTest) -> None:
    with bank.connect() as reader, bank.connect() as other:
        run(reader, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ WRITE")
        run(other, "BEGIN", *transfer(1, 1, 500), "COMMIT")
        run(other, "UPDATE users SET balance = balance + 1 WHERE uid = 2")
        assert total(reader) == TOTAL
        assert run(reader, f"SELECT balance FROM users WHERE uid = {SPLIT + 1}") == ((START,),)
        assert total(reader, SNAPSHOT_SUM) == TOTAL, "here the hint says nothing new"
        run(reader, "SAVEPOINT a", *transfer(3, 3, 7), "COMMIT")
        assert total(reader) == TOTAL + 1
        assert run(reader, "SELECT uid, balance FROM users WHERE balance <> 1000 ORDER BY uid") == (
            (1, 500), (2, 1001), (3, 993), (SPLIT + 1, 1500), (SPLIT + 3, 1007),
        )  # fmt: skip
        run(reader, BEGINS[1], *transfer(3, 3, 7), "ROLLBACK")
        run(reader, "SET @amount = 5", BEGINS[1])
        for uid in (4, SPLIT + 4):
            run(reader, f"UPDATE users SET balance = balance + @amount WHERE uid = {uid}")
            assert run(reader, f"SELECT balance FROM users WHERE uid = {uid}") == ((START + 5,),)
        run(reader, "ROLLBACK")
        assert total(reader) == TOTAL + 1


def test_reads_of_all_kinds(bank: ProxyUnderTest) -> None:
    """One after the other, merged, by scratch tables, prepared, of one shard."""
    hint = "/*shardproxy: snapshot*/ "
    with bank.connect() as reader:
        assert len(run(reader, hint + "SELECT uid FROM users")) == 2 * ACCOUNTS
        assert run(reader, hint + "SELECT uid FROM users ORDER BY balance, uid LIMIT 1") == ((0,),)
        rows = run(
            reader, hint + "SELECT COUNT(*) FROM users a JOIN users b ON a.balance = b.balance AND a.uid < b.uid"
        )
        assert rows == ((ACCOUNTS * (2 * ACCOUNTS - 1),),)
        assert run(reader, hint + "SELECT uid, NOW(6) FROM users WHERE uid = 3")[0][0] == 3
        assert len({row[0] for row in run(reader, hint + "SELECT NOW(6) FROM users")}) == 1
        run(reader, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        assert total(reader, SNAPSHOT_SUM) == TOTAL
        for _ in range(40):  # connections come back
            assert total(reader, SNAPSHOT_SUM) == TOTAL
        run(reader, "INSERT INTO users VALUES (77,'x',0)")
        assert run(reader, "SELECT @@autocommit FROM users WHERE uid = 77") == ((1,),)


def test_read_only(bank: ProxyUnderTest) -> None:
    with bank.connect() as reader:
        run(reader, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        for statement in transfer(1, 1, 1):
            assert error(reader, statement)[0] == 1792
        run(reader, "COMMIT", *transfer(1, 1, 1))


def test_refused(bank: ProxyUnderTest) -> None:
    with bank.connect() as connection:
        run(connection, "BEGIN")
        assert error(connection, SNAPSHOT_SUM)[0] == 9102
        run(connection, "ROLLBACK", "SET autocommit=0")
        assert error(connection, SNAPSHOT_SUM)[0] == 9102
        run(connection, BEGINS[1])
        assert total(connection, SNAPSHOT_SUM) == TOTAL
        run(connection, "COMMIT", "SET autocommit=1", "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        assert error(connection, BEGINS[0])[0] == 9102
        run(connection, BEGINS[1], "COMMIT")
        run(connection, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        run(connection, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        assert error(connection, BEGINS[1])[0] == 9102
        for statement in (SUM + " FOR UPDATE", "UPDATE users SET balance = 0", "COMMIT"):
            assert error(connection, "/*shardproxy: snapshot*/ " + statement)[0] == 9100
        run(connection, "SELECT GET_LOCK('snapshot', 0)")
        assert error(connection, BEGINS[0])[0] == 9102


def test_a_proxy_that_stops_while_it_holds_commits(bank: ProxyUnderTest) -> None:
    """Its locks go by themselves."""
    with bank.primary(0).connect() as stopped, bank.connect() as connection:
        run(stopped, "SET wait_timeout=2", "LOCK TABLES _shardproxy.xa_decision WRITE")
        begun = monotonic()
        run(connection, "BEGIN", *transfer(1, 1, 1), "COMMIT")
        assert 0.5 < monotonic() - begun < 20
        assert total(connection, SNAPSHOT_SUM) == TOTAL
