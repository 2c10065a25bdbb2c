"""What a map store can do, whichever it is.

A store holds *entries*: a key, a small JSON document, and the *version* that it got with its last change. The store as
a whole has a *revision*, one number that grows with every commit that changes something; an entry's version is the
revision of the commit that wrote it. So versions are never used twice, not even for a key that was deleted.

Three things can become of a change, and each has its error:

- `StoreConflict`: a condition did not hold. Nothing was changed.
- `StoreUnavailable`: the request did not get through. Nothing was changed.
- `StoreOutcomeUnknown`: the answer was lost. A change that waits in some queue may even be made later, after a read
  that does not show it yet. `store.settle` decides.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from shardproxy.errors import DocumentError

Document = Mapping[str, object]  # what JSON can hold, with strings for keys

ABSENT: Final = 0  # the version of a key that does not exist

MOST_WRITES = 100  # writes, or conditions, in one commit; etcd's own limit is 128 (--max-txn-ops)
MOST_BYTES = 1 << 20  # of all documents of one commit; etcd's own limit is 1.5 MiB (--max-request-bytes)
LONGEST_KEY = 512  # bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """A document under a key. version > 0."""

    key: str
    value: Document
    version: int


@dataclass(frozen=True, slots=True)
class Listing:
    """Entries in the order of their keys' bytes, all as of `revision`: watch from there, and nothing is missed."""

    entries: tuple[Entry, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Condition:
    """The key has this version, or `ABSENT`."""

    key: str
    version: int


@dataclass(frozen=True, slots=True)
class Put:
    """Write a document. lease: the entry vanishes with it."""

    key: str
    value: Document
    lease: str | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the key, if it exists."""

    key: str


Write = Put | Delete


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a key; `value` is None where it was deleted."""

    key: str
    value: Document | None


@dataclass(frozen=True, slots=True)
class Changes:
    """All that one commit changed under the prefix that is watched."""

    revision: int
    changes: tuple[Change, ...]


class MapStore(Protocol):
    """Every method answers, or raises, within the store's time-out; see the module for the errors of changes.

    Reads raise StoreUnavailable, and DocumentError where a value is no JSON document. A read sees every change that
    was acknowledged before it began, by whichever process.
    """

    async def get(self, key: str) -> Entry | None:
        """The entry, None if there is none."""
        ...

    async def list(self, prefix: str) -> Listing:
        """All entries whose keys begin with `prefix`."""
        ...

    async def put(self, key: str, value: Document, expect: int, lease: str | None = None) -> int:
        """Write the document if the key's version is `expect` (ABSENT: it does not exist). Returns its new version."""
        ...

    async def delete(self, key: str, expect: int) -> int:
        """Delete the key if its version is `expect`. Returns the store's revision then."""
        ...

    async def commit(self, conditions: Sequence[Condition], writes: Sequence[Write], lasting: bool = True) -> int:
        """Make all writes if all conditions hold, else none. Returns the revision: the version of all that was put.

        lasting: it survives a power cut. Without it a store that lies on one machine need not wait for the disk: such a
        commit may then be forgotten, with all that follow it up to the next lasting one, and only when the machine
        stops, which ends every process that knew of it too.

        No key may stand twice among the conditions, nor among the writes. Raises LeaseExpired for a lease that is gone
        (nothing was changed), ValueError for a commit that no store could take.
        """
        ...

    def watch(self, prefix: str, after: int) -> AsyncGenerator[Changes, None]:
        """All changes under `prefix` in commits after the revision `after`, in order, none twice, without an end.

        Raises WatchLost when some are not to be had any more; StoreUnavailable when the store has not answered for
        about its time-out: watch again, from the revision seen last. Close the generator (`contextlib.aclosing`).
        """
        ...

    async def grant(self, seconds: int) -> str:
        """A new lease. It ends when it is not renewed for `seconds` (≥ 2), or some seconds later.

        A lease is for showing who seems to live. That one has ended proves nothing: who held it may have been stopped,
        and go on.
        """
        ...

    async def renew(self, lease: str) -> None:
        """Let the lease begin anew. Raises LeaseExpired."""
        ...

    async def revoke(self, lease: str) -> None:
        """End the lease now, and its entries with it. Nothing happens if it has ended."""
        ...

    async def close(self) -> None:
        """Let go of everything; watches end with StoreUnavailable."""
        ...


# ── what the implementations share ──


def key_bytes(key: str) -> bytes:
    """A key as it is stored. Raises ValueError for one that no store takes."""
    data = key.encode()
    if not data or len(data) > LONGEST_KEY or "\0" in key:
        raise ValueError(f"a key of a map store has 1 to {LONGEST_KEY} bytes and no NUL, not {key!r}")
    return data


def prefix_end(prefix: bytes) -> bytes | None:
    """The first byte string after all that begin with `prefix`; None if there is none."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else None


def encode(value: Document) -> str:
    """A document as it is stored: the same for equal documents. Raises ValueError for what JSON cannot hold."""
    return json.dumps(dict(value), ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


def decode(key: str, text: str | bytes) -> Document:
    """The document that was stored under `key`. Raises DocumentError."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise DocumentError(f"map store: {key}: found no JSON ({error}); was it written by something else?") from error
    if not isinstance(value, dict):
        raise DocumentError(f"map store: {key}: found {type(value).__name__}; expected a JSON object")
    return value


def checked(conditions: Iterable[Condition], writes: Iterable[Write]) -> dict[str, str | None]:
    """Key → encoded document, None for a Delete. Raises ValueError for what `commit` does not take."""
    asked = [condition.key for condition in conditions]
    written: dict[str, str | None] = {}
    for write in writes:
        if write.key in written:
            raise ValueError(f"{write.key} is written twice in one commit")
        written[write.key] = encode(write.value) if isinstance(write, Put) else None
    if len(set(asked)) != len(asked):
        raise ValueError("two conditions of one commit are about the same key")
    for key in (*asked, *written):
        key_bytes(key)
    if max(len(asked), len(written)) > MOST_WRITES:
        raise ValueError(f"a commit has at most {MOST_WRITES} conditions, and as many writes")
    if sum(len(text.encode()) for text in written.values() if text) > MOST_BYTES:
        raise ValueError(f"the documents of one commit have at most {MOST_BYTES} bytes together")
    return written


def conflict_text(conditions: Iterable[Condition], found: Mapping[str, int]) -> str:
    """The message of a StoreConflict."""
    expected = {condition.key: condition.version for condition in conditions}
    lines = [f"{key} is {_named(version)}, expected {_named(expected[key])}" for key, version in found.items()]
    return f"map store: {'; '.join(lines)}: somebody else changed it"


def _named(version: int) -> str:
    return f"version {version}" if version else "absent"
