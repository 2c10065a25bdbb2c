"""Kept answers of queries: the bytes that a server would have sent, for clients alike, until a table is written."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple
from functools import partial
from typing import Any

import pytest

from shardproxy.local import LocalCluster
from shardproxy.local.flavors import FlavorName
from shardproxy.protocol.mysql.constants import FieldType
from shardproxy.protocol.mysql.values import Time
from tests.cache.test_rows import KEYSPACES, TABLES, cluster_with
from tests.proxy import eventually
from tests.redis.proxied import RedisProxy, redis_proxy
from tests.wire import Prepared, RawClient, Refused, Result

TWO_KEYSPACES = f"""{KEYSPACES}
[keyspaces.other]
key_type = "int"
map = "hash"
ring = {{ shard1 = 1 }}
tables = {{ users = {{ key = "uid" }} }}
[users.narrow]
password = "narrow"
keyspaces = ["other"]
"""
QUERIES = """
[cache]
bound = "1s"
hold_off = "300ms"
lease = "2s"
[cache.queries]
tables = ["main.users", "main.orders", "main.kinds"]
biggest = "8KiB"
[cache.queries.rules.kinds]
query = "SELECT name FROM kinds WHERE id = ?"
ttl = "1m"
"""
# A slow machine takes long to load an answer, and a keeper to go on with its marks.
PATIENT = QUERIES.replace('lease = "2s"', 'lease = "20s"\nwait = "20s"').replace('bound = "1s"', 'bound = "3s"')
HINT = "/*shardproxy: cache=1m*/ "
Ask = Callable[[RawClient], Result]


@pytest.fixture(scope="module")
def cluster(flavor: FlavorName) -> Iterator[LocalCluster]:
    with cluster_with(flavor, TABLES) as running:
        for shard in running.shards:
            shard.primary.rows("CREATE DATABASE other")
            shard.primary.rows("CREATE TABLE other.users (uid BIGINT PRIMARY KEY, name VARCHAR(50))")
        yield running


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster) -> Iterator[RedisProxy]:
    more = PATIENT.replace('"main.kinds"]', '"main.kinds", "other.users"]')
    with redis_proxy(cluster, "queries", more=more, keyspaces=TWO_KEYSPACES, workers=2) as running:
        eventually(lambda: running.metric("shardproxy_cache_fresh") == 2, "both shards are kept", 30)
        with running.mysql() as db, db.cursor() as cursor:
            for uid in range(1, 40):
                cursor.execute(
                    "INSERT INTO users (uid, name, balance, rate, photo, flags, born, version) "
                    "VALUES (%s, 'Zoë', 1.50, 0.1, x'00ff', b'101', '2000-02-29', 0)",
                    (uid,),
                )
                cursor.execute("INSERT INTO orders VALUES (%s, 1, 'tea', NULL)", (uid,))
            cursor.execute("INSERT INTO kinds VALUES (1, 'one')")
            cursor.execute("INSERT INTO other.users VALUES (9, 'other')")
        yield running


@pytest.fixture(params=[True, False], ids=["deprecate_eof", "eof"])
def client(proxy: RedisProxy, request: pytest.FixtureRequest) -> Iterator[RawClient]:
    with RawClient(proxy.mysql_port, deprecate_eof=request.param) as connected:
        yield connected


def outcomes(proxy: RedisProxy, outcome: str = "hit") -> float:
    return proxy.labelled("shardproxy_cache_queries_total", outcome=outcome)


def hit(proxy: RedisProxy, ask: Callable[[], Any]) -> Any:
    """The answer, once it is a hit."""
    answers: list[Any] = []

    def is_hit() -> bool:
        before = outcomes(proxy)
        answers.append(ask())
        return outcomes(proxy) > before

    eventually(is_hit, "a hit", 30)
    return answers[-1]


def same(one: Result, two: Result) -> bool:
    return one.columns == two.columns and one.rows == two.rows and (one.end and astuple(one.end)) == (
        two.end and astuple(two.end)
    )  # fmt: skip


SELECTS = {
    "one shard": "SELECT * FROM users WHERE uid = 7",
    "no row": "SELECT * FROM users WHERE uid = 700",
    "all shards": "SELECT uid, name, flags FROM users WHERE version = 0 ORDER BY uid",
    "groups": "SELECT what, count(*), sum(no) FROM orders GROUP BY what",
    "join": "SELECT u.uid, o.what FROM users u JOIN orders o ON o.uid = u.uid JOIN kinds k ON k.id = o.no ORDER BY 1",
    "reference": "SELECT * FROM kinds",
}


@pytest.mark.parametrize("what", SELECTS)
def test_a_hit_is_the_answer_that_the_server_gives(proxy: RedisProxy, client: RawClient, what: str) -> None:
    sql = SELECTS[what]
    plain = client.query(sql)
    assert same(hit(proxy, lambda: client.query(HINT + sql)), plain)
    statement = client.prepare(HINT + sql)
    found = hit(proxy, lambda: client.execute(statement))
    assert same(found, client.execute(client.prepare(sql)))
    assert same(client.query(HINT + sql), plain)  # text and binary are kept apart
    assert client.rows("SELECT 1") == [[b"1"]]


def test_parameters_are_part_of_the_key(proxy: RedisProxy, client: RawClient) -> None:
    long, text = FieldType.LONGLONG, FieldType.VAR_STRING
    both = client.prepare(f"{HINT}SELECT count(*) FROM orders WHERE uid = ? OR no = ?")
    above = client.prepare(f"{HINT}SELECT count(*) FROM users WHERE uid > ?")

    def ask(statement: Prepared, *parameters: tuple[FieldType, bool, Any]) -> list[list[Any]]:
        return client.execute(statement, parameters).rows

    for statement, parameters, found in (
        (both, [(long, False, 3), (long, False, 3)], 1),
        (both, [(long, False, 4), (long, False, 1)], 39),
        (both, [(long, False, 3), (long, False, None)], 1),
        (both, [(long, False, None), (long, False, 3)], 0),  # the same bytes of values
        (both, [(text, False, b"3"), (long, False, None)], 1),
        (above, [(long, False, -1)], 39),
        (above, [(long, True, 2**64 - 1)], 0),  # the same bytes, of another type
    ):
        assert hit(proxy, partial(ask, statement, *parameters)) == [[found]]


def test_long_data_and_cursors_pass_by(proxy: RedisProxy, client: RawClient) -> None:
    """Long data is in no execution's bytes, and an answer from a cursor comes in parts."""
    statement = client.prepare(f"{HINT}SELECT count(*) FROM orders WHERE what = ?")
    hits, bypassed = outcomes(proxy), outcomes(proxy, "bypassed")
    for text, found in ((b"tea", 39), (b"no", 0)) * 3:
        client.send_long_data(statement, 0, text)
        assert client.execute(statement, [(FieldType.VAR_STRING, False, b"")], long_data=[0]).rows == [[found]]
    assert (outcomes(proxy), outcomes(proxy, "bypassed")) == (hits, bypassed + 6)


def test_what_changes_answers_is_part_of_the_key(proxy: RedisProxy) -> None:
    sql = f"{HINT}SELECT name, 'a' || 'b' FROM users WHERE uid = 9"
    for setting, row in (
        ("SET NAMES utf8mb4", ["Zoë".encode(), b"0"]),
        ("SET character_set_results = latin1", ["Zoë".encode("latin1"), b"0"]),
        ("SET sql_mode = 'PIPES_AS_CONCAT'", ["Zoë".encode(), b"ab"]),
        ("SET @a = 1", ["Zoë".encode(), b"0"]),
    ):
        with RawClient(proxy.mysql_port) as client:
            client.query(setting)
            if b"0" in row:  # "a" as a number is a warning, and such answers are not kept
                sql_here = sql.replace("'a' || 'b'", "0")
            else:
                sql_here = sql
            assert hit(proxy, partial(client.rows, sql_here)) == [row]
    with RawClient(proxy.mysql_port) as client:
        assert client.rows(sql) == [["Zoë".encode(), b"0"]]  # by another sql_mode than what is kept
        sql = sql.replace("'a' || 'b'", "0")
        hit(proxy, lambda: client.rows(sql))
        client.query("SET @b = 2")  # which no query that is kept can read
        before = outcomes(proxy)
        assert client.rows(sql) == [["Zoë".encode(), b"0"]]
        assert outcomes(proxy) == before + 1


def test_the_default_schema_is_part_of_the_key(proxy: RedisProxy) -> None:
    sql = f"{HINT}SELECT name FROM users WHERE uid = 9"
    with RawClient(proxy.mysql_port) as one, RawClient(proxy.mysql_port, database="other") as two:
        hit(proxy, lambda: one.rows(sql))
        hit(proxy, lambda: two.rows(sql))
        before = outcomes(proxy)
        for _ in range(2):
            assert one.rows(sql) == [["Zoë".encode()]]
            assert two.rows(sql) == [[b"other"]]
        assert outcomes(proxy) == before + 4  # both are kept


def test_who_may_not_read_a_keyspace_gets_no_kept_answer(proxy: RedisProxy) -> None:
    ours, theirs = (f"{HINT}SELECT name FROM {name}.users WHERE uid = 9" for name in ("main", "other"))
    with (
        RawClient(proxy.mysql_port, database="other") as everywhere,
        RawClient(proxy.mysql_port, "narrow", "narrow", "other") as narrow,
    ):
        assert hit(proxy, lambda: everywhere.rows(ours)) == [["Zoë".encode()]]
        assert hit(proxy, lambda: everywhere.rows(theirs)) == [[b"other"]]
        before = outcomes(proxy)
        assert narrow.rows(theirs) == [[b"other"]]
        assert outcomes(proxy) == before + 1  # what both may read they share
    with ExitStack() as stack:
        # So many that each worker has both, and makes no plan anew for who comes second.
        clients = [
            [stack.enter_context(RawClient(proxy.mysql_port, user, user, "other")) for _ in range(12)]
            for user in ("app", "narrow")
        ]
        for everywhere in clients[0]:
            assert everywhere.rows(ours) == [["Zoë".encode()]]
        before = outcomes(proxy)
        for narrow in clients[1]:
            for ask in (narrow.rows, narrow.prepare):
                with pytest.raises(Refused, match="main"):
                    ask(ours)
        assert outcomes(proxy) == before


def written(proxy: RedisProxy, client: RawClient, sql: str, write: Callable[[], object], row: list[Any]) -> None:
    """A write shows in a kept answer."""
    hit(proxy, lambda: client.rows(sql))
    assert client.rows(sql) != [row]
    write()
    eventually(lambda: client.rows(sql) == [row], "the write shows", 10)
    assert hit(proxy, lambda: client.rows(sql)) == [row]  # and what was kept before does not come back


def test_writes_make_answers_void(proxy: RedisProxy, client: RawClient, cluster: LocalCluster) -> None:
    sql = f"{HINT}SELECT sum(version) FROM users WHERE uid IN (11, 12)"

    def direct() -> None:
        for shard in cluster.shards:
            with shard.primary.connect("main") as db:
                db.cursor().execute("UPDATE users SET version = version + 5 WHERE uid = 12")
                db.commit()

    with RawClient(proxy.mysql_port) as writer:
        [[start]] = client.rows(sql)
        assert isinstance(start, bytes)
        base = int(start)
        written(proxy, client, sql, lambda: writer.query("UPDATE users SET version = version + 1 WHERE uid = 11"),
                [b"%d" % (base + 1)])  # fmt: skip
        written(proxy, client, sql, direct, [b"%d" % (base + 6)])


def test_writes_of_any_of_its_tables_make_an_answer_void(proxy: RedisProxy) -> None:
    sql = f"{HINT}SELECT sum(version), sum(note = 'new') FROM users u JOIN orders o ON o.uid = u.uid WHERE u.uid = 14"
    with RawClient(proxy.mysql_port) as client, RawClient(proxy.mysql_port) as writer:
        writer.query("UPDATE orders SET note = 'old' WHERE uid = 14")
        eventually(lambda: client.rows(sql) == [[b"0", b"0"]], "the write shows", 10)
        for text, row in (
            ("UPDATE users SET version = 4 WHERE uid = 14", [b"4", b"0"]),
            ("UPDATE orders SET note = 'new' WHERE uid = 14", [b"4", b"1"]),
            ("DELETE FROM orders WHERE uid = 14", [None, None]),
            ("INSERT INTO orders VALUES (14, 1, 'tea', 'new')", [b"4", b"1"]),
        ):
            written(proxy, client, sql, partial(writer.query, text), row)
        writer.query("UPDATE users SET version = 0 WHERE uid = 14")
        writer.query("UPDATE orders SET note = NULL WHERE uid = 14")


def test_an_answer_lives_as_long_as_was_asked_for(proxy: RedisProxy, cluster: LocalCluster) -> None:
    sql = "/*shardproxy: cache=20s*/ SELECT name FROM users WHERE uid = 15"
    with RawClient(proxy.mysql_port) as client:
        hit(proxy, lambda: client.rows(sql))
        _forget(cluster)
        hit(proxy, lambda: client.rows(sql))
    left: list[int] = []
    for node in cluster.redis:
        with node.connect() as direct:
            left += [direct.pttl(name) for name in direct.scan_iter("_shardproxy:*:answer:*", count=1000)]
    assert len(left) == 1 and 10_000 < left[0] <= 20_000


def test_a_hit_leaves_the_session_as_its_query_would(proxy: RedisProxy, client: RawClient) -> None:
    sql = f"{HINT}SELECT name FROM kinds WHERE id < 3"
    hit(proxy, lambda: client.rows(sql))
    for before in ("SELECT name + 0 FROM users WHERE uid = 21", "UPDATE users SET version = 0 WHERE uid = 700"):
        client.query(before)
        hits = outcomes(proxy)
        assert client.rows(sql) == [[b"one"]]
        assert outcomes(proxy) == hits + 1
        assert client.rows("SELECT ROW_COUNT()") == [[b"-1"]]
        assert client.rows("SHOW WARNINGS") == []
        client.query(before)
        assert client.rows(sql) == [[b"one"]]
        assert client.rows("SELECT @@warning_count") == [[b"0"]]


def test_writes_of_other_tables_leave_it(proxy: RedisProxy, client: RawClient) -> None:
    sql = f"{HINT}SELECT count(*) FROM kinds"
    hit(proxy, lambda: client.rows(sql))
    client.query("UPDATE orders SET note = 'new' WHERE uid = 30")
    before = outcomes(proxy)
    for _ in range(5):
        assert client.rows(sql) == [[b"1"]]
    assert outcomes(proxy) == before + 5


def test_a_rule_keeps_without_a_hint(proxy: RedisProxy, client: RawClient) -> None:
    assert hit(proxy, lambda: client.rows("SELECT name FROM kinds WHERE id = 1")) == [[b"one"]]


def test_transactions_pass_by(proxy: RedisProxy, client: RawClient) -> None:
    sql = f"{HINT}SELECT version FROM users WHERE uid = 20"
    hit(proxy, lambda: client.rows(sql))
    client.query("BEGIN")
    client.query("UPDATE users SET version = 77 WHERE uid = 20")
    before = outcomes(proxy, "bypassed")
    assert client.rows(sql) == [[b"77"]]
    assert outcomes(proxy, "bypassed") == before + 1
    client.query("ROLLBACK")
    assert client.rows(sql) == [[b"0"]]
    client.query("SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED")
    before = outcomes(proxy, "bypassed")
    assert client.rows(sql) == [[b"0"]]
    assert outcomes(proxy, "bypassed") == before + 1


def loaded_each_time(proxy: RedisProxy, client: RawClient, ask: Callable[[], object], tables: str) -> None:
    """Though answers from these tables can be kept now, this one never is."""
    hit(proxy, lambda: client.rows(f"{HINT}SELECT count(*) FROM {tables}"))
    hits, misses = outcomes(proxy), outcomes(proxy, "miss")
    for _ in range(4):
        ask()
    assert (outcomes(proxy), outcomes(proxy, "miss")) == (hits, misses + 4)


def test_answers_with_warnings_are_not_kept(proxy: RedisProxy, client: RawClient) -> None:
    def ask() -> None:
        assert client.rows(f"{HINT}SELECT name + 0 FROM users WHERE uid = 21") == [[b"0"]]
        assert client.rows("SHOW WARNINGS")[0][1] == b"1292"

    loaded_each_time(proxy, client, ask, "users")


def test_errors_are_not_kept(proxy: RedisProxy, client: RawClient) -> None:
    def ask() -> None:
        with pytest.raises(Refused):
            client.rows(f"{HINT}SELECT (SELECT uid FROM users WHERE version = 0) FROM kinds")

    loaded_each_time(proxy, client, ask, "users, kinds")
    assert client.rows("SELECT 1") == [[b"1"]]


def test_big_answers_are_not_kept(proxy: RedisProxy, client: RawClient) -> None:
    sql = f"{HINT}SELECT uid, repeat('x', 400) FROM users WHERE uid < 40"
    eventually(lambda: bool(client.rows(sql)) and outcomes(proxy, "too big") > 0, "too big")
    before = outcomes(proxy)
    assert len(client.rows(sql)) == 39
    assert outcomes(proxy) == before


def test_one_client_loads_for_all_workers(proxy: RedisProxy, cluster: LocalCluster) -> None:
    sql = f"{HINT}SELECT count(*) FROM users a JOIN users b ON a.uid = b.uid JOIN orders c ON a.uid = c.uid"
    with RawClient(proxy.mysql_port) as client:
        hit(proxy, lambda: client.rows(sql))
        wanted = client.rows(sql)
    _forget(cluster)
    before = [outcomes(proxy, what) for what in ("miss", "coalesced", "hit")]
    barrier = threading.Barrier(24)
    found: list[Any] = []

    def read() -> None:
        with RawClient(proxy.mysql_port) as client:
            barrier.wait()
            found.append(client.rows(sql))

    threads = [threading.Thread(target=read) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted] * 24
    miss, coalesced, hits = (
        outcomes(proxy, what) - was for what, was in zip(("miss", "coalesced", "hit"), before, strict=True)
    )
    assert miss == 1 and coalesced + hits == 23


def _forget(cluster: LocalCluster) -> None:
    """Answers are evicted."""
    for node in cluster.redis:
        with node.connect() as direct:
            for name in direct.scan_iter("_shardproxy:*:answer:*", count=1000):
                direct.delete(name)


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_without_a_keeper_answers_come_from_mysql(proxy: RedisProxy, client: RawClient) -> None:
    sql = f"{HINT}SELECT version FROM users WHERE uid = 25"
    hit(proxy, lambda: client.rows(sql))
    with proxy.stopped_keeper():
        before = outcomes(proxy, "bypassed")
        eventually(lambda: client.rows(sql) == [[b"0"]] and outcomes(proxy, "bypassed") > before, "bypassed")
        before = outcomes(proxy)
        assert client.rows(sql) == [[b"0"]]
        assert outcomes(proxy) == before
    eventually(lambda: proxy.metric("shardproxy_cache_fresh") == 2, "both shards are kept", 30)


@pytest.mark.parametrize("number", [0, 1])
def test_the_marks_of_all_shards_are_looked_at(proxy: RedisProxy, cluster: LocalCluster, number: int) -> None:
    """One shard cannot be kept: no more can answers from tables that it has, wherever their rows are."""
    sql = f"{HINT}SELECT version FROM users WHERE uid = 27"
    primary = cluster.shards[number].primary
    primary.rows("ALTER TABLE main.kinds ADD COLUMN user BIGINT, "
                 "ADD CONSTRAINT spoils FOREIGN KEY (user) REFERENCES main.users (uid) ON DELETE CASCADE")  # fmt: skip
    with RawClient(proxy.mysql_port) as client:
        try:
            eventually(lambda: proxy.metric("shardproxy_cache_fresh") == 1, "one shard is not kept", 30)
            hits, bypassed = outcomes(proxy), outcomes(proxy, "bypassed")
            for _ in range(4):
                assert client.rows(sql) == [[b"0"]]
            assert (outcomes(proxy), outcomes(proxy, "bypassed")) == (hits, bypassed + 4)
        finally:
            primary.rows("ALTER TABLE main.kinds DROP FOREIGN KEY spoils, DROP COLUMN user")
        eventually(lambda: proxy.metric("shardproxy_cache_fresh") == 2, "both shards are kept", 30)
        assert hit(proxy, lambda: client.rows(sql)) == [[b"0"]]


def test_without_redis_answers_come_from_mysql(proxy: RedisProxy, client: RawClient, cluster: LocalCluster) -> None:
    sql = f"{HINT}SELECT version FROM users WHERE uid = 26"
    for node in cluster.redis:
        node.kill()
    try:
        for _ in range(3):
            assert client.rows(sql) == [[b"0"]]
    finally:
        for node in cluster.redis:
            node.restart()
    eventually(lambda: proxy.metric("shardproxy_cache_fresh") == 2, "both shards are kept", 30)
    assert hit(proxy, lambda: client.rows(sql)) == [[b"0"]]


def test_explain_route_says_what_is_kept(client: RawClient) -> None:
    def reason(sql: str) -> str:
        told = client.rows(f"EXPLAIN ROUTE {sql}")[0][4]
        assert isinstance(told, bytes)
        return told.decode()

    assert reason(f"SELECT {HINT} name FROM users WHERE uid = 1").endswith("kept in the cache for 60 s")
    assert "the answer of NOW may be another one" in reason(f"SELECT {HINT} now(), name FROM users WHERE uid = 1")


def test_parameters_of_type_time_pass_by(proxy: RedisProxy, client: RawClient) -> None:
    """Compared with a DATETIME they take today's date."""
    statement = client.prepare(f"{HINT}SELECT count(*) FROM users WHERE timestamp(born) < ?")
    ten_o_clock = Time(hours=10)
    before, bypassed = outcomes(proxy), outcomes(proxy, "bypassed")
    for _ in range(4):
        assert client.execute(statement, [(FieldType.TIME, False, ten_o_clock)]).rows == [[39]]
    assert (outcomes(proxy), outcomes(proxy, "bypassed")) == (before, bypassed + 4)


@pytest.fixture(scope="module", params=["through the proxy", "past it"])
def changes(
    proxy: RedisProxy, cluster: LocalCluster, request: pytest.FixtureRequest
) -> Callable[[str, list[Any]], None]:
    """Does a statement; says what it leaves of a row of `orders` that was kept before."""
    sql = f"{HINT}SELECT * FROM orders WHERE uid = 3"

    def change(text: str, wanted: list[Any]) -> None:
        with RawClient(proxy.mysql_port) as client:
            hit(proxy, lambda: client.rows(sql))
            if request.param == "past it":
                for shard in cluster.shards:
                    shard.primary.rows(text, database="main")
            else:
                client.query(text)
            eventually(lambda: client.rows(sql) == wanted, text, 10)
            assert hit(proxy, lambda: client.rows(sql)) == wanted

    return change


def test_schema_changes_make_answers_void(changes: Callable[[str, list[Any]], None]) -> None:
    """Last of this file: the binlog has no rows for what these change."""
    changes("ALTER TABLE orders ADD COLUMN extra INT DEFAULT 4", [[b"3", b"1", b"tea", None, b"4"]])
    changes("ALTER TABLE orders DROP COLUMN extra", [[b"3", b"1", b"tea", None]])
    changes("TRUNCATE TABLE orders", [])
    changes("INSERT INTO orders VALUES (3, 1, 'tea', NULL)", [[b"3", b"1", b"tea", None]])
