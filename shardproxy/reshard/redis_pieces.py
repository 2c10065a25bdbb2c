"""Large Redis keys, a piece at a time: commands that make another key the same.

A key is read while nobody writes it. An element (a field, a member, an entry) goes in one piece, whatever its size; a
string by parts. What is not of these types, such as modules' own, cannot be read by parts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

from redis.exceptions import ResponseError

from shardproxy.reshard.redis_nodes import NodeControl, NodeError

PIECE: Final = 1 << 20  # bytes, about
_MOST: Final = 1000  # elements of a piece: a script's stack holds some thousand words
LENGTHS: Final = {
    b"string": b"STRLEN",
    b"list": b"LLEN",
    b"set": b"SCARD",
    b"hash": b"HLEN",
    b"zset": b"ZCARD",
    b"stream": b"XLEN",
}  # type → what tells how much a key has

Words = Sequence[bytes]
Pieces = AsyncIterator[list[Words]]


def pieces_of(node: NodeControl, key: bytes, kind: bytes, size: int, length: int, name: bytes) -> Pieces:
    """Lists of commands that make `name` what `key` is, but for when it expires. kind: one of LENGTHS. size: bytes of
    memory; length: as LENGTHS tell. Raises NodeError."""
    count = max(1, min(_MOST, PIECE * length // max(size, 1)))
    return _READERS[kind](node, key, count, name)


async def _string(node: NodeControl, key: bytes, _: int, name: bytes) -> Pieces:
    at = 0
    while part := await node.ask([b"GETRANGE", key, b"%d" % at, b"%d" % (at + PIECE - 1)]):
        yield [[b"APPEND", name, part]]
        at += len(part)


async def _list(node: NodeControl, key: bytes, count: int, name: bytes) -> Pieces:
    at = 0
    while part := await node.ask([b"LRANGE", key, b"%d" % at, b"%d" % (at + count - 1)]):
        yield [[b"RPUSH", name, *part]]
        at += len(part)


async def _scan(node: NodeControl, scan: bytes, key: bytes, count: int) -> AsyncIterator[list[bytes]]:
    cursor = b"0"
    while True:
        cursor, part = await node.ask([scan, key, cursor, b"COUNT", b"%d" % count])
        for at in range(0, len(part), 2 * _MOST):  # a small hash comes whole, whatever is asked for
            yield part[at : at + 2 * _MOST]
        if cursor == b"0":
            return


async def _set(node: NodeControl, key: bytes, count: int, name: bytes) -> Pieces:
    async for part in _scan(node, b"SSCAN", key, count):
        yield [[b"SADD", name, *part]]


async def _hash(node: NodeControl, key: bytes, count: int, name: bytes) -> Pieces:
    expire = True  # whether the node knows fields that expire
    async for part in _scan(node, b"HSCAN", key, count):
        if expire:
            fields = part[::2]
            [times] = await node.ask_all([[b"HPEXPIRETIME", key, b"FIELDS", b"%d" % len(fields), *fields]])
            if isinstance(times, ResponseError):
                if "unknown command" not in str(times):
                    raise NodeError(f"node {node.name}: {times}")
                expire = False
            elif any(time != -1 for time in times):
                raise NodeError(
                    f"hash {key.decode(errors='backslashreplace')} on node {node.name} has fields that expire, and is "
                    "too large to be moved in one piece; `resume` with a larger --biggest, or shrink it"
                )
        yield [[b"HSET", name, *part]]


async def _sorted(node: NodeControl, key: bytes, count: int, name: bytes) -> Pieces:
    async for part in _scan(node, b"ZSCAN", key, count):
        words = [word for at in range(0, len(part), 2) for word in (part[at + 1], part[at])]
        yield [[b"ZADD", name, *words]]


async def _stream(node: NodeControl, key: bytes, count: int, name: bytes) -> Pieces:
    about = _fields(await node.ask([b"XINFO", b"STREAM", key]))
    groups = [_fields(each) for each in await node.ask([b"XINFO", b"GROUPS", key])]
    yield [[b"XGROUP", b"CREATE", name, b"g", b"0", b"MKSTREAM"], [b"XGROUP", b"DESTROY", name, b"g"]]
    begin = b"-"
    while part := await node.ask([b"XRANGE", key, begin, b"+", b"COUNT", b"%d" % count]):
        yield [[b"XADD", name, ident, *fields] for ident, fields in part]
        begin = b"(" + part[-1][0]
    last = [b"XSETID", name, about[b"last-generated-id"]]
    yield [
        [*last, b"ENTRIESADDED", b"%d" % about[b"entries-added"], b"MAXDELETEDID", about[b"max-deleted-entry-id"]],
    ]
    for group in groups:
        async for commands in _group(node, key, group, count, name):
            yield commands


async def _group(node: NodeControl, key: bytes, group: dict[bytes, Any], count: int, name: bytes) -> Pieces:
    ident = group[b"name"]
    read = [] if group[b"entries-read"] is None else [b"ENTRIESREAD", b"%d" % group[b"entries-read"]]
    yield [[b"XGROUP", b"CREATE", name, ident, group[b"last-delivered-id"], *read]]
    consumers = [_fields(each)[b"name"] for each in await node.ask([b"XINFO", b"CONSUMERS", key, ident])]
    for at in range(0, len(consumers), _MOST):
        yield [[b"XGROUP", b"CREATECONSUMER", name, ident, each] for each in consumers[at : at + _MOST]]
    begin = b"-"
    while part := await node.ask([b"XPENDING", key, ident, begin, b"+", b"%d" % count]):
        yield [
            [b"XCLAIM", name, ident, who, b"0", entry, b"IDLE", b"%d" % idle, b"RETRYCOUNT", b"%d" % times, b"FORCE",
             b"JUSTID"]
            for entry, who, idle, times in part
        ]  # fmt: skip
        begin = b"(" + part[-1][0]


def _fields(told: Any) -> dict[bytes, Any]:
    """A map, which comes as a flat list in RESP2."""
    if isinstance(told, dict):
        return told
    flat = list(told)
    return dict(zip(flat[::2], flat[1::2], strict=True))


_READERS: Final[dict[bytes, Callable[[NodeControl, bytes, int, bytes], Pieces]]] = {
    b"string": _string,
    b"list": _list,
    b"set": _set,
    b"hash": _hash,
    b"zset": _sorted,
    b"stream": _stream,
}
