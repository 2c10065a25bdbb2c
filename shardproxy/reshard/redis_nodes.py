"""Redis nodes as those see them who move keys: fences, scans, and connections of proxies that must end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from shardproxy.config import Config
from shardproxy.config.units import Address
from shardproxy.errors import ReshardError
from shardproxy.protocol.redis import moves
from shardproxy.topology.keys import bucket_of
from shardproxy.topology.redis_map import RedisMap
from shardproxy.topology.redis_ring import hash_tag

CONNECTIONS: Final = "shardproxy"  # what the names of proxies' connections begin with; then `:IDENTITY:WORKER:NUMBER`
_LOOK: Final = 0.01  # seconds between two looks at connections that end
_SCANNED: Final = 500  # keys of one step of a scan


class NodeError(ReshardError):
    """A node does not answer, or says no. Nothing is lost: what was asked may be asked again."""


class NodeClosed(ReshardError):
    """The node has another fence than was expected: somebody else has gone on with the move."""


class NodeControl:
    """One node. Every method raises NodeError."""

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        user: str,
        password: str | None,
        seconds: float,
        tls: Mapping[str, object] | None = None,
        retry: Retry | None = None,
    ) -> None:
        """seconds: until it is taken for dead. tls: redis-py's settings of it, None: without. retry: None: as redis-py
        does, which sends again what got no reply."""
        self.name = name
        login: dict[str, Any] = {
            "host": host,
            "port": port,
            "username": user or None,
            "password": password,
            "socket_timeout": seconds,
            "socket_connect_timeout": seconds,
            **(tls or {}),
            **({"retry": retry} if retry is not None else {}),
        }
        self._keys: Any = Redis(db=0, **login)
        self._marks: Any = Redis(db=moves.DATABASE, **login)

    async def _try(self, asked: Callable[[], Any]) -> Any:
        try:
            return await asked()
        except ResponseError as error:
            if str(error).startswith("CLOSED"):
                raise NodeClosed(f"node {self.name}: {error}") from error
            raise NodeError(f"node {self.name}: {error}") from error
        except (RedisError, OSError) as error:
            raise NodeError(f"node {self.name} does not answer: {error or type(error).__name__}") from error

    async def ask(self, words: Sequence[bytes]) -> Any:
        """The reply to one command. Raises NodeClosed as well."""
        return await self._try(partial(self._keys.execute_command, *words))

    async def ask_all(self, commands: Sequence[Sequence[bytes]]) -> list[Any]:
        """The replies to several, in order; errors among them as values (ResponseError)."""
        pipe = self._keys.pipeline(transaction=False)
        for words in commands:
            pipe.execute_command(*words)
        found: list[Any] = await self._try(lambda: pipe.execute(raise_on_error=False))
        return found

    async def ask_marks(self, *words: bytes) -> Any:
        """The reply to one command in the database of our own."""
        return await self._try(partial(self._marks.execute_command, *words))

    async def keys_of(self, buckets: Collection[int]) -> AsyncIterator[list[bytes]]:
        """All keys of these buckets, in portions; some perhaps twice. A key that stays there is among them. Not keys
        that belong to the node, whatever buckets they would have: see moves.STAYS."""
        cursor: Any = b"0"
        while True:
            cursor, keys = await self._try(partial(self._keys.scan, cursor, count=_SCANNED))
            found = [key for key in keys if bucket_of(hash_tag(key)) in buckets and not key.startswith(moves.STAYS)]
            if found:
                yield found
            if int(cursor) == 0:
                return

    async def arrived(self, move: int) -> AsyncIterator[list[bytes]]:
        """The keys that a move has put here, in portions."""
        name = moves.arrived(move)
        cursor: Any = 0
        while True:
            cursor, keys = await self._try(partial(self._marks.sscan, name, cursor, count=_SCANNED))
            if keys:
                yield keys
            if int(cursor) == 0:
                return

    async def raise_fence(self, fence: int) -> None:
        """Raise the fence, unless it is as high."""
        await self.ask(moves.raise_fence(fence))

    async def shut_out(self, identity: str) -> None:
        """Let this proxy make no connection any more, and end those that it has. Returns when it has none."""
        await self.ask_marks(b"SET", moves.shut(identity), b"1")
        await self.end_connections(f"{CONNECTIONS}:{identity}:")

    async def end_connections(self, prefix: str) -> None:
        """End all connections whose name begins so. What a connection that has ended had sent does not run any more."""
        while True:
            clients = await self._try(self._keys.client_list)
            left = [client["id"] for client in clients if client.get("name", "").startswith(prefix)]
            if not left:
                return
            for ident in left:
                await self._try(partial(self._keys.execute_command, "CLIENT", "KILL", "ID", ident))
            await asyncio.sleep(_LOOK)

    async def close(self) -> None:
        """For good."""
        await self._keys.aclose()
        await self._marks.aclose()


def nodes_of(config: Config, document: RedisMap | None = None) -> Mapping[str, NodeControl]:
    """The file's nodes, by name. document: the store's map, which knows where nodes are whose replica was promoted.
    Raises ConfigError when the password's variable or file is missing."""
    make = controls(config)
    nodes = config.redis.nodes if config.redis is not None else {}
    where = {name: node.address for name, node in nodes.items()}
    if document is not None:
        where = {name: document.address(name, address) for name, address in where.items()}
    return {name: make(name, address) for name, address in where.items()}


def controls(config: Config, seconds: float = 0.0) -> Callable[[str, Address], NodeControl]:
    """What makes the control of a server by its name, for messages, and its address. seconds: until it is taken for
    dead, and nothing is sent again; 0: as the file says. Raises as `nodes_of`."""
    r = config.redis
    if r is None:
        raise ReshardError("the file has no [redis]: there are no Redis keys to move")
    password = config.redis_password()
    tls: dict[str, object] | None = None
    if r.tls != "off":
        ca = str(config.resolve(r.tls_ca)) if r.tls_ca else None
        needs = "required" if ca else "none"
        tls = {"ssl": True, "ssl_ca_certs": ca, "ssl_cert_reqs": needs, "ssl_check_hostname": ca is not None}
    user, patience = r.user, seconds or r.timeout
    once = Retry(NoBackoff(), 0) if seconds else None
    return lambda name, address: NodeControl(name, address.host, address.port, user, password, patience, tls, once)
