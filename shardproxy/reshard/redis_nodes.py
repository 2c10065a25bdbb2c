"""Redis nodes as those see them who move keys: fences, scans, replicas, and connections of proxies that must end.

A node may be replaced by one of its replicas at any moment. What nobody may lose then is *confirmed*: all replicas that
the node had when we began have it. Whatever was only seen counts when the process that showed it has confirmed it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
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
from shardproxy.topology.redis_map import RedisMap
from shardproxy.topology.redis_ring import RedisRing

CONNECTIONS: Final = "shardproxy"  # what the names of proxies' connections begin with; then `:IDENTITY:WORKER:NUMBER`
_LOOK: Final = 0.01  # seconds between two looks at connections that end
_SCANNED: Final = 500  # keys of one step of a scan
_WAIT: Final = 5.0  # seconds that replicas may take to have what the node has

Where = Callable[[], Awaitable[tuple[str, int]]]


class NodeError(ReshardError):
    """A node does not answer, or says no. Nothing is lost: what was asked may be asked again."""


class NodeClosed(ReshardError):
    """The node has another fence than was expected: somebody else has gone on with the move."""


class NodeControl:
    """One node. Every method raises NodeError. due: replicas that must have what is confirmed; see `count_replicas`."""

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
        where: Where | None = None,
    ) -> None:
        """seconds: until it is taken for dead. tls: redis-py's settings of it, None: without. retry: None: as redis-py
        does, which sends again what got no reply. where: tells host and port of whoever is the node now, None: it never
        changes."""
        self.name = name
        self.due = 0
        self.followed = where is not None
        self._wait = min(_WAIT, 0.8 * seconds)
        self._where = where
        self._login: dict[str, Any] = {
            "username": user or None,
            "password": password,
            "socket_timeout": seconds,
            "socket_connect_timeout": seconds,
            **(tls or {}),
            **({"retry": retry} if retry is not None else {}),
        }
        self._address = (host, port) if where is None else None
        self._clients: dict[int, Any] = {}  # by database

    async def _client(self, database: int) -> Any:
        if self._address is None:
            assert self._where is not None
            self._address = await self._where()
        client = self._clients.get(database)
        if client is None:
            host, port = self._address
            client = self._clients[database] = Redis(host=host, port=port, db=database, **self._login)
        return client

    async def _try(self, asked: Callable[[Any], Any], database: int = 0) -> Any:
        client = await self._client(database)
        try:
            return await asked(client)
        except ResponseError as error:
            if str(error).startswith("CLOSED"):
                raise NodeClosed(f"node {self.name}: {error}") from error
            await self._look_again()
            raise NodeError(f"node {self.name}: {error}") from error
        except (RedisError, OSError) as error:
            await self._look_again()
            raise NodeError(f"node {self.name} does not answer: {error or type(error).__name__}") from error

    async def _look_again(self) -> None:
        """Perhaps somebody else is the node now."""
        if self._where is not None:
            self._address = None
            await self.close()

    def at(self, address: str) -> NodeControl:
        """A replica of the node, at host:port."""
        host, _, port = address.rpartition(":")
        found = NodeControl(f"{self.name}'s replica {address}", host, int(port), "", None, 0)
        found._login = self._login
        return found

    # ── replicas ──

    async def count_replicas(self) -> None:
        """From now on, let the replicas that it has now confirm. A node that may be replaced by one must have one."""
        self.due = await self._online()
        if self.followed and not self.due:
            await self._look_again()
            raise NodeError(
                f"node {self.name} has no replica that is online, and sentinels that may make an older one the node: "
                "keys that have just come there could be lost; start a replica first"
            )

    async def _online(self) -> int:
        told = await self._try(lambda client: client.info("replication"))
        if told.get("role") != "master":  # the protocol's own word
            await self._look_again()
            raise NodeError(f"node {self.name} is a replica now")
        slaves = [value for name, value in told.items() if name.startswith("slave") and isinstance(value, dict)]
        return sum(slave.get("state") == "online" for slave in slaves)

    async def process(self) -> str:
        """Which process is the node now; empty when it has no replicas that could be."""
        if not self.due:
            return ""
        return _field(await self.ask([b"INFO", b"server"]), b"run_id")

    async def confirm(self, process: str) -> None:
        """All replicas have all that this process of the node has now. Raises NodeError also when it is not the node
        any more, or they have not in time."""
        if self.due and process != await self._confirmed_by([]):
            raise NodeError(f"node {self.name} is another process now: what was done there is done again")

    async def ask_confirmed(self, commands: Sequence[Sequence[bytes]]) -> list[Any]:
        """As `ask_all`; and all replicas have what the commands did, or had done before."""
        if not self.due:
            return await self.ask_all(commands)
        replies: list[Any] = []
        await self._confirmed_by(commands, replies)
        return replies

    async def _confirmed_by(self, commands: Sequence[Sequence[bytes]], replies: list[Any] | None = None) -> str:
        """Confirm what commands on one connection have done. Which process it was."""
        wait = moves.wait_for(self.due, round(self._wait * 1000))
        found = await self.ask_all([*commands, *wait, [b"INFO", b"server"]])
        marked, count, server = found[-3:]
        for reply in (marked, count, server):
            if isinstance(reply, ResponseError):
                await self._look_again()
                raise NodeError(f"node {self.name}: {reply}")
        if count < self.due and not self.followed:
            # Nobody replaces it by one that is not online: those that are count.
            self.due = min(self.due, await self._online())
        if count < self.due:
            await self._look_again()
            raise NodeError(
                f"node {self.name}: after {self._wait:g} s {count} of {self.due} replicas have what it has. When they "
                "lag, wait; when one of them has become the node, start another one; then `resume`"
            )
        if replies is not None:
            replies += found[:-3]
        return _field(server, b"run_id")

    async def ask(self, words: Sequence[bytes]) -> Any:
        """The reply to one command. Raises NodeClosed as well."""
        return await self._try(lambda client: client.execute_command(*words))

    async def ask_all(self, commands: Sequence[Sequence[bytes]]) -> list[Any]:
        """The replies to several, in order; errors among them as values (ResponseError)."""

        async def all_of(client: Any) -> Any:
            pipe = client.pipeline(transaction=False)
            for words in commands:
                pipe.execute_command(*words)
            return await pipe.execute(raise_on_error=False)

        found: list[Any] = await self._try(all_of)
        return found

    async def ask_marks(self, *words: bytes) -> Any:
        """The reply to one command in the database of our own."""
        return await self._try(lambda client: client.execute_command(*words), moves.DATABASE)

    async def keys_of(self, ring: RedisRing, units: Collection[int]) -> AsyncIterator[list[bytes]]:
        """All keys of these units of a ring, in portions; some perhaps twice. A key that stays there is among them. Not
        keys that belong to the node, whatever units they would have: see moves.STAYS."""
        cursor: Any = b"0"
        while True:
            at = cursor
            cursor, keys = await self._try(partial(_scan, at))
            found = [key for key in keys if not key.startswith(moves.STAYS) and ring.unit_of(key) in units]
            if found:
                yield found
            if int(cursor) == 0:
                return

    async def drop_parts(self, fence: int) -> None:
        """Delete what has come of large keys. Raises NodeClosed under another fence."""
        cursor: Any = b"0"
        while True:
            cursor, keys = await self.ask([b"SCAN", cursor, b"MATCH", moves.PARTS + b"*", b"COUNT", b"%d" % _SCANNED])
            if keys:
                await self.ask(moves.drop(fence, keys))
            if int(cursor) == 0:
                return

    async def arrived(self, move: int) -> AsyncIterator[list[bytes]]:
        """The keys that a move has put here, in portions."""
        name = moves.arrived(move)
        cursor: Any = 0
        while True:
            at = cursor
            cursor, keys = await self._try(partial(_scan_set, name, at), moves.DATABASE)
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

    async def shut_out_of_replica(self, identity: str) -> None:
        """As `shut_out`, of a replica, which gets the mark from its node."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _WAIT
        while not await self.ask_marks(b"EXISTS", moves.shut(identity)):
            if loop.time() > deadline:
                raise NodeError(f"{self.name} does not get what its node has, and a proxy that is shut out reads there")
            await asyncio.sleep(_LOOK)
        await self.end_connections(f"{CONNECTIONS}:{identity}:")

    async def end_connections(self, prefix: str) -> None:
        """End all connections whose name begins so. What a connection that has ended had sent does not run any more."""
        while True:
            clients = await self._try(lambda client: client.client_list())
            left = [client["id"] for client in clients if client.get("name", "").startswith(prefix)]
            if not left:
                return
            for ident in left:
                await self.ask([b"CLIENT", b"KILL", b"ID", str(ident).encode()])
            await asyncio.sleep(_LOOK)

    async def close(self) -> None:
        """End all connections."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()


def _field(told: Any, name: bytes) -> str:
    """Of INFO's answer, which is parsed for some of redis-py's ways to ask only."""
    if isinstance(told, dict):
        return str(told[name.decode()])
    for line in bytes(told).split(b"\r\n"):
        if line.startswith(name + b":"):
            return line[len(name) + 1 :].decode()
    return ""


async def _scan(cursor: Any, client: Any) -> Any:
    return await client.scan(cursor, count=_SCANNED)


async def _scan_set(name: bytes, cursor: Any, client: Any) -> Any:
    return await client.sscan(name, cursor, count=_SCANNED)


def asked_sentinels(
    addresses: Sequence[tuple[str, int]], name: str, seconds: float, tls: Mapping[str, object] | None
) -> Where:
    """Where the node is that sentinels watch by this name: what the newest of them says, when most of them answer, so
    that a few that were cut off with a former node do not lead there."""

    async def one(host: str, port: int) -> tuple[int, str, int]:
        login: dict[str, Any] = {"socket_timeout": seconds, "socket_connect_timeout": seconds, **(tls or {})}
        client: Any = Redis(host=host, port=port, decode_responses=True, **login)
        try:
            told = await client.execute_command("SENTINEL", "MASTER", name)
            fields = told if isinstance(told, dict) else dict(zip(told[::2], told[1::2], strict=True))
            return int(fields["config-epoch"]), str(fields["ip"]), int(fields["port"])
        finally:
            await client.aclose()

    async def where() -> tuple[str, int]:
        asked = await asyncio.gather(*(one(*address) for address in addresses), return_exceptions=True)
        told = [answer for answer in asked if isinstance(answer, tuple)]
        if 2 * len(told) <= len(addresses):
            why = next((str(answer) for answer in asked if isinstance(answer, Exception)), "")
            raise NodeError(
                f"{len(told)} of {len(addresses)} sentinels say where {name} is, more than half must ({why})"
            )
        _, host, port = max(told)
        return host, port

    return where


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
    sentinels = [(address.host, address.port) for address in r.sentinels]

    def make(name: str, address: Address) -> NodeControl:
        where, node = None, r.nodes.get(name)
        if sentinels and node is not None:
            where = asked_sentinels(sentinels, node.sentinel_name or name, r.connect_timeout, tls)
        return NodeControl(name, address.host, address.port, user, password, patience, tls, once, where)

    return make
