"""Deadlocks over shards, through the real proxy: one transaction gets 1213, the others go on."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic
from typing import Any

import pymysql
import pytest
from typer.testing import CliRunner

from shardproxy.cli.main import app
from tests.proxy import SPLIT, ProxyUnderTest, eventually, start_proxy, transactions

ONE, OTHER = 1, SPLIT + 1  # a key of shard1, one of shard2
SOON = 30.0  # seconds, on a busy machine; the servers' own limit is 50


def run(connection: Any, *statements: str) -> Any:
    """The rows of the last statement."""
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall()


def add(uid: int, amount: int = 1) -> str:
    return f"UPDATE users SET balance = balance + {amount} WHERE uid = {uid}"


class Statement:
    """One that runs in a thread of its own. code: its error's number, 0 when it succeeded."""

    def __init__(self, connection: Any, statement: str) -> None:
        self.connection = connection
        self.code = -1
        self.seconds = 0.0
        self._statement = statement
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        begun = monotonic()
        try:
            run(self.connection, self._statement)
        except pymysql.MySQLError as error:
            self.code = error.args[0]
        else:
            self.code = 0
        self.seconds = monotonic() - begun

    @property
    def done(self) -> bool:
        return self.code >= 0

    def join(self) -> int:
        self._thread.join()
        return self.code


@pytest.fixture
def filled(proxy: ProxyUnderTest) -> ProxyUnderTest:
    """Rows on both shards."""
    fill(proxy)
    return proxy


def fill(proxy: ProxyUnderTest) -> None:
    with proxy.connect() as connection:
        for uid in range(4):
            run(connection, f"INSERT INTO users VALUES ({uid},'a',100), ({SPLIT + uid},'b',100)")


def balances(proxy: ProxyUnderTest) -> dict[int, int]:
    with proxy.connect() as connection:
        return {uid: balance for uid, balance in run(connection, "SELECT uid, balance FROM users") if balance != 100}


def waiting(proxy: ProxyUnderTest) -> int:
    """Transactions of both primaries that wait for a lock."""
    return sum(
        int(transactions(proxy.primary(shard), "COUNT(*)", "trx_state = 'LOCK WAIT'")[0][0]) for shard in (0, 1)
    )  # fmt: skip


def announced(proxy: ProxyUnderTest) -> int:
    return sum(
        int(proxy.primary(shard).rows("SELECT COUNT(*) FROM _shardproxy.lock_wait")[0][0]) for shard in (0, 1)
    )  # fmt: skip


def metric(proxy: ProxyUnderTest, name: str) -> float:
    text = proxy.get("/metrics").decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def of_worker(proxy: ProxyUnderTest, worker: int, stack: ExitStack) -> Any:
    """A connection to this worker: the proxy's connection ids name it."""
    for _ in range(100):
        connection = proxy.connect()
        if connection.thread_id() >> 24 == worker:
            return stack.enter_context(connection)
        connection.close()
    raise AssertionError(f"no connection to worker {worker}")


@pytest.mark.parametrize("workers", [(0, 0), (0, 1)], ids=["one worker", "two workers"])
def test_two_in_a_ring(filled: ProxyUnderTest, workers: tuple[int, int]) -> None:
    before = metric(filled, "shardproxy_deadlocks_total")
    with ExitStack() as stack:
        a, b = (of_worker(filled, worker, stack) for worker in workers)
        run(a, "BEGIN", add(ONE))
        run(b, "BEGIN", add(OTHER, 10))
        statements = [Statement(a, add(OTHER)), Statement(b, add(ONE, 10))]
        codes = [statement.join() for statement in statements]
        assert sorted(codes) == [0, 1213]
        assert max(statement.seconds for statement in statements) < SOON
        victim, other = (a, b) if codes[0] else (b, a)
        assert run(victim, "SHOW WARNINGS")[0][1] == 1213
        run(victim, "DO 0")
        assert victim.server_status & 1 == 0, "it is in no transaction"
        run(other, "COMMIT")
        by = 10 if codes[0] else 1
        assert balances(filled) == {ONE: 100 + by, OTHER: 100 + by}
        run(victim, "BEGIN", add(ONE, 100), add(OTHER, 100), "COMMIT")
        assert balances(filled) == {ONE: 200 + by, OTHER: 200 + by}
    eventually(lambda: metric(filled, "shardproxy_deadlocks_total") == before + 1, "it is counted")
    eventually(lambda: announced(filled) == 0, "nothing stays announced")


def test_three_in_a_ring(filled: ProxyUnderTest) -> None:
    """One of them waits in a transaction on one shard only."""
    with filled.connect() as a, filled.connect() as b, filled.connect() as c:
        run(a, "BEGIN", add(1), add(SPLIT + 1))
        run(b, "BEGIN", add(SPLIT + 2), add(2))
        run(c, "BEGIN", add(3))
        first = Statement(c, add(2))  # c waits for b on shard 1
        eventually(lambda: waiting(filled) == 1, "one waits")
        statements = [first, Statement(a, add(3)), Statement(b, add(SPLIT + 1))]
        codes = {}
        for _ in statements:
            eventually(lambda: any(s.done for s in statements if s not in codes), "one goes on", SOON)
            done = next(s for s in statements if s.done and s not in codes)
            codes[done] = done.join()
            run(done.connection, "ROLLBACK")
        assert sorted(codes.values()) == [0, 0, 1213]
        assert codes[first] == 0
        assert max(statement.seconds for statement in statements) < SOON
    assert balances(filled) == {}


def test_a_mere_wait_goes_on(filled: ProxyUnderTest) -> None:
    """Also where others wait for the one that waits, and for a while."""
    looks = metric(filled, 'shardproxy_deadlock_looks_total{result="done"}')
    with filled.connect() as a, filled.connect() as b, filled.connect() as c:
        run(a, "BEGIN", add(OTHER))
        run(b, "BEGIN", add(ONE))
        second = Statement(b, add(OTHER))
        third = Statement(c, add(ONE))
        eventually(lambda: waiting(filled) == 2, "two wait")
        eventually(lambda: announced(filled) == 1, "the one in the middle is announced")
        eventually(lambda: metric(filled, "shardproxy_deadlock_looks_total") > looks + 20, "more looks", SOON)
        assert (second.code, third.code) == (-1, -1)
        run(a, "COMMIT")
        assert second.join() == 0
        run(b, "COMMIT")
        assert third.join() == 0
    assert balances(filled) == {ONE: 102, OTHER: 102}
    eventually(lambda: announced(filled) == 0, "nothing stays announced")


def test_statements_on_all_shards(filled: ProxyUnderTest) -> None:
    """A statement outside transactions that is one over shards by itself, and a transaction that comes its way."""
    with filled.connect() as a, filled.connect() as b:
        run(a, "BEGIN", add(OTHER))
        everywhere = Statement(b, "UPDATE users SET balance = balance + 10")
        eventually(lambda: waiting(filled) == 1, "it waits on the second shard")
        back = Statement(a, add(ONE))
        assert sorted((everywhere.join(), back.join())) == [0, 1213]
        assert max(everywhere.seconds, back.seconds) < SOON
        run(a, "COMMIT")
        changed = balances(filled)
    assert changed == ({} if back.code else {ONE: 101, OTHER: 101}) | (
        {} if everywhere.code else dict.fromkeys([*range(4), *range(SPLIT, SPLIT + 4)], 110)
    )


def test_locking_reads(filled: ProxyUnderTest) -> None:
    with filled.connect() as a, filled.connect() as b:
        lock = "SELECT balance FROM users WHERE uid = %d FOR UPDATE"
        run(a, "BEGIN", lock % ONE)
        run(b, "BEGIN", lock % OTHER)
        statements = [Statement(a, lock % OTHER), Statement(b, lock % ONE)]
        assert sorted(statement.join() for statement in statements) == [0, 1213]
        assert max(statement.seconds for statement in statements) < SOON


def test_over_two_proxies(filled: ProxyUnderTest) -> None:
    second = start_proxy(filled.cluster, "second", proxy={"drain_timeout": "100ms"})
    try:
        with filled.connect() as a, second.connect() as b:
            run(a, "BEGIN", add(ONE))
            run(b, "BEGIN", add(OTHER))
            statements = [Statement(a, add(OTHER)), Statement(b, add(ONE))]
            assert sorted(statement.join() for statement in statements) == [0, 1213]
            assert max(statement.seconds for statement in statements) < SOON
    finally:
        second.process.stop()
    assert balances(filled) == {}


LEAST = {"user": "least", "password": "least"}


def grant(proxy: ProxyUnderTest, *more: str) -> None:
    """An account with what docs/operations.md says that statements, transactions and snapshots over shards need."""
    admin = "REPLICA MONITOR" if proxy.mariadb else "REPLICATION CLIENT, XA_RECOVER_ADMIN"
    rights = [f"{admin} ON *.*", "ALL ON `_shardproxy`.*", *more]
    rights += [f"SELECT, INSERT, UPDATE, DELETE ON {database}.*" for database in ("main", "hashed")]
    for shard in proxy.cluster.shards:
        shard.primary.rows("DROP USER IF EXISTS least")
        shard.primary.rows("CREATE USER least IDENTIFIED BY 'least'")
        for right in rights:
            shard.primary.rows(f"GRANT {right} TO least")
    proxy.cluster.wait_replicated()


@contextmanager
def least_proxy(proxy: ProxyUnderTest) -> Iterator[ProxyUnderTest]:
    """A proxy that logs in to the servers with that account."""
    running = start_proxy(proxy.cluster, "least", proxy={"drain_timeout": "100ms"}, backend=LEAST)
    try:
        yield running
    finally:
        running.process.stop()
        for shard in proxy.cluster.shards:
            shard.primary.rows("DROP USER least")
        proxy.cluster.wait_replicated()


def test_the_rights_that_the_docs_name_are_enough(filled: ProxyUnderTest) -> None:
    grant(filled, "PROCESS ON *.*", *([] if filled.mariadb else ["SELECT ON performance_schema.*"]))
    with least_proxy(filled) as least, least.connect() as a, least.connect() as b:
        run(a, "BEGIN", add(ONE))
        run(b, "BEGIN", add(OTHER))
        statements = [Statement(a, add(OTHER)), Statement(b, add(ONE))]
        assert sorted(statement.join() for statement in statements) == [0, 1213]
        assert max(statement.seconds for statement in statements) < SOON
        for connection in (a, b):
            run(connection, "ROLLBACK")
        run(a, "/*shardproxy: snapshot*/ SELECT SUM(balance) FROM users")
        assert metric(least, 'shardproxy_deadlock_looks_total{result="failed"}') == 0


def test_without_the_rights_it_ends_by_time_out_and_is_told(filled: ProxyUnderTest) -> None:
    grant(filled)
    with least_proxy(filled) as least:
        found = check_waits(least)
        assert len(found) == 2
        assert all("GRANT PROCESS" in fix for fix in found)
        with least.connect() as a, least.connect() as b:
            for connection, uid in ((a, ONE), (b, OTHER)):
                run(connection, "SET innodb_lock_wait_timeout=2", "BEGIN", add(uid))
            statements = [Statement(a, add(OTHER)), Statement(b, add(ONE))]
            assert 1205 in [statement.join() for statement in statements]
        eventually(
            lambda: metric(least, 'shardproxy_deadlock_looks_total{result="failed"}') > 0, "failed looks are counted"
        )


def check_waits(proxy: ProxyUnderTest) -> list[str]:
    """What `shardctl check` says is to be done about lock waits."""
    result = CliRunner().invoke(app, ["check", "--json", "--config", str(proxy.cluster.folder / "least.toml")])
    findings = json.loads(result.stdout)["findings"]
    return [finding["fix"] for finding in findings if "its lock waits cannot be read" in finding["what"]]
