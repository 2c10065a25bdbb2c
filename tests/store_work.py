"""What other processes do to a map store while a test looks at it: `python -m tests.store_work WORK JSON`."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import uvloop

from shardproxy.errors import StoreConflict
from shardproxy.store.interface import ABSENT, Delete, MapStore, Put
from shardproxy.store.sqlite_file import SqliteFile
from tests.stores import Place


async def count(store: MapStore, key: str, times: int, writer: int) -> None:
    """Raise the counter under `key` so many times, whoever else does the same."""
    conflicts = 0
    for _ in range(times):
        while True:
            entry = await store.get(key)
            number = entry.value["number"] if entry else 0
            assert isinstance(number, int)
            try:
                await store.put(key, {"number": number + 1, "writer": writer}, entry.version if entry else ABSENT)
                break
            except StoreConflict:
                conflicts += 1
    print(conflicts)


async def scribble(store: MapStore, writer: int, commits: int) -> None:
    """Commits of several keys, each numbered by this writer: "w/WRITER/0" has every number in turn; deletes too."""
    dice = random.Random(writer)
    for number in range(1, commits + 1):
        put = [Put(f"w/{writer}/0", {"number": number})]
        others = dice.sample(range(1, 6), dice.randint(0, 3))
        others_written = [Put(f"w/{writer}/{i}", {"number": number}) for i in others]
        deletes = [Delete(f"w/{writer}/{i}") for i in range(6, 9) if dice.random() < 0.3]
        revived = [Put(f"w/{writer}/{i}", {"number": number}) for i in range(9, 12) if dice.random() < 0.2]
        await store.commit([], [*put, *others_written, *deletes, *revived])
        if dice.random() < 0.2:
            await store.commit([], [Delete(f"w/{writer}/{i}") for i in range(1, 12)])
        await store.commit([], [Put(f"beside/{writer}", {"number": number})])
    print("done")


async def number_all(store: MapStore, keys: int) -> None:
    """Write the same growing number under all keys, in one commit each; print it when it is acknowledged."""
    entry = await store.get("n/0")
    number = entry.value["number"] if entry else 0
    assert isinstance(number, int)
    while True:
        number += 1
        await store.commit([], [Put(f"n/{i}", {"number": number}) for i in range(keys)])
        print(number, flush=True)


async def die(store: MapStore, key: str, before: bool) -> None:
    """Be killed before, or just after, the file's COMMIT."""
    finish = SqliteFile.finish

    def killed(self: SqliteFile) -> None:
        if not before:
            finish(self)
        os.kill(os.getpid(), signal.SIGKILL)

    SqliteFile.finish = killed  # type: ignore[method-assign]
    await store.put(key, {"died": "before" if before else "after"}, ABSENT)


async def acknowledge(store: MapStore, request: str, answer: str) -> None:
    """Answer every change of one key with a change of the other, as proxies do with maps."""
    listing = await store.list(request)
    version = ABSENT
    print("ready", flush=True)
    async for changes in store.watch(request, listing.revision):
        [change] = changes.changes
        if change.value is None:
            return
        version = await store.put(answer, change.value, version)


async def hold(store: MapStore, key: str, seconds: int) -> None:
    """Put a document that hangs on a lease, renew it for ever."""
    lease = await store.grant(seconds)
    await store.put(key, {"holder": os.getpid()}, ABSENT, lease)
    print("held", flush=True)
    while True:
        await asyncio.sleep(seconds / 4)
        await store.renew(lease)


async def main(work: str, settings: dict[str, Any], folder: str, arguments: dict[str, Any]) -> None:
    async with Place(settings, Path(folder)).store() as store:
        await globals()[work](store, **arguments)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], **json.loads(sys.argv[2])))
