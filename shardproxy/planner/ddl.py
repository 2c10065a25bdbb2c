"""CREATE, ALTER, DROP, TRUNCATE, RENAME of tables and indexes: every shard that has the table runs it.

Views are in views.py, how a change is undone in ddl_reverse.py.
"""

from __future__ import annotations

from shardproxy.planner.blocks import SYSTEM_DATABASES, unknown_database
from shardproxy.planner.ddl_plan import DdlPlan
from shardproxy.planner.ddl_reverse import repeatable, reverse
from shardproxy.planner.draft import Draft, is_name, refuse
from shardproxy.planner.lookup_writes import check_ddl, emptied_indexes
from shardproxy.planner.new_table import new_table
from shardproxy.planner.plan import Group, Opcode, PinReason, Plan, Spread, StatementKind
from shardproxy.planner.views import view_ddl
from shardproxy.topology.model import Keyspace, Table, TableKind

_OPTIONS = frozenset({"OR", "REPLACE", "ONLINE", "OFFLINE", "IGNORE", "UNIQUE", "FULLTEXT", "SPATIAL", "VECTOR"})
_HINT = "run it on each server, or with a hint /*shardproxy: shard=NAME*/ on one shard"


def ddl(draft: Draft) -> Plan | None:
    """The plan of a DDL statement."""
    if draft.kind is not StatementKind.DDL:
        return None
    verb = draft.word(0)
    at = 1
    while draft.word(at) in _OPTIONS:
        at += 1
    if draft.word(at) == "TEMPORARY":
        return _temporary(draft)
    what = draft.word(at)
    if verb == "TRUNCATE":
        at += what == "TABLE"
        return _everywhere(draft, [_table_at(draft, at)])
    if verb == "RENAME":
        return _rename(draft, at)
    if what in ("INDEX", "KEY") and verb in ("CREATE", "DROP"):
        on = next((i for i in range(at, len(draft.tokens)) if draft.word(i) == "ON"), len(draft.tokens))
        return _everywhere(draft, [_table_at(draft, on + 1)])
    if what in ("TABLE", "TABLES"):
        return _table_ddl(draft, verb, at + 1)
    found = view_ddl(draft)
    if found is not None:
        return found
    if what in ("DATABASE", "SCHEMA"):
        raise refuse(f"{verb} DATABASE is not supported: add a keyspace to shardproxy.toml, its database to servers")
    raise refuse(f"{verb} {what or draft.tokens[at].text if at < len(draft.tokens) else ''} is not supported: {_HINT}")


Found = tuple[Keyspace, Table]


def _table_ddl(draft: Draft, verb: str, at: int) -> Plan:
    if draft.word(at) == "IF":
        at += 3 if draft.word(at + 1) == "NOT" else 2
    if verb == "DROP":
        return _everywhere(draft, _list(draft, at))
    registered = new_table(draft, at) if draft.table_hints else None
    found = registered or _table_at(draft, at)
    keyspace, table = found
    if verb == "CREATE":
        if draft.has("SELECT") or "TABLE" in (draft.word(i) for i in range(at, len(draft.tokens))):
            raise refuse("CREATE TABLE … SELECT is not supported: create the table, then INSERT … SELECT")
        like = next((i for i in range(at, len(draft.tokens)) if draft.word(i) == "LIKE"), -1)
        if like >= 0 and draft.word(like - 1) != "NOT" and (like < at + 6):
            other = _table_at(draft, like + 1)
            if _shards(other) != _shards(found) or (table.key or "").lower() != (other[1].key or "").lower():
                raise refuse("CREATE TABLE … LIKE needs a table that is on the same shards, with the same key")
        elif table.kind is TableKind.SHARDED and not _defines(draft, at, table.key or ""):
            raise refuse(f"the new table '{keyspace.name}.{table.name}' has no column {table.key}, its shard key")
    elif table.kind is TableKind.SHARDED:
        _keeps_key(draft, at, table)
    return _everywhere(draft, [found], table if registered else None)


def _temporary(draft: Draft) -> Plan:
    """CREATE or DROP TEMPORARY TABLE: on the session's own connection."""
    draft.pins[PinReason.TEMPORARY_TABLE] = None
    raise refuse(
        "temporary tables are not supported yet: a hint /*shardproxy: shard=NAME*/ keeps the session on one shard"
    )


def _rename(draft: Draft, at: int) -> Plan:
    """RENAME TABLE a TO b, …: both names must be configured alike."""
    at += draft.word(at) in ("TABLE", "TABLES")
    found = []
    while True:
        old, at = _qualified(draft, at)
        if draft.word(at) != "TO":
            raise refuse("cannot read this RENAME", 1064)
        new, at = _qualified(draft, at + 1)
        if old[0].name != new[0].name or (old[1].kind, old[1].key, old[1].shard) != (
            new[1].kind,
            new[1].key,
            new[1].shard,
        ):
            raise refuse("RENAME TABLE needs both names in the configuration, of the same keyspace, kind and key")
        found += [old, new]
        if at >= len(draft.tokens):
            return _everywhere(draft, found)
        if draft.word(at) != ",":
            raise refuse("cannot read this RENAME", 1064)
        at += 1


def _list(draft: Draft, at: int) -> list[Found]:
    """table, table … [RESTRICT | CASCADE]"""
    found = []
    while True:
        one, at = _qualified(draft, at)
        found.append(one)
        if draft.word(at) != ",":
            return found
        at += 1


def _table_at(draft: Draft, at: int) -> Found:
    return _qualified(draft, at)[0]


def _qualified(draft: Draft, at: int) -> tuple[Found, int]:
    """A configured table and the index behind its name."""
    if at >= len(draft.tokens) or not is_name(draft.tokens[at]):
        raise refuse(f"cannot read this {draft.word(0)}", 1064)
    database, name, end = draft.context.schema or "", draft.tokens[at].text, at + 1
    if draft.word(at + 1) == "." and at + 2 < len(draft.tokens):
        database, name, end = name, draft.tokens[at + 2].text, at + 3
    if not database:
        raise refuse("No database selected", 1046)
    if database.lower() in SYSTEM_DATABASES:
        raise refuse(f"{draft.word(0)} in system database {database} is not supported: {_HINT}")
    keyspace = draft.context.snapshot.keyspaces.get(database)
    if keyspace is None:
        raise refuse(unknown_database(draft, database), 1049)
    table = keyspace.tables.get(name)
    if table is None:
        register = ", or register it: CREATE TABLE … /*shardproxy: key=COLUMN*/" if draft.word(0) == "CREATE" else ""
        raise refuse(
            f"table '{database}.{name}' is not in the configuration: add it under [keyspaces.{database}.tables] in "
            f"shardproxy.toml (sharded by a key, reference, or single), then run {draft.word(0)}{register}"
        )
    return (keyspace, table), end


def _shards(found: Found) -> tuple[int, ...]:
    keyspace, table = found
    return (table.shard,) if table.kind is TableKind.SINGLE and table.shard is not None else keyspace.shards


def _everywhere(draft: Draft, found: list[Found], register: Table | None = None) -> Plan:
    """Each shard that has the tables runs the statement. register: the new table, when it is not configured yet."""
    keyspace = found[0][0]
    check_ddl(draft, found)
    homes = {_shards(one) for one in found}
    if len(homes) != 1 or any(one[0].name != keyspace.name for one in found):
        raise refuse("these tables are not on the same shards: change them in separate statements")
    shards = homes.pop()
    names = tuple(dict.fromkeys(table.name for _, table in found))
    drops = draft.word(0) == "DROP" and draft.word(1) in ("TABLE", "TABLES")
    single = found[0][1].shard
    groups = (Group(names, keyspace, shard=single),) if single is not None else ()
    return draft.plan(
        Opcode.UNSHARDED if single is not None else Opcode.SCATTER,
        f"every shard that has {', '.join(names)}: {len(shards)} of keyspace {keyspace.name}",
        keyspace=keyspace,
        groups=groups,
        spread=Spread.ALL,
        tables=names,
        schema_change=True,
        ddl=DdlPlan(
            keyspace,
            names,
            repeatable(draft, names),
            drops,
            reverse(draft, keyspace.name, names),
            register,
            names if drops else (),
            emptied_indexes(draft, found),
        ),
    )


def _defines(draft: Draft, at: int, column: str) -> bool:
    """Whether CREATE TABLE defines the column: a name right after ( or , at depth one."""
    depth = 0
    for i in range(at, len(draft.tokens)):
        word = draft.word(i)
        starts = depth == 1 and draft.word(i - 1) in ("(", ",") and is_name(draft.tokens[i])
        if starts and draft.tokens[i].text.lower() == column.lower():
            return True
        depth += {"(": 1, ")": -1}.get(word, 0)
    return False


def _keeps_key(draft: Draft, at: int, table: Table) -> None:
    """Raises when ALTER TABLE touches the key column, renames the table, or moves partitions away."""
    key = (table.key or "").lower()
    for i in range(at, len(draft.tokens)):
        word = draft.word(i)
        if word in ("DROP", "CHANGE", "MODIFY", "RENAME", "ALTER"):
            name = i + 1
            while draft.word(name) in ("COLUMN", "IF", "EXISTS"):
                name += 1
            if name < len(draft.tokens) and is_name(draft.tokens[name]) and draft.tokens[name].text.lower() == key:
                raise refuse(f"ALTER TABLE may not change the shard key {table.name}.{table.key}")
            if word == "RENAME" and draft.word(name) not in ("INDEX", "KEY") and draft.word(i + 1) != "COLUMN":
                raise refuse("ALTER TABLE … RENAME is not supported: use RENAME TABLE")
        if word in ("EXCHANGE", "TABLESPACE", "CONVERT"):
            raise refuse(f"ALTER TABLE … {word} is not supported: {_HINT}")
