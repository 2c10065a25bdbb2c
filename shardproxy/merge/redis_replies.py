"""Several nodes' replies to one Redis command, made into the one that a single server with all keys would send.

Replies are whole wire bytes, of RESP2 or RESP3. The parts of a SPLIT command are joined by `join_split`, the replies
of all nodes by `join_every`. An error among them is the answer: that of the
part with the earliest key, or of the first node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from shardproxy.errors import RemoteProtocolError
from shardproxy.merge.redis_info import join_info
from shardproxy.planner.redis.command import Join


def join_split(join: Join, replies: Sequence[bytes], keys: Sequence[Sequence[int]]) -> bytes:
    """keys: for each reply, which of the command's keys it is about, ascending. Raises RemoteProtocolError."""
    wrong = _first_error(replies, keys)
    if wrong is not None:
        return wrong
    if join is not Join.LIST:
        return join_every(join, replies)
    found: list[bytes] = [b""] * sum(map(len, keys))
    for reply, numbers in zip(replies, keys, strict=True):
        values = elements(reply)
        if len(values) != len(numbers):
            raise RemoteProtocolError(f"{len(values)} values for {len(numbers)} keys")
        for number, value in zip(numbers, values, strict=True):
            found[number] = value
    return _array(found)


def join_every(join: Join, replies: Sequence[bytes], args: Sequence[bytes] = ()) -> bytes:
    """args: the command, for joins that depend on it (SLOWLOG). Raises RemoteProtocolError for what cannot be joined,
    ValueError for a join that is not of whole replies (LIST, CURSOR)."""
    if join is Join.STOPPED:
        return next((reply for reply in replies if not _is_error(reply)), replies[0])
    for reply in replies:
        if _is_error(reply):
            return reply
    if join is Join.SLOWLOG:
        return _newest(replies, args)
    how = _JOINS.get(join)
    if how is None:
        raise ValueError(f"replies are not joined by {join}")
    return how(replies)


def elements(reply: bytes) -> list[bytes]:
    """The elements of an array, set or push, as wire bytes. Raises RemoteProtocolError for another or broken reply."""
    if reply[:1] not in (b"*", b"~", b">"):
        raise RemoteProtocolError(f"an array was due, not {reply[:40]!r}")
    head = reply.find(b"\r\n")
    try:
        at = head + 2
        found = []
        for _ in range(int(reply[1:head])):
            end = _end(reply, at)
            found.append(reply[at:end])
            at = end
    except ValueError as error:
        raise RemoteProtocolError(f"a broken reply: {error}") from error
    if at != len(reply) or head < 0:
        raise RemoteProtocolError("a broken reply")
    return found


def _end(data: bytes, at: int) -> int:
    """The end of the value at data[at]. Raises ValueError when it is broken."""
    due = 1
    while due:
        line = data.index(b"\r\n", at)
        kind = data[at : at + 1]
        if kind in (b"$", b"=", b"!"):
            size = int(data[at + 1 : line])
            at = line + 2 if size < 0 else line + 4 + size
        else:
            if kind in (b"*", b"~", b">"):
                due += max(0, int(data[at + 1 : line]))
            elif kind == b"%":
                due += 2 * int(data[at + 1 : line])
            elif kind == b"|":
                due += 2 * int(data[at + 1 : line]) + 1
            at = line + 2
        due -= 1
    if at > len(data):
        raise ValueError("it is not whole")
    return at


def _is_error(reply: bytes) -> bool:
    return reply[:1] in (b"-", b"!")


def _first_error(replies: Sequence[bytes], keys: Sequence[Sequence[int]]) -> bytes | None:
    wrong = [(numbers[0], reply) for reply, numbers in zip(replies, keys, strict=True) if _is_error(reply)]
    return min(wrong)[1] if wrong else None


def _array(values: Sequence[bytes]) -> bytes:
    return b"*%d\r\n%b" % (len(values), b"".join(values))


def _number(reply: bytes) -> int:
    if reply[:1] != b":":
        raise RemoteProtocolError(f"a number was due, not {reply[:40]!r}")
    return int(reply[1:-2])


def _of_numbers(function: Callable[[Iterable[int]], int]) -> Callable[[Sequence[bytes]], bytes]:
    return lambda replies: b":%d\r\n" % function(map(_number, replies))


def _rows(replies: Sequence[bytes]) -> list[tuple[bytes, ...]]:
    """The values at each place of all replies."""
    lists = [elements(reply) for reply in replies]
    if len({len(values) for values in lists}) != 1:
        raise RemoteProtocolError("replies of different length")
    return list(zip(*lists, strict=True))


def _sum_pairs(replies: Sequence[bytes]) -> bytes:
    joined = [b":%d\r\n" % sum(map(_number, row)) if place % 2 else row[0] for place, row in enumerate(_rows(replies))]
    return _array(joined)


def _newest(replies: Sequence[bytes], args: Sequence[bytes]) -> bytes:
    """SLOWLOG GET [count], COMMANDLOG GET count type: an entry's second value is its time."""
    entries = [entry for reply in replies for entry in elements(reply)]
    entries.sort(key=lambda entry: _number(elements(entry)[1]), reverse=True)
    count = int(args[2]) if len(args) > 2 else 10
    return _array(entries if count < 0 else entries[:count])


def _found(replies: Sequence[bytes]) -> bytes:
    return next((reply for reply in replies if reply not in (b"$-1\r\n", b"_\r\n", b"*-1\r\n")), replies[0])


def _all(replies: Sequence[bytes]) -> list[bytes]:
    return [value for reply in replies for value in elements(reply)]


_JOINS: Mapping[Join, Callable[[Sequence[bytes]], bytes]] = {
    Join.NONE: lambda replies: replies[0],
    Join.SAME: lambda replies: replies[0],
    Join.OK: lambda replies: replies[0],
    Join.SUM: _of_numbers(sum),
    Join.MIN: _of_numbers(min),
    Join.MAX: _of_numbers(max),
    Join.CONCAT: lambda replies: _array(_all(replies)),
    Join.UNION: lambda replies: _array(list(dict.fromkeys(_all(replies)))),
    Join.MIN_LIST: lambda replies: _array([b":%d\r\n" % min(map(_number, row)) for row in _rows(replies)]),
    Join.SUM_PAIRS: _sum_pairs,
    Join.FOUND: _found,
    Join.INFO: join_info,
}
