"""Keys move between real nodes while clients write through two proxies, and anything is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from shardproxy.config import load
from shardproxy.local import LocalCluster
from shardproxy.local.proxy_environment import proxy_environment
from shardproxy.protocol.redis.encode import command
from shardproxy.reshard.redis_mover import RedisMover, Wishes, change_map, read_redis_map
from shardproxy.reshard.redis_nodes import nodes_of
from shardproxy.store.opening import open_store
from shardproxy.store.sqlite_file import writer_of
from shardproxy.topology import redis_map
from shardproxy.topology.barrier import Standing
from shardproxy.topology.redis_map import RedisIdentity, RedisMap
from shardproxy.topology.ring import place_buckets
from tests.proxy import eventually
from tests.redis.moves.load import Load, connect
from tests.redis.proxied import RedisProxy, redis_proxy

BALANCED = "redis1=1,redis2=1,redis3=1"
TILTED = "redis1=1,redis2=3"  # everything of redis3 goes, and much of redis1
SHARDCTL = "from shardproxy.cli.main import main; main()"
ANSWER = "20"  # seconds that a proxy has: on a busy machine it is late, and clients of one that is shut out get errors
Proxies = tuple[RedisProxy, RedisProxy]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    options = ("--appendonly", "yes", "--appendfsync", "always")
    with LocalCluster("mariadb", shards=1, replicas=0, redis=3, redis_options=options) as running:
        yield running


@pytest.fixture(scope="module")
def proxies(cluster: LocalCluster) -> Iterator[Proxies]:
    with redis_proxy(cluster, "one", store="both") as one, redis_proxy(cluster, "two", store="both") as two:
        yield one, two


@pytest.fixture(autouse=True)
def balanced(proxies: Proxies) -> Iterator[None]:
    """Every test begins and ends with keys in their places, and without any."""
    yield
    shardctl(proxies[0], "resume")
    shardctl(proxies[0], "run", "--weights", BALANCED)
    settled(proxies)
    with connect(proxies[0].port) as client:
        client.flushdb()


def _words(proxy: RedisProxy, *words: str) -> list[str]:
    if not {"run", "resume", "cancel"}.isdisjoint(words) and "--answer" not in words:
        words = (*words, "--answer", ANSWER)
    return [sys.executable, "-c", SHARDCTL, *words, "--config", str(proxy.config)]


def _shardctl(proxy: RedisProxy, *words: str) -> str:
    done = subprocess.run(_words(proxy, *words), capture_output=True, text=True, timeout=120, env=proxy_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shardctl(proxy: RedisProxy, *words: str) -> str:
    """What `shardctl rebalance redis` prints; it must succeed."""
    return _shardctl(proxy, "rebalance", "redis", *words)


def started(proxy: RedisProxy, *words: str) -> subprocess.Popen[bytes]:
    """The command, while it runs."""
    return subprocess.Popen(
        _words(proxy, "rebalance", "redis", *words),
        env=proxy_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def status(proxy: RedisProxy) -> Any:
    return json.loads(shardctl(proxy, "status", "--json"))


async def _map(config: Path) -> RedisMap:
    store = await open_store(load(config, proxy_environment()))
    try:
        return (await read_redis_map(store))[0]
    finally:
        await store.close()


def fill(port: int, count: int, name: str = "still") -> None:
    with connect(port) as client:
        for at in range(0, count, 1000):
            client.mset({f"{name}:{n}": f"v{n}" for n in range(at, min(count, at + 1000))})


def untouched(port: int, count: int, name: str = "still") -> None:
    with connect(port) as client:
        for at in range(0, count, 1000):
            numbers = range(at, min(count, at + 1000))
            assert client.mget([f"{name}:{n}" for n in numbers]) == [f"v{n}".encode() for n in numbers]


def in_phase(proxy: RedisProxy, phase: str) -> bool:
    move = asyncio.run(_map(proxy.config)).move
    return move is not None and move.phase.value == phase


def until_moving(proxy: RedisProxy) -> None:
    """Wait until the command that was just started has come so far."""
    eventually(lambda: in_phase(proxy, "moving"), "keys move", 60)


def sound(load: Load, proxies: Proxies) -> None:
    with connect(proxies[0].port) as client:
        assert load.audit(client) == []
    shardctl(proxies[0], "verify")


def test_keys_move_while_clients_write(proxies: Proxies) -> None:
    one, two = proxies
    fill(one.port, 5000)
    with Load([one.port, two.port]) as load:
        load.goes_on()
        shardctl(one, "run", "--weights", TILTED)
        load.goes_on()
        shardctl(two, "run", "--weights", BALANCED)
        load.goes_on()
    assert not load.errors
    sound(load, proxies)
    untouched(two.port, 5000)
    assert status(one)["left"] == 0 and status(one)["move"] is None
    assert one.metric("shardproxy_redis_keys_pulled_total") + two.metric("shardproxy_redis_keys_pulled_total") > 0


def test_what_is_cancelled_goes_back(proxies: Proxies) -> None:
    one, two = proxies
    before = status(one)["buckets"]
    fill(one.port, 1500)
    with Load([one.port, two.port]) as load:
        load.goes_on()
        mover = started(one, "run", "--weights", TILTED, "--throttle", "20", "--at-once", "100")
        until_moving(one)
        load.goes_on()
        mover.kill()
        mover.wait()
        load.goes_on()  # nobody leads the move: keys are pulled by who wants them
        shardctl(two, "cancel")
        load.goes_on()
    assert status(one)["buckets"] == before and status(one)["move"] is None
    sound(load, proxies)
    untouched(two.port, 1500)


def test_scans_leave_nothing_out_while_keys_move(proxies: Proxies) -> None:
    one, two = proxies
    fill(one.port, 1500)
    due = {f"still:{n}".encode() for n in range(1500)}
    mover = started(one, "run", "--weights", TILTED, "--throttle", "200", "--at-once", "600")
    passes = 0
    refused = set()
    with connect(two.port) as client:
        while mover.poll() is None or not passes:
            assert set(client.scan_iter(count=200)) == due
            passes += 1
            try:
                assert set(client.keys()) == due
                assert client.dbsize() == len(due)
            except redis.ResponseError as error:
                refused.add(str(error)[:26])
        assert mover.returncode == 0 and passes > 3 and refused == {"keys are being moved betwe"}
        settled(proxies)
        assert sorted(client.keys()) == sorted(due)
        assert client.dbsize() == len(due)


def test_movers_are_killed_and_others_go_on(proxies: Proxies) -> None:
    one, two = proxies
    fill(one.port, 1500)
    with Load([one.port, two.port], seed=2) as load:
        mover = started(one, "run", "--weights", TILTED, "--throttle", "2000", "--at-once", "200")
        for more in (400, 500, 600, 700):
            load.goes_on(more)
            mover.kill()
            mover.wait()
            mover = started(two, "resume", "--throttle", "2000", "--at-once", "200")
        mover.kill()
        mover.wait()
        shardctl(one, "resume")
        load.goes_on()
    assert status(one)["left"] == 0
    sound(load, proxies)
    untouched(one.port, 1500)


def test_workers_and_nodes_are_killed(cluster: LocalCluster, proxies: Proxies) -> None:
    one, two = proxies
    fill(one.port, 1500)
    with Load([one.port, two.port], seed=3) as load:
        load.goes_on()
        mover = started(one, "run", "--weights", TILTED, "--throttle", "300")
        until_moving(one)
        os.kill(two.worker_pid(), signal.SIGKILL)
        load.goes_on()
        for node in (cluster.redis[2], cluster.redis[1]):
            node.kill()
            node.process.start()
            load.goes_on()
        mover.wait(120)  # a node that was away ends it, or not
        shardctl(one, "resume")
        load.goes_on()
    assert status(one)["left"] == 0
    sound(load, proxies)
    untouched(two.port, 1500)


def _kill(proxy: RedisProxy) -> None:
    """SIGKILL for the supervisor and its workers, at once."""
    listed = subprocess.run(["pgrep", "-P", str(proxy.process.pid)], capture_output=True, check=True)
    workers = [int(pid) for pid in listed.stdout.split()]
    os.kill(proxy.process.pid, signal.SIGSTOP)  # it starts no other worker meanwhile
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    proxy.process.kill()
    assert workers


def test_whole_proxies_are_killed(proxies: Proxies) -> None:
    """What a dead proxy had sent without an answer counts as done or as not done, once; nobody waits for it."""
    one, two = proxies
    fill(one.port, 1500)
    with Load([one.port, two.port], seed=4) as load:
        load.goes_on()
        mover = started(one, "run", "--weights", TILTED, "--throttle", "4", "--at-once", "20")
        until_moving(one)
        for proxy in (two, one, two):
            _kill(proxy)
            load.goes_on(200)
            proxy.process.start()
            load.goes_on(200)
        eventually(lambda: shown_under_way(one), "a move is shown", 60)  # there is none between two moves
        mover.kill()
        mover.wait()
        shardctl(one, "resume")
        load.goes_on()
    assert status(one)["left"] == 0
    sound(load, proxies)
    untouched(two.port, 1500)
    assert json.loads(_shardctl(one, "topology", "--json"))["redis"]["move"] is None


def shown_under_way(proxy: RedisProxy) -> bool:
    shown = json.loads(_shardctl(proxy, "topology", "--json"))["redis"]
    assert shown["left"] > 0
    return shown["move"] is not None


class Trusting(RedisMover):
    """Takes it that a proxy that has not answered for long writes no more, as if it had a lease."""

    async def _shut_out(self, one: RedisIdentity) -> None:
        await self._stand(one.id, Standing.EVICTED)


@pytest.mark.parametrize("mover", [RedisMover, Trusting])
def test_a_proxy_that_stood_still_writes_no_more_to_the_old_node(proxies: Proxies, mover: type[RedisMover]) -> None:
    one, two = proxies
    names = [f"count:{n}" for n in range(200)]
    with connect(one.port) as client, two.raw() as stopped:
        for name in names:
            client.incr(name)
        supervisor, worker = two.process.pid, two.worker_pid()
        suspend(two)
        os.kill(worker, signal.SIGSTOP)
        try:
            stopped.sendall(b"".join(command([b"INCR", name.encode()]) for name in names))
            asyncio.run(_moved(one.config, mover))
            assert client.mget(names) == [b"1"] * len(names)
            os.kill(worker, signal.SIGCONT)  # alone, so that nobody ends it
            replies = _replies(stopped, len(names))
        finally:
            os.kill(worker, signal.SIGCONT)
            os.kill(supervisor, signal.SIGCONT)
        values = [int(value) for value in client.mget(names)]
        lost = [n for n, reply in enumerate(replies) if reply.startswith(b":") and values[n] < 2]
        assert bool(lost) == (mover is Trusting)
        settled(proxies)
        if mover is Trusting:
            client.flushdb()


def suspend(proxy: RedisProxy) -> None:
    """SIGSTOP for the supervisor, but not while it writes to the map store: nobody else could write then."""
    settings = load(proxy.config, proxy_environment())
    while True:
        proxy.process.suspend()
        if writer_of(settings.resolve(settings.store.path)) != proxy.process.pid:
            return
        proxy.process.resume()


def _stands_still(port: int) -> bool:
    """Whether the proxy serves, by a map without a move."""
    try:
        with connect(port) as client:
            return bool(client.dbsize() >= 0)
    except redis.RedisError:
        return False


def settled(proxies: Proxies) -> None:
    """Both proxies serve by the newest map, in which nothing moves."""
    for proxy in proxies:
        eventually(partial(_stands_still, proxy.port), "the last map is served by", 60)


def _replies(sock: Any, count: int) -> list[bytes]:
    """Lines until so many have come, or the connection ends."""
    data = b""
    while data.count(b"\r\n") < count:
        try:
            more = sock.recv(1 << 16)
        except ConnectionError:
            break
        if not more:
            break
        data += more
    lines = data.split(b"\r\n")[:-1]
    return lines + [b""] * (count - len(lines))


async def _moved(config: Path, mover: type[RedisMover]) -> None:
    settings = load(config, proxy_environment())
    store, nodes = await open_store(settings), nodes_of(settings)
    names = sorted(nodes)
    owners = place_buckets({"redis1": 1, "redis2": 3}, {name: i for i, name in enumerate(names)})
    try:
        await change_map(store, lambda now: redis_map.want(now, [names[i] for i in owners]))
        await mover(store, nodes, Wishes(buckets=4096, answer=3.0)).run()  # the other proxy answers sooner
    finally:
        for node in nodes.values():
            await node.close()
        await store.close()
