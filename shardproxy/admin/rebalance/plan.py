"""A plan: the change that goals ask for, measured, with what stands in its way."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from shardproxy.admin.check.ask import ask_server
from shardproxy.admin.check.facts import ServerFacts
from shardproxy.admin.check.findings import Finding, Severity
from shardproxy.admin.rebalance.ask import MoveFacts, ask_primary, reference_contents
from shardproxy.admin.rebalance.measure import Flow, Measure, Ruler, Size
from shardproxy.admin.rebalance.preflight import Case, Contents, preflight
from shardproxy.backend.catalog import load_registered
from shardproxy.backend.control import Credentials
from shardproxy.backend.table_config import as_tables
from shardproxy.config import Config
from shardproxy.errors import BackendError, GoalError, SqlError
from shardproxy.topology.bootstrap import with_stored
from shardproxy.topology.build import build_snapshot, with_tables
from shardproxy.topology.carried import carried
from shardproxy.topology.goals import Change, Goal, Level, check_together, needs_sizes, reach
from shardproxy.topology.keys import BUCKETS
from shardproxy.topology.levelling import Piece
from shardproxy.topology.load import ENOUGH, Load, MeasuredLoad, together
from shardproxy.topology.map_document import MapDocument
from shardproxy.topology.maps import BucketMap, RangeMap
from shardproxy.topology.model import Keyspace, Snapshot, Table, TableKind
from shardproxy.topology.moving import MovingKeys, every_key
from shardproxy.topology.ring import likely_weights
from shardproxy.topology.streams import all_on
from shardproxy.topology.table_goals import ChangeKey, ShardTable

USUAL_RATE = 50_000  # rows per second that a shard takes, when nothing throttles; for the estimate only


@dataclass(frozen=True, slots=True)
class Plan:
    """flows: as the streams of `change`; totals: shard → all that it has now; measured: False where a levelling had to
    go by estimates; seconds: of the copy, at the throttle."""

    snapshot: Snapshot
    change: Change
    flows: tuple[Flow, ...]
    totals: dict[int, Size]
    measured: bool
    throttle: int | None
    seconds: float
    findings: tuple[Finding, ...]
    before: Keyspace  # with all its tables
    key_before: str | None = None  # of a table that gets another key
    load: MeasuredLoad | None = None  # by which it was levelled

    @property
    def refused(self) -> bool:
        return any(finding.severity is Severity.ERROR for finding in self.findings)

    def share(self, part: Size) -> float:
        """Of all bytes; of all rows where a server knows no bytes."""
        total = sum(self.totals.values(), Size())
        if total.bytes:
            return min(1.0, part.bytes / total.bytes)
        return min(1.0, part.rows / total.rows) if total.rows else 0.0


async def make_plan(
    config: Config,
    keyspace_name: str,
    goals: Sequence[Goal],
    budget: float,
    throttle: int | None = None,
    documents: Mapping[str, MapDocument] | None = None,
    loads: Sequence[Load] = (),
) -> Plan:
    """Ask the servers and make the plan. budget: seconds of counting on each shard; documents: the map store's maps,
    which are in force where there are some; loads: what proxies measured, for levelling by it.

    Raises GoalError for goals that make no sense, ConfigError for a password, BackendError or SqlError when a shard
    that owns keys cannot be measured.
    """
    credentials, seconds = Credentials.of_moves(config), config.backend.connect_timeout
    snapshot = build_snapshot(config)
    if keyspace_name not in snapshot.keyspaces:
        raise GoalError(f"there is no keyspace {keyspace_name}; known are {', '.join(snapshot.keyspaces)}")
    rows = await load_registered(with_stored(snapshot, documents or {}), credentials, seconds)
    registered, _ = as_tables(rows, [shard.name for shard in snapshot.shards])
    snapshot, _ = with_tables(snapshot, registered)
    snapshot = with_stored(snapshot, documents or {})
    keyspace = snapshot.keyspaces[keyspace_name]
    weights = config.keyspaces[keyspace_name].ring
    if isinstance(keyspace.map, BucketMap):  # the store's map may be newer than the file
        names_of = {shard: snapshot.shards[shard].name for shard in keyspace.map.all_shards}
        weights = likely_weights(keyspace.map.buckets, names_of, weights)
    if not needs_sizes(goals, keyspace):
        reach(snapshot, keyspace, weights, goals)  # what makes no sense is said before anybody is asked
    by_load = any(isinstance(goal, Level) and goal.by == "queries" for goal in goals)
    load = None
    if by_load and needs_sizes(goals, keyspace):
        check_together(goals, isinstance(keyspace.map, BucketMap))
        load = enough(together(loads, keyspace))
    change = key_before = None
    before = placed = keyspace  # the keyspace as rows are placed in it now
    if any(isinstance(goal, ShardTable | ChangeKey) for goal in goals):
        change = reach(snapshot, keyspace, weights, goals)
        assert change.table is not None
        key_before = keyspace.tables[change.table.name].key
        keyspace, placed = _of_one_table(keyspace, change.table)
        snapshot = replace(snapshot, keyspaces={**snapshot.keyspaces, keyspace.name: keyspace})
    ruler = Ruler(snapshot, keyspace, credentials, seconds, budget)
    async with Measure(ruler) as measure:
        totals = await measure.totals()
        pieces: list[Piece] = []
        costs: list[Piece] | None = None
        measured = True
        if load is not None:
            pieces = load.pieces()
            if isinstance(keyspace.map, RangeMap):
                costs, measured = await measure.pieces()
        elif needs_sizes(goals, keyspace):
            pieces, measured = await measure.pieces()
        if change is None:
            change = carried(keyspace, reach(snapshot, keyspace, weights, goals, pieces, costs))
        flows = await measure.flows(change if key_before is None else _by_target(change))
    duration = _duration(flows, throttle)
    wider = replace(snapshot, shards=change.shards)
    findings = await _findings(config, wider, placed, change, flows, duration, ruler)
    return Plan(
        wider, change, tuple(flows), totals, measured, throttle, duration, tuple(findings), before, key_before, load
    )


def enough(load: MeasuredLoad) -> MeasuredLoad:
    """The load, if it says something. Raises GoalError."""
    if not load.proxies:
        raise GoalError(
            "--by-load: no proxy has stored what it measured: each does so every minute once statements name keys of "
            "this keyspace. Do the proxies use this map store ([store])?"
        )
    if load.samples < ENOUGH:
        raise GoalError(
            f"--by-load: only {load.samples} statements of this keyspace were sampled, and fewer than {ENOUGH} say too "
            "little: ask again when there was more traffic, or give --even"
        )
    return load


def _of_one_table(keyspace: Keyspace, goal: ShardTable | ChangeKey) -> tuple[Keyspace, Keyspace]:
    """The keyspace as the measuring and the rules are to see it: with this table alone, sharded by its new key; and the
    same as rows are placed in it now."""
    before = keyspace.tables[goal.name]
    there = keyspace.map if before.shard is None else all_on(before.shard, keyspace.map)
    new = Table(goal.name, TableKind.SHARDED, key=goal.key)
    alone = replace(keyspace, map=there, tables={goal.name: new})
    return alone, alone if before.shard is not None else replace(alone, tables={goal.name: before})


def _by_target(change: Change) -> Change:
    """The change of a key with streams whose rows on their source the new key alone tells."""
    keys = {stream.source: stream.keys for stream in change.streams}
    return replace(change, streams=tuple(replace(s, keys=keys[s.target]) for s in change.streams))


def _duration(flows: Sequence[Flow], throttle: int | None) -> float:
    """Streams run side by side; together they keep to the throttle, and a shard takes no more than it can."""
    taken: dict[int, int] = {}
    for flow in flows:
        taken[flow.stream.target] = taken.get(flow.stream.target, 0) + flow.size.rows
    longest = sum(flow.size.rows for flow in flows) / throttle if throttle else 0.0
    return max(longest, max(taken.values(), default=0) / USUAL_RATE)


async def _findings(
    config: Config,
    snapshot: Snapshot,
    keyspace: Keyspace,
    change: Change,
    flows: Sequence[Flow],
    duration: float,
    ruler: Ruler,
) -> list[Finding]:
    involved = {shard for stream in change.streams for shard in (stream.source, stream.target)}
    involved |= {*change.members} - {*keyspace.shards} | {*change.left} | {r.shard for r in change.opened}
    if not involved:
        return []
    first = keyspace.home
    servers = [server for shard in sorted({first, *involved}) for server in snapshot.shards[shard].servers]
    facts = await asyncio.gather(
        *(ask_server(server, ruler.credentials, [keyspace.name], ruler.seconds) for server in servers)
    )
    by_name = {fact.server.name: fact for fact in facts if fact.error is None}
    asked: dict[int, MoveFacts] = {}
    contents: dict[int, dict[str, tuple[int, ...] | None]] = {}
    joins = bool({*change.members} - {*keyspace.shards})
    failed: list[ServerFacts] = []
    async with Measure(replace(ruler, snapshot=snapshot, keyspace=keyspace)) as measure:
        for shard in sorted({first, *involved}):
            fact = by_name.get(snapshot.shards[shard].primary.name)
            if fact is None:
                continue
            try:
                opened = await measure.shard(shard)
                coming = [stream.keys for stream in change.streams if stream.target == shard]
                new = [(r.start, r.end) for r in change.opened if r.shard == shard]
                coming += [MovingKeys(keyspace.key_type, intervals=new)] if new else []
                if coming and isinstance(change.table, ShardTable):
                    coming = [every_key(keyspace.key_type)]  # a row of any key would be seen afterwards
                if shard in involved:
                    asked[shard] = await ask_primary(opened, coming, fact)
                if joins:
                    contents[shard] = await reference_contents(opened, fact)
            except (BackendError, SqlError) as error:
                failed.append(ServerFacts(fact.server, error=str(error)))
    needed: dict[int, int] = {}
    for flow in flows:
        needed[flow.stream.target] = needed.get(flow.stream.target, 0) + flow.size.bytes
    frozen: Contents = contents
    return preflight(Case(config, snapshot, change, [*facts, *failed], asked, frozen, needed, duration))


def share_of_keys(change: Change) -> float | None:
    """The part of all buckets that changes hands; None for ranges, whose keys have no measure."""
    if not (isinstance(change.before, BucketMap) and isinstance(change.after, BucketMap)):
        return None
    return sum(a != b for a, b in zip(change.before.buckets, change.after.buckets, strict=True)) / BUCKETS
