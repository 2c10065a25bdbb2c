"""CREATE TABLE … /*shardproxy: key=uid*/: a table that is registered while the proxy runs."""

from __future__ import annotations

from shardproxy.planner.blocks import unknown_database
from shardproxy.planner.draft import Draft, is_name, refuse
from shardproxy.sql.words import words
from shardproxy.topology.keys import KeyType
from shardproxy.topology.model import Keyspace, Table, TableKind

_TYPES = {
    KeyType.INT: words("TINYINT SMALLINT MEDIUMINT INT INTEGER BIGINT"),
    KeyType.TEXT: words("CHAR VARCHAR TINYTEXT TEXT MEDIUMTEXT LONGTEXT"),
    KeyType.BINARY: words("VARBINARY TINYBLOB BLOB MEDIUMBLOB LONGBLOB"),
}
_CHARSETS = ("utf8mb4_", "utf8mb3_", "utf8_", "ascii_")


def new_table(draft: Draft, at: int) -> tuple[Keyspace, Table]:
    """Keyspace and table of the CREATE TABLE whose name stands at `at`, as its hints say.

    Raises UnsupportedError when the hints contradict the configuration, or when the key column of the new table could
    not say where a row lives.
    """
    hints = draft.table_hints
    if at >= len(draft.tokens) or not is_name(draft.tokens[at]):
        raise refuse("cannot read this CREATE", 1064)
    database, name = draft.context.schema or "", draft.tokens[at].text
    behind = at + 1
    if draft.word(at + 1) == "." and at + 2 < len(draft.tokens):
        database, name, behind = name, draft.tokens[at + 2].text, at + 3
    if not database:
        raise refuse("No database selected", 1046)
    keyspace = draft.context.snapshot.keyspaces.get(database)
    if keyspace is None:
        raise refuse(unknown_database(draft, database), 1049)
    if hints.get("keyspace", database) != database:
        raise refuse(f"the hint says keyspace={hints['keyspace']}, and the table would be in database '{database}'")
    if (schema := draft.context.catalog.get(database, name)) is not None and schema.is_view:
        raise refuse(f"'{database}.{name}' is a view", 1050)
    table = _table(draft, keyspace, name)
    known = keyspace.tables.get(name)
    if known is not None and known != table:
        raise refuse(f"table '{database}.{name}' is configured already, in another way than the hint says")
    if table.kind is TableKind.SHARDED and draft.word(behind) != "LIKE" and draft.word(behind + 1) != "LIKE":
        _check_key(draft, behind, keyspace, table)
    return keyspace, table


def _table(draft: Draft, keyspace: Keyspace, name: str) -> Table:
    hints = draft.table_hints
    if "key" in hints:
        return Table(name, TableKind.SHARDED, key=hints["key"])
    if "reference" in hints:
        return Table(name, TableKind.REFERENCE)
    shards = draft.context.snapshot.shards
    index = next((i for i in keyspace.shards if shards[i].name == hints["single"]), None)
    if index is None:
        known = ", ".join(shards[i].name for i in keyspace.shards)
        raise refuse(f"the hint says single={hints['single']}; shards of keyspace '{keyspace.name}' are: {known}")
    return Table(name, TableKind.SINGLE, shard=index)


def _check_key(draft: Draft, at: int, keyspace: Keyspace, table: Table) -> None:
    """Raises unless the key column's definition is known to be fit for the keyspace. No such column: see ddl."""
    start = _column(draft, at, table.key or "")
    if start < 0:
        return
    definition = _definition(draft, start + 1)
    where = f"the key column {table.key} of '{keyspace.name}.{table.name}'"
    kind = definition[0] if definition else ""
    if kind not in _TYPES[keyspace.key_type]:
        known = ", ".join(sorted(_TYPES[keyspace.key_type]))
        raise refuse(f"{where} is {kind or 'of no type'}: a keyspace of {keyspace.key_type.value} keys takes {known}")
    if "ZEROFILL" in definition or "GENERATED" in definition or "AS" in definition:
        raise refuse(f"{where} may not be ZEROFILL or generated")
    if keyspace.key_type is KeyType.TEXT:
        at_collation = definition.index("COLLATE") + 1 if "COLLATE" in definition else -1
        collation = definition[at_collation].lower() if 0 < at_collation < len(definition) else ""
        if not collation.startswith(_CHARSETS) or not collation.endswith("_bin"):
            raise refuse(
                f"{where} must name its collation, one that calls only the same characters equal: … CHARACTER SET "
                "utf8mb4 COLLATE utf8mb4_bin"
            )


def _column(draft: Draft, at: int, name: str) -> int:
    """Index of the name that begins the column's definition: right after ( or , at depth one; −1 when there is none."""
    depth = 0
    for i in range(at, len(draft.tokens)):
        token = draft.tokens[i]
        if depth == 1 and draft.word(i - 1) in ("(", ",") and is_name(token) and token.text.lower() == name.lower():
            return i
        depth += {"(": 1, ")": -1}.get(draft.word(i), 0)
    return -1


def _definition(draft: Draft, at: int) -> list[str]:
    """Words of a column's definition up to the comma or bracket that ends it, in upper case."""
    found: list[str] = []
    depth = 0
    for token in draft.tokens[at:]:
        if depth == 0 and token.upper in (",", ")"):
            break
        depth += {"(": 1, ")": -1}.get(token.upper, 0)
        found.append(token.upper or token.text.upper())
    return found
