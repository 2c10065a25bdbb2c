"""Scripts by which keys go from one stock server to another, and what is kept on nodes for it.

Each node keeps, in database 1, which no client of ours can see:

- `shardproxy:fence`: a number that only grows. `opened(move)` while keys may be taken from here or put here by this
  move; `closed(move)` before that, while nothing of this move or any earlier one may. Scripts do nothing under another
  fence, so whatever was sent long ago and comes now does no harm.
- `shardproxy:arrived:MOVE` on the target: a set of the keys that were put there, so that none is put twice: it may
  have been deleted since.
- `shardproxy:shut:IDENTITY`: this proxy does not let itself in any more.
- `shardproxy:wait`: written before WAIT, which counts replicas that have what its connection has written last.

All three steps of a pull (take, put, drop) may be done again, by anybody, in any mixture: models/rediskeys.pml. A large
key is put by a mover in pieces: they make another key, of a name that only this mover has, which becomes the key in one
step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

DATABASE: Final = 1
STAYS: Final = b"_shardproxy:"  # keys that begin so belong to their node: entries of cached rows, and …
PARTS: Final = STAYS + b"parts:"  # … what has come of a large key
BIG: Final = 8 << 20  # bytes of memory; a key that has more goes in pieces
TOO_BIG: Final = b"-TOOBIG"  # the beginning of the error of `take` for such a key
FENCE: Final = b"shardproxy:fence"
CLOSED: Final = b"-CLOSED"  # the beginning of the error of a script under another fence
OCCUPIED: Final = b"-OCCUPIED"  # the target has the key, and nobody has put it there

_FENCED: Final = b"""
redis.call('SELECT', 1)
local fence = redis.call('GET', 'shardproxy:fence')
redis.call('SELECT', 0)
if fence ~= ARGV[1] then return redis.error_reply('CLOSED the fence is ' .. tostring(fence)) end
"""
TAKE: Final = (
    _FENCED
    + b"""
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
if redis.call('MEMORY', 'USAGE', KEYS[1]) > tonumber(ARGV[2]) then
    return redis.error_reply('TOOBIG the key goes in pieces')
end
local value = redis.call('DUMP', KEYS[1])
if not value then return false end
return {value, redis.call('PEXPIRETIME', KEYS[1])}
"""
)
PUT: Final = (
    _FENCED
    + b"""
redis.call('SELECT', 1)
local known = redis.call('SISMEMBER', ARGV[2], KEYS[1])
redis.call('SELECT', 0)
if known == 1 then return 0 end
if redis.call('EXISTS', KEYS[1]) == 1 then return redis.error_reply('OCCUPIED the key is there already') end
local expires = tonumber(ARGV[4])
if expires > 0 then
    redis.call('RESTORE', KEYS[1], ARGV[4], ARGV[3], 'ABSTTL')
else
    redis.call('RESTORE', KEYS[1], 0, ARGV[3])
end
redis.call('SELECT', 1)
redis.call('SADD', ARGV[2], KEYS[1])
return 1
"""
)
PIECE: Final = (
    _FENCED
    + b"""
local at = 2
while at <= #ARGV do
    local count = tonumber(ARGV[at])
    redis.call(unpack(ARGV, at + 1, at + count))
    at = at + 1 + count
end
return 1
"""
)
FINISH: Final = (
    _FENCED
    + b"""
redis.call('SELECT', 1)
local known = redis.call('SISMEMBER', ARGV[2], KEYS[2])
redis.call('SELECT', 0)
if known == 1 then redis.call('UNLINK', KEYS[1]) return 0 end
if redis.call('EXISTS', KEYS[2]) == 1 then
    redis.call('UNLINK', KEYS[1])
    return redis.error_reply('OCCUPIED the key is there already')
end
local length = redis.call(ARGV[4], KEYS[1])
if length ~= tonumber(ARGV[5]) then
    redis.call('UNLINK', KEYS[1])
    return redis.error_reply('ERR of ' .. ARGV[5] .. ' elements ' .. length .. ' have come')
end
redis.call('RENAME', KEYS[1], KEYS[2])
if tonumber(ARGV[3]) > 0 then redis.call('PEXPIREAT', KEYS[2], ARGV[3]) end
redis.call('SELECT', 1)
redis.call('SADD', ARGV[2], KEYS[2])
return 1
"""
)
DROP: Final = (
    _FENCED
    + b"""
local count = 0
for _, key in ipairs(KEYS) do count = count + redis.call('UNLINK', key) end
return count
"""
)
RAISE: Final = b"""
redis.call('SELECT', 1)
local fence = tonumber(redis.call('GET', 'shardproxy:fence') or '0')
if fence < tonumber(ARGV[1]) then redis.call('SET', 'shardproxy:fence', ARGV[1]) return tonumber(ARGV[1]) end
return fence
"""


MARK: Final = b"""
redis.call('SELECT', 1)
return redis.call('SET', 'shardproxy:wait', ARGV[1])
"""


def closed(move: int) -> int:
    """The fence under which nothing is taken or put, by this move or earlier ones."""
    return 2 * move


def opened(move: int) -> int:
    """The fence under which this move takes and puts keys."""
    return 2 * move + 1


def arrived(move: int) -> bytes:
    """Name of the set of the keys that this move has put on a node."""
    return b"shardproxy:arrived:%d" % move


def shut(identity: str) -> bytes:
    """Name of the key by which a proxy finds that it is shut out."""
    return b"shardproxy:shut:" + identity.encode()


def take(move: int, key: bytes, most: int = BIG) -> Sequence[bytes]:
    """Ask the source for a key: [its dump, when it expires in ms since 1970 or −1], or null: it is not there. most:
    bytes of memory; when it has more the answer is an error, TOO_BIG."""
    return [b"EVAL", TAKE, b"1", key, b"%d" % opened(move), b"%d" % most]


def put(move: int, key: bytes, dump: bytes, expires: int) -> Sequence[bytes]:
    """Put it on the target, unless it was there before. Integer."""
    return [b"EVAL", PUT, b"1", key, b"%d" % opened(move), arrived(move), dump, b"%d" % expires]


def parts(move: int, mover: bytes, key: bytes) -> bytes:
    """Name of what has come of a large key. mover: what no other one has."""
    return b"%b%d:%b:%b" % (PARTS, move, mover, key)


def piece(move: int, name: bytes, commands: Sequence[Sequence[bytes]]) -> Sequence[bytes]:
    """Do commands on what has come of a large key. Integer."""
    words = [word for each in commands for word in (b"%d" % len(each), *each)]
    return [b"EVAL", PIECE, b"1", name, b"%d" % opened(move), *words]


def finish(move: int, name: bytes, key: bytes, expires: int, count: bytes, length: int) -> Sequence[bytes]:
    """Let what has come be the key, as `put`. count, length: the command that tells how much there is, and how much
    there must be. Integer; then there is nothing more by the first name, nor after an error of the script itself."""
    last = [arrived(move), b"%d" % expires, count, b"%d" % length]
    return [b"EVAL", FINISH, b"2", name, key, b"%d" % opened(move), *last]


def drop(fence: int, keys: Sequence[bytes]) -> Sequence[bytes]:
    """Delete keys where they must not be (any more), under this fence only. Integer: how many there were."""
    return [b"EVAL", DROP, b"%d" % len(keys), *keys, b"%d" % fence]


def wait_for(replicas: int, milliseconds: int) -> Sequence[Sequence[bytes]]:
    """Two commands behind others on one connection. The second one's reply: how many replicas have what is before."""
    return [[b"EVAL", MARK, b"0", b"1"], [b"WAIT", b"%d" % replicas, b"%d" % milliseconds]]


def raise_fence(fence: int) -> Sequence[bytes]:
    """Raise the fence, if it is lower. Integer: what it is now."""
    return [b"EVAL", RAISE, b"0", b"%d" % fence]
