"""Definitions of the tables that move, as a server has them."""

from __future__ import annotations

from shardproxy.errors import ReshardError
from shardproxy.reshard.columns import ColumnShape, EntryRows, TableShape, WholeTable, quote
from shardproxy.reshard.link import Link
from shardproxy.topology.moving import MovingKeys


async def read_shape(
    link: Link, database: str, table: str, key: str | None, rows: WholeTable | EntryRows | None = None,
    also: tuple[str, MovingKeys] | None = None,
) -> TableShape:  # fmt: skip
    """One table. key: the column that places its rows, None where it goes whole; also: see TableShape, by the column's
    name. Raises ReshardError when the engine cannot move it."""
    where = b"table_schema = %s AND table_name = %s" % (quote(database.encode()), quote(table.encode()))
    columns_sql = (
        b"SELECT column_name, data_type, column_type, character_set_name, collation_name, extra, is_nullable, "
        b"generation_expression FROM information_schema.columns WHERE " + where + b" ORDER BY ordinal_position"
    )
    primary_sql = (
        b"SELECT column_name, sub_part FROM information_schema.statistics WHERE "
        + where
        + b" AND index_name = 'PRIMARY' ORDER BY seq_in_index"
    )
    found, primary_rows = await link.queries((columns_sql, primary_sql))
    texts = [[None if value is None else value.decode() for value in row] for row in found.values()]
    name = f"{database}.{table}"
    if not texts:
        raise ReshardError(f"{link.server.name} has no table {name}")
    columns = tuple(
        ColumnShape(
            name=str(column),
            data_type=str(data_type).lower(),
            column_type=str(column_type),
            charset=charset,
            collation=collation,
            generated=bool(expression) or "generated" in (extra or "").lower().replace("default_generated", ""),
            nullable=nullable == "YES",
        )
        for column, data_type, column_type, charset, collation, extra, nullable, expression in texts
    )
    places = {column.name.lower(): i for i, column in enumerate(columns)}
    primary = []
    for column, prefix in primary_rows.values():
        assert column is not None
        if prefix is not None:
            raise ReshardError(f"{name}: its primary key holds only the beginning of {column.decode()}")
        primary.append(places[column.decode().lower()])
    if not primary:
        raise ReshardError(f"{name} has no primary key: its rows cannot be told apart, so they cannot be moved")
    if any(columns[i].generated for i in primary):
        raise ReshardError(f"{name}: a primary key over generated columns cannot be moved")
    if key is None:
        return TableShape(database, table, columns, tuple(primary), primary[0], rows)
    for wanted in (key, *(also[:1] if also is not None else ())):
        if wanted.lower() not in places:
            raise ReshardError(f"{name} has no column {wanted}")
    other = None if also is None else (places[also[0].lower()], also[1])
    return TableShape(database, table, columns, tuple(primary), places[key.lower()], rows, other)
