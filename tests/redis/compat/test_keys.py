"""Keys of any type, their expiry, scans, scripts, functions."""

from __future__ import annotations

import hashlib

from tests.redis.compat.conftest import Client


def test_keys(r: Client) -> None:
    r("SET a 1")
    r("RPUSH l 1")
    assert r("TYPE a") == b"string" and r("TYPE l") == b"list" and r("TYPE x") == b"none"
    assert (
        r("RENAME a {a}2") == b"OK" and r("RENAMENX {a}2 a") == 1 and r.error("RENAME {l}x l").endswith("no such key")
    )
    assert r("COPY a {a}3") == 1 and r("COPY a {a}3") == 0 and r("COPY a {a}3 REPLACE") == 1 and r("GET {a}3") == b"1"
    dumped = r("DUMP a")
    assert r(b"RESTORE", "b", "0", dumped) == b"OK" and r("GET b") == b"1"
    assert (
        r.error(b"RESTORE", "b", "0", dumped).startswith("BUSYKEY")
        and r(b"RESTORE", "b", "5000", dumped, "REPLACE") == b"OK"
    )
    assert 0 < r("PTTL b") <= 5000 and r("OBJECT ENCODING a") == b"int" and r("OBJECT REFCOUNT a") > 0
    assert r("OBJECT IDLETIME a") >= 0 and r("MEMORY USAGE a") > 0 and r("MEMORY USAGE nothing") is None
    r("RPUSH {n}l 3 1 2")
    assert (
        r("SORT {n}l") == [b"1", b"2", b"3"]
        and r("SORT {n}l DESC LIMIT 0 1") == [b"3"]
        and r("SORT_RO {n}l") == [b"1", b"2", b"3"]
    )
    assert r("SORT {n}l STORE {n}sorted") == 3 and r("LRANGE {n}sorted 0 -1") == [b"1", b"2", b"3"]
    for n in range(1, 4):
        r(f"SET {{n}}w{n} {-n}")
    assert r("SORT {n}l BY {n}w* GET # GET {n}w*") == [b"3", b"-3", b"2", b"-2", b"1", b"-1"]


def test_expiry(r: Client) -> None:
    r("SET a 1")
    assert r("TTL a") == -1 and r("TTL nothing") == -2 and r("EXPIRE nothing 9") == 0
    assert r("EXPIRE a 100") == 1 and 50 < r("TTL a") <= 100 and r("EXPIRE a 50 GT") == 0 and r("EXPIRE a 50 LT") == 1
    assert r("PEXPIRE a 90000") == 1 and 50000 < r("PTTL a") <= 90000 and r("PERSIST a") == 1 and r("PERSIST a") == 0
    assert r("EXPIREAT a 33177117420") == 1 and r("EXPIRETIME a") == 33177117420
    assert r("PEXPIREAT a 33177117420001") == 1 and r("PEXPIRETIME a") == 33177117420001
    assert r("SET a 1 KEEPTTL") == b"OK" and r("PEXPIRETIME a") == 33177117420001
    assert r("EXPIREAT a 1") == 1 and r("EXISTS a") == 0
    r("SET b 1 PX 1")
    while r("EXISTS b"):
        pass
    assert r("GET b") is None


def test_the_whole_database(r: Client) -> None:
    names = _fill(r)
    assert r("DBSIZE") == 301 and sorted(r("KEYS k:*")) == sorted(names) and r("KEYS l?st") == [b"list"]
    assert r("RANDOMKEY") in {*names, b"list"}
    assert r("FLUSHDB") == b"OK" and r("DBSIZE") == 0 and r("RANDOMKEY") is None


def test_scan(r: Client) -> None:
    names = _fill(r)
    for options, wanted in (("", [*names, b"list"]), ("MATCH k:1?", names[10:20]), ("TYPE list COUNT 50", [b"list"])):
        assert sorted(set(_scanned(r, options))) == sorted(wanted)
    r("FLUSHDB")
    assert _scanned(r, "") == []
    assert r.error("SCAN x").endswith("invalid cursor") and r.error("SCAN 0 COUNT x").endswith(
        "not an integer or out of range"
    )


def _scanned(r: Client, options: str) -> list[bytes]:
    cursor, found = b"0", []
    while True:
        cursor, *some = r(f"SCAN {cursor.decode()} {options}")
        found += some
        if cursor == b"0":
            return found


def _fill(r: Client) -> list[bytes]:
    """The names of 300 strings; beside them is a list."""
    names = [b"k:%d" % n for n in range(300)]
    r(b"MSET", *(word for name in names for word in (name, b"v")))
    r("RPUSH list a")
    return names


def test_scripts(r: Client) -> None:
    add = "redis.call('INCRBY',KEYS[1],ARGV[1]) return {KEYS[1],redis.call('GET',KEYS[1]),false,3.9,{1}}"
    assert r(b"EVAL", add, 1, "a", 5) == [b"a", b"5", None, 3, 1]
    sha = hashlib.sha1(add.encode()).hexdigest()
    assert r(b"EVALSHA", sha, 1, "a", 5) == [b"a", b"10", None, 3, 1]
    other = r(b"SCRIPT", "LOAD", "return redis.call('GET',KEYS[1])")
    assert r(b"SCRIPT", "EXISTS", sha, "0" * 40, other)[1:] == [0, 1]
    for key in ("a", "b", "c", "d"):  # wherever the key is, the script is there
        r(f"SET {key} {key}")
        assert r(b"EVALSHA", other, 1, key) == key.encode() == r(b"EVALSHA_RO", other, 1, key)
    assert r(b"EVAL_RO", "return redis.call('GET',KEYS[1])", 1, "a") == b"a"
    assert "rite commands are not allowed" in r.error(b"EVAL_RO", "return redis.call('DEL',KEYS[1])", 1, "a")
    assert r(b"EVAL", "return redis.call('MGET',unpack(KEYS))", 2, "{t}1", "{t}2") == [None, None]
    assert r.error(b"EVAL", "return redis.error_reply('MY own')", 0) == "MY own" and r(b"EVAL", "return 'x'", 0) == b"x"
    assert r("SCRIPT FLUSH") == b"OK" and r.error(b"EVALSHA", other, 1, "a").startswith("NOSCRIPT")


def test_functions(r: Client) -> None:
    code = (
        "#!lua name=mine\n"
        "redis.register_function('put', function(keys, args) return redis.call('SET', keys[1], args[1]) end)\n"
        "redis.register_function{function_name='look', flags={'no-writes'},"
        " callback=function(keys) return redis.call('GET', keys[1]) end}"
    )
    assert r(b"FUNCTION", "LOAD", code) == b"mine" and "already exists" in r.error(b"FUNCTION", "LOAD", code)
    for key in ("a", "b", "c", "d"):
        assert r(f"FCALL put 1 {key} {key}") == b"OK" and r(f"FCALL_RO look 1 {key}") == key.encode()
    listed = r("FUNCTION LIST")
    assert listed[listed.index(b"library_name") + 1] == b"mine"
    dumped = r("FUNCTION DUMP")
    assert r("FUNCTION DELETE mine") == b"OK" and "not found" in r.error("FCALL put 1 a a")
    assert r(b"FUNCTION", "RESTORE", dumped) == b"OK" and r("FCALL_RO look 1 d") == b"d"
    assert r("FUNCTION FLUSH") == b"OK" and r("FUNCTION LIST") == []
