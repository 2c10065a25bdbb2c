"""Entries of lookup indexes: what servers say of rows' values, and changing entries with the rows."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from shardproxy.backend.connection import BackendConnection, Reply
from shardproxy.backend.ddl_record import NEUTRAL
from shardproxy.errors import BackendError, SqlError, UnsupportedError
from shardproxy.executor.client import Client
from shardproxy.executor.enlist import Enlistment
from shardproxy.executor.request import Request
from shardproxy.planner import lookup_ascii, lookup_text
from shardproxy.planner.lookup_plan import Index, Part
from shardproxy.planner.lookup_rows import FoundRow, comparable, found_row, padded_parts
from shardproxy.planner.sort_keys import is_padded
from shardproxy.planner.template import Rewritten
from shardproxy.protocol.mysql.resultset import parse_resultset
from shardproxy.session.profile import profile
from shardproxy.topology.lookup import home

_LONGEST_KEY = 767  # bytes of a shard key in an entry
_AT_ONCE = 200  # statements, or rows of one
_KEPT_WEIGHTS = 10_000
_LONGEST_SHOWN = 64  # bytes of a value in a message
_DUPLICATE = 1062
_TAKEOVERS = 8

_blanks: dict[bool, dict[str, bytes]] = {True: {}, False: {}}  # MariaDB → collation → weight of a blank
_characters: dict[tuple[bool, str], dict[int, bytes] | None] = {}  # (MariaDB, collation) → see lookup_ascii
_weights: dict[tuple[bool, str, bytes], bytes] = {}  # (MariaDB, collation, text) → its bytes in an entry


@dataclass(frozen=True, slots=True)
class Entry:
    """shown: for messages; given: the value's parts as a server can be asked for them."""

    index: Index
    value: bytes
    key: bytes
    shown: bytes
    given: tuple[bytes, ...]


def failure(reply: Reply) -> SqlError:
    """A server's error as the client's."""
    return SqlError(reply.error_message, reply.error_code, reply.sqlstate)


async def rows_of(connection: BackendConnection, text: bytes) -> tuple[list[bytes | None], ...]:
    """The rows of a query of our own. Raises BackendError, BackendLost."""
    reply = await connection.query(text)
    if reply.failed:
        raise BackendError(_explained(reply), reply.error_code, reply.sqlstate)
    return parse_resultset(reply.data, connection.scanner.deprecate_eof).rows


def _explained(reply: Reply) -> str:
    if reply.error_code in (1049, 1054, 1146):
        return f"lookup indexes need the bookkeeping tables: run shardctl migrate ({reply.error_message})"
    if reply.error_code in (1044, 1142, 1143):
        return f"{reply.error_message}: the proxy's account must be able to read and write `_shardproxy`.*"
    return reply.error_message


# ── what rows have ──


async def found_rows(
    request: Request, connection: BackendConnection, text: Rewritten, indexes: Sequence[Index], primary: Sequence[Part]
) -> list[FoundRow]:
    """The rows of a query made of the statement, whose select list is lookup_text.select_list. Raises SqlError."""
    reply = await request.run(connection, text)
    if reply.failed:
        raise failure(reply)
    return await _found(connection, reply, indexes, primary, request.client.mariadb, request.binary)


async def asked_rows(
    connection: BackendConnection, text: bytes, indexes: Sequence[Index], primary: Sequence[Part], mariadb: bool
) -> list[FoundRow]:
    """The rows of such a query of our own. Raises SqlError."""
    reply = await connection.query(text)
    if reply.failed:
        raise failure(reply)
    return await _found(connection, reply, indexes, primary, mariadb, False)


async def _found(
    connection: BackendConnection,
    reply: Reply,
    indexes: Sequence[Index],
    primary: Sequence[Part],
    mariadb: bool,
    binary: bool,
) -> list[FoundRow]:
    rows = parse_resultset(reply.data, connection.scanner.deprecate_eof, binary).rows
    if not rows:
        return []
    for part in padded_parts(indexes):
        await _learn_blank(connection, part, mariadb)
    found = [found_row(row, indexes, primary, _blanks[mariadb]) for row in rows]
    if any(len(row.key) > _LONGEST_KEY for row in found):
        raise UnsupportedError(f"a shard key of more than {_LONGEST_KEY} bytes in a table with lookup indexes")
    return found


async def _learn_blank(connection: BackendConnection, part: Part, mariadb: bool) -> None:
    if is_padded(part.collation) and part.collation not in _blanks[mariadb]:
        [[weight]] = await rows_of(connection, lookup_text.weight_of(part, b" "))
        _blanks[mariadb][part.collation] = weight or b""


async def text_value(connection: BackendConnection, part: Part, text: bytes, mariadb: bool) -> bytes:
    """The bytes that an entry has for a text (UTF-8). Raises BackendError, BackendLost."""
    name = (mariadb, part.collation)
    await _learn_blank(connection, part, mariadb)
    if name not in _characters:
        answers = [await rows_of(connection, question) for question in lookup_ascii.questions(part)]
        _characters[name] = lookup_ascii.weights([rows[0][0] or b"" for rows in answers])
    known = known_text_value(part, text, mariadb)
    if known is None:
        [[weight]] = await rows_of(connection, lookup_text.weight_of(part, text))
        known = comparable(part, weight or b"", _blanks[mariadb])
        if len(_weights) >= _KEPT_WEIGHTS:
            _weights.clear()
        _weights[(*name, text)] = known
    return known


def known_text_value(part: Part, text: bytes, mariadb: bool) -> bytes | None:
    """As `text_value`, None when a server must be asked."""
    characters = _characters.get((mariadb, part.collation))
    weights = None if characters is None else lookup_ascii.text_weights(characters, text)
    if weights is None:
        return _weights.get((mariadb, part.collation, text))
    return comparable(part, weights, _blanks[mariadb])


# ── changing entries ──


def entries_of(indexes: Sequence[Index], rows: Sequence[FoundRow]) -> list[Entry]:
    """The entries of these rows."""
    return [
        Entry(index, value, row.key, shown, given)
        for row in rows
        for index, value, shown, given in zip(indexes, row.values, row.shown, row.given, strict=True)
        if value is not None
    ]


def without_common(removed: Sequence[Entry], added: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Both without entries that go and come again as they were."""
    gone = {(e.index.name, e.value, e.key) for e in removed}
    back = {(e.index.name, e.value, e.key) for e in added}
    return (
        [e for e in removed if (e.index.name, e.value, e.key) not in back],
        [e for e in added if (e.index.name, e.value, e.key) not in gone],
    )


async def change(request: Request, enlistment: Enlistment, removed: Sequence[Entry], added: Sequence[Entry]) -> None:
    """Take entries away, and then make new ones, in the transaction of the rows' change; the shards of the entries join
    it. Raises SqlError 1062 when a value has an entry already."""
    client = request.client
    gone: dict[int, list[Entry]] = {}
    new: dict[int, list[Entry]] = {}
    for entries, by_shard in ((removed, gone), (added, new)):
        for entry in entries:
            keyspace = client.map.keyspaces[entry.index.schema]
            by_shard.setdefault(home(keyspace, entry.value), []).append(entry)
    shards = sorted({*gone, *new})
    await enlistment.add(client, request.plan, shards)
    enlistment.writes(shards)
    for shard, entries in sorted(gone.items()):
        texts = [lookup_text.entry_delete(entry.index, entry.value, entry.key) for entry in entries]
        for at in range(0, len(texts), _AT_ONCE):
            for reply in await enlistment.on(shard).queries(texts[at : at + _AT_ONCE]):
                if reply.failed:
                    raise _our_failure(reply)
    for shard, entries in sorted(new.items()):
        for at in range(0, len(entries), _AT_ONCE):
            await _enter(request, enlistment.on(shard), entries[at : at + _AT_ONCE])


async def _enter(request: Request, connection: BackendConnection, entries: Sequence[Entry]) -> None:
    """Make entries. Those in their place that have no row go: a TRUNCATE under way, or one that was cut off, leaves
    such, and they block nobody. Raises SqlError."""
    for _ in range(_TAKEOVERS):
        rows = [(entry.index, entry.value, entry.key, secrets.randbits(63)) for entry in entries]
        reply = await connection.query(lookup_text.entries_insert(rows))
        if not reply.failed:
            return
        if reply.error_code != _DUPLICATE:
            raise _our_failure(reply)
        taken, orphans = await _taken(request, connection, entries)
        if taken is not None or not orphans:
            raise duplicate(taken or entries[0], request.client.mariadb)
        for orphan in orphans:
            reply = await connection.query(orphan)
            if reply.failed:
                raise _our_failure(reply)
    raise BackendError("entries of lookup indexes change all the time: try again")


async def _taken(
    request: Request, connection: BackendConnection, entries: Sequence[Entry]
) -> tuple[Entry | None, list[bytes]]:
    """The first of these entries whose value another row has, or stands among them before; and texts that take away
    those in the place of others that no row has. The present ones are locked: whoever made them has committed."""
    owners: dict[tuple[str, bytes], tuple[bytes, bytes]] = {}
    for index in dict.fromkeys(entry.index for entry in entries):
        values = [entry.value for entry in entries if entry.index == index]
        for row in await rows_of(connection, lookup_text.taken(index, values)):
            owners[index.name, row[0] or b""] = row[1] or b"", row[2] or b""
    seen: set[tuple[str, bytes]] = set()
    orphans = []
    for entry in entries:
        ident = entry.index.name, entry.value
        if ident in seen:
            return entry, []
        seen.add(ident)
        if ident in owners:
            key, version = owners[ident]
            if await _has_row(request.client, entry, key):
                return entry, []
            orphans.append(lookup_text.entry_delete(entry.index, entry.value, key, version))
    return None, orphans


async def _has_row(client: Client, entry: Entry, owner: bytes) -> bool:
    """Whether a row of the shard key `owner` may have the value of an entry that is to be made.

    No lock is waited for: what holds one may wait for us. A row that is there for all to see has its value, and so has
    one that somebody is making, moving or deleting now.
    """
    index = entry.index
    keyspace = client.map.keyspaces[index.schema]
    try:
        shard, ours = (keyspace.map.lookup(lookup_text.key_of(index, key)) for key in (owner, entry.key))
    except (LookupError, ValueError):
        return True
    if shard == ours:
        return False  # our own row is there already, and the table's own key refuses a second one
    pool = client.gateway.shards[shard].primary
    like = client.session.profile  # not in its state: sql_mode and the like change what is found
    connection = await pool.checkout(profile(like.capabilities, like.schema, tuple(sorted(NEUTRAL.items()))))
    try:
        lock = b" LOCK IN SHARE MODE NOWAIT" if client.mariadb else b" FOR SHARE NOWAIT"
        found = bool(await rows_of(connection, lookup_text.row_there(index, entry.given)))
        if not found:
            reply = await connection.query(lookup_text.row_there(index, entry.given, lock))
            found = reply.failed or bool(parse_resultset(reply.data, connection.scanner.deprecate_eof).rows)
    except BaseException:
        pool.release(connection)
        raise
    pool.checkin(connection)
    return found


def duplicate(entry: Entry, mariadb: bool) -> BackendError:
    """The error that the table's own unique key would give, were all rows on one server."""
    index = entry.index
    key = index.unique if mariadb else f"{index.table}.{index.unique}"
    return BackendError(f"Duplicate entry '{shown_entry(entry.shown, mariadb)}' for key '{key}'", _DUPLICATE, "23000")


def shown_entry(value: bytes, mariadb: bool) -> str:
    """A value as the servers print it in their messages: 64 bytes at most, each cuts in its own way."""
    if mariadb:
        value = value.replace(b"\x00", b"\\0000")
        if len(value) > _LONGEST_SHOWN:
            return value[: _LONGEST_SHOWN - 3].decode("utf-8", "ignore") + "..."
        return value.decode("utf-8", "replace")
    value = value.partition(b"\x00")[0][:_LONGEST_SHOWN]
    whole = value.decode("utf-8", "ignore")
    return whole + value[len(whole.encode()) :].decode("latin-1")


def _our_failure(reply: Reply) -> SqlError:
    """Deadlocks and time-outs are the client's; what is wrong with our tables is explained."""
    return SqlError(_explained(reply), reply.error_code, reply.sqlstate)
