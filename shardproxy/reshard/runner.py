"""The streams of a move, running: each is opened again when a server or its binlog connection fails."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

from shardproxy.errors import BackendError, NotOurs, ReshardError, RowsDiffer, SqlError
from shardproxy.reshard.stream import Stream, StreamPlan, start_stream
from shardproxy.reshard.throttle import Pace
from shardproxy.reshard.touched import Touched
from shardproxy.reshard.watch import shown

log = logging.getLogger(__name__)
_PAUSE = 0.5  # seconds before a stream is opened again, at first
_LONGEST = 10.0
_DUPLICATE = 1062  # no second try helps against it, but for a table's move
_TRIES = 5  # of a table's move: another stream may be about to take away the copy of the row that comes
_SOON = 0.1  # seconds within which what has come is applied when a stream is level


class State(Enum):
    """What a stream does."""

    STARTING = "starting"
    COPYING = "copying"
    FOLLOWING = "following"
    COMPARING = "comparing"
    BROKEN = "broken"  # it will be opened again soon
    ENDED = "ended"


@dataclass
class Running:
    """One stream and its figures. Made by `begin`; `close` it.

    copied: rows so far; opened: how often it was opened; applied: transactions; compared: rows that were equal;
    touched: what has changed since; error: why it is broken, or has ended.
    """

    plan: StreamPlan
    pace: Pace
    forward: bool
    state: State = State.STARTING
    error: str = ""
    opened: int = 0
    copied: int = 0
    applied: int = 0
    compared: int = 0
    failure: BaseException | None = None
    touched: Touched = field(default_factory=Touched)
    _task: asyncio.Task[None] | None = None
    _stream: Stream | None = None
    _begun: bool = False
    _copied: asyncio.Event = field(default_factory=asyncio.Event)
    _level: asyncio.Event = field(default_factory=asyncio.Event)
    _asked: deque[tuple[Callable[[Stream], Awaitable[None]], asyncio.Event]] = field(default_factory=deque)
    _marker: int | None = None
    _reached: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """End it; its rows stay on the target."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def when_copied(self) -> None:
        """Wait until all rows are copied and the stream follows. Raises what ended it."""
        await self._wait(self._copied)

    async def when_level(self) -> None:
        """Wait until what comes is applied at once. Raises what ended it."""
        self._level.clear()
        await self._wait(self._level)

    async def compare(self) -> None:
        """Compare the rows of both sides at one position, while changes go on. Raises what ended it: RowsDiffer."""
        await self._ask(self._verify)

    async def sweep(self) -> None:
        """Compare again what has changed since `compare`, until little is left for the switch. Raises what ended it."""
        await self._ask(Stream.sweep)

    @contextmanager
    def expecting(self, epoch: int) -> Iterator[None]:
        """Look out for the marker of this epoch. It may have been read when its COMMIT is answered, and be the last
        event for a while: so begin before it is written."""
        self._reached.clear()
        self._marker = epoch
        try:
            yield
        finally:
            self._marker = None  # who gives the switch up lets writes go on: the marker means nothing any more

    async def when_reached(self) -> None:
        """While `expecting`: wait until the marker has been applied, and what had changed since `compare` was compared.

        Raises what ended it: RowsDiffer.
        """
        await self._wait(self._reached)

    async def stand_by(self) -> None:
        """Wait for ever. Raises what ended it: NotOurs, when another leads the move."""
        await self._wait(asyncio.Event())

    @property
    def late(self) -> list[str]:
        """Rows that were written behind the newest marker: past the fence."""
        return [] if self._stream is None else shown(self._stream.tables, self._stream.applier.late)

    async def _ask(self, work: Callable[[Stream], Awaitable[None]]) -> None:
        """Have it done by the stream, between two steps; again, when the stream is opened again meanwhile."""
        done = asyncio.Event()
        self._asked.append((work, done))
        await self._wait(done)

    async def _verify(self, stream: Stream) -> None:
        self.state = State.COMPARING
        done = await stream.verify(self.pace)
        done.raise_if_different()
        self.compared = done.rows
        self.state = State.FOLLOWING

    async def _wait(self, event: asyncio.Event) -> None:
        assert self._task is not None
        waiting = asyncio.create_task(event.wait())
        try:
            await asyncio.wait((waiting, self._task), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if not event.is_set():
            raise self.failure or ReshardError(f"the stream {self._name} has been ended")

    @property
    def _name(self) -> str:
        return f"{self.plan.source.shard} → {self.plan.target.shard}"

    async def _run(self) -> None:
        pause = _PAUSE
        duplicates = 0
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await self._once()
            except NotOurs as error:
                self.state, self.error, self.failure = State.ENDED, str(error), error
                return
            except (BackendError, SqlError, OSError) as error:
                duplicates += isinstance(error, SqlError) and error.code == _DUPLICATE
                if duplicates > (_TRIES if self.plan.alone else 0):
                    self.failure = ReshardError(
                        f"stream {self._name}: {error}: the target has a row that stands in the way of one that comes; "
                        "look whose it is, `resume` when it is gone, or `cancel`"
                    )
                    self.state, self.error = State.ENDED, str(self.failure)
                    return
                self.state, self.error = State.BROKEN, str(error)
                log.warning("stream %s: %s; it is opened again", self._name, error)
            except Exception as error:
                self.state, self.error, self.failure = State.ENDED, str(error), error
                return
            if asyncio.get_running_loop().time() - began > _LONGEST:
                pause, duplicates = _PAUSE, 0
            await asyncio.sleep(pause)
            pause = min(_LONGEST, pause * 2)

    async def _once(self) -> None:
        if self.forward and not self._begun:
            await start_stream(self.plan, self.pace)
            # Never again: when the target knows it no more it was ended, and the rows there may be those that count.
            self._begun = True
        stream = self._stream = await Stream.open(self.plan, self.pace, self.touched)
        self.opened += 1
        try:
            if not stream.copied:
                self.state = State.COPYING
                counting = asyncio.create_task(self._count(stream))
                try:
                    await stream.copy()
                finally:
                    counting.cancel()
            self.state, self.error = State.FOLLOWING, ""
            self._look(stream)
            self._copied.set()
            clock = asyncio.get_running_loop().time
            while True:
                began = clock()
                if not await stream.step() or clock() - began < _SOON:
                    self._level.set()
                self._look(stream)
                if self._asked:
                    work, done = self._asked[0]
                    await work(stream)
                    self._asked.popleft()
                    done.set()
                wanted = None if self._reached.is_set() else self._marker  # once: writes are held meanwhile
                if wanted is not None and (self.plan.name.move_id, wanted) in stream.applier.markers:
                    # Changes are applied; what is stored here is the place behind the marker, from where it is watched.
                    storing = asyncio.create_task(stream.applier.flush())
                    try:
                        await stream.settle()
                    except RowsDiffer:
                        if self._marker == wanted:
                            raise
                    else:
                        await storing
                        self._reached.set()
                    finally:
                        await storing
        finally:
            self._stream = None
            await stream.close()

    async def _count(self, stream: Stream) -> None:
        while True:
            self._look(stream)
            await asyncio.sleep(0.2)

    def _look(self, stream: Stream) -> None:
        self.copied = sum(progress.copied for progress in stream.applier.progress.values())
        self.applied = stream.applier.counts.transactions


def broken(streams: Sequence[Running]) -> str:
    """Why streams stand still, for people; "" when none does."""
    return "; ".join(f"{s._name}: {s.error}" for s in streams if s.state in (State.BROKEN, State.ENDED) and s.error)
