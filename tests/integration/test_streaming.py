"""Answers and statements larger than memory should hold: whole, in order, and in bounded memory at both ends' pace."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from zlib import crc32

import pymysql
import pytest

from shardproxy.local import LocalCluster
from shardproxy.protocol.mysql.packets import parse_ok, read_lenenc_int
from shardproxy.protocol.mysql.text import parse_text_row
from tests.proxy import SPLIT, ProxyUnderTest, eventually, start_proxy
from tests.wire import RawClient, Refused

FULL = 0xFFFFFF  # bytes of a full packet
MIB = 1 << 20
ROWS = 200  # rows of `users` on one shard in the tests with large results
WIDE = 1_000_000  # bytes that each of them is made to fill


@pytest.fixture(params=[True, False], ids=["deprecate_eof", "eof"])
def client(proxy: ProxyUnderTest, request: pytest.FixtureRequest) -> Iterator[RawClient]:
    """A raw client of each of the two ways to tell the end of rows."""
    with RawClient(proxy.port, deprecate_eof=request.param) as made:
        yield made


def fill_users(proxy: ProxyUnderTest, rows: int = ROWS) -> None:
    """So many rows of `users` on each shard, behind the proxy's back."""
    for shard, start in enumerate((0, SPLIT)):
        with proxy.primary(shard).connect("main") as connection, connection.cursor() as cursor:
            cursor.executemany("INSERT INTO users (uid, name) VALUES (%s, 'n')", [(start + i,) for i in range(rows)])


def running(proxy: ProxyUnderTest, marker: str) -> list[int]:
    """Server threads, over all primaries, that run a statement with this comment in it."""
    found = []
    for shard in proxy.cluster.shards:
        listed = shard.primary.rows("SELECT ID, INFO FROM information_schema.PROCESSLIST WHERE COMMAND <> 'Sleep'")
        found += [ident for ident, info in listed if info and f"/*{marker}*/" in str(info)]
    return found


def resident(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# ── large packets ──


def test_rows_around_the_size_of_a_full_packet(proxy: ProxyUnderTest, client: RawClient) -> None:
    proxy.primary(0).rows("INSERT INTO main.users (uid, name) VALUES (1, 'a')")
    for payload in (FULL - 1, FULL, FULL + 1, 17 * MIB):
        size = payload - (4 if payload - 4 < 1 << 24 else 9)  # without the length before the value
        [[value]] = client.rows(f"SELECT LEFT(REPEAT('abcd', {size // 4 + 1}), {size}) FROM users WHERE uid = 1")
        assert value == (b"abcd" * (size // 4 + 1))[:size]
        assert client.rows("SELECT 1") == [[b"1"]]


def test_statements_around_the_size_of_a_full_packet(proxy: ProxyUnderTest, client: RawClient) -> None:
    proxy.primary(0).rows("INSERT INTO main.users (uid, name) VALUES (7, 'a')")
    head, tail = b"SELECT uid, CRC32('", b"') FROM users WHERE uid = 7"
    for payload in (FULL - 1, FULL, 17 * MIB):
        text = b"x" * (payload - 1 - len(head) - len(tail) - 3) + b"end"
        assert client.rows(head + text + tail) == [[b"7", b"%d" % crc32(text)]]
    assert client.query(b"INSERT INTO bodies VALUES (7, '" + text + b"')").ok.affected == 1
    assert client.rows("SELECT body FROM bodies WHERE uid = 7") == [[text]]


def test_large_rows_of_several_shards(proxy: ProxyUnderTest, client: RawClient) -> None:
    bodies = {uid: bytes((97 + uid % 26,)) * size for uid, size in ((1, FULL - 4), (2, 5), (1001, 17 * MIB), (1002, 3))}
    for uid, body in bodies.items():
        insert = "INSERT INTO main.bodies VALUES (%s, REPEAT(%s, %s))"
        proxy.primary(int(uid >= SPLIT)).rows(insert, (uid, body[:1], len(body)))
    result = client.query("SELECT uid, body FROM bodies")
    assert {int(uid): body for uid, body in result.rows} == bodies  # type: ignore[arg-type]
    assert client.rows("SELECT uid FROM bodies WHERE uid = 2") == [[b"2"]]


def test_both_ways_to_end_rows_give_the_same_rows(proxy: ProxyUnderTest) -> None:
    fill_users(proxy)
    statements = ("SELECT * FROM users WHERE uid = 3", "SELECT * FROM users", "SELECT * FROM users WHERE uid < 0",
                  "SELECT uid FROM users WHERE uid BETWEEN 990 AND 1010", "SHOW TABLES",
                  "SELECT 1, NULL, ''")  # fmt: skip
    with RawClient(proxy.port, deprecate_eof=True) as new, RawClient(proxy.port, deprecate_eof=False) as old:
        for statement in statements:
            ours, theirs = new.query(statement), old.query(statement)
            assert sorted(map(repr, ours.rows)) == sorted(map(repr, theirs.rows)), statement
            assert [c.name for c in ours.columns] == [c.name for c in theirs.columns], statement
            assert ours.status == theirs.status, statement
        ours, theirs = (
            each.execute(each.prepare("SELECT uid, name FROM users WHERE uid > ?"), [(8, False, 5)])
            for each in (new, old)
        )
        assert sorted(map(repr, ours.rows)) == sorted(map(repr, theirs.rows))
        assert len(ours.rows) == 2 * ROWS - 6


def test_a_statement_over_the_limit_is_refused_before_it_is_held(proxy: ProxyUnderTest) -> None:
    """proxy.max_packet is 64 MiB: the header that goes past it ends the connection, not the memory."""
    with RawClient(proxy.port) as client:
        part = bytes(1 << 20)
        for seq in range(3):
            client.write(b"\xff\xff\xff" + bytes((seq,)) + (b"\x03" if seq == 0 else b" "))
            for _ in range(15):
                client.write(part)
            client.write(bytes(FULL - 1 - 15 * len(part)))
        client.write(b"\xff\xff\xff\x03")
        client.reader.next_seq = 4
        with pytest.raises(Refused) as refused:
            client.result()
        assert refused.value.code == 1153
        client.expect_closed()
    with RawClient(proxy.port) as other:
        assert other.rows("SELECT 1") == [[b"1"]]


# ── a client that reads slowly ──


@pytest.mark.parametrize("scattered", [False, True], ids=["one shard", "scatter"])
def test_a_slow_client_is_waited_for_in_bounded_memory(proxy: ProxyUnderTest, scattered: bool) -> None:
    """200 MB are due, and the client reads nothing for a while, then everything."""
    rows = ROWS // (1 + scattered)
    fill_users(proxy, rows)
    marker = f"slow{scattered}"
    where = "" if scattered else f" WHERE uid < {SPLIT}"
    with RawClient(proxy.port) as client:
        client.query("SELECT uid FROM users WHERE uid = 1")
        before = {pid: resident(pid) for pid in proxy.worker_pids()}
        client.send(f"\x03SELECT /*{marker}*/ uid, REPEAT(CHAR(65 + uid % 26), {WIDE}) FROM users{where}".encode())
        eventually(lambda: len(running(proxy, marker)) == 1 + scattered, "the servers are at it")
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            grown = {pid: resident(pid) - size for pid, size in before.items()}
            assert max(grown.values()) <= 40 * MIB, grown
            time.sleep(0.02)
        assert len(running(proxy, marker)) == 1 + scattered, "the servers wait for the client"
        seen = []
        columns, _ = read_lenenc_int(client.receive(), 0)
        for _ in range(columns):
            client.receive()
        while (payload := client.receive())[:1] != b"\xfe":
            uid, filled = parse_text_row(payload, 2)
            assert uid is not None
            assert filled == bytes((65 + int(uid) % 26,)) * WIDE
            seen.append(int(uid))
            if len(seen) % 50 == 0:
                grown = {pid: resident(pid) - size for pid, size in before.items()}
                assert max(grown.values()) <= 40 * MIB, grown
        assert parse_ok(payload, session_track=False).status & 2
        expected = [*range(rows), *(range(SPLIT, SPLIT + rows) if scattered else ())]
        assert sorted(seen) == expected
        assert client.rows("SELECT name FROM users WHERE uid = 1") == [[b"n"]]
    eventually(lambda: proxy.busy() == 0, "all connections are back")


def test_commands_of_a_client_that_reads_no_answers_are_not_piled_up(proxy: ProxyUnderTest) -> None:
    """A client that sends and never reads is not read from either: its own send buffer fills, not our memory."""
    before = {pid: resident(pid) for pid in proxy.worker_pids()}
    with RawClient(proxy.port) as client:
        client.socket.setblocking(False)
        ping = b"\x01\x00\x00\x00\x0e" * 10_000
        sent = 0
        last = time.monotonic()
        while time.monotonic() - last < 0.5 and sent < 400 * MIB:
            try:
                sent += client.socket.send(ping)
                last = time.monotonic()
            except BlockingIOError:
                time.sleep(0.01)
        grown = {pid: resident(pid) - size for pid, size in before.items()}
        assert sent < 400 * MIB, "the proxy took everything"
        assert max(grown.values()) <= 40 * MIB, grown
    with RawClient(proxy.port) as other:
        assert other.rows("SELECT 1") == [[b"1"]]


# ── a client that goes away ──


@contextmanager
def locked(proxy: ProxyUnderTest, table: str) -> Iterator[None]:
    """Nobody else reads or writes the table meanwhile, on both shards."""
    with proxy.primary(0).connect("main") as one, proxy.primary(1).connect("main") as two:
        for connection in (one, two):
            connection.cursor().execute(f"LOCK TABLES {table} WRITE")
        yield


@pytest.mark.parametrize(("statement", "lock"), [
    (f"SELECT /*gone*/ uid, REPEAT('x', {WIDE}) FROM users WHERE uid < {SPLIT}", ""),
    (f"SELECT /*gone*/ uid, REPEAT('x', {WIDE}) FROM users", ""),
    ("SELECT /*gone*/ SLEEP(60) FROM users WHERE uid = 1", ""),
    ("SELECT /*gone*/ * FROM users WHERE uid IN (1, 1001)", "users"),
    ("UPDATE /*gone*/ users SET balance = balance + SLEEP(60) WHERE uid = 1", ""),
    ("UPDATE /*gone*/ countries SET name = 'y'", "countries"),
], ids=["result", "scattered result", "select", "scattered select", "update", "reference update"])  # fmt: skip
def test_a_client_gone_in_the_middle_leaves_nothing_running(proxy: ProxyUnderTest, statement: str, lock: str) -> None:
    fill_users(proxy)
    before = proxy.clients()
    with locked(proxy, lock) if lock else nullcontext():
        client = RawClient(proxy.port)
        client.send(b"\x03" + statement.encode())
        eventually(lambda: bool(running(proxy, "gone")), "the statement runs")
        client.close()
        eventually(lambda: not running(proxy, "gone"), "the statement is ended on the server")
    eventually(lambda: proxy.busy() == 0 and proxy.clients() == before, "all connections are back")
    with RawClient(proxy.port) as other:
        for uid in (1, 1001):
            assert other.rows(f"SELECT balance FROM users WHERE uid = {uid}") == [[b"0"]]
        assert other.query("UPDATE users SET balance = 1 WHERE uid = 1").ok.affected == 1


def test_kill_query_reaches_every_shard_of_a_scatter(proxy: ProxyUnderTest) -> None:
    fill_users(proxy)
    with RawClient(proxy.port) as client, RawClient(proxy.port) as killer:
        [[ident]] = client.rows("SELECT CONNECTION_ID()")
        with locked(proxy, "users"):
            client.send(b"\x03SELECT /*killed*/ uid FROM users WHERE uid IN (1, 1001)")
            eventually(lambda: len(running(proxy, "killed")) == 2, "both shards are at it")
            killer.query(f"KILL QUERY {int(ident)}")  # type: ignore[arg-type]
            with pytest.raises(Refused) as refused:
                client.result()
            assert refused.value.code == 1317
            eventually(lambda: not running(proxy, "killed"), "both shards have stopped")
        assert client.rows("SELECT uid FROM users WHERE uid = 1001") == [[b"1001"]]
    eventually(lambda: proxy.busy() == 0, "all connections are back")


# ── the pool's limit ──


@contextmanager
def small_pool(cluster: LocalCluster, **backend: str | int) -> Iterator[ProxyUnderTest]:
    """A proxy of one worker with one connection a server."""
    settings: dict[str, str | int] = {"pool_size": 1, **backend}
    made = start_proxy(cluster, "small-pool", proxy={"workers": 1, "drain_timeout": "100ms"}, backend=settings)
    try:
        made.empty()
        yield made
    finally:
        made.process.stop()


def test_no_more_shards_work_at_once_than_the_limit(cluster: LocalCluster, proxy: ProxyUnderTest) -> None:
    fill_users(proxy, 3)
    limited = start_proxy(cluster, "limited", backend={"scatter_limit": 1})
    tables = [proxy.primary(shard).connect("main") for shard in (0, 1)]
    try:
        for table in tables:
            table.cursor().execute("LOCK TABLES users WRITE")
        with limited.connect() as client, ThreadPoolExecutor(1) as pool:

            def ask() -> int:
                with client.cursor() as cursor:
                    return int(cursor.execute("SELECT * FROM users /*limited*/"))

            answer = pool.submit(ask)
            eventually(lambda: len(running(proxy, "limited")) > 0, "the first shard is asked")
            assert len(running(proxy, "limited")) == 1
            tables[0].cursor().execute("UNLOCK TABLES")
            eventually(lambda: len(running(proxy, "limited")) == 1, "the second shard is asked")
            assert not answer.done()
            tables[1].cursor().execute("UNLOCK TABLES")
            assert answer.result(30) == 6
    finally:
        for table in tables:
            table.close()
        limited.process.stop()


def test_the_wait_for_a_pool_has_an_end_and_its_error_names_the_pool(mariadb_cluster: LocalCluster) -> None:
    with (
        small_pool(mariadb_cluster, pool_wait="200ms") as proxy,
        RawClient(proxy.port) as one,
        RawClient(proxy.port) as two,
    ):
        name = next(s["name"] for s in proxy.status()["servers"] if s["shard"] == "shard1" and s["role"] == "primary")
        one.query("BEGIN")
        one.query("INSERT INTO users (uid, name) VALUES (1, 'a')")
        started = time.monotonic()
        with pytest.raises(Refused) as refused:
            two.query("SELECT name FROM users WHERE uid = 2")
        assert 0.15 < time.monotonic() - started < 5
        assert refused.value.code == 9111
        assert f"pool of {name}" in str(refused.value)
        assert two.rows("SELECT name FROM users WHERE uid = 1001") == [], "the other shard's pool is free"
        with pytest.raises(Refused) as scattered:
            two.query("SELECT name FROM users")
        assert scattered.value.code == 9111
        one.query("COMMIT")
        assert two.rows("SELECT name FROM users WHERE uid = 1") == [[b"a"]]
        assert two.rows("SELECT name FROM users") == [[b"a"]]
        [server] = [s for s in proxy.status()["servers"] if s["name"] == name]
        assert server["pool"]["timeouts"] == 2
        assert proxy.metric("shardproxy_errors_total", code="9111") == 2


def test_waiters_are_served_in_turn(mariadb_cluster: LocalCluster) -> None:
    """Eight clients share one connection a server, in transactions and point reads, and all get on."""
    with small_pool(mariadb_cluster, pool_wait="20s") as proxy:

        def work(number: int) -> int:
            done = 0
            with proxy.connect(autocommit=False) as connection, connection.cursor() as cursor:
                for i in range(10):
                    cursor.execute("INSERT INTO users (uid, name) VALUES (%s, 'w')", (number * 10 + i,))
                    connection.commit()
                    cursor.execute("SELECT name FROM users WHERE uid = %s", (number * 10 + i,))
                    done += cursor.fetchall() == (("w",),)
                    connection.rollback()
                connection.autocommit(True)
                for i in range(10):
                    cursor.execute("SELECT name FROM users WHERE uid = %s", (number * 10 + i,))
                    done += cursor.fetchall() == (("w",),)
                    cursor.execute("UPDATE users SET balance = 1 WHERE uid = %s", (number * 10 + i,))
            return done

        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(work, range(8))) == [20] * 8


def test_a_client_gone_while_it_waits_takes_no_connection(mariadb_cluster: LocalCluster) -> None:
    with small_pool(mariadb_cluster, pool_wait="20s") as proxy, RawClient(proxy.port) as one:
        one.query("BEGIN")
        one.query("SELECT * FROM users WHERE uid = 1 FOR UPDATE")
        gone = RawClient(proxy.port)
        gone.send(b"\x03UPDATE users SET balance = 5 WHERE uid = 1")
        eventually(lambda: any(s["pool"]["waits"] for s in proxy.status()["servers"]), "it waits")
        gone.close()
        eventually(lambda: proxy.clients() == 1, "it is gone")
        one.query("ROLLBACK")
        with proxy.connect() as after, after.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM users WHERE uid = 1")
            assert cursor.fetchall() == ((0,),)


def test_pymysql_reads_a_large_result_unbuffered(proxy: ProxyUnderTest) -> None:
    fill_users(proxy)
    with proxy.connect(cursorclass=pymysql.cursors.SSCursor) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT uid, REPEAT('y', {WIDE // 10}) FROM users")
        assert sum(len(body) for _, body in cursor.fetchall_unbuffered()) == 2 * ROWS * (WIDE // 10)
