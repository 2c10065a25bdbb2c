"""What a lookup index costs and saves: a select by it beside one by the key and one that asks every shard; inserts with
and without one.

Four shards, one worker. The statements take turns within each round, each sent for a while by one client and by
sixteen; figures are the medians over the rounds of each run's median time.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Callable
from statistics import median

from bench.rig.measured import Figure, median_ratio
from bench.rig.proxy import PASSWORD, USER, RunningProxy, start_proxy
from bench.rig.wire import WireClient
from shardproxy.admin.lookup.backfill import backfill
from shardproxy.admin.lookup.work import prepare
from shardproxy.backend.control import Credentials
from shardproxy.config import load
from shardproxy.local import LocalCluster, LocalError
from shardproxy.topology.build import build_snapshot
from shardproxy.topology.maps import BucketMap
from shardproxy.topology.ring import place_buckets

SHARDS = 4
CLIENTS = (1, 16)
_ROWS = 20_000
_DATABASE = "looked"
_READY = 10.0  # seconds until the proxy has noticed that the index is filled
_SHORT = 0.2  # seconds of a run in which nothing counts
_BY_KEY, _BY_LOOKUP, _BY_SCATTER = "select by key", "select by lookup", "the same by scatter"
_INSERT, _INSERT_LOOKUP = "insert", "insert with a lookup index"
# Figures that must hold: (what, compared with, at most so many times as long).
_NEEDS = ((_BY_LOOKUP, _BY_KEY, 3.0), (_BY_LOOKUP, _BY_SCATTER, 0.75), (_INSERT_LOOKUP, _INSERT, None))
_FRESH = itertools.count(10_000_000)  # keys of new rows


def _texts(name: str) -> Callable[[random.Random], str]:
    """Makes statements of this name."""

    def selected(dice: random.Random) -> str:
        number = dice.randrange(1, _ROWS)
        if name == _BY_KEY:
            return f"SELECT n FROM plain WHERE id = {number}"
        table = "people" if name == _BY_LOOKUP else "plain"
        return f"SELECT n FROM {table} WHERE email = 'user{number}@example.com'"

    def inserted(dice: random.Random) -> str:
        number = next(_FRESH)
        table = "plain" if name == _INSERT else "people"
        return f"INSERT INTO {table} VALUES ({number}, 'user{number}@example.com', 1)"

    return inserted if name in (_INSERT, _INSERT_LOOKUP) else selected


def lookup_figures(rounds: int, seconds: float) -> list[Figure]:
    """Median times in ms of each statement, and their ratios. Raises LocalError."""
    names = (_BY_KEY, _BY_LOOKUP, _BY_SCATTER, _INSERT, _INSERT_LOOKUP)
    times: dict[tuple[str, int], list[float]] = {(name, count): [] for name in names for count in CLIENTS}
    with LocalCluster(shards=SHARDS, replicas=0) as cluster:
        proxy = _filled(cluster)
        for number in range(rounds + 1):
            for count in CLIENTS:
                for name in names[number % len(names) :] + names[: number % len(names)]:
                    found = _run(proxy, name, count, seconds if number else _SHORT)
                    if number:
                        times[name, count].append(found)
    figures = [
        Figure(f"{name}, {_clients(count)}", "ms", median(times[name, count]), shards=SHARDS)
        for count in CLIENTS
        for name in names
    ]
    for count in CLIENTS:
        for name, other, needed in _NEEDS:
            ratio, low, high = median_ratio(list(zip(times[name, count], times[other, count], strict=True)))
            detail = {"lowest": low, "highest": high}
            figures.append(
                Figure(f"{name}, {_clients(count)}", f"× {other}", ratio, needed, shards=SHARDS, detail=detail)
            )
    return figures


def _clients(count: int) -> str:
    return "1 client" if count == 1 else f"{count} clients"


def _filled(cluster: LocalCluster) -> RunningProxy:
    """A proxy in front of the tables with their rows, which uses the index."""
    names = [shard.name for shard in cluster.shards]
    places = BucketMap(place_buckets(dict.fromkeys(names, 1), {name: i for i, name in enumerate(names)}))
    for index, shard in enumerate(cluster.shards):
        buckets = ",".join(str(b) for b, at in enumerate(places.buckets) if at == index)
        with shard.primary.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {_DATABASE} CHARACTER SET utf8mb4")
            cursor.execute(f"USE {_DATABASE}")
            for table in ("people", "plain"):
                cursor.execute(
                    f"CREATE TABLE {table} (id BIGINT NOT NULL PRIMARY KEY, email VARCHAR(60) NOT NULL UNIQUE, n INT)"
                )
                cursor.execute(
                    f"INSERT INTO {table} SELECT seq, CONCAT('user', seq, '@example.com'), seq % 100 "
                    f"FROM seq_1_to_{_ROWS} WHERE CRC32(CRC32(seq)) % 4096 IN ({buckets})"
                )
    ring = ", ".join(f"{name} = 1" for name in names)
    proxy = start_proxy(
        cluster,
        f'[keyspaces.{_DATABASE}]\nkey_type = "int"\nmap = "hash"\nring = {{ {ring} }}\n'
        'tables = { people = { key = "id", lookups = ["email"] }, plain = { key = "id" } }\n',
        workers=1,
        backend={"schema_interval": "200ms"},
    )
    settings = load(proxy.config, {})

    async def fill() -> bool:
        work = await prepare(build_snapshot(settings), Credentials.of(settings), 30, "people", "email", 1000)
        return (await backfill(work, lambda rows: None)).ready

    if not asyncio.run(fill()):
        raise LocalError("the lookup index cannot be filled")
    client = WireClient(proxy.mysql_port, USER, PASSWORD, _DATABASE)
    end = time.monotonic() + _READY
    while client.count("EXPLAIN ROUTE SELECT n FROM people WHERE email = 'user1@example.com'").rows != 1:
        if time.monotonic() > end:
            raise LocalError("the proxy does not use the lookup index")
        time.sleep(0.05)
    client.close()
    return proxy


def _run(proxy: RunningProxy, name: str, count: int, seconds: float) -> float:
    """Median time of the statement in ms, while `count` clients send it one after the other."""
    end = time.monotonic() + seconds
    found: list[list[float]] = [[] for _ in range(count)]
    failures: list[BaseException] = []

    def send(number: int) -> None:
        try:
            _send(proxy, name, end, found[number], random.Random(number))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise LocalError(f"{name}: {failures[0]}") from failures[0]
    return median(itertools.chain.from_iterable(found)) * 1e3


def _send(proxy: RunningProxy, name: str, end: float, times: list[float], dice: random.Random) -> None:
    client = WireClient(proxy.mysql_port, USER, PASSWORD, _DATABASE)
    make = _texts(name)
    send: Callable[[str], object] = client.run if name in (_INSERT, _INSERT_LOOKUP) else client.count
    try:
        while time.monotonic() < end:
            text = make(dice)
            start = time.perf_counter()
            send(text)
            times.append(time.perf_counter() - start)
    finally:
        client.close()
