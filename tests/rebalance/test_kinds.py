"""Moves of other kinds end to end: a keyspace whose map becomes one of the other kind, with writers on all shards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence

import pytest

from shardproxy.local import LocalCluster
from shardproxy.local.flavors import FlavorName
from shardproxy.reshard.orchestrator import Orchestrator
from shardproxy.topology.keys import KeyType, bucket_of
from shardproxy.topology.map_document import Stream
from shardproxy.topology.map_form import HashForm, form_of
from shardproxy.topology.maps import INT_MAX, INT_MIN, KeyRange, RangeMap
from shardproxy.topology.stages import Stage
from shardproxy.topology.streams import streams_between
from shardproxy.topology.workflow import Plan
from tests.rebalance.test_move import ACCOUNTS, Application, Scene, goes_on, running, until

NAMES = ("shard1", "shard2", "shard3")
ORDER = {name: i for i, name in enumerate(NAMES)}
RANGES = RangeMap([KeyRange(INT_MIN, 1000, 0), KeyRange(1000, 2000, 1), KeyRange(2000, INT_MAX + 1, 2)])
SPREAD = HashForm.of([NAMES[n * 7 // 5 % 3] for n in range(4096)]).to_map(ORDER)
HOLD = 10.0  # six streams, and writes on all shards, on a machine that may be busy


def to_hash() -> Plan:
    streams = streams_between(RANGES, SPREAD, KeyType.INT)
    return Plan(goal="hash", streams=tuple(Stream.of(s, NAMES) for s in streams), other=form_of(SPREAD, NAMES))


def to_ranges() -> Plan:
    streams = streams_between(SPREAD, RANGES, KeyType.INT)
    return Plan(goal="range", streams=tuple(Stream.of(s, NAMES) for s in streams), other=form_of(RANGES, NAMES))


@pytest.fixture
def scene(flavor: FlavorName) -> Iterator[Scene]:
    with LocalCluster(flavor, shards=3) as cluster, running(cluster) as proxies:
        yield Scene(cluster, proxies, cluster.folder / "left.toml")


def check(scene: Scene, application: Application, owners: Sequence[int]) -> None:
    """Everything that clients were told, each row once, on the shard that owns its account."""
    scene.check_rows(application)
    for place in range(3):
        mine = {key for key, owner in zip(ACCOUNTS, owners, strict=True) if owner == place}
        assert {row[0] for row in scene.on_shards("SELECT id FROM account")[place]} == mine
        assert {row[0] for row in scene.on_shards("SELECT account FROM entry")[place]} <= mine


def test_from_ranges_to_a_hash_map_and_back_again(scene: Scene) -> None:
    """The whole keyspace changes hands: to buckets for good, then to ranges, which is taken back."""
    by_bucket = [SPREAD.buckets[bucket_of(key)] for key in ACCOUNTS]
    with Application(scene.proxies, 2) as application:

        async def there(orchestrator: Orchestrator) -> None:
            await until(orchestrator, Stage.COPYING)
            await orchestrator.copied()
            await asyncio.to_thread(goes_on, application)
            await until(orchestrator, Stage.OPEN)
            print(f"held {orchestrator.held * 1000:.0f} ms")
            await asyncio.to_thread(goes_on, application)
            await until(orchestrator, Stage.DONE)

        async def and_back(orchestrator: Orchestrator) -> None:
            await until(orchestrator, Stage.OPEN)
            await asyncio.to_thread(goes_on, application)
            while orchestrator.ledger.stage is Stage.OPEN:  # again, when a switch was given up for a moment
                await orchestrator.reverse()
                await orchestrator.run(lambda stage: False)
            assert orchestrator.ledger.stage is Stage.REVERSE_DONE
            await asyncio.to_thread(goes_on, application)

        begun = time.monotonic()
        scene.lead(there, to_hash(), HOLD)
        scene.lead(and_back, to_ranges(), HOLD)
        print(f"{time.monotonic() - begun:.1f} s")
    print(f"{application.done} writes, longest {application.longest * 1000:.0f} ms, again: {application.retried}")
    check(scene, application, by_bucket)
