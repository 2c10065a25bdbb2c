"""A move from its present phase to the one that the operator wants: the fourteen steps that were model-checked.

One method a phase; each can be done again from its beginning, whatever became of an earlier run. The half that goes
back is the same with the sides exchanged: the *giver* is the side that has the keys until the next switch.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from shardproxy.errors import MoveError, ShardproxyError, SqlError
from shardproxy.reshard.bookkeeping import Direction, StreamName, open_writer, stream_deletes, transact
from shardproxy.reshard.bookkeeping import stream_inserts as inserts
from shardproxy.reshard.bypass import Bypass, Policy
from shardproxy.reshard.counting import raise_sequence
from shardproxy.reshard.definitions import create_tables, join_keyspace, tables_of
from shardproxy.reshard.eviction import Evictor
from shardproxy.reshard.home_records import copy_records, expect_numbers, hand_numbers_over
from shardproxy.reshard.ledger import Ledger
from shardproxy.reshard.link import Link, LinkLogin, connect
from shardproxy.reshard.proxies import Proxies
from shardproxy.reshard.runner import Running
from shardproxy.reshard.shard_rows import Fence, markers, number, take
from shardproxy.reshard.snapshot import prepared_branches
from shardproxy.reshard.stream import Mutations, StreamPlan, delete_moving
from shardproxy.reshard.throttle import Pace, Unlimited
from shardproxy.reshard.together import together
from shardproxy.reshard.warm_links import WarmLinks
from shardproxy.reshard.watch import watch_inserts
from shardproxy.topology.keys import KeyType
from shardproxy.topology.model import Server, Snapshot, TableKind
from shardproxy.topology.stages import FINAL, Side, Stage, Step

log = logging.getLogger(__name__)
_LAST_WORDS = 10.0  # seconds within which a leader that ends lets writes go on
_BREATH = 0.03  # seconds from the fence's arming until writes are held: some proxies' wait for the one already
_NOTICE = 0.2  # seconds that proxies have for taking the map that lets writes go on, before other work begins


@dataclass(frozen=True)
class Faults:
    """Mistakes on purpose, for tests that must catch them. step: called before and after each step that is stored, with
    "before" or "after", the stage and the step's name (`before copying next`); and before and after an `eviction` and a
    `readmission`, of which the workflow's figures tell a later leader."""

    stream: Mutations = field(default_factory=Mutations)
    no_fence: bool = False
    open_early: bool = False
    step: Callable[[str], Awaitable[None]] | None = None


@dataclass(frozen=True)
class Settings:
    """Seconds. hold: how long writes may be held before the switch is given up for now; settle: pause until it is tried
    again; answer: how long a proxy may take to acknowledge a map before it is shut out, unless it lives and no writes
    are held; back: how long a move that has ended waits for proxies that were shut out.

    bypass: what is done about who writes moving keys directly to their shard; guard: how long it may take to refuse it;
    despite: `complete` deletes the old rows although somebody has written them."""

    hold: float = 1.0
    settle: float = 2.0
    answer: float = 5.0
    back: float = 10.0
    bypass: Policy = "detect"
    guard: float = 30.0
    despite: bool = False


class Orchestrator:
    """Leads one move. `snapshot`: the operator's file, for servers and tables; `login`: of an account that may read the
    binlog and write everywhere. Call `run`, then `close`."""

    def __init__(
        self,
        ledger: Ledger,
        snapshot: Snapshot,
        login: LinkLogin,
        evictor: Evictor,
        pace: Pace | None = None,
        settings: Settings | None = None,
        verify: bool = True,
        faults: Faults | None = None,
    ) -> None:
        self.ledger = ledger
        self.streams: list[Running] = []
        self.held = 0.0  # seconds for which the last switch held writes
        self._snapshot = snapshot
        self._login = login
        self._pace = pace or Unlimited()
        self._settings = settings or Settings()
        self._verify = verify
        self._faults = faults or Faults()
        self._closing_at = 0.0
        self._proxies = Proxies(ledger, evictor, self._settings.answer, self._settings.back, self._faults.step)
        self._warm = WarmLinks(login)
        mistaken = self._faults.no_fence or self._faults.open_early  # what proxies then write is to be lost
        policy: Policy = "ignore" if mistaken else self._settings.bypass
        self._bypass = Bypass(policy, self._settings.despite, self._own, login, self._tell)
        self._labels: dict[int, list[str]] = {}  # tables of each stream back; none: not warmed up
        self._has_tokens = False

    # ── what is led ──

    @property
    def _giver(self) -> Side:
        return Side.TARGET if self.ledger.stage.reverse else Side.SOURCE

    @property
    def _ident(self) -> int:
        return self.ledger.workflow.id

    def _name(self, index: int, direction: Direction) -> StreamName:
        return StreamName(number(self._ident, index), direction, self.ledger.workflow.generation)

    @property
    def _own(self) -> StreamName:
        """For transactions of the move as a whole; its number is that of the fence."""
        return StreamName(self._ident, "forward", self.ledger.workflow.generation)

    def _plan(self, index: int, direction: Direction) -> StreamPlan:
        stream = self.ledger.workflow.plan.streams[index]
        keyspace = self._snapshot.keyspaces[self.ledger.workflow.keyspace]
        tables: tuple[tuple[str, str], ...] = tuple(
            (table.name, table.key)
            for table in keyspace.tables.values()
            if table.kind is TableKind.SHARDED and table.key is not None
        )
        lone = self.ledger.workflow.plan.table
        if lone is not None:  # sharded only after the switch
            tables = ((lone.name, lone.before or lone.key),)
        also = None
        if lone is not None and lone.before is not None:
            taken = next(s.keys for s in self.ledger.workflow.plan.streams if s.source == stream.target)
            also = lone.key, taken.moving(keyspace.key_type)
        references = tuple(table.name for table in keyspace.tables.values() if table.kind is TableKind.REFERENCE)
        forth = direction == "forward"
        return StreamPlan(
            self._name(index, direction),
            self._server(stream.source if forth else stream.target),
            self._server(stream.target if forth else stream.source),
            self._login,
            keyspace.name,
            tables,
            stream.keys.moving(keyspace.key_type),
            # Never back: from the switch on the application writes reference tables on both sides.
            references if stream.references and forth else (),
            None if stream.entries is None else stream.entries.moving(KeyType.BINARY),
            mutations=self._faults.stream,
            alone=lone is not None,
            also=also,
        )

    def _plans(self, direction: Direction) -> list[StreamPlan]:
        return [self._plan(index, direction) for index in self._indexes]

    def _server(self, shard: str) -> Server:
        return self._snapshot.shards[self._snapshot.shard_index(shard)].primary

    @property
    def _indexes(self) -> range:
        return range(len(self.ledger.workflow.plan.streams))

    def _shards(self, side: Side) -> list[str]:
        return sorted({stream.shard(side) for stream in self.ledger.workflow.plan.streams})

    def _forth(self, giver: Side) -> Direction:
        """The direction of streams from the giver to the other side."""
        return "forward" if giver is Side.SOURCE else "reverse"

    # ── the loop ──

    async def run(self, until: Callable[[Stage], bool], complete: bool = False) -> None:
        """Lead the move on until `until` says of a stage that it is far enough, or it is OPEN. complete: go on from
        there, to where there is no way back. Raises ShardproxyError."""
        await self._take_tokens()
        try:
            while not until(self.ledger.stage) and self.ledger.stage not in FINAL:
                if self.ledger.stage is not Stage.OPEN:
                    await self._work(self.ledger.stage)
                elif complete:
                    await self.opened()
                    await self._bypass.none()
                    await self.proceed(Step.NEXT)
                else:
                    break
        except BaseException as error:
            await asyncio.shield(self._let_writes_go(error))
            raise
        await self._proxies.readmit()
        if self.ledger.stage in FINAL:
            await self._proxies.see_off()

    async def _let_writes_go(self, error: BaseException) -> None:
        """Whatever ends our work while writes are held: they do not wait for somebody to look."""
        if not self._closing_at:
            return
        with contextlib.suppress(ShardproxyError, TimeoutError):
            async with asyncio.timeout(_LAST_WORDS):
                if self.ledger.stage in (Stage.CLOSING, Stage.REVERSE_CLOSING):
                    self._closing_at = 0.0
                    await self.proceed(Step.TIME_OUT, what=str(error) or "the orchestrator was stopped")
                elif self.ledger.stage in (Stage.SWITCHED, Stage.REVERSE_SWITCHED):
                    await self._switched()  # from here on only forward

    async def reverse(self) -> None:
        """From OPEN: take the move back, when what was written since the switch has reached the old owners."""
        await self.opened()
        await asyncio.gather(*(stream.when_copied() for stream in self.streams))
        await self._compared()
        await self._bypass.close()  # soon the old owners are written again, and rightly
        await self._warm_up(Side.TARGET)
        await self.proceed(Step.REVERSE)

    @property
    def slowed(self) -> str:
        """Why copying goes slowly, for people."""
        return self._pace.why

    async def close(self) -> None:
        """End the streams; the move stays where it is."""
        self._cool_down()
        streams, self.streams = self.streams, []
        await asyncio.gather(self._bypass.close(), *(stream.close() for stream in streams))

    async def _work(self, phase: Stage) -> None:
        match phase:
            case Stage.PREPARED:
                await self._prepared()
            case Stage.COPYING:
                await self._copying()
            case Stage.ARMED | Stage.REVERSE_ARMED:
                await self._armed()
            case Stage.CLOSING | Stage.REVERSE_CLOSING:
                await self._closing()
            case Stage.SWITCHED | Stage.REVERSE_SWITCHED:
                await self._switched()
            case Stage.REVERSE_OPEN:
                await self._watch()
                await self._bypass.none()
                await self.proceed(Step.NEXT)
            case Stage.COMPLETING | Stage.REVERSE_COMPLETING:
                await self._completing()
            case Stage.CANCELLING:
                await self._cancelling()
            case _:
                raise MoveError(f"move {self._ident} is {phase.value}: nothing is left to do")

    async def proceed(self, step: Step, positions: Mapping[str, str] | None = None, what: str = "") -> None:
        """Take a step, in one compare-and-set."""
        # A power cut may take OPEN back to SWITCHED, from where there is one way only. All others last: of CLOSING the
        # fence knows, of SWITCHED the shards.
        lasting = self.ledger.stage not in (Stage.SWITCHED, Stage.REVERSE_SWITCHED)
        taken = f"{self.ledger.stage.value} {step.value}"
        await self._fault(f"before {taken}")
        await self.ledger.proceed(step, positions, what, lasting)
        log.info("move %s is %s", self._ident, self.ledger.stage.value)
        await self._fault(f"after {taken}")

    async def _fault(self, where: str) -> None:
        if self._faults.step is not None:
            await self._faults.step(where)

    # ── R1 ──

    async def _take_tokens(self) -> None:
        """Our generation on all shards of the move, before anything else is done there (R1). It is the same for as long
        as we lead, and a way back begins with writes that wait for the fence: once is enough."""
        if self._has_tokens:
            return
        idents = [self._ident, *(number(self._ident, index) for index in self._indexes)]
        for shard in sorted({*self._shards(Side.SOURCE), *self._shards(Side.TARGET)}):
            async with await open_writer(self._server(shard), self._login) as link:
                await take(link, self.ledger.workflow.keyspace, idents, self.ledger.workflow.generation)
        self._has_tokens = True

    # ── the phases ──

    async def _prepared(self) -> None:
        """Step 1."""
        for index in self._indexes:
            plan = self._plan(index, "forward")
            await create_tables(plan)
            if self.ledger.workflow.plan.streams[index].references:
                await join_keyspace(plan)
        home = self.ledger.move.home
        if home is not None:
            await expect_numbers(self._server(home), self._login, self._own, self.ledger.workflow.keyspace)
        await self._proxies.barrier()
        await self.proceed(Step.NEXT)

    async def follow(self, direction: Direction) -> None:
        """Have the streams of this direction running, and no others."""
        if self.streams and self.streams[0].plan.name.direction == direction:
            return
        await self.close()
        self.streams = [Running(plan, self._pace, direction == "forward") for plan in self._plans(direction)]
        for stream in self.streams:
            stream.begin()

    async def copied(self) -> None:
        """COPYING: have the forward streams running until all rows are copied. Raises what ended one."""
        for plan in self._plans("reverse"):  # one that a time-out has left would send everything back
            async with await open_writer(plan.target, self._login) as link:
                await transact(link, plan.name, None, stream_deletes(plan.name))
        await self._bypass.unguard_stale(self._plans("forward"))
        await self.follow("forward")
        for stream in self.streams:
            await stream.when_copied()

    async def stand_by(self) -> None:
        """Keep the streams running until cancelled. Raises what ends one: NotOurs, when another leads the move."""
        await asyncio.gather(*(stream.stand_by() for stream in self.streams))

    async def opened(self) -> None:
        """OPEN: have the streams back running, so that the move can be reversed."""
        await self._end_streams("forward")  # one that a time-out of the reverse half has left
        await self.follow("reverse")
        await self._watch()
        await self._guard()

    async def _watch(self) -> None:
        """Have those shards watched that gave the keys away."""
        await self._bypass.watch(self._plans(self._forth(self._giver)))

    async def _guard(self) -> None:
        """Have writes past the proxies refused at the shards that give the keys away, if that is wanted."""
        plans = self._plans(self._forth(self._giver))
        await self._bypass.guard(plans, await self.ledger.accounts(), self._settings.guard)

    async def _tell(self, text: str) -> None:
        await self.ledger.note(problem=text)

    async def _copying(self) -> None:
        await self.copied()
        await self._compared()
        await self._warm_up(Side.SOURCE)
        await self.proceed(Step.NEXT)

    async def _compared(self) -> None:
        """Both sides are compared, but for little that has changed since, and the streams are level."""
        if self._verify and not all(stream.touched.whole for stream in self.streams):
            await self.verify()
        await asyncio.gather(*(stream.when_level() for stream in self.streams))
        if self._verify:
            await asyncio.gather(*(stream.sweep() for stream in self.streams))

    async def verify(self) -> None:
        """Compare the moving rows of both sides, each stream at a position of its own. Raises RowsDiffer."""
        await asyncio.gather(*(stream.compare() for stream in self.streams))
        rows = sum(stream.compared for stream in self.streams)
        await self.ledger.note(figures={**self.ledger.workflow.figures, "verified_rows": rows})

    def _fence(self, shard: str) -> Fence:
        return Fence(self._server(shard), self._ident, self._own)

    async def _armed(self) -> None:
        """Step 5."""
        giver = self._giver
        await self.follow(self._forth(giver))
        epoch = self.ledger.move.fence
        assert epoch is not None
        home = self.ledger.move.home
        if home is not None:
            now, then = self._server(self.ledger.document.home), self._server(home)
            await copy_records(now, then, self._login, self._own, self.ledger.workflow.keyspace)
        if not self._labels:  # led anew
            await self._warm_up(giver)
        await together(self._arm(shard, epoch) for shard in self._shards(giver))
        loop = asyncio.get_running_loop()
        breath = loop.time() + _BREATH
        await self._proxies.barrier()
        await together(map(self._branches_resolved, self._shards(giver)))
        await self._guard()
        await self._lay_back()
        await asyncio.sleep(breath - loop.time())
        self._closing_at = loop.time()
        await self.proceed(Step.NEXT)

    async def _warm_up(self, giver: Side) -> None:
        """What a switch needs and can have before: connections, names, no garbage to collect. Proxies ask for the
        fence as soon as the map says that it is armed, and writes of moving keys wait until it is."""
        plans = self._plans(self._forth(giver.other))
        await self._warm.have(server for plan in plans for server in (plan.source, plan.target))
        for index, plan in enumerate(plans):
            async with self._warm.writer(plan.target) as link:
                self._labels[index] = [shape.label for shape in await plan.shapes(link)]
                await link.query(b"COMMIT")
        for shard in self._shards(giver):
            async with self._warm.writer(self._server(shard)) as link:
                await self._fence(shard).lay(link)
        gc.collect()  # or it is due while writes are held, for some hundredths of a second

    def _cool_down(self) -> None:
        self._warm.close()
        self._labels.clear()

    async def _arm(self, shard: str, epoch: int) -> None:
        async with self._warm.writer(self._server(shard)) as link:
            await self._fence(shard).arm(link, epoch)

    async def _branches_resolved(self, shard: str) -> None:
        """Branches that were prepared before the fence was armed hold nothing of it: wait until they are over."""
        async with self._warm.writer(self._server(shard)) as link:
            left = await prepared_branches(link)
            while left:
                await asyncio.sleep(0.05)
                left &= await prepared_branches(link)

    async def _lay_back(self) -> None:
        """Step 8: the streams back, from where the takers are now. What will still come to them comes by our own
        transactions, which streams leave out, and nobody else writes the moving keys there before the switch."""
        back: Direction = self._forth(self._giver.other)

        async def lay(index: int) -> None:
            plan = self._plan(index, back)
            async with self._warm.writer(plan.source) as taker:
                position = await present_position(taker)
            row = inserts(plan.name, plan.source.shard, position, self._labels[index], True)
            async with self._warm.writer(plan.target) as link:
                await transact(link, plan.name, None, [*stream_deletes(plan.name), *row])

        await together(map(lay, self._indexes))

    async def _closing(self) -> None:
        """Steps 6, 7 and 10, the point of no return. A new orchestrator gives up what another had begun: its fence may
        be half closed."""
        giver = self._giver
        epoch = self.ledger.move.fence
        assert epoch is not None
        if not self._closing_at:
            await self.proceed(Step.TIME_OUT, what="another orchestrator has gone on")
            return
        await self.follow(self._forth(giver))
        try:
            async with asyncio.timeout_at(self._closing_at + self._settings.hold):
                await self._drained(epoch)
                # Rows that have come until now are what a replica must have, no later ones.
                takers = self._shards(giver.other)
                positions = dict(zip(takers, await together(map(self._position, takers)), strict=True))
                await self._count_on()
        except (TimeoutError, SqlError) as error:
            await self._give_up(f"writes were held for {self._settings.hold:g} s ({error or 'a transaction goes on'})")
            return
        self._bypass.none_late(self.streams)
        await self.proceed(Step.NEXT, positions)

    async def _drained(self, epoch: int) -> None:
        """All that was written is at the takers."""
        with ExitStack() as expecting:
            for stream in self.streams:
                expecting.enter_context(stream.expecting(epoch))
            await together(self._close(shard, epoch) for shard in self._shards(self._giver))
            await asyncio.gather(*(stream.when_reached() for stream in self.streams))

    async def _close(self, shard: str, epoch: int) -> None:
        streams = [s.plan.name.move_id for s in self.streams if s.plan.source.shard == shard]
        async with self._warm.writer(self._server(shard)) as link:
            if self._faults.no_fence:
                await transact(link, self._own, None, [markers(streams, epoch)])
            else:
                await self._fence(shard).close(link, epoch, streams)

    async def _position(self, shard: str) -> str:
        async with self._warm.writer(self._server(shard)) as link:
            return await present_position(link)

    async def _give_up(self, why: str) -> None:
        """Step 9: let writes go on, and try again later."""
        self._closing_at = 0.0
        await self.proceed(Step.TIME_OUT, what=why)
        await self.ledger.note(problem=f"the switch was given up for now: {why}")
        await asyncio.sleep(self._settings.settle)

    async def _count_on(self) -> None:
        """The sequence of a table that becomes a sharded one goes on from its server's numbers."""
        lone = self.ledger.workflow.plan.table
        if lone is not None and lone.before is None and self._giver is Side.SOURCE:
            keyspace = self._snapshot.keyspaces[self.ledger.workflow.keyspace]
            [home] = self._shards(Side.SOURCE)
            first = self._snapshot.shards[keyspace.home].primary
            await raise_sequence(self._server(home), first, self._login, keyspace.name, lone.name)

    async def _switched(self) -> None:
        """Step 11."""
        giver = self._giver
        forth = self._forth(giver)
        # They find no row of their own any more, and apply nothing.
        streams, self.streams = self.streams, []
        try:
            home = self.ledger.move.home
            if home is not None:
                now, before = self._server(self.ledger.document.home), self._server(home)
                await hand_numbers_over(before, now, self._login, self._own, self.ledger.workflow.keyspace)
            ended = asyncio.create_task(self._end_streams(forth, watched=True))
            try:
                if not self._faults.open_early:
                    await self._proxies.barrier()
            finally:
                await ended
            await self.proceed(Step.NEXT)
            held_since, self._closing_at = self._closing_at, 0.0
            if held_since:
                self.held = asyncio.get_running_loop().time() - held_since
                # What comes next, processes that read binlogs or end, is to be no burden while writes are let go.
                await self._proxies.noticed(_NOTICE)
        finally:
            await asyncio.gather(*(stream.close() for stream in streams))
            self._cool_down()
        if held_since:
            await self.ledger.note(problem="", figures={**self.ledger.workflow.figures, "held_seconds": self.held})

    async def _end_streams(self, direction: Direction, watched: bool = False) -> None:
        """watched: keep their places, from which on the other side is watched."""
        await together(self._end_stream(plan, watched) for plan in self._plans(direction))

    async def _end_stream(self, plan: StreamPlan, watched: bool) -> None:
        async with self._warm.writer(plan.target) as link:
            kept = watch_inserts(plan.name) if watched else []
            await transact(link, plan.name, None, [*kept, *stream_deletes(plan.name)])

    async def _delete_rows(self, side: Side) -> dict[str, str]:
        """Delete the moving rows of one side, and tell its shards' positions after that. Raises ReshardError when it is
        watched, and somebody has written them directly."""
        direction = self._forth(side.other)
        positions = {}
        for index in self._indexes:
            plan = self._plan(index, direction)
            async with await open_writer(plan.target, self._login) as link:
                there = await tables_of(link, plan.database)
                # It may be cancelled before they were made; and who has joined keeps reference tables.
                whole = plan.references if self.ledger.stage is Stage.CANCELLING else ()
                made = replace(
                    plan,
                    tables=tuple(table for table in plan.tables if table[0] in there),
                    references=tuple(table for table in whole if table in there),
                )
                for shape in await made.shapes(link):
                    sure = self._bypass.sure(self._name(index, self._forth(side)))
                    await delete_moving(link, plan.name, shape, plan.moving, self._pace, sure=sure)
        for shard in self._shards(side):
            async with await connect(self._server(shard), self._login) as link:
                positions[shard] = await present_position(link)
        return positions

    async def _completing(self) -> None:
        """Step 12: the side that gave the keys away loses its rows, after the stream that would carry that back."""
        giver = self._giver
        await self.close()
        await self._end_streams(self._forth(giver.other))
        await self._watch()
        await self._bypass.none()
        positions = await self._delete_rows(giver)
        await self._bypass.none()  # what came behind the deletion is still there
        await self._bypass.unguard(self._plans("forward"), self._settings.guard)
        await self.proceed(Step.NEXT, positions)
        await self._bypass.forget([*self._plans("forward"), *self._plans("reverse")])

    async def _cancelling(self) -> None:
        """Step 14."""
        await self.close()
        await self._bypass.unguard(self._plans("forward"), self._settings.guard)
        await self._end_streams("forward")
        await self._end_streams("reverse")
        await self.proceed(Step.NEXT, await self._delete_rows(Side.TARGET))


async def present_position(link: Link) -> str:
    """The position that a server's binlog has now, as text."""
    sql = b"SELECT @@GLOBAL.gtid_binlog_pos" if link.is_mariadb else b"SELECT @@GLOBAL.gtid_executed"
    [text] = (await link.query(sql)).one()
    return (text or b"").decode().replace("\n", "")
