"""With sql_auto_is_null on, `column IS NULL` of an AUTO_INCREMENT column means the row that the connection has inserted
last. The client's last row was inserted on any connection, so such conditions are refused; all others mean what they
always do."""

from __future__ import annotations

from shardproxy.planner.draft import Draft, is_name, refuse
from shardproxy.planner.plan import Plan


def last_row(draft: Draft) -> Plan | None:
    """Raises UnsupportedError for a statement that may have such a condition."""
    if not draft.context.modes.auto_is_null or not _may_ask(draft):
        return None
    names = {token.text for token in draft.tokens if is_name(token)}
    for (database, table), schema in draft.context.catalog.tables.items():
        if table in names and any(column.auto_increment for column in schema.columns):
            raise refuse(
                f"IS NULL, ISNULL() and <=> in a statement that names {database}.{table}, which has an AUTO_INCREMENT "
                "column, may mean the row inserted last while sql_auto_is_null is on: use LAST_INSERT_ID()"
            )
    return None


def _may_ask(draft: Draft) -> bool:
    return draft.has("IS") or "isnull" in draft.functions or any(token.text == "<=>" for token in draft.tokens)
