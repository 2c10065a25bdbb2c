"""All pools of one worker, by shard, and which of them may answer reads now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from itertools import zip_longest
from secrets import token_hex
from typing import Any
from weakref import WeakSet

from shardproxy.backend.pool import Pool
from shardproxy.errors import BackendError
from shardproxy.router.balance import ServerHealth, readers
from shardproxy.session.profile import Profile
from shardproxy.topology.model import Server, Snapshot
from shardproxy.topology.moves import OVER, Move, Phase
from shardproxy.topology.sampler import Sampler

_SWITCH_NEAR = frozenset({Phase.ARMED, Phase.CLOSING})


class ShardPools:
    """The pools of one shard. `readers` is never empty; `turn` goes round it."""

    __slots__ = ("_turn", "name", "primary", "readers", "replicas")

    def __init__(self, name: str, primary: Pool, replicas: Mapping[str, Pool]) -> None:
        self.name = name
        self.primary = primary
        self.replicas = dict(replicas)
        self.readers: list[Pool] = [primary]
        self._turn = 0

    def reader(self) -> Pool:
        """The next pool for a read, round robin."""
        turn = self._turn + 1
        if turn >= len(self.readers):
            turn = 0
        self._turn = turn
        return self.readers[turn]

    def unread(self) -> None:
        """The last `reader()` had no connection at hand, and the statement will ask again: the turn is not over. With
        two replicas, two asks a statement would take all to one."""
        self._turn -= 1


MOST_SCRATCH = 16  # statements of a worker over scratch tables at once


class ScratchBounds:
    """Limits of scratch tables, for one statement and for the whole worker, and what has been gathered.

    server: name of the server that has them, "" for one of the statement's shards.
    """

    def __init__(self, server: str = "", rows: int = 1_000_000, size: int = 256 << 20, total: int = 1 << 30) -> None:
        self.server = server
        self.rows = rows
        self.size = size
        self.total = total
        self.in_use = 0
        self.slots = asyncio.Semaphore(MOST_SCRATCH)
        self.queries = 0
        self.gathered_rows = 0
        self.gathered_bytes = 0

    def check(self, table: str, rows: int, size: int) -> None:
        """Raise BackendError when one statement has gathered too much. table: the one that it is at."""
        if rows > self.rows:
            raise BackendError(
                f"scratch tables: more than {self.rows} rows to gather, at table {table} (scratch.max_rows): restrict "
                "the statement, best by the shard key"
            )
        if size > self.size:
            raise BackendError(
                f"scratch tables: more than {self.size} bytes to gather, at table {table} (scratch.max_bytes): "
                "restrict the statement, best by the shard key, or select fewer columns"
            )

    def hold(self, table: str, size: int) -> None:
        """So many bytes more are in scratch tables now; fewer when negative. Raises BackendError when it is too much
        for the worker; they count all the same."""
        self.in_use += size
        if size > 0 and self.in_use > self.total:
            raise BackendError(
                f"scratch tables: all statements of this worker together have gathered more than {self.total} bytes, "
                f"at table {table} (scratch.max_worker_bytes): try again later"
            )

    def count(self, rows: int, size: int) -> None:
        """A statement has gathered its rows."""
        self.queries += 1
        self.gathered_rows += rows
        self.gathered_bytes += size


class HeldWrites:
    """Writes to moving keys that wait for a newer map.

    timeout: seconds that one waits at most; waiters: in the order in which they came; now: the commands that wait, each
    by its client's `started`; count, longest: of all so far; refused: transactions that were rolled back because keys
    move.
    """

    def __init__(self, timeout: float = 10.0) -> None:
        self.timeout = timeout
        self.waiters: list[asyncio.Future[None]] = []
        self.now: set[float] = set()
        self.count = 0
        self.longest = 0.0
        self.refused = 0
        self._waited: dict[float, float] = {}  # command → seconds, until they are taken

    def waited(self, command: float, seconds: float) -> None:
        """A command waits no more, or will again at once. seconds: since it first did."""
        self.now.discard(command)
        self._waited[command] = seconds
        self.longest = max(self.longest, seconds)

    def take(self) -> list[float]:
        """The seconds of commands that have waited since somebody last took them."""
        ended = [command for command in self._waited if command not in self.now]
        return [self._waited.pop(command) for command in ended]

    def wake(self) -> None:
        """There is a new map."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class Gateway:
    """`shards[i]` are the pools of `snapshot.shards[i]`.

    coordinator: this worker's identity in transactions over several shards, never used by another run; transactions:
    how many of those it has begun; commits: how many wrote a decision row and committed; verified: names of primaries
    that are known to be fit for them; ended: by deciding shard, a profile and the ids of transactions whose decision
    rows may go; spanning: those of executor.transaction that are alive. sequence_block: see `[sequences]` of the
    configuration; books: executor.sequence.Books, gate: executor.snapshot.Gate, each made there. scatter_limit: how
    many shards work for one statement at once, where they answer in turn. moving: keys of some keyspace move now. load:
    samples the statements that go to one shard by their key.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        make_pool: Callable[[Server], Pool],
        max_lag: float,
        coordinator: str = "",
        sequence_block: int = 100,
        scratch: ScratchBounds | None = None,
    ) -> None:
        self.scratch = scratch or ScratchBounds()
        self.snapshot = snapshot
        self.sequence_block = sequence_block
        self.books: Any = None
        self.scatter_limit = 16
        self.moving = False
        self.held_writes = HeldWrites()
        self.load = Sampler()
        self.gate: Any = None
        self._max_lag = max_lag
        self.pools: dict[str, Pool] = {}
        self.shards: list[ShardPools] = []
        self._make_pool = make_pool
        self._health: dict[str, ServerHealth] = {}
        self.coordinator = coordinator or token_hex(6)
        self.transactions = 0
        self.commits = 0
        self.verified: set[str] = set()
        self.ended: dict[int, tuple[Profile, list[str]]] = {}
        self.spanning: WeakSet[Any] = WeakSet()
        self.adopt(snapshot)

    def adopt(self, snapshot: Snapshot) -> None:
        """Take a new map: pools of servers that stay are kept, the others drain.

        Statements under way keep the indexes of shards that they have. So a shard keeps its place for as long as the
        worker lives, and new ones come behind. Raises ValueError for a map where it is otherwise.
        """
        for before, after in zip_longest(self.shards, snapshot.shards):
            if before is not None and (after is None or after.name != before.name):
                raise ValueError(f"the new map has no shard {before.name} in the place where it was")
        self.snapshot = snapshot
        moves = [keyspace.move for keyspace in snapshot.keyspaces.values()]
        self.moving = any(move is not None and move.phase not in OVER for move in moves)
        kept: dict[str, Pool] = {}
        shards = []
        for shard in snapshot.shards:
            for server in shard.servers:
                pool = self.pools.pop(server.name, None)
                if pool is not None and pool.server != server:
                    pool.close()
                    pool = None
                kept[server.name] = pool or self._make_pool(server)
            replicas = {server.name: kept[server.name] for server in shard.replicas}
            shards.append(ShardPools(shard.name, kept[shard.primary.name], replicas))
        for gone in self.pools.values():
            gone.close()
        self.pools = kept
        self.shards = shards
        self.see(self._health)
        for move in moves:
            if move is not None and move.phase in _SWITCH_NEAR:
                self._prepare_for(move)
        self.held_writes.wake()

    def _prepare_for(self, move: Move) -> None:
        """The switch is near: reads of its keys, and then the writes that were held, come to the takers all at once. A
        shard that is new has no connections, and to make them then takes longer than all the rest. By the time that
        writes are held the givers have as many as all those that wait for the fence have needed."""
        givers: dict[int, set[Pool]] = {}
        for stream in move.streams:
            giver = self.shards[stream.source]
            givers.setdefault(stream.target, set()).update((giver.primary, *giver.readers))
        for index, others in givers.items():
            taker = self.shards[index]
            for pool in {taker.primary, *taker.readers}:
                pool.prepare_for(others)

    def see(self, health: Mapping[str, ServerHealth]) -> None:
        """New health of the servers, by server name."""
        self._health = dict(health)
        for shard, pools in zip(self.snapshot.shards, self.shards, strict=True):
            wanted = self.snapshot.positions.get(shard.name, frozenset())
            pools.readers = [self.pools[s.name] for s in readers(shard, self._health, self._max_lag, wanted)]

    def reap(self, now: float, max_idle: float) -> None:
        for pool in self.pools.values():
            pool.reap(now, max_idle)

    def close(self) -> None:
        for pool in self.pools.values():
            pool.close()
