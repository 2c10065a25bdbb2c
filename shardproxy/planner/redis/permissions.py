"""What a user of the Redis port may do, in the terms of Redis's ACL.

Nodes do not know the proxy's users: all of it is decided here. Errors are worded as Redis words them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shardproxy.planner.redis.categories import CATEGORIES, CATEGORIES_OF
from shardproxy.planner.redis.command import CommandSpec
from shardproxy.planner.redis.spec import key_indexes

# For whom keys are limited, and nothing is said about commands: nothing that reaches other keys, or the servers.
_WITH_KEYS = ("+@all", "-@dangerous", "-scan", "-randomkey")
_ALWAYS = (b"AUTH", b"HELLO", b"QUIT", b"RESET")
_NO_KEY = b"-NOPERM this user has no permissions to access one of the keys used as arguments\r\n"
_NO_CHANNEL = b"-NOPERM this user has no permissions to access one of the channels used as arguments\r\n"
_NO_SORT = b"-ERR %b option of SORT denied due to insufficient ACL permissions.\r\n"


@dataclass(frozen=True, slots=True)
class UserRules:
    """The rules as they are written; None: no limit. commands: as for ACL SETUSER, in order, beginning with nothing;
    keys, channels: patterns. scripts: whether @scripting may be used though a script is bound by none of this."""

    commands: Sequence[str] | None = None
    keys: Sequence[str] | None = None
    channels: Sequence[str] | None = None
    scripts: bool = False

    @property
    def limit_anything(self) -> bool:
        return (self.commands, self.keys, self.channels) != (None, None, None)


class Permissions:
    """The rules of one user, made ready. names: of the commands that the user may run. keys, channels: None: all.

    Raises ValueError for a command or category that does not exist.
    """

    def __init__(self, rules: UserRules) -> None:
        commands = rules.commands
        if commands is None:
            commands = ("+@all",) if rules.keys is None else _WITH_KEYS
        names = allowed_names(commands)
        self._scripts = rules.scripts
        self.names = names if rules.scripts else frozenset(n for n in names if "scripting" not in CATEGORIES_OF[n])
        self._for_scripts = names - self.names
        self.keys = _patterns(rules.keys)
        self.channels = _patterns(rules.channels)
        self._literal = frozenset(pattern.encode() for pattern in rules.channels or ())

    def denial(self, spec: CommandSpec, args: Sequence[bytes]) -> bytes:
        """The error line for a command with a right number of arguments that the user must not run; empty: it may."""
        if spec.name not in self.names and spec.name not in _ALWAYS:
            more = b""
            if spec.name in self._for_scripts:
                more = b": no rule binds a script, see scripts in redis.users"
            return b"-NOPERM this user has no permissions to run the '%b' command%b\r\n" % (spec.name.lower(), more)
        if spec.channels or spec.name == b"PSUBSCRIBE":
            return b"" if self.channels is None else self._channel_denial(spec, args)
        keys = self.keys
        if keys is None:
            return b""
        for index in key_indexes(spec, args):
            if not keys.match(args[index]):
                return _NO_KEY
        return _sort_denial(args) if spec.name in (b"SORT", b"SORT_RO") else b""

    def _channel_denial(self, spec: CommandSpec, args: Sequence[bytes]) -> bytes:
        assert self.channels is not None
        if spec.name == b"PSUBSCRIBE":  # a pattern that is wider than the user's would show more
            allowed = all(pattern in self._literal for pattern in args[1:])
        elif spec.name in (b"UNSUBSCRIBE", b"SUNSUBSCRIBE"):
            allowed = True
        else:
            allowed = all(self.channels.match(args[index]) for index in key_indexes(spec, args))
        return b"" if allowed else _NO_CHANNEL


def _sort_denial(args: Sequence[bytes]) -> bytes:
    """Of SORT: its patterns may name any key."""
    place = 2
    while place < len(args):
        word = args[place].upper()
        if word == b"LIMIT" and place + 2 < len(args):
            place += 2
        elif word == b"STORE" and place + 1 < len(args):
            place += 1
        elif word in (b"BY", b"GET") and place + 1 < len(args):
            if word == b"GET" or b"*" in args[place + 1]:
                return _NO_SORT % word
            place += 1
        place += 1
    return b""


def allowed_names(rules: Iterable[str]) -> frozenset[bytes]:
    """The commands and subcommands that are left when such rules are done in order, beginning with none: +name, -name,
    +name|sub, +@category, +@all. Raises ValueError for what does not exist."""
    allowed: set[bytes] = set()
    for rule in rules:
        concerned = _concerned(rule[1:])
        if not concerned or rule[0] not in "+-":
            raise ValueError(f"{rule}: no command or category of Redis, as +get, -config|set, +@read, -@dangerous")
        if rule[0] == "+":
            allowed |= concerned
        else:
            allowed -= concerned
    return frozenset(allowed)


def _concerned(what: str) -> set[bytes]:
    if what.lower() == "@all":
        return set(CATEGORIES_OF)
    if what.startswith("@"):
        category = what[1:].lower()
        if category not in CATEGORIES:
            return set()
        found = {name for name, categories in CATEGORIES_OF.items() if category in categories}
    else:
        found = {what.upper().encode()} & CATEGORIES_OF.keys()
    # A command's subcommands go with it, as Redis does it also for categories.
    return found | {name for name in CATEGORIES_OF if name.partition(b"|")[0] in found}


def _patterns(patterns: Sequence[str] | None) -> re.Pattern[bytes] | None:
    """One expression for all of them; None when every text matches."""
    if patterns is None or "*" in patterns:
        return None
    if not patterns:
        return re.compile(rb"(?!)")
    return re.compile(b"|".join(_expression(pattern.encode()) for pattern in patterns), re.DOTALL)


def _expression(pattern: bytes) -> bytes:
    """A pattern of Redis as a regular expression: * ? [a-c] [^a-c] and \\ before a byte that stands for itself."""
    if pattern and not pattern.strip(b"*"):
        return b"."  # in Redis the empty text matches only the empty pattern
    parts: list[bytes] = [b""]  # between stars
    at = 0
    while at < len(pattern):
        byte = pattern[at : at + 1]
        at += 1
        if byte == b"*":
            parts.append(b"")
            continue
        if byte == b"?":
            piece = b"."
        elif byte == b"[":
            piece, at = _class(pattern, at)
        else:
            if byte == b"\\" and at < len(pattern):
                byte = pattern[at : at + 1]
                at += 1
            piece = re.escape(byte)
        parts[-1] += piece
    if len(parts) == 1:
        return parts[0] + rb"\Z"
    # What stands between two stars is best where it comes first: so no key makes the search go back and take long.
    middle = b"".join(b"(?>.*?%b)" % part for part in parts[1:-1])
    return parts[0] + middle + (b".*" + parts[-1] + rb"\Z" if parts[-1] else b"")


def _class(pattern: bytes, at: int) -> tuple[bytes, int]:
    """A class whose [ stands before `at`, and the place behind it. One that does not end goes to the pattern's end."""
    negated = pattern[at : at + 1] == b"^"
    at += negated
    members: set[int] = set()
    while at < len(pattern):
        if pattern[at] == 0x5C and at + 1 < len(pattern):  # a backslash
            members.add(pattern[at + 1])
            at += 2
        elif pattern[at] == 0x5D:  # ]
            break
        elif at + 2 < len(pattern) and pattern[at + 1] == 0x2D:  # a-z
            first, last = sorted((pattern[at], pattern[at + 2]))
            members.update(range(first, last + 1))
            at += 3
        else:
            members.add(pattern[at])
            at += 1
    if not members:
        return (b"." if negated else b"(?!)"), at + 1
    return b"[%b%b]" % (b"^" if negated else b"", b"".join(b"\\x%02x" % member for member in sorted(members))), at + 1
