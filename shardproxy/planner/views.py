"""CREATE, ALTER and DROP VIEW: on every shard of the keyspace."""

from __future__ import annotations

from sqlglot import exp

from shardproxy.planner.blocks import SYSTEM_DATABASES, find_table, unknown_database
from shardproxy.planner.ddl_plan import DdlPlan
from shardproxy.planner.ddl_reverse import repeatable, reverse
from shardproxy.planner.draft import Draft, is_name, refuse
from shardproxy.planner.parse import parse
from shardproxy.planner.plan import Opcode, Plan, Spread
from shardproxy.topology.model import Keyspace, TableKind

_FARTHEST = 14  # CREATE OR REPLACE ALGORITHM = … DEFINER = 'a' @ 'b' SQL SECURITY … VIEW


def view_ddl(draft: Draft) -> Plan | None:
    """The plan of a statement about views; None when it is not about views."""
    verb = draft.word(0)
    at = next((i for i in range(1, _FARTHEST) if draft.word(i) == "VIEW"), -1)
    before = [draft.word(i) for i in range(1, max(at, 0))]
    if at < 0 or verb not in ("CREATE", "ALTER", "DROP") or "AS" in before or "TABLE" in before:
        return None
    if before and verb != "DROP" and "DEFINER" in before:
        raise refuse("a view with a DEFINER is not supported: leave it out")
    if verb == "DROP":
        return _drop(draft, at + 1)
    at += 1
    if draft.word(at) == "IF":
        at += 3
    keyspace, name, at = _view_at(draft, at)
    body = next((i for i in range(at, len(draft.tokens)) if draft.word(i) == "AS"), -1)
    if body < 0:
        raise refuse(f"cannot read this {verb} VIEW", 1064)
    _check_tables(draft, body + 1, keyspace)
    return _plan(draft, keyspace, (name,), False)


def _drop(draft: Draft, at: int) -> Plan:
    """DROP VIEW [IF EXISTS] a, b"""
    if draft.word(at) == "IF":
        at += 2
    names: list[str] = []
    keyspaces: dict[str, Keyspace] = {}
    while True:
        keyspace, name, at = _view_at(draft, at)
        names.append(name)
        keyspaces[keyspace.name] = keyspace
        if draft.word(at) != ",":
            break
        at += 1
    if len(keyspaces) != 1:
        raise refuse("these views are of several keyspaces: drop them in separate statements")
    [keyspace] = keyspaces.values()
    return _plan(draft, keyspace, tuple(dict.fromkeys(names)), True)


def _view_at(draft: Draft, at: int) -> tuple[Keyspace, str, int]:
    """Keyspace and name of the view at `at`, and the index behind it. Raises when it is a table's name."""
    if at >= len(draft.tokens) or not is_name(draft.tokens[at]):
        raise refuse(f"cannot read this {draft.word(0)} VIEW", 1064)
    database, name, end = draft.context.schema or "", draft.tokens[at].text, at + 1
    if draft.word(at + 1) == "." and at + 2 < len(draft.tokens):
        database, name, end = name, draft.tokens[at + 2].text, at + 3
    if not database:
        raise refuse("No database selected", 1046)
    keyspace = draft.context.snapshot.keyspaces.get(database)
    if keyspace is None:
        raise refuse(unknown_database(draft, database), 1049)
    if name in keyspace.tables:
        if draft.word(0) == "DROP" and draft.word(2) != "IF":
            if draft.context.mariadb:
                raise refuse(f"Unknown VIEW: '{database}.{name}'", 4092)
            if draft.context.catalog.get(database, name) is None:
                raise refuse(f"Unknown table '{database}.{name}'", 1051)
            raise refuse(f"'{database}.{name}' is not VIEW", 1347)
        raise refuse(f"'{database}.{name}' is a table of the configuration, and a view may not have its name", 1050)
    return keyspace, name, end


def _check_tables(draft: Draft, at: int, keyspace: Keyspace) -> None:
    """Raises unless the definition reads only tables and views that all shards of this keyspace have; on MySQL also
    where they are another keyspace's."""
    inner = draft.cut(at)
    tokens = inner.tokens
    if tokens and tokens[-1].upper == "OPTION" and "WITH" in (t.upper for t in tokens[-4:]):
        start = max(i for i, t in enumerate(tokens) if t.upper == "WITH")
        inner.use(tokens[:start])
    tree = parse(inner, inner.tokens)
    ctes = {cte.alias for cte in tree.find_all(exp.CTE)}
    for node in tree.find_all(exp.Table):
        if not node.db and (node.name in ctes or node.name.upper() == "DUAL"):
            continue
        if (node.db or draft.context.schema or "").lower() in SYSTEM_DATABASES:
            raise refuse("a view of a system database's tables is not supported")
        if _is_view(draft, node.db or draft.context.schema or "", node.name, keyspace):
            continue
        home, table = find_table(draft, node.db, node.name)
        if home is None or table is None or not set(keyspace.shards) <= set(home.shards):
            raise refuse(f"the view is in keyspace '{keyspace.name}', of which not every shard has '{node.name}'")
        if home.name != keyspace.name and not draft.context.mariadb:
            # MySQL tells clients the view's database as that of its columns; of a derived table it tells the tables'.
            raise refuse(f"the view is in keyspace '{keyspace.name}' and reads tables of another")
        if table.kind is TableKind.SINGLE:
            raise refuse(
                f"the view reads '{table.name}', which is on one shard: create it there, with a hint shard=NAME"
            )


def _is_view(draft: Draft, database: str, name: str, keyspace: Keyspace) -> bool:
    """Whether it is another view of the keyspace."""
    schema = draft.context.catalog.get(database, name)
    return database == keyspace.name and name not in keyspace.tables and schema is not None and schema.is_view


def _plan(draft: Draft, keyspace: Keyspace, names: tuple[str, ...], drops: bool) -> Plan:
    return draft.plan(
        Opcode.SCATTER,
        f"every shard: view {', '.join(names)} on {len(keyspace.shards)} of keyspace {keyspace.name}",
        keyspace=keyspace,
        spread=Spread.ALL,
        tables=names,
        schema_change=True,
        ddl=DdlPlan(keyspace, names, repeatable(draft, names), drops, reverse(draft, keyspace.name, names)),
    )
