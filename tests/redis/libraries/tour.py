"""A tour of redis-py as applications use it: `python -m tests.redis.libraries.tour PORT PROTOCOL PARSER`.

PARSER is what reads replies, `hiredis` or `python`. Prints `done`; any failure is an AssertionError.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.utils import HIREDIS_AVAILABLE


def values(r: Any) -> None:
    assert r.set("text", "ü", ex=100) is True and r.get("text") == "ü" and 0 < r.ttl("text") <= 100
    assert r.set("text", "no", nx=True) is None and r.getset("text", "new") == "ü"
    assert r.incrby("number", 5) == 5 and r.incrbyfloat("number", 0.5) == 5.5
    assert r.mset({f"m{n}": n for n in range(50)}) is True
    assert r.mget([f"m{n}" for n in range(50)] + ["none"]) == [*map(str, range(50)), None]
    assert r.hset("hash", mapping={"a": 1, "b": 2}) == 2 and r.hgetall("hash") == {"a": "1", "b": "2"}
    assert r.rpush("list", *"abc") == 3 and r.lrange("list", 0, -1) == list("abc") and r.lpop("list", 2) == ["a", "b"]
    assert r.sadd("set", "x", "y") == 2 and r.smembers("set") == {"x", "y"}
    assert r.zadd("sorted", {"one": 1, "two": 2.5}) == 2 and r.zscore("sorted", "two") == 2.5
    assert [tuple(pair) for pair in r.zrange("sorted", 0, -1, withscores=True)] == [("one", 1), ("two", 2.5)]
    first = r.xadd("stream", {"f": "v"})
    assert r.xrange("stream") == [(first, {"f": "v"})] and r.xgroup_create("stream", "g", "0") is True
    assert r.xack("stream", "g", first) == 0 and r.pfadd("log", "a", "b") == 1 and r.pfcount("log") == 2
    assert r.geoadd("geo", (13.4, 52.5, "Berlin")) == 1 and r.setbit("bits", 7, 1) == 0 and r.bitcount("bits") == 1
    assert r.delete(*(f"m{n}" for n in range(60))) == 50 and r.exists("hash", "list", "none") == 2
    assert r.type("hash") == "hash" and r.object("encoding", "number") is not None and r.rename("{t}a", "{t}b") is True


def scans(r: Any) -> None:
    wanted = {f"scan:{n}" for n in range(500)}
    r.mset(dict.fromkeys(wanted, "1"))
    assert set(r.scan_iter("scan:*", count=50)) == wanted and set(r.keys("scan:*")) == wanted
    r.hset("big", mapping={f"f{n}": n for n in range(1000)})
    assert len(dict(r.hscan_iter("big", count=100))) == 1000


def pipelines(r: Any) -> None:
    with r.pipeline(transaction=False) as pipe:
        for n in range(300):
            pipe.set(f"p{n}", n).get(f"p{n}")
        assert pipe.execute() == [each for n in range(300) for each in (True, str(n))]
    with r.pipeline() as pipe:
        assert pipe.incr("{x}n").incr("{x}n").get("{x}n").execute() == [1, 2, "2"]
        pipe.set("{x}text", "a").incr("{x}text")
        with pytest.raises(redis.ResponseError, match="not an integer"):
            pipe.execute()
    r.transaction(lambda pipe: (pipe.multi(), pipe.incr("{x}n")), "{x}n")
    with r.pipeline() as pipe:
        pipe.watch("{x}n")
        r.set("{x}n", 100)
        pipe.multi()
        pipe.incr("{x}n")
        with pytest.raises(redis.WatchError):
            pipe.execute()
    assert r.get("{x}n") == "100"


def scripts(r: Any) -> None:
    add = r.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
    assert add(keys=["{s}1"], args=[5]) == 5 and add(keys=["{s}1"], args=[5]) == 10
    assert r.eval("return {KEYS[1], {ARGV[1], 7}}", 1, "k", "a") == ["k", ["a", 7]]
    r.function_load(
        "#!lua name=tour\nredis.register_function('twice', function(k) return redis.call('GET', k[1]) end)", True
    )
    assert r.fcall("twice", 1, "{s}1") == "10"


def locks(r: Any) -> None:
    lock = r.lock("lock", timeout=10)
    assert lock.acquire() and not r.lock("lock", timeout=10).acquire(blocking=False)
    assert lock.extend(5) and lock.owned()
    lock.release()
    with r.lock("lock", timeout=10):
        pass


def blocks(r: Any) -> None:
    answered: list[Any] = []
    thread = threading.Thread(target=lambda: answered.append(r.blpop(["queue"], timeout=20)))
    thread.start()
    assert r.rpush("queue", "job") == 1
    thread.join()
    assert [tuple(each) for each in answered] == [("queue", "job")]
    assert r.blpop(["queue"], timeout=0.05) is None


def channels(r: Any) -> None:
    with r.pubsub() as listener:
        listener.subscribe("news", "more")
        listener.psubscribe("n*")
        for _ in range(3):
            assert listener.get_message(timeout=10)["type"].endswith("subscribe")
        assert r.publish("news", "hi") == 2
        heard = [listener.get_message(timeout=10) for _ in range(2)]
        assert sorted((each["type"], each["channel"], each["data"]) for each in heard) == [
            ("message", "news", "hi"),
            ("pmessage", "news", "hi"),
        ]
        listener.unsubscribe("more")
        assert listener.get_message(timeout=10)["channel"] == "more"


def pushes(r: Any) -> None:
    """RESP3: messages are pushes, not replies."""
    pushed: list[Any] = []
    with r.pubsub(push_handler_func=pushed.append) as listener:
        listener.subscribe("news")
        listener.get_message(timeout=10)
        assert r.publish("news", "hi") == 1
        listener.get_message(timeout=10)
    assert pushed == [["subscribe", "news", 1], ["message", "news", "hi"]]


def pings(r: Any) -> None:
    """RESP2: a listener's PING has a reply like a message."""
    with r.pubsub() as listener:
        listener.subscribe("news")
        assert listener.get_message(timeout=10)["type"] == "subscribe"
        for said in ((), ("still there",)):
            listener.ping(*said)
            heard = listener.get_message(timeout=10)
            assert (heard["type"], heard["data"]) == ("pong", "".join(said))


def clients(r: Any, protocol: int) -> None:
    shown = r.client_info()
    assert (shown["name"], shown["lib-name"], shown["resp"]) == ("tour", "redis-py", str(protocol))
    assert shown["lib-ver"] == redis.__version__ and int(shown["id"]) == r.client_id()
    assert str(shown["id"]) in [each["id"] for each in r.client_list()] and r.echo("a b\r\n") == "a b\r\n"
    with r.monitor() as monitor:
        assert r.set("watched", "a b") is True
        assert next(each["command"] for each in monitor.listen() if "watched" in each["command"]) == "SET watched a b"


async def asynchronous(port: int, protocol: int) -> None:
    opened: Any = redis.asyncio.Redis(port=port, protocol=protocol, decode_responses=True)
    async with opened as r:
        assert await r.set("async", "1") is True
        assert await asyncio.gather(*(r.incr("async") for _ in range(50))) is not None
        assert await r.get("async") == "51"
        async with r.pipeline() as pipe:
            assert await pipe.incr("async").get("async").execute() == [52, "52"]
        assert {key async for key in r.scan_iter("async*")} == {"async"}
        waiting = asyncio.create_task(r.blpop(["async:queue"], timeout=20))
        await r.rpush("async:queue", "job")
        assert tuple(await waiting) == ("async:queue", "job")
        async with r.lock("async:lock", timeout=10):
            assert await r.exists("async:lock") == 1
        async with r.pubsub() as listener:
            await listener.subscribe("async:news")
            assert (await listener.get_message(timeout=10))["type"] == "subscribe"
            await r.publish("async:news", "hi")
            heard = await listener.get_message(ignore_subscribe_messages=True, timeout=10)
            assert heard is not None and heard["data"] == "hi"


def tour(port: int, protocol: int) -> None:
    """Everything, on an empty server."""
    with redis.Redis(
        port=port, protocol=protocol, decode_responses=True, client_name="tour", health_check_interval=1
    ) as r:
        r.flushall()
        assert r.client_getname() == "tour" and r.ping() is True and r.info()["redis_version"]
        r.set("{t}a", "1")
        for part in (values, scans, pipelines, scripts, locks, blocks, channels):
            part(r)
        (pushes if protocol == 3 else pings)(r)
        clients(r, protocol)
        assert r.dbsize() > 500
    asyncio.run(asynchronous(port, protocol))


if __name__ == "__main__":
    assert (sys.argv[3] == "hiredis") == HIREDIS_AVAILABLE, f"hiredis is {'' if HIREDIS_AVAILABLE else 'not '}there"
    tour(int(sys.argv[1]), int(sys.argv[2]))
    print("done")
