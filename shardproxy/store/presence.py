"""Showing that a process lives, for people who look. Nothing may be decided by it: see MapStore.grant."""

from __future__ import annotations

import asyncio
import contextlib

from shardproxy.errors import StoreError
from shardproxy.store.interface import ABSENT, Document, MapStore


async def show_presence(store: MapStore, key: str, value: Document, seconds: int) -> None:
    """Keep the document under the key as long as this task runs: it vanishes at the latest some `seconds` afterwards.

    What the store cannot do now is tried again later; it ends only when it is cancelled, and then takes the document
    away at once if the store lets it.
    """
    lease: str | None = None
    try:
        while True:
            try:
                if lease is None:
                    lease = await store.grant(seconds)
                    old = await store.get(key)
                    await store.put(key, value, old.version if old else ABSENT, lease)
                else:
                    await store.renew(lease)
            except StoreError:  # also: expired, or somebody else's write
                lease = None
            await asyncio.sleep(seconds / 4)
    finally:
        if lease is not None:
            with contextlib.suppress(StoreError):
                await store.revoke(lease)
