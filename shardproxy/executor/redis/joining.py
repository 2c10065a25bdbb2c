"""One reply out of the replies of several nodes."""

from __future__ import annotations

from collections.abc import Sequence

from shardproxy.backend.redis.slot import Joint, Slot, Turn
from shardproxy.errors import RemoteProtocolError
from shardproxy.merge.redis_replies import join_every, join_split
from shardproxy.planner.redis.spec import Join
from shardproxy.protocol.redis import encode
from shardproxy.protocol.redis.replies import ArrayReader, values_of
from shardproxy.router.redis import MANY, SLICE
from shardproxy.router.redis_scan import ScanWay, scan_reply


class JoinedReply(Joint):
    """Waits for the replies of several nodes, and gives the client the one that is made of them.

    whole: the client's slot. keys: for each part, which of the command's keys it has, in order; empty: every node got
    the whole command, `args`; for CURSOR one node did, `args` are its place, and `scan` is the way over the nodes. What
    is kept here is as many bytes as the client's reply has.
    """

    def __init__(
        self,
        turn: Turn,
        whole: Slot,
        join: Join,
        keys: list[list[int]],
        args: Sequence[bytes] = (),
        scan: ScanWay | None = None,
    ) -> None:
        self._turn = turn
        self._whole = whole
        self._join = join
        self._keys = keys
        self._args = args
        self._scan = scan
        self._parts: list[Slot] = []
        self._missing = 0

    def part(self) -> Slot:
        """The slot of one more node's reply. All are to be made before the first of them can come."""
        slot = Slot(None, 1)
        slot.joint = self
        self._parts.append(slot)
        self._missing += 1
        return slot

    def came(self, slot: Slot) -> None:
        if not slot.done:
            return
        self._missing -= 1
        if self._missing:
            return
        replies: list[bytes] = []
        for part in self._parts:
            replies.append(part.take())
            part.joint = None
        self._parts = []  # each knew the other: no need of a garbage collector to end them
        if self._join is Join.LIST and self._keys and _many(replies, self._keys):
            _ManyInOrder(self._turn, self._whole, replies, self._keys).step()
            return
        try:
            if self._join is Join.LIST and self._keys:
                data = _in_order(replies, self._keys)
            elif self._keys:
                data = join_split(self._join, replies, self._keys)
            elif self._scan is not None:
                data = scan_reply(replies[0], int(self._args[0]), self._scan)
            else:
                data = join_every(self._join, replies, self._args)
        except (RemoteProtocolError, ValueError) as error:
            data = _no_reply(error)
        self._whole.settle(self._turn, data)


def _no_reply(error: Exception) -> bytes:
    return encode.error(f"ERR shardproxy cannot make one reply of those of several nodes: {error}")


def _many(replies: list[bytes], keys: list[list[int]]) -> bool:
    """Whether to join arrays in slices: other clients would wait for them for long."""
    count = 0
    for numbers in keys:
        count += len(numbers)
    if count <= MANY:
        return False
    for reply in replies:  # noqa: SIM110  a generator would be made in each call
        if reply[0] != 42:
            return False
    return True


class _ManyInOrder:
    """Does `_in_order` in slices of the event loop, of replies that are arrays, and gives it to the client's slot."""

    def __init__(self, turn: Turn, whole: Slot, replies: list[bytes], keys: list[list[int]]) -> None:
        self._turn = turn
        self._whole = whole
        self._replies = replies
        self._keys = keys
        count = 0
        for numbers in keys:
            count += len(numbers)
        self._found: list[bytes] = [b""] * count
        self._place = -1  # of the reply whose values are taken …
        self._reader: ArrayReader | None = None
        self._done = 0  # … and how many of them were

    def step(self) -> None:
        """Some more of it."""
        try:
            if self._reader is None:
                self._begin()
            else:
                self._take(self._reader)
        except RemoteProtocolError as error:
            self._whole.settle(self._turn, _no_reply(error))
            return
        if self._reader is None and self._place == len(self._replies) - 1:
            self._whole.settle(self._turn, b"*%d\r\n%b" % (len(self._found), b"".join(self._found)))
            return
        self._turn.loop.call_soon(self.step)

    def _begin(self) -> None:
        self._place += 1
        self._done = 0
        reader = self._reader = ArrayReader(self._replies[self._place])
        if reader.left != len(self._keys[self._place]):
            raise RemoteProtocolError(f"{reader.left} values for {len(self._keys[self._place])} keys")

    def _take(self, reader: ArrayReader) -> None:
        values: list[bytes] = []
        reader.take(values, SLICE)
        numbers = self._keys[self._place]
        found = self._found
        at = self._done
        for i in range(len(values)):
            found[numbers[at + i]] = values[i]
        self._done = at + len(values)
        if reader.left <= 0:
            self._reader = None


def _in_order(replies: list[bytes], keys: list[list[int]]) -> bytes:
    """As join_split does it with Join.LIST, for MGET quicker. Raises RemoteProtocolError."""
    count = 0
    for numbers in keys:
        count += len(numbers)
    found: list[bytes] = [b""] * count
    for i in range(len(replies)):
        reply = replies[i]
        if reply[0] != 42:  # an error, as a rule
            return join_split(Join.LIST, replies, keys)
        numbers = keys[i]
        values = values_of(reply)
        if len(values) != len(numbers):
            raise RemoteProtocolError(f"{len(values)} values for {len(numbers)} keys")
        for j in range(len(numbers)):
            found[numbers[j]] = values[j]
    return b"*%d\r\n%b" % (count, b"".join(found))
