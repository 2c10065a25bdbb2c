"""Transactions, blocking commands, channels, and what is about the connection or the server."""

from __future__ import annotations

import pytest

from tests.redis.compat.conftest import Client


def test_transactions(r: Client) -> None:
    assert r("MULTI") == b"OK" and r("SET {t}a 1") == b"QUEUED" and r("INCR {t}a") == b"QUEUED"
    assert r("RPUSH {t}l x") == b"QUEUED" and r("LRANGE {t}l 0 -1") == b"QUEUED"
    assert r.other()("GET {t}a") is None
    assert r("EXEC") == [b"OK", 2, 1, b"x"]
    assert r("MULTI") == b"OK" and r("SET {t}a 9") == b"QUEUED" and r("DISCARD") == b"OK" and r("GET {t}a") == b"2"
    assert "DISCARD without MULTI" in r.error("DISCARD") and "EXEC without MULTI" in r.error("EXEC")
    assert r("MULTI") == b"OK" and "MULTI" in r.error("MULTI").upper() and r("DISCARD") == b"OK"
    r("MULTI")
    r.error("NOSUCH")
    assert "Transaction discarded" in r.error("EXEC")
    r("MULTI")
    assert r("EXEC") == []


def test_watch(r: Client) -> None:
    other = r.other()
    for changes, wanted in ((False, [b"OK"]), (True, None)):
        assert r("WATCH {t}a {t}b") == b"OK"
        if changes:
            other("SET {t}b x")
        r("MULTI")
        r("SET {t}a 1")
        assert r("EXEC") == wanted
    r("WATCH {t}a")
    other("SET {t}a 5")
    assert r("UNWATCH") == b"OK" and r("MULTI") == b"OK" and r("GET {t}a") == b"QUEUED" and r("EXEC") == [b"5"]


@pytest.mark.parametrize(
    ("command", "wakes", "reply"),
    [
        ("BLPOP {b}x {b}l 10", "RPUSH {b}l 1 2", [b"{b}l", b"1"]),
        ("BRPOP {b}l 10", "RPUSH {b}l 1 2", [b"{b}l", b"2"]),
        ("BLMOVE {b}l {b}d LEFT RIGHT 10", "RPUSH {b}l 1", b"1"),
        ("BRPOPLPUSH {b}l {b}d 10", "RPUSH {b}l 1", b"1"),
        ("BLMPOP 10 2 {b}x {b}l LEFT COUNT 2", "RPUSH {b}l 1 2", [b"{b}l", b"1", b"2"]),
        ("BZPOPMIN {b}z 10", "ZADD {b}z 1 a 2 b", [b"{b}z", b"a", b"1"]),
        ("BZPOPMAX {b}z 10", "ZADD {b}z 1 a 2 b", [b"{b}z", b"b", b"2"]),
        ("BZMPOP 10 1 {b}z MIN", "ZADD {b}z 1 a", [b"{b}z", b"a", b"1"]),
        ("XREAD BLOCK 10000 STREAMS {b}s $", "XADD {b}s 1-0 a 1", [b"{b}s", b"1-0", b"a", b"1"]),
        ("XREADGROUP GROUP g me BLOCK 10000 STREAMS {b}s >", "XADD {b}s 1-0 a 1", [b"{b}s", b"1-0", b"a", b"1"]),
    ],
)
def test_blocking(r: Client, command: str, wakes: str, reply: object) -> None:
    r("XGROUP CREATE {b}s g $ MKSTREAM")
    waiter = r.other()
    name = "waits"
    waiter("CLIENT SETNAME", name)
    waiter.send(command)
    while f"name={name}".encode() not in (clients := r("CLIENT LIST")) or b"flags=b" not in clients:
        pass
    # The proxy shows it when it may still be on its way, and what wakes it goes another way, perhaps a shorter one.
    while b"blocked_clients:0\r\n" in r("INFO clients"):
        pass
    assert r("PING") == b"PONG"
    r(wakes)
    assert waiter.receive() == reply
    assert waiter("PING") == b"PONG"


def test_blocking_ends_without_an_element(r: Client) -> None:
    assert (
        r("BLPOP nothing 0.01") is None
        and r("BZPOPMIN nothing 0.01") is None
        and r("XREAD BLOCK 1 STREAMS s 0") is None
    )
    r("RPUSH l a")
    assert r("BLPOP l 0") == [b"l", b"a"]


def test_channels(r: Client) -> None:
    reader = r.other().redis.pubsub()
    reader.subscribe("news", "weather")
    reader.psubscribe("n*")
    seen = [reader.get_message(timeout=10) for _ in range(3)]
    assert [(m["type"], m["channel"], m["data"]) for m in seen if m] == [
        ("subscribe", b"news", 1),
        ("subscribe", b"weather", 2),
        ("psubscribe", b"n*", 3),
    ]
    assert r("PUBLISH news hello") == 2 and r("PUBLISH weather rain") == 1 and r("PUBLISH other x") == 0
    got = [reader.get_message(timeout=10) for _ in range(3)]
    assert sorted((m["type"], m["pattern"] or b"", m["channel"], m["data"]) for m in got if m) == [
        ("message", b"", b"news", b"hello"),
        ("message", b"", b"weather", b"rain"),
        ("pmessage", b"n*", b"news", b"hello"),
    ]
    assert sorted(r("PUBSUB CHANNELS")) == [b"news", b"weather"] and r("PUBSUB NUMSUB news x") == [b"news", 1, b"x", 0]
    assert r("PUBSUB NUMPAT") == 1
    reader.unsubscribe("news")
    assert (message := reader.get_message(timeout=10)) and message["data"] == 2
    assert r("PUBLISH news again") == 1
    reader.close()


def test_sharded_channels(r: Client) -> None:
    reader = r.other()
    reader.send("SSUBSCRIBE {c}a")
    first = reader.redis.connection.read_response(timeout=10, push_request=True)
    assert list(first) == [b"ssubscribe", b"{c}a", 1]
    assert (
        r("SPUBLISH {c}a x") == 1
        and r("PUBSUB SHARDCHANNELS") == [b"{c}a"]
        and r("PUBSUB SHARDNUMSUB {c}a") == [b"{c}a", 1]
    )
    got = reader.redis.connection.read_response(timeout=10, push_request=True)
    assert list(got) == [b"smessage", b"{c}a", b"x"]


def test_the_connection(r: Client) -> None:
    assert r("PING") == b"PONG" and r("PING x") == b"x" and r("ECHO hi") == b"hi" and r("SELECT 0") == b"OK"
    assert r("CLIENT SETNAME me") == b"OK" and r("CLIENT GETNAME") == b"me" and r("CLIENT ID") > 0
    assert r.other()("CLIENT ID") != r("CLIENT ID")
    hello = r(f"HELLO {r.protocol}")
    assert hello[hello.index(b"proto") + 1] == r.protocol and r.error("HELLO 9").startswith("NOPROTO")
    assert "WRONGPASS" in r.error("AUTH nobody wrong")
    assert r("RESET") == b"RESET"


def test_what_is_known_of_clients(r: Client) -> None:
    r("CLIENT SETNAME me")
    other = r.other()
    other("CLIENT SETNAME other")
    assert b"name=me" in r("CLIENT INFO") and b"name=other" in r("CLIENT LIST")


def test_pipelines_keep_their_order(r: Client) -> None:
    pipe = r.redis.pipeline(transaction=False)
    for n in range(200):
        pipe.execute_command("SET", f"k{n}", n)
        pipe.execute_command("GET", f"k{n}")
        pipe.execute_command("MGET", f"k{n}", f"k{n - 1}", "nothing")
        pipe.execute_command("INCR", "list" if n == 99 else "counter")
        if n == 98:
            pipe.execute_command("RPUSH", "list", "x")
    replies = [reply for reply in pipe.execute(raise_on_error=False) if reply not in (b"OK", 1)]
    assert [reply for reply in replies if isinstance(reply, bytes)] == [b"%d" % n for n in range(200)]
    assert [reply[0] for reply in replies if isinstance(reply, list)] == [b"%d" % n for n in range(200)]
    assert sum(isinstance(reply, Exception) for reply in replies) == 1 and r("GET counter") == b"199"


def test_the_server(r: Client) -> None:
    r("SET a 1 EX 100")
    r("SET b 1")
    assert b"db0:keys=2,expires=1" in r("INFO keyspace") and b"used_memory:" in r("INFO")
    assert len(r("TIME")) == 2 and r("COMMAND COUNT") > 200 and r("COMMAND GETKEYS MSET a 1 b 2") == [b"a", b"b"]
    assert r("COMMAND INFO get")[:2] == [b"get", 2] and r("COMMAND DOCS get")[0] == b"get"
    old = r("CONFIG GET slowlog-log-slower-than")
    assert old[0] == b"slowlog-log-slower-than" and r("CONFIG SET slowlog-log-slower-than 0") == b"OK"
    r("GET a")
    assert r("CONFIG SET slowlog-log-slower-than", old[1]) == b"OK"
    assert (
        r("SLOWLOG LEN") > 0
        and b"GET" in r("SLOWLOG GET")
        and r("SLOWLOG RESET") == b"OK"
        and r("CONFIG RESETSTAT") == b"OK"
    )
    assert r("LASTSAVE") > 0 and r("FLUSHALL ASYNC") == b"OK" and r("DBSIZE") == 0


def test_wait_for_replicas(r: Client) -> None:
    r("SET a 1")
    assert r("WAIT 0 10") == 0 and r("WAIT 1 1") == 0


def test_monitor(r: Client) -> None:
    watcher = r.other()
    assert watcher("MONITOR") == b"OK"
    r("GET seen")
    while b'"GET" "seen"' not in watcher.receive():
        pass
