"""Rung 3: what several shards cannot answer by themselves runs, as it is, over their rows gathered on one server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from shardproxy.errors import SqlError
from shardproxy.planner import routes
from shardproxy.planner.blocks import Facts, find_table, refuse_view
from shardproxy.planner.draft import Draft, refuse
from shardproxy.planner.plan import Group, Opcode, Plan, Rung, Spread, StatementKind
from shardproxy.planner.scratch_locks import reference_locks
from shardproxy.planner.scratch_mentions import table_places
from shardproxy.planner.scratch_needs import Need, in_common, needs
from shardproxy.planner.scratch_plan import Copy, ScratchPlan
from shardproxy.planner.scratch_tables import Reference, Tables, find_tables
from shardproxy.planner.scratch_text import Spliced, splice
from shardproxy.planner.select_parts import as_written
from shardproxy.planner.template import Template
from shardproxy.sql.functions import LOCKS, SEQUENCES
from shardproxy.sql.tokens import TokenKind
from shardproxy.sql.words import words
from shardproxy.topology.model import Keyspace, Table, TableKind

_ONE_SERVERS = words("""
    binlog_gtid_pos gtid_subset gtid_subtract load_file master_gtid_wait master_pos_wait ps_current_thread_id
    ps_thread_id roles_graphml source_pos_wait wait_for_executed_gtid_set wait_until_sql_thread_after_gtids
    wsrep_last_seen_gtid wsrep_last_written_gtid wsrep_sync_wait_upto_gtid
""")
# They tell values apart that have the same JSON text, or show in what space they are kept.
_STORED_JSON = words("json_type json_storage_size json_storage_free")
_FORBIDDEN_WORDS = {
    "INTO": "INTO",
    "PROCEDURE": "PROCEDURE",
    "SYSTEM_TIME": "FOR SYSTEM_TIME",
    "AGAINST": "a full-text search",
}


def scratch(draft: Draft, facts: Facts, plan: Plan) -> Plan:
    """The plan of a SELECT that is exact on one shard, with scratch tables for several.

    A plan that merges goes there only where the types at hand forbid the merge; one that is an error over several
    shards always. It stays as it is where scratch tables would not be exact either.
    """
    try:
        found = _scratch_plan(draft, plan.groups, facts)
    except SqlError as error:
        if plan.spread is Spread.MERGE:
            return plan
        return replace(plan, spread_error=routes.several_shards(plan.groups, str(error)))
    if plan.spread is Spread.MERGE:
        return replace(plan, scratch=found)
    certain = len(plan.groups) == 1 and plan.opcode in (Opcode.EQUAL_UNIQUE, Opcode.UNSHARDED)
    return replace(
        plan,
        spread=Spread.SCRATCH,
        spread_error="",
        rung=Rung.ONE_SHARD if certain else Rung.SCRATCH,
        reason=plan.reason if certain else f"gathered into scratch tables: {routes.described(plan.groups)}",
        fixed_time=False,
        scratch=found,
    )


def scratch_unanalysed(draft: Draft, error: SqlError) -> Plan:
    """The plan of a SELECT that no other way serves, because it cannot be analysed or its tables never meet on one
    shard; `error` says so. Raises it where scratch tables would not be exact either."""
    try:
        found = _scratch_plan(draft, (), None)
    except SqlError as problem:
        raise (problem if problem.code in (1046, 1049) else error) from None
    tables = tuple(dict.fromkeys(copy.table for copy in found.copies))
    return draft.plan(
        Opcode.SCRATCH,
        f"gathered into scratch tables: {', '.join(tables)}",
        Rung.SCRATCH,
        read=all(copy.lock is None for copy in found.copies),
        spread=Spread.SCRATCH,
        not_above=str(error),
        scratch=found,
        tables=tables,
    )


def _scratch_plan(draft: Draft, groups: tuple[Group, ...], facts: Facts | None) -> ScratchPlan:
    """Raises UnsupportedError with what stands in the way."""
    _check(draft)
    tables = find_tables(draft)
    named = referenced(draft, tables)
    if not named:
        raise refuse("no table")
    certain = facts is not None and _agree(draft, facts, tables)
    if not certain:
        named |= mentioned(draft, tables)
    for one in named.values():
        refuse_view(draft, *one)
    locks = reference_locks(draft, tables)
    needed = needs(draft, tables, certain)
    if draft.context.mariadb:
        shared = []
        places: list[tuple[Need, list[Reference]]] = []
        for key, one in named.items():
            uses = [r for r in locks if (r.database or draft.context.schema or "", r.name) == key]
            need = in_common(needed[r] for r in uses)
            shared.append(_needed(copy_of(one, one[1].name, groups), _only_lock(draft, locks, uses), need, uses))
            places += [(need, uses)]
        text = _whole(draft) if draft.expanded else None
        return ScratchPlan(_keyed(shared, places), text, into=draft.has("INTO"))
    spliced = splice(draft, tables, names_taken(draft, tables))
    check_spliced(draft, spliced)
    copies = []
    for name, reference in spliced.uses:
        one = named[reference.database or draft.context.schema or "", reference.name]
        copies.append(_needed(copy_of(one, name, groups), locks[reference], needed[reference], [reference]))
    used = {(copy.database, copy.table) for copy in copies}
    copies += [copy_of(one, one[1].name, ()) for key, one in named.items() if key not in used]
    stored_json = min(draft.functions & _STORED_JSON, default="")
    text = spliced.text if spliced.changed else _whole(draft) if draft.expanded else None
    places = [(needed[reference], [reference]) for _, reference in spliced.uses]
    return ScratchPlan(_gathered_once(_keyed(copies, places)), text, stored_json, into=draft.has("INTO"))


def _whole(draft: Draft) -> Template:
    return as_written(draft, 0, len(draft.tokens))


def _keyed(copies: list[Copy], needed: list[tuple[Need, list[Reference]]]) -> tuple[Copy, ...]:
    """With the columns by which copies depend on each other. needed: for the first of them what they are for."""
    places: dict[Reference, int] = {}
    for place, (_, uses) in enumerate(needed):
        for reference in uses:
            places.setdefault(reference, place)
    found = list(copies)
    for place, (need, _) in enumerate(needed):
        keys = ((ours, places[other], theirs) for ours, other, theirs in need.keys if other in places)
        found[place] = replace(copies[place], keys=tuple(key for key in keys if key[1] != place))
    return tuple(found)


def _gathered_once(copies: tuple[Copy, ...]) -> tuple[Copy, ...]:
    """Where one use of a table needs all of its rows, the others are copied from that one on the server."""
    found = []
    for copy in copies:
        same = [c for c in copies if (c.database, c.table, c.lock) == (copy.database, copy.table, copy.lock)]
        if any(other.columns is None for other in same):
            copy = replace(copy, columns=None)
        if any(other.where is None and not other.keys for other in same):
            copy = replace(copy, where=None, literals=(), keys=(), alias=copy.name)
        found.append(copy)
    return tuple(found)


def names_taken(draft: Draft, tables: Tables) -> set[str]:
    """Names that no scratch table may get."""
    taken = {name for keyspace in draft.context.snapshot.keyspaces.values() for name in keyspace.tables}
    return taken | {cte.name for clause in tables.withs for cte in clause.ctes}


def check_spliced(draft: Draft, spliced: Spliced) -> None:
    """Raises where the text may not be put together anew: tokens do not tell where an executable comment ends."""
    if spliced.changed and (b"/*!" in draft.sql or b"/*M!" in draft.sql):
        raise refuse("an executable comment")


def check_functions(draft: Draft) -> None:
    """Raises for what only the server at hand knows."""
    if draft.pins:
        reason = next(iter(draft.pins)).value
        raise refuse(f"what only one server connection knows ({reason})")
    odd = sorted(draft.functions & (LOCKS | SEQUENCES | _ONE_SERVERS))
    if odd:
        raise refuse(f"{odd[0].upper()}()")


def _check(draft: Draft) -> None:
    check_functions(draft)
    for word, what in _FORBIDDEN_WORDS.items():
        if draft.has(word) and not (word == "INTO" and into_variables(draft)):
            raise refuse(what)
    if draft.kind is not StatementKind.SELECT:
        raise refuse(f"{draft.kind.value} is not supported")


def into_variables(draft: Draft) -> bool:
    """SELECT … INTO @a, @b."""
    at = next((i for i in range(len(draft.tokens)) if draft.word(i) == "INTO"), len(draft.tokens))
    return at + 1 < len(draft.tokens) and draft.tokens[at + 1].kind is TokenKind.USER_VARIABLE


Named = tuple[Keyspace, Table]


def referenced(draft: Draft, tables: Tables) -> dict[tuple[str, str], Named]:
    """The tables that stand in FROM clauses, by database and name."""
    named: dict[tuple[str, str], Named] = {}
    for reference in tables.references:
        if reference.cte is None:
            keyspace, table = find_table(draft, reference.database, reference.name)
            if keyspace is None or table is None:
                raise refuse(f"system table '{reference.name}' together with tables of a keyspace")
            named[keyspace.name, table.name] = (keyspace, table)
    return named


def _agree(draft: Draft, facts: Facts, tables: Tables) -> bool:
    """Whether the tree and the tokens have the same tables, each as often."""
    by_tree = Counter((s.database, s.table.name) for s in facts.sources if s.table is not None)
    schema = draft.context.schema or ""
    return by_tree == Counter((r.database or schema, r.name) for r in tables.references if r.cte is None)


def mentioned(draft: Draft, tables: Tables) -> dict[tuple[str, str], Named]:
    """Tables whose names stand anywhere else in the statement where a table may stand. A place that was overlooked
    then reads gathered rows too, never those of one shard."""
    seen = {i for reference in tables.references for i in range(reference.first, reference.end)}
    keyspaces = draft.context.snapshot.keyspaces
    named: dict[tuple[str, str], Named] = {}
    for i in table_places(draft):
        if i in seen:
            continue
        token = draft.tokens[i]
        qualified = draft.word(i - 1) == "." and i >= 2
        keyspace = keyspaces.get(draft.tokens[i - 2].text if qualified else draft.context.schema or "")
        table = keyspace.tables.get(token.text) if keyspace is not None else None
        if keyspace is not None and table is not None:
            named[keyspace.name, table.name] = (keyspace, table)
    return named


def _only_lock(draft: Draft, locks: dict[Reference, Template | None], uses: list[Reference]) -> Template | None:
    """The lock with which a table is read wherever the statement names it."""
    found = {locks[reference] for reference in uses}
    if len(found) > 1:
        raise refuse(f"a lock on '{uses[0].name}' in one place and none, or another, elsewhere in the statement,")
    return next(iter(found), None)


def _needed(copy: Copy, lock: Template | None, need: Need, uses: Sequence[Reference]) -> Copy:
    """The scratch table with what these uses of it need."""
    copy = replace(copy, columns=need.columns, lock=lock)
    if need.filter is None:
        return copy
    return replace(copy, alias=uses[0].alias, where=need.filter.text, literals=need.filter.literals)


def copy_of(table: Named, name: str, groups: tuple[Group, ...], lock: Template | None = None) -> Copy:
    """A scratch table with this name. groups: where its rows are, as far as that is known.

    A reference table is read, and locked, on its keyspace's first shard, where whoever locks or writes it begins.
    """
    keyspace, configured = table
    homes = tuple(g for g in groups if g.keyspace.name == keyspace.name and configured.name in g.tables)
    if configured.kind is TableKind.REFERENCE or not homes:
        homes = (Group((configured.name,), keyspace, shard=configured.shard),)
    reference = configured.kind is TableKind.REFERENCE
    return Copy(keyspace.name, configured.name, name, homes, reference, name, lock=lock)
