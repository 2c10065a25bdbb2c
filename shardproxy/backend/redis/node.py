"""A node: its connections, made when they are needed, and made anew with growing pauses when they cannot be."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from shardproxy import logs
from shardproxy.backend.redis.link import CONNECTING, DOWN, UP, Greeting, Link, ask
from shardproxy.backend.redis.slot import Turn
from shardproxy.protocol.redis import encode
from shardproxy.protocol.redis.moves import DATABASE, shut

log = logs.Log("redis")

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0  # seconds


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """connections: per node, worker and protocol version. depth: commands in flight on each. connect_timeout, timeout
    (of a reply): seconds. user empty: AUTH with the password alone; password None: no AUTH. name: what the names of our
    connections begin with, so that somebody else can end them; identity: of the proxy, in case it is shut out."""

    connections: int = 1
    depth: int = 16384
    connect_timeout: float = 2.0
    timeout: float = 10.0
    user: str = ""
    password: bytes | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    name: str = ""
    identity: str = ""


class RedisNode:
    """One node as one worker sees it. why_down: of the last failure, for clients; empty while it is up."""

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
        self.links = [
            [Link(self, resp3, settings.depth) for _ in range(settings.connections)] for resp3 in (False, True)
        ]
        self._tasks: dict[Link, asyncio.Task[None]] = {}
        self._pause = FIRST_PAUSE
        self._not_before = 0.0  # of the loop's clock
        self._closed = False
        self._seen: dict[Link, tuple[int, float]] = {}
        self._made = 0  # connections so far
        # Names of connections that we have given up: the node may still have commands of theirs before it.
        self.ghosts: set[bytes] = set()

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
        """Begin to connect, unless it is too early after a failure."""
        if link.state == DOWN and not self._closed and self.loop.time() >= self._not_before:
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
        except (OSError, _Refused) as error:
            self._failed(link, f"cannot connect: {error}")
        else:
            if link.state == UP:
                if self.why_down:
                    log.info("redis_node_up", node=self.name)
                self.why_down = ""
                self._pause = FIRST_PAUSE
        finally:
            self._tasks.pop(link, None)

    async def _greet(self, link: Link) -> None:
        """Log in. Commands of clients that have come meanwhile stand behind it."""
        s = self.settings
        words: list[bytes] = []
        if link.resp3:
            words = [b"HELLO", b"3"]
            if s.password is not None:
                words += [b"AUTH", s.user.encode() or b"default", s.password]
        elif s.password is not None:
            words = [b"AUTH", *([s.user.encode()] if s.user else []), s.password]
        transport = link.transport
        if transport is None:
            raise _Refused("closed at once")
        if words:
            greeting = Greeting(1)
            link.expect_first(greeting.slot)
            transport.write(encode.command(words))
            reply = await greeting.future
            if reply[:1] == b"-":
                raise _Refused(reply[1:-2].decode(errors="replace"))
        if link.transport is None:
            raise _Refused("closed at once")
        if s.name:
            await self._introduce(link)
        link.ready()

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
            raise _Refused(f"CLIENT SETNAME: {replies[0][1:].decode(errors='replace')}; allow it to the nodes' user")
        if replies[1][:1] != b"-" and replies[2] != b":0":
            raise _Refused("this proxy was shut out: it did not answer while keys moved; it comes back by itself")
        if link.transport is None:
            raise _Refused("closed at once")

    async def lay_ghosts(self) -> bool:
        """End what the node still has of connections that we have given up. False: it does not answer now."""
        link = self.links[False][0]
        for name in list(self.ghosts):
            if link.state == DOWN:
                self.open(link)
            reply = await ask(link, [b"CLIENT", b"LIST"])
            if reply[:1] == b"-":
                return False
            for line in reply.split(b"\n"):
                fields = line.split(b" ")
                if b"name=" + name in fields:
                    ident = next(field for field in fields if field.startswith(b"id="))[3:]
                    reply = await ask(link, [b"CLIENT", b"KILL", b"ID", ident])
                    if reply[:1] == b"-":
                        return False
            self.ghosts.discard(name)
        return True

    async def settle(self) -> None:
        """Wait until nothing that was given to a connection before is in flight, here or at the node."""
        waits = [ask(link, [b"PING"]) for links in self.links for link in links if link.state != DOWN]
        await asyncio.gather(*waits)
        while not await self.lay_ghosts():  # noqa: ASYNC110 — it is the node that is asked again
            await asyncio.sleep(FIRST_PAUSE)

    def _failed(self, link: Link, why: str) -> None:
        transport, link.transport = link.transport, None
        if transport is not None:
            transport.abort()
        link.state = DOWN
        self._down(why)
        link.lose(f"{self.why_down}; the command was not sent")

    def lost(self, link: Link, why: str) -> None:
        """The connection broke. A new one is tried at once; in case of need later."""
        task = self._tasks.get(link)
        if task is not None:  # it was still being made: that task finds out
            return
        self._down(why, at_once=True)
        self.open(link)

    def _down(self, why: str, at_once: bool = False) -> None:
        self.failures += 1
        if not self.why_down:
            log.warning("redis_node_down", node=self.name, address=self.address, reason=why)
        self.why_down = why
        if not at_once and self.loop.time() >= self._not_before:
            self._not_before = self.loop.time() + self._pause
            self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def tick(self) -> None:
        """To be called about once a second: connections come back by themselves, and stuck ones are given up."""
        now = self.loop.time()
        for links in self.links:
            for link in links:
                if link.state == DOWN and (links is self.links[False] or link in self._seen):
                    self.open(link)
                reads, since = self._seen.get(link, (-1, now))
                if link.state != UP or not link.pending or link.held_by is not None or reads != link.received:
                    self._seen[link] = (int(link.received), now)
                elif now - since > self.settings.timeout:
                    link.fail(f"gave no reply for {self.settings.timeout:g} s")

    def close(self) -> None:
        """For good."""
        self._closed = True
        for task in list(self._tasks.values()):
            task.cancel()
        for links in self.links:
            for link in links:
                with contextlib.suppress(RuntimeError):
                    link.fail("the proxy ends")


class _Refused(Exception):
    """The node does not let us in."""
