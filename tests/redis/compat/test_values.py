"""Strings, bitmaps, HyperLogLog, hashes, lists, and MGET and its like."""

from __future__ import annotations

from tests.redis.compat.conftest import Client


def test_strings(r: Client) -> None:
    assert r("SET a 1") == b"OK"
    assert r("GET a") == b"1" and r("GET nothing") is None
    assert r(b"SET", b"bin\r\n\x00", b"\r\n\xff") == b"OK" and r(b"GET", b"bin\r\n\x00") == b"\r\n\xff"
    assert r("SET a 2 NX") is None and r("SET a 2 XX GET") == b"1" and r("SET n 1 NX") == b"OK"
    assert r("APPEND a 3") == 2 and r("STRLEN a") == 2
    assert r("INCR c") == 1 and r("INCRBY c 5") == 6 and r("DECR c") == 5 and r("DECRBY c 7") == -2
    assert r("INCRBYFLOAT c 0.5") == b"-1.5"
    assert r("SETRANGE s 3 abc") == 6 and r("GETRANGE s 2 4") == b"\x00ab" and r("SUBSTR s 4 -1") == b"bc"
    assert r("GETSET a new") == b"23" and r("GETDEL a") == b"new" and r("GETDEL a") is None
    assert r("SETNX a 1") == 1 and r("SETNX a 2") == 0
    assert r("SETEX a 100 x") == b"OK" and 50 < r("TTL a") <= 100
    assert r("PSETEX a 100000 x") == b"OK" and 0 < r("PTTL a") <= 100000
    assert r("GETEX a PERSIST") == b"x" and r("TTL a") == -1
    assert r("GETEX a EX 50") == b"x" and 0 < r("TTL a") <= 50
    r("SET {l}1 ohmytext")
    r("SET {l}2 mynewtext")
    assert r("LCS {l}1 {l}2") == b"mytext" and r("LCS {l}1 {l}2 LEN") == 6
    assert r("LCS {l}1 {l}2 IDX MINMATCHLEN 4") == [b"matches", 4, 7, 5, 8, b"len", 6]


def test_errors_of_strings(r: Client) -> None:
    r("RPUSH l a")
    assert r.error("GET l") == "WRONGTYPE Operation against a key holding the wrong kind of value"
    r("SET a x")
    assert r.error("INCR a").endswith("value is not an integer or out of range")
    assert r.error("SET a b c").endswith("syntax error")
    assert "wrong number of arguments for 'get' command" in r.error("GET")
    assert "wrong number of arguments for 'mset' command" in r.error("MSET a 1 b")
    assert "unknown command 'NOSUCH', with args beginning with: 'a' 'b'" in r.error("NOSUCH a b")
    assert "unknown subcommand 'nosuch'. Try OBJECT HELP." in r.error("OBJECT nosuch a")
    assert r("GET a") == b"x"


def test_many_keys(r: Client) -> None:
    keys = [f"key:{n}" for n in range(100)]
    assert r(b"MSET", *(word for n, key in enumerate(keys) for word in (key, n))) == b"OK"
    assert r(b"MGET", *keys) == [b"%d" % n for n in range(100)]
    assert r(b"MGET", *reversed(keys)) == [b"%d" % n for n in reversed(range(100))]
    r("RPUSH list a")
    assert r("MGET key:5 nothing key:7 key:5 list") == [b"5", None, b"7", b"5", None]
    assert r("MSET a 1 a 2 b 3 a 4") == b"OK" and r("MGET a b a") == [b"4", b"3", b"4"]
    assert r("EXISTS a b a nothing") == 3 and r("TOUCH a b nothing a") == 3
    assert r("DEL a b a nothing") == 2 and r("EXISTS a b") == 0
    assert r(b"UNLINK", *keys) == 100 and r("DBSIZE") == 1
    assert (
        r("MSETNX {t}a 1 {t}b 2") == 1
        and r("MSETNX {t}b 3 {t}c 4") == 0
        and r("MGET {t}a {t}b {t}c") == [b"1", b"2", None]
    )


def test_bitmaps(r: Client) -> None:
    assert r("SETBIT b 7 1") == 0 and r("SETBIT b 7 1") == 1 and r("GETBIT b 7") == 1 and r("GETBIT b 100") == 0
    r("SET {b}1 foobar")
    r("SET {b}2 abcdef")
    assert r("BITCOUNT {b}1") == 26 and r("BITCOUNT {b}1 1 1") == 6 and r("BITCOUNT {b}1 5 30 BIT") == 17
    assert r("BITPOS b 1") == 7 and r("BITPOS {b}1 0 2") == 16
    assert r("BITOP AND {b}d {b}1 {b}2") == 6 and r("GET {b}d") == b"`bc`ab"
    assert r("BITOP NOT {b}d {b}1") == 6
    assert r("BITFIELD f SET u8 0 255 INCRBY u8 0 10 OVERFLOW SAT INCRBY u8 8 300 GET u8 0") == [0, 9, 255, 9]
    assert r("BITFIELD_RO f GET u8 0 GET u8 8") == [9, 255]


def test_hyperloglog(r: Client) -> None:
    assert r("PFADD {h}1 a b c d") == 1 and r("PFADD {h}1 a") == 0 and r("PFCOUNT {h}1") == 4
    assert r("PFADD {h}2 d e") == 1 and r("PFCOUNT {h}1 {h}2") == 5
    assert r("PFMERGE {h}3 {h}1 {h}2") == b"OK" and r("PFCOUNT {h}3") == 5


def test_hashes(r: Client) -> None:
    assert r("HSET h a 1 b 2") == 2 and r("HSET h a 3") == 0 and r("HMSET h c 4") == b"OK"
    assert r("HGET h a") == b"3" and r("HGET h x") is None and r("HMGET h a x c") == [b"3", None, b"4"]
    assert r("HGETALL h") == [b"a", b"3", b"b", b"2", b"c", b"4"] and r("HGETALL nothing") == []
    assert r("HKEYS h") == [b"a", b"b", b"c"] and r("HVALS h") == [b"3", b"2", b"4"] and r("HLEN h") == 3
    assert r("HEXISTS h a") == 1 and r("HEXISTS h x") == 0 and r("HSTRLEN h a") == 1
    assert r("HSETNX h a 9") == 0 and r("HSETNX h d 9") == 1
    assert r("HINCRBY h a 2") == 5 and r("HINCRBYFLOAT h a 0.25") == b"5.25"
    assert r("HDEL h a x d") == 2 and sorted(r("HRANDFIELD h 5 WITHVALUES")) == [b"2", b"4", b"b", b"c"]
    assert r("HSCAN h 0") == [b"0", b"b", b"2", b"c", b"4"]


def test_lists(r: Client) -> None:
    assert r("RPUSH l b c d") == 3 and r("LPUSH l a") == 4 and r("LRANGE l 0 -1") == [b"a", b"b", b"c", b"d"]
    assert r("LPUSHX no a") == 0 and r("RPUSHX no a") == 0 and r("LLEN l") == 4
    assert r("LINDEX l 1") == b"b" and r("LINDEX l 9") is None
    assert r("LINSERT l BEFORE b x") == 5 and r("LINSERT l AFTER nothing x") == -1 and r("LPOS l x") == 1
    assert r("LPOS l x RANK 1 COUNT 0") == [1] and r("LSET l 0 z") == b"OK" and r("LREM l 0 x") == 1
    assert r("LTRIM l 0 2") == b"OK" and r("LRANGE l 0 -1") == [b"z", b"b", b"c"]
    assert r("LPOP l") == b"z" and r("RPOP l 5") == [b"c", b"b"] and r("LPOP l") is None and r("EXISTS l") == 0
    r("RPUSH {l}1 a b c")
    assert r("LMOVE {l}1 {l}2 LEFT RIGHT") == b"a" and r("RPOPLPUSH {l}1 {l}2") == b"c"
    assert r("LRANGE {l}2 0 -1") == [b"c", b"a"] and r("LMPOP 2 {l}0 {l}2 LEFT COUNT 2") == [b"{l}2", b"c", b"a"]
    assert r.error("LSET nothing 0 a").endswith("no such key")
