"""Commands that the proxy answers itself: about the connection, not about keys."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shardproxy.protocol.redis import encode

VERSION = b"7.0.15"


@dataclass(slots=True)
class RedisSession:
    """What the proxy knows of one client. user: None before it has logged in.

    users: name → SHA-256 of the password; empty: whoever connects is in, as user `default`.
    """

    ident: int
    users: Mapping[str, bytes] = field(repr=False)
    user: str | None = None
    resp3: bool = False
    name: bytes = b""
    library: bytes = b""
    library_version: bytes = b""
    closing: bool = False  # after what has been answered

    def start(self) -> None:
        """As new."""
        self.user = None if self.users else "default"
        self.resp3 = False
        self.name = b""


def digest(password: bytes) -> bytes:
    """What of a password is kept."""
    return hashlib.sha256(password).digest()


_WRONG_PASS = encode.error("WRONGPASS invalid username-password pair or user is disabled.")
_NO_PASSWORD = encode.error(
    "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration "
    "is correct?"
)
_SYNTAX = encode.error("ERR syntax error")


def wrong_number(name: str) -> bytes:
    """The error for too few or too many arguments."""
    return encode.error(f"ERR wrong number of arguments for '{name.lower()}' command")


def answer(session: RedisSession, args: Sequence[bytes]) -> bytes:
    """The reply to a command of Way.LOCAL; it may change the session."""
    name = args[0].upper()
    if name == b"PING":
        if len(args) > 2:
            return wrong_number("ping")
        return encode.PONG if len(args) == 1 else encode.bulk(args[1])
    if name == b"ECHO":
        return encode.bulk(args[1]) if len(args) == 2 else wrong_number("echo")
    if name == b"AUTH":
        return _auth(session, args)
    if name == b"HELLO":
        return _hello(session, args)
    if name == b"SELECT":
        return _select(args)
    if name == b"QUIT":
        session.closing = True
        return encode.OK
    if name == b"RESET":
        session.start()
        return b"+RESET\r\n"
    if name == b"ACL":  # WHOAMI
        return encode.bulk((session.user or "").encode())
    if name == b"CLIENT":
        return _client(session, args)
    return encode.error(f"ERR shardproxy does not do {name.decode(errors='replace')} yet")


def _log_in(session: RedisSession, user: bytes, password: bytes) -> bool:
    name = user.decode(errors="replace")
    known = session.users.get(name)
    same = hmac.compare_digest(digest(password), known if known is not None else bytes(32))
    if known is None or not same:
        return False
    session.user = name
    return True


def _auth(session: RedisSession, args: Sequence[bytes]) -> bytes:
    if not 2 <= len(args) <= 3:
        return _SYNTAX if len(args) > 3 else wrong_number("auth")
    if not session.users:
        if len(args) == 2:
            return _NO_PASSWORD
        return encode.OK if args[1] == b"default" else _WRONG_PASS
    user, password = (b"default", args[1]) if len(args) == 2 else (args[1], args[2])
    return encode.OK if _log_in(session, user, password) else _WRONG_PASS


def _hello(session: RedisSession, args: Sequence[bytes]) -> bytes:
    resp3, name = session.resp3, None
    login: tuple[bytes, bytes] | None = None
    if len(args) > 1:
        if not args[1].isdigit():
            return encode.error("ERR Protocol version is not an integer or out of range")
        if args[1] not in (b"2", b"3"):
            return encode.error("NOPROTO unsupported protocol version")
        resp3 = args[1] == b"3"
        at = 2
        while at < len(args):
            option, more = args[at].upper(), len(args) - at - 1
            if option == b"AUTH" and more >= 2:
                login = args[at + 1], args[at + 2]
                at += 3
            elif option == b"SETNAME" and more >= 1:
                name = args[at + 1]
                if not _printable(name):
                    return _bad_name("Client names")
                at += 2
            else:
                return encode.error(f"ERR Syntax error in HELLO option '{args[at].decode(errors='replace')}'")
    if login is not None and session.users and not _log_in(session, *login):
        return _WRONG_PASS
    if session.user is None:
        return encode.error(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH "
            "<user> <pass> option can be used to authenticate the client and select the RESP protocol version at the "
            "same time"
        )
    session.resp3 = resp3
    if name is not None:
        session.name = name
    entries = [
        (encode.bulk(b"server"), encode.bulk(b"redis")),
        (encode.bulk(b"version"), encode.bulk(VERSION)),
        (encode.bulk(b"proto"), encode.integer(3 if resp3 else 2)),
        (encode.bulk(b"id"), encode.integer(session.ident)),
        (encode.bulk(b"mode"), encode.bulk(b"standalone")),
        (encode.bulk(b"role"), encode.bulk(b"master")),  # the protocol's own word
        (encode.bulk(b"modules"), encode.array([])),
    ]
    return encode.pairs(entries, resp3)


def _select(args: Sequence[bytes]) -> bytes:
    if len(args) != 2:
        return wrong_number("select")
    if not args[1].lstrip(b"-").isdigit():
        return encode.error("ERR value is not an integer or out of range")
    if int(args[1]) != 0:
        return encode.error("ERR DB index is out of range: a sharded Redis has database 0 only")
    return encode.OK


def _printable(text: bytes) -> bool:
    return all(33 <= c <= 126 for c in text)


def _bad_name(what: str) -> bytes:
    return encode.error(f"ERR {what} cannot contain spaces, newlines or special characters.")


def _client(session: RedisSession, args: Sequence[bytes]) -> bytes:
    if len(args) < 2:
        return wrong_number("client")
    sub, rest = args[1].upper(), args[2:]
    if sub == b"SETNAME" and len(rest) == 1:
        if not _printable(rest[0]):
            return _bad_name("Client names")
        session.name = rest[0]
        return encode.OK
    if sub == b"GETNAME" and not rest:
        return encode.bulk(session.name or None, session.resp3)
    if sub == b"ID" and not rest:
        return encode.integer(session.ident)
    if sub == b"SETINFO" and len(rest) == 2:
        if not _printable(rest[1]):
            return _bad_name(rest[0].decode(errors="replace").lower())
        if rest[0].upper() == b"LIB-NAME":
            session.library = rest[1]
        elif rest[0].upper() == b"LIB-VER":
            session.library_version = rest[1]
        else:
            return encode.error(f"ERR Unrecognized option '{rest[0].decode(errors='replace')}'")
        return encode.OK
    shown = args[1].decode(errors="replace")
    if sub in (b"SETNAME", b"GETNAME", b"ID", b"SETINFO"):
        return wrong_number(f"client|{shown}")
    return encode.error(f"ERR shardproxy does not do CLIENT {shown} yet")
