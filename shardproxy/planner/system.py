"""Reads of information_schema and the other system databases: what is the same on every shard, any shard answers."""

from __future__ import annotations

from shardproxy.planner.blocks import Facts, SourceKind
from shardproxy.planner.draft import Draft, refuse
from shardproxy.planner.plan import Opcode, Plan, Spread
from shardproxy.sql.words import words

_SAME_EVERYWHERE: dict[str, frozenset[str]] = {
    "information_schema": words("""
    applicable_roles character_sets check_constraints collation_character_set_applicability collations
    column_privileges columns columns_extensions enabled_roles engines events geometry_columns global_variables
    key_column_usage keywords parameters partitions plugins referential_constraints routines schema_privileges
    schemata schemata_extensions session_variables spatial_ref_sys sql_functions st_geometry_columns
    st_spatial_reference_systems st_units_of_measure statistics system_variables table_constraints
    table_constraints_extensions table_privileges tables tables_extensions triggers user_privileges
    view_routine_usage view_table_usage views
"""),
    "performance_schema": frozenset({"global_variables", "session_variables"}),
    "mysql": words("""
    help_category help_keyword help_relation help_topic time_zone time_zone_leap_second time_zone_name
    time_zone_transition time_zone_transition_type
"""),
}


def system_read(draft: Draft, facts: Facts, read: bool) -> Plan:
    """The plan of a SELECT that reads system tables."""
    for source in facts.sources:
        if source.kind is not SourceKind.SYSTEM:
            raise refuse("a statement may not read system tables and tables of a keyspace together")
        if source.system_table.lower() not in _SAME_EVERYWHERE.get(source.database, frozenset()):
            raise refuse(
                f"{source.database}.{source.system_table} is about one server; a hint /*shardproxy: shard=NAME*/ asks "
                "one shard's"
            )
    keyspace = draft.context.snapshot.keyspaces.get(draft.context.schema or "")
    return draft.plan(
        Opcode.UNSHARDED,
        "metadata that every shard has alike: any shard",
        spread=Spread.ANY,
        read=read,
        keyspace=keyspace,
    )
