"""Connections to one server, kept by profile: take one that matches, bring one over, or make one, within a limit.

The pool decides; callers wait. A connection handed to a waiter is handed over only if the waiter still wants it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any

from shardproxy.backend.connection import BackendConnection, Sink
from shardproxy.errors import BackendError, BackendLost, PoolTimeout, SqlError
from shardproxy.protocol.mysql.response import IN_TRANS
from shardproxy.session.profile import Profile, reachable
from shardproxy.topology.model import Server

log = logging.getLogger(__name__)

Dial = Callable[["Pool", Profile], Awaitable[BackendConnection]]
STUCK = 0.1  # seconds that a shared connection may be silent with commands waiting
RETRY = 1.0  # seconds before shared connections that could not be made are asked for again
MAX_SHARED_PROFILES = 8
_AHEAD = 16  # connections of a profile that are made before anybody asks for them
# MySQL gives a connection what InnoDB keeps of its transactions when it first needs that, and makes those hundreds at
# a time: for 50 ms on a busy machine, for which all wait who need one. Whatever completion_type says, it ends there.
_FIRST = (b"START TRANSACTION WITH CONSISTENT SNAPSHOT", b"ROLLBACK AND NO CHAIN NO RELEASE")
MOST_CUT = 1000
DROPPED = Sink()


class Pool:
    """At most `limit` connections to `server`; a caller waits at most `wait` seconds for one.

    slot: the pool's number among the worker's pools, for counting.

    shared: point reads of several clients are queued on one connection, `shared_depth` deep at most, on at most
    `shared_limit` connections a profile; 0 switches that off. All shared connections together take at most half of
    the limit: the rest is for those who need a connection to themselves.

    cut: the server's numbers of connections that ended before their answers had come: what they ran may go on there;
    cut_many: there were more. Whoever needs to know takes them (`take_cut`).
    """

    def __init__(
        self,
        server: Server,
        dial: Dial,
        limit: int,
        wait: float,
        slot: int = 0,
        shared_limit: int = 0,
        shared_depth: int = 0,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.server = server
        self.slot = slot
        self.limit = limit
        self.wait = wait
        self.shared_limit = shared_limit
        self.shared_depth = shared_depth
        self.idle: dict[Profile, list[BackendConnection]] = {}
        self.shared: dict[Profile, list[BackendConnection]] = {}
        self.connections: set[BackendConnection] = set()
        self.dialing = 0
        self._dialing_shared = 0
        self._coming: Counter[Profile] = Counter()  # connections that are being made ahead
        self.waits = 0
        self.timeouts = 0
        self.cut: list[int] = []
        self.cut_many = False
        self._dial = dial
        self._waiters: deque[asyncio.Future[BackendConnection | None]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching: asyncio.TimerHandle | None = None
        self.draining = False

    # ── checkout ──

    def checkout_now(self, profile: Profile) -> BackendConnection | None:
        """An idle connection that is already in this profile, or None. The hot path."""
        stack = self.idle.get(profile)
        if stack:
            connection = stack.pop()
            connection.idle_since = 0.0
            return connection
        return None

    async def checkout(self, profile: Profile) -> BackendConnection:
        """A connection in this profile, for the caller alone.

        Raises PoolTimeout, BackendError (cannot connect; the profile's SET or schema fails on this server).
        """
        deadline = asyncio.get_running_loop().time() + self.wait
        made = waited = False
        while True:
            connection = self.checkout_now(profile) or self._closest(profile)
            if connection is None and self._has_room():
                connection = await self._make(profile)
                made = True
            if connection is None:
                connection = await self._queue(deadline, waited)
                waited = True
                if connection is None:
                    continue
            if connection.closed:
                continue
            if not reachable(connection.profile, profile):
                connection.close()  # makes room for one of the right kind
                continue
            try:
                failed = await connection.switch(profile)
            except BackendLost:
                if made:
                    raise  # new connections do not live either
                continue  # it was dead in the pool; nothing of the caller's was sent
            if failed is None:
                return connection
            raise BackendError(failed.error_message, failed.error_code, failed.sqlstate)

    async def checkout_new(self, profile: Profile) -> BackendConnection:
        """As checkout, but a connection that nobody has used: for sessions whose state will stay with it."""
        for stack in self.idle.values():
            if stack and len(self.connections) + self.dialing >= self.limit:
                stack.pop().close()
                break
        if len(self.connections) + self.dialing >= self.limit:
            borrowed = await self.checkout(profile)
            borrowed.close()  # its place is what we waited for
        connection = await self._make(profile)
        failed = await connection.switch(profile)
        if failed is not None:
            raise BackendError(failed.error_message, failed.error_code, failed.sqlstate)
        return connection

    async def beyond(self, profile: Profile) -> BackendConnection:
        """A new connection beyond the limit, never pooled, for the proxy's own statements: as the profile's login
        brings it. The caller closes it. Raises as checkout."""
        return await self._dial(self, profile)

    def _closest(self, profile: Profile) -> BackendConnection | None:
        """An idle connection that statements can bring to the profile."""
        for have, stack in self.idle.items():
            if stack and reachable(have, profile):
                return self.checkout_now(have)
        return None

    def _has_room(self) -> bool:
        if len(self.connections) + self.dialing < self.limit:
            return True
        for stack in self.idle.values():  # idle, but of a kind that cannot be brought over
            if stack:
                stack.pop().close()
                return True
        return False

    async def _make(self, profile: Profile) -> BackendConnection:
        self.dialing += 1
        try:
            connection = await self._dial(self, profile)
        except BaseException:
            self.dialing -= 1
            self._wake()
            raise
        self.dialing -= 1
        self.connections.add(connection)
        return connection

    async def _queue(self, deadline: float, again: bool) -> BackendConnection | None:
        """Wait for a checkin. None: room may have come up, look again; who then waits again keeps the first place."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[BackendConnection | None] = loop.create_future()
        if again:
            self._waiters.appendleft(waiter)
        else:
            self.waits += 1
            self._waiters.append(waiter)
        try:
            async with asyncio.timeout_at(deadline):
                return await waiter
        except TimeoutError:
            self._give_up(waiter)
            self.timeouts += 1
            raise PoolTimeout(
                f"pool of {self.server.name}: no connection became free within {self.wait:g} s (limit {self.limit}, "
                "all busy): raise backend.pool_size, or look for long transactions"
            ) from None
        except asyncio.CancelledError:
            self._give_up(waiter)
            raise

    def _give_up(self, waiter: asyncio.Future[BackendConnection | None]) -> None:
        """A waiter stops waiting; a connection handed over at the very moment goes to the next one."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        if waiter.done() and not waiter.cancelled():
            connection = waiter.result()
            if connection is None:
                self._wake()
            else:
                self.checkin(connection)

    # ── sharing ──

    def share(self, profile: Profile) -> BackendConnection | None:
        """A shared connection in this profile with room in its queue, for one point read; or None. The hot path.

        The first calls for a profile only ask for the connections to be made.
        """
        shared = self.shared.get(profile)
        if shared is None:
            self._begin_sharing(profile)
            return None
        if not shared:
            return None
        # The first is filled half before the next is used: the deeper a queue, the more commands share a system call.
        connection = shared[0]
        depth = len(connection.sinks)
        if depth >= self.shared_depth >> 1:
            for other in shared:
                if len(other.sinks) < depth:
                    connection, depth = other, len(other.sinks)
        if depth >= self.shared_depth:
            return None
        if self._watching is None:
            self._watching = asyncio.get_running_loop().call_later(STUCK, self._watch, {})
        return connection

    def _begin_sharing(self, profile: Profile) -> None:
        if self.shared_limit and not profile.personal:
            self.shared[profile] = []
            for _ in range(self.shared_limit):
                self.in_background(self._add_shared(profile))

    async def _add_shared(self, profile: Profile) -> None:
        """Make one more shared connection within the limit; what cannot be now is tried again a second later."""
        made = False
        if self._may_share_more() and self._has_room():
            self._dialing_shared += 1
            try:
                connection = await self._make(profile)
                failed = await connection.switch(profile)
            except SqlError as error:
                log.warning("no shared connection to %s: %s", self.server.name, error)
            else:
                made = failed is None and not connection.closed
            finally:
                self._dialing_shared -= 1
        if made and self.draining:
            connection.close()
        elif made:
            connection.shared = True
            self.shared.setdefault(profile, []).append(connection)
        elif not self.shared.get(profile):
            self.loop.call_later(RETRY, self._ask_again, profile)

    def _may_share_more(self) -> bool:
        if self.draining or len(self.shared) > MAX_SHARED_PROFILES:
            return False
        have = sum(len(stack) for stack in self.shared.values())
        return have + self._dialing_shared < self.limit // 2

    def _ask_again(self, profile: Profile) -> None:
        if self.shared.get(profile) == []:
            del self.shared[profile]

    def _watch(self, before: dict[BackendConnection, int]) -> None:
        """Every STUCK seconds while point reads are under way: a connection that has not said a word since the last
        time, with commands waiting, is stuck (a metadata lock, a lost packet). Those behind its first are sent again
        elsewhere: they are reads."""
        self._watching = None
        after: dict[BackendConnection, int] = {}
        for shared in list(self.shared.values()):
            for connection in list(shared):
                if not connection.sinks:
                    continue
                if before.get(connection) == connection.turns:
                    self._unshare(connection)
                else:
                    after[connection] = connection.turns
        if after:
            self._watching = asyncio.get_running_loop().call_later(STUCK, self._watch, after)

    def _unshare(self, connection: BackendConnection) -> None:
        """Take a stuck connection out of sharing; its first command keeps it to the end, the others move."""
        self.shared[connection.profile].remove(connection)
        connection.retiring = True
        connection.shared = False
        first, *waiting = connection.sinks
        for i, sink in enumerate(waiting, 1):
            if sink.redo():
                connection.sinks[i] = DROPPED
        if first.unwanted():
            self.abandon(connection)
        self.in_background(self._add_shared(connection.profile))

    # ── ahead ──

    def prepare_for(self, others: Collection[Pool]) -> None:
        """Have connections as other pools have them, not more than a few of a kind: what they are asked for will be
        asked for here, all at once. Those that cannot be made are left to who will need them."""
        for profile in {profile for other in others for profile, shared in other.shared.items() if shared}:
            if profile not in self.shared:
                self._begin_sharing(profile)
        have = self._kinds() + self._coming
        wanted: Counter[Profile] = Counter()
        for other in others:
            wanted |= other._kinds()  # the most of them
        for profile, count in wanted.most_common(MAX_SHARED_PROFILES):
            for _ in range(min(count, _AHEAD) - have[profile]):
                self._coming[profile] += 1
                self.in_background(self._add_idle(profile))

    def _kinds(self) -> Counter[Profile]:
        """How many connections there are of each profile, but for shared ones."""
        return Counter(connection.profile for connection in self.connections if not connection.shared)

    async def _add_idle(self, profile: Profile) -> None:
        try:
            if self.draining or len(self.connections) + self.dialing >= self.limit // 2:
                return
            connection = await self._make(profile)
            if await connection.switch(profile) is None:
                await self._use_first(connection)
        except SqlError as error:
            log.warning("no connection to %s ahead of a move: %s", self.server.name, error)
        finally:
            self._coming[profile] -= 1
            if not self._coming[profile]:
                del self._coming[profile]

    async def _use_first(self, connection: BackendConnection) -> None:
        """Give it back when it has been used; close it when that could not be."""
        if any(reply.failed for reply in await connection.queries(_FIRST)):
            connection.close()
        else:
            self.give_back(connection, True)

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something about a connection of this pool that nobody waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ── checkin ──

    def checkin(self, connection: BackendConnection) -> None:
        """Give back a connection that is clean: no transaction, nothing left behind, its last answer whole."""
        if connection.closed:
            return
        if connection.retiring and connection.sinks:
            return  # it closes after the last answer that is still due
        if self.draining or connection.killings or connection.retiring:
            connection.close()
            return
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        stack = self.idle.get(connection.profile)
        if stack is None:
            self.idle[connection.profile] = [connection]
        else:
            stack.append(connection)

    def give_back(self, connection: BackendConnection, ended: bool = False) -> None:
        """As checkin, cleansed first where its last answer or its use says that it holds something.

        ended: COMMIT or ROLLBACK was the last that ran on it. Without autocommit nothing else says that it is clean:
        after DESCRIBE, MySQL 9 reports no transaction and keeps a lock on the table that every ALTER waits for.
        """
        if connection.tainted or connection.scanner.status & IN_TRANS or not (ended or connection.profile.autocommit):
            self.release(connection)
        else:
            self.checkin(connection)

    def release(self, connection: BackendConnection) -> None:
        """Give back a connection whatever it holds: rolled back first, or closed when that is not enough."""
        if connection.closed:
            return
        if connection.sinks or connection.tainted or self.draining:
            # COM_RESET_CONNECTION would keep it, but loses prepared statements and leaves a character set that
            # differs between servers (DESIGN 13 g); a new connection is the plain way to a known state.
            connection.close()
            return
        self.in_background(self._roll_back(connection))

    async def _roll_back(self, connection: BackendConnection) -> None:
        try:
            async with asyncio.timeout(self.wait):
                reply = await connection.query(b"ROLLBACK")
        except (BackendLost, TimeoutError):
            connection.close()
            return
        if reply.failed or reply.status & IN_TRANS:
            connection.close()
            return
        self.checkin(connection)

    def forget(self, connection: BackendConnection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        stack = self.idle.get(connection.profile)
        if stack and connection in stack:
            stack.remove(connection)
        shared = self.shared.get(connection.profile)
        if shared is not None and connection in shared:
            shared.remove(connection)
            if not shared:
                self._ask_again(connection.profile)  # the next point read asks for new ones
        self._wake()

    def note_cut(self, server_thread: int) -> None:
        """A connection has ended with an answer due."""
        if len(self.cut) < MOST_CUT:
            self.cut.append(server_thread)
        else:
            self.cut_many = True

    def take_cut(self) -> list[int] | None:
        """The connections of `cut`, None: too many to name; from now on they are counted anew."""
        cut, many = self.cut, self.cut_many
        self.cut, self.cut_many = [], False
        return None if many else cut

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    # ── upkeep ──

    def abandon(self, connection: BackendConnection) -> None:
        """Nobody waits for this connection's answer any more: close it, and end its statement on the server too."""
        if not connection.closed:
            connection.close()
            self.kill(connection, False)

    def kill(self, connection: BackendConnection, query_only: bool) -> None:
        """End a connection's statement, or the connection, on the server. Uses one beyond the limit, for a moment.

        The statement may end before the KILL arrives. So that it hits no other client's, the connection is nobody
        else's until then: one that comes back meanwhile is closed.
        """
        connection.killings += 1
        self.in_background(self._kill(connection, query_only))

    async def end_statement(self, connection: BackendConnection) -> None:
        """KILL QUERY of what runs on a connection; returns when the server has been told."""
        connection.killings += 1
        await self._kill(connection, True)

    async def _kill(self, victim: BackendConnection, query_only: bool) -> None:
        try:
            connection = await self._dial(self, victim.profile)
            try:
                what = "QUERY " if query_only else ""
                await connection.query(f"KILL {what}{victim.server_thread}")
            finally:
                connection.close()
        except SqlError as error:
            log.warning("could not end a statement on its server: %s", error)
        finally:
            victim.killings -= 1

    def reap(self, now: float, max_idle: float) -> None:
        """Close connections idle for longer than `max_idle` seconds; called about once a second."""
        for profile in list(self.idle):
            stack = self.idle[profile]
            for connection in list(stack):
                if connection.idle_since == 0.0:
                    connection.idle_since = now
                elif now - connection.idle_since > max_idle:
                    connection.close()
            if not stack:
                del self.idle[profile]

    def close(self) -> None:
        """No more checkouts; idle connections close now, busy ones when they come back, shared ones when all of
        their commands are answered."""
        self.draining = True
        for stack in list(self.idle.values()):
            for connection in list(stack):
                connection.close()
        for stack in list(self.shared.values()):
            for connection in list(stack):
                if connection.sinks:
                    stack.remove(connection)
                    connection.retiring = True
                else:
                    connection.close()

    @property
    def idle_count(self) -> int:
        return sum(len(stack) for stack in self.idle.values())
