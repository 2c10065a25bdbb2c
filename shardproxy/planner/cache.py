"""Plans by digest. A hit is one dict look-up; the context (map, catalog) of all plans in it is one and the same.

A *space* is the dict of one way to read texts: default schema, sql_mode bits, keyspaces that the user may see. Clients
keep a reference to theirs, so a new map or catalog empties the dicts in place. Plans that hold under the new map too
are put aside, and each is put onto it when its digest comes again: that takes a tenth of the time (see rebase).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from shardproxy.planner.context import PlanContext
from shardproxy.planner.plan import InsertId, Opcode, Plan, Rung, StatementKind
from shardproxy.planner.rebase import alike, by_key, grown, rebased
from shardproxy.sql.modes import SqlModes
from shardproxy.topology.keys import KeyValue

SYNTAX_ERROR = 1064
MAX_DIGEST = 256 * 1024  # longer digests are planned each time
MAX_BYTES = 16 << 20  # of all digests together


class CachedPlan:
    """A plan with what the hot path reads laid flat.

    lookup: key → shard index, LookupError for keys that the hot path is not for; series: how often the plan's (kind,
    opcode) went to each server, by pool slot; latencies: seconds of each answer since somebody last took them, by
    opcode. key_last: the key is the digest's one literal, and its end (see sql.last_integer). ends: COMMIT or ROLLBACK.
    asks: the server is asked for LAST_INSERT_ID() afterwards, and with asks_pinned in a pinned session too, for more.
    reports: an insert id in its OK is the new LAST_INSERT_ID().
    """

    __slots__ = (
        "asks", "asks_pinned", "ends", "key_index", "key_last", "latencies", "lookup", "plan", "point", "read",
        "reports", "series",
    )  # fmt: skip

    def __init__(self, plan: Plan, series: list[int], latencies: list[float], digest: bytes = b"") -> None:
        self.plan = plan
        self.series = series
        self.latencies = latencies
        self.key_index = plan.key_index if plan.rung is Rung.ONE_SHARD and not plan.pins else -1
        self.read = plan.read and not plan.primary
        self.point = plan.point and self.read
        self.ends = plan.kind in (StatementKind.COMMIT, StatementKind.ROLLBACK)
        self.asks = plan.insert_id is InsertId.ASKED
        self.asks_pinned = self.asks and (plan.found_rows or bool(plan.assigns))
        self.reports = plan.insert_id is InsertId.REPORTED
        self.lookup: Callable[[KeyValue], int] | None = plan.groups[0].keyspace.map.lookup if plan.groups else None
        move = plan.groups[0].keyspace.move if plan.groups else None
        if self.lookup is not None and move is not None and move.guarded and not plan.read:
            self.lookup = move.staying(self.lookup)  # writes to keys that move go the long way
        if (
            self.lookup is None
            or plan.carries_insert_id
            or plan.found_rows
            or plan.assigns
            or plan.shard_hint is not None
            or plan.voids is not None
            or plan.cached is not None
        ):
            self.key_index = -1
        self.key_last = self.key_index == 0 and digest.endswith(b"?") and digest.count(b"?") == 1


Space = dict[bytes, CachedPlan]
Planner = Callable[[bytes, PlanContext], Plan]
SpaceKey = tuple[str | None, SqlModes, frozenset[str] | None]


class PlanCache:
    """limit: plans over all spaces. slots: number of pools."""

    def __init__(self, context: PlanContext, limit: int, slots: int) -> None:
        self.context = context
        self.version = 1
        self.misses = 0
        self._limit = limit
        self._slots = slots
        self._spaces: dict[SpaceKey, Space] = {}
        self._earlier: dict[SpaceKey, Space] = {}  # of earlier maps; they count as entries, no digest is in both
        self._bytes = 0
        self._entries = 0
        self.series: dict[tuple[StatementKind, Opcode], list[int]] = {}
        self.latencies: dict[Opcode, list[float]] = {opcode: [] for opcode in Opcode}

    @property
    def hits(self) -> int:
        """Statements routed to servers by a kept plan: all that were, less those planned for it."""
        return max(0, sum(map(sum, self.series.values())) - self.misses)

    def __len__(self) -> int:
        return self._entries

    def space(self, key: SpaceKey) -> Space:
        """The dict of plans for texts read this way."""
        found = self._spaces.get(key)
        if found is None:
            if len(self._spaces) >= 64:
                self._forget_all()
            found = self._spaces[key] = {}
        return found

    def plan(self, planner: Planner, key: SpaceKey, digest: bytes, sql: bytes) -> CachedPlan:
        """Plan a statement that its space does not have, and keep it."""
        earlier = self._earlier.get(key)
        if earlier is not None:
            before = earlier.pop(digest, None)
            if before is not None:
                found = rebased(before.plan, self.context.snapshot.keyspaces)
                if found is not None:
                    kept = CachedPlan(found, before.series, before.latencies, digest)
                    self.space(key)[digest] = kept
                    return kept
                self._entries -= 1
                self._bytes -= len(digest)
        self.misses += 1
        schema, modes, allowed = key
        snapshot = self.context.snapshot
        if allowed is not None:
            seen = {name: keyspace for name, keyspace in snapshot.keyspaces.items() if name in allowed}
            snapshot = replace(snapshot, keyspaces=seen)
        plan = planner(sql, replace(self.context, schema=schema, modes=modes, snapshot=snapshot))
        entry = CachedPlan(plan, self.series_of(plan), self.latencies[plan.opcode], digest)
        # A text that does not parse may share its digest with one that does ('x' where a number belongs): not kept.
        if len(digest) <= MAX_DIGEST and (plan.rung is not Rung.ERROR or plan.error_code != SYNTAX_ERROR):
            space = self.space(key)
            if digest not in space:
                self._make_room(len(digest))
                self._entries += 1
                self._bytes += len(digest)
            space[digest] = entry
        return entry

    def series_of(self, plan: Plan) -> list[int]:
        name = (plan.kind, plan.opcode)
        found = self.series.get(name)
        if found is None:
            found = self.series[name] = [0] * self._slots
        return found

    def renew(self, context: PlanContext, slots: int) -> None:
        """A new map or catalog: no plan made before is used again as it is."""
        self._put_aside(self.context, context)
        self.context = context
        self.version += 1
        if slots > self._slots:
            for counts in self.series.values():
                counts.extend([0] * (slots - self._slots))
            self._slots = slots

    def _put_aside(self, before: PlanContext, after: PlanContext) -> None:
        """Empty the spaces; what holds under the new map may be put onto it later."""
        was, now = before.snapshot, after.snapshot
        if before.catalog is not after.catalog or before.mariadb != after.mariadb:
            self._forget_all()
            return
        every = alike(was, now)
        if not every and not grown(was, now):
            self._forget_all()
            return
        for key, space in self._spaces.items():
            if space:
                self._earlier.setdefault(key, {}).update(space)
                space.clear()
        if not every:
            for earlier in self._earlier.values():
                for digest in [d for d, entry in earlier.items() if not by_key(entry.plan, was)]:
                    del earlier[digest]
                    self._entries -= 1
                    self._bytes -= len(digest)

    def _forget_all(self) -> None:
        for space in self._spaces.values():
            space.clear()
        self._earlier.clear()
        self._entries = 0
        self._bytes = 0

    def _make_room(self, size: int) -> None:
        """Drop the oldest plans of the largest space until there is room."""
        while self._entries and (self._entries >= self._limit or self._bytes + size > MAX_BYTES):
            space = max([*self._earlier.values(), *self._spaces.values()], key=len)
            for digest in list(space)[: max(1, len(space) // 10)]:
                del space[digest]
                self._entries -= 1
                self._bytes -= len(digest)
