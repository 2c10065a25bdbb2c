"""Moves Redis keys from node to node while proxies serve them: the protocol of models/rediskeys.pml.

Everything that is done may be done again, by another mover too: whoever comes late finds another version in the store,
or a higher fence at a node. So there is no leader, and a mover that was killed is replaced by starting another one.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from redis.exceptions import ResponseError

from shardproxy.errors import MoveError, ReshardError, StoreConflict
from shardproxy.protocol.redis import moves
from shardproxy.reshard.eviction import gone
from shardproxy.reshard.redis_nodes import NodeClosed, NodeControl, NodeError
from shardproxy.reshard.redis_pieces import LENGTHS, pieces_of
from shardproxy.store.interface import Condition, MapStore, Put
from shardproxy.store.settle import settle
from shardproxy.topology import redis_map
from shardproxy.topology.barrier import Standing
from shardproxy.topology.redis_map import REDIS_MAP, REDIS_PROXIES, Phase, RedisIdentity, RedisMap, RedisMove
from shardproxy.topology.redis_ring import RedisRing

FAILOVER = 30.0  # seconds that a node may take to be replaced by a replica
PATIENCE = 30.0  # seconds that a change of the map whose answer was lost is asked for again
_LOOK = 0.005  # seconds between two looks for acknowledgements, while commands wait
_AGAIN = 0.5  # seconds until a node that may be replaced is tried again
_PORTION = 100  # keys that are pulled at once


@dataclass(frozen=True)
class Wishes:
    """buckets: or arcs, of one move at most; the target keeps a set of the names of its keys until it ends. rate: keys
    a second, 0: as fast as it goes. answer: seconds until a proxy that does not acknowledge is shut out. biggest: bytes
    of memory of one key; what has more goes in pieces, so that nodes do not stand still for it."""

    buckets: int = 256
    rate: float = 0.0
    answer: float = 2.0
    biggest: int = moves.BIG


@dataclass
class Progress:
    """moved: keys in this run. left: buckets that are not where they shall be. move: the one under way."""

    moved: int = 0
    left: int = 0
    move: RedisMove | None = None


async def read_redis_map(store: MapStore) -> tuple[RedisMap, int]:
    """The map and its version. Raises MoveError when there is none, StoreError."""
    entry = await store.get(REDIS_MAP)
    if entry is None:
        raise MoveError("the map store has no map of a Redis port: start a proxy with [redis] and this store first")
    return RedisMap.read(entry.key, entry.value), entry.version


async def change_map(store: MapStore, change: Callable[[RedisMap], RedisMap]) -> RedisMap:
    """Change the map, by what is there when it is changed. Raises MoveError, StoreError."""
    while True:
        document, version = await read_redis_map(store)
        after = change(document)
        with suppress(StoreConflict):
            await settle(store, [Condition(REDIS_MAP, version)], [Put(REDIS_MAP, after.document())], PATIENCE)
            return after


class RedisMover:
    """nodes: all of the ring, by name. seen: called with the progress now and then. step: for tests, called between any
    two steps with the name of the next."""

    def __init__(
        self,
        store: MapStore,
        nodes: Mapping[str, NodeControl],
        wishes: Wishes,
        seen: Callable[[Progress], None] = lambda _: None,
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._nodes = nodes
        self._wishes = wishes
        self._seen = seen
        self._step = step
        self._progress = Progress()
        self._big: list[bytes] = []  # of the move under way, known before: they go first, for they take long
        self._name = secrets.token_hex(4).encode()
        self._failing: tuple[object, float] = (None, 0.0)  # with which progress, and since when
        self._followed = any(node.followed for node in nodes.values())
        self._document: RedisMap
        self._version = 0

    @property
    def moved(self) -> int:
        """Keys that this run has moved itself."""
        return self._progress.moved

    async def run(self) -> None:
        """Until everything is where it is wanted. Raises ReshardError, StoreError; then it may be run again."""
        counted = False
        while True:
            self._document, self._version = await read_redis_map(self._store)
            move = self._document.move
            self._show()
            if not counted and (move is not None or self._document.wanted is not None):
                await self.count_replicas()
                counted = True
            try:
                if move is None:
                    if self._document.wanted is None:
                        return
                    await self._put(redis_map.next_move(self._document, self._wishes.buckets))
                elif move.phase is Phase.PREPARED:
                    await self._prepare(move)
                elif move.phase is Phase.CLOSING:
                    await self._close(move)
                else:
                    await self._transfer(move)
            except StoreConflict:
                continue  # somebody else goes on, or has other wishes
            except NodeClosed as error:
                if (await read_redis_map(self._store))[1] == self._version and not await self._replaced():
                    raise ReshardError(f"{error}, though the move is under way: was the node emptied?") from error
            except NodeError:
                if not await self._replaced():
                    raise

    async def count_replicas(self) -> None:
        """Of all nodes, which have to be up. Raises NodeError."""
        for node in self._nodes.values():
            await node.count_replicas()

    async def _replaced(self) -> bool:
        """After an error of a node: whether to go on, because another one may be the node soon. Every step may be done
        again there; its replica may not have had the newest fence."""
        now = asyncio.get_running_loop().time()
        state = (self._version, self._progress.moved)
        if state != self._failing[0]:
            self._failing = state, now
        if not self._followed or now - self._failing[1] > FAILOVER:
            return False
        await asyncio.sleep(_AGAIN)
        return True

    async def _put(self, document: RedisMap) -> None:
        self._step(f"store {document.epoch}")
        conditions = [Condition(REDIS_MAP, self._version)]
        self._version = await settle(self._store, conditions, [Put(REDIS_MAP, document.document())], PATIENCE)
        self._document = document

    def _show(self) -> None:
        document = self._document
        wanted = document.wanted
        pairs = zip(document.map.owners, wanted.owners if wanted is not None else (), strict=False)
        self._progress.left = sum(a != b for a, b in pairs)
        self._progress.move = document.move
        self._seen(self._progress)

    # ── PREPARED ──

    async def _prepare(self, move: RedisMove) -> None:
        """Nothing of earlier moves is under way at any node, and the target has no key of these buckets."""
        ring, buckets = self._document.ring, frozenset(move.numbers)
        await self._ask_proxies()
        try:
            await self._try_out(self._nodes[move.source], self._nodes[move.target])
        except NodeError as error:
            what = f"node {move.target} cannot take over keys of node {move.source}: {error}"
            await self._put(redis_map.noted(redis_map.give_up(self._document), what))
            raise MoveError(what) from error
        processes = await self._processes()
        for node in self._nodes.values():
            await node.raise_fence(moves.closed(move.id))
            await node.ask_marks(b"UNLINK", moves.arrived(move.id - 1))
            await node.drop_parts(moves.closed(move.id))
        target = self._nodes[move.target]
        self._step("empty the target")
        async for keys in target.keys_of(ring, buckets):
            await target.ask(moves.drop(moves.closed(move.id), keys))
        self._big = await self._big_ones(move, ring, buckets)
        await self._confirm(processes)
        await self._put(redis_map.close(self._document))

    async def _processes(self) -> Mapping[str, str]:
        return {name: await node.process() for name, node in self._nodes.items()}

    async def _confirm(self, processes: Mapping[str, str]) -> None:
        """What was done at the nodes since they were these processes survives them."""
        await asyncio.gather(*(node.confirm(processes[name]) for name, node in self._nodes.items()))

    async def _ask_proxies(self) -> None:
        """All can take part, and none has keys of nodes that are away on others any more: they could be at the target
        after it was emptied. One that registers later finds in the map what is wanted."""
        identities = await self._identities()
        for one in identities:
            if one.unmovable and one.standing is not Standing.EVICTED and not gone(one.place):
                what = (
                    f"proxy {one.id} ({one.place}) cannot take part: {one.unmovable}. Change its file, start it anew, "
                    f"and `resume`; if it does not run any more, delete {REDIS_PROXIES}{one.id} in the map store"
                )
                await self._put(redis_map.noted(redis_map.give_up(self._document), what))
                raise MoveError(what)
        if any(one.cache for one in identities):
            await self._barrier()

    async def _try_out(self, source: NodeControl, target: NodeControl) -> None:
        """Take and put something of our own: an old source lacks a command, an old target does not read its dumps."""
        name = b"shardproxy:probe"
        await source.ask_marks(b"SET", name, b"1")
        await source.ask_marks(b"PEXPIRETIME", name)
        dump = await source.ask_marks(b"DUMP", name)
        await target.ask_marks(b"RESTORE", name, b"0", dump, b"REPLACE")
        for node in (source, target):
            await node.ask_marks(b"UNLINK", name)

    async def _big_ones(self, move: RedisMove, ring: RedisRing, buckets: frozenset[int]) -> list[bytes]:
        source = self._nodes[move.source]
        found: list[bytes] = []
        async for keys in source.keys_of(ring, buckets):
            sizes = await source.ask_all([[b"MEMORY", b"USAGE", key] for key in keys])
            big = [key for key, size in zip(keys, sizes, strict=True) if isinstance(size, int) and self._is_big(size)]
            for key, kind in zip(big, await source.ask_all([[b"TYPE", key] for key in big]), strict=True):
                if kind not in LENGTHS and kind != b"none":
                    what = (
                        f"key {key.decode(errors='backslashreplace')} on node {move.source} has more than "
                        f"{self._wishes.biggest >> 20} MiB (--biggest), and is of type {kind.decode()}, which does not "
                        "go in pieces: raise --biggest, or give it a tag of buckets that stay"
                    )
                    await self._put(redis_map.noted(redis_map.give_up(self._document), what))
                    raise MoveError(what)
            found += big
        return found

    def _is_big(self, size: int) -> bool:
        return size > self._wishes.biggest

    # ── CLOSING ──

    async def _close(self, move: RedisMove) -> None:
        """Commands on the keys wait now: be quick. When nothing that was sent before is in flight, let the target
        have them."""
        source, target = self._nodes[move.source], self._nodes[move.target]
        try:
            processes = await self._processes()
            await asyncio.gather(*(node.raise_fence(moves.closed(move.id)) for node in (source, target)))
            await self._barrier()
            await self._confirm(processes)
        except NodeError as error:
            if not move.back:
                await self._put(redis_map.noted(redis_map.give_up(self._document), str(error)))
            raise
        self._step("barrier passed")
        if move.back:
            # Its target is where keys came from. Those that have arrived at the other node, and may still be here too,
            # would be found here, as they were.
            async for keys in source.arrived(move.id - 1):
                await source.confirm(processes[source.name])
                await target.ask(moves.drop(moves.closed(move.id), keys))
            await source.drop_parts(moves.closed(move.id))
            await self._confirm(processes)
            await source.ask_marks(b"UNLINK", moves.arrived(move.id - 1))
        await asyncio.gather(*(node.raise_fence(moves.opened(move.id)) for node in (source, target)))
        await self._put(redis_map.open_target(self._document, target.due))

    async def _barrier(self) -> None:
        """Every proxy has acknowledged the map, or is shut out of every node. Raises NodeError when that is not
        possible."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._wishes.answer
        while True:
            left = [one for one in await self._identities() if not self._passed(one)]
            if not left:
                return
            for one in left:
                if loop.time() > deadline or gone(one.place):
                    await self._shut_out(one)
            await asyncio.sleep(_LOOK)

    def _passed(self, one: RedisIdentity) -> bool:
        return one.standing is Standing.EVICTED or one.acknowledged >= self._document.epoch

    async def _identities(self) -> list[RedisIdentity]:
        entries = (await self._store.list(REDIS_PROXIES)).entries
        return [RedisIdentity.read(entry.key, entry.value) for entry in entries]

    async def _shut_out(self, one: RedisIdentity) -> None:
        await self._stand(one.id, Standing.EVICTING)
        self._step("shut out")
        await asyncio.gather(*(node.shut_out(one.id) for node in self._nodes.values()))
        if not gone(one.place):
            read = [self._nodes[name].at(each) for name in one.replicas for each in one.replicas[name]]
            try:
                await asyncio.gather(*(replica.shut_out_of_replica(one.id) for replica in read))
            finally:
                for replica in read:
                    await replica.close()
        await self._stand(one.id, Standing.EVICTED)
        if gone(one.place):
            entry = await self._store.get(REDIS_PROXIES + one.id)
            if entry is not None:
                with suppress(StoreConflict):
                    await self._store.delete(entry.key, entry.version)

    async def _stand(self, ident: str, standing: Standing) -> None:
        while True:
            entry = await self._store.get(REDIS_PROXIES + ident)
            if entry is None:
                return  # it has gone by itself
            changed = RedisIdentity.read(entry.key, entry.value).model_copy(update={"standing": standing})
            with suppress(StoreConflict):
                await self._store.put(entry.key, changed.document(), entry.version)
                return

    # ── MOVING ──

    async def _transfer(self, move: RedisMove) -> None:
        """Pull every key. No new one comes to the source, so that a scan that finds none is the end of it."""
        source, target = self._nodes[move.source], self._nodes[move.target]
        ring, buckets = self._document.ring, frozenset(move.numbers)
        await asyncio.gather(*(node.raise_fence(moves.opened(move.id)) for node in (source, target)))
        big, self._big = self._big, []
        for key in big:
            self._progress.moved += await self._carry(move.id, source, target, key)
            self._seen(self._progress)
        loop = asyncio.get_running_loop()
        looked = loop.time()
        idle = 0  # passes that found keys and moved none: one may have met keys that clients were pulling
        while idle < 3:
            found = 0
            process = await source.process()
            before = self._progress.moved
            async for keys in source.keys_of(ring, buckets):
                found += len(keys)
                for at in range(0, len(keys), _PORTION):
                    began = loop.time()
                    portion = keys[at : at + _PORTION]
                    self._progress.moved += await self._pull(move.id, source, target, portion)
                    self._seen(self._progress)
                    if self._wishes.rate:
                        await asyncio.sleep(max(0.0, len(portion) / self._wishes.rate - (loop.time() - began)))
                if loop.time() - looked > 0.5:
                    looked = loop.time()
                    if (await read_redis_map(self._store))[1] != self._version:
                        return
            if not found:
                await target.drop_parts(moves.opened(move.id))
                await source.confirm(process)  # else a replica that becomes the node would have them again
                await self._put(redis_map.complete(self._document))
                return
            idle = idle + 1 if self._progress.moved == before else 0
        raise ReshardError(
            f"node {move.target} has keys that are on node {move.source} too, and that no move has put there: did "
            "somebody write to it directly? Delete them on one of the two nodes, and `resume`"
        )

    async def _pull(self, ident: int, source: NodeControl, target: NodeControl, keys: Sequence[bytes]) -> int:
        """Pull some keys; how many were there. Raises NodeClosed, NodeError."""
        taken = await source.ask_all([moves.take(ident, key, self._wishes.biggest) for key in keys])
        big = [key for key, reply in zip(keys, taken, strict=True) if str(reply).startswith("TOOBIG")]
        there = [(key, *found) for key, found in zip(keys, taken, strict=True) if isinstance(found, list)]
        _check(source, [reply for reply in taken if not str(reply).startswith("TOOBIG")])
        self._step("taken")
        puts = [moves.put(ident, key, dump, expires) for key, dump, expires in there]
        replies = await target.ask_confirmed(puts) if puts else []
        # Occupied: it has expired here since, and is new there; or the next scan finds it again.
        _check(target, [reply for reply in replies if not str(reply).startswith("OCCUPIED")])
        self._step("put")
        done = [key for (key, _, _), reply in zip(there, replies, strict=True) if isinstance(reply, int)]
        if done:
            await source.ask(moves.drop(moves.opened(ident), done))
        self._step("dropped")
        count = len(done)
        for key in big:
            count += await self._carry(ident, source, target, key)
        return count

    async def _carry(self, ident: int, source: NodeControl, target: NodeControl, key: bytes) -> int:
        """Pull a large key in pieces; whether it was there. Nobody writes it: it is at the source still, where nobody
        writes, and who wants it waits. Raises NodeClosed, NodeError."""
        kind = await source.ask([b"TYPE", key])
        if kind not in LENGTHS:
            return 0
        length, size, expires = await source.ask_all(
            [[LENGTHS[kind], key], [b"MEMORY", b"USAGE", key], [b"PEXPIRETIME", key]]
        )
        _check(source, [length, size, expires])
        name = moves.parts(ident, self._name, key)
        await target.ask(moves.drop(moves.opened(ident), [name]))  # what an error has left of it
        async for commands in pieces_of(source, key, kind, size or 0, length, name):
            _check(target, await target.ask_confirmed([moves.piece(ident, name, commands)]))
            self._step("piece")
        if not await source.ask([b"EXISTS", key]):  # it has expired
            await target.ask(moves.drop(moves.opened(ident), [name]))
            return 0
        [reply] = await target.ask_confirmed([moves.finish(ident, name, key, expires, LENGTHS[kind], length)])
        self._step("finished")
        if str(reply).startswith("OCCUPIED"):
            return 0
        _check(target, [reply])
        await source.ask(moves.drop(moves.opened(ident), [key]))
        return 1


def _check(node: NodeControl, replies: Sequence[object]) -> None:
    for reply in replies:
        if isinstance(reply, ResponseError):
            if str(reply).startswith("CLOSED"):
                raise NodeClosed(f"node {node.name}: {reply}")
            raise NodeError(f"node {node.name}: {reply}")
