"""The rows that say where a stream is."""

from __future__ import annotations

import asyncio
import time

from shardproxy.reshard.bookkeeping import StreamName, open_writer, read_state, stream_inserts, transact
from shardproxy.reshard.link import connect
from tests.reshard.sides import LOGIN, Sides


def test_a_commit_under_way_is_waited_for(sides: Sides) -> None:
    """Our own, whose connection broke off: what was read before it would be taken for the doing of another."""
    target, name = sides.server(sides.target), StreamName(sides.move_id, "forward", 1)
    waits = "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"

    async def run() -> None:
        async with await open_writer(target, LOGIN) as ours, await open_writer(target, LOGIN) as anew:
            await transact(ours, name, None, stream_inserts(name, "user0", "1-1-1", ["t"], False))
            await ours.query(b"UPDATE _shardproxy.stream SET position = '1-1-2' WHERE " + name.where)
            reading = asyncio.create_task(read_state(anew, name))
            async with await connect(target, LOGIN) as watching:
                until = time.monotonic() + 4
                while (await watching.query(waits.encode())).one() != [b"1"] and time.monotonic() < until:
                    assert not reading.done(), reading.result()
            await ours.query(b"COMMIT")
            state = await reading
            assert state is not None and state.position == "1-1-2"

    asyncio.run(run())
