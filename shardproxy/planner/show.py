"""SHOW and DESCRIBE: metadata that every shard has alike is asked of any shard; what is about one server is refused."""

from __future__ import annotations

from shardproxy.planner.blocks import SYSTEM_DATABASES, find_table, unknown_database
from shardproxy.planner.draft import Draft, is_name, refuse
from shardproxy.planner.plan import Group, Opcode, Plan, Rung, Spread, StatementKind
from shardproxy.sql.words import words
from shardproxy.topology.model import Keyspace, TableKind

# First words (after FULL, EXTENDED, GLOBAL, SESSION, LOCAL, STORAGE) of the forms that are the same on every shard.
_OF_SERVERS = words("""
    CHARSET COLLATION COLLATIONS DATABASES SCHEMAS ENGINES PLUGINS VARIABLES PRIVILEGES
""")
_OF_DATABASES = words("TABLES TRIGGERS EVENTS")
_OF_TABLES = words("COLUMNS FIELDS INDEX INDEXES KEYS")
_SKIPPED = words("FULL EXTENDED SESSION LOCAL STORAGE")
_HINT = "a hint /*shardproxy: shard=NAME*/ asks one shard's"


def show(draft: Draft) -> Plan | None:
    """The plan of SHOW and of DESCRIBE table."""
    if draft.kind is StatementKind.DESCRIBE:
        return _describe(draft)
    if draft.kind is not StatementKind.SHOW:
        return None
    if draft.has("SELECT"):
        raise refuse("SHOW with a subquery is not supported: write out its values")
    at = 1
    while draft.word(at) in _SKIPPED:
        at += 1
    what = draft.word(at)
    if what == "GLOBAL" and draft.word(at + 1) == "VARIABLES":
        return _anywhere(draft, None)
    if what in _OF_SERVERS or (what == "CHARACTER" and draft.word(at + 1) == "SET"):
        return _anywhere(draft, None)
    if what in _OF_DATABASES:
        return _of_database(draft, what, _database(draft, _named(draft, at + 1)))
    if what in _OF_TABLES:
        return _of_table(draft, at)
    if what == "CREATE":
        return _create(draft, at + 1)
    if what in ("PROCEDURE", "FUNCTION") and draft.word(at + 1) == "STATUS":
        return _anywhere(draft, None)
    raise refuse(f"SHOW {what or draft.tokens[at].text if at < len(draft.tokens) else ''} is about one server; {_HINT}")


def _anywhere(draft: Draft, keyspace: Keyspace | None) -> Plan:
    if keyspace is None:
        keyspace = draft.context.snapshot.keyspaces.get(draft.context.schema or "")
    return draft.plan(
        Opcode.UNSHARDED,
        "metadata that every shard has alike: any shard",
        spread=Spread.ANY,
        read=not draft.pins,
        keyspace=keyspace,
    )


def _named(draft: Draft, at: int) -> int:
    """Index of the name that FROM or IN at `at` introduces; −1 when neither stands there."""
    return at + 1 if draft.word(at) in ("FROM", "IN") else -1


def _database(draft: Draft, at: int) -> Keyspace | None:
    """The keyspace that a name at `at` means, or the default one; None for a system database."""
    if at >= 0:
        if at >= len(draft.tokens) or not is_name(draft.tokens[at]):
            raise refuse("cannot read this SHOW", 1064)
        name = draft.tokens[at].text
    elif draft.context.schema is None:
        raise refuse("No database selected", 1046)
    else:
        name = draft.context.schema
    if name.lower() in SYSTEM_DATABASES:
        return None
    keyspace = draft.context.snapshot.keyspaces.get(name)
    if keyspace is None:
        raise refuse(unknown_database(draft, name), 1049)
    return keyspace


def _of_database(draft: Draft, what: str, keyspace: Keyspace | None) -> Plan:
    """SHOW TABLES and its kin: of a shard that has all of the keyspace's tables, its single ones too."""
    singles = {t.name: t.shard for t in keyspace.tables.values() if t.shard is not None} if keyspace else {}
    if keyspace is None or not singles:
        return _anywhere(draft, keyspace)
    if len(set(singles.values())) > 1 and what == "TABLES":
        return _tables(draft, keyspace, singles)
    if len(set(singles.values())) > 1:
        raise refuse(
            f"SHOW {what}: no shard has all tables of keyspace '{keyspace.name}', whose single tables are on several; "
            f"{_HINT}"
        )
    name, shard = next(iter(singles.items()))
    return fixed(draft, keyspace, name, shard)


def _tables(draft: Draft, keyspace: Keyspace, singles: dict[str, int]) -> Plan:
    """SHOW TABLES where no shard has all: each of those that have single tables is asked."""
    homes = {shard: tuple(n for n, home in singles.items() if home == shard) for shard in sorted(singles.values())}
    return draft.plan(
        Opcode.UNSHARDED,
        "no shard has all tables: the lists of those that have single tables",
        Rung.MERGE,
        read=not draft.pins,
        keyspace=keyspace,
        groups=tuple(Group(names, keyspace, shard=shard) for shard, names in homes.items()),
        spread=Spread.LISTS,
        tables=tuple(singles),
        not_above="single tables on several shards",
    )


def _of_table(draft: Draft, at: int) -> Plan:
    """SHOW COLUMNS FROM table [FROM database] and its kin."""
    place = _named(draft, at + 1)
    if place < 0 or place >= len(draft.tokens) or not is_name(draft.tokens[place]):
        raise refuse("cannot read this SHOW", 1064)
    if draft.word(place + 1) in ("FROM", "IN") and place + 2 < len(draft.tokens):
        return _table(draft, draft.tokens[place + 2].text, draft.tokens[place].text)
    return _table(draft, *_qualified(draft, place))


def _qualified(draft: Draft, at: int) -> tuple[str, str]:
    """(database or "", table) at `at`."""
    if at >= len(draft.tokens) or not is_name(draft.tokens[at]):
        raise refuse("cannot read the table's name", 1064)
    if draft.word(at + 1) == "." and at + 2 < len(draft.tokens):
        return draft.tokens[at].text, draft.tokens[at + 2].text
    return "", draft.tokens[at].text


def _table(draft: Draft, database: str, name: str) -> Plan:
    schema = draft.context.catalog.get(database or draft.context.schema or "", name)
    if schema is not None and schema.is_view:
        return _anywhere(draft, draft.context.snapshot.keyspaces.get(schema.database))
    keyspace, table = find_table(draft, database, name)
    if keyspace is None or table is None:
        return _anywhere(draft, None)
    if table.kind is TableKind.SINGLE and table.shard is not None:
        return fixed(draft, keyspace, name, table.shard)
    return _anywhere(draft, keyspace)


def fixed(draft: Draft, keyspace: Keyspace, name: str, shard: int) -> Plan:
    """Asked of the shard that has a single table."""
    return draft.plan(
        Opcode.UNSHARDED,
        f"one shard: {name} on one fixed shard",
        read=not draft.pins,
        keyspace=keyspace,
        groups=(Group((name,), keyspace, shard=shard),),
        tables=(name,),
    )


def _create(draft: Draft, at: int) -> Plan:
    """SHOW CREATE TABLE | VIEW | DATABASE …"""
    if draft.word(at) in ("TABLE", "VIEW"):
        return _table(draft, *_qualified(draft, at + 1))
    if draft.word(at) in ("DATABASE", "SCHEMA"):
        at += 4 if [draft.word(at + i) for i in (1, 2, 3)] == ["IF", "NOT", "EXISTS"] else 1
        return _anywhere(draft, _database(draft, at))
    if draft.word(at) in ("PROCEDURE", "FUNCTION", "TRIGGER", "EVENT"):
        return _anywhere(draft, None)
    raise refuse(f"SHOW CREATE {draft.word(at)} is about one server; {_HINT}")


def _describe(draft: Draft) -> Plan:
    """DESC, DESCRIBE or EXPLAIN of a table."""
    return _table(draft, *_qualified(draft, 1))
