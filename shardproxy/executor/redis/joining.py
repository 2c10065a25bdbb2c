"""One reply out of the replies of several nodes."""

from __future__ import annotations

from collections.abc import Sequence

from shardproxy.backend.redis.slot import Joint, Slot, Turn
from shardproxy.planner.redis.spec import Join
from shardproxy.protocol.redis import encode
from shardproxy.protocol.redis.replies import elements


class SplitReply(Joint):
    """Waits for the parts of a command whose keys were split.

    whole: the client's slot. places: for each part, which of the command's keys it has, in order. The parts' replies
    are kept here; they are as many bytes as the client's reply.
    """

    def __init__(self, turn: Turn, whole: Slot, join: Join, places: Sequence[Sequence[int]]) -> None:
        self._turn = turn
        self._whole = whole
        self._join = join
        self._places = places
        self.parts: list[Slot] = []
        self._missing = len(places)

    def came(self, slot: Slot) -> None:
        if not slot.done:
            return
        self._missing -= 1
        if self._missing:
            return
        replies = [part.take() for part in self.parts]
        data = self._joined(replies)
        whole = self._whole
        whole.left = 0
        whole.done = True
        whole.add(data)
        taker = whole.taker
        if taker is not None:
            taker.held += len(data)
            self._turn.touch(taker)

    def _joined(self, replies: Sequence[bytes]) -> bytes:
        # The error of the part that has the first key: so would one server find it.
        wrong = [(places[0], reply) for places, reply in zip(self._places, replies, strict=True) if reply[:1] in b"-!"]
        if wrong:
            return min(wrong)[1]
        if self._join is Join.SUM:
            return encode.integer(sum(int(reply[1:-2]) for reply in replies))
        if self._join is Join.LIST:
            found: list[bytes] = [b""] * sum(map(len, self._places))
            for places, reply in zip(self._places, replies, strict=True):
                for place, element in zip(places, elements(reply), strict=True):
                    found[place] = element
            return encode.array(found)
        return replies[0]
