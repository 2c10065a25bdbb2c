"""What an orchestrator writes into `_shardproxy` on the shards of a move: tokens, fences, markers.

A stream has a number of its own in these tables, `number(move, i)`, because several may end on one shard; the fence of
a source has the number of the move, which is what proxies ask for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shardproxy.errors import BackendLost, NotOurs, ReshardError, SqlError
from shardproxy.reshard.bookkeeping import StreamName, transact
from shardproxy.reshard.columns import quote
from shardproxy.reshard.link import Link
from shardproxy.topology.model import Server

MOST_STREAMS = 10_000
_LOCKED = frozenset({1205, 3572})  # what NOWAIT says: MariaDB, MySQL
_DEADLOCK = 1213
_TRIES = 20  # each waits for a lock up to some seconds
_OPEN = 0  # an epoch that no map has
_LOOK = 0.002  # seconds between two looks at a lock


def number(move: int, stream: int) -> int:
    """The number of a stream in the tables of `_shardproxy`; different from every move's own."""
    return move * MOST_STREAMS + stream + 1


async def take(link: Link, keyspace: str, idents: list[int], generation: int) -> None:
    """Put our token on a shard (R1). Raises NotOurs when it has a later one."""
    listed = b", ".join(b"%d" % ident for ident in idents)
    rows = b", ".join(b"(%d, %s, %d)" % (ident, quote(keyspace.encode()), generation) for ident in idents)
    put = (
        b"INSERT INTO _shardproxy.move (move_id, keyspace, generation) VALUES %s ON DUPLICATE KEY UPDATE "
        b"writes = writes + 1, generation = GREATEST(generation, VALUES(generation))" % rows
    )
    look = b"SELECT MAX(generation) FROM _shardproxy.move WHERE move_id IN (%s)" % listed
    for _ in range(_TRIES):
        answers = await link.attempts((put, look, b"COMMIT"))
        failed = next((answer for answer in answers if isinstance(answer, SqlError)), None)
        if failed is None:
            found = answers[1]
            assert not isinstance(found, SqlError)
            highest = int(found.one()[0] or 0)
            if highest != generation:
                raise NotOurs(f"{link.server.name}: another orchestrator has the move (generation {highest})")
            return
        await link.query(b"ROLLBACK")
        if failed.code not in (1205, _DEADLOCK):
            raise failed
    raise BackendLost(f"{link.server.name}: the move's rows are locked by somebody else")


class Fence:
    """The fence of a move on one shard that gives keys away. name: of the transactions that change it."""

    def __init__(self, server: Server, move: int, name: StreamName) -> None:
        self._server, self._move, self._name = server, move, name

    async def lay(self, link: Link) -> None:
        """Have its row there before the map says that it is armed. While there is none, each writer that asks for it
        locks the gap in which it would be, again and again, and all of them together keep it from being made. link: of
        `open_writer`."""
        row = b"INSERT IGNORE INTO _shardproxy.fence (move_id, epoch) VALUES (%d, %d)" % (self._move, _OPEN)
        await transact(link, self._name, None, [row])

    async def arm(self, link: Link, epoch: int) -> None:
        """Let writers with this epoch through, and no others. It only ever grows. link: of `open_writer`."""
        await transact(
            link, self._name, None,
            [
                b"INSERT INTO _shardproxy.fence (move_id, epoch) VALUES (%d, %d) ON DUPLICATE KEY UPDATE "
                b"epoch = GREATEST(epoch, VALUES(epoch))" % (self._move, epoch)
            ],
        )  # fmt: skip
        look = b"SELECT epoch FROM _shardproxy.fence WHERE move_id = %d" % self._move
        [found] = (await link.queries((look, b"COMMIT")))[0].one()
        if int(found or 0) != epoch:
            raise ReshardError(
                f"{self._server.name}: the fence is at epoch {int(found or 0)} already, and the map at {epoch}: was "
                "the map store put back to an earlier state?"
            )

    async def close(self, link: Link, epoch: int, streams: Sequence[int]) -> None:
        """Wait until no transaction holds the fence, and raise it; wait until no branch that changed something is left
        in doubt; write the markers behind which the streams with these numbers are drained (steps 6 and 7). It may be
        cancelled. link: of `open_writer`.

        Mostly nothing has to be waited for, and it is one transaction. A branch that holds it up is waited for with the
        fence raised: else others would come.
        """
        free = b"SELECT epoch FROM _shardproxy.fence WHERE move_id = %d FOR UPDATE NOWAIT" % self._move
        raised = b"UPDATE _shardproxy.fence SET epoch = %d WHERE move_id = %d AND epoch <= %d" % (
            epoch + 1, self._move, epoch,
        )  # fmt: skip
        # A branch that is prepared has given its shared lock back; the row of its connection it has not (R6). No COUNT:
        # to that MySQL 9 says 0, not 3572, when a row is locked.
        share = b"LOCK IN SHARE MODE" if link.is_mariadb else b"FOR SHARE"
        resolved = b"SELECT SUM(branches) FROM _shardproxy.fence_slot %s NOWAIT" % share
        marked = markers(streams, epoch)
        if await self._if_free(link, (free, resolved), (raised, marked)):
            return
        for locks, changes in (((free,), (raised,)), ((resolved,), (marked,))):
            while True:
                if await self._if_free(link, locks, changes):
                    break
                await asyncio.sleep(_LOOK)

    async def _if_free(self, link: Link, locks: Sequence[bytes], changes: Sequence[bytes]) -> bool:
        """Take locks that nobody has, and commit changes; whether they could be had."""
        # The changes go out only after the locks' answers: behind a lock that was refused they would wait for it.
        claim, *locked = await link.attempts((self._name.claim, *locks))
        failed = next((answer for answer in (claim, *locked) if isinstance(answer, SqlError)), None)
        if failed is not None:
            await link.query(b"ROLLBACK")
            if failed.code not in _LOCKED and failed.code != _DEADLOCK:
                raise failed
            return False
        assert not isinstance(claim, SqlError)
        if claim.affected != 1:
            await link.query(b"ROLLBACK")
            raise NotOurs(f"{self._server.name}: another orchestrator has the move")
        await link.queries((*changes, b"COMMIT"))
        return True


def markers(streams: Sequence[int], epoch: int) -> bytes:
    """The statement that writes the markers behind which the streams with these numbers are drained."""
    rows = b", ".join(b"(%d, %d)" % (stream, epoch) for stream in streams)
    return b"INSERT INTO _shardproxy.marker (move_id, epoch) VALUES " + rows
