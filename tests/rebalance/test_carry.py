"""What travels with rows: entries of lookup indexes, numbers of AUTO_INCREMENT columns, reference tables, views.

A shard joins, and another one leaves, by the commands that operators run, while an application takes new numbers, new
and used names, and writes to a reference table.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pymysql
import pytest
from typer.testing import CliRunner

from shardproxy.admin.rebalance.plan import make_plan
from shardproxy.cli.main import app
from shardproxy.cli.rebalance_lead import move_of
from shardproxy.config import load
from shardproxy.local import LocalCluster
from shardproxy.local.flavors import FlavorName
from shardproxy.local.proxy_environment import proxy_environment
from shardproxy.reshard.leading import Wishes, leading, new_owner, stored_maps_of
from shardproxy.reshard.ledger import Ledger, begin
from shardproxy.reshard.orchestrator import Faults, Orchestrator
from shardproxy.store.interface import MapStore
from shardproxy.topology.goals import AddShard, EmptyShard, Goal, MoveBuckets
from shardproxy.topology.keys import bucket_of
from shardproxy.topology.ring import place_buckets
from shardproxy.topology.stages import Stage, Step
from tests.clients import Clients
from tests.proxy import USERS, ProxyUnderTest, eventually, start_proxy

KEYSPACES = """
[keyspaces.main]
key_type = "int"
map = "hash"
ring = { shard1 = 1, shard2 = 1 }
[keyspaces.main.tables]
users = { key = "id", lookups = ["name"] }
countries = { reference = true }
notes = { key = "uid" }
"""
TABLES = (
    "CREATE TABLE users (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, name VARCHAR(40) NOT NULL UNIQUE, n INT)",
    "CREATE TABLE countries (code INT NOT NULL PRIMARY KEY, name VARCHAR(50) NOT NULL, n INT NOT NULL)",
    "CREATE TABLE notes (uid BIGINT NOT NULL, id BIGINT NOT NULL AUTO_INCREMENT, KEY (id), KEY (uid), "
    "PRIMARY KEY (uid, id))",
    "CREATE DEFINER = 'owner'@'%' SQL SECURITY INVOKER VIEW named AS SELECT name, n FROM countries WHERE n >= 0",
)
NUMBERS = "SELECT name, next_value FROM _shardproxy.sequence WHERE keyspace = 'main'"
RETRIABLE = {1213, 1205, 9122}  # nothing was done
DUPLICATE = 1062
WRITERS = 4


class Application(Clients):
    """Writers with users of their own, whose names nobody else has."""

    def __init__(self, proxy: ProxyUnderTest) -> None:
        super().__init__()
        self.names: dict[int, str] = {}  # id → name
        self.countries: dict[int, int] = {}
        self.retried: dict[int, int] = {}
        self.done = 0
        self._proxy = proxy

    def __enter__(self) -> Self:
        self._end.clear()
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(WRITERS)]
        return super().__enter__()

    def goes_on(self) -> None:
        before = self.done
        eventually(lambda: self.done > before + 40 or bool(self.errors), "the application goes on", 60.0)

    def _write(self, number: int) -> None:
        dice = random.Random(number)
        mine = {key: name for key, name in self.names.items() if name.split()[1].startswith(f"{number}.")}
        step = 0 if not mine else max(int(name.rpartition(".")[2]) for name in mine.values())
        try:
            with self._proxy.connect() as client, client.cursor() as cursor:
                while not self._end.is_set():
                    step += 1
                    work = dice.choice((self._new, self._rename, self._find, self._taken, self._country))
                    try:
                        work(cursor, number, step, dice, mine)
                    except pymysql.MySQLError as error:
                        if error.args[0] not in RETRIABLE:
                            raise
                        self.retried[error.args[0]] = self.retried.get(error.args[0], 0) + 1
                        cursor.execute("ROLLBACK")
                        continue
                    self.done += 1
        except BaseException as error:
            self.errors.append(error)
        self.names.update(mine)

    def _new(self, cursor: Any, number: int, step: int, dice: random.Random, mine: dict[int, str]) -> None:
        name = f"Name {number}.{step}"
        cursor.execute("INSERT INTO users (name, n) VALUES (%s, 0)", (name,))
        assert cursor.lastrowid not in mine
        mine[cursor.lastrowid] = name

    def _rename(self, cursor: Any, number: int, step: int, dice: random.Random, mine: dict[int, str]) -> None:
        if not mine:
            return
        key = dice.choice(list(mine))
        cursor.execute("BEGIN")
        cursor.execute("UPDATE users SET name = %s WHERE id = %s", (f"name {number}.{step}", key))
        assert cursor.rowcount == 1, key
        cursor.execute("COMMIT")
        mine[key] = f"name {number}.{step}"

    def _find(self, cursor: Any, number: int, step: int, dice: random.Random, mine: dict[int, str]) -> None:
        for key in dice.sample(list(mine), min(2, len(mine))):
            cursor.execute("SELECT id FROM users WHERE name = %s", (mine[key].upper(),))
            assert cursor.fetchall() == ((key,),)

    def _taken(self, cursor: Any, number: int, step: int, dice: random.Random, mine: dict[int, str]) -> None:
        if not mine:
            return
        with pytest.raises(pymysql.MySQLError) as caught:
            cursor.execute("INSERT INTO users (name, n) VALUES (%s, 1)", (mine[dice.choice(list(mine))],))
        if caught.value.args[0] != DUPLICATE:
            raise caught.value

    def _country(self, cursor: Any, number: int, step: int, dice: random.Random, mine: dict[int, str]) -> None:
        code = dice.randrange(50) * WRITERS + number
        if code in self.countries:
            cursor.execute("UPDATE countries SET n = n + 1 WHERE code = %s", (code,))
            assert cursor.rowcount == 1, code
        else:
            cursor.execute("INSERT INTO countries VALUES (%s, 'x', 1)", (code,))
        self.countries[code] = self.countries.get(code, 0) + 1


class Scene:
    def __init__(self, cluster: LocalCluster, proxy: ProxyUnderTest, config: Path) -> None:
        self.cluster, self.proxy, self.config = cluster, proxy, config

    def shardctl(self, *words: str) -> str:
        result = CliRunner().invoke(app, [*words, "--config", str(self.config)])
        assert result.exit_code == 0, (words, result.output, result.exception)
        return result.output

    def lead(self, goal: Goal, work: Callable[[Orchestrator], Awaitable[None]], faults: Faults | None = None) -> None:
        """A move for this goal, led as `work` says."""
        settings = load(self.config, proxy_environment())

        async def run() -> None:
            plan = await make_plan(settings, "main", [goal], 10.0, None, await stored_maps_of(settings))

            async def start(store: MapStore) -> Ledger:
                return await begin(store, "main", new_owner(), move_of(plan, "test"), time.time)

            async with leading(settings, start, Wishes(hold=20.0, faults=faults)) as orchestrator:
                await work(orchestrator)

        asyncio.run(run())

    def rows(self, shard: int, sql: str) -> list[tuple[Any, ...]]:
        return sorted(self.cluster.shards[shard].primary.rows(sql, database="main"))

    def check(self, application: Application, shards: tuple[int, ...]) -> None:
        """All rows are there, once; entries agree with them, and are on these shards only."""
        print(f"{application.done} statements, {len(application.names)} users, again: {application.retried}")
        assert not application.errors, application.errors
        users = [row for shard in shards for row in self.rows(shard, "SELECT id, name FROM users")]
        assert len(users) == len({key for key, _ in users})
        assert dict(users) == application.names
        countries = sorted((code, n) for code, n in application.countries.items())
        for shard in shards:
            assert self.rows(shard, "SELECT code, n FROM countries") == countries
            assert len(self.rows(shard, "SELECT * FROM named")) == len(countries)
        self.shardctl("lookup", "verify", "users", "name")
        entries = [self.rows(shard, "SELECT COUNT(*) FROM _shardproxy.lookup") for shard in range(3)]
        assert sum(count for [(count,)] in entries) == len(users)
        assert all(bool(count) == (shard in shards) for shard, [(count,)] in enumerate(entries))


# As docs/operations.md has them.
RIGHTS = {
    "mariadb": (
        "SELECT, INSERT, UPDATE, DELETE, CREATE, CREATE TEMPORARY TABLES, LOCK TABLES, ALTER, DROP, CREATE VIEW, "
        "SHOW VIEW ON main.*",
        "ALL ON _shardproxy.*",
        "SET USER, REPLICATION SLAVE, BINLOG MONITOR, REPLICA MONITOR, PROCESS, CONNECTION ADMIN, CREATE USER ON *.*",
        "SELECT ON mysql.user",
    ),
    "mysql": (
        "SELECT, INSERT, UPDATE, DELETE, CREATE, CREATE TEMPORARY TABLES, LOCK TABLES, CREATE VIEW, "
        "SHOW VIEW ON main.*",
        "ALL ON _shardproxy.*",
        "SET_ANY_DEFINER, ALLOW_NONEXISTENT_DEFINER, REPLICATION SLAVE, REPLICATION CLIENT, PROCESS, CONNECTION_ADMIN, "
        "CREATE USER, XA_RECOVER_ADMIN ON *.*",
        "SELECT ON mysql.user",
    ),
}


@pytest.fixture
def scene(flavor: FlavorName) -> Iterator[Scene]:
    with LocalCluster(flavor, shards=3, replicas=0) as cluster:
        for shard in cluster.shards:
            shard.primary.rows("CREATE USER 'owner'@'%' IDENTIFIED BY 'x'")
            shard.primary.rows("CREATE USER 'mover'@'%' IDENTIFIED BY 'moves'")
            for right in RIGHTS[flavor]:
                shard.primary.rows(f"GRANT {right} TO 'mover'@'%'")
        for shard in cluster.shards[:2]:
            shard.primary.rows("CREATE DATABASE main CHARACTER SET utf8mb4")
            for statement in TABLES:
                shard.primary.rows(statement, database="main")
        proxy = start_proxy(
            cluster, "carrying", keyspaces=KEYSPACES, store={"path": "carrying.store"}, users={"app": USERS["app"]},
            proxy={"drain_timeout": "200ms"}, backend={"schema_interval": "100ms", "connect_timeout": "30s"},
        )  # fmt: skip
        own = cluster.folder / "mover.toml"
        text = (cluster.folder / "carrying.toml").read_text()
        own.write_text(f'{text}\n[rebalance]\nuser = "mover"\npassword = "moves"\n')
        try:
            yield Scene(cluster, proxy, own)
        finally:
            with suppress(Exception):
                proxy.process.stop()


def test_a_shard_joins_and_another_leaves(scene: Scene) -> None:
    for name, value in (("sync_binlog", "1"), ("innodb_flush_log_at_trx_commit", "1")):
        for shard in scene.cluster.shards:
            shard.primary.rows(f"SET GLOBAL {name} = {value}")
    scene.shardctl("lookup", "backfill", "users", "name")
    with Application(scene.proxy) as application:
        application.goes_on()
        scene.shardctl("rebalance", "run", "main", "--add-shard", "shard3", "--auto", "--hold", "5")
        application.goes_on()
    scene.check(application, (0, 1, 2))
    assert scene.rows(2, "SELECT COUNT(*) FROM users") != [(0,)]
    with application:
        scene.shardctl("rebalance", "run", "main", "--remove-shard", "shard1", "--auto", "--hold", "5")
        application.goes_on()
    scene.check(application, (1, 2))
    with application:  # what was on the home shard alone has gone to this one
        scene.shardctl("rebalance", "run", "main", "--remove-shard", "shard2", "--auto", "--hold", "5")
        application.goes_on()
    scene.check(application, (2,))
    assert all(scene.rows(shard, NUMBERS) == [("", 0), ("users", 0)] for shard in (0, 1))


def test_a_shard_joins_and_leaves_again(scene: Scene) -> None:
    """Cancelled when all is copied, then done and taken back."""
    scene.shardctl("lookup", "backfill", "users", "name")

    async def cancelled(orchestrator: Orchestrator) -> None:
        await orchestrator.run(lambda stage: stage is Stage.COPYING)
        await orchestrator.copied()
        await asyncio.to_thread(application.goes_on)
        await orchestrator.proceed(Step.CANCEL)
        await orchestrator.run(lambda stage: False)

    async def reversed_(orchestrator: Orchestrator) -> None:
        await orchestrator.run(lambda stage: stage is Stage.OPEN)
        await asyncio.to_thread(application.goes_on)
        while orchestrator.ledger.stage is Stage.OPEN:
            await orchestrator.reverse()
            await orchestrator.run(lambda stage: False)
        assert orchestrator.ledger.stage is Stage.REVERSE_DONE

    with Application(scene.proxy) as application:
        application.goes_on()
        scene.lead(AddShard("shard3"), cancelled)
        assert scene.rows(2, "SELECT COUNT(*) FROM countries") == [(0,)]
        application.goes_on()
        scene.lead(AddShard("shard3"), reversed_)
        application.goes_on()
    scene.check(application, (0, 1))
    # Its reference tables are of the time when its joining was taken back: nobody keeps them up to date.
    assert scene.rows(2, "SELECT code, n FROM countries") != scene.rows(0, "SELECT code, n FROM countries")
    again = ["rebalance", "plan", "main", "--add-shard", "shard3", "--config", str(scene.config)]
    result = CliRunner().invoke(app, again)
    assert result.exit_code == 1
    assert "when shard3 was in the keyspace before" in " ".join(result.output.split())
    scene.cluster.shards[2].primary.rows("DELETE FROM countries", database="main")
    assert CliRunner().invoke(app, again).exit_code == 0


def test_a_shard_without_keys_stays_until_it_is_removed(scene: Scene) -> None:
    async def done(orchestrator: Orchestrator) -> None:
        await orchestrator.run(lambda stage: False, complete=True)

    with scene.proxy.connect() as client, client.cursor() as cursor:
        scene.lead(EmptyShard("shard2", stays=True), done)
        cursor.execute("INSERT INTO countries VALUES (1, 'both', 1)")
        assert [scene.rows(shard, "SELECT code FROM countries") for shard in (0, 1)] == [[(1,)], [(1,)]]
        said = scene.shardctl("rebalance", "run", "main", "--remove-shard", "shard2", "--measure-time", "0")
        assert "no part of the keyspace afterwards: shard2" in said

        def on_one_shard() -> bool:
            cursor.execute("EXPLAIN ROUTE INSERT INTO countries VALUES (2, 'one', 1)")
            return len(cursor.fetchall()) == 1

        eventually(on_one_shard, "the proxy has the new map")
        cursor.execute("INSERT INTO countries VALUES (2, 'one', 1)")
    assert [scene.rows(shard, "SELECT code FROM countries") for shard in (0, 1)] == [[(1,), (2,)], [(1,)]]


def test_writes_to_what_goes_along_wait_for_the_switch(scene: Scene) -> None:
    """Though their keys stay: an entry, or the rows of a reference table, would be left behind."""
    scene.shardctl("lookup", "backfill", "users", "name")
    order = {"shard1": 0, "shard2": 1, "shard3": 2}
    was, will = place_buckets({"shard1": 1, "shard2": 1}, order), place_buckets(dict.fromkeys(order, 1), order)
    stays = next(key for key in range(1, 1000) if was[bucket_of(key)] == will[bucket_of(key)])
    errors: list[BaseException] = []
    threads: list[threading.Thread] = []
    waiting = threading.Event()

    def write(sql: str) -> None:
        """Again and again until it waits: the worker may not have heard of the new map at first."""
        try:
            with scene.proxy.connect() as client, client.cursor() as cursor:
                cursor.execute(sql)
                while not waiting.is_set():
                    cursor.execute(sql)
        except BaseException as error:
            errors.append(error)

    async def step(where: str) -> None:
        if where != "after armed next":
            return
        for sql in (
            f"UPDATE users SET name = 'second' WHERE id = {stays}",
            "REPLACE INTO countries VALUES (1, 'x', 1)",
        ):
            threads.append(threading.Thread(target=write, args=(sql,)))
            threads[-1].start()
        held = lambda: scene.proxy.metric("shardproxy_writes_held_now") == 2  # noqa: E731
        try:
            await asyncio.to_thread(eventually, held, "both wait", 15.0)
        finally:
            waiting.set()

    async def switched(orchestrator: Orchestrator) -> None:
        await orchestrator.run(lambda stage: False, complete=True)

    with scene.proxy.connect() as client, client.cursor() as cursor:
        cursor.execute(f"INSERT INTO users VALUES ({stays}, 'first', 0)")
    scene.lead(AddShard("shard3"), switched, Faults(step=step))
    for thread in threads:
        thread.join(60)
    assert not errors, errors
    for shard in range(3):
        assert scene.rows(shard, "SELECT code, n FROM countries") == [(1, 1)]
    scene.shardctl("lookup", "verify", "users", "name")


class Notes(Clients):
    """A client that takes number after number, of rows whose key stays where it is."""

    def __init__(self, proxy: ProxyUnderTest, uid: int) -> None:
        super().__init__()
        self.told: list[int] = []
        self._proxy, self._uid = proxy, uid
        self._threads = [threading.Thread(target=self._write)]

    def _write(self) -> None:
        try:
            with self._proxy.connect() as client, client.cursor() as cursor:
                while not self._end.is_set():
                    cursor.execute("INSERT INTO notes (uid) VALUES (%s)", (self._uid,))
                    self.told.append(cursor.lastrowid)
        except BaseException as error:
            self.errors.append(error)

    def goes_on(self) -> None:
        before = len(self.told)
        eventually(lambda: len(self.told) > before + 20 or bool(self.errors), "numbers are given", 30.0)


def test_numbers_go_to_another_home_and_back(scene: Scene) -> None:
    """While they are on neither shard, whoever needs one waits, also where no key of it moves."""
    owners = place_buckets({"shard1": 1, "shard2": 1}, {"shard1": 0, "shard2": 1})
    stays = next(key for key in range(1, 1000) if owners[bucket_of(key)] == 1)
    scene.shardctl("lookup", "backfill", "users", "name")
    change = "INSERT INTO _shardproxy.ddl VALUES (1, '%s', 'done', '%s', NULL, '', '{}', '', NOW(), NOW())"
    for shard, keyspace in enumerate(("main", "more")):
        scene.rows(shard, change % (keyspace, keyspace))
    scene.rows(0, "INSERT INTO _shardproxy.ddl_shard (ddl_id, place, shard, error) VALUES (1, 0, 'a', '')")
    waited: list[int] = []

    with Notes(scene.proxy, stays) as notes:

        async def there_and_back(orchestrator: Orchestrator) -> None:
            async def step(where: str) -> None:
                if where not in ("after closing next", "after reverse_closing next"):
                    return
                new = 1 if where == "after closing next" else 0  # the new home, by the map that has just come
                if new:  # the old home has such a row from before
                    looked = lambda: scene.rows(new, f"{NUMBERS} AND name = 'notes'") == [("notes", 0)]  # noqa: E731
                    await asyncio.to_thread(eventually, looked, "a number is wanted from the new home", 15.0)
                    before = len(notes.told)
                    assert scene.rows(new, f"{NUMBERS} AND next_value > 0") == [] and len(notes.told) == before
                waited.append(new)

            faults.append(step)
            await asyncio.to_thread(notes.goes_on)
            await orchestrator.run(lambda stage: stage is Stage.OPEN)
            await asyncio.to_thread(notes.goes_on)
            assert {value for _, value in scene.rows(0, NUMBERS)} == {0}
            while orchestrator.ledger.stage is Stage.OPEN:
                await orchestrator.reverse()
                await orchestrator.run(lambda stage: False)
            assert orchestrator.ledger.stage is Stage.REVERSE_DONE
            await asyncio.to_thread(notes.goes_on)

        faults: list[Callable[[str], Awaitable[None]]] = []

        async def any_step(where: str) -> None:
            await faults[0](where)

        scene.lead(EmptyShard("shard1"), there_and_back, Faults(step=any_step))
    assert not notes.errors, notes.errors
    assert waited == [1, 0]
    assert notes.told == sorted(set(notes.told)), "one client's numbers grow"
    assert {value for _, value in scene.rows(1, NUMBERS)} == {0}
    found = scene.rows(1, "SELECT id, keyspace, statement FROM _shardproxy.ddl")
    assert found == [(1, "more", b"more"), (2, "main", b"main")], "a number that another keyspace has is not used"
    assert scene.rows(1, "SELECT ddl_id FROM _shardproxy.ddl_shard") == [(2,)]
    scene.shardctl("lookup", "verify", "users", "name")


def test_a_value_that_a_hidden_row_still_has(scene: Scene) -> None:
    """The copy of a row has a name that its row has given up: who takes it is told to try again, and then gets it."""
    scene.shardctl("lookup", "backfill", "users", "name")
    owners = place_buckets({"shard1": 1, "shard2": 1}, {"shard1": 0, "shard2": 1})
    goes = next(key for key in range(1, 1000) if owners[bucket_of(key)] == 0)
    there = next(key for key in range(1, 1000) if owners[bucket_of(key)] == 1)
    bucket = bucket_of(goes)

    async def held_up(orchestrator: Orchestrator) -> None:
        await orchestrator.run(lambda stage: stage is Stage.COPYING)
        await orchestrator.copied()
        await orchestrator.close()  # the copy follows no more
        await asyncio.to_thread(take)
        await orchestrator.run(lambda stage: False, complete=True)

    def take() -> None:
        with scene.proxy.connect() as client, client.cursor() as cursor:

            def code() -> int:
                with pytest.raises(pymysql.MySQLError) as caught:
                    cursor.execute(f"INSERT INTO users VALUES ({there}, 'FIRST', 0)")
                return int(caught.value.args[0])

            assert code() == DUPLICATE
            cursor.execute(f"UPDATE users SET name = 'second' WHERE id = {goes}")
            assert code() == 9122

    with scene.proxy.connect() as client, client.cursor() as cursor:
        cursor.execute(f"INSERT INTO users VALUES ({goes}, 'first', 0)")
        scene.lead(MoveBuckets(bucket, bucket, "shard2"), held_up)
        cursor.execute(f"INSERT INTO users VALUES ({there}, 'FIRST', 0)")
    assert [row[0] for row in scene.rows(1, "SELECT id FROM users")] == sorted((goes, there))
    scene.shardctl("lookup", "verify", "users", "name")
