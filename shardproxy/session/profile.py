"""The part of a session's state that any server connection can be brought to: a value, compared by identity.

A *profile* is interned: equal profiles are the same object, so that the pool finds a matching connection with one
dict look-up and the hot path compares with `is`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from weakref import WeakValueDictionary

from shardproxy.protocol.mysql.constants import Cap
from shardproxy.sql.session_text import ASSUMED, GATHERED_UNLESS

# Client capabilities that change what the server sends or how it counts: a connection is made with the same ones.
CARRIED_CAPABILITIES = int(Cap.DEPRECATE_EOF | Cap.FOUND_ROWS | Cap.IGNORE_SPACE)

# Set together: assigning one may change another. Every profile names all four. Their order is that of assignment.
CHARSET_VARIABLES = (
    "character_set_client",
    "character_set_connection",
    "character_set_results",
    "collation_connection",
)
UTF8MB4_GENERAL_CI = 45
# What a text means is settled by these when it is parsed, for a prepared statement at PREPARE.
_READING_VARIABLES = ("sql_mode", *CHARSET_VARIABLES)
StatementKey = tuple[bytes | str | None, ...]

# Character sets of clients whose texts this proxy can read: every byte below 0x80 is ASCII and stands for itself, also
# inside a longer character. (In gbk, sjis, big5 … a backslash or a quote may be the second half of one.)
MULTI_BYTE = frozenset(("utf8mb4", "utf8mb3", "utf8", "ascii"))
SINGLE_BYTE = frozenset(
    (
        "latin1", "latin2", "latin5", "latin7", "cp1250", "cp1251", "cp1256", "cp1257", "cp850", "cp852", "cp866",
        "koi8r", "koi8u", "greek", "hebrew", "geostd8", "armscii8", "keybcs2", "macce", "macroman", "binary", "tis620",
        "dec8", "hp8",
    )
)  # fmt: skip
_WIDE = frozenset(("ucs2", "utf16", "utf16le", "utf32"))
READABLE = MULTI_BYTE | SINGLE_BYTE
_UTF8 = MULTI_BYTE - {"ascii"}
_UTF8MB3 = frozenset(("utf8mb3", "utf8"))


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Profile:
    """capabilities: CARRIED_CAPABILITIES bits; schema: default database; variables: (name, SQL literal) sorted by
    name: the charset variables, the others that differ from what a new connection has, and user variables (@a)."""

    capabilities: int
    schema: str | None
    variables: tuple[tuple[str, str], ...]

    def value(self, name: str) -> str | None:
        """SQL literal of a carried variable, None when it has the server's default."""
        for key, literal in self.variables:
            if key == name:
                return literal
        return None

    @property
    def personal(self) -> bool:
        """It has user variables: hardly another session has the same profile."""
        return bool(self.variables) and self.variables[0][0].startswith("@")

    @property
    def charset(self) -> str:
        """character_set_client."""
        return (self.value("character_set_client") or "utf8mb4").strip("'").lower()

    @property
    def connection_charset(self) -> str:
        """character_set_connection."""
        return (self.value("character_set_connection") or "utf8mb4").strip("'").lower()

    @property
    def reads_utf8(self) -> bool:
        """Texts are UTF-8, and servers take them as they are, but for what `three_bytes` says."""
        return self.charset in _UTF8 and self.connection_charset in _UTF8

    @property
    def three_bytes(self) -> bool:
        """Texts are UTF-8, and servers lose or refuse its characters of four bytes."""
        return self.charset in _UTF8MB3 or self.connection_charset in _UTF8MB3

    @property
    def autocommit(self) -> bool:
        return self.value("autocommit") in (None, "1", "ON", "'ON'")

    @property
    def select_limit(self) -> int | None:
        """sql_select_limit: how many rows a SELECT or SHOW without LIMIT gives; None for all."""
        value = self.value("sql_select_limit") or ""
        return int(value) if value.isdigit() else None

    @property
    def auto_is_null(self) -> bool:
        return self.value("sql_auto_is_null") in ("1", "'ON'")


_interned: WeakValueDictionary[tuple[int, str | None, tuple[tuple[str, str], ...]], Profile] = WeakValueDictionary()


def profile(capabilities: int, schema: str | None, variables: tuple[tuple[str, str], ...]) -> Profile:
    """The one Profile with these values. Capabilities outside CARRIED_CAPABILITIES are dropped."""
    key = (capabilities & CARRIED_CAPABILITIES, schema, variables)
    found = _interned.get(key)
    if found is None:
        found = Profile(*key)
        _interned[key] = found
    return found


def is_wide(wanted: Profile) -> bool:
    """ASCII characters take two or four bytes in the connection's character set: `SET time_zone = '+00:00'` and its
    like are errors then, also when the proxy says them."""
    return wanted.connection_charset in _WIDE


def unreadable(wanted: Profile) -> str:
    """Why texts in the profile's character set cannot be read; "" when they can."""
    if is_wide(wanted):
        return (
            f"character_set_connection '{wanted.connection_charset}' is not supported: servers understand no SET under "
            "it; use utf8mb4"
        )
    if wanted.charset in READABLE:
        return ""
    return (
        f"character_set_client '{wanted.charset}' is not supported: its characters may hold bytes that look like "
        "quotes; use utf8mb4"
    )


def stateless(capabilities: int) -> Profile:
    """For what the proxy asks on its own: nothing of a session's state, whose variables would bend the answers."""
    return profile(capabilities, None, ())


def with_schema(old: Profile, schema: str | None) -> Profile:
    return profile(old.capabilities, schema, old.variables)


def with_variables(old: Profile, changes: Mapping[str, str]) -> Profile:
    """`changes`: variable name → SQL literal."""
    merged = dict(old.variables)
    merged.update(changes)
    return profile(old.capabilities, old.schema, tuple(sorted(merged.items())))


def without(old: Profile, names: Iterable[str]) -> Profile:
    """These variables have the server's default again."""
    gone = frozenset(names)
    return profile(old.capabilities, old.schema, tuple(v for v in old.variables if v[0] not in gone))


def user_variables(of: Profile) -> tuple[tuple[str, str], ...]:
    """(@name, literal) of the user variables."""
    return tuple(v for v in of.variables if v[0].startswith("@"))


def impersonal(of: Profile) -> Profile:
    """The profile without user variables."""
    return without(of, [name for name, _ in user_variables(of)]) if of.personal else of


def keeping(old: Profile, new: Profile) -> Profile:
    """The new profile, with those user variables of the old one that it lacks: no statement makes them undefined."""
    return with_variables(new, dict(user_variables(old)) | dict(user_variables(new))) if old.personal else new


def gathers(of: Profile) -> bool:
    """Whether a variable is set under which the answers of several shards cannot be put together."""
    return any(name in GATHERED_UNLESS and literal not in GATHERED_UNLESS[name] for name, literal in of.variables)


def statement_key(of: Profile, text: bytes) -> StatementKey:
    """The text with all that decides its meaning under this profile: default schema, sql_mode, character sets."""
    return (text, of.schema, *(of.value(name) for name in _READING_VARIABLES))


def read_as(now: Profile, then: Profile) -> Profile:
    """The profile `now`, but texts are read as under `then`."""
    variables = {name: literal for name, literal in now.variables if name not in _READING_VARIABLES}
    variables.update((name, literal) for name, literal in then.variables if name in _READING_VARIABLES)
    schema = now.schema if then.schema is None else then.schema
    return profile(now.capabilities, schema, tuple(sorted(variables.items())))


def reachable(old: Profile, new: Profile) -> bool:
    """Whether statements can bring a connection from `old` to `new`: capabilities are for life, and a default
    database and user variables cannot be unset."""
    if old.capabilities != new.capabilities or (old.schema is not None and new.schema is None):
        return False
    return not old.personal or {name for name, _ in user_variables(old)} <= {name for name, _ in new.variables}


def transition(old: Profile, new: Profile) -> tuple[str | None, str | None]:
    """(schema for COM_INIT_DB or None, text of one SET statement or None) from `old` to `new`.

    A variable that `new` does not name goes back to what a new connection has: DEFAULT, the server's global value, or
    what is taken for granted (ASSUMED); a user variable stays.
    """
    have, want = dict(old.variables), dict(new.variables)
    assignments = []
    if any(have.get(name) != want.get(name) for name in CHARSET_VARIABLES):
        assignments = charset_assignments(new)
    for name, literal in sorted(want.items()):
        if name not in CHARSET_VARIABLES and have.get(name) != literal:
            assignments.append(f"@`{name[1:]}`={literal}" if name[0] == "@" else f"@@SESSION.{name}={literal}")
    gone = sorted(name for name in have if name not in want and name not in CHARSET_VARIABLES and name[0] != "@")
    assignments.extend(f"@@SESSION.{name}={ASSUMED.get(name, 'DEFAULT')}" for name in gone)
    schema = new.schema if new.schema != old.schema else None
    return schema, "SET " + ", ".join(assignments) if assignments else None


def charset_assignments(wanted: Profile) -> list[str]:
    """What SET must assign for the profile's character sets.

    One character set for all is set by NAMES: only that, and the handshake, give results its collation too, which
    column definitions name.
    """
    client, connection, results, collation = map(wanted.value, CHARSET_VARIABLES)
    if client == connection == results and collation is not None:
        return [f"NAMES {client} COLLATE {collation}"]
    values = zip(CHARSET_VARIABLES, (client, connection, results, collation), strict=True)
    return [f"@@SESSION.{name}={literal}" for name, literal in values if literal is not None]


class Charsets:
    """The servers' collations: handshake ids to the variables that they set, and back.

    by_id: collation id → (character set, collation), as information_schema.collations has them.
    """

    def __init__(self, by_id: Mapping[int, tuple[str, str]]) -> None:
        self._by_id = dict(by_id)
        self._by_collation = {collation: ident for ident, (_, collation) in by_id.items()}

    def variables(self, ident: int) -> tuple[tuple[str, str], ...]:
        """What a handshake with this collation id sets. An id unknown to the servers counts as utf8mb4."""
        charset, collation = self._by_id.get(ident) or self._by_id.get(UTF8MB4_GENERAL_CI, ("utf8mb4", ""))
        named = [(name, f"'{charset}'") for name in CHARSET_VARIABLES[:3]]
        named.append(("collation_connection", f"'{collation or 'utf8mb4_general_ci'}'"))
        return tuple(named)

    def handshake_id(self, wanted: Profile) -> int:
        """The collation id (one byte on the wire) that brings a new connection closest to the profile."""
        ident = self._by_collation.get((wanted.value("collation_connection") or "").strip("'"), UTF8MB4_GENERAL_CI)
        return ident if 0 < ident < 256 else UTF8MB4_GENERAL_CI

    def fresh(self, wanted: Profile, ident: int) -> Profile:
        """The profile of a connection just made with the wanted capabilities and schema and this collation id."""
        return profile(wanted.capabilities, wanted.schema, self.variables(ident))
