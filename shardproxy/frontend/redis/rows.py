"""Redis commands whose keys are rows of MySQL tables (`[cache.rows]`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from shardproxy.backend.redis.slot import Slot, Turn
from shardproxy.cache.documents import hash_field, hash_reply
from shardproxy.cache.patterns import CachedRows
from shardproxy.cache.row_cache import Row, RowCache
from shardproxy.planner.redis.spec import CommandSpec, key_indexes
from shardproxy.protocol.redis import encode

if TYPE_CHECKING:
    from shardproxy.frontend.redis.connection import RedisClient
    from shardproxy.frontend.redis.row_writes import Found, RowWriter

MOST = 4096  # commands of a worker that wait for rows at once

_WRONG_TYPE = encode.error("WRONGTYPE Operation against a key holding the wrong kind of value")
_READS = "GET, MGET, HGET, HMGET, HGETALL, EXISTS, TYPE, TTL and PTTL"
Words = Sequence[bytes]
Made = Callable[[Words, list[Row], bool], bytes]  # a command, its rows, RESP3 → the reply


def _get(words: Words, rows: list[Row], resp3: bool) -> bytes:
    return encode.bulk(rows[0], resp3)


def _mget(words: Words, rows: list[Row], resp3: bool) -> bytes:
    return encode.array([encode.bulk(row, resp3) for row in rows])


def _hgetall(words: Words, rows: list[Row], resp3: bool) -> bytes:
    return hash_reply(b"*0\r\n" if rows[0] is None else rows[0], resp3)


def _field(row: Row, name: bytes, resp3: bool) -> bytes:
    return (None if row is None else hash_field(row, name)) or encode.bulk(None, resp3)


def _hget(words: Words, rows: list[Row], resp3: bool) -> bytes:
    return _field(rows[0], words[2], resp3)


def _hmget(words: Words, rows: list[Row], resp3: bool) -> bytes:
    return encode.array([_field(rows[0], name, resp3) for name in words[2:]])


def _exists(words: Words, rows: list[Row], resp3: bool) -> bytes:
    return encode.integer(sum(row is not None for row in rows))


def _ttl(words: Words, rows: list[Row], resp3: bool) -> bytes:
    return encode.integer(-2 if rows[0] is None else -1)  # a row does not expire


# Command → form of rows that it takes ("": any), and how its reply is made.
_COMMANDS: dict[bytes, tuple[str, Made]] = {
    b"GET": ("json", _get),
    b"MGET": ("json", _mget),
    b"HGET": ("hash", _hget),
    b"HMGET": ("hash", _hmget),
    b"HGETALL": ("hash", _hgetall),
    b"EXISTS": ("", _exists),
    b"TTL": ("", _ttl),
    b"PTTL": ("", _ttl),
    b"TYPE": ("", _get),  # from the form: see _Command
}
# Command → form of rows that it writes ("": any).
_WRITES = {b"SET": "json", b"HSET": "hash", b"HMSET": "hash", b"DEL": "", b"UNLINK": ""}


class RowCommands:
    """What a worker's clients share. owns: whether a key is, or looks like, a row's."""

    def __init__(self, cache: RowCache, turn: Turn) -> None:
        self.cache = cache
        self.owns = cache.patterns.owns
        self.turn = turn
        self.pending = 0
        self.writer: RowWriter | None = None  # some rows may be written
        self._waiting: list[RedisClient] = []

    @property
    def full(self) -> bool:
        return self.pending >= MOST

    def when_free(self, client: RedisClient) -> None:
        """Tell the client once, by `go_on`, when rows may be asked for again."""
        self._waiting.append(client)

    def wanted_by(self, spec: CommandSpec, words: Words) -> bool:
        """Whether one of a command's keys is a row's."""
        return not spec.channels and any(self.owns(words[i]) for i in key_indexes(spec, words))

    def take(self, client: RedisClient, spec: CommandSpec, words: Words) -> bool | None:
        """Answer a command, now or later, if one of its keys is a row's. None: it is another's. False: no other before
        it is done, or, where it has to wait for those before it, before it was taken again."""
        if spec.name == b"GET" and self._get(client, words):
            return True
        if not self.wanted_by(spec, words):
            return None
        keys = [words[i] for i in key_indexes(spec, words)]
        owned = [key for key in keys if self.owns(key)]
        writes = self.writer is not None and spec.name in _WRITES and all(row.write for row in self._near(owned[0]))
        if writes and client.waits_for_earlier():
            return False
        whole = client.later()
        error = ""
        if spec.name not in _COMMANDS and not writes:
            shown = spec.name.decode().replace("|", " ")
            error = f"{shown} of {_text(owned[0])}: keys like this are rows of {self._labels(owned[0])}; "
            error += f"{_READS} read them, and SQL writes them"
            if spec.name in _WRITES:
                error += ", or this command does with cache.rows.NAME.write = true"
        elif len(owned) < len(keys):
            error = f"rows and other keys in one command ({_text(owned[0])} is a row): ask for them apart"
        places = [self.cache.patterns.find(key) for key in keys] if not error else []
        form, make = _COMMANDS.get(spec.name, (_WRITES.get(spec.name, ""), _get))
        for key, place in zip(keys, places, strict=False):
            if place is None:
                error = f"{_text(key)} is no key of a row: it must look like {self._shapes(key)}, with integers as "
                error += "they are written without leading zeros"
            elif form and place[0].form != form:
                whole.settle(self.turn, _WRONG_TYPE)
                return True
        if error:
            whole.settle(self.turn, encode.error(f"ERR shardproxy: {error}"))
            return True
        self.pending += 1
        found = [place for place in places if place is not None]
        if writes:
            readable = next((rows.label for rows, _ in found if not rows.write), "")
            if readable:
                whole.settle(self.turn, encode.error(f"ERR shardproxy: rows of {readable} are read only here"))
                self.ended()
                return True
            self.cache.later(self._write(whole, spec.name, words, found))
            client.wait_for_reply()
            return False
        command = _Command(self, whole, words, make, len(found), client.session.resp3)
        if spec.name == b"TYPE":
            command.kind = b"string" if found[0][0].form == "json" else b"hash"
        for number, (key, (rows, parts)) in enumerate(zip(keys, found, strict=True)):
            self.cache.read(key, rows, parts, command.part(number))
        return True

    async def _write(self, whole: Slot, name: bytes, words: Words, found: Found) -> None:
        assert self.writer is not None
        reply = encode.error("ERR shardproxy: internal error; it has been logged")
        try:
            reply = await self.writer.write(name, words, found)
        finally:
            whole.settle(self.turn, reply)
            self.ended()

    def not_in_transaction(self, spec: CommandSpec, words: Words) -> bytes:
        """The error for a command behind MULTI that has a row's key; empty for others."""
        if spec.channels:
            return b""
        owned = next((words[i] for i in key_indexes(spec, words) if self.owns(words[i])), None)
        if owned is None:
            return b""
        return encode.error(
            f"ERR shardproxy: {_text(owned)} is a row of {self._labels(owned)}, which no transaction can have: read it "
            "before MULTI or behind EXEC"
        )

    def _get(self, client: RedisClient, words: Words) -> bool:
        """GET of a row that has been read before, which is most of what is asked. False: look closer."""
        place = self.cache.known(words[1])
        if place is None or place.rows.form != "json":
            return False
        self.pending += 1
        self.cache.ask(place, _Get(self, client.later(), client.session.resp3))
        return True

    def ended(self) -> None:
        """A command has its rows."""
        self.pending -= 1
        if self._waiting and self.pending < MOST // 2:
            waiting, self._waiting = self._waiting, []
            for client in waiting:
                client.go_on()

    def _labels(self, key: bytes) -> str:
        return " or ".join(rows.label for rows in self._near(key))

    def _shapes(self, key: bytes) -> str:
        return " or ".join(rows.pattern for rows in self._near(key))

    def _near(self, key: bytes) -> list[CachedRows]:
        return list(self.cache.patterns.near(key))


class _Get:
    """Waits for the row of a GET."""

    __slots__ = ("_resp3", "_rows", "_whole")

    def __init__(self, rows: RowCommands, whole: Slot, resp3: bool) -> None:
        self._rows = rows
        self._whole = whole
        self._resp3 = resp3

    def __call__(self, row: Row, error: str) -> None:
        if self._whole.done:
            return  # a defect came to light behind the answer
        reply = encode.error(f"ERR shardproxy: {error}") if error else encode.bulk(row, self._resp3)
        self._whole.settle(self._rows.turn, reply)
        self._rows.ended()


class _Command:
    """Waits for all rows of one command."""

    def __init__(self, rows: RowCommands, whole: Slot, words: Words, make: Made, count: int, resp3: bool) -> None:
        self.kind = b""  # of TYPE
        self._rows = rows
        self._whole = whole
        self._words = words
        self._make = make
        self._resp3 = resp3
        self._found: list[Row] = [None] * count
        self._told: set[int] = set()
        self._missing = count
        self._error = ""

    def part(self, number: int) -> Callable[[Row, str], None]:
        """What is told the row with this number."""

        def came(row: Row, error: str) -> None:
            if number in self._told:
                return  # a defect came to light behind the answer
            self._told.add(number)
            self._found[number] = row
            self._error = self._error or error
            self._missing -= 1
            if not self._missing:
                self._end()

        return came

    def _end(self) -> None:
        if self._error:
            reply = encode.error(f"ERR shardproxy: {self._error}")
        elif self.kind:
            reply = b"+%b\r\n" % (b"none" if self._found[0] is None else self.kind)
        else:
            reply = self._make(self._words, self._found, self._resp3)
        self._whole.settle(self._rows.turn, reply)
        self._rows.ended()


def _text(key: bytes) -> str:
    return key[:100].decode(errors="replace")
