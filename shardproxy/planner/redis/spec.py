"""What the front has to know of a Redis command: where its keys are, and which way it goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum


class Way(Enum):
    """How a command is carried out."""

    KEYED = "keyed"  # its keys must lie on one node: forwarded as it is
    SPLIT = "split"  # keys split over nodes, replies joined
    EVERY = "every"  # to all primaries, replies joined
    ANY = "any"  # to any node
    LOCAL = "local"  # the proxy answers
    OWN = "own"  # the session needs a connection of its own
    REFUSED = "refused"


class Join(Enum):
    """How the replies of several nodes become one."""

    NONE = "none"
    SUM = "sum"
    LIST = "list"
    OK = "ok"


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """One command. first, last, step: as COMMAND has them; 0, 0, 0: no keys at fixed places."""

    name: bytes
    way: Way
    write: bool
    first: int = 0
    last: int = 0
    step: int = 0
    find: Callable[[Sequence[bytes]], Sequence[int] | None] | None = None
    join: Join = Join.NONE
    refusal: str = ""
    min_args: int = 1


_READS = (
    "GET STRLEN GETRANGE SUBSTR HGET HMGET HGETALL HEXISTS HKEYS HVALS HLEN HSTRLEN HRANDFIELD HSCAN LLEN LRANGE "
    "LINDEX LPOS SCARD SISMEMBER SMISMEMBER SMEMBERS SRANDMEMBER SSCAN ZCARD ZCOUNT ZLEXCOUNT ZRANGE "
    "ZRANGEBYSCORE ZRANGEBYLEX ZREVRANGE ZREVRANGEBYSCORE ZREVRANGEBYLEX ZRANK ZREVRANK ZSCORE ZMSCORE "
    "ZRANDMEMBER ZSCAN GETBIT BITCOUNT BITPOS BITFIELD_RO GEODIST GEOHASH GEOPOS GEOSEARCH GEORADIUS_RO "
    "GEORADIUSBYMEMBER_RO TTL PTTL EXPIRETIME PEXPIRETIME TYPE DUMP XLEN XRANGE XREVRANGE XPENDING"
)
_WRITES = (
    "SET SETNX SETEX PSETEX APPEND INCR DECR INCRBY DECRBY INCRBYFLOAT GETSET GETDEL GETEX SETRANGE HSET HSETNX "
    "HMSET HDEL HINCRBY HINCRBYFLOAT LPUSH RPUSH LPUSHX RPUSHX LPOP RPOP LINSERT LSET LREM LTRIM SADD SREM SPOP "
    "ZADD ZINCRBY ZREM ZPOPMIN ZPOPMAX ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREMRANGEBYLEX SETBIT BITFIELD GEOADD "
    "EXPIRE PEXPIRE EXPIREAT PEXPIREAT PERSIST RESTORE XADD XDEL XTRIM XACK XCLAIM XAUTOCLAIM XSETID PFADD"
)
_SPECS = {name.encode(): CommandSpec(name.encode(), Way.KEYED, False, 1, 1, 1, min_args=2) for name in _READS.split()}
_SPECS |= {name.encode(): CommandSpec(name.encode(), Way.KEYED, True, 1, 1, 1, min_args=2) for name in _WRITES.split()}
_SPECS |= {
    name: CommandSpec(name, Way.SPLIT, write, 1, -1, step, join=join, min_args=1 + step)
    for name, write, step, join in (
        (b"MGET", False, 1, Join.LIST),
        (b"MSET", True, 2, Join.OK),
        (b"DEL", True, 1, Join.SUM),
        (b"UNLINK", True, 1, Join.SUM),
        (b"EXISTS", False, 1, Join.SUM),
        (b"TOUCH", False, 1, Join.SUM),
    )
}
_SPECS |= {
    name: CommandSpec(name, Way.LOCAL, False)
    for name in (b"PING", b"ECHO", b"AUTH", b"HELLO", b"SELECT", b"QUIT", b"RESET", b"CLIENT")
}
_SPECS[b"COMMAND"] = CommandSpec(b"COMMAND", Way.ANY, False)


def find_spec(args: Sequence[bytes]) -> CommandSpec | None:
    """The spec of a command; None: Redis has no such command, or none that is known."""
    return _SPECS.get(args[0].upper())


def key_indexes(spec: CommandSpec, args: Sequence[bytes]) -> Sequence[int]:
    """Places of the keys in a command's arguments."""
    if spec.find is not None:
        return spec.find(args) or ()
    if not spec.first:
        return ()
    last = spec.last if spec.last >= 0 else len(args) + spec.last
    return range(spec.first, min(last, len(args) - 1) + 1, spec.step)
