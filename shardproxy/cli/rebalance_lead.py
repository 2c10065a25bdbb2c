"""`shardctl rebalance run` and its kin: leading a move, and telling one that is led what to do."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.text import Text

from shardproxy.admin import migrations
from shardproxy.admin.rebalance.plan import Plan, make_plan
from shardproxy.backend.control import Credentials
from shardproxy.cli import rebalance as goals
from shardproxy.cli.rebalance import app
from shardproxy.cli.terminal import (
    DEFAULT_CONFIG,
    ConfigOption,
    Exit,
    JsonOption,
    ends_with_status,
    note,
    print_json,
    read_config,
    stderr,
    stdout,
    table,
)
from shardproxy.config import Config
from shardproxy.errors import GoalError, MoveError, ShardproxyError, StoreConflict
from shardproxy.reshard.eviction import Evictor
from shardproxy.reshard.leading import (
    Wishes,
    leading,
    new_owner,
    stored_loads_of,
    stored_maps,
    stored_maps_of,
    whole_snapshot,
)
from shardproxy.reshard.ledger import Ledger, WithoutMove, all_moves, begin, change_without_move, read_move
from shardproxy.reshard.orchestrator import Orchestrator
from shardproxy.reshard.readmission import readmit as let_in
from shardproxy.reshard.throttle import ThrottleLimits
from shardproxy.store.interface import Condition, MapStore, Put
from shardproxy.store.opening import open_store
from shardproxy.topology import workflow as workflows
from shardproxy.topology.build import build_snapshot
from shardproxy.topology.carried import next_home, written_down
from shardproxy.topology.goals import AddShard, Goal
from shardproxy.topology.map_document import Stream, TableMove
from shardproxy.topology.map_form import NamedRange, form_of
from shardproxy.topology.stages import FINAL, Stage, Step
from shardproxy.topology.stored import PROXIES, move_key
from shardproxy.topology.workflow import Plan as MovePlan
from shardproxy.topology.workflow import Workflow

MoveArgument = Annotated[int, typer.Argument(help="The move's number, as `status` shows it.", metavar="MOVE")]
Hold = Annotated[float, typer.Option("--hold", min=0.05, help="Seconds that writes may wait at a switch.")]
Rate = Annotated[int, typer.Option("--throttle", min=0, help="Most rows per second, all streams; 0: no limit.")]
Gently = Annotated[
    bool,
    typer.Option("--gentle/--no-gentle", help="Go slower where servers answer an application later by it."),
]
Lag = Annotated[float, typer.Option("--max-lag", min=0, help="Wait while a replica is so many seconds behind.")]
Threads = Annotated[int, typer.Option("--max-threads", min=0, help="Wait while a primary runs more; 0: no limit.")]
Auto = Annotated[bool, typer.Option("--auto", help="Switch and complete without asking, if all checks pass.")]
Follow = Annotated[bool, typer.Option("--follow/--no-follow", help="Keep the streams back running until Ctrl-C.")]
_PLAIN_EVERY = 5.0  # seconds between two lines where stderr is no terminal

Work = Callable[[Orchestrator], Awaitable[None]]


def lead(config: Config, begin: Callable[[MapStore], Awaitable[Ledger]], work: Work, wishes: Wishes) -> None:
    """Lead a move as `work` says, and show how it goes. Raises ShardproxyError."""

    async def go() -> None:
        async with leading(config, begin, wishes) as orchestrator, _shown(orchestrator):
            await work(orchestrator)

    asyncio.run(go())


def claimed(move: int) -> Callable[[MapStore], Awaitable[Ledger]]:
    """Take the lead of a move from whoever has it."""

    async def claim(store: MapStore) -> Ledger:
        return await Ledger.claim(store, move, new_owner(), time.time)

    return claim


async def to_the_switch(orchestrator: Orchestrator) -> None:
    """Everything before writes are fenced: the rows are copied, and changes follow."""
    await orchestrator.run(lambda stage: stage is Stage.COPYING or stage.reverse or stage in _SWITCHED)
    if orchestrator.ledger.stage is Stage.COPYING:
        await orchestrator.copied()


_SWITCHED = frozenset((Stage.SWITCHED, Stage.OPEN, Stage.COMPLETING, *FINAL))


async def switch_over(orchestrator: Orchestrator) -> None:
    """Until the new owners take writes."""
    await orchestrator.run(lambda stage: stage is Stage.OPEN)


async def followed(orchestrator: Orchestrator) -> None:
    """OPEN: the streams back, for ever."""
    await orchestrator.opened()
    await orchestrator.stand_by()


@app.command()
@ends_with_status
def run(
    keyspace: goals.KeyspaceArgument,
    add_shard: goals.AddShards = [],  # noqa: B006 — typer wants lists
    remove_shard: goals.RemoveShards = [],  # noqa: B006
    evacuate: goals.Evacuate = [],  # noqa: B006
    weights: goals.Weights = [],  # noqa: B006
    move_bucket: goals.MoveBucket = [],  # noqa: B006
    move_range: goals.MoveRange = [],  # noqa: B006
    split_range: goals.SplitRange = [],  # noqa: B006
    merge_ranges: goals.MergeRanges = [],  # noqa: B006
    shift: goals.Shift = [],  # noqa: B006
    even: goals.Even = False,
    by_load: goals.ByLoad = False,
    to_map: goals.ToMap = "",
    shard_table: goals.ShardTable = "",
    change_key: goals.ChangeKey = "",
    weight: goals.Weight = 1,
    measure_time: goals.MeasureTime = 10.0,
    config: ConfigOption = DEFAULT_CONFIG,
    auto: Auto = False,
    throttle: Rate = 0,
    max_lag: Lag = 10.0,
    max_threads: Threads = 0,
    hold: Hold = 1.0,
    gentle: Gently = True,
) -> None:
    """Plan a move, and lead it: rows are copied and changes follow, while the application goes on.

    The goals are those of `plan`. A plan with findings that refuse it is not run. Before the switch it waits for
    `switch`, unless --auto. Beside an application it goes so slowly that the servers answer nearly as soon as before,
    at 500 rows/s at least; with --no-gentle as fast as it can. Ctrl-C leaves the move as it is; `resume` goes on,
    `cancel` gives it up.

    Examples:
      shardctl rebalance run orders --split-range 5000000=c
      shardctl rebalance run main --remove-shard b --auto --throttle 20000
    """
    settings = read_config(config)
    try:
        wanted = goals.goals_of(
            add_shard, remove_shard, evacuate, weights, move_bucket, move_range, split_range, merge_ranges, shift, even,
            by_load, to_map, shard_table, change_key, weight,
        )  # fmt: skip
        found = asyncio.run(_planned(settings, keyspace, wanted, measure_time))
    except GoalError as error:
        note(str(error))
        raise typer.Exit(Exit.UNUSABLE) from None
    goals.show(found)
    if found.refused:
        raise typer.Exit(Exit.FAILED)
    names = [shard.name for shard in found.change.shards]
    if not found.change.streams:
        if found.change.opened or found.change.left:
            asyncio.run(_without_move(settings, keyspace, found))
        return
    known = {shard.name for shard in build_snapshot(settings).shards}
    unknown = sorted({names[shard] for s in found.change.streams for shard in (s.source, s.target)} - known)
    if unknown:
        note(f"write {', '.join(unknown)} into [shards] of every proxy's file first, and restart them one by one")
        raise typer.Exit(Exit.UNUSABLE)
    said = " ".join(word for word in sys.argv[1:] if word.startswith("--") or "=" in word)
    plan = move_of(found, said or "even")

    async def start(store: MapStore) -> Ledger:
        if not (await store.list(PROXIES)).entries:
            raise MoveError(
                "no proxy has registered in this map store ([store]): one that reads its map from elsewhere would "
                "write to the old owners after the switch. Start the proxies with this store first"
            )
        ledger = await begin(store, keyspace, new_owner(), plan, time.time)
        note(f"move {ledger.workflow.id} begins")
        return ledger

    limits = ThrottleLimits(throttle, max_lag, max_threads, gentle=gentle)
    lead(settings, start, led(auto), Wishes(limits, hold))


async def _without_move(settings: Config, keyspace: str, found: Plan) -> None:
    home = found.snapshot.shards[found.before.home].name
    lookups = written_down(found.snapshot, found.before)
    store = await open_store(settings)
    try:
        await change_without_move(store, keyspace, WithoutMove(_opened(found), home, lookups, _keyless(found)))
    finally:
        await store.close()
    stdout().print("the map is changed")


def _opened(found: Plan) -> tuple[NamedRange, ...]:
    names = [shard.name for shard in found.change.shards]
    return tuple(NamedRange(r.start, r.end, names[r.shard]) for r in found.change.opened)


def _keyless(found: Plan) -> tuple[str, ...]:
    return tuple(sorted(found.change.shards[shard].name for shard in found.change.keyless))


def move_of(found: Plan, goal: str) -> MovePlan:
    """A plan as the map store has it. goal: in words."""
    change = found.change
    names = [shard.name for shard in change.shards]
    table = change.table
    home = next_home(found.before, change)
    return MovePlan(
        goal=goal,
        streams=tuple(Stream.of(stream, names) for stream in change.streams),
        home=names[found.before.home],
        lookups=written_down(found.snapshot, found.before),
        other=form_of(change.after, names) if change.other_kind else None,
        table=TableMove(name=table.name, key=table.key, before=found.key_before) if table else None,
        next_home=None if home is None else names[home],
        opened=_opened(found),
        keyless=None if table else _keyless(found),
    )


async def _planned(settings: Config, keyspace: str, wanted: list[Goal], measure_time: float) -> Plan:
    joining = {goal.name for goal in wanted if isinstance(goal, AddShard)}
    await _migrated(settings, joining)
    maps, loads = await stored_maps_of(settings), await stored_loads_of(settings, keyspace)
    return await make_plan(settings, keyspace, wanted, measure_time, None, maps, loads)


async def _migrated(settings: Config, joining: set[str]) -> None:
    """Make the bookkeeping tables on shards that join. Raises ShardproxyError."""
    snapshot = build_snapshot(settings)
    there = replace(snapshot, shards=tuple(shard for shard in snapshot.shards if shard.name in joining))
    files = migrations.read_migrations(migrations.migrations_folder())
    for report in await migrations.migrate(there, Credentials.of_moves(settings), 30.0, files):
        if report.error:
            raise ShardproxyError(f"{report.shard}: shardctl migrate: {report.error}")


@app.command()
@ends_with_status
def resume(
    move: MoveArgument, config: ConfigOption = DEFAULT_CONFIG, auto: Auto = False, throttle: Rate = 0,
    max_lag: Lag = 10.0, max_threads: Threads = 0, hold: Hold = 1.0, gentle: Gently = True,
) -> None:  # fmt: skip
    """Lead a move on from where it is, after Ctrl-C, a crash, or `pause`.

    Whoever led it before stops. Without --auto it stays before the switch, its changes following, until Ctrl-C.
    """
    wishes = Wishes(ThrottleLimits(throttle, max_lag, max_threads, gentle=gentle), hold)
    lead(read_config(config), claimed(move), led(auto), wishes)


def led(auto: bool) -> Work:
    """What `run` and `resume` do."""

    async def work(orchestrator: Orchestrator) -> None:
        await orchestrator.ledger.note(paused=False)
        move = orchestrator.ledger.workflow.id
        if auto:
            await orchestrator.run(lambda stage: False, complete=True)
            stdout().print(f"move {move}: {orchestrator.ledger.stage.value}")
            return
        await to_the_switch(orchestrator)
        stage = orchestrator.ledger.stage
        if stage is Stage.COPYING:
            note(f"all rows are copied: `shardctl rebalance switch {move}` when you like; Ctrl-C leaves it as it is")
            await orchestrator.stand_by()
        if stage is Stage.OPEN:
            note(f"move {move} has switched: `complete {move}` ends it, `reverse {move}` takes it back")
            await followed(orchestrator)
        await orchestrator.run(lambda now: now in FINAL)

    return work


@app.command()
@ends_with_status
def verify(move: MoveArgument, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Compare the moving rows of both sides, all columns; `switch` and --auto do so too. Writers go on meanwhile.

    A difference is shown and ends the command with status 1; nothing is switched.
    """

    async def work(orchestrator: Orchestrator) -> None:
        if orchestrator.ledger.stage is Stage.OPEN:
            await orchestrator.opened()
            await asyncio.gather(*(stream.when_copied() for stream in orchestrator.streams))
        else:
            await to_the_switch(orchestrator)
        await orchestrator.verify()
        stdout().print(f"move {move}: {orchestrator.ledger.workflow.figures['verified_rows']:,} rows are equal")

    lead(read_config(config), claimed(move), work, Wishes())


@app.command()
@ends_with_status
def switch(move: MoveArgument, config: ConfigOption = DEFAULT_CONFIG, hold: Hold = 1.0, follow: Follow = False) -> None:
    """Let the new owners take over: writes to the moving keys wait for a moment, reads do not.

    First what is still to be copied is copied. When writes would wait longer than --hold, they go on at the old owner,
    and it is tried again. Afterwards `reverse` takes it back and `complete` ends it; --follow keeps the streams back
    running meanwhile.
    """

    async def work(orchestrator: Orchestrator) -> None:
        await switch_over(orchestrator)
        stdout().print(f"move {move}: open; writes waited for {orchestrator.held * 1000:.0f} ms")
        if follow:
            await followed(orchestrator)

    lead(read_config(config), claimed(move), work, Wishes(hold=hold))


@app.command()
@ends_with_status
def reverse(
    move: MoveArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    hold: Hold = 1.0,
    verify: Annotated[bool, typer.Option(help="Compare all moving rows of both sides first.")] = True,
) -> None:
    """Take a move back that has switched and is not completed: the same switch, the other way.

    --no-verify is for when it must be quick: it relies on the stream that has followed since the switch.
    """

    async def work(orchestrator: Orchestrator) -> None:
        await orchestrator.run(lambda stage: stage is Stage.OPEN or stage.reverse)
        while orchestrator.ledger.stage not in FINAL:
            if orchestrator.ledger.stage is Stage.OPEN:  # also when it was given up for a moment: again
                await orchestrator.reverse()
            await orchestrator.run(lambda stage: False)
        stdout().print(f"move {move}: {orchestrator.ledger.stage.value}")

    lead(read_config(config), claimed(move), work, Wishes(hold=hold, verify=verify))


@app.command()
@ends_with_status
def complete(
    move: MoveArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    throttle: Rate = 0,
    gentle: Gently = True,
    despite: Annotated[
        bool, typer.Option("--despite-direct-writes", help="Delete rows too that somebody wrote there directly.")
    ] = False,
) -> None:
    """End a move that has switched: the old owners' rows are deleted. There is no way back then.

    When somebody has written moved rows to an old owner directly since the switch, past the proxies, nothing of them is
    deleted: they are shown, and it ends with status 1.
    """

    async def work(orchestrator: Orchestrator) -> None:
        stage = orchestrator.ledger.stage
        if stage not in (Stage.OPEN, Stage.COMPLETING) and not stage.reverse:
            raise MoveError(f"move {move} is {stage.value}: switch first, or cancel it")
        await orchestrator.run(lambda stage: False, complete=True)
        stdout().print(f"move {move}: {orchestrator.ledger.stage.value}")

    limits = ThrottleLimits(throttle, gentle=gentle)
    lead(read_config(config), claimed(move), work, Wishes(limits, despite=despite))


@app.command()
@ends_with_status
def cancel(move: MoveArgument, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Give up a move that has not switched: what was copied is deleted."""

    async def work(orchestrator: Orchestrator) -> None:
        if orchestrator.ledger.stage is not Stage.CANCELLING:
            await orchestrator.proceed(Step.CANCEL)
        await orchestrator.run(lambda stage: False)
        stdout().print(f"move {move}: {orchestrator.ledger.stage.value}")

    lead(read_config(config), claimed(move), work, Wishes())


@app.command()
@ends_with_status
def readmit(
    account: Annotated[
        str, typer.Argument(help="Let this one in although a proxy that was shut out has not come back.")
    ] = "",
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Let proxies in again that were shut out because they did not acknowledge a map, and have come back since.

    Whoever leads a move does so too; this is for those that come back after its end. Name an account only when you know
    that no process that was shut out with it is left: one that is only stopped would go on, and write to old owners.

    Exit status 1 when accounts are still locked.
    """
    back, left = asyncio.run(_readmit(read_config(config), account))
    for name in sorted(back):
        stdout().print(f"{name} is let in again")
    for name in sorted(left):
        note(f"{name} is still locked: its proxy has not come back")
    if left:
        raise typer.Exit(Exit.FAILED)
    if not back:
        stdout().print("no account is locked")


async def _readmit(config: Config, account: str) -> tuple[frozenset[str], frozenset[str]]:
    store = await open_store(config)
    try:
        maps = await stored_maps(store)
        primaries = [shard.primary for shard in (await whole_snapshot(config, maps)).shards]
        return await let_in(store, Evictor(store, primaries, Credentials.of_moves(config)), maps, account)
    finally:
        await store.close()


# ── a word to whoever leads it ──


@app.command()
@ends_with_status
def pause(move: MoveArgument, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Stop copying for now; changes go on following. `resume` goes on."""
    asyncio.run(_tell(read_config(config), move, paused=True))
    stdout().print(f"move {move}: paused")


@app.command()
@ends_with_status
def throttle(
    move: MoveArgument,
    rate: Annotated[int, typer.Argument(min=0, help="Most rows per second, all streams; 0: no limit.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Let a move that is led go faster or slower from now on."""
    asyncio.run(_tell(read_config(config), move, rate=rate))
    stdout().print(f"move {move}: " + (f"at most {rate} rows/s" if rate else "no limit"))


async def _tell(config: Config, move: int, rate: int | None = None, **changes: Any) -> None:
    store = await open_store(config)
    try:
        while True:
            workflow, version = await read_move(store, move)
            if workflow.ended:
                raise MoveError(f"move {move} is {workflow.stage.value}")
            if rate is not None:
                changes["figures"] = {**workflow.figures, "rate": rate}
            after = workflows.note(workflow, **changes)
            key = move_key(move)
            with suppress(StoreConflict):
                await store.commit([Condition(key, version)], [Put(key, after.document())])
                return
    finally:
        await store.close()


# ── looking ──


@app.command()
@ends_with_status
def status(
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="Again every second, until Ctrl-C.")] = False,
) -> None:
    """Moves that are under way. Exit status 1 when one stands still because of a problem."""
    settings = read_config(config)
    while True:
        found = [workflow for workflow in asyncio.run(_moves(settings)) if not workflow.ended]
        if as_json:
            print_json({"moves": [workflow.document() for workflow in found]})
        elif found:
            stdout().print(_listed(found))
        else:
            stdout().print("no move is under way")
        if not watch:
            break
        time.sleep(1)
    if any(workflow.problem for workflow in found):
        raise typer.Exit(Exit.FAILED)


@app.command()
@ends_with_status
def history(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Moves that have ended, with their figures."""
    found = [workflow for workflow in asyncio.run(_moves(read_config(config))) if workflow.ended]
    if as_json:
        print_json({"moves": [workflow.document() for workflow in found]})
    else:
        stdout().print(_listed(found) if found else "no move has ended yet")


async def _moves(config: Config) -> list[Workflow]:
    store = await open_store(config)
    try:
        return await all_moves(store)
    finally:
        await store.close()


def _listed(found: list[Workflow]) -> Any:
    rows = table("move", "keyspace", "stage", "goal", "rows", "writes held", "since", "problem")
    for w in found:
        figures = w.figures
        held = figures.get("held_seconds")
        rows.add_row(
            str(w.id), Text(w.keyspace), Text(w.stage.value + (" (paused)" if w.paused else "")), Text(w.plan.goal),
            f"{figures.get('rows', 0):,}", f"{float(held) * 1000:.0f} ms" if held is not None else "",
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(w.history[0].at)), Text(w.problem, "yellow"),
        )  # fmt: skip
    return rows


@asynccontextmanager
async def _shown(orchestrator: Orchestrator) -> AsyncIterator[None]:
    """Show how the move goes while the block runs: a table on a terminal, a line now and then elsewhere."""
    console = stderr()
    shown = asyncio.create_task(_live(orchestrator) if console.is_terminal else _lines(orchestrator))
    try:
        yield
    finally:
        shown.cancel()
        await asyncio.gather(shown, return_exceptions=True)


async def _live(orchestrator: Orchestrator) -> None:
    rates = _Rates()
    with Live(console=stderr(), refresh_per_second=4, transient=True) as live:
        while True:
            live.update(_progress(orchestrator, rates))
            await asyncio.sleep(0.5)


async def _lines(orchestrator: Orchestrator) -> None:
    rates = _Rates()
    last = ""
    told = 0.0
    while True:
        stage = orchestrator.ledger.stage.value
        now = time.monotonic()
        if stage != last or now - told > _PLAIN_EVERY:
            workflow = orchestrator.ledger.workflow
            parts = [
                f"{s.plan.source.shard} → {s.plan.target.shard} {s.state.value} {s.copied:,} rows "
                f"({rates.of(i, s.copied):,.0f}/s), {s.applied:,} changes" + (f", {s.error}" if s.error else "")
                for i, s in enumerate(orchestrator.streams)
            ]
            slowed = f" (gently: {orchestrator.slowed})" if orchestrator.slowed else ""
            note(f"move {workflow.id} {stage}" + (": " + "; ".join(parts) if parts else "") + slowed)
            last, told = stage, now
        await asyncio.sleep(0.2)


class _Rates:
    """Rows per second, since the last time somebody asked."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[float, int]] = {}

    def of(self, stream: int, rows: int) -> float:
        now = time.monotonic()
        then, had = self._last.get(stream, (now, rows))
        self._last[stream] = (now, rows)
        return max(0.0, (rows - had) / (now - then)) if now > then else 0.0


def _progress(orchestrator: Orchestrator, rates: _Rates) -> Any:
    workflow = orchestrator.ledger.workflow
    rows = table(
        "from", "to", "state", "rows", "rows/s", "changes", "", title=f"move {workflow.id}: {workflow.stage.value}"
    )
    rows.caption = Text(orchestrator.slowed, "yellow") if orchestrator.slowed else None
    for i, s in enumerate(orchestrator.streams):
        rows.add_row(
            Text(s.plan.source.shard), Text(s.plan.target.shard), s.state.value, f"{s.copied:,}",
            f"{rates.of(i, s.copied):,.0f}", f"{s.applied:,}", Text(s.error, "yellow"),
        )  # fmt: skip
    return rows
