"""A replica of a Redis node becomes the node: `shardctl redis promote`.

Nothing that was acknowledged is lost when the former primary answers: its writes are paused until the replica has all
of them, and it is made a replica before any proxy learns of the new address. When it does not answer, what it had not
sent to the replica is lost, and nobody can say how much that is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shardproxy.config import Config
from shardproxy.config.units import Address
from shardproxy.errors import ReshardError
from shardproxy.reshard.redis_mover import change_map, read_redis_map
from shardproxy.reshard.redis_nodes import NodeControl, NodeError, controls
from shardproxy.store.interface import MapStore
from shardproxy.topology.barrier import Standing
from shardproxy.topology.redis_map import REDIS_PROXIES, RedisIdentity, promoted

SECONDS: Final = 3.0  # until a server is taken for dead
PAUSE: Final = 15_000  # milliseconds that the former primary takes no writes: longer than what is done meanwhile
CATCH_UP: Final = 3.0  # seconds that the replica has to get what is missing
FOLLOW: Final = 5.0  # seconds that proxies have to follow
_LOOK: Final = 0.02


class PromotionError(ReshardError):
    """It cannot be done, or not without --force. Nothing was changed."""


@dataclass(frozen=True)
class Replicating:
    """What a server says of its replication. primary: host and port of its primary. down_since: seconds since the link
    broke, -1: there never was one. offset: bytes of its history that it has."""

    is_primary: bool
    primary: tuple[str, int]
    linked: bool
    syncing: bool
    down_since: int
    offset: int
    history: str


def read_replication(text: bytes) -> Replicating:
    """What INFO replication says. Raises PromotionError for what is none."""
    lines = [line.partition(":") for line in text.decode(errors="replace").split("\r\n")]
    fields = {name: value for name, colon, value in lines if colon}
    try:
        is_primary = fields["role"] == "master"
        return Replicating(
            is_primary,
            (fields.get("master_host", ""), int(fields.get("master_port", 0))),
            fields.get("master_link_status") == "up",
            fields.get("master_sync_in_progress", "0") != "0",
            int(fields.get("master_link_down_since_seconds", 0)),
            int(fields["master_repl_offset" if is_primary else "slave_repl_offset"]),
            fields["master_replid"],
        )
    except (KeyError, ValueError) as error:
        raise PromotionError(f"a server answers INFO replication with something else ({error})") from error


class Promotion:
    """One node's. say: called with what was done, and with what is to be done by hand. `run` raises PromotionError,
    NodeError, MoveError, StoreError; `changed` says whether servers were changed before."""

    def __init__(
        self, config: Config, store: MapStore, name: str, to: Address, force: bool, say: Callable[[str], None]
    ) -> None:
        assert config.redis is not None
        self._config = config
        self._redis = config.redis
        self._store = store
        self._name = name
        self._to = to
        self._force = force
        self._say = say
        self._make = controls(config, SECONDS)
        self._was = self._redis.nodes[name].address
        self.changed = False

    async def run(self) -> None:
        document, _ = await read_redis_map(self._store)
        self._was = document.address(self._name, self._was)
        promoted(document, self._name, self._to)  # whether it may be done
        primary = self._make(f"{self._name} ({self._was})", self._was)
        replica = self._make(f"{self._name}'s replica ({self._to})", self._to)
        try:
            await self._promote(primary, replica)
        finally:
            await primary.close()
            await replica.close()

    async def _promote(self, primary: NodeControl, replica: NodeControl) -> None:
        standing = await _replicating(replica)
        former = None if self._was == self._to else await self._former(primary)
        if standing.is_primary:
            self._check_promoted(former)
        else:
            await self._check_replica(standing, former)
        paused = former is not None and former.is_primary
        try:
            if paused:
                await self._catch_up(primary, replica)
            self.changed = True
            await replica.ask([b"REPLICAOF", b"NO", b"ONE"])
            self._say(f"{self._to} is a primary now")
            if former is not None and not await self._follow(primary, f"the former primary {self._was}"):
                paused = False  # until the pause ends by itself: proxies have followed by then
        finally:
            if paused:
                await _unpause(primary)
        for address in self._redis.nodes[self._name].replicas:
            if address not in (self._to, self._was):
                await self._other_follows(address)
        await self._publish()

    async def _former(self, primary: NodeControl) -> Replicating | None:
        try:
            return await _replicating(primary)
        except NodeError as error:
            self._say(f"the primary does not answer ({error}): what it had not sent to the replica is lost")
            return None

    def _unless_forced(self, why: str, better: str = "") -> None:
        if not self._force:
            raise PromotionError(f"{why}; nothing was changed. {better}--force does it all the same")
        self._say(f"forced, though {why}")

    # ── may it be done? ──

    def _check_promoted(self, former: Replicating | None) -> None:
        """The server is a primary already: of a promotion that was interrupted, perhaps."""
        if self._was == self._to:
            return
        if former is not None and former.is_primary:
            raise PromotionError(f"{self._to} is a primary of its own, and no replica of {self._name} ({self._was})")
        if former is None or former.primary != (self._to.host, self._to.port):
            self._unless_forced(
                f"{self._to} is a primary already, and whether it was {self._name}'s replica is not known"
            )

    async def _check_replica(self, standing: Replicating, former: Replicating | None) -> None:
        was, to = self._was, self._to
        of = f"{standing.primary[0]}:{standing.primary[1]}"
        if standing.syncing:
            raise PromotionError(f"{to} is just getting its first copy from {of}: it has a part of the keys only")
        if was == to:
            self._unless_forced(f"{to} is {self._name}'s address already, and a replica of {of}")
            return
        if former is not None and not former.is_primary:
            above = f"{former.primary[0]}:{former.primary[1]}"
            raise PromotionError(
                f"{was}, the primary of {self._name}, is itself a replica of {above}, which may have more than {to}: "
                f"promote {above}"
            )
        if former is not None:
            if standing.history != former.history:
                raise PromotionError(f"{to} is no replica of {self._name} ({was}), but of {of}")
            if not standing.linked:
                self._unless_forced(f"{to} has no connection to {was}")
            return
        if standing.primary != (was.host, was.port):
            self._unless_forced(f"{to} is a replica of {of}, and the node is at {was}")
        if standing.linked:
            self._unless_forced(f"{to} has a connection to {of}: that server lives, and proxies may still write there")
        if standing.down_since < 0:
            self._unless_forced(
                f"{to} has had no connection to {of} since it was started: it may have few keys, or none"
            )
        elif not standing.linked:
            self._say(f"{to} lost its primary {standing.down_since} s ago: what that acknowledged later is lost")
        await self._check_others(standing)

    async def _check_others(self, standing: Replicating) -> None:
        """Whether another replica has more."""
        for address in self._redis.nodes[self._name].replicas:
            if address == self._to:
                continue
            other = self._make(f"{self._name}'s replica ({address})", address)
            try:
                found = await _replicating(other)
            except NodeError:
                continue
            finally:
                await other.close()
            if found.history == standing.history and found.offset > standing.offset:
                more = found.offset - standing.offset
                self._unless_forced(
                    f"the replica {address} has {more} bytes more of what was written than {self._to}",
                    f"Promote {address}; ",
                )

    async def _catch_up(self, primary: NodeControl, replica: NodeControl) -> None:
        """No more writes at the primary, and all that there were at the replica."""
        await _pause(primary)
        loop = asyncio.get_running_loop()
        until = loop.time() + CATCH_UP
        while True:
            due = (await _replicating(primary)).offset
            has = (await _replicating(replica)).offset
            if has >= due:
                break
            if loop.time() > until:
                self._unless_forced(f"{self._to} lags {due - has} bytes behind {self._was}, and does not catch up")
                break
            await asyncio.sleep(_LOOK)
        await _pause(primary)  # for as long again

    # ── what others do ──

    async def _follow(self, server: NodeControl, what: str) -> bool:
        """Whether it does."""
        try:
            await server.ask([b"REPLICAOF", self._to.host.encode(), b"%d" % self._to.port])
        except NodeError as error:
            self._say(f"{what} did not become a replica of it ({error}): stop it, so that nobody writes there")
            return False
        self._say(f"{what} is a replica of it now")
        return True

    async def _other_follows(self, address: Address) -> None:
        other = self._make(f"{self._name}'s replica ({address})", address)
        try:
            if (await _replicating(other)).primary == (self._was.host, self._was.port):
                await self._follow(other, f"the replica {address}")
        except NodeError:
            self._say(f"the replica {address} does not answer: make it a replica of {self._to} when it does")
        finally:
            await other.close()

    async def _publish(self) -> None:
        """Proxies follow."""
        name, to = self._name, self._to
        document = await change_map(self._store, lambda now: promoted(now, name, to))
        self._say(f"the map store says that {name} is at {to} (epoch {document.epoch})")
        late = await self._late(document.epoch)
        for ident in late:
            self._say(
                f"proxy {ident.id} ({ident.place}) has not followed yet: if it lives and reaches {self._was}, what "
                "it writes there will be lost; end it"
            )
        if not late:
            self._say("all proxies have followed")
        if self._redis.nodes[name].address != to:
            self._say(
                f"change the file too: it counts again when the store is made anew:"
                f"{_lines(self._config, self._redis.nodes[name].address, to)}"
            )

    async def _late(self, epoch: int) -> Sequence[RedisIdentity]:
        """Proxies that have not acknowledged the map."""
        loop = asyncio.get_running_loop()
        until = loop.time() + FOLLOW
        while True:
            listing = await self._store.list(REDIS_PROXIES)
            proxies = [RedisIdentity.read(entry.key, entry.value) for entry in listing.entries]
            late = [one for one in proxies if one.standing is Standing.ACTIVE and one.acknowledged < epoch]
            if not late or loop.time() > until:
                return late
            await asyncio.sleep(_LOOK)


def refusal(config: Config, name: str) -> str:
    """Why a node of this file cannot be promoted by hand, with what to do; empty when it can."""
    r = config.redis
    if r is None:
        return f"{config.source} has no [redis]: there are no Redis nodes"
    if name not in r.nodes:
        return f"{name}: no such node in [redis.nodes] of {config.source}; there are: {', '.join(sorted(r.nodes))}"
    if r.sentinels:
        return (
            "redis.sentinels say where the nodes are, and would go back to the former primary: tell them "
            f"(`SENTINEL FAILOVER {r.nodes[name].sentinel_name or name}`)"
        )
    if config.cache is not None and (config.cache.rows or config.cache.queries is not None):
        # The cache stays at the file's addresses. A former primary that becomes a replica is the same process, so what
        # it gets from the new one is believed, with older tokens of tables; and proxies whose files differ would note
        # writes on one server, and look for them on the other.
        return (
            "[cache] keeps rows or answers on the nodes, and a replica may lack the newest invalidations: it would "
            "give old ones. Take [cache] out of the files, start the proxies anew, promote, and put it back when keys "
            "that begin with `_shardproxy:` are deleted from the nodes and the files have the new address"
        )
    return ""


def _lines(config: Config, before: Address, now: Address) -> str:
    """Where the file says the address, for people."""
    path = Path(config.source)
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if f'"{before}"' in line and not line.lstrip().startswith("#"):
            found.append(f"\n  {path}:{number}: {line.strip()}")
    return f' "{before}" → "{now}"' + "".join(found)


async def _replicating(node: NodeControl) -> Replicating:
    text: bytes = await node.ask([b"INFO", b"replication"])
    return read_replication(text)


async def _pause(primary: NodeControl) -> None:
    await primary.ask([b"CLIENT", b"PAUSE", b"%d" % PAUSE, b"WRITE"])


async def _unpause(primary: NodeControl) -> None:
    with contextlib.suppress(NodeError):  # the pause ends by itself
        await primary.ask([b"CLIENT", b"UNPAUSE"])
