"""UPDATE and DELETE: what they change decides where they may run."""

from __future__ import annotations

from sqlglot import exp

from shardproxy.planner import routes
from shardproxy.planner.blocks import Block, Facts, Source, SourceKind, is_key, lacks_column
from shardproxy.planner.draft import Draft, refuse
from shardproxy.planner.groups import groups
from shardproxy.planner.plan import Opcode, Plan, Rung, Spread
from shardproxy.planner.reference_writes import reference_write
from shardproxy.planner.unseen import hides, with_condition
from shardproxy.planner.write_obstacles import reads_clock
from shardproxy.planner.write_plan import SEVERAL_SHARDS
from shardproxy.planner.write_steps import ordered_change
from shardproxy.topology.schema import TableSchema


def change(draft: Draft, tree: exp.Update | exp.Delete, facts: Facts) -> Plan:
    """The plan of an UPDATE or DELETE."""
    block = facts.root
    assert block is not None
    targets = _updated(draft, tree, block) if isinstance(tree, exp.Update) else _deleted(tree, block)
    kinds = {source.kind for source in targets}
    if not kinds <= {SourceKind.SHARDED, SourceKind.SINGLE, SourceKind.REFERENCE}:
        raise refuse(f"{draft.kind.value} of a system table, a subquery or a WITH query is not supported")
    if SourceKind.REFERENCE in kinds:
        return reference_write(draft, facts, targets)
    found = groups(facts)
    routes.check_references(facts, found)
    opcode = routes.opcode(found)
    certain = opcode in (Opcode.EQUAL_UNIQUE, Opcode.UNSHARDED)
    steps = ordered_change(draft, facts, found)
    why = steps if isinstance(steps, str) else ""
    text = None
    if hides(group.keyspace for group in found) and not why:
        made = with_condition(draft, facts, found)
        if isinstance(made, str):
            why = steps = made
        else:
            text = made
    spread = Spread.REFUSE if why else Spread.EACH if steps is None else Spread.WRITE
    return draft.plan(
        opcode,
        routes.reason(found, draft, spread),
        Rung.ONE_SHARD if certain or spread is Spread.REFUSE else Rung.MERGE,
        keyspace=routes.only_keyspace(found),
        groups=found,
        spread=spread,
        spread_error=routes.several_shards(found, f"{draft.kind.value} with {why}") if why else "",
        not_above="" if certain or spread is Spread.REFUSE else SEVERAL_SHARDS,
        fixed_time=spread is not Spread.REFUSE and reads_clock(draft, _schemas(draft, targets)),
        key_index=routes.key_index(found) if not draft.pins else -1,
        tables=routes.tables(facts),
        text=text,
        write=None if isinstance(steps, str) else steps,
    )


def _schemas(draft: Draft, sources: list[Source]) -> list[TableSchema]:
    """What is known of the sources' tables."""
    found = [draft.context.catalog.get(s.database, s.table.name) for s in sources if s.table is not None]
    return [schema for schema in found if schema is not None]


def _updated(draft: Draft, tree: exp.Update, block: Block) -> list[Source]:
    """The sources whose columns are assigned. Raises when one of them is a shard key."""
    targets: list[Source] = []
    for assignment in tree.expressions:
        column = assignment.this if isinstance(assignment, exp.EQ) else None
        if not isinstance(column, exp.Column):
            raise refuse("an assignment of this UPDATE cannot be analysed")
        source = _owner(draft, column, block)
        if is_key(source, column) or _key_follows(draft, source):
            raise refuse(
                f"UPDATE may not change the shard key by assigning {column.name}: the row would have to move; delete "
                "it and insert it anew"
            )
        if source not in targets:
            targets.append(source)
    if not targets:
        raise refuse("an assignment of this UPDATE cannot be analysed")
    return targets


def _key_follows(draft: Draft, source: Source) -> bool:
    """The key is a generated column: it may follow whatever is assigned."""
    schema = draft.context.catalog.get(source.database, source.table.name) if source.table is not None else None
    column = schema.column(source.table.key) if schema is not None and source.table and source.table.key else None
    return column is not None and column.generated


def _owner(draft: Draft, column: exp.Column, block: Block) -> Source:
    if column.table:
        found = [s for s in block.sources if s.name == column.table and (not column.db or s.database == column.db)]
    elif len(block.sources) == 1:
        found = block.sources
    else:
        found = [s for s in block.sources if not lacks_column(draft, s, column.name)]
    if len(found) != 1:
        raise refuse(f"it is not certain which table's column '{column.name}' is: write table.{column.name}")
    return found[0]


def _deleted(tree: exp.Delete, block: Block) -> list[Source]:
    named = tree.args.get("tables") or []
    if not named:
        if len(block.sources) != 1:
            raise refuse("this form of DELETE is not supported")
        return block.sources
    targets = []
    for table in named:
        found = [s for s in block.sources if s.name == table.name and (not table.db or s.database == table.db)]
        if len(found) != 1:
            raise refuse(f"it is not certain which table '{table.name}' is in this DELETE")
        targets.append(found[0])
    return targets
