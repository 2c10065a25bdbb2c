"""A node: its connections, made when they are needed, and made anew with growing pauses when they cannot be.

A node that cannot be reached several times in a row is ejected: commands do not wait for it any more, they get an
error at once. A probe of its own finds out when it answers again.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from shardproxy import logs
from shardproxy.backend.redis.asking import Asker, Refused
from shardproxy.backend.redis.link import CONNECTING, DOWN, UP, Greeting, Link, ask
from shardproxy.backend.redis.own import OwnLinks
from shardproxy.backend.redis.slot import Turn
from shardproxy.errors import RemoteProtocolError
from shardproxy.protocol.redis import encode
from shardproxy.protocol.redis.moves import DATABASE, shut

log = logs.Log("redis")

_NOT_ALLOWED = (b"-NOPERM", b"-ERR unknown command")  # by the node's rules or its renamed commands
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0  # seconds
PING_EVERY = 1.0  # seconds
MOST_GHOSTS = 1000  # more are not kept until somebody must know that they are gone


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """connections: per node, worker and protocol version, of all clients. own: per node and worker, of one client each,
    at most. depth: commands in flight on each. connect_timeout, timeout (of a reply): seconds. user empty: AUTH with
    the password alone; password None: no AUTH. eject_after: failures in a row. name: what the names of our connections
    begin with, so that somebody else can end them; empty: they have none. identity: of the proxy, in case it is shut
    out."""

    connections: int = 1
    own: int = 1000
    depth: int = 16384
    connect_timeout: float = 2.0
    timeout: float = 10.0
    user: str = ""
    password: bytes | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    eject_after: int = 3
    name: str = ""
    identity: str = ""


class RedisNode:
    """One node as one worker sees it. why_down: of the last failure, for clients; empty while it is up. ejected:
    nothing is sent to it until it has answered a probe."""

    def __init__(self, name: str, host: str, port: int, settings: LinkSettings, turn: Turn) -> None:
        self.name = name
        self.host = host
        self.port = port
        self.address = f"{host}:{port}"
        self.settings = settings
        self.turn = turn
        self.loop = turn.loop
        self.why_down = ""
        self.failures = 0  # connections lost, or not made
        self.ejected = False
        self.ejections = 0
        self.complete_until: float | None = None  # of a replica: see Replication
        self.reads = 0  # of a replica: commands that it got
        self.when_lost: Callable[[], None] | None = None  # the next connection may find another process
        self.links = [
            [Link(self, resp3, settings.depth) for _ in range(settings.connections)] for resp3 in (False, True)
        ]
        self.own = OwnLinks(self, settings.own)
        self._tasks: dict[Link, asyncio.Task[None]] = {}
        self._in_a_row = 0  # failures
        self._probe: asyncio.Task[None] | None = None
        self._pause = FIRST_PAUSE
        self._not_before = 0.0  # of the loop's clock
        self._closed = False
        self._held = False
        self._pinged: dict[Link, float] = {}
        # Of links that have been up: what they had received, and since when they have received no more.
        self._seen: dict[Link, tuple[int, float]] = {}
        self._made = 0  # connections so far
        # Names of connections that we have given up: the node may still have commands of theirs before it.
        self.ghosts: set[bytes] = set()
        self._laying: asyncio.Task[bool] | None = None

    @property
    def up(self) -> bool:
        return not self.why_down

    def link(self, resp3: bool, number: int) -> Link:
        """The connection that a client with this number uses, always the same."""
        links = self.links[resp3]
        return links[number % len(links)]

    def start(self) -> None:
        """Make the RESP2 connections now, so that the first commands find them."""
        for link in self.links[False]:
            self.open(link)

    def open(self, link: Link) -> None:
        """Begin to connect, unless it is too early after a failure, or the node is ejected."""
        may = self.loop.time() >= self._not_before or (link.own and self.up)
        if link.state == DOWN and not (self._closed or self._held or self.ejected) and may:
            link.state = CONNECTING
            task = self.loop.create_task(self._connect(link))
            self._tasks[link] = task

    async def _connect(self, link: Link) -> None:
        try:
            async with asyncio.timeout(self.settings.connect_timeout):
                make = cast("Callable[[], asyncio.Protocol]", lambda: link)  # by its methods: see Link
                await self.loop.create_connection(make, self.host, self.port, ssl=self.settings.tls)
                await self._greet(link)
        except TimeoutError:
            self._failed(link, f"no answer within {self.settings.connect_timeout:g} s")
        except (OSError, Refused) as error:
            self._failed(link, f"cannot connect: {error}")
        except Exception as error:  # a defect; what was asked must not stand before the next connection's replies
            self._failed(link, f"cannot connect: {error!r}")
            raise
        else:
            if link.own:
                self._keep_alive(link)
            elif link.state == UP:
                if self.why_down:
                    log.info("redis_node_up", node=self.name)
                self.why_down = ""
                self._in_a_row = 0
                self._not_before = 0.0
                self._pause = FIRST_PAUSE
        finally:
            if self._tasks.get(link) is asyncio.current_task():
                del self._tasks[link]

    def _keep_alive(self, link: Link) -> None:
        """A blocked command may be silent for ever: the kernel finds out when the node's machine is gone."""
        sock = link.transport.get_extra_info("socket") if link.transport is not None else None
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, round(self.settings.timeout)))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, round(self.settings.timeout / 3)))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)

    async def _greet(self, link: Link) -> None:
        """Log in, and see that it answers: a server that hangs accepts connections too. Commands of clients that have
        come meanwhile stand behind it."""
        s = self.settings
        asked: list[list[bytes]] = []
        if link.resp3:
            login = [] if s.password is None else [b"AUTH", s.user.encode() or b"default", s.password]
            asked.append([b"HELLO", b"3", *login])
        elif s.password is not None:
            asked.append([b"AUTH", *([s.user.encode()] if s.user else []), s.password])
        greetings = len(asked)
        if link.own:
            asked.append([b"CLIENT", b"ID"])
        asked += [[b"MULTI"], [b"DISCARD"]]
        transport = link.transport
        if transport is None:
            raise Refused("closed at once")
        greeting = Greeting(len(asked))
        link.expect_first(greeting.slot)
        transport.write(b"".join(map(encode.command, asked)))
        lines = (await greeting.future).split(b"\r\n")
        if lines[0][:1] == b"-" and (greetings or lines[0].startswith(b"-NOAUTH")):
            raise Refused(lines[0][1:].decode(errors="replace"))
        if link.own and lines[-4][:1] == b":":
            link.ident = int(lines[-4][1:])
        # Behind a MULTI that is refused the commands would be done one by one.
        link.no_multi = lines[-3][1:].decode(errors="replace") if lines[-3].startswith(_NOT_ALLOWED) else ""
        if link.transport is None:
            raise Refused("closed at once")
        await self.greeted(link)
        if link.transport is None:
            raise Refused("closed at once")
        if s.name:
            await self._introduce(link)
        link.ready()

    async def greeted(self, link: Link) -> None:
        """We are let in on a new connection; commands wait until this returns. It is still there when this is called,
        and may be gone after each `await` here."""

    async def _introduce(self, link: Link) -> None:
        """Give the connection a name that it alone has, and then look whether we are shut out. Who shuts us out does it
        the other way round: a connection that does not see it is seen."""
        transport = link.transport
        assert transport is not None
        self._made += 1
        link.name = f"{self.settings.name}:{self._made}".encode()
        greeting = Greeting(4)
        link.expect_first(greeting.slot)
        # Where there is no other database no keys are moved, so that nobody is shut out.
        words = [
            [b"CLIENT", b"SETNAME", link.name],
            [b"SELECT", b"%d" % DATABASE],
            [b"EXISTS", shut(self.settings.identity)],
            [b"SELECT", b"0"],
        ]
        transport.write(b"".join([encode.command(each) for each in words]))
        replies = (await greeting.future).split(b"\r\n")
        if replies[0][:1] == b"-":
            raise Refused(f"CLIENT SETNAME: {replies[0][1:].decode(errors='replace')}; allow it to the nodes' user")
        if replies[1][:1] != b"-" and replies[2] != b":0":
            raise Refused("this proxy was shut out: it did not answer while keys moved; it comes back by itself")
        if link.transport is None:
            raise Refused("closed at once")

    async def lay_ghosts(self) -> bool:
        """End what the node still has of connections that we have given up. False: it does not answer now."""
        names = set(self.ghosts)
        if not names:
            return True
        link = self.links[False][0]
        if link.state == DOWN:
            self.open(link)
        reply = await ask(link, [b"CLIENT", b"LIST"])
        if reply[:1] == b"-":
            return False
        for line in reply.split(b"\n"):
            fields = dict([field.partition(b"=")[::2] for field in line.split(b" ")])
            if fields.get(b"name") in names:
                reply = await ask(link, [b"CLIENT", b"KILL", b"ID", fields[b"id"]])
                if reply[:1] == b"-" and not reply.startswith(b"-ERR No such client"):
                    return False
        self.ghosts -= names
        return True

    async def settle(self) -> None:
        """Wait until nothing that was given to a shared connection before is in flight, here or at the node, nor on
        own ones that are closed. Own ones that clients still have are their clients' matter: see
        frontend.redis.settling."""
        waits = [ask(link, [b"PING"]) for links in self.links for link in links if link.state != DOWN]
        await asyncio.gather(*waits)
        while not await self.lay_ghosts():  # noqa: ASYNC110 — it is the node that is asked again
            await asyncio.sleep(FIRST_PAUSE)

    async def settle_reads(self, seconds: float) -> None:
        """Of a replica: wait until what was given to it before has its replies, or for so long at most: then it gets
        errors. What the node does of it later nobody sees."""

        async def settle(link: Link) -> None:
            try:
                async with asyncio.timeout(seconds):
                    await ask(link, [b"PING"])
            except TimeoutError:
                self.give_up(link, "keys go to another node, and it gave no reply")

        await asyncio.gather(*(settle(link) for links in self.links for link in links if link.state != DOWN))

    def _failed(self, link: Link, why: str) -> None:
        transport, link.transport = link.transport, None
        if transport is not None:
            transport.abort()
        link.state = DOWN
        if link.own:
            self.failures += 1
        else:
            self._down(why)
        link.end(why)
        link.lose(f"{why}; the command was not sent")

    def lost(self, link: Link, why: str) -> None:
        """The connection broke. A new one is tried at once; in case of need later."""
        self._tell_loss()
        task = self._tasks.get(link)
        if task is not None:  # it was still being made: that task finds out
            return
        if link.own:
            return
        self._down(why, at_once=True)
        self.open(link)

    def _tell_loss(self) -> None:
        if self.when_lost is not None:
            self.when_lost()

    def abandon(self, link: Link) -> None:
        """Nobody waits for this connection any more."""
        task = self._tasks.get(link)
        if task is not None:
            task.cancel()
        link.drop()

    def _down(self, why: str, at_once: bool = False) -> None:
        self.failures += 1
        self.complete_until = None  # the next connection may find another process, with nothing in it
        if not self.why_down:
            log.warning("redis_node_down", node=self.name, address=self.address, reason=why)
        self.why_down = why
        if not at_once and self.loop.time() >= self._not_before:
            self._not_before = self.loop.time() + self._pause
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
            self._count()

    def _count(self) -> None:
        """One more failure in a row. Connections that still answer keep a node from being ejected: perhaps it only
        takes no more of them."""
        self._in_a_row += 1
        working = any(link.state == UP for links in self.links for link in links)
        if self._in_a_row >= self.settings.eject_after and not working and not self.ejected:
            self.ejected = True
            self.ejections += 1
            log.warning("redis_node_ejected", node=self.name, address=self.address, reason=self.why_down)
            self.own.leave(f"the node was given up: {self.why_down}")

    async def _try(self) -> None:
        """Whether an ejected node answers again."""
        s = self.settings
        try:
            async with asyncio.timeout(s.connect_timeout):
                async with await Asker.open(self.host, self.port, s.user, s.password, s.tls) as asker:
                    await asker.ask(b"PING")
        except TimeoutError:
            self._down(f"no answer within {s.connect_timeout:g} s")
        except (OSError, Refused, RemoteProtocolError) as error:
            self._down(f"cannot connect: {error}")
        else:
            self.ejected = False
            self._in_a_row = 0
            self._not_before = 0.0
            log.warning("redis_node_back", node=self.name, address=self.address)
            self.start()

    def hold(self, why: str) -> None:
        """Do not connect before `move` has said where to."""
        self._held = True
        self.why_down = why

    def move(self, host: str, port: int) -> None:
        """The node is at another address from now on. Commands that are running get errors; none is sent again."""
        if (host, port) == (self.host, self.port) and not self._held:
            return
        self._tell_loss()
        before = self.address
        self.host, self.port, self.address = host, port, f"{host}:{port}"
        if before != self.address:
            log.warning("redis_node_moved", node=self.name, before=before, now=self.address)
        for links in self.links:
            for link in links:
                self.give_up(link, f"{before} is not the primary any more")
        self.own.leave(f"{before} is not the primary any more")
        self._held = self.ejected = False
        self._in_a_row = 0
        self._not_before = 0.0
        self._pause = FIRST_PAUSE
        self.start()

    def give_up(self, link: Link, why: str) -> None:
        """Whoever waits for replies of this connection gets an error."""
        task = self._tasks.pop(link, None)
        if task is not None:
            task.cancel()
            self._failed(link, why)
        elif link.state == UP:
            link.fail(why)

    def tick(self) -> None:
        """To be called about once a second: connections come back by themselves, and stuck ones are given up."""
        now = self.loop.time()
        if (
            self.ejected
            and not self._closed
            and now >= self._not_before
            and (self._probe is None or self._probe.done())
        ):
            self._probe = self.loop.create_task(self._try())
        stuck = False
        for links in self.links:
            for link in links:
                if link.state == DOWN and (links is self.links[False] or link in self._seen):
                    self.open(link)
                if link.state != UP:
                    continue
                reads, since = self._seen.get(link, (-1, now))
                if not link.pending or link.held_by is not None or reads != link.received:
                    self._seen[link] = (int(link.received), now)
                    if not link.pending and now - self._pinged.get(link, 0.0) > PING_EVERY:
                        self._pinged[link] = now
                        link.ping()
                elif now - since > self.settings.timeout:
                    link.fail(f"gave no reply for {self.settings.timeout:g} s")
                    stuck = True
        if stuck:
            self._count()
        self.own.tick(now)
        if len(self.ghosts) > MOST_GHOSTS and (self._laying is None or self._laying.done()):
            self._laying = self.loop.create_task(self.lay_ghosts())

    def close(self) -> None:
        """For good."""
        self._closed = True
        for helper in (self._probe, self._laying):
            if helper is not None:
                helper.cancel()
        for task in list(self._tasks.values()):
            task.cancel()
        for links in self.links:
            for link in links:
                with contextlib.suppress(RuntimeError):
                    link.fail("the proxy ends")
        with contextlib.suppress(RuntimeError):
            self.own.close()
