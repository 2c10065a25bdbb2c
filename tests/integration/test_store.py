"""What a map store promises, on both: the SQLite file and a real etcd."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from shardproxy.config import parse
from shardproxy.errors import DocumentError, LeaseExpired, StoreConflict, StoreUnavailable, WatchLost
from shardproxy.local import LocalEtcd
from shardproxy.store import sqlite_file
from shardproxy.store.etcd import EtcdStore
from shardproxy.store.interface import ABSENT, MOST_BYTES, Change, Changes, Condition, Delete, Entry, MapStore, Put
from shardproxy.store.maps import StoredMaps, maps_with_first, read_maps
from shardproxy.store.presence import show_presence
from shardproxy.topology.bootstrap import first_document
from shardproxy.topology.build import build_snapshot
from shardproxy.topology.model import Snapshot
from shardproxy.topology.stored import MAPS
from tests.stores import Place, embedded

WAIT = 20.0  # seconds until something that should happen counts as not happening


@pytest.fixture(scope="module")
def etcd() -> Iterator[LocalEtcd]:
    with LocalEtcd() as cluster:
        yield cluster


@pytest.fixture(params=["embedded", "etcd"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty store of each kind."""
    if request.param == "embedded":
        return embedded(tmp_path)
    cluster: LocalEtcd = request.getfixturevalue("etcd")
    return Place({"kind": "etcd", "endpoints": cluster.endpoints, "prefix": os.urandom(6).hex() + "/"})


Work = Callable[[MapStore], Coroutine[Any, Any, None]]


def with_store(place: Place, work: Work) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), place.store() as store:
            await work(store)

    uvloop.run(main())


async def until(condition: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    deadline = time.monotonic() + WAIT
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def taken(watch: AsyncIterator[Changes], count: int) -> list[Changes]:
    async with asyncio.timeout(WAIT):
        return [await anext(watch) for _ in range(count)]


async def ended(process: subprocess.Popen[str]) -> str:
    """What the process printed, when it has ended well."""
    out, _ = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 0
    return out


# ── one entry ──


def test_an_entry_is_written_read_changed_and_deleted_by_version(place: Place) -> None:
    async def work(store: MapStore) -> None:
        assert await store.get("a") is None
        first = await store.put("a", {"n": 1}, ABSENT)
        assert first > 0
        assert await store.get("a") == Entry("a", {"n": 1}, first)
        second = await store.put("a", {"n": 2}, first)
        assert second > first
        assert await store.get("a") == Entry("a", {"n": 2}, second)
        assert await store.delete("a", second) > second
        assert await store.get("a") is None

    with_store(place, work)


def test_what_the_condition_does_not_allow_changes_nothing_and_says_what_is_there(place: Place) -> None:
    async def work(store: MapStore) -> None:
        version = await store.put("a", {"n": 1}, ABSENT)
        before = await store.list("")
        for wrong in (ABSENT, version - 1, version + 1):
            with pytest.raises(StoreConflict) as caught:
                await store.put("a", {"n": 2}, wrong)
            assert caught.value.found == {"a": version}
        with pytest.raises(StoreConflict) as caught:
            await store.put("b", {"n": 2}, version)
        assert caught.value.found == {"b": ABSENT}
        with pytest.raises(StoreConflict):
            await store.delete("b", version)
        assert await store.list("") == before

    with_store(place, work)


def test_a_key_that_was_deleted_never_gets_an_old_version_again(place: Place) -> None:
    async def work(store: MapStore) -> None:
        seen = [await store.put("a", {}, ABSENT)]
        for _ in range(3):
            await store.delete("a", seen[-1])
            seen.append(await store.put("a", {}, ABSENT))
            with pytest.raises(StoreConflict):
                await store.put("a", {}, seen[-2])
        assert len(set(seen)) == len(seen)

    with_store(place, work)


def test_documents_come_back_exactly(place: Place) -> None:
    document = {
        "text": "Zoë \u2028 \x00 \U0001f600 \"quoted\" \\ /",
        "numbers": [0, -1, 2**64, -(2**63), 0.1, 1e300, -0.0],
        "nested": {"": [None, True, False, {}, []]},
    }  # fmt: skip

    async def work(store: MapStore) -> None:
        await store.put("a/Zoë/ü", document, ABSENT)
        entry = await store.get("a/Zoë/ü")
        assert entry is not None and repr(entry.value) == repr(dict(sorted(document.items())))
        [listed] = (await store.list("a/Zo")).entries
        assert listed == entry

    with_store(place, work)


@pytest.mark.parametrize(
    ("conditions", "writes"),
    [
        ([], [Put("", {})]),
        ([], [Put("nul\0", {})]),
        ([], [Put("k" * 513, {})]),
        ([], [Put("a", {}), Delete("a")]),
        ([Condition("a", 0), Condition("a", 1)], [Put("a", {})]),
        ([], [Put(f"a{i}", {}) for i in range(101)]),
        ([], [Put("a", {"text": "x" * MOST_BYTES})]),
        ([], [Put("a", {"nan": float("nan")})]),
    ],
)
def test_what_no_store_could_take_is_refused(place: Place, conditions: list[Condition], writes: list[Put]) -> None:
    async def work(store: MapStore) -> None:
        with pytest.raises(ValueError):
            await store.commit(conditions, writes)
        assert (await store.list("")).entries == ()

    with_store(place, work)


def test_the_largest_commits_are_taken(place: Place) -> None:
    async def work(store: MapStore) -> None:
        await store.commit([Condition(f"k{i}", 0) for i in range(100)], [Put(f"k{i}", {}) for i in range(100)])
        await store.commit([], [Put("big", {"text": "ü" * (MOST_BYTES // 2 - 20)})])
        entry = await store.get("big")
        assert entry is not None and len(str(entry.value["text"])) == MOST_BYTES // 2 - 20
        assert len((await store.list("k")).entries) == 100

    with_store(place, work)


# ── several entries ──


def test_a_commit_is_made_whole_or_not_at_all(place: Place) -> None:
    async def work(store: MapStore) -> None:
        one = await store.commit([Condition("a", ABSENT), Condition("b", ABSENT)], [Put("a", {}), Put("b", {})])
        before = await store.list("")
        assert [entry.version for entry in before.entries] == [one, one]
        with pytest.raises(StoreConflict) as caught:
            await store.commit([Condition("a", one), Condition("c", one)], [Put("a", {"n": 2}), Delete("b")])
        assert caught.value.found == {"c": ABSENT}
        assert await store.list("") == before
        two = await store.commit([Condition("a", one), Condition("c", ABSENT)], [Put("c", {"n": 2}), Delete("b")])
        assert (await store.list("")).entries == (Entry("a", {}, one), Entry("c", {"n": 2}, two))

    with_store(place, work)


def test_a_commit_that_changes_nothing_has_no_revision_of_its_own(place: Place) -> None:
    async def work(store: MapStore) -> None:
        version = await store.put("a", {}, ABSENT)
        assert await store.commit([Condition("a", version)], []) == version
        assert await store.commit([], [Delete("b")]) == version
        assert (await store.list("")).revision == version

    with_store(place, work)


def test_a_listing_has_what_begins_with_the_prefix_in_order(place: Place) -> None:
    keys = ["a", "a/", "a/1", "a/10", "a/2", "a/é", "a/\U0001f600", "a0", "b"]

    async def work(store: MapStore) -> None:
        await store.commit([], [Put(key, {"key": key}) for key in reversed(keys)])
        for prefix in ("", "a", "a/", "a/1", "a/é", "c"):
            listing = await store.list(prefix)
            assert [entry.key for entry in listing.entries] == [k for k in keys if k.startswith(prefix)]
            assert all(entry.value == {"key": entry.key} for entry in listing.entries)

    with_store(place, work)


def test_two_handles_see_each_others_changes_at_once(place: Place) -> None:
    async def work(store: MapStore) -> None:
        async with place.store() as other:
            version = ABSENT
            for n in range(50):
                version = await store.put("a", {"n": n}, version)
                assert await other.get("a") == Entry("a", {"n": n}, version)

    with_store(place, work)


def test_racing_processes_never_both_win(place: Place) -> None:
    """Four processes raise one counter: a lost or a doubled update would show in the sum."""

    async def work(store: MapStore) -> None:
        revision = (await store.list("")).revision
        processes = [place.start("count", key="counter", times=50, writer=i) for i in range(4)]
        conflicts = [int(await ended(process)) for process in processes]
        entry = await store.get("counter")
        assert entry is not None and entry.value["number"] == 200
        assert sum(conflicts) > 0, "they did not race"
        async with aclosing(store.watch("counter", revision)) as watch:
            seen = [change.value for changes in await taken(watch, 200) for change in changes.changes]
        assert [value["number"] for value in seen if value] == list(range(1, 201))

    with_store(place, work)


# ── watching ──


def test_a_watch_tells_commits_after_its_revision_whole_and_in_order(place: Place) -> None:
    async def work(store: MapStore) -> None:
        one = await store.commit([], [Put("w/a", {"n": 1}), Put("x", {})])
        two = await store.commit([], [Put("w/b", {"n": 2}), Delete("w/a"), Put("x", {"n": 2})])
        await store.commit([], [Put("x", {"n": 3})])
        first, second = (
            Changes(one, (Change("w/a", {"n": 1}),)),
            Changes(two, (Change("w/a", None), Change("w/b", {"n": 2}))),
        )
        async with aclosing(store.watch("w/", one - 1)) as watch:
            assert [_sorted(c) for c in await taken(watch, 2)] == [first, second]
            three = await store.commit([], [Put("w/c", {"n": 3})])
            assert await taken(watch, 1) == [Changes(three, (Change("w/c", {"n": 3}),))]
        async with aclosing(store.watch("w/", one)) as watch:
            assert [_sorted(c) for c in await taken(watch, 1)] == [second]

    with_store(place, work)


def _sorted(changes: Changes) -> Changes:
    return Changes(changes.revision, tuple(sorted(changes.changes, key=lambda change: change.key)))


def test_a_watch_loses_nothing_while_processes_write(place: Place) -> None:
    """One watch runs all the time, one is broken off and begun anew all the time, one begins afterwards."""
    writers, commits = 3, 60

    async def work(store: MapStore) -> None:
        start = (await store.list("w/")).revision
        async with place.store() as other:
            steady: list[Changes] = []
            broken: list[Changes] = []
            tasks = [
                asyncio.create_task(_follow(store, start, steady, 10**9)),
                asyncio.create_task(_follow(other, start, broken, 7)),
            ]
            processes = [place.start("scribble", writer=i, commits=commits) for i in range(writers)]
            for process in processes:
                await ended(process)
            end = await store.put("w/end", {}, ABSENT)
            async with asyncio.timeout(WAIT):
                await asyncio.gather(*tasks)
        late: list[Changes] = []
        await _follow(store, start, late, 10**9)
        assert [_sorted(c) for c in steady] == [_sorted(c) for c in broken] == [_sorted(c) for c in late]
        revisions = [changes.revision for changes in steady]
        assert revisions == sorted(set(revisions)) and revisions[-1] == end
        _holds_every_number(steady, writers, commits)
        state: dict[str, object] = {}
        for changes in steady:
            state.update({change.key: change.value for change in changes.changes})
        listed = {entry.key: entry.value for entry in (await store.list("w/")).entries}
        assert {key: value for key, value in state.items() if value is not None} == listed

    with_store(place, work)


async def _follow(store: MapStore, after: int, found: list[Changes], few: int) -> None:
    """Collect changes until the key w/end comes; begin the watch anew after `few` of them."""
    while True:
        async with aclosing(store.watch("w/", after)) as watch:
            for _ in range(few):
                changes = await anext(watch)
                found.append(changes)
                after = changes.revision
                if any(change.key == "w/end" for change in changes.changes):
                    return


def _holds_every_number(found: list[Changes], writers: int, commits: int) -> None:
    for writer in range(writers):
        values = [c.value for changes in found for c in changes.changes if c.key == f"w/{writer}/0"]
        assert [value["number"] for value in values if value] == list(range(1, commits + 1))


def test_two_watches_of_one_store_hear_the_same(place: Place) -> None:
    async def work(store: MapStore) -> None:
        start = (await store.list("")).revision
        async with aclosing(store.watch("a", start)) as a, aclosing(store.watch("", start)) as everything:
            waiting = [asyncio.create_task(taken(a, 2)), asyncio.create_task(taken(everything, 3))]
            for key in ("a1", "b", "a2"):
                await store.put(key, {}, ABSENT)
            few, all_of_them = await asyncio.gather(*waiting)
            assert [c.changes[0].key for c in few] == ["a1", "a2"]
            assert [c.changes[0].key for c in all_of_them] == ["a1", "b", "a2"]

    with_store(place, work)


def test_a_watch_says_when_changes_are_forgotten(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "KEPT", 10)
    monkeypatch.setattr(sqlite_file, "PRUNE_EVERY", 4)

    async def work(store: MapStore) -> None:
        version = first = await store.put("a", {}, ABSENT)
        for n in range(40):
            version = await store.put("a", {"n": n}, version)
        if isinstance(store, EtcdStore):
            await store._gateway.change("/v3/kv/compaction", {"revision": str(version - 5)})
        with pytest.raises(WatchLost):
            async with aclosing(store.watch("a", first)) as watch:
                await taken(watch, 1)
        async with aclosing(store.watch("a", version - 1)) as watch:
            assert await taken(watch, 1) == [Changes(version, (Change("a", {"n": 39}),))]

    with_store(place, work)


def test_a_watch_from_a_revision_that_the_store_does_not_have_is_lost(place: Place) -> None:
    """The store was put back to an older state: waiting for its old number to come again would miss changes."""

    async def work(store: MapStore) -> None:
        with pytest.raises(WatchLost):
            async with aclosing(store.watch("a", (await store.list("")).revision + 5)) as watch:
                await taken(watch, 1)

    with_store(place, work)


@pytest.mark.alone
def test_an_acknowledgement_from_another_process_takes_milliseconds(place: Place) -> None:
    """A change, seen by another process, which answers with a change, seen here: what a barrier waits for."""
    rounds = 100

    async def work(store: MapStore) -> None:
        process = place.start("acknowledge", request="map", answer="ack")
        assert process.stdout is not None
        await asyncio.to_thread(process.stdout.readline)
        version = revision = (await store.list("ack")).revision
        version, took = ABSENT, []
        async with aclosing(store.watch("ack", revision)) as watch:
            for n in range(rounds):
                begun = time.perf_counter()
                version = await store.put("map", {"n": n}, version)
                [answer] = await taken(watch, 1)
                took.append(time.perf_counter() - begun)
                assert answer.changes[0].value == {"n": n}
        await store.delete("map", version)
        await ended(process)
        took.sort()
        print(f"{place.kind}: median {took[rounds // 2] * 1000:.1f} ms, p99 {took[-2] * 1000:.1f} ms")
        assert took[rounds // 2] < 0.05

    with_store(place, work)


# ── leases ──


def test_what_hangs_on_a_lease_vanishes_with_it_and_watches_hear_of_it(place: Place) -> None:
    async def work(store: MapStore) -> None:
        revision = (await store.list("")).revision
        process = place.start("hold", key="alive/1", seconds=4)
        assert process.stdout is not None
        async with aclosing(store.watch("alive/", revision)) as watch:
            [held] = await taken(watch, 1)
            assert held.changes[0].value == {"holder": process.pid}
            await asyncio.to_thread(process.stdout.readline)
            renewals = time.monotonic() + 6  # longer than it would live without them
            while time.monotonic() < renewals:
                assert await store.get("alive/1") is not None
                await asyncio.sleep(0.1)
            process.kill()
            process.communicate()
            [gone] = await taken(watch, 1)
            assert gone.changes == (Change("alive/1", None),)
        assert await store.get("alive/1") is None
        assert (await store.list("alive/")).entries == ()

    with_store(place, work)


def test_a_lease_that_has_ended_is_good_for_nothing(place: Place) -> None:
    async def work(store: MapStore) -> None:
        lease = await store.grant(60)
        await store.commit([], [Put("a", {}, lease), Put("b", {}, lease), Put("c", {})])
        await store.renew(lease)
        await store.revoke(lease)
        assert [entry.key for entry in (await store.list("")).entries] == ["c"]
        await store.revoke(lease)
        with pytest.raises(LeaseExpired):
            await store.renew(lease)
        with pytest.raises(LeaseExpired):
            await store.commit([], [Put("c", {"n": 2}), Put("d", {}, lease)])
        assert [entry.value for entry in (await store.list("")).entries] == [{}]

    with_store(place, work)


def test_a_document_written_without_the_lease_outlives_it(place: Place) -> None:
    async def work(store: MapStore) -> None:
        lease = await store.grant(60)
        version = await store.put("a", {"n": 1}, ABSENT, lease)
        version = await store.put("a", {"n": 2}, version)
        await store.revoke(lease)
        assert await store.get("a") == Entry("a", {"n": 2}, version)

    with_store(place, work)


def test_presence_is_shown_until_its_task_ends(place: Place) -> None:
    async def work(store: MapStore) -> None:
        async def shown() -> bool:
            return await store.get("alive/x") is not None

        async def hidden() -> bool:
            return not await shown()

        task = asyncio.create_task(show_presence(store, "alive/x", {"pid": 1}, 8))
        await until(shown)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        task = asyncio.create_task(show_presence(store, "alive/x", {"pid": 2}, 8))
        await until(shown)
        task.cancel()
        await until(hidden)

    with_store(place, work)


# ── maps ──


def test_the_first_files_map_is_everybodys(place: Place) -> None:
    """Proxies start at once, each with a file of its own: all get one and the same map."""
    rings = [{"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": 3, "b": 1}, {"b": 1}]

    async def work(store: MapStore) -> None:
        assert await read_maps(store) == StoredMaps({}, {}, (await store.list("")).revision)
        files = [_file(ring) for ring in rings]
        async with place.store() as other:
            found = await asyncio.gather(
                *(maps_with_first(one, file) for one, file in zip([store, other] * 2, files, strict=True))
            )
        assert all(maps == found[0] for maps in found)
        document = found[0].documents["main"]
        assert document in [first_document(file, file.keyspaces["main"]) for file in files]
        more = _file({"a": 1}, "more")
        both = await maps_with_first(store, more)
        assert both.documents == {"main": document, "more": first_document(more, more.keyspaces["more"])}
        assert both.versions["main"] == found[0].versions["main"]
        async with aclosing(store.watch(MAPS, found[0].revision)) as watch:
            [changes] = await taken(watch, 1)
        assert (changes.revision, changes.changes[0].key) == (both.versions["more"], "map/more")

    with_store(place, work)


def _file(ring: dict[str, int], keyspace: str = "main") -> Snapshot:
    return build_snapshot(
        parse(
            {
                "backend": {"user": "proxy", "password": "x"},
                "users": {"app": {"password": "x"}},
                "shards": {"a": {"primary": "127.0.0.1:1"}, "b": {"primary": "127.0.0.1:2"}},
                "keyspaces": {keyspace: {"key_type": "int", "map": "hash", "ring": ring}},
            }
        )
    )


def test_what_is_no_map_where_one_should_be_is_told(place: Place) -> None:
    async def work(store: MapStore) -> None:
        file = _file({"a": 1})
        document = first_document(file, file.keyspaces["main"]).document()
        version = await store.put("map/other", document, ABSENT)
        with pytest.raises(DocumentError, match="map/other: found the map of keyspace main"):
            await read_maps(store)
        await store.commit([Condition("map/other", version)], [Delete("map/other"), Put("map/main", {"epoch": 1})])
        with pytest.raises(DocumentError, match="map/main: found no MapDocument"):
            await maps_with_first(store, file)

    with_store(place, work)


# ── ends ──


def test_a_closed_store_answers_nothing(place: Place) -> None:
    async def main() -> None:
        async with place.store() as store:
            watch = store.watch("a", 0)
            waiting = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(0)
            await store.close()
            with pytest.raises(StoreUnavailable):
                await waiting
            for call in (store.get("a"), store.list("a"), store.put("a", {}, 0), store.grant(5)):
                with pytest.raises(StoreUnavailable):
                    await call

    uvloop.run(main())


def test_a_request_that_is_given_up_leaves_the_store_usable(place: Place) -> None:
    async def work(store: MapStore) -> None:
        for n in range(20):
            task = asyncio.create_task(store.commit([], [Put("a", {"n": n})]))
            await asyncio.sleep(0.0005 * n)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        version = None
        while version is None:
            entry = await store.get("a")
            with suppress(StoreConflict):  # what was given up may have begun, and end after we have looked
                version = await store.put("a", {"n": "last"}, entry.version if entry else ABSENT)
        assert await store.get("a") == Entry("a", {"n": "last"}, version)

    with_store(place, work)


def test_what_is_stored_outlives_the_processes(place: Place) -> None:
    async def write(store: MapStore) -> None:
        await store.put("a", {"n": 1}, ABSENT)

    async def read(store: MapStore) -> None:
        entry = await store.get("a")
        assert entry is not None and entry.value == {"n": 1}

    with_store(place, write)
    with_store(place, read)
