"""CLIENT LIST, INFO, KILL, UNBLOCK and the like: about the clients of this worker process, not of nodes.

Other workers' clients are not seen, and a number that is none of ours finds nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Final

from shardproxy.protocol.redis import encode

if TYPE_CHECKING:
    from shardproxy.frontend.redis.connection import RedisClient

ABOUT_CLIENTS: Final = (b"CLIENT|INFO", b"CLIENT|KILL", b"CLIENT|LIST", b"CLIENT|NO-EVICT", b"CLIENT|REPLY")

_SYNTAX: Final = encode.error("ERR syntax error")
_TYPES: Final = (b"normal", b"master", b"slave", b"replica", b"pubsub")  # the protocol's own words

Test = Callable[["RedisClient"], bool]


def about_clients(asker: RedisClient, args: list[bytes]) -> bytes:
    """The reply to one of ABOUT_CLIENTS, with as many arguments as it must have."""
    word = args[1].upper()
    if word == b"INFO":
        return _text(_line(asker), asker)
    if word == b"LIST":
        return _list(asker, args)
    if word == b"KILL":
        return _kill(asker, args)
    if word == b"NO-EVICT":  # the proxy evicts nobody
        return encode.OK if args[2].upper() in (b"ON", b"OFF") else _SYNTAX
    if args[2].upper() == b"ON":
        return encode.OK
    if args[2].upper() in (b"OFF", b"SKIP"):
        return encode.error("ERR shardproxy does not do CLIENT REPLY OFF and SKIP: read the replies, and drop them")
    return _SYNTAX


def _list(asker: RedisClient, args: list[bytes]) -> bytes:
    clients = list(asker.front.clients.values())
    if len(args) > 2:
        option = args[2].upper()
        if option == b"TYPE" and len(args) == 4:
            if args[3].lower() not in _TYPES:
                return _unknown_type(args[3])
            clients = [client for client in clients if _type(client) == args[3].lower()]
        elif option == b"ID" and len(args) > 3:
            if not all(_is_ident(word) for word in args[3:]):
                return encode.error("ERR Invalid client ID")
            found = [asker.front.clients.get(int(word)) for word in args[3:]]
            clients = [client for client in found if client is not None]
        else:
            return _SYNTAX
    return _text("".join(map(_line, clients)), asker)


def _text(text: str, asker: RedisClient) -> bytes:
    data = text.encode(errors="surrogateescape")
    if asker.session.resp3:
        return b"=%d\r\ntxt:%b\r\n" % (len(data) + 4, data)
    return encode.bulk(data)


def _line(client: RedisClient) -> str:
    """As Redis has it; what only a server has is left out. Nobody notes the last command of those who do not wait."""
    session, now = client.session, monotonic()
    own = client.own
    names = own.channels.names if own is not None and own.channels is not None else {}
    fields: dict[str, object] = {
        "id": session.ident,
        "addr": _end_of(client, "peername"),
        "laddr": _end_of(client, "sockname"),
        "name": session.name.decode(errors="surrogateescape"),
        "age": int(now - client.since),
        "idle": int(now - client.active),
        "flags": (own.flags if own is not None else "") or "N",
        "db": 0,
        "sub": len(names.get(b"", ())),
        "psub": len(names.get(b"P", ())),
        "ssub": len(names.get(b"S", ())),
        "multi": own.queued if own is not None else -1,
        "qbuf": client.unread,
        "omem": int(client.held),
        "cmd": own.command if own is not None else "NULL",
        "user": session.user or "(superuser)",
        "lib-name": session.library.decode(errors="surrogateescape"),
        "lib-ver": session.library_version.decode(errors="surrogateescape"),
        "resp": 3 if session.resp3 else 2,
    }
    return " ".join(f"{name}={value}" for name, value in fields.items()) + "\n"


def _end_of(client: RedisClient, which: str) -> str:
    """Where it comes from (peername) or has connected to (sockname), as Redis writes it."""
    found = client.transport.get_extra_info(which) if client.transport is not None else None
    if not isinstance(found, tuple):  # a Unix socket has a path, or nothing
        return f"{found.decode() if isinstance(found, bytes) else found or ''}:0"
    return f"[{found[0]}]:{found[1]}" if ":" in found[0] else f"{found[0]}:{found[1]}"


def _type(client: RedisClient) -> bytes:
    own = client.own
    return b"pubsub" if own is not None and own.channels is not None and own.channels.any else b"normal"


def _unknown_type(word: bytes) -> bytes:
    return encode.error(f"ERR Unknown client type '{word.decode(errors='replace')}'")


def _is_ident(word: bytes) -> bool:
    return word.isdigit() and len(word) < 19 and int(word) > 0


def _kill(asker: RedisClient, args: list[bytes]) -> bytes:
    clients = list(asker.front.clients.values())
    if len(args) == 3:
        address = args[2].decode(errors="replace")
        named = [client for client in clients if _end_of(client, "peername") == address]
        if not named:
            return encode.error("ERR No such client")
        _end(asker, named)
        return encode.OK
    tests: list[Test] = []
    skips_asker = True
    for at in range(2, len(args), 2):
        if at + 1 == len(args):
            return _SYNTAX
        option, value = args[at].upper(), args[at + 1]
        if option == b"SKIPME":
            if value.upper() not in (b"YES", b"NO"):
                return _SYNTAX
            skips_asker = value.upper() == b"YES"
            continue
        test = _test(asker, option, value)
        if isinstance(test, bytes):
            return test
        tests.append(test)
    chosen = [client for client in clients if all(test(client) for test in tests)]
    if skips_asker:
        chosen = [client for client in chosen if client is not asker]
    _end(asker, chosen)
    return encode.integer(len(chosen))


def _test(asker: RedisClient, option: bytes, value: bytes) -> Test | bytes:
    """One filter of CLIENT KILL, or an error line."""
    text = value.decode(errors="replace")
    if option == b"ID":
        if not _is_ident(value):
            return encode.error("ERR client-id should be greater than 0")
        return lambda client: client.session.ident == int(value)
    if option == b"TYPE":
        if value.lower() not in _TYPES:
            return _unknown_type(value)
        return lambda client: _type(client) == value.lower()
    if option == b"USER":
        if text != "default" and text not in asker.front.users:
            return encode.error(f"ERR No such user '{text}'")
        return lambda client: client.session.user == text
    if option == b"ADDR":
        return lambda client: _end_of(client, "peername") == text
    if option == b"LADDR":
        return lambda client: _end_of(client, "sockname") == text
    if option == b"MAXAGE":
        if not _is_ident(value):
            return encode.error("ERR maxage is not an integer or out of range")
        return lambda client: monotonic() - client.since >= int(value)
    return _SYNTAX


def _end(asker: RedisClient, chosen: list[RedisClient]) -> None:
    for client in chosen:
        if client is asker:
            client.session.closing = True  # behind this reply
        else:
            client.abort("CLIENT KILL")
