"""`shardctl rebalance redis`: keys of the Redis port move between its nodes while clients go on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Annotated, TypeVar

import typer
from rich.text import Text

from shardproxy.admin.show.redis_map import changes, redis_json
from shardproxy.cli import rebalance_goals as words
from shardproxy.cli.rebalance import app as rebalance
from shardproxy.cli.redis_shown import PARTS, show
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
from shardproxy.config.redis_models import RedisNodeSettings, RedisSettings
from shardproxy.errors import GoalError, MoveError, ReshardError
from shardproxy.reshard.redis_mover import Progress, RedisMover, Wishes, change_map, read_redis_map
from shardproxy.reshard.redis_nodes import NodeControl, nodes_of
from shardproxy.store.interface import MapStore
from shardproxy.store.opening import open_store
from shardproxy.topology import redis_map
from shardproxy.topology.ketama import Continuum, Server
from shardproxy.topology.keys import BUCKETS
from shardproxy.topology.redis_map import REDIS_MAP, RedisMap
from shardproxy.topology.ring import place_buckets

T = TypeVar("T")
_LEFT = "keys on their way are found all the same: `shardctl rebalance redis resume` goes on, `cancel` takes back"
app = typer.Typer(
    name="redis",
    help="Move keys of the Redis port between its nodes while clients go on.\n\nSee docs/redis-moves.md.",
    no_args_is_help=True,
)
rebalance.add_typer(app)

Weights = Annotated[str, typer.Option("--weights", metavar="A=2,B=1", help="The new ring, with all nodes of it.")]
MoveBucket = Annotated[list[str], typer.Option("--move-bucket", metavar="B[-C]=NODE", help="Buckets to a node.")]
Throttle = Annotated[float, typer.Option("--throttle", metavar="KEYS/S", min=0, help="Most keys per second; 0: all.")]
AtOnce = Annotated[int, typer.Option("--at-once", min=1, max=BUCKETS, help="Most buckets that move at the same time.")]
Biggest = Annotated[
    int, typer.Option("--biggest", metavar="MIB", min=1, help="Keys with more memory go in pieces.")
]
Answer = Annotated[
    float, typer.Option("--answer", metavar="S", min=0.05, help="Shut a proxy out that does not acknowledge this long.")
]


@app.callback()
def _group() -> None:
    """The text is the app's."""


def goal(document: RedisMap, weights: str, move_bucket: list[str], redis: RedisSettings) -> redis_map.Goal:
    """What the options ask for. Raises GoalError."""
    if other := redis_map.other_placement(document, redis):
        raise GoalError(other)
    if not weights and not move_bucket:
        raise GoalError("say what shall be moved: --weights or --move-bucket")
    if document.ketama is not None:
        return _continuum(weights, move_bucket, redis.nodes)
    return _owners(document, weights, move_bucket, redis.nodes)


def _continuum(weights: str, move_bucket: list[str], nodes: Mapping[str, RedisNodeSettings]) -> Continuum:
    if move_bucket:
        raise GoalError('with placement "ketama" there are no buckets, keys are where twemproxy has them: --weights')
    given = {name: weight for name, weight in words.weights(weights).weights.items() if weight}
    _refuse_unknown(given, nodes)
    # In the order of the file, as it is twemproxy's.
    servers = [Server(name, node.ketama_name, given[name]) for name, node in nodes.items() if name in given]
    try:
        return Continuum(servers=tuple(servers))
    except ValueError as error:
        raise GoalError(f"--weights {weights}: no node would have any keys") from error


def _refuse_unknown(names: Iterable[str], nodes: Mapping[str, object]) -> None:
    unknown = sorted(set(names) - nodes.keys())
    if unknown:
        raise GoalError(f"{', '.join(unknown)}: no such node in [redis.nodes] of the file")


def _owners(document: RedisMap, weights: str, move_bucket: list[str], nodes: Mapping[str, object]) -> list[str]:
    owners = document.map.owners
    if weights:
        given = {name: weight for name, weight in words.weights(weights).weights.items() if weight}
        names = sorted(given)
        if not names:
            raise GoalError(f"--weights {weights}: no node would have any keys")
        owners = [names[i] for i in place_buckets(given, {name: i for i, name in enumerate(names)})]
    for word in move_bucket:
        asked = words.move_bucket(word)
        if not 0 <= asked.first <= asked.last < BUCKETS:
            raise GoalError(f"--move-bucket {word}: buckets are numbered from 0 to {BUCKETS - 1}")
        owners[asked.first : asked.last + 1] = [asked.shard] * (asked.last + 1 - asked.first)
    _refuse_unknown(owners, nodes)
    return owners


def _with_store(config: Config, work: Callable[[MapStore, Mapping[str, NodeControl]], Awaitable[T]]) -> T:
    async def whole() -> T:
        store = await open_store(config)
        try:
            entry = await store.get(REDIS_MAP)
            nodes = nodes_of(config, None if entry is None else RedisMap.read(entry.key, entry.value))
            try:
                return await work(store, nodes)
            finally:
                for node in nodes.values():
                    await node.close()
        finally:
            await store.close()

    return asyncio.run(whole())


@app.command()
@ends_with_status
def plan(
    weights: Weights = "",
    move_bucket: MoveBucket = [],  # noqa: B006 — typer wants lists
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Show which buckets would move. Nothing is changed."""
    settings = read_config(config)

    async def work(store: MapStore, nodes: Mapping[str, NodeControl]) -> tuple[RedisMap, redis_map.Goal]:
        document, _ = await read_redis_map(store)
        return document, goal(document, weights, move_bucket, _redis(settings))

    document, wanted = _unusable(lambda: _with_store(settings, work))
    found = changes(document, wanted)
    if as_json:
        print_json([dict(zip(("source", "target", "buckets", "share"), each, strict=True)) for each in found])
        return
    rows = table("from", "to", PARTS[document.placement], "share of all")
    for source, target, count, share in found:
        rows.add_row(Text(source), Text(target), str(count), f"{share:.1%}")
    stdout().print(rows if found else "nothing moves: it is so already")


@app.command()
@ends_with_status
def run(
    weights: Weights = "",
    move_bucket: MoveBucket = [],  # noqa: B006
    throttle: Throttle = 0.0,
    at_once: AtOnce = 256,
    biggest: Biggest = 8,
    answer: Answer = 2.0,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Move buckets, or arcs of ketama's circle, until the ring is as asked for.

    Clients go on; commands on a key that is just moving wait for it. When it is ended by Ctrl-C or a crash, keys on
    their way are still found: `resume` goes on, `cancel` takes back.
    """
    settings = read_config(config)

    async def work(store: MapStore, nodes: Mapping[str, NodeControl]) -> None:
        document, _ = await read_redis_map(store)
        wanted = goal(document, weights, move_bucket, _redis(settings))
        for node in nodes.values():
            await node.count_replicas()  # while something is wanted an error of a node costs the cache mode's comfort
        await change_map(store, lambda now: redis_map.want(now, wanted))
        await _lead(store, nodes, Wishes(at_once, throttle, answer, biggest << 20))

    _unusable(lambda: _with_store(settings, work))


@app.command()
@ends_with_status
def resume(
    throttle: Throttle = 0.0,
    at_once: AtOnce = 256,
    biggest: Biggest = 8,
    answer: Answer = 2.0,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Go on with what `run` or `cancel` has begun. Two at the same time do no harm."""
    wishes = Wishes(at_once, throttle, answer, biggest << 20)
    settings = read_config(config)
    _with_store(settings, lambda store, nodes: _lead(store, nodes, wishes))


@app.command()
@ends_with_status
def cancel(throttle: Throttle = 0.0, answer: Answer = 2.0, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Take back what `run` has moved: in the end every key is where it was before."""

    def back(document: RedisMap) -> RedisMap:
        if document.wanted is None:
            raise MoveError("nothing is being moved: there is nothing to cancel")
        return redis_map.turn_back(document)

    settings = read_config(config)

    async def work(store: MapStore, nodes: Mapping[str, NodeControl]) -> None:
        await change_map(store, back)
        await _lead(store, nodes, Wishes(rate=throttle, answer=answer))

    _with_store(settings, work)


@app.command()
@ends_with_status
def status(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Show which node has how many buckets, or arcs of ketama's circle, and what is being moved."""

    async def work(store: MapStore, nodes: Mapping[str, NodeControl]) -> RedisMap:
        return (await read_redis_map(store))[0]

    document = _with_store(read_config(config), work)
    shown = redis_json(document)
    if as_json:
        print_json(shown)
        return
    show(shown)


@app.command()
@ends_with_status
def verify(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Look at every key of every node: is it on the node where the map has it? Status 1 when some are not."""

    async def work(store: MapStore, nodes: Mapping[str, NodeControl]) -> tuple[Counter[str], Counter[str]]:
        document, _ = await read_redis_map(store)
        owners, ring = document.map.owners, document.ring
        moving = frozenset(document.move.numbers) if document.move is not None else frozenset()
        right: Counter[str] = Counter()
        wrong: Counter[str] = Counter()
        for name, node in nodes.items():
            async for keys in node.keys_of(ring, range(len(owners))):
                for key in keys:
                    unit = ring.unit_of(key)
                    if owners[unit] == name or unit in moving:
                        right[name] += 1
                    else:
                        wrong[name] += 1
        return right, wrong

    right, wrong = _with_store(read_config(config), work)
    rows = table("node", "keys in their place", "keys of other nodes")
    for name in sorted({*right, *wrong}):
        rows.add_row(Text(name), f"{right[name]:,}", f"{wrong[name]:,}")
    stdout().print(rows)
    if wrong.total():
        note("keys of other nodes are found by nobody: a node lost its newest writes, or somebody wrote there directly")
        raise typer.Exit(Exit.FAILED)


def _redis(config: Config) -> RedisSettings:
    if config.redis is None:
        raise GoalError("the file has no [redis]: there are no Redis keys to move")
    return config.redis


async def _lead(store: MapStore, nodes: Mapping[str, NodeControl], wishes: Wishes) -> None:
    document, _ = await read_redis_map(store)
    what = PARTS[document.placement]
    with stderr().status("looking at the map") as shown:

        def seen(progress: Progress) -> None:
            move = progress.move
            way = "" if move is None else f", {move.source} → {move.target} {move.phase.value}"
            shown.update(f"{progress.moved:,} keys moved, {progress.left} {what} left{way}")

        mover = RedisMover(store, nodes, wishes, seen)
        try:
            await mover.run()
        except asyncio.CancelledError:  # Ctrl-C
            note(_LEFT)
            raise
        except ReshardError as error:
            note(str(error))
            note(_LEFT)
            raise typer.Exit(Exit.FAILED) from None
    stdout().print(f"done: {mover.moved:,} keys were moved, beside those that clients asked for")


def _unusable(work: Callable[[], T]) -> T:
    try:
        return work()
    except GoalError as error:
        note(str(error))
        raise typer.Exit(Exit.UNUSABLE) from None
