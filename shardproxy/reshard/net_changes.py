"""Many changes of rows to the least that must be done: for each key whether it was there, and its last image. Pure.

Rows are deleted first and inserted after: between two states that the source really had, that order can violate no
unique key, however values were swapped on the way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from shardproxy.errors import ReshardError
from shardproxy.reshard.binlog import Change


class NetChanges:
    """Of one table. Keys are primary keys as literals: equal bytes are equal keys, as rows are stored."""

    __slots__ = ("_keys", "table")

    def __init__(self, table: str) -> None:
        self.table = table
        self._keys: dict[bytes, tuple[bool, bytes | None]] = {}  # was there before, image after

    def add(self, changes: Iterable[Change], above: Collection[bytes] = ()) -> None:
        """Changes in the source's order. above: keys that are not copied yet; rows there are left alone.

        Raises ReshardError when the changes contradict each other: some are missing.
        """
        keys = self._keys
        for _, old, new, image in changes:
            if old is not None and old in above:
                old = None
            if new is not None and new in above:
                new = None
            if old is not None and old == new:
                before = keys.get(old)
                if before is None:
                    keys[old] = (True, image)
                elif before[1] is None:
                    self._contradiction(old, "changed after it was deleted")
                else:
                    keys[old] = (before[0], image)
                continue
            if old is not None:
                before = keys.get(old)
                if before is not None and before[1] is None:
                    self._contradiction(old, "deleted twice")
                keys[old] = (True if before is None else before[0], None)
            if new is not None:
                before = keys.get(new)
                if before is None:
                    keys[new] = (False, image)
                elif before[1] is not None:
                    self._contradiction(new, "inserted twice")
                else:
                    keys[new] = (before[0], image)

    def _contradiction(self, key: bytes, what: str) -> None:
        raise ReshardError(
            f"{self.table}: the binlog has the row {key[:200].decode('utf-8', 'backslashreplace')} {what}: changes are "
            "missing in it; the copy must be made anew"
        )

    def gone(self) -> list[bytes]:
        """Keys that must be deleted, changed rows among them."""
        return [key for key, (before, _) in self._keys.items() if before]

    def present(self) -> list[bytes]:
        """Images that must be inserted, after `gone` has been deleted."""
        return [image for _, image in self._keys.values() if image is not None]
