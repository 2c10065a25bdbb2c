"""From a Redis key to its node."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32


class RedisRing:
    """owners: bucket → node's place."""

    def __init__(self, owners: Sequence[int]) -> None:
        self.owners = list(owners)

    def node_of(self, key: bytes) -> int:
        """The node of a key, or of its hash tag."""
        begin = key.find(b"{")
        if begin >= 0:
            end = key.find(b"}", begin + 1)
            if end > begin + 1:
                key = key[begin + 1 : end]
        return self.owners[crc32(b"%d" % crc32(key)) & 4095]
