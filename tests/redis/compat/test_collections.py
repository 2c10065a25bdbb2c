"""Sets, sorted sets, geo, streams with groups."""

from __future__ import annotations

from tests.redis.compat.conftest import Client


def test_sets(r: Client) -> None:
    assert r("SADD {s}1 a b c") == 3 and r("SADD {s}1 a") == 0 and r("SADD {s}2 b c d") == 3
    assert sorted(r("SMEMBERS {s}1")) == [b"a", b"b", b"c"] and r("SMEMBERS nothing") == []
    assert r("SCARD {s}1") == 3 and r("SISMEMBER {s}1 a") == 1 and r("SMISMEMBER {s}1 a x") == [1, 0]
    assert sorted(r("SINTER {s}1 {s}2")) == [b"b", b"c"] and sorted(r("SUNION {s}1 {s}2")) == [b"a", b"b", b"c", b"d"]
    assert r("SDIFF {s}1 {s}2") == [b"a"] and r("SINTERCARD 2 {s}1 {s}2 LIMIT 1") == 1
    assert (
        r("SUNIONSTORE {s}3 {s}1 {s}2") == 4
        and r("SDIFFSTORE {s}3 {s}1 {s}2") == 1
        and r("SINTERSTORE {s}3 {s}1 {s}2") == 2
    )
    assert r("SMOVE {s}1 {s}2 a") == 1 and r("SMOVE {s}1 {s}2 x") == 0 and r("SREM {s}2 a x") == 1
    assert r("SRANDMEMBER {s}2") in (b"b", b"c", b"d") and sorted(r("SRANDMEMBER {s}2 9")) == [b"b", b"c", b"d"]
    assert sorted(r("SSCAN {s}1 0 COUNT 100")) == [b"0", b"b", b"c"]
    assert sorted(r("SPOP {s}1 5")) == [b"b", b"c"] and r("SPOP {s}1") is None


def test_sorted_sets(r: Client) -> None:
    assert r("ZADD z 1 a 2.5 b 3 c") == 3 and r("ZADD z XX CH 4 c") == 1 and r("ZADD z INCR 1 a") == b"2"
    assert r("ZRANGE z 0 -1 WITHSCORES") == [b"a", b"2", b"b", b"2.5", b"c", b"4"]
    assert r("ZRANGE z 2 3 BYSCORE LIMIT 1 1") == [b"b"] and r("ZRANGE z 0 0 REV") == [b"c"]
    assert r("ZREVRANGE z 0 1") == [b"c", b"b"] and r("ZRANGEBYSCORE z (2 +inf WITHSCORES") == [
        b"b",
        b"2.5",
        b"c",
        b"4",
    ]
    assert r("ZREVRANGEBYSCORE z +inf 2.5") == [b"c", b"b"] and r("ZSCORE z b") == b"2.5" and r("ZSCORE z x") is None
    assert (
        r("ZMSCORE z a x") == [b"2", None] and r("ZRANK z c") == 2 and r("ZREVRANK z c") == 0 and r("ZRANK z x") is None
    )
    assert r("ZCARD z") == 3 and r("ZCOUNT z 2 3") == 2 and r("ZINCRBY z 0.5 a") == b"2.5"
    r("ZADD lex 0 a 0 b 0 c")
    assert r("ZRANGEBYLEX lex [b +") == [b"b", b"c"] and r("ZREVRANGEBYLEX lex [b -") == [b"b", b"a"]
    assert r("ZLEXCOUNT lex - +") == 3 and r("ZREMRANGEBYLEX lex [a [b") == 2
    assert r("ZPOPMIN z") == [b"a", b"2.5"] and r("ZPOPMAX z 2") == [b"c", b"4", b"b", b"2.5"] and r("ZPOPMIN z") == []
    r("ZADD {z}1 1 a 2 b")
    r("ZADD {z}2 10 b 20 c")
    assert r("ZUNION 2 {z}1 {z}2 WITHSCORES") == [b"a", b"1", b"b", b"12", b"c", b"20"]
    assert r("ZINTER 2 {z}1 {z}2 WEIGHTS 2 1 WITHSCORES") == [b"b", b"14"] and r("ZDIFF 2 {z}1 {z}2") == [b"a"]
    assert r("ZINTERCARD 2 {z}1 {z}2") == 1 and r("ZUNIONSTORE {z}3 2 {z}1 {z}2 AGGREGATE MAX") == 3
    assert r("ZINTERSTORE {z}3 2 {z}1 {z}2") == 1 and r("ZDIFFSTORE {z}3 2 {z}1 {z}2") == 1
    assert (
        r("ZRANGESTORE {z}3 {z}2 0 -1") == 2
        and r("ZREMRANGEBYRANK {z}3 0 0") == 1
        and r("ZREMRANGEBYSCORE {z}3 0 99") == 1
    )
    assert r("ZMPOP 2 {z}3 {z}1 MAX") == [b"{z}1", b"b", b"2"] and r("ZREM {z}2 b x") == 1
    assert r("ZSCAN {z}2 0") == [b"0", b"c", b"20"] and r("ZRANDMEMBER {z}2 1 WITHSCORES") == [b"c", b"20"]


def test_geo(r: Client) -> None:
    assert r("GEOADD {g} 13.361389 38.115556 Palermo 15.087269 37.502669 Catania") == 2
    assert r("GEODIST {g} Palermo Catania km") == b"166.2742" and r("GEOHASH {g} Palermo x") == [b"sqc8b49rny0", None]
    assert [round(float(n), 3) for n in r("GEOPOS {g} Palermo")] == [13.361, 38.116]
    assert r("GEOSEARCH {g} FROMLONLAT 15 37 BYRADIUS 200 km ASC WITHDIST") == [
        b"Catania",
        b"56.4413",
        b"Palermo",
        b"190.4424",
    ]
    assert r("GEORADIUS {g} 15 37 100 km") == [b"Catania"] and r("GEORADIUS_RO {g} 15 37 100 km") == [b"Catania"]
    assert r("GEORADIUSBYMEMBER {g} Palermo 10 km") == [b"Palermo"]
    assert r("GEOSEARCHSTORE {g}d {g} FROMMEMBER Palermo BYBOX 400 400 km") == 2
    assert r("GEORADIUS {g} 15 37 100 km STORE {g}e") == 1 and r("ZRANGE {g}e 0 -1") == [b"Catania"]


def test_streams(r: Client) -> None:
    assert r("XADD s 1-1 a 1") == b"1-1" and r("XADD s 2-* b 2") == b"2-0" and r("XADD s NOMKSTREAM 3-1 c 3") == b"3-1"
    assert r("XLEN s") == 3 and r("XRANGE s - +") == [b"1-1", b"a", b"1", b"2-0", b"b", b"2", b"3-1", b"c", b"3"]
    assert r("XREVRANGE s + - COUNT 1") == [b"3-1", b"c", b"3"] and r("XDEL s 3-1") == 1
    assert "equal or smaller than the target stream top item" in r.error("XADD s 1-1 a 1")
    r("XADD {s}2 5-0 x y")
    assert r("XREAD STREAMS s 1-1") == [b"s", b"2-0", b"b", b"2"] and r("XREAD COUNT 1 STREAMS s 9") is None
    assert r("XREAD STREAMS s {s}2 1-1 0") == [b"s", b"2-0", b"b", b"2", b"{s}2", b"5-0", b"x", b"y"]
    assert r("XTRIM s MAXLEN 1") == 1 and r("XSETID s 9-9") == b"OK" and r("XADD s 10-0 a 1") == b"10-0"
    info = r("XINFO STREAM s")
    assert info[info.index(b"length") + 1] == 2 and info[info.index(b"last-generated-id") + 1] == b"10-0"


def test_stream_groups(r: Client) -> None:
    assert r("XGROUP CREATE s g 0 MKSTREAM") == b"OK" and r.error("XGROUP CREATE s g 0").startswith("BUSYGROUP")
    for n in range(1, 4):
        r(f"XADD s {n}-0 n {n}")
    assert r("XGROUP CREATECONSUMER s g idle") == 1
    assert r("XREADGROUP GROUP g me COUNT 2 STREAMS s >") == [b"s", b"1-0", b"n", b"1", b"2-0", b"n", b"2"]
    assert (
        r("XREADGROUP GROUP g you STREAMS s >") == [b"s", b"3-0", b"n", b"3"]
        and r("XREADGROUP GROUP g me STREAMS s >") is None
    )
    assert r("XPENDING s g") == [3, b"1-0", b"3-0", b"me", b"2", b"you", b"1"]
    assert r("XACK s g 1-0 9-0") == 1 and r("XCLAIM s g you 0 2-0 JUSTID") == [b"2-0"]
    assert [row for row in r("XPENDING s g - + 9 you") if isinstance(row, bytes)] == [b"2-0", b"you", b"3-0", b"you"]
    assert r("XAUTOCLAIM s g me 0 0 COUNT 1 JUSTID") == [b"3-0", b"2-0"]
    assert r("XINFO GROUPS s")[:4] == [b"name", b"g", b"consumers", 3]
    assert r("XINFO CONSUMERS s g")[:2] == [b"name", b"idle"]
    assert r("XGROUP SETID s g 0") == b"OK" and r("XGROUP DELCONSUMER s g you") == 1 and r("XGROUP DESTROY s g") == 1
    assert r.error("XREADGROUP GROUP g me STREAMS s >").startswith("NOGROUP")
