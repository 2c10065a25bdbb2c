"""Finding out what became of a change whose answer was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shardproxy.errors import StoreConflict, StoreOutcomeUnknown, StoreUnavailable
from shardproxy.store.interface import ABSENT, Condition, MapStore, Put, Write, decode, encode

_PAUSE = 0.05  # seconds between two attempts


async def settle(
    store: MapStore, conditions: Sequence[Condition], writes: Sequence[Write], seconds: float, doubted: bool = False,
    lasting: bool = True,
) -> int:  # fmt: skip
    """`commit`, and when its outcome is unknown the same again, until it is known. Returns the revision of the commit.

    A read that does not show the change proves nothing: the request may still be on its way. A second request under the
    same condition does: only one of the two can find it true. When that one finds another version, what is there now
    tells whose it is, so **what is written must differ from all that anybody else would write there** (name the writer
    and its generation in the document), and at least one key that is put must be among the conditions.

    doubted: the same commit was sent before, and its outcome is not known. lasting: see MapStore.commit.

    Raises StoreConflict and StoreUnavailable as `commit` does (nothing was changed), and StoreOutcomeUnknown when it
    could not be found out within `seconds`, or when somebody else has changed a key since.
    """
    asked = {condition.key for condition in conditions}
    if not any(isinstance(write, Put) and write.key in asked for write in writes):
        raise ValueError("settle: a key that is put must be among the conditions")
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    doubt = StoreOutcomeUnknown("map store: the outcome of an earlier change is still not known") if doubted else None
    while True:
        try:
            return await store.commit(conditions, writes, lasting)
        except StoreOutcomeUnknown as error:
            doubt = error
        except StoreUnavailable:
            if doubt is None:
                raise
        except StoreConflict as error:
            if doubt is None:
                raise
            try:
                return await _ours(store, writes, error)
            except StoreUnavailable:
                pass
        if clock() >= deadline:
            raise doubt
        await asyncio.sleep(_PAUSE)


async def _ours(store: MapStore, writes: Sequence[Write], conflict: StoreConflict) -> int:
    """The version of our earlier commit, if that is what is there. Raises StoreOutcomeUnknown."""
    versions = set()
    for write in writes:
        entry = await store.get(write.key)
        if isinstance(write, Put):
            if entry is None or entry.value != decode(write.key, encode(write.value)):
                break
            versions.add(entry.version)
        elif entry is not None:
            break
    else:
        if len(versions) == 1 and ABSENT not in versions:
            return versions.pop()
    raise StoreOutcomeUnknown(
        f"{conflict}; whether our change was made before it is not known: begin anew with what is there"
    ) from conflict
