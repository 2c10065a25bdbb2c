"""The moving engine as a process that can be killed: `python -m tests.reshard.engine PLAN EPOCH`.

PLAN is a pickled StreamPlan. It ends with 0 when the marker of EPOCH has been applied (EPOCH 0: it never ends), with 3
when the stream cannot go on; the reason is on its standard error then.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import sys
from pathlib import Path

from shardproxy.errors import BackendError, ReshardError
from shardproxy.reshard.stream import Stream, StreamPlan, start_stream


async def run(plan: StreamPlan, epoch: int) -> None:
    await start_stream(plan)
    while True:
        with contextlib.suppress(BackendError):
            stream = await Stream.open(plan)
            try:
                await stream.copy()
                if epoch:
                    await stream.reach_marker(epoch)
                    return
                await stream.follow()
            finally:
                await stream.close()
        await asyncio.sleep(0.05)


def main() -> None:
    plan: StreamPlan = pickle.loads(Path(sys.argv[1]).read_bytes())
    try:
        asyncio.run(run(plan, int(sys.argv[2])))
    except ReshardError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    main()
