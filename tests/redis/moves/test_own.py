"""What clients have for themselves, when its keys go to another node: nothing is lost, and nothing done twice."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import redis

from shardproxy.local import LocalCluster
from tests.proxy import eventually
from tests.redis.moves.load import connect
from tests.redis.moves.test_moves import in_phase, shardctl, started, status, until_moving
from tests.redis.proxied import RedisProxy, redis_proxy

BOTH, SECOND = "redis1=1,redis2=1", "redis2=1"  # from one to the other, everything that redis1 has moves


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster("mariadb", shards=1, replicas=0, redis=2) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster) -> Iterator[RedisProxy]:
    with redis_proxy(cluster, workers=2) as running:
        yield running


@pytest.fixture(autouse=True)
def balanced(proxy: RedisProxy) -> Iterator[None]:
    yield
    shardctl(proxy, "resume")
    if status(proxy)["buckets"].get("redis1", 0) != 2048:
        shardctl(proxy, "run", "--weights", BOTH, "--at-once", "4096")
    with connect(proxy.port) as client:
        eventually(partial(_emptied, client), "nothing moves", 60)


def _emptied(client: Any) -> bool:
    """Whether the proxy serves by a map without a move, which it is told a moment after the move ends."""
    try:
        return bool(client.flushall()) and not client.dbsize()
    except redis.ResponseError:
        return False


def names_on(cluster: LocalCluster, proxy: RedisProxy, place: int, count: int, form: str = "key:{}") -> list[str]:
    """Names of keys that a node has now."""
    found: list[str] = []
    with connect(proxy.port) as client, connect(cluster.redis[place].port) as node:
        number = 0
        while len(found) < count:
            name = form.format(number)
            number += 1
            client.set(name, "x")
            if node.exists(name):
                found.append(name)
            client.delete(name)
    return found


@contextmanager
def threads(count: int, work: Callable[[int], None]) -> Iterator[None]:
    """`work` with numbers, until it returns; what it raises is raised."""
    raised: list[BaseException] = []

    def one(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            raised.append(error)

    running = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        for thread in running:
            thread.join(60)
            assert not thread.is_alive()
    assert not raised, raised


def there_and_back(proxy: RedisProxy) -> None:
    shardctl(proxy, "run", "--weights", SECOND, "--throttle", "2000", "--at-once", "700")
    shardctl(proxy, "run", "--weights", BOTH, "--throttle", "2000", "--at-once", "500")


def test_what_pops_waits_at_the_node_where_is_pushed(cluster: LocalCluster, proxy: RedisProxy) -> None:
    queues = names_on(cluster, proxy, 0, 4, "queue:{}") + names_on(cluster, proxy, 1, 2, "queue:{}")
    popped: list[str] = []
    pushed: list[str] = []
    errors: Counter[str] = Counter()
    stop = threading.Event()

    def pop(number: int) -> None:
        with connect(proxy.port) as client:
            while True:
                try:
                    found = client.blpop(queues[number % len(queues)], timeout=0)
                except redis.ResponseError as error:
                    errors[str(error)[:30]] += 1
                    continue
                if found[1] == b"end":
                    return
                popped.append(found[1].decode())

    def push(_: int) -> None:
        with connect(proxy.port) as client:
            number = 0
            while not stop.is_set():
                name = f"{number}"
                client.rpush(queues[number % len(queues)], name)
                pushed.append(name)
                number += 1

    with threads(12, pop):
        try:
            with threads(1, push):
                try:
                    eventually(lambda: len(popped) > 100, "elements come", 60)
                    there_and_back(proxy)
                    goal = len(popped) + 100
                    eventually(lambda: len(popped) > goal, "elements come", 60)
                finally:
                    stop.set()
        finally:
            with connect(proxy.port) as client:
                for number in range(12):
                    client.rpush(queues[number % len(queues)], "end")
    assert Counter(popped) == Counter(pushed)
    assert not [error for error in errors if not error.startswith("UNBLOCKED client unblocked via")], errors


def _blocks(node: redis.Redis) -> bool:
    return bool(node.info("clients")["blocked_clients"] == 1)


def test_what_blocks_is_ended_and_may_begin_again(cluster: LocalCluster, proxy: RedisProxy) -> None:
    moving, staying = names_on(cluster, proxy, 0, 1)[0], names_on(cluster, proxy, 1, 1)[0]
    with connect(proxy.port) as one, connect(proxy.port) as two, connect(proxy.port) as writer:
        for client, name in ((one, moving), (two, staying)):
            client.connection.send_command("BLPOP", name, 0)
        for node in cluster.redis:
            with connect(node.port) as there:
                eventually(partial(_blocks, there), "it blocks")
        shardctl(proxy, "run", "--weights", SECOND, "--at-once", "4096")
        with pytest.raises(redis.ResponseError, match="UNBLOCKED"):
            one.connection.read_response()
        one.connection.send_command("BLPOP", moving, 0)
        with connect(cluster.redis[1].port) as there:
            eventually(lambda: there.info("clients")["blocked_clients"] == 2, "both block at the new node")
        writer.rpush(moving, "a")
        writer.rpush(staying, "b")
        assert one.connection.read_response() == [moving.encode(), b"a"]
        assert two.connection.read_response() == [staying.encode(), b"b"]


def _counted(proxy: RedisProxy, add: Callable[[Any, int], bool]) -> int:
    """How often `add` was done by some clients while keys moved there and back."""
    done = [0] * 6
    unsure: list[str] = []
    stop = threading.Event()

    def work(number: int) -> None:
        with connect(proxy.port) as client:
            while not stop.is_set():
                try:
                    done[number] += add(client, number)
                except (redis.WatchError, redis.ResponseError) as error:
                    if "not known" in str(error):
                        unsure.append(str(error))

    with threads(len(done), work):
        try:
            eventually(lambda: min(done) > 20, "they count", 60)
            there_and_back(proxy)
            goal = sum(done) + 100
            eventually(lambda: sum(done) > goal, "they count", 60)
        finally:
            stop.set()
    assert not unsure
    return sum(done)


def test_watched_keys_are_not_written_twice(cluster: LocalCluster, proxy: RedisProxy) -> None:
    names = names_on(cluster, proxy, 0, 3)
    turns = [0] * 6

    def add(client: Any, number: int) -> bool:
        turns[number] += 1
        name = names[turns[number] % len(names)]
        with client.pipeline() as pipe:
            pipe.watch(name)
            value = int(pipe.get(name) or 0)
            pipe.multi()
            pipe.set(name, value + 1)
            pipe.execute()
        return True

    done = _counted(proxy, add)
    with connect(proxy.port) as client:
        assert sum(int(value) for value in client.mget(names)) == done


def test_transactions_are_done_once_and_whole(cluster: LocalCluster, proxy: RedisProxy) -> None:
    tags = [name[4:] for name in names_on(cluster, proxy, 0, 3, "key:{}")]
    pairs = [(f"a{{key:{tag}}}", f"b{{key:{tag}}}") for tag in tags]
    turns = [0] * 6

    def add(client: Any, number: int) -> bool:
        turns[number] += 1
        with client.pipeline(transaction=True) as pipe:
            for name in pairs[turns[number] % len(pairs)]:
                pipe.incr(name)
            return len(pipe.execute()) == 2

    done = _counted(proxy, add)
    with connect(proxy.port) as client:
        values = [client.mget(pair) for pair in pairs]
    assert all(one == other for one, other in values)
    assert sum(int(one) for one, _ in values) == done


@pytest.mark.parametrize("watch", [False, True])
def test_a_transaction_that_was_begun_before_the_move_is_not_done(
    cluster: LocalCluster, proxy: RedisProxy, watch: bool
) -> None:
    name = names_on(cluster, proxy, 0, 1)[0]
    with connect(proxy.port) as client, connect(proxy.port) as other:
        other.set(name, "1")
        if watch:
            assert client.execute_command("WATCH", name) and client.get(name) == b"1"
        client.execute_command("MULTI")
        assert client.connection.send_command("SET", name, "2") is None
        assert client.connection.read_response() == b"QUEUED"
        shardctl(proxy, "run", "--weights", SECOND, "--at-once", "4096")
        other.set(name, "3")
        client.connection.send_command("EXEC")
        why = "what was watched" if watch else "TRYAGAIN its keys go"
        with pytest.raises(redis.exceptions.ExecAbortError, match=why):
            client.connection.read_response()
        assert client.get(name) == b"3"
        with connect(cluster.redis[0].port) as node:
            assert not node.exists(name)


def test_a_transaction_may_be_begun_while_its_keys_move(cluster: LocalCluster, proxy: RedisProxy) -> None:
    names = names_on(cluster, proxy, 0, 200)
    with connect(proxy.port) as client:
        for name in names:
            client.set(name, "1")
        mover = started(proxy, "run", "--weights", SECOND, "--throttle", "5", "--at-once", "4096")
        until_moving(proxy)
        for name in names[-20:]:
            with client.pipeline() as pipe:
                pipe.watch(name)
                value = int(pipe.get(name))
                pipe.multi()
                pipe.set(name, value + 1)
                pipe.execute()
        assert in_phase(proxy, "moving")
        mover.kill()
        mover.wait()
        assert client.mget(names) == [b"1"] * 180 + [b"2"] * 20


def test_who_listens_is_told_that_the_channel_moves(cluster: LocalCluster, proxy: RedisProxy) -> None:
    moving, staying = names_on(cluster, proxy, 0, 1)[0], names_on(cluster, proxy, 1, 1)[0]
    with connect(proxy.port) as writer, connect(proxy.port) as other:
        heard = {}
        for name in (moving, staying):
            heard[name] = other.pubsub() if name == staying else connect(proxy.port).pubsub()
            heard[name].subscribe(name)
            assert heard[name].get_message(timeout=10)["type"] == "subscribe"
        shardctl(proxy, "run", "--weights", SECOND, "--at-once", "4096")
        with pytest.raises(redis.RedisError, match="goes to another node; subscribe again"):
            heard[moving].connection.read_response()
        again = connect(proxy.port).pubsub()
        again.subscribe(moving)
        assert again.get_message(timeout=10)["type"] == "subscribe"
        for name, listener in ((moving, again), (staying, heard[staying])):
            assert writer.publish(name, "hello") == 1
            assert listener.get_message(timeout=10)["data"] == b"hello"
        for listener in (*heard.values(), again):
            listener.close()


def test_what_belongs_to_a_node_stays_there(cluster: LocalCluster, proxy: RedisProxy) -> None:
    with connect(cluster.redis[0].port) as first, connect(cluster.redis[1].port) as second:
        ours = [f"_shardproxy:{n}" for n in range(100)]
        for node in (first, second):
            for name in ours:
                node.set(name, "entry")
        shardctl(proxy, "run", "--weights", SECOND, "--at-once", "4096")
        with connect(proxy.port) as client:
            client.mget(ours)
        shardctl(proxy, "verify")
        shardctl(proxy, "run", "--weights", BOTH, "--at-once", "4096")
        assert first.mget(ours) == second.mget(ours) == [b"entry"] * 100


def test_a_proxy_in_cache_mode_takes_part(cluster: LocalCluster, proxy: RedisProxy) -> None:
    with (
        redis_proxy(cluster, "caching", redis={"mode": "cache"}, store="redis-proxy") as caching,
        connect(caching.port) as client,
    ):
        keys = {f"key:{n}": b"%d" % n for n in range(500)}
        client.mset(keys)
        shardctl(caching, "run", "--weights", SECOND, "--at-once", "4096")
        assert client.mget(list(keys)) == list(keys.values())
        shardctl(proxy, "run", "--weights", BOTH, "--at-once", "4096")
        assert client.mget(list(keys)) == list(keys.values())
        shardctl(caching, "verify")
