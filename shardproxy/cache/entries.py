"""What the cache keeps on a Redis node: names, entries, and the scripts that change them. Pure.

Every step that must be one step on the node is one command or one script (docs/cache.md, models/cache.pml).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import sha1
from secrets import token_hex

TOMBSTONE = b"T"
_LEASE, _VALUE, _ABSENT = b"L", b"V", b"N"


@dataclass(frozen=True, slots=True)
class Names:
    """Names of keys on one node. run: of the node's process: what an earlier one has kept on disk is never met. digest:
    of the cache's configuration: proxies that differ in it share nothing."""

    run: str
    digest: str

    def entry(self, rows: str, parts: Sequence[int]) -> bytes:
        """The entry of a row. parts: its primary key, in the table's order."""
        return f"{self._prefix}row:{rows}:{':'.join(map(str, parts))}".encode()

    def mark(self, shard: str) -> bytes:
        """The shard's mark: its generation, for as long as entries of it can be believed."""
        return f"{self._prefix}mark:{shard}".encode()

    def place(self, shard: str) -> bytes:
        """Generation, and place in the shard's binlog up to which entries are invalidated."""
        return f"{self._prefix}place:{shard}".encode()

    def table(self, rows: str) -> bytes:
        """Strict mode: the table's token, a part of the tags of its entries; for `hold_off` after a write of which the
        rows are not known, a tombstone in its place."""
        return f"{self._prefix}table:{rows}".encode()

    def queried(self, table: tuple[str, str]) -> bytes:
        """The table's token for kept answers of queries, as `table`; each write to the table puts a tombstone there."""
        return f"{self._prefix}queried:{'.'.join(table)}".encode()

    def answer(self, key: bytes) -> bytes:
        """The entry of a query's answer."""
        return self._prefix.encode() + b"answer:" + key

    @property
    def _prefix(self) -> str:
        return f"_shardproxy:{self.run}:{self.digest}:"


class State(Enum):
    """What an entry says."""

    NOTHING = "nothing"  # there is none, or one of another generation or map
    VALUE = "value"
    ABSENT = "absent"  # there is no such row
    LEASE = "lease"  # somebody loads it
    TOMBSTONE = "tombstone"  # it was written a moment ago: nothing may be filled


def tag(generation: bytes, epoch: int) -> bytes:
    """What a value must have been loaded under to be believed: the mark's generation, the map's epoch."""
    return b"%s.%d " % (generation, epoch)


def value(wanted: bytes, payload: bytes | None) -> bytes:
    """An entry for a row, or for none. wanted: its tag."""
    return _ABSENT + wanted if payload is None else _VALUE + wanted + payload


def read(entry: bytes | None, wanted: bytes) -> tuple[State, bytes]:
    """What an entry says to who looks for a tag, and the payload."""
    if entry is None:
        return State.NOTHING, b""
    kind = entry[:1]
    if kind == TOMBSTONE:
        return State.TOMBSTONE, b""
    if is_lease(entry):
        return State.LEASE, b""
    if not entry.startswith(wanted, 1):
        return State.NOTHING, b""
    return (State.VALUE, entry[1 + len(wanted) :]) if kind == _VALUE else (State.ABSENT, b"")


def is_lease(entry: bytes | None) -> bool:
    """Whether somebody loads what belongs here; the same for all tags."""
    return entry is not None and entry[:1] == _LEASE


# In front of the payload of a value that may be loaded anew while it is given: the node's time in milliseconds from
# which on somebody may do that, and a token that nobody else has: of who does it, or who filled it. As a part of the
# entry it is void as soon as the entry is.
_TIME, _TOKEN = 13, 16
STAMP = _TIME + _TOKEN


def stamp_token() -> bytes:
    """A new one."""
    return token_hex(_TOKEN // 2).encode()


def due_at(stamped: bytes) -> int:
    """From when on a stamped payload may be loaded anew. Milliseconds of the node's clock."""
    return int(stamped[:_TIME])


def two_values(reply: bytes) -> tuple[bytes | None, bytes | None]:
    """Both values of an MGET of two keys. Raises ValueError for another reply."""
    if reply[:4] != b"*2\r\n":
        raise ValueError("two values were due")
    first, at = _bulk(reply, 4)
    second, at = _bulk(reply, at)
    if at != len(reply):
        raise ValueError("more than two values")
    return first, second


def three_values(reply: bytes) -> tuple[bytes | None, bytes | None, bytes | None]:
    """As `two_values`."""
    if reply[:4] != b"*3\r\n":
        raise ValueError("three values were due")
    first, at = _bulk(reply, 4)
    second, at = _bulk(reply, at)
    third, at = _bulk(reply, at)
    if at != len(reply):
        raise ValueError("more than three values")
    return first, second, third


def all_values(reply: bytes, count: int) -> list[bytes | None]:
    """As `two_values`, of so many keys."""
    head = b"*%d\r\n" % count
    if not reply.startswith(head):
        raise ValueError(f"{count} values were due")
    found: list[bytes | None] = []
    at = len(head)
    for _ in range(count):
        one, at = _bulk(reply, at)
        found.append(one)
    if at != len(reply):
        raise ValueError(f"more than {count} values")
    return found


def _bulk(reply: bytes, at: int) -> tuple[bytes | None, int]:
    begin = reply.index(b"\r\n", at) + 2
    if reply[at] != 36:  # $
        raise ValueError("a bulk string was due")
    size = int(reply[at + 1 : begin - 2])
    if size < 0:
        return None, begin
    end = begin + size
    if reply[end : end + 2] != b"\r\n":
        raise ValueError("a bulk string with another end")
    return reply[begin:end], end + 2


class Script:
    """A script, and its name on a node that has seen it."""

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.name = sha1(self.text, usedforsecurity=False).hexdigest().encode()

    def words(self, keys: Sequence[bytes], arguments: Sequence[bytes], known: bool = True) -> list[bytes]:
        """The command that runs it. known: by its name, which the node may not know (NOSCRIPT)."""
        head = [b"EVALSHA", self.name] if known else [b"EVAL", self.text]
        return [*head, b"%d" % len(keys), *keys, *arguments]


# Key: entry. Arguments: token, milliseconds, tag. 1: the lease is ours.
TAKE_LEASE = Script("""
local entry = redis.call('GET', KEYS[1])
if entry then
  local kind = string.sub(entry, 1, 1)
  if kind == 'T' or kind == 'L' or string.sub(entry, 2, 1 + #ARGV[3]) == ARGV[3] then return 0 end
end
redis.call('SET', KEYS[1], 'L' .. ARGV[1], 'PX', ARGV[2])
return 1
""")

# Key: entry. Arguments: token, entry to be, milliseconds (0: the lease is given back). 1: done; 0: the lease is void.
FILL = Script("""
if redis.call('GET', KEYS[1]) ~= 'L' .. ARGV[1] then return 0 end
if ARGV[3] == '0' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1
""")

_STAMPED = """
local function stamp(later, token)
  local time = redis.call('TIME')
  return string.format('%013.0f', time[1] * 1000 + math.floor(time[2] / 1000) + later) .. token
end
"""

# FILL for a value with a stamp. Arguments: the lease's token, kind and tag, stamp's token, payload, milliseconds, and
# those until it may be loaded anew.
FILL_STAMPED = Script(
    _STAMPED
    + """
if redis.call('GET', KEYS[1]) ~= 'L' .. ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2] .. stamp(ARGV[6], ARGV[3]) .. ARGV[4], 'PX', ARGV[5])
return 1
"""
)

# Key: entry. Arguments: kind, tag and stamp as they were seen, token, milliseconds of the lease. 1: it is due, and
# ours.
TAKE_REFRESH = Script(
    _STAMPED
    + """
local seen = ARGV[1]
if redis.call('GETRANGE', KEYS[1], 0, #seen - 1) ~= seen then return 0 end
if stamp(0, '') < string.sub(seen, -29, -17) then return 0 end
redis.call('SETRANGE', KEYS[1], #seen - 29, stamp(ARGV[3], ARGV[2]))
return 1
"""
)

# Key: entry. Arguments: kind and tag of the value to be replaced, token, entry to be (without its stamp up to the
# payload), payload, milliseconds (0: it goes), those until it may be loaded anew (-1: no stamp). 1: done; 0: the value
# is not the one of which the token is.
REFILL = Script(
    _STAMPED
    + """
local head = ARGV[1]
if redis.call('GETRANGE', KEYS[1], 0, #head - 1) ~= head then return 0 end
if redis.call('GETRANGE', KEYS[1], #head + 13, #head + 28) ~= ARGV[2] then return 0 end
if ARGV[5] == '0' then redis.call('DEL', KEYS[1]) return 1 end
local entry = ARGV[3]
if ARGV[6] ~= '-1' then entry = entry .. stamp(ARGV[6], ARGV[2]) end
redis.call('SET', KEYS[1], entry .. ARGV[4], 'PX', ARGV[5])
return 1
"""
)

# Keys: entries. Argument: milliseconds of the hold-off, the same for all who may invalidate them.
INVALIDATE = Script("""
for _, key in ipairs(KEYS) do redis.call('SET', key, 'T', 'PX', ARGV[1]) end
return #KEYS
""")

# Keys: mark, place. Arguments: generation, the node's time in milliseconds until which it holds, place, '1' for a new
# generation. 1: done; 0: the generation is not the node's.
MARK = Script("""
local known = redis.call('GET', KEYS[2])
if ARGV[4] == '1' then
  if known then return 0 end
elseif not known or string.sub(known, 1, #ARGV[1] + 1) ~= ARGV[1] .. ' ' then
  return 0
end
redis.call('SET', KEYS[2], ARGV[1] .. ' ' .. ARGV[3])
if redis.call('PEXPIRETIME', KEYS[1]) < tonumber(ARGV[2]) or redis.call('GET', KEYS[1]) ~= ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[1], 'PXAT', ARGV[2])
end
return 1
""")
